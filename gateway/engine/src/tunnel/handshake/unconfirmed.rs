//! The answered handshakes of a peer that are not proved yet.
//!
//! Our response may be lost on its way. Only a packet of the session that the response made shows
//! that the peer received it; a packet of an older session shows nothing about the handshake. This
//! module does not know about peers.

use std::time::Duration;

use crate::time::{ClockStep, Mono};

/// The newest answered initiations that are kept per peer. A client repeats its initiation every 5
/// seconds, so a packet that is three responses late is 15 seconds late.
const KEPT: usize = 4;

/// One answered initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Our index of the session that the response made. The packets of that session carry it.
    pub index: u32,
    pub at: Mono,
    /// Device clock minus ours, in milliseconds.
    pub skew_ms: i64,
}

/// The unproved handshakes of one session object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unproved {
    /// Oldest first.
    answers: Vec<Answered>,
    awaited: bool,
}

impl Unproved {
    pub fn add(&mut self, answered: Answered) {
        if self.answers.len() == KEPT {
            self.answers.remove(0);
        }
        self.answers.push(answered);
        self.awaited = true;
    }

    /// Takes the index of an authentic packet. `Some`: the packet is the first of its session and
    /// proves that handshake. Older handshakes are dropped with it, as the peer has dropped them.
    pub fn prove(&mut self, index: u32) -> Option<Answered> {
        let place = self.answers.iter().position(|answered| answered.index == index)?;
        self.answers.drain(..=place).next_back()
    }

    /// Adjusts the skews after our wall clock was set, because they are measured against it.
    pub fn mind_step(&mut self, step: ClockStep) {
        for answered in &mut self.answers {
            answered.skew_ms = answered.skew_ms.saturating_sub(step.ahead_ms());
        }
    }

    /// Returns when the last initiation was answered, while its proof is awaited.
    pub fn awaited(&self) -> Option<Mono> {
        self.answers.last().filter(|_| self.awaited).map(|answered| answered.at)
    }

    /// Stops waiting for a proof after `within`. A proof that comes later still counts.
    pub fn wait_until(&mut self, within: Duration, now: Mono) {
        self.awaited &= self.answers.last().is_some_and(|answered| now.since(answered.at) < within);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Now, Wall};

    fn unproved(indices: &[u32]) -> Unproved {
        let mut unproved = Unproved::default();
        for index in indices {
            unproved.add(Answered { index: *index, at: Mono::from_secs(u64::from(*index)), skew_ms: 0 });
        }
        unproved
    }

    #[test]
    fn a_packet_of_another_session_proves_nothing() {
        let mut unproved = unproved(&[1, 2]);
        assert_eq!(unproved.prove(9), None);
        assert_eq!(unproved.awaited(), Some(Mono::from_secs(2)));
    }

    #[test]
    fn a_packet_proves_its_own_session_once_and_ends_the_older_ones() {
        let mut unproved = unproved(&[1, 2, 3]);
        assert_eq!(unproved.prove(2).map(|answered| answered.index), Some(2));
        assert_eq!((unproved.prove(2), unproved.prove(1)), (None, None));
        assert_eq!(unproved.prove(3).map(|answered| answered.index), Some(3));
        assert_eq!(unproved.awaited(), None);
    }

    #[test]
    fn a_late_packet_of_an_earlier_answer_leaves_the_newer_one_unproved() {
        let mut unproved = unproved(&[1, 2]);
        assert!(unproved.prove(1).is_some());
        assert_eq!(unproved.awaited(), Some(Mono::from_secs(2)));
    }

    #[test]
    fn the_newest_answers_are_kept() {
        let mut unproved = unproved(&[1, 2, 3, 4, 5]);
        assert_eq!(unproved.answers.len(), KEPT);
        assert_eq!(unproved.prove(1), None);
    }

    #[test]
    fn a_handshake_proved_after_a_clock_step_reports_the_new_time() {
        let now = |mono_s, wall_s: i64| Now {
            mono: Mono::from_secs(mono_s),
            wall: Wall::from_millis(wall_s * 1_000),
        };
        let mut unproved = unproved(&[1]);
        unproved.mind_step(ClockStep::between(now(1, 5_000), now(2, 1_401)).expect("an hour back"));
        assert_eq!(unproved.prove(1).map(|answered| answered.skew_ms), Some(3_600_000));
    }

    #[test]
    fn a_proof_counts_after_its_wait_has_ended() {
        let mut unproved = unproved(&[1]);
        unproved.wait_until(Duration::from_secs(30), Mono::from_secs(30));
        assert!(unproved.awaited().is_some());
        unproved.wait_until(Duration::from_secs(30), Mono::from_secs(31));
        assert_eq!(unproved.awaited(), None);
        assert!(unproved.prove(1).is_some());
    }
}
