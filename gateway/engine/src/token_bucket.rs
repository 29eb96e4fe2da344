//! A limit by burst and rate.

use std::time::Duration;

use crate::time::Mono;

/// One token each `every`, and at most `burst` at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub every: Duration,
    pub burst: u32,
}

/// A token bucket, as the time at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Mono,
}

impl Bucket {
    /// Takes a token. Returns false if there is none.
    pub fn take(&mut self, rate: &Rate, now: Mono) -> bool {
        let full_at = self.full_at.max(now) + rate.every;
        let room = full_at.since(now) <= rate.every * rate.burst;
        if room {
            self.full_at = full_at;
        }
        room
    }
}
