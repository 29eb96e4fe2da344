//! Every example of the API document is taken as it is printed.

use std::collections::BTreeMap;

use axum::body::Body;
use fleetgate_engine::id::Id;
use fleetgate_keys::Token;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::mine;
use super::openapi::operations;
use crate::api::document::conformance;
use crate::api::document::examples::{ENROLMENT_TOKEN, LOGIN_LINK, PERSON, RESTORED_AT};
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, Caller, TestApi};
use crate::store::enrolment_tokens::{self, EnrolmentToken};
use crate::store::fixture;
use crate::store::rentals::people;

const PASSWORD: &str = "correct horse battery";

/// A gateway with something at each path that the examples name.
struct Scene {
    api: TestApi,
    /// The values of path parameters, by name.
    paths: BTreeMap<&'static str, String>,
    cookie: String,
    _tasks: JoinSet<()>,
}

impl Scene {
    async fn of(operation: &str) -> Scene {
        let mut api = TestApi::with_endpoint().await;
        let tasks = api.start_monitor();
        drop(api.answer_probes(super::explain::answered()));
        let paths = [
            ("host", "cam-1"),
            ("device", "cam-1"),
            ("service", "backup"),
            ("contact", "ops"),
            ("rule", "all"),
            ("profile", "lte-camera"),
            ("user", "eve"),
            ("operator", "eve-phone"),
            ("grant", "night-work"),
            ("customer", "crm-17"),
            ("booking", "order-1"),
        ];
        let paths = paths.map(|(name, value)| (name, value.to_owned())).into();
        let mut scene = Scene { api, paths, cookie: String::new(), _tasks: tasks };
        scene.furnish().await;
        scene.prepare(operation).await;
        scene
    }

    async fn made(&self, path: &str, body: Value) -> Answer {
        let made = self.api.admin().post(&format!("/api/v1{path}"), body).await;
        assert!(made.status < 300, "{path}: {}", made.text);
        made
    }

    async fn furnish(&mut self) {
        let device = json!({ "name": "cam-1", "labels": { "site": "hill", "kind": "camera" },
            "networks": ["192.168.1.0/24"], "ssh": { "user": "fleet" } });
        self.made("/devices", device).await;
        let passive = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
        let put = self.api.operator().put("/api/v1/hosts/cam-1/services/backup", passive).await;
        assert_eq!(put.status, 200, "{}", put.text);
        self.made("/contacts", json!({ "name": "ops", "emails": ["ops@example.org"] })).await;
        self.made("/rules", json!({ "name": "all", "contact": "ops" })).await;
        for name in ["ada", "eve"] {
            self.made("/users", json!({ "name": name, "role": "admin", "password": PASSWORD })).await;
        }
        self.made("/operators", json!({ "name": "eve-phone", "user": "eve" })).await;
        let grant = json!({ "name": "night-work", "source": { "user": "eve" }, "target": { "all_devices": true },
            "access": [{ "protocol": "icmp" }] });
        self.made("/grants", grant).await;
        let rentable = json!({ "rentable": true, "without": ["gate"] });
        let put = self.api.operator().put("/api/v1/devices/cam-1/rental-settings", rentable).await;
        assert_eq!(put.status, 200, "{}", put.text);
        self.made("/customers", json!({ "external_ref": "crm-17" })).await;
    }

    /// A booking that is held, of a rental that has begun or begins later.
    async fn book(&mut self, from: Option<String>, hold: bool) {
        let hold = hold.then(|| super::rentals::hence(3_600));
        let item = json!({ "device": "cam-1", "from": from, "until": super::rentals::hence(36_000) });
        let booking =
            json!({ "customer": "crm-17", "external_ref": "order-1", "items": [item], "hold_until": hold });
        let made = self.made("/bookings", booking).await;
        self.paths.insert("rental", made.json["rentals"][0]["id"].as_str().unwrap().to_owned());
    }

