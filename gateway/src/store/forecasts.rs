//! Forecasts of when something is full, as rows: the newest of each service, and one of each earlier day.
//!
//! `fleetgate_engine::forecast` makes them. This module decides nothing about them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fleetgate_engine::forecast::Basis;
use fleetgate_engine::history::Second;
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{FullAt, USED};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::history::Series;
use super::rows::{Batched, NARROW};

/// Earlier days that are kept, to tell how far forecasts were off.
pub const KEEP_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

/// The forecast of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub host: HostId,
    pub service: String,
    pub at: Wall,
    pub full_at: Option<Wall>,
    /// Since when it is full, if it is.
    pub full_since: Option<Wall>,
    pub text: String,
    pub basis: Basis,
}

#[derive(Serialize, Deserialize)]
struct BasisRow {
    from: Second,
    to: Second,
    peaks: u32,
    period_s: Option<Second>,
    slope_per_day: f64,
    spread: f64,
    #[serde(default)]
    full_since: Option<Second>,
}

impl From<&Stored> for BasisRow {
    fn from(stored: &Stored) -> BasisRow {
        let Basis { from, to, peaks, period_s, slope_per_day, spread } = stored.basis;
        let full_since = stored.full_since.map(|at| at.as_millis().div_euclid(1_000));
        BasisRow { from, to, peaks, period_s, slope_per_day, spread, full_since }
    }
}

impl From<BasisRow> for Basis {
    fn from(BasisRow { from, to, peaks, period_s, slope_per_day, spread, .. }: BasisRow) -> Basis {
        Basis { from, to, peaks, period_s, slope_per_day, spread }
    }
}

impl<'r> FromRow<'r, SqliteRow> for Stored {
    fn from_row(row: &'r SqliteRow) -> sqlx::Result<Self> {
        let Json(basis): Json<BasisRow> = row.try_get("basis")?;
        Ok(Stored {
            host: Id::from_i64(row.try_get("host")?),
            service: row.try_get("service")?,
            at: Wall::from_millis(row.try_get("at")?),
            full_at: row.try_get::<Option<i64>, _>("full_at")?.map(Wall::from_millis),
            full_since: basis.full_since.map(|at| Wall::from_millis(at.saturating_mul(1_000))),
            text: row.try_get("text")?,
            basis: basis.into(),
        })
    }
}

static NEWEST: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 6, |values| {
        format!("insert or replace into forecasts (host, service, at, full_at, text, basis) values {values}")
    })
});

static DAYS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 5, |values| {
        format!("insert or replace into forecast_days (host, service, day, at, full_at) values {values}")
    })
});

static REMOVED: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 2, |values| {
        format!("delete from forecasts where (host, service) in (values {values})")
    })
});

/// Writes the newest forecasts.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn write(conn: &mut SqliteConnection, forecasts: &[Stored]) -> sqlx::Result<()> {
    let row = |f: &Stored| serde_json::to_string(&BasisRow::from(f)).unwrap_or_default();
    NEWEST
        .run(&mut *conn, forecasts, |f, arguments| {
            arguments
                .add(f.host.as_i64())
                .add(f.service.as_str())
                .add(f.at.as_millis())
                .add(f.full_at.map(Wall::as_millis))
                .add(f.text.as_str())
                .add(row(f));
        })
        .await?;
    let full_at = |f: &Stored| f.full_since.or(f.full_at);
    let full: Vec<(&Stored, Wall)> = forecasts.iter().filter_map(|f| Some((f, full_at(f)?))).collect();
    DAYS.run(conn, &full, |(f, full_at), arguments| {
        arguments
            .add(f.host.as_i64())
            .add(f.service.as_str())
            .add(f.at.as_millis().div_euclid(DAY_MS))
            .add(f.at.as_millis())
            .add(full_at.as_millis());
    })
    .await
}

/// Removes the newest forecasts of services whose past supports none any more. Those of earlier days stay.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn remove(conn: &mut SqliteConnection, services: &[(HostId, String)]) -> sqlx::Result<()> {
    REMOVED
        .run(conn, services, |(host, service), arguments| {
            arguments.add(host.as_i64()).add(service.as_str());
        })
        .await
}

