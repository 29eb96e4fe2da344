//! The state that the tunnels learnt about peers, for the next start. It is written behind, so that it may
//! come after the removal of its peer: rows of removed peers are not created again.

use std::net::SocketAddr;
use std::sync::LazyLock;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::{PeerStatus, Tai64n};
use fleetgate_engine::time::Wall;
use fleetgate_keys::PublicKey;
use sqlx::sqlite::SqliteConnection;

use super::rows::{Batched, NARROW, WIDE};

/// Endpoints kept for one peer. A device on a mobile network has a new one every day.
const MAX_ENDPOINTS: i64 = 8;

static STAMPS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 2, |values| {
        format!(
            "with v (peer, stamp) as (values {values})
             insert into peer_memory (peer, stamp)
             select v.peer, v.stamp from v
             where exists (select 1 from peers where id = v.peer and removed_at is null)
             on conflict (peer) do update set stamp = excluded.stamp"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write_stamps(conn: &mut SqliteConnection, stamps: &[(PeerId, Tai64n)]) -> sqlx::Result<()> {
    STAMPS
        .run(conn, stamps, |(peer, stamp), arguments| {
            arguments.add(peer.as_i64()).add(stamp.0.to_vec());
        })
        .await
}

static RETIRED_STAMPS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 2, |values| {
        format!(
            "with v (public_key, stamp) as (values {values})
             update peer_keys set stamp = v.stamp from v
             where peer_keys.public_key = v.public_key and retired_at is not null"
        )
    })
});

/// Writes the newest handshake stamps of retired keys.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn write_retired_stamps(
    conn: &mut SqliteConnection,
    stamps: &[(PublicKey, Tai64n)],
) -> sqlx::Result<()> {
    RETIRED_STAMPS
        .run(conn, stamps, |(key, stamp), arguments| {
            arguments.add(key.to_string()).add(stamp.0.to_vec());
        })
        .await
}

/// Forgets the newest handshake stamp, because the device's clock was wrong in the future.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn forget_clock(conn: &mut SqliteConnection, peer: PeerId) -> sqlx::Result<()> {
    let sql = "update peer_memory set stamp = null, clock_skew_ms = null where peer = $1";
    sqlx::query(sql).bind(peer.as_i64()).execute(conn).await.map(drop)
}

/// Forgets the state that belongs to earlier keys.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn forget_key(conn: &mut SqliteConnection, peer: PeerId) -> sqlx::Result<()> {
    sqlx::query(
        "update peer_memory set stamp = null, endpoint = null, clock_skew_ms = null, last_packet = null,
                last_handshake = null
         where peer = $1",
    )
    .bind(peer.as_i64())
    .execute(conn)
    .await
    .map(drop)
}

static STATUSES: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 6, |values| {
        format!(
            "with v (peer, last_packet, last_handshake, clock_skew_ms, rx_bytes, tx_bytes)
                  as (values {values})
             insert into peer_memory (peer, last_packet, last_handshake, clock_skew_ms, rx_bytes, tx_bytes)
             select v.peer, v.last_packet, v.last_handshake, v.clock_skew_ms, v.rx_bytes, v.tx_bytes from v
             where exists (select 1 from peers where id = v.peer and removed_at is null)
             on conflict (peer) do update set last_packet = excluded.last_packet,
                    last_handshake = excluded.last_handshake,
                    clock_skew_ms = coalesce(excluded.clock_skew_ms, peer_memory.clock_skew_ms),
                    rx_bytes = excluded.rx_bytes, tx_bytes = excluded.tx_bytes"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write_statuses(
    conn: &mut SqliteConnection,
    statuses: &[(PeerId, Box<PeerStatus>)],
) -> sqlx::Result<()> {
    STATUSES
        .run(conn, statuses, |(peer, status), arguments| {
            arguments
                .add(peer.as_i64())
                .add(status.last_packet.map(Wall::as_millis))
                .add(status.last_handshake.map(Wall::as_millis))
                .add(status.clock_skew_ms)
                .add(status.rx_bytes.cast_signed())
                .add(status.tx_bytes.cast_signed());
        })
        .await
}

/// Writes the endpoint to dial and adds it to the list of seen endpoints.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn write_endpoint(
    conn: &mut SqliteConnection,
    peer: PeerId,
    endpoint: SocketAddr,
    seen: Wall,
) -> sqlx::Result<()> {
    let text = endpoint.to_string();
    sqlx::query(
        "insert into peer_memory (peer, endpoint)
         select $1, $2 where exists (select 1 from peers where id = $1 and removed_at is null)
         on conflict (peer) do update set endpoint = excluded.endpoint",
    )
    .bind(peer.as_i64())
    .bind(&text)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "insert into peer_endpoints (peer, endpoint, first_seen, last_seen)
         select $1, $2, $3, $3 where exists (select 1 from peers where id = $1 and removed_at is null)
         on conflict (peer, endpoint) do update set last_seen = excluded.last_seen",
    )
    .bind(peer.as_i64())
    .bind(&text)
    .bind(seen.as_millis())
    .execute(&mut *conn)
    .await?;
    forget_oldest(conn, peer).await
}

