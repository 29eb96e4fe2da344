//! Whether a host can be reached, and whether its failure is its own.
//!
//! While a host fails, a parent, the gateway's uplink or a common failure may be the cause. The
//! doubt begins with the first failure, and ends with an evaluation by the caller. This module knows
//! no other hosts.

use std::time::Duration;

use crate::messages::HostState;
use crate::time::{Mono, Now};

use crate::monitor::state::{Level, Track};

/// The reachability of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reachability {
    pub reachable: bool,
    /// Whether it fails and no parent is known to be up after that, or the gateway's own uplink was
    /// not probed since.
    pub in_doubt: bool,
}

impl Reachability {
    /// The reachability of a host without parents.
    pub const FREE: Reachability = Reachability { reachable: true, in_doubt: false };
}

#[derive(Debug)]
pub struct Reach {
    current: Reachability,
    /// The first failure in this series.
    failing_since: Option<Mono>,
    /// The time of the hard problem. After a restart, the time from which the parents can be
    /// evaluated again.
    hard_since: Option<Mono>,
    /// It failed, and its parents are to be checked.
    wants_parents: bool,
}

/// The circumstances of a result.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// There are parents or an uplink to be checked after a failure.
    pub checks_parents: bool,
    /// Other hosts fail at the same time.
    pub with_others: bool,
}

impl Reach {
    pub fn free() -> Reach {
        Reach { current: Reachability::FREE, failing_since: None, hard_since: None, wants_parents: false }
    }

    /// `interval`: the check interval, after which the parents can be evaluated again.
    pub fn restored(state: &HostState, interval: Duration, now: Now) -> Reach {
        Reach {
            current: Reachability { reachable: state.reachable, in_doubt: false },
            failing_since: state.status.is_problem().then(|| now.mono_at(state.since)),
            hard_since: state.hard.is_problem().then(|| now.mono + interval),
            wants_parents: false,
        }
    }

    /// Records since when it fails, and requests a check of its parents for each failure.
    pub fn note_result<S: Level>(&mut self, track: &Track<S>, of: Circumstances, now: Mono) {
        let failing = track.status.is_problem();
        self.hard_since = self.hard_since.or(Some(now)).filter(|_| track.hard.is_problem());
        self.wants_parents = failing && of.checks_parents;
        if !failing {
            (self.failing_since, self.current.in_doubt) = (None, false);
        } else if self.failing_since.is_none() {
            // A notification in this same moment would be too early.
            (self.failing_since, self.current.in_doubt) = (Some(now), self.wants_parents);
        }
        self.current.in_doubt |= of.with_others && self.hard_since == Some(now);
    }

    /// Sets the reachability and returns the former one.
    pub fn set(&mut self, reach: Reachability) -> Reachability {
        std::mem::replace(&mut self.current, reach)
    }

    pub fn current(&self) -> Reachability {
        self.current
    }

    pub fn is_reachable(&self) -> bool {
        self.current.reachable
    }

    pub fn is_in_doubt(&self) -> bool {
        self.current.in_doubt
    }

    pub fn failing_since(&self) -> Option<Mono> {
        self.failing_since
    }

    pub fn hard_since(&self) -> Option<Mono> {
        self.hard_since
    }

    pub fn take_wants_parents(&mut self) -> bool {
        std::mem::take(&mut self.wants_parents)
    }

    /// Whether the results of others may still suppress its notification; `patience`: how long it
    /// waits for them after it is hard down.
    pub fn is_waited_for(&self, patience: Duration, now: Mono) -> bool {
        self.hard_since.is_none_or(|since| now < since + patience)
    }

    /// Returns when the doubt ends by itself.
    pub fn doubt_ends(&self, patience: Duration) -> Option<Mono> {
        self.hard_since.filter(|_| self.current.in_doubt).map(|since| since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::HostStatus;

    const ALONE: Circumstances = Circumstances { checks_parents: false, with_others: false };
    const WITH_PARENTS: Circumstances = Circumstances { checks_parents: true, with_others: false };

    #[test]
    fn the_doubt_begins_with_the_first_failure_and_ends_with_the_recovery() {
        let (mut reach, mut track) = (Reach::free(), Track::pending());
        let at = Mono::from_secs;
        track.apply(HostStatus::Down, 2);
        reach.note_result(&track, WITH_PARENTS, at(100));
        assert!(reach.is_in_doubt() && reach.take_wants_parents() && !reach.take_wants_parents());
        assert_eq!(reach.doubt_ends(Duration::from_secs(30)), None, "it is not hard yet");
        track.apply(HostStatus::Down, 2);
        reach.note_result(&track, WITH_PARENTS, at(110));
        assert_eq!((reach.failing_since(), reach.hard_since()), (Some(at(100)), Some(at(110))));
        assert_eq!(reach.doubt_ends(Duration::from_secs(30)), Some(at(140)));
        assert!(!reach.is_waited_for(Duration::from_secs(30), at(140)));
        track.apply(HostStatus::Up, 2);
        reach.note_result(&track, WITH_PARENTS, at(150));
        assert_eq!((reach.is_in_doubt(), reach.failing_since(), reach.hard_since()), (false, None, None));
    }

    #[test]
    fn a_host_without_parents_is_in_doubt_only_if_others_fail_as_it_turns_hard() {
        for with_others in [false, true] {
            let (mut reach, mut track) = (Reach::free(), Track::pending());
            track.apply(HostStatus::Down, 1);
            reach.note_result(&track, Circumstances { with_others, ..ALONE }, Mono::from_secs(100));
            assert_eq!(reach.is_in_doubt(), with_others);
        }
    }
}
