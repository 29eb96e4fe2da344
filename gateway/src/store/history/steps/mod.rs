//! The steps in which blocks are written: sealing, compacting and merging.
//!
//! Each is one transaction of `history.db`. Written again, it changes nothing. The steps that write a day
//! know the last sample before it, so that the day's first interval counts.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::history::block::{self, encode_buckets, encode_raw};
use fleetgate_engine::history::rollup::{self, Bucket};
use fleetgate_engine::history::{BUCKET, DAY, HOUR, Point, Second, SeriesKind, merged, ordered};
use sqlx::sqlite::SqliteConnection;

use super::super::Store;
use super::blocks::{self, Block, Table};
use super::read::{self, DecodedBlocks};
use crate::clock;

/// Hours of a day, and of a block of samples.
const HOURS: u32 = Table::Days.window();
const HALF: u32 = Table::Raw.window();
/// Hours before a day in which the last sample before it is looked for. An older one covers nothing of it.
const BEFORE: u32 = 3;

/// Samples of one series that are written.
#[derive(Clone, Debug)]
pub struct Sealable {
    pub series: u32,
    pub kind: SeriesKind,
    /// In any order. Of equal seconds the last counts.
    pub points: Vec<Point>,
}

/// What the values of a series are.
type KindOf<'a> = &'a (dyn Fn(u32) -> SeriesKind + Sync);

impl Store {
    /// Seals samples in blocks of an hour.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn seal_step(&self, part: &[Sealable]) -> sqlx::Result<()> {
        let done = async {
            let mut tx = self.history.begin().await?;
            sealed(&mut tx, part).await?;
            tx.commit().await
        };
        self.history.judge(done.await)
    }

    /// Compacts a UTC day, given as its number since 1970, of the series `first..=last`: their hours become
    /// two blocks of samples and one of buckets. Returns the last sample of each.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn compact_step(
        &self,
        day: i64,
        first: u32,
        last: u32,
        kind: KindOf<'_>,
    ) -> sqlx::Result<Vec<(u32, Second)>> {
        let Some(begin) = blocks::hour(day.saturating_mul(DAY)) else { return Ok(Vec::new()) };
        let done = async {
            let mut tx = self.history.begin().await?;
            let seen = compacted(&mut tx, begin, (first, last), kind).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(seen)
        };
        self.history.judge(done.await)
    }

    /// Merges the days of a period of 8 days, given as its number since 1970, of the series `first..=last`
    /// into the longer blocks of each tier. Returns the number of days that were merged.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn merge_step(&self, period: i64, first: u32, last: u32) -> sqlx::Result<u64> {
        let hours = i64::from(Table::FiveMinutes.window());
        let begin = period.saturating_mul(hours).saturating_mul(HOUR);
        let Some(begin) = blocks::hour(begin) else { return Ok(0) };
        let done = async {
            let mut tx = self.history.begin().await?;
            let days = merged_days(&mut tx, begin, (first, last)).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(days)
        };
        self.history.judge(done.await)
    }

    /// Removes at most `most` of the oldest blocks of a table whose windows end at `before_hour` or earlier.
    /// Returns their number. Notes up to where they are removed.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn expire_step(&self, table: Table, before_hour: u32, most: i64) -> sqlx::Result<usize> {
        let done = async {
            let mut tx = self.history.begin().await?;
            let gone = blocks::expire(&mut tx, table, before_hour, most).await?;
            if let Some(last) = gone.iter().max() {
                let end = i64::from(block::parts(*last).0 + table.window());
                blocks::set_removed(&mut tx, table, end).await?;
            }
            tx.commit().await?;
            Ok::<_, sqlx::Error>(gone.len())
        };
        self.history.judge(done.await)
    }

    /// Notes the time by which the upkeep works, see [`read::Noted`]. Notes of removals that are later are of a clock
    /// that was ahead, and are set back.
    ///
    /// # Errors
    /// Fails when the history refuses the write.
    pub async fn note_believed(&self, at: Second) -> sqlx::Result<()> {
        let done = async {
            let mut tx = self.history.begin().await?;
            blocks::set_progress(&mut tx, blocks::BELIEVED, at).await?;
            blocks::set_back(&mut tx, at).await?;
            tx.commit().await
        };
        self.history.judge(done.await)
    }

    /// Writes whole days of a series at once, as if they had been sealed and compacted. A second that is
    /// stored already stays as it is.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn put_days(&self, series: &Sealable) -> sqlx::Result<()> {
        self.put_days_of(std::slice::from_ref(series)).await
    }

    /// Writes whole days of several series in one transaction, as [`Store::put_days`] does.
    ///
    /// # Errors
    /// Fails when the history refuses the write. Nothing is changed then.
    pub async fn put_days_of(&self, part: &[Sealable]) -> sqlx::Result<()> {
        let done = async {
            let mut tx = self.history.begin().await?;
            for series in part {
                days_put(&mut tx, series).await?;
            }
            tx.commit().await
        };
        self.history.judge(done.await)
    }
}

