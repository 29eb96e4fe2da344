//! Enrolments: a device's request to join, and its outcome.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use fleetgate_keys::PublicKey;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{id, maybe_wall, wall};
use super::events::{self, NewEvent, Object, SYSTEM};
use super::lists::{Entry, ListRow};

/// A request that waits longer than a week was forgotten. The device may send another one.
pub const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// As many as the largest fleet has devices. A token with approval and without a limit of uses would otherwise fill the
/// database. Tests have patience for fewer.
pub const MOST_WAITING: i64 = if cfg!(test) { 100 } else { 10_000 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    AwaitingApproval,
    Approved,
    Rejected,
    Expired,
}

impl State {
    pub const ALL: [State; 4] = [State::AwaitingApproval, State::Approved, State::Rejected, State::Expired];

    pub const fn name(self) -> &'static str {
        match self {
            State::AwaitingApproval => "awaiting_approval",
            State::Approved => "approved",
            State::Rejected => "rejected",
            State::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("awaiting_approval, approved, rejected or expired is expected")]
pub struct BadState;

impl FromStr for State {
    type Err = BadState;

    fn from_str(text: &str) -> Result<Self, BadState> {
        State::ALL.into_iter().find(|s| s.name() == text).ok_or(BadState)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    pub id: Id,
    pub token: Id,
    /// The purpose of the token, in its author's words.
    pub token_label: String,
    /// The device whose key this enrolment replaces.
    pub replaces: Option<HostId>,
    pub state: State,
    /// The claimed name. After approval, the name that the operator chose.
    pub name: String,
    pub public_key: String,
    /// The `SHA256:...` that the device reports.
    pub ssh_host_key: Option<String>,
    /// SHA-256 of the polling secret.
    pub poll_hash: Vec<u8>,
    pub host: Option<HostId>,
    pub remote_address: String,
    pub reason: String,
    pub created_at: Wall,
    pub decided_at: Option<Wall>,
    pub decided_by: Option<String>,
    pub expires_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for Enrolment {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let state: String = row.try_get("state")?;
        let state = state
            .parse()
            .map_err(|e: BadState| sqlx::Error::ColumnDecode { index: "state".into(), source: e.into() })?;
        Ok(Enrolment {
            id: id(row, "id")?,
            token: id(row, "token")?,
            token_label: row.try_get("token_label")?,
            replaces: row.try_get::<Option<i64>, _>("replaces")?.map(Id::from_i64),
            state,
            name: row.try_get("name")?,
            public_key: row.try_get("public_key")?,
            ssh_host_key: row.try_get("ssh_host_key")?,
            poll_hash: row.try_get("poll_hash")?,
            host: row.try_get::<Option<i64>, _>("host")?.map(Id::from_i64),
            remote_address: row.try_get("remote_address")?,
            reason: row.try_get("reason")?,
            created_at: wall(row, "created_at")?,
            decided_at: maybe_wall(row, "decided_at")?,
            decided_by: row.try_get("decided_by")?,
            expires_at: maybe_wall(row, "expires_at")?,
        })
    }
}

impl ListRow for Enrolment {
    const TABLE: &'static str = "enrolments";
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "select e.*, t.label as token_label, t.replaces from enrolments e
             join enrolment_tokens t on t.id = e.token where ",
            $condition
        )
    };
}

const LIST: &str = select!("e.id < $1 and ($2 is null or e.state = $2) order by e.id desc limit $3");
const BY_ID: &str = select!("e.id = $1");
const BY_KEY: &str = select!("e.public_key = $1 and e.state in ('awaiting_approval', 'approved')");

impl Store {
    /// Returns the newest enrolments first, from below the id `before`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn enrolments(
        &self,
        state: Option<State>,
        before: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<Entry<Enrolment>>> {
        let query = sqlx::query_as(LIST).bind(before).bind(state.map(State::name)).bind(limit);
        query.fetch_all(&self.read).await
    }

    /// Expires requests that have waited too long. Returns their ids.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn expire_enrolments(&self, now: Wall) -> sqlx::Result<Vec<Id>> {
        let sql = "select count(*) from enrolments where state = 'awaiting_approval' and expires_at <= $1";
        let late: i64 = sqlx::query_scalar(sql).bind(now.as_millis()).fetch_one(&self.read).await?;
        if late == 0 {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let ended = expire(&mut tx, now).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// Expires requests that have waited too long. Returns their ids.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn expire(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Id>> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "update enrolments set state = 'expired', reason = 'not approved in time', decided_at = $1
         where state = 'awaiting_approval' and expires_at <= $1 returning id",
    )
    .bind(now.as_millis())
    .fetch_all(&mut *tx)
    .await?;
    let ids: Vec<Id> = ids.into_iter().map(Id::from_i64).collect();
    for id in &ids {
        let about = (Object::Enrolment, Some(*id));
        let event = NewEvent::new(now, "enrolment.expired", about, "not approved in time", SYSTEM);
        events::append(tx, &event).await?;
    }
    Ok(ids)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, enrolment: Id) -> sqlx::Result<Option<Enrolment>> {
    sqlx::query_as(BY_ID).bind(enrolment.as_i64()).fetch_optional(conn).await
}

/// Returns the waiting or approved enrolment with this key.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn by_key(conn: &mut SqliteConnection, key: &PublicKey) -> sqlx::Result<Option<Enrolment>> {
    sqlx::query_as(BY_KEY).bind(key.to_string()).fetch_optional(conn).await
}

/// Whether as many requests as [`MOST_WAITING`] wait for a decision.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn are_enough(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from enrolments where state = 'awaiting_approval'")
            .fetch_one(conn)
            .await?;
    Ok(waiting >= MOST_WAITING)
}

/// # Errors
/// Fails when the key is waiting or approved already, or the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, enrolment: &Enrolment) -> sqlx::Result<()> {
    sqlx::query(
        "insert into enrolments (id, token, state, name, public_key, ssh_host_key, poll_hash, host,
             remote_address, created_at, decided_at, decided_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(enrolment.id.as_i64())
    .bind(enrolment.token.as_i64())
    .bind(enrolment.state.name())
    .bind(&enrolment.name)
    .bind(&enrolment.public_key)
    .bind(enrolment.ssh_host_key.as_deref())
    .bind(&enrolment.poll_hash)
    .bind(enrolment.host.map(Id::as_i64))
    .bind(&enrolment.remote_address)
    .bind(enrolment.created_at.as_millis())
    .bind(enrolment.decided_at.map(Wall::as_millis))
    .bind(enrolment.decided_by.as_deref())
    .bind(enrolment.expires_at.map(Wall::as_millis))
    .execute(tx)
    .await
    .map(drop)
}

/// The decision of an operator.
pub struct Decision<'a> {
    pub state: State,
    pub name: &'a str,
    pub host: Option<HostId>,
    pub reason: &'a str,
    pub by: &'a str,
    pub at: Wall,
}

/// Decides a waiting request. If two calls decide it at once, one succeeds.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn decide(tx: &mut SqliteConnection, enrolment: Id, decision: &Decision<'_>) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update enrolments set state = $2, name = $3, host = $4, reason = $5, decided_by = $6,
             decided_at = $7, expires_at = null
         where id = $1 and state = 'awaiting_approval'",
    )
    .bind(enrolment.as_i64())
    .bind(decision.state.name())
    .bind(decision.name)
    .bind(decision.host.map(Id::as_i64))
    .bind(decision.reason)
    .bind(decision.by)
    .bind(decision.at.as_millis())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
