//! The consequences of a removal are listed in advance. A PATCH merges maps.

use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};

/// Creates two devices and two hosts behind the first one. One of those hosts is a parent of the
/// second device.
async fn site() -> TestApi {
    let api = TestApi::with_endpoint().await;
    let make = async |path: &str, body: Value| {
        let made = api.operator().post(path, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    };
    make("/api/v1/devices", json!({ "name": "router", "networks": ["192.168.1.0/24"] })).await;
    make("/api/v1/devices", json!({ "name": "cam", "labels": { "site": "hill", "kind": "camera" } })).await;
    make("/api/v1/hosts", json!({ "name": "switch", "via": "router", "address": "192.168.1.2" })).await;
    make("/api/v1/hosts", json!({ "name": "nas", "via": "router", "address": "192.168.1.3" })).await;
    let parents = json!({ "parents": ["switch"] });
    assert_eq!(api.operator().patch("/api/v1/hosts/cam", parents).await.status, 200);
    api
}

fn affected(answer: &Answer) -> Vec<(&str, &str)> {
    let all = answer.json["affected"].as_array().expect("a list");
    all.iter().map(|a| (a["name"].as_str().unwrap(), a["effect"].as_str().unwrap())).collect()
}

async fn there(api: &TestApi, host: &str) -> bool {
    api.viewer().get(&format!("/api/v1/hosts/{host}")).await.status == 200
}

#[tokio::test]
async fn a_device_with_hosts_behind_it_goes_only_if_they_are_meant_too() {
    let api = site().await;
    let operator = api.operator();
    for path in ["/api/v1/devices/router", "/api/v1/devices/router?cascade=false"] {
        let refused = operator.delete(path).await;
        assert_eq!((refused.status, refused.code()), (409, "others_affected"), "{}", refused.text);
        assert_eq!(affected(&refused), [("nas", "removed"), ("switch", "removed"), ("cam", "loses_parent")]);
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(
            detail.contains("2 hosts behind it would be removed too") && detail.contains("nas, switch"),
            "{detail}"
        );
    }
    assert!(there(&api, "router").await && there(&api, "nas").await && there(&api, "switch").await);
    assert_eq!(operator.delete("/api/v1/devices/router?casade=true").await.status, 400);
    assert_eq!(operator.delete("/api/v1/devices/router?cascade=true").await.status, 204);
    for gone in ["router", "nas", "switch"] {
        assert!(!there(&api, gone).await, "{gone}");
    }
    let cam = api.viewer().get("/api/v1/hosts/cam/settings").await;
    assert_eq!(cam.json["parents"], json!([]));
    let events = api.viewer().get("/api/v1/events?since=0&host=cam").await.text;
    assert!(events.contains("its parent was removed"), "{events}");
}

#[tokio::test]
async fn a_host_that_others_have_as_a_parent_is_not_taken_from_them_unsaid() {
    let api = site().await;
    let refused = api.operator().delete("/api/v1/hosts/switch").await;
    assert_eq!(
        (refused.status, affected(&refused)),
        (409, vec![("cam", "loses_parent")]),
        "{}",
        refused.text
    );
    assert_eq!(api.operator().delete("/api/v1/hosts/nas").await.status, 204, "nobody needs it");
    assert_eq!(api.operator().delete("/api/v1/hosts/switch?cascade=true").await.status, 204);
    assert_eq!(api.operator().delete("/api/v1/devices/router").await.status, 204, "nothing stands behind it");
}

#[tokio::test]
async fn every_other_removal_names_what_uses_it() {
    let api = site().await;
    let operator = api.operator();
    let ok = async |answer: Answer| assert!(answer.status < 300, "{}", answer.text);
    ok(operator.post("/api/v1/contacts", json!({ "name": "ops", "emails": ["ops@example.org"] })).await)
        .await;
    ok(operator.post("/api/v1/rules", json!({ "name": "all", "contact": "ops" })).await).await;
    for profile in ["a", "b", "c", "d"] {
        ok(operator.put(&format!("/api/v1/profiles/{profile}"), json!({ "services": {} })).await).await;
    }
    ok(operator.put("/api/v1/profiles/heir", json!({ "extends": ["a"] })).await).await;
    ok(operator.patch("/api/v1/hosts/cam", json!({ "profile": "b" })).await).await;
    let rules = json!({ "rules": [{ "labels": { "kind": "x" }, "profile": "c" }] });
    ok(operator.put("/api/v1/profile-rules", rules).await).await;
    ok(operator.post("/api/v1/enrolment-tokens", json!({ "label": "hill", "profile": "d" })).await).await;
    let cases = [
        ("/api/v1/contacts/ops", "all"),
        ("/api/v1/profiles/a", "heir"),
        ("/api/v1/profiles/b", "cam"),
        ("/api/v1/profiles/c", "rule"),
        ("/api/v1/profiles/d", "hill"),
    ];
    for (path, user) in cases {
        let refused = operator.delete(path).await;
        assert_eq!(refused.status, 409, "{path}: {}", refused.text);
        assert!(refused.json["detail"].as_str().unwrap().contains(user), "{path}: {}", refused.text);
    }
}

// ---------------------------------------------------------------- merge patch

async fn labels(api: &TestApi, path: &str, change: Value) -> Value {
    let answer = api.operator().patch(path, json!({ "labels": change })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["labels"].clone()
}

#[tokio::test]
async fn labels_are_merged_and_null_removes_one() {
    let api = site().await;
    let rule = json!({ "name": "hill", "contact": "ops", "labels": { "site": "hill", "kind": "camera" } });
    let contact = json!({ "name": "ops", "emails": ["ops@example.org"] });
    assert_eq!(api.operator().post("/api/v1/contacts", contact).await.status, 201);
    assert_eq!(api.operator().post("/api/v1/rules", rule).await.status, 201);
    for path in ["/api/v1/devices/cam", "/api/v1/rules/hill"] {
        let all = json!({ "floor": "2", "kind": "camera", "site": "hill" });
        assert_eq!(labels(&api, path, json!({ "floor": "2" })).await, all, "{path}");
        let changed = json!({ "floor": "3", "site": "hill" });
        assert_eq!(labels(&api, path, json!({ "floor": "3", "kind": null })).await, changed, "{path}");
        assert_eq!(labels(&api, path, json!({ "nothing": null })).await, changed, "{path}");
        assert_eq!(labels(&api, path, json!({})).await, changed, "{path}");
        assert_eq!(labels(&api, path, Value::Null).await, json!({}), "{path}");
        assert_eq!(labels(&api, path, json!({ "site": "hill", "kind": "camera" })).await["site"], "hill");
        let wrong = api.operator().patch(path, json!({ "labels": { "floor": 2 } })).await;
        assert_eq!(
            (wrong.status, &wrong.json["errors"][0]["field"]),
            (422, &json!("labels.floor")),
            "{path}"
        );
    }
    assert_eq!(
        labels(&api, "/api/v1/hosts/cam", json!({ "kind": null, "a": "b" })).await,
        json!({ "a": "b", "site": "hill" })
    );
}

#[tokio::test]
async fn what_is_nested_is_merged_too_and_lists_are_replaced() {
    let api = site().await;
    let path = "/api/v1/hosts/nas";
    let patch = async |change: Value| {
        let answer = api.operator().patch(path, change).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    };
    patch(json!({ "flapping": { "low": 10, "high": 40 }, "notify": { "states": ["down"], "delay_s": 60 } }))
        .await;
    let merged = patch(json!({ "flapping": { "high": 50 }, "notify": { "delay_s": null } })).await;
    assert_eq!(merged["flapping"], json!({ "low": 10.0, "high": 50.0 }));
    assert_eq!(merged["notify"], json!({ "states": ["critical"] }));
    assert_eq!(patch(json!({ "flapping": { "low": null, "high": null } })).await["flapping"], Value::Null);
    assert_eq!(patch(json!({ "notify": null })).await["notify"], Value::Null);
    patch(json!({ "ssh": { "user": "fleet", "port": 2222 } })).await;
    assert_eq!(patch(json!({ "ssh": { "port": null } })).await["ssh"]["user"], "fleet");
    let ssh = patch(json!({ "ssh": null })).await["ssh"].clone();
    assert_eq!((&ssh["user"], &ssh["port"]), (&Value::Null, &json!(22)));
    patch(json!({ "thresholds": [{ "metric": "rtt", "warn": "5" }, { "metric": "loss", "warn": "1" }] }))
        .await;
    let one = patch(json!({ "thresholds": [{ "metric": "rtt", "crit": "9" }] })).await;
    assert_eq!(one["thresholds"], json!([{ "metric": "rtt", "crit": "9" }]));
}

#[tokio::test]
async fn null_clears_what_can_be_absent_and_is_refused_for_the_rest() {
    let api = site().await;
    let operator = api.operator();
    let set = json!({ "notes": "x", "thresholds": [{ "metric": "rtt", "warn": "5" }] });
    assert_eq!(operator.patch("/api/v1/hosts/cam", set).await.status, 200);
    let cleared = operator
        .patch("/api/v1/hosts/cam", json!({ "notes": null, "thresholds": null, "parents": null }))
        .await;
    assert_eq!((cleared.status, &cleared.json["thresholds"]), (200, &json!([])), "{}", cleared.text);
    assert_eq!((&cleared.json["notes"], &cleared.json["parents"]), (&json!(""), &json!([])));
    assert_eq!(
        operator.patch("/api/v1/devices/cam", json!({ "route": "tunnel" })).await.json["route"],
        "tunnel"
    );
    let usual = operator.patch("/api/v1/devices/cam", json!({ "route": null, "networks": null })).await;
    assert_eq!((usual.status, &usual.json["route"]), (200, &json!("auto")), "{}", usual.text);
    for (path, field) in
        [("/api/v1/devices/cam", "name"), ("/api/v1/hosts/nas", "name"), ("/api/v1/hosts/nas", "address")]
    {
        let refused = operator.patch(path, json!({ field: null })).await;
        assert_eq!(
            (refused.status, &refused.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            refused.text
        );
    }
    let user = json!({ "name": "ada", "role": "viewer", "password": "correct horse battery" });
    assert_eq!(api.admin().post("/api/v1/users", user).await.status, 201);
    for field in ["role", "password", "disabled"] {
        let refused = api.admin().patch("/api/v1/users/ada", json!({ field: null })).await;
        assert_eq!(
            (refused.status, &refused.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn a_patch_may_say_that_it_is_a_merge_patch() {
    let api = site().await;
    let typed = api.operator().header("content-type", "application/merge-patch+json");
    let send = async |method: &str, path: &str, body: &'static str| {
        typed.send(method, path, body.into()).await.status
    };
    assert_eq!(send("PATCH", "/api/v1/devices/cam", r#"{"labels":{"a":"b"}}"#).await, 200);
    assert_eq!(send("POST", "/api/v1/devices", r#"{"name":"x"}"#).await, 415);
}
