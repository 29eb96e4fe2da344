//! Bookings: one call books devices in windows, all or none.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::{Id, PeerId};
use fleetgate_engine::rental::allowance::Level;
use fleetgate_engine::rental::life::Life;
use fleetgate_engine::rental::maintenance::Maintenance;
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::allocate::{self, Choice, Selection, Wish};
use super::types::{Booking, BookingChange, BookingPlan, NewBooking, NewBookingItem, PlannedRental};
use super::{
    access, allowance, begin_rental, contacts, has_room, keep, maintenance, new_ids, other_devices, parse,
    thresholds, to_api as rental_to_api,
};
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path, Query};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind, Named};
use crate::api::request::parse::{self as fields, Fields, Setter};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged, header_value};
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::{Page, not_empty};
use crate::store::events::Object;
use crate::store::rentals::allowances::Allowance;
use crate::store::rentals::changes::What;
use crate::store::rentals::contacts::Contact;
use crate::store::rentals::device_choices::DeviceChoice;
use crate::store::rentals::handovers;
use crate::store::rentals::thresholds::Limits;
use crate::store::rentals::{
    Rental, bookings as stored, customers as stored_customers, insert, occupancies, of_bookings,
};

/// Items of one booking. A call decides all of them in one transaction.
const MAX_ITEMS: usize = 50;
/// Rentals after which a page of bookings ends: those of a page of rentals, so that 2,000 bookings with 50 items each are
/// not one answer of 100 MB.
const PAGE_RENTALS: usize = 2_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only the one with this `external_ref`.
    external_ref: Option<String>,
    /// Only those of this customer (id or `external_ref`).
    customer: Option<String>,
}

/// Bookings with their rentals, the newest first.
///
/// A page ends after 2,000 rentals, also if it has fewer bookings than `limit`.
#[utoipa::path(get, path = "/bookings", operation_id = "list_bookings", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Booking>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Booking>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let now = crate::clock::wall();
    let customer = super::customers::wanted(&app, wanted.customer.as_deref()).await?;
    let mut conn = app.store.reader().await?;
    let filter = (wanted.external_ref.as_deref(), customer);
    let rows = stored::list(&mut conn, filter, before, limit + 1).await?;
    let (rentals, bookings) = stored::rentals_of(&mut conn, &rows, PAGE_RENTALS).await?;
    let limit = limit.min(i64::try_from(bookings).unwrap_or(i64::MAX));
    let shown =
        |b: stored::Booking| to_api(&b, rentals.get(&b.id).map(Vec::as_slice).unwrap_or_default(), now);
    Ok(Json(Page::of_entries(rows, limit, |b| b.id.as_i64().to_string(), shown)))
}

/// Books devices: each item becomes a rental, or none does.
///
/// 409 `occupied`: a device is not free; `conflict` has the item, what occupies the device, and the next window
/// that is free. 409 `alias_block_full`: the addresses of the customer's rentals are in use. With `dry_run` the answer
/// is 200 with what would be booked.
#[utoipa::path(post, path = "/bookings", operation_id = "create_booking", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = NewBooking,
    responses((status = 200, body = BookingPlan), (status = 201, body = Booking)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewBooking>,
) -> Result<Response, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let now = write.now;
    let draft = Draft::of_new(new, now)?;
    let customer = super::customers::load(&mut write, &draft.customer).await;
    let customer = customer.map_err(|e| e.in_field("customer"))?;
    reference_is_free(&mut write, draft.external_ref.as_deref()).await?;
    has_room(&mut write, draft.wishes.len()).await?;
    let choices = allocate::choose(&mut write, &draft.wishes).await?;
    let terms = terms(&mut write, customer.id, &draft.terms).await?;
    let dry_run = draft.dry_run;
    let version = write.first_version().await?;
    let booking = draft.booking(ids::new_id(now), customer.id, &write.by, now);
    let booking = stored::Booking { version, ..booking };
    stored::insert(write.tx(), &booking).await?;
    let mut rentals = Vec::with_capacity(choices.len());
    for (id, item) in new_ids(choices.len(), now).into_iter().zip(choices.into_iter().zip(terms)) {
        rentals.push(rent(&app, &mut write, &booking, id, item).await?);
    }
    if dry_run {
        // Without a commit nothing of it is kept.
        return Ok(Json(plan(&rentals)).into_response());
    }
    keep(&mut write, &ids_of(&rentals), What::Booked, &[]).await?;
    let names: Vec<String> = rentals.iter().map(|rental| IdKind::Rental.text(rental.id)).collect();
    let data = json!({
        "id": IdKind::Booking.text(booking.id), "customer": IdKind::Customer.text(customer.id), "rentals": names,
        "held": booking.hold_until.is_some(),
    });
    write.event("booking.created", (Object::Booking, booking.id), "booked", data).await?;
    write.commit().await?;
    let once = to_api(&booking, &rentals, now);
    let again = Booking { notes: None, metadata: None, ..once.clone() };
    let tag = [(header::ETAG, header_value(booking.version))];
    Ok((tag, Disclosed { status: StatusCode::CREATED, once, again }).into_response())
}

