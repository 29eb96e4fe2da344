//! The hosts with the highest values: the fullest disks, the most traffic of the month, the slowest replies.
//!
//! Values come from states and from the traffic of days. This module reads no history.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::metrics::{READS, within};
use super::request::extract::Query;
use super::request::ids::IdKind;
use super::response::problem::Problem;
use super::types::{Page, names, not_empty};
use crate::clock;
use crate::store::current_metrics::{Current, Ranked};
use crate::store::wire_days::MonthOfPeer;

/// The default length of a list.
const DEFAULT_LIMIT: i64 = 10;
/// The longest list.
const MAX_LIMIT: i64 = 100;

/// What hosts are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopMetric {
    DiskUsed,
    Traffic,
    Rtt,
}

impl TopMetric {
    pub(super) const ALL: [TopMetric; 3] = [TopMetric::DiskUsed, TopMetric::Traffic, TopMetric::Rtt];

    pub(super) const fn name(self) -> &'static str {
        match self {
            TopMetric::DiskUsed => "disk_used",
            TopMetric::Traffic => "traffic",
            TopMetric::Rtt => "rtt",
        }
    }
}

/// A host with a high value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopItem {
    /// `h_...`
    pub host_id: String,
    pub host: String,
    /// Absent: the value is of the host itself.
    pub service: Option<String>,
    pub value: f64,
    pub uom: String,
    /// The output of the service, or the value in words.
    pub text: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(top))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TopParams {
    /// What hosts are ranked by.
    #[serde(default)]
    #[param(required = true, value_type = names::TopMetricName)]
    metric: String,
    /// Hosts or services of the list; 10 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

impl TopParams {
    fn metric(&self) -> Result<TopMetric, Problem> {
        let found = TopMetric::ALL.into_iter().find(|metric| metric.name() == self.metric);
        let expected = || {
            let names = TopMetric::ALL.map(TopMetric::name).join(", ");
            Problem::bad_request("bad_query", format!("metric: one of {names} is expected"))
        };
        found.ok_or_else(expected)
    }
}

/// The highest values of now, the highest first: `disk_used` of disk sensors, `rtt` of ping checks, both of services
/// that are current, and `traffic` of devices in this month (UTC).
#[utoipa::path(get, path = "/metrics/top", operation_id = "top_metrics", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(TopParams),
    responses((status = 200, body = Page<TopItem>)))]
async fn top(
    State(app): State<AppState>,
    Query(wanted): Query<TopParams>,
) -> Result<Json<Page<TopItem>>, Problem> {
    let metric = wanted.metric()?;
    let limit = within("limit", wanted.limit.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)?;
    let _turn = READS.acquire().await.map_err(Problem::internal)?;
    let items: Vec<TopItem> = match ranked(metric) {
        Some(ranked) => app.store.highest(ranked, limit).await?.into_iter().map(of_service).collect(),
        None => {
            let (first, today) = month(clock::wall());
            app.store.most_traffic(first, today, limit).await?.into_iter().map(of_peer).collect()
        }
    };
    Ok(Json(Page { items, next: None }))
}

/// Returns the metric of services that stands for it. `None`: it is no metric of a service.
const fn ranked(metric: TopMetric) -> Option<Ranked> {
    match metric {
        TopMetric::DiskUsed => Some(Ranked { label: "used", beside: "fullness" }),
        TopMetric::Rtt => Some(Ranked { label: "rta", beside: "rtmax" }),
        TopMetric::Traffic => None,
    }
}

fn of_service(of: Current) -> TopItem {
    TopItem {
        host_id: IdKind::Host.text(of.host),
        host: of.host_name,
        service: not_empty(&of.service),
        value: of.value,
        uom: of.uom,
        text: of.output,
    }
}

fn of_peer(of: MonthOfPeer) -> TopItem {
    TopItem {
        host_id: IdKind::Host.text(of.peer),
        host: of.name,
        service: None,
        value: of.bytes as f64,
        uom: "B".to_owned(),
        text: format!("{:.1} MB this month", of.bytes as f64 / 1e6),
    }
}

