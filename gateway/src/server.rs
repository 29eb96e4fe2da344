//! A running gateway: creates its parts, connects them, and stops them in order.
//!
//! Start: keys, store, the engine restored from the store, *then* the UDP socket, then the API. Stop:
//! the API first, then the monitor, the tunnels, the writer and the store.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::{
    Command, DnsClient, DnsId, ExplainId, Input, MonitorInput, PolicyChange, TunnelEvent,
};
use fleetgate_engine::monitor::{self, Monitor};
use fleetgate_engine::time::Now;
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{self, MAX_RETIRED, Tunnel};
use fleetgate_keys::Token;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{self, AppState};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::dns;
use crate::engine::handle::{Handle, QUEUE};
use crate::engine::live_state::LiveState;
use crate::first_start;
use crate::first_start::{Found, Reached, Step};
use crate::health::{memory, telemetry};
use crate::http::server::{HttpServer, Limits, Tls};
use crate::identity::Identity;
use crate::identity::continuity;
use crate::identity::continuity::Known;
use crate::maintenance::forwarded::FlowLog;
use crate::maintenance::{clock_watch, housekeeping, retention};
use crate::monitor::ProbeExecutor;
use crate::monitor::ssh;
use crate::monitor::ssh::SshClient;
use crate::monitor::uplink_probe;
use crate::notification::{Notifications, Settings};
use crate::store::access::FirstAdmin;
use crate::store::files::{self, MAIN_FILE};
use crate::store::policy::{self, PolicyRows};
use crate::store::{Store, addresses, settings};
use crate::tunnel::stream::{AcceptedStream, Arrivals, Streams};
use crate::tunnel::thread;
use crate::tunnel::thread::TunnelOutputs;
use crate::tunnel::udp;
use crate::tunnel::udp::SocketStats;
use crate::watchdog;
use crate::watchdog::Components;
use crate::writer::{MemoryUpdate, Writer};
use crate::{backup, clock};

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

