//! The counters of all hosts and services.
//!
//! Only rows that are not plainly up or OK are read; the others are counted. `partition.rs` defines the parts.

use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::ServiceTally;
use super::partition::{
    handled, host_is_open, host_part, host_problem, open_hosts, open_services, service_is_open, service_part,
    service_problem,
};

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

/// State rows exist for existing hosts and services only. The last column counts all rows, the one
/// before counts the rows that were read.
pub(super) const COUNT_HOSTS: &str = concat!(
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
pub(super) const COUNT_SERVICES: &str = concat!(
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
