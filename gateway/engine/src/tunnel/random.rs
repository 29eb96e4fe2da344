//! The tunnel's one source of randomness: a keyed hash in counter mode over the seed.
//!
//! The seed determines every choice. Without it the stream is indistinguishable from noise. Tests
//! rely on the first property; session indices, probe cookies and TCP sequence numbers rely on the
//! second.

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

const BLOCK: usize = 32;

pub struct Random {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
    block: Zeroizing<[u8; BLOCK]>,
    used: usize,
}

impl Random {
    pub fn new(seed: [u8; 32]) -> Self {
        Random { seed: Zeroizing::new(seed), counter: 0, block: Zeroizing::new([0; BLOCK]), used: BLOCK }
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn byte(&mut self) -> u8 {
        if self.used == BLOCK {
            self.refill();
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    fn refill(&mut self) {
        let hash = Blake2s256::new().chain_update(*self.seed).chain_update(self.counter.to_le_bytes());
        self.block.copy_from_slice(&hash.finalize());
        self.counter += 1;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_choices_and_another_seed_others() {
        let draw = |seed| Random::new([seed; 32]).bytes::<100>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn the_stream_does_not_repeat_its_blocks() {
        let mut random = Random::new([7; 32]);
        let blocks: std::collections::BTreeSet<[u8; 32]> = (0..100).map(|_| random.bytes()).collect();
        assert_eq!(blocks.len(), 100);
    }
}
