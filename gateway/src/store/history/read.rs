//! Reads samples and buckets from the blocks.
//!
//! Each read goes through the tables in the order in which data moves, without a transaction: what moves
//! meanwhile is read twice and counts once. A damaged block is a gap. It is noted, and the next step
//! moves it aside.

use std::collections::BTreeSet;
use std::ops::Range;

use fleetgate_engine::history::block::{self, Damaged};
use fleetgate_engine::history::query::Tier;
use fleetgate_engine::history::rollup::{self, Bucket};
use fleetgate_engine::history::{BUCKET, DAY, HOUR, Point, Second, merged};
use sqlx::sqlite::SqliteConnection;

use super::super::Store;
use super::blocks::{self, Block, MAX_HOUR, Table};

/// How far back the sample before a range is looked for. An older one covers nothing of it.
const BEFORE: Second = 3 * HOUR;

/// Samples of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// In the order of time.
    pub points: Vec<Point>,
    /// The last sample of the three hours before the range.
    pub before: Option<Point>,
    /// Blocks that could not be decoded.
    pub damaged: u64,
}

/// What outlives a restart of the upkeep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The time by which it last removed blocks.
    pub believed: Option<Second>,
    pub gone: Gone,
}

/// The hour since 1970 at which the last removed block of each tier ended; 0 if none was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    pub raw: i64,
    pub five_minutes: i64,
    pub hours: i64,
    pub days: i64,
    /// The second before which days have lost samples: what is rolled up of them may count more than their samples.
    pub whole_from: Second,
}

/// Returns the second before which a day that is rolled up again may lack what is stored of it. Buckets of 5 minutes
/// are taken along, so that only a day that has lost these too can.
pub(super) async fn mergeable_from(conn: &mut SqliteConnection) -> sqlx::Result<Second> {
    let samples = blocks::whole_from(conn, Table::Raw).await?;
    Ok(samples.min(blocks::whole_from(conn, Table::FiveMinutes).await?))
}

/// Decoded blocks, and the keys of those that are damaged.
pub(super) struct DecodedBlocks<T> {
    pub blocks: Vec<(i64, Vec<T>)>,
    pub damaged: Vec<i64>,
}

fn found<T>(blocks: Vec<Block>, decode: impl Fn(i64, &[u8]) -> Result<Vec<T>, Damaged>) -> DecodedBlocks<T> {
    let mut found = DecodedBlocks { blocks: Vec::with_capacity(blocks.len()), damaged: Vec::new() };
    for (key, data) in blocks {
        match decode(key, &data) {
            Ok(content) => found.blocks.push((key, content)),
            Err(_) => found.damaged.push(key),
        }
    }
    found
}

/// Decodes blocks of samples.
pub(super) fn samples(blocks: Vec<Block>) -> DecodedBlocks<Point> {
    found(blocks, |key, data| block::decode_raw(key, blocks::start(key), data))
}

/// Decodes blocks of buckets that are `width` wide.
pub(super) fn buckets(blocks: Vec<Block>, width: Second) -> DecodedBlocks<Bucket> {
    found(blocks, |key, data| block::decode_buckets(key, blocks::start(key), width, data))
}

/// The width of the buckets of a table. `None` for samples.
pub(super) const fn width(table: Table) -> Option<Second> {
    match table {
        Table::RawHours | Table::Raw => None,
        Table::Days | Table::FiveMinutes => Some(BUCKET),
        Table::Hours => Some(HOUR),
        Table::Daily => Some(DAY),
    }
}

/// Whether there is a block with this key that cannot be decoded.
pub(super) async fn is_damaged(conn: &mut SqliteConnection, table: Table, key: i64) -> sqlx::Result<bool> {
    let blocks = blocks::get(conn, table, &[key]).await?;
    let damaged = match width(table) {
        None => samples(blocks).damaged,
        Some(width) => buckets(blocks, width).damaged,
    };
    Ok(!damaged.is_empty())
}

/// The time of the windows of a table that begin at these hours and between them.
fn hours(first: u32, last: u32, table: Table) -> Range<Second> {
    Second::from(first) * HOUR..(Second::from(last) + Second::from(table.window())) * HOUR
}

