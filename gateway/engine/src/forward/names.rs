//! The names of targets, as far as a source may reach the targets.
//!
//! A name belongs to a source exactly as long as [`explain`](super::explain) would permit something
//! to the addresses: the same function decides about both. What a source may not reach does not
//! exist for it.

use std::net::IpAddr;

use super::policy::Policy;
use crate::id::PeerId;
use crate::messages::TargetSpec;
use crate::time::Now;

impl Policy {
    /// Returns the addresses at which a peer reaches the target of this name now. They are none if
    /// there is no such target.
    pub fn addresses_of(&self, peer: PeerId, name: &str, now: Now) -> Vec<IpAddr> {
        let Some(target) = self.names.get(name).and_then(|host| self.targets.get(host)) else {
            return Vec::new();
        };
        let addresses = target.addresses.iter().map(|address| address.reached_at);
        let own = addresses.filter(|address| self.owners.get(address) == Some(&target.host));
        own.filter(|address| self.peer_reaches(peer, *address, now)).collect()
    }

    /// Returns the name of the target that a peer reaches at this address now.
    pub fn name_of(&self, peer: PeerId, address: IpAddr, now: Now) -> Option<&str> {
        let target = self.target_at(address)?;
        self.peer_reaches(peer, address, now).then_some(target.name.as_str())
    }

    fn peer_reaches(&self, peer: PeerId, address: IpAddr, now: Now) -> bool {
        self.sources.get(&peer).is_some_and(|source| self.reaches(source, address, now))
    }

    fn target_at(&self, address: IpAddr) -> Option<&TargetSpec> {
        self.owners.get(&address).and_then(|host| self.targets.get(host))
    }
}
