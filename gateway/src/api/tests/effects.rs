//! Settings of contacts, rules, tokens, users, enrolments, downtimes, devices, hosts and profiles:
//! each takes effect or is refused by name. `fields` has the fields of services and hosts.

use std::collections::BTreeMap;

use fleetgate_engine::messages::{Command, MonitorInput, Outcome};
use fleetgate_keys::{PrivateKey, SshKey};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::fields;
use crate::api::openapi;
use crate::api::testing::{Answer, Caller, TestApi};
use crate::notification;
use crate::store::fixture;

/// Every field of what is sent in a request, and the test that shows what it does. Words in brackets: it is for
/// people, who see it.
const FIELDS: [(&str, &str, &[&str]); 56] = [
    ("Approval", "an_enrolment_is_what_token_and_approval_say", &["labels", "name"]),
    ("BookingChange", "rentals::a_booking_is_confirmed_and_described", BOOKING_CHANGE),
    ("ContactChange", "the_router_hears_every_field_of_a_contact", CONTACT),
    ("CustomerChange", "rentals::a_customer_is_changed_and_erased", &["contacts", "external_ref", "name"]),
    ("DeviceChange", "every_field_of_a_device_reaches_tunnel_or_monitor", DEVICE_CHANGE),
    ("DowntimeChange", "downtimes::a_change_reaches_the_monitor", DOWNTIME_CHANGE),
    ("EndpointChange", "devices::*", &["endpoint"]),
    ("EnrolRequest", "an_enrolment_is_what_token_and_approval_say", ENROL),
    ("ForcedHandover", "handovers::a_gate_is_opened_by_hand_with_a_reason", &["force", "reason"]),
    ("GrantChange", "grants::a_grant_reaches_the_tunnel_whole_after_each_change", GRANT_CHANGE),
    ("HostChange", "fields::every_field_of_a_host_reaches_the_engine", HOST_CHANGE),
    ("Login", "a_user_is_who_he_is_said_to_be", &["link", "name", "password"]),
    ("MyRenterChange", "mine::a_person_gets_certificates_for_the_own_ssh_keys_alone", &["name", "ssh_keys"]),
    ("NewAcknowledgement", "the_monitor_hears_every_field_of_an_acknowledgement", ACKNOWLEDGEMENT),
    (
        "NewApiToken",
        "a_token_may_what_it_was_made_for, mine::a_program_of_a_customer_reads_what_is_the_customers",
        &["customer", "expires_in_s", "name", "role", "scopes", "user"],
    ),
    ("NewBackup", "backups::*", &["history", "keep"]),
    ("NewBooking", "rentals::every_field_of_a_booking_has_its_effect", BOOKING),
    ("NewContact", "the_router_hears_every_field_of_a_contact", CONTACT),
    ("NewCredentials", "people::*", &["public_key"]),
    ("NewCustomer", "rentals::a_customer_is_changed_and_erased", &["contacts", "external_ref", "name"]),
    ("NewDevice", "every_field_of_a_device_reaches_tunnel_or_monitor", DEVICE),
    ("NewDeviceBlock", "rentals::a_block_keeps_a_device", &["force", "from", "reason", "until"]),
    ("NewDeviceCredentials", "every_field_of_a_device_reaches_tunnel_or_monitor", &["force", "public_key"]),
    (
        "NewDeviceRentalSettings",
        "rentals::only_rentable_devices_are_booked, handovers::*, shipped::*, device_access::*, profile_rentals::*",
        RENTING,
    ),
    ("NewDowntime", "the_monitor_hears_every_field_of_a_downtime", DOWNTIME),
    ("NewEnrolmentToken", "an_enrolment_is_what_token_and_approval_say", ENROLMENT_TOKEN),
    ("NewForwardProbe", "explain::a_probe_is_sent_as_it_was_asked_for", &["from", "port", "protocol", "to"]),
    ("NewGrant", "grants::a_grant_reaches_the_tunnel_whole_after_each_change", GRANT),
    ("NewHost", "every_field_of_a_new_host_reaches_the_monitor", HOST),
    ("NewMyRenter", "mine::*", &["name", "public_key", "ssh_keys"]),
    ("NewOperator", "operators::*", &["mtu", "name", "public_key", "user"]),
    ("NewPerson", "people::a_person_is_added_changed_and_removed", &["customer", "email", "name"]),
    ("NewPersonLogin", "mine::a_link_is_made_for_a_person_of_the_customer_and_shown_once", &["person"]),
    ("NewProfileRules", "every_field_of_a_profile_reaches_the_monitor", &["rules"]),
    ("NewRenter", "people::*, rental_ssh::*", &["mtu", "name", "person", "public_key", "ssh_keys"]),
    ("NewReplacement", "a_successor_keeps_the_name_of_the_device", REPLACEMENT),
    ("NewResult", "repeated::*", &["exit_status", "output", "timestamp"]),
    ("NewResults", "results::*", &["results"]),
    ("NewRule", "the_router_hears_every_field_of_a_rule", RULE),
    (
        "NewSubscription",
        "rental_events::a_subscription_is_made_shown_changed_paused_and_removed",
        &["kinds", "url"],
    ),
    ("NewUser", "a_user_is_who_he_is_said_to_be", &["name", "password", "role"]),
    ("OperatorChange", "operators::*", &["mtu", "name"]),
    ("PasswordChange", "a_user_is_who_he_is_said_to_be", &["current", "new"]),
    ("PersonChange", "people::a_person_is_added_changed_and_removed", &["email", "name"]),
    ("PersonLogin", "mine::a_person_logs_in_once_by_a_link_and_out", &["token"]),
    (
        "ProfileSettings",
        "every_field_of_a_profile_reaches_the_monitor, profile_rentals::*",
        &["extends", "rental", "services", "summary"],
    ),
    ("Rejection", "enrolments::a_rejected_device_reads_why", &["reason"]),
    (
        "RentalChange",
        "rental_access::*, rental_contacts::*, rental_phases::*, rental_ssh::*, handovers::*",
        RENTAL_CHANGE,
    ),
    ("RentalEnd", "rentals::a_rental_is_cancelled_before_and_ended_after_its_begin", &["note", "reason"]),
    (
        "RenterChange",
        "people::a_renter_is_changed_under_its_etag, rental_ssh::*",
        &["mtu", "name", "ssh_keys"],
    ),
    ("RestoreConfirmation", "restore_review::*", &["restored_at"]),
    ("RuleChange", "the_router_hears_every_field_of_a_rule", RULE),
    ("ServiceSettings", "fields::every_field_of_a_service_reaches_the_engine", &[]),
    (
        "SubscriptionChange",
        "rental_events::a_subscription_is_made_shown_changed_paused_and_removed",
        &["kinds", "paused", "url"],
    ),
    ("Trust", "devices::*", &["host_key"]),
    ("UserChange", "a_user_is_who_he_is_said_to_be", &["disabled", "password", "role"]),
];
const CONTACT: &[&str] = &["digest_at", "emails", "group_wait_s", "name", "time_zone", "webhook_url"];
const BOOKING: &[&str] =
    &["customer", "dry_run", "external_ref", "hold_until", "items", "metadata", "notes", "time_zone"];
