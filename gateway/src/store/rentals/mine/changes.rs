//! The hard states of a device that began within a time, and were measured within it.
//!
//! A result may be sent long after it was measured. Its state begins when it arrives, so the begin alone does not say
//! whom it belongs to.

use std::collections::BTreeMap;

use fleetgate_engine::id::HostId;
use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::BUILT_IN;

/// A hard state that began within the time of a rental.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub at: Wall,
    /// `None`: of the device itself.
    pub service: Option<String>,
    pub status: String,
}

/// The first part finds the services in steps of the index, so that what lies outside of the time is not read however
/// long the device has been there.
macro_rules! within {
    ($rest:literal) => {
        concat!(
            "with recursive names (service) as (
                 select min(service) from intervals where host = $1
                 union all
                 select (select min(i.service) from intervals i where i.host = $1 and i.service > n.service)
                 from names n where n.service is not null)
             select i.began_at, i.service, i.value
             from names n cross join intervals i on i.host = $1 and i.service = n.service and i.series = 'state'
             where n.service is not null and n.service <> $4 and i.began_at >= $2 and i.began_at < $3
                   and (i.measured_at is null or i.measured_at >= $2) ",
            $rest
        )
    };
}

const LATEST: &str = within!("order by i.began_at desc, i.service desc limit $5");
const LASTING: &str = within!("and i.ended_at is null limit $5");

/// More services than a host can have.
const MAX_LASTING: i64 = 10_000;

/// Returns the latest changes within a time, the last one first.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn latest(
    conn: &mut SqliteConnection,
    device: HostId,
    time: Window,
    limit: i64,
) -> sqlx::Result<Vec<Change>> {
    let rows = rows(conn, LATEST, device, time, limit).await?;
    let change = |(at, service, status): Row| {
        let service = Some(service).filter(|name| !name.is_empty());
        Change { at: Wall::from_millis(at), service, status }
    };
    Ok(rows.into_iter().map(change).collect())
}

/// Returns when the present hard states began, by service; those that began within the time. The device itself has an
/// empty name.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn lasting(
    conn: &mut SqliteConnection,
    device: HostId,
    time: Window,
) -> sqlx::Result<BTreeMap<String, Wall>> {
    let rows = rows(conn, LASTING, device, time, MAX_LASTING).await?;
    Ok(rows.into_iter().map(|(at, service, _)| (service, Wall::from_millis(at))).collect())
}

/// When it began, its service, and its value.
type Row = (i64, String, String);

async fn rows(
    conn: &mut SqliteConnection,
    sql: &'static str,
    device: HostId,
    time: Window,
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sql)
        .bind(device.as_i64())
        .bind(time.from().as_millis())
        .bind(time.until().as_millis())
        .bind(BUILT_IN)
        .bind(limit)
        .fetch_all(conn)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn the_index_finds_what_lies_within_the_time() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        for sql in [LATEST, LASTING] {
            let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
            let query = sqlx::query_as(sql).bind(7).bind(0).bind(9).bind("rental").bind(9);
            let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
            let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
            let whole = "intervals_object (host=? AND service=? AND series=? AND began_at>? AND began_at<?)";
            assert!(plan.contains(whole) && !plan.contains("SCAN i"), "{plan}");
        }
    }
}
