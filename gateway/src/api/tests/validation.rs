//! The API refuses a planned write as it refuses the write.

use fleetgate_engine::time::Wall;
use serde_json::json;

use crate::api::request::validation::Validation;
use crate::api::{contacts, devices, downtimes, host_settings, profiles, rules};

fn first(verdict: Validation) -> String {
    let errors = verdict.unwrap_err();
    format!("{}: {}", errors[0].field, errors[0].detail)
}

#[test]
fn what_would_be_refused_is_known_before_it_is_sent() {
    let now = Wall::from_millis(0);
    let once = json!({ "host": "a", "start": "1970-01-02T00:00:00Z", "end": "1970-01-01T00:00:01Z" });
    let table = [
        (contacts::validate(json!({ "time_zone": "Mars" }), false), "time_zone: "),
        (contacts::validate(json!({ "time_zone": "UTC" }), true), "emails: an e-mail address"),
        (rules::validate(json!({ "severity": "bad" })), "severity: warning, unknown or critical"),
        (
            devices::validate(json!({ "name": "a", "tunnel": false }), true),
            "direct_address: a device without",
        ),
        (devices::validate(json!({ "name": "a", "public_key": "x" }), true), "public_key: "),
        (host_settings::validate(json!({ "interval_s": -5.0 }), false), "interval_s: seconds from"),
        (
            host_settings::validate(json!({ "interval_s": 5, "timeout_s": 9 }), true),
            "timeout_s: must be shorter",
        ),
        (host_settings::validate_parents(Some(&json!(vec!["a"; 9]))), "parents: at most 8"),
        (
            devices::validate(json!({ "name": "a", "networks": ["224.0.0.0/24"] }), true),
            "networks: 224.0.0.0/24: no",
        ),
        (host_settings::validate(json!({ "ssh": { "port": 0 } }), true), "ssh.port: "),
        (host_settings::validate(json!({ "labels": { "timezone": "Mars" } }), true), "labels: timezone=Mars"),
        (downtimes::validate(once, now), "end: a time after start"),
        (profiles::validate("p", json!({ "extends": vec!["default"; 99] })), "extends: at most"),
    ];
    for (verdict, expected) in table {
        let said = first(verdict);
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn what_leaves_things_as_they_are_is_taken() {
    assert!(contacts::validate(json!({}), false).is_ok() && rules::validate(json!({})).is_ok());
    assert!(devices::validate(json!({ "name": "a", "tunnel": false }), false).is_ok());
    assert!(host_settings::validate(json!({ "timeout_s": 9 }), true).is_ok());
}