/// Returns the first day of the month and this day, as numbers of UTC days since 1970.
fn month(now: Wall) -> (i64, i64) {
    let at = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
    let today = now.as_millis().div_euclid(86_400_000);
    (today - i64::from(date.day()) + 1, today)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::request::ids;
    use crate::api::testing::TestApi;
    use crate::store::fixture;

    #[test]
    fn a_month_begins_on_its_first_day() {
        let day = |text: &str| ids::parse_time("t", text).unwrap();
        for (now, first, today) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-02-03T23:59:59Z", 31, 33),
            ("2026-03-01T00:00:00Z", 20_513, 20_513),
            ("2026-03-31T12:00:00Z", 20_513, 20_543),
        ] {
            assert_eq!(month(day(now)), (first, today), "{now}");
        }
    }

    /// Sets the metrics of a service, as JSON.
    async fn put(api: &TestApi, host: &str, service: &str, metrics: &str) {
        let sql = "insert into service_states
                       (host, service, kind, attempt, stale, since, route, output, long_output, metrics, warnings)
                   select id, $2, 'hard', 1, 0, 0, 'tunnel', 'as it is', '', $3, '[]' from hosts where name = $1
                   on conflict (host, service) do update set metrics = excluded.metrics, stale = 0";
        fixture::run(&api.state.store, sql, &[host, service, metrics]).await;
    }

    #[tokio::test]
    async fn hosts_are_ranked_by_disk_rtt_and_traffic() {
        let api = TestApi::with_endpoint().await;
        for name in ["cam-1", "cam-2"] {
            assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": name })).await.status, 201);
        }
        let disk = |used: f64| {
            json!([{ "label": "used", "value": used, "uom": "%" }, { "label": "fullness", "value": used }])
                .to_string()
        };
        let ping = |rta: f64| {
            json!([{ "label": "rta", "value": rta, "uom": "ms" }, { "label": "rtmax", "value": rta }])
                .to_string()
        };
        put(&api, "cam-1", "disk", &disk(40.0)).await;
        put(&api, "cam-2", "disk", &disk(97.5)).await;
        put(&api, "cam-1", "ping", &ping(800.25)).await;
        put(&api, "cam-2", "ping", &ping(20.0)).await;
        let days = "insert into wire_days (day, peer, rx_bytes, tx_bytes)
                    select cast($1 as integer), id, cast($2 as integer), 5 from hosts where name = $3";
        let (first, today) = month(clock::wall());
        for (day, bytes, name) in
            [(first, 1_000_000, "cam-1"), (first - 1, 9_000_000, "cam-2"), (today + 1, 9_000_000, "cam-2")]
        {
            fixture::run(&api.state.store, days, &[&day.to_string(), &bytes.to_string(), name]).await;
        }
        let top = async |query: &str| {
            let answer = api.viewer().get(&format!("/api/v1/metrics/top?metric={query}")).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.text);
            let page: Page<TopItem> = serde_json::from_value(answer.json).unwrap();
            page.items
                .into_iter()
                .map(|item| (item.host, item.value, item.uom, item.text))
                .collect::<Vec<_>>()
        };
        let item = |host: &str, value: f64, uom: &str, text: &str| {
            (host.to_owned(), value, uom.to_owned(), text.to_owned())
        };
        let disks = [item("cam-2", 97.5, "%", "as it is"), item("cam-1", 40.0, "%", "as it is")];
        assert_eq!(top("disk_used").await, disks);
        assert_eq!(top("disk_used&limit=1").await, disks[..1]);
        assert_eq!(top("rtt").await[0].1, 800.25);
        assert_eq!(top("traffic").await, [item("cam-1", 1_000_005.0, "B", "1.0 MB this month")]);
        for (bad, named) in [
            ("", "metric"),
            ("?metric=heat", "disk_used, traffic, rtt"),
            ("?metric=rtt&limit=0", "limit: 1 to 100"),
        ] {
            let answer = api.viewer().get(&format!("/api/v1/metrics/top{bad}")).await;
            assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{bad}: {}", answer.text);
            assert!(answer.text.contains(named), "{bad}: {}", answer.text);
        }
    }
}
