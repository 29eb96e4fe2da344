//! The times in which rentals and blocks occupy devices.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::rental::occupancy::Occupancy;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::shipments::is_away;
use crate::store::access::{id, maybe_wall, wall};

/// An occupancy of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Rental(Id),
    Block(Id),
}

/// A device that is occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub device: HostId,
    pub source: Source,
    pub occupancy: Occupancy,
}

impl FromRow<'_, SqliteRow> for Taken {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let rental: Option<i64> = row.try_get("rental")?;
        let source = match rental {
            Some(rental) => Source::Rental(Id::from_i64(rental)),
            None => Source::Block(id(row, "block")?),
        };
        let occupancy = Occupancy { from: wall(row, "from_at")?, until: maybe_wall(row, "until_at")? };
        Ok(Taken { device: id(row, "device")?, source, occupancy })
    }
}

/// Whether a rental `r` is over and its device has not come back. `$2`: now.
macro_rules! is_awaited {
    () => {
        concat!(is_away!("r"), " and (r.ended_at is not null or r.until_at <= $2)")
    };
}

/// In parts: with `or`, SQLite reads what is planned for all devices. Blocks may have no end, and a rental that is over
/// has none until its shipped device has come back.
const OF_DEVICES: &str = concat!(
    "select o.device as device, o.rental as rental, o.block as block, o.from_at as from_at,
            o.until_at as until_at
     from occupancies o
     where o.device in (select value from json_each($1)) and o.until_at > $2
       and not exists (select 1 from rentals r join bookings b on b.id = r.booking
                       where r.id = o.rental
                         and (min(b.hold_until, r.until_at) <= $2
                              or r.device = o.device and ",
    is_awaited!(),
    "))
     union all
     select o.device, o.rental, o.block, o.from_at, o.until_at from occupancies o
     where o.device in (select value from json_each($1)) and o.until_at is null
     union all
     select r.device, r.id, null, r.prepared_from, null from rentals r
     where r.device in (select value from json_each($1)) and ",
    is_awaited!(),
    "
     order by device, from_at"
);

/// Returns what occupies these devices now and later. A hold that is over occupies nothing.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_devices(
    conn: &mut SqliteConnection,
    devices: &[HostId],
    now: Wall,
) -> sqlx::Result<BTreeMap<HostId, Vec<Taken>>> {
    let ids: Vec<i64> = devices.iter().map(|device| device.as_i64()).collect();
    let query = sqlx::query_as(OF_DEVICES).bind(Json(ids)).bind(now.as_millis());
    let rows: Vec<Taken> = query.fetch_all(conn).await?;
    let mut found: BTreeMap<HostId, Vec<Taken>> = BTreeMap::new();
    for row in rows {
        found.entry(row.device).or_default().push(row);
    }
    Ok(found)
}

/// Counts what occupies devices now and later.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn count(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<i64> {
    let sql = "select count(*) from occupancies where until_at is null or until_at > $1";
    sqlx::query_scalar(sql).bind(now.as_millis()).fetch_one(conn).await
}

/// Occupies a device.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    device: HostId,
    source: Source,
    occupied: Occupancy,
) -> sqlx::Result<()> {
    let (rental, block) = match source {
        Source::Rental(id) => (Some(id.as_i64()), None),
        Source::Block(id) => (None, Some(id.as_i64())),
    };
    sqlx::query(
        "insert into occupancies (device, rental, block, from_at, until_at) values ($1, $2, $3, $4, $5)",
    )
    .bind(device.as_i64())
    .bind(rental)
    .bind(block)
    .bind(occupied.from.as_millis())
    .bind(occupied.until.map(Wall::as_millis))
    .execute(tx)
    .await
    .map(drop)
}

/// The newest row is that of the present device. Earlier ones are of devices that it was swapped
/// away from.
const PRESENT: &str = "select max(id) from occupancies where (rental = $1 or block = $2)";

/// Sets when a rental or block frees its present device.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn set_until(tx: &mut SqliteConnection, source: Source, until: Wall) -> sqlx::Result<()> {
    let present = present(tx, source).await?;
    let sql = "update occupancies set until_at = $2 where id = $1";
    sqlx::query(sql).bind(present).bind(until.as_millis()).execute(&mut *tx).await?;
    let sql = "delete from occupancies where id = $1 and until_at <= from_at";
    sqlx::query(sql).bind(present).execute(tx).await.map(drop)
}

/// Occupies the present device of a rental from a moment on, if it was not occupied before.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn begin_by(tx: &mut SqliteConnection, source: Source, at: Wall) -> sqlx::Result<()> {
    let present = present(tx, source).await?;
    let sql = "update occupancies set from_at = min(from_at, $2) where id = $1";
    sqlx::query(sql).bind(present).bind(at.as_millis()).execute(tx).await.map(drop)
}

/// Frees the present device at once and as a whole.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, source: Source) -> sqlx::Result<()> {
    let present = present(tx, source).await?;
    sqlx::query("delete from occupancies where id = $1").bind(present).execute(tx).await.map(drop)
}

/// Frees a device of all its blocks, for its removal.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_blocks(tx: &mut SqliteConnection, device: HostId, now: Wall) -> sqlx::Result<()> {
    for sql in [
        "delete from occupancies where device = $1 and block is not null and from_at >= $2",
        "update occupancies set until_at = $2
         where device = $1 and block is not null and (until_at is null or until_at > $2)",
    ] {
        sqlx::query(sql).bind(device.as_i64()).bind(now.as_millis()).execute(&mut *tx).await?;
    }
    Ok(())
}

async fn present(tx: &mut SqliteConnection, source: Source) -> sqlx::Result<Option<i64>> {
    let (rental, block) = match source {
        Source::Rental(id) => (Some(id.as_i64()), None),
        Source::Block(id) => (None, Some(id.as_i64())),
    };
    sqlx::query_scalar(PRESENT).bind(rental).bind(block).fetch_one(tx).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn a_decision_reads_what_is_planned_for_its_devices_alone() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {OF_DEVICES}"));
        let query = sqlx::query_as(sql).bind("[7]").bind(0);
        let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("occupancies_device (device=? AND until_at>?)"), "{plan}");
        assert!(!plan.contains("occupancies_until") && !plan.contains("SCAN o"), "{plan}");
    }

    #[tokio::test]
    async fn what_has_no_end_stands_beside_what_has_one_in_time_order() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into device_blocks (id, device, from_at, reason, author, created_at) values (1, 7, 0, '', '', 0)",
            "insert into occupancies (device, block, from_at, until_at)
             values (7, 1, 300, 400), (7, 1, 200, null), (7, 1, 100, 150), (7, 1, 0, 50)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let found = async |device: HostId, now: i64| -> Vec<i64> {
            let mut conn = store.reader().await.unwrap();
            let all = of_devices(&mut conn, &[device], Wall::from_millis(now)).await.unwrap();
            all.into_values().flatten().map(|taken| taken.occupancy.from.as_millis()).collect()
        };
        assert_eq!(found(Id::from_i64(7), 50).await, [100, 200, 300]);
        assert_eq!(found(Id::from_i64(8), 50).await, [0i64; 0]);
        let mut tx = store.begin().await.unwrap();
        end_blocks(&mut tx, Id::from_i64(7), Wall::from_millis(250)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(found(Id::from_i64(7), 50).await, [100, 200], "what had not begun never comes");
        assert_eq!(found(Id::from_i64(7), 250).await, [0i64; 0]);
    }
}
