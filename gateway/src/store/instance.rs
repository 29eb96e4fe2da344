//! The course of events that this database belongs to. A restore begins another one, and operators,
//! renters and bookings wait until an admin has confirmed what it brought back.
//!
//! The table has one row, from the step of the schema on that creates it. This module does not know what
//! waits.

use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::access::maybe_wall;
use super::settings;

/// Settings of a database that was restored before its schema had the table. The migration moves them.
const RESTORED_AT: &str = "restored_at";
const BACKUP_MADE_AT: &str = "restored_backup_made_at";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Changes with each restore.
    pub epoch: String,
    /// `None`: it was never restored.
    pub restored_at: Option<Wall>,
    pub backup_made_at: Option<Wall>,
    /// Of the restore.
    pub confirmation: Option<Confirmation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub at: Wall,
    /// The principal.
    pub by: String,
}

impl Instance {
    /// Returns the time of a restore that no admin has confirmed.
    pub fn unconfirmed(&self) -> Option<Wall> {
        self.restored_at.filter(|_| self.confirmation.is_none())
    }
}

impl FromRow<'_, SqliteRow> for Instance {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let by: Option<String> = row.try_get("confirmed_by")?;
        let confirmed = maybe_wall(row, "confirmed_at")?;
        Ok(Instance {
            epoch: row.try_get("epoch")?,
            restored_at: maybe_wall(row, "restored_at")?,
            backup_made_at: maybe_wall(row, "backup_made_at")?,
            confirmation: confirmed.map(|at| Confirmation { at, by: by.unwrap_or_default() }),
        })
    }
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn load(conn: &mut SqliteConnection) -> sqlx::Result<Instance> {
    sqlx::query_as("select * from instance").fetch_one(conn).await
}

/// Returns the mark of this course of events. Cursors carry it: one from before a restore leads nowhere.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn epoch(conn: &mut SqliteConnection) -> sqlx::Result<String> {
    Ok(load(conn).await?.epoch)
}

/// Returns the version that a new object begins with. A restore raises it: one that is created again under its name does
/// not match an ETag from before.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn first_version(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select version from instance").fetch_one(conn).await
}

/// Whether a restore waits for an admin who confirms what it brought back.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn awaits_review(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    Ok(unconfirmed(conn).await?.is_some())
}

/// Returns the time of a restore that no admin has confirmed.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn unconfirmed(conn: &mut SqliteConnection) -> sqlx::Result<Option<Wall>> {
    Ok(load(conn).await?.unconfirmed())
}

/// Marks a database that is being restored. Its schema may be older than the table.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn mark_restored(
    tx: &mut SqliteConnection,
    now: Wall,
    backup_made_at: Option<Wall>,
) -> sqlx::Result<()> {
    raise_versions(tx).await?;
    let there = "select exists (select 1 from sqlite_schema where type = 'table' and name = 'instance')";
    if !sqlx::query_scalar::<_, bool>(there).fetch_one(&mut *tx).await? {
        settings::put(tx, RESTORED_AT, &now.as_millis().to_string()).await?;
        return match backup_made_at {
            Some(at) => settings::put(tx, BACKUP_MADE_AT, &at.as_millis().to_string()).await,
            None => Ok(()),
        };
    }
    let sql = "update instance set epoch = lower(hex(randomblob(8))), restored_at = $1, backup_made_at = $2,
                   confirmed_at = null, confirmed_by = null";
    let update = sqlx::query(sql).bind(now.as_millis()).bind(backup_made_at.map(Wall::as_millis));
    update.execute(tx).await.map(drop)
}

