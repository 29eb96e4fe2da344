//! Shipped devices: dispatched, heard from, awaited and returned, and what that means for the next rental.

use std::time::Duration;

use fleetgate_engine::messages::{Arrival, FirstContact, HandoverSpec, MonitorInput};
use serde_json::{Value, json};

use super::rentals::{HOUR, book, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::store::fixture::run;
use crate::store::rentals::shipments;

/// A shop whose device cam-1 is shipped.
async fn shipping() -> TestApi {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "delivery": "shipped", "turnaround_s": 600 })).await;
    api
}

async fn call(api: &TestApi, rental: &Value, call: &str) -> Answer {
    api.operator().post(&format!("{}/{call}", path(rental)), json!({})).await
}

async fn shown(api: &TestApi, rental: &Value) -> Value {
    must(&api.operator().get(&path(rental)).await).clone()
}

fn refused(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.code())
}

/// The last message to the monitor about a rental.
fn judged(api: &mut TestApi, rental: &Value) -> Option<HandoverSpec> {
    let rental = IdKind::Rental.parse(text(&rental["id"])).unwrap_or_else(|unknown| panic!("{}", unknown.0));
    let mut found = None;
    while let Ok(input) = api.monitor.try_recv() {
        if let MonitorInput::Handover(spec) = input
            && spec.rental == rental
        {
            found = Some(*spec);
        }
    }
    found
}

async fn events(api: &TestApi, rental: &Value) -> Vec<String> {
    let feed = api.operator().get(&format!("/api/v1/rental-events?rental={}", text(&rental["id"]))).await;
    let items = must(&feed)["items"].as_array().unwrap();
    items.iter().map(|event| text(&event["kind"]).replace("rental.", "")).collect()
}

