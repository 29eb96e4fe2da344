//! Routing rules: the contact that a notice goes to.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::time::Wall;
use crate::wire::{GATEWAY, MessageKind};

use super::{ContactId, Notice, Period, RuleId};

/// The severity of a state; a greater one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Unknown,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 3] = [Severity::Warning, Severity::Unknown, Severity::Critical];

    /// Returns the severity of a state by its name; a host that is down is as severe as a critical
    /// service. `None`: the state is no problem.
    pub fn of_state(name: &str) -> Option<Severity> {
        match name {
            "warning" => Some(Severity::Warning),
            "unknown" => Some(Severity::Unknown),
            "critical" | "down" => Some(Severity::Critical),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Unknown => "unknown",
            Severity::Critical => "critical",
        }
    }
}

/// Labels that a host must have, all of them; `*` matches any value. Empty: every host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.missing(labels).is_none()
    }

    /// Returns the first label that a host lacks, with the required value.
    fn missing(&self, labels: &BTreeMap<String, String>) -> Option<(&str, &str)> {
        let has = |key, wanted: &str| labels.get(key).is_some_and(|has| wanted == "*" || has == wanted);
        let missing = self.0.iter().find(|(key, wanted)| !has(key.as_str(), wanted))?;
        Some((missing.0, missing.1))
    }
}

/// A rule: the hosts, the lowest severity, the time period and the delay for a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    pub contact: ContactId,
    pub selector: Selector,
    /// The lowest severity that is notified.
    pub least: Severity,
    /// The time period, in the contact's time zone; `None`: always.
    pub period: Option<Period>,
    /// Notifies only problems that last longer than this without an acknowledgement.
    pub delay: Duration,
}

impl Rule {
    /// Whether the rule selects the notice's host. The gateway has no labels, so every rule selects
    /// it.
    pub fn selects(&self, notice: &Notice) -> bool {
        notice.object.host == GATEWAY || self.selector.matches(&notice.labels)
    }

    /// Returns when the time period is open, at `from` or later.
    pub fn opens(&self, from: Wall, zone: &TimeZone) -> Wall {
        self.period.as_ref().map_or(from, |period| period.next(from, zone))
    }

    /// Returns why the rule does not send a notice now, apart from its delay; `None`: it does.
    pub fn refusal(&self, notice: &Notice, zone: &TimeZone, now: Wall) -> Option<Refusal<'_>> {
        if !self.selects(notice) {
            return self.selector.missing(&notice.labels).map(|(key, wanted)| Refusal::Label { key, wanted });
        }
        if !self.is_severe_enough(notice) {
            return Some(Refusal::Mild(self.least));
        }
        let opens = self.opens(now, zone);
        (opens > now).then_some(Refusal::Closed(opens))
    }

    /// Whether the severity is high enough; a notice without a state always passes.
    pub fn is_severe_enough(&self, notice: &Notice) -> bool {
        notice.severity.is_none_or(|severity| severity >= self.least)
    }
}

/// Why a rule does not send a notice now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The host lacks this label, or has another value; `*` matches any.
    Label { key: &'a str, wanted: &'a str },
    /// The rule requires this severity or a higher one.
    Mild(Severity),
    /// The time period begins at this time.
    Closed(Wall),
}

/// The class of a notice for the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Problem,
    Recovery,
    /// For contacts that were notified of the problem; sent now or not at all.
    Reminder,
    /// The same as a reminder; it also ends the delay for contacts not yet notified.
    Acknowledged,
    /// For all contacts that a rule for this host selects.
    Downtime,
}

impl Class {
    pub fn of(notice: &Notice) -> Class {
        match (notice.kind, notice.severity) {
            (MessageKind::Problem | MessageKind::FlappingStart, _) => Class::Problem,
            (MessageKind::FlappingEnd, Some(_)) => Class::Problem,
            (MessageKind::Recovery | MessageKind::FlappingEnd, _) => Class::Recovery,
            (MessageKind::Reminder, _) => Class::Reminder,
            (MessageKind::Acknowledged, _) => Class::Acknowledged,
            (MessageKind::DowntimeStart | MessageKind::DowntimeEnd | MessageKind::DowntimeCancelled, _) => {
                Class::Downtime
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_selector_wants_all_its_labels() {
        let labels = map(&[("site", "north"), ("kind", "camera")]);
        for (selector, matches) in [
            (map(&[]), true),
            (map(&[("site", "north")]), true),
            (map(&[("site", "*"), ("kind", "camera")]), true),
            (map(&[("site", "south")]), false),
            (map(&[("site", "north"), ("role", "*")]), false),
        ] {
            assert_eq!(Selector(selector.clone()).matches(&labels), matches, "{selector:?}");
        }
    }

    #[test]
    fn a_host_that_is_down_is_critical_and_unknown_is_worse_than_warning() {
        assert_eq!(Severity::of_state("down"), Severity::of_state("critical"));
        assert!(Severity::of_state("unknown") > Severity::of_state("warning"));
        assert_eq!(Severity::of_state("up"), None);
    }
}
