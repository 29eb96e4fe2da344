//! Hard states, downtimes, reachability and the outages of the gateway, as intervals.
//!
//! A change ends the open interval of its series and begins another one in the transaction of the
//! change. Only the newest interval of a series is open. This module decides neither which changes
//! there are nor what follows from them; `fleetgate_engine::availability` computes that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::GATEWAY;
use fleetgate_engine::time::Wall;
use futures_util::TryStreamExt as _;
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::Store;
use super::rows::{Arguments, Batched, WIDE};
use super::settings::ClockFloor;

/// The subject of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// The hard state of a host or a service.
    State,
    /// A downtime that names the host or the service itself.
    Downtime,
    /// The device is prepared for a rental, or on its way.
    Rental,
    /// All parents of a host are down.
    Unreachable,
    GatewayStopped,
    UplinkLost,
}

impl Series {
    pub const ALL: [Series; 6] = [
        Series::State,
        Series::Downtime,
        Series::Rental,
        Series::Unreachable,
        Series::GatewayStopped,
        Series::UplinkLost,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Series::State => "state",
            Series::Downtime => "downtime",
            Series::Rental => "rental",
            Series::Unreachable => "unreachable",
            Series::GatewayStopped => "gateway_stopped",
            Series::UplinkLost => "uplink_lost",
        }
    }
}

/// A change of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    pub host: HostId,
    /// Empty for the host itself.
    pub service: &'a str,
    pub series: Series,
    pub at: Wall,
    /// The first failure of the problem that begins, which takes the place of `at`. A clock that was
    /// behind at that failure does not count: the interval before began later.
    pub since: Option<Wall>,
    /// The value that begins: the state, and an empty text for other series. `None`: nothing.
    pub begins: Option<&'static str>,
    /// When the result that began it was measured, if it was sent later.
    pub measured_at: Option<Wall>,
}

/// Builds a statement with the values of changes as the table `v`. Its time is that of the first
/// failure, unless the newest interval began later.
fn batched(rest: &'static str) -> Batched {
    Batched::new(WIDE, 7, move |values| {
        format!(
            "with u (host, service, series, at, since, value, measured_at) as (values {values}),
                  v (host, service, series, at, value, measured_at) as
                 (select u.host, u.service, u.series,
                         iif(u.since > coalesce((select max(n.began_at) from intervals n
                                                 where n.host = u.host and n.service = u.service
                                                       and n.series = u.series), u.since - 1),
                             u.since, u.at), u.value, u.measured_at from u)
             {rest}"
        )
    })
}

/// A clock that was set back has left intervals that begin later.
static REMOVE_LATER: LazyLock<Batched> = LazyLock::new(|| {
    batched(
        "delete from intervals where id in
             (select i.id from v join intervals i on i.host = v.host and i.service = v.service
                     and i.series = v.series and i.began_at >= v.at)",
    )
});

/// The last interval is the only one that can last.
static END: LazyLock<Batched> = LazyLock::new(|| {
    batched(
        "update intervals set ended_at = v.at from v
         where intervals.id = (select i.id from intervals i where i.host = v.host and i.service = v.service
                                      and i.series = v.series order by i.began_at desc limit 1)
               and (intervals.ended_at is null or intervals.ended_at > v.at)",
    )
});

/// A late result begins nothing for a removed host or service.
static BEGIN: LazyLock<Batched> = LazyLock::new(|| {
    batched(
        "insert into intervals (host, service, series, value, began_at, measured_at)
         select v.host, v.service, v.series, v.value, v.at, v.measured_at from v
         where v.host = 0
               or v.service = '' and exists (select 1 from host_states s where s.host = v.host)
               or exists (select 1 from service_states s where s.host = v.host and s.service = v.service)",
    )
});

fn bind(change: &Change<'_>, a: &mut Arguments) {
    a.add(change.host.as_i64())
        .add(change.service.to_owned())
        .add(change.series.name())
        .add(change.at.as_millis())
        .add(change.since.map(Wall::as_millis))
        .add(change.begins.unwrap_or_default())
        .add(change.measured_at.map(Wall::as_millis));
}

