//! The services of a host with their states and last results, and checks on request.
//! `overrides.rs` has how they differ from the profile of the host.

mod forecast;
mod overrides;
mod render;
mod types;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::messages::{HostSpec, ServiceState};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::{self, definition, load_ever_spec};
use super::request::auth::Principal;
use super::request::extract::Path;
use super::request::ids::IdKind;
use super::response::problem::Problem;
use super::types::Page;
use crate::clock;
use crate::engine::definitions::{self, Definition};
use crate::engine::live_state::LiveState;
use crate::store::SqliteConnection;
use crate::store::forecasts;
use crate::store::host_details::{self, HostDetails};
use crate::store::states::{self, ServiceRow};
use render::Around;

pub use types::*;

/// Services listed in the response to an unknown service name.
const NAMED: usize = 20;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(check))
        .merge(overrides::routes())
}

/// All services of a host, in the order of its profile.
#[utoipa::path(get, path = "/hosts/{host}/services", operation_id = "list_services", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Page<Service>)))]
async fn list(State(app): State<AppState>, Path(host): Path<String>) -> Result<Json<Page<Service>>, Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_ever_spec(&app, &mut conn, IdKind::Host.named(&host)).await?;
    Ok(Json(Page { items: rendered(&app.live, &mut conn, &spec).await?, next: None }))
}

async fn rendered(
    live: &LiveState,
    conn: &mut SqliteConnection,
    spec: &HostSpec,
) -> Result<Vec<Service>, Problem> {
    let rows: Vec<ServiceRow> = states::services_of(conn, spec.id).await?;
    let host = Definition::from(spec);
    let beside =
        host_details::of_hosts(conn, &BTreeSet::from([spec.id])).await?.remove(&spec.id).unwrap_or_default();
    let (stored, earlier) = forecasts::with_earlier(conn, spec.id).await?;
    let mut forecasts = forecast::by_service(stored, &earlier, clock::wall());
    let state = |name: &str| rows.iter().map(|row| &row.state).find(|s| s.name == name);
    let service = |s: &definitions::Service| Service {
        forecast: forecasts.remove(&s.name),
        ..service_as(live, (&host, s), state(&s.name), &beside)
    };
    Ok(host.services.iter().map(service).collect())
}

/// `state`: absent until the service has a row.
pub(super) fn service_as(
    live: &LiveState,
    (host, service): (&Definition, &definitions::Service),
    state: Option<&ServiceState>,
    beside: &HostDetails,
) -> Service {
    let requested =
        live.requested(host.id, Some(&service.name), state.and_then(|s| s.last_check), clock::wall());
    let around = Around {
        ack: beside.acknowledgement(&service.name),
        incident: beside.incident(&service.name),
        reachable: beside.reachable,
        // A passive service is never probed.
        requested: requested.filter(|_| !service.is_sent),
    };
    render::service(host, service, state, &around)
}

/// A service with its state and last result.
#[utoipa::path(get, path = "/hosts/{host}/services/{service}", operation_id = "show_service",
    tag = "monitoring", security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 200, body = Service)))]
async fn show(
    State(app): State<AppState>,
    Path((host, service)): Path<(String, String)>,
) -> Result<Json<Service>, Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_ever_spec(&app, &mut conn, IdKind::Host.named(&host)).await?;
    let all = rendered(&app.live, &mut conn, &spec).await?;
    let found = all.into_iter().find(|s| s.name == service);
    found.map(Json).ok_or_else(|| unknown_service(&Definition::from(&spec), &service))
}

pub(super) fn unknown_service(host: &Definition, service: &str) -> Problem {
    let shown: String = service.chars().take(80).collect();
    let mut names: Vec<&str> = host.services.iter().take(NAMED).map(|s| s.name.as_str()).collect();
    if host.services.len() > NAMED {
        names.push("...");
    }
    Problem::not_found(format!("{} has no service {shown:?}; it has: {}", host.name, names.join(", ")))
}

/// Checks a service now.
#[utoipa::path(post, path = "/hosts/{host}/services/{service}/check", operation_id = "check_service",
    tag = "monitoring", security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 202, description = "it is on its way")))]
async fn check(
    State(app): State<AppState>,
    who: Principal,
    Path((host, service)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let host = definition(&app, IdKind::Host.named(&host)).await?;
    if host.service(&service).is_none() {
        return Err(unknown_service(&host, &service));
    }
    hosts::check(&app, &who, host.id, Some(service)).await
}
