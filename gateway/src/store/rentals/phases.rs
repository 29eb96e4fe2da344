//! The rentals that concern their devices now, and what others have left on devices, for the monitoring of the devices.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, RentalId};
use fleetgate_engine::rental::device_access::{LEAD, obstacle};
use fleetgate_engine::rental::life::Life;
use fleetgate_engine::rental::phase::Leftover;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow as _, Row as _};

use super::device_access::{self, Upkeep};
use super::{Rental, select};

/// By an index: the rentals of the past are many.
const OPEN: &str = select!(
    "where r.id in (select id from rentals indexed by rentals_of_now
                    where announced_state not in ('closed', 'cancelled', 'failed'))
     order by r.device, r.id"
);

/// Returns the rentals that concern their devices now, by device. One that cannot be read is left out.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open(conn: &mut SqliteConnection) -> sqlx::Result<BTreeMap<HostId, Vec<(RentalId, Life)>>> {
    let rows = sqlx::query(OPEN).fetch_all(conn).await?;
    let mut found: BTreeMap<HostId, Vec<(RentalId, Life)>> = BTreeMap::new();
    for rental in rows.iter().filter_map(readable) {
        found.entry(rental.device).or_default().push((rental.id, rental.life));
    }
    Ok(found)
}

/// Returns the devices that have something of a rental, with what of it is left of one that does not have the device any
/// more.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn left(
    conn: &mut SqliteConnection,
    now: Wall,
) -> sqlx::Result<BTreeMap<HostId, Option<Leftover>>> {
    let mut devices = device_access::devices(conn).await?;
    devices.retain(|device| device.state.has_something());
    if devices.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rentals = device_access::rented(conn, (now, now + LEAD)).await?;
    let present = |device: HostId| rentals.get(&device)?.first().map(|rental| (rental.rental, rental.ssh));
    Ok(devices.into_iter().map(|device| (device.id, leftover(&device, present(device.id)))).collect())
}

fn leftover(device: &Upkeep, present: Option<(RentalId, bool)>) -> Option<Leftover> {
    let what = obstacle(&device.state, present)?;
    Some(Leftover { what, failure: device.failure_of(what).map(str::to_owned) })
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
    async fn rentals_of_the_past_are_not_read() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let plan = sqlx::AssertSqlSafe(format!("explain query plan {OPEN}"));
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(plan).fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("rentals_of_now"), "{plan}");
    }
}
