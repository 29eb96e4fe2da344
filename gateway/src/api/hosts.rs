//! Hosts with their states, tunnels and services, and checks on request.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::store::SqliteConnection;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{HostSpec, ServiceState};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Principal;
use super::etag::Tagged;
use super::extract::{Path, Query};
use super::ids::{Kind, Named};
use super::model::{self, Host, Page, Service, names};
use super::page::Paging;
use super::problem::Problem;
use super::query::WithLabels;
use super::write::ApiTx;
use super::{AppState, render};
use crate::clock;
use crate::engine::definitions;
use crate::engine::definitions::Definition;
use crate::engine::live_state::LiveState;
use crate::monitor::verdict_inputs;
use crate::store::acknowledgements;
use crate::store::events::Object;
use crate::store::host_details::{self, HostDetails};
use crate::store::hosts::{self, Listed};
use crate::store::snapshot;
use crate::store::states::{self, ServiceRow};

/// Services listed in the response to an unknown service name.
const NAMED: usize = 20;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(services))
        .routes(routes!(service))
        .routes(routes!(check_host))
        .routes(routes!(check_service))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// A part of the name or of a label.
    q: Option<String>,
    /// Only hosts of this part.
    #[param(value_type = Option<names::HostFilter>)]
    state: Option<String>,
}

impl Wanted {
    fn parse(self, labels: Vec<(String, String)>) -> Result<hosts::Filter, Problem> {
        let state = self.state.map(|word| match render::HOST_FILTERS.contains(&word.as_str()) {
            true => Ok(word),
            false => {
                let expected = format!("state: one of {} is expected", render::HOST_FILTERS.join(", "));
                Err(Problem::bad_request("bad_query", expected))
            }
        });
        Ok(hosts::Filter { q: self.q, labels, state: state.transpose()? })
    }
}

/// Hosts with their states, by name.
#[utoipa::path(get, path = "/hosts", operation_id = "list_hosts", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Wanted, WithLabels),
    responses((status = 200, body = Page<Host>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
    labels: WithLabels,
) -> Result<Json<Page<Host>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let rows = app.store.hosts(&wanted.parse(labels.label)?, &after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |h| h.name.clone(), |h| wire(&app, h))))
}

/// A host that was removed is found by its id, as are its services and samples.
#[utoipa::path(get, path = "/hosts/{host}", operation_id = "show_host", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Host)))]
async fn show(State(app): State<AppState>, Path(host): Path<String>) -> Result<Tagged<Host>, Problem> {
    let mut conn = app.store.reader().await?;
    let row = load_ever(&mut conn, Kind::Host.named(&host)).await?;
    let verdict = match row.removed_at {
        Some(_) => None,
        None => judged(&app, &mut conn, &row).await?,
    };
    let acks = acknowledgements::of_host(&mut conn, row.id).await?;
    let acknowledgement = acks.iter().find(|ack| ack.service.is_none()).map(super::acknowledgements::shown);
    Ok(Tagged { version: row.version, value: Host { verdict, acknowledgement, ..wire(&app, row) } })
}

pub(super) async fn judged(
    app: &AppState,
    conn: &mut SqliteConnection,
    row: &Listed,
) -> Result<Option<model::Verdict>, Problem> {
    let spec = snapshot::host_spec(conn, row.id, &app.config.timing).await.map_err(Problem::internal)?;
    let Some(spec) = spec else { return Ok(None) };
    let found = verdict_inputs::of(conn, &app.live, row, &spec, clock::wall()).await?;
    Ok(found.map(render::verdict))
}

/// Converts a row to the API type, with the tunnel state from memory.
pub(super) fn wire(app: &AppState, row: Listed) -> Host {
    let live = app.live.peer(row.id);
    let last_check = row.state.as_ref().and_then(|state| state.last_check);
    let requested = app.live.requested(row.id, None, last_check, clock::wall());
    let mut host = render::host(row, live, app.config.timing.attempts);
    host.state.check_requested_at = requested.map(super::ids::time);
    host
}

/// # Errors
/// Returns 404 when there is no such host.
pub(super) async fn load(conn: &mut SqliteConnection, named: Named) -> Result<Listed, Problem> {
    match named {
        Named::Id(id) => {
            hosts::by_id(conn, id).await?.ok_or_else(|| Kind::Host.unknown(&Kind::Host.text(id)).into())
        }
        Named::Name(name) => {
            hosts::by_name(conn, &name).await?.ok_or_else(|| Kind::Host.unknown(&name).into())
        }
    }
}

