//! Downtimes as operators planned them. Ended and cancelled ones are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages;
use fleetgate_engine::messages::{HostScope, Scope, When};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::lists::{Entry, ListRow, readable};
use super::managed::{Managed, Writer};
use super::recurrence::{self, Text};

/// The end of an endless downtime, beyond the range of any calendar.
const FOREVER: Wall = Wall::from_millis(253_402_207_200_000);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downtime {
    pub plan: messages::Downtime,
    /// The name of the host, if the downtime is for one host.
    pub host_name: Option<String>,
    /// The name in the file of its manager.
    pub name: Option<String>,
    pub managed: Managed,
    /// The principal.
    pub author: String,
    pub comment: String,
    pub created_at: Wall,
    pub cancelled_at: Option<Wall>,
    /// For a flexible downtime: when a failure began it first.
    pub begun_at: Option<Wall>,
    /// Counts the changes of people and programs.
    pub version: i64,
}

impl FromRow<'_, SqliteRow> for Downtime {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let wall = |column: &str| -> sqlx::Result<Wall> { Ok(Wall::from_millis(row.try_get(column)?)) };
        let scope = Scope { hosts: hosts(row)?, service: row.try_get("service")? };
        Ok(Downtime {
            plan: messages::Downtime { id: Id::from_i64(row.try_get("id")?), scope, when: when(row)? },
            host_name: row.try_get("host_name")?,
            name: row.try_get("name")?,
            managed: Managed::from_row(row)?,
            author: row.try_get("author")?,
            comment: row.try_get("comment")?,
            created_at: wall("created_at")?,
            cancelled_at: row.try_get::<Option<i64>, _>("cancelled_at")?.map(Wall::from_millis),
            begun_at: row.try_get::<Option<i64>, _>("begun_at")?.map(Wall::from_millis),
            version: row.try_get("version")?,
        })
    }
}

impl ListRow for Downtime {
    const TABLE: &'static str = "downtimes";
}

