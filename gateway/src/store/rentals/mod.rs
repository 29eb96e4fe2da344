//! Rentals: a device in a window. Their bookings and customers, and what occupies a device.
//!
//! Rows of the past stay: they are the history. This module takes valid values and decides nothing:
//! `fleetgate_engine::rental` does.

pub mod alias_blocks;
pub mod aliases;
pub mod allowances;
pub mod announcements;
pub mod blocks;
pub mod bookings;
pub mod changes;
pub mod contacts;
pub mod customers;
pub mod device_access;
pub mod device_choices;
pub mod devices;
pub mod erasures;
pub mod events;
pub mod handovers;
pub mod maintenance;
pub mod messages;
pub mod mine;
pub mod notices;
pub mod occupancies;
pub mod people;
pub mod person_sessions;
pub mod phases;
pub mod policy;
pub mod references;
pub mod renters;
pub mod reports;
pub mod shipments;
pub mod terms;
pub mod thresholds;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::id::{CustomerId, HostId, Id, PeerId};
use fleetgate_engine::messages::GrantAccess;
use fleetgate_engine::rental::allowance::Level;
use fleetgate_engine::rental::life::{EndReason, Ending, Handover, Life, State};
use fleetgate_engine::rental::maintenance::Maintenance;
use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, maybe_wall, wall};
use super::grants::{access_column, access_rows};
use super::lists::{Entry, ListRow, readable};
use aliases::Alias;
use allowances::Allowance;
use contacts::Contact;
use device_choices::DeviceChoice;
use thresholds::Limits;

/// A stored rental.
#[derive(Clone, Debug, PartialEq)]
pub struct Rental {
    pub id: Id,
    pub booking: Id,
    pub customer: Id,
    /// That of the booking.
    pub external_ref: Option<String>,
    /// That of the booking, for display.
    pub time_zone: Option<String>,
    pub device: HostId,
    pub device_name: String,
    pub choice: DeviceChoice,
    pub life: Life,
    pub preparation: Duration,
    /// The name of the device for its renters: a DNS label.
    pub name: String,
    /// The protocols and ports that its renters reach.
    pub access: Vec<GrantAccess>,
    /// Its renters may log in to the device.
    pub ssh: bool,
    /// The renters that it admits. `None`: all of the customer, also those added later.
    pub admits: Option<BTreeSet<PeerId>>,
    /// `None`: it got none, or it rested and was taken from the rental.
    pub alias: Option<Alias>,
    /// `None`: no limit.
    pub allowance: Option<Allowance>,
    /// The announced part of its allowance.
    pub allowance_level: Level,
    /// In both directions, with IP headers.
    pub forwarded_bytes: u64,
    /// The contacts, who get messages about the device while it runs. Personal data.
    pub contacts: Vec<Contact>,
    /// Of services of the device, while it is active.
    pub thresholds: Limits,
    /// Planned within it, by the begin.
    pub maintenance: Vec<Maintenance>,
    /// Why it ended, in the words of the client.
    pub end_note: String,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
}

fn damaged(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "not written by this program".into() }
}