const BOOKING_CHANGE: &[&str] = &["hold_until", "metadata", "notes", "time_zone"];
const RENTING: &[&str] = &[
    "access",
    "cleaning_command",
    "delivery",
    "gate",
    "not_ready_reason",
    "preparation_s",
    "ready",
    "rentable",
    "ssh_account",
    "ssh_root",
    "turnaround_s",
    "without",
];
const RENTAL_CHANGE: &[&str] = &[
    "access",
    "allowance_bytes",
    "contacts",
    "cut_at_allowance",
    "device",
    "maintenance",
    "name",
    "other_device_after_s",
    "renters",
    "ssh",
    "thresholds",
    "until",
];
const REPLACEMENT: &[&str] = &["expires_in_s", "force", "needs_approval"];
const RULE: &[&str] = &["contact", "delay_s", "labels", "name", "period", "severity"];
const ACKNOWLEDGEMENT: &[&str] = &["comment", "expires", "sticky"];
const DOWNTIME: &[&str] =
    &["comment", "duration_s", "end", "fixed", "labels", "name", "recurrence", "service", "start"];
const DOWNTIME_CHANGE: &[&str] = &["comment", "duration_s", "end", "recurrence", "start"];
const GRANT: &[&str] = &["access", "from", "name", "reason", "source", "target", "until"];
const GRANT_CHANGE: &[&str] = &["access", "from", "reason", "source", "target", "until"];
const ENROL: &[&str] = &["name", "poll_hash", "public_key", "ssh_host_key", "token"];
const ENROLMENT_TOKEN: &[&str] =
    &["expires_in_s", "label", "labels", "needs_approval", "profile", "ssh_user", "uses"];
const DEVICE_CHANGE: &[&str] =
    &["direct_address", "labels", "mtu", "name", "networks", "notes", "profile", "route", "ssh"];
const DEVICE: &[&str] = &[
    "direct_address",
    "labels",
    "mtu",
    "name",
    "networks",
    "notes",
    "profile",
    "public_key",
    "route",
    "ssh",
    "tunnel",
];
const HOST: &[&str] = &[
    "address",
    "freshness_s",
    "interval_s",
    "labels",
    "max_check_attempts",
    "max_silence_s",
    "name",
    "notes",
    "profile",
    "retry_s",
    "ssh",
    "thresholds",
    "timeout_s",
    "via",
];
const HOST_CHANGE: &[&str] = &[
    "address",
    "budget_bytes_per_day",
    "flapping",
    "freshness_s",
    "interval_s",
    "labels",
    "max_check_attempts",
    "max_silence_s",
    "name",
    "notes",
    "notify",
    "parents",
    "profile",
    "retry_s",
    "ssh",
    "thresholds",
    "timeout_s",
    "volatile",
];

/// A new field needs a test of its effect here.
#[test]
fn every_field_of_a_request_stands_in_the_table() {
    let document = openapi();
    let mut declared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for operation in
        document["paths"].as_object().unwrap().values().flat_map(|p| p.as_object().unwrap().values())
    {
        let content = operation["requestBody"]["content"].as_object().into_iter().flat_map(|c| c.values());
        for name in content.filter_map(|c| c["schema"]["$ref"].as_str()?.rsplit('/').next()) {
            let fields = document["components"]["schemas"][name]["properties"].as_object();
            declared.insert(name, fields.into_iter().flat_map(|f| f.keys()).map(String::as_str).collect());
        }
    }
    let shown: BTreeMap<&str, Vec<&str>> = FIELDS.iter().map(|(name, _, f)| (*name, f.to_vec())).collect();
    assert_eq!(declared, shown);
}