async fn sealed(conn: &mut SqliteConnection, part: &[Sealable]) -> sqlx::Result<()> {
    let mut new: BTreeMap<i64, (SeriesKind, Vec<Point>)> = BTreeMap::new();
    for Sealable { series, kind, points } in part {
        for point in ordered(points.clone()) {
            // No number is given to a sample of another time.
            let Some(hour) = blocks::hour(point.at) else { continue };
            let of_hour = new.entry(Table::RawHours.key(hour, *series)).or_insert((*kind, Vec::new()));
            of_hour.1.push(point);
        }
    }
    let keys: Vec<i64> = new.keys().copied().collect();
    let mut there = by_key(samples(conn, Table::RawHours, &keys).await?);
    let block = |(key, (kind, points)): (i64, (SeriesKind, Vec<Point>))| {
        let points = merged(&there.remove(&key).unwrap_or_default(), &points);
        (key, encode_raw(key, blocks::start(key), &points, kind))
    };
    let rows: Vec<Block> = new.into_iter().map(block).collect();
    blocks::put(conn, Table::RawHours, &rows).await
}

async fn compacted(
    conn: &mut SqliteConnection,
    begin: u32,
    (first, last): (u32, u32),
    kind: KindOf<'_>,
) -> sqlx::Result<Vec<(u32, Second)>> {
    let (mut new, mut keys): (Samples, Vec<i64>) = Default::default();
    for hour in begin..begin + HOURS {
        let (from, to) = (block::key(hour, first), block::key(hour, last));
        let found = read::samples(blocks::range(conn, Table::RawHours, from, to).await?);
        set_damaged(conn, Table::RawHours, &found).await?;
        for (key, points) in found.blocks {
            keys.push(key);
            new.entry(block::parts(key).1).or_default().extend(points);
        }
    }
    let mut days = Days::read(conn, begin, new.keys().copied().collect()).await?;
    for (series, points) in new {
        days.add(series, |there| merged(there, &points));
    }
    let seen = days.write(conn, kind).await?;
    blocks::remove(conn, Table::RawHours, &keys).await?;
    Ok(seen)
}

pub(super) async fn days_put(conn: &mut SqliteConnection, new: &Sealable) -> sqlx::Result<()> {
    let points = ordered(new.points.clone());
    for of_day in points.chunk_by(|a, b| a.at.div_euclid(DAY) == b.at.div_euclid(DAY)) {
        let day = of_day.first().and_then(|point| blocks::hour(point.at));
        let Some(hour) = day else { continue };
        let mut days = Days::read(conn, hour - hour % HOURS, vec![new.series]).await?;
        days.add(new.series, |there| merged(of_day, there));
        days.write(conn, &|_| new.kind).await?;
    }
    Ok(())
}

/// Samples of each series, in the order of time.
type Samples = BTreeMap<u32, Vec<Point>>;

/// One day of some series, and what is needed of the days beside it.
struct Days {
    /// The hour at which the day begins.
    begin: u32,
    /// The samples of the day.
    points: Samples,
    /// The last sample of each series before the day.
    before: Samples,
    /// The samples of the next day, of those series that have it compacted already.
    next: Samples,
    /// Series with a damaged block, also one that was moved aside before: their stored buckets say more than their
    /// samples.
    damaged: BTreeSet<u32>,
    /// The second before which days have lost samples to the upkeep: the same is true of all series.
    whole_from: Second,
}

impl Days {
    async fn read(conn: &mut SqliteConnection, begin: u32, series: Vec<u32>) -> sqlx::Result<Days> {
        let mut damaged = BTreeSet::new();
        let points = halves(conn, begin, &series, &mut damaged).await?;
        let next = halves(conn, begin + HOURS, &series, &mut damaged).await?;
        let before = last_before(conn, begin, &series).await?;
        let whole_from = blocks::whole_from(conn, Table::Raw).await?;
        Ok(Days { begin, points, before, next, damaged, whole_from })
    }

    fn add(&mut self, series: u32, change: impl FnOnce(&[Point]) -> Vec<Point>) {
        let there = self.points.entry(series).or_default();
        *there = change(there);
    }

