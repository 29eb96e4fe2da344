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
    /// The device is prepared for a rental, on its way, or in the maintenance of its rental.
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
mod tests;
