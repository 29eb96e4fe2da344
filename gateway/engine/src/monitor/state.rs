//! The state machine of a checkable: attempts, soft and hard states (SEMANTICS 4).
//!
//! Hosts and services share the same table. It works on pure values, and knows no clock, schedule
//! or notifications.

use fleetgate_probes::sample::Status;

use crate::messages::{HostStatus, StateType};
use crate::time::Wall;

/// A status on a scale from good to bad. Pending behaves like good.
pub trait Level: Copy + PartialEq {
    const PENDING: Self;
    const GOOD: Self;

    fn is_problem(self) -> bool;

    /// The lower-case name used in events and messages.
    fn name(self) -> &'static str;

    /// The exit code of a plugin with this status; pending counts as ok.
    fn code(self) -> u8;
}

impl Level for HostStatus {
    const PENDING: Self = HostStatus::Pending;
    const GOOD: Self = HostStatus::Up;

    fn is_problem(self) -> bool {
        self == HostStatus::Down
    }

    fn name(self) -> &'static str {
        HostStatus::name(self)
    }

    fn code(self) -> u8 {
        if self.is_problem() { Status::Critical.exit_code() } else { Status::Ok.exit_code() }
    }
}

impl Level for Option<Status> {
    const PENDING: Self = None;
    const GOOD: Self = Some(Status::Ok);

    fn is_problem(self) -> bool {
        self.is_some_and(|s| s != Status::Ok)
    }

    fn name(self) -> &'static str {
        self.map_or("pending", Status::name)
    }

    fn code(self) -> u8 {
        self.unwrap_or(Status::Ok).exit_code()
    }
}

/// The state of a checkable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track<S> {
    pub status: S,
    pub kind: StateType,
    /// The attempt of the failure that is shown; 1 while good.
    pub attempt: u32,
    /// The hard status, also while a soft one is shown.
    pub hard: S,
}

/// A visible change, for the event log. It is between hard states if the hard state changed,
/// because a failure that turns hard was shown as soft before. Otherwise it is between the shown
/// states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<S> {
    pub from: S,
    pub to: S,
    /// Whether the hard status changed. A soft failure that recovers does not change it.
    pub hard: bool,
}

impl<S: Level> Track<S> {
    pub fn pending() -> Self {
        Track { status: S::PENDING, kind: StateType::Hard, attempt: 1, hard: S::PENDING }
    }

    pub fn is_soft(&self) -> bool {
        self.kind == StateType::Soft
    }

    /// Applies one result; `attempts` is the number of failures in a row that makes a state hard.
    pub fn apply(&mut self, result: S, attempts: u32) -> Option<Change<S>> {
        self.apply_row(result, 1, attempts)
    }

    /// Applies the same result several times in a row, as one change. More than `attempts` have no
    /// further effect.
    pub fn apply_row(&mut self, result: S, times: u32, attempts: u32) -> Option<Change<S>> {
        let before = *self;
        for _ in 0..times.min(attempts.max(1)) {
            *self =
                if result.is_problem() { self.failed(result, attempts.max(1)) } else { Track::good(result) };
        }
        let hard = before.hard != self.hard;
        let from = if hard { before.hard } else { before.status };
        (hard || before.status != self.status).then_some(Change { from, to: self.status, hard })
    }

    /// Changes to `status` without counting attempts: no further check can change the result.
    pub fn settle(&mut self, status: S, attempts: u32) -> Option<Change<S>> {
        self.kind = StateType::Hard;
        self.attempt = attempts;
        let before = std::mem::replace(&mut self.hard, status);
        let shown = std::mem::replace(&mut self.status, status);
        let hard = before != status;
        let from = if hard { before } else { shown };
        (hard || shown != status).then_some(Change { from, to: status, hard })
    }

    /// Counts the failures of a soft state anew, because the time between them was not observed.
    pub fn forgive(&mut self) {
        if self.is_soft() {
            self.attempt = 0;
        }
    }

    fn good(status: S) -> Self {
        Track { status, kind: StateType::Hard, attempt: 1, hard: status }
    }

    fn failed(self, status: S, attempts: u32) -> Self {
        let attempt = match (self.status.is_problem(), self.kind) {
            (false, _) => 1,
            (true, StateType::Soft) => self.attempt.saturating_add(1).min(attempts),
            (true, StateType::Hard) => attempts,
        };
        if attempt >= attempts {
            Track { status, kind: StateType::Hard, attempt, hard: status }
        } else {
            Track { status, kind: StateType::Soft, attempt, hard: self.hard }
        }
    }
}

