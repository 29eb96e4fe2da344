//! Metrics of many hosts over any time: answers are what the samples say, whichever tier they come from.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Metric;
use serde_json::json;

use crate::api::metrics::text;
use crate::api::metrics_query::{MetricsQuery, QueriedSeries, QueryLimits};
use crate::api::request::ids::{self, IdKind};
use crate::api::testing::TestApi;
use crate::history::Keep;
use crate::store::fixture::{self, Dice};
use crate::store::history::{SeriesCache, series};

/// The highest number of a series.
const LAST: u32 = u32::MAX >> 1;

pub(super) fn sample(host: HostId, service: &str, at: Second, metrics: Vec<Metric>) -> Sample {
    Sample { host, service: service.into(), at: Wall::from_millis(at * 1_000), metrics: metrics.into() }
}

/// Records samples as the writer does.
pub(super) async fn record(api: &TestApi, samples: &[Sample]) {
    crate::history::testing::record(&api.state.history, &api.state.store, samples).await;
}

/// Rolls up the days before one, and merges the periods of 8 days before it.
async fn compact(api: &TestApi, first: i64, until: i64) {
    let store = &api.state.store;
    let mut cache = SeriesCache::default();
    series::load(&mut store.reader().await.unwrap(), &mut cache).await.unwrap();
    for day in first..until {
        store.compact_step(day, 0, LAST, &|series| cache.kind(series)).await.unwrap();
    }
    for period in first.div_euclid(8)..until.div_euclid(8) {
        store.merge_step(period, 0, LAST).await.unwrap();
    }
}

/// Returns the begin of a day so many days ago.
fn days_ago(days: i64) -> Second {
    (crate::clock::day() - days) * DAY
}

async fn asked(api: &TestApi, query: &str) -> MetricsQuery {
    let answer = api.viewer().get(&format!("/api/v1/metrics/query?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    serde_json::from_value(answer.json).unwrap()
}

async fn one(api: &TestApi, query: &str) -> QueriedSeries {
    let answer = asked(api, query).await;
    let [series] = &answer.series[..] else { panic!("{query}: {} series", answer.series.len()) };
    series.clone()
}

fn span(from: Second, to: Second) -> String {
    format!("from={}&to={}", text(from), text(to))
}

/// Samples by their second.
type Course = BTreeMap<Second, Option<f64>>;

/// The samples of both metrics of a service over some days, with gaps, losses of hours and resets.
fn courses(dice: &mut Dice, begin: Second, end: Second) -> (Course, Course) {
    let (mut gauge, mut counter) = (Course::new(), Course::new());
    let usual = 120 + dice.below(900) as i64;
    let (mut at, mut count) = (begin, 0.0);
    while at < end {
        let value = dice.below(10_000_000) as f64 / 100.0;
        count = if dice.once_in(60) { 0.0 } else { count + dice.below(1_000_000) as f64 };
        gauge.insert(at, Some(value).filter(|_| !dice.once_in(20)));
        counter.insert(at, Some(count).filter(|_| !dice.once_in(30)));
        let lost = if dice.once_in(150) { dice.below(40) as i64 * HOUR } else { 0 };
        at += 1 + usual / 2 + dice.below(usual.unsigned_abs()) as i64 + lost;
    }
    (gauge, counter)
}

fn samples(host: HostId, (gauge, counter): &(Course, Course)) -> Vec<Sample> {
    let metric = |label: &str, uom: &str, value: Option<f64>| Metric { value, ..Metric::gap(label, uom) };
    let both = gauge.iter().zip(counter.values());
    let of = |((at, gauge), counter): ((&Second, &Option<f64>), &Option<f64>)| {
        sample(host, "ping", *at, vec![metric("rta", "ms", *gauge), metric("rx", "c", *counter)])
    };
    both.map(of).collect()
}

/// Three times the median interval of a day.
fn reach(course: &Course, day: i64) -> Second {
    let times: Vec<Second> = course.range(day * DAY..(day + 1) * DAY).map(|(at, _)| *at).collect();
    let mut intervals: Vec<Second> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    intervals.sort_unstable();
    match intervals.len() {
        0 => 0,
        len => (3 * intervals[(len - 1) / 2]).clamp(10, 3 * HOUR),
    }
}

/// The rate of a counter at each sample, as far as it is known.
fn rates(course: &Course) -> Course {
    let mut rates = Course::new();
    let mut before: Option<(Second, Option<f64>)> = None;
    for (at, value) in course {
        let rate = before.and_then(|(earlier, from)| {
            let (from, to, took) = (from?, (*value)?, at - earlier);
            (to >= from && took <= reach(course, at.div_euclid(DAY))).then(|| (to - from) / took as f64)
        });
        rates.insert(*at, rate);
        before = Some((*at, *value));
    }
    rates
}

fn near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 2e-5 * b.abs() + 1e-9,
        (a, b) => a == b,
    }
}

