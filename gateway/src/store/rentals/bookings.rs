//! Bookings: what a customer booked with one call. Their rentals hold the devices and windows.

use std::collections::BTreeMap;

use fleetgate_engine::id::Id;
use fleetgate_engine::rental::life::EndReason;
use fleetgate_engine::rental::occupancy::Occupancy;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::changes::{self, NewChange, What};
use super::occupancies::{self, Source};
use super::{Rental, announcements, customers, devices, handovers, of_bookings};
use crate::ids::{IdKind, Named};
use crate::store::Store;
use crate::store::access::{id, maybe_wall, wall};
use crate::store::events::{self, NewEvent, Object, SYSTEM};
use crate::store::lists::{Entry, ListRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    pub id: Id,
    pub customer: Id,
    pub external_ref: Option<String>,
    pub notes: String,
    /// The client's own.
    pub metadata: BTreeMap<String, String>,
    /// For display.
    pub time_zone: Option<String>,
    /// `None`: confirmed.
    pub hold_until: Option<Wall>,
    /// The principal.
    pub author: String,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
}

impl FromRow<'_, SqliteRow> for Booking {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let metadata: Json<BTreeMap<String, String>> = row.try_get("metadata")?;
        Ok(Booking {
            id: id(row, "id")?,
            customer: id(row, "customer")?,
            external_ref: row.try_get("external_ref")?,
            notes: row.try_get("notes")?,
            metadata: metadata.0,
            time_zone: row.try_get("time_zone")?,
            hold_until: maybe_wall(row, "hold_until")?,
            author: row.try_get("author")?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Booking {
    const TABLE: &'static str = "bookings";
}

/// Adds a booking.
///
/// # Errors
/// Fails when another one has this `external_ref` (a unique violation), or the database cannot be
/// written.
pub async fn insert(tx: &mut SqliteConnection, booking: &Booking) -> sqlx::Result<()> {
    sqlx::query(
        "insert into bookings (id, customer, external_ref, notes, metadata, time_zone, hold_until, author, created_at,
                               version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(booking.id.as_i64())
    .bind(booking.customer.as_i64())
    .bind(booking.external_ref.as_deref())
    .bind(&booking.notes)
    .bind(Json(&booking.metadata))
    .bind(booking.time_zone.as_deref())
    .bind(booking.hold_until.map(Wall::as_millis))
    .bind(&booking.author)
    .bind(booking.created_at.as_millis())
    .bind(booking.version)
    .execute(tx)
    .await
    .map(drop)
}

/// Stores a changed booking, raises the version, and announces another hold of its rentals.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, booking: &Booking, now: Wall) -> sqlx::Result<()> {
    let rentals = of_bookings(tx, &[booking.id]).await?.remove(&booking.id).unwrap_or_default();
    let sql = "update bookings set notes = $2, metadata = $3, time_zone = $4, hold_until = $5,
                   version = version + 1
               where id = $1";
    sqlx::query(sql)
        .bind(booking.id.as_i64())
        .bind(&booking.notes)
        .bind(Json(&booking.metadata))
        .bind(booking.time_zone.as_deref())
        .bind(booking.hold_until.map(Wall::as_millis))
        .execute(&mut *tx)
        .await?;
    for rental in rentals.iter().filter(|rental| rental.life.hold_until != booking.hold_until) {
        announcements::hold_changed(tx, rental, booking.hold_until, now).await?;
    }
    Ok(())
}

/// Returns a booking by its id or its `external_ref`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, named: &Named) -> sqlx::Result<Option<Booking>> {
    match named {
        Named::Id(id) => {
            let sql = "select * from bookings where id = $1";
            sqlx::query_as(sql).bind(id.as_i64()).fetch_optional(conn).await
        }
        Named::Name(external_ref) => {
            let sql = "select * from bookings where external_ref = $1";
            sqlx::query_as(sql).bind(external_ref).fetch_optional(conn).await
        }
    }
}

const LIST: &str = "select * from bookings
     where id < $1 and ($2 is null or external_ref = $2) and ($3 is null or customer = $3)
     order by id desc limit $4";

/// Returns the newest bookings first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    (external_ref, customer): (Option<&str>, Option<Id>),
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<Booking>>> {
    let query = sqlx::query_as(LIST).bind(before).bind(external_ref).bind(customer.map(Id::as_i64));
    query.bind(limit).fetch_all(conn).await
}

/// Bookings whose rentals are read at once.
const AT_ONCE: usize = 20;

/// Returns the rentals of the first bookings, until they are at least `most`, and how many bookings these are.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rentals_of(
    conn: &mut SqliteConnection,
    bookings: &[Entry<Booking>],
    most: usize,
) -> sqlx::Result<(BTreeMap<Id, Vec<Rental>>, usize)> {
    let (mut rentals, mut count, mut read) = (BTreeMap::new(), 0, 0);
    for part in bookings.chunks(AT_ONCE) {
        if count >= most {
            break;
        }
        let ids: Vec<Id> = part.iter().filter_map(Entry::as_row).map(|booking| booking.id).collect();
        let found = of_bookings(conn, &ids).await?;
        count += found.values().map(Vec::len).sum::<usize>();
        read += part.len();
        rentals.extend(found);
    }
    Ok((rentals, read))
}

