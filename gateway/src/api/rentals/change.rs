//! Changes of a rental: another end, device, name, access, SSH, allowance, contacts, thresholds or maintenance, its
//! cancellation and its end.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::GrantAccess;
use fleetgate_engine::rental::device_access::Obstacle;
use fleetgate_engine::rental::life::{EndReason, Ending, State as RentalState};
use fleetgate_engine::rental::maintenance::{self as planned, Maintenance};
use fleetgate_engine::rental::occupancy::{self, Occupancy, Window};
use fleetgate_engine::time::Wall;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::allocate::{self, Refusal};
use super::types::{Rental, RentalChange, RentalEnd};
use super::{
    access, allowance, begin_rental, contacts, device_upkeep, load, maintenance, note, other_devices, parse,
    ssh, thresholds, to_api,
};
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind, Named};
use crate::api::request::parse::{self as fields, Fields};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged, header_value};
use crate::api::response::problem::{Conflict, Problem};
use crate::api::{AppState, devices};
use crate::store::rentals::allowances::Allowance;
use crate::store::rentals::contacts::Contact;
use crate::store::rentals::customers;
use crate::store::rentals::device_choices::DeviceChoice;
use crate::store::rentals::devices::Candidate;
use crate::store::rentals::handovers;
use crate::store::rentals::occupancies::{self, Source};
use crate::store::rentals::thresholds::Limits;
use crate::store::rentals::{self as stored, devices as renting};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(change)).routes(routes!(cancel)).routes(routes!(end))
}

/// Changes the end, the device, the name, the access, SSH, the allowance, the contacts, the thresholds or the maintenance of
/// a rental. Name and addresses stay with another device, and so do thresholds and maintenance.
///
/// `until` is the new end and no difference, so that a repetition extends nothing twice. Planned maintenance beyond it is
/// removed, and a later end does not bring it back. 409 `occupied`: what
/// follows on the device begins before; `conflict.latest_until` is the latest end that is possible. 409
/// `access_not_allowed`: another device does not allow the access or SSH of the rental. 409 `already_dispatched`: its
/// device is on the way to the renters, and is not replaced. 409 `device_not_ready`: the rental is active, and another
/// device is not ready, not cleaned, or still has the access of former renters. 409 `rental_over`: it has ended.
#[utoipa::path(patch, path = "/rentals/{rental}", operation_id = "change_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = RentalChange,
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Rental)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
    Body(change): Body<RentalChange>,
) -> Result<Tagged<Rental>, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    is_open(&before, now)?;
    let draft = Draft::of(change, &before, now)?;
    let mut after = before.clone();
    if let Some(window) = draft.window {
        after.life.window = window;
        after.maintenance = planned::before(after.maintenance, window.until());
    }
    after.allowance = draft.allowance;
    after.choice = draft.choice.clone();
    match &draft.device {
        Some(device) => swap(&mut write, &before, &mut after, device).await?,
        None => set_end(&mut write, &before, &after).await?,
    }
    admit(&mut write, &before, &mut after, draft).await?;
    if after != before {
        let changed = differences(&before, &after);
        store(&mut write, &mut after, "rental.changed", &changed).await?;
    }
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, now) })
}

/// A change that is valid apart from what it names.
struct Draft {
    window: Option<Window>,
    device: Option<String>,
    name: Option<String>,
    access: Option<Vec<GrantAccess>>,
    ssh: Option<bool>,
    admits: Option<Option<BTreeSet<PeerId>>>,
    /// That of the rental after the change.
    allowance: Option<Allowance>,
    /// Likewise.
    choice: DeviceChoice,
    contacts: Option<Vec<Contact>>,
    thresholds: Option<Limits>,
    maintenance: Option<Vec<Maintenance>>,
}

impl Draft {
    /// # Errors
    /// Returns 422 with every wrong field.
    fn of(change: RentalChange, before: &stored::Rental, now: Wall) -> Result<Draft, Problem> {
        let mut wrong = Fields::default();
        let end = |text: &str| {
            let until = parse::moment(text)?;
            parse::end(before.life.window.from(), until, now)
        };
        let allowance = (change.allowance_bytes, change.cut_at_allowance);
        let allowance = allowance::changed(&mut wrong, before.allowance, allowance);
        let choice = other_devices::changed(&before.choice, change.other_device_after_s);
        let admits = change.renters.map(|list| list.map(access::renters_named).transpose());
        let window = change.until.and_then(|text| wrong.take("until", end(&text)));
        let within = window.unwrap_or(before.life.window);
        let draft = Draft {
            window,
            device: change.device,
            name: change.name.and_then(|name| wrong.take("name", access::name(name))),
            access: change.access.and_then(|list| access::access(&mut wrong, "", list)),
            ssh: change.ssh,
            admits: admits.and_then(|admits| wrong.take("renters", admits)),
            allowance: allowance.flatten(),
            choice: wrong.take("other_device_after_s", choice).unwrap_or_default(),
            contacts: change.contacts.and_then(|list| contacts::contacts(&mut wrong, "contacts", list)),
            thresholds: change
                .thresholds
                .and_then(|list| thresholds::thresholds(&mut wrong, "thresholds", list)),
            maintenance: change
                .maintenance
                .and_then(|list| maintenance::maintenance(&mut wrong, "maintenance", list, Some(within))),
        };
        wrong.finish()?;
        Ok(draft)
    }
}

