//! Incidents that are part of one of several hosts, or are one: by which they are told.
//!
//! Cheap to clone: whoever keeps something in order of incidents keeps this beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::IncidentId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide(Arc<BTreeMap<IncidentId, IncidentId>>);

impl Wide {
    pub fn new(wide: BTreeMap<IncidentId, IncidentId>) -> Wide {
        Wide(Arc::new(wide))
    }

    /// The one of several hosts that an incident belongs to.
    pub fn root(&self, incident: IncidentId) -> Option<IncidentId> {
        self.0.get(&incident).copied()
    }

    /// What an incident is told as.
    pub fn whole(&self, incident: IncidentId) -> IncidentId {
        self.root(incident).unwrap_or(incident)
    }
}
