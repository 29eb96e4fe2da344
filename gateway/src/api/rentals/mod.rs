//! Rentals: devices in windows of time, which customers book.
//!
//! The transaction that writes also decides. Events have ids and no personal data.

mod access;
mod allocate;
mod allowance;
mod availability;
mod blocks;
mod bookings;
mod change;
mod contacts;
mod customers;
mod device_types;
mod device_upkeep;
mod events;
mod handovers;
mod maintenance;
pub(crate) mod mine;
mod other_devices;
mod parse;
mod people;
mod people_types;
mod renters;
pub(crate) mod report;
mod settings;
mod shipments;
mod ssh;
mod ssh_keys;
mod subscriptions;
mod terms;
mod thresholds;
mod types;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::rental::life;
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts;
use super::request::auth::{Author, Principal};
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::request::transaction::ApiTx;
use super::response::etag::Tagged;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::restore_review;
use super::types::{Page, names, not_empty};
use crate::store::devices::Device;
use crate::store::events::Object;
use crate::store::instance;
use crate::store::rentals::aliases::Alias;
use crate::store::rentals::changes::{self, NewChange, What};
use crate::store::rentals::{self as stored, occupancies};

pub(super) use access::words as access_in_words;
pub use device_types::*;
pub(super) use device_upkeep::{is_no_renter, removed_with};
pub use events::{RentalEvent, RentalEventPage, event_body};
pub(super) use handovers::{DELAY_KINDS, delays};
pub(crate) use other_devices::swap_delayed;
pub use people_types::*;
pub use ssh::{RentalCertificate, RentalSsh};
pub use subscriptions::{Subscription, SubscriptionWithSecret};
pub(crate) use terms::terms_in_form;
pub(super) use terms::{WITHOUT, terms, terms_to_api};
pub use types::*;

/// Rentals that one refusal names.
const MAX_NAMED: i64 = 20;
/// The occupancies of all devices, now and later: years of a large fleet.
const MAX_OCCUPANCIES: i64 = 50_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .merge(availability::routes())
        .merge(blocks::routes())
        .merge(bookings::routes())
        .merge(change::routes())
        .merge(customers::routes())
        .merge(events::routes())
        .merge(handovers::routes())
        .merge(mine::routes())
        .merge(people::routes())
        .merge(renters::routes())
        .merge(report::routes())
        .merge(settings::routes())
        .merge(ssh::routes())
        .merge(shipments::routes())
        .merge(subscriptions::routes())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of the booking with this `external_ref`.
    external_ref: Option<String>,
    /// Only those of this device (name or id).
    device: Option<String>,
    /// Only those of this customer (id or `external_ref`).
    customer: Option<String>,
    /// Only those in this state.
    #[param(value_type = Option<names::RentalState>)]
    state: Option<String>,
    /// Only those whose window ends after it; RFC 3339 with an offset.
    from: Option<String>,
    /// Only those whose window begins before it; RFC 3339 with an offset.
    to: Option<String>,
}

/// Rentals, the newest first.
#[utoipa::path(get, path = "/rentals", operation_id = "list_rentals", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Rental>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Rental>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let now = crate::clock::wall();
    let customer = customers::wanted(&app, wanted.customer.as_deref()).await?;
    let mut conn = app.store.reader().await?;
    let device = match &wanted.device {
        Some(device) => Some(hosts::load_ever(&mut conn, IdKind::Host.named(device)).await?.id),
        None => None,
    };
    let filter = stored::Filter {
        external_ref: wanted.external_ref.as_deref(),
        device,
        customer,
        state: wanted.state.as_deref().map(state_named).transpose()?,
        from: query_time("from", wanted.from.as_deref())?,
        to: query_time("to", wanted.to.as_deref())?,
    };
    let rows = stored::list(&mut conn, filter, now, (before, limit + 1)).await?;
    Ok(Json(Page::of_entries(rows, limit, |r| r.id.as_i64().to_string(), |r| to_api(&r, now))))
}

fn state_named(name: &str) -> Result<life::State, Problem> {
    let found = life::State::ALL.into_iter().find(|state| state.name() == name);
    found.ok_or_else(|| {
        let names = life::State::ALL.map(life::State::name).join(", ");
        let shown: String = name.chars().take(80).collect();
        Problem::bad_request("bad_query", format!("state: {shown:?} is not allowed: use {names}"))
    })
}

fn query_time(name: &str, text: Option<&str>) -> Result<Option<Wall>, Problem> {
    let wrong = |detail: String| Problem::bad_request("bad_query", format!("{name}: {detail}"));
    text.map(|text| parse::moment(text).map_err(wrong)).transpose()
}

/// A rental.
#[utoipa::path(get, path = "/rentals/{rental}", operation_id = "show_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("rental" = String, Path, description = "id")),
    responses((status = 200, body = Rental)))]
