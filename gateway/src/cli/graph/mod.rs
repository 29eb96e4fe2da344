//! `fleetgate graph`: one metric over time, drawn with characters of Braille, and the bars of `host show`.

mod braille;

use clap::Args;
use fleetgate_engine::history::query::{Tier, sparkline};
use fleetgate_probes::range::Range;
use futures_util::future;
use jiff::Timestamp;
use serde_json::Value;

use super::client::{Client, api_path, path_of};
use super::device::said;
use super::table;
use super::token::when;
use crate::api::metrics::SeriesInfo;
use crate::api::metrics_query::{MetricsQuery, QueriedSeries, QueryLimits};
use crate::api::services::Service;
use crate::api::types::{Metric, Page};
use crate::cli::out;

/// The width without a terminal.
const USUAL_WIDTH: usize = 80;
/// Below that there is hardly room for a curve beside its axis.
const NARROWEST: usize = 20;
/// The most values of one answer.
const MOST_POINTS: usize = 2_000;
/// The time that is shown by default.
const USUAL_SPAN: &str = "1d";
/// Bars of a service in `host show`, one for each hour.
const BARS: i64 = 24;
/// Services of one host that have bars. Each of them is a request.
const MAX_SPARKLINES: usize = 16;
const HOUR_S: i64 = 3_600;
/// Two results in a row may be lost before a curve has a gap.
const REACH: usize = 3;

#[derive(Args)]
pub(crate) struct GraphArgs {
    /// A host (cam-07), or a service of it (cam-07/disk)
    object: String,
    /// Name of a metric [default: the first]
    metric: Option<String>,
    /// Begin: RFC 3339, or how long ago, such as 2h or 30d [default: 1d]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, in the same form [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Width in columns [default: that of the terminal, or 80]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(20..=1_000))]
    width: Option<u16>,
    /// Height of the curve in lines
    #[arg(long, value_name = "LINES", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=100))]
    height: u16,
}

pub(crate) async fn run(client: &Client, args: GraphArgs) -> anyhow::Result<()> {
    let metric = match args.metric.clone() {
        Some(metric) => Some(metric),
        None => first_metric(client, &args.object).await?,
    };
    let Some(metric) = metric else { return said(client, &format!("No metrics of {} yet", args.object)) };
    let now = table::now();
    let from = when("--from", args.from.as_deref().unwrap_or(USUAL_SPAN), now)?;
    let to = args.to.as_deref().map_or(Ok(now), |text| when("--to", text, now))?;
    let width = width(args.width, table::screen_width());
    // Each column has two dots.
    let points = (width * 2).min(MOST_POINTS);
    let (host, service) = parts(&args.object);
    let found = query(client, (host, service, &metric), (from, to), points).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    let limits = found.limits.as_ref();
    let drawn = found.series.first().map(|s| lines(s, limits, (width, usize::from(args.height))));
    let Some(drawn) = drawn.filter(|lines| !lines.is_empty()) else {
        exists(client, &args.object).await?;
        return said(client, &format!("No samples of {metric} in that time; see: fleetgate metrics {host}"));
    };
    out::line!("{} {}", table::safe(&args.object), table::safe(&metric));
    drawn.iter().for_each(|line| out::line!("{line}"));
    Ok(())
}

/// Returns the given width, or that of the screen: a terminal breaks longer lines, and the curve with them.
fn width(given: Option<u16>, screen: Option<usize>) -> usize {
    let usual = || screen.unwrap_or(USUAL_WIDTH).max(NARROWEST);
    given.map_or_else(usual, usize::from)
}

/// Returns the host and the service of `cam-07/disk`.
fn parts(object: &str) -> (&str, Option<&str>) {
    object.split_once('/').map_or((object, None), |(host, service)| (host, Some(service)))
}

/// Returns the first metric that has samples.
async fn first_metric(client: &Client, object: &str) -> anyhow::Result<Option<String>> {
    let (host, service) = parts(object);
    let page: Page<SeriesInfo> = client.get(&api_path!("/hosts/{}/metrics", host), &[]).await?;
    let first = page.items.into_iter().find(|s| s.service.as_deref() == service);
    if first.is_none() {
        exists(client, object).await?;
    }
    Ok(first.map(|s| s.label))
}

/// An unknown host is an error, and an unknown service one that names the others.
async fn exists(client: &Client, object: &str) -> anyhow::Result<()> {
    client.get::<Value>(&path_of(object, None), &[]).await.map(drop)
}

async fn query(
    client: &Client,
    (host, service, metric): (&str, Option<&str>, &str),
    (from, to): (Timestamp, Timestamp),
    points: usize,
) -> anyhow::Result<MetricsQuery> {
    let mut query = vec![
        ("host", host.to_owned()),
        ("metric", metric.to_owned()),
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("points", points.to_string()),
    ];
    query.extend(service.map(|service| ("service", service.to_owned())));
    client.get("/metrics/query", &query).await
}

