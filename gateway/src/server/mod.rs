//! A running gateway: creates its parts, connects them, and stops them in order.
//!
//! Start: keys, sockets, store; then the engine, restored from the store before its thread reads the
//! first packet; then the API. Stop: the API first, then the monitor, the tunnels, the writer and the store.
//! `opened.rs` opens what a start needs, and `engine.rs` assembles the engine. This file knows only in
//! which order.

mod engine;
mod opened;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fleetgate_engine::time::Now;
use fleetgate_keys::Token;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{self, AppState};
use crate::clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::data_dir::start::{Reached, StartStep, restore_hint};
use crate::dns;
use crate::engine::live_state::LiveState;
use crate::first_start;
use crate::health::{memory, telemetry};
use crate::history::{self, Recorder};
use crate::http::server::{HttpServer, Limits, Tls};
use crate::identity::Identity;
use crate::maintenance::{
    clock_watch, housekeeping, other_devices, rental_allowances, rental_notices, rental_phases,
    rental_reports, rental_times, restore_notice, retention,
};
use crate::notification::{DeliveryTiming, Notifications, Settings};
use crate::rental_events;
use crate::rental_messages;
use crate::store::Store;
use crate::store::access::FirstAdmin;
use crate::store::files::{self, MAIN_FILE};
use crate::tunnel::stream::AcceptedStream;
use crate::watchdog;
use crate::watchdog::Components;
use crate::writer::Writer;

use engine::{Engine, Running};
use opened::Opened;

/// Time limit of a stop. Requests have [`Limits::grace`] of it, a mail in delivery 4 s, and the rest
/// ends in milliseconds. Anything that still runs then is cut off.
const STOP_PATIENCE: Duration = Duration::from_secs(6);
/// Time limit for a checkpoint of the databases on a slow card. Both limits together stay far below the
/// 10 s after which operators try `kill -9`.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

pub struct Server {
    pub state: AppState,
    pub identity: Arc<Identity>,
    pub udp_port: u16,
    pub api: SocketAddr,
    /// Set at the first start only, to be shown once.
    pub first_admin: Option<FirstAdmin>,
    stop_api: CancellationToken,
    stop_engine: CancellationToken,
    doors: JoinSet<()>,
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    writer: Writer,
    store: Store,
    data: DataDir,
}

impl Server {
    /// # Errors
    /// Names the obstacle and the remedy.
    pub async fn start(config: Config, data: DataDir) -> anyhow::Result<Server> {
        Server::start_noting(config, data, &|_| Ok(())).await
    }

    /// The same, with a callback: `reached` is called after each step of a first start, and its error ends
    /// the start.
    ///
    /// # Errors
    /// Those of [`Server::start`] and of `reached`.
    pub async fn start_noting(config: Config, data: DataDir, reached: Reached<'_>) -> anyhow::Result<Server> {
        let dir = data.path().to_owned();
        let started = async { Server::connect(Opened::new(config, data, reached).await?, reached).await };
        started.await.map_err(|error| match files::stems_from_damage(&error) {
            true => {
                error.context(format!("{} is damaged. {}", dir.join(MAIN_FILE).display(), restore_hint(&dir)))
            }
            false => error,
        })
    }

    /// Ends the first start, because the first login was shown. Until then each start shows it anew.
    ///
    /// # Errors
    /// Fails when the data directory cannot be written.
    pub fn login_shown(&self) -> anyhow::Result<()> {
        first_start::finish(self.data.path())
    }

    /// Whether a thread that must run for ever has ended.
    pub fn has_died(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Applies the settings that can change at runtime. Returns the names of those that differ and need a
    /// restart.
    ///
    /// # Errors
    /// Names the invalid setting; then nothing has changed.
    pub fn reload(&self, fresh: &Config) -> anyhow::Result<Vec<&'static str>> {
        self.state.office.change(Settings::from(fresh))?;
        telemetry::refilter(fresh.log_filter.as_deref());
        Ok(self.state.config.fixed_differences(fresh))
    }

    /// Returns the URL of a login that works once.
    pub fn login_url(&self, link: &Token) -> String {
        format!("{}/login#{}", self.state.base_url(), link.reveal())
    }

    /// Stops everything in order. Acknowledged changes are on disk. The databases are closed even when
    /// another part hangs.
    pub async fn stop(mut self) {
        in_time("a request, a mail or the engine", STOP_PATIENCE, self.wind_down()).await;
        self.doors.shutdown().await;
        self.tasks.shutdown().await;
        in_time("a database", CLOSE_PATIENCE, self.store.close()).await;
        let _ = std::fs::remove_file(self.data.socket());
    }