async fn forget_oldest(conn: &mut SqliteConnection, peer: PeerId) -> sqlx::Result<()> {
    sqlx::query(
        "delete from peer_endpoints where peer = $1 and endpoint not in
         (select endpoint from peer_endpoints where peer = $1
          order by last_seen desc, endpoint limit $2)",
    )
    .bind(peer.as_i64())
    .bind(MAX_ENDPOINTS)
    .execute(conn)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use fleetgate_engine::messages::{DEFAULT_MTU, RetiredKey};

    use super::*;
    use crate::store::{devices, fixture, peers_of_people};

    #[tokio::test]
    async fn the_peer_state_survives_a_restart() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        let stranger = Id::from_i64(99);
        let status = PeerStatus {
            last_packet: Some(Wall::from_millis(5)),
            rx_bytes: 17,
            tx_bytes: u64::MAX,
            ..PeerStatus::default()
        };
        let mut tx = store.begin().await.unwrap();
        write_stamps(&mut tx, &[(peer, Tai64n([1; 12])), (stranger, Tai64n([2; 12]))]).await.unwrap();
        for port in 1..=20u16 {
            let endpoint = SocketAddr::from(([192, 0, 2, 1], port));
            write_endpoint(&mut tx, peer, endpoint, Wall::from_millis(i64::from(port))).await.unwrap();
        }
        write_statuses(&mut tx, &[(peer, Box::new(status.clone())), (stranger, Box::new(status))])
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let (_, memory) = store.peer_spec(peer, DEFAULT_MTU).await.unwrap().unwrap();
        assert_eq!(memory.stamp, Some(Tai64n([1; 12])));
        assert_eq!(memory.endpoint, "192.0.2.1:20".parse().ok());
        assert_eq!((memory.last_packet, memory.rx_bytes), (Some(Wall::from_millis(5)), 17));
        assert_eq!(memory.tx_bytes, u64::MAX);
        let kept: Vec<(i64,)> = sqlx::query_as("select first_seen from peer_endpoints order by 1")
            .fetch_all(&store.read)
            .await
            .unwrap();
        assert_eq!(kept.iter().map(|r| r.0).collect::<Vec<_>>(), (13..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_comes_late_of_a_removed_peer_is_not_kept() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        let mut tx = store.begin().await.unwrap();
        peers_of_people::remove(&mut tx, peer, Wall::from_millis(9)).await.unwrap();
        write_stamps(&mut tx, &[(peer, Tai64n([1; 12]))]).await.unwrap();
        write_statuses(&mut tx, &[(peer, Box::default())]).await.unwrap();
        write_endpoint(&mut tx, peer, "192.0.2.1:1".parse().unwrap(), Wall::from_millis(9)).await.unwrap();
        tx.commit().await.unwrap();
        let left = "select 'memory' from peer_memory union all select endpoint from peer_endpoints";
        assert_eq!(fixture::texts(&store, left).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_retired_key_keeps_its_newest_stamp_and_a_key_in_use_none() {
        let (store, _dir) = fixture::store().await;
        let peer = fixture::device(&store, 7, "cam-07").await;
        let (spec, _) = store.peer_spec(peer, DEFAULT_MTU).await.unwrap().unwrap();
        let old = spec.keys[0].public;
        let new = fleetgate_keys::PrivateKey::from_bytes([99; 32]).public();
        let (stamp, later) = (Tai64n([3; 12]), Tai64n([4; 12]));
        let mut tx = store.begin().await.unwrap();
        write_stamps(&mut tx, &[(peer, stamp)]).await.unwrap();
        let key = devices::NewKey { public: new, sealed_psk: vec![1] };
        let pools = crate::config::Config::load(_dir.path(), None).unwrap().pools();
        devices::set_key(&mut tx, (peer, devices::DEVICE), key, pools, Wall::from_millis(9)).await.unwrap();
        tx.commit().await.unwrap();
        let kept = RetiredKey { public: old, peer, at: Wall::from_millis(9), stamp: Some(stamp) };
        assert_eq!(store.retired_keys(9).await.unwrap(), [kept]);

        let mut tx = store.begin().await.unwrap();
        write_retired_stamps(&mut tx, &[(old, later), (new, later)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.retired_keys(9).await.unwrap(), [RetiredKey { stamp: Some(later), ..kept }]);
        let sql = "select count(*) from peer_keys where stamp is not null";
        let with: i64 = sqlx::query_scalar(sql).fetch_one(&store.read).await.unwrap();
        assert_eq!((with, store.retired_keys(0).await.unwrap().len()), (1, 0));
    }
}
