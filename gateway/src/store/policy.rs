//! The policy of the engine: who may reach what, read from users, operators, renters, hosts, grants and
//! rentals.
//!
//! The same statements read all of it at the start and single rows after each change. A row decides: one
//! that is gone, or has no effect any more, is withdrawn from the engine. An unreadable row is logged, and
//! counts as one that is gone: it permits nothing, and delays no other row. The engine itself judges the
//! windows of grants, because a clock that the shell reads may be wrong.
//!
//! While a restore waits for an admin, there is no source: no packet of a person passes, whatever the rows
//! permit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fleetgate_engine::id::{GrantId, HostId, Id, PeerId, RentalId};
use fleetgate_engine::messages::{
    PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{Connection as _, FromRow, Row as _};

use super::access::{id, role};
use super::devices::inner_addresses;
use super::grants::{self, Grant, grant_role};
use super::instance;
use super::rentals::policy::{self as rentals, Permission};
use crate::ids::IdKind;

/// Changed rows, each of which may change the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRows {
    pub sources: BTreeSet<PeerId>,
    pub targets: BTreeSet<HostId>,
    pub grants: BTreeSet<GrantId>,
    pub rentals: BTreeSet<RentalId>,
}

impl PolicyRows {
    pub fn add(&mut self, more: &PolicyRows) {
        self.sources.extend(&more.sources);
        self.targets.extend(&more.targets);
        self.grants.extend(&more.grants);
        self.rentals.extend(&more.rentals);
    }

    pub fn remove(&mut self, done: &PolicyRows) {
        self.sources.retain(|id| !done.sources.contains(id));
        self.targets.retain(|id| !done.targets.contains(id));
        self.grants.retain(|id| !done.grants.contains(id));
        self.rentals.retain(|id| !done.rentals.contains(id));
    }

