use super::super::block::{decode_buckets, decode_raw, encode_buckets, encode_raw, key};
use super::super::rollup::{Bucket, fuller, merge, reach, replaced, replaced_days, roll_up, values};
use super::super::{BUCKET, DAY, HOUR};
use super::*;

/// A day of samples at nearly regular times: some lost, some gaps, an outage.
fn any_day() -> impl Strategy<Value = Vec<Point>> {
    let sample = (0i64..5, proptest::option::weighted(0.95, -99_999i64..99_999), 0u8..20);
    let every = prop_oneof![Just(60i64), Just(300), 200..900i64];
    (every, proptest::collection::vec(sample, 144..1_440), 0..DAY, 0..DAY / 4).prop_map(
        |(every, samples, from, outage)| {
            let at = |i: usize, jitter: i64| i as i64 * every + jitter;
            let list = samples.into_iter().enumerate().filter(|(_, (.., lost))| *lost > 0);
            let list = list.map(|(i, (jitter, value, _))| Point {
                at: at(i, jitter),
                value: value.map(|v| v as f64 / 100.0),
            });
            list.filter(|p| p.at < DAY && !(from..from + outage).contains(&p.at)).collect()
        },
    )
}

/// A short piece of a day, dense enough for every case and short enough to look at every second.
fn any_piece() -> impl Strategy<Value = (Vec<Point>, Option<Point>)> {
    let value = proptest::option::weighted(0.85, 0i64..1_000);
    let step = prop_oneof![5 => 1i64..30, 1 => 30i64..700];
    let before = proptest::option::of((1i64..60, 0i64..1_000));
    (proptest::collection::vec((step, value), 0..60), before).prop_map(|(steps, before)| {
        let mut at = 0;
        let mut point = |(step, value): (i64, Option<i64>)| {
            at += step;
            Point { at, value: value.map(|v| v as f64 / 10.0) }
        };
        let list = steps.into_iter().map(&mut point).collect();
        (list, before.map(|(age, value)| Point { at: -age, value: Some(value as f64 / 10.0) }))
    })
}

/// The same, second by second.
fn naive(points: &[Point], before: Option<Point>, kind: SeriesKind, width: Second) -> Vec<Bucket> {
    let all: Vec<Point> = before.into_iter().chain(points.iter().copied()).collect();
    let mut steps: Vec<i64> = points.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    steps.sort_unstable();
    let reach = if steps.is_empty() { 0 } else { (steps[(steps.len() - 1) / 2] * 3).clamp(10, 3 * HOUR) };
    let mut known: Vec<(i64, f64)> = Vec::new();
    let mut covered: Vec<std::ops::Range<i64>> = Vec::new();
    for (i, point) in all.iter().enumerate() {
        let previous = i.checked_sub(1).map(|i| all[i]);
        let near = previous.filter(|p| point.at - p.at <= reach);
        let value = match kind {
            SeriesKind::Gauge => point.value,
            SeriesKind::Counter => near.and_then(|p| match (p.value?, point.value?) {
                (a, b) if b < a => None,
                (a, b) => Some(super::super::decimal::significant((b - a) / (point.at - p.at) as f64, 6)),
            }),
        };
        if let Some(value) = value
            && before.is_none_or(|before| before.at != point.at)
        {
            known.push((point.at, value));
            covered.extend(near.map(|p| p.at..point.at));
        }
    }
    let end = all.last().map_or(0, |p| p.at + 1);
    let mut buckets = Vec::new();
    for at in (0..end).step_by(width as usize) {
        let mine: Vec<f64> =
            (at..at + width).flat_map(|s| known.iter().filter(move |k| k.0 == s)).map(|k| k.1).collect();
        let unknown = (at..at + width).filter(|s| !covered.iter().any(|range| range.contains(s))).count();
        let Some(last) = mine.last() else { continue };
        buckets.push(Bucket {
            at,
            min: mine.iter().copied().fold(f64::INFINITY, f64::min),
            max: mine.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            sum: mine.iter().sum(),
            count: mine.len() as u32,
            last: *last,
            unknown_s: unknown as u32,
        });
    }
    buckets
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// Equal but for the dust of a sum.
fn same(a: &[Bucket], b: &[Bucket]) -> bool {
    let rest = |b: &Bucket| Bucket { sum: 0.0, ..*b };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| rest(a) == rest(b) && close(a.sum, b.sum))
}

fn known(list: &[Bucket]) -> Vec<Bucket> {
    list.iter().map(|b| Bucket { unknown_s: 0, ..*b }).collect()
}

