//! Tokens that enrol devices. Their secrets are shown once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::load;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query, present};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Labels, Page, names, not_empty};
use super::{AppState, profiles, rentals};
use crate::store::enrolment_tokens;
use crate::store::events::Object;

/// A token belongs to a planned installation. A forgotten token must expire.
const DEFAULT_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// A higher number means "no limit".
const MAX_USES: i64 = 1_000_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewReplacement {
    /// 7 days when absent.
    #[schema(minimum = 1, maximum = 316224000)]
    pub expires_in_s: Option<i64>,
    /// Whether an operator has to approve the successor.
    pub needs_approval: bool,
    /// Also during a rental, which is interrupted until the successor is there.
    pub force: bool,
}

/// A token that enrols devices. Its secret was shown when it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    pub id: String,
    pub label: String,
    /// The labels of its devices.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// Absent: by the profile rules.
    pub profile: Option<String>,
    /// The account that the enrolment script gives the gateway's SSH key to.
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// The device whose key and SSH pin are swapped.
    pub replaces: Option<String>,
    /// Absent: no limit.
    #[schema(minimum = 0, maximum = 1000000)]
    pub uses_left: Option<i64>,
    pub expires_at: Option<String>,
    pub created_by: String,
    pub created_at: String,
    pub revoked_at: Option<String>,
    pub last_used_at: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewEnrolmentToken {
    pub label: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// The profile rules decide when it is absent.
    pub profile: Option<String>,
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// How many devices it enrols; 1 when absent, `null` for no limit.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1000000)]
    pub uses: Option<Option<i64>>,
    /// 7 days when absent, `null` for no end.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 316224000)]
    pub expires_in_s: Option<Option<i64>>,
}

/// A token with its secret, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentTokenWithSecret {
    pub token: EnrolmentToken,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The command to run on the device, as root. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why the command works only on the machine of the gateway; absent if it works elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, revoke))
        .routes(routes!(create_replacement))
}

/// Enrolment tokens, the newest first.
#[utoipa::path(get, path = "/enrolment-tokens", operation_id = "list_enrolment_tokens",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), params(Paging),
    responses((status = 200, body = Page<EnrolmentToken>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<EnrolmentToken>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let rows = app.store.enrolment_tokens(before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |t| t.id.as_i64().to_string(), |t| to_api(&t))))
}

/// Creates an enrolment token. Its secret is shown once.
#[utoipa::path(post, path = "/enrolment-tokens", operation_id = "create_enrolment_token",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), request_body = NewEnrolmentToken,
    responses((status = 201, body = EnrolmentTokenWithSecret)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewEnrolmentToken>,
) -> Result<Disclosed<EnrolmentTokenWithSecret>, Problem> {
    let write = ApiTx::begin(&app, &who).await?;
    let token = parse_new(new, write.by.clone(), write.now)?;
    store(&app, write, token).await
}

/// Creates a token for the replacement of a device.
///
/// One enrolment replaces the WireGuard key and the SSH host key; the history stays. Only the newest token is valid.
///
/// 409 `rentals_open`: a rental of the device has begun; `force` interrupts it.
#[utoipa::path(post, path = "/devices/{device}/replacement", operation_id = "create_replacement",
    tag = "devices", security(("token" = ["devices:operator"])), request_body = NewReplacement,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 201, body = EnrolmentTokenWithSecret)))]
async fn create_replacement(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(new): Body<NewReplacement>,
) -> Result<Disclosed<EnrolmentTokenWithSecret>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    let device = load(write.tx(), IdKind::Host.named(&device)).await?;
    rentals::may_be_rekeyed(&mut write, &device, new.force).await?;
    enrolment_tokens::revoke_replacements(write.tx(), device.id, now).await?;
    let wanted = NewEnrolmentToken {
        label: format!("replaces {}", device.settings.name),
        profile: not_empty(&device.settings.profile),
        ssh_user: device.settings.ssh.user,
        needs_approval: new.needs_approval,
        expires_in_s: new.expires_in_s.map(Some),
        ..NewEnrolmentToken::default()
    };
    let token = enrolment_tokens::EnrolmentToken { replaces: Some(device.id), ..parse_new(wanted, by, now)? };
    store(&app, write, token).await
}

