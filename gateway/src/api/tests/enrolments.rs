//! Enrolment: one token, one device, one response; and approval by an operator.

use fleetgate_engine::messages::{Command, PeerStatus};
use fleetgate_keys::PrivateKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::api::testing::{Answer, TestApi};
use crate::engine::live_state::Change;
use crate::store::enrolments;
use crate::store::fixture::run;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

async fn token(api: &TestApi, body: Value) -> String {
    let made = api.operator().post("/api/v1/enrolment-tokens", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let secret = made.json["secret"].as_str().unwrap().to_owned();
    assert!(made.json["command"].as_str().unwrap().ends_with(&format!("--token {secret}")));
    secret
}

fn key(byte: u8) -> String {
    PrivateKey::from_bytes([byte; 32]).public().to_string()
}

fn poll_hash() -> String {
    Sha256::digest(SECRET).iter().map(|b| format!("{b:02x}")).collect()
}

fn request(token: &str, name: &str, key: &str) -> Value {
    json!({ "token": token, "name": name, "public_key": key, "poll_hash": poll_hash() })
}

async fn enrol(api: &TestApi, body: Value) -> Answer {
    api.anonymous().post("/api/v1/enrol", body).await
}

async fn poll(api: &TestApi, id: &str) -> Answer {
    api.anonymous().bearer(SECRET).get(&format!("/api/v1/enrol/{id}")).await
}

async fn kinds(api: &TestApi) -> Vec<(String, String)> {
    sqlx::query_as("select kind, principal from events order by seq")
        .fetch_all(&mut *api.state.store.reader().await.unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_device_with_a_token_becomes_a_host_at_once() {
    let mut api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "labels": { "site": "north" }, "ssh_user": "cam" })).await;
    let host_key = fleetgate_keys::SshKey::generate("cam1").public();
    let mut body = request(&token, "cam1", &key(1));
    body["ssh_host_key"] = json!(host_key.to_string());
    let answer = enrol(&api, body).await;
    assert_eq!((answer.status, &answer.json["state"]), (201, &json!("approved")), "{}", answer.text);
    let connection = &answer.json["connection"];
    assert_eq!(connection["endpoint"], "vpn.example.net:51820");
    assert_eq!(connection["addresses"], json!(["10.112.0.2/32", "fd72:6c65:6574::2/128"]));
    assert_eq!(connection["ssh_user"], "cam");
    assert!(!answer.text.contains("preshared"), "{}", answer.text);

    let device = api.viewer().get("/api/v1/devices/cam1").await;
    assert_eq!(device.json["labels"], json!({ "site": "north" }));
    assert_eq!(device.json["ssh"]["pin"], host_key.fingerprint());
    assert!(matches!(api.tunnel_command().unwrap(), Command::Upsert(..)));
    assert!(api.monitor.try_recv().is_ok());
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_another_key_is_refused() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({})).await;
    let first = enrol(&api, request(&token, "cam1", &key(1))).await;
    let again = enrol(&api, request(&token, "cam1", &key(1))).await;
    assert_eq!((again.status, &again.json), (200, &first.json));
    let other = enrol(&api, request(&token, "cam2", &key(2))).await;
    assert_eq!((other.status, other.code()), (403, "token_spent"));
    assert_eq!(api.viewer().get("/api/v1/devices/cam2").await.status, 404);
    let (kind, principal) = kinds(&api).await.pop().unwrap();
    assert_eq!(kind, "enrolment.refused");
    assert!(principal.starts_with("token:t_"), "{principal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_devices_at_once_one_gets_the_single_use() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({})).await;
    let bodies: Vec<Value> = (1..=50u8).map(|n| request(&token, &format!("cam{n}"), &key(n))).collect();
    let addresses: Vec<String> = (1..=50).map(|n| format!("198.51.100.{n}")).collect();
    let attempts = bodies.into_iter().zip(&addresses).map(|(body, address)| {
        let caller = api.anonymous().at_address(address);
        async move { caller.post("/api/v1/enrol", body).await }
    });
    let answers = futures_util::future::join_all(attempts).await;
    let won: Vec<&Answer> = answers.iter().filter(|a| a.status == 201).collect();
    assert_eq!(won.len(), 1);
    assert!(answers.iter().filter(|a| a.status != 201).all(|a| a.code() == "token_spent"));
    let devices = api.viewer().get("/api/v1/devices").await;
    assert_eq!(devices.json["items"].as_array().unwrap().len(), 1);
    let refused = kinds(&api).await.into_iter().filter(|(k, _)| k == "enrolment.refused").count();
    assert_eq!(refused, 49);
}

