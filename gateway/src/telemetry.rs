//! Logs to stderr, as text or JSON; counters for `/metrics`.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// boringtun logs an error for every peer that is merely offline; the tunnel reports what matters.
const DEFAULT_FILTER: &str = "info,boringtun=off,russh=warn,sqlx=warn,hyper=warn";

const QUIET_FILTER: &str = "warn,boringtun=off";

/// `FLEETGATE_LOG` takes the usual filter syntax, such as `debug` or `fleetgate=trace`.
pub fn init(json: bool) {
    start(json, DEFAULT_FILTER);
}

/// For the demo, whose terminal is for its words.
pub fn init_quietly(json: bool) {
    start(json, QUIET_FILTER);
}

fn start(json: bool, default: &str) {
    let filter = std::env::var("FLEETGATE_LOG").unwrap_or_default();
    let filter = format!("{default}{}{filter}", if filter.is_empty() { "" } else { "," });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)))
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
}

/// The process's counters. A second gateway in one process (tests) counts into the same ones.
pub fn metrics() -> PrometheusHandle {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().expect("nobody installed a recorder before");
    INSTALLED.get_or_init(install).clone()
}
