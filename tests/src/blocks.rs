//! Blocks of history with another content or in another place than the program has given them.

/// The bytes before the content of a block, and those of them that its checksum covers.
const HEAD: usize = 10;
const COVERED: usize = 6;

/// Makes the checksum of a block hold for this key. Bytes that are no block stay as they are.
pub fn sign(block: &mut [u8], key: i64) {
    let Some((head, content)) = block.split_first_chunk_mut::<HEAD>() else { return };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..COVERED]);
    hasher.update(&key.to_le_bytes());
    hasher.update(content);
    head[COVERED..].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::history::block::{self, decode_raw, encode_raw};
    use fleetgate_engine::history::{HOUR, Point, SeriesKind};

    use super::*;

    #[test]
    fn a_block_that_is_signed_for_another_key_has_its_samples_at_the_time_of_that_key() {
        let (hour, other) = (492_324, 492_348);
        let start = |hour: u32| i64::from(hour) * HOUR;
        let points = |hour| [0, 60, 7_200].map(|s| Point { at: start(hour) + s, value: Some(1.5) });
        let key = block::key(other, 9);
        let mut data = encode_raw(block::key(hour, 7), start(hour), &points(hour), SeriesKind::Gauge);
        assert!(decode_raw(key, start(other), &data).is_err());
        sign(&mut data, key);
        assert_eq!(decode_raw(key, start(other), &data), Ok(points(other).to_vec()));
        sign(&mut [1, 2, 3], key);
    }
}
