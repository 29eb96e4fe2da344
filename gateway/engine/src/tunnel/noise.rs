//! boringtun behind the seam: the only file of the engine that names it.
//!
//! boringtun 0.7.1 reads a clock of its own, asks to be polled four times a second per peer, and
//! derives from the time of its last poll when to start handshakes. So it is given no say: the
//! handshakes, repetitions, keepalives and ages of a session are decided here, from the times that
//! are handed in, and it is polled only right before a handshake (so that a new session is not
//! born old) and when a session has ended (so that its keys are wiped). What it would like to send
//! by itself finds no room: it is polled with a buffer that is too short for an initiation.
//!
//! Nothing is ever handed to it without a session, so that it queues nothing and dials nobody.
//! Knows no peers, endpoints or stamps; whoever calls decides which initiations are new.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

use super::front::{DATA_OVERHEAD, FrontDoor, FrontSettings, Message, word};
use super::session::{Front, NoSession, Noise, Opened, Session, Sink};
use super::stack::MTU;
use crate::time::{Mono, Now};
use crate::wire::DropReason;

/// REJECT-AFTER-TIME of the protocol: a session carries nothing from this age on.
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// REKEY-AFTER-TIME: from this age on, its initiator renews a session that it sends on.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The same for a session that is only received on: in time for the session to go on without a gap.
const REKEY_ON_RECEIVE: Duration = Duration::from_secs(180 - 10 - 5);
/// REKEY-TIMEOUT: an initiation is not repeated sooner.
const REPEAT_AFTER: Duration = Duration::from_secs(5);
/// KEEPALIVE-TIMEOUT: what was received is answered by then, with an empty packet if need be.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// KEEPALIVE-TIMEOUT + REKEY-TIMEOUT: who has not answered by then has lost the session.
const SILENCE: Duration = Duration::from_secs(15);
/// Per dial. A peer that is gone is tried again when somebody asks for it, not for 90 s on end.
const MAX_INITIATIONS: u8 = 2;
/// Counters from here on are not accepted (the protocol's REJECT-AFTER-MESSAGES): the replay
/// window behind would overflow.
const COUNTER_END: u64 = u64::MAX - (1 << 13);
/// boringtun counts one more than we do at the end of a session's life, and rounds.
const WIPE_AFTER: Duration = Duration::from_secs(181);
/// boringtun ends all sessions together with a handshake that it has in hand for 90 s. By this age of it, it
/// gets no say over a session that is in use.
const IN_HAND_AT_MOST: Duration = Duration::from_secs(80);
/// Responses that are tried per dial: each costs two X25519, and only who sees our initiations can
/// send one that is tried at all.
const MAX_RESPONSES: u8 = 8;
/// Between two initiations of one peer that are answered: 50 a second, as other implementations
/// have it. Each costs four X25519, and the peer may be a stranger's by now.
const INITIATION_GAP: Duration = Duration::from_millis(20);
/// What a message carries is a multiple of this (section 5.4.6 of the protocol's paper), so that its length
/// says less of what it is. boringtun takes the padding off and puts none on.
const PADDING: usize = 16;
/// Sessions that boringtun keeps per peer, at the index modulo this number.
const SESSIONS: usize = 8;
/// Room for a keepalive, none for an initiation of 148 bytes: see the module's text.
const POLL_ROOM: usize = 64;
/// boringtun panics where its answer does not fit; the longest is an initiation.
const LEAST_SCRATCH: usize = 2_048;

/// What all sessions of a gateway share.
struct Own {
    secret: StaticSecret,
    /// Never under load: the front counts. boringtun insists on having one.
    limiter: Arc<RateLimiter>,
}

/// The gateway's key with its front door.
pub struct BoringNoise {
    own: Arc<Own>,
    front: FrontDoor,
}

