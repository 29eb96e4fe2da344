//! After a restore: what waits for an admin, what goes on, and what the confirmation brings back.

use std::path::Path;
use std::sync::Arc;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantProtocol, PolicyChange,
};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{PrivateKey, Token};
use serde_json::{Value, json};

use super::rentals::hence;
use crate::api::request::ids;
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, TestApi, bearer};
use crate::backup::{self, Order};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::server::Server;
use crate::store::access::Role;
use crate::store::{fixture, instance, policy};

const PASSWORD: &str = "correct horse battery";
const RESTORED_AT: Wall = Wall::from_millis(1_790_000_000_250);

fn must(answer: &Answer) -> &Value {
    assert!(answer.status < 300, "{}", answer.text);
    &answer.json
}

/// A gateway with a device that is rented, and a user with an operator and a token.
async fn site() -> TestApi {
    let api = TestApi::with_endpoint().await;
    for (path, body) in [
        ("devices", json!({ "name": "cam-07" })),
        ("users", json!({ "name": "anna", "role": "operator", "password": PASSWORD })),
        ("users", json!({ "name": "eve", "role": "viewer", "password": PASSWORD })),
        ("operators", json!({ "name": "anna-laptop", "user": "anna" })),
        ("customers", json!({ "external_ref": "crm-17" })),
    ] {
        must(&api.admin().post(&format!("/api/v1/{path}"), body).await);
    }
    let settings = "/api/v1/devices/cam-07/rental-settings";
    must(&api.operator().put(settings, json!({ "rentable": true })).await);
    must(&api.operator().post("/api/v1/bookings", booking("order-1", 1)).await);
    api
}

fn booking(reference: &str, day: u64) -> Value {
    let (from, until) = (hence(86_400 * day), hence(86_400 * day + 3_600));
    json!({ "customer": "crm-17", "external_ref": reference,
        "items": [{ "device": "cam-07", "from": from, "until": until }] })
}

/// Returns the changes of the policy that the tunnel hears, by command.
fn heard(api: &mut TestApi) -> Vec<Vec<PolicyChange>> {
    let commands = std::iter::from_fn(|| api.tunnel.try_recv().ok());
    let policy = |command| match command {
        Command::Policy(changes) => Some(changes),
        _ => None,
    };
    commands.filter_map(policy).collect()
}

fn has_source(changes: &[PolicyChange]) -> bool {
    changes.iter().any(|change| matches!(change, PolicyChange::Source(_)))
}

async fn policy_at_start(api: &TestApi) -> Vec<PolicyChange> {
    let mut conn = api.state.store.reader().await.unwrap();
    policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes
}

async fn confirm(api: &TestApi, at: Wall) -> Answer {
    let body = json!({ "restored_at": ids::time(at) });
    api.admin().post("/api/v1/restore-review/confirm", body).await
}

#[tokio::test]
async fn the_policy_has_no_person_before_the_confirmation_and_all_of_them_after_it() {
    let mut api = site().await;
    assert!(has_source(&policy_at_start(&api).await));
    fixture::restored(&api.state.store, RESTORED_AT).await;
    let at_start = policy_at_start(&api).await;
    assert!(!has_source(&at_start));
    assert!(at_start.iter().any(|change| matches!(change, PolicyChange::Grant(_))), "grants are known");
    heard(&mut api);
    // A change of a user sends the peers of the user.
    must(&api.admin().patch("/api/v1/users/anna", json!({ "role": "admin" })).await);
    let changed = heard(&mut api).concat();
    assert!(!has_source(&changed), "{changed:?}");
    assert!(changed.iter().any(|change| matches!(change, PolicyChange::RemoveSource(_))));
    must(&api.admin().post("/api/v1/operators", json!({ "name": "anna-phone", "user": "anna" })).await);
    assert!(!has_source(&heard(&mut api).concat()));
    must(&confirm(&api, RESTORED_AT).await);
    let loaded = heard(&mut api);
    assert_eq!(loaded.len(), 1, "together: {loaded:?}");
    let sources = loaded[0].iter().filter(|change| matches!(change, PolicyChange::Source(_)));
    assert_eq!(sources.count(), 2);
    assert!(has_source(&policy_at_start(&api).await));
}

