//! Devices: hosts with an identity of their own, with or without a tunnel.
//!
//! A device is a host that stands behind no other. Its peer, if it has one, shares its id. This
//! module takes valid values. The database refuses a name or key that is taken.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::RoutePolicy;
use fleetgate_engine::time::Wall;
use fleetgate_keys::PublicKey;
use ipnet::IpNet;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{id, maybe_wall, wall};
use super::addresses::{self, NoAddress, Pools};
use super::lists::{Entry, ListRow};
use super::managed::Managed;
use super::{peer_state, peers_of_people};
use crate::ids::IdKind;

/// The settings of a device as an operator gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Empty: the profile rules decide.
    pub profile: String,
    pub route: RoutePolicy,
    pub direct_address: Option<String>,
    pub ssh: Ssh,
    /// The networks behind the device's peer.
    pub networks: Vec<IpNet>,
    /// The inner MTU of the device's peer; `None`: the usual one.
    pub mtu: Option<u16>,
    pub notes: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    pub port: u16,
    pub user: Option<String>,
    pub pin: Option<Pin>,
}

/// The pinned SSH host key as `SHA256:...`, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub fingerprint: String,
    /// `tunnel`, `given` or `trusted`.
    pub source: String,
    /// The type as in `known_hosts`. It is known once the server has proved the key.
    pub key_type: Option<String>,
}

impl Pin {
    pub fn new(fingerprint: String, source: &str) -> Self {
        Pin { fingerprint, source: source.to_owned(), key_type: None }
    }
}

/// A stored device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub id: HostId,
    pub settings: Settings,
    pub managed: Managed,
    pub tunnel: Option<Tunnel>,
    pub version: i64,
    pub created_at: Wall,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    pub public_key: String,
    /// The time when this key was set.
    pub keyed_at: Wall,
    pub addresses: Vec<IpAddr>,
    /// The last stored handshake, by any key of the peer.
    pub last_handshake: Option<Wall>,
}

pub const fn route_name(route: RoutePolicy) -> &'static str {
    match route {
        RoutePolicy::Tunnel => "tunnel",
        RoutePolicy::Direct => "direct",
        RoutePolicy::Auto => "auto",
    }
}

pub fn route_named(name: &str) -> Option<RoutePolicy> {
    [RoutePolicy::Tunnel, RoutePolicy::Direct, RoutePolicy::Auto].into_iter().find(|r| route_name(*r) == name)
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "select h.*, p.networks, p.mtu, k.public_key, k.added_at as keyed_at, m.last_handshake,
                 (select string_agg(a.address, ' ') from addresses a
                  where a.peer = h.id and a.released_at is null) as inner_addresses
             from hosts h
             left join peers p on p.id = h.id and p.removed_at is null
             left join peer_keys k on k.peer = p.id and k.retired_at is null and k.position = 0
             left join peer_memory m on m.peer = p.id
             where h.removed_at is null and h.via is null and ",
            $condition
        )
    };
}

const BY_ID: &str = select!("h.id = $1");
const BY_NAME: &str = select!("h.name = $1");
const LIST: &str = select!(
    "h.name > $1 and ($2 is null or instr(h.name, $2) > 0)
     and not exists (select 1 from json_each($3) l where instr(h.labels, l.value) = 0) order by h.name limit $4"
);

