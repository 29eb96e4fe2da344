//! The changed rows of the database that the engine is to load.
//!
//! A row is named, not its content: the row decides when it is loaded. This file knows neither the store
//! nor the engine.

use std::collections::BTreeSet;

use fleetgate_engine::id::{HostId, Id, PeerId, RentalId};

use crate::store::policy::PolicyRows;

/// Changed rows of the database. Each row is listed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub peers: BTreeSet<PeerId>,
    pub hosts: BTreeSet<HostId>,
    /// Hosts whose profiles changed. Their rows are brought in line in slices.
    pub resettled: BTreeSet<HostId>,
    pub downtimes: BTreeSet<Id>,
    /// Rentals whose devices follow another word of a profile. They do not depend on one another, and are loaded in
    /// slices.
    pub settled: BTreeSet<RentalId>,
    /// Rows that may change who may reach what. [`super::Handle::changed`] adds `peers` and `hosts` to them.
    pub policy: PolicyRows,
}

impl Changes {
    pub(super) fn add(&mut self, more: &Changes) {
        self.peers.extend(&more.peers);
        self.hosts.extend(&more.hosts);
        self.resettled.extend(&more.resettled);
        self.settled.extend(&more.settled);
        self.downtimes.extend(&more.downtimes);
        self.policy.add(&more.policy);
    }

    /// Peers may be sources of grants, and hosts may be targets.
    pub(super) fn with_policy(mut self) -> Self {
        self.policy.sources.extend(&self.peers);
        self.policy.targets.extend(&self.hosts);
        self
    }

    pub(super) fn len(&self) -> usize {
        let rows = self.peers.len() + self.hosts.len() + self.resettled.len() + self.downtimes.len();
        rows + self.settled.len() + self.policy.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
