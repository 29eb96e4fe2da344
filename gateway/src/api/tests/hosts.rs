//! Hosts, services, problems, settings and samples.

use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    Attempts, DirectReply, HostState, HostStatus, MonitorInput, PeerStatus, Refusal, ServiceState,
    UnprovedHandshakes,
};
use fleetgate_probes::sample::{Metric, Status};
use serde_json::{Value, json};

use super::metrics_query::{record, sample};
use crate::api::testing::TestApi;
use crate::engine::live_state::Change;
use crate::store::{fixture, states};

/// Creates a device with a site network through the API. Returns its id.
async fn device(api: &TestApi, name: &str) -> HostId {
    let body = json!({ "name": name, "networks": ["192.168.1.0/24"], "labels": { "site": "north" } });
    let made = api.operator().post("/api/v1/devices", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json["device"]["id"].as_str().unwrap()[2..].parse().unwrap()
}

async fn put(api: &TestApi, host: &HostState, services: &[ServiceState]) {
    let mut tx = api.state.store.begin().await.unwrap();
    states::write_hosts(&mut tx, &[host]).await.unwrap();
    let rows: Vec<_> = services.iter().map(|s| (host.host, s)).collect();
    states::write_services(&mut tx, &rows).await.unwrap();
    tx.commit().await.unwrap();
}

async fn get(api: &TestApi, path: &str) -> Value {
    let answer = api.viewer().get(&format!("/api/v1{path}")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json
}

#[tokio::test]
async fn a_new_device_is_a_pending_host_with_its_services() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let host = get(&api, "/hosts/cam-07").await;
    assert_eq!(host["state"]["state"], "pending");
    assert_eq!((&host["address"], &host["state"]["max_attempts"]), (&json!("10.112.0.2"), &json!(3)));
    let services = get(&api, "/hosts/cam-07/services").await;
    let names: Vec<&str> =
        services["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tunnel", "ping"]);
    let overview = get(&api, "/overview").await;
    assert_eq!((&overview["hosts"]["pending"], &overview["services"]["pending"]), (&json!(1), &json!(2)));
    assert_eq!(overview["last_check"], Value::Null);
}

#[tokio::test]
async fn states_output_and_metrics_are_shown() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    put(&api, &fixture::up(id), &[fixture::service("ping", Status::Critical)]).await;
    let mut ping = get(&api, "/hosts/cam-07/services/ping").await;
    ping["host"] = json!("[id]");
    insta::assert_json_snapshot!(ping);
    let mut host = get(&api, "/hosts/cam-07").await;
    for (place, shown) in [("/id", "[id]"), ("/created_at", "[time]"), ("/tunnel/public_key", "[key]")] {
        *host.pointer_mut(place).unwrap() = json!(shown);
    }
    insta::assert_json_snapshot!(host);
    let unknown = api.viewer().get("/api/v1/hosts/cam-07/services/nope").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.json["detail"].as_str().unwrap().contains("it has: tunnel, ping"));
}

#[tokio::test]
async fn what_memory_knows_of_a_tunnel_is_in_the_list() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    let status = PeerStatus { established: true, rx_bytes: 42, ..PeerStatus::default() };
    api.state.live.set_peer(id, status);
    let list = get(&api, "/hosts?state=pending&label=site%3Dnorth&q=cam").await;
    assert_eq!(list["items"][0]["tunnel"]["rx_bytes"], 42);
    assert_eq!(get(&api, "/hosts?state=down").await["items"], json!([]));
    assert_eq!(api.viewer().get("/api/v1/hosts?state=sideways").await.status, 400);
}