#[test]
fn a_bucket_has_what_its_samples_have() {
    let list = points(&[(0, 5.0), (60, 1.0), (120, 9.0), (180, 3.0), (300, 4.0)]);
    let first = Bucket { at: 0, min: 1.0, max: 9.0, sum: 18.0, count: 4, last: 3.0, unknown_s: 0 };
    // The sample at 300 covers the end of the first bucket and nothing of its own.
    let second = Bucket { at: 300, min: 4.0, max: 4.0, sum: 4.0, count: 1, last: 4.0, unknown_s: 300 };
    assert_eq!(roll_up(&list, None, SeriesKind::Gauge, BUCKET), [first, second]);
}

#[test]
fn a_gap_stays_a_gap() {
    let mut list: Vec<Point> = (0..1_440).map(|i| Point { at: i * 60, value: Some(1.0) }).collect();
    list.retain(|p| !(3 * HOUR..6 * HOUR).contains(&p.at));
    list.iter_mut().filter(|p| (12 * HOUR..13 * HOUR).contains(&p.at)).for_each(|p| p.value = None);
    let buckets = roll_up(&list, None, SeriesKind::Gauge, BUCKET);
    assert!(!buckets.iter().any(|b| (3 * HOUR..6 * HOUR).contains(&b.at)));
    assert!(!buckets.iter().any(|b| (12 * HOUR..13 * HOUR).contains(&b.at)));
    let hours = merge(&buckets, BUCKET, HOUR);
    assert_eq!(hours.len(), 20);
    let day = merge(&hours, HOUR, DAY);
    // The hours that are missing, the minutes before them, and the last of the day.
    assert_eq!((day[0].unknown_s, day[0].count), (4 * 3_600 + 3 * 60, 1_200));
}

#[test]
fn across_a_reset_the_rate_is_unknown() {
    let list = points(&[(0, 100.0), (60, 160.0), (120, 30.0), (180, 90.0)]);
    let rates = values(&list, None, SeriesKind::Counter, reach(&list));
    assert_eq!(rates.iter().map(|p| p.value).collect::<Vec<_>>(), [None, Some(1.0), None, Some(1.0)]);
    let bucket = roll_up(&list, None, SeriesKind::Counter, BUCKET)[0];
    assert_eq!((bucket.sum, bucket.count, bucket.unknown_s), (2.0, 2, 300 - 120));
}

#[test]
fn a_rate_over_an_outage_is_unknown() {
    let list = points(&[(0, 0.0), (60, 60.0), (120, 120.0), (4_000, 9_000.0), (4_060, 9_060.0)]);
    let rates = values(&list, None, SeriesKind::Counter, reach(&list));
    assert_eq!(rates.iter().filter_map(|p| p.value).collect::<Vec<_>>(), [1.0, 1.0, 1.0]);
}

#[test]
fn a_rate_begins_with_the_sample_before_the_day() {
    let list = points(&[(DAY, 160.0), (DAY + 60, 220.0)]);
    let before = Some(Point { at: DAY - 60, value: Some(40.0) });
    let rates: Vec<_> = values(&list, before, SeriesKind::Counter, 180).iter().map(|p| p.value).collect();
    assert_eq!(rates, [Some(2.0), Some(1.0)]);
    assert_eq!(values(&list, None, SeriesKind::Counter, 180)[0].value, None);
}

#[test]
fn a_counter_that_begins_again_at_midnight_has_no_rate_there() {
    let before = Some(Point { at: DAY - 60, value: Some(9_000.0) });
    let list = points(&[(DAY, 5.0), (DAY + 60, 65.0), (DAY + 120, 125.0)]);
    let rates: Vec<_> = values(&list, before, SeriesKind::Counter, 180).iter().map(|p| p.value).collect();
    assert_eq!(rates, [None, Some(1.0), Some(1.0)]);
    let bucket = roll_up(&list, before, SeriesKind::Counter, BUCKET)[0];
    assert_eq!((bucket.at, bucket.min, bucket.max, bucket.count), (DAY, 1.0, 1.0, 2));
    let day = merge(&merge(&[bucket], BUCKET, HOUR), HOUR, DAY)[0];
    assert_eq!((day.min, day.max, day.sum, day.count), (1.0, 1.0, 2.0, 2), "no tier has the fall");
}

#[test]
fn the_reach_is_three_usual_intervals() {
    let every = |step: i64| (0..9).map(|i| Point { at: i * step, value: None }).collect::<Vec<_>>();
    assert_eq!([1, 60, 7_200].map(|step| reach(&every(step))), [10, 180, 3 * HOUR]);
    assert_eq!((reach(&[]), reach(&every(60)[..1])), (0, 0));
}

#[test]
fn a_lone_sample_covers_nothing() {
    let before = Some(Point { at: -60, value: Some(1.0) });
    let bucket = roll_up(&points(&[(30, 2.0)]), before, SeriesKind::Gauge, BUCKET)[0];
    assert_eq!((bucket.count, bucket.unknown_s), (1, 300));
}

