//! Customers, bookings and rentals: what is booked, refused, changed and given back.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::api::request::ids;
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, Caller, TestApi};
use crate::store::access::Role;
use crate::store::fixture;

/// A time this many seconds ahead.
pub(super) fn hence(seconds: u64) -> String {
    ids::time(crate::clock::wall() + Duration::from_secs(seconds))
}

pub(super) const HOUR: u64 = 3_600;

pub(super) fn must(answer: &Answer) -> &Value {
    assert!(answer.status < 300, "{}", answer.text);
    &answer.json
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text is expected: {value}"))
}

pub(super) fn field(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.json["errors"][0]["field"].as_str().unwrap_or_default())
}

/// A gateway with two rentable devices and a customer.
pub(super) async fn shop() -> TestApi {
    let api = TestApi::with_endpoint().await;
    for name in ["cam-1", "cam-2"] {
        device(&api, name).await;
    }
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-17" })).await);
    api
}

pub(super) async fn device(api: &TestApi, name: &str) {
    let device = json!({ "name": name, "labels": { "kind": "cam", "name": name } });
    must(&api.operator().post("/api/v1/devices", device).await);
    // No monitor judges a gate in these tests. It stays its own, whatever else is set.
    renting(api, name, json!({ "rentable": true, "without": ["gate"] })).await;
}

pub(super) async fn renting(api: &TestApi, name: &str, settings: Value) {
    must(&api.operator().put(&format!("/api/v1/devices/{name}/rental-settings"), settings).await);
}

pub(super) fn item(device: &str, from: u64, until: u64) -> Value {
    json!({ "device": device, "from": hence(from), "until": hence(until) })
}

pub(super) async fn book(api: &TestApi, items: Value) -> Answer {
    api.operator().post("/api/v1/bookings", json!({ "customer": "crm-17", "items": items })).await
}

/// Books one device and returns the rental.
pub(super) async fn rented(api: &TestApi, item: Value) -> Value {
    must(&book(api, json!([item])).await)["rentals"][0].clone()
}

pub(super) fn path(rental: &Value) -> String {
    format!("/api/v1/rentals/{}", text(&rental["id"]))
}

async fn state(api: &TestApi, rental: &Value) -> String {
    text(&must(&api.operator().get(&path(rental)).await)["state"]).to_owned()
}

#[tokio::test]
async fn every_field_of_a_booking_has_its_effect() {
    let api = shop().await;
    let booking = json!({
        "customer": "crm-17", "external_ref": "order/1", "items": [item("cam-1", HOUR, 2 * HOUR)],
        "hold_until": hence(600), "time_zone": "Europe/Vienna", "notes": "at the gate",
        "metadata": { "Shop": "Linz" },
    });
    let mut dry = booking.clone();
    dry["dry_run"] = json!(true);
    let plan = api.operator().post("/api/v1/bookings", dry).await;
    assert_eq!(
        (plan.status, &plan.json["rentals"][0]["device_name"]),
        (200, &json!("cam-1")),
        "{}",
        plan.text
    );
    assert_eq!(must(&api.operator().get("/api/v1/bookings").await)["items"], json!([]), "nothing is booked");
    let made = api.operator().post("/api/v1/bookings", booking.clone()).await;
    assert_eq!((made.status, &made.headers["etag"]), (201, &"\"1\"".parse().unwrap()), "{}", made.text);
    let shown = api.operator().get("/api/v1/bookings/order%2F1").await;
    assert_eq!(shown.json, made.json);
    assert_eq!(
        (&shown.json["notes"], &shown.json["metadata"]["Shop"]),
        (&json!("at the gate"), &json!("Linz"))
    );
    let rental = &made.json["rentals"][0];
    assert_eq!((&rental["state"], &rental["external_ref"]), (&json!("held"), &json!("order/1")));
    assert_eq!((&rental["time_zone"], &rental["version"]), (&json!("Europe/Vienna"), &json!(1)));
    let again = api.operator().post("/api/v1/bookings", booking.clone()).await;
    assert_eq!((again.status, again.code()), (409, "external_ref_taken"), "{}", again.text);
    assert!(again.text.contains(text(&made.json["id"])), "{}", again.text);
    for filter in ["external_ref=order%2F1", "device=cam-1", "customer=crm-17", "state=held"] {
        let found = api.operator().get(&format!("/api/v1/rentals?{filter}")).await;
        assert_eq!(must(&found)["items"], json!([rental]), "{filter}");
    }
    for filter in ["external_ref=order", "device=cam-2", "state=active"] {
        let found = api.operator().get(&format!("/api/v1/rentals?{filter}")).await;
        assert_eq!(must(&found)["items"], json!([]), "{filter}");
    }
    let (from, until) = (text(&rental["from"]), text(&rental["until"]));
    for (filter, count) in
        [(format!("from={from}&to={until}"), 1), (format!("from={until}"), 0), (format!("to={from}"), 0)]
    {
        let found = api.operator().get(&format!("/api/v1/rentals?{filter}")).await;
        assert_eq!(must(&found)["items"].as_array().unwrap().len(), count, "{filter}");
    }
    let wrong = api.operator().get("/api/v1/rentals?state=gone").await;
    assert_eq!((wrong.status, wrong.code()), (400, "bad_query"), "{}", wrong.text);
}

