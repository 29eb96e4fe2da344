//! Incidents over the API, with a real monitor and the real writer.

use serde_json::{Value, json};

use super::with_monitor::Ward;
use crate::store::fixture;

async fn open(ward: &Ward) -> Vec<Value> {
    ward.get("/incidents?state=open").await["items"].as_array().unwrap().clone()
}

async fn the_incident(ward: &Ward) -> String {
    let open = open(ward).await;
    assert_eq!(open.len(), 1, "{open:?}");
    open[0]["id"].as_str().unwrap().to_owned()
}

/// Adds a second passive service.
async fn with_sync(settings: Value) -> Ward {
    let ward = Ward::new(settings.clone()).await;
    let mut service = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
    service.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let put = ward.api.operator().put("/api/v1/hosts/nas/services/sync", service).await;
    assert_eq!(put.status, 200, "{}", put.text);
    ward
}

async fn sync_fails(ward: &Ward) {
    sync_sends(ward, 2).await;
}

async fn sync_sends(ward: &Ward, exit_status: u32) {
    let sent = ward.post("/hosts/nas/services/sync/results", json!({ "exit_status": exit_status })).await;
    assert_eq!(sent.status, 202, "{}", sent.text);
}

#[tokio::test]
async fn what_fails_together_is_one_incident_with_its_members_events_and_notifications() {
    let ward = with_sync(json!({})).await;
    ward.sends(2).await;
    sync_fails(&ward).await;
    let id = the_incident(&ward).await;
    let shown = ward.get(&format!("/incidents/{id}")).await;
    assert_eq!((&shown["scope"], &shown["cause"]), (&json!("host"), &json!("service_failed")));
    assert_eq!((&shown["state"], &shown["open_members"]), (&json!("open"), &json!(2)));
    let listed = shown["listed"].as_array().unwrap();
    let names: Vec<_> = listed.iter().map(|m| (&m["host_name"], &m["service"])).collect();
    assert_eq!(names, [(&json!("nas"), &json!("backup")), (&json!("nas"), &json!("sync"))]);
    assert_eq!(listed[0]["output"], "copied");
    let kinds: Vec<_> = shown["events"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["incident.widened", "incident.opened"]);
    assert_eq!(shown["notifications"].as_array().unwrap().len(), 2);
    let problems = ward.get("/problems").await;
    let cited = |p: &Value| p["incident"] == json!(id) && p["flapping"] == json!(false);
    assert!(problems["items"].as_array().unwrap().iter().all(cited));
    assert_eq!(ward.get("/hosts/nas").await["incident"], json!(id), "of its services");
    assert_eq!(ward.get("/hosts").await["items"][0]["incident"], json!(id));
    let services = ward.get("/hosts/nas/services").await;
    let of = |name: &str| services["items"].as_array().unwrap().iter().find(|s| s["name"] == name).cloned();
    assert_eq!(of("sync").unwrap()["incident"], json!(id));
    let told = ward.get(&format!("/notifications?object={id}")).await;
    assert_eq!(told["items"].as_array().unwrap().len(), 2);
    sync_sends(&ward, 0).await;
    assert_eq!(ward.get("/hosts/nas/services/sync").await.get("incident"), None, "it has left");
}

