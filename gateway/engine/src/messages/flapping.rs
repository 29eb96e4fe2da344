//! Flap detection: whether a state changes too often to notify each change (SEMANTICS 7).
//!
//! It keeps the last 21 results as plugin codes, and computes the weighted share of changes among
//! them; the newest change weighs most. It counts results, not time. This module knows nothing of
//! notifications.

use crate::messages::Flapping;

/// The number of results kept: twenty changes at most.
const RESULTS: u32 = 21;
/// Bits of one code.
const WIDTH: u32 = 2;
const CODE: u64 = 0b11;
/// Weights rise from 0.8 to 1.2 in twenty steps: (76 + 2k) / 95. One percent of twenty changes is
/// 19 such units, so the arithmetic is exact.
const LIGHTEST: u32 = 76;
const STEP: u32 = 2;
const PERCENT: f64 = 19.0;

/// Recent results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The newest code is in the lowest bits.
    codes: u64,
    len: u32,
}

impl Ring {
    /// Adds a result; `code` is 0 to 3.
    pub fn push(&mut self, code: u8) {
        let kept = (1 << (RESULTS * WIDTH)) - 1;
        self.codes = (self.codes << WIDTH | u64::from(code) & CODE) & kept;
        self.len = (self.len + 1).min(RESULTS);
    }

    /// Adds a result that must not count as a change.
    pub fn repeat(&mut self) {
        if self.len > 0 {
            self.push(self.code(0));
        }
    }

    /// Returns the codes, oldest first.
    pub fn codes(&self) -> impl Iterator<Item = u8> + use<'_> {
        (0..self.len).rev().map(|age| self.code(age))
    }

    fn code(&self, age: u32) -> u8 {
        (self.codes >> (age * WIDTH) & CODE) as u8
    }

    pub fn percent(&self) -> f64 {
        let changed = |age: &u32| self.code(*age) != self.code(age + 1);
        let ages = 0..self.len.saturating_sub(1);
        let units: u32 = ages.filter(changed).map(|age| LIGHTEST + STEP * (RESULTS - 2 - age)).sum();
        f64::from(units) / PERCENT
    }

    /// Whether one of the results was ok after a problem.
    pub fn has_recovered(&self) -> bool {
        let ok = || self.codes().map(|code| code == 0);
        ok().zip(ok().skip(1)).any(|(before, after)| !before && after)
    }

    /// Whether the state flaps now, given whether it flapped before. Between the two limits nothing
    /// changes.
    pub fn flaps(&self, before: bool, rules: &Flapping) -> bool {
        let percent = self.percent();
        rules.enabled && if before { percent > rules.low } else { percent > rules.high }
    }
}

impl FromIterator<u8> for Ring {
    fn from_iter<T: IntoIterator<Item = u8>>(codes: T) -> Self {
        let mut ring = Ring::default();
        codes.into_iter().for_each(|code| ring.push(code));
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::States;
    use proptest::prelude::*;

    const RULES: Flapping = Flapping { enabled: true, low: 20.0, high: 30.0, ignore: States::NONE };

    fn percent(codes: &[u8]) -> f64 {
        codes.iter().copied().collect::<Ring>().percent()
    }

    #[test]
    fn nothing_and_one_result_are_calm() {
        assert_eq!((percent(&[]), percent(&[2])), (0.0, 0.0));
    }

    #[test]
    fn a_change_between_two_problems_counts() {
        assert_eq!(percent(&[1, 2]), 6.0);
    }

    #[test]
    fn twenty_changes_are_a_hundred_percent() {
        let codes: Vec<u8> = (0..50).map(|i| i % 2).collect();
        assert_eq!(percent(&codes), 100.0);
    }

    #[test]
    fn six_changes_after_calm_are_too_many_and_five_are_not() {
        let mut ring: Ring = [0; 21].into_iter().collect();
        let mut flaps = Vec::new();
        for i in 1..=6 {
            ring.push(2 * (i % 2));
            flaps.push(ring.flaps(false, &RULES));
        }
        assert_eq!(flaps, [false, false, false, false, false, true]);
    }

    #[test]
    fn calm_comes_back_after_about_fifteen_equal_results() {
        let mut ring: Ring = (0..21).map(|i| i % 2).collect();
        let calm = (1..).find(|_| {
            ring.push(0);
            !ring.flaps(true, &RULES)
        });
        assert!(calm.is_some_and(|n| (14..=17).contains(&n)), "{calm:?}");
    }

    #[test]
    fn a_recovery_is_an_ok_after_problems_of_any_kind() {
        let recovered = |codes: &[u8]| codes.iter().copied().collect::<Ring>().has_recovered();
        assert!(!recovered(&[]) && !recovered(&[0]) && !recovered(&[0, 2, 2]));
        assert!(recovered(&[2, 1, 0, 0]) && recovered(&[0, 3, 0, 2]));
    }

    #[test]
    fn flap_detection_that_is_switched_off_finds_no_flapping() {
        let ring: Ring = (0..21).map(|i| i % 2).collect();
        assert!(!ring.flaps(true, &Flapping { enabled: false, ..RULES }));
    }

    proptest! {
        #[test]
        fn the_percent_is_that_of_the_words(codes in prop::collection::vec(0u8..4, 0..60)) {
            let last = &codes[codes.len().saturating_sub(21)..];
            let missing = 20 - last.len().saturating_sub(1);
            let sum: f64 = last
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| pair[0] != pair[1])
                .map(|(i, _)| 0.8 + 0.4 * (missing + i) as f64 / 19.0)
                .sum();
            let ring: Ring = codes.iter().copied().collect();
            prop_assert!((ring.percent() - sum / 20.0 * 100.0).abs() < 1e-9);
            prop_assert_eq!(ring.codes().collect::<Vec<_>>(), last);
        }
    }
}
