//! `fleetgate serve`: runs a gateway until SIGTERM or SIGINT, even if the signal arrives during the
//! start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

use super::Connection;
use crate::cli::out;
use crate::clock;
use crate::config::{Config, FILE};
use crate::data_dir::{self, DataDir};
use crate::first_start;
use crate::health::telemetry;
use crate::server::Server;
use crate::signals::{Request, Signals};

pub(crate) const NAME: &str = "fleetgate";

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Settings file [default: fleetgate.toml in the data directory, if it exists]
    #[arg(long, env = "FLEETGATE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start with a new database and new keys if the database is missing, empty or damaged; the old files are
    /// moved aside
    #[arg(long)]
    new: bool,
}

pub(crate) async fn run(to: &Connection, args: ServeArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let path = data_dir::default_path(to.data.clone(), NAME)?;
    let data = DataDir::open(&path)?;
    // A missing file must not silently turn its settings into defaults.
    let file = args.config.or_else(|| Some(path.join(FILE)).filter(|file| file.exists()));
    let config = Config::load(&path, file.as_deref())?;
    telemetry::init(config.log_json, config.log_filter.as_deref());
    if args.new {
        start_over(&path).await?;
    }
    let patience = AbortOnDropHandle::new(tokio::spawn(ask_for_patience()));
    let Some(server) = started(&mut signals, Server::start(config, data)).await? else { return Ok(()) };
    drop(patience);
    telemetry::settings_in_force(clock::wall());
    announce(&server, to.data.is_some()).await?;
    server.login_shown()?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let on_hangup = || {
        reload(&server, &path, file.as_deref());
        true
    };
    let ended = until_stopped(&server, &mut signals, on_hangup).await;
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    server.stop().await;
    ended
}

/// Tells systemd that the start goes on. The migration of a large database takes longer than it waits.
async fn ask_for_patience() {
    const AGAIN: Duration = Duration::from_secs(20);
    loop {
        let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(60_000_000)]);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn start_over(data: &Path) -> anyhow::Result<()> {
    match first_start::start_over(data).await? {
        Some(folder) => {
            tracing::warn!("a new gateway begins; the files of the old one are in {}", folder.display())
        }
        None => tracing::warn!(
            "--new is ignored: {} lacks nothing. Leave it out of the unit file",
            data.display()
        ),
    }
    Ok(())
}

/// The time between checks that the threads are running.
const LOOK: Duration = Duration::from_secs(1);

/// The time for a start to finish after a signal, so that a first start shows the login that it
/// created. A longer start is aborted, which is as safe as a power cut.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Returns the result of `start`. `None` if a signal came and the start took too long.
///
/// # Errors
/// Fails as `start` does.
pub(crate) async fn started<T>(
    signals: &mut Signals,
    start: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    let overdue = async {
        signals.stop().await;
        tokio::time::sleep(START_PATIENCE).await;
    };
    tokio::select! {
        started = start => started.map(Some),
        () = overdue => {
            tracing::warn!("stopped before the start was complete");
            Ok(None)
        }
    }
}

/// Handles SIGHUP. A broken file changes nothing, and the log and the metrics report it.
fn reload(server: &Server, data: &Path, file: Option<&Path>) {
    let _ = NotifyState::monotonic_usec_now().map(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
    match Config::load(data, file).and_then(|fresh| server.reload(&fresh)) {
        Ok(later) => {
            telemetry::reload_succeeded(clock::wall());
            say_loaded(&later);
        }
        Err(error) => {
            telemetry::reload_failed();
            tracing::error!("the settings stay as they were: {error:#}");
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

fn say_loaded(later: &[&str]) {
    if later.is_empty() {
        tracing::info!("the settings are loaded again");
    } else {
        let later = later.join(", ");
        tracing::warn!("the settings are loaded again; these take effect at the next start: {later}");
    }
}

/// Waits for a signal to end the gateway. `on_hangup` tells whether it continues after SIGHUP.
///
/// # Errors
/// Fails when a thread of the engine has ended. The gateway would then show old states for ever, so
/// the process ends and its supervisor restarts it.
pub(crate) async fn until_stopped(
    server: &Server,
    signals: &mut Signals,
    on_hangup: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop => return Ok(()),
                Request::Reload => if !on_hangup() { return Ok(()) },
            },
            _ = look.tick() => {
                if server.has_died() {
                    anyhow::bail!("an internal thread has ended; see the log");
                }
            }
        }
    }
}

/// Prints the essential facts for the person who starts a gateway on stdout. Logs go to stderr.
async fn announce(server: &Server, own_data: bool) -> anyhow::Result<()> {
    let config = &server.state.config;
    out::line!("fleetgate {}", env!("CARGO_PKG_VERSION"));
    out::line!("  data       {}", config.data.display());
    out::line!(
        "  tunnels    UDP port {}, public key {}",
        server.udp_port,
        server.identity.wireguard.public()
    );
    match server.state.endpoint().await? {
        Some(endpoint) => {
            out::line!("  endpoint   {endpoint} (in the configurations of devices)");
            if endpoint.is_loopback() {
                out::line!("             warning: a loopback address; other machines cannot reach it");
            }
        }
        None => {
            let port = server.udp_port;
            out::line!("  endpoint   not set; set the address at which devices reach UDP port {port}:");
            let here = if own_data { format!(" --data {}", config.data.display()) } else { String::new() };
            out::line!("             fleetgate{here} gateway endpoint HOST:{port}");
        }
    }
    out::line!("  dashboard  {}", server.state.base_url());
    if config.public_url.is_none() && server.api.ip().is_loopback() {
        let port = server.api.port();
        out::line!("             from your desk: ssh -L {port}:127.0.0.1:{port} THIS-SERVER");
    }
    if let Some(first) = &server.first_admin {
        out::line!("  first login, not shown again: {}, password {}", first.name, first.password.as_str());
        out::line!("             or open {}", server.login_url(&first.link));
    }
    Ok(())
}
