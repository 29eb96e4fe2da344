//! The required results, in the simplest form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::time::Mono;
use fleetgate_engine::wire::{AskId, Attempts, PeerStatus, Tai64n};
use fleetgate_keys::PublicKey;

/// Minimum time between two answered initiations of one peer.
const HANDSHAKE_GAP: Duration = Duration::from_millis(20);

pub struct Peer {
    pub key: PublicKey,
    /// The newest stamp that was answered.
    pub stamp: Option<Tai64n>,
    answered: Option<Mono>,
    /// Stamps that must still be reported.
    pub untold: Vec<Tai64n>,
    /// Every address that the device with this key ever had.
    pub places: BTreeSet<SocketAddr>,
    pub first_handshake_told: bool,
    pub status_told: Option<Mono>,
    /// Responses, of either side, that arrived at the other in this run of the gateway. There are
    /// no more handshakes than these.
    pub responses: u64,
}

impl Peer {
    pub fn new(key: PublicKey, at: SocketAddr) -> Self {
        Peer {
            key,
            stamp: None,
            answered: None,
            untold: Vec::new(),
            places: BTreeSet::from([at]),
            first_handshake_told: false,
            status_told: None,
            responses: 0,
        }
    }
}

#[derive(Default)]
pub struct Model {
    pub peers: BTreeMap<PeerId, Peer>,
    /// All keys that a peer ever had.
    keys: BTreeMap<PeerId, BTreeSet<PublicKey>>,
    /// Probes that wait for their replies, with the deadline.
    pub asked: BTreeMap<AskId, Mono>,
}

impl Model {
    /// Records an initiation that arrives at the gateway from any sender.
    pub fn initiation(&mut self, key: [u8; 32], stamp: Tai64n, now: Mono) {
        let Some(peer) = self.peers.values_mut().find(|peer| *peer.key.as_bytes() == key) else { return };
        let newer = peer.stamp.is_none_or(|newest| stamp > newest);
        let hasty = peer.answered.is_some_and(|at| now.since(at) < HANDSHAKE_GAP);
        if newer && !hasty {
            peer.stamp = Some(stamp);
            peer.answered = Some(now);
            peer.untold.push(stamp);
        }
    }

    pub fn reset_clock(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.stamp = None;
        }
    }

    pub fn gateway_restarted(&mut self) {
        self.asked.clear();
        for peer in self.peers.values_mut() {
            peer.answered = None;
            peer.status_told = None;
            peer.responses = 0;
        }
    }

    pub fn stamp_told(&mut self, id: PeerId, stamp: Tai64n) {
        let peer = self.peers.get_mut(&id).expect("stamps are told of known peers");
        assert_eq!(peer.untold, [stamp], "the stamp that was answered, once");
        peer.untold.clear();
    }

    pub fn first_handshake_told(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(&id).expect("handshakes are told of known peers");
        assert!(!std::mem::replace(&mut peer.first_handshake_told, true), "there is one first handshake");
    }

    pub fn endpoint_told(&mut self, id: PeerId, endpoint: SocketAddr) {
        let peer = self.peers.get(&id).expect("endpoints are told of known peers");
        assert!(peer.places.contains(&endpoint), "{endpoint} is a stranger's");
    }

    pub fn keyed(&mut self, id: PeerId, key: PublicKey) {
        self.keys.entry(id).or_default().insert(key);
    }

    fn had_several_keys(&self, id: PeerId) -> bool {
        self.keys[&id].len() > 1
    }

    pub fn response_to(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.responses += 1;
        }
    }

    pub fn response_from(&mut self, from: SocketAddr) {
        let peers = self.peers.values_mut().filter(|peer| peer.places.contains(&from));
        peers.for_each(|peer| peer.responses += 1);
    }

    pub fn replaced_key_refused(&self, id: PeerId) {
        assert!(self.had_several_keys(id), "{id} has one key ever");
    }

    pub fn status_told(&mut self, id: PeerId, status: &PeerStatus, now: Mono) {
        let peer = self.peers.get_mut(&id).expect("states are told of known peers");
        let before = peer.status_told.replace(now);
        assert!(before.is_none_or(|at| now.since(at) >= Duration::from_secs(1)), "once a second at most");
        let (proved, arrived) = (status.handshakes, peer.responses);
        assert!(proved <= arrived, "{id}: {proved} handshakes, and {arrived} answers arrived");
        let Attempts { unproved, replaced, .. } = status.attempts;
        let sources = unproved.map(|seen| seen.from).into_iter().chain(replaced.map(|seen| seen.from));
        for from in sources {
            assert!(peer.places.contains(&from), "{id}: {from} is a stranger's");
        }
        assert!(replaced.is_none() || self.had_several_keys(id), "{id} has one key ever");
    }

    pub fn answered(&mut self, ask: AskId, now: Mono) {
        let until = self.asked.remove(&ask).expect("one answer to each question");
        assert!(now <= until, "{ask:?} was answered {:?} late", now.since(until));
    }

    /// Asserts that every required output has come by now.
    pub fn check(&self, now: Mono) {
        let late = self.asked.iter().find(|(_, until)| **until < now);
        assert!(late.is_none(), "no answer to {late:?} at {now:?}");
        for peer in self.peers.values() {
            assert!(peer.untold.is_empty(), "an answered stamp was not told");
        }
    }
}
