//! The events that subscriptions have not accepted yet.
//!
//! A subscription takes some events at a time: its cursor moves, and each event becomes a row until it is
//! accepted. Events that it has not taken wait in the log. Only the first row of a rental is due, so that each
//! rental is in order and holds up no other.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::store::rentals::events::EventRow;

/// An event that is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub event: EventRow,
    /// Those that failed since the subscription was resumed.
    pub attempts: u32,
}

impl FromRow<'_, SqliteRow> for Due {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Due { event: EventRow::from_row(row)?, attempts: row.try_get("attempts")? })
    }
}

/// Returns the number of the last event that a subscription takes next, if it takes at most `room`.
/// `None`: it has seen all of them.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn takes(conn: &mut SqliteConnection, cursor: i64, room: i64) -> sqlx::Result<Option<i64>> {
    let sql = "select max(seq) from (select seq from rental_events where seq > $1 order by seq limit $2)";
    sqlx::query_scalar(sql).bind(cursor).bind(room).fetch_one(conn).await
}

/// Takes the events up to a number: those of other kinds are left out. A subscription that was paused or
/// removed meanwhile takes none. They are due at once, whatever the clock will show.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn take(tx: &mut SqliteConnection, subscription: Id, through: i64) -> sqlx::Result<()> {
    let sql = "insert into subscription_deliveries (event, subscription, rental, next_at)
               select e.seq, s.id, e.rental, 0
               from subscriptions s join rental_events e on e.seq > s.cursor and e.seq <= $2
               where s.id = $1 and s.paused_at is null
                 and (s.kinds = '[]' or e.kind in (select value from json_each(s.kinds)))";
    sqlx::query(sql).bind(subscription.as_i64()).bind(through).execute(&mut *tx).await?;
    let sql = "update subscriptions set cursor = $2 where id = $1 and paused_at is null and cursor < $2";
    sqlx::query(sql).bind(subscription.as_i64()).bind(through).execute(tx).await.map(drop)
}

/// The time in which a delivery may be due. One that is due far ahead was planned before the clock was
/// set back, and is due too.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub now: Wall,
    /// No pause is longer.
    pub longest: Duration,
}

/// Returns the events that are due, those with the fewest attempts first. An earlier version gave events up: they have no
/// time, and are due.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn due(
    conn: &mut SqliteConnection,
    subscription: Id,
    at: At,
    limit: i64,
) -> sqlx::Result<Vec<Due>> {
    let sql = "select e.*, d.attempts from subscription_deliveries d join rental_events e on e.seq = d.event
               where d.subscription = $1 and (d.next_at is null or d.next_at <= $2 or d.next_at > $3)
                 and not exists (select 1 from subscription_deliveries f
                                 where f.subscription = d.subscription and f.rental = d.rental
                                   and f.event < d.event)
               order by d.attempts, d.event limit $4";
    sqlx::query_as(sql)
        .bind(subscription.as_i64())
        .bind(at.now.as_millis())
        .bind((at.now + at.longest).as_millis())
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Returns when the next event is due that is not due yet.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn next_due(
    conn: &mut SqliteConnection,
    subscription: Id,
    now: Wall,
) -> sqlx::Result<Option<Wall>> {
    let sql = "select min(next_at) from subscription_deliveries where subscription = $1 and next_at > $2";
    let next: Option<i64> =
        sqlx::query_scalar(sql).bind(subscription.as_i64()).bind(now.as_millis()).fetch_one(conn).await?;
    Ok(next.map(Wall::from_millis))
}

/// Records that an event was accepted. The subscription fails no more once no event is left that has failed so often.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn accepted(
    tx: &mut SqliteConnection,
    (subscription, event): (Id, i64),
    reported_after: u32,
    now: Wall,
) -> sqlx::Result<()> {
    let sql = "delete from subscription_deliveries where subscription = $1 and event = $2";
    sqlx::query(sql).bind(subscription.as_i64()).bind(event).execute(&mut *tx).await?;
    let sql = "update subscriptions set delivered_at = $2,
                   failing_since = case when exists (select 1 from subscription_deliveries d
                                                     where d.subscription = $1 and d.attempts >= $3)
                                        then failing_since end
               where id = $1";
    let query = sqlx::query(sql).bind(subscription.as_i64()).bind(now.as_millis()).bind(reported_after);
    query.execute(tx).await.map(drop)
}

/// Lets events that wait for a later time be tried at once.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn hasten(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    let sql = "update subscription_deliveries set next_at = 0 where next_at > $1";
    sqlx::query(sql).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// Those before it.
    pub attempts: u32,
    pub error: &'a str,
    /// When the event is tried again.
    pub next: Wall,
    /// It has failed so often that the failure is reported.
    pub is_reported: bool,
}

/// Records that an event was not accepted. A failure from before a resume says nothing about what it tries
/// again, and is left out. Returns whether the subscription begins to fail with it.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn failed(
    tx: &mut SqliteConnection,
    (subscription, event): (Id, i64),
    Failed { attempts, error, next, is_reported }: Failed<'_>,
    now: Wall,
) -> sqlx::Result<bool> {
    let sql = "update subscription_deliveries set attempts = attempts + 1, next_at = $3
               where subscription = $1 and event = $2 and attempts = $4";
    let query = sqlx::query(sql).bind(subscription.as_i64()).bind(event).bind(next.as_millis());
    if query.bind(attempts).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let sql = "update subscriptions set last_error = $2, last_error_at = $3 where id = $1";
    let query = sqlx::query(sql).bind(subscription.as_i64()).bind(error).bind(now.as_millis());
    query.execute(&mut *tx).await?;
    if !is_reported {
        return Ok(false);
    }
    let sql = "update subscriptions set failing_since = $2 where id = $1 and failing_since is null";
    let query = sqlx::query(sql).bind(subscription.as_i64()).bind(now.as_millis());
    Ok(query.execute(tx).await?.rows_affected() > 0)
}
