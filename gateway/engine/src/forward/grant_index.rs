//! The grants by source and target, so that a decision looks only at grants that may concern it.
//!
//! A selection by labels stands under one of its labels, the one that fewest others stand under. A
//! target looks under each label that it has. The index finds candidates; the policy compares them
//! in full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use crate::id::{GrantId, HostId, RentalId};
use crate::messages::{GrantSource, GrantSpec, GrantTarget, SourceOwner, SourceSpec, TargetId, TargetSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TargetKey {
    AllDevices,
    Host(HostId),
    /// The hash of a label and its value. Two labels under one hash only cost time.
    Label(u64),
    Rental(RentalId),
}

#[derive(Default)]
pub struct GrantIndex {
    hasher: RandomState,
    places: HashMap<(GrantSource, TargetKey), BTreeSet<GrantId>>,
    /// The label that each selection stands under.
    anchors: HashMap<GrantId, u64>,
}

impl GrantIndex {
    /// Adds a grant, which must not be in the index. An empty selection stands nowhere.
    pub fn add(&mut self, spec: &GrantSpec) {
        let place = match &spec.target {
            GrantTarget::AllDevices => TargetKey::AllDevices,
            GrantTarget::Host(host) => TargetKey::Host(*host),
            GrantTarget::Rental(rental) => TargetKey::Rental(*rental),
            GrantTarget::Labels(labels) => {
                let Some(anchor) = self.anchor(spec.source, labels) else { return };
                self.anchors.insert(spec.id, anchor);
                TargetKey::Label(anchor)
            }
        };
        self.places.entry((spec.source, place)).or_default().insert(spec.id);
    }

    pub fn remove(&mut self, spec: &GrantSpec) {
        let place = match &spec.target {
            GrantTarget::AllDevices => TargetKey::AllDevices,
            GrantTarget::Host(host) => TargetKey::Host(*host),
            GrantTarget::Rental(rental) => TargetKey::Rental(*rental),
            GrantTarget::Labels(_) => {
                let Some(anchor) = self.anchors.remove(&spec.id) else { return };
                TargetKey::Label(anchor)
            }
        };
        let Some(grants) = self.places.get_mut(&(spec.source, place)) else { return };
        grants.remove(&spec.id);
        if grants.is_empty() {
            self.places.remove(&(spec.source, place));
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.anchors.is_empty()
    }

    fn anchor(&self, source: GrantSource, labels: &BTreeMap<String, String>) -> Option<u64> {
        let hashes = labels.iter().map(|label| self.hasher.hash_one(label));
        hashes.min_by_key(|hash| self.places.get(&(source, TargetKey::Label(*hash))).map_or(0, BTreeSet::len))
    }

    /// Calls `visit` with each grant that may permit something between the two.
    pub fn each(&self, source: &SourceSpec, target: &TargetSpec, visit: &mut dyn FnMut(GrantId)) {
        match (source.owner, target.id) {
            (SourceOwner::User { user, role }, TargetId::Host(host)) => {
                let labels = target.labels.iter().map(|label| TargetKey::Label(self.hasher.hash_one(label)));
                let places: Vec<TargetKey> =
                    [TargetKey::AllDevices, TargetKey::Host(host)].into_iter().chain(labels).collect();
                let role = role.map(GrantSource::Role);
                for from in [GrantSource::Peer(source.peer), GrantSource::User(user)].into_iter().chain(role)
                {
                    places.iter().for_each(|place| self.visit((from, *place), visit));
                }
            }
            (SourceOwner::Person { customer, .. }, TargetId::Rental(rental)) => {
                self.visit((GrantSource::Customer(customer), TargetKey::Rental(rental)), visit);
            }
            // Operators reach no rental, and renters reach nothing else.
            (SourceOwner::User { .. }, TargetId::Rental(_))
            | (SourceOwner::Person { .. }, TargetId::Host(_)) => {}
        }
    }

    fn visit(&self, at: (GrantSource, TargetKey), visit: &mut dyn FnMut(GrantId)) {
        self.places.get(&at).into_iter().flatten().for_each(|id| visit(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::messages::Gate;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn many_selections_with_a_common_label_do_not_stand_in_one_place() {
        let mut index = GrantIndex::default();
        let user = Id::from_i64(1);
        let spec = |n: i64| GrantSpec {
            id: Id::from_i64(100 + n),
            source: GrantSource::User(user),
            target: GrantTarget::Labels(labels(&[("fleet", "north"), ("rental", &n.to_string())])),
            access: Vec::new(),
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        };
        (0..1_000).for_each(|n| index.add(&spec(n)));
        let owner = SourceOwner::User { user, role: None };
        let source = SourceSpec { peer: Id::from_i64(2), owner, addresses: Default::default() };
        let target = TargetSpec {
            id: TargetId::Host(Id::from_i64(3)),
            host: Id::from_i64(3),
            name: "camera".to_owned(),
            peer: Id::from_i64(3),
            behind: false,
            labels: labels(&[("fleet", "north"), ("rental", "7")]),
            addresses: Vec::new(),
        };
        let mut seen = Vec::new();
        index.each(&source, &target, &mut |id| seen.push(id));
        assert!(seen.contains(&Id::from_i64(107)) && seen.len() <= 2, "{seen:?}");
        (0..1_000).for_each(|n| index.remove(&spec(n)));
        assert!(index.is_empty());
    }
}