#[tokio::test]
async fn problems_are_listed_worst_first_in_pages() {
    let api = TestApi::with_endpoint().await;
    let (a, b) = (device(&api, "a").await, device(&api, "b").await);
    put(&api, &fixture::up(a), &[fixture::service("ping", Status::Warning)]).await;
    let down = HostState { hard: HostStatus::Down, status: HostStatus::Down, ..fixture::up(b) };
    let stale = ServiceState { stale: true, ..fixture::service("ping", Status::Critical) };
    put(&api, &down, &[stale]).await;
    let first = get(&api, "/problems?limit=1").await;
    assert_eq!((&first["items"][0]["host_name"], &first["items"][0]["state"]), (&json!("b"), &json!("down")));
    let next = get(&api, &format!("/problems?after={}", first["next"].as_str().unwrap())).await;
    let rest: Vec<_> = next["items"].as_array().unwrap().iter().map(|p| p["service"].clone()).collect();
    assert_eq!((rest, &next["next"]), (vec![json!("ping")], &Value::Null));
    assert_eq!(api.viewer().get("/api/v1/problems?after=AAAA").await.status, 400);
}

#[tokio::test]
async fn check_now_tells_the_monitor_and_the_log() {
    let mut api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    while api.monitor.try_recv().is_ok() {}
    assert_eq!(api.viewer().post("/api/v1/hosts/cam-07/check", json!({})).await.status, 403);
    let asked = api.operator().post("/api/v1/hosts/cam-07/services/ping/check", json!({})).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let MonitorInput::CheckNow { host, service } = api.monitor.try_recv().unwrap() else { panic!("a check") };
    assert_eq!((host, service.as_deref()), (id, Some("ping")));
    let shown = get(&api, "/hosts/cam-07/services/ping").await;
    let asked_at = shown["check_requested_at"].as_str().expect("the request is visible at once").to_owned();
    assert_eq!(get(&api, "/hosts/cam-07").await["state"]["check_requested_at"], Value::Null);
    assert_eq!(api.operator().post("/api/v1/hosts/cam-07/check", json!({})).await.status, 202);
    let all = get(&api, "/hosts/cam-07").await["state"]["check_requested_at"].as_str().unwrap().to_owned();
    // As text, a whole second sorts after its fractions.
    let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    assert!(moment(&all) >= moment(&asked_at));
    let done = crate::clock::wall() + Duration::from_secs(1);
    put(&api, &HostState { last_check: Some(done), ..fixture::up(id) }, &[]).await;
    assert_eq!(
        get(&api, "/hosts/cam-07").await["state"]["check_requested_at"],
        Value::Null,
        "its result is there"
    );
    let events = get(&api, "/events?host=cam-07&kind=check").await;
    assert!(events["items"][0]["principal"].as_str().unwrap().starts_with("token:t_"));
    assert_eq!(api.operator().post("/api/v1/hosts/cam-07/services/x/check", json!({})).await.status, 404);
}

#[tokio::test]
async fn what_is_never_asked_shows_no_request() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let sent =
        [("backup", json!({ "type": "passive" })), ("sync", json!({ "type": "heartbeat", "every_s": 60 }))];
    for (job, check) in sent {
        let path = format!("/api/v1/hosts/cam-07/services/{job}");
        assert_eq!(api.operator().put(&path, json!({ "check": check })).await.status, 200);
    }
    assert_eq!(api.operator().post("/api/v1/hosts/cam-07/check", json!({})).await.status, 202);
    let services = get(&api, "/hosts/cam-07/services").await["items"].as_array().unwrap().clone();
    let waits = |name: &str| {
        let service = services.iter().find(|s| s["name"] == name).expect("a service");
        service.get("check_requested_at").is_some()
    };
    assert_eq!(["ping", "tunnel", "backup", "sync"].map(waits), [true, true, false, false]);
}

