//! Logging in and out. The store keeps the sessions, and a change of password or role ends them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::Id;
use fleetgate_keys::{Token, TokenKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::{self, Principal, SESSION_LIFE, Who};
use super::request::client::Source;
use super::request::extract::Body;
use super::request::ids;
use super::request::transaction::{ApiTx, PATIENCE};
use super::response::problem::Problem;
use super::types::{RoleName, names};
use super::users::new_password;
use crate::store::access::{self, User};
use crate::store::events::Object;

/// A name with a password, or a one-time link's secret.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    pub name: Option<String>,
    pub password: Option<String>,
    pub link: Option<String>,
}

/// The caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// `user:NAME`, `token:ID`, or `user:NAME/ID` with the token of a user, as in events.
    pub principal: String,
    pub name: Option<String>,
    pub role: RoleName,
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    /// When the session ends at the latest.
    pub expires_at: Option<String>,
    /// The session began with a one-time login: `PUT /session/password` needs no current password.
    pub may_choose_password: bool,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// Not needed in a session that began with a one-time login.
    pub current: Option<String>,
    pub new: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(log_in, who, log_out)).routes(routes!(change_password))
}

/// Begins a session with name and password, or with a one-time link. The answer sets a cookie.
#[utoipa::path(post, path = "/session", operation_id = "log_in", tag = "access", security(()),
    request_body = Login, responses((status = 200, body = Me)))]
async fn log_in(
    State(app): State<AppState>,
    Source(source): Source,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Result<Response, Problem> {
    // A page of another site must not log a browser in either.
    if headers.contains_key(header::ORIGIN) {
        auth::same_origin(&headers, &app)?;
    }
    // A link's secret cannot be guessed. Only its sender is throttled, so that strangers cannot
    // block this way for all users.
    let account = login.name.clone();
    app.rate_limits().login(source, account.as_deref(), crate::clock::now().mono)?;
    let proved = match (login.name, login.password, login.link) {
        (Some(name), Some(password), None) => {
            by_password(&app, &name, password).await.map(|u| (u, How::Password))
        }
        (None, None, Some(link)) => by_link(&app, &link).await.map(|u| (u, How::Link)),
        _ => Err(Problem::invalid("", "name and password are expected, or link")),
    };
    // The tried name may be a password in the wrong field, so it stays out of the log.
    let (user, how) =
        proved.inspect_err(|e| tracing::info!(%source, code = e.code(), "a login was refused"))?;
    app.rate_limits().logged_in(source, account.as_deref(), crate::clock::now().mono);
    begin(&app, user, how, &source.to_string()).await
}

/// The way a session begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Password,
    Link,
    NewPassword,
}

impl How {
    /// Returns the name in the event.
    const fn name(self) -> &'static str {
        match self {
            How::Password => "password",
            How::Link => "one-time link",
            How::NewPassword => "new password",
        }
    }
}

async fn by_password(app: &AppState, name: &str, password: String) -> Result<User, Problem> {
    let known = app.store.user_with_password(name).await?;
    let (user, hash) = known.unzip();
    let right = app.rate_limits().verify(hash, password).await?;
    let user = user.filter(|u| right && u.disabled_at.is_none());
    user.ok_or_else(|| Problem::unauthorized("login_refused", "name or password is wrong"))
}

async fn by_link(app: &AppState, text: &str) -> Result<User, Problem> {
    let refused = || {
        let detail = "this link was used, has expired, or was never made: `fleetgate user login-link NAME` \
                      on the gateway's machine makes another";
        Problem::unauthorized("link_refused", detail)
    };
    let link: Token = text.parse().map_err(|_| refused())?;
    if link.kind() != TokenKind::LoginLink {
        return Err(refused());
    }
    let mut tx = app.store.begin_within(PATIENCE).await?;
    let user = access::take_login_link(&mut tx, &link.hash(), crate::clock::wall()).await?;
    let user = access::user_by_id(&mut tx, user.ok_or_else(refused)?).await?;
    let user = user.filter(|u| u.disabled_at.is_none()).ok_or_else(refused)?;
    tx.commit().await?;
    Ok(user)
}

