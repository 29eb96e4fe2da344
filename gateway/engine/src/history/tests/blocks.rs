use super::super::block::{
    Damaged, MAX_IN_BLOCK, decode_buckets, decode_raw, encode_buckets, encode_raw, key, parts,
};
use super::super::rollup::{Bucket, replaced, roll_up};
use super::super::{BUCKET, DAY, HOUR};
use super::*;

const HOURS: u32 = 492_324;
const START: Second = HOURS as i64 * HOUR;
const KEY: i64 = key(HOURS, 70_001);

fn any_bucket() -> impl Strategy<Value = Bucket> {
    let values = prop_oneof![
        proptest::array::uniform4(any_value()),
        proptest::array::uniform4((-9_999i64..9_999).prop_map(|m| m as f64 / 100.0)),
    ];
    (0i64..2_304, values, any::<u32>(), any::<u32>()).prop_map(
        |(slot, [min, max, sum, last], count, unknown_s)| Bucket {
            at: START + slot * BUCKET,
            min,
            max,
            sum,
            count,
            last,
            unknown_s,
        },
    )
}

fn any_buckets() -> impl Strategy<Value = Vec<Bucket>> {
    let list = proptest::collection::vec(any_bucket(), 0..100);
    list.prop_map(|list| list.iter().fold(Vec::new(), |all, b| replaced(&all, std::slice::from_ref(b))))
}

/// Minus zero is zero.
fn same(a: &[Bucket], b: &[Bucket]) -> bool {
    let bits = |b: &Bucket| [b.min, b.max, b.sum, b.last].map(|v| (v + 0.0).to_bits());
    let whole = |b: &Bucket| (b.at, b.count, b.unknown_s);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(a) == bits(b) && whole(a) == whole(b))
}

/// Makes the checksum hold.
fn signed(mut block: Vec<u8>) -> Vec<u8> {
    let covered = [&block[..6], &KEY.to_le_bytes(), &block[10..]].concat();
    let checksum = crc32fast::hash(&covered).to_le_bytes();
    block[6..10].copy_from_slice(&checksum);
    block
}

#[test]
fn a_key_is_its_parts() {
    for (hour, series) in [(0, 0), (HOURS, 1), (u32::MAX >> 1, u32::MAX >> 1), (1, u32::MAX >> 1)] {
        assert_eq!(parts(key(hour, series)), (hour, series));
    }
    assert!(key(1, 0) > key(0, u32::MAX >> 1));
}

#[test]
fn empty_blocks_have_no_entries() {
    let raw = encode_raw(KEY, START, &[], SeriesKind::Gauge);
    assert_eq!(decode_raw(KEY, START, &raw), Ok(Vec::new()));
    let buckets = encode_buckets(KEY, START, BUCKET, &[]);
    assert_eq!(decode_buckets(KEY, START, BUCKET, &buckets), Ok(Vec::new()));
}

#[test]
fn a_block_in_another_place_or_of_another_kind_is_damaged() {
    let raw = encode_raw(KEY, START, &points(&[(START, 1.0)]), SeriesKind::Gauge);
    assert_eq!(decode_raw(key(HOURS, 70_002), START, &raw), Err(Damaged::Checksum));
    assert_eq!(decode_buckets(KEY, START, BUCKET, &raw), Err(Damaged::Kind(0)));
    let newer = [&[2], &raw[1..]].concat();
    assert_eq!(decode_raw(KEY, START, &newer), Err(Damaged::Version(2)));
}

#[test]
fn half_a_day_of_every_second_fits_and_more_keeps_the_newest() {
    let day: Vec<Point> =
        (0..DAY).map(|s| Point { at: START + s, value: Some((s % 977) as f64 / 100.0) }).collect();
    let half = &day[..MAX_IN_BLOCK];
    let read = |list: &[Point]| decode_raw(KEY, START, &encode_raw(KEY, START, list, SeriesKind::Gauge));
    assert_eq!(read(half).as_deref(), Ok(half));
    assert_eq!(read(&day).as_deref(), Ok(&day[MAX_IN_BLOCK..]));
}

#[test]
fn a_block_of_gaps_is_short() {
    let gaps: Vec<Point> = (0..720).map(|i| Point { at: START + i * 60, value: None }).collect();
    let block = encode_raw(KEY, START, &gaps, SeriesKind::Gauge);
    assert!(block.len() < 100, "{}", block.len());
    assert_eq!(decode_raw(KEY, START, &block), Ok(gaps));
}