async fn reference_is_free(write: &mut ApiTx<'_>, external_ref: Option<&str>) -> Result<(), Problem> {
    let Some(external_ref) = external_ref else { return Ok(()) };
    match stored::find(write.tx(), &Named::Name(external_ref.to_owned())).await? {
        None => Ok(()),
        Some(other) => {
            let id = IdKind::Booking.text(other.id);
            let detail =
                format!("external_ref: {id} has this reference: read that booking, or use another reference");
            Err(Problem::conflict("external_ref_taken", detail))
        }
    }
}

/// What an item says of its renters, their traffic, who gets messages, its thresholds and maintenance. Access is chosen with the
/// device.
#[derive(Debug)]
struct Terms<Name> {
    name: Name,
    admits: Option<BTreeSet<PeerId>>,
    allowance: Option<Allowance>,
    choice: DeviceChoice,
    contacts: Vec<Contact>,
    thresholds: Limits,
    maintenance: Vec<Maintenance>,
}

/// Checks the renters of all items, and names the rentals.
async fn terms(
    write: &mut ApiTx<'_>,
    customer: Id,
    wanted: &[Terms<Option<String>>],
) -> Result<Vec<Terms<String>>, Problem> {
    for (n, terms) in wanted.iter().enumerate() {
        let field = format!("items[{n}].renters");
        access::must_be_renters(write, customer, (field.as_str(), terms.admits.as_ref())).await?;
    }
    let given: Vec<Option<String>> = wanted.iter().map(|terms| terms.name.clone()).collect();
    let names = access::names(&access::names_in_use(write, customer).await?, &given)?;
    let named = |(name, terms): (String, &Terms<Option<String>>)| Terms {
        name,
        admits: terms.admits.clone(),
        allowance: terms.allowance,
        choice: terms.choice.clone(),
        contacts: terms.contacts.clone(),
        thresholds: terms.thresholds.clone(),
        maintenance: terms.maintenance.clone(),
    };
    Ok(names.into_iter().zip(wanted).map(named).collect())
}

/// Adds the rental of one item.
async fn rent(
    app: &AppState,
    write: &mut ApiTx<'_>,
    booking: &stored::Booking,
    id: Id,
    (choice, terms): (Choice, Terms<String>),
) -> Result<Rental, Problem> {
    let Choice { device, window, occupied, access, ssh } = choice;
    let life = Life {
        window,
        prepared_from: occupied.from,
        turnaround: device.margins.turnaround,
        hold_until: booking.hold_until,
        handover: handovers::of_device(write.tx(), device.id, device.delivery, window.from()).await?,
        ending: None,
        delivery: device.delivery,
    };
    let rental = Rental {
        id,
        booking: booking.id,
        customer: booking.customer,
        external_ref: booking.external_ref.clone(),
        time_zone: booking.time_zone.clone(),
        device: device.id,
        device_name: device.name,
        choice: terms.choice,
        life,
        preparation: device.margins.preparation,
        name: terms.name,
        access,
        ssh,
        admits: terms.admits,
        alias: Some(access::take_alias(app, write, booking.customer).await?),
        allowance: terms.allowance,
        allowance_level: Level::Below,
        forwarded_bytes: 0,
        contacts: terms.contacts,
        thresholds: terms.thresholds,
        maintenance: terms.maintenance,
        end_note: String::new(),
        version: 1,
        created_at: booking.created_at,
    };
    insert(write.tx(), &rental).await?;
    occupancies::insert(write.tx(), rental.device, occupancies::Source::Rental(id), occupied).await?;
    write.rental(id);
    Ok(rental)
}

