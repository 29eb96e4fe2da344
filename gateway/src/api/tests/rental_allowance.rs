//! Allowances of rentals: what is counted, announced once, cut, and opened again.

use fleetgate_engine::messages::{
    FlowRecord, FlowTraffic, GrantProtocol, GrantTarget, PolicyChange, SourceOwner,
};
use serde_json::{Value, json};

use super::rental_access::{explained, renter};
use super::rentals::{HOUR, book, field, hence, item, must, path, rented, shop, text};
use crate::api::request::ids::IdKind;
use crate::api::testing::TestApi;
use crate::maintenance::rental_allowances;
use crate::store::{forwarded, policy};

/// Forwards half of it in each direction, as the record of a flow that goes on, and lets the gateway look.
async fn forward(api: &TestApi, rental: &Value, bytes: u64) {
    let id = |kind: IdKind, name: &str| kind.parse(text(&rental[name])).unwrap_or_else(|e| panic!("{}", e.0));
    let (rental_id, customer) = (id(IdKind::Rental, "id"), id(IdKind::Customer, "customer"));
    let (now, half) = (crate::clock::wall(), FlowTraffic { packets: 1, bytes: bytes / 2 });
    let record = FlowRecord {
        source: rental_id,
        owner: SourceOwner::Person { person: rental_id, customer },
        host: id(IdKind::Host, "device"),
        rental: Some(rental_id),
        protocol: GrantProtocol::Tcp,
        port: 22,
        from: now,
        until: now,
        sent: half,
        received: half,
        grant: rental_id,
        ended: None,
    };
    let mut tx = api.state.store.begin().await.unwrap();
    forwarded::add(&mut tx, &[record].iter().collect()).await.unwrap();
    tx.commit().await.unwrap();
    look(api).await;
}

async fn look(api: &TestApi) {
    let state = &api.state;
    rental_allowances::turn(&state.store, &state.handle, &state.rental_events).await.unwrap();
}

/// Returns the events about allowances, each with what the rental had forwarded.
async fn announced(api: &TestApi) -> Vec<(String, Value)> {
    let page = must(&api.operator().get("/api/v1/rental-events").await).clone();
    let events = page["items"].as_array().unwrap().iter();
    let of_allowance = events.filter(|event| text(&event["kind"]).starts_with("rental.allowance"));
    of_allowance.map(|e| (text(&e["kind"]).to_owned(), e["data"]["forwarded_bytes"].clone())).collect()
}

fn active(allowance: u64, cut: bool) -> Value {
    json!({ "device": "cam-1", "until": hence(HOUR), "allowance_bytes": allowance, "cut_at_allowance": cut })
}

