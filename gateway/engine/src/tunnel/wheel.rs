//! A lazy timer wheel: which peer is due when.
//!
//! A peer files its earliest deadline; filing, moving and dropping are O(1). A deadline that moves
//! later is not touched: the old entry fires, and the peer files again. A deadline that moves
//! earlier gets a second entry, and the first is recognised as stale when it fires. Deadlines
//! further away than [`NEAR`] wait in slots of [`TICK`]. The near ones are in a heap, exact to the
//! nanosecond. The wheel does not know the purpose of a deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::peers::Slot;
use crate::time::Mono;

/// The width of a slot. WireGuard's timers need nothing finer.
pub const TICK: Duration = Duration::from_millis(250);

/// 1,024 slots are 256 s, further than any timer of a session (180 s). A later deadline is filed at
/// the horizon and filed again there.
const SLOTS: usize = 1_024;

/// Two ticks, so that a deadline taken out of a slot that has begun is always near.
const NEAR: Duration = Duration::from_millis(500);

/// A peer's entries in the wheel. They are part of the peer, but only the wheel reads and writes
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filed {
    near: Option<Mono>,
    far: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    Near(Mono),
    Far(u64),
}

impl Filed {
    /// Returns whether this ticket is the valid one, and uses it up.
    pub fn redeem(&mut self, ticket: Ticket) -> bool {
        match ticket {
            Ticket::Near(at) => self.near.take_if(|near| *near == at).is_some(),
            Ticket::Far(tick) => self.far.take_if(|far| *far == tick).is_some(),
        }
    }
}

pub struct Wheel {
    slots: Vec<Vec<Slot>>,
    occupied: [u64; SLOTS / 64],
    near: BinaryHeap<Reverse<(Mono, Slot)>>,
    /// The first tick that has not begun.
    ahead: u64,
    /// Entries of slots that have begun.
    due: Vec<(u64, Slot)>,
}

fn tick_of(at: Mono) -> u64 {
    at.as_nanos() / TICK.as_nanos() as u64
}

fn start_of(tick: u64) -> Mono {
    Mono::from_nanos(tick.saturating_mul(TICK.as_nanos() as u64))
}

/// Rounds up to the next beginning of a slot: a deadline that tolerates a quarter second fires with
/// its neighbours, in one wake-up.
pub fn round_up(at: Mono) -> Mono {
    start_of(tick_of(at + (TICK - Duration::from_nanos(1))))
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel {
            slots: vec![Vec::new(); SLOTS],
            occupied: [0; SLOTS / 64],
            near: BinaryHeap::new(),
            ahead: 0,
            due: Vec::new(),
        }
    }
}

impl Wheel {
    /// Makes sure that `slot` fires no later than `at`.
    pub fn file(&mut self, slot: Slot, filed: &mut Filed, at: Mono, now: Mono) {
        if at <= now + NEAR {
            self.file_near(slot, filed, at);
        } else {
            self.file_far(slot, filed, tick_of(at));
        }
    }

    fn file_near(&mut self, slot: Slot, filed: &mut Filed, at: Mono) {
        if filed.near.is_none_or(|near| at < near) {
            filed.near = Some(at);
            self.near.push(Reverse((at, slot)));
        }
    }

    fn file_far(&mut self, slot: Slot, filed: &mut Filed, tick: u64) {
        let tick = tick.clamp(self.ahead, self.ahead + SLOTS as u64 - 1);
        if filed.far.is_none_or(|far| tick < far) {
            filed.far = Some(tick);
            let place = tick as usize % SLOTS;
            self.slots[place].push(slot);
            self.occupied[place / 64] |= 1 << (place % 64);
        }
    }

    /// Returns the next entry that is due. The caller asks [`Filed::redeem`] whether it still
    /// counts.
    pub fn pop(&mut self, now: Mono) -> Option<(Slot, Ticket)> {
        self.advance(now);
        if let Some((tick, slot)) = self.due.pop() {
            return Some((slot, Ticket::Far(tick)));
        }
        let Reverse((at, _)) = self.near.peek()?;
        if *at > now {
            return None;
        }
        self.near.pop().map(|Reverse((at, slot))| (slot, Ticket::Near(at)))
    }

