//! Devices: added, changed, re-keyed, removed.

use fleetgate_engine::messages::{Command, MonitorInput};
use fleetgate_keys::{Conf, PrivateKey};
use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};
use crate::store::fixture;

async fn add(api: &TestApi, body: Value) -> Answer {
    api.operator().post("/api/v1/devices", body).await
}

fn key(byte: u8) -> String {
    PrivateKey::from_bytes([byte; 32]).public().to_string()
}

#[tokio::test]
async fn a_device_gets_a_configuration_that_is_shown_once() {
    let mut api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1", "labels": { "site": "north" } })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let conf: Conf = made.json["credentials"]["conf"].as_str().unwrap().parse().unwrap();
    assert_eq!(conf.endpoint.to_string(), "vpn.example.net:51820");
    assert_eq!(conf.peer, api.state.identity.public_key);
    let allowed: Vec<String> = conf.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.112.0.0/14", "fd72:6c65:6574::/64"]);
    let addresses: Vec<String> = conf.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.112.0.2/32", "fd72:6c65:6574::2/128"]);
    let device = &made.json["device"];
    assert_eq!(device["tunnel"]["public_key"], conf.private_key.unwrap().public().to_string());
    assert!(made.json["credentials"]["qr_svg"].as_str().unwrap().starts_with("<svg"));

    let shown = api.viewer().get("/api/v1/devices/cam1").await;
    assert_eq!(shown.json, *device);
    assert!(shown.json.get("credentials").is_none());
    let Command::Upsert(spec, _) = api.tunnel_command().unwrap() else { panic!("a peer") };
    assert_eq!(spec.keys[0].psk.as_ref().unwrap().as_bytes(), conf.psk.unwrap().as_bytes());
    assert!(matches!(api.monitor.try_recv().unwrap(), MonitorInput::Upsert(host) if host.name == "cam1"));
}

#[tokio::test]
async fn no_configuration_leaves_without_an_endpoint() {
    let api = TestApi::new().await;
    let refused = add(&api, json!({ "name": "cam1" })).await;
    assert_eq!((refused.status, refused.code()), (409, "endpoint_not_set"));
    assert!(refused.json["detail"].as_str().unwrap().contains("FLEETGATE_ENDPOINT"));
    let left = api.viewer().get("/api/v1/devices").await;
    assert_eq!(left.json["items"], json!([]));
}

#[tokio::test]
async fn a_device_with_its_own_key_gets_no_private_key() {
    let api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1", "public_key": key(1) })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let credentials = &made.json["credentials"];
    assert_eq!(credentials["private_key"], Value::Null);
    assert!(credentials["conf"].as_str().unwrap().contains("# PrivateKey"));
    assert!(credentials["preshared_key"].is_string() && credentials["qr_text"].is_null());
}

#[tokio::test]
async fn bad_keys_names_and_labels_are_refused_with_the_field() {
    let api = TestApi::with_endpoint().await;
    let own = api.state.identity.public_key.to_string();
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let low_order = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let not_canonical = "8P///////////////////////////////////////38=";
    for (field, value, says) in [
        ("public_key", json!(own), "gateway's own"),
        ("public_key", json!(zero), "small order"),
        ("public_key", json!(low_order), "small order"),
        ("public_key", json!(not_canonical), "canonical"),
        ("public_key", json!("x"), "not a key"),
        ("name", json!("Cam 1"), "a name has"),
        ("labels", json!({ "A": "b" }), "label's key"),
        ("profile", json!("nope"), "no profile"),
        ("route", json!("sideways"), "tunnel, direct or auto"),
        ("direct_address", json!("a b"), "host name"),
        ("networks", json!(["10.113.0.0/16"]), "overlaps"),
    ] {
        let mut body = json!({ "name": "cam1" });
        body[field] = value;
        let refused = add(&api, body).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"), "{field}: {}", refused.text);
        let error = &refused.json["errors"][0];
        assert_eq!(error["field"], field);
        assert!(error["detail"].as_str().unwrap().contains(says), "{error}");
    }
}

#[tokio::test]
async fn names_and_keys_are_unique_and_a_key_stays_its_owners_for_ever() {
    let api = TestApi::with_endpoint().await;
    add(&api, json!({ "name": "cam1", "public_key": key(1) })).await;
    let name = add(&api, json!({ "name": "cam1" })).await;
    assert_eq!((name.status, name.code()), (409, "name_taken"));
    let taken = add(&api, json!({ "name": "cam2", "public_key": key(1) })).await;
    assert_eq!((taken.status, taken.code()), (409, "key_in_use"));
    assert!(taken.text.contains("by cam1, h_"), "{}", taken.text);
    assert_eq!(api.operator().delete("/api/v1/devices/cam1").await.status, 204);
    let again = add(&api, json!({ "name": "cam1", "public_key": key(1) })).await;
    assert_eq!(again.code(), "key_in_use");
    assert_eq!(add(&api, json!({ "name": "cam1" })).await.status, 201);
}

