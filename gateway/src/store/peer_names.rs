//! The names of peers, for places where only their ids are known.

use std::collections::HashMap;

use fleetgate_engine::id::PeerId;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::access::id;
use crate::ids::IdKind;

/// A peer as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// `device`, `operator` or `renter`.
    pub kind: String,
    /// The id of a renter, whose name is personal data.
    pub name: String,
}

/// Returns the kinds and names of these peers. A removed peer is absent.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(conn: &mut SqliteConnection, peers: &[PeerId]) -> sqlx::Result<HashMap<PeerId, PeerName>> {
    let sql = "select p.id, p.kind, coalesce(h.name, o.name) as name from peers p
               left join hosts h on h.id = p.id left join operators o on o.id = p.id
               where p.removed_at is null and p.id in (select value from json_each($1))
                 and (coalesce(h.name, o.name) is not null or p.kind = 'renter')";
    let ids: Vec<i64> = peers.iter().map(|peer| peer.as_i64()).collect();
    let rows = sqlx::query(sql).bind(Json(ids)).fetch_all(conn).await?;
    let named = |row: &SqliteRow| -> sqlx::Result<(PeerId, PeerName)> {
        let peer = id(row, "id")?;
        let name: Option<String> = row.try_get("name")?;
        let name = name.unwrap_or_else(|| IdKind::Renter.text(peer));
        Ok((peer, PeerName { kind: row.try_get("kind")?, name }))
    };
    rows.iter().map(named).collect()
}
