//! Authenticates the people of customers, by the cookie of their sessions, and the programs of customers, by a token.
//!
//! Such a person or program is no [`Principal`](super::auth::Principal) and has no role. Only the routes with
//! [`Rule::Person`](super::permission::Rule::Person) and [`Rule::Customer`](super::permission::Rule::Customer) take
//! one, and for these callers there are no other routes.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum_extra::extract::CookieJar;
use fleetgate_engine::id::{CustomerId, Id, PersonId};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenHash, TokenKind};

use super::auth::{SESSION_IDLE, TOUCH_EVERY, TOUCH_PATIENCE, customer_token, same_origin};
use super::ids::IdKind;
use crate::api::AppState;
use crate::api::response::problem::Problem;
use crate::store::rentals::person_sessions::{self, PersonSession};

/// A person of a customer who is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonCaller {
    pub person: PersonId,
    pub customer: CustomerId,
    /// Finds the session again.
    pub session: TokenHash,
    pub until: Wall,
}

/// Who reads what is a customer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerCaller {
    pub customer: CustomerId,
    /// `None`: a program with a token of the customer, which sees what any person of the customer sees.
    pub person: Option<PersonId>,
    /// That of the person or the token.
    pub id: Id,
}

impl From<&PersonCaller> for CustomerCaller {
    fn from(who: &PersonCaller) -> Self {
        CustomerCaller { customer: who.customer, person: Some(who.person), id: who.person }
    }
}

impl FromRequestParts<AppState> for CustomerCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        parts.extensions.get::<CustomerCaller>().copied().ok_or_else(not_logged_in)
    }
}

impl CustomerCaller {
    /// Returns the program behind a token of a customer. `None`: the request has no such token.
    ///
    /// # Errors
    /// Returns 503 while a restore waits for its confirmation: the token may have been revoked after the backup.
    pub async fn by_token(app: &AppState, parts: &Parts) -> Result<Option<CustomerCaller>, Problem> {
        let Some(token) = customer_token(app, &parts.headers).await? else { return Ok(None) };
        app.restore_must_be_confirmed().await?;
        Ok(Some(CustomerCaller { customer: token.customer, person: None, id: token.id }))
    }
}

/// Formats the person as in events: by the id alone, which is no personal data.
impl fmt::Display for PersonCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "person:{}", IdKind::Person.text(self.person))
    }
}

impl FromRequestParts<AppState> for PersonCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        // The layer around the handlers stores the caller for routes of people alone.
        parts.extensions.get::<PersonCaller>().cloned().ok_or_else(not_logged_in)
    }
}

impl PersonCaller {
    /// # Errors
    /// Returns 401 without a session, 403 for a call of another site, and 503 while a restore waits for its
    /// confirmation: the person may have been removed after the backup.
    pub async fn by_cookie(app: &AppState, parts: &Parts) -> Result<PersonCaller, Problem> {
        let Some((session, hash)) = session(app, &parts.headers).await? else { return Err(not_logged_in()) };
        if !parts.method.is_safe() {
            same_origin(&parts.headers, app)?;
        }
        app.restore_must_be_confirmed().await?;
        touch(app, &session, &hash).await;
        let PersonSession { person, customer, expires_at: until, .. } = session;
        Ok(PersonCaller { person, customer, session: hash, until })
    }
}

fn not_logged_in() -> Problem {
    let detail =
        "log in with a link that you get from where you booked; a program needs a good token of the customer";
    Problem::unauthorized("not_logged_in", detail)
}

/// Returns what a person or a program of a customer gets for each route of other callers. `None`: it is none of these.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn hidden(app: &AppState, headers: &HeaderMap) -> Result<Option<Problem>, Problem> {
    let is_customer = customer_token(app, headers).await?.is_some() || session(app, headers).await?.is_some();
    Ok(is_customer.then(|| Problem::from_status(StatusCode::NOT_FOUND)))
}

/// Returns the session of the cookie, unless it is over.
async fn session(app: &AppState, headers: &HeaderMap) -> Result<Option<(PersonSession, TokenHash)>, Problem> {
    let cookies = CookieJar::from_headers(headers);
    let token = cookies.get(app.person_cookie_name()).and_then(|cookie| cookie.value().parse::<Token>().ok());
    let Some(token) = token.filter(|token| token.kind() == TokenKind::Session) else { return Ok(None) };
    let hash = token.hash();
    let found = person_sessions::find(&mut *app.store.reader().await?, &hash).await?;
    let now = crate::clock::wall();
    let is_good = |of: &PersonSession| now < of.expires_at && now.since(of.seen_at) < SESSION_IDLE;
    Ok(found.filter(is_good).map(|session| (session, hash)))
}

/// Records a last use. A reader is admitted even if the disk is full or the database locked.
async fn touch(app: &AppState, session: &PersonSession, hash: &TokenHash) {
    let now = crate::clock::wall();
    if now.since(session.seen_at) < TOUCH_EVERY {
        return;
    }
    if let Err(error) = write_touch(app, hash, now).await {
        tracing::debug!("a last use was not noted: {error}");
    }
}

async fn write_touch(app: &AppState, hash: &TokenHash, now: Wall) -> crate::store::Result<()> {
    let mut tx = app.store.begin_within(TOUCH_PATIENCE).await?;
    person_sessions::touch(&mut tx, hash, now).await?;
    tx.commit().await
}