    pub fn len(&self) -> usize {
        self.sources.len() + self.targets.len() + self.grants.len() + self.rentals.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Operators who may use grants: their users are enabled and no viewers.
macro_rules! operators {
    ($which:literal) => {
        concat!(
            "select o.id, o.user, u.role, null as person,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = o.id and a.released_at is null) as inner_addresses
             from operators o join users u on u.id = o.user
             where o.removed_at is null and u.disabled_at is null and u.role <> 'viewer'",
            $which
        )
    };
}

/// Renters of people who are not removed.
macro_rules! renters {
    ($which:literal) => {
        concat!(
            "select r.id, r.person, y.customer,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = r.id and a.released_at is null) as inner_addresses
             from renters r join people y on y.id = r.person
             where r.removed_at is null and y.removed_at is null",
            $which
        )
    };
}

/// The statements for the sources of a kind: for all of them, and for some (`$1`: the ids as JSON).
const SOURCES: [(IdKind, &str, &str); 2] = [
    (IdKind::Operator, operators!(""), operators!(" and o.id in (select value from json_each($1))")),
    (IdKind::Renter, renters!(""), renters!(" and r.id in (select value from json_each($1))")),
];

/// The peers of people among these, also removed ones. A device is no source. `$1`: the ids as JSON.
const OF_PEOPLE: &str = "select id from peers
     where kind in ('operator', 'renter') and id in (select value from json_each($1))";

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
        let person: Option<i64> = row.try_get("person")?;
        let owner = match person {
            Some(person) => {
                SourceOwner::Person { person: Id::from_i64(person), customer: id(row, "customer")? }
            }
            None => SourceOwner::User { user: id(row, "user")?, role: grant_role(role(row, "role")?) },
        };
        let addresses = inner_addresses(row)?.into_iter().collect();
        Ok(Source(SourceSpec { peer: id(row, "id")?, owner, addresses }))
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
        let host = id(row, "id")?;
        Ok(Target(TargetSpec {
            id: TargetId::Host(host),
            host,
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

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct PolicyReading {
    pub changes: Vec<PolicyChange>,
    /// The rows that permit nothing because they cannot be read.
    pub unreadable: PolicyRows,
}

/// Returns the whole policy, for the start. Grants that have ended by this clock are left out.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn all(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<PolicyReading> {
    let mut unreadable = PolicyRows::default();
    let mut sources: Vec<Source> = Vec::new();
    for (kind, all, _) in SOURCES {
        let rows = sqlx::query(all).fetch_all(&mut *conn).await?;
        sources.extend(sound::<Source>(kind, &rows, &mut unreadable.sources));
    }
    let targets = sqlx::query(ALL_TARGETS).fetch_all(&mut *conn).await?;
    let targets = sound(IdKind::Host, &targets, &mut unreadable.targets);
    let grants = sqlx::query(grants::OPEN).bind(now.as_millis()).fetch_all(&mut *conn).await?;
    let grants: Vec<Grant> = sound(IdKind::Grant, &grants, &mut unreadable.grants);
    let rentals = rentals::open(conn, now).await?;
    let rentals = permissions(sound(IdKind::Rental, &rentals, &mut unreadable.rentals));
    let sources = sources.into_iter().map(|Source(spec)| PolicyChange::Source(spec));
    let targets = targets.into_iter().map(|Target(spec)| PolicyChange::Target(spec));
    let grants = grants.iter().map(|grant| PolicyChange::Grant(grant.spec()));
    let changes = sources.chain(targets).chain(grants).chain(rentals).collect();
    let changes = without_unconfirmed(conn, changes).await?;
    Ok(PolicyReading { changes, unreadable })
}

/// Withdraws every source while a restore waits for an admin. The confirmation sends all of them again
/// ([`people`]). It is asked for after the rows were read: a confirmation in between is followed by its own
/// changes.
async fn without_unconfirmed(
    conn: &mut SqliteConnection,
    mut changes: Vec<PolicyChange>,
) -> sqlx::Result<Vec<PolicyChange>> {
    if instance::awaits_review(conn).await? {
        for change in &mut changes {
            if let PolicyChange::Source(spec) = change {
                *change = PolicyChange::RemoveSource(spec.peer);
            }
        }
    }
    Ok(changes)
}

/// Returns the peers of people, which are the sources of grants.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn people(conn: &mut SqliteConnection) -> sqlx::Result<BTreeSet<PeerId>> {
    let sql = "select id from peers where kind <> 'device' and removed_at is null";
    let ids: Vec<i64> = sqlx::query_scalar(sql).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

fn permissions(found: Vec<Permission>) -> impl Iterator<Item = PolicyChange> {
    found
        .into_iter()
        .flat_map(|Permission { target, grant }| [PolicyChange::Target(target), PolicyChange::Grant(grant)])
}

/// Returns what can be read, and adds the ids of the other rows to `unreadable`.
fn sound<T>(kind: IdKind, rows: &[SqliteRow], unreadable: &mut BTreeSet<Id>) -> Vec<T>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        match T::from_row(row) {
            Ok(found) => read.push(found),
            Err(error) => {
                let id = id(row, "id").unwrap_or(Id::from_i64(0));
                tracing::error!(
                    "the row of {} cannot be read, so that it permits nothing: {error}",
                    kind.text(id)
                );
                unreadable.insert(id);
            }
        }
    }
    read
}

/// Returns the changes of the policy after these rows have changed.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn changes(conn: &mut SqliteConnection, rows: &PolicyRows) -> sqlx::Result<PolicyReading> {
    let (mut changes, mut unreadable) = (Vec::with_capacity(rows.len()), PolicyRows::default());
    let of_people: Vec<(i64,)> = these(conn, OF_PEOPLE, &rows.sources).await?;
    let of_people: BTreeSet<PeerId> = of_people.into_iter().map(|(id,)| Id::from_i64(id)).collect();
    let mut sources: Vec<Source> = Vec::new();
    for (kind, _, some) in SOURCES {
        let rows = these_rows(conn, some, &of_people).await?;
        sources.extend(sound::<Source>(kind, &rows, &mut unreadable.sources));
    }
    changes.extend(missing(&of_people, sources.iter().map(|s| s.0.peer)).map(PolicyChange::RemoveSource));
    changes.extend(sources.into_iter().map(|Source(spec)| PolicyChange::Source(spec)));
    let targets = these_rows(conn, THESE_TARGETS, &rows.targets).await?;
    let targets: Vec<Target> = sound(IdKind::Host, &targets, &mut unreadable.targets);
    let gone = missing(&rows.targets, targets.iter().map(|t| t.0.host)).map(TargetId::Host);
    changes.extend(gone.map(PolicyChange::RemoveTarget));
    changes.extend(targets.into_iter().map(|Target(spec)| PolicyChange::Target(spec)));
    let found = these_rows(conn, grants::THESE, &rows.grants).await?;
    let mut found: Vec<Grant> = sound(IdKind::Grant, &found, &mut unreadable.grants);
    found.retain(|grant| grant.withdrawn.is_none());
    changes.extend(missing(&rows.grants, found.iter().map(|g| g.id)).map(PolicyChange::WithdrawGrant));
    changes.extend(found.iter().map(|grant| PolicyChange::Grant(grant.spec())));
    let found = rentals::these(conn, &rows.rentals).await?;
    let found: Vec<Permission> = sound(IdKind::Rental, &found, &mut unreadable.rentals);
    let gone = missing(&rows.rentals, found.iter().map(|permission| permission.grant.id));
    changes.extend(gone.flat_map(|rental| {
        [PolicyChange::WithdrawGrant(rental), PolicyChange::RemoveTarget(TargetId::Rental(rental))]
    }));
    changes.extend(permissions(found));
    Ok(PolicyReading { changes: without_unconfirmed(conn, changes).await?, unreadable })
}

/// Returns the changes of the policy after these rows have changed, as [`changes`] does, and what was read for them:
/// these rows and the rentals that change with them. All of it is read as it was at one moment.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn all_changes(
    conn: &mut SqliteConnection,
    rows: &PolicyRows,
) -> sqlx::Result<(PolicyRows, PolicyReading)> {
    let mut tx = conn.begin().await?;
    let rows = with_rentals(&mut tx, rows).await?;
    let reading = changes(&mut tx, &rows).await?;
    tx.rollback().await?;
    Ok((rows, reading))
}

/// Adds the rentals of devices that have changed, which lead to the address of the device, and the latest changes of
/// others on the device of a changed rental.
async fn with_rentals(conn: &mut SqliteConnection, rows: &PolicyRows) -> sqlx::Result<PolicyRows> {
    let mut rows = rows.clone();
    let of_devices = rentals::of_devices(&mut *conn, &rows.targets).await?;
    rows.rentals.extend(of_devices);
    let lately = rentals::changed_lately(conn, &rows.rentals).await?;
    rows.rentals.extend(lately);
    Ok(rows)
}

/// Returns how a host is reached; `None` if it has no tunnel, nor the device in front of it.
///
/// # Errors
/// Fails when the database cannot be read or the row is invalid.
pub async fn target(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<TargetSpec>> {
    let found: Vec<Target> = these(conn, THESE_TARGETS, &BTreeSet::from([host])).await?;
    Ok(found.into_iter().next().map(|Target(spec)| spec))
}

/// Returns the rows as they are: an unreadable one must not hide the others.
async fn these_rows(
    conn: &mut SqliteConnection,
    sql: &'static str,
    ids: &BTreeSet<Id>,
) -> sqlx::Result<Vec<SqliteRow>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
    sqlx::query(sql).bind(Json(ids)).fetch_all(conn).await
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
