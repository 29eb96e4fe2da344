//! How the devices of a profile are rented: what it says, what a device overrides, and what a change means for bookings.

use serde_json::{Value, json};

use super::rentals::{HOUR, book, field, hence, item, must, rented, renting, shop};
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, TestApi};
use crate::store::access::Role;

const SETTINGS: &str = "/api/v1/devices/cam-1/rental-settings";

async fn profile(api: &TestApi, name: &str, body: Value) -> Value {
    must(&api.operator().put(&format!("/api/v1/profiles/{name}"), body).await).clone()
}

async fn settings(api: &TestApi) -> Value {
    must(&api.operator().get(SETTINGS).await).clone()
}

fn whole() -> Value {
    json!({
        "preparation_s": 600.0, "turnaround_s": 60.0, "access": [{ "protocol": "tcp", "ports": [22] }],
        "gate": { "services": null, "ok_for_s": 60.0 }, "delivery": "shipped", "ssh_root": true,
        "cleaning_command": "wipe",
    })
}

/// A shop whose device cam-1 has the profile `kiosk`, and no settings of its own but that it is rented.
async fn kiosk(rental: Value) -> TestApi {
    let api = shop().await;
    profile(&api, "kiosk", json!({ "extends": ["default"], "rental": rental })).await;
    must(&api.operator().patch("/api/v1/devices/cam-1", json!({ "profile": "kiosk" })).await);
    api
}

/// Leaves everything to the profile.
fn following() -> Value {
    let mut body = json!({ "rentable": true });
    for name in whole().as_object().unwrap().keys() {
        body[name] = Value::Null;
    }
    body
}

#[tokio::test]
async fn every_field_of_the_rentals_of_a_profile_reaches_its_devices() {
    let api = kiosk(whole()).await;
    let own = settings(&api).await;
    assert_eq!((&own["origins"]["gate"], &own["origins"]["access"]), (&json!("device"), &json!("profile")));
    renting(&api, "cam-1", following()).await;
    let shown = settings(&api).await;
    for (name, value) in whole().as_object().unwrap() {
        assert_eq!((&shown[name], &shown["origins"][name]), (value, &json!("profile")), "{name}");
    }
    let none = json!({ "extends": ["default"], "rental": { "without": ["gate", "cleaning_command"] } });
    assert_eq!(profile(&api, "kiosk", none.clone()).await["rental"], none["rental"]);
    let after = settings(&api).await;
    assert_eq!((&after["gate"], &after["origins"]["gate"]), (&Value::Null, &json!("profile")));
    assert_eq!((&after["delivery"], &after["origins"]["delivery"]), (&json!("mounted"), &json!("default")));
    assert!(after["version"].as_i64() > shown["version"].as_i64(), "another representation");
}

#[tokio::test]
async fn a_device_overrides_single_fields_of_its_profile() {
    let api = kiosk(whole()).await;
    renting(&api, "cam-1", following()).await;
    let own = json!({ "rentable": true, "turnaround_s": 30, "delivery": "mounted", "without": ["gate"] });
    renting(&api, "cam-1", own).await;
    let shown = settings(&api).await;
    let origin = |name: &str| shown["origins"][name].as_str().unwrap().to_owned();
    assert_eq!((&shown["turnaround_s"], origin("turnaround_s")), (&json!(30.0), "device".to_owned()));
    assert_eq!((&shown["preparation_s"], origin("preparation_s")), (&json!(600.0), "profile".to_owned()));
    assert_eq!((&shown["gate"], origin("gate")), (&Value::Null, "device".to_owned()));
    assert_eq!((&shown["cleaning_command"], origin("delivery")), (&json!("wipe"), "device".to_owned()));
    profile(&api, "kiosk", json!({ "extends": ["default"], "rental": { "preparation_s": 1200 } })).await;
    let after = settings(&api).await;
    assert_eq!((&after["turnaround_s"], &after["preparation_s"]), (&json!(30.0), &json!(1200.0)));
    assert_eq!(after["cleaning_command"], Value::Null);
    for (body, name) in [
        (json!({ "rentable": true, "without": ["gate"], "gate": {} }), "without"),
        (json!({ "rentable": true, "without": ["access"] }), "without"),
    ] {
        assert_eq!(field(&api.operator().put(SETTINGS, body).await), (422, name));
    }
}

