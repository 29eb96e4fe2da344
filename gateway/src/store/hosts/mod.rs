//! Hosts for display: one row with state, tunnel and counts, the counters of all hosts, and the
//! list of problems.
//!
//! Only `host_part!` and `service_part!` decide what counts as a problem and whether it is handled.
//! The counters, the list of problems, the filters and the counts of a row all use them.
//!
//! One statement reads a page of a list, for any number of hosts.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{HostState, IncidentId};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::Store;
use super::lists::{Entry, ListRow};
use super::states::HostRow;

/// A host in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub id: HostId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub profile: String,
    pub route: String,
    /// The inner address, or the address behind `via`.
    pub address: Option<String>,
    /// The pool address of a host behind a device.
    pub alias: Option<String>,
    /// The name of the device it stands behind.
    pub via: Option<String>,
    pub direct_address: Option<String>,
    pub attempts: Option<u32>,
    /// The limit for the traffic of its checks, in bytes per UTC day.
    pub budget: Option<u64>,
    pub version: i64,
    pub created_at: Wall,
    /// The host was removed, and only its history is left.
    pub removed_at: Option<Wall>,
    /// `None` if the host was added this moment.
    pub state: Option<HostState>,
    pub acknowledged: bool,
    /// The incident of the host itself, or else of one of its services.
    pub incident: Option<IncidentId>,
    pub tunnel: Option<Remembered>,
    pub services: ServiceTally,
}

/// The stored state of a host's own tunnel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    pub public_key: String,
    pub endpoint: Option<String>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    pub clock_skew_ms: Option<i64>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// Services by part of the partition. Each service is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTally {
    pub ok: i64,
    pub warning: i64,
    pub critical: i64,
    pub unknown: i64,
    pub pending: i64,
    /// Not current: their state is unknown now.
    pub stale: i64,
    /// Not OK, and acknowledged or in downtime.
    pub handled: i64,
}

impl ServiceTally {
    fn add(&mut self, part: &str) {
        *match part {
            "ok" => &mut self.ok,
            "warning" => &mut self.warning,
            "critical" => &mut self.critical,
            "unknown" => &mut self.unknown,
            "stale" => &mut self.stale,
            "handled" => &mut self.handled,
            _ => &mut self.pending,
        } += 1;
    }

    /// Reads parts separated by blanks.
    fn of_text(text: &str) -> Self {
        let mut tally = ServiceTally::default();
        text.split_ascii_whitespace().for_each(|part| tally.add(part));
        tally
    }
}

/// Whether the problem is acknowledged or in downtime.
macro_rules! handled {
    ($row:literal, $service:literal) => {
        concat!(
            "(coalesce(",
            $row,
            ".notification ->> '$.in_downtime', 0) = 1 or exists (select 1 from acknowledgements k
                where k.host = ",
            $row,
            ".host and k.service = ",
            $service,
            " and k.ended_at is null))"
        )
    };
}

/// The problem of a host `s`, or null if it has none or is still pending. A result that is too old
/// is a problem, because silence is not health. A host that may be silent is exempt.
macro_rules! host_problem {
    () => {
        "case when s.hard = 'down' then iif(s.reachable = 1, 'down', 'unreachable')
              when s.hard = 'up' and s.stale = 1 and s.asleep = 0 then 'stale' end"
    };
}

/// The problem of a service `c`, or null. A stale service has no known state, and its host or its
/// dependency is the problem instead. The same holds while its host is down or unreachable, even if
/// results arrive. Notifications follow the same rule as this list.
macro_rules! service_problem {
    () => {
        "case when c.stale = 0 and c.hard in ('warning', 'critical', 'unknown')
                   and not exists (select 1 from host_states d
                                   where d.host = c.host and (d.hard = 'down' or d.reachable = 0)) then c.hard end"
    };
}

/// The part of the partition that a host `s` is in, as SQL.
macro_rules! host_part {
    () => {
        concat!(
            "case when ",
            host_problem!(),
            " is null then iif(s.hard = 'up', 'up', 'pending')
                  when ",
            handled!("s", "''"),
            " then 'handled' else ",
            host_problem!(),
            " end"
        )
    };
}