// ---------------------------------------------------------------------- graph

/// Returns the numbers, the curve and its axes. Empty if there is no value.
fn lines(series: &QueriedSeries, limits: Option<&QueryLimits>, size: (usize, usize)) -> Vec<String> {
    let picture = picture(series, &ends(limits), size);
    if picture.is_empty() {
        picture
    } else {
        std::iter::once(numbers(series, limits)).chain(picture).collect()
    }
}

/// Returns `lowest 41.2%, average 62%, highest 84.9%; warn 80, crit 90; each value covers 5m`.
fn numbers(series: &QueriedSeries, limits: Option<&QueryLimits>) -> String {
    let low = series.min.iter().flatten().copied().reduce(f64::min);
    let high = series.max.iter().flatten().copied().reduce(f64::max);
    let number = |value: Option<f64>| {
        value.map_or("-".to_owned(), |value| format!("{}{}", table::number(value), table::safe(&series.uom)))
    };
    let (low, mean, high) = (number(low), number(mean(series)), number(high));
    let limit =
        |(name, range): (&str, &Option<String>)| Some(format!("{name} {}", table::safe(range.as_ref()?)));
    let given = limits.into_iter().flat_map(|l| [("warn", &l.warn), ("crit", &l.crit)]).filter_map(limit);
    let given: String = given.map(|limit| format!("; {limit}")).collect();
    let step = table::time_span(series.step_s as f64);
    format!("lowest {low}, average {mean}, highest {high}{given}; each value covers {step}")
}

/// Returns the average of all samples.
fn mean(series: &QueriedSeries) -> Option<f64> {
    let values = || series.avg.iter().zip(&series.count).filter_map(|(avg, count)| Some(((*avg)?, *count)));
    let count: f64 = values().map(|(_, count)| f64::from(count)).sum();
    let sum: f64 = values().map(|(avg, count)| avg * f64::from(count)).sum();
    (count > 0.0).then(|| sum / count)
}

/// Returns the values at which a limit alerts. The lower end of `80` is 0, which is no limit in itself.
fn ends(limits: Option<&QueryLimits>) -> Vec<f64> {
    let ranges = limits.into_iter().flat_map(|l| [&l.warn, &l.crit]).flatten();
    let ranges = ranges.filter_map(|text| text.parse::<Range>().ok());
    let start = |range: &Range| Some(range.start).filter(|start| range.inside || *start != 0.0);
    let both = ranges.flat_map(|range| [start(&range), Some(range.end)]);
    both.flatten().filter(|end| end.is_finite()).collect()
}

fn picture(series: &QueriedSeries, limits: &[f64], (width, height): (usize, usize)) -> Vec<String> {
    let values = continued(series);
    let Some(axis) = braille::axis(&values, limits) else { return Vec::new() };
    let (high, low) = (table::number(axis.high), table::number(axis.low));
    let margin = high.chars().count().max(low.chars().count());
    let columns = width.saturating_sub(margin + 2).max(1);
    let last = height.saturating_sub(1);
    let row = |(at, line): (usize, String)| {
        let (label, mark) = match at {
            0 => (high.as_str(), '┤'),
            at if at == last => (low.as_str(), '┤'),
            _ => ("", '│'),
        };
        format!("{label:>margin$} {mark}{line}").trim_end().to_owned()
    };
    let curve = braille::draw(&values, limits, (columns, height));
    let mut lines: Vec<String> = curve.into_iter().enumerate().map(row).collect();
    lines.push(format!("{:margin$} └{}", "", "─".repeat(columns)));
    lines.push(format!("{:margin$}  {}", "", times(series, columns)));
    lines
}

/// Returns the averages, each of them continued up to the next one unless a gap is between them. Steps that are shorter
/// than the interval of the check have no sample of their own.
fn continued(series: &QueriedSeries) -> Vec<Option<f64>> {
    let mut values = series.avg.clone();
    let known: Vec<usize> = (0..values.len()).filter(|at| values[*at].is_some()).collect();
    let reach = reach(&known, series.tier == Tier::Raw.name());
    for pair in known.windows(2).filter(|pair| pair[1] - pair[0] <= reach) {
        let value = values[pair[0]];
        values[pair[0] + 1..pair[1]].fill(value);
    }
    values
}

/// Returns the longest distance of two values without a gap between them, as on the page: three times the usual one. In
/// buckets that usually have a value, one without is a gap.
fn reach(known: &[usize], are_samples: bool) -> usize {
    let mut distances: Vec<usize> = known.windows(2).map(|pair| pair[1] - pair[0]).collect();
    distances.sort_unstable();
    let usual = distances.get(distances.len() / 2).copied().unwrap_or(1);
    if are_samples || usual > 1 { usual * REACH } else { 1 }
}

