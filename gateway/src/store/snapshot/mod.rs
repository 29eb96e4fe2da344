//! Assembles rows for the engine: peers with their memory, and hosts with their last states,
//! profiles and overrides folded in.
//!
//! The same statements read all rows at the start and single ones after each change. An invalid row
//! is an error when it is read by itself. When all rows are loaded, it is logged and skipped,
//! because one bad row must not leave a fleet unmonitored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::{
    Acknowledgement, Alerting, Check, HostKey, HostSnapshot, HostSpec, HostStatus, KeyType, PeerKey,
    PeerKind, PeerSnapshot, PeerSpec, RetiredKey, RoutePolicy, SshSpec, TIMEOUT_SHARE, Tai64n, Timing,
};
use fleetgate_engine::monitor::profile::{AlertingChange, Catalogue, Facts, Pace, ServiceOverride};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{PresharedKey, PublicKey};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::devices::route_named;
use super::states::{self, HostRow, ServiceRow};
use super::{Store, acknowledgements, alerting, definition, profiles, wire_days, zones};
use crate::store::TimingDefaults;

impl Store {
    /// Returns the peer for the tunnel. `None` if there is no such peer (any more), or it may not connect.
    /// `mtu` is the inner MTU of a peer without one of its own.
    ///
    /// # Errors
    /// Fails when the database cannot be read or a row is invalid.
    pub async fn peer_spec(&self, id: PeerId, mtu: u16) -> anyhow::Result<Option<(PeerSpec, PeerSnapshot)>> {
        let mut conn = self.read.acquire().await?;
        let mut rows = PeerRows::load(&mut conn, Some(id)).await?;
        let Some(peer) = rows.peers.pop() else { return Ok(None) };
        rows.assemble(self, peer, mtu).map(Some)
    }

