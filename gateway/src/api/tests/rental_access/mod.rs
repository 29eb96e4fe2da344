//! What rentals give access to: to whom, of which device, at which address, and exactly when.

mod clock;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::forward::{self, Forwarder};
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantAccess, GrantProtocol,
    GrantSource, GrantSpec, GrantTarget, PolicyChange, TargetId, TargetSpec,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use serde_json::{Value, json};

use super::rentals::{HOUR, book, device, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::maintenance::housekeeping;
use crate::store::rentals::aliases;
use crate::store::{fixture, policy};

/// Adds a person with a renter to a customer, and returns the id of the renter.
pub(super) async fn renter(api: &TestApi, customer: &str, name: &str) -> String {
    let person = api.operator().post("/api/v1/people", json!({ "customer": customer })).await;
    let body = json!({ "person": must(&person)["id"], "name": name });
    let made = api.operator().post("/api/v1/renters", body).await;
    text(&must(&made)["renter"]["id"]).to_owned()
}

fn id(kind: IdKind, text: &str) -> Id {
    kind.parse(text).unwrap_or_else(|unknown| panic!("{}", unknown.0))
}

async fn change(api: &TestApi, rental: &Value, body: Value) -> Answer {
    api.operator().patch(&path(rental), body).await
}

async fn post(api: &TestApi, rental: &Value, verb: &str, body: Value) -> Value {
    must(&api.operator().post(&format!("{}/{verb}", path(rental)), body).await).clone()
}

/// Returns the changes that the packet filter was told of since the last time.
fn told(api: &mut TestApi) -> Vec<Vec<PolicyChange>> {
    let commands = std::iter::from_fn(|| api.tunnel.try_recv().ok());
    let changes = |command| if let Command::Policy(changes) = command { Some(changes) } else { None };
    commands.filter_map(changes).collect()
}

/// The access by rentals, as the tunnel received it. Each change is applied as the filter applies it.
#[derive(Debug, Default, PartialEq)]
struct ReceivedAccess {
    targets: BTreeMap<Id, TargetSpec>,
    grants: BTreeMap<Id, GrantSpec>,
}

impl ReceivedAccess {
    fn hear(&mut self, api: &mut TestApi) {
        told(api).into_iter().for_each(|changes| self.take(changes));
    }

    fn take(&mut self, changes: Vec<PolicyChange>) {
        for change in changes {
            match change {
                PolicyChange::Target(spec) => {
                    if let Some(rental) = spec.id.rental() {
                        self.targets.insert(rental, spec);
                    }
                }
                PolicyChange::RemoveTarget(TargetId::Rental(rental)) => drop(self.targets.remove(&rental)),
                PolicyChange::Grant(spec) if matches!(spec.target, GrantTarget::Rental(_)) => {
                    self.grants.insert(spec.id, spec);
                }
                PolicyChange::WithdrawGrant(grant) => drop(self.grants.remove(&grant)),
                _ => {}
            }
        }
    }

    async fn at_a_start(api: &TestApi) -> ReceivedAccess {
        let mut conn = api.state.store.reader().await.unwrap();
        let mut told = ReceivedAccess::default();
        told.take(policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes);
        told
    }

    fn of(&self, rental: &Value) -> Option<(&TargetSpec, &GrantSpec)> {
        let id = id(IdKind::Rental, text(&rental["id"]));
        assert_eq!(
            self.targets.contains_key(&id),
            self.grants.contains_key(&id),
            "they come and go together"
        );
        self.targets.get(&id).zip(self.grants.get(&id))
    }
}

#[tokio::test]
async fn the_name_of_a_rental_leaves_the_packet_filter_with_its_customer() {
    let mut api = shop().await;
    let named = json!({ "device": "cam-1", "until": hence(HOUR), "name": "zora-cam" });
    let rental = rented(&api, named).await;
    post(&api, &rental, "end", json!({ "reason": "ended" })).await;
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    assert_eq!(told.of(&rental).unwrap().0.name, "zora-cam", "it says for a day why nothing passes");
    must(&api.operator().delete("/api/v1/customers/crm-17").await);
    told.hear(&mut api);
    assert!(told.of(&rental).is_none(), "{told:?}");
    assert_eq!(told, ReceivedAccess::at_a_start(&api).await);
}

#[tokio::test]
async fn a_rental_gives_its_renters_what_it_says() {
    let mut api = shop().await;
    let (laptop, phone) = (renter(&api, "crm-17", "laptop").await, renter(&api, "crm-17", "phone").await);
    let mut wanted = item("cam-1", HOUR, 2 * HOUR);
    wanted["name"] = json!("entrance");
    wanted["access"] = json!([{ "protocol": "tcp", "ports": [443, 22] }]);
    wanted["renters"] = json!([laptop]);
    let rental = rented(&api, wanted).await;
    assert_eq!((&rental["name"], &rental["renters"]), (&json!("entrance"), &json!([laptop])));
    assert_eq!(rental["access"], json!([{ "protocol": "tcp", "ports": [22, 443] }]));
    assert_eq!(rental["addresses"], json!(["10.115.255.128", "fd72:6c65:6574::3:ff80"]));
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    let (target, grant) = told.of(&rental).unwrap();
    let device = id(IdKind::Host, text(&rental["device"]));
    assert_eq!((target.host, target.peer, target.name.as_str()), (device, device, "entrance"));
    assert!(target.labels.is_empty() && !target.behind);
    let cam = api.operator().get("/api/v1/devices/cam-1").await;
    let real: Vec<String> = target.addresses.iter().map(|address| address.real.to_string()).collect();
    assert_eq!(json!(real), must(&cam)["tunnel"]["addresses"], "{}", cam.text);
    let reached: Vec<String> =
        target.addresses.iter().map(|address| address.reached_at.to_string()).collect();
    assert_eq!(json!(reached), rental["addresses"]);
    let customer = id(IdKind::Customer, text(&rental["customer"]));
    assert_eq!(
        (grant.source, &grant.target),
        (GrantSource::Customer(customer), &GrantTarget::Rental(grant.id))
    );
    let tcp = GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![22..=22, 443..=443] };
    assert_eq!((&grant.access, &grant.only), (&vec![tcp], &Some([id(IdKind::Renter, &laptop)].into())));
    assert_eq!(grant.from.map(crate::ids::time).as_deref(), rental["from"].as_str());
    assert_eq!(grant.until.map(crate::ids::time).as_deref(), rental["until"].as_str());

    let body = json!({ "name": "exit", "access": [{ "protocol": "icmp" }], "renters": [phone] });
    let changed = change(&api, &rental, body.clone()).await;
    assert_eq!((changed.status, &changed.json["version"]), (200, &json!(2)), "{}", changed.text);
    assert_eq!((&changed.json["name"], &changed.json["renters"]), (&json!("exit"), &json!([phone])));
    assert_eq!(changed.json["access"], json!([{ "protocol": "icmp", "ports": [] }]));
    assert_eq!(change(&api, &rental, body).await.json["version"], 2, "the same changes nothing");
    let all = change(&api, &rental, json!({ "renters": null })).await;
    assert_eq!((&must(&all)["renters"], &all.json["addresses"]), (&Value::Null, &rental["addresses"]));
    let events = api.operator().get("/api/v1/events?kind=rental.changed").await;
    assert_eq!(must(&events)["items"][1]["data"]["changed"], json!(["name", "access", "renters"]));
    told.hear(&mut api);
    let (target, grant) = told.of(&rental).unwrap();
    assert_eq!((target.name.as_str(), &grant.only), ("exit", &None));
    assert_eq!(told, ReceivedAccess::at_a_start(&api).await);
}

