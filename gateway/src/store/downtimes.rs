//! Downtimes as people planned them. What is over or was cancelled stays.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{self, HostScope, Scope};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downtime {
    pub plan: wire::Downtime,
    /// The name of the one host, where it is for one.
    pub host_name: Option<String>,
    /// The principal.
    pub author: String,
    pub comment: String,
    pub created_at: Wall,
    pub cancelled_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for Downtime {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let wall = |column: &str| -> sqlx::Result<Wall> { Ok(Wall::from_millis(row.try_get(column)?)) };
        let duration: Option<i64> = row.try_get("duration_ms")?;
        Ok(Downtime {
            plan: wire::Downtime {
                id: Id::from_i64(row.try_get("id")?),
                scope: Scope { hosts: hosts(row)?, service: row.try_get("service")? },
                start: wall("start_at")?,
                end: wall("end_at")?,
                duration: duration.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            },
            host_name: row.try_get("host_name")?,
            author: row.try_get("author")?,
            comment: row.try_get("comment")?,
            created_at: wall("created_at")?,
            cancelled_at: row.try_get::<Option<i64>, _>("cancelled_at")?.map(Wall::from_millis),
        })
    }
}

fn hosts(row: &SqliteRow) -> sqlx::Result<HostScope> {
    let host: Option<i64> = row.try_get("host")?;
    let labels: Option<Json<BTreeMap<String, String>>> = row.try_get("labels")?;
    Ok(match (host, labels) {
        (Some(host), _) => HostScope::One(Id::from_i64(host)),
        (None, labels) => HostScope::Labels(labels.map(|l| l.0).unwrap_or_default()),
    })
}

macro_rules! select {
    ($rest:literal) => {
        concat!("select d.*, h.name as host_name from downtimes d left join hosts h on h.id = d.host ", $rest)
    };
}

/// # Errors
/// When the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, downtime: &Downtime) -> sqlx::Result<()> {
    let plan = &downtime.plan;
    let (host, labels) = match &plan.scope.hosts {
        HostScope::One(host) => (Some(host.as_i64()), None),
        HostScope::Labels(labels) => (None, Some(Json(labels))),
    };
    sqlx::query(
        "insert into downtimes (id, host, labels, service, start_at, end_at, duration_ms, author, comment,
                                created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(plan.id.as_i64())
    .bind(host)
    .bind(labels)
    .bind(plan.scope.service.as_deref())
    .bind(plan.start.as_millis())
    .bind(plan.end.as_millis())
    .bind(plan.duration.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    .bind(&downtime.author)
    .bind(&downtime.comment)
    .bind(downtime.created_at.as_millis())
    .execute(tx)
    .await
    .map(drop)
}

/// `false`: it was cancelled before.
///
/// # Errors
/// When the database cannot be written.
pub async fn cancel(tx: &mut SqliteConnection, id: Id, by: &str, at: Wall) -> sqlx::Result<bool> {
    let sql =
        "update downtimes set cancelled_at = $2, cancelled_by = $3 where id = $1 and cancelled_at is null";
    let done = sqlx::query(sql).bind(id.as_i64()).bind(at.as_millis()).bind(by).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// # Errors
/// When the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, id: Id) -> sqlx::Result<Option<Downtime>> {
    sqlx::query_as(select!("where d.id = $1")).bind(id.as_i64()).fetch_optional(conn).await
}

/// Those that may still have an effect at `now`, by id.
///
/// # Errors
/// When the database cannot be read.
pub async fn open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Downtime>> {
    let sql =
        select!("where d.cancelled_at is null and d.end_at + coalesce(d.duration_ms, 0) > $1 order by d.id");
    sqlx::query_as(sql).bind(now.as_millis()).fetch_all(conn).await
}

/// How many may still have an effect.
///
/// # Errors
/// When the database cannot be read.
pub async fn count_open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<i64> {
    let sql = "select count(*) from downtimes
               where cancelled_at is null and end_at + coalesce(duration_ms, 0) > $1";
    sqlx::query_scalar(sql).bind(now.as_millis()).fetch_one(conn).await
}

/// The newest first, below an id; `all`: also those that are over.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    all: bool,
    now: Wall,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Downtime>> {
    let sql = select!(
        "where d.id < $1 and ($2 or d.cancelled_at is null and d.end_at + coalesce(d.duration_ms, 0) > $3)
         order by d.id desc limit $4"
    );
    sqlx::query_as(sql).bind(before).bind(all).bind(now.as_millis()).bind(limit).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn a_plan_is_kept_until_it_is_over_or_cancelled() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let at = Wall::from_millis;
        let made = |id, hosts, name: Option<&str>, end, duration| Downtime {
            plan: wire::Downtime {
                id: Id::from_i64(id),
                scope: Scope { hosts, service: Some("disk".into()) },
                start: at(10),
                end: at(end),
                duration,
            },
            host_name: name.map(str::to_owned),
            author: "user:jo".into(),
            comment: "new disk".into(),
            created_at: at(1),
            cancelled_at: None,
        };
        let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        let one = made(1, HostScope::One(host), Some("cam-07"), 20, Some(Duration::from_millis(30)));
        let many = made(2, HostScope::Labels(labels), None, 20, None);
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &one).await.unwrap();
        insert(&mut tx, &many).await.unwrap();
        assert_eq!(open(&mut tx, at(19)).await.unwrap(), [one.clone(), many.clone()]);
        assert_eq!(open(&mut tx, at(20)).await.unwrap().len(), 1);
        assert_eq!(list(&mut tx, true, at(99), i64::MAX, 9).await.unwrap(), [many, one]);
        assert!(cancel(&mut tx, Id::from_i64(1), "user:jo", at(15)).await.unwrap());
        assert!(!cancel(&mut tx, Id::from_i64(1), "user:jo", at(16)).await.unwrap());
        assert_eq!(count_open(&mut tx, at(20)).await.unwrap(), 0);
        assert_eq!(find(&mut tx, Id::from_i64(1)).await.unwrap().unwrap().cancelled_at, Some(at(15)));
    }
}