/// Compares each point with the values in its step.
fn is_what_it_says(shown: &QueriedSeries, values: &Course, (from, to, points): (Second, Second, usize)) {
    let start = ids::parse_time("start", &shown.start).unwrap().as_millis() / 1_000;
    let (step, len) = (shown.step_s, shown.count.len());
    let why = format!("{from}..{to} in {points}, {} {step} from {start}", shown.tier);
    assert!(len <= points.max(2) && start % step == 0, "{why}: {len}");
    assert!(start <= from && from < start + step, "{why}");
    let end = start + step * len as i64;
    assert!(to <= end && end < to + step, "{why}");
    assert!([&shown.min, &shown.avg, &shown.max].iter().all(|column| column.len() == len), "{why}");
    for point in 0..len {
        let at = start + step * point as i64;
        let within: Vec<f64> = values.range(at..at + step).filter_map(|(_, value)| *value).collect();
        let count = within.len();
        let avg = (count > 0).then(|| within.iter().sum::<f64>() / count as f64);
        let (min, max) = (within.iter().copied().reduce(f64::min), within.iter().copied().reduce(f64::max));
        let shown = (shown.min[point], shown.avg[point], shown.max[point], shown.count[point]);
        assert!(
            near(shown.0, min) && near(shown.1, avg) && near(shown.2, max) && shown.3 as usize == count,
            "{why}: {at} is {shown:?}, and not {min:?} {avg:?} {max:?} {count}"
        );
    }
}

/// Lets a random history arrive in a random order, partly late, while it is sealed and rolled up.
async fn arrive(api: &TestApi, dice: &mut Dice, mut samples: Vec<Sample>, first: i64) {
    while !samples.is_empty() {
        let most = samples.len().min(1 + dice.below(900) as usize);
        // The newest first, sometimes.
        let at = if dice.once_in(3) { samples.len() - most } else { 0 };
        let part: Vec<Sample> = samples.drain(at..at + most).collect();
        record(api, &part).await;
        if dice.once_in(4) {
            let repeated: Vec<Sample> = part.into_iter().take(3).collect();
            record(api, &repeated).await;
        }
        if dice.once_in(2) {
            api.state.history.seal_now().await.unwrap();
        }
        if dice.once_in(3) {
            compact(api, first, crate::clock::day()).await;
        }
    }
}

