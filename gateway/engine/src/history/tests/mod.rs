mod blocks;
mod groups;
mod packed;
mod plans;
mod rollup;
mod sizes;
mod values;

use proptest::prelude::*;

use super::{Point, Second, SeriesKind, decimal, ordered};

/// Values as checks measure them, and everything else that a double can be.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1_000_000i64..1_000_000, 0u8..=9).prop_map(|(m, e)| decimal::value(m, e)),
        2 => -1e6..1e6,
        1 => (0u64..1 << 53).prop_map(|n| n as f64),
        2 => any::<f64>(),
    ]
}

fn any_kind() -> impl Strategy<Value = SeriesKind> {
    prop_oneof![Just(SeriesKind::Gauge), Just(SeriesKind::Counter)]
}

fn any_points(times: std::ops::Range<Second>) -> impl Strategy<Value = Vec<Point>> {
    let point = (times, proptest::option::weighted(0.9, any_value()));
    proptest::collection::vec(point.prop_map(|(at, value)| Point { at, value }), 0..150)
}

/// Returns what is kept of samples, bit for bit.
fn kept(points: &[Point], kind: SeriesKind) -> Vec<Point> {
    let value = |p: &Point| p.value.filter(|v| v.is_finite()).map(|v| decimal::kept(v, kind));
    points.iter().map(|p| Point { at: p.at, value: value(p) }).collect()
}

fn points(list: &[(Second, f64)]) -> Vec<Point> {
    list.iter().map(|(at, value)| Point { at: *at, value: Some(*value) }).collect()
}

#[test]
fn of_equal_seconds_the_last_counts() {
    let list = points(&[(5, 1.0), (3, 2.0), (5, 3.0), (4, 4.0), (5, 5.0)]);
    assert_eq!(ordered(list), points(&[(3, 2.0), (4, 4.0), (5, 5.0)]));
    let gap = Point { at: 3, value: None };
    assert_eq!(ordered(vec![points(&[(3, 2.0)])[0], gap]), [gap]);
}

#[test]
fn only_unit_c_is_a_counter() {
    assert_eq!(["c", "", "B", "C", "cs"].map(SeriesKind::of), {
        use SeriesKind::*;
        [Counter, Gauge, Gauge, Gauge, Gauge]
    });
}

proptest! {
    #[test]
    fn merging_is_ordering_with_the_newer_last(
        older in any_points(0..100), newer in any_points(0..100),
    ) {
        let clean = |list: Vec<Point>| ordered(kept(&list, SeriesKind::Gauge));
        let (older, newer) = (clean(older), clean(newer));
        let all = [older.clone(), newer.clone()].concat();
        prop_assert_eq!(super::merged(&older, &newer), ordered(all));
    }

    #[test]
    fn sealing_the_same_again_changes_nothing(list in any_points(0..500), at in 0usize..150) {
        let list = ordered(kept(&list, SeriesKind::Gauge));
        let part = &list[at.min(list.len())..];
        prop_assert_eq!(super::merged(&list, part), list.clone());
        prop_assert_eq!(super::merged(part, &list), list.clone());
    }
}