#[tokio::test]
async fn what_is_wrong_with_the_access_of_a_rental_is_named_and_changes_nothing() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let stranger = renter(&api, "crm-18", "laptop").await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let table = [
        ("name", json!("Entrance"), "a-z 0-9"),
        ("name", json!("a.b"), "a-z 0-9"),
        ("name", json!(""), "1 to 63"),
        ("access", json!([]), "at least one"),
        ("access[0].protocol", json!([{ "protocol": "sctp" }]), "icmp, tcp or udp"),
        ("access[0].ports", json!([{ "protocol": "tcp", "ports": [0] }]), "1 to 65535"),
        ("access", json!([{ "protocol": "tcp", "ports": ["22-23"] }]), " does not allow tcp 23"),
        ("access", json!([{ "protocol": "udp", "ports": [53] }]), " does not allow udp 53"),
        ("renters", json!(["laptop"]), "no renter is called"),
        ("renters", json!(["w_0000000000007"]), "w_0000000000007 is no renter of this customer"),
        ("renters", json!([stranger]), "is no renter of this customer"),
        ("renters", Value::Array(vec![json!(stranger); 257]), "at most 256"),
    ];
    for (name, value, says) in table {
        let key = name.split('[').next().unwrap();
        let mut wanted = item("cam-2", HOUR, 2 * HOUR);
        wanted[key] = value.clone();
        let refused = book(&api, json!([wanted])).await;
        assert_eq!(field(&refused), (422, format!("items[0].{name}").as_str()), "{value}: {}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
        let refused = change(&api, &rental, json!({ key: value })).await;
        assert_eq!(field(&refused), (422, name), "{value}: {}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
    }
    for key in ["name", "access"] {
        assert_eq!(change(&api, &rental, json!({ key: null })).await.status, 422, "{key}");
    }
    assert_eq!(must(&api.operator().get(&path(&rental)).await), &rental);
    let all = api.operator().get("/api/v1/rentals").await;
    assert_eq!(must(&all)["items"].as_array().unwrap().len(), 1);
    // Both are seen at once.
    let mut wanted = item("cam-2", HOUR, 2 * HOUR);
    (wanted["name"], wanted["renters"]) = (json!("-"), json!(["x"]));
    let refused = book(&api, json!([wanted])).await;
    assert_eq!(refused.json["errors"].as_array().unwrap().len(), 2, "{}", refused.text);
}

#[tokio::test]
async fn names_are_the_lowest_free_ones_of_the_customer() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let first = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let mut named = item("cam-1", 3 * HOUR, 4 * HOUR);
    named["name"] = json!("device-3");
    let items = json!([item("cam-1", 5 * HOUR, 6 * HOUR), named, item("cam-1", 7 * HOUR, 8 * HOUR)]);
    let made = book(&api, items).await;
    assert_eq!(first["name"], "device-1");
    let names: Vec<&Value> = must(&made)["rentals"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["device-2", "device-3", "device-4"]);
    let mut again = item("cam-2", HOUR, 2 * HOUR);
    again["name"] = json!("device-1");
    let refused = book(&api, json!([again.clone()])).await;
    assert_eq!((refused.status, refused.code()), (409, "name_taken"), "{}", refused.text);
    assert!(refused.text.contains("items[0].name"), "{}", refused.text);
    let refused = change(&api, &made.json["rentals"][0], json!({ "name": "device-1" })).await;
    assert_eq!((refused.status, refused.code()), (409, "name_taken"), "{}", refused.text);
    let body = json!({ "customer": "crm-18", "items": [again] });
    let other = api.operator().post("/api/v1/bookings", body).await;
    assert_eq!(must(&other)["rentals"][0]["name"], "device-1", "each customer has its own names");
    assert_ne!(other.json["rentals"][0]["addresses"], first["addresses"]);
    // A name rests with its alias.
    let cancelled = post(&api, &first, "cancel", json!({})).await;
    let ended: jiff::Timestamp = text(&cancelled["ended_at"]).parse().unwrap();
    let free = (ended + jiff::SignedDuration::from_hours(24)).to_string();
    let mut again = item("cam-2", 3 * HOUR, 4 * HOUR);
    again["name"] = json!("device-1");
    let resting = book(&api, json!([again])).await;
    assert_eq!((resting.status, resting.code()), (409, "name_taken"), "{}", resting.text);
    assert!(resting.text.contains(&free), "{free}: {}", resting.text);
    assert_eq!(rented(&api, item("cam-1", HOUR, 2 * HOUR)).await["name"], "device-5");
    long_ago(&api, &first).await;
    assert_eq!(rented(&api, item("cam-1", 9 * HOUR, 10 * HOUR)).await["name"], "device-1");
}

