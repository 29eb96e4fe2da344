//! People of customers see and do these things with their sessions, and find nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use fleetgate_engine::history::{DAY, Second};
use fleetgate_probes::sample::Metric;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::document::OPEN;
use super::metrics_query::{record, sample};
use super::rental_ssh::{key, with_account, with_ssh};
use super::rentals::{HOUR, field, item, must, rented, shop, text};
use super::with_monitor::Ward;
use crate::api::rentals::mine::page;
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, Caller, TestApi};
use crate::api::{Client, openapi};
use crate::store::fixture;

/// Adds a person to a customer and returns the id.
pub(super) async fn person(api: &TestApi, customer: &str, name: &str) -> String {
    let made = api.operator().post("/api/v1/people", json!({ "customer": customer, "name": name })).await;
    text(&must(&made)["id"]).to_owned()
}

async fn link(api: &TestApi, customer: &str, person: &str) -> Answer {
    let path = format!("/api/v1/customers/{customer}/login-link");
    api.operator().post(&path, json!({ "person": person })).await
}

/// Returns the secret of the address in an answer.
fn secret(answer: &Answer) -> String {
    let url = text(&must(answer)["url"]);
    url.split_once("/my#token=").expect("the address of the page").1.to_owned()
}

async fn log_in(api: &TestApi, token: &str) -> Answer {
    api.anonymous().post("/api/v1/my/login", json!({ "token": token })).await
}

fn cookie(answer: &Answer) -> String {
    let set = answer.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("; Path=/; ") && set.contains("; HttpOnly; SameSite=Strict"), "{set}");
    set.split(';').next().unwrap().to_owned()
}

/// Logs a person in and returns the cookie.
pub(super) async fn logged_in(api: &TestApi, customer: &str, person: &str) -> String {
    let begun = log_in(api, &secret(&link(api, customer, person).await)).await;
    must(&begun);
    cookie(&begun)
}

pub(super) fn browser<'a>(api: &'a TestApi, cookie: &str) -> Caller<'a> {
    api.anonymous().header("cookie", cookie).header("x-fleetgate", "1")
}

/// Adds a renter of a person and returns the id.
async fn renter(api: &TestApi, person: &str, name: &str) -> String {
    let made = api.operator().post("/api/v1/renters", json!({ "person": person, "name": name })).await;
    text(&must(&made)["renter"]["id"]).to_owned()
}

#[tokio::test]
async fn a_person_logs_in_once_by_a_link_and_out() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let made = link(&api, "crm-17", &ada).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let token = secret(&made);
    let begun = log_in(&api, &token).await;
    assert_eq!((begun.status, &begun.json["person"]["name"]), (200, &json!("Ada")), "{}", begun.text);
    assert!(cookie(&begun).starts_with("fleetgate_my=fgs_"));
    let mine = browser(&api, &cookie(&begun));
    let shown = mine.get("/api/v1/my").await;
    assert_eq!((&must(&shown)["person"]["id"], &shown.json["customer"]["name"]), (&json!(ada), &json!("")));
    let again = log_in(&api, &token).await;
    assert_eq!((again.status, again.code()), (401, "link_refused"));
    let other_site = mine.clone().header("origin", "https://evil.example");
    assert_eq!(other_site.post("/api/v1/my/logout", json!({})).await.code(), "cross_site");
    assert_eq!(api.anonymous().get("/api/v1/my").await.code(), "not_logged_in");
    assert_eq!(api.admin().get("/api/v1/my").await.status, 401, "an admin is no person of a customer");
    assert_eq!(mine.post("/api/v1/my/logout", json!({})).await.status, 204);
    assert_eq!(mine.get("/api/v1/my").await.status, 401);
    let log = api.admin().get("/api/v1/audit").await.text;
    assert!(log.contains("person.login_link_created") && log.contains(&format!("person:{ada}")), "{log}");
    assert!(!log.contains("Ada") && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn a_link_is_made_for_a_person_of_the_customer_and_shown_once() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let ada = person(&api, "crm-17", "Ada").await;
    for (customer, person) in
        [("crm-18", ada.as_str()), ("crm-19", ada.as_str()), ("crm-17", "y_0000000000007")]
    {
        let refused = link(&api, customer, person).await;
        assert_eq!((refused.status, refused.code()), (404, "not_found"), "{customer} {person}");
    }
    let path = "/api/v1/customers/crm-17/login-link";
    let body = json!({ "person": ada });
    assert_eq!(api.viewer().post(path, body.clone()).await.status, 403);
    let caller = api.operator().header("idempotency-key", "k");
    let once = caller.post(path, body.clone()).await;
    let again = caller.post(path, body).await;
    assert_eq!((again.status, &again.json["url"]), (201, &Value::Null));
    assert_eq!(again.json["expires_at"], once.json["expires_at"]);
    assert!(!fixture::answers(&api.state.store).await.contains(&secret(&once)));
    fixture::run(&api.state.store, "update person_login_links set expires_at = 1", &[]).await;
    assert_eq!(log_in(&api, &secret(&once)).await.code(), "link_refused", "it has expired");
    for nonsense in ["", "fgl_", api.viewer_token()] {
        assert_eq!(log_in(&api, nonsense).await.status, 401, "{nonsense}");
    }
    let mut last = 0;
    for _ in 0..13 {
        last = log_in(&api, "fgl_").await.status;
    }
    assert_eq!(last, 429, "guessing is slowed down");
}