#[tokio::test]
async fn an_override_changes_switches_off_and_goes_back() {
    let mut api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    while api.monitor.try_recv().is_ok() {}
    let (operator, path) = (api.operator(), "/api/v1/hosts/cam-07/services");
    let off = operator.put(&format!("{path}/ping"), json!({ "disabled": true })).await;
    assert_eq!((off.status, &off.json["version"]), (200, &json!(1)), "{}", off.text);
    let Ok(MonitorInput::Upsert(spec)) = api.monitor.try_recv() else { panic!("the host again") };
    assert_eq!(spec.services.len(), 1);
    assert_eq!(get(&api, "/overview").await["services"]["pending"], 1);

    let check = json!({ "check": { "type": "tcp", "port": 554 }, "interval_s": 30.0,
                        "thresholds": [{ "metric": "time", "warn": "2" }] });
    let added = api.operator().put(&format!("{path}/rtsp"), check.clone()).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let shown = get(&api, "/hosts/cam-07/services/rtsp").await;
    assert_eq!((&shown["check"], &shown["check_interval_s"]), (&json!("tcp"), &json!(30.0)));
    let overrides = get(&api, "/hosts/cam-07/overrides").await;
    assert_eq!(overrides["items"][1]["thresholds"], check["thresholds"]);

    let operator = api.operator();
    let stale = operator.clone().header("if-match", "\"7\"").put(&format!("{path}/rtsp"), check).await;
    assert_eq!((stale.status, stale.code()), (412, "changed_meanwhile"));
    assert_eq!(operator.delete(&format!("{path}/ping")).await.status, 204);
    assert_eq!(operator.delete(&format!("{path}/ping")).await.status, 404);
    assert_eq!(get(&api, "/hosts/cam-07/services/ping").await["state"], "pending");
}

#[tokio::test]
async fn a_wrong_override_names_the_field_and_changes_nothing() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let cases = [
        ("nope", json!({ "interval_s": 5 }), "check"),
        ("tcp", json!({ "check": { "type": "tcp", "port": 0 } }), "check.port"),
        ("ping", json!({ "timeout_s": 400 }), "timeout_s"),
        ("ping", json!({ "disabled": "yes" }), "disabled"),
        ("UPPER", json!({}), "service"),
        ("ping", json!({ "thresholds": [{ "metric": "rta", "warn": "10:5" }] }), "thresholds[0].warn"),
    ];
    for (service, body, field) in cases {
        let path = format!("/api/v1/hosts/cam-07/services/{service}");
        let answer = api.operator().put(&path, body).await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            answer.text
        );
    }
    assert_eq!(get(&api, "/hosts/cam-07/overrides").await["items"], json!([]));
}

#[tokio::test]
async fn a_service_that_waits_for_a_login_has_its_limits_before_that() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let limits = json!({ "thresholds": [{ "metric": "used", "warn": "95" }] });
    let path = "/api/v1/hosts/cam-07/services/disk";
    let put = api.operator().put(path, limits.clone()).await;
    assert_eq!(put.status, 200, "{}", put.text);
    assert_eq!(api.viewer().get(path).await.status, 404, "nobody can log in");
    api.operator().patch("/api/v1/hosts/cam-07", json!({ "ssh": { "user": "fleet" } })).await;
    let shown = json!([{ "metric": "inodes", "warn": "90", "crit": "97" }, limits["thresholds"][0]]);
    assert_eq!(
        get(&api, "/hosts/cam-07/services/disk").await["thresholds"],
        shown,
        "instead of its fullness"
    );
}

#[tokio::test]
async fn a_host_behind_a_device_comes_changes_and_goes() {
    let mut api = TestApi::with_endpoint().await;
    device(&api, "site-1").await;
    while api.monitor.try_recv().is_ok() {}
    let nas = json!({ "name": "nas", "via": "site-1", "address": "192.168.1.5", "interval_s": 120 });
    let made = api.operator().post("/api/v1/hosts", nas.clone()).await;
    assert_eq!((made.status, &made.json["via"]), (201, &json!("site-1")), "{}", made.text);
    let Ok(MonitorInput::Upsert(spec)) = api.monitor.try_recv() else { panic!("a host") };
    assert!(!spec.own_tunnel && spec.peer.is_some());
    assert_eq!(api.operator().post("/api/v1/hosts", nas).await.code(), "name_taken");

    let before = api.viewer().get("/api/v1/hosts/nas/settings").await;
    assert_eq!(before.json["interval_s"], 120.0);
    let change = json!({ "interval_s": null, "max_check_attempts": 5, "name": "nas-1" });
    let etag = before.headers["etag"].to_str().unwrap();
    let changed = api.operator().header("if-match", etag).patch("/api/v1/hosts/nas", change).await;
    assert_eq!((changed.status, &changed.json["interval_s"]), (200, &Value::Null), "{}", changed.text);
    assert_eq!(get(&api, "/hosts/nas-1").await["state"]["max_attempts"], 5);
    let late = api.operator().header("if-match", etag).delete("/api/v1/hosts/nas-1").await;
    assert_eq!(late.status, 412);
    assert_eq!(api.operator().delete("/api/v1/hosts/nas-1").await.status, 204);
    assert_eq!(api.viewer().get("/api/v1/hosts/nas-1").await.status, 404);
    assert_eq!(api.operator().delete("/api/v1/hosts/site-1").await.code(), "is_a_device");
}