#[tokio::test]
async fn the_incidents_of_a_host_are_those_that_have_or_had_it_as_a_member() {
    let ward = Ward::new(json!({})).await;
    let other = ward.post("/devices", json!({ "name": "other" })).await;
    assert_eq!(other.status, 201, "{}", other.text);
    ward.sends(2).await;
    let id = the_incident(&ward).await;
    let found = async |query: &str| -> Vec<Value> {
        let page = ward.get(&format!("/incidents?{query}")).await;
        page["items"].as_array().unwrap().iter().map(|incident| incident["id"].clone()).collect()
    };
    assert_eq!(found("host=nas").await, [json!(id)]);
    assert_eq!(found("host=nas&state=open").await, [json!(id)]);
    assert!(found("host=nas&state=closed").await.is_empty());
    assert!(found("host=other").await.is_empty(), "another host");
    assert_eq!(found("host=nas&from=2026-01-01T00:00:00Z").await, [json!(id)], "it is open");
    assert!(found("host=nas&to=2020-01-01T00:00:00Z").await.is_empty(), "it opened later");
    let of_all = ward.api.viewer().get("/api/v1/incidents?from=2020-01-01T00:00:00Z").await;
    assert_eq!((of_all.status, of_all.code()), (400, "bad_query"), "{}", of_all.text);
    let nobody = format!("host=h_{}", fleetgate_engine::id::Id::from_i64(9));
    assert!(found(&nobody).await.is_empty(), "no host ever had that id");
    let unknown = ward.api.viewer().get("/api/v1/incidents?host=nobody").await;
    assert_eq!((unknown.status, unknown.code()), (404, "not_found"), "{}", unknown.text);
    let nas = ward.get("/hosts/nas").await["id"].as_str().unwrap().to_owned();
    ward.sends(0).await;
    assert_eq!(ward.delete("/devices/nas").await, 204);
    assert_eq!(found(&format!("host={nas}")).await, [json!(id)], "of a removed host by its id");
}

#[tokio::test]
async fn an_acknowledgement_covers_all_that_is_in_it_and_what_joins_it() {
    let types = json!({ "notify": { "types": ["problem", "recovery", "acknowledged"] } });
    let ward = with_sync(types).await;
    ward.sends(2).await;
    sync_fails(&ward).await;
    let id = the_incident(&ward).await;
    let path = format!("/incidents/{id}/acknowledgement");
    let known = ward.post(&path, json!({ "comment": "on it", "sticky": true })).await;
    assert_eq!((known.status, &known.json["acknowledged_by"]["comment"]), (201, &json!("on it")));
    // The service joins again.
    sync_sends(&ward, 0).await;
    sync_fails(&ward).await;
    let services = ward.get("/hosts/nas/services").await;
    let of = |name: &str| {
        let all = services["items"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).unwrap()["acknowledgement"].clone()
    };
    for name in ["backup", "sync"] {
        assert_eq!((&of(name)["comment"], &of(name)["incident"]), (&json!("on it"), &json!(id)), "{name}");
    }
    let told = ward.get(&format!("/notifications?object={id}")).await;
    let said: Vec<_> = told["items"].as_array().unwrap().iter().map(|n| n["type"].clone()).collect();
    assert_eq!(said, ["problem", "recovery", "acknowledged", "acknowledged", "problem", "problem"]);
    let held = told["items"][0]["outcomes"][0]["text"].as_str().unwrap();
    assert!(held.contains(&id) && held.contains("on it"), "{held}");
    let note = told["items"][2]["note"].as_str().unwrap();
    assert!(note.ends_with("on it"), "{note}");

    assert_eq!(ward.delete(&path).await, 204);
    assert_eq!(ward.delete(&path).await, 404);
    let told = ward.get(&format!("/notifications?object={id}")).await;
    assert_eq!(
        (&told["items"][0]["service"], &told["items"][0]["type"]),
        (&json!("sync"), &json!("problem"))
    );
    assert_eq!(ward.get("/hosts/nas/services/backup").await["acknowledged"], json!(false));
}

#[tokio::test]
async fn who_joins_it_when_a_downtime_ends_is_covered_before_anything_is_told() {
    let ward = with_sync(json!({})).await;
    ward.sends(2).await;
    sync_fails(&ward).await;
    let id = the_incident(&ward).await;
    let known = json!({ "comment": "on it", "sticky": true });
    assert_eq!(ward.post(&format!("/incidents/{id}/acknowledgement"), known).await.status, 201);
    sync_sends(&ward, 0).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let plan = json!({ "end": soon.to_string(), "comment": "moving" });
    let plan = ward.post("/hosts/nas/services/sync/downtimes", plan).await;
    assert_eq!(plan.status, 201, "{}", plan.text);
    sync_fails(&ward).await;
    let ended = format!("/downtimes/{}", plan.json["id"].as_str().unwrap());
    assert_eq!(ward.delete(&ended).await, 204);
    let sync = ward.get("/hosts/nas/services/sync").await;
    assert_eq!((&sync["in_downtime"], &sync["acknowledgement"]["incident"]), (&json!(false), &json!(id)));
    let held = ward.get(&format!("/notifications?object={id}")).await["items"][0].clone();
    assert_eq!((&held["service"], &held["type"]), (&json!("sync"), &json!("problem")));
    assert_eq!(held["outcomes"][0]["outcome"], "suppressed", "{held}");
}

