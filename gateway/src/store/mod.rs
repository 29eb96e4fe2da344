//! The databases: one for all data that must not be lost, one for the history of samples.
//!
//! Both use SQLite in WAL mode. One connection writes, and a pool reads. Writes use
//! `synchronous=FULL`, because a change that grants or revokes access must survive a power cut.
//!
//! The SQL is portable (`$1`, `returning`, `on conflict`). Only this file depends on SQLite. SQLite
//! silently treats an unbound parameter as NULL, so count them.

pub mod access;
pub mod acknowledgements;
pub mod addresses;
pub mod alerting;
pub mod backlog;
pub mod contacts;
pub mod copy;
pub mod current_metrics;
pub mod definition;
pub mod devices;
pub mod downtimes;
pub mod enrolment_tokens;
pub mod enrolments;
pub mod event_data;
pub mod event_shares;
pub mod events;
pub mod files;
#[cfg(test)]
pub(crate) mod filled;
#[cfg(test)]
pub(crate) mod fixture;
pub mod forecasts;
pub mod forwarded;
pub mod grants;
pub mod history;
pub mod host_details;
pub mod host_settings;
pub mod hosts;
pub mod idempotency;
pub mod incidents;
pub mod instance;
mod interval_parts;
pub mod intervals;
pub mod lists;
pub mod managed;
pub mod neighbours;
pub mod notices;
mod notification_state;
pub mod operators;
pub mod outbox;
pub mod outcomes;
pub mod overrides;
pub mod peer_names;
pub mod peer_state;
mod peers_of_people;
pub mod policy;
pub mod profiles;
pub mod recurrence;
pub mod removals;
pub mod rentals;
pub mod reports;
pub mod resettle;
pub mod restore_review;
pub mod retention;
mod rows;
pub mod settings;
pub mod snapshot;
pub mod states;
pub mod subscriptions;
pub mod suppression;
pub mod suppression_detail;
#[cfg(test)]
mod template;
pub mod tokens;
pub mod wire_days;
mod write_check;
pub mod zones;

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::id::HostId;
use fleetgate_keys::SealKey;
use host_details::HostDetails;
// The parts of the database library that other modules may name: a connection inside a transaction,
// and its errors. Statements stay in this module.
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
pub use sqlx::{Connection, Error, Result, SqliteConnection};
use sqlx::{SqlStr, Sqlite};
pub use write_check::Refusal;
use write_check::WriteCheck;
use zeroize::Zeroizing;

use history::{History, SetAside};

/// The number of concurrent readers. More readers than cores gain nothing on one file.
const READERS: u32 = 4;
/// The page cache of the writing connection, in KiB. The changes of one commit must fit, or pages
/// are written twice and read again. With 10,000 hosts, 100 ms touch some 3,000 pages of 4 KiB.
const WRITER_CACHE: &str = "-16384";
/// The log size in pages that triggers a checkpoint (16 MiB). The pages of states and newest
/// samples change with every check. The longer they gather, the fewer times each is copied.
const CHECKPOINT: &str = "4096";
/// The time that a statement waits for another process that may lock the file, such as a backup.
const BUSY: Duration = Duration::from_secs(10);

/// Changes to the main database that happen together or not at all.
pub type Tx = sqlx::Transaction<'static, Sqlite>;

/// How a host is checked unless its spec or profile says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct TimingDefaults {
    pub interval: Duration,
    pub retry: Duration,
    pub attempts: u32,
    pub timeout: Duration,
    pub ping_interval: Duration,
}

/// Handles to both databases. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// One connection, whose transactions order all writes.
    pub(crate) write: SqlitePool,
    pub(crate) read: SqlitePool,
    pub history: History,
    seal: SealKey,
    write_check: Arc<WriteCheck>,
    host_details: Arc<host_details::SharedReads>,
}

