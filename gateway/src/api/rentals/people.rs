//! The people of customers. Their personal data leaves with them, and so do their peers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::CustomerId;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::people_types::{CreatedPerson, NewPerson, Person, PersonChange};
use super::{begin, customers, parse, renters};
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path, Query};
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::{self as fields, Fields, Setter};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::Page;
use crate::store::events::Object;
use crate::store::rentals::people as stored;

/// A customer is a household or a company. A company that needs more can have several customers.
const MAX_PER_CUSTOMER: usize = 32;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, remove))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of this customer (id or `external_ref`).
    customer: Option<String>,
}

/// The people of customers, the newest first.
#[utoipa::path(get, path = "/people", operation_id = "list_people", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Person>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Person>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let customer = customers::wanted(&app, wanted.customer.as_deref()).await?;
    let mut conn = app.store.reader().await?;
    let rows = stored::list(&mut conn, customer, before, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |p| p.id.as_i64().to_string(), |p| to_api(&p))))
}

/// Adds a person to a customer.
#[utoipa::path(post, path = "/people", operation_id = "create_person", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = NewPerson,
    responses((status = 201, body = CreatedPerson)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewPerson>,
) -> Result<(StatusCode, Tagged<CreatedPerson>), Problem> {
    let mut write = begin(&app, &who).await?;
    let now = write.now;
    let customer = customers::load(&mut write, &new.customer).await;
    let customer = customer.map_err(|e| e.in_field("customer"))?;
    let change = PersonChange { name: Some(new.name), email: new.email.map(Some) };
    let person = changed(&stored::Person::new(ids::new_id(now), customer.id, now), change)?;
    has_room(&mut write, customer.id).await?;
    stored::insert(write.tx(), &person).await?;
    let (id, of) = (IdKind::Person.text(person.id), IdKind::Customer.text(customer.id));
    let data = json!({ "id": id, "customer": of });
    write.event("person.created", (Object::Person, person.id), "added", data).await?;
    write.commit().await?;
    let value = CreatedPerson { id, customer: of, version: person.version };
    Ok((StatusCode::CREATED, Tagged { version: person.version, value }))
}

async fn has_room(write: &mut ApiTx<'_>, customer: CustomerId) -> Result<(), Problem> {
    if stored::of_customer(write.tx(), customer).await?.len() < MAX_PER_CUSTOMER {
        return Ok(());
    }
    let id = IdKind::Customer.text(customer);
    let detail = format!("{id} has {MAX_PER_CUSTOMER} people, and no more are possible: remove one");
    Err(Problem::limit_reached(detail))
}

/// A person.
#[utoipa::path(get, path = "/people/{person}", operation_id = "show_person", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("person" = String, Path, description = "id")),
    responses((status = 200, body = Person)))]
async fn show(State(app): State<AppState>, Path(person): Path<String>) -> Result<Tagged<Person>, Problem> {
    let id = IdKind::Person.parse(&person)?;
    let found = stored::by_id(&mut *app.store.reader().await?, id).await?;
    let found = found.ok_or_else(|| IdKind::Person.unknown(&person))?;
    Ok(Tagged { version: found.version, value: to_api(&found) })
}

/// Changes a person.
#[utoipa::path(patch, path = "/people/{person}", operation_id = "change_person", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = PersonChange,
    params(("person" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Person)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(person): Path<String>,
    if_match: IfMatch,
    Body(change): Body<PersonChange>,
) -> Result<Tagged<Person>, Problem> {
    let mut write = begin(&app, &who).await?;
    let before = load(&mut write, &person).await?;
    if_match.check(before.version)?;
    let mut after = changed(&before, change)?;
    if after != before {
        stored::update(write.tx(), &after).await?;
        after.version += 1;
        let data = json!({ "id": IdKind::Person.text(after.id), "changed": differences(&before, &after) });
        write.event("person.changed", (Object::Person, after.id), "changed", data).await?;
    }
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after) })
}

/// Removes a person: the name, the mail address and the person's peers. Their tunnels end at once.
#[utoipa::path(delete, path = "/people/{person}", operation_id = "remove_person", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("person" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    Path(person): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = begin(&app, &who).await?;
    let gone = load(&mut write, &person).await?;
    if_match.check(gone.version)?;
    end(&mut write, &gone, "removed").await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the people of a customer who is erased.
pub(super) async fn end_those_of(write: &mut ApiTx<'_>, customer: CustomerId) -> Result<(), Problem> {
    for person in stored::of_customer(write.tx(), customer).await? {
        end(write, &person, "its customer was erased").await?;
    }
    Ok(())
}

async fn end(write: &mut ApiTx<'_>, gone: &stored::Person, cause: &str) -> Result<(), Problem> {
    let now = write.now;
    renters::end_those_of(write, gone.id).await?;
    stored::remove(write.tx(), gone.id, now).await?;
    let data = json!({ "id": IdKind::Person.text(gone.id) });
    write.event("person.removed", (Object::Person, gone.id), cause, data).await
}

pub(super) async fn load(write: &mut ApiTx<'_>, person: &str) -> Result<stored::Person, Problem> {
    let found = stored::by_id(write.tx(), IdKind::Person.parse(person)?).await?;
    found.ok_or_else(|| IdKind::Person.unknown(person).into())
}

/// Returns the person after the request.
fn changed(before: &stored::Person, change: PersonChange) -> Result<stored::Person, Problem> {
    let mut wrong = Fields::default();
    let mut after = before.clone();
    let mut set = Setter(&mut wrong);
    set.to(&mut after.name, "name", change.name.map(fields::title));
    set.to(&mut after.email, "email", change.email.map(|email| email.map(parse::email).transpose()));
    wrong.finish()?;
    Ok(after)
}

/// Returns the names of what changed, for the event.
fn differences(before: &stored::Person, after: &stored::Person) -> Vec<&'static str> {
    let pairs = [("name", before.name != after.name), ("email", before.email != after.email)];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn to_api(person: &stored::Person) -> Person {
    Person {
        id: IdKind::Person.text(person.id),
        customer: IdKind::Customer.text(person.customer),
        name: person.name.clone(),
        email: person.email.clone(),
        created_at: ids::time(person.created_at),
        version: person.version,
    }
}
