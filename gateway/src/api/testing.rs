//! A complete API in memory with typed callers, for the tests of this folder.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, header};
use axum::response::Response;
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, CommandEnd, CommandReply, EchoReply, Evidence, ExplainId, ForwardProbe, ForwardProbeReply,
    Input, MonitorInput, MonitorOutput, Output, Probe, ProbeReply, ProbeRequest, RemoteCommand, SshReply,
    SshRun,
};
use fleetgate_engine::monitor::Monitor;
use fleetgate_engine::time::Wall;
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{self, Tunnel};
use fleetgate_keys::{PrivateKey, SshKey, Token, TokenKind};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::document::conformance;
use super::request::ids;
use super::request::permission::Area;
use super::{AppState, Client, Identity, Parts, router};
use crate::config::Config;
use crate::demo::sensors::Sensors;
use crate::engine::handle::{Handle, QUEUE};
use crate::engine::live_state::LiveState;
use crate::history::{Keep, Recorder};
use crate::http::server::{self, HttpServer};
use crate::identity::ssh_ca::SshCa;
use crate::notification::{Notifications, Wakeups};
use crate::rental_events;
use crate::store::access::Role;
use crate::store::policy;
use crate::store::tokens::{self, ApiToken};
use crate::store::{Store, fixture};
use crate::tunnel::stream::Streams;
use crate::writer::Writer;

pub struct TestApi {
    pub state: AppState,
    pub tunnel: mpsc::Receiver<Command>,
    pub monitor: mpsc::Receiver<MonitorInput>,
    router: axum::Router,
    bearers: [Token; 3],
    _dir: TempDir,
}

impl TestApi {
    pub async fn new() -> TestApi {
        TestApi::with(|_| {}).await
    }

    /// Creates an API with changed settings.
    pub async fn with(change: impl FnOnce(&mut Config)) -> TestApi {
        let (store, dir) = fixture::store().await;
        let mut config = Config::load(dir.path(), None).unwrap();
        config.history = Keep::ALL;
        change(&mut config);
        let history = Recorder::open(store.clone(), config.history).await.unwrap();
        let live = LiveState::default();
        let (to_tunnel, tunnel) = mpsc::channel(QUEUE);
        let (to_monitor, monitor) = mpsc::channel(QUEUE);
        let handle =
            Handle::new(store.clone(), live.clone(), (config.timing, config.mtu), to_tunnel, to_monitor);
        let bearers = [
            unlimited(&store, Role::Viewer).await,
            unlimited(&store, Role::Operator).await,
            unlimited(&store, Role::Admin).await,
        ];
        let state = AppState::new(Parts {
            store,
            history,
            handle,
            live,
            office: Notifications::new(&config),
            rental_events: rental_events::Wakeups::default(),
            streams: Streams::new(mpsc::unbounded_channel().0).0,
            config,
            identity: identity(),
            ssh_ca: Arc::new(SshCa::of(&gateway_key()).unwrap()),
            udp_port: 51_820,
            api: ([127, 0, 0, 1], 8_080).into(),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            shutdown: CancellationToken::new(),
        });
        let router = router(state.clone());
        TestApi { state, tunnel, monitor, router, bearers, _dir: dir }
    }

    /// Creates an API with an endpoint for devices.
    pub async fn with_endpoint() -> TestApi {
        TestApi::with(|config| config.endpoint = "vpn.example.net:51820".parse().ok()).await
    }

    /// Starts a real monitor and the real writer, which run as long as the tasks. The monitor's
    /// probes get no reply.
    pub fn start_monitor(&mut self) -> JoinSet<()> {
        self.start_monitor_of(None)
    }

    /// Starts them for a fleet whose devices are up and whose sensors return these values.
    pub fn start_monitor_of(&mut self, sensors: Option<Sensors>) -> JoinSet<()> {
        let inputs = std::mem::replace(&mut self.monitor, mpsc::channel(1).1);
        let mut tasks = JoinSet::new();
        let (store, live) = (self.state.store.clone(), self.state.live.clone());
        let history = self.state.history.clone();
        let writer = Writer::start(&mut tasks, store, live, Wakeups::default(), history);
        tasks.spawn(watch(inputs, writer, sensors));
        tasks
    }

