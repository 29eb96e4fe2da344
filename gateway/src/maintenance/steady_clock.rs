//! Since when the wall clock has run evenly. A clock that was just set may be wrong by years, and what is
//! removed or kept by it does not come back.

use std::time::Duration;

use fleetgate_engine::time::{Mono, Now};

/// Watches the distance between wall clock and boot clock.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    offset: i64,
    since: Mono,
    /// Larger changes between two looks are steps, in milliseconds.
    tolerated: i64,
}

impl SteadyClock {
    pub fn new(now: Now, tolerated: Duration) -> SteadyClock {
        let tolerated = i64::try_from(tolerated.as_millis()).unwrap_or(i64::MAX);
        SteadyClock { offset: offset(now), since: now.mono, tolerated }
    }

    /// Returns for how long the clock was not set, as far as the looks show.
    pub fn look(&mut self, now: Now) -> Duration {
        if offset(now).saturating_sub(self.offset).saturating_abs() > self.tolerated {
            self.since = now.mono;
        }
        self.offset = offset(now);
        now.mono.since(self.since)
    }
}

/// How far the wall clock is ahead of the boot clock, in milliseconds.
fn offset(now: Now) -> i64 {
    let mono = now.mono.since(Mono::ZERO).as_millis();
    now.wall.as_millis().saturating_sub(i64::try_from(mono).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Wall;

    use super::*;

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: Wall::from_millis(wall_s * 1_000) }
    }

    #[test]
    fn a_step_begins_the_time_anew_and_slewing_does_not() {
        let mut clock = SteadyClock::new(at(10, 1_000), Duration::from_secs(1));
        assert_eq!(clock.look(at(70, 1_060)), Duration::from_secs(60));
        assert_eq!(clock.look(at(130, 1_121)), Duration::from_secs(120), "a second of slewing");
        assert_eq!(clock.look(at(190, 9_000_000)), Duration::ZERO, "set ahead");
        assert_eq!(clock.look(at(250, 9_000_060)), Duration::from_secs(60));
        assert_eq!(clock.look(at(310, 1_300)), Duration::ZERO, "set back");
    }
}