fn plan(rentals: &[Rental]) -> BookingPlan {
    let planned = |rental: &Rental| PlannedRental {
        device: IdKind::Host.text(rental.device),
        device_name: rental.device_name.clone(),
        from: ids::time(rental.life.window.from()),
        until: ids::time(rental.life.window.until()),
        occupied_from: ids::time(rental.life.prepared_from),
        occupied_until: ids::time(rental.life.window.until() + rental.life.turnaround),
    };
    BookingPlan { rentals: rentals.iter().map(planned).collect() }
}

/// A booking.
#[utoipa::path(get, path = "/bookings/{booking}", operation_id = "show_booking", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("booking" = String, Path, description = "id or `external_ref`")),
    responses((status = 200, body = Booking)))]
async fn show(State(app): State<AppState>, Path(booking): Path<String>) -> Result<Tagged<Booking>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = stored::find(&mut conn, &IdKind::Booking.named(&booking)).await?;
    let found = found.ok_or_else(|| IdKind::Booking.unknown(&booking))?;
    let rentals = of_bookings(&mut conn, &[found.id]).await?.remove(&found.id).unwrap_or_default();
    Ok(Tagged { version: found.version, value: to_api(&found, &rentals, crate::clock::wall()) })
}

/// Confirms a booking that is held (`"hold_until": null`), or changes its hold, notes or metadata.
///
/// 409 `hold_over`: it was not confirmed in time, or its rentals were cancelled.
#[utoipa::path(patch, path = "/bookings/{booking}", operation_id = "change_booking", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = BookingChange,
    params(("booking" = String, Path, description = "id or `external_ref`"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Booking)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(booking): Path<String>,
    if_match: IfMatch,
    Body(change): Body<BookingChange>,
) -> Result<Tagged<Booking>, Problem> {
    let mut write = begin_rental(&app, &who).await?;
    let now = write.now;
    let found = stored::find(write.tx(), &IdKind::Booking.named(&booking)).await?;
    let before = found.ok_or_else(|| IdKind::Booking.unknown(&booking))?;
    if_match.check(before.version)?;
    if change.hold_until.is_some() {
        hold_is_open(&mut write, &before).await?;
    }
    let customer = stored_customers::find(write.tx(), &Named::Id(before.customer)).await?;
    let mut after = changed(&before, change, now)?;
    if customer.is_none() {
        nothing_is_written(&after)?;
    }
    if after != before {
        stored::update(write.tx(), &after, now).await?;
        after.version += 1;
        let data = json!({ "id": IdKind::Booking.text(after.id), "changed": differences(&before, &after) });
        write.event("booking.changed", (Object::Booking, after.id), "changed", data).await?;
    }
    let rentals = of_bookings(write.tx(), &[after.id]).await?.remove(&after.id).unwrap_or_default();
    if before.hold_until.is_some() && after.hold_until.is_none() {
        let open = rentals.iter().filter(|rental| rental.life.state(now).is_open());
        keep(&mut write, &ids_of(open), What::Confirmed, &[]).await?;
    }
    // Only a confirmed booking permits something.
    rentals.iter().for_each(|rental| write.rental(rental.id));
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, &rentals, now) })
}

