use super::super::block::Damaged;
use super::super::packed::{Packed, read_redo, redo_row};
use super::*;

fn pack(list: &[Point], kind: SeriesKind) -> Packed {
    let mut packed = Packed::default();
    list.iter().for_each(|point| packed.push(*point, kind));
    packed
}

/// Series `1..` are counters where they are odd.
fn kind(series: u32) -> SeriesKind {
    if series % 2 == 1 { SeriesKind::Counter } else { SeriesKind::Gauge }
}

fn any_samples() -> impl Strategy<Value = Vec<(u32, Point)>> {
    let series = prop_oneof![0u32..9, any::<u32>()];
    let samples = (any_points(-1_000..1_000), proptest::collection::vec(series, 150));
    samples.prop_map(|(list, series)| series.into_iter().zip(list).collect())
}

#[test]
fn regular_samples_take_three_bytes_and_no_slack() {
    let value = |i: i64| (12_000 + i * 7_919 % 900) as f64 / 1_000.0;
    let list: Vec<Point> =
        (0..60).map(|i| Point { at: 1_772_366_400 + i * 60 + i % 2, value: Some(value(i)) }).collect();
    let packed = pack(&list, SeriesKind::Gauge);
    assert_eq!(packed.count(), 60);
    assert!(packed.len_bytes() <= 60 * 3 + 48, "{}", packed.len_bytes());
    let repeated: Vec<Point> = list.iter().map(|p| Point { value: Some(0.0), ..*p }).collect();
    assert!(pack(&repeated, SeriesKind::Gauge).len_bytes() <= 60 * 2 + 48);
}

#[test]
fn a_commit_of_one_ping_takes_few_bytes() {
    let at = 1_772_366_400;
    let value = |series, value| (series, Point { at, value: Some(value) });
    let row = redo_row(
        &[value(70_001, 12.345), value(70_002, 0.0), value(70_003, 11.9), value(70_004, 13.2)],
        |_| SeriesKind::Gauge,
    );
    assert!(row.len() <= 30, "{}", row.len());
}

#[test]
fn a_sample_of_the_redo_takes_26_bytes_at_most() {
    let far = |at| Point { at, value: Some(1.0 / 3.0) };
    let list = [(u32::MAX, far(i64::MIN)), (0, far(-1)), (u32::MAX, far(i64::MAX))];
    let row = redo_row(&list, |_| SeriesKind::Counter);
    assert!(row.len() <= 5 + 3 * 26, "{}", row.len());
    assert_eq!(read_redo(&row), Ok(list.to_vec()));
}

#[test]
fn an_empty_row_has_no_samples() {
    assert_eq!(read_redo(&redo_row(&[], kind)), Ok(Vec::new()));
    assert_eq!(read_redo(&[]), Err(Damaged::Short));
    assert_eq!(read_redo(&[9, 0, 0, 0, 0]), Err(Damaged::Version(9)));
}

proptest! {
    #[test]
    fn packed_samples_are_read_in_the_order_of_pushing(
        list in any_points(-100_000..100_000), far in any_points(i64::MIN..i64::MAX), kind in any_kind(),
    ) {
        for list in [list, far] {
            let packed = pack(&list, kind);
            prop_assert_eq!(packed.points(), kept(&list, kind));
            prop_assert_eq!(packed.count() as usize, list.len());
        }
    }

    #[test]
    fn the_redo_is_read_as_it_was_written(samples in any_samples()) {
        let expected: Vec<_> =
            samples.iter().map(|(s, point)| (*s, kept(&[*point], kind(*s))[0])).collect();
        prop_assert_eq!(read_redo(&redo_row(&samples, kind)), Ok(expected));
    }

    /// What is read back in order is what memory has.
    #[test]
    fn replaying_twice_is_replaying_once(samples in any_samples()) {
        let read = read_redo(&redo_row(&samples, kind)).expect("a row");
        let of = |times: usize| {
            let all = std::iter::repeat_n(&read, times).flatten().filter(|(s, _)| *s == 2);
            ordered(pack(&all.map(|(_, p)| *p).collect::<Vec<_>>(), SeriesKind::Gauge).points())
        };
        prop_assert_eq!(of(1), of(2));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_row_is_found(samples in any_samples(), at: usize) {
        let row = redo_row(&samples, kind);
        let (byte, bit) = (at / 8 % row.len(), at % 8);
        let mut flipped = row.clone();
        flipped[byte] ^= 1 << bit;
        prop_assert!(read_redo(&flipped).is_err());
        prop_assert!(byte == row.len() || read_redo(&row[..byte]).is_err());
    }

    /// A checksum that holds, as a fuzzer would make it.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut row = vec![1];
        row.extend(crc32fast::hash(&bytes).to_le_bytes());
        row.extend(&bytes);
        if let Ok(samples) = read_redo(&row) {
            prop_assert!(samples.len() <= bytes.len());
            prop_assert!(samples.iter().all(|(_, p)| p.value.is_none_or(f64::is_finite)));
        }
    }
}