/// Raises the versions of everything that has one by the same large number, which each restore draws. They are the
/// ETags: one that a caller got after the backup must not match another change with the same number. The row of the
/// instance has the version of new objects.
async fn raise_versions(tx: &mut SqliteConnection) -> sqlx::Result<()> {
    // At least 2^40. JSON has room for the sum of 4,096 of them.
    let by = "select abs(random() % 1099511627776) + 1099511627776";
    let by: i64 = sqlx::query_scalar(by).fetch_one(&mut *tx).await?;
    // Events of rentals keep the version that their rental had.
    let tables = "select m.name from sqlite_schema m join pragma_table_info(m.name) c
                  where m.type = 'table' and c.name = 'version' and substr(m.name, 1, 1) <> '_'
                    and m.name <> 'rental_events'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *tx).await?;
    for table in tables {
        let sql = format!("update \"{table}\" set version = version + $1");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(by).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Records that an admin has confirmed what the restore brought back.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn confirm(tx: &mut SqliteConnection, now: Wall, by: &str) -> sqlx::Result<()> {
    let sql = "update instance set confirmed_at = $1, confirmed_by = $2";
    sqlx::query(sql).bind(now.as_millis()).bind(by).execute(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_keys::SealKey;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions as _, Connection as _};

    use super::*;
    use crate::store::rentals::erasures::Erasure;
    use crate::store::{Store, copy, files, filled, fixture};

    #[tokio::test]
    async fn a_first_start_is_no_restore_and_each_restore_begins_another_epoch() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let first = load(&mut tx).await.unwrap();
        assert_eq!((first.epoch.len(), first.unconfirmed()), (16, None));
        assert!(!awaits_review(&mut tx).await.unwrap());
        let (now, made) = (Wall::from_millis(5_000), Some(Wall::from_millis(4_000)));
        mark_restored(&mut tx, now, made).await.unwrap();
        let second = load(&mut tx).await.unwrap();
        assert_eq!((second.unconfirmed(), second.backup_made_at), (Some(now), made));
        assert!(awaits_review(&mut tx).await.unwrap() && epoch(&mut tx).await.unwrap() != first.epoch);
        confirm(&mut tx, Wall::from_millis(6_000), "user:ada").await.unwrap();
        let confirmed = load(&mut tx).await.unwrap();
        assert_eq!((confirmed.unconfirmed(), confirmed.restored_at), (None, Some(now)));
        assert_eq!(confirmed.confirmation.unwrap().by, "user:ada");
        assert_eq!(confirmed.epoch, second.epoch);
        mark_restored(&mut tx, Wall::from_millis(7_000), None).await.unwrap();
        assert!(awaits_review(&mut tx).await.unwrap(), "a restored backup of a restored gateway");
    }

    #[tokio::test]
    async fn no_version_from_before_a_restore_comes_again() {
        let (seal, dir) = (SealKey::from_bytes([1; 32]), tempfile::tempdir().unwrap());
        filled::make(dir.path(), fixture::schema_steps(), &seal).await;
        let store = Store::open(dir.path(), seal).await.unwrap();
        let versions = async || {
            let all =
                "select 'host ' || version from hosts union all select 'rental ' || version from rentals
                       union all select 'rules ' || version from profile_rules";
            let all = fixture::texts(&store, all).await;
            assert!(all.len() >= 3);
            all
        };
        let events = "select version || '' from rental_events order by seq";
        let (first, sent) = (versions().await, fixture::texts(&store, events).await);
        fixture::restored(&store, Wall::from_millis(5_000)).await;
        let second = versions().await;
        fixture::restored(&store, Wall::from_millis(5_000)).await;
        let third = versions().await;
        assert!(second.iter().chain(&third).all(|version| !first.contains(version)), "{first:?} {second:?}");
        assert!(third.iter().all(|version| !second.contains(version)), "{third:?}");
        let is_a_number_of_json = |version: &String| version.split_once(' ').unwrap().1.len() <= 15;
        assert!(third.iter().all(is_a_number_of_json), "{third:?}");
        assert_eq!(fixture::texts(&store, events).await, sent, "what was sent stays");
        let begins = first_version(&mut store.reader().await.unwrap()).await.unwrap();
        assert!(begins > 2 << 40, "new objects begin above all from before: {begins}");
    }

    #[tokio::test]
    async fn a_restore_of_an_older_schema_is_known_after_its_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("instance")).await;
        let file = dir.path().join(files::MAIN_FILE);
        let mut conn = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        let (now, made) = (Wall::from_millis(5_000), Some(Wall::from_millis(4_000)));
        mark_restored(&mut conn, now, made).await.unwrap();
        conn.close().await.unwrap();
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.unwrap();
        let mut conn = store.reader().await.unwrap();
        let found = load(&mut conn).await.unwrap();
        assert_eq!((found.unconfirmed(), found.backup_made_at), (Some(now), made));
        assert_eq!(settings::find(&mut conn, RESTORED_AT).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_backup_of_any_earlier_schema_waits_after_its_restore() {
        let erasure = Erasure { customer: Id::from_i64(110), at: Wall::from_millis(5) };
        let before = ["excerpts_and_shares", "instance", "people", "rentals"].map(fixture::steps_before);
        for steps in before.into_iter().chain([1, fixture::schema_steps()]) {
            let (seal, dir) = (SealKey::from_bytes([1; 32]), tempfile::tempdir().unwrap());
            filled::make(dir.path(), steps, &seal).await;
            let file = dir.path().join(files::MAIN_FILE);
            let erased = copy::mark_restored(&file, "2026-11-30T08:15:00Z", &[erasure]).await;
            let erased = erased.unwrap_or_else(|e| panic!("{steps}: {e:#}"));
            assert_eq!(erased, usize::from(steps == fixture::schema_steps()), "{steps}");
            let store = Store::open(dir.path(), seal).await.unwrap_or_else(|e| panic!("{steps}: {e:#}"));
            assert!(awaits_review(&mut store.reader().await.unwrap()).await.unwrap(), "{steps}");
            let noted = "select principal from events where kind = 'gateway.restored'";
            assert_eq!(fixture::texts(&store, noted).await, ["system"], "{steps}");
        }
    }

    #[tokio::test]
    async fn a_restore_brings_back_no_login_of_a_person_of_a_customer() {
        let (seal, dir) = (SealKey::from_bytes([1; 32]), tempfile::tempdir().unwrap());
        filled::make(dir.path(), fixture::schema_steps(), &seal).await;
        let file = dir.path().join(files::MAIN_FILE);
        copy::mark_restored(&file, "2026-11-30T08:15:00Z", &[]).await.unwrap();
        let store = Store::open(dir.path(), seal).await.unwrap();
        let left = "select hex(hash) from person_sessions union all select hex(hash) from person_login_links";
        assert!(fixture::texts(&store, left).await.is_empty());
    }
}