#[tokio::test]
async fn a_session_ends_with_its_person_its_customer_its_time_and_a_restore() {
    let api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let (of_ada, of_bob) = (logged_in(&api, "crm-17", &ada).await, logged_in(&api, "crm-17", &bob).await);
    let status = async |cookie: &str| browser(&api, cookie).get("/api/v1/my").await.status;
    let set = async |sql: &'static str| fixture::run(&api.state.store, sql, &[]).await;
    assert_eq!((status(&of_ada).await, status(&of_bob).await), (200, 200));
    must(&api.operator().delete(&format!("/api/v1/people/{ada}")).await);
    assert_eq!((status(&of_ada).await, status(&of_bob).await), (401, 200));
    set("update person_sessions set seen_at = seen_at - 90000000").await;
    assert_eq!(status(&of_bob).await, 401, "a day without use");
    set("update person_sessions set seen_at = seen_at + 90000000").await;
    assert_eq!(status(&of_bob).await, 200);
    set("update person_sessions set expires_at = 1").await;
    assert_eq!(status(&of_bob).await, 401);
    let of_bob = logged_in(&api, "crm-17", &bob).await;
    fixture::restored(&api.state.store, crate::clock::wall()).await;
    let waits = browser(&api, &of_bob).get("/api/v1/my").await;
    assert_eq!((waits.status, waits.code()), (503, "restore_unconfirmed"));
    set("update instance set confirmed_at = 1, confirmed_by = ''").await;
    assert_eq!(status(&of_bob).await, 200);
    must(&api.operator().delete("/api/v1/customers/crm-17").await);
    assert_eq!(status(&of_bob).await, 401);
}

#[tokio::test]
async fn a_person_finds_no_route_but_the_own_ones() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let mine = browser(&api, &logged_in(&api, "crm-17", &ada).await);
    let document = openapi();
    let (mut asked, mut found) = (0, BTreeSet::new());
    for (route, item) in document["paths"].as_object().unwrap() {
        let path = route
            .replace("{device}", "cam-1")
            .replace("{host}", "cam-1")
            .replace("{customer}", "crm-17")
            .replace("{person}", &ada)
            .replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let read = if method == "HEAD" { "GET" } else { method };
            if OPEN.contains(&format!("{read} {route}").as_str()) || route.starts_with("/api/v1/my/") {
                continue;
            }
            let answer = mine.send(method, &path, Body::empty()).await;
            if answer.status == 404 {
                asked += usize::from(item.get(read.to_lowercase()).is_some());
            } else {
                found.insert(format!("{method} {route}"));
            }
        }
    }
    assert_eq!(found, ["GET /api/v1/my", "HEAD /api/v1/my"].map(ToOwned::to_owned).into());
    assert!(asked > 100, "{asked}");
}

/// Returns a program with a token of a customer.
async fn program<'a>(api: &'a TestApi, customer: &str) -> Caller<'a> {
    let body = json!({ "name": format!("shop of {customer}"), "customer": customer });
    let made = api.admin().post("/api/v1/tokens", body).await;
    api.anonymous().bearer(text(&must(&made)["secret"]))
}

/// Books `cam-1` for the second customer.
async fn rented_by_eve(api: &TestApi, from: u64, until: u64) -> Value {
    let booking = json!({ "customer": "crm-18", "items": [item("cam-1", from, until)] });
    must(&api.operator().post("/api/v1/bookings", booking).await)["rentals"][0].clone()
}