/// Lets a rental that is over have ended a day and a second earlier.
async fn long_ago(api: &TestApi, rental: &Value) {
    let sql = "update rentals set ended_at = ended_at - 86401000 where id = cast($1 as integer)";
    let rental = id(IdKind::Rental, text(&rental["id"]));
    fixture::run(&api.state.store, sql, &[&rental.as_i64().to_string()]).await;
}

async fn small_shop() -> TestApi {
    let api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        config.alias_slots = 8;
    })
    .await;
    device(&api, "cam-1").await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-17" })).await);
    api
}

#[tokio::test]
async fn an_alias_is_the_lowest_free_one_and_is_free_a_day_after_its_rental() {
    let mut api = small_shop().await;
    let mut rentals = Vec::new();
    for n in 0..8 {
        rentals.push(rented(&api, item("cam-1", (2 * n + 1) * HOUR, (2 * n + 2) * HOUR)).await);
    }
    let addresses: BTreeSet<String> = rentals.iter().map(|rental| rental["addresses"].to_string()).collect();
    assert_eq!(addresses.len(), 8, "{addresses:?}");
    let more = json!({ "customer": "crm-17", "items": [item("cam-1", 90 * HOUR, 91 * HOUR)] });
    let mut dry = more.clone();
    dry["dry_run"] = json!(true);
    for body in [&more, &dry] {
        let full = api.operator().post("/api/v1/bookings", body.clone()).await;
        assert_eq!((full.status, full.code()), (409, "alias_block_full"), "{}", full.text);
        let first: jiff::Timestamp = text(&rentals[0]["until"]).parse().unwrap();
        let free = (first + jiff::SignedDuration::from_hours(24)).to_string();
        assert!(full.text.contains("all 8 addresses") && full.text.contains(&free), "{free}: {}", full.text);
    }
    assert_eq!(must(&api.operator().get("/api/v1/bookings").await)["items"].as_array().unwrap().len(), 8);
    let given_up = &rentals[3];
    post(&api, given_up, "cancel", json!({})).await;
    let resting = api.operator().post("/api/v1/bookings", more.clone()).await;
    assert_eq!(resting.code(), "alias_block_full", "it rests for a day");
    long_ago(&api, given_up).await;
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    let next = must(&api.operator().post("/api/v1/bookings", more).await)["rentals"][0].clone();
    assert_eq!((&next["addresses"], &next["name"]), (&given_up["addresses"], &given_up["name"]));
    assert_eq!(must(&api.operator().get(&path(given_up)).await)["addresses"], json!([]));
    told.hear(&mut api);
    assert!(told.of(&next).is_some() && told.of(given_up).is_none());
    // The clock is set back: the alias has one owner.
    let sql = "update rentals set ended_at = ended_at + 86401000 where id = cast($1 as integer)";
    let former = id(IdKind::Rental, text(&given_up["id"])).as_i64().to_string();
    fixture::run(&api.state.store, sql, &[&former]).await;
    assert_eq!(must(&api.operator().get(&path(given_up)).await)["addresses"], json!([]));
}

#[tokio::test]
async fn a_rental_that_has_rested_leaves_the_policy() {
    let mut api = shop().await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    post(&api, &rental, "end", json!({ "reason": "ended" })).await;
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    assert!(told.of(&rental).is_some(), "it says that it is over");
    let (store, handle) = (api.state.store.clone(), api.state.handle.clone());
    housekeeping::free_aliases(&store, &handle, crate::clock::wall()).await.unwrap();
    told.hear(&mut api);
    assert!(told.of(&rental).is_some());
    let later = crate::clock::wall() + Duration::from_secs(25 * HOUR);
    housekeeping::free_aliases(&store, &handle, later).await.unwrap();
    told.hear(&mut api);
    assert_eq!(told, ReceivedAccess::default());
    assert_eq!(must(&api.operator().get(&path(&rental)).await)["addresses"], json!([]));
}

#[tokio::test]
async fn a_device_allows_what_its_settings_say() {
    let api = shop().await;
    let settings = "/api/v1/devices/cam-1/rental-settings";
    let usual = json!([{ "protocol": "icmp", "ports": [] }, { "protocol": "tcp", "ports": [22, 80, 443] }]);
    assert_eq!(must(&api.viewer().get(settings).await)["access"], usual);
    renting(&api, "cam-1", json!({ "rentable": true, "access": [{ "protocol": "udp", "ports": [53] }] }))
        .await;
    renting(&api, "cam-1", json!({ "rentable": true, "preparation_s": 60 })).await;
    let kept = must(&api.viewer().get(settings).await).clone();
    assert_eq!(kept["access"], json!([{ "protocol": "udp", "ports": [53] }]), "what is absent stays");
    let event = api.operator().get("/api/v1/events?kind=device.rental_settings_changed").await;
    assert_eq!(must(&event)["items"][0]["data"]["access"], kept["access"]);
    let wrong = json!({ "rentable": true, "access": [{ "protocol": "tcp" }] });
    assert_eq!(field(&api.operator().put(settings, wrong).await), (422, "access[0].ports"));
    let ssh = json!([{ "protocol": "tcp", "ports": [22] }]);
    let any = |access: &Value, from: u64| json!([{ "labels": { "kind": "cam" }, "access": access, "from": hence(from), "until": hence(from + 60) }]);
    let chosen = book(&api, any(&ssh, HOUR)).await;
    assert_eq!(must(&chosen)["rentals"][0]["device_name"], "cam-2", "cam-1 comes first, and allows no SSH");
    let refused = book(&api, any(&ssh, HOUR)).await;
    assert_eq!((refused.status, refused.code()), (409, "occupied"), "{}", refused.text);
    let none = book(&api, any(&json!([{ "protocol": "tcp", "ports": [23] }]), 2 * HOUR)).await;
    assert_eq!(field(&none), (422, "items[0].access"), "{}", none.text);
    assert!(none.text.contains("no device of the selection"), "{}", none.text);
    let all = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    assert_eq!(all["access"], kept["access"], "all that the device allows");
    renting(&api, "cam-1", json!({ "rentable": true, "access": [] })).await;
    assert_eq!(
        must(&api.operator().get(&path(&all)).await)["access"],
        kept["access"],
        "it was booked with it"
    );
    assert_eq!(rented(&api, item("cam-1", 5 * HOUR, 6 * HOUR)).await["access"], json!([]));
}

