//! Changes by the store and the operator: peers are added, edited, re-keyed and removed.

use fleetgate_keys::{PresharedKey, PublicKey};

use super::Tunnel;
use crate::id::PeerId;
use crate::messages::{PeerKey, PeerSnapshot, PeerSpec, RetiredKey, TunnelEvent};
use crate::tunnel::peers::{Peer, Slot};
use crate::tunnel::session::{Noise, Session as _};

/// Returns whether public key and preshared key are the same, so that a session made with one is
/// valid for the other.
fn same(a: &PeerKey, b: &PeerKey) -> bool {
    let (psk_a, psk_b) = (a.psk.as_ref(), b.psk.as_ref());
    a.public == b.public && psk_a.map(PresharedKey::as_bytes) == psk_b.map(PresharedKey::as_bytes)
}

impl<N: Noise> Tunnel<N> {
    pub(super) fn upsert(&mut self, spec: PeerSpec, memory: PeerSnapshot) {
        match self.peers.find(spec.id) {
            Some(slot) => self.update(slot, spec),
            None => self.insert(spec, memory),
        }
    }

    fn insert(&mut self, spec: PeerSpec, memory: PeerSnapshot) {
        self.forwarder.set_mtu(spec.id, spec.mtu);
        let slot = self.peers.insert(Peer::new(spec, memory, self.now));
        self.claim_all(slot);
    }

    /// Enters a peer's keys and addresses into the tables.
    fn claim_all(&mut self, slot: Slot) {
        let Some(peer) = self.peers.get(slot) else { return };
        for address in &peer.addresses {
            self.routes.insert(*address, slot);
        }
        let keys: Vec<PublicKey> = peer.keys.iter().map(|key| key.public).collect();
        for key in keys {
            self.retired.forget(&key);
            if let Some(loser) = self.peers.claim_key(key, slot) {
                self.end_session_under(loser, &key);
            }
        }
    }

    fn update(&mut self, slot: Slot, spec: PeerSpec) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let ends = peer.link().is_some_and(|link| {
            let before = peer.key(&link.key);
            !before.is_some_and(|before| spec.keys.iter().any(|key| same(key, before)))
        });
        let is_replaced = peer.link().is_some_and(|link| spec.keys.iter().all(|key| key.public != link.key));
        if ends {
            self.abandon(slot);
            if is_replaced {
                self.retire_link(slot)
            } else {
                self.drop_link(slot)
            }
            self.settle(slot);
        }
        self.release_old(slot, &spec);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let rekeyed = !spec.keys.iter().any(|key| peer.key(&key.public).is_some());
        if rekeyed {
            peer.start_over();
        }
        peer.kind = spec.kind;
        peer.keys = spec.keys.into();
        peer.addresses = spec.addresses.into();
        peer.networks = spec.networks.into();
        peer.mtu = spec.mtu;
        if let Some(link) = peer.link_mut() {
            link.session.set_mtu(spec.mtu);
        }
        self.forwarder.set_mtu(spec.id, spec.mtu);
        if rekeyed {
            self.news(TunnelEvent::Rekeyed(spec.id));
        }
        self.claim_all(slot);
        self.mark_changed(slot);
    }

    /// Releases the keys and addresses that the new specification no longer has.
    fn release_old(&mut self, slot: Slot, spec: &PeerSpec) {
        let Some(peer) = self.peers.get(slot) else { return };
        for address in peer.addresses.iter().filter(|address| !spec.addresses.contains(address)) {
            self.routes.remove(*address, slot);
        }
        let kept = |key: &PublicKey| spec.keys.iter().any(|new| new.public == *key);
        let gone: Vec<PublicKey> = peer.keys.iter().map(|key| key.public).filter(|key| !kept(key)).collect();
        self.release_keys(slot, &gone);
    }

    fn release_keys(&mut self, slot: Slot, keys: &[PublicKey]) {
        let Some((peer, stamp)) = self.peers.get(slot).map(|peer| (peer.id, peer.stamp)) else { return };
        for key in keys {
            if self.peers.release_key(key, slot) {
                self.noise.forget(key);
                self.retire(RetiredKey { public: *key, peer, at: self.now.wall, stamp });
            }
        }
    }

    fn retire(&mut self, key: RetiredKey) {
        if let Some(stamp) = key.stamp {
            self.news(TunnelEvent::RetiredStamp(key.public, stamp));
        }
        self.retired.add(key);
    }

    fn end_session(&mut self, slot: Slot) {
        self.abandon(slot);
        self.drop_link(slot);
        self.settle(slot);
    }

    fn end_session_under(&mut self, slot: Slot, key: &PublicKey) {
        if self.peers.get(slot).and_then(|peer| peer.link()).is_some_and(|link| link.key == *key) {
            self.end_session(slot);
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(slot) = self.peers.find(peer) else { return };
        self.end_session(slot);
        self.drop_former(slot);
        let Some(peer) = self.peers.get(slot) else { return };
        let keys: Vec<PublicKey> = peer.keys.iter().map(|key| key.public).collect();
        self.release_keys(slot, &keys);
        let Some(peer) = self.peers.remove(slot) else { return };
        for address in &peer.addresses {
            self.routes.remove(*address, slot);
        }
        self.forget_forwarding(peer.id);
    }

    pub(super) fn reset_clock(&mut self, peer: PeerId) {
        let Some(slot) = self.peers.find(peer) else { return };
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.stamp = None;
            peer.refusal = None;
            peer.refusal_told = None;
        }
        self.news(TunnelEvent::ClockReset(peer));
        self.mark_changed(slot);
    }

    pub(super) fn dial_all(&mut self) {
        let peers = &self.peers;
        let waiting = peers.slots().filter(|slot| {
            peers.get(*slot).is_some_and(|peer| peer.endpoint.is_some() && peer.link().is_none())
        });
        self.pacer.start(waiting, self.now.mono);
    }

    pub(super) fn run_dial(&mut self) -> bool {
        if self.pacer.due().is_none_or(|due| due > self.now.mono) || !self.budget.dial() {
            return false;
        }
        let Some(slot) = self.pacer.pop(self.now.mono) else { return false };
        if self.peers.get(slot).is_some_and(|peer| !peer.is_up()) && self.dial(slot, false) {
            self.settle(slot);
        }
        true
    }

    pub(super) fn quiesce(&mut self) {
        let slots: Vec<Slot> = self.peers.slots().collect();
        for slot in slots {
            self.abandon(slot);
        }
        self.end_forward_probes();
        self.pacer.stop();
        self.initiations.clear();
        self.quiet = true;
    }
}
