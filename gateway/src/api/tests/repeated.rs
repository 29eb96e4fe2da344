//! Calls and results sent twice: one effect, and the same response without its secrets.

use std::collections::BTreeSet;

use fleetgate_keys::PrivateKey;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::with_monitor::Ward;
use crate::api::document::examples::RESTORED_AT;
use crate::api::request::rate_limits::KEYS_BY_PRINCIPAL;
use crate::api::testing::{Answer, Caller, TestApi};
use crate::api::{Client, openapi};
use crate::store::fixture;

const KEYLESS: [&str; 2] = ["/api/v1/session", "/api/v1/restore"];
/// Fields that a repeated call does not get.
const SECRETS: [&str; 6] = ["secret", "credentials", "webhook_secret", "command", "hint", "url"];

/// One POST: its route, the path, a body, and another valid body.
struct Post {
    route: &'static str,
    path: String,
    body: Value,
    other: Value,
}

fn post(route: &'static str, path: &str, body: Value, other: Value) -> Post {
    Post { route, path: path.to_owned(), body, other }
}

/// A ward in which every POST can succeed.
struct Scene {
    ward: Ward,
    enrolment_token: String,
    waiting: [String; 2],
    incident: String,
    message: String,
    /// One that has not begun, one that has, and one that is delayed.
    rentals: [String; 3],
    /// One whose device is to be sent, and one whose device is to come back.
    shipped: [String; 2],
    /// A person of a customer, and a renter of the person.
    person: [String; 2],
}

impl Scene {
    async fn new() -> Scene {
        let mut ward = Ward::new(json!({})).await;
        drop(ward.api.answer_probes(super::explain::answered()));
        for status in [0, 2] {
            ward.sends(status).await;
        }
        ward.post("/hosts/nas/results", json!({ "exit_status": 2, "output": "gone" })).await;
        let incident = ward.get("/incidents?state=open").await["items"][0]["id"].clone();
        let contact =
            json!({ "name": "ops", "emails": ["ops@example.org"], "webhook_url": "https://example.org/" });
        assert_eq!(ward.post("/contacts", contact).await.status, 201);
        let message = ward.post("/contacts/ops/test", json!({})).await.json["items"][0]["id"].clone();
        sqlx::query("update outbox set given_up_at = 1").execute(&ward.api.state.store.write).await.unwrap();
        let user = json!({ "name": "ada", "role": "operator", "password": "correct horse battery" });
        assert_eq!(ward.api.admin().post("/api/v1/users", user).await.status, 201);
        let wanted = json!({ "needs_approval": true, "uses": 9 });
        let token = ward.post("/enrolment-tokens", wanted).await.json["secret"].as_str().unwrap().to_owned();
        let waiting = [enrolled(&ward, &token, 1).await, enrolled(&ward, &token, 2).await];
        let text = |value: Value| value.as_str().expect("an id").to_owned();
        let rentals = rented(&ward).await;
        let shipped = [shipped(&ward, "out").await, shipped(&ward, "back").await];
        for call in ["dispatch", "cancel"] {
            let done = ward.post(&format!("/rentals/{}/{call}", shipped[1]), json!({})).await;
            assert_eq!(done.status, 200, "{}", done.text);
        }
        let person = person(&ward).await;
        Scene {
            rentals,
            shipped,
            person,
            ward,
            enrolment_token: token,
            waiting,
            incident: text(incident),
            message: text(message),
        }
    }

