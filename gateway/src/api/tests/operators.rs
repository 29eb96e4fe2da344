//! Operators: added for users, ended with them, and never counted as hosts.

use fleetgate_engine::messages::{
    Command, DEFAULT_MTU, GrantRole, PeerKind, PolicyChange, SourceOwner, SourceSpec,
};
use fleetgate_keys::{Conf, PrivateKey};
use serde_json::{Value, json};

use crate::api::testing::{Answer, Caller, TestApi};

const PASSWORD: &str = "correct horse battery";

async fn user(api: &TestApi, name: &str, role: &str) {
    let body = json!({ "name": name, "role": role, "password": PASSWORD });
    assert_eq!(api.admin().post("/api/v1/users", body).await.status, 201);
}

async fn add(api: &TestApi, name: &str, user: &str) -> Answer {
    api.admin().post("/api/v1/operators", json!({ "name": name, "user": user })).await
}

pub(super) fn key(byte: u8) -> String {
    PrivateKey::from_bytes([byte; 32]).public().to_string()
}

/// Returns a caller with a session of this user.
async fn session<'a>(api: &'a TestApi, name: &str) -> Caller<'a> {
    let login = json!({ "name": name, "password": PASSWORD });
    let begun = api.anonymous().post("/api/v1/session", login).await;
    let cookie = begun.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    api.anonymous().header("cookie", &cookie).header("x-fleetgate", "1")
}

/// What the tunnel hears, in order.
pub(super) fn heard(api: &mut TestApi) -> Vec<Command> {
    std::iter::from_fn(|| api.tunnel.try_recv().ok()).collect()
}

fn policy(commands: &[Command]) -> Vec<&PolicyChange> {
    let changes = commands.iter().filter_map(|command| match command {
        Command::Policy(changes) => Some(changes),
        _ => None,
    });
    changes.flatten().collect()
}

pub(super) fn sources(commands: &[Command]) -> Vec<&SourceSpec> {
    let changes = policy(commands).into_iter();
    changes
        .filter_map(|change| if let PolicyChange::Source(spec) = change { Some(spec) } else { None })
        .collect()
}

/// The role of the user that the source belongs to.
fn role(source: &SourceSpec) -> Option<GrantRole> {
    match source.owner {
        SourceOwner::User { role, .. } => role,
        SourceOwner::Person { .. } => None,
    }
}

/// Whether the tunnel has lost its peer, and the filter its source.
pub(super) fn has_lost_its_peer(commands: &[Command]) -> bool {
    let source = policy(commands).iter().any(|change| matches!(change, PolicyChange::RemoveSource(_)));
    source && commands.iter().any(|command| matches!(command, Command::Remove(_)))
}

