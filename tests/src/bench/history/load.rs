//! A large fleet for two hours: what is written, CPU and memory, a start while an hour is unsealed, and reading.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fleetgate::history::Recorder;
use fleetgate::store::Store;
use fleetgate::store::history::Series;
use fleetgate_engine::history::query::plan;
use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_keys::SealKey;

use super::super::program::Program;
use super::super::{cpu_of, median, report};
use super::day::RollUps;
use super::fleet::{Fleet, commit};
use super::series::MINUTE;
use super::spent::{Spent, forget_peak, memory};
use super::{KEEP, tiers};

/// Commits a second. The writer gathers results for 100 ms.
const COMMITS: i64 = 10;
/// Readings of each kind.
pub(super) const READINGS: usize = 21;
/// Columns of a graph.
pub(super) const POINTS: u32 = 600;
/// The hosts of the series that have years begin at this number, and the others at the next.
const DEEP: i64 = 1;
pub(super) const WIDE: i64 = 1_000;

/// # Errors
/// Fails when a database refuses a write, or the program does not start.
pub async fn measure(series: u32, years: u32, now: Second, roll_ups: RollUps) -> anyhow::Result<()> {
    let dir = Program::start().await?.stop().await;
    let mut fleet = Fleet::new(WIDE, series);
    let resident = memory("VmRSS");
    let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await?;
    let recorder = Recorder::open(store.clone(), KEEP).await?;
    let deep = deep(&recorder, &store, years, now.div_euclid(DAY)).await?;
    let begin = now - now.rem_euclid(MINUTE) - 2 * HOUR;
    hour(&recorder, &store, &mut fleet, begin).await?;
    forget_peak();
    let (before, begun) = (Spent::now(), Instant::now());
    // An hour is sealed while the next one is committed.
    let sealing = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.seal_now().await }
    });
    let (values, making) = hour(&recorder, &store, &mut fleet, begin + HOUR).await?;
    sealing.await??;
    let spent = Spent::now() - before;
    println!(
        "  {} series, {COMMITS} commits a second, an hour and the seal of the one before:",
        fleet.series()
    );
    report("  values, in", &format!("{values}, {:.0} s", begun.elapsed().as_secs_f64()), "-");
    report_costs(&fleet, Spent { cpu: spent.cpu.saturating_sub(making), ..spent }, values, roll_ups);
    let peak = memory("VmHWM").saturating_sub(resident);
    report("memory for the history, at its peak", &format!("{:.0} MB", peak as f64 / 1e6), "at most 300 MB");
    drop(recorder);
    store.close().await;
    let begun = Instant::now();
    let program = Program::start_in(dir).await?;
    let took = format!("{:.1} s", begun.elapsed().as_secs_f64());
    report("start with these series and an unsealed hour", &took, "under 5 s");
    read(&program.server.state.history, &deep, now).await?;
    program.server.stop().await;
    Ok(())
}

/// Makes series that have years of samples.
pub(super) async fn deep(
    recorder: &Recorder,
    store: &Store,
    years: u32,
    today: i64,
) -> anyhow::Result<Vec<Series>> {
    let mut fleet = Fleet::new(DEEP, tiers::SERIES);
    fleet.enrol(recorder, store, today * DAY).await?;
    let stored = fleet.stored(store).await?;
    let series: Vec<Series> = stored.into_values().take(tiers::SERIES as usize).collect();
    let ids: Vec<u32> = series.iter().map(|s| s.id).collect();
    tiers::fill(store, &ids, today - 365 * i64::from(years)..today).await?;
    Ok(series)
}

/// Commits an hour. Each series has a sample in each minute, at a time of its own. Returns the number of values, and the
/// CPU time that it took to make them.
async fn hour(
    recorder: &Recorder,
    store: &Store,
    fleet: &mut Fleet,
    from: Second,
) -> anyhow::Result<(u64, Duration)> {
    let (mut values, mut making) = (0, Duration::ZERO);
    let turns = MINUTE * COMMITS;
    for n in 0..HOUR * COMMITS {
        let host = |turn: i64| (i64::from(fleet.hosts()) * turn / turns) as u32;
        let hosts = host(n % turns)..host(n % turns + 1);
        let (cpu, (results, count)) = cpu_of(|| fleet.results(hosts, from + n / COMMITS));
        making += cpu;
        values += count;
        if count > 0 {
            commit(recorder, store, &results).await?;
        }
    }
    Ok((values, making))
}

fn report_costs(fleet: &Fleet, spent: Spent, values: u64, roll_ups: RollUps) {
    if spent.written == 0 {
        report("bytes written of a sample", "not counted: TMPDIR is no disk", "at most 200");
    } else {
        let each = spent.bytes_of(values);
        report("bytes written of a sample: commit and seal", &format!("{each:.0}"), "-");
        let all = each + roll_ups.written;
        report("  with roll-ups", &format!("{all:.0}"), "at most 200");
    }
    let each = spent.micros_of(values);
    report("CPU of a sample: commit and seal", &format!("{each:.2} us"), "-");
    let a_second = fleet.series() as f64 / MINUTE as f64;
    let share = (each + roll_ups.cpu_us) * a_second / 1e6 * 100.0;
    report("  share of a core with roll-ups, one sample a minute", &format!("{share:.2} %"), "at most 5 %");
}

async fn read(recorder: &Recorder, deep: &[Series], now: Second) -> anyhow::Result<()> {
    let kept = KEEP.kept();
    let year = plan(now - 365 * DAY, now, POINTS, now, &kept);
    let month = plan(now - 30 * DAY, now, POINTS, now, &kept);
    let (mut years, mut months) = (Vec::new(), Vec::new());
    for n in 0..READINGS {
        let one = &deep[n % deep.len()..][..1];
        for (took, asked, plan) in [(&mut years, one, &year), (&mut months, deep, &month)] {
            let begun = Instant::now();
            let found = recorder.query(asked, plan).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            let is_full = found.iter().all(|columns| columns.avg.iter().flatten().count() > 100);
            ensure!(is_full && found.len() == asked.len(), "a graph lacks its columns");
        }
    }
    report("a year of one metric, median", &format!("{:.1} ms", median(years)), "under 50 ms");
    let twelve = format!("{} graphs of 30 days, median", deep.len());
    report(&twelve, &format!("{:.1} ms", median(months)), "under 100 ms");
    Ok(())
}