/// Removes forecasts that were not renewed for a day, and days that are too old.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn prune(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    let now = now.as_millis();
    sqlx::query("delete from forecasts where at < $1").bind(now - DAY_MS).execute(&mut *conn).await?;
    let first = now.div_euclid(DAY_MS) - KEEP_DAYS;
    sqlx::query("delete from forecast_days where day < $1").bind(first).execute(conn).await.map(drop)
}

/// Returns the forecasts of the services of a host.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_host(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Vec<Stored>> {
    let sql = "select host, service, at, full_at, text, basis from forecasts where host = $1";
    sqlx::query_as(sql).bind(host.as_i64()).fetch_all(conn).await
}

/// When forecasts were made, and for when, in seconds since 1970. Of those that were made while it was full: since when it
/// was.
pub type Earlier = Vec<(Second, Second)>;

/// Returns the forecasts of earlier days of each service of a host.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn earlier(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<BTreeMap<String, Earlier>> {
    let sql =
        "select service, at / 1000, full_at / 1000 from forecast_days where host = $1 order by service, day";
    let rows: Vec<(String, Second, Second)> = sqlx::query_as(sql).bind(host.as_i64()).fetch_all(conn).await?;
    let mut found: BTreeMap<String, Earlier> = BTreeMap::new();
    for (service, at, full_at) in rows {
        found.entry(service).or_default().push((at, full_at));
    }
    Ok(found)
}

/// Returns the forecasts of the services of a host, and those of the days before.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn with_earlier(
    conn: &mut SqliteConnection,
    host: HostId,
) -> sqlx::Result<(Vec<Stored>, BTreeMap<String, Earlier>)> {
    let stored = of_host(conn, host).await?;
    let earlier = if stored.is_empty() { BTreeMap::new() } else { earlier(conn, host).await? };
    Ok((stored, earlier))
}

/// Returns the newest forecasts of all services for the monitor.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn all(conn: &mut SqliteConnection) -> sqlx::Result<Vec<FullAt>> {
    let sql = "select host, service, at, full_at from forecasts where full_at is not null";
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(sql).fetch_all(conn).await?;
    let full_at = |(host, service, at, full_at): (i64, String, i64, i64)| FullAt {
        host: Id::from_i64(host),
        service,
        at: Some(Wall::from_millis(full_at)),
        made_at: Wall::from_millis(at),
    };
    Ok(rows.into_iter().map(full_at).collect())
}

/// Which series have forecasts: a share of something that is used, of which the free part is measured too.
macro_rules! forecastable {
    ($select:literal, $end:literal) => {
        concat!(
            "select ",
            $select,
            " from series u join service_states s on s.host = u.host and s.service = u.service
              where u.label = $1 and u.uom = '%'
                and exists (select 1 from series f where f.host = u.host and f.service = u.service
                            and f.label in ('free', 'available') and f.uom = 'B') ",
            $end
        )
    };
}

/// Returns how many series have forecasts.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn count(conn: &mut SqliteConnection) -> sqlx::Result<u32> {
    sqlx::query_scalar(forecastable!("count(*)", "")).bind(USED).fetch_one(conn).await
}

