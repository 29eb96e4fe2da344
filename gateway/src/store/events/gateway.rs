//! What the log says of the gateway itself: whether it is cut off, whether its clock is trusted, and whether
//! people know of its restore.
//!
//! The last event of a kind decides, at any age. Whether the log is right is unknown here.

use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::{Object, SYSTEM};

pub(super) const UPLINK_LOST: &str = "uplink.lost";
pub(super) const UPLINK_BACK: &str = "uplink.back";
pub const CLOCK_UNTRUSTED: &str = "gateway.clock_untrusted";
pub const CLOCK_TRUSTED: &str = "gateway.clock_trusted";
/// The service of the gateway under which notifications about its clock go.
pub const CLOCK_SERVICE: &str = "clock";
pub const RESTORE_UNCONFIRMED: &str = "gateway.restore_unconfirmed";
/// The service of the gateway under which notifications about a restore go.
pub const RESTORE_SERVICE: &str = "restore";

/// Appends the event of a restore. The schema of the database may be older than the other events need: this has
/// the columns of the first one.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn append_restored(conn: &mut SqliteConnection, at: Wall, cause: &str) -> sqlx::Result<()> {
    let sql = "insert into events (at, kind, object, cause, principal)
               values ($1, 'gateway.restored', $2, $3, $4)";
    let query = sqlx::query(sql).bind(at.as_millis()).bind(Object::System.name()).bind(cause);
    query.bind(SYSTEM).execute(conn).await.map(drop)
}

/// Returns whether people were notified that the last restore waits for an admin, according to the log.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn restore_is_noted(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    let sql = "select coalesce((select max(seq) from events where kind = 'gateway.restore_unconfirmed'), 0)
               > coalesce((select max(seq) from events where kind = 'gateway.restored'), 0)";
    sqlx::query_scalar(sql).fetch_one(conn).await
}

/// Whether people were notified last that the gateway's clock is not trusted. This costs two look-ups.
macro_rules! clock_untrusted {
    () => {
        "coalesce((select max(seq) from events where kind = 'gateway.clock_untrusted'), 0)
         > coalesce((select max(seq) from events where kind = 'gateway.clock_trusted'), 0)"
    };
}
pub(in crate::store) use clock_untrusted;

/// Returns whether the gateway's clock is not trusted according to the log.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn clock_is_untrusted(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(concat!("select ", clock_untrusted!())).fetch_one(conn).await
}

/// Returns whether the gateway was cut off according to the log.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn was_cut_off(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    Ok(cut_off_since(conn).await?.is_some())
}

/// Returns the time since when the log takes the gateway to be cut off.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn cut_off_since(conn: &mut SqliteConnection) -> sqlx::Result<Option<Wall>> {
    let row: Option<(Option<i64>,)> = sqlx::query_as(CUT_OFF).fetch_optional(conn).await?;
    Ok(row.and_then(|(at,)| at).map(Wall::from_millis))
}

/// The last loss of the uplink, unless the uplink came back since. This costs two look-ups for a
/// log of any length.
pub(super) const CUT_OFF: &str = "select at from events e
    where e.seq = (select max(seq) from events where kind = 'uplink.lost')
      and e.seq > coalesce((select max(seq) from events where kind = 'uplink.back'), 0)";
