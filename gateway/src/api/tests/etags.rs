//! Versions count the changes of operators and not those of the gateway.

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Event, EventKind, Record, Tai64n};
use fleetgate_probes::sample::Status;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rentals::must;
use crate::api::testing::{Answer, TestApi};
use crate::notification::Wakeups;
use crate::store::fixture;
use crate::writer::{MemoryUpdate, Writer};

async fn add(api: &TestApi, body: Value) -> Answer {
    api.operator().post("/api/v1/devices", body).await
}

#[tokio::test]
async fn what_the_gateway_learns_while_somebody_edits_is_no_change_of_somebody_else() {
    let api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1" })).await;
    let id: HostId = made.json["device"]["id"].as_str().unwrap()[2..].parse().unwrap();
    let tag = made.headers["etag"].to_str().unwrap().to_owned();
    learn_everything(&api, id).await;
    let shown = api.operator().get("/api/v1/devices/cam1").await;
    assert_eq!(shown.json["ssh"]["pin"], "SHA256:abc", "{}", shown.text);
    assert_eq!(shown.headers["etag"], tag.as_str());
    let caller = api.operator().header("if-match", &tag);
    let set = caller.patch("/api/v1/devices/cam1", json!({ "notes": "x" })).await;
    assert_eq!(set.status, 200, "{}", set.text);
    assert_eq!(set.json["ssh"]["pin"], "SHA256:abc", "and the change leaves it");
}

#[tokio::test]
async fn what_is_made_again_after_a_restore_does_not_match_a_tag_from_before() {
    let api = TestApi::with_endpoint().await;
    fixture::restored(&api.state.store, crate::clock::wall()).await;
    let operator = api.operator();
    must(&operator.post("/api/v1/devices", json!({ "name": "cam1" })).await);
    must(&operator.post("/api/v1/customers", json!({ "external_ref": "crm-1" })).await);
    must(&operator.post("/api/v1/contacts", json!({ "name": "ops", "emails": ["ops@example.org"] })).await);
    must(&operator.post("/api/v1/rules", json!({ "name": "all", "contact": "ops" })).await);
    let disabled = json!({ "check": { "type": "passive" } });
    must(&operator.put("/api/v1/hosts/cam1/services/lens", disabled).await);
    let rented = json!({ "rentable": true });
    must(&operator.put("/api/v1/devices/cam1/rental-settings", rented.clone()).await);
    for (path, change) in [
        ("devices/cam1", json!({ "notes": "x" })),
        ("customers/crm-1", json!({ "name": "x" })),
        ("contacts/ops", json!({ "emails": ["other@example.org"] })),
        ("rules/all", json!({ "delay_s": 60 })),
    ] {
        let path = format!("/api/v1/{path}");
        let tag = operator.get(&path).await.headers["etag"].to_str().unwrap().to_owned();
        assert!(tag.len() > 12, "{path}: {tag}");
        let stale = api.operator().header("if-match", "\"1\"").patch(&path, change.clone()).await;
        assert_eq!(stale.code(), "changed_meanwhile", "{path}: {}", stale.text);
        must(&api.operator().header("if-match", &tag).patch(&path, change).await);
    }
    for (path, body) in [
        ("hosts/cam1/services/lens", json!({ "check": { "type": "passive" }, "max_check_attempts": 2 })),
        ("devices/cam1/rental-settings", rented),
    ] {
        let stale = api.operator().header("if-match", "\"1\"").put(&format!("/api/v1/{path}"), body).await;
        assert_eq!(stale.code(), "changed_meanwhile", "{path}: {}", stale.text);
    }
}

/// Writes everything that the gateway itself stores about a device and its host.
async fn learn_everything(api: &TestApi, id: HostId) {
    let mut tasks = JoinSet::new();
    let (store, live) = (api.state.store.clone(), api.state.live.clone());
    let history = api.state.history.clone();
    let writer = Writer::start(&mut tasks, store, live, Wakeups::default(), history);
    let event = Event {
        at: crate::clock::wall(),
        host: id,
        service: None,
        kind: EventKind::HostKeyPinned,
        cause: String::new(),
        evidence: "".into(),
        by: None,
    };
    let records = vec![
        Record::Pinned { host: id, key: "SHA256:abc".into() },
        Record::Event(event),
        Record::Host(Box::new(fixture::up(id))),
        Record::Service(id, fixture::service("ping", Status::Ok)),
        Record::Message(fixture::down(id)),
    ];
    writer.append(records).await;
    for update in [
        MemoryUpdate::Rekeyed(id),
        MemoryUpdate::ClockReset(id),
        MemoryUpdate::Stamp(id, Tai64n([3; 12])),
        MemoryUpdate::Endpoint(id, ([192, 0, 2, 1], 1).into()),
        MemoryUpdate::Status(id, Box::default()),
    ] {
        writer.memory(Some(update));
    }
    writer.finish().await;
    while tasks.join_next().await.is_some() {}
}

