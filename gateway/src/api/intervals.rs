//! The states of a host and its services over a time, as intervals.
//!
//! `reports` sums them up. This module only shows them, for the bar below a graph.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::availability::Period;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::load_ever;
use super::metrics::times;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::response::problem::Problem;
use super::types::{Page, names, not_empty};
use crate::clock;
use crate::store::intervals::{Interval, Services};

/// Intervals of one answer: some 2 MB. A service that changes every hour has as many in a year.
const MAX_INTERVALS: usize = 10_000;

/// A state, a downtime, or another condition of a host or a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostInterval {
    /// Absent: the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[schema(value_type = names::IntervalSeries)]
    pub series: String,
    /// Of `state` the hard state; null otherwise.
    #[schema(value_type = Option<names::ObjectState>)]
    pub value: Option<String>,
    /// When it began, which may be before the time that was asked for.
    pub from: String,
    /// Not included. Absent: it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(intervals))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IntervalParams {
    /// RFC 3339; a day before `to` when absent.
    from: Option<String>,
    /// RFC 3339, not included; now when absent.
    to: Option<String>,
    /// The host and only this service; all services when absent.
    service: Option<String>,
}

/// The hard states, downtimes and other conditions of a host and its services that touch a time: the host before its
/// services, each series in the order of time. A removed host is found by its id.
#[utoipa::path(get, path = "/hosts/{host}/intervals", operation_id = "list_host_intervals", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name"), IntervalParams),
    responses((status = 200, body = Page<HostInterval>)))]
async fn intervals(
    State(app): State<AppState>,
    Path(host): Path<String>,
    Query(wanted): Query<IntervalParams>,
) -> Result<Json<Page<HostInterval>>, Problem> {
    let (from, to) = times(wanted.from.as_deref(), wanted.to.as_deref(), clock::wall())?;
    let mut conn = app.store.reader().await?;
    let host = load_ever(&mut conn, IdKind::Host.named(&host)).await?.id;
    drop(conn);
    let services = wanted.service.as_deref().map_or(Services::All, Services::One);
    let period = Period::new(from, to).ok_or_else(too_many)?;
    if !app.store.crowded_hosts(&[host], services, period).await?.is_empty() {
        return Err(too_many());
    }
    let mut items = Vec::new();
    let mut each = |of: Interval<'_>| {
        if items.len() <= MAX_INTERVALS {
            items.push(to_api(&of));
        }
    };
    app.store.intervals(&[host], services, (from, to), &mut each).await?;
    if items.len() > MAX_INTERVALS {
        return Err(too_many());
    }
    Ok(Json(Page { items, next: None }))
}

fn too_many() -> Problem {
    let detail = format!(
        "this time has more than {MAX_INTERVALS} intervals: ask for a later begin, or for one service with `service`"
    );
    Problem::invalid("from", detail)
}

fn to_api(of: &Interval<'_>) -> HostInterval {
    HostInterval {
        service: not_empty(of.service),
        series: of.series.name().to_owned(),
        value: not_empty(of.value),
        from: ids::time(of.from),
        until: of.until.map(ids::time),
    }
}
