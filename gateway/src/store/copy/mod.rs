//! Copies of the databases, made while this or another process writes to them.
//!
//! A long read blocks the write-ahead log, because SQLite cannot restart the log under a reader.
//! Tables that grow without bound (events, blocks of the history) are therefore copied in chunks. Each
//! chunk is a short read, with a pause after it. The rest of the main database is read in one
//! transaction, which makes it consistent. A copy contains every commit made before it began.

mod history;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fleetgate_engine::time::Wall;
use fleetgate_keys::PublicKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

use super::events;
use super::files::{self, SIDE_FILES, beside, read_only};
use super::rentals::erasures::{self, Erasure};
use super::rentals::person_sessions;
use super::{HISTORY, MAIN, instance, settings};
use crate::clock;

pub use history::{history, newest_series};

/// Rows of events or old samples in one chunk, about 40 ms of reading.
const CHUNK: i64 = 20_000;
/// The shortest pause between two chunks, and the longest, for a log that has grown.
const PAUSE: Duration = Duration::from_millis(5);
const LONG_PAUSE: Duration = Duration::from_millis(250);
/// The next commit of the gateway checkpoints a log of this size, if there is no reader.
const LARGE_LOG: u64 = 24 * 1024 * 1024;
const NEW_VERSION: &str = "the gateway brings its database to another version just now: try again";
/// The page cache of a copy, in KiB.
const CACHE: &str = "-16384";

/// Receives the progress of a copy in percent.
pub type Progress<'a> = &'a (dyn Fn(u8) + Sync);

/// Copies the main database into a new file.
///
/// # Errors
/// Fails when the source cannot be read or the target cannot be written, or when a gateway changes
/// the schema meanwhile.
pub async fn main(from: &Path, to: &Path, progress: Progress<'_>) -> anyhow::Result<()> {
    let mut conn = attached(from, to).await?;
    copied_main(&mut conn, from, progress).await.with_context(|| cannot_copy(from, to))?;
    closed(conn, to).await
}

fn cannot_copy(from: &Path, to: &Path) -> String {
    format!("cannot copy {} to {}", from.display(), to.display())
}

/// Opens the copy as `main` and the original, which is not written, as `src`.
async fn attached(from: &Path, to: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(to)
        .create_if_missing(true)
        // An unfinished copy is thrown away. The reader of a finished one syncs it.
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .foreign_keys(false)
        .busy_timeout(super::BUSY)
        .pragma("cache_size", CACHE)
        .pragma("temp_store", "memory");
    let mut conn = options.connect().await.with_context(|| format!("cannot make {}", to.display()))?;
    sqlx::query("attach database $1 as src")
        .bind(uri(from)?)
        .execute(&mut conn)
        .await
        .with_context(|| format!("cannot open {}", from.display()))?;
    Ok(conn)
}

/// Returns the file as an SQLite URI with parameters.
fn uri(file: &Path) -> anyhow::Result<String> {
    let file = std::path::absolute(file)?;
    let text = file.to_str().with_context(|| format!("{} is no UTF-8", file.display()))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.".contains(&b);
    let escaped =
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") });
    Ok(format!("file:{}?mode=ro", escaped.collect::<String>()))
}

async fn closed(conn: SqliteConnection, to: &Path) -> anyhow::Result<()> {
    conn.close().await.with_context(|| format!("cannot finish {}", to.display()))
}

async fn copied_main(conn: &mut SqliteConnection, from: &Path, progress: Progress<'_>) -> anyhow::Result<()> {
    let schema = schema(conn).await?;
    create(conn, &schema, |kind| kind == "table").await?;
    early_events(conn, from, progress).await?;
    run(conn, "begin").await?;
    // The first read of `src` fixes the moment that the copy shows.
    if self::schema(conn).await? != schema {
        bail!(NEW_VERSION);
    }
    for table in schema.iter().filter(|o| o.kind == "table") {
        match table.name.as_str() {
            "events" => late_events(conn).await?,
            name => copy_table(conn, name).await?,
        }
    }
    copy_sequences(conn).await?;
    run(conn, "commit").await?;
    create(conn, &schema, |kind| kind != "table").await?;
    progress(100);
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    sql: String,
}

async fn schema(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Object>> {
    let sql = "select type as kind, name, sql from src.sqlite_schema
               where sql is not null and name not like 'sqlite~_%' escape '~' order by rowid";
    let rows: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(kind, name, sql)| Object { kind, name, sql }).collect())
}

