//! Series as a fleet makes them, one sample a minute, the same in every run.
//!
//! The values have the digits that the checks give: microseconds of a round trip, thousandths of a percent of a disk,
//! tenths of a degree.

use std::f64::consts::TAU;

use fleetgate_engine::history::{DAY, HOUR, Point, Second, SeriesKind};

use crate::dice::Dice;

pub const MINUTE: Second = 60;
/// Each series lacks three hours of this day of each month, as the seed's graph does.
const OUTAGE: (Second, std::ops::Range<Second>) = (13, 14 * HOUR..17 * HOUR);
/// Blocks of 4 KiB of a disk of 64 GB.
const BLOCKS: f64 = 15_625_000.0;
/// The device begins anew about once in this many minutes.
const RESTART: u64 = 40 * 24 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Rtt,
    Loss,
    SawTooth,
    Temperature,
    Load,
    Counter,
}

impl Profile {
    pub const ALL: [Profile; 6] = [
        Profile::Rtt,
        Profile::Loss,
        Profile::SawTooth,
        Profile::Temperature,
        Profile::Load,
        Profile::Counter,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Rtt => "round trip",
            Profile::Loss => "loss",
            Profile::SawTooth => "disk, a saw-tooth",
            Profile::Temperature => "temperature",
            Profile::Load => "load",
            Profile::Counter => "counter of bytes",
        }
    }

    pub fn uom(self) -> &'static str {
        match self {
            Profile::Rtt => "ms",
            Profile::Loss | Profile::SawTooth => "%",
            Profile::Temperature => "C",
            Profile::Load => "",
            Profile::Counter => "c",
        }
    }

    pub fn kind(self) -> SeriesKind {
        SeriesKind::of(self.uom())
    }
}

/// The samples of one series, in order of time.
pub struct Generator {
    pub profile: Profile,
    dice: Dice,
    /// What the next value depends on: a level, a number of blocks, or a sum.
    level: f64,
}

impl Generator {
    /// Makes the `n`th series. The profiles take turns.
    pub fn new(n: u32) -> Generator {
        let profile = Profile::ALL[n as usize % Profile::ALL.len()];
        let mut dice = Dice(u64::from(n).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let part = dice.roll(1_000) as f64 / 1_000.0;
        let level = match profile {
            Profile::Rtt => 5.0 + 40.0 * part,
            Profile::Temperature => 38.0 + 15.0 * part,
            Profile::SawTooth => BLOCKS * (0.4 + 0.2 * part),
            Profile::Counter => (1e9 * part).round(),
            Profile::Loss | Profile::Load => 0.5 * part,
        };
        Generator { profile, dice, level }
    }

    /// Returns the sample of this minute, or `None` during the outage.
    pub fn sample(&mut self, at: Second) -> Option<Point> {
        let value = self.value(at);
        let (day, hours) = OUTAGE;
        let is_out = at.div_euclid(DAY).rem_euclid(30) == day && hours.contains(&at.rem_euclid(DAY));
        (!is_out).then_some(Point { at, value: Some(value) })
    }

    /// Returns the samples of `[from, to)`.
    pub fn samples(&mut self, from: Second, to: Second) -> Vec<Point> {
        (from..to).step_by(MINUTE as usize).filter_map(|at| self.sample(at)).collect()
    }

    fn value(&mut self, at: Second) -> f64 {
        let day = (at.rem_euclid(DAY) as f64 / DAY as f64 * TAU).sin();
        let noise = self.noise();
        match self.profile {
            Profile::Rtt => {
                let spike = if self.dice.one_in(200) { self.dice.roll(200) as f64 } else { 0.0 };
                rounded(self.level + 2.0 * day + 0.4 * noise.abs() + spike, 1e3)
            }
            Profile::Loss if self.dice.one_in(50) => 20.0 * (1 + self.dice.roll(5)) as f64,
            Profile::Loss => 0.0,
            Profile::SawTooth => {
                // It fills by a fifth in a day, and is purged at three.
                self.level += BLOCKS * 0.2 / 1_440.0 * (1.0 + 0.3 * noise);
                if at.rem_euclid(DAY).div_euclid(MINUTE) == 3 * HOUR / MINUTE {
                    self.level -= BLOCKS * 0.2;
                }
                rounded(self.level.clamp(0.0, BLOCKS).round() / BLOCKS * 100.0, 1e3)
            }
            Profile::Temperature => rounded(self.level + 4.0 * day + 0.2 * noise, 10.0),
            Profile::Load => {
                self.level = (0.9 * self.level + 0.05 + 0.08 * noise).max(0.0);
                rounded(self.level, 100.0)
            }
            Profile::Counter => {
                let bytes = 2e6 * (1.2 + day) * (1.0 + 0.4 * noise).max(0.0);
                self.level = if self.dice.one_in(RESTART) { 0.0 } else { self.level + bytes.round() };
                self.level
            }
        }
    }

    /// Returns a number about zero, mostly below one.
    fn noise(&mut self) -> f64 {
        let sum: u64 = (0..4).map(|_| self.dice.roll(1 << 16)).sum();
        sum as f64 / f64::from(1 << 16) - 2.0
    }
}

fn rounded(value: f64, unit: f64) -> f64 {
    (value * unit).round() / unit
}
