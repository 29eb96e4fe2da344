//! Removes rows older than the retention period. A reader finds them, a window at a time, and small
//! transactions remove them.
//!
//! Some rows stay at any age: open problems with their incidents, notices and messages, and the
//! last notification of each contact. Waiting notices and active acknowledgements and downtimes
//! stay too, as do all rows that these refer to.
//!
//! This module decides neither the period nor the time of a run.

use std::sync::LazyLock;
use std::time::Duration;

use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

/// Rows that one look reads, which takes some milliseconds.
const WINDOW: i64 = 1_000;
/// Rows of a table removed in one transaction. Other writers wait for one transaction at most.
pub const SLICE: u32 = 200;

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub keep: Duration,
    /// Retention of the audit events; `None` keeps them for ever.
    pub audit: Option<Duration>,
    /// Retention of the intervals of states, which graphs of years show.
    pub intervals: Duration,
}

impl Retention {
    pub fn limits(&self, now: Wall) -> Limits {
        Limits {
            keep: now - self.keep,
            audit: self.audit.map(|audit| now - audit),
            intervals: now - self.intervals,
        }
    }
}

/// The times before which rows are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub keep: Wall,
    /// The time for the audit log. `None` keeps it for ever.
    pub audit: Option<Wall>,
    /// The time for the intervals of states.
    pub intervals: Wall,
}

impl Limits {
    /// Returns the time before which rows of a kind are removed.
    fn of(&self, kind: RetentionKind) -> Wall {
        if kind == RetentionKind::Intervals { self.intervals } else { self.keep }
    }
}

/// The kinds of rows in removal order: rows that refer to others come before those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetentionKind {
    Messages,
    Notices,
    Acknowledgements,
    Downtimes,
    /// Grants that ended or were withdrawn.
    Grants,
    Incidents,
    Events,
    /// Ended intervals of states, downtimes and outages.
    Intervals,
    /// Enrolments that created no device.
    Enrolments,
    /// The remains of removed hosts. Their names stay, because the audit log needs them.
    Hosts,
}

impl RetentionKind {
    pub const ALL: [RetentionKind; 10] = [
        RetentionKind::Messages,
        RetentionKind::Notices,
        RetentionKind::Acknowledgements,
        RetentionKind::Downtimes,
        RetentionKind::Grants,
        RetentionKind::Incidents,
        RetentionKind::Events,
        RetentionKind::Intervals,
        RetentionKind::Enrolments,
        RetentionKind::Hosts,
    ];

    /// Returns the name in the metric.
    pub const fn name(self) -> &'static str {
        match self {
            RetentionKind::Messages => "messages",
            RetentionKind::Notices => "notifications",
            RetentionKind::Acknowledgements => "acknowledgements",
            RetentionKind::Downtimes => "downtimes",
            RetentionKind::Grants => "grants",
            RetentionKind::Incidents => "incidents",
            RetentionKind::Events => "events",
            RetentionKind::Intervals => "intervals",
            RetentionKind::Enrolments => "enrolments",
            RetentionKind::Hosts => "hosts",
        }
    }
}

/// The result of one look at a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Rows that may be removed, at most one slice.
    pub old: Vec<i64>,
    /// The start of the next look. `None` if no rows follow this window.
    pub next: Option<i64>,
    /// The table is in time order, and no row in the window is as old as the limits.
    pub is_recent: bool,
}

/// The parts of the statements for a kind. `$2` is the limit, `$3` that of the audit.
struct Rows {
    table: &'static str,
    id: &'static str,
    /// The condition for a row that is too old.
    old: &'static str,
    /// The time column that orders the table, if there is one.
    time: Option<&'static str>,
    /// The condition for a row that no other row needs.
    free: &'static str,
    /// Dependent tables, each with its reference.
    dependents: &'static [(&'static str, &'static str)],
}