async fn create(
    conn: &mut SqliteConnection,
    schema: &[Object],
    wanted: impl Fn(&str) -> bool,
) -> sqlx::Result<()> {
    for object in schema.iter().filter(|o| wanted(&o.kind)) {
        run_made(conn, object.sql.clone()).await?;
    }
    Ok(())
}

async fn run(conn: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql).execute(conn).await?.rows_affected())
}

/// Runs a statement from the original's own schema, or with the name of one of its tables.
async fn run_made(conn: &mut SqliteConnection, sql: String) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(conn).await.map(drop)
}

async fn copy_table(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<()> {
    let name = name.replace('"', "\"\"");
    run_made(conn, format!("insert into main.\"{name}\" select * from src.\"{name}\"")).await
}

/// Copies the sequences of events and messages, so that numbers of removed rows are not reused.
async fn copy_sequences(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let there = "select count(*) from src.sqlite_schema where name = 'sqlite_sequence'";
    if sqlx::query_scalar::<_, i64>(there).fetch_one(&mut *conn).await? == 1 {
        run(conn, "delete from main.sqlite_sequence").await?;
        run(conn, "insert into main.sqlite_sequence select * from src.sqlite_sequence").await?;
    }
    Ok(())
}

/// The event log only grows and is kept for ever. Most of it is therefore copied before the
/// transaction.
async fn early_events(
    conn: &mut SqliteConnection,
    from: &Path,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let newest: i64 =
        sqlx::query_scalar("select coalesce(max(seq), 0) from src.events").fetch_one(&mut *conn).await?;
    let mut pace = CopyPauses::new(from);
    loop {
        let sql = "insert into main.events select * from src.events
                   where seq > (select coalesce(max(seq), 0) from main.events) and seq <= $1
                   order by seq limit $2";
        let begun = clock::now().mono;
        let copied = sqlx::query(sql).bind(newest).bind(CHUNK).execute(&mut *conn).await?.rows_affected();
        if copied == 0 {
            return Ok(());
        }
        let last: i64 = sqlx::query_scalar("select max(seq) from main.events").fetch_one(&mut *conn).await?;
        progress(percent(last, newest).min(99));
        pace.rest(begun).await;
    }
}

async fn late_events(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let newer = "insert into main.events select * from src.events
                 where seq > (select coalesce(max(seq), 0) from main.events) order by seq";
    run(conn, newer).await?;
    let same = "select (select count(*) from main.events) = (select count(*) from src.events)";
    if sqlx::query_scalar::<_, bool>(same).fetch_one(&mut *conn).await? {
        return Ok(());
    }
    // Events were deleted by hand.
    run(conn, "delete from main.events").await?;
    copy_table(conn, "events").await
}

fn percent(done: i64, all: i64) -> u8 {
    if all <= 0 {
        return 100;
    }
    u8::try_from((i128::from(done) * 100 / i128::from(all)).clamp(0, 100)).unwrap_or(100)
}

/// The pauses of a copy between its reads, so that a gateway can restart its log.
struct CopyPauses {
    log: std::path::PathBuf,
    size: u64,
}

impl CopyPauses {
    fn new(original: &Path) -> CopyPauses {
        let log = beside(original, SIDE_FILES[0]);
        let size = size_of(&log);
        CopyPauses { log, size }
    }

    /// Sleeps as long as the read took. Sleeps longer if the log has grown, because it grows only
    /// while SQLite cannot restart it.
    async fn rest(&mut self, begun: fleetgate_engine::time::Mono) {
        let size = size_of(&self.log);
        let grows = size > self.size && size > LARGE_LOG;
        self.size = size;
        let took = clock::now().mono.since(begun);
        tokio::time::sleep(if grows { LONG_PAUSE } else { took.clamp(PAUSE, LONG_PAUSE) }).await;
    }
}

fn size_of(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |m| m.len())
}

/// The identity of a copy of the main database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyIdentity {
    pub key: Option<PublicKey>,
    pub schema: i64,
}

/// Reads a whole main database and returns its identity.
///
/// # Errors
/// Fails when the file is damaged or does not belong to a gateway.
pub async fn check_main(file: &Path) -> anyhow::Result<CopyIdentity> {
    let mut conn = checked(file).await?;
    let known = known(&mut conn).await;
    let _ = conn.close().await;
    known.with_context(|| format!("{} is no gateway's database", file.display()))
}

