//! Connections of people to hosts: a whole gateway, and a device that connects to it over UDP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::close_code;
use fleetgate_engine::id::Id;
use fleetgate_keys::{PrivateKey, Token};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role as End;

use crate::api::document::conformance;
use crate::api::request::ids;
use crate::api::testing::bearer;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::demo::device::{Device, DeviceHandle, DeviceSpec, Service};
use crate::demo::sensors::Sensors;
use crate::server::Server;
use crate::store::access::Role;
use crate::store::fixture;

/// More than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "correct horse battery";

type Socket = WebSocketStream<reqwest::Upgraded>;
type Headers<'a> = &'a [(&'a str, &'a str)];

/// A gateway with the device `cam-07`, a host `nas-07` behind it, and a device that never connected.
/// Port 80 of all addresses sends back what it receives, port 7 says nothing, and port 9 ends its side and reads
/// nothing.
pub(in crate::api) struct Site {
    pub(in crate::api) server: Option<Server>,
    _device: DeviceHandle,
    http: reqwest::Client,
    admin: Token,
    pub(in crate::api) operator: Token,
    viewer: Token,
    pub(in crate::api) dir: TempDir,
}

impl Site {
    pub(in crate::api) async fn new() -> Site {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(dir.path(), None).unwrap();
        (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
        config.endpoint = "127.0.0.1:51820".parse().ok();
        let server = Server::start(config, DataDir::open(dir.path()).unwrap()).await.unwrap();
        let token = async |role| {
            let id = ids::new_id(crate::clock::wall());
            bearer(&server.state.store, id, role, Vec::new()).await
        };
        let [admin, operator, viewer] =
            [token(Role::Admin).await, token(Role::Operator).await, token(Role::Viewer).await];
        let private = PrivateKey::generate();
        let http = reqwest::Client::builder().http1_only().build().unwrap();
        let body = json!({ "name": "cam-07", "public_key": private.public().to_string(),
            "networks": ["192.168.1.0/24"] });
        let made = send(&http, &server, &admin, "POST", "/devices", body).await.1;
        let addresses = made["device"]["tunnel"]["addresses"].as_array().unwrap().iter();
        let spec = DeviceSpec {
            private,
            psk: made["credentials"]["preshared_key"].as_str().map(|key| key.parse().unwrap()),
            gateway: server.identity.wireguard.public(),
            endpoint: ([127, 0, 0, 1], server.udp_port).into(),
            addresses: addresses.map(|a| a.as_str().unwrap().parse().unwrap()).collect(),
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            keepalive: Some(Duration::from_secs(1)),
            sensors: Sensors::default(),
            ssh: None,
            services: vec![(80, echo()), (7, silence()), (9, deafness())],
        };
        let device = Device::start(spec).await.unwrap();
        let site = Site { server: Some(server), _device: device, http, admin, operator, viewer, dir };
        site.call("POST", "/hosts", json!({ "name": "nas-07", "via": "cam-07", "address": "192.168.1.5" }))
            .await;
        site.call("POST", "/devices", json!({ "name": "ghost" })).await;
        site.comes_up().await;
        site
    }

    pub(in crate::api) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(in crate::api) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = send(&self.http, self.server(), &self.admin, method, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    async fn comes_up(&self) {
        let begin = Instant::now();
        while self.call("GET", "/hosts/cam-07", Value::Null).await["tunnel"]["established"] != true {
            assert!(begin.elapsed() < PATIENCE, "the device has no session");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn request(&self, path: &str, headers: Headers<'_>) -> reqwest::Response {
        let mut request = self.http.get(format!("http://{}/api/v1/hosts/{path}", self.server().api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let path = format!("/api/v1/hosts/{path}");
        conformance::check_answer("GET", &path, response.status().as_u16(), &Value::Null);
        response
    }

    /// Opens a WebSocket with these headers of a caller, or returns the refusal.
    async fn open(&self, path: &str, caller: Headers<'_>) -> Result<Socket, (u16, Value)> {
        let key = generate_key();
        let usual = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        let headers: Vec<(&str, &str)> = usual
            .into_iter()
            .chain([("sec-websocket-key", key.as_str())])
            .chain(caller.iter().copied())
            .collect();
        let response = self.request(path, &headers).await;
        if response.status() != 101 {
            return Err((response.status().as_u16(), response.json().await.unwrap()));
        }
        Ok(WebSocketStream::from_raw_socket(response.upgrade().await.unwrap(), End::Client, None).await)
    }

    async fn open_as(&self, token: &Token, path: &str) -> Result<Socket, (u16, Value)> {
        self.open(path, &[("authorization", &format!("Bearer {}", token.reveal()))]).await
    }

    async fn refused(&self, token: &Token, path: &str) -> (u16, String, String) {
        let (status, problem) = self.open_as(token, path).await.expect_err("a refusal");
        let text = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        (status, text("code"), text("detail"))
    }

    /// Logs a new user in, and returns the cookie.
    async fn user(&self, name: &str) -> String {
        let user = json!({ "name": name, "role": "operator", "password": PASSWORD });
        self.call("POST", "/users", user).await;
        let session = self.http.post(format!("http://{}/api/v1/session", self.server().api));
        let login = session.json(&json!({ "name": name, "password": PASSWORD })).send().await.unwrap();
        login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    async fn grant(&self, body: Value) -> String {
        self.call("POST", "/grants", body).await["id"].as_str().unwrap().to_owned()
    }

    /// Returns the newest event of this kind, when there is one.
    async fn event(&self, kind: &str) -> Value {
        let begin = Instant::now();
        loop {
            let log = self.call("GET", &format!("/audit?kind={kind}"), Value::Null).await;
            if let Some(event) = log["items"].as_array().and_then(|items| items.first()) {
                return event.clone();
            }
            assert!(begin.elapsed() < PATIENCE, "no {kind}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn send(
    http: &reqwest::Client,
    server: &Server,
    token: &Token,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let method = method.parse().unwrap();
    let request = http.request(method, format!("http://{}/api/v1{path}", server.api));
    let request = if body.is_null() { request } else { request.json(&body) };
    let response = request.bearer_auth(token.reveal()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// Sends back what it receives, and ends when the other side does.
fn echo() -> Service {
    Arc::new(|mut stream| {
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    })
}

fn silence() -> Service {
    Arc::new(|mut stream| {
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {}
        });
    })
}

fn deafness() -> Service {
    Arc::new(|mut stream| {
        tokio::spawn(async move {
            let _ = stream.shutdown().await;
            std::future::pending::<()>().await;
        });
    })
}

/// Returns all bytes up to the last message, whether the host's end was among them, and that message.
async fn rest(socket: &mut Socket) -> (Vec<u8>, bool, u16, String) {
    let (mut bytes, mut ended) = (Vec::new(), false);
    let reading = async {
        loop {
            match socket.next().await.expect("a last message").expect("a message") {
                Message::Binary(more) if more.is_empty() => ended = true,
                Message::Binary(more) => bytes.extend_from_slice(&more),
                Message::Close(frame) => {
                    let frame = frame.expect("a reason");
                    return (frame.code.into(), frame.reason.to_string());
                }
                _ => {}
            }
        }
    };
    let (code, reason) = tokio::time::timeout(PATIENCE, reading).await.expect("in time");
    (bytes, ended, code, reason)
}

fn binary(bytes: &[u8]) -> Message {
    Message::Binary(bytes.to_vec().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_until_both_sides_end_and_the_audit_has_them() {
    let site = Site::new().await;
    let socket = site.open_as(&site.operator, "cam-07/connect?port=80").await.unwrap();
    let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let (mut sink, source) = socket.split();
    let writing = async {
        for chunk in sent.chunks(64 * 1024) {
            sink.send(binary(chunk)).await.unwrap();
        }
        sink.send(binary(&[])).await.unwrap();
        sink
    };
    let reading = async {
        let mut source = source;
        let mut back = Vec::new();
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(more) => back.extend_from_slice(&more),
                Message::Close(frame) => return (back, frame),
                _ => {}
            }
        }
        panic!("no last message")
    };
    let both = async { tokio::join!(writing, reading) };
    let (_sink, (back, frame)) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
    assert_eq!(u16::from(frame.unwrap().code), close_code::NORMAL);
    let (opened, closed) = (site.event("stream.opened").await, site.event("stream.closed").await);
    assert_eq!((&opened["object_name"], &opened["data"]["port"]), (&json!("cam-07"), &json!(80)));
    assert_eq!((&opened["data"]["id"], &opened["principal"]), (&closed["data"]["id"], &closed["principal"]));
    let data = &closed["data"];
    assert_eq!((&data["sent_bytes"], &data["received_bytes"]), (&json!(300_000), &json!(300_000)));
    assert_eq!(data["why"], "closed", "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_needs_a_role_a_scope_a_grant_and_a_host_that_answers() {
    let site = Site::new().await;
    let viewer = site.refused(&site.viewer, "cam-07/connect?port=80").await;
    assert_eq!((viewer.0, viewer.1.as_str()), (403, "role_missing"));
    let store = &site.server().state.store;
    let limited = bearer(store, Id::from_i64(77), Role::Admin, vec!["devices".to_owned()]).await;
    let limited = site.refused(&limited, "cam-07/connect?port=80").await;
    assert_eq!((limited.0, limited.1.as_str()), (403, "scope_missing"));
    for (path, status, code, words) in [
        (
            "cam-07/connect?port=7",
            403,
            "not_granted",
            "`fleetgate grant add --role operator --to cam-07 --tcp 7`",
        ),
        ("nas-07/connect?port=80", 403, "not_granted", "no grant permits it"),
        ("nope/connect?port=80", 404, "not_found", "nope"),
        ("cam-07/connect?port=443", 502, "not_connected", "cam-07 TCP 443: the host refuses the connection"),
        ("ghost/connect?port=22", 503, "tunnel_down", "ghost has no tunnel now"),
        ("cam-07/connect?port=0", 400, "bad_query", "1 to 65535"),
        ("cam-07/connect", 400, "bad_query", "port"),
    ] {
        let (got, problem, detail) = site.refused(&site.operator, path).await;
        assert_eq!((got, problem.as_str()), (status, code), "{path}: {detail}");
        assert!(detail.contains(words), "{path}: {detail}");
    }
    let bearer = format!("Bearer {}", site.operator.reveal());
    let plain = site.request("cam-07/connect?port=80", &[("authorization", &bearer)]).await;
    assert_eq!(plain.status(), 426);
    let log = site.call("GET", "/audit?kind=stream", Value::Null).await;
    assert_eq!(log["items"], json!([]), "none was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_opens_after_a_restore_until_an_admin_has_confirmed() {
    let site = Site::new().await;
    fixture::restored(&site.server().state.store, crate::clock::wall()).await;
    let (status, code, detail) = site.refused(&site.operator, "cam-07/connect?port=80").await;
    assert_eq!((status, code.as_str()), (503, "restore_unconfirmed"), "{detail}");
    let restored_at = site.call("GET", "/restore-review", Value::Null).await["restored_at"].clone();
    site.call("POST", "/restore-review/confirm", json!({ "restored_at": restored_at })).await;
    assert!(site.open_as(&site.operator, "cam-07/connect?port=80").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_opens_nothing_with_the_cookie_of_a_user() {
    let site = Site::new().await;
    let cookie = site.user("anna").await;
    let own = format!("http://{}", site.server().api);
    let open = async |origin: Headers<'_>| {
        let headers: Vec<(&str, &str)> =
            [("cookie", cookie.as_str())].into_iter().chain(origin.iter().copied()).collect();
        site.open("cam-07/connect?port=80", &headers)
            .await
            .map_err(|(status, problem)| (status, problem["code"].clone()))
    };
    let refused = Some((403, json!("cross_site")));
    assert_eq!(open(&[("origin", "https://evil.example")]).await.err(), refused);
    assert_eq!(open(&[("origin", "null")]).await.err(), refused);
    assert_eq!(open(&[]).await.err(), refused, "no origin at all");
    assert_eq!(open(&[("origin", &own), ("sec-fetch-site", "cross-site")]).await.err(), refused);
    assert!(open(&[("origin", &own)]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_when_its_grant_is_withdrawn_and_when_its_login_ends() {
    let site = Site::new().await;
    let cookie = site.user("anna").await;
    let own = format!("http://{}", site.server().api);
    let caller: Headers<'_> = &[("cookie", &cookie), ("origin", &own)];
    let access = json!([{ "protocol": "tcp", "ports": [7] }]);
    let body = json!({ "source": { "user": "anna" }, "target": { "host": "nas-07" }, "access": access });
    let grant = site.grant(body).await;
    let mut socket = site.open("nas-07/connect?port=7", caller).await.expect("granted");
    socket.send(binary(b"hello")).await.unwrap();
    let other = site.refused(&site.operator, "nas-07/connect?port=7").await;
    assert_eq!(other.1, "not_granted", "a token has the grants of its role alone");

    site.call("DELETE", &format!("/grants/{grant}"), Value::Null).await;
    let (_, _, code, reason) = rest(&mut socket).await;
    assert_eq!((code, reason.as_str()), (close_code::POLICY, "no grant permits it"));
    let closed = site.event("stream.closed").await;
    assert_eq!((&closed["data"]["why"], &closed["principal"]), (&json!("not_granted"), &json!("user:anna")));
    assert_eq!(
        (&closed["data"]["sent_bytes"], &closed["data"]["address"]),
        (&json!(5), &json!("192.168.1.5"))
    );

    let mut socket = site.open("cam-07/connect?port=80", caller).await.expect("by default");
    site.call("PATCH", "/users/anna", json!({ "disabled": true })).await;
    let (_, _, code, reason) = rest(&mut socket).await;
    assert_eq!(code, close_code::POLICY, "{reason}");
    assert!(reason.contains("log in again"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_has_not_taken_yet_is_cut_with_the_right() {
    let site = Site::new().await;
    let access = json!([{ "protocol": "tcp", "ports": [9] }]);
    let body = json!({ "source": { "role": "operator" }, "target": { "host": "cam-07" }, "access": access });
    let grant = site.grant(body).await;
    let mut socket = site.open_as(&site.operator, "cam-07/connect?port=9").await.expect("granted");
    // The tunnel and the host hold 32 KiB each. So the tunnel takes all of it, and the host never does.
    socket.send(binary(&[7; 48 * 1024])).await.unwrap();
    socket.send(binary(&[])).await.unwrap();
    let (_, ended, code, reason) = rest(&mut socket).await;
    assert!(ended && code == close_code::NORMAL, "{code} {reason}");
    site.call("DELETE", &format!("/grants/{grant}"), Value::Null).await;
    let closed = site.event("stream.closed").await;
    assert_eq!(closed["data"]["why"], "not_granted", "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_user_has_the_grants_of_the_user_and_is_cut_with_the_user() {
    let site = Site::new().await;
    let token = async |user: &str, role: &str| {
        site.call("POST", "/users", json!({ "name": user, "role": role, "password": PASSWORD })).await;
        let made = site.call("POST", "/tokens", json!({ "name": "laptop", "user": user })).await;
        let principal = format!("user:{user}/{}", made["token"]["id"].as_str().unwrap());
        (made["secret"].as_str().unwrap().parse::<Token>().unwrap(), principal)
    };
    let (anna, principal) = token("anna", "operator").await;
    let access = json!([{ "protocol": "tcp", "ports": [7] }]);
    let body = json!({ "source": { "user": "anna" }, "target": { "host": "nas-07" }, "access": access });
    assert_eq!(site.refused(&anna, "nas-07/connect?port=7").await.1, "not_granted");
    site.grant(body).await;
    let mut socket = site.open_as(&anna, "nas-07/connect?port=7").await.expect("granted to the user");
    let begin = Instant::now();
    site.call("PATCH", "/users/anna", json!({ "disabled": true })).await;
    let (_, _, code, reason) = rest(&mut socket).await;
    assert_eq!((code, reason.as_str()), (close_code::POLICY, "the user anna of this token is disabled"));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let closed = site.event("stream.closed").await;
    assert_eq!((&closed["principal"], &closed["data"]["why"]), (&json!(principal), &json!("login_over")));
    site.call("PATCH", "/users/anna", json!({ "disabled": false })).await;
    let mut socket = site.open_as(&anna, "nas-07/connect?port=7").await.expect("enabled again");
    site.call("DELETE", "/users/anna", Value::Null).await;
    assert_eq!(rest(&mut socket).await.2, close_code::POLICY);

    // An admin who becomes an operator keeps nothing by the grants of admins.
    let (bob, _) = token("bob", "admin").await;
    site.call("DELETE", "/grants/operators", Value::Null).await;
    let mut socket = site.open_as(&bob, "cam-07/connect?port=80").await.expect("by the default grant");
    site.call("PATCH", "/users/bob", json!({ "role": "operator" })).await;
    let (_, _, code, reason) = rest(&mut socket).await;
    assert!(code == close_code::POLICY && reason.ends_with("has another role now"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_no_broken_connection() {
    let site = Site::new().await;
    let mut socket = site.open_as(&site.operator, "cam-07/connect?port=80").await.expect("by default");
    socket.send(binary(&[7; 70_000])).await.unwrap();
    // The rest of the message is not read, so that a reset may overtake the last message.
    assert_eq!(site.event("stream.closed").await["data"]["why"], "bad_message");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_recorded_at_once_is_recorded_later() {
    let site = Site::new().await;
    let store = site.server().state.store.clone();
    let mut socket = site.open_as(&site.operator, "cam-07/connect?port=80").await.expect("by default");
    site.event("stream.opened").await;
    let locked = store.begin().await.unwrap();
    socket.close(None).await.unwrap();
    // A second for the client to close, and then longer than a write waits.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(locked);
    assert_eq!(site.event("stream.closed").await["data"]["why"], "client_gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_grants_begin_and_end_on_time_and_none_is_added() {
    let site = Site::new().await;
    site.user("anna").await;
    let turn = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6)).to_string();
    let to_nas = |source: Value, port: u16| {
        json!({ "source": source, "target": { "host": "nas-07" },
            "access": [{ "protocol": "tcp", "ports": [port] }] })
    };
    let mut first = to_nas(json!({ "role": "operator" }), 7);
    first["until"] = json!(turn);
    site.grant(first).await;
    let mut second = to_nas(json!({ "user": "anna" }), 80);
    second["from"] = json!(turn);
    site.grant(second).await;
    let explained = "/explain?from=anna&to=nas-07&protocol=tcp&port=80";
    let mut socket = site.open_as(&site.operator, "nas-07/connect?port=7").await.expect("granted");
    site.event("stream.opened").await;

    let locked = site.server().state.store.begin().await.unwrap();
    assert_eq!(site.call("GET", explained, Value::Null).await["result"], "not_yet");
    let third = to_nas(json!({ "user": "anna" }), 81);
    let adding = send(&site.http, site.server(), &site.admin, "POST", "/grants", third);
    let ((status, refusal), (_, _, code, reason)) = tokio::join!(adding, rest(&mut socket));
    assert_eq!((status, code), (503, close_code::POLICY), "{refusal} {reason}");
    assert_eq!(site.call("GET", explained, Value::Null).await["permitted"], true);
    drop(locked);
    assert_eq!(site.event("stream.closed").await["data"]["why"], "not_granted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_removed_takes_its_connections_with_it() {
    let site = Site::new().await;
    let body = json!({ "source": { "role": "operator" }, "target": { "host": "nas-07" },
        "access": [{ "protocol": "tcp", "ports": [80] }] });
    site.grant(body).await;
    let mut socket = site.open_as(&site.operator, "nas-07/connect?port=80").await.expect("granted");
    socket.send(binary(b"ping")).await.unwrap();
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time").unwrap().unwrap();
        if message == binary(b"ping") {
            break;
        }
    }
    site.call("DELETE", "/hosts/nas-07", Value::Null).await;
    let (_, _, code, reason) = rest(&mut socket).await;
    assert_eq!((code, reason.as_str()), (close_code::POLICY, "the host was removed or has another way now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_leave_room_for_checks_and_a_stop_says_goodbye() {
    let mut site = Site::new().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(site.open_as(&site.operator, "cam-07/connect?port=80").await.expect("there is room"));
    }
    let (status, code, detail) = site.refused(&site.admin, "cam-07/connect?port=80").await;
    assert_eq!((status, code.as_str()), (429, "too_many_requests"), "{detail}");
    assert!(detail.contains("16 connections") && detail.contains("cam-07"), "{detail}");
    open.truncate(1);
    let begin = Instant::now();
    while site.open_as(&site.admin, "cam-07/connect?port=80").await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "the places stay taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    open[0].send(Message::Text("no bytes".into())).await.unwrap();
    assert_eq!(rest(&mut open[0]).await.2, close_code::UNSUPPORTED);

    let mut last = site.open_as(&site.operator, "cam-07/connect?port=80").await.expect("there is room");
    let server = site.server.take().unwrap();
    let stopped = tokio::spawn(server.stop());
    let (_, _, code, reason) = rest(&mut last).await;
    assert_eq!((code, reason.as_str()), (close_code::AWAY, "the gateway stops"));
    tokio::time::timeout(PATIENCE, stopped).await.expect("in time").unwrap();
}
