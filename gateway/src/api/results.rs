//! Results that somebody sends: taken by the monitor, on disk before the answer.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::HostId;
use fleetgate_engine::wire::{Outcome, Submission};
use fleetgate_probes::plugin::{Ending, MAX_OUTPUT, PluginResult};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::RequireOperator;
use super::extract::{Body, Path};
use super::hosts::{self, load, load_spec, unknown_service};
use super::ids::{Kind, Named};
use super::model::{NewResult, Submitted, Timestamp};
use super::parse;
use super::problem::Problem;

/// The largest body: twice the output that is kept, for what JSON writes in two bytes or more.
pub(super) const BODY_LIMIT: usize = 2 * MAX_OUTPUT;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_host)).routes(routes!(of_service))
}

/// A result of the host itself; 0 and 1 mean that it is up.
#[utoipa::path(post, path = "/hosts/{host}/results", operation_id = "submit_host_result",
    tag = "monitoring", security(("token" = ["operator"])), request_body = NewResult,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 202, body = Submitted, description = "taken; the state that it led to"),
        (status = 200, body = Submitted, description = "ignored")))]
async fn of_host(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Path(host): Path<String>,
    Body(new): Body<NewResult>,
) -> Result<(StatusCode, Json<Submitted>), Problem> {
    let mut conn = app.store.reader().await?;
    let id = load(&mut conn, Kind::Host.named(&host)).await?.id;
    drop(conn);
    take(&app, &who.to_string(), (id, None), new).await
}

#[utoipa::path(post, path = "/hosts/{host}/services/{service}/results",
    operation_id = "submit_service_result", tag = "monitoring", security(("token" = ["operator"])),
    request_body = NewResult,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 202, body = Submitted, description = "taken; the state that it led to"),
        (status = 200, body = Submitted, description = "ignored")))]
async fn of_service(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Path((host, service)): Path<(String, String)>,
    Body(new): Body<NewResult>,
) -> Result<(StatusCode, Json<Submitted>), Problem> {
    let mut conn = app.store.reader().await?;
    let id = load(&mut conn, Kind::Host.named(&host)).await?.id;
    drop(conn);
    take(&app, &who.to_string(), (id, Some(service)), new).await
}

/// What a result is answered with.
pub(super) type Answer = Result<(StatusCode, Json<Submitted>), Problem>;

/// A result of a host (`None`) or of a service of it. `by`: a principal that may send it.
pub(super) async fn take(
    app: &AppState,
    by: &str,
    (host, service): (HostId, Option<String>),
    new: NewResult,
) -> Answer {
    match service {
        None => take_of_host(app, by, host, new).await,
        Some(service) => take_of_service(app, by, (host, service), new).await,
    }
}

async fn take_of_host(app: &AppState, by: &str, id: HostId, new: NewResult) -> Answer {
    if let Some(ignored) = submit(app, by, (id, None), new).await? {
        return Ok(ignored);
    }
    let mut conn = app.store.reader().await?;
    let state = hosts::wire(app, load(&mut conn, Named::Id(id)).await?);
    Ok((StatusCode::ACCEPTED, Json(Submitted { host: Some(state), ..Submitted::default() })))
}

async fn take_of_service(
    app: &AppState,
    by: &str,
    (id, service): (HostId, String),
    new: NewResult,
) -> Answer {
    let mut conn = app.store.reader().await?;
    let spec = load_spec(app, &mut conn, Named::Id(id)).await?;
    drop(conn);
    if !spec.services.iter().any(|s| s.name == service) {
        return Err(unknown_service(&spec, &service));
    }
    if let Some(ignored) = submit(app, by, (id, Some(service.clone())), new).await? {
        return Ok(ignored);
    }
    let mut conn = app.store.reader().await?;
    let all = hosts::rendered(&app.live, &mut conn, &spec).await?;
    let state = all.into_iter().find(|s| s.name == service);
    Ok((StatusCode::ACCEPTED, Json(Submitted { service: state, ..Submitted::default() })))
}

/// `None`: taken, and on disk.
async fn submit(
    app: &AppState,
    by: &str,
    (host, service): (HostId, Option<String>),
    new: NewResult,
) -> Result<Option<(StatusCode, Json<Submitted>)>, Problem> {
    let at = match new.timestamp {
        None => crate::clock::wall(),
        Some(Timestamp::Text(text)) => parse::moment(&text).map_err(|e| Problem::invalid("timestamp", e))?,
        Some(Timestamp::Seconds(seconds)) => {
            parse::unix_seconds(seconds).map_err(|e| Problem::invalid("timestamp", e))?
        }
    };
    let result = PluginResult::from_run(&Ending::Exit(new.exit_status), new.output.as_bytes(), b"", false);
    let by = by.to_owned();
    let outcome = app.handle.submit(|ticket| Submission { host, service, result, at, by, ticket }).await;
    match outcome {
        Some(Outcome::Done) => Ok(None),
        Some(Outcome::Older) => {
            let ignored = Submitted { ignored: Some("older".to_owned()), ..Submitted::default() };
            Ok(Some((StatusCode::OK, Json(ignored))))
        }
        Some(Outcome::Unknown) => Err(Problem::not_found("it was removed or switched off just now")),
        None => Err(Problem::from_status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}