#[tokio::test]
async fn a_swap_keeps_name_and_alias_and_needs_a_device_that_allows_the_access() {
    let mut api = shop().await;
    renting(&api, "cam-2", json!({ "rentable": true, "access": [{ "protocol": "icmp" }] })).await;
    device(&api, "cam-3").await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let refused = change(&api, &rental, json!({ "device": "cam-2" })).await;
    assert_eq!((refused.status, refused.code()), (409, "access_not_allowed"), "{}", refused.text);
    assert!(refused.text.contains("cam-2 does not allow tcp 22"), "{}", refused.text);
    assert_eq!(must(&api.operator().get(&path(&rental)).await), &rental, "nothing is lost");
    // It began an hour ago.
    fixture::run(&api.state.store, "update rentals set from_at = from_at - 3600000", &[]).await;
    let swapped = must(&change(&api, &rental, json!({ "device": "cam-3" })).await).clone();
    for field in ["name", "addresses", "access"] {
        assert_eq!(swapped[field], rental[field], "{field}");
    }
    let body = json!({ "device": "cam-2", "access": [{ "protocol": "icmp" }] });
    let with_access = must(&change(&api, &rental, body).await).clone();
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    let (target, grant) = told.of(&rental).unwrap();
    assert_eq!(target.host, id(IdKind::Host, text(&with_access["device"])));
    assert_eq!(target.peer, target.host);
    let booked: jiff::Timestamp = text(&rental["from"]).parse().unwrap();
    let from = grant.from.map(|from| from.as_millis());
    assert!(
        from >= Some(booked.as_millisecond()),
        "a clock that is set back opens no device before its swap"
    );
    assert_eq!(told, ReceivedAccess::at_a_start(&api).await);
}

#[tokio::test]
async fn what_is_not_confirmed_cancelled_or_without_a_device_permits_nothing() {
    let mut api = shop().await;
    let mut told = ReceivedAccess::default();
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "hold_until": hence(600),
        "items": [{ "device": "cam-1", "until": hence(HOUR) }] });
    let held = must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone();
    told.hear(&mut api);
    assert!(told.of(&held).is_none());
    must(&api.operator().patch("/api/v1/bookings/o1", json!({ "hold_until": null })).await);
    told.hear(&mut api);
    assert!(told.of(&held).is_some(), "at once");
    let planned = rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    told.hear(&mut api);
    assert!(told.of(&planned).is_some(), "before it begins, so that it begins in time");
    post(&api, &planned, "cancel", json!({})).await;
    let ended = post(&api, &held, "end", json!({ "reason": "revoked" })).await;
    told.hear(&mut api);
    assert!(told.of(&planned).is_none());
    let (_, grant) = told.of(&held).unwrap();
    assert_eq!(grant.until.map(crate::ids::time).as_deref(), ended["ended_at"].as_str());
    assert_eq!(grant.access, [], "whatever the clock shows later");
    assert_eq!(told, ReceivedAccess::at_a_start(&api).await);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-1").await.status, 204);
    told.hear(&mut api);
    assert_eq!(told, ReceivedAccess::default(), "the device has gone");
}

#[tokio::test]
async fn the_filter_hears_of_an_end_with_the_next_rental_at_the_latest() {
    let mut api = shop().await;
    let now = json!({ "device": "cam-1", "until": hence(HOUR) });
    let first = rented(&api, now.clone()).await;
    let mut told = ReceivedAccess::default();
    told.hear(&mut api);
    assert!(!told.of(&first).unwrap().1.access.is_empty());
    // The end is committed, and is still on its way to the filter.
    for sql in [
        "update rentals set ended_at = from_at, end_reason = 'ended'",
        "update occupancies set until_at = from_at",
    ] {
        fixture::run(&api.state.store, sql, &[]).await;
    }
    let next = rented(&api, now).await;
    told.hear(&mut api);
    assert!(!told.of(&next).unwrap().1.access.is_empty());
    assert_eq!(told.of(&first).unwrap().1.access, []);
}