    /// Values that one operation alone needs.
    async fn prepare(&mut self, operation: &str) {
        match operation {
            "acknowledge_host" => {
                self.made("/hosts/cam-1/results", json!({ "exit_status": 2 })).await;
            }
            "acknowledge_service" | "acknowledge_incident" => {
                self.made("/hosts/cam-1/services/backup/results", json!({ "exit_status": 2 })).await;
                let open = self.api.viewer().get("/api/v1/incidents?state=open").await.json;
                self.paths.insert("incident", open["items"][0]["id"].as_str().unwrap().to_owned());
            }
            "change_downtime" => {
                let work = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z" });
                let id = self.made("/hosts/cam-1/downtimes", work).await.json["id"].clone();
                self.paths.insert("downtime", id.as_str().unwrap().to_owned());
            }
            "approve_enrolment" | "reject_enrolment" => self.enrol().await,
            "change_person" | "create_renter" | "create_person_login_link" => self.insert_person().await,
            "log_in_as_person" => {
                self.insert_person().await;
                self.insert_login_link().await;
            }
            operation if operation.contains("_my_renter") => {
                self.insert_person().await;
                let made = self.made("/renters", json!({ "person": PERSON, "name": "tablet" })).await;
                self.paths.insert("renter", made.json["renter"]["id"].as_str().unwrap().to_owned());
                self.cookie = mine::logged_in(&self.api, "crm-17", PERSON).await;
            }
            "change_renter" | "reissue_renter_credentials" => {
                self.insert_person().await;
                let made = self.made("/renters", json!({ "person": PERSON, "name": "tablet" })).await;
                let id = made.json["renter"]["id"].as_str().unwrap().to_owned();
                self.paths.insert("renter", id);
            }
            "enrol" => self.insert_token().await,
            "change_own_password" => {
                let login = json!({ "name": "ada", "password": PASSWORD });
                let begun = self.api.anonymous().post("/api/v1/session", login).await;
                let cookie = begun.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
                self.cookie = cookie.to_owned();
            }
            "change_booking" => self.book(Some(super::rentals::hence(7_200)), true).await,
            "change_rental" | "end_rental" => self.book(None, false).await,
            "hand_over_rental" => {
                let broken = json!({ "rentable": true, "ready": false, "not_ready_reason": "broken" });
                let put = self.api.operator().put("/api/v1/devices/cam-1/rental-settings", broken).await;
                assert_eq!(put.status, 200, "{}", put.text);
                self.book(None, false).await;
            }
            "confirm_restore" => {
                let at = crate::api::request::ids::parse_time("restored_at", RESTORED_AT).unwrap();
                fixture::restored(&self.api.state.store, at).await;
            }
            "change_subscription" => {
                let made = self.made("/subscriptions", json!({ "url": "http://192.0.2.9/fleet" })).await;
                self.paths.insert("subscription", made.json["id"].as_str().unwrap().to_owned());
            }
            "set_endpoint" => self.api = TestApi::new().await,
            "trust_host" => {
                self.made("/hosts", json!({ "name": "nas", "via": "cam-1", "address": "192.168.1.9" })).await;
                self.paths.insert("host", "nas".to_owned());
            }
            _ => {}
        }
    }

    async fn enrol(&mut self) {
        let token = self.made("/enrolment-tokens", json!({ "needs_approval": true })).await;
        let key = fleetgate_keys::PrivateKey::from_bytes([7; 32]).public().to_string();
        let asked = json!({ "token": token.json["secret"], "name": "new", "public_key": key,
            "poll_hash": "ab".repeat(32) });
        let waiting = self.made("/enrol", asked).await;
        self.paths.insert("enrolment", waiting.json["id"].as_str().unwrap().to_owned());
    }

