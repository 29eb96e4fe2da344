//! What devices have of their renters: an account that they log in to, and what is to be cleaned.
//!
//! A row says what may be on the device: it is written before a call that gives something, and cleared after one that
//! has taken it away.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::rental::device_access::{Access, Device, Held, Mode, Rented};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::damaged;
use super::handovers::{blocks, blocks_column};
use super::shipments::is_away;
use crate::ids::IdKind;
use crate::store::access::{id, maybe_wall, wall};
use crate::store::events::{self, NewEvent, Object, SYSTEM};

/// The columns of [`device`], from `s` (`device_rental_settings`) and `a` (`device_ssh_access`). `$device`: an
/// expression.
macro_rules! access_columns {
    ($device:literal) => {
        concat!(
            "s.ssh_account is not null as has_account, s.ssh_mode, s.cleaning_command is not null as cleans,
             a.rental as held_by, a.granted, a.used_by, a.failure,
             (select min(coalesce(w.ended_at, w.until_at)) from rentals w where w.device = ",
            $device,
            " and ",
            is_away!("w"),
            ") as lent_until,
             coalesce(a.exposed_key = (select k.public_key from peer_keys k
                                       where k.peer = ",
            $device,
            " and k.retired_at is null order by k.position limit 1)
                      or a.exposed_pin = (select x.ssh_pin from hosts x where x.id = ",
            $device,
            "), 0) as is_exposed"
        )
    };
}

pub(super) use access_columns;

/// Reads the columns of [`access_columns`].
pub(super) fn device(row: &SqliteRow) -> sqlx::Result<Device> {
    let mode: Option<&str> = row.try_get("ssh_mode")?;
    let rental = |column: &str| -> sqlx::Result<Option<RentalId>> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Id::from_i64))
    };
    Ok(Device {
        has_account: row.try_get("has_account")?,
        mode: mode.map(|name| Mode::named(name).ok_or_else(|| damaged("ssh_mode"))).transpose()?,
        cleans: row.try_get("cleans")?,
        held: match rental("held_by")? {
            Some(rental) => Some(Held { rental, access: granted(row, rental)? }),
            None => None,
        },
        used_by: rental("used_by")?,
        lent_until: maybe_wall(row, "lent_until")?,
        is_exposed: row.try_get("is_exposed")?,
    })
}

/// The column `granted`.
#[derive(Serialize, Deserialize)]
struct Granted {
    until: i64,
    keys: Vec<String>,
    #[serde(default)]
    mode: String,
}

fn granted(row: &SqliteRow, rental: RentalId) -> sqlx::Result<Option<Access>> {
    let granted: Option<Json<Granted>> = row.try_get("granted")?;
    Ok(granted.and_then(|Json(Granted { until, keys, mode })| {
        // An earlier version did not note the mode: it is granted anew.
        let mode = Mode::named(&mode)?;
        Some(Access { rental, until: Wall::from_millis(until), mode, keys })
    }))
}

/// A device on which something may be to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Upkeep {
    pub id: HostId,
    /// The account of the renters.
    pub account: Option<String>,
    pub cleaning_command: Option<String>,
    pub state: Device,
    /// Why the last call failed.
    pub failure: Option<String>,
}

impl FromRow<'_, SqliteRow> for Upkeep {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Upkeep {
            id: id(row, "id")?,
            account: row.try_get("ssh_account")?,
            cleaning_command: row.try_get("cleaning_command")?,
            state: device(row)?,
            failure: row.try_get("failure")?,
        })
    }
}

macro_rules! kept_up {
    ($which:literal) => {
        concat!(
            "select h.id, s.ssh_account, s.cleaning_command, ",
            access_columns!("h.id"),
            " from hosts h join device_rental_settings s on s.device = h.id
              left join device_ssh_access a on a.device = h.id
              where h.removed_at is null and (s.ssh_account is not null or s.cleaning_command is not null
                                              or a.device is not null) and ",
            $which
        )
    };
}

