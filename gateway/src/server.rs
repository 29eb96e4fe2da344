//! A running gateway: its parts made, joined, and taken down in order.
//!
//! Start: keys, store, the engine restored from the store, *then* the UDP socket, then the API.
//! Stop: the API first, then the monitor, the tunnels, the writer and the store.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::monitor::Monitor;
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{self, Tunnel};
use fleetgate_engine::wire::{Command, MonitorInput, News};
use fleetgate_keys::Token;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, AppState};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::driver::{self, Mouths};
use crate::handle::{Handle, QUEUE};
use crate::identity::Identity;
use crate::live::Live;
use crate::ssh::{Limits, SshClient};
use crate::store::Store;
use crate::store::access::FirstAdmin;
use crate::stream::Streams;
use crate::watch::{self, Carrier};
use crate::writer::{MemoryUpdate, Writer};
use crate::{clock, housekeeping, mail, telemetry, udp};

/// What a stop may take before the process ends anyway; systemd's patience is longer.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

pub struct Server {
    pub state: AppState,
    pub identity: Arc<Identity>,
    pub udp_port: u16,
    pub api: SocketAddr,
    /// At the first start only: to be shown, once.
    pub first_admin: Option<FirstAdmin>,
    stop_api: CancellationToken,
    stop_engine: CancellationToken,
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    writer: Writer,
    store: Store,
    data: DataDir,
}

/// The sockets that a start needs: made first, so that a busy port changes nothing.
struct Sockets {
    udp: std::net::UdpSocket,
    api: TcpListener,
    local: UnixListener,
}

impl Server {
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub async fn start(config: Config, data: DataDir) -> anyhow::Result<Server> {
        let identity = Arc::new(Identity::open(data.path())?);
        let sockets = Sockets::bind(&config, &data).await?;
        let store = Store::open(data.path(), identity.seal_key()).await?;
        let live = Live::default();
        let (commands_in, commands) = mpsc::channel(QUEUE);
        let (inputs_in, inputs) = mpsc::channel(QUEUE);
        let handle = Handle::new(store.clone(), live.clone(), config.timing, commands_in, inputs_in);
        let (udp_port, api) = (sockets.udp.local_addr()?.port(), sockets.api.local_addr()?);
        let (stop_api, stop_engine) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();

        let postman = mail::start(&mut tasks, &config, store.clone(), live.clone(), stop_api.clone())?;
        let writer = Writer::start(&mut tasks, store.clone(), live.clone(), postman);
        let engine =
            Engine { config: &config, identity: &identity, store: &store, live: &live, writer: &writer };
        let threads = engine.start(sockets.udp, commands, inputs, stop_engine.clone()).await?;

        let state = AppState::new(api::Parts {
            store: store.clone(),
            handle,
            live,
            config,
            identity: api::Identity {
                public_key: identity.wireguard.public(),
                ssh_public_key: identity.ssh.public(),
            },
            udp_port,
            metrics: telemetry::metrics(),
            shutdown: stop_api.clone(),
        });
        housekeeping::start(&mut tasks, store.clone(), state.live.clone(), stop_api.clone());
        serve(&mut tasks, &state, sockets.api, sockets.local, stop_api.clone()).await?;
        // Last: a login that is made by a start which then fails would never be shown.
        let first_admin = store.ensure_first_admin(clock::wall()).await?;
        Ok(Server {
            state,
            identity,
            udp_port,
            api,
            first_admin,
            stop_api,
            stop_engine,
            tasks,
            threads,
            writer,
            store,
            data,
        })
    }

    /// Whether a thread that must run for ever has ended.
    pub fn has_died(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Where a browser finds the page.
    pub fn url(&self) -> String {
        let config = &self.state.config;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", self.api))
    }

    /// A login that works once.
    pub fn login_url(&self, link: &Token) -> String {
        format!("{}/login#{}", self.url(), link.reveal())
    }

    /// Ends everything in order; what was acknowledged is on disk.
    pub async fn stop(mut self) {
        let orderly = async {
            self.stop_api.cancel();
            self.stop_engine.cancel();
            let threads = std::mem::take(&mut self.threads);
            let _ =
                tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
            self.writer.finish().await;
            while self.tasks.join_next().await.is_some() {}
            self.store.close().await;
        };
        if tokio::time::timeout(STOP_PATIENCE, orderly).await.is_err() {
            tracing::warn!("something did not end within {} s; ending anyway", STOP_PATIENCE.as_secs());
        }
        let _ = std::fs::remove_file(self.data.socket());
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
        // The directory is locked: a socket there is what a killed gateway left.
        let _ = std::fs::remove_file(&path);
        let local = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Sockets { udp, api, local })
    }
}