#[tokio::test]
async fn what_is_wrong_with_a_booking_is_named_with_its_field() {
    let api = shop().await;
    let table = [
        ("items[0].until", json!({ "device": "cam-1", "until": "2034-01-01T00:00:00" })),
        ("items[0].from", json!({ "device": "cam-1", "from": "2034-01-01", "until": hence(9) })),
        ("items[0].from", json!({ "device": "cam-1", "from": "2020-01-01T00:00:00Z", "until": hence(9) })),
        ("items[0].until", json!({ "device": "cam-1", "from": hence(99), "until": hence(9) })),
        ("items[0].until", json!({ "device": "cam-1", "until": "2020-01-01T00:00:00Z" })),
        ("items[0].until", json!({ "device": "cam-1", "until": hence(100 * 366 * 86_400) })),
        (
            "items[0].from",
            json!({ "device": "cam-1", "from": hence(50 * 366 * 86_400), "until": "2100-01-01T00:00:00Z" }),
        ),
        ("items[0]", json!({ "until": hence(9) })),
        ("items[0]", json!({ "device": "cam-1", "labels": { "kind": "cam" }, "until": hence(9) })),
        ("items[0].device", json!({ "device": "cam-9", "until": hence(9) })),
        ("items[0].labels", json!({ "labels": { "kind": "nas" }, "until": hence(9) })),
        ("items[0].labels", json!({ "labels": { "K I": "nas" }, "until": hence(9) })),
    ];
    for (name, item) in table {
        let refused = book(&api, json!([item])).await;
        assert_eq!(field(&refused), (422, name), "{item}: {}", refused.text);
    }
    for (name, value) in [
        ("items", json!([])),
        ("items", Value::Array(vec![item("cam-1", 9, 99); 51])),
        ("customer", json!("crm-99")),
        ("external_ref", json!("a b")),
        ("hold_until", json!("2020-01-01T00:00:00Z")),
        ("hold_until", json!(hence(40 * 86_400))),
        ("time_zone", json!("Vienna")),
        ("notes", json!("\u{7}")),
        ("metadata", json!({ "": "x" })),
    ] {
        let mut body = json!({ "customer": "crm-17", "items": [item("cam-1", 9, 99)] });
        body[name] = value;
        let refused = api.operator().post("/api/v1/bookings", body).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    assert_eq!(must(&api.operator().get("/api/v1/bookings").await)["items"], json!([]));
}

#[tokio::test]
async fn only_rentable_devices_are_booked() {
    let api = shop().await;
    must(
        &api.operator()
            .post("/api/v1/devices", json!({ "name": "cam-3", "networks": ["192.168.1.0/24"] }))
            .await,
    );
    let path = "/api/v1/devices/cam-3/rental-settings";
    let before = api.viewer().get(path).await;
    assert_eq!(
        (&before.json["rentable"], &before.headers["etag"]),
        (&json!(false), &"\"0\"".parse().unwrap())
    );
    assert_eq!(book(&api, json!([item("cam-3", 9, 99)])).await.code(), "not_rentable");
    let settings = json!({ "rentable": true, "preparation_s": 600, "turnaround_s": 0.5 });
    let stale = api.operator().header("if-match", "\"1\"").put(path, settings.clone()).await;
    assert_eq!(stale.code(), "changed_meanwhile");
    let set = api.operator().header("if-match", "\"0\"").put(path, settings.clone()).await;
    assert_eq!((set.status, &set.json["version"]), (200, &json!(1)), "{}", set.text);
    assert_eq!(
        api.operator().put(path, settings.clone()).await.json["version"],
        1,
        "the same changes nothing"
    );
    assert_eq!(must(&api.viewer().get(path).await)["preparation_s"], 600.0);
    let host = json!({ "name": "nas", "via": "cam-3", "address": "192.168.1.5" });
    must(&api.operator().post("/api/v1/hosts", host).await);
    assert_eq!(book(&api, json!([item("cam-3", 9, 99)])).await.code(), "not_rentable", "a host is behind it");
    let refused = api.operator().put(path, settings).await;
    assert_eq!((refused.status, refused.code()), (409, "not_rentable"), "{}", refused.text);
    let public = json!({ "name": "pub", "tunnel": false, "direct_address": "192.0.2.9" });
    must(&api.operator().post("/api/v1/devices", public).await);
    let refused =
        api.operator().put("/api/v1/devices/pub/rental-settings", json!({ "rentable": true })).await;
    assert_eq!((refused.status, refused.code()), (409, "not_rentable"), "{}", refused.text);
    let wrong = api.operator().put(path, json!({ "rentable": false, "turnaround_s": -1 })).await;
    assert_eq!(field(&wrong), (422, "turnaround_s"));
}

#[tokio::test]
async fn a_conflict_names_the_device_its_times_and_the_next_window_but_no_customer() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "preparation_s": 600, "turnaround_s": 1_200 })).await;
    let first = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let refused = book(&api, json!([item("cam-2", HOUR, 2 * HOUR), item("cam-1", HOUR, 2 * HOUR)])).await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
    let conflict = &refused.json["conflict"];
    assert_eq!((&conflict["item"], &conflict["device_name"]), (&json!(1), &json!("cam-1")));
    assert_eq!(
        (&conflict["from"], &conflict["until"]),
        (&first["occupied_from"], &first["occupied_until"]),
        "{}",
        refused.text
    );
    // The preparation of the next one begins after the turnaround.
    let at = |value: &Value| text(value).parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(at(&conflict["next_free"]["from"]), at(&first["until"]) + 1_200 + 600);
    assert!(!refused.text.contains("crm-17") && !refused.text.contains("k_"), "{}", refused.text);
    let rentals = must(&api.operator().get("/api/v1/rentals").await)["items"].clone();
    assert_eq!(rentals.as_array().unwrap().len(), 1, "all or none");
    let next = json!([{ "device": "cam-1", "from": conflict["next_free"]["from"], "until": conflict["next_free"]["until"] }]);
    must(&book(&api, next).await);
}

