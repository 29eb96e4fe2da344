//! One metric of many hosts over any time, in columns: per host, or per group of hosts.
//!
//! All series of an answer have the same times, so that they can be drawn and compared as they are. The engine decides
//! from which tier they come; the recorder reads them. This module selects hosts and renders.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use fleetgate_engine::history::query::{self, Columns, Group, Plan};
use fleetgate_engine::history::{SeriesKind, decimal};
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_probes::range::{Range, Thresholds};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::load_ever;
use super::metrics::{READS, points_within, seconds, text, times};
use super::request::extract::Query;
use super::request::ids::{self, IdKind};
use super::request::query::WithLabels;
use super::response::problem::Problem;
use super::types::names;
use crate::clock;
use crate::store::current_metrics::MetricLimits;
use crate::store::history::Series;
use crate::store::reports::{Selected, Selection};

/// Series that are read for one answer: one screen of a comparison, or a page of the list of hosts.
const MAX_SERIES: usize = 200;
/// Points of each series: the width of a graph in pixels.
const MAX_POINTS: i64 = 2_000;
const DEFAULT_POINTS: i64 = 600;
/// Hosts that labels may select. Few of them may have the metric.
const MAX_HOSTS: usize = 20_000;
/// Digits of a value: more than a picture or a table shows.
const DIGITS: u32 = 7;
/// Groups all hosts together.
const ALL: &str = "all";

/// One metric of the selected hosts. All series have the same times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricsQuery {
    pub from: String,
    /// Not included.
    pub to: String,
    /// What the points are made of.
    #[schema(value_type = names::TierName)]
    pub tier: String,
    /// Seconds from one point to the next.
    pub step_s: i64,
    /// The begin of the first point, a multiple of `step_s` since 1970 (UTC).
    pub start: String,
    /// The unit of the first series; empty without one. Of counters it is `1/s`.
    pub uom: String,
    /// The limits of the first host that has any. Absent: no host has.
    pub limits: Option<QueryLimits>,
    /// By name. A host without samples of the metric is absent.
    pub series: Vec<QueriedSeries>,
}

/// The limits of a metric, as Nagios ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueryLimits {
    pub warn: Option<String>,
    pub crit: Option<String>,
    /// Other hosts of the selection have other limits, or none.
    pub differ: bool,
}

/// The points of a host or a group. Each column has one item for each step; `null` is a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueriedSeries {
    /// `h_...`; absent for a group.
    pub host_id: Option<String>,
    /// The name of the host; absent for a group.
    pub host: Option<String>,
    /// The value of the label; absent for a host, for hosts without that label, and for all hosts together.
    pub group: Option<String>,
    /// The number of hosts of a group.
    pub hosts: Option<u32>,
    /// That of the answer.
    pub start: String,
    pub step_s: i64,
    #[schema(value_type = names::TierName)]
    pub tier: String,
    /// Counters are shown as rates, with the unit `1/s`.
    pub uom: String,
    pub min: Vec<Option<f64>>,
    /// The sum of the values divided by their count. Of a group: the mean of its hosts, each of which counts the same.
    pub avg: Vec<Option<f64>>,
    pub max: Vec<Option<f64>>,
    /// Samples with a value. Of a group: hosts with a value.
    pub count: Vec<u32>,
    /// Of a group: the worst value of a host, in the direction of the limit. Without a limit it is the highest.
    pub worst: Option<Vec<Option<f64>>>,
    /// The limits of the host, or of the first host of the group that has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<QueryLimits>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(query_metrics))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MetricsParams {
    /// The service with the metric; the host check when absent.
    service: Option<String>,
    /// The label of the metric, such as `rta`.
    #[serde(default)]
    #[param(required = true)]
    metric: String,
    /// RFC 3339; a day before `to` when absent.
    from: Option<String>,
    /// RFC 3339, not included; now when absent.
    to: Option<String>,
    /// At most so many points of each series; 600 when absent.
    #[param(minimum = 2, maximum = 2000)]
    points: Option<i64>,
    /// The key of a label: one series for all hosts with the same value. `all`: one series for all hosts.
    group_by: Option<String>,
}

