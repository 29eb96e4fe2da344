//! Decides what the readings of the gateway's clocks mean: which steps the event log lists, which time is kept as
//! the greatest, and since when the clock is behind it. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use fleetgate_engine::time::{ClockStep, Mono, Now, Wall};

use crate::health::ClockProblem;
use crate::maintenance::steady_clock::SteadyClock;
use crate::store::settings::ClockFloor;

/// A larger change between two looks is a step.
const STEP: Duration = Duration::from_secs(1);
/// Interval at which the greatest time is kept.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long a clock must have run evenly before its time counts as shown: a minute in a wrong year would keep
/// grants shut for years. NTP corrects a step of its own within that time.
const PROVED: Duration = Duration::from_secs(5 * 60);
/// Steps that the event log lists in an hour. A clock that jumps to and fro makes thousands.
const LISTED_AN_HOUR: usize = 10;
const HOUR: Duration = Duration::from_secs(3_600);

/// A step that the event log lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListedStep {
    pub ahead_ms: i64,
    /// Steps before it that the log does not list.
    pub not_listed: u64,
}

impl ListedStep {
    pub fn text(&self) -> String {
        let seconds = self.ahead_ms.unsigned_abs() as f64 / 1_000.0;
        let to = if self.ahead_ms < 0 { "back" } else { "ahead" };
        let more = match self.not_listed {
            0 => String::new(),
            count => format!(". {count} more steps before it are not listed"),
        };
        format!("the gateway's clock was set {to} by {seconds:.1} s{more}")
    }
}

/// The findings of a look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub listed: Option<ListedStep>,
    pub went_back: bool,
    /// The time to keep as the greatest one.
    pub keep: Option<Wall>,
    pub problem: Option<ClockProblem>,
}

/// Decides what the readings of the clocks mean. Pure.
pub(super) struct Clock {
    last: Now,
    steady: SteadyClock,
    floor: ClockFloor,
    /// The floor at the start. The engine passes no grant with a window while the clock is behind it.
    start_floor: ClockFloor,
    behind_since: Option<Mono>,
    kept_at: Option<Mono>,
    /// The steps of the last hour that were listed.
    listed: VecDeque<Mono>,
    not_listed: u64,
}

impl Clock {
    pub fn new(floor: ClockFloor, now: Now) -> Clock {
        Clock {
            last: now,
            steady: SteadyClock::new(now, STEP),
            floor,
            start_floor: floor,
            behind_since: None,
            kept_at: None,
            listed: VecDeque::new(),
            not_listed: 0,
        }
    }

    /// An admin has accepted the clock, and this is the floor since.
    pub fn accept(&mut self, floor: ClockFloor) {
        (self.floor, self.start_floor, self.behind_since) = (floor, ClockFloor::None, None);
    }

    /// The clock is behind the greatest time that it has shown.
    pub fn is_behind(&self, now: Wall) -> bool {
        is_behind(self.floor, now)
    }

    pub fn kept(&mut self, floor: Wall) {
        self.floor = ClockFloor::At(floor);
    }

    /// The next look keeps the time if it is proved, because the gateway stops.
    pub fn keep_next(&mut self) {
        self.kept_at = None;
    }

    pub fn look(&mut self, now: Now) -> Seen {
        let step = ClockStep::between(self.last, now);
        let even_for = self.steady.look(now);
        self.last = now;
        Seen {
            listed: step.and_then(|step| self.list(step, now.mono)),
            went_back: step.is_some_and(|step| step.ahead_ms() < 0),
            keep: self.keep(even_for, now),
            problem: self.problem(now),
        }
    }

    /// Decides whether the log lists a step, or only counts it.
    fn list(&mut self, step: ClockStep, now: Mono) -> Option<ListedStep> {
        while self.listed.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.listed.pop_front();
        }
        if self.listed.len() >= LISTED_AN_HOUR {
            self.not_listed += 1;
            return None;
        }
        self.listed.push_back(now);
        Some(ListedStep { ahead_ms: step.ahead_ms(), not_listed: std::mem::take(&mut self.not_listed) })
    }

    fn keep(&mut self, even_for: Duration, now: Now) -> Option<Wall> {
        let is_due = self.kept_at.is_none_or(|at| now.mono.since(at) >= KEEP_EVERY);
        let is_later = match self.floor {
            ClockFloor::None => true,
            ClockFloor::At(floor) => floor < now.wall,
            ClockFloor::Unreadable => false,
        };
        if even_for < PROVED || !is_due || !is_later {
            return None;
        }
        self.kept_at = Some(now.mono);
        Some(now.wall)
    }

    /// A clock that was set back while the gateway runs has as long as NTP needs for a correction.
    fn problem(&mut self, now: Now) -> Option<ClockProblem> {
        if !is_behind(self.floor, now.wall) {
            self.behind_since = None;
            return None;
        }
        let withheld = is_behind(self.start_floor, now.wall);
        let since = *self.behind_since.get_or_insert(now.mono);
        match self.floor {
            ClockFloor::Unreadable => Some(ClockProblem::NoFloor),
            ClockFloor::At(floor) if withheld || now.mono.since(since) >= PROVED => {
                Some(ClockProblem::Behind { floor, withheld })
            }
            ClockFloor::At(_) | ClockFloor::None => None,
        }
    }
}

