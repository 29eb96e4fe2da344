//! Sealed blocks in their tables. This file knows their keys, but not what they contain.

use std::sync::LazyLock;

use fleetgate_engine::history::block;
use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::super::rows::{Batched, WIDE};

/// The last hour since 1970 of which a key is made. The key of the next one is still positive.
pub const MAX_HOUR: u32 = (u32::MAX >> 1) - 1;
/// Damaged blocks that are kept for examination. Later ones are removed.
const MAX_DAMAGED: i64 = 1_000;
/// The name of the number of damaged blocks in `progress`.
const DAMAGED: &str = "damaged";
/// The name of the time in `read::Noted`.
pub(super) const BELIEVED: &str = "believed";

/// The names in `progress` of the hours since 1970 up to which blocks of a table are removed.
struct Marks {
    /// The greatest hour ever: what is earlier may have lost something. By a clock that was ahead, it is in the future.
    removed: &'static str,
    /// The same, but it is set back after such a clock. Missing while it has never differed.
    left: &'static str,
}

/// A table of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Samples of an hour, as they were sealed.
    RawHours,
    /// Samples of 12 hours.
    Raw,
    /// Buckets of 5 minutes of a day. Those of an hour and of the day derive from them.
    Days,
    /// Buckets of 5 minutes of 8 days.
    FiveMinutes,
    /// Buckets of an hour of 64 days.
    Hours,
    /// Buckets of a day of 512 days.
    Daily,
}

impl Table {
    /// In the order in which data moves, and in which it is read and copied.
    pub const ALL: [Table; 6] =
        [Table::RawHours, Table::Raw, Table::Days, Table::FiveMinutes, Table::Hours, Table::Daily];

    pub const fn name(self) -> &'static str {
        match self {
            Table::RawHours => "raw_hours",
            Table::Raw => "raw",
            Table::Days => "days",
            Table::FiveMinutes => "five_minutes",
            Table::Hours => "hours",
            Table::Daily => "daily",
        }
    }

    /// The hours of the window of a block. Windows begin at multiples of it since 1970.
    pub const fn window(self) -> u32 {
        match self {
            Table::RawHours => 1,
            Table::Raw => 12,
            Table::Days => 24,
            Table::FiveMinutes => 8 * 24,
            Table::Hours => 64 * 24,
            Table::Daily => 512 * 24,
        }
    }

    /// `None`: of a table from which data moves on.
    const fn marks(self) -> Option<Marks> {
        let (removed, left) = match self {
            Table::Raw => ("raw_gone", "raw_left"),
            Table::FiveMinutes => ("five_minutes_gone", "five_minutes_left"),
            Table::Hours => ("hours_gone", "hours_left"),
            Table::Daily => ("daily_gone", "daily_left"),
            Table::RawHours | Table::Days => return None,
        };
        Some(Marks { removed, left })
    }

    /// The tables that have what the queries of this table's tier read.
    const fn sources(self) -> &'static [Table] {
        match self {
            Table::RawHours | Table::Raw => &[Table::RawHours, Table::Raw],
            Table::Days | Table::FiveMinutes => {
                &[Table::RawHours, Table::Raw, Table::Days, Table::FiveMinutes]
            }
            Table::Hours => &[Table::RawHours, Table::Raw, Table::Days, Table::Hours],
            Table::Daily => &[Table::RawHours, Table::Raw, Table::Days, Table::Daily],
        }
    }

    /// The key of the block that has this hour of a series.
    pub(super) const fn key(self, hour: u32, series: u32) -> i64 {
        block::key(hour - hour % self.window(), series)
    }

    fn statements(self) -> &'static Statements {
        &STATEMENTS[self as usize]
    }
}

/// The time at which the window of a block begins.
pub(super) fn start(key: i64) -> Second {
    Second::from(block::parts(key).0) * HOUR
}

/// The hour since 1970, if a key can have it.
pub(super) fn hour(at: Second) -> Option<u32> {
    u32::try_from(at.div_euclid(HOUR)).ok().filter(|hour| *hour <= MAX_HOUR)
}

struct Statements {
    get: String,
    range: String,
    windows: String,
    put: Batched,
    remove: String,
    expire: String,
    oldest: String,
    newest: String,
    set_damaged: String,
    set_aside: String,
}

