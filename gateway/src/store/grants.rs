//! Grants: who may reach what through the gateway, and when. Ended and withdrawn ones are kept.
//!
//! This module takes valid values. `policy.rs` turns them into the policy of the engine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use fleetgate_engine::id::{GrantId, HostId, Id, PeerId, UserId};
use fleetgate_engine::messages::{
    Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget,
};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{Role, id, maybe_wall, wall};
use super::lists::{Entry, ListRow};
use super::managed::{Managed, Writer};

/// A stored grant.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub id: GrantId,
    /// The name in the file of its manager.
    pub name: Option<String>,
    pub source: Source,
    /// The name of the peer or user, also of a removed one.
    pub source_name: Option<String>,
    pub target: Target,
    /// The name of the host, also of a removed one.
    pub target_name: Option<String>,
    pub access: Vec<GrantAccess>,
    /// `None`: since it was made.
    pub from: Option<Wall>,
    /// Not included. `None`: until it is withdrawn.
    pub until: Option<Wall>,
    pub reason: String,
    /// The principal.
    pub author: String,
    pub managed: Managed,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
    pub withdrawn: Option<Withdrawal>,
}

/// The source of a stored grant. The grants of rentals follow from the rentals, and are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Peer(PeerId),
    User(UserId),
    Role(GrantRole),
}

/// The destination of a stored grant, as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    AllDevices,
    Host(HostId),
    Labels(BTreeMap<String, String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    pub at: Wall,
    /// The principal.
    pub by: String,
}

/// The state of a grant at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its window has not begun.
    Pending,
    Active,
    Ended,
    Withdrawn,
}

impl State {
    pub const ALL: [State; 4] = [State::Pending, State::Active, State::Ended, State::Withdrawn];

    pub const fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::Ended => "ended",
            State::Withdrawn => "withdrawn",
        }
    }
}

impl Grant {
    pub fn state(&self, now: Wall) -> State {
        match () {
            () if self.withdrawn.is_some() => State::Withdrawn,
            () if self.until.is_some_and(|until| until <= now) => State::Ended,
            () if self.from.is_some_and(|from| from > now) => State::Pending,
            () => State::Active,
        }
    }

    /// Whether it is neither ended nor withdrawn.
    pub fn is_open(&self, now: Wall) -> bool {
        matches!(self.state(now), State::Pending | State::Active)
    }

    /// The grant for the engine.
    pub fn spec(&self) -> GrantSpec {
        let source = match self.source {
            Source::Peer(peer) => GrantSource::Peer(peer),
            Source::User(user) => GrantSource::User(user),
            Source::Role(role) => GrantSource::Role(role),
        };
        let target = match &self.target {
            Target::AllDevices => GrantTarget::AllDevices,
            Target::Host(host) => GrantTarget::Host(*host),
            Target::Labels(labels) => GrantTarget::Labels(labels.clone()),
        };
        GrantSpec {
            id: self.id,
            source,
            target,
            access: self.access.clone(),
            from: self.from,
            until: self.until,
            only: None,
            gate: Gate::default(),
        }
    }
}

/// Returns the role for grants. Viewers reach nothing, so they have none.
pub const fn grant_role(role: Role) -> Option<GrantRole> {
    match role {
        Role::Viewer => None,
        Role::Operator => Some(GrantRole::Operator),
        Role::Admin => Some(GrantRole::Admin),
    }
}

pub const fn role_name(role: GrantRole) -> &'static str {
    match role {
        GrantRole::Operator => Role::Operator.name(),
        GrantRole::Admin => Role::Admin.name(),
    }
}

pub const PROTOCOLS: [GrantProtocol; 3] = [GrantProtocol::Icmp, GrantProtocol::Tcp, GrantProtocol::Udp];

pub const fn protocol_name(protocol: GrantProtocol) -> &'static str {
    match protocol {
        GrantProtocol::Icmp => "icmp",
        GrantProtocol::Tcp => "tcp",
        GrantProtocol::Udp => "udp",
    }
}

/// The column `access`, also that of rentals. A range of ports is its first and its last.
#[derive(Serialize, Deserialize)]
pub(super) struct AccessRow {
    protocol: String,
    ports: Vec<(u16, u16)>,
}

pub(super) fn access_rows(access: &[GrantAccess]) -> Json<Vec<AccessRow>> {
    let row = |of: &GrantAccess| AccessRow {
        protocol: protocol_name(of.protocol).to_owned(),
        ports: of.ports.iter().map(|range| (*range.start(), *range.end())).collect(),
    };
    Json(access.iter().map(row).collect())
}

/// Reads the column `access`.
///
/// # Errors
/// Fails for a value that this program did not write.
pub(super) fn access_column(row: &SqliteRow) -> sqlx::Result<Vec<GrantAccess>> {
    let access: Json<Vec<AccessRow>> = row.try_get("access")?;
    access.0.into_iter().map(access_of).collect()
}

pub(super) fn access_of(row: AccessRow) -> sqlx::Result<GrantAccess> {
    let found = PROTOCOLS.into_iter().find(|protocol| protocol_name(*protocol) == row.protocol);
    let protocol = found.ok_or_else(|| damaged("access"))?;
    let ports = row.ports.into_iter().map(|(first, last)| RangeInclusive::new(first, last)).collect();
    Ok(GrantAccess { protocol, ports })
}