#[test]
fn a_value_that_is_not_finite_is_a_gap() {
    let list = points(&[(0, 1.0), (60, f64::NAN), (120, f64::INFINITY), (180, 3.0)]);
    let bucket = roll_up(&list, None, SeriesKind::Gauge, BUCKET)[0];
    assert_eq!((bucket.min, bucket.max, bucket.sum, bucket.count), (1.0, 3.0, 4.0, 2));
}

#[test]
fn the_largest_numbers_have_a_finite_sum() {
    let list = points(&[(0, f64::MAX), (60, f64::MAX), (120, f64::MAX)]);
    let bucket = roll_up(&list, None, SeriesKind::Gauge, BUCKET)[0];
    assert_eq!((bucket.max, bucket.sum), (f64::MAX, f64::MAX));
    let hours = merge(&[bucket, Bucket { at: 300, ..bucket }], BUCKET, HOUR);
    assert_eq!(hours[0].sum, f64::MAX);
}

#[test]
fn newer_buckets_take_the_place_of_older_ones() {
    let bucket = |at, max| Bucket { at, min: 0.0, max, sum: max, count: 1, last: max, unknown_s: 0 };
    let older = [bucket(0, 1.0), bucket(300, 1.0)];
    let newer = [bucket(300, 2.0), bucket(600, 2.0)];
    assert_eq!(replaced(&older, &newer), [bucket(0, 1.0), bucket(300, 2.0), bucket(600, 2.0)]);
    let days = std::collections::BTreeSet::from([0]);
    assert_eq!(replaced_days(&older, &newer, &days, 0), newer, "the day has no bucket at 0 any more");
    assert_eq!(replaced_days(&older, &newer, &[DAY].into(), 0), replaced(&older, &newer));
}

#[test]
fn of_days_that_lost_samples_the_bucket_with_more_of_them_counts() {
    let bucket = |at, count| Bucket { at, min: 0.0, max: 1.0, sum: 1.0, count, last: 1.0, unknown_s: 0 };
    let older = [bucket(0, 5), bucket(300, 5), bucket(600, 1), bucket(DAY, 5)];
    let late = Bucket { max: 9.0, ..bucket(300, 5) };
    let newer = [bucket(0, 1), late, bucket(900, 1), bucket(DAY, 1)];
    let lossy = [bucket(0, 5), late, bucket(600, 1), bucket(900, 1)];
    assert_eq!(fuller(&older[..3], &newer[..3]), lossy);
    let days = std::collections::BTreeSet::from([0, DAY]);
    let found = replaced_days(&older, &newer, &days, DAY);
    assert_eq!((&found[..4], &found[4..]), (&lossy[..], &newer[3..]), "the next day is whole");
}

