//! Whether initiations that lead to nothing are being made now.
//!
//! A stamp is sealed with the initiator's key, so that nobody else can make one; but a captured
//! initiation can be sent again, and says nothing of today. One that is repeated keeps its stamp, while
//! a living device, whatever its clock shows, makes stamps that go on as time does.
//!
//! What remains: whoever recorded several initiations can send them again at the pace at which they were
//! made. Knows no peers.

use std::time::Duration;

use super::stamp::unix_ms;
use crate::time::{Mono, Now, Wall};
use crate::wire::{Attempts, Tai64n};

/// What two initiations may differ in how long they travelled. A device tries again every five seconds:
/// less than that, so that two attempts are never taken for one.
const JITTER: Duration = Duration::from_secs(3);
/// Two that are further apart are compared no more: the evidence is to be of now.
const APART: Duration = Duration::from_secs(180);

/// Of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Of initiations that were refused for their stamps.
    pub refused: Sign,
    /// Of those that were answered, and no packet ever came.
    pub unproved: Sign,
}

impl Signs {
    pub fn attempts(&self) -> Attempts {
        Attempts { refused: self.refused.seen(), unproved: self.unproved.seen() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sign {
    /// The last initiation: its stamp in ms, and when it came.
    last: Option<(i64, Mono)>,
    seen: Option<Wall>,
}

impl Sign {
    /// An initiation that is authentic came and was refused, or nothing came of it.
    pub fn note(&mut self, stamp: Tai64n, now: Now) {
        let made = unix_ms(stamp);
        if self.last.is_some_and(|(last, at)| goes_on(made, last, now.mono.since(at))) {
            self.seen = Some(now.wall);
        }
        // The same once more says nothing, and takes nothing back.
        if self.last.is_none_or(|(last, _)| last != made) {
            self.last = Some((made, now.mono));
        }
    }

    /// When it was last seen that somebody makes them.
    pub fn seen(&self) -> Option<Wall> {
        self.seen
    }
}

fn goes_on(made: i64, last: i64, apart: Duration) -> bool {
    let apart_ms = i64::try_from(apart.as_millis()).unwrap_or(i64::MAX);
    let stamps_ms = made.saturating_sub(last);
    let jitter_ms = i64::try_from(JITTER.as_millis()).unwrap_or(i64::MAX);
    stamps_ms > 0 && apart <= APART && stamps_ms.saturating_sub(apart_ms).abs() <= jitter_ms
}

#[cfg(test)]
mod tests {
    use super::super::stamp::from_unix_ms;
    use super::*;

    fn now(seconds: i64) -> Now {
        Now { mono: Mono::from_secs(seconds.cast_unsigned()), wall: Wall::from_millis(seconds * 1_000) }
    }

    /// Initiations by (arrival in s, stamp in s): when the last sign was seen.
    fn seen(initiations: &[(i64, i64)]) -> Option<i64> {
        let mut sign = Sign::default();
        for (came, made) in initiations {
            sign.note(from_unix_ms(made * 1_000), now(*came));
        }
        sign.seen().map(|at| at.as_millis() / 1_000)
    }

    #[test]
    fn stamps_that_go_on_as_time_does_are_a_sign_whatever_they_show() {
        assert_eq!(seen(&[(100, -900), (105, -895)]), Some(105));
        assert_eq!(seen(&[(100, 7), (105, 14), (125, 32)]), Some(125), "slow links");
        assert_eq!(seen(&[(100, 7)]), None, "one says nothing");
    }

    #[test]
    fn what_is_captured_and_sent_again_is_none() {
        assert_eq!(seen(&[(100, 7), (103, 7), (280, 7), (460, 7)]), None, "one stamp");
        assert_eq!(seen(&[(100, 7), (180, 12)]), None, "two of an earlier day, at another pace");
        assert_eq!(seen(&[(100, 12), (105, 7)]), None, "backwards");
        assert_eq!(seen(&[(100, 7), (400, 307)]), None, "too long ago to be of now");
    }

    #[test]
    fn a_clock_that_jumps_again_is_seen_by_the_next_two_attempts() {
        assert_eq!(seen(&[(100, 100), (105, 5), (110, 10)]), Some(110));
    }
}
