//! The peers: their specification from the store, what is remembered of them and, boxed, their live
//! state.
//!
//! A peer that never connected takes a few hundred bytes. Session, probes and stack exist only
//! while they are in use. The table finds a peer by id and by public key. This module sends
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use fleetgate_keys::PublicKey;
use ipnet::IpNet;

use crate::id::PeerId;
use crate::messages::{
    DropReason, Evidence, PeerKey, PeerKind, PeerSnapshot, PeerSpec, PeerStatus, Refusal, Tai64n,
};
use crate::time::{ClockStep, Mono, Now, Wall};
use crate::token_bucket::Bucket;
use crate::tunnel::daily_traffic::Ledger;
use crate::tunnel::handshake::dial::Dial;
use crate::tunnel::handshake::failures::Signs;
use crate::tunnel::handshake::unconfirmed::Unproved;
use crate::tunnel::probe_flows::{Echo, MAX_IN_FLIGHT, Want};
use crate::tunnel::tcp::stack::Stack;
use crate::tunnel::timer_wheel::Filed;

/// A peer's place in the table. A reused slot has another generation, so a reference to the old
/// peer finds no peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub index: u32,
    pub generation: u32,
}

/// The remote address to send to, and our address to send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mono: Mono,
    pub wall: Wall,
}

impl From<Now> for Seen {
    fn from(now: Now) -> Self {
        Seen { mono: now.mono, wall: now.wall }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
}

/// One peer's WireGuard session and its bookkeeping.
pub struct Link<S> {
    pub session: S,
    pub index: u32,
    pub key: PublicKey,
    /// The newest stamp that this session has seen. The session refuses older ones by itself.
    pub newest_stamp: Option<Tai64n>,
    /// Initiations that were answered; a packet of the new session proves the handshake.
    pub unproved: Unproved,
    /// Initiations since the peer was last heard, or since a dial began.
    pub initiations: u8,
    /// Whether the session is established, as last reported.
    pub up: bool,
    pub polled: Mono,
}

/// The session of a replaced key. It only receives, until it expires.
pub struct Former<S> {
    pub link: Box<Link<S>>,
    pub until: Mono,
}

/// State that exists only while a session, a probe or a connection is in use.
pub struct Live<S> {
    pub link: Option<Box<Link<S>>>,
    pub former: Option<Former<S>>,
    pub dial: Option<Dial>,
    pub waiting: Vec<Want>,
    pub echoes: Vec<Echo>,
    pub stack: Option<Box<Stack>>,
    /// The queries for names that the peer may send.
    pub queries: Bucket,
}

impl<S> Default for Live<S> {
    fn default() -> Self {
        Live {
            link: None,
            former: None,
            dial: None,
            waiting: Vec::new(),
            echoes: Vec::new(),
            stack: None,
            queries: Bucket::default(),
        }
    }
}

impl<S> Live<S> {
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.echoes.len() + self.stack.as_ref().map_or(0, |stack| stack.connections())
    }

    pub fn is_full(&self) -> bool {
        self.in_flight() >= MAX_IN_FLIGHT
    }

    fn is_empty(&self) -> bool {
        self.link.is_none() && self.former.is_none() && self.dial.is_none() && self.in_flight() == 0
    }
}

pub struct Peer<S> {
    pub id: PeerId,
    pub kind: PeerKind,
    pub keys: Box<[PeerKey]>,
    pub addresses: Box<[IpAddr]>,
    pub networks: Box<[IpNet]>,
    pub mtu: u16,
    pub stamp: Option<Tai64n>,
    pub answered: Option<Mono>,
    pub endpoint: Option<Endpoint>,
    /// The endpoint that the store has.
    pub endpoint_told: Option<SocketAddr>,
    pub last_packet: Option<Seen>,
    pub last_handshake: Option<Seen>,
    /// When the peer last replied to something of ours.
    pub last_answer: Option<Seen>,
    /// There was no handshake yet under the present keys.
    pub is_new: bool,
    pub skew_ms: Option<i64>,
    pub refusal: Option<(Wall, Refusal)>,
    pub refusal_told: Option<Mono>,
    /// Initiations of the peer that led to nothing, if there ever was one.
    pub signs: Option<Box<Signs>>,
    pub traffic: Traffic,
    pub wire: Ledger,
    pub handshakes: u64,
    pub drops: BTreeMap<DropReason, u64>,
    pub dial_failed: Option<Mono>,
    /// The peer is in the queue of initiations, where each peer has one place.
    pub initiation_waits: bool,
    pub filed: Filed,
    /// The peer is in the queue of changed peers.
    pub changed: bool,
    pub live: Option<Box<Live<S>>>,
}

