//! The states of hosts and services as rows.
//!
//! A row exists for exactly the services of a host (`settle_services`). The monitor's results only
//! change rows, so that a late result cannot bring back a disabled service, and the counters are
//! plain aggregates. This module decides nothing about states.

mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use anyhow::Context as _;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Detail, DirectReply, HostSpec, HostState, HostStatus, PathCheck, ServiceState, StateType,
};
use fleetgate_engine::time::Wall;
use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::rows::{Arguments, Batched, WIDE};
use super::{acknowledgements, intervals, notification_state};
use json::{metrics_from_json, metrics_json, taken_from_json, taken_json, warnings_from_json, warnings_json};

// ------------------------------------------------------------------- names

pub const fn host_status_name(status: HostStatus) -> &'static str {
    match status {
        HostStatus::Pending => "pending",
        HostStatus::Up => "up",
        HostStatus::Down => "down",
    }
}

fn host_status(name: &str) -> anyhow::Result<HostStatus> {
    Ok(match name {
        "pending" => HostStatus::Pending,
        "up" => HostStatus::Up,
        "down" => HostStatus::Down,
        other => anyhow::bail!("{other:?} is no host status: pending, up or down"),
    })
}

pub const fn state_type_name(kind: StateType) -> &'static str {
    match kind {
        StateType::Soft => "soft",
        StateType::Hard => "hard",
    }
}

fn direct_answer(name: &str) -> anyhow::Result<DirectReply> {
    use DirectReply::{Answered, Doubtful, NotAsked, Silent};
    let found = [NotAsked, Answered, Doubtful, Silent].into_iter().find(|d| d.name() == name);
    found.with_context(|| format!("{name:?} is no direct answer: not_asked, answered, doubtful or silent"))
}

fn cause(name: &str) -> anyhow::Result<Cause> {
    Cause::named(name).with_context(|| format!("{name:?} is no cause of a result"))
}

fn path_check(name: &str) -> anyhow::Result<PathCheck> {
    PathCheck::named(name).with_context(|| format!("{name:?} is no check of a path"))
}

fn address(text: Option<&str>) -> anyhow::Result<Option<IpAddr>> {
    text.map(str::parse).transpose().context("an address that was asked")
}

fn state_type(name: &str) -> StateType {
    if name == "soft" { StateType::Soft } else { StateType::Hard }
}

fn service_status(name: &str) -> anyhow::Result<Status> {
    let all = [Status::Ok, Status::Warning, Status::Critical, Status::Unknown];
    let found = all.into_iter().find(|s| s.name() == name);
    found.with_context(|| format!("{name:?} is no service status: ok, warning, critical or unknown"))
}

fn millis(at: Option<Wall>) -> Option<i64> {
    at.map(Wall::as_millis)
}

// ------------------------------------------------------------------- hosts

static UPDATE_HOSTS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 27, |values| {
        format!(
            "with v (host, status, kind, attempt, hard, reachable, stale, asleep, since, last_check,
                     next_check, source, output, notified, notification, direct, long_output, metrics,
                     warnings, one_way, silent_since, last_alive, asked_at, asked,
                     strange_key, taken, hard_since) as (values {values})
             update host_states set status = v.status, kind = v.kind, attempt = v.attempt,
                    hard = v.hard, reachable = v.reachable, stale = v.stale, asleep = v.asleep,
                    since = v.since, last_check = v.last_check, next_check = v.next_check,
                    source = v.source, output = v.output, notified = v.notified, notification = v.notification,
                    direct = v.direct, long_output = v.long_output, metrics = v.metrics,
                    warnings = v.warnings, one_way = v.one_way, silent_since = v.silent_since, last_alive = v.last_alive,
                    asked_at = v.asked_at, asked = v.asked, strange_key = v.strange_key,
                    taken = v.taken, hard_since = v.hard_since
             from v where host_states.host = v.host"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write_hosts(conn: &mut SqliteConnection, states: &[&HostState]) -> sqlx::Result<()> {
    UPDATE_HOSTS.run(conn, states, |s, a| bind_host(s, a)).await
}

fn bind_host(s: &HostState, a: &mut Arguments) {
    a.add(s.host.as_i64())
        .add(host_status_name(s.status))
        .add(state_type_name(s.kind))
        .add(s.attempt)
        .add(host_status_name(s.hard))
        .add(s.reachable)
        .add(s.stale)
        .add(s.asleep)
        .add(s.since.as_millis())
        .add(millis(s.last_check))
        .add(millis(s.next_check))
        .add(s.source.as_str())
        .add(s.output.as_str())
        .add(s.notified.map(host_status_name))
        .add(notification_state::to_json(&s.notification))
        .add(s.direct.name())
        .add(s.detail.long_text.as_str())
        .add(metrics_json(&s.detail.metrics))
        .add(warnings_json(&s.detail.warnings))
        .add(s.one_way)
        .add(millis(s.silent_since))
        .add(millis(s.last_alive))
        .add(millis(s.asked_at))
        .add(s.asked.map(|address| address.to_string()))
        .add(s.strange_key.as_deref())
        .add(taken_json(&s.taken))
        .add(s.hard_since.as_millis());
}