#[tokio::test]
async fn an_operator_gets_a_configuration_that_is_shown_once_and_its_place_in_the_tunnel() {
    let mut api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    let made = add(&api, "anna-laptop", "anna").await;
    assert_eq!(made.status, 201, "{}", made.text);
    let conf: Conf = made.json["credentials"]["conf"].as_str().unwrap().parse().unwrap();
    let allowed: Vec<String> = conf.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.112.0.0/14", "fd72:6c65:6574::/64"]);
    let names =
        "# PostUp = resolvectl dns %i 10.112.0.1 fd72:6c65:6574::1; resolvectl domain %i '~fleet.internal'";
    assert!(made.json["credentials"]["conf"].as_str().unwrap().contains(names), "{}", made.text);
    assert!(!made.text.contains("DNS") && made.json["credentials"]["qr_svg"].is_string());
    let operator = &made.json["operator"];
    assert_eq!(operator["addresses"], json!(["10.112.0.2", "fd72:6c65:6574::2"]));
    assert_eq!((&operator["user"], &operator["enabled"]), (&json!("anna"), &json!(true)));
    let shown = api.operator().get("/api/v1/operators/anna-laptop").await;
    assert_eq!(shown.json, *operator);
    assert_eq!(shown.headers["etag"], "\"1\"");

    let commands = heard(&mut api);
    let [source] = sources(&commands)[..] else { panic!("{commands:?}") };
    assert_eq!((role(source), source.addresses.len()), (Some(GrantRole::Operator), 2));
    let Some(Command::Upsert(spec, _)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!((spec.kind, spec.id, spec.keys.len()), (PeerKind::Operator, source.peer, 1));
    assert!(api.monitor.try_recv().is_err(), "it is no host");
    let counts = api.viewer().get("/api/v1/overview").await;
    assert_eq!(counts.json["hosts"]["pending"], 0);
    assert_eq!(api.viewer().get("/api/v1/devices").await.json["items"], json!([]));
}

#[tokio::test]
async fn a_repeated_call_shows_no_secret_and_adds_no_second_one() {
    let api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    let body = json!({ "name": "anna-laptop", "user": "anna" });
    let again = || api.admin().header("idempotency-key", "k");
    let made = again().post("/api/v1/operators", body.clone()).await;
    let repeated = again().post("/api/v1/operators", body).await;
    assert_eq!(repeated.status, 201, "{}", repeated.text);
    assert_eq!(
        (&repeated.json["operator"], &repeated.json["credentials"]),
        (&made.json["operator"], &Value::Null)
    );
}

#[tokio::test]
async fn an_admin_adds_for_anyone_and_an_operator_for_himself() {
    let api = TestApi::with_endpoint().await;
    for (name, role) in [("anna", "operator"), ("bob", "operator"), ("eve", "viewer")] {
        user(&api, name, role).await;
    }
    let anna = session(&api, "anna").await;
    let own = anna.post("/api/v1/operators", json!({ "name": "anna-phone" })).await;
    assert_eq!((own.status, &own.json["operator"]["user"]), (201, &json!("anna")), "{}", own.text);
    let others = anna.post("/api/v1/operators", json!({ "name": "x", "user": "bob" })).await;
    assert_eq!((others.status, others.code()), (403, "role_missing"), "{}", others.text);
    assert!(others.json["detail"].as_str().unwrap().contains("only an admin"));
    assert_eq!(add(&api, "bob-phone", "bob").await.status, 201);
    let path = "/api/v1/operators/bob-phone";
    assert_eq!(anna.get(path).await.status, 200, "operators see each other's");
    assert_eq!(anna.delete(path).await.code(), "role_missing");
    assert_eq!(anna.patch(path, json!({ "name": "x" })).await.code(), "role_missing");
    let rekeyed = anna.post("/api/v1/operators/bob-phone/credentials", json!({})).await;
    assert_eq!(rekeyed.code(), "role_missing");
    assert_eq!(anna.delete("/api/v1/operators/anna-phone").await.status, 204);

    let eve = session(&api, "eve").await;
    assert_eq!(eve.post("/api/v1/operators", json!({ "name": "eve-phone" })).await.status, 403);
    let viewer = add(&api, "eve-phone", "eve").await;
    assert_eq!((viewer.status, &viewer.json["errors"][0]["field"]), (422, &json!("user")));
    assert!(viewer.json["detail"].as_str().unwrap().contains("viewers reach nothing"), "{}", viewer.text);
}

#[tokio::test]
async fn a_token_with_a_lower_role_than_its_user_gives_no_keys_with_the_grants_of_the_user() {
    let api = TestApi::with_endpoint().await;
    for name in ["ada", "bob"] {
        user(&api, name, "admin").await;
    }
    let new = json!({ "name": "ada-laptop", "user": "ada", "role": "operator" });
    let made = api.admin().post("/api/v1/tokens", new).await;
    let bearer = format!("Bearer {}", made.json["secret"].as_str().unwrap());
    let token = || api.anonymous().header("authorization", &bearer);
    let refused = token().post("/api/v1/operators", json!({ "name": "ada-phone" })).await;
    assert_eq!((refused.status, refused.code()), (403, "role_missing"), "{}", refused.text);
    assert!(refused.text.contains("the grants of the role admin"), "{}", refused.text);
    assert_eq!(add(&api, "ada-phone", "ada").await.status, 201);
    let path = "/api/v1/operators/ada-phone";
    let refused = token().post(&format!("{path}/credentials"), json!({})).await;
    assert_eq!(refused.code(), "role_missing", "{}", refused.text);
    // What takes access away needs no more than the user.
    assert_eq!(token().delete(path).await.status, 204);
    assert_eq!(api.admin().patch("/api/v1/users/ada", json!({ "role": "operator" })).await.status, 200);
    let own = token().post("/api/v1/operators", json!({ "name": "ada-tablet" })).await;
    assert_eq!(own.status, 201, "{}", own.text);
}

#[tokio::test]
async fn bad_names_users_and_keys_are_refused() {
    let api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    let device = json!({ "name": "cam1", "public_key": key(1) });
    assert_eq!(api.admin().post("/api/v1/devices", device).await.status, 201);
    let first = json!({ "name": "anna-laptop", "user": "anna", "public_key": key(2) });
    let first = api.admin().post("/api/v1/operators", first).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(first.json["credentials"]["private_key"], Value::Null);
    let own = api.state.identity.public_key.to_string();
    for (body, status, says) in [
        (json!({ "name": "Anna", "user": "anna" }), 422, "name: a name has"),
        (json!({ "name": "a", "user": "nobody" }), 422, "user: no user is called"),
        (json!({ "name": "a" }), 422, "user: name the user"),
        (json!({ "name": "a", "user": "anna", "public_key": "x" }), 422, "public_key: "),
        (json!({ "name": "a", "user": "anna", "public_key": own }), 422, "the gateway's own key"),
        (json!({ "name": "anna-laptop", "user": "anna" }), 409, "an operator is called \"anna-laptop\""),
        (json!({ "name": "a", "user": "anna", "public_key": key(1) }), 409, "(by cam1, h_"),
        (json!({ "name": "a", "user": "anna", "public_key": key(2) }), 409, "(by anna-laptop, o_"),
    ] {
        let refused = api.admin().post("/api/v1/operators", body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
        assert!(refused.json["detail"].as_str().unwrap().contains(says), "{body}: {}", refused.text);
    }
    let device = json!({ "name": "cam2", "public_key": key(2) });
    assert_eq!(api.admin().post("/api/v1/devices", device).await.code(), "key_in_use");
    let items = api.admin().get("/api/v1/operators").await.json["items"].as_array().unwrap().len();
    assert_eq!(items, 1, "nothing is left behind");
}

#[tokio::test]
async fn a_key_that_was_replaced_is_never_taken_again() {
    let mut api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    let first = json!({ "name": "anna-laptop", "user": "anna", "public_key": key(2) });
    assert_eq!(api.admin().post("/api/v1/operators", first).await.status, 201);
    heard(&mut api);
    let path = "/api/v1/operators/anna-laptop/credentials";
    let again = api.admin().post(path, json!({ "public_key": key(3) })).await;
    assert_eq!(
        (again.status, &again.json["operator"]["public_key"]),
        (200, &json!(key(3))),
        "{}",
        again.text
    );
    let commands = heard(&mut api);
    let Some(Command::Upsert(spec, _)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!((spec.keys.len(), spec.keys[0].public.to_string()), (1, key(3)));
    assert_eq!(api.admin().post(path, json!({ "public_key": key(2) })).await.code(), "key_in_use");
    assert_eq!(api.admin().delete("/api/v1/operators/anna-laptop").await.status, 204);
    assert!(has_lost_its_peer(&heard(&mut api)));
    let other = json!({ "name": "other", "user": "anna", "public_key": key(3) });
    assert_eq!(api.admin().post("/api/v1/operators", other).await.code(), "key_in_use");
    let retired = api.state.store.retired_keys(9).await.unwrap();
    assert_eq!(retired.len(), 2);
}

#[tokio::test]
async fn a_name_is_changed_under_its_etag() {
    let api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    add(&api, "anna-laptop", "anna").await;
    add(&api, "anna-phone", "anna").await;
    let path = "/api/v1/operators/anna-laptop";
    let stale = api.admin().header("if-match", "\"7\"");
    assert_eq!(stale.patch(path, json!({ "name": "x" })).await.code(), "changed_meanwhile");
    assert_eq!(stale.delete(path).await.code(), "changed_meanwhile");
    let taken = api.admin().patch(path, json!({ "name": "anna-phone" })).await;
    assert_eq!(taken.code(), "name_taken");
    assert_eq!(api.admin().patch(path, json!({ "name": null })).await.status, 422);
    let renamed = api.admin().header("if-match", "\"1\"").patch(path, json!({ "name": "notebook" })).await;
    assert_eq!((&renamed.json["name"], &renamed.json["version"]), (&json!("notebook"), &json!(2)));
    assert_eq!(api.admin().get(path).await.status, 404);
    let kept = api.admin().patch("/api/v1/operators/notebook", json!({ "name": "notebook" })).await;
    assert_eq!(kept.json["version"], 2);
}

#[tokio::test]
async fn an_operator_ends_with_its_user_and_waits_for_one_who_is_disabled() {
    let mut api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    add(&api, "anna-laptop", "anna").await;
    heard(&mut api);
    let change = async |api: &TestApi, body: Value| {
        assert_eq!(api.admin().patch("/api/v1/users/anna", body).await.status, 200);
    };
    for (out, back) in [
        (json!({ "disabled": true }), json!({ "disabled": false })),
        (json!({ "role": "viewer" }), json!({ "role": "operator" })),
    ] {
        change(&api, out.clone()).await;
        assert!(has_lost_its_peer(&heard(&mut api)), "{out}");
        let shown = api.admin().get("/api/v1/operators/anna-laptop").await;
        assert_eq!((shown.status, &shown.json["enabled"]), (200, &json!(false)), "it is kept");
        assert!(api.state.store.all_peers(DEFAULT_MTU).await.unwrap().is_empty(), "a restart leaves it out");
        change(&api, back).await;
        let commands = heard(&mut api);
        assert!(matches!(commands.last(), Some(Command::Upsert(..))), "{commands:?}");
        assert_eq!(
            (sources(&commands).len(), api.state.store.all_peers(DEFAULT_MTU).await.unwrap().len()),
            (1, 1)
        );
    }
    change(&api, json!({ "role": "admin" })).await;
    assert_eq!(role(sources(&heard(&mut api))[0]), Some(GrantRole::Admin));
    user(&api, "root", "admin").await;

    let disabled = api.admin().patch("/api/v1/users/anna", json!({ "disabled": true })).await;
    assert_eq!(disabled.status, 200);
    assert_eq!(add(&api, "anna-phone", "anna").await.code(), "user_disabled");
    change(&api, json!({ "disabled": false })).await;
    heard(&mut api);
    assert_eq!(api.admin().delete("/api/v1/users/anna").await.status, 204);
    assert!(has_lost_its_peer(&heard(&mut api)));
    assert_eq!(api.admin().get("/api/v1/operators/anna-laptop").await.status, 404);
    let log = api.admin().get("/api/v1/events?kind=operator").await;
    let kinds: Vec<&str> =
        log.json["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["operator.removed", "operator.created"]);
    user(&api, "bob", "operator").await;
    let next = add(&api, "anna-laptop", "bob").await;
    assert_eq!(next.json["operator"]["addresses"][0], "10.112.0.3", "the address rests");
}

#[tokio::test]
async fn a_user_has_sixteen_operators_at_most() {
    let api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    for n in 1..=16 {
        assert_eq!(add(&api, &format!("a{n}"), "anna").await.status, 201);
    }
    let refused = add(&api, "a17", "anna").await;
    assert_eq!((refused.status, refused.code()), (409, "limit_reached"));
    let list = api.admin().get("/api/v1/operators?user=anna&limit=10").await;
    assert_eq!(list.json["items"].as_array().unwrap().len(), 10);
    assert!(list.json["next"].is_string());
    assert_eq!(api.admin().get("/api/v1/operators?user=nobody").await.status, 404);
}

#[tokio::test]
async fn a_full_pool_and_a_gateway_without_endpoint_are_named() {
    let api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        config.pool_v4 = "10.9.0.0/29".parse().unwrap();
    })
    .await;
    user(&api, "anna", "operator").await;
    for n in 1..=5 {
        assert_eq!(add(&api, &format!("a{n}"), "anna").await.status, 201);
    }
    let full = add(&api, "a6", "anna").await;
    assert_eq!((full.status, full.code()), (409, "pool_full"));
    assert_eq!(api.admin().get("/api/v1/operators/a6").await.status, 404);
    let api = TestApi::new().await;
    user(&api, "anna", "operator").await;
    assert_eq!(add(&api, "a1", "anna").await.code(), "endpoint_not_set");
}

#[tokio::test]
async fn a_peer_without_an_mtu_has_that_of_the_gateway() {
    let mut api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        config.mtu = 1_400;
    })
    .await;
    user(&api, "anna", "operator").await;
    heard(&mut api);
    for (path, body, mtu) in [
        ("/api/v1/operators", json!({ "name": "anna-laptop", "user": "anna" }), 1_400),
        ("/api/v1/devices", json!({ "name": "cam-07" }), 1_400),
        ("/api/v1/devices", json!({ "name": "cam-08", "mtu": 1_300 }), 1_300),
    ] {
        let made = api.admin().post(path, body).await;
        let conf: Conf = made.json["credentials"]["conf"].as_str().expect(&made.text).parse().unwrap();
        let told = heard(&mut api).into_iter().find_map(|command| match command {
            Command::Upsert(spec, _) => Some(spec.mtu),
            _ => None,
        });
        assert_eq!((conf.mtu, told), (Some(mtu), Some(mtu)), "{}", made.text);
    }
    assert_eq!(api.viewer().get("/api/v1/gateway").await.json["mtu"], 1_400);
    // A restart reads the peers anew.
    let peers = api.state.store.all_peers(1_420).await.unwrap();
    let mut mtus: Vec<u16> = peers.iter().map(|(spec, _)| spec.mtu).collect();
    mtus.sort_unstable();
    assert_eq!(mtus, [1_300, 1_420, 1_420]);
}

