//! Pasts of which the outcome is known, and what a forecast must not depend on.

use proptest::prelude::*;

use super::*;

/// Some midnight.
const BEGIN: Second = 20_000 * DAY;
const FULL: f64 = 100.0;

/// A past of `days` days, by a value for each minute.
fn past(days: Second, value: impl Fn(Second) -> f64) -> Vec<Hour> {
    let hour = |h: Second| {
        let values = || (0..60).map(|m| value(h * HOUR + m * 60));
        let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        Hour { at: BEGIN + h * HOUR, min, max }
    };
    (0..days * 24).map(hour).collect()
}

fn without(mut hours: Vec<Hour>, from: Second, to: Second) -> Vec<Hour> {
    hours.retain(|hour| !(BEGIN + from..BEGIN + to).contains(&hour.at));
    hours
}

fn now(hours: &[Hour]) -> Second {
    hours.last().map_or(0, |hour| hour.at + HOUR)
}

fn of(hours: &[Hour]) -> Option<Forecast> {
    forecast(hours, now(hours), FULL)
}

/// The value that a purge each `period` brings down by `height`, to what grows by `per_day`; from 3:20 on.
fn saw_tooth(s: Second, period: Second, (low, height): (f64, f64), per_day: f64) -> f64 {
    let since = (s - 200 * 60).rem_euclid(period);
    low + height * since as f64 / period as f64 + per_day * s as f64 / DAY as f64
}

/// A number in -1..1 that only depends on `n`.
fn noise(n: Second) -> f64 {
    let mut x = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn days(forecast: &Forecast) -> f64 {
    forecast.full_within.expect("it is full some time").as_secs_f64() / DAY as f64
}

#[test]
fn the_daily_purge_of_the_graph_with_a_gap_of_three_hours_keeps_it_below_its_peaks() {
    let graph = past(10, |s| saw_tooth(s, DAY, (62.0, 22.5), 0.0) + 0.3 * noise(s / DAY));
    for gap in [4 * DAY + 14 * HOUR, 4 * DAY + 2 * HOUR, 4 * DAY + HOUR] {
        let said = of(&without(graph.clone(), gap, gap + 3 * HOUR)).expect("a forecast");
        assert_eq!((said.full_within, said.text.as_str()), (None, "the daily purge keeps it below 85 %"));
        assert_eq!(said.basis.period_s, Some(DAY));
        assert!((9..=10).contains(&said.basis.peaks), "{:?}", said.basis);
    }
}

#[test]
fn peaks_that_grow_are_full_when_their_line_is() {
    let said = of(&past(20, |s| saw_tooth(s, DAY, (30.0, 25.0), 1.5) + 0.2 * noise(s / 600))).unwrap();
    // The peaks are at 55 + 1.5 a day.
    assert!((days(&said) - 10.0).abs() < 1.0, "{said:?}");
    assert_eq!(said.text, "full in about 10 days");
    assert!((said.basis.slope_per_day - 1.5).abs() < 0.1, "{:?}", said.basis);
}

#[test]
fn a_steady_fill_is_full_when_its_line_is() {
    for (length, per_day, expected) in [(2, 6.0, 8.0), (5, 4.0, 10.0), (20, 2.0, 10.0)] {
        let said = of(&past(length, |s| 40.0 + per_day * s as f64 / DAY as f64 - 0.2 * noise(s / 60).abs()));
        let said = said.unwrap_or_else(|| panic!("{length} days"));
        assert!((days(&said) - expected).abs() < 0.6, "{length} days: {said:?}");
        assert_eq!(said.basis.period_s, None);
    }
    assert_eq!(of(&past(1, |s| 40.0 + s as f64 / DAY as f64)), None, "too short a past");
}

#[test]
fn what_fills_for_long_is_not_full_within_what_the_past_supports() {
    let said = of(&past(10, |s| 40.0 + 0.1 * s as f64 / DAY as f64)).unwrap();
    assert_eq!(said.full_within, None);
    assert!(said.text.starts_with("not full within"), "{}", said.text);
}

#[test]
fn what_does_not_change_stays_below_full() {
    let said = of(&past(10, |s| 40.0 + 0.3 * noise(s / 60))).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (None, "stays below 41 %"));
    let said = of(&past(10, |_| 40.0)).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (None, "stays below 41 %"));
}

#[test]
fn growth_that_ended_does_not_fill() {
    let ended = |s: Second| 30.0 + s.min(10 * DAY) as f64 / DAY as f64 + 0.05 * noise(s / 60);
    let said = of(&past(20, ended)).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (None, "stays below 41 %"));
    assert!(said.basis.from >= BEGIN + 9 * DAY, "{said:?}");
}

