//! Sessions of peers: created on demand, dialled, used, watched and dropped.

use std::time::Duration;

use fleetgate_keys::PublicKey;

use super::Tunnel;
use crate::messages::{ConnectFailure, DropReason, TunnelEvent, WakeReason};
use crate::time::Mono;
use crate::tunnel::daily_traffic::on_the_wire;
use crate::tunnel::handshake::dial::{Dial, DialAction, MAX_INITIATIONS, may_dial};
use crate::tunnel::peers::{Endpoint, Former, Link, Peer, Seen, Slot};
use crate::tunnel::session::{NoSession, Noise, Session};
use crate::tunnel::timer_wheel::{TICK, round_up};

/// How long an answered initiation may stay unproved. Clients send a packet at once.
const PROOF_WITHIN: Duration = Duration::from_secs(30);

/// Lifetime of a session from its handshake, by the protocol. No peer uses it after that.
const FORMER_FOR: Duration = Duration::from_secs(180);

/// Message type of an initiation.
const INITIATION: u8 = 1;

impl<N: Noise> Tunnel<N> {
    /// Makes sure that there is a session under this key. Returns false when there are too many.
    pub(super) fn ensure_link(&mut self, slot: Slot, key: &PublicKey) -> bool {
        let Some(peer) = self.peers.get(slot) else { return false };
        if peer.link().is_some_and(|link| link.key == *key) {
            return true;
        }
        self.drop_link(slot);
        let Some(peer) = self.peers.get_mut(slot) else { return false };
        let Some(psk) = peer.key(key).map(|key| key.psk.clone()) else { return false };
        let Some(index) = self.indices.claim(slot, &mut self.random) else { return false };
        let mut session = self.noise.session(key, psk.as_ref(), index, self.now);
        session.set_mtu(peer.mtu);
        peer.live().link = Some(Box::new(Link {
            session,
            index,
            key: *key,
            newest_stamp: None,
            unproved: Default::default(),
            initiations: 0,
            up: false,
            polled: self.now.mono,
        }));
        true
    }

    pub(super) fn drop_link(&mut self, slot: Slot) {
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        if let Some(link) = live.link.take() {
            self.indices.release(link.index);
            self.mark_changed(slot);
        }
    }

    /// Keeps the session of a replaced key, to detect that it is still in use. An older kept
    /// session is dropped.
    pub(super) fn retire_link(&mut self, slot: Slot) {
        self.drop_former(slot);
        let until = round_up(self.now.mono + FORMER_FOR);
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        live.former = live.link.take().map(|link| Former { link, until });
        self.mark_changed(slot);
    }

    pub(super) fn drop_former(&mut self, slot: Slot) {
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        if let Some(former) = live.former.take() {
            self.indices.release(former.link.index);
        }
    }

    /// Sends the datagrams that a session made. `to` is the source of the datagram that they reply
    /// to.
    pub(super) fn transmit(&mut self, slot: Slot, datagrams: Vec<Vec<u8>>, to: Option<Endpoint>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        for bytes in datagrams {
            let is_initiation = bytes.first() == Some(&INITIATION);
            let Some(to) = to.or_else(|| target(peer, is_initiation)) else { return };
            if is_initiation && !may_initiate(peer) {
                continue;
            }
            peer.traffic.tx_bytes += bytes.len() as u64;
            peer.wire.note_tx(on_the_wire(to.remote, bytes.len()), self.now.wall);
            self.outbox.push(to, &bytes);
        }
        self.mark_changed(slot);
    }

    /// Seals an inner packet of the gateway itself and sends it. Returns whether there was a session.
    pub(super) fn seal(&mut self, slot: Slot, packet: &[u8]) -> bool {
        let Ok(len) = self.seal_packet(slot, packet) else {
            self.count_drop(slot, DropReason::NoSession);
            return false;
        };
        if let Some(peer) = self.peers.get_mut(slot)
            && let Some(endpoint) = peer.endpoint
        {
            peer.wire.note_tx(on_the_wire(endpoint.remote, len), self.now.wall);
        }
        true
    }