/// Writes changes in their order.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn write(conn: &mut SqliteConnection, changes: &[Change<'_>]) -> sqlx::Result<()> {
    for round in rounds(changes) {
        REMOVE_LATER.run(conn, &round, bind).await?;
        END.run(conn, &round, bind).await?;
        let begun: Vec<Change<'_>> = round.into_iter().filter(|change| change.begins.is_some()).collect();
        BEGIN.run(conn, &begun, bind).await?;
    }
    Ok(())
}

/// Divides changes into rounds with one change of each series at most. There is one round, unless a
/// series changed several times since the last commit.
fn rounds<'a>(changes: &[Change<'a>]) -> Vec<Vec<Change<'a>>> {
    let mut rounds: Vec<Vec<Change<'a>>> = Vec::new();
    let mut seen: BTreeMap<(HostId, &str, Series), usize> = BTreeMap::new();
    for change in changes {
        let round = seen.entry((change.host, change.service, change.series)).or_default();
        match rounds.get_mut(*round) {
            Some(round) => round.push(*change),
            None => rounds.push(vec![*change]),
        }
        *round += 1;
    }
    rounds
}

/// The end of what is removed. The greatest time that the clock has shown takes the place of a clock
/// that is behind, which would leave nothing of an interval of years.
macro_rules! end_at {
    ($now:literal) => {
        concat!(
            "max(began_at, ",
            $now,
            ", coalesce((select cast(value as integer) from settings where name = 'clock_floor'), 0))"
        )
    };
}

/// Ends everything of a service that is removed.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn end_of_service(
    conn: &mut SqliteConnection,
    host: HostId,
    service: &str,
    at: Wall,
) -> sqlx::Result<()> {
    let sql = concat!(
        "update intervals set ended_at = ",
        end_at!("$3"),
        " where host = $1 and service = $2 and ended_at is null"
    );
    sqlx::query(sql).bind(host.as_i64()).bind(service).bind(at.as_millis()).execute(conn).await.map(drop)
}

/// Ends everything of a host that is removed, and of its services.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn end_of_host(conn: &mut SqliteConnection, host: HostId, at: Wall) -> sqlx::Result<()> {
    let sql =
        concat!("update intervals set ended_at = ", end_at!("$2"), " where host = $1 and ended_at is null");
    sqlx::query(sql).bind(host.as_i64()).bind(at.as_millis()).execute(conn).await.map(drop)
}

/// Ends everything of hosts that are removed and still have states: the gateway ended between the two.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn end_of_removed(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let sql = "update intervals
               set ended_at = max(began_at, (select h.removed_at from hosts h where h.id = intervals.host))
               where ended_at is null
                     and host in (select s.host from host_states s join hosts h on h.id = s.host
                                  where h.removed_at is not null)";
    sqlx::query(sql).execute(conn).await.map(drop)
}

/// Records that the gateway did not run. Starts that follow each other before the time is kept have the
/// same begin, and the last one covers the others.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn add_stop(conn: &mut SqliteConnection, from: Wall, until: Wall) -> sqlx::Result<()> {
    let covered = "delete from intervals where host = $1 and service = '' and series = $2
                                               and began_at >= $3 and ended_at <= $4";
    sqlx::query(covered)
        .bind(GATEWAY.as_i64())
        .bind(Series::GatewayStopped.name())
        .bind(from.as_millis())
        .bind(until.as_millis())
        .execute(&mut *conn)
        .await?;
    let sql = "insert into intervals (host, service, series, value, began_at, ended_at)
               values ($1, '', $2, '', $3, $4)";
    sqlx::query(sql)
        .bind(GATEWAY.as_i64())
        .bind(Series::GatewayStopped.name())
        .bind(from.as_millis())
        .bind(until.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Adds what held before everything that is stored of its series. If the stored begins with the same value at the
/// same time, it lasts longer.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn add_past(conn: &mut SqliteConnection, past: &Interval<'_>) -> sqlx::Result<()> {
    let lengthen = "update intervals set began_at = $1
                    where id = (select id from intervals where host = $2 and service = $3 and series = $4
                                order by began_at limit 1)
                          and value = $5 and began_at = $6";
    let lengthened = sqlx::query(lengthen)
        .bind(past.from.as_millis())
        .bind(past.host.as_i64())
        .bind(past.service)
        .bind(past.series.name())
        .bind(past.value)
        .bind(past.until.map(Wall::as_millis))
        .execute(&mut *conn)
        .await?;
    if lengthened.rows_affected() > 0 {
        return Ok(());
    }
    let sql = "insert into intervals (host, service, series, value, began_at, ended_at)
               values ($1, $2, $3, $4, $5, $6)";
    sqlx::query(sql)
        .bind(past.host.as_i64())
        .bind(past.service)
        .bind(past.series.name())
        .bind(past.value)
        .bind(past.from.as_millis())
        .bind(past.until.map(Wall::as_millis))
        .execute(conn)
        .await
        .map(drop)
}