fn key(n: u8) -> String {
    PrivateKey::from_bytes([n; 32]).public().to_string()
}

fn host_key(comment: &str) -> String {
    SshKey::generate(comment).public().to_string()
}

fn must(answer: &Answer) {
    assert!((200..300).contains(&answer.status), "{}", answer.text);
}

/// Checks that the request was refused with the field's name.
fn names(answer: &Answer, field: &str) {
    assert_eq!((answer.status, &answer.json["errors"][0]["field"]), (422, &json!(field)), "{}", answer.text);
}

/// Records the inputs of a monitor that accepts them at once, because the sender waits for it.
fn ears(api: &mut TestApi) -> mpsc::UnboundedReceiver<MonitorInput> {
    let mut inputs = std::mem::replace(&mut api.monitor, mpsc::channel(1).1);
    let (to, heard) = mpsc::unbounded_channel();
    let live = api.state.live.clone();
    tokio::spawn(async move {
        while let Some(input) = inputs.recv().await {
            match input {
                MonitorInput::Mark(ticket) => {
                    live.tickets().settle(ticket, Outcome::Done, crate::clock::now().mono, |_| None);
                }
                input => drop(to.send(input)),
            }
        }
    });
    heard
}

fn all(heard: &mut mpsc::UnboundedReceiver<MonitorInput>) -> String {
    std::iter::from_fn(|| heard.try_recv().ok()).filter_map(words).collect()
}

fn words(input: MonitorInput) -> Option<String> {
    Some(match input {
        MonitorInput::Upsert(spec) => format!("{spec:?}\n"),
        MonitorInput::Downtime(plan) => format!("{:?} {:?}\n", plan.scope, plan.when),
        MonitorInput::Acknowledge { ack, .. } => format!("{} {:?}\n", ack.sticky, ack.expires),
        _ => return None,
    })
}

/// Returns the inputs of the tunnel and the monitor in words, without generated ids and times.
fn told(api: &mut TestApi) -> String {
    let mut said = String::new();
    while let Ok(command) = api.tunnel.try_recv() {
        if let Command::Upsert(peer, _) = command {
            let addresses = peer.addresses.len();
            said += &format!("{:?} {:?} {addresses} {}\n", peer.keys, peer.networks, peer.mtu);
        }
    }
    while let Ok(input) = api.monitor.try_recv() {
        said.extend(words(input));
    }
    said
}

// ------------------------------------------------------------ contacts and rules

async fn heard(api: &TestApi) -> String {
    notification::heard(&api.state.store, &api.state.config).await
}

/// Checks that each field has an effect on an existing resource.
async fn each_is_heard(api: &TestApi, path: &str, fields: &[(&str, Value)]) {
    let mut before = heard(api).await;
    for (name, value) in fields {
        must(&api.operator().patch(path, json!({ *name: value })).await);
        let after = heard(api).await;
        assert_ne!(before, after, "{path}: {name} is stored, and nobody hears of it");
        before = after;
    }
}

