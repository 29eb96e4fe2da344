//! Logs to stderr, as text or JSON; counters for `/metrics`.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use fleetgate_engine::time::Wall;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// boringtun logs an error for every peer that is merely offline; the tunnel reports what matters.
const DEFAULT_FILTER: &str = "info,boringtun=off,russh=warn,sqlx=warn,hyper=warn";

const QUIET_FILTER: &str = "warn,boringtun=off";

/// Changes the filter of the running program.
type Switch = Box<dyn Fn(EnvFilter) + Send + Sync>;

static SWITCH: OnceLock<Switch> = OnceLock::new();

/// `filter` refines what is logged, in the usual syntax: `debug`, or `fleetgate=trace`.
pub fn init(json: bool, filter: Option<&str>) {
    start(json, filters(DEFAULT_FILTER, filter));
}

/// For the demo, whose terminal is for its words.
pub fn init_quietly(json: bool, filter: Option<&str>) {
    start(json, filters(QUIET_FILTER, filter));
}

/// Another filter from now on.
pub fn refilter(filter: Option<&str>) {
    if let Some(switch) = SWITCH.get() {
        switch(filters(DEFAULT_FILTER, filter));
    }
}

/// Levels, and parts of the program with theirs. A word alone must be a level: the library takes
/// `debg` for the name of a part.
pub fn is_filter(text: &str) -> bool {
    let is_level = |part: &str| part.trim().parse::<LevelFilter>().is_ok();
    text.split(',').all(|part| part.contains(['=', '[']) || is_level(part))
        && EnvFilter::try_new(text).is_ok()
}

fn filters(default: &str, setting: Option<&str>) -> EnvFilter {
    let own = setting.map(|filter| format!(",{filter}")).unwrap_or_default();
    EnvFilter::try_new(format!("{default}{own}")).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER))
}

fn start(json: bool, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let switch: Switch = if json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Box::new(move |filter| drop(handle.reload(filter)))
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_target(false);
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Box::new(move |filter| drop(handle.reload(filter)))
    };
    let _ = SWITCH.set(switch);
}

/// Histograms are summed up so often.
const UPKEEP: Duration = Duration::from_secs(5);
/// Whether the settings that were loaded last are in force; Prometheus names its own so.
const LAST_RELOAD: &str = "fleetgate_config_last_reload_successful";
/// When settings were taken last, at the start or by a reload.
const LAST_LOADED: &str = "fleetgate_config_last_reload_success_timestamp_seconds";
/// Reloads since the start.
const RELOADS: &str = "fleetgate_config_reloads_total";

/// The settings of the start are in force; no reload has failed yet.
pub fn settings_in_force(now: Wall) {
    metrics::gauge!(LAST_RELOAD).set(1.0);
    metrics::gauge!(LAST_LOADED).set(now.as_millis() as f64 / 1_000.0);
    for outcome in ["ok", "failed"] {
        metrics::counter!(RELOADS, "outcome" => outcome).increment(0);
    }
}

/// Other settings are in force from now on.
pub fn reload_succeeded(now: Wall) {
    settings_in_force(now);
    metrics::counter!(RELOADS, "outcome" => "ok").increment(1);
}

/// The settings were to be loaded again and are broken: the former ones stay in force.
pub fn reload_failed() {
    metrics::gauge!(LAST_RELOAD).set(0.0);
    metrics::counter!(RELOADS, "outcome" => "failed").increment(1);
}

/// What histograms collect waits for somebody who reads it. Nobody may ever ask for `/metrics`.
pub fn keep_up(tasks: &mut JoinSet<()>, metrics: PrometheusHandle, stop: CancellationToken) {
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP) => metrics.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    });
}

/// The process's counters. A second gateway in one process (tests) counts into the same ones.
pub fn metrics() -> PrometheusHandle {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().expect("nobody installed a recorder before");
    INSTALLED.get_or_init(install).clone()
}