proptest! {
    #[test]
    fn rolling_up_agrees_with_looking_at_every_second(
        (list, before) in any_piece(), kind in any_kind(), width in prop_oneof![Just(60i64), Just(300)],
    ) {
        let (rolled, naive) = (roll_up(&list, before, kind, width), naive(&list, before, kind, width));
        prop_assert!(same(&rolled, &naive), "{:?}\n{:?}", rolled, naive);
    }

    #[test]
    fn merged_buckets_are_those_of_the_samples(list in any_day(), kind in any_kind()) {
        let narrow = roll_up(&list, None, kind, BUCKET);
        let hours = merge(&narrow, BUCKET, HOUR);
        for (merged, width) in [(hours.clone(), HOUR), (merge(&narrow, BUCKET, DAY), DAY), (merge(&hours, HOUR, DAY), DAY)] {
            let rolled = roll_up(&list, None, kind, width);
            prop_assert!(same(&known(&merged), &known(&rolled)), "{:?}\n{:?}", merged, rolled);
            // What is unknown of an absent part is known to the samples at most.
            prop_assert!(merged.iter().zip(&rolled).all(|(m, r)| m.unknown_s >= r.unknown_s));
        }
    }

    #[test]
    fn by_way_of_hours_a_day_is_the_same(list in any_day()) {
        let narrow = roll_up(&list, None, SeriesKind::Gauge, BUCKET);
        prop_assert_eq!(merge(&merge(&narrow, BUCKET, HOUR), HOUR, DAY), merge(&narrow, BUCKET, DAY));
    }

    #[test]
    fn a_spike_survives_every_tier(mut list in any_day(), at: prop::sample::Index, height in 1_000i64..90_000) {
        prop_assume!(!list.is_empty());
        let spike = height as f64 + 0.5;
        let i = at.index(list.len());
        list[i].value = Some(spike);
        let stored = {
            let block = encode_raw(key(0, 1), 0, &list, SeriesKind::Gauge);
            decode_raw(key(0, 1), 0, &block).expect("a block")
        };
        let mut buckets = roll_up(&stored, None, SeriesKind::Gauge, BUCKET);
        for (from, to) in [(BUCKET, BUCKET), (BUCKET, HOUR), (HOUR, DAY)] {
            let block = encode_buckets(key(0, 1), 0, to, &merge(&buckets, from, to));
            buckets = decode_buckets(key(0, 1), 0, to, &block).expect("a block");
            let of_it = buckets.iter().find(|b| b.at == list[i].at.div_euclid(to) * to);
            prop_assert_eq!(of_it.map(|b| b.max), Some(spike));
        }
    }

    /// A day of the clock on the wall has 23, 24 or 25 hours and begins at any quarter of an hour of UTC.
    #[test]
    fn a_day_on_which_the_clocks_change_has_its_own_samples_and_no_others(
        days in proptest::array::uniform3(any_day()), quarter in 0i64..96, hours in 23i64..=25,
    ) {
        let of_day = |(n, day): (i64, &Vec<Point>)| -> Vec<Point> {
            day.iter().map(|p| Point { at: p.at + n * DAY, value: p.value }).collect()
        };
        let days: Vec<Vec<Point>> = (0i64..).zip(&days).map(of_day).collect();
        let buckets = days.iter().flat_map(|day| roll_up(day, None, SeriesKind::Gauge, BUCKET));
        let begin = quarter * 900;
        let span = begin..begin + hours * HOUR;
        let mine: Vec<Bucket> = buckets.filter(|b| span.contains(&b.at)).collect();
        let values: Vec<f64> =
            days.iter().flatten().filter(|p| span.contains(&p.at)).filter_map(|p| p.value).collect();
        prop_assert_eq!(mine.iter().map(|b| b.count as usize).sum::<usize>(), values.len());
        prop_assert!(close(mine.iter().map(|b| b.sum).sum(), values.iter().sum()));
        let (lowest, highest) = (f64::INFINITY, f64::NEG_INFINITY);
        prop_assert_eq!(mine.iter().map(|b| b.min).fold(lowest, f64::min), values.iter().copied().fold(lowest, f64::min));
        prop_assert_eq!(mine.iter().map(|b| b.max).fold(highest, f64::max), values.iter().copied().fold(highest, f64::max));
    }

    #[test]
    fn late_samples_give_what_samples_in_order_give(
        list in any_day(), order in any::<u64>(), late in 0usize..100, kind in any_kind(),
    ) {
        let mut shuffled = list.clone();
        shuffled.sort_by_key(|p| (p.at as u64).wrapping_mul(order | 1).rotate_left(17));
        let (before, after) = shuffled.split_at(shuffled.len() - late.min(shuffled.len()));
        let sealed = ordered(before.to_vec());
        let all = super::super::merged(&sealed, &ordered(after.to_vec()));
        prop_assert_eq!(&all, &list);
        prop_assert_eq!(roll_up(&all, None, kind, BUCKET), roll_up(&list, None, kind, BUCKET));
    }

    /// A counter's rates, each by its time, are what it grew by while it was known.
    #[test]
    fn rates_add_up_to_what_was_counted(steps in proptest::collection::vec((1i64..=60, 0i64..1_000), 2..200)) {
        let (mut at, mut value) = (0, 0);
        let mut list = vec![Point { at, value: Some(0.0) }];
        for (step, growth) in steps {
            (at, value) = (at + step, value + growth);
            list.push(Point { at, value: Some(value as f64) });
        }
        let rates = values(&list, None, SeriesKind::Counter, HOUR);
        let times = list.windows(2).map(|pair| (pair[1].at - pair[0].at) as f64);
        let total: f64 = times.zip(&rates[1..]).map(|(time, rate)| time * rate.value.unwrap_or(f64::NAN)).sum();
        prop_assert!((total - value as f64).abs() <= value as f64 * 1e-5, "{} {}", total, value);
    }

    /// Buckets of the samples in memory are those of the samples that were stored.
    #[test]
    fn what_is_rolled_up_on_the_fly_is_what_is_compacted(list in any_points(0..43_200), kind in any_kind()) {
        let list = ordered(list);
        let block = encode_raw(key(0, 1), 0, &list, kind);
        let stored = decode_raw(key(0, 1), 0, &block).expect("a block");
        let (fly, compacted) = (roll_up(&kept(&list, kind), None, kind, BUCKET), roll_up(&stored, None, kind, BUCKET));
        prop_assert_eq!(&fly, &compacted);
        let block = encode_buckets(key(0, 1), 0, BUCKET, &compacted);
        let read = decode_buckets(key(0, 1), 0, BUCKET, &block).expect("a block");
        prop_assert_eq!(read, compacted);
        if kind == SeriesKind::Gauge {
            prop_assert_eq!(roll_up(&list, None, kind, BUCKET), fly);
        }
    }
}
