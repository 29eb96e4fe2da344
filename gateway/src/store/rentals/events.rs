//! The events of rentals: one log, in the order of what happened, for booking systems.
//!
//! An event has ids and no personal data. Its number gives the order and is never used again. What a
//! receiver recognises a repetition by is its id.

use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::rental::events::RentalEventKind;
use fleetgate_engine::rental::life::{EndReason, State};
use fleetgate_engine::time::Wall;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::blocks::Block;
use super::{Rental, announcements, devices, shipments};
use crate::ids::{self, IdKind, new_id};
use crate::store::access::{id, wall};
use crate::store::instance;

/// How long events are kept.
pub const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// Events removed in one transaction. Other writers wait for one transaction at most.
pub const PRUNED_AT_ONCE: u32 = 1_000;
/// Ids tried for one event. Two random ids of the same millisecond are rarely equal.
const ID_TRIES: u32 = 8;

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the log.
    pub seq: i64,
    pub id: Id,
    pub at: Wall,
    pub rental: Id,
    pub booking: Id,
    pub customer: Id,
    pub kind: String,
    /// That of the rental.
    pub version: i64,
    /// A JSON object.
    pub data: String,
}

impl FromRow<'_, SqliteRow> for EventRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(EventRow {
            seq: row.try_get("seq")?,
            id: id(row, "id")?,
            at: wall(row, "at")?,
            rental: id(row, "rental")?,
            booking: id(row, "booking")?,
            customer: id(row, "customer")?,
            kind: row.try_get("kind")?,
            version: row.try_get("version")?,
            data: row.try_get("data")?,
        })
    }
}

/// An event of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub kind: RentalEventKind,
    pub at: Wall,
    /// The state of the rental after it.
    pub state: State,
    /// The device that it had before.
    pub previous_device: Option<HostId>,
}

/// Adds an event.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn append(
    tx: &mut SqliteConnection,
    rental: &Rental,
    happened: Happened,
) -> sqlx::Result<()> {
    let mut data = data(rental, happened);
    if happened.previous_device.is_some() {
        let server = devices::ssh_server(tx, rental.device).await?;
        data["ssh_host_keys"] = server.host_key.into_iter().collect::<Vec<String>>().into();
    }
    let next = match happened.kind {
        RentalEventKind::Overdue => shipments::next(tx, rental, happened.at).await?,
        _ => None,
    };
    if let Some(next) = next {
        data["next_rental"] = IdKind::Rental.text(next).into();
    }
    append_with(tx, rental, happened, &data).await?;
    match next {
        Some(next) => warn(tx, next, rental.id, happened.at).await,
        None => Ok(()),
    }
}

/// Warns a rental that its device has not come back in time from another one.
async fn warn(tx: &mut SqliteConnection, next: RentalId, from: RentalId, at: Wall) -> sqlx::Result<()> {
    let Some(rental) = announcements::readable(tx, next).await? else { return Ok(()) };
    let state = rental.life.state(at);
    let happened = Happened { kind: RentalEventKind::DeviceOverdue, at, state, previous_device: None };
    let mut data = data(&rental, happened);
    data["previous_rental"] = IdKind::Rental.text(from).into();
    append_with(tx, &rental, happened, &data).await
}

/// Adds an event about a block of the device.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn append_block(
    tx: &mut SqliteConnection,
    rental: &Rental,
    happened: Happened,
    block: &Block,
) -> sqlx::Result<()> {
    let mut data = data(rental, happened);
    data["block"] = json!({
        "id": IdKind::Block.text(block.id), "from": ids::time(block.from), "until": block.until.map(ids::time),
    });
    append_with(tx, rental, happened, &data).await
}

async fn append_with(
    tx: &mut SqliteConnection,
    rental: &Rental,
    happened: Happened,
    data: &Value,
) -> sqlx::Result<()> {
    let data = data.to_string();
    let mut tries = 1;
    loop {
        let inserted = insert(tx, rental, happened, &data).await;
        let is_taken = |e: &sqlx::Error| e.as_database_error().is_some_and(|e| e.is_unique_violation());
        match inserted {
            Err(error) if tries < ID_TRIES && is_taken(&error) => tries += 1,
            ended => return ended,
        }
    }
}

