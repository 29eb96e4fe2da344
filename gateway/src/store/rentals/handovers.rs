//! Which rentals begin when their device is handed over, and when that was.
//!
//! Until a rental begins, its device decides: one with a gate, one that is not ready, one on which something is done for
//! renters, one that is blocked then, and one that is away for another rental is to be handed over. So is each that is
//! shipped, and each to which renters are to log in: it may have lost their account. From then on the rental does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::messages::{GateRule, HandedOver, HandoverSpec};
use fleetgate_engine::rental::device_access::{LEAD, Obstacle, obstacle};
use fleetgate_engine::rental::life::{Delivery, Handover, Life};
use fleetgate_engine::time::Wall;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::device_access::{self, access_columns};
use super::shipments::{self, is_away};
use super::{Rental, announcements, duration};
use crate::ids::IdKind;
use crate::store::access::{id, maybe_wall, wall};
use crate::store::events::{self, NewEvent, Object, SYSTEM};

/// Whether a rental of a device that begins at a moment is to be handed over. `$device`, `$from`: expressions.
macro_rules! is_gated {
    ($device:literal, $from:literal) => {
        concat!(
            "(exists (select 1 from device_rental_settings s
                      where s.device = ",
            $device,
            " and (s.gate_ms is not null or s.not_ready_reason is not null or s.ssh_account is not null
                           or s.cleaning_command is not null))
              or exists (select 1 from device_blocks k
                         where k.device = ",
            $device,
            " and k.ended_at is null and iif(k.from_at <= k.created_at, 0, k.from_at) <= ",
            $from,
            " and (k.until_at is null or k.until_at > ",
            $from,
            "))
              or exists (select 1 from rentals w where w.device = ",
            $device,
            " and ",
            is_away!("w"),
            "))"
        )
    };
}

/// The blocks of the device of a rental `r` within its window, as JSON. One that began when it was made has no begin: the
/// clock may have been ahead then, and the block must not wait until the clock shows that time again.
macro_rules! blocks {
    () => {
        "(select json_group_array(json_array(begins_at, until_at))
          from (select iif(k.from_at <= k.created_at, 0, k.from_at) as begins_at,
                       coalesce(k.until_at, 9223372036854775807) as until_at
                from device_blocks k
                where k.device = r.device and k.ended_at is null
                  and iif(k.from_at <= k.created_at, 0, k.from_at) < r.until_at
                  and (k.until_at is null or k.until_at > r.from_at)
                order by k.id)) as blocks"
    };
}

pub(super) use blocks;

/// Reads the column of [`blocks`].
pub(super) fn blocks_column(row: &SqliteRow) -> sqlx::Result<Vec<(Wall, Wall)>> {
    let blocks: Json<Vec<(i64, i64)>> = row.try_get("blocks")?;
    let times = |(from, until)| (Wall::from_millis(from), Wall::from_millis(until));
    Ok(blocks.0.into_iter().map(times).collect())
}

/// Reads when a rental gets its device.
pub(super) fn handover(row: &SqliteRow) -> sqlx::Result<Handover> {
    let is_gated: bool = row.try_get("gated")?;
    Ok(match maybe_wall(row, "handed_over_at")? {
        Some(at) => Handover::Done(at),
        None if is_gated => Handover::Awaited,
        None => Handover::AtBegin,
    })
}

/// Reads what must be OK before a device is handed over. `None`: it has no gate.
pub(super) fn rule(row: &SqliteRow) -> sqlx::Result<Option<GateRule>> {
    let millis: Option<i64> = row.try_get("gate_ms")?;
    if millis.is_none() {
        return Ok(None);
    }
    let services: Option<Json<BTreeSet<String>>> = row.try_get("gate_services")?;
    Ok(Some(GateRule { services: services.map(|names| names.0), ok_for: duration(row, "gate_ms")? }))
}

/// Reads rows. One that cannot be read keeps no other device from being handed over.
fn readable(rows: &[SqliteRow]) -> impl Iterator<Item = HandoverSpec> {
    rows.iter().filter_map(|row| match Gated::from_row(row) {
        Ok(Gated(spec)) => Some(spec),
        Err(error) => {
            let rental: i64 = row.try_get("id").unwrap_or_default();
            tracing::error!("the gate of the rental {rental} cannot be read and stays shut: {error}");
            None
        }
    })
}

struct Gated(HandoverSpec);

