//! Who gets messages about the device of a rental: given, changed, refused by name, shown where asked for, and erased.

use serde_json::{Value, json};

use super::rentals::{HOUR, book, everything, field, hence, item, must, path, rented, shop, text};
use crate::maintenance::rental_notices;
use crate::store::fixture;

const ADA: &str = "ada@example.org";

/// A rental that is active, with a contact.
fn active() -> Value {
    json!({ "device": "cam-1", "until": hence(HOUR), "contacts": [{ "name": "Ada", "email": ADA }] })
}

#[tokio::test]
async fn contacts_are_given_changed_and_refused_by_name() {
    let api = shop().await;
    let rental = rented(&api, active()).await;
    let shown = async || must(&api.operator().get(&path(&rental)).await)["contacts"].clone();
    assert_eq!(shown().await, json!([{ "name": "Ada", "email": ADA }]));
    let two = json!([{ "email": "bob@example.org" }, { "name": "Eve", "email": "eve@example.org" }]);
    let changed = must(&api.operator().patch(&path(&rental), json!({ "contacts": two })).await).clone();
    assert_eq!((shown().await, &changed["version"]), (two.clone(), &json!(2)));
    let same = must(&api.operator().patch(&path(&rental), json!({ "contacts": two })).await).clone();
    assert_eq!(same["version"], 2, "nothing changed");
    let many: Vec<Value> = (0..9).map(|n| json!({ "email": format!("{n}@example.org") })).collect();
    for (wrong, name) in [
        (json!([{ "email": ADA }, { "email": "ada" }]), "contacts[1].email"),
        (json!([{ "email": "Ada <ada@example.org>" }]), "contacts[0].email"),
        (json!([{ "email": ADA }, { "email": "ADA@example.org" }]), "contacts[1].email"),
        (json!([{ "email": ADA, "name": "" }]), "contacts[0].name"),
        (json!([{ "email": ADA, "name": "a\r\nBcc: x" }]), "contacts[0].name"),
        (Value::Array(many), "contacts"),
    ] {
        let refused = api.operator().patch(&path(&rental), json!({ "contacts": wrong })).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
        let mut wanted = item("cam-2", HOUR, 2 * HOUR);
        wanted["contacts"] = wrong;
        let refused = book(&api, json!([item("cam-1", 3 * HOUR, 4 * HOUR), wanted])).await;
        assert_eq!(field(&refused), (422, format!("items[1].{name}").as_str()), "{}", refused.text);
    }
    assert_eq!(shown().await, two, "nothing is lost");
    must(&api.operator().patch(&path(&rental), json!({ "contacts": [] })).await);
    assert_eq!(shown().await, Value::Null);
    let log = must(&api.operator().get("/api/v1/events?kind=rental.changed").await).clone();
    assert_eq!(log["items"][0]["data"]["changed"], json!(["contacts"]));
}

#[tokio::test]
async fn contacts_are_in_no_event_list_or_stored_answer_and_go_with_the_customer() {
    let api = shop().await;
    let booking = json!({ "customer": "crm-17", "items": [active()] });
    let caller = api.operator().header("idempotency-key", "k");
    let made = must(&caller.post("/api/v1/bookings", booking).await).clone();
    let rental = &made["rentals"][0];
    must(&api.operator().patch(&path(rental), json!({ "contacts": [{ "email": ADA }] })).await);
    assert!(!everything(&api).await.contains(ADA));
    // A message that waits and one that was sent have the address too.
    let sql = "insert into rental_messages (rental, email, parts, is_last, created_at, next_attempt, sent_at)
               select r.id, 'ada@example.org', '[]', 0, 0, 0, n.value
               from rentals r join (select null as value union all select 5) n";
    fixture::run(&api.state.store, sql, &[]).await;
    let end = format!("{}/end", path(rental));
    let ended = caller_end(&api, &end).await;
    assert!(!ended.contains(ADA), "{ended}");
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    for sql in [
        "select coalesce(contacts, 'none') from rentals",
        "select cast(count(*) as text) from rental_messages",
    ] {
        let left = fixture::texts(&api.state.store, sql).await;
        assert!(left == ["none"] || left == ["0"], "{sql}: {left:?}");
    }
    let left = must(&api.operator().get(&path(rental)).await).clone();
    assert_eq!((&left["contacts"], text(&left["id"])), (&Value::Null, text(&rental["id"])));
    assert!(!everything(&api).await.contains(ADA));
}

/// Ends a rental, twice with one key, and returns both answers.
async fn caller_end(api: &crate::api::testing::TestApi, path: &str) -> String {
    let caller = api.operator().header("idempotency-key", "end");
    let mut answers = String::new();
    for _ in 0..2 {
        let answer = caller.post(path, json!({ "reason": "ended" })).await;
        must(&answer);
        answers += &answer.text;
    }
    answers
}

#[tokio::test]
async fn a_rental_of_an_erased_customer_takes_no_contacts_and_no_name() {
    let api = shop().await;
    let rental = rented(&api, active()).await;
    // As after a restore of a backup that is older than the erasure.
    let erase = "update customers set erased_at = 1 where external_ref = 'crm-17'";
    fixture::run(&api.state.store, erase, &[]).await;
    let refused = api.operator().patch(&path(&rental), json!({ "contacts": [{ "email": ADA }] })).await;
    assert_eq!(field(&refused), (422, "contacts"), "{}", refused.text);
    let renamed = api.operator().patch(&path(&rental), json!({ "name": "ada-cam" })).await;
    assert_eq!(field(&renamed), (422, "name"), "{}", renamed.text);
    must(&api.operator().patch(&path(&rental), json!({ "contacts": [] })).await);
}

#[tokio::test]
async fn a_rental_that_has_ended_has_no_messages_left() {
    let api = shop().await;
    let rental = rented(&api, active()).await;
    let sql = "insert into rental_messages (rental, email, parts, is_last, created_at, next_attempt)
               select id, 'ada@example.org', '[]', 0, 0, 0 from rentals";
    fixture::run(&api.state.store, sql, &[]).await;
    let count = "select cast(count(*) as text) from rental_messages";
    rental_notices::turn(&api.state.store, crate::clock::wall()).await.unwrap();
    assert_eq!(fixture::texts(&api.state.store, count).await, ["1"]);
    must(&api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "ended" })).await);
    rental_notices::turn(&api.state.store, crate::clock::wall()).await.unwrap();
    assert_eq!(fixture::texts(&api.state.store, count).await, ["0"]);
    let again = api.operator().patch(&path(&rental), json!({ "contacts": [{ "email": ADA }] })).await;
    assert_eq!((again.status, again.code()), (409, "rental_over"), "{}", again.text);
}