impl Store {
    /// Opens or creates `fleetgate.db` and `history.db` in `dir` and migrates them to this version.
    /// `seal` seals the secrets in them.
    ///
    /// # Errors
    /// Fails when a database has a newer version, which it names, and when the disk is full or
    /// read-only.
    pub async fn open(dir: &Path, seal: SealKey) -> anyhow::Result<Store> {
        Store::open_noticing(dir, seal, false).await.map(|(store, _)| store)
    }

    /// Opens the databases as [`Store::open`] does. Also returns the history database that was
    /// unusable and was replaced. `unfinished`: an earlier first start was interrupted, so that an
    /// empty file is no loss.
    ///
    /// # Errors
    /// Fails as [`Store::open`] does.
    pub async fn open_noticing(
        dir: &Path,
        seal: SealKey,
        unfinished: bool,
    ) -> anyhow::Result<(Store, Option<SetAside>)> {
        let main = dir.join(files::MAIN_FILE);
        let (write, read) = pools(&main, SqliteSynchronous::Full).await?;
        migrate(migrations(MAIN), &write, &main).await?;
        let (history, lost) = History::open(dir, unfinished).await?;
        let write_check = Arc::new(WriteCheck::new(dir));
        Ok((Store { write, read, history, seal, write_check, host_details: Arc::default() }, lost))
    }

    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.history.close().await;
    }

    /// Begins a transaction on the only writing connection. All other writes wait until it is
    /// committed or dropped.
    ///
    /// # Errors
    /// Fails when the connection does not become free in time.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        self.write.begin_with("begin immediate").await
    }

    /// Begins a transaction for a caller that cannot wait until another process releases the file.
    ///
    /// # Errors
    /// Fails as busy when the transaction has not begun in time.
    pub async fn begin_within(&self, patience: Duration) -> sqlx::Result<Tx> {
        tokio::time::timeout(patience, self.begin()).await.unwrap_or(Err(Error::PoolTimedOut))
    }

    /// Tests whether the main database accepts a write now, by writing.
    ///
    /// # Errors
    /// Returns the reason when it does not.
    pub async fn check_writable(&self) -> std::result::Result<(), Refusal> {
        self.write_check.run(&self.write).await
    }

    /// Whether the file system of the database has more free bytes than the reserve.
    pub fn has_space(&self) -> bool {
        self.write_check.has_space()
    }

    /// Sets the reserve: with fewer free bytes in the file system, changes and results are refused.
    pub fn set_reserve(&self, bytes: u64) {
        self.write_check.set_reserve(bytes);
    }

    /// Returns the free bytes of the file system of the databases. `None` if it does not report them.
    pub fn free_bytes(&self) -> Option<u64> {
        self.write_check.free_bytes()
    }

    /// Returns the parts of a response about a host's services beside their states.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn host_details(&self, host: HostId) -> std::result::Result<HostDetails, Arc<Error>> {
        self.host_details.of_host(&self.read, host).await
    }

    /// Returns a connection for several reads.
    ///
    /// # Errors
    /// Fails when none becomes free in time.
    pub async fn reader(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        self.read.acquire().await
    }

    /// # Errors
    /// Fails when the main database cannot be read.
    pub async fn ping(&self) -> sqlx::Result<()> {
        sqlx::query("select count(*) from settings").execute(&self.read).await.map(drop)
    }

    /// Returns the greatest number of a series of the history, 0 if there is none.
    ///
    /// # Errors
    /// Fails when the main database cannot be read.
    pub async fn newest_series(&self) -> sqlx::Result<u32> {
        let newest: i64 =
            sqlx::query_scalar("select coalesce(max(id), 0) from series").fetch_one(&self.read).await?;
        Ok(u32::try_from(newest).unwrap_or(u32::MAX >> 1))
    }

    /// Seals a secret for its place, such as [`snapshot::psk_place`].
    pub fn seal(&self, place: &str, secret: &[u8]) -> Vec<u8> {
        self.seal.seal(secret, place.as_bytes())
    }

    /// # Errors
    /// Fails when it was sealed for another place or by another gateway, or is damaged.
    pub fn unseal(&self, place: &str, sealed: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        self.seal.open(sealed, place.as_bytes()).with_context(|| place.to_owned())
    }
}

