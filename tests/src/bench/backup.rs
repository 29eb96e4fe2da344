//! Backups under full load. Results and changes over the API arrive as fast as possible, while
//! backups are made, restored and started one after the other. A backup must contain everything
//! that was acknowledged before it began.
//!
//! Each restored gateway is queried over its own API, and its history is compared with that of the
//! first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::backup::{self, Order};
use fleetgate::data_dir::DataDir;
use fleetgate::store::history::{self, SeriesCache};
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{Outcome, Sample, Submission};
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::sample::Metric;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::program::Program;
use super::report;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    pub backups: usize,
    pub hosts: usize,
    /// Services per host, with a sender each.
    pub services: usize,
    /// Samples that exist before the run.
    pub history: usize,
}

/// The run shown in `docs/performance.md`.
const FULL: Proof = Proof { backups: 12, hosts: 50, services: 20, history: 4_000_000 };
/// One backup of a history of years, under a load as at night.
const LARGE: Proof = Proof { backups: 1, hosts: 10, services: 10, ..FULL };
/// Size of a sample in the file.
const SAMPLE_BYTES: f64 = 20.0;
/// Series of the samples that exist before the run.
const OLD_SERIES: usize = 400;
/// Time between two samples of an old series.
const EVERY_MS: i64 = 1_000;
/// Interval at which the size of the logs is read.
const GLANCE: Duration = Duration::from_millis(20);
/// Time between two changes of one caller over the API.
const CHANGES: Duration = Duration::from_millis(20);
/// Longest delay between the acknowledgement of a result and the write of its samples.
const SETTLED: Duration = Duration::from_secs(4);

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
    let history = (gigabytes * 1e9 / SAMPLE_BYTES) as usize;
    tokio::runtime::Runtime::new()?.block_on(prove(Proof { history, ..LARGE }))
}

/// # Errors
/// Fails when a backup cannot be made or restored, or lacks something.
pub async fn prove(proof: Proof) -> anyhow::Result<()> {
    let program = Arc::new(Program::start().await?);
    fill(&program, proof.history).await?;
    let before = std::fs::metadata(program.data().join("history.db"))?.len();
    let ledger = Arc::new(Ledger::new(&program, proof).await?);
    let logs = Arc::new(Logs::default());
    let mut load = JoinSet::new();
    ledger.load(&program, &mut load);
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
    tokio::time::sleep(SETTLED).await;
    let size = made.last().map_or(0, |(backup, _)| backup.bytes);
    let (mut whole, mut late) = (0, 0);
    for (backup, acknowledged) in &made {
        late += is_whole(&program, &ledger, &backup.file, acknowledged).await?;
        std::fs::remove_file(&backup.file)?;
        whole += 1;
    }
    report(
        "backups that restore with all that was acknowledged",
        &format!("{whole} of {}", proof.backups),
        "all",
    );
    report("  samples that followed their results too late for one", &format!("{late}"), "0");
    report("  results a second meanwhile", &format!("{rate:.0}"), "-");
    report("  history before", &mb(before), "-");
    report("  size of the last one", &mb(size), "-");
    report("  longest time of one", &format!("{:.1} s", longest.as_secs_f64()), "-");
    report(
        "  largest log of fleetgate.db, history.db",
        &format!("{}, {}", mb(largest[0]), mb(largest[1])),
        "-",
    );
    Arc::into_inner(program).context("the load has ended")?.server.stop().await;
    Ok(())
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Fills the history with samples of removed hosts, all older than an hour. The database itself
/// generates them.
async fn fill(program: &Program, samples: usize) -> anyhow::Result<()> {
    let (now, mut cache) = (fleetgate::clock::wall(), SeriesCache::default());
    let each = (samples / OLD_SERIES) as i64;
    let first = now - Duration::from_secs(3_600) - Duration::from_millis((each * EVERY_MS).unsigned_abs());
    let history = program.server.state.store.history.write();
    for series in 0..OLD_SERIES {
        let host = HostId::from_i64(1 + series as i64);
        let metrics = vec![Metric::plain("value", 0.0, "")];
        let sample = Sample { host, service: "old".into(), at: first, metrics };
        let mut tx = history.begin().await?;
        history::write(&mut tx, &mut cache, &[sample]).await?;
        let more = "insert into samples
                    with recursive n (i) as (select 1 union all select i + 1 from n where i < $2 - 1)
                    select (select max(id) from series), $1 + i * $3, i from n";
        sqlx::query(more).bind(first.as_millis()).bind(each).bind(EVERY_MS).execute(&mut *tx).await?;
        tx.commit().await?;
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
    /// For each service the last result whose sample was in the history. Samples are written after
    /// the acknowledgement.
    sampled: Vec<u64>,
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
        let mut sampled = Vec::new();
        for index in 0..self.results.len() {
            sampled.push(rounds(program, self, index, 1).await?.last().copied().unwrap_or(0));
        }
        Ok(Acknowledged {
            sampled,
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
            .submit(None, |ticket| Submission {
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
) -> anyhow::Result<usize> {
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
    let late = samples_are_there(original, &restored, ledger, acknowledged).await?;
    restored.server.stop().await;
    Ok(late)
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

/// Checks that the backup has all samples that were in the history when it began. Returns how many
/// samples it lacks although their results were acknowledged by then; these were written later.
async fn samples_are_there(
    original: &Program,
    restored: &Program,
    ledger: &Ledger,
    acknowledged: &Acknowledged,
) -> anyhow::Result<usize> {
    let mut late = 0;
    for index in 0..ledger.results.len() {
        let wanted = rounds(original, ledger, index, i64::MAX).await?;
        let found = rounds(restored, ledger, index, i64::MAX).await?;
        let missing: Vec<u64> = wanted.difference(&found).copied().collect();
        let lost = missing.iter().filter(|round| **round <= acknowledged.sampled[index]).count();
        ensure!(lost == 0, "{lost} of {} samples of service {index} are missing", wanted.len());
        late += missing.iter().filter(|round| **round <= acknowledged.results[index]).count();
    }
    let old = HostId::from_i64(OLD_SERIES as i64 / 2);
    ensure!(old_samples(original, old).await? == old_samples(restored, old).await?, "old samples differ");
    Ok(late)
}

/// Returns the results of a service whose samples are in the history.
async fn rounds(
    program: &Program,
    ledger: &Ledger,
    index: usize,
    most: i64,
) -> anyhow::Result<BTreeSet<u64>> {
    let host = ledger.hosts[index / ledger.proof.services];
    let store = &program.server.state.store;
    let known = store.series(host, Some(&service_name(index % ledger.proof.services))).await?;
    let Some(series) = known.first() else { return Ok(BTreeSet::new()) };
    let all = (Wall::from_millis(0), Wall::from_millis(i64::MAX));
    let rows = store.samples(series.id, all.0, all.1, most).await?;
    Ok(rows.into_iter().filter_map(|(_, value)| value).map(|value| value as u64).collect())
}

async fn old_samples(program: &Program, host: HostId) -> anyhow::Result<Vec<(Wall, Option<f64>)>> {
    let store = &program.server.state.store;
    let known = store.series(host, None).await?;
    let series = known.first().context("a series that was there before")?;
    let all = (Wall::from_millis(0), Wall::from_millis(i64::MAX));
    Ok(store.samples(series.id, all.0, all.1, i64::MAX).await?)
}