#[tokio::test]
async fn a_token_for_monitoring_alone_changes_nothing_about_rentals() {
    let api = kiosk(json!({ "access": [{ "protocol": "tcp", "ports": [22] }] })).await;
    let limited = api.limited(Role::Operator, Area::Monitoring).await;
    let kiosk = "/api/v1/profiles/kiosk";
    let before = must(&api.operator().get(kiosk).await)["rental"].clone();
    let wider = json!({ "access": [{ "protocol": "tcp", "ports": [22, 443] }] });
    for rental in [json!({}), wider] {
        let refused = limited.put(kiosk, json!({ "extends": ["default"], "rental": rental })).await;
        assert_eq!((refused.status, refused.code()), (403, "scope_missing"), "{}", refused.text);
    }
    profile(&api, "rooted", json!({ "extends": ["default"], "rental": { "ssh_root": true } })).await;
    let inherits = json!({ "extends": ["rooted"], "rental": before });
    let refused = limited.put(kiosk, inherits).await;
    assert_eq!((refused.status, refused.code()), (403, "scope_missing"), "{}", refused.text);
    let same = json!({ "summary": "Kiosks", "extends": ["default"], "rental": before });
    must(&limited.put(kiosk, same).await);
}

#[tokio::test]
async fn a_token_for_monitoring_alone_gives_no_device_other_terms_by_a_rule_a_label_or_a_profile() {
    let api = shop().await;
    renting(&api, "cam-1", following()).await;
    profile(&api, "show", json!({ "extends": ["default"], "rental": { "preparation_s": 60 } })).await;
    profile(&api, "plain", json!({ "extends": ["default"] })).await;
    let limited = api.limited(Role::Operator, Area::Monitoring).await;
    let stays = async |answer: Answer, preparation: f64| {
        assert_eq!((answer.status, answer.code()), (403, "scope_missing"), "{}", answer.text);
        assert!(answer.text.contains("how cam-1 would be rented"), "{}", answer.text);
        assert_eq!(settings(&api).await["preparation_s"], preparation, "nothing is changed");
    };
    let rules = |label: &str| json!({ "rules": [{ "labels": { "name": label }, "profile": "show" }] });
    stays(limited.put("/api/v1/profile-rules", rules("cam-1")).await, 0.0).await;
    assert_eq!(must(&api.viewer().get("/api/v1/profile-rules").await)["rules"], json!([]));
    stays(limited.patch("/api/v1/hosts/cam-1", json!({ "profile": "show" })).await, 0.0).await;
    must(&limited.put("/api/v1/profile-rules", rules("cam-7")).await);
    let labels = json!({ "labels": { "name": "cam-7" } });
    stays(limited.patch("/api/v1/hosts/cam-1", labels).await, 0.0).await;
    for fine in [json!({ "profile": "plain" }), json!({ "labels": { "place": "hall" } })] {
        must(&limited.patch("/api/v1/hosts/cam-1", fine).await);
    }
    let moved = json!({ "profile": null, "labels": { "name": "cam-7" } });
    must(&api.operator().patch("/api/v1/hosts/cam-1", moved).await);
    assert_eq!(settings(&api).await["preparation_s"], 60.0);
    stays(limited.put("/api/v1/profile-rules", json!({ "rules": [] })).await, 60.0).await;
}

#[tokio::test]
async fn settings_that_a_device_has_stay_its_own() {
    let api = shop().await;
    // As an earlier version left them.
    let before = "update device_rental_settings set preparation_ms = 5000, inherited = '[]'";
    crate::store::fixture::run(&api.state.store, before, &[]).await;
    profile(&api, "kiosk", json!({ "extends": ["default"], "rental": whole() })).await;
    must(&api.operator().patch("/api/v1/devices/cam-1", json!({ "profile": "kiosk" })).await);
    let shown = settings(&api).await;
    assert_eq!(
        (&shown["preparation_s"], &shown["gate"], &shown["delivery"]),
        (&json!(5.0), &Value::Null, &json!("mounted"))
    );
    assert!(shown["origins"].as_object().unwrap().values().all(|origin| origin == "device"), "{shown}");
}

#[tokio::test]
async fn a_device_is_handed_over_when_all_services_were_ok_for_five_minutes_unless_something_else_is_said() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/devices", json!({ "name": "cam-3" })).await);
    let path = "/api/v1/devices/cam-3/rental-settings";
    let usual = json!({ "services": null, "ok_for_s": 300.0 });
    let gate = |shown: &Value| (shown["gate"].clone(), shown["origins"]["gate"].clone());
    let by_default = (usual, json!("default"));
    assert_eq!(gate(must(&api.viewer().get(path).await)), by_default);
    assert_eq!(gate(must(&api.operator().put(path, json!({ "rentable": true })).await)), by_default);
    let rental = rented(&api, json!({ "device": "cam-3", "until": hence(HOUR) })).await;
    assert_eq!((&rental["state"], &rental["awaits_handover"]), (&json!("delayed"), &json!(true)));

    profile(&api, "open", json!({ "extends": ["default"], "rental": { "without": ["gate"] } })).await;
    must(&api.operator().patch("/api/v1/devices/cam-3", json!({ "profile": "open" })).await);
    assert_eq!(gate(must(&api.viewer().get(path).await)), (Value::Null, json!("profile")));
    must(&api.operator().patch("/api/v1/devices/cam-3", json!({ "profile": null })).await);
    assert_eq!(gate(must(&api.viewer().get(path).await)), by_default);
    let none = json!({ "rentable": true, "without": ["gate"] });
    assert_eq!(gate(must(&api.operator().put(path, none).await)), (Value::Null, json!("device")));
    let back = json!({ "rentable": true, "gate": null });
    assert_eq!(gate(must(&api.operator().put(path, back).await)), by_default);
}