#[test]
fn a_daily_cycle_is_no_purge() {
    let turn = |s: Second| (s as f64 / DAY as f64 * std::f64::consts::TAU).sin();
    let cycle = move |s: Second| 40.0 + 10.0 * turn(s) + 0.5 * noise(s / 60);
    let said = of(&past(20, cycle)).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (None, "stays below 51 %"));
    let said = of(&past(42, |s| cycle(s) + 0.8 * s as f64 / DAY as f64)).unwrap();
    assert!((days(&said) - 20.0).abs() < 1.0, "{said:?}");
}

#[test]
fn only_what_follows_a_step_counts() {
    let grows = |s: Second| 2.0 * s as f64 / DAY as f64;
    let day = |n: Second| n * DAY + 5 * HOUR;
    // Old recordings are removed by hand.
    let said =
        of(&past(30, |s| if s < day(20) { 30.0 + grows(s) } else { 30.0 + grows(s - day(20)) })).unwrap();
    assert!(said.basis.from > BEGIN + day(20) - HOUR, "{said:?}");
    assert!((days(&said) - 25.3).abs() < 1.5, "{said:?}");
    // Something large is copied there.
    let said = of(&past(30, |s| if s < day(15) { 20.0 } else { 50.0 + grows(s - day(15)) })).unwrap();
    assert!(said.basis.from >= BEGIN + day(15), "{said:?}");
    assert!((days(&said) - 10.2).abs() < 1.5, "{said:?}");
    let early = of(&past(16, |s| if s < day(15) { 20.0 } else { 50.0 }));
    assert_eq!(early, None, "the step is a day ago");
}

#[test]
fn a_saw_tooth_goes_on_after_a_step() {
    let stepped = |from: f64, to: f64| {
        past(20, move |s| saw_tooth(s, DAY, (if s < 10 * DAY + 7 * HOUR { from } else { to }, 10.0), 0.0))
    };
    for (from, to, expected) in [
        (25.0, 70.5, "the daily purge keeps it below 81 %"),
        (70.5, 25.5, "the daily purge keeps it below 36 %"),
    ] {
        let said = of(&stepped(from, to)).unwrap();
        assert_eq!((said.full_within, said.text.as_str()), (None, expected), "{said:?}");
    }
}

#[test]
fn a_weekly_purge_is_known_after_four_peaks() {
    let week = 7 * DAY;
    let weekly = |days: Second| past(days, move |s| saw_tooth(s + 2 * DAY, week, (40.0, 35.4), 0.0));
    let said = of(&weekly(36)).unwrap();
    assert_eq!(said.text, "the weekly purge keeps it below 76 %");
    assert_eq!(of(&weekly(18)), None, "two peaks, while the third purge is not overdue");
}

#[test]
fn purges_at_a_level_are_irregular() {
    // Full recordings of 9 to 37 hours are removed at 80 %.
    let mut begins = vec![0];
    while begins.last().is_some_and(|last| *last < 30 * DAY) {
        let n = begins.len() as Second;
        begins.push(begins.last().unwrap() + HOUR * (9 + (14.0 * (1.0 + noise(n))) as Second));
    }
    let level = |s: Second| {
        let i = begins.partition_point(|begin| *begin <= s);
        30.0 + 50.0 * (s - begins[i - 1]) as f64 / (begins[i] - begins[i - 1]) as f64
    };
    let said = of(&past(28, level)).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (None, "purges keep it below 80 %"), "{said:?}");
}

#[test]
fn noise_is_never_full() {
    for seed in 0..100 {
        for (level, width, every) in
            [(50.0, 30.0, 60), (50.0, 30.0, HOUR), (80.0, 15.0, HOUR), (60.0, 2.0, 7 * HOUR)]
        {
            for length in [2, 5, 12, 40] {
                let hours = past(length, |s| level + width * noise(s / every + seed * 1_000_003));
                let said = of(&hours);
                assert!(
                    said.as_ref().is_none_or(|f| f.full_within.is_none()),
                    "{seed} {level} {every} {length}: {said:?}"
                );
            }
        }
    }
}

#[test]
fn a_purge_that_stopped_lets_it_fill() {
    // It fills by 5 a day, from 60 to 65; the last purge was on the 20th day at 3:20.
    let stopped = |s: Second| match s - (20 * DAY + 200 * 60) {
        since if since < 0 => saw_tooth(s, DAY, (60.0, 5.0), 0.0),
        since => 60.0 + 5.0 * since as f64 / DAY as f64,
    };
    let said = of(&past(21, stopped)).unwrap();
    assert_eq!(said.text, "the daily purge keeps it below 65 %", "it may still come");
    // It is 1.4 days ago, and higher than ever.
    let hours: Vec<Hour> =
        past(22, stopped).into_iter().filter(|h| h.at < BEGIN + 21 * DAY + 14 * HOUR).collect();
    let said = of(&hours).unwrap();
    assert!((days(&said) - 6.56).abs() < 0.5, "{said:?}");
    let said = of(&past(25, stopped)).unwrap();
    assert!((days(&said) - 3.1).abs() < 0.4, "{said:?}");
    assert_eq!((said.basis.period_s, said.text.as_str()), (None, "full in about 3 days"));
}

