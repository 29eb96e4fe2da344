//! The narrow interface between the tunnel and WireGuard's cryptography.
//!
//! `noise` implements it with boringtun, the simulator with a plaintext session of the same
//! timers. Every call takes `now`; an implementation must not decide by a clock of its own.

use std::net::SocketAddr;

use fleetgate_keys::{PresharedKey, PublicKey};

use crate::messages::{DropReason, Tai64n};
use crate::time::{Mono, Now};

/// Scratch space for every call that may produce a datagram. Longer datagrams are dropped earlier.
pub const SCRATCH: usize = 65_535 + 64;

/// The result of one datagram for a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'b> {
    /// An authenticated inner IP packet. A packet that goes on to another peer is rewritten in place.
    Packet(&'b mut [u8]),
    /// Authenticated, without content.
    Keepalive,
    /// Authenticated, with content that is no IP packet.
    NotIp,
    /// The peer's response to our initiation opened: a session exists.
    HandshakeDone,
    /// The peer's initiation was answered. The new session has this index of ours; its first packet
    /// confirms it.
    HandshakeAnswered(u32),
    /// A cookie, or something else that proves nothing about the peer.
    Nothing,
    Dropped(DropReason),
}

/// Datagrams that a call wants to send to the peer, in order.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session: nothing can be sent until a handshake is done")]
pub struct NoSession;

/// One peer's WireGuard state.
pub trait Session {
    /// Takes a datagram that the front or the index map assigned to this peer.
    fn receive<'b>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now: Mono,
        scratch: &'b mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'b>;

    /// Seals one inner packet (empty: a keepalive) into `room` and returns the length of the datagram.
    /// The caller calls [`Session::renew`] next.
    ///
    /// # Errors
    /// Fails without a session younger than 180 s. It then queues nothing and starts no handshake.
    fn seal(&mut self, packet: &[u8], now: Mono, room: &mut [u8]) -> Result<usize, NoSession>;

    /// Starts the handshake that a sent packet made due, if there is one.
    fn renew(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>);

    /// Seals one inner packet, and renews the session.
    ///
    /// # Errors
    /// Fails as [`Session::seal`] does.
    fn send(
        &mut self,
        packet: &[u8],
        now: Mono,
        scratch: &mut [u8],
        sink: Sink<'_>,
    ) -> Result<(), NoSession> {
        let len = self.seal(packet, now, scratch)?;
        sink(&scratch[..len]);
        self.renew(now, scratch, sink);
        Ok(())
    }

    /// Starts a dial: an initiation, and a second one 5 s later from `poll` (or from here) if there
    /// was no response. Does nothing while one is in flight.
    fn initiate(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>);

    /// Runs timers. The caller calls it at `next_poll`, or at any time.
    fn poll(&mut self, now: Mono, scratch: &mut [u8], sink: Sink<'_>);

    /// Returns when `poll` is due; a time in the past means at once. Any other call may move it,
    /// also to an earlier time. `None`: this session can be dropped.
    fn next_poll(&self) -> Option<Mono>;

    /// Sets the largest inner packet that the peer takes. Padding stays within it; until it is set,
    /// [`crate::messages::DEFAULT_MTU`] holds. A packet is never cut or refused for its size.
    fn set_mtu(&mut self, mtu: u16);

    /// Returns whether `send` would succeed.
    fn established(&self, now: Mono) -> bool;
}

/// The content of an initiation, opened without the state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation {
    pub peer: PublicKey,
    pub stamp: Tai64n,
}

/// The verdict of the front on a datagram from the Internet.
#[derive(Debug, PartialEq, Eq)]
pub enum Front {
    /// An initiation of a known peer, fully opened. The caller decides whether the stamp is newer
    /// than the last that was answered.
    Initiation(Initiation),
    /// A valid mac1 and a static key that is not enrolled (the second DH was not done).
    UnknownKey(PublicKey),
    /// Anything for an existing session: the first 24 bits of the receiver index.
    ForIndex(u32),
    /// Under load: send this cookie reply to the source of the datagram.
    Cookie(Vec<u8>),
    Dropped(DropReason),
}

/// The gateway's side of the cryptography: the front door, and the factory of sessions.
pub trait Noise {
    type Session: Session;

    /// Judges a datagram: mac1, cookies, rate limits and the opening of an initiation. Memory per
    /// source is bounded. It calls `known` once the static key is open, before any more expensive
    /// step.
    fn front(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        known: &dyn Fn(&PublicKey) -> bool,
        now: Now,
    ) -> Front;

    /// Creates a session. `index` has 24 bits and is unique among the live sessions of this
    /// gateway.
    fn session(
        &mut self,
        peer: &PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        now: Now,
    ) -> Self::Session;

    /// Drops what the front remembers of a key (the static-static secret).
    fn forget(&mut self, peer: &PublicKey);
}