#[tokio::test]
async fn a_host_behind_a_device_gets_another_host_key() {
    let mut api = TestApi::with_endpoint().await;
    device(&api, "site-1").await;
    let (first, second) = (format!("SHA256:{}", "A".repeat(43)), format!("SHA256:{}", "E".repeat(43)));
    let nas = json!({
        "name": "nas", "via": "site-1", "address": "192.168.1.5",
        "ssh": { "user": "fleet", "host_key": first },
    });
    assert_eq!(api.operator().post("/api/v1/hosts", nas).await.status, 201);
    let before = get(&api, "/hosts/nas/settings").await;
    while api.monitor.try_recv().is_ok() {}
    let trusts = |key: &str| json!({ "host_key": key });
    let path = "/api/v1/hosts/nas/trust";
    assert_eq!(api.viewer().post(path, trusts(&second)).await.status, 403);
    let wrong = api.operator().post(path, trusts("x")).await;
    assert_eq!(
        (wrong.status, &wrong.json["errors"][0]["field"]),
        (422, &json!("host_key")),
        "{}",
        wrong.text
    );
    assert_eq!(get(&api, "/hosts/nas/settings").await, before, "a refusal changes nothing");
    let trusted = api.operator().post(path, trusts(&second)).await;
    assert_eq!(trusted.status, 200, "{}", trusted.text);
    assert_eq!(
        (&trusted.json["ssh"]["pin"], &trusted.json["ssh"]["pin_source"]),
        (&json!(second), &json!("trusted"))
    );
    assert_eq!(trusted.json["ssh"]["user"], "fleet", "the rest stays");
    let Ok(MonitorInput::Upsert(spec)) = api.monitor.try_recv() else { panic!("the monitor has the key") };
    assert!(format!("{spec:?}").contains(&second), "{spec:?}");
    let events = get(&api, "/events?since=0&host=nas&limit=500").await;
    let event = events["items"].as_array().unwrap().iter().find(|e| e["kind"] == "host.trusted").unwrap();
    assert_eq!(event["data"], json!({ "fingerprint": second, "previous": first }));
    let device = api.operator().post("/api/v1/hosts/site-1/trust", trusts(&first)).await;
    assert_eq!(device.code(), "is_a_device");
    assert!(device.text.contains("POST /devices/site-1/trust"), "{}", device.text);
    let unknown = api.operator().post("/api/v1/hosts/cam/trust", trusts(&first)).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn networks_are_not_taken_away_from_under_the_hosts_in_them() {
    let api = TestApi::with_endpoint().await;
    device(&api, "site-1").await;
    let nas = json!({ "name": "nas", "via": "site-1", "address": "192.168.1.5" });
    assert_eq!(api.operator().post("/api/v1/hosts", nas).await.status, 201);
    let change = |networks: Value| json!({ "networks": networks });
    let path = "/api/v1/devices/site-1";
    let refused = api.operator().patch(path, change(json!(["10.0.0.0/24"]))).await;
    assert_eq!((refused.status, refused.code()), (409, "hosts_behind"), "{}", refused.text);
    assert!(refused.json["detail"].as_str().unwrap().contains("nas"));
    assert_eq!(get(&api, "/devices/site-1").await["networks"], json!(["192.168.1.0/24"]));
    let smaller = change(json!(["192.168.1.0/28", "10.0.0.0/24"]));
    assert_eq!(api.operator().patch(path, smaller).await.status, 200);

    // A host from before this check, outside all networks, can still be renamed and moved into one.
    fixture::run(&api.state.store, "update peers set networks = '[\"10.0.0.0/24\"]'", &[]).await;
    let renamed = api.operator().patch("/api/v1/hosts/nas", json!({ "name": "nas-1" })).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text);
    let nowhere = api.operator().patch("/api/v1/hosts/nas-1", json!({ "address": "192.168.1.6" })).await;
    assert_eq!(nowhere.status, 422);
    let moved = api.operator().patch("/api/v1/hosts/nas-1", json!({ "address": "10.0.0.6" })).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
}