    async fn wind_down(&mut self) {
        self.stop_api.cancel();
        // Requests in progress may still change something, so the engine and the writer outlive the API.
        all(&mut self.doors).await;
        self.state.streams_ended().await;
        self.stop_engine.cancel();
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().for_each(|t| drop(t.join()));
        let _ = tokio::task::spawn_blocking(join).await;
        self.writer.finish().await;
        all(&mut self.tasks).await;
    }
}

async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn in_time(what: &str, patience: Duration, end: impl Future<Output = ()>) {
    if tokio::time::timeout(patience, end).await.is_err() {
        tracing::warn!("{what} did not end within {} s; ending anyway", patience.as_secs());
    }
}

impl Server {
    /// Creates the parts and connects them.
    async fn connect(opened: Opened, reached: Reached<'_>) -> anyhow::Result<Server> {
        let Opened { config, data, identity, sockets, store, is_first } = opened;
        let (udp_port, api) = (sockets.udp.local_addr()?.port(), sockets.api.local_addr()?);
        let (stop_api, stop_engine) = (CancellationToken::new(), CancellationToken::new());
        // A start that fails below leaves no thread behind that writes.
        let cleanup = [stop_api.clone().drop_guard(), stop_engine.clone().drop_guard()];
        let (mut tasks, live) = (JoinSet::new(), LiveState::default());

        let recorder = Recorder::open(store.clone(), config.history).await?;
        let office = Notifications::new(&config);
        office.start(&mut tasks, store.clone(), recorder.clone(), live.clone(), stop_api.clone())?;
        let wakeups = office.wakeups.clone();
        let writer = Writer::start(&mut tasks, store.clone(), live.clone(), wakeups, recorder.clone());
        let begun = clock::now();
        let rental_events = rental_events::Wakeups::default();
        let records = (&writer, &rental_events);
        let engine = Engine::new(&mut tasks, &config, &identity, &store, &live, records);
        let Running { handle, threads, streams, results, page, names, rental_phases: known } =
            engine.start(&mut tasks, sockets.udp, &stop_api, &stop_engine).await?;
        let state = AppState::new(api::Parts {
            store: store.clone(),
            history: recorder,
            handle,
            live,
            office,
            rental_events,
            streams,
            config,
            identity: api::Identity::from(&*identity),
            ssh_ca: Arc::clone(&identity.ssh_ca),
            udp_port,
            api,
            metrics: telemetry::metrics(),
            shutdown: stop_api.clone(),
        });
        look_after(&mut tasks, &state, &writer, begun, &stop_api).await?;
        let (parts, rentals) = ((store.clone(), state.handle.clone()), (known, state.rental_events.clone()));
        rental_phases::start(&mut tasks, parts, rentals, stop_api.clone());
        let parts = (store.clone(), state.history.clone(), state.handle.clone());
        history::forecasts::start(&mut tasks, parts, stop_api.clone());
        let mut doors = serve(&state, sockets.api, sockets.local, stop_api.clone())?;
        serve_tunnels(&mut doors, &state, (results, page), &stop_api);
        if let Some(dns) = &state.config.dns {
            dns::start(&mut doors, names, state.handle.clone(), &dns.resolvers, &stop_api);
        }
        reached(StartStep::Engine)?;
        // Last, so that a start that fails before it has not created a login which it never shows.
        let first_admin = store.ensure_first_admin(clock::wall(), is_first).await?;
        reached(StartStep::Administrator)?;
        let _ = cleanup.map(DropGuard::disarm);
        Ok(Server {
            state,
            identity,
            udp_port,
            api,
            first_admin,
            stop_api,
            stop_engine,
            doors,
            tasks,
            threads,
            writer,
            store,
            data,
        })
    }
}