#[tokio::test]
async fn an_mtu_stands_in_the_configuration_and_reaches_the_tunnel() {
    let mut api = TestApi::with_endpoint().await;
    user(&api, "anna", "operator").await;
    let told = |api: &mut TestApi| {
        let mut specs = heard(api).into_iter().filter_map(|command| match command {
            Command::Upsert(spec, _) => Some(spec.mtu),
            _ => None,
        });
        specs.next_back()
    };
    let conf =
        |answer: &Answer| -> Conf { answer.json["credentials"]["conf"].as_str().unwrap().parse().unwrap() };
    let body = json!({ "name": "anna-laptop", "user": "anna", "mtu": 1_420 });
    let made = api.admin().post("/api/v1/operators", body).await;
    assert_eq!((made.status, conf(&made).mtu), (201, Some(1_420)), "{}", made.text);
    assert_eq!((&made.json["operator"]["mtu"], told(&mut api)), (&json!(1_420), Some(1_420)));
    let path = "/api/v1/operators/anna-laptop";
    let changed = api.admin().patch(path, json!({ "mtu": 1_350 })).await;
    assert_eq!(
        (&changed.json["mtu"], &changed.json["version"]),
        (&json!(1_350), &json!(2)),
        "{}",
        changed.text
    );
    assert_eq!(told(&mut api), Some(1_350));
    let rekeyed = api.admin().post(&format!("{path}/credentials"), json!({})).await;
    assert_eq!(conf(&rekeyed).mtu, Some(1_350));
    told(&mut api);
    let changed = api.admin().patch(path, json!({ "name": "anna-notebook" })).await;
    assert_eq!((&changed.json["mtu"], told(&mut api)), (&json!(1_350), None), "its peer stays as it is");
    let path = "/api/v1/operators/anna-notebook";
    let changed = api.admin().patch(path, json!({ "mtu": null })).await;
    assert_eq!((&changed.json["mtu"], told(&mut api)), (&Value::Null, Some(1_280)));
    for (bad, words) in
        [(1_279, "1279 is no inner MTU: a number from 1280"), (1_421, "to 1420"), (0, "0 is no")]
    {
        for answer in [
            api.admin().patch(path, json!({ "mtu": bad })).await,
            api.admin().post("/api/v1/operators", json!({ "name": "x", "user": "anna", "mtu": bad })).await,
            api.admin().post("/api/v1/devices", json!({ "name": "x", "mtu": bad })).await,
        ] {
            assert_eq!(
                (answer.status, &answer.json["errors"][0]["field"]),
                (422, &json!("mtu")),
                "{}",
                answer.text
            );
            assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
        }
    }
    assert_eq!(told(&mut api), None);
}
