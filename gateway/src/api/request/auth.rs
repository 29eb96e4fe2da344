//! Authenticates callers by token, session or the Unix socket, and carries their permissions.
//!
//! `permission.rs` has the requirements of each route.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use axum_extra::extract::CookieJar;
use fleetgate_engine::id::{CustomerId, Id, UserId};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenHash, TokenKind};

use super::client::Client;
use super::ids::IdKind;
use super::permission::Area;
use super::person;
use super::token_cache::StoredToken;
use crate::api::AppState;
use crate::api::response::problem::Problem;
use crate::config::public_url::PublicUrl;
use crate::store::access;
pub use crate::store::access::Role;
use crate::store::tokens::{self, ApiToken, UserState};

/// A session ends after this long without use.
pub const SESSION_IDLE: Duration = Duration::from_secs(24 * 3_600);
/// A session ends this long after the login, even while it is in use.
pub const SESSION_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The last use is recorded at this interval and not with each request, because recording is a
/// write.
pub(super) const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// The longest that a request waits to record its last use. After that, the next request records
/// it.
pub(super) const TOUCH_PATIENCE: Duration = Duration::from_millis(100);
/// A substitute for `Origin`, for clients other than browsers that use a cookie. A page of another
/// site needs a CORS preflight to send it, and the gateway never answers one.
pub const CSRF_HEADER: HeaderName = HeaderName::from_static("x-fleetgate");

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub who: Who,
    pub role: Role,
    /// Areas of the API. Empty: all areas that the role allows.
    pub scopes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user with a session. The hash finds the session again.
    User {
        id: Id,
        name: String,
        session: TokenHash,
        until: Wall,
        /// The session began with a one-time login, and the user has not chosen a password since.
        by_link: bool,
    },
    /// A token of a program.
    Token(Id),
    /// A token of a user, who has at most the rights of the user.
    UserToken { token: Id, user: UserId, name: String },
    /// The gateway's own user, over the Unix socket.
    Local,
}

impl Who {
    /// The user whose grants and operators are the caller's own, with the name.
    pub fn user(&self) -> Option<(UserId, &str)> {
        match self {
            Who::User { id, name, .. } | Who::UserToken { user: id, name, .. } => Some((*id, name)),
            Who::Token(_) | Who::Local => None,
        }
    }
}

/// Formats the principal as in events.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::User { name, .. } => write!(f, "user:{name}"),
            Who::Token(id) => write!(f, "token:{}", IdKind::Token.text(*id)),
            Who::UserToken { token, name, .. } => write!(f, "user:{name}/{}", IdKind::Token.text(*token)),
            Who::Local => f.write_str("user:local"),
        }
    }
}

impl Principal {
    /// # Errors
    /// Returns 403 for a lower role.
    pub fn must_be(&self, role: Role) -> Result<(), Problem> {
        if self.role < role {
            let detail = format!("this needs the role {role}; {self} is {}", self.role);
            return Err(Problem::forbidden("role_missing", detail));
        }
        Ok(())
    }

    /// Refuses limited tokens. Users and their logins have no scopes, so a limited caller must not
    /// create one.
    ///
    /// # Errors
    /// Returns 403 for a token limited to areas.
    pub fn must_be_unlimited(&self) -> Result<(), Problem> {
        if self.scopes.is_empty() {
            return Ok(());
        }
        let detail =
            format!("this token is limited to: {}; this needs one without limits", self.scopes.join(", "));
        Err(Problem::forbidden("limited_token", detail))
    }

    /// # Errors
    /// Returns 403 for a token of other areas.
    pub fn must_reach(&self, area: Area) -> Result<(), Problem> {
        if !reaches(&self.scopes, area) {
            let detail = format!("this needs the scope {area}, which this token does not have");
            return Err(Problem::forbidden("scope_missing", detail));
        }
        Ok(())
    }
}

/// Whether these scopes have an area.
pub fn reaches(scopes: &[String], area: Area) -> bool {
    scopes.is_empty() || scopes.iter().any(|scope| scope == area.name())
}

/// Whoever makes a change, in the words of its events.
pub trait Author: fmt::Display {
    /// The areas that it is limited to. Empty: no token limits it.
    fn scopes(&self) -> &[String] {
        &[]
    }
}