#[tokio::test]
async fn no_route_shows_what_another_customer_has_or_its_windows_before_and_after() {
    let api = shop().await;
    let made = api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await;
    let other = text(&must(&made)["id"]).to_owned();
    let (ada, eve) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-18", "Eve").await);
    let phone = renter(&api, &eve, "phone").await;
    let before = rented_by_eve(&api, HOUR, 2 * HOUR).await;
    let own = rented(&api, item("cam-1", 24 * HOUR, 25 * HOUR)).await;
    let after = rented_by_eve(&api, 48 * HOUR, 49 * HOUR).await;
    let token = api.admin().post("/api/v1/tokens", json!({ "name": "t", "customer": "crm-18" })).await;
    let token = text(&must(&token)["token"]["id"]).to_owned();
    let callers = [browser(&api, &logged_in(&api, "crm-17", &ada).await), program(&api, "crm-17").await];
    let document = openapi();
    let mut asked = 0;
    for (caller, rental) in callers.iter().flat_map(|caller| [(caller, &before), (caller, &after)]) {
        for route in document["paths"].as_object().unwrap().keys().filter(|route| route.contains('{')) {
            let path = route
                .replace("{device}", "cam-1")
                .replace("{host}", "cam-1")
                .replace("{rental}", text(&rental["id"]))
                .replace("{booking}", text(&rental["booking"]))
                .replace("{customer}", &other)
                .replace("{person}", &eve)
                .replace("{renter}", &phone)
                .replace("{token}", &token)
                .replace(['{', '}'], "");
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
                let read = if method == "HEAD" { "GET" } else { method };
                if OPEN.contains(&format!("{read} {route}").as_str()) {
                    continue;
                }
                let answer = match method {
                    "POST" => caller.post(&path, json!({})).await,
                    "PATCH" => caller.patch(&path, json!({ "name": "mine" })).await,
                    other => caller.send(other, &path, Body::empty()).await,
                };
                assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
                asked += 1;
            }
        }
        let filtered = format!("/api/v1/my/rental-events?rental={}", text(&rental["id"]));
        assert_eq!(caller.get(&filtered).await.status, 404);
    }
    assert!(asked > 1_000, "{asked}");
    let one = format!("/api/v1/my/rentals/{}", text(&own["id"]));
    let foreign = [
        text(&before["id"]),
        text(&after["id"]),
        other.as_str(),
        eve.as_str(),
        phone.as_str(),
        "crm-18",
        "cam-1",
    ];
    for path in ["/api/v1/my/rentals", one.as_str(), "/api/v1/my/rental-events", "/api/v1/my/renters"] {
        for caller in &callers {
            let answer = caller.get(path).await;
            let shown = must(&answer).to_string();
            assert!(foreign.iter().all(|id| !shown.contains(id)), "{path}: {shown}");
        }
    }
}

#[tokio::test]
async fn a_program_of_a_customer_reads_what_is_the_customers() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let ada = person(&api, "crm-17", "Ada").await;
    let laptop = renter(&api, &ada, "laptop").await;
    let mut of_ada = item("cam-1", HOUR, 2 * HOUR);
    of_ada["renters"] = json!([laptop]);
    let (of_ada, of_all) = (rented(&api, of_ada).await, rented(&api, item("cam-2", HOUR, 2 * HOUR)).await);
    let (shop, other) = (program(&api, "crm-17").await, program(&api, "crm-18").await);

    let listed = shop.get("/api/v1/my/rentals").await;
    let ids: BTreeSet<&str> =
        must(&listed)["items"].as_array().unwrap().iter().map(|rental| text(&rental["id"])).collect();
    assert_eq!(ids, [text(&of_ada["id"]), text(&of_all["id"])].into());
    let one = shop.get(&format!("/api/v1/my/rentals/{}", text(&of_ada["id"]))).await;
    assert_eq!((&must(&one)["state"], &one.json["changes"]), (&json!("booked"), &json!([])));
    let renters = shop.get("/api/v1/my/renters").await;
    assert_eq!(must(&renters)["items"][0]["id"], json!(laptop));
    let events = shop.get("/api/v1/my/rental-events").await;
    let kinds: Vec<&str> =
        must(&events)["items"].as_array().unwrap().iter().map(|event| text(&event["kind"])).collect();
    assert_eq!(kinds, ["rental.booked", "rental.booked"], "{}", events.text);
    let items = events.json["items"].to_string();
    assert!(!items.contains("\"h_"), "the device is the operator's: {items}");
    let later = shop.get(&format!("/api/v1/my/rental-events?after={}", text(&events.json["next"]))).await;
    assert_eq!(must(&later)["items"], json!([]));
    for path in ["/api/v1/my/rentals", "/api/v1/my/renters", "/api/v1/my/rental-events"] {
        assert_eq!(must(&other.get(path).await)["items"], json!([]), "{path}");
    }
    for path in ["/api/v1/my", "/api/v1/rentals", "/api/v1/rental-events", "/api/v1/session", "/metrics"] {
        assert_eq!(shop.get(path).await.status, 404, "{path}");
    }
    assert_eq!(shop.post("/api/v1/my/renters", json!({ "name": "phone" })).await.status, 404);

    for wrong in [
        json!({ "name": "t", "customer": "crm-19" }),
        json!({ "name": "t", "customer": "crm-17", "role": "viewer" }),
        json!({ "name": "t", "customer": "crm-17", "scopes": ["rentals"] }),
    ] {
        let refused = api.admin().post("/api/v1/tokens", wrong).await;
        assert_eq!(field(&refused), (422, "customer"), "{}", refused.text);
    }
    fixture::restored(&api.state.store, crate::clock::wall()).await;
    assert_eq!(shop.get("/api/v1/my/rentals").await.code(), "restore_unconfirmed");
    fixture::run(&api.state.store, "update instance set confirmed_at = 1, confirmed_by = ''", &[]).await;
    assert_eq!(shop.get("/api/v1/my/rentals").await.status, 200);
    must(&api.operator().delete("/api/v1/customers/crm-18").await);
    assert_eq!(other.get("/api/v1/my/rentals").await.status, 401);
    let names = fixture::texts(
        &api.state.store,
        "select name from tokens where customer is not null order by name desc",
    );
    assert_eq!(names.await, ["shop of crm-17", ""], "what an operator wrote goes with the customer");
    let log = api.admin().get("/api/v1/audit").await.text;
    assert!(log.contains("token.created") && !log.contains("shop of crm-18"), "{log}");
    let stored =
        fixture::texts(&api.state.store, "select data from events where kind = 'token.created'").await;
    assert!(stored.iter().all(|data| !data.contains("shop of")), "{stored:?}");
}