#[test]
fn a_purge_that_comes_too_late_is_said() {
    let said = of(&past(12, |s| saw_tooth(s, DAY, (70.0, 40.0), 0.0).min(100.0))).unwrap();
    assert_eq!(said.text, "full before the daily purge");
    // The next purge is at 3:20, and the hours end at midnight.
    assert!((days(&said) - 0.14).abs() < 0.06, "{said:?}");
    let said = of(&past(12, |_| 100.0)).unwrap();
    assert_eq!((said.full_within, said.text.as_str()), (Some(Duration::ZERO), "full"));
}

#[test]
fn what_was_full_once_is_not_full_nowadays() {
    let once = |s: Second, day: Second| (day * DAY + HOUR..day * DAY + HOUR + 1_800).contains(&s);
    let said = of(&past(40, |s| if once(s, 20) { 100.0 } else { saw_tooth(s, DAY, (40.0, 20.0), 0.0) }));
    assert_eq!(said.and_then(|said| said.full_within), None, "one peak of forty");
    let grows = |s: Second| if once(s, 20) { 100.0 } else { saw_tooth(s, DAY, (40.0, 20.0), 0.8) };
    // The last peak is at 93, so that the ninth from now is at 100.
    let said = of(&past(42, grows)).unwrap();
    assert!((days(&said) - 8.2).abs() < 1.0, "{said:?}");
    let twice = |s: Second| if once(s, 20) || once(s, 29) { 100.0 } else { 40.0 + 2.0 * noise(s / 600) };
    let said = of(&past(40, twice));
    assert_eq!(said.and_then(|said| said.full_within), None, "two hours of forty days");
}

#[test]
fn a_past_that_ended_long_ago_supports_nothing() {
    let hours = past(10, |s| saw_tooth(s, DAY, (60.0, 20.0), 0.0));
    assert!(forecast(&hours, now(&hours) + 20 * HOUR, FULL).is_some());
    assert_eq!(forecast(&hours, now(&hours) + 25 * HOUR, FULL), None);
    assert_eq!(forecast(&[], 0, FULL), None);
    assert_eq!(forecast(&hours, BEGIN - 1, FULL), None);
}

#[test]
fn a_daily_purge_is_daily_over_a_change_of_the_clocks() {
    let shifted = |s: Second| if s < 6 * DAY { s } else { s - HOUR };
    let said = of(&past(12, |s| saw_tooth(shifted(s), DAY, (60.0, 20.4), 0.0))).unwrap();
    assert_eq!(said.text, "the daily purge keeps it below 81 %");
}

#[test]
fn it_is_full_since_the_first_of_its_last_full_hours_or_peaks() {
    let since = |hours: &[Hour]| of(hours).and_then(|said| said.full_since).map(|at| (at - BEGIN) / DAY);
    // It is at 99.5 % after 9.9 days.
    assert_eq!(since(&past(14, |s| (50.0 + 5.0 * s as f64 / DAY as f64).min(100.0))), Some(9));
    assert_eq!(since(&past(12, |_| 100.0)), Some(0));
    assert_eq!(since(&past(12, |s| saw_tooth(s, DAY, (70.0, 40.0), 0.0).min(100.0))), Some(0));
    assert_eq!(since(&past(12, |s| saw_tooth(s, DAY, (60.0, 20.4), 0.0))), None);
}

/// Earlier forecasts: made on day 0 for day 10, on day 1 for day 9, and on day 2 for day 12.
const EARLIER: [(Second, Second); 3] = [(0, 10 * DAY), (DAY, 9 * DAY), (2 * DAY, 12 * DAY)];

fn judged(earlier: &[(Second, Second)], now: Second, present: (Option<Second>, Option<Second>)) -> Accuracy {
    let in_days = |seconds: f64| seconds / DAY as f64;
    let Accuracy { error_s, is_least, change_s } = accuracy(earlier, now * DAY, present);
    Accuracy { error_s: error_s.map(in_days), is_least, change_s: change_s.map(in_days) }
}

