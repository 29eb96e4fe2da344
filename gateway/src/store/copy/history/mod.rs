//! The copy of the history, which is made after that of the main database.
//!
//! That copy holds the redo of all samples that were unsealed by then. Blocks only ever move from a table
//! of [`Table::ALL`] to a later one, in one transaction. A copy in this order therefore has each block at
//! least once, and a reader takes a sample that is in two tables for one.

use std::path::Path;

use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::super::files::read_only;
use super::super::history::Table;
use super::{
    CHUNK, CopyPauses, NEW_VERSION, Progress, attached, cannot_copy, closed, copy_table, create, percent,
    schema, used,
};
use crate::clock;

/// The size of blocks in one chunk, about 40 ms of reading, and the rows for which it is looked up at once.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
const BLOCKS: i64 = 2_000;
/// It is copied before the blocks, so that a step counts as done only if the blocks show it.
const PROGRESS: &str = "progress";
/// The table of a history of schema 1.
const OLD_SAMPLES: &str = "samples";

/// Copies the history into a new file. `newest`: the newest series in the copy of the main database,
/// which was made before. Blocks of newer series are left out, because a restored gateway gives their
/// numbers to others.
///
/// # Errors
/// Fails as [`main`] does.
pub async fn history(
    from: &Path,
    to: &Path,
    newest: Option<i64>,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let mut conn = attached(from, to).await?;
    copied_history(&mut conn, from, newest, progress).await.with_context(|| cannot_copy(from, to))?;
    closed(conn, to).await
}

/// Returns the greatest number that a main database has given to a series; `None` for a database of a
/// version that kept its series elsewhere.
///
/// # Errors
/// Fails when the file cannot be read.
pub async fn newest_series(file: &Path) -> anyhow::Result<Option<i64>> {
    let found = async {
        let mut conn = read_only(file).await?;
        let sql = "select (select coalesce(max(seq), 0) from sqlite_sequence where name = 'series')
                   from sqlite_schema where name = 'series'";
        let newest = sqlx::query_scalar(sql).fetch_optional(&mut conn).await;
        let _ = conn.close().await;
        newest
    };
    found.await.with_context(|| format!("cannot read {}", file.display()))
}

async fn copied_history(
    conn: &mut SqliteConnection,
    from: &Path,
    newest: Option<i64>,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let schema = schema(conn).await?;
    create(conn, &schema, |kind| kind == "table").await?;
    let tables: Vec<&str> = schema.iter().filter(|o| o.kind == "table").map(|o| o.name.as_str()).collect();
    if tables.contains(&PROGRESS) {
        copy_table(conn, PROGRESS).await?;
    }
    match (tables.contains(&OLD_SAMPLES), newest) {
        (true, _) => old_samples(conn, from, progress).await?,
        (false, Some(newest)) => all_blocks(conn, from, newest, progress).await?,
        (false, None) => bail!(NEW_VERSION),
    }
    for table in tables {
        if !is_copied_before(table) {
            copy_table(conn, table).await?;
        }
    }
    create(conn, &schema, |kind| kind != "table").await?;
    progress(100);
    Ok(())
}

/// Damaged blocks come last, because a block may move there from any table.
fn is_copied_before(table: &str) -> bool {
    [PROGRESS, OLD_SAMPLES].contains(&table) || Table::ALL.iter().any(|blocks| blocks.name() == table)
}

/// Copies the blocks in the order in which they move, chunk by chunk.
async fn all_blocks(
    conn: &mut SqliteConnection,
    from: &Path,
    newest: i64,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let all = used(conn, "src").await?;
    let (mut pace, mut blocks, mut done) = (CopyPauses::new(from), Blocks::new(newest, CHUNK_BYTES), 0);
    loop {
        let begun = clock::now().mono;
        let Some(bytes) = blocks.copy_next(conn).await? else { return Ok(()) };
        done += i64::try_from(bytes).unwrap_or(0);
        progress(percent(done, all).min(99));
        pace.rest(begun).await;
    }
}

/// The place of a copy among the blocks.
struct Blocks {
    /// The newest series whose blocks are copied.
    newest: i64,
    /// The bytes of one chunk.
    chunk: u64,
    /// The place of the table in [`Table::ALL`], and the last key that was copied of it.
    table: usize,
    after: i64,
}

impl Blocks {
    fn new(newest: i64, chunk: u64) -> Blocks {
        Blocks { newest, chunk, table: 0, after: i64::MIN }
    }

    /// Copies the next chunk. Returns its bytes, or `None` when no block is left.
    async fn copy_next(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<Option<u64>> {
        while let Some(table) = Table::ALL.get(self.table) {
            let sizes = sizes(conn, table.name(), self.after).await?;
            if let Some((last, bytes)) = cut(&sizes, self.chunk) {
                self.copy_up_to(conn, table.name(), last).await?;
                self.after = last;
                return Ok(Some(bytes));
            }
            (self.table, self.after) = (self.table + 1, i64::MIN);
        }
        Ok(None)
    }

    async fn copy_up_to(
        &self,
        conn: &mut SqliteConnection,
        table: &'static str,
        last: i64,
    ) -> sqlx::Result<()> {
        // The lower half of a key is the series.
        let sql = format!(
            "insert into main.{table} select * from src.{table}
             where key > $1 and key <= $2 and (key & 4294967295) <= $3 order by key"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(self.after).bind(last).bind(self.newest);
        rows.execute(conn).await.map(drop)
    }
}

/// Returns the next keys of a table with the sizes of their blocks. SQLite knows a size without reading
/// the block.
async fn sizes(
    conn: &mut SqliteConnection,
    table: &'static str,
    after: i64,
) -> sqlx::Result<Vec<(i64, i64)>> {
    let sql = format!("select key, length(data) from src.{table} where key > $1 order by key limit $2");
    sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(BLOCKS).fetch_all(conn).await
}

/// Returns the last key of the next chunk and the bytes of the chunk: whole blocks, at least one.
fn cut(sizes: &[(i64, i64)], most: u64) -> Option<(i64, u64)> {
    let mut bytes = 0;
    let mut chunk = None;
    for &(key, size) in sizes {
        bytes += size.unsigned_abs();
        if chunk.is_some() && bytes > most {
            break;
        }
        chunk = Some((key, bytes));
    }
    chunk
}

/// Copies the samples of a history of schema 1 in table order, chunk by chunk. Its other tables follow.
async fn old_samples(conn: &mut SqliteConnection, from: &Path, progress: Progress<'_>) -> anyhow::Result<()> {
    let last: i64 =
        sqlx::query_scalar("select coalesce(max(series), 0) from src.samples").fetch_one(&mut *conn).await?;
    let mut pace = CopyPauses::new(from);
    let mut place = (i64::MIN, i64::MIN);
    loop {
        let sql = "insert into main.samples select * from src.samples
                   where (series, at) > ($1, $2) order by series, at limit $3";
        let begun = clock::now().mono;
        let chunk = sqlx::query(sql).bind(place.0).bind(place.1).bind(CHUNK);
        if chunk.execute(&mut *conn).await?.rows_affected() == 0 {
            return Ok(());
        }
        let newest = "select series, at from main.samples order by series desc, at desc limit 1";
        place = sqlx::query_as(newest).fetch_one(&mut *conn).await?;
        progress(percent(place.0, last).min(99));
        pace.rest(begun).await;
    }
}

#[cfg(test)]
mod tests;