#[tokio::test]
async fn a_cookie_of_one_kind_is_none_of_the_other() {
    let api = shop().await;
    let ada = person(&api, "crm-17", "Ada").await;
    let of_person = logged_in(&api, "crm-17", &ada).await.replace("fleetgate_my", "fleetgate_session");
    let swapped = browser(&api, &of_person);
    assert_eq!(swapped.get("/api/v1/devices").await.code(), "session_over");
    assert_eq!(swapped.get("/api/v1/my").await.status, 401);
    let user = json!({ "name": "eve", "role": "admin", "password": "correct horse battery" });
    must(&api.admin().post("/api/v1/users", user).await);
    let login = json!({ "name": "eve", "password": "correct horse battery" });
    let begun = api.anonymous().post("/api/v1/session", login).await;
    let of_user = cookie(&begun).replace("fleetgate_session", "fleetgate_my");
    assert_eq!(browser(&api, &of_user).get("/api/v1/my").await.status, 401);
    assert_eq!(browser(&api, &of_user).get("/api/v1/devices").await.status, 401);
    let both = format!("{}; {}", cookie(&begun), logged_in(&api, "crm-17", &ada).await);
    assert_eq!(browser(&api, &both).get("/api/v1/devices").await.status, 200, "a user who tries a link");
    assert_eq!(browser(&api, &both).get("/api/v1/my").await.status, 200);
}

#[tokio::test]
async fn a_person_manages_the_own_renters_and_finds_no_others() {
    let api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let of_bob = renter(&api, &bob, "phone").await;
    let mine = browser(&api, &logged_in(&api, "crm-17", &ada).await);
    let made = mine.post("/api/v1/my/renters", json!({ "name": "laptop" })).await;
    assert_eq!((made.status, &made.json["renter"]["person"]), (201, &json!(ada)), "{}", made.text);
    assert!(made.json["credentials"].is_object(), "{}", made.text);
    let laptop = text(&made.json["renter"]["id"]).to_owned();
    let taken = mine.post("/api/v1/my/renters", json!({ "name": "phone" })).await;
    assert_eq!((taken.status, taken.code()), (409, "name_taken"), "a name is unique within the customer");
    let foreign = json!({ "name": "tablet", "person": bob });
    assert_eq!(mine.post("/api/v1/my/renters", foreign).await.status, 422);
    let listed = mine.get("/api/v1/my/renters").await;
    let ids: Vec<&str> = must(&listed)["items"].as_array().unwrap().iter().map(|r| text(&r["id"])).collect();
    assert_eq!(ids, [laptop.as_str()]);
    let path = |of: &str| format!("/api/v1/my/renters/{of}");
    for of in [of_bob.as_str(), "w_0000000000007", "phone"] {
        assert_eq!(mine.delete(&path(of)).await.status, 404, "{of}");
        let rekeyed = mine.post(&format!("{}/credentials", path(of)), json!({})).await;
        assert_eq!(rekeyed.status, 404, "{of}");
    }
    let keyed = mine.post(&format!("{}/credentials", path(&laptop)), json!({})).await;
    assert_ne!(must(&keyed)["renter"]["public_key"], made.json["renter"]["public_key"]);
    let own = super::operators::key(9);
    let desktop = json!({ "name": "desktop", "public_key": own });
    let desktop = mine.post("/api/v1/my/renters", desktop).await;
    assert_eq!(must(&desktop)["renter"]["public_key"], json!(own), "made by the browser");
    let caller = mine.clone().header("idempotency-key", "k");
    let once = caller.post("/api/v1/my/renters", json!({ "name": "tablet" })).await;
    let again = caller.post("/api/v1/my/renters", json!({ "name": "tablet" })).await;
    assert_eq!((again.status, &again.json["renter"]), (201, &once.json["renter"]), "{}", again.text);
    assert_eq!(again.json["credentials"], Value::Null);
    assert_eq!(mine.delete(&path(&laptop)).await.status, 204);
    assert_eq!(api.operator().get(&format!("/api/v1/renters/{of_bob}")).await.status, 200);
    let log = api.admin().get("/api/v1/audit").await.text;
    assert!(log.contains("renter.rekeyed") && log.contains(&format!("person:{ada}")), "{log}");
}