/// The sockets that a start needs. They are bound first, so that a busy port changes nothing.
struct Sockets {
    udp: std::net::UdpSocket,
    api: TcpListener,
    local: UnixListener,
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
        let started = async { Opened::new(config, data, reached).await?.start(reached).await };
        started.await.map_err(|error| match files::stems_from_damage(&error) {
            true => error.context(format!(
                "{} is damaged. {}",
                dir.join(MAIN_FILE).display(),
                first_start::restore_hint(&dir)
            )),
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

impl Sockets {
    async fn bind(config: &Config, data: &DataDir) -> anyhow::Result<Sockets> {
        let udp = udp::bind(config.listen)?;
        let api = TcpListener::bind(config.api_listen).await.with_context(|| {
            format!(
                "cannot listen for the API on TCP {}: is it in use? set api_listen to another",
                config.api_listen
            )
        })?;
        let path = data.socket();
        // The directory is locked, so an existing socket is left over from a killed gateway.
        let _ = std::fs::remove_file(&path);
        let local = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Sockets { udp, api, local })
    }
}

/// The resources that a start opens before any part runs.
struct Opened {
    config: Config,
    data: DataDir,
    identity: Arc<Identity>,
    sockets: Sockets,
    store: Store,
    is_first: bool,
}

impl Opened {
    async fn new(mut config: Config, data: DataDir, reached: Reached<'_>) -> anyhow::Result<Opened> {
        if backup::finish_restore(data.path())? {
            tracing::warn!(
                "a backup that was given takes effect; the gateway that was here lies in a folder beside"
            );
        }
        let is_first = first_start::examine(data.path()).await? == Found::FirstStart;
        if is_first {
            first_start::begin(data.path())?;
            reached(Step::Marked)?;
        }
        let identity = Arc::new(Identity::open(data.path(), reached)?);
        let sockets = Sockets::bind(&config, &data).await?;
        reached(Step::Sockets)?;
        let (store, lost) = Store::open_noticing(data.path(), identity.seal_key(), is_first).await?;
        reached(Step::Databases)?;
        if let Some(stored) = continuity::stored_pools(&store, data.path()).await? {
            config.keep_pools(stored);
        }
        Known::of(&identity, config.pools()).keep(&store, data.path()).await?;
        reached(Step::Identity)?;
        if let Some(lost) = &lost {
            store.tell_of_lost_history(lost).await;
        }
        Ok(Opened { config, data, identity, sockets, store, is_first })
    }

    /// Creates the parts and connects them.
    async fn start(self, reached: Reached<'_>) -> anyhow::Result<Server> {
        let Opened { config, data, identity, sockets, store, is_first } = self;
        let live = LiveState::default();
        let (commands_in, commands) = mpsc::channel(QUEUE);
        let (inputs_in, inputs) = mpsc::channel(QUEUE);
        let handle = Handle::new(store.clone(), live.clone(), config.timing, commands_in, inputs_in);
        let (udp_port, api) = (sockets.udp.local_addr()?.port(), sockets.api.local_addr()?);
        let (stop_api, stop_engine) = (CancellationToken::new(), CancellationToken::new());
        // A start that fails below leaves no thread behind that writes.
        let cleanup = [stop_api.clone().drop_guard(), stop_engine.clone().drop_guard()];
        let mut tasks = JoinSet::new();

        let office = Notifications::new(&config);
        office.start(&mut tasks, store.clone(), live.clone(), stop_api.clone())?;
        let writer = Writer::start(
            &mut tasks,
            store.clone(),
            live.clone(),
            office.wakeups.clone(),
            config.history_keep,
        );
        let (outside, passage) = (Arc::new(Notify::new()), SocketStats::default());
        let flows = FlowLog::start(&mut tasks, store.clone());
        let engine = Engine {
            config: &config,
            identity: &identity,
            store: &store,
            live: &live,
            handle: &handle,
            writer: &writer,
            outside: &outside,
            passage: &passage,
            flows: &flows,
        };
        let begun = clock::now();
        let Running { threads, streams, arrivals, dns_forwards } =
            engine.start(sockets.udp, commands, inputs, stop_engine.clone()).await?;
        let uplink = config.uplink.clone();
        uplink_probe::start(&mut tasks, uplink, handle.clone(), passage, outside, stop_api.clone());
        let state = AppState::new(api::Parts {
            store: store.clone(),
            handle,
            live,
            office,
            streams,
            config,
            identity: api::Identity::from(&*identity),
            udp_port,
            api,
            metrics: telemetry::metrics(),
            shutdown: stop_api.clone(),
        });
        look_after(&mut tasks, &state, &writer, begun, &stop_api).await?;
        let mut doors = serve(&state, sockets.api, sockets.local, arrivals.results, stop_api.clone())?;
        if let Some(dns) = &state.config.dns {
            let inbox = dns::Inbox { streams: arrivals.dns, forwards: dns_forwards };
            dns::start(&mut doors, inbox, state.handle.clone(), &dns.resolvers, &stop_api);
        }
        reached(Step::Engine)?;
        // Last, so that a start that fails before it has not created a login which it never shows.
        let first_admin = store.ensure_first_admin(clock::wall(), is_first).await?;
        reached(Step::Administrator)?;
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
/// expired data, metrics and memory.
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
    housekeeping::start(tasks, state.store.clone(), state.live.clone(), stop.clone());
    retention::start(tasks, state.store.clone(), state.config.retention, stop.clone());
    telemetry::keep_up(tasks, state.metrics.clone(), stop.clone());
    memory::start(tasks, stop.clone());
    Ok(())
}

/// The running engine, and what it passes to the rest.
struct Running {
    threads: Vec<JoinHandle<()>>,
    streams: Streams,
    arrivals: Arrivals,
    dns_forwards: mpsc::Receiver<(DnsClient, Vec<u8>)>,
}

struct Engine<'a> {
    config: &'a Config,
    identity: &'a Identity,
    store: &'a Store,
    live: &'a LiveState,
    handle: &'a Handle,
    writer: &'a Writer,
    outside: &'a Arc<Notify>,
    passage: &'a SocketStats,
    flows: &'a FlowLog,
}

impl Engine<'_> {
    async fn start(
        &self,
        socket: std::net::UdpSocket,
        commands: mpsc::Receiver<Command>,
        inputs: mpsc::Receiver<MonitorInput>,
        stop: CancellationToken,
    ) -> anyhow::Result<Running> {
        let (asks_in, asks) = mpsc::unbounded_channel();
        let (answers_in, answers) = mpsc::unbounded_channel();
        let (streams, arrivals) = Streams::new(asks_in.clone());
        let monitor = self.monitor().await?;
        self.allocate_aliases().await?;
        let tunnel = self.tunnel().await?;
        asks_in.send(Command::DialAll).context("the queue is new")?;

        let (forward, dns_forwards) = mpsc::channel(dns::QUEUE);
        let outputs = self.tunnel_outputs(answers_in.clone(), streams.clone(), forward);
        let limits = ssh::Limits {
            idle: self.config.ssh_idle,
            kept: self.config.ssh_connections,
            ..ssh::Limits::default()
        };
        let ssh = SshClient::new(&self.identity.ssh.to_openssh(), limits)?;
        let runtime = tokio::runtime::Handle::current();
        let (outbound, outside) = (self.config.outbound.clone(), self.outside.clone());
        let carrier =
            ProbeExecutor::new(asks_in, answers_in, streams.clone(), ssh, outbound, outside, runtime);
        let tunnels = thread::start(tunnel, socket, thread::Inbox { commands, asks }, outputs, stop.clone())?;
        let inbox = crate::monitor::Inbox { commands: inputs, answers };
        let monitors = crate::monitor::start(
            monitor,
            inbox,
            carrier,
            self.writer.clone(),
            self.live.pulse().clone(),
            stop,
        )?;
        Ok(Running { threads: vec![monitors, tunnels], streams, arrivals, dns_forwards })
    }

    async fn monitor(&self) -> anyhow::Result<Monitor> {
        let seed = u64::from_le_bytes(seed()?[..8].try_into().expect("32 bytes hold 8"));
        let usual = monitor::Config {
            interval: self.config.timing.interval,
            keepalive: Duration::from_secs(self.config.keepalive.into()),
            ..monitor::Config::default()
        };
        let mut monitor = Monitor::new(usual, seed);
        let mut conn = self.store.reader().await?;
        let ended = clock::wall() - monitor::KEPT_DOWNTIME;
        for downtime in crate::store::downtimes::open(&mut conn, ended).await? {
            monitor.handle(MonitorInput::Downtime(Box::new(downtime.plan)), clock::now());
        }
        if crate::store::events::was_cut_off(&mut conn).await? {
            monitor.handle(MonitorInput::RestoreUplinkLost, clock::now());
        }
        monitor.recall_incidents(crate::store::incidents::memories(&mut conn).await?, clock::now());
        drop(conn);
        let hosts = self.store.all_hosts(&self.config.timing).await?;
        self.handle.begin_with(hosts.iter().map(|memory| &memory.spec));
        self.writer.know(&hosts);
        monitor.restore(hosts, clock::now());
        Ok(monitor)
    }

    async fn tunnel(&self) -> anyhow::Result<Tunnel<BoringNoise>> {
        let config = tunnel::Config {
            pool_v4: self.config.pool_v4,
            pool_v6: self.config.pool_v6,
            results_port: self.config.results_port,
        };
        let noise = BoringNoise::new(&self.identity.wireguard, seed()?);
        let mut tunnel = Tunnel::new(config, noise, seed()?);
        if let Some(dns) = &self.config.dns {
            tunnel.serve_dns(dns.engine());
        }
        tunnel.restore(self.store.all_peers().await?, clock::now());
        tunnel.restore_retired(self.store.retired_keys(MAX_RETIRED).await?);
        let mut conn = self.store.reader().await?;
        // The floor comes first: not one packet passes by a clock that is behind it.
        let floor = settings::clock_floor(&mut conn).await?.at();
        let mut policy: Vec<PolicyChange> = floor.map(PolicyChange::Floor).into_iter().collect();
        let read = policy::all(&mut conn, clock::wall()).await?;
        drop(conn);
        self.handle.note_unreadable(&PolicyRows::default(), &read.unreadable);
        policy.extend(read.changes);
        tunnel.handle(Input::Command(Command::Policy(policy)), clock::now());
        Ok(tunnel)
    }

    /// Gives an alias to hosts behind devices that have none: those of an earlier version, or those for
    /// which the pool had no room.
    async fn allocate_aliases(&self) -> anyhow::Result<()> {
        let mut tx = self.store.begin().await?;
        let (pools, now) = (self.config.pools(), clock::wall());
        let without = addresses::allocate_missing_aliases(&mut tx, pools, now).await?;
        tx.commit().await?;
        if without > 0 {
            tracing::warn!(
                "{without} hosts behind devices have no alias, because the pool is full, so that no grant \
                 reaches them: free addresses or set a larger pool, and start again"
            );
        }
        Ok(())
    }

    fn tunnel_outputs(
        &self,
        answers: mpsc::UnboundedSender<MonitorInput>,
        streams: Streams,
        dns_forward: mpsc::Sender<(DnsClient, Vec<u8>)>,
    ) -> TunnelOutputs {
        let news_to = answers.clone();
        let (live, writer) = (self.live.clone(), self.writer.clone());
        TunnelOutputs {
            answer: Box::new(move |id, answer| drop(answers.send(MonitorInput::ProbeReply(id, answer)))),
            news: Box::new(move |news| {
                writer.memory(MemoryUpdate::from_news(&news));
                if let TunnelEvent::Rekeyed(peer) = &news {
                    live.forget_moves(*peer);
                }
                match news {
                    TunnelEvent::Status(peer, status) => live.set_peer(peer, *status),
                    TunnelEvent::RemovedPeer(peer, from) => tracing::info!(
                        %peer,
                        %from,
                        "a device or operator that was removed or disabled still uses its key: switch its \
                         tunnel off, or add it again"
                    ),
                    TunnelEvent::UnknownKey(key, from) => {
                        if let Some(others) = live.note_unknown_key(key, from, clock::now()) {
                            tracing::info!(
                                %key,
                                %from,
                                others,
                                "a handshake was refused: its key belongs to no device"
                            );
                        }
                    }
                    other => drop(news_to.send(MonitorInput::TunnelEvent(other))),
                }
            }),
            explanations: {
                let explanations = self.handle.explanations().clone();
                Box::new(move |ExplainId(number), explanation| explanations.answer(number, explanation))
            },
            dns_answers: {
                let decisions = self.handle.dns_decisions().clone();
                Box::new(move |DnsId(number), decision| decisions.answer(number, decision))
            },
            // Without room it is lost, as datagrams are, and the client asks again.
            dns_forwards: Box::new(move |client, query| drop(dns_forward.try_send((client, query)))),
            forward_probes: {
                let probes = self.handle.forward_probes().clone();
                Box::new(move |ExplainId(number), reply| probes.answer(number, reply))
            },
            flows: {
                let flows = self.flows.clone();
                Box::new(move |record| flows.add(record))
            },
            streams,
            passage: self.passage.clone(),
        }
    }
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

fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| anyhow::anyhow!("the operating system gives no random bytes: {e}"))?;
    Ok(seed)
}

