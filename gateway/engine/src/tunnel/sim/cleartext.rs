//! A session without cryptography, for simulation: WireGuard's messages, timers and rules in clear.
//!
//! It implements the same traits as the real session. A new handshake starts after 120 s, the
//! session ends after 180 s, and a passive keepalive is sent after 10 s. A handshake also starts
//! after 15 s without a reply, and repeats every 5 s. It offers no secrecy, but refuses duplicates,
//! replays and strangers like the real one. It is only built for tests (feature `sim`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PublicKey};

use crate::messages::{DropReason, Tai64n};
use crate::time::{Mono, Now};
use crate::tunnel::handshake::tai64n::from_unix_ms;
use crate::tunnel::random::Random;
use crate::tunnel::session::{Front, Initiation, NoSession, Noise, Opened, Session, Sink};

const REKEY_AFTER: Duration = Duration::from_secs(120);
const REJECT_AFTER: Duration = Duration::from_secs(180);
const KEEPALIVE: Duration = Duration::from_secs(10);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const NEW_HANDSHAKE_AFTER: Duration = Duration::from_secs(15);

/// A client tries for 90 s.
pub const CLIENT_INITIATIONS: u8 = 18;
/// The gateway tries twice.
const GATEWAY_INITIATIONS: u8 = 2;

const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;
const DATA_OVERHEAD: usize = 32;
const TAG_LEN: usize = 16;

/// How far a late packet's counter may lie behind the newest.
const REPLAY_WINDOW: u64 = 1_024;

/// Both nonces of the handshake, in place of the keys.
type Tag = [u8; TAG_LEN];

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

struct Keys {
    local: u32,
    remote: u32,
    tag: Tag,
    born: Mono,
    initiator: bool,
    sent: u64,
    newest: u64,
    seen: BTreeSet<u64>,
}

impl Keys {
    fn is_young(&self, now: Mono) -> bool {
        now.since(self.born) < REJECT_AFTER
    }

    /// Returns whether this counter is new, and remembers it.
    fn fresh(&mut self, counter: u64) -> bool {
        if counter + REPLAY_WINDOW <= self.newest || !self.seen.insert(counter) {
            return false;
        }
        self.newest = self.newest.max(counter);
        let oldest = self.newest.saturating_sub(REPLAY_WINDOW);
        while self.seen.first().is_some_and(|counter| *counter < oldest) {
            self.seen.pop_first();
        }
        true
    }
}

struct Handshake {
    local: u32,
    nonce: [u8; 8],
    sent: Mono,
    tries: u8,
}

/// One end of a tunnel in clear.
pub struct PlainSession {
    own: PublicKey,
    psk: [u8; 8],
    index: u32,
    count: u8,
    random: Random,
    /// The wall clock of this end, as a pair of matching times.
    clock: Now,
    max_tries: u8,
    persistent: Option<Duration>,
    newest_stamp: Option<Tai64n>,
    own_stamp: Option<Tai64n>,
    handshake: Option<Handshake>,
    current: Option<Keys>,
    previous: Option<Keys>,
    next: Option<Keys>,
    last_sent: Mono,
    /// When the first packet was received that is not answered yet.
    owes_keepalive: Option<Mono>,
    /// When the first data was sent that is not answered yet.
    unanswered: Option<Mono>,
}

impl PlainSession {
    fn new(own: PublicKey, psk: Option<&PresharedKey>, index: u32, seed: [u8; 32], now: Now) -> Self {
        PlainSession {
            own,
            psk: psk.map_or([0; 8], |psk| psk.as_bytes()[..8].try_into().expect("eight bytes")),
            index,
            count: 0,
            random: Random::new(seed),
            clock: now,
            max_tries: GATEWAY_INITIATIONS,
            persistent: None,
            newest_stamp: None,
            own_stamp: None,
            handshake: None,
            current: None,
            previous: None,
            next: None,
            last_sent: now.mono,
            owes_keepalive: None,
            unanswered: None,
        }
    }

