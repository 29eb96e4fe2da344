//! Users who log in. The last admin cannot be removed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::UserId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::auth::{Principal, Role};
use super::request::extract::{Body, Path, Query, never_null};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, RoleName};
use super::{AppState, grants};
use crate::password;
use crate::store::events::Object;
use crate::store::{SqliteConnection, access, grants as stored_grants, operators, tokens};

/// Enough time to send the link to a user and for the user to open it.
const LINK_LIFE: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: String,
    pub name: String,
    pub role: RoleName,
    pub created_at: String,
    /// When the user was disabled.
    pub disabled_at: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub name: String,
    pub role: RoleName,
    pub password: String,
}

/// An absent field stays as it is. Any change ends the user's sessions.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RoleName)]
    pub role: Option<RoleName>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub password: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    pub disabled: Option<bool>,
}

/// A one-time login, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginLink {
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The address at which a browser uses it. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub expires_at: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(login_link))
}

/// Users, by name.
#[utoipa::path(get, path = "/users", operation_id = "list_users", tag = "access",
    security(("token" = ["access:admin"])), params(Paging),
    responses((status = 200, body = Page<User>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<User>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let rows = app.store.users(&after, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |u| u.name.clone(), |u| to_api(&u))))
}

/// Adds a user.
#[utoipa::path(post, path = "/users", operation_id = "create_user", tag = "access",
    security(("token" = ["unlimited:admin"])), request_body = NewUser,
    responses((status = 201, body = User)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let mut fields = Fields::default();
    let name = fields.take("name", parse::name(&new.name).and_then(not_reserved)).unwrap_or_default();
    fields.take("password", password::check(&new.password));
    fields.finish()?;
    let hash = app.rate_limits().hash(new.password).await?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let (id, role, now) = (ids::new_id(write.now), Role::from(new.role), write.now);
    let inserted = access::insert_user(write.tx(), id, &name, role, &hash, now).await;
    inserted.map_err(|e| name_taken(e, &name))?;
    let data = json!({ "name": name, "role": role.name() });
    write.event("user.created", (Object::User, id), "added", data).await?;
    write.commit().await?;
    let user = access::User { id, name, role, created_at: now, disabled_at: None };
    Ok((StatusCode::CREATED, Json(to_api(&user))))
}

/// Events use `user:local` for the gateway's own user on the Unix socket.
fn not_reserved(name: String) -> Result<String, crate::names::BadName> {
    if name == "local" { Err(crate::names::BadName::Name) } else { Ok(name) }
}

fn name_taken(error: crate::store::Error, name: &str) -> Problem {
    if error.as_database_error().is_some_and(|e| e.is_unique_violation()) {
        return Problem::conflict("name_taken", format!("a user is called {name:?} already"));
    }
    error.into()
}

/// A user.
#[utoipa::path(get, path = "/users/{user}", operation_id = "show_user", tag = "access",
    security(("token" = ["access:admin"])), params(("user" = String, Path, description = "id or name")),
    responses((status = 200, body = User)))]
async fn show(State(app): State<AppState>, Path(user): Path<String>) -> Result<Json<User>, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(Json(to_api(&load(&mut conn, &user).await?)))
}

/// Changes role or password of a user, or disables the user. All sessions of the user end, and with
/// the right to connect also the tunnels of the user's operators. A token of the user has at most the new role, and none
/// while the user is disabled.
#[utoipa::path(patch, path = "/users/{user}", operation_id = "change_user", tag = "access",
    security(("token" = ["unlimited:admin"])), request_body = UserChange,
    params(("user" = String, Path, description = "id or name")),
    responses((status = 200, body = User)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(user): Path<String>,
    Body(change): Body<UserChange>,
) -> Result<Json<User>, Problem> {
    let hash = match change.password {
        Some(password) => Some(new_password(&app, "password", password).await?),
        None => None,
    };
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), &user).await?;
    let role = change.role.map_or(before.role, Role::from);
    let disabled_at = match change.disabled {
        Some(true) => Some(before.disabled_at.unwrap_or(write.now)),
        Some(false) => None,
        None => before.disabled_at,
    };
    let after = access::User { role, disabled_at, ..before.clone() };
    access::update_user(write.tx(), &after).await?;
    // They may connect and reach what the user now may.
    for operator in operators::of_user(write.tx(), after.id).await? {
        write.peer(operator.id);
    }
    if let Some(hash) = &hash {
        access::set_password(write.tx(), after.id, hash).await?;
    }
    an_admin_stays(&mut write, &before).await?;
    let data = json!({ "role": role.name(), "disabled": disabled_at.is_some(), "password": hash.is_some() });
    write.event("user.changed", (Object::User, after.id), "changed", data).await?;
    write.commit().await?;
    Ok(Json(to_api(&after)))
}