    /// Returns every peer that is not removed and may connect. `mtu` is the inner MTU of peers without one of
    /// their own.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn all_peers(&self, mtu: u16) -> anyhow::Result<Vec<(PeerSpec, PeerSnapshot)>> {
        let mut conn = self.read.acquire().await?;
        let mut rows = PeerRows::load(&mut conn, None).await?;
        let peers = std::mem::take(&mut rows.peers);
        let assembled = peers.into_iter().map(|peer| (peer.id, rows.assemble(self, peer, mtu)));
        Ok(assembled.filter_map(|(id, made)| sensible("peer", id, made)).collect())
    }

    /// Returns the former keys of peers, including removed ones. If there are more than `most`, the
    /// oldest are left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn retired_keys(&self, most: usize) -> anyhow::Result<Vec<RetiredKey>> {
        let sql = "select public_key, peer, retired_at, stamp from peer_keys
                   where retired_at is not null order by retired_at desc limit $1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<(String, i64, i64, Option<Vec<u8>>)> =
            sqlx::query_as(sql).bind(most).fetch_all(&self.read).await?;
        let retired = |(key, peer, at, stamp): (String, i64, i64, Option<Vec<u8>>)| {
            let public = key.parse().with_context(|| format!("the retired key {key:?}"))?;
            let stamp = stamp.and_then(|bytes| bytes.try_into().ok()).map(Tai64n);
            Ok(RetiredKey { public, peer: Id::from_i64(peer), at: Wall::from_millis(at), stamp })
        };
        rows.into_iter().map(retired).collect()
    }

    /// Returns the host for the monitor, with profile and overrides folded.
    ///
    /// # Errors
    /// Fails when the database cannot be read or a row is invalid.
    pub async fn host_spec(&self, id: HostId, timing: &TimingDefaults) -> anyhow::Result<Option<HostSpec>> {
        let mut conn = self.read.acquire().await?;
        host_spec(&mut conn, id, timing).await
    }

    /// Returns every host that is not removed, with its states. Adjusts the state rows to the
    /// services of each host.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn all_hosts(&self, timing: &TimingDefaults) -> anyhow::Result<Vec<HostSnapshot>> {
        let mut conn = self.read.acquire().await?;
        let mut rows = HostRows::load(&mut conn, Which::All).await?;
        let mut states = States::load(&mut conn).await?;
        let mut acknowledged = by_host(acknowledgements::open(&mut conn).await?);
        drop(conn);
        let hosts = std::mem::take(&mut rows.hosts);
        let specs: Vec<HostSpec> = hosts
            .into_iter()
            .filter_map(|host| sensible("host", host.id, rows.assemble(host, timing)))
            .collect();
        self.settle_all(&specs, &states).await?;
        let memory = |spec: HostSpec| {
            let acknowledged = acknowledged.remove(&spec.id).unwrap_or_default();
            HostSnapshot { acknowledged, ..states.memory(spec) }
        };
        Ok(specs.into_iter().map(memory).collect())
    }

    /// Adjusts the state rows of a host to its services.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn settle(&self, spec: &HostSpec) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        states::settle(&mut tx, spec, crate::clock::wall()).await?;
        tx.commit().await
    }

    /// Adjusts the state rows of several hosts in one transaction. Only differences are written.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn settle_these(&self, specs: &[HostSpec]) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        states::settle_these(&mut tx, specs, crate::clock::wall()).await?;
        tx.commit().await
    }

    /// Removes the states of a removed host.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn forget_states(&self, host: HostId) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        states::forget(&mut tx, host, crate::clock::wall()).await?;
        tx.commit().await
    }

    async fn settle_all(&self, specs: &[HostSpec], states: &States) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "delete from service_states where host in (select id from hosts where removed_at is not null)",
            "delete from host_states where host in (select id from hosts where removed_at is not null)",
        ] {
            sqlx::query(sql).execute(&mut *tx).await?;
        }
        let sql = "update acknowledgements set ended_at = $1 where ended_at is null
                       and host in (select id from hosts where removed_at is not null)";
        sqlx::query(sql).bind(crate::clock::wall().as_millis()).execute(&mut *tx).await?;
        for spec in specs.iter().filter(|spec| !states.fit(spec)) {
            states::settle(&mut tx, spec, crate::clock::wall()).await?;
        }
        tx.commit().await
    }
}

/// Returns the host on a connection of the caller, for example inside a transaction that has just
/// changed it.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn host_spec(
    conn: &mut SqliteConnection,
    id: HostId,
    timing: &TimingDefaults,
) -> anyhow::Result<Option<HostSpec>> {
    one_spec(conn, Which::One(id), timing).await
}

/// Returns the host for the monitor, even if it was removed.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn ever_host_spec(
    conn: &mut SqliteConnection,
    id: HostId,
    timing: &TimingDefaults,
) -> anyhow::Result<Option<HostSpec>> {
    one_spec(conn, Which::OneEver(id), timing).await
}

async fn one_spec(
    conn: &mut SqliteConnection,
    which: Which<'_>,
    timing: &TimingDefaults,
) -> anyhow::Result<Option<HostSpec>> {
    let mut rows = HostRows::load(conn, which).await?;
    let Some(host) = rows.hosts.pop() else { return Ok(None) };
    let id = host.id;
    rows.assemble(host, timing).with_context(|| format!("host {id}")).map(Some)
}

/// Returns these hosts without removed ones. Profiles and rules are read once for all of them.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn host_specs(
    conn: &mut SqliteConnection,
    hosts: &[HostId],
    timing: &TimingDefaults,
) -> anyhow::Result<Vec<HostSpec>> {
    let mut rows = HostRows::load(conn, Which::These(hosts)).await?;
    let found = std::mem::take(&mut rows.hosts).into_iter();
    Ok(found.filter_map(|host| sensible("host", host.id, rows.assemble(host, timing))).collect())
}

fn sensible<T>(what: &str, id: Id, made: anyhow::Result<T>) -> Option<T> {
    made.inspect_err(|error| tracing::error!("{what} {id} is left out: {error:#}")).ok()
}

