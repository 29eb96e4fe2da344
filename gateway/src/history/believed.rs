//! The wall clock as far as it is believed. Pure.

use std::time::Duration;

use fleetgate_engine::time::{Now, Wall};

/// Time after which a wall clock that was set further ahead than this is believed. The operator thus has time to notice a
/// wrong clock before samples are rolled up or removed by it.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub(super) struct Believed {
    /// The time when the wall clock was last believed.
    last: Now,
}

impl Believed {
    /// `noted`: the time that was believed last before this start. A clock that is far ahead of it at a start was set
    /// ahead meanwhile, or the gateway stood still: both are believed after a day.
    pub fn new(now: Now, noted: Option<Wall>) -> Believed {
        Believed { last: Now { wall: noted.unwrap_or(now.wall), ..now } }
    }

    /// Returns the time by which samples are rolled up and removed. A clock that was set far ahead does not move it:
    /// the samples would still be gone when the clock is set back.
    pub fn wall(&mut self, now: Now) -> Wall {
        let elapsed = now.mono.since(self.last.mono);
        let expected = self.last.wall + elapsed;
        // The day begins with the jump, so that one just before the end of another day is not believed at once. A clock
        // that is behind, as at a start before the network is there, may come back meanwhile.
        if (self.last.wall..=expected + BELIEVED_AFTER).contains(&now.wall) || elapsed >= BELIEVED_AFTER {
            self.last = now;
            return now.wall;
        }
        now.wall.min(expected)
    }

    /// Returns the greatest time that is believed, for the next start.
    pub fn next_note(&mut self, now: Now) -> Wall {
        self.wall(now).max(self.last.wall)
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Mono;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn at(mono: Duration, wall: Duration) -> Now {
        Now { mono: Mono::from_secs(100) + mono, wall: Wall::from_millis(1_700_000_000_000) + wall }
    }

    #[test]
    fn a_clock_step_forward_is_believed_after_a_day() {
        let start = at(Duration::ZERO, Duration::ZERO);
        let mut believed = Believed::new(start, None);
        let hour = DAY / 24;
        assert_eq!(believed.wall(at(hour, hour)), start.wall + hour);
        assert_eq!(believed.wall(at(2 * hour, 365 * DAY)), start.wall + 2 * hour, "as if it was not set");
        believed.wall(at(25 * hour, 366 * DAY));
        assert_eq!(believed.wall(at(26 * hour, 366 * DAY)), start.wall + 366 * DAY, "it stays: believed");
    }

    #[test]
    fn a_step_is_believed_a_day_after_it_and_not_a_day_after_the_start() {
        let start = at(Duration::ZERO, Duration::ZERO);
        let (mut believed, hour) = (Believed::new(start, None), DAY / 24);
        for hours in 0..48 {
            believed.wall(at(hour * hours, hour * hours));
        }
        for hours in 48..71 {
            let seen = believed.wall(at(hour * hours, 3_650 * DAY));
            assert_eq!(seen, start.wall + hour * hours);
        }
        believed.wall(at(hour * 71, 3_650 * DAY));
        assert_eq!(believed.wall(at(hour * 72, 3_650 * DAY)), start.wall + 3_650 * DAY);
    }

    #[test]
    fn a_start_with_a_clock_far_ahead_of_the_last_run_is_believed_after_a_day() {
        let (noted, hour) = (at(Duration::ZERO, Duration::ZERO).wall, DAY / 24);
        let ahead = |mono| at(mono, 3_650 * DAY);
        let mut believed = Believed::new(ahead(Duration::ZERO), Some(noted));
        assert_eq!(believed.wall(ahead(Duration::ZERO)), noted);
        assert_eq!(believed.wall(ahead(hour)), noted + hour);
        believed.wall(ahead(DAY));
        assert_eq!(believed.wall(ahead(DAY + hour)), noted + 3_650 * DAY);
        let usual = at(hour, hour);
        assert_eq!(Believed::new(usual, Some(noted)).wall(usual), usual.wall, "a short stop");
        let back = Believed::new(usual, Some(noted + 9 * DAY)).wall(usual);
        assert_eq!(back, usual.wall, "a clock that was ahead and is set right");
    }

    #[test]
    fn a_start_before_the_clock_is_set_costs_no_day() {
        let (noted, hour) = (at(Duration::ZERO, Duration::ZERO).wall, DAY / 24);
        let unset = Now { mono: Mono::from_secs(100), wall: Wall::from_millis(5_000) };
        let mut believed = Believed::new(unset, Some(noted));
        assert_eq!(believed.wall(unset), unset.wall);
        assert_eq!(believed.next_note(unset), noted);
        assert_eq!(believed.wall(at(hour, hour)), noted + hour);
        assert_eq!(believed.next_note(at(hour, hour)), noted + hour);
        assert_eq!(believed.next_note(at(hour, 9 * DAY)), noted + hour, "no more than is believed");
    }

    #[test]
    fn a_clock_step_back_is_believed_at_once() {
        let start = at(DAY, DAY);
        let mut believed = Believed::new(start, None);
        assert_eq!(believed.wall(at(DAY + DAY / 24, Duration::ZERO)), start.wall - DAY);
    }
}
