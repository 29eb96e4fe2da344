//! The table of flows: what was permitted and goes on.
//!
//! A flow is found in both directions by a keyed hash over peer, addresses, protocol and ports. The
//! peer belongs to the key, because every site has the same 192.168.1.0/24. A flow adds only that
//! replies and errors about it are expected; its permission is compared with the policy for each
//! packet. The table is bounded in total, per source and per device.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use super::headers::Bits;
use super::lists::{List, Lists, Scope, Slot, Spare};
use super::policy::{Granted, Permit};
use super::tcp_state::{Direction, HALF_OPEN, State, Tcp};
use super::timers::Timers;
use crate::id::{HostId, PeerId};
use crate::messages::{DropReason, FlowEnd, FlowTraffic, GrantProtocol, SourceOwner, TargetId};
use crate::time::Mono;

/// The idle time of a UDP flow without and with a reply, from the last packet of the source on.
pub const UDP_UNREPLIED: Duration = Duration::from_secs(30);
pub const UDP_REPLIED: Duration = Duration::from_secs(180);
/// The idle time of a series of echo requests.
pub const ECHO: Duration = Duration::from_secs(30);

/// A flow that goes on is recorded as often.
const RECORD: Duration = Duration::from_secs(3_600);
/// One of a rental is recorded as often, so that what a rental has forwarded is known within about a minute.
const RECORD_OF_RENTAL: Duration = Duration::from_secs(60);

/// Flows are allocated in blocks, because one growing array would be copied while packets wait.
const BLOCK: usize = 256;

/// Places that are kept of the flows that were found last: 16 KB. Few flows carry most packets, and these places stay
/// in the caches of the processor between two bursts. What a packet needs of a large index does not.
const RECENT: usize = 1_024;

/// The bounds of the table. A flow takes about 450 bytes with its places in the lists and in the
/// index: 262,144 take 113 MiB, and the 4,096 of one source 1.8 MiB. A device takes the flows of
/// several sources, so that one alone does not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub flows: usize,
    /// Flows that a source opened.
    pub per_source: usize,
    /// Flows to a device and the hosts behind it.
    pub per_device: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { flows: 262_144, per_source: 4_096, per_device: 16_384 }
    }
}

/// A flow, and no later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    pub(super) slot: Slot,
    serial: u64,
}

/// The part of a packet that shows its flow, as its sender sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub peer: PeerId,
    pub v6: bool,
    pub protocol: GrantProtocol,
    pub src: Bits,
    pub dst: Bits,
    /// Both are the identifier of an echo.
    pub src_port: u16,
    pub dst_port: u16,
}

/// The key of a flow in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub source: PeerId,
    pub device: PeerId,
    pub v6: bool,
    pub protocol: GrantProtocol,
    /// The address of the source.
    pub src: Bits,
    /// The address that the source sends to.
    pub reached_at: Bits,
    /// The address that the target has.
    pub real: Bits,
    pub src_port: u16,
    pub dst_port: u16,
}

impl Path {
    pub fn key(&self, direction: Direction) -> Key {
        let Path { v6, protocol, src, src_port, dst_port, .. } = *self;
        match direction {
            Direction::Out => {
                Key { peer: self.source, v6, protocol, src, dst: self.reached_at, src_port, dst_port }
            }
            Direction::Back => Key {
                peer: self.device,
                v6,
                protocol,
                src: self.real,
                dst: src,
                src_port: dst_port,
                dst_port: src_port,
            },
        }
    }

    /// Returns the peer that packets of this direction go to.
    pub fn receiver(&self, direction: Direction) -> PeerId {
        match direction {
            Direction::Out => self.device,
            Direction::Back => self.source,
        }
    }
}

/// The memory of the transport of a flow.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    Tcp(Tcp),
    Udp { replied: bool },
    Echo { replied: bool },
}

impl Progress {
    pub fn timeout(&self) -> Duration {
        match self {
            Progress::Tcp(tcp) => tcp.timeout(),
            Progress::Udp { replied: false } => UDP_UNREPLIED,
            Progress::Udp { replied: true } => UDP_REPLIED,
            Progress::Echo { .. } => ECHO,
        }
    }

    /// Returns whether a packet prolongs the flow. Without a connection only the source does: a device
    /// that goes on to send may speak to nobody.
    fn prolongs(&self, direction: Direction) -> bool {
        direction == Direction::Out || matches!(self, Progress::Tcp(_))
    }

    /// Returns why the flow may leave for a new one. `None`: it may not.
    fn spare(&self) -> Option<Spare> {
        let half_open = match self {
            Progress::Tcp(tcp) if tcp.state == State::Closed => return Some(Spare::Closed),
            Progress::Tcp(tcp) => tcp.is_half_open(),
            Progress::Udp { replied } | Progress::Echo { replied } => !replied,
        };
        half_open.then_some(Spare::HalfOpen)
    }
}

