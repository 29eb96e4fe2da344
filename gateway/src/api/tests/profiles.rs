//! Profiles, the rules that select them, and limits, through the API.

use fleetgate_engine::messages::MonitorInput;
use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};

async fn device(api: &TestApi, name: &str, labels: Value) {
    let made = api.operator().post("/api/v1/devices", json!({ "name": name, "labels": labels })).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

async fn put(api: &TestApi, name: &str, body: Value) -> Answer {
    api.operator().put(&format!("/api/v1/profiles/{name}"), body).await
}

async fn get(api: &TestApi, path: &str) -> Value {
    let answer = api.viewer().get(&format!("/api/v1{path}")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json
}

async fn services(api: &TestApi, host: &str) -> Vec<String> {
    let page = get(api, &format!("/hosts/{host}/services")).await;
    page["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

fn web() -> Value {
    json!({ "extends": ["default"], "services": { "web": { "check": { "type": "tcp", "port": 443 } } } })
}

#[tokio::test]
async fn the_built_in_profiles_are_listed_and_read_only() {
    let api = TestApi::new().await;
    let listed = get(&api, "/profiles").await;
    let default = &listed["items"][0];
    assert_eq!((&default["name"], &default["effective"][0]["name"]), (&json!("default"), &json!("tunnel")));
    assert_eq!(put(&api, "linux", json!({})).await.code(), "built_in");
    assert_eq!(api.operator().delete("/api/v1/profiles/linux").await.code(), "built_in");
    assert_eq!(api.viewer().get("/api/v1/profiles/toaster").await.status, 404);
    assert_eq!(api.viewer().put("/api/v1/profiles/own", json!({})).await.status, 403);
}

#[tokio::test]
async fn a_changed_profile_settles_every_host_that_uses_it_and_tells_the_engine() {
    let mut api = TestApi::with_endpoint().await;
    assert_eq!(put(&api, "site", web()).await.status, 200);
    for name in ["a", "b"] {
        let body = json!({ "name": name, "profile": "site" });
        assert_eq!(api.operator().post("/api/v1/devices", body).await.status, 201);
    }
    device(&api, "c", json!({})).await;
    while api.monitor.try_recv().is_ok() {}
    let more = json!({ "extends": ["default"], "services": {
        "web": { "check": { "type": "tcp", "port": 443 }, "interval_s": 600, "thresholds": [{ "metric": "time", "warn": "2" }] },
        "tunnel": { "disabled": true } } });
    let changed = put(&api, "site", more).await;
    assert_eq!(
        (changed.status, &changed.json["hosts"], &changed.json["version"]),
        (200, &json!(2), &json!(2))
    );
    let mut told = Vec::new();
    while let Ok(MonitorInput::Upsert(spec)) = api.monitor.try_recv() {
        told.push((spec.name, spec.services.iter().map(|s| s.name.clone()).collect::<Vec<_>>()));
    }
    assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(told.iter().all(|(_, services)| services == &["ping", "web"]));
    assert_eq!(services(&api, "a").await, ["ping", "web"]);
    // The state rows follow the services: the strip counts two for each of a, b and c.
    assert_eq!(get(&api, "/overview").await["services"]["pending"], 6);
    assert_eq!(get(&api, "/hosts/a/services/web").await["thresholds"][0]["warn"], "2");
    let audit = api.admin().get("/api/v1/audit").await.json;
    assert_eq!(audit["items"][0]["kind"], "profile.changed");
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_named() {
    let api = TestApi::new().await;
    put(&api, "a", json!({})).await;
    put(&api, "b", json!({ "extends": ["a"] })).await;
    let cases = [
        (json!({ "extends": ["b"] }), "extends", "a -> b -> a"),
        (json!({ "extends": ["toaster"] }), "extends", "toaster"),
        (json!({ "services": { "web": {} } }), "services.web.check", "has no check"),
        (json!({ "services": { "Web": {} } }), "services.Web.service", "a name of 1 to 63"),
        (json!({ "services": { "web": { "interval": 5 } } }), "services.web.interval", "unknown here"),
        (
            json!({ "services": { "ping": { "thresholds": [{ "metric": "rta", "warn": "-10" }] } } }),
            "services.ping.thresholds[0].warn",
            "write -10:",
        ),
    ];
    for (body, field, says) in cases {
        let refused = put(&api, "a", body).await;
        let error = &refused.json["errors"][0];
        assert_eq!((refused.status, error["field"].as_str()), (422, Some(field)), "{}", refused.text);
        assert!(error["detail"].as_str().unwrap().contains(says), "{error}");
    }
    let stale = api.operator().header("if-match", "\"7\"").put("/api/v1/profiles/a", json!({})).await;
    assert_eq!(stale.code(), "changed_meanwhile");
}

#[tokio::test]
async fn a_profile_in_use_is_not_removed_and_says_by_whom() {
    let api = TestApi::with_endpoint().await;
    put(&api, "site", web()).await;
    put(&api, "office", json!({ "extends": ["site"] })).await;
    let body = json!({ "name": "cam-07", "profile": "office" });
    assert_eq!(api.operator().post("/api/v1/devices", body).await.status, 201);
    let refused = api.operator().delete("/api/v1/profiles/site").await;
    assert_eq!((refused.status, refused.code()), (409, "profile_in_use"));
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("hosts: cam-07") && detail.contains("extend it: office"), "{detail}");
    let by_rules = json!({ "profile": null });
    assert_eq!(api.operator().patch("/api/v1/devices/cam-07", by_rules).await.status, 200);
    for name in ["office", "site"] {
        let gone = api.operator().delete(&format!("/api/v1/profiles/{name}")).await;
        assert_eq!(gone.status, 204, "{}", gone.text);
    }
    assert_eq!(services(&api, "cam-07").await, ["tunnel", "ping"]);
}

#[tokio::test]
async fn labels_choose_a_profile_at_once_and_an_own_one_wins() {
    let mut api = TestApi::with_endpoint().await;
    put(&api, "site", web()).await;
    device(&api, "cam-07", json!({ "kind": "camera" })).await;
    device(&api, "gw-1", json!({ "kind": "gateway" })).await;
    while api.monitor.try_recv().is_ok() {}
    let rules = json!({ "rules": [{ "labels": { "kind": "camera" }, "profile": "site" }] });
    let set = api.operator().put("/api/v1/profile-rules", rules.clone()).await;
    assert_eq!((set.status, &set.json["rules"]), (200, &rules["rules"]), "{}", set.text);
    let Ok(MonitorInput::Upsert(spec)) = api.monitor.try_recv() else { panic!("the camera") };
    assert_eq!((spec.name.as_str(), spec.services.len()), ("cam-07", 3));
    assert!(api.monitor.try_recv().is_err(), "the gateway is as it was");

    let camera = json!({ "labels": { "kind": "camera" } });
    assert_eq!(api.operator().patch("/api/v1/hosts/gw-1", camera).await.status, 200);
    assert_eq!(services(&api, "gw-1").await, ["tunnel", "ping", "web"]);
    assert_eq!(get(&api, "/hosts/gw-1/settings").await["profiles"], json!(["site"]));
    let own = json!({ "profile": "default" });
    assert_eq!(api.operator().patch("/api/v1/hosts/gw-1", own).await.status, 200);
    assert_eq!(services(&api, "gw-1").await, ["tunnel", "ping"]);

    let toaster = json!({ "rules": [{ "labels": {}, "profile": "toaster" }] });
    assert_eq!(api.operator().put("/api/v1/profile-rules", toaster).await.status, 422);
    assert_eq!(api.operator().delete("/api/v1/profiles/site").await.status, 409);
}

#[tokio::test]
async fn labels_that_would_bring_too_many_services_are_refused_by_their_rules() {
    let api = TestApi::with_endpoint().await;
    for name in ["a", "b"] {
        let service = |n: u32| (format!("{name}-{n}"), json!({ "check": { "type": "tcp", "port": 443 } }));
        let services: serde_json::Map<String, Value> = (0..40).map(service).collect();
        assert_eq!(put(&api, name, json!({ "services": services })).await.status, 200);
    }
    let rule = |key: &str| json!({ "labels": { key: "*" }, "profile": key });
    let rules = json!({ "rules": [rule("a"), rule("b")] });
    assert_eq!(api.operator().put("/api/v1/profile-rules", rules).await.status, 200);
    device(&api, "cam", json!({ "a": "1" })).await;
    let labels = json!({ "labels": { "a": "1", "b": "1" } });
    for path in ["/api/v1/hosts/cam", "/api/v1/devices/cam"] {
        let refused = api.operator().patch(path, labels.clone()).await;
        assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{path}");
        assert!(refused.text.contains("rule 1 gives it a, rule 2 gives it b"), "{}", refused.text);
    }
    assert_eq!(services(&api, "cam").await.len(), 40);
}

#[tokio::test]
async fn a_change_by_hand_of_what_a_program_manages_leaves_a_mark() {
    let api = TestApi::with_endpoint().await;
    let program = api.operator().header("fleetgate-manager", "apply");
    let made = program.post("/api/v1/devices", json!({ "name": "cam-07" })).await;
    assert_eq!((made.status, &made.json["device"]["managed_by"]), (201, &json!("apply")));
    let path = "/api/v1/hosts/cam-07/services/ping";
    let limit = |warn: &str| json!({ "thresholds": [{ "metric": "rta", "warn": warn }] });
    assert_eq!(program.put(path, limit("100")).await.json["edited_by"], Value::Null);
    let night = api.operator().put(path, limit("900")).await.json;
    assert_eq!(night["managed_by"], "apply");
    assert!(night["edited_by"].as_str().unwrap().starts_with("token:"), "{night}");
    assert_eq!(program.put(path, limit("100")).await.json["edited_by"], Value::Null);
    let moved = api.operator().patch("/api/v1/devices/cam-07", json!({ "notes": "moved" })).await;
    assert!(moved.json["edited_by"].is_string());
    let refused = api.operator().header("fleetgate-manager", "A B").put(path, limit("1")).await;
    assert_eq!(refused.code(), "bad_manager");
}