/// Sets who reaches the device, what of it, under which name, who gets messages about it, when it is in trouble, and when
/// in maintenance.
async fn admit(
    write: &mut ApiTx<'_>,
    before: &stored::Rental,
    after: &mut stored::Rental,
    draft: Draft,
) -> Result<(), Problem> {
    if let Some(contacts) = draft.contacts {
        if !contacts.is_empty() && is_erased(write, before).await? {
            // Nothing would erase them.
            return Err(Problem::invalid("contacts", "none are expected, because the customer was erased"));
        }
        after.contacts = contacts;
    }
    if let Some(maintenance) = draft.maintenance {
        let says_something = maintenance.iter().any(|of| !of.comment.is_empty());
        if says_something && is_erased(write, before).await? {
            let expected = "no comment is expected, because the customer was erased";
            return Err(Problem::invalid("maintenance", expected));
        }
        after.maintenance = maintenance;
    }
    after.thresholds = draft.thresholds.unwrap_or_else(|| before.thresholds.clone());
    if let Some(name) = draft.name.filter(|name| *name != before.name) {
        if is_erased(write, before).await? {
            return Err(Problem::invalid("name", "none is expected, because the customer was erased"));
        }
        access::name_is_free(write, before.customer, &name).await?;
        after.name = name;
    }
    if let Some(admits) = draft.admits {
        access::must_be_renters(write, before.customer, ("renters", admits.as_ref())).await?;
        after.admits = admits;
    }
    let given = (draft.access.is_some(), draft.ssh.is_some());
    after.access = draft.access.unwrap_or_else(|| before.access.clone());
    after.ssh = draft.ssh.unwrap_or(before.ssh);
    if (&after.access, after.ssh, after.device) == (&before.access, before.ssh, before.device) {
        return Ok(());
    }
    device_allows(write, after, given).await
}

/// Whether the customer was erased: a restore may bring the rental back.
async fn is_erased(write: &mut ApiTx<'_>, rental: &stored::Rental) -> Result<bool, Problem> {
    Ok(customers::find(write.tx(), &Named::Id(rental.customer)).await?.is_none())
}

/// # Errors
/// Returns 422 for access or SSH that the call names and the device does not allow, and 409 when the rental has it from
/// before.
async fn device_allows(
    write: &mut ApiTx<'_>,
    after: &stored::Rental,
    (access_is_given, ssh_is_given): (bool, bool),
) -> Result<(), Problem> {
    let device = renting::settings(write.tx(), after.device).await?;
    if let Some(why) = access::beyond(&after.device_name, &after.access, &device.access) {
        let field = access_is_given.then_some("access");
        return Err(not_allowed(field, &why, "change the access of the rental as well"));
    }
    if !after.ssh {
        return Ok(());
    }
    let port = renting::ssh_server(write.tx(), after.device).await?.port;
    let (mode, login) = (device.ssh_mode, device.ssh_account);
    // A helper that does not answer for a while is no obstacle to other changes.
    let port = login.filter(|_| mode.is_some() || !ssh_is_given).map(|_| port);
    let given = [(ssh_is_given, "ssh"), (access_is_given, "access")];
    let field = given.into_iter().find_map(|(is_given, field)| is_given.then_some(field));
    match ssh::not_possible(&after.device_name, port, &after.access) {
        None => Ok(()),
        Some(why) => Err(not_allowed(field, &why, "take SSH away from the rental as well")),
    }
}

fn not_allowed(field: Option<&str>, why: &str, otherwise: &str) -> Problem {
    match field {
        Some(field) => Problem::invalid(field, why),
        None => {
            let detail = format!("{why}: take another device, or {otherwise}");
            Problem::conflict("access_not_allowed", detail)
        }
    }
}