static REPEAT_HOSTS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 10, |values| {
        format!(
            "with v (host, status, since, last_check, next_check, output, metrics, notification, last_alive,
                     asked_at) as (values {values})
             update host_states set last_check = v.last_check, next_check = v.next_check, output = v.output,
                    metrics = v.metrics, notification = v.notification, last_alive = v.last_alive,
                    asked_at = v.asked_at
             from v where host_states.host = v.host and host_states.status = v.status
                      and host_states.since = v.since"
        )
    })
});

/// Writes only what changes with a result of a host that repeats the one before. The caller knows that the other
/// columns are the same. Returns the number of rows that were written: one that has another state is left as it is.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn repeat_hosts(conn: &mut SqliteConnection, states: &[&HostState]) -> sqlx::Result<u64> {
    REPEAT_HOSTS
        .changed(conn, states, |s, a| {
            a.add(s.host.as_i64())
                .add(host_status_name(s.status))
                .add(s.since.as_millis())
                .add(millis(s.last_check))
                .add(millis(s.next_check))
                .add(s.output.as_str())
                .add(metrics_json(&s.detail.metrics))
                .add(notification_state::to_json(&s.notification))
                .add(millis(s.last_alive))
                .add(millis(s.asked_at));
        })
        .await
}

/// A host's row. `None` for a host without a result.
pub struct HostRow(pub HostState);

macro_rules! select_hosts {
    ($which:literal) => {
        concat!(
            "select host, status, kind, attempt, hard, reachable, stale, asleep, since, last_check, next_check,
                    source, output, notified, notification, direct, long_output, metrics, warnings, one_way,
                    silent_since, last_alive, asked_at, asked, strange_key, taken, hard_since
             from host_states",
            $which
        )
    };
}

pub const ALL_HOSTS: &str = select_hosts!("");

/// Returns the state of one host. `None` if it has no row.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn of_host(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<HostState>> {
    let found = sqlx::query_as::<_, HostRow>(select_hosts!(" where host = $1")).bind(host.as_i64());
    Ok(found.fetch_optional(conn).await?.map(|row| row.0))
}

impl FromRow<'_, SqliteRow> for HostRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let status = |at: usize| -> sqlx::Result<HostStatus> { decode(host_status(row.try_get(at)?)) };
        let notified: Option<&str> = row.try_get(13)?;
        Ok(HostRow(HostState {
            host: HostId::from_i64(row.try_get(0)?),
            status: status(1)?,
            kind: state_type(row.try_get(2)?),
            attempt: row.try_get(3)?,
            hard: status(4)?,
            reachable: row.try_get(5)?,
            stale: row.try_get(6)?,
            asleep: row.try_get(7)?,
            since: Wall::from_millis(row.try_get(8)?),
            last_check: row.try_get::<Option<i64>, _>(9)?.map(Wall::from_millis),
            next_check: row.try_get::<Option<i64>, _>(10)?.map(Wall::from_millis),
            source: row.try_get(11)?,
            output: row.try_get(12)?,
            notified: decode(notified.map(host_status).transpose())?,
            notification: decode(notification_state::from_json(row.try_get(14)?))?,
            direct: decode(direct_answer(row.try_get(15)?))?,
            silent_since: row.try_get::<Option<i64>, _>(20)?.map(Wall::from_millis),
            last_alive: row.try_get::<Option<i64>, _>(21)?.map(Wall::from_millis),
            asked_at: row.try_get::<Option<i64>, _>(22)?.map(Wall::from_millis),
            asked: decode(address(row.try_get(23)?))?,
            strange_key: row.try_get(24)?,
            taken: decode(taken_from_json(row.try_get(25)?))?,
            hard_since: Wall::from_millis(row.try_get(26)?),
            detail: Detail {
                long_text: row.try_get(16)?,
                metrics: decode(metrics_from_json(row.try_get(17)?))?,
                warnings: decode(warnings_from_json(row.try_get(18)?))?,
            },
            one_way: row.try_get(19)?,
        }))
    }
}

fn decode<T>(parsed: anyhow::Result<T>) -> sqlx::Result<T> {
    parsed.map_err(|e| sqlx::Error::Decode(e.into()))
}

// ---------------------------------------------------------------- services