#[tokio::test]
async fn what_is_left_of_a_removed_host_is_found_by_its_id() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    let at = crate::clock::wall().as_millis() / 1_000 - 60;
    record(&api, &[sample(id, "ping", at, vec![Metric::plain("rtt", 12.5, "ms")])]).await;
    assert_eq!(get(&api, "/hosts/cam-07").await.get("removed_at"), None);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-07").await.status, 204);

    let path = format!("/hosts/h_{id}");
    let host = get(&api, &path).await;
    assert!(host["removed_at"].is_string() && host["tunnel"].is_null(), "{host}");
    let services = get(&api, &format!("{path}/services")).await;
    assert_eq!(services["items"][1]["name"], "ping", "{services}");
    assert_eq!(get(&api, &format!("{path}/services/ping")).await["state"], "pending");
    assert_eq!(get(&api, &format!("{path}/metrics")).await["items"][0]["label"], "rtt");
    let samples = get(&api, &format!("{path}/services/ping/metrics/rtt")).await;
    assert_eq!(samples["points"][0]["value"], 12.5);

    assert_eq!(api.viewer().get("/api/v1/hosts/cam-07").await.status, 404, "the name is free");
    let unknown = format!("/api/v1/hosts/h_{}", Id::from_i64(1));
    assert_eq!(api.viewer().get(&unknown).await.status, 404);
    assert_eq!(api.operator().post(&format!("/api/v1{path}/check"), json!({})).await.status, 404);
    let change = json!({ "name": "x" });
    assert_eq!(api.operator().patch(&format!("/api/v1{path}"), change).await.status, 404);
}

#[tokio::test]
async fn a_host_cannot_stand_where_nothing_is_reached() {
    let api = TestApi::with_endpoint().await;
    device(&api, "site-1").await;
    let new = |via: &str, address: &str| json!({ "name": "nas", "via": via, "address": address });
    for (body, field) in [
        (new("site-1", "10.0.0.5"), "address"),
        (new("site-1", "nas.local"), "address"),
        (new("site-9", "192.168.1.5"), "via"),
    ] {
        let answer = api.operator().post("/api/v1/hosts", body).await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            answer.text
        );
    }
    let behind = json!({ "name": "nas-1", "via": "site-1", "address": "192.168.1.5" });
    assert_eq!(api.operator().post("/api/v1/hosts", behind).await.status, 201);
    let twice = api.operator().post("/api/v1/hosts", new("nas-1", "192.168.1.6")).await;
    assert!(twice.text.contains("nas-1 is a host behind a device"), "{}", twice.text);
    let reset = api.operator().delete("/api/v1/hosts/nas-1/services/nope").await;
    assert!(reset.status == 404 && reset.text.contains("no settings of its own"), "{}", reset.text);
    let late = json!({ "name": "nas", "via": "site-1", "address": "192.168.1.5", "timeout_s": 60 });
    assert_eq!(api.operator().post("/api/v1/hosts", late).await.json["errors"][0]["field"], "timeout_s");
}

