//! The handover of rented devices: readiness, gates, forced blocks, delays and what is opened by hand.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, Gate, GrantTarget, HandedOver, HandoverSpec, HandoverStep, MonitorInput, PolicyChange,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::connect::Site;
use super::rental_access::{explained, renter};
use super::rentals::{HOUR, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::maintenance::handovers::HandoverLog;
use crate::store::fixture::run;
use crate::store::rentals::handovers;

fn id(kind: IdKind, text: &Value) -> Id {
    kind.parse(super::rentals::text(text)).unwrap_or_else(|unknown| panic!("{}", unknown.0))
}

async fn broken(api: &TestApi, name: &str) {
    renting(api, name, json!({ "rentable": true, "ready": false, "not_ready_reason": "no battery" })).await;
}

/// A rental that lasts from now.
async fn begun(api: &TestApi, device: &str) -> Value {
    rented(api, json!({ "device": device, "until": hence(HOUR) })).await
}

async fn shown(api: &TestApi, rental: &Value) -> Value {
    must(&api.operator().get(&path(rental)).await).clone()
}

async fn settings(api: &TestApi, body: Value) -> Answer {
    api.operator().put("/api/v1/devices/cam-1/rental-settings", body).await
}

async fn hand_over(api: &TestApi, rental: &Value, body: Value) -> Answer {
    api.operator().post(&format!("{}/hand-over", path(rental)), body).await
}

fn forced() -> Value {
    json!({ "force": true, "reason": "the lens is scratched" })
}

/// The last message to the tunnel about the gate of a rental.
fn gate(api: &mut TestApi, rental: &Value) -> Option<Gate> {
    let mut found = None;
    while let Ok(command) = api.tunnel.try_recv() {
        let Command::Policy(changes) = command else { continue };
        for change in changes {
            if let PolicyChange::Grant(spec) = change
                && spec.target == GrantTarget::Rental(id(IdKind::Rental, &rental["id"]))
            {
                found = Some(spec.gate);
            }
        }
    }
    found
}

/// The last message to the monitor about a rental. `None`: to forget it.
fn judged(api: &mut TestApi, rental: &Value) -> Option<HandoverSpec> {
    let rental = id(IdKind::Rental, &rental["id"]);
    let mut found = None;
    while let Ok(input) = api.monitor.try_recv() {
        match input {
            MonitorInput::Handover(spec) if spec.rental == rental => found = Some(*spec),
            MonitorInput::ForgetHandover(forgotten) if forgotten == rental => found = None,
            _ => {}
        }
    }
    found
}

/// The monitor hands a device over now.
async fn handed_over(api: &TestApi, rental: &Value) {
    let (rental, host) = (id(IdKind::Rental, &rental["id"]), id(IdKind::Host, &rental["device"]));
    let mut tx = api.state.store.begin().await.unwrap();
    let at = crate::clock::wall();
    handovers::done(&mut tx, HandedOver { rental, host, at }).await.unwrap();
    tx.commit().await.unwrap();
}

async fn kinds(api: &TestApi) -> Vec<String> {
    let feed = api.operator().get("/api/v1/rental-events").await;
    let items = must(&feed)["items"].as_array().unwrap();
    items.iter().map(|event| text(&event["kind"]).to_owned()).collect()
}

#[tokio::test]
async fn a_device_that_is_not_ready_delays_its_rental_until_it_is() {
    let mut api = shop().await;
    broken(&api, "cam-1").await;
    let rental = begun(&api, "cam-1").await;
    assert_eq!((&rental["state"], &rental["handed_over_at"]), (&json!("delayed"), &Value::Null));
    let delayed = shown(&api, &rental).await["delayed"].clone();
    assert_eq!((&delayed[0]["kind"], delayed.as_array().unwrap().len()), (&json!("not_ready"), 1));
    assert!(text(&delayed[0]["text"]).contains("no battery"), "{delayed}");
    assert!(gate(&mut api, &rental).unwrap().awaits_handover);
    let spec = judged(&mut api, &rental).expect("the monitor judges it");
    assert_eq!((spec.is_ready, spec.rule, spec.handed_over_at), (false, None, None));
    renting(&api, "cam-1", json!({ "rentable": true, "ready": true })).await;
    assert!(judged(&mut api, &rental).unwrap().is_ready);
    assert_eq!(shown(&api, &rental).await["delayed"][0]["kind"], json!("settling"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    handed_over(&api, &rental).await;
    let active = shown(&api, &rental).await;
    assert_eq!((&active["state"], active["delayed"].is_null()), (&json!("active"), true));
    assert!(active["handed_over_at"].is_string() && active["version"] == rental["version"], "{active}");
    assert_eq!(kinds(&api).await, ["rental.booked", "rental.delayed", "rental.active"]);
    let report = api.operator().get(&format!("{}/report", path(&rental))).await;
    assert!(must(&report)["delayed_s"].as_f64().is_some_and(|delayed| delayed > 0.0), "{}", report.text);
    broken(&api, "cam-1").await;
    assert_eq!(shown(&api, &rental).await["state"], json!("active"), "it has its device");
}

#[tokio::test]
async fn readiness_keeps_no_device_from_being_booked_and_counts_when_the_rental_begins() {
    let mut api = shop().await;
    let planned = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let running = begun(&api, "cam-2").await;
    assert_eq!(gate(&mut api, &planned), Some(Gate::default()));
    broken(&api, "cam-1").await;
    broken(&api, "cam-2").await;
    rented(&api, item("cam-1", 3 * HOUR, 4 * HOUR)).await;
    assert!(gate(&mut api, &planned).unwrap().awaits_handover);
    assert_eq!(shown(&api, &running).await["state"], json!("active"), "it began before");
    renting(&api, "cam-1", json!({ "rentable": true, "ready": true })).await;
    assert_eq!(gate(&mut api, &planned), Some(Gate::default()));
    assert_eq!(judged(&mut api, &planned), None);
}

#[tokio::test]
async fn the_settings_of_a_handover_stay_as_they_are_unless_they_are_given() {
    let mut api = shop().await;
    let service = json!({ "check": { "type": "passive" } });
    must(&api.operator().put("/api/v1/hosts/cam-1/services/lens", service).await);
    let gated = json!({ "rentable": true, "gate": { "services": ["lens"], "ok_for_s": 60.0 } });
    assert_eq!(must(&settings(&api, gated.clone()).await)["gate"], gated["gate"]);
    let kept = settings(&api, json!({ "rentable": true, "turnaround_s": 60 })).await;
    assert_eq!((&must(&kept)["gate"], &kept.json["ready"]), (&gated["gate"], &json!(true)));
    let rental = begun(&api, "cam-1").await;
    let rule = judged(&mut api, &rental).unwrap().rule.unwrap();
    assert_eq!((rule.services, rule.ok_for), (Some(["lens".to_owned()].into()), Duration::from_secs(60)));
    let delayed = shown(&api, &rental).await["delayed"].clone();
    assert_eq!((&delayed[0]["kind"], &delayed[0]["state"]), (&json!("device"), &json!("pending")));
    let usual = settings(&api, json!({ "rentable": true, "gate": {} })).await;
    assert_eq!(must(&usual)["gate"], json!({ "services": null, "ok_for_s": 300.0 }));
    let none = settings(&api, json!({ "rentable": true, "without": ["gate"] })).await;
    assert_eq!(must(&none)["gate"], Value::Null);
    assert_eq!(judged(&mut api, &rental).unwrap().rule, None);
    broken(&api, "cam-1").await;
    let kept = settings(&api, json!({ "rentable": true, "ready": false })).await;
    assert_eq!(must(&kept)["not_ready_reason"], json!("no battery"), "the reason stays");
    let event = api.operator().get("/api/v1/events?kind=device.rental_settings_changed").await;
    let data = &must(&event)["items"][0]["data"];
    assert_eq!((&data["ready"], &data["not_ready_reason"]), (&json!(false), &json!("no battery")));
}

#[tokio::test]
async fn settings_of_a_handover_that_make_no_sense_are_refused_by_name() {
    let api = shop().await;
    let refused = async |body: Value| {
        let mut whole = json!({ "rentable": true });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let answer = settings(&api, whole).await;
        let (status, named) = field(&answer);
        assert_eq!(status, 422, "{}", answer.text);
        (named.to_owned(), answer.text)
    };
    for (body, named, says) in [
        (json!({ "ready": false }), "not_ready_reason", "say why"),
        (json!({ "ready": false, "not_ready_reason": " " }), "not_ready_reason", "say why"),
        (json!({ "ready": true, "not_ready_reason": "x" }), "not_ready_reason", "ready"),
        (json!({ "not_ready_reason": "x" }), "not_ready_reason", "ready"),
        (json!({ "gate": { "ok_for_s": -1 } }), "gate", "from 0 to"),
        (json!({ "gate": { "ok_for_s": 90_000 } }), "gate", "from 0 to"),
        (json!({ "gate": { "services": [] } }), "gate", "null for all"),
        (json!({ "gate": { "services": ["no such"] } }), "gate", "no service \\\"no such\\\""),
    ] {
        let (found, text) = refused(body.clone()).await;
        assert_eq!(found, named, "{body}: {text}");
        assert!(text.contains(says), "{body}: {text}");
    }
    let now = api.operator().get("/api/v1/devices/cam-1/rental-settings").await;
    assert_eq!((&must(&now)["ready"], &now.json["gate"]), (&json!(true), &Value::Null), "nothing changed");
}

#[tokio::test]
async fn a_gate_is_opened_by_hand_with_a_reason() {
    let mut api = shop().await;
    broken(&api, "cam-1").await;
    let planned = rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    let rental = begun(&api, "cam-1").await;
    for (body, named) in [
        (json!({ "force": false, "reason": "x" }), "force"),
        (json!({ "force": true, "reason": "" }), "reason"),
    ] {
        assert_eq!(field(&hand_over(&api, &rental, body).await), (422, named));
    }
    let early = hand_over(&api, &planned, forced()).await;
    assert_eq!((early.status, early.code()), (409, "rental_not_delayed"), "{}", early.text);
    let caller = api.operator().header("if-match", "\"7\"");
    let stale = caller.post(&format!("{}/hand-over", path(&rental)), forced()).await;
    assert_eq!(stale.code(), "changed_meanwhile");
    let done = hand_over(&api, &rental, forced()).await;
    assert_eq!((&must(&done)["state"], &done.json["version"]), (&json!("active"), &json!(2)));
    assert!(!gate(&mut api, &rental).unwrap().awaits_handover);
    assert!(judged(&mut api, &rental).unwrap().handed_over_at.is_some());
    let again = hand_over(&api, &rental, forced()).await;
    assert_eq!((again.status, again.code()), (409, "rental_not_delayed"), "{}", again.text);
    let event = api.operator().get("/api/v1/events?kind=rental.handed_over").await;
    let data = &must(&event)["items"][0]["data"];
    assert_eq!((&data["reason"], &data["id"]), (&json!("the lens is scratched"), &rental["id"]));
    let report = api.operator().get(&format!("{}/report", path(&rental))).await;
    let changes = must(&report)["changes"].as_array().unwrap();
    assert_eq!(changes.last().unwrap()["change"], json!("handed_over"));
}

#[tokio::test]
async fn a_forced_block_withdraws_the_access_of_a_rental_and_keeps_a_gate_shut() {
    let mut api = shop().await;
    let running = begun(&api, "cam-1").await;
    let planned = rented(&api, item("cam-2", 60, HOUR)).await;
    let mut blocks = Vec::new();
    for device in ["cam-1", "cam-2"] {
        let body = json!({ "reason": "a recall", "force": true });
        let made = api.operator().post(&format!("/api/v1/devices/{device}/blocks"), body).await;
        blocks.push(format!("/api/v1/devices/{device}/blocks/{}", text(&must(&made)["id"])));
    }
    assert_eq!(shown(&api, &running).await["state"], json!("active"), "it has its device");
    let mut told = api.state.store.reader().await.unwrap();
    let rows = crate::store::policy::all(&mut told, crate::clock::wall()).await.unwrap();
    drop(told);
    let gates: Vec<(Id, Gate)> = rows
        .changes
        .into_iter()
        .filter_map(|change| match change {
            PolicyChange::Grant(spec) => Some((spec.id, spec.gate)),
            _ => None,
        })
        .collect();
    let of = |rental: &Value| {
        let rental = id(IdKind::Rental, &rental["id"]);
        gates.iter().find(|(id, _)| *id == rental).map(|(_, gate)| gate).expect("a grant")
    };
    assert_eq!((of(&running).awaits_handover, of(&running).blocks.len()), (false, 1));
    assert_eq!((of(&planned).awaits_handover, of(&planned).blocks.len()), (true, 1));
    assert_eq!(gate(&mut api, &planned).as_ref(), Some(of(&planned)), "the tunnel was told the same");
    run(&api.state.store, "update rentals set from_at = 1000, prepared_from = 1000 where gated = 1", &[])
        .await;
    let late = shown(&api, &planned).await;
    assert_eq!((&late["state"], &late["delayed"][0]["kind"]), (&json!("delayed"), &json!("blocked")));
    let refused = hand_over(&api, &planned, forced()).await;
    assert_eq!((refused.status, refused.code()), (409, "device_blocked"), "{}", refused.text);
    for block in blocks {
        assert_eq!(api.operator().delete(&block).await.status, 204);
    }
    let spec = judged(&mut api, &planned).expect("it is delayed still");
    assert_eq!((spec.blocks, spec.is_ready, spec.rule), (Vec::new(), true, None));
    assert_eq!(gate(&mut api, &running), Some(Gate::default()));
}

#[tokio::test]
async fn a_delayed_rental_is_swapped_extended_listed_and_ended() {
    let mut api = shop().await;
    broken(&api, "cam-1").await;
    let rental = begun(&api, "cam-1").await;
    let listed = api.operator().get("/api/v1/rentals?state=delayed").await;
    assert_eq!(must(&listed)["items"][0]["id"], rental["id"]);
    let longer = json!({ "until": hence(2 * HOUR) });
    assert_eq!(must(&api.operator().patch(&path(&rental), longer).await)["state"], json!("delayed"));
    let swapped = api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await;
    assert_eq!(
        (&must(&swapped)["state"], &swapped.json["device_name"]),
        (&json!("delayed"), &json!("cam-2"))
    );
    let spec = judged(&mut api, &rental).unwrap();
    assert_eq!((spec.host, spec.is_ready), (id(IdKind::Host, &swapped.json["device"]), true));
    begun(&api, "cam-1").await;
    handed_over(&api, &rental).await;
    assert_eq!(
        shown(&api, &rental).await["state"],
        json!("delayed"),
        "the handover was of the device before"
    );
    let cancel = api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await;
    assert_eq!((cancel.status, cancel.code()), (409, "rental_begun"), "{}", cancel.text);
    let ended = api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "failed" })).await;
    assert_eq!((&must(&ended)["state"], &ended.json["end_reason"]), (&json!("failed"), &json!("failed")));
    assert_eq!(judged(&mut api, &rental), None);
    let report = api.operator().get(&format!("{}/report", path(&rental))).await;
    assert_eq!((&must(&report)["used"], &report.json["devices"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn an_active_rental_takes_no_device_that_is_not_ready() {
    let api = shop().await;
    let rental = begun(&api, "cam-1").await;
    let swap = async || api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await;
    let refused = async |says: &str| {
        let refused = swap().await;
        assert_eq!((refused.status, refused.code()), (409, "device_not_ready"), "{}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
        assert_eq!(shown(&api, &rental).await["version"], rental["version"], "nothing was written");
    };
    broken(&api, "cam-2").await;
    refused("no battery").await;
    let cleaned =
        json!({ "rentable": true, "ready": true, "cleaning_command": "wipe", "ssh_account": "renter" });
    renting(&api, "cam-2", cleaned).await;
    let former = rented(&api, item("cam-2", 5 * HOUR, 6 * HOUR)).await;
    let former = text(&former["id"]);
    for (left, says) in [
        (
            "insert into device_ssh_access (device, rental)
             select device, id from rentals where from_at = (select max(from_at) from rentals)",
            "the access of",
        ),
        (
            "insert into device_ssh_access (device, used_by)
             select device, id from rentals where from_at = (select max(from_at) from rentals)",
            "not cleaned after",
        ),
    ] {
        run(&api.state.store, left, &[]).await;
        refused(&format!("{says} {former}")).await;
        run(&api.state.store, "delete from device_ssh_access", &[]).await;
    }
    assert_eq!(must(&swap().await)["state"], json!("active"));
}

#[tokio::test]
async fn a_rental_that_is_delayed_to_its_end_has_failed() {
    let api = shop().await;
    broken(&api, "cam-1").await;
    let rental = begun(&api, "cam-1").await;
    let past = "update rentals set from_at = 1000, until_at = 2000, prepared_from = 1000";
    run(&api.state.store, past, &[]).await;
    let over = shown(&api, &rental).await;
    assert_eq!((&over["state"], &over["end_reason"]), (&json!("failed"), &json!("failed")));
    assert_eq!((&over["ended_at"], over["delayed"].is_null()), (&over["until"], true));
    let listed = api.operator().get("/api/v1/rentals?state=failed").await;
    assert_eq!(must(&listed)["items"][0]["id"], rental["id"]);
    let late = hand_over(&api, &rental, forced()).await;
    assert_eq!((late.status, late.code()), (409, "rental_over"), "{}", late.text);
    handed_over(&api, &rental).await;
    assert_eq!(shown(&api, &rental).await["state"], json!("failed"), "it stays so");
}

#[tokio::test]
async fn a_rental_that_is_confirmed_after_its_begin_awaits_what_its_device_needs_by_then() {
    let mut api = shop().await;
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "hold_until": hence(600),
        "items": [{ "device": "cam-1", "until": hence(HOUR) }] });
    let rental = must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone();
    broken(&api, "cam-1").await;
    must(&api.operator().patch("/api/v1/bookings/o1", json!({ "hold_until": null })).await);
    assert_eq!(shown(&api, &rental).await["state"], json!("delayed"));
    assert!(gate(&mut api, &rental).unwrap().awaits_handover);
}

#[tokio::test]
async fn the_monitor_hears_of_a_gate_whose_reading_failed_twice() {
    let mut api = shop().await;
    broken(&api, "cam-1").await;
    api.state.handle.fail(2);
    let rental = begun(&api, "cam-1").await;
    assert_eq!(judged(&mut api, &rental), None);
    assert!(!api.state.handle.repeat().await && api.state.handle.is_behind());
    assert!(api.state.handle.repeat().await && !api.state.handle.is_behind());
    assert!(!judged(&mut api, &rental).unwrap().is_ready);
}

#[tokio::test]
async fn explain_says_why_a_rental_is_delayed_or_blocked() {
    let mut api = shop().await;
    api.start_tunnel().await;
    renter(&api, "crm-17", "laptop").await;
    broken(&api, "cam-1").await;
    let rental = begun(&api, "cam-1").await;
    let to = text(&rental["id"]);
    let delayed = explained(&api, "laptop", to, "&port=22").await;
    assert_eq!((&delayed["result"], &delayed["permitted"]), (&json!("delayed"), &json!(false)));
    assert!(text(&delayed["text"]).contains("delayed: cam-1 is not ready: no battery"), "{delayed}");
    must(&hand_over(&api, &rental, forced()).await);
    assert_eq!(explained(&api, "laptop", to, "&port=22").await["result"], json!("permitted"));
    let block = json!({ "reason": "a recall", "force": true });
    must(&api.operator().post("/api/v1/devices/cam-1/blocks", block).await);
    assert_eq!(explained(&api, "laptop", to, "&port=22").await["result"], json!("blocked"));
}

#[tokio::test]
async fn a_handover_of_the_monitor_is_stored_and_its_grant_is_loaded_again() {
    let mut api = shop().await;
    broken(&api, "cam-1").await;
    let rental = begun(&api, "cam-1").await;
    assert!(gate(&mut api, &rental).unwrap().awaits_handover);
    let (mut tasks, state) = (JoinSet::new(), &api.state);
    let (store, live, handle) = (state.store.clone(), state.live.clone(), state.handle.clone());
    let log = HandoverLog::start(&mut tasks, store, live, handle, state.rental_events.clone());
    let (of, host) = (id(IdKind::Rental, &rental["id"]), id(IdKind::Host, &rental["device"]));
    log.add(HandoverStep::HandedOver(HandedOver { rental: of, host, at: crate::clock::wall() }));
    let mut loaded = None;
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        loaded = gate(&mut api, &rental).or(loaded);
        if loaded.is_some() {
            break;
        }
    }
    let loaded = loaded.expect("the tunnel was told");
    assert!(!loaded.awaits_handover && loaded.handed_over_at.is_some(), "{loaded:?}");
    drop(log);
    while tasks.join_next().await.is_some() {}
    assert_eq!(shown(&api, &rental).await["state"], json!("active"));
    let event = api.operator().get("/api/v1/events?kind=rental.handed_over").await;
    assert_eq!(must(&event)["items"][0]["data"]["id"], rental["id"]);
}

/// Reads until something holds of the answer.
async fn comes_true(site: &Site, path: &str, is_so: impl Fn(&Value) -> bool) {
    for _ in 0..2_000 {
        if is_so(&site.call("GET", path, Value::Null).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}", site.call("GET", path, Value::Null).await);
}

#[tokio::test]
async fn a_gate_opens_on_time_without_the_database_and_is_stored_once_that_is_back() {
    let site = Site::new().await;
    site.call("DELETE", "/hosts/nas-07", Value::Null).await;
    let service = json!({ "check": { "type": "passive" } });
    site.call("PUT", "/hosts/cam-07/services/lens", service).await;
    let gated = json!({ "rentable": true, "gate": { "services": ["lens"], "ok_for_s": 0.0 } });
    site.call("PUT", "/devices/cam-07/rental-settings", gated).await;
    for of in ["cam-07", "cam-07/services/lens"] {
        let fine = json!({ "exit_status": 0, "output": "fine" });
        site.call("POST", &format!("/hosts/{of}/results"), fine).await;
    }
    site.call("POST", "/customers", json!({ "external_ref": "crm-17" })).await;
    let person = site.call("POST", "/people", json!({ "customer": "crm-17", "name": "Eva" })).await;
    let laptop = json!({ "person": person["id"], "name": "laptop" });
    let laptop = site.call("POST", "/renters", laptop).await["renter"]["id"].clone();
    let item = json!({ "device": "cam-07", "from": hence(6), "until": hence(HOUR) });
    let booked = site.call("POST", "/bookings", json!({ "customer": "crm-17", "items": [item] })).await;
    let rental = text(&booked["rentals"][0]["id"]);
    let explained = format!("/explain?from={}&to={rental}&protocol=tcp&port=80", text(&laptop));
    let rental = format!("/rentals/{rental}");

    let locked = site.server().state.store.begin().await.unwrap();
    assert_eq!(site.call("GET", &explained, Value::Null).await["permitted"], false);
    comes_true(&site, &explained, |answer| answer["permitted"] == true).await;
    assert_eq!(site.call("GET", &rental, Value::Null).await["awaits_handover"], true, "it is not stored");
    drop(locked);
    comes_true(&site, &rental, |shown| shown["awaits_handover"] == false).await;
    assert_eq!(site.call("GET", &explained, Value::Null).await["permitted"], true);
}

/// Lets the begin of all rentals be a minute longer ago.
async fn a_minute_passes(api: &TestApi) {
    let passed = "update rentals set from_at = from_at - 61000, prepared_from = prepared_from - 61000,
                                     other_device_at = other_device_at - 61000";
    run(&api.state.store, passed, &[]).await;
}

/// Lets the gateway look, and returns the device that a rental has then.
async fn device_after_a_look(api: &TestApi, rental: &Value) -> String {
    crate::api::rentals::swap_delayed(api.state.clone()).await.unwrap();
    text(&shown(api, rental).await["device_name"]).to_owned()
}

#[tokio::test]
async fn a_rental_that_is_delayed_for_too_long_gets_another_device_of_its_selection() {
    let api = shop().await;
    let ready = json!({ "rentable": true, "ready": true });
    broken(&api, "cam-1").await;
    let any = json!({ "labels": { "kind": "cam" }, "until": hence(HOUR), "other_device_after_s": 60 });
    let rental = rented(&api, any).await;
    assert_eq!((&rental["device_name"], &rental["state"]), (&json!("cam-1"), &json!("delayed")));
    assert_eq!(
        (&rental["labels"], &rental["other_device_after_s"]),
        (&json!({ "kind": "cam" }), &json!(60.0))
    );
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "it is not delayed for long enough");
    a_minute_passes(&api).await;
    broken(&api, "cam-2").await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "no other is ready");
    renting(&api, "cam-2", json!({ "rentable": true, "ready": true, "gate": {} })).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "the gate of the other is shut");
    assert_eq!(shown(&api, &rental).await["version"], rental["version"]);
    renting(&api, "cam-2", json!({ "rentable": true, "without": ["gate"] })).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-2");
    let swapped = shown(&api, &rental).await;
    assert_eq!((&swapped["name"], &swapped["version"]), (&rental["name"], &json!(2)));
    assert_eq!(kinds(&api).await.last().map(String::as_str), Some("rental.swapped"));
    let report = api.operator().get(&format!("{}/report", path(&rental))).await;
    let change = &must(&report)["changes"][1];
    assert_eq!((&change["author"], &change["changed"]), (&json!("system"), &json!(["device"])));

    broken(&api, "cam-2").await;
    renting(&api, "cam-1", ready).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-2", "one swap in this time");
    a_minute_passes(&api).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1");
    must(&api.operator().patch(&path(&rental), json!({ "other_device_after_s": null })).await);
    broken(&api, "cam-1").await;
    renting(&api, "cam-2", json!({ "rentable": true, "ready": true })).await;
    a_minute_passes(&api).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "it waits for its device");
}