#[tokio::test]
async fn what_was_merged_names_what_it_belongs_to_and_its_acknowledgement_cannot_be_taken_back() {
    let ward = with_sync(json!({})).await;
    ward.sends(2).await;
    let first = the_incident(&ward).await;
    let path = format!("/incidents/{first}/acknowledgement");
    ward.post(&path, json!({ "comment": "on it" })).await;
    sync_fails(&ward).await;
    let open = open(&ward).await;
    let ids: Vec<&str> = open.iter().map(|i| i["id"].as_str().unwrap()).collect();
    let second = *ids.iter().find(|id| **id != first).unwrap();
    let sql = "update incidents set closed_at = 1, merged_into = (select max(id) from incidents)
               where id = (select min(id) from incidents)";
    fixture::run(&ward.api.state.store, sql, &[]).await;
    let refused = ward.api.operator().delete(&format!("/api/v1{path}")).await;
    assert_eq!((refused.status, refused.code()), (409, "not_open"));
    assert!(refused.text.contains(second), "{}", refused.text);
}

#[tokio::test]
async fn another_service_that_fails_is_told_to_somebody() {
    let ward = with_sync(json!({})).await;
    ward.sends(2).await;
    let id = the_incident(&ward).await;
    ward.post(&format!("/incidents/{id}/acknowledgement"), json!({ "comment": "on it" })).await;
    sync_fails(&ward).await;
    assert_eq!(ward.get("/hosts/nas/services/sync").await["acknowledged"], json!(false));
    assert_eq!(open(&ward).await.len(), 2);
}

#[tokio::test]
async fn what_is_over_or_unknown_cannot_be_acknowledged() {
    let ward = Ward::new(json!({})).await;
    ward.sends(2).await;
    let id = the_incident(&ward).await;
    ward.sends(0).await;
    let path = format!("/incidents/{id}/acknowledgement");
    let refused = ward.post(&path, json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "not_open"));
    let shown = ward.get(&format!("/incidents/{id}")).await;
    assert_eq!((&shown["state"], &shown["open_members"]), (&json!("open"), &json!(0)), "it lingers");
    let unknown = ward.post("/incidents/i_0000000000000/acknowledgement", json!({})).await;
    assert_eq!(unknown.status, 404);
    let bad = ward.post(&path, json!({ "expires": "2020-01-01T00:00:00Z" })).await;
    assert_eq!(bad.status, 422);
    assert_eq!(ward.api.viewer().get("/api/v1/incidents?state=x").await.status, 400);
}

/// This is the state between a merge and its commit.
#[tokio::test]
async fn who_acknowledges_what_is_none_any_more_is_told_so_and_nothing_else_is_acknowledged() {
    let ward = Ward::new(json!({})).await;
    ward.sends(2).await;
    let of_engine = the_incident(&ward).await;
    for sql in [
        "insert into incidents (id, extent, cause, words, opened_at) values (9, 'host', 'host_down', 'x', 0)",
        "insert into incident_members (incident, host, service, began_at, joined_at)
         select 9, host, 'backup', 0, 0 from incident_members",
    ] {
        fixture::run(&ward.api.state.store, sql, &[]).await;
    }
    let gone = format!("i_{}", fleetgate_engine::id::Id::from_i64(9));
    let path = format!("/incidents/{gone}/acknowledgement");
    let refused = ward.post(&path, json!({ "comment": "on it" })).await;
    assert_eq!((refused.status, refused.code()), (409, "not_open"), "{}", refused.text);
    let shown = ward.get(&format!("/incidents/{gone}")).await;
    assert_eq!(shown["acknowledged_by"], json!(null));
    assert_eq!(shown["events"][0]["kind"], "incident.acknowledgement_ended");
    assert_eq!(ward.backup().await["acknowledged"], json!(false));
    assert_eq!(ward.post(&format!("/incidents/{of_engine}/acknowledgement"), json!({})).await.status, 201);
}
