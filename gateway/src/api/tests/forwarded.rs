//! The list of forwarded traffic.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{FlowEnd, FlowRecord, FlowTraffic, GrantProtocol, SourceOwner};
use serde_json::{Value, json};

use super::rentals::hence;
use crate::api::request::ids::IdKind;
use crate::api::testing::TestApi;
use crate::store::forwarded;

async fn post(api: &TestApi, path: &str, body: Value) -> Value {
    let made = api.admin().post(path, body).await;
    assert!(made.status < 300, "{}", made.text);
    made.json
}

fn id(kind: IdKind, value: &Value) -> Id {
    kind.parse(value.as_str().expect("an id")).expect("an id")
}

/// Writes what an operator and a renter sent to one device. Returns the ids of the device and of the rental.
async fn sent(api: &TestApi) -> (Value, Value) {
    let device = post(api, "/api/v1/devices", json!({ "name": "cam-1" })).await["device"]["id"].clone();
    let settings = json!({ "rentable": true });
    let set = api.admin().put("/api/v1/devices/cam-1/rental-settings", settings).await;
    assert!(set.status < 300, "{}", set.text);
    post(api, "/api/v1/customers", json!({ "external_ref": "crm-17" })).await;
    let item = json!({ "device": "cam-1", "from": hence(3_600), "until": hence(7_200) });
    let booking = post(api, "/api/v1/bookings", json!({ "customer": "crm-17", "items": [item] })).await;
    let rental = booking["rentals"][0]["id"].clone();
    let now = crate::clock::wall();
    let of_operator = FlowRecord {
        source: Id::from_i64(3),
        owner: SourceOwner::User { user: Id::from_i64(70), role: None },
        host: id(IdKind::Host, &device),
        rental: None,
        protocol: GrantProtocol::Tcp,
        port: 22,
        from: now,
        until: now + Duration::from_millis(1),
        sent: FlowTraffic { packets: 1, bytes: 100 },
        received: FlowTraffic { packets: 2, bytes: 900 },
        grant: Id::from_i64(8),
        ended: Some(FlowEnd::Closed),
    };
    let of_renter = FlowRecord {
        source: Id::from_i64(5),
        owner: SourceOwner::Person { person: Id::from_i64(60), customer: Id::from_i64(50) },
        rental: Some(id(IdKind::Rental, &rental)),
        grant: id(IdKind::Rental, &rental),
        ..of_operator
    };
    let mut tx = api.state.store.begin().await.unwrap();
    forwarded::add(&mut tx, &[of_operator, of_renter].iter().collect()).await.unwrap();
    tx.commit().await.unwrap();
    (device, rental)
}

#[tokio::test]
async fn what_renters_sent_stands_under_their_rental_and_without_their_names() {
    let api = TestApi::with_endpoint().await;
    let (device, rental) = sent(&api).await;
    let device = device.as_str().unwrap();
    let all = api.operator().get(&format!("/api/v1/forwarded?host={device}")).await;
    assert_eq!(all.json["hours"].as_array().map(Vec::len), Some(2), "{}", all.text);
    let rental = rental.as_str().unwrap();
    let shown = api.operator().get(&format!("/api/v1/forwarded?rental={rental}")).await;
    let [row] = &shown.json["hours"].as_array().unwrap()[..] else { panic!("{}", shown.text) };
    let mut expected = json!({
        "renter": IdKind::Renter.text(Id::from_i64(5)), "person": IdKind::Person.text(Id::from_i64(60)),
        "rental": rental, "grant": rental, "host": "cam-1", "protocol": "tcp", "port": 22, "flows": 1,
        "sent_bytes": 100, "received_bytes": 900,
    });
    expected["hour"] = row["hour"].clone();
    assert_eq!(*row, expected, "no operator and no user");
    let of_operator = all.json["hours"].as_array().unwrap().iter().find(|row| row.get("rental").is_none());
    let of_operator = of_operator.expect("that of the operator");
    assert_eq!(of_operator["user"], IdKind::User.text(Id::from_i64(70)), "its user is gone");
    assert_eq!(of_operator["grant"], IdKind::Grant.text(Id::from_i64(8)));
}

#[tokio::test]
async fn a_rental_that_does_not_exist_is_named() {
    let api = TestApi::with_endpoint().await;
    let unknown = api.operator().get("/api/v1/forwarded?rental=l_0000000000007").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    assert!(unknown.json["detail"].as_str().unwrap().contains("l_0000000000007"), "{}", unknown.text);
    for wrong in ["cam-1", "h_0000000000007"] {
        let refused = api.operator().get(&format!("/api/v1/forwarded?rental={wrong}")).await;
        assert!((400..500).contains(&refused.status), "{}", refused.text);
        assert!(refused.json["detail"].as_str().unwrap().contains(wrong), "{}", refused.text);
    }
}
