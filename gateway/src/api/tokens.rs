//! Tokens of programs that call the API, and of users who reach hosts with a program. Their secrets are
//! shown once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::CustomerId;
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query, present};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind};
use super::request::parse::{self, Fields};
use super::request::permission::Area;
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, RoleName, names};
use super::users;
use crate::store::access::{self, Role};
use crate::store::events::Object;
use crate::store::rentals::customers;
use crate::store::tokens;

/// A forgotten token expires by itself.
const DEFAULT_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// An API token. Its secret was shown when it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    pub id: String,
    pub name: String,
    /// The greatest role that it has. A token of a user has at most the role of the user. A token of a customer has
    /// none, and `viewer` stands here.
    pub role: RoleName,
    /// The name of the user that it belongs to. Absent: it belongs to a program.
    pub user: Option<String>,
    /// The id of the customer that it belongs to: it reads the rentals, their events and the renters of the customer,
    /// and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The areas that it is limited to; empty: all that the role allows.
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    pub last_used_at: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    pub name: String,
    /// Needed without `user` and `customer`. With `user`, the role of the user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// Name or id of the user that it belongs to: grants of the user apply, and it ends with the user. Absent: it
    /// belongs to a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Id or `external_ref` of the customer that it belongs to: it reads the rentals, their events and the renters of
    /// the customer, and ends with the customer. It has no `role`, `user` or `scopes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// Empty or absent: all that the role allows.
    #[serde(default)]
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    /// 90 days when absent, `null` for no end.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 316224000)]
    pub expires_in_s: Option<Option<i64>>,
}

/// A token with its secret, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiTokenWithSecret {
    pub token: ApiToken,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, revoke))
}

/// API tokens, the newest first.
#[utoipa::path(get, path = "/tokens", operation_id = "list_tokens", tag = "access",
    security(("token" = ["access:admin"])), params(Paging),
    responses((status = 200, body = Page<ApiToken>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<ApiToken>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let rows = app.store.api_tokens(before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |t| t.id.as_i64().to_string(), |t| to_api(&t))))
}

/// Creates an API token. Its secret is shown once.
///
/// With `user`, grants of that user apply to it. It has at most the present role of the user, is not accepted while the
/// user is disabled, and is revoked when the user is removed.
///
/// With `customer`, it reads `/my/rentals`, `/my/rental-events` and `/my/renters`, and finds nothing else: 404. It is
/// revoked when the customer is erased.
#[utoipa::path(post, path = "/tokens", operation_id = "create_token", tag = "access",
    security(("token" = ["access:admin"])), request_body = NewApiToken,
    responses((status = 201, body = ApiTokenWithSecret)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewApiToken>,
) -> Result<Disclosed<ApiTokenWithSecret>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let user = match &new.user {
        Some(user) => Some(owner(&mut write, user).await?),
        None => None,
    };
    let customer = match &new.customer {
        Some(customer) => Some(of_customer(&mut write, customer).await?),
        None => None,
    };
    let token = parse_new(new, (user, customer), &who, write.now)?;
    let secret = Token::generate(TokenKind::Api, token.id);
    tokens::insert(write.tx(), &token, &secret.hash()).await?;
    let user = token.user.as_ref().map(|user| &user.name);
    let kept_name = if token.customer.is_some() { "" } else { token.name.as_str() };
    let mut data =
        json!({ "name": kept_name, "role": token.role.name(), "scopes": token.scopes, "user": user });
    if let Some(customer) = token.customer {
        data["customer"] = IdKind::Customer.text(customer).into();
    }
    write.event("token.created", (Object::Token, token.id), "made", data).await?;
    write.commit().await?;
    let once = ApiTokenWithSecret { token: to_api(&token), secret: Some(secret.reveal().to_owned()) };
    // What is kept of a customer is its id: the name goes with the customer.
    let again = ApiToken { name: kept_name.to_owned(), ..to_api(&token) };
    let again = ApiTokenWithSecret { token: again, secret: None };
    Ok(Disclosed { status: StatusCode::CREATED, once, again })
}

/// Returns the customer that a new token belongs to.
///
/// # Errors
/// Returns 422 for an unknown customer.
async fn of_customer(write: &mut ApiTx<'_>, customer: &str) -> Result<CustomerId, Problem> {
    let found = customers::find(write.tx(), &IdKind::Customer.named(customer)).await?;
    let found =
        found.ok_or_else(|| Problem::from(IdKind::Customer.unknown(customer)).in_field("customer"))?;
    Ok(found.id)
}

/// Returns the user that a new token belongs to.
///
/// # Errors
/// Returns 422 for an unknown user, and 409 for one who is disabled.
async fn owner(write: &mut ApiTx<'_>, user: &str) -> Result<access::User, Problem> {
    let user = users::load(write.tx(), user).await.map_err(|e| e.in_field("user"))?;
    if user.disabled_at.is_some() {
        let detail = format!("{} is disabled: enable the user first", user.name);
        return Err(Problem::conflict("user_disabled", detail));
    }
    Ok(user)
}