/// Since when a checkable has its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The status that is shown, soft or hard.
    pub status: Wall,
    /// The hard status. A problem began with its first failure, not with the one that made it hard.
    pub hard: Wall,
}

impl Since {
    pub fn both(at: Wall) -> Since {
        Since { status: at, hard: at }
    }

    /// Records a result; `changed`: it changed the status that is shown.
    pub fn note<S>(&mut self, changed: bool, change: Option<&Change<S>>, now: Wall) {
        self.status = if changed { now } else { self.status };
        self.hard = if change.is_some_and(|change| change.hard) { self.status } else { self.hard };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StateType::{Hard, Soft};
    use proptest::prelude::*;

    const OK: Option<Status> = Some(Status::Ok);
    const WARNING: Option<Status> = Some(Status::Warning);
    const CRITICAL: Option<Status> = Some(Status::Critical);
    const UNKNOWN: Option<Status> = Some(Status::Unknown);

    type Row<S> = (S, StateType, u32, S);

    /// Applies results to a pending checkable and compares the shown state after each.
    fn runs<S: Level + std::fmt::Debug>(attempts: u32, table: &[(S, Row<S>)]) {
        let mut track = Track::pending();
        for (step, (result, (status, kind, attempt, hard))) in table.iter().enumerate() {
            track.apply(*result, attempts);
            let expected = Track { status: *status, kind: *kind, attempt: *attempt, hard: *hard };
            assert_eq!(track, expected, "step {step} of {table:?}");
        }
    }

    #[test]
    fn a_soft_failure_does_not_change_since_when_the_hard_state_lasts() {
        let mut track = Track::pending();
        let mut since = Since::both(Wall::from_millis(0));
        let mut see = |result, at| {
            let before = track.status;
            let change = track.apply(result, 3);
            since.note(before != track.status, change.as_ref(), Wall::from_millis(at));
            (since.status.as_millis(), since.hard.as_millis())
        };
        assert_eq!(see(OK, 10), (10, 10));
        assert_eq!(see(CRITICAL, 20), (20, 10));
        assert_eq!(see(OK, 30), (30, 10), "a soft recovery");
        assert_eq!(see(CRITICAL, 40), (40, 10));
        assert_eq!(see(CRITICAL, 50), (40, 10));
        assert_eq!(see(CRITICAL, 60), (40, 40), "down from its first failure");
        assert_eq!(see(WARNING, 70), (70, 70));
        assert_eq!(see(OK, 80), (80, 80));
    }

    #[test]
    fn an_ok_result_is_always_hard_at_attempt_1() {
        runs(3, &[(OK, (OK, Hard, 1, OK)), (OK, (OK, Hard, 1, OK))]);
    }

    #[test]
    fn three_failures_make_it_hard_and_it_stays_at_the_last_attempt() {
        runs(
            3,
            &[
                (OK, (OK, Hard, 1, OK)),
                (CRITICAL, (CRITICAL, Soft, 1, OK)),
                (CRITICAL, (CRITICAL, Soft, 2, OK)),
                (CRITICAL, (CRITICAL, Hard, 3, CRITICAL)),
                (CRITICAL, (CRITICAL, Hard, 3, CRITICAL)),
                (OK, (OK, Hard, 1, OK)),
            ],
        );
    }

    #[test]
    fn another_code_while_soft_does_not_restart_the_count() {
        runs(
            3,
            &[
                (WARNING, (WARNING, Soft, 1, None)),
                (CRITICAL, (CRITICAL, Soft, 2, None)),
                (UNKNOWN, (UNKNOWN, Hard, 3, UNKNOWN)),
            ],
        );
    }

    #[test]
    fn another_problem_while_hard_is_hard_at_once() {
        runs(
            2,
            &[
                (WARNING, (WARNING, Soft, 1, None)),
                (WARNING, (WARNING, Hard, 2, WARNING)),
                (CRITICAL, (CRITICAL, Hard, 2, CRITICAL)),
                (WARNING, (WARNING, Hard, 2, WARNING)),
            ],
        );
    }

    #[test]
    fn a_soft_failure_that_is_over_resets_the_count() {
        runs(
            3,
            &[
                (OK, (OK, Hard, 1, OK)),
                (CRITICAL, (CRITICAL, Soft, 1, OK)),
                (CRITICAL, (CRITICAL, Soft, 2, OK)),
                (OK, (OK, Hard, 1, OK)),
                (CRITICAL, (CRITICAL, Soft, 1, OK)),
            ],
        );
    }

    #[test]
    fn with_one_attempt_every_failure_is_hard() {
        runs(1, &[(CRITICAL, (CRITICAL, Hard, 1, CRITICAL)), (OK, (OK, Hard, 1, OK))]);
        runs(0, &[(CRITICAL, (CRITICAL, Hard, 1, CRITICAL))]);
    }

    #[test]
    fn pending_behaves_like_ok() {
        runs(3, &[(CRITICAL, (CRITICAL, Soft, 1, None)), (OK, (OK, Hard, 1, OK))]);
    }

    #[test]
    fn a_soft_host_recovery_is_hard() {
        use HostStatus::{Down, Up};
        runs(
            3,
            &[
                (Up, (Up, Hard, 1, Up)),
                (Down, (Down, Soft, 1, Up)),
                (Up, (Up, Hard, 1, Up)),
                (Down, (Down, Soft, 1, Up)),
                (Down, (Down, Soft, 2, Up)),
                (Down, (Down, Hard, 3, Down)),
                (Up, (Up, Hard, 1, Up)),
            ],
        );
    }

    #[test]
    fn several_failures_applied_at_once_are_one_change() {
        let mut track = Track::pending();
        track.apply(OK, 3);
        let change = track.apply_row(CRITICAL, 2, 3).map(|c| (c.from, c.to, c.hard));
        assert_eq!((change, track.attempt, track.kind), (Some((OK, CRITICAL, false)), 2, Soft));
        let change = track.apply_row(CRITICAL, 9, 3).map(|c| (c.from, c.to, c.hard));
        assert_eq!((change, track.attempt, track.kind), (Some((OK, CRITICAL, true)), 3, Hard));
    }

    #[test]
    fn a_change_names_the_state_before_and_after() {
        let mut track = Track::pending();
        let mut changes = |result| track.apply(result, 2).map(|c| (c.from, c.to, c.hard));
        assert_eq!(changes(OK), Some((None, OK, true)));
        assert_eq!(changes(OK), None);
        assert_eq!(changes(WARNING), Some((OK, WARNING, false)));
        assert_eq!(changes(WARNING), Some((OK, WARNING, true)));
        assert_eq!(changes(WARNING), None);
        assert_eq!(changes(CRITICAL), Some((WARNING, CRITICAL, true)));
        assert_eq!(changes(OK), Some((CRITICAL, OK, true)));
        assert_eq!(changes(CRITICAL), Some((OK, CRITICAL, false)));
        assert_eq!(changes(OK), Some((CRITICAL, OK, false)));
    }

    #[test]
    fn forgiven_failures_count_anew_and_a_hard_state_is_not_forgiven() {
        let mut track = Track::pending();
        track.apply(CRITICAL, 3);
        track.apply(CRITICAL, 3);
        track.forgive();
        track.apply(CRITICAL, 3);
        assert_eq!((track.kind, track.attempt), (Soft, 1));
        track.apply(CRITICAL, 3);
        track.apply(CRITICAL, 3);
        track.forgive();
        assert_eq!((track.kind, track.attempt), (Hard, 3));
    }

    #[test]
    fn fewer_attempts_in_a_changed_spec_take_effect_with_the_next_failure() {
        let mut track = Track::pending();
        track.apply(CRITICAL, 5);
        track.apply(CRITICAL, 5);
        track.apply(CRITICAL, 2);
        assert_eq!((track.kind, track.attempt, track.hard), (Hard, 2, CRITICAL));
    }

    proptest! {
        #[test]
        fn hard_follows_exactly_the_last_run_of_failures(
            results in prop::collection::vec(prop::sample::select(vec![OK, WARNING, CRITICAL, UNKNOWN]), 1..60),
            attempts in 1u32..6,
        ) {
            let mut track = Track::pending();
            let mut hard = None;
            let mut failures = 0u32;
            for result in results {
                let before = track;
                let change = track.apply(result, attempts);
                failures = if result == OK { 0 } else { failures + 1 };
                let was_hard_problem = Level::is_problem(hard);
                if result == OK || was_hard_problem || failures >= attempts {
                    hard = result;
                }
                prop_assert_eq!(track.hard, hard);
                prop_assert_eq!(track.status, result);
                prop_assert_eq!(track.kind == Hard, hard == result);
                prop_assert_eq!(track.attempt, failures.clamp(1, attempts));
                prop_assert_eq!(change.is_some(), before.status != track.status || before.hard != track.hard);
            }
        }
    }
}
