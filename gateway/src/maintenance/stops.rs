//! Finds the times in which the gateway did not run: before its start, and during a suspend of the
//! machine. The states of that time are not known. Pure.
//!
//! The greatest time that the clock has shown is on disk, a minute old at most, so that a gateway
//! that was killed is known to have run until then.

use std::time::Duration;

use fleetgate_engine::time::{Now, Wall};

/// A longer time between two looks is a suspend. A busy machine can delay a look.
const SUSPENDED: Duration = Duration::from_secs(120);

/// A time without the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub from: Wall,
    pub until: Wall,
}

#[derive(Clone, Copy, Debug)]
pub struct Stops {
    last: Now,
    /// When the gateway ran last, until the clock is past that time: it may be wrong after a start.
    ran_until: Option<Wall>,
    not_recorded: Option<Stop>,
}

impl Stops {
    /// `ran_until`: the last time at which it is known to have run.
    pub fn new(ran_until: Option<Wall>, now: Now) -> Stops {
        Stops { last: now, ran_until, not_recorded: None }
    }

    /// An admin has accepted a clock that is behind the last time, so that the last time is wrong.
    pub fn accept(&mut self) {
        self.ran_until = None;
    }

    /// Returns the stop that is to be recorded, until [`Stops::recorded`].
    pub fn look(&mut self, now: Now) -> Option<Stop> {
        let passed = now.mono.since(self.last.mono);
        let suspend = Stop { from: self.last.wall, until: self.last.wall + passed };
        let start = self.ran_until.filter(|at| *at < now.wall).map(|from| Stop { from, until: now.wall });
        // A clock that is still behind would place a suspend in a time that the gateway has watched.
        let is_behind = start.is_none() && self.ran_until.is_some();
        let found = start.or((passed >= SUSPENDED && !is_behind).then_some(suspend));
        self.not_recorded = match (self.not_recorded, found) {
            (Some(before), Some(found)) => Some(Stop { from: before.from.min(found.from), ..found }),
            (before, found) => found.or(before),
        };
        self.ran_until = self.ran_until.filter(|_| start.is_none());
        self.last = now;
        self.not_recorded
    }

    /// A look is over. It may have waited for the disk for minutes, in which the gateway ran.
    pub fn looked(&mut self, now: Now) {
        self.last = now;
    }

    pub fn recorded(&mut self) {
        self.not_recorded = None;
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Mono;

    use super::*;

    fn wall(s: i64) -> Wall {
        Wall::from_millis(s * 1_000)
    }

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: wall(wall_s) }
    }

    fn stop(from: i64, until: i64) -> Option<Stop> {
        Some(Stop { from: wall(from), until: wall(until) })
    }

    #[test]
    fn a_start_ends_a_stop_that_began_when_the_gateway_ran_last() {
        let mut stops = Stops::new(Some(wall(900)), at(10, 1_000));
        assert_eq!(stops.look(at(10, 1_000)), stop(900, 1_000));
        assert_eq!(stops.look(at(12, 1_002)), stop(900, 1_000), "it was not recorded yet");
        stops.recorded();
        assert_eq!(stops.look(at(14, 1_004)), None);
        assert_eq!(Stops::new(None, at(10, 1_000)).look(at(10, 1_000)), None, "the first start");
    }

    #[test]
    fn a_clock_that_starts_behind_ends_the_stop_when_it_is_right() {
        let mut stops = Stops::new(Some(wall(9_000)), at(10, 50));
        assert_eq!(stops.look(at(12, 52)), None);
        assert_eq!(stops.look(at(14, 9_500)), stop(9_000, 9_500));
        let mut suspended = Stops::new(Some(wall(9_000)), at(10, 50));
        assert_eq!(suspended.look(at(500, 540)), None, "the stop will cover it");
        assert_eq!(suspended.look(at(502, 9_800)), stop(9_000, 9_800));
        let mut accepted = Stops::new(Some(wall(9_000)), at(10, 50));
        accepted.accept();
        assert_eq!(accepted.look(at(14, 9_500)), None);
    }

    #[test]
    fn a_look_that_waits_for_the_disk_is_no_suspend() {
        let mut stops = Stops::new(None, at(10, 1_000));
        assert_eq!(stops.look(at(12, 1_002)), None);
        stops.looked(at(300, 1_290));
        assert_eq!(stops.look(at(302, 1_292)), None);
        assert_eq!(stops.look(at(502, 1_492)), stop(1_292, 1_492));
    }

    #[test]
    fn a_suspend_is_a_stop_and_a_step_of_the_clock_is_none() {
        let mut stops = Stops::new(None, at(10, 1_000));
        assert_eq!(stops.look(at(12, 9_000)), None, "a step");
        assert_eq!(stops.look(at(131, 9_119)), None, "a busy machine");
        assert_eq!(stops.look(at(3_731, 12_719)), stop(9_119, 12_719));
        stops.recorded();
        assert_eq!(stops.look(at(3_733, 12_721)), None);
    }
}