struct Engine<'a> {
    config: &'a Config,
    identity: &'a Identity,
    store: &'a Store,
    live: &'a Live,
    writer: &'a Writer,
}

impl Engine<'_> {
    async fn start(
        &self,
        socket: std::net::UdpSocket,
        commands: mpsc::Receiver<Command>,
        inputs: mpsc::Receiver<MonitorInput>,
        stop: CancellationToken,
    ) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let (asks_in, asks) = mpsc::unbounded_channel();
        let (answers_in, answers) = mpsc::unbounded_channel();
        let streams = Streams::new(asks_in.clone());
        let monitor = self.monitor().await?;
        let tunnel = self.tunnel().await?;
        asks_in.send(Command::DialAll).context("the queue is new")?;

        let mouths = self.mouths(answers_in.clone(), streams.clone());
        let limits =
            Limits { idle: self.config.ssh_idle, kept: self.config.ssh_connections, ..Limits::default() };
        let ssh = SshClient::new(&self.identity.ssh.to_openssh(), limits)?;
        let runtime = tokio::runtime::Handle::current();
        let carrier = Carrier::new(asks_in, answers_in, streams, ssh, runtime);
        let tunnels = driver::start(tunnel, socket, driver::Inbox { commands, asks }, mouths, stop.clone())?;
        let inbox = watch::Inbox { commands: inputs, answers };
        let monitors = watch::start(monitor, inbox, carrier, self.writer.clone(), stop)?;
        Ok(vec![monitors, tunnels])
    }

    async fn monitor(&self) -> anyhow::Result<Monitor> {
        let seed = u64::from_le_bytes(seed()?[..8].try_into().expect("32 bytes hold 8"));
        let mut monitor = Monitor::new(fleetgate_engine::monitor::Config::default(), seed);
        monitor.restore(self.store.all_hosts(&self.config.timing).await?, clock::now());
        Ok(monitor)
    }

    async fn tunnel(&self) -> anyhow::Result<Tunnel<BoringNoise>> {
        let config = tunnel::Config { pool_v4: self.config.pool_v4, pool_v6: self.config.pool_v6 };
        let noise = BoringNoise::new(&self.identity.wireguard, seed()?);
        let mut tunnel = Tunnel::new(config, noise, seed()?);
        tunnel.restore(self.store.all_peers().await?, clock::now());
        Ok(tunnel)
    }

    fn mouths(&self, answers: mpsc::UnboundedSender<MonitorInput>, streams: Streams) -> Mouths {
        let news_to = answers.clone();
        let (live, writer) = (self.live.clone(), self.writer.clone());
        Mouths {
            answer: Box::new(move |id, answer| drop(answers.send(MonitorInput::Answer(id, answer)))),
            news: Box::new(move |news| {
                writer.memory(MemoryUpdate::from_news(&news));
                match news {
                    News::Status(peer, status) => live.set_peer(peer, *status),
                    other => drop(news_to.send(MonitorInput::News(other))),
                }
            }),
            streams,
        }
    }
}

fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| anyhow::anyhow!("the operating system gives no random bytes: {e}"))?;
    Ok(seed)
}

async fn serve(
    tasks: &mut JoinSet<()>,
    state: &AppState,
    tcp: TcpListener,
    local: UnixListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let service = api::router(state.clone()).into_make_service_with_connect_info::<api::Client>();
    let (on_socket, stopping) = (service.clone(), stop.clone());
    tasks.spawn(async move {
        let ended = axum::serve(local, on_socket).with_graceful_shutdown(stopping.cancelled_owned()).await;
        ended.unwrap_or_else(|error| tracing::error!(%error, "the local socket has ended"));
    });
    let Some(files) = &state.config.tls else {
        tasks.spawn(async move {
            let ended = axum::serve(tcp, service).with_graceful_shutdown(stop.cancelled_owned()).await;
            ended.unwrap_or_else(|error| tracing::error!(%error, "the API has ended"));
        });
        return Ok(());
    };
    let tls = axum_server::tls_rustls::RustlsConfig::from_pem_file(&files.cert, &files.key)
        .await
        .with_context(|| format!("cannot use {} and {}", files.cert.display(), files.key.display()))?;
    let server = axum_server::from_tcp_rustls(tcp.into_std()?, tls)?;
    let handle = axum_server::Handle::new();
    let stopper = handle.clone();
    tasks.spawn(async move {
        stop.cancelled().await;
        stopper.graceful_shutdown(Some(STOP_PATIENCE / 2));
    });
    tasks.spawn(async move {
        let ended = server.handle(handle).serve(service).await;
        ended.unwrap_or_else(|error| tracing::error!(%error, "the API has ended"));
    });
    Ok(())
}
