//! Shipped devices: that one has left for its renters, and that it is back.

use std::time::Duration;

use axum::extract::State;
use fleetgate_engine::id::RentalId;
use fleetgate_engine::rental::life::{Delivery, Shipment, State as RentalState};
use fleetgate_engine::rental::occupancy::Occupancy;
use fleetgate_engine::time::Wall;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::Rental;
use super::{begin_rental, change, gate_changed, load, to_api};
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::Path;
use crate::api::request::ids::IdKind;
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::problem::Problem;
use crate::store::rentals as stored;
use crate::store::rentals::occupancies::{self, Source};

/// The shortest time that a dispatched device is occupied before the window.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(dispatch)).routes(routes!(take_back))
}

/// Notes that the shipped device of a rental leaves for its renters now. From now on it is occupied.
///
/// 409 `not_shipped`: the device is mounted. 409 `already_dispatched`: it has left before. 409 `not_dispatchable`: the
/// rental is not confirmed, or has begun. 409 `device_in_use`: another rental has the device, or gets it before. 409
/// `device_blocked`: end the block first. 409 `rental_over`: it has ended.
#[utoipa::path(post, path = "/rentals/{rental}/dispatch", operation_id = "dispatch_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the call is meant for")),
    responses((status = 200, body = Rental)))]
async fn dispatch(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
) -> Result<Tagged<Rental>, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    let shipment = sendable(&before, now)?;
    is_here(&mut write, &before).await?;
    let mut after = before;
    after.life.delivery = Delivery::Shipped(Shipment { dispatched_at: Some(now), ..shipment });
    after.life.prepared_from = after.life.prepared_from.min(now);
    occupancies::begin_by(write.tx(), Source::Rental(after.id), now).await?;
    change::store(&mut write, &mut after, "rental.dispatched", &["state"]).await?;
    gate_changed(&mut write, after.device).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, now) })
}

/// # Errors
/// Returns 409 for a rental whose device is not to be sent now.
fn sendable(rental: &stored::Rental, now: Wall) -> Result<Shipment, Problem> {
    let state = change::is_open(rental, now)?;
    let shipment = shipped(rental)?;
    let name = IdKind::Rental.text(rental.id);
    if shipment.dispatched_at.is_some() {
        let detail = format!("{} was dispatched for {name} before", rental.device_name);
        return Err(Problem::conflict("already_dispatched", detail));
    }
    let why = match state {
        RentalState::Held => "is not confirmed: confirm its booking first",
        RentalState::Active => "has its device already",
        _ => return Ok(shipment),
    };
    Err(Problem::conflict("not_dispatchable", format!("{name} {why}")))
}

/// # Errors
/// Returns 409 for a rental of a device that stays in its place.
fn shipped(rental: &stored::Rental) -> Result<Shipment, Problem> {
    rental.life.delivery.shipment().ok_or_else(|| {
        let detail = format!(
            "{} is mounted, and is neither dispatched nor returned: a rental takes the delivery that its device has when \
             it is booked",
            rental.device_name
        );
        Problem::conflict("not_shipped", detail)
    })
}

/// # Errors
/// Returns 409 while another rental has the device or is to get it before this one, and while it is blocked.
async fn is_here(write: &mut ApiTx<'_>, rental: &stored::Rental) -> Result<(), Problem> {
    let (now, device) = (write.now, rental.device);
    let until = rental.life.prepared_from.max(now + MOMENT);
    let wanted = Occupancy { from: now, until: Some(until) };
    let taken = occupancies::of_devices(write.tx(), &[device], now).await?;
    let taken = taken.get(&device).into_iter().flatten();
    for taken in taken.filter(|taken| taken.occupancy.overlaps(wanted)) {
        match taken.source {
            Source::Rental(other) if other == rental.id => {}
            Source::Rental(other) => is_done(write, rental, other).await?,
            Source::Block(_) => {
                let detail = format!(
                    "{} is blocked now, or before its preparation: end the block first",
                    rental.device_name
                );
                return Err(Problem::conflict("device_blocked", detail));
            }
        }
    }
    Ok(())
}

/// A device that is only cleaned may leave: whoever sends it has cleaned it.
async fn is_done(write: &mut ApiTx<'_>, rental: &stored::Rental, other: RentalId) -> Result<(), Problem> {
    let now = write.now;
    let Some(found) = stored::find(write.tx(), other).await? else { return Ok(()) };
    let (name, device, other) =
        (IdKind::Rental.text(rental.id), &rental.device_name, IdKind::Rental.text(other));
    let detail = match found.life.state(now) {
        state if state.awaits_return() => {
            format!("{device} has not come back from {other}: POST /rentals/{other}/return when it has")
        }
        state if state.is_open() => format!("{other} has {device} before {name}: end or cancel it first"),
        _ => return Ok(()),
    };
    Err(Problem::conflict("device_in_use", detail))
}

/// Notes that the shipped device of a rental is back now. Its turnaround begins.
///
/// 409 `not_shipped`: the device is mounted. 409 `not_dispatched`: it has not left. 409 `already_returned`: it came back
/// before. 409 `rental_not_over`: end or cancel the rental first.
#[utoipa::path(post, path = "/rentals/{rental}/return", operation_id = "return_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the call is meant for")),
    responses((status = 200, body = Rental)))]
async fn take_back(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
) -> Result<Tagged<Rental>, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    let shipment = returnable(&before, now)?;
    let mut after = before;
    after.life.delivery = Delivery::Shipped(Shipment { returned_at: Some(now), ..shipment });
    let free_from = now + after.life.turnaround;
    occupancies::set_until(write.tx(), Source::Rental(after.id), free_from).await?;
    change::store(&mut write, &mut after, "rental.returned", &["state"]).await?;
    gate_changed(&mut write, after.device).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, now) })
}

/// # Errors
/// Returns 409 for a rental whose device is not awaited.
fn returnable(rental: &stored::Rental, now: Wall) -> Result<Shipment, Problem> {
    let shipment = shipped(rental)?;
    let (name, device) = (IdKind::Rental.text(rental.id), &rental.device_name);
    let (code, detail) = match shipment {
        Shipment { dispatched_at: None, .. } => {
            ("not_dispatched", format!("{device} was not dispatched for {name}"))
        }
        Shipment { returned_at: Some(_), .. } => {
            ("already_returned", format!("{device} came back from {name} before"))
        }
        shipment if rental.life.state(now).awaits_return() => return Ok(shipment),
        _ => {
            let how = if rental.life.state(now).has_begun() { "end" } else { "cancel" };
            ("rental_not_over", format!("{name} has not ended: POST /rentals/{name}/{how} first"))
        }
    };
    Err(Problem::conflict(code, detail))
}