static UPDATE_SERVICES: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 23, |values| {
        format!(
            "with v (host, service, status, kind, attempt, hard, stale, since, last_check, next_check,
                     route, output, long_output, metrics, warnings, notified, notification, cause, asked,
                     path, cause_since, taken, hard_since) as (values {values})
             update service_states set status = v.status, kind = v.kind, attempt = v.attempt,
                    hard = v.hard, stale = v.stale, since = v.since, last_check = v.last_check,
                    next_check = v.next_check, route = v.route, output = v.output,
                    long_output = v.long_output, metrics = v.metrics, warnings = v.warnings,
                    notified = v.notified, notification = v.notification, cause = v.cause, asked = v.asked,
                    path = v.path, cause_since = v.cause_since, taken = v.taken,
                    hard_since = v.hard_since
             from v where service_states.host = v.host and service_states.service = v.service"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write_services(
    conn: &mut SqliteConnection,
    states: &[(HostId, &ServiceState)],
) -> sqlx::Result<()> {
    UPDATE_SERVICES.run(conn, states, |(host, s), a| bind_service(*host, s, a)).await
}

static REPEAT_SERVICES: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 10, |values| {
        format!(
            "with v (host, service, status, since, last_check, next_check, output, metrics, notification,
                     taken) as (values {values})
             update service_states set last_check = v.last_check, next_check = v.next_check,
                    output = v.output, metrics = v.metrics, notification = v.notification, taken = v.taken
             from v where service_states.host = v.host and service_states.service = v.service
                      and service_states.status is v.status and service_states.since = v.since"
        )
    })
});

/// Writes only what a result of a service changes that repeats the one before, like [`repeat_hosts`].
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn repeat_services(
    conn: &mut SqliteConnection,
    states: &[(HostId, &ServiceState)],
) -> sqlx::Result<u64> {
    REPEAT_SERVICES
        .changed(conn, states, |(host, s), a| {
            a.add(host.as_i64())
                .add(s.name.as_str())
                .add(s.status.map(Status::name))
                .add(s.since.as_millis())
                .add(millis(s.last_check))
                .add(millis(s.next_check))
                .add(s.result.text.as_str())
                .add(metrics_json(&s.result.metrics))
                .add(notification_state::to_json(&s.notification))
                .add(taken_json(&s.taken));
        })
        .await
}

fn bind_service(host: HostId, s: &ServiceState, a: &mut Arguments) {
    a.add(host.as_i64())
        .add(s.name.as_str())
        .add(s.status.map(Status::name))
        .add(state_type_name(s.kind))
        .add(s.attempt)
        .add(s.hard.map(Status::name))
        .add(s.stale)
        .add(s.since.as_millis())
        .add(millis(s.last_check))
        .add(millis(s.next_check))
        .add(s.route.as_str())
        .add(s.result.text.as_str())
        .add(s.result.long_text.as_str())
        .add(metrics_json(&s.result.metrics))
        .add(warnings_json(&s.result.warnings))
        .add(s.notified.map(Status::name))
        .add(notification_state::to_json(&s.notification))
        .add(s.result.cause.name())
        .add(s.asked.map(|address| address.to_string()))
        .add(s.path.name())
        .add(s.cause_since.as_millis())
        .add(taken_json(&s.taken))
        .add(s.hard_since.as_millis());
}

/// A service's row and its host.
pub struct ServiceRow {
    pub host: HostId,
    pub state: ServiceState,
}

macro_rules! select_services {
    ($which:literal) => {
        concat!(
            "select host, service, status, kind, attempt, hard, stale, since, last_check, next_check,
                    route, output, long_output, metrics, warnings, notified, notification, cause, asked, path,
                    cause_since, taken, hard_since
             from service_states",
            $which
        )
    };
}

pub const ALL_SERVICES: &str = select_services!("");
pub const SERVICES_OF_HOST: &str = select_services!(" where host = $1 order by service");
const ONE_SERVICE: &str = select_services!(" where host = $1 and service = $2");

/// Returns the states of one host's services, in name order.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn services_of(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Vec<ServiceRow>> {
    sqlx::query_as(SERVICES_OF_HOST).bind(host.as_i64()).fetch_all(conn).await
}

/// Returns the state of one service. `None` if it has no row.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn of_service(
    conn: &mut SqliteConnection,
    host: HostId,
    service: &str,
) -> sqlx::Result<Option<ServiceState>> {
    let found = sqlx::query_as::<_, ServiceRow>(ONE_SERVICE).bind(host.as_i64()).bind(service);
    Ok(found.fetch_optional(conn).await?.map(|row| row.state))
}