/// Lets the window of a rental, whose device was dispatched, be over for as long.
async fn passed(api: &TestApi, rental: &Value, seconds: u64) {
    let id = IdKind::Rental.parse(text(&rental["id"])).unwrap_or_else(|unknown| panic!("{}", unknown.0));
    let over = (crate::clock::wall() - Duration::from_secs(seconds)).as_millis();
    let sql = "update rentals set prepared_from = $2 - 5000, from_at = $2 - 4000, until_at = $2,
                   announced_at = $2 - 9000, announce_at = $2 - 5000, dispatched_at = $2 - 5000
               where id = $1";
    run(&api.state.store, sql, &[&id.as_i64().to_string(), &over.to_string()]).await;
    let mut tx = api.state.store.begin().await.unwrap();
    crate::store::rentals::announcements::announce(&mut tx, crate::clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_shipped_device_goes_out_and_comes_back() {
    let mut api = shipping().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    assert_eq!((&rental["delivery"], &rental["awaits_handover"]), (&json!("shipped"), &json!(true)));
    assert_eq!(judged(&mut api, &rental).unwrap().arrival, Arrival::NotDispatched);
    let sent = must(&call(&api, &rental, "dispatch").await).clone();
    assert_eq!((&sent["state"], &sent["version"]), (&json!("preparing"), &json!(2)), "{sent}");
    assert_eq!(sent["occupied_from"], sent["dispatched_at"]);
    let spec = judged(&mut api, &rental).unwrap();
    assert!(matches!(spec.arrival, Arrival::Awaited { .. }) && spec.is_ready, "{spec:?}");
    assert_eq!(spec.rule.as_ref().map(|rule| rule.services.clone()), Some(Some(Default::default())));
    let contact = FirstContact { rental: spec.rental, host: spec.host, at: crate::clock::wall() };
    let mut tx = api.state.store.begin().await.unwrap();
    assert!(shipments::arrived(&mut tx, contact).await.unwrap().is_some());
    assert!(shipments::arrived(&mut tx, contact).await.unwrap().is_none(), "once");
    tx.commit().await.unwrap();
    assert!(shown(&api, &rental).await["first_contact_at"].is_string());
    let over = must(&call(&api, &rental, "cancel").await).clone();
    assert_eq!((&over["state"], &over["end_reason"]), (&json!("returning"), &json!("cancelled")));
    run(&api.state.store, "update rentals set first_contact_at = null", &[]).await;
    let mut tx = api.state.store.begin().await.unwrap();
    assert!(shipments::arrived(&mut tx, contact).await.unwrap().is_none(), "it is on its way back");
    tx.commit().await.unwrap();
    assert_eq!(over["occupied_until"], Value::Null, "that is not known yet");
    let named = json!({ "device": "cam-2", "until": hence(HOUR), "name": rental["name"] });
    let taken = book(&api, json!([named])).await;
    assert_eq!(refused(&taken), (409, "name_taken"), "{}", taken.text);
    assert!(taken.text.contains("free a day after its device is back and cleaned"), "{}", taken.text);
    let back = must(&call(&api, &rental, "return").await).clone();
    assert_eq!((&back["state"], back["returned_at"].is_string()), (&json!("cleaning"), true), "{back}");
    let all = ["booked", "dispatched", "preparing", "cancelled", "returning", "returned", "cleaning"];
    assert_eq!(events(&api, &rental).await, all);
    for kind in ["rental.dispatched", "rental.arrived", "rental.returned"] {
        let log = api.operator().get(&format!("/api/v1/events?kind={kind}")).await;
        assert_eq!(must(&log)["items"][0]["data"]["id"], rental["id"], "{kind}");
    }
    let report = api.operator().get(&format!("{}/report", path(&rental))).await;
    let changes: Vec<&str> =
        must(&report)["changes"].as_array().unwrap().iter().map(|change| text(&change["change"])).collect();
    assert_eq!(changes, ["booked", "dispatched", "cancelled", "returned"]);
}

#[tokio::test]
async fn each_refusal_says_what_is_missing() {
    let api = shipping().await;
    let mounted = rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    for name in ["dispatch", "return"] {
        assert_eq!(refused(&call(&api, &mounted, name).await), (409, "not_shipped"), "{name}");
    }
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let later = rented(&api, item("cam-1", 3 * HOUR, 4 * HOUR)).await;
    assert_eq!(refused(&call(&api, &rental, "return").await), (409, "not_dispatched"));
    let early = call(&api, &later, "dispatch").await;
    assert_eq!(refused(&early), (409, "device_in_use"), "{}", early.text);
    assert!(early.text.contains(text(&rental["id"])), "{}", early.text);
    must(&call(&api, &rental, "dispatch").await);
    assert_eq!(refused(&call(&api, &rental, "dispatch").await), (409, "already_dispatched"));
    assert_eq!(refused(&call(&api, &rental, "return").await), (409, "rental_not_over"));
    let swap = api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await;
    assert_eq!(refused(&swap), (409, "already_dispatched"), "{}", swap.text);
    must(&call(&api, &rental, "cancel").await);
    assert_eq!(refused(&call(&api, &rental, "dispatch").await), (409, "rental_over"));
    let away = call(&api, &later, "dispatch").await;
    assert!(
        refused(&away) == (409, "device_in_use") && away.text.contains("has not come back"),
        "{}",
        away.text
    );
    must(&call(&api, &rental, "return").await);
    assert_eq!(refused(&call(&api, &rental, "return").await), (409, "already_returned"));
    must(&call(&api, &later, "dispatch").await);
    let wrong = json!({ "rentable": true, "delivery": "carried" });
    let wrong = api.operator().put("/api/v1/devices/cam-1/rental-settings", wrong).await;
    assert_eq!(field(&wrong), (422, "delivery"), "{}", wrong.text);
    let stale =
        api.operator().header("if-match", "\"1\"").post(&format!("{}/return", path(&later)), json!({})).await;
    assert_eq!(stale.code(), "changed_meanwhile");
    let held = json!({ "customer": "crm-17", "items": [item("cam-1", 5 * HOUR, 6 * HOUR)], "hold_until": hence(600) });
    let held = must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone();
    assert_eq!(refused(&call(&api, &held, "dispatch").await), (409, "not_dispatchable"));
}

#[tokio::test]
async fn a_device_that_is_away_is_not_free_and_keeps_the_next_gate_shut() {
    let mut api = shipping().await;
    let first = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let next =
        rented(&api, json!({ "device": "cam-1", "from": hence(3 * HOUR), "until": hence(4 * HOUR) })).await;
    must(&call(&api, &first, "dispatch").await);
    let availability = format!("/api/v1/rentals/availability?to={}&label=name=cam-1", hence(9 * HOUR));
    assert_ne!(
        must(&api.operator().get(&availability).await)["items"][0]["free"],
        json!([]),
        "it has a plan"
    );
    assert!(!judged(&mut api, &next).unwrap().is_ready);
    passed(&api, &first, 60).await;
    assert_eq!(shown(&api, &first).await["state"], json!("returning"));
    passed(&api, &first, 3_000).await;
    assert_eq!(shown(&api, &first).await["state"], json!("overdue"));
    assert_eq!(must(&api.operator().get(&availability).await)["items"][0]["free"], json!([]));
    let booked = book(&api, json!([item("cam-1", 20 * HOUR, 21 * HOUR)])).await;
    assert_eq!(refused(&booked), (409, "occupied"), "{}", booked.text);
    assert_eq!(booked.json["conflict"]["until"], Value::Null, "{}", booked.text);
    let feed = api.operator().get("/api/v1/rental-events").await;
    let items = must(&feed)["items"].as_array().unwrap().clone();
    let overdue = items.iter().find(|event| event["kind"] == "rental.overdue").expect("it is announced");
    assert_eq!(
        (&overdue["rental"], &overdue["data"]["next_rental"]),
        (&first["id"], &next["id"]),
        "{overdue}"
    );
    assert_eq!(events(&api, &next).await.last().map(String::as_str), Some("device_overdue"), "it is warned");
    let begun = "update rentals set from_at = 1000, prepared_from = 1000
                 where id <> (select min(id) from rentals)";
    run(&api.state.store, begun, &[]).await;
    let delayed = shown(&api, &next).await;
    assert_eq!(delayed["state"], json!("delayed"));
    let kinds: Vec<&str> =
        delayed["delayed"].as_array().unwrap().iter().map(|delay| text(&delay["kind"])).collect();
    assert!(kinds.contains(&"not_returned") && kinds.contains(&"not_dispatched"), "{delayed}");
    let forced = json!({ "force": true, "reason": "it is urgent" });
    let early = api.operator().post(&format!("{}/hand-over", path(&next)), forced).await;
    assert_eq!(refused(&early), (409, "device_in_use"), "{}", early.text);
    assert!(early.text.contains(text(&first["id"])), "{}", early.text);
    must(&call(&api, &first, "return").await);
    assert!(judged(&mut api, &next).unwrap().is_ready);
    must(&call(&api, &next, "dispatch").await);
    let sent = shown(&api, &next).await;
    let of = sent["delayed"].as_array().unwrap().iter().find(|delay| delay["kind"] == "not_arrived");
    assert_eq!(of.map(|delay| &delay["since"]), Some(&sent["dispatched_at"]), "{sent}");
    let by_hand = json!({ "force": true, "reason": "it is there" });
    let active = api.operator().post(&format!("{}/hand-over", path(&next)), by_hand).await;
    assert_eq!(must(&active)["state"], json!("active"));
}

#[tokio::test]
async fn an_active_rental_takes_no_device_that_would_have_to_be_sent() {
    let api = shipping().await;
    let rental = rented(&api, json!({ "device": "cam-2", "until": hence(HOUR) })).await;
    assert_eq!(rental["state"], json!("active"));
    let swap = api.operator().patch(&path(&rental), json!({ "device": "cam-1" })).await;
    assert_eq!(field(&swap), (422, "device"), "{}", swap.text);
    assert!(swap.text.contains("cam-1 is shipped"), "{}", swap.text);
    assert_eq!(shown(&api, &rental).await["version"], rental["version"], "nothing was written");
}

#[tokio::test]
async fn a_mounted_device_that_is_away_for_an_earlier_rental_is_awaited_too() {
    let mut api = shipping().await;
    let first = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    must(&call(&api, &first, "dispatch").await);
    renting(&api, "cam-1", json!({ "rentable": true, "delivery": "mounted" })).await;
    let next = rented(&api, item("cam-1", 3 * HOUR, 4 * HOUR)).await;
    assert_eq!((&next["delivery"], &next["awaits_handover"]), (&json!("mounted"), &json!(true)));
    assert!(!judged(&mut api, &next).unwrap().is_ready);
    must(&call(&api, &first, "cancel").await);
    must(&call(&api, &first, "return").await);
    assert_eq!(shown(&api, &next).await["awaits_handover"], json!(false), "it begins at its time");
}