/// Groups rows by the row that they belong to.
fn group<T>(rows: Vec<(i64, T)>) -> HashMap<i64, Vec<T>> {
    let mut groups: HashMap<i64, Vec<T>> = HashMap::new();
    for (of, row) in rows {
        groups.entry(of).or_default().push(row);
    }
    groups
}

// ------------------------------------------------------------------- peers

struct PeerRow {
    id: PeerId,
    kind: String,
    networks: String,
    mtu: Option<u16>,
}

struct KeyRow {
    public: String,
    psk: Option<Vec<u8>>,
}

/// Peers that may connect: of those of people, the ones whose users are enabled and no viewers.
macro_rules! peers {
    ($which:literal) => {
        concat!(
            "select p.id, p.kind, p.networks, p.mtu from peers p where p.removed_at is null
               and (p.kind <> 'operator' or exists (
                   select 1 from operators o join users u on u.id = o.user
                   where o.id = p.id and u.disabled_at is null and u.role <> 'viewer'))",
            $which
        )
    };
}

/// The rows for the peers of one load. `$1` is NULL for all of them.
struct PeerRows {
    peers: Vec<PeerRow>,
    keys: HashMap<i64, Vec<KeyRow>>,
    addresses: HashMap<i64, Vec<String>>,
    memories: HashMap<i64, PeerSnapshot>,
}

impl PeerRows {
    async fn load(conn: &mut SqliteConnection, one: Option<PeerId>) -> anyhow::Result<Self> {
        let peers: Vec<(i64, String, String, Option<u16>)> =
            fetch(conn, one, peers!(""), peers!(" and p.id = $1")).await?;
        let keys: Vec<(i64, String, Option<Vec<u8>>)> = fetch(
            conn,
            one,
            "select peer, public_key, psk from peer_keys where retired_at is null order by position",
            "select peer, public_key, psk from peer_keys where retired_at is null and peer = $1
             order by position",
        )
        .await?;
        let memories: Vec<MemoryRow> =
            fetch(conn, one, "select * from peer_memory", "select * from peer_memory where peer = $1")
                .await?;
        let mut days = group(wire_days::newest(conn, one, crate::clock::day()).await?);
        let remembered = |m: MemoryRow| {
            let mut wire = days.remove(&m.peer).unwrap_or_default().into_iter();
            let wire = std::array::from_fn(|_| wire.next().unwrap_or_default());
            (m.peer, PeerSnapshot { wire, ..m.memory })
        };
        let memories = memories.into_iter().map(remembered).collect();
        let row = |(id, kind, networks, mtu)| PeerRow { id: Id::from_i64(id), kind, networks, mtu };
        Ok(PeerRows {
            peers: peers.into_iter().map(row).collect(),
            keys: group(keys.into_iter().map(|(peer, public, psk)| (peer, KeyRow { public, psk })).collect()),
            addresses: group(addresses(conn, one).await?),
            memories,
        })
    }

    fn assemble(
        &self,
        store: &Store,
        peer: PeerRow,
        usual_mtu: u16,
    ) -> anyhow::Result<(PeerSpec, PeerSnapshot)> {
        let id = peer.id.as_i64();
        let keys = self.keys.get(&id).map_or(&[][..], Vec::as_slice);
        let networks: Vec<String> = serde_json::from_str(&peer.networks).context("networks")?;
        let spec = PeerSpec {
            id: peer.id,
            kind: peer_kind(&peer.kind)?,
            keys: keys.iter().map(|key| key.open(store)).collect::<Result<_, _>>()?,
            addresses: inner(self.addresses.get(&id))?,
            networks: networks.iter().map(|n| n.parse()).collect::<Result<_, _>>().context("networks")?,
            mtu: peer.mtu.unwrap_or(usual_mtu),
        };
        Ok((spec, self.memories.get(&id).copied().unwrap_or_default()))
    }
}

