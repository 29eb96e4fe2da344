//! The approval queue: requests of devices, and the decisions of operators.

pub mod admit_device;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::devices::load as load_device;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query};
use super::request::ids::{self, IdKind, Named};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Labels, Page, names};
use crate::maintenance::housekeeping;
use crate::store::enrolments::{self, Decision, State as Stage};
use crate::store::events::Object;
use crate::store::{SqliteConnection, enrolment_tokens};
use admit_device::AdmittedDevice;

/// The enrolment of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    pub id: String,
    #[schema(value_type = names::EnrolmentState)]
    pub state: String,
    /// As the device asked; as approved after that.
    pub name: String,
    pub public_key: String,
    /// The SSH host key that the device sent, as `SHA256:...`.
    pub ssh_host_key: Option<String>,
    pub token: String,
    pub token_label: String,
    /// The device that it would replace.
    pub replaces: Option<String>,
    /// The device that was added.
    pub device: Option<String>,
    pub remote_address: String,
    pub reason: String,
    pub created_at: String,
    pub decided_at: Option<String>,
    pub decided_by: Option<String>,
    pub expires_at: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approval {
    /// A name other than the one that the device asked for.
    pub name: Option<String>,
    /// In addition to those of the token; these win.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rejection {
    /// Shown to the device.
    pub reason: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// All when absent.
    #[param(value_type = Option<names::EnrolmentState>)]
    state: Option<String>,
}

/// Enrolments, the newest first.
#[utoipa::path(get, path = "/enrolments", operation_id = "list_enrolments", tag = "enrolment",
    security(("token" = ["enrolments:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Enrolment>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Enrolment>>, Problem> {
    let bad = |e| Problem::bad_request("bad_query", format!("state: {e}"));
    let state: Option<Stage> = wanted.state.map(|s| s.parse().map_err(bad)).transpose()?;
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    housekeeping::end_enrolments(&app.store, &app.live).await?;
    let rows = app.store.enrolments(state, before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |e| e.id.as_i64().to_string(), |e| to_api(&e))))
}

/// An enrolment.
#[utoipa::path(get, path = "/enrolments/{enrolment}", operation_id = "show_enrolment", tag = "enrolment",
    security(("token" = ["enrolments:operator"])), params(("enrolment" = String, Path)),
    responses((status = 200, body = Enrolment)))]
async fn show(
    State(app): State<AppState>,
    Path(enrolment): Path<String>,
) -> Result<Json<Enrolment>, Problem> {
    housekeeping::end_enrolments(&app.store, &app.live).await?;
    let mut conn = app.store.reader().await?;
    Ok(Json(to_api(&load(&mut conn, &enrolment).await?)))
}

/// Approves a device: it gets an address and becomes a host. Repeated, the call changes nothing.
#[utoipa::path(post, path = "/enrolments/{enrolment}/approve", operation_id = "approve_enrolment",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), request_body = Approval,
    params(("enrolment" = String, Path)), responses((status = 200, body = Enrolment)))]
async fn approve(
    State(app): State<AppState>,
    who: Principal,
    Path(enrolment): Path<String>,
    Body(approval): Body<Approval>,
) -> Result<Json<Enrolment>, Problem> {
    let mut fields = Fields::default();
    let name = approval.name.as_deref().map(parse::name).and_then(|n| fields.take("name", n));
    let is_labelled = !approval.labels.is_empty();
    let labels = fields.take("labels", parse::host_labels(approval.labels)).unwrap_or_default();
    fields.finish()?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let waiting = load_waiting(&mut write, &enrolment, Stage::Approved).await?;
    if waiting.state == Stage::Approved {
        return Ok(Json(to_api(&waiting)));
    }
    let token = enrolment_tokens::find(write.tx(), waiting.token).await?;
    let (token, _) =
        token.ok_or_else(|| Problem::internal(anyhow::anyhow!("an enrolment without its token")))?;
    if token.replaces.is_some() {
        keeps_its_own(name.is_some(), is_labelled)?;
    }
    let key = waiting.public_key.parse().map_err(|e| Problem::internal(anyhow::anyhow!("{e}")))?;
    let ssh_host_key = waiting.ssh_host_key.as_deref();
    let name = name.as_deref().unwrap_or(&waiting.name);
    let newcomer = AdmittedDevice { name, labels, key, ssh_host_key };
    let host = admit_device::let_in(&app, &mut write, &token, newcomer).await?;
    let name = load_device(write.tx(), Named::Id(host)).await?.settings.name;
    let (by, at) = (write.by.clone(), write.now);
    let decision =
        Decision { state: Stage::Approved, name: &name, host: Some(host), reason: "", by: &by, at };
    decide(&app, write, waiting, &decision, "enrolment.approved").await
}