async fn pools(file: &Path, synchronous: SqliteSynchronous) -> anyhow::Result<(SqlitePool, SqlitePool)> {
    // Unit tests meet no power cut, and most of them make a store: its migrations alone take dozens of syncs.
    let synchronous = if cfg!(test) { SqliteSynchronous::Off } else { synchronous };
    let options = SqliteConnectOptions::from_str("sqlite:")?
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY)
        .foreign_keys(true);
    let writing = options
        .clone()
        .pragma("cache_size", WRITER_CACHE)
        .pragma("wal_autocheckpoint", CHECKPOINT)
        // Removed personal data is overwritten in its page, and does not stay in the file until the page is full.
        .pragma("secure_delete", "fast")
        // The undo data of a statement with many rows. A file for it would cost more than the
        // statement.
        .pragma("temp_store", "memory");
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .after_release(|conn, _| Box::pin(is_clean(conn)))
        .connect_with(writing)
        .await
        .with_context(|| format!("cannot open {}", file.display()))?;
    // A connection that knows the schema from before a migration reads rows of the present one wrongly. So the first
    // reader connects after it.
    let read = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
    Ok((write, read))
}

/// The reason why the database itself failed, as opposed to the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk is full. Nothing was changed.
    Full,
    /// The database cannot be read or written, because of the disk, its permissions or damage.
    Disk,
    /// Other connections are using it.
    Busy,
}

/// Returns `None` if the statement is to blame.
pub fn trouble(error: &Error) -> Option<Trouble> {
    if matches!(error, Error::PoolTimedOut) {
        return Some(Trouble::Busy);
    }
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    // The primary code. No caller needs the extended one.
    match code & 0xff {
        5 => Some(Trouble::Busy),
        13 => Some(Trouble::Full),
        // Read-only, I/O error, corrupt, cannot be opened, not a database.
        8 | 10 | 11 | 14 | 26 => Some(Trouble::Disk),
        _ => None,
    }
}

/// Whether the next transaction can use this connection. SQLite ends a transaction by itself when a
/// commit finds no room. The library still counts the transaction and would refuse all later ones.
async fn is_clean(conn: &mut SqliteConnection) -> Result<bool> {
    // The ping runs after the rollback that a dropped transaction has sent.
    conn.ping().await?;
    Ok(!conn.is_in_transaction())
}

