//! Customers: who rents. Their personal data leaves with them.

use std::io;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::CustomerId;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::{CreatedCustomer, Customer, CustomerChange, CustomerContact, NewCustomer};
use super::{begin, none_is_open, parse, people};
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path, Query};
use crate::api::request::ids::{self, IdKind, Named};
use crate::api::request::parse::{self as fields, Fields, Setter};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::Page;
use crate::backup::erased_ids::{self, Appended, ERASED_FILE};
use crate::store::Trouble;
use crate::store::events::Object;
use crate::store::rentals::erasures::Erasure;
use crate::store::rentals::{Of, customers as stored, policy};
use crate::store::tokens;

/// A fleet of 10,000 devices has fewer.
const MAX_CUSTOMERS: i64 = 100_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, erase))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only the one with this `external_ref`.
    external_ref: Option<String>,
}

/// Customers, the newest first.
#[utoipa::path(get, path = "/customers", operation_id = "list_customers", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Customer>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Customer>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let mut conn = app.store.reader().await?;
    let rows = stored::list(&mut conn, wanted.external_ref.as_deref(), before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |c| c.id.as_i64().to_string(), |c| to_api(&c))))
}

/// Adds a customer.
#[utoipa::path(post, path = "/customers", operation_id = "create_customer", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = NewCustomer,
    responses((status = 201, body = CreatedCustomer)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewCustomer>,
) -> Result<(StatusCode, Tagged<CreatedCustomer>), Problem> {
    let mut write = begin(&app, &who).await?;
    let now = write.now;
    let change = CustomerChange {
        external_ref: new.external_ref.map(Some),
        name: Some(new.name),
        contacts: Some(new.contacts),
    };
    let version = write.first_version().await?;
    let blank = stored::Customer { version, ..stored::Customer::new(ids::new_id(now), now) };
    let customer = changed(&blank, change)?;
    if stored::count(write.tx()).await? >= MAX_CUSTOMERS {
        let detail = format!("at most {MAX_CUSTOMERS} customers are possible: erase some");
        return Err(Problem::limit_reached(detail));
    }
    reference_is_free(&mut write, &customer).await?;
    stored::insert(write.tx(), &customer).await?;
    let id = IdKind::Customer.text(customer.id);
    write.event("customer.created", (Object::Customer, customer.id), "added", json!({ "id": id })).await?;
    write.commit().await?;
    let value = CreatedCustomer { id, version: customer.version };
    Ok((StatusCode::CREATED, Tagged { version: customer.version, value }))
}

/// A customer.
#[utoipa::path(get, path = "/customers/{customer}", operation_id = "show_customer", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("customer" = String, Path, description = "id or `external_ref`")),
    responses((status = 200, body = Customer)))]
async fn show(
    State(app): State<AppState>,
    Path(customer): Path<String>,
) -> Result<Tagged<Customer>, Problem> {
    let found = stored::find(&mut *app.store.reader().await?, &IdKind::Customer.named(&customer)).await?;
    let found = found.ok_or_else(|| IdKind::Customer.unknown(&customer))?;
    Ok(Tagged { version: found.version, value: to_api(&found) })
}

/// Changes a customer.
#[utoipa::path(patch, path = "/customers/{customer}", operation_id = "change_customer", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = CustomerChange,
    params(("customer" = String, Path, description = "id or `external_ref`"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Customer)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(customer): Path<String>,
    if_match: IfMatch,
    Body(change): Body<CustomerChange>,
) -> Result<Tagged<Customer>, Problem> {
    let mut write = begin(&app, &who).await?;
    let before = load(&mut write, &customer).await?;
    if_match.check(before.version)?;
    let mut after = changed(&before, change)?;
    if after != before {
        reference_is_free(&mut write, &after).await?;
        stored::update(write.tx(), &after).await?;
        after.version += 1;
        let data = json!({ "id": IdKind::Customer.text(after.id), "changed": differences(&before, &after) });
        write.event("customer.changed", (Object::Customer, after.id), "changed", data).await?;
    }
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after) })
}

