//! The reason why a notice was suppressed, as text and as a stable name.

use fleetgate_engine::notification::NotSent;

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
pub(in crate::notification) fn hold(why: NotSent, number: impl Fn(i64) -> String) -> (&'static str, String) {
    match why {
        NotSent::NoContact => (
            "no_contact",
            "notification suppressed: no contact; set mail.to in fleetgate.toml, or add a contact and a rule"
                .to_owned(),
        ),
        NotSent::NoRule => ("no_rule", "no rule selects this host".to_owned()),
        NotSent::BelowSeverity(least) => {
            ("below_severity", format!("this contact is notified from {} on", least.name()))
        }
        NotSent::NeverTold => ("never_notified", "this contact was not notified of the problem".to_owned()),
        NotSent::OverBefore(by) => (
            "over_before",
            format!("it recovered ({}) before the notification to this contact was due", number(by.0)),
        ),
        NotSent::Over => (
            "over",
            "it recovered before the notification to this contact was due, and recoveries are not notified"
                .to_owned(),
        ),
        NotSent::Acknowledged => {
            ("acknowledged", "it was acknowledged before the notification to this contact was due".to_owned())
        }
        NotSent::Superseded(by) => ("superseded", format!("{} took its place", number(by.0))),
        NotSent::AlreadyTold => (
            "already_notified",
            "the state changed and changed back before this contact was notified".to_owned(),
        ),
        NotSent::OutsidePeriod => {
            ("outside_period", "outside of the rule's time period, and not kept until it opens".to_owned())
        }
        NotSent::Untimely(why) => (why.name(), why.words().to_owned()),
        NotSent::ContactRemoved => ("contact_removed", "the contact was removed while it waited".to_owned()),
        NotSent::HostRemoved => ("host_removed", "the host was removed while it waited".to_owned()),
        NotSent::ServiceRemoved => ("service_removed", "the service was removed while it waited".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::notification::NoticeId;

    use super::*;

    #[test]
    fn a_reason_names_the_notification_that_caused_it() {
        let (name, text) = hold(NotSent::OverBefore(NoticeId(7)), |n| format!("n_{n}"));
        assert_eq!(
            (name, text.as_str()),
            ("over_before", "it recovered (n_7) before the notification to this contact was due")
        );
    }
}