#[tokio::test]
async fn rentals_of_an_earlier_version_get_their_aliases_at_a_start() {
    let api = small_shop().await;
    let mut rentals = Vec::new();
    for n in 0..3 {
        rentals.push(rented(&api, item("cam-1", (2 * n + 1) * HOUR, (2 * n + 2) * HOUR)).await);
    }
    post(&api, &rentals[1], "cancel", json!({})).await;
    long_ago(&api, &rentals[1]).await;
    let sql = "update rentals set alias_slot = null, alias_v4 = null, alias_v6 = null";
    fixture::run(&api.state.store, sql, &[]).await;
    assert_eq!(ReceivedAccess::at_a_start(&api).await, ReceivedAccess::default());
    let room = (api.state.config.alias_slots, api.state.config.pools());
    let mut tx = api.state.store.begin().await.unwrap();
    assert_eq!(aliases::take_missing(&mut tx, room, crate::clock::wall()).await.unwrap(), 0);
    tx.commit().await.unwrap();
    let shown = async |rental: &Value| must(&api.operator().get(&path(rental)).await)["addresses"].clone();
    assert_eq!(shown(&rentals[0]).await, rentals[0]["addresses"]);
    assert_eq!(shown(&rentals[1]).await, json!([]), "it is over");
    assert_eq!(shown(&rentals[2]).await, rentals[1]["addresses"], "the next free one");
    let told = ReceivedAccess::at_a_start(&api).await;
    assert!(told.of(&rentals[0]).is_some() && told.of(&rentals[2]).is_some());
    // A block without room leaves the others as they are.
    fixture::run(&api.state.store, "update alias_blocks set slots = 1", &[]).await;
    fixture::run(&api.state.store, sql, &[]).await;
    let mut tx = api.state.store.begin().await.unwrap();
    assert_eq!(aliases::take_missing(&mut tx, room, crate::clock::wall()).await.unwrap(), 1);
    drop(tx);
    fixture::run(&api.state.store, "update alias_blocks set slots = 0", &[]).await;
    let mut tx = api.state.store.begin().await.unwrap();
    let without = aliases::take_missing(&mut tx, room, crate::clock::wall()).await.unwrap();
    assert_eq!(without, 2, "each counts, also after the first one found no room");
}

// ------------------------------------------------------------------------ explain

pub(super) async fn explained(api: &TestApi, from: &str, to: &str, more: &str) -> Value {
    let asked = api.operator().get(&format!("/api/v1/explain?from={from}&to={to}{more}")).await;
    must(&asked).clone()
}

/// Returns the result of a question about SSH after so many seconds.
async fn ssh(api: &TestApi, from: &str, to: &str, after: u64) -> String {
    let asked = explained(api, from, to, &format!("&port=22&at={}", hence(after))).await;
    assert_eq!(asked["permitted"], json!(asked["result"] == "permitted"), "{asked}");
    text(&asked["result"]).to_owned()
}

#[tokio::test]
async fn explain_is_permitted_exactly_within_the_window() {
    let mut api = shop().await;
    api.start_tunnel().await;
    renter(&api, "crm-17", "laptop").await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let (name, v4) = (text(&rental["name"]), text(&rental["addresses"][0]));
    for to in [text(&rental["id"]), name, v4, text(&rental["addresses"][1])] {
        assert_eq!(ssh(&api, "laptop", to, 0).await, "not_yet", "{to}");
        assert_eq!(ssh(&api, "laptop", to, HOUR + 60).await, "permitted", "{to}");
        assert_eq!(ssh(&api, "laptop", to, 2 * HOUR + 60).await, "over", "{to}");
    }
    let before = explained(&api, "laptop", name, "&port=22").await;
    let (begin, until) = (text(&rental["from"]), text(&rental["until"]));
    let id = text(&rental["id"]);
    assert_eq!(
        before["text"],
        format!("laptop does not reach the rental {id} (tcp 22): the rental begins at {begin}")
    );
    assert_eq!((&before["rental"], &before["grant"]), (&rental["id"], &Value::Null));
    assert_eq!((&before["from"], &before["until"]), (&rental["from"], &rental["until"]));
    let within = explained(&api, "laptop", name, &format!("&port=22&at={}", hence(HOUR + 60))).await;
    assert_eq!(within["text"], format!("laptop reaches the rental {id} (tcp 22) until {until}"));
    let telnet = explained(&api, "laptop", name, "&port=23").await;
    assert_eq!(telnet["result"], "no_grant");
    assert!(text(&telnet["text"]).ends_with("renters of the rental reach icmp, tcp 22 80 443"), "{telnet}");

    must(&change(&api, &rental, json!({ "until": hence(3 * HOUR) })).await);
    assert_eq!(ssh(&api, "laptop", name, 2 * HOUR + 60).await, "permitted", "it was extended");
    must(&change(&api, &rental, json!({ "device": "cam-2" })).await);
    assert_eq!(ssh(&api, "laptop", v4, 2 * HOUR + 60).await, "permitted", "the alias stays");
    post(&api, &rental, "cancel", json!({})).await;
    assert_eq!(ssh(&api, "laptop", name, 2 * HOUR + 60).await, "no_grant");
    let cancelled = explained(&api, "laptop", v4, "&port=22").await;
    assert!(text(&cancelled["text"]).ends_with("the rental was cancelled"), "{cancelled}");
}

#[tokio::test]
async fn explain_says_that_a_rental_is_over_that_was_ended() {
    let mut api = shop().await;
    api.start_tunnel().await;
    renter(&api, "crm-17", "laptop").await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let to = text(&rental["id"]);
    assert_eq!(ssh(&api, "laptop", to, 0).await, "permitted");
    post(&api, &rental, "end", json!({ "reason": "ended" })).await;
    for after in [1, HOUR - 60, 2 * HOUR] {
        assert_eq!(ssh(&api, "laptop", to, after).await, "over", "{after}");
    }
    // The clock was ahead when it was ended, and is set back.
    let sql = "update rentals set ended_at = ended_at + 1200000";
    fixture::run(&api.state.store, sql, &[]).await;
    api.state.handle.reload_grants().await;
    assert_eq!(ssh(&api, "laptop", to, 60).await, "over", "what was ended opens no more");
    // Also when it has rested, from its row.
    let later = crate::clock::wall() + Duration::from_secs(25 * HOUR);
    housekeeping::free_aliases(&api.state.store, &api.state.handle, later).await.unwrap();
    assert_eq!(ssh(&api, "laptop", to, 60).await, "over");
}

