//! Samples of metrics, as measured or in time buckets, for as long as they are kept as measured.
//!
//! A gap stays a gap. A bucket's average is the sum of its samples divided by their number. This
//! module knows nothing of checks. `metrics_query` reads longer times and many hosts.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::history::{self, Second};
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::load_ever;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::response::problem::Problem;
use super::types::Page;
use crate::clock;
use crate::store::history::Series;

/// Reads of samples at once. Each holds one of the few connections for reading and some 50 MB at most: one sample a
/// second for some days.
pub(super) static READS: Semaphore = Semaphore::const_new(2);
/// Samples of one response: a week at one a minute.
const MAX_POINTS: i64 = 10_080;
const DEFAULT_POINTS: i64 = 1_440;
/// The default time span.
const DEFAULT_SPAN: Duration = Duration::from_secs(24 * 3_600);
/// The width of a graph in pixels.
const MAX_BUCKETS: i64 = 2_000;

/// Samples of one metric, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Samples {
    pub label: String,
    pub uom: String,
    /// As they were measured; empty where buckets were asked for.
    pub points: Vec<Point>,
    /// How long a bucket is. They begin at its multiples since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<Bucket>>,
}

/// The samples of a period, aggregated. A bucket without a value is absent, never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub at: String,
    pub min: f64,
    /// The sum of the values divided by their count.
    pub avg: f64,
    pub max: f64,
    /// Samples with a value.
    #[schema(minimum = 1)]
    pub count: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    pub at: String,
    pub value: Option<f64>,
}

/// A metric with samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesInfo {
    /// Absent: the host check.
    pub service: Option<String>,
    pub label: String,
    pub uom: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(series))
        .routes(routes!(host_samples))
        .routes(routes!(service_samples))
}

/// The metrics that there are samples of.
#[utoipa::path(get, path = "/hosts/{host}/metrics", operation_id = "list_metrics", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Page<SeriesInfo>)))]
async fn series(
    State(app): State<AppState>,
    Path(host): Path<String>,
) -> Result<Json<Page<SeriesInfo>>, Problem> {
    let id = host_id(&app, &host).await?;
    let all = app.store.series(id, None).await?;
    let info = |s: Series| SeriesInfo {
        service: Some(s.service).filter(|s| !s.is_empty()),
        label: s.label,
        uom: s.uom,
    };
    Ok(Json(Page { items: all.into_iter().map(info).collect(), next: None }))
}

async fn host_id(app: &AppState, host: &str) -> Result<HostId, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(load_ever(&mut conn, IdKind::Host.named(host)).await?.id)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Span {
    /// RFC 3339; a day before `to` when absent.
    from: Option<String>,
    /// RFC 3339, not included; now when absent.
    to: Option<String>,
    /// The newest so many; 1440 when absent.
    #[param(minimum = 1, maximum = 10080)]
    limit: Option<i64>,
    /// Instead of single samples: at most so many buckets, with minimum, average and maximum of the samples of each.
    #[param(minimum = 2, maximum = 2000)]
    points: Option<i64>,
}

/// The requested form of the data.
enum SampleForm {
    Samples(i64),
    Buckets(i64),
}

/// A time in milliseconds, the end not included.
type Times = (Wall, Wall);

/// Reads a time span; a day up to now when absent.
pub(super) fn times(from: Option<&str>, to: Option<&str>, now: Wall) -> Result<Times, Problem> {
    let to = to.map(|t| ids::parse_time("to", t)).transpose()?;
    let to = to.unwrap_or(now + Duration::from_millis(1));
    let from = from.map(|t| ids::parse_time("from", t)).transpose()?;
    let from = from.unwrap_or(to - DEFAULT_SPAN).max(Wall::from_millis(0));
    if from >= to {
        return Err(Problem::bad_request(
            "bad_query",
            "from: a time before `to` is expected, and `to` after 1970",
        ));
    }
    Ok((from, to))
}

/// The whole seconds within a time.
pub(super) fn seconds((from, to): Times) -> (Second, Second) {
    let first_from = |at: Wall| (at.as_millis() + 999).div_euclid(1_000);
    (first_from(from), first_from(to))
}

/// Formats a whole second.
pub(super) fn text(at: Second) -> String {
    ids::time(Wall::from_millis(at.saturating_mul(1_000)))
}

