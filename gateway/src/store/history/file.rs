//! The history database as a file: opened in any state, and replaced by a new one if it is
//! unusable.
//!
//! Nothing else depends on the history, so its damage never stops a start. The damaged file is set
//! aside, never removed. Damage found later is handled the same way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqlitePool, SqliteSynchronous};

use super::events::{self, NewEvent};
use super::files::{self, HISTORY_FILE, is_damage};
use super::{HISTORY, Store, migrate, migrations, pools};
use crate::clock;

/// The prefix of the names of files set aside.
const SET_ASIDE: &str = "history.db.damaged-";
/// The time for readers to finish before a damaged file is moved.
const CLOSE: Duration = Duration::from_secs(5);

/// A history database that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub file: PathBuf,
    pub why: String,
}

/// The pools of the history database, which may be replaced. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    pools: RwLock<Pools>,
    suspect: AtomicBool,
}

struct Pools {
    write: SqlitePool,
    read: SqlitePool,
}

impl History {
    /// Opens the history in `dir`, or sets it aside and creates a new one. `unfinished`: an earlier
    /// first start was interrupted, so that an empty file is no loss.
    ///
    /// # Errors
    /// Fails when the file was written by a newer version, cannot be set aside, or no new one can
    /// be created.
    pub async fn open(dir: &Path, unfinished: bool) -> anyhow::Result<(History, Option<SetAside>)> {
        let file = dir.join(HISTORY_FILE);
        let (pools, lost) = match opened(&file, unfinished).await {
            Ok(pools) => (pools, None),
            Err(NotOpened::Fatal(error)) => return Err(error),
            Err(NotOpened::Useless(why)) => begin_anew(&file, why).await?,
        };
        let shared =
            Shared { dir: dir.to_owned(), pools: RwLock::new(pools), suspect: AtomicBool::new(false) };
        Ok((History(Arc::new(shared)), lost))
    }

    /// The only writing connection.
    pub fn write(&self) -> SqlitePool {
        self.0.pools.read().expect("no holder panics").write.clone()
    }

    pub fn read(&self) -> SqlitePool {
        self.0.pools.read().expect("no holder panics").read.clone()
    }

    /// Checks the outcome of a statement. Remembers damage until [`History::mend`].
    pub fn judge<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if outcome.as_ref().is_err_and(is_damage) {
            self.0.suspect.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Sets the file aside and creates a new one if a statement has found damage. Returns `None` if
    /// there was no damage.
    ///
    /// # Errors
    /// Fails when the file cannot be replaced. The next call tries again.
    pub async fn mend(&self) -> anyhow::Result<Option<SetAside>> {
        if !self.0.suspect.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.close().await;
        let file = self.0.dir.join(HISTORY_FILE);
        let (fresh, lost) = begin_anew(&file, "a statement has found it damaged".to_owned()).await?;
        *self.0.pools.write().expect("no holder panics") = fresh;
        self.0.suspect.store(false, Ordering::Relaxed);
        Ok(lost)
    }

    /// Whether a damaged history lies beside this one. This is true until the operator removes the
    /// file.
    pub fn was_set_aside(&self) -> bool {
        let names = std::fs::read_dir(&self.0.dir).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(SET_ASIDE))
    }

    /// Closes the writer last. If a reader closes last, it leaves the log beside the file.
    pub async fn close(&self) {
        let (read, write) = (self.read(), self.write());
        let _ = tokio::time::timeout(CLOSE, read.close()).await;
        let _ = tokio::time::timeout(CLOSE, write.close()).await;
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.write().is_closed()
    }
}

impl Store {
    /// Reports the loss of the history in the log and the event log. A failure to write the event
    /// is only logged.
    pub async fn tell_of_lost_history(&self, lost: &SetAside) {
        let (file, why) = (lost.file.display(), &lost.why);
        tracing::warn!(
            "history.db is of no use: {why}. It is now {file}, and graphs begin anew; remove that file, or \
             what can be saved of it, when nobody needs it any more"
        );
        if let Err(error) = self.record_lost_history(lost).await {
            tracing::warn!("the event log lacks that the history was set aside: {error}");
        }
    }

    async fn record_lost_history(&self, lost: &SetAside) -> sqlx::Result<()> {
        let cause = format!("history.db is of no use: {}", lost.why);
        let name = lost.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut event =
            NewEvent::new(clock::wall(), "history.set_aside", events::NOBODY, &cause, events::SYSTEM);
        event.data = serde_json::json!({ "file": name });
        let mut tx = self.begin().await?;
        events::append(&mut tx, &event).await?;
        tx.commit().await
    }
}

/// The reason why an existing history is not used.
enum NotOpened {
    /// This version can read nothing in it.
    Useless(String),
    /// The fault lies elsewhere, or the data are intact.
    Fatal(anyhow::Error),
}

