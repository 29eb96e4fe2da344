//! The rentals that concern their devices now, for the monitoring of the devices.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, RentalId};
use fleetgate_engine::rental::life::Life;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow as _, Row as _};

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
