//! The feed of the events of rentals, its cursors, and subscriptions.

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::rentals::{field, hence, item, must, path, rented, shop, text};
use crate::api::testing::TestApi;
use crate::store::fixture::run;

const HOUR: u64 = 3_600;

/// Reads a page of the feed.
async fn feed(api: &TestApi, query: &str) -> Value {
    must(&api.operator().get(&format!("/api/v1/rental-events?{query}")).await).clone()
}

fn kinds(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|event| text(&event["kind"])).collect()
}

async fn refusal(api: &TestApi, query: &str) -> (u16, String, String) {
    let refused = api.operator().get(&format!("/api/v1/rental-events?{query}")).await;
    (refused.status, refused.code().to_owned(), refused.text)
}

#[tokio::test]
async fn every_call_for_a_rental_is_an_event_in_its_transaction() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let later = json!({ "until": hence(3 * HOUR) });
    let extended = must(&api.operator().patch(&path(&rental), later).await).clone();
    let swapped = must(&api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await).clone();
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    let page = feed(&api, "").await;
    assert_eq!(
        kinds(&page),
        ["rental.booked", "rental.changed", "rental.swapped", "rental.cancelled"],
        "{page:#}"
    );
    let [booked, changed, other, cancelled] = [0, 1, 2, 3].map(|n| &page["items"][n]);
    for name in ["booking", "customer"] {
        assert_eq!(booked[name], rental[name]);
    }
    assert_eq!((&booked["rental"], &booked["version"]), (&rental["id"], &json!(1)));
    assert_eq!((&booked["data"]["from"], &booked["data"]["state"]), (&rental["from"], &json!("booked")));
    assert_eq!((&changed["data"]["until"], &changed["version"]), (&extended["until"], &extended["version"]));
    assert_eq!(
        (&other["data"]["device"], &other["data"]["previous_device"]),
        (&swapped["device"], &rental["device"])
    );
    assert_eq!((&cancelled["data"]["reason"], &cancelled["version"]), (&json!("cancelled"), &json!(4)));
    assert!(text(&booked["id"]).starts_with("v_") && booked["id"] != changed["id"]);
    let refused = api.operator().patch(&path(&rental), json!({ "until": hence(4 * HOUR) })).await;
    assert_eq!(refused.code(), "rental_over");
    assert_eq!(feed(&api, "").await["items"].as_array().unwrap().len(), 4, "a refusal is no event");
}

#[tokio::test]
async fn the_rentals_that_a_block_covers_hear_of_it_and_of_its_end_without_its_reason() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    rented(&api, item("cam-1", 9 * HOUR, 10 * HOUR)).await;
    rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    let (blocks, until) = ("/api/v1/devices/cam-1/blocks", hence(3 * HOUR));
    let new = json!({ "until": until, "reason": "the lens of Ada", "force": true });
    let block = must(&api.operator().post(blocks, new).await).clone();
    must(&api.operator().delete(&format!("{blocks}/{}", text(&block["id"]))).await);
    let page = feed(&api, &format!("rental={}", text(&rental["id"]))).await;
    assert_eq!(kinds(&page), ["rental.booked", "rental.blocked", "rental.unblocked"], "{page:#}");
    for event in &page["items"].as_array().unwrap()[1..] {
        let expected = json!({ "id": block["id"], "from": block["from"], "until": block["until"] });
        assert_eq!((&event["data"]["block"], &event["version"]), (&expected, &json!(1)));
        assert_eq!(event["data"]["state"], "booked");
    }
    let all = feed(&api, "").await;
    assert!(all["items"].as_array().unwrap().len() == 5 && !all.to_string().contains("lens"), "{all:#}");
    let quiet = json!({ "from": hence(4 * HOUR), "until": hence(5 * HOUR), "reason": "x" });
    let quiet = must(&api.operator().post(blocks, quiet).await).clone();
    must(&api.operator().delete(&format!("{blocks}/{}", text(&quiet["id"]))).await);
    assert_eq!(feed(&api, "").await["items"].as_array().unwrap().len(), 5, "it covers none");
}

