//! A large fleet with days of samples of each series: how long a start and graphs take on tables of that size.
//!
//! The blocks of a few series are copied to all others (`patterns.rs`), because what a reading costs depends on the
//! size of the tables and of the blocks, and not on the values. Some series have years of samples of their own.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use fleetgate::backup::room::free_bytes;
use fleetgate::history::Recorder;
use fleetgate::store::Store;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate::store::history::Series;
use fleetgate_engine::history::query::{Plan, plan};
use fleetgate_engine::history::{DAY, Second};
use fleetgate_engine::id::HostId;
use fleetgate_keys::SealKey;

use super::super::program::Program;
use super::super::{median, report};
use super::KEEP;
use super::fleet::Fleet;
use super::load::{POINTS, READINGS, WIDE, deep};
use super::patterns::Patterns;
use crate::dice::Dice;

/// Graphs that are read together, each of another host.
const GRAPHS: usize = 12;
/// What the file needs beside its blocks: some years of few series, names, and half-filled pages.
const BESIDE: u64 = 500_000_000;

/// Stores this many days of each series.
///
/// # Errors
/// Fails when a database refuses a write, the disk has too little room, or the program does not start.
pub async fn measure(series: u32, days: u32, years: u32, now: Second) -> anyhow::Result<()> {
    let dir = Program::start().await?.stop().await;
    let (begun, today) = (Instant::now(), now.div_euclid(DAY));
    let patterns = Patterns::make(today - i64::from(days)..today).await?;
    must_have_room(u64::from(series) * patterns.bytes)?;
    let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await?;
    let recorder = Recorder::open(store.clone(), KEEP).await?;
    let deep = deep(&recorder, &store, years, today).await?;
    drop(recorder);
    let mut fleet = Fleet::new(WIDE, series);
    let ids = fleet.register(&store, today * DAY).await?;
    store.close().await;
    let file = dir.path().join(HISTORY_FILE);
    patterns.copy(&file, &ids).await?;
    println!("  {} series with {days} days each:", fleet.series());
    let size = std::fs::metadata(&file)?.len() as f64 / 1e9;
    let took = begun.elapsed().as_secs_f64();
    report("  history.db, made in", &format!("{size:.2} GB, {took:.0} s"), "-");
    forget_pages(&file)?;
    let begun = Instant::now();
    let program = Program::start_in(dir).await?;
    report("start with these series", &format!("{:.1} s", begun.elapsed().as_secs_f64()), "-");
    let wide = graphs(&program.server.state.store, fleet.hosts()).await?;
    forget_pages(&file)?;
    let readings = Readings { deep, wide, days: days.min(30), now };
    for when in ["not in memory", "again"] {
        readings.measure(&program.server.state.history, when).await?;
    }
    program.server.stop().await;
    Ok(())
}

fn must_have_room(blocks: u64) -> anyhow::Result<()> {
    let folder = std::env::temp_dir();
    let needed = blocks / 10 * 11 + BESIDE;
    let Some(free) = free_bytes(&folder) else { return Ok(()) };
    let [needed_gb, free_gb] = [needed, free].map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    report("room that is needed, and free", &format!("{needed_gb}, {free_gb}"), "-");
    let folder = folder.display();
    ensure!(needed <= free, "{needed_gb} are needed in {folder}, and {free_gb} are free: set TMPDIR");
    Ok(())
}

/// Drops a file from the page cache, so that it is read from the disk.
#[allow(unsafe_code, reason = "std has no posix_fadvise")]
fn forget_pages(file: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    // Pages that are not written back stay.
    file.sync_all()?;
    // SAFETY: the descriptor is open for the call, which takes no pointer.
    let rc = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(rc == 0, "posix_fadvise: {}", std::io::Error::from_raw_os_error(rc));
    Ok(())
}

/// Chooses random series for each reading, the same in every run.
async fn graphs(store: &Store, hosts: u32) -> anyhow::Result<Vec<Vec<Series>>> {
    let mut dice = Dice(u64::from(hosts));
    let mut all = Vec::with_capacity(READINGS);
    for _ in 0..READINGS {
        let mut together = Vec::with_capacity(GRAPHS);
        for n in 0..GRAPHS {
            let host = HostId::from_i64(WIDE + dice.roll(u64::from(hosts)).cast_signed());
            let mut of_host = store.series(host, None).await?;
            ensure!(!of_host.is_empty(), "a host has no series");
            together.push(of_host.swap_remove(n % of_host.len()));
        }
        all.push(together);
    }
    Ok(all)
}

/// What is read.
struct Readings {
    /// Series that have years.
    deep: Vec<Series>,
    /// Series that are read together.
    wide: Vec<Vec<Series>>,
    /// The days of the last 30 that these have.
    days: u32,
    now: Second,
}

impl Readings {
    async fn measure(&self, recorder: &Recorder, when: &str) -> anyhow::Result<()> {
        let kept = KEEP.kept();
        let year = plan(self.now - 365 * DAY, self.now, POINTS, self.now, &kept);
        let month = plan(self.now - 30 * DAY, self.now, POINTS, self.now, &kept);
        let (mut years, mut months) = (Vec::new(), Vec::new());
        for series in self.deep.chunks(1) {
            years.push(read(recorder, series, &year, 100).await?);
        }
        for series in &self.wide {
            // A graph of 30 days has some hundred points.
            months.push(read(recorder, series, &month, self.days as usize * 3).await?);
        }
        let ms = |took: Vec<f64>| format!("{:.1} ms", median(took));
        report(&format!("a year of one metric, median, {when}"), &ms(years), "under 50 ms");
        report(&format!("{GRAPHS} graphs of 30 days, median, {when}"), &ms(months), "under 100 ms");
        Ok(())
    }
}

/// Returns the milliseconds that a reading takes. `least`: the points with a value that a graph must have.
async fn read(recorder: &Recorder, asked: &[Series], plan: &Plan, least: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let found = recorder.query(asked, plan).await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let is_full = found.iter().all(|columns| columns.avg.iter().flatten().count() >= least);
    ensure!(is_full && found.len() == asked.len(), "a graph lacks its columns");
    Ok(took)
}
