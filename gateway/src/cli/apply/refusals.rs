//! Detects steps that must fail, before the first change.
//!
//! Pure: uses the steps and the existing resources. It does not know all refusals of the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{anyhow, bail, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::differences::Difference;
use super::fits::Future;
use super::plan::{Act, Existing, PlanStep, ResourceKind};
use super::profile_order;
use crate::api::{contacts, devices, downtimes, grants, host_settings, profiles, rules};
use crate::clock;

/// Names that can be referred to, of any manager.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub hosts: BTreeSet<String>,
    pub contacts: BTreeSet<String>,
    pub profiles: BTreeSet<String>,
    /// Users of the gateway, and their peers.
    pub people: BTreeSet<String>,
    pub operators: BTreeSet<String>,
    /// Grants of the file whose peer belongs to another user, and what is wrong.
    pub taken_over: BTreeMap<String, String>,
    /// Hosts with a profile of their own, and its name.
    pub users: BTreeMap<String, String>,
    /// Devices whose tunnel was never up.
    pub unheard: BTreeSet<String>,
    /// The pools of the gateway's inner addresses.
    pub pools: Vec<IpNet>,
}

/// `takes_conf`: there is a folder for configurations, which are shown once.
///
/// # Errors
/// Names the first impossible step with its line.
pub fn check(
    file: &Path,
    steps: &[PlanStep],
    found: &[Existing],
    names: Names,
    takes_conf: bool,
) -> anyhow::Result<()> {
    let names = names.after(steps);
    for step in steps.iter().filter(|s| matches!(s.act, Act::Make | Act::Change | Act::Adopt)) {
        let at = format!("{}:{}", file.display(), step.line);
        shown_once(&at, step, takes_conf)?;
        stays_what_it_is(&at, step, found)?;
        is_one_thing(&at, step, steps)?;
        names.known(&at, step, steps)?;
        names.belongs_to_its_user(&at, step)?;
        would_be_taken(file, step)?;
        names.hides_no_pool(file, step)?;
    }
    Future::of(steps, found).fits(steps).map_err(|misfit| {
        let (kind, name) = &misfit.of;
        let step = steps.iter().find(|s| s.kind == *kind && s.name == *name);
        let place = step.map(|step| place(file, step, &misfit.field));
        anyhow!("{}: {}", place.unwrap_or_else(|| file.display().to_string()), misfit.what)
    })?;
    gates_fit(file, steps, found)
}

/// Checks that each gate has the services that it names when the run is over.
fn gates_fit(file: &Path, steps: &[PlanStep], found: &[Existing]) -> anyhow::Result<()> {
    let mut turns = profile_order::turns(steps, found).into_iter();
    let refused = turns.find_map(|turn| Some((turn.step, turn.refused?)));
    let Some((step, error)) = refused else { return Ok(()) };
    bail!("{}: {}: {}", place(file, step, &error.field), error.field, error.detail)
}

/// Returns the file, the line of a step's field, and the resource.
pub fn place(file: &Path, step: &PlanStep, field: &str) -> String {
    // In the file, the members of the source and the target of a grant are its own fields.
    let in_file = field.strip_prefix("source.").or_else(|| field.strip_prefix("target."));
    let line = step.lines.line(in_file.unwrap_or(field)).unwrap_or(step.line);
    let thing = format!("{} {}", step.kind.name(), step.name);
    format!("{}:{line}: {}", file.display(), thing.trim_end())
}

fn would_be_taken(file: &Path, step: &PlanStep) -> anyhow::Result<()> {
    let (whole, is_new) = (Value::Object(step.fields.clone()), step.act == Act::Make);
    let (own, of_host) = super::split(step);
    let verdict = match step.kind {
        ResourceKind::Profile => profiles::validate(&step.name, whole),
        ResourceKind::Contact => contacts::validate(super::named(step), is_new),
        ResourceKind::NotificationRule => rules::validate(super::named(step)),
        ResourceKind::Device => devices::validate(super::new_device(step), is_new)
            .and_then(|()| host_settings::validate(of_host, false))
            .and_then(|()| host_settings::validate_parents(step.fields.get("parents"))),
        ResourceKind::Host => host_settings::validate(super::joined(own, of_host), true)
            .and_then(|()| host_settings::validate_parents(step.fields.get("parents"))),
        ResourceKind::Downtime => downtimes::validate(whole, clock::wall()),
        ResourceKind::Grant => grants::validate(super::named(step), clock::wall()),
        ResourceKind::ProfileRules | ResourceKind::Service => Ok(()),
    };
    let Err(errors) = verdict else { return Ok(()) };
    let Some(error) = errors.first() else { return Ok(()) };
    let at = place(file, step, &error.field);
    match error.field.as_str() {
        "" => bail!("{at}: {}", error.detail),
        field => bail!("{at}: {field}: {}", error.detail),
    }
}

fn shown_once(at: &str, step: &PlanStep, takes_conf: bool) -> anyhow::Result<()> {
    let tunnel = step.fields.get("tunnel").is_none_or(|t| *t == json!(true));
    if (step.kind, step.act) == (ResourceKind::Device, Act::Make) && tunnel && !takes_conf {
        bail!(
            "{at}: device {} is new, and its configuration is not stored: name a folder for it with --out DIR; or \
             let the device enrol itself, and take it over with --adopt",
            step.name
        );
    }
    Ok(())
}

