//! How devices are rented, as profiles say it for theirs and a device for itself.

use std::collections::BTreeSet;

use fleetgate_engine::messages::GateRule;
use fleetgate_engine::rental::life::Delivery;
use fleetgate_engine::rental::terms::{Effective, Setting, Terms};
use serde_json::Value;

use super::device_types::{NewDeviceRentalSettings, RentalTerms};
use super::handovers::{gate_to_api, rule};
use super::{access, device_upkeep, parse};
use crate::api::request::parse::Fields;
use crate::store::rentals::devices::Settings;

/// Settings that can be none. `null` is taken: it leaves them to the profile.
pub const WITHOUT: [&str; 2] = ["gate", "cleaning_command"];

/// Reads what a profile or a device says.
pub fn terms(wrong: &mut Fields, prefix: &str, given: RentalTerms) -> Terms {
    let named = |field: &str| format!("{prefix}{field}");
    let access = given.access.and_then(|list| access::allowed(wrong, prefix, list));
    let mut terms = Terms {
        preparation: given.preparation_s.and_then(|s| wrong.take(&named("preparation_s"), parse::margin(s))),
        turnaround: given.turnaround_s.and_then(|s| wrong.take(&named("turnaround_s"), parse::margin(s))),
        access,
        gate: given.gate.and_then(|gate| wrong.take(&named("gate"), rule(gate))).map(Some),
        delivery: given.delivery.and_then(|name| wrong.take(&named("delivery"), delivery(&name))),
        ssh_root: given.ssh_root,
        cleaning_command: given
            .cleaning_command
            .and_then(|line| wrong.take(&named("cleaning_command"), device_upkeep::command_line(line)))
            .map(Some),
    };
    for name in given.without {
        wrong.take(&named("without"), leave_out(&mut terms, &name));
    }
    terms
}

fn leave_out(terms: &mut Terms, name: &str) -> Result<(), String> {
    let is_given = match name {
        "gate" => terms.gate.replace(None).flatten().is_some(),
        "cleaning_command" => terms.cleaning_command.replace(None).flatten().is_some(),
        _ => return Err(format!("{} is expected", WITHOUT.join(" or "))),
    };
    if is_given { Err(format!("{name} is given too")) } else { Ok(()) }
}

fn delivery(name: &str) -> Result<Delivery, String> {
    let found = Delivery::ALL.into_iter().find(|delivery| delivery.name() == name);
    found.ok_or_else(|| format!("{} is expected", Delivery::ALL.map(Delivery::name).join(" or ")))
}

/// Returns terms as the API has them.
pub fn terms_to_api(terms: &Terms) -> RentalTerms {
    let is_none = [terms.gate == Some(None), terms.cleaning_command == Some(None)];
    let without = WITHOUT.into_iter().zip(is_none).filter(|(_, is_none)| *is_none);
    RentalTerms {
        preparation_s: terms.preparation.map(|time| time.as_secs_f64()),
        turnaround_s: terms.turnaround.map(|time| time.as_secs_f64()),
        access: terms.access.as_deref().map(access::to_api),
        gate: terms.gate.as_ref().and_then(Option::as_ref).map(gate_to_api),
        delivery: terms.delivery.map(|delivery| delivery.name().to_owned()),
        ssh_root: terms.ssh_root,
        cleaning_command: terms.cleaning_command.clone().flatten(),
        without: without.map(|(name, _)| name.to_owned()).collect(),
    }
}

/// Returns terms of a file in the form of the API.
///
/// # Errors
/// Says what the API would refuse.
pub fn terms_in_form(given: Value) -> Result<Value, String> {
    let given: RentalTerms = serde_json::from_value(given).map_err(|error| error.to_string())?;
    let mut wrong = Fields::default();
    let terms = terms(&mut wrong, "", given);
    wrong.finish().map_err(|problem| problem.detail().to_owned())?;
    serde_json::to_value(terms_to_api(&terms)).map_err(|error| error.to_string())
}

/// What a request changes of the settings that a profile may say too.
pub struct TermsChange {
    own: Terms,
    /// What the profile says from now on.
    dropped: BTreeSet<Setting>,
}

impl TermsChange {
    pub fn parsed(wrong: &mut Fields, new: &mut NewDeviceRentalSettings) -> TermsChange {
        let dropped = [
            (Setting::Preparation, new.preparation_s.is_none()),
            (Setting::Turnaround, new.turnaround_s.is_none()),
            (Setting::Access, new.access == Some(None)),
            (Setting::Gate, new.gate == Some(None)),
            (Setting::Delivery, new.delivery == Some(None)),
            (Setting::SshRoot, new.ssh_root == Some(None)),
            (Setting::CleaningCommand, new.cleaning_command == Some(None)),
        ];
        let given = RentalTerms {
            preparation_s: new.preparation_s,
            turnaround_s: new.turnaround_s,
            access: new.access.take().flatten(),
            gate: new.gate.take().flatten(),
            delivery: new.delivery.take().flatten(),
            ssh_root: new.ssh_root.flatten(),
            cleaning_command: new.cleaning_command.take().flatten(),
            without: std::mem::take(&mut new.without),
        };
        let dropped = dropped.into_iter().filter(|(_, is_dropped)| *is_dropped);
        TermsChange { own: terms(wrong, "", given), dropped: dropped.map(|(setting, _)| setting).collect() }
    }

    /// Returns the services that a given gate names.
    pub fn gate_services(&self) -> Option<&BTreeSet<String>> {
        let gate: Option<&GateRule> = self.own.gate.as_ref().and_then(Option::as_ref);
        gate.and_then(|gate| gate.services.as_ref())
    }

    /// Returns the changed settings of a device whose profiles say this.
    pub fn apply(&self, mut settings: Settings, profile: &Terms) -> Settings {
        settings.inherits.extend(&self.dropped);
        let own = self.own.upon(&settings.own());
        settings.inherits.retain(|setting| !own.says(*setting));
        settings.with(Effective::of(&own, profile))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_of_a_file_get_the_form_of_the_api() {
        let given = json!({
            "preparation_s": 60, "access": [{ "protocol": "tcp", "ports": [443, 22] }], "gate": {},
            "delivery": "shipped", "ssh_root": true, "without": ["cleaning_command"],
        });
        let form = terms_in_form(given).unwrap();
        let expected = json!({
            "preparation_s": 60.0, "access": [{ "protocol": "tcp", "ports": [22, 443] }],
            "gate": { "services": null, "ok_for_s": 300.0 }, "delivery": "shipped", "ssh_root": true,
            "without": ["cleaning_command"],
        });
        assert_eq!(form, expected);
        assert_eq!(terms_in_form(form.clone()).unwrap(), form);
        assert_eq!(terms_in_form(json!({})).unwrap(), json!({}));
    }

    #[test]
    fn what_cannot_be_a_setting_is_refused() {
        for bad in [
            json!({ "rentable": true }),
            json!({ "preparation_s": -1 }),
            json!({ "delivery": "carried" }),
            json!({ "without": ["access"] }),
            json!({ "without": ["gate"], "gate": {} }),
            json!({ "cleaning_command": "" }),
            json!({ "gate": { "services": [] } }),
        ] {
            assert!(terms_in_form(bad.clone()).is_err(), "{bad}");
        }
    }
}