/// The part of the partition that a service `c` is in, as SQL.
macro_rules! service_part {
    () => {
        concat!(
            "case when c.hard is null then 'pending' when c.stale = 1 then 'stale' when ",
            service_problem!(),
            " is null then iif(c.hard = 'ok', 'ok', 'stale') when ",
            handled!("c", "c.service"),
            " then 'handled' else c.hard end"
        )
    };
}

/// The columns of the state come first, as [`HostRow`] expects.
macro_rules! select {
    ($long_output:literal, $condition:expr) => {
        concat!(
            "select s.host, s.status, s.kind, s.attempt, s.hard, s.reachable, s.stale, s.asleep, s.since,
                    s.last_check, s.next_check, s.source, s.output, s.notified, s.notification, s.direct,
                    ",
            $long_output,
            ", s.metrics, s.warnings, s.one_way, s.silent_since, s.last_alive, s.asked_at, s.asked, s.strange_key,
                    s.taken, s.hard_since,
                    h.id, h.name, h.labels, h.profile, h.route,
                    coalesce(h.address, (select a.address from addresses a
                                         where a.peer = h.id and a.released_at is null
                                         order by instr(a.address, ':') limit 1)) as shown_address,
                    (select a.address from addresses a
                     where a.host = h.id and a.released_at is null) as alias,
                    v.name as via_name, h.direct_address, h.attempts,
                    h.budget_bytes_per_day, h.version, h.created_at, h.removed_at,
                    k.public_key, m.endpoint, m.last_packet, m.last_handshake, m.clock_skew_ms,
                    coalesce(m.rx_bytes, 0) as rx_bytes, coalesce(m.tx_bytes, 0) as tx_bytes,
                    (select string_agg(",
            service_part!(),
            ", ' ')
                     from service_states c where c.host = h.id) as tally,
                    exists (select 1 from acknowledgements a
                            where a.host = h.id and a.service = '' and a.ended_at is null) as acknowledged,
                    (select m.incident from incident_members m join incidents i on i.id = m.incident
                     where m.host = h.id and m.left_at is null and i.closed_at is null
                     order by m.service <> '', m.incident desc limit 1) as incident
             from hosts h
             left join host_states s on s.host = h.id
             left join hosts v on v.id = h.via
             left join peers p on p.id = h.id and p.removed_at is null
             left join peer_keys k on k.peer = p.id and k.retired_at is null and k.position = 0
             left join peer_memory m on m.peer = p.id
             where ",
            $condition
        )
    };
}

const BY_ID: &str = select!("s.long_output", "h.removed_at is null and h.id = $1");
const EVER_BY_ID: &str = select!("s.long_output", "h.id = $1");
/// `$1`: the ids as JSON. As in lists, without the long output.
const BY_IDS: &str = select!("''", "h.removed_at is null and h.id in (select value from json_each($1))");
const BY_NAME: &str = select!("s.long_output", "h.removed_at is null and h.name = $1");
/// Without the long output, because a page of it could be 30 MB.
const LIST: &str = select!(
    "''",
    concat!(
        "h.removed_at is null and h.name > $1
     and ($2 is null or instr(h.name, lower($2)) > 0 or instr(lower(h.labels), lower($2)) > 0)
     and not exists (select 1 from json_each($3) l where instr(h.labels, l.value) = 0)
     and ($4 is null or ",
        host_part!(),
        " = $4 or ($4 = 'asleep' and s.asleep = 1))
     order by h.name limit $5"
    )
);

impl FromRow<'_, SqliteRow> for Listed {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let settled: Option<i64> = row.try_get(0)?;
        let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
        let tally: Option<&str> = row.try_get("tally")?;
        Ok(Listed {
            id: Id::from_i64(row.try_get("id")?),
            name: row.try_get("name")?,
            labels: labels.0,
            profile: row.try_get("profile")?,
            route: row.try_get("route")?,
            address: row.try_get("shown_address")?,
            alias: row.try_get("alias")?,
            via: row.try_get("via_name")?,
            direct_address: row.try_get("direct_address")?,
            attempts: row.try_get("attempts")?,
            budget: row.try_get::<Option<i64>, _>("budget_bytes_per_day")?.map(i64::cast_unsigned),
            version: row.try_get("version")?,
            created_at: Wall::from_millis(row.try_get("created_at")?),
            removed_at: row.try_get::<Option<i64>, _>("removed_at")?.map(Wall::from_millis),
            state: settled.map(|_| HostRow::from_row(row)).transpose()?.map(|row| row.0),
            acknowledged: row.try_get("acknowledged")?,
            incident: row.try_get::<Option<i64>, _>("incident")?.map(incident),
            tunnel: remembered(row)?,
            services: ServiceTally::of_text(tally.unwrap_or_default()),
        })
    }
}

