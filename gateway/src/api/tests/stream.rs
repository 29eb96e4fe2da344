//! The event stream, over a real connection.

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::PeerStatus;
use fleetgate_engine::time::Wall;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::api::document::conformance;
use crate::api::testing::{Caller, TestApi};
use crate::engine::live_state::Change;

/// One event as a browser sees it.
type Seen = (String, Value);

struct Listener {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    read: String,
}

impl Listener {
    async fn open(api: &TestApi) -> Listener {
        Listener::open_as(api, api.viewer_token()).await
    }

    async fn open_as(api: &TestApi, token: &str) -> Listener {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = api.serve(api.router()).await;
        let request = reqwest::Client::new()
            .get(format!("http://{address}/api/v1/stream"))
            .header("authorization", format!("Bearer {token}"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Listener { body: answer.bytes_stream().boxed(), read: String::new() }
    }

    /// Returns the next event. `None` if the stream has ended.
    async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
                let seen = (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap());
                let message = json!({ "event": seen.0, "data": field("data: ") });
                self.read = rest.to_owned();
                let schema = &conformance::DOCUMENT["components"]["schemas"]["StreamMessage"];
                conformance::fits(schema, &message).expect("the document has this message");
                return Some(seen);
            }
            let more = tokio::time::timeout(Duration::from_secs(5), self.body.next()).await;
            let bytes = more.expect("something within 5 s")?.ok()?;
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Returns the next event of this name and skips others.
    async fn wait_for(&mut self, name: &str) -> Value {
        loop {
            let (seen, data) = self.next().await.expect("the stream goes on");
            if seen == name {
                return data;
            }
        }
    }
}

async fn device(api: &TestApi, name: &str) {
    let made = api.operator().post("/api/v1/devices", json!({ "name": name })).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_what_changes() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let mut stream = Listener::open(&api).await;
    let (name, data) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &data["overview"]["hosts"]["pending"]), ("snapshot", &json!(1)));

    device(&api, "cam-08").await;
    let host = stream.wait_for("host").await;
    assert_eq!(host["name"], "cam-08");
    let event = stream.wait_for("event").await;
    assert_eq!((&event["kind"], &event["object_name"]), (&json!("device.created"), &json!("cam-08")));
    assert_eq!(stream.wait_for("overview").await["hosts"]["pending"], 2);

    let id = host["id"].clone();
    assert_eq!(api.operator().delete("/api/v1/devices/cam-08").await.status, 204);
    assert_eq!(stream.wait_for("host_removed").await, json!({ "id": id }));
}

#[tokio::test]
async fn viewers_get_no_events_of_people() {
    let api = TestApi::with_endpoint().await;
    let mut viewer = Listener::open(&api).await;
    let mut operator = Listener::open_as(&api, api.operator_token()).await;
    viewer.wait_for("snapshot").await;
    operator.wait_for("snapshot").await;
    assert_eq!(api.admin().delete("/api/v1/grants/operators").await.status, 204);
    device(&api, "cam-07").await;
    assert_eq!(viewer.wait_for("event").await["kind"], "device.created");
    assert_eq!(operator.wait_for("event").await["kind"], "grant.withdrawn");
    assert_eq!(operator.wait_for("event").await["kind"], "device.created");

    let seen = async |caller: Caller<'_>, query: &str| {
        let log = caller.get(&format!("/api/v1/events?since=0{query}")).await;
        let kinds = log.json["items"].as_array().unwrap().iter().map(|e| e["kind"].clone());
        kinds.collect::<Vec<_>>()
    };
    for query in ["", "&kind=grant"] {
        assert!(seen(api.operator(), query).await.contains(&json!("grant.withdrawn")), "{query}");
    }
    assert!(seen(api.viewer(), "&kind=grant").await.is_empty());
    let all = seen(api.viewer(), "").await;
    assert!(all.contains(&json!("device.created")) && !all.contains(&json!("grant.withdrawn")), "{all:?}");
}

