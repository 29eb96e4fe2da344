//! Every field of a request has an effect, or is refused by name.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetgate_engine::messages::{HostSpec, MonitorInput};
use serde_json::{Value, json};

use crate::api::openapi;
use crate::api::testing::{Answer, TestApi};

async fn api() -> TestApi {
    let mut api = TestApi::with_endpoint().await;
    let device = json!({ "name": "cam", "ssh": { "user": "fleet" }, "networks": ["192.168.1.0/24"] });
    assert_eq!(api.operator().post("/api/v1/devices", device).await.status, 201);
    told(&mut api);
    api
}

/// Returns the monitor's last input for a host.
fn told(api: &mut TestApi) -> Option<HostSpec> {
    let mut last = None;
    while let Ok(input) = api.monitor.try_recv() {
        if let MonitorInput::Upsert(spec) = input {
            last = Some(*spec);
        }
    }
    last
}

fn field(answer: &Answer) -> (u16, &Value) {
    (answer.status, &answer.json["errors"][0]["field"])
}

/// Returns the engine's service in words.
fn words(spec: &HostSpec, service: &str) -> String {
    format!("{:?}", spec.services.iter().find(|s| s.name == service).expect("the service"))
}

/// Each field with a value other than its default.
pub(super) fn of_a_service() -> [(&'static str, serde_json::Value); 10] {
    [
        ("interval_s", json!(120)),
        ("retry_s", json!(7)),
        ("timeout_s", json!(3)),
        ("max_check_attempts", json!(5)),
        ("freshness_s", json!(600)),
        ("volatile", json!(true)),
        ("thresholds", json!([{ "metric": "time", "warn": "2" }])),
        ("flapping", json!({ "low": 5 })),
        ("notify", json!({ "delay_s": 60 })),
        ("check", json!({ "type": "tcp", "port": 2222 })),
    ]
}

#[tokio::test]
async fn every_field_of_a_service_reaches_the_engine() {
    let mut api = api().await;
    let fields = of_a_service();
    for service in ["ssh", "tunnel", "ping", "disk"] {
        for (name, value) in &fields {
            let path = format!("/api/v1/hosts/cam/services/{service}");
            api.operator().put(&path, json!({})).await;
            let before = words(&told(&mut api).unwrap(), service);
            let put = api.operator().put(&path, json!({ *name: value })).await;
            assert_eq!(put.status, 200, "{service}.{name}: {}", put.text);
            let after = words(&told(&mut api).unwrap(), service);
            assert_ne!(before, after, "{service}.{name} is stored, and nobody hears of it");
        }
    }
    let put = api.operator().put("/api/v1/hosts/cam/services/ssh", json!({ "timeout_s": 3 })).await;
    assert_eq!(put.status, 200);
    let spec = told(&mut api).unwrap();
    let ssh = spec.services.iter().find(|s| s.name == "ssh").unwrap();
    assert_eq!(ssh.timing.timeout, Duration::from_secs(3));
}

#[tokio::test]
async fn what_a_check_does_not_heed_is_refused() {
    let api = api().await;
    let operator = api.operator();
    let passive = json!({ "type": "passive" });
    let job = json!({ "type": "heartbeat", "every_s": 3600, "grace_s": 600 });
    for (check, fields) in [
        (&passive, ["interval_s", "retry_s", "timeout_s"].as_slice()),
        (&job, ["interval_s", "retry_s", "timeout_s", "freshness_s"].as_slice()),
    ] {
        for name in fields {
            let service = json!({ "check": check, *name: 30 });
            let put = operator.put("/api/v1/hosts/cam/services/backup", service.clone()).await;
            assert_eq!(field(&put), (422, &json!(name)), "{}", put.text);
            let put =
                operator.put("/api/v1/profiles/own", json!({ "services": { "backup": service } })).await;
            assert_eq!(field(&put), (422, &json!(format!("services.backup.{name}"))), "{}", put.text);
        }
        let made = operator.put("/api/v1/hosts/cam/services/backup", json!({ "check": check })).await;
        assert_eq!(made.status, 200, "{}", made.text);
    }
    let profile = json!({ "services": { "job": { "check": passive } } });
    assert_eq!(operator.put("/api/v1/profiles/sent", profile).await.status, 200);
    assert_eq!(operator.patch("/api/v1/hosts/cam", json!({ "profile": "sent" })).await.status, 200);
    let put = operator.put("/api/v1/hosts/cam/services/job", json!({ "timeout_s": 3 })).await;
    assert_eq!(field(&put), (422, &json!("timeout_s")), "by the check of its profile: {}", put.text);
}

#[tokio::test]
async fn every_field_of_a_host_reaches_the_engine() {
    let mut api = api().await;
    assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "router" })).await.status, 201);
    let nas = json!({ "name": "nas", "via": "cam", "address": "192.168.1.9" });
    assert_eq!(api.operator().post("/api/v1/hosts", nas).await.status, 201);
    let fields = [
        ("name", json!("nas-2")),
        ("labels", json!({ "site": "hill" })),
        ("profile", json!("router")),
        ("address", json!("192.168.1.8")),
        ("ssh", json!({ "port": 2222 })),
        ("ssh", json!({ "user": "fleet" })),
        ("interval_s", json!(120)),
        ("retry_s", json!(7)),
        ("timeout_s", json!(3)),
        ("max_check_attempts", json!(5)),
        ("max_silence_s", json!(900)),
        ("freshness_s", json!(600)),
        ("parents", json!(["router"])),
        ("volatile", json!(true)),
        ("flapping", json!({ "enabled": false })),
        ("notify", json!({ "interval_s": 60 })),
        ("thresholds", json!([{ "metric": "rtt", "warn": "2" }])),
    ];
    let id = api.viewer().get("/api/v1/hosts/nas").await.json["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/hosts/{id}");
    let mut before = format!("{:?}", told(&mut api).unwrap());
    for (name, value) in &fields {
        let patch = api.operator().patch(&path, json!({ *name: value })).await;
        assert_eq!(patch.status, 200, "{name}: {}", patch.text);
        let after = format!("{:?}", told(&mut api).unwrap());
        assert_ne!(before, after, "{name} is stored, and nobody hears of it");
        before = after;
    }
    let document = openapi();
    let declared = &document["components"]["schemas"]["HostChange"]["properties"];
    let declared: BTreeSet<&str> = declared.as_object().unwrap().keys().map(String::as_str).collect();
    let mut shown: BTreeSet<&str> = fields.iter().map(|(name, _)| *name).collect();
    // A device's own field, and one for people only.
    shown.extend(["budget_bytes_per_day", "notes"]);
    assert_eq!(shown, declared, "each field stands in the table of this test");
    let budget = json!({ "budget_bytes_per_day": 1_000_000 });
    assert_eq!(
        field(&api.operator().patch(&path, budget.clone()).await),
        (422, &json!("budget_bytes_per_day"))
    );
    assert_eq!(api.operator().patch("/api/v1/hosts/cam", budget).await.status, 200);
    assert!(told(&mut api).unwrap().budget.is_some());
    assert_eq!(api.operator().patch(&path, json!({ "notes": "n" })).await.json["notes"], "n");
}