impl Span {
    fn asked(&self) -> Result<SampleForm, Problem> {
        match (self.points, self.limit) {
            (Some(_), Some(_)) => {
                Err(Problem::bad_request("bad_query", "points or limit is expected, not both"))
            }
            (Some(points), None) => points_within(points, MAX_BUCKETS).map(SampleForm::Buckets),
            (None, limit) => {
                within("limit", limit.unwrap_or(DEFAULT_POINTS), MAX_POINTS).map(SampleForm::Samples)
            }
        }
    }
}

pub(super) fn within(name: &str, given: i64, most: i64) -> Result<i64, Problem> {
    between(name, given, 1..=most)
}

/// One point is not enough: points begin at multiples of their width, and the shortest time may have one within it.
pub(super) fn points_within(given: i64, most: i64) -> Result<i64, Problem> {
    between("points", given, 2..=most)
}

fn between(name: &str, given: i64, allowed: RangeInclusive<i64>) -> Result<i64, Problem> {
    let (least, most) = (allowed.start(), allowed.end());
    let expected = || Problem::bad_request("bad_query", format!("{name}: {least} to {most} is expected"));
    if allowed.contains(&given) { Ok(given) } else { Err(expected()) }
}

/// Samples of the host check itself: raw, or with `points` in buckets.
#[utoipa::path(get, path = "/hosts/{host}/metrics/{label}", operation_id = "host_samples",
    tag = "monitoring", security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name"), ("label" = String, Path), Span),
    responses((status = 200, body = Samples)))]
async fn host_samples(
    State(app): State<AppState>,
    Path((host, label)): Path<(String, String)>,
    Query(span): Query<Span>,
) -> Result<Json<Samples>, Problem> {
    samples(&app, &host, "", &label, &span).await
}

/// Samples of one metric of a service: raw, where a gap is `null`, or with `points` in buckets, where one
/// without a value is absent. Counters (`c`) are as they were counted.
#[utoipa::path(get, path = "/hosts/{host}/services/{service}/metrics/{label}",
    operation_id = "service_samples", tag = "monitoring", security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path),
        ("label" = String, Path), Span),
    responses((status = 200, body = Samples)))]
async fn service_samples(
    State(app): State<AppState>,
    Path((host, service, label)): Path<(String, String, String)>,
    Query(span): Query<Span>,
) -> Result<Json<Samples>, Problem> {
    samples(&app, &host, &service, &label, &span).await
}

async fn samples(
    app: &AppState,
    host: &str,
    service: &str,
    label: &str,
    span: &Span,
) -> Result<Json<Samples>, Problem> {
    let times = times(span.from.as_deref(), span.to.as_deref(), clock::wall())?;
    let asked = span.asked()?;
    let id = host_id(app, host).await?;
    let known = app.store.series(id, Some(service)).await?;
    let series = known.into_iter().find(|s| s.label == label).ok_or_else(|| {
        Problem::not_found(
            "there are no samples of this metric; GET /hosts/{host}/metrics lists those there are",
        )
    })?;
    let (from, to) = seconds(times);
    let _turn = READS.acquire().await.map_err(Problem::internal)?;
    let pieces = app.history.pieces(from, to).await?;
    let shown = match asked {
        SampleForm::Samples(limit) => {
            let points = read_newest(app, series.id, &pieces, limit).await?;
            Samples { points: newest(&points, limit), ..Samples::default() }
        }
        SampleForm::Buckets(most) => {
            let width = history::query::width(from, to, u32::try_from(most).unwrap_or(u32::MAX));
            let mut parts = Vec::new();
            for piece in &pieces {
                add(&mut parts, &app.history.series(series.id, piece.start, piece.end).await?, width);
            }
            let buckets = Some(parts.iter().map(|part| bucket(part, width)).collect());
            Samples { bucket_s: Some(width as f64), buckets, ..Samples::default() }
        }
    };
    Ok(Json(Samples { label: series.label, uom: series.uom, ..shown }))
}

/// Reads from the end until there are enough samples. Returns these, and some before them.
async fn read_newest(
    app: &AppState,
    series: u32,
    pieces: &[Range<Second>],
    limit: i64,
) -> Result<Vec<history::Point>, Problem> {
    let enough = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found: Vec<history::Point> = Vec::new();
    for piece in pieces.iter().rev() {
        if found.len() >= enough {
            break;
        }
        let mut points = app.history.series(series, piece.start, piece.end).await?;
        points.append(&mut found);
        found = points;
    }
    Ok(found)
}