    /// Returns every POST of the document except the login, in an order in which each finds its
    /// resources.
    fn posts(&self) -> Vec<Post> {
        let [first, second] = &self.waiting;
        let (end, later) = ("2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z");
        let ack = |comment: &str| json!({ "comment": comment });
        let work = |end: &str| json!({ "start": "2098-12-31T00:00:00Z", "end": end, "comment": "disk" });
        let result = |output: &str| json!({ "exit_status": 2, "output": output });
        let many =
            |output: &str| json!({ "results": [{ "host": "nas", "exit_status": 2, "output": output }] });
        let trust = |key: &str| json!({ "host_key": format!("SHA256:{}", key.repeat(43)) });
        let enrol = |n: u8| json!({ "token": self.enrolment_token, "name": format!("cam-{n}"), "public_key": key(n), "poll_hash": "ab".repeat(32) });
        let none = || (json!({}), json!({ "unused": 1 }));
        let bare = |route: &'static str, path: &str| post(route, path, none().0, none().1);
        let grant = |reason: &str| {
            json!({ "source": { "user": "ada" }, "target": { "all_devices": true },
            "access": [{ "protocol": "icmp" }], "reason": reason })
        };
        let [planned, running, delayed] = &self.rentals;
        let [to_send, to_return] = &self.shipped;
        let [person, renter] = &self.person;
        let booking = |reference: &str| {
            let (from, until) = (super::rentals::hence(36_000), super::rentals::hence(39_600));
            json!({ "customer": "crm-1", "external_ref": reference,
                "items": [{ "device": "rented", "from": from, "until": until }] })
        };
        let of_all = |end: &str| json!({ "labels": { "site": "north" }, "start": "2098-12-31T00:00:00Z", "end": end, "comment": "disk" });
        vec![
            post("/hosts/{host}/acknowledgement", "/hosts/nas/acknowledgement", ack("a"), ack("b")),
            post(
                "/hosts/{host}/services/{service}/acknowledgement",
                "/hosts/nas/services/backup/acknowledgement",
                ack("a"),
                ack("b"),
            ),
            post(
                "/incidents/{incident}/acknowledgement",
                &format!("/incidents/{}/acknowledgement", self.incident),
                ack("a"),
                ack("b"),
            ),
            post("/hosts/{host}/downtimes", "/hosts/nas/downtimes", work(end), work(later)),
            post(
                "/hosts/{host}/services/{service}/downtimes",
                "/hosts/nas/services/backup/downtimes",
                work(end),
                work(later),
            ),
            post("/downtimes", "/downtimes", of_all(end), of_all(later)),
            post("/hosts/{host}/results", "/hosts/nas/results", result("a"), result("b")),
            post(
                "/hosts/{host}/services/{service}/results",
                "/hosts/nas/services/backup/results",
                result("a"),
                result("b"),
            ),
            post("/results", "/results", many("a"), many("b")),
            post(
                "/restore-review/confirm",
                "/restore-review/confirm",
                json!({ "restored_at": RESTORED_AT }),
                json!({ "restored_at": "2026-11-29T08:15:00Z" }),
            ),
            post("/backups", "/backups", json!({ "history": false }), json!({ "history": true })),
            bare("/gateway/accept-clock", "/gateway/accept-clock"),
            bare("/hosts/{host}/check", "/hosts/nas/check"),
            bare("/hosts/{host}/services/{service}/check", "/hosts/nas/services/backup/check"),
            post(
                "/contacts",
                "/contacts",
                json!({ "name": "web", "webhook_url": "https://example.org/a" }),
                json!({ "name": "web", "webhook_url": "https://example.org/b" }),
            ),
            bare("/contacts/{contact}/test", "/contacts/ops/test"),
            bare("/contacts/{contact}/webhook-secret", "/contacts/ops/webhook-secret"),
            bare("/messages/{message}/resend", &format!("/messages/{}/resend", self.message)),
            post(
                "/rules",
                "/rules",
                json!({ "name": "all", "contact": "ops" }),
                json!({ "name": "other", "contact": "ops" }),
            ),
            post("/devices", "/devices", json!({ "name": "cam" }), json!({ "name": "cam", "notes": "b" })),
            post(
                "/devices/{device}/credentials",
                "/devices/cam/credentials",
                json!({}),
                json!({ "public_key": key(77) }),
            ),
            post(
                "/devices/{device}/replacement",
                "/devices/cam/replacement",
                json!({}),
                json!({ "needs_approval": true }),
            ),
            bare("/devices/{device}/reset-clock", "/devices/cam/reset-clock"),
            post("/devices/{device}/trust", "/devices/cam/trust", trust("A"), trust("E")),
            post(
                "/hosts",
                "/hosts",
                json!({ "name": "printer", "via": "lan", "address": "192.168.1.9" }),
                json!({ "name": "printer", "via": "lan", "address": "192.168.1.8" }),
            ),
            post("/hosts/{host}/trust", "/hosts/printer/trust", trust("A"), trust("E")),
            post("/enrolment-tokens", "/enrolment-tokens", json!({}), json!({ "label": "b" })),
            post("/enrol", "/enrol", enrol(3), enrol(4)),
            post(
                "/enrolments/{enrolment}/approve",
                &format!("/enrolments/{first}/approve"),
                json!({}),
                json!({ "name": "cam-9" }),
            ),
            post(
                "/enrolments/{enrolment}/reject",
                &format!("/enrolments/{second}/reject"),
                json!({ "reason": "a" }),
                json!({ "reason": "b" }),
            ),
            post(
                "/tokens",
                "/tokens",
                json!({ "name": "laptop", "user": "ada" }),
                json!({ "name": "laptop", "role": "viewer" }),
            ),
            post(
                "/users",
                "/users",
                json!({ "name": "eve", "role": "viewer", "password": "correct horse battery" }),
                json!({ "name": "eve", "role": "operator", "password": "correct horse battery" }),
            ),
            bare("/users/{user}/login-link", "/users/ada/login-link"),
            post(
                "/operators",
                "/operators",
                json!({ "name": "ada-laptop", "user": "ada" }),
                json!({ "name": "ada-phone", "user": "ada" }),
            ),
            post(
                "/operators/{operator}/credentials",
                "/operators/ada-laptop/credentials",
                json!({}),
                json!({ "public_key": key(78) }),
            ),
            post("/grants", "/grants", grant("a"), grant("b")),
            post(
                "/customers",
                "/customers",
                json!({ "external_ref": "crm-2", "name": "Ada" }),
                json!({ "external_ref": "crm-2", "name": "Bob" }),
            ),
            post(
                "/people",
                "/people",
                json!({ "customer": "crm-1", "name": "Ada" }),
                json!({ "customer": "crm-1", "name": "Bob" }),
            ),
            post(
                "/renters",
                "/renters",
                json!({ "person": person, "name": "laptop" }),
                json!({ "person": person, "name": "phone" }),
            ),
            post(
                "/renters/{renter}/credentials",
                &format!("/renters/{renter}/credentials"),
                json!({}),
                json!({ "public_key": key(79) }),
            ),
            post("/bookings", "/bookings", booking("o1"), booking("o2")),
            post(
                "/subscriptions",
                "/subscriptions",
                json!({ "url": "http://192.0.2.9/a" }),
                json!({ "url": "http://192.0.2.9/b" }),
            ),
            post(
                "/customers/{customer}/login-link",
                "/customers/crm-1/login-link",
                json!({ "person": person }),
                json!({ "person": "y_0000000000007" }),
            ),
            bare("/rentals/{rental}/cancel", &format!("/rentals/{planned}/cancel")),
            bare("/rentals/{rental}/dispatch", &format!("/rentals/{to_send}/dispatch")),
            bare("/rentals/{rental}/return", &format!("/rentals/{to_return}/return")),
            post(
                "/rentals/{rental}/end",
                &format!("/rentals/{running}/end"),
                json!({ "reason": "ended" }),
                json!({ "reason": "no_show" }),
            ),
            post(
                "/rentals/{rental}/hand-over",
                &format!("/rentals/{delayed}/hand-over"),
                json!({ "force": true, "reason": "lens" }),
                json!({ "force": true, "reason": "battery" }),
            ),
            post(
                "/devices/{device}/blocks",
                "/devices/rented/blocks",
                json!({ "reason": "battery", "from": super::rentals::hence(3_600_000) }),
                json!({ "reason": "display" }),
            ),
            post(
                "/explain/probe",
                "/explain/probe",
                json!({ "from": "ada", "to": "nas", "port": 22 }),
                json!({ "from": "ada", "to": "nas", "port": 23 }),
            ),
        ]
    }

