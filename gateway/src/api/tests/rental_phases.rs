//! The monitoring of a rented device: no alarms while it is prepared and in its planned maintenance, and its service
//! `rental`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rentals::{HOUR, book, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::testing::{Answer, TestApi};
use crate::maintenance::rental_phases::Phases;
use crate::store::fixture::{answers, run, texts};
use crate::store::rentals::announcements;

const SERVICE: &str = "/api/v1/hosts/cam-1/services/rental";
const PING: &str = "/api/v1/hosts/cam-1/services/ping";

/// A gateway with a monitor, and what passes the rentals to it.
struct Desk {
    api: TestApi,
    phases: Phases,
    _tasks: JoinSet<()>,
}

impl Desk {
    async fn new() -> Desk {
        let mut api = shop().await;
        let tasks = api.start_monitor();
        let phases = Phases::new(api.state.store.clone(), api.state.handle.clone());
        Desk { api, phases, _tasks: tasks }
    }

    /// The monitor learns of the rentals as they will be in so many seconds.
    async fn learn(&mut self, seconds: u64) {
        self.phases.turn(crate::clock::wall() + Duration::from_secs(seconds)).await.unwrap();
        self.api.state.handle.settled().await.unwrap();
    }

    async fn service(&self) -> Answer {
        self.api.viewer().get(SERVICE).await
    }

    async fn is_quiet(&self) -> Value {
        must(&self.api.viewer().get("/api/v1/hosts/cam-1").await)["state"]["in_downtime"].clone()
    }

    async fn kinds(&self) -> Vec<String> {
        let events = self.api.viewer().get("/api/v1/events?since=0&host=cam-1&kind=maintenance").await;
        let items = must(&events)["items"].as_array().unwrap();
        items.iter().map(|event| text(&event["kind"]).to_owned()).collect()
    }
}

#[tokio::test]
async fn a_device_is_in_maintenance_while_it_is_prepared_and_shows_its_rental() {
    let mut desk = Desk::new().await;
    desk.learn(0).await;
    assert_eq!(desk.service().await.status, 404, "no rental concerns it");
    renting(&desk.api, "cam-1", json!({ "rentable": true, "preparation_s": 2 * HOUR })).await;
    let rental = rented(&desk.api, item("cam-1", HOUR, 2 * HOUR)).await;
    desk.learn(0).await;
    let shown = desk.service().await;
    let service = must(&shown);
    assert_eq!((&service["state"], &service["check"]), (&json!("ok"), &json!("rental")));
    assert_eq!((&service["route"], &service["in_downtime"]), (&json!("rental"), &json!(false)));
    let words = text(&service["text"]);
    assert!(words.contains(text(&rental["id"])) && words.contains("in preparation until"), "{words}");
    assert_eq!(desk.is_quiet().await, json!(true));
    desk.learn(HOUR + 1).await;
    assert_eq!(desk.is_quiet().await, json!(false), "it has begun");
    let cancelled = desk.api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await;
    must(&cancelled);
    desk.learn(0).await;
    assert_eq!(desk.service().await.status, 404);
    assert_eq!(desk.kinds().await, ["maintenance.started", "maintenance.ended"]);
}