    /// Makes it a client: it tries longer, and has a persistent keepalive.
    pub fn as_client(mut self, keepalive: Option<Duration>) -> Self {
        self.max_tries = CLIENT_INITIATIONS;
        self.persistent = keepalive;
        self
    }

    /// Sets the wall clock of this end; stamps may go back.
    pub fn set_clock(&mut self, now: Now) {
        self.clock = now;
        self.own_stamp = None;
    }

    fn stamp(&mut self, now: Mono) -> Tai64n {
        let ms = self.clock.wall.as_millis() + now.since(self.clock.mono).as_millis() as i64;
        let mut stamp = from_unix_ms(ms);
        if let Some(last) = self.own_stamp.filter(|last| *last >= stamp) {
            stamp = last;
            stamp.0[11] = stamp.0[11].wrapping_add(1);
        }
        self.own_stamp = Some(stamp);
        stamp
    }

    fn next_index(&mut self) -> u32 {
        self.count = self.count.wrapping_add(1);
        self.index << 8 | u32::from(self.count)
    }

    fn send_initiation(&mut self, now: Mono, tries: u8, sink: Sink<'_>) {
        let (local, nonce, stamp) = (self.next_index(), self.random.bytes(), self.stamp(now));
        let mut message = [0; INITIATION_LEN];
        message[0] = 1;
        message[4..8].copy_from_slice(&local.to_le_bytes());
        message[8..40].copy_from_slice(self.own.as_bytes());
        message[40..52].copy_from_slice(&stamp.0);
        message[52..60].copy_from_slice(&nonce);
        self.handshake = Some(Handshake { local, nonce, sent: now, tries });
        self.last_sent = now;
        sink(&message);
    }

