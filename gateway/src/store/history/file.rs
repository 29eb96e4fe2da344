//! The history database as a file: opened in any state, and replaced by a new one if it is
//! unusable.
//!
//! Nothing else depends on the history, so its damage never stops a start. The damaged file is set
//! aside, never removed. Damage found later is handled the same way. A history of the first schema is
//! moved to another name, and `convert/mod.rs` reads it there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::super::events::{self, NewEvent};
use super::super::files::{self, HISTORY_FILE, OLD_HISTORY_FILE, is_damage};
use super::super::{
    BUSY, HISTORY, MigrationStep, Newer, Store, Trouble, Tx, migrate, migrations, pools, step, trouble,
};
use super::blocks::{self, Table};
use crate::clock;

/// The prefixes of the names of files set aside.
const SET_ASIDE: [&str; 2] = ["history.db.damaged-", "history-1.db.damaged-"];
/// The ending of such a name, with the time.
const DAMAGED: &str = "damaged";
/// The first schema, which had a row for each sample.
pub(super) const OLD: [MigrationStep; 1] = [step(1, "init", include_str!("old_schema.sql"))];
/// Damaged blocks that readers may note until a step moves them aside. Later readers find the others.
const MAX_NOTED: usize = 1_000;
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
    /// Blocks that a reader found damaged.
    damaged: Mutex<BTreeSet<(Table, i64)>>,
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
        let shared = Shared {
            dir: dir.to_owned(),
            pools: RwLock::new(pools),
            suspect: AtomicBool::new(false),
            damaged: Mutex::default(),
        };
        Ok((History(Arc::new(shared)), lost))
    }

    /// Begins a transaction on the only writing connection. Moves the blocks aside that readers have
    /// found damaged.
    pub(super) async fn begin(&self) -> sqlx::Result<Tx> {
        self.is_there()?;
        let write = self.write();
        let mut tx = write.begin_with("begin immediate").await?;
        let damaged = std::mem::take(&mut *self.0.damaged.lock().expect("no holder panics"));
        for (table, key) in damaged {
            // It may have been written anew meanwhile.
            if super::read::is_damaged(&mut tx, table, key).await? {
                blocks::set_damaged(&mut tx, table, key, clock::wall()).await?;
            }
        }
        Ok(tx)
    }

    /// Checks that the file was not removed or moved away. What is written to such a one is gone after the next
    /// start, and its redo must not be removed.
    fn is_there(&self) -> sqlx::Result<()> {
        match std::fs::symlink_metadata(self.0.dir.join(HISTORY_FILE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.0.suspect.store(true, Ordering::Relaxed);
                Err(sqlx::Error::Io(error))
            }
            _ => Ok(()),
        }
    }

    /// Notes a damaged block for the next transaction.
    pub(super) fn note_damaged(&self, table: Table, key: i64) {
        let mut damaged = self.0.damaged.lock().expect("no holder panics");
        if damaged.len() < MAX_NOTED {
            damaged.insert((table, key));
        }
    }

    /// The file of a history of the first schema that is not converted yet.
    pub(super) fn old_file(&self) -> PathBuf {
        self.0.dir.join(OLD_HISTORY_FILE)
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
        let (fresh, lost) =
            begin_anew(&file, "it is damaged or was removed while it was in use".to_owned()).await?;
        *self.0.pools.write().expect("no holder panics") = fresh;
        self.0.suspect.store(false, Ordering::Relaxed);
        Ok(lost)
    }

    /// Whether a damaged history lies beside this one. This is true until the operator removes the
    /// file.
    pub fn was_set_aside(&self) -> bool {
        let names = std::fs::read_dir(&self.0.dir).into_iter().flatten().flatten();
        let is_one = |name: &str| SET_ASIDE.iter().any(|prefix| name.starts_with(prefix));
        names.map(|entry| entry.file_name()).any(|name| is_one(&name.to_string_lossy()))
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
    let moved = set_aside(file)
        .with_context(|| format!("{} is of no use ({why}) and cannot be set aside", file.display()))?;
    match opened(file, true).await {
        Ok(pools) => Ok((pools, Some(SetAside { file: moved, why }))),
        Err(NotOpened::Fatal(error)) => Err(error),
        Err(NotOpened::Useless(why)) => Err(anyhow::anyhow!("cannot begin {}: {why}", file.display())),
    }
}