impl Statements {
    fn new(table: Table) -> Statements {
        let name = table.name();
        let these = "key in (select value from json_each($1))";
        Statements {
            get: format!("select key, data from {name} where {these} order by key"),
            range: format!("select key, data from {name} where key >= $1 and key <= $2 order by key"),
            // The first list is of the windows that any series has. The hours between two times may be many more.
            windows: format!(
                "with recursive present (hour) as (
                     select (select key from {name} where key >= $2 << 32 order by key limit 1) >> 32
                     union all
                     select (select key from {name} where key >= (hour + 1) << 32 order by key limit 1) >> 32
                     from present where hour <= $3)
                 select key, data from {name}
                 where key in (select hour << 32 | $1 from present where hour <= $3) order by key"
            ),
            put: Batched::new(WIDE, 2, |values| {
                format!(
                    "insert into {name} (key, data) values {values}
                     on conflict (key) do update set data = excluded.data"
                )
            }),
            remove: format!("delete from {name} where {these}"),
            expire: format!(
                "delete from {name} where key in (select key from {name} where key < $1 order by key limit $2)
                 returning key"
            ),
            oldest: format!("select min(key) from {name} where key >= $1"),
            newest: format!("select max(key) from {name}"),
            set_damaged: format!(
                "insert into damaged (source, key, data, found_at) select '{name}', key, data, $2 from {name}
                 where key = $1 and (select count(*) from damaged) < $3"
            ),
            set_aside: format!("select key from damaged where source = '{name}' and {these}"),
        }
    }
}

static STATEMENTS: LazyLock<[Statements; Table::ALL.len()]> =
    LazyLock::new(|| Table::ALL.map(Statements::new));

/// Key and content.
pub type Block = (i64, Vec<u8>);

/// Returns the blocks with these keys, in the order of the keys.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn get(conn: &mut SqliteConnection, table: Table, keys: &[i64]) -> sqlx::Result<Vec<Block>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as(table.statements().get.as_str()).bind(Json(keys)).fetch_all(conn).await
}

/// Returns the blocks with keys from `first` to `last`, in their order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn range(
    conn: &mut SqliteConnection,
    table: Table,
    first: i64,
    last: i64,
) -> sqlx::Result<Vec<Block>> {
    sqlx::query_as(table.statements().range.as_str()).bind(first).bind(last).fetch_all(conn).await
}

/// Returns the blocks of a series whose windows have an hour from `first` to `last`, in the order of
/// time.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn windows(
    conn: &mut SqliteConnection,
    table: Table,
    series: u32,
    (first, last): (u32, u32),
) -> sqlx::Result<Vec<Block>> {
    let first = first - first % table.window();
    let blocks = sqlx::query_as(table.statements().windows.as_str()).bind(i64::from(series));
    blocks.bind(i64::from(first)).bind(i64::from(last)).fetch_all(conn).await
}

/// Writes blocks. A block with the key of another replaces it.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn put(conn: &mut SqliteConnection, table: Table, rows: &[Block]) -> sqlx::Result<()> {
    table
        .statements()
        .put
        .run(conn, rows, |(key, data), arguments| {
            arguments.add(*key).add(data.as_slice());
        })
        .await
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn remove(conn: &mut SqliteConnection, table: Table, keys: &[i64]) -> sqlx::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(table.statements().remove.as_str()).bind(Json(keys)).execute(conn).await.map(drop)
}

/// Removes at most `most` of the oldest blocks whose windows end at `before_hour` or earlier. Returns
/// their keys.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn expire(
    conn: &mut SqliteConnection,
    table: Table,
    before_hour: u32,
    most: i64,
) -> sqlx::Result<Vec<i64>> {
    // A block that still has data to keep begins after this.
    let Some(last) = before_hour.min(MAX_HOUR).checked_sub(table.window()) else { return Ok(Vec::new()) };
    let before = (i64::from(last) + 1) << 32;
    sqlx::query_scalar(table.statements().expire.as_str()).bind(before).bind(most).fetch_all(conn).await
}

/// Returns the hour at which the oldest block of the table begins, of those that begin at `from` or later.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn oldest_hour(conn: &mut SqliteConnection, table: Table, from: u32) -> sqlx::Result<Option<u32>> {
    let oldest = sqlx::query_scalar(table.statements().oldest.as_str()).bind(block::key(from, 0));
    let key: Option<i64> = oldest.fetch_one(conn).await?;
    Ok(key.map(|key| block::parts(key).0))
}