#[tokio::test]
async fn tokens_end_by_number_by_time_and_by_hand() {
    let api = TestApi::with_endpoint().await;
    let twice = token(&api, json!({ "uses": 2 })).await;
    for (n, status) in [(1, 201), (2, 201), (3, 403)] {
        let answer = enrol(&api, request(&twice, &format!("cam{n}"), &key(n))).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let short = token(&api, json!({ "expires_in_s": 1 })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    assert_eq!(enrol(&api, request(&short, "cam4", &key(4))).await.code(), "token_expired");
    let revoked = token(&api, json!({ "uses": null })).await;
    let id = format!("t_{}", &revoked[4..17]);
    assert_eq!(api.operator().delete(&format!("/api/v1/enrolment-tokens/{id}")).await.status, 204);
    assert_eq!(enrol(&api, request(&revoked, "cam5", &key(5))).await.code(), "token_revoked");
    let forged = token(&api, json!({})).await.replace("fge_", "fgr_");
    assert_eq!(enrol(&api, request(&forged, "cam6", &key(6))).await.code(), "token_invalid");
}

#[tokio::test]
async fn a_device_that_needs_approval_is_no_host_until_somebody_says_so() {
    let mut api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "needs_approval": true, "labels": { "site": "north" } })).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    assert_eq!((asked.status, &asked.json["state"]), (201, &json!("awaiting_approval")));
    assert_eq!(asked.json["connection"], Value::Null);
    let id = asked.json["id"].as_str().unwrap().to_owned();
    assert_eq!(api.viewer().get("/api/v1/devices").await.json["items"], json!([]));
    assert!(api.tunnel_command().is_none());
    let queue = api.operator().get("/api/v1/enrolments?state=awaiting_approval").await;
    assert_eq!(queue.json["items"][0]["id"], id.as_str());
    assert_eq!(queue.json["items"][0]["remote_address"], "192.0.2.1");

    let path = format!("/api/v1/enrolments/{id}/approve");
    let approval = json!({ "name": "cam-north", "labels": { "mast": "2" } });
    let approved = api.operator().post(&path, approval.clone()).await;
    assert_eq!((approved.status, &approved.json["state"]), (200, &json!("approved")), "{}", approved.text);
    let again = api.operator().post(&path, approval).await;
    assert_eq!(again.json, approved.json);
    let told = poll(&api, &id).await;
    assert_eq!((&told.json["state"], &told.json["name"]), (&json!("approved"), &json!("cam-north")));
    let device = api.viewer().get("/api/v1/devices/cam-north").await;
    assert_eq!(device.json["labels"], json!({ "site": "north", "mast": "2" }));
    let late = api.operator().post(&format!("/api/v1/enrolments/{id}/reject"), json!({})).await;
    assert_eq!((late.status, late.code()), (409, "decided_already"));
}

#[tokio::test]
async fn a_rejected_device_reads_why() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "needs_approval": true })).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    let id = asked.json["id"].as_str().unwrap();
    let reason = json!({ "reason": "not one of ours" });
    let rejected = api.operator().post(&format!("/api/v1/enrolments/{id}/reject"), reason).await;
    assert_eq!(rejected.json["state"], "rejected");
    let told = poll(&api, id).await;
    assert_eq!((&told.json["state"], &told.json["reason"]), (&json!("rejected"), &json!("not one of ours")));
}

#[tokio::test]
async fn only_the_maker_of_the_polling_secret_may_ask() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({})).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    let id = asked.json["id"].as_str().unwrap();
    let path = format!("/api/v1/enrol/{id}");
    assert_eq!(api.anonymous().get(&path).await.code(), "secret_missing");
    let wrong = api.anonymous().bearer(&"0".repeat(32)).get(&path).await;
    let unknown = api.anonymous().bearer(SECRET).get("/api/v1/enrol/e_0000000000000").await;
    assert_eq!((wrong.status, unknown.status), (404, 404));
    assert_eq!(api.admin().get(&format!("{path}/preshared-key")).await.status, 404);
}