/// The condition for a notice that is still needed.
macro_rules! needed {
    ($n:literal) => {
        concat!(
            "(",
            $n,
            ".routed_at is null or exists (select 1 from notices_waiting w where w.notice = ",
            $n,
            ".id) or exists (select 1 from notices_told t where t.root = ",
            $n,
            ".id) or exists (select 1 from notices_told t where t.last = ",
            $n,
            ".id) or exists (select 1 from notices_held s where s.notice = ",
            $n,
            ".id and s.stopped = 1)
              or exists (select 1 from incidents i join incidents r on r.id = coalesce(i.merged_into, i.id)
                         where i.id = ",
            $n,
            ".incident and r.closed_at is null))"
        )
    };
}

const MESSAGES: Rows = Rows {
    table: "outbox",
    id: "id",
    old: "x.created_at < $2",
    time: Some("x.created_at"),
    free: concat!(
        "(x.sent_at is not null or x.given_up_at is not null)
         and not exists (select 1 from outbox_notices l join notices n on n.id in (l.notice, l.root)
                         where l.message = x.id and ",
        needed!("n"),
        ")"
    ),
    dependents: &[("outbox_notices", "message")],
};

const NOTICES: Rows = Rows {
    table: "notices",
    id: "id",
    old: "x.at < $2",
    time: Some("x.at"),
    free: concat!(
        "not ",
        needed!("x"),
        " and not exists (select 1 from outbox_notices l where l.notice = x.id)
          and not exists (select 1 from outbox_notices l where l.root = x.id and l.root <> l.notice)"
    ),
    dependents: &[("notices_held", "notice")],
};

const ACKNOWLEDGEMENTS: Rows = Rows {
    table: "acknowledgements",
    id: "id",
    old: "x.ended_at < $2",
    time: None,
    // A notice that it stopped still needs the time of its end.
    free: "not exists (select 1 from notices_held s join notices n on n.id = s.notice
                       where s.stopped = 1 and n.host = x.host and coalesce(n.service, '') = x.service)",
    dependents: &[],
};

const DOWNTIMES: Rows = Rows {
    table: "downtimes",
    id: "id",
    // A cancelled downtime of a file stays until its planned end, or the file would create it
    // again.
    old: "(x.end_at + coalesce(x.duration_ms, 0) < $2 or x.cancelled_at < $2 and x.managed_by = 'api')",
    time: None,
    free: "true",
    dependents: &[],
};

const GRANTS: Rows = Rows {
    table: "grants",
    id: "id",
    // Events keep what it permitted.
    old: "(x.until_at < $2 or x.withdrawn_at < $2)",
    time: None,
    free: "true",
    dependents: &[],
};

const INCIDENTS: Rows = Rows {
    table: "incidents",
    id: "id",
    old: "x.closed_at < $2",
    time: None,
    free: "not exists (select 1 from incidents r where r.id = x.merged_into
                       and (r.closed_at is null or r.closed_at >= $2))
           and not exists (select 1 from incidents m where m.merged_into = x.id)
           and not exists (select 1 from notices n where n.incident = x.id)
           and not exists (select 1 from acknowledgements a where a.incident = x.id)",
    dependents: &[("incident_members", "incident")],
};

const EVENTS: Rows = Rows {
    table: "events",
    id: "seq",
    old: "x.at < iif(x.principal <> 'system' and x.kind <> 'state.changed', $3, $2)",
    time: Some("x.at"),
    free: "not exists (select 1 from notices n where n.event = x.seq)
           and not exists (select 1 from notices_held s where s.event = x.seq)",
    dependents: &[],
};

const INTERVALS: Rows = Rows {
    table: "intervals",
    id: "id",
    old: "x.ended_at < $2",
    // None of those that begin later has ended before the limit.
    time: Some("x.began_at"),
    free: "true",
    dependents: &[],
};

const ENROLMENTS: Rows = Rows {
    table: "enrolments",
    id: "id",
    old: "x.decided_at < $2",
    time: None,
    free: "x.state in ('rejected', 'expired')",
    dependents: &[],
};

const HOSTS: Rows = Rows {
    table: "hosts",
    id: "id",
    old: "x.removed_at < $2",
    time: None,
    // The host has more than its name.
    free: "(x.labels <> '{}' or x.notes <> ''
            or exists (select 1 from service_overrides o where o.host = x.id)
            or exists (select 1 from peer_memory m where m.peer = x.id)
            or exists (select 1 from peer_endpoints e where e.peer = x.id)
            or exists (select 1 from event_shares s where s.host = x.id))",
    dependents: &[
        ("service_overrides", "host"),
        ("peer_memory", "peer"),
        ("peer_endpoints", "peer"),
        ("event_shares", "host"),
    ],
};

/// The statements of a kind.
struct Statements {
    /// The last number of a window, its oldest time and its number of rows.
    window: String,
    /// Finds the rows of a window that may be removed.
    find: String,
    /// Selects the rows that may still be removed.
    still: String,
    /// A slice of the rows that depend on these.
    dependents: Vec<String>,
    remove: String,
}

