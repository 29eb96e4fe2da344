//! Results that devices send through their own tunnels, with a real monitor and the real writer.

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, header};
use fleetgate_engine::id::PeerId;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::with_monitor::Ward;
use crate::api::request::ids::IdKind;
use crate::api::{Client, tunnel_api};

/// The device `nas`, a camera behind it, and requests through its tunnel.
struct Site {
    ward: Ward,
    peer: PeerId,
}

impl Site {
    async fn new() -> Site {
        let ward = Ward::new(json!({})).await;
        let operator = ward.api.operator();
        let networks = json!({ "networks": ["192.168.1.0/24"] });
        assert_eq!(operator.patch("/api/v1/devices/nas", networks).await.status, 200);
        let camera = json!({ "name": "camera", "via": "nas", "address": "192.168.1.9" });
        assert_eq!(operator.post("/api/v1/hosts", camera).await.status, 201);
        let clip = json!({ "check": { "type": "passive" } });
        assert_eq!(operator.put("/api/v1/hosts/camera/services/clip", clip).await.status, 200);
        assert_eq!(operator.post("/api/v1/devices", json!({ "name": "other" })).await.status, 201);
        let shown = ward.api.viewer().get("/api/v1/hosts/nas").await.json;
        let peer = IdKind::Host.parse(shown["id"].as_str().unwrap()).unwrap();
        Site { ward, peer }
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let answer = tunnel_api::router(self.ward.api.state.clone()).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = Request::post(path).extension(ConnectInfo(Client::Device(self.peer)));
        let (status, text) = self.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }
}

#[tokio::test]
async fn a_device_sends_its_results_without_a_token() {
    let site = Site::new().await;
    let (status, answer) = site.post("/results/backup?exit_status=1", "slow | size=12MB").await;
    assert_eq!((status, &answer["service"]["state"]), (202, &json!("warning")));
    let sent = json!({ "service": "backup", "exit_status": 2, "output": "no disk" }).to_string();
    assert_eq!(site.post("/results", &sent).await.0, 202);
    let backup = site.ward.backup().await;
    assert_eq!((&backup["state"], &backup["text"]), (&json!("critical"), &json!("no disk")));
    for nonsense in ["nan", "-inf", "-1"] {
        let path = format!("/results/backup?exit_status=0&timestamp={nonsense}");
        assert_eq!(site.post(&path, "when").await.0, 422, "{nonsense}");
    }
    let (status, answer) = site.post("/results/backup?exit_status=0&timestamp=1000", "long ago").await;
    assert_eq!((status, &answer["ignored"]), (200, &json!("older")));
    let (status, answer) = site.post("/results", r#"{"exit_status":0,"output":"here"}"#).await;
    assert_eq!((status, &answer["host"]["state"]["state"]), (202, &json!("up")));
}

#[tokio::test]
async fn a_result_that_a_device_sends_twice_counts_once() {
    let site = Site::new().await;
    let patient = json!({ "check": { "type": "passive" }, "max_check_attempts": 3 });
    let put = site.ward.api.operator().put("/api/v1/hosts/nas/services/backup", patient).await;
    assert_eq!(put.status, 200, "{}", put.text);
    site.post("/results/backup?exit_status=0", "fine").await;
    let attempt = |answer: &Value| answer["service"]["attempt"].clone();
    let dated =
        format!("/results/backup?exit_status=2&timestamp={}", crate::clock::wall().as_millis() / 1_000 + 1);
    for repeated in [Value::Null, json!(true)] {
        let (status, answer) = site.post(&dated, "bad").await;
        assert_eq!((status, attempt(&answer), &answer["repeated"]), (202, json!(1), &repeated), "{answer}");
    }
    for repeated in [Value::Null, json!(true)] {
        let request = Request::post("/results/backup?exit_status=2").header("idempotency-key", "k");
        let request =
            request.extension(ConnectInfo(Client::Device(site.peer))).body(Body::from("bad")).unwrap();
        let (status, text) = site.send(request).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, attempt(&answer), &answer["repeated"]), (202, json!(2), &repeated), "{text}");
    }
    let behind =
        r#"{"host":"camera","service":"clip","exit_status":2,"output":"bad","timestamp":4000000000}"#;
    assert_eq!(site.post("/results", behind).await.1["repeated"], Value::Null);
    assert_eq!(site.post("/results", behind).await.1["repeated"], true);
}

#[tokio::test]
async fn a_change_of_state_says_which_device_sent_it() {
    let site = Site::new().await;
    site.post("/results/backup?exit_status=2", "no disk").await;
    let viewer = site.ward.api.viewer();
    let changes = viewer.get("/api/v1/events?since=0&kind=state.changed").await.json;
    let backup = changes["items"].as_array().unwrap().iter().find(|e| e["service"] == "backup").unwrap();
    assert_eq!(backup["principal"], json!(format!("device:{}", IdKind::Host.text(site.peer))));
    let audit = site.ward.api.admin().get("/api/v1/audit?kind=state").await.json;
    assert_eq!(audit["items"], json!([]), "{audit}");
}

#[tokio::test]
async fn a_device_speaks_for_hosts_behind_it_and_for_no_others() {
    let site = Site::new().await;
    assert_eq!(site.post("/results/clip?exit_status=0&host=camera", "ok").await.0, 202);
    let known = site.post("/results/clip?exit_status=0&host=other", "ok").await;
    let unknown = site.post("/results/clip?exit_status=0&host=nobody", "ok").await;
    assert_eq!((known.0, unknown.0), (403, 403));
    let words = |answer: &Value, name: &str| answer["detail"].as_str().unwrap().replace(name, "X");
    assert_eq!(words(&known.1, "other"), words(&unknown.1, "nobody"));
}