#[tokio::test]
async fn the_same_call_twice_makes_one_device_and_tells_secrets_once() {
    let api = TestApi::with_endpoint().await;
    let caller = api.operator().header("idempotency-key", "abc");
    let body = json!({ "name": "cam1" });
    let first = caller.post("/api/v1/devices", body.clone()).await;
    let second = caller.post("/api/v1/devices", body.clone()).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.json["device"], first.json["device"]);
    assert!(second.json.get("credentials").is_none(), "{}", second.text);
    let other = caller.post("/api/v1/devices", json!({ "name": "cam2" })).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"));
    let somebody_else = api.admin().header("idempotency-key", "abc").post("/api/v1/devices", body).await;
    assert_eq!(somebody_else.code(), "name_taken");
}

#[tokio::test]
async fn a_change_needs_the_version_that_it_was_made_for() {
    let api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1" })).await;
    let tag = made.headers["etag"].to_str().unwrap().to_owned();
    let caller = api.operator().header("if-match", &tag);
    let renamed = caller.patch("/api/v1/devices/cam1", json!({ "name": "cam-north" })).await;
    assert_eq!((renamed.status, &renamed.json["name"]), (200, &json!("cam-north")));
    let id = renamed.json["id"].as_str().unwrap();
    let late = caller.patch(&format!("/api/v1/devices/{id}"), json!({ "notes": "x" })).await;
    assert_eq!((late.status, late.code()), (412, "changed_meanwhile"));
    let late = caller.delete(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(late.status, 412);
    assert_ne!(renamed.headers["etag"], tag.as_str());
}

#[tokio::test]
async fn null_clears_and_absent_keeps() {
    let api = TestApi::with_endpoint().await;
    let nowhere = api.operator().post("/api/v1/devices", json!({ "name": "cam0", "route": "direct" })).await;
    assert_eq!(
        (nowhere.status, &nowhere.json["errors"][0]["field"]),
        (422, &json!("route")),
        "{}",
        nowhere.text
    );
    add(&api, json!({ "name": "cam1", "direct_address": "cam1.example.net", "ssh": { "user": "cam" } }))
        .await;
    let path = "/api/v1/devices/cam1";
    let kept = api.operator().patch(path, json!({ "notes": "on the mast" })).await;
    assert_eq!(kept.json["direct_address"], "cam1.example.net");
    let nowhere = api.operator().patch(path, json!({ "direct_address": null, "route": "direct" })).await;
    assert_eq!(
        (nowhere.status, &nowhere.json["errors"][0]["field"]),
        (422, &json!("route")),
        "{}",
        nowhere.text
    );
    let cleared =
        api.operator().patch(path, json!({ "direct_address": null, "ssh": { "user": null } })).await;
    assert_eq!((&cleared.json["direct_address"], &cleared.json["ssh"]["user"]), (&Value::Null, &Value::Null));
    assert_eq!(cleared.json["notes"], "on the mast");
    let wrong = api.operator().patch(path, json!({ "note": "x" })).await;
    assert_eq!((wrong.status, wrong.code()), (422, "invalid"));
}

#[tokio::test]
async fn new_credentials_end_the_former_ones() {
    let mut api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1" })).await;
    let first = made.json["device"]["tunnel"].clone();
    let again = api.operator().post("/api/v1/devices/cam1/credentials", json!({})).await;
    assert_eq!(again.status, 200, "{}", again.text);
    let second = &again.json["device"]["tunnel"];
    assert_ne!(second["public_key"], first["public_key"]);
    assert_eq!(second["addresses"], first["addresses"]);
    api.tunnel_command().unwrap();
    let Command::Upsert(spec, memory) = api.tunnel_command().unwrap() else { panic!("a peer") };
    assert_eq!(spec.keys.len(), 1);
    assert_eq!(json!(spec.keys[0].public.to_string()), second["public_key"]);
    assert_eq!(memory.stamp, None);
}

#[tokio::test]
async fn a_removed_device_loses_its_tunnel_and_keeps_its_events() {
    let mut api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1" })).await;
    let id = made.json["device"]["id"].as_str().unwrap().to_owned();
    while api.tunnel_command().is_some() {}
    assert_eq!(api.operator().delete("/api/v1/devices/cam1").await.status, 204);
    assert!(matches!(api.tunnel_command().unwrap(), Command::Remove(_)));
    assert_eq!(api.viewer().get(&format!("/api/v1/devices/{id}")).await.status, 404);
    let kinds = fixture::texts(&api.state.store, "select kind from events order by seq").await;
    assert_eq!(kinds, ["device.created", "device.removed"]);
    let next = add(&api, json!({ "name": "cam2" })).await;
    assert_eq!(next.json["device"]["tunnel"]["addresses"][0], "10.112.0.3");
}

#[tokio::test]
async fn a_device_without_a_tunnel_needs_an_address_and_no_endpoint() {
    let mut api = TestApi::new().await;
    let refused = add(&api, json!({ "name": "pub1", "tunnel": false })).await;
    assert_eq!((refused.status, &refused.json["errors"][0]["field"]), (422, &json!("direct_address")));
    let body =
        json!({ "name": "pub1", "tunnel": false, "direct_address": "192.0.2.9", "ssh": { "port": 2222 } });
    let made = add(&api, body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(
        (&made.json["device"]["route"], &made.json["device"]["tunnel"]),
        (&json!("direct"), &Value::Null)
    );
    assert!(made.json.get("credentials").is_none());
    assert!(api.tunnel_command().is_none());
    let gone = api.operator().patch("/api/v1/devices/pub1", json!({ "direct_address": null })).await;
    assert_eq!(gone.status, 422);
    let clock = api.operator().post("/api/v1/devices/pub1/reset-clock", json!({})).await;
    assert_eq!((clock.status, clock.code()), (409, "no_tunnel"));
}

#[tokio::test]
async fn a_full_pool_is_named_and_nothing_is_left_behind() {
    let api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        config.pool_v4 = "10.9.0.0/29".parse().unwrap();
    })
    .await;
    for n in 1..=5 {
        assert_eq!(add(&api, json!({ "name": format!("cam{n}") })).await.status, 201);
    }
    let full = add(&api, json!({ "name": "cam6" })).await;
    assert_eq!((full.status, full.code()), (409, "pool_full"));
    assert_eq!(api.viewer().get("/api/v1/devices/cam6").await.status, 404);
}