impl FromRow<'_, SqliteRow> for ServiceRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let status = |at: usize| -> sqlx::Result<Option<Status>> {
            let name: Option<&str> = row.try_get(at)?;
            decode(name.map(service_status).transpose())
        };
        let state = ServiceState {
            name: row.try_get(1)?,
            status: status(2)?,
            kind: state_type(row.try_get(3)?),
            attempt: row.try_get(4)?,
            hard: status(5)?,
            stale: row.try_get(6)?,
            since: Wall::from_millis(row.try_get(7)?),
            last_check: row.try_get::<Option<i64>, _>(8)?.map(Wall::from_millis),
            next_check: row.try_get::<Option<i64>, _>(9)?.map(Wall::from_millis),
            route: row.try_get(10)?,
            asked: decode(address(row.try_get(18)?))?,
            path: decode(path_check(row.try_get(19)?))?,
            cause_since: Wall::from_millis(row.try_get(20)?),
            result: PluginResult {
                status: status(2)?.unwrap_or(Status::Unknown),
                cause: decode(cause(row.try_get(17)?))?,
                text: row.try_get(11)?,
                long_text: row.try_get(12)?,
                metrics: decode(metrics_from_json(row.try_get(13)?))?,
                warnings: decode(warnings_from_json(row.try_get(14)?))?,
            },
            notified: status(15)?,
            notification: decode(notification_state::from_json(row.try_get(16)?))?,
            taken: decode(taken_from_json(row.try_get(21)?))?,
            hard_since: Wall::from_millis(row.try_get(22)?),
        };
        Ok(ServiceRow { host: HostId::from_i64(row.try_get(0)?), state })
    }
}

// ------------------------------------------------------------- settlement

/// Creates missing rows of this host and deletes surplus ones. A new row is pending, and an
/// existing one keeps its state. The acknowledgement of a removed service ends: a service that is
/// added later under its name is another one.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn settle(conn: &mut SqliteConnection, spec: &HostSpec, now: Wall) -> sqlx::Result<()> {
    let host = spec.id.as_i64();
    sqlx::query(
        "insert into host_states (host, status, kind, attempt, hard, reachable, stale, asleep, since,
                                  hard_since, source, output)
         values ($1, 'pending', 'hard', 1, 'pending', 1, 0, 0, $2, $2, '', '')
         on conflict (host) do nothing",
    )
    .bind(host)
    .bind(now.as_millis())
    .execute(&mut *conn)
    .await?;
    let existing: Vec<String> = sqlx::query_scalar("select service from service_states where host = $1")
        .bind(host)
        .fetch_all(&mut *conn)
        .await?;
    let existing: BTreeSet<&str> = existing.iter().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = spec.services.iter().map(|s| s.name.as_str()).collect();
    for service in wanted.difference(&existing) {
        add_pending(conn, host, service, now).await?;
    }
    for service in existing.difference(&wanted) {
        let sql = "delete from service_states where host = $1 and service = $2";
        sqlx::query(sql).bind(host).bind(*service).execute(&mut *conn).await?;
        acknowledgements::withdraw(&mut *conn, spec.id, Some(service), now).await?;
        intervals::end_of_service(&mut *conn, spec.id, service, now).await?;
    }
    Ok(())
}

/// Adjusts the rows of several hosts, most of which may already fit.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn settle_these(conn: &mut SqliteConnection, specs: &[HostSpec], now: Wall) -> sqlx::Result<()> {
    let ids: Vec<i64> = specs.iter().map(|spec| spec.id.as_i64()).collect();
    let rows: Vec<(i64, Option<String>)> = sqlx::query_as(HAVE).bind(Json(ids)).fetch_all(&mut *conn).await?;
    let mut have: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (host, service) in rows {
        have.entry(host).or_default().extend(service);
    }
    for spec in specs {
        let wanted = || spec.services.iter().map(|service| service.name.as_str());
        let fits = |has: &BTreeSet<String>| {
            has.len() == wanted().collect::<BTreeSet<_>>().len() && wanted().all(|name| has.contains(name))
        };
        if !have.get(&spec.id.as_i64()).is_some_and(fits) {
            settle(conn, spec, now).await?;
        }
    }
    Ok(())
}

const HAVE: &str = "select s.host, c.service from host_states s left join service_states c on c.host = s.host
                    where s.host in (select value from json_each($1))";

async fn add_pending(conn: &mut SqliteConnection, host: i64, service: &str, now: Wall) -> sqlx::Result<()> {
    sqlx::query(
        "insert into service_states (host, service, kind, attempt, stale, since, hard_since, route, output,
                                     long_output, metrics, warnings)
         values ($1, $2, 'hard', 1, 0, $3, $3, '', '', '', '[]', '[]')",
    )
    .bind(host)
    .bind(service)
    .bind(now.as_millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the states of a removed host and ends its acknowledgements. Its events and samples stay.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn forget(conn: &mut SqliteConnection, host: HostId, now: Wall) -> sqlx::Result<()> {
    for sql in ["delete from service_states where host = $1", "delete from host_states where host = $1"] {
        sqlx::query(sql).bind(host.as_i64()).execute(&mut *conn).await?;
    }
    intervals::end_of_host(&mut *conn, host, now).await?;
    acknowledgements::end_of_host(conn, host, now).await
}