/// The hosts that are given by id or name.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct WithHosts {
    /// A host by id or name, a removed one by id. May be given several times. With labels, only those of them that have
    /// these labels.
    #[param(value_type = Option<Vec<String>>)]
    host: Vec<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for WithHosts {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let mut seen = BTreeSet::new();
        let texts = given.filter(|(name, _)| name == "host").map(|(_, text)| text.into_owned());
        let host: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
        if host.len() > MAX_SERIES {
            let detail = format!("{} hosts were given, and a query has at most {MAX_SERIES}", host.len());
            return Err(Problem::invalid("host", detail));
        }
        Ok(WithHosts { host })
    }
}

/// One metric of one or many hosts in columns of equal steps, from the finest samples or roll-ups that need no more
/// points than were asked for. At most 200 series, or hosts of groups.
#[utoipa::path(get, path = "/metrics/query", operation_id = "query_metrics", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(WithHosts, WithLabels, MetricsParams),
    responses((status = 200, body = MetricsQuery)))]
async fn query_metrics(
    State(app): State<AppState>,
    WithHosts { host }: WithHosts,
    WithLabels { label }: WithLabels,
    Query(wanted): Query<MetricsParams>,
) -> Result<Json<MetricsQuery>, Problem> {
    let now = clock::wall();
    let (times, points) = wanted.check(now)?;
    let hosts = selected(&app, &host, &label).await?;
    let _turn = READS.acquire().await.map_err(Problem::internal)?;
    let found = found(&app, hosts, &wanted).await?;
    let plan = plan(&app, times, points, now);
    let series: Vec<Series> = found.iter().map(|found| found.series.clone()).collect();
    let columns = app.history.query(&series, &plan).await?;
    let limits = limits(&app, &found, &wanted).await?;
    let members: Vec<(MetricHost, Columns)> = found.into_iter().zip(columns).collect();
    let shown = match wanted.group_by.as_deref() {
        None => members.into_iter().map(|member| of_host(member, &limits, &plan)).collect(),
        Some(key) => {
            let values = label_values(&app, &members, key).await?;
            grouped(members, &values, &limits, &plan)
        }
    };
    Ok(Json(answer(times, &plan, first_limits(limits.iter()), shown)))
}

impl MetricsParams {
    /// Checks what needs no database. Returns the time and the number of points.
    fn check(&self, now: Wall) -> Result<((Wall, Wall), u32), Problem> {
        let refused = |detail: &str| Problem::bad_request("bad_query", detail);
        if self.metric.is_empty() {
            return Err(refused(
                "metric: the label of a metric is expected, such as rta; GET /hosts/{host}/metrics lists those of a \
                 host",
            ));
        }
        if self.group_by.as_deref() == Some("") {
            return Err(refused("group_by: the key of a label is expected, or all"));
        }
        let points = points_within(self.points.unwrap_or(DEFAULT_POINTS), MAX_POINTS)?;
        let times = times(self.from.as_deref(), self.to.as_deref(), now)?;
        Ok((times, u32::try_from(points).unwrap_or(u32::MAX)))
    }

    fn service(&self) -> &str {
        self.service.as_deref().unwrap_or_default()
    }
}

fn plan(app: &AppState, times: (Wall, Wall), points: u32, now: Wall) -> Plan {
    let (from, to) = seconds(times);
    let now = now.as_millis().div_euclid(1_000);
    query::plan(from, to.max(from + 1), points, now, &app.history.kept(now))
}

/// Returns the hosts that were named, in that order, or those with the labels, by name.
async fn selected(
    app: &AppState,
    named: &[String],
    labels: &[(String, String)],
) -> Result<Vec<(HostId, String)>, Problem> {
    match (named, labels) {
        ([], []) => {
            let detail =
                "host or label is expected: host=cam-07 for one host, label=site=north for all of a site";
            Err(Problem::bad_request("bad_query", detail))
        }
        ([], labels) => labelled(app, labels).await,
        (named, labels) => by_name(app, named, labels).await,
    }
}