/// Returns the begin and the end of the horizontal axis.
fn times(series: &QueriedSeries, columns: usize) -> String {
    let begin = table::minute(&series.start);
    let seconds = series.step_s.saturating_mul(i64::try_from(series.avg.len()).unwrap_or(i64::MAX));
    let end = series.start.parse::<Timestamp>().ok();
    let end = end.and_then(|at| Timestamp::from_second(at.as_second().saturating_add(seconds)).ok());
    let end = end.map(|at| table::minute(&at.to_string())).unwrap_or_default();
    let room = columns.saturating_sub(begin.len());
    if end.len() < room { format!("{begin}{end:>room$}") } else { format!("{begin} to {end}") }
}

// ----------------------------------------------------------------- sparklines

/// Returns the last 24 hours of each service as bars. A service without a metric, and one that cannot be
/// read, has none.
pub(super) async fn sparklines(client: &Client, host: &str, services: &[Service]) -> Vec<String> {
    let bars = services.iter().take(MAX_SPARKLINES).map(|service| bars(client, host, service));
    let mut bars = future::join_all(bars).await;
    bars.resize(services.len(), String::new());
    bars
}

async fn bars(client: &Client, host: &str, service: &Service) -> String {
    let Some(metric) = leading(&service.metrics) else { return String::new() };
    let Some(span) = last_hours(table::now()) else { return String::new() };
    let points = usize::try_from(BARS).unwrap_or_default();
    let asked = (host, Some(service.name.as_str()), metric.label.as_str());
    let found = query(client, asked, span, points).await.ok();
    let series = found.and_then(|found| found.series.into_iter().next());
    series.map(|series| sparkline(&series.avg)).unwrap_or_default()
}

/// Returns the first metric with a limit, otherwise the first.
fn leading(metrics: &[Metric]) -> Option<&Metric> {
    metrics.iter().find(|m| m.warn.is_some() || m.crit.is_some()).or_else(|| metrics.first())
}