#[tokio::test]
async fn what_a_path_says_already_is_not_said_otherwise() {
    let api = api().await;
    let work = |service: &str| json!({ "service": service, "end": "2099-01-01T00:00:00Z", "start": "2098-12-31T00:00:00Z" });
    let path = "/api/v1/hosts/cam/services/ping/downtimes";
    let refused = api.operator().post(path, work("tunnel")).await;
    assert_eq!(field(&refused), (422, &json!("service")), "{}", refused.text);
    assert_eq!(api.operator().post(path, work("ping")).await.status, 201);
}

#[tokio::test]
async fn a_successor_is_not_given_what_it_would_not_get() {
    let api = api().await;
    let token =
        api.operator().post("/api/v1/devices/cam/replacement", json!({ "needs_approval": true })).await;
    let key = fleetgate_keys::PrivateKey::from_bytes([7; 32]).public().to_string();
    let body = json!({ "token": token.json["secret"], "name": "new", "public_key": key, "poll_hash": "ab".repeat(32) });
    let waiting = api.anonymous().post("/api/v1/enrol", body).await;
    assert_eq!(waiting.status, 201, "{}", waiting.text);
    let path = format!("/api/v1/enrolments/{}/approve", waiting.json["id"].as_str().unwrap());
    for (name, value) in [("name", json!("other")), ("labels", json!({ "site": "hill" }))] {
        let refused = api.operator().post(&path, json!({ name: value })).await;
        assert_eq!(field(&refused), (422, &json!(name)), "{}", refused.text);
    }
    let done = api.operator().post(&path, json!({})).await;
    assert_eq!((done.status, &done.json["name"]), (200, &json!("cam")), "{}", done.text);
}

#[tokio::test]
async fn a_changed_service_says_what_it_was_before() {
    let api = api().await;
    let path = "/api/v1/hosts/cam/services/ping";
    let limits = |warn: &str| json!({ "thresholds": [{ "metric": "rta", "warn": warn }] });
    let profile = json!({ "services": { "ping": { "check": { "type": "ping" }, "thresholds": limits("70")["thresholds"] } } });
    assert_eq!(api.operator().put("/api/v1/profiles/own", profile).await.status, 200);
    assert_eq!(api.operator().patch("/api/v1/hosts/cam", json!({ "profile": "own" })).await.status, 200);
    for body in [limits("80"), limits("90")] {
        assert_eq!(api.operator().put(path, body).await.status, 200);
    }
    assert_eq!(api.operator().delete(path).await.status, 204);
    let new = json!({ "check": { "type": "passive" } });
    assert_eq!(api.operator().put("/api/v1/hosts/cam/services/copy", new).await.status, 200);
    let events = api.viewer().get("/api/v1/events?kind=service&host=cam").await.json;
    let previous: Vec<&Value> =
        events["items"].as_array().unwrap().iter().map(|e| &e["data"]["previous"]).collect();
    assert_eq!(previous[0], &Value::Null, "it is new");
    let warn = |previous: &Value| previous["thresholds"][0]["warn"].clone();
    assert_eq!((warn(previous[1]), warn(previous[2])), (json!("90"), json!("80")), "{events}");
    assert_eq!(warn(previous[3]), json!("70"), "of the profile");
}