impl KeyRow {
    fn open(&self, store: &Store) -> anyhow::Result<PeerKey> {
        let public: PublicKey = self.public.parse().with_context(|| format!("key {}", self.public))?;
        let Some(sealed) = &self.psk else { return Ok(PeerKey { public, psk: None }) };
        let bytes = store.unseal(&psk_place(&public), sealed)?;
        let psk: [u8; 32] = bytes.as_slice().try_into().context("a preshared key has 32 bytes")?;
        Ok(PeerKey { public, psk: Some(PresharedKey::from_bytes(psk)) })
    }
}

/// The place of a preshared key, for its seal.
pub fn psk_place(public: &PublicKey) -> String {
    format!("peer_keys/psk/{public}")
}

fn peer_kind(name: &str) -> anyhow::Result<PeerKind> {
    Ok(match name {
        "device" => PeerKind::Device,
        "operator" => PeerKind::Operator,
        "renter" => PeerKind::Renter,
        other => anyhow::bail!("{other:?} is no kind of peer: device, operator or renter"),
    })
}

/// IPv4 comes first, because people see it.
fn inner(addresses: Option<&Vec<String>>) -> anyhow::Result<Vec<IpAddr>> {
    let texts = addresses.map_or(&[][..], Vec::as_slice);
    let mut parsed: Vec<IpAddr> =
        texts.iter().map(|a| a.parse()).collect::<Result<_, _>>().context("inner address")?;
    parsed.sort_unstable();
    Ok(parsed)
}

async fn addresses(conn: &mut SqliteConnection, one: Option<PeerId>) -> sqlx::Result<Vec<(i64, String)>> {
    fetch(conn, one, ADDRESSES[0], ADDRESSES[1]).await
}

/// Returns all rows, or those of one row's id by the index.
async fn fetch<T>(
    conn: &mut SqliteConnection,
    one: Option<Id>,
    all_sql: &'static str,
    one_sql: &'static str,
) -> sqlx::Result<Vec<T>>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    match one {
        None => sqlx::query_as(all_sql).fetch_all(conn).await,
        Some(id) => sqlx::query_as(one_sql).bind(id.as_i64()).fetch_all(conn).await,
    }
}

struct MemoryRow {
    peer: i64,
    memory: PeerSnapshot,
}

impl FromRow<'_, SqliteRow> for MemoryRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let stamp: Option<&[u8]> = row.try_get("stamp")?;
        let endpoint: Option<&str> = row.try_get("endpoint")?;
        let wall = |name: &str| -> sqlx::Result<Option<Wall>> {
            Ok(row.try_get::<Option<i64>, _>(name)?.map(Wall::from_millis))
        };
        let bytes = |name: &str| -> sqlx::Result<u64> { Ok(row.try_get::<i64, _>(name)?.cast_unsigned()) };
        let memory = PeerSnapshot {
            // Both are valid unless the file was edited. Without them, a peer starts afresh.
            stamp: stamp.and_then(|s| s.try_into().ok()).map(Tai64n),
            endpoint: endpoint.and_then(|e| e.parse().ok()),
            last_packet: wall("last_packet")?,
            last_handshake: wall("last_handshake")?,
            clock_skew_ms: row.try_get("clock_skew_ms")?,
            rx_bytes: bytes("rx_bytes")?,
            tx_bytes: bytes("tx_bytes")?,
            wire: Default::default(),
        };
        Ok(MemoryRow { peer: row.try_get("peer")?, memory })
    }
}

// ------------------------------------------------------------------- hosts

struct HostBase {
    id: HostId,
    name: String,
    profile: String,
    route: String,
    via: Option<Id>,
    address: Option<String>,
    direct: Option<String>,
    ssh: SshSpec,
    timing: TimingRow,
    max_silence: Option<Duration>,
    freshness: Option<Duration>,
    budget: Option<u64>,
    /// JSON, as are the next three. It is read with the host, so that damage costs this host alone.
    labels: String,
    parents: String,
    alerting: String,
    thresholds: String,
    /// The host's own peer, or that of the device it stands behind.
    peer: Option<PeerId>,
}