/// Checks that each field has an effect on a new resource. `bare`: the required fields.
async fn each_is_heard_of_a_new_one(api: &TestApi, list: &str, bare: Value, fields: &[(&str, Value)]) {
    let name = bare["name"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    for (field, value) in [("name", json!(name))].iter().chain(fields) {
        let mut body = bare.clone();
        body[*field] = value.clone();
        must(&api.operator().post(list, body.clone()).await);
        let words = heard(api).await;
        assert!(!seen.contains(&words), "{list}: {field} is stored, and nobody hears of it");
        seen.push(words);
        let made = body["name"].as_str().unwrap();
        assert_eq!(api.operator().delete(&format!("{list}/{made}")).await.status, 204);
    }
}

#[tokio::test]
async fn the_router_hears_every_field_of_a_contact() {
    let api = TestApi::with_endpoint().await;
    let fields = [
        ("emails", json!(["a@example.org", "b@example.org"])),
        ("webhook_url", json!("https://example.org/hook")),
        ("time_zone", json!("Europe/Vienna")),
        ("digest_at", json!("07:30")),
        ("group_wait_s", json!(33)),
        ("name", json!("crew")),
    ];
    must(
        &api.operator()
            .post("/api/v1/contacts", json!({ "name": "ops", "emails": ["ops@example.org"] }))
            .await,
    );
    let id = api.operator().get("/api/v1/contacts/ops").await.json["id"].as_str().unwrap().to_owned();
    each_is_heard(&api, &format!("/api/v1/contacts/{id}"), &fields).await;
    assert_eq!(api.operator().delete(&format!("/api/v1/contacts/{id}")).await.status, 204);
    let bare = json!({ "name": "new", "emails": ["new@example.org"] });
    each_is_heard_of_a_new_one(&api, "/api/v1/contacts", bare, &fields).await;
}

#[tokio::test]
async fn the_router_hears_every_field_of_a_rule() {
    let api = TestApi::with_endpoint().await;
    for name in ["ops", "boss"] {
        must(
            &api.operator()
                .post("/api/v1/contacts", json!({ "name": name, "emails": ["x@example.org"] }))
                .await,
        );
    }
    let fields = [
        ("labels", json!({ "site": "hill" })),
        ("severity", json!("critical")),
        ("period", json!("mon-fri 08:00-18:00")),
        ("delay_s", json!(900)),
        ("contact", json!("boss")),
        ("name", json!("other")),
    ];
    must(&api.operator().post("/api/v1/rules", json!({ "name": "all", "contact": "ops" })).await);
    let id = api.operator().get("/api/v1/rules/all").await.json["id"].as_str().unwrap().to_owned();
    each_is_heard(&api, &format!("/api/v1/rules/{id}"), &fields).await;
    assert_eq!(api.operator().delete(&format!("/api/v1/rules/{id}")).await.status, 204);
    let bare = json!({ "name": "new", "contact": "ops" });
    each_is_heard_of_a_new_one(&api, "/api/v1/rules", bare, &fields).await;
}

// ------------------------------------------------------------- tokens and users

#[tokio::test]
async fn a_token_may_what_it_was_made_for() {
    let api = TestApi::with_endpoint().await;
    let make = async |body: Value| {
        let made = api.admin().post("/api/v1/tokens", body).await;
        must(&made);
        made.json["secret"].as_str().unwrap().to_owned()
    };
    let status = async |token: &str, path: &str, body: Value| {
        api.anonymous().bearer(token).post(path, body).await.status
    };
    let device = |name: &str| json!({ "name": name });
    let viewer = make(json!({ "name": "v", "role": "viewer" })).await;
    let operator = make(json!({ "name": "o", "role": "operator" })).await;
    assert_eq!(status(&viewer, "/api/v1/devices", device("a")).await, 403);
    assert_eq!(status(&operator, "/api/v1/devices", device("a")).await, 201);
    let scoped = make(json!({ "name": "s", "role": "operator", "scopes": ["enrolments"] })).await;
    assert_eq!(status(&scoped, "/api/v1/devices", device("b")).await, 403);
    assert_eq!(status(&scoped, "/api/v1/enrolment-tokens", json!({})).await, 201);
    let user = json!({ "name": "ada", "role": "operator", "password": PASSWORD });
    must(&api.admin().post("/api/v1/users", user).await);
    let of_ada = make(json!({ "name": "laptop", "user": "ada" })).await;
    assert_eq!(status(&of_ada, "/api/v1/operators", json!({ "name": "ada-laptop" })).await, 201);
    let short = make(json!({ "name": "t", "role": "viewer", "expires_in_s": 3_600 })).await;
    let shows = async |token: &str| api.anonymous().bearer(token).get("/api/v1/devices").await.status;
    assert_eq!((shows(&short).await, shows(&viewer).await), (200, 200));
    let sql =
        "update tokens set expires_at = expires_at - 3600000 where expires_at is not null and name = 't'";
    fixture::run(&api.state.store, sql, &[]).await;
    // A change by hand in the file counts with the next change at the latest.
    assert_eq!(status(&operator, "/api/v1/devices", device("c")).await, 201);
    assert_eq!((shows(&short).await, shows(&viewer).await), (401, 200));
    let listed = api.admin().get("/api/v1/tokens").await.text;
    assert!(["\"v\"", "\"o\"", "\"s\"", "\"t\""].iter().all(|name| listed.contains(name)), "{listed}");
}

#[tokio::test]
async fn a_token_of_a_user_has_at_most_the_rights_of_the_user_and_ends_with_it() {
    let api = TestApi::with_endpoint().await;
    for (name, role) in [("ada", "operator"), ("bob", "viewer"), ("root", "admin")] {
        let new = json!({ "name": name, "role": role, "password": PASSWORD });
        must(&api.admin().post("/api/v1/users", new).await);
    }
    let make = async |body: Value| api.admin().post("/api/v1/tokens", body).await;
    let refused = make(json!({ "name": "t", "user": "bob", "role": "operator" })).await;
    assert_eq!((refused.status, &refused.json["errors"][0]["field"]), (422, &json!("role")));
    assert!(refused.text.contains("bob is viewer"), "{}", refused.text);
    assert_eq!(make(json!({ "name": "t", "user": "nobody" })).await.json["errors"][0]["field"], "user");
    assert_eq!(make(json!({ "name": "t" })).await.json["errors"][0]["field"], "role");

    let made = make(json!({ "name": "laptop", "user": "ada" })).await;
    assert_eq!(
        (&made.json["token"]["user"], &made.json["token"]["role"]),
        (&json!("ada"), &json!("operator"))
    );
    let (id, secret) = (made.json["token"]["id"].clone(), made.json["secret"].as_str().unwrap());
    let token = api.anonymous().bearer(secret);
    let role = async || token.get("/api/v1/session").await.json["role"].clone();
    assert_eq!(role().await, "operator");
    let device = |name: &str| json!({ "name": name });
    must(&token.post("/api/v1/devices", device("a")).await);
    let audit = api.admin().get("/api/v1/audit?kind=device.created").await;
    let principal = format!("user:ada/{}", id.as_str().unwrap());
    assert_eq!(audit.json["items"][0]["principal"], json!(principal), "the audit names the user");
    // It adds operators of its user, as the user does.
    must(&token.post("/api/v1/operators", json!({ "name": "ada-laptop" })).await);
    assert_eq!(token.post("/api/v1/operators", json!({ "name": "b", "user": "bob" })).await.status, 403);

    let change = async |body: Value| must(&api.admin().patch("/api/v1/users/ada", body).await);
    change(json!({ "role": "viewer" })).await;
    assert_eq!(role().await, "viewer");
    assert_eq!(token.post("/api/v1/devices", device("b")).await.status, 403);
    change(json!({ "role": "admin" })).await;
    assert_eq!(role().await, "operator", "never more than it was made with");
    change(json!({ "disabled": true })).await;
    let disabled = token.get("/api/v1/session").await;
    assert_eq!((disabled.status, disabled.code()), (401, "token_refused"));
    assert!(disabled.text.contains("the user ada of this token is disabled"), "{}", disabled.text);
    assert_eq!(make(json!({ "name": "t", "user": "ada" })).await.code(), "user_disabled");
    change(json!({ "disabled": false })).await;
    assert_eq!(role().await, "operator");
    assert_eq!(api.admin().delete("/api/v1/users/ada").await.status, 204);
    assert_eq!(token.get("/api/v1/session").await.status, 401);
    let shown = api.admin().get(&format!("/api/v1/tokens/{}", id.as_str().unwrap())).await;
    assert!(shown.json["revoked_at"].is_string() && shown.json["user"] == "ada", "{}", shown.text);
}

const PASSWORD: &str = "correct horse battery";

async fn session<'a>(api: &'a TestApi, login: Value) -> Result<Caller<'a>, u16> {
    let answer = api.anonymous().post("/api/v1/session", login).await;
    let cookie = answer.headers.get("set-cookie").and_then(|c| c.to_str().ok()?.split(';').next());
    cookie.map(|cookie| api.anonymous().header("cookie", cookie)).ok_or(answer.status)
}