    /// The one of the example.
    async fn insert_token(&self) {
        let secret: Token = ENROLMENT_TOKEN.parse().unwrap();
        let token = EnrolmentToken {
            id: secret.id().parse::<Id>().unwrap(),
            label: "example".into(),
            host_labels: BTreeMap::new(),
            profile: String::new(),
            ssh_user: None,
            needs_approval: false,
            replaces: None,
            uses_left: Some(1),
            expires_at: None,
            created_by: "user:ada".into(),
            created_at: crate::clock::wall(),
            revoked_at: None,
            last_used_at: None,
        };
        let mut tx = self.api.state.store.begin().await.unwrap();
        enrolment_tokens::insert(&mut tx, &token, &secret.hash()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The one of the examples.
    async fn insert_person(&mut self) {
        let customer = self.api.operator().get("/api/v1/customers/crm-17").await.json["id"].clone();
        let customer = IdKind::Customer.parse(customer.as_str().unwrap()).unwrap();
        let person =
            people::Person::new(IdKind::Person.parse(PERSON).unwrap(), customer, crate::clock::wall());
        let mut tx = self.api.state.store.begin().await.unwrap();
        people::insert(&mut tx, &person).await.unwrap();
        tx.commit().await.unwrap();
        self.paths.insert("person", PERSON.to_owned());
    }

    /// The one of the example, for the person of the examples.
    async fn insert_login_link(&self) {
        let link: Token = LOGIN_LINK.parse().unwrap();
        let hash: String = link.hash().iter().map(|byte| format!("{byte:02x}")).collect();
        let person = IdKind::Person.parse(PERSON).unwrap().as_i64().to_string();
        let sql = "insert into person_login_links (hash, person, created_at, expires_at)
                   values (unhex($1), cast($2 as integer), 0, 9000000000000)";
        fixture::run(&self.api.state.store, sql, &[&hash, &person]).await;
    }

    fn path(&self, template: &str) -> String {
        let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) => self.paths.get(name).unwrap_or_else(|| panic!("{template}: {name}")).clone(),
            None => part.to_owned(),
        };
        template.split('/').map(part).collect::<Vec<_>>().join("/")
    }

    fn caller(&self, operation: &str) -> Caller<'_> {
        match operation {
            "log_in" | "log_in_as_person" | "enrol" => self.api.anonymous(),
            operation if operation == "change_own_password" || operation.contains("_my_renter") => {
                self.api.anonymous().header("cookie", &self.cookie).header("x-fleetgate", "1")
            }
            _ => self.api.admin(),
        }
    }

    async fn send(&self, (method, path, operation): (&str, &str, &str), body: &Value) -> Answer {
        let caller = self.caller(operation).header("content-type", "application/json");
        caller.send(method, &self.path(path), Body::from(body.to_string())).await
    }
}

fn examples() -> impl Iterator<Item = (String, &'static str, &'static str, &'static Value, &'static Value)> {
    operations().into_iter().filter_map(|(method, path, operation)| {
        let body = operation["requestBody"]["content"].get("application/json")?;
        let id = operation["operationId"].as_str().unwrap();
        Some((method, path, id, &body["schema"], body.get("example").unwrap_or(&Value::Null)))
    })
}

/// Parts of the document that are tested beside each other, by the first word of their paths. Each example needs a
/// gateway of its own. The last part has all other paths.
const PARTS: [&[&str]; 3] = [
    &["hosts"],
    &["devices", "enrol", "enrolments", "enrolment-tokens", "operators", "grants"],
    &["bookings", "customers", "people", "rentals", "renters", "subscriptions"],
];

fn examples_of(
    part: usize,
) -> impl Iterator<Item = (String, &'static str, &'static str, &'static Value, &'static Value)> {
    examples().filter(move |(_, path, ..)| {
        let first = path.split('/').nth(3).unwrap_or_default();
        PARTS.iter().position(|words| words.contains(&first)).unwrap_or(PARTS.len()) == part
    })
}