/// Returns the hour at which the newest block of the table begins.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn newest_hour(conn: &mut SqliteConnection, table: Table) -> sqlx::Result<Option<u32>> {
    let key: Option<i64> = sqlx::query_scalar(table.statements().newest.as_str()).fetch_one(conn).await?;
    Ok(key.map(|key| block::parts(key).0))
}

/// Moves a damaged block aside and counts it.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn set_damaged(conn: &mut SqliteConnection, table: Table, key: i64, now: Wall) -> sqlx::Result<()> {
    let copy = sqlx::query(table.statements().set_damaged.as_str()).bind(key).bind(now.as_millis());
    copy.bind(MAX_DAMAGED).execute(&mut *conn).await?;
    remove(conn, table, &[key]).await?;
    let count = "insert into progress (name, value) values ($1, 1)
                 on conflict (name) do update set value = value + 1";
    sqlx::query(count).bind(DAMAGED).execute(conn).await?;
    let (hour, series) = block::parts(key);
    tracing::warn!(
        "a block of the history is damaged: series {series} has a gap in {} from hour {hour} since 1970; it is in \
         the table damaged of history.db",
        table.name()
    );
    Ok(())
}

/// Returns which of these blocks were damaged and are kept aside.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn set_aside(
    conn: &mut SqliteConnection,
    table: Table,
    keys: &[i64],
) -> sqlx::Result<Vec<i64>> {
    // Hardly any history has one.
    if damaged(conn).await? == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(table.statements().set_aside.as_str()).bind(Json(keys)).fetch_all(conn).await
}

/// Returns the number of damaged blocks that were ever found in this file.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn damaged(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    progress(conn, DAMAGED).await.map(Option::unwrap_or_default)
}

/// Notes that the blocks of a table are removed up to this hour.
///
/// # Errors
/// Fails when the database refuses the write.
pub(super) async fn set_removed(conn: &mut SqliteConnection, table: Table, end: i64) -> sqlx::Result<()> {
    let Some(Marks { removed, left }) = table.marks() else { return Ok(()) };
    let (before, until) = (progress(conn, removed).await?, progress(conn, left).await?);
    set_progress(conn, removed, before.unwrap_or_default().max(end)).await?;
    match until {
        Some(until) => set_progress(conn, left, until.max(end)).await,
        None => Ok(()),
    }
}

/// Returns the hour up to which the blocks of a table are removed; 0 if none is.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn left(conn: &mut SqliteConnection, table: Table) -> sqlx::Result<i64> {
    let Some(Marks { removed, left }) = table.marks() else { return Ok(0) };
    match progress(conn, left).await? {
        Some(until) => Ok(until),
        None => progress(conn, removed).await.map(Option::unwrap_or_default),
    }
}

/// Returns the begin of the first day of which no block of this table was ever removed.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn whole_from(conn: &mut SqliteConnection, table: Table) -> sqlx::Result<Second> {
    let Some(Marks { removed, .. }) = table.marks() else { return Ok(0) };
    let hour = progress(conn, removed).await?.unwrap_or_default();
    Ok(hour.saturating_add(23).div_euclid(24).saturating_mul(DAY))
}