#[test]
fn a_block_that_is_out_of_order_is_encoded_in_order() {
    let list = points(&[(START + 9, 1.0), (START + 3, 2.0), (START + 9, 3.0)]);
    let block = encode_raw(KEY, START, &list, SeriesKind::Gauge);
    assert_eq!(decode_raw(KEY, START, &block), Ok(ordered(list)));
    let bucket = |slot: i64| Bucket {
        at: START + slot * BUCKET,
        ..roll_up(&points(&[(0, 1.0)]), None, SeriesKind::Gauge, 1)[0]
    };
    let block = encode_buckets(KEY, START, BUCKET, &[bucket(2), bucket(1)]);
    assert_eq!(decode_buckets(KEY, START, BUCKET, &block), Ok(vec![bucket(1), bucket(2)]));
}

#[test]
fn sums_beyond_whole_numbers_are_kept_to_the_bit() {
    let large = 9_007_199_254_740_991.0;
    let bucket = Bucket {
        at: START,
        min: large,
        max: large,
        sum: large * 288.0,
        count: 288,
        last: large,
        unknown_s: 0,
    };
    let block = encode_buckets(KEY, START, BUCKET, &[bucket]);
    assert_eq!(decode_buckets(KEY, START, BUCKET, &block), Ok(vec![bucket]));
}

proptest! {
    #[test]
    fn raw_blocks_are_read_as_they_were_written(
        list in any_points(START..START + 43_200), far in any_points(i64::MIN..i64::MAX), kind in any_kind(),
    ) {
        for list in [list, far] {
            let read = decode_raw(KEY, START, &encode_raw(KEY, START, &list, kind));
            prop_assert_eq!(read, Ok(kept(&ordered(list), kind)));
        }
    }

    #[test]
    fn a_block_that_is_encoded_again_is_the_same(
        list in any_points(START..START + 43_200), kind in any_kind(),
    ) {
        let block = encode_raw(KEY, START, &list, kind);
        let read = decode_raw(KEY, START, &block).expect("a block");
        prop_assert_eq!(encode_raw(KEY, START, &read, kind), block);
    }

    #[test]
    fn blocks_of_buckets_are_read_as_they_were_written(list in any_buckets()) {
        let read = decode_buckets(KEY, START, BUCKET, &encode_buckets(KEY, START, BUCKET, &list));
        prop_assert!(same(&read.expect("a block"), &list));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_block_is_found(
        list in any_points(START..START + 43_200), buckets in any_buckets(), at: usize,
    ) {
        let raw = encode_raw(KEY, START, &list, SeriesKind::Gauge);
        let rolled = encode_buckets(KEY, START, BUCKET, &buckets);
        let reads_raw = |block: &[u8]| decode_raw(KEY, START, block).is_ok();
        let reads_buckets = |block: &[u8]| decode_buckets(KEY, START, BUCKET, block).is_ok();
        for (block, reads) in [(raw, &reads_raw as &dyn Fn(&[u8]) -> bool), (rolled, &reads_buckets)] {
            let (byte, bit) = (at / 8 % block.len(), at % 8);
            let mut flipped = block.clone();
            flipped[byte] ^= 1 << bit;
            prop_assert!(!reads(&flipped));
            prop_assert!(!reads(&block[..byte]));
        }
    }

    /// Damage behind a checksum that holds: an error or entries in order, and no more than a block may have.
    #[test]
    fn no_columns_make_the_decoder_panic(
        list in any_points(START..START + 43_200), buckets in any_buckets(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6), cut: usize,
    ) {
        let raw = encode_raw(KEY, START, &list, SeriesKind::Gauge);
        let rolled = encode_buckets(KEY, START, BUCKET, &buckets);
        for mut block in [raw, rolled] {
            let len = block.len();
            for (at, byte) in &changes {
                block[2 + at % (len - 2)] = *byte;
            }
            let shorter = signed(block[..10 + cut % (len - 9)].to_vec());
            for block in [signed(block), shorter] {
                let points = decode_raw(KEY, START, &block).unwrap_or_default();
                prop_assert!(points.is_sorted_by(|a, b| a.at < b.at) && points.len() <= MAX_IN_BLOCK);
                let buckets = decode_buckets(KEY, START, BUCKET, &block).unwrap_or_default();
                prop_assert!(buckets.is_sorted_by(|a, b| a.at < b.at));
            }
        }
    }
}
