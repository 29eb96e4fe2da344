//! The traffic budget: the factor that lengthens a device's check intervals, and the rate at which
//! waiting hosts may start.
//!
//! The factor is a pure function of the device's traffic since midnight UTC. The closer that
//! traffic is to the budget's share of the day so far, the rarer are the checks that send. Evidence
//! costs nothing, so it is never slowed down. Passive results and retries are not slowed down
//! either. Traffic from keepalives and handshakes cannot be saved here.

use std::time::Duration;

use crate::messages::{Check, Timing};
use crate::time::{Mono, Wall};

const DAY: Duration = Duration::from_secs(86_400);
/// The budget of this time is available at midnight already: an hour's checks may come together.
const AHEAD: Duration = Duration::from_secs(3_600);
/// Below this fraction of its share, intervals stay as they are.
const FREE: f64 = 0.75;
/// The largest factor: a check every minute becomes about one an hour. All factors are powers of
/// two, so that the slots of a host's checks still coincide and share one SSH session.
const MOST: u32 = 64;

/// Returns the interval factor: 1, 2, 4 and so on. `used`: bytes of the day, in both directions.
pub fn stretch(budget: u64, used: u64, now: Wall) -> u32 {
    let since_midnight = Duration::from_millis(now.as_millis().rem_euclid(DAY.as_millis() as i64) as u64);
    let part = (since_midnight + AHEAD).as_secs_f64() / DAY.as_secs_f64();
    let share = budget as f64 * part.min(1.0);
    let load = used as f64 / share.max(1.0);
    let steps = (load - FREE) / (1.0 - FREE) * f64::from(MOST.ilog2());
    1 << steps.ceil().clamp(0.0, f64::from(MOST.ilog2())) as u32
}

/// Whether a check costs traffic of its own.
pub(super) fn sends(check: &Check) -> bool {
    match check {
        Check::Tunnel | Check::Passive | Check::Heartbeat(_) | Check::Rental => false,
        Check::Ping { .. } | Check::Tcp { .. } | Check::Ssh | Check::Sensor(_) | Check::Command { .. } => {
            true
        }
    }
}

/// Returns the timing with a longer interval; the retry interval stays.
pub(super) fn slowed(timing: &Timing, stretch: u32) -> Timing {
    Timing { interval: timing.interval.saturating_mul(stretch), ..*timing }
}

/// The interval factor assumed after a restart, when the former one is unknown.
pub(super) const UNKNOWN: u32 = MOST;

/// A whole fleet may become available in one moment. Each host starts within this time, which adds
/// twice the usual load.
const ROUND: Duration = Duration::from_secs(30);
/// The minimum number of hosts that may start in one second, in a small fleet.
const LEAST: usize = 20;
/// The longest wait, however many places are taken: two rounds.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Assigns start times to waiting hosts, one after the other at a bounded rate.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The next free place.
    free: Mono,
}

impl Queue {
    /// Returns the place of one of `hosts` hosts; `None` if there is none within [`LONGEST`].
    pub fn place(&mut self, hosts: usize, now: Mono) -> Option<Mono> {
        let at = self.free.max(now);
        if at.since(now) > LONGEST {
            return None;
        }
        let of_a_second = (hosts / ROUND.as_secs() as usize).max(LEAST);
        self.free = at + Duration::from_secs(1) / u32::try_from(of_a_second).unwrap_or(u32::MAX);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn at(hour: f64) -> Wall {
        Wall::from_millis(1_768_003_200_000 + (hour * 3_600_000.0) as i64)
    }

    #[test]
    fn intervals_stay_while_the_budget_allows_it() {
        for (used, hour) in [(0, 0.0), (30_000, 0.0), (360_000, 11.0), (740_000, 23.5)] {
            assert_eq!(stretch(MB, used, at(hour)), 1, "{used} bytes at {hour} h");
        }
    }

    #[test]
    fn the_nearer_the_limit_the_rarer_the_checks() {
        let factors = [0.7, 0.76, 0.8, 0.85, 0.9, 0.95, 0.99, 2.0]
            .map(|load| stretch(MB, (load * 500_000.0) as u64, at(11.0)));
        assert_eq!(factors, [1, 2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn no_budget_is_too_small_or_too_large() {
        assert_eq!(stretch(0, 1, at(1.0)), MOST);
        assert_eq!(stretch(u64::MAX, u64::MAX / 2, at(23.0)), 1);
    }

    #[test]
    fn a_single_waiting_host_starts_at_once_and_many_at_a_bounded_rate() {
        let (mut queue, now) = (Queue::default(), Mono::from_secs(100));
        assert_eq!(queue.place(1, now), Some(now));
        for (hosts, secs) in [(10, 1), (600, 30), (10_000, 31)] {
            let (mut queue, mut starts) = (Queue::default(), [0; 62]);
            for _ in 0..hosts {
                starts[queue.place(hosts, now).expect("a place").since(now).as_secs() as usize] += 1;
            }
            assert!(starts.iter().all(|n| *n <= (hosts / 30).max(LEAST) + 1), "{hosts}: {starts:?}");
            assert!(starts[secs..].iter().all(|n| *n == 0), "{hosts}: within {secs} s");
        }
    }

    #[test]
    fn the_queue_is_no_longer_than_a_minute() {
        let (mut queue, now) = (Queue::default(), Mono::from_secs(100));
        let places = (0..10_000).filter(|_| queue.place(1, now).is_some()).count();
        assert_eq!(places, 60 * LEAST + 1);
        assert_eq!(queue.place(1, now + LONGEST), Some(now + LONGEST + Duration::from_millis(50)));
    }

    /// A device whose keepalives cost 0.35 MB a day and whose checks would cost 4 MB at full rate.
    #[test]
    fn a_device_with_room_for_some_checks_ends_its_day_within_its_budget() {
        let (mut used, mut due, mut checks) = (0.0, 0, 0);
        for minute in 0..24 * 60 {
            used += 350_000.0 / 1_440.0;
            if minute >= due {
                used += 4_000_000.0 / 1_440.0;
                checks += 1;
                due = minute + stretch(MB, used as u64, at(f64::from(minute) / 60.0)) as i32;
            }
        }
        assert!(used < MB as f64, "{used} bytes");
        assert!((100..300).contains(&checks), "{checks} checks: the rest of the budget is used");
    }
}
