//! Unsolicited events of the tunnel, and how often they are emitted. Drops are counted here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_keys::PublicKey;

use super::Tunnel;
use crate::messages::{DropReason, Output, Refusal, TunnelEvent};
use crate::time::{ClockStep, Mono};
use crate::tunnel::peers::Slot;
use crate::tunnel::session::Noise;
use crate::tunnel::timer_wheel::round_up;

/// A changed peer is published once after this delay, so that a device that changes its address
/// with every packet causes less than one message a second. The delay ends at a tick of the wheel:
/// all peers of that tick are published in one wake-up.
const PUBLISH_AFTER: Duration = Duration::from_secs(1);

/// Interval between events per unknown key, and per refused peer.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Unknown keys remembered. A stranger can make any number of keys; keys beyond this number within
/// a minute are only counted.
const MAX_UNKNOWN: usize = 256;

/// Interval between events per removed peer, whose device may go on for months.
const TELL_REMOVED_EVERY: Duration = Duration::from_secs(3_600);

/// Keys that are not enrolled or no longer enrolled, with the time of their last event.
#[derive(Default)]
pub struct UnknownKeys {
    told: BTreeMap<PublicKey, Mono>,
    removed: BTreeMap<PublicKey, Mono>,
}

impl UnknownKeys {
    /// Returns whether to emit an event for this key now.
    pub fn note(&mut self, key: PublicKey, now: Mono) -> bool {
        note(&mut self.told, key, TELL_EVERY, now)
    }

    /// Returns whether to emit an event now for this key of a removed peer. Strangers cannot cause
    /// it: an initiation is counted only if its sender has the private key.
    pub fn note_removed(&mut self, key: PublicKey, now: Mono) -> bool {
        note(&mut self.removed, key, TELL_REMOVED_EVERY, now)
    }
}

fn note(told: &mut BTreeMap<PublicKey, Mono>, key: PublicKey, every: Duration, now: Mono) -> bool {
    let fresh = |at: &Mono| now.since(*at) < every;
    if told.get(&key).is_some_and(fresh) {
        return false;
    }
    if told.len() >= MAX_UNKNOWN {
        told.retain(|_, at| fresh(at));
    }
    let room = told.len() < MAX_UNKNOWN;
    if room {
        told.insert(key, now);
    }
    room
}

impl<N: Noise> Tunnel<N> {
    pub(super) fn news(&mut self, news: TunnelEvent) {
        self.out.push_back(Output::TunnelEvent(news));
    }

    pub(super) fn count_global(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    pub(super) fn count_drop(&mut self, slot: Slot, reason: DropReason) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.count_drop(reason);
            *self.peer_drops.entry(reason).or_default() += 1;
        }
        self.mark_changed(slot);
    }

    pub(super) fn unknown_key(&mut self, key: PublicKey, from: SocketAddr) {
        self.count_global(DropReason::UnknownKey);
        if self.unknown.note(key, self.now.mono) {
            self.news(TunnelEvent::UnknownKey(key, from));
        }
    }

    /// Records why a known peer was refused, and emits an event at most once in `TELL_EVERY`.
    pub(super) fn refuse(&mut self, slot: Slot, refusal: Refusal) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.refusal = Some((now.wall, refusal));
        if peer.refusal_told.is_some_and(|at| now.mono.since(at) < TELL_EVERY) {
            return;
        }
        peer.refusal_told = Some(now.mono);
        let id = peer.id;
        self.news(TunnelEvent::Refused(id, refusal));
    }

    pub(super) fn mark_changed(&mut self, slot: Slot) {
        let at = round_up(self.now.mono + PUBLISH_AFTER);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if !std::mem::replace(&mut peer.changed, true) {
            self.changed.push_back((at, slot));
        }
    }

    /// Adjusts the peers after the wall clock was set, and publishes those that changed. A silent
    /// peer would not be published otherwise, and its last published times may lie in the future.
    pub(super) fn mind_step(&mut self, step: ClockStep) {
        let slots: Vec<Slot> = self.peers.slots().collect();
        for slot in slots {
            if self.peers.get_mut(slot).is_some_and(|peer| peer.mind_step(step)) {
                self.mark_changed(slot);
            }
        }
    }

    /// Publishes the peer that changed first, when it is due.
    pub(super) fn run_publish(&mut self) -> bool {
        let due = self.changed.front().is_some_and(|(at, _)| *at <= self.now.mono);
        if !due || !self.budget.publish() {
            return false;
        }
        let Some((_, slot)) = self.changed.pop_front() else { return false };
        self.publish(slot);
        true
    }

    fn publish(&mut self, slot: Slot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.changed = false;
        let (id, status) = (peer.id, peer.status());
        let endpoint = status.endpoint.filter(|at| peer.endpoint_told.replace(*at) != Some(*at));
        if let Some(endpoint) = endpoint {
            self.news(TunnelEvent::Endpoint(id, endpoint));
        }
        self.news(TunnelEvent::Status(id, Box::new(status)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> PublicKey {
        let mut bytes = [9; 32];
        bytes[1..3].copy_from_slice(&n.to_le_bytes());
        bytes[31] = 0;
        PublicKey::from_bytes(bytes).expect("an ordinary point")
    }

    #[test]
    fn an_unknown_key_is_reported_once_a_minute() {
        let mut unknown = UnknownKeys::default();
        assert!(unknown.note(key(1), Mono::from_secs(0)));
        assert!(!unknown.note(key(1), Mono::from_secs(59)));
        assert!(unknown.note(key(1), Mono::from_secs(60)));
    }

    #[test]
    fn ten_thousand_unknown_keys_fill_a_bounded_table() {
        let mut unknown = UnknownKeys::default();
        let told = (0..1_000).filter(|n| unknown.note(key(*n), Mono::ZERO)).count();
        assert_eq!((told, unknown.told.len()), (MAX_UNKNOWN, MAX_UNKNOWN));
        assert!(unknown.note(key(5_000), Mono::from_secs(61)));
    }
}