fn parse_new(
    new: NewApiToken,
    (user, customer): (Option<access::User>, Option<CustomerId>),
    who: &Principal,
    now: Wall,
) -> Result<tokens::ApiToken, Problem> {
    let mut fields = Fields::default();
    let role = match customer {
        Some(_) => fields.take("customer", has_nothing_else(&new)).map(|()| Role::Viewer),
        None => fields.take("role", role(new.role, user.as_ref())),
    };
    let role = role.unwrap_or(Role::Viewer);
    let expires_at = match new.expires_in_s {
        Some(Some(seconds)) => fields.take("expires_in_s", parse::expiry(seconds, now)),
        Some(None) => None,
        None => Some(now + DEFAULT_LIFE),
    };
    let name = fields.take("name", parse::title(new.name).and_then(not_empty)).unwrap_or_default();
    let scopes = fields.take("scopes", scopes(new.scopes, who)).unwrap_or_default();
    fields.finish()?;
    Ok(tokens::ApiToken {
        id: ids::new_id(now),
        name,
        role,
        user: user.map(|user| tokens::TokenUser {
            id: user.id,
            name: user.name,
            state: tokens::UserState::Enabled(user.role),
        }),
        customer,
        scopes,
        created_by: who.to_string(),
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    })
}

fn has_nothing_else(new: &NewApiToken) -> Result<(), String> {
    if new.role.is_none() && new.user.is_none() && new.scopes.is_empty() {
        return Ok(());
    }
    Err("a token of a customer has no role, user or scopes: leave them out".into())
}

fn role(wanted: Option<RoleName>, user: Option<&access::User>) -> Result<Role, String> {
    match (wanted.map(Role::from), user) {
        (Some(wanted), Some(user)) if wanted > user.role => Err(format!(
            "{} is {}, and a token of the user has at most this role: leave the role out, or change that of the \
             user first",
            user.name, user.role
        )),
        (Some(wanted), _) => Ok(wanted),
        (None, Some(user)) => Ok(user.role),
        (None, None) => Err("viewer, operator or admin is expected, or a user whose role it has".into()),
    }
}

fn not_empty(text: String) -> Result<String, String> {
    if text.trim().is_empty() { Err("say what the token is for".into()) } else { Ok(text) }
}

/// Checks the scopes. A limited token grants only scopes of its own.
fn scopes(mut wanted: Vec<String>, who: &Principal) -> Result<Vec<String>, String> {
    wanted.sort_unstable();
    wanted.dedup();
    if let Some(unknown) = wanted.iter().find(|s| Area::named(s).is_none()) {
        return Err(format!("{unknown:?} is no scope; there are: {}", Area::ALL.map(Area::name).join(", ")));
    }
    let wider = wanted.is_empty() || wanted.iter().any(|s| !who.scopes.contains(s));
    if !who.scopes.is_empty() && wider {
        return Err(format!("the token that asks is limited to: {}", who.scopes.join(", ")));
    }
    Ok(wanted)
}

/// An API token.
#[utoipa::path(get, path = "/tokens/{token}", operation_id = "show_token", tag = "access",
    security(("token" = ["access:admin"])), params(("token" = String, Path)),
    responses((status = 200, body = ApiToken)))]
async fn show(State(app): State<AppState>, Path(token): Path<String>) -> Result<Json<ApiToken>, Problem> {
    let found = app.store.api_token(IdKind::Token.parse(&token)?).await?;
    found.map(|(t, _)| Json(to_api(&t))).ok_or_else(|| IdKind::Token.unknown(&token).into())
}

/// Revokes an API token.
#[utoipa::path(delete, path = "/tokens/{token}", operation_id = "revoke_token", tag = "access",
    security(("token" = ["access:admin"])), params(("token" = String, Path)), responses((status = 204)))]
async fn revoke(
    State(app): State<AppState>,
    who: Principal,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = IdKind::Token.parse(&token)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let now = write.now;
    if !tokens::revoke(write.tx(), id, now).await? {
        return Err(IdKind::Token.unknown(&token).into());
    }
    write.event("token.revoked", (Object::Token, id), "revoked", json!({})).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn to_api(token: &tokens::ApiToken) -> ApiToken {
    ApiToken {
        id: IdKind::Token.text(token.id),
        name: token.name.clone(),
        role: token.role.into(),
        user: token.user.as_ref().map(|user| user.name.clone()),
        customer: token.customer.map(|customer| IdKind::Customer.text(customer)),
        scopes: token.scopes.clone(),
        created_by: token.created_by.clone(),
        created_at: ids::time(token.created_at),
        expires_at: token.expires_at.map(ids::time),
        revoked_at: token.revoked_at.map(ids::time),
        last_used_at: token.last_used_at.map(ids::time),
    }
}
