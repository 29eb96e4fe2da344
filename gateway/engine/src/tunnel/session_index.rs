//! Session indices: 24 bits, unpredictable, unique among the live sessions of this gateway.
//!
//! A receiver index is sent in clear in every datagram. A random index reveals neither the number
//! of devices nor the order in which they came.

use std::collections::HashMap;

use crate::tunnel::peers::Slot;
use crate::tunnel::random::Random;

const INDEX_BITS: u32 = 24;

/// Maximum number of live sessions. A quarter of the space stays free, so that a random draw soon
/// finds a free index (four tries on average when full).
pub const MAX_SESSIONS: usize = 3 << (INDEX_BITS - 2);

#[derive(Default)]
pub struct Indices {
    owners: HashMap<u32, Slot>,
}

impl Indices {
    /// Returns a fresh index for a session of `owner`, or `None` when there are [`MAX_SESSIONS`]
    /// already.
    pub fn claim(&mut self, owner: Slot, random: &mut Random) -> Option<u32> {
        if self.owners.len() >= MAX_SESSIONS {
            return None;
        }
        loop {
            let index = random.u32() >> (32 - INDEX_BITS);
            if let std::collections::hash_map::Entry::Vacant(free) = self.owners.entry(index) {
                free.insert(owner);
                return Some(index);
            }
        }
    }

    pub fn owner(&self, index: u32) -> Option<Slot> {
        self.owners.get(&index).copied()
    }

    pub fn release(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_unique_fit_24_bits_and_are_not_handed_out_in_order() {
        let mut indices = Indices::default();
        let mut random = Random::new([1; 32]);
        let all: Vec<u32> = (0..10_000)
            .map(|_| indices.claim(Slot::default(), &mut random).expect("there is room"))
            .collect();
        assert!(all.iter().all(|index| *index < 1 << INDEX_BITS));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        let rising = all.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_500..5_500).contains(&rising), "{rising} of 9,999 rise");
    }

    #[test]
    fn a_released_index_finds_no_session() {
        let mut indices = Indices::default();
        let index = indices.claim(Slot::default(), &mut Random::new([1; 32])).expect("there is room");
        assert!(indices.owner(index).is_some());
        indices.release(index);
        assert_eq!(indices.owner(index), None);
        assert_eq!(indices.len(), 0);
    }
}
