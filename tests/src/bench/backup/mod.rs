//! Backups under full load. Results and changes over the API arrive as fast as possible, while
//! backups are made, restored and started one after the other. Meanwhile samples are sealed, and blocks
//! are added to the history. A backup must contain everything that was acknowledged before it began.
//!
//! Each restored gateway is queried over its own API, and its history is compared with that of the
//! first.

mod load;
mod old;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::backup::room::free_bytes;
use fleetgate::backup::{self, Order};
use fleetgate::data_dir::DataDir;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate_engine::history::{DAY, Point, Second};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::program::Program;
use super::report;
use load::{Acknowledged, Ledger, Logs, host_name, seal, service_name};
use old::Old;

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
/// One backup of a large history.
const LARGE: Proof = Proof { backups: 1, hosts: 10, services: 10, ..FULL };
/// Days of each series that exists before the run: fewer than samples are kept.
const OLD_DAYS: i64 = 28;
/// The host of the first of these series.
const OLD_HOST: i64 = 1_000_000;
/// The size at which the log of the history counts as held.
const HELD: u64 = 64_000_000;
/// The room for what the load adds to each copy of the data.
const GROWTH: u64 = 200_000_000;
/// The time in which the load gets going.
const SETTLED: Duration = Duration::from_secs(2);
/// By then all parts of the load have done something, also on a disk that is held up.
const GOING: Duration = Duration::from_secs(60);

/// # Errors
/// Fails when a backup cannot be made or restored or lacks something, when the log of the history is held, or when the disk
/// has too little room.
pub fn run() -> anyhow::Result<()> {
    run_with(FULL)
}

/// Runs the same with a history of this many GB.
///
/// # Errors
/// Fails like [`run`].
pub fn run_large(gigabytes: f64) -> anyhow::Result<()> {
    run_with(Proof { history: (gigabytes * 1e9) as u64, ..LARGE })
}

fn run_with(proof: Proof) -> anyhow::Result<()> {
    must_have_room(&proof)?;
    tokio::runtime::Runtime::new()?.block_on(prove(proof))
}

/// While a backup is made, its copy of the history lies beside its archive. While one is restored, all backups are
/// there.
fn must_have_room(proof: &Proof) -> anyhow::Result<()> {
    let folder = std::env::temp_dir();
    let needed = (proof.history / 10 * 11 + GROWTH) * (proof.backups as u64 + 2);
    let Some(free) = free_bytes(&folder) else { return Ok(()) };
    let folder = folder.display();
    report("room that is needed, and free", &format!("{}, {}", mb(needed), mb(free)), "-");
    ensure!(needed <= free, "{} are needed in {folder}, and {} are free: set TMPDIR", mb(needed), mb(free));
    Ok(())
}

/// # Errors
/// Fails when a backup cannot be made or restored or lacks something, or when the log of the history is held.
pub async fn prove(proof: Proof) -> anyhow::Result<()> {
    let (program, old) = filled(proof.history).await?;
    let program = Arc::new(program);
    let ledger = Arc::new(Ledger::new(&program, proof).await?);
    let out = tempfile::tempdir()?;
    let made = made_under_load(&program, &ledger, out.path()).await?;
    made.report();
    for (backup, acknowledged) in &made.backups {
        is_whole(&program, &ledger, &backup.file, acknowledged, &old).await?;
        std::fs::remove_file(&backup.file)?;
    }
    let whole = format!("{} of {}", made.backups.len(), proof.backups);
    report("backups that restore with all that was acknowledged", &whole, "all");
    let log = made.logs[1];
    ensure!(log < HELD, "the log of history.db grew to {}: a backup held it", mb(log));
    Arc::into_inner(program).context("the load has ended")?.server.stop().await;
    Ok(())
}

/// Starts a program with a history of about this size.
async fn filled(bytes: u64) -> anyhow::Result<(Program, Old)> {
    let dir = Program::start().await?.stop().await;
    let (begun, today) = (Instant::now(), today());
    let old = Old::fill(dir.path(), bytes, today - OLD_DAYS..today).await?;
    let took = begun.elapsed().as_secs_f64();
    let program = Program::start_in(dir).await?;
    old.are_right(&program).await?;
    let size = std::fs::metadata(program.data().join(HISTORY_FILE))?.len();
    report("history before, made in", &format!("{}, {took:.1} s", mb(size)), "-");
    Ok((program, old))
}

/// What was made under load, and what it cost.
struct Made {
    /// With what was acknowledged when each began.
    backups: Vec<(backup::Made, Acknowledged)>,
    longest: Duration,
    /// Results a second.
    rate: f64,
    /// Results that were not on disk in time.
    delayed: u64,
    /// The largest sizes of the write-ahead logs.
    logs: [u64; 2],
}

impl Made {
    fn report(&self) {
        let size = self.backups.last().map_or(0, |(backup, _)| backup.bytes);
        report("results a second meanwhile", &format!("{:.0}", self.rate), "-");
        report("results that were not on disk in time", &self.delayed.to_string(), "-");
        report("size of the last backup", &mb(size), "-");
        report("longest time of one", &format!("{:.1} s", self.longest.as_secs_f64()), "-");
        report("largest log of fleetgate.db", &mb(self.logs[0]), "-");
        report("largest log of history.db", &mb(self.logs[1]), &format!("under {}", mb(HELD)));
    }
}

/// Makes the backups, one after the other. The load ends after the last one.
async fn made_under_load(program: &Arc<Program>, ledger: &Arc<Ledger>, out: &Path) -> anyhow::Result<Made> {
    let logs = Arc::new(Logs::default());
    let mut load = JoinSet::new();
    ledger.load(program, &mut load);
    load.spawn(seal(ledger.clone(), program.clone()));
    load.spawn(logs.clone().watch(program.data().to_owned(), ledger.clone()));
    tokio::time::sleep(SETTLED).await;
    let settled = Instant::now();
    while ledger.additions.load(Ordering::SeqCst) == 0 {
        ensure!(settled.elapsed() < GOING, "no block was added to the history");
        tokio::time::sleep(SETTLED / 10).await;
    }
    let (mut backups, mut longest) = (Vec::new(), Duration::ZERO);
    let start = (ledger.taken(), Instant::now());
    logs.reset();
    for n in 0..ledger.proof.backups {
        let acknowledged = ledger.now(program).await?;
        let begun = Instant::now();
        let order = Order {
            data: program.data().to_owned(),
            target: out.join(format!("proof-{n}.tar")),
            history: true,
            keep: None,
        };
        let backup = backup::make(&order, Arc::new(|_, _| {})).await?;
        longest = longest.max(begun.elapsed());
        backups.push((backup, acknowledged));
    }
    let rate = (ledger.taken() - start.0) as f64 / start.1.elapsed().as_secs_f64();
    let (logs, delayed) = (logs.largest(), ledger.delayed.load(Ordering::SeqCst));
    ledger.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    Ok(Made { backups, longest, rate, delayed, logs })
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn today() -> i64 {
    fleetgate::clock::wall().as_millis().div_euclid(1_000).div_euclid(DAY)
}

/// Restores the backup, starts the gateway and queries it.
async fn is_whole(
    original: &Program,
    ledger: &Ledger,
    file: &Path,
    acknowledged: &Acknowledged,
    old: &Old,
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
    old.are_same(original, &restored).await?;
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