/// Whether an interval begins or ends after this time: a clock was ahead. Reads the whole table.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn has_future(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<bool> {
    let sql = "select exists (select 1 from intervals where began_at > $1 or ended_at > $1)";
    sqlx::query_scalar(sql).bind(now.as_millis()).fetch_one(conn).await
}

/// Ends at this time what ends later, and begins then what lasts and begins later. Otherwise a stop
/// that a clock ahead has recorded would hide the states until then.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn remove_future(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    for sql in [
        "delete from intervals where began_at > $1 and ended_at is not null",
        "update intervals set ended_at = $1 where ended_at > $1",
        "update intervals set began_at = $1 where began_at > $1",
    ] {
        sqlx::query(sql).bind(now.as_millis()).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Returns the last time at which the gateway is known to have run: the greatest time that the clock
/// has shown. In its first minutes there is none, and the last change takes its place. A damaged time
/// says nothing.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn ran_until(conn: &mut SqliteConnection, floor: ClockFloor) -> sqlx::Result<Option<Wall>> {
    match floor {
        ClockFloor::At(floor) => return Ok(Some(floor)),
        ClockFloor::Unreadable => return Ok(None),
        ClockFloor::None => {}
    }
    let newest: Option<i64> =
        sqlx::query_scalar("select max(began_at) from intervals").fetch_one(conn).await?;
    Ok(newest.map(Wall::from_millis))
}

/// An interval as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<'a> {
    pub host: HostId,
    /// Empty for the host itself.
    pub service: &'a str,
    pub series: Series,
    pub value: &'a str,
    pub from: Wall,
    /// `None`: it lasts.
    pub until: Option<Wall>,
}

/// The services of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services<'a> {
    None,
    One(&'a str),
    All,
}

/// One row for each series: a row of the result costs more than the interval in the index. The index has
/// the order of the groups, so that nothing is sorted. A condition on the service that is no `or` lets it
/// find hosts without their services.
macro_rules! select_intervals {
    ($service:literal) => {
        concat!(
            "select host, service, series, json_group_array(value), json_group_array(began_at),
                    json_group_array(ended_at)
             from intervals where host in (select value from json_each($1)) and ",
            $service,
            " and began_at < $3 and (ended_at is null or ended_at > $2)
             group by host, service, series order by host, service, series"
        )
    };
}

const OF_HOSTS: &str = select_intervals!("service = ''");
const OF_ONE_SERVICE: &str = select_intervals!("service in ('', $4)");
const OF_ALL_SERVICES: &str = select_intervals!("true");