fn damaged(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "not written by this program".into() }
}

impl FromRow<'_, SqliteRow> for Grant {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let by: Option<String> = row.try_get("withdrawn_by")?;
        let withdrawn =
            maybe_wall(row, "withdrawn_at")?.map(|at| Withdrawal { at, by: by.unwrap_or_default() });
        Ok(Grant {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            source: source(row)?,
            source_name: row.try_get("source_name")?,
            target: target(row)?,
            target_name: row.try_get("target_name")?,
            access: access_column(row)?,
            from: maybe_wall(row, "from_at")?,
            until: maybe_wall(row, "until_at")?,
            reason: row.try_get("reason")?,
            author: row.try_get("author")?,
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
            withdrawn,
        })
    }
}

impl ListRow for Grant {
    const TABLE: &'static str = "grants";
}

fn source(row: &SqliteRow) -> sqlx::Result<Source> {
    let number = |column: &str| -> sqlx::Result<Option<Id>> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Id::from_i64))
    };
    let role: Option<String> = row.try_get("source_role")?;
    match (number("source_peer")?, number("source_user")?, role) {
        (Some(peer), None, None) => Ok(Source::Peer(peer)),
        (None, Some(user), None) => Ok(Source::User(user)),
        (None, None, Some(role)) => {
            let role = role.parse().ok().and_then(grant_role);
            role.map(Source::Role).ok_or_else(|| damaged("source_role"))
        }
        _ => Err(damaged("source_peer")),
    }
}

fn target(row: &SqliteRow) -> sqlx::Result<Target> {
    let host: Option<i64> = row.try_get("target_host")?;
    let labels: Option<Json<BTreeMap<String, String>>> = row.try_get("target_labels")?;
    match (host, labels) {
        (Some(host), None) => Ok(Target::Host(Id::from_i64(host))),
        (None, Some(labels)) => Ok(Target::Labels(labels.0)),
        (None, None) => Ok(Target::AllDevices),
        _ => Err(damaged("target_host")),
    }
}

macro_rules! select {
    ($rest:expr) => {
        concat!(
            "select g.*, coalesce(o.name, u.name, g.source_user_name) as source_name, h.name as target_name
             from grants g
             left join operators o on o.id = g.source_peer
             left join users u on u.id = g.source_user
             left join hosts h on h.id = g.target_host ",
            $rest
        )
    };
}

/// Grants that are neither withdrawn nor ended at `$1`.
pub(super) const OPEN: &str =
    select!("where g.withdrawn_at is null and (g.until_at is null or g.until_at > $1) order by g.id");
const OPEN_IDS: &str =
    "select id from grants where withdrawn_at is null and (until_at is null or until_at > $1) order by id";
/// `$1`: the ids as JSON.
pub(super) const THESE: &str = select!("where g.id in (select value from json_each($1))");

/// Returns the grants that are neither withdrawn nor ended.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open_ids(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<GrantId>> {
    let ids: Vec<i64> = sqlx::query_scalar(OPEN_IDS).bind(now.as_millis()).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// Adds a grant.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, grant: &Grant) -> sqlx::Result<()> {
    let sql = "insert into grants (id, author, created_at, access, version) values ($1, $2, $3, '[]', $4)";
    let query = sqlx::query(sql).bind(grant.id.as_i64()).bind(&grant.author);
    query.bind(grant.created_at.as_millis()).bind(grant.version).execute(&mut *tx).await?;
    write(tx, grant).await
}

/// Stores a changed grant and raises the version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, grant: &Grant) -> sqlx::Result<()> {
    let sql = "update grants set version = version + 1 where id = $1";
    sqlx::query(sql).bind(grant.id.as_i64()).execute(&mut *tx).await?;
    write(tx, grant).await
}

async fn write(tx: &mut SqliteConnection, grant: &Grant) -> sqlx::Result<()> {
    let (peer, user, role) = match grant.source {
        Source::Peer(peer) => (Some(peer.as_i64()), None, None),
        Source::User(user) => (None, Some(user.as_i64()), None),
        Source::Role(role) => (None, None, Some(role_name(role))),
    };
    let (host, labels) = match &grant.target {
        Target::AllDevices => (None, None),
        Target::Host(host) => (Some(host.as_i64()), None),
        Target::Labels(labels) => (None, Some(Json(labels))),
    };
    sqlx::query(
        "update grants set name = $2, source_peer = $3, source_user = $4, source_user_name = $5,
             source_role = $6, target_host = $7, target_labels = $8, access = $9, from_at = $10,
             until_at = $11, reason = $12, managed_by = $13, edited_by = $14
         where id = $1",
    )
    .bind(grant.id.as_i64())
    .bind(grant.name.as_deref())
    .bind(peer)
    .bind(user)
    .bind(user.and(grant.source_name.as_deref()))
    .bind(role)
    .bind(host)
    .bind(labels)
    .bind(access_rows(&grant.access))
    .bind(grant.from.map(Wall::as_millis))
    .bind(grant.until.map(Wall::as_millis))
    .bind(&grant.reason)
    .bind(&grant.managed.by)
    .bind(grant.managed.edited_by.as_deref())
    .execute(tx)
    .await
    .map(drop)
}