fn differences(before: &stored::Rental, after: &stored::Rental) -> Vec<&'static str> {
    let pairs = [
        ("until", before.life.window != after.life.window),
        ("device", before.device != after.device),
        ("name", before.name != after.name),
        ("access", before.access != after.access),
        ("ssh", before.ssh != after.ssh),
        ("renters", before.admits != after.admits),
        ("allowance", before.allowance != after.allowance),
        ("other_device_after", before.choice.other_after != after.choice.other_after),
        ("contacts", before.contacts != after.contacts),
        ("thresholds", before.thresholds != after.thresholds),
        ("maintenance", before.maintenance != after.maintenance),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

pub(super) async fn store(
    write: &mut ApiTx<'_>,
    after: &mut stored::Rental,
    kind: &str,
    changed: &[&str],
) -> Result<(), Problem> {
    let now = write.now;
    stored::update(write.tx(), after, now).await?;
    after.version += 1;
    write.rental(after.id);
    note(write, kind, after, changed).await
}

/// # Errors
/// Returns 409 for a rental that has ended.
pub(super) fn is_open(rental: &stored::Rental, now: Wall) -> Result<RentalState, Problem> {
    let state = rental.life.state(now);
    if state.is_open() {
        return Ok(state);
    }
    let is_cancelled = rental.life.ending.is_some_and(|ending| ending.reason == EndReason::Cancelled);
    let what = match state {
        RentalState::Cancelled if is_cancelled => "was cancelled",
        RentalState::Cancelled => "was not confirmed in time",
        RentalState::Failed => "has failed",
        _ => "has ended",
    };
    let detail = format!("{} {what}: book again", IdKind::Rental.text(rental.id));
    Err(Problem::conflict("rental_over", detail))
}

/// Returns what occupies a device besides this rental.
async fn occupied_by_others(
    write: &mut ApiTx<'_>,
    device: HostId,
    but: Option<Id>,
) -> Result<Vec<Occupancy>, Problem> {
    let now = write.now;
    let taken = occupancies::of_devices(write.tx(), &[device], now).await?;
    let taken = taken.get(&device).into_iter().flatten();
    let others = taken.filter(|taken| but.is_none_or(|rental| taken.source != Source::Rental(rental)));
    Ok(others.map(|taken| taken.occupancy).collect())
}

/// Moves the end on the present device.
async fn set_end(
    write: &mut ApiTx<'_>,
    before: &stored::Rental,
    after: &stored::Rental,
) -> Result<(), Problem> {
    let (present, until) = (before.life.window, after.life.window.until());
    let turnaround = before.life.turnaround;
    if until > present.until() {
        let others = occupied_by_others(write, before.device, Some(before.id)).await?;
        let extra = occupancy::extension(present, until, turnaround);
        if let Some(found) = occupancy::conflict(&others, extra) {
            return Err(too_late(before, &others, found));
        }
    }
    if until != present.until() {
        occupancies::set_until(write.tx(), Source::Rental(before.id), until + turnaround).await?;
    }
    Ok(())
}

fn too_late(rental: &stored::Rental, others: &[Occupancy], found: Occupancy) -> Problem {
    let mut conflict = Conflict::default();
    let detail = allocate::of_device(&mut conflict, rental.device, &rental.device_name, found);
    let latest = occupancy::latest_until(others, rental.life.window, rental.life.turnaround);
    conflict.latest_until = latest.map(ids::time);
    let latest = conflict.latest_until.clone().unwrap_or_default();
    Problem::occupied(format!("{detail}; the latest end that is possible is {latest}"), conflict)
}

/// Moves what is left of a rental to another device. One that was in use needs its turnaround. A refusal writes nothing.
pub(super) async fn swap(
    write: &mut ApiTx<'_>,
    before: &stored::Rental,
    after: &mut stored::Rental,
    text: &str,
) -> Result<(), Problem> {
    let found = devices::load(write.tx(), IdKind::Host.named(text)).await;
    let found = found.map_err(|e| e.in_field("device"))?;
    if found.id == before.device {
        return set_end(write, before, after).await;
    }
    if before.life.is_away() {
        let (name, device) = (IdKind::Rental.text(before.id), &before.device_name);
        let detail = format!("{device} is dispatched for {name}: end or cancel the rental, and book again");
        return Err(Problem::conflict("already_dispatched", detail));
    }
    let (now, window) = (write.now, after.life.window);
    let device = allocate::candidate(write, found.id, &found.settings.name).await?;
    let state = before.life.state(now);
    if state == RentalState::Active && device.delivery.is_shipped() {
        // It would be in use in its depot, and neither be sent nor awaited.
        let detail = format!(
            "{} is shipped, and the rental is active: take a mounted device, or end the rental and book again",
            device.name
        );
        return Err(Problem::invalid("device", detail));
    }
    if state == RentalState::Active {
        must_be_ready(write, &device, before.id).await?;
    }
    let rest = Window::new(window.from().max(now), window.until());
    let rest =
        rest.ok_or_else(|| Problem::invalid("until", "is over already: a time to come is expected"))?;
    let occupied = device.margins.around(rest, now);
    let taken = occupied_by_others(write, device.id, None).await?;
    allocate::has_room(taken.len(), &device.name)?;
    if let Some(conflict) = occupancy::conflict(&taken, occupied) {
        let mut refusal = Refusal::default();
        refusal.add(&device, conflict, &taken, (rest, now));
        return Err(refusal.problem(true, rest, None));
    }
    let source = Source::Rental(before.id);
    if state == RentalState::Active {
        occupancies::set_until(write.tx(), source, now + before.life.turnaround).await?;
    } else {
        occupancies::remove(write.tx(), source).await?;
    }
    if !state.has_begun() {
        after.life.prepared_from = occupied.from;
        after.life.handover =
            handovers::of_device(write.tx(), device.id, device.delivery, window.from()).await?;
    }
    occupancies::insert(write.tx(), device.id, source, occupied).await?;
    after.life.delivery = device.delivery;
    after.life.turnaround = device.margins.turnaround;
    after.preparation = device.margins.preparation;
    (after.device, after.device_name) = (device.id, device.name);
    Ok(())
}

/// Refuses a device that an active rental would get as former renters left it: no gate follows.
///
/// # Errors
/// Returns 409 with what is in the way.
async fn must_be_ready(write: &mut ApiTx<'_>, device: &Candidate, rental: Id) -> Result<(), Problem> {
    let now = write.now;
    let reason = handovers::not_ready(write.tx(), device.id).await?;
    let obstacle = handovers::obstacle_of(write.tx(), device.id, Some(rental), now).await?;
    // The renters get their login after the swap.
    let obstacle = obstacle.filter(|(obstacle, _)| *obstacle != Obstacle::NotGranted);
    let upkeep = obstacle.map(|(obstacle, failure)| device_upkeep::in_words(obstacle, failure.as_deref()));
    let Some(why) = reason.or(upkeep) else { return Ok(()) };
    let name = &device.name;
    let detail =
        format!("{name} is not ready, and the rental is active: {why}; wait, or take another device");
    Err(Problem::conflict("device_not_ready", detail))
}

/// Cancels a rental that has not begun. Its device is free at once.
///
/// 409 `rental_begun`: it has begun; end it. 409 `rental_over`: it has ended.
#[utoipa::path(post, path = "/rentals/{rental}/cancel", operation_id = "cancel_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the cancellation is meant for")),
    responses((status = 200, body = Rental)))]