impl BoringNoise {
    /// `seed`: 32 bytes of the operating system, not used for anything else.
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

/// What a `Tunn` is made of, to make it again.
struct Origin {
    own: Arc<Own>,
    peer: PublicKey,
    psk: Option<PresharedKey>,
    index: u32,
}

impl Origin {
    fn tunn(&self) -> Box<Tunn> {
        assert!(self.index < 1 << 24, "boringtun would cut an index of more than 24 bits");
        Box::new(Tunn::new(
            self.own.secret.clone(),
            (*self.peer.as_bytes()).into(),
            self.psk.as_ref().map(|psk| *psk.as_bytes()),
            None,
            self.index,
            Some(self.own.limiter.clone()),
        ))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Initiator,
    Responder,
}

/// A session as we know it: boringtun does not tell its age.
#[derive(Clone, Copy)]
struct Life {
    local: u32,
    remote: u32,
    born: Mono,
    role: Role,
}

impl Life {
    fn is_over(&self, now: Mono) -> bool {
        now.since(self.born) >= REJECT_AFTER
    }

    fn is_wiped(&self, now: Mono) -> bool {
        now.since(self.born) >= WIPE_AFTER
    }
}

/// Initiations in flight.
#[derive(Clone, Copy)]
struct Dial {
    /// The last initiation.
    at: Mono,
    sent: u8,
    responses: u8,
    /// The time to repeat, or, after the last, to give up.
    due: Mono,
}

/// boringtun's sessions of one peer, and what we know of them.
struct Ring {
    tunn: Box<Tunn>,
    lives: [Option<Life>; SESSIONS],
    /// The index of the last handshake message that was made; that of the next one follows it.
    made: u32,
    /// Since when boringtun has an initiation in hand that nothing answered.
    in_hand: Option<Mono>,
}

impl Ring {
    fn new(origin: &Origin) -> Ring {
        Ring { tunn: origin.tunn(), lives: [None; SESSIONS], made: origin.index << 8, in_hand: None }
    }

    fn life(&self, local: u32) -> Option<&Life> {
        self.lives[local as usize % SESSIONS].as_ref().filter(|life| life.local == local)
    }

    /// The index of the next handshake message: 24 bits of the peer, and a counter of eight.
    fn next(&self) -> u32 {
        self.made & !0xff | self.made.wrapping_add(1) & 0xff
    }
}

/// One peer's sessions: about 11.5 KB, nearly all of it boringtun's.
pub struct BoringSession {
    origin: Origin,
    ring: Ring,
    /// The session in use, where boringtun would have ended it with a handshake that came to nothing.
    kept: Option<Box<Ring>>,
    /// The session to send on, by its local index.
    current: Option<u32>,
    dial: Option<Dial>,
    /// The last dial failed and nothing was heard since: silence starts no other.
    gave_up: bool,
    /// A handshake is wanted at the next poll.
    wanted: bool,
    /// The first packet sent since something was heard.
    unanswered: Option<Mono>,
    /// The first packet heard since something was sent.
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

    fn send(
        &mut self,
        packet: &[u8],
        now: Mono,
        scratch: &mut [u8],
        sink: Sink<'_>,
    ) -> Result<(), NoSession> {
        let life = *self.live(now).ok_or(NoSession)?;
        let mut room = [0; MTU];
        let padded = padded(packet, &mut room);
        if scratch.len() < (padded.len() + DATA_OVERHEAD).max(LEAST_SCRATCH) {
            return Err(NoSession);
        }
        let len =
            self.guarded_on(life.local, |tunn| written(&tunn.encapsulate(padded, scratch))).unwrap_or(0);
        if !self.sent_on(&scratch[..len], now, sink) {
            return Err(NoSession);
        }
        if !packet.is_empty() {
            self.unanswered.get_or_insert(now);
        }
        let old = life.role == Role::Initiator && now.since(life.born) >= REKEY_AFTER;
        if old && self.dial.is_none() && !self.gave_up {
            self.start_dial(now, scratch, sink);
        }
        Ok(())
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

    fn established(&self, now: Mono) -> bool {
        self.live(now).is_some()
    }
}

/// With zeros up to the next multiple of [`PADDING`], within the MTU. An empty packet stays empty: it is a
/// keepalive.
fn padded<'a>(packet: &'a [u8], room: &'a mut [u8; MTU]) -> &'a [u8] {
    let len = packet.len().next_multiple_of(PADDING).min(MTU);
    if len <= packet.len() {
        return packet;
    }
    room[..packet.len()].copy_from_slice(packet);
    &room[..len]
}

impl BoringSession {
    fn new(origin: Origin) -> Self {
        BoringSession {
            ring: Ring::new(&origin),
            origin,
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
    /// cannot be trusted any more: all sessions end and the peer shakes hands anew.
    fn guarded<R>(&mut self, call: impl FnOnce(&mut Tunn) -> R) -> Option<R> {
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut self.ring.tunn)));
        result.map_err(|_| self.start_over()).ok()
    }