fn ids_of<'a>(rentals: impl IntoIterator<Item = &'a Rental>) -> Vec<Id> {
    rentals.into_iter().map(|rental| rental.id).collect()
}

/// A rental that is not confirmed ends at its `until` too, which may come before `hold_until`.
///
/// # Errors
/// Returns 409 when nothing of a held booking is left to confirm.
async fn hold_is_open(write: &mut ApiTx<'_>, booking: &stored::Booking) -> Result<(), Problem> {
    let now = write.now;
    let rentals = of_bookings(write.tx(), &[booking.id]).await?.remove(&booking.id).unwrap_or_default();
    if booking.hold_until.is_none() || rentals.iter().any(|rental| rental.life.state(now).is_open()) {
        return Ok(());
    }
    let detail =
        "this booking was not confirmed in time or was cancelled, and its devices are free: book again";
    Err(Problem::conflict("hold_over", detail))
}

/// # Errors
/// Returns 422 for notes and metadata about a customer who was erased: nothing would erase them.
fn nothing_is_written(after: &stored::Booking) -> Result<(), Problem> {
    let mut wrong = Fields::default();
    for (field, is_given) in [("notes", !after.notes.is_empty()), ("metadata", !after.metadata.is_empty())] {
        if is_given {
            wrong.take::<()>(field, Err("none are expected, because the customer was erased"));
        }
    }
    wrong.finish()
}

/// Returns the booking after the request.
fn changed(before: &stored::Booking, change: BookingChange, now: Wall) -> Result<stored::Booking, Problem> {
    let mut wrong = Fields::default();
    let mut after = before.clone();
    let hold = change.hold_until.map(|text| text.map(|text| parse::hold(&text, now)).transpose());
    let hold = hold.map(|hold| match hold {
        Ok(Some(_)) if before.hold_until.is_none() => {
            Err("the booking is confirmed: cancel its rentals instead".to_owned())
        }
        hold => hold,
    });
    let mut set = Setter(&mut wrong);
    set.to(&mut after.hold_until, "hold_until", hold);
    let zone = change.time_zone.map(|zone| zone.map(parse::time_zone).transpose());
    set.to(&mut after.time_zone, "time_zone", zone);
    set.to(&mut after.notes, "notes", change.notes.map(|notes| fields::notes(notes.unwrap_or_default())));
    let metadata = change.metadata.map(|metadata| parse::metadata(metadata.unwrap_or_default()));
    set.to(&mut after.metadata, "metadata", metadata);
    wrong.finish()?;
    Ok(after)
}