/// The newest samples, oldest first.
fn newest(points: &[history::Point], limit: i64) -> Vec<Point> {
    let first = points.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    points.iter().skip(first).map(|point| Point { at: text(point.at), value: point.value }).collect()
}

/// The values of a bucket so far.
struct Part {
    slot: i64,
    min: f64,
    max: f64,
    sum: f64,
    count: i64,
}

/// Adds samples, which are in order of time, to buckets that begin at multiples of `width` since 1970.
fn add(parts: &mut Vec<Part>, points: &[history::Point], width: Second) {
    for (at, value) in points.iter().filter_map(|point| Some((point.at, point.value?))) {
        let slot = at.div_euclid(width);
        match parts.last_mut().filter(|part| part.slot == slot) {
            Some(part) => {
                (part.min, part.max) = (part.min.min(value), part.max.max(value));
                (part.sum, part.count) = (part.sum + value, part.count + 1);
            }
            None => parts.push(Part { slot, min: value, max: value, sum: value, count: 1 }),
        }
    }
}

fn bucket(part: &Part, width: Second) -> Bucket {
    let Part { slot, min, max, sum, count } = *part;
    // A sum beyond the range of a double has no average.
    let avg = (sum / count as f64).clamp(min, max);
    Bucket { at: text(slot * width), min, avg, max, count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(Second, Option<f64>)]) -> Vec<history::Point> {
        values.iter().map(|(at, value)| history::Point { at: *at, value: *value }).collect()
    }

    /// The samples come in pieces, which end within buckets.
    fn shown(points: &[history::Point], width: Second) -> Vec<(String, f64, f64, f64, i64)> {
        let mut parts = Vec::new();
        points.chunks(3).for_each(|piece| add(&mut parts, piece, width));
        let shown = parts.iter().map(|part| bucket(part, width));
        shown.map(|b| (b.at, b.min, b.avg, b.max, b.count)).collect()
    }

    #[test]
    fn a_bucket_is_what_its_samples_say_and_a_gap_is_none() {
        let samples = points(&[
            (60, Some(1.0)),
            (70, Some(9.0)),
            (80, Some(2.0)),
            (90, None),
            (120, None),
            (180, Some(-5.0)),
            (239, Some(5.0)),
            (240, Some(7.0)),
        ]);
        let at = |minute: i64| text(minute * 60);
        let all = [(at(1), 1.0, 4.0, 9.0, 3), (at(3), -5.0, 0.0, 5.0, 2), (at(4), 7.0, 7.0, 7.0, 1)];
        assert_eq!(shown(&samples, 60), all);
        let hour = [(at(0), -5.0, 19.0 / 6.0, 9.0, 6)];
        assert_eq!(shown(&samples, 3_600), hour, "not the mean of means");
        let huge = points(&[(300, Some(f64::MAX)), (301, Some(f64::MAX))]);
        assert!(shown(&huge, 60)[0].2.is_finite());
    }

    #[test]
    fn the_newest_samples_come_oldest_first() {
        let samples = points(&[(1, Some(1.0)), (2, None), (3, Some(3.0))]);
        let found: Vec<Option<f64>> = newest(&samples, 2).into_iter().map(|point| point.value).collect();
        assert_eq!(found, [None, Some(3.0)]);
        assert_eq!((newest(&samples, 9).len(), newest(&[], 9)), (3, Vec::new()));
    }

    #[test]
    fn a_second_belongs_to_a_time_that_it_begins_in() {
        let whole = |from, to| seconds((Wall::from_millis(from), Wall::from_millis(to)));
        assert_eq!(whole(1_000, 2_000), (1, 2));
        assert_eq!(whole(1_001, 2_001), (2, 3));
    }

    #[test]
    fn a_time_ends_after_it_begins_and_begins_in_1970_or_later() {
        let now = Wall::from_millis(1_790_000_000_000);
        assert_eq!(times(None, None, now).unwrap().0, now + Duration::from_millis(1) - DEFAULT_SPAN);
        let early = times(Some("1900-01-01T00:00:00Z"), None, now).unwrap();
        assert_eq!(early.0, Wall::from_millis(0));
        for (from, to) in [
            (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00Z")),
            (Some("1900-01-01T00:00:00Z"), Some("1910-01-01T00:00:00Z")),
            (Some("yesterday"), None),
        ] {
            assert_eq!(times(from, to, now).unwrap_err().code(), "bad_query", "{from:?} {to:?}");
        }
    }
}
