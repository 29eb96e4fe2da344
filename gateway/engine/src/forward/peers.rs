//! The state that forwarding keeps of each peer: its inner MTU, its share of answers, and what was forwarded.

use std::collections::HashMap;
use std::time::Duration;

use crate::id::PeerId;
use crate::messages::{DEFAULT_MTU, FlowTraffic};
use crate::time::Mono;
use crate::token_bucket::{Bucket, Rate};

/// Every host takes packets of this size (RFC 791).
const LEAST_MTU: u16 = 576;

/// Answers to denied packets: a client that tries a few ports at once learns all results, and a
/// scan gets one answer each 50 ms.
const REJECTS: Rate = Rate { every: Duration::from_millis(50), burst: 40 };

/// Errors that a path needs: packet too big and time exceeded.
const ERRORS: Rate = Rate { every: Duration::from_millis(10), burst: 100 };

/// The bytes of inner packets that were forwarded for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// From the peer.
    pub received: FlowTraffic,
    /// To the peer.
    pub sent: FlowTraffic,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    mtu: u16,
    forwarded: Forwarded,
    rejects: Bucket,
    errors: Bucket,
}

impl Default for Peer {
    fn default() -> Self {
        let (rejects, errors) = (Bucket::default(), Bucket::default());
        Peer { mtu: DEFAULT_MTU, forwarded: Forwarded::default(), rejects, errors }
    }
}

/// The peers that the policy names or that have an MTU of their own.
#[derive(Default)]
pub struct Peers {
    peers: HashMap<PeerId, Peer>,
}

impl Peers {
    pub fn add(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
    }

    pub fn remove(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Sets the MTU of a peer. A peer with the usual one needs no place here.
    pub fn set_mtu(&mut self, peer: PeerId, mtu: u16) {
        let mtu = mtu.max(LEAST_MTU);
        if mtu != DEFAULT_MTU || self.peers.contains_key(&peer) {
            self.peers.entry(peer).or_default().mtu = mtu;
        }
    }

    pub fn mtu(&self, peer: PeerId) -> u16 {
        self.peers.get(&peer).map_or(DEFAULT_MTU, |peer| peer.mtu)
    }

    pub fn forwarded(&self, peer: PeerId) -> Forwarded {
        self.peers.get(&peer).map(|peer| peer.forwarded).unwrap_or_default()
    }

    /// Counts a packet that was forwarded.
    pub fn count(&mut self, from: PeerId, to: PeerId, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.forwarded.received.add(bytes);
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.forwarded.sent.add(bytes);
        }
    }

    /// Takes back the count of a packet that was not sent after all.
    pub fn uncount(&mut self, from: PeerId, to: PeerId, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.forwarded.received.subtract(bytes);
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.forwarded.sent.subtract(bytes);
        }
    }

    /// Returns whether a denied packet of this peer is answered. A peer that the policy does not
    /// name gets no answers.
    pub fn may_reject(&mut self, peer: PeerId, now: Mono) -> bool {
        self.peers.get_mut(&peer).is_some_and(|peer| peer.rejects.take(&REJECTS, now))
    }

    pub fn may_report(&mut self, peer: PeerId, now: Mono) -> bool {
        self.peers.get_mut(&peer).is_some_and(|peer| peer.errors.take(&ERRORS, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn answers_are_limited_by_burst_and_rate() {
        let mut peers = Peers::default();
        let peer = Id::from_i64(7);
        assert!(!peers.may_reject(peer, Mono::ZERO), "the policy does not know it");
        peers.add(peer);
        let taken = |peers: &mut Peers, at| (0..1_000).filter(|_| peers.may_reject(peer, at)).count();
        assert_eq!(taken(&mut peers, Mono::from_secs(10)), 40);
        assert_eq!(taken(&mut peers, Mono::from_secs(11)), 20);
        assert_eq!(taken(&mut peers, Mono::from_secs(100)), 40);
    }

    #[test]
    fn an_mtu_is_at_least_what_every_host_takes() {
        let mut peers = Peers::default();
        let peer = Id::from_i64(7);
        assert_eq!(peers.mtu(peer), DEFAULT_MTU);
        peers.set_mtu(peer, 9);
        assert_eq!(peers.mtu(peer), 576);
        peers.set_mtu(peer, DEFAULT_MTU);
        assert_eq!(peers.mtu(peer), DEFAULT_MTU);
    }
}