impl<S> Peer<S> {
    pub fn new(spec: PeerSpec, memory: PeerSnapshot, now: Now) -> Self {
        // A time in the future (our clock stepped back) is no sign of life.
        let seen = |wall: Wall| (wall <= now.wall).then(|| Seen { mono: now.mono_at(wall), wall });
        Peer {
            id: spec.id,
            kind: spec.kind,
            keys: spec.keys.into(),
            addresses: spec.addresses.into(),
            networks: spec.networks.into(),
            mtu: spec.mtu,
            stamp: memory.stamp,
            answered: None,
            endpoint: memory.endpoint.map(|remote| Endpoint { remote, local: None }),
            endpoint_told: memory.endpoint,
            last_packet: memory.last_packet.and_then(seen),
            last_handshake: memory.last_handshake.and_then(seen),
            last_answer: None,
            is_new: memory.last_handshake.is_none(),
            skew_ms: memory.clock_skew_ms,
            refusal: None,
            refusal_told: None,
            signs: None,
            traffic: Traffic { rx_bytes: memory.rx_bytes, tx_bytes: memory.tx_bytes, ..Traffic::default() },
            wire: Ledger::restored(memory.wire),
            handshakes: 0,
            drops: BTreeMap::new(),
            dial_failed: None,
            initiation_waits: false,
            filed: Filed::default(),
            changed: false,
            live: None,
        }
    }

    pub fn live(&mut self) -> &mut Live<S> {
        self.live.get_or_insert_default()
    }

    pub fn link(&self) -> Option<&Link<S>> {
        self.live.as_ref()?.link.as_deref()
    }

    pub fn link_mut(&mut self) -> Option<&mut Link<S>> {
        self.live.as_mut()?.link.as_deref_mut()
    }

    pub fn former_until(&self) -> Option<Mono> {
        Some(self.live.as_ref()?.former.as_ref()?.until)
    }

    pub fn stack(&self) -> Option<&Stack> {
        self.live.as_ref()?.stack.as_deref()
    }

    pub fn stack_mut(&mut self) -> Option<&mut Stack> {
        self.live.as_mut()?.stack.as_deref_mut()
    }

    /// Drops empty state.
    pub fn tidy(&mut self) {
        if let Some(live) = &mut self.live
            && live.stack.as_ref().is_some_and(|stack| stack.connections() == 0)
        {
            live.stack = None;
        }
        if self.live.as_ref().is_some_and(|live| live.is_empty()) {
            self.live = None;
        }
    }