#[tokio::test]
async fn bookings_and_rentals_wait_and_everything_else_goes_on() {
    let api = site().await;
    let rental = must(&api.operator().get("/api/v1/rentals").await)["items"][0]["id"].clone();
    let rental = format!("/api/v1/rentals/{}", rental.as_str().unwrap());
    fixture::restored(&api.state.store, RESTORED_AT).await;
    let operator = api.operator();
    let mut dry = booking("order-2", 2);
    dry["dry_run"] = json!(true);
    for refused in [
        operator.post("/api/v1/bookings", booking("order-2", 2)).await,
        operator.post("/api/v1/bookings", dry).await,
        operator.patch("/api/v1/bookings/order-1", json!({ "notes": "x" })).await,
        operator.patch(&rental, json!({ "until": hence(86_400 * 3) })).await,
        operator.post(&format!("{rental}/cancel"), json!({})).await,
        operator.post(&format!("{rental}/end"), json!({ "reason": "ended" })).await,
        operator.post("/api/v1/explain/probe", json!({ "from": "anna", "to": "cam-07" })).await,
    ] {
        assert_eq!((refused.status, refused.code()), (503, "restore_unconfirmed"), "{}", refused.text);
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains("fleetgate restore-review show") && detail.contains(&ids::time(RESTORED_AT)));
    }
    assert_eq!(must(&operator.get("/api/v1/bookings").await)["items"].as_array().unwrap().len(), 1);
    must(&operator.post("/api/v1/customers", json!({ "external_ref": "crm-18" })).await);
    must(&operator.delete("/api/v1/customers/crm-18").await);
    must(&operator.post("/api/v1/devices", json!({ "name": "cam-08" })).await);
    must(&operator.post("/api/v1/devices/cam-07/blocks", json!({ "reason": "broken", "force": true })).await);
    must(&confirm(&api, RESTORED_AT).await);
    must(&operator.post(&format!("{rental}/cancel"), json!({})).await);
}

#[tokio::test]
async fn a_device_enrols_after_the_confirmation_and_its_token_loses_no_use() {
    let api = site().await;
    let token =
        must(&api.operator().post("/api/v1/enrolment-tokens", json!({ "label": "cellar" })).await).clone();
    let key = PrivateKey::from_bytes([77; 32]).public().to_string();
    let enrol =
        json!({ "token": token["secret"], "name": "new", "public_key": key, "poll_hash": "ab".repeat(32) });
    fixture::restored(&api.state.store, RESTORED_AT).await;
    let refused = api.anonymous().post("/api/v1/enrol", enrol.clone()).await;
    assert_eq!((refused.status, refused.code()), (503, "restore_unconfirmed"), "{}", refused.text);
    let unused = format!("/api/v1/enrolment-tokens/{}", token["token"]["id"].as_str().unwrap());
    assert_eq!(must(&api.operator().get(&unused).await), &token["token"]);
    must(&confirm(&api, RESTORED_AT).await);
    must(&api.anonymous().post("/api/v1/enrol", enrol.clone()).await);
    fixture::restored(&api.state.store, RESTORED_AT).await;
    must(&api.anonymous().post("/api/v1/enrol", enrol).await);
}

#[tokio::test]
async fn a_change_of_what_was_read_before_the_restore_is_refused() {
    let api = site().await;
    for (path, change) in [
        ("/api/v1/devices/cam-07", json!({ "notes": "moved" })),
        ("/api/v1/customers/crm-17", json!({ "name": "Ada Ltd" })),
    ] {
        let before = api.operator().get(path).await.headers["etag"].clone();
        fixture::restored(&api.state.store, RESTORED_AT).await;
        let late = api.operator().header("if-match", before.to_str().unwrap());
        let refused = late.patch(path, change.clone()).await;
        assert_eq!((refused.status, refused.code()), (412, "changed_meanwhile"), "{path}: {}", refused.text);
        let read = api.operator().get(path).await;
        assert_eq!(read.headers["etag"], format!("\"{}\"", read.json["version"]).as_str());
        let anew = api.operator().header("if-match", read.headers["etag"].to_str().unwrap());
        must(&anew.patch(path, change).await);
    }
}

#[tokio::test]
async fn the_gateway_shows_that_it_waits() {
    let api = site().await;
    let shown = async || {
        let overview = api.viewer().get("/api/v1/overview").await.json["restore_unconfirmed"].clone();
        let health = api.anonymous().get("/healthz").await.json["parts"]["restore"].clone();
        let explained = api.operator().get("/api/v1/explain?from=anna-laptop&to=cam-07&port=22").await.json;
        [overview, health, explained["result"].clone(), explained["text"].clone()]
            .map(|value| value.as_str().unwrap_or_default().to_owned())
    };
    fixture::restored(&api.state.store, RESTORED_AT).await;
    let [overview, health, result, text] = shown().await;
    assert!(overview.contains("fleetgate restore-review show"), "{overview}");
    assert!(health.contains("until an admin confirms"), "{health}");
    assert_eq!(result, "unknown_source");
    assert!(
        text.starts_with("anna-laptop does not reach cam-07 (tcp 22): this gateway was restored"),
        "{text}"
    );
    assert_eq!(api.anonymous().get("/readyz").await.status, 200, "a restart confirms nothing");
    must(&confirm(&api, RESTORED_AT).await);
    let overview = api.viewer().get("/api/v1/overview").await.json["restore_unconfirmed"].clone();
    assert_eq!(overview, Value::Null);
    assert_eq!(api.anonymous().get("/healthz").await.json["parts"]["restore"], "ok");
}

