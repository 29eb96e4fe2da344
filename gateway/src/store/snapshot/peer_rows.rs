//! The rows of peers, and how a peer for the tunnel is made of them: its open keys, inner addresses, networks
//! and memory.
//!
//! It does not know which peer is asked for, nor what happens to an invalid row.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Context as _;
use fleetgate_engine::id::{Id, PeerId};
use fleetgate_engine::messages::{PeerKey, PeerKind, PeerSnapshot, PeerSpec, Tai64n};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{PresharedKey, PublicKey};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::group;
use crate::store::{Store, wire_days};

pub(super) struct PeerRow {
    pub id: PeerId,
    kind: String,
    networks: String,
    mtu: Option<u16>,
}

struct KeyRow {
    public: String,
    psk: Option<Vec<u8>>,
}

/// Peers that may connect: of operators, the ones whose users are enabled and no viewers; of renters, the ones
/// whose people are not removed.
macro_rules! peers {
    ($which:literal) => {
        concat!(
            "select p.id, p.kind, p.networks, p.mtu from peers p where p.removed_at is null
               and (p.kind <> 'operator' or exists (
                   select 1 from operators o join users u on u.id = o.user
                   where o.id = p.id and u.disabled_at is null and u.role <> 'viewer'))
               and (p.kind <> 'renter' or exists (
                   select 1 from renters r join people y on y.id = r.person
                   where r.id = p.id and r.removed_at is null and y.removed_at is null))",
            $which
        )
    };
}

/// The rows for the peers of one load. `$1` is NULL for all of them.
pub(super) struct PeerRows {
    pub peers: Vec<PeerRow>,
    keys: HashMap<i64, Vec<KeyRow>>,
    addresses: HashMap<i64, Vec<String>>,
    memories: HashMap<i64, PeerSnapshot>,
}

impl PeerRows {
    pub async fn load(conn: &mut SqliteConnection, one: Option<PeerId>) -> anyhow::Result<Self> {
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

    pub fn assemble(
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
pub(super) fn inner(addresses: Option<&Vec<String>>) -> anyhow::Result<Vec<IpAddr>> {
    let texts = addresses.map_or(&[][..], Vec::as_slice);
    let mut parsed: Vec<IpAddr> =
        texts.iter().map(|a| a.parse()).collect::<Result<_, _>>().context("inner address")?;
    parsed.sort_unstable();
    Ok(parsed)
}

pub(super) const ADDRESSES: [&str; 3] = [
    "select peer, address from addresses where released_at is null and peer is not null",
    "select peer, address from addresses where released_at is null and peer = $1",
    "select peer, address from addresses
     where released_at is null and peer in (select value from json_each($1))",
];

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