    /// Returns when the first entry fires, and its slot.
    pub fn next(&self) -> Option<(Mono, Slot)> {
        let due = self.due.last().map(|(tick, slot)| (start_of(*tick), *slot));
        let near = self.near.peek().map(|Reverse(entry)| *entry);
        [due, near, self.first_slot()].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Mono) {
        let begun = tick_of(now) + 1;
        let last = begun.min(self.ahead + SLOTS as u64);
        for tick in self.ahead..last {
            let place = tick as usize % SLOTS;
            self.occupied[place / 64] &= !(1 << (place % 64));
            self.due.extend(self.slots[place].drain(..).map(|slot| (tick, slot)));
        }
        self.ahead = self.ahead.max(begun);
    }

    fn first_slot(&self) -> Option<(Mono, Slot)> {
        let start = self.ahead as usize % SLOTS;
        let distance = (0..=SLOTS / 64).find_map(|word| self.distance_in_word(start, word))?;
        let tick = self.ahead + distance as u64;
        let slot = self.slots[tick as usize % SLOTS].first()?;
        Some((start_of(tick), *slot))
    }

    /// Returns the distance from `start` to the first occupied slot within the `word`th word after
    /// it.
    fn distance_in_word(&self, start: usize, word: usize) -> Option<usize> {
        let index = (start / 64 + word) % self.occupied.len();
        let mut bits = self.occupied[index];
        if word == 0 {
            bits &= u64::MAX << (start % 64);
        } else if word == self.occupied.len() {
            bits &= !(u64::MAX << (start % 64));
        }
        (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize - start % 64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 0 }
    }

    fn ms(at: u64) -> Mono {
        Mono::from_millis(at)
    }

    /// Runs until nothing is filed, and returns when the peer fired with a valid ticket.
    fn run(wheel: &mut Wheel, filed: &mut Filed, wanted: &mut Vec<Mono>, mut now: Mono) -> Vec<Mono> {
        let mut fired = Vec::new();
        while let Some((at, _)) = wheel.next() {
            now = now.max(at);
            while let Some((slot, ticket)) = wheel.pop(now) {
                if !filed.redeem(ticket) {
                    continue;
                }
                fired.extend(wanted.extract_if(.., |at| *at <= now).map(|_| now));
                if let Some(next) = wanted.iter().min() {
                    wheel.file(slot, filed, *next, now);
                }
            }
        }
        fired
    }

    #[test]
    fn a_near_deadline_is_exact() {
        let (mut wheel, mut filed) = (Wheel::default(), Filed::default());
        wheel.file(slot(1), &mut filed, ms(13), ms(0));
        assert_eq!(wheel.next(), Some((ms(13), slot(1))));
        assert_eq!(wheel.pop(ms(12)), None);
        assert_eq!(wheel.pop(ms(13)), Some((slot(1), Ticket::Near(ms(13)))));
    }

    #[test]
    fn a_deadline_that_moves_earlier_leaves_a_stale_ticket() {
        let (mut wheel, mut filed) = (Wheel::default(), Filed::default());
        wheel.file(slot(1), &mut filed, ms(60_000), ms(0));
        wheel.file(slot(1), &mut filed, ms(10_000), ms(0));
        let (_, first) = wheel.pop(ms(10_000)).expect("an entry");
        assert!(filed.redeem(first));
        let (_, second) = wheel.pop(ms(60_000)).expect("an entry");
        assert!(!filed.redeem(second));
    }

    #[test]
    fn a_deadline_that_moves_later_is_not_touched() {
        let (mut wheel, mut filed) = (Wheel::default(), Filed::default());
        for at in 1..1_000 {
            wheel.file(slot(1), &mut filed, ms(10_000 + at), ms(0));
        }
        assert!(wheel.pop(ms(300_000)).is_some());
        assert_eq!(wheel.pop(ms(300_000)), None);
    }

    #[test]
    fn rounding_meets_the_neighbours_and_is_never_early() {
        assert_eq!(round_up(ms(1)), ms(250));
        assert_eq!(round_up(ms(250)), ms(250));
        assert_eq!(round_up(ms(251)), ms(500));
    }

    proptest! {
        #[test]
        fn every_deadline_fires_on_time(
            start in 0u64..10_000_000,
            deadlines in proptest::collection::vec(0u64..2_000_000, 1..30),
        ) {
            let (mut wheel, mut filed) = (Wheel::default(), Filed::default());
            let now = ms(start);
            wheel.pop(now);
            let mut wanted: Vec<Mono> = deadlines.iter().map(|d| ms(start + d)).collect();
            for at in &wanted {
                wheel.file(slot(1), &mut filed, *at, now);
            }
            let mut expected = wanted.clone();
            expected.sort();
            let fired = run(&mut wheel, &mut filed, &mut wanted, now);
            prop_assert_eq!(fired, expected);
        }
    }
}