async fn store(
    app: &AppState,
    mut write: ApiTx<'_>,
    token: enrolment_tokens::EnrolmentToken,
) -> Result<Disclosed<EnrolmentTokenWithSecret>, Problem> {
    let secret = Token::generate(kind(token.replaces), token.id);
    profiles::must_exist(write.tx(), &token.profile).await?;
    enrolment_tokens::insert(write.tx(), &token, &secret.hash()).await?;
    let data = json!({ "label": token.label, "replaces": token.replaces.map(|d| IdKind::Host.text(d)) });
    write.event("enrolment_token.created", (Object::Token, token.id), "made", data).await?;
    let shown = EnrolmentTokenWithSecret { token: to_api(&token), secret: None, command: None, hint: None };
    write.commit().await?;
    let once = EnrolmentTokenWithSecret {
        command: Some(format!(
            "curl -fsS {}/enrol.sh | sudo sh -s -- --token {}",
            app.base_url(),
            secret.reveal()
        )),
        secret: Some(secret.reveal().to_owned()),
        hint: app.reach_hint(),
        ..shown.clone()
    };
    Ok(Disclosed { status: StatusCode::CREATED, once, again: shown })
}

fn kind(replaces: Option<HostId>) -> TokenKind {
    if replaces.is_some() { TokenKind::Replacement } else { TokenKind::Enrolment }
}

fn parse_new(
    new: NewEnrolmentToken,
    by: String,
    now: Wall,
) -> Result<enrolment_tokens::EnrolmentToken, Problem> {
    let mut fields = Fields::default();
    let expires_at = match new.expires_in_s {
        Some(Some(seconds)) => fields.take("expires_in_s", parse::expiry(seconds, now)),
        Some(None) => None,
        None => Some(now + DEFAULT_LIFE),
    };
    let uses_left = match new.uses {
        Some(Some(uses)) => fields.take("uses", parse_uses(uses)),
        Some(None) => None,
        None => Some(1),
    };
    let ssh_user = new.ssh_user.as_deref().map(parse::login);
    let token = enrolment_tokens::EnrolmentToken {
        id: ids::new_id(now),
        label: fields.take("label", parse::title(new.label)).unwrap_or_default(),
        host_labels: fields.take("labels", parse::host_labels(new.labels)).unwrap_or_default(),
        profile: new.profile.unwrap_or_default(),
        ssh_user: ssh_user.and_then(|u| fields.take("ssh_user", u)),
        needs_approval: new.needs_approval,
        replaces: None,
        uses_left,
        expires_at,
        created_by: by,
        created_at: now,
        revoked_at: None,
        last_used_at: None,
    };
    fields.finish()?;
    Ok(token)
}

fn parse_uses(uses: i64) -> Result<i64, String> {
    if (1..=MAX_USES).contains(&uses) {
        return Ok(uses);
    }
    Err(format!("1 to {MAX_USES} is expected, or null for no limit"))
}

/// An enrolment token.
#[utoipa::path(get, path = "/enrolment-tokens/{token}", operation_id = "show_enrolment_token",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), params(("token" = String, Path)),
    responses((status = 200, body = EnrolmentToken)))]
async fn show(
    State(app): State<AppState>,
    Path(token): Path<String>,
) -> Result<Json<EnrolmentToken>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = enrolment_tokens::find(&mut conn, IdKind::Token.parse(&token)?).await?;
    found.map(|(t, _)| Json(to_api(&t))).ok_or_else(|| IdKind::Token.unknown(&token).into())
}

/// Revokes an enrolment token. Devices that enrolled with it stay.
#[utoipa::path(delete, path = "/enrolment-tokens/{token}", operation_id = "revoke_enrolment_token",
    tag = "enrolment", security(("token" = ["enrolments:operator"])), params(("token" = String, Path)),
    responses((status = 204)))]
async fn revoke(
    State(app): State<AppState>,
    who: Principal,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = IdKind::Token.parse(&token)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let now = write.now;
    if !enrolment_tokens::revoke(write.tx(), id, now).await? {
        return Err(IdKind::Token.unknown(&token).into());
    }
    write.event("enrolment_token.revoked", (Object::Token, id), "revoked", json!({})).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn to_api(token: &enrolment_tokens::EnrolmentToken) -> EnrolmentToken {
    EnrolmentToken {
        id: IdKind::Token.text(token.id),
        label: token.label.clone(),
        labels: token.host_labels.clone(),
        profile: not_empty(&token.profile),
        ssh_user: token.ssh_user.clone(),
        needs_approval: token.needs_approval,
        replaces: token.replaces.map(|d| IdKind::Host.text(d)),
        uses_left: token.uses_left,
        expires_at: token.expires_at.map(ids::time),
        created_by: token.created_by.clone(),
        created_at: ids::time(token.created_at),
        revoked_at: token.revoked_at.map(ids::time),
        last_used_at: token.last_used_at.map(ids::time),
    }
}