#[tokio::test]
async fn the_preshared_key_is_given_until_the_first_handshake() {
    let mut api = TestApi::with_endpoint().await;
    let token = token(&api, json!({})).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    let path = format!("/api/v1/enrol/{}/preshared-key", asked.json["id"].as_str().unwrap());
    let Command::Upsert(spec, _) = api.tunnel_command().unwrap() else { panic!("a peer") };
    let expected = spec.keys[0].psk.as_ref().unwrap().to_base64().to_string();
    for _ in 0..2 {
        let given = api.anonymous().bearer(SECRET).get(&path).await;
        assert_eq!(given.json["preshared_key"], expected);
    }
    let lines = api.anonymous().bearer(SECRET).header("accept", "text/plain").get(&path).await;
    assert_eq!(lines.text, format!("preshared_key={expected}\n"));
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let connected = PeerStatus { last_handshake: Some(crate::clock::wall()), ..PeerStatus::default() };
    api.state.live.set_peer(spec.id, connected);
    let late = api.anonymous().bearer(SECRET).get(&path).await;
    assert_eq!((late.status, late.code()), (410, "connected_already"));
}

#[tokio::test]
async fn a_shell_gets_lines() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "ssh_user": "cam" })).await;
    let caller = api.anonymous().header("accept", "text/plain");
    let answer = caller.post("/api/v1/enrol", request(&token, "cam1", &key(1))).await;
    let value = |name: &str| answer.text.lines().find_map(|l| l.strip_prefix(&format!("{name}="))).unwrap();
    assert_eq!(value("state"), "approved");
    assert_eq!(value("allowed_ips"), "10.112.0.0/14, fd72:6c65:6574::/64");
    assert_eq!(value("public_key"), api.state.identity.public_key.to_string());
    assert_eq!(value("ssh_user"), "cam");
}

#[tokio::test]
async fn a_successor_takes_the_place_of_a_device_and_keeps_all_else() {
    let mut api = TestApi::with_endpoint().await;
    let body = json!({ "name": "cam1", "public_key": key(1), "labels": { "site": "north" },
        "ssh": { "user": "cam", "host_key": fleetgate_keys::SshKey::generate("x").public().to_string() } });
    let before = api.operator().post("/api/v1/devices", body).await.json["device"].clone();
    let rented = "/api/v1/devices/cam1/rental-settings";
    let account = api.operator().put(rented, json!({ "rentable": true, "ssh_account": "renter" })).await;
    assert_eq!(account.status, 200, "{}", account.text);
    run(&api.state.store, "update device_rental_settings set ssh_mode = 'keys'", &[]).await;
    let path = "/api/v1/devices/cam1/replacement";
    let superseded = api.operator().post(path, json!({})).await.json["secret"].as_str().unwrap().to_owned();
    let secret = api.operator().post(path, json!({})).await.json["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("fgr_"));
    assert_eq!(enrol(&api, request(&superseded, "x", &key(3))).await.code(), "token_revoked");
    while api.tunnel_command().is_some() {}
    let answer = enrol(&api, request(&secret, "some-other-name", &key(2))).await;
    assert_eq!((answer.status, &answer.json["name"]), (201, &json!("cam1")), "{}", answer.text);
    let after = api.viewer().get("/api/v1/devices/cam1").await.json;
    assert_eq!((&after["id"], &after["labels"]), (&before["id"], &before["labels"]));
    assert_eq!(after["tunnel"]["addresses"], before["tunnel"]["addresses"]);
    assert_eq!((&after["tunnel"]["public_key"], &after["ssh"]["pin"]), (&json!(key(2)), &Value::Null));
    let Command::Upsert(spec, _) = api.tunnel_command().unwrap() else { panic!("a peer") };
    assert_eq!(spec.keys.len(), 1);
    assert!(kinds(&api).await.iter().any(|(k, _)| k == "device.replaced"));
    let mode = api.operator().get(rented).await.json["ssh_mode"].clone();
    assert_eq!(mode, Value::Null, "the other system has not been asked");
    assert_eq!(enrol(&api, request(&secret, "x", &key(4))).await.code(), "token_spent");
}

#[tokio::test]
async fn an_enrolment_that_nobody_approves_ends_and_the_log_says_so() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "needs_approval": true })).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    let late = crate::clock::wall() + 2 * enrolments::PATIENCE;
    assert_eq!(api.state.store.expire_enrolments(late).await.unwrap().len(), 1);
    assert_eq!(poll(&api, asked.json["id"].as_str().unwrap()).await.json["state"], "expired");
    assert!(kinds(&api).await.contains(&("enrolment.expired".into(), "system".into())));
}