/// Returns the last 24 hours of the clock, the present one included: a span that begins within an hour would
/// have one bar more.
fn last_hours(now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let hour = now.as_second().div_euclid(HOUR_S) * HOUR_S;
    Some((Timestamp::from_second(hour - (BARS - 1) * HOUR_S).ok()?, now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetgate_engine::id::HostId;
    use fleetgate_engine::messages::Sample;
    use fleetgate_probes::sample::{Metric as Measured, Status};
    use serde_json::json;

    use super::*;
    use crate::history::testing::record;
    use crate::store::{fixture, states};

    fn series(avg: &[Option<f64>]) -> QueriedSeries {
        let count: Vec<u32> = avg.iter().map(|value| u32::from(value.is_some())).collect();
        let series = json!({
            "host_id": "d_0123456789abc", "host": "cam-07", "group": null, "hosts": null,
            "start": "2026-03-10T00:00:00Z", "step_s": 3600, "tier": "1h", "uom": "%",
            "min": avg, "avg": avg, "max": avg, "count": count, "worst": null,
        });
        serde_json::from_value(series).unwrap()
    }

    fn limits(warn: &str, crit: &str) -> QueryLimits {
        serde_json::from_value(json!({ "warn": warn, "crit": crit, "differ": false })).unwrap()
    }

    #[test]
    fn a_graph_has_its_numbers_its_limits_and_its_times() {
        let values: Vec<Option<f64>> =
            (0..48).map(|hour| Some(f64::from(hour)).filter(|_| hour % 24 < 20)).collect();
        let shown = lines(&series(&values), Some(&limits("30", "90")), (50, 4));
        insta::assert_snapshot!(shown.join("\n"));
        assert!(shown.iter().skip(1).all(|line| line.chars().count() <= 50));
    }

    #[test]
    fn a_graph_is_as_wide_as_the_screen_or_as_it_was_asked_for() {
        assert_eq!([width(None, None), width(None, Some(200))], [USUAL_WIDTH, 200]);
        assert_eq!(
            [width(None, Some(40)), width(None, Some(9))],
            [40, NARROWEST],
            "no line of a curve is broken"
        );
        assert_eq!(width(Some(100), Some(40)), 100);
    }

    #[test]
    fn a_curve_goes_on_between_samples_and_a_gap_is_where_some_are_lost() {
        let of = |tier: &str, avg: &[Option<f64>]| {
            continued(&QueriedSeries { tier: tier.to_owned(), ..series(avg) })
        };
        let (a, b, c) = (Some(1.0), Some(2.0), Some(3.0));
        // A result a minute in steps of 30 seconds.
        assert_eq!(of("raw", &[a, None, b, None, c, None]), [a, a, b, b, c, None]);
        // Two results are lost after the step 6, and three after the step 12.
        let known = [0, 2, 4, 6, 12, 20, 22];
        let lost: Vec<_> = (0..23).map(|at| Some(1.0).filter(|_| known.contains(&at))).collect();
        let shown = of("raw", &lost);
        let gaps: Vec<usize> = (0..23).filter(|at| shown[*at].is_none()).collect();
        assert_eq!(gaps, (13..20).collect::<Vec<_>>());
        assert_eq!(of("1h", &[a, b, None, c, c]), [a, b, None, c, c], "an hour without a result");
        assert_eq!(of("5m", &[a, None, b, None, c]), [a, a, b, b, c], "a check each ten minutes");
        assert_eq!((of("raw", &[None, a, None]), of("raw", &[])), (vec![None, a, None], Vec::new()));
    }

    #[test]
    fn a_narrow_graph_has_its_times_in_words() {
        let shown = lines(&series(&[Some(1.0), Some(2.0)]), None, (20, 1));
        assert_eq!(shown.last().unwrap().trim(), "2026-03-10 00:00Z to 2026-03-10 02:00Z");
    }

    #[test]
    fn without_a_value_there_is_no_graph() {
        assert!(lines(&series(&[None, None]), Some(&limits("30", "90")), (50, 4)).is_empty());
        assert!(lines(&series(&[]), None, (50, 4)).is_empty());
    }

    #[test]
    fn an_average_counts_samples_and_not_times() {
        let uneven = QueriedSeries { count: vec![3, 1], ..series(&[Some(1.0), Some(5.0)]) };
        assert_eq!(mean(&uneven), Some(2.0));
        assert_eq!(mean(&series(&[None])), None);
    }

    #[test]
    fn limits_are_drawn_where_they_alert() {
        assert_eq!(ends(Some(&limits("80", "~:90"))), [80.0, 90.0]);
        assert_eq!(ends(Some(&limits("10:20", "@0:5"))), [10.0, 20.0, 0.0, 5.0]);
        assert_eq!(ends(Some(&limits("5:", "no range"))), [5.0]);
        assert_eq!(ends(None), [0.0; 0]);
    }

    #[test]
    fn the_last_hours_are_whole_hours() {
        let now = "2026-03-10T13:20:00Z".parse().unwrap();
        let (from, to) = last_hours(now).unwrap();
        assert_eq!((from.to_string().as_str(), to), ("2026-03-09T14:00:00Z", now));
    }

    #[tokio::test]
    async fn a_service_has_the_bars_of_its_last_hours_and_one_without_samples_has_none() {
        let (client, api) = crate::cli::tests::connected().await;
        let made: Value = client.post("/devices", &json!({ "name": "cam-1" })).await.unwrap();
        let host: HostId = made["device"]["id"].as_str().unwrap()[2..].parse().unwrap();
        let rta = |value: f64| [Measured::amount("rta", value, "ms")].into();
        let mut state = fixture::service("ping", Status::Ok);
        state.result.metrics = rta(9.0);
        let store = &api.state.store;
        store.all_hosts(&fixture::TIMING).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        states::write_services(&mut tx, &[(host, &state)]).await.unwrap();
        tx.commit().await.unwrap();
        let now = crate::clock::wall();
        let sample = |hours: u64, value: f64| {
            let at = now - Duration::from_secs(hours * 3_600);
            Sample { host, service: "ping".into(), at, metrics: rta(value) }
        };
        record(&api.state.history, store, &[sample(5, 1.0), sample(0, 9.0)]).await;
        let page: Page<Service> = client.get("/hosts/cam-1/services", &[]).await.unwrap();
        let all = sparklines(&client, "cam-1", &page.items).await;
        assert_eq!(all.len(), page.items.len());
        for (service, bars) in page.items.iter().zip(all) {
            match service.name.as_str() {
                "ping" => assert_eq!(bars.trim(), "▁    █", "of 24 hours: {bars:?}"),
                other => assert_eq!(bars, "", "{other}"),
            }
        }
    }

    #[tokio::test]
    async fn a_host_without_samples_is_said_and_an_unknown_service_is_an_error() {
        let (client, _api) = crate::cli::tests::connected().await;
        let _: Value = client.post("/devices", &json!({ "name": "cam-1" })).await.unwrap();
        let args = |object: &str, metric: Option<&str>| GraphArgs {
            object: object.to_owned(),
            metric: metric.map(str::to_owned),
            from: None,
            to: None,
            width: None,
            height: 12,
        };
        run(&client, args("cam-1/ping", None)).await.unwrap();
        run(&client, args("cam-1/ping", Some("rta"))).await.unwrap();
        let refused = run(&client, args("cam-1/wrong", None)).await.unwrap_err().to_string();
        assert!(refused.contains("cam-1 has no service \"wrong\"; it has: "), "{refused}");
        assert!(run(&client, args("cam-2/ping", Some("rta"))).await.is_err());
    }
}
