//! A store in a folder of its own, for tests.

use std::path::Path;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    Detail, DirectReply, FlowEnd, FlowRecord, FlowTraffic, GrantProtocol, HostState, HostStatus, Message,
    MessageKind, NotificationState, PathCheck, ServiceState, SourceOwner, StateType,
};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{PrivateKey, SealKey};
use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::{Metric, Status};
use tempfile::TempDir;

use super::{Store, template};
use crate::store::TimingDefaults;

/// A pseudo-random generator that repeats its sequence in each run.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let sides = u64::try_from(from.len()).ok().filter(|len| *len > 0)?;
        usize::try_from(self.below(sides)).ok().and_then(|at| from.get(at).cloned())
    }
}

pub(crate) async fn store() -> (Store, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    (store_in(dir.path(), SealKey::from_bytes([1; 32])).await, dir)
}

/// Creates a store in a folder without databases.
pub(crate) async fn store_in(dir: &Path, seal: SealKey) -> Store {
    template::copy_to(dir);
    let store = Store::open(dir, seal).await.expect("a new store");
    for sql in template::MAKE_ITS_OWN {
        run(&store, sql, &[]).await;
    }
    store
}

pub(crate) const TIMING: TimingDefaults = TimingDefaults {
    interval: Duration::from_secs(60),
    retry: Duration::from_secs(10),
    attempts: 3,
    timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(300),
};

/// Runs a statement with the values of `bind`.
pub(crate) async fn run(store: &Store, sql: &'static str, bind: &[&str]) {
    let mut query = sqlx::query(sql);
    for value in bind {
        query = query.bind(*value);
    }
    query.execute(&store.write).await.expect("a statement of a test");
}

/// The stored answers to repeated calls.
pub(crate) async fn answers(store: &Store) -> String {
    let bodies: Vec<String> =
        sqlx::query_scalar("select body from idempotency").fetch_all(&store.read).await.expect("answers");
    bodies.concat()
}

/// A device with a tunnel: its key is made of its number, its address is 10.112.0.`n`.
pub(crate) async fn device(store: &Store, n: u8, name: &str) -> HostId {
    let id = HostId::from_i64(i64::from(n));
    sqlx::query("insert into hosts (id, name, profile, created_at) values ($1, $2, 'default', 0)")
        .bind(id.as_i64())
        .bind(name)
        .execute(&store.write)
        .await
        .expect("a new host");
    for sql in [
        "insert into peers (id, kind, created_at) values ($1, 'device', 0)",
        "insert into addresses (address, slot, peer, allocated_at) values ('10.112.0.' || $1, $1, $1, 0)",
        "insert into addresses (address, slot, peer, allocated_at) values ('fd72::' || $1, $1, $1, 0)",
    ] {
        sqlx::query(sql).bind(id.as_i64()).execute(&store.write).await.expect("a new peer");
    }
    sqlx::query("insert into peer_keys (public_key, peer, added_at) values ($1, $2, 0)")
        .bind(PrivateKey::from_bytes([n; 32]).public().to_string())
        .bind(id.as_i64())
        .execute(&store.write)
        .await
        .expect("a new key");
    id
}

/// Returns a host's state after its first result.
pub(crate) fn up(host: HostId) -> HostState {
    HostState {
        host,
        status: HostStatus::Up,
        kind: StateType::Hard,
        attempt: 1,
        hard: HostStatus::Up,
        reachable: true,
        stale: false,
        asleep: false,
        since: Wall::from_millis(1_000),
        hard_since: Wall::from_millis(1_000),
        last_check: Some(Wall::from_millis(2_000)),
        next_check: Some(Wall::from_millis(62_000)),
        source: "evidence".into(),
        direct: DirectReply::NotAsked,
        one_way: false,
        silent_since: None,
        last_alive: Some(Wall::from_millis(2_000)),
        asked_at: Some(Wall::from_millis(2_000)),
        asked: Some([172, 24, 0, 7].into()),
        strange_key: Some("SHA256:strange".into()),
        output: "an authenticated packet 2 s ago".into(),
        detail: Detail { metrics: [Metric::amount("packet_age", 2.0, "s")].into(), ..Detail::default() },
        notified: None,
        notification: NotificationState::default(),
        taken: Default::default(),
    }
}

