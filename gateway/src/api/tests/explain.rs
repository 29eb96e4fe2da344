//! Probes of forwarding: asked for by people and programs, recorded, limited, and answered by the tunnels.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    ExplainSource, ExplainTarget, Explanation, ForwardProbe, ForwardProbeKind, ForwardProbeOutcome,
    ForwardProbeReply, GrantWindow,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::request::auth::Role;
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, Caller, TestApi};

/// A target that the policy permits, and that answers after 12 ms.
pub(super) fn answered() -> ForwardProbeReply {
    let window = GrantWindow { grant: Id::from_i64(1), from: None, until: None, ends_at: None };
    ForwardProbeReply {
        explanation: Explanation::Permitted(window),
        packet: Some(([10, 112, 0, 2].into(), [10, 112, 0, 3].into())),
        outcome: ForwardProbeOutcome::Answered(Duration::from_millis(12)),
    }
}

/// A gateway with the device `cam-07`, and the user `anna` who has `anna-laptop`.
async fn site(reply: ForwardProbeReply) -> (TestApi, mpsc::UnboundedReceiver<ForwardProbe>) {
    let mut api = TestApi::with_endpoint().await;
    let probes = api.answer_probes(reply);
    for (path, body) in [
        ("/api/v1/devices", json!({ "name": "cam-07" })),
        ("/api/v1/users", json!({ "name": "anna", "role": "operator", "password": "correct horse battery" })),
        ("/api/v1/operators", json!({ "name": "anna-laptop", "user": "anna" })),
    ] {
        let made = api.admin().post(path, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    (api, probes)
}

async fn ask(caller: Caller<'_>, body: Value) -> Answer {
    caller.post("/api/v1/explain/probe", body).await
}

#[tokio::test]
async fn a_probe_is_sent_as_it_was_asked_for() {
    let (api, mut probes) = site(answered()).await;
    let id = async |path: &str| -> Id {
        let shown = api.admin().get(&format!("/api/v1/{path}")).await.json["id"].clone();
        shown.as_str().unwrap().split_once('_').unwrap().1.parse().unwrap()
    };
    let (host, peer, user) =
        (id("devices/cam-07").await, id("operators/anna-laptop").await, id("users/anna").await);
    let cases = [
        (json!({ "from": "anna", "to": "cam-07" }), ExplainSource::User(user), ForwardProbeKind::Echo),
        (
            json!({ "from": "anna-laptop", "to": "cam-07", "port": 22 }),
            ExplainSource::Peer(peer),
            ForwardProbeKind::Connect { port: 22 },
        ),
        (
            json!({ "from": "anna", "to": "cam-07", "protocol": "tcp", "port": 80 }),
            ExplainSource::User(user),
            ForwardProbeKind::Connect { port: 80 },
        ),
    ];
    for (body, from, kind) in cases {
        let answer = ask(api.admin(), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((&answer.json["result"], &answer.json["rtt_ms"]), (&json!("answered"), &json!(12.0)));
        let probe = probes.try_recv().unwrap();
        assert_eq!((probe.from, probe.to, probe.kind), (from, ExplainTarget::Host(host), kind));
    }
    let audit = api.admin().get("/api/v1/audit?kind=forwarding.probed").await.json;
    let last = &audit["items"][0];
    assert_eq!(last["object_name"], "cam-07");
    assert_eq!(last["data"], json!({ "from": "anna", "protocol": "tcp", "port": 80 }));
    assert_eq!(audit["items"].as_array().unwrap().len(), 3);
    let by_id = format!("u_{user}");
    let answer = ask(api.admin(), json!({ "from": by_id, "to": "cam-07" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let audit = api.admin().get("/api/v1/audit?kind=forwarding.probed").await.json;
    assert_eq!(audit["items"][0]["data"]["from"], "anna", "the name, and not the text of the caller");
}

#[tokio::test]
async fn no_operator_stands_for_another_user_by_its_name() {
    let (api, mut probes) = site(answered()).await;
    let bob = json!({ "name": "bob", "role": "operator", "password": "correct horse battery" });
    assert_eq!(api.admin().post("/api/v1/users", bob).await.status, 201);
    let named = json!({ "name": "anna", "user": "bob" });
    assert_eq!(api.admin().post("/api/v1/operators", named).await.status, 201);
    let anna = api.admin().get("/api/v1/users/anna").await.json["id"].as_str().unwrap().to_owned();
    let anna = anna.split_once('_').unwrap().1.parse().unwrap();
    assert_eq!(ask(api.admin(), json!({ "from": "anna", "to": "cam-07" })).await.status, 200);
    assert_eq!(probes.try_recv().unwrap().from, ExplainSource::User(anna));
}

#[tokio::test]
async fn a_probe_that_makes_no_sense_is_refused_by_name_and_not_sent() {
    let (api, mut probes) = site(answered()).await;
    for (body, field, words) in [
        (
            json!({ "from": "anna", "to": "cam-07", "protocol": "udp", "port": 53 }),
            "protocol",
            "cannot be probed",
        ),
        (
            json!({ "from": "anna", "to": "cam-07", "protocol": "icmp", "port": 1 }),
            "port",
            "icmp has no ports",
        ),
        (json!({ "from": "anna", "to": "cam-07", "port": 0 }), "port", "1 to 65535"),
        (json!({ "from": "anna", "to": "cam-08" }), "to", "cam-08"),
        (json!({ "from": "bob", "to": "cam-07" }), "from", "bob"),
        (json!({ "from": "cam-07", "to": "cam-07" }), "from", "device"),
    ] {
        let answer = ask(api.admin(), body.clone()).await;
        assert_eq!(
            (answer.status, &answer.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{body}: {}",
            answer.text
        );
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    for caller in [api.viewer(), api.operator()] {
        let answer = ask(caller, json!({ "from": "anna", "to": "cam-07" })).await;
        assert_eq!((answer.status, answer.code()), (403, "role_missing"), "{}", answer.text);
    }
    assert!(probes.try_recv().is_err());
}

#[tokio::test]
async fn a_user_without_an_operator_has_no_address_for_a_packet() {
    let unknown = ForwardProbeReply {
        explanation: Explanation::UnknownSource,
        packet: None,
        outcome: ForwardProbeOutcome::Denied,
    };
    let (api, _probes) = site(unknown).await;
    let answer = ask(api.admin(), json!({ "from": "anna", "to": "cam-07" })).await;
    assert_eq!((answer.status, &answer.json["errors"][0]["field"]), (422, &json!("from")), "{}", answer.text);
    assert!(answer.text.contains("fleetgate operator add"), "{}", answer.text);
}

#[tokio::test]
async fn probes_of_one_caller_are_limited() {
    let (api, mut probes) = site(answered()).await;
    let mut statuses = Vec::new();
    for _ in 0..32 {
        statuses.push(ask(api.admin(), json!({ "from": "anna", "to": "cam-07" })).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 30, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    let sent = std::iter::from_fn(|| probes.try_recv().ok()).count();
    assert_eq!(sent, 30);
    let other =
        ask(api.limited(Role::Admin, Area::Access).await, json!({ "from": "anna", "to": "cam-07" })).await;
    assert_eq!(other.status, 200, "{}", other.text);
}