async fn show(State(app): State<AppState>, Path(rental): Path<String>) -> Result<Tagged<Rental>, Problem> {
    let id = IdKind::Rental.parse(&rental)?;
    let found = stored::find(&mut *app.store.reader().await?, id).await?;
    let found = found.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let now = crate::clock::wall();
    let delayed = delays(&app, &found, now).await?;
    let contacts = contacts::to_api(&found.contacts);
    let maintenance = maintenance::to_api(&found.maintenance);
    let value = Rental { delayed, contacts, maintenance, ..to_api(&found, now) };
    Ok(Tagged { version: found.version, value })
}

/// Begins a change. Bookings that were not confirmed in time end first. What this and the change bring is
/// announced and sent after the commit.
async fn begin<'a>(app: &'a AppState, who: &impl Author) -> Result<ApiTx<'a>, Problem> {
    let mut write = ApiTx::begin(app, who).await?;
    write.wakes_rental_events();
    let now = write.now;
    crate::store::rentals::bookings::lapse(write.tx(), now).await?;
    Ok(write)
}

/// Begins a change of a booking or a rental. After a restore it waits for an admin: what was booked or ended
/// after the backup is unknown here.
async fn begin_rental<'a>(app: &'a AppState, who: &Principal) -> Result<ApiTx<'a>, Problem> {
    let mut write = begin(app, who).await?;
    match instance::unconfirmed(write.tx()).await? {
        None => Ok(write),
        Some(restored_at) => Err(restore_review::unconfirmed(restored_at)),
    }
}

/// Notes that what keeps a device from being handed over has changed.
async fn gate_changed(write: &mut ApiTx<'_>, device: HostId) -> Result<(), Problem> {
    let now = write.now;
    stored::handovers::settle(write.tx(), &[device].into(), now).await?;
    let rentals = stored::policy::of_devices(write.tx(), &[device].into()).await?;
    rentals.into_iter().for_each(|rental| write.rental(rental));
    Ok(())
}

/// Bounds what one decision reads.
async fn has_room(write: &mut ApiTx<'_>, items: usize) -> Result<(), Problem> {
    let now = write.now;
    let taken = occupancies::count(write.tx(), now).await?;
    if taken.saturating_add(i64::try_from(items).unwrap_or(i64::MAX)) <= MAX_OCCUPANCIES {
        return Ok(());
    }
    let detail = format!("at most {MAX_OCCUPANCIES} rentals and blocks may be open or planned: end some");
    Err(Problem::limit_reached(detail))
}

async fn load(write: &mut ApiTx<'_>, rental: &str) -> Result<stored::Rental, Problem> {
    let found = stored::find(write.tx(), IdKind::Rental.parse(rental)?).await?;
    found.ok_or_else(|| IdKind::Rental.unknown(rental).into())
}

/// Refuses to end what open rentals need.
///
/// # Errors
/// Returns 409 with these rentals.
async fn none_is_open(write: &mut ApiTx<'_>, of: stored::Of, what: &str) -> Result<(), Problem> {
    let now = write.now;
    let open = stored::open_of(write.tx(), of, now, MAX_NAMED).await?;
    if open.is_empty() {
        return Ok(());
    }
    let rentals: Vec<String> = open.into_iter().map(|rental| IdKind::Rental.text(rental)).collect();
    let detail = format!("{what} cancel or end its rentals first: {}", rentals.join(", "));
    Err(Problem::of_rentals("rentals_open", detail, rentals))
}

/// Refuses to remove a device with open rentals, to make it not rentable, and to add a host behind it,
/// which would be rented with it.
///
/// # Errors
/// Returns 409 with these rentals.
pub(super) async fn none_of_device(write: &mut ApiTx<'_>, device: HostId, name: &str) -> Result<(), Problem> {
    none_is_open(write, stored::Of::Device(device), &format!("{name} is rented:")).await
}

/// Refuses new keys of a device during a rental, unless they are forced: renters reach nothing until they are
/// installed.
///
/// # Errors
/// Returns 409 with the rental.
pub(super) async fn may_be_rekeyed(
    write: &mut ApiTx<'_>,
    device: &Device,
    force: bool,
) -> Result<(), Problem> {
    if force {
        return Ok(());
    }
    let name = &device.settings.name;
    let what = format!("{name} is in use, and new keys interrupt its rental: replace them with force, or");
    none_is_open(write, stored::Of::DeviceInUse(device.id), &what).await
}

/// Ends the blocks of a device that is removed. Nobody could end them later, and they would count.
pub(super) async fn end_blocks(write: &mut ApiTx<'_>, device: HostId) -> Result<(), Problem> {
    let (by, now) = (write.by.clone(), write.now);
    Ok(stored::blocks::end_all(write.tx(), device, now, &by).await?)
}

