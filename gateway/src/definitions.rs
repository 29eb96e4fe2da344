//! What each host is called and which services it has, as the engine was told: in memory, so that a result
//! costs no reading.
//!
//! Promises that nothing in here is older than a change whose caller was answered. `handle.rs` alone writes it:
//! it takes a host out when something of it was committed, and puts it in again as it loads it for the engine.
//! A host that is not in here may exist: whoever misses it reads the store. Knows nothing of states.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::wire::{HostSpec, ServiceSpec, Threshold};

use crate::store::definition::check_kind;

/// A host with its services, in the order of its profiles: what an answer shows of them beside their states.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub id: HostId,
    pub name: String,
    /// The peer it is reached through: its own, or the device it stands behind.
    pub peer: Option<PeerId>,
    pub services: Vec<Service>,
}

/// Some 150 bytes, of which there may be a million.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    /// The word for what is asked.
    pub check: &'static str,
    /// Its results are sent, and never asked for.
    pub is_sent: bool,
    pub attempts: u32,
    pub interval: Duration,
    pub retry: Duration,
    pub thresholds: Box<[Threshold]>,
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
        }
    }
}

impl Definition {
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

#[derive(Default)]
pub struct Definitions(RwLock<Known>);

#[derive(Default)]
struct Known {
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

    /// In the place of what was known of it.
    pub fn put(&self, host: Definition) {
        let mut known = self.write();
        known.forget(host.id);
        known.names.insert(host.name.clone(), host.id);
        known.hosts.insert(host.id, Arc::new(host));
    }

    /// Something of them changed, and they are loaded again later.
    pub fn forget<'a>(&self, hosts: impl IntoIterator<Item = &'a HostId>) {
        let mut known = self.write();
        hosts.into_iter().for_each(|host| known.forget(*host));
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().expect("no holder panics")
    }
}

impl Known {
    fn forget(&mut self, host: HostId) {
        let Some(before) = self.hosts.remove(&host) else { return };
        // Another may be called so by now.
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
