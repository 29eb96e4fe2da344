//! Which contact a notice concerns, by one rule.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::time::Wall;
use crate::wire::{GATEWAY, MessageKind};

use super::{ContactId, Notice, Period, RuleId};

/// How bad a state is; a greater one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Unknown,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 3] = [Severity::Warning, Severity::Unknown, Severity::Critical];

    /// Of a state by its name; a host that is down is as bad as a service that is critical. `None`:
    /// nothing is wrong.
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

/// Labels that a host must have, all of them; `*` takes any value. Empty: every host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.missing(labels).is_none()
    }

    /// The first that a host with these labels lacks: its key, and what is wanted of it.
    fn missing(&self, labels: &BTreeMap<String, String>) -> Option<(&str, &str)> {
        let has = |key, wanted: &str| labels.get(key).is_some_and(|has| wanted == "*" || has == wanted);
        let missing = self.0.iter().find(|(key, wanted)| !has(key.as_str(), wanted))?;
        Some((missing.0, missing.1))
    }
}

/// Who is told of which hosts, from which severity on, when, and after how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    pub contact: ContactId,
    pub selector: Selector,
    /// The mildest state that is told.
    pub least: Severity,
    /// In the contact's time zone; `None`: always.
    pub period: Option<Period>,
    /// Only what lasts longer than this without an acknowledgement.
    pub delay: Duration,
}

impl Rule {
    /// The gateway has no labels and is above them: whoever is told of any host is told of it.
    pub fn selects(&self, notice: &Notice) -> bool {
        notice.object.host == GATEWAY || self.selector.matches(&notice.labels)
    }

    /// When it lets something through, at `from` or later.
    pub fn opens(&self, from: Wall, zone: &TimeZone) -> Wall {
        self.period.as_ref().map_or(from, |period| period.next(from, zone))
    }

    /// What keeps it from telling a notice now; `None`: nothing does, its delay aside.
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

    /// What tells no state of its own passes.
    pub fn is_severe_enough(&self, notice: &Notice) -> bool {
        notice.severity.is_none_or(|severity| severity >= self.least)
    }
}

/// Why a rule does not tell a notice now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The host lacks this label, or has another value; `*` stands for any.
    Label { key: &'a str, wanted: &'a str },
    /// It wants this or worse.
    Mild(Severity),
    /// Its time period begins then.
    Closed(Wall),
}

/// What a notice is to the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Problem,
    Recovery,
    /// To whoever was told of the problem, now or not at all.
    Reminder,
    /// As a reminder; and whoever was not told yet need not be.
    Acknowledged,
    /// To whoever is told of this host at all.
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