/// Returns the devices on which something may be to be done. One that cannot be read keeps no other one waiting.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn devices(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Upkeep>> {
    let rows = sqlx::query(kept_up!("true order by h.id")).fetch_all(conn).await?;
    let readable = rows.iter().filter_map(|row| {
        let read = Upkeep::from_row(row);
        read.inspect_err(|error| tracing::error!("the access of renters to a device is left alone: {error}"))
            .ok()
    });
    Ok(readable.collect())
}

/// Returns one of them.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_device(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Option<Upkeep>> {
    sqlx::query_as(kept_up!("h.id = $1")).bind(device.as_i64()).fetch_optional(conn).await
}

/// The columns of [`Rented`]. Keys: those of the renters that a rental admits.
macro_rules! rented_columns {
    () => {
        concat!(
            "r.id, r.device, r.from_at, r.until_at, r.ssh,
             (select json_group_array(line) from (
                  select k.value as line from people y join renters w on w.person = y.id and w.removed_at is null,
                         json_each(w.ssh_keys) k
                  where r.ssh = 1 and y.customer = b.customer and y.removed_at is null
                    and (r.admits is null or w.id in (select value from json_each(r.admits)))
                  group by k.value order by min(w.id), k.value)) as keys, ",
            blocks!()
        )
    };
}

/// Confirmed rentals of these devices that have not ended, and begin soon.
const RENTED: &str = concat!(
    "select ",
    rented_columns!(),
    " from device_rental_settings s
     join rentals r on r.device = s.device and r.until_at > $1 and r.from_at <= $2 and r.ended_at is null
     join bookings b on b.id = r.booking and b.hold_until is null
     where s.ssh_account is not null or s.cleaning_command is not null
     order by r.from_at, r.id"
);

const RENTED_BY: &str = concat!(
    "select ",
    rented_columns!(),
    " from rentals r join bookings b on b.id = r.booking where r.id = $1"
);

/// Returns the rentals of these devices that have not ended and begin until `soon`, by device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rented(
    conn: &mut SqliteConnection,
    (now, soon): (Wall, Wall),
) -> sqlx::Result<BTreeMap<HostId, Vec<Rented>>> {
    let query = sqlx::query(RENTED).bind(now.as_millis()).bind(soon.as_millis());
    let mut found: BTreeMap<HostId, Vec<Rented>> = BTreeMap::new();
    for row in query.fetch_all(conn).await? {
        found.entry(id(&row, "device")?).or_default().push(rented_row(&row)?);
    }
    Ok(found)
}

/// Returns what a rental gives on its device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rented_by(conn: &mut SqliteConnection, rental: RentalId) -> sqlx::Result<Option<Rented>> {
    let row = sqlx::query(RENTED_BY).bind(rental.as_i64()).fetch_optional(conn).await?;
    row.as_ref().map(rented_row).transpose()
}

fn rented_row(row: &SqliteRow) -> sqlx::Result<Rented> {
    let keys: Json<Vec<String>> = row.try_get("keys")?;
    Ok(Rented {
        rental: id(row, "id")?,
        from: wall(row, "from_at")?,
        until: wall(row, "until_at")?,
        ssh: row.try_get("ssh")?,
        keys: keys.0,
        blocks: blocks_column(row)?,
    })
}

/// Notes that a device may have the access of a rental from now on.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn granting(tx: &mut SqliteConnection, device: HostId, rental: RentalId) -> sqlx::Result<()> {
    let sql = "insert into device_ssh_access (device, rental, rooted)
               values ($1, $2, coalesce((select ssh_root from device_rental_settings where device = $1), 0))
               on conflict (device) do update set rental = excluded.rental,
                   granted = case when rental is excluded.rental then granted end,
                   rooted = case when rental is excluded.rental then max(rooted, excluded.rooted)
                                 else excluded.rooted end";
    sqlx::query(sql).bind(device.as_i64()).bind(rental.as_i64()).execute(tx).await.map(drop)
}

