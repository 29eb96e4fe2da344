//! A history of any size, made in little time: days of many series, whose hosts are removed.
//!
//! The program makes the blocks of a few series in a folder of its own. They are then written for all series, each with
//! its own key and checksum, in the order of their keys. So the encoding, which takes most of the time, is done once.
//! No program uses the file meanwhile, and each page is written once.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::ensure;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate::store::history::Table;
use fleetgate::store::history::blocks::{self, Block};
use fleetgate::store::{Store, copy};
use fleetgate_engine::history::query::Tier;
use fleetgate_engine::history::rollup::Bucket;
use fleetgate_engine::history::{DAY, Point, block, decimal};
use fleetgate_keys::SealKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::super::history::fleet::Fleet;
use super::super::history::series::Generator;
use super::super::history::tiers;
use super::super::program::Program;
use super::OLD_HOST;
use crate::blocks::sign;
use crate::dice::Dice;

/// Series whose blocks are copied: four of each profile.
const PATTERNS: u32 = 24;
/// Blocks that are written in one transaction: some 5 MB, and 40 MB of the largest.
const AT_ONCE: usize = 4_096;
/// The page cache while they are written, in KiB.
const CACHE: &str = "-16384";
/// Series that a check compares.
const COMPARED: usize = 8;
/// Buckets that a day has at least. A series lacks three hours of one day.
const BUCKETS: [(Tier, i64); 3] = [(Tier::FiveMinutes, 250), (Tier::Hours, 20), (Tier::Days, 1)];

/// The series that exist before a run.
pub(super) struct Old {
    ids: Vec<u32>,
    days: Range<i64>,
}

/// What the history has of a series.
#[derive(PartialEq)]
struct Content {
    points: Vec<Point>,
    buckets: Vec<Vec<Bucket>>,
}

impl Old {
    /// Fills the history in the folder of a program that does not run with about so many bytes: with these days, as they
    /// are when the last one is over.
    ///
    /// # Errors
    /// Fails when a database refuses a write.
    pub async fn fill(dir: &Path, bytes: u64, days: Range<i64>) -> anyhow::Result<Old> {
        let patterns = Patterns::make(days.clone()).await?;
        let count = u32::try_from(bytes / patterns.bytes)?.max(1);
        let store = Store::open(dir, SealKey::from_bytes([1; 32])).await?;
        let ids = Fleet::new(OLD_HOST, count).register(&store, days.end * DAY).await?;
        store.close().await;
        patterns.copy(&dir.join(HISTORY_FILE), &ids).await?;
        Ok(Old { ids, days })
    }

    /// Checks that some of the series have what was written.
    ///
    /// # Errors
    /// Names a series that has not.
    pub async fn are_right(&self, program: &Program) -> anyhow::Result<()> {
        for (n, id) in self.some() {
            let found = self.content(program, id).await?;
            ensure!(found.points == self.samples(n), "series {id} has other samples than were written");
        }
        Ok(())
    }

    /// Checks that some of the series are the same in both.
    ///
    /// # Errors
    /// Names a series that is not.
    pub async fn are_same(&self, one: &Program, other: &Program) -> anyhow::Result<()> {
        for (_, id) in self.some() {
            let is_same = self.content(one, id).await? == self.content(other, id).await?;
            ensure!(is_same, "the samples or roll-ups of series {id} differ");
        }
        Ok(())
    }

    /// Returns random series, the same in every run: their places and their numbers.
    fn some(&self) -> Vec<(usize, u32)> {
        let count = self.ids.len() as u64;
        let mut dice = Dice(count);
        let places = (0..COMPARED).map(|_| dice.roll(count) as usize);
        places.map(|n| (n, self.ids[n])).collect()
    }

    /// Returns the samples of the `n`th series, as they are kept.
    fn samples(&self, n: usize) -> Vec<Point> {
        let mut generator = Generator::new(n as u32 % PATTERNS);
        let kind = generator.profile.kind();
        let kept = |value: f64| {
            let (exponent, mantissa) = decimal::one(value, kind);
            decimal::value(mantissa, exponent)
        };
        let points = generator.samples(self.days.start * DAY, self.days.end * DAY);
        points.into_iter().map(|point| Point { value: point.value.map(kept), ..point }).collect()
    }

