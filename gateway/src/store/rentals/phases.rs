//! The rentals that concern their devices now, and what others have left on them, for the monitoring of the devices.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::rental::phase::{self, DeviceRental, Leftover};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow as _, Row as _};

use super::{Rental, millis, select};
use crate::store::access::{id, wall};

/// The query uses an index: the rentals of the past are many.
const OPEN: &str = select!(
    "where r.id in (select id from rentals indexed by rentals_of_now
                    where announced_state not in ('closed', 'cancelled', 'failed'))
     order by r.device, r.id"
);

/// Those that were over lately and may have been a problem.
const OVER: &str = select!(
    "where r.id in (select id from rentals indexed by rentals_announced
                    where announced_at > $1 and announced_state in ('closed', 'failed')
                      and (gated = 1 or dispatched_at is not null))
     order by r.device, r.id"
);

/// Rentals by device.
type ByDevice = BTreeMap<HostId, Vec<DeviceRental>>;

/// Returns the rentals that concern their devices now, by device. One that cannot be read is left out.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<ByDevice> {
    let rows = sqlx::query(OPEN).fetch_all(&mut *conn).await?;
    let mut found = over(conn, now).await?;
    for rental in rows.iter().filter_map(readable) {
        found.entry(rental.device).or_default().push(of_device(rental));
    }
    Ok(found)
}

/// Returns the rentals that are over and concern their devices all the same.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn over(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<ByDevice> {
    let since = (now - phase::SHOWN_AFTER).as_millis();
    let rows = sqlx::query(OVER).bind(since).fetch_all(conn).await?;
    let mut found = ByDevice::new();
    for rental in rows.iter().filter_map(readable).filter(|rental| phase::is_shown_after(&rental.life, now)) {
        found.entry(rental.device).or_default().push(of_device(rental));
    }
    Ok(found)
}

fn of_device(rental: Rental) -> DeviceRental {
    DeviceRental { rental: rental.id, life: rental.life, maintenance: rental.maintenance }
}

/// The devices before swaps of rentals that were delayed.
const SWAPPED: &str = "select p.device, max(c.rental)
     from rental_changes c
     join rental_changes p on p.id = (select max(b.id) from rental_changes b where b.rental = c.rental and b.id < c.id)
     join rentals r on r.id = c.rental
     join hosts h on h.id = p.device and h.removed_at is null
     where c.what = 'changed' and c.at > $1 and c.at > c.from_at + $2 and p.device <> c.device
       and r.gated = 1 and (r.handed_over_at is null or r.handed_over_at > c.at)
     group by p.device";

/// Returns the devices that delayed rentals had before they got other ones lately, each with one of these rentals.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn swapped(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<BTreeMap<HostId, RentalId>> {
    let since = (now - phase::SHOWN_AFTER).as_millis();
    let query = sqlx::query_as(SWAPPED).bind(since).bind(millis(phase::HANDOVER_TAKES));
    let rows: Vec<(i64, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(device, rental)| (Id::from_i64(device), Id::from_i64(rental))).collect())
}

/// What rentals that are over, or have another device, have left on their devices, because the last call there has
/// failed. A device that has not come back is not to be cleaned yet.
macro_rules! leftovers {
    () => {
        "select a.device as device, r.id as rental, a.rental is not null as is_access, a.failure as failure,
                coalesce(case when r.device <> a.device
                              then (select max(o.from_at) from occupancies o where o.rental = r.id) end,
                         r.returned_at, r.ended_at, r.until_at) as since
         from device_ssh_access a join rentals r on r.id = coalesce(a.rental, a.used_by)
         left join device_rental_settings s on s.device = a.device
         where a.failure is not null and (a.rental is not null or s.cleaning_command is not null)
           and (r.device <> a.device
                or r.announced_state not in ('held', 'booked', 'preparing', 'delayed', 'active'))
           and exists (select 1 from hosts h where h.id = a.device and h.removed_at is null)
           and not exists (select 1 from rentals w where w.device = a.device and w.dispatched_at is not null
                                                     and w.returned_at is null)"
    };
}

pub(in crate::store) use leftovers;

/// Returns what is left on devices, by device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn left(conn: &mut SqliteConnection) -> sqlx::Result<BTreeMap<HostId, Leftover>> {
    let rows = sqlx::query(leftovers!()).fetch_all(conn).await?;
    let leftover = |row: &SqliteRow| -> sqlx::Result<(HostId, Leftover)> {
        let left = Leftover {
            rental: id(row, "rental")?,
            is_access: row.try_get("is_access")?,
            since: wall(row, "since")?,
            why: row.try_get("failure")?,
        };
        Ok((id(row, "device")?, left))
    };
    rows.iter().map(leftover).collect()
}

fn readable(row: &SqliteRow) -> Option<Rental> {
    let named = |error: &sqlx::Error| {
        let rental: i64 = row.try_get("id").unwrap_or_default();
        tracing::error!("the rental {rental} cannot be read, and is not shown at its device: {error}");
    };
    Rental::from_row(row).inspect_err(named).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn what_is_left_is_that_of_rentals_that_are_over_or_elsewhere_and_not_away() {
        let (store, _dir) = fixture::store().await;
        for n in [7, 8] {
            fixture::device(&store, n, &format!("cam-{n}")).await;
        }
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, announced_state)
             values (10, 2, 7, 1000, 9000, 1000, 0, 0, 0, 'active')",
            "insert into device_rental_settings (device, rentable, preparation_ms, turnaround_ms) values (7, 1, 0, 0)",
            "insert into device_ssh_access (device, rental, failure) values (7, 10, 'no route')",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let found = async |change: &'static str| {
            fixture::run(&store, change, &[]).await;
            let found = left(&mut store.reader().await.unwrap()).await.unwrap();
            let device = store.host_spec(Id::from_i64(7), &fixture::TIMING).await.unwrap().unwrap();
            let has_service = device.services.iter().any(|service| service.name == "rental");
            let left = found.get(&Id::from_i64(7)).map(|left| (left.is_access, left.since.as_millis()));
            assert!(left.is_none() || has_service, "{change}");
            left
        };
        assert_eq!(found("update rentals set end_note = ''").await, None, "it has its device");
        let over = "update rentals set ended_at = 5000, end_reason = 'ended', announced_state = 'closed'";
        assert_eq!(found(over).await, Some((true, 5_000)));
        assert_eq!(found("update rentals set shipped = 1, dispatched_at = 900").await, None, "it is away");
        assert_eq!(found("update rentals set returned_at = 6000").await, Some((true, 6_000)));
        let removed = "update device_ssh_access set rental = null, used_by = 10";
        assert_eq!(found(removed).await, None, "nothing is to be cleaned");
        let cleans = "update device_rental_settings set cleaning_command = 'wipe'";
        assert_eq!(found(cleans).await, Some((false, 6_000)));
        let swapped = "update rentals set device = 8, announced_state = 'active'";
        assert_eq!(found(swapped).await, Some((false, 6_000)));
        let since = "insert into occupancies (device, rental, from_at, until_at) values (8, 10, 4000, 9000)";
        assert_eq!(found(since).await, Some((false, 4_000)));
        assert_eq!(found("update device_ssh_access set failure = null").await, None, "it has not failed");
    }

    #[tokio::test]
    async fn rentals_of_the_past_are_not_read() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let plan = sqlx::AssertSqlSafe(format!("explain query plan {OPEN}"));
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(plan).fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("rentals_of_now"), "{plan}");
    }
}