    /// Writes the blocks of the day. The next day is rolled up again, because its first interval begins in
    /// this one. Returns the last sample of each series.
    async fn write(self, conn: &mut SqliteConnection, kind: KindOf<'_>) -> sqlx::Result<Vec<(u32, Second)>> {
        let mut raw: Vec<Block> = Vec::new();
        let mut rolled: BTreeMap<i64, Vec<Bucket>> = BTreeMap::new();
        let mut seen = Vec::new();
        for (series, points) in &self.points {
            let (kind, Some(last)) = (kind(*series), points.last()) else { continue };
            let before = self.before.get(series).and_then(|points| points.last()).copied();
            raw.extend(blocks_of_halves(self.begin, *series, points, kind));
            rolled
                .insert(Table::Days.key(self.begin, *series), rollup::roll_up(points, before, kind, BUCKET));
            if let Some(next) = self.next.get(series) {
                let key = Table::Days.key(self.begin + HOURS, *series);
                rolled.insert(key, rollup::roll_up(next, Some(*last), kind, BUCKET));
            }
            seen.push((*series, last.at));
        }
        self.keep_buckets(conn, &mut rolled).await?;
        raw.sort_by_key(|(key, _)| *key);
        blocks::put(conn, Table::Raw, &raw).await?;
        let block = |(key, buckets): (i64, Vec<Bucket>)| {
            (key, encode_buckets(key, blocks::start(key), BUCKET, &buckets))
        };
        let rolled: Vec<Block> = rolled.into_iter().map(block).collect();
        blocks::put(conn, Table::Days, &rolled).await?;
        Ok(seen)
    }

    /// Where samples are lost, stored buckets stay.
    async fn keep_buckets(
        &self,
        conn: &mut SqliteConnection,
        rolled: &mut BTreeMap<i64, Vec<Bucket>>,
    ) -> sqlx::Result<()> {
        let is_lossy = |key: i64| blocks::start(key) < self.whole_from;
        let lacks = |key: &&i64| is_lossy(**key) || self.damaged.contains(&block::parts(**key).1);
        let keys: Vec<i64> = rolled.keys().filter(lacks).copied().collect();
        let longer = |key: &i64| {
            let (hour, series) = block::parts(*key);
            Table::FiveMinutes.key(hour, series)
        };
        let merged: Vec<i64> = keys.iter().map(longer).collect::<BTreeSet<_>>().into_iter().collect();
        let merged = by_key(buckets(conn, Table::FiveMinutes, BUCKET, &merged).await?);
        let mut stored = by_key(buckets(conn, Table::Days, BUCKET, &keys).await?);
        for key in keys {
            let day = blocks::start(key)..blocks::start(key) + DAY;
            let older = merged.get(&longer(&key)).into_iter().flatten();
            let older: Vec<Bucket> = older.filter(|bucket| day.contains(&bucket.at)).copied().collect();
            let stored = rollup::replaced(&older, &stored.remove(&key).unwrap_or_default());
            if let Some(new) = rolled.get_mut(&key) {
                let merge = if is_lossy(key) { rollup::fuller } else { rollup::replaced };
                *new = merge(&stored, new);
            }
        }
        Ok(())
    }
}

/// Reads the compacted samples of a day.
async fn halves(
    conn: &mut SqliteConnection,
    begin: u32,
    series: &[u32],
    damaged: &mut BTreeSet<u32>,
) -> sqlx::Result<Samples> {
    let mut keys: Vec<i64> =
        series.iter().flat_map(|s| [block::key(begin, *s), block::key(begin + HALF, *s)]).collect();
    keys.sort_unstable();
    let found = samples(conn, Table::Raw, &keys).await?;
    damaged.extend(found.damaged.iter().map(|key| block::parts(*key).1));
    let aside = blocks::set_aside(conn, Table::Raw, &keys).await?;
    damaged.extend(aside.into_iter().map(|key| block::parts(key).1));
    Ok(by_series(found))
}

/// Reads the last samples before a day: compacted ones, and the newer ones that are not.
async fn last_before(conn: &mut SqliteConnection, begin: u32, series: &[u32]) -> sqlx::Result<Samples> {
    let keys = |from: u32, step: usize| -> Vec<i64> {
        let hours = (from..begin).step_by(step);
        hours.flat_map(|hour| series.iter().map(move |s| block::key(hour, *s))).collect()
    };
    let older = keys(begin.saturating_sub(HALF), HALF as usize);
    let newer = keys(begin.saturating_sub(BEFORE), 1);
    let mut before = by_series(samples(conn, Table::Raw, &older).await?);
    for (series, points) in by_series(samples(conn, Table::RawHours, &newer).await?) {
        let there = before.entry(series).or_default();
        *there = merged(there, &points);
    }
    Ok(before)
}

