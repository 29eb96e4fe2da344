//! Backups under full load. Results and changes over the API arrive as fast as possible, while
//! backups are made, restored and started one after the other. Meanwhile samples are sealed, and blocks
//! are added to the history. A backup must contain everything that was acknowledged before it began.
//!
//! Each restored gateway is queried over its own API, and its history is compared with that of the
//! first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::backup::{self, Order};
use fleetgate::data_dir::DataDir;
use fleetgate::store::copy;
use fleetgate::store::history::Sealable;
use fleetgate_engine::history::{DAY, Point, Second};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Outcome, PassiveResult};
use fleetgate_probes::plugin::{Ending, PluginResult};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::history::fleet::Fleet;
use super::history::series::Generator;
use super::program::Program;
use super::report;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    pub backups: usize,
    pub hosts: usize,
    /// Services per host, with a sender each.
    pub services: usize,
    /// Bytes of the history that exist before the run.
    pub history: u64,
}

/// The run shown in `docs/performance.md`.
const FULL: Proof = Proof { backups: 12, hosts: 50, services: 20, history: 80_000_000 };
/// One backup of a history of years, under a load as at night.
const LARGE: Proof = Proof { backups: 1, hosts: 10, services: 10, ..FULL };
/// Days of each series that exists before the run: less than samples are kept.
const OLD_DAYS: i64 = 28;
/// The host of the first of these series.
const OLD_HOST: i64 = 1_000_000;
/// Series whose size is looked at together.
const OLD_SERIES: u32 = 20;
/// Time between two additions of blocks during the run, each with a seal.
const ADDITIONS: Duration = Duration::from_millis(500);
/// The size at which the log of the history counts as held.
const HELD: &str = "under 64 MB";
/// Interval at which the size of the logs is read.
const GLANCE: Duration = Duration::from_millis(20);
/// Time between two changes of one caller over the API.
const CHANGES: Duration = Duration::from_millis(20);
/// The time in which the load gets going.
const SETTLED: Duration = Duration::from_secs(2);

/// # Errors
/// Fails when a backup cannot be made or restored, or lacks something.
pub fn run() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(prove(FULL))
}

/// Runs the same with a history of this many GB.
///
/// # Errors
/// Fails like [`run`].
pub fn run_large(gigabytes: f64) -> anyhow::Result<()> {
    let history = (gigabytes * 1e9) as u64;
    tokio::runtime::Runtime::new()?.block_on(prove(Proof { history, ..LARGE }))
}

