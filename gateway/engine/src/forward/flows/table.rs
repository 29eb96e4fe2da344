//! The table of flows: what was permitted and goes on.
//!
//! A flow is found in both directions by a keyed hash over peer, addresses, protocol and ports. The
//! peer belongs to the key, because every site has the same 192.168.1.0/24. A flow adds only that
//! replies and errors about it are expected; its permission is compared with the policy for each
//! packet. The table is bounded in total, per source and per device.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::{Flow, FlowId, Key, Limits, Path};
use crate::forward::lists::{List, Lists, Scope, Slot, Spare};
use crate::forward::policy::Permit;
use crate::forward::tcp_state::Direction;
use crate::forward::timers::Timers;
use crate::messages::DropReason;
use crate::time::Mono;

/// Flows are allocated in blocks, because one growing array would be copied while packets wait.
const BLOCK: usize = 256;

/// Places that are kept of the flows that were found last: 16 KB. Few flows carry most packets, and these places stay
/// in the caches of the processor between two bursts. What a packet needs of a large index does not.
const RECENT: usize = 1_024;

/// A hash is the key of the index: it is already as good as random.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A flow that was found, and the hash of the key that found it. It may have ended since, and its place may have
/// another flow.
#[derive(Clone, Copy)]
struct RecentFlow {
    hash: u64,
    at: (Slot, Direction),
}

/// The flows that were found last, by hash. One that comes to the place of another one takes it.
struct Recent(Box<[RecentFlow; RECENT]>);

impl Default for Recent {
    fn default() -> Self {
        // None of them needs a mark as empty: a flow shows by its key whether it is meant.
        Recent(Box::new([RecentFlow { hash: 0, at: (0, Direction::Out) }; RECENT]))
    }
}

#[derive(Default)]
pub struct Flows {
    limits: Limits,
    blocks: Vec<Vec<Option<Flow>>>,
    free: Vec<Slot>,
    len: usize,
    serial: u64,
    hasher: RandomState,
    /// Each flow stands here twice, by the hash of its key in each direction.
    index: HashMap<u64, (Slot, Direction), BuildHasherDefault<Identity>>,
    recent: Recent,
    lists: Lists,
    timers: Timers,
}