#[tokio::test]
async fn every_point_is_what_the_samples_of_its_step_say_in_any_tier() {
    for seed in 0..5 {
        let api = TestApi::with_endpoint().await;
        let dice = &mut Dice(seed);
        let host = fixture::device(&api.state.store, 1, "cam-07").await;
        let (begin, end) = (days_ago(20), crate::clock::wall().as_millis() / 1_000 - 60);
        let courses = courses(dice, begin, end);
        arrive(&api, dice, samples(host, &courses), begin / DAY).await;
        let values = [("rta", courses.0), ("rx", rates(&courses.1))];
        for _ in 0..25 {
            let length = dice.pick(&[600, HOUR, DAY, 5 * DAY, 19 * DAY]).unwrap();
            let from = begin - HOUR + dice.below((end - begin).unsigned_abs()) as i64;
            let (to, points) = (from + length, dice.pick(&[2, 24, 600, 2_000]).unwrap());
            for (label, values) in &values {
                let span = span(from, to);
                let query = format!("host=cam-07&service=ping&metric={label}&points={points}&{span}");
                is_what_it_says(&one(&api, &query).await, values, (from, to, points));
            }
        }
    }
}

#[tokio::test]
async fn the_raw_samples_are_the_same_before_and_after_they_are_sealed_and_rolled_up() {
    let api = TestApi::with_endpoint().await;
    let dice = &mut Dice(7);
    let host = fixture::device(&api.state.store, 1, "cam-07").await;
    let (begin, end) = (days_ago(3), days_ago(0));
    let (gauge, counter) = courses(dice, begin, end);
    arrive(&api, dice, samples(host, &(gauge.clone(), counter.clone())), begin / DAY).await;
    for _ in 0..3 {
        for (label, course) in [("rta", &gauge), ("rx", &counter)] {
            let path = format!(
                "/api/v1/hosts/cam-07/services/ping/metrics/{label}?limit=10080&{}",
                span(begin, end)
            );
            let read = api.viewer().get(&path).await.json;
            let points = read["points"].as_array().unwrap().iter();
            let shown: Vec<_> =
                points.map(|p| (p["at"].as_str().unwrap().to_owned(), p["value"].as_f64())).collect();
            let expected: Vec<_> = course.iter().map(|(at, value)| (text(*at), *value)).collect();
            assert_eq!(shown, expected, "counters are as counted");
        }
        api.state.history.seal_now().await.unwrap();
        compact(&api, begin / DAY, end / DAY).await;
    }
}

#[tokio::test]
async fn samples_of_many_days_are_read_in_pieces_and_none_is_lost_between_them() {
    let api = TestApi::with_endpoint().await;
    let host = fixture::device(&api.state.store, 1, "cam-07").await;
    let days: Vec<i64> = (1..=25).rev().collect();
    for day in &days {
        let at = days_ago(*day);
        record(&api, &[sample(host, "", at, vec![Metric::plain("rtt", *day as f64, "ms")])]).await;
        api.state.history.seal_now().await.unwrap();
    }
    let far = span(0, days_ago(-100_000));
    let pieces = api.state.history.pieces(0, days_ago(-100_000)).await.unwrap();
    assert!((3..=5).contains(&pieces.len()), "{pieces:?}");
    let read = async |rest: &str| {
        let path = format!("/api/v1/hosts/cam-07/metrics/rtt?{far}&{rest}");
        api.viewer().get(&path).await.json
    };
    for limit in [1i32, 10, 100] {
        let points = read(&format!("limit={limit}")).await["points"].clone();
        let shown: Vec<f64> =
            points.as_array().unwrap().iter().map(|p| p["value"].as_f64().unwrap()).collect();
        let newest: Vec<f64> = (1..=limit.min(25)).rev().map(f64::from).collect();
        assert_eq!(shown, newest, "{limit}");
    }
    let buckets = read("points=2").await["buckets"].clone();
    let counts: i64 = buckets.as_array().unwrap().iter().map(|b| b["count"].as_i64().unwrap()).sum();
    assert_eq!((counts, &buckets[0]["max"]), (25, &json!(25.0)), "{buckets}");
}