/// One released step of a schema. It is never edited afterwards.
struct MigrationStep {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// A slice, so that two changes that each add a step do not conflict over its length.
const MAIN: &[MigrationStep] = &[
    step(1, "init", include_str!("../../../migrations/sqlite/0001_init.sql")),
    step(2, "states", include_str!("../../../migrations/sqlite/0002_states.sql")),
    step(3, "notifications", include_str!("../../../migrations/sqlite/0003_notifications.sql")),
    step(4, "profiles", include_str!("../../../migrations/sqlite/0004_profiles.sql")),
    step(5, "verdict", include_str!("../../../migrations/sqlite/0005_verdict.sql")),
    step(6, "incidents", include_str!("../../../migrations/sqlite/0006_incidents.sql")),
    step(7, "wire", include_str!("../../../migrations/sqlite/0007_wire.sql")),
    step(8, "planned_and_silent", include_str!("../../../migrations/sqlite/0008_planned_and_silent.sql")),
    step(9, "host_results", include_str!("../../../migrations/sqlite/0009_host_results.sql")),
    step(10, "rules", include_str!("../../../migrations/sqlite/0010_rules.sql")),
    step(11, "removals", include_str!("../../../migrations/sqlite/0011_removals.sql")),
    step(12, "repeated_calls", include_str!("../../../migrations/sqlite/0012_repeated_calls.sql")),
    step(14, "host_key_types", include_str!("../../../migrations/sqlite/0014_host_key_types.sql")),
    step(18, "one_way", include_str!("../../../migrations/sqlite/0018_one_way.sql")),
    step(19, "retired_keys", include_str!("../../../migrations/sqlite/0019_retired_keys.sql")),
    step(20, "causes", include_str!("../../../migrations/sqlite/0020_causes.sql")),
    step(21, "open_members", include_str!("../../../migrations/sqlite/0021_open_members.sql")),
    step(22, "reading", include_str!("../../../migrations/sqlite/0022_reading.sql")),
    step(24, "excerpts_and_shares", include_str!("../../../migrations/sqlite/0024_excerpts_and_shares.sql")),
    step(25, "retention", include_str!("../../../migrations/sqlite/0025_retention.sql")),
    step(26, "addresses_in_events", include_str!("../../../migrations/sqlite/0026_addresses_in_events.sql")),
    step(27, "chosen_passwords", include_str!("../../../migrations/sqlite/0027_chosen_passwords.sql")),
    step(28, "api_words", include_str!("../../../migrations/sqlite/0028_api_words.sql")),
    step(29, "hard_since", include_str!("../../../migrations/sqlite/0029_hard_since.sql")),
    step(
        30,
        "operators_and_grants",
        include_str!("../../../migrations/sqlite/0030_operators_and_grants.sql"),
    ),
    step(31, "aliases", include_str!("../../../migrations/sqlite/0031_aliases.sql")),
    step(32, "forwarded", include_str!("../../../migrations/sqlite/0032_forwarded.sql")),
    step(33, "instance", include_str!("../../../migrations/sqlite/0033_instance.sql")),
    step(35, "tokens_of_users", include_str!("../../../migrations/sqlite/0035_tokens_of_users.sql")),
    step(37, "mtu", include_str!("../../../migrations/sqlite/0037_mtu.sql")),
    step(40, "intervals", include_str!("../../../migrations/sqlite/0040_intervals.sql")),
    step(41, "forwarded_rentals", include_str!("../../../migrations/sqlite/0041_forwarded_rentals.sql")),
    step(42, "people", include_str!("../../../migrations/sqlite/0042_people.sql")),
    step(45, "rentals", include_str!("../../../migrations/sqlite/0045_rentals.sql")),
    step(46, "rental_reports", include_str!("../../../migrations/sqlite/0046_rental_reports.sql")),
    step(47, "rental_access", include_str!("../../../migrations/sqlite/0047_rental_access.sql")),
    step(54, "rental_events", include_str!("../../../migrations/sqlite/0054_rental_events.sql")),
    step(55, "handover", include_str!("../../../migrations/sqlite/0055_handover.sql")),
    step(56, "rental_allowance", include_str!("../../../migrations/sqlite/0056_rental_allowance.sql")),
    step(57, "shipped_devices", include_str!("../../../migrations/sqlite/0057_shipped_devices.sql")),
    step(58, "rental_phases", include_str!("../../../migrations/sqlite/0058_rental_phases.sql")),
    step(59, "rental_ssh", include_str!("../../../migrations/sqlite/0059_rental_ssh.sql")),
    step(60, "device_ssh_access", include_str!("../../../migrations/sqlite/0060_device_ssh_access.sql")),
    step(61, "rental_contacts", include_str!("../../../migrations/sqlite/0061_rental_contacts.sql")),
    step(62, "mine", include_str!("../../../migrations/sqlite/0062_mine.sql")),
    step(63, "selections", include_str!("../../../migrations/sqlite/0063_selections.sql")),
    step(64, "rental_thresholds", include_str!("../../../migrations/sqlite/0064_rental_thresholds.sql")),
    step(65, "profile_rentals", include_str!("../../../migrations/sqlite/0065_profile_rentals.sql")),
    step(66, "erased_names", include_str!("../../../migrations/sqlite/0066_erased_names.sql")),
    step(67, "first_version", include_str!("../../../migrations/sqlite/0067_first_version.sql")),
    step(68, "measured_at", include_str!("../../../migrations/sqlite/0068_measured_at.sql")),
    step(69, "selection_profile", include_str!("../../../migrations/sqlite/0069_selection_profile.sql")),
    step(70, "usual_gates", include_str!("../../../migrations/sqlite/0070_usual_gates.sql")),
    step(71, "rooted", include_str!("../../../migrations/sqlite/0071_rooted.sql")),
    step(72, "series_and_redo", include_str!("../../../migrations/sqlite/0072_series_and_redo.sql")),
    step(73, "rental_maintenance", include_str!("../../../migrations/sqlite/0073_rental_maintenance.sql")),
    step(74, "forecasts", include_str!("../../../migrations/sqlite/0074_forecasts.sql")),
    step(75, "events_of_a_time", include_str!("../../../migrations/sqlite/0075_events_of_a_time.sql")),
    step(76, "kinds_of_events", include_str!("../../../migrations/sqlite/0076_kinds_of_events.sql")),
];
/// The first schema had a row for each sample. Its file is not migrated but converted; see `history/convert/mod.rs`.
const HISTORY: [MigrationStep; 1] =
    [step(2, "blocks", include_str!("../../../migrations/history/0002_blocks.sql"))];

const fn step(version: i64, name: &'static str, sql: &'static str) -> MigrationStep {
    MigrationStep { version, name, sql }
}

fn migrations(steps: &'static [MigrationStep]) -> Migrator {
    let step = |s: &'static MigrationStep| {
        Migration::new(s.version, s.name.into(), MigrationType::Simple, SqlStr::from_static(s.sql), false)
    };
    Migrator::with_migrations(steps.iter().map(step).collect())
}