/// Held bookings with something to end at `$1`.
const HELD: &str = "select b.id from bookings b
     where b.hold_until is not null and b.lapsed_at is null
       and (b.hold_until <= $1 or exists (
           select 1 from rentals r where r.booking = b.id and r.ended_at is null and r.until_at <= $1))
     order by b.id";
/// `$2`: the reason, `$3`: the booking.
const END: &str = "update rentals set end_reason = $2,
         ended_at = (select min(b.hold_until, rentals.until_at) from bookings b where b.id = rentals.booking)
     where booking = $3 and ended_at is null
       and (select min(b.hold_until, rentals.until_at) from bookings b where b.id = rentals.booking) <= $1
     returning id, ended_at";
const LAPSED: &str = "update bookings set lapsed_at = $1
     where id = $2 and (hold_until <= $1
                        or not exists (select 1 from rentals r where r.booking = $2 and r.ended_at is null))";

/// Ends the rentals of bookings that were not confirmed in time, announces it, and returns these bookings. What was ended
/// by a clock that was ahead is taken back later, as [`take_back`] does.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn lapse(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Id>> {
    let held: Vec<i64> = sqlx::query_scalar(HELD).bind(now.as_millis()).fetch_all(&mut *tx).await?;
    let mut lapsed = Vec::new();
    for booking in held {
        let query = sqlx::query_as(END).bind(now.as_millis()).bind(EndReason::Lapsed.name());
        let ended: Vec<(i64, i64)> = query.bind(booking).fetch_all(&mut *tx).await?;
        sqlx::query(LAPSED).bind(now.as_millis()).bind(booking).execute(&mut *tx).await?;
        if !ended.is_empty() {
            let booking = Id::from_i64(booking);
            give_back(tx, booking, &ended, now).await?;
            for (rental, at) in ended {
                announcements::lapsed(tx, Id::from_i64(rental), Wall::from_millis(at)).await?;
            }
            lapsed.push(booking);
        }
    }
    Ok(lapsed)
}