pub struct Flow {
    pub path: Path,
    /// The owner of the source when the flow was opened.
    pub owner: SourceOwner,
    pub target: TargetId,
    pub host: HostId,
    pub permit: Permit,
    pub progress: Progress,
    /// The last packet that prolonged the flow.
    prolonged: Mono,
    pub expires: Mono,
    /// The last record, or the beginning.
    pub recorded: Mono,
    /// Since the last record.
    pub sent: FlowTraffic,
    pub received: FlowTraffic,
    /// A number that no later flow in the same place has.
    pub serial: u64,
    /// Resets that were already sent, once no grant covers the flow any more.
    pub resets_sent: u8,
    is_cut: bool,
    /// The gateway opened it in the name of the source. Nothing of it reaches the source, and it is
    /// not recorded as traffic of the source.
    is_probe: bool,
    /// Why it may leave, as the lists have it.
    spare: Option<Spare>,
    timer: u8,
}

impl Flow {
    pub fn new(path: Path, granted: &Granted, progress: Progress, now: Mono) -> Flow {
        Flow {
            path,
            owner: granted.owner,
            target: granted.route.target,
            host: granted.route.host,
            permit: granted.permit,
            progress,
            prolonged: now,
            expires: now + HALF_OPEN,
            recorded: now,
            sent: FlowTraffic::default(),
            received: FlowTraffic::default(),
            serial: 0,
            resets_sent: 0,
            is_cut: false,
            is_probe: false,
            spare: Some(Spare::HalfOpen),
            timer: 0,
        }
    }

    /// Whether no grant covers the flow any more. Nothing passes then.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Makes the flow one of the gateway's own.
    pub fn become_probe(&mut self) {
        self.is_probe = true;
        (self.sent, self.received) = Default::default();
    }

    pub fn id(&self, slot: Slot) -> FlowId {
        FlowId { slot, serial: self.serial }
    }

    /// Returns the peer that packets of this direction go to.
    ///
    /// # Errors
    /// Fails with the flow if they are for the gateway: the answers to a probe of its own.
    pub fn receiver(&self, slot: Slot, direction: Direction) -> Result<PeerId, FlowId> {
        if self.is_probe && direction == Direction::Back {
            return Err(self.id(slot));
        }
        Ok(self.path.receiver(direction))
    }

    /// Whether both ends closed the connection. Only repeated segments may come then.
    pub fn is_closed(&self) -> bool {
        self.progress.spare() == Some(Spare::Closed)
    }

    /// Returns why it is over already, although it still has its place.
    pub fn over(&self) -> Option<FlowEnd> {
        match (self.is_cut, self.is_closed()) {
            (true, _) => Some(FlowEnd::NotGranted),
            (false, true) => Some(FlowEnd::Closed),
            (false, false) => None,
        }
    }

    /// How often the flow is recorded while it goes on.
    pub fn record_every(&self) -> Duration {
        match self.target {
            TargetId::Host(_) => RECORD,
            TargetId::Rental(_) => RECORD_OF_RENTAL,
        }
    }

    /// When the timer looks at the flow. It looks at each flow within its horizon, which is often enough for a
    /// record each hour.
    fn looked_at(&self, now: Mono) -> Mono {
        if self.target.rental().is_none() {
            return self.expires;
        }
        let record = self.recorded + RECORD_OF_RENTAL;
        // One that is due comes in this turn.
        let record = if record > now { record } else { now + RECORD_OF_RENTAL };
        self.expires.min(record)
    }

    /// The list of its next event.
    fn due_list(&self) -> List {
        if self.is_cut { List::Cut } else { List::Timer(self.timer) }
    }

    pub fn count(&mut self, direction: Direction, bytes: usize) {
        if !self.is_probe {
            self.traffic(direction).add(bytes);
        }
    }

    /// Takes back the count of a packet that was not sent after all.
    pub fn uncount(&mut self, direction: Direction, bytes: usize) {
        self.traffic(direction).subtract(bytes);
    }

    fn traffic(&mut self, direction: Direction) -> &mut FlowTraffic {
        match direction {
            Direction::Out => &mut self.sent,
            Direction::Back => &mut self.received,
        }
    }

    pub fn has_news(&self) -> bool {
        self.sent.packets + self.received.packets > 0
    }
}

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
struct Found {
    hash: u64,
    at: (Slot, Direction),
}

/// The flows that were found last, by hash. One that comes to the place of another one takes it.
struct Recent(Box<[Found; RECENT]>);

impl Default for Recent {
    fn default() -> Self {
        // None of them needs a mark as empty: a flow shows by its key whether it is meant.
        Recent(Box::new([Found { hash: 0, at: (0, Direction::Out) }; RECENT]))
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
        self.recent.0[place] = Found { hash, at };
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
    use crate::forward::policy::Route;
    use crate::forward::window::Span;
    use crate::id::Id;

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
