//! The database files of a data directory before they are opened: which ones exist, and how an
//! unusable file is set aside. Removes nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

/// All data that must not be lost.
pub const MAIN_FILE: &str = "fleetgate.db";
/// Samples only.
pub const HISTORY_FILE: &str = "history.db";
/// The history of an earlier version while it is converted.
pub const OLD_HISTORY_FILE: &str = "history-1.db";
/// The suffixes of SQLite's side files: pages that are not yet in the database, and their index.
pub const SIDE_FILES: [&str; 2] = ["-wal", "-shm"];

/// The state of the main database file.
#[derive(Debug)]
pub enum Main {
    Missing,
    /// A file without a gateway's rows, with a description.
    Empty(&'static str),
    /// SQLite cannot read it, with the reason.
    Damaged(String),
    /// It cannot be opened, but may be intact.
    Unreadable(io::Error),
    Gateway,
}

/// Inspects the main database without changing it. A file of 0 bytes is never passed to SQLite,
/// which would discard the log beside it.
///
/// # Errors
/// Fails when the database cannot be read for a reason other than damage.
pub async fn inspect_main(dir: &Path) -> anyhow::Result<Main> {
    let file = dir.join(MAIN_FILE);
    match fs::metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Main::Missing),
        Err(error) => return Ok(Main::Unreadable(error)),
        Ok(found) if !found.is_file() => return Ok(Main::Damaged("it is no file".to_owned())),
        Ok(found) if found.len() == 0 => return Ok(Main::Empty("has 0 bytes")),
        Ok(_) => {}
    }
    if let Err(error) = File::open(&file) {
        return Ok(Main::Unreadable(error));
    }
    match holds_a_gateway(&file).await {
        Ok(true) => Ok(Main::Gateway),
        Ok(false) => Ok(Main::Empty("holds no gateway's rows")),
        Err(error) if is_damage(&error) => Ok(Main::Damaged(error.to_string())),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", file.display()))),
    }
}

async fn holds_a_gateway(file: &Path) -> sqlx::Result<bool> {
    let mut conn = read_only(file).await?;
    let found = has_rows(&mut conn).await;
    let _ = conn.close().await;
    found
}

/// A gateway stores its public key on its first start. A database of an early version has users or
/// hosts.
async fn has_rows(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let tables =
        "select count(*) from sqlite_schema where type = 'table' and name in ('settings', 'users', 'hosts')";
    if sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut *conn).await? < 3 {
        return Ok(false);
    }
    let rows = "select exists (select 1 from settings where name = 'gateway_public_key')
                or exists (select 1 from users) or exists (select 1 from hosts)";
    sqlx::query_scalar(rows).fetch_one(conn).await
}

/// Opens a read-only connection.
pub(super) async fn read_only(file: &Path) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(super::BUSY).connect().await
}

/// Whether SQLite reports that the file itself is damaged: its content is invalid, or it is no
/// database.
pub fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Whether damage causes an error of any kind.
pub fn stems_from_damage(error: &anyhow::Error) -> bool {
    let of_statement = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<sqlx::Error>().is_some_and(is_damage)
    };
    let of_migration = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(
            sqlx::migrate::MigrateError::Execute(e) | sqlx::migrate::MigrateError::ExecuteMigration(e, _),
        ) => is_damage(e),
        _ => false,
    };
    error.chain().any(|cause| of_statement(cause) || of_migration(cause))
}

/// Renames a database and its SQLite side files, so that they can be examined later. Returns the
/// new name of the database, even if only side files existed.
///
/// # Errors
/// Fails when the folder cannot be written.
pub fn set_aside(file: &Path, ending: &str) -> io::Result<PathBuf> {
    let target = free_name(file, ending);
    for side in ["", SIDE_FILES[0], SIDE_FILES[1]] {
        match fs::rename(beside(file, side), beside(&target, side)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(target)
}

/// Returns the name of a file beside `file`, such as its log.
pub fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Returns `FILE.ENDING`, with a number if that name is taken.
fn free_name(file: &Path, ending: &str) -> PathBuf {
    let first = beside(file, &format!(".{ending}"));
    let numbered = (2..).map(|n| beside(file, &format!(".{ending}.{n}")));
    let mut names = std::iter::once(first).chain(numbered);
    names.find(|name| fs::symlink_metadata(name).is_err()).expect("numbers do not end")
}