#[tokio::test]
async fn a_counter_is_a_rate_and_unknown_where_it_began_again() {
    let api = TestApi::with_endpoint().await;
    let host = fixture::device(&api.state.store, 1, "cam-07").await;
    let base = days_ago(1);
    let counts = [(0, 100.0), (60, 160.0), (120, 10.0), (180, 70.0)];
    let samples: Vec<Sample> = counts
        .map(|(at, count)| sample(host, "ping", base + at, vec![Metric::plain("rx", count, "c")]))
        .into();
    record(&api, &samples).await;
    let query = format!("host=cam-07&service=ping&metric=rx&points=4&{}", span(base, base + 240));
    let shown = one(&api, &query).await;
    assert_eq!((shown.uom.as_str(), shown.tier.as_str(), shown.step_s), ("1/s", "raw", 60));
    assert_eq!((shown.avg, shown.count), (vec![None, Some(1.0), None, Some(1.0)], vec![0, 1, 0, 1]));
}

#[tokio::test]
async fn a_tier_that_is_not_kept_as_long_leaves_the_query_to_the_next_one() {
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let keep = Keep { raw: days(2), five_minutes: days(4), hours: days(10), days: None };
    let api = TestApi::with(|config| config.history = keep).await;
    fixture::device(&api.state.store, 1, "cam-07").await;
    let now = crate::clock::wall().as_millis() / 1_000;
    for (ago, length, points, tier, step) in [
        (HOUR, HOUR, 600, "raw", 10),
        (2 * DAY - 60, HOUR, 600, "raw", 10),
        (2 * DAY + 60, HOUR, 600, "5m", 300),
        (3 * DAY, 3 * DAY, 2_000, "5m", 300),
        (4 * DAY + 60, DAY, 2_000, "1h", 3_600),
        (10 * DAY + 60, DAY, 2_000, "1d", DAY),
        (3_000 * DAY, 3_000 * DAY, 600, "1d", 6 * DAY),
    ] {
        let query = format!("host=cam-07&metric=rtt&points={points}&{}", span(now - ago, now - ago + length));
        let answer = asked(&api, &query).await;
        assert_eq!((answer.tier.as_str(), answer.step_s), (tier, step), "{query}");
        assert_eq!((answer.series, answer.limits, answer.uom.as_str()), (Vec::new(), None, ""), "{query}");
    }
}

/// Adds a fleet of hosts with one sample each, all at the same time.
async fn fleet(api: &TestApi, count: u8, at: Second) {
    let mut samples = Vec::new();
    for n in 1..=count {
        let host = fixture::device(&api.state.store, n, &format!("cam-{n:03}")).await;
        samples.push(sample(host, "", at, vec![Metric::plain("rtt", f64::from(n), "ms")]));
    }
    fixture::run(&api.state.store, "update hosts set labels = '{\"kind\":\"camera\"}'", &[]).await;
    record(api, &samples).await;
}

