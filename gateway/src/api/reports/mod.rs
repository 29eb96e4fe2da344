//! Reports over a period: availability.
//!
//! The store reads intervals, `collect` sums them up while they come, and this file selects, pages
//! and renders. `fleetgate_engine::availability` decides what counts.

pub(in crate::api) mod collect;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::availability::{GatewaySeries, Period, Sums};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::GATEWAY;
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts;
use super::request::extract::Query;
use super::request::ids::{self, IdKind};
use super::request::query::WithLabels;
use super::response::page::{self, Paging};
use super::response::problem::Problem;
use super::types::{Page, not_empty};
use crate::clock;
use crate::store::Store;
use crate::store::intervals::Services;
use crate::store::reports::{Selected, Selection};

use collect::{Added, Collector, OfGateway, SumsByService};
pub use types::*;

/// Hosts or services of one report. Each has some hundred bytes, and a year of intervals.
const MOST_OBJECTS: usize = 20_000;
/// Intervals are kept for two years by default, and a longer time has nothing more to show.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);
/// Selects all services.
const ALL_SERVICES: &str = "*";
/// The label that groups hosts by place.
const SITE: &str = "site";
/// Reports that are computed at once, those of rentals too. Each holds one of the few connections for reading.
pub(in crate::api) static AT_ONCE: Semaphore = Semaphore::const_new(1);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(availability))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReportParams {
    /// RFC 3339 with an offset.
    #[param(example = "2026-03-10T14:00:00+01:00")]
    from: String,
    /// RFC 3339 with an offset, not included; now when absent or in the future.
    to: Option<String>,
    /// Only this host: id or name. The id also of one that was removed.
    host: Option<String>,
    /// The service of this name on each host, or all services with `*`. Hosts when absent.
    service: Option<String>,
    /// Only hosts with this value of the label `site`.
    site: Option<String>,
}

impl ReportParams {
    fn period(&self, now: Wall) -> Result<Period, Problem> {
        let to = self.to.as_deref().map(|text| ids::parse_time("to", text)).transpose()?;
        let (from, to) = (ids::parse_time("from", &self.from)?, to.unwrap_or(now).min(now));
        let refused = |detail: &str| Problem::bad_request("bad_query", detail);
        if to.since(from) > LONGEST {
            return Err(refused("from: at most ten years before `to` are expected"));
        }
        Period::new(from, to).ok_or_else(|| refused("from: a time before `to` and before now is expected"))
    }

    fn services(&self) -> Services<'_> {
        match self.service.as_deref() {
            None => Services::None,
            Some(ALL_SERVICES) => Services::All,
            Some(service) => Services::One(service),
        }
    }
}

/// How long hosts or services were available, by name. An available host is UP. An available service is OK or WARNING,
/// and its host is not DOWN.
#[utoipa::path(get, path = "/reports/availability", operation_id = "availability_report", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, ReportParams, WithLabels),
    responses((status = 200, body = AvailabilityReport)))]
async fn availability(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<ReportParams>,
    labels: WithLabels,
) -> Result<Json<AvailabilityReport>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let after = after.as_deref().map(key).transpose()?;
    let period = wanted.period(clock::wall())?;
    let labels: Vec<(String, String)> = labels
        .label
        .into_iter()
        .chain(wanted.site.iter().map(|site| (SITE.to_owned(), site.clone())))
        .collect();
    let _turn = AT_ONCE.acquire().await.map_err(Problem::internal)?;
    let host = match wanted.host.as_deref() {
        Some(text) => {
            Some(hosts::load_ever(&mut *app.store.reader().await?, IdKind::Host.named(text)).await?.id)
        }
        None => None,
    };
    let selection = Selection { host, labels: &labels };
    let objects = objects(&app.store, selection, wanted.services(), period).await?;
    Ok(Json(report(objects, period, after, limit)))
}

/// A host or a service with its sums.
struct Object {
    host: Selected,
    service: String,
    sums: Sums,
}

/// Reads and sums up the selection.
async fn objects(
    store: &Store,
    selection: Selection<'_>,
    services: Services<'_>,
    period: Period,
) -> Result<Vec<Object>, Problem> {
    let most = i64::try_from(MOST_OBJECTS).unwrap_or(i64::MAX);
    let hosts = store.selected_hosts(selection, most + 1).await?;
    let ids: Vec<HostId> = hosts.iter().map(|host| host.id).collect();
    is_small_enough(ids.len())?;
    let wanted = match services {
        Services::None => ids.iter().map(|id| (*id, String::new())).collect(),
        _ => store.selected_services(&ids, services, most + 1).await?,
    };
    is_small_enough(wanted.len())?;
    let found = sums(store, &ids, services, period, wanted).await?;
    is_small_enough(found.len())?;
    let by_id: BTreeMap<HostId, Selected> = hosts.into_iter().map(|host| (host.id, host)).collect();
    let object = |((id, service), sums): ((HostId, String), Sums)| {
        by_id.get(&id).cloned().map(|host| Object { host, service, sums })
    };
    Ok(found.into_iter().filter_map(object).collect())
}

