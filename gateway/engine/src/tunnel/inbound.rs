//! Inbound datagrams: the front door, handshakes, sessions, inner packets.
//!
//! Only a datagram that a session opened moves an endpoint or counts as a sign of life. An
//! initiation reaches a session only if its stamp is newer, and only within the turn's budget.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_keys::PublicKey;
use fleetgate_probes::packet::{Parsed, UDP, parse};

use super::Tunnel;
use super::peers::{Endpoint, Seen, Slot};
use super::routes::Source;
use super::session::{Front, Initiation, Noise, Opened, Session};
use crate::id::PeerId;
use crate::messages::{DropReason, PeerKind, Refusal, ReplacedKeyUse, Tai64n, TunnelEvent};
use crate::time::Wall;
use crate::tunnel::daily_traffic::on_the_wire;
use crate::tunnel::handshake::gate::word;
use crate::tunnel::handshake::retired_keys::Knock;
use crate::tunnel::handshake::tai64n::{behind, skew_ms};
use crate::tunnel::handshake::unconfirmed::Answered;
use crate::tunnel::icmp_error::Undelivered;

/// Initiations that wait to be answered, one per peer at most. The limit is half a second of work
/// for one core. Each takes 148 bytes.
const MAX_WAITING: usize = 1_024;

/// Minimum time between two answered initiations of one peer, as in wireguard-go.
const HANDSHAKE_GAP: Duration = Duration::from_millis(20);

/// Within this time an equal stamp is a duplicate of the same datagram, which networks do create.
/// Later it is a replay, or a clock that stands still.
const DUPLICATE_WITHIN: Duration = Duration::from_secs(5);

/// Message types of WireGuard.
const RESPONSE: u8 = 2;
/// Offset of the receiver index in a data message.
const RECEIVER: usize = 4;

/// Silence after which a packet is reported at once. It is longer than a keepalive of 25 s and a
/// fifth, so that a healthy peer costs nothing. It is shorter than the time after which a device is
/// considered down.
const SILENCE: Duration = Duration::from_secs(40);

/// The destination of an inner packet, whether it passes or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the gateway itself, or to nobody.
    Here,
    /// To another peer.
    Onward,
}

/// An initiation that the front has opened.
pub struct Pending {
    peer: Slot,
    key: PublicKey,
    stamp: Tai64n,
    from: Endpoint,
    datagram: Vec<u8>,
}

impl<N: Noise> Tunnel<N> {
    pub(super) fn datagram(&mut self, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let from = Endpoint { remote, local };
        let (peers, retired) = (&self.peers, &self.retired);
        let known = |key: &PublicKey| peers.find_key(key).is_some() || retired.contains(key);
        match self.noise.front(bytes, remote, &known, self.now) {
            Front::Initiation(initiation) => self.initiation(initiation, from, bytes),
            Front::ForIndex(index) => self.for_index(index, from, bytes),
            Front::UnknownKey(key) => self.unknown_key(key, remote),
            Front::Cookie(bytes) => self.outbox.push(from, &bytes),
            Front::Dropped(reason) => self.count_global(reason),
        }
    }

    fn initiation(&mut self, initiation: Initiation, from: Endpoint, bytes: &[u8]) {
        let Initiation { peer: key, stamp } = initiation;
        let Some(slot) = self.peers.find_key(&key) else {
            return self.retired_key(&key, stamp, from.remote);
        };
        self.cost(slot, from, bytes.len());
        if !self.is_newer(slot, stamp) || !self.may_handshake(slot) {
            return;
        }
        if self.initiations.len() >= MAX_WAITING {
            return self.count_drop(slot, DropReason::Budget);
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.initiation_waits = true;
        }
        self.initiations.push_back(Pending { peer: slot, key, stamp, from, datagram: bytes.to_vec() });
    }

    /// Handles an authentic initiation under a key that no peer has any more.
    fn retired_key(&mut self, key: &PublicKey, stamp: Tai64n, from: SocketAddr) {
        let (peer, replaced_at, made_now) = match self.retired.knock(key, stamp, self.now) {
            Some(Knock::New { peer, replaced_at, made_now }) => (peer, replaced_at, made_now),
            Some(Knock::Stale { peer, replaced_at, goes_on }) => {
                return self.stale_retired(peer, replaced_at, goes_on);
            }
            Some(Knock::TooSoon) => return self.count_global(DropReason::RateLimited),
            None => return self.count_global(DropReason::UnknownKey),
        };
        self.news(TunnelEvent::RetiredStamp(*key, stamp));
        match self.peers.find(peer) {
            Some(slot) => {
                self.count_drop(slot, DropReason::RetiredKey);
                if made_now {
                    self.uses_replaced_key(slot, replaced_at, from);
                }
            }
            None => {
                self.count_global(DropReason::RetiredKey);
                if made_now && self.unknown.note_removed(*key, self.now.mono) {
                    self.news(TunnelEvent::RemovedPeer(peer, from));
                }
            }
        }
    }