fn duration(row: &SqliteRow, column: &str) -> sqlx::Result<Duration> {
    let millis: i64 = row.try_get(column)?;
    u64::try_from(millis).map(Duration::from_millis).map_err(|_| damaged(column))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Rental {
    /// Returns the address at which renters reach the device, as long as no other rental may get it.
    pub fn alias(&self, now: Wall) -> Option<Alias> {
        self.alias.filter(|_| self.life.alias_freed_at().is_none_or(|freed_at| now < freed_at))
    }

    /// Whether it admits this renter of this customer.
    pub fn admits(&self, renter: PeerId, customer: CustomerId) -> bool {
        customer == self.customer && self.admits.as_ref().is_none_or(|admits| admits.contains(&renter))
    }

    /// Whether its contacts get messages about its device.
    pub fn sends_to_contacts(&self, now: Wall) -> bool {
        !self.contacts.is_empty() && self.life.state(now) == State::Active
    }
}

impl FromRow<'_, SqliteRow> for Rental {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Rental {
            id: id(row, "id")?,
            booking: id(row, "booking")?,
            customer: id(row, "customer")?,
            external_ref: row.try_get("external_ref")?,
            time_zone: row.try_get("time_zone")?,
            device: id(row, "device")?,
            device_name: row.try_get("device_name")?,
            choice: DeviceChoice::from_row(row)?,
            life: life(row)?,
            preparation: duration(row, "preparation_ms")?,
            name: row.try_get("name")?,
            access: access_column(row)?,
            ssh: row.try_get("ssh")?,
            admits: admits(row)?,
            alias: aliases::alias(row)?,
            allowance: allowances::allowance(row)?,
            allowance_level: allowances::level(row)?,
            forwarded_bytes: allowances::forwarded(row)?,
            contacts: contacts::contacts(row)?,
            thresholds: thresholds::thresholds(row)?,
            maintenance: maintenance::maintenance(row)?,
            end_note: row.try_get("end_note")?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Rental {
    const TABLE: &'static str = "rentals";
}

fn life(row: &SqliteRow) -> sqlx::Result<Life> {
    let window = Window::new(wall(row, "from_at")?, wall(row, "until_at")?);
    Ok(Life {
        window: window.ok_or_else(|| damaged("until_at"))?,
        prepared_from: wall(row, "prepared_from")?,
        turnaround: duration(row, "turnaround_ms")?,
        hold_until: maybe_wall(row, "hold_until")?,
        handover: handovers::handover(row)?,
        ending: ending(row)?,
        delivery: shipments::delivery(row)?,
    })
}

fn admits(row: &SqliteRow) -> sqlx::Result<Option<BTreeSet<PeerId>>> {
    let ids: Option<Json<Vec<i64>>> = row.try_get("admits")?;
    Ok(ids.map(|ids| ids.0.into_iter().map(Id::from_i64).collect()))
}

/// The value of the column `admits`.
fn admits_row(admits: Option<&BTreeSet<PeerId>>) -> Option<Json<Vec<i64>>> {
    admits.map(|ids| Json(ids.iter().map(|id| id.as_i64()).collect()))
}

fn ending(row: &SqliteRow) -> sqlx::Result<Option<Ending>> {
    let Some(at) = maybe_wall(row, "ended_at")? else { return Ok(None) };
    let name: Option<String> = row.try_get("end_reason")?;
    let reason = EndReason::ALL.into_iter().find(|reason| Some(reason.name()) == name.as_deref());
    Ok(Some(Ending { at, reason: reason.ok_or_else(|| damaged("end_reason"))? }))
}

macro_rules! select {
    ($rest:expr) => {
        concat!(
            "select r.*, b.customer, b.external_ref, b.time_zone, b.hold_until, h.name as device_name
             from rentals r join bookings b on b.id = r.booking join hosts h on h.id = r.device ",
            $rest
        )
    };
}

use select;

/// The state at a moment, in the order of `Life::state`. A test compares both.
macro_rules! state_at {
    ($now:literal) => {
        concat!(
            "case
                 when r.dispatched_at is not null
                      and (r.ended_at is not null or coalesce(min(b.hold_until, r.until_at), r.until_at) <= ",
            $now,
            ") then
                     case
                         when r.returned_at is null and ",
            $now,
            " < coalesce(r.ended_at, min(b.hold_until, r.until_at), r.until_at) + r.turnaround_ms then 'returning'
                         when r.returned_at is null then 'overdue'
                         when ",
            $now,
            " < r.returned_at + r.turnaround_ms then 'cleaning'
                         else 'closed'
                     end
                 when r.end_reason in ('cancelled', 'lapsed') then 'cancelled'
                 when r.end_reason = 'failed' then 'failed'
                 when r.ended_at is not null then
                     case when ",
            $now,
            " < r.ended_at + r.turnaround_ms then 'cleaning' else 'closed' end
                 when min(b.hold_until, r.until_at) <= ",
            $now,
            " then 'cancelled'
                 when b.hold_until is not null then 'held'
                 when ",
            $now,
            " < r.prepared_from then 'booked'
                 when ",
            $now,
            " < r.from_at then 'preparing'
                 when ",
            $now,
            " < r.until_at then
                     case when r.gated = 1 and coalesce(r.handed_over_at, r.until_at) > ",
            $now,
            " then 'delayed' else 'active' end
                 when r.gated = 1 and coalesce(r.handed_over_at, r.until_at) >= r.until_at then 'failed'
                 when ",
            $now,
            " < r.until_at + r.turnaround_ms then 'cleaning'
                 else 'closed'
             end"
        )
    };
}

use state_at;

/// Selects rentals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// That of the booking.
    pub external_ref: Option<&'a str>,
    pub device: Option<HostId>,
    pub customer: Option<Id>,
    pub state: Option<State>,
    /// Only those whose window ends after it.
    pub from: Option<Wall>,
    /// Only those whose window begins before it.
    pub to: Option<Wall>,
}

const LIST: &str = select!(concat!(
    "where r.id < $1
       and ($3 is null or b.external_ref = $3)
       and ($4 is null or r.device = $4)
       and ($5 is null or b.customer = $5)
       and ($6 is null or r.until_at > $6)
       and ($7 is null or r.from_at < $7)
       and ($8 is null or $8 = ",
    state_at!("$9"),
    ") order by r.id desc limit $2"
));

/// Returns the newest rentals first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    wanted: Filter<'_>,
    now: Wall,
    (before, limit): (i64, i64),
) -> sqlx::Result<Vec<Entry<Rental>>> {
    sqlx::query_as(LIST)
        .bind(before)
        .bind(limit)
        .bind(wanted.external_ref)
        .bind(wanted.device.map(HostId::as_i64))
        .bind(wanted.customer.map(Id::as_i64))
        .bind(wanted.from.map(Wall::as_millis))
        .bind(wanted.to.map(Wall::as_millis))
        .bind(wanted.state.map(State::name))
        .bind(now.as_millis())
        .fetch_all(conn)
        .await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, rental: Id) -> sqlx::Result<Option<Rental>> {
    sqlx::query_as(select!("where r.id = $1")).bind(rental.as_i64()).fetch_optional(conn).await
}

/// Returns the rentals of bookings that can be read, each in the order of its items.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_bookings(
    conn: &mut SqliteConnection,
    bookings: &[Id],
) -> sqlx::Result<BTreeMap<Id, Vec<Rental>>> {
    let ids: Vec<i64> = bookings.iter().map(|booking| booking.as_i64()).collect();
    let sql = select!("where r.booking in (select value from json_each($1)) order by r.id");
    let rows: Vec<Entry<Rental>> = sqlx::query_as(sql).bind(Json(ids)).fetch_all(conn).await?;
    let mut found: BTreeMap<Id, Vec<Rental>> = BTreeMap::new();
    for row in readable(rows) {
        found.entry(row.booking).or_default().push(row);
    }
    Ok(found)
}