/// Notes what a device was given.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn granted_now(tx: &mut SqliteConnection, device: HostId, access: &Access) -> sqlx::Result<()> {
    let (until, mode) = (access.until.as_millis(), access.mode.name().to_owned());
    let granted = Granted { until, keys: access.keys.clone(), mode };
    let sql = "update device_ssh_access set granted = $3, failure = null where device = $1 and rental = $2";
    let query = sqlx::query(sql).bind(device.as_i64()).bind(access.rental.as_i64()).bind(Json(granted));
    query.execute(tx).await.map(drop)
}

/// Notes that nothing of the access of a rental is left on a device. If the account could become root meanwhile, the keys
/// of the device may be known. `None`: of a rental that the database does not have.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn revoked(
    tx: &mut SqliteConnection,
    device: HostId,
    rental: Option<RentalId>,
) -> sqlx::Result<()> {
    let sql = "update device_ssh_access set rental = null, granted = null, failure = null, rooted = 0,
                   exposed_key = coalesce((select k.public_key from peer_keys k
                                           join device_rental_settings s on s.device = k.peer
                                           where k.peer = $1 and max(s.ssh_root, device_ssh_access.rooted) = 1
                                             and k.retired_at is null order by k.position limit 1), exposed_key),
                   exposed_pin = coalesce((select h.ssh_pin from hosts h join device_rental_settings s on s.device = h.id
                                           where h.id = $1 and max(s.ssh_root, device_ssh_access.rooted) = 1),
                                          exposed_pin)
               where device = $1 and rental is $2";
    let rental = rental.map(|rental| rental.as_i64());
    sqlx::query(sql).bind(device.as_i64()).bind(rental).execute(tx).await.map(drop)
}

/// Notes which of these devices have renters whose account can become root. Their settings are about to change.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn note_root(tx: &mut SqliteConnection, devices: &BTreeSet<HostId>) -> sqlx::Result<()> {
    let devices: Vec<i64> = devices.iter().map(|device| device.as_i64()).collect();
    let sql = "update device_ssh_access set rooted = 1
               where rental is not null and device in (select s.device from device_rental_settings s
                   where s.ssh_root = 1 and s.device in (select value from json_each($1)))";
    sqlx::query(sql).bind(Json(devices)).execute(tx).await.map(drop)
}

/// Notes that the account of a device cannot become root, and could not, as an operator says of this device.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn never_rooted(tx: &mut SqliteConnection, device: HostId) -> sqlx::Result<()> {
    let sql =
        "update device_ssh_access set rooted = 0, exposed_key = null, exposed_pin = null where device = $1";
    sqlx::query(sql).bind(device.as_i64()).execute(tx).await.map(drop)
}

/// Notes that a device is to be cleaned after a rental.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn used(tx: &mut SqliteConnection, device: HostId, rental: RentalId) -> sqlx::Result<()> {
    let sql = "insert into device_ssh_access (device, used_by) values ($1, $2)
               on conflict (device) do update set used_by = excluded.used_by";
    sqlx::query(sql).bind(device.as_i64()).bind(rental.as_i64()).execute(tx).await.map(drop)
}

/// Notes that a device was cleaned after a rental.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn cleaned(tx: &mut SqliteConnection, device: HostId, rental: RentalId) -> sqlx::Result<()> {
    let sql =
        "update device_ssh_access set used_by = null, failure = null where device = $1 and used_by = $2";
    sqlx::query(sql).bind(device.as_i64()).bind(rental.as_i64()).execute(tx).await.map(drop)
}

/// Notes how renters log in to an account of a device.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn asked(
    tx: &mut SqliteConnection,
    device: HostId,
    (account, mode): (&str, Mode),
) -> sqlx::Result<()> {
    let sql = "update device_rental_settings set ssh_mode = $3 where device = $1 and ssh_account = $2";
    let query = sqlx::query(sql).bind(device.as_i64()).bind(account).bind(mode.name());
    query.execute(&mut *tx).await?;
    let sql = "update device_ssh_access set failure = null where device = $1";
    sqlx::query(sql).bind(device.as_i64()).execute(tx).await.map(drop)
}