    /// The same where the session with this index is.
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

    /// Brings boringtun's notion of the present up to date and wipes what is over.
    fn tick(&mut self, now: Mono, sink: Sink<'_>) {
        self.keep_session(now);
        let mut room = [0; POLL_ROOM];
        let len = self.guarded(|tunn| written(&tunn.update_timers(&mut room))).unwrap_or(0);
        // A keepalive, where boringtun thinks that one is due: it does no harm.
        self.sent_on(&room[..len], now, sink);
        // It ends all sessions together with a handshake that failed for 90 s.
        let ended = self.ring.tunn.is_expired();
        for slot in &mut self.ring.lives {
            *slot = slot.filter(|life| !ended && !life.is_wiped(now));
        }
    }

    /// A peer that does not hear our handshakes may still speak on its session.
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

    /// boringtun puts the session of an answer where an older one is, and gives out its indices in turn: one
    /// that would meet the session in use is spent on an initiation that is not sent.
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

    /// The length of an initiation.
    fn make_initiation(&mut self, now: Mono, scratch: &mut [u8]) -> Option<usize> {
        let len = self.guarded(|tunn| written(&tunn.format_handshake_initiation(scratch, true)));
        let len = len.filter(|len| *len > 0)?;
        self.ring.made = word(scratch, 4);
        self.ring.in_hand = self.ring.in_hand.or(Some(now));
        Some(len)
    }

    /// Hands out what was sealed, unless it was sealed with a session that is over.
    fn sent_on(&mut self, sealed: &[u8], now: Mono, sink: Sink<'_>) -> bool {
        if sealed.len() < DATA_OVERHEAD {
            return false;
        }
        let remote = word(sealed, 4);
        let alive = self.lives().any(|life| life.remote == remote && !life.is_over(now));
        if alive {
            sink(sealed);
            self.unreplied = None;
        }
        alive
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        let kept = self.kept.iter().flat_map(|kept| kept.lives.iter().flatten());
        self.ring.lives.iter().flatten().chain(kept)
    }

    fn life(&self, local: u32) -> Option<&Life> {
        self.ring.life(local).or_else(|| self.kept.as_ref()?.life(local))
    }

    /// The session to send on, while it lasts.
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
            // The caller has judged the stamp, after the peer's clock was reset, for example;
            // boringtun has no way of being told.
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

    /// The length of what boringtun answers to a handshake message.
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
        // A keepalive, by which the peer learns that the session stands.
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

    /// Sends what boringtun has queued: a keepalive at most that it made without a session.
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

    /// An authentic packet came on this session, which confirms it.
    fn heard_on(&mut self, life: Life, now: Mono) {
        if self.live(now).is_none_or(|current| life.born >= current.born) {
            self.current = Some(life.local);
        }
        // The peer's handshake made ours superfluous, unless we have begun another since.
        if self.dial.is_some_and(|dial| life.born > dial.at) {
            self.dial = None;
        }
        self.unanswered = None;
        let old = life.role == Role::Initiator && now.since(life.born) >= REKEY_ON_RECEIVE;
        // A handshake that was given up is taken up again now that the peer is there: boringtun
        // still has it in hand, and would end all sessions 90 s after its start.
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

    /// When we have been left without an answer for too long, if nothing was tried about it yet.
    fn silent_from(&self) -> Option<Mono> {
        self.unanswered.filter(|_| !self.gave_up).map(|since| since + SILENCE)
    }

    /// An empty packet for what was received and not answered.
    fn reply(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        if self.unreplied.is_some_and(|since| now >= since + KEEPALIVE_AFTER) {
            self.unreplied = None;
            // Without a session there is nothing to be kept alive.
            let _ = self.send(&[], now, scratch, sink);
        }
    }
}

/// How much boringtun wants sent.
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

#[cfg(test)]
pub mod peer;
#[cfg(test)]
mod tests;