impl FromRow<'_, SqliteRow> for Gated {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let not_ready: Option<&str> = row.try_get("not_ready_reason")?;
        let is_elsewhere: bool = row.try_get("is_elsewhere")?;
        let delivery = shipments::delivery(row)?;
        let (rental, ssh): (RentalId, bool) = (id(row, "id")?, row.try_get("ssh")?);
        let obstacle = obstacle(&device_access::device(row)?, Some((rental, ssh)));
        Ok(Gated(HandoverSpec {
            rental,
            host: id(row, "device")?,
            from: wall(row, "from_at")?,
            until: wall(row, "until_at")?,
            rule: rule(row)?.or_else(|| delivery.is_shipped().then(is_up)),
            is_ready: not_ready.is_none() && !is_elsewhere && obstacle.is_none(),
            blocks: blocks_column(row)?,
            handed_over_at: maybe_wall(row, "handed_over_at")?,
            arrival: shipments::arrival(delivery),
        }))
    }
}

/// What must be true of a shipped device without a gate: it is up.
fn is_up() -> GateRule {
    GateRule { services: Some(BTreeSet::new()), ok_for: Duration::ZERO }
}

/// Gated rentals that are confirmed and have not ended.
macro_rules! gated {
    ($which:literal) => {
        concat!(
            "select r.id, r.device, r.from_at, r.until_at, r.handed_over_at, r.shipped, r.dispatched_at,
                    r.first_contact_at, r.returned_at, r.ssh, s.gate_ms, s.gate_services, s.not_ready_reason,
                    exists (select 1 from rentals w where w.device = r.device and w.id <> r.id and ",
            is_away!("w"),
            ") as is_elsewhere, ",
            access_columns!("r.device"),
            ", ",
            blocks!(),
            " from rentals r join bookings b on b.id = r.booking and b.hold_until is null
              left join device_rental_settings s on s.device = r.device
              left join device_ssh_access a on a.device = r.device
              where r.gated = 1 and r.ended_at is null and ",
            $which
        )
    };
}

/// Returns what the monitor judges, for the start.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<HandoverSpec>> {
    let sql = gated!("r.until_at > $1 order by r.id");
    let rows = sqlx::query(sql).bind(now.as_millis()).fetch_all(conn).await?;
    Ok(readable(&rows).collect())
}

/// Returns those of these rentals that the monitor judges.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn these(
    conn: &mut SqliteConnection,
    rentals: &BTreeSet<RentalId>,
) -> sqlx::Result<BTreeMap<RentalId, HandoverSpec>> {
    let ids: Vec<i64> = rentals.iter().map(|id| id.as_i64()).collect();
    let sql = gated!("r.id in (select value from json_each($1))");
    let rows = sqlx::query(sql).bind(Json(ids)).fetch_all(conn).await?;
    Ok(readable(&rows).map(|spec| (spec.rental, spec)).collect())
}

/// Returns how a rental of a device that begins at a moment gets the device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_device(
    conn: &mut SqliteConnection,
    device: HostId,
    delivery: Delivery,
    from: Wall,
) -> sqlx::Result<Handover> {
    let sql = concat!("select ", is_gated!("$1", "$2"));
    let query = sqlx::query_scalar(sql).bind(device.as_i64()).bind(from.as_millis());
    let is_gated: bool = query.fetch_one(conn).await?;
    Ok(if is_gated || delivery.is_shipped() { Handover::Awaited } else { Handover::AtBegin })
}

/// Decides again how the rentals of devices that have not begun get them. The settings or blocks of the devices have
/// changed. A rental that is not confirmed has not begun.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn settle(tx: &mut SqliteConnection, devices: &BTreeSet<HostId>, now: Wall) -> sqlx::Result<()> {
    let devices: Vec<i64> = devices.iter().map(|device| device.as_i64()).collect();
    let sql = concat!(
        "update rentals set gated = (rentals.shipped = 1 or rentals.ssh = 1 or ",
        is_gated!("rentals.device", "rentals.from_at"),
        ") where device in (select value from json_each($1)) and ended_at is null and handed_over_at is null
            and (from_at > $2 or exists (select 1 from bookings b
                                         where b.id = rentals.booking and b.hold_until is not null))"
    );
    sqlx::query(sql).bind(Json(devices)).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// Stores that a device was handed over, and announces it. Returns the number of its event. A rental that has another