    /// Seals an inner packet where it leaves from, and renews the session. Returns the length of the
    /// datagram, which the caller counts against the budget of the peer's checks if it is the gateway's own.
    pub(super) fn seal_packet(&mut self, slot: Slot, packet: &[u8]) -> Result<usize, NoSession> {
        let now = self.now.mono;
        let peer = self.peers.get_mut(slot).ok_or(NoSession)?;
        let endpoint = peer.endpoint.ok_or(NoSession)?;
        let session = &mut peer.link_mut().ok_or(NoSession)?.session;
        let len = self.outbox.write(endpoint, packet.len(), |room| session.seal(packet, now, room))?;
        let mut sent = Vec::new();
        session.renew(now, &mut self.dial_scratch, &mut |datagram| sent.push(datagram.to_vec()));
        peer.traffic.tx_bytes += len as u64;
        peer.traffic.tx_packets += 1;
        self.mark_changed(slot);
        if !sent.is_empty() {
            self.transmit(slot, sent, None);
        }
        Ok(len)
    }

    /// Starts a dial, or joins the one in progress. Returns whether a dial is in progress.
    pub(super) fn dial(&mut self, slot: Slot, forced: bool) -> bool {
        let now = self.now.mono;
        let Some(peer) = self.peers.get(slot) else { return false };
        let to = source(peer, now).or(peer.endpoint);
        let Some(to) = to.filter(|_| !self.quiet && (forced || may_dial(peer.dial_failed, now))) else {
            return false;
        };
        if peer.live.as_ref().is_some_and(|live| live.dial.is_some()) {
            return true;
        }
        let key = peer.link().map(|link| link.key).or(peer.keys.first().map(|key| key.public));
        if !key.is_some_and(|key| self.ensure_link(slot, &key)) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(slot) else { return false };
        peer.live().dial = Some(Dial::new(to, now));
        self.initiate(slot, true);
        true
    }

    /// Returns whether an ordinary dial would begin now.
    pub(super) fn begins_dial(&self, slot: Slot) -> bool {
        let now = self.now.mono;
        let Some(peer) = self.peers.get(slot) else { return false };
        let is_dialled = peer.live.as_ref().is_some_and(|live| live.dial.is_some());
        let has_target = peer.endpoint.is_some() || source(peer, now).is_some();
        !self.quiet && !is_dialled && has_target && may_dial(peer.dial_failed, now)
    }

    /// Dials the source of a peer that makes handshakes but cannot use our responses. Its reply to
    /// an initiation of ours distinguishes a wrong key from a blocked path, and costs less than the
    /// responses do. The endpoint does not move: only a response that opens moves it.
    pub(super) fn dial_source(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(to) = source(peer, now).filter(|_| !self.quiet) else { return };
        if let Some(dial) = peer.live.as_mut().and_then(|live| live.dial.as_mut()) {
            dial.to = to;
            return;
        }
        let has_link = peer.link().is_some();
        if !has_link || !peer.signs.get_or_insert_default().unproved.may_dial(to.remote, now) {
            return;
        }
        peer.live().dial = Some(Dial::new(to, now));
        self.initiate(slot, true);
    }

    fn initiate(&mut self, slot: Slot, first: bool) {
        let Some(link) = self.peers.get_mut(slot).and_then(|peer| peer.link_mut()) else { return };
        if first {
            link.initiations = 0;
        }
        let mut sent = Vec::new();
        if link.initiations < MAX_INITIATIONS {
            let sink = &mut |datagram: &[u8]| sent.push(datagram.to_vec());
            link.session.initiate(self.now.mono, &mut self.dial_scratch, sink);
        }
        self.transmit(slot, sent, None);
    }

    pub(super) fn step_dial(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(dial) = peer.live.as_mut().and_then(|live| live.dial.as_mut()) else { return };
        match dial.step(now) {
            DialAction::Nothing => {}
            // The session may have repeated the initiation by itself.
            DialAction::Repeat if peer.link().is_some_and(|link| link.initiations >= MAX_INITIATIONS) => {}
            DialAction::Repeat => self.initiate(slot, false),
            DialAction::GiveUp => self.give_up(slot),
        }
    }

    fn give_up(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.dial_failed = Some(now);
        peer.live().dial = None;
        let alive = peer.link().is_some_and(|link| link.session.established(now));
        self.fail_waiting(slot);
        if !alive {
            self.fail_connections(slot, &ConnectFailure::NoTunnel);
        }
    }

