//! The two clocks, as values. Only the shell's `clock.rs` reads them, once per turn.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the boot-time clock in nanoseconds: it never steps, and it counts a suspend.
/// Deadlines and ages use it. It means nothing after a restart of the machine and is never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    pub const ZERO: Mono = Mono(0);

    pub const fn from_nanos(nanos: u64) -> Self {
        Mono(nanos)
    }

    pub const fn from_millis(millis: u64) -> Self {
        Mono(millis * 1_000_000)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Mono(secs * 1_000_000_000)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, d: Duration) -> Mono {
        let nanos = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Mono(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;

    fn sub(self, d: Duration) -> Mono {
        let nanos = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Mono(self.0.saturating_sub(nanos))
    }
}

/// Calendar time: milliseconds since 1970-01-01T00:00:00Z. It may step. It is stored, displayed,
/// and compared with the times that devices and customers report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    pub const fn from_millis(millis: i64) -> Self {
        Wall(millis)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;

    fn add(self, d: Duration) -> Wall {
        let millis = i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Wall(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for Wall {
    type Output = Wall;

    fn sub(self, d: Duration) -> Wall {
        let millis = i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Wall(self.0.saturating_sub(millis))
    }
}

/// Both clocks, read together once per turn of a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Now {
    /// Returns the wall time of a past point on the boot-time clock, by the current reading of
    /// both.
    pub fn wall_at(&self, past: Mono) -> Wall {
        self.wall - self.mono.since(past)
    }

    /// Returns the boot-time point of a past wall time, by the current reading of both. A stored
    /// time that lies in the future (the wall clock stepped back) becomes `now`.
    pub fn mono_at(&self, past: Wall) -> Mono {
        self.mono - self.wall.since(past)
    }
}

/// A step of the wall clock, larger than a day of slewing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The time that the clock would show without the step.
    expected: Wall,
    shows: Wall,
}

/// A wall clock that differs by this much from the boot-time clock's progress has stepped.
const LEAST_STEP: Duration = Duration::from_secs(1);

impl ClockStep {
    /// Returns the step between two readings; `None`: there was none.
    pub fn between(before: Now, now: Now) -> Option<ClockStep> {
        let step = ClockStep { expected: before.wall + now.mono.since(before.mono), shows: now.wall };
        (step.size() > LEAST_STEP).then_some(step)
    }

    pub fn size(self) -> Duration {
        self.expected.since(self.shows).max(self.shows.since(self.expected))
    }

    /// Returns how far the clock stepped ahead, in milliseconds.
    pub fn ahead_ms(self) -> i64 {
        self.shows.0.saturating_sub(self.expected.0)
    }

    /// Moves a time that was read before a step back to the new clock; otherwise it would look
    /// later than the times that follow it. After a step ahead the order is right, so the time
    /// stays as it is stored.
    pub fn rebase(self, read_before: Wall) -> Wall {
        read_before - self.expected.since(self.shows)
    }
}

/// Formats a duration for people: `42 s`, `17 min`, `5 h`, `3 d`.
pub fn age(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: Wall::from_millis(wall_s * 1_000) }
    }

    #[test]
    fn a_clock_that_goes_on_as_time_does_was_not_set() {
        assert_eq!(ClockStep::between(now(10, 1_000), now(70, 1_060)), None);
        assert_eq!(ClockStep::between(now(10, 1_000), now(70, 1_061)), None, "slewing");
    }

    #[test]
    fn a_time_read_before_a_step_back_stays_before_later_ones() {
        let back = ClockStep::between(now(10, 5_000), now(20, 1_410)).expect("a step");
        assert_eq!((back.size(), back.ahead_ms()), (Duration::from_secs(3_600), -3_600_000));
        assert_eq!(back.rebase(Wall::from_millis(4_990_000)), Wall::from_millis(1_390_000));
        let ahead = ClockStep::between(now(10, 1_400), now(20, 5_010)).expect("a step");
        assert_eq!((ahead.size(), ahead.ahead_ms()), (Duration::from_secs(3_600), 3_600_000));
        assert_eq!(ahead.rebase(Wall::from_millis(1_390_000)), Wall::from_millis(1_390_000));
    }
}