impl ListRow for Listed {
    const TABLE: &'static str = "hosts";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

fn incident(id: i64) -> IncidentId {
    IncidentId(Id::from_i64(id))
}

fn remembered(row: &SqliteRow) -> sqlx::Result<Option<Remembered>> {
    let Some(public_key) = row.try_get::<Option<String>, _>("public_key")? else { return Ok(None) };
    let wall = |column: &str| -> sqlx::Result<Option<Wall>> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Wall::from_millis))
    };
    Ok(Some(Remembered {
        public_key,
        endpoint: row.try_get("endpoint")?,
        last_packet: wall("last_packet")?,
        last_handshake: wall("last_handshake")?,
        clock_skew_ms: row.try_get("clock_skew_ms")?,
        rx_bytes: row.try_get::<i64, _>("rx_bytes")?.cast_unsigned(),
        tx_bytes: row.try_get::<i64, _>("tx_bytes")?.cast_unsigned(),
    }))
}

/// Selects hosts.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A part of the name or of a label.
    pub q: Option<String>,
    /// All of them.
    pub labels: Vec<(String, String)>,
    /// A part of the partition, or `asleep`.
    pub state: Option<String>,
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(BY_ID).bind(host.as_i64()).fetch_optional(conn).await
}

/// Returns the existing hosts among these, in any order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn by_ids(conn: &mut SqliteConnection, hosts: &[HostId]) -> sqlx::Result<Vec<Listed>> {
    let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
    sqlx::query_as(BY_IDS).bind(Json(ids)).fetch_all(conn).await
}

/// Returns a host, including a removed one.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn ever_by_id(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(EVER_BY_ID).bind(host.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_name(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(BY_NAME).bind(name).fetch_optional(conn).await
}

/// The counters of the status strip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub up: i64,
    pub down: i64,
    pub unreachable: i64,
    pub pending: i64,
    /// The last result is too old.
    pub stale: i64,
    /// Down, unreachable or not current, and acknowledged or in downtime.
    pub handled: i64,
    /// Not part of the partition.
    pub asleep: i64,
    pub services: ServiceTally,
    pub last_check: Option<Wall>,
    pub awaiting_approval: i64,
}

/// Hosts that are not plainly up and services that are not plainly OK. The conditions match those
/// of partial indexes, which are far smaller than the tables. The queries name the indexes, so that
/// a different condition is an error.
macro_rules! open_hosts {
    () => {
        "host_states s indexed by host_states_open"
    };
}

macro_rules! host_is_open {
    () => {
        "(s.hard != 'up' or s.stale = 1 or s.asleep = 1)"
    };
}

macro_rules! open_services {
    () => {
        "service_states c indexed by service_states_open"
    };
}

macro_rules! service_is_open {
    () => {
        "(c.hard is not 'ok' or c.stale = 1)"
    };
}

