//! The list of problems, in pages: hosts and services, worst first.
//!
//! `partition.rs` decides what a problem is, and when it is handled. This file knows no counters.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::IncidentId;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::incident;
use super::partition::{
    handled, host_is_open, host_problem, open_hosts, open_services, service_is_open, service_problem,
};

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

pub(super) const TROUBLES: &str = concat!(
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