#[tokio::test]
async fn the_review_lists_what_comes_back_and_an_admin_alone_confirms_it() {
    let api = site().await;
    let review = || async { must(&api.admin().get("/api/v1/restore-review").await).clone() };
    let never = review().await;
    assert_eq!((&never["awaits_confirmation"], &never["kinds"]), (&json!(false), &json!([])));
    let early = confirm(&api, RESTORED_AT).await;
    assert_eq!((early.status, early.code()), (409, "nothing_to_confirm"), "{}", early.text);

    let ada = json!({ "customer": "crm-17", "name": "Ada" });
    let ada = must(&api.admin().post("/api/v1/people", ada).await)["id"].clone();
    must(&api.admin().post("/api/v1/renters", json!({ "person": ada, "name": "phone" })).await);
    let url = "http://127.0.0.1:9/events?key=s3cret";
    must(&api.admin().post("/api/v1/subscriptions", json!({ "url": url })).await);
    must(&api.admin().post("/api/v1/enrolment-tokens", json!({ "label": "cellar" })).await);
    let limited = api.limited(Role::Admin, Area::Access).await;
    fixture::restored(&api.state.store, RESTORED_AT).await;
    let waits = review().await;
    assert_eq!(waits["restored_at"], ids::time(RESTORED_AT));
    let totals: Vec<(&str, i64)> = waits["kinds"].as_array().unwrap().iter().map(total).collect();
    assert_eq!(
        totals,
        [
            ("user", 2),
            ("operator", 1),
            ("renter", 1),
            ("token", 4),
            ("grant", 2),
            ("rental", 1),
            ("subscription", 1),
            ("enrolment_token", 1)
        ]
    );
    let first = |kind: usize| &waits["kinds"][kind]["objects"][0];
    assert_eq!((&first(1)["name"], &first(1)["details"]), (&json!("anna-laptop"), &json!("of anna")));
    assert!(first(1)["id"].as_str().unwrap().starts_with("o_") && first(1)["changed_at"].is_string());
    assert_eq!((&first(2)["name"], &first(2)["details"]), (&json!("phone"), &json!("of crm-17")));
    assert!(!waits.to_string().contains("Ada"), "{waits}");
    assert!(first(5)["details"].as_str().unwrap().ends_with(" for crm-17"), "{}", first(5));
    assert_eq!(
        (&first(6)["name"], &first(6)["details"]),
        (&json!("http://127.0.0.1:9"), &json!("all kinds"))
    );
    assert!(!waits.to_string().contains("s3cret"), "{waits}");
    assert_eq!(first(7)["name"], "cellar");

    let body = json!({ "restored_at": ids::time(RESTORED_AT) });
    let path = "/api/v1/restore-review/confirm";
    assert_eq!(api.anonymous().post(path, body.clone()).await.status, 401);
    assert_eq!(api.operator().post(path, body.clone()).await.code(), "role_missing");
    assert_eq!(api.operator().get("/api/v1/restore-review").await.status, 403);
    let limited = limited.post(path, body.clone()).await;
    assert_eq!((limited.status, limited.code()), (403, "limited_token"));
    for (bad, status, code) in [
        (json!({ "restored_at": "yesterday" }), 422, "invalid"),
        (json!({ "restored_at": "2026-01-01T00:00:00Z" }), 409, "other_restore"),
        (json!({ "restored_at": ids::time(RESTORED_AT), "by": "me" }), 422, "invalid"),
        (json!({}), 422, "invalid"),
    ] {
        let refused = api.admin().post(path, bad.clone()).await;
        assert_eq!(refused.code(), code, "{bad}: {}", refused.text);
        assert_eq!(refused.status, status, "{bad}");
    }
    assert_eq!(review().await, waits, "nothing has changed");

    let confirmed = must(&api.admin().post(path, body.clone()).await).clone();
    assert_eq!((&confirmed["awaits_confirmation"], &confirmed["kinds"]), (&json!(false), &json!([])));
    assert!(confirmed["confirmed_by"].as_str().unwrap().starts_with("token:"), "{confirmed}");
    assert_eq!(review().await, confirmed);
    let audit = api.admin().get("/api/v1/audit").await.text;
    assert!(audit.contains("restore.confirmed") && audit.contains(&ids::time(RESTORED_AT)));
    let again = api.admin().post(path, body).await;
    assert_eq!((again.status, again.code()), (409, "nothing_to_confirm"), "{}", again.text);
}

