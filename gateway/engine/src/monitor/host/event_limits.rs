//! Limits on the events that a device or the network can cause at will, so that they cannot flood
//! the log.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use crate::messages::Refusal;
use crate::time::Mono;

/// The minimum time between two recorded endpoint changes: a mobile link behind a busy NAT may
/// change every minute.
const MOVE_GAP: Duration = Duration::from_secs(60);
/// The minimum time before the same refusal is recorded again: a device with a wrong clock tries
/// every five seconds for days.
const REFUSAL_GAP: Duration = Duration::from_secs(3600);
/// The minimum time before a different refusal is recorded.
const OTHER_REFUSAL_GAP: Duration = Duration::from_secs(60);

/// The last events of a host in the log.
#[derive(Debug, Default)]
pub struct EventLimits {
    moved: Option<Mono>,
    refused: Option<(Mono, Discriminant<Refusal>)>,
}

impl EventLimits {
    /// Whether a move of the endpoint is to be recorded now. If so, it counts as recorded.
    pub fn admits_move(&mut self, now: Mono) -> bool {
        let admits = self.moved.is_none_or(|at| now.since(at) >= MOVE_GAP);
        if admits {
            self.moved = Some(now);
        }
        admits
    }

    /// Whether a refused handshake is to be recorded now. If so, it counts as recorded.
    pub fn admits_refusal(&mut self, refusal: &Refusal, now: Mono) -> bool {
        let kind = discriminant(refusal);
        let gap = |last| if last == kind { REFUSAL_GAP } else { OTHER_REFUSAL_GAP };
        let admits = self.refused.is_none_or(|(at, last)| now.since(at) >= gap(last));
        if admits {
            self.refused = Some((now, kind));
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_refusal_is_recorded_once_an_hour_and_another_after_a_minute() {
        let mut limits = EventLimits::default();
        let mut admits = |refusal, secs| limits.admits_refusal(&refusal, Mono::from_secs(secs));
        assert!(admits(Refusal::RateLimited, 10_000));
        assert!(!admits(Refusal::RateLimited, 13_599));
        assert!(!admits(Refusal::Crypto, 10_059));
        assert!(admits(Refusal::Crypto, 10_060));
        assert!(admits(Refusal::RateLimited, 13_660));
    }
}