impl Store {
    /// Returns the sealed samples of `[from, to)`.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn raw(&self, series: u32, from: Second, to: Second) -> sqlx::Result<Read> {
        let begin = from.saturating_sub(BEFORE);
        let mut read = Read::default();
        for table in [Table::RawHours, Table::Raw] {
            let found = samples(self.windows(table, series, begin, to).await?);
            self.note_damaged(table, &found.damaged);
            read.damaged += found.damaged.len() as u64;
            let older: Vec<Point> = found.blocks.into_iter().flat_map(|(_, points)| points).collect();
            read.points = merged(&older, &read.points);
        }
        read.points.retain(|point| point.at >= begin && point.at < to);
        let before = read.points.partition_point(|point| point.at < from);
        read.before = read.points.drain(..before).next_back();
        Ok(read)
    }

    /// Returns the stored buckets of a tier that begin within `[from, to)`: of the days that are
    /// compacted. Samples have buckets of 5 minutes.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn buckets(
        &self,
        series: u32,
        tier: Tier,
        from: Second,
        to: Second,
    ) -> sqlx::Result<Vec<Bucket>> {
        let (table, width) = match tier {
            Tier::Raw | Tier::FiveMinutes => (Table::FiveMinutes, BUCKET),
            Tier::Hours => (Table::Hours, HOUR),
            Tier::Days => (Table::Daily, DAY),
        };
        let blocks = self.blocks_of(Table::Days, BUCKET, series, from, to).await?;
        let days: BTreeSet<Second> = blocks.iter().map(|(key, _)| blocks::start(*key)).collect();
        let new: Vec<Bucket> = blocks.into_iter().flat_map(|(_, buckets)| buckets).collect();
        let new = if width == BUCKET { new } else { rollup::merge(&new, BUCKET, width) };
        let merged = self.blocks_of(table, width, series, from, to).await?;
        let merged: Vec<Bucket> = merged.into_iter().flat_map(|(_, buckets)| buckets).collect();
        let is_in_both = |bucket: &Bucket| days.contains(&(bucket.at.div_euclid(DAY) * DAY));
        let whole_from = if merged.iter().any(is_in_both) { self.mergeable_from().await? } else { 0 };
        let mut all = rollup::replaced_days(&merged, &new, &days, whole_from);
        all.retain(|bucket| bucket.at >= from && bucket.at < to);
        Ok(all)
    }

    async fn mergeable_from(&self) -> sqlx::Result<Second> {
        let from = async {
            let mut conn = self.history.read().acquire().await?;
            mergeable_from(&mut conn).await
        };
        self.history.judge(from.await)
    }

    /// Returns the oldest day that has samples that are not compacted, of those from `first` on. Days are
    /// numbers since 1970.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn uncompacted(&self, first: i64) -> sqlx::Result<Option<i64>> {
        let Some(from) = blocks::hour(first.max(0).saturating_mul(DAY)) else { return Ok(None) };
        let hour = self.oldest_hour(Table::RawHours, from).await?;
        Ok(hour.map(|hour| i64::from(hour / Table::Days.window())))
    }

    /// Returns the hour at which the oldest block of the table begins, of those that begin at `from` or
    /// later.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn oldest_hour(&self, table: Table, from: u32) -> sqlx::Result<Option<u32>> {
        let oldest = async {
            let mut conn = self.history.read().acquire().await?;
            blocks::oldest_hour(&mut conn, table, from).await
        };
        self.history.judge(oldest.await)
    }

    /// Returns the number of damaged blocks that were ever found in this file.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn damaged_blocks(&self) -> sqlx::Result<i64> {
        let damaged = async {
            let mut conn = self.history.read().acquire().await?;
            blocks::damaged(&mut conn).await
        };
        self.history.judge(damaged.await)
    }

    /// Returns what the upkeep has noted.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn noted(&self) -> sqlx::Result<Noted> {
        let noted = async {
            let mut conn = self.history.read().acquire().await?;
            let believed = blocks::progress(&mut conn, blocks::BELIEVED).await?;
            let gone = Gone {
                raw: blocks::left(&mut conn, Table::Raw).await?,
                five_minutes: blocks::left(&mut conn, Table::FiveMinutes).await?,
                hours: blocks::left(&mut conn, Table::Hours).await?,
                days: blocks::left(&mut conn, Table::Daily).await?,
                whole_from: blocks::whole_from(&mut conn, Table::Raw).await?,
            };
            Ok::<_, sqlx::Error>(Noted { believed, gone })
        };
        self.history.judge(noted.await)
    }

    /// Returns a time outside of which no series has a sealed sample. `None`: none has any.
    ///
    /// # Errors
    /// Fails when the history cannot be read.
    pub async fn sealed_time(&self) -> sqlx::Result<Option<Range<Second>>> {
        let time = async {
            let mut conn = self.history.read().acquire().await?;
            let mut time: Option<Range<Second>> = None;
            for table in [Table::RawHours, Table::Raw] {
                let first = blocks::oldest_hour(&mut conn, table, 0).await?;
                let last = blocks::newest_hour(&mut conn, table).await?;
                let Some((first, last)) = first.zip(last) else { continue };
                let of_table = hours(first, last, table);
                time = Some(match time {
                    Some(time) => time.start.min(of_table.start)..time.end.max(of_table.end),
                    None => of_table,
                });
            }
            Ok::<_, sqlx::Error>(time)
        };
        self.history.judge(time.await)
    }

    async fn blocks_of(
        &self,
        table: Table,
        width: Second,
        series: u32,
        from: Second,
        to: Second,
    ) -> sqlx::Result<Vec<(i64, Vec<Bucket>)>> {
        let found = buckets(self.windows(table, series, from, to).await?, width);
        self.note_damaged(table, &found.damaged);
        Ok(found.blocks)
    }

    /// Returns the blocks of a series that have a second of `[from, to)`.
    async fn windows(&self, table: Table, series: u32, from: Second, to: Second) -> sqlx::Result<Vec<Block>> {
        let last = to.saturating_sub(1).min(Second::from(MAX_HOUR) * HOUR);
        let (Some(first), Some(last)) = (blocks::hour(from.max(0)), blocks::hour(last)) else {
            return Ok(Vec::new());
        };
        let blocks = async {
            let mut conn = self.history.read().acquire().await?;
            blocks::windows(&mut conn, table, series, (first, last)).await
        };
        self.history.judge(blocks.await)
    }

    fn note_damaged(&self, table: Table, keys: &[i64]) {
        keys.iter().for_each(|key| self.history.note_damaged(table, *key));
    }
}
