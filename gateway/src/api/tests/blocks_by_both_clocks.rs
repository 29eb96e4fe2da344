//! Forced blocks while the wall clock was set back: those that have begun by the boot-time clock, and those that were made
//! before.

use std::time::Duration;

use fleetgate_engine::messages::PolicyChange;
use fleetgate_engine::time::Now;
use serde_json::{Value, json};

use super::device_access::{Devices, Running, are_let_in, begun, calls_are, not_granted_reason};
use super::rentals::{HOUR, hence, must, path, rented, renting, shop};
use crate::api::testing::TestApi;
use crate::clock;
use crate::store::{fixture, policy};

/// Begins so soon by the clock that is shown.
const SOON: u64 = 60;

async fn block_soon(api: &TestApi) {
    let block = json!({ "reason": "lens", "from": hence(SOON), "until": hence(2 * HOUR), "force": true });
    must(&api.operator().post("/api/v1/devices/cam-1/blocks", block).await);
}

/// The gateway has heard of the rentals 200 s ago, and the clock was set back by 100 s since.
async fn set_back(api: &TestApi) {
    let mut conn = api.state.store.reader().await.unwrap();
    let told = policy::all(&mut conn, clock::wall()).await.unwrap().changes;
    let now = clock::now();
    let then = Now { mono: now.mono - Duration::from_secs(200), wall: now.wall - Duration::from_secs(100) };
    let forgotten = told.iter().filter_map(|change| match change {
        PolicyChange::Grant(spec) => Some(PolicyChange::WithdrawGrant(spec.id)),
        _ => None,
    });
    let times = api.state.handle.rental_times();
    times.note(&forgotten.collect::<Vec<_>>(), then);
    times.note(&told, then);
}

/// Returns the kinds of what delays a rental.
async fn delays(api: &TestApi, rental: &Value) -> Vec<String> {
    let shown = api.operator().get(&path(rental)).await;
    let delayed = must(&shown)["delayed"].as_array().cloned().unwrap_or_default();
    delayed.iter().filter_map(|delay| delay["kind"].as_str().map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn renters_are_taken_from_a_device_when_its_block_begins_by_either_clock() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    calls_are(&devices, &["status", "grant"]).await;
    are_let_in(&api, &rental).await;
    block_soon(&api).await;
    assert_eq!(not_granted_reason(&api, &rental).await, Value::Null, "it has not begun");
    set_back(&api).await;
    calls_are(&devices, &["status", "grant", "revoke"]).await;
    assert_eq!(not_granted_reason(&api, &rental).await, json!("cam-1 is blocked"));
    running.stop().await;
}

#[tokio::test]
async fn a_block_that_has_begun_by_either_clock_is_the_reason_of_a_delay_and_keeps_a_hand_away() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" }))
        .await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    block_soon(&api).await;
    assert_eq!(delays(&api, &rental).await, ["not_ready"]);
    set_back(&api).await;
    assert_eq!(delays(&api, &rental).await, ["not_ready", "blocked"]);
    let forced = json!({ "force": true, "reason": "it is urgent" });
    let refused = api.operator().post(&format!("{}/hand-over", path(&rental)), forced).await;
    assert_eq!((refused.status, refused.code()), (409, "device_blocked"), "{}", refused.text);
}

#[tokio::test]
async fn a_block_that_was_made_while_the_clock_was_ahead_holds_at_once() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" }))
        .await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let block = json!({ "reason": "lens", "force": true });
    must(&api.operator().post("/api/v1/devices/cam-1/blocks", block).await);
    let ahead = "update device_blocks set from_at = from_at + 7200000, created_at = created_at + 7200000";
    fixture::run(&api.state.store, ahead, &[]).await;
    assert_eq!(delays(&api, &rental).await, ["not_ready", "blocked"]);
    api.state.handle.accept_clock().await;
    assert_eq!(delays(&api, &rental).await, ["not_ready", "blocked"]);
}
