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
use crate::ids::Kind;
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
    let rentals: Vec<String> = rentals.into_iter().map(|id| Kind::Rental.text(Id::from_i64(id))).collect();
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
mod tests {
    use super::*;
    use crate::store::rentals::{customers, devices as settings, handovers, renters, terms};
    use crate::store::{Store, fixture};

    fn id(n: i64) -> Id {
        Id::from_i64(n)
    }

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    /// A device with an account for renters, three renters of two people, and two rentals.
    async fn site() -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into people (id, customer, created_at, removed_at) values (5, 1, 0, null), (6, 1, 0, 9)",
            "insert into peers (id, kind, created_at) values (21, 'renter', 0), (22, 'renter', 0), (23, 'renter', 0)",
            "insert into renters (id, person, created_at, ssh_keys)
             values (21, 5, 0, '[\"A\",\"B\"]'), (22, 5, 0, '[\"C\",\"A\"]'), (23, 6, 0, '[\"D\"]')",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, ssh, admits)
             values (10, 2, 7, 1000000, 2000000, 1000000, 0, 0, 0, 1, null),
                    (11, 2, 7, 3000000, 4000000, 3000000, 0, 0, 0, 1, '[22]'),
                    (12, 2, 7, 5000000, 6000000, 5000000, 0, 0, 0, 0, null)",
            "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms, ssh_account, ssh_root)
             values (7, 1, 0, 0, 'renter', 1)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        (store, dir)
    }

    #[tokio::test]
    async fn a_device_gets_the_keys_of_the_renters_that_a_rental_admits() {
        let (store, _dir) = site().await;
        let mut conn = store.reader().await.unwrap();
        let of = rented(&mut conn, (at(1_500), at(5_000))).await.unwrap().remove(&id(7)).unwrap();
        let keys: Vec<(Id, bool, String)> =
            of.iter().map(|rental| (rental.rental, rental.ssh, rental.keys.concat())).collect();
        let expected = [
            (id(10), true, "ABC".to_owned()),
            (id(11), true, "AC".to_owned()),
            (id(12), false, String::new()),
        ];
        assert_eq!(keys, expected);
        let later = rented(&mut conn, (at(2_000), at(2_999))).await.unwrap();
        assert_eq!(later.get(&id(7)), None);
    }

    #[tokio::test]
    async fn the_keys_of_a_customer_who_is_erased_are_not_kept_and_their_removal_stays() {
        let (store, _dir) = site().await;
        let access =
            Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["A".to_owned()] };
        let mut tx = store.begin().await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        granted_now(&mut tx, id(7), &access).await.unwrap();
        customers::erase(&mut tx, id(1), at(9)).await.unwrap();
        let kept = of_device(&mut tx, id(7)).await.unwrap().unwrap();
        assert_eq!(kept.state.held, Some(Held { rental: id(10), access: None }));
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_keys_of_a_renter_who_is_removed_are_not_kept_and_those_of_others_are() {
        let (store, _dir) = site().await;
        let access =
            Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["C".to_owned()] };
        let mut tx = store.begin().await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        granted_now(&mut tx, id(7), &access).await.unwrap();
        renters::remove(&mut tx, id(23), at(9)).await.unwrap();
        let held = of_device(&mut tx, id(7)).await.unwrap().unwrap().state.held;
        assert_eq!(held, Some(Held { rental: id(10), access: Some(access) }));
        renters::remove(&mut tx, id(22), at(9)).await.unwrap();
        let held = of_device(&mut tx, id(7)).await.unwrap().unwrap().state.held;
        assert_eq!(held, Some(Held { rental: id(10), access: None }), "it is granted anew");
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_device_that_was_replaced_is_asked_and_given_access_anew() {
        let (store, _dir) = site().await;
        let access = Access { rental: id(10), until: at(2_000), mode: Mode::Certificates, keys: Vec::new() };
        let mut tx = store.begin().await.unwrap();
        asked(&mut tx, id(7), ("renter", Mode::Certificates)).await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        granted_now(&mut tx, id(7), &access).await.unwrap();
        replaced(&mut tx, id(7)).await.unwrap();
        let state = of_device(&mut tx, id(7)).await.unwrap().unwrap().state;
        assert_eq!((state.mode, state.held), (None, Some(Held { rental: id(10), access: None })));
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_device_has_is_kept_until_it_is_removed_and_its_keys_are_new() {
        let (store, _dir) = site().await;
        let state = async || of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
        let access =
            Access { rental: id(10), until: at(2_000), mode: Mode::Keys, keys: vec!["A".to_owned()] };
        let mut tx = store.begin().await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        assert!(failed(&mut tx, id(7), "no route").await.unwrap());
        assert!(!failed(&mut tx, id(7), "no route").await.unwrap());
        tx.commit().await.unwrap();
        let begun = state().await;
        assert_eq!(begun.state.held, Some(Held { rental: id(10), access: None }));
        assert_eq!(begun.failure.as_deref(), Some("no route"));
        let mut tx = store.begin().await.unwrap();
        granted_now(&mut tx, id(7), &access).await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        asked(&mut tx, id(7), ("another", Mode::Keys)).await.unwrap();
        tx.commit().await.unwrap();
        let granted = state().await;
        assert_eq!(granted.state.held, Some(Held { rental: id(10), access: Some(access) }));
        assert_eq!((granted.failure, granted.state.mode), (None, None));
        let mut tx = store.begin().await.unwrap();
        revoked(&mut tx, id(7), Some(id(11))).await.unwrap();
        revoked(&mut tx, id(7), Some(id(10))).await.unwrap();
        asked(&mut tx, id(7), ("renter", Mode::Keys)).await.unwrap();
        tx.commit().await.unwrap();
        let removed = state().await.state;
        assert_eq!((removed.held, removed.mode, removed.is_exposed), (None, Some(Mode::Keys), true));
        fixture::run(&store, "update peer_keys set retired_at = 1 where peer = 7", &[]).await;
        assert!(!state().await.state.is_exposed);
    }

    #[tokio::test]
    async fn another_word_of_its_profile_does_not_make_the_keys_of_a_device_secret_again() {
        let (store, _dir) = site().await;
        let root = async |root: &'static str| fixture::run(&store, root, &[]).await;
        let is_exposed = async || {
            let found = of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
            found.state.is_exposed
        };
        let rent = async |rental: Id| {
            let mut tx = store.begin().await.unwrap();
            granting(&mut tx, id(7), rental).await.unwrap();
            tx.commit().await.unwrap();
        };
        let end = async |rental: Id| {
            let mut tx = store.begin().await.unwrap();
            revoked(&mut tx, id(7), Some(rental)).await.unwrap();
            tx.commit().await.unwrap();
        };
        rent(id(10)).await;
        root("update device_rental_settings set ssh_root = 0").await;
        rent(id(10)).await;
        assert!(!is_exposed().await, "the renter has it yet");
        end(id(10)).await;
        assert!(is_exposed().await, "its renters could become root");
        rent(id(11)).await;
        end(id(11)).await;
        assert!(is_exposed().await, "those of the next rental could not, and the keys are the same");
        let mut tx = store.begin().await.unwrap();
        never_rooted(&mut tx, id(7)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!is_exposed().await);
        rent(id(11)).await;
        end(id(11)).await;
        assert!(!is_exposed().await, "it never could");
    }

    #[tokio::test]
    async fn what_a_profile_says_during_a_part_of_a_rental_is_known_at_its_end() {
        let (store, _dir) = site().await;
        let without = "update device_rental_settings set ssh_root = 0, inherited = '[\"ssh_root\"]'";
        fixture::run(&store, without, &[]).await;
        let mut tx = store.begin().await.unwrap();
        granting(&mut tx, id(7), id(10)).await.unwrap();
        tx.commit().await.unwrap();
        fixture::run(&store, "update device_rental_settings set ssh_root = 1", &[]).await;
        let mut tx = store.begin().await.unwrap();
        terms::settle(&mut tx, &[id(7)].into(), at(9)).await.unwrap();
        assert!(!settings::settings(&mut tx, id(7)).await.unwrap().ssh_root, "no profile says it any more");
        revoked(&mut tx, id(7), Some(id(10))).await.unwrap();
        assert!(of_device(&mut tx, id(7)).await.unwrap().unwrap().state.is_exposed);
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_device_that_was_dispatched_is_lent_until_its_rental_is_over_and_it_is_back() {
        let (store, _dir) = site().await;
        let lent = async |change: &'static str| {
            fixture::run(&store, change, &[]).await;
            let found = of_device(&mut store.reader().await.unwrap(), id(7)).await.unwrap().unwrap();
            found.state.lent_until
        };
        let sent = "update rentals set shipped = 1, dispatched_at = 900000 where id = 10";
        assert_eq!(lent(sent).await, Some(at(2_000)));
        assert_eq!(lent("update rentals set ended_at = 1500000 where id = 10").await, Some(at(1_500)));
        let used = "insert into device_ssh_access (device, used_by, failure) values (7, 10, 'no route')";
        fixture::run(&store, used, &[]).await;
        assert_eq!(
            lent("update device_rental_settings set cleaning_command = 'wipe'").await,
            Some(at(1_500))
        );
        let why = async || {
            let mut conn = store.reader().await.unwrap();
            let found = handovers::obstacle_of(&mut conn, id(7), None, at(1_500)).await.unwrap();
            found.and_then(|(_, why)| why)
        };
        assert_eq!(why().await.as_deref(), Some("the device has not come back"));
        assert_eq!(lent("update rentals set returned_at = 1600000 where id = 10").await, None);
        assert_eq!(why().await.as_deref(), Some("no route"));
    }
}
