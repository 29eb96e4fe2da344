//! The policy of the engine: who may reach what, read from users, operators, hosts and grants.
//!
//! The same statements read all of it at the start and single rows after each change. A row decides: one
//! that is gone, or has no effect any more, is withdrawn from the engine. At the start, an invalid row is
//! logged and left out. It then permits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fleetgate_engine::id::{GrantId, HostId, Id, PeerId};
use fleetgate_engine::messages::{PolicyChange, SourceSpec, TargetAddress, TargetSpec};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, role};
use super::devices::inner_addresses;
use super::grants::{self, Grant, grant_role};

/// Changed rows, each of which may change the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRows {
    pub sources: BTreeSet<PeerId>,
    pub targets: BTreeSet<HostId>,
    pub grants: BTreeSet<GrantId>,
}

impl PolicyRows {
    pub fn add(&mut self, more: &PolicyRows) {
        self.sources.extend(&more.sources);
        self.targets.extend(&more.targets);
        self.grants.extend(&more.grants);
    }

    pub fn remove(&mut self, done: &PolicyRows) {
        self.sources.retain(|id| !done.sources.contains(id));
        self.targets.retain(|id| !done.targets.contains(id));
        self.grants.retain(|id| !done.grants.contains(id));
    }

    pub fn len(&self) -> usize {
        self.sources.len() + self.targets.len() + self.grants.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Peers of people who may use grants: their users are enabled and no viewers.
macro_rules! sources {
    ($which:literal) => {
        concat!(
            "select o.id, o.user, u.role,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = o.id and a.released_at is null) as inner_addresses
             from operators o join users u on u.id = o.user
             where o.removed_at is null and u.disabled_at is null and u.role <> 'viewer'",
            $which
        )
    };
}

const ALL_SOURCES: &str = sources!("");
/// `$1`: the ids as JSON.
const THESE_SOURCES: &str = sources!(" and o.id in (select value from json_each($1))");

/// The operators among these peers, also removed ones. A device is no source. `$1`: the ids as JSON.
const THESE_OPERATORS: &str = "select id from operators where id in (select value from json_each($1))";

/// Hosts with a tunnel, and hosts behind those. The alias of a host behind a device counts as its inner
/// address.
macro_rules! targets {
    ($which:literal) => {
        concat!(
            "select h.id, h.name, p.id as peer, h.via is not null as behind, h.labels, h.address,
                    iif(h.via is null,
                        (select string_agg(a.address, ' ') from addresses a
                         where a.peer = h.id and a.released_at is null),
                        (select string_agg(a.address, ' ') from addresses a
                         where a.host = h.id and a.released_at is null)) as inner_addresses
             from hosts h join peers p on p.id = coalesce(h.via, h.id) and p.removed_at is null
             where h.removed_at is null",
            $which
        )
    };
}

const ALL_TARGETS: &str = targets!("");
/// `$1`: the ids as JSON.
const THESE_TARGETS: &str = targets!(" and h.id in (select value from json_each($1))");

struct Source(SourceSpec);

impl FromRow<'_, SqliteRow> for Source {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Source(SourceSpec {
            peer: id(row, "id")?,
            user: id(row, "user")?,
            role: grant_role(role(row, "role")?),
            addresses: inner_addresses(row)?.into_iter().collect(),
        }))
    }
}

struct Target(TargetSpec);

impl FromRow<'_, SqliteRow> for Target {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
        let address: Option<&str> = row.try_get("address")?;
        let real = address.and_then(|text| text.parse().ok());
        let behind: bool = row.try_get("behind")?;
        let inner = inner_addresses(row)?;
        Ok(Target(TargetSpec {
            host: id(row, "id")?,
            name: row.try_get("name")?,
            peer: id(row, "peer")?,
            behind,
            labels: labels.0,
            addresses: if behind { mapped(inner, real) } else { own(inner) },
        }))
    }
}

fn own(inner: Vec<IpAddr>) -> Vec<TargetAddress> {
    inner.into_iter().map(|address| TargetAddress { reached_at: address, real: address }).collect()
}