impl Author for Principal {
    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

impl Author for String {}
impl Author for &str {}

impl FromRequestParts<AppState> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        // The layer around the handlers has authenticated the caller already.
        if let Some(known) = parts.extensions.get::<Principal>() {
            return Ok(known.clone());
        }
        if let Some(given) = parts.headers.get(header::AUTHORIZATION) {
            let text = given.to_str().unwrap_or_default();
            return by_token(app, text).await;
        }
        let Ok(client) = Client::from_request_parts(parts, app).await;
        if client.is_own_user() {
            return Ok(Principal { who: Who::Local, role: Role::Admin, scopes: Vec::new() });
        }
        let cookies = CookieJar::from_headers(&parts.headers);
        let Some(cookie) = cookies.get(app.cookie_name()) else {
            if let Some(hidden) = person::hidden(app, &parts.headers).await? {
                return Err(hidden);
            }
            let detail = "log in, or send a token as `Authorization: Bearer fgt_...`";
            return Err(Problem::unauthorized("not_logged_in", detail));
        };
        if !parts.method.is_safe() || parts.headers.contains_key(header::UPGRADE) {
            same_origin(&parts.headers, app)?;
        }
        by_session(app, cookie.value()).await
    }
}

fn refused(why: String) -> Problem {
    Problem::unauthorized("token_refused", why)
}

async fn by_token(app: &AppState, header: &str) -> Result<Principal, Problem> {
    let stored = good_token(app, header).await?;
    let row = &stored.0;
    if row.customer.is_some() {
        // For a customer there are no routes but the own ones.
        return Err(Problem::from_status(StatusCode::NOT_FOUND));
    }
    let (who, role) = owner(row).map_err(refused)?;
    note_use(app, row).await;
    Ok(Principal { who, role, scopes: row.scopes.clone() })
}

/// A token of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerToken {
    pub id: Id,
    pub customer: CustomerId,
}

/// Returns the token of a customer that a request brings. `None`: it brings another one, none, or one that is not good.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn customer_token(app: &AppState, headers: &HeaderMap) -> Result<Option<CustomerToken>, Problem> {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let stored = match good_token(app, given.to_str().unwrap_or_default()).await {
        Ok(stored) => stored,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let row = &stored.0;
    let Some(customer) = row.customer else { return Ok(None) };
    note_use(app, row).await;
    Ok(Some(CustomerToken { id: row.id, customer }))
}

/// Returns the stored token of a header.
///
/// # Errors
/// Returns 401 when it is no token, unknown, expired or revoked.
async fn good_token(app: &AppState, header: &str) -> Result<Arc<StoredToken>, Problem> {
    let text = header.strip_prefix("Bearer ").map(str::trim);
    let text = text.ok_or_else(|| refused("`Authorization: Bearer fgt_...` is expected".into()))?;
    let token: Token = text.parse().map_err(|e| refused(format!("{e}")))?;
    if token.kind() != TokenKind::Api {
        return Err(refused("this is no API token; those begin with fgt_".into()));
    }
    let id: Id = token.id().parse().map_err(|e| refused(format!("{e}")))?;
    let stored = api_token(app, id).await?.filter(|stored| token.matches(&stored.1));
    let stored = stored.ok_or_else(|| refused("this gateway does not know this token".into()))?;
    if !stored.0.is_good(crate::clock::wall()) {
        return Err(refused("this token has expired or was revoked: make a new one".into()));
    }
    Ok(stored)
}

async fn note_use(app: &AppState, token: &ApiToken) {
    let now = crate::clock::wall();
    if token.last_used_at.is_none_or(|at| now.since(at) >= TOUCH_EVERY) {
        touch(app, Proof::Token(token.id), now).await;
    }
}

/// Returns the caller behind a token, with the present role.
///
/// # Errors
/// Says why the token of a user is not accepted.
fn owner(token: &ApiToken) -> Result<(Who, Role), String> {
    let Some(user) = &token.user else { return Ok((Who::Token(token.id), token.role)) };
    let who = Who::UserToken { token: token.id, user: user.id, name: user.name.clone() };
    match (token.effective_role(), user.state) {
        (Some(role), _) => Ok((who, role)),
        (None, UserState::Removed) => Err(format!("this token ended with its user {}", user.name)),
        (None, _) => Err(format!("the user {} of this token is disabled", user.name)),
    }
}

/// Returns the stored token. A token that was read a moment ago and has not changed is not read
/// again.
async fn api_token(app: &AppState, id: Id) -> Result<Option<Arc<StoredToken>>, Problem> {
    let (tokens, now) = (app.tokens(), crate::clock::now().mono);
    if let Some(known) = tokens.find(id, now) {
        return Ok(Some(known));
    }
    let changes = tokens.changes();
    let read = app.store.api_token(id).await?.map(Arc::new);
    read.iter().for_each(|read| tokens.keep(read.clone(), changes, now));
    Ok(read)
}