#[tokio::test]
async fn access_beyond_the_profile_is_refused_and_names_the_entry() {
    let api = kiosk(json!({ "access": [{ "protocol": "tcp", "ports": [22] }] })).await;
    renting(&api, "cam-1", following()).await;
    let with = |port: u16| {
        json!([{ "device": "cam-1", "from": hence(HOUR), "until": hence(2 * HOUR),
            "access": [{ "protocol": "tcp", "ports": [port] }] }])
    };
    let refused = book(&api, with(443)).await;
    assert_eq!(field(&refused), (422, "items[0].access"), "{}", refused.text);
    assert!(refused.text.contains("cam-1 does not allow tcp 443"), "{}", refused.text);
    must(&book(&api, with(22)).await);
}

#[tokio::test]
async fn bookings_keep_their_times_when_the_profile_changes() {
    let api = kiosk(json!({ "preparation_s": 600 })).await;
    renting(&api, "cam-1", following()).await;
    let first = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let second = rented(&api, item("cam-1", 2 * HOUR + 600, 3 * HOUR)).await;
    profile(
        &api,
        "kiosk",
        json!({ "extends": ["default"], "rental": { "turnaround_s": 7_200, "gate": {} } }),
    )
    .await;
    for rental in [&first, &second] {
        let now = must(&api.operator().get(&super::rentals::path(rental)).await).clone();
        assert_eq!(
            (&now["occupied_from"], &now["occupied_until"]),
            (&rental["occupied_from"], &rental["occupied_until"])
        );
        assert_eq!(now["awaits_handover"], true, "the gate counts for rentals that have not begun");
    }
    let close = book(&api, json!([item("cam-1", 3 * HOUR + 60, 4 * HOUR)])).await;
    assert!(close.status < 300, "{}", close.text);
    let after = book(&api, json!([item("cam-1", 5 * HOUR, 6 * HOUR)])).await;
    assert_eq!(
        after.code(),
        "occupied",
        "the turnaround of the last one is that of the profile: {}",
        after.text
    );
}

#[tokio::test]
async fn a_device_follows_the_profile_that_rules_give_it() {
    let api = kiosk(json!({})).await;
    renting(&api, "cam-1", following()).await;
    profile(&api, "show", json!({ "extends": ["default"], "rental": { "preparation_s": 60 } })).await;
    let rules = json!({ "rules": [{ "labels": { "place": "hall" }, "profile": "show" }] });
    must(&api.operator().put("/api/v1/profile-rules", rules).await);
    assert_eq!(settings(&api).await["preparation_s"], 0.0);
    let moved = json!({ "profile": null, "labels": { "place": "hall" } });
    must(&api.operator().patch("/api/v1/devices/cam-1", moved).await);
    assert_eq!(settings(&api).await["preparation_s"], 60.0);
    must(&api.operator().put("/api/v1/profile-rules", json!({ "rules": [] })).await);
    assert_eq!(settings(&api).await["preparation_s"], 0.0);
}