/// A newer version wrote this database, so this version may not understand it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} was written by a newer fleetgate (schema {version}): start that version, or restore a backup of \
     this version into an empty directory with `fleetgate restore FILE --data DIR`",
    .file.display()
)]
pub struct Newer {
    file: PathBuf,
    version: i64,
}

async fn migrate(migrator: Migrator, pool: &SqlitePool, file: &Path) -> anyhow::Result<()> {
    migrator.run(pool).await.map_err(|e| match e {
        MigrateError::VersionMissing(version) => Newer { file: file.to_owned(), version }.into(),
        other => {
            anyhow::Error::new(other).context(format!("cannot bring {} to this version", file.display()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_the_schema_is_taken() {
        for (dir, steps) in [("sqlite", MAIN), ("history", HISTORY.as_slice())] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(dir);
            let files =
                std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
            let mut files: Vec<String> = files.collect();
            files.sort();
            let taken: Vec<String> =
                steps.iter().map(|s| format!("{:04}_{}.sql", s.version, s.name)).collect();
            assert_eq!(taken, files);
        }
    }

    #[tokio::test]
    async fn addresses_in_older_events_become_servers() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("addresses_in_events")).await;
        let insert = "insert into events (at, kind, object, cause, data, principal)
             values (1, 'message.failed', 'system', 'webhook to http://a/s3cret failed', '{\"to\":\"http://a/s3cret\"}', ''),
                    (1, 'message.sent', 'system', 'webhook to https://hooks.example.org:8443/x/s3cret?y',
                     '{\"to\":\"https://hooks.example.org:8443/x/s3cret?y\",\"message\":7}', ''),
                    (1, 'message.sent', 'system', 'mail to a@example.org', '{\"to\":\"a@example.org\"}', '')";
        fixture::run_on(&dir.path().join(files::MAIN_FILE), &[insert]).await;
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.unwrap();
        let now = fixture::texts(&store, "select cause || ' ' || data from events order by seq").await;
        assert_eq!(
            now,
            [
                r#"webhook to http://a failed {"to":"http://a"}"#,
                r#"webhook to https://hooks.example.org:8443 {"to":"https://hooks.example.org:8443","message":"m_0000000000007"}"#,
                r#"mail to a@example.org {"to":"a@example.org"}"#,
            ]
        );
    }

    #[tokio::test]
    async fn older_events_get_the_kinds_of_today() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("kinds_of_events")).await;
        let insert = "insert into events (at, kind, object, cause, principal)
             values (1, 'state', 'host', '', 'device:h_x'), (1, 'state.not_listed', 'host', '', 'system'),
                    (1, 'user.password', 'user', '', 'user:ada'), (1, 'user.login_link', 'user', '', 'user:ada'),
                    (1, 'person.login_link', 'person', '', 'user:ada'),
                    (1, 'gateway.endpoint', 'system', '', 'user:ada'),
                    (1, 'device.rental_settings', 'device', '', 'user:ada'),
                    (1, 'user.changed', 'user', '', 'user:ada')";
        fixture::run_on(&dir.path().join(files::MAIN_FILE), &[insert]).await;
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.unwrap();
        let kinds = fixture::texts(&store, "select kind from events order by seq").await;
        assert_eq!(
            kinds,
            [
                "state.changed",
                "state.not_listed",
                "user.password_changed",
                "user.login_link_created",
                "person.login_link_created",
                "gateway.endpoint_changed",
                "device.rental_settings_changed",
                "user.changed",
            ]
        );
        let unknown: Vec<&String> = kinds.iter().filter(|kind| event_data::of(kind).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    async fn put(store: &Store, key: &str) -> Result<()> {
        let mut tx = store.begin().await?;
        settings::put(&mut tx, key, &"x".repeat(20_000)).await?;
        tx.commit().await
    }

    #[tokio::test]
    async fn a_full_database_refuses_loses_nothing_and_takes_writes_again() {
        let (store, _dir) = fixture::store().await;
        put(&store, "before").await.unwrap();
        // This limits the database to its current size.
        sqlx::query("pragma max_page_count = 1").execute(&store.write).await.unwrap();
        assert_eq!(trouble(&put(&store, "while").await.unwrap_err()), Some(Trouble::Full));
        sqlx::query("pragma max_page_count = 1000000").execute(&store.write).await.unwrap();
        put(&store, "after").await.unwrap();
        let mut conn = store.reader().await.unwrap();
        for (key, there) in [("before", true), ("while", false), ("after", true)] {
            assert_eq!(settings::find(&mut conn, key).await.unwrap().is_some(), there, "{key}");
        }
    }

    #[tokio::test]
    async fn a_connection_with_an_aborted_transaction_is_not_reused() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        // SQLite does the same when a commit finds no room, without the library noticing.
        sqlx::query("rollback").execute(&mut *tx).await.unwrap();
        assert!(tx.commit().await.is_err());
        put(&store, "after").await.unwrap();
    }

    #[tokio::test]
    async fn messages_of_the_first_schema_are_still_delivered() {
        const ALL: &[MigrationStep] = MAIN;
        const BEFORE: &[MigrationStep] = ALL.split_at(2).0;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fleetgate.db");
        let (write, read) = pools(&file, SqliteSynchronous::Full).await.unwrap();
        migrate(migrations(BEFORE), &write, &file).await.unwrap();
        let body = r#"{"at":5,"host_name":"cam-07","service":null,"problem":true,"from":"up","to":"down",
                       "output":"no answer","since":4}"#;
        for to in ["ops@example.org", "ada@example.org"] {
            sqlx::query(
                "insert into outbox (host, recipient, body, created_at, attempts, next_attempt)
                 values (7, $1, $2, 5, 2, 9)",
            )
            .bind(to)
            .bind(body)
            .execute(&write)
            .await
            .unwrap();
        }
        write.close().await;
        read.close().await;
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.unwrap();
        let (mail, far) = (outbox::Channel::Email, fleetgate_engine::time::Wall::from_millis(i64::MAX / 2));
        let message = &store.due_messages(mail, "ada@example.org", far).await.unwrap().messages[0];
        assert_eq!((message.id, message.attempts, message.contact_name.as_str()), (2, 2, "default"));
        let mut conn = store.reader().await.unwrap();
        let contents = outbox::contents(&mut conn, 2, 9, outbox::Order::Time).await.unwrap();
        assert_eq!((contents.total(), contents.notices[0].host_name.as_str()), (1, "cam-07"));
        assert!(notices::unrouted(&mut conn, 9).await.unwrap().is_empty());
    }
}
