//! Acknowledgements of problems.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages;
use fleetgate_engine::messages::{HostStatus, MonitorInput};
use fleetgate_probes::sample::Status;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::{definition, load};
use super::request::auth::Principal;
use super::request::extract::{Body, Path};
use super::request::ids::{self, IdKind};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::services::unknown_service;
use crate::store::{acknowledgements as stored, states};

/// An acknowledgement of a problem.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewAcknowledgement {
    /// Until the recovery (of an incident: of each member); otherwise until the state changes.
    pub sticky: bool,
    /// RFC 3339; absent: does not expire.
    pub expires: Option<String>,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledgement {
    pub id: String,
    pub host: String,
    /// Absent: the host itself.
    pub service: Option<String>,
    pub sticky: bool,
    pub expires: Option<String>,
    /// The user or token.
    pub author: String,
    pub comment: String,
    pub created_at: String,
    /// The incident that was acknowledged, if it was not the host or service itself.
    #[serde(default)]
    pub incident: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(acknowledge_host, withdraw_host))
        .routes(routes!(acknowledge_service, withdraw_service))
}

/// Acknowledges the problem of a host.
///
/// Problems and reminders are suppressed until the acknowledgement ends. It replaces an earlier one.
#[utoipa::path(post, path = "/hosts/{host}/acknowledgement", operation_id = "acknowledge_host",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), request_body = NewAcknowledgement,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 201, body = Acknowledgement)))]
async fn acknowledge_host(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
    Body(new): Body<NewAcknowledgement>,
) -> Result<(StatusCode, Json<Acknowledgement>), Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, IdKind::Host.named(&host)).await?;
    drop(conn);
    if found.state.as_ref().is_none_or(|s| s.status != HostStatus::Down) {
        return Err(well(&found.name));
    }
    acknowledge(&app, &who, (found.id, None), new).await
}

/// Acknowledges the problem of a service, as of a host.
#[utoipa::path(post, path = "/hosts/{host}/services/{service}/acknowledgement",
    operation_id = "acknowledge_service", tag = "monitoring", security(("token" = ["monitoring:operator"])),
    request_body = NewAcknowledgement,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 201, body = Acknowledgement)))]
async fn acknowledge_service(
    State(app): State<AppState>,
    who: Principal,
    Path((host, service)): Path<(String, String)>,
    Body(new): Body<NewAcknowledgement>,
) -> Result<(StatusCode, Json<Acknowledgement>), Problem> {
    let id = service_of(&app, &host, &service).await?;
    let mut conn = app.store.reader().await?;
    let rows = states::services_of(&mut conn, id).await?;
    drop(conn);
    let status = rows.iter().find(|row| row.state.name == service).and_then(|row| row.state.status);
    if matches!(status, None | Some(Status::Ok)) {
        return Err(well(&format!("{host}/{service}")));
    }
    acknowledge(&app, &who, (id, Some(service)), new).await
}

async fn service_of(app: &AppState, host: &str, service: &str) -> Result<HostId, Problem> {
    let host = definition(app, IdKind::Host.named(host)).await?;
    host.service(service).map(|_| host.id).ok_or_else(|| unknown_service(&host, service))
}

fn well(name: &str) -> Problem {
    Problem::conflict("not_a_problem", format!("{name} has no problem that could be acknowledged"))
}

async fn acknowledge(
    app: &AppState,
    who: &Principal,
    (host, service): (HostId, Option<String>),
    new: NewAcknowledgement,
) -> Result<(StatusCode, Json<Acknowledgement>), Problem> {
    let now = crate::clock::wall();
    let mut fields = Fields::default();
    let comment = fields.take("comment", parse::notes(new.comment)).unwrap_or_default();
    let expires = new.expires.as_deref().map(|text| parse::future(text, now)).transpose();
    let expires_at = fields.take("expires", expires).flatten();
    fields.finish()?;
    let mut write = ApiTx::begin(app, who).await?;
    let (id, sticky) = (ids::new_id(write.now), new.sticky);
    let (author, created_at) = (write.by.clone(), write.now);
    let incident = None;
    let ack = stored::Acknowledgement {
        id,
        host,
        service,
        sticky,
        expires_at,
        author,
        comment,
        created_at,
        incident,
    };
    stored::put(write.tx(), &ack).await?;
    let expires = ack.expires_at.map(ids::time);
    let data = json!({ "id": IdKind::Acknowledgement.text(id), "sticky": sticky, "expires": expires });
    write.about("acknowledgement.added", (host, ack.service.as_deref()), &ack.comment, data).await?;
    write.commit().await?;
    // Waiting notifications may now be unnecessary.
    app.office.wakeups.notices();
    let input = MonitorInput::Acknowledge {
        host,
        service: ack.service.clone(),
        ack: messages::Acknowledgement::from(&ack),
    };
    app.handle.settle(input).await;
    app.live.tell(crate::engine::live_state::Change::Host(host));
    Ok((StatusCode::CREATED, Json(shown(&ack))))
}

pub(super) fn shown(ack: &stored::Acknowledgement) -> Acknowledgement {
    Acknowledgement {
        id: IdKind::Acknowledgement.text(ack.id),
        host: IdKind::Host.text(ack.host),
        service: ack.service.clone(),
        sticky: ack.sticky,
        expires: ack.expires_at.map(ids::time),
        author: ack.author.clone(),
        comment: ack.comment.clone(),
        created_at: ids::time(ack.created_at),
        incident: ack.incident.map(|id| id.to_string()),
    }
}

/// Removes the acknowledgement of a host. Notifications resume.
#[utoipa::path(delete, path = "/hosts/{host}/acknowledgement", operation_id = "withdraw_host_acknowledgement",
    tag = "monitoring", security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name")), responses((status = 204)))]
async fn withdraw_host(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, IdKind::Host.named(&host)).await?;
    drop(conn);
    withdraw(&app, &who, found.id, None).await
}

/// Removes the acknowledgement of a service. Notifications resume.
#[utoipa::path(delete, path = "/hosts/{host}/services/{service}/acknowledgement",
    operation_id = "withdraw_service_acknowledgement", tag = "monitoring",
    security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 204)))]
async fn withdraw_service(
    State(app): State<AppState>,
    who: Principal,
    Path((host, service)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let id = service_of(&app, &host, &service).await?;
    withdraw(&app, &who, id, Some(service)).await
}

async fn withdraw(
    app: &AppState,
    who: &Principal,
    host: HostId,
    service: Option<String>,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(app, who).await?;
    let now = write.now;
    let ended = stored::withdraw(write.tx(), host, service.as_deref(), now).await?;
    let id = ended.ok_or_else(|| Problem::not_found("nothing is acknowledged here"))?;
    let data = json!({ "id": IdKind::Acknowledgement.text(id) });
    write
        .about("acknowledgement.withdrawn", (host, service.as_deref()), "acknowledgement removed", data)
        .await?;
    write.commit().await?;
    app.handle.settle(MonitorInput::Unacknowledge { host, service }).await;
    // Notifications that the acknowledgement had stopped resume.
    app.office.wakeups.notices();
    app.live.tell(crate::engine::live_state::Change::Host(host));
    Ok(StatusCode::NO_CONTENT)
}