#[tokio::test]
async fn labels_choose_any_free_device_and_given_ones_come_first() {
    let api = shop().await;
    let (from, until) = (hence(HOUR), hence(2 * HOUR));
    let any = |until: &str| json!({ "labels": { "kind": "cam" }, "from": from, "until": until });
    let given = json!({ "device": "cam-1", "from": from, "until": until });
    let made = book(&api, json!([any(&until), given])).await;
    let names: Vec<&Value> =
        must(&made)["rentals"].as_array().unwrap().iter().map(|r| &r["device_name"]).collect();
    assert_eq!(names, ["cam-2", "cam-1"], "in the order of the items");
    let refused = book(&api, json!([any(&hence(3 * HOUR))])).await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
    let conflict = &refused.json["conflict"];
    assert_eq!((&conflict["device"], &conflict["next_free"]["device_name"]), (&Value::Null, &json!("cam-1")));
    let [second, first] = [0, 1].map(|n| &made.json["rentals"][n]);
    let occupied = [first, second].map(|rental| {
        json!({ "device": rental["device"], "device_name": rental["device_name"],
                "from": rental["occupied_from"], "until": rental["occupied_until"] })
    });
    assert_eq!((&conflict["devices"], &conflict["devices_left_out"]), (&json!(occupied), &json!(0)));
    assert!(!refused.text.contains("crm-17") && !refused.text.contains("k_"), "{}", refused.text);
    let tried = json!({ "customer": "crm-17", "items": [any(&hence(3 * HOUR))], "dry_run": true });
    let tried = api.operator().post("/api/v1/bookings", tried).await;
    assert_eq!((tried.status, &tried.json["conflict"]["devices"]), (409, &json!(occupied)), "{}", tried.text);
    let none = book(&api, json!([{ "labels": { "kind": "cam", "name": "x" }, "until": hence(9) }])).await;
    assert_eq!(field(&none), (422, "items[0].labels"));
}

#[tokio::test]
async fn a_refused_selection_names_its_first_devices_and_counts_the_others() {
    let api = shop().await;
    let mut expected = vec!["cam-1".to_owned(), "cam-2".to_owned()];
    for n in 3..=12 {
        expected.push(format!("cam-{n}"));
        device(&api, &format!("cam-{n}")).await;
    }
    expected.sort();
    let any = json!({ "labels": { "kind": "cam" }, "from": hence(HOUR), "until": hence(2 * HOUR) });
    must(&book(&api, json!(vec![any.clone(); 12])).await);
    let refused = book(&api, json!([any])).await;
    let conflict = &refused.json["conflict"];
    let names: Vec<&str> =
        conflict["devices"].as_array().unwrap().iter().map(|device| text(&device["device_name"])).collect();
    assert_eq!(names, &expected[..10]);
    assert_eq!(conflict["devices_left_out"], 2);
}

