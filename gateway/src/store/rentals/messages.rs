//! Messages to the contacts of rentals, from the transaction that decides about them until the end of the rental.
//!
//! They are apart from the outbox of the operators' notifications: they neither wait for it nor delay it. Those of a
//! rental to one address are in order, so that each waits for the ones before it.

use std::time::Duration;

use fleetgate_engine::id::RentalId;
use fleetgate_engine::rental::notices::{DAY, Part, State};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::{Rental, damaged};
use crate::store::access::{id, wall};

/// The statement of a message about the device or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub part: Part,
    /// The output of a service that is bad.
    pub output: Option<String>,
}

/// A stored [`Said`].
#[derive(Serialize, Deserialize)]
struct SaidRow {
    service: String,
    state: String,
    since: Option<i64>,
    is_over: bool,
    output: Option<String>,
}

impl SaidRow {
    fn of(said: &Said) -> SaidRow {
        SaidRow {
            service: said.part.service.clone(),
            state: said.part.state.name().to_owned(),
            since: said.part.since.map(Wall::as_millis),
            is_over: said.part.is_over,
            output: said.output.clone(),
        }
    }

    fn said(self) -> sqlx::Result<Said> {
        let part = Part {
            state: state_named(&self.state).ok_or_else(|| damaged("parts"))?,
            service: self.service,
            since: self.since.map(Wall::from_millis),
            is_over: self.is_over,
        };
        Ok(Said { part, output: self.output })
    }
}

pub(super) fn state_named(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.name() == name)
}

/// A message that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    pub id: i64,
    pub rental: RentalId,
    pub email: String,
    pub parts: Vec<Said>,
    /// The limit of messages is reached.
    pub is_last: bool,
    pub created_at: Wall,
    /// The number of attempts so far.
    pub attempts: u32,
}

impl FromRow<'_, SqliteRow> for MessageRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let parts: Json<Vec<SaidRow>> = row.try_get("parts")?;
        Ok(MessageRow {
            id: row.try_get("id")?,
            rental: id(row, "rental")?,
            email: row.try_get("email")?,
            parts: parts.0.into_iter().map(SaidRow::said).collect::<sqlx::Result<_>>()?,
            is_last: row.try_get("is_last")?,
            created_at: wall(row, "created_at")?,
            attempts: row.try_get("attempts")?,
        })
    }
}

/// Adds a message to each contact of a rental.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    rental: &Rental,
    (parts, is_last): (&[Said], bool),
    now: Wall,
) -> sqlx::Result<()> {
    let parts: Vec<SaidRow> = parts.iter().map(SaidRow::of).collect();
    for contact in &rental.contacts {
        let sql = "insert into rental_messages (rental, email, parts, is_last, created_at, next_attempt)
                   values ($1, $2, $3, $4, $5, $5)";
        sqlx::query(sql)
            .bind(rental.id.as_i64())
            .bind(&contact.email)
            .bind(Json(&parts))
            .bind(is_last)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Deletes the messages of a rental that were sent or given up, once they count for no limit.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn forget_settled(tx: &mut SqliteConnection, rental: RentalId, now: Wall) -> sqlx::Result<()> {
    let sql = "delete from rental_messages
               where rental = $1 and created_at <= $2 and (sent_at is not null or given_up_at is not null)";
    let query = sqlx::query(sql).bind(rental.as_i64()).bind((now - DAY).as_millis());
    query.execute(tx).await.map(drop)
}

/// Returns how many messages of a rental there were within a day.
pub(super) async fn lately(conn: &mut SqliteConnection, rental: RentalId, now: Wall) -> sqlx::Result<usize> {
    let sql = "select count(distinct created_at) from rental_messages
               where rental = $1 and created_at > $2 and created_at <= $3";
    let count: i64 = sqlx::query_scalar(sql)
        .bind(rental.as_i64())
        .bind((now - DAY).as_millis())
        .bind(now.as_millis())
        .fetch_one(conn)
        .await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Returns messages that are due, those with the fewest attempts first. One that waits for longer than any pause was
/// written before the clock was set back, and is due.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn due(
    conn: &mut SqliteConnection,
    now: Wall,
    longest_pause: Duration,
    limit: i64,
) -> sqlx::Result<Vec<MessageRow>> {
    let sql = "select m.* from rental_messages m
               where m.sent_at is null and m.given_up_at is null
                 and (m.next_attempt <= $1 or m.next_attempt > $2)
                 and not exists (select 1 from rental_messages f
                                 where f.rental = m.rental and f.email = m.email and f.id < m.id
                                   and f.sent_at is null and f.given_up_at is null)
               order by m.attempts, m.id limit $3";
    sqlx::query_as(sql)
        .bind(now.as_millis())
        .bind((now + longest_pause).as_millis())
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Records the start of an attempt. `next`: when the message is tried again if the gateway stops meanwhile.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn begun(tx: &mut SqliteConnection, message: i64, next: Wall) -> sqlx::Result<()> {
    let sql = "update rental_messages set attempts = attempts + 1, next_attempt = $2 where id = $1";
    sqlx::query(sql).bind(message).bind(next.as_millis()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn sent(tx: &mut SqliteConnection, message: i64, now: Wall) -> sqlx::Result<()> {
    let sql = "update rental_messages set sent_at = $2 where id = $1";
    sqlx::query(sql).bind(message).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// Postpones the next attempt.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn put_off(tx: &mut SqliteConnection, message: i64, next: Wall) -> sqlx::Result<()> {
    let sql = "update rental_messages set next_attempt = $2 where id = $1";
    sqlx::query(sql).bind(message).bind(next.as_millis()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn give_up(tx: &mut SqliteConnection, message: i64, now: Wall) -> sqlx::Result<()> {
    let sql = "update rental_messages set given_up_at = $2 where id = $1";
    sqlx::query(sql).bind(message).bind(now.as_millis()).execute(tx).await.map(drop)
}
