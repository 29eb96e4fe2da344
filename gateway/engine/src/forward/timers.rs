//! When a flow is looked at next: lists of flows by the second.
//!
//! A deadline that moves later is not touched: the flow comes up at the old one and is filed again.
//! A deadline beyond the horizon comes up there. Each flow is in one list, so that the timer needs
//! no memory of its own.

use super::lists::{List, Lists, Slot};
use crate::time::Mono;

const TICK_NANOS: u64 = 1_000_000_000;

/// One bit each in `occupied`. Two minutes ahead; a long timeout is looked at as often.
const TICKS: u64 = 128;

#[derive(Default)]
pub struct Timers {
    /// The first tick whose list may have flows.
    next: u64,
    occupied: u128,
}

fn place(tick: u64) -> u8 {
    (tick % TICKS) as u8
}

impl Timers {
    /// Files a flow in the first tick that begins after `at`. Returns the place of the tick.
    pub fn file(&mut self, lists: &mut Lists, slot: Slot, at: Mono, now: Mono) -> u8 {
        if self.occupied == 0 {
            self.next = self.next.max(now.as_nanos() / TICK_NANOS);
        }
        let tick = (at.as_nanos() / TICK_NANOS + 1).clamp(self.next, self.next + TICKS - 1);
        self.occupied |= 1 << place(tick);
        lists.push(List::Timer(place(tick)), slot);
        place(tick)
    }

    /// Returns the next flow to look at, and removes it from its list.
    pub fn pop(&mut self, lists: &mut Lists, now: Mono) -> Option<Slot> {
        let present = now.as_nanos() / TICK_NANOS;
        // After a long rest every list is due; it is enough to pass each of them once.
        self.next = self.next.max(present.saturating_sub(TICKS - 1));
        while self.next <= present {
            let list = List::Timer(place(self.next));
            if let Some(slot) = lists.first(list) {
                lists.remove(list, slot);
                return Some(slot);
            }
            self.occupied &= !(1 << place(self.next));
            self.next += 1;
        }
        None
    }

    /// Returns when the next flow comes up, at the earliest.
    pub fn next(&self) -> Option<Mono> {
        if self.occupied == 0 {
            return None;
        }
        let distance = self.occupied.rotate_right(place(self.next).into()).trailing_zeros();
        Some(Mono::from_nanos((self.next + u64::from(distance)).saturating_mul(TICK_NANOS)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_flow_comes_up_within_a_second_or_at_the_horizon(
            start in 0u64..1_000_000, delays in proptest::collection::vec(0u64..300_000, 1..40),
        ) {
            let (mut lists, mut timers) = (Lists::default(), Timers::default());
            let now = Mono::from_millis(start);
            timers.pop(&mut lists, now);
            for (slot, delay) in delays.iter().enumerate() {
                timers.file(&mut lists, slot as u32, Mono::from_millis(start + delay), now);
            }
            let mut left = delays.len();
            while let Some(at) = timers.next() {
                prop_assert!(at > now);
                while let Some(slot) = timers.pop(&mut lists, at) {
                    left -= 1;
                    let wanted = Mono::from_millis(start + delays[slot as usize]);
                    let early = at.since(now).as_secs() >= 125;
                    prop_assert!(at >= wanted && at.since(wanted).as_millis() <= 1_000 || early);
                }
            }
            prop_assert_eq!(left, 0);
        }
    }

    #[test]
    fn after_a_long_rest_every_flow_comes_up() {
        let (mut lists, mut timers) = (Lists::default(), Timers::default());
        for slot in 0..100 {
            timers.file(&mut lists, slot, Mono::from_secs(slot.into()), Mono::ZERO);
        }
        let late = Mono::from_secs(1_000_000);
        assert_eq!(std::iter::from_fn(|| timers.pop(&mut lists, late)).count(), 100);
        assert_eq!(timers.next(), None);
    }
}
