//! People of customers and their renters: added, refused, changed, and removed with all personal data.

use std::collections::BTreeSet;

use fleetgate_engine::messages::{Command, DropReason, PeerKind, PeerStatus, SourceOwner};
use fleetgate_keys::Conf;
use serde_json::{Value, json};

use super::operators::{has_lost_its_peer, heard, key, sources};
use super::rentals::{everything, field, must, text};
use crate::api::request::ids::IdKind;
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, TestApi};
use crate::config::Config;
use crate::store::access::Role;
use crate::store::fixture;

/// A gateway with the customer crm-17.
async fn shop() -> TestApi {
    shop_with(|_| {}).await
}

async fn shop_with(change: impl FnOnce(&mut Config)) -> TestApi {
    let api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        change(config);
    })
    .await;
    customer(&api, "crm-17").await;
    api
}

async fn customer(api: &TestApi, external_ref: &str) {
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": external_ref })).await);
}

/// Adds a person and returns the id.
async fn person(api: &TestApi, customer: &str, name: &str) -> String {
    let made = api.operator().post("/api/v1/people", json!({ "customer": customer, "name": name })).await;
    text(&must(&made)["id"]).to_owned()
}

async fn add(api: &TestApi, person: &str, name: &str) -> Answer {
    api.operator().post("/api/v1/renters", json!({ "person": person, "name": name })).await
}

/// Adds a renter and returns its path.
async fn renter(api: &TestApi, person: &str, name: &str) -> String {
    format!("/api/v1/renters/{}", text(&must(&add(api, person, name).await)["renter"]["id"]))
}

async fn ids(api: &TestApi, list: &str) -> BTreeSet<String> {
    let answer = api.operator().get(&format!("/api/v1/{list}")).await;
    must(&answer)["items"].as_array().unwrap().iter().map(|item| text(&item["id"]).to_owned()).collect()
}

#[tokio::test]
async fn a_person_is_added_changed_and_removed() {
    let api = shop().await;
    let caller = api.operator().header("idempotency-key", "k");
    let ada = json!({ "customer": "crm-17", "name": "Ada", "email": "ada@example.org" });
    let made = caller.post("/api/v1/people", ada.clone()).await;
    assert_eq!((made.status, &made.headers["etag"]), (201, &"\"1\"".parse().unwrap()), "{}", made.text);
    assert_eq!(caller.post("/api/v1/people", ada).await.json, made.json);
    let one = format!("/api/v1/people/{}", text(&made.json["id"]));
    let shown = api.operator().get(&one).await;
    assert_eq!((&shown.json["name"], &shown.json["email"]), (&json!("Ada"), &json!("ada@example.org")));
    assert_eq!(shown.json["customer"], made.json["customer"]);
    for (name, value) in [
        ("name", json!("a\nb")),
        ("name", json!("a".repeat(256))),
        ("email", json!("ada")),
        ("email", json!("")),
        ("email", json!(format!("{}@example.org", "a".repeat(256)))),
    ] {
        let refused = api.operator().patch(&one, json!({ name: value })).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
        let new = json!({ "customer": "crm-17", name: value });
        assert_eq!(field(&api.operator().post("/api/v1/people", new).await), (422, name));
    }
    assert_eq!(api.operator().patch(&one, json!({ "name": null })).await.status, 422);
    assert_eq!(ids(&api, "people").await.len(), 1, "nothing is left behind");
    let stale = api.operator().header("if-match", "\"2\"");
    assert_eq!(stale.patch(&one, json!({ "name": "x" })).await.code(), "changed_meanwhile");
    assert_eq!(stale.delete(&one).await.code(), "changed_meanwhile");
    let change = json!({ "name": "Ada King", "email": null });
    let changed = api.operator().header("if-match", "\"1\"").patch(&one, change.clone()).await;
    assert_eq!((&must(&changed)["name"], &changed.json["version"]), (&json!("Ada King"), &json!(2)));
    assert_eq!(changed.json["email"], Value::Null);
    assert_eq!(api.operator().patch(&one, change).await.json["version"], 2, "the same changes nothing");
    assert_eq!(api.operator().delete(&one).await.status, 204);
    assert_eq!(api.operator().get(&one).await.status, 404);
    assert_eq!(api.operator().delete(&one).await.status, 404);
    assert!(!everything(&api).await.contains("Ada"));
    let left = "select name || coalesce(email, '') from people";
    assert_eq!(fixture::texts(&api.state.store, left).await, [""]);
    let log = api.admin().get("/api/v1/events?kind=person").await;
    let kinds: Vec<&str> = log.json["items"].as_array().unwrap().iter().map(|e| text(&e["kind"])).collect();
    assert_eq!(kinds, ["person.removed", "person.changed", "person.created"]);
}