/// Checks that a host behind a device neither moves behind another one nor becomes a device.
fn stays_what_it_is(at: &str, step: &PlanStep, found: &[Existing]) -> anyhow::Result<()> {
    let via = |d: &&Difference| d.field == "via" && step.act == Act::Change;
    if let Some(moved) = step.differences.iter().find(via) {
        let now = moved.now.as_deref().unwrap_or_default();
        bail!(
            "{at}: host {} is behind {now}: remove it first; behind another device it is a new host",
            step.name
        );
    }
    let other = match step.kind {
        ResourceKind::Device => ResourceKind::Host,
        ResourceKind::Host => ResourceKind::Device,
        _ => return Ok(()),
    };
    let taken = found.iter().any(|f| f.kind == other && f.name == step.name);
    ensure!(step.act != Act::Make || !taken, "{at}: {} exists already, as a {}", step.name, other.name());
    Ok(())
}

/// Checks that a device and a host do not share a name.
fn is_one_thing(at: &str, step: &PlanStep, steps: &[PlanStep]) -> anyhow::Result<()> {
    let other = |s: &&PlanStep| s.kind == ResourceKind::Device && s.name == step.name && s.act == Act::Make;
    let twin = steps.iter().find(other).filter(|_| (step.kind, step.act) == (ResourceKind::Host, Act::Make));
    match twin {
        Some(twin) => bail!("{at}: {} is a device already, in line {}", step.name, twin.line),
        None => Ok(()),
    }
}

impl Names {
    /// Returns the names after the run.
    fn after(mut self, steps: &[PlanStep]) -> Names {
        for step in steps {
            let names = match step.kind {
                ResourceKind::Device | ResourceKind::Host => &mut self.hosts,
                ResourceKind::Contact => &mut self.contacts,
                ResourceKind::Profile => &mut self.profiles,
                ResourceKind::ProfileRules
                | ResourceKind::NotificationRule
                | ResourceKind::Service
                | ResourceKind::Downtime
                | ResourceKind::Grant => continue,
            };
            match step.act {
                Act::Make => drop(names.insert(step.name.clone())),
                Act::Remove => drop(names.remove(&step.name)),
                Act::Change | Act::Adopt | Act::Forget | Act::Keep => {}
            }
        }
        self
    }

    fn hides_no_pool(&self, file: &Path, step: &PlanStep) -> anyhow::Result<()> {
        let networks = step.fields.get("networks").and_then(Value::as_array).into_iter().flatten();
        for net in networks.filter_map(|net| net.as_str()?.parse::<IpNet>().ok()) {
            let overlaps = self.pools.iter().any(|pool| pool.contains(&net) || net.contains(pool));
            let at = place(file, step, "networks");
            ensure!(!overlaps, "{at}: networks: {net}: this overlaps the gateway's own pool of addresses");
        }
        Ok(())
    }

    fn belongs_to_its_user(&self, at: &str, step: &PlanStep) -> anyhow::Result<()> {
        match self.taken_over.get(&step.name).filter(|_| step.kind == ResourceKind::Grant) {
            Some(what) => bail!("{at}: grant {}: peer: {what}", step.name),
            None => Ok(()),
        }
    }

    fn known(&self, at: &str, step: &PlanStep, steps: &[PlanStep]) -> anyhow::Result<()> {
        let (kind, name) = (step.kind.name(), &step.name);
        for (field, noun, wanted) in references(step) {
            let names = match noun {
                "contact" => &self.contacts,
                "profile" => &self.profiles,
                "user" => &self.people,
                "operator" => &self.operators,
                _ => &self.hosts,
            };
            // Only the gateway can check an id. Names never contain `_`.
            let fine = wanted.contains('_') || names.contains(wanted);
            let of = format!("{kind} {name}");
            let kept = |s: &&PlanStep| s.act == Act::Keep && s.name == wanted && noun.contains(s.kind.name());
            let so = match steps.iter().find(kept) {
                Some(kept) => format!("{wanted} was {}", kept.why),
                None => format!("no {noun} is called {wanted:?}, in this file or at the gateway"),
            };
            ensure!(fine, "{at}: {}: {field}: {so}", of.trim_end());
        }
        Ok(())
    }
}

/// The field, the kind of resource, and its name.
type Reference<'a> = (&'static str, &'static str, &'a str);

/// Returns the references of a step.
fn references(step: &PlanStep) -> Vec<Reference<'_>> {
    let one = |field: &str| step.fields.get(field).and_then(Value::as_str);
    let list = |field: &str| step.fields.get(field).and_then(Value::as_array).into_iter().flatten();
    let names = |field: &str| list(field).filter_map(Value::as_str);
    match step.kind {
        ResourceKind::Profile => names("extends").map(|name| ("extends", "profile", name)).collect(),
        ResourceKind::ProfileRules => {
            let given = list("rules").filter_map(|rule| rule["profile"].as_str());
            given.map(|name| ("profile", "profile", name)).collect()
        }
        ResourceKind::NotificationRule => {
            one("contact").map(|name| ("contact", "contact", name)).into_iter().collect()
        }
        ResourceKind::Downtime => {
            one("host").map(|name| ("host", "host or device", name)).into_iter().collect()
        }
        ResourceKind::Device | ResourceKind::Host => {
            let device = one("via").map(|via| ("via", "device", via));
            let profile = one("profile").filter(|p| !p.is_empty()).map(|p| ("profile", "profile", p));
            let parents = names("parents").map(|parent| ("parents", "host or device", parent));
            device.into_iter().chain(profile).chain(parents).collect()
        }
        ResourceKind::Grant => {
            let one = |part: &str, field: &str| step.fields.get(part).and_then(|of| of[field].as_str());
            let user = one("source", "user").map(|name| ("user", "user", name));
            let peer = one("source", "peer").map(|name| ("peer", "operator", name));
            let host = one("target", "host").map(|name| ("host", "host or device", name));
            user.into_iter().chain(peer).chain(host).collect()
        }
        ResourceKind::Contact | ResourceKind::Service => Vec::new(),
    }
}