#[tokio::test]
async fn explain_names_nothing_but_what_was_asked_for() {
    let mut api = shop().await;
    api.start_tunnel().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let (laptop, _) = (renter(&api, "crm-17", "laptop").await, renter(&api, "crm-17", "phone").await);
    renter(&api, "crm-18", "tablet").await;
    let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
    must(&api.admin().post("/api/v1/users", user).await);
    must(&api.admin().post("/api/v1/operators", json!({ "name": "anna-laptop", "user": "anna" })).await);
    let mut wanted = json!({ "device": "cam-1", "until": hence(HOUR) });
    (wanted["name"], wanted["renters"]) = (json!("attic"), json!([laptop]));
    let rental = rented(&api, wanted).await;
    let (to, customer) = (text(&rental["id"]), text(&rental["customer"]));
    for from in ["phone", "tablet"] {
        let asked = explained(&api, from, to, "&port=22").await;
        let why = format!("the rental of the customer {customer} does not admit this renter");
        assert_eq!(asked["text"], format!("{from} does not reach the rental {to} (tcp 22): {why}"), "{from}");
        assert_eq!((&asked["result"], &asked["rental"]), (&json!("no_grant"), &Value::Null));
    }
    for (from, target) in [("anna", to), ("anna-laptop", text(&rental["addresses"][0]))] {
        let asked = explained(&api, from, target, "&port=22").await;
        assert_eq!((&asked["permitted"], &asked["result"]), (&json!(false), &json!("no_grant")));
        assert!(text(&asked["text"]).contains("only renters of its customer"), "{asked}");
        assert!(!asked.to_string().contains("cam-1") && !asked.to_string().contains("attic"), "{asked}");
    }
    let device = explained(&api, "laptop", "cam-1", "&port=22").await;
    assert_eq!(device["result"], "no_grant");
    assert!(text(&device["text"]).contains("their rentals alone"), "{device}");
    assert!(!device.to_string().contains("grant add"), "{device}");
    // Only its renters call a rental by its name.
    assert_eq!(ssh(&api, "laptop", "attic", 60).await, "permitted");
    for from in ["tablet", "anna"] {
        let unknown = api.operator().get(&format!("/api/v1/explain?from={from}&to=attic")).await;
        assert_eq!(field(&unknown), (422, "to"), "{from}: {}", unknown.text);
    }
    for (from, to, wrong) in [("laptop", "l_0000000000007", "to"), ("w_0000000000007", "cam-1", "from")] {
        let unknown = api.operator().get(&format!("/api/v1/explain?from={from}&to={to}")).await;
        assert_eq!(field(&unknown), (422, wrong), "{}", unknown.text);
    }
    renter(&api, "crm-18", "laptop").await;
    let several = api.operator().get(&format!("/api/v1/explain?from=laptop&to={to}")).await;
    assert_eq!(field(&several), (422, "from"), "{}", several.text);
    assert!(several.text.contains("use the id"), "{}", several.text);
    assert_eq!(ssh(&api, &laptop, to, 60).await, "permitted");
}

#[tokio::test]
async fn a_rental_that_is_not_confirmed_is_explained() {
    let mut api = shop().await;
    api.start_tunnel().await;
    renter(&api, "crm-17", "laptop").await;
    let held = json!({ "customer": "crm-17", "external_ref": "o1", "hold_until": hence(600),
        "items": [{ "device": "cam-1", "until": hence(HOUR) }] });
    let held = must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone();
    let to = text(&held["id"]);
    let asked = explained(&api, "laptop", to, "&port=22").await;
    assert!(text(&asked["text"]).ends_with("the rental is not confirmed"), "{asked}");
    must(&api.operator().patch("/api/v1/bookings/o1", json!({ "hold_until": null })).await);
    assert_eq!(ssh(&api, "laptop", to, 60).await, "permitted");
}

#[tokio::test]
async fn a_renter_is_no_source_of_a_grant() {
    let api = shop().await;
    let laptop = renter(&api, "crm-17", "laptop").await;
    for peer in [laptop.as_str(), "laptop"] {
        let grant = json!({ "source": { "peer": peer }, "target": { "host": "cam-1" },
            "access": [{ "protocol": "icmp" }] });
        let refused = api.admin().post("/api/v1/grants", grant).await;
        assert_eq!(field(&refused), (422, "source.peer"), "{}", refused.text);
        assert!(refused.text.contains(&format!("{laptop} is a renter")), "{}", refused.text);
    }
}

#[tokio::test]
async fn only_an_admin_probes_as_a_renter_and_no_name_is_kept() {
    let mut api = shop().await;
    let laptop = renter(&api, "crm-17", "lovelace-laptop").await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let mut probes = api.answer_probes(super::explain::answered());
    let asked = json!({ "from": "lovelace-laptop", "to": rental["name"], "port": 22 });
    let refused = api.operator().post("/api/v1/explain/probe", asked.clone()).await;
    assert_eq!((refused.status, refused.code()), (403, "role_missing"), "{}", refused.text);
    let caller = api.admin().header("idempotency-key", "k");
    let answer = caller.post("/api/v1/explain/probe", asked).await;
    assert_eq!(must(&answer)["result"], "answered", "{}", answer.text);
    let probe = probes.try_recv().unwrap();
    let expected = (
        ExplainSource::Peer(id(IdKind::Renter, &laptop)),
        ExplainTarget::Rental(id(IdKind::Rental, text(&rental["id"]))),
    );
    assert_eq!((probe.from, probe.to), expected);
    let audit = api.admin().get("/api/v1/audit?kind=forwarding.probed").await;
    assert_eq!(must(&audit)["items"][0]["data"]["from"], json!(laptop));
    assert!(!audit.text.contains("lovelace") && !answer.text.contains("lovelace"), "{}", answer.text);
}

// --------------------------------------------------------------- the naive model

/// What a rental lets renters reach: the device, the window and the addresses.
type Reach = (Id, String, String, Vec<String>);

