//! The Internet checksum: in full, and incrementally where a field changes (RFC 1624).

/// Returns the one's complement sum of bytes, folded to 16 bits. A header with a right checksum has
/// the sum 0xffff.
pub fn sum(bytes: &[u8]) -> u16 {
    fold(partial(bytes))
}

/// Returns the checksum over several parts, each but the last of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().map(|part| partial(part)).sum())
}

fn partial(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + last
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The difference that changed fields make to a checksum over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Notes that the word `old` becomes `new`.
    pub fn word(self, old: u16, new: u16) -> Delta {
        Delta(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Notes that the address `old` becomes `new`.
    pub fn address(self, v6: bool, old: u128, new: u128) -> Delta {
        let words = if v6 { 8 } else { 2 };
        (0..words)
            .fold(self, |delta, word| delta.word((old >> (word * 16)) as u16, (new >> (word * 16)) as u16))
    }

    /// Joins the differences of two changes.
    pub fn and(self, other: Delta) -> Delta {
        Delta(self.0 + other.0)
    }

    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_incremental_change_equals_a_new_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..80), new: u128, word in 8usize..20,
        ) {
            // A sum of zero has two forms; real headers are never all zero.
            bytes[38] = 0x45;
            let before = checksum(&[&bytes]);
            let old = u128::from_be_bytes(*bytes.first_chunk().expect("16 bytes"));
            let old_word = u16::from_be_bytes([bytes[word * 2], bytes[word * 2 + 1]]);
            let delta = Delta::default().address(true, old, new).word(old_word, 0x4500);
            bytes[..16].copy_from_slice(&new.to_be_bytes());
            bytes[word * 2..word * 2 + 2].copy_from_slice(&0x4500u16.to_be_bytes());
            prop_assert_eq!(delta.apply(before), checksum(&[&bytes]));
        }
    }

    #[test]
    fn parts_are_summed_as_one() {
        assert_eq!(checksum(&[&[1, 2], &[3, 4, 5]]), checksum(&[&[1, 2, 3, 4, 5]]));
        assert_eq!(sum(&[0xff, 0xff]), 0xffff);
    }
}