/// Erases a customer: the name, the contacts, and references, notes and metadata of the bookings are deleted, the rentals
/// get names that say nothing, and the people of the customer are removed with their peers. Rentals stay without them. A
/// restore of an earlier backup erases the customer again.
///
/// 409 `rentals_open`: a rental of the customer has not ended, or its device is not back and cleaned. 503 `not_recorded`: the erasure could not be recorded
/// outside of the database, and nothing was changed.
#[utoipa::path(delete, path = "/customers/{customer}", operation_id = "erase_customer", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("customer" = String, Path, description = "id or `external_ref`"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn erase(
    State(app): State<AppState>,
    who: Principal,
    Path(customer): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = begin(&app, &who).await?;
    let gone = load(&mut write, &customer).await?;
    if_match.check(gone.version)?;
    let what = "this customer has rentals that are not closed: note the return of shipped devices, wait for the \
                turnaround, or";
    none_is_open(&mut write, Of::Customer(gone.id), what).await?;
    let now = write.now;
    people::end_those_of(&mut write, gone.id).await?;
    for token in tokens::erase_those_of(write.tx(), gone.id, now).await? {
        write.event("token.revoked", (Object::Token, token), "its customer was erased", json!({})).await?;
    }
    // The packet filter keeps the names of rentals for a day after their end.
    for rental in policy::of_customer(write.tx(), gone.id).await? {
        write.rental(rental);
    }
    stored::erase(write.tx(), gone.id, now).await?;
    let data = json!({ "id": IdKind::Customer.text(gone.id) });
    write.event("customer.erased", (Object::Customer, gone.id), "erased", data).await?;
    // Before the commit: of an erasure that is answered, a restore knows.
    let recorded = recorded(&app, Erasure { customer: gone.id, at: now }).await?;
    if let Err(problem) = write.commit().await {
        if let Err(error) = recorded.withdraw() {
            tracing::error!("the customer is erased at the next start, although this call fails: {error}");
        }
        return Err(problem);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the customer of a filter, by the id or the `external_ref`. The id also of one who was erased.
///
/// # Errors
/// Returns 404 when no customer has this reference.
pub(super) async fn wanted(app: &AppState, customer: Option<&str>) -> Result<Option<CustomerId>, Problem> {
    match customer.map(|text| (text, IdKind::Customer.named(text))) {
        None => Ok(None),
        Some((_, Named::Id(id))) => Ok(Some(id)),
        Some((text, named)) => {
            let found = stored::find(&mut *app.store.reader().await?, &named).await?;
            Ok(Some(found.ok_or_else(|| IdKind::Customer.unknown(text))?.id))
        }
    }
}

/// Records an erasure outside of the database. If the gateway ends before the commit, the next start completes
/// it.
///
/// # Errors
/// Returns 503 or 507 when the file cannot be written. Nothing was recorded then.
async fn recorded(app: &AppState, erasure: Erasure) -> Result<Appended, Problem> {
    let data = app.config.data.clone();
    let appended = tokio::task::spawn_blocking(move || erased_ids::append(&data, &[erasure])).await;
    appended.map_err(Problem::internal)?.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Problem::busy("another customer is being erased: try again", 1),
        io::ErrorKind::StorageFull => Trouble::Full.into(),
        _ => {
            tracing::error!("{} cannot be written: {error}", app.config.data.join(ERASED_FILE).display());
            let detail = format!(
                "the file {ERASED_FILE} in the data directory of the gateway cannot be written ({error}), so that \
                 nothing was erased: its administrator has to look at the file"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_recorded", detail)
        }
    })
}

pub(super) async fn load(write: &mut ApiTx<'_>, customer: &str) -> Result<stored::Customer, Problem> {
    let found = stored::find(write.tx(), &IdKind::Customer.named(customer)).await?;
    found.ok_or_else(|| IdKind::Customer.unknown(customer).into())
}

async fn reference_is_free(write: &mut ApiTx<'_>, customer: &stored::Customer) -> Result<(), Problem> {
    let Some(external_ref) = &customer.external_ref else { return Ok(()) };
    let found = stored::find(write.tx(), &Named::Name(external_ref.clone())).await?;
    match found.filter(|found| found.id != customer.id) {
        None => Ok(()),
        Some(other) => {
            let id = IdKind::Customer.text(other.id);
            let detail =
                format!("external_ref: {id} has this reference: use that customer, or another reference");
            Err(Problem::conflict("external_ref_taken", detail))
        }
    }
}

/// Returns the customer after the request.
fn changed(before: &stored::Customer, change: CustomerChange) -> Result<stored::Customer, Problem> {
    let mut wrong = Fields::default();
    let mut after = before.clone();
    let mut set = Setter(&mut wrong);
    let external_ref = change.external_ref.map(|text| text.map(parse::external_ref).transpose());
    set.to(&mut after.external_ref, "external_ref", external_ref);
    set.to(&mut after.name, "name", change.name.map(fields::title));
    set.to(&mut after.contacts, "contacts", change.contacts.map(parse::contacts));
    wrong.finish()?;
    Ok(after)
}

/// Returns the names of what changed, for the event.
fn differences(before: &stored::Customer, after: &stored::Customer) -> Vec<&'static str> {
    let pairs = [
        ("external_ref", before.external_ref != after.external_ref),
        ("name", before.name != after.name),
        ("contacts", before.contacts != after.contacts),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn to_api(customer: &stored::Customer) -> Customer {
    let contact = |of: &stored::Contact| CustomerContact {
        name: of.name.clone(),
        email: of.email.clone(),
        phone: of.phone.clone(),
    };
    Customer {
        id: IdKind::Customer.text(customer.id),
        external_ref: customer.external_ref.clone(),
        name: customer.name.clone(),
        contacts: customer.contacts.iter().map(contact).collect(),
        created_at: ids::time(customer.created_at),
        version: customer.version,
    }
}
