//! The names of targets, as far as a source may reach the targets.
//!
//! A name belongs to a source exactly as long as [`explain`](super::explain) would permit something
//! to the addresses: the same function decides about both. What a source may not reach does not
//! exist for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::policy::Policy;
use crate::id::{HostId, PeerId};
use crate::messages::TargetSpec;
use crate::time::Now;

/// Names that are looked at below another one: less than a millisecond of the tunnel thread. A part of
/// the names whose first thousand are all denied counts as one without names.
const LOOKED_AT: usize = 1_000;

/// The hosts by name. Names are kept backwards, so that those below another one (`cam.north` is below
/// `north`) stand in a row.
#[derive(Default)]
pub struct Names(BTreeMap<String, HostId>);

impl Names {
    /// Gives a name to a host. It is taken from another one.
    pub fn insert(&mut self, name: &str, host: HostId) {
        self.0.insert(backwards(name), host);
    }

    /// Removes a name, unless another host has it.
    pub fn remove(&mut self, name: &str, host: HostId) {
        let name = backwards(name);
        if self.0.get(&name) == Some(&host) {
            self.0.remove(&name);
        }
    }

    fn get(&self, name: &str) -> Option<HostId> {
        self.0.get(&backwards(name)).copied()
    }

    /// Returns the hosts below a name. One with two dots in a row has no name in DNS.
    fn below(&self, name: &str) -> impl Iterator<Item = HostId> {
        let above = backwards(name) + ".";
        let below = self.0.range(above.clone()..).take_while(move |(name, _)| name.starts_with(&above));
        below.filter(|(name, _)| !name.contains("..")).map(|(_, host)| *host)
    }
}

fn backwards(name: &str) -> String {
    name.chars().rev().collect()
}

impl Policy {
    /// Returns the addresses at which a peer reaches the target of this name now. They are none if
    /// there is no such target.
    pub fn addresses_of(&self, peer: PeerId, name: &str, now: Now) -> Vec<IpAddr> {
        self.names.get(name).into_iter().flat_map(|host| self.reached(peer, host, now)).collect()
    }

    /// Returns whether a peer reaches a target now whose name is below this one.
    pub fn reaches_below(&self, peer: PeerId, name: &str, now: Now) -> bool {
        let mut below = self.names.below(name).take(LOOKED_AT);
        below.any(|host| self.reached(peer, host, now).next().is_some())
    }

    fn reached(&self, peer: PeerId, host: HostId, now: Now) -> impl Iterator<Item = IpAddr> {
        let addresses = self.targets.get(&host).into_iter().flat_map(|target| &target.addresses);
        let addresses = addresses.map(|address| address.reached_at);
        let own = addresses.filter(move |address| self.owners.get(address) == Some(&host));
        own.filter(move |address| self.peer_reaches(peer, *address, now))
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