/// Returns a service's state after its first result.
pub(crate) fn service(name: &str, status: Status) -> ServiceState {
    ServiceState {
        name: name.into(),
        status: Some(status),
        kind: StateType::Hard,
        attempt: 1,
        hard: Some(status),
        stale: false,
        since: Wall::from_millis(1_000),
        hard_since: Wall::from_millis(1_000),
        last_check: Some(Wall::from_millis(2_000)),
        next_check: None,
        route: "tunnel".into(),
        asked: Some([172, 24, 0, 7].into()),
        path: PathCheck::NotAsked,
        cause_since: Wall::from_millis(1_000),
        result: PluginResult {
            status,
            cause: Cause::Answered,
            text: format!("{name} is {}", status.name()),
            long_text: "more".into(),
            metrics: [Metric {
                warn: "@10:20".parse().ok(),
                crit: "~:90".parse().ok(),
                min: Some(0.0),
                ..Metric::plain("rtt", 12.5, "ms")
            }]
            .into(),
            warnings: vec!["skipped 'x'".into()],
        },
        notified: None,
        notification: NotificationState::default(),
        taken: Default::default(),
    }
}

/// Returns the monitor's message about a host that is down.
pub(crate) fn down(host: HostId) -> Message {
    Message {
        at: Wall::from_millis(1_000),
        host,
        host_name: "cam-07".into(),
        service: None,
        kind: MessageKind::Problem,
        problem: true,
        from: "up",
        to: "down",
        output: "no answer".into(),
        since: Wall::from_millis(500),
        incident: None,
        note: String::new(),
    }
}

/// Returns the number of schema steps.
pub(crate) fn schema_steps() -> usize {
    super::MAIN.len()
}

/// Returns the number of schema steps before the one with this name.
pub(crate) fn steps_before(name: &str) -> usize {
    super::MAIN.iter().position(|step| step.name == name).expect("a step of the schema")
}

/// Creates a database with the first `steps` of the schema, as an interrupted start leaves it.
pub(crate) async fn half_made(dir: &Path, steps: usize) {
    let file = dir.join(super::files::MAIN_FILE);
    if steps == 0 {
        return std::fs::write(file, "").expect("an empty file");
    }
    let (write, read) = super::pools(&file, super::SqliteSynchronous::Full).await.expect("a new database");
    super::migrate(super::migrations(&super::MAIN[..steps]), &write, &file).await.expect("its first steps");
    write.close().await;
    read.close().await;
}

/// Makes it the database of a gateway that was restored at this time.
pub(crate) async fn restored(store: &Store, at: Wall) {
    let mut tx = store.begin().await.expect("a transaction");
    super::instance::mark_restored(&mut tx, at, Some(at - Duration::from_secs(3_600)))
        .await
        .expect("a statement of a test");
    tx.commit().await.expect("a commit");
}

/// Runs statements on a database file that no process has open.
pub(crate) async fn run_on(file: &Path, statements: &[&'static str]) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut conn = options.foreign_keys(false).connect().await.expect("a database");
    for sql in statements {
        sqlx::query(*sql).execute(&mut conn).await.expect("a statement of a test");
    }
    conn.close().await.expect("it can be closed");
}

/// Returns the texts that a statement selects from the main database.
pub(crate) async fn texts(store: &Store, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&store.read).await.expect("a statement of a test")
}

const OLD_HISTORY: &[super::MigrationStep] =
    &[super::step(1, "init", include_str!("history/old_schema.sql"))];

/// Creates a history of the first schema, without rows.
pub(crate) async fn old_history(dir: &Path) {
    let file = dir.join(super::files::HISTORY_FILE);
    let (write, read) = super::pools(&file, super::SqliteSynchronous::Off).await.expect("a new database");
    super::migrate(super::migrations(OLD_HISTORY), &write, &file).await.expect("the first schema");
    read.close().await;
    write.close().await;
}

/// Runs a statement on the history.
pub(crate) async fn history_run(store: &Store, sql: &'static str) {
    sqlx::query(sql).execute(&store.history.write()).await.expect("a statement of a test");
}

/// Returns the text that a statement selects from the history.
pub(crate) async fn history_text(store: &Store, sql: &'static str) -> Option<String> {
    sqlx::query_scalar(sql).fetch_one(&store.history.read()).await.expect("a statement of a test")
}

/// The record of a flow of operator 3 to host 9: 100 bytes, and 900 back.
pub(crate) fn flow_record(port: u16, at: i64, ended: Option<FlowEnd>) -> FlowRecord {
    let traffic = |bytes| FlowTraffic { packets: 1, bytes };
    FlowRecord {
        source: Id::from_i64(3),
        owner: SourceOwner::User { user: Id::from_i64(70), role: None },
        host: Id::from_i64(9),
        rental: None,
        protocol: GrantProtocol::Tcp,
        port,
        from: Wall::from_millis(at - 1_000),
        until: Wall::from_millis(at),
        sent: traffic(100),
        received: traffic(900),
        grant: Id::from_i64(8),
        ended,
    }
}