#[tokio::test]
async fn people_are_listed_by_customer() {
    let api = shop().await;
    customer(&api, "crm-18").await;
    let ada = person(&api, "crm-17", "Ada").await;
    let bob = person(&api, "crm-18", "Bob").await;
    let (laptop, phone) = (renter(&api, &ada, "laptop").await, renter(&api, &bob, "phone").await);
    let [laptop, phone] = [laptop, phone].map(|path| path.rsplit('/').next().unwrap().to_owned());
    let by_bob = format!("renters?person={bob}");
    let of_neither = format!("{by_bob}&customer=crm-17");
    for (list, found) in [
        ("people", vec![&ada, &bob]),
        ("people?customer=crm-18", vec![&bob]),
        ("renters", vec![&laptop, &phone]),
        ("renters?customer=crm-17", vec![&laptop]),
        (by_bob.as_str(), vec![&phone]),
        (of_neither.as_str(), vec![]),
    ] {
        let expected: BTreeSet<String> = found.into_iter().cloned().collect();
        assert_eq!(ids(&api, list).await, expected, "{list}");
    }
    let first = api.operator().get("/api/v1/renters?limit=1").await;
    let next = format!("renters?limit=1&after={}", text(&must(&first)["next"]));
    let mut both = ids(&api, &next).await;
    both.insert(text(&first.json["items"][0]["id"]).to_owned());
    assert_eq!(both, BTreeSet::from([laptop, phone]));
    for unknown in ["people?customer=crm-19", "renters?customer=crm-19", "renters?person=ada", "people/ada"] {
        let refused = api.operator().get(&format!("/api/v1/{unknown}")).await;
        assert_eq!((refused.status, refused.code()), (404, "not_found"), "{unknown}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_renter_gets_a_configuration_for_its_customer_s_block_and_its_place_in_the_tunnel() {
    let mut api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    heard(&mut api);
    let made = add(&api, &ada, "laptop").await;
    assert_eq!((made.status, &made.headers["etag"]), (201, &"\"1\"".parse().unwrap()), "{}", made.text);
    let conf: Conf = text(&made.json["credentials"]["conf"]).parse().unwrap();
    let allowed: Vec<String> = conf.allowed_ips.iter().map(ToString::to_string).collect();
    let expected =
        ["10.115.255.128/26", "fd72:6c65:6574::3:ff80/122", "10.112.0.1/32", "fd72:6c65:6574::1/128"];
    assert_eq!(allowed, expected, "never the pool");
    assert_eq!(made.json["renter"]["allowed_ips"], json!(expected));
    assert!(made.json["credentials"]["qr_svg"].is_string());
    let path = format!("/api/v1/renters/{}", text(&made.json["renter"]["id"]));
    let shown = api.operator().get(&path).await;
    assert_eq!((&must(&shown)["name"], &shown.json["person"]), (&json!("laptop"), &json!(ada)));
    assert_eq!(shown.json["addresses"], json!(["10.112.0.2", "fd72:6c65:6574::2"]));
    assert_eq!(shown.json["endpoint"], Value::Null, "where a person is stays unknown");

    let commands = heard(&mut api);
    let [source] = sources(&commands)[..] else { panic!("{commands:?}") };
    let SourceOwner::Person { person, customer } = source.owner else { panic!("{source:?}") };
    assert_eq!(json!(IdKind::Person.text(person)), shown.json["person"]);
    assert_eq!(json!(IdKind::Customer.text(customer)), shown.json["customer"]);
    let Some(Command::Upsert(spec, _)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!((spec.kind, spec.id, spec.keys.len()), (PeerKind::Renter, source.peer, 1));
    assert!(api.monitor.try_recv().is_err(), "it is no host");
    assert_eq!(api.viewer().get("/api/v1/devices").await.json["items"], json!([]));
    assert_eq!(api.operator().get("/api/v1/operators").await.json["items"], json!([]));

    let second = must(&add(&api, &ada, "phone").await)["renter"]["allowed_ips"].clone();
    assert_eq!(second, json!(expected), "a customer has one block");
    customer_has_its_own_block(&api).await;
}

async fn customer_has_its_own_block(api: &TestApi) {
    customer(api, "crm-18").await;
    let bob = person(api, "crm-18", "Bob").await;
    let other = must(&add(api, &bob, "laptop").await)["renter"]["allowed_ips"].clone();
    assert_eq!(other[0], "10.115.255.64/26");
}

#[tokio::test]
async fn a_repeated_call_shows_no_secret_and_no_personal_data() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let caller = api.operator().header("idempotency-key", "k");
    let body = json!({ "person": ada, "name": "lovelace-laptop" });
    let made = caller.post("/api/v1/renters", body.clone()).await;
    let repeated = caller.post("/api/v1/renters", body).await;
    assert_eq!((repeated.status, &repeated.headers["idempotency-replayed"]), (201, &"true".parse().unwrap()));
    assert_eq!(
        (&repeated.json["renter"], &repeated.json["credentials"]),
        (&made.json["renter"], &Value::Null)
    );
    assert!(!fixture::answers(&api.state.store).await.contains("lovelace"));
    assert_eq!(ids(&api, "renters").await.len(), 1);
}

#[tokio::test]
async fn bad_people_names_and_keys_are_refused_and_leave_nothing() {
    let api = shop().await;
    customer(&api, "crm-18").await;
    let ada = person(&api, "crm-17", "Ada").await;
    let (gone, erased) = (person(&api, "crm-17", "Eve").await, person(&api, "crm-18", "Bob").await);
    assert_eq!(api.operator().delete(&format!("/api/v1/people/{gone}")).await.status, 204);
    assert_eq!(api.operator().delete("/api/v1/customers/crm-18").await.status, 204);
    let device = json!({ "name": "cam1", "public_key": key(1) });
    must(&api.operator().post("/api/v1/devices", device).await);
    let laptop = json!({ "person": ada, "name": "laptop", "public_key": key(2) });
    let laptop = api.operator().post("/api/v1/renters", laptop).await;
    assert_eq!(must(&laptop)["credentials"]["private_key"], Value::Null);
    let own = api.state.identity.public_key.to_string();
    for (body, status, says) in [
        (json!({ "person": "ada", "name": "a" }), 422, "person: no person is called"),
        (json!({ "person": gone, "name": "a" }), 422, "person: no person is called"),
        (json!({ "person": erased, "name": "a" }), 422, "person: no person is called"),
        (json!({ "person": ada, "name": "Laptop" }), 422, "name: a name has"),
        (json!({ "person": ada, "name": "a", "mtu": 1_279 }), 422, "mtu: 1279 is no inner MTU"),
        (json!({ "person": ada, "name": "a", "public_key": "x" }), 422, "public_key: "),
        (json!({ "person": ada, "name": "a", "public_key": own }), 422, "the gateway's own key"),
        (json!({ "person": ada, "name": "laptop" }), 409, "a renter of this customer is called \"laptop\""),
        (json!({ "person": ada, "name": "a", "public_key": key(1) }), 409, "(by cam1, h_"),
        (json!({ "person": ada, "name": "a", "public_key": key(2) }), 409, "(by w_"),
    ] {
        let refused = api.operator().post("/api/v1/renters", body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
        assert!(text(&refused.json["detail"]).contains(says), "{body}: {}", refused.text);
    }
    let limited = api.limited(Role::Operator, Area::Rentals).await;
    let body = json!({ "person": ada, "name": "a", "public_key": key(1) });
    let refused = limited.post("/api/v1/renters", body).await;
    assert_eq!((refused.status, refused.code()), (409, "key_in_use"), "{}", refused.text);
    assert!(!refused.text.contains("cam1") && !refused.text.contains("h_"), "{}", refused.text);
    for customer in ["crm-18", "crm-99", "k_0000000000007"] {
        let refused = api.operator().post("/api/v1/people", json!({ "customer": customer })).await;
        assert_eq!(field(&refused), (422, "customer"), "{}", refused.text);
    }
    let taken = json!({ "name": "cam2", "public_key": key(2) });
    let taken = api.operator().post("/api/v1/devices", taken).await;
    assert_eq!(taken.code(), "key_in_use");
    assert!(!taken.text.contains("laptop"), "the name is personal data: {}", taken.text);
    assert_eq!(ids(&api, "renters").await.len(), 1, "nothing is left behind");
    let peers = fixture::texts(&api.state.store, "select kind from peers order by kind").await;
    assert_eq!(peers, ["device", "renter"]);
}

#[tokio::test]
async fn a_key_that_was_replaced_is_never_taken_again() {
    let mut api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let first = json!({ "person": ada, "name": "laptop", "public_key": key(2) });
    let first = api.operator().post("/api/v1/renters", first).await;
    let path = format!("/api/v1/renters/{}", text(&must(&first)["renter"]["id"]));
    heard(&mut api);
    let reissue = format!("{path}/credentials");
    let again = api.operator().post(&reissue, json!({ "public_key": key(3) })).await;
    assert_eq!((again.status, &again.json["renter"]["public_key"]), (200, &json!(key(3))), "{}", again.text);
    assert_eq!(again.json["renter"]["allowed_ips"], first.json["renter"]["allowed_ips"]);
    let commands = heard(&mut api);
    let Some(Command::Upsert(spec, _)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!((spec.keys.len(), spec.keys[0].public.to_string()), (1, key(3)));
    for used in [2, 3] {
        let refused = api.operator().post(&reissue, json!({ "public_key": key(used) })).await;
        assert_eq!((refused.status, refused.code()), (409, "key_in_use"), "{}", refused.text);
    }
    let unknown = api.operator().post("/api/v1/renters/w_0000000000007/credentials", json!({})).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(api.operator().delete(&path).await.status, 204);
    assert!(has_lost_its_peer(&heard(&mut api)));
    let other = json!({ "person": ada, "name": "laptop", "public_key": key(3) });
    assert_eq!(api.operator().post("/api/v1/renters", other).await.code(), "key_in_use");
    assert_eq!(api.state.store.retired_keys(9).await.unwrap().len(), 2);
    let log = api.admin().get("/api/v1/events?kind=renter").await;
    let kinds: Vec<&str> = log.json["items"].as_array().unwrap().iter().map(|e| text(&e["kind"])).collect();
    assert_eq!(kinds, ["renter.removed", "renter.rekeyed", "renter.created"]);
}

#[tokio::test]
async fn a_renter_is_changed_under_its_etag() {
    let mut api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let path = renter(&api, &ada, "laptop").await;
    renter(&api, &bob, "phone").await;
    let stale = api.operator().header("if-match", "\"7\"");
    assert_eq!(stale.patch(&path, json!({ "name": "x" })).await.code(), "changed_meanwhile");
    assert_eq!(stale.delete(&path).await.code(), "changed_meanwhile");
    let taken = api.operator().patch(&path, json!({ "name": "phone" })).await;
    assert_eq!((taken.status, taken.code()), (409, "name_taken"), "of another person of the customer");
    for (name, value) in [("name", json!("A B")), ("mtu", json!(9_000))] {
        assert_eq!(field(&api.operator().patch(&path, json!({ name: value })).await), (422, name));
    }
    heard(&mut api);
    let caller = api.operator().header("if-match", "\"1\"");
    let changed = caller.patch(&path, json!({ "name": "notebook", "mtu": 1_400 })).await;
    assert_eq!((&must(&changed)["name"], &changed.json["version"]), (&json!("notebook"), &json!(2)));
    let commands = heard(&mut api);
    let Some(Command::Upsert(spec, _)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!(spec.mtu, 1_400);
    let usual = api.operator().patch(&path, json!({ "mtu": null })).await;
    assert_eq!((&must(&usual)["mtu"], &usual.json["version"]), (&Value::Null, &json!(3)));
    let same = api.operator().patch(&path, json!({ "name": "notebook" })).await;
    assert_eq!(must(&same)["version"], 3);
    // Another customer may have the same name.
    customer(&api, "crm-18").await;
    let eve = person(&api, "crm-18", "Eve").await;
    renter(&api, &eve, "phone").await;
}

#[tokio::test]
async fn renters_end_with_their_person_and_people_with_their_customer() {
    let mut api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let (laptop, phone) = (renter(&api, &ada, "ada-laptop").await, renter(&api, &bob, "bob-phone").await);
    heard(&mut api);
    assert_eq!(api.operator().delete(&format!("/api/v1/people/{ada}")).await.status, 204);
    assert!(has_lost_its_peer(&heard(&mut api)));
    assert_eq!(api.operator().get(&laptop).await.status, 404);
    assert_eq!(add(&api, &ada, "again").await.status, 422);
    assert_eq!(must(&api.operator().get(&phone).await)["name"], "bob-phone");
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    assert!(has_lost_its_peer(&heard(&mut api)));
    for (path, status) in [(phone, 404), (format!("/api/v1/people/{bob}"), 404)] {
        assert_eq!(api.operator().get(&path).await.status, status, "{path}");
    }
    let everything = everything(&api).await;
    for personal in ["Ada", "Bob", "ada-laptop", "bob-phone"] {
        assert!(!everything.contains(personal), "{personal}: {everything}");
    }
    let left = "select name from renters union all select name from people";
    assert_eq!(fixture::texts(&api.state.store, left).await, [""; 4]);
    let removed = everything.matches("renter.removed").count();
    assert_eq!(removed, 4, "each is in the log and in the audit");
}

#[tokio::test]
async fn a_full_pool_and_a_gateway_without_endpoint_are_named() {
    let api = shop_with(|config| {
        config.pool_v4 = "10.9.0.0/27".parse().unwrap();
        config.alias_slots = 8;
    })
    .await;
    for n in 1..=3 {
        customer(&api, &format!("c-{n}")).await;
    }
    let people = [
        person(&api, "c-1", "Ada").await,
        person(&api, "c-2", "Bob").await,
        person(&api, "c-3", "Eve").await,
    ];
    must(&add(&api, &people[0], "laptop").await);
    must(&add(&api, &people[1], "laptop").await);
    let full = add(&api, &people[2], "laptop").await;
    assert_eq!((full.status, full.code()), (409, "pool_full"), "{}", full.text);
    let detail = text(&full.json["detail"]);
    assert!(detail.contains("10.9.0.0/27 has no 8 free addresses in a row"), "{detail}");
    assert!(detail.contains("alias_slots"), "{detail}");
    // Slots 2 to 7 and 24 to 30 are left for single addresses.
    for n in 1..=6 {
        must(&add(&api, &people[0], &format!("a{n}")).await);
    }
    for n in 1..=5 {
        must(&add(&api, &people[1], &format!("a{n}")).await);
    }
    let full = add(&api, &people[1], "one-more").await;
    assert_eq!((full.status, full.code()), (409, "pool_full"), "{}", full.text);
    assert!(text(&full.json["detail"]).starts_with("the pool 10.9.0.0/27 is full"), "{}", full.text);
    assert_eq!(ids(&api, "renters").await.len(), 13, "nothing is left behind");

    let api = TestApi::new().await;
    customer(&api, "crm-17").await;
    let ada = person(&api, "crm-17", "Ada").await;
    assert_eq!(add(&api, &ada, "laptop").await.code(), "endpoint_not_set");
    let blocks = fixture::texts(&api.state.store, "select 'block' from alias_blocks").await;
    assert!(blocks.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn a_customer_has_32_people_and_a_person_8_renters_at_most() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    for n in 2..=32 {
        person(&api, "crm-17", &format!("p{n}")).await;
    }
    let refused = api.operator().post("/api/v1/people", json!({ "customer": "crm-17" })).await;
    assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{}", refused.text);
    for n in 1..=8 {
        renter(&api, &ada, &format!("r{n}")).await;
    }
    let refused = add(&api, &ada, "r9").await;
    assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{}", refused.text);
    assert!(text(&refused.json["detail"]).contains("has 8 renters"), "{}", refused.text);
}

#[tokio::test]
async fn a_token_with_the_scope_rentals_manages_people_and_renters() {
    let api = shop().await;
    let limited = api.limited(Role::Operator, Area::Rentals).await;
    let made = limited.post("/api/v1/people", json!({ "customer": "crm-17" })).await;
    let person = format!("/api/v1/people/{}", text(&must(&made)["id"]));
    must(&limited.patch(&person, json!({ "name": "Ada" })).await);
    let body = json!({ "person": made.json["id"], "name": "laptop" });
    let added = limited.post("/api/v1/renters", body).await;
    let renter = format!("/api/v1/renters/{}", text(&must(&added)["renter"]["id"]));
    must(&limited.patch(&renter, json!({ "name": "notebook" })).await);
    must(&limited.post(&format!("{renter}/credentials"), json!({})).await);
    assert_eq!(limited.delete(&renter).await.status, 204);
    assert_eq!(limited.delete(&person).await.status, 204);
    for path in ["people", "renters"] {
        let viewer = api.viewer().get(&format!("/api/v1/{path}")).await;
        assert_eq!(viewer.code(), "role_missing", "{path}");
    }
}

#[tokio::test]
async fn a_renter_is_no_source_of_a_grant_of_operators() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let path = renter(&api, &ada, "laptop").await;
    for peer in [path.rsplit('/').next().unwrap(), "laptop"] {
        let grant = json!({ "source": { "peer": peer }, "target": { "all_devices": true },
            "access": [{ "protocol": "icmp" }] });
        let refused = api.admin().post("/api/v1/grants", grant).await;
        assert_eq!(field(&refused), (422, "source.peer"), "{}", refused.text);
    }
}

#[tokio::test]
async fn the_drops_of_a_renter_are_shown_and_the_metrics_have_its_id_and_not_its_name() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let path = renter(&api, &ada, "ada-laptop").await;
    let id = path.rsplit('/').next().unwrap();
    let drops = [(DropReason::NotGranted, 7)].into_iter().collect();
    api.state.live.set_peer(IdKind::Renter.parse(id).unwrap(), PeerStatus { drops, ..PeerStatus::default() });
    assert_eq!(api.operator().get(&path).await.json["drops"], json!({ "not_granted": 7 }));
    let metrics = api.operator().get("/metrics").await.text;
    let expected = format!(r#"{{kind="renter",peer="{id}",reason="not_granted"}} 7"#);
    assert!(metrics.contains(&expected) && !metrics.contains("ada-laptop"), "{metrics}");
}
