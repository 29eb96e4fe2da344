//! The final reports of rentals. One that is stored never changes, unless the clock was ahead when it was made.

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::store::access::{id, wall};

/// A final report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// JSON, as the API sends it.
    pub report: String,
    /// Of the report.
    pub sha256: Vec<u8>,
    pub at: Wall,
}

impl FromRow<'_, SqliteRow> for Frozen {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Frozen {
            report: row.try_get("report")?,
            sha256: row.try_get("sha256")?,
            at: wall(row, "frozen_at")?,
        })
    }
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, rental: Id) -> sqlx::Result<Option<Frozen>> {
    let sql = "select report, sha256, frozen_at from rental_reports where rental = $1";
    sqlx::query_as(sql).bind(rental.as_i64()).fetch_optional(conn).await
}

/// Stores the final report of a rental. The first one stays.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, rental: Id, report: &Frozen) -> sqlx::Result<()> {
    let sql = "insert into rental_reports (rental, report, sha256, frozen_at) values ($1, $2, $3, $4)
               on conflict (rental) do nothing";
    sqlx::query(sql)
        .bind(rental.as_i64())
        .bind(&report.report)
        .bind(&report.sha256)
        .bind(report.at.as_millis())
        .execute(&mut *tx)
        .await?;
    let sql = "update rentals set reported = 1 where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).execute(tx).await.map(drop)
}

/// Removes the final report of a rental that goes on: it was made by a clock that was ahead.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn take_back(tx: &mut SqliteConnection, rental: Id) -> sqlx::Result<()> {
    for sql in [
        "delete from rental_reports where rental = $1",
        "update rentals set reported = 0 where id = $1 and reported = 1",
    ] {
        sqlx::query(sql).bind(rental.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// A hold that is over is ended first, by `bookings::lapse`.
const DUE: &str = "select r.id from rentals r join bookings b on b.id = r.booking
     where r.reported = 0 and coalesce(r.ended_at, r.until_at) <= $1
       and coalesce(r.ended_at, r.until_at) + iif(r.end_reason in ('cancelled', 'lapsed'), 0, r.turnaround_ms) <= $1
       and (b.hold_until is null or r.ended_at is not null)
       and (r.dispatched_at is null or r.returned_at + r.turnaround_ms <= $1)
     order by coalesce(r.ended_at, r.until_at) limit $2";

/// Returns rentals without a final report of which nothing was open any more at this time.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn due(conn: &mut SqliteConnection, closed_at: Wall, limit: i64) -> sqlx::Result<Vec<Id>> {
    let query = sqlx::query_scalar(DUE).bind(closed_at.as_millis()).bind(limit);
    let rows: Vec<i64> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(Id::from_i64).collect())
}

/// A device of a rental, and from when it was occupied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: Id,
    pub name: String,
    pub from: Wall,
}

impl FromRow<'_, SqliteRow> for Device {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Device { id: id(row, "device")?, name: row.try_get("name")?, from: wall(row, "from_at")? })
    }
}

/// Returns the devices that a rental occupied, in this order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn devices(conn: &mut SqliteConnection, rental: Id) -> sqlx::Result<Vec<Device>> {
    let sql = "select o.device, h.name, o.from_at from occupancies o join hosts h on h.id = o.device
               where o.rental = $1 order by o.id";
    sqlx::query_as(sql).bind(rental.as_i64()).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, fixture};

    fn at(ms: i64) -> Wall {
        Wall::from_millis(ms)
    }

    async fn scene() -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, hold_until, author, created_at)
             values (1, 1, null, '', 0), (2, 1, 900, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  ended_at, end_reason, created_at)
             values (11, 1, 7, 100, 200, 100, 0, 50, null, null, 0), (12, 1, 7, 100, 900, 100, 0, 50, 120, 'ended', 0),
                    (13, 1, 7, 500, 900, 500, 0, 50, 130, 'cancelled', 0), (14, 2, 7, 100, 140, 100, 0, 0, null, null, 0)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        (store, dir)
    }

    async fn found(store: &Store, closed_at: i64) -> Vec<i64> {
        let mut conn = store.reader().await.unwrap();
        due(&mut conn, at(closed_at), 9).await.unwrap().into_iter().map(Id::as_i64).collect()
    }

    #[tokio::test]
    async fn a_report_is_due_after_the_turnaround_and_once() {
        let (store, _dir) = scene().await;
        assert_eq!(found(&store, 129).await, [0i64; 0]);
        assert_eq!(found(&store, 130).await, [13], "a cancelled one has no turnaround");
        assert_eq!(found(&store, 170).await, [12, 13]);
        assert_eq!(found(&store, 250).await, [12, 13, 11], "and no hold that waits for its end");
        let report = Frozen { report: "{}".into(), sha256: vec![1], at: at(300) };
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, Id::from_i64(13), &report).await.unwrap();
        let other = Frozen { report: "[]".into(), ..report.clone() };
        insert(&mut tx, Id::from_i64(13), &other).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(found(&store, 170).await, [12]);
        let mut conn = store.reader().await.unwrap();
        assert_eq!(find(&mut conn, Id::from_i64(13)).await.unwrap(), Some(report), "the first one stays");
        assert_eq!(find(&mut conn, Id::from_i64(12)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_due_is_found_without_a_look_at_all_rentals() {
        let (store, _dir) = scene().await;
        let mut conn = store.reader().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {DUE}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).bind(0).bind(9).fetch_all(&mut *conn).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("rentals_reported") && !plan.contains("SCAN"), "{plan}");
    }
}