fn when(row: &SqliteRow) -> sqlx::Result<When> {
    let text: Option<Json<Text>> = row.try_get("recurrence")?;
    if let Some(text) = text {
        let damaged = |e| sqlx::Error::Decode(Box::new(e));
        return recurrence::parse(&text.0).map(When::Repeated).map_err(damaged);
    }
    let wall = |column: &str| -> sqlx::Result<Wall> { Ok(Wall::from_millis(row.try_get(column)?)) };
    let duration: Option<i64> = row.try_get("duration_ms")?;
    Ok(When::Once {
        start: wall("start_at")?,
        end: wall("end_at")?,
        duration: duration.map(|ms| Duration::from_millis(ms.unsigned_abs())),
    })
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
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, downtime: &Downtime) -> sqlx::Result<()> {
    let plan = &downtime.plan;
    let (host, labels) = match &plan.scope.hosts {
        HostScope::One(host) => (Some(host.as_i64()), None),
        HostScope::Labels(labels) => (None, Some(Json(labels))),
    };
    let (start, end, duration, text) = columns(downtime);
    sqlx::query(
        "insert into downtimes (id, host, labels, service, start_at, end_at, duration_ms, author, comment,
                                created_at, recurrence, name, managed_by, edited_by, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(plan.id.as_i64())
    .bind(host)
    .bind(labels)
    .bind(plan.scope.service.as_deref())
    .bind(start.as_millis())
    .bind(end.as_millis())
    .bind(duration.map(millis))
    .bind(&downtime.author)
    .bind(&downtime.comment)
    .bind(downtime.created_at.as_millis())
    .bind(text)
    .bind(downtime.name.as_deref())
    .bind(&downtime.managed.by)
    .bind(downtime.managed.edited_by.as_deref())
    .bind(downtime.version)
    .execute(tx)
    .await
    .map(drop)
}

/// Start, end, duration and recurrence.
fn columns(downtime: &Downtime) -> (Wall, Wall, Option<Duration>, Option<Json<Text>>) {
    match &downtime.plan.when {
        When::Once { start, end, duration } => (*start, *end, *duration, None),
        When::Repeated(of) => {
            let first = of.next(downtime.created_at).map_or(downtime.created_at, |span| span.start);
            (first, of.over_at().unwrap_or(FOREVER), None, Some(Json(recurrence::text(of))))
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// When it is, its comment, and who wrote it; the version counts up.
///
/// # Errors
/// When the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, downtime: &Downtime) -> sqlx::Result<()> {
    let (start, end, duration, text) = columns(downtime);
    sqlx::query(
        "update downtimes set start_at = $2, end_at = $3, duration_ms = $4, recurrence = $5, comment = $6,
             managed_by = $7, edited_by = $8, version = version + 1 where id = $1",
    )
    .bind(downtime.plan.id.as_i64())
    .bind(start.as_millis())
    .bind(end.as_millis())
    .bind(duration.map(millis))
    .bind(text)
    .bind(&downtime.comment)
    .bind(&downtime.managed.by)
    .bind(downtime.managed.edited_by.as_deref())
    .execute(tx)
    .await
    .map(drop)
}

/// A failure began this flexible downtime then. The first one counts.
///
/// # Errors
/// When the database cannot be written.
pub async fn begun(tx: &mut SqliteConnection, id: Id, at: Wall) -> sqlx::Result<()> {
    let sql = "update downtimes set begun_at = $2 where id = $1 and begun_at is null";
    sqlx::query(sql).bind(id.as_i64()).bind(at.as_millis()).execute(tx).await.map(drop)
}

/// `false`: it was cancelled before.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn cancel(tx: &mut SqliteConnection, id: Id, writer: Writer<'_>, at: Wall) -> sqlx::Result<bool> {
    let Some(found) = find(&mut *tx, id).await? else { return Ok(false) };
    let managed = found.managed.written(writer);
    let sql = "update downtimes set cancelled_at = $2, cancelled_by = $3, managed_by = $4, edited_by = $5,
                   version = version + 1
               where id = $1 and cancelled_at is null";
    let done = sqlx::query(sql)
        .bind(id.as_i64())
        .bind(at.as_millis())
        .bind(writer.principal)
        .bind(&managed.by)
        .bind(managed.edited_by.as_deref())
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, id: Id) -> sqlx::Result<Option<Downtime>> {
    sqlx::query_as(select!("where d.id = $1")).bind(id.as_i64()).fetch_optional(conn).await
}

/// Returns the downtimes that may still have an effect at `now`, in id order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Downtime>> {
    let sql =
        select!("where d.cancelled_at is null and d.end_at + coalesce(d.duration_ms, 0) > $1 order by d.id");
    let entries: Vec<Entry<Downtime>> = sqlx::query_as(sql).bind(now.as_millis()).fetch_all(conn).await?;
    Ok(readable(entries))
}

/// Counts the downtimes that may still have an effect: those by labels, or those of single hosts.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn count_open(conn: &mut SqliteConnection, by_labels: bool, now: Wall) -> sqlx::Result<i64> {
    let sql = "select count(*) from downtimes
               where cancelled_at is null and end_at + coalesce(duration_ms, 0) > $1
                     and (host is null) = $2";
    sqlx::query_scalar(sql).bind(now.as_millis()).bind(by_labels).fetch_one(conn).await
}

/// Selects downtimes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Includes ended and cancelled ones.
    pub all: bool,
    pub manager: Option<&'a str>,
    /// Those that are for this host, by its name or its labels.
    pub host: Option<HostId>,
    /// Those that last beyond this time.
    pub from: Option<Wall>,
    /// Those that begin before this time.
    pub to: Option<Wall>,
}

