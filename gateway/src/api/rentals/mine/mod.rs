//! The calls of the people and programs of customers: their rentals, and their own renters.
//!
//! Only the session of a person reaches these routes, and the token of a customer some of them. They reach no others.
//! All that is read of rentals goes through `store::rentals::mine`, which limits it to the caller and to the time of each
//! rental.

mod events;
mod login;
pub mod page;
mod types;
mod values;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use fleetgate_engine::messages::Excerpt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::renters::{self, By};
use super::{
    NewRenter, RentalSsh, Renter, RenterChange, RenterWithCredentials, access, addresses, delays, ssh,
};
use crate::api::AppState;
use crate::api::devices::NewCredentials;
use crate::api::request::extract::{Body, Path};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::person::{CustomerCaller, PersonCaller};
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::problem::Problem;
use crate::api::types::Metric;
use crate::sanitize::discreet;
use crate::store::rentals::Rental;
use crate::store::rentals::mine::{self as stored, Seen, SeenService, Visible};

pub use types::*;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(login::routes())
        .merge(events::routes())
        .merge(values::routes())
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(show_ssh))
        .routes(routes!(list_renters, create_renter))
        .routes(routes!(change_renter, remove_renter))
        .routes(routes!(reissue))
}

fn visible(who: impl Into<CustomerCaller>) -> Visible {
    let CustomerCaller { customer, person, .. } = who.into();
    Visible { customer, person, now: crate::clock::wall() }
}

/// The rentals of the customer that admit all renters or one of the person, those that begin last first; at most 100.
#[utoipa::path(get, path = "/my/rentals", operation_id = "list_my_rentals", tag = "rentals",
    security(("person" = []), ("customer" = [])), responses((status = 200, body = MyRentals)))]
async fn list(State(app): State<AppState>, who: CustomerCaller) -> Result<Json<MyRentals>, Problem> {
    let visible = visible(who);
    let rentals = stored::rentals(&mut *app.store.reader().await?, visible).await?;
    let mut items = Vec::with_capacity(rentals.len());
    for rental in &rentals {
        items.push(in_list(shown(&app, visible, rental).await?));
    }
    Ok(Json(MyRentals { items }))
}

/// A rental, with what changed within its time.
#[utoipa::path(get, path = "/my/rentals/{rental}", operation_id = "show_my_rental", tag = "rentals",
    security(("person" = []), ("customer" = [])), params(("rental" = String, Path, description = "id")),
    responses((status = 200, body = MyRental)))]
async fn show(
    State(app): State<AppState>,
    who: CustomerCaller,
    Path(rental): Path<String>,
) -> Result<Json<MyRental>, Problem> {
    let (id, visible) = (IdKind::Rental.parse(&rental)?, visible(who));
    let found = stored::rental(&mut *app.store.reader().await?, visible, id).await?;
    let found = found.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let changes = stored::changes(&app.store, visible, &found).await?;
    let change =
        |of: stored::Change| MyChange { at: ids::time(of.at), service: of.service, status: of.status };
    let changes_truncated = Some(changes.truncated);
    let changes = Some(changes.list.into_iter().map(change).collect());
    Ok(Json(MyRental { changes, changes_truncated, ..shown(&app, visible, &found).await? }))
}

/// How the person logs in to the device of a rental, with certificates for the SSH keys of the person's own renters.
///
/// The certificates are valid in the window of the rental, and are made anew by each call: read them again after a change
/// of the end or the device.
///
/// 409 `ssh_not_granted`: the rental has no SSH, or its device has no account for renters any more. 409 `rental_over`:
/// it has ended.
#[utoipa::path(get, path = "/my/rentals/{rental}/ssh", operation_id = "show_my_rental_ssh", tag = "rentals",
    security(("person" = [])), params(("rental" = String, Path, description = "id")),
    responses((status = 200, body = RentalSsh)))]
async fn show_ssh(
    State(app): State<AppState>,
    who: PersonCaller,
    Path(rental): Path<String>,
) -> Result<Json<RentalSsh>, Problem> {
    let (id, visible) = (IdKind::Rental.parse(&rental)?, visible(&who));
    let mut conn = app.store.reader().await?;
    let found = stored::rental(&mut conn, visible, id).await?;
    let found = found.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let renters = stored::renters(&mut conn, visible).await?;
    drop(conn);
    // The name of the device is the operator's.
    let none =
        || Problem::conflict("ssh_not_granted", format!("{rental} gives no SSH: ask where you booked"));
    Ok(Json(ssh::login(&app, &found, &renters).await?.ok_or_else(none)?))
}

async fn shown(app: &AppState, visible: Visible, rental: &Rental) -> Result<MyRental, Problem> {
    let seen = stored::device(&mut *app.store.reader().await?, visible, rental).await?;
    let life = &rental.life;
    Ok(MyRental {
        id: IdKind::Rental.text(rental.id),
        name: rental.name.clone(),
        addresses: rental.alias(visible.now).map(addresses).unwrap_or_default(),
        access: access::to_api(&rental.access),
        state: life.state(visible.now).name().to_owned(),
        from: ids::time(life.window.from()),
        until: ids::time(life.window.until()),
        time_zone: rental.time_zone.clone(),
        delayed: delayed(app, visible, rental).await?,
        ssh: rental.ssh,
        device: device(rental, seen.as_ref()),
        services: seen
            .map(|seen| seen.services.into_iter().map(|of| service(rental, of)).collect())
            .unwrap_or_default(),
        changes: None,
        changes_truncated: None,
    })
}

