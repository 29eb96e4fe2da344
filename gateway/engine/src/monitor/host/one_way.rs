//! One-way loss: the packets of a host arrive, but packets to it are lost.
//!
//! A single lost reply is no such loss. As many checks without reply as make a state hard must
//! follow each other, and a packet must arrive after the first of them. This module knows no states.

use std::time::Duration;

use crate::messages::{ATTEMPTS, Timing};
use crate::time::Mono;

use crate::monitor::host::alive::{EVIDENCE, Reply};

/// Checks in a row whose probes got no reply, while packets prove that the host is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailedAttempts {
    since: Mono,
    /// The last check that counts. One that follows another at once, on request, proves no more.
    last: Mono,
    checks: u32,
}

#[derive(Debug, Default)]
pub struct OneWay {
    failed: Option<FailedAttempts>,
    /// There were enough checks without reply.
    found: bool,
}

impl OneWay {
    pub fn restored(found: bool, attempts: u32) -> OneWay {
        let failed = FailedAttempts { since: Mono::ZERO, last: Mono::ZERO, checks: attempts };
        OneWay { failed: found.then_some(failed), found }
    }

    /// Records whether a check got a reply. `packet`: the proof that the host is up, by its
    /// `source`; `begun`: the start of the check.
    pub fn note_reply(&mut self, (source, reply): (&str, Reply), packet: Mono, begun: Mono, timing: &Timing) {
        match (source, reply) {
            (EVIDENCE, Reply::NotAsked) => {}
            // Its handshakes prove that it is up, as its packets did, but they are no reply to a
            // probe.
            (ATTEMPTS, _) => {}
            (EVIDENCE, Reply::Missing) => self.count(begun, timing),
            _ => self.failed = None,
        }
        let often = self.failed.is_some_and(|f| f.checks >= timing.attempts && packet >= f.since);
        self.found = often && source == EVIDENCE;
    }

    fn count(&mut self, begun: Mono, timing: &Timing) {
        let apart = (timing.retry / 2).max(Duration::from_millis(1));
        let failed = self.failed.get_or_insert(FailedAttempts { since: begun, last: begun, checks: 1 });
        if begun.since(failed.last) >= apart {
            (failed.last, failed.checks) = (begun, failed.checks.saturating_add(1));
        }
    }

    /// Ends the series, because the host is down, or its packets came under another key.
    pub fn end_series(&mut self) {
        self.failed = None;
    }

    pub fn clear(&mut self) {
        *self = OneWay::default();
    }

    /// Returns the start of the series, while there is one.
    pub fn since(&self) -> Option<Mono> {
        self.failed.map(|failed| failed.since)
    }

    pub fn is_suspected(&self) -> bool {
        self.failed.is_some()
    }

    pub fn is_found(&self) -> bool {
        self.found
    }

    /// Returns the number of checks without reply that no proof followed. They were failures; they
    /// only waited for a packet that might have come.
    pub fn missed(&self, good_at: Option<Mono>) -> u32 {
        let missed = self.failed.filter(|failed| good_at < Some(failed.since));
        missed.map_or(0, |failed| failed.checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { attempts: 3, ..Timing::DEFAULT };

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    #[test]
    fn as_many_checks_without_reply_as_make_a_state_hard_are_a_loss() {
        let mut one_way = OneWay::default();
        for (begun, found) in [(100, false), (110, false), (111, false), (120, true)] {
            one_way.note_reply((EVIDENCE, Reply::Missing), at(begun), at(begun), &TIMING);
            assert_eq!(one_way.is_found(), found, "{begun}: a check just after another is none");
        }
        assert_eq!((one_way.missed(Some(at(99))), one_way.missed(Some(at(100)))), (3, 0));
        one_way.note_reply(("echo", Reply::Given), at(130), at(130), &TIMING);
        assert!(!one_way.is_found() && !one_way.is_suspected());
    }

    #[test]
    fn handshakes_of_the_host_neither_count_nor_end_the_series() {
        let mut one_way = OneWay::restored(true, 3);
        one_way.note_reply((ATTEMPTS, Reply::Missing), at(100), at(100), &TIMING);
        assert!(one_way.is_suspected() && !one_way.is_found());
        one_way.note_reply((EVIDENCE, Reply::NotAsked), at(110), at(110), &TIMING);
        assert!(one_way.is_found());
    }
}
