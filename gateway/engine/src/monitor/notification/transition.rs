//! Decides the next notification by comparing the current state with the last one notified.
//!
//! Soft states are never notified. This module knows no reasons for suppression, no schedule and no
//! receivers. The last notified state is persisted with the check state, so that a restart repeats
//! nothing.

use crate::messages::MessageKind;

use crate::monitor::state::{Level, Track};

/// The last state that was notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastNotified<S> {
    /// No problem is open for the receivers.
    Nothing,
    Problem(S),
    Flapping,
}

impl<S: Level> LastNotified<S> {
    /// Returns the last notified state; `GOOD` if no problem is open.
    pub fn state(self) -> S {
        self.problem().unwrap_or(S::GOOD)
    }

    pub fn problem(self) -> Option<S> {
        match self {
            LastNotified::Problem(state) => Some(state),
            LastNotified::Nothing | LastNotified::Flapping => None,
        }
    }
}

/// A notification to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<S> {
    pub kind: MessageKind,
    /// The last notified state.
    pub from: S,
    pub to: S,
}

impl<S: Level> Notice<S> {
    /// Creates a notification about the current state.
    pub fn about(kind: MessageKind, state: S) -> Self {
        Notice { kind, from: state, to: state }
    }

    /// Returns the last notified state after this notification is emitted.
    pub fn leaves(&self, before: LastNotified<S>) -> LastNotified<S> {
        match self.kind {
            MessageKind::Problem => LastNotified::Problem(self.to),
            MessageKind::Recovery | MessageKind::FlappingEnd => LastNotified::Nothing,
            MessageKind::FlappingStart => LastNotified::Flapping,
            _ => before,
        }
    }
}

/// Returns the next notification. The end of flapping comes before a problem that remains, so that
/// the problem is notified anew; if all is ok, the end of flapping is the recovery.
pub fn next<S: Level>(told: LastNotified<S>, track: &Track<S>, flapping: bool) -> Option<Notice<S>> {
    let kind = match (told, flapping) {
        (LastNotified::Flapping, true) => return None,
        (_, true) => MessageKind::FlappingStart,
        (LastNotified::Flapping, false) => MessageKind::FlappingEnd,
        _ if track.is_soft() || track.hard == S::PENDING => return None,
        (LastNotified::Problem(state), false) if state == track.hard => return None,
        (_, false) if track.hard.is_problem() => MessageKind::Problem,
        (LastNotified::Problem(_), false) => MessageKind::Recovery,
        (LastNotified::Nothing, false) => return None,
    };
    let to = if flapping { track.status } else { track.hard };
    Some(Notice { kind, from: told.state(), to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageKind::{FlappingEnd, FlappingStart, Problem, Recovery};
    use fleetgate_probes::sample::Status;

    const OK: Option<Status> = Some(Status::Ok);
    const WARNING: Option<Status> = Some(Status::Warning);
    const CRITICAL: Option<Status> = Some(Status::Critical);

    type Emitted = (MessageKind, Option<Status>, Option<Status>);

    /// Applies results with two attempts and collects the notifications. `false`: notifications are
    /// suppressed.
    fn told(results: &[(Option<Status>, bool)]) -> Vec<Emitted> {
        let (mut track, mut last, mut told) = (Track::pending(), LastNotified::Nothing, Vec::new());
        for (result, aloud) in results {
            track.apply(*result, 2);
            if let Some(notice) = next(last, &track, false).filter(|_| *aloud) {
                last = notice.leaves(last);
                told.push((notice.kind, notice.from, notice.to));
            }
        }
        told
    }

    fn aloud(results: &[Option<Status>]) -> Vec<Emitted> {
        told(&results.iter().map(|r| (*r, true)).collect::<Vec<_>>())
    }

    #[test]
    fn soft_failures_and_first_ok_results_are_not_notified() {
        assert_eq!(aloud(&[OK, CRITICAL, OK, WARNING, OK]), []);
    }

    #[test]
    fn a_hard_problem_and_its_recovery_are_notified_once() {
        let expected = [(Problem, OK, CRITICAL), (Recovery, CRITICAL, OK)];
        assert_eq!(aloud(&[OK, CRITICAL, CRITICAL, CRITICAL, OK, OK]), expected);
    }

    #[test]
    fn a_change_between_hard_problems_is_notified_also_if_it_is_an_improvement() {
        let expected = [(Problem, OK, WARNING), (Problem, WARNING, CRITICAL), (Problem, CRITICAL, WARNING)];
        assert_eq!(aloud(&[WARNING, WARNING, CRITICAL, WARNING]), expected);
    }

    #[test]
    fn a_recovery_is_notified_only_if_the_problem_was() {
        let silent = [(CRITICAL, false), (CRITICAL, false), (OK, true)];
        assert_eq!(told(&silent), []);
        let outlived = [(CRITICAL, false), (CRITICAL, false), (CRITICAL, true), (OK, true)];
        assert_eq!(told(&outlived), [(Problem, OK, CRITICAL), (Recovery, CRITICAL, OK)]);
        let recovered_inside = [(CRITICAL, true), (CRITICAL, true), (OK, false), (OK, true)];
        assert_eq!(told(&recovered_inside), [(Problem, OK, CRITICAL), (Recovery, CRITICAL, OK)]);
        let ok_and_back =
            [(CRITICAL, true), (CRITICAL, true), (OK, false), (CRITICAL, false), (CRITICAL, true)];
        assert_eq!(told(&ok_and_back), [(Problem, OK, CRITICAL)]);
    }

    #[test]
    fn flapping_replaces_other_notifications_and_its_end_notifies_the_remaining_state() {
        let mut track = Track::pending();
        track.apply(CRITICAL, 1);
        let kinds =
            |told, track: &Track<Option<Status>>, flapping| next(told, track, flapping).map(|n| n.kind);
        assert_eq!(kinds(LastNotified::Nothing, &track, true), Some(FlappingStart));
        assert_eq!(kinds(LastNotified::Problem(WARNING), &track, true), Some(FlappingStart));
        assert_eq!(kinds(LastNotified::Flapping, &track, true), None);
        let end = next(LastNotified::Flapping, &track, false).unwrap();
        assert_eq!((end.kind, end.leaves(LastNotified::Flapping)), (FlappingEnd, LastNotified::Nothing));
        assert_eq!(kinds(LastNotified::Nothing, &track, false), Some(Problem));
        track.apply(OK, 1);
        assert_eq!(kinds(LastNotified::Flapping, &track, false), Some(FlappingEnd));
        assert_eq!(kinds(LastNotified::Nothing, &track, false), None);
    }
}
