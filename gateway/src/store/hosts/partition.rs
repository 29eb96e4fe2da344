//! Decides in SQL what counts as a problem, and whether it is handled: each host and each service is in one part.
//!
//! The counters, the list of problems, the filters and the counts of a row all use these texts. This file
//! knows no statement. A macro expands where it is used, so a file imports also those that its macros use.

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
/// results arrive. The state of a rental, which the gateway itself sets, is the exception. Notifications follow the same
/// rule as this list.
macro_rules! service_problem {
    () => {
        "case when c.stale = 0 and c.hard in ('warning', 'critical', 'unknown')
                   and (c.service = 'rental'
                        or not exists (select 1 from host_states d
                                       where d.host = c.host and (d.hard = 'down' or d.reachable = 0))) then c.hard end"
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

pub(super) use {
    handled, host_is_open, host_part, host_problem, open_hosts, open_services, service_is_open, service_part,
    service_problem,
};