#[tokio::test]
async fn a_person_who_adds_and_removes_renters_uses_up_no_pool() {
    let api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let mine = browser(&api, &logged_in(&api, "crm-17", &ada).await);
    let mut last = (0, String::new());
    for _ in 0..20 {
        let made = mine.post("/api/v1/my/renters", json!({ "name": "laptop" })).await;
        last = (made.status, made.text.clone());
        let Some(laptop) = made.json["renter"]["id"].as_str() else { break };
        mine.delete(&format!("/api/v1/my/renters/{laptop}")).await;
    }
    assert!(last.0 == 429 && last.1.contains("too many changes"), "{last:?}");
    assert_eq!(mine.get("/api/v1/my/renters").await.status, 200);
    let other = browser(&api, &logged_in(&api, "crm-17", &bob).await);
    assert_eq!(other.post("/api/v1/my/renters", json!({ "name": "phone" })).await.status, 201);
}

#[tokio::test]
async fn a_person_who_reads_without_a_pause_waits_and_others_do_not() {
    let api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let mine = browser(&api, &logged_in(&api, "crm-17", &ada).await);
    let mut last = 0;
    for _ in 0..1_000 {
        let answer = mine.get("/api/v1/my/renters").await;
        last = answer.status;
        if last != 200 {
            assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
            break;
        }
    }
    assert_eq!(last, 429);
    let made = mine.post("/api/v1/my/renters", json!({ "name": "laptop" })).await;
    assert_eq!(made.status, 201, "changes have a limit of their own");
    let other = browser(&api, &logged_in(&api, "crm-17", &bob).await);
    assert_eq!(other.get("/api/v1/my/renters").await.status, 200);
}

#[tokio::test]
async fn rentals_of_others_are_not_found() {
    let api = shop().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let (ada, eve) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-18", "Eve").await);
    let bob = person(&api, "crm-17", "Bob").await;
    let phone = renter(&api, &bob, "phone").await;
    let all = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let mut of_bob = item("cam-2", HOUR, 2 * HOUR);
    of_bob["renters"] = json!([phone]);
    let of_bob = rented(&api, of_bob).await;
    for (customer, who, seen) in
        [("crm-17", &ada, vec![&all]), ("crm-17", &bob, vec![&all, &of_bob]), ("crm-18", &eve, vec![])]
    {
        let mine = browser(&api, &logged_in(&api, customer, who).await);
        let listed = mine.get("/api/v1/my/rentals").await;
        let ids = must(&listed)["items"].as_array().unwrap().iter().map(|r| text(&r["id"]).to_owned());
        let expected = seen.iter().map(|rental| text(&rental["id"]).to_owned());
        assert_eq!(ids.collect::<BTreeSet<_>>(), expected.collect::<BTreeSet<_>>(), "{who}");
        for rental in [&all, &of_bob] {
            let one = mine.get(&format!("/api/v1/my/rentals/{}", text(&rental["id"]))).await;
            assert_eq!(one.status == 200, seen.contains(&rental), "{who}: {}", one.text);
            assert!([200, 404].contains(&one.status));
        }
        assert!(!listed.text.contains("cam-"), "the name of the device is the operator's: {}", listed.text);
    }
}

