use super::super::query::{Columns, Kept, Plan, Tier, columns, plan, width};
use super::super::rollup::{merge, roll_up};
use super::super::{BUCKET, DAY, HOUR};
use super::*;

const NOW: Second = 20_000 * DAY;
const KEPT: Kept = Kept { raw: 30 * DAY, five_minutes: 90 * DAY, hours: 1_098 * DAY, days: None };

fn of(age: Second, length: Second, points: u32) -> (Tier, Second) {
    let plan = plan(NOW - age, NOW - age + length, points, NOW, &KEPT);
    (plan.tier, plan.step)
}

#[test]
fn buckets_are_as_wide_as_people_count() {
    let table = [
        ((0, 10, 100), 1),
        ((0, 3_600, 100), 60),
        ((0, DAY, 288), 300),
        ((0, DAY, 287), 600),
        ((0, 30 * DAY, 720), 3_600),
        ((0, 30 * DAY, 30), DAY),
        ((0, 400 * DAY, 100), 4 * DAY),
        ((0, 600, 10), 60),
        ((1, 601, 10), 120),
        ((59, 61, 2), 1),
        ((-1, 1, 0), 1),
    ];
    for ((from, to, most), expected) in table {
        assert_eq!(width(from, to, most), expected, "{from} {to} {most}");
    }
}

#[test]
fn a_part_of_a_plan_has_no_bucket_that_reaches_out_of_its_time() {
    let plan = Plan { tier: Tier::FiveMinutes, step: 300, start: 0, end: 3_000 };
    let part = |from, to| plan.within(from, to).map(|part| (part.start, part.end));
    assert_eq!(part(300, 900), Some((300, 900)));
    assert_eq!(part(301, 1_499), Some((600, 1_200)));
    assert_eq!(part(-9_999, 9_999), Some((0, 3_000)));
    for (from, to) in [(301, 899), (300, 599), (301, 301), (2_701, 9_000), (3_000, 3_300), (600, 300)] {
        assert_eq!(part(from, to), None, "{from} {to}");
    }
    assert_eq!(Plan { start: -600, ..plan }.within(-301, -1).map(|part| part.start), None);
    assert_eq!(Plan { start: -600, ..plan }.within(-301, 0).map(|part| part.start), Some(-300));
}

#[test]
fn columns_are_put_where_their_part_begins() {
    let plan = Plan { tier: Tier::Raw, step: 10, start: 100, end: 140 };
    let one = |value: f64| Columns {
        min: vec![Some(value), None],
        avg: vec![Some(value), None],
        max: vec![Some(value), None],
        count: vec![2, 0],
    };
    let mut all = Columns::of(&plan);
    all.put(&one(1.0), 0);
    all.put(&one(2.0), 3);
    all.put(&one(3.0), 4);
    assert_eq!((&all.avg[..], &all.count[..]), (&[Some(1.0), None, None, Some(2.0)][..], &[2, 0, 0, 2][..]));
    all.remove_first();
    assert_eq!((&all.avg[..], &all.count[..]), (&[None, None, None, Some(2.0)][..], &[0, 0, 0, 2][..]));
    all.remove_first();
    all.remove_first();
    assert_eq!(all, Columns::of(&plan));
}

#[test]
fn the_coarsest_tier_that_has_the_step_answers() {
    let table = [
        ((HOUR, HOUR, 600), (Tier::Raw, 10)),
        ((DAY, DAY, 600), (Tier::FiveMinutes, 300)),
        ((30 * DAY, 30 * DAY, 600), (Tier::Hours, 10_800)),
        ((1_098 * DAY, 1_098 * DAY, 600), (Tier::Days, 2 * DAY)),
        // What is not kept that far is left to the next coarser tier.
        ((31 * DAY, HOUR, 600), (Tier::FiveMinutes, 300)),
        ((91 * DAY, HOUR, 600), (Tier::Hours, 3_600)),
        ((91 * DAY, DAY, 600), (Tier::Hours, 3_600)),
        ((1_099 * DAY, HOUR, 600), (Tier::Days, DAY)),
        ((10_000 * DAY, HOUR, 2), (Tier::Days, DAY)),
        // The future is raw.
        ((-HOUR, HOUR, 600), (Tier::Raw, 10)),
    ];
    for ((age, length, points), expected) in table {
        assert_eq!(of(age, length, points), expected, "{age} {length} {points}");
    }
}

#[test]
fn what_no_tier_keeps_is_asked_of_the_one_that_is_kept_longest() {
    let kept = Kept { raw: DAY, five_minutes: 9 * DAY, hours: 2 * DAY, days: Some(3 * DAY) };
    let of = |age| plan(NOW - age, NOW - age + HOUR, 600, NOW, &kept);
    assert_eq!((of(10 * DAY).tier, of(10 * DAY).step), (Tier::FiveMinutes, 300));
    assert_eq!(of(2 * HOUR).tier, Tier::Raw);
}

