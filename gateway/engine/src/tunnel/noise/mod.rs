//! boringtun behind the session traits. Only this folder of the engine names boringtun.
//!
//! boringtun 0.7.1 reads a clock of its own and asks to be polled four times a second per peer. It
//! starts handshakes by the time of its last poll. The engine therefore makes these decisions
//! itself: this file decides about handshakes, repetitions, keepalives and the age of a session
//! from the times that the caller hands in.
//!
//! boringtun is polled in two cases only. It is polled right before a handshake, so that a new
//! session is not born old, and after a session has ended, so that its keys are wiped. The buffer
//! of a poll is too short for an initiation, so boringtun cannot send one by itself.
//!
//! boringtun is never handed a packet without a session, so it queues nothing and dials no peer.
//! This file does not know peers, endpoints or stamps; the caller decides which initiations are
//! new.

#[cfg(test)]
pub mod peer;
mod ring;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

use super::session::{Front, NoSession, Noise, Opened, Session, Sink};
use crate::messages::{DEFAULT_MTU, DropReason, MTU_RANGE};
use crate::time::{Mono, Now};
use crate::tunnel::handshake::gate::{DATA_OVERHEAD, FrontDoor, FrontSettings, Message, word};

use ring::{Life, Origin, Own, Ring, Role, SESSIONS, WIPE_AFTER};

/// REKEY-AFTER-TIME: the initiator renews a session of this age when it sends on it.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The same for a session that is only received on, early enough that the tunnel has no gap.
const REKEY_ON_RECEIVE: Duration = Duration::from_secs(180 - 10 - 5);
/// REKEY-TIMEOUT: an initiation is not repeated sooner.
const REPEAT_AFTER: Duration = Duration::from_secs(5);
/// KEEPALIVE-TIMEOUT: a received packet is answered within this time, with an empty packet if
/// necessary.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// KEEPALIVE-TIMEOUT + REKEY-TIMEOUT: a peer that has not replied within this time has lost the
/// session.
const SILENCE: Duration = Duration::from_secs(15);
/// Limit per dial. A peer that is gone is tried again on demand, instead of for 90 s.
const MAX_INITIATIONS: u8 = 2;
/// Counters from here on are not accepted (the protocol's REJECT-AFTER-MESSAGES). Otherwise the
/// replay window would overflow.
const COUNTER_END: u64 = u64::MAX - (1 << 13);
/// Maximum age of an unanswered handshake in boringtun, which ends all sessions together with a
/// handshake of 90 s. At this age the engine sets the session in use aside, so that the handshake
/// cannot end it.
const IN_HAND_AT_MOST: Duration = Duration::from_secs(80);
/// Responses that are tried per dial, because each costs two X25519. Only an observer of our
/// initiations can send one that is tried at all.
const MAX_RESPONSES: u8 = 8;
/// Minimum time between two answered initiations of one peer: 50 a second, as in other
/// implementations. Each costs four X25519, and the key may be in the hands of a stranger.
const INITIATION_GAP: Duration = Duration::from_millis(20);
/// The content of a message is padded to a multiple of this (section 5.4.6 of the protocol's
/// paper), so that its length reveals less. boringtun removes padding but adds none.
const PADDING: usize = 16;
/// Room for a padded packet.
const LARGEST_MTU: usize = *MTU_RANGE.end() as usize;
/// Room for a keepalive, but not for an initiation of 148 bytes: see the module documentation.
const POLL_ROOM: usize = 64;
/// boringtun panics if its output does not fit; the longest is an initiation.
const LEAST_SCRATCH: usize = 2_048;

/// The gateway's key and its front door.
pub struct BoringNoise {
    own: Arc<Own>,
    front: FrontDoor,
}

impl BoringNoise {
    /// Creates the gateway's side. `seed` is 32 bytes of the operating system, not used for
    /// anything else.
    pub fn new(private: &PrivateKey, seed: [u8; 32]) -> Self {
        Self::with_settings(private, seed, FrontSettings::default())
    }

    pub fn with_settings(private: &PrivateKey, seed: [u8; 32], settings: FrontSettings) -> Self {
        let secret = StaticSecret::from(*private.as_bytes());
        let limiter = Arc::new(RateLimiter::new(&(*private.public().as_bytes()).into(), u64::MAX));
        BoringNoise { own: Arc::new(Own { secret, limiter }), front: FrontDoor::new(private, seed, settings) }
    }
}

impl Noise for BoringNoise {
    type Session = BoringSession;