async fn begin_anew(file: &Path, why: String) -> anyhow::Result<(Pools, Option<SetAside>)> {
    let at = jiff::Timestamp::from_millisecond(clock::wall().as_millis()).unwrap_or_default();
    let ending = format!("damaged-{}", at.strftime("%Y%m%dT%H%M%SZ"));
    let moved = files::set_aside(file, &ending)
        .with_context(|| format!("{} is of no use ({why}) and cannot be set aside", file.display()))?;
    match opened(file, true).await {
        Ok(pools) => Ok((pools, Some(SetAside { file: moved, why }))),
        Err(NotOpened::Fatal(error)) => Err(error),
        Err(NotOpened::Useless(why)) => Err(anyhow::anyhow!("cannot begin {}: {why}", file.display())),
    }
}

async fn opened(file: &Path, may_be_empty: bool) -> Result<Pools, NotOpened> {
    look_at(file, may_be_empty)?;
    let (write, read) = pools(file, SqliteSynchronous::Normal).await.map_err(useless_unless_full)?;
    let checked = check(&write, file).await;
    if let Err(error) = checked {
        read.close().await;
        write.close().await;
        return Err(error);
    }
    Ok(Pools { write, read })
}

/// Checks the file before SQLite does, because SQLite takes a file of 0 bytes for a new database.
fn look_at(file: &Path, may_be_empty: bool) -> Result<(), NotOpened> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if found.is_dir() => Err(NotOpened::Useless("it is a directory".to_owned())),
        Ok(found) if found.len() == 0 && !may_be_empty => {
            Err(NotOpened::Useless("it has 0 bytes".to_owned()))
        }
        _ => Ok(()),
    }
}

/// A full or busy disk proves nothing about the file. Any other error means that the file is
/// unreadable.
fn useless_unless_full(error: anyhow::Error) -> NotOpened {
    let statement = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>());
    match statement.and_then(super::trouble) {
        Some(super::Trouble::Full | super::Trouble::Busy) => NotOpened::Fatal(error),
        _ => NotOpened::Useless(format!("{error:#}")),
    }
}

async fn check(pool: &SqlitePool, file: &Path) -> Result<(), NotOpened> {
    let useless = |error: sqlx::Error| useless_unless_full(error.into());
    let mut conn = pool.acquire().await.map_err(useless)?;
    if !is_of_ours(&mut conn).await.map_err(useless)? {
        return Err(NotOpened::Useless("its tables are not those of a history".to_owned()));
    }
    drop(conn);
    migrate(migrations(&HISTORY), pool, file).await.map_err(|error| {
        if error.downcast_ref::<super::Newer>().is_some() {
            return NotOpened::Fatal(error);
        }
        useless_unless_full(error)
    })?;
    let mut conn = pool.acquire().await.map_err(useless)?;
    has_its_tables(&mut conn).await
}

/// Whether the database is new or was created by steps of this version. A main database under this
/// name has other steps, which would look like those of a newer version.
async fn is_of_ours(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let count = "select count(*) from sqlite_schema where name not like 'sqlite_%'";
    if sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *conn).await? == 0 {
        return Ok(true);
    }
    let steps = "select count(*) from sqlite_schema where name = '_sqlx_migrations'";
    if sqlx::query_scalar::<_, i64>(steps).fetch_one(&mut *conn).await? == 0 {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("select version, checksum, success from _sqlx_migrations").fetch_all(conn).await?;
    let ours = migrations(&HISTORY);
    let known = |version: i64| ours.iter().find(|step| step.version == version);
    let matches = |(version, checksum, success): &(i64, Vec<u8>, bool)| {
        *success && known(*version).is_none_or(|step| *step.checksum == **checksum)
    };
    Ok(applied.iter().all(matches))
}

/// Checks the tables. Others may be added by hand, but those of the gateway must be unchanged.
async fn has_its_tables(conn: &mut SqliteConnection) -> Result<(), NotOpened> {
    let fail = |error: sqlx::Error| useless_unless_full(error.into());
    let wanted: Vec<(String, String)> = wanted_tables().await.map_err(fail)?;
    let found: Vec<(String, String)> = tables(conn).await.map_err(fail)?;
    if let Some((name, _)) = wanted.iter().find(|table| !found.contains(table)) {
        return Err(NotOpened::Useless(format!("its table {name} is missing or another")));
    }
    // This reads the first pages of each table.
    for look in
        ["select max(id) from series", "select max(series) from samples", "select at from samples limit 1"]
    {
        sqlx::query(look).fetch_optional(&mut *conn).await.map_err(fail)?;
    }
    Ok(())
}

async fn wanted_tables() -> sqlx::Result<Vec<(String, String)>> {
    let memory = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    migrations(&HISTORY).run(&memory).await.map_err(|e| sqlx::Error::Migrate(Box::new(e)))?;
    let mut conn = memory.acquire().await?;
    tables(&mut conn).await
}

async fn tables(conn: &mut SqliteConnection) -> sqlx::Result<Vec<(String, String)>> {
    let sql = "select name, sql from sqlite_schema where type = 'table' and sql is not null";
    sqlx::query_as(sql).fetch_all(conn).await
}