impl Flows {
    pub fn new(limits: Limits) -> Flows {
        Flows { limits, ..Flows::default() }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of places; each slot is below it.
    pub fn places(&self) -> Slot {
        let Some(last) = self.blocks.last() else { return 0 };
        // Each block but the last one is full.
        ((self.blocks.len() - 1) * BLOCK + last.len()) as Slot
    }

    pub fn count(&self, list: List) -> usize {
        self.lists.len(list)
    }

    pub fn first(&self, list: List) -> Option<Slot> {
        self.lists.first(list)
    }

    /// Moves the first flow of a list to its end, and returns it.
    pub fn rotate(&mut self, list: List) -> Option<Slot> {
        self.lists.rotate(list)
    }

    pub fn get(&self, slot: Slot) -> Option<&Flow> {
        self.blocks.get(slot as usize / BLOCK)?.get(slot as usize % BLOCK)?.as_ref()
    }

    /// Returns a flow if it is still there.
    pub fn living(&self, id: FlowId) -> Option<&Flow> {
        self.get(id.slot).filter(|flow| flow.serial == id.serial)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Flow> {
        self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.as_mut()
    }

    fn hash(&self, key: &Key) -> u64 {
        let mut bytes = [0; 46];
        bytes[..8].copy_from_slice(&key.peer.as_i64().to_ne_bytes());
        bytes[8..24].copy_from_slice(&key.src.to_ne_bytes());
        bytes[24..40].copy_from_slice(&key.dst.to_ne_bytes());
        bytes[40..42].copy_from_slice(&key.src_port.to_ne_bytes());
        bytes[42..44].copy_from_slice(&key.dst_port.to_ne_bytes());
        bytes[44..].copy_from_slice(&[key.protocol as u8, key.v6.into()]);
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&bytes);
        hasher.finish()
    }

    /// Finds the flow that a packet belongs to, and its direction.
    pub fn find(&mut self, key: &Key) -> Option<(Slot, Direction)> {
        let hash = self.hash(key);
        let place = hash as usize % RECENT;
        let recent = self.recent.0[place];
        // A flow with this key is the one that the index has: no two flows have the same key.
        if recent.hash == hash && self.is_at(recent.at, key) {
            return Some(recent.at);
        }
        let at = self.index.get(&hash).copied().filter(|at| self.is_at(*at, key))?;
        self.recent.0[place] = RecentFlow { hash, at };
        Some(at)
    }

    fn is_at(&self, (slot, direction): (Slot, Direction), key: &Key) -> bool {
        self.get(slot).is_some_and(|flow| flow.path.key(direction) == *key)
    }

    /// Finds place for a new flow. Returns the flow that must leave for it: a closed one before a
    /// half-open one, and one of the same source before others.
    ///
    /// # Errors
    /// Fails when only confirmed flows could make place, or too many flows of the source stand there.
    pub fn make_room(&self, path: &Path) -> Result<Option<Slot>, DropReason> {
        let (source, device) = (path.source, path.device);
        let (own, there) = (self.lists.len(List::Source(source)), self.lists.len(List::Device(device)));
        let leaves = if own >= self.limits.per_source {
            self.spare(Scope::Source(source))
        } else if there >= self.limits.per_device {
            let may_displace = self.lists.len(List::Pair(source, device)) < there.div_ceil(2);
            self.spare_of(Scope::Pair(source, device), Scope::Device(device), may_displace)
        } else if self.len >= self.limits.flows {
            let may_displace = own < self.limits.per_source.div_ceil(2);
            self.spare_of(Scope::Source(source), Scope::All, may_displace)
        } else {
            return Ok(None);
        };
        leaves.map(Some).ok_or(DropReason::FlowTableFull)
    }

    fn spare(&self, scope: Scope) -> Option<Slot> {
        self.spare_of(scope, scope, false)
    }

    /// Looks among the flows of the source and among all of them. A half-open flow of another source
    /// leaves only for a source that has few itself: `may_displace`.
    fn spare_of(&self, own: Scope, all: Scope, may_displace: bool) -> Option<Slot> {
        let first = |spare, scope| self.first(List::Spare(spare, scope));
        first(Spare::Closed, own)
            .or_else(|| first(Spare::Closed, all))
            .or_else(|| first(Spare::HalfOpen, own))
            .or_else(|| first(Spare::HalfOpen, all).filter(|_| may_displace))
    }

    /// Adds a flow. The caller has made room.
    ///
    /// # Errors
    /// Fails when a packet of it could not be told from one of a live flow.
    pub fn insert(&mut self, mut flow: Flow) -> Result<Slot, DropReason> {
        let hashes = [Direction::Out, Direction::Back].map(|direction| self.hash(&flow.path.key(direction)));
        if hashes.iter().any(|hash| self.index.contains_key(hash)) || hashes[0] == hashes[1] {
            return Err(DropReason::FlowConflict);
        }
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        self.serial += 1;
        self.len += 1;
        self.index.insert(hashes[0], (slot, Direction::Out));
        self.index.insert(hashes[1], (slot, Direction::Back));
        for list in lists_of(&flow.path, flow.permit) {
            self.lists.push(list, slot);
        }
        flow.spare = flow.progress.spare();
        self.join_spare(&flow.path, flow.spare, slot);
        flow.serial = self.serial;
        flow.timer = self.timers.file(&mut self.lists, slot, flow.looked_at(flow.recorded), flow.recorded);
        if let Some(place) = self.place(slot) {
            *place = Some(flow);
        }
        Ok(slot)
    }

    fn place(&mut self, slot: Slot) -> Option<&mut Option<Flow>> {
        self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)
    }