fn total(list: &Value) -> (&str, i64) {
    (list["kind"].as_str().unwrap(), list["total"].as_i64().unwrap())
}

async fn started(dir: &Path) -> Server {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::load(dir, None).unwrap();
    (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
    config.endpoint = "127.0.0.1:51820".parse().ok();
    Server::start(config, DataDir::open(dir).unwrap()).await.unwrap()
}

async fn call(server: &Server, token: &Token, method: &str, path: &str, body: Value) -> Value {
    let url = format!("http://{}/api/v1{path}", server.api);
    let request = reqwest::Client::new().request(method.parse().unwrap(), url).bearer_auth(token.reveal());
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{method} {path}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

/// What the packet filter of a running gateway does with a packet from the laptop to the device.
async fn filtered(server: &Server, [laptop, device]: [Id; 2]) -> Explanation {
    let question = ExplainRequest {
        from: ExplainSource::Peer(laptop),
        to: ExplainTarget::Host(device),
        protocol: GrantProtocol::Tcp,
        port: 22,
        at: crate::clock::wall(),
    };
    server.state.handle.explain(question).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_gateway_passes_nothing_until_it_is_confirmed_and_nobody_erased_comes_back() {
    let (old, new, out) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = started(old.path()).await;
    let token = bearer(&server.state.store, ids::new_id(crate::clock::wall()), Role::Admin, Vec::new()).await;
    let post = async |path: &str, body: Value| call(&server, &token, "POST", path, body).await;
    let id = |made: &Value| made.as_str().unwrap().split_once('_').unwrap().1.parse::<Id>().unwrap();
    let device = id(&post("/devices", json!({ "name": "cam-07" })).await["device"]["id"]);
    post("/users", json!({ "name": "anna", "role": "operator", "password": PASSWORD })).await;
    let made = post("/operators", json!({ "name": "anna-laptop", "user": "anna" })).await;
    let peers = [id(&made["operator"]["id"]), device];
    for reference in ["crm-1", "crm-2"] {
        post("/customers", json!({ "external_ref": reference, "name": "Ada" })).await;
        let person = post("/people", json!({ "customer": reference, "name": "Eve" })).await["id"].clone();
        post("/renters", json!({ "person": person, "name": "eve-phone" })).await;
    }
    assert!(
        matches!(filtered(&server, peers).await, Explanation::Permitted(_)),
        "a first start is no restore"
    );
    let epoch = instance::epoch(&mut server.state.store.reader().await.unwrap()).await.unwrap();
    let order = Order { data: old.path().into(), target: out.path().into(), history: false, keep: None };
    let made = backup::make(&order, Arc::new(|_, _| {})).await.unwrap();
    // After the backup a customer is erased. The file is all that is brought to the new machine.
    call(&server, &token, "DELETE", "/customers/crm-1", Value::Null).await;
    server.stop().await;
    let name = backup::erased_ids::ERASED_FILE;
    std::fs::copy(old.path().join(name), new.path().join(name)).unwrap();
    std::fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let restored = {
        let data = DataDir::open(new.path()).unwrap();
        backup::restore(&made.file, &data, Arc::new(|_, _| {})).await.unwrap()
    };
    assert_eq!((restored.erased, restored.damage), (1, None));

    let server = started(new.path()).await;
    assert_eq!(filtered(&server, peers).await, Explanation::UnknownSource);
    let found = instance::load(&mut server.state.store.reader().await.unwrap()).await.unwrap();
    assert!(found.unconfirmed().is_some() && found.epoch != epoch);
    let names = fixture::texts(&server.state.store, "select name from customers order by name").await;
    assert_eq!(names, ["", "Ada"]);
    let people = "select y.name || r.name from renters r join people y on y.id = r.person order by 1";
    assert_eq!(fixture::texts(&server.state.store, people).await, ["", "Eveeve-phone"]);
    let notices = "select kind from notices where service = 'restore' order by id";
    assert_eq!(fixture::texts(&server.state.store, notices).await, ["problem"]);
    let review = call(&server, &token, "GET", "/restore-review", Value::Null).await;
    assert!(review["backup_made_at"].is_string(), "{review}");
    let body = json!({ "restored_at": review["restored_at"] });
    call(&server, &token, "POST", "/restore-review/confirm", body).await;
    assert_eq!(fixture::texts(&server.state.store, notices).await, ["problem", "recovery"]);
    assert!(matches!(filtered(&server, peers).await, Explanation::Permitted(_)));
    server.stop().await;
    let server = started(new.path()).await;
    assert!(matches!(filtered(&server, peers).await, Explanation::Permitted(_)), "also after a restart");
    server.stop().await;
}
