//! A random generator with the same results everywhere, and the seeds to run.

use std::time::Duration;

/// SplitMix64, so that a seed gives the same run everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// Returns a random duration, more often than not in whole seconds, so that equal times occur.
    pub fn secs(&mut self, from: u64, to: u64) -> Duration {
        let ms = if self.one_in(3) { self.roll(1000) } else { 0 };
        Duration::from_millis((from + self.roll(to - from)) * 1000 + ms)
    }
}

pub fn seeds() -> Vec<u64> {
    seeds_to(4)
}

/// Returns this many seeds, for failures that depend on the phases of two checks.
pub fn seeds_to(last: u64) -> Vec<u64> {
    match std::env::var("FLEETGATE_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("FLEETGATE_SIM_SEED is a number")],
        Err(_) => (1..=last).collect(),
    }
}