#[tokio::test]
async fn a_user_is_who_he_is_said_to_be() {
    let api = TestApi::with_endpoint().await;
    let new = json!({ "name": "ada", "role": "viewer", "password": PASSWORD });
    must(&api.admin().post("/api/v1/users", new).await);
    let login = |password: &str| json!({ "name": "ada", "password": password });
    assert_eq!(session(&api, login("something else")).await.err(), Some(401));
    let ada = session(&api, login(PASSWORD)).await.expect("a session");
    let change = async |body: Value| must(&api.admin().patch("/api/v1/users/ada", body).await);
    let may = async |caller: &Caller<'_>| {
        let own = caller.clone().header("origin", "http://127.0.0.1:8080").header("host", "127.0.0.1:8080");
        own.post("/api/v1/hosts/nobody/check", json!({})).await.status
    };
    assert_eq!(may(&ada).await, 403, "a viewer asks for no check");
    change(json!({ "role": "operator" })).await;
    let ada = session(&api, login(PASSWORD)).await.expect("a session");
    assert_eq!(may(&ada).await, 404, "an operator does, of a host that is there");
    change(json!({ "disabled": true })).await;
    assert_eq!(ada.get("/api/v1/devices").await.status, 401);
    assert_eq!(session(&api, login(PASSWORD)).await.err(), Some(401));
    change(json!({ "disabled": false })).await;
    change(json!({ "password": "another horse battery" })).await;
    assert_eq!(session(&api, login(PASSWORD)).await.err(), Some(401));
    let ada = session(&api, login("another horse battery")).await.expect("a session");
    let ada = ada.header("origin", "http://127.0.0.1:8080").header("host", "127.0.0.1:8080");
    let own = |current: &str| json!({ "current": current, "new": "a third horse battery" });
    assert_eq!(ada.put("/api/v1/session/password", own(PASSWORD)).await.status, 401);
    must(&ada.put("/api/v1/session/password", own("another horse battery")).await);
    assert!(session(&api, login("a third horse battery")).await.is_ok());
    let link = api.admin().post("/api/v1/users/ada/login-link", json!({})).await;
    must(&link);
    let secret = link.json["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    assert!(session(&api, json!({ "link": secret })).await.is_ok());
    assert!(session(&api, json!({ "link": secret })).await.is_err(), "it works once");
    must(&api.admin().patch("/api/v1/users/ada", json!({ "disabled": true })).await);
    let link = api.admin().post("/api/v1/users/ada/login-link", json!({})).await;
    assert_eq!((link.status, &link.json["code"]), (409, &json!("user_disabled")), "{}", link.text);
}

// ------------------------------------------------------------------- enrolment

async fn enrolment_token(api: &TestApi, body: Value) -> Value {
    let made = api.operator().post("/api/v1/enrolment-tokens", body).await;
    must(&made);
    made.json["secret"].clone()
}

fn request(token: &Value, name: &str, n: u8) -> Value {
    json!({ "token": token, "name": name, "public_key": key(n), "poll_hash": "ab".repeat(32) })
}