/// Returns the newest downtimes first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    wanted: Filter<'_>,
    now: Wall,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<Downtime>>> {
    // Labels that are no JSON would fail the statement. The row is then one that cannot be read.
    let sql = select!(
        "where d.id < $1 and ($2 or d.cancelled_at is null and d.end_at + coalesce(d.duration_ms, 0) > $3)
               and ($5 is null or d.managed_by = $5)
               and ($6 is null or d.host = $6 or d.host is null and not exists (
                   select 1 from json_each(iif(json_valid(d.labels), d.labels, '{}')) wanted where not exists (
                       select 1 from hosts own, json_each(own.labels) has
                       where own.id = $6 and has.key = wanted.key and has.value = wanted.value)))
               and ($7 is null or coalesce(d.cancelled_at, d.end_at + coalesce(d.duration_ms, 0)) > $7)
               and ($8 is null or d.start_at < $8)
         order by d.id desc limit $4"
    );
    let query = sqlx::query_as(sql).bind(before).bind(wanted.all).bind(now.as_millis()).bind(limit);
    let query = query.bind(wanted.manager).bind(wanted.host.map(Id::as_i64));
    query.bind(wanted.from.map(Wall::as_millis)).bind(wanted.to.map(Wall::as_millis)).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use fleetgate_keys::SealKey;

    use super::*;
    use crate::store::lists::readable;
    use crate::store::managed::BY_HAND;
    use crate::store::{Store, fixture};

    #[tokio::test]
    async fn a_downtime_is_open_until_it_is_over_or_cancelled() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let at = Wall::from_millis;
        let made = |id, hosts, name: Option<&str>, end, duration| Downtime {
            plan: messages::Downtime {
                id: Id::from_i64(id),
                scope: Scope { hosts, service: Some("disk".into()) },
                when: When::Once { start: at(10), end: at(end), duration },
            },
            host_name: name.map(str::to_owned),
            name: None,
            managed: Managed { by: BY_HAND.into(), edited_by: None },
            author: "user:jo".into(),
            comment: "new disk".into(),
            created_at: at(1),
            cancelled_at: None,
            begun_at: None,
            version: 1,
        };
        let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        let one = made(1, HostScope::One(host), Some("cam-07"), 20, Some(Duration::from_millis(30)));
        let many = made(2, HostScope::Labels(labels), None, 20, None);
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &one).await.unwrap();
        insert(&mut tx, &many).await.unwrap();
        let all = Filter { all: true, ..Filter::default() };
        assert_eq!(open(&mut tx, at(19)).await.unwrap(), [one.clone(), many.clone()]);
        assert_eq!(open(&mut tx, at(20)).await.unwrap().len(), 1);
        assert_eq!(count_open(&mut tx, true, at(19)).await.unwrap(), 1);
        assert_eq!(count_open(&mut tx, true, at(20)).await.unwrap(), 0);
        assert_eq!(count_open(&mut tx, false, at(20)).await.unwrap(), 1);
        assert_eq!(readable(list(&mut tx, all, at(99), i64::MAX, 9).await.unwrap()), [many, one]);
        let jo = Writer { manager: BY_HAND, principal: "user:jo" };
        assert!(cancel(&mut tx, Id::from_i64(1), jo, at(15)).await.unwrap());
        assert!(!cancel(&mut tx, Id::from_i64(1), jo, at(16)).await.unwrap());
        assert_eq!(count_open(&mut tx, false, at(20)).await.unwrap(), 0);
        assert_eq!(find(&mut tx, Id::from_i64(1)).await.unwrap().unwrap().cancelled_at, Some(at(15)));
        // The first is cancelled at 15, the second ends at 20; both begin at 10.
        for (from, to, expected) in
            [(Some(0), Some(10), 0), (Some(14), Some(11), 2), (Some(15), None, 1), (Some(20), None, 0)]
        {
            let wanted = Filter { from: from.map(at), to: to.map(at), ..all };
            let found = readable(list(&mut tx, wanted, at(99), i64::MAX, 9).await.unwrap());
            assert_eq!(found.len(), expected, "{from:?} to {to:?}");
        }
    }

    #[tokio::test]
    async fn a_recurring_downtime_is_open_until_its_last_window() {
        let (store, _dir) = fixture::store().await;
        let of = |last_date: Option<&str>| {
            let text = Text {
                every: "sun".into(),
                from: "02:00".into(),
                to: "04:00".into(),
                time_zone: "UTC".into(),
                first_date: None,
                last_date: last_date.map(str::to_owned),
            };
            When::Repeated(recurrence::parse(&text).unwrap())
        };
        let made = |id, when| Downtime {
            plan: messages::Downtime {
                id: Id::from_i64(id),
                scope: Scope { hosts: HostScope::Labels(BTreeMap::new()), service: None },
                when,
            },
            host_name: None,
            name: Some("patches".into()),
            managed: Managed { by: "apply".into(), edited_by: None },
            author: "token:t_1".into(),
            comment: String::new(),
            created_at: Wall::default(),
            cancelled_at: None,
            begun_at: None,
            version: 1,
        };
        // 1970-01-04 is a Sunday.
        let (endless, ending) = (made(1, of(None)), made(2, of(Some("1970-01-04"))));
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &endless).await.unwrap();
        insert(&mut tx, &ending).await.unwrap();
        let end = Wall::from_millis((3 * 24 + 4) * 3_600_000);
        assert_eq!(open(&mut tx, end - Duration::from_millis(1)).await.unwrap(), [endless.clone(), ending]);
        assert_eq!(open(&mut tx, end).await.unwrap(), [endless]);
        let ann = Writer { manager: BY_HAND, principal: "user:ann" };
        cancel(&mut tx, Id::from_i64(1), ann, end).await.unwrap();
        let apply = Filter { all: true, manager: Some("apply"), ..Filter::default() };
        let found = readable(list(&mut tx, apply, end, i64::MAX, 9).await.unwrap());
        assert_eq!(found[1].managed.edited_by.as_deref(), Some("user:ann"));
    }

    #[tokio::test]
    async fn api_words_renames_stored_words_and_fills_in_begun_at() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("api_words")).await;
        let rows = [
            "insert into events (at, kind, object, cause, data, principal) values
                 (1, 'notification_held', 'host', '', '{\"reason\":\"never_told\"}', 'system'),
                 (2, 'notification_held', 'host', '', '{\"reason\":\"already_told\"}', 'system'),
                 (3, 'acknowledgement.ended', 'host', '', '{\"why\":\"well\"}', 'system'),
                 (4, 'message.sent', 'message', '', '{\"message\":33}', 'system')",
            "insert into outbox (contact, contact_name, channel, address, kind, created_at, next_attempt)
             values (0, 'default', 'email', 'ops@example.org', 'notices', 0, 0)",
            "insert into hosts (id, name, profile, created_at) values (7, 'cam-07', '', 0)",
            "insert into downtimes (id, host, start_at, end_at, duration_ms, author, comment, created_at)
             values (2, 7, 0, 9, 1000, 'user:bob', '', 0), (3, 7, 0, 9, 1000, 'user:bob', '', 0)",
            "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since,
                                      source, output, voice)
             values (7, 'up', 'hard', 1, 'up', 1, 0, 0, 0, '', '', '{\"begun\":[[2,5000]]}')",
        ];
        fixture::run_on(&dir.path().join(crate::store::files::MAIN_FILE), &rows).await;
        let store = Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.unwrap();
        let mut conn = store.reader().await.unwrap();
        let words: Vec<(String, String)> = sqlx::query_as(
            "select kind, coalesce(data ->> '$.reason', data ->> '$.why', data ->> '$.message') from events order by at",
        )
        .fetch_all(&mut *conn)
        .await
        .unwrap();
        let words: Vec<(&str, &str)> =
            words.iter().map(|(kind, why)| (kind.as_str(), why.as_str())).collect();
        let suppressed = "notification.suppressed";
        let expected = [
            (suppressed, "never_notified"),
            (suppressed, "already_notified"),
            ("acknowledgement.ended", "recovered"),
            ("message.sent", "m_0000000000011"),
        ];
        assert_eq!(words, expected);
        let kind: String = sqlx::query_scalar("select kind from outbox").fetch_one(&mut *conn).await.unwrap();
        assert_eq!(kind, "notifications");
        let begun = find(&mut conn, Id::from_i64(2)).await.unwrap().unwrap().begun_at;
        assert_eq!(begun, Some(Wall::from_millis(4_000)));
        assert_eq!(find(&mut conn, Id::from_i64(3)).await.unwrap().unwrap().begun_at, None);
    }
}
