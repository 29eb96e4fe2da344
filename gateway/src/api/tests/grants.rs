//! Grants: added, changed, withdrawn, and what the tunnel hears of them.

use std::collections::BTreeMap;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PolicyChange,
    TargetSpec,
};
use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};
use crate::store::{fixture, policy};

const PASSWORD: &str = "correct horse battery";

/// A gateway with a device, a host behind it, a user and an operator.
async fn site() -> TestApi {
    let mut api = TestApi::with_endpoint().await;
    let device = json!({ "name": "cam-07", "labels": { "site": "north" }, "networks": ["192.168.1.0/24"] });
    must(&api.admin().post("/api/v1/devices", device).await);
    let nas =
        json!({ "name": "nas-07", "via": "cam-07", "address": "192.168.1.5", "labels": { "kind": "nas" } });
    must(&api.admin().post("/api/v1/hosts", nas).await);
    for (name, role) in [("anna", "operator"), ("eve", "viewer")] {
        let user = json!({ "name": name, "role": role, "password": PASSWORD });
        must(&api.admin().post("/api/v1/users", user).await);
    }
    must(&api.admin().post("/api/v1/operators", json!({ "name": "anna-laptop", "user": "anna" })).await);
    heard(&mut api);
    api
}

fn must(answer: &Answer) {
    assert!(answer.status < 300, "{}", answer.text);
}

/// Returns the changes of the policy that the tunnel hears.
fn heard(api: &mut TestApi) -> Vec<PolicyChange> {
    let commands = std::iter::from_fn(|| api.tunnel.try_recv().ok());
    let changes = commands.filter_map(|command| match command {
        Command::Policy(changes) => Some(changes),
        _ => None,
    });
    changes.flatten().collect()
}

fn body(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({
        "source": { "user": "anna" }, "target": { "host": "cam-07" },
        "access": [{ "protocol": "tcp", "ports": [22] }],
    });
    change(&mut body);
    body
}

async fn add(api: &TestApi, change: impl FnOnce(&mut Value)) -> Answer {
    api.admin().post("/api/v1/grants", body(change)).await
}

#[tokio::test]
async fn two_grants_are_there_from_the_start_and_do_not_come_back() {
    let api = TestApi::with_endpoint().await;
    let list = api.operator().get("/api/v1/grants").await;
    let items = list.json["items"].as_array().unwrap();
    let roles: Vec<&Value> = items.iter().map(|grant| &grant["source"]["role"]).collect();
    assert_eq!(roles, ["admin", "operator"]);
    let usual = json!([{ "protocol": "icmp", "ports": [] }, { "protocol": "tcp", "ports": [22, 80, 443] }]);
    for grant in items {
        assert_eq!((&grant["access"], &grant["state"]), (&usual, &json!("active")), "{grant}");
        assert_eq!((&grant["target"], &grant["author"]), (&json!({ "all_devices": true }), &json!("system")));
    }
    assert_eq!(api.admin().delete("/api/v1/grants/operators").await.status, 204);
    let left = api.operator().get("/api/v1/grants").await;
    assert_eq!(left.json["items"].as_array().unwrap().len(), 1);
    let all = api.operator().get("/api/v1/grants?all=true").await;
    assert_eq!(all.json["items"][1]["state"], "withdrawn", "it is kept");
}

