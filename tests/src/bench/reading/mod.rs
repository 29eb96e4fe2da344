//! The cost of reading: each request of an open page, and the page as a whole, with a large fleet
//! and a long log.
//!
//! The whole program runs in this process. Its tables are filled directly with 10,000 hosts, 2,000
//! of them down, and 10 million events. Results arrive at the rate of the checks of such a fleet.
//! The page runs on its own thread, whose CPU time is excluded. At the end the profile of all hosts
//! changes while results arrive.

mod page;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::engine::handle::Handle;
use fleetgate::engine::live_state::LiveState;
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{Outcome, PassiveResult, PeerStatus};
use fleetgate_probes::plugin::{Ending, PluginResult};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::program::Program;
use super::{process_cpu, report};
use page::{Page, View, Watched};

const HOSTS: u64 = 10_000;
const EVENTS: u64 = 10_000_000;
const FILL: &str = include_str!("fill.sql");
/// Each host once a minute, the default interval.
const RESULTS_A_SECOND: u64 = HOSTS / 60;
/// Packets of devices, each once in 25 s.
const PACKETS_A_SECOND: u64 = HOSTS / 25;
/// One in this many results finds a service critical, until the next result of that service. Such a
/// fleet has 30,000 problems in seven days, one in 20 s.
const PROBLEM_EVERY: u64 = 20 * RESULTS_A_SECOND;
const WATCHED: Duration = Duration::from_secs(40);
const OPENED: Duration = Duration::from_secs(6);
/// How often each request is made, but for no longer than this.
const TIMES: usize = 60;
const AT_MOST: Duration = Duration::from_secs(8);

/// # Errors
/// Fails when the program does not start, or refuses a request.
pub fn run() -> anyhow::Result<()> {
    run_with(EVENTS)
}

/// Runs with this many events.
///
/// # Errors
/// Fails like [`run`].
pub fn run_with(events: u64) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure(events))
}

async fn measure(events: u64) -> anyhow::Result<()> {
    let program = prepare(events).await?;
    let fleet = Fleet::start(&program);
    let token = program.call(Method::POST, "/tokens", &json!({ "name": "page", "role": "admin" })).await?;
    let token = token["secret"].as_str().context("a token")?.to_owned();
    let page = Page::new(format!("http://{}/api/v1", program.server.api), token);
    tokio::time::sleep(OPENED).await;
    reports(&page).await?;
    requests(&page).await?;
    for (what, view) in [("the fleet", View::Fleet), ("a host that is down", View::Host("h-00010"))] {
        // The load without the page is measured before and after, because it drifts.
        let before = without_a_page().await;
        watch(&page, view, OPENED).await?;
        let (busy, seen) = watch(&page, view, WATCHED).await?;
        let idle = f64::midpoint(before, without_a_page().await);
        report("results and packets without a page", &format!("{:.2} % of a core", idle * 100.0), "-");
        let what = format!("an open page of {what}, {} requests, {} KB", seen.asked, seen.bytes / 1_000);
        report(&what, &format!("{:.2} % of a core", (busy - idle) * 100.0), "under 1 %");
    }
    change_of_profile(&program, &fleet).await?;
    fleet.end().await;
    program.server.stop().await;
    Ok(())
}

async fn prepare(events: u64) -> anyhow::Result<Program> {
    let program = Program::start().await?;
    program.call(Method::PUT, "/profiles/bench", &profile(3)).await?;
    let dir = program.stop().await;
    let file = dir.path().join("fleetgate.db");
    let begun = Instant::now();
    fill(&file, events).await?;
    let size = std::fs::metadata(&file)?.len() as f64 / 1e6;
    report("the tables are filled", &format!("{:.0} s, {size:.0} MB", begun.elapsed().as_secs_f64()), "-");
    let begun = Instant::now();
    let program = Program::start_in(dir).await?;
    report("start with them", &format!("{:.1} s", begun.elapsed().as_secs_f64()), "-");
    Ok(program)
}

fn profile(services: usize) -> Value {
    let service = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
    let services = (0..services).map(|n| (format!("job-{n}"), service.clone()));
    json!({ "services": services.collect::<serde_json::Map<_, _>>() })
}