#[test]
fn the_steps_of_a_plan_have_their_columns() {
    let plan = Plan { tier: Tier::Raw, step: 60, start: 60, end: 240 };
    let list = points(&[(59, 9.0), (60, 1.0), (119, 2.0), (180, 4.0), (240, 9.0)]);
    let found = columns(&roll_up(&list, None, SeriesKind::Gauge, 60), &plan);
    let expected = Columns {
        min: vec![Some(1.0), None, Some(4.0)],
        avg: vec![Some(1.5), None, Some(4.0)],
        max: vec![Some(2.0), None, Some(4.0)],
        count: vec![2, 0, 1],
    };
    assert_eq!(found, expected);
}

#[test]
fn tiers_have_their_names() {
    assert_eq!(Tier::ALL.map(Tier::name), ["raw", "5m", "1h", "1d"]);
    assert!(Tier::ALL.windows(2).all(|pair| pair[0].step_s() < pair[1].step_s()));
    // Each block begins at a whole hour, and holds no more than a block may.
    assert!(Tier::ALL[1..].iter().all(|tier| tier.block_days() * DAY / tier.step_s() <= 2_304));
}

fn any_kept() -> impl Strategy<Value = Kept> {
    let days = (1i64..400, 1i64..400, 1i64..4_000, proptest::option::of(1i64..9_000));
    days.prop_map(|(raw, five_minutes, hours, days)| Kept {
        raw: raw * DAY,
        five_minutes: five_minutes * DAY,
        hours: hours * DAY,
        days: days.map(|days| days * DAY),
    })
}

proptest! {
    #[test]
    fn a_plan_covers_the_time_with_no_more_points_than_asked_for(
        age in -DAY..6_000 * DAY, length in 1i64..6_000 * DAY, points in 1u32..2_000, kept in any_kept(),
    ) {
        let (from, to) = (NOW - age, NOW - age + length);
        let Plan { tier, step, start, end } = plan(from, to, points, NOW, &kept);
        prop_assert!(start <= from && to <= end && from - start < step && end - to < step);
        prop_assert!(start % step == 0 && end % step == 0 && step % tier.step_s() == 0);
        prop_assert!((end - start) / step <= i64::from(points.max(2)));
        // Samples are read for short steps only, of which there are few days.
        prop_assert!((tier == Tier::Raw) == (step < 300));
        prop_assert!(tier != Tier::Raw || end - start <= 2_000 * 120);
    }

    #[test]
    fn any_numbers_have_a_plan(from: i64, to: i64, points: u32, now: i64, raw: i64, hours: i64) {
        let kept = Kept { raw, five_minutes: hours, hours, days: Some(raw) };
        let plan = plan(from, to, points, now, &kept);
        prop_assert!(plan.start < plan.end && plan.step > 0);
    }

    /// A coarser tier gives what a finer one would.
    #[test]
    fn a_coarser_tier_equals_a_finer_one(
        list in proptest::collection::vec((0i64..3 * DAY, -9_999i64..9_999), 1..400),
        from in 0i64..2 * DAY, length in 1i64..2 * DAY, points in 1u32..100,
    ) {
        let sample = |(at, value): (i64, i64)| Point { at, value: Some(value as f64 / 100.0) };
        let list = ordered(list.into_iter().map(sample).collect());
        let narrow: Vec<_> = (0..3).flat_map(|day| {
            let of_day: Vec<Point> = list.iter().filter(|p| p.at.div_euclid(DAY) == day).copied().collect();
            roll_up(&of_day, None, SeriesKind::Gauge, BUCKET)
        }).collect();
        let hours = merge(&narrow, BUCKET, HOUR);
        let plan = plan(from, from + length, points, 3 * DAY, &KEPT);
        prop_assume!(plan.step >= BUCKET);
        let finest = columns(&narrow, &plan);
        let tiers = [(Tier::Hours, &hours), (Tier::Days, &merge(&hours, HOUR, DAY))];
        for (tier, buckets) in tiers {
            if plan.step % tier.step_s() == 0 {
                prop_assert_eq!(&columns(buckets, &plan), &finest);
            }
        }
        // And what the samples themselves give.
        for (i, count) in finest.count.iter().enumerate() {
            let at = plan.start + i as i64 * plan.step;
            let mine: Vec<f64> = list.iter().filter(|p| (at..at + plan.step).contains(&p.at)).filter_map(|p| p.value).collect();
            prop_assert_eq!(mine.len(), *count as usize);
            prop_assert_eq!(mine.iter().copied().reduce(f64::min), finest.min[i]);
            prop_assert_eq!(mine.iter().copied().reduce(f64::max), finest.max[i]);
            let mean = mine.iter().sum::<f64>() / mine.len() as f64;
            prop_assert!(finest.avg[i].is_none_or(|avg| (avg - mean).abs() < 1e-9));
        }
    }
}