async fn by_name(
    app: &AppState,
    named: &[String],
    labels: &[(String, String)],
) -> Result<Vec<(HostId, String)>, Problem> {
    let mut conn = app.store.reader().await?;
    let (mut hosts, mut seen) = (Vec::new(), BTreeSet::new());
    for text in named {
        let host = load_ever(&mut conn, IdKind::Host.named(text)).await?;
        let has_all = labels.iter().all(|(key, value)| host.labels.get(key) == Some(value));
        if has_all && seen.insert(host.id) {
            hosts.push((host.id, host.name));
        }
    }
    Ok(hosts)
}

async fn labelled(app: &AppState, labels: &[(String, String)]) -> Result<Vec<(HostId, String)>, Problem> {
    let most = i64::try_from(MAX_HOSTS).unwrap_or(i64::MAX);
    let hosts = app.store.selected_hosts(Selection { host: None, labels }, most + 1).await?;
    if hosts.len() > MAX_HOSTS {
        return Err(too_many(&format!("more than {MAX_HOSTS} hosts have these labels")));
    }
    Ok(hosts.into_iter().map(|Selected { id, name, .. }| (id, name)).collect())
}

fn too_many(why: &str) -> Problem {
    let detail = format!(
        "{why}, and a query reads at most {MAX_SERIES} series: select fewer hosts by another label, or name them with \
         `host`"
    );
    Problem::invalid("label", detail)
}

/// A host with a series of the metric.
struct MetricHost {
    host: HostId,
    name: String,
    series: Series,
}

/// Returns the hosts that have the metric, in their order.
async fn found(
    app: &AppState,
    hosts: Vec<(HostId, String)>,
    wanted: &MetricsParams,
) -> Result<Vec<MetricHost>, Problem> {
    let ids: Vec<HostId> = hosts.iter().map(|(id, _)| *id).collect();
    let all = app.store.series_of(&ids, wanted.service(), &wanted.metric).await?;
    if all.len() > MAX_SERIES {
        return Err(too_many(&format!("{} hosts of the selection have this metric", all.len())));
    }
    let mut by_host: HashMap<HostId, Series> = all.into_iter().map(|series| (series.host, series)).collect();
    let found = hosts
        .into_iter()
        .filter_map(|(host, name)| by_host.remove(&host).map(|series| MetricHost { host, name, series }));
    Ok(found.collect())
}

/// The limits of a host.
type Limited = (HostId, MetricLimits);

/// Returns the limits of the hosts whose last result has the metric, in the order of the hosts.
async fn limits(
    app: &AppState,
    found: &[MetricHost],
    wanted: &MetricsParams,
) -> Result<Vec<Limited>, Problem> {
    let hosts: Vec<HostId> = found.iter().map(|found| found.host).collect();
    Ok(app.store.metric_limits(&hosts, wanted.service(), &wanted.metric).await?)
}

fn first_limits<'a>(all: impl Iterator<Item = &'a Limited> + Clone) -> Option<QueryLimits> {
    let all = all.map(|(_, limits)| limits);
    let first = all.clone().find(|limits| **limits != MetricLimits::default())?;
    let differ = all.clone().any(|limits| limits != first);
    Some(QueryLimits { warn: first.warn.clone(), crit: first.crit.clone(), differ })
}

fn thresholds(limits: Option<&QueryLimits>) -> Thresholds {
    let range = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Range>().ok());
    limits.map_or_else(Thresholds::default, |limits| Thresholds {
        warn: range(&limits.warn),
        crit: range(&limits.crit),
    })
}

/// Returns the value of the label on each host that has it. All hosts together have none.
async fn label_values(
    app: &AppState,
    members: &[(MetricHost, Columns)],
    key: &str,
) -> Result<HashMap<HostId, String>, Problem> {
    if key == ALL {
        return Ok(HashMap::new());
    }
    let hosts: Vec<HostId> = members.iter().map(|(found, _)| found.host).collect();
    let values = app.store.label_values(&hosts, key).await?;
    Ok(values.into_iter().filter_map(|(host, value)| value.map(|value| (host, value))).collect())
}

/// The value of the label, if the hosts have it, and the unit.
type GroupKey = (Option<String>, String);

