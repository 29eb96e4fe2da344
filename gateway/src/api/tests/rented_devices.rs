//! The refusals for a device that is rented.

use serde_json::{Value, json};

use super::rentals::{HOUR, hence, item, must, path, rented, renting, shop};
use crate::api::testing::Answer;

fn is_named(refused: &Answer, rental: &Value) {
    assert_eq!((refused.status, refused.code()), (409, "rentals_open"), "{}", refused.text);
    assert_eq!(refused.json["rentals"], json!([rental["id"]]));
}

#[tokio::test]
async fn a_device_with_open_rentals_stays_rentable() {
    let api = shop().await;
    let settings = "/api/v1/devices/cam-1/rental-settings";
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    is_named(&api.operator().put(settings, json!({ "rentable": false })).await, &rental);
    assert_eq!(must(&api.viewer().get(settings).await)["rentable"], true);
    renting(&api, "cam-1", json!({ "rentable": true, "preparation_s": 60 })).await;
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    renting(&api, "cam-1", json!({ "rentable": false })).await;
    renting(&api, "cam-1", json!({ "rentable": false, "preparation_s": 30 })).await;
}

#[tokio::test]
async fn new_keys_interrupt_a_rental_only_when_they_are_forced() {
    let api = shop().await;
    let calls = ["credentials", "replacement"].map(|call| format!("/api/v1/devices/cam-1/{call}"));
    rented(&api, item("cam-1", 2 * HOUR, 3 * HOUR)).await;
    for call in &calls {
        must(&api.operator().post(call, json!({})).await);
    }
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let key =
        || async { must(&api.viewer().get("/api/v1/devices/cam-1").await)["tunnel"]["public_key"].clone() };
    let before = key().await;
    for call in &calls {
        let refused = api.operator().post(call, json!({})).await;
        is_named(&refused, &rental);
        assert!(refused.text.contains("with force"), "{}", refused.text);
    }
    assert_eq!(key().await, before);
    for call in &calls {
        must(&api.operator().post(call, json!({ "force": true })).await);
    }
    assert_ne!(key().await, before);
    let reason = json!({ "reason": "returned_early" });
    must(&api.operator().post(&format!("{}/end", path(&rental)), reason).await);
    must(&api.operator().post(&calls[0], json!({})).await);
}