    /// Adds one empty place.
    fn grow(&mut self) -> Slot {
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let before = (self.blocks.len() - 1) * BLOCK;
        let Some(block) = self.blocks.last_mut() else { return before as Slot };
        block.push(None);
        (before + block.len() - 1) as Slot
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Flow> {
        let flow = self.place(slot)?.take()?;
        for direction in [Direction::Out, Direction::Back] {
            let hash = self.hash(&flow.path.key(direction));
            self.index.remove(&hash);
        }
        for list in lists_of(&flow.path, flow.permit) {
            self.lists.remove(list, slot);
        }
        self.lists.remove(flow.due_list(), slot);
        self.leave_spare(&flow.path, flow.spare, slot);
        self.free.push(slot);
        self.len -= 1;
        Some(flow)
    }

    fn join_spare(&mut self, path: &Path, spare: Option<Spare>, slot: Slot) {
        let Some(spare) = spare else { return };
        scopes(path).into_iter().for_each(|scope| self.lists.push(List::Spare(spare, scope), slot));
    }

    fn leave_spare(&mut self, path: &Path, spare: Option<Spare>, slot: Slot) {
        let Some(spare) = spare else { return };
        scopes(path).into_iter().for_each(|scope| self.lists.remove(List::Spare(spare, scope), slot));
    }

    /// Notes a packet: the flow lives on for the time that its state allows.
    pub fn touch(&mut self, slot: Slot, direction: Direction, now: Mono) {
        let Some(flow) = self.get_mut(slot) else { return };
        if flow.progress.prolongs(direction) {
            flow.prolonged = now;
        }
        let before = std::mem::replace(&mut flow.expires, flow.prolonged + flow.progress.timeout());
        let sooner = flow.expires < before;
        let (next, path, due) = (flow.looked_at(now), flow.path, flow.due_list());
        let spare = flow.progress.spare();
        let before = std::mem::replace(&mut flow.spare, spare);
        if before != spare {
            self.leave_spare(&path, before, slot);
            self.join_spare(&path, spare, slot);
        }
        if sooner {
            self.lists.remove(due, slot);
            self.file(slot, next, now);
        }
    }

    fn file(&mut self, slot: Slot, at: Mono, now: Mono) {
        let timer = self.timers.file(&mut self.lists, slot, at, now);
        if let Some(flow) = self.get_mut(slot) {
            flow.timer = timer;
        }
    }

    /// Changes the permission of a flow.
    pub fn permit(&mut self, slot: Slot, permit: Permit) {
        let Some(flow) = self.get_mut(slot) else { return };
        let before = std::mem::replace(&mut flow.permit, permit).grant;
        if before != permit.grant {
            self.lists.remove(List::Grant(before), slot);
            self.lists.push(List::Grant(permit.grant), slot);
        }
    }

    /// Cuts a flow: it leaves the timer and waits for its resets.
    pub fn cut(&mut self, slot: Slot) {
        let Some(flow) = self.get_mut(slot).filter(|flow| !flow.is_cut) else { return };
        let due = flow.due_list();
        flow.is_cut = true;
        self.lists.remove(due, slot);
        self.lists.push(List::Cut, slot);
    }

    /// Returns the next flow that the timer looks at. It is filed again unless it has expired.
    pub fn due(&mut self, now: Mono) -> Option<(Slot, bool)> {
        let slot = self.timers.pop(&mut self.lists, now)?;
        let (expires, next) = self.get(slot).map_or((now, now), |flow| (flow.expires, flow.looked_at(now)));
        self.file(slot, next, now);
        Some((slot, expires <= now))
    }

    pub fn next_due(&self) -> Option<Mono> {
        self.timers.next()
    }
}

/// The lists that a flow is in for all of its life. That of its grant changes with the grant.
fn lists_of(path: &Path, permit: Permit) -> [List; 4] {
    let (source, device) = (path.source, path.device);
    [List::Source(source), List::Device(device), List::Pair(source, device), List::Grant(permit.grant)]
}

fn scopes(path: &Path) -> [Scope; 4] {
    let (source, device) = (path.source, path.device);
    [Scope::All, Scope::Source(source), Scope::Device(device), Scope::Pair(source, device)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::flows::Progress;
    use crate::forward::policy::{Granted, Route};
    use crate::forward::window::Span;
    use crate::id::Id;
    use crate::messages::{GrantProtocol, SourceOwner, TargetId};

    /// A flow from this port of a source.
    fn flow(src_port: u16) -> Flow {
        let (source, device) = (Id::from_i64(1), Id::from_i64(2));
        let granted = Granted {
            permit: Permit { generation: 0, grant: Id::from_i64(3), span: Span::default() },
            owner: SourceOwner::User { user: Id::from_i64(4), role: None },
            route: Route { target: TargetId::Host(device), host: device, device, real: 8 },
        };
        let path = Path {
            source,
            device,
            v6: false,
            protocol: GrantProtocol::Udp,
            src: 7,
            reached_at: 8,
            real: 8,
            src_port,
            dst_port: 53,
        };
        Flow::new(path, &granted, Progress::Udp { replied: false }, Mono::ZERO)
    }

    #[test]
    fn a_flow_that_was_found_needs_the_index_no_more() {
        for direction in [Direction::Out, Direction::Back] {
            let mut flows = Flows::default();
            let key = flow(1).path.key(direction);
            let slot = flows.insert(flow(1)).expect("an empty table");
            assert_eq!(flows.find(&key), Some((slot, direction)));
            flows.index.clear();
            assert_eq!(flows.find(&key), Some((slot, direction)));
        }
    }

    #[test]
    fn a_flow_that_ended_is_not_found_in_its_former_place() {
        let mut flows = Flows::default();
        let [one, other] = [1, 2].map(|port| flow(port).path.key(Direction::Out));
        let slot = flows.insert(flow(1)).expect("an empty table");
        assert_eq!(flows.find(&one), Some((slot, Direction::Out)));
        assert!(flows.remove(slot).is_some());
        assert_eq!(flows.find(&one), None);
        assert_eq!(flows.insert(flow(2)), Ok(slot), "the place is free");
        assert_eq!((flows.find(&one), flows.find(&other)), (None, Some((slot, Direction::Out))));
        let moved = flows.insert(flow(1)).expect("no flow has this key");
        let found = [one, other].map(|key| flows.find(&key));
        assert_eq!(found, [Some((moved, Direction::Out)), Some((slot, Direction::Out))]);
    }

    #[test]
    fn every_place_counts() {
        let mut flows = Flows::default();
        for n in 0..3 * BLOCK as Slot {
            assert_eq!((flows.places(), flows.grow()), (n, n));
        }
    }

    #[test]
    fn a_flow_is_small() {
        let size = size_of::<Option<Flow>>();
        assert!(size <= 304, "{size} bytes");
    }
}
