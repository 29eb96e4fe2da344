//! Backups over the API: downloads and an upload.

use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};
use crate::identity::Identity;
use crate::identity::continuity::PublishedIdentity;

/// Creates an API over a data directory that a gateway could start in.
async fn api() -> TestApi {
    let api = TestApi::with_endpoint().await;
    let (store, data) = (&api.state.store, &api.state.config.data);
    let identity = Identity::open(data, &|_| Ok(())).unwrap();
    let known = PublishedIdentity::of(&identity, api.state.config.pools());
    known.keep(store, data).await.unwrap();
    api
}

async fn ended(api: &TestApi, name: &str) -> Value {
    loop {
        let shown = api.admin().get(&format!("/api/v1/backups/{name}")).await.json;
        if shown["state"] != "running" {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn made(api: &TestApi, body: Value) -> String {
    let begun = api.admin().post("/api/v1/backups", body).await;
    assert_eq!((begun.status, &begun.json["state"]), (202, &json!("running")), "{}", begun.text);
    let name = begun.json["name"].as_str().unwrap().to_owned();
    let shown = ended(api, &name).await;
    assert_eq!(shown["state"], "complete", "{shown}");
    name
}

async fn file(api: &TestApi, name: &str) -> Vec<u8> {
    let answer = api.admin().respond("GET", &format!("/api/v1/backups/{name}/file"), Body::empty()).await;
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec()
}

async fn given(api: &TestApi, bytes: Vec<u8>) -> Answer {
    api.admin()
        .header("content-type", "application/octet-stream")
        .send("POST", "/api/v1/restore", Body::from(bytes))
        .await
}

#[tokio::test]
async fn a_backup_is_made_listed_fetched_and_removed_and_each_is_in_the_audit_log() {
    let api = api().await;
    let name = made(&api, json!({})).await;
    let listed = api.admin().get("/api/v1/backups").await;
    assert_eq!(listed.json["items"][0]["name"], json!(name));
    assert_eq!(listed.json["items"][0]["history"], json!(true));
    let bytes = file(&api, &name).await;
    assert_eq!(json!(bytes.len()), listed.json["items"][0]["bytes"]);
    let path = format!("/api/v1/backups/{name}");
    assert_eq!(api.admin().delete(&path).await.status, 204);
    assert_eq!(api.admin().get(&path).await.status, 404);
    assert_eq!(api.admin().delete(&path).await.status, 404);
    let log = api.admin().get("/api/v1/audit").await.text;
    for kind in ["backup.begun", "backup.downloaded", "backup.removed"] {
        assert!(log.contains(kind), "{kind}");
    }
}

#[tokio::test]
async fn one_is_made_at_a_time_and_a_repeated_call_makes_no_second_one() {
    let api = api().await;
    let once = api.admin().header("idempotency-key", "k1");
    let first = once.post("/api/v1/backups", json!({ "history": false })).await;
    let again = once.post("/api/v1/backups", json!({ "history": false })).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.json["name"], again.json["name"]);
    let second = api.admin().post("/api/v1/backups", json!({})).await;
    assert_eq!((second.status, second.code()), (409, "backup_running"));
    ended(&api, first.json["name"].as_str().unwrap()).await;
}

#[tokio::test]
async fn backups_are_for_admins_without_limits_and_names_lead_nowhere_else() {
    let api = api().await;
    for (method, path) in [
        ("GET", "/api/v1/backups"),
        ("POST", "/api/v1/backups"),
        ("GET", "/api/v1/backups/fleetgate-20260101T000000Z.tar/file"),
        ("POST", "/api/v1/restore"),
    ] {
        assert_eq!(api.anonymous().send(method, path, Body::empty()).await.status, 401, "{path}");
        assert_eq!(api.operator().send(method, path, Body::empty()).await.status, 403, "{path}");
    }
    let limited = json!({ "name": "limited", "role": "admin", "scopes": ["gateway"] });
    let token = api.admin().post("/api/v1/tokens", limited).await.json["secret"].as_str().unwrap().to_owned();
    let answer = api.anonymous().bearer(&token).get("/api/v1/backups").await;
    assert_eq!((answer.status, answer.code()), (403, "limited_token"));
    for name in
        ["..%2Fgateway.key", "gateway.key", "%2Fetc%2Fpasswd", "fleetgate-1.tar%2F..%2F..%2Fgateway.key"]
    {
        assert_eq!(api.admin().get(&format!("/api/v1/backups/{name}/file")).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn a_backup_that_fails_says_why_and_the_next_one_can_be_made() {
    let api = api().await;
    let key = api.state.config.data.join("gateway.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let begun = api.admin().post("/api/v1/backups", json!({})).await;
    let shown = ended(&api, begun.json["name"].as_str().unwrap()).await;
    assert_eq!(shown["state"], "failed");
    assert!(shown["error"].as_str().unwrap().contains("gateway.key"), "{shown}");
    std::fs::write(&key, kept).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    made(&api, json!({ "history": false, "keep": 1 })).await;
    let wrong = api.admin().post("/api/v1/backups", json!({ "keep": 0 })).await;
    assert_eq!((wrong.status, wrong.code()), (422, "invalid"));
}

#[tokio::test]
async fn a_gateway_without_hosts_takes_a_backup_for_its_next_start() {
    let api = api().await;
    let name = made(&api, json!({})).await;
    let bytes = file(&api, &name).await;
    let new = self::api().await;
    let mut changed = bytes.clone();
    changed[6_000] ^= 1;
    for bad in [Vec::new(), b"no backup".to_vec(), bytes[..bytes.len() / 2].to_vec(), changed] {
        let answer = given(&new, bad).await;
        assert_eq!((answer.status, answer.code()), (422, "invalid"), "{}", answer.text);
        assert!(!new.state.config.data.join(".fleetgate-restore").exists());
    }
    let taken = given(&new, bytes.clone()).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    let key = Identity::read(&api.state.config.data).unwrap().wireguard.public();
    assert_eq!(taken.json["public_key"], json!(key.to_string()));
    assert_ne!(Identity::read(&new.state.config.data).unwrap().wireguard.public(), key, "not yet");
    // The next start does the same.
    assert!(crate::backup::finish_restore(&new.state.config.data).unwrap());
    assert_eq!(Identity::read(&new.state.config.data).unwrap().wireguard.public(), key);
}

/// A change accepted until the next start would be lost with it.
#[tokio::test]
async fn while_a_backup_waits_for_the_next_start_nothing_else_is_taken() {
    let api = api().await;
    let bytes = file(&api, &made(&api, json!({})).await).await;
    let new = self::api().await;
    assert_eq!(new.admin().get("/api/v1/restore").await.status, 404);
    assert_eq!(given(&new, b"no backup".to_vec()).await.status, 422);
    let user = json!({ "name": "ada", "role": "admin", "password": "correct horse battery" });
    assert_eq!(
        new.admin().post("/api/v1/users", user).await.status,
        201,
        "one that is refused leaves no trace"
    );
    assert_eq!(given(&new, bytes.clone()).await.status, 202);
    let late = new.operator().post("/api/v1/devices", json!({ "name": "late" })).await;
    assert_eq!((late.status, late.code()), (409, "restore_staged"), "{}", late.text);
    let user = json!({ "name": "bob", "role": "viewer", "password": "correct horse battery" });
    assert_eq!(new.admin().post("/api/v1/users", user).await.code(), "restore_staged");
    let login = json!({ "name": "ada", "password": "correct horse battery" });
    assert_eq!(new.anonymous().post("/api/v1/session", login).await.status, 200, "to see what there is");
    let shown = new.admin().get("/api/v1/gateway").await.json["restore"].clone();
    assert_eq!(shown, new.admin().get("/api/v1/restore").await.json);
    assert_eq!(shown["history"], json!(true));
    assert_eq!(given(&new, b"no backup".to_vec()).await.status, 422);
    assert_eq!(new.admin().get("/api/v1/restore").await.json, shown, "a bad one takes no good one away");
    assert_eq!(given(&new, bytes).await.status, 202, "another one takes its place");

    assert_eq!(new.operator().delete("/api/v1/restore").await.status, 403);
    assert_eq!(new.admin().delete("/api/v1/restore").await.status, 204);
    assert_eq!(new.admin().delete("/api/v1/restore").await.status, 404);
    assert!(!crate::backup::finish_restore(&new.state.config.data).unwrap());
    let now = new.operator().post("/api/v1/devices", json!({ "name": "late" })).await;
    assert_eq!(now.status, 201, "{}", now.text);
}

#[tokio::test]
async fn a_gateway_that_has_had_hosts_takes_none() {
    let api = api().await;
    let host = json!({ "name": "cam-1" });
    assert_eq!(api.operator().post("/api/v1/devices", host).await.status, 201);
    let answer = given(&api, vec![0; 4_096]).await;
    assert_eq!((answer.status, answer.code()), (409, "not_empty"));
}