    /// Answers probes of forwarding from now on, and hands in what was asked for. Other commands are taken
    /// and forgotten.
    pub fn answer_probes(&mut self, reply: ForwardProbeReply) -> mpsc::UnboundedReceiver<ForwardProbe> {
        let mut tunnel = std::mem::replace(&mut self.tunnel, mpsc::channel(1).1);
        let probes = self.state.handle.forward_probes().clone();
        let (asked, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(command) = tunnel.recv().await {
                if let Command::ForwardProbe(ExplainId(number), probe) = command {
                    let _ = asked.send(probe);
                    probes.answer(number, reply);
                }
            }
        });
        received
    }

    /// Starts a real tunnel without a socket, with the policy of the database: its packet filter answers questions.
    pub async fn start_tunnel(&mut self) {
        let mut commands = std::mem::replace(&mut self.tunnel, mpsc::channel(1).1);
        let config = tunnel::Config {
            pool_v4: self.state.config.pool_v4,
            pool_v6: self.state.config.pool_v6,
            results_port: self.state.config.results_port,
        };
        let noise = BoringNoise::new(&PrivateKey::from_bytes([0xfe; 32]), [1; 32]);
        let mut tunnel = Tunnel::new(config, noise, [2; 32]);
        let mut conn = self.state.store.reader().await.unwrap();
        let policy = policy::all(&mut conn, crate::clock::wall()).await.unwrap().changes;
        tunnel.handle(Input::Command(Command::Policy(policy)), crate::clock::now());
        let answers = self.state.handle.explanations().clone();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                tunnel.handle(Input::Command(command), crate::clock::now());
                loop {
                    match tunnel.poll_output() {
                        Output::Explanation(ExplainId(number), found) => answers.answer(number, found),
                        Output::Wait(..) => break,
                        _ => {}
                    }
                }
            }
        });
    }

    /// Returns the next command for the tunnel that is no change of the policy.
    pub fn tunnel_command(&mut self) -> Option<Command> {
        loop {
            match self.tunnel.try_recv().ok()? {
                Command::Policy(_) => {}
                command => return Some(command),
            }
        }
    }

    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// Serves on a real socket until the test ends.
    pub async fn serve(&self, router: axum::Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let house = HttpServer::new(router, server::Limits::default(), self.state.shutdown.clone());
        tokio::spawn(house.serve_tcp(listener, None, Vec::new()));
        address
    }

    pub fn anonymous(&self) -> Caller<'_> {
        Caller {
            api: self,
            headers: HeaderMap::new(),
            client: Client::Remote(([192, 0, 2, 1], 4_000).into()),
        }
    }

    pub fn viewer(&self) -> Caller<'_> {
        self.anonymous().bearer(self.bearers[0].reveal())
    }

    /// Returns a token for callers outside this router.
    pub fn viewer_token(&self) -> &str {
        self.bearers[0].reveal()
    }

    pub fn operator_token(&self) -> &str {
        self.token(Role::Operator)
    }

    /// Returns a token of a role, for callers outside this router.
    pub fn token(&self, role: Role) -> &str {
        self.bearers[role as usize].reveal()
    }

    pub fn operator(&self) -> Caller<'_> {
        self.anonymous().bearer(self.bearers[1].reveal())
    }

    pub fn admin(&self) -> Caller<'_> {
        self.anonymous().bearer(self.bearers[2].reveal())
    }

    /// Returns a caller with a token limited to one area.
    pub async fn limited(&self, role: Role, area: Area) -> Caller<'_> {
        let id = ids::new_id(crate::clock::wall());
        let token = bearer(&self.state.store, id, role, vec![area.to_string()]).await;
        self.anonymous().bearer(token.reveal())
    }
}

async fn watch(mut inputs: mpsc::Receiver<MonitorInput>, writer: Writer, sensors: Option<Sensors>) {
    let mut monitor = Monitor::new(fleetgate_engine::monitor::Config::default(), 1);
    while let Some(input) = inputs.recv().await {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            monitor.handle(input, crate::clock::now());
            let mut records = Vec::new();
            loop {
                match monitor.poll_output() {
                    MonitorOutput::Record(record) => records.push(record),
                    MonitorOutput::ProbeRequest(ask) => {
                        inputs.extend(sensors.as_ref().map(|s| answer(ask, s)))
                    }
                    MonitorOutput::ProbeUplink
                    | MonitorOutput::HandedOver(_)
                    | MonitorOutput::FirstContact(_) => {}
                    MonitorOutput::Wait(..) => break,
                }
            }
            writer.append(records).await;
        }
    }
}

