//! When somebody is to be told: hard problems and hard recoveries, measured against what was told
//! last.
//!
//! Knows no schedule and no receiver. What was told is persisted with the state, so that a restart
//! repeats nothing.

use crate::wire::MessageKind;

use super::status::{Level, Track};

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<S> {
    pub problem: bool,
    /// What was told last; good where nothing is to be taken back.
    pub from: S,
    pub to: S,
}

/// Compares a hard state with the last one that was told. `silenced`: a host that is hard down
/// speaks for its services; what is still true afterwards is told then.
pub fn due<S: Level>(track: &Track<S>, notified: Option<S>, silenced: bool) -> Option<Notice<S>> {
    if silenced || track.is_soft() || track.hard == S::PENDING {
        return None;
    }
    let problem = track.hard.is_problem();
    let news = if problem { notified != Some(track.hard) } else { notified.is_some() };
    news.then(|| Notice { problem, from: notified.unwrap_or(S::GOOD), to: track.hard })
}

impl<S> Notice<S> {
    pub const fn kind(&self) -> MessageKind {
        if self.problem { MessageKind::Problem } else { MessageKind::Recovery }
    }
}

/// What is on record as told once `notice` is.
pub fn notified<S: Level>(notice: &Notice<S>) -> Option<S> {
    notice.problem.then_some(notice.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetgate_probes::sample::Status;

    const OK: Option<Status> = Some(Status::Ok);
    const WARNING: Option<Status> = Some(Status::Warning);
    const CRITICAL: Option<Status> = Some(Status::Critical);

    /// Feeds results with two attempts and collects what is told.
    fn told(results: &[(Option<Status>, bool)]) -> Vec<(bool, Option<Status>, Option<Status>)> {
        let (mut track, mut last, mut told) = (Track::pending(), None, Vec::new());
        for (result, silenced) in results {
            track.apply(*result, 2);
            if let Some(notice) = due(&track, last, *silenced) {
                last = notified(&notice);
                told.push((notice.problem, notice.from, notice.to));
            }
        }
        told
    }

    fn aloud(results: &[Option<Status>]) -> Vec<(bool, Option<Status>, Option<Status>)> {
        told(&results.iter().map(|r| (*r, false)).collect::<Vec<_>>())
    }

    #[test]
    fn soft_failures_and_first_results_are_told_to_nobody() {
        assert_eq!(aloud(&[OK, CRITICAL, OK, WARNING, OK]), []);
    }

    #[test]
    fn a_hard_problem_is_told_once_and_its_end_too() {
        let expected = [(true, OK, CRITICAL), (false, CRITICAL, OK)];
        assert_eq!(aloud(&[OK, CRITICAL, CRITICAL, CRITICAL, OK, OK]), expected);
    }

    #[test]
    fn a_change_between_hard_problems_is_told_also_when_it_gets_better() {
        let expected = [(true, OK, WARNING), (true, WARNING, CRITICAL), (true, CRITICAL, WARNING)];
        assert_eq!(aloud(&[WARNING, WARNING, CRITICAL, WARNING]), expected);
    }

    #[test]
    fn a_recovery_is_told_only_if_the_problem_was() {
        let silent = [(CRITICAL, true), (CRITICAL, true), (OK, false)];
        assert_eq!(told(&silent), []);
        let outlived = [(CRITICAL, true), (CRITICAL, true), (CRITICAL, false), (OK, false)];
        assert_eq!(told(&outlived), [(true, OK, CRITICAL), (false, CRITICAL, OK)]);
        let recovered_inside = [(CRITICAL, false), (CRITICAL, false), (OK, true), (OK, false)];
        assert_eq!(told(&recovered_inside), [(true, OK, CRITICAL), (false, CRITICAL, OK)]);
        let ok_and_back =
            [(CRITICAL, false), (CRITICAL, false), (OK, true), (CRITICAL, true), (CRITICAL, false)];
        assert_eq!(told(&ok_and_back), [(true, OK, CRITICAL)]);
    }
}