/// Withdraws a grant.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn withdraw(
    tx: &mut SqliteConnection,
    grant: &Grant,
    writer: Writer<'_>,
    at: Wall,
) -> sqlx::Result<()> {
    let managed = grant.managed.clone().written(writer);
    let sql = "update grants set withdrawn_at = $2, withdrawn_by = $3, managed_by = $4, edited_by = $5,
                   version = version + 1
               where id = $1 and withdrawn_at is null";
    sqlx::query(sql)
        .bind(grant.id.as_i64())
        .bind(at.as_millis())
        .bind(writer.principal)
        .bind(&managed.by)
        .bind(managed.edited_by.as_deref())
        .execute(tx)
        .await
        .map(drop)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, grant: GrantId) -> sqlx::Result<Option<Grant>> {
    sqlx::query_as(select!("where g.id = $1")).bind(grant.as_i64()).fetch_optional(conn).await
}

/// Returns the newest grant with this name that was not withdrawn.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find_named(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Grant>> {
    let sql = select!("where g.name = $1 and g.withdrawn_at is null order by g.id desc limit 1");
    sqlx::query_as(sql).bind(name).fetch_optional(conn).await
}

/// Counts the grants that are neither withdrawn nor ended.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn count_open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<i64> {
    let sql =
        "select count(*) from grants where withdrawn_at is null and (until_at is null or until_at > $1)";
    sqlx::query_scalar(sql).bind(now.as_millis()).fetch_one(conn).await
}

/// Selects grants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Includes ended and withdrawn ones.
    pub all: bool,
    pub manager: Option<&'a str>,
    /// Only those that select this host and can reach it.
    pub host: Option<HostId>,
}

/// The condition that the host `h` has all of these labels, which are given as JSON.
macro_rules! has_labels {
    ($labels:literal) => {
        concat!(
            "not exists (select 1 from json_each(",
            $labels,
            ") wanted where not exists (
                 select 1 from json_each(h.labels) has
                 where has.key = wanted.key and has.value = wanted.value))"
        )
    };
}

pub(super) use has_labels;

/// Returns the newest grants first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    wanted: Filter<'_>,
    now: Wall,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<Grant>>> {
    let sql = select!(concat!(
        "where g.id < $1 and ($2 or g.withdrawn_at is null and (g.until_at is null or g.until_at > $3))
           and ($5 is null or g.managed_by = $5)
           and ($6 is null or exists (
               select 1 from hosts h join peers p on p.id = coalesce(h.via, h.id) and p.removed_at is null
               where h.id = $6 and h.removed_at is null and case
                   when g.target_host is not null then g.target_host = h.id
                   when g.target_labels is null then h.via is null
                   else ",
        // Labels that are no JSON would fail the statement. The row is then one that cannot be read.
        has_labels!("iif(json_valid(g.target_labels), g.target_labels, '{}')"),
        " end))
         order by g.id desc limit $4"
    ));
    let query = sqlx::query_as(sql).bind(before).bind(wanted.all).bind(now.as_millis()).bind(limit);
    query.bind(wanted.manager).bind(wanted.host.map(HostId::as_i64)).fetch_all(conn).await
}

macro_rules! open_of {
    ($column:literal) => {
        select!(concat!(
            "where g.withdrawn_at is null and (g.until_at is null or g.until_at > $1) and g.",
            $column,
            " = $2 order by g.id"
        ))
    };
}

/// Something that grants name.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    Peer(PeerId),
    User(UserId),
    Host(HostId),
}

/// Returns the grants that name something, and are neither withdrawn nor ended.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open_of(conn: &mut SqliteConnection, named: Named, now: Wall) -> sqlx::Result<Vec<Grant>> {
    let (sql, id) = match named {
        Named::Peer(id) => (open_of!("source_peer"), id),
        Named::User(id) => (open_of!("source_user"), id),
        Named::Host(id) => (open_of!("target_host"), id),
    };
    sqlx::query_as(sql).bind(now.as_millis()).bind(id.as_i64()).fetch_all(conn).await
}

/// Counts the hosts that a target selects now and that can be reached.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn matches(conn: &mut SqliteConnection, target: &Target) -> sqlx::Result<i64> {
    let (devices_only, host, labels) = match target {
        Target::AllDevices => (true, None, BTreeMap::new()),
        Target::Host(host) => (false, Some(host.as_i64()), BTreeMap::new()),
        Target::Labels(labels) => (false, None, labels.clone()),
    };
    let sql = concat!(
        "select count(*) from hosts h
         join peers p on p.id = coalesce(h.via, h.id) and p.removed_at is null
         where h.removed_at is null and (not $1 or h.via is null) and ($2 is null or h.id = $2) and ",
        has_labels!("$3")
    );
    sqlx::query_scalar(sql).bind(devices_only).bind(host).bind(Json(labels)).fetch_one(conn).await
}
