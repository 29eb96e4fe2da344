//! boringtun's sessions of one peer, and the engine's record of their age, indices and role.
//!
//! boringtun keeps eight sessions in a ring, and exposes neither their age nor their role. This file decides
//! only when a session is over. It sends nothing, and calls boringtun only to make a `Tunn`.

use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;
use fleetgate_keys::{PresharedKey, PublicKey};
use x25519_dalek::StaticSecret;

use crate::time::Mono;

/// REJECT-AFTER-TIME of the protocol: a session of this age carries no more packets.
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// boringtun counts one second more than the engine at the end of a session's life, and rounds.
pub(super) const WIPE_AFTER: Duration = Duration::from_secs(181);
/// Sessions that boringtun keeps per peer, at the index modulo this number.
pub(super) const SESSIONS: usize = 8;

/// The state that all sessions of a gateway share.
pub(super) struct Own {
    pub secret: StaticSecret,
    /// Never under load, because the front counts. boringtun requires a limiter.
    pub limiter: Arc<RateLimiter>,
}

/// The arguments of a `Tunn`, to make it again.
pub(super) struct Origin {
    pub own: Arc<Own>,
    pub peer: PublicKey,
    pub psk: Option<PresharedKey>,
    pub index: u32,
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
pub(super) enum Role {
    Initiator,
    Responder,
}

/// A session as the engine tracks it, because boringtun does not expose its age.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub local: u32,
    pub remote: u32,
    pub born: Mono,
    pub role: Role,
}

impl Life {
    pub fn is_over(&self, now: Mono) -> bool {
        now.since(self.born) >= REJECT_AFTER
    }

    pub fn is_wiped(&self, now: Mono) -> bool {
        now.since(self.born) >= WIPE_AFTER
    }
}

/// boringtun's sessions of one peer, and the engine's record of them.
pub(super) struct Ring {
    pub tunn: Box<Tunn>,
    pub lives: [Option<Life>; SESSIONS],
    /// The index of the last handshake message. The next message gets the index after it.
    pub made: u32,
    /// Since when boringtun has had an unanswered initiation.
    pub in_hand: Option<Mono>,
}

impl Ring {
    pub fn new(origin: &Origin) -> Ring {
        Ring { tunn: origin.tunn(), lives: [None; SESSIONS], made: origin.index << 8, in_hand: None }
    }

    pub fn life(&self, local: u32) -> Option<&Life> {
        self.lives[local as usize % SESSIONS].as_ref().filter(|life| life.local == local)
    }

    /// Returns the index of the next handshake message: 24 bits of the peer, and a counter of
    /// eight.
    pub fn next(&self) -> u32 {
        self.made & !0xff | self.made.wrapping_add(1) & 0xff
    }
}
