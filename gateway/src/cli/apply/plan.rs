//! The plan that turns the fleet into that of the file: a list of steps.
//!
//! This module only decides. It neither reads nor writes. A program touches only its own resources.
//! Changes by hand are kept and reported, unless the operator wants them overwritten.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::absent::Removed;
use super::differences::{self, Difference};
use super::ends::{self, Fleet};
use super::lines::Lines;

/// The kinds in the order of creation. Removal uses the reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    Profile,
    ProfileRules,
    Contact,
    /// A notification rule: a contact and a selection of hosts.
    NotificationRule,
    Device,
    Host,
    /// An override of one service of one host. Its name is `host/service`.
    Service,
    Downtime,
    Grant,
}

impl ResourceKind {
    pub const fn name(self) -> &'static str {
        match self {
            ResourceKind::Profile => "profile",
            ResourceKind::ProfileRules => "profile rules",
            ResourceKind::Contact => "contact",
            ResourceKind::NotificationRule => "notification rule",
            ResourceKind::Device => "device",
            ResourceKind::Host => "host",
            ResourceKind::Service => "service",
            ResourceKind::Downtime => "downtime",
            ResourceKind::Grant => "grant",
        }
    }

    /// Whether fields that the file does not give stay as they are.
    pub const fn is_partial(self) -> bool {
        matches!(
            self,
            ResourceKind::Contact
                | ResourceKind::NotificationRule
                | ResourceKind::Device
                | ResourceKind::Host
        )
    }

    /// Whether its removal ends more than a setting, such as a tunnel or a history.
    const fn needs_prune(self) -> bool {
        matches!(self, ResourceKind::Device | ResourceKind::Host)
    }
}

/// A resource of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub kind: ResourceKind,
    pub name: String,
    pub fields: Map<String, Value>,
    pub line: usize,
    pub lines: Lines,
    /// The required host that stays removed.
    pub without: Option<String>,
    /// Its name in the file, if an operator has renamed it.
    pub named: Option<String>,
}

impl Desired {
    pub fn new(kind: ResourceKind, name: String, fields: Map<String, Value>, line: usize) -> Desired {
        let lines = Lines::default();
        Desired { kind, name, fields, line, lines, without: None, named: None }
    }
}

/// An existing resource, or one that an operator has removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Existing {
    pub kind: ResourceKind,
    pub name: String,
    pub fields: Map<String, Value>,
    pub managed_by: String,
    pub edited_by: Option<String>,
    pub version: Option<i64>,
    /// The id of a resource without a path by name, or of a removal that can be forgotten.
    pub id: Option<String>,
    /// A new downtime of its name has replaced it, but it was not ended yet.
    pub former: bool,
    pub removed: Option<Removed>,
}

/// The manager of the run, and its permissions.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub manager: String,
    /// Overwrites changes and removals by hand.
    pub overwrite: bool,
    /// Takes over resources of other managers.
    pub adopt: bool,
    /// Removes devices and hosts.
    pub prune: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Make,
    Change,
    /// Matches the file but has another manager.
    Adopt,
    Remove,
    /// Forgets that an operator removed it.
    Forget,
    /// Differs and is left alone.
    Keep,
}

/// A difference and the action for it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PlanStep {
    pub kind: ResourceKind,
    pub name: String,
    pub act: Act,
    pub differences: Vec<Difference>,
    /// The reason for keeping it, or the change by hand.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(skip)]
    pub fields: Map<String, Value>,
    #[serde(skip)]
    pub line: usize,
    #[serde(skip)]
    pub lines: Lines,
    #[serde(skip)]
    pub version: Option<i64>,
    #[serde(skip)]
    pub id: Option<String>,
    /// For a removal: the hosts that lose it as a parent according to the file.
    #[serde(skip)]
    pub losers: Vec<String>,
}

/// Returns the steps in a possible order.
pub fn plan(wanted: &[Desired], found: &[Existing], policy: &Policy) -> Vec<PlanStep> {
    let there: BTreeMap<(ResourceKind, &str), &Existing> =
        found.iter().filter(|f| !f.former).map(|f| ((f.kind, f.name.as_str()), f)).collect();
    let named: BTreeSet<(ResourceKind, &str)> = wanted
        .iter()
        .flat_map(|w| w.named.iter().chain([&w.name]).map(|name| (w.kind, name.as_str())))
        .collect();
    let hosts: BTreeSet<&str> =
        wanted.iter().filter(|w| w.kind.needs_prune()).map(|w| w.name.as_str()).collect();
    let made = wanted.iter().filter_map(|w| match there.get(&(w.kind, w.name.as_str())) {
        Some(Existing { removed: Some(removed), .. }) => Some(taken_away(w, removed, policy)),
        Some(found) => differing(w, found, policy),
        None => Some(w.without.as_ref().map_or_else(|| make(w), |host| absent(w, host))),
    });
    let mut steps = ends::inherited_first(made.collect());
    let gone = found
        .iter()
        .filter(|f| f.former || !named.contains(&(f.kind, f.name.as_str())))
        .filter_map(|f| leftover(f, &hosts, policy));
    let gone = Fleet { found, made: &steps, named: &named }.ends(gone.collect());
    steps.extend(gone);
    steps
}