/// The id of something that rentals belong to.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Customer(Id),
    Device(HostId),
    /// Only the one whose window has begun.
    DeviceInUse(HostId),
}

/// Only what the decision needs is read, so that a damaged row counts as any other.
macro_rules! open_of {
    ($column:literal, $states:literal) => {
        concat!(
            "select r.id from rentals r join bookings b on b.id = r.booking where ",
            $column,
            " = $1 and ",
            state_at!("$2"),
            " in (",
            $states,
            ") order by r.id limit $3"
        )
    };
}

/// Returns rentals that have not ended. Those of a customer also until their devices are back and the turnaround is
/// over: until then it must be known whose they are.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open_of(conn: &mut SqliteConnection, of: Of, now: Wall, limit: i64) -> sqlx::Result<Vec<Id>> {
    let (sql, id) = match of {
        Of::Customer(id) => (
            open_of!(
                "b.customer",
                "'held', 'booked', 'preparing', 'delayed', 'active', 'returning', 'overdue', 'cleaning'"
            ),
            id,
        ),
        Of::Device(id) => (open_of!("r.device", "'held', 'booked', 'preparing', 'delayed', 'active'"), id),
        Of::DeviceInUse(id) => (open_of!("r.device", "'active'"), id),
    };
    let query = sqlx::query_scalar(sql).bind(id.as_i64()).bind(now.as_millis()).bind(limit);
    let ids: Vec<i64> = query.fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// Adds a rental, and announces it.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, rental: &Rental) -> sqlx::Result<()> {
    sqlx::query(
        "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms,
                              turnaround_ms, created_at, name, access, admits, alias_slot, alias_v4, alias_v6,
                              allowance_bytes, cut_at_allowance, gated, ssh, shipped, selection,
                              other_device_after_ms, contacts, thresholds, selection_profile,
                              maintenance)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, $22, $23, $24, $25, $26)",
    )
    .bind(rental.id.as_i64())
    .bind(rental.booking.as_i64())
    .bind(rental.device.as_i64())
    .bind(rental.life.window.from().as_millis())
    .bind(rental.life.window.until().as_millis())
    .bind(rental.life.prepared_from.as_millis())
    .bind(millis(rental.preparation))
    .bind(millis(rental.life.turnaround))
    .bind(rental.created_at.as_millis())
    .bind(&rental.name)
    .bind(access_rows(&rental.access))
    .bind(admits_row(rental.admits.as_ref()))
    .bind(rental.alias.map(|alias| alias.slot))
    .bind(rental.alias.map(|alias| alias.addresses[0].to_string()))
    .bind(rental.alias.map(|alias| alias.addresses[1].to_string()))
    .bind(rental.allowance.map(|allowance| allowances::count(allowance.bytes)))
    .bind(rental.allowance.is_some_and(|allowance| allowance.cuts))
    .bind(rental.life.handover != Handover::AtBegin)
    .bind(rental.ssh)
    .bind(rental.life.delivery.is_shipped())
    .bind(rental.choice.labels_row())
    .bind(rental.choice.after_row())
    .bind(contacts::contacts_row(&rental.contacts))
    .bind(thresholds::thresholds_row(&rental.thresholds))
    .bind(rental.choice.profile.as_deref())
    .bind(maintenance::maintenance_row(&rental.maintenance))
    .execute(&mut *tx)
    .await?;
    announcements::booked(tx, rental).await
}

