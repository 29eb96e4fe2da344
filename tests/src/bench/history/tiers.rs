//! The bytes of all tiers of some series that were recorded for years.

use std::ops::Range;
use std::path::Path;

use anyhow::ensure;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate::store::history::{Sealable, Table};
use fleetgate::store::{Store, copy};
use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_keys::SealKey;
use sqlx::AssertSqlSafe;

use super::super::report;
use super::rrd::{self, Rrd};
use super::series::{Generator, Profile};

/// Two of each profile.
pub const SERIES: u32 = 12;
/// Series that rrdtool gets: one of each profile.
const IN_RRD: u32 = 6;
/// Days of the blocks of five minutes.
const PERIOD: i64 = 8;
/// The tables of the raw tier.
const RAW: [Table; 2] = [Table::RawHours, Table::Raw];
/// The days for which a table is kept that does not last for years: the defaults.
const KEPT: [(Table, i64); 4] =
    [(Table::RawHours, 30), (Table::Raw, 30), (Table::Days, 90), (Table::FiveMinutes, 90)];

/// Fills a store with some series of years and prints what they take.
///
/// # Errors
/// Fails when the store cannot be filled.
pub async fn measure(years: u32, today: i64) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await?;
    let empty = size(dir.path()).await?;
    let days = today - 365 * i64::from(years)..today;
    fill(&store, &(1..=SERIES).collect::<Vec<_>>(), days.clone()).await?;
    let all = (size(dir.path()).await? - empty) / u64::from(SERIES);
    let samples = raw_samples(&store, days.end).await?;
    let payload = payload(&store).await?;
    for table in Table::ALL.into_iter().filter(|table| !RAW.contains(table)) {
        delete(&store, table, i64::MAX).await?;
    }
    let raw = (size(dir.path()).await? - empty) as f64 / samples.iter().sum::<u64>() as f64;
    report("raw tier: bytes of a one-minute sample, everything included", &format!("{raw:.2}"), "at most 2");
    for (n, profile) in Profile::ALL.into_iter().enumerate() {
        let bytes = payload[n] as f64 / samples[n] as f64;
        report(&format!("  in blocks alone: {}", profile.name()), &format!("{bytes:.2}"), "-");
    }
    let target = if years == 3 { "at most 350 KB" } else { "-" };
    report(&format!("all tiers of {years} years of one series"), &kb(all), target);
    store.close().await;
    let found = tokio::task::block_in_place(|| rrd::measure(IN_RRD, days.start * DAY, days.end * DAY))?;
    report_rrd(found, all);
    Ok(())
}

fn kb(bytes: u64) -> String {
    format!("{:.0} KB", bytes as f64 / 1_024.0)
}

fn report_rrd(found: Option<Rrd>, ours: u64) {
    let Some(rrd) = found else {
        report("rrdtool with the same archives", "not installed", "-");
        return;
    };
    let times = rrd.bytes as f64 / ours as f64;
    report("rrdtool: a file with the same archives", &kb(rrd.bytes), "-");
    report("  against ours", &format!("{times:.1} times"), "about 3");
    let micros = [rrd.single, rrd.batched].map(|cpu| cpu.as_secs_f64() * 1e6);
    let updates = format!("{:.1} us, {:.1} us", micros[0], micros[1]);
    report("rrdtool: CPU of an update, one and 60 in a call", &updates, "-");
    let year = format!("{:.1} ms", rrd.year.as_secs_f64() * 1e3);
    report("rrdtool: a year of one metric by the hour, averages", &year, "-");
}

/// Fills the tiers of these series as a gateway has them that began on the first of the days: of the last day only hours
/// are sealed, and what is too old was removed.
///
/// # Errors
/// Fails when the database refuses a write.
pub async fn fill(store: &Store, ids: &[u32], days: Range<i64>) -> anyhow::Result<()> {
    let mut series = generators(ids);
    fill_days(store, &mut series, days.start..days.end - 1).await?;
    for hour in (days.end - 1) * DAY / HOUR..days.end * DAY / HOUR {
        let sealed = series.iter_mut().map(|(id, g)| part(*id, g, hour * HOUR..(hour + 1) * HOUR));
        store.seal_step(&sealed.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Returns what makes the samples of these series, each with its id.
pub fn generators(ids: &[u32]) -> Vec<(u32, Generator)> {
    ids.iter().enumerate().map(|(n, id)| (*id, Generator::new(n as u32))).collect()
}

/// Fills the tiers of these series with days that are over. Periods that are over as well are merged, and what is too old
/// is removed.
///
/// # Errors
/// Fails when the database refuses a write.
pub async fn fill_days(
    store: &Store,
    series: &mut [(u32, Generator)],
    days: Range<i64>,
) -> anyhow::Result<()> {
    let first = series.iter().map(|(id, _)| *id).min();
    let last = series.iter().map(|(id, _)| *id).max();
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let mut day = days.start;
    while day < days.end {
        let period = day.div_euclid(PERIOD);
        let end = ((period + 1) * PERIOD).min(days.end);
        for (id, generator) in series.iter_mut() {
            store.put_days(&part(*id, generator, day * DAY..end * DAY)).await?;
        }
        if end == (period + 1) * PERIOD {
            store.merge_step(period, first, last).await?;
        }
        expire(store, end).await?;
        day = end;
    }
    Ok(())
}

fn part(series: u32, generator: &mut Generator, time: Range<Second>) -> Sealable {
    let points = generator.samples(time.start, time.end);
    Sealable { series, kind: generator.profile.kind(), points }
}

/// Removes the blocks whose whole window is too old.
async fn expire(store: &Store, today: i64) -> anyhow::Result<()> {
    for (table, days) in KEPT {
        let hour = (today - days) * 24 - i64::from(table.window()) + 1;
        delete(store, table, hour << 32).await?;
    }
    Ok(())
}

async fn delete(store: &Store, table: Table, before: i64) -> anyhow::Result<()> {
    let sql = format!("delete from {} where key < $1", table.name());
    sqlx::query(AssertSqlSafe(sql)).bind(before).execute(&store.history.write()).await?;
    Ok(())
}

async fn size(dir: &Path) -> anyhow::Result<u64> {
    copy::used_bytes(&dir.join(HISTORY_FILE)).await
}

/// Returns for each profile the number of samples that are kept as they were measured.
async fn raw_samples(store: &Store, today: i64) -> anyhow::Result<[u64; 6]> {
    let mut counts = [0; 6];
    for id in 1..=SERIES {
        let read = store.raw(id, (today - 40) * DAY, today * DAY).await?;
        let count = read.points.len() as u64;
        ensure!(count > 40_000, "only {count} samples of 30 days are there");
        counts[(id as usize - 1) % counts.len()] += count;
    }
    Ok(counts)
}

/// Returns for each profile the bytes of its blocks in the raw tier.
async fn payload(store: &Store) -> anyhow::Result<[u64; 6]> {
    let mut bytes = [0; 6];
    for table in RAW {
        let sql = format!("select key & 4294967295, sum(length(data)) from {} group by 1", table.name());
        let rows: Vec<(i64, i64)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&store.history.read()).await?;
        for (id, sum) in rows {
            bytes[(id as usize - 1) % bytes.len()] += sum as u64;
        }
    }
    Ok(bytes)
}
