//! Checks whether the planned resources fit together: profiles with each other, services with
//! profiles, addresses with networks, and hosts with their parents.
//!
//! Pure. The check runs before the first change, because the gateway would report an error only in
//! the middle of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fleetgate_engine::monitor::profile::{BadCatalogue, Catalogue, Profile, ProfileRule, builtin};
use fleetgate_engine::notification::Selector;
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::plan::{Act, Existing, PlanStep, ResourceKind};
use crate::store::definition;

/// A conflict, and its step.
pub struct Misfit {
    pub of: (ResourceKind, String),
    pub field: String,
    pub what: String,
}

type Fields<'a> = &'a Map<String, Value>;

/// All resources after the run, by kind and name.
pub struct Future<'a>(
    BTreeMap<(ResourceKind, &'a str), Fields<'a>>,
    BTreeMap<(ResourceKind, &'a str), Fields<'a>>,
);

impl<'a> Future<'a> {
    pub fn of(steps: &'a [PlanStep], found: &'a [Existing]) -> Self {
        let there = found.iter().filter(|f| f.removed.is_none() && !f.former);
        let was: BTreeMap<_, _> = there.map(|f| ((f.kind, f.name.as_str()), &f.fields)).collect();
        let (mut now, mut before) = (was, BTreeMap::new());
        for step in steps {
            let key = (step.kind, step.name.as_str());
            match step.act {
                Act::Make | Act::Change | Act::Adopt => {
                    before.extend(now.insert(key, &step.fields).map(|was| (key, was)));
                }
                Act::Remove => before.extend(now.remove(&key).map(|was| (key, was))),
                Act::Forget | Act::Keep => {}
            }
        }
        Future(now, before)
    }

    /// Returns a field. A field that the file does not give stays as it was.
    fn field(&self, kind: ResourceKind, name: &str, field: &str) -> Option<&'a Value> {
        let of = |all: &BTreeMap<(ResourceKind, &'a str), Fields<'a>>| {
            all.get(&(kind, name)).and_then(|f| f.get(field))
        };
        of(&self.0).or_else(|| of(&self.1))
    }

    fn names(&self, kind: ResourceKind) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter(move |(k, _)| *k == kind).map(|(_, name)| *name)
    }

    /// # Errors
    /// Returns the first conflict.
    pub fn fits(&self, steps: &[PlanStep]) -> Result<(), Misfit> {
        let catalogue = self.catalogue()?;
        self.nothing_is_before_itself()?;
        for step in steps.iter().filter(|s| matches!(s.act, Act::Make | Act::Change)) {
            match step.kind {
                ResourceKind::Service => self.has_a_check(step, &catalogue)?,
                ResourceKind::Host => self.is_within_reach(step)?,
                ResourceKind::Downtime => self.has_its_service(step, &catalogue)?,
                ResourceKind::Device => has_what_its_budget_is_of(step)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn catalogue(&self) -> Result<Catalogue, Misfit> {
        let is_own = |name: &&str| !builtin().iter().any(|p| p.name == **name);
        let own = self.names(ResourceKind::Profile).filter(is_own).map(|name| self.profile(name));
        let rules = self.rules().iter().map(|rule| ProfileRule {
            selector: Selector(serde_json::from_value(rule["labels"].clone()).unwrap_or_default()),
            profile: rule["profile"].as_str().unwrap_or_default().to_owned(),
        });
        Catalogue::new(own.collect(), rules.collect()).map_err(|bad| {
            let (of, field) = match &bad {
                BadCatalogue::Unknown(..) => {
                    ((ResourceKind::ProfileRules, String::new()), "rules".to_owned())
                }
                BadCatalogue::UnknownParent { profile, .. } | BadCatalogue::Cycle(profile, _) => {
                    ((ResourceKind::Profile, profile.clone()), "extends".to_owned())
                }
                BadCatalogue::NoCheck { profile, service } => {
                    ((ResourceKind::Profile, profile.clone()), format!("services.{service}"))
                }
                BadCatalogue::TooMany(profile) => {
                    ((ResourceKind::Profile, profile.clone()), "services".to_owned())
                }
            };
            Misfit { of, field, what: bad.to_string() }
        })
    }

    fn profile(&self, name: &str) -> Profile {
        let services = self.field(ResourceKind::Profile, name, "services").and_then(Value::as_object);
        let services = services.into_iter().flatten();
        let extends = self.field(ResourceKind::Profile, name, "extends").and_then(Value::as_array);
        Profile {
            name: name.to_owned(),
            summary: String::new(),
            extends: extends.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            services: services.filter_map(|(s, value)| definition::parse_service(s, value).ok()).collect(),
            ..Profile::default()
        }
    }

    /// Checks that the service has a check of its own or in a profile of its host.
    fn has_a_check(&self, step: &PlanStep, catalogue: &Catalogue) -> Result<(), Misfit> {
        let says =
            step.fields.contains_key("check") || step.fields.get("disabled") == Some(&Value::Bool(true));
        let Some((host, service)) = step.name.split_once('/').filter(|_| !says) else { return Ok(()) };
        let (known, names) = self.by_profile(host, service, catalogue);
        known.then_some(()).ok_or_else(|| {
            let what = "give it a check";
            misfit(step, "", format!("the profiles of {host} ({names}) have no service {service}: {what}"))
        })
    }

    /// Returns whether a host's profiles have a service, and their names.
    fn by_profile(&self, host: &str, service: &str, catalogue: &Catalogue) -> (bool, String) {
        let of = |field: &str| {
            [ResourceKind::Device, ResourceKind::Host].into_iter().find_map(|k| self.field(k, host, field))
        };
        let own = of("profile").and_then(Value::as_str).filter(|name| !name.is_empty());
        let labels: BTreeMap<String, String> =
            of("labels").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
        let profiles = catalogue.of_host(own, &labels);
        (catalogue.offers(&profiles, service), profiles.join(", "))
    }

    /// Checks that a downtime for one service names a service of its host.
    fn has_its_service(&self, step: &PlanStep, catalogue: &Catalogue) -> Result<(), Misfit> {
        let text = |field: &str| step.fields.get(field).and_then(Value::as_str);
        let (Some(host), Some(service)) = (text("host"), text("service")) else { return Ok(()) };
        let (known, names) = self.by_profile(host, service, catalogue);
        let own = self.field(ResourceKind::Service, &format!("{host}/{service}"), "check").is_some();
        // The services of a host named by its id are unknown here.
        (known || own || host.contains('_')).then_some(()).ok_or_else(|| {
            let what =
                format!("service: {host} has no service {service}, by its profiles ({names}) or of its own");
            misfit(step, "service", what)
        })
    }

    /// Checks that the address of a host lies in a network of its device.
    fn is_within_reach(&self, step: &PlanStep) -> Result<(), Misfit> {
        let text = |field: &str| self.field(ResourceKind::Host, &step.name, field).and_then(Value::as_str);
        let (Some(via), Some(address)) = (text("via"), text("address")) else { return Ok(()) };
        let expected = format!("{address:?}: an IP address is expected, such as 192.168.1.5");
        let address: IpAddr =
            address.parse().map_err(|_| misfit(step, "address", format!("address: {expected}")))?;
        if self.0.contains_key(&(ResourceKind::Host, via)) {
            return Err(misfit(step, "via", format!("via: {via} is not a device, so it has no tunnel")));
        }
        if !self.0.contains_key(&(ResourceKind::Device, via)) {
            return Ok(());
        }
        if self.field(ResourceKind::Device, via, "tunnel") == Some(&Value::Bool(false)) {
            let what = format!("via: {via} has no tunnel, so no host can be reached through it");
            return Err(misfit(step, "via", what));
        }
        let networks = self.field(ResourceKind::Device, via, "networks").and_then(Value::as_array);
        let mut networks = networks.into_iter().flatten().filter_map(|n| n.as_str()?.parse::<IpNet>().ok());
        let what =
            format!("address: {address} is in none of the networks behind {via}: add its network there");
        networks.any(|net| net.contains(&address)).then_some(()).ok_or_else(|| misfit(step, "address", what))
    }

    /// Returns a remaining resource that needs one to be removed. `users`: hosts that name a
    /// profile.
    fn needs(&self, step: &PlanStep, users: &BTreeMap<String, String>) -> Option<String> {
        let name = &step.name;
        match step.kind {
            ResourceKind::Contact => self.rule_for(name).map(|rule| format!("notification rule {rule}")),
            ResourceKind::Profile => {
                let heir = self.heir_of(name).map(|heir| format!("profile {heir}"));
                let rules = || self.is_in_rules(name).then(|| "a profile rule".to_owned());
                heir.or_else(rules).or_else(|| self.host_by(name, users).map(|host| format!("host {host}")))
            }
            _ => None,
        }
    }

    fn heir_of(&self, profile: &str) -> Option<&'a str> {
        let extends =
            |heir: &&str| self.field(ResourceKind::Profile, heir, "extends").and_then(Value::as_array);
        self.names(ResourceKind::Profile)
            .find(|heir| extends(heir).is_some_and(|list| list.iter().any(|e| e == profile)))
    }

    fn is_in_rules(&self, profile: &str) -> bool {
        self.rules().iter().any(|rule| rule["profile"] == profile)
    }

    fn rules(&self) -> &'a [Value] {
        let fields = self.0.get(&(ResourceKind::ProfileRules, ""));
        fields.and_then(|fields| fields.get("rules")?.as_array()).map_or(&[], Vec::as_slice)
    }

    fn rule_for(&self, contact: &str) -> Option<&'a str> {
        let of = |rule: &&str| self.field(ResourceKind::NotificationRule, rule, "contact");
        self.names(ResourceKind::NotificationRule)
            .find(|rule| of(rule).and_then(Value::as_str) == Some(contact))
    }

    fn host_by<'b>(&self, profile: &str, users: &'b BTreeMap<String, String>) -> Option<&'b str> {
        let kinds = [ResourceKind::Device, ResourceKind::Host];
        let uses = |(host, now): &(&'b String, &'b String)| {
            let will_be = kinds.into_iter().find_map(|kind| self.field(kind, host, "profile"));
            let is_gone = !kinds.iter().any(|kind| self.0.contains_key(&(*kind, host.as_str())))
                && kinds.iter().any(|kind| self.1.contains_key(&(*kind, host.as_str())));
            !is_gone && will_be.map_or(now.as_str() == profile, |name| name.as_str() == Some(profile))
        };
        users.iter().find(uses).map(|(host, _)| host.as_str())
    }

    fn nothing_is_before_itself(&self) -> Result<(), Misfit> {
        let hosts = [ResourceKind::Device, ResourceKind::Host];
        let all = hosts.into_iter().flat_map(|kind| self.names(kind).map(move |name| (kind, name)));
        let mut before: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        for (kind, name) in all {
            let parents = self.field(kind, name, "parents").and_then(Value::as_array);
            let parents = parents.into_iter().flatten().filter_map(Value::as_str);
            let via = self.field(kind, name, "via").and_then(Value::as_str);
            before.insert(name, parents.chain(via).collect());
            kinds.insert(name, kind);
        }
        let mut clear = BTreeSet::new();
        match before.keys().find_map(|name| circle(name, &before, &mut clear)) {
            None => Ok(()),
            Some(names) => Err(Misfit {
                of: (kinds[names[0]], names[0].to_owned()),
                field: "parents".to_owned(),
                what: format!("parents: {} is its own parent ({})", names[0], names.join(" behind ")),
            }),
        }
    }
}

