//! Operators: the peers of people, such as a laptop or a phone. Each belongs to a user.
//!
//! An operator is no host: it is never checked and never counted as one. Its peer has the same id. This
//! module takes valid values, and does not know who may add or change an operator.

use std::net::IpAddr;

use fleetgate_engine::id::{PeerId, UserId};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{Role, id, maybe_wall, role, wall};
use super::addresses::Pools;
use super::devices::{self, NewKey, NotMade, inner_addresses};
use super::lists::{Entry, ListRow};
use super::peers_of_people::{self, write_mtu};

/// A stored operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub id: PeerId,
    pub name: String,
    pub user: UserId,
    pub user_name: String,
    pub role: Role,
    /// When the user was disabled. The peer is not in the tunnel then.
    pub disabled_at: Option<Wall>,
    pub public_key: String,
    /// The time when this key was set.
    pub keyed_at: Wall,
    pub addresses: Vec<IpAddr>,
    pub last_handshake: Option<Wall>,
    /// The inner MTU of its peer; `None`: the usual one.
    pub mtu: Option<u16>,
    pub version: i64,
    pub created_at: Wall,
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "select o.*, u.name as user_name, u.role, u.disabled_at, k.public_key, k.added_at as keyed_at,
                    m.last_handshake, p.mtu,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = o.id and a.released_at is null) as inner_addresses
             from operators o
             join users u on u.id = o.user
             join peers p on p.id = o.id
             join peer_keys k on k.peer = o.id and k.retired_at is null and k.position = 0
             left join peer_memory m on m.peer = o.id
             where o.removed_at is null and ",
            $condition
        )
    };
}

impl FromRow<'_, SqliteRow> for Operator {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Operator {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            user: id(row, "user")?,
            user_name: row.try_get("user_name")?,
            role: role(row, "role")?,
            disabled_at: maybe_wall(row, "disabled_at")?,
            public_key: row.try_get("public_key")?,
            keyed_at: wall(row, "keyed_at")?,
            addresses: inner_addresses(row)?,
            last_handshake: maybe_wall(row, "last_handshake")?,
            mtu: row.try_get("mtu")?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Operator {
    const TABLE: &'static str = "operators";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

impl Store {
    /// Returns operators in name order, starting after the name `after`. `user`: only those of this user.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn operators(
        &self,
        user: Option<UserId>,
        after: &str,
        limit: i64,
    ) -> sqlx::Result<Vec<Entry<Operator>>> {
        let sql = select!("o.name > $1 and ($2 is null or o.user = $2) order by o.name limit $3");
        let query = sqlx::query_as(sql).bind(after).bind(user.map(|user| user.as_i64())).bind(limit);
        query.fetch_all(&self.read).await
    }
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, operator: PeerId) -> sqlx::Result<Option<Operator>> {
    sqlx::query_as(select!("o.id = $1")).bind(operator.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_name(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Operator>> {
    sqlx::query_as(select!("o.name = $1")).bind(name).fetch_optional(conn).await
}

/// Returns the operators of a user in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_user(conn: &mut SqliteConnection, user: UserId) -> sqlx::Result<Vec<Operator>> {
    sqlx::query_as(select!("o.user = $1 order by o.name")).bind(user.as_i64()).fetch_all(conn).await
}

/// The settings of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: String,
    /// The inner MTU of its peer; `None`: the usual one.
    pub mtu: Option<u16>,
}

/// Inserts an operator with its key and addresses.
///
/// # Errors
/// Fails when the name is taken, the key is or was in use, or no address is free.
pub async fn insert(
    tx: &mut SqliteConnection,
    operator: PeerId,
    (user, settings): (UserId, &Settings),
    key: NewKey,
    pools: Pools,
    now: Wall,
) -> Result<(), NotMade> {
    devices::set_key(tx, (operator, peers_of_people::OPERATOR), key, pools, now).await?;
    let sql = "insert into operators (id, user, name, created_at, version)
               values ($1, $2, $3, $4, (select version from instance))";
    sqlx::query(sql)
        .bind(operator.as_i64())
        .bind(user.as_i64())
        .bind(&settings.name)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(|e| devices::name_taken(e, &settings.name))?;
    Ok(write_mtu(tx, operator, settings.mtu).await?)
}

/// Sets the only key of an operator. Earlier keys are retired.
///
/// # Errors
/// Fails when the key is or was in use.
pub async fn set_key(
    tx: &mut SqliteConnection,
    operator: PeerId,
    key: NewKey,
    pools: Pools,
    now: Wall,
) -> Result<(), NotMade> {
    devices::set_key(tx, (operator, peers_of_people::OPERATOR), key, pools, now).await
}

/// Changes the settings and raises the version.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, operator: PeerId, settings: &Settings) -> Result<(), NotMade> {
    let sql = "update operators set name = $2, version = version + 1 where id = $1";
    let query = sqlx::query(sql).bind(operator.as_i64()).bind(&settings.name);
    query.execute(&mut *tx).await.map_err(|e| devices::name_taken(e, &settings.name))?;
    Ok(write_mtu(tx, operator, settings.mtu).await?)
}

/// Removes an operator. Its keys are retired, and its addresses rest. Nothing that the tunnel learnt of
/// it stays.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, operator: PeerId, now: Wall) -> sqlx::Result<()> {
    peers_of_people::remove(tx, operator, now).await?;
    let sql = "update operators set removed_at = $2, version = version + 1 where id = $1";
    sqlx::query(sql).bind(operator.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}