#[tokio::test]
async fn a_person_gets_certificates_for_the_own_ssh_keys_alone() {
    let api = shop().await;
    with_account(&api, "cam-1", "certificates").await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    let (ada, eve) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-18", "Eve").await);
    let bob = person(&api, "crm-17", "Bob").await;
    let phone = renter(&api, &bob, "phone").await;
    let keys = json!({ "ssh_keys": [key(2).0] });
    must(&api.operator().patch(&format!("/api/v1/renters/{phone}"), keys.clone()).await);
    let mine = browser(&api, &logged_in(&api, "crm-17", &ada).await);
    let made = mine.post("/api/v1/my/renters", json!({ "name": "laptop", "ssh_keys": [key(1).0] })).await;
    let laptop = text(&must(&made)["renter"]["id"]).to_owned();
    let tag = made.headers["etag"].to_str().unwrap().to_owned();
    let rental = rented(&api, with_ssh("cam-1")).await;
    let path = format!("/api/v1/my/rentals/{}", text(&rental["id"]));
    let shown = mine.get(&path).await;
    assert_eq!((&must(&shown)["access"], &shown.json["ssh"]), (&rental["access"], &json!(true)));
    assert!(!rental["access"].as_array().unwrap().is_empty());
    let ssh = format!("{path}/ssh");
    let shown = mine.get(&ssh).await;
    let all = must(&shown)["certificates"].as_array().unwrap();
    assert_eq!((all.len(), &all[0]["renter"]), (1, &json!(laptop)), "{}", shown.text);
    assert_eq!((&all[0]["key"], &shown.json["account"]), (&json!(key(1).1), &json!("guest")));
    assert!(all[0]["certificate"].is_string() && !shown.text.contains("cam-1"), "{}", shown.text);

    let own = format!("/api/v1/my/renters/{laptop}");
    let changed = mine.patch(&own, json!({ "name": "desk", "ssh_keys": [key(3).0] })).await;
    assert_eq!((&must(&changed)["name"], &changed.json["ssh_keys"]), (&json!("desk"), &json!([key(3).1])));
    assert_eq!(must(&mine.get(&ssh).await)["certificates"][0]["key"], json!(key(3).1));
    let bad = mine.patch(&own, json!({ "ssh_keys": ["nonsense"] })).await;
    assert_eq!(field(&bad), (422, "ssh_keys[0]"), "{}", bad.text);
    assert_eq!(mine.patch(&own, json!({ "mtu": 1_280 })).await.status, 422, "that is the operator's");
    assert_eq!(mine.patch(&own, json!({ "name": "phone" })).await.code(), "name_taken");
    let old = mine.clone().header("if-match", &tag).patch(&own, keys.clone()).await;
    assert_eq!(old.status, 412, "{}", old.text);
    assert_eq!(mine.patch(&format!("/api/v1/my/renters/{phone}"), keys).await.status, 404);

    let of_eve = browser(&api, &logged_in(&api, "crm-18", &eve).await);
    assert_eq!(of_eve.get(&ssh).await.status, 404);
    fixture::run(&api.state.store, "update device_rental_settings set ssh_account = null", &[]).await;
    let denied = mine.get(&ssh).await;
    assert_eq!((denied.status, denied.code()), (409, "ssh_not_granted"), "{}", denied.text);
    assert!(!denied.text.contains("cam-1"), "the name of the device is the operator's: {}", denied.text);
}

#[tokio::test]
async fn values_are_those_of_the_time_of_the_rental() {
    let ward = Ward::new(json!({})).await;
    let api = &ward.api;
    let pause = async || tokio::time::sleep(Duration::from_millis(5)).await;
    ward.post("/hosts/nas/results", json!({ "exit_status": 0, "output": "predecessor" })).await;
    let sent = json!({ "exit_status": 2, "output": "predecessor | secret=7" });
    ward.post("/hosts/nas/services/backup/results", sent).await;
    pause().await;
    let earlier = crate::ids::time(crate::clock::wall());
    pause().await;
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-17" })).await);
    super::rentals::renting(api, "nas", json!({ "rentable": true, "without": ["gate"] })).await;
    let mut wanted = item("nas", 0, HOUR);
    wanted.as_object_mut().unwrap().remove("from");
    let rental = rented(api, wanted).await;
    let ada = person(api, "crm-17", "Ada").await;
    let mine = browser(api, &logged_in(api, "crm-17", &ada).await);
    let path = format!("/api/v1/my/rentals/{}", text(&rental["id"]));
    pause().await;
    let before = mine.get(&path).await;
    assert_eq!(
        (&must(&before)["state"], &before.json["device"]["status"]),
        (&json!("active"), &json!("pending"))
    );
    let backup = |of: &Answer| {
        let services = of.json["services"].as_array().unwrap();
        services.iter().find(|service| service["name"] == "backup").expect("a service").clone()
    };
    let nothing = json!({ "name": "backup", "status": "pending", "since": null, "output": "",
                          "truncated": false, "metrics": [] });
    assert_eq!(backup(&before), nothing);
    assert_eq!((&before.json["changes"], &before.json["changes_truncated"]), (&json!([]), &json!(false)));
    assert!(!before.text.contains("predecessor") && !before.text.contains("secret"), "{}", before.text);
    let late = json!({ "exit_status": 1, "output": "predecessor, sent late", "timestamp": earlier });
    ward.post("/hosts/nas/services/backup/results", late).await;
    let still = mine.get(&path).await;
    assert_eq!((backup(&still), &still.json["changes"]), (nothing, &json!([])), "{}", still.text);
    pause().await;
    ward.sends(0).await;
    ward.post("/hosts/nas/results", json!({ "exit_status": 0, "output": "here" })).await;
    let after = mine.get(&path).await;
    let shown = backup(&after);
    assert_eq!((&shown["status"], &shown["output"]), (&json!("ok"), &json!("copied")), "{}", after.text);
    assert_eq!((&shown["metrics"][0]["name"], &shown["metrics"][0]["unit"]), (&json!("size"), &json!("MB")));
    assert_eq!(after.json["device"]["status"], "up");
    assert!(text(&after.json["device"]["since"]) >= text(&after.json["from"]), "{}", after.text);
    let change = &after.json["changes"][0];
    assert_eq!((&change["service"], &change["status"]), (&json!("backup"), &json!("ok")), "{}", after.text);
    assert!(!after.text.contains("\"nas\"") && !after.text.contains("critical"), "{}", after.text);
    pause().await;
    let sent = json!({ "exit_status": 0, "output": "nas at 192.168.1.7: copied" });
    ward.post("/hosts/nas/services/backup/results", sent).await;
    let output = backup(&mine.get(&path).await)["output"].clone();
    assert_eq!(output, json!(format!("{} at (address): copied", text(&rental["name"]))));
    let long = format!("{} 192.168.101.77 ", "ü".repeat(506));
    let sent = json!({ "exit_status": 0, "output": format!("{long}{}", "copied ".repeat(9)) });
    ward.post("/hosts/nas/services/backup/results", sent).await;
    let whole = backup(&mine.get(&path).await);
    assert_eq!(whole["truncated"], false);
    assert!(text(&whole["output"]).ends_with("copied copied"), "{whole}");
    let listed =
        backup(&Answer { json: must(&mine.get("/api/v1/my/rentals").await)["items"][0].clone(), ..after });
    assert_eq!((text(&listed["output"]).len(), &listed["truncated"]), (1_024, &json!(true)), "{listed}");
    let is_beginning = text(&whole["output"]).starts_with(text(&listed["output"]));
    assert!(is_beginning, "addresses are hidden before the cut: {listed}");
    let end = format!("/api/v1/rentals/{}/end", text(&rental["id"]));
    must(&api.operator().post(&end, json!({ "reason": "ended" })).await);
    pause().await;
    ward.sends(2).await;
    let over = mine.get(&path).await;
    assert_eq!((&over.json["device"]["status"], &over.json["services"]), (&Value::Null, &json!([])));
    assert!(!over.text.contains("critical"), "{}", over.text);
}