impl Statements {
    fn new(kind: RetentionKind) -> Statements {
        let Rows { table, id, old, time, free, dependents } = match kind {
            RetentionKind::Messages => MESSAGES,
            RetentionKind::Notices => NOTICES,
            RetentionKind::Acknowledgements => ACKNOWLEDGEMENTS,
            RetentionKind::Downtimes => DOWNTIMES,
            RetentionKind::Grants => GRANTS,
            RetentionKind::Incidents => INCIDENTS,
            RetentionKind::Events => EVENTS,
            RetentionKind::Intervals => INTERVALS,
            RetentionKind::Enrolments => ENROLMENTS,
            RetentionKind::Hosts => HOSTS,
        };
        let time = time.unwrap_or("null");
        let these = "(select value from json_each($1))";
        let dependent = |(table, reference): &(_, _)| {
            format!(
                "delete from {table} where rowid in
                 (select rowid from {table} where {reference} in {these} limit {SLICE})"
            )
        };
        let act = match kind {
            RetentionKind::Hosts => "update hosts set labels = '{}', notes = ''".to_owned(),
            _ => format!("delete from {table}"),
        };
        Statements {
            window: format!(
                "select max(id), min(time), count(*) from (select x.{id} as id, {time} as time from {table} x
                 where x.{id} > $1 order by x.{id} limit {WINDOW})"
            ),
            find: format!(
                "select x.{id} from {table} x where x.{id} > $1 and x.{id} <= $4 and {old} and {free}
                 order by x.{id} limit {SLICE}"
            ),
            still: format!("select x.{id} from {table} x where x.{id} in {these} and {old} and {free}"),
            dependents: dependents.iter().map(dependent).collect(),
            remove: format!("{act} where {id} in {these}"),
        }
    }
}

static STATEMENTS: LazyLock<[Statements; RetentionKind::ALL.len()]> =
    LazyLock::new(|| RetentionKind::ALL.map(Statements::new));

impl RetentionKind {
    fn statements(self) -> &'static Statements {
        &STATEMENTS[self as usize]
    }
}

/// Looks at the window of a kind that begins after the number `after`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn look(
    conn: &mut SqliteConnection,
    kind: RetentionKind,
    after: i64,
    limits: &Limits,
) -> sqlx::Result<Look> {
    let sql = kind.statements();
    let (last, oldest, rows): (Option<i64>, Option<i64>, i64) =
        sqlx::query_as(sql.window.as_str()).bind(after).fetch_one(&mut *conn).await?;
    let Some(last) = last else { return Ok(Look::default()) };
    let find = sqlx::query_scalar(sql.find.as_str()).bind(after).bind(limits.of(kind).as_millis());
    let audit = limits.audit.map(Wall::as_millis);
    let old: Vec<i64> = find.bind(audit).bind(last).fetch_all(conn).await?;
    let newest_limit = limits.audit.unwrap_or(limits.of(kind)).max(limits.of(kind));
    let is_recent = oldest.is_some_and(|at| at >= newest_limit.as_millis());
    let next = match old.last() {
        Some(found) if old.len() == SLICE as usize => Some(*found),
        _ if rows < WINDOW => None,
        _ => Some(last),
    };
    Ok(Look { old, next, is_recent })
}

/// Removes some of these rows and of their dependents. Returns the number of removed rows. The
/// caller repeats the call until it returns 0.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn remove(
    tx: &mut SqliteConnection,
    kind: RetentionKind,
    found: &[i64],
    limits: &Limits,
) -> sqlx::Result<u64> {
    let sql = kind.statements();
    let still = sqlx::query_scalar(sql.still.as_str()).bind(Json(found)).bind(limits.of(kind).as_millis());
    let still: Vec<i64> = still.bind(limits.audit.map(Wall::as_millis)).fetch_all(&mut *tx).await?;
    let mut removed = 0;
    for dependents in &sql.dependents {
        let gone =
            sqlx::query(dependents.as_str()).bind(Json(&still)).execute(&mut *tx).await?.rows_affected();
        removed += gone;
        if gone >= u64::from(SLICE) {
            return Ok(removed);
        }
    }
    Ok(removed + sqlx::query(sql.remove.as_str()).bind(Json(&still)).execute(tx).await?.rows_affected())
}

#[cfg(test)]
mod tests;