fn is_small_enough(objects: usize) -> Result<(), Problem> {
    let detail = format!(
        "a report has at most {MOST_OBJECTS} hosts or services, and the selection has more: select by host, label, \
         site or service"
    );
    if objects > MOST_OBJECTS { Err(Problem::bad_request("bad_query", detail)) } else { Ok(()) }
}

async fn sums(
    store: &Store,
    hosts: &[HostId],
    services: Services<'_>,
    period: Period,
    wanted: Vec<(HostId, String)>,
) -> Result<SumsByService, Problem> {
    let crowded: BTreeSet<HostId> = store.crowded_hosts(hosts, services, period).await?.into_iter().collect();
    let others: Vec<HostId> = hosts.iter().copied().filter(|host| !crowded.contains(host)).collect();
    let mut found = collected(store, &others, services, period).await?.finish(wanted);
    for host in crowded {
        found.extend(in_parts(store, host, services, period).await?);
    }
    Ok(found)
}

/// Reads the intervals of hosts.
async fn collected(
    store: &Store,
    hosts: &[HostId],
    services: Services<'_>,
    period: Period,
) -> Result<Collector, Problem> {
    let mut collector = Collector::new(gateway(store, period).await?, period, services);
    let span = (period.from(), period.until());
    store.intervals(hosts, services, span, |of| collector.push(&of)).await?;
    Ok(collector)
}

async fn gateway(store: &Store, period: Period) -> Result<GatewaySeries, Problem> {
    let mut gateway = OfGateway::default();
    let span = (period.from(), period.until());
    store.intervals(&[GATEWAY], Services::None, span, |of| gateway.push(&of)).await?;
    Ok(gateway.series())
}

/// Sums up a host with so many intervals that they are not read at once.
async fn in_parts(
    store: &Store,
    host: HostId,
    services: Services<'_>,
    period: Period,
) -> Result<SumsByService, Problem> {
    let mut added = Added::new();
    for part in store.parts(host, period).await? {
        let collector = collected(store, &[host], services, part).await?;
        let without = collector.without();
        added.add(collector.finish([]), without);
    }
    Ok(added.finish())
}

/// The place of an object in the report: the name of its host, and its own.
type Key = (String, String);

/// Reads the key of a cursor. Names have no slash.
fn key(cursor: &str) -> Result<Key, Problem> {
    let (host, service) = cursor.split_once('/').ok_or_else(page::bad_cursor)?;
    Ok((host.to_owned(), service.to_owned()))
}

fn key_of(object: &Object) -> (&str, &str) {
    (object.host.name.as_str(), object.service.as_str())
}

fn report(mut objects: Vec<Object>, period: Period, after: Option<Key>, limit: i64) -> AvailabilityReport {
    objects.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    let (total, sites) = (total(&objects), sites(&objects));
    let is_later = |object: &Object| {
        after.as_ref().is_none_or(|(host, service)| key_of(object) > (host.as_str(), service.as_str()))
    };
    let rows: Vec<Object> = objects.into_iter().filter(is_later).collect();
    let text = |object: &Object| format!("{}/{}", object.host.name, object.service);
    let page = Page::of(rows, limit, text, to_api);
    let (from, to) = (ids::time(period.from()), ids::time(period.until()));
    AvailabilityReport { from, to, total: (&total).into(), sites, items: page.items, next: page.next }
}

fn total(objects: &[Object]) -> Sums {
    let mut total = Sums::default();
    objects.iter().for_each(|object| total += object.sums);
    total
}

fn sites(objects: &[Object]) -> Vec<SiteAvailability> {
    let mut sites: BTreeMap<Option<&str>, (u64, Sums)> = BTreeMap::new();
    for object in objects {
        let (count, sums) = sites.entry(object.host.site.as_deref()).or_default();
        *count += 1;
        *sums += object.sums;
    }
    let site = |(site, (objects, sums)): (Option<&str>, (u64, Sums))| SiteAvailability {
        site: site.map(str::to_owned),
        objects,
        availability: (&sums).into(),
    };
    sites.into_iter().map(site).collect()
}

fn to_api(object: Object) -> ObjectAvailability {
    ObjectAvailability {
        host: IdKind::Host.text(object.host.id),
        host_name: object.host.name,
        site: object.host.site,
        service: not_empty(&object.service),
        availability: (&object.sums).into(),
    }
}
