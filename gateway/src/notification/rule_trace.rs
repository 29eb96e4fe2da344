//! Describes the rules that were evaluated for a notice, and why each did not match. Pure.

use fleetgate_engine::notification::{Notice, Refusal, Rule};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

/// Rules that are named; the text only counts the rest.
const NAMED: usize = 20;

/// A rule with its name.
#[derive(Clone, Debug)]
pub(in crate::notification) struct EvaluatedRule {
    pub rule: Rule,
    pub name: String,
    /// The name of its contact.
    pub to: String,
    pub zone: TimeZone,
}

/// Returns `rule nights (to ops) notifies ..., next from 2026-03-10 20:00 CET; ...`.
pub(in crate::notification) fn words<'a>(
    asked: impl Iterator<Item = &'a EvaluatedRule>,
    notice: &Notice,
    now: Wall,
) -> String {
    let mut all: Vec<String> = asked.filter_map(|asked| asked.words(notice, now)).collect();
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join("; ")
}

impl EvaluatedRule {
    fn words(&self, notice: &Notice, now: Wall) -> Option<String> {
        let why = match self.rule.refusal(notice, &self.zone, now)? {
            Refusal::Label { key, wanted } => lacks(notice, key, wanted),
            Refusal::Mild(least) => {
                let state = notice.severity.map_or_else(String::new, |s| format!(", this is {}", s.name()));
                format!("notifies from {} on{state}", least.name())
            }
            Refusal::Closed(until) => {
                let period = self.rule.period.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("notifies {period}, next from {}", time(until, &self.zone))
            }
        };
        Some(format!("rule {} (to {}) {why}", self.name, self.to))
    }
}

fn lacks(notice: &Notice, key: &str, wanted: &str) -> String {
    match notice.labels.get(key) {
        Some(has) => format!("requires {key}={wanted}, this host has {key}={has}"),
        None if wanted == "*" => format!("requires a label {key}, this host has none"),
        None => format!("requires {key}={wanted}, this host has no {key}"),
    }
}

fn time(at: Wall, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::MessageKind;
    use fleetgate_engine::notification::{CheckableId, NoticeId, Selector, Severity};

    use super::*;

    fn rule(name: &str, labels: &[(&str, &str)]) -> EvaluatedRule {
        let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let rule = Rule {
            id: Id::from_i64(1),
            contact: Id::from_i64(1),
            selector: Selector(labels),
            least: Severity::Warning,
            period: None,
            delay: Duration::ZERO,
        };
        EvaluatedRule { rule, name: name.into(), to: "ops".into(), zone: TimeZone::UTC }
    }

    /// A notice of a camera in the north, on Thursday, 1 January 1970.
    fn warning() -> Notice {
        Notice {
            id: NoticeId(1),
            at: Wall::from_millis(0),
            object: CheckableId::host(Id::from_i64(7)),
            labels: Arc::new([("kind".to_owned(), "camera".to_owned())].into()),
            kind: MessageKind::Problem,
            severity: Some(Severity::Warning),
            incident: None,
        }
    }

    fn said(asked: &[EvaluatedRule]) -> String {
        words(asked.iter(), &warning(), Wall::from_millis(0))
    }

    #[test]
    fn each_rule_states_why_it_did_not_match() {
        let severe = Rule { least: Severity::Critical, ..rule("x", &[]).rule };
        let nights = Rule { period: Some("mon-sun 20:00-06:00".parse().unwrap()), ..rule("x", &[]).rule };
        let noon = Wall::from_millis(12 * 3_600_000);
        let asked = [
            rule("nas", &[("kind", "nas")]),
            rule("north", &[("site", "north")]),
            rule("any", &[("site", "*")]),
            EvaluatedRule { rule: severe, ..rule("severe", &[]) },
            EvaluatedRule { rule: nights, ..rule("nights", &[]) },
            rule("all", &[]),
        ];
        let words = words(asked.iter(), &warning(), noon);
        let words: Vec<&str> = words.split("; ").collect();
        assert_eq!(
            words,
            [
                "rule nas (to ops) requires kind=nas, this host has kind=camera",
                "rule north (to ops) requires site=north, this host has no site",
                "rule any (to ops) requires a label site, this host has none",
                "rule severe (to ops) notifies from critical on, this is warning",
                "rule nights (to ops) notifies mon-sun 20:00-06:00, next from 1970-01-01 20:00 UTC",
            ]
        );
    }

    #[test]
    fn many_rules_are_counted() {
        let asked = vec![rule("nas", &[("kind", "nas")]); 23];
        let words = said(&asked);
        assert_eq!((words.split("; ").count(), words.ends_with("; and 3 more")), (21, true));
    }
}