/// device meanwhile, has ended or was handed over before stays as it is.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn done(tx: &mut SqliteConnection, handed_over: HandedOver) -> sqlx::Result<Option<i64>> {
    let HandedOver { rental, host, at } = handed_over;
    // A row that cannot be read must not keep the other handovers waiting.
    let Some(before) = announcements::readable(tx, rental).await? else { return Ok(None) };
    // A handover by a clock that was ahead comes again.
    let awaits = match before.life.handover {
        Handover::AtBegin => false,
        Handover::Awaited => true,
        Handover::Done(known) => at < known,
    };
    if !awaits || before.device != host || before.life.ending.is_some() {
        return Ok(None);
    }
    let sql = "update rentals set handed_over_at = $2 where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).bind(at.as_millis()).execute(&mut *tx).await?;
    let life = Life { handover: Handover::Done(at), ..before.life };
    let after = Rental { life, ..before };
    announcements::handed_over(tx, &after, at).await?;
    let event = NewEvent {
        data: event_data(&after, "its gate was passed"),
        ..NewEvent::new(at, HANDED_OVER, (Object::Rental, Some(rental)), "its gate was passed", SYSTEM)
    };
    events::append(tx, &event).await.map(Some)
}

/// Takes a handover back that is to come: it was by a clock that was ahead, and the gate is to be passed again. Returns
/// whether it was.
pub(super) async fn take_back(
    tx: &mut SqliteConnection,
    rental: &mut Rental,
    now: Wall,
) -> sqlx::Result<bool> {
    if !is_to_come(rental, now) {
        return Ok(false);
    }
    let sql = "update rentals set handed_over_at = null where id = $1";
    sqlx::query(sql).bind(rental.id.as_i64()).execute(tx).await?;
    rental.life.handover = Handover::Awaited;
    Ok(true)
}

/// Returns a rental as it is after a change: a handover that is to come is taken back.
pub(super) fn believed(rental: &Rental, now: Wall) -> Rental {
    let mut rental = rental.clone();
    if is_to_come(&rental, now + announcements::SET_BACK) {
        rental.life.handover = Handover::Awaited;
    }
    rental
}

fn is_to_come(rental: &Rental, now: Wall) -> bool {
    rental.life.ending.is_none() && rental.life.handover.done_at().is_some_and(|at| now < at)
}

/// The kind of the event in the log.
pub const HANDED_OVER: &str = "rental.handed_over";

/// Returns the data of that event.
pub fn event_data(rental: &Rental, reason: &str) -> Value {
    json!({
        "id": IdKind::Rental.text(rental.id), "booking": IdKind::Booking.text(rental.booking),
        "customer": IdKind::Customer.text(rental.customer), "device": IdKind::Host.text(rental.device),
        "reason": reason, "version": rental.version,
    })
}

/// Why a device is not ready, in the words of an operator. `None`: it is.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn not_ready(conn: &mut SqliteConnection, device: Id) -> sqlx::Result<Option<String>> {
    let sql = "select not_ready_reason from device_rental_settings
               where device = $1 and not_ready_reason is not null";
    sqlx::query_scalar(sql).bind(device.as_i64()).fetch_optional(conn).await
}

/// The rental that has a device, or gets it soon.
const PRESENT: &str =
    "select r.id, r.ssh from rentals r join bookings b on b.id = r.booking and b.hold_until is null
     where r.device = $1 and r.ended_at is null and r.from_at <= $2 and r.until_at > $3
     order by r.from_at, r.id limit 1";

/// Returns what on a device keeps a rental from beginning, and why the last call to the device failed. `rental`: which
/// one; `None`: the one that has the device, or gets it next.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn obstacle_of(
    conn: &mut SqliteConnection,
    device: HostId,
    rental: Option<RentalId>,
    now: Wall,
) -> sqlx::Result<Option<(Obstacle, Option<String>)>> {
    let kept_up = device_access::of_device(conn, device).await?;
    let (state, failure) = kept_up.map(|kept_up| (kept_up.state, kept_up.failure)).unwrap_or_default();
    let query = match rental {
        Some(rental) => sqlx::query("select id, ssh from rentals where id = $1").bind(rental.as_i64()),
        None => {
            sqlx::query(PRESENT).bind(device.as_i64()).bind((now + LEAD).as_millis()).bind(now.as_millis())
        }
    };
    let rental = match query.fetch_optional(conn).await? {
        Some(row) => Some((id(&row, "id")?, row.try_get("ssh")?)),
        None => None,
    };
    let is_awaited = state.lent_until.is_some_and(|until| until <= now);
    Ok(obstacle(&state, rental).map(|obstacle| match obstacle {
        Obstacle::NotCleaned(_) if is_awaited => (obstacle, Some("the device has not come back".to_owned())),
        _ => (obstacle, failure),
    }))
}