/// # Errors
/// Fails when a backup cannot be made or restored, or lacks something.
pub async fn prove(proof: Proof) -> anyhow::Result<()> {
    let program = Arc::new(Program::start().await?);
    let old = fill(&program, proof.history).await?;
    let before = std::fs::metadata(program.data().join("history.db"))?.len();
    let ledger = Arc::new(Ledger::new(&program, proof).await?);
    let logs = Arc::new(Logs::default());
    let mut load = JoinSet::new();
    ledger.load(&program, &mut load);
    load.spawn(seal(ledger.clone(), program.clone()));
    load.spawn(logs.clone().watch(program.data().to_owned(), ledger.clone()));
    tokio::time::sleep(SETTLED).await;
    let out = tempfile::tempdir()?;
    let (mut made, mut longest) = (Vec::new(), Duration::ZERO);
    let start = (ledger.taken(), Instant::now());
    logs.reset();
    for n in 0..proof.backups {
        let acknowledged = ledger.now(&program).await?;
        let begun = Instant::now();
        let order = Order {
            data: program.data().to_owned(),
            target: out.path().join(format!("proof-{n}.tar")),
            history: true,
            keep: None,
        };
        let backup = backup::make(&order, Arc::new(|_, _| {})).await?;
        longest = longest.max(begun.elapsed());
        made.push((backup, acknowledged));
    }
    let rate = (ledger.taken() - start.0) as f64 / start.1.elapsed().as_secs_f64();
    let largest = logs.largest();
    ledger.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    let size = made.last().map_or(0, |(backup, _)| backup.bytes);
    let mut whole = 0;
    for (backup, acknowledged) in &made {
        is_whole(&program, &ledger, &backup.file, acknowledged, old).await?;
        std::fs::remove_file(&backup.file)?;
        whole += 1;
    }
    report(
        "backups that restore with all that was acknowledged",
        &format!("{whole} of {}", proof.backups),
        "all",
    );
    report("  results a second meanwhile", &format!("{rate:.0}"), "-");
    report("  history before", &mb(before), "-");
    report("  size of the last one", &mb(size), "-");
    report("  longest time of one", &format!("{:.1} s", longest.as_secs_f64()), "-");
    report("  largest log of fleetgate.db", &mb(largest[0]), "-");
    report("  largest log of history.db", &mb(largest[1]), HELD);
    Arc::into_inner(program).context("the load has ended")?.server.stop().await;
    Ok(())
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Fills the history with days of series of removed hosts. Returns a series from the middle.
async fn fill(program: &Program, bytes: u64) -> anyhow::Result<u32> {
    let (store, recorder) = (&program.server.state.store, &program.server.state.history);
    let (today, file) = (today(), program.data().join("history.db"));
    let (mut ids, mut host) = (Vec::new(), OLD_HOST);
    while copy::used_bytes(&file).await? < bytes {
        let mut fleet = Fleet::new(host, OLD_SERIES);
        fleet.enrol(recorder, store, today * DAY).await?;
        for (n, series) in fleet.stored(store).await? {
            store.put_days(&days(series.id, Generator::new(n), today)).await?;
            ids.push(series.id);
        }
        host += i64::from(fleet.hosts());
    }
    ids.get(ids.len() / 2).copied().context("a history of some size")
}

fn today() -> i64 {
    now().div_euclid(DAY)
}

fn now() -> Second {
    fleetgate::clock::wall().as_millis().div_euclid(1_000)
}

fn days(series: u32, mut generator: Generator, today: i64) -> Sealable {
    let points = generator.samples((today - OLD_DAYS) * DAY, today * DAY);
    Sealable { series, kind: generator.profile.kind(), points }
}

/// Seals what was recorded, and adds a series with its days, again and again.
async fn seal(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    let (store, recorder) = (&program.server.state.store, &program.server.state.history);
    let mut host = 2 * OLD_HOST;
    while ledger.goes_on() {
        recorder.seal_now().await?;
        let mut fleet = Fleet::new(host, 1);
        fleet.enrol(recorder, store, today() * DAY).await?;
        for (n, series) in fleet.stored(store).await? {
            store.put_days(&days(series.id, Generator::new(n), today())).await?;
        }
        host += i64::from(fleet.hosts());
        tokio::time::sleep(ADDITIONS).await;
    }
    Ok(())
}

/// Everything that the gateway has acknowledged.
struct Ledger {
    proof: Proof,
    hosts: Vec<HostId>,
    /// For each service the number of the last result; the result's text contains it.
    results: Vec<AtomicU64>,
    devices: AtomicU64,
    notes: AtomicU64,
    stop: AtomicBool,
}

/// The acknowledged state at one moment.
struct Acknowledged {
    results: Vec<u64>,
    devices: u64,
    notes: u64,
    last_event: i64,
}

impl Ledger {
    async fn new(program: &Program, proof: Proof) -> anyhow::Result<Ledger> {
        let service = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
        let services: serde_json::Map<String, Value> =
            (0..proof.services).map(|n| (service_name(n), service.clone())).collect();
        program.call(Method::PUT, "/profiles/jobs", &json!({ "services": services })).await?;
        let mut hosts = Vec::new();
        for n in 0..proof.hosts {
            let wanted = json!({ "name": host_name(n), "profile": "jobs" });
            let made = program.call(Method::POST, "/devices", &wanted).await?;
            let id = made["device"]["id"].as_str().and_then(|id| id.strip_prefix("h_")).context("an id")?;
            hosts.push(id.parse()?);
        }
        let results = (0..proof.hosts * proof.services).map(|_| AtomicU64::new(0)).collect();
        let (devices, notes, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Ledger { proof, hosts, results, devices, notes, stop })
    }

    fn load(self: &Arc<Self>, program: &Arc<Program>, load: &mut JoinSet<anyhow::Result<()>>) {
        for service in 0..self.results.len() {
            load.spawn(send(self.clone(), program.clone(), service));
        }
        load.spawn(enrol(self.clone(), program.clone()));
        load.spawn(rename(self.clone(), program.clone()));
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn taken(&self) -> u64 {
        self.results.iter().map(|n| n.load(Ordering::SeqCst)).sum()
    }

    async fn now(&self, program: &Program) -> anyhow::Result<Acknowledged> {
        Ok(Acknowledged {
            last_event: program.server.state.store.last_event().await?,
            results: self.results.iter().map(|n| n.load(Ordering::SeqCst)).collect(),
            devices: self.devices.load(Ordering::SeqCst),
            notes: self.notes.load(Ordering::SeqCst),
        })
    }
}

fn host_name(n: usize) -> String {
    format!("h-{n}")
}

fn service_name(n: usize) -> String {
    format!("job-{n:02}")
}

/// Sends results of one service, each after the previous one was acknowledged. Every seventh begins
/// a problem.
async fn send(ledger: Arc<Ledger>, program: Arc<Program>, index: usize) -> anyhow::Result<()> {
    let host = ledger.hosts[index / ledger.proof.services];
    let name = service_name(index % ledger.proof.services);
    for round in 1.. {
        if !ledger.goes_on() {
            break;
        }
        let code = if round % 7 == 0 { 2 } else { 0 };
        let output = format!("round {round} | round={round}");
        let result = PluginResult::from_run(&Ending::Exit(code), output.as_bytes(), b"", false);
        let (at, by) = (fleetgate::clock::wall(), "token:bench".to_owned());
        let service = Some(name.clone());
        let handle = &program.server.state.handle;
        let outcome = handle
            .submit(None, |ticket| PassiveResult {
                host,
                service,
                result,
                at,
                by,
                identity: Default::default(),
                ticket,
            })
            .await;
        ensure!(outcome == Ok(Outcome::Done), "a result came to nothing: {outcome:?}");
        ledger.results[index].store(round, Ordering::SeqCst);
    }
    Ok(())
}

async fn enrol(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    while ledger.goes_on() {
        let n = ledger.devices.load(Ordering::SeqCst) + 1;
        program.call(Method::POST, "/devices", &json!({ "name": format!("new-{n}") })).await?;
        ledger.devices.store(n, Ordering::SeqCst);
        tokio::time::sleep(CHANGES).await;
    }
    Ok(())
}

async fn rename(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    while ledger.goes_on() {
        let n = ledger.notes.load(Ordering::SeqCst) + 1;
        program.call(Method::PATCH, "/hosts/h-0", &json!({ "notes": format!("note {n}") })).await?;
        ledger.notes.store(n, Ordering::SeqCst);
        tokio::time::sleep(CHANGES).await;
    }
    Ok(())
}

/// The largest sizes of the write-ahead logs.
#[derive(Default)]
struct Logs([AtomicU64; 2]);

impl Logs {
    async fn watch(self: Arc<Self>, data: PathBuf, ledger: Arc<Ledger>) -> anyhow::Result<()> {
        while ledger.goes_on() {
            for (slot, name) in self.0.iter().zip(["fleetgate.db-wal", "history.db-wal"]) {
                let size = std::fs::metadata(data.join(name)).map_or(0, |m| m.len());
                slot.fetch_max(size, Ordering::Relaxed);
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    fn reset(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn largest(&self) -> [u64; 2] {
        [0, 1].map(|n| self.0[n].load(Ordering::Relaxed))
    }
}

/// Restores the backup, starts the gateway and queries it.
async fn is_whole(
    original: &Program,
    ledger: &Ledger,
    file: &Path,
    acknowledged: &Acknowledged,
    old: u32,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    backup::restore(file, &DataDir::open(dir.path())?, Arc::new(|_, _| {})).await?;
    let restored = Program::start_in(dir).await?;
    let key = |p: &Program| p.server.identity.wireguard.public();
    ensure!(key(&restored) == key(original), "another key");
    ensure!(restored.server.first_admin.is_none(), "it is taken for a first start");
    states_are_there(&restored, ledger, acknowledged).await?;
    for n in 1..=acknowledged.devices {
        restored.call(Method::GET, &format!("/devices/new-{n}"), &Value::Null).await?;
    }
    let host = restored.call(Method::GET, "/hosts/h-0/settings", &Value::Null).await?;
    let note = host["notes"].as_str().unwrap_or_default().trim_start_matches("note ").parse().unwrap_or(0);
    ensure!(acknowledged.notes <= note, "note {note} of {}", acknowledged.notes);
    ensure!(restored.server.state.store.last_event().await? >= acknowledged.last_event, "events are missing");
    samples_are_there(original, &restored, ledger, acknowledged).await?;
    ensure!(samples(original, old).await? == samples(&restored, old).await?, "old samples differ");
    restored.server.stop().await;
    Ok(())
}

async fn states_are_there(
    restored: &Program,
    ledger: &Ledger,
    acknowledged: &Acknowledged,
) -> anyhow::Result<()> {
    for host in 0..ledger.proof.hosts {
        let path = format!("/hosts/{}/services", host_name(host));
        let page = restored.call(Method::GET, &path, &Value::Null).await?;
        let found = page["items"].as_array().context("services")?;
        for n in 0..ledger.proof.services {
            let name = service_name(n);
            let state = found.iter().find(|s| s["name"] == name.as_str());
            let state = state.with_context(|| format!("{name} of h-{host}"))?;
            let text = state["text"].as_str().unwrap_or_default();
            let round: u64 = text.trim_start_matches("round ").parse().unwrap_or(0);
            let wanted = acknowledged.results[host * ledger.proof.services + n];
            ensure!(round >= wanted, "h-{host}/{name}: {text:?}, and round {wanted} was acknowledged");
        }
    }
    Ok(())
}

/// Checks that the backup has the samples of all results that were acknowledged when it began. The
/// history keeps the last sample of each second.
async fn samples_are_there(
    original: &Program,
    restored: &Program,
    ledger: &Ledger,
    acknowledged: &Acknowledged,
) -> anyhow::Result<()> {
    for (index, last) in acknowledged.results.iter().enumerate() {
        let wanted = rounds(original, ledger, index).await?;
        let found = rounds(restored, ledger, index).await?;
        let newest = found.values().max().copied().unwrap_or(0);
        ensure!(
            newest >= *last,
            "the newest sample of service {index} is {newest}, and {last} was acknowledged"
        );
        let is_missing = |(at, round): &(&Second, &u64)| *round <= last && found.get(*at) != Some(*round);
        let lost = wanted.iter().filter(is_missing).count();
        ensure!(lost == 0, "{lost} of {} samples of service {index} are missing", wanted.len());
    }
    Ok(())
}

/// Returns the last result of a service in each second, as far as its sample is in the history.
async fn rounds(program: &Program, ledger: &Ledger, index: usize) -> anyhow::Result<BTreeMap<Second, u64>> {
    let host = ledger.hosts[index / ledger.proof.services];
    let store = &program.server.state.store;
    let known = store.series(host, Some(&service_name(index % ledger.proof.services))).await?;
    let Some(series) = known.first() else { return Ok(BTreeMap::new()) };
    let points = samples(program, series.id).await?;
    Ok(points.into_iter().filter_map(|point| Some((point.at, point.value? as u64))).collect())
}

/// Returns all samples of a series.
async fn samples(program: &Program, series: u32) -> anyhow::Result<Vec<Point>> {
    let today = today();
    // A midnight may have passed since they were made.
    let time = (today - OLD_DAYS - 2) * DAY..(today + 2) * DAY;
    Ok(program.server.state.history.series(series, time.start, time.end).await?)
}