async fn insert(
    tx: &mut SqliteConnection,
    rental: &Rental,
    happened: Happened,
    data: &str,
) -> sqlx::Result<()> {
    let sql = "insert into rental_events (id, at, rental, booking, customer, kind, version, data)
               values ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(sql)
        .bind(new_id(happened.at).as_i64())
        .bind(happened.at.as_millis())
        .bind(rental.id.as_i64())
        .bind(rental.booking.as_i64())
        .bind(rental.customer.as_i64())
        .bind(happened.kind.name())
        .bind(rental.version)
        .bind(data)
        .execute(tx)
        .await
        .map(drop)
}

fn data(rental: &Rental, happened: Happened) -> Value {
    let life = &rental.life;
    let mut data = json!({
        "state": happened.state.name(),
        "device": IdKind::Host.text(rental.device),
        "from": ids::time(life.window.from()),
        "until": ids::time(life.window.until()),
    });
    if let Some(until) = life.hold_until.filter(|_| happened.state == State::Held) {
        data["hold_until"] = ids::time(until).into();
    }
    if happened.kind.has_reason() {
        data["reason"] = reason(rental, happened.at).name().into();
    }
    if let Some(allowance) = rental.allowance.filter(|_| happened.kind.has_allowance()) {
        data["allowance_bytes"] = allowance.bytes.into();
        data["forwarded_bytes"] = rental.forwarded_bytes.into();
    }
    if let Some(device) = happened.previous_device {
        data["previous_device"] = IdKind::Host.text(device).into();
    }
    data
}

/// Why a rental has ended.
fn reason(rental: &Rental, at: Wall) -> EndReason {
    rental.life.over(at).map_or(EndReason::Ended, |over| over.reason)
}

/// Selects events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub rental: Option<Id>,
    pub customer: Option<Id>,
}

macro_rules! numbers {
    ($condition:literal) => {
        concat!(
            "select * from rental_events where ",
            $condition,
            " and seq > $1 and seq <= $2 order by seq limit $3"
        )
    };
}

/// Returns events in their order: those after one number and not after another.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    wanted: Filter,
    (after, through): (i64, i64),
    limit: i64,
) -> sqlx::Result<Vec<EventRow>> {
    let sql = match (wanted.rental, wanted.customer) {
        (Some(_), _) => numbers!("rental = $4 and ($5 is null or customer = $5)"),
        (None, Some(_)) => numbers!("customer = $5 and $4 is null"),
        (None, None) => numbers!("$4 is null and $5 is null"),
    };
    sqlx::query_as(sql)
        .bind(after)
        .bind(through)
        .bind(limit)
        .bind(wanted.rental.map(Id::as_i64))
        .bind(wanted.customer.map(Id::as_i64))
        .fetch_all(conn)
        .await
}

/// Returns the numbers of the oldest event that is kept and of the newest one. Without events the oldest
/// is the next one that comes.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn bounds(conn: &mut SqliteConnection) -> sqlx::Result<(i64, i64)> {
    // Two selects, so that neither scans the table.
    let sql = "select coalesce((select min(seq) from rental_events), 1),
                      coalesce((select max(seq) from rental_events), 0)";
    sqlx::query_as(sql).fetch_one(conn).await
}

/// The events that there are: the epoch that their numbers belong to, and the [`bounds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub epoch: String,
    pub first: i64,
    pub last: i64,
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn extent(conn: &mut SqliteConnection) -> sqlx::Result<Extent> {
    let epoch = instance::epoch(&mut *conn).await?;
    let (first, last) = bounds(conn).await?;
    Ok(Extent { epoch, first, last })
}

/// Up to the last old event before the first recent one. An event of the future is neither: a clock that was
/// ahead wrote it, and it goes with the old events around it.
const PRUNE: &str = "delete from rental_events where seq in (
         with front as (select seq, at from rental_events order by seq limit $2)
         select seq from front
         where seq < (select max(seq) from rental_events)
           and seq <= (select max(seq) from front
                       where at < $1
                         and seq < coalesce((select min(seq) from front where at between $1 and $3),
                                            9223372036854775807)))";

/// Removes the oldest events up to the first one that is recent, in one slice. The newest event stays at
/// any age, so that its number is known. Returns how many were removed.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn prune(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<u64> {
    let query = sqlx::query(PRUNE).bind((now - KEPT).as_millis()).bind(PRUNED_AT_ONCE).bind(now.as_millis());
    Ok(query.execute(tx).await?.rows_affected())
}