#[tokio::test]
async fn a_token_with_scopes_gets_the_events_that_its_scopes_read() {
    let api = TestApi::with_endpoint().await;
    let limited = async |scopes: &[&str]| {
        let body = json!({ "name": scopes.join("-"), "role": "operator", "scopes": scopes });
        let made = api.admin().post("/api/v1/tokens", body).await;
        made.json["secret"].as_str().unwrap().to_owned()
    };
    let tokens = [
        (limited(&["monitoring"]).await, [false, false]),
        (limited(&["monitoring", "access"]).await, [true, false]),
        (limited(&["monitoring", "rentals"]).await, [false, true]),
        (api.operator_token().to_owned(), [true, true]),
    ];
    let mut streams = Vec::new();
    for (token, _) in &tokens {
        let mut stream = Listener::open_as(&api, token).await;
        stream.wait_for("snapshot").await;
        streams.push(stream);
    }
    assert_eq!(api.admin().delete("/api/v1/grants/operators").await.status, 204);
    let customer = api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-17" })).await;
    assert_eq!(customer.status, 201, "{}", customer.text);
    device(&api, "cam-07").await;
    for ((token, [access, rentals]), mut stream) in tokens.into_iter().zip(streams) {
        let given = [("grant.withdrawn", access), ("customer.created", rentals), ("device.created", true)];
        let expected = given.into_iter().filter(|(_, is_given)| *is_given).map(|(kind, _)| json!(kind));
        let expected: Vec<Value> = expected.collect();
        for kind in &expected {
            assert_eq!(stream.wait_for("event").await["kind"], *kind);
        }
        let log = api.anonymous().bearer(&token).get("/api/v1/events?since=0").await;
        let kinds = log.json["items"].as_array().unwrap().iter().map(|e| e["kind"].clone());
        let kinds = kinds.filter(|kind| given.iter().any(|(known, _)| kind == known));
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn what_changes_no_state_is_told_in_short() {
    let api = TestApi::with_endpoint().await;
    device(&api, "cam-07").await;
    let id = api.viewer().get("/api/v1/hosts/cam-07").await.json["id"].clone();
    let host: HostId = id.as_str().unwrap()[2..].parse().unwrap();
    let mut stream = Listener::open(&api).await;
    stream.wait_for("snapshot").await;
    let last_check = Some(Wall::from_millis(60_000));
    api.state.live.tell(Change::Checked { host, last_check, next_check: None });
    let (name, data) = stream.next().await.unwrap();
    let checked =
        json!({ "last_check": null, "hosts": [{ "id": id, "last_check": "1970-01-01T00:01:00Z" }] });
    assert_eq!((name.as_str(), &data), ("checked", &checked), "and no row with it");

    let status = PeerStatus { established: true, rx_bytes: 7, ..PeerStatus::default() };
    api.state.live.set_peer(host, status.clone());
    assert_eq!(stream.wait_for("host").await["tunnel"]["rx_bytes"], 7, "there is a session");
    api.state.live.set_peer(host, PeerStatus { rx_bytes: 39, ..status });
    let (name, data) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &data["hosts"][0]["tunnel"]["rx_bytes"]), ("checked", &json!(39)));
}

#[tokio::test]
async fn a_reader_is_told_to_load_again_when_too_much_happened() {
    let api = TestApi::with_endpoint().await;
    let mut stream = Listener::open(&api).await;
    stream.wait_for("snapshot").await;
    for n in 0..20_000 {
        api.state.live.tell(crate::engine::live_state::Change::Host(fleetgate_engine::id::Id::from_i64(n)));
    }
    stream.wait_for("reload").await;
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn the_stream_ends_when_the_gateway_stops() {
    let api = TestApi::with_endpoint().await;
    let mut stream = Listener::open(&api).await;
    stream.wait_for("snapshot").await;
    api.state.shutdown.cancel();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn every_message_that_the_document_has_is_sent() {
    let api = TestApi::with_endpoint().await;
    let mut stream = Listener::open(&api).await;
    stream.wait_for("snapshot").await;
    device(&api, "cam-07").await;
    stream.wait_for("host").await;
    let id = api.viewer().get("/api/v1/hosts/cam-07").await.json["id"].clone();
    let host: HostId = id.as_str().unwrap()[2..].parse().unwrap();
    api.state.live.tell(Change::Checked {
        host,
        last_check: Some(Wall::from_millis(60_000)),
        next_check: None,
    });
    api.state.live.tell(Change::Enrolment(7));
    let mut seen = std::collections::BTreeSet::from(["snapshot".to_owned(), "host".to_owned()]);
    let wanted = ["checked", "enrolment", "event", "overview"];
    while !wanted.iter().all(|name| seen.contains(*name)) {
        seen.insert(stream.next().await.expect("the stream goes on").0);
    }
    assert_eq!(api.operator().delete("/api/v1/devices/cam-07").await.status, 204);
    stream.wait_for("host_removed").await;
    for n in 0..20_000 {
        api.state.live.tell(Change::Host(fleetgate_engine::id::Id::from_i64(n)));
    }
    stream.wait_for("reload").await;
    seen.extend(["host_removed", "reload"].map(ToOwned::to_owned));
    let mapping =
        &conformance::DOCUMENT["components"]["schemas"]["StreamMessage"]["discriminator"]["mapping"];
    let declared: Vec<&String> = mapping.as_object().unwrap().keys().collect();
    assert_eq!(seen.iter().collect::<Vec<_>>(), declared);
}
