//! The name and the services of each host, as loaded into the engine. They are kept in memory, so that
//! a check result costs no read of the store.
//!
//! No entry is older than a change whose caller has its response. Only `handle/mod.rs` writes here: it
//! removes a host when a change of it is committed, and puts it back when it loads the host into the
//! engine. A host that is missing here may exist, so the caller then reads the store. There are no
//! states in here.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::messages::{Check, HostSpec, ServiceSpec, Threshold};

use crate::store::definition::check_kind;

/// A host with its services, in the order of its profiles: what a response shows of them besides their
/// states.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub id: HostId,
    pub name: String,
    /// The peer that the host is reached through: its own, or that of its device.
    pub peer: Option<PeerId>,
    pub services: Vec<Service>,
}

/// A service. It takes some 150 bytes, and there may be a million of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    /// The kind of its check.
    pub check: &'static str,
    /// The service is passive: its results are submitted, and the gateway never probes it.
    pub is_sent: bool,
    pub attempts: u32,
    pub interval: Duration,
    pub retry: Duration,
    pub thresholds: Box<[Threshold]>,
    /// Those without the rental that is active. `None`: no rental has thresholds for it.
    pub usual: Option<Box<[Threshold]>>,
}

impl From<&HostSpec> for Definition {
    fn from(spec: &HostSpec) -> Self {
        Definition {
            id: spec.id,
            name: spec.name.clone(),
            peer: spec.peer,
            services: spec.services.iter().map(Service::from).collect(),
        }
    }
}

impl From<&ServiceSpec> for Service {
    fn from(spec: &ServiceSpec) -> Self {
        Service {
            name: spec.name.clone(),
            check: check_kind(&spec.check),
            is_sent: spec.check.is_sent(),
            attempts: spec.timing.attempts,
            interval: spec.timing.interval,
            retry: spec.timing.retry,
            thresholds: spec.thresholds.clone().into(),
            usual: spec.usual.clone().map(Into::into),
        }
    }
}

impl Service {
    /// Whether the gateway itself sets its state, so that nobody sends results.
    pub fn is_set_by_gateway(&self) -> bool {
        self.check == check_kind(&Check::Rental)
    }
}

impl Definition {
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

#[derive(Default)]
pub struct Definitions(RwLock<DefinitionIndex>);

#[derive(Default)]
struct DefinitionIndex {
    hosts: HashMap<HostId, Arc<Definition>>,
    names: HashMap<String, HostId>,
}

impl Definitions {
    pub fn by_id(&self, host: HostId) -> Option<Arc<Definition>> {
        self.read().hosts.get(&host).cloned()
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Definition>> {
        let known = self.read();
        known.names.get(name).and_then(|host| known.hosts.get(host)).cloned()
    }

    /// Replaces the host's previous definition.
    pub fn put(&self, host: Definition) {
        let mut known = self.write();
        known.forget(host.id);
        known.names.insert(host.name.clone(), host.id);
        known.hosts.insert(host.id, Arc::new(host));
    }

    /// Removes hosts that changed. They are loaded again later.
    pub fn forget<'a>(&self, hosts: impl IntoIterator<Item = &'a HostId>) {
        let mut known = self.write();
        hosts.into_iter().for_each(|host| known.forget(*host));
    }

    fn read(&self) -> RwLockReadGuard<'_, DefinitionIndex> {
        self.0.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, DefinitionIndex> {
        self.0.write().expect("no holder panics")
    }
}

impl DefinitionIndex {
    fn forget(&mut self, host: HostId) {
        let Some(before) = self.hosts.remove(&host) else { return };
        // Another host may have this name by now.
        if self.names.get(&before.name) == Some(&host) {
            self.names.remove(&before.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    const FIRST: HostId = Id::from_i64(7);
    const SECOND: HostId = Id::from_i64(8);

    fn named(known: &Definitions, name: &str) -> Option<HostId> {
        known.by_name(name).map(|host| host.id)
    }

    fn called(id: HostId, name: &str) -> Definition {
        Definition { id, name: name.into(), peer: None, services: Vec::new() }
    }

    #[test]
    fn a_host_is_found_by_its_id_and_by_the_name_that_it_has_now() {
        let known = Definitions::default();
        known.put(called(FIRST, "nas"));
        known.put(called(FIRST, "backup-nas"));
        assert_eq!((named(&known, "nas"), named(&known, "backup-nas")), (None, Some(FIRST)));
        assert_eq!(known.by_id(FIRST).unwrap().name, "backup-nas");
        known.forget(&[FIRST]);
        assert_eq!((known.by_id(FIRST), named(&known, "backup-nas")), (None, None));
    }

    #[test]
    fn a_name_that_went_over_to_another_host_stays_with_it() {
        let known = Definitions::default();
        known.put(called(FIRST, "nas"));
        known.put(called(SECOND, "nas"));
        known.forget(&[FIRST]);
        assert_eq!(named(&known, "nas"), Some(SECOND));
    }
}
