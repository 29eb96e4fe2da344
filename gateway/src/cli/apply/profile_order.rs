//! The order in which profiles are written, so that no gate lacks a service in between.
//!
//! Pure. The gateway refuses a profile without a service that its gate names, or the gate of one that extends it. The file
//! may change the services of one profile and the gate of another one so that they fit only together. Then a profile first
//! gets its new services beside its former ones, and is written as the file has it when no gate needs these any more.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::monitor::profile::{Catalogue, Profile};
use serde_json::{Map, Value, json};

use super::plan::{Act, Existing, PlanStep, ResourceKind};
use crate::api::{FieldError, profiles};

type Fields = Map<String, Value>;

/// One write of a profile.
pub struct Turn<'a> {
    pub step: &'a PlanStep,
    pub fields: Fields,
    /// The gateway would refuse it: a gate does not fit.
    pub refused: Option<FieldError>,
}

/// Returns the writes in their order. `steps`: each profile after those that it extends.
pub fn turns<'a>(steps: &'a [PlanStep], found: &'a [Existing]) -> Vec<Turn<'a>> {
    let there = found.iter().filter(|f| f.kind == ResourceKind::Profile && f.removed.is_none());
    let found: BTreeMap<&str, &Fields> = there.map(|f| (f.name.as_str(), &f.fields)).collect();
    let is_written = |step: &&PlanStep| matches!(step.act, Act::Make | Act::Change | Act::Adopt);
    let pending = steps.iter().filter(|step| step.kind == ResourceKind::Profile).filter(is_written);
    let pending: Vec<&PlanStep> = pending.collect();
    let mut all = found.values().copied().chain(pending.iter().map(|step| &step.fields));
    if !all.any(has_services_in_gate) {
        return pending.into_iter().map(|step| Turn::of(step, step.fields.clone())).collect();
    }
    let now = found.iter().filter_map(|(name, fields)| Some((*name, read(name, fields)?))).collect();
    let mut order = Order { now, found, pending, widened: BTreeSet::new() };
    std::iter::from_fn(|| order.turn()).collect()
}

impl<'a> Turn<'a> {
    fn of(step: &'a PlanStep, fields: Fields) -> Turn<'a> {
        Turn { step, fields, refused: None }
    }
}

fn has_services_in_gate(fields: &Fields) -> bool {
    fields.get("rental").is_some_and(|rental| rental["gate"]["services"].is_array())
}

fn read(name: &str, fields: &Fields) -> Option<Profile> {
    profiles::read(name, Value::Object(fields.clone()))
}

fn catalogue(profiles: &BTreeMap<&str, Profile>) -> Option<Catalogue> {
    Catalogue::new(profiles.values().cloned().collect(), Vec::new()).ok()
}

fn extends(fields: &Fields) -> Vec<Value> {
    fields.get("extends").and_then(Value::as_array).cloned().unwrap_or_default()
}

struct Order<'a> {
    /// The profiles after the turns so far.
    now: BTreeMap<&'a str, Profile>,
    /// Those before the run.
    found: BTreeMap<&'a str, &'a Fields>,
    pending: Vec<&'a PlanStep>,
    /// Those that have kept their former services. Each does so once, so the turns end.
    widened: BTreeSet<&'a str>,
}

