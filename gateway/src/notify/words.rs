//! The reason why a notice was suppressed, as text and as a stable name.

use fleetgate_engine::notify::Hold;

/// All names of the reasons that [`hold`] gives beside those of the monitor.
pub const REASONS: [&str; 13] = [
    "no_contact",
    "no_rule",
    "below_severity",
    "never_notified",
    "over_before",
    "over",
    "acknowledged",
    "superseded",
    "already_notified",
    "outside_period",
    "contact_removed",
    "host_removed",
    "service_removed",
];

/// The name, and the sentence for people; `number` names a notice as the API does.
pub(super) fn hold(why: Hold, number: impl Fn(i64) -> String) -> (&'static str, String) {
    match why {
        Hold::NoContact => (
            "no_contact",
            "notification suppressed: no contact; set mail.to in fleetgate.toml, or add a contact and a rule"
                .to_owned(),
        ),
        Hold::NoRule => ("no_rule", "no rule selects this host".to_owned()),
        Hold::BelowSeverity(least) => {
            ("below_severity", format!("this contact is notified from {} on", least.name()))
        }
        Hold::NeverTold => ("never_notified", "this contact was not notified of the problem".to_owned()),
        Hold::OverBefore(by) => (
            "over_before",
            format!("it recovered ({}) before the notification to this contact was due", number(by.0)),
        ),
        Hold::Over => (
            "over",
            "it recovered before the notification to this contact was due, and recoveries are not notified"
                .to_owned(),
        ),
        Hold::Acknowledged => {
            ("acknowledged", "it was acknowledged before the notification to this contact was due".to_owned())
        }
        Hold::Superseded(by) => ("superseded", format!("{} took its place", number(by.0))),
        Hold::AlreadyTold => (
            "already_notified",
            "the state changed and changed back before this contact was notified".to_owned(),
        ),
        Hold::OutsidePeriod => {
            ("outside_period", "outside of the rule's time period, and not kept until it opens".to_owned())
        }
        Hold::Untimely(why) => (why.name(), why.words().to_owned()),
        Hold::ContactRemoved => ("contact_removed", "the contact was removed while it waited".to_owned()),
        Hold::HostRemoved => ("host_removed", "the host was removed while it waited".to_owned()),
        Hold::ServiceRemoved => ("service_removed", "the service was removed while it waited".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::notify::NoticeId;

    use super::*;

    #[test]
    fn a_reason_names_the_notice_that_made_it() {
        let (name, text) = hold(Hold::OverBefore(NoticeId(7)), |n| format!("n_{n}"));
        assert_eq!(
            (name, text.as_str()),
            ("over_before", "it recovered (n_7) before the notification to this contact was due")
        );
    }
}
