//! The stored states of all hosts and services, as the monitor gets them back after a restart.
//!
//! It does not know what a host is made of, only the names of its services.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Check, HostSnapshot, HostSpec, HostStatus};
use sqlx::sqlite::SqliteConnection;

use crate::store::states::{self, HostRow, ServiceRow};

/// The states of all hosts.
pub(super) struct States {
    hosts: BTreeMap<HostId, HostRow>,
    services: BTreeMap<HostId, Vec<ServiceRow>>,
}

impl States {
    pub async fn load(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let hosts: Vec<HostRow> = sqlx::query_as(states::ALL_HOSTS).fetch_all(&mut *conn).await?;
        let rows: Vec<ServiceRow> = sqlx::query_as(states::ALL_SERVICES).fetch_all(conn).await?;
        let mut services: BTreeMap<HostId, Vec<ServiceRow>> = BTreeMap::new();
        for row in rows {
            services.entry(row.host).or_default().push(row);
        }
        Ok(States { hosts: hosts.into_iter().map(|row| (row.0.host, row)).collect(), services })
    }

    /// Whether the rows are exactly those of the host's services.
    pub fn fit(&self, spec: &HostSpec) -> bool {
        let rows = self.services.get(&spec.id).map_or(&[][..], Vec::as_slice);
        let has: BTreeSet<&str> = rows.iter().map(|row| row.state.name.as_str()).collect();
        self.hosts.contains_key(&spec.id) && has == spec.services.iter().map(|s| s.name.as_str()).collect()
    }

    /// Takes the states of a host. A pending service has no state to remember, except that a
    /// passive one remembers since when it waits for results.
    pub fn memory(&mut self, spec: HostSpec) -> HostSnapshot {
        let state = self.hosts.remove(&spec.id).map(|row| row.0).filter(|s| s.status != HostStatus::Pending);
        let rows = self.services.remove(&spec.id).unwrap_or_default();
        let waits = |row: &ServiceRow, check: &Check| row.state.status.is_some() || check.is_sent();
        let wanted =
            |row: &ServiceRow| spec.services.iter().any(|s| s.name == row.state.name && waits(row, &s.check));
        let services = rows.into_iter().filter(wanted).map(|row| row.state).collect();
        HostSnapshot { spec, state, services, acknowledged: Vec::new() }
    }
}