#[tokio::test]
async fn a_profile_chooses_among_its_own_devices() {
    let api = shop().await;
    let camera = "update hosts set profile = 'camera' where name = 'cam-2'";
    fixture::run(&api.state.store, camera, &[]).await;
    let any = |more: Value| {
        let mut item = json!({ "from": hence(HOUR), "until": hence(2 * HOUR) });
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let query = format!("from={}&to={}&profile=camera", hence(HOUR), hence(2 * HOUR));
    let free = async || {
        let shown = api.operator().get(&format!("/api/v1/rentals/availability?{query}")).await;
        (must(&shown)["devices"].clone(), shown.json["free"].clone())
    };
    assert_eq!(free().await, (json!(1), json!(1)));
    let made = book(&api, json!([any(json!({ "profile": "camera" }))])).await;
    let rental = &must(&made)["rentals"][0];
    assert_eq!((&rental["device_name"], &rental["profile"]), (&json!("cam-2"), &json!("camera")));
    assert_eq!(free().await, (json!(1), json!(0)));
    let again = json!([any(json!({ "profile": "camera", "labels": { "kind": "cam" } }))]);
    assert_eq!(book(&api, again).await.code(), "occupied", "the other device has another profile");
    for (name, more) in [
        ("items[0].profile", json!({ "profile": "nas" })),
        ("items[0].labels", json!({ "profile": "camera", "labels": { "kind": "nas" } })),
        ("items[0]", json!({ "profile": "camera", "device": "cam-2" })),
    ] {
        let refused = book(&api, json!([any(more)])).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_profile_that_rules_give_chooses_too() {
    let api = shop().await;
    let rules = json!({ "rules": [{ "labels": { "kind": "cam" }, "profile": "timelapse-camera" }] });
    must(&api.operator().put("/api/v1/profile-rules", rules).await);
    let its_own = api.operator().patch("/api/v1/devices/cam-1", json!({ "profile": "linux" })).await;
    must(&its_own);
    let item = json!({ "profile": "timelapse-camera", "from": hence(HOUR), "until": hence(2 * HOUR) });
    let made = book(&api, json!([item])).await;
    assert_eq!(must(&made)["rentals"][0]["device_name"], json!("cam-2"));
    assert_eq!(book(&api, json!([item])).await.code(), "occupied", "cam-1 has another one of its own");
}

#[tokio::test]
async fn of_fifty_bookings_of_one_device_one_wins() {
    let api = shop().await;
    let body = json!({ "customer": "crm-17", "items": [item("cam-1", HOUR, 2 * HOUR)] });
    let calls = (0..50).map(|_| async { api.operator().post("/api/v1/bookings", body.clone()).await });
    let answers = join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    let codes: Vec<&str> = answers.iter().filter(|a| a.status != 201).map(Answer::code).collect();
    assert_eq!(won, 1, "{codes:?}");
    assert!(codes.iter().all(|code| *code == "occupied"), "{codes:?}");
}

#[tokio::test]
async fn a_repeated_booking_has_one_effect_and_a_refused_one_leaves_its_key() {
    let api = shop().await;
    let caller = api.operator().header("idempotency-key", "order-1");
    let mut of = item("cam-1", HOUR, 2 * HOUR);
    of["name"] = json!("zora");
    let body = json!({ "customer": "crm-17", "external_ref": "zora-1", "items": [of], "notes": "n" });
    let first = caller.post("/api/v1/bookings", body.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert!(!fixture::answers(&api.state.store).await.contains("zora"), "stored answers have ids only");
    let second = caller.post("/api/v1/bookings", body.clone()).await;
    assert_eq!((second.status, &second.json["id"]), (201, &first.json["id"]));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.json["notes"], Value::Null, "what the client wrote is kept in one place");
    let references = |of: &Answer| (of.json["external_ref"].clone(), of.json["rentals"][0]["name"].clone());
    assert_eq!(references(&second), (json!("zora-1"), json!("zora")));
    let other = api.operator().header("idempotency-key", "order-2");
    let mut body = body;
    body["external_ref"] = Value::Null;
    body["items"][0].as_object_mut().unwrap().remove("name");
    assert_eq!(other.post("/api/v1/bookings", body.clone()).await.code(), "occupied");
    must(&api.operator().post(&format!("{}/cancel", path(&first.json["rentals"][0])), json!({})).await);
    assert_eq!(other.post("/api/v1/bookings", body).await.status, 201);
}

#[tokio::test]
async fn a_booking_is_confirmed_and_described() {
    let api = shop().await;
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "hold_until": hence(600),
        "items": [{ "device": "cam-1", "until": hence(HOUR) }] });
    let made = must(&api.operator().post("/api/v1/bookings", held).await).clone();
    let booking = "/api/v1/bookings/o1";
    assert_eq!(book(&api, json!([item("cam-1", 9, 99)])).await.code(), "occupied", "a hold occupies");
    let stale =
        api.operator().header("if-match", "\"7\"").patch(booking, json!({ "hold_until": null })).await;
    assert_eq!(stale.code(), "changed_meanwhile");
    let longer = api.operator().patch(booking, json!({ "hold_until": hence(1_200) })).await;
    assert_eq!((longer.status, &longer.json["version"]), (200, &json!(2)), "{}", longer.text);
    let change = json!({ "hold_until": null, "notes": "paid", "time_zone": "Europe/Vienna", "metadata": { "a": "b" } });
    let confirmed = api.operator().patch(booking, change.clone()).await;
    assert_eq!(must(&confirmed)["rentals"][0]["state"], "active", "{}", confirmed.text);
    assert_eq!(
        (&confirmed.json["notes"], &confirmed.json["metadata"]),
        (&json!("paid"), &json!({ "a": "b" }))
    );
    assert_eq!(api.operator().patch(booking, change).await.json["version"], 3, "the same changes nothing");
    let again = api.operator().patch(booking, json!({ "hold_until": hence(99) })).await;
    assert_eq!(field(&again), (422, "hold_until"));
    let log = api.admin().get("/api/v1/audit").await;
    for kind in ["booking.created", "booking.changed", "device.rental_settings_changed", "customer.created"] {
        assert!(log.text.contains(kind), "{kind}: {}", log.text);
    }
    assert!(!log.text.contains("paid") && !log.text.contains("crm-17"), "{}", log.text);
    assert!(log.text.contains(text(&made["id"])));
}

#[tokio::test]
async fn a_hold_that_is_not_confirmed_lapses() {
    let api = shop().await;
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "hold_until": hence(600),
        "items": [item("cam-1", HOUR, 2 * HOUR)] });
    let made = must(&api.operator().post("/api/v1/bookings", held).await).clone();
    fixture::run(&api.state.store, "update bookings set hold_until = hold_until - 700000", &[]).await;
    let rental = &made["rentals"][0];
    let shown = must(&api.operator().get(&path(rental)).await).clone();
    assert_eq!((&shown["state"], &shown["end_reason"]), (&json!("cancelled"), &json!("lapsed")), "{shown}");
    let late = api.operator().patch("/api/v1/bookings/o1", json!({ "hold_until": null })).await;
    assert_eq!((late.status, late.code()), (409, "hold_over"), "{}", late.text);
    let free = api.operator().get(&format!("/api/v1/rentals/availability?to={}", hence(9 * HOUR))).await;
    assert_eq!((&must(&free)["devices"], &free.json["free"]), (&json!(2), &json!(2)));
    must(&book(&api, json!([item("cam-1", HOUR, 2 * HOUR)])).await);
    fixture::run(&api.state.store, "update bookings set hold_until = hold_until + 700000", &[]).await;
    assert_eq!(state(&api, rental).await, "cancelled", "its device is booked by another");
    let events = api.operator().get("/api/v1/events?kind=booking.lapsed").await;
    assert_eq!(must(&events)["items"].as_array().unwrap().len(), 1, "{}", events.text);
}

#[tokio::test]
async fn a_hold_is_over_when_nothing_of_the_booking_is_left() {
    let api = shop().await;
    let confirm = async |reference: &str| {
        api.operator().patch(&format!("/api/v1/bookings/{reference}"), json!({ "hold_until": null })).await
    };
    for (reference, device) in [("late", "cam-1"), ("cancelled", "cam-2")] {
        let held = json!({ "customer": "crm-17", "external_ref": reference, "hold_until": hence(9 * HOUR),
            "items": [{ "device": device, "until": hence(HOUR) }] });
        let made = must(&api.operator().post("/api/v1/bookings", held).await).clone();
        if reference == "cancelled" {
            must(&api.operator().post(&format!("{}/cancel", path(&made["rentals"][0])), json!({})).await);
        }
    }
    // The window is over, and the hold is not.
    let sql = "update rentals set from_at = from_at - 4000000, until_at = until_at - 4000000";
    fixture::run(&api.state.store, sql, &[]).await;
    for reference in ["late", "cancelled"] {
        let refused = confirm(reference).await;
        assert_eq!((refused.status, refused.code()), (409, "hold_over"), "{reference}: {}", refused.text);
    }
    must(&book(&api, json!([item("cam-1", 9, HOUR)])).await);
}