/// State rows exist for existing hosts and services only. The last column counts all rows, the one
/// before counts the rows that were read.
const COUNT_HOSTS: &str = concat!(
    "select count(*) filter (where part = 'up'), count(*) filter (where part = 'down'),
            count(*) filter (where part = 'unreachable'), count(*) filter (where part = 'pending'),
            count(*) filter (where part = 'stale'), count(*) filter (where part = 'handled'),
            count(*) filter (where asleep = 1), count(*), (select count(*) from host_states)
     from (select ",
    host_part!(),
    " as part, s.asleep from ",
    open_hosts!(),
    " where ",
    host_is_open!(),
    ")"
);
const COUNT_SERVICES: &str = concat!(
    "select count(*) filter (where part = 'ok'), count(*) filter (where part = 'warning'),
            count(*) filter (where part = 'critical'), count(*) filter (where part = 'unknown'),
            count(*) filter (where part = 'pending'), count(*) filter (where part = 'stale'),
            count(*) filter (where part = 'handled'), count(*), (select count(*) from service_states)
     from (select ",
    service_part!(),
    " as part from ",
    open_services!(),
    " where ",
    service_is_open!(),
    ")"
);
const NEWEST_CHECK: &str = "select max(coalesce((select max(last_check) from host_states), 0),
            coalesce((select max(last_check) from service_states), 0))";

/// The counters, the number of rows read and the number of all rows, as both statements return
/// them.
type Counted = (i64, i64, i64, i64, i64, i64, i64, i64, i64);

/// Returns the counters. `last_check`: the time of the newest result, if it is in memory.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn totals(conn: &mut SqliteConnection, last_check: Option<Wall>) -> sqlx::Result<Totals> {
    let hosts: Counted = sqlx::query_as(COUNT_HOSTS).fetch_one(&mut *conn).await?;
    let services: Counted = sqlx::query_as(COUNT_SERVICES).fetch_one(&mut *conn).await?;
    let waiting = "select count(*) from enrolments where state = 'awaiting_approval'";
    let awaiting_approval = sqlx::query_scalar(waiting).fetch_one(&mut *conn).await?;
    let newest = match last_check {
        Some(at) => Some(at.as_millis()),
        None => sqlx::query_scalar(NEWEST_CHECK).fetch_one(conn).await?,
    };
    let last_check = newest.filter(|at| *at > 0).map(Wall::from_millis);
    Ok(Totals { last_check, awaiting_approval, ..Totals::of(hosts, services) })
}

impl Store {
    /// Returns hosts in name order, starting after the name `after`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn hosts(&self, filter: &Filter, after: &str, limit: i64) -> sqlx::Result<Vec<Entry<Listed>>> {
        // The column holds compact JSON with sorted keys, so that one label is a substring of it.
        let piece = |text: &str| serde_json::Value::from(text).to_string();
        let labels: Vec<String> =
            filter.labels.iter().map(|(k, v)| format!("{}:{}", piece(k), piece(v))).collect();
        let query = sqlx::query_as(LIST).bind(after).bind(filter.q.as_deref()).bind(Json(labels));
        query.bind(filter.state.as_deref()).bind(limit).fetch_all(&self.read).await
    }
}

impl Totals {
    /// The number of unhandled problems.
    pub fn problems(&self) -> i64 {
        let services = &self.services;
        self.down + self.unreachable + self.stale + services.critical + services.unknown + services.warning
    }

    fn of(hosts: Counted, services: Counted) -> Self {
        let (up, down, unreachable, pending, stale, handled, asleep, seen, all) = hosts;
        let plainly_up = all - seen;
        let (ok, warning, critical, unknown, unchecked, not_current, handled_services, seen, all) = services;
        let plainly_ok = all - seen;
        Totals {
            up: up + plainly_up,
            down,
            unreachable,
            pending,
            stale,
            handled,
            asleep,
            services: ServiceTally {
                ok: ok + plainly_ok,
                warning,
                critical,
                unknown,
                pending: unchecked,
                stale: not_current,
                handled: handled_services,
            },
            last_check: None,
            awaiting_approval: 0,
        }
    }
}