/// When each rental reaches its present device: at its beginning, or since a swap.
async fn begins(api: &TestApi) -> BTreeMap<Id, String> {
    let sql = "select r.id || ' ' || max(r.from_at, coalesce(max(o.from_at), 0))
               from rentals r left join occupancies o on o.rental = r.id group by r.id";
    let rows = fixture::texts(&api.state.store, sql).await;
    let begin = |row: &String| {
        let (rental, from) = row.split_once(' ').unwrap();
        let from = Wall::from_millis(from.parse().unwrap());
        (Id::from_i64(rental.parse().unwrap()), crate::ids::time(from))
    };
    rows.iter().map(begin).collect()
}

/// The access that the rentals show themselves.
async fn said(api: &TestApi) -> BTreeMap<Id, Reach> {
    let begins = begins(api).await;
    let listed = api.operator().get("/api/v1/rentals?limit=500").await;
    let permits = |rental: &&Value| !["held", "cancelled"].contains(&text(&rental["state"]));
    let reach = |rental: &Value| {
        let end = rental["ended_at"].as_str().unwrap_or_else(|| text(&rental["until"]));
        let addresses = rental["addresses"].as_array().unwrap().iter().map(|at| text(at).to_owned());
        let rental_id = id(IdKind::Rental, text(&rental["id"]));
        let from = begins[&rental_id].clone();
        let device = id(IdKind::Host, text(&rental["device"]));
        (rental_id, (device, from, end.to_owned(), addresses.collect()))
    };
    must(&listed)["items"].as_array().unwrap().iter().filter(permits).map(reach).collect()
}

fn told_of(told: &ReceivedAccess) -> BTreeMap<Id, Reach> {
    let reach = |(rental, target): (&Id, &TargetSpec)| {
        let grant = &told.grants[rental];
        let time = |at: Option<_>| at.map(crate::ids::time).unwrap_or_default();
        let addresses = target.addresses.iter().map(|address| address.reached_at.to_string()).collect();
        (*rental, (target.host, time(grant.from), time(grant.until), addresses))
    };
    told.targets.iter().map(reach).collect()
}

/// One random call about one of the rentals that were booked, which may be refused.
async fn step(api: &TestApi, dice: &mut fixture::Dice, bookings: &mut Vec<Value>) {
    let device = ["cam-1", "cam-2", "cam-3"][dice.below(3) as usize];
    let (from, length) = (dice.below(6) * HOUR, (dice.below(3) + 1) * HOUR);
    let any = dice.pick(&bookings[..]);
    let rental = any.as_ref().map(|booking| booking["rentals"][0].clone());
    let (booking, rental) = match (dice.below(8), any, rental) {
        (n, Some(booking), Some(rental)) if n > 2 => (booking, rental),
        _ => {
            let mut item = json!({ "device": device, "until": hence(from + length) });
            if from > 0 {
                item["from"] = json!(hence(from));
            }
            let mut body = json!({ "customer": "crm-17", "items": [item] });
            if dice.once_in(3) {
                body["hold_until"] = json!(hence(600));
            }
            let made = api.operator().post("/api/v1/bookings", body).await;
            bookings.extend((made.status == 201).then_some(made.json));
            return;
        }
    };
    let path = path(&rental);
    let answer = match dice.below(9) {
        0 => {
            let booking = format!("/api/v1/bookings/{}", text(&booking["id"]));
            api.operator().patch(&booking, json!({ "hold_until": null })).await
        }
        1 => api.operator().patch(&path, json!({ "until": hence(from + length) })).await,
        2 => api.operator().patch(&path, json!({ "device": device })).await,
        3 => api.operator().post(&format!("{path}/cancel"), json!({})).await,
        4 => api.operator().post(&format!("{path}/end"), json!({ "reason": "ended" })).await,
        5 => api.operator().patch(&path, json!({ "access": [{ "protocol": "icmp" }] })).await,
        6 => {
            let booking = format!("/api/v1/bookings/{}", text(&booking["id"]));
            api.operator().patch(&booking, json!({ "hold_until": hence(900) })).await
        }
        7 => {
            let blocks = format!("/api/v1/devices/{device}/blocks");
            let listed = must(&api.operator().get(&blocks).await)["items"].clone();
            let block = listed.as_array().unwrap().iter().find(|block| block["ended_at"].is_null());
            let Some(block) = block else { return };
            api.operator().delete(&format!("{blocks}/{}", text(&block["id"]))).await
        }
        _ => {
            let block = json!({ "reason": "x", "from": hence(from + 1), "until": hence(from + 600),
                "force": dice.once_in(2) });
            api.operator().post(&format!("/api/v1/devices/{device}/blocks"), block).await
        }
    };
    assert!(answer.status < 500, "{}", answer.text);
}

#[tokio::test]
async fn the_policy_is_what_the_windows_say_after_any_calls() {
    for seed in 1..=6 {
        let mut api = shop().await;
        device(&api, "cam-3").await;
        let (mut dice, mut bookings, mut told) = (fixture::Dice(seed), Vec::new(), ReceivedAccess::default());
        for n in 0..50 {
            step(&api, &mut dice, &mut bookings).await;
            told.hear(&mut api);
            assert_eq!(told_of(&told), said(&api).await, "seed {seed}, step {n}");
        }
        assert!(bookings.len() >= 5, "seed {seed}: {}", bookings.len());
        assert_eq!(told, ReceivedAccess::at_a_start(&api).await, "seed {seed}");
    }
}

// ------------------------------------------- the packet filter beside the naive model

/// The packet filter of a gateway whose clocks run evenly, and ahead of those of the calls.
struct PacketFilter {
    forwarder: Forwarder,
    now: Now,
}