#[tokio::test]
async fn an_enrolment_is_what_token_and_approval_say() {
    let mut api = TestApi::with_endpoint().await;
    let wanted = json!({ "label": "hill", "labels": { "site": "hill" }, "profile": "router", "ssh_user": "cam", "uses": 2 });
    let token = enrolment_token(&api, wanted).await;
    let host_key = host_key("cam");
    let mut body = request(&token, "cam-1", 1);
    body["ssh_host_key"] = json!(host_key);
    must(&api.anonymous().post("/api/v1/enrol", body).await);
    let words = told(&mut api);
    let public = PrivateKey::from_bytes([1; 32]).public();
    assert!(words.contains(&format!("{public:?}")), "the tunnel has its key: {words}");
    for (field, effect) in
        [("name", "\"cam-1\""), ("labels", "\"hill\""), ("ssh_user", "Some(\"cam\")"), ("profile", "\"rta\"")]
    {
        assert!(words.contains(effect), "{field}: {words}");
    }
    assert!(words.contains("SHA256:"), "its host key is insisted on: {words}");
    must(&api.anonymous().post("/api/v1/enrol", request(&token, "cam-2", 2)).await);
    let third = api.anonymous().post("/api/v1/enrol", request(&token, "cam-3", 3)).await;
    assert_eq!(third.code(), "token_spent", "uses");
    let listed = api.operator().get("/api/v1/enrolments").await.text;
    assert!(listed.contains("\"token_label\":\"hill\"") || listed.contains("hill"), "{listed}");

    let waits = enrolment_token(&api, json!({ "needs_approval": true, "labels": { "site": "sea" } })).await;
    told(&mut api);
    let asked = api.anonymous().post("/api/v1/enrol", request(&waits, "cam-4", 4)).await;
    assert_eq!((asked.json["state"].clone(), told(&mut api)), (json!("awaiting_approval"), String::new()));
    let path = format!("/api/v1/enrolments/{}/approve", asked.json["id"].as_str().unwrap());
    must(&api.operator().post(&path, json!({ "name": "cam-sea", "labels": { "mast": "north-mast" } })).await);
    let words = told(&mut api);
    assert!(["\"cam-sea\"", "\"sea\"", "\"north-mast\""].iter().all(|w| words.contains(w)), "{words}");

    let over = enrolment_token(&api, json!({ "expires_in_s": 3_600 })).await;
    let sql = "update enrolment_tokens set expires_at = 1 where expires_at is not null and uses_left = 1";
    fixture::run(&api.state.store, sql, &[]).await;
    let late = api.anonymous().post("/api/v1/enrol", request(&over, "cam-5", 5)).await;
    assert_eq!(late.code(), "token_expired");
}

#[tokio::test]
async fn a_successor_keeps_the_name_of_the_device() {
    let mut api = TestApi::with_endpoint().await;
    must(&api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await);
    let path = "/api/v1/devices/cam/replacement";
    for (waits, n) in [(false, 21), (true, 22)] {
        let token =
            api.operator().post(path, json!({ "needs_approval": waits })).await.json["secret"].clone();
        told(&mut api);
        // The replacement is of another make and reports its own name.
        let asked = api.anonymous().post("/api/v1/enrol", request(&token, "other-make", n)).await;
        assert_eq!((asked.status, asked.json["name"].clone()), (201, json!("cam")), "{}", asked.text);
        let id = asked.json["id"].as_str().unwrap();
        if waits {
            let shown = api.operator().get(&format!("/api/v1/enrolments/{id}")).await.json;
            assert_eq!(shown["name"], "cam", "as whom it comes in: {shown}");
            must(&api.operator().post(&format!("/api/v1/enrolments/{id}/approve"), json!({})).await);
        }
        let words = told(&mut api);
        assert!(words.contains("\"cam\"") && !words.contains("other-make"), "{words}");
        let listed = api.viewer().get("/api/v1/devices").await.json;
        assert_eq!(
            (listed["items"].as_array().unwrap().len(), &listed["items"][0]["name"]),
            (1, &json!("cam"))
        );
        let events = api.viewer().get("/api/v1/events?since=0").await.text;
        assert!(!events.contains("\"name\":\"other-make\""), "{events}");
    }
    let short = api.operator().post(path, json!({ "expires_in_s": 3_600 })).await.json["secret"].clone();
    fixture::run(&api.state.store, "update enrolment_tokens set expires_at = 1", &[]).await;
    let late = api.anonymous().post("/api/v1/enrol", request(&short, "x", 23)).await;
    assert_eq!(late.code(), "token_expired");
}

// ------------------------------------------------- downtimes and acknowledgements

const START: &str = "2098-12-31T00:00:00Z";
const END: &str = "2099-01-01T00:00:00Z";

