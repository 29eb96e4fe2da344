//! The times at which a host was proved up, failed, or was silent.
//!
//! A proof is never older than an earlier one of its kind. The start of a silence stays until the
//! host is proved up. This module knows no checks and decides nothing.

use crate::messages::{HostState, is_through_tunnel};
use crate::monitor::state::Level;
use crate::time::{Mono, Now, Wall};

#[derive(Debug)]
pub struct Proofs {
    /// The time of its last reply to a probe.
    answered_at: Option<Mono>,
    /// The newest proof that it is up, which may be a passive result.
    good_at: Option<Mono>,
    /// The newest proof that the host itself gave.
    proved_at: Option<Mono>,
    /// The same on the wall clock, as it is shown.
    last_alive: Option<Wall>,
    /// The time of the last reply to a packet that was sent through its tunnel. A packet that
    /// merely arrives proves one direction.
    carried_at: Option<Mono>,
    failed_at: Option<Mono>,
    /// The start of the first check since the host last replied.
    unanswered_since: Option<Wall>,
    /// The first silent check in this series, counted or not, in this run of the gateway.
    silent_since: Option<Mono>,
    /// The time from which silence counts; before that the gateway did not watch.
    watched_from: Mono,
}

impl Proofs {
    pub fn none(now: Mono) -> Proofs {
        Proofs {
            answered_at: None,
            good_at: None,
            proved_at: None,
            last_alive: None,
            carried_at: None,
            failed_at: None,
            unanswered_since: None,
            silent_since: None,
            watched_from: now,
        }
    }

    /// `away`: the gateway was down for so long that silence meanwhile does not count.
    pub fn restored(state: &HostState, away: bool, now: Now) -> Proofs {
        let last = state.last_check.map(|at| now.mono_at(at));
        let (failed_at, good_at) = if state.status.is_problem() { (last, None) } else { (None, last) };
        Proofs {
            good_at,
            proved_at: state.last_alive.map(|at| now.mono_at(at)),
            last_alive: state.last_alive,
            carried_at: good_at.filter(|_| is_through_tunnel(&state.source)),
            failed_at,
            unanswered_since: state.silent_since,
            watched_from: last.filter(|_| !away).unwrap_or(now.mono),
            ..Proofs::none(now.mono)
        }
    }

    /// Records that the host replied to a probe.
    pub fn note_reply(&mut self, now: Mono) {
        self.answered_at = self.answered_at.max(Some(now));
    }

    /// Records that the host is up, by its own proof or by a passive result.
    pub fn note_good(&mut self, proof: Mono) {
        self.good_at = self.good_at.max(Some(proof));
    }

    /// Records that the host itself proved that it is up.
    pub fn note_alive(&mut self, proof: Mono, now: Now) {
        self.proved_at = self.proved_at.max(Some(proof));
        self.unanswered_since = None;
        self.last_alive = self.last_alive.filter(|at| *at <= now.wall).max(Some(now.wall_at(proof)));
    }

    /// Records the time of a reply through its tunnel.
    pub fn note_carried(&mut self, answer: Option<Mono>) {
        self.carried_at = self.carried_at.max(answer);
    }

    pub fn note_failed(&mut self, now: Mono) {
        self.failed_at = Some(now);
    }

    /// Records the start of its silence: the first probe of this series without a reply, not the
    /// time of the finding.
    pub fn note_unanswered(&mut self, began: Option<Wall>) {
        self.unanswered_since = self.unanswered_since.or(began);
    }

    /// Records a silent check, whether it counts or not.
    pub fn note_silent(&mut self, now: Mono) {
        self.silent_since = self.silent_since.or(Some(now));
    }

    pub fn end_silence(&mut self) {
        self.silent_since = None;
    }

    /// Counts silence from now on, because the gateway did not watch before.
    pub fn watch_from(&mut self, now: Mono) {
        self.watched_from = now;
    }

    /// Returns the time from which its silence counts.
    pub fn silent_from(&self) -> Mono {
        self.good_at.unwrap_or(self.watched_from).max(self.watched_from)
    }

    /// Whether the host sends no packets on its own, as far as is known, so that each check costs a
    /// probe.
    pub fn only_answers(&self) -> bool {
        self.answered_at.is_some_and(|at| self.proved_at <= Some(at))
    }

    /// Whether the host itself proved at that time or later that it was up.
    pub fn is_proved_since(&self, since: Mono) -> bool {
        self.proved_at.is_some_and(|at| at >= since)
    }

    pub fn good_at(&self) -> Option<Mono> {
        self.good_at
    }

    pub fn proved_at(&self) -> Option<Mono> {
        self.proved_at
    }

    pub fn carried_at(&self) -> Option<Mono> {
        self.carried_at
    }

    pub fn failed_at(&self) -> Option<Mono> {
        self.failed_at
    }

    pub fn silent_since(&self) -> Option<Mono> {
        self.silent_since
    }

    pub fn unanswered_since(&self) -> Option<Wall> {
        self.unanswered_since
    }

    pub fn last_alive(&self) -> Option<Wall> {
        self.last_alive
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Wall::from_millis(secs as i64 * 1_000) }
    }

    #[test]
    fn a_late_reply_does_not_replace_a_newer_proof() {
        let mut proofs = Proofs::none(at(100).mono);
        proofs.note_alive(at(120).mono, at(121));
        proofs.note_alive(at(110).mono, at(122));
        assert_eq!((proofs.proved_at(), proofs.last_alive()), (Some(at(120).mono), Some(at(120).wall)));
        assert!(proofs.is_proved_since(at(120).mono) && !proofs.is_proved_since(at(121).mono));
    }

    #[test]
    fn a_proof_from_a_clock_that_was_ahead_is_replaced() {
        let mut proofs = Proofs::none(at(100).mono);
        let ahead = Now { wall: at(9_000).wall, ..at(120) };
        proofs.note_alive(at(120).mono, ahead);
        proofs.note_alive(at(130).mono, at(130));
        assert_eq!(proofs.last_alive(), Some(at(130).wall));
    }

    #[test]
    fn silence_counts_from_the_last_proof_or_from_when_the_gateway_watched_again() {
        let mut proofs = Proofs::none(at(100).mono);
        assert_eq!(proofs.silent_from(), at(100).mono);
        proofs.note_good(at(150).mono);
        assert_eq!(proofs.silent_from(), at(150).mono);
        proofs.watch_from(at(400).mono);
        assert_eq!(proofs.silent_from(), at(400).mono);
        proofs.note_silent(at(410).mono);
        proofs.note_silent(at(410).mono + Duration::from_secs(60));
        assert_eq!(proofs.silent_since(), Some(at(410).mono), "the first of the series");
    }
}