impl FromRow<'_, SqliteRow> for Device {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Device {
            id: id(row, "id")?,
            settings: settings(row)?,
            managed: Managed::from_row(row)?,
            tunnel: tunnel(row)?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Device {
    const TABLE: &'static str = "hosts";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

fn settings(row: &SqliteRow) -> sqlx::Result<Settings> {
    let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
    let networks: Option<Json<Vec<IpNet>>> = row.try_get("networks")?;
    let route: String = row.try_get("route")?;
    let fingerprint: Option<String> = row.try_get("ssh_pin")?;
    let source: Option<String> = row.try_get("ssh_pin_source")?;
    let key_type: Option<String> = row.try_get("ssh_pin_type")?;
    let pin = fingerprint.map(|f| Pin { fingerprint: f, source: source.unwrap_or_default(), key_type });
    Ok(Settings {
        name: row.try_get("name")?,
        labels: labels.0,
        profile: row.try_get("profile")?,
        route: route_named(&route).ok_or_else(|| damaged("route", "tunnel, direct or auto is expected"))?,
        direct_address: row.try_get("direct_address")?,
        ssh: Ssh { port: row.try_get("ssh_port")?, user: row.try_get("ssh_user")?, pin },
        networks: networks.map(|n| n.0).unwrap_or_default(),
        mtu: row.try_get("mtu")?,
        notes: row.try_get("notes")?,
    })
}

fn tunnel(row: &SqliteRow) -> sqlx::Result<Option<Tunnel>> {
    let Some(public_key) = row.try_get::<Option<String>, _>("public_key")? else { return Ok(None) };
    let addresses = inner_addresses(row)?;
    let (keyed_at, last_handshake) = (wall(row, "keyed_at")?, maybe_wall(row, "last_handshake")?);
    Ok(Some(Tunnel { public_key, keyed_at, addresses, last_handshake }))
}

/// Reads the column `inner_addresses`, which has blanks between them. IPv4 comes first.
pub(super) fn inner_addresses(row: &SqliteRow) -> sqlx::Result<Vec<IpAddr>> {
    let text: Option<String> = row.try_get("inner_addresses")?;
    let parsed: Result<Vec<IpAddr>, _> =
        text.unwrap_or_default().split_whitespace().map(str::parse).collect();
    let mut addresses = parsed.map_err(|_| damaged("address", "an IP address is expected"))?;
    addresses.sort_unstable();
    Ok(addresses)
}

fn damaged(column: &str, why: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: why.into() }
}

/// Selects devices.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A part of the name.
    pub q: Option<String>,
    /// All of them.
    pub labels: Vec<(String, String)>,
}

impl Store {
    /// Returns devices in name order, starting after the name `after`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn devices(
        &self,
        filter: &Filter,
        after: &str,
        limit: i64,
    ) -> sqlx::Result<Vec<Entry<Device>>> {
        // The column is compact JSON of sorted strings, so that one label is a piece of its text.
        let labels: Vec<String> =
            filter.labels.iter().map(|(k, v)| format!("{}:{}", Json(k).text(), Json(v).text())).collect();
        let query = sqlx::query_as(LIST).bind(after).bind(filter.q.as_deref()).bind(Json(labels));
        query.bind(limit).fetch_all(&self.read).await
    }
}

trait Text {
    fn text(&self) -> String;
}