#[tokio::test]
async fn a_full_device_of_a_selection_leaves_the_others() {
    let api = shop().await;
    let block = json!({ "reason": "x", "from": hence(900 * HOUR), "until": hence(901 * HOUR) });
    must(&api.operator().post("/api/v1/devices/cam-1/blocks", block).await);
    let sql = "insert into occupancies (device, block, from_at, until_at)
               with recursive n(i) as (values (1) union all select i + 1 from n where i < 999)
               select o.device, o.block, o.from_at, o.until_at from n, occupancies o where o.block is not null";
    fixture::run(&api.state.store, sql, &[]).await;
    let refused = book(&api, json!([item("cam-1", HOUR, 2 * HOUR)])).await;
    assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{}", refused.text);
    let any = json!([{ "labels": { "kind": "cam" }, "from": hence(HOUR), "until": hence(2 * HOUR) }]);
    let made = book(&api, any.clone()).await;
    assert_eq!(must(&made)["rentals"][0]["device_name"], "cam-2");
    let refused = book(&api, any).await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
}

#[tokio::test]
async fn an_end_is_set_as_a_time_and_never_into_the_next_booking() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "turnaround_s": 600 })).await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let next = rented(&api, item("cam-1", 5 * HOUR, 6 * HOUR)).await;
    let caller = api.operator().header("if-match", "\"1\"");
    let longer = json!({ "until": hence(3 * HOUR) });
    let changed = caller.patch(&path(&rental), longer.clone()).await;
    assert_eq!((changed.status, &changed.json["version"]), (200, &json!(2)), "{}", changed.text);
    assert_eq!(caller.patch(&path(&rental), longer.clone()).await.code(), "changed_meanwhile");
    assert_eq!(api.operator().patch(&path(&rental), longer).await.json["until"], changed.json["until"]);
    let refused = api.operator().patch(&path(&rental), json!({ "until": hence(5 * HOUR) })).await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
    let latest = &refused.json["conflict"]["latest_until"];
    let at = |value: &Value| text(value).parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(at(latest), at(&next["from"]) - 600);
    must(&api.operator().patch(&path(&rental), json!({ "until": latest })).await);
    let shorter = api.operator().patch(&path(&rental), json!({ "until": hence(2 * HOUR) })).await;
    must(&shorter);
    must(&book(&api, json!([item("cam-1", 3 * HOUR, 4 * HOUR)])).await);
    for (until, says) in [
        (hence(HOUR / 2), "a time after from"),
        ("2020-01-01T00:00:00Z".to_owned(), "a time after from"),
        ("2034-01-01T00:00:00".to_owned(), "with an offset"),
        (hence(100 * 366 * 86_400), "at most 10 years"),
    ] {
        let refused = api.operator().patch(&path(&rental), json!({ "until": until })).await;
        assert_eq!(field(&refused), (422, "until"), "{}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_rental_is_cancelled_before_and_ended_after_its_begin() {
    let api = shop().await;
    let planned = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let running = rented(&api, json!({ "device": "cam-2", "until": hence(HOUR) })).await;
    let post = async |rental: &Value, verb: &str, body: Value| {
        api.operator().post(&format!("{}/{verb}", path(rental)), body).await
    };
    let ended = json!({ "reason": "returned_early", "note": "at noon" });
    assert_eq!(post(&planned, "end", ended.clone()).await.code(), "rental_not_begun");
    assert_eq!(post(&running, "cancel", json!({})).await.code(), "rental_begun");
    let cancelled = post(&planned, "cancel", json!({})).await;
    assert_eq!(
        (&must(&cancelled)["state"], &cancelled.json["end_reason"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!(cancelled.json["occupied_until"], Value::Null);
    must(&book(&api, json!([item("cam-1", HOUR, 2 * HOUR)])).await);
    assert_eq!(field(&post(&running, "end", json!({ "reason": "cancelled" })).await), (422, "reason"));
    let done = post(&running, "end", ended.clone()).await;
    assert_eq!((&must(&done)["state"], &done.json["end_note"]), (&json!("closed"), &json!("at noon")));
    for (over, says) in [(&planned, "was cancelled: book again"), (&running, "has ended: book again")] {
        assert_eq!(post(over, "end", ended.clone()).await.code(), "rental_over");
        assert_eq!(post(over, "cancel", json!({})).await.code(), "rental_over");
        let late = api.operator().patch(&path(over), json!({ "until": hence(9 * HOUR) })).await;
        assert_eq!((late.status, late.code()), (409, "rental_over"), "{}", late.text);
        assert!(late.text.contains(says), "{}", late.text);
    }
    let events = api.operator().get("/api/v1/events?kind=rental.ended").await;
    let data = &must(&events)["items"][0]["data"];
    assert_eq!((&data["reason"], &data["id"]), (&json!("returned_early"), &running["id"]));
    assert!(!events.text.contains("at noon"), "{}", events.text);
    assert_eq!(api.operator().get("/api/v1/rentals/l_0000000000007").await.status, 404);
}

#[tokio::test]
async fn a_rental_that_has_begun_ends_with_the_reason_that_is_given() {
    let api = shop().await;
    for reason in ["ended", "returned_early", "no_show", "revoked", "failed"] {
        let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
        let end = format!("{}/end", path(&rental));
        let done = api.operator().post(&end, json!({ "reason": reason })).await;
        assert_eq!(must(&done)["end_reason"], json!(reason));
        let log = api.operator().get("/api/v1/events?kind=rental.ended&limit=1").await;
        assert_eq!(must(&log)["items"][0]["data"]["reason"], json!(reason));
    }
    let running = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let lapsed = api.operator().post(&format!("{}/end", path(&running)), json!({ "reason": "lapsed" })).await;
    assert_eq!(field(&lapsed), (422, "reason"), "{}", lapsed.text);
}

#[tokio::test]
async fn a_swap_frees_one_device_and_takes_another() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "turnaround_s": 1_200 })).await;
    let running = rented(&api, json!({ "device": "cam-1", "until": hence(2 * HOUR) })).await;
    rented(&api, item("cam-2", HOUR, 3 * HOUR)).await;
    let swap = async |rental: &Value, device: &str| {
        api.operator().patch(&path(rental), json!({ "device": device })).await
    };
    let refused = swap(&running, "cam-2").await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
    device(&api, "cam-3").await;
    let swapped = swap(&running, "cam-3").await;
    assert_eq!((&must(&swapped)["device_name"], &swapped.json["state"]), (&json!("cam-3"), &json!("active")));
    assert_eq!((&swapped.json["from"], &swapped.json["id"]), (&running["from"], &running["id"]));
    let cleaning = book(&api, json!([{ "device": "cam-1", "until": hence(HOUR) }])).await;
    assert_eq!(cleaning.code(), "occupied", "cam-1 needs its turnaround: {}", cleaning.text);
    must(&book(&api, json!([item("cam-1", 1_300, HOUR)])).await);
    assert_eq!(book(&api, json!([item("cam-3", 9, 99)])).await.code(), "occupied");
    let planned = rented(&api, item("cam-1", 5 * HOUR, 6 * HOUR)).await;
    must(&swap(&planned, "cam-2").await);
    must(&book(&api, json!([item("cam-1", 5 * HOUR, 6 * HOUR)])).await);
    assert_eq!(field(&swap(&planned, "cam-9").await), (422, "device"));
    let both =
        api.operator().patch(&path(&planned), json!({ "device": "cam-3", "until": hence(7 * HOUR) })).await;
    assert_eq!(must(&both)["version"], 3, "{}", both.text);
}