    pub fn count_drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Returns whether `address` can be probed through this peer.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.networks.iter().any(|net| net.contains(&address))
    }

    pub fn key(&self, public: &PublicKey) -> Option<&PeerKey> {
        self.keys.iter().find(|key| key.public == *public)
    }

    /// Resets what was learned under the old keys. Under new keys it may be another device with
    /// another clock.
    pub fn start_over(&mut self) {
        self.last_packet = None;
        self.last_handshake = None;
        self.last_answer = None;
        self.stamp = None;
        self.answered = None;
        self.is_new = true;
        self.skew_ms = None;
        self.refusal = None;
        self.refusal_told = None;
        self.signs = None;
        self.dial_failed = None;
    }

    /// Adjusts all wall times, and the device's skew, after the wall clock was set. Returns whether
    /// anything changed.
    pub fn mind_step(&mut self, step: ClockStep) -> bool {
        let before = (self.last_packet, self.last_handshake, self.last_answer, self.refusal, self.skew_ms);
        let signs = self.signs.clone();
        for seen in [&mut self.last_packet, &mut self.last_handshake, &mut self.last_answer] {
            *seen = seen.map(|seen| Seen { wall: step.rebase(seen.wall), ..seen });
        }
        self.refusal = self.refusal.map(|(at, refusal)| (step.rebase(at), refusal));
        self.skew_ms = self.skew_ms.map(|skew| skew.saturating_sub(step.ahead_ms()));
        if let Some(signs) = &mut self.signs {
            signs.mind_step(step);
        }
        if let Some(link) = self.link_mut() {
            link.unproved.mind_step(step);
        }
        let after = (self.last_packet, self.last_handshake, self.last_answer, self.refusal, self.skew_ms);
        before != after || signs != self.signs
    }

    pub fn is_up(&self) -> bool {
        self.link().is_some_and(|link| link.up)
    }

    pub fn evidence(&self, now: Wall) -> Evidence {
        Evidence {
            last_packet: self.last_packet.map(|seen| seen.mono),
            last_handshake: self.last_handshake.map(|seen| seen.mono),
            last_answer: self.last_answer.map(|seen| seen.mono),
            last_attempt: self.signs.as_ref().and_then(|signs| signs.unproved.heard()),
            established: self.is_up(),
            clock_skew_ms: self.skew_ms,
            wire_today: self.wire.today(now),
        }
    }

    pub fn status(&self) -> PeerStatus {
        PeerStatus {
            established: self.is_up(),
            endpoint: self.endpoint.map(|endpoint| endpoint.remote),
            last_packet: self.last_packet.map(|seen| seen.wall),
            last_handshake: self.last_handshake.map(|seen| seen.wall),
            last_answer: self.last_answer.map(|seen| seen.wall),
            clock_skew_ms: self.skew_ms,
            last_refusal: self.refusal,
            attempts: self.signs.as_ref().map(|signs| signs.attempts()).unwrap_or_default(),
            rx_bytes: self.traffic.rx_bytes,
            tx_bytes: self.traffic.tx_bytes,
            rx_packets: self.traffic.rx_packets,
            tx_packets: self.traffic.tx_packets,
            handshakes: self.handshakes,
            wire: self.wire.days(),
            drops: self.drops.clone(),
        }
    }
}

struct SlotEntry<S> {
    generation: u32,
    peer: Option<Box<Peer<S>>>,
}

/// The table.
pub struct Peers<S> {
    places: Vec<SlotEntry<S>>,
    free: Vec<u32>,
    by_id: HashMap<PeerId, Slot>,
    by_key: HashMap<PublicKey, Slot>,
}

impl<S> Default for Peers<S> {
    fn default() -> Self {
        Peers { places: Vec::new(), free: Vec::new(), by_id: HashMap::new(), by_key: HashMap::new() }
    }
}