/// Returns the names of what changed, for the event.
fn differences(before: &stored::Booking, after: &stored::Booking) -> Vec<&'static str> {
    let pairs = [
        ("hold_until", before.hold_until != after.hold_until),
        ("time_zone", before.time_zone != after.time_zone),
        ("notes", before.notes != after.notes),
        ("metadata", before.metadata != after.metadata),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// A booking that is valid apart from the names in it.
#[derive(Debug)]
struct Draft {
    customer: String,
    external_ref: Option<String>,
    wishes: Vec<Wish>,
    /// One for each wish.
    terms: Vec<Terms<Option<String>>>,
    hold_until: Option<Wall>,
    time_zone: Option<String>,
    notes: String,
    metadata: BTreeMap<String, String>,
    dry_run: bool,
}

impl Draft {
    /// # Errors
    /// Returns 422 with every wrong field.
    fn of_new(new: NewBooking, now: Wall) -> Result<Draft, Problem> {
        let mut wrong = Fields::default();
        let external_ref = new.external_ref.map(parse::external_ref).transpose();
        let hold_until = new.hold_until.map(|text| parse::hold(&text, now)).transpose();
        let time_zone = new.time_zone.map(parse::time_zone).transpose();
        if !(1..=MAX_ITEMS).contains(&new.items.len()) {
            wrong.take::<()>("items", Err(format!("1 to {MAX_ITEMS} items are expected")));
        }
        let items = new.items.into_iter().take(MAX_ITEMS).enumerate();
        let items: Vec<Option<_>> = items.map(|(n, item)| wish(&mut wrong, n, item, now)).collect();
        let (wishes, terms) = items.into_iter().flatten().unzip();
        let draft = Draft {
            customer: new.customer,
            external_ref: wrong.take("external_ref", external_ref).flatten(),
            wishes,
            terms,
            hold_until: wrong.take("hold_until", hold_until).flatten(),
            time_zone: wrong.take("time_zone", time_zone).flatten(),
            notes: wrong.take("notes", fields::notes(new.notes)).unwrap_or_default(),
            metadata: wrong.take("metadata", parse::metadata(new.metadata)).unwrap_or_default(),
            dry_run: new.dry_run,
        };
        wrong.finish()?;
        Ok(draft)
    }

    fn booking(self, id: Id, customer: Id, author: &str, now: Wall) -> stored::Booking {
        stored::Booking {
            id,
            customer,
            external_ref: self.external_ref,
            notes: self.notes,
            metadata: self.metadata,
            time_zone: self.time_zone,
            hold_until: self.hold_until,
            author: author.to_owned(),
            version: 1,
            created_at: now,
        }
    }
}

fn wish(
    wrong: &mut Fields,
    n: usize,
    item: NewBookingItem,
    now: Wall,
) -> Option<(Wish, Terms<Option<String>>)> {
    let prefix = format!("items[{n}].");
    let window = parse::window(wrong, &prefix, (item.from.as_deref(), &item.until), now);
    let of = match (item.device, item.labels, item.profile) {
        (Some(device), None, None) => Some(Selection::Device(device)),
        (Some(_), ..) | (None, None, None) => {
            let expected = "either device is expected, or labels, profile or both";
            wrong.take(&format!("items[{n}]"), Err(expected))
        }
        (None, labels, profile) => {
            let labels = wrong.take(&format!("{prefix}labels"), fields::labels(labels.unwrap_or_default()));
            labels.map(|labels| Selection::Any { labels, profile })
        }
    };
    let name = wrong.take(&format!("{prefix}name"), item.name.map(access::name).transpose());
    let admits = item.renters.map(access::renters_named).transpose();
    let admits = wrong.take(&format!("{prefix}renters"), admits);
    let access = item.access.map(|list| access::access(wrong, &prefix, list));
    let allowance = (item.allowance_bytes, item.cut_at_allowance);
    let allowance = allowance::of_item(wrong, &prefix, allowance);
    let choice = other_devices::of_item(item.other_device_after_s, of.as_ref());
    let choice = wrong.take(&format!("{prefix}other_device_after_s"), choice);
    let contacts = contacts::contacts(wrong, &format!("{prefix}contacts"), item.contacts);
    let thresholds = thresholds::thresholds(wrong, &format!("{prefix}thresholds"), item.thresholds);
    let maintenance =
        maintenance::maintenance(wrong, &format!("{prefix}maintenance"), item.maintenance, window);
    let wish = Wish { of: of?, window: window?, access: access.flatten(), ssh: item.ssh };
    let terms = Terms {
        name: name?,
        admits: admits?,
        allowance: allowance?,
        choice: choice?,
        contacts: contacts?,
        thresholds: thresholds?,
        maintenance: maintenance?,
    };
    Some((wish, terms))
}

fn to_api(booking: &stored::Booking, rentals: &[Rental], now: Wall) -> Booking {
    Booking {
        id: IdKind::Booking.text(booking.id),
        customer: IdKind::Customer.text(booking.customer),
        external_ref: booking.external_ref.clone(),
        hold_until: booking.hold_until.map(ids::time),
        time_zone: booking.time_zone.clone(),
        notes: not_empty(&booking.notes),
        metadata: Some(booking.metadata.clone()).filter(|metadata| !metadata.is_empty()),
        rentals: rentals.iter().map(|rental| rental_to_api(rental, now)).collect(),
        author: booking.author.clone(),
        created_at: ids::time(booking.created_at),
        version: booking.version,
    }
}