async fn begin(app: &AppState, user: User, how: How, source: &str) -> Result<Response, Problem> {
    let mut write = ApiTx::of_a_login(app, &format!("user:{}", user.name)).await?;
    let (now, until) = (write.now, write.now + SESSION_LIFE);
    let by_link = how == How::Link;
    let secret = access::insert_session(write.tx(), (user.id, by_link), now, until).await?;
    let data = json!({ "from": source });
    write
        .event("session.begun", (Object::User, user.id), &format!("logged in by {}", how.name()), data)
        .await?;
    write.commit().await?;
    let who = Who::User { id: user.id, name: user.name, session: secret.hash(), until, by_link };
    let me = me(&Principal { who, role: user.role, scopes: Vec::new() });
    let cookie = cookie(app, app.cookie_name(), secret.reveal(), until.since(now));
    Ok(([(header::SET_COOKIE, cookie)], Json(me)).into_response())
}

/// The caller: name, role and scopes.
#[utoipa::path(get, path = "/session", operation_id = "show_session", tag = "access",
    security(("token" = [])), responses((status = 200, body = Me)))]
async fn who(principal: Principal) -> Json<Me> {
    Json(me(&principal))
}

/// Logs out and ends the session.
#[utoipa::path(delete, path = "/session", operation_id = "log_out", tag = "access",
    security(("token" = [])), responses((status = 204)))]
async fn log_out(State(app): State<AppState>, principal: Principal) -> Result<Response, Problem> {
    if let Who::User { session, .. } = &principal.who {
        let mut tx = app.store.begin_within(PATIENCE).await?;
        access::delete_session(&mut tx, session).await?;
        tx.commit().await?;
    }
    let gone = cookie(&app, app.cookie_name(), "", Duration::ZERO);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// Changes the own password, and ends all other sessions of this user. A session that began with a one-time login
/// (`may_choose_password`) does so once without the current password.
#[utoipa::path(put, path = "/session/password", operation_id = "change_own_password", tag = "access",
    security(("token" = [])), request_body = PasswordChange,
    responses((status = 200, body = Me)))]
async fn change_password(
    State(app): State<AppState>,
    Source(source): Source,
    principal: Principal,
    Body(change): Body<PasswordChange>,
) -> Result<Response, Problem> {
    let Who::User { id, name, by_link, .. } = &principal.who else {
        return Err(Problem::conflict("no_session", "only a user who is logged in has a password to change"));
    };
    let user = match change.current {
        Some(current) => {
            app.rate_limits().login(source, Some(name), crate::clock::now().mono)?;
            let user = by_password(&app, name, current).await?;
            app.rate_limits().logged_in(source, Some(name), crate::clock::now().mono);
            user
        }
        None if *by_link => user_of(&app, *id).await?,
        None => return Err(Problem::invalid("current", "the current password is expected")),
    };
    let hash = new_password(&app, "new", change.new).await?;
    store_password(&app, &principal, *id, &hash).await?;
    begin(&app, user, How::NewPassword, &source.to_string()).await
}

/// Returns the user of a session as stored now.
async fn user_of(app: &AppState, id: Id) -> Result<User, Problem> {
    let mut conn = app.store.reader().await?;
    let user = access::user_by_id(&mut conn, id).await?.filter(|u| u.disabled_at.is_none());
    user.ok_or_else(|| Problem::unauthorized("session_over", "the session is over: log in again"))
}

async fn store_password(app: &AppState, by: &Principal, user: Id, hash: &str) -> Result<(), Problem> {
    let mut write = ApiTx::begin(app, by).await?;
    access::set_password(write.tx(), user, hash).await?;
    write.event("user.password_changed", (Object::User, user), "own password changed", json!({})).await?;
    write.commit().await
}

/// Returns the caller. A token or the socket has no session but is shown too.
fn me(principal: &Principal) -> Me {
    let (until, may_choose_password) = match &principal.who {
        Who::User { until, by_link, .. } => (Some(*until), *by_link),
        Who::Token(_) | Who::UserToken { .. } | Who::Local => (None, false),
    };
    Me {
        principal: principal.to_string(),
        name: principal.who.user().map(|(_, name)| name.to_owned()),
        role: principal.role.into(),
        scopes: principal.scopes.clone(),
        expires_at: until.map(ids::time),
        may_choose_password,
    }
}

/// Returns a session cookie. Only the gateway gets it back, and no script can read it. An empty
/// one removes it.
pub(super) fn cookie(app: &AppState, name: &str, value: &str, life: Duration) -> HeaderValue {
    let secure = if app.is_https() { "; Secure" } else { "" };
    let seconds = life.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).expect("a token is printable ASCII")
}