    fn answer(&mut self, message: &[u8], now: Mono, sink: Sink<'_>) -> Opened<'static> {
        let stamp = Tai64n(message[40..52].try_into().expect("twelve bytes"));
        if self.newest_stamp.is_some_and(|newest| stamp <= newest) {
            return Opened::Dropped(DropReason::StaleStamp);
        }
        self.newest_stamp = Some(stamp);
        let (local, remote) = (self.next_index(), u32_at(message, 4));
        let nonce: [u8; 8] = self.random.bytes();
        let mut response = [0; RESPONSE_LEN];
        response[0] = 2;
        response[4..8].copy_from_slice(&local.to_le_bytes());
        response[8..12].copy_from_slice(&remote.to_le_bytes());
        response[12..20].copy_from_slice(&message[52..60]);
        response[20..28].copy_from_slice(&nonce);
        response[28..36].copy_from_slice(&self.psk);
        self.next = Some(keys(local, remote, &response[12..28], false, now));
        self.last_sent = now;
        sink(&response);
        Opened::HandshakeAnswered(local)
    }

    fn finish(&mut self, message: &[u8], now: Mono, sink: Sink<'_>) -> Opened<'static> {
        let Some(handshake) = &self.handshake else { return Opened::Dropped(DropReason::UnknownIndex) };
        if handshake.local != u32_at(message, 8) {
            return Opened::Dropped(DropReason::UnknownIndex);
        }
        if handshake.nonce != message[12..20] || self.psk != message[28..36] {
            return Opened::Dropped(DropReason::Crypto);
        }
        let fresh = keys(handshake.local, u32_at(message, 4), &message[12..28], true, now);
        self.handshake = None;
        self.previous = self.current.replace(fresh);
        self.unanswered = None;
        self.owes_keepalive = None;
        self.keepalive(now, sink);
        Opened::HandshakeDone
    }

    fn open<'b>(&mut self, message: &[u8], now: Mono, scratch: &'b mut [u8], sink: Sink<'_>) -> Opened<'b> {
        self.confirm(message);
        let index = u32_at(message, 4);
        let slot =
            [&mut self.current, &mut self.previous].into_iter().flatten().find(|keys| keys.local == index);
        let Some(keys) = slot else { return Opened::Dropped(DropReason::UnknownIndex) };
        let (head, tag) = message.split_at(message.len() - TAG_LEN);
        if *tag != keys.tag {
            return Opened::Dropped(DropReason::Crypto);
        }
        if !keys.is_young(now) {
            return Opened::Dropped(DropReason::SessionExpired);
        }
        if !keys.fresh(u64_at(head, 8)) {
            return Opened::Dropped(DropReason::Replay);
        }
        let payload = &head[16..];
        self.unanswered = None;
        if payload.is_empty() {
            return Opened::Keepalive;
        }
        self.owes_keepalive.get_or_insert(now);
        self.keep_fresh(now, sink);
        scratch[..payload.len()].copy_from_slice(payload);
        Opened::Packet(&mut scratch[..payload.len()])
    }

    /// Makes the keys that we answered with the current ones, on their first packet.
    fn confirm(&mut self, message: &[u8]) {
        let (index, tag) = (u32_at(message, 4), &message[message.len() - TAG_LEN..]);
        if let Some(next) = self.next.take_if(|next| next.local == index && next.tag == *tag) {
            self.previous = self.current.replace(next);
            self.handshake = None;
        }
    }

    /// Makes a data message on the current keys. Returns its length.
    fn message(&mut self, packet: &[u8], now: Mono, room: &mut [u8]) -> Option<usize> {
        let keys = self.current.as_mut()?;
        let (head, rest) = room.split_at_mut(16);
        head[..4].copy_from_slice(&[4, 0, 0, 0]);
        head[4..8].copy_from_slice(&keys.remote.to_le_bytes());
        head[8..].copy_from_slice(&keys.sent.to_le_bytes());
        rest[..packet.len()].copy_from_slice(packet);
        rest[packet.len()..packet.len() + TAG_LEN].copy_from_slice(&keys.tag);
        keys.sent += 1;
        self.last_sent = now;
        self.owes_keepalive = None;
        if !packet.is_empty() {
            self.unanswered.get_or_insert(now);
        }
        Some(DATA_OVERHEAD + packet.len())
    }

    fn keepalive(&mut self, now: Mono, sink: Sink<'_>) {
        let mut room = [0; DATA_OVERHEAD];
        if let Some(len) = self.message(&[], now, &mut room) {
            sink(&room[..len]);
        }
    }

    /// Renews a session in use, if this end began it.
    fn keep_fresh(&mut self, now: Mono, sink: Sink<'_>) {
        let old = self.current.as_ref().is_some_and(|k| k.initiator && now.since(k.born) >= REKEY_AFTER);
        if old && self.handshake.is_none() {
            self.send_initiation(now, 1, sink);
        }
    }

    fn repeat_handshake(&mut self, now: Mono, sink: Sink<'_>) {
        let Some(handshake) = &self.handshake else { return };
        if now.since(handshake.sent) < REKEY_TIMEOUT {
            return;
        }
        let tries = handshake.tries;
        if tries < self.max_tries {
            self.send_initiation(now, tries + 1, sink);
        } else {
            self.handshake = None;
            self.unanswered = None;
        }
    }
}

fn sooner(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn keys(local: u32, remote: u32, nonces: &[u8], initiator: bool, born: Mono) -> Keys {
    let tag = nonces.try_into().expect("two nonces");
    Keys { local, remote, tag, born, initiator, sent: 0, newest: 0, seen: BTreeSet::new() }
}

impl Session for PlainSession {
    fn receive<'b>(
        &mut self,
        datagram: &[u8],
        _from: SocketAddr,
        now: Mono,
        scratch: &'b mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'b> {
        match (datagram.first(), datagram.len()) {
            (Some(1), INITIATION_LEN) => self.answer(datagram, now, sink),
            (Some(2), RESPONSE_LEN) => self.finish(datagram, now, sink),
            (Some(3), COOKIE_LEN) => Opened::Nothing,
            (Some(4), DATA_OVERHEAD..) => self.open(datagram, now, scratch, sink),
            _ => Opened::Dropped(DropReason::Malformed),
        }
    }

    fn seal(&mut self, packet: &[u8], now: Mono, room: &mut [u8]) -> Result<usize, NoSession> {
        if !self.established(now) {
            return Err(NoSession);
        }
        self.message(packet, now, room).ok_or(NoSession)
    }

    fn renew(&mut self, now: Mono, _: &mut [u8], sink: Sink<'_>) {
        self.keep_fresh(now, sink);
    }

    fn initiate(&mut self, now: Mono, _: &mut [u8], sink: Sink<'_>) {
        let tries = self.handshake.as_ref().map_or(0, |handshake| handshake.tries);
        self.send_initiation(now, tries + 1, sink);
    }

    fn poll(&mut self, now: Mono, _: &mut [u8], sink: Sink<'_>) {
        self.repeat_handshake(now, sink);
        for slot in [&mut self.current, &mut self.previous, &mut self.next] {
            slot.take_if(|keys| !keys.is_young(now));
        }
        if !self.established(now) {
            self.owes_keepalive = None;
        }
        let silent = self.unanswered.is_some_and(|since| now.since(since) >= NEW_HANDSHAKE_AFTER);
        let wanted = silent || self.persistent.is_some() && self.current.is_none();
        if wanted && self.handshake.is_none() {
            self.unanswered = None;
            self.send_initiation(now, 1, sink);
        }
        let owed = self.owes_keepalive.is_some_and(|since| now.since(since) >= KEEPALIVE);
        let persistent = self.persistent.is_some_and(|every| now.since(self.last_sent) >= every);
        if (owed || persistent) && self.established(now) {
            self.keepalive(now, sink);
            self.keep_fresh(now, sink);
        }
    }

    fn next_poll(&self) -> Option<Mono> {
        let mut due = None;
        for keys in [&self.current, &self.previous, &self.next].into_iter().flatten() {
            due = sooner(due, Some(keys.born + REJECT_AFTER));
        }
        let silent = self.unanswered.filter(|_| self.handshake.is_none());
        due = sooner(due, self.handshake.as_ref().map(|handshake| handshake.sent + REKEY_TIMEOUT));
        due = sooner(due, self.owes_keepalive.map(|since| since + KEEPALIVE));
        due = sooner(due, silent.map(|since| since + NEW_HANDSHAKE_AFTER));
        sooner(due, self.persistent.map(|every| self.last_sent + every))
    }

    /// Nothing is padded here.
    fn set_mtu(&mut self, _: u16) {}

    fn established(&self, now: Mono) -> bool {
        self.current.as_ref().is_some_and(|keys| keys.is_young(now))
    }
}

/// The front door and the sessions of one end, in clear.
pub struct PlainNoise {
    own: PublicKey,
    random: Random,
}

impl PlainNoise {
    pub fn new(own: PublicKey, seed: [u8; 32]) -> Self {
        PlainNoise { own, random: Random::new(seed) }
    }
}

impl Noise for PlainNoise {
    type Session = PlainSession;

    fn front(
        &mut self,
        datagram: &[u8],
        _from: SocketAddr,
        known: &dyn Fn(&PublicKey) -> bool,
        _now: Now,
    ) -> Front {
        match (datagram.first(), datagram.len()) {
            (Some(1), INITIATION_LEN) => open_initiation(datagram, known),
            (Some(2), RESPONSE_LEN) => Front::ForIndex(u32_at(datagram, 8) >> 8),
            (Some(3), COOKIE_LEN) | (Some(4), DATA_OVERHEAD..) => Front::ForIndex(u32_at(datagram, 4) >> 8),
            _ => Front::Dropped(DropReason::Malformed),
        }
    }

    fn session(
        &mut self,
        _peer: &PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        now: Now,
    ) -> PlainSession {
        PlainSession::new(self.own, psk, index, self.random.bytes(), now)
    }

    fn forget(&mut self, _peer: &PublicKey) {}
}

fn open_initiation(datagram: &[u8], known: &dyn Fn(&PublicKey) -> bool) -> Front {
    let Ok(peer) = PublicKey::from_bytes(datagram[8..40].try_into().expect("32 bytes")) else {
        return Front::Dropped(DropReason::Crypto);
    };
    let stamp = Tai64n(datagram[40..52].try_into().expect("twelve bytes"));
    if known(&peer) { Front::Initiation(Initiation { peer, stamp }) } else { Front::UnknownKey(peer) }
}
