//! Committed changes that the engine could not be informed of.

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Command, MonitorInput};
use serde_json::json;

use crate::api::testing::TestApi;
use crate::engine::handle::Changes;
use crate::store::fixture::{self, TIMING};

/// Creates an API with a device that the engine has.
async fn api() -> TestApi {
    let mut api = TestApi::with_endpoint().await;
    assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await.status, 201);
    drain(&mut api);
    api
}

/// Returns the engine's inputs in words.
fn drain(api: &mut TestApi) -> Vec<&'static str> {
    let mut told = Vec::new();
    while let Some(command) = api.tunnel_command() {
        told.push(match command {
            Command::Upsert(..) => "peer",
            Command::Remove(_) => "peer removed",
            _ => "something else",
        });
    }
    while let Ok(input) = api.monitor.try_recv() {
        told.push(match input {
            MonitorInput::Upsert(_) => "host",
            MonitorInput::Remove(_) => "host removed",
            _ => "something else",
        });
    }
    told
}

async fn engine(api: &TestApi) -> (u16, String) {
    let health = api.anonymous().get("/healthz").await;
    let words = health.json["parts"]["engine"].as_str().unwrap().to_owned();
    (api.anonymous().get("/readyz").await.status, words)
}

#[tokio::test]
async fn a_removed_peer_loses_its_tunnel_though_the_first_reading_failed() {
    let mut api = api().await;
    api.state.handle.fail(2);
    assert_eq!(api.operator().delete("/api/v1/devices/cam").await.status, 204, "it is removed");
    assert!(drain(&mut api).is_empty(), "and nobody knows");
    let (ready, words) = engine(&api).await;
    assert!(ready == 503 && words.contains("has not received every change"), "{ready} {words}");
    assert!(api.state.handle.repeat().await);
    assert_eq!(drain(&mut api), ["peer removed", "host removed"]);
    assert_eq!(engine(&api).await, (200, "ok".to_owned()));
    assert!(api.state.handle.repeat().await);
    assert!(drain(&mut api).is_empty(), "once is enough");
}

#[tokio::test]
async fn a_change_is_told_however_many_times_that_fails() {
    let mut api = api().await;
    api.state.handle.fail(5);
    let changed =
        api.operator().patch("/api/v1/devices/cam", json!({ "networks": ["192.168.1.0/24"] })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert!(!api.state.handle.repeat().await);
    assert!(drain(&mut api).is_empty());
    // The fifth failure, and the rest of this attempt.
    assert!(!api.state.handle.repeat().await);
    assert_eq!(drain(&mut api), ["host"]);
    assert!(api.state.handle.repeat().await);
    assert_eq!(drain(&mut api), ["peer"]);
}

#[tokio::test]
async fn hosts_whose_profile_changed_are_told_again_too() {
    let mut api = api().await;
    let profile = json!({ "services": { "web": { "check": { "type": "tcp", "port": 443 } } } });
    let rules = json!({ "rules": [{ "labels": { "kind": "*" }, "profile": "own" }] });
    assert_eq!(api.operator().put("/api/v1/profiles/own", profile).await.status, 200);
    assert_eq!(api.operator().put("/api/v1/profile-rules", rules).await.status, 200);
    assert_eq!(
        api.operator().patch("/api/v1/devices/cam", json!({ "labels": { "kind": "a" } })).await.status,
        200
    );
    drain(&mut api);
    api.state.handle.fail(1);
    let profile = json!({ "services": { "web": { "check": { "type": "tcp", "port": 80 } } } });
    assert_eq!(api.operator().put("/api/v1/profiles/own", profile).await.status, 200);
    assert!(drain(&mut api).is_empty() && api.state.handle.is_behind());
    assert!(api.state.handle.repeat().await);
    assert_eq!(drain(&mut api), ["host"]);
}

async fn rows_of_web(api: &TestApi) -> i64 {
    let sql = "select cast(count(*) as text) from service_states where service = 'web'";
    fixture::texts(&api.state.store, sql).await[0].parse().unwrap()
}

#[tokio::test]
async fn the_hosts_of_a_profile_are_settled_in_slices_and_by_the_next_start_where_that_is_cut_off() {
    let mut api = api().await;
    for n in 11..=210 {
        fixture::device(&api.state.store, n, &format!("d-{n}")).await;
    }
    fixture::run(&api.state.store, "update hosts set profile = ''", &[]).await;
    let profile = json!({ "services": { "web": { "check": { "type": "tcp", "port": 443 } } } });
    let rules = json!({ "rules": [{ "labels": {}, "profile": "own" }] });
    assert_eq!(api.operator().put("/api/v1/profiles/own", profile).await.status, 200);
    api.state.handle.fail(1);
    assert_eq!(api.operator().put("/api/v1/profile-rules", rules).await.status, 200);
    // The first slice of 201 hosts failed.
    assert_eq!((drain(&mut api).len(), rows_of_web(&api).await), (73, 73));
    assert!(api.state.handle.is_behind());
    api.state.store.all_hosts(&TIMING).await.unwrap();
    assert_eq!(rows_of_web(&api).await, 201, "as a start does it");
    assert!(api.state.handle.repeat().await && !api.state.handle.is_behind());
    assert_eq!((drain(&mut api).len(), rows_of_web(&api).await), (128, 201));
}

#[tokio::test]
async fn the_running_gateway_repeats_it_by_itself() {
    let mut api = api().await;
    let task = tokio::spawn(api.state.handle.clone().keep_up(api.state.shutdown.clone()));
    api.state.handle.fail(2);
    assert_eq!(api.operator().delete("/api/v1/devices/cam").await.status, 204);
    let peer = async {
        loop {
            match api.tunnel.recv().await {
                Some(Command::Policy(_)) => {}
                command => return command,
            }
        }
    };
    assert!(matches!(peer.await, Some(Command::Remove(_))));
    assert!(matches!(api.monitor.recv().await, Some(MonitorInput::Remove(_))));
    api.state.shutdown.cancel();
    task.await.unwrap();
}

/// The second change is on disk after the first one has read its row.
#[tokio::test]
async fn a_change_is_told_though_its_reading_failed_and_an_earlier_one_took_it_off_the_list() {
    let mut api = api().await;
    let handle = api.state.handle.clone();
    let ids = fixture::texts(&api.state.store, "select cast(id as text) from hosts").await;
    let host = HostId::from_i64(ids[0].parse().unwrap());
    handle.fail_those(1..2);
    let changes = || Changes { hosts: [host].into(), ..Changes::default() };
    tokio::join!(handle.changed(changes()), handle.changed(changes()));
    assert_eq!(drain(&mut api), ["host"], "the first was told");
    assert!(handle.is_behind(), "the second failed");
    assert!(handle.repeat().await && !handle.is_behind());
    assert_eq!(drain(&mut api), ["host"]);
}
