//! Hosts for display: one row with state, tunnel and counts.
//!
//! One statement reads a page of a list, for any number of hosts. `partition.rs` alone decides what counts as
//! a problem. The counters of all hosts are in `totals.rs`, and the list of problems in `problems.rs`.

mod partition;
mod problems;
#[cfg(test)]
mod tests;
mod totals;

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

pub use problems::{Trouble, TroublePlace, troubles};
pub use totals::{Totals, totals};

use partition::{handled, host_part, host_problem, service_part, service_problem};

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
