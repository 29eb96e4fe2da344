//! A history of many series, made in little time.
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
use fleetgate_engine::history::block;
use fleetgate_keys::SealKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::tiers;
use crate::blocks::sign;

/// Series whose blocks are copied: four of each profile.
pub const PATTERNS: u32 = 24;
/// Blocks that are written in one transaction: some 5 MB, and 40 MB of the largest.
const AT_ONCE: usize = 4_096;
/// The page cache while they are written, in KiB.
const CACHE: &str = "-16384";

/// The blocks of some series.
pub struct Patterns {
    /// In the order in which blocks are stored.
    windows: Vec<Window>,
    /// What one series takes in a file.
    pub bytes: u64,
}

/// A window of time, with a block of each pattern.
struct Window {
    table: Table,
    hour: u32,
    blocks: Vec<Vec<u8>>,
}

impl Patterns {
    /// Makes the blocks of these days, as they are when the last one is over.
    ///
    /// # Errors
    /// Fails when a database refuses a write.
    pub async fn make(days: Range<i64>) -> anyhow::Result<Patterns> {
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

    /// Writes the blocks for each of these series into a history that no program uses.
    ///
    /// # Errors
    /// Fails when the database refuses a write.
    pub async fn copy(&self, file: &Path, ids: &[u32]) -> anyhow::Result<()> {
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