#[tokio::test]
async fn only_a_device_that_can_be_handed_over_at_once_replaces_another() {
    let api = shop().await;
    broken(&api, "cam-1").await;
    let any = json!({ "labels": { "kind": "cam" }, "until": hence(HOUR), "other_device_after_s": 60 });
    let rental = rented(&api, any).await;
    rented(&api, item("cam-2", 5 * HOUR, 6 * HOUR)).await;
    a_minute_passes(&api).await;
    renting(&api, "cam-2", json!({ "rentable": true, "delivery": "shipped" })).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "the other would have to be sent");
    let cleaned = json!({ "rentable": true, "delivery": "mounted", "cleaning_command": "wipe" });
    renting(&api, "cam-2", cleaned).await;
    let used = "insert into device_ssh_access (device, used_by)
                select h.id, r.id from hosts h join rentals r on r.device = h.id where h.name = 'cam-2'";
    run(&api.state.store, used, &[]).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "the other is not cleaned");
    run(&api.state.store, "delete from device_ssh_access", &[]).await;
    run(&api.state.store, "update rentals set ssh = 1", &[]).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "the other has no account for renters");
    run(&api.state.store, "update rentals set ssh = 0", &[]).await;
    run(&api.state.store, "update rentals set shipped = 1, dispatched_at = from_at", &[]).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1", "its device is on the way");
    run(&api.state.store, "update rentals set shipped = 0, dispatched_at = null", &[]).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-2");
}

#[tokio::test]
async fn a_device_that_is_occupied_replaces_no_other_and_one_that_was_given_is_not_replaced() {
    let api = shop().await;
    broken(&api, "cam-1").await;
    let any = json!({ "labels": { "kind": "cam" }, "until": hence(HOUR), "other_device_after_s": 60 });
    let rental = rented(&api, any).await;
    let given = begun(&api, "cam-2").await;
    a_minute_passes(&api).await;
    assert_eq!(device_after_a_look(&api, &rental).await, "cam-1");
    assert_eq!(given["labels"], Value::Null);
    let later = json!({ "other_device_after_s": 60 });
    let refused = api.operator().patch(&path(&given), later.clone()).await;
    assert_eq!(field(&refused), (422, "other_device_after_s"), "{}", refused.text);
    for (bad, of) in [(60, json!({ "device": "cam-1" })), (5, json!({ "labels": { "kind": "cam" } }))] {
        let mut item =
            json!({ "from": hence(9 * HOUR), "until": hence(10 * HOUR), "other_device_after_s": bad });
        item.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        let refused = super::rentals::book(&api, json!([item])).await;
        assert_eq!(field(&refused), (422, "items[0].other_device_after_s"), "{}", refused.text);
    }
}