    async fn content(&self, program: &Program, id: u32) -> anyhow::Result<Content> {
        let store = &program.server.state.store;
        let (from, to) = (self.days.start * DAY, self.days.end * DAY);
        let read = store.raw(id, from, to).await?;
        ensure!(read.damaged == 0, "{} blocks of series {id} are damaged", read.damaged);
        let mut buckets = Vec::new();
        for (tier, of_day) in BUCKETS {
            let found = store.buckets(id, tier, from, to).await?;
            let least = of_day * (self.days.end - self.days.start);
            ensure!(
                found.len() as i64 >= least,
                "series {id} has {} buckets of {}",
                found.len(),
                tier.name()
            );
            buckets.push(found);
        }
        Ok(Content { points: read.points, buckets })
    }
}

/// The blocks of some series.
struct Patterns {
    /// In the order in which blocks are stored.
    windows: Vec<Window>,
    /// What one series takes in a file.
    bytes: u64,
}

/// A window of time, with a block of each pattern.
struct Window {
    table: Table,
    hour: u32,
    blocks: Vec<Vec<u8>>,
}

impl Patterns {
    async fn make(days: Range<i64>) -> anyhow::Result<Patterns> {
        let dir = tempfile::tempdir()?;
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await?;
        let file = dir.path().join(HISTORY_FILE);
        let empty = copy::used_bytes(&file).await?;
        let ids: Vec<u32> = (1..=PATTERNS).collect();
        tiers::fill_days(&store, &mut tiers::generators(&ids), days).await?;
        // Its pages are as full then as those of blocks that are written in the order of their keys.
        sqlx::query("vacuum").execute(&store.history.write()).await?;
        let bytes = (copy::used_bytes(&file).await? - empty) / u64::from(PATTERNS);
        let windows = windows(&store).await?;
        store.close().await;
        Ok(Patterns { windows, bytes })
    }

    /// Writes the blocks for each of these series.
    async fn copy(&self, file: &Path, ids: &[u32]) -> anyhow::Result<()> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            // A file that is not finished is of no use. A log would double what is written.
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", CACHE);
        let mut conn = options.connect().await?;
        let places: Vec<(usize, u32)> = ids.iter().copied().enumerate().collect();
        for window in &self.windows {
            for part in places.chunks(AT_ONCE) {
                let rows: Vec<Block> = part.iter().map(|(n, id)| window.block(*n, *id)).collect();
                let mut tx = conn.begin().await?;
                blocks::put(&mut tx, window.table, &rows).await?;
                tx.commit().await?;
            }
        }
        conn.close().await?;
        // Otherwise the disk would still write it during the measurement.
        File::open(file)?.sync_all()?;
        Ok(())
    }
}

impl Window {
    /// Returns the block of the `n`th series, which has this number.
    fn block(&self, n: usize, id: u32) -> Block {
        let key = block::key(self.hour, id);
        let mut data = self.blocks[n % self.blocks.len()].clone();
        sign(&mut data, key);
        (key, data)
    }
}

/// Reads all blocks of a store with the patterns.
async fn windows(store: &Store) -> anyhow::Result<Vec<Window>> {
    let mut conn = store.history.read().acquire().await?;
    let mut windows = Vec::new();
    for table in Table::ALL {
        let found = blocks::range(&mut conn, table, 0, i64::MAX).await?;
        for window in found.chunk_by(|a, b| block::parts(a.0).0 == block::parts(b.0).0) {
            ensure!(window.len() == PATTERNS as usize, "a pattern has no block in {}", table.name());
            let hour = block::parts(window[0].0).0;
            let blocks = window.iter().map(|(_, data)| data.clone()).collect();
            windows.push(Window { table, hour, blocks });
        }
    }
    Ok(windows)
}
