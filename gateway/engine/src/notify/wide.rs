//! The incidents that have several hosts or were merged into such a one, each with the incident
//! under which it is notified.
//!
//! It is cheap to clone, so each index by incident keeps its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::IncidentId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide(Arc<BTreeMap<IncidentId, IncidentId>>);

impl Wide {
    pub fn new(wide: BTreeMap<IncidentId, IncidentId>) -> Wide {
        Wide(Arc::new(wide))
    }

    /// Returns the incident of several hosts that an incident belongs to.
    pub fn root(&self, incident: IncidentId) -> Option<IncidentId> {
        self.0.get(&incident).copied()
    }

    /// Returns the incident under which an incident is notified.
    pub fn whole(&self, incident: IncidentId) -> IncidentId {
        self.root(incident).unwrap_or(incident)
    }
}