/// The timing settings that a host has of its own.
struct TimingRow {
    interval: Option<Duration>,
    retry: Option<Duration>,
    attempts: Option<u32>,
    timeout: Option<Duration>,
}

impl TimingRow {
    fn over(&self, defaults: &TimingDefaults) -> Timing {
        let interval = self.interval.unwrap_or(defaults.interval);
        Timing {
            interval,
            retry: self.retry.unwrap_or(defaults.retry.min(interval)),
            attempts: self.attempts.unwrap_or(defaults.attempts),
            timeout: self.timeout.unwrap_or(defaults.timeout.min(interval.mul_f64(TIMEOUT_SHARE))),
        }
        .ending_in_time()
    }
}

macro_rules! host_base {
    ($peer:literal, $which:literal) => {
        concat!(
            "select h.id, h.name, h.profile, h.route, h.via, h.address, h.direct_address, h.ssh_port,
                    h.ssh_user, h.ssh_pin, h.interval_ms, h.retry_ms, h.attempts, h.timeout_ms,
                    h.max_silence_ms, p.id, h.labels, h.parents, h.alerting, h.freshness_ms,
                    coalesce(h.budget_bytes_per_day,
                             (select d.budget_bytes_per_day from hosts d where d.id = h.via)),
                    h.thresholds, h.ssh_pin_type
             from hosts h left join peers p on p.id = coalesce(h.via, h.id)",
            $peer,
            " where ",
            $which
        )
    };
}

const ALL_HOSTS: &str = host_base!(" and p.removed_at is null", "h.removed_at is null");
const THESE_HOSTS: &str = host_base!(
    " and p.removed_at is null",
    "h.removed_at is null and h.id in (select value from json_each($1))"
);
const ONE_HOST: &str = host_base!(" and p.removed_at is null", "h.removed_at is null and h.id = $1");
/// The host as it was when it was removed.
const EVER_ONE_HOST: &str = host_base!("", "h.id = $1");

impl FromRow<'_, SqliteRow> for HostBase {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let id = |at: usize| -> sqlx::Result<Option<Id>> {
            Ok(row.try_get::<Option<i64>, _>(at)?.map(Id::from_i64))
        };
        let time = |at: usize| -> sqlx::Result<Option<Duration>> {
            Ok(row.try_get::<Option<i64>, _>(at)?.map(|ms| Duration::from_millis(ms.cast_unsigned())))
        };
        Ok(HostBase {
            id: Id::from_i64(row.try_get(0)?),
            name: row.try_get(1)?,
            profile: row.try_get(2)?,
            route: row.try_get(3)?,
            via: id(4)?,
            address: row.try_get(5)?,
            direct: row.try_get(6)?,
            ssh: SshSpec { port: row.try_get(7)?, user: row.try_get(8)?, pin: pin(row)? },
            timing: TimingRow {
                interval: time(10)?,
                retry: time(11)?,
                attempts: row.try_get(12)?,
                timeout: time(13)?,
            },
            max_silence: time(14)?,
            peer: id(15)?,
            labels: row.try_get(16)?,
            parents: row.try_get(17)?,
            alerting: row.try_get(18)?,
            freshness: time(19)?,
            budget: row.try_get::<Option<i64>, _>(20)?.map(i64::cast_unsigned),
            thresholds: row.try_get(21)?,
        })
    }
}

fn pin(row: &SqliteRow) -> sqlx::Result<Option<HostKey>> {
    let key_type: Option<&str> = row.try_get("ssh_pin_type")?;
    let fingerprint: Option<String> = row.try_get("ssh_pin")?;
    Ok(fingerprint
        .map(|fingerprint| HostKey { fingerprint, key_type: key_type.and_then(KeyType::from_name) }))
}

/// Selects hosts to load.
#[derive(Clone, Copy)]
enum Which<'a> {
    All,
    One(HostId),
    /// The host as it was when it was removed.
    OneEver(HostId),
    These(&'a [HostId]),
}