async fn every_example_is_taken(part: usize) {
    let mut taken = 0;
    for (method, path, operation, schema, example) in examples_of(part) {
        assert!(example.is_object(), "{method} {path} has no example of its body");
        conformance::fits(schema, example).unwrap_or_else(|why| panic!("{operation}: {why}"));
        let scene = Scene::of(operation).await;
        let answer = scene.send((&method, path, operation), example).await;
        assert!((200..300).contains(&answer.status), "{method} {path} {example:#}: {}", answer.text);
        taken += 1;
    }
    assert!(taken >= 10, "{taken} examples");
}

#[tokio::test]
async fn every_example_about_hosts_is_taken_as_it_is_printed() {
    every_example_is_taken(0).await;
}

#[tokio::test]
async fn every_example_about_devices_and_peers_is_taken_as_it_is_printed() {
    every_example_is_taken(1).await;
}

#[tokio::test]
async fn every_example_about_rentals_is_taken_as_it_is_printed() {
    every_example_is_taken(2).await;
}

#[tokio::test]
async fn every_other_example_is_taken_as_it_is_printed() {
    every_example_is_taken(PARTS.len()).await;
}

/// A number in an example, and its bounds.
struct Number {
    pointer: String,
    least: f64,
    most: f64,
}

fn numbers(schema: &'static Value, example: &Value, pointer: &str, found: &mut Vec<Number>) {
    match example {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(property) = conformance::property(schema, name) {
                    numbers(property, value, &format!("{pointer}/{name}"), found);
                }
            }
        }
        Value::Number(_) => {
            if let (Some(least), Some(most)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
                found.push(Number { pointer: pointer.to_owned(), least, most });
            }
        }
        _ => {}
    }
}

/// Whether the answer finds fault with this very field.
fn names(answer: &Answer, pointer: &str) -> bool {
    let path = pointer.trim_start_matches('/').replace('/', ".");
    let errors = answer.json["errors"].as_array().into_iter().flatten();
    errors.into_iter().any(|error| error["field"] == json!(path))
}

#[tokio::test]
async fn the_bounds_of_numbers_about_hosts_are_those_that_the_gateway_enforces() {
    the_bounds_are_enforced(0).await;
}

#[tokio::test]
async fn the_bounds_of_numbers_about_devices_and_peers_are_those_that_the_gateway_enforces() {
    the_bounds_are_enforced(1).await;
}

#[tokio::test]
async fn the_bounds_of_numbers_about_rentals_are_those_that_the_gateway_enforces() {
    the_bounds_are_enforced(2).await;
}

#[tokio::test]
async fn all_other_bounds_of_numbers_are_those_that_the_gateway_enforces() {
    the_bounds_are_enforced(PARTS.len()).await;
}

async fn the_bounds_are_enforced(part: usize) {
    for (method, path, operation, schema, example) in examples_of(part) {
        let mut found = Vec::new();
        numbers(schema, example, "", &mut found);
        if found.is_empty() {
            continue;
        }
        let scene = Scene::of(operation).await;
        for Number { pointer, least, most } in found {
            let with = |value: f64| {
                let mut body = example.clone();
                let whole = value.fract() == 0.0;
                *body.pointer_mut(&pointer).unwrap() = if whole { json!(value as i64) } else { json!(value) };
                body
            };
            for outside in [least - 1.0, most + 1.0] {
                let answer = scene.send((&method, path, operation), &with(outside)).await;
                assert_eq!(answer.status, 422, "{operation}{pointer} = {outside}: {}", answer.text);
            }
            for inside in [least, most] {
                let answer = scene.send((&method, path, operation), &with(inside)).await;
                let compared = ["timeout_s", "interval_s", "low", "high", "every_s", "grace_s"];
                let beside = compared.iter().any(|name| pointer.ends_with(name));
                assert!(
                    beside || !names(&answer, &pointer),
                    "{operation}{pointer} = {inside}: {}",
                    answer.text
                );
            }
        }
    }
}