fn step(of: (ResourceKind, &str), act: Act) -> PlanStep {
    let (differences, fields) = (Vec::new(), Map::new());
    PlanStep {
        kind: of.0,
        name: of.1.to_owned(),
        act,
        differences,
        why: String::new(),
        fields,
        line: 0,
        lines: Lines::default(),
        version: None,
        id: None,
        losers: Vec::new(),
    }
}

fn make(w: &Desired) -> PlanStep {
    let differences = differences::compare(w, &Map::new());
    let (fields, lines) = (w.fields.clone(), w.lines.clone());
    PlanStep { differences, fields, line: w.line, lines, ..step((w.kind, &w.name), Act::Make) }
}

fn absent(w: &Desired, host: &str) -> PlanStep {
    let why = format!("skipped: {host} does not exist");
    PlanStep { why, line: w.line, ..step((w.kind, &w.name), Act::Keep) }
}

fn taken_away(w: &Desired, removed: &Removed, policy: &Policy) -> PlanStep {
    let words = removed.words(w.kind);
    if policy.overwrite {
        return PlanStep { why: words, ..make(w) };
    }
    let keys = w.kind == ResourceKind::Device && !w.fields.contains_key("public_key");
    let keys = keys && w.fields.get("tunnel").is_none_or(|t| *t == Value::Bool(true));
    let again = if keys { "it again, with new keys" } else { "it again" };
    let why = format!("{words}, and not recreated; --overwrite creates {again}");
    PlanStep { why, line: w.line, ..step((w.kind, &w.name), Act::Keep) }
}

fn differing(w: &Desired, found: &Existing, policy: &Policy) -> Option<PlanStep> {
    let differences = differences::compare(w, &found.fields);
    let is_own = found.managed_by == policy.manager;
    // The rules always exist. Until their first write, they have no manager.
    let is_free = found.kind == ResourceKind::ProfileRules && found.version == Some(1);
    let (act, why) = match &found.edited_by {
        _ if differences.is_empty() && is_own => return None,
        _ if !is_own && !is_free && !policy.adopt => {
            let by = &found.managed_by;
            (Act::Keep, format!("kept, managed by {by}; --adopt takes it over"))
        }
        Some(who) if is_own && !policy.overwrite => {
            (Act::Keep, format!("kept, changed by {who}; --overwrite restores the version of the file"))
        }
        _ if differences.is_empty() => (Act::Adopt, String::new()),
        _ => (Act::Change, String::new()),
    };
    let fields = differences::patched(w, &found.fields);
    let (line, lines, version, id) = (w.line, w.lines.clone(), found.version, found.id.clone());
    Some(PlanStep { differences, why, fields, line, lines, version, id, ..step((w.kind, &w.name), act) })
}

/// Returns the step for a resource that the file does not name (any more).
fn leftover(found: &Existing, hosts: &BTreeSet<&str>, policy: &Policy) -> Option<PlanStep> {
    if found.former {
        let (why, id) = ("replaced by another one".to_owned(), found.id.clone());
        return Some(PlanStep { why, id, ..step((found.kind, &found.name), Act::Remove) });
    }
    if let Some(removed) = &found.removed {
        return found.id.is_some().then(|| forget(found, removed));
    }
    let is_own = found.managed_by == policy.manager;
    let host = found.name.split('/').next().unwrap_or_default();
    let by_hand = found.kind == ResourceKind::Service && hosts.contains(host);
    let (act, why) = match &found.edited_by {
        _ if !is_own && !by_hand => return None,
        _ if found.kind == ResourceKind::ProfileRules && found.fields.get("rules").is_none_or(is_empty) => {
            return None;
        }
        _ if !is_own && !policy.overwrite => {
            (Act::Keep, "kept, set by hand; --overwrite goes back to the profile".to_owned())
        }
        Some(who) if !policy.overwrite => {
            (Act::Keep, format!("kept, no longer in the file, but changed by {who}; --overwrite removes it"))
        }
        _ if found.kind.needs_prune() && !policy.prune => {
            (Act::Keep, "kept, no longer in the file; --prune removes it".to_owned())
        }
        _ => (Act::Remove, String::new()),
    };
    let mut differences = Vec::new();
    if act == Act::Keep && found.kind == ResourceKind::Service {
        differences = differences::from(&found.fields);
    }
    let (version, id) = (found.version, found.id.clone());
    Some(PlanStep { differences, why, version, id, ..step((found.kind, &found.name), act) })
}

