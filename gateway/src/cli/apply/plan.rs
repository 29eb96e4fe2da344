//! What is to be done so that a fleet becomes what a file says: a list of steps, and how it reads.
//!
//! Decides only; nothing is asked and nothing is written here. A program touches what it manages; what
//! people changed by hand since is kept and told, unless they want it otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::absent::Removed;
use super::differences::{self, Difference};
use super::ends::{self, Fleet};
use super::lines::Lines;

/// In the order in which things are made; they are removed the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Profile,
    ProfileRules,
    Contact,
    /// Which contact is told of which hosts.
    NotificationRule,
    Device,
    Host,
    /// A difference of one service of one host; its name is `host/service`.
    Service,
    Downtime,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Profile => "profile",
            Kind::ProfileRules => "profile rules",
            Kind::Contact => "contact",
            Kind::NotificationRule => "notification rule",
            Kind::Device => "device",
            Kind::Host => "host",
            Kind::Service => "service",
            Kind::Downtime => "downtime",
        }
    }

    /// Whether what the file does not say of it stays as it is.
    pub const fn is_partial(self) -> bool {
        matches!(self, Kind::Contact | Kind::NotificationRule | Kind::Device | Kind::Host)
    }

    /// Whether its end is more than a setting: a tunnel, a history that stops.
    const fn needs_prune(self) -> bool {
        matches!(self, Kind::Device | Kind::Host)
    }
}

/// Something that the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub kind: Kind,
    pub name: String,
    pub fields: Map<String, Value>,
    pub line: usize,
    pub lines: Lines,
    /// What it needs, and that is kept away.
    pub without: Option<String>,
    /// Its name in the file, where a person has given it another.
    pub named: Option<String>,
}

impl Wanted {
    pub fn new(kind: Kind, name: String, fields: Map<String, Value>, line: usize) -> Wanted {
        Wanted { kind, name, fields, line, lines: Lines::default(), without: None, named: None }
    }
}

/// Something that is there, or that a person has taken away.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub kind: Kind,
    pub name: String,
    pub fields: Map<String, Value>,
    pub managed_by: String,
    pub edited_by: Option<String>,
    pub version: Option<i64>,
    /// Of a kind that has no path by its name; of a removal its own, as long as it can be forgotten.
    pub id: Option<String>,
    /// Another of its name has taken its place, and it was not ended yet.
    pub former: bool,
    pub removed: Option<Removed>,
}

/// Who applies, and how far it may go.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub manager: String,
    /// Also over what people changed or removed by hand.
    pub overwrite: bool,
    /// Also what somebody else manages.
    pub adopt: bool,
    /// Also the end of devices and hosts.
    pub prune: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Make,
    Change,
    /// As it should be, but managed by somebody else so far.
    Adopt,
    Remove,
    /// That a person removed it means nothing any more.
    Forget,
    /// Differs, and is left alone.
    Keep,
}

/// One thing that differs, and what becomes of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Step {
    pub kind: Kind,
    pub name: String,
    pub act: Act,
    pub differences: Vec<Difference>,
    /// Why it is kept, or what a person did about it.
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
    /// Of what is removed: those that have it as a parent, and of which the file knows that.
    #[serde(skip)]
    pub losers: Vec<String>,
}