/// Starts the background tasks: the heartbeat, pending changes for the engine, the clock, the removal of
/// expired data, the history, the events, allowances, messages and reports of rentals, metrics and memory.
async fn look_after(
    tasks: &mut JoinSet<()>,
    state: &AppState,
    writer: &Writer,
    begun: Now,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    watchdog::start(tasks, components(state, writer), state.office.listen(), stop.clone())?;
    tasks.spawn(state.handle.clone().keep_up(stop.clone()));
    let watch = clock_watch::Parts {
        store: state.store.clone(),
        live: state.live.clone(),
        handle: state.handle.clone(),
        wakeups: state.office.wakeups.clone(),
    };
    clock_watch::start(tasks, watch, begun, stop.clone()).await?;
    restore_notice::notify_once(&state.store, &state.live, &state.office.wakeups).await;
    record_history(tasks, state, stop);
    let (store, live) = (state.store.clone(), state.live.clone());
    let traffic_days = state.config.traffic_days;
    housekeeping::start(tasks, store, live, state.handle.clone(), traffic_days, stop.clone());
    rental_reports::start(tasks, state.store.clone(), api::rentals::report::freeze, stop.clone());
    let app = state.clone();
    other_devices::start(tasks, move || api::rentals::swap_delayed(app.clone()), stop.clone());
    retention::start(tasks, state.store.clone(), state.config.retention, stop.clone());
    let parts = (state.store.clone(), state.handle.clone());
    rental_times::start(tasks, parts.clone(), state.rental_events.clone(), stop.clone());
    rental_allowances::start(tasks, parts, state.rental_events.clone(), stop.clone());
    let deliveries = rental_events::Parts {
        store: state.store.clone(),
        live: state.live.clone(),
        wakeups: state.rental_events.clone(),
        outbound: state.config.outbound.clone(),
        body: api::rentals::event_body,
    };
    rental_events::start(tasks, deliveries, rental_events::SubscriptionTiming::default(), stop.clone())?;
    rental_notices::start(tasks, state.store.clone(), stop.clone());
    let (store, settings) = (state.store.clone(), state.office.listen());
    rental_messages::start(tasks, store, settings, DeliveryTiming::default(), stop.clone())?;
    telemetry::keep_up(tasks, state.metrics.clone(), stop.clone());
    memory::start(tasks, stop.clone());
    Ok(())
}

/// Starts the tasks of the history, and the looks at the disk that it needs.
fn record_history(tasks: &mut JoinSet<()>, state: &AppState, stop: &CancellationToken) {
    let (health, disk) = (state.live.health(), state.config.disk);
    let limits = history::disk::Limits { history: disk.history, reserve: disk.reserve };
    history::disk::start(tasks, state.history.clone(), health.clone(), limits, stop.clone());
    state.history.start(tasks, health.clone(), stop.clone());
}

/// The components that the heartbeat examines.
fn components(state: &AppState, writer: &Writer) -> Components {
    Components {
        pulse: state.live.pulse().clone(),
        handle: state.handle.clone(),
        writer: writer.clone(),
        wakeups: state.office.wakeups.clone(),
    }
}

/// Opens the listeners of the API.
fn serve(
    state: &AppState,
    tcp: TcpListener,
    local: UnixListener,
    stop: CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let house = HttpServer::new(api::router(state.clone()), Limits::default(), stop);
    let tls = state.config.tls.as_ref().map(Tls::open).transpose()?;
    let mut doors = JoinSet::new();
    doors.spawn(house.clone().serve_local(local));
    doors.spawn(house.serve_tcp(tcp, tls, state.config.trusted_proxies.clone()));
    Ok(doors)
}