#[tokio::test]
async fn the_monitor_hears_every_field_of_a_downtime() {
    let mut api = TestApi::with_endpoint().await;
    must(&api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await);
    let mut heard = ears(&mut api);
    let path = "/api/v1/hosts/cam/downtimes";
    let bare = json!({ "start": START, "end": END });
    let weekly = json!({ "every": "sun", "from": "02:00", "to": "04:00" });
    let with = |fields: Value| {
        let mut body = bare.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let recurring = |fields: Value| {
        let mut recurrence = weekly.clone();
        recurrence.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "recurrence": recurrence })
    };
    let bodies = [
        bare.clone(),
        with(json!({ "start": "2098-12-30T00:00:00Z" })),
        with(json!({ "end": "2099-01-02T00:00:00Z" })),
        with(json!({ "service": "ping" })),
        with(json!({ "fixed": false, "duration_s": 600 })),
        with(json!({ "fixed": false, "duration_s": 700 })),
        recurring(json!({})),
        recurring(json!({ "every": "mon" })),
        recurring(json!({ "from": "01:00" })),
        recurring(json!({ "to": "05:00" })),
        recurring(json!({ "time_zone": "Europe/Vienna" })),
        recurring(json!({ "first_date": "2098-01-01" })),
        recurring(json!({ "last_date": "2099-01-01" })),
    ];
    let mut seen: Vec<String> = Vec::new();
    for body in bodies {
        must(&api.operator().post(path, body.clone()).await);
        let words = all(&mut heard);
        assert!(!seen.contains(&words) && !words.is_empty(), "{body} is what was said before: {words}");
        seen.push(words);
    }
    let mut by_labels = with(json!({ "labels": { "site": "hill" } }));
    must(&api.operator().post("/api/v1/downtimes", by_labels.clone()).await);
    assert!(all(&mut heard).contains("hill"));
    by_labels["name"] = json!("patches");
    by_labels["comment"] = json!("updates");
    let shown = api.operator().post("/api/v1/downtimes", by_labels).await;
    assert_eq!((&shown.json["name"], &shown.json["comment"]), (&json!("patches"), &json!("updates")));
    assert!(all(&mut heard).contains("hill"));
    for (field, body) in [
        ("labels", with(json!({ "labels": { "site": "hill" } }))),
        ("duration_s", with(json!({ "fixed": true, "duration_s": 600 }))),
        ("start", json!({ "recurrence": weekly, "start": START })),
        ("end", json!({ "recurrence": weekly, "end": END })),
        ("duration_s", json!({ "recurrence": weekly, "duration_s": 600 })),
        ("service", with(json!({ "service": "nope" }))),
    ] {
        names(&api.operator().post(path, body).await, field);
    }
    let nowhere = api.operator().post("/api/v1/hosts/cam/services/nope/downtimes", bare).await;
    assert_eq!(nowhere.status, 404, "{}", nowhere.text);
    assert_eq!(all(&mut heard), "", "what is refused is told to nobody");
}

#[tokio::test]
async fn the_monitor_hears_every_field_of_an_acknowledgement() {
    let mut api = TestApi::with_endpoint().await;
    must(&api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await);
    api.state.store.all_hosts(&api.state.config.timing).await.unwrap();
    let down = "update host_states set status = 'down', hard = 'down', kind = 'hard'";
    fixture::run(&api.state.store, down, &[]).await;
    let mut heard = ears(&mut api);
    let path = "/api/v1/hosts/cam/acknowledgement";
    let mut seen: Vec<String> = Vec::new();
    for body in [json!({}), json!({ "sticky": true }), json!({ "expires": END })] {
        must(&api.operator().post(path, body.clone()).await);
        let words = all(&mut heard);
        assert!(!seen.contains(&words) && !words.is_empty(), "{body}: {words}");
        seen.push(words);
    }
    let made = api.operator().post(path, json!({ "comment": "on it" })).await;
    assert!(made.text.contains("on it"), "{}", made.text);
}

// ------------------------------------------------------- devices, hosts, profiles

#[tokio::test]
async fn every_field_of_a_device_reaches_tunnel_or_monitor() {
    let mut api = TestApi::with_endpoint().await;
    let fields = [
        ("labels", json!({ "site": "hill" })),
        ("profile", json!("router")),
        ("networks", json!(["192.168.1.0/24"])),
        ("mtu", json!(1_400)),
        ("direct_address", json!("cam.example.com")),
        ("route", json!("direct")),
        ("ssh", json!({ "user": "fleet" })),
        ("ssh", json!({ "user": "fleet", "port": 2222 })),
    ];
    must(&api.operator().post("/api/v1/devices", json!({ "name": "cam", "public_key": key(31) })).await);
    let mut before = told(&mut api);
    assert!(before.contains(&format!("{:?}", PrivateKey::from_bytes([31; 32]).public())), "{before}");
    let id = api.viewer().get("/api/v1/devices/cam").await.json["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/devices/{id}");
    for (name, value) in fields.iter().cloned().chain([("name", json!("cam-2"))]) {
        must(&api.operator().patch(&path, json!({ name: value })).await);
        let after = told(&mut api);
        assert!(after != before && !after.is_empty(), "{name} is stored, and nobody hears of it");
        before = after;
    }
    assert_eq!(api.operator().patch(&path, json!({ "notes": "n" })).await.json["notes"], "n");
    must(&api.operator().post(&format!("{path}/credentials"), json!({ "public_key": key(32) })).await);
    assert!(told(&mut api).contains(&format!("{:?}", PrivateKey::from_bytes([32; 32]).public())));

    // The same for a new device: each field must make a difference to a device without it.
    let mut seen: Vec<String> = Vec::new();
    let new = [("labels", json!({}))].into_iter().chain(fields);
    let new = new.chain([("ssh", json!({ "user": "fleet", "host_key": host_key("cam") }))]);
    for (field, value) in new {
        let needs = if field == "route" { json!({ "direct_address": "cam.example.com" }) } else { json!({}) };
        let mut body = json!({ "name": "new", "public_key": key(40 + seen.len() as u8), field: value });
        body.as_object_mut().unwrap().extend(needs.as_object().unwrap().clone());
        must(&api.operator().post("/api/v1/devices", body).await);
        let words = without_ids(&told(&mut api));
        assert!(
            !seen.contains(&words) && !words.is_empty(),
            "{field} is stored, and nobody hears of it: {words}"
        );
        seen.push(words);
        assert_eq!(api.operator().delete("/api/v1/devices/new").await.status, 204);
    }
    let bare = json!({ "name": "bare", "tunnel": false, "direct_address": "cam.example.com" });
    must(&api.operator().post("/api/v1/devices", bare.clone()).await);
    let words = told(&mut api);
    assert!(words.contains("own_tunnel: false"), "tunnel: {words}");
    assert_eq!(api.operator().delete("/api/v1/devices/bare").await.status, 204);
    for (field, value) in [
        ("public_key", json!(key(99))),
        ("networks", json!(["192.168.7.0/24"])),
        ("route", json!("tunnel")),
        ("mtu", json!(1_300)),
    ] {
        let mut body = bare.clone();
        body[field] = value;
        names(&api.operator().post("/api/v1/devices", body).await, field);
    }
}

