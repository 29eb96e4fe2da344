//! A day of a fleet, minute by minute, up to merged blocks; and the same samples in VictoriaMetrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use fleetgate::history::Recorder;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate::store::history::{Sealable, Series};
use fleetgate::store::{Store, copy};
use fleetgate_engine::history::{DAY, HOUR, Second, SeriesKind};
use fleetgate_keys::SealKey;

use super::super::report;
use super::fleet::{Fleet, commit};
use super::series::{Generator, MINUTE};
use super::spent::Spent;
use super::victoria::{self, Victoria};

const SERIES: u32 = 2_000;
/// Series in one step, as the program takes them.
const STEP: usize = 256;
/// Days that are merged together.
const PERIOD: i64 = 8;

/// What rolling up costs for each sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct RollUps {
    pub cpu_us: f64,
    pub written: f64,
}

/// Records a day and prints what it costs.
///
/// # Errors
/// Fails when a database refuses a write.
pub async fn measure(today: i64) -> anyhow::Result<RollUps> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await?;
    let file = dir.path().join(HISTORY_FILE);
    let empty = copy::used_bytes(&file).await?;
    // The last day of a period that is over.
    let day = today.div_euclid(PERIOD) * PERIOD - 1;
    let (recorded, samples, series) = record(&store, day).await?;
    let compacted = compact(&store, day, &series).await?;
    let bytes = (copy::used_bytes(&file).await? - empty) as f64 / samples as f64;
    let merged = merge(&store, day, &series).await?;
    store.close().await;
    let rolled_up = RollUps {
        cpu_us: compacted.micros_of(samples) + merged.micros_of(samples * PERIOD as u64),
        written: compacted.bytes_of(samples) + merged.bytes_of(samples * PERIOD as u64),
    };
    println!("  {SERIES} series for a day, one commit a minute:");
    let cpu = recorded.micros_of(samples);
    report(
        "CPU of a sample: commit and seal; roll-ups",
        &format!("{cpu:.2} us; {:.2} us", rolled_up.cpu_us),
        "-",
    );
    let written = recorded.bytes_of(samples);
    report("bytes written of a sample: the same", &format!("{written:.0}; {:.0}", rolled_up.written), "-");
    report("bytes on disk of a sample of a day that is over, with roll-ups", &format!("{bytes:.2}"), "-");
    let found = victoria::measure(SERIES, day * DAY).await?;
    report_victoria(found, samples, (cpu + rolled_up.cpu_us, bytes));
    Ok(rolled_up)
}

fn report_victoria(found: Option<Victoria>, samples: u64, (cpu_us, bytes): (f64, f64)) {
    let Some(Victoria { bytes: all, samples_bytes, cpu }) = found else {
        report("VictoriaMetrics with the same samples", "not installed", "-");
        return;
    };
    let each = |bytes: u64| bytes as f64 / samples as f64;
    let on_disk = format!("{:.2}, {:.2}", each(all), each(samples_bytes));
    report("VictoriaMetrics: bytes on disk of a sample, without the index", &on_disk, "-");
    report("  against ours, which has roll-ups too", &format!("{:.2} times", each(all) / bytes), "-");
    let theirs = cpu.as_secs_f64() * 1e6 / samples as f64;
    report("VictoriaMetrics: CPU of a sample, one request a minute", &format!("{theirs:.2} us"), "-");
    report("  against ours with roll-ups", &format!("{:.2} times", theirs / cpu_us), "-");
}

/// Records the day. Returns the costs without those of making the samples, the number of samples, and the series.
async fn record(store: &Store, day: i64) -> anyhow::Result<(Spent, u64, BTreeMap<u32, Series>)> {
    let recorder = Recorder::open(store.clone(), super::KEEP).await?;
    let mut fleet = Fleet::new(1, SERIES);
    let (mut spent, mut samples) = (Spent::default(), 0);
    for hour in (day * DAY..(day + 1) * DAY).step_by(HOUR as usize) {
        for at in (hour..hour + HOUR).step_by(MINUTE as usize) {
            let (results, values) = fleet.results(0..fleet.hosts(), at);
            let before = Spent::now();
            commit(&recorder, store, &results).await?;
            spent = spent + (Spent::now() - before);
            samples += values;
        }
        let before = Spent::now();
        recorder.seal_now().await?;
        spent = spent + (Spent::now() - before);
    }
    let series = fleet.stored(store).await?;
    ensure!(series.len() as u64 == fleet.series(), "{} series are stored", series.len());
    Ok((spent, samples, series))
}

async fn compact(store: &Store, day: i64, series: &BTreeMap<u32, Series>) -> anyhow::Result<Spent> {
    let kinds: BTreeMap<u32, SeriesKind> = series.values().map(|s| (s.id, SeriesKind::of(&s.uom))).collect();
    let kind = |id: u32| kinds.get(&id).copied().unwrap_or(SeriesKind::Gauge);
    let before = Spent::now();
    for (first, last) in steps(series)? {
        store.compact_step(day, first, last, &kind).await?;
    }
    checkpoint(store).await?;
    Ok(Spent::now() - before)
}

/// Merges a whole period. The costs of the other days of it are not counted.
async fn merge(store: &Store, day: i64, series: &BTreeMap<u32, Series>) -> anyhow::Result<Spent> {
    for (n, Series { id, uom, .. }) in series {
        let time: std::ops::Range<Second> = (day + 1 - PERIOD) * DAY..day * DAY;
        let points = Generator::new(*n).samples(time.start, time.end);
        store.put_days(&Sealable { series: *id, kind: SeriesKind::of(uom), points }).await?;
    }
    checkpoint(store).await?;
    let before = Spent::now();
    let mut days = 0;
    for (first, last) in steps(series)? {
        days += store.merge_step(day.div_euclid(PERIOD), first, last).await?;
    }
    checkpoint(store).await?;
    let spent = Spent::now() - before;
    ensure!(days == series.len() as u64 * PERIOD as u64, "{days} days were merged");
    Ok(spent)
}

/// Returns the first and the last series of each step.
fn steps(series: &BTreeMap<u32, Series>) -> anyhow::Result<Vec<(u32, u32)>> {
    let mut ids: Vec<u32> = series.values().map(|s| s.id).collect();
    ids.sort_unstable();
    let ends = ids.chunks(STEP).map(|part| Some((*part.first()?, *part.last()?)));
    ends.collect::<Option<Vec<_>>>().context("a step without a series")
}

/// Writes back the log, so that these bytes count for the work that caused them.
async fn checkpoint(store: &Store) -> anyhow::Result<()> {
    sqlx::query("pragma wal_checkpoint(truncate)").execute(&store.history.write()).await?;
    Ok(())
}