#[tokio::test]
async fn each_call_for_a_rental_wakes_the_tasks_of_its_events() {
    let api = shop().await;
    let is_woken = || api.state.rental_events.rentals().now_or_never().is_some();
    is_woken();
    assert!(!is_woken(), "once for each call");
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    assert!(is_woken(), "booked");
    must(&api.operator().patch(&path(&rental), json!({ "until": hence(3 * HOUR) })).await);
    assert!(is_woken(), "changed");
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    assert!(is_woken(), "cancelled");
}

#[tokio::test]
async fn a_rental_that_begins_now_is_active_and_its_end_says_why() {
    let api = shop().await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let end = json!({ "reason": "returned_early", "note": "Ada came at noon" });
    must(&api.operator().post(&format!("{}/end", path(&rental)), end).await);
    let page = feed(&api, "").await;
    assert_eq!(kinds(&page), ["rental.booked", "rental.active", "rental.ended", "rental.closed"], "{page:#}");
    assert_eq!(page["items"][2]["data"]["reason"], "returned_early");
    assert_eq!(page["items"][3]["data"].get("reason"), None);
    for personal in ["Ada", "crm-17", "cam-1"] {
        assert!(!page.to_string().contains(personal), "{personal}: {page:#}");
    }
}

/// Whether the task that announces what comes by the time was woken since the last look.
async fn is_woken(api: &TestApi) -> bool {
    let woken = api.state.rental_events.rentals();
    tokio::time::timeout(std::time::Duration::from_millis(20), woken).await.is_ok()
}

#[tokio::test]
async fn every_call_for_a_rental_wakes_the_tasks_that_announce_and_send() {
    let api = shop().await;
    assert!(is_woken(&api).await && !is_woken(&api).await);
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "items": [item("cam-1", HOUR, 2 * HOUR)],
                       "hold_until": hence(600) });
    let rental = must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone();
    assert!(is_woken(&api).await, "booked");
    must(&api.operator().patch("/api/v1/bookings/o1", json!({ "hold_until": null })).await);
    assert!(is_woken(&api).await, "confirmed");
    must(&api.operator().patch(&path(&rental), json!({ "until": hence(3 * HOUR) })).await);
    assert!(is_woken(&api).await, "changed");
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    assert!(is_woken(&api).await, "cancelled");
    let now = rented(&api, json!({ "device": "cam-2", "until": hence(HOUR) })).await;
    assert!(is_woken(&api).await, "booked from now on");
    must(&api.operator().post(&format!("{}/end", path(&now)), json!({ "reason": "no_show" })).await);
    assert!(is_woken(&api).await, "ended");
}

