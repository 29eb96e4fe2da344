//! Logs to stderr, as text or JSON; metrics for `/metrics`.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use fleetgate_engine::time::Wall;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// boringtun logs an error for every peer that is merely offline. The tunnel reports what matters.
const DEFAULT_FILTER: &str = "info,boringtun=off,russh=warn,sqlx=warn,hyper=warn";

const QUIET_FILTER: &str = "warn,boringtun=off";

/// Changes the log filter at runtime.
type Switch = Box<dyn Fn(EnvFilter) + Send + Sync>;

static SWITCH: OnceLock<Switch> = OnceLock::new();

/// Starts the log. `filter` refines it in the usual syntax: `debug`, or `fleetgate=trace`.
pub fn init(json: bool, filter: Option<&str>) {
    start(json, filters(DEFAULT_FILTER, filter));
}

/// For the demo, whose terminal shows its own output.
pub fn init_quietly(json: bool, filter: Option<&str>) {
    start(json, filters(QUIET_FILTER, filter));
}

/// Changes the filter from now on.
pub fn refilter(filter: Option<&str>) {
    if let Some(switch) = SWITCH.get() {
        switch(filters(DEFAULT_FILTER, filter));
    }
}

/// Whether this is a valid filter: levels, and modules with a level. A single word must be a level,
/// because the library would take `debg` for the name of a module.
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

/// Interval at which histograms are summed up.
const UPKEEP: Duration = Duration::from_secs(5);
/// Whether the last load of the settings succeeded. Prometheus uses this name for its own.
const LAST_RELOAD: &str = "fleetgate_config_last_reload_successful";
/// Time of the last successful load, at the start or by a reload.
const LAST_LOADED: &str = "fleetgate_config_last_reload_success_timestamp_seconds";
/// Reloads since the start.
const RELOADS: &str = "fleetgate_config_reloads_total";

/// Records that the settings of the start are in force and no reload has failed yet.
pub fn settings_in_force(now: Wall) {
    metrics::gauge!(LAST_RELOAD).set(1.0);
    metrics::gauge!(LAST_LOADED).set(now.as_millis() as f64 / 1_000.0);
    for outcome in ["ok", "failed"] {
        metrics::counter!(RELOADS, "outcome" => outcome).increment(0);
    }
}

/// Records that other settings are in force from now on.
pub fn reload_succeeded(now: Wall) {
    settings_in_force(now);
    metrics::counter!(RELOADS, "outcome" => "ok").increment(1);
}

/// Records that a reload found invalid settings; the previous ones stay in force.
pub fn reload_failed() {
    metrics::gauge!(LAST_RELOAD).set(0.0);
    metrics::counter!(RELOADS, "outcome" => "failed").increment(1);
}

/// Sums up the histograms regularly. Their samples would otherwise pile up until the next scrape of
/// `/metrics`, which may never come.
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

/// Returns the metrics of the process. A second gateway in one process (tests) shares them.
pub fn metrics() -> PrometheusHandle {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().expect("nobody installed a recorder before");
    INSTALLED.get_or_init(install).clone()
}
