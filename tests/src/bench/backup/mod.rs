//! Backups under full load. Results and changes over the API arrive as fast as possible, while
//! backups are made, restored and started one after the other. Meanwhile samples are sealed, and blocks
//! are added to the history. A backup must contain everything that was acknowledged before it began.
//!
//! Each restored gateway is queried over its own API, and its history is compared with that of the
//! first.

mod load;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::backup::{self, Order};
use fleetgate::data_dir::DataDir;
use fleetgate::store::copy;
use fleetgate::store::history::Sealable;
use fleetgate_engine::history::{DAY, Point, Second};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::history::fleet::Fleet;
use super::history::series::Generator;
use super::program::Program;
use super::report;
use load::{Acknowledged, Ledger, Logs, host_name, seal, service_name};

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
/// The size at which the log of the history counts as held.
const HELD: &str = "under 64 MB";
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