/// Puts a rental and the occupation of its device at a time, in seconds.
async fn put_at(api: &TestApi, (from, until): (Second, Second)) {
    let bind = [from, until].map(|at| (at * 1_000).to_string());
    for sql in [
        "update rentals set from_at = $1, prepared_from = $1, until_at = $2",
        "update occupancies set from_at = $1, until_at = $2",
    ] {
        fixture::run(&api.state.store, sql, &bind.each_ref().map(String::as_str)).await;
    }
}

#[tokio::test]
async fn the_values_of_a_rental_are_seen_after_its_end_and_none_of_before_or_after() {
    let api = shop().await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": super::rentals::hence(HOUR) })).await;
    let device = IdKind::Host.parse(text(&rental["device"])).unwrap();
    let begin = (crate::clock::day() - 1) * DAY;
    let minute = |n: i64| begin + n * 60;
    let metric =
        |label: &str, uom: &str, value: i64| Metric { value: Some(value as f64), ..Metric::gap(label, uom) };
    let mut samples = Vec::new();
    for n in 60..240 {
        let values = vec![metric("rta", "ms", n), metric("rx", "c", n * n * 60)];
        samples.push(sample(device, "ping", minute(n), values));
    }
    for (n, label) in [(119, "predecessor"), (120, "own"), (179, "last"), (180, "successor")] {
        samples.push(sample(device, label, minute(n), vec![metric(label, "", n)]));
    }
    record(&api, &samples).await;
    let ada = person(&api, "crm-17", "Ada").await;
    let callers = [browser(&api, &logged_in(&api, "crm-17", &ada).await), program(&api, "crm-17").await];
    let path = format!("/api/v1/my/rentals/{}/values", text(&rental["id"]));
    let known = |series: &Value, column: &str| -> Vec<f64> {
        series[column].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
    };
    let nothing = callers[0].get(&path).await;
    assert_eq!(must(&nothing)["series"], json!([]), "it began just now: {}", nothing.text);

    put_at(&api, (minute(120), minute(180))).await;
    for caller in &callers {
        let answer = caller.get(&format!("{path}?points=300")).await;
        let shown = must(&answer);
        assert_eq!(
            (&shown["start"], &shown["step_s"]),
            (&json!(crate::api::metrics::text(minute(120))), &json!(15))
        );
        let names: Vec<&str> =
            shown["series"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
        assert_eq!(names, ["last", "own", "rta", "rx"], "{}", answer.text);
        let (rta, rx) = (&shown["series"][2], &shown["series"][3]);
        let expected: Vec<f64> = (120..180).map(|n| n as f64).collect();
        assert_eq!(known(rta, "avg"), expected, "the one at the begin, and not the one at the end");
        // The first rate would count from the last sample of the predecessor.
        let rates: Vec<f64> = (121..180).map(|n: i64| (n * n - (n - 1) * (n - 1)) as f64).collect();
        assert_eq!((known(rx, "avg"), &rx["unit"]), (rates, &json!("1/s")));
    }

    // Steps of five minutes: the first and the last one are of others too.
    put_at(&api, (minute(120) + 7, minute(180) - 7)).await;
    let answer = callers[0].get(&format!("{path}?points=12")).await;
    let shown = must(&answer);
    assert_eq!(
        (&shown["start"], &shown["step_s"]),
        (&json!(crate::api::metrics::text(minute(125))), &json!(300))
    );
    let rta = shown["series"].as_array().unwrap().iter().find(|one| one["name"] == "rta").expect("a series");
    let (least, most) = (known(rta, "min"), known(rta, "max"));
    assert_eq!(
        (least.len(), least.first(), most.last()),
        (10, Some(&125.0), Some(&174.0)),
        "{}",
        answer.text
    );
    assert!(!answer.text.contains("predecessor") && !answer.text.contains("successor"), "{}", answer.text);
    let halves = callers[0].get(&format!("{path}?points=2")).await;
    assert_eq!(
        (&must(&halves)["start"], &halves.json["series"]),
        (&Value::Null, &json!([])),
        "{}",
        halves.text
    );
    for wrong in ["1", "301"] {
        assert_eq!(callers[0].get(&format!("{path}?points={wrong}")).await.code(), "bad_query");
    }
}

/// Asks for the page as this client, and returns status and body.
async fn asked(api: &TestApi, client: Client, path: &str, host: &str) -> (u16, String) {
    let request = Request::get(path).header("host", host).extension(ConnectInfo(client));
    let router = page::router(api.state.clone());
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_renter_reads_at_the_inner_address_what_is_open_and_why_not() {
    let mut api = shop().await;
    let (ada, bob) = (person(&api, "crm-17", "Ada").await, person(&api, "crm-17", "Bob").await);
    let (laptop, phone) = (renter(&api, &ada, "ada-laptop").await, renter(&api, &bob, "phone").await);
    let mut now = item("cam-1", 0, HOUR);
    now.as_object_mut().unwrap().remove("from");
    (now["name"], now["access"]) = (json!("entrance"), json!([{ "protocol": "tcp", "ports": [443] }]));
    let present = rented(&api, now).await;
    let mut later = item("cam-2", HOUR, 2 * HOUR);
    later["name"] = json!("attic");
    rented(&api, later).await;
    let mut of_others = item("cam-2", 3 * HOUR, 4 * HOUR);
    (of_others["name"], of_others["renters"]) = (json!("cellar"), json!([phone]));
    rented(&api, of_others).await;
    api.start_tunnel().await;
    let peer = IdKind::Renter.parse(&laptop).unwrap_or_else(|unknown| panic!("{}", unknown.0));
    let here = api.state.config.pools().gateway().map(|address| address.to_string());
    let (status, page) = asked(&api, Client::Renter(peer), "/", &here[0]).await;
    assert_eq!(status, 200, "{page}");
    let address = text(&present["addresses"][0]);
    for part in ["What ada-laptop reaches", "<h2>entrance</h2>\n<p><strong>Open</strong>", address, "tcp 443"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(page.contains("<h2>attic</h2>\n<p><strong>Not open</strong>: the rental begins at"), "{page}");
    assert!(!page.contains("cellar") && !page.contains("cam-") && !page.contains("<script"), "{page}");
    let by_v6 = asked(&api, Client::Renter(peer), "/", &format!("[{}]:80", here[1])).await;
    assert_eq!(by_v6.0, 200);
    let (status, style) = asked(&api, Client::Renter(peer), "/style.css", &here[0]).await;
    assert!(status == 200 && style.contains("prefers-color-scheme: dark"), "{style}");
    assert_eq!(asked(&api, Client::Renter(peer), "/", "evil.example").await.0, 404);
    for other in [Client::Device(peer), Client::Local { uid: 0 }] {
        assert_eq!(asked(&api, other, "/", &here[0]).await.0, 403, "{other:?}");
    }
    fixture::restored(&api.state.store, crate::clock::wall()).await;
    assert_eq!(asked(&api, Client::Renter(peer), "/", &here[0]).await.0, 503, "it may have been removed");
    fixture::run(&api.state.store, "update instance set confirmed_at = 1, confirmed_by = ''", &[]).await;
    assert_eq!(asked(&api, Client::Renter(peer), "/", &here[0]).await.0, 200);
    must(&api.operator().delete(&format!("/api/v1/renters/{laptop}")).await);
    assert_eq!(asked(&api, Client::Renter(peer), "/", &here[0]).await.0, 404);
}