/// Frees the devices of rentals that were not confirmed, and writes the event. The gateway may have been off
/// when each of them ended.
async fn give_back(
    tx: &mut SqliteConnection,
    booking: Id,
    rentals: &[(i64, i64)],
    now: Wall,
) -> sqlx::Result<()> {
    let ids: Vec<i64> = rentals.iter().map(|(id, _)| *id).collect();
    let sql = "delete from occupancies where rental in (select value from json_each($1))";
    sqlx::query(sql).bind(Json(ids)).execute(&mut *tx).await?;
    for (id, ended_at) in rentals {
        let at = Wall::from_millis(*ended_at);
        let lapsed = NewChange { at, author: SYSTEM, what: What::Lapsed, changed: &[] };
        changes::insert(tx, &[Id::from_i64(*id)], &lapsed).await?;
    }
    let rentals: Vec<String> = rentals.iter().map(|(id, _)| IdKind::Rental.text(Id::from_i64(*id))).collect();
    let about = (Object::Booking, Some(booking));
    let data = serde_json::json!({ "id": IdKind::Booking.text(booking), "rentals": rentals });
    let event =
        NewEvent { data, ..NewEvent::new(now, "booking.lapsed", about, "not confirmed in time", SYSTEM) };
    events::append(tx, &event).await.map(drop)
}

/// Takes back that a rental was not confirmed in time, if that time is to come: the clock was ahead. It gets its device
/// again. Returns whether it does.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn take_back(
    tx: &mut SqliteConnection,
    rental: &mut Rental,
    now: Wall,
) -> sqlx::Result<bool> {
    let lapsed_at =
        rental.life.ending.filter(|ending| ending.reason == EndReason::Lapsed).map(|ending| ending.at);
    if lapsed_at.is_none_or(|at| at <= now) {
        return Ok(false);
    }
    let (name, until) = (IdKind::Rental.text(rental.id), rental.life.window.until() + rental.life.turnaround);
    let occupied = Occupancy { from: rental.life.prepared_from, until: Some(until) };
    if !may_come_back(tx, rental, occupied, now).await? {
        tracing::warn!(
            "the hold of {name} was over by a clock that was ahead, and its device is not free any more"
        );
        return Ok(false);
    }
    for sql in [
        "update rentals set ended_at = null, end_reason = null where id = $1",
        "update bookings set lapsed_at = null where id = (select booking from rentals where id = $1)",
        "delete from rental_changes where rental = $1 and what = 'lapsed'",
    ] {
        sqlx::query(sql).bind(rental.id.as_i64()).execute(&mut *tx).await?;
    }
    rental.life.ending = None;
    occupancies::insert(tx, rental.device, Source::Rental(rental.id), occupied).await?;
    // The gate of its device may be another one meanwhile.
    handovers::settle(tx, &[rental.device].into(), now).await?;
    let about = (Object::Booking, Some(rental.booking));
    let cause = "the clock was ahead when its hold was over";
    let data = serde_json::json!({ "id": IdKind::Booking.text(rental.booking), "changed": ["hold_until"] });
    let event = NewEvent { data, ..NewEvent::new(now, "booking.changed", about, cause, SYSTEM) };
    events::append(tx, &event).await?;
    Ok(true)
}

/// Whether the device of a rental can be booked and is free, and the customer is there.
async fn may_come_back(
    tx: &mut SqliteConnection,
    rental: &Rental,
    occupied: Occupancy,
    now: Wall,
) -> sqlx::Result<bool> {
    let device = devices::candidate(tx, rental.device).await?;
    let customer = customers::find(tx, &Named::Id(rental.customer)).await?;
    let taken = occupancies::of_devices(tx, &[rental.device], now).await?;
    let is_free = !taken.values().flatten().any(|taken| taken.occupancy.overlaps(occupied));
    Ok(is_free && device.is_some() && customer.is_some())
}

impl Store {
    /// Ends what was not confirmed in time, as [`lapse`] does. Returns whether anything was.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn lapse_bookings(&self, now: Wall) -> sqlx::Result<bool> {
        let late: Option<i64> =
            sqlx::query_scalar(HELD).bind(now.as_millis()).fetch_optional(&self.read).await?;
        if late.is_none() {
            return Ok(false);
        }
        let mut tx = self.begin().await?;
        let lapsed = lapse(&mut tx, now).await?;
        tx.commit().await?;
        Ok(!lapsed.is_empty())
    }
}