async fn fill(file: &Path, events: u64) -> anyhow::Result<()> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).pragma("synchronous", "off");
    let mut conn = SqliteConnection::connect_with(&options).await?;
    let now = fleetgate::clock::wall().as_millis().to_string();
    let text = FILL.replace("$1", &HOSTS.to_string()).replace("$2", &events.to_string()).replace("$3", &now);
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

async fn without_a_page() -> f64 {
    let (cpu, begun) = (process_cpu(), Instant::now());
    tokio::time::sleep(WATCHED / 2).await;
    (process_cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// Returns the program's share of a core while a page is open.
async fn watch(page: &Page, view: View, time: Duration) -> anyhow::Result<(f64, Watched)> {
    let (cpu, begun, page) = (process_cpu(), Instant::now(), page.clone());
    let watched = tokio::task::spawn_blocking(move || page.watch(view, time)).await??;
    let busy = (process_cpu() - cpu).saturating_sub(watched.cpu);
    Ok((busy.as_secs_f64() / begun.elapsed().as_secs_f64(), watched))
}

/// Prints what the availability of a year costs, and of the two years that are kept by default.
async fn reports(page: &Page) -> anyhow::Result<()> {
    let http = page.client()?;
    let ago = |days: u64| fleetgate::ids::time(fleetgate::clock::wall() - Duration::from_secs(days * 86_400));
    let (year, both) = (ago(365), ago(730));
    for (selected, what, target) in [
        ("&host=h-00010", "one host", "under 10 ms"),
        ("&host=h-00010&service=*", "all services of one host", "under 10 ms"),
        ("&site=s-001", "a site of 50 hosts", "under 20 ms"),
        ("&site=s-001&service=job-1", "a service of a site of 50 hosts", "under 20 ms"),
        ("&label=part=p-1", "1,000 hosts by a label", "under 100 ms"),
        ("&label=part=p-1&service=job-1", "a service of 1,000 hosts by a label", "under 200 ms"),
        ("", "all 10,000 hosts", "under 1,000 ms"),
        ("&service=job-1", "a service of all 10,000 hosts", "under 2,000 ms"),
    ] {
        let from = &year;
        let path = format!("/reports/availability?limit=1&from={from}{selected}");
        let [median, _] = asked(page, &http, &path).await?;
        report(&format!("availability of a year, {what}"), &format!("{median:.1} ms"), target);
    }
    for (selected, what, target) in [
        ("&host=h-00010&service=*", "all services of one host", "under 20 ms"),
        ("&label=part=p-1", "1,000 hosts by a label", "under 200 ms"),
        ("", "all 10,000 hosts", "under 2,000 ms"),
    ] {
        let path = format!("/reports/availability?limit=1&from={both}{selected}");
        let [median, _] = asked(page, &http, &path).await?;
        report(&format!("availability of two years, {what}"), &format!("{median:.1} ms"), target);
    }
    Ok(())
}

/// Makes a request again and again, and returns the median and the 99th percentile in milliseconds.
async fn asked(page: &Page, http: &reqwest::Client, path: &str) -> anyhow::Result<[f64; 2]> {
    let (mut took, begun) = (Vec::new(), Instant::now());
    while took.len() < TIMES && (took.is_empty() || begun.elapsed() < AT_MOST) {
        took.push(page.ask(http, path).await?.0);
        // A page does not request faster, and the cache shared between requests must have its
        // real effect.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.sort_unstable();
    Ok([50, 99].map(|percent| millis(took[(took.len() * percent / 100).min(took.len() - 1)])))
}

/// Prints the medians of a page's requests and of typical queries of the log.
async fn requests(page: &Page) -> anyhow::Result<()> {
    let http = page.client()?;
    for path in [
        "/overview",
        "/problems?limit=500",
        "/hosts?limit=200",
        "/hosts/h-00010",
        "/hosts/h-00060",
        "/hosts/h-00010/services",
        "/incidents?state=open",
        "/enrolments",
        "/session",
        "/events?host=h-00010&limit=50",
        "/events?limit=100",
        "/events?kind=device&limit=100",
        "/events?kind=state&limit=100",
        "/events?kind=uplink&limit=100",
        "/events?kind=profile.changed&limit=100",
        "/audit?limit=100",
        "/audit?kind=profile&limit=100",
    ] {
        let [median, most] = asked(page, &http, path).await?;
        report(path, &format!("{median:.1} ms, {most:.1} ms"), "under 20 ms");
    }
    Ok(())
}

/// The activity of the fleet: results and packets.
struct Fleet {
    stop: Arc<AtomicBool>,
    /// The longest wait of a result since the last query, in microseconds.
    longest: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Fleet {
    fn start(program: &Program) -> Fleet {
        let (stop, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (handle, live) = (program.server.state.handle.clone(), program.server.state.live.clone());
        let results = tokio::spawn(results(handle, stop.clone(), longest.clone()));
        let packets = tokio::spawn(packets(live, stop.clone()));
        Fleet { stop, longest, tasks: vec![results, packets] }
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Sends results of the hosts that are up, one after the other.
async fn results(handle: Handle, stop: Arc<AtomicBool>, longest: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(RESULTS_A_SECOND)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let up: Vec<u64> = (0..HOSTS).filter(|n| n / 50 % 5 > 0).collect();
    for n in 0u64.. {
        let begun = ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (handle, longest) = (handle.clone(), longest.clone());
        let host = up[usize::try_from(n)? % up.len()] + 1;
        tokio::spawn(async move {
            let outcome = submit(&handle, host, n).await;
            let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            longest.fetch_max(waited, Ordering::Relaxed);
            assert_eq!(outcome, Some(Outcome::Done), "a result came to nothing");
        });
    }
    Ok(())
}

async fn submit(handle: &Handle, host: u64, n: u64) -> Option<Outcome> {
    let code = if n.is_multiple_of(PROBLEM_EVERY) { 2 } else { 0 };
    let used = 40 + n % 20;
    let output = format!("DISK - {used}% used | used={used}%;80;90 free={}MB;;;0", 99 - used);
    let result = PluginResult::from_run(&Ending::Exit(code), output.as_bytes(), b"", false);
    let (at, by) = (fleetgate::clock::wall(), "token:bench".to_owned());
    let make = |ticket| PassiveResult {
        host: Id::from_i64(host.cast_signed()),
        service: Some(format!("job-{}", n / HOSTS % 3)),
        result,
        at,
        by,
        identity: Default::default(),
        ticket,
    };
    handle.submit(None, make).await.ok()
}

/// Reports packets as the tunnels do.
async fn packets(live: LiveState, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(PACKETS_A_SECOND)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let up: Vec<u64> = (0..HOSTS).filter(|n| n / 50 % 5 > 0).collect();
    for n in 0usize.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = Id::from_i64((up[n * 37 % up.len()] + 1).cast_signed());
        let before = live.peer(id).unwrap_or_default();
        let now = Some(fleetgate::clock::wall());
        let endpoint = "192.0.2.1:51820".parse().ok();
        let established = true;
        let rx_bytes = before.rx_bytes + 32;
        live.set_peer(id, PeerStatus { last_packet: now, endpoint, established, rx_bytes, ..before });
    }
    Ok(())
}

/// Adds a service to every host, and removes it again.
async fn change_of_profile(program: &Program, fleet: &Fleet) -> anyhow::Result<()> {
    tokio::time::sleep(OPENED).await;
    report("longest wait of a result before", &format!("{:.0} ms", millis(fleet.longest())), "-");
    for (what, services) in [("one more", 4), ("one less", 3)] {
        let begun = Instant::now();
        program.call(Method::PUT, "/profiles/bench", &profile(services)).await?;
        let took = millis(begun.elapsed());
        tokio::time::sleep(OPENED).await;
        let what = format!("{HOSTS} hosts get {what} service by their profile: {took:.0} ms");
        report(&what, &format!("{:.0} ms", millis(fleet.longest())), "under 200 ms");
        let shown = program.call(Method::GET, "/hosts/h-09999/services", &Value::Null).await?;
        let there = shown["items"].as_array().map(Vec::len);
        ensure!(there == Some(services), "{there:?} services are there, not {services}");
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