/// A host that is down, unreachable or not current, or a service that is not OK and current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub place: TroublePlace,
    pub host: HostId,
    pub state: String,
    pub last_check: Option<Wall>,
    pub output: String,
    pub acknowledged: bool,
    pub in_downtime: bool,
    /// Acknowledged or in downtime. No problem counter includes it.
    pub handled: bool,
    pub flapping: bool,
    /// The incident that the problem belongs to.
    pub incident: Option<IncidentId>,
}

/// The position of a problem in the list: unhandled before handled, then the worst state, then the
/// newest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TroublePlace {
    pub rank: i64,
    /// The time since when, negated.
    pub newest: i64,
    pub host_name: String,
    /// Empty for the host itself.
    pub service: String,
}

impl TroublePlace {
    /// The position before all problems.
    pub fn first() -> Self {
        TroublePlace { rank: -1, newest: 0, host_name: String::new(), service: String::new() }
    }

    pub fn since(&self) -> Wall {
        Wall::from_millis(-self.newest)
    }
}

const TROUBLES: &str = concat!(
    "with t (problem, handled, since, host_name, service, host, last_check, output, notification) as (
    select ",
    host_problem!(),
    ", ",
    handled!("s", "''"),
    ", s.since, h.name, '', h.id, s.last_check, s.output, s.notification
    from ",
    open_hosts!(),
    " join hosts h on h.id = s.host where h.removed_at is null and ",
    host_is_open!(),
    " and ",
    host_problem!(),
    " is not null
    union all
    select c.hard, ",
    handled!("c", "c.service"),
    ", c.since, h.name, c.service, h.id, c.last_check, c.output, c.notification
    from ",
    open_services!(),
    " join hosts h on h.id = c.host where h.removed_at is null and ",
    service_is_open!(),
    " and ",
    service_problem!(),
    " is not null),
 ranked (rank, newest, host_name, service, host, state, last_check, output, notification, handled) as (
    select handled * 6 + case problem when 'down' then 0 when 'critical' then 1 when 'unknown' then 2
                                      when 'unreachable' then 3 when 'warning' then 4 else 5 end,
           -since, host_name, service, host, problem, last_check, output, notification, handled from t)
 select rank, newest, host_name, service, host, state, last_check, output,
        exists (select 1 from acknowledgements a
                where a.host = t.host and a.service = t.service and a.ended_at is null) as acknowledged,
        coalesce(notification ->> '$.in_downtime', 0) as in_downtime, coalesce(notification ->> '$.flapping', 0) as flapping,
        (select m.incident from incident_members m join incidents i on i.id = m.incident
         where m.host = t.host and m.service = t.service and m.left_at is null and i.closed_at is null), handled
 from ranked t
 where (rank, newest, host_name, service) > ($1, $2, $3, $4)
 order by rank, newest, host_name, service limit $5"
);

impl FromRow<'_, SqliteRow> for Trouble {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let place = TroublePlace {
            rank: row.try_get(0)?,
            newest: row.try_get(1)?,
            host_name: row.try_get(2)?,
            service: row.try_get(3)?,
        };
        Ok(Trouble {
            place,
            host: Id::from_i64(row.try_get(4)?),
            state: row.try_get(5)?,
            last_check: row.try_get::<Option<i64>, _>(6)?.map(Wall::from_millis),
            output: row.try_get(7)?,
            acknowledged: row.try_get(8)?,
            in_downtime: row.try_get(9)?,
            flapping: row.try_get(10)?,
            incident: row.try_get::<Option<i64>, _>(11)?.map(incident),
            handled: row.try_get(12)?,
        })
    }
}

/// Returns the problems, worst first. Hosts that are down come first, then critical and unknown
/// services, unreachable hosts, warnings and stale hosts. Handled problems follow in the same
/// order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn troubles(
    conn: &mut SqliteConnection,
    after: &TroublePlace,
    limit: i64,
) -> sqlx::Result<Vec<Trouble>> {
    sqlx::query_as(TROUBLES)
        .bind(after.rank)
        .bind(after.newest)
        .bind(&after.host_name)
        .bind(&after.service)
        .bind(limit)
        .fetch_all(conn)
        .await
}

#[cfg(test)]
mod tests;