#[tokio::test]
async fn a_hold_is_an_event_and_so_is_its_confirmation() {
    let api = shop().await;
    let items = json!([item("cam-1", HOUR, 2 * HOUR), item("cam-2", HOUR, 2 * HOUR)]);
    let booking =
        json!({ "customer": "crm-17", "external_ref": "o1", "items": items, "hold_until": hence(600) });
    let made = must(&api.operator().post("/api/v1/bookings", booking).await).clone();
    for change in [json!({ "notes": "paid" }), json!({ "hold_until": null })] {
        must(&api.operator().patch("/api/v1/bookings/o1", change).await);
    }
    let page = feed(&api, &format!("rental={}", text(&made["rentals"][1]["id"]))).await;
    assert_eq!(kinds(&page), ["rental.held", "rental.confirmed"]);
    assert_eq!(page["items"][0]["data"]["hold_until"], made["hold_until"]);
    assert_eq!(feed(&api, "customer=crm-17").await["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_cursor_leads_on_also_from_an_empty_page() {
    let api = shop().await;
    let begin = feed(&api, "").await;
    assert_eq!(begin["items"], json!([]));
    rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let second = rented(&api, item("cam-1", 3 * HOUR, 4 * HOUR)).await;
    let first = feed(&api, &format!("limit=1&after={}", text(&begin["next"]))).await;
    let rest = feed(&api, &format!("limit=1&after={}", text(&first["next"]))).await;
    assert_eq!((&rest["items"][0]["rental"], kinds(&first).len()), (&second["id"], 1));
    let end = feed(&api, &format!("limit=1&after={}", text(&rest["next"]))).await;
    assert_eq!((&end["items"], &end["next"]), (&json!([]), &rest["next"]));
    let other = json!({ "external_ref": "crm-18" });
    must(&api.operator().post("/api/v1/customers", other).await);
    let nothing = feed(&api, &format!("customer=crm-18&after={}", text(&begin["next"]))).await;
    assert_eq!((&nothing["items"], &nothing["next"]), (&json!([]), &end["next"]), "it has seen them");
    must(&api.operator().post(&format!("{}/cancel", path(&second)), json!({})).await);
    assert_eq!(kinds(&feed(&api, &format!("after={}", text(&end["next"]))).await), ["rental.cancelled"]);
}

#[tokio::test]
async fn a_cursor_that_leads_nowhere_is_refused_with_what_to_do() {
    let api = shop().await;
    let begin = text(&feed(&api, "").await["next"]).to_owned();
    for n in [1, 3] {
        rented(&api, item("cam-1", n * HOUR, (n + 1) * HOUR)).await;
    }
    let cursor = text(&feed(&api, "").await["next"]).to_owned();
    for wrong in ["after=%25%25", "after=AAAA", "after=Nw", "limit=0", "limit=2001"] {
        let (status, code, said) = refusal(&api, wrong).await;
        assert_eq!((status, code.as_str()), (400, "bad_query"), "{wrong}: {said}");
    }
    for unknown in ["rental=l_0000000000009", "rental=x", "customer=nobody"] {
        assert_eq!(refusal(&api, unknown).await.0, 404, "{unknown}");
    }
    run(&api.state.store, "delete from rental_events where seq = 1", &[]).await;
    let (status, code, said) = refusal(&api, &format!("after={begin}")).await;
    assert_eq!((status, code.as_str()), (410, "cursor_gone"), "{said}");
    assert!(said.contains("90 days") && said.contains("GET /rentals"), "{said}");
    assert_eq!(kinds(&feed(&api, "").await), ["rental.booked"], "what is kept");
    feed(&api, &format!("after={cursor}")).await;
    run(&api.state.store, "update instance set epoch = 'another'", &[]).await;
    let (status, code, said) = refusal(&api, &format!("after={cursor}")).await;
    assert_eq!((status, code.as_str()), (410, "cursor_gone"), "{said}");
    assert!(said.contains("restored") && said.contains("GET /rentals"), "{said}");
}

#[tokio::test]
async fn a_subscription_is_made_shown_changed_paused_and_removed() {
    let api = shop().await;
    rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let new = json!({ "url": "http://127.0.0.1:9/x?y=1", "kinds": ["rental.active", "rental.booked"] });
    let made = api.operator().post("/api/v1/subscriptions", new).await;
    assert_eq!((made.status, &made.headers["etag"]), (201, &"\"1\"".parse().unwrap()), "{}", made.text);
    assert!(text(&made.json["secret"]).starts_with("fgw_"), "{}", made.text);
    let own = format!("/api/v1/subscriptions/{}", text(&made.json["id"]));
    let mut expected = made.json.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(must(&api.operator().get(&own).await), &expected);
    assert_eq!(must(&api.operator().get("/api/v1/subscriptions").await)["items"], json!([expected]));
    assert_eq!(expected["kinds"], json!(["rental.booked", "rental.active"]), "in their usual order");
    assert_eq!((&expected["waiting"], &expected["paused"]), (&json!(0), &json!(false)), "none from before");
    for (change, name, value) in [
        (json!({ "kinds": [] }), "kinds", json!([])),
        (json!({ "url": "http://127.0.0.1:9/z" }), "url", json!("http://127.0.0.1:9/z")),
        (json!({ "paused": true }), "paused", json!(true)),
        (json!({ "paused": false }), "paused", json!(false)),
    ] {
        let changed = api.operator().patch(&own, change).await;
        assert_eq!(must(&changed)[name], value, "{}", changed.text);
        assert_eq!(must(&api.operator().get(&own).await), &changed.json);
    }
    let same = api.operator().patch(&own, json!({ "paused": false })).await;
    assert_eq!(must(&same)["version"], 5, "nothing has changed");
    let stale = api.operator().header("if-match", "\"1\"").patch(&own, json!({ "paused": true })).await;
    assert_eq!((stale.status, stale.code()), (412, "changed_meanwhile"));
    let log = api.admin().get("/api/v1/audit").await;
    assert!(log.text.contains("subscription.created") && !log.text.contains("127.0.0.1:9"), "{}", log.text);
    assert_eq!(api.operator().delete(&own).await.status, 204);
    assert_eq!(api.operator().get(&own).await.code(), "not_found");
}

#[tokio::test]
async fn a_resume_takes_back_what_has_failed() {
    let api = shop().await;
    let new = json!({ "url": "http://127.0.0.1:9/x" });
    let made = must(&api.operator().post("/api/v1/subscriptions", new).await).clone();
    rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    for sql in [
        "insert into subscription_deliveries (event, subscription, rental, attempts, next_at)
         select e.seq, s.id, e.rental, 81, 9 from rental_events e, subscriptions s",
        "update subscriptions set failing_since = 5, last_error = 'it answered 500', last_error_at = 5",
    ] {
        run(&api.state.store, sql, &[]).await;
    }
    let own = format!("/api/v1/subscriptions/{}", text(&made["id"]));
    let failing = must(&api.operator().get(&own).await).clone();
    assert_eq!((&failing["waiting"], &failing["last_error"]), (&json!(1), &json!("it answered 500")));
    assert!(failing["failing_since"].is_string() && failing["last_error_at"].is_string(), "{failing}");
    assert!(failing["next_attempt_at"].is_string(), "{failing}");
    let resumed = must(&api.operator().patch(&own, json!({ "paused": false })).await).clone();
    assert_eq!((&resumed["failing_since"], &resumed["waiting"]), (&Value::Null, &json!(1)));
    let due = "select attempts || ' ' || (next_at is not null) from subscription_deliveries";
    assert_eq!(crate::store::fixture::texts(&api.state.store, due).await, ["0 1"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_subscription_is_named_with_its_field() {
    let api = TestApi::new().await;
    let post = async |body: Value| api.operator().post("/api/v1/subscriptions", body).await;
    must(&post(json!({ "url": "http://192.0.2.9/" })).await);
    for (body, wrong) in [
        (json!({}), "url"),
        (json!({ "url": "" }), "url"),
        (json!({ "url": "example.org" }), "url"),
        (json!({ "url": "ftp://example.org/" }), "url"),
        (json!({ "url": "https://ada:pw@example.org/" }), "url"),
        (json!({ "url": "http://169.254.169.254/latest" }), "url"),
        (json!({ "url": "http://[fe80::1]/" }), "url"),
        (json!({ "url": "https://example.org/", "kinds": ["rental.borrowed"] }), "kinds"),
        (json!({ "url": "https://example.org/", "kinds": "rental.booked" }), "kinds"),
    ] {
        let refused = post(body.clone()).await;
        assert_eq!(field(&refused), (422, wrong), "{body}: {}", refused.text);
    }
    let own = must(&api.operator().get("/api/v1/subscriptions").await)["items"][0]["id"].clone();
    let own = format!("/api/v1/subscriptions/{}", text(&own));
    for (change, wrong) in [
        (json!({ "url": null }), "url"),
        (json!({ "url": "http://169.254.169.254/" }), "url"),
        (json!({ "url": "example.org" }), "url"),
        (json!({ "kinds": ["x"] }), "kinds"),
        (json!({ "paused": "yes" }), "paused"),
    ] {
        let refused = api.operator().patch(&own, change.clone()).await;
        assert_eq!(field(&refused), (422, wrong), "{change}: {}", refused.text);
    }
    assert_eq!(must(&api.operator().get(&own).await)["version"], 1);
    for unknown in ["z_0000000000009", "x"] {
        let missing = api.operator().get(&format!("/api/v1/subscriptions/{unknown}")).await;
        assert_eq!((missing.status, missing.code()), (404, "not_found"), "{}", missing.text);
    }
    for _ in 1..20 {
        must(&post(json!({ "url": "http://192.0.2.9/" })).await);
    }
    assert_eq!(post(json!({ "url": "http://192.0.2.9/" })).await.code(), "limit_reached");
    assert_eq!(api.viewer().get("/api/v1/subscriptions").await.code(), "role_missing");
}