#[tokio::test]
async fn samples_are_read_by_label_and_time() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    let base = (crate::clock::day() - 1) * 86_400;
    let at = |seconds: i64| crate::api::metrics::text(base + seconds);
    let of = |seconds: i64, service: &str, label: &str| {
        sample(id, service, base + seconds, vec![Metric::plain(label, seconds as f64 * 1_000.0, "%")])
    };
    record(&api, &[of(1, "disk", "/var"), of(2, "disk", "/var"), of(1, "", "rtt")]).await;

    let known = get(&api, "/hosts/cam-07/metrics").await;
    let labels: Vec<_> = known["items"].as_array().unwrap().iter().map(|s| s["label"].clone()).collect();
    assert_eq!(labels, [json!("rtt"), json!("/var")]);
    let span = format!("from={}&to={}", at(0), at(2));
    let read = get(&api, &format!("/hosts/cam-07/services/disk/metrics/%2Fvar?{span}")).await;
    assert_eq!(read["points"], json!([{ "at": at(1), "value": 1_000.0 }]));
    let host = get(&api, &format!("/hosts/cam-07/metrics/rtt?{span}&limit=1")).await;
    assert_eq!(host["uom"], "%");
    let wide = format!("from={}&to={}&points=24", at(0), at(86_400));
    let read = get(&api, &format!("/hosts/cam-07/services/disk/metrics/%2Fvar?{wide}")).await;
    let bucket = json!({ "at": at(0), "min": 1_000.0, "avg": 1_500.0, "max": 2_000.0, "count": 2 });
    assert_eq!((&read["bucket_s"], &read["buckets"]), (&json!(3_600.0), &json!([bucket])));
    for bad in [
        "points=1",
        "points=2001",
        "points=5&limit=5",
        "from=yesterday",
        "limit=0",
        "from=2026-01-01T00:00:00Z&to=2025-01-01T00:00:00Z",
    ] {
        let path = format!("/api/v1/hosts/cam-07/metrics/rtt?{bad}");
        assert_eq!(api.viewer().get(&path).await.code(), "bad_query", "{bad}");
    }
    assert_eq!(api.viewer().get("/api/v1/hosts/cam-07/metrics/nope").await.status, 404);
}

