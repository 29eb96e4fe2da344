//! Resources of the file that an operator has removed or renamed.
//!
//! Pure. Gives the resources of the file their present names, and removes references to resources
//! that are not to be created again. The plan decides which those are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::plan::{Desired, Existing, Policy, ResourceKind};

/// The author and time of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub by: String,
    pub at: String,
    /// The present name, if the resource was renamed.
    pub renamed_to: Option<String>,
}

impl Removed {
    pub fn words(&self, kind: ResourceKind) -> String {
        let Removed { by, at, renamed_to } = self;
        match (renamed_to, kind) {
            (Some(name), _) => format!("renamed to {name} by {by} at {at}"),
            (None, ResourceKind::Downtime) => format!("cancelled by {by} at {at}"),
            (None, _) => format!("removed by {by} at {at}"),
        }
    }
}

/// Returns the contents of the file with present names.
pub fn settle(wanted: Vec<Desired>, found: &[Existing], policy: &Policy) -> Vec<Desired> {
    let renamed = renamed(&wanted, found, policy);
    let mut wanted: Vec<Desired> = wanted.into_iter().map(|w| call(w, &renamed)).collect();
    let gone = gone(&wanted, found, policy);
    for w in &mut wanted {
        w.without = leads_to(w).filter(|host| gone.contains(*host)).map(str::to_owned);
        if let Some(parents) = w.fields.get_mut("parents").and_then(Value::as_array_mut) {
            parents.retain(|parent| parent.as_str().is_none_or(|name| !gone.contains(name)));
        }
    }
    wanted
}

/// The namespaces: devices and hosts share one, contacts have another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Host,
    Contact,
    Rule,
}

fn space(kind: ResourceKind) -> Option<Space> {
    match kind {
        ResourceKind::Device | ResourceKind::Host => Some(Space::Host),
        ResourceKind::Contact => Some(Space::Contact),
        ResourceKind::NotificationRule => Some(Space::Rule),
        ResourceKind::Profile
        | ResourceKind::ProfileRules
        | ResourceKind::Service
        | ResourceKind::Downtime
        | ResourceKind::Grant => None,
    }
}

/// Maps names of the file to present ones, unless those belong to another resource of the file.
fn renamed(wanted: &[Desired], found: &[Existing], policy: &Policy) -> BTreeMap<(Space, String), String> {
    let is_in_file = |kind: ResourceKind, name: &str| {
        wanted.iter().any(|w| space(w.kind) == space(kind) && w.name == name)
    };
    let is_there = |kind: ResourceKind, name: &str| {
        let own = |f: &Existing| f.removed.is_none() && f.managed_by == policy.manager;
        found.iter().any(|f| f.kind == kind && f.name == name && own(f))
    };
    let names = found.iter().filter_map(|f| {
        let to = f.removed.as_ref()?.renamed_to.as_ref()?;
        let fine = is_there(f.kind, to) && !is_in_file(f.kind, to) && is_in_file(f.kind, &f.name);
        fine.then(|| Some(((space(f.kind)?, f.name.clone()), to.clone())))?
    });
    names.collect()
}

fn call(mut w: Desired, renamed: &BTreeMap<(Space, String), String>) -> Desired {
    let today = |space: Space, name: &str| renamed.get(&(space, name.to_owned()));
    let field = |w: &mut Desired, field: &str, space: Space| {
        let now = w.fields.get(field).and_then(Value::as_str).and_then(|name| today(space, name));
        w.fields.extend(now.map(|now| (field.to_owned(), json!(now))));
    };
    field(&mut w, "via", Space::Host);
    field(&mut w, "host", Space::Host);
    field(&mut w, "contact", Space::Contact);
    if let Some(host) = w.fields.get_mut("target").and_then(|target| target.get_mut("host"))
        && let Some(now) = host.as_str().and_then(|name| today(Space::Host, name))
    {
        *host = json!(now);
    }
    for parent in w.fields.get_mut("parents").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(now) = parent.as_str().and_then(|name| today(Space::Host, name)) {
            *parent = json!(now);
        }
    }
    if let (ResourceKind::Service, Some((host, service))) = (w.kind, w.name.split_once('/')) {
        w.name = today(Space::Host, host).map(|now| format!("{now}/{service}")).unwrap_or(w.name);
    }
    if let Some(now) = space(w.kind).and_then(|space| today(space, &w.name)) {
        let before = std::mem::replace(&mut w.name, now.clone());
        w.fields.insert("name".to_owned(), json!(before));
        w.named = Some(before);
    }
    w
}