#[tokio::test]
async fn a_block_keeps_a_device() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let blocks = "/api/v1/devices/cam-1/blocks";
    let block = json!({ "reason": "battery", "from": hence(HOUR / 2), "until": hence(3 * HOUR) });
    let refused = api.operator().post(blocks, block.clone()).await;
    assert_eq!((refused.status, refused.code()), (409, "rentals_covered"), "{}", refused.text);
    assert_eq!(refused.json["rentals"], json!([rental["id"]]));
    let mut forced = block.clone();
    forced["force"] = json!(true);
    let made = api.operator().post(blocks, forced).await;
    assert_eq!((made.status, &made.json["rentals"]), (201, &json!([rental["id"]])), "{}", made.text);
    assert_eq!(state(&api, &rental).await, "booked", "it stays as it is");
    let event =
        must(&api.operator().get("/api/v1/events?kind=device.blocked").await)["items"][0]["data"].clone();
    assert_eq!((&event["rentals"], &event["covered"]), (&json!([rental["id"]]), &json!(1)));
    assert_eq!(book(&api, json!([item("cam-1", 2 * HOUR, 3 * HOUR)])).await.code(), "occupied");
    let open = api.operator().post(blocks, json!({ "reason": "lost", "from": hence(9 * HOUR) })).await;
    assert_eq!(must(&open)["until"], Value::Null);
    let never = book(&api, json!([item("cam-1", 10 * HOUR, 11 * HOUR)])).await;
    assert_eq!(
        (never.code(), &never.json["conflict"]["next_free"]),
        ("occupied", &Value::Null),
        "{}",
        never.text
    );
    for (name, body) in [
        ("reason", json!({ "reason": " " })),
        ("until", json!({ "reason": "x", "from": hence(99), "until": hence(9) })),
        ("from", json!({ "reason": "x", "from": "2020-01-01T00:00:00Z" })),
    ] {
        assert_eq!(field(&api.operator().post(blocks, body).await), (422, name));
    }
    for block in [&made, &open] {
        let one = format!("{blocks}/{}", text(&block.json["id"]));
        assert_eq!(api.operator().delete(&one).await.status, 204);
        assert_eq!(api.operator().delete(&one).await.status, 204, "once more");
        let elsewhere = one.replace("cam-1", "cam-2");
        assert_eq!(api.operator().delete(&elsewhere).await.status, 404);
    }
    must(&book(&api, json!([item("cam-1", 10 * HOUR, 11 * HOUR)])).await);
    let listed = must(&api.viewer().get(blocks).await)["items"].clone();
    assert!(listed.as_array().unwrap().iter().all(|block| block["ended_by"].is_string()), "{listed}");
}