/// Keeps what is done with rentals, for their reports. Only a change has names of what is different.
async fn keep(write: &mut ApiTx<'_>, rentals: &[Id], what: What, changed: &[&str]) -> Result<(), Problem> {
    let (author, at) = (write.by.clone(), write.now);
    let changed = if what == What::Changed { changed } else { &[] };
    let change = NewChange { at, author: &author, what, changed };
    Ok(changes::insert(write.tx(), rentals, &change).await?)
}

/// Writes an event about a rental.
async fn note(
    write: &mut ApiTx<'_>,
    kind: &str,
    rental: &stored::Rental,
    changed: &[&str],
) -> Result<(), Problem> {
    let mut data = json!({
        "id": IdKind::Rental.text(rental.id), "booking": IdKind::Booking.text(rental.booking),
        "customer": IdKind::Customer.text(rental.customer), "device": IdKind::Host.text(rental.device),
        "from": ids::time(rental.life.window.from()), "until": ids::time(rental.life.window.until()),
        "changed": changed, "version": rental.version,
    });
    if let Some(ending) = rental.life.ending {
        data["reason"] = ending.reason.name().into();
    }
    let cause = kind.rsplit('.').next().unwrap_or_default();
    // A change is called as its event.
    let what = What::ALL.into_iter().find(|what| what.name() == cause).unwrap_or(What::Changed);
    keep(write, &[rental.id], what, changed).await?;
    write.event(kind, (Object::Rental, rental.id), cause, data).await
}

/// Returns different ids in their order. Rows of one call have the same time in their ids.
fn new_ids(count: usize, now: Wall) -> Vec<Id> {
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < count {
        ids.insert(ids::new_id(now));
    }
    ids.into_iter().collect()
}

fn to_api(rental: &stored::Rental, now: Wall) -> Rental {
    let life = &rental.life;
    let (by_time, ended_at) = ended(life, now);
    let shipment = life.delivery.shipment().unwrap_or_default();
    Rental {
        id: IdKind::Rental.text(rental.id),
        booking: IdKind::Booking.text(rental.booking),
        customer: IdKind::Customer.text(rental.customer),
        external_ref: rental.external_ref.clone(),
        device: IdKind::Host.text(rental.device),
        device_name: rental.device_name.clone(),
        labels: rental.choice.labels.clone(),
        profile: rental.choice.profile.clone(),
        other_device_after_s: rental.choice.other_after.map(|after| after.as_secs_f64()),
        name: rental.name.clone(),
        addresses: rental.alias(now).map(addresses).unwrap_or_default(),
        access: access::to_api(&rental.access),
        ssh: rental.ssh,
        renters: rental
            .admits
            .as_ref()
            .map(|admits| admits.iter().map(|id| IdKind::Renter.text(*id)).collect()),
        allowance_bytes: rental.allowance.map(|allowance| allowance.bytes),
        cut_at_allowance: rental.allowance.is_some_and(|allowance| allowance.cuts),
        forwarded_bytes: rental.forwarded_bytes,
        from: ids::time(life.window.from()),
        until: ids::time(life.window.until()),
        occupied_from: ids::time(life.prepared_from),
        occupied_until: life.occupied_until(now).map(ids::time),
        state: life.state(now).name().to_owned(),
        awaits_handover: life.handover.is_awaited(),
        handed_over_at: life.handover.done_at().map(ids::time),
        delayed: Vec::new(),
        delivery: life.delivery.name().to_owned(),
        dispatched_at: shipment.dispatched_at.map(ids::time),
        first_contact_at: shipment.first_contact_at.map(ids::time),
        returned_at: shipment.returned_at.map(ids::time),
        // Only a rental that is asked for has them: answers to calls are kept for repetitions.
        contacts: Vec::new(),
        thresholds: thresholds::to_api(&rental.thresholds),
        maintenance: maintenance::without_comments(&rental.maintenance),
        ended_at: ended_at.map(ids::time),
        end_reason: life.ending.map(|ending| ending.reason).or(by_time).map(|r| r.name().to_owned()),
        end_note: not_empty(&rental.end_note),
        time_zone: rental.time_zone.clone(),
        created_at: ids::time(rental.created_at),
        version: rental.version,
    }
}

/// Returns why a rental ended by the time alone, where its state says so, and when it ended before its time or without
/// having begun.
fn ended(life: &life::Life, now: Wall) -> (Option<life::EndReason>, Option<Wall>) {
    match life.over(now) {
        Some(over) if life.ending.is_some() => (None, Some(over.at)),
        Some(over) if over.reason != life::EndReason::Ended => (Some(over.reason), Some(over.at)),
        _ => (None, None),
    }
}

fn addresses(alias: Alias) -> Vec<String> {
    alias.addresses.map(|address| address.to_string()).into()
}