    /// Handles a stale initiation under a retired key. The device's clock may have gone back, or a
    /// stranger replays captured initiations: it is a refusal and no sign of life.
    fn stale_retired(&mut self, peer: PeerId, replaced_at: Wall, goes_on: bool) {
        self.count_global(DropReason::StaleStamp);
        if let Some(slot) = self.peers.find(peer).filter(|_| goes_on) {
            self.refuse(slot, Refusal::ReplacedKey { replaced_at });
            self.mark_changed(slot);
        }
    }

    /// Records that a device with the old configuration of this peer is alive.
    fn uses_replaced_key(&mut self, slot: Slot, replaced_at: Wall, from: SocketAddr) {
        let last = self.now.wall;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.signs.get_or_insert_default().replaced = Some(ReplacedKeyUse { replaced_at, last, from });
        self.refuse(slot, Refusal::ReplacedKey { replaced_at });
        self.mark_changed(slot);
    }

    /// Returns whether a stamp is newer than the newest of its peer. Any other stamp is counted as
    /// a drop and, unless the datagram is a duplicate, recorded as a refusal.
    fn is_newer(&mut self, slot: Slot, stamp: Tai64n) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(slot) else { return false };
        let Some(newest) = peer.stamp.filter(|newest| stamp <= *newest) else { return true };
        let lately = peer.answered.is_some_and(|at| now.mono.since(at) < DUPLICATE_WITHIN);
        let is_duplicate = stamp == newest && lately;
        if !is_duplicate {
            peer.signs.get_or_insert_default().refused.note(stamp, now);
        }
        self.count_drop(slot, DropReason::StaleStamp);
        if !is_duplicate {
            self.refuse(slot, Refusal::ClockWentBack { behind: behind(newest, stamp) });
        }
        false
    }

    fn may_handshake(&mut self, slot: Slot) -> bool {
        let now = self.now.mono;
        let Some(peer) = self.peers.get(slot) else { return false };
        let hasty = peer.answered.is_some_and(|at| now.since(at) < HANDSHAKE_GAP);
        let waits = peer.initiation_waits;
        if hasty {
            self.refuse(slot, Refusal::RateLimited);
        }
        if hasty || waits {
            self.count_drop(slot, DropReason::RateLimited);
        }
        !hasty && !waits
    }

    /// Returns whether an initiation waits that this turn may answer.
    pub(super) fn may_answer_initiation(&self) -> bool {
        !self.quiet && !self.initiations.is_empty() && self.budget.has_handshake()
    }

    /// Answers the oldest waiting initiation.
    pub(super) fn run_initiation(&mut self) -> bool {
        if self.initiations.is_empty() || !self.budget.handshake() {
            return false;
        }
        let Some(pending) = self.initiations.pop_front() else { return false };
        if let Some(peer) = self.peers.get_mut(pending.peer) {
            peer.initiation_waits = false;
            if peer.key(&pending.key).is_some() && self.is_newer(pending.peer, pending.stamp) {
                self.answer_initiation(&pending);
            }
            self.settle(pending.peer);
        }
        true
    }

    fn answer_initiation(&mut self, pending: &Pending) {
        let slot = pending.peer;
        self.make_room_for(slot, pending.stamp);
        if !self.ensure_link(slot, &pending.key) {
            return self.count_drop(slot, DropReason::Budget);
        }
        let now = self.now;
        let Some(link) = self.peers.get_mut(slot).and_then(|peer| peer.link_mut()) else { return };
        let mut sent = Vec::new();
        let opened = link.session.receive(
            &pending.datagram,
            pending.from.remote,
            now.mono,
            &mut self.scratch,
            &mut |datagram| sent.push(datagram.to_vec()),
        );
        match opened {
            Opened::HandshakeAnswered(index) => self.answered(pending, index),
            Opened::Dropped(reason) => self.handshake_dropped(slot, reason),
            _ => {}
        }
        self.transmit(slot, sent, Some(pending.from));
        self.dial_source(slot);
    }

    /// Drops the session if it would refuse this stamp. A session refuses stamps older than those
    /// it has seen, so after `reset_clock` a fresh session must replace it.
    fn make_room_for(&mut self, slot: Slot, stamp: Tai64n) {
        let link = self.peers.get(slot).and_then(|peer| peer.link());
        if link.and_then(|link| link.newest_stamp).is_some_and(|newest| stamp <= newest) {
            self.drop_link(slot);
        }
    }

    fn answered(&mut self, pending: &Pending, index: u32) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(pending.peer) else { return };
        let known = peer.skew_ms;
        peer.signs.get_or_insert_default().unproved.note(pending.stamp, pending.from, known, now);
        peer.stamp = Some(pending.stamp);
        peer.answered = Some(now.mono);
        let skew_ms = skew_ms(pending.stamp, now.wall.as_millis());
        if let Some(link) = peer.link_mut() {
            link.newest_stamp = Some(pending.stamp);
            link.unproved.add(Answered { index, at: now.mono, skew_ms });
        }
        let id = peer.id;
        self.news(TunnelEvent::Stamp(id, pending.stamp));
        self.mark_changed(pending.peer);
    }

    fn handshake_dropped(&mut self, slot: Slot, reason: DropReason) {
        self.count_drop(slot, reason);
        if reason == DropReason::Crypto {
            self.refuse(slot, Refusal::Crypto);
        }
    }

    fn for_index(&mut self, index: u32, from: Endpoint, bytes: &[u8]) {
        let Some(slot) = self.indices.owner(index) else {
            return self.count_global(DropReason::UnknownIndex);
        };
        let now = self.now.mono;
        if self.for_former(slot, index, from.remote, bytes) {
            return;
        }
        let Some(link) = self.peers.get_mut(slot).and_then(|peer| peer.link_mut()) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sent = Vec::new();
        let opened = link.session.receive(bytes, from.remote, now, &mut scratch, &mut |datagram| {
            sent.push(datagram.to_vec());
        });
        self.opened(slot, opened, from, bytes);
        self.scratch = scratch;
        self.transmit(slot, sent, None);
        self.run_echoes(slot);
        self.settle(slot);
    }

    /// Returns whether the datagram is for a session under a replaced key. Its packets are
    /// authentic, but they show only that the old configuration is in use. They get no reply and
    /// are no sign of life under the new key.
    fn for_former(&mut self, slot: Slot, index: u32, from: SocketAddr, bytes: &[u8]) -> bool {
        let now = self.now.mono;
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return false };
        let Some(former) = live.former.as_mut().filter(|former| former.link.index == index) else {
            return false;
        };
        let (key, session) = (former.link.key, &mut former.link.session);
        let opened = session.receive(bytes, from, now, &mut self.scratch, &mut |_| {});
        let authentic = matches!(opened, Opened::Packet(_) | Opened::Keepalive | Opened::NotIp);
        self.count_drop(slot, DropReason::RetiredKey);
        if let Some((_, replaced_at)) = self.retired.owner(&key).filter(|_| authentic) {
            self.uses_replaced_key(slot, replaced_at, from);
        }
        true
    }

    /// Counts the traffic of a datagram from this peer, even if it is dropped later.
    fn cost(&mut self, slot: Slot, from: Endpoint, bytes: usize) {
        let now = self.now.wall;
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.wire.note_rx(on_the_wire(from.remote, bytes), now);
        }
    }

    fn opened(&mut self, slot: Slot, opened: Opened<'_>, from: Endpoint, datagram: &[u8]) {
        // A datagram that did not open may come from a stranger.
        let is_authentic = !matches!(opened, Opened::Dropped(_));
        let mut is_forwarded = false;
        match opened {
            Opened::Packet(packet) => {
                self.heard(slot, from, datagram);
                is_forwarded = self.inner_packet(slot, packet) == Way::Onward;
            }
            Opened::Keepalive => self.heard(slot, from, datagram),
            Opened::NotIp => {
                self.heard(slot, from, datagram);
                self.count_drop(slot, DropReason::BadPacket);
            }
            Opened::HandshakeDone => {
                self.authenticated(slot, from, datagram.len());
                self.handshake_done(slot, self.now.mono);
            }
            Opened::HandshakeAnswered(_) | Opened::Nothing => {}
            Opened::Dropped(reason) if datagram.first() == Some(&RESPONSE) => {
                self.handshake_dropped(slot, reason);
            }
            Opened::Dropped(reason) => self.count_drop(slot, reason),
        }
        // Packets of people to a device must not use up the budget of its checks.
        if is_authentic && !is_forwarded {
            self.cost(slot, from, datagram.len());
        }
    }

    /// Handles an authentic packet on a session, the newest or an older one.
    fn heard(&mut self, slot: Slot, from: Endpoint, datagram: &[u8]) {
        self.authenticated(slot, from, datagram.len());
        self.proved(slot, word(datagram, RECEIVER));
    }

    /// Records a sign of life that only this peer can give.
    fn authenticated(&mut self, slot: Slot, from: Endpoint, bytes: usize) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let before = peer.last_packet.replace(Seen::from(now));
        let silent = before.filter(|seen| now.mono.since(seen.mono) >= SILENCE).map(|_| peer.id);
        peer.dial_failed = None;
        peer.traffic.rx_bytes += bytes as u64;
        if peer.kind != PeerKind::Device {
            self.person_heard = Some(now.mono);
        }
        if let Some(link) = peer.link_mut() {
            link.initiations = 0;
        }
        peer.endpoint = Some(from);
        self.mark_changed(slot);
        silent.into_iter().for_each(|id| self.news(TunnelEvent::Heard(id)));
    }

    /// Completes the handshake that this packet proves. It is the first packet of a session that
    /// our response made: the peer has the response, and the initiation was no replay. A packet of
    /// any other session proves nothing.
    fn proved(&mut self, slot: Slot, index: u32) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if let Some(answered) = peer.link_mut().and_then(|link| link.unproved.prove(index)) {
            peer.skew_ms = Some(answered.skew_ms);
            self.handshake_done(slot, answered.at);
        }
    }

    fn inner_packet(&mut self, slot: Slot, bytes: &mut [u8]) -> Way {
        let (way, accepted) = self.accept(slot, bytes);
        match (accepted, self.peers.get_mut(slot)) {
            (Err(reason), _) => self.count_drop(slot, reason),
            (Ok(()), Some(peer)) => peer.traffic.rx_packets += 1,
            (Ok(()), None) => {}
        }
        way
    }

    fn accept(&mut self, slot: Slot, bytes: &mut [u8]) -> (Way, Result<(), DropReason>) {
        let Ok(packet) = parse(bytes) else { return (Way::Here, Err(DropReason::BadPacket)) };
        let Some(peer) = self.peers.get(slot) else { return (Way::Here, Err(DropReason::NoRoute)) };
        if self.routes.judge(packet.src, slot, &peer.networks) == Source::Foreign {
            return (Way::Here, Err(DropReason::SpoofedSource));
        }
        if self.routes.is_gateway(packet.dst) {
            return (Way::Here, self.for_gateway(slot, &packet, bytes));
        }
        let (sender, len) = (peer.id, packet.len);
        (Way::Onward, self.forward(slot, sender, &mut bytes[..len]))
    }

    /// Dispatches a packet for the gateway: to the probes in flight, to DNS, then to the peer's stack,
    /// then to the published ports. All other packets are unsolicited. A packet from an address behind a
    /// device is accepted only as a reply to something of ours. Fragments, IP options and extension
    /// headers never occur in what the gateway requests.
    fn for_gateway(&mut self, slot: Slot, packet: &Parsed<'_>, bytes: &[u8]) -> Result<(), DropReason> {
        let arrived = self.arrived;
        let live =
            self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()).ok_or(DropReason::Unsolicited)?;
        if packet.fragment || packet.extensions {
            return Err(DropReason::Unsolicited);
        }
        if let Some(error) = Undelivered::parse(packet) {
            return self.undelivered(slot, &error);
        }
        if live.echoes.iter_mut().any(|echo| echo.accept(packet, arrived)) {
            self.was_answered(slot);
            return Ok(());
        }
        if packet.protocol == UDP {
            return self.datagram_query(slot, packet);
        }
        self.segment(slot, packet, bytes)
    }

    /// Records that something sent through the tunnel arrived: both directions work.
    pub(super) fn was_answered(&mut self, slot: Slot) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.last_answer = Some(Seen::from(now));
        }
        self.mark_changed(slot);
    }

    fn undelivered(&mut self, slot: Slot, error: &Undelivered) -> Result<(), DropReason> {
        let live =
            self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()).ok_or(DropReason::Unsolicited)?;
        if live.echoes.iter_mut().any(|echo| echo.undelivered(error)) {
            self.was_answered(slot);
            return Ok(());
        }
        if !live.stack.as_mut().is_some_and(|stack| stack.undelivered(error)) {
            return Err(DropReason::Unsolicited);
        }
        self.was_answered(slot);
        self.wake(slot);
        Ok(())
    }

    fn segment(&mut self, slot: Slot, packet: &Parsed<'_>, bytes: &[u8]) -> Result<(), DropReason> {
        let ours = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut());
        let Some(stack) = ours.filter(|stack| stack.wants(packet)) else {
            return self.knock(slot, packet, bytes);
        };
        if !stack.push(packet, bytes) {
            return Err(DropReason::Budget);
        }
        self.wake(slot);
        Ok(())
    }
}
