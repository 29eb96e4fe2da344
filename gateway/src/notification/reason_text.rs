//! The reason why a notice was suppressed, as text and as a stable name.

use fleetgate_engine::notification::NotSent;

/// Returns the name, and the sentence for operators. `number` formats the id of a notice as the API
/// does.
pub(in crate::notification) fn hold(why: NotSent, number: impl Fn(i64) -> String) -> (&'static str, String) {
    match why {
        NotSent::NoContact => (
            "no_contact",
            "nobody is told: there is no contact; set mail.to in fleetgate.toml, or add a contact and a rule"
                .to_owned(),
        ),
        NotSent::NoRule => ("no_rule", "no rule's labels select this host".to_owned()),
        NotSent::BelowSeverity(least) => {
            ("below_severity", format!("this contact is told from {} on", least.name()))
        }
        NotSent::NeverTold => ("never_told", "this contact was not told of the problem".to_owned()),
        NotSent::OverBefore(by) => (
            "over_before",
            format!("it was over ({}) before this contact was due to hear of it", number(by.0)),
        ),
        NotSent::Over => (
            "over",
            "it was over before this contact was due to hear of it, and nothing is told of its end"
                .to_owned(),
        ),
        NotSent::Acknowledged => {
            ("acknowledged", "somebody took care of it before this contact was due to hear of it".to_owned())
        }
        NotSent::Superseded(by) => ("superseded", format!("{} took its place", number(by.0))),
        NotSent::AlreadyTold => {
            ("already_told", "it changed and changed back while this contact was told nothing".to_owned())
        }
        NotSent::OutsidePeriod => {
            ("outside_period", "of passing interest only, and outside of the rule's time period".to_owned())
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
    fn a_reason_names_the_notice_that_made_it() {
        let (name, text) = hold(NotSent::OverBefore(NoticeId(7)), |n| format!("n_{n}"));
        assert_eq!(
            (name, text.as_str()),
            ("over_before", "it was over (n_7) before this contact was due to hear of it")
        );
    }
}
