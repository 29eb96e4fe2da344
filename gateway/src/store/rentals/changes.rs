//! The author of a change of a rental, and its time. Kept as long as the rental.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::damaged;
use crate::store::access::{id, wall};

/// The kind of the change of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Booked,
    /// Its booking was held, and is so no more.
    Confirmed,
    Changed,
    Cancelled,
    Ended,
    /// Its gate was opened by hand.
    HandedOver,
    /// Its shipped device has left.
    Dispatched,
    /// Its shipped device is back.
    Returned,
    /// It was not confirmed in time.
    Lapsed,
}

impl What {
    pub const ALL: [What; 9] = [
        What::Booked,
        What::Confirmed,
        What::Changed,
        What::Cancelled,
        What::Ended,
        What::HandedOver,
        What::Dispatched,
        What::Returned,
        What::Lapsed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            What::Booked => "booked",
            What::Confirmed => "confirmed",
            What::Changed => "changed",
            What::Cancelled => "cancelled",
            What::Ended => "ended",
            What::HandedOver => "handed_over",
            What::Dispatched => "dispatched",
            What::Returned => "returned",
            What::Lapsed => "lapsed",
        }
    }
}

/// Something that was done with rentals just now.
#[derive(Clone, Copy, Debug)]
pub struct NewChange<'a> {
    pub at: Wall,
    /// The principal.
    pub author: &'a str,
    pub what: What,
    /// Of [`What::Changed`]: the names of what is different.
    pub changed: &'a [&'a str],
}

/// Keeps what was done with these rentals, with their device and window as they are now.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, rentals: &[Id], change: &NewChange<'_>) -> sqlx::Result<()> {
    let ids: Vec<i64> = rentals.iter().map(|rental| rental.as_i64()).collect();
    let sql = "insert into rental_changes (rental, at, author, what, changed, device, from_at, until_at)
               select id, $2, $3, $4, $5, device, from_at, until_at from rentals
               where id in (select value from json_each($1)) order by id";
    sqlx::query(sql)
        .bind(Json(ids))
        .bind(change.at.as_millis())
        .bind(change.author)
        .bind(change.what.name())
        .bind(Json(change.changed))
        .execute(tx)
        .await
        .map(drop)
}

/// A change as it is stored, with the device and the window after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Wall,
    pub author: String,
    pub what: What,
    pub changed: Vec<String>,
    pub device: HostId,
    pub device_name: String,
    pub from: Wall,
    pub until: Wall,
}

impl FromRow<'_, SqliteRow> for Change {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let name: &str = row.try_get("what")?;
        let what = What::ALL.into_iter().find(|what| what.name() == name);
        let changed: Json<Vec<String>> = row.try_get("changed")?;
        Ok(Change {
            at: wall(row, "at")?,
            author: row.try_get("author")?,
            what: what.ok_or_else(|| damaged("what"))?,
            changed: changed.0,
            device: id(row, "device")?,
            device_name: row.try_get("device_name")?,
            from: wall(row, "from_at")?,
            until: wall(row, "until_at")?,
        })
    }
}

/// Returns the first changes of a rental, in their order.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn of(conn: &mut SqliteConnection, rental: Id, limit: i64) -> sqlx::Result<Vec<Change>> {
    let sql = "select c.*, h.name as device_name from rental_changes c join hosts h on h.id = c.device
               where c.rental = $1 order by c.id limit $2";
    sqlx::query_as(sql).bind(rental.as_i64()).bind(limit).fetch_all(conn).await
}