#[tokio::test]
async fn a_customer_is_changed_and_erased() {
    let api = shop().await;
    let ada = json!({ "external_ref": "crm-18", "name": "Ada Lovelace",
        "contacts": [{ "name": "Ada", "email": "ada@example.org" }] });
    let caller = api.operator().header("idempotency-key", "k");
    let made = caller.post("/api/v1/customers", ada.clone()).await;
    assert_eq!((made.status, &made.headers["etag"]), (201, &"\"1\"".parse().unwrap()), "{}", made.text);
    let id = text(&made.json["id"]).to_owned();
    let one = format!("/api/v1/customers/{id}");
    let taken = api.operator().post("/api/v1/customers", ada).await;
    assert_eq!((taken.status, taken.code()), (409, "external_ref_taken"));
    for (name, value) in [
        ("external_ref", json!("")),
        ("name", json!("a\nb")),
        ("contacts", json!([{ "name": "Ada" }])),
        ("contacts", json!([{ "email": "ada" }])),
        ("contacts", Value::Array(vec![json!({ "phone": "1" }); 17])),
    ] {
        let refused = api.operator().patch(&one, json!({ name: value })).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    let stale = api.operator().header("if-match", "\"2\"").patch(&one, json!({ "name": "x" })).await;
    assert_eq!(stale.code(), "changed_meanwhile");
    let change = json!({ "name": "Ada King", "external_ref": "crm-19", "contacts": [{ "phone": "+43 1" }] });
    let changed = api.operator().patch(&one, change).await;
    assert_eq!(
        (&must(&changed)["version"], &changed.json["contacts"][0]["phone"]),
        (&json!(2), &json!("+43 1"))
    );
    let booking = json!({ "customer": "crm-19", "items": [item("cam-1", HOUR, 2 * HOUR)], "notes": "for Ada",
        "metadata": { "who": "Ada" } });
    let booked = must(&api.operator().post("/api/v1/bookings", booking.clone()).await).clone();
    let refused = api.operator().delete(&one).await;
    assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{}", refused.text);
    assert_eq!(refused.json["rentals"], json!([booked["rentals"][0]["id"]]));
    must(&api.operator().post(&format!("{}/cancel", path(&booked["rentals"][0])), json!({})).await);
    assert_eq!(api.operator().delete(&one).await.status, 204);
    assert_eq!(api.operator().get(&one).await.status, 404);
    assert_eq!(api.operator().get("/api/v1/customers/crm-19").await.status, 404);
    assert_eq!(api.operator().delete(&one).await.status, 404);
    for customer in [id.as_str(), "crm-19"] {
        let mut late = booking.clone();
        late["customer"] = json!(customer);
        assert_eq!(field(&api.operator().post("/api/v1/bookings", late).await), (422, "customer"));
    }
    let left = must(&api.operator().get(&format!("/api/v1/rentals?customer={id}")).await)["items"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1, "the rental stays: {left}");
    let booking = format!("/api/v1/bookings/{}", text(&booked["id"]));
    for (name, value) in [("notes", json!("for Ada")), ("metadata", json!({ "who": "Ada" }))] {
        let refused = api.operator().patch(&booking, json!({ name: value })).await;
        assert_eq!(field(&refused), (422, name), "nothing would erase it: {}", refused.text);
    }
    must(&api.operator().patch(&booking, json!({ "notes": null })).await);
    assert!(!everything(&api).await.contains("Ada"));
}

#[tokio::test]
async fn the_note_of_an_end_is_erased_with_the_customer() {
    let api = shop().await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let caller = api.operator().header("idempotency-key", "end-1");
    let (end, body) = (format!("{}/end", path(&rental)), json!({ "reason": "ended", "note": "for Ada" }));
    let first = caller.post(&end, body.clone()).await;
    assert_eq!((first.status, &first.json["end_note"]), (200, &json!("for Ada")), "{}", first.text);
    let again = caller.post(&end, body).await;
    assert_eq!((again.status, &again.json["end_note"]), (200, &Value::Null), "{}", again.text);
    assert_eq!((&again.json["id"], &again.headers["etag"]), (&rental["id"], &first.headers["etag"]));
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    let left = must(&api.operator().get(&path(&rental)).await).clone();
    assert_eq!((&left["end_note"], &left["version"]), (&Value::Null, &json!(3)), "another version");
    assert!(!everything(&api).await.contains("Ada"));
}

#[tokio::test]
async fn the_reference_of_a_booking_and_the_names_of_its_rentals_are_erased_with_the_customer() {
    let api = shop().await;
    let mut item = item("cam-1", HOUR, 2 * HOUR);
    item["name"] = json!("zora-cam");
    let booking = json!({ "customer": "crm-17", "external_ref": "order-of-zora", "items": [item] });
    let caller = api.operator().header("idempotency-key", "ada-1");
    let made = must(&caller.post("/api/v1/bookings", booking.clone()).await).clone();
    let (rental, id) = (&made["rentals"][0], text(&made["id"]));
    must(&api.operator().post(&format!("{}/cancel", path(rental)), json!({})).await);
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    let left = must(&api.operator().get(&format!("/api/v1/bookings/{id}")).await).clone();
    assert_eq!((&left["external_ref"], &left["version"]), (&Value::Null, &json!(2)));
    let rental = &left["rentals"][0];
    assert!(text(&rental["name"]).starts_with("rental-") && rental["external_ref"].is_null(), "{rental}");
    assert!(!everything(&api).await.contains("zora"), "nothing is left");
    let again = caller.post("/api/v1/bookings", booking).await;
    assert_eq!((again.status, again.code()), (409, "answer_lost"), "{}", again.text);
}

#[tokio::test]
async fn a_late_repetition_does_not_bring_an_erased_customer_back() {
    let api = shop().await;
    let caller = api.operator().header("idempotency-key", "zora-1");
    let customer = json!({ "external_ref": "crm-zora", "name": "Zora" });
    must(&caller.post("/api/v1/customers", customer.clone()).await);
    assert_eq!(api.operator().delete("/api/v1/customers/crm-zora").await.status, 204);
    let again = caller.post("/api/v1/customers", customer).await;
    assert_eq!((again.status, again.code()), (409, "answer_lost"), "{}", again.text);
    assert_eq!(api.operator().get("/api/v1/customers/crm-zora").await.status, 404);
    assert!(!everything(&api).await.to_lowercase().contains("zora"), "nothing is left");
}

#[tokio::test]
async fn a_customer_is_not_erased_before_the_devices_are_back_and_cleaned() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "turnaround_s": 600 })).await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    must(&api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "ended" })).await);
    let refused = async |state: &str, change: &'static str| {
        fixture::run(&api.state.store, change, &[]).await;
        assert_eq!(self::state(&api, &rental).await, state);
        let refused = api.operator().delete("/api/v1/customers/crm-17").await;
        assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{state}: {}", refused.text);
        assert_eq!(refused.json["rentals"], json!([rental["id"]]), "{state}");
    };
    refused("cleaning", "update rentals set end_note = ''").await;
    refused("returning", "update rentals set shipped = 1, dispatched_at = from_at").await;
    refused("overdue", "update rentals set ended_at = ended_at - 700000").await;
    let back = "update rentals set returned_at = ended_at";
    fixture::run(&api.state.store, back, &[]).await;
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
}