/// Removes a user with all sessions, one-time logins and operators, revokes the user's tokens, and withdraws grants
/// for the user.
/// Events keep the name.
#[utoipa::path(delete, path = "/users/{user}", operation_id = "remove_user", tag = "access",
    security(("token" = ["unlimited:admin"])), params(("user" = String, Path, description = "id or name")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let user = load(write.tx(), &user).await?;
    super::operators::end_those_of(&mut write, &manager, user.id).await?;
    grants::withdraw_those_of(&mut write, &manager, stored_grants::Named::User(user.id)).await?;
    revoke_tokens_of(&mut write, user.id).await?;
    access::delete_user(write.tx(), user.id).await?;
    an_admin_stays(&mut write, &user).await?;
    write.event("user.removed", (Object::User, user.id), "removed", json!({ "name": user.name })).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes the tokens of a user who is removed.
async fn revoke_tokens_of(write: &mut ApiTx<'_>, user: UserId) -> Result<(), Problem> {
    let now = write.now;
    for token in tokens::revoke_those_of(write.tx(), user, now).await? {
        write.event("token.revoked", (Object::Token, token), "the user was removed", json!({})).await?;
    }
    Ok(())
}

/// # Errors
/// Returns 409 when this change leaves no admin who can log in.
async fn an_admin_stays(write: &mut ApiTx<'_>, before: &access::User) -> Result<(), Problem> {
    let was_admin = before.role == Role::Admin && before.disabled_at.is_none();
    if was_admin && access::active_admins(write.tx()).await? == 0 {
        let detail = "this is the last admin who can log in: make another one first";
        return Err(Problem::conflict("last_admin", detail));
    }
    Ok(())
}

/// Creates a one-time login for a user who forgot the password or has none yet.
#[utoipa::path(post, path = "/users/{user}/login-link", operation_id = "create_login_link",
    tag = "access", security(("token" = ["unlimited:admin"])),
    params(("user" = String, Path, description = "id or name")),
    responses((status = 201, body = LoginLink)))]
async fn login_link(
    State(app): State<AppState>,
    who: Principal,
    Path(user): Path<String>,
) -> Result<Disclosed<LoginLink>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let user = load(write.tx(), &user).await?;
    if user.disabled_at.is_some() {
        let detail =
            format!("{} is disabled, and a disabled user cannot log in: enable the user first", user.name);
        return Err(Problem::conflict("user_disabled", detail));
    }
    let until = write.now + LINK_LIFE;
    let link = access::insert_login_link(write.tx(), user.id, until).await?;
    write.event("user.login_link_created", (Object::User, user.id), "one-time login made", json!({})).await?;
    write.commit().await?;
    let url = format!("{}/login#{}", app.base_url(), link.reveal());
    let again = LoginLink { secret: None, url: None, expires_at: ids::time(until) };
    let once = LoginLink { secret: Some(link.reveal().to_owned()), url: Some(url), ..again.clone() };
    Ok(Disclosed { status: StatusCode::CREATED, once, again })
}

/// Checks the strength of a password and returns its hash.
pub(super) async fn new_password(app: &AppState, field: &str, text: String) -> Result<String, Problem> {
    password::check(&text).map_err(|e| Problem::invalid(field, e.to_string()))?;
    app.rate_limits().hash(text).await
}

/// # Errors
/// Returns 404 when there is no such user.
pub(super) async fn load(conn: &mut SqliteConnection, user: &str) -> Result<access::User, Problem> {
    let found = match IdKind::User.named(user) {
        Named::Id(id) => access::user_by_id(conn, id).await?,
        Named::Name(name) => access::user_named(conn, &name).await?,
    };
    found.ok_or_else(|| IdKind::User.unknown(user).into())
}

fn to_api(user: &access::User) -> User {
    User {
        id: IdKind::User.text(user.id),
        name: user.name.clone(),
        role: user.role.into(),
        created_at: ids::time(user.created_at),
        disabled_at: user.disabled_at.map(ids::time),
    }
}
