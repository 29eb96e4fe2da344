//! Assembles rows for the engine: peers with their memory, and hosts with their last states,
//! profiles and overrides folded in.
//!
//! The same statements read all rows at the start and single ones after each change. An invalid row
//! is an error when it is read by itself. When all rows are loaded, it is logged and skipped,
//! because one bad row must not leave a fleet unmonitored.

mod host_rows;
mod peer_rows;
mod state_rows;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use anyhow::Context as _;
use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::{
    Acknowledgement, Check, HostSnapshot, HostSpec, PeerSnapshot, PeerSpec, RetiredKey, Tai64n,
};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::{Store, acknowledgements, intervals, states};
use crate::store::TimingDefaults;

pub use host_rows::{stored_alerting, stored_override};
pub use peer_rows::psk_place;

use host_rows::{HostRows, Which};
use peer_rows::PeerRows;
use state_rows::States;

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
        intervals::end_of_removed(&mut tx).await?;
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

/// Returns the names of the services of a device that a gate may name: all but the built-in one of rentals.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn checked_services(
    conn: &mut SqliteConnection,
    device: HostId,
    timing: &TimingDefaults,
) -> anyhow::Result<Vec<String>> {
    let services = host_spec(conn, device, timing).await?.into_iter().flat_map(|spec| spec.services);
    Ok(services.filter(|service| service.check != Check::Rental).map(|service| service.name).collect())
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