/// Opens the listeners inside the tunnels: for the results of devices, and for the page of renters.
fn serve_tunnels(
    doors: &mut JoinSet<()>,
    state: &AppState,
    (results, page): (mpsc::Receiver<AcceptedStream>, mpsc::Receiver<AcceptedStream>),
    stop: &CancellationToken,
) {
    let of = |routes| HttpServer::new(routes, Limits::default(), stop.clone());
    let devices = of(api::tunnel_api::router(state.clone()));
    doors.spawn(devices.serve_tunnels(results, api::Client::Device));
    let renters = of(api::rentals::mine::page::router(state.clone()));
    doors.spawn(renters.serve_tunnels(page, api::Client::Renter));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fleetgate_engine::forecast::Basis;
    use reqwest::Method;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::data_dir;
    use crate::store::forecasts::{self, Stored};

    async fn started(dir: &std::path::Path) -> Server {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = DataDir::open(dir).unwrap();
        let mut config = Config::load(dir, None).unwrap();
        (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
        Server::start(config, data).await.unwrap()
    }

    /// Logs the first administrator in.
    async fn cookie(server: &Server) -> String {
        let link = server.first_admin.as_ref().expect("the first start").link.reveal().to_owned();
        let http = reqwest::Client::new();
        let session = http.post(format!("http://{}/api/v1/session", server.api));
        let answer = session.json(&serde_json::json!({ "link": link })).send().await.unwrap();
        answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// A dashboard's event stream whose beginning was read.
    async fn listener(server: &Server) -> TcpStream {
        let cookie = cookie(server).await;
        let mut stream = TcpStream::connect(server.api).await.unwrap();
        let ask =
            format!("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nx-fleetgate: 1\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stream
    }

    async fn call(server: &Server, cookie: &str, (method, path): (Method, &str), body: Value) -> Value {
        let url = format!("http://{}/api/v1{path}", server.api);
        let ask = reqwest::Client::new().request(method, url).header("cookie", cookie);
        let answer = ask.header("x-fleetgate", "1").json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_result_after_a_start_has_its_forecast() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        std::fs::write(dir.path().join("fleetgate.toml"), "endpoint = \"gw.example.org:51820\"\n").unwrap();
        let server = started(dir.path()).await;
        let cookie = cookie(&server).await;
        let made =
            call(&server, &cookie, (Method::POST, "/devices"), serde_json::json!({ "name": "cam-07" })).await;
        let service = serde_json::json!({ "check": { "type": "passive" } });
        call(&server, &cookie, (Method::PUT, "/hosts/cam-07/services/store"), service).await;
        let now = clock::wall();
        let forecast = Stored {
            host: made["device"]["id"].as_str().unwrap()[2..].parse().unwrap(),
            service: "store".to_owned(),
            at: now,
            full_at: Some(now + Duration::from_secs(864_000)),
            full_since: None,
            text: String::new(),
            basis: Basis { from: 0, to: 1, peaks: 4, period_s: None, slope_per_day: 1.0, spread: 0.0 },
        };
        let mut tx = server.state.store.begin().await.unwrap();
        forecasts::write(&mut tx, &[forecast]).await.unwrap();
        tx.commit().await.unwrap();
        server.stop().await;
        let server = started(dir.path()).await;
        let result = serde_json::json!({ "exit_status": 0, "output": "filling | used=90%" });
        let path = "/hosts/cam-07/services/store/results";
        let taken = call(&server, &cookie, (Method::POST, path), result).await;
        let metrics = taken["service"]["metrics"].as_array().cloned().unwrap_or_default();
        let within = metrics.iter().find(|metric| metric["label"] == "full_within");
        let within = within.and_then(|metric| metric["value"].as_f64());
        assert!(within.is_some_and(|within| (860_000.0..=864_000.0).contains(&within)), "{taken:#}");
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_closes_the_databases_despite_slow_connections() {
        let dir = tempfile::tempdir().unwrap();
        let server = started(dir.path()).await;
        let mut stream = listener(&server).await;
        let mut half = TcpStream::connect(server.api).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
        let _silent = TcpStream::connect(server.api).await.unwrap();
        let mut local = UnixStream::connect(dir.path().join(data_dir::SOCKET)).await.unwrap();
        let post = b"POST /api/v1/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{";
        local.write_all(post).await.unwrap();
        let (store, begin) = (server.state.store.clone(), Instant::now());
        server.stop().await;
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        assert!(store.write.is_closed() && store.history.is_closed());
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the stream has ended");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reload_applies_changeable_settings_and_names_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let server = started(dir.path()).await;
        let mail = "[mail]\nhost = \"mx.example.org\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n";
        let write = |text: &str| {
            std::fs::write(dir.path().join("fleetgate.toml"), text).unwrap();
            Config::load(dir.path(), None)
        };
        let fresh =
            write(&format!("keepalive = 30\nlisten = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\n{mail}"))
                .unwrap();
        assert_eq!(server.reload(&fresh).unwrap(), ["keepalive"]);
        assert_eq!(server.state.office.settings().mail.unwrap().host, "mx.example.org");

        assert!(write("keepalive = \"often\"").is_err());
        let broken = write(&format!("{mail}ca = \"/nowhere/ca.pem\"\n"));
        let refused = broken.and_then(|fresh| server.reload(&fresh));
        assert!(format!("{:#}", refused.unwrap_err()).contains("mail.ca"));
        assert_eq!(server.state.office.settings().mail.unwrap().host, "mx.example.org");
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_with_the_key_of_another_backup_is_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        started(dir.path()).await.stop().await;
        Identity::open(other.path(), &|_| Ok(())).unwrap();
        let key = crate::data_dir::WIREGUARD_FILE;
        std::fs::copy(other.path().join(key), dir.path().join(key)).unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut config = Config::load(dir.path(), None).unwrap();
        (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
        let error = Server::start(config, data).await.err().unwrap().to_string();
        assert!(error.contains("fleetgate restore FILE"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_public_url_the_bound_port_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let server = started(dir.path()).await;
        let port = server.api.port();
        assert!(port != 0 && server.state.base_url() == format!("http://127.0.0.1:{port}"));
        server.stop().await;
    }
}