#[tokio::test]
async fn no_host_comes_behind_a_rented_device() {
    let api = shop().await;
    let device = json!({ "name": "cam-3", "networks": ["192.168.1.0/24"] });
    must(&api.operator().post("/api/v1/devices", device).await);
    renting(&api, "cam-3", json!({ "rentable": true })).await;
    let rental = rented(&api, item("cam-3", HOUR, 2 * HOUR)).await;
    let host = json!({ "name": "nas", "via": "cam-3", "address": "192.168.1.5" });
    let refused = api.operator().post("/api/v1/hosts", host.clone()).await;
    assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{}", refused.text);
    assert_eq!(refused.json["rentals"], json!([rental["id"]]));
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    must(&api.operator().post("/api/v1/hosts", host).await);
}

#[tokio::test]
async fn the_blocks_of_a_device_end_with_it() {
    let api = shop().await;
    let blocks = "/api/v1/devices/cam-1/blocks";
    must(&api.operator().post(blocks, json!({ "reason": "lost" })).await);
    must(&api.operator().post(blocks, json!({ "reason": "later", "from": hence(HOUR) })).await);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-1").await.status, 204);
    let mut conn = api.state.store.reader().await.unwrap();
    let now = crate::clock::wall() + Duration::from_secs(1);
    assert_eq!(crate::store::rentals::occupancies::count(&mut conn, now).await.unwrap(), 0);
}

/// All text that the database has of rentals, the log and stored answers.
pub(super) async fn everything(api: &TestApi) -> String {
    let mut all = String::new();
    for path in ["customers", "people", "renters", "bookings", "rentals", "events?since=0", "audit"] {
        all += &api.admin().get(&format!("/api/v1/{path}")).await.text;
    }
    all + &fixture::answers(&api.state.store).await
}

#[tokio::test]
async fn a_device_with_open_rentals_stays() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let refused = api.operator().delete("/api/v1/devices/cam-1?cascade=true").await;
    assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{}", refused.text);
    assert_eq!(refused.json["rentals"], json!([rental["id"]]));
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-1").await.status, 204);
    assert_eq!(state(&api, &rental).await, "cancelled", "the rental is kept");
    let listed = api.operator().get("/api/v1/rentals?state=cancelled").await;
    assert_eq!(must(&listed)["items"][0]["device_name"], "cam-1");
}

#[tokio::test]
async fn the_availability_agrees_with_what_can_be_booked() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "preparation_s": 600, "turnaround_s": 1_200 })).await;
    rented(&api, item("cam-1", 2 * HOUR, 3 * HOUR)).await;
    let query = format!("from={}&to={}&label=kind=cam", hence(0), hence(9 * HOUR));
    let shown = api.operator().get(&format!("/api/v1/rentals/availability?{query}")).await;
    assert_eq!((&must(&shown)["devices"], &shown.json["free"]), (&json!(2), &json!(1)), "{}", shown.text);
    let free = shown.json["items"][0]["free"].as_array().unwrap().clone();
    assert_eq!(free.len(), 2, "{}", shown.text);
    for window in &free {
        let item = json!({ "device": "cam-1", "from": hence(5).max(text(&window["from"]).to_owned()), "until": window["until"], });
        let dry = json!({ "customer": "crm-17", "items": [item], "dry_run": true });
        must(&api.operator().post("/api/v1/bookings", dry).await);
    }
    let first = api.operator().get(&format!("/api/v1/rentals/availability?{query}&limit=1")).await;
    let next = text(&must(&first)["next"]);
    let second =
        api.operator().get(&format!("/api/v1/rentals/availability?{query}&limit=1&after={next}")).await;
    assert_eq!(
        (&must(&second)["items"][0]["device_name"], &second.json["next"]),
        (&json!("cam-2"), &Value::Null)
    );
    let both = api.operator().get(&format!("/api/v1/rentals/availability?{query}&label=kind=nas")).await;
    assert_eq!((&must(&both)["devices"], &both.json["items"]), (&json!(0), &json!([])), "{}", both.text);
    for wrong in ["to=2020-01-01T00:00:00Z", "to=2034-01-01T00:00:00", "to=2126-01-01T00:00:00Z", "from=x"] {
        let refused = api.operator().get(&format!("/api/v1/rentals/availability?{wrong}")).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_query"), "{wrong}: {}", refused.text);
    }
}

#[tokio::test]
async fn the_scope_rentals_reaches_rentals_and_nothing_else() {
    let api = shop().await;
    let limited: Caller<'_> = api.limited(Role::Operator, Area::Rentals).await;
    for path in ["customers", "people", "renters", "bookings", "rentals", "rental-events", "subscriptions"] {
        assert_eq!(limited.get(&format!("/api/v1/{path}")).await.status, 200, "{path}");
        assert_eq!(api.viewer().get(&format!("/api/v1/{path}")).await.code(), "role_missing", "{path}");
    }
    let until = hence(HOUR);
    assert_eq!(limited.get(&format!("/api/v1/rentals/availability?to={until}")).await.status, 200);
    let booking = json!({ "customer": "crm-17", "items": [{ "device": "cam-1", "until": until }] });
    must(&limited.post("/api/v1/bookings", booking).await);
    for path in
        ["devices", "hosts", "events", "grants", "devices/cam-1/blocks", "devices/cam-1/rental-settings"]
    {
        assert_eq!(limited.get(&format!("/api/v1/{path}")).await.code(), "scope_missing", "{path}");
    }
    let block = json!({ "reason": "x" });
    assert_eq!(limited.post("/api/v1/devices/cam-1/blocks", block).await.code(), "scope_missing");
}