/// Sets the hours back that are later than `now`, to that of the oldest block that is left.
///
/// # Errors
/// Fails when the database refuses the write.
pub(super) async fn set_back(conn: &mut SqliteConnection, now: Second) -> sqlx::Result<()> {
    let now = now.div_euclid(HOUR);
    for (table, marks) in Table::ALL.into_iter().filter_map(|table| Some((table, table.marks()?))) {
        if left(conn, table).await? <= now {
            continue;
        }
        let mut oldest = now;
        for source in table.sources() {
            let hour = oldest_hour(conn, *source, 0).await?;
            oldest = hour.map_or(oldest, |hour| oldest.min(i64::from(hour)));
        }
        set_progress(conn, marks.left, oldest).await?;
    }
    Ok(())
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn progress(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("select value from progress where name = $1").bind(name).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn set_progress(conn: &mut SqliteConnection, name: &str, value: i64) -> sqlx::Result<()> {
    let sql = "insert into progress (name, value) values ($1, $2)
               on conflict (name) do update set value = excluded.value";
    sqlx::query(sql).bind(name).bind(value).execute(conn).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, fixture};

    fn block(hour: u32, series: u32) -> Block {
        (block::key(hour, series), vec![u8::try_from(series).unwrap(); 3])
    }

    async fn keys(store: &Store, table: Table) -> Vec<(u32, u32)> {
        let mut conn = store.history.read().acquire().await.unwrap();
        let found = range(&mut conn, table, 0, i64::MAX).await.unwrap();
        found.into_iter().map(|(key, _)| block::parts(key)).collect()
    }

    #[tokio::test]
    async fn blocks_are_found_by_key_by_range_and_by_window() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.history.write().acquire().await.unwrap();
        for table in Table::ALL {
            let at = |n: u32| n * table.window();
            let all =
                [block(at(3), 1), block(at(3), 2), block(at(5), 1), block(at(900), 2), block(at(901), 1)];
            put(&mut conn, table, &all).await.unwrap();
            put(&mut conn, table, &all[1..2]).await.unwrap();
            let asked = [all[4].0, 17, all[0].0];
            assert_eq!(get(&mut conn, table, &asked).await.unwrap(), [all[0].clone(), all[4].clone()]);
            let from = (block::key(at(3), 2), block::key(at(5), 9));
            assert_eq!(range(&mut conn, table, from.0, from.1).await.unwrap(), all[1..3]);
            let mut of_one = async |first, last| windows(&mut conn, table, 1, (first, last)).await.unwrap();
            let ones = [all[0].clone(), all[2].clone(), all[4].clone()];
            assert_eq!(of_one(0, MAX_HOUR).await, ones, "{table:?}");
            assert_eq!(of_one(at(4) - 1, at(5)).await, ones[..2], "{table:?}: the window has the hour");
            assert!(of_one(at(4), at(5) - 1).await.is_empty(), "{table:?}");
            assert!(of_one(at(902), MAX_HOUR).await.is_empty(), "{table:?}");
            remove(&mut conn, table, &[all[0].0, 17]).await.unwrap();
            assert_eq!(get(&mut conn, table, &asked).await.unwrap(), all[4..]);
            assert_eq!(newest_hour(&mut conn, table).await.unwrap(), Some(at(901)));
            let mut oldest = async |from| oldest_hour(&mut conn, table, from).await.unwrap();
            assert_eq!((oldest(0).await, oldest(at(3)).await), (Some(at(3)), Some(at(3))));
            assert_eq!((oldest(at(3) + 1).await, oldest(at(902)).await), (Some(at(5)), None));
        }
    }

    #[tokio::test]
    async fn a_block_expires_when_its_whole_window_is_old() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.history.write().acquire().await.unwrap();
        for table in Table::ALL {
            let window = table.window();
            let all: Vec<Block> = (0..5).map(|n| block(n * window, 1)).collect();
            put(&mut conn, table, &all).await.unwrap();
            for (before, most, gone) in
                [(0, 9, 0), (window - 1, 9, 0), (window, 9, 1), (4 * window, 2, 2), (4 * window, 9, 1)]
            {
                let found = expire(&mut conn, table, before, most).await.unwrap().len();
                assert_eq!(found, gone, "{table:?} {before}");
            }
            assert_eq!(oldest_hour(&mut conn, table, 0).await.unwrap(), Some(4 * window));
        }
    }

    #[tokio::test]
    async fn damaged_blocks_are_moved_counted_and_bounded() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.history.write().begin_with("begin immediate").await.unwrap();
        let all: Vec<Block> = (0..1_003).map(|n| block(n, 1)).collect();
        put(&mut tx, Table::Days, &all).await.unwrap();
        put(&mut tx, Table::Raw, &all).await.unwrap();
        for (key, _) in &all[..1_002] {
            set_damaged(&mut tx, Table::Days, *key, Wall::from_millis(5)).await.unwrap();
        }
        assert_eq!(damaged(&mut tx).await.unwrap(), 1_002);
        tx.commit().await.unwrap();
        assert_eq!(keys(&store, Table::Days).await, [(1_002, 1)]);
        assert_eq!(keys(&store, Table::Raw).await.len(), 1_003, "another table");
        let kept =
            "select count(*) || source || hex(data) || found_at from damaged group by source, data, found_at";
        assert_eq!(fixture::history_text(&store, kept).await.as_deref(), Some("1000days0101015"));
    }

    #[tokio::test]
    async fn the_storage_of_keys_is_not_spilled() {
        let (store, _dir) = fixture::store().await;
        let tables = "select group_concat(name) from sqlite_schema where sql like '%without%rowid%'";
        assert_eq!(fixture::history_text(&store, tables).await, None);
    }
}