/// Reads the versions from every table that has them.
async fn versions(api: &TestApi) -> Vec<(String, i64)> {
    let sql = "select m.name from sqlite_master m join pragma_table_info(m.name) c
               where m.type = 'table' and c.name = 'version' and substr(m.name, 1, 1) <> '_' order by 1";
    let mut conn = api.state.store.reader().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await.unwrap();
    assert!(tables.len() >= 5, "{tables:?}");
    let mut all = Vec::new();
    for table in tables {
        let sql = format!("select coalesce(sum(version), 0) from \"{table}\"");
        let sum: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *conn).await.unwrap();
        all.push((table, sum));
    }
    all
}

#[tokio::test]
async fn no_version_of_anything_is_changed_by_what_the_gateway_learns() {
    let api = TestApi::with_endpoint().await;
    let made = add(&api, json!({ "name": "cam1" })).await;
    let id: HostId = made.json["device"]["id"].as_str().unwrap()[2..].parse().unwrap();
    let check = json!({ "check": { "type": "tcp", "port": 554 } });
    assert!(api.operator().put("/api/v1/hosts/cam1/services/rtsp", check).await.status < 300);
    let before = versions(&api).await;
    learn_everything(&api, id).await;
    assert_eq!(versions(&api).await, before);
}

/// A program that repeats its settings must not make an operator's change fail.
#[tokio::test]
async fn a_change_that_changes_nothing_keeps_the_etag() {
    let api = TestApi::with_endpoint().await;
    let operator = api.operator();
    add(&api, json!({ "name": "cam1" })).await;
    let contact = json!({ "name": "ops", "webhook_url": "http://192.0.2.9/x" });
    assert_eq!(operator.post("/api/v1/contacts", contact).await.status, 201);
    assert_eq!(operator.post("/api/v1/rules", json!({ "name": "r1", "contact": "ops" })).await.status, 201);
    let profile = |summary: &str| json!({ "extends": ["default"], "summary": summary });
    let check = |port: u16| json!({ "check": { "type": "tcp", "port": port } });
    let rules = |site: &str| json!({ "rules": [{ "labels": { "site": site }, "profile": "default" }] });
    for (method, path, same, other) in [
        ("PUT", "/api/v1/profiles/px", profile("x"), profile("y")),
        ("PUT", "/api/v1/hosts/cam1/services/web", check(80), check(81)),
        ("PUT", "/api/v1/profile-rules", rules("a"), rules("b")),
        (
            "PATCH",
            "/api/v1/contacts/ops",
            json!({ "emails": ["a@b.example"] }),
            json!({ "digest_at": "08:00" }),
        ),
        ("PATCH", "/api/v1/rules/r1", json!({ "delay_s": 5 }), json!({ "delay_s": 6 })),
        ("PATCH", "/api/v1/hosts/cam1", json!({ "notes": "a" }), json!({ "notes": "b" })),
        (
            "PATCH",
            "/api/v1/devices/cam1",
            json!({ "labels": { "a": "1" } }),
            json!({ "labels": { "a": null } }),
        ),
    ] {
        let tag = async |body: &Value| {
            let answer = match method {
                "PUT" => operator.put(path, body.clone()).await,
                _ => operator.patch(path, body.clone()).await,
            };
            assert!(answer.status < 300, "{path}: {}", answer.text);
            answer.headers["etag"].to_str().unwrap().to_owned()
        };
        let first = tag(&same).await;
        assert_eq!(tag(&same).await, first, "{path}");
        assert_ne!(tag(&other).await, first, "{path}");
    }
}

/// A silently ignored condition would let through the change that it should prevent.
#[tokio::test]
async fn a_condition_is_heeded_or_refused_on_every_route() {
    let api = TestApi::with_endpoint().await;
    add(&api, json!({ "name": "cam1" })).await;
    let contact = json!({ "name": "ops", "webhook_url": "http://192.0.2.9/x" });
    assert_eq!(api.operator().post("/api/v1/contacts", contact).await.status, 201);
    let rule = json!({ "name": "r1", "contact": "ops" });
    let rule = api.operator().post("/api/v1/rules", rule).await;
    assert_eq!((rule.status, &rule.headers["etag"]), (201, &"\"1\"".parse().unwrap()));
    let user = json!({ "name": "bob", "role": "viewer", "password": "correct horse battery" });
    assert_eq!(api.admin().post("/api/v1/users", user).await.status, 201);
    let stale = api.admin().header("if-match", "\"99\"");
    for path in ["/api/v1/contacts/ops", "/api/v1/rules/r1", "/api/v1/devices/cam1", "/api/v1/hosts/cam1"] {
        assert_eq!(stale.delete(path).await.code(), "changed_meanwhile", "{path}");
    }
    let changed = stale.patch("/api/v1/users/bob", json!({ "role": "operator" })).await;
    assert_eq!((changed.status, changed.code()), (412, "no_etag"), "{}", changed.text);
    assert_eq!(api.admin().get("/api/v1/users/bob").await.json["role"], "viewer");
    assert_eq!(stale.delete("/api/v1/restore").await.code(), "no_etag", "uploads have routes of their own");
    assert_eq!(stale.get("/api/v1/users/bob").await.status, 200, "reading changes nothing");
}