impl Store {
    /// Passes the intervals of these hosts that touch a time to `each`: host by host, a host before
    /// its services, each series in the order of time.
    ///
    /// # Errors
    /// Fails when the database cannot be read or a row is invalid.
    pub async fn intervals(
        &self,
        hosts: &[HostId],
        services: Services<'_>,
        (from, until): (Wall, Wall),
        mut each: impl FnMut(Interval<'_>),
    ) -> sqlx::Result<()> {
        let sql = match services {
            Services::None => OF_HOSTS,
            Services::One(_) => OF_ONE_SERVICE,
            Services::All => OF_ALL_SERVICES,
        };
        let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let mut rows = sqlx::query(sql).bind(Json(ids)).bind(from.as_millis()).bind(until.as_millis());
        if let Services::One(service) = services {
            rows = rows.bind(service);
        }
        let mut rows = rows.fetch(&self.read);
        while let Some(row) = rows.try_next().await? {
            unpack(&row, &mut each)?;
        }
        Ok(())
    }
}

/// A text in a JSON array; no copy of it if it has no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Passes the intervals of one series to `each`, in the order of time.
fn unpack(row: &SqliteRow, each: &mut impl FnMut(Interval<'_>)) -> sqlx::Result<()> {
    let (host, service): (HostId, &str) = (Id::from_i64(row.try_get(0)?), row.try_get(1)?);
    let name: &str = row.try_get(2)?;
    let series = Series::ALL.into_iter().find(|series| series.name() == name);
    let unknown = || sqlx::Error::Decode(format!("{name:?} is no series of intervals").into());
    let series = series.ok_or_else(unknown)?;
    let (values, begins, ends): (Vec<Text<'_>>, Vec<i64>, Vec<Option<i64>>) =
        (array(row, 3)?, array(row, 4)?, array(row, 5)?);
    let mut all: Vec<_> = begins.into_iter().zip(ends).zip(values).collect();
    // The database promises no order within a group.
    all.sort_by_key(|((from, _), _)| *from);
    for ((from, until), Text(value)) in &all {
        let (from, until) = (Wall::from_millis(*from), until.map(Wall::from_millis));
        each(Interval { host, service, series, value, from, until });
    }
    Ok(())
}

fn array<'r, T: Deserialize<'r>>(row: &'r SqliteRow, column: usize) -> sqlx::Result<Vec<T>> {
    let text: &'r str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::fixture;

    const HOST: HostId = Id::from_i64(7);

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    fn change(service: &'static str, seconds: i64, begins: Option<&'static str>) -> Change<'static> {
        let (host, series, at) = (HOST, Series::State, at(seconds));
        Change { host, service, series, at, since: None, begins, measured_at: None }
    }

    async fn scene() -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        (store, dir)
    }

    async fn put(store: &Store, changes: &[Change<'_>]) {
        let mut tx = store.begin().await.unwrap();
        write(&mut tx, changes).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Returns the stored intervals as text, with times in seconds.
    async fn stored(store: &Store, services: Services<'_>, from: i64, until: i64) -> Vec<String> {
        let mut found = Vec::new();
        let seconds = |at: Wall| (at.as_millis() / 1_000).to_string();
        let push = |of: Interval<'_>| {
            let end = of.until.map_or("...".to_owned(), seconds);
            found.push(format!("{}:{} {}-{end}", of.service, of.value, seconds(of.from)));
        };
        store.intervals(&[HOST], services, (at(from), at(until)), push).await.unwrap();
        found
    }

    #[tokio::test]
    async fn a_change_ends_the_interval_before_it_and_begins_another() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 10, Some("up")), change("ping", 12, Some("ok"))]).await;
        put(&store, &[change("", 20, Some("down"))]).await;
        let all = [":up 10-20", ":down 20-...", "ping:ok 12-..."];
        assert_eq!(stored(&store, Services::All, 0, 99).await, all);
        assert_eq!(stored(&store, Services::None, 0, 99).await, all[..2]);
        assert_eq!(stored(&store, Services::One("ping"), 20, 99).await, all[1..]);
        assert_eq!(stored(&store, Services::One("disk"), 0, 20).await, all[..1], "the end is not included");
    }

    #[tokio::test]
    async fn a_report_reads_the_index_alone_in_its_order() {
        let (store, _dir) = scene().await;
        let mut conn = store.reader().await.unwrap();
        for sql in [OF_HOSTS, OF_ONE_SERVICE, OF_ALL_SERVICES] {
            let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
            let query = sqlx::query_as(sql).bind("[7]").bind(0).bind(9).bind("ping");
            let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
            let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
            assert!(plan.contains("COVERING INDEX intervals_object (host=?"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN intervals"), "{plan}");
        }
    }

    #[tokio::test]
    async fn a_value_that_needs_an_escape_is_read_as_it_is() {
        let (store, _dir) = scene().await;
        let sql = "insert into intervals (host, service, series, value, began_at) values (7, '', 'state', $1, 5000)";
        fixture::run(&store, sql, &["u\"p,\n"]).await;
        assert_eq!(stored(&store, Services::None, 0, 99).await, [":u\"p,\n 5-..."]);
    }

    #[tokio::test]
    async fn several_changes_of_one_commit_are_all_kept() {
        let (store, _dir) = scene().await;
        let changes = [("up", 10), ("down", 20), ("up", 30)].map(|(to, at)| change("", at, Some(to)));
        put(&store, &changes).await;
        assert_eq!(stored(&store, Services::None, 0, 99).await, [":up 10-20", ":down 20-30", ":up 30-..."]);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_leaves_one_interval_for_each_moment() {
        let (store, _dir) = scene().await;
        let ahead = [("up", 10), ("down", 500), ("up", 600)].map(|(to, at)| change("", at, Some(to)));
        put(&store, &ahead).await;
        put(&store, &[change("", 50, Some("down"))]).await;
        assert_eq!(stored(&store, Services::None, 0, 999).await, [":up 10-50", ":down 50-..."]);
    }

    #[tokio::test]
    async fn a_problem_begins_with_its_first_failure_unless_the_clock_was_behind_then() {
        let (store, _dir) = scene().await;
        let down = |turned, failed| Change { since: Some(at(failed)), ..change("", turned, Some("down")) };
        put(&store, &[change("", 100, Some("up"))]).await;
        put(&store, &[down(210, 200)]).await;
        put(&store, &[change("", 300, Some("up"))]).await;
        put(&store, &[down(400, 5)]).await;
        let all = [":up 100-200", ":down 200-300", ":up 300-400", ":down 400-..."];
        assert_eq!(stored(&store, Services::None, 0, 999).await, all);
    }

    #[tokio::test]
    async fn what_a_clock_that_was_ahead_has_left_ends_now() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
        put(&store, &[change("", 500, Some("down"))]).await;
        put(&store, &[change("", 600, Some("up"))]).await;
        put(&store, &[change("", 700, Some("down"))]).await;
        assert!(has_future(&mut store.reader().await.unwrap(), at(50)).await.unwrap());
        let mut tx = store.begin().await.unwrap();
        remove_future(&mut tx, at(50)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!has_future(&mut store.reader().await.unwrap(), at(50)).await.unwrap());
        let all = [":up 10-50", ":down 50-...", "ping:ok 10-..."];
        assert_eq!(stored(&store, Services::All, 0, 999).await, all);
    }

    #[tokio::test]
    async fn a_stop_takes_the_place_of_those_within_it() {
        let (store, _dir) = scene().await;
        let mut tx = store.begin().await.unwrap();
        for (from, until) in [(10, 15), (20, 30), (22, 25), (20, 40)] {
            add_stop(&mut tx, at(from), at(until)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let sql = "select began_at || ' ' || ended_at from intervals order by began_at";
        assert_eq!(fixture::texts(&store, sql).await, ["10000 15000", "20000 40000"]);
    }

    #[tokio::test]
    async fn a_clock_that_is_behind_leaves_the_time_of_what_is_removed() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 10, Some("up")), change("ping", 12, Some("ok"))]).await;
        fixture::run(&store, "insert into settings (name, value) values ('clock_floor', '90000')", &[]).await;
        let mut tx = store.begin().await.unwrap();
        end_of_service(&mut tx, HOST, "ping", at(1)).await.unwrap();
        end_of_host(&mut tx, HOST, at(95)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-95", "ping:ok 12-90"]);
    }

    #[tokio::test]
    async fn the_past_is_added_backwards_and_joins_what_it_continues() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 90, Some("up"))]).await;
        let mut tx = store.begin().await.unwrap();
        let past = [("", "up", 70, 80), ("", "down", 60, 70), ("", "down", 40, 60), ("ping", "ok", 40, 80)];
        for (service, value, from, until) in past {
            let (from, until) = (at(from), Some(at(until)));
            let past = Interval { host: HOST, service, series: Series::State, value, from, until };
            add_past(&mut tx, &past).await.unwrap();
        }
        tx.commit().await.unwrap();
        let all = stored(&store, Services::All, 0, 99).await;
        assert_eq!(all, [":down 40-70", ":up 70-80", ":up 90-...", "ping:ok 40-80"]);
        put(&store, &[change("", 95, Some("down"))]).await;
        assert_eq!(stored(&store, Services::None, 85, 99).await, [":up 90-95", ":down 95-..."]);
    }

    #[tokio::test]
    async fn what_is_removed_ends_and_begins_nothing_more() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
        let mut tx = store.begin().await.unwrap();
        end_of_service(&mut tx, HOST, "ping", at(15)).await.unwrap();
        tx.commit().await.unwrap();
        fixture::run(&store, "delete from service_states where service = 'ping'", &[]).await;
        put(&store, &[change("ping", 20, Some("critical"))]).await;
        assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-...", "ping:ok 10-15"]);
        let mut tx = store.begin().await.unwrap();
        crate::store::states::forget(&mut tx, HOST, at(30)).await.unwrap();
        tx.commit().await.unwrap();
        put(&store, &[change("", 40, Some("down"))]).await;
        assert_eq!(stored(&store, Services::None, 0, 99).await, [":up 10-30"]);
    }

    #[tokio::test]
    async fn what_was_removed_just_before_the_gateway_ended_ends_at_its_removal() {
        let (store, _dir) = scene().await;
        put(&store, &[change("", 10, Some("up")), change("ping", 10, Some("ok"))]).await;
        fixture::run(&store, "update hosts set removed_at = 30000 where id = 7", &[]).await;
        fixture::run(&store, "update peers set removed_at = 30000 where id = 7", &[]).await;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        assert_eq!(stored(&store, Services::All, 0, 99).await, [":up 10-30", "ping:ok 10-30"]);
    }

    #[tokio::test]
    async fn the_states_present_at_an_upgrade_begin_with_it() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("intervals")).await;
        let rows = [
            "insert into hosts (id, name, profile, created_at) values (7, 'cam-07', '', 0), (8, 'new', '', 0)",
            "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, source,
                                      output, notification)
             values (7, 'down', 'hard', 1, 'down', 0, 0, 0, 0, '', '', '{\"occasion\":[2,5000]}'),
                    (8, 'pending', 'hard', 1, 'pending', 1, 0, 0, 0, '', '', '{}')",
            "insert into service_states (host, service, status, kind, attempt, hard, stale, since, route, output,
                                         long_output, metrics, warnings)
             values (7, 'disk', 'critical', 'soft', 1, 'ok', 0, 0, '', '', '', '[]', '[]'),
                    (8, 'disk', null, 'hard', 1, null, 0, 0, '', '', '', '[]', '[]')",
            "insert into events (at, kind, object, cause, principal) values
                 (1, 'uplink.lost', 'system', '', 'system'), (2, 'uplink.back', 'system', '', 'system'),
                 (3, 'uplink.lost', 'system', '', 'system')",
        ];
        fixture::run_on(&dir.path().join(crate::store::files::MAIN_FILE), &rows).await;
        let before = crate::clock::wall();
        let seal = fleetgate_keys::SealKey::from_bytes([1; 32]);
        let store = Store::open(dir.path(), seal).await.unwrap();
        let sql = "select host || ' ' || service || ' ' || series || ' ' || value from intervals order by 1";
        let begun =
            ["0  uplink_lost ", "7  downtime ", "7  state down", "7  unreachable ", "7 disk state ok"];
        assert_eq!(fixture::texts(&store, sql).await, begun);
        let first = ran_until(&mut store.reader().await.unwrap(), ClockFloor::None).await.unwrap().unwrap();
        assert!(first + Duration::from_secs(2) > before, "{first:?} is the time of the upgrade");
    }

    #[tokio::test]
    async fn an_upgrade_by_a_clock_that_is_behind_begins_at_the_greatest_time_shown() {
        let dir = tempfile::tempdir().unwrap();
        fixture::half_made(dir.path(), fixture::steps_before("intervals")).await;
        let rows = [
            "insert into hosts (id, name, profile, created_at) values (7, 'cam-07', '', 0)",
            "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since, source,
                                      output, notification)
             values (7, 'up', 'hard', 1, 'up', 1, 0, 0, 0, '', '', '{}')",
            "insert into settings (name, value) values ('clock_floor', '9000000000000')",
        ];
        fixture::run_on(&dir.path().join(crate::store::files::MAIN_FILE), &rows).await;
        let seal = fleetgate_keys::SealKey::from_bytes([1; 32]);
        let store = Store::open(dir.path(), seal).await.unwrap();
        let begun = fixture::texts(&store, "select cast(began_at as text) from intervals").await;
        assert_eq!(begun, ["9000000000000"]);
    }
}