    fn front(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        known: &dyn Fn(&PublicKey) -> bool,
        now: Now,
    ) -> Front {
        self.front.judge(datagram, from, known, now)
    }

    fn session(
        &mut self,
        peer: &PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        _now: Now,
    ) -> BoringSession {
        BoringSession::new(Origin { own: self.own.clone(), peer: *peer, psk: psk.cloned(), index })
    }

    fn forget(&mut self, peer: &PublicKey) {
        self.front.forget(peer);
    }
}

/// Initiations in flight.
#[derive(Clone, Copy)]
struct Dial {
    /// The last initiation.
    at: Mono,
    sent: u8,
    responses: u8,
    /// When to send the next initiation, or to give up after the last.
    due: Mono,
}

/// One peer's sessions: about 11.5 KB, nearly all of it boringtun's.
pub struct BoringSession {
    origin: Origin,
    /// The limit of the peer: padding stays within it.
    mtu: u16,
    ring: Ring,
    /// The session in use, set aside when boringtun would have ended it with an unanswered
    /// handshake.
    kept: Option<Box<Ring>>,
    /// The session to send on, by its local index.
    current: Option<u32>,
    dial: Option<Dial>,
    /// The last dial failed and nothing was received since, so silence starts no other dial.
    gave_up: bool,
    /// A handshake is to start at the next poll.
    wanted: bool,
    /// The first packet sent since the last one was received.
    unanswered: Option<Mono>,
    /// The first packet received since the last one was sent.
    unreplied: Option<Mono>,
}

impl Session for BoringSession {
    fn receive<'b>(
        &mut self,
        datagram: &[u8],
        _from: SocketAddr,
        now: Mono,
        scratch: &'b mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'b> {
        if scratch.len() < datagram.len().max(LEAST_SCRATCH) {
            return Opened::Dropped(DropReason::TooBig);
        }
        match Message::parse(datagram) {
            Some(Message::Data(_)) => self.take_data(datagram, now, scratch),
            Some(Message::Initiation(_)) => self.take_initiation(datagram, now, scratch, sink),
            Some(Message::Response(_)) => self.take_response(datagram, now, scratch, sink),
            Some(Message::Cookie(_)) => self.take_cookie(datagram, scratch),
            None => Opened::Dropped(DropReason::Malformed),
        }
    }

    fn seal(&mut self, packet: &[u8], now: Mono, room: &mut [u8]) -> Result<usize, NoSession> {
        let life = *self.live(now).ok_or(NoSession)?;
        let len = packet.len().next_multiple_of(PADDING).min(usize::from(self.mtu));
        if room.len() < (len.max(packet.len()) + DATA_OVERHEAD).max(LEAST_SCRATCH) {
            return Err(NoSession);
        }
        let sealed = if len <= packet.len() {
            self.encapsulate(life, packet, room)
        } else {
            let mut padded = [0; LARGEST_MTU];
            padded[..packet.len()].copy_from_slice(packet);
            self.encapsulate(life, &padded[..len], room)
        };
        if !self.may_send(&room[..sealed], now) {
            return Err(NoSession);
        }
        if !packet.is_empty() {
            self.unanswered.get_or_insert(now);
        }
        Ok(sealed)
    }

    fn renew(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        let old = self
            .live(now)
            .is_some_and(|life| life.role == Role::Initiator && now.since(life.born) >= REKEY_AFTER);
        if old && self.dial.is_none() && !self.gave_up {
            self.start_dial(now, scratch, sink);
        }
    }

    fn initiate(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        match self.dial {
            Some(dial) if now < dial.due => {}
            Some(dial) if dial.sent < MAX_INITIATIONS => self.continue_dial(now, scratch, sink),
            _ => self.start_dial(now, scratch, sink),
        }
    }

    fn poll(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        self.reply(now, scratch, sink);
        self.kept.take_if(|kept| kept.lives.iter().flatten().all(|life| life.is_over(now)));
        if self.ring.lives.iter().flatten().any(|life| life.is_wiped(now)) {
            self.tick(now, sink);
        }
        if self.dial.is_some() {
            self.continue_dial(now, scratch, sink);
        } else if self.wanted || self.silent_from().is_some_and(|at| now >= at) {
            self.start_dial(now, scratch, sink);
        }
    }

