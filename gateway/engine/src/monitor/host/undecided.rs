//! A failed check that waits while witnesses show whether the gateway is the cause.
//!
//! Its result is evaluated once that is known, and no attempt is lost. Packets may come meanwhile,
//! so its evidence is read again. This module knows no other probes.

use std::time::Duration;

use crate::time::Mono;

/// The interval at which it looks whether that is known; this mostly takes a round trip.
const PACE: Duration = Duration::from_millis(250);

/// The interval at which it reads the evidence again. The tunnel reports at once a packet that
/// comes after 40 s of silence; this is for devices with a shorter check interval.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The failed check.
#[derive(Debug)]
pub struct Undecided {
    text: String,
    /// The last time the evidence was read.
    looked: Mono,
}

impl Undecided {
    pub fn new(text: String, now: Mono) -> Undecided {
        Undecided { text, looked: now }
    }

    /// Returns when to look again whether it is decided.
    pub fn wake_at(&self, now: Mono) -> Mono {
        now + PACE
    }

    /// Whether the evidence is to be read now: it is decided, or was read long enough ago.
    pub fn looks_again(&self, waits: bool, now: Mono) -> bool {
        !waits || now >= self.looked + LOOK_AGAIN
    }

    /// Returns the text of the failure.
    pub fn into_text(self) -> String {
        self.text
    }
}
