//! The common part of the peers of people, operators and renters. Each has a row of its kind with the
//! same id.

use fleetgate_engine::id::PeerId;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::{addresses, devices};

/// The kind of an operator's peer.
pub const OPERATOR: &str = "operator";
/// The kind of a renter's peer.
pub const RENTER: &str = "renter";

/// Sets the inner MTU of a peer; `None`: the usual one.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn write_mtu(tx: &mut SqliteConnection, peer: PeerId, mtu: Option<u16>) -> sqlx::Result<()> {
    let sql = "update peers set mtu = $2 where id = $1";
    sqlx::query(sql).bind(peer.as_i64()).bind(mtu).execute(tx).await.map(drop)
}

/// Removes a peer. Its keys are retired, and its addresses rest. Nothing that the tunnel learnt of it
/// stays.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, peer: PeerId, now: Wall) -> sqlx::Result<()> {
    devices::retire_keys(tx, peer, now).await?;
    addresses::release(tx, peer, now).await?;
    for sql in ["delete from peer_memory where peer = $1", "delete from peer_endpoints where peer = $1"] {
        sqlx::query(sql).bind(peer.as_i64()).execute(&mut *tx).await?;
    }
    let sql = "update peers set removed_at = $2 where id = $1";
    sqlx::query(sql).bind(peer.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}
