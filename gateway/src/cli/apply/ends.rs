//! Removals: the resources that must stay because others need them, and the order of the rest.
//!
//! Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::plan::{Act, Existing, PlanStep, ResourceKind};

/// The existing resources and the steps for those of the file.
pub struct Fleet<'a> {
    pub found: &'a [Existing],
    pub made: &'a [PlanStep],
    /// All resources of the file.
    pub named: &'a BTreeSet<(ResourceKind, &'a str)>,
}

impl Fleet<'_> {
    /// Returns the removals in a possible order: devices and hosts before those they stand behind.
    /// A resource that another one still needs is kept.
    pub fn ends(&self, mut gone: Vec<PlanStep>) -> Vec<PlanStep> {
        gone.sort_by_key(|step| std::cmp::Reverse(step.kind));
        let gone = self.telling_losers(self.with_dependents(gone));
        heirs_first(dependents_first(gone, self.found), self.found)
    }

    /// Keeps a device or host while a host that is not removed stands behind it.
    fn with_dependents(&self, mut gone: Vec<PlanStep>) -> Vec<PlanStep> {
        // Each pass keeps one more, so the loop ends.
        while let Some((at, why)) = self.first_needed(&gone) {
            (gone[at].act, gone[at].why) = (Act::Keep, format!("kept, {why}: remove that first"));
        }
        gone
    }

    fn first_needed(&self, gone: &[PlanStep]) -> Option<(usize, String)> {
        let needed = |(at, step): (usize, &PlanStep)| {
            let needs = |f: &Existing| Some((at, self.needs(f, &step.name)?));
            self.staying(gone).find_map(needs)
        };
        gone.iter().enumerate().filter(|(_, step)| ends(step)).find_map(needed)
    }

    /// Returns the reason why a host or device still needs `name`.
    fn needs(&self, f: &Existing, name: &str) -> Option<String> {
        let how = match via(f) {
            Some(device) if device == name => "is behind it",
            _ if self.has_parent(f, name) && !self.follows(f) => "has it as a parent",
            _ => return None,
        };
        let whose = match &f.edited_by {
            Some(who) => format!("was changed by {who}"),
            None => format!("is managed by {}", f.managed_by),
        };
        Some(format!("{} {} {how} and {whose}", f.kind.name(), f.name))
    }

    /// Adds to each removal the hosts that lose it as a parent.
    fn telling_losers(&self, mut gone: Vec<PlanStep>) -> Vec<PlanStep> {
        let losers: Vec<Vec<String>> = gone.iter().map(|step| self.losers(step, &gone)).collect();
        for (step, losers) in gone.iter_mut().zip(losers).filter(|(_, losers)| !losers.is_empty()) {
            step.why = format!("no longer a parent of {}", losers.join(", "));
            step.losers = losers;
        }
        gone
    }

    fn losers(&self, step: &PlanStep, gone: &[PlanStep]) -> Vec<String> {
        if !ends(step) {
            return Vec::new();
        }
        let children = self.staying(gone).filter(|f| self.has_parent(f, &step.name));
        children.map(|f| f.name.clone()).collect()
    }

    fn staying(&self, gone: &[PlanStep]) -> impl Iterator<Item = &Existing> {
        let goes = |f: &Existing| gone.iter().any(|step| ends(step) && step.name == f.name);
        self.found.iter().filter(move |f| is_host(f.kind) && f.removed.is_none() && !f.former && !goes(f))
    }

    /// Whether it still has this parent after the run.
    fn has_parent(&self, f: &Existing, parent: &str) -> bool {
        let said = self.step_of(f).filter(|step| step.act != Act::Keep);
        let said = said.and_then(|step| step.fields.get("parents"));
        let parents = said.or_else(|| f.fields.get("parents")).and_then(Value::as_array);
        parents.into_iter().flatten().any(|name| name == parent)
    }

    /// Whether it will match the file after the run.
    fn follows(&self, f: &Existing) -> bool {
        let is_kept = self.step_of(f).is_some_and(|step| step.act == Act::Keep);
        self.named.contains(&(f.kind, f.name.as_str())) && !is_kept
    }

    fn step_of(&self, f: &Existing) -> Option<&PlanStep> {
        self.made.iter().find(|step| step.kind == f.kind && step.name == f.name)
    }
}

fn ends(step: &PlanStep) -> bool {
    step.act == Act::Remove && is_host(step.kind)
}

fn is_host(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Host | ResourceKind::Device)
}

fn via(found: &Existing) -> Option<&str> {
    found.fields.get("via").and_then(Value::as_str)
}

/// Returns the device and the parents of a host.
fn before(found: &Existing) -> impl Iterator<Item = &str> {
    let parents = found.fields.get("parents").and_then(Value::as_array).into_iter().flatten();
    via(found).into_iter().chain(parents.filter_map(Value::as_str))
}

/// Orders removed hosts and devices, each before its parents.
fn dependents_first(steps: Vec<PlanStep>, found: &[Existing]) -> Vec<PlanStep> {
    let end = steps.iter().rposition(|step| is_host(step.kind)).map_or(0, |at| at + 1);
    let start = steps.iter().position(|step| is_host(step.kind)).unwrap_or(end);
    let mut steps = steps;
    let mut hosts: Vec<PlanStep> = steps.splice(start..end, []).collect();
    let mut ordered = Vec::with_capacity(hosts.len());
    while !hosts.is_empty() {
        let needed = |name: &str| {
            let there = found.iter().filter(|f| is_host(f.kind) && hosts.iter().any(|s| s.name == f.name));
            there.filter(|f| f.name != name).any(|f| before(f).any(|parent| parent == name))
        };
        // A cycle has no first element and cannot exist.
        let next = hosts.iter().position(|step| !needed(&step.name)).unwrap_or(0);
        ordered.push(hosts.remove(next));
    }
    steps.splice(start..start, ordered);
    steps
}

/// Orders new profiles after those of the file that they extend.
pub fn inherited_first(steps: Vec<PlanStep>) -> Vec<PlanStep> {
    let (mut profiles, rest): (Vec<PlanStep>, _) =
        steps.into_iter().partition(|s| s.kind == ResourceKind::Profile);
    let mut ordered: Vec<PlanStep> = Vec::with_capacity(profiles.len());
    while !profiles.is_empty() {
        let waits = |s: &PlanStep| {
            let mut names = extended(&s.fields);
            names.any(|n| n != s.name && profiles.iter().any(|o| o.name == n))
        };
        // A cycle has no first element. It is refused by name.
        let next = profiles.iter().position(|s| !waits(s)).unwrap_or(0);
        ordered.push(profiles.remove(next));
    }
    ordered.into_iter().chain(rest).collect()
}

fn extended(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    fields.get("extends").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Orders removed profiles before those they extend. Profiles are removed last.
fn heirs_first(steps: Vec<PlanStep>, found: &[Existing]) -> Vec<PlanStep> {
    let (profiles, mut rest): (Vec<PlanStep>, Vec<PlanStep>) =
        steps.into_iter().partition(|s| s.kind == ResourceKind::Profile);
    let with_heirs = profiles.into_iter().map(|step| {
        let there = found.iter().find(|f| f.kind == ResourceKind::Profile && f.name == step.name);
        PlanStep { fields: there.map(|f| f.fields.clone()).unwrap_or_default(), ..step }
    });
    let mut last = inherited_first(with_heirs.collect());
    last.reverse();
    rest.extend(last);
    rest
}