#[tokio::test]
async fn a_confirmed_host_key_is_pinned() {
    let api = TestApi::with_endpoint().await;
    add(&api, json!({ "name": "cam1" })).await;
    let key = fleetgate_keys::SshKey::generate("cam1").public();
    let path = "/api/v1/devices/cam1/trust";
    let trusted = api.operator().post(path, json!({ "host_key": key.to_string() })).await;
    assert_eq!(trusted.json["ssh"]["pin"], key.fingerprint());
    assert_eq!(trusted.json["ssh"]["pin_source"], "trusted");
    assert_eq!(api.operator().post(path, json!({ "host_key": "x" })).await.status, 422);
}

#[tokio::test]
async fn the_list_is_paged_and_filtered() {
    let api = TestApi::with_endpoint().await;
    for (name, site) in [("cam1", "north"), ("cam2", "south"), ("nas1", "north")] {
        add(&api, json!({ "name": name, "labels": { "site": site } })).await;
    }
    let names = |answer: &Answer| -> Vec<String> {
        let items = answer.json["items"].as_array().unwrap();
        items.iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = api.viewer().get("/api/v1/devices?limit=2").await;
    assert_eq!(names(&first), ["cam1", "cam2"]);
    let next = first.json["next"].as_str().unwrap();
    let second = api.viewer().get(&format!("/api/v1/devices?limit=2&after={next}")).await;
    assert_eq!((names(&second), &second.json["next"]), (vec!["nas1".to_owned()], &Value::Null));
    assert_eq!(names(&api.viewer().get("/api/v1/devices?q=cam").await), ["cam1", "cam2"]);
    assert_eq!(names(&api.viewer().get("/api/v1/devices?label=site=north").await), ["cam1", "nas1"]);
    assert_eq!(api.viewer().get("/api/v1/devices?label=site").await.status, 400);
    assert_eq!(api.viewer().get("/api/v1/devices?limit=0").await.code(), "bad_query");
}

#[tokio::test]
async fn a_device_keeps_its_mtu_with_new_keys_and_new_hardware() {
    let api = TestApi::with_endpoint().await;
    let mtu = |answer: &Answer| {
        let conf: Conf = answer.json["credentials"]["conf"].as_str().unwrap().parse().unwrap();
        conf.mtu
    };
    let made = api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await;
    assert_eq!((mtu(&made), &made.json["device"]["mtu"]), (Some(1_280), &Value::Null), "{}", made.text);
    let changed = api.operator().patch("/api/v1/devices/cam", json!({ "mtu": 1_400 })).await;
    assert_eq!(changed.json["mtu"], 1_400, "{}", changed.text);
    let rekeyed = api.operator().post("/api/v1/devices/cam/credentials", json!({})).await;
    assert_eq!(mtu(&rekeyed), Some(1_400));
    let token =
        api.operator().post("/api/v1/devices/cam/replacement", json!({})).await.json["secret"].clone();
    let key = PrivateKey::from_bytes([77; 32]).public().to_string();
    let enrol = json!({ "token": token, "name": "new", "public_key": key, "poll_hash": "ab".repeat(32) });
    let enrolled = api.anonymous().post("/api/v1/enrol", enrol).await;
    assert_eq!(enrolled.json["connection"]["mtu"], 1_400, "{}", enrolled.text);
    let bare = json!({ "name": "bare", "tunnel": false, "direct_address": "cam.example.com" });
    assert_eq!(api.operator().post("/api/v1/devices", bare).await.status, 201);
    let refused = api.operator().patch("/api/v1/devices/bare", json!({ "mtu": 1_400 })).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["field"]),
        (422, &json!("mtu")),
        "{}",
        refused.text
    );
}
