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
use super::lists::{List, Lists, Slot};
use super::policy::Permit;
use super::tcp_state::{Direction, HALF_OPEN, Tcp};
use super::timers::Timers;
use crate::id::{HostId, PeerId, UserId};
use crate::messages::{DropReason, FlowTraffic, GrantProtocol};
use crate::time::Mono;

/// The idle time of a UDP flow without and with a reply.
pub const UDP_UNREPLIED: Duration = Duration::from_secs(30);
pub const UDP_REPLIED: Duration = Duration::from_secs(180);
/// The idle time of a series of echo requests.
pub const ECHO: Duration = Duration::from_secs(30);

/// Flows are allocated in blocks, because one growing array would be copied while packets wait.
const BLOCK: usize = 256;

/// The bounds of the table. A flow takes about 400 bytes with its places in the lists and in the
/// index: 262,144 take 100 MiB, and the 8,192 of one peer 3.2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub flows: usize,
    /// Flows that a source opened, or that go to a device and the hosts behind it.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { flows: 262_144, per_peer: 8_192 }
    }
}

/// What a packet shows of its flow, as its sender sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub peer: PeerId,
    pub v6: bool,
    pub protocol: GrantProtocol,
    pub src: Bits,
    pub dst: Bits,
    /// Of an echo, both are its identifier.
    pub src_port: u16,
    pub dst_port: u16,
}

/// What identifies a flow in both directions.
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

/// What the transport of a flow remembers.
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

    fn is_half_open(&self) -> bool {
        match self {
            Progress::Tcp(tcp) => tcp.is_half_open(),
            Progress::Udp { replied } | Progress::Echo { replied } => !replied,
        }
    }
}

pub struct Flow {
    pub path: Path,
    pub user: UserId,
    pub host: HostId,
    pub permit: Permit,
    pub progress: Progress,
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
    half_open: bool,
    timer: List,
}

impl Flow {
    pub fn new(
        path: Path,
        user: UserId,
        host: HostId,
        permit: Permit,
        progress: Progress,
        now: Mono,
    ) -> Flow {
        Flow {
            path,
            user,
            host,
            permit,
            progress,
            expires: now + HALF_OPEN,
            recorded: now,
            sent: FlowTraffic::default(),
            received: FlowTraffic::default(),
            serial: 0,
            resets_sent: 0,
            is_cut: false,
            half_open: false,
            timer: List::Cut,
        }
    }

    /// Whether no grant covers the flow any more. Nothing passes then.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub fn count(&mut self, direction: Direction, bytes: usize) {
        let traffic = match direction {
            Direction::Out => &mut self.sent,
            Direction::Back => &mut self.received,
        };
        traffic.packets += 1;
        traffic.bytes += bytes as u64;
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
    pub fn find(&self, key: &Key) -> Option<(Slot, Direction)> {
        let (slot, direction) = *self.index.get(&self.hash(key))?;
        let flow = self.get(slot)?;
        (flow.path.key(direction) == *key).then_some((slot, direction))
    }

    /// Finds place for a new flow. Returns the half-open flow that must leave for it.
    ///
    /// # Errors
    /// Fails when only confirmed flows could make place.
    pub fn make_room(&self, path: &Path) -> Result<Option<Slot>, DropReason> {
        let full = DropReason::FlowTableFull;
        if self.lists.len(List::Source(path.source)) >= self.limits.per_peer {
            return self.first(List::HalfOpenOf(path.source)).map(Some).ok_or(full);
        }
        if self.lists.len(List::Device(path.device)) >= self.limits.per_peer {
            return self.first(List::HalfOpenTo(path.device)).map(Some).ok_or(full);
        }
        if self.len >= self.limits.flows {
            let own = self.first(List::HalfOpenOf(path.source));
            return own.or(self.first(List::HalfOpen)).map(Some).ok_or(full);
        }
        Ok(None)
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
        for list in [
            List::Source(flow.path.source),
            List::Device(flow.path.device),
            List::Grant(flow.permit.grant),
            List::HalfOpenOf(flow.path.source),
            List::HalfOpenTo(flow.path.device),
            List::HalfOpen,
        ] {
            self.lists.push(list, slot);
        }
        flow.serial = self.serial;
        flow.half_open = true;
        flow.timer = self.timers.file(&mut self.lists, slot, flow.expires, flow.recorded);
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
        self.lists.remove(List::Source(flow.path.source), slot);
        self.lists.remove(List::Device(flow.path.device), slot);
        self.lists.remove(List::Grant(flow.permit.grant), slot);
        self.lists.remove(flow.timer, slot);
        if flow.half_open {
            self.leave_half_open(&flow.path, slot);
        }
        self.free.push(slot);
        self.len -= 1;
        Some(flow)
    }

    fn leave_half_open(&mut self, path: &Path, slot: Slot) {
        self.lists.remove(List::HalfOpenOf(path.source), slot);
        self.lists.remove(List::HalfOpenTo(path.device), slot);
        self.lists.remove(List::HalfOpen, slot);
    }

    /// Notes a packet: the flow lives on for the time that its state allows.
    pub fn touch(&mut self, slot: Slot, now: Mono) {
        let Some(flow) = self.get_mut(slot) else { return };
        let sooner = now + flow.progress.timeout() < flow.expires;
        flow.expires = now + flow.progress.timeout();
        let (expires, path, timer) = (flow.expires, flow.path, flow.timer);
        let confirmed = flow.half_open && !flow.progress.is_half_open();
        flow.half_open &= !confirmed;
        if confirmed {
            self.leave_half_open(&path, slot);
        }
        if sooner {
            self.lists.remove(timer, slot);
            self.file(slot, expires, now);
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
        flow.is_cut = true;
        let timer = std::mem::replace(&mut flow.timer, List::Cut);
        self.lists.remove(timer, slot);
        self.lists.push(List::Cut, slot);
    }

    /// Returns the next flow that the timer looks at. It is filed again unless it has expired.
    pub fn due(&mut self, now: Mono) -> Option<(Slot, bool)> {
        let slot = self.timers.pop(&mut self.lists, now)?;
        let expires = self.get(slot).map_or(now, |flow| flow.expires);
        self.file(slot, expires, now);
        Some((slot, expires <= now))
    }

    pub fn next_due(&self) -> Option<Mono> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