#[tokio::test]
async fn a_rental_that_is_delayed_is_a_warning_until_its_device_is_ready() {
    let mut desk = Desk::new().await;
    let broken = json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" });
    renting(&desk.api, "cam-1", broken).await;
    rented(&desk.api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    desk.learn(0).await;
    assert_eq!(must(&desk.service().await)["state"], json!("ok"), "the handover may be on its way");
    desk.learn(4).await;
    let shown = desk.service().await;
    let service = must(&shown);
    assert_eq!((&service["state"], &service["state_type"]), (&json!("warning"), &json!("hard")));
    assert!(text(&service["text"]).contains("is delayed"), "{service}");
    let acknowledged = desk.api.operator().post(&format!("{SERVICE}/acknowledgement"), json!({})).await;
    assert!(acknowledged.status < 300, "as of any service: {}", acknowledged.text);
    renting(&desk.api, "cam-1", json!({ "rentable": true, "ready": true })).await;
    assert_eq!(must(&desk.service().await)["acknowledged"], json!(true));
}

#[tokio::test]
async fn a_rental_that_fails_is_critical_for_an_hour_and_its_problem_is_closed() {
    let mut desk = Desk::new().await;
    let broken = json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" });
    renting(&desk.api, "cam-1", broken).await;
    let rental = rented(&desk.api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    desk.learn(4).await;
    assert_eq!(must(&desk.service().await)["state"], json!("warning"));
    let over = "update rentals set from_at = from_at - 3660000, prepared_from = from_at - 3660000,
                    until_at = until_at - 3660000, announced_at = announced_at - 3660000, announce_at = until_at - 3660000";
    run(&desk.api.state.store, over, &[]).await;
    let mut tx = desk.api.state.store.begin().await.unwrap();
    announcements::announce(&mut tx, crate::clock::wall()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(must(&desk.api.operator().get(&path(&rental)).await)["state"], json!("failed"));
    desk.learn(0).await;
    let shown = desk.service().await;
    let service = must(&shown);
    assert_eq!((&service["state"], &service["state_type"]), (&json!("critical"), &json!("hard")));
    assert!(text(&service["text"]).contains(&format!("{} has failed at", text(&rental["id"]))), "{service}");
    let passed = "update rentals set from_at = from_at - 3660000, prepared_from = prepared_from - 3660000,
                      until_at = until_at - 3660000, announced_at = announced_at - 3660000";
    run(&desk.api.state.store, passed, &[]).await;
    desk.learn(0).await;
    assert_eq!(must(&desk.service().await)["state"], json!("ok"), "it recovers before it goes");
    run(&desk.api.state.store, passed, &[]).await;
    desk.learn(0).await;
    assert_eq!(desk.service().await.status, 404);
}

#[tokio::test]
async fn the_problem_of_a_delay_is_closed_when_the_rental_gets_another_device() {
    let mut desk = Desk::new().await;
    let broken = json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" });
    renting(&desk.api, "cam-1", broken).await;
    let rental = rented(&desk.api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let begun = "update rentals set from_at = from_at - 10000, prepared_from = prepared_from - 10000";
    run(&desk.api.state.store, begun, &[]).await;
    desk.learn(0).await;
    assert_eq!(must(&desk.service().await)["state"], json!("warning"));
    must(&desk.api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await);
    desk.learn(0).await;
    let shown = desk.service().await;
    assert_eq!(must(&shown)["state"], json!("ok"), "{}", shown.text);
    assert!(text(&shown.json["text"]).contains("has got another device"), "{}", shown.text);
    let passed = "update rental_changes set at = at - 7300000, from_at = from_at - 7300000";
    run(&desk.api.state.store, passed, &[]).await;
    desk.learn(0).await;
    assert_eq!(desk.service().await.status, 404);
}

#[tokio::test]
async fn a_cleaning_that_fails_is_critical_also_after_its_rental_is_closed() {
    let mut desk = Desk::new().await;
    renting(&desk.api, "cam-1", json!({ "rentable": true, "cleaning_command": "wipe" })).await;
    let rental = rented(&desk.api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let end = format!("{}/end", path(&rental));
    must(&desk.api.operator().post(&end, json!({ "reason": "ended" })).await);
    desk.learn(0).await;
    assert_eq!(desk.service().await.status, 404, "it is closed");
    let failed = "insert into device_ssh_access (device, used_by, failure)
                  select device, id, 'exit status 1' from rentals";
    run(&desk.api.state.store, failed, &[]).await;
    desk.learn(0).await;
    assert_eq!(must(&desk.service().await)["state"], json!("ok"), "the device may be restarting");
    desk.learn(301).await;
    let shown = desk.service().await;
    let service = must(&shown);
    assert_eq!((&service["state"], &service["state_type"]), (&json!("critical"), &json!("hard")));
    let words = format!("is not cleaned after {}: exit status 1", text(&rental["id"]));
    assert!(text(&service["text"]).contains(&words), "{service}");
    run(&desk.api.state.store, "update device_ssh_access set used_by = null, failure = null", &[]).await;
    desk.learn(301).await;
    assert_eq!(desk.service().await.status, 404);
}

#[tokio::test]
async fn nobody_else_sets_configures_or_waits_for_the_service() {
    let mut desk = Desk::new().await;
    rented(&desk.api, item("cam-1", HOUR, 2 * HOUR)).await;
    desk.learn(0).await;
    let operator = desk.api.operator();
    let sent = operator.post(&format!("{SERVICE}/results"), json!({ "exit_status": 2 })).await;
    assert_eq!((sent.status, sent.code()), (409, "built_in"), "{}", sent.text);
    let many = json!({ "results": [{ "host": "cam-1", "service": "rental", "exit_status": 2 }] });
    let many = operator.post("/api/v1/results", many).await;
    assert_eq!(must(&many)["results"][0]["problem"]["code"], json!("built_in"));
    let put = operator.put(SERVICE, json!({ "check": { "type": "passive" } })).await;
    assert_eq!(field(&put), (422, "service"), "{}", put.text);
    let put = operator.put(SERVICE, json!({ "disabled": true })).await;
    assert_eq!(field(&put), (422, "service"), "{}", put.text);
    assert_eq!(operator.delete(SERVICE).await.status, 404, "it has no settings to take back");
    let gate = json!({ "rentable": true, "gate": { "services": ["rental"], "ok_for_s": 60 } });
    let gate = operator.put("/api/v1/devices/cam-1/rental-settings", gate).await;
    assert_eq!(field(&gate), (422, "gate"), "{}", gate.text);
    assert_eq!(must(&desk.service().await)["state"], json!("ok"), "nothing changed");
}

#[tokio::test]
async fn thresholds_of_a_rental_apply_while_it_is_active() {
    let mut desk = Desk::new().await;
    let of = |crit: &str| json!([{ "service": "ping", "metric": "rta", "crit": crit }]);
    let mut later = item("cam-1", HOUR, 2 * HOUR);
    later["thresholds"] = of("700");
    let rental = rented(&desk.api, later).await;
    assert_eq!(rental["thresholds"], of("700"));
    desk.learn(0).await;
    let usual = must(&desk.api.viewer().get(PING).await).clone();
    let limit = |shown: &Value, list: &str| -> Value {
        let list = shown[list].as_array().cloned().unwrap_or_default();
        list.into_iter()
            .find(|limit| limit["metric"] == "rta")
            .map_or(Value::Null, |limit| limit["crit"].clone())
    };
    assert_ne!(limit(&usual, "thresholds"), json!("700"), "it has not begun");
    assert_eq!(usual["usual_thresholds"], Value::Null);
    let now = json!({ "device": "cam-2", "until": hence(HOUR), "thresholds": of("700") });
    let active = rented(&desk.api, now).await;
    desk.learn(0).await;
    let ping = PING.replace("cam-1", "cam-2");
    let shown = must(&desk.api.viewer().get(&ping).await).clone();
    assert_eq!(limit(&shown, "thresholds"), json!("700"), "{shown}");
    assert_eq!(shown["usual_thresholds"], usual["thresholds"]);
    let changed = desk.api.operator().patch(&path(&active), json!({ "thresholds": of("800") })).await;
    assert_eq!((&must(&changed)["version"], &changed.json["thresholds"]), (&json!(2), &of("800")));
    desk.learn(0).await;
    assert_eq!(limit(must(&desk.api.viewer().get(&ping).await), "thresholds"), json!("800"));
    // What an operator changes meanwhile does not take over what ends with the rental.
    must(&desk.api.operator().put(&ping, json!({ "max_check_attempts": 2 })).await);
    let log = must(&desk.api.viewer().get("/api/v1/events?since=0&kind=service.changed").await).clone();
    let previous = &log["items"][0]["data"]["previous"];
    assert_ne!(limit(previous, "thresholds"), json!("800"), "{log}");
    must(&desk.api.operator().post(&format!("{}/end", path(&active)), json!({ "reason": "ended" })).await);
    desk.learn(0).await;
    let shown = must(&desk.api.viewer().get(&ping).await).clone();
    assert_eq!((&shown["thresholds"], &shown["usual_thresholds"]), (&usual["thresholds"], &Value::Null));
    let wrong = json!({ "thresholds": [{ "service": "ping", "metric": "rta", "warn": "x" }] });
    let refused = desk.api.operator().patch(&path(&rental), wrong).await;
    assert_eq!(field(&refused), (422, "thresholds[0].warn"), "{}", refused.text);
}

/// A time in which a device is in maintenance, from and until so many seconds ahead.
fn planned(from: u64, until: u64) -> Value {
    json!({ "from": hence(from), "until": hence(until), "comment": "new lens" })
}

#[tokio::test]
async fn a_device_is_in_maintenance_as_its_rental_plans_it_until_the_rental_ends_or_gets_another_device() {
    let mut desk = Desk::new().await;
    let (first, second) = (planned(HOUR, 2 * HOUR), planned(3 * HOUR, 9 * HOUR));
    let item = json!({ "device": "cam-1", "until": hence(9 * HOUR), "maintenance": [second, first] });
    let rental = rented(&desk.api, item).await;
    let times = |of: &Value| json!({ "from": of["from"], "until": of["until"] });
    let bare = json!([times(&first), times(&second)]);
    assert_eq!(rental["maintenance"], bare, "an answer that is kept has no comment");
    let shown = must(&desk.api.operator().get(&path(&rental)).await).clone();
    assert_eq!(shown["maintenance"], json!([first, second]));
    for (seconds, is_quiet) in [(0, false), (HOUR + 1, true), (2 * HOUR + 1, false), (4 * HOUR, true)] {
        desk.learn(seconds).await;
        assert_eq!(desk.is_quiet().await, json!(is_quiet), "after {seconds} s");
    }
    let service = desk.service().await;
    assert!(text(&must(&service)["text"]).contains("is in maintenance until"), "{}", service.text);
    let changed = desk.api.operator().patch(&path(&rental), json!({ "maintenance": [first] })).await;
    assert_eq!(
        (&must(&changed)["version"], &changed.json["maintenance"]),
        (&json!(2), &json!([times(&first)]))
    );
    desk.learn(4 * HOUR).await;
    assert_eq!(desk.is_quiet().await, json!(false));
    desk.learn(HOUR + 1).await;
    assert_eq!(desk.is_quiet().await, json!(true));
    must(&desk.api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await);
    desk.learn(HOUR + 1).await;
    let other = desk.api.viewer().get("/api/v1/hosts/cam-2").await;
    assert_eq!((desk.is_quiet().await, &must(&other)["state"]["in_downtime"]), (json!(false), &json!(true)));
    must(&desk.api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "ended" })).await);
    desk.learn(HOUR + 1).await;
    let other = desk.api.viewer().get("/api/v1/hosts/cam-2").await;
    assert_eq!(must(&other)["state"]["in_downtime"], json!(false), "it ends with the rental");
    let late = desk.api.operator().patch(&path(&rental), json!({ "maintenance": [] })).await;
    assert_eq!((late.status, late.code()), (409, "rental_over"), "{}", late.text);
}

#[tokio::test]
async fn maintenance_lies_within_its_rental_and_is_changed_under_its_etag() {
    let api = shop().await;
    let within = planned(2 * HOUR, 3 * HOUR);
    let mut later = item("cam-1", HOUR, 4 * HOUR);
    for (bad, name) in [
        (json!([planned(HOUR - 60, 2 * HOUR)]), "items[0].maintenance[0].from"),
        (json!([within, planned(2 * HOUR, 5 * HOUR)]), "items[0].maintenance[1].until"),
        (json!([planned(3 * HOUR, 2 * HOUR)]), "items[0].maintenance[0].until"),
        (json!(vec![within.clone(); 17]), "items[0].maintenance"),
    ] {
        later["maintenance"] = bad;
        let refused = book(&api, json!([later])).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    later["maintenance"] = json!([within]);
    let rental = rented(&api, later).await;
    let shorter = json!({ "until": hence(2 * HOUR + 60), "maintenance": [within] });
    let refused = api.operator().patch(&path(&rental), shorter).await;
    assert_eq!(field(&refused), (422, "maintenance[0].until"), "{}", refused.text);
    let stale =
        api.operator().header("if-match", "\"9\"").patch(&path(&rental), json!({ "maintenance": [] })).await;
    assert_eq!((stale.status, stale.code()), (412, "changed_meanwhile"), "{}", stale.text);
    must(&api.operator().patch(&path(&rental), json!({ "until": hence(2 * HOUR + 60) })).await);
    let longer = json!({ "until": hence(5 * HOUR), "maintenance": [planned(4 * HOUR, 5 * HOUR - 1)] });
    assert_eq!(must(&api.operator().patch(&path(&rental), longer).await)["version"], json!(3));
}

#[tokio::test]
async fn maintenance_beyond_an_earlier_end_of_its_rental_is_removed() {
    let mut desk = Desk::new().await;
    let (first, second) = (planned(HOUR, 3 * HOUR), planned(4 * HOUR, 5 * HOUR));
    let item = json!({ "device": "cam-1", "until": hence(9 * HOUR), "maintenance": [first, second] });
    let rental = rented(&desk.api, item).await;
    let operator = desk.api.operator();
    let shorter = hence(2 * HOUR);
    let cut = json!([{ "from": first["from"], "until": shorter }]);
    let changed = operator.patch(&path(&rental), json!({ "until": shorter })).await;
    assert_eq!((&must(&changed)["version"], &changed.json["maintenance"]), (&json!(2), &cut));
    let log = must(&operator.get("/api/v1/events?since=0&kind=rental.changed").await).clone();
    assert_eq!(log["items"][0]["data"]["changed"], json!(["until", "maintenance"]), "{log}");
    let longer = operator.patch(&path(&rental), json!({ "until": hence(9 * HOUR) })).await;
    assert_eq!(must(&longer)["maintenance"], cut, "nothing comes back");
    let shown = must(&operator.get(&path(&rental)).await).clone();
    assert_eq!(shown["maintenance"][0]["comment"], json!("new lens"));
    for (seconds, is_quiet) in [(HOUR + 60, true), (2 * HOUR + 60, false), (4 * HOUR + 60, false)] {
        desk.learn(seconds).await;
        assert_eq!(desk.is_quiet().await, json!(is_quiet), "after {seconds} s");
    }
}

#[tokio::test]
async fn what_a_client_says_of_maintenance_is_erased_with_its_customer() {
    let api = shop().await;
    let item =
        json!({ "device": "cam-1", "until": hence(9 * HOUR), "maintenance": [planned(HOUR, 2 * HOUR)] });
    let caller = api.operator().header("idempotency-key", "lens");
    let booking = json!({ "customer": "crm-17", "items": [item] });
    let made = caller.post("/api/v1/bookings", booking).await;
    let rental = must(&made)["rentals"][0].clone();
    assert!(!answers(&api.state.store).await.contains("lens"), "{}", made.text);
    must(&api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "ended" })).await);
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    let left = must(&api.operator().get(&path(&rental)).await).clone();
    let times = &rental["maintenance"][0];
    assert_eq!(left["maintenance"], json!([{ "from": times["from"], "until": times["until"] }]));
    let stored = "select maintenance from rentals";
    assert!(!texts(&api.state.store, stored).await.concat().contains("lens"));
}