/// Cuts the outputs of a rental, of which a list may have thousands.
fn in_list(mut rental: MyRental) -> MyRental {
    for service in &mut rental.services {
        let excerpt = Excerpt::of(&service.output);
        service.truncated = excerpt.is_truncated();
        service.output = excerpt.to_string();
    }
    rental
}

fn device(rental: &Rental, seen: Option<&Seen>) -> MyDevice {
    MyDevice {
        name: rental.name.clone(),
        status: seen.map(|seen| seen.status.to_owned()),
        since: ids::time_if_known(seen.and_then(|seen| seen.since)),
    }
}

fn service(rental: &Rental, of: SeenService) -> MyService {
    MyService {
        name: of.name,
        status: of.status.to_owned(),
        since: ids::time_if_known(of.since),
        output: discreet(&of.output, &rental.device_name, &rental.name),
        truncated: false,
        metrics: of.metrics.iter().map(|metric| Metric::from(metric).into()).collect(),
    }
}

/// Says why a rental has not begun, each reason once. What operators read names the device and what was measured of it
/// before the rental.
async fn delayed(app: &AppState, visible: Visible, rental: &Rental) -> Result<Vec<String>, Problem> {
    let delays = delays(app, rental, visible.now).await?;
    let mut said = BTreeSet::new();
    let reasons = delays.iter().map(|delay| reason(&delay.kind)).filter(|reason| said.insert(*reason));
    Ok(reasons.map(ToOwned::to_owned).collect())
}

/// Returns the words for a kind of delay. That a device is with another customer is nothing for this one.
fn reason(kind: &str) -> &'static str {
    match kind {
        "not_ready" | "not_returned" => "the device is not ready",
        "ssh" => "the SSH login to the device is not ready",
        "blocked" => "the device is blocked",
        "not_dispatched" => "the device has not been sent yet",
        "not_arrived" => "the device is on its way",
        "device" => "the device does not answer",
        "service" => "a check of the device is not OK",
        _ => "the device is OK, and is handed over once it has been so for a while",
    }
}

/// Counts a change that the person makes.
fn changing<'a>(app: &AppState, who: &'a PersonCaller) -> Result<By<'a>, Problem> {
    app.rate_limits().change(who.person, crate::clock::now().mono)?;
    Ok(By::Person(who))
}

/// The renters of the person, or with a token of the customer all of them, by name.
#[utoipa::path(get, path = "/my/renters", operation_id = "list_my_renters", tag = "rentals",
    security(("person" = []), ("customer" = [])), responses((status = 200, body = MyRenters)))]
async fn list_renters(State(app): State<AppState>, who: CustomerCaller) -> Result<Json<MyRenters>, Problem> {
    let found = stored::renters(&mut *app.store.reader().await?, visible(who)).await?;
    Ok(Json(MyRenters { items: found.iter().map(|renter| renters::to_api(&app, renter)).collect() }))
}

/// Adds a renter of the person. Without a key of its own it gets a key pair, which is shown once and never stored.
#[utoipa::path(post, path = "/my/renters", operation_id = "create_my_renter", tag = "rentals",
    security(("person" = [])), request_body = NewMyRenter,
    responses((status = 201, body = RenterWithCredentials)))]
async fn create_renter(
    State(app): State<AppState>,
    who: PersonCaller,
    Body(new): Body<NewMyRenter>,
) -> Result<Response, Problem> {
    let NewMyRenter { name, public_key, ssh_keys } = new;
    let person = IdKind::Person.text(who.person);
    let new = NewRenter { person, name, public_key, ssh_keys, mtu: None };
    renters::added(&app, changing(&app, &who)?, new).await
}

/// Changes a renter of the person.
#[utoipa::path(patch, path = "/my/renters/{renter}", operation_id = "change_my_renter", tag = "rentals",
    security(("person" = [])), request_body = MyRenterChange,
    params(("renter" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Renter)))]
async fn change_renter(
    State(app): State<AppState>,
    who: PersonCaller,
    Path(renter): Path<String>,
    if_match: IfMatch,
    Body(change): Body<MyRenterChange>,
) -> Result<Tagged<Renter>, Problem> {
    let MyRenterChange { name, ssh_keys } = change;
    let change = RenterChange { name, ssh_keys, mtu: None };
    renters::altered(&app, changing(&app, &who)?, (&renter, &if_match), change).await
}

/// Removes a renter of the person. Its tunnel ends at once.
#[utoipa::path(delete, path = "/my/renters/{renter}", operation_id = "remove_my_renter", tag = "rentals",
    security(("person" = [])),
    params(("renter" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn remove_renter(
    State(app): State<AppState>,
    who: PersonCaller,
    Path(renter): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    renters::removed(&app, changing(&app, &who)?, &renter, &if_match).await
}

/// Issues new keys for a renter of the person. The previous keys stop working at once.
#[utoipa::path(post, path = "/my/renters/{renter}/credentials", operation_id = "reissue_my_renter_credentials",
    tag = "rentals", security(("person" = [])), request_body = NewCredentials,
    params(("renter" = String, Path, description = "id")),
    responses((status = 200, body = RenterWithCredentials)))]
async fn reissue(
    State(app): State<AppState>,
    who: PersonCaller,
    Path(renter): Path<String>,
    Body(new): Body<NewCredentials>,
) -> Result<Disclosed<RenterWithCredentials>, Problem> {
    renters::rekeyed(&app, changing(&app, &who)?, &renter, &new).await
}

#[cfg(test)]
mod tests {
    use super::super::DELAY_KINDS;
    use super::*;

    #[test]
    fn a_device_is_called_ok_only_when_nothing_else_keeps_it() {
        for kind in DELAY_KINDS {
            assert_eq!(reason(kind).contains("is OK, and"), kind == "settling", "{kind}");
        }
    }
}
