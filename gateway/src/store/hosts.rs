//! Hosts as people see them: one row with state, tunnel and counts; the counters of all; problems.
//!
//! Lists are read by one statement a page, whatever the number of hosts.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{HostState, IncidentId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::Store;
use super::states::HostRow;

/// A host in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub id: HostId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub profile: String,
    pub route: String,
    /// Inner, or behind `via`.
    pub address: Option<String>,
    /// The name of the device it stands behind.
    pub via: Option<String>,
    pub direct_address: Option<String>,
    pub attempts: Option<u32>,
    /// Bytes on the wire per UTC day that its checks keep to.
    pub budget: Option<u64>,
    pub version: i64,
    pub created_at: Wall,
    /// Its history is all that is left.
    pub removed_at: Option<Wall>,
    /// `None`: it was added this moment.
    pub state: Option<HostState>,
    pub acknowledged: bool,
    /// What it belongs to, or else something that fails on it.
    pub incident: Option<IncidentId>,
    pub tunnel: Option<Remembered>,
    pub services: ServiceTally,
}

/// What the store knows of a host's own tunnel.
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

/// Services by their hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTally {
    pub ok: i64,
    pub warning: i64,
    pub critical: i64,
    pub unknown: i64,
    pub pending: i64,
    /// Among all of these.
    pub stale: i64,
}

impl ServiceTally {
    fn add(&mut self, state: &str, stale: bool) {
        *match state {
            "ok" => &mut self.ok,
            "warning" => &mut self.warning,
            "critical" => &mut self.critical,
            "unknown" => &mut self.unknown,
            _ => &mut self.pending,
        } += 1;
        if stale {
            self.stale += 1;
        }
    }

    /// Of names with a blank between them, stale ones marked with `!`.
    fn of_text(text: &str) -> Self {
        let mut tally = ServiceTally::default();
        for word in text.split_ascii_whitespace() {
            tally.add(word.trim_end_matches('!'), word.ends_with('!'));
        }
        tally
    }
}

/// In which part of the partition a host is, as SQL.
macro_rules! part {
    () => {
        "case s.hard when 'up' then 'up'
                     when 'down' then case when s.reachable = 1 then 'down' else 'unreachable' end
                     else 'pending' end"
    };
}