/// Removes the values that differ in each device: ids, keys and addresses.
fn without_ids(words: &str) -> String {
    let specs = words.lines().filter(|line| line.starts_with("HostSpec"));
    let networks = words.lines().filter(|line| !line.starts_with("HostSpec"));
    let networks = networks.map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest));
    let digits = |line: &str| line.split_once("name: \"").map_or("", |(_, rest)| rest).to_owned();
    let plain = |line: String| {
        let (before, after) = line.split_once("peer: ").unwrap_or((&line, ""));
        let after = after.split_once("direct: ").map_or("", |(_, after)| after);
        format!("{before} {after}\n")
    };
    specs.map(|line| plain(digits(line))).chain(networks.map(|line| format!("{line}\n"))).collect()
}

#[tokio::test]
async fn every_field_of_a_new_host_reaches_the_monitor() {
    let mut api = TestApi::with_endpoint().await;
    let networks = json!(["192.168.1.0/24"]);
    for name in ["cam", "other"] {
        must(&api.operator().post("/api/v1/devices", json!({ "name": name, "networks": networks })).await);
    }
    told(&mut api);
    let fields = [
        ("labels", json!({})),
        ("labels", json!({ "site": "hill" })),
        ("profile", json!("router")),
        ("address", json!("192.168.1.8")),
        ("via", json!("other")),
        ("ssh", json!({ "user": "fleet" })),
        ("ssh", json!({ "port": 2222 })),
        ("ssh", json!({ "host_key": host_key("nas") })),
        ("interval_s", json!(120)),
        ("retry_s", json!(7)),
        ("timeout_s", json!(3)),
        ("max_check_attempts", json!(5)),
        ("max_silence_s", json!(900)),
        ("freshness_s", json!(600)),
        ("thresholds", json!([{ "metric": "rtt", "warn": "2" }])),
        ("name", json!("another")),
    ];
    let mut seen: Vec<String> = Vec::new();
    for (field, value) in fields {
        let mut body = json!({ "name": "nas", "via": "cam", "address": "192.168.1.9" });
        body[field] = value;
        must(&api.operator().post("/api/v1/hosts", body.clone()).await);
        let name = body["name"].as_str().unwrap();
        let words = told(&mut api);
        // The id comes before this point.
        let words = words.split_once("name: ").expect("a spec").1.to_owned();
        assert!(!seen.contains(&words), "{field} is stored, and nobody hears of it: {words}");
        seen.push(words);
        assert_eq!(api.operator().delete(&format!("/api/v1/hosts/{name}")).await.status, 204);
    }
    let body = json!({ "name": "nas", "via": "cam", "address": "192.168.1.9", "notes": "in the attic" });
    must(&api.operator().post("/api/v1/hosts", body).await);
    assert_eq!(api.viewer().get("/api/v1/hosts/nas/settings").await.json["notes"], "in the attic");
}

#[tokio::test]
async fn every_field_of_a_profile_reaches_the_monitor() {
    let mut api = TestApi::with_endpoint().await;
    must(&api.operator().put("/api/v1/profiles/own", json!({})).await);
    let device =
        json!({ "name": "cam", "profile": "own", "ssh": { "user": "fleet" }, "labels": { "kind": "x" } });
    must(&api.operator().post("/api/v1/devices", device).await);
    let spec = async |api: &mut TestApi, profile: Value| {
        must(&api.operator().put("/api/v1/profiles/own", profile).await);
        let words = told(api);
        words.split_once("name: ").map(|(_, words)| words.to_owned()).unwrap_or_default()
    };
    told(&mut api);
    let tcp = json!({ "check": { "type": "tcp", "port": 80 } });
    let mut before = spec(&mut api, json!({ "extends": ["default"], "services": { "web": tcp } })).await;
    assert!(before.contains("\"web\"") && before.contains("\"disk\""), "{before}");
    for (name, value) in fields::of_a_service().into_iter().chain([("disabled", json!(true))]) {
        let mut web = tcp.clone();
        web[name] = value;
        let after = spec(&mut api, json!({ "extends": ["default"], "services": { "web": web } })).await;
        assert!(after != before && !after.is_empty(), "{name} is stored, and nobody hears of it");
        before = after;
    }
    let less = spec(&mut api, json!({ "extends": [], "services": { "web": tcp } })).await;
    assert!(!less.contains("\"disk\""), "{less}");
    let summary = json!({ "summary": "the web", "services": { "web": tcp } });
    assert_eq!(api.operator().put("/api/v1/profiles/own", summary).await.json["summary"], "the web");

    must(&api.operator().patch("/api/v1/hosts/cam", json!({ "profile": null })).await);
    told(&mut api);
    let rules = json!({ "rules": [{ "labels": { "kind": "x" }, "profile": "own" }] });
    must(&api.operator().put("/api/v1/profile-rules", rules).await);
    let words = told(&mut api);
    assert!(words.contains("\"web\"") && !words.contains("\"disk\""), "{words}");
}