async fn cancel(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
) -> Result<Tagged<Rental>, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    if is_open(&before, now)?.has_begun() {
        let detail = format!("{rental} has begun: POST /rentals/{rental}/end ends it");
        return Err(Problem::conflict("rental_begun", detail));
    }
    let mut after = before;
    after.life.ending = Some(Ending { at: now, reason: EndReason::Cancelled });
    // A device that is away is free once it is back.
    if !after.life.is_away() {
        occupancies::remove(write.tx(), Source::Rental(after.id)).await?;
    }
    store(&mut write, &mut after, "rental.cancelled", &["state"]).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, now) })
}

/// Ends a rental that has begun, now. The turnaround of its device begins.
///
/// 409 `rental_not_begun`: it has not begun; cancel it. 409 `rental_over`: it has ended.
#[utoipa::path(post, path = "/rentals/{rental}/end", operation_id = "end_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = RentalEnd,
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the end is meant for")),
    responses((status = 200, body = Rental)))]
async fn end(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
    Body(end): Body<RentalEnd>,
) -> Result<Response, Problem> {
    let mut wrong = Fields::default();
    let reason = wrong.take("reason", reason(&end.reason));
    let note = wrong.take("note", fields::title(end.note)).unwrap_or_default();
    wrong.finish()?;
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    if !is_open(&before, now)?.has_begun() {
        let detail = format!("{rental} has not begun: POST /rentals/{rental}/cancel cancels it");
        return Err(Problem::conflict("rental_not_begun", detail));
    }
    let mut after = before;
    after.life.ending = reason.map(|reason| Ending { at: now, reason });
    after.end_note = note;
    let free_from = now + after.life.turnaround;
    occupancies::set_until(write.tx(), Source::Rental(after.id), free_from).await?;
    store(&mut write, &mut after, "rental.ended", &["state"]).await?;
    write.commit().await?;
    let once = to_api(&after, now);
    // The note goes when the customer is erased, so no stored answer has it.
    let again = Rental { end_note: None, ..once.clone() };
    let tag = [(header::ETAG, header_value(after.version))];
    Ok((tag, Disclosed { status: StatusCode::OK, once, again }).into_response())
}

fn reason(name: &str) -> Result<EndReason, String> {
    let found = EndReason::AFTER_BEGIN.into_iter().find(|reason| reason.name() == name);
    let names = EndReason::AFTER_BEGIN.map(EndReason::name).join(", ");
    found.ok_or_else(|| format!("one of {names} is expected"))
}
