//! The wall clock as far as it is believed. Pure.

use std::time::Duration;

use fleetgate_engine::time::{Now, Wall};

/// Time after which a wall clock that was set ahead is believed, and the most that it may jump. The operator thus has
/// time to notice a wrong clock before samples are rolled up or removed by it.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub(super) struct Believed {
    /// The time when the wall clock was last believed.
    last: Now,
}

impl Believed {
    pub fn new(now: Now) -> Believed {
        Believed { last: now }
    }

    /// Returns the time by which samples are rolled up and removed. A clock that was set far ahead does not move it:
    /// the samples would still be gone when the clock is set back.
    pub fn wall(&mut self, now: Now) -> Wall {
        let elapsed = now.mono.since(self.last.mono);
        let believable = self.last.wall + elapsed + BELIEVED_AFTER;
        if elapsed >= BELIEVED_AFTER {
            self.last = now;
        }
        now.wall.min(believable)
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
        let mut believed = Believed::new(start);
        let hour = DAY / 24;
        assert_eq!(believed.wall(at(hour, hour)), start.wall + hour);
        assert_eq!(believed.wall(at(2 * hour, 365 * DAY)), start.wall + 2 * hour + DAY);
        believed.wall(at(25 * hour, 366 * DAY));
        assert_eq!(believed.wall(at(26 * hour, 366 * DAY)), start.wall + 366 * DAY, "it stays: believed");
    }

    #[test]
    fn a_clock_step_back_is_believed_at_once() {
        let start = at(DAY, DAY);
        let mut believed = Believed::new(start);
        assert_eq!(believed.wall(at(DAY + DAY / 24, Duration::ZERO)), start.wall - DAY);
    }
}