fn misfit(step: &PlanStep, field: &str, what: String) -> Misfit {
    Misfit { of: (step.kind, step.name.clone()), field: field.to_owned(), what }
}

/// Checks that a budget belongs to a device with a tunnel. Other traffic is not counted.
fn has_what_its_budget_is_of(step: &PlanStep) -> Result<(), Misfit> {
    let no_tunnel = step.fields.get("tunnel") == Some(&Value::Bool(false));
    if no_tunnel && step.fields.contains_key("budget_bytes_per_day") {
        let what = "budget_bytes_per_day: traffic is counted only in a tunnel: remove this";
        return Err(misfit(step, "budget_bytes_per_day", what.to_owned()));
    }
    Ok(())
}

/// Keeps resources that are no longer in the file while a remaining one needs them.
pub fn keep_needed(
    mut steps: Vec<PlanStep>,
    found: &[Existing],
    users: &BTreeMap<String, String>,
) -> Vec<PlanStep> {
    // Each pass keeps one more, so the loop ends.
    while let Some((at, user)) = first_needed(&steps, found, users) {
        let step = &mut steps[at];
        (step.act, step.why) = (Act::Keep, format!("kept, no longer in the file, but {user} needs it"));
    }
    steps
}

fn first_needed(
    steps: &[PlanStep],
    found: &[Existing],
    users: &BTreeMap<String, String>,
) -> Option<(usize, String)> {
    let ends = |step: &PlanStep| {
        step.act == Act::Remove && matches!(step.kind, ResourceKind::Contact | ResourceKind::Profile)
    };
    if !steps.iter().any(ends) {
        return None;
    }
    let future = Future::of(steps, found);
    let needed = |(at, step): (usize, &PlanStep)| Some((at, future.needs(step, users)?));
    steps.iter().enumerate().filter(|(_, step)| ends(step)).find_map(needed)
}

/// Returns a cycle that `start` leads to. Its first and last host are the same. `clear`: hosts that
/// lead to no cycle.
fn circle<'a>(
    start: &'a str,
    before: &BTreeMap<&'a str, Vec<&'a str>>,
    clear: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    let (mut way, mut open) = (vec![start], vec![0]);
    while let (Some(name), Some(next)) = (way.last(), open.last_mut()) {
        let parent = before.get(name).and_then(|parents| parents.get(*next)).copied();
        *next += 1;
        match parent {
            None => {
                clear.insert(*name);
                way.pop();
                open.pop();
            }
            Some(parent) if clear.contains(parent) => {}
            Some(parent) => {
                let seen = way.iter().position(|name| *name == parent);
                way.push(parent);
                open.push(0);
                if let Some(first) = seen {
                    return Some(way.split_off(first));
                }
            }
        }
    }
    None
}
