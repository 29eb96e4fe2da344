//! Hosts with their states and tunnels, and checks on request. `services` has their services.

pub mod dependents;
mod render;
mod types;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::HostSpec;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::{Path, Query};
use super::request::ids::{IdKind, Named};
use super::request::query::WithLabels;
use super::request::transaction::ApiTx;
use super::response::etag::Tagged;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, names};
use crate::clock;
use crate::engine::definitions::Definition;
use crate::store::events::Object;
use crate::store::hosts::{self, Listed};
use crate::store::{SqliteConnection, acknowledgements, snapshot};
use crate::verdict;

pub(super) use render::HOST_FILTERS;
pub use types::*;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(check_host))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// A part of the name or of a label.
    q: Option<String>,
    /// Only hosts of this part.
    #[param(value_type = Option<names::HostFilter>)]
    state: Option<String>,
}

impl Filter {
    fn parse(self, labels: Vec<(String, String)>) -> Result<hosts::Filter, Problem> {
        let state = self.state.map(|word| match HOST_FILTERS.contains(&word.as_str()) {
            true => Ok(word),
            false => {
                let expected = format!("state: one of {} is expected", HOST_FILTERS.join(", "));
                Err(Problem::bad_request("bad_query", expected))
            }
        });
        Ok(hosts::Filter { q: self.q, labels, state: state.transpose()? })
    }
}

/// Hosts with their states, by name.
#[utoipa::path(get, path = "/hosts", operation_id = "list_hosts", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter, WithLabels),
    responses((status = 200, body = Page<Host>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
    labels: WithLabels,
) -> Result<Json<Page<Host>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let rows = app.store.hosts(&wanted.parse(labels.label)?, &after, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |h| h.name.clone(), |h| to_api(&app, h))))
}

/// A host that was removed is found by its id, as are its services and samples.
#[utoipa::path(get, path = "/hosts/{host}", operation_id = "show_host", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Host)))]
async fn show(State(app): State<AppState>, Path(host): Path<String>) -> Result<Tagged<Host>, Problem> {
    let mut conn = app.store.reader().await?;
    let row = load_ever(&mut conn, IdKind::Host.named(&host)).await?;
    let verdict = match row.removed_at {
        Some(_) => None,
        None => judged(&app, &mut conn, &row).await?,
    };
    let acks = acknowledgements::of_host(&mut conn, row.id).await?;
    let acknowledgement = acks.iter().find(|ack| ack.service.is_none()).map(super::acknowledgements::shown);
    Ok(Tagged { version: row.version, value: Host { verdict, acknowledgement, ..to_api(&app, row) } })
}

pub(super) async fn judged(
    app: &AppState,
    conn: &mut SqliteConnection,
    row: &Listed,
) -> Result<Option<Verdict>, Problem> {
    let spec = snapshot::host_spec(conn, row.id, &app.config.timing).await.map_err(Problem::internal)?;
    let Some(spec) = spec else { return Ok(None) };
    let found = verdict::of(conn, &app.live, row, &spec, clock::wall()).await?;
    Ok(found.map(render::verdict))
}

/// Converts a row to the API type, with the tunnel state from memory.
pub(super) fn to_api(app: &AppState, row: Listed) -> Host {
    let live = app.live.peer(row.id);
    let last_check = row.state.as_ref().and_then(|state| state.last_check);
    let requested = app.live.requested(row.id, None, last_check, clock::wall());
    let mut host = render::host(row, live, app.config.timing.attempts);
    host.state.check_requested_at = requested.map(super::request::ids::time);
    host
}

/// # Errors
/// Returns 404 when there is no such host.
pub(super) async fn load(conn: &mut SqliteConnection, named: Named) -> Result<Listed, Problem> {
    match named {
        Named::Id(id) => {
            hosts::by_id(conn, id).await?.ok_or_else(|| IdKind::Host.unknown(&IdKind::Host.text(id)).into())
        }
        Named::Name(name) => {
            hosts::by_name(conn, &name).await?.ok_or_else(|| IdKind::Host.unknown(&name).into())
        }
    }
}

/// Finds a host, including a removed one by its id. Its name may belong to another host by now.
pub(super) async fn load_ever(conn: &mut SqliteConnection, named: Named) -> Result<Listed, Problem> {
    let Named::Id(id) = named else { return load(conn, named).await };
    hosts::ever_by_id(conn, id).await?.ok_or_else(|| IdKind::Host.unknown(&IdKind::Host.text(id)).into())
}

/// Applies [`load_spec`] to any host, including a removed one.
pub(super) async fn load_ever_spec(
    app: &AppState,
    conn: &mut SqliteConnection,
    named: Named,
) -> Result<HostSpec, Problem> {
    let host = load_ever(conn, named).await?;
    let spec = snapshot::ever_host_spec(conn, host.id, &app.config.timing).await;
    spec.map_err(Problem::internal)?.ok_or_else(|| IdKind::Host.unknown(&host.name).into())
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
    spec.ok_or_else(|| IdKind::Host.unknown(&host.name).into())
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

/// Checks the host and all its services now.
#[utoipa::path(post, path = "/hosts/{host}/check", operation_id = "check_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 202, description = "it is on its way")))]
async fn check_host(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
) -> Result<StatusCode, Problem> {
    let host = definition(&app, IdKind::Host.named(&host)).await?;
    check(&app, &who, host.id, None).await
}

pub(super) async fn check(
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
