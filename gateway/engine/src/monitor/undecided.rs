//! A check that has found nothing while others are asked whether that is the gateway's own doing.
//!
//! What it found is judged once that is known, and no attempt is lost. Packets may come meanwhile: its evidence is
//! read again. Knows no questions but that.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::HostStatus;

use super::host::Host;
use super::liveness::Verdict;
use super::turn::Turn;

/// How often it looks whether that is known by now, which takes a round trip, mostly.
const PACE: Duration = Duration::from_millis(250);

/// How often it reads the evidence again meanwhile. The tunnel tells at once of a packet that comes after 40 s of
/// silence; this is for devices that are asked more often than that.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug)]
pub struct Undecided {
    text: String,
    /// When the evidence was read last.
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

    /// Packets may have come while it waited: the evidence is read once more before it is judged, and now and then
    /// before that, for one that is heard ends the doubt.
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

    /// Whether we are cut off will be known in a moment: what was found is judged then, and no attempt is lost.
    pub(super) fn waits_for_witnesses(&self, turn: &Turn<'_>) -> bool {
        let counts = !self.is_only_told_of() && !self.never_came() && !self.may_sleep(turn.now.mono);
        counts && self.track.hard != HostStatus::Down && turn.asks_witnesses()
    }
}