impl Text for Json<&String> {
    fn text(&self) -> String {
        serde_json::to_string(self.0).expect("a string is JSON")
    }
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Option<Device>> {
    sqlx::query_as(BY_ID).bind(device.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_name(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Device>> {
    sqlx::query_as(BY_NAME).bind(name).fetch_optional(conn).await
}

#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    #[error("the name {0:?} is taken by another host")]
    NameTaken(String),
    #[error(transparent)]
    Key(#[from] KeyTaken),
    #[error(transparent)]
    Address(#[from] NoAddress),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// A key belongs to one peer for ever, because its first owner may still have it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this public key is in use already, or was: make a new pair on the device")]
pub struct KeyTaken {
    /// The owner, for callers who may see it.
    pub owner: Option<KeyOwner>,
}

/// The peer that has a key, or had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    pub peer: PeerId,
    pub kind: IdKind,
    /// `None` of a renter: people chose it, and it is personal data.
    pub name: Option<String>,
}

/// Inserts the host. If it gets a tunnel, [`set_key`] creates it.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    device: HostId,
    settings: &Settings,
    now: Wall,
) -> Result<(), NotMade> {
    let sql = "insert into hosts (id, name, profile, created_at, version)
               values ($1, $2, '', $3, (select version from instance))";
    let query = sqlx::query(sql).bind(device.as_i64()).bind(&settings.name).bind(now.as_millis());
    query.execute(&mut *tx).await.map_err(|e| name_taken(e, &settings.name))?;
    write_settings(tx, device, settings).await
}

/// Stores changed settings and raises the version.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, device: HostId, settings: &Settings) -> Result<(), NotMade> {
    sqlx::query("update hosts set version = version + 1 where id = $1")
        .bind(device.as_i64())
        .execute(&mut *tx)
        .await?;
    write_settings(tx, device, settings).await
}

/// Stores settings that a device reported. The version stays, because it counts the changes of
/// operators.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn write_settings(
    tx: &mut SqliteConnection,
    device: HostId,
    settings: &Settings,
) -> Result<(), NotMade> {
    let pin = settings.ssh.pin.as_ref();
    sqlx::query(
        "update hosts set name = $2, labels = $3, profile = $4, route = $5, direct_address = $6,
             ssh_port = $7, ssh_user = $8, ssh_pin = $9, ssh_pin_source = $10, notes = $11,
             ssh_pin_type = case when ssh_pin = $9 then ssh_pin_type end,
             ssh_pin_line = case when ssh_pin = $9 then ssh_pin_line end
         where id = $1",
    )
    .bind(device.as_i64())
    .bind(&settings.name)
    .bind(Json(&settings.labels))
    .bind(&settings.profile)
    .bind(route_name(settings.route))
    .bind(settings.direct_address.as_deref())
    .bind(settings.ssh.port)
    .bind(settings.ssh.user.as_deref())
    .bind(pin.map(|p| p.fingerprint.as_str()))
    .bind(pin.map(|p| p.source.as_str()))
    .bind(&settings.notes)
    .execute(&mut *tx)
    .await
    .map_err(|e| name_taken(e, &settings.name))?;
    Ok(write_peer(tx, device, settings).await?)
}

/// Sets what the device's peer has of the settings. Does nothing for a device without a peer.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn write_peer(tx: &mut SqliteConnection, device: HostId, settings: &Settings) -> sqlx::Result<()> {
    let sql = "update peers set networks = $2, mtu = $3 where id = $1";
    let query = sqlx::query(sql).bind(device.as_i64()).bind(Json(&settings.networks)).bind(settings.mtu);
    query.execute(tx).await.map(drop)
}

pub(super) fn name_taken(error: sqlx::Error, name: &str) -> NotMade {
    if error.as_database_error().is_some_and(|e| e.is_unique_violation()) {
        return NotMade::NameTaken(name.to_owned());
    }
    NotMade::Store(error)
}

/// A new key of a peer.
pub struct NewKey {
    pub public: PublicKey,
    /// Sealed for [`super::snapshot::psk_place`].
    pub sealed_psk: Vec<u8>,
}

/// The kind of a device's peer.
pub const DEVICE: &str = "device";

/// Sets the only key of a peer of this kind. Retires earlier keys and forgets their peer state. Creates
/// the peer with its addresses if it does not exist.
///
/// # Errors
/// Fails when the key is or was in use, or no address is free.
pub async fn set_key(
    tx: &mut SqliteConnection,
    (peer, kind): (PeerId, &str),
    key: NewKey,
    pools: Pools,
    now: Wall,
) -> Result<(), NotMade> {
    if let Some(taken) = key_taken(tx, &key.public).await? {
        return Err(taken.into());
    }
    let sql = "insert into peers (id, kind, created_at) values ($1, $2, $3) on conflict (id) do nothing";
    let done =
        sqlx::query(sql).bind(peer.as_i64()).bind(kind).bind(now.as_millis()).execute(&mut *tx).await?;
    if done.rows_affected() > 0 {
        addresses::allocate(tx, peer, pools, now).await?;
    }
    retire_keys(tx, peer, now).await?;
    sqlx::query("insert into peer_keys (public_key, peer, psk, added_at) values ($1, $2, $3, $4)")
        .bind(key.public.to_string())
        .bind(peer.as_i64())
        .bind(key.sealed_psk)
        .bind(now.as_millis())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn retire_keys(tx: &mut SqliteConnection, device: PeerId, now: Wall) -> sqlx::Result<()> {
    let sql = "update peer_keys set retired_at = $2,
                      stamp = (select stamp from peer_memory where peer = $1)
         where peer = $1 and retired_at is null";
    sqlx::query(sql).bind(device.as_i64()).bind(now.as_millis()).execute(&mut *tx).await?;
    peer_state::forget_key(tx, device).await?;
    let sql = "update enrolments set state = 'expired', reason = 'the key was replaced'
         where host = $1 and state = 'approved'";
    sqlx::query(sql).bind(device.as_i64()).execute(tx).await.map(drop)
}

/// Returns the owner of a key that is or was in use.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn key_taken(tx: &mut SqliteConnection, key: &PublicKey) -> sqlx::Result<Option<KeyTaken>> {
    let sql = "select k.peer, p.kind, coalesce(h.name, o.name) from peer_keys k
               join peers p on p.id = k.peer
               left join hosts h on h.id = k.peer left join operators o on o.id = k.peer
               where k.public_key = $1";
    let owner: Option<(i64, String, Option<String>)> =
        sqlx::query_as(sql).bind(key.to_string()).fetch_optional(tx).await?;
    let owner = owner.map(|(id, kind, name)| {
        let kind = match kind.as_str() {
            peers_of_people::OPERATOR => IdKind::Operator,
            peers_of_people::RENTER => IdKind::Renter,
            _ => IdKind::Host,
        };
        KeyOwner { peer: Id::from_i64(id), kind, name }
    });
    Ok(owner.map(|owner| KeyTaken { owner: Some(owner) }))
}

/// Returns the hosts behind a device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn hosts_behind(tx: &mut SqliteConnection, device: HostId) -> sqlx::Result<Vec<HostId>> {
    let sql = "select id from hosts where via = $1 and removed_at is null";
    let ids: Vec<i64> = sqlx::query_scalar(sql).bind(device.as_i64()).fetch_all(tx).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// A host that depends on another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    pub id: HostId,
    pub name: String,
}