impl<S> Peers<S> {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn find(&self, id: PeerId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub fn find_key(&self, key: &PublicKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub fn get(&self, slot: Slot) -> Option<&Peer<S>> {
        self.places
            .get(slot.index as usize)
            .filter(|place| place.generation == slot.generation)?
            .peer
            .as_deref()
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer<S>> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation == slot.generation { place.peer.as_deref_mut() } else { None }
    }

    /// Returns the slots in the order of the table.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.peer.is_some())
            .map(|(index, place)| Slot { index: index as u32, generation: place.generation })
    }

    pub fn insert(&mut self, peer: Peer<S>) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(SlotEntry { generation: 0, peer: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        let slot = Slot { index, generation: place.generation };
        self.by_id.insert(peer.id, slot);
        place.peer = Some(Box::new(peer));
        slot
    }

    /// Assigns a key to a peer. Returns the peer that had it before, if it was another one.
    pub fn claim_key(&mut self, key: PublicKey, slot: Slot) -> Option<Slot> {
        self.by_key.insert(key, slot).filter(|before| *before != slot)
    }

    /// Releases a key, if it still belongs to this peer. Returns whether it did.
    pub fn release_key(&mut self, key: &PublicKey, slot: Slot) -> bool {
        let ours = self.by_key.get(key) == Some(&slot);
        if ours {
            self.by_key.remove(key);
        }
        ours
    }

    /// Removes a peer. The caller releases its keys.
    pub fn remove(&mut self, slot: Slot) -> Option<Box<Peer<S>>> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation != slot.generation {
            return None;
        }
        let peer = place.peer.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        self.by_id.remove(&peer.id);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::messages::DEFAULT_MTU;

    /// As large as boringtun's session, so that the sizes are realistic.
    type Session = [u8; 11_040];

    fn peer(id: i64) -> Peer<Session> {
        let spec = PeerSpec {
            id: Id::from_i64(id),
            kind: PeerKind::Device,
            keys: vec![],
            addresses: vec![[172, 24, 0, 9].into()],
            networks: vec!["192.168.1.0/24".parse().expect("a network")],
            mtu: DEFAULT_MTU,
        };
        Peer::new(spec, PeerSnapshot::default(), Now::default())
    }

    #[test]
    fn a_peer_that_never_came_is_small() {
        let size = size_of::<Peer<Session>>();
        assert!(size <= 512, "{size} bytes");
    }

    #[test]
    fn the_clock_skew_of_a_device_survives_a_restart() {
        let spec = PeerSpec {
            id: Id::from_i64(1),
            kind: PeerKind::Device,
            keys: vec![],
            addresses: vec![],
            networks: vec![],
            mtu: DEFAULT_MTU,
        };
        let memory = PeerSnapshot { clock_skew_ms: Some(1_500), ..PeerSnapshot::default() };
        let peer: Peer<Session> = Peer::new(spec, memory, Now::default());
        assert_eq!(peer.evidence(Wall::from_millis(0)).clock_skew_ms, Some(1_500));
    }

    #[test]
    fn a_reused_slot_does_not_find_the_former_peer() {
        let mut peers = Peers::default();
        let first = peers.insert(peer(1));
        assert!(peers.remove(first).is_some());
        let second = peers.insert(peer(2));
        assert_eq!(first.index, second.index);
        assert!(
            peers.get(first).is_none() && peers.get_mut(first).is_none() && peers.remove(first).is_none()
        );
        assert_eq!(peers.get(second).map(|peer| peer.id), Some(Id::from_i64(2)));
        assert_eq!((peers.len(), peers.find(Id::from_i64(1))), (1, None));
    }

    #[test]
    fn a_key_that_moved_on_is_not_taken_from_its_new_owner() {
        let mut peers = Peers::default();
        let (a, b) = (peers.insert(peer(1)), peers.insert(peer(2)));
        let mut bytes = [0; 32];
        bytes[0] = 9;
        let key = PublicKey::from_bytes(bytes).expect("the base point");
        assert_eq!(peers.claim_key(key, a), None);
        assert_eq!(peers.claim_key(key, b), Some(a));
        assert!(!peers.release_key(&key, a));
        assert_eq!(peers.find_key(&key), Some(b));
    }

    #[test]
    fn a_peer_reaches_its_own_address_and_the_networks_behind_it() {
        let peer = peer(1);
        let reaches = |text: &str| peer.reaches(text.parse().expect("an address"));
        assert!(reaches("172.24.0.9") && reaches("192.168.1.77"));
        assert!(!reaches("172.24.0.10") && !reaches("192.168.2.1"));
    }

    #[test]
    fn an_idle_peer_frees_its_live_state() {
        let mut peer = peer(1);
        let to = Endpoint { remote: ([192, 0, 2, 1], 1).into(), local: None };
        peer.live().dial = Some(Dial::new(to, Mono::ZERO));
        peer.tidy();
        assert!(peer.live.is_some());
        peer.live().dial = None;
        peer.tidy();
        assert!(peer.live.is_none());
    }
}
