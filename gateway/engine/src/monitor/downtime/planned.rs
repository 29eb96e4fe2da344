//! The planned downtimes, and which of them are for a host.

use std::collections::{BTreeMap, BTreeSet};

use super::{Window, over_at};
use crate::id::{HostId, Id};
use crate::messages::{Downtime, HostScope, HostSpec};
use crate::time::Wall;

/// All planned downtimes. Those of a host are found without a look at those of other hosts.
#[derive(Debug, Default)]
pub struct Planned {
    all: BTreeMap<Id, Downtime>,
    of_hosts: BTreeSet<(HostId, Id)>,
    by_labels: BTreeSet<Id>,
    /// When each is over. Endless ones are missing.
    ends: BTreeSet<(Wall, Id)>,
}

impl Planned {
    pub fn contains(&self, id: Id) -> bool {
        self.all.contains_key(&id)
    }

    /// Returns what was planned under the same id.
    pub fn insert(&mut self, downtime: Downtime) -> Option<Downtime> {
        let (id, before) = (downtime.id, self.remove(downtime.id));
        match &downtime.scope.hosts {
            HostScope::One(host) => self.of_hosts.insert((*host, id)),
            HostScope::Labels(_) => self.by_labels.insert(id),
        };
        self.ends.extend(over_at(&downtime).map(|end| (end, id)));
        self.all.insert(id, downtime);
        before
    }

    pub fn remove(&mut self, id: Id) -> Option<Downtime> {
        let downtime = self.all.remove(&id)?;
        match &downtime.scope.hosts {
            HostScope::One(host) => self.of_hosts.remove(&(*host, id)),
            HostScope::Labels(_) => self.by_labels.remove(&id),
        };
        if let Some(end) = over_at(&downtime) {
            self.ends.remove(&(end, id));
        }
        Some(downtime)
    }

    /// Removes those that were over at this time, and returns them.
    pub fn remove_ended(&mut self, at: Wall) -> Vec<Downtime> {
        let ended: Vec<Id> = self.ends.iter().take_while(|(end, _)| *end <= at).map(|(_, id)| *id).collect();
        ended.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Returns the downtimes as they apply to a host, in the order of their ids.
    pub fn windows(&self, host: &HostSpec) -> Vec<Window> {
        let own = self.of_hosts.range((host.id, Id::from_i64(0))..).take_while(|(of, _)| *of == host.id);
        let ids = own.map(|(_, id)| id).chain(&self.by_labels);
        let planned = ids.filter_map(|id| self.all.get(id));
        let mut windows: Vec<Window> = planned.filter_map(|downtime| Window::of(downtime, host)).collect();
        windows.sort_by_key(|window| window.id);
        windows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::messages::{Scope, When};
    use crate::monitor::testing;

    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// Id, host (0: hosts with a label), and end.
        Insert(i64, i64, i64),
        Remove(i64),
        RemoveEnded(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (1..9i64, 0..4i64, 0..20i64).prop_map(|(id, host, end)| Act::Insert(id, host, end)),
            1 => (1..9i64).prop_map(Act::Remove),
            1 => (0..20i64).prop_map(Act::RemoveEnded),
        ]
    }

    fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([("site".to_owned(), "hill".to_owned())])
    }

    fn downtime(id: i64, host: i64, end: i64) -> Downtime {
        let hosts = match host {
            0 => HostScope::Labels(labels()),
            host => HostScope::One(HostId::from_i64(host)),
        };
        let (start, end) = (Wall::default(), Wall::from_millis(end));
        let scope = Scope { hosts, service: None };
        Downtime { id: Id::from_i64(id), scope, when: When::Once { start, end, duration: None } }
    }

    /// Does to a plain list what `act` means.
    fn apply(all: &mut BTreeMap<Id, Downtime>, act: Act) -> Vec<Downtime> {
        match act {
            Act::Insert(id, host, end) => {
                all.insert(Id::from_i64(id), downtime(id, host, end)).into_iter().collect()
            }
            Act::Remove(id) => all.remove(&Id::from_i64(id)).into_iter().collect(),
            Act::RemoveEnded(at) => {
                let is_over = |d: &Downtime| over_at(d).is_some_and(|end| end <= Wall::from_millis(at));
                let ended = all.values().filter(|d| is_over(d)).cloned().collect();
                all.retain(|_, d| !is_over(d));
                ended
            }
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_look_at_all_downtimes_finds(acts in prop::collection::vec(act(), 0..60)) {
            let (mut planned, mut all) = (Planned::default(), BTreeMap::new());
            for act in acts {
                let mut removed: Vec<Downtime> = match act {
                    Act::Insert(id, host, end) => planned.insert(downtime(id, host, end)).into_iter().collect(),
                    Act::Remove(id) => planned.remove(Id::from_i64(id)).into_iter().collect(),
                    Act::RemoveEnded(at) => planned.remove_ended(Wall::from_millis(at)),
                };
                removed.sort_by_key(|downtime| downtime.id);
                prop_assert_eq!(removed, apply(&mut all, act));
                for host in 1..4 {
                    let mut spec = testing::host(host);
                    spec.labels = if host == 1 { BTreeMap::new() } else { labels() };
                    let windows: Vec<Window> = all.values().filter_map(|d| Window::of(d, &spec)).collect();
                    prop_assert_eq!(planned.windows(&spec), windows);
                }
                for id in (1..9).map(Id::from_i64) {
                    prop_assert_eq!(planned.contains(id), all.contains_key(&id));
                }
            }
        }
    }
}