#[tokio::test]
async fn the_log_is_paged_both_ways_and_the_audit_is_for_admins() {
    let api = TestApi::with_endpoint().await;
    for name in ["a", "b", "c"] {
        device(&api, name).await;
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|e| e["object_name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let newest = get(&api, "/events?kind=device&limit=2").await;
    assert_eq!(names(&newest), ["c", "b"]);
    let rest = get(&api, &format!("/events?kind=device&after={}", newest["next"].as_str().unwrap())).await;
    assert_eq!(names(&rest), ["a"]);
    let since = newest["items"][1]["seq"].as_i64().unwrap() - 1;
    assert_eq!(names(&get(&api, &format!("/events?kind=device&since={since}")).await), ["b", "c"]);
    assert_eq!(api.viewer().get("/api/v1/audit").await.status, 403);
    let audit = api.admin().get("/api/v1/audit").await;
    assert_eq!(names(&audit.json), ["c", "b", "a"]);
    let id = Id::from_i64(1);
    assert_eq!(get(&api, &format!("/events?host=h_{id}")).await["items"], json!([]));
}

#[tokio::test]
async fn a_host_that_is_down_by_a_limit_is_not_said_to_be_silent() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    let slow = HostState { source: "echo".into(), output: "rtt 900 ms (critical)".into(), ..fixture::up(id) };
    put(&api, &HostState { hard: HostStatus::Down, status: HostStatus::Down, ..slow }, &[]).await;
    let verdict = get(&api, "/hosts/cam-07").await["verdict"].clone();
    let (kind, text) = (json!("service_problem"), json!("the host answers, but its check crossed a limit"));
    assert_eq!((&verdict["kind"], &verdict["text"]), (&kind, &text), "{verdict}");
}

#[tokio::test]
async fn a_host_that_fell_silent_has_a_verdict_with_what_it_may_be() {
    let api = TestApi::with_endpoint().await;
    let (silent, other) = (device(&api, "cam-07").await, device(&api, "cam-08").await);
    let at = crate::clock::wall();
    let since = at - Duration::from_secs(120);
    let nobody = HostState { source: "none".into(), ..fixture::up(silent) };
    let down = HostState { hard: HostStatus::Down, status: HostStatus::Down, since, ..nobody };
    put(&api, &down, &[]).await;
    let verdict = get(&api, "/hosts/cam-07").await["verdict"].clone();
    // The device never connected under its key, so the key may be wrong.
    let all =
        ["gateway_uplink_lost", "site_uplink_lost", "key_refused", "tunnel_down", "line_lost", "device_gone"];
    let all = json!(all);
    assert_eq!((&verdict["kind"], &verdict["candidates"]), (&json!("undetermined"), &all));

    let direct = DirectReply::Silent;
    put(&api, &HostState { direct, ..down.clone() }, &[]).await;
    put(&api, &HostState { source: "echo".into(), last_check: Some(at), ..fixture::up(other) }, &[]).await;
    let verdict = get(&api, "/hosts/cam-07").await["verdict"].clone();
    assert_eq!(
        (&verdict["kind"], &verdict["text"]),
        (&json!("undetermined"), &json!("undetermined: its own line lost or device gone")),
        "{verdict}"
    );
    assert!(
        verdict["evidence"].to_string().contains("other hosts of north: 1 heard from since then"),
        "{verdict}"
    );

    let problem = get(&api, "/problems").await["items"][0].clone();
    let text = "undetermined: its own line lost or device gone";
    let line = json!({ "kind": "undetermined", "text": text });
    assert_eq!((&problem["host_name"], &problem["verdict"]), (&json!("cam-07"), &line));

    let refused = PeerStatus { last_refusal: Some((at, Refusal::Crypto)), ..PeerStatus::default() };
    api.state.live.set_peer(silent, refused.clone());
    assert_eq!(get(&api, "/hosts/cam-07").await["verdict"]["text"], text, "anybody can send that");
    let unproved =
        UnprovedHandshakes { count: 3, since: at, last: at, from: ([203, 0, 113, 2], 40_000).into() };
    let attempts = Attempts { unproved: Some(unproved), ..Attempts::default() };
    api.state.live.set_peer(silent, PeerStatus { attempts, ..refused });
    assert_eq!(get(&api, "/hosts/cam-07").await["verdict"]["kind"], "key_refused");
    assert_eq!(get(&api, "/hosts/cam-08").await["verdict"]["kind"], "ok");
    assert_eq!(get(&api, "/hosts").await["items"][0]["verdict"], Value::Null);
}

async fn first_problem(api: &TestApi) -> Value {
    get(api, "/problems").await["items"][0]["verdict"].clone()
}

#[tokio::test]
async fn the_list_keeps_a_verdict_until_anything_that_it_rests_on_has_moved() {
    let api = TestApi::with_endpoint().await;
    let (silent, other) = (device(&api, "cam-07").await, device(&api, "cam-08").await);
    let at = crate::clock::wall();
    let since = at - Duration::from_secs(120);
    let nobody = HostState { source: "none".into(), direct: DirectReply::Silent, ..fixture::up(silent) };
    let down = HostState { hard: HostStatus::Down, status: HostStatus::Down, since, ..nobody };
    put(&api, &down, &[]).await;
    let first = first_problem(&api).await;
    assert_eq!(first["kind"], "undetermined");
    // Rows written without a signal: the cached summary stays.
    put(&api, &HostState { source: "echo".into(), last_check: Some(at), ..fixture::up(other) }, &[]).await;
    assert_eq!(first_problem(&api).await, first);
    api.state.live.tell(Change::Checked { host: other, last_check: Some(at), next_check: None });
    assert_eq!(first_problem(&api).await, first, "a check that changed no state");
    api.state.live.tell(Change::Host(other));
    let heard = first_problem(&api).await;
    assert_eq!(heard["text"], "undetermined: its own line lost or device gone");

    // The host's tunnel has a new sign, which is enough without any other change.
    let unproved =
        UnprovedHandshakes { count: 3, since: at, last: at, from: ([203, 0, 113, 2], 40_000).into() };
    let attempts = Attempts { unproved: Some(unproved), ..Attempts::default() };
    let last_refusal = Some((at, Refusal::Crypto));
    api.state.live.set_peer(silent, PeerStatus { last_refusal, attempts, ..PeerStatus::default() });
    assert_eq!(first_problem(&api).await["kind"], "key_refused");

    put(&api, &fixture::up(silent), &[]).await;
    api.state.live.tell(Change::Host(silent));
    assert_eq!(get(&api, "/problems").await["items"], json!([]), "a host that is back has none");
}

#[tokio::test]
async fn every_page_of_problems_is_of_one_list() {
    let api = TestApi::with_endpoint().await;
    for n in 0..5 {
        let id = device(&api, &format!("cam-{n}")).await;
        let down = HostState { hard: HostStatus::Down, status: HostStatus::Down, ..fixture::up(id) };
        put(&api, &down, &[]).await;
    }
    let all = get(&api, "/problems?limit=2000").await["items"].clone();
    assert_eq!(all.as_array().unwrap().len(), 5);
    assert_eq!(get(&api, "/problems?limit=500").await["items"], all, "as it is kept");
    let first = get(&api, "/problems?limit=3").await;
    let rest = get(&api, &format!("/problems?limit=3&after={}", first["next"].as_str().unwrap())).await;
    let pages = [&first, &rest].map(|page| page["items"].as_array().unwrap().clone()).concat();
    assert_eq!(json!(pages), all);
    assert!(pages.iter().all(|problem| problem["verdict"].is_object()), "{pages:?}");
}

#[tokio::test]
async fn a_key_that_comes_from_two_places_in_turn_is_named_until_it_is_replaced() {
    let api = TestApi::with_endpoint().await;
    let id = device(&api, "cam-07").await;
    put(&api, &fixture::up(id), &[]).await;
    let now = crate::clock::wall();
    for n in 0..6u16 {
        let seen = now - Duration::from_secs(60 - u64::from(n) * 10);
        let endpoint = std::net::SocketAddr::from(([192, 0, 2, 1], 4_000 + n % 2));
        let status =
            PeerStatus { endpoint: Some(endpoint), last_packet: Some(seen), ..PeerStatus::default() };
        api.state.live.set_peer(id, status);
    }
    let verdict = get(&api, "/hosts/cam-07").await["verdict"].clone();
    assert_eq!(verdict["kind"], "probable_cloned_key");
    assert!(verdict["evidence"].to_string().contains("192.0.2.1:4000 and 192.0.2.1:4001"), "{verdict}");
    api.state.live.forget_moves(id);
    assert_eq!(get(&api, "/hosts/cam-07").await["verdict"]["kind"], "ok");
}

#[tokio::test]
async fn a_time_zone_that_nobody_knows_is_refused_where_a_host_would_stand_in_it() {
    let api = TestApi::with_endpoint().await;
    let (wrong, right) = (json!({ "timezone": "Europe/Viena" }), json!({ "timezone": "Europe/Vienna" }));
    let make = |labels: &Value| json!({ "name": "nas", "labels": labels });
    let refused = api.operator().post("/api/v1/devices", make(&wrong)).await;
    assert!(refused.status == 422 && refused.text.contains("timezone=Europe/Viena"), "{}", refused.text);
    assert_eq!(api.operator().post("/api/v1/devices", make(&right)).await.status, 201);
    let refused = api.operator().patch("/api/v1/hosts/nas", json!({ "labels": wrong })).await;
    assert!(refused.status == 422 && refused.text.contains("Europe/Vienna is expected"), "{}", refused.text);
}