#[tokio::test]
async fn an_allowance_is_given_changed_and_refused_by_name() {
    let api = shop().await;
    let free = rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    assert_eq!((&free["allowance_bytes"], &free["cut_at_allowance"]), (&Value::Null, &json!(false)));
    let rental = rented(&api, active(1_000, true)).await;
    assert_eq!((&rental["allowance_bytes"], &rental["cut_at_allowance"]), (&json!(1_000), &json!(true)));
    assert_eq!(rental["forwarded_bytes"], 0);
    for (wrong, name) in [
        (json!({ "allowance_bytes": 0 }), "allowance_bytes"),
        (json!({ "allowance_bytes": -5 }), "allowance_bytes"),
        (json!({ "allowance_bytes": 1_000_000_000_000_001_i64 }), "allowance_bytes"),
        (json!({ "cut_at_allowance": true }), "cut_at_allowance"),
    ] {
        let mut wanted = item("cam-2", 3 * HOUR, 4 * HOUR);
        wrong.as_object().unwrap().iter().for_each(|(key, value)| wanted[key] = value.clone());
        let refused = book(&api, json!([wanted])).await;
        assert_eq!(field(&refused), (422, format!("items[0].{name}").as_str()), "{}", refused.text);
        let refused = api.operator().patch(&path(&free), wrong).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    let patch = async |body: Value| must(&api.operator().patch(&path(&rental), body).await).clone();
    let larger = patch(json!({ "allowance_bytes": 2_000 })).await;
    assert_eq!((&larger["allowance_bytes"], &larger["cut_at_allowance"]), (&json!(2_000), &json!(true)));
    assert_eq!(patch(json!({ "allowance_bytes": 2_000 })).await["version"], larger["version"]);
    let none = patch(json!({ "allowance_bytes": null })).await;
    assert_eq!((&none["allowance_bytes"], &none["cut_at_allowance"]), (&Value::Null, &json!(false)));
    let log = must(&api.operator().get("/api/v1/events?kind=rental.changed").await).clone();
    assert_eq!(log["items"][0]["data"]["changed"], json!(["allowance"]));
}

#[tokio::test]
async fn each_crossing_is_one_event_whatever_is_counted_and_whenever_the_gateway_looks() {
    let api = shop().await;
    let rental = rented(&api, active(1_000, false)).await;
    forward(&api, &rental, 700).await;
    assert!(announced(&api).await.is_empty());
    forward(&api, &rental, 100).await;
    look(&api).await;
    let nearly = ("rental.allowance_80".to_owned(), json!(800));
    assert_eq!(announced(&api).await, std::slice::from_ref(&nearly));
    forward(&api, &rental, 400).await;
    forward(&api, &rental, 400).await;
    let reached = ("rental.allowance_reached".to_owned(), json!(1_200));
    assert_eq!(announced(&api).await, [nearly.clone(), reached.clone()]);
    let shown = must(&api.operator().get(&path(&rental)).await).clone();
    assert_eq!((&shown["forwarded_bytes"], &shown["version"]), (&json!(1_600), &json!(1)));
    // The events that another allowance has reached already are announced with the change.
    must(&api.operator().patch(&path(&rental), json!({ "allowance_bytes": 2_000 })).await);
    look(&api).await;
    let again = ("rental.allowance_80".to_owned(), json!(1_600));
    assert_eq!(announced(&api).await, [nearly, reached, again]);
}

/// Whether the policy of a start lets renters reach something.
async fn is_open_at_a_start(api: &TestApi) -> bool {
    let mut conn = api.state.store.reader().await.unwrap();
    let changes = policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes;
    let is_of_rental = |change: &PolicyChange| matches!(change, PolicyChange::Grant(grant) if matches!(grant.target, GrantTarget::Rental(_)));
    changes.iter().any(is_of_rental)
}

#[tokio::test]
async fn a_used_allowance_cuts_and_a_larger_one_opens_again() {
    let mut api = shop().await;
    api.start_tunnel().await;
    let laptop = renter(&api, "crm-17", "laptop").await;
    let rental = rented(&api, active(1_000, true)).await;
    let ssh = async || explained(&api, &laptop, text(&rental["id"]), "&port=22").await;
    let patch = async |body: Value| must(&api.operator().patch(&path(&rental), body).await).clone();
    forward(&api, &rental, 998).await;
    assert_eq!(ssh().await["result"], "permitted");
    forward(&api, &rental, 2).await;
    let cut = ssh().await;
    assert_eq!((&cut["result"], &cut["permitted"]), (&json!("no_grant"), &json!(false)), "{cut}");
    assert!(text(&cut["text"]).contains("has used its allowance of 1000 bytes"), "{cut}");
    assert_eq!((&cut["rental"], &cut["until"]), (&rental["id"], &rental["until"]));
    assert!(!is_open_at_a_start(&api).await, "also after a restart");
    assert_eq!(must(&api.operator().get(&path(&rental)).await)["state"], "active", "it is no end");
    patch(json!({ "allowance_bytes": 5_000 })).await;
    assert_eq!(ssh().await["result"], "permitted");
    patch(json!({ "allowance_bytes": 900 })).await;
    assert_eq!(ssh().await["result"], "no_grant", "a smaller one is used already");
    patch(json!({ "cut_at_allowance": false })).await;
    assert_eq!(ssh().await["result"], "permitted");
    patch(json!({ "cut_at_allowance": true })).await;
    assert_eq!(ssh().await["result"], "no_grant");
    patch(json!({ "allowance_bytes": null })).await;
    assert_eq!(ssh().await["result"], "permitted");
    assert!(is_open_at_a_start(&api).await);
}