fn dependents(rows: Vec<(i64, String)>) -> Vec<Dependent> {
    rows.into_iter().map(|(id, name)| Dependent { id: Id::from_i64(id), name }).collect()
}

/// Returns the hosts behind a device in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn behind(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Vec<Dependent>> {
    let sql = "select id, name from hosts where via = $1 and removed_at is null order by name";
    Ok(dependents(sqlx::query_as(sql).bind(device.as_i64()).fetch_all(conn).await?))
}

const CHILDREN: &str = "select id, name from hosts
     where removed_at is null and id not in (select value from json_each($1))
       and exists (select 1 from json_each(hosts.parents) p
                   where p.value in (select value from json_each($1)))
     order by name";

/// Returns the hosts outside `hosts` that name one of them as a parent.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn children(conn: &mut SqliteConnection, hosts: &[HostId]) -> sqlx::Result<Vec<Dependent>> {
    let ids: Vec<i64> = hosts.iter().map(|id| id.as_i64()).collect();
    Ok(dependents(sqlx::query_as(CHILDREN).bind(sqlx::types::Json(ids)).fetch_all(conn).await?))
}

/// Removes parents from a host.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn drop_parents(tx: &mut SqliteConnection, host: HostId, gone: &[HostId]) -> sqlx::Result<()> {
    let ids: Vec<i64> = gone.iter().map(|id| id.as_i64()).collect();
    let sql = "update hosts set version = version + 1, parents =
                   (select coalesce(json_group_array(p.value), '[]') from json_each(hosts.parents) p
                    where p.value not in (select value from json_each($2)))
               where id = $1";
    sqlx::query(sql).bind(host.as_i64()).bind(sqlx::types::Json(ids)).execute(tx).await?;
    Ok(())
}

/// Returns the hosts behind a device in name order, with their addresses there.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn addresses_behind(
    tx: &mut SqliteConnection,
    device: HostId,
) -> sqlx::Result<Vec<(String, IpAddr)>> {
    let sql = "select name, address from hosts
         where via = $1 and removed_at is null and address is not null order by name";
    let rows: Vec<(String, String)> = sqlx::query_as(sql).bind(device.as_i64()).fetch_all(tx).await?;
    let parsed = |(name, address): (String, String)| match address.parse() {
        Ok(address) => Ok((name, address)),
        Err(_) => Err(damaged("address", "an IP address is expected")),
    };
    rows.into_iter().map(parsed).collect()
}

/// Removes a host with its keys, addresses, alias and enrolments, and revokes tokens that would
/// replace it. Its history and events stay.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, host: HostId, now: Wall) -> sqlx::Result<()> {
    retire_keys(tx, host, now).await?;
    addresses::release(tx, host, now).await?;
    addresses::release_alias(tx, host, now).await?;
    for sql in [
        "update hosts set removed_at = $2, version = version + 1 where id = $1",
        "update peers set removed_at = $2 where id = $1",
        "update enrolment_tokens set revoked_at = $2 where replaces = $1 and revoked_at is null",
    ] {
        sqlx::query(sql).bind(host.as_i64()).bind(now.as_millis()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Returns the sealed preshared key of a key in use.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn sealed_psk(conn: &mut SqliteConnection, key: &PublicKey) -> sqlx::Result<Option<Vec<u8>>> {
    let sql = "select psk from peer_keys where public_key = $1 and retired_at is null";
    let psk: Option<Option<Vec<u8>>> =
        sqlx::query_scalar(sql).bind(key.to_string()).fetch_optional(conn).await?;
    Ok(psk.flatten())
}