#[tokio::test]
async fn a_profile_inherits_and_refuses_what_no_device_can_have() {
    let api = shop().await;
    profile(
        &api,
        "base",
        json!({ "extends": ["default"], "rental": { "preparation_s": 60, "ssh_root": true } }),
    )
    .await;
    let above =
        profile(&api, "above", json!({ "extends": ["base"], "rental": { "turnaround_s": 30 } })).await;
    assert_eq!(above["rental"], json!({ "turnaround_s": 30.0 }));
    let all = json!({ "preparation_s": 60.0, "turnaround_s": 30.0, "ssh_root": true });
    assert_eq!(above["effective_rental"], all);
    for (rental, name) in [
        (json!({ "preparation_s": -1 }), "rental.preparation_s"),
        (json!({ "delivery": "carried" }), "rental.delivery"),
        (json!({ "cleaning_command": "" }), "rental.cleaning_command"),
        (json!({ "gate": { "services": [] } }), "rental.gate"),
        (json!({ "gate": { "services": ["no such"] } }), "rental.gate"),
        (json!({ "without": ["access"] }), "rental.without"),
    ] {
        let body = json!({ "extends": ["default"], "rental": rental });
        let refused = api.operator().put("/api/v1/profiles/wrong", body).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    let named = json!({ "extends": ["default"], "rental": { "gate": { "services": ["ssh"] } } });
    profile(&api, "right", named).await;
    let off = json!({ "extends": ["right"], "services": { "ssh": { "disabled": true } } });
    let refused = api.operator().put("/api/v1/profiles/off", off.clone()).await;
    assert_eq!(field(&refused), (422, "rental.gate"), "{}", refused.text);
    let mut open = off;
    open["rental"] = json!({ "without": ["gate"] });
    profile(&api, "off", open).await;
}

#[tokio::test]
async fn no_profile_takes_a_service_away_from_the_gate_of_one_that_extends_it() {
    let api = shop().await;
    profile(&api, "base", json!({ "extends": ["default"] })).await;
    let gate = |service: &str| json!({ "gate": { "services": [service] } });
    profile(&api, "kiosk", json!({ "extends": ["base"], "rental": gate("ssh") })).await;
    let off = json!({ "ssh": { "disabled": true } });
    let refused = async |body: Value, wrong: &str, whose: &str| {
        let refused = api.operator().put("/api/v1/profiles/base", body).await;
        assert_eq!(field(&refused), (422, wrong), "{}", refused.text);
        let says = format!("the gate of {whose} names the service \\\"ssh\\\"");
        assert!(refused.text.contains(&says), "{}", refused.text);
        let base = api.viewer().get("/api/v1/profiles/base").await;
        assert_eq!((&must(&base)["services"], &base.json["rental"]), (&json!({}), &json!({})));
    };
    refused(json!({ "extends": ["default"], "services": off }), "services", "kiosk").await;
    refused(json!({ "extends": [] }), "services", "kiosk").await;
    profile(&api, "silent", json!({ "extends": ["base"], "services": off })).await;
    refused(json!({ "extends": ["default"], "rental": gate("ssh") }), "rental.gate", "silent").await;
    profile(&api, "kiosk", json!({ "extends": ["base"], "rental": gate("ping") })).await;
    profile(&api, "base", json!({ "extends": ["default"], "services": off })).await;
}

#[tokio::test]
async fn a_service_of_the_gate_that_a_device_lacks_is_named_by_its_settings() {
    let api = kiosk(json!({ "gate": { "services": ["ping"] } })).await;
    renting(&api, "cam-1", following()).await;
    assert_eq!(settings(&api).await["gate_lacks"], json!([]));
    let ping = "/api/v1/hosts/cam-1/services/ping";
    must(&api.operator().put(ping, json!({ "disabled": true })).await);
    assert_eq!(settings(&api).await["gate_lacks"], json!(["ping"]));
    let other = must(&api.operator().get("/api/v1/devices/cam-2/rental-settings").await).clone();
    assert_eq!(other["gate_lacks"], json!([]), "it has no gate");
    let mut body = following();
    body["turnaround_s"] = json!(30);
    let changed = api.operator().put(SETTINGS, body).await;
    assert_eq!(must(&changed)["gate_lacks"], json!(["ping"]), "also in the answer to a change");
    must(&api.operator().put(SETTINGS, json!({ "rentable": true, "gate": {} })).await);
    assert_eq!(settings(&api).await["gate_lacks"], json!([]), "a gate of all services lacks none");
    must(&api.operator().put(SETTINGS, json!({ "rentable": true, "gate": null })).await);
    assert_eq!(api.operator().delete(ping).await.status, 204);
    assert_eq!(settings(&api).await["gate_lacks"], json!([]));
}

#[tokio::test]
async fn a_profile_by_a_rule_is_chosen_as_the_own_one_is() {
    let api = shop().await;
    profile(&api, "kiosk", json!({ "extends": ["default"] })).await;
    let free = async || {
        let query = format!("from={}&to={}&profile=kiosk", hence(HOUR), hence(2 * HOUR));
        let shown = api.operator().get(&format!("/api/v1/rentals/availability?{query}")).await;
        must(&shown)["devices"].clone()
    };
    assert_eq!(free().await, json!(0));
    let rules = json!({ "rules": [{ "labels": { "name": "cam-2" }, "profile": "kiosk" }] });
    must(&api.operator().put("/api/v1/profile-rules", rules).await);
    assert_eq!(free().await, json!(1));
    let any = json!([{ "profile": "kiosk", "from": hence(HOUR), "until": hence(2 * HOUR) }]);
    let made = book(&api, any).await;
    assert_eq!(must(&made)["rentals"][0]["device_name"], json!("cam-2"));
}