#[tokio::test]
async fn a_peer_that_is_no_device_sends_nothing() {
    let site = Site::new().await;
    let posted = async |path: &str, body: Value| {
        let made = site.ward.post(path, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json
    };
    posted("/customers", json!({ "external_ref": "crm-17" })).await;
    let person = posted("/people", json!({ "customer": "crm-17" })).await;
    let renter = posted("/renters", json!({ "person": person["id"], "name": "laptop" })).await;
    let peer = IdKind::Renter.parse(renter["renter"]["id"].as_str().unwrap()).unwrap();
    let before = site.ward.backup().await["last_result"].clone();
    for path in ["/results/backup?exit_status=2", "/results/backup?exit_status=2&host=nas"] {
        let request = Request::post(path).extension(ConnectInfo(Client::Device(peer)));
        let (status, text) = site.send(request.body(Body::from("no disk")).unwrap()).await;
        assert_eq!(status, 404, "{text}");
    }
    assert_eq!(site.ward.backup().await["last_result"], before, "no result was taken");
}

#[tokio::test]
async fn attempts_on_other_hosts_are_in_the_audit_and_do_not_fill_it() {
    let site = Site::new().await;
    for _ in 0..30 {
        site.post("/results/clip?exit_status=0&host=other", "").await;
    }
    let written = site.ward.api.viewer().get("/api/v1/events?since=0&kind=result.refused").await.json;
    let written = written["items"].as_array().unwrap();
    assert_eq!(written.len(), 5);
    let by = format!("device:{}", IdKind::Host.text(site.peer));
    assert!(written.iter().all(|event| event["principal"] == json!(by)), "{written:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let site = Site::new().await;
    let (status, nope) = site.post("/results/nope?exit_status=0", "").await;
    assert!(status == 404 && nope["detail"].as_str().unwrap().contains("backup"), "{nope}");
    let (status, missing) = site.post("/results/backup", "").await;
    assert!(status == 400 && missing["detail"].as_str().unwrap().contains("exit_status"), "{missing}");
    assert_eq!(site.post("/api/v1/hosts", "{}").await.0, 404);
}

#[tokio::test]
async fn a_long_output_is_cut_and_its_result_counts() {
    let site = Site::new().await;
    let long = format!("all is well\n{}", "x".repeat(300_000));
    let (status, answer) = site.post("/results/backup?exit_status=0", &long).await;
    let service = &answer["service"];
    assert_eq!((status, &service["state"], &service["text"]), (202, &json!("ok"), &json!("all is well")));
    assert_eq!(service["parse_warnings"], json!(["the output is cut at 64 KiB"]));
    assert_eq!(service["long_text"].as_str().unwrap().len(), 64 * 1024 - "all is well\n".len());
    let sent = json!({ "service": "backup", "exit_status": 1, "output": &long[..90_000] }).to_string();
    let (status, answer) = site.post("/results", &sent).await;
    assert_eq!((status, &answer["service"]["state"]), (202, &json!("warning")));
    let operator = site.ward.api.operator();
    let path = "/api/v1/hosts/nas/services/backup/results";
    let over = operator.post(path, json!({ "exit_status": 2, "output": &long[..90_000] })).await;
    assert_eq!((over.status, &over.json["service"]["state"]), (202, &json!("critical")), "{}", over.text);
    let endless = "x".repeat(2_000_000);
    assert_eq!(site.post("/results/backup?exit_status=0", &endless).await.0, 413);
    assert_eq!(operator.post(path, json!({ "exit_status": 0, "output": endless })).await.status, 413);
}

#[tokio::test]
async fn a_device_that_sends_without_end_is_slowed_down() {
    let site = Site::new().await;
    let mut refused = 0;
    for _ in 0..200 {
        refused += u32::from(site.post("/results/nope?exit_status=0", "").await.0 == 429);
    }
    assert!((60..=80).contains(&refused), "{refused}");
}

#[tokio::test]
async fn the_first_page_says_who_one_is_and_what_to_do() {
    let site = Site::new().await;
    let request = Request::get("/").header(header::HOST, "10.112.0.1");
    let request = request.extension(ConnectInfo(Client::Device(site.peer))).body(Body::empty()).unwrap();
    let (status, page) = site.send(request).await;
    assert!(
        status == 200 && page.contains("you are nas") && page.contains("http://10.112.0.1/results/"),
        "{page}"
    );
    let nobody = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(site.send(nobody).await.0, 403);
}

#[tokio::test]
async fn a_job_that_is_set_up_takes_its_runs_from_its_device() {
    let site = Site::new().await;
    let job = json!({ "type": "heartbeat", "by": "03:00", "zone": "Europe/Vienna", "grace_s": 600.0 });
    let put = site.ward.api.operator().put("/api/v1/hosts/nas/services/sync", json!({ "check": job })).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let (status, answer) = site.post("/results/sync?exit_status=2", "no space").await;
    assert_eq!((status, &answer["service"]["check"]), (202, &json!("heartbeat")));
    let shown = site.ward.api.viewer().get("/api/v1/hosts/nas/overrides").await.json;
    let stored = shown["items"].as_array().unwrap().iter().find(|o| o["service"] == "sync").unwrap();
    assert_eq!(stored["check"]["by"], "03:00");
}