/// Returns devices and hosts of the file that were removed and stay removed. A host goes with its
/// device.
fn gone(wanted: &[Desired], found: &[Existing], policy: &Policy) -> BTreeSet<String> {
    let is_removed = |w: &Desired| {
        let same = |f: &&Existing| f.kind == w.kind && f.name == w.name;
        !policy.overwrite && found.iter().find(same).is_some_and(|f| f.removed.is_some())
    };
    let is_there = |w: &Desired| found.iter().any(|f| f.kind == w.kind && f.name == w.name);
    let hosts = |kind: ResourceKind| wanted.iter().filter(move |w| w.kind == kind);
    let devices = hosts(ResourceKind::Device).filter(|w| is_removed(w)).map(|w| w.name.clone());
    let mut gone: BTreeSet<String> = devices.collect();
    let behind = hosts(ResourceKind::Host).filter(|w| {
        let with_it = !is_there(w) && leads_to(w).is_some_and(|via| gone.contains(via));
        is_removed(w) || with_it
    });
    let behind: Vec<String> = behind.map(|w| w.name.clone()).collect();
    gone.extend(behind);
    gone
}

/// Returns the host that a resource requires.
fn leads_to(w: &Desired) -> Option<&str> {
    match w.kind {
        ResourceKind::Host => w.fields.get("via").and_then(Value::as_str),
        ResourceKind::Downtime => w.fields.get("host").and_then(Value::as_str),
        ResourceKind::Grant => w.fields.get("target").and_then(|target| target["host"].as_str()),
        ResourceKind::Service => w.name.split('/').next(),
        ResourceKind::Profile
        | ResourceKind::ProfileRules
        | ResourceKind::Contact
        | ResourceKind::NotificationRule
        | ResourceKind::Device => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Act, plan, testing::*};
    use super::super::report::render;
    use super::*;

    fn removed(kind: ResourceKind, name: &str, to: Option<&str>) -> Existing {
        let removed = Removed { by: "user:ann".into(), at: "T".into(), renamed_to: to.map(str::to_owned) };
        Existing { removed: Some(removed), id: Some("g_1".into()), ..found(kind, name, json!({})) }
    }

    fn site() -> Vec<Desired> {
        vec![
            wanted(ResourceKind::Device, "cam", json!({ "parents": ["router"] })),
            wanted(ResourceKind::Device, "router", json!({})),
            wanted(ResourceKind::Host, "nas", json!({ "via": "router", "address": "10.0.0.1" })),
            wanted(ResourceKind::Service, "nas/ping", json!({ "disabled": true })),
            wanted(ResourceKind::Downtime, "move", json!({ "host": "router" })),
        ]
    }

    #[test]
    fn what_was_removed_stays_so_with_what_needs_it() {
        let found =
            [removed(ResourceKind::Device, "router", None), found(ResourceKind::Device, "cam", json!({}))];
        let steps = plan(&settle(site(), &found, &policy()), &found, &policy());
        let expected = "! device router: removed by user:ann at T, and not recreated; --overwrite creates it \
                        again, with new keys\n\
                        ! host nas: skipped: router does not exist\n\
                        ! service nas/ping: skipped: nas does not exist\n\
                        ! downtime move: skipped: router does not exist\n";
        assert_eq!(render(&steps), expected);
    }

    #[test]
    fn what_was_removed_is_made_again_when_that_is_said() {
        let policy = Policy { overwrite: true, ..policy() };
        let found =
            [removed(ResourceKind::Device, "router", None), found(ResourceKind::Device, "cam", json!({}))];
        let steps = plan(&settle(site(), &found, &policy), &found, &policy);
        let made: Vec<_> = steps.iter().filter(|s| s.act == Act::Make).map(|s| s.name.as_str()).collect();
        assert_eq!(made, ["router", "nas", "nas/ping", "move"]);
        assert_eq!(steps[0].fields["parents"], json!(["router"]));
    }

    #[test]
    fn a_removal_that_the_file_does_not_name_is_forgotten() {
        let found = [removed(ResourceKind::Device, "old", None)];
        let steps = plan(&settle(Vec::new(), &found, &policy()), &found, &policy());
        assert_eq!(steps[0].act, Act::Forget);
        let expected = "~ device old: removed by user:ann at T; not in the file, and forgotten\n";
        assert_eq!(render(&steps), expected);
    }

    #[test]
    fn another_name_is_a_change_like_others() {
        let there = [
            removed(ResourceKind::Device, "router", Some("gate")),
            found(ResourceKind::Device, "cam", json!({ "parents": ["gate"] })),
            Existing {
                edited_by: Some("user:ann".into()),
                ..found(ResourceKind::Device, "gate", json!({ "name": "gate" }))
            },
            found(ResourceKind::Host, "nas", json!({ "via": "gate", "address": "10.0.0.1" })),
            found(ResourceKind::Service, "nas/ping", json!({ "disabled": true })),
            found(ResourceKind::Downtime, "move", json!({ "host": "gate" })),
        ];
        let steps = plan(&settle(site(), &there, &policy()), &there, &policy());
        let expected = "! device gate: kept, changed by user:ann; --overwrite restores the version of the file\n      \
                        name: \"gate\" -> \"router\"\n";
        assert_eq!(render(&steps), expected);
    }
}