/// Finds a host, including a removed one by its id. Its name may belong to another host by now.
pub(super) async fn load_ever(conn: &mut SqliteConnection, named: Named) -> Result<Listed, Problem> {
    let Named::Id(id) = named else { return load(conn, named).await };
    hosts::ever_by_id(conn, id).await?.ok_or_else(|| Kind::Host.unknown(&Kind::Host.text(id)).into())
}

/// Applies [`load_spec`] to any host, including a removed one.
async fn load_ever_spec(
    app: &AppState,
    conn: &mut SqliteConnection,
    named: Named,
) -> Result<HostSpec, Problem> {
    let host = load_ever(conn, named).await?;
    let spec = snapshot::ever_host_spec(conn, host.id, &app.config.timing).await;
    spec.map_err(Problem::internal)?.ok_or_else(|| Kind::Host.unknown(&host.name).into())
}

/// Returns the host with its services as they are checked.
///
/// # Errors
/// Returns 404 when there is no such host.
pub(super) async fn load_spec(
    app: &AppState,
    conn: &mut SqliteConnection,
    named: Named,
) -> Result<HostSpec, Problem> {
    let host = load(conn, named).await?;
    let spec = snapshot::host_spec(conn, host.id, &app.config.timing).await.map_err(Problem::internal)?;
    spec.ok_or_else(|| Kind::Host.unknown(&host.name).into())
}

/// Returns the definition of a host from memory.
pub(super) fn known(app: &AppState, named: &Named) -> Option<Arc<Definition>> {
    match named {
        Named::Id(id) => app.handle.definitions().by_id(*id),
        Named::Name(name) => app.handle.definitions().by_name(name),
    }
}

/// Returns the name and the services of a host: from memory if the engine has the host, else from
/// the store.
///
/// # Errors
/// Returns 404 when there is no such host.
pub(super) async fn definition(app: &AppState, named: Named) -> Result<Arc<Definition>, Problem> {
    if let Some(known) = known(app, &named) {
        return Ok(known);
    }
    let mut conn = app.store.reader().await?;
    Ok(Arc::new(Definition::from(&load_spec(app, &mut conn, named).await?)))
}

/// All services of a host, in the order of its profile.
#[utoipa::path(get, path = "/hosts/{host}/services", operation_id = "list_services", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Page<Service>)))]
async fn services(
    State(app): State<AppState>,
    Path(host): Path<String>,
) -> Result<Json<Page<Service>>, Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_ever_spec(&app, &mut conn, Kind::Host.named(&host)).await?;
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
    let state = |name: &str| rows.iter().map(|row| &row.state).find(|s| s.name == name);
    Ok(host.services.iter().map(|s| service_as(live, (&host, s), state(&s.name), &beside)).collect())
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
    let around = render::Around {
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
async fn service(
    State(app): State<AppState>,
    Path((host, service)): Path<(String, String)>,
) -> Result<Json<Service>, Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_ever_spec(&app, &mut conn, Kind::Host.named(&host)).await?;
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

/// Checks the host and all its services now.
#[utoipa::path(post, path = "/hosts/{host}/check", operation_id = "check_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 202, description = "it is on its way")))]
async fn check_host(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
) -> Result<StatusCode, Problem> {
    let host = definition(&app, Kind::Host.named(&host)).await?;
    check(&app, &who, host.id, None).await
}

/// Checks a service now.
#[utoipa::path(post, path = "/hosts/{host}/services/{service}/check", operation_id = "check_service",
    tag = "monitoring", security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 202, description = "it is on its way")))]
async fn check_service(
    State(app): State<AppState>,
    who: Principal,
    Path((host, service)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let host = definition(&app, Kind::Host.named(&host)).await?;
    if host.service(&service).is_none() {
        return Err(unknown_service(&host, &service));
    }
    check(&app, &who, host.id, Some(service)).await
}

async fn check(
    app: &AppState,
    who: &Principal,
    host: HostId,
    service: Option<String>,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(app, who).await?;
    let data = json!({ "service": service });
    write.event("check.requested", (Object::Host, host), "check now", data).await?;
    write.commit().await?;
    app.handle.check_now(host, service).await;
    Ok(StatusCode::ACCEPTED)
}