/// Maps the alias of a host behind a device to its real address. They are of the same family.
fn mapped(aliases: Vec<IpAddr>, real: Option<IpAddr>) -> Vec<TargetAddress> {
    let Some(real) = real else { return Vec::new() };
    let same = aliases.into_iter().filter(|alias| alias.is_ipv4() == real.is_ipv4());
    same.map(|alias| TargetAddress { reached_at: alias, real }).collect()
}

/// Returns the whole policy, for the start.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn all(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<PolicyChange>> {
    let sources = sqlx::query(ALL_SOURCES).fetch_all(&mut *conn).await?;
    let targets = sqlx::query(ALL_TARGETS).fetch_all(&mut *conn).await?;
    let grants = sqlx::query(grants::OPEN).bind(now.as_millis()).fetch_all(conn).await?;
    let sources = sound(&sources).map(|Source(spec)| PolicyChange::Source(spec));
    let targets = sound(&targets).map(|Target(spec)| PolicyChange::Target(spec));
    let grants = sound(&grants).map(|grant: Grant| PolicyChange::Grant(grant.spec()));
    Ok(sources.chain(targets).chain(grants).collect())
}

fn sound<T: for<'r> FromRow<'r, SqliteRow>>(rows: &[SqliteRow]) -> impl Iterator<Item = T> {
    let read =
        |row| T::from_row(row).inspect_err(|error| tracing::error!("the policy leaves out a row: {error}"));
    rows.iter().filter_map(move |row| read(row).ok())
}

/// Returns the changes of the policy after these rows have changed.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn changes(
    conn: &mut SqliteConnection,
    rows: &PolicyRows,
    now: Wall,
) -> sqlx::Result<Vec<PolicyChange>> {
    let mut changes = Vec::with_capacity(rows.len());
    let operators: Vec<(i64,)> = these(conn, THESE_OPERATORS, &rows.sources).await?;
    let operators: BTreeSet<PeerId> = operators.into_iter().map(|(id,)| Id::from_i64(id)).collect();
    let sources: Vec<Source> = these(conn, THESE_SOURCES, &operators).await?;
    changes.extend(missing(&operators, sources.iter().map(|s| s.0.peer)).map(PolicyChange::RemoveSource));
    changes.extend(sources.into_iter().map(|Source(spec)| PolicyChange::Source(spec)));
    let targets: Vec<Target> = these(conn, THESE_TARGETS, &rows.targets).await?;
    changes.extend(missing(&rows.targets, targets.iter().map(|t| t.0.host)).map(PolicyChange::RemoveTarget));
    changes.extend(targets.into_iter().map(|Target(spec)| PolicyChange::Target(spec)));
    let found: Vec<Grant> = these(conn, grants::THESE, &rows.grants).await?;
    let open: Vec<Grant> = found.into_iter().filter(|grant| grant.is_open(now)).collect();
    changes.extend(missing(&rows.grants, open.iter().map(|g| g.id)).map(PolicyChange::WithdrawGrant));
    changes.extend(open.iter().map(|grant| PolicyChange::Grant(grant.spec())));
    Ok(changes)
}

/// Returns how a host is reached; `None` if it has no tunnel, nor the device in front of it.
///
/// # Errors
/// Fails when the database cannot be read or the row is invalid.
pub async fn target(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<TargetSpec>> {
    let found: Vec<Target> = these(conn, THESE_TARGETS, &BTreeSet::from([host])).await?;
    Ok(found.into_iter().next().map(|Target(spec)| spec))
}

async fn these<T>(conn: &mut SqliteConnection, sql: &'static str, ids: &BTreeSet<Id>) -> sqlx::Result<Vec<T>>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
    sqlx::query_as(sql).bind(Json(ids)).fetch_all(conn).await
}

/// Returns the ids that are not among the found ones.
fn missing(wanted: &BTreeSet<Id>, found: impl Iterator<Item = Id>) -> impl Iterator<Item = Id> {
    let found: BTreeSet<Id> = found.collect();
    wanted.iter().copied().filter(|id| !found.contains(id)).collect::<Vec<_>>().into_iter()
}