/// Notes that a device does not have what it was given: it says so.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn not_granted(tx: &mut SqliteConnection, device: HostId) -> sqlx::Result<()> {
    let sql = "update device_ssh_access set granted = null where device = $1";
    sqlx::query(sql).bind(device.as_i64()).execute(tx).await.map(drop)
}

/// Notes that a device says that it has the access of a rental, of which nothing is known. If the database does not have
/// the rental either, it only notes that there is something: see [`revoked`].
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn found(tx: &mut SqliteConnection, device: HostId, rental: RentalId) -> sqlx::Result<()> {
    let sql = "select exists (select 1 from rentals where id = $1)";
    let is_known: bool = sqlx::query_scalar(sql).bind(rental.as_i64()).fetch_one(&mut *tx).await?;
    if is_known {
        return granting(tx, device, rental).await;
    }
    let sql = "insert into device_ssh_access (device) values ($1) on conflict (device) do nothing";
    sqlx::query(sql).bind(device.as_i64()).execute(tx).await.map(drop)
}

/// The kind of the event about rentals with SSH whose device has lost its account for renters, or has another one.
pub const ACCOUNT_LOST: &str = "device.rental_account_lost";
/// Rentals that the event names.
const MOST_NAMED: i64 = 20;

/// Returns the data of that event. `None`: no rental with SSH is open.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn without_account(
    conn: &mut SqliteConnection,
    device: HostId,
    now: Wall,
) -> sqlx::Result<Option<Value>> {
    let sql = "select id from rentals
               where device = $1 and ssh = 1 and ended_at is null and until_at > $2
               order by from_at, id limit $3";
    let query = sqlx::query_scalar(sql).bind(device.as_i64()).bind(now.as_millis()).bind(MOST_NAMED);
    let rentals: Vec<i64> = query.fetch_all(conn).await?;
    let rentals: Vec<String> = rentals.into_iter().map(|id| IdKind::Rental.text(Id::from_i64(id))).collect();
    Ok(if rentals.is_empty() { None } else { Some(json!({ "rentals": rentals })) })
}

/// Forgets how renters log in to a device that says that it has no account for them, and warns of its rentals with SSH.
/// Returns the number of the event.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn lost(
    tx: &mut SqliteConnection,
    device: HostId,
    why: &str,
    now: Wall,
) -> sqlx::Result<Option<i64>> {
    let sql = "select ssh_mode is not null from device_rental_settings where device = $1";
    let was_known: Option<bool> =
        sqlx::query_scalar(sql).bind(device.as_i64()).fetch_optional(&mut *tx).await?;
    replaced(tx, device).await?;
    let Some(data) = without_account(tx, device, now).await?.filter(|_| was_known == Some(true)) else {
        return Ok(None);
    };
    let about = (Object::Device, Some(device));
    let event = NewEvent { data, ..NewEvent::new(now, ACCOUNT_LOST, about, why, SYSTEM) };
    events::append(tx, &event).await.map(Some)
}

/// Forgets how renters log in to a device, and that it was given something: another system has its place, which is asked
/// and called anew. What is to be removed stays.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn replaced(tx: &mut SqliteConnection, device: HostId) -> sqlx::Result<()> {
    for sql in [
        "update device_rental_settings set ssh_mode = null where device = $1",
        "update device_ssh_access set granted = null where device = $1",
    ] {
        sqlx::query(sql).bind(device.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Notes why the last call to a device failed. Returns whether that is news.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn failed(tx: &mut SqliteConnection, device: HostId, why: &str) -> sqlx::Result<bool> {
    let sql = "insert into device_ssh_access (device, failure) values ($1, $2)
               on conflict (device) do update set failure = excluded.failure where failure is not excluded.failure";
    let done = sqlx::query(sql).bind(device.as_i64()).bind(why).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

#[cfg(test)]
mod tests;