/// Renames a damaged history. Returns its new name.
pub(super) fn set_aside(file: &Path) -> std::io::Result<PathBuf> {
    let at = jiff::Timestamp::from_millisecond(clock::wall().as_millis()).unwrap_or_default();
    files::set_aside(file, &format!("{DAMAGED}-{}", at.strftime("%Y%m%dT%H%M%SZ")))
}

/// The redo of what a block has is removed, so that a block must survive a power cut.
async fn opened(file: &Path, may_be_empty: bool) -> Result<Pools, NotOpened> {
    look_at(file, may_be_empty)?;
    make_way(file).await?;
    let (write, read) = pools(file, SqliteSynchronous::Full).await.map_err(useless_unless_full)?;
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
        Ok(found) if found.len() == 0 && !may_be_empty && !is_half_made(file) => {
            Err(NotOpened::Useless("it has 0 bytes".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Whether a kill ended the start that was making this file. Only its first page is written with a rollback journal.
fn is_half_made(file: &Path) -> bool {
    std::fs::symlink_metadata(files::beside(file, "-journal")).is_ok()
}

/// A full or busy disk proves nothing about the file. Any other error means that the file is
/// unreadable.
fn useless_unless_full(error: anyhow::Error) -> NotOpened {
    let statement = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>());
    match statement.and_then(trouble) {
        Some(Trouble::Full | Trouble::Busy) => NotOpened::Fatal(error),
        _ => NotOpened::Useless(format!("{error:#}")),
    }
}

/// Moves a history of the first schema to the name under which it is converted. A crash before or after
/// that leaves nothing undone.
async fn make_way(file: &Path) -> Result<(), NotOpened> {
    let useless = |error: sqlx::Error| useless_unless_full(error.into());
    if std::fs::symlink_metadata(file).is_err() {
        return Ok(());
    }
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(BUSY);
    let mut conn = options.connect().await.map_err(useless)?;
    let is_old = is_old(&mut conn).await;
    if matches!(is_old, Ok(true)) {
        // What is in the log gets into the file. If that fails, the log is moved with it.
        let _ = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut conn).await;
    }
    let _ = conn.close().await;
    if !is_old.map_err(useless)? {
        return Ok(());
    }
    let target = file.with_file_name(OLD_HISTORY_FILE);
    if std::fs::symlink_metadata(&target).is_ok() {
        return Err(NotOpened::Useless(format!("{} waits to be converted already", target.display())));
    }
    let moved = files::move_to(file, &target).context("cannot move the old history.db");
    moved.map_err(NotOpened::Fatal)
}

/// Whether the first schema made this database.
async fn is_old(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    if !has_steps(conn).await? {
        return Ok(false);
    }
    let old = migrations(&OLD);
    let applied = applied(conn).await?;
    let is_it = |(version, checksum, success): &Applied| {
        *success && old.iter().any(|step| step.version == *version && *step.checksum == **checksum)
    };
    Ok(!applied.is_empty() && applied.iter().all(is_it))
}

async fn check(pool: &SqlitePool, file: &Path) -> Result<(), NotOpened> {
    let useless = |error: sqlx::Error| useless_unless_full(error.into());
    let mut conn = pool.acquire().await.map_err(useless)?;
    if !is_of_ours(&mut conn).await.map_err(useless)? {
        return Err(NotOpened::Useless("its tables are not those of a history".to_owned()));
    }
    drop(conn);
    migrate(migrations(&HISTORY), pool, file).await.map_err(|error| {
        if error.downcast_ref::<Newer>().is_some() {
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
    if !has_steps(conn).await? {
        return Ok(false);
    }
    // One of the first schema is not here any more, unless its step was changed.
    let ours = [migrations(&OLD), migrations(&HISTORY)];
    let known = |version: i64| ours.iter().flat_map(|m| m.iter()).find(|step| step.version == version);
    let matches = |(version, checksum, success): &Applied| {
        *success && known(*version).is_none_or(|step| *step.checksum == **checksum)
    };
    Ok(applied(conn).await?.iter().all(matches))
}

/// Version, checksum and success of a step.
type Applied = (i64, Vec<u8>, bool);

async fn has_steps(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let steps = "select count(*) from sqlite_schema where name = '_sqlx_migrations'";
    Ok(sqlx::query_scalar::<_, i64>(steps).fetch_one(conn).await? > 0)
}

async fn applied(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Applied>> {
    sqlx::query_as("select version, checksum, success from _sqlx_migrations").fetch_all(conn).await
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
    for table in Table::ALL {
        blocks::oldest_hour(conn, table, 0).await.map_err(fail)?;
    }
    blocks::damaged(conn).await.map(drop).map_err(fail)
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
