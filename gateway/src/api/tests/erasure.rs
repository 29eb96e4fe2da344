//! Erased customers in the file outside of the database: it and the database agree, whatever fails.

use std::fs;

use serde_json::json;

use crate::api::request::ids::IdKind;
use crate::api::testing::TestApi;
use crate::backup::erased_ids::{self, ERASED_FILE};
use crate::store::fixture;

const ADA: &str = "/api/v1/customers/crm-1";

/// A gateway with two customers.
async fn shop() -> TestApi {
    let api = TestApi::with_endpoint().await;
    for (reference, name) in [("crm-1", "Ada"), ("crm-2", "Bob")] {
        let customer = json!({ "external_ref": reference, "name": name });
        assert_eq!(api.operator().post("/api/v1/customers", customer).await.status, 201);
    }
    api
}

/// The customers that the file names.
fn recorded(api: &TestApi) -> Vec<String> {
    let found = erased_ids::read(&api.state.config.data).unwrap();
    assert_eq!(found.damage(), None);
    found.erasures.iter().map(|of| IdKind::Customer.text(of.customer)).collect()
}

async fn stays(api: &TestApi) {
    let shown = api.operator().get(ADA).await;
    assert_eq!((shown.status, &shown.json["name"]), (200, &json!("Ada")), "nothing was changed");
}

#[tokio::test]
async fn an_erasure_that_is_answered_stands_in_the_file_with_its_id_alone() {
    let api = shop().await;
    let id = api.operator().get(ADA).await.json["id"].clone();
    assert!(recorded(&api).is_empty());
    assert_eq!(api.operator().delete(ADA).await.status, 204);
    assert_eq!(json!(recorded(&api)), json!([id]));
    let text = fs::read_to_string(api.state.config.data.join(ERASED_FILE)).unwrap();
    assert!(!text.contains("Ada") && !text.contains("crm-1"), "{text}");
    assert_eq!(api.operator().delete(ADA).await.status, 404);
    assert_eq!(recorded(&api).len(), 1);
}

#[tokio::test]
async fn an_erasure_that_cannot_be_recorded_changes_nothing_and_can_be_repeated() {
    let api = shop().await;
    let file = api.state.config.data.join(ERASED_FILE);
    fs::create_dir(&file).unwrap();
    let refused = api.operator().delete(ADA).await;
    assert_eq!((refused.status, refused.code()), (503, "not_recorded"), "{}", refused.text);
    assert!(refused.json["detail"].as_str().unwrap().contains(ERASED_FILE), "{}", refused.text);
    stays(&api).await;
    fs::remove_dir(&file).unwrap();
    assert_eq!(api.operator().delete(ADA).await.status, 204);
    assert_eq!(recorded(&api).len(), 1);
}

#[tokio::test]
async fn an_erasure_that_cannot_be_committed_takes_its_line_back() {
    let api = shop().await;
    assert_eq!(api.operator().delete("/api/v1/customers/crm-2").await.status, 204);
    let before = recorded(&api);
    // Deferred: the statement is accepted, and the commit fails.
    for sql in [
        "create table strict_events (customer integer references hosts (id) deferrable initially deferred)",
        "create trigger refuse after update of erased_at on customers
         begin insert into strict_events values (new.id); end",
    ] {
        fixture::run(&api.state.store, sql, &[]).await;
    }
    let refused = api.operator().delete(ADA).await;
    assert_eq!(refused.status, 500, "{}", refused.text);
    stays(&api).await;
    assert_eq!(recorded(&api), before, "the other line stays");
    fixture::run(&api.state.store, "drop trigger refuse", &[]).await;
    assert_eq!(api.operator().delete(ADA).await.status, 204);
    assert_eq!(recorded(&api).len(), 2);
}

#[tokio::test]
async fn one_that_is_not_complete_makes_others_wait() {
    let api = shop().await;
    let held = erased_ids::append(&api.state.config.data, &[]).unwrap();
    let refused = api.operator().delete(ADA).await;
    assert_eq!((refused.status, refused.code()), (503, "busy"), "{}", refused.text);
    stays(&api).await;
    drop(held);
    assert_eq!(api.operator().delete(ADA).await.status, 204);
}

#[tokio::test]
async fn a_customer_with_open_rentals_is_not_recorded() {
    let api = shop().await;
    assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "cam-1" })).await.status, 201);
    let settings = "/api/v1/devices/cam-1/rental-settings";
    assert_eq!(
        api.operator().put(settings, json!({ "rentable": true, "without": ["gate"] })).await.status,
        200
    );
    let item = json!({ "device": "cam-1", "until": super::rentals::hence(3_600) });
    let booking = json!({ "customer": "crm-1", "items": [item] });
    assert_eq!(api.operator().post("/api/v1/bookings", booking).await.status, 201);
    let refused = api.operator().delete(ADA).await;
    assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{}", refused.text);
    assert!(recorded(&api).is_empty());
    stays(&api).await;
}