/// The blocks of both halves of a day, without an empty one.
fn blocks_of_halves(begin: u32, series: u32, points: &[Point], kind: SeriesKind) -> Vec<Block> {
    let noon = points.partition_point(|point| point.at < Second::from(begin + HALF) * HOUR);
    let (morning, rest) = points.split_at(noon);
    let block = |(hour, points): (u32, &[Point])| {
        let key = block::key(hour, series);
        (!points.is_empty()).then(|| (key, encode_raw(key, blocks::start(key), points, kind)))
    };
    [(begin, morning), (begin + HALF, rest)].into_iter().filter_map(block).collect()
}

/// The days of a series that are merged, by their begin, with their buckets of 5 minutes.
#[derive(Default)]
struct NewDays {
    days: BTreeSet<Second>,
    buckets: Vec<Bucket>,
}

async fn merged_days(
    conn: &mut SqliteConnection,
    begin: u32,
    (first, last): (u32, u32),
) -> sqlx::Result<u64> {
    let (mut new, mut keys): (BTreeMap<u32, NewDays>, Vec<i64>) = Default::default();
    for day in (begin..begin + Table::FiveMinutes.window()).step_by(HOURS as usize) {
        let (from, to) = (block::key(day, first), block::key(day, last));
        let found = read::buckets(blocks::range(conn, Table::Days, from, to).await?, BUCKET);
        set_damaged(conn, Table::Days, &found).await?;
        for (key, buckets) in found.blocks {
            keys.push(key);
            let of_series = new.entry(block::parts(key).1).or_default();
            of_series.days.insert(blocks::start(key));
            of_series.buckets.extend(buckets);
        }
    }
    let whole_from = read::mergeable_from(conn).await?;
    for (table, width) in [(Table::FiveMinutes, BUCKET), (Table::Hours, HOUR), (Table::Daily, DAY)] {
        add_buckets(conn, (table, width), (begin, whole_from), &new).await?;
    }
    blocks::remove(conn, Table::Days, &keys).await?;
    Ok(keys.len() as u64)
}

/// Adds buckets of 5 minutes to the blocks of a tier that have this hour. Days before `whole_from` have lost both
/// samples and such buckets.
async fn add_buckets(
    conn: &mut SqliteConnection,
    (table, width): (Table, Second),
    (hour, whole_from): (u32, Second),
    new: &BTreeMap<u32, NewDays>,
) -> sqlx::Result<()> {
    let keys: Vec<i64> = new.keys().map(|series| table.key(hour, *series)).collect();
    let mut there = by_key(buckets(conn, table, width, &keys).await?);
    let block = |(series, new): (&u32, &NewDays)| {
        let key = table.key(hour, *series);
        let wide =
            if width == BUCKET { new.buckets.clone() } else { rollup::merge(&new.buckets, BUCKET, width) };
        let there = there.remove(&key).unwrap_or_default();
        let all = rollup::replaced_days(&there, &wide, &new.days, whole_from);
        (key, encode_buckets(key, blocks::start(key), width, &all))
    };
    let rows: Vec<Block> = new.iter().map(block).collect();
    blocks::put(conn, table, &rows).await
}

/// Reads blocks of samples. Damaged ones are moved aside.
async fn samples(
    conn: &mut SqliteConnection,
    table: Table,
    keys: &[i64],
) -> sqlx::Result<DecodedBlocks<Point>> {
    let found = read::samples(blocks::get(conn, table, keys).await?);
    set_damaged(conn, table, &found).await?;
    Ok(found)
}

/// Reads blocks of buckets. Damaged ones are moved aside.
async fn buckets(
    conn: &mut SqliteConnection,
    table: Table,
    width: Second,
    keys: &[i64],
) -> sqlx::Result<DecodedBlocks<Bucket>> {
    let found = read::buckets(blocks::get(conn, table, keys).await?, width);
    set_damaged(conn, table, &found).await?;
    Ok(found)
}

async fn set_damaged<T>(
    conn: &mut SqliteConnection,
    table: Table,
    found: &DecodedBlocks<T>,
) -> sqlx::Result<()> {
    for key in &found.damaged {
        blocks::set_damaged(conn, table, *key, clock::wall()).await?;
    }
    Ok(())
}

fn by_key<T>(found: DecodedBlocks<T>) -> BTreeMap<i64, Vec<T>> {
    found.blocks.into_iter().collect()
}

/// The blocks must be in the order of time.
fn by_series(found: DecodedBlocks<Point>) -> Samples {
    let mut all = Samples::new();
    for (key, points) in found.blocks {
        all.entry(block::parts(key).1).or_default().extend(points);
    }
    all
}

#[cfg(test)]
mod tests;