#[tokio::test]
async fn a_dashboard_hears_of_the_end_that_a_poll_finds() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "needs_approval": true })).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    sqlx::query("update enrolments set expires_at = 0").execute(&api.state.store.write).await.unwrap();
    let mut changes = api.state.live.listen();
    assert_eq!(poll(&api, asked.json["id"].as_str().unwrap()).await.json["state"], "expired");
    assert!(matches!(changes.try_recv(), Ok(Change::Enrolment(_))));
    assert!(matches!(changes.try_recv(), Ok(Change::Event(_))));
    poll(&api, asked.json["id"].as_str().unwrap()).await;
    assert!(changes.try_recv().is_err(), "once");
}

#[tokio::test]
async fn a_removed_device_cannot_come_back_with_its_old_answer() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({ "uses": null })).await;
    let asked = enrol(&api, request(&token, "cam1", &key(1))).await;
    api.operator().delete("/api/v1/devices/cam1").await;
    let told = poll(&api, asked.json["id"].as_str().unwrap()).await;
    assert_eq!(told.json["state"], "expired");
    assert_eq!(enrol(&api, request(&token, "cam1", &key(1))).await.code(), "key_in_use");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_good_attempts_are_not() {
    let api = TestApi::with_endpoint().await;
    let good = token(&api, json!({ "uses": null })).await;
    for n in 1..=40u8 {
        assert_eq!(enrol(&api, request(&good, &format!("cam{n}"), &key(n))).await.status, 201);
    }
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(enrol(&api, request("fge_nonsense", "cam", &key(99))).await.status);
    }
    assert_eq!((codes[0], codes[39]), (401, 429));
    let elsewhere = api.anonymous().at_address("198.51.100.9");
    assert_eq!(elsewhere.post("/api/v1/enrol", request("x", "cam", &key(99))).await.status, 401);
}

#[tokio::test]
async fn bad_values_are_named() {
    let api = TestApi::with_endpoint().await;
    let token = token(&api, json!({})).await;
    for (field, value) in [
        ("name", json!("UPPER")),
        ("public_key", json!(api.state.identity.public_key.to_string())),
        ("poll_hash", json!("abc")),
        ("poll_hash", json!("g".repeat(64))),
        ("poll_hash", json!("ä".repeat(32))),
        ("ssh_host_key", json!("nonsense")),
    ] {
        let mut body = request(&token, "cam1", &key(1));
        body[field] = value.clone();
        let refused = enrol(&api, body).await;
        assert_eq!(refused.status, 422, "{field} {value}: {}", refused.text);
        assert_eq!(refused.json["errors"][0]["field"], field);
    }
    assert_eq!(enrol(&api, request(&token, "cam1", &key(1))).await.status, 201);
}

#[tokio::test]
async fn who_makes_a_token_hears_that_devices_elsewhere_do_not_reach_loopback() {
    let made = |api: TestApi| async move {
        let body = json!({ "label": "field" });
        api.operator().post("/api/v1/enrolment-tokens", body).await.json
    };
    let hint = made(TestApi::with_endpoint().await).await["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("http://127.0.0.1:8080 is this machine alone"), "{hint}");
    assert!(hint.contains("set public_url"), "{hint}");
    let public = TestApi::with(|c| {
        c.endpoint = "vpn.example.net:51820".parse().ok();
        c.public_url = "https://gw.example".parse().ok();
    });
    let told = made(public.await).await;
    assert!(told["hint"].is_null(), "{told}");
    assert!(
        told["command"].as_str().unwrap().starts_with("curl -fsS https://gw.example/enrol.sh |"),
        "{told}"
    );
}

#[tokio::test]
async fn no_more_enrolments_wait_than_a_fleet_has_devices() {
    let api = TestApi::with_endpoint().await;
    let waiting = token(&api, json!({ "needs_approval": true, "uses": null })).await;
    for n in 0..enrolments::MOST_WAITING as u8 {
        let answer = enrol(&api, request(&waiting, &format!("cam{n}"), &key(n + 1))).await;
        assert_eq!(answer.status, 201, "{n}: {}", answer.text);
    }
    let refused = enrol(&api, request(&waiting, "late", &key(250))).await;
    assert_eq!((refused.status, refused.code()), (429, "too_many_requests"), "{}", refused.text);
    let at_once = token(&api, json!({})).await;
    let admitted = enrol(&api, request(&at_once, "at-once", &key(251))).await;
    assert_eq!(admitted.status, 201, "a token without approval is not affected: {}", admitted.text);
}