/// Steps in the order in which they can be done.
pub fn plan(wanted: &[Wanted], found: &[Found], policy: &Policy) -> Vec<Step> {
    let there: BTreeMap<(Kind, &str), &Found> =
        found.iter().filter(|f| !f.former).map(|f| ((f.kind, f.name.as_str()), f)).collect();
    let named: BTreeSet<(Kind, &str)> = wanted
        .iter()
        .flat_map(|w| w.named.iter().chain([&w.name]).map(|name| (w.kind, name.as_str())))
        .collect();
    let hosts: BTreeSet<&str> =
        wanted.iter().filter(|w| w.kind.needs_prune()).map(|w| w.name.as_str()).collect();
    let made = wanted.iter().filter_map(|w| match there.get(&(w.kind, w.name.as_str())) {
        Some(Found { removed: Some(removed), .. }) => Some(taken_away(w, removed, policy)),
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

fn step(of: (Kind, &str), act: Act) -> Step {
    let (differences, fields) = (Vec::new(), Map::new());
    Step {
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

fn make(w: &Wanted) -> Step {
    let differences = differences::compare(w, &Map::new());
    let (fields, lines) = (w.fields.clone(), w.lines.clone());
    Step { differences, fields, line: w.line, lines, ..step((w.kind, &w.name), Act::Make) }
}

fn absent(w: &Wanted, host: &str) -> Step {
    let why = format!("{host} does not exist, so nothing is done");
    Step { why, line: w.line, ..step((w.kind, &w.name), Act::Keep) }
}

fn taken_away(w: &Wanted, removed: &Removed, policy: &Policy) -> Step {
    let words = removed.words(w.kind);
    if policy.overwrite {
        return Step { why: words, ..make(w) };
    }
    let keys = w.kind == Kind::Device && !w.fields.contains_key("public_key");
    let keys = keys && w.fields.get("tunnel").is_none_or(|t| *t == Value::Bool(true));
    let again = if keys { "it again, with new keys" } else { "it again" };
    let why = format!("{words}, and not recreated; --overwrite creates {again}");
    Step { why, line: w.line, ..step((w.kind, &w.name), Act::Keep) }
}

fn differing(w: &Wanted, found: &Found, policy: &Policy) -> Option<Step> {
    let differences = differences::compare(w, &found.fields);
    let is_own = found.managed_by == policy.manager;
    // Rules are always there; as long as nobody has written any they are nobody's.
    let is_free = found.kind == Kind::ProfileRules && found.version == Some(1);
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
    Some(Step { differences, why, fields, line, lines, version, id, ..step((w.kind, &w.name), act) })
}

/// What the file does not name (any more).
fn leftover(found: &Found, hosts: &BTreeSet<&str>, policy: &Policy) -> Option<Step> {
    if found.former {
        let (why, id) = ("replaced by another one".to_owned(), found.id.clone());
        return Some(Step { why, id, ..step((found.kind, &found.name), Act::Remove) });
    }
    if let Some(removed) = &found.removed {
        return found.id.is_some().then(|| forget(found, removed));
    }
    let is_own = found.managed_by == policy.manager;
    let host = found.name.split('/').next().unwrap_or_default();
    let by_hand = found.kind == Kind::Service && hosts.contains(host);
    let (act, why) = match &found.edited_by {
        _ if !is_own && !by_hand => return None,
        _ if found.kind == Kind::ProfileRules && found.fields.get("rules").is_none_or(is_empty) => {
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
    if act == Act::Keep && found.kind == Kind::Service {
        differences = differences::from(&found.fields);
    }
    let (version, id) = (found.version, found.id.clone());
    Some(Step { differences, why, version, id, ..step((found.kind, &found.name), act) })
}

fn forget(found: &Found, removed: &Removed) -> Step {
    let why = format!("{}; not in the file, and forgotten", removed.words(found.kind));
    Step { why, id: found.id.clone(), ..step((found.kind, &found.name), Act::Forget) }
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// What tests of plans are made of.
#[cfg(test)]
pub mod testing {
    use super::*;

    pub fn policy() -> Policy {
        Policy { manager: "apply".into(), ..Policy::default() }
    }

    pub fn wanted(kind: Kind, name: &str, fields: Value) -> Wanted {
        Wanted::new(kind, name.into(), fields.as_object().cloned().unwrap_or_default(), 1)
    }

    pub fn found(kind: Kind, name: &str, fields: Value) -> Found {
        let fields = fields.as_object().cloned().unwrap_or_default();
        let (managed_by, edited_by) = ("apply".to_owned(), None);
        Found {
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

    fn acts(steps: &[Step]) -> Vec<(Act, &str)> {
        steps.iter().map(|s| (s.act, s.name.as_str())).collect()
    }

    #[test]
    fn what_is_as_the_file_says_needs_nothing() {
        let w = wanted(Kind::Device, "a", json!({ "labels": { "k": "v" }, "interval_s": 5, "notes": "" }));
        let f =
            found(Kind::Device, "a", json!({ "labels": { "k": "v" }, "interval_s": 5.0, "route": "auto" }));
        assert!(plan(&[w], &[f], &policy()).is_empty());
    }

    #[test]
    fn differences_read_well() {
        let limit = |warn: &str| json!({ "thresholds": [{ "metric": "used", "warn": warn }] });
        let wants = [
            wanted(Kind::Device, "a", json!({ "labels": { "site": "hill" } })),
            wanted(Kind::Service, "a/disk", limit("80")),
            wanted(Kind::Device, "b", json!({ "notes": "new" })),
        ];
        let there = [
            found(Kind::Device, "a", json!({ "labels": { "site": "sea", "old": "x" } })),
            found(Kind::Service, "a/disk", limit("90")),
            found(Kind::Profile, "old", json!({})),
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
        let wants = [wanted(Kind::Device, "a", json!({})), wanted(Kind::Service, "a/disk", limit("80"))];
        let night =
            Found { edited_by: Some("user:ann".into()), ..found(Kind::Service, "a/disk", limit("95")) };
        let own =
            Found { managed_by: "api".into(), ..found(Kind::Service, "a/load", json!({ "disabled": true })) };
        let there = [found(Kind::Device, "a", json!({})), night, own];
        let steps = plan(&wants, &there, &policy());
        assert_eq!(acts(&steps), [(Act::Keep, "a/disk"), (Act::Keep, "a/load")]);
        let text = render(&steps);
        assert!(text.contains("! service a/disk: kept, changed by user:ann; --overwrite"), "{text}");
        let steps = plan(&wants, &there, &Policy { overwrite: true, ..policy() });
        assert_eq!(acts(&steps), [(Act::Change, "a/disk"), (Act::Remove, "a/load")]);
    }

    #[test]
    fn what_others_manage_is_left_alone() {
        let wants = [wanted(Kind::Device, "a", json!({ "notes": "x" }))];
        let there = [
            Found { managed_by: "api".into(), ..found(Kind::Device, "a", json!({ "notes": "y" })) },
            Found { managed_by: "api".into(), ..found(Kind::Device, "b", json!({})) },
            found(Kind::Device, "c", json!({})),
        ];
        let steps = plan(&wants, &there, &policy());
        assert_eq!(acts(&steps), [(Act::Keep, "a"), (Act::Keep, "c")]);
        let steps = plan(&wants, &there, &Policy { adopt: true, prune: true, ..policy() });
        assert_eq!(acts(&steps), [(Act::Change, "a"), (Act::Remove, "c")]);
    }

    #[test]
    fn a_profile_comes_after_those_that_it_extends() {
        let wants = [
            wanted(Kind::Profile, "a", json!({ "extends": ["b", "default"] })),
            wanted(Kind::Profile, "b", json!({ "extends": ["c"] })),
            wanted(Kind::Profile, "c", json!({})),
        ];
        assert_eq!(plan(&wants, &[], &policy()).iter().map(|s| s.name.as_str()).collect::<String>(), "cba");
    }
}