/// The proof that a caller authenticated with.
enum Proof<'a> {
    Token(Id),
    Session(&'a TokenHash),
}

/// Records a last use. A reader is admitted even if the disk is full or the database locked.
async fn touch(app: &AppState, proof: Proof<'_>, now: Wall) {
    if let Err(error) = write_touch(app, proof, now).await {
        tracing::debug!("a last use was not noted: {error}");
    }
}

async fn write_touch(app: &AppState, proof: Proof<'_>, now: Wall) -> crate::store::Result<()> {
    let mut tx = app.store.begin_within(TOUCH_PATIENCE).await?;
    match proof {
        Proof::Token(id) => tokens::touch(&mut tx, id, now).await?,
        Proof::Session(hash) => access::touch_session(&mut tx, hash, now).await?,
    }
    tx.commit().await?;
    if let Proof::Token(id) = proof {
        app.tokens().touched(id, now);
    }
    Ok(())
}

async fn by_session(app: &AppState, cookie: &str) -> Result<Principal, Problem> {
    let over = || Problem::unauthorized("session_over", "the session is over: log in again");
    let token: Token = cookie.parse().map_err(|_| over())?;
    let hash = token.hash();
    let session = app.store.session(&hash).await?.filter(|_| token.kind() == TokenKind::Session);
    let session = session.ok_or_else(over)?;
    let now = crate::clock::wall();
    let idle = now.since(session.seen_at);
    if now >= session.expires_at || idle >= SESSION_IDLE || session.user.disabled_at.is_some() {
        return Err(over());
    }
    if idle >= TOUCH_EVERY {
        touch(app, Proof::Session(&hash), now).await;
    }
    let (id, name, until) = (session.user.id, session.user.name, session.expires_at);
    let who = Who::User { id, name, session: hash, until, by_link: session.by_link };
    Ok(Principal { who, role: session.user.role, scopes: Vec::new() })
}

/// Refuses cross-site requests, because a browser sends the cookie with any request that a page
/// triggers. A WebSocket begins with a GET, and a page may open one to any site. `SameSite=Strict` already prevents this, and the check helps where it fails.
///
/// # Errors
/// Returns 403 when the request may come from another site.
pub fn same_origin(headers: &HeaderMap, app: &AppState) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let fine = match (text(HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) if site != "same-origin" => false,
        (_, Some(origin)) => {
            is_ours(origin, text(header::HOST), app.config.public_url.as_ref().map(PublicUrl::origin))
        }
        (Some(_), None) => true,
        (None, None) => headers.contains_key(CSRF_HEADER),
    };
    if fine {
        return Ok(());
    }
    let detail = "this request came from another site, or its Origin header is missing; \
                  programs use a token, or send the header X-Fleetgate";
    Err(Problem::forbidden("cross_site", detail))
}

fn is_ours(origin: &str, host: Option<&str>, public: Option<&str>) -> bool {
    // A proxy may speak HTTPS to the browser and HTTP to the gateway.
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    public == Some(origin) || authority.is_some() && authority == host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: Role, scopes: &[&str]) -> Principal {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        Principal { who: Who::Token(Id::from_i64(7)), role, scopes }
    }

    #[test]
    fn a_role_includes_the_lower_ones_only() {
        let may = |role| token(Role::Operator, &[]).must_be(role).is_ok();
        assert_eq!([Role::Viewer, Role::Operator, Role::Admin].map(may), [true, true, false]);
    }

    #[test]
    fn a_scope_limits_a_token_to_its_area() {
        let limited = token(Role::Admin, &["devices"]);
        for area in Area::ALL {
            let may = limited.must_reach(area).is_ok();
            assert_eq!(may, area == Area::Devices, "{area}");
            assert!(token(Role::Viewer, &[]).must_reach(area).is_ok(), "{area} without limits");
        }
        assert!(limited.must_be_unlimited().is_err());
    }

    #[test]
    fn an_origin_is_ours_by_host_or_by_the_public_url() {
        assert!(is_ours("https://gw.example", Some("gw.example"), None));
        assert!(is_ours("https://gw.example", Some("10.0.0.1:8080"), Some("https://gw.example")));
        assert!(!is_ours("https://evil.example", Some("gw.example"), Some("https://gw.example")));
        assert!(!is_ours("null", Some("gw.example"), None));
        assert!(!is_ours("ftp://gw.example", Some("gw.example"), None));
        assert!(!is_ours("https://gw.example.evil.example", Some("gw.example"), None));
    }
}