impl Which<'_> {
    /// Returns all rows, or those of some hosts by the index. The statements are for all, one and
    /// several.
    async fn fetch<T>(
        self,
        conn: &mut SqliteConnection,
        [all, one, these]: [&'static str; 3],
    ) -> sqlx::Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match self {
            Which::All => sqlx::query_as(all).fetch_all(conn).await,
            Which::One(id) | Which::OneEver(id) => {
                sqlx::query_as(one).bind(id.as_i64()).fetch_all(conn).await
            }
            Which::These(ids) => {
                let ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
                sqlx::query_as(these).bind(Json(ids)).fetch_all(conn).await
            }
        }
    }
}

const OVERRIDES: [&str; 3] = [
    "select host, service, disabled, definition from service_overrides order by host, service",
    "select host, service, disabled, definition from service_overrides where host = $1 order by service",
    "select host, service, disabled, definition from service_overrides
     where host in (select value from json_each($1)) order by host, service",
];
const ADDRESSES: [&str; 3] = [
    "select peer, address from addresses where released_at is null and peer is not null",
    "select peer, address from addresses where released_at is null and peer = $1",
    "select peer, address from addresses
     where released_at is null and peer in (select value from json_each($1))",
];

struct HostRows {
    hosts: Vec<HostBase>,
    catalogue: Catalogue,
    addresses: HashMap<i64, Vec<String>>,
    overrides: HashMap<i64, Vec<(String, bool, String)>>,
}

impl HostRows {
    async fn load(conn: &mut SqliteConnection, which: Which<'_>) -> anyhow::Result<Self> {
        let one = if matches!(which, Which::OneEver(_)) { EVER_ONE_HOST } else { ONE_HOST };
        let hosts = which.fetch(conn, [ALL_HOSTS, one, THESE_HOSTS]).await?;
        let catalogue = profiles::catalogue(conn).await?;
        let overrides: Vec<(i64, String, bool, String)> = which.fetch(conn, OVERRIDES).await?;
        let row = |(host, service, disabled, json)| (host, (service, disabled, json));
        Ok(HostRows {
            hosts,
            catalogue,
            addresses: group(which.fetch(conn, ADDRESSES).await?),
            overrides: group(overrides.into_iter().map(row).collect()),
        })
    }

    fn assemble(&self, host: HostBase, defaults: &TimingDefaults) -> anyhow::Result<HostSpec> {
        let id = host.id.as_i64();
        let labels: BTreeMap<String, String> = serde_json::from_str(&host.labels).context("labels")?;
        let own_parents: Vec<i64> = serde_json::from_str(&host.parents).context("parents")?;
        let thresholds: Value = serde_json::from_str(&host.thresholds).context("thresholds")?;
        let timing = host.timing.over(defaults);
        let route = route_named(&host.route).context("route: tunnel, direct or auto")?;
        let facts = Facts {
            tunnel: host.peer.is_some() && route != RoutePolicy::Direct,
            behind: host.via.is_some(),
            login: host.ssh.user.is_some(),
            direct: host.direct.is_some(),
        };
        let own = Some(host.profile.as_str()).filter(|p| !p.is_empty());
        let profiles = self.catalogue.of_host(own, &labels);
        let pace = Pace { timing, ping: defaults.ping_interval };
        let mut services = self.catalogue.fold(&profiles, facts, pace, &self.changes(id)?)?;
        zones::settle(&mut services, &labels);
        let mut inside = match &host.via {
            Some(_) => host.address.iter().map(|a| a.parse().context("address")).collect::<Result<_, _>>()?,
            None => inner(self.addresses.get(&id))?,
        }
        .into_iter();
        let address: Option<IpAddr> = inside.next();
        let other_address = address.and_then(|a| inside.find(|other| other.is_ipv4() != a.is_ipv4()));
        let parents = host.via.into_iter().chain(own_parents.into_iter().map(Id::from_i64));
        Ok(HostSpec {
            id: host.id,
            name: host.name,
            labels,
            parents: parents.collect(),
            alerting: stored_alerting(&host.alerting)?.over(Alerting::default()),
            peer: host.peer,
            own_tunnel: host.peer == Some(host.id),
            address,
            other_address,
            direct: host.direct,
            ssh: host.ssh,
            route,
            max_silence: host.max_silence,
            freshness: host.freshness,
            budget: host.budget,
            thresholds: definition::thresholds(&thresholds)?,
            timing,
            services,
        })
    }

