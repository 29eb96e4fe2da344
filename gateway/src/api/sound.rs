//! Checks whether the API would accept planned writes, as far as their contents show it.
//!
//! `fleetgate apply` thus finds mistakes before it sends the first write. The check knows neither
//! the existing resources nor the gateway's settings. Conditions on those are left to the gateway.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::HostScope;
use fleetgate_engine::time::Wall;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::contacts::ContactChange;
use super::devices::NewDevice;
use super::downtimes::NewDowntime;
use super::host_settings::HostChange;
use super::profiles::ProfileSettings;
use super::response::problem::{FieldError, Problem};
use super::rules::RuleChange;
use super::{contacts, devices, downtimes, host_settings, profiles, rules};

/// All fields that would be refused. A field without a name is the whole.
pub type Verdict = Result<(), Vec<FieldError>>;

fn read<T: DeserializeOwned>(fields: Value) -> Result<T, Vec<FieldError>> {
    let whole = |e: serde_json::Error| vec![FieldError { field: String::new(), detail: e.to_string() }];
    serde_json::from_value(fields).map_err(whole)
}

fn told<T>(found: Result<T, Problem>) -> Verdict {
    found.map(drop).map_err(|problem| match problem.errors() {
        [] => vec![FieldError { field: String::new(), detail: problem.detail().to_owned() }],
        errors => errors.to_vec(),
    })
}

/// # Errors
/// Returns the fields that would be refused.
pub fn profile(name: &str, fields: Value) -> Verdict {
    told(profiles::parsed(name, read::<ProfileSettings>(fields)?))
}

/// # Errors
/// Returns the fields that would be refused.
pub fn contact(change: Value, is_new: bool) -> Verdict {
    told(contacts::sound(read::<ContactChange>(change)?, is_new))
}

/// # Errors
/// Returns the fields that would be refused.
pub fn rule(change: Value) -> Verdict {
    told(rules::sound(read::<RuleChange>(change)?))
}

/// Checks the fields that only devices have.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn device(fields: Value, is_new: bool) -> Verdict {
    told(devices::sound(read::<NewDevice>(fields)?, is_new))
}

/// Checks the settings of a host or device. `behind`: a host behind a device.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn host(change: Value, behind: bool) -> Verdict {
    // The gateway's own interval, which limits a timeout, is unknown here.
    told(host_settings::sound(read::<HostChange>(change)?, behind, Duration::MAX))
}

/// Checks the names of a host's parents.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn parents(names: Option<&Value>) -> Verdict {
    let count = names.and_then(Value::as_array).map_or(0, Vec::len);
    told(host_settings::few_enough(count))
}

/// # Errors
/// Returns the fields that would be refused.
pub fn downtime(mut fields: Value, now: Wall) -> Verdict {
    let object = fields.as_object_mut();
    let host = object.and_then(|fields| fields.remove("host"));
    let mut new: NewDowntime = read(fields)?;
    let hosts = match (host, new.labels.take()) {
        (None, Some(labels)) => HostScope::Labels(labels),
        _ => HostScope::One(Id::from_i64(0)),
    };
    told(downtimes::sound(hosts, new, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn first(verdict: Verdict) -> String {
        let errors = verdict.unwrap_err();
        format!("{}: {}", errors[0].field, errors[0].detail)
    }

    #[test]
    fn what_would_be_refused_is_known_before_it_is_sent() {
        let now = Wall::from_millis(0);
        let once = json!({ "host": "a", "start": "1970-01-02T00:00:00Z", "end": "1970-01-01T00:00:01Z" });
        let table = [
            (contact(json!({ "time_zone": "Mars" }), false), "time_zone: "),
            (contact(json!({ "time_zone": "UTC" }), true), "emails: an e-mail address"),
            (rule(json!({ "severity": "bad" })), "severity: warning, unknown or critical"),
            (device(json!({ "name": "a", "tunnel": false }), true), "direct_address: a device without"),
            (device(json!({ "name": "a", "public_key": "x" }), true), "public_key: "),
            (host(json!({ "interval_s": -5.0 }), false), "interval_s: seconds from"),
            (host(json!({ "interval_s": 5, "timeout_s": 9 }), true), "timeout_s: must be shorter"),
            (parents(Some(&json!(vec!["a"; 9]))), "parents: at most 8"),
            (
                device(json!({ "name": "a", "networks": ["224.0.0.0/24"] }), true),
                "networks: 224.0.0.0/24: no",
            ),
            (host(json!({ "ssh": { "port": 0 } }), true), "ssh.port: "),
            (host(json!({ "labels": { "timezone": "Mars" } }), true), "labels: timezone=Mars"),
            (downtime(once, now), "end: a time after start"),
            (profile("p", json!({ "extends": vec!["default"; 99] })), "extends: at most"),
        ];
        for (verdict, expected) in table {
            let said = first(verdict);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn what_leaves_things_as_they_are_is_taken() {
        assert!(contact(json!({}), false).is_ok() && rule(json!({})).is_ok());
        assert!(device(json!({ "name": "a", "tunnel": false }), false).is_ok());
        assert!(host(json!({ "timeout_s": 9 }), true).is_ok());
    }
}