fn forget(found: &Existing, removed: &Removed) -> PlanStep {
    let why = format!("{}; not in the file, and forgotten", removed.words(found.kind));
    PlanStep { why, id: found.id.clone(), ..step((found.kind, &found.name), Act::Forget) }
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// Helpers for tests of plans.
#[cfg(test)]
pub mod testing {
    use super::*;

    pub fn policy() -> Policy {
        Policy { manager: "apply".into(), ..Policy::default() }
    }

    pub fn wanted(kind: ResourceKind, name: &str, fields: Value) -> Desired {
        Desired::new(kind, name.into(), fields.as_object().cloned().unwrap_or_default(), 1)
    }

    pub fn found(kind: ResourceKind, name: &str, fields: Value) -> Existing {
        let fields = fields.as_object().cloned().unwrap_or_default();
        let (managed_by, edited_by) = ("apply".to_owned(), None);
        Existing {
            kind,
            name: name.into(),
            fields,
            managed_by,
            edited_by,
            version: Some(2),
            id: None,
            former: false,
            removed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::{render, summary};
    use super::testing::*;
    use super::*;

    fn acts(steps: &[PlanStep]) -> Vec<(Act, &str)> {
        steps.iter().map(|s| (s.act, s.name.as_str())).collect()
    }

    #[test]
    fn what_is_as_the_file_says_needs_nothing() {
        let w = wanted(
            ResourceKind::Device,
            "a",
            json!({ "labels": { "k": "v" }, "interval_s": 5, "notes": "" }),
        );
        let f = found(
            ResourceKind::Device,
            "a",
            json!({ "labels": { "k": "v" }, "interval_s": 5.0, "route": "auto" }),
        );
        assert!(plan(&[w], &[f], &policy()).is_empty());
    }

    #[test]
    fn differences_read_well() {
        let limit = |warn: &str| json!({ "thresholds": [{ "metric": "used", "warn": warn }] });
        let wants = [
            wanted(ResourceKind::Device, "a", json!({ "labels": { "site": "hill" } })),
            wanted(ResourceKind::Service, "a/disk", limit("80")),
            wanted(ResourceKind::Device, "b", json!({ "notes": "new" })),
        ];
        let there = [
            found(ResourceKind::Device, "a", json!({ "labels": { "site": "sea", "old": "x" } })),
            found(ResourceKind::Service, "a/disk", limit("90")),
            found(ResourceKind::Profile, "old", json!({})),
        ];
        let expected = "~ device a\n      labels.old: \"x\" -> none\n      labels.site: \"sea\" -> \"hill\"\n\
                        ~ service a/disk\n      thresholds.used.warn: \"90\" -> \"80\"\n\
                        + device b\n      notes: \"new\"\n- profile old\n";
        let steps = plan(&wants, &there, &policy());
        assert_eq!(render(&steps), expected);
        assert_eq!(summary(&steps).as_deref(), Some("1 to create, 2 to change, 1 to remove"));
    }

    #[test]
    fn what_was_changed_by_hand_is_kept_unless_told_otherwise() {
        let limit = |warn: &str| json!({ "thresholds": [{ "metric": "used", "warn": warn }] });
        let wants = [
            wanted(ResourceKind::Device, "a", json!({})),
            wanted(ResourceKind::Service, "a/disk", limit("80")),
        ];
        let night = Existing {
            edited_by: Some("user:ann".into()),
            ..found(ResourceKind::Service, "a/disk", limit("95"))
        };
        let own = Existing {
            managed_by: "api".into(),
            ..found(ResourceKind::Service, "a/load", json!({ "disabled": true }))
        };
        let there = [found(ResourceKind::Device, "a", json!({})), night, own];
        let steps = plan(&wants, &there, &policy());
        assert_eq!(acts(&steps), [(Act::Keep, "a/disk"), (Act::Keep, "a/load")]);
        let text = render(&steps);
        assert!(text.contains("! service a/disk: kept, changed by user:ann; --overwrite"), "{text}");
        let steps = plan(&wants, &there, &Policy { overwrite: true, ..policy() });
        assert_eq!(acts(&steps), [(Act::Change, "a/disk"), (Act::Remove, "a/load")]);
    }

    #[test]
    fn what_others_manage_is_left_alone() {
        let wants = [wanted(ResourceKind::Device, "a", json!({ "notes": "x" }))];
        let there = [
            Existing {
                managed_by: "api".into(),
                ..found(ResourceKind::Device, "a", json!({ "notes": "y" }))
            },
            Existing { managed_by: "api".into(), ..found(ResourceKind::Device, "b", json!({})) },
            found(ResourceKind::Device, "c", json!({})),
        ];
        let steps = plan(&wants, &there, &policy());
        assert_eq!(acts(&steps), [(Act::Keep, "a"), (Act::Keep, "c")]);
        let steps = plan(&wants, &there, &Policy { adopt: true, prune: true, ..policy() });
        assert_eq!(acts(&steps), [(Act::Change, "a"), (Act::Remove, "c")]);
    }

    #[test]
    fn a_profile_comes_after_those_that_it_extends() {
        let wants = [
            wanted(ResourceKind::Profile, "a", json!({ "extends": ["b", "default"] })),
            wanted(ResourceKind::Profile, "b", json!({ "extends": ["c"] })),
            wanted(ResourceKind::Profile, "c", json!({})),
        ];
        assert_eq!(plan(&wants, &[], &policy()).iter().map(|s| s.name.as_str()).collect::<String>(), "cba");
    }
}