#[test]
fn forecasts_are_judged_by_when_it_was_full() {
    let full = |day: Second| (Some(day * DAY), Some(10 * DAY));
    let off = Accuracy { error_s: Some(1.0), ..Accuracy::default() };
    assert_eq!(judged(&EARLIER, 10, full(10)), off);
    assert_eq!(judged(&EARLIER, 25, full(25)), off, "it stays full");
    let emptied = [&EARLIER[..], &[(10 * DAY + HOUR, 10 * DAY)]].concat();
    assert_eq!(judged(&emptied, 25, (None, None)), off, "it was full, and is not any more");
    let late = [&EARLIER[..], &[(9 * DAY + HOUR, 10 * DAY)]].concat();
    assert_eq!(judged(&late, 25, full(25)), off, "less than a day before it is no forecast");
    assert_eq!(judged(&[], 25, full(25)), Accuracy::default());
}

#[test]
fn a_forecast_whose_time_is_over_is_off_by_at_least_that() {
    let least = |days| Accuracy { error_s: Some(days), is_least: true, change_s: None };
    assert_eq!(judged(&EARLIER, 10, (None, None)), least(1.0), "one is over");
    assert_eq!(judged(&EARLIER, 11, (None, None)), least(1.5));
    let expected = Accuracy { change_s: Some(1.0), ..least(1.5) };
    assert_eq!(judged(&EARLIER, 11, (Some(13 * DAY), None)), expected, "the third is not over");
}

#[test]
fn a_forecast_whose_time_is_not_over_can_only_be_compared() {
    assert_eq!(judged(&EARLIER, 5, (None, None)), Accuracy::default(), "by nothing");
    let changed = Accuracy { change_s: Some(2.0), ..Accuracy::default() };
    assert_eq!(judged(&EARLIER, 5, (Some(12 * DAY), None)), changed);
}

/// A past of a random shape.
fn random_past() -> impl Strategy<Value = Vec<Hour>> {
    let shape = (3..40i64, 6..200i64, 0.0..40.0f64, -1.0..2.5f64, 0.0..3.0f64, any::<u32>());
    shape.prop_map(|(days, period, height, per_day, dust, seed)| {
        past(days, move |s| {
            let dust = dust * noise(s / HOUR + i64::from(seed) * 10_007);
            saw_tooth(s, period * HOUR, (20.0, height), per_day) + dust
        })
    })
}

fn close(a: Option<Forecast>, b: Option<Forecast>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => match (a.full_within, b.full_within) {
            (Some(a), Some(b)) => a.abs_diff(b) <= Duration::from_secs(2) + a / 100_000,
            (a, b) => a == b,
        },
        (a, b) => a.is_none() && b.is_none(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_unit_of_the_values_does_not_matter(hours in random_past(), scale in -8i32..20, shift in -1000i32..1000) {
        // Powers of two and small whole numbers lose no digit that matters.
        let (scale, shift) = (2f64.powi(scale), f64::from(shift));
        let moved = |v: f64| (v + shift) * scale;
        let other: Vec<Hour> =
            hours.iter().map(|h| Hour { min: moved(h.min), max: moved(h.max), ..*h }).collect();
        let (a, b) = (of(&hours), forecast(&other, now(&other), moved(FULL)));
        prop_assert!(close(a.clone(), b.clone()), "{:?} {:?}", a, b);
    }

    #[test]
    fn the_time_zone_does_not_matter(hours in random_past(), by in -100_000i64..100_000) {
        let other: Vec<Hour> = hours.iter().map(|h| Hour { at: h.at + by * 900, ..*h }).collect();
        let (a, b) = (of(&hours), of(&other));
        prop_assert_eq!(a.clone().map(|f| (f.full_within, f.text)), b.clone().map(|f| (f.full_within, f.text)));
    }

    #[test]
    fn a_gap_of_three_hours_changes_little(
        from in 2 * 24..13 * 24i64, low in 10.0..40.0f64, height in 15.0..30.0f64, per_day in 1.0..2.0f64,
    ) {
        let hours = past(14, |s| saw_tooth(s, DAY, (low, height), per_day));
        let gap = without(hours.clone(), from * HOUR, (from + 3) * HOUR);
        let (whole, gap) = (of(&hours).expect("a forecast"), of(&gap).expect("a forecast in spite of the gap"));
        let (whole, gap) = (days(&whole), days(&gap));
        prop_assert!((whole - gap).abs() < 0.5 + whole / 10.0, "{} {}", whole, gap);
    }

    #[test]
    fn any_past_has_an_answer(
        hours in proptest::collection::vec((0..2_000i64, -1e9..1e9f64, 0.0..1e9f64), 0..300), now in 0..3_000i64,
    ) {
        let mut hours: Vec<Hour> = hours
            .into_iter()
            .map(|(at, min, more)| Hour { at: at * HOUR, min, max: min + more })
            .collect();
        hours.sort_by_key(|hour| hour.at);
        hours.dedup_by_key(|hour| hour.at);
        let said = forecast(&hours, now * HOUR, 1e9);
        prop_assert!(said.is_none_or(|f| f.full_within.is_none_or(|within| within.as_secs() <= FARTHEST as u64)));
    }
}
