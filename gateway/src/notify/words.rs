//! The reason why a notice was suppressed, as text and as a stable name.

use fleetgate_engine::notify::Hold;

/// Returns the name, and the sentence for operators. `number` formats the id of a notice as the API
/// does.
pub(super) fn hold(why: Hold, number: impl Fn(i64) -> String) -> (&'static str, String) {
    match why {
        Hold::NoContact => (
            "no_contact",
            "nobody is told: there is no contact; set mail.to in fleetgate.toml, or add a contact and a rule"
                .to_owned(),
        ),
        Hold::NoRule => ("no_rule", "no rule's labels select this host".to_owned()),
        Hold::BelowSeverity(least) => {
            ("below_severity", format!("this contact is told from {} on", least.name()))
        }
        Hold::NeverTold => ("never_told", "this contact was not told of the problem".to_owned()),
        Hold::OverBefore(by) => (
            "over_before",
            format!("it was over ({}) before this contact was due to hear of it", number(by.0)),
        ),
        Hold::Over => (
            "over",
            "it was over before this contact was due to hear of it, and nothing is told of its end"
                .to_owned(),
        ),
        Hold::Acknowledged => {
            ("acknowledged", "somebody took care of it before this contact was due to hear of it".to_owned())
        }
        Hold::Superseded(by) => ("superseded", format!("{} took its place", number(by.0))),
        Hold::AlreadyTold => {
            ("already_told", "it changed and changed back while this contact was told nothing".to_owned())
        }
        Hold::OutsidePeriod => {
            ("outside_period", "of passing interest only, and outside of the rule's time period".to_owned())
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
            ("over_before", "it was over (n_7) before this contact was due to hear of it")
        );
    }
}