#[tokio::test]
async fn a_grant_reaches_the_tunnel_whole_after_each_change() {
    let mut api = site().await;
    let made = add(&api, |body| {
        body["access"] = json!([
            { "protocol": "tcp", "ports": ["8000-8100", 443, 22] }, { "protocol": "icmp" },
            { "protocol": "tcp", "ports": [23] },
        ]);
        body["until"] = json!("2030-01-01T00:00:00Z");
        body["reason"] = json!("a new disk");
    })
    .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let shown = &made.json;
    let access = json!([
        { "protocol": "icmp", "ports": [] }, { "protocol": "tcp", "ports": ["22-23", 443, "8000-8100"] },
    ]);
    assert_eq!(
        (&shown["access"], &shown["matches"], &shown["state"]),
        (&access, &json!(1), &json!("active"))
    );
    assert!(shown["author"].as_str().unwrap().starts_with("token:"), "{shown}");
    let changes = heard(&mut api);
    let [PolicyChange::Grant(GrantSpec { source: GrantSource::User(_), target, access, from, until, .. })] =
        &changes[..]
    else {
        panic!("{changes:?}")
    };
    assert!(matches!(target, GrantTarget::Host(_)) && from.is_none() && until.is_some());
    let tcp = GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![22..=23, 443..=443, 8_000..=8_100] };
    assert_eq!(access[1], tcp);

    let path = format!("/api/v1/grants/{}", shown["id"].as_str().unwrap());
    let change = json!({ "source": { "role": "operator" }, "target": { "labels": { "site": "north" } },
        "until": null, "access": [{ "protocol": "udp", "ports": [53] }] });
    let stale = api.admin().header("if-match", "\"9\"");
    assert_eq!(stale.patch(&path, change.clone()).await.code(), "changed_meanwhile");
    let changed = api.admin().header("if-match", "\"1\"").patch(&path, change.clone()).await;
    assert_eq!((changed.status, &changed.json["version"]), (200, &json!(2)), "{}", changed.text);
    assert_eq!(changed.headers["etag"], "\"2\"");
    let changes = heard(&mut api);
    let [PolicyChange::Grant(spec)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(spec.source, GrantSource::Role(GrantRole::Operator));
    let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    assert_eq!((&spec.target, spec.until), (&GrantTarget::Labels(labels), None));
    assert_eq!(api.admin().patch(&path, change).await.json["version"], 2, "the same changes nothing");
    assert!(heard(&mut api).is_empty());

    assert_eq!(api.operator().delete(&path).await.status, 403);
    assert_eq!(api.admin().delete(&path).await.status, 204);
    assert!(matches!(heard(&mut api)[..], [PolicyChange::WithdrawGrant(_)]));
    assert_eq!(api.admin().delete(&path).await.status, 204, "once more");
    let kept = api.operator().get(&path).await;
    assert_eq!((&kept.json["state"], kept.json["withdrawn_by"].is_string()), (&json!("withdrawn"), true));
    let refused = api.admin().patch(&path, json!({ "reason": "x" })).await;
    assert_eq!((refused.status, refused.code()), (409, "grant_over"));
    let log = api.admin().get("/api/v1/audit").await;
    for kind in ["grant.created", "grant.changed", "grant.withdrawn"] {
        assert!(log.text.contains(kind), "{kind}: {}", log.text);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_grant_is_named_with_its_field() {
    let api = site().await;
    let public = json!({ "name": "pub1", "tunnel": false, "direct_address": "192.0.2.9" });
    must(&api.admin().post("/api/v1/devices", public).await);
    let table: [(&str, &str, Value, &str); 34] = [
        ("source", "source", json!({}), "exactly one of peer, user and role"),
        ("source", "source", json!({ "user": "anna", "role": "admin" }), "exactly one of"),
        ("source", "source.role", json!({ "role": "viewer" }), "viewers reach nothing"),
        ("source", "source.role", json!({ "role": "root" }), "operator or admin"),
        ("source", "source.user", json!({ "user": "nobody" }), "no user is called \"nobody\""),
        ("source", "source.user", json!({ "user": "eve" }), "eve is a viewer"),
        ("source", "source.peer", json!({ "peer": "nothing" }), "no operator is called \"nothing\""),
        ("source", "source.peer", json!({ "peer": "cam-07" }), "devices never reach each other"),
        ("source", "source.peer", json!({ "peer": "nas-07" }), "devices never reach each other"),
        (
            "source",
            "source.peer",
            json!({ "peer": "anna-laptop", "user": "eve" }),
            "anna-laptop belongs to anna, and not to eve",
        ),
        ("source", "source.user", json!({ "peer": "anna-laptop", "user": "nobody" }), "no user is called"),
        ("target", "target", json!({}), "exactly one of all_devices, host and labels"),
        ("target", "target", json!({ "all_devices": true, "host": "cam-07" }), "exactly one of"),
        ("target", "target.all_devices", json!({ "all_devices": false }), "true is expected"),
        ("target", "target.host", json!({ "host": "nothing" }), "no host or device is called"),
        ("target", "target.host", json!({ "host": "pub1" }), "pub1 has no tunnel"),
        ("target", "target.labels", json!({ "labels": {} }), "at least one label"),
        ("target", "target.labels", json!({ "labels": { "UPPER": "x" } }), "a label's key"),
        ("access", "access", json!([]), "at least one protocol"),
        ("access", "access[0].protocol", json!([{ "protocol": "sctp", "ports": [1] }]), "icmp, tcp or udp"),
        ("access", "access[0].ports", json!([{ "protocol": "icmp", "ports": [1] }]), "icmp has no ports"),
        ("access", "access[0].ports", json!([{ "protocol": "tcp" }]), "ports are expected"),
        ("access", "access[0].ports", json!([{ "protocol": "tcp", "ports": [0] }]), "from 1 to 65535"),
        ("access", "access[0].ports", json!([{ "protocol": "tcp", "ports": [70_000] }]), "from 1 to 65535"),
        ("access", "access[0].ports", json!([{ "protocol": "udp", "ports": ["90-80"] }]), "the first port"),
        (
            "access",
            "access[1].ports",
            json!([{ "protocol": "icmp" }, { "protocol": "tcp", "ports": ["http"] }]),
            "http",
        ),
        ("from", "from", json!("tomorrow"), "a time such as"),
        ("from", "from", json!("2099-01-01T00:00:00Z"), "within the next 10 years"),
        ("until", "until", json!("2020-01-01T00:00:00Z"), "is over already"),
        ("until", "until", json!("2126-01-01T00:00:00Z"), "at most 10 years"),
        ("until", "until", json!("soon"), "a time such as"),
        ("reason", "reason", json!("two\nlines"), "one line"),
        ("name", "name", json!("Upper"), "a name has"),
        ("window", "window", json!(1), "unknown field"),
    ];
    for (part, field, value, says) in table {
        let refused = add(&api, |body| body[part] = value.clone()).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"), "{value}: {}", refused.text);
        let error = &refused.json["errors"][0];
        assert!(error["detail"].as_str().unwrap().contains(says), "{value}: {}", refused.text);
        assert!(error["field"] == field || part == "window", "{value}: {}", refused.text);
    }
    let reversed = add(&api, |body| {
        body["from"] = json!("2030-01-02T00:00:00Z");
        body["until"] = json!("2030-01-01T00:00:00Z");
    })
    .await;
    assert_eq!(reversed.json["errors"][0]["detail"], "a time after from is expected");
    let count = api.admin().get("/api/v1/grants?all=true").await.json["items"].as_array().unwrap().len();
    assert_eq!(count, 2, "nothing was made");
    let own = add(&api, |body| body["source"] = json!({ "peer": "anna-laptop", "user": "anna" })).await;
    assert_eq!((own.status, &own.json["source"]), (201, &json!({ "peer": "anna-laptop" })), "{}", own.text);
    assert_eq!(api.admin().get("/api/v1/grants/nothing").await.status, 404);
}

#[tokio::test]
async fn a_selection_that_matches_nothing_is_taken_and_said() {
    let api = site().await;
    for (target, matches) in [
        (json!({ "labels": { "site": "nort" } }), 0),
        (json!({ "labels": { "site": "north" } }), 1),
        (json!({ "labels": { "kind": "nas" } }), 1),
        (json!({ "all_devices": true }), 1),
        (json!({ "host": "nas-07" }), 1),
    ] {
        let made = add(&api, |body| body["target"] = target.clone()).await;
        assert_eq!((made.status, &made.json["matches"]), (201, &json!(matches)), "{target}: {}", made.text);
    }
}

#[tokio::test]
async fn the_grants_of_a_host_are_those_that_select_it() {
    let api = site().await;
    let outside = json!({ "name": "pub", "tunnel": false, "direct_address": "192.0.2.7" });
    must(&api.admin().post("/api/v1/devices", outside).await);
    for (reason, target) in [
        ("north", json!({ "labels": { "site": "north" } })),
        ("north cameras", json!({ "labels": { "site": "north", "kind": "camera" } })),
        ("nas", json!({ "labels": { "kind": "nas" } })),
        ("cam-07", json!({ "host": "cam-07" })),
        ("nas-07", json!({ "host": "nas-07" })),
    ] {
        let edit = |body: &mut Value| (body["target"], body["reason"]) = (target.clone(), json!(reason));
        must(&add(&api, edit).await);
    }
    let reasons = async |query: &str| {
        let list = api.operator().get(&format!("/api/v1/grants?{query}")).await;
        let items = list.json["items"].as_array().expect("a list").clone();
        let reason = |g: &Value| g["reason"].as_str().map(|text| text.split(':').next().map(str::to_owned));
        items.iter().filter_map(reason).flatten().collect::<Vec<String>>()
    };
    assert_eq!(reasons("host=cam-07").await, ["cam-07", "north", "default", "default"]);
    assert_eq!(reasons("host=nas-07").await, ["nas-07", "nas"], "the default grants are for devices");
    assert!(reasons("host=pub").await.is_empty(), "it has no tunnel");
    assert_eq!(reasons("host=cam-07&limit=2").await, ["cam-07", "north"]);
    must(&api.admin().delete("/api/v1/grants/operators").await);
    assert_eq!(reasons("host=cam-07").await.len(), 3);
    assert_eq!(reasons("host=cam-07&all=true").await.len(), 4);
    let unknown = api.operator().get("/api/v1/grants?host=cam-8").await;
    assert_eq!((unknown.status, unknown.code()), (404, "not_found"));
}

#[tokio::test]
async fn a_window_is_pending_active_and_ended() {
    let mut api = site().await;
    let ahead = add(&api, |body| body["from"] = json!("2030-01-01T00:00:00Z")).await;
    assert_eq!(ahead.json["state"], "pending", "{}", ahead.text);
    let at = |seconds: i64| crate::clock::wall().as_millis() + seconds * 1_000;
    let soon = add(&api, |body| body["until"] = json!(time(at(3_600)))).await;
    heard(&mut api);
    let sql = "update grants set until_at = 5 where until_at is not null";
    fixture::run(&api.state.store, sql, &[]).await;
    let id = soon.json["id"].as_str().unwrap();
    let ended = api.admin().get(&format!("/api/v1/grants/{id}")).await;
    assert_eq!(ended.json["state"], "ended");
    let refused = api.admin().patch(&format!("/api/v1/grants/{id}"), json!({ "until": null })).await;
    assert_eq!(refused.code(), "grant_over");
    let mut conn = api.state.store.reader().await.unwrap();
    let all = policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes;
    let grants = all.iter().filter(|change| matches!(change, PolicyChange::Grant(_))).count();
    assert_eq!(grants, 3, "the default ones and the pending one");
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

#[tokio::test]
async fn a_name_is_unique_among_grants_that_are_not_over() {
    let api = site().await;
    let named = async || add(&api, |body| body["name"] = json!("night-work")).await;
    let first = named().await;
    assert_eq!(first.status, 201);
    assert_eq!(named().await.code(), "name_taken");
    assert_eq!(api.admin().delete("/api/v1/grants/night-work").await.status, 204);
    assert_eq!(api.admin().get("/api/v1/grants/night-work").await.status, 404);
    let second = named().await;
    assert_eq!(second.status, 201);
    let found = api.admin().get("/api/v1/grants/night-work").await;
    assert_eq!(found.json["id"], second.json["id"]);
}

#[tokio::test]
async fn what_a_grant_names_takes_it_along_when_it_is_removed() {
    let mut api = site().await;
    let ids = [
        add(&api, |_| {}).await,
        add(&api, |body| body["source"] = json!({ "peer": "anna-laptop" })).await,
        add(&api, |body| body["target"] = json!({ "host": "nas-07" })).await,
    ]
    .map(|made| made.json["id"].as_str().unwrap().to_owned());
    let state = async |api: &TestApi, id: &str| {
        let shown = api.admin().get(&format!("/api/v1/grants/{id}")).await;
        assert_eq!(shown.status, 200, "{}", shown.text);
        shown.json
    };
    heard(&mut api);
    must(&api.admin().delete("/api/v1/hosts/nas-07").await);
    assert_eq!(state(&api, &ids[2]).await["state"], "withdrawn");
    let changes = heard(&mut api);
    assert!(
        matches!(changes[..], [PolicyChange::RemoveTarget(_), PolicyChange::WithdrawGrant(_)]),
        "{changes:?}"
    );
    must(&api.admin().delete("/api/v1/users/anna").await);
    let changes = heard(&mut api);
    assert_eq!(
        changes.iter().filter(|c| matches!(c, PolicyChange::WithdrawGrant(_))).count(),
        2,
        "{changes:?}"
    );
    let of_user = state(&api, &ids[0]).await;
    assert_eq!((&of_user["source"]["user"], &of_user["state"]), (&json!("anna"), &json!("withdrawn")));
    assert_eq!(state(&api, &ids[1]).await["source"]["peer"], "anna-laptop");
    let refused = add(&api, |_| {}).await;
    assert_eq!(refused.json["errors"][0]["field"], "source.user", "a removed user");
}

#[tokio::test]
async fn hosts_and_devices_are_targets_with_their_labels_and_aliases() {
    let mut api = site().await;
    let shown = api.viewer().get("/api/v1/hosts/nas-07").await;
    assert_eq!(shown.json["alias"], "10.112.0.3", "{}", shown.text);
    assert!(api.viewer().get("/api/v1/hosts/cam-07").await.json.get("alias").is_none());
    let target = |changes: Vec<PolicyChange>| -> TargetSpec {
        let [PolicyChange::Target(spec)] = &changes[..] else { panic!("{changes:?}") };
        spec.clone()
    };
    must(&api.admin().patch("/api/v1/hosts/nas-07", json!({ "labels": { "kind": "disk" } })).await);
    let nas = target(heard(&mut api));
    assert_eq!((nas.labels["kind"].as_str(), nas.behind, nas.host == nas.peer), ("disk", true, false));
    let addresses = |spec: &TargetSpec| -> Vec<String> {
        spec.addresses.iter().map(|a| format!("{} {}", a.reached_at, a.real)).collect()
    };
    assert_eq!((addresses(&nas), nas.name.as_str()), (vec!["10.112.0.3 192.168.1.5".to_owned()], "nas-07"));
    must(&api.admin().patch("/api/v1/hosts/nas-07", json!({ "address": "192.168.1.6" })).await);
    assert_eq!(addresses(&target(heard(&mut api))), ["10.112.0.3 192.168.1.6"], "the alias stays");

    must(
        &api.admin()
            .patch("/api/v1/devices/cam-07", json!({ "networks": ["192.168.1.0/24", "2001:db8::/64"] }))
            .await,
    );
    heard(&mut api);
    must(&api.admin().patch("/api/v1/hosts/nas-07", json!({ "address": "2001:db8::5" })).await);
    let nas = target(heard(&mut api));
    assert_eq!(addresses(&nas), ["fd72:6c65:6574::5 2001:db8::5"], "an alias is of the same family");
    must(&api.admin().patch("/api/v1/devices/cam-07", json!({ "labels": { "site": "south" } })).await);
    let cam = target(heard(&mut api));
    assert_eq!((cam.labels["site"].as_str(), cam.behind, cam.addresses.len()), ("south", false, 2));
    must(&api.admin().delete("/api/v1/devices/cam-07?cascade=true").await);
    let changes = heard(&mut api);
    assert!(
        matches!(changes[..], [PolicyChange::RemoveTarget(_), PolicyChange::RemoveTarget(_)]),
        "{changes:?}"
    );
}

#[tokio::test]
async fn the_policy_of_a_start_is_what_the_changes_added_up_to() {
    let mut api = TestApi::with_endpoint().await;
    let device = json!({ "name": "cam-07", "labels": { "site": "north" }, "networks": ["192.168.1.0/24"] });
    must(&api.admin().post("/api/v1/devices", device).await);
    must(
        &api.admin()
            .post("/api/v1/hosts", json!({ "name": "nas", "via": "cam-07", "address": "192.168.1.5" }))
            .await,
    );
    let user = json!({ "name": "anna", "role": "operator", "password": PASSWORD });
    must(&api.admin().post("/api/v1/users", user).await);
    must(&api.admin().post("/api/v1/operators", json!({ "name": "anna-laptop", "user": "anna" })).await);
    must(&add(&api, |_| {}).await);
    for grant in ["operators", "admins"] {
        must(&api.admin().delete(&format!("/api/v1/grants/{grant}")).await);
    }
    let added =
        heard(&mut api).into_iter().filter(|change| !matches!(change, PolicyChange::WithdrawGrant(_)));
    let mut conn = api.state.store.reader().await.unwrap();
    let at_start = policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes;
    let sorted = |changes: Vec<PolicyChange>| {
        let mut texts: Vec<String> = changes.iter().map(|change| format!("{change:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(added.collect()), sorted(at_start));
}

#[tokio::test]
async fn a_change_that_could_not_be_read_reaches_the_tunnel_later() {
    let mut api = site().await;
    let made = add(&api, |_| {}).await;
    let path = format!("/api/v1/grants/{}", made.json["id"].as_str().unwrap());
    heard(&mut api);
    // The policy is read from the table of users too, and the change is not.
    fixture::run(&api.state.store, "alter table operators rename to elsewhere", &[]).await;
    let sql = "update grants set withdrawn_at = 5 where source_user is not null";
    fixture::run(&api.state.store, sql, &[]).await;
    let grant = path.rsplit('_').next().unwrap().parse().unwrap();
    let rows = policy::PolicyRows { grants: [grant].into(), ..Default::default() };
    let changes = crate::engine::handle::Changes { policy: rows, ..Default::default() };
    api.state.handle.changed(changes).await;
    assert!(heard(&mut api).is_empty() && api.state.handle.is_behind());
    assert!(!api.state.handle.repeat().await);
    fixture::run(&api.state.store, "alter table elsewhere rename to operators", &[]).await;
    assert!(api.state.handle.repeat().await && !api.state.handle.is_behind());
    assert!(matches!(heard(&mut api)[..], [PolicyChange::WithdrawGrant(_)]));
}

#[tokio::test]
async fn an_unreadable_row_costs_only_its_own_grant() {
    let mut api = site().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let made = add(&api, |_| {}).await.json["id"].as_str().unwrap().to_owned();
        ids.push(made.rsplit('_').next().unwrap().parse().unwrap());
    }
    heard(&mut api);
    let [withdrawn, damaged, sound]: [Id; 3] = ids.clone().try_into().unwrap();
    let store = api.state.store.clone();
    let withdraw = "update grants set withdrawn_at = 5 where id = cast($1 as integer)";
    fixture::run(&store, withdraw, &[&withdrawn.as_i64().to_string()]).await;
    let damaged_id = damaged.as_i64().to_string();
    let spoil = "update grants set access = $2 where id = cast($1 as integer)";
    fixture::run(&store, spoil, &[&damaged_id, "[{}]"]).await;
    let rows = policy::PolicyRows { grants: ids.into_iter().collect(), ..Default::default() };
    let changes = || crate::engine::handle::Changes { policy: rows.clone(), ..Default::default() };
    api.state.handle.changed(changes()).await;
    assert!(!api.state.handle.is_behind(), "nothing is tried again");
    let told = heard(&mut api);
    for id in [withdrawn, damaged] {
        assert!(told.contains(&PolicyChange::WithdrawGrant(id)), "{told:?}");
    }
    assert!(told.iter().any(|change| matches!(change, PolicyChange::Grant(spec) if spec.id == sound)));
    let health = api.anonymous().get("/healthz").await;
    assert_eq!(health.json["status"], "degraded");
    assert!(health.json["parts"]["policy"].as_str().unwrap().contains("cannot be read"), "{}", health.text);
    assert_eq!(api.anonymous().get("/readyz").await.status, 200, "a restart mends nothing");
    // A start leaves it out as well.
    let read = policy::all(&mut store.reader().await.unwrap(), crate::clock::wall()).await.unwrap();
    assert_eq!(read.unreadable.grants, [damaged].into());
    fixture::run(&store, spoil, &[&damaged_id, "[]"]).await;
    api.state.handle.changed(changes()).await;
    assert_eq!(api.anonymous().get("/healthz").await.json["parts"]["policy"], "ok");
}

#[tokio::test]
async fn a_grant_that_ended_by_the_clock_alone_is_the_engines_to_judge() {
    let mut api = site().await;
    let until = time(crate::clock::wall().as_millis() + 3_600_000);
    let made = add(&api, |body| body["until"] = json!(until)).await;
    let grant: Id = made.json["id"].as_str().unwrap().rsplit('_').next().unwrap().parse().unwrap();
    heard(&mut api);
    // The clock is ahead for a moment: nothing is final yet.
    let past = "update grants set until_at = 5 where until_at is not null";
    fixture::run(&api.state.store, past, &[]).await;
    let rows = policy::PolicyRows { grants: [grant].into(), ..Default::default() };
    let changes = crate::engine::handle::Changes { policy: rows, ..Default::default() };
    api.state.handle.changed(changes).await;
    assert!(matches!(&heard(&mut api)[..], [PolicyChange::Grant(spec)] if spec.id == grant));
}

#[tokio::test]
async fn an_operator_that_cannot_be_read_is_not_called_unknown() {
    let api = site().await;
    let peer = |body: &mut Value| body["source"] = json!({ "peer": "anna-laptop" });
    fixture::run(&api.state.store, "alter table operators rename to elsewhere", &[]).await;
    let failed = add(&api, peer).await;
    assert_eq!((failed.status, failed.code()), (500, "internal"), "{}", failed.text);
    let failed = api.operator().get("/api/v1/explain?from=anna-laptop&to=cam-07&port=22").await;
    assert_eq!((failed.status, failed.code()), (500, "internal"), "{}", failed.text);
    fixture::run(&api.state.store, "alter table elsewhere rename to operators", &[]).await;
    assert_eq!(add(&api, peer).await.status, 201);
}

#[tokio::test]
async fn a_grant_that_ended_by_a_clock_that_is_ahead_can_be_withdrawn() {
    let mut api = site().await;
    let until = time(crate::clock::wall().as_millis() + 3_600_000);
    let made = add(&api, |body| body["until"] = json!(until)).await;
    let path = format!("/api/v1/grants/{}", made.json["id"].as_str().unwrap());
    let past = "update grants set until_at = 5 where until_at is not null";
    fixture::run(&api.state.store, past, &[]).await;
    heard(&mut api);
    assert_eq!(api.admin().get(&path).await.json["state"], "ended");
    assert_eq!(api.admin().delete(&path).await.status, 204);
    assert!(matches!(heard(&mut api)[..], [PolicyChange::WithdrawGrant(_)]));
    let set_back = "update grants set until_at = 4102444800000 where until_at is not null";
    fixture::run(&api.state.store, set_back, &[]).await;
    assert_eq!(api.admin().get(&path).await.json["state"], "withdrawn");
}

#[tokio::test]
async fn an_accepted_clock_loads_every_grant_that_is_open_by_it() {
    let mut api = site().await;
    let made = add(&api, |body| body["until"] = json!("2035-01-01T00:00:00Z")).await;
    let grant: Id = made.json["id"].as_str().unwrap().rsplit('_').next().unwrap().parse().unwrap();
    let over = add(&api, |body| body["until"] = json!("2035-01-01T00:00:00Z")).await;
    let over: Id = over.json["id"].as_str().unwrap().rsplit('_').next().unwrap().parse().unwrap();
    let past = "update grants set until_at = 5 where id = cast($1 as integer)";
    fixture::run(&api.state.store, past, &[&over.as_i64().to_string()]).await;
    heard(&mut api);
    assert_eq!(api.admin().post("/api/v1/gateway/accept-clock", json!(null)).await.status, 204);
    let told = heard(&mut api);
    assert_eq!(told[0], PolicyChange::AcceptClock);
    let loaded = |id| told.iter().any(|change| matches!(change, PolicyChange::Grant(spec) if spec.id == id));
    assert!(loaded(grant) && !loaded(over), "{told:?}");
    assert!(!api.state.handle.lacks_grants());
}

#[tokio::test]
async fn explain_says_why_a_user_reaches_nothing() {
    let api = site().await;
    let explain = async |from: &str| {
        let answer = api.operator().get(&format!("/api/v1/explain?from={from}&to=cam-07&port=22")).await;
        assert_eq!(
            (answer.status, &answer.json["result"]),
            (200, &json!("unknown_source")),
            "{}",
            answer.text
        );
        answer.json["text"].as_str().unwrap().to_owned()
    };
    let viewer = explain("eve").await;
    assert!(
        viewer.contains("eve is a viewer") && viewer.contains("fleetgate user role eve operator"),
        "{viewer}"
    );
    must(&api.admin().patch("/api/v1/users/anna", json!({ "disabled": true })).await);
    for from in ["anna", "anna-laptop"] {
        let disabled = explain(from).await;
        assert!(disabled.starts_with(&format!("{from} does not reach cam-07 (tcp 22): ")), "{disabled}");
        assert!(disabled.contains("anna is disabled: `fleetgate user enable anna`"), "{disabled}");
    }
}

#[tokio::test]
async fn a_program_manages_its_grants_and_hears_of_withdrawals_by_hand() {
    let api = site().await;
    let program = api.admin().header("fleetgate-manager", "apply");
    let made = program.post("/api/v1/grants", body(|body| body["name"] = json!("night-work"))).await;
    assert_eq!(made.json["managed_by"], "apply", "{}", made.text);
    let edited = api.admin().patch("/api/v1/grants/night-work", json!({ "reason": "by hand" })).await;
    assert!(edited.json["edited_by"].is_string(), "{}", edited.text);
    assert_eq!(api.admin().delete("/api/v1/grants/night-work").await.status, 204);
    let removals = api.admin().get("/api/v1/removals?managed_by=apply").await;
    assert_eq!(removals.json["items"][0]["kind"], "grant", "{}", removals.text);
    let removals = api.viewer().get("/api/v1/removals?managed_by=apply").await;
    assert_eq!(
        (removals.status, &removals.json["items"]),
        (200, &json!([])),
        "viewers read nothing of grants"
    );
    let again = program.post("/api/v1/grants", body(|body| body["name"] = json!("night-work"))).await;
    assert_eq!(again.status, 201);
    let removals = api.admin().get("/api/v1/removals?managed_by=apply").await;
    assert_eq!(removals.json["items"], json!([]));
}

#[tokio::test]
async fn the_number_of_open_grants_has_a_limit() {
    let api = site().await;
    let sql = "with recursive n (i) as (select 100 union all select i + 1 from n where i < 10097)
               insert into grants (id, source_role, access, author, created_at) select i, 'admin', '[]', 'x', 0 from n";
    fixture::run(&api.state.store, sql, &[]).await;
    let refused = add(&api, |_| {}).await;
    assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{}", refused.text);
    fixture::run(&api.state.store, "update grants set withdrawn_at = 5 where id = 100", &[]).await;
    assert_eq!(add(&api, |_| {}).await.status, 201);
}

#[tokio::test]
async fn a_host_behind_a_device_needs_room_in_the_pool_for_its_alias() {
    let api = TestApi::with(|config| {
        config.endpoint = "vpn.example.net:51820".parse().ok();
        config.pool_v4 = "10.9.0.0/29".parse().unwrap();
    })
    .await;
    must(
        &api.admin().post("/api/v1/devices", json!({ "name": "cam", "networks": ["192.168.1.0/24"] })).await,
    );
    let host = |n: u8| json!({ "name": format!("h{n}"), "via": "cam", "address": format!("192.168.1.{n}") });
    for n in 1..=4 {
        must(&api.admin().post("/api/v1/hosts", host(n)).await);
    }
    let full = api.admin().post("/api/v1/hosts", host(5)).await;
    assert_eq!((full.status, full.code()), (409, "pool_full"), "{}", full.text);
    assert_eq!(api.admin().get("/api/v1/hosts/h5").await.status, 404);
    must(&api.admin().delete("/api/v1/hosts/h1").await);
    assert_eq!(
        api.admin().post("/api/v1/hosts", host(5)).await.code(),
        "pool_full",
        "an alias rests for a day"
    );
    let sql = "update addresses set released_at = 5 where released_at is not null";
    fixture::run(&api.state.store, sql, &[]).await;
    must(&api.admin().post("/api/v1/hosts", host(5)).await);
    assert_eq!(api.admin().get("/api/v1/hosts/h5").await.json["alias"], "10.9.0.3");
}
