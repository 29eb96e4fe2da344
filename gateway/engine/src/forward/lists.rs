//! Lists of flows that are kept in order at a constant cost: the flows of a peer, of a grant, of a
//! second of the timer. A flow has one place for each kind of list, so the memory is bounded by the
//! number of flows.

use std::collections::HashMap;

use crate::id::{GrantId, PeerId};

/// A flow's place in the table.
pub type Slot = u32;

const NONE: Slot = Slot::MAX;

/// Links are allocated in blocks, because one growing array would be copied while packets wait.
const BLOCK: usize = 1_024;

/// Why a flow may leave for a new one. The first entry leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spare {
    /// Both ends closed it; only repeated segments may come.
    Closed,
    /// It waits for its first reply.
    HalfOpen,
}

/// Whose flows a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    All,
    Source(PeerId),
    Device(PeerId),
    /// Those of a source to a device.
    Pair(PeerId, PeerId),
}

/// A flow is at most in one list of each variant, in one `Spare` of each scope, and either in `Timer` or in `Cut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// The flows that this peer opened.
    Source(PeerId),
    /// The flows to this peer and to hosts behind it.
    Device(PeerId),
    /// The flows that this grant permits.
    Grant(GrantId),
    /// The flows of this source to this device.
    Pair(PeerId, PeerId),
    /// Flows that may leave for a new one, oldest first.
    Spare(Spare, Scope),
    /// The flows that the timer looks at together.
    Timer(u8),
    /// The flows that no grant covers any more.
    Cut,
}

const KINDS: usize = 9;

impl List {
    fn kind(self) -> usize {
        match self {
            List::Source(_) => 0,
            List::Device(_) => 1,
            List::Grant(_) => 2,
            List::Pair(..) => 3,
            List::Spare(_, Scope::All) => 4,
            List::Spare(_, Scope::Source(_)) => 5,
            List::Spare(_, Scope::Device(_)) => 6,
            List::Spare(_, Scope::Pair(..)) => 7,
            List::Timer(_) | List::Cut => 8,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: Slot,
    after: Slot,
}

const UNLINKED: Link = Link { before: NONE, after: NONE };

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: Slot,
    last: Slot,
    len: usize,
}

#[derive(Default)]
pub struct Lists {
    links: Vec<Box<[[Link; KINDS]; BLOCK]>>,
    /// Lists that are not empty.
    ends: HashMap<List, Ends>,
}

impl Lists {
    pub fn len(&self, list: List) -> usize {
        self.ends.get(&list).map_or(0, |ends| ends.len)
    }

    pub fn first(&self, list: List) -> Option<Slot> {
        self.ends.get(&list).map(|ends| ends.first)
    }

    fn link(&mut self, slot: Slot, list: List) -> &mut Link {
        let (block, place) = (slot as usize / BLOCK, slot as usize % BLOCK);
        while self.links.len() <= block {
            self.links.push(Box::new([[UNLINKED; KINDS]; BLOCK]));
        }
        &mut self.links[block][place][list.kind()]
    }

    /// Appends a flow, which must not be in a list of this kind.
    pub fn push(&mut self, list: List, slot: Slot) {
        let ends = self.ends.entry(list).or_insert(Ends { first: slot, last: NONE, len: 0 });
        let before = std::mem::replace(&mut ends.last, slot);
        ends.len += 1;
        *self.link(slot, list) = Link { before, after: NONE };
        if before != NONE {
            self.link(before, list).after = slot;
        }
    }

    /// Removes a flow, which must be in this list.
    pub fn remove(&mut self, list: List, slot: Slot) {
        let Link { before, after } = std::mem::replace(self.link(slot, list), UNLINKED);
        if before != NONE {
            self.link(before, list).after = after;
        }
        if after != NONE {
            self.link(after, list).before = before;
        }
        let Some(ends) = self.ends.get_mut(&list) else { return };
        ends.len = ends.len.saturating_sub(1);
        if ends.first == slot {
            ends.first = after;
        }
        if ends.last == slot {
            ends.last = before;
        }
        if ends.len == 0 {
            self.ends.remove(&list);
        }
    }

    /// Moves the first flow to the end, and returns it.
    pub fn rotate(&mut self, list: List) -> Option<Slot> {
        let first = self.first(list)?;
        self.remove(list, first);
        self.push(list, first);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::id::Id;

    proptest! {
        #[test]
        fn lists_behave_as_queues(steps in proptest::collection::vec((0u8..3, 0u32..3_000, 0i64..3), 0..300)) {
            let mut lists = Lists::default();
            let mut naive: BTreeMap<List, VecDeque<Slot>> = BTreeMap::new();
            for (what, slot, owner) in steps {
                let list = List::Source(Id::from_i64(owner));
                let home = naive.iter().find(|(_, members)| members.contains(&slot)).map(|(list, _)| *list);
                match (what, home) {
                    (0, None) => {
                        lists.push(list, slot);
                        naive.entry(list).or_default().push_back(slot);
                    }
                    (1, Some(home)) => {
                        lists.remove(home, slot);
                        naive.entry(home).or_default().retain(|member| *member != slot);
                    }
                    (2, _) => {
                        let members = naive.entry(list).or_default();
                        members.rotate_left(usize::from(!members.is_empty()));
                        prop_assert_eq!(lists.rotate(list), members.back().copied());
                    }
                    _ => {}
                }
                for (list, members) in &naive {
                    prop_assert_eq!(lists.len(*list), members.len());
                    prop_assert_eq!(lists.first(*list), members.front().copied());
                }
            }
        }
    }
}