    /// Counts events caused by people and programs.
    async fn deeds(&self) -> i64 {
        let store = &self.ward.api.state.store;
        let sql = "select count(*) from events where principal <> 'system'";
        sqlx::query_scalar(sql).fetch_one(&mut *store.reader().await.unwrap()).await.unwrap()
    }
}

/// Books a device twice, and one that is not ready: the second rental begins later.
async fn rented(ward: &Ward) -> [String; 3] {
    let broken = json!({ "rentable": true, "ready": false, "not_ready_reason": "lens" });
    let usual = json!({ "rentable": true, "without": ["gate"] });
    for (name, settings) in [("rented", usual), ("broken", broken)] {
        assert_eq!(ward.post("/devices", json!({ "name": name })).await.status, 201);
        let path = format!("/api/v1/devices/{name}/rental-settings");
        assert_eq!(ward.api.operator().put(&path, settings).await.status, 200);
    }
    let customer = ward.post("/customers", json!({ "external_ref": "crm-1" })).await;
    assert_eq!(customer.status, 201, "{}", customer.text);
    let hour = |n: u64| super::rentals::hence(3_600 * n);
    let items = json!([{ "device": "rented", "until": hour(1) },
        { "device": "rented", "from": hour(2), "until": hour(3) },
        { "device": "broken", "until": hour(1) }]);
    let made = ward.post("/bookings", json!({ "customer": "crm-1", "items": items })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    [1, 0, 2].map(|n| made.json["rentals"][n]["id"].as_str().expect("an id").to_owned())
}

/// Books a device that is sent to its renters, for later.
async fn shipped(ward: &Ward, name: &str) -> String {
    assert_eq!(ward.post("/devices", json!({ "name": name })).await.status, 201);
    let path = format!("/api/v1/devices/{name}/rental-settings");
    let settings = json!({ "rentable": true, "delivery": "shipped" });
    assert_eq!(ward.api.operator().put(&path, settings).await.status, 200);
    let item = super::rentals::item(name, 7_200, 10_800);
    let made = ward.post("/bookings", json!({ "customer": "crm-1", "items": [item] })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json["rentals"][0]["id"].as_str().expect("an id").to_owned()
}

/// Adds a person to the customer, and a renter.
async fn person(ward: &Ward) -> [String; 2] {
    let person = ward.post("/people", json!({ "customer": "crm-1" })).await.json["id"].clone();
    let renter = ward.post("/renters", json!({ "person": person, "name": "tablet" })).await;
    assert_eq!(renter.status, 201, "{}", renter.text);
    [&person, &renter.json["renter"]["id"]].map(|id| id.as_str().expect("an id").to_owned())
}

async fn enrolled(ward: &Ward, token: &str, n: u8) -> String {
    let body = json!({ "token": token, "name": format!("new-{n}"), "public_key": key(n), "poll_hash": "ab".repeat(32) });
    let answer = ward.api.anonymous().post("/api/v1/enrol", body).await;
    answer.json["id"].as_str().expect("an enrolment").to_owned()
}

fn key(n: u8) -> String {
    PrivateKey::from_bytes([n; 32]).public().to_string()
}

async fn send(caller: &Caller<'_>, key: &str, path: &str, body: &Value) -> Answer {
    caller.clone().header("idempotency-key", key).post(&format!("/api/v1{path}"), body.clone()).await
}

/// Removes the fields that a repeated response does not have, at any depth.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(name, _)| !SECRETS.contains(&name.as_str()));
            Value::Object(shown.map(|(name, value)| (name.clone(), without_secrets(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_secrets).collect(),
        other => other.clone(),
    }
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|v| v == "true")
}

#[tokio::test]
async fn every_post_but_the_login_has_one_effect_for_one_key() {
    let scene = Scene::new().await;
    let lan = json!({ "name": "lan", "networks": ["192.168.1.0/24"] });
    assert_eq!(scene.ward.post("/devices", lan).await.status, 201);
    // Calls that need the confirmation come after it in the table.
    let restored_at = crate::api::request::ids::parse_time("restored_at", RESTORED_AT).unwrap();
    fixture::restored(&scene.ward.api.state.store, restored_at).await;
    let posts = scene.posts();
    let covered: BTreeSet<String> = posts.iter().map(|p| format!("/api/v1{}", p.route)).collect();
    let document = openapi();
    let paths = document["paths"].as_object().unwrap().iter();
    // `mine` has those of people of customers.
    let paths = paths.filter(|(path, _)| !path.starts_with("/api/v1/my/"));
    let declared =
        paths.filter(|(path, item)| item.get("post").is_some() && !KEYLESS.contains(&path.as_str()));
    let declared: BTreeSet<String> = declared.map(|(path, _)| path.clone()).collect();
    assert_eq!(covered, declared, "each POST stands in the table of this test");
    for post in posts {
        has_one_effect(&scene, &post).await;
    }
}

async fn has_one_effect(scene: &Scene, post: &Post) {
    let (api, route) = (&scene.ward.api, post.route);
    let caller = if route == "/enrol" { api.anonymous() } else { api.admin() };
    let own = format!("key of {route}");
    let first = send(&caller, &own, &post.path, &post.body).await;
    assert!((200..300).contains(&first.status), "{route}: {}", first.text);
    assert!(!replayed(&first), "{route}");
    let after = scene.deeds().await;
    let second = send(&caller, &own, &post.path, &post.body).await;
    assert_eq!((second.status, replayed(&second)), (first.status, true), "{route}: {}", second.text);
    assert_eq!(scene.deeds().await, after, "{route} had its effect twice");
    if !route.ends_with("/results") {
        assert_eq!(second.json, without_secrets(&first.json), "{route}");
        assert_eq!(second.headers.get("etag"), first.headers.get("etag"), "{route}");
    }
    let other = send(&caller, &own, &post.path, &post.other).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"), "{route}: {}", other.text);
    assert_eq!(scene.deeds().await, after, "{route}");
    if route != "/enrol" {
        // The gateway makes one backup at a time.
        let foreign = send(&api.anonymous().by(Client::Local { uid: 0 }), &own, &post.path, &post.body).await;
        assert!(!replayed(&foreign), "{route}: the key of somebody else");
    }
}

#[tokio::test]
async fn calls_at_the_same_time_have_one_effect() {
    let api = TestApi::with_endpoint().await;
    let caller = api.operator();
    let body = json!({ "name": "cam" });
    let calls = (0..8).map(|_| send(&caller, "k", "/devices", &body));
    let answers = join_all(calls).await;
    assert!(
        answers.iter().all(|a| a.status == 201),
        "{:?}",
        answers.iter().map(|a| &a.text).collect::<Vec<_>>()
    );
    assert_eq!(answers.iter().filter(|a| !replayed(a)).count(), 1);
    let shown = answers.iter().filter(|a| a.json["credentials"].is_object()).count();
    assert_eq!(shown, 1, "one of them has the keys");
}

#[tokio::test]
async fn a_refused_call_uses_no_key_up() {
    let api = TestApi::with_endpoint().await;
    let caller = api.operator();
    let host = json!({ "name": "printer", "via": "cam", "address": "192.168.1.9" });
    assert_eq!(send(&caller, "k", "/hosts", &host).await.status, 422);
    let device = json!({ "name": "cam", "networks": ["192.168.1.0/24"] });
    assert_eq!(send(&caller, "l", "/devices", &device).await.status, 201);
    let made = send(&caller, "k", "/hosts", &host).await;
    assert_eq!((made.status, replayed(&made)), (201, false), "{}", made.text);
    let again = send(&caller, "k", "/hosts", &host).await;
    assert_eq!((again.status, replayed(&again)), (201, true));
    let stranger = send(&api.viewer(), "k", "/hosts", &host).await;
    assert_eq!((stranger.status, stranger.code()), (403, "role_missing"), "keys come after roles");
    assert_eq!(send(&api.anonymous(), "k", "/hosts", &host).await.status, 401);
    let long = "k".repeat(256);
    assert_eq!(send(&caller, &long, "/hosts", &host).await.code(), "bad_idempotency_key");
}

#[tokio::test]
async fn a_caller_has_a_bounded_number_of_keys_and_others_have_their_own() {
    let api = TestApi::with_endpoint().await;
    let (operator, body) = (api.operator(), json!({ "name": "cam" }));
    let first = send(&operator, "k", "/devices", &body).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let events = api.viewer().get("/api/v1/events?since=0&kind=device.created").await;
    let principal = events.json["items"][0]["principal"].as_str().unwrap().to_owned();
    let now = crate::clock::now().mono;
    for _ in 2..KEYS_BY_PRINCIPAL.burst {
        api.state.rate_limits().key(&principal, now).unwrap();
    }
    let twin = json!({ "name": "cam" });
    assert_eq!(send(&operator, "refused", "/devices", &twin).await.status, 409, "uses none up");
    let other = json!({ "name": "other" });
    assert_eq!(send(&operator, "last", "/devices", &other).await.status, 201);
    let more = json!({ "name": "more" });
    let refused = send(&operator, "one more", "/devices", &more).await;
    assert_eq!((refused.status, refused.code()), (429, "too_many_requests"), "{}", refused.text);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(api.viewer().get("/api/v1/devices/more").await.status, 404, "it had no effect");
    assert!(replayed(&send(&operator, "k", "/devices", &body).await), "a key from before is known");
    assert_eq!(send(&api.admin(), "one more", "/devices", &more).await.status, 201, "somebody else's");
    assert_eq!(operator.post("/api/v1/devices", json!({ "name": "keyless" })).await.status, 201);
    assert_eq!(KEYS_BY_PRINCIPAL.refill * KEYS_BY_PRINCIPAL.burst, crate::store::idempotency::KEPT);
}

#[tokio::test]
async fn an_enrolment_that_was_refused_uses_no_key_up() {
    let api = TestApi::with_endpoint().await;
    let token = api.operator().post("/api/v1/enrolment-tokens", json!({})).await.json["secret"].clone();
    let body = json!({ "token": token, "name": "a", "public_key": key(1), "poll_hash": "zz" });
    assert_eq!(send(&api.anonymous(), "k", "/enrol", &body).await.status, 422);
    let body = json!({ "token": token, "name": "a", "public_key": key(1), "poll_hash": "ab".repeat(32) });
    let made = send(&api.anonymous(), "k", "/enrol", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let stranger =
        json!({ "token": "fge_x", "name": "a", "public_key": key(1), "poll_hash": "ab".repeat(32) });
    assert_eq!(
        send(&api.anonymous(), "k", "/enrol", &stranger).await.status,
        401,
        "another secret, another caller"
    );
}

#[tokio::test]
async fn a_call_whose_answer_was_not_kept_is_not_made_again() {
    let api = TestApi::with_endpoint().await;
    let body = json!({ "name": "cam" });
    assert_eq!(send(&api.operator(), "k", "/devices", &body).await.status, 201);
    // A kill between the commit and the storing of the response leaves this row.
    sqlx::query("update idempotency set status = 0, body = ''")
        .execute(&api.state.store.write)
        .await
        .unwrap();
    let again = send(&api.operator(), "k", "/devices", &body).await;
    assert_eq!((again.status, again.code()), (409, "answer_lost"), "{}", again.text);
}

#[tokio::test]
async fn the_key_is_committed_with_the_effect() {
    let api = TestApi::with_endpoint().await;
    let sql = "create trigger full before insert on idempotency begin select raise(abort, 'disk full'); end";
    sqlx::query(sql).execute(&api.state.store.write).await.unwrap();
    assert_eq!(send(&api.operator(), "k", "/devices", &json!({ "name": "cam" })).await.status, 500);
    assert_eq!(api.viewer().get("/api/v1/devices/cam").await.status, 404);
}

// -------------------------------------------------------------------- results

const BACKUP: &str = "/hosts/nas/services/backup/results";

/// Creates a service that is hard after three failures.
pub(super) async fn patient() -> Ward {
    let ward = Ward::new(json!({ "max_check_attempts": 3 })).await;
    assert_eq!(ward.sends(0).await.status, 202);
    ward
}

pub(super) async fn attempt(ward: &Ward) -> (String, i64) {
    let backup = ward.backup().await;
    (backup["last_result"].as_str().unwrap().to_owned(), backup["attempt"].as_i64().unwrap())
}

fn now() -> f64 {
    crate::clock::wall().as_millis() as f64 / 1_000.0
}

fn critical(output: &str) -> Value {
    json!({ "exit_status": 2, "output": output })
}

fn at(time: f64, output: &str) -> Value {
    json!({ "exit_status": 2, "output": output, "timestamp": time })
}

#[tokio::test]
async fn a_result_with_the_same_timestamp_and_content_counts_once() {
    let ward = patient().await;
    let time = now();
    for (n, body) in [at(time, "bad"), at(time, "bad"), at(time, "bad")].into_iter().enumerate() {
        let taken = ward.post(BACKUP, body).await;
        assert_eq!((taken.status, replayed(&taken)), (202, n > 0), "{}", taken.text);
        assert_eq!(taken.json["repeated"].as_bool().unwrap_or_default(), n > 0);
        assert_eq!(attempt(&ward).await, ("critical".into(), 1));
    }
    ward.post(BACKUP, at(time, "worse")).await;
    assert_eq!(attempt(&ward).await.1, 2, "other content counts");
    ward.post(BACKUP, at(time, "bad")).await;
    assert_eq!(attempt(&ward).await.1, 2, "the first one is known still");
    let admin = ward.api.admin().post(&format!("/api/v1{BACKUP}"), at(time, "bad")).await;
    assert!(!replayed(&admin));
    assert_eq!(attempt(&ward).await.1, 3, "somebody else's counts");
    // The result was accepted before, so it is a repetition, although a newer one came in between.
    ward.post(BACKUP, at(now(), "newer")).await;
    let late = ward.post(BACKUP, at(time, "bad")).await;
    assert_eq!((late.status, replayed(&late)), (202, true), "{}", late.text);
}

#[tokio::test]
async fn the_forms_of_one_timestamp_are_one() {
    let ward = patient().await;
    let body = |timestamp: Value| json!({ "exit_status": 2, "output": "bad", "timestamp": timestamp });
    ward.post(BACKUP, body(json!("2099-01-01T01:00:00+01:00"))).await;
    for same in [json!("2099-01-01T00:00:00Z"), json!(4_070_908_800_i64), json!(4_070_908_800.0)] {
        assert!(replayed(&ward.post(BACKUP, body(same)).await));
    }
    assert_eq!(attempt(&ward).await.1, 1, "though it lies ahead");
}

#[tokio::test]
async fn a_result_with_the_same_key_counts_once() {
    let ward = patient().await;
    let operator = ward.api.operator();
    for n in 0..3 {
        let taken = send(&operator, "k", BACKUP, &critical("bad")).await;
        assert_eq!((taken.status, replayed(&taken)), (202, n > 0));
    }
    assert_eq!(attempt(&ward).await.1, 1);
    let other = send(&operator, "k", BACKUP, &critical("worse")).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused"));
    assert_eq!(attempt(&ward).await.1, 1);
    send(&operator, "l", BACKUP, &critical("bad")).await;
    assert_eq!(attempt(&ward).await.1, 2, "another key is another result");
    send(&ward.api.admin(), "k", BACKUP, &critical("bad")).await;
    assert_eq!(attempt(&ward).await.1, 3, "and so is another sender's");
    let kept: i64 = sqlx::query_scalar("select count(*) from idempotency")
        .fetch_one(&mut *ward.api.state.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(kept, 0, "they stand with the service");
}

#[tokio::test]
async fn a_key_with_a_result_that_was_older_is_no_key_that_was_used() {
    let ward = patient().await;
    let old = json!({ "exit_status": 2, "output": "bad", "timestamp": 1_000_000_000 });
    assert_eq!(send(&ward.api.operator(), "k", BACKUP, &old).await.status, 200);
    assert_eq!(send(&ward.api.operator(), "k", BACKUP, &critical("bad")).await.status, 202);
    assert_eq!(attempt(&ward).await.1, 1);
}

#[tokio::test]
async fn results_of_a_host_count_once_too() {
    let ward = Ward::new(json!({})).await;
    let path = "/hosts/nas/results";
    ward.post(path, json!({ "exit_status": 0, "output": "here" })).await;
    let time = now();
    for n in 0..3 {
        let taken = ward.post(path, at(time, "gone")).await;
        assert_eq!((taken.status, replayed(&taken)), (202, n > 0));
        assert_eq!(taken.json["host"]["state"]["attempt"], 1);
    }
    for n in 0..3 {
        let taken = send(&ward.api.operator(), "k", path, &critical("gone")).await;
        assert_eq!((taken.json["host"]["state"]["attempt"].clone(), replayed(&taken)), (json!(2), n > 0));
    }
}

#[tokio::test]
async fn as_many_results_are_remembered_as_is_promised() {
    let ward = Ward::new(json!({})).await;
    let operator = ward.api.operator();
    for n in 0..72 {
        send(&operator, &format!("k{n}"), BACKUP, &critical("bad")).await;
    }
    let known = async |n: u32| replayed(&send(&operator, &format!("k{n}"), BACKUP, &critical("bad")).await);
    assert!(known(71).await && known(8).await);
    assert!(!known(7).await);
}

/// Locks the database, as a backup by another program does.
pub(super) async fn lock(ward: &Ward) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions as _;
    let write = &ward.api.state.store.write;
    sqlx::query("pragma busy_timeout = 20").execute(write).await.unwrap();
    let options = write.connect_options();
    let mut other = options.connect().await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    other
}

pub(super) async fn unlock(mut other: sqlx::SqliteConnection) {
    sqlx::query("rollback").execute(&mut other).await.unwrap();
}

#[tokio::test]
async fn a_result_that_a_locked_database_refused_counts_once_when_it_is_taken() {
    let ward = patient().await;
    let held = lock(&ward).await;
    for _ in 0..2 {
        let refused = ward.post(BACKUP, critical("bad")).await;
        assert_eq!((refused.status, refused.code()), (503, "busy"), "{}", refused.text);
    }
    unlock(held).await;
    let taken = ward.post(BACKUP, critical("bad")).await;
    assert_eq!((taken.status, &taken.json["service"]["attempt"]), (202, &json!(1)), "{}", taken.text);
    assert_eq!(attempt(&ward).await, ("critical".into(), 1));
    ward.post(BACKUP, critical("bad")).await;
    assert_eq!(attempt(&ward).await.1, 2, "a new one counts");
}

#[tokio::test]
async fn a_full_disk_refuses_a_result_before_it_takes_effect() {
    let ward = patient().await;
    let store = &ward.api.state.store;
    for path in [BACKUP, "/hosts/nas/results"] {
        // The connection that met the limit is not used again.
        for sql in ["vacuum", "pragma max_page_count = 1"] {
            sqlx::query(sql).execute(&store.write).await.unwrap();
        }
        let refused = ward.post(path, critical("bad")).await;
        assert_eq!((refused.status, refused.code()), (507, "disk_full"), "{}", refused.text);
    }
    assert_eq!(attempt(&ward).await, ("ok".into(), 1));
    let taken = ward.post(BACKUP, critical("bad")).await;
    assert_eq!((taken.status, &taken.json["service"]["attempt"]), (202, &json!(1)));
}

#[tokio::test]
async fn the_same_result_joins_the_one_that_waits_for_its_commit() {
    let ward = patient().await;
    let store = &ward.api.state.store;
    // The state itself cannot be written, although the database accepts other writes.
    let sql = "create trigger stuck before update on service_states begin select raise(abort, 'no'); end";
    sqlx::query(sql).execute(&store.write).await.unwrap();
    let tickets = ward.api.state.live.tickets();
    let freed = async {
        while tickets.waiters() < 2 {
            tokio::task::yield_now().await;
        }
        sqlx::query("drop trigger stuck").execute(&store.write).await
    };
    let (first, second, freed) =
        tokio::join!(ward.post(BACKUP, critical("bad")), ward.post(BACKUP, critical("bad")), freed);
    freed.unwrap();
    for taken in [first, second] {
        assert_eq!((taken.status, &taken.json["service"]["attempt"]), (202, &json!(1)), "{}", taken.text);
    }
    assert_eq!(
        ward.post(BACKUP, critical("bad")).await.json["service"]["attempt"],
        2,
        "now it is another one"
    );
}

#[tokio::test]
async fn results_at_the_same_time_are_one_until_it_is_on_disk() {
    let ward = patient().await;
    let calls = (0..8).map(|_| ward.post(BACKUP, at(4_000_000_000.0, "bad")));
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|a| a.status == 202));
    assert_eq!(answers.iter().filter(|a| !replayed(a)).count(), 1);
    assert_eq!(attempt(&ward).await.1, 1);
}

#[tokio::test]
async fn what_was_taken_is_known_after_a_restart() {
    let ward = patient().await;
    let (operator, time) = (ward.api.operator(), now());
    ward.post(BACKUP, at(time, "bad")).await;
    send(&operator, "k", BACKUP, &critical("bad")).await;
    ward.post("/hosts/nas/results", at(time, "gone")).await;
    let memory = ward.api.state.store.all_hosts(&ward.api.state.config.timing).await.unwrap();
    let nas = memory.into_iter().find(|memory| memory.spec.name == "nas").unwrap();
    let state = nas.services.iter().find(|service| service.name == "backup").unwrap();
    assert_eq!(state.taken.iter().count(), 2);
    assert_eq!(nas.state.unwrap().taken.iter().count(), 1);
}