#[tokio::test]
async fn a_query_has_at_most_200_series_and_2000_points() {
    let api = TestApi::new().await;
    let at = days_ago(1);
    fleet(&api, 200, at).await;
    let query = format!("metric=rtt&{}", span(at, at + HOUR));
    let all = asked(&api, &format!("label=kind=camera&points=2&{query}")).await;
    assert_eq!((all.series.len(), all.uom.as_str()), (200, "ms"));
    assert!(all.series.is_sorted_by_key(|series| series.host.clone()), "by name");
    assert_eq!(all.series[199].max[0], Some(200.0));
    fixture::device(&api.state.store, 201, "cam-201").await;
    fixture::run(&api.state.store, "update hosts set labels = '{\"kind\":\"camera\"}' where id = 201", &[])
        .await;
    let again = asked(&api, &format!("label=kind=camera&{query}")).await;
    assert_eq!(again.series.len(), 200, "a host without the metric is no series");
    record(&api, &[sample(Id::from_i64(201), "", at, vec![Metric::plain("rtt", 1.0, "ms")])]).await;
    for group in ["", "&group_by=kind"] {
        let refused =
            api.viewer().get(&format!("/api/v1/metrics/query?label=kind=camera&{query}{group}")).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"), "{}", refused.text);
        assert_eq!(refused.json["errors"][0]["field"], "label");
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(
            detail.contains("201 hosts") && detail.contains("at most 200 series: select fewer"),
            "{detail}"
        );
    }
    let hosts: String = (1..=201).map(|n| format!("host=cam-{n:03}&")).collect();
    let refused = api.viewer().get(&format!("/api/v1/metrics/query?{hosts}{query}")).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["field"]),
        (422, &json!("host")),
        "{}",
        refused.text
    );
    let twice = asked(&api, &format!("host=cam-007&host=cam-003&host=cam-007&{query}")).await;
    let names: Vec<Option<String>> = twice.series.into_iter().map(|series| series.host).collect();
    assert_eq!(
        names,
        ["cam-007", "cam-003"].map(|name| Some(name.to_owned())),
        "in the order given, each once"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_named_with_what_to_do() {
    let api = TestApi::new().await;
    fixture::device(&api.state.store, 1, "cam-07").await;
    let cases = [
        ("metric=rta", "host or label is expected: host=cam-07"),
        ("host=cam-07", "metric: the label of a metric is expected, such as rta; GET /hosts/{host}/metrics"),
        ("host=cam-07&metric=", "metric: the label"),
        ("host=cam-07&metric=rta&points=0", "points: 2 to 2000 is expected"),
        ("host=cam-07&metric=rta&points=1", "points: 2 to 2000 is expected"),
        ("host=cam-07&metric=rta&points=2001", "points: 2 to 2000 is expected"),
        ("host=cam-07&metric=rta&points=many", "points"),
        ("host=cam-07&metric=rta&from=yesterday", "from: a time such as 2026-03-10T13:03:22Z is expected"),
        ("host=cam-07&metric=rta&to=2026-13-01T00:00:00Z", "to: a time such as"),
        (
            "host=cam-07&metric=rta&from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z",
            "from: a time before `to`",
        ),
        (
            "host=cam-07&metric=rta&from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z",
            "from: a time before `to`",
        ),
        ("host=cam-07&metric=rta&group_by=", "group_by: the key of a label is expected, or all"),
        ("label=site&metric=rta", "label: key=value is expected"),
        (
            "host=cam-07&metric=rta&step=60",
            "\"step\" is not a query parameter of this call: it takes from, group_by, ",
        ),
    ];
    for (query, named) in cases {
        let refused = api.viewer().get(&format!("/api/v1/metrics/query?{query}")).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_query"), "{query}: {}", refused.text);
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{query}: {detail}");
    }
    let unknown = api.viewer().get("/api/v1/metrics/query?host=cam-08&metric=rta").await;
    assert_eq!((unknown.status, unknown.code()), (404, "not_found"), "{}", unknown.text);
    assert!(unknown.text.contains("cam-08"), "{}", unknown.text);
    assert_eq!(api.anonymous().get("/api/v1/metrics/query?host=cam-07&metric=rta").await.status, 401);
}

#[tokio::test]
async fn an_answer_has_no_more_points_than_were_asked_for_even_over_midnight() {
    let api = TestApi::new().await;
    let host = fixture::device(&api.state.store, 1, "cam-07").await;
    let midnight = days_ago(1);
    let of = |at, value| sample(host, "ping", at, vec![Metric::plain("rta", value, "ms")]);
    record(&api, &[of(midnight - 1, 1.0), of(midnight, 2.0)]).await;
    for (points, length) in [(2, 1), (2, HOUR), (3, 12 * HOUR), (7, 2 * DAY), (2_000, DAY)] {
        let time = span(midnight - length, midnight + length);
        let shown = one(&api, &format!("host=cam-07&service=ping&metric=rta&points={points}&{time}")).await;
        assert!(shown.avg.len() <= points, "{points}: {}", shown.avg.len());
        assert_eq!(shown.count.iter().sum::<u32>(), 2, "{points}");
        assert_eq!(shown.max.into_iter().flatten().reduce(f64::max), Some(2.0), "{points}");
    }
}

/// Sets the limits of a metric on a host, as its last result has them.
async fn limit(api: &TestApi, host: &str, warn: &str, crit: Option<&str>) {
    let metrics =
        json!([{ "label": "rta", "value": 1.0, "uom": "ms", "warn": warn, "crit": crit }]).to_string();
    let sql = "insert into service_states
                   (host, service, kind, attempt, stale, since, route, output, long_output, metrics, warnings)
               select id, 'ping', 'hard', 1, 0, 0, 'tunnel', '', '', $2, '[]' from hosts where name = $1
               on conflict (host, service) do update set metrics = excluded.metrics";
    fixture::run(&api.state.store, sql, &[host, &metrics]).await;
}

#[tokio::test]
async fn a_group_has_the_mean_of_its_hosts_and_the_worst_of_them() {
    let api = TestApi::new().await;
    let base = days_ago(1);
    // A host that is checked more often counts as much as the others.
    let courses: [(&str, u8, &[f64]); 4] =
        [("a", 1, &[10.0, 20.0, 30.0]), ("b", 2, &[40.0]), ("c", 3, &[7.0]), ("d", 4, &[5.0])];
    for (name, n, values) in courses {
        let host = fixture::device(&api.state.store, n, name).await;
        let of = |(i, value): (usize, &f64)| {
            let unit = if name == "d" { "s" } else { "ms" };
            sample(host, "ping", base + 60 * i as i64, vec![Metric::plain("rta", *value, unit)])
        };
        record(&api, &values.iter().enumerate().map(of).collect::<Vec<_>>()).await;
    }
    let labels = "update hosts set labels = '{\"site\":\"north\"}' where name in ('a', 'b', 'd')";
    fixture::run(&api.state.store, labels, &[]).await;
    let hosts = "host=a&host=b&host=c&host=d&service=ping&metric=rta&points=24";
    let query = format!("{hosts}&group_by=site&{}", span(base, base + DAY));
    let shown = async || {
        let answer = asked(&api, &query).await;
        let rows = answer.series.into_iter().map(|s| {
            let worst = s.worst.map(|worst| worst[0]);
            (s.group, s.uom, s.hosts, s.min[0], s.avg[0], s.max[0], s.count[0], worst)
        });
        (answer.limits, rows.collect::<Vec<_>>())
    };
    let group = |group: Option<&str>, uom: &str, hosts: u32, [min, avg, max]: [f64; 3], worst: f64| {
        let (group, worst) = (group.map(str::to_owned), Some(Some(worst)));
        (group, uom.to_owned(), Some(hosts), Some(min), Some(avg), Some(max), hosts, worst)
    };
    let others = group(None, "ms", 1, [7.0; 3], 7.0);
    let seconds = group(Some("north"), "s", 1, [5.0; 3], 5.0);
    let north = |worst| group(Some("north"), "ms", 2, [25.0, 30.0, 35.0], worst);
    assert_eq!(shown().await, (None, vec![others.clone(), north(40.0), seconds.clone()]));

    limit(&api, "b", "30:", None).await;
    let (limits, rows) = shown().await;
    let limits = limits.map(|limits| (limits.warn, limits.crit, limits.differ));
    assert_eq!(limits, Some((Some("30:".to_owned()), None, false)), "the only host with a result");
    assert_eq!(rows, [others, north(10.0), seconds], "the lowest is the worst");
    limit(&api, "a", "30:", Some("100")).await;
    let (limits, rows) = shown().await;
    assert!(limits.is_some_and(|limits| limits.differ && limits.crit.as_deref() == Some("100")));
    assert_eq!(rows[1].7, Some(Some(40.0)), "the critical limit decides");

    let all = asked(&api, &format!("{hosts}&group_by=all&{}", span(base, base + DAY))).await;
    let units: Vec<_> = all.series.iter().map(|s| (s.group.clone(), s.uom.as_str(), s.hosts)).collect();
    assert_eq!(units, [(None, "ms", Some(3)), (None, "s", Some(1))], "units are not mixed");
    assert!(all.series.iter().all(|series| series.host.is_none() && series.host_id.is_none()));
    assert!(all.series[0].avg[1].is_none() && all.series[0].worst.as_ref().unwrap()[1].is_none(), "a gap");
}

#[tokio::test]
async fn each_group_is_worst_in_the_direction_of_its_own_limit() {
    let api = TestApi::new().await;
    let at = days_ago(1);
    for (n, name, value) in [(1, "a", 10.0), (2, "b", 40.0), (3, "c", 10.0), (4, "d", 40.0)] {
        let host = fixture::device(&api.state.store, n, name).await;
        record(&api, &[sample(host, "ping", at, vec![Metric::plain("rta", value, "ms")])]).await;
    }
    let labels = "update hosts set labels =
        case when name in ('a', 'b') then '{\"site\":\"north\"}' else '{\"site\":\"south\"}' end";
    fixture::run(&api.state.store, labels, &[]).await;
    limit(&api, "b", "30:", None).await;
    limit(&api, "c", "20", None).await;
    let hosts = "host=a&host=b&host=c&host=d&service=ping&metric=rta&points=24";
    let query = format!("{hosts}&group_by=site&{}", span(at, at + DAY));
    let shown = asked(&api, &query).await;
    let warn = |limits: &Option<QueryLimits>| limits.as_ref().and_then(|limits| limits.warn.clone());
    let worst: Vec<_> = shown
        .series
        .iter()
        .map(|s| (s.group.as_deref(), warn(&s.limits), s.worst.as_ref().and_then(|worst| worst[0])))
        .collect();
    let (low, high) = (Some("30:".to_owned()), Some("20".to_owned()));
    assert_eq!(worst, [(Some("north"), low.clone(), Some(10.0)), (Some("south"), high, Some(40.0))]);
    assert_eq!(warn(&shown.limits), low, "of the first host that has any");
    let single = asked(&api, &format!("{hosts}&{}", span(at, at + DAY))).await;
    assert_eq!(single.series.iter().filter(|s| s.limits.is_some()).count(), 2, "each has its own");
}

#[tokio::test]
async fn labels_narrow_the_hosts_that_are_named_and_a_removed_one_is_found_by_its_id() {
    let api = TestApi::with_endpoint().await;
    let at = days_ago(1);
    let mut ids = Vec::new();
    for (name, site) in [("a", "north"), ("b", "south")] {
        let body = json!({ "name": name, "labels": { "site": site } });
        let made = api.operator().post("/api/v1/devices", body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let id = IdKind::Host.parse(made.json["device"]["id"].as_str().unwrap()).unwrap();
        record(&api, &[sample(id, "ping", at, vec![Metric::plain("rta", 12.345_678_9, "ms")])]).await;
        ids.push(IdKind::Host.text(id));
    }
    let rest = format!("service=ping&metric=rta&points=24&{}", span(at, at + DAY));
    let both = format!("host=a&host=b&label=site%3Dsouth&{rest}");
    assert_eq!(one(&api, &both).await.host.as_deref(), Some("b"));
    assert_eq!(asked(&api, &format!("host=a&label=site%3Dsouth&{rest}")).await.series, []);
    assert_eq!(api.operator().delete("/api/v1/devices/a").await.status, 204);
    let gone = one(&api, &format!("host={}&{rest}", ids[0])).await;
    assert_eq!((gone.host_id.as_ref(), gone.avg[0]), (Some(&ids[0]), Some(12.345_68)), "of 7 digits");
    assert_eq!(
        asked(&api, &format!("label=site%3Dnorth&{rest}")).await.series,
        [],
        "labels select no removed host"
    );
    assert_eq!(api.viewer().get(&format!("/api/v1/metrics/query?host=a&{rest}")).await.status, 404);
}
