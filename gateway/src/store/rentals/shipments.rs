//! Shipped devices: when each left, was heard from and came back, and for whom it is awaited.

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::messages::{Arrival, FirstContact};
use fleetgate_engine::rental::life::{Delivery, Shipment};
use fleetgate_engine::time::Wall;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Rental, announcements, damaged, handovers, state_at};
use crate::store::access::maybe_wall;
use crate::store::events::{self, NewEvent, Object, SYSTEM};

/// Whether the device of a rental `$rental` (a table or its alias) has left and has not come back.
macro_rules! is_away {
    ($rental:literal) => {
        concat!($rental, ".dispatched_at is not null and ", $rental, ".returned_at is null")
    };
}

pub(super) use is_away;

/// Reads how the device of a rental gets to its renters.
pub(super) fn delivery(row: &SqliteRow) -> sqlx::Result<Delivery> {
    let is_shipped: bool = row.try_get("shipped")?;
    let shipment = Shipment {
        dispatched_at: maybe_wall(row, "dispatched_at")?,
        first_contact_at: maybe_wall(row, "first_contact_at")?,
        returned_at: maybe_wall(row, "returned_at")?,
    };
    Ok(if is_shipped { Delivery::Shipped(shipment) } else { Delivery::Mounted })
}

/// Reads how a device gets to its renters from the next booking on.
pub(super) fn delivery_of_device(row: &SqliteRow) -> sqlx::Result<Delivery> {
    let name: &str = row.try_get("delivery")?;
    Delivery::ALL.into_iter().find(|delivery| delivery.name() == name).ok_or_else(|| damaged("delivery"))
}

/// Returns whether a device is where its renters use it.
pub(super) fn arrival(delivery: Delivery) -> Arrival {
    match delivery.shipment() {
        None | Some(Shipment { first_contact_at: Some(_), .. }) => Arrival::Done,
        Some(Shipment { dispatched_at: None, .. }) => Arrival::NotDispatched,
        Some(Shipment { dispatched_at: Some(dispatched_at), .. }) => Arrival::Awaited { dispatched_at },
    }
}

/// The kind of the event in the log.
const ARRIVED: &str = "rental.arrived";

/// Stores that a shipped device was heard from. Returns the number of its event. A rental that has another device
/// meanwhile, is over, or whose device was heard from before, stays as it is.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn arrived(tx: &mut SqliteConnection, contact: FirstContact) -> sqlx::Result<Option<i64>> {
    let FirstContact { rental, host, at } = contact;
    // A row that cannot be read must not keep the others waiting.
    let Some(known) = announcements::readable(tx, rental).await? else { return Ok(None) };
    let is_awaited = matches!(arrival(known.life.delivery), Arrival::Awaited { .. });
    if !is_awaited || known.device != host || known.life.over(at).is_some() {
        return Ok(None);
    }
    let sql = "update rentals set first_contact_at = $2 where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).bind(at.as_millis()).execute(&mut *tx).await?;
    let cause = "its device was heard from";
    let event = NewEvent {
        data: handovers::event_data(&known, cause),
        ..NewEvent::new(at, ARRIVED, (Object::Rental, Some(rental)), cause, SYSTEM)
    };
    events::append(tx, &event).await.map(Some)
}

/// Returns the rental that a device was sent for and has not come back from, apart from a given one.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn away(
    conn: &mut SqliteConnection,
    device: HostId,
    but: RentalId,
) -> sqlx::Result<Option<RentalId>> {
    let sql = concat!(
        "select r.id from rentals r where r.device = $1 and r.id <> $2 and ",
        is_away!("r"),
        " limit 1"
    );
    let query = sqlx::query_scalar(sql).bind(device.as_i64()).bind(but.as_i64());
    let found: Option<i64> = query.fetch_optional(conn).await?;
    Ok(found.map(Id::from_i64))
}

const NEXT: &str = concat!(
    "select r.id from rentals r join bookings b on b.id = r.booking
     where r.device = $1 and r.id <> $2 and r.until_at > $3 and ",
    state_at!("$3"),
    " in ('held', 'booked', 'preparing', 'delayed', 'active')
     order by r.from_at, r.id limit 1"
);

/// Returns the open rental that is to have the device of another one next.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn next(
    conn: &mut SqliteConnection,
    rental: &Rental,
    at: Wall,
) -> sqlx::Result<Option<RentalId>> {
    let query = sqlx::query_scalar(NEXT).bind(rental.device.as_i64()).bind(rental.id.as_i64());
    let found: Option<i64> = query.bind(at.as_millis()).fetch_optional(conn).await?;
    Ok(found.map(Id::from_i64))
}