/// Rejects a device.
#[utoipa::path(post, path = "/enrolments/{enrolment}/reject", operation_id = "reject_enrolment",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), request_body = Rejection,
    params(("enrolment" = String, Path)), responses((status = 200, body = Enrolment)))]
async fn reject(
    State(app): State<AppState>,
    who: Principal,
    Path(enrolment): Path<String>,
    Body(rejection): Body<Rejection>,
) -> Result<Json<Enrolment>, Problem> {
    let reason = parse::title(rejection.reason).map_err(|e| Problem::invalid("reason", e))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let waiting = load_waiting(&mut write, &enrolment, Stage::Rejected).await?;
    if waiting.state == Stage::Rejected {
        return Ok(Json(to_api(&waiting)));
    }
    let (by, at) = (write.by.clone(), write.now);
    let name = waiting.name.clone();
    let decision = Decision { state: Stage::Rejected, name: &name, host: None, reason: &reason, by: &by, at };
    decide(&app, write, waiting, &decision, "enrolment.rejected").await
}

/// A replacement keeps the name and the labels of its device.
fn keeps_its_own(named: bool, labelled: bool) -> Result<(), Problem> {
    let mut fields = Fields::default();
    let detail = "this enrolment replaces a device, whose name and labels it keeps: PATCH /devices/{device} changes them";
    for (field, _) in [("name", named), ("labels", labelled)].into_iter().filter(|(_, given)| *given) {
        fields.take(field, Err::<(), _>(detail));
    }
    fields.finish()
}

async fn load_waiting(
    write: &mut ApiTx<'_>,
    text: &str,
    wanted: Stage,
) -> Result<enrolments::Enrolment, Problem> {
    let now = write.now;
    enrolments::expire(write.tx(), now).await?.into_iter().for_each(|id| write.enrolment(id));
    let found = load(write.tx(), text).await?;
    if found.state == Stage::AwaitingApproval || found.state == wanted {
        return Ok(found);
    }
    let detail = format!("this enrolment is {} already", found.state);
    Err(Problem::conflict("decided_already", detail))
}

async fn decide(
    app: &AppState,
    mut write: ApiTx<'_>,
    waiting: enrolments::Enrolment,
    decision: &Decision<'_>,
    kind: &str,
) -> Result<Json<Enrolment>, Problem> {
    if !enrolments::decide(write.tx(), waiting.id, decision).await? {
        return Err(Problem::conflict("decided_already", "this enrolment was decided meanwhile"));
    }
    let data = json!({ "name": decision.name, "device": decision.host.map(|h| IdKind::Host.text(h)) });
    let cause = if decision.reason.is_empty() { "decided by a person" } else { decision.reason };
    write.event(kind, (Object::Enrolment, waiting.id), cause, data).await?;
    write.enrolment(waiting.id);
    write.commit().await?;
    let mut conn = app.store.reader().await?;
    Ok(Json(to_api(&load(&mut conn, &IdKind::Enrolment.text(waiting.id)).await?)))
}

async fn load(conn: &mut SqliteConnection, text: &str) -> Result<enrolments::Enrolment, Problem> {
    let found = enrolments::by_id(conn, IdKind::Enrolment.parse(text)?).await?;
    found.ok_or_else(|| IdKind::Enrolment.unknown(text).into())
}

fn to_api(enrolment: &enrolments::Enrolment) -> Enrolment {
    Enrolment {
        id: IdKind::Enrolment.text(enrolment.id),
        state: enrolment.state.to_string(),
        name: enrolment.name.clone(),
        public_key: enrolment.public_key.clone(),
        ssh_host_key: enrolment.ssh_host_key.clone(),
        token: IdKind::Token.text(enrolment.token),
        token_label: enrolment.token_label.clone(),
        replaces: enrolment.replaces.map(|d| IdKind::Host.text(d)),
        device: enrolment.host.map(|h| IdKind::Host.text(h)),
        remote_address: enrolment.remote_address.clone(),
        reason: enrolment.reason.clone(),
        created_at: ids::time(enrolment.created_at),
        decided_at: enrolment.decided_at.map(ids::time),
        decided_by: enrolment.decided_by.clone(),
        expires_at: enrolment.expires_at.map(ids::time),
    }
}
