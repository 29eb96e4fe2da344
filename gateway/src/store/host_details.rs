//! The parts of a response about a service beside its state: its acknowledgement, its incident and
//! whether its host is reachable.
//!
//! Concurrent callers share one read, which begins after the last of them has asked. A caller that
//! asks after a commit thus sees the committed rows. This module decides nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::IncidentId;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::OnceCell;

use super::acknowledgements::Acknowledgement;

/// The acknowledgements, incidents and reachability of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDetails {
    /// Whether a path to the host is up. True for a host without a row too.
    pub reachable: bool,
    acknowledgements: Vec<Acknowledgement>,
    /// Open incidents, each with the service that belongs to it.
    incidents: Vec<(String, IncidentId)>,
}

impl Default for HostDetails {
    fn default() -> Self {
        HostDetails { reachable: true, acknowledgements: Vec::new(), incidents: Vec::new() }
    }
}

impl HostDetails {
    pub fn acknowledgement(&self, service: &str) -> Option<&Acknowledgement> {
        self.acknowledgements.iter().find(|ack| ack.service.as_deref() == Some(service))
    }

    pub fn incident(&self, service: &str) -> Option<IncidentId> {
        self.incidents.iter().find(|(of, _)| of == service).map(|(_, id)| *id)
    }
}

/// The result by host. A host without anything to report may be absent.
pub type DetailsByHost = HashMap<HostId, HostDetails>;

/// # Errors
/// Fails when the database cannot be read.
pub async fn of_hosts(conn: &mut SqliteConnection, hosts: &BTreeSet<HostId>) -> sqlx::Result<DetailsByHost> {
    let ids: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
    let ids = sqlx::types::Json(ids);
    let mut found = DetailsByHost::new();
    let unreachable: Vec<i64> = sqlx::query_scalar(
        "select s.host from json_each($1) j cross join host_states s on s.host = j.value where s.reachable = 0",
    )
    .bind(&ids)
    .fetch_all(&mut *conn)
    .await?;
    for host in unreachable {
        found.entry(Id::from_i64(host)).or_default().reachable = false;
    }
    let acknowledged: Vec<Acknowledgement> = sqlx::query_as(
        "select a.* from json_each($1) j cross join acknowledgements a on a.host = j.value and a.ended_at is null",
    )
    .bind(&ids)
    .fetch_all(&mut *conn)
    .await?;
    for ack in acknowledged {
        found.entry(ack.host).or_default().acknowledgements.push(ack);
    }
    let members: Vec<(i64, String, i64)> = sqlx::query_as(
        "select m.host, m.service, m.incident
         from json_each($1) j cross join incident_members m on m.host = j.value and m.left_at is null
         join incidents i on i.id = m.incident and i.closed_at is null",
    )
    .bind(&ids)
    .fetch_all(conn)
    .await?;
    for (host, service, incident) in members {
        let incident = IncidentId(Id::from_i64(incident));
        found.entry(Id::from_i64(host)).or_default().incidents.push((service, incident));
    }
    Ok(found)
}

/// Concurrent callers and their shared result.
#[derive(Default)]
struct SharedRead {
    hosts: Mutex<BTreeSet<HostId>>,
    found: OnceCell<Result<DetailsByHost, Arc<sqlx::Error>>>,
}

#[derive(Default)]
pub(super) struct SharedReads {
    /// The shared read that has not begun. It serves every caller that asks now.
    next: Mutex<Arc<SharedRead>>,
    /// Locked while a shared read runs.
    running: tokio::sync::Mutex<()>,
}

impl SharedReads {
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn of_host(&self, read: &SqlitePool, host: HostId) -> Result<HostDetails, Arc<sqlx::Error>> {
        let shared = self.join(host);
        let found = shared.found.get_or_init(|| self.run(read, &shared)).await;
        found.as_ref().map(|found| found.get(&host).cloned().unwrap_or_default()).map_err(Arc::clone)
    }

    fn join(&self, host: HostId) -> Arc<SharedRead> {
        let next = self.next();
        next.hosts.lock().expect("no holder panics").insert(host);
        next.clone()
    }

    async fn run(&self, read: &SqlitePool, shared: &SharedRead) -> Result<DetailsByHost, Arc<sqlx::Error>> {
        let _running = self.running.lock().await;
        // The read that begins here does not serve later callers.
        *self.next() = Arc::default();
        let hosts = std::mem::take(&mut *shared.hosts.lock().expect("no holder panics"));
        let mut conn = read.acquire().await.map_err(Arc::new)?;
        of_hosts(&mut conn, &hosts).await.map_err(Arc::new)
    }

    fn next(&self) -> MutexGuard<'_, Arc<SharedRead>> {
        self.next.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Wall;

    use super::super::{acknowledgements, fixture};
    use super::*;

    fn ack(id: i64, host: HostId, service: &str) -> Acknowledgement {
        Acknowledgement {
            id: Id::from_i64(id),
            host,
            service: Some(service.to_owned()).filter(|s| !s.is_empty()),
            sticky: false,
            expires_at: None,
            author: "user:jo".into(),
            comment: "on it".into(),
            created_at: Wall::from_millis(id),
            incident: None,
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_a_read_and_each_gets_its_host() {
        let (store, _dir) = fixture::store().await;
        let hosts = [fixture::device(&store, 7, "cam-07").await, fixture::device(&store, 8, "cam-08").await];
        let mut tx = store.begin().await.unwrap();
        acknowledgements::put(&mut tx, &ack(1, hosts[0], "disk")).await.unwrap();
        acknowledgements::put(&mut tx, &ack(2, hosts[1], "")).await.unwrap();
        tx.commit().await.unwrap();
        let reads = SharedReads::default();
        let running = reads.running.lock().await;
        let (first, second) = (reads.of_host(&store.read, hosts[0]), reads.of_host(&store.read, hosts[1]));
        tokio::pin!(first, second);
        assert!(
            futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending()
        );
        assert_eq!(reads.next().hosts.lock().unwrap().len(), 2);
        drop(running);
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first.acknowledgement("disk").map(|ack| ack.id), Some(Id::from_i64(1)));
        assert_eq!(second.acknowledgement("disk"), None, "the host's own is none of a service");
        assert!(first.reachable && first.incident("disk").is_none());
    }

    #[tokio::test]
    async fn a_read_sees_earlier_commits() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let reads = SharedReads::default();
        for id in 1..20 {
            let mut tx = store.begin().await.unwrap();
            acknowledgements::put(&mut tx, &ack(id, host, "disk")).await.unwrap();
            tx.commit().await.unwrap();
            let found = reads.of_host(&store.read, host).await.unwrap();
            assert_eq!(found.acknowledgement("disk").map(|ack| ack.id), Some(Id::from_i64(id)));
        }
    }
}