fn is_behind(floor: ClockFloor, now: Wall) -> bool {
    floor.at().is_some_and(|floor| now < floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(s: i64) -> Wall {
        Wall::from_millis(s * 1_000)
    }

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: wall(wall_s) }
    }

    /// Looks every two seconds while the clock runs evenly, and returns the times that were kept.
    fn run(clock: &mut Clock, from: Now, s: u64) -> Vec<Wall> {
        let later =
            |s| Now { mono: from.mono + Duration::from_secs(s), wall: from.wall + Duration::from_secs(s) };
        (2..=s).step_by(2).filter_map(|s| clock.look(later(s)).keep.inspect(|at| clock.kept(*at))).collect()
    }

    #[test]
    fn the_floor_moves_each_minute_once_the_clock_has_run_evenly_for_five() {
        let mut clock = Clock::new(ClockFloor::None, at(10, 1_000));
        assert_eq!(run(&mut clock, at(10, 1_000), 298), []);
        assert_eq!(run(&mut clock, at(308, 1_298), 62), [wall(1_300), wall(1_360)]);
        // A clock in a wrong year for four minutes keeps no grant shut.
        let wrong = at(372, 9_000_000);
        assert_eq!(clock.look(wrong).keep, None);
        assert_eq!(run(&mut clock, wrong, 240), []);
        let right = at(614, 1_604);
        assert_eq!(clock.look(right).keep, None);
        assert_eq!(run(&mut clock, right, 298), []);
        assert_eq!(run(&mut clock, at(912, 1_902), 2), [wall(1_904)]);
    }

    #[test]
    fn steps_in_both_directions_are_listed_ten_times_an_hour() {
        let mut clock = Clock::new(ClockFloor::None, at(10, 1_000));
        assert_eq!(clock.look(at(12, 1_003)).listed, None, "a second is slewing");
        let listed = |ahead_ms, not_listed| Some(ListedStep { ahead_ms, not_listed });
        let ahead = clock.look(at(14, 1_025));
        assert_eq!((ahead.listed, ahead.went_back), (listed(20_000, 0), false));
        let back = clock.look(at(16, 1_007));
        assert_eq!((back.listed, back.went_back), (listed(-20_000, 0), true));
        let mut to_and_fro = (0..20).map(|n| {
            let now =
                Now { mono: Mono::from_secs(18 + 2 * n), wall: wall(1_009 + 20 * ((n as i64 + 1) % 2)) };
            clock.look(now)
        });
        assert_eq!(to_and_fro.by_ref().take(8).filter(|seen| seen.listed.is_some()).count(), 8);
        assert!(to_and_fro.all(|seen| seen.listed.is_none()), "ten in this hour");
        let last = clock.last;
        let later = Now { mono: last.mono + HOUR, wall: last.wall };
        assert_eq!(clock.look(later).listed.map(|step| step.not_listed), Some(12));
        let step = ListedStep { ahead_ms: -12_340, not_listed: 3 };
        assert_eq!(
            step.text(),
            "the gateway's clock was set back by 12.3 s. 3 more steps before it are not listed"
        );
    }

    #[test]
    fn a_start_behind_the_floor_is_a_problem_until_the_clock_passes_it() {
        let floor = ClockFloor::At(wall(5_000));
        let mut clock = Clock::new(floor, at(10, 1_000));
        let behind = ClockProblem::Behind { floor: wall(5_000), withheld: true };
        assert_eq!(clock.look(at(12, 1_002)).problem, Some(behind));
        assert_eq!(clock.look(at(14, 5_000)).problem, None);
        let accepted = &mut Clock::new(floor, at(10, 1_000));
        accepted.accept(ClockFloor::At(wall(1_004)));
        assert_eq!(accepted.look(at(14, 1_004)).problem, None);
    }

    #[test]
    fn a_clock_that_is_set_back_later_has_five_minutes() {
        let mut clock = Clock::new(ClockFloor::At(wall(1_000)), at(10, 5_000));
        clock.kept(wall(5_000));
        assert_eq!(clock.look(at(12, 2_000)).problem, None);
        assert_eq!(clock.look(at(311, 2_299)).problem, None);
        let problem = clock.look(at(312, 2_300)).problem;
        assert_eq!(problem, Some(ClockProblem::Behind { floor: wall(5_000), withheld: false }));
    }

    #[test]
    fn a_floor_that_cannot_be_read_is_a_problem_and_stays() {
        let mut clock = Clock::new(ClockFloor::Unreadable, at(10, 1_000));
        let later = run(&mut clock, at(10, 1_000), 600);
        assert_eq!((later, clock.look(at(612, 1_602)).problem), (vec![], Some(ClockProblem::NoFloor)));
    }
}
