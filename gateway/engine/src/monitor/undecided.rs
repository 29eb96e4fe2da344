//! A failed check that waits while witnesses show whether the gateway is the cause.
//!
//! Its result is evaluated once that is known, and no attempt is lost. Packets may come meanwhile,
//! so its evidence is read again. This module knows no other probes.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::HostStatus;

use super::host::Host;
use super::liveness::Verdict;
use super::turn::Turn;

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

impl Host {
    pub(super) fn leave_undecided(&mut self, text: String, now: Mono) {
        self.silent_since = self.silent_since.or(Some(now));
        self.undecided = Some(Undecided { text, looked: now });
    }

    pub(super) fn looks_whether_decided(&self, now: Mono) -> Option<Mono> {
        self.undecided.as_ref().map(|_| now + PACE)
    }

    /// Evaluates the check once it is decided. Packets may have come while it waited, so the
    /// evidence is read once more before that. It is also read now and then meanwhile, because a
    /// packet ends the doubt.
    pub(super) fn decide(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let waits = self.waits_for_witnesses(turn);
        let Some(found) = self.undecided.take_if(|found| !waits || now >= found.looked + LOOK_AGAIN) else {
            return;
        };
        let look = self.check.as_mut().and_then(|check| check.look_once_more(now));
        match look {
            Some(next) => self.step(next, turn),
            None => self.finish(Verdict::Dead { text: found.text }, turn),
        }
    }

    /// Whether the result must wait for the witnesses, which soon show whether the gateway is cut
    /// off. No attempt is lost.
    pub(super) fn waits_for_witnesses(&self, turn: &Turn<'_>) -> bool {
        let counts = !self.is_only_told_of() && !self.never_came() && !self.may_sleep(turn.now.mono);
        counts && self.track.hard != HostStatus::Down && turn.asks_witnesses()
    }
}