/// Opens the listeners of the API and the one inside the tunnels.
fn serve(
    state: &AppState,
    tcp: TcpListener,
    local: UnixListener,
    arrivals: mpsc::Receiver<AcceptedStream>,
    stop: CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let inside = HttpServer::new(api::tunnel_api::router(state.clone()), Limits::default(), stop.clone());
    let house = HttpServer::new(api::router(state.clone()), Limits::default(), stop);
    let tls = state.config.tls.as_ref().map(Tls::open).transpose()?;
    let mut doors = JoinSet::new();
    doors.spawn(inside.serve_tunnels(arrivals));
    doors.spawn(house.clone().serve_local(local));
    doors.spawn(house.serve_tcp(tcp, tls, state.config.trusted_proxies.clone()));
    Ok(doors)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::data_dir;

    async fn started(dir: &std::path::Path) -> Server {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = DataDir::open(dir).unwrap();
        let mut config = Config::load(dir, None).unwrap();
        (config.listen, config.api_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
        Server::start(config, data).await.unwrap()
    }

    /// A dashboard's event stream whose beginning was read.
    async fn listener(server: &Server) -> TcpStream {
        let link = server.first_admin.as_ref().expect("the first start").link.reveal().to_owned();
        let http = reqwest::Client::new();
        let session = http.post(format!("http://{}/api/v1/session", server.api));
        let answer = session.json(&serde_json::json!({ "link": link })).send().await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let mut stream = TcpStream::connect(server.api).await.unwrap();
        let ask =
            format!("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nx-fleetgate: 1\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stream
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