async fn known(conn: &mut SqliteConnection) -> anyhow::Result<CopyIdentity> {
    let key = settings::find(conn, settings::PUBLIC_KEY).await?;
    Ok(CopyIdentity { key: key.map(|k| k.parse()).transpose()?, schema: version(conn).await? })
}

/// Reads a whole history and returns its schema version.
///
/// # Errors
/// Fails when the file is damaged.
pub async fn check_history(file: &Path) -> anyhow::Result<i64> {
    let mut conn = checked(file).await?;
    let version = version(&mut conn).await;
    let _ = conn.close().await;
    version.with_context(|| format!("{} is no history", file.display()))
}

async fn version(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations").fetch_one(conn).await
}

async fn checked(file: &Path) -> anyhow::Result<SqliteConnection> {
    let mut conn = read_only(file).await.with_context(|| format!("cannot open {}", file.display()))?;
    let said: Vec<String> = sqlx::query_scalar("pragma integrity_check(1)")
        .fetch_all(&mut conn)
        .await
        .with_context(|| format!("{} is damaged", file.display()))?;
    match said.first().map(String::as_str) {
        Some("ok") => Ok(conn),
        other => bail!("{} is damaged: {}", file.display(), other.unwrap_or("SQLite says nothing of it")),
    }
}

/// Returns the bytes that a copy of the database will have. A file with free pages shrinks.
///
/// # Errors
/// Fails when it cannot be read.
pub async fn used_bytes(file: &Path) -> anyhow::Result<u64> {
    let found = async {
        let mut conn = read_only(file).await?;
        let found = used(&mut conn, "main").await;
        let _ = conn.close().await;
        found
    };
    let used = found.await.with_context(|| match files::HISTORY_FILE {
        name if file.ends_with(name) => {
            format!("cannot read {}; --without-history leaves it out", file.display())
        }
        _ => format!("cannot read {}", file.display()),
    })?;
    Ok(used.unsigned_abs())
}

/// Whether there is or was a host.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn had_a_host(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select 1 from hosts)").fetch_one(conn).await
}

/// The newest schemas that this version can open: of the main database and of the history.
pub fn newest_schemas() -> (i64, i64) {
    (MAIN.last().map_or(0, |s| s.version), HISTORY.last().map_or(0, |s| s.version))
}

/// Marks a database that is being restored: in the event log, and as one that waits for an admin. Erases the
/// customers that were erased after the backup, and returns how many those were. A database of an older
/// schema keeps them until the start that migrates it.
///
/// # Errors
/// Fails when it cannot be written.
pub async fn mark_restored(file: &Path, made_at: &str, erasures: &[Erasure]) -> anyhow::Result<usize> {
    marked(file, made_at, erasures).await.with_context(|| format!("cannot write {}", file.display()))
}

async fn marked(file: &Path, made_at: &str, erasures: &[Erasure]) -> sqlx::Result<usize> {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(super::BUSY);
    // Erased data is overwritten in the file, too.
    let mut conn = options.pragma("secure_delete", "on").connect().await?;
    let (mut tx, now) = (conn.begin().await?, clock::wall());
    let made: Option<jiff::Timestamp> = made_at.parse().ok();
    instance::mark_restored(&mut tx, now, made.map(|at| Wall::from_millis(at.as_millisecond()))).await?;
    person_sessions::end_all(&mut tx).await?;
    let cause = format!("from a backup that was made at {made_at}");
    events::append_restored(&mut tx, now, &cause).await?;
    let erased = match version(&mut tx).await? == newest_schemas().0 {
        true => erasures::apply(&mut tx, erasures, now).await?.len(),
        false => 0,
    };
    tx.commit().await?;
    conn.close().await?;
    Ok(erased)
}

/// Returns the bytes of the pages that a database uses.
async fn used(conn: &mut SqliteConnection, database: &str) -> sqlx::Result<i64> {
    let mut found = [0i64; 3];
    for (slot, what) in found.iter_mut().zip(["page_count", "freelist_count", "page_size"]) {
        let sql = AssertSqlSafe(format!("pragma {database}.{what}"));
        *slot = sqlx::query_scalar(sql).fetch_one(&mut *conn).await?;
    }
    let [pages, free, size] = found;
    Ok((pages - free).saturating_mul(size))
}