    fn next_poll(&self) -> Option<Mono> {
        let ends = self.lives().map(|life| life.born + WIPE_AFTER);
        let reply = self.unreplied.map(|since| since + KEEPALIVE_AFTER);
        let dial = match self.dial {
            Some(dial) => Some(dial.due),
            None if self.wanted => Some(Mono::ZERO),
            None => self.silent_from(),
        };
        ends.chain(reply).chain(dial).min()
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    fn established(&self, now: Mono) -> bool {
        self.live(now).is_some()
    }
}

impl BoringSession {
    fn new(origin: Origin) -> Self {
        BoringSession {
            ring: Ring::new(&origin),
            origin,
            mtu: DEFAULT_MTU,
            kept: None,
            current: None,
            dial: None,
            gave_up: false,
            wanted: false,
            unanswered: None,
            unreplied: None,
        }
    }

    /// Calls into boringtun. If it panics (its clock went back, an arithmetic overflow), its state
    /// is no longer trusted: all sessions end and the peer makes a new handshake.
    fn guarded<R>(&mut self, call: impl FnOnce(&mut Tunn) -> R) -> Option<R> {
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut self.ring.tunn)));
        result.map_err(|_| self.start_over()).ok()
    }

    /// Calls into the `Tunn` that has the session with this index.
    fn guarded_on<R>(&mut self, local: u32, call: impl FnOnce(&mut Tunn) -> R) -> Option<R> {
        match self.kept.as_mut().filter(|kept| kept.life(local).is_some()) {
            Some(kept) => {
                let result = catch_unwind(AssertUnwindSafe(|| call(&mut kept.tunn)));
                result.map_err(|_| self.kept = None).ok()
            }
            None => self.guarded(call),
        }
    }

    fn start_over(&mut self) {
        self.ring = Ring::new(&self.origin);
        self.kept = None;
        self.current = None;
        self.dial = None;
        self.gave_up = false;
        self.wanted = false;
        self.unanswered = None;
        self.unreplied = None;
    }

    /// Brings boringtun's clock up to date and wipes the sessions that are over.
    fn tick(&mut self, now: Mono, sink: Sink<'_>) {
        self.keep_session(now);
        let mut room = [0; POLL_ROOM];
        let len = self.guarded(|tunn| written(&tunn.update_timers(&mut room))).unwrap_or(0);
        // boringtun may send a keepalive that it considers due, which does no harm.
        self.sent_on(&room[..len], now, sink);
        // boringtun ends all sessions together with a handshake that failed for 90 s.
        let ended = self.ring.tunn.is_expired();
        for slot in &mut self.ring.lives {
            *slot = slot.filter(|life| !ended && !life.is_wiped(now));
        }
    }

    /// Sets the session in use aside before a failed handshake ends it. A peer that does not
    /// receive our handshakes may still send on its session.
    fn keep_session(&mut self, now: Mono) {
        let long = self.ring.in_hand.is_some_and(|since| now.since(since) >= IN_HAND_AT_MOST);
        if !long {
            return;
        }
        let current = self.current.and_then(|local| self.ring.life(local)).copied();
        let given_up = std::mem::replace(&mut self.ring, Ring::new(&self.origin));
        if let Some(life) = current.filter(|life| !life.is_over(now)) {
            let mut lives = [None; SESSIONS];
            lives[life.local as usize % SESSIONS] = Some(life);
            self.kept = Some(Box::new(Ring { lives, ..given_up }));
        }
    }

    /// Skips an index that would overwrite the session in use. boringtun assigns indices in turn
    /// and puts a new session in place of an older one. The skipped index is spent on an initiation
    /// that is not sent.
    fn spare_session(&mut self, now: Mono, scratch: &mut [u8]) {
        let Some(life) = self.live(now).copied() else { return };
        let (next, kept) = (self.ring.next(), self.ring.life(life.local).is_none());
        let meets = match kept {
            true => next == life.local,
            false => next as usize % SESSIONS == life.local as usize % SESSIONS,
        };
        if meets {
            self.make_initiation(now, scratch);
        }
    }

    /// Makes an initiation in `scratch` and returns its length.
    fn make_initiation(&mut self, now: Mono, scratch: &mut [u8]) -> Option<usize> {
        let len = self.guarded(|tunn| written(&tunn.format_handshake_initiation(scratch, true)));
        let len = len.filter(|len| *len > 0)?;
        self.ring.made = word(scratch, 4);
        self.ring.in_hand = self.ring.in_hand.or(Some(now));
        Some(len)
    }

    /// Seals a packet that is padded, on the session with this life. Returns the length.
    fn encapsulate(&mut self, life: Life, padded: &[u8], room: &mut [u8]) -> usize {
        self.guarded_on(life.local, |tunn| written(&tunn.encapsulate(padded, room))).unwrap_or(0)
    }

    /// Returns whether a sealed packet may leave: its session is not over.
    fn may_send(&mut self, sealed: &[u8], now: Mono) -> bool {
        if sealed.len() < DATA_OVERHEAD {
            return false;
        }
        let remote = word(sealed, 4);
        let alive = self.lives().any(|life| life.remote == remote && !life.is_over(now));
        if alive {
            self.unreplied = None;
        }
        alive
    }

    /// Hands out a sealed packet, unless its session is over. Returns whether it did.
    fn sent_on(&mut self, sealed: &[u8], now: Mono, sink: Sink<'_>) -> bool {
        let may = self.may_send(sealed, now);
        if may {
            sink(sealed);
        }
        may
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        let kept = self.kept.iter().flat_map(|kept| kept.lives.iter().flatten());
        self.ring.lives.iter().flatten().chain(kept)
    }

    fn life(&self, local: u32) -> Option<&Life> {
        self.ring.life(local).or_else(|| self.kept.as_ref()?.life(local))
    }

    /// Returns the session to send on, while it lasts.
    fn live(&self, now: Mono) -> Option<&Life> {
        self.life(self.current?).filter(|life| !life.is_over(now))
    }

    fn begin_life(&mut self, life: Life) {
        self.ring.lives[life.local as usize % SESSIONS] = Some(life);
        self.ring.in_hand = None;
        self.gave_up = false;
        self.wanted = false;
        if life.role == Role::Initiator {
            self.current = Some(life.local);
        }
    }

    fn take_initiation(
        &mut self,
        datagram: &[u8],
        now: Mono,
        scratch: &mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'static> {
        if self.has_just_answered(now) {
            return Opened::Dropped(DropReason::RateLimited);
        }
        self.tick(now, sink);
        self.spare_session(now, scratch);
        let mut answer = self.answer(datagram, scratch);
        if matches!(answer, Err(WireGuardError::WrongTai64nTimestamp)) {
            // The caller has judged the stamp, for example after the peer's clock was reset.
            // boringtun cannot be informed of that.
            self.start_over();
            answer = self.answer(datagram, scratch);
        }
        let len = match answer {
            Ok(len) => len,
            Err(error) => return Opened::Dropped(reason(&error)),
        };
        let (local, remote) = (word(scratch, 4), word(datagram, 4));
        self.ring.made = local;
        self.begin_life(Life { local, remote, born: now, role: Role::Responder });
        sink(&scratch[..len]);
        Opened::HandshakeAnswered(local)
    }

    fn has_just_answered(&self, now: Mono) -> bool {
        let mut answered = self.ring.lives.iter().flatten().filter(|life| life.role == Role::Responder);
        answered.any(|life| now.since(life.born) < INITIATION_GAP)
    }

    /// Takes a handshake message and returns the length of boringtun's reply.
    fn answer(&mut self, datagram: &[u8], scratch: &mut [u8]) -> Result<usize, WireGuardError> {
        let result = self.guarded(|tunn| match tunn.decapsulate(None, datagram, scratch) {
            TunnResult::Err(error) => Err(error),
            other => Ok(written(&other)),
        });
        result.unwrap_or(Err(WireGuardError::UnexpectedPacket))
    }

    fn take_response(
        &mut self,
        datagram: &[u8],
        now: Mono,
        scratch: &mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'static> {
        if !self.expects_response() {
            return Opened::Dropped(DropReason::UnknownIndex);
        }
        self.tick(now, sink);
        let len = match self.answer(datagram, scratch) {
            Ok(len) => len,
            Err(error) => return Opened::Dropped(reason(&error)),
        };
        let (local, remote) = (word(datagram, 8), word(datagram, 4));
        self.begin_life(Life { local, remote, born: now, role: Role::Initiator });
        self.unanswered = None;
        self.dial = None;
        // A keepalive confirms the session to the peer.
        self.sent_on(&scratch[..len], now, sink);
        self.flush(now, scratch, sink);
        Opened::HandshakeDone
    }

    fn expects_response(&mut self) -> bool {
        let Some(dial) = self.dial.as_mut().filter(|dial| dial.responses < MAX_RESPONSES) else {
            return false;
        };
        dial.responses += 1;
        true
    }

    /// Sends what boringtun has queued: at most a keepalive that it made without a session.
    fn flush(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        while self.answer(&[], scratch).is_ok_and(|len| self.sent_on(&scratch[..len], now, sink)) {}
    }

    fn take_cookie(&mut self, datagram: &[u8], scratch: &mut [u8]) -> Opened<'static> {
        if self.dial.is_none() {
            return Opened::Dropped(DropReason::UnknownIndex);
        }
        match self.answer(datagram, scratch) {
            Ok(_) => Opened::Nothing,
            Err(error) => Opened::Dropped(reason(&error)),
        }
    }

    fn take_data<'b>(&mut self, datagram: &[u8], now: Mono, scratch: &'b mut [u8]) -> Opened<'b> {
        let counter = u64::from_le_bytes(datagram[8..16].try_into().expect("eight bytes"));
        if counter >= COUNTER_END {
            return Opened::Dropped(DropReason::CounterExhausted);
        }
        let Some(life) = self.life(word(datagram, 4)).copied() else {
            return Opened::Dropped(DropReason::UnknownIndex);
        };
        if life.is_over(now) {
            return Opened::Dropped(DropReason::SessionExpired);
        }
        let opened = match self.guarded_on(life.local, |tunn| tunn.decapsulate(None, datagram, scratch)) {
            Some(TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _)) => {
                Opened::Packet(packet)
            }
            Some(TunnResult::Done) => Opened::Keepalive,
            Some(TunnResult::Err(WireGuardError::InvalidPacket)) => Opened::NotIp,
            Some(TunnResult::Err(error)) => return Opened::Dropped(reason(&error)),
            Some(TunnResult::WriteToNetwork(_)) | None => return Opened::Dropped(DropReason::Crypto),
        };
        self.heard_on(life, now);
        if opened != Opened::Keepalive {
            self.unreplied.get_or_insert(now);
        }
        opened
    }

    /// Records an authentic packet on this session, which confirms the session.
    fn heard_on(&mut self, life: Life, now: Mono) {
        if self.live(now).is_none_or(|current| life.born >= current.born) {
            self.current = Some(life.local);
        }
        // The peer's handshake made ours unnecessary, unless ours began later.
        if self.dial.is_some_and(|dial| life.born > dial.at) {
            self.dial = None;
        }
        self.unanswered = None;
        let old = life.role == Role::Initiator && now.since(life.born) >= REKEY_ON_RECEIVE;
        // The peer is back, so resume the handshake that was given up: boringtun still has it and
        // would end all sessions 90 s after its start.
        let unfinished = std::mem::take(&mut self.gave_up);
        self.wanted |= old || unfinished;
    }

    fn start_dial(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        self.wanted = false;
        self.gave_up = false;
        self.unanswered = None;
        self.dial = Some(Dial { at: now, sent: 0, responses: 0, due: now });
        self.continue_dial(now, scratch, sink);
    }

    /// Sends the next initiation of a dial, or ends it.
    fn continue_dial(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        let Some(dial) = self.dial.as_mut().filter(|dial| now >= dial.due) else { return };
        if dial.sent >= MAX_INITIATIONS {
            self.dial = None;
            self.gave_up = true;
            return;
        }
        dial.sent += 1;
        (dial.at, dial.due) = (now, now + REPEAT_AFTER);
        self.tick(now, sink);
        if let Some(len) = self.make_initiation(now, scratch) {
            sink(&scratch[..len]);
        }
    }

    /// Returns when the peer's silence lasts too long, unless a dial has already failed since.
    fn silent_from(&self) -> Option<Mono> {
        self.unanswered.filter(|_| !self.gave_up).map(|since| since + SILENCE)
    }

    /// Sends an empty packet if a received packet has not been answered.
    fn reply(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        if self.unreplied.is_some_and(|since| now >= since + KEEPALIVE_AFTER) {
            self.unreplied = None;
            // Without a session there is nothing to keep alive.
            let _ = self.send(&[], now, scratch, sink);
        }
    }
}

/// Returns the length of what boringtun wants to send.
fn written(result: &TunnResult<'_>) -> usize {
    match result {
        TunnResult::WriteToNetwork(bytes) => bytes.len(),
        _ => 0,
    }
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => DropReason::Replay,
        WireGuardError::WrongTai64nTimestamp => DropReason::StaleStamp,
        WireGuardError::NoCurrentSession => DropReason::SessionExpired,
        WireGuardError::WrongIndex | WireGuardError::UnexpectedPacket => DropReason::UnknownIndex,
        WireGuardError::InvalidMac => DropReason::BadMac1,
        _ => DropReason::Crypto,
    }
}