    /// Completes a handshake that the peer itself took part in. `begun` is when we answered it, or
    /// now if the peer answered ours.
    pub(super) fn handshake_done(&mut self, slot: Slot, begun: Mono) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.handshakes += 1;
        peer.last_handshake = Some(Seen::from(now));
        peer.last_answer = Some(Seen::from(now));
        peer.live().dial.take_if(|dial| dial.is_answered_by(begun));
        if let Some(signs) = &mut peer.signs {
            signs.unproved.proved();
        }
        let id = peer.id;
        if std::mem::take(&mut peer.is_new) {
            self.news(TunnelEvent::FirstHandshake(id));
        }
        self.answer_handshakes(slot, begun);
    }

    pub(super) fn poll_session(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(link) = self.peers.get_mut(slot).and_then(|peer| peer.link_mut()) else { return };
        if link.session.next_poll().is_none_or(|due| due > now) {
            return;
        }
        link.polled = now;
        let mut sent = Vec::new();
        link.session.poll(now, &mut self.scratch, &mut |datagram| sent.push(datagram.to_vec()));
        if !sent.is_empty() {
            self.transmit(slot, sent, None);
        }
    }

    /// Reschedules a peer after anything that may have changed it. Reports a session that came up
    /// or went down, starts the goals that waited for it, drops empty state and files the next
    /// deadline.
    pub(super) fn settle(&mut self, slot: Slot) {
        if self.note_up(slot) {
            self.start_waiting(slot);
        }
        self.drop_dead_link(slot);
        let now = self.now.mono;
        if self.peers.get(slot).and_then(|peer| peer.former_until()).is_some_and(|until| until <= now) {
            self.drop_former(slot);
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.tidy();
        if let Some((at, _)) = due(peer) {
            self.wheel.file(slot, &mut peer.filed, at, now);
        }
    }

    /// Reports a change of the session's state. Returns whether there is a session.
    fn note_up(&mut self, slot: Slot) -> bool {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(slot) else { return false };
        let id = peer.id;
        let Some(link) = peer.link_mut() else { return false };
        let up = link.session.established(now);
        let was_up = std::mem::replace(&mut link.up, up);
        if up && !was_up {
            self.news(TunnelEvent::Up(id));
        }
        if up != was_up {
            self.mark_changed(slot);
        }
        up
    }

    fn drop_dead_link(&mut self, slot: Slot) {
        let now = self.now.mono;
        let Some(live) = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut()) else { return };
        let Some(link) = &mut live.link else { return };
        link.unproved.wait_until(PROOF_WITHIN, now);
        let hoped_for = live.dial.is_some() || link.unproved.awaited().is_some();
        if !link.session.established(now) && !hoped_for || link.session.next_poll().is_none() {
            self.drop_link(slot);
        }
    }
}

/// Returns the endpoint from which the peer currently makes handshakes in vain.
fn source<S>(peer: &Peer<S>, now: Mono) -> Option<Endpoint> {
    peer.signs.as_ref()?.unproved.source(now)
}

/// Returns where to send a datagram that replies to no other.
fn target<S>(peer: &Peer<S>, is_initiation: bool) -> Option<Endpoint> {
    let dial = peer.live.as_ref().and_then(|live| live.dial).filter(|_| is_initiation);
    dial.map(|dial| dial.to).or(peer.endpoint)
}

/// Counts an initiation that is about to be sent. Returns false beyond the limit for a silent peer.
fn may_initiate<S>(peer: &mut Peer<S>) -> bool {
    let Some(link) = peer.link_mut() else { return false };
    let may = link.initiations < MAX_INITIATIONS;
    link.initiations += u8::from(may);
    may
}

/// Returns the next deadline of this peer, and the reason.
pub(super) fn due<S: Session>(peer: &Peer<S>) -> Option<(Mono, WakeReason)> {
    let live = peer.live.as_ref()?;
    let link = live.link.as_ref();
    let poll = link.and_then(|link| Some(round_up(link.session.next_poll()?.max(link.polled + TICK))));
    let proof = link.and_then(|link| link.unproved.awaited()).map(|at| round_up(at + PROOF_WITHIN));
    let asks = live.waiting.iter().map(|want| want.deadline);
    let probes = asks.chain(live.echoes.iter().map(|echo| echo.due())).min();
    let stack = live.stack.as_ref().and_then(|stack| stack.due());
    [
        (poll, WakeReason::SessionTimer),
        (proof, WakeReason::SessionTimer),
        (peer.former_until(), WakeReason::SessionTimer),
        (live.dial.map(|dial| dial.due()), WakeReason::PacedDial),
        (probes, WakeReason::ProbeTimeout),
        (stack, WakeReason::StackTimer),
    ]
    .into_iter()
    .filter_map(|(at, why)| at.map(|at| (at, why)))
    .min_by_key(|(at, _)| *at)
}