    fn changes(&self, host: i64) -> anyhow::Result<Vec<ServiceOverride>> {
        let rows = self.overrides.get(&host).map_or(&[][..], Vec::as_slice);
        rows.iter().map(|(service, disabled, json)| stored_override(service, *disabled, json)).collect()
    }
}

/// Converts open acknowledgements for the engine, by host.
fn by_host(
    open: Vec<acknowledgements::Acknowledgement>,
) -> HashMap<HostId, Vec<(Option<String>, Acknowledgement)>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for ack in open {
        found.entry(ack.host).or_default().push((ack.service.clone(), Acknowledgement::from(&ack)));
    }
    found
}

/// Reads one row of `service_overrides`.
///
/// # Errors
/// Fails when the gateway has not written the row.
pub fn stored_override(service: &str, disabled: bool, json: &str) -> anyhow::Result<ServiceOverride> {
    let value = serde_json::from_str(json).with_context(|| format!("override of {service}"))?;
    definition::parse(service, disabled, &value).with_context(|| format!("override of {service}"))
}

/// Reads the column `hosts.alerting`.
///
/// # Errors
/// Fails when the gateway has not written the column.
pub fn stored_alerting(json: &str) -> anyhow::Result<AlertingChange> {
    alerting::parse(&serde_json::from_str(json).context("alerting")?).context("alerting")
}

// ------------------------------------------------------------------ states

/// The states of all hosts.
struct States {
    hosts: BTreeMap<HostId, HostRow>,
    services: BTreeMap<HostId, Vec<ServiceRow>>,
}

impl States {
    async fn load(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let hosts: Vec<HostRow> = sqlx::query_as(states::ALL_HOSTS).fetch_all(&mut *conn).await?;
        let rows: Vec<ServiceRow> = sqlx::query_as(states::ALL_SERVICES).fetch_all(conn).await?;
        let mut services: BTreeMap<HostId, Vec<ServiceRow>> = BTreeMap::new();
        for row in rows {
            services.entry(row.host).or_default().push(row);
        }
        Ok(States { hosts: hosts.into_iter().map(|row| (row.0.host, row)).collect(), services })
    }

    /// Whether the rows are exactly those of the host's services.
    fn fit(&self, spec: &HostSpec) -> bool {
        let rows = self.services.get(&spec.id).map_or(&[][..], Vec::as_slice);
        let has: BTreeSet<&str> = rows.iter().map(|row| row.state.name.as_str()).collect();
        self.hosts.contains_key(&spec.id) && has == spec.services.iter().map(|s| s.name.as_str()).collect()
    }

    /// Takes the states of a host. A pending service has no state to remember, except that a
    /// passive one remembers since when it waits for results.
    fn memory(&mut self, spec: HostSpec) -> HostSnapshot {
        let state = self.hosts.remove(&spec.id).map(|row| row.0).filter(|s| s.status != HostStatus::Pending);
        let rows = self.services.remove(&spec.id).unwrap_or_default();
        let waits = |row: &ServiceRow, check: &Check| row.state.status.is_some() || check.is_sent();
        let wanted =
            |row: &ServiceRow| spec.services.iter().any(|s| s.name == row.state.name && waits(row, &s.check));
        let services = rows.into_iter().filter(wanted).map(|row| row.state).collect();
        HostSnapshot { spec, state, services, acknowledged: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
