//! The names of targets, as far as a source may reach the targets.
//!
//! A name belongs to a source exactly as long as [`explain`](super::explain) would permit something
//! to the addresses: the same function decides about both. What a source may not reach does not
//! exist for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::policy::Policy;
use crate::id::PeerId;
use crate::messages::{SourceOwner, SourceSpec, TargetId, TargetSpec};
use crate::time::Now;

/// Names that are looked at below another one: less than a millisecond of the tunnel thread. A part of
/// the names whose first thousand are all denied counts as one without names.
const LOOKED_AT: usize = 1_000;

/// The targets by name. Names are kept backwards, so that those below another one (`cam.north` is below
/// `north`) stand in a row. Several targets may have one name.
type ByName = BTreeMap<String, BTreeSet<TargetId>>;

/// The names of hosts and those of rentals. Operators ask for the former alone, and renters for the latter.
#[derive(Default)]
pub struct Names {
    hosts: ByName,
    rentals: ByName,
}

impl Names {
    pub fn insert(&mut self, name: &str, target: TargetId) {
        self.with(target).entry(backwards(name)).or_default().insert(target);
    }

    /// Removes a name of a target. Other targets keep it.
    pub fn remove(&mut self, name: &str, target: TargetId) {
        let (names, name) = (self.with(target), backwards(name));
        let Some(targets) = names.get_mut(&name) else { return };
        targets.remove(&target);
        if targets.is_empty() {
            names.remove(&name);
        }
    }

    fn with(&mut self, target: TargetId) -> &mut ByName {
        match target {
            TargetId::Host(_) => &mut self.hosts,
            TargetId::Rental(_) => &mut self.rentals,
        }
    }

    fn for_owner(&self, owner: SourceOwner) -> &ByName {
        match owner {
            SourceOwner::User { .. } => &self.hosts,
            SourceOwner::Person { .. } => &self.rentals,
        }
    }

    fn get(&self, owner: SourceOwner, name: &str) -> impl Iterator<Item = TargetId> {
        self.for_owner(owner).get(&backwards(name)).into_iter().flatten().copied()
    }

    /// Returns the targets below a name. One with two dots in a row has no name in DNS.
    fn below(&self, owner: SourceOwner, name: &str) -> impl Iterator<Item = TargetId> {
        let above = backwards(name) + ".";
        let below = self.for_owner(owner).range(above.clone()..);
        let below = below.take_while(move |(name, _)| name.starts_with(&above));
        below.filter(|(name, _)| !name.contains("..")).flat_map(|(_, targets)| targets).copied()
    }
}

fn backwards(name: &str) -> String {
    name.chars().rev().collect()
}

impl Policy {
    /// Returns the addresses at which a peer reaches the targets of this name now. They are none if
    /// there is no such target.
    pub fn addresses_of(&self, peer: PeerId, name: &str, now: Now) -> Vec<IpAddr> {
        let Some(source) = self.sources.get(&peer) else { return Vec::new() };
        self.names.get(source.owner, name).flat_map(|target| self.reached(source, target, now)).collect()
    }

    /// Returns whether a peer reaches a target now whose name is below this one.
    pub fn reaches_below(&self, peer: PeerId, name: &str, now: Now) -> bool {
        let Some(source) = self.sources.get(&peer) else { return false };
        let mut below = self.names.below(source.owner, name).take(LOOKED_AT);
        below.any(|target| self.reached(source, target, now).next().is_some())
    }

    fn reached(&self, source: &SourceSpec, id: TargetId, now: Now) -> impl Iterator<Item = IpAddr> {
        let addresses = self.targets.get(&id).into_iter().flat_map(|target| &target.addresses);
        let addresses = addresses.map(|address| address.reached_at);
        let own = addresses.filter(move |address| self.owners.get(address) == Some(&id));
        own.filter(move |address| self.reaches(source, *address, now))
    }

    /// Returns the name of the target that a peer reaches at this address now.
    pub fn name_of(&self, peer: PeerId, address: IpAddr, now: Now) -> Option<&str> {
        let source = self.sources.get(&peer)?;
        let target = self.target_at(address)?;
        self.reaches(source, address, now).then_some(target.name.as_str())
    }

    fn target_at(&self, address: IpAddr) -> Option<&TargetSpec> {
        self.owners.get(&address).and_then(|id| self.targets.get(id))
    }
}