/// Joins the hosts with the same value of the label. Values of different units have no mean.
fn grouped(
    members: Vec<(MetricHost, Columns)>,
    values: &HashMap<HostId, String>,
    limits: &[Limited],
    plan: &Plan,
) -> Vec<QueriedSeries> {
    let mut groups: BTreeMap<GroupKey, (BTreeSet<HostId>, Vec<Columns>)> = BTreeMap::new();
    for (found, columns) in members {
        let key = (values.get(&found.host).cloned(), uom(&found.series));
        let (hosts, of_hosts) = groups.entry(key).or_default();
        hosts.insert(found.host);
        of_hosts.push(columns);
    }
    let mut all = Vec::with_capacity(groups.len());
    for ((group, uom), (members, of_members)) in groups {
        let limits = first_limits(limits.iter().filter(|(host, _)| members.contains(host)));
        let direction = query::direction(thresholds(limits.as_ref()));
        let Group { columns, worst, hosts } = query::group(&of_members, direction);
        let (hosts, worst) = (Some(hosts), Some(rounded(worst)));
        all.push(QueriedSeries { group, hosts, worst, limits, ..of_columns(columns, plan, uom) });
    }
    all
}

fn of_host((found, columns): (MetricHost, Columns), limits: &[Limited], plan: &Plan) -> QueriedSeries {
    let limits = first_limits(limits.iter().filter(|(host, _)| *host == found.host));
    let series = of_columns(columns, plan, uom(&found.series));
    let (host_id, host) = (Some(IdKind::Host.text(found.host)), Some(found.name));
    QueriedSeries { host_id, host, limits, ..series }
}

fn of_columns(columns: Columns, plan: &Plan, uom: String) -> QueriedSeries {
    QueriedSeries {
        host_id: None,
        host: None,
        group: None,
        hosts: None,
        start: text(plan.start),
        step_s: plan.step,
        tier: plan.tier.name().to_owned(),
        uom,
        min: rounded(columns.min),
        avg: rounded(columns.avg),
        max: rounded(columns.max),
        count: columns.count,
        worst: None,
        limits: None,
    }
}

pub(super) fn rounded(column: Vec<Option<f64>>) -> Vec<Option<f64>> {
    column.into_iter().map(|value| value.map(|value| decimal::significant(value, DIGITS))).collect()
}

/// The unit as it is shown. A counter is shown as its rate.
pub(super) fn uom(series: &Series) -> String {
    match SeriesKind::of(&series.uom) {
        SeriesKind::Counter => "1/s".to_owned(),
        SeriesKind::Gauge => series.uom.clone(),
    }
}

fn answer(
    (from, to): (Wall, Wall),
    plan: &Plan,
    limits: Option<QueryLimits>,
    series: Vec<QueriedSeries>,
) -> MetricsQuery {
    MetricsQuery {
        from: ids::time(from),
        to: ids::time(to),
        tier: plan.tier.name().to_owned(),
        step_s: plan.step,
        start: text(plan.start),
        uom: series.first().map(|series| series.uom.clone()).unwrap_or_default(),
        limits,
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(warn: Option<&str>, crit: Option<&str>) -> MetricLimits {
        MetricLimits { warn: warn.map(str::to_owned), crit: crit.map(str::to_owned) }
    }

    #[test]
    fn the_first_limits_are_shown_and_whether_others_differ() {
        let (none, some, other) = (limits(None, None), limits(Some("80"), None), limits(None, Some("90")));
        let shown = |all: &[MetricLimits]| {
            let of_hosts: Vec<Limited> =
                all.iter().map(|limits| (HostId::from_i64(1), limits.clone())).collect();
            first_limits(of_hosts.iter()).map(|limits| (limits.warn, limits.crit, limits.differ))
        };
        let eighty = || Some("80".to_owned());
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(std::slice::from_ref(&none)), None);
        assert_eq!(shown(&[some.clone(), some.clone()]), Some((eighty(), None, false)));
        assert_eq!(shown(&[none, some.clone()]), Some((eighty(), None, true)));
        assert_eq!(shown(&[some, other]), Some((eighty(), None, true)));
    }

    #[test]
    fn values_have_no_more_digits_than_are_shown() {
        assert_eq!(
            rounded(vec![Some(12.345_678_9), None, Some(0.1 + 0.2)]),
            [Some(12.345_68), None, Some(0.3)]
        );
    }
}