impl<'a> Order<'a> {
    fn turn(&mut self) -> Option<Turn<'a>> {
        let fitting = self.pending.iter().position(|step| self.fits(step, &step.fields));
        if let Some(at) = fitting {
            let step = self.pending.remove(at);
            return Some(self.write(step, step.fields.clone()));
        }
        let wider = self.pending.iter().find_map(|step| Some((*step, self.wider(step)?)));
        if let Some((step, fields)) = wider {
            self.widened.insert(&step.name);
            return Some(self.write(step, fields));
        }
        let step = *self.pending.first()?;
        self.pending.remove(0);
        let refused = self.refused(step);
        Some(Turn { refused, ..self.write(step, step.fields.clone()) })
    }

    fn write(&mut self, step: &'a PlanStep, fields: Fields) -> Turn<'a> {
        self.now.extend(read(&step.name, &fields).map(|profile| (step.name.as_str(), profile)));
        Turn::of(step, fields)
    }

    /// Returns the profiles before and after a write. `None`: they do not fit together even without gates.
    fn around(&self, step: &'a PlanStep, fields: &Fields) -> Option<(Catalogue, Catalogue)> {
        let mut after = self.now.clone();
        after.insert(&step.name, read(&step.name, fields)?);
        Some((catalogue(&self.now)?, catalogue(&after)?))
    }

    fn fits(&self, step: &'a PlanStep, fields: &Fields) -> bool {
        let around = self.around(step, fields);
        around.is_some_and(|(was, is)| profiles::validate_gates(&was, &is, &step.name).is_ok())
    }

    fn refused(&self, step: &'a PlanStep) -> Option<FieldError> {
        let (was, is) = self.around(step, &step.fields)?;
        profiles::validate_gates(&was, &is, &step.name).err()?.into_iter().next()
    }

    /// Returns a profile with the services of the file and those that it has now. `None`: it loses none, or this does not
    /// fit either.
    fn wider(&self, step: &'a PlanStep) -> Option<Fields> {
        let name = step.name.as_str();
        let before = *self.found.get(name).filter(|_| !self.widened.contains(name))?;
        let (was, is) = self.around(step, &step.fields)?;
        let (had, has) = (profiles::checked_by(&was, name), profiles::checked_by(&is, name));
        let lost: Vec<&String> = had.difference(&has).collect();
        if lost.is_empty() {
            return None;
        }
        let mut fields = step.fields.clone();
        let services = fields.entry("services").or_insert_with(|| json!({})).as_object_mut()?;
        for service in lost {
            match before.get("services").and_then(|own| own.get(service)) {
                Some(own) => services.insert(service.clone(), own.clone()),
                // It is inherited, and the file switches it off.
                None => services.remove(service),
            };
        }
        let (mut all, later) = (extends(before), extends(&step.fields));
        all.retain(|parent| !later.contains(parent));
        all.extend(later);
        fields.insert("extends".to_owned(), Value::Array(all));
        self.fits(step, &fields).then_some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{plan, testing::*};
    use super::*;

    const LENS: (&str, u16) = ("lens", 4711);
    const OPTICS: (&str, u16) = ("optics", 4712);

    fn profile(parent: &str, services: &[(&str, u16)], gate: Option<&str>) -> Value {
        let check = |port: u16| json!({ "check": { "type": "tcp", "port": port } });
        let services: Fields =
            services.iter().map(|(name, port)| ((*name).to_owned(), check(*port))).collect();
        let rental =
            gate.map_or(json!({}), |service| json!({ "gate": { "services": [service], "ok_for_s": 300.0 } }));
        json!({ "extends": [parent], "services": services, "rental": rental })
    }

    /// Returns the writes as `NAME: SERVICES`, and what is refused.
    fn written(before: &[(&str, Value)], file: &[(&str, Value)]) -> (Vec<String>, Vec<String>) {
        let found: Vec<Existing> =
            before.iter().map(|(name, fields)| found(ResourceKind::Profile, name, fields.clone())).collect();
        let wanted: Vec<_> =
            file.iter().map(|(name, fields)| wanted(ResourceKind::Profile, name, fields.clone())).collect();
        let steps = plan(&wanted, &found, &policy());
        let turns = turns(&steps, &found);
        let last: Vec<&Fields> = turns.iter().map(|turn| &turn.step.fields).collect();
        assert!(steps.iter().all(|step| last.contains(&&step.fields)), "each is written");
        let refused = turns.iter().filter_map(|turn| Some(turn.refused.as_ref()?.detail.clone())).collect();
        let words = |turn: &Turn<'_>| {
            let services = turn.fields.get("services").and_then(Value::as_object);
            let services: BTreeSet<&str> =
                services.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let services: Vec<&str> = services.into_iter().collect();
            format!("{}: {}", turn.step.name, services.join(" "))
        };
        (turns.iter().map(words).collect(), refused)
    }

    #[test]
    fn without_gates_that_name_services_a_profile_comes_after_those_that_it_extends() {
        let before = [("base", profile("default", &[LENS], None)), ("kiosk", profile("base", &[], None))];
        let file = [("kiosk", profile("base", &[LENS], None)), ("base", profile("default", &[], None))];
        let expected = ["base: ", "kiosk: lens"].map(str::to_owned).to_vec();
        assert_eq!(written(&before, &file), (expected, Vec::new()));
    }

    #[test]
    fn the_gate_of_another_profile_changes_before_its_service_goes() {
        let before =
            [("base", profile("default", &[LENS], None)), ("kiosk", profile("base", &[], Some("lens")))];
        let file = [("base", profile("default", &[], None)), ("kiosk", profile("base", &[], Some("ping")))];
        let expected = ["kiosk: ", "base: "].map(str::to_owned).to_vec();
        assert_eq!(written(&before, &file), (expected, Vec::new()));
    }

    #[test]
    fn a_service_comes_before_the_gate_that_names_it() {
        let before = [("base", profile("default", &[], None)), ("kiosk", profile("base", &[], None))];
        let file =
            [("base", profile("default", &[LENS], None)), ("kiosk", profile("base", &[], Some("lens")))];
        let expected = ["base: lens", "kiosk: "].map(str::to_owned).to_vec();
        assert_eq!(written(&before, &file), (expected, Vec::new()));
    }

    #[test]
    fn a_service_that_takes_the_place_of_another_one_in_a_gate_is_there_beside_it_for_a_while() {
        let before =
            [("base", profile("default", &[LENS], None)), ("kiosk", profile("base", &[], Some("lens")))];
        let file =
            [("base", profile("default", &[OPTICS], None)), ("kiosk", profile("base", &[], Some("optics")))];
        let expected = ["base: lens optics", "kiosk: ", "base: optics"].map(str::to_owned).to_vec();
        assert_eq!(written(&before, &file), (expected, Vec::new()));
    }

    #[test]
    fn an_inherited_gate_changes_while_its_heir_has_the_services_of_both() {
        let without = |service: &str| {
            let mut kiosk = profile("base", &[], None);
            kiosk["services"][service] = json!({ "disabled": true });
            kiosk
        };
        let base = |gate: &str| profile("default", &[LENS, OPTICS], Some(gate));
        let before = [("base", base("lens")), ("kiosk", without("optics"))];
        let file = [("base", base("optics")), ("kiosk", without("lens"))];
        let expected = ["kiosk: ", "base: lens optics", "kiosk: lens"].map(str::to_owned).to_vec();
        assert_eq!(written(&before, &file), (expected, Vec::new()));
    }

    #[test]
    fn a_gate_without_its_service_at_the_end_is_refused() {
        let before =
            [("base", profile("default", &[LENS], None)), ("kiosk", profile("base", &[], Some("lens")))];
        let file = [("base", profile("default", &[], None)), ("kiosk", before[1].1.clone())];
        let (_, refused) = written(&before, &file);
        assert!(refused[0].starts_with("the gate of kiosk names the service \"lens\""), "{refused:?}");
    }
}