impl PacketFilter {
    /// One that starts with what the database has. What the former one had not heard is lost.
    async fn started(api: &mut TestApi, now: Now) -> PacketFilter {
        while api.tunnel.try_recv().is_ok() {}
        let config = forward::Config {
            gateway_v4: "10.112.0.1".parse().unwrap(),
            gateway_v6: "fd72:6c65:6574::1".parse().unwrap(),
            limits: forward::Limits::default(),
        };
        let mut filter = PacketFilter { forwarder: Forwarder::new(config), now };
        let mut conn = api.state.store.reader().await.unwrap();
        filter.take(policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes);
        filter
    }

    fn hear(&mut self, api: &mut TestApi) {
        told(api).into_iter().for_each(|changes| self.take(changes));
    }

    fn take(&mut self, changes: Vec<PolicyChange>) {
        for change in changes {
            self.forwarder.change(change, self.now);
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now { mono: self.now.mono + by, wall: self.now.wall + by };
    }

    fn permits(&self, renter: Id, rental: Id, at: Wall) -> bool {
        let (from, to) = (ExplainSource::Peer(renter), ExplainTarget::Rental(rental));
        let question = ExplainRequest { from, to, protocol: GrantProtocol::Tcp, port: 22, at };
        matches!(self.forwarder.explain(&question, self.now), Explanation::Permitted(_))
    }
}

fn moment(time: &Value) -> Wall {
    let at: jiff::Timestamp = text(time).parse().unwrap();
    Wall::from_millis(at.as_millisecond())
}

/// The time in which a rental has its device, by its own words.
struct Claim {
    device: String,
    from: Wall,
    until: Wall,
    /// It is confirmed, waits for no handover, and its renters reach TCP 22.
    opens: bool,
}

/// The rentals that have a device, or had one.
async fn claims(api: &TestApi) -> BTreeMap<Id, Claim> {
    let begins = begins(api).await;
    let listed = api.operator().get("/api/v1/rentals?limit=500").await;
    let claim = |rental: &Value| {
        let rental_id = id(IdKind::Rental, text(&rental["id"]));
        let until = if rental["ended_at"].is_null() { &rental["until"] } else { &rental["ended_at"] };
        let reaches_ssh = rental["access"].as_array().unwrap().iter().any(|of| of["protocol"] == "tcp");
        let is_open = rental["state"] != "held" && rental["awaits_handover"] == false;
        let claim = Claim {
            device: text(&rental["device_name"]).to_owned(),
            from: moment(&json!(begins[&rental_id])),
            until: moment(until),
            opens: is_open && reaches_ssh,
        };
        (rental_id, claim)
    };
    let items = must(&listed)["items"].as_array().unwrap();
    items.iter().filter(|rental| rental["state"] != "cancelled").map(claim).collect()
}

/// The devices that are blocked, and when.
async fn blocks(api: &TestApi) -> Vec<(String, Wall, Wall)> {
    let mut all = Vec::new();
    for device in ["cam-1", "cam-2", "cam-3"] {
        let listed = api.operator().get(&format!("/api/v1/devices/{device}/blocks?limit=500")).await;
        let items = must(&listed)["items"].as_array().unwrap();
        let open = items.iter().filter(|block| block["ended_at"].is_null());
        all.extend(open.map(|block| (device.to_owned(), moment(&block["from"]), moment(&block["until"]))));
    }
    all
}

fn no_two_overlap(claims: &BTreeMap<Id, Claim>, story: &str) {
    let all: Vec<(&Id, &Claim)> = claims.iter().filter(|(_, claim)| claim.from < claim.until).collect();
    for (n, (one, a)) in all.iter().enumerate() {
        for (other, b) in &all[n + 1..] {
            let apart = a.device != b.device || a.until <= b.from || b.until <= a.from;
            assert!(apart, "{story}: {one} and {other} have {} at one time", a.device);
        }
    }
}

/// Checks at the edges of each window and block whether renters pass. Returns how often they do.
async fn agree(api: &TestApi, filter: &PacketFilter, renter: Id, story: &str) -> usize {
    let (claims, blocks) = (claims(api).await, blocks(api).await);
    no_two_overlap(&claims, story);
    let mut passes = 0;
    for (rental, claim) in &claims {
        let own: Vec<_> = blocks.iter().filter(|(device, ..)| *device == claim.device).collect();
        let edges = own.iter().flat_map(|(_, from, until)| [*from, *until]);
        let edges = edges.chain([filter.now.wall, claim.from, claim.until]);
        let around = edges.flat_map(|at| [at - Duration::from_millis(1), at]);
        for at in around.filter(|at| *at >= filter.now.wall) {
            let is_blocked = own.iter().any(|(_, from, until)| (*from..*until).contains(&at));
            let expected = claim.opens && !is_blocked && (claim.from..claim.until).contains(&at);
            let found = filter.permits(renter, *rental, at);
            assert_eq!(found, expected, "{story}: {rental} at {}", crate::ids::time(at));
            passes += usize::from(found);
        }
    }
    passes
}

#[tokio::test]
async fn renters_pass_exactly_in_the_windows_after_any_calls_and_restarts() {
    for seed in 11..=14 {
        let mut api = shop().await;
        device(&api, "cam-3").await;
        let laptop = renter(&api, "crm-17", "laptop").await;
        let laptop = id(IdKind::Renter, &laptop);
        let (mut dice, mut bookings, mut passes) = (fixture::Dice(seed), Vec::new(), 0);
        let now = Now { mono: Mono::from_nanos(1_000_000_000_000_000), wall: crate::clock::wall() };
        let mut filter = PacketFilter::started(&mut api, now).await;
        for n in 0..40 {
            step(&api, &mut dice, &mut bookings).await;
            if dice.once_in(5) {
                filter = PacketFilter::started(&mut api, filter.now).await;
            }
            filter.hear(&mut api);
            filter.advance(Duration::from_secs(60 * dice.below(15)));
            passes += agree(&api, &filter, laptop, &format!("seed {seed}, step {n}")).await;
        }
        assert!(passes > 20, "seed {seed}: {passes}");
    }
}