/// Returns the next series that have forecasts, in the order of their numbers.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn next(conn: &mut SqliteConnection, after: u32, most: u32) -> sqlx::Result<Vec<Series>> {
    let sql = forecastable!("u.id, u.host, u.service, u.uom", "and u.id > $2 order by u.id limit $3");
    let rows: Vec<(u32, i64, String, String)> =
        sqlx::query_as(sql).bind(USED).bind(after).bind(most).fetch_all(conn).await?;
    let series = |(id, host, service, uom)| Series {
        id,
        host: Id::from_i64(host),
        service,
        label: USED.to_owned(),
        uom,
    };
    Ok(rows.into_iter().map(series).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn forecast(service: &str, at: i64, full_at: Option<i64>) -> Stored {
        let basis =
            Basis { from: 1, to: 2, peaks: 9, period_s: Some(86_400), slope_per_day: 0.5, spread: 0.25 };
        Stored {
            host: Id::from_i64(1),
            service: service.to_owned(),
            at: Wall::from_millis(at),
            full_at: full_at.map(Wall::from_millis),
            full_since: None,
            text: "full in about 9 days".to_owned(),
            basis,
        }
    }

    const HOST: &str = "insert into hosts (id, name, profile, created_at) values (1, 'cam', 'default', 0)";

    #[tokio::test]
    async fn the_newest_forecast_counts_and_each_day_keeps_its_last() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.write.acquire().await.unwrap();
        sqlx::query(HOST).execute(&mut *conn).await.unwrap();
        let host = Id::from_i64(1);
        for (at, full_at) in [(1_000, Some(9_000)), (5_000, Some(8_000)), (DAY_MS + 1, None)] {
            write(&mut conn, &[forecast("disk", at, full_at)]).await.unwrap();
        }
        write(&mut conn, &[forecast("memory", 7_000, Some(DAY_MS))]).await.unwrap();
        let newest = vec![forecast("disk", DAY_MS + 1, None), forecast("memory", 7_000, Some(DAY_MS))];
        assert_eq!(of_host(&mut conn, host).await.unwrap(), newest);
        let days = earlier(&mut conn, host).await.unwrap();
        assert_eq!(days["disk"], [(5, 8)], "a day without an end is none");
        let at = Some(Wall::from_millis(DAY_MS));
        let told = FullAt { host, service: "memory".into(), at, made_at: Wall::from_millis(7_000) };
        assert_eq!(all(&mut conn).await.unwrap(), [told]);
        remove(&mut conn, &[(host, "memory".into())]).await.unwrap();
        assert_eq!(of_host(&mut conn, host).await.unwrap(), newest[..1]);
        assert_eq!(earlier(&mut conn, host).await.unwrap().len(), 2);
        prune(&mut conn, Wall::from_millis(KEEP_DAYS * DAY_MS)).await.unwrap();
        assert_eq!(of_host(&mut conn, host).await.unwrap(), []);
        assert_eq!(earlier(&mut conn, host).await.unwrap().len(), 2, "30 days are kept");
        prune(&mut conn, Wall::from_millis((KEEP_DAYS + 1) * DAY_MS)).await.unwrap();
        assert!(earlier(&mut conn, host).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_day_on_which_it_was_full_keeps_since_when() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.write.acquire().await.unwrap();
        sqlx::query(HOST).execute(&mut *conn).await.unwrap();
        let full_since = Some(Wall::from_millis(3_000));
        let full = Stored { full_since, ..forecast("disk", 9_000, Some(9_000)) };
        write(&mut conn, std::slice::from_ref(&full)).await.unwrap();
        let (stored, earlier) = with_earlier(&mut conn, Id::from_i64(1)).await.unwrap();
        assert_eq!(stored, [full]);
        assert_eq!(earlier["disk"], [(9, 3)]);
    }

    #[tokio::test]
    async fn what_is_used_of_something_that_is_free_has_forecasts() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.write.acquire().await.unwrap();
        sqlx::query(HOST).execute(&mut *conn).await.unwrap();
        sqlx::raw_sql(
            "insert into service_states (host, service, kind, attempt, stale, since, route, output, long_output,
                                         metrics, warnings)
             select 1, value, 'hard', 1, 0, 0, '', '', '', '[]', '[]' from json_each('[\"disk\",\"cpu\",\"memory\"]');
             insert into series (id, host, service, label, uom, last_at)
             values (3, 1, 'disk', 'used', '%', 0), (4, 1, 'disk', 'free', 'B', 0), (5, 1, 'cpu', 'used', '%', 0),
                    (6, 1, 'memory', 'available', 'B', 0), (7, 1, 'memory', 'used', '%', 0),
                    (8, 1, 'gone', 'used', '%', 0), (9, 1, 'gone', 'free', 'B', 0);",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        let disk = Series {
            id: 3,
            host: Id::from_i64(1),
            service: "disk".into(),
            label: "used".into(),
            uom: "%".into(),
        };
        assert_eq!(count(&mut conn).await.unwrap(), 2);
        assert_eq!(next(&mut conn, 0, 1).await.unwrap(), [disk]);
        let rest = next(&mut conn, 3, 9).await.unwrap();
        assert_eq!(rest.iter().map(|s| s.id).collect::<Vec<_>>(), [7]);
    }
}