/// Returns the reply of a device that is up.
fn answer(ask: ProbeRequest, sensors: &Sensors) -> MonitorInput {
    let now = Some(crate::clock::now().mono);
    let took = Duration::from_millis(40);
    let answer = match ask.probe {
        Probe::Evidence { .. } => ProbeReply::Evidence(Evidence {
            last_packet: now,
            last_handshake: now,
            established: true,
            clock_skew_ms: Some(20),
            ..Evidence::default()
        }),
        Probe::Echo { count, .. } | Probe::LargeEcho { count, .. } => {
            ProbeReply::Echo(EchoReply { sent: count, rtts: vec![took; count.into()], failure: None })
        }
        Probe::Connect { .. } => ProbeReply::Connect(Ok(took)),
        Probe::Handshake { .. } => ProbeReply::Handshake(Ok(took)),
        Probe::Ssh { run, .. } => ProbeReply::Ssh(session(&run, sensors)),
    };
    MonitorInput::ProbeReply(ask.id, answer)
}

fn session(run: &SshRun, sensors: &Sensors) -> SshReply {
    let command = |command: &RemoteCommand| CommandReply {
        name: command.name.clone(),
        end: CommandEnd::Exit(0),
        stdout: sensors.answer(&command.line).unwrap_or_default().into_bytes(),
        stderr: Vec::new(),
        truncated: false,
        took: Duration::from_millis(40),
    };
    SshReply {
        identification: Some("SSH-2.0-OpenSSH_10.0".into()),
        host_key: run.pin.clone().or_else(|| Some("SHA256:own".into())),
        logged_in: run.user.is_some(),
        connect: Some(Duration::from_millis(80)),
        commands: run.commands.iter().map(command).collect(),
        ..SshReply::default()
    }
}

fn gateway_key() -> PrivateKey {
    PrivateKey::from_bytes([0xfe; 32])
}

fn identity() -> Identity {
    let ssh_public_key = SshKey::generate("fleetgate").public();
    Identity { public_key: gateway_key().public(), ssh_public_key }
}

async fn unlimited(store: &Store, role: Role) -> Token {
    bearer(store, ids::new_id(Wall::from_millis(role as i64)), role, Vec::new()).await
}

pub async fn bearer(store: &Store, id: Id, role: Role, scopes: Vec<String>) -> Token {
    let secret = Token::generate(TokenKind::Api, id);
    let token = ApiToken {
        id,
        name: role.to_string(),
        role,
        user: None,
        customer: None,
        scopes,
        created_by: "test".into(),
        created_at: crate::clock::wall(),
        expires_at: None,
        revoked_at: None,
        last_used_at: Some(crate::clock::wall()),
    };
    let mut tx = store.begin().await.unwrap();
    tokens::insert(&mut tx, &token, &secret.hash()).await.unwrap();
    tx.commit().await.unwrap();
    secret
}

/// A caller with its headers.
#[derive(Clone)]
pub struct Caller<'a> {
    api: &'a TestApi,
    headers: HeaderMap,
    client: Client,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null if the body is no JSON.
    pub json: Value,
}

impl Answer {
    /// Returns the code of a problem document.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

impl Caller<'_> {
    pub fn bearer(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: header::HeaderName = name.parse().unwrap();
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub fn by(self, client: Client) -> Self {
        Caller { client, ..self }
    }

    pub fn at_address(self, address: &str) -> Self {
        self.by(Client::Remote(SocketAddr::new(address.parse().unwrap(), 1)))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send_json("POST", path, body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send_json("PUT", path, body).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send_json("PATCH", path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, Body::empty()).await
    }

    async fn send_json(&self, method: &str, path: &str, body: Value) -> Answer {
        let caller = self.clone().header(header::CONTENT_TYPE.as_str(), "application/json");
        caller.send(method, path, Body::from(body.to_string())).await
    }

    pub async fn send(&self, method: &str, path: &str, body: Body) -> Answer {
        let (parts, body) = self.respond(method, path, body).await.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        conformance::check_answer(method, path, parts.status.as_u16(), &json);
        Answer { status: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    /// Sends a request and returns the response without waiting for its body, which may be endless.
    pub async fn respond(&self, method: &str, path: &str, body: Body) -> Response {
        let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(ConnectInfo(self.client));
        self.api.router().oneshot(request).await.unwrap()
    }
}
