//! Logging the people of customers in and out. A booking system hands a one-time link to a person.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenKind};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::{MyName, MySession, NewPersonLogin, PersonLogin, PersonLoginLink};
use crate::api::AppState;
use crate::api::rentals::{begin, customers, people};
use crate::api::request::auth::{self, Principal, SESSION_LIFE};
use crate::api::request::client::Source;
use crate::api::request::extract::{Body, Path};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::person::PersonCaller;
use crate::api::request::transaction::{ApiTx, PATIENCE};
use crate::api::response::problem::Problem;
use crate::api::session::cookie;
use crate::store::events::Object;
use crate::store::rentals::customers::Customer;
use crate::store::rentals::people::Person;
use crate::store::rentals::{mine, person_sessions};

/// Enough time for a page that sends the person on, and for a mail that is read at once.
const LINK_LIFE: Duration = Duration::from_secs(15 * 60);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login_link))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(show))
}

/// Creates a one-time login for a person of a customer. It is good for 15 minutes.
///
/// The person sees the rentals of the customer that admit all renters or one of the person's, and what was measured of
/// their devices within the time of the rental.
#[utoipa::path(post, path = "/customers/{customer}/login-link", operation_id = "create_person_login_link",
    tag = "rentals", security(("token" = ["rentals:operator"])), request_body = NewPersonLogin,
    params(("customer" = String, Path, description = "id or `external_ref`")),
    responses((status = 201, body = PersonLoginLink)))]
async fn login_link(
    State(app): State<AppState>,
    who: Principal,
    Path(customer): Path<String>,
    Body(new): Body<NewPersonLogin>,
) -> Result<Disclosed<PersonLoginLink>, Problem> {
    let mut write = begin(&app, &who).await?;
    let customer = customers::load(&mut write, &customer).await?;
    let person = people::load(&mut write, &new.person).await?;
    if person.customer != customer.id {
        return Err(IdKind::Person.unknown(&new.person).into());
    }
    let (now, until) = (write.now, write.now + LINK_LIFE);
    let link = person_sessions::insert_link(write.tx(), person.id, now, until).await?;
    let data = json!({ "id": IdKind::Person.text(person.id) });
    write
        .event("person.login_link_created", (Object::Person, person.id), "one-time login made", data)
        .await?;
    write.commit().await?;
    let url = format!("{}/my#token={}", app.base_url(), link.reveal());
    let again = PersonLoginLink { url: None, expires_at: ids::time(until) };
    let once = PersonLoginLink { url: Some(url), ..again.clone() };
    Ok(Disclosed { status: StatusCode::CREATED, once, again })
}

/// Begins the session of a person of a customer, with the secret of a one-time login. The answer sets a cookie.
#[utoipa::path(post, path = "/my/login", operation_id = "log_in_as_person", tag = "rentals", security(()),
    request_body = PersonLogin, responses((status = 200, body = MySession)))]
async fn log_in(
    State(app): State<AppState>,
    Source(source): Source,
    headers: HeaderMap,
    Body(login): Body<PersonLogin>,
) -> Result<Response, Problem> {
    // A page of another site must not log a browser in either.
    if headers.contains_key(header::ORIGIN) {
        auth::same_origin(&headers, &app)?;
    }
    app.rate_limits().login(source, None, crate::clock::now().mono)?;
    app.restore_must_be_confirmed().await?;
    let begun = begun(&app, &login.token).await;
    let (session, cookie) =
        begun.inspect_err(|e| tracing::info!(%source, code = e.code(), "a login of a person was refused"))?;
    app.rate_limits().logged_in(source, None, crate::clock::now().mono);
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

/// Uses the link and begins the session, in one transaction: a link whose session fails stays good.
async fn begun(app: &AppState, text: &str) -> Result<(MySession, HeaderValue), Problem> {
    let link: Token = text.parse().map_err(|_| refused())?;
    if link.kind() != TokenKind::LoginLink {
        return Err(refused());
    }
    let mut write = ApiTx::begin(app, &"person").await?;
    let now = write.now;
    let person = person_sessions::take_link(write.tx(), &link.hash(), now).await?.ok_or_else(refused)?;
    write.by = format!("person:{}", IdKind::Person.text(person));
    let until = now + SESSION_LIFE;
    let secret = person_sessions::insert(write.tx(), person, now, until).await?;
    let who = mine::who(write.tx(), person).await?.ok_or_else(refused)?;
    let data = json!({ "id": IdKind::Person.text(person) });
    write.event("person.logged_in", (Object::Person, person), "logged in by one-time link", data).await?;
    write.commit().await?;
    let cookie = cookie(app, app.person_cookie_name(), secret.reveal(), SESSION_LIFE);
    Ok((to_api(who, (now, until)), cookie))
}

fn refused() -> Problem {
    let detail = "this link was used, has expired, or was never made: get another one from where you booked";
    Problem::unauthorized("link_refused", detail)
}

/// Logs a person of a customer out and ends the session.
#[utoipa::path(post, path = "/my/logout", operation_id = "log_out_as_person", tag = "rentals",
    security(("person" = [])), responses((status = 204)))]
async fn log_out(State(app): State<AppState>, who: PersonCaller) -> Result<Response, Problem> {
    let mut tx = app.store.begin_within(PATIENCE).await?;
    person_sessions::delete(&mut tx, &who.session).await?;
    tx.commit().await?;
    let gone = cookie(&app, app.person_cookie_name(), "", Duration::ZERO);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// The person of a customer who is logged in.
#[utoipa::path(get, path = "/my", operation_id = "show_my_session", tag = "rentals",
    security(("person" = [])), responses((status = 200, body = MySession)))]
async fn show(State(app): State<AppState>, who: PersonCaller) -> Result<Json<MySession>, Problem> {
    let found = mine::who(&mut *app.store.reader().await?, who.person).await?;
    let over = || Problem::unauthorized("session_over", "the session is over: log in again");
    Ok(Json(to_api(found.ok_or_else(over)?, (crate::clock::wall(), who.until))))
}

/// Returns what a person learns of the own session.
fn to_api((person, customer): (Person, Customer), (now, until): (Wall, Wall)) -> MySession {
    MySession {
        person: MyName { id: IdKind::Person.text(person.id), name: person.name },
        customer: MyName { id: IdKind::Customer.text(customer.id), name: customer.name },
        time: ids::time(now),
        expires_at: ids::time(until),
    }
}