/// The columns of a state come first, so that [`HostRow`] reads them.
macro_rules! select {
    ($long_output:literal, $condition:expr) => {
        concat!(
            "select s.host, s.status, s.kind, s.attempt, s.hard, s.reachable, s.stale, s.asleep, s.since,
                    s.last_check, s.next_check, s.source, s.output, s.notified, s.voice, s.direct,
                    ",
            $long_output,
            ", s.metrics, s.warnings,
                    h.id, h.name, h.labels, h.profile, h.route,
                    coalesce(h.address, (select a.address from addresses a
                                         where a.peer = h.id and a.released_at is null
                                         order by instr(a.address, ':') limit 1)) as shown_address,
                    v.name as via_name, h.direct_address, h.attempts,
                    h.budget_bytes_per_day, h.version, h.created_at, h.removed_at,
                    k.public_key, m.endpoint, m.last_packet, m.last_handshake, m.clock_skew_ms,
                    coalesce(m.rx_bytes, 0) as rx_bytes, coalesce(m.tx_bytes, 0) as tx_bytes,
                    (select string_agg(coalesce(c.hard, 'pending') || case c.stale when 1 then '!' else '' end, ' ')
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
const BY_NAME: &str = select!("s.long_output", "h.removed_at is null and h.name = $1");
/// Without the long texts: a page of them could be 30 MB.
const LIST: &str = select!(
    "''",
    concat!(
        "h.removed_at is null and h.name > $1
     and ($2 is null or instr(h.name, lower($2)) > 0 or instr(lower(h.labels), lower($2)) > 0)
     and ($3 is null or instr(h.labels, $3) > 0)
     and ($4 is null or ",
        part!(),
        " = $4 or ($4 = 'stale' and s.stale = 1) or ($4 = 'asleep' and s.asleep = 1))
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

/// Which hosts are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A part of the name or of a label.
    pub q: Option<String>,
    pub label: Option<(String, String)>,
    /// A part of the partition, `stale` or `asleep`.
    pub state: Option<String>,
}

/// # Errors
/// When the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(BY_ID).bind(host.as_i64()).fetch_optional(conn).await
}

/// Also one that was removed.
///
/// # Errors
/// When the database cannot be read.
pub async fn ever_by_id(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(EVER_BY_ID).bind(host.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// When the database cannot be read.
pub async fn by_name(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Listed>> {
    sqlx::query_as(BY_NAME).bind(name).fetch_optional(conn).await
}

/// The counters of the strip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub up: i64,
    pub down: i64,
    pub unreachable: i64,
    pub pending: i64,
    pub stale: i64,
    pub asleep: i64,
    pub services: ServiceTally,
    pub last_check: Option<Wall>,
    pub awaiting_approval: i64,
}

/// One pass without sorting. Rows of states exist for the hosts and services that there are.
const COUNT_HOSTS: &str = "select count(*) filter (where hard = 'up'),
           count(*) filter (where hard = 'down' and reachable = 1),
           count(*) filter (where hard = 'down' and reachable = 0),
           count(*) filter (where hard = 'pending'),
           count(*) filter (where stale = 1), count(*) filter (where asleep = 1), max(last_check)
    from host_states";
const COUNT_SERVICES: &str = "select count(*) filter (where hard = 'ok'),
           count(*) filter (where hard = 'warning'), count(*) filter (where hard = 'critical'),
           count(*) filter (where hard = 'unknown'), count(*) filter (where hard is null),
           count(*) filter (where stale = 1), max(last_check)
    from service_states";

/// Counters and the newest check, as the two statements give them.
type Counted = (i64, i64, i64, i64, i64, i64, Option<i64>);

impl Store {
    /// By name, from after `after` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn hosts(&self, filter: &Filter, after: &str, limit: i64) -> sqlx::Result<Vec<Listed>> {
        // The column is compact JSON of sorted strings, so that one label is a piece of its text.
        let piece = |text: &str| serde_json::Value::from(text).to_string();
        let label = filter.label.as_ref().map(|(k, v)| format!("{}:{}", piece(k), piece(v)));
        let query = sqlx::query_as(LIST).bind(after).bind(filter.q.as_deref()).bind(label);
        query.bind(filter.state.as_deref()).bind(limit).fetch_all(&self.read).await
    }

    /// # Errors
    /// When the database cannot be read.
    pub async fn totals(&self) -> sqlx::Result<Totals> {
        let mut conn = self.read.acquire().await?;
        let hosts: Counted = sqlx::query_as(COUNT_HOSTS).fetch_one(&mut *conn).await?;
        let services: Counted = sqlx::query_as(COUNT_SERVICES).fetch_one(&mut *conn).await?;
        let awaiting_approval =
            sqlx::query_scalar("select count(*) from enrolments where state = 'awaiting_approval'")
                .fetch_one(&mut *conn)
                .await?;
        Ok(Totals::of(hosts, services, awaiting_approval))
    }
}

impl Totals {
    fn of(hosts: Counted, services: Counted, awaiting_approval: i64) -> Self {
        let (up, down, unreachable, pending, stale, asleep, last_host) = hosts;
        let (ok, warning, critical, unknown, unchecked, not_current, last_service) = services;
        Totals {
            up,
            down,
            unreachable,
            pending,
            stale,
            asleep,
            services: ServiceTally { ok, warning, critical, unknown, pending: unchecked, stale: not_current },
            last_check: last_host.max(last_service).map(Wall::from_millis),
            awaiting_approval,
        }
    }
}

/// A host that is down or unreachable, or a service that is not OK and current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub place: TroublePlace,
    pub host: HostId,
    pub state: String,
    pub last_check: Option<Wall>,
    pub output: String,
    pub acknowledged: bool,
    pub in_downtime: bool,
    pub flapping: bool,
    /// What it belongs to.
    pub incident: Option<IncidentId>,
}

/// Where a problem stands in the list: the worst first, among equals the newest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TroublePlace {
    pub rank: i64,
    /// Since when, negative.
    pub newest: i64,
    pub host_name: String,
    /// Empty: the host itself.
    pub service: String,
}

impl TroublePlace {
    /// Before all.
    pub fn first() -> Self {
        TroublePlace { rank: -1, newest: 0, host_name: String::new(), service: String::new() }
    }

    pub fn since(&self) -> Wall {
        Wall::from_millis(-self.newest)
    }
}

/// What people did about them is looked up for the page alone.
const TROUBLES: &str =
    "with t (rank, newest, host_name, service, host, state, last_check, output, voice) as (
    select case s.reachable when 1 then 0 else 3 end, -s.since, h.name, '', h.id,
           case s.reachable when 1 then 'down' else 'unreachable' end, s.last_check, s.output, s.voice
    from host_states s join hosts h on h.id = s.host
    where s.hard = 'down' and h.removed_at is null
    union all
    select case c.hard when 'critical' then 1 when 'unknown' then 2 else 4 end, -c.since, h.name,
           c.service, h.id, c.hard, c.last_check, c.output, c.voice
    from service_states c join hosts h on h.id = c.host
    where c.hard in ('warning', 'critical', 'unknown') and c.stale = 0 and h.removed_at is null)
 select rank, newest, host_name, service, host, state, last_check, output,
        exists (select 1 from acknowledgements a
                where a.host = t.host and a.service = t.service and a.ended_at is null) as acknowledged,
        coalesce(voice ->> '$.in_downtime', 0) as in_downtime, coalesce(voice ->> '$.flapping', 0) as flapping,
        (select m.incident from incident_members m join incidents i on i.id = m.incident
         where m.host = t.host and m.service = t.service and m.left_at is null and i.closed_at is null)
 from t
 where (rank, newest, host_name, service) > ($1, $2, $3, $4)
 order by rank, newest, host_name, service limit $5";

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
        })
    }
}

impl Store {
    /// What is wrong, worst first: hosts that are down, then critical and unknown services, what
    /// only cannot be reached, and warnings.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn troubles(&self, after: &TroublePlace, limit: i64) -> sqlx::Result<Vec<Trouble>> {
        sqlx::query_as(TROUBLES)
            .bind(after.rank)
            .bind(after.newest)
            .bind(&after.host_name)
            .bind(&after.service)
            .bind(limit)
            .fetch_all(&self.read)
            .await
    }
}

#[cfg(test)]
mod tests;