/// Stores a changed rental, raises the version, and announces the change. The alias stays, and what was forwarded.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, rental: &Rental, now: Wall) -> sqlx::Result<()> {
    let before = find(tx, rental.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let rental = &handovers::believed(rental, now);
    let shipment = rental.life.delivery.shipment().unwrap_or_default();
    sqlx::query(
        "update rentals set device = $2, until_at = $3, prepared_from = $4, preparation_ms = $5,
             turnaround_ms = $6, ended_at = $7, end_reason = $8, end_note = $9, name = $10, access = $11,
             admits = $12, allowance_bytes = $13, cut_at_allowance = $14, allowance_level = $15, gated = $16,
             handed_over_at = $17, ssh = $18, shipped = $19, dispatched_at = $20, first_contact_at = $21,
             returned_at = $22, other_device_after_ms = $23, other_device_at = $24, contacts = $25,
             thresholds = $26, maintenance = $27, version = version + 1
         where id = $1",
    )
    .bind(rental.id.as_i64())
    .bind(rental.device.as_i64())
    .bind(rental.life.window.until().as_millis())
    .bind(rental.life.prepared_from.as_millis())
    .bind(millis(rental.preparation))
    .bind(millis(rental.life.turnaround))
    .bind(rental.life.ending.map(|ending| ending.at.as_millis()))
    .bind(rental.life.ending.map(|ending| ending.reason.name()))
    .bind(&rental.end_note)
    .bind(&rental.name)
    .bind(access_rows(&rental.access))
    .bind(admits_row(rental.admits.as_ref()))
    .bind(rental.allowance.map(|allowance| allowances::count(allowance.bytes)))
    .bind(rental.allowance.is_some_and(|allowance| allowance.cuts))
    .bind(allowances::level_row(allowances::kept_level(&before, rental)))
    .bind(rental.life.handover != Handover::AtBegin)
    .bind(rental.life.handover.done_at().map(Wall::as_millis))
    .bind(rental.ssh)
    .bind(rental.life.delivery.is_shipped())
    .bind(shipment.dispatched_at.map(Wall::as_millis))
    .bind(shipment.first_contact_at.map(Wall::as_millis))
    .bind(shipment.returned_at.map(Wall::as_millis))
    .bind(rental.choice.after_row())
    .bind(rental.choice.other_at.map(Wall::as_millis))
    .bind(contacts::contacts_row(&rental.contacts))
    .bind(thresholds::thresholds_row(&rental.thresholds))
    .bind(maintenance::maintenance_row(&rental.maintenance))
    .execute(&mut *tx)
    .await?;
    announcements::changed(tx, &before, rental, now).await?;
    // Another allowance may be used already.
    allowances::cross(tx, rental.id, now).await.map(drop)
}

#[cfg(test)]
mod tests;
