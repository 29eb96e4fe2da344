//! Blocks: times in which a device cannot be booked.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::occupancies;
use crate::store::access::{id, maybe_wall, wall};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub id: Id,
    pub device: HostId,
    pub device_name: String,
    pub from: Wall,
    /// Not included. `None`: until it is ended.
    pub until: Option<Wall>,
    pub reason: String,
    /// The principal.
    pub author: String,
    pub created_at: Wall,
    /// When it was ended by hand, and the principal.
    pub ended: Option<(Wall, String)>,
}

impl FromRow<'_, SqliteRow> for Block {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let by: Option<String> = row.try_get("ended_by")?;
        Ok(Block {
            id: id(row, "id")?,
            device: id(row, "device")?,
            device_name: row.try_get("device_name")?,
            from: wall(row, "from_at")?,
            until: maybe_wall(row, "until_at")?,
            reason: row.try_get("reason")?,
            author: row.try_get("author")?,
            created_at: wall(row, "created_at")?,
            ended: maybe_wall(row, "ended_at")?.map(|at| (at, by.unwrap_or_default())),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select k.*, h.name as device_name from device_blocks k join hosts h on h.id = k.device ",
            $rest
        )
    };
}

/// Adds a block.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, block: &Block) -> sqlx::Result<()> {
    sqlx::query(
        "insert into device_blocks (id, device, from_at, until_at, reason, author, created_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(block.id.as_i64())
    .bind(block.device.as_i64())
    .bind(block.from.as_millis())
    .bind(block.until.map(Wall::as_millis))
    .bind(&block.reason)
    .bind(&block.author)
    .bind(block.created_at.as_millis())
    .execute(tx)
    .await
    .map(drop)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, block: Id) -> sqlx::Result<Option<Block>> {
    sqlx::query_as(select!("where k.id = $1")).bind(block.as_i64()).fetch_optional(conn).await
}

/// Returns the newest blocks of a device first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    device: HostId,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Block>> {
    let sql = select!("where k.id < $1 and k.device = $2 order by k.id desc limit $3");
    let query = sqlx::query_as(sql).bind(before).bind(device.as_i64());
    query.bind(limit).fetch_all(conn).await
}

const COVERED: &str = "select distinct o.rental from occupancies o join rentals r on r.id = o.rental
     where o.device = $1 and r.device = $1 and o.until_at > $2 and ($3 is null or o.from_at < $3)
     order by o.rental";

/// Returns the rentals that occupy the device of a block in its time, and have it yet.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn covered(conn: &mut SqliteConnection, block: &Block) -> sqlx::Result<Vec<Id>> {
    let query = sqlx::query_scalar(COVERED).bind(block.device.as_i64()).bind(block.from.as_millis());
    let ids: Vec<i64> = query.bind(block.until.map(Wall::as_millis)).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// Returns since when a device is blocked, by the clock that is shown.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn since(conn: &mut SqliteConnection, device: HostId, now: Wall) -> sqlx::Result<Option<Wall>> {
    let sql = "select min(from_at) from device_blocks
               where device = $1 and ended_at is null and from_at <= $2 and (until_at is null or until_at > $2)";
    let query = sqlx::query_scalar(sql).bind(device.as_i64()).bind(now.as_millis());
    let since: Option<i64> = query.fetch_one(conn).await?;
    Ok(since.map(Wall::from_millis))
}

/// Whether rentals hear of the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// They will.
    Now = 1,
    /// They have.
    Before = 2,
}

/// Whether rentals will hear of the end of a block.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn covers(conn: &mut SqliteConnection, block: Id) -> sqlx::Result<bool> {
    let sql = "select exists (select 1 from device_blocks where id = $1 and covers = 1)";
    sqlx::query_scalar(sql).bind(block.as_i64()).fetch_one(conn).await
}

/// Sets whether rentals hear of the end of a block.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn set_covers(tx: &mut SqliteConnection, block: Id, covers: Covers) -> sqlx::Result<()> {
    let sql = "update device_blocks set covers = $2 where id = $1";
    sqlx::query(sql).bind(block.as_i64()).bind(covers as i64).execute(tx).await.map(drop)
}

/// Ends all blocks of a device, for its removal.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_all(tx: &mut SqliteConnection, device: HostId, now: Wall, by: &str) -> sqlx::Result<()> {
    let sql = "update device_blocks set ended_at = $2, ended_by = $3, covers = 0
               where device = $1 and ended_at is null and (until_at is null or until_at > $2)";
    let query = sqlx::query(sql).bind(device.as_i64()).bind(now.as_millis()).bind(by);
    query.execute(&mut *tx).await?;
    occupancies::end_blocks(tx, device, now).await
}

/// Ends a block by hand.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end(tx: &mut SqliteConnection, block: Id, now: Wall, by: &str) -> sqlx::Result<()> {
    let sql = "update device_blocks set ended_at = $2, ended_by = $3 where id = $1 and ended_at is null";
    sqlx::query(sql).bind(block.as_i64()).bind(now.as_millis()).bind(by).execute(tx).await.map(drop)
}
