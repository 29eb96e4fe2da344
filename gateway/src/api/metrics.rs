//! Samples of metrics, as measured or in time buckets.
//!
//! A gap stays a gap. A bucket's average is the sum of its samples divided by their number. This
//! module knows nothing of checks.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::load_ever;
use super::request::extract::{Path, Query};
use super::request::ids::{self, Kind};
use super::response::problem::Problem;
use super::types::Page;
use crate::clock;
use crate::store::history;

/// Samples of one response: a week at one a minute.
const MAX_POINTS: i64 = 10_080;
const DEFAULT_POINTS: i64 = 1_440;
/// The default time span.
const DEFAULT_SPAN: Duration = Duration::from_secs(24 * 3_600);
/// The width of a graph in pixels.
const MAX_BUCKETS: i64 = 2_000;
const DAY_S: i64 = 86_400;
/// Widths below a day: readable divisors of a day.
const USUAL_WIDTHS_S: [i64; 15] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 10_800, 21_600];

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
    /// The sum of the values by their count.
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
    let info = |s: crate::store::history::Series| SeriesInfo {
        service: Some(s.service).filter(|s| !s.is_empty()),
        label: s.label,
        uom: s.uom,
    };
    Ok(Json(Page { items: all.into_iter().map(info).collect(), next: None }))
}

async fn host_id(app: &AppState, host: &str) -> Result<HostId, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(load_ever(&mut conn, Kind::Host.named(host)).await?.id)
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
    #[param(minimum = 1, maximum = 2000)]
    points: Option<i64>,
}

/// The requested form of the data.
enum Asked {
    Samples(i64),
    Buckets(i64),
}

impl Span {
    fn parse(&self, now: Wall) -> Result<(Wall, Wall, Asked), Problem> {
        let to = self.to.as_deref().map(|t| ids::parse_time("to", t)).transpose()?;
        let to = to.unwrap_or(now + Duration::from_millis(1));
        let from = self.from.as_deref().map(|t| ids::parse_time("from", t)).transpose()?;
        let from = from.unwrap_or(to - DEFAULT_SPAN);
        if from >= to {
            return Err(Problem::bad_request("bad_query", "from: a time before `to` is expected"));
        }
        Ok((from, to, self.asked()?))
    }

    fn asked(&self) -> Result<Asked, Problem> {
        match (self.points, self.limit) {
            (Some(_), Some(_)) => {
                Err(Problem::bad_request("bad_query", "points or limit is expected, not both"))
            }
            (Some(points), None) => within("points", points, MAX_BUCKETS).map(Asked::Buckets),
            (None, limit) => within("limit", limit.unwrap_or(DEFAULT_POINTS), MAX_POINTS).map(Asked::Samples),
        }
    }
}

fn within(name: &str, given: i64, most: i64) -> Result<i64, Problem> {
    let expected = || Problem::bad_request("bad_query", format!("{name}: 1 to {most} is expected"));
    if (1..=most).contains(&given) { Ok(given) } else { Err(expected()) }
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
    let (from, to, asked) = span.parse(clock::wall())?;
    let id = host_id(app, host).await?;
    let known = app.store.series(id, Some(service)).await?;
    let series = known.into_iter().find(|s| s.label == label).ok_or_else(|| {
        Problem::not_found(
            "there are no samples of this metric; GET /hosts/{host}/metrics lists those there are",
        )
    })?;
    let shown = match asked {
        Asked::Samples(limit) => {
            let rows = app.store.samples(series.id, from, to, limit).await?;
            let point = |(at, value)| Point { at: ids::time(at), value };
            Samples { points: rows.into_iter().map(point).collect(), ..Samples::default() }
        }
        Asked::Buckets(most) => {
            let width = width(from, to, most);
            let rows = app.store.buckets(series.id, from, to, width).await?;
            let buckets = Some(rows.into_iter().map(bucket).collect());
            Samples { bucket_s: Some(width.as_secs_f64()), buckets, ..Samples::default() }
        }
    };
    Ok(Json(Samples { label: series.label, uom: series.uom, ..shown }))
}

fn bucket(bucket: history::Bucket) -> Bucket {
    let history::Bucket { at, min, avg, max, count } = bucket;
    Bucket { at: ids::time(at), min, avg, max, count }
}

/// Returns the smallest usual width that cuts `[from, to)` into at most `most` buckets, including
/// partial ones.
fn width(from: Wall, to: Wall, most: i64) -> Duration {
    let days = (1..).map(|n| n * DAY_S);
    let mut widths = USUAL_WIDTHS_S.into_iter().chain(days).map(|s| s * 1_000);
    let buckets = |ms: i64| (to.as_millis() - 1).div_euclid(ms) - from.as_millis().div_euclid(ms) + 1;
    let fits = widths.find(|ms| buckets(*ms) <= most.max(2));
    Duration::from_millis(fits.unwrap_or_default().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width_of(from_s: i64, to_s: i64, most: i64) -> u64 {
        width(Wall::from_millis(from_s * 1_000), Wall::from_millis(to_s * 1_000), most).as_secs()
    }

    #[test]
    fn buckets_are_as_wide_as_people_count() {
        const DAY: i64 = 86_400;
        let table = [
            ((0, 10, 100), 1),
            ((0, 3_600, 100), 60),
            ((0, DAY, 288), 300),
            ((0, DAY, 287), 600),
            ((0, 30 * DAY, 720), 3_600),
            ((0, 30 * DAY, 30), 86_400),
            ((0, 400 * DAY, 100), 4 * 86_400),
        ];
        for ((from, to, most), expected) in table {
            assert_eq!(width_of(from, to, most), expected, "{from} {to} {most}");
        }
    }

    #[test]
    fn a_time_that_begins_within_a_bucket_needs_one_more() {
        assert_eq!(width_of(0, 600, 10), 60);
        assert_eq!(width_of(1, 601, 10), 120);
        assert_eq!(width_of(59, 61, 2), 1);
    }
}
