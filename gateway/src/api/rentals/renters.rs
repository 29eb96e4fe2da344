//! Renters: the peers of the people of customers, which reach rented devices. Each ends with its person.
//!
//! The allowed IPs of a renter are the addresses of its customer's rentals and those of the gateway, never
//! the pool. They do not change, so that its configuration serves the next rental too.

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::PersonId;
use fleetgate_engine::time::Wall;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::people_types::{KeyedRenter, NewRenter, Renter, RenterChange, RenterWithCredentials};
use super::{begin, customers, people, ssh_keys};
use crate::api::AppState;
use crate::api::devices::wireguard_conf::{self, Inside};
use crate::api::devices::{Credentials, Given, NewCredentials, Prepared, refusal};
use crate::api::peer_drops;
use crate::api::request::auth::{Author, Principal};
use crate::api::request::extract::{Body, Path, Query};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::{self as fields, Fields, Setter};
use crate::api::request::person::PersonCaller;
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged, header_value};
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::Page;
use crate::store::devices::NotMade;
use crate::store::events::Object;
use crate::store::rentals::people::Person;
use crate::store::rentals::{alias_blocks, renters as stored};

/// A person has a few devices.
const MAX_PER_PERSON: usize = 8;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(reissue))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of this customer (id or `external_ref`).
    customer: Option<String>,
    /// Only those of this person (id).
    person: Option<String>,
}

/// Renters (peers of the people of customers), the newest first.
#[utoipa::path(get, path = "/renters", operation_id = "list_renters", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Renter>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Renter>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let person = wanted.person.as_deref().map(|person| IdKind::Person.parse(person)).transpose()?;
    let customer = customers::wanted(&app, wanted.customer.as_deref()).await?;
    let mut conn = app.store.reader().await?;
    let rows = stored::list(&mut conn, (customer, person), before, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |r| r.id.as_i64().to_string(), |r| to_api(&app, &r))))
}

/// Adds a renter: a peer of a person of a customer, which reaches what the customer rents.
///
/// Without a key of its own it gets a key pair, which is shown once and never stored. The first renter of a
/// customer reserves the addresses of the customer's rentals.
#[utoipa::path(post, path = "/renters", operation_id = "create_renter", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = NewRenter,
    responses((status = 201, body = RenterWithCredentials)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewRenter>,
) -> Result<Response, Problem> {
    added(&app, By::User(&who), new).await
}

/// The caller that adds, changes or removes a renter.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    User(&'a Principal),
    /// A person, who has the own renters alone.
    Person(&'a PersonCaller),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::User(who) => write!(f, "{who}"),
            By::Person(who) => write!(f, "{who}"),
        }
    }
}

impl Author for By<'_> {
    fn scopes(&self) -> &[String] {
        match self {
            By::User(who) => who.scopes(),
            By::Person(_) => &[],
        }
    }
}

impl By<'_> {
    fn may(self, renter: &stored::Renter) -> bool {
        match self {
            By::User(_) => true,
            By::Person(who) => who.person == renter.person,
        }
    }
}

/// Adds a renter.
///
/// # Errors
/// Returns 422 for what is invalid, and 409 without room, or when the name or the key is taken.
pub(super) async fn added(app: &AppState, by: By<'_>, new: NewRenter) -> Result<Response, Problem> {
    let person = new.person.clone();
    let (settings, given) = parsed(app, new)?;
    let mut write = begin(app, &by).await?;
    let person = people::load(&mut write, &person).await.map_err(|e| e.in_field("person"))?;
    has_room(&mut write, person.id).await?;
    reserve_addresses(app, &mut write, &person).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    let prepared = Prepared::new(app, &mut write, given).await?;
    let (key, pools) = (prepared.key(app), app.config.pools());
    let inserted = stored::insert(write.tx(), id, (person.id, &settings), key, pools, now).await;
    inserted.map_err(|e| not_made(e, by))?;
    let data = json!({
        "id": IdKind::Renter.text(id), "person": IdKind::Person.text(person.id),
        "customer": IdKind::Customer.text(person.customer),
    });
    write.event("renter.created", (Object::Renter, id), "added", data).await?;
    let made = load(&mut write, by, &IdKind::Renter.text(id)).await?;
    let credentials = credentials(app, prepared, &made)?;
    write.peer(id);
    write.commit().await?;
    let tag = [(header::ETAG, header_value(made.version))];
    Ok((tag, disclosed(StatusCode::CREATED, app, &made, credentials)).into_response())
}

fn parsed(app: &AppState, new: NewRenter) -> Result<(stored::Settings, Given), Problem> {
    let mut wrong = Fields::default();
    let name = wrong.take("name", fields::name(&new.name)).unwrap_or_default();
    let key = new.public_key.as_deref().map(|key| fields::public_key(app, key));
    key.and_then(|key| wrong.take("public_key", key));
    let mtu = new.mtu.and_then(|mtu| wrong.take("mtu", fields::mtu(mtu)));
    let ssh_keys = ssh_keys::parsed(&mut wrong, new.ssh_keys).unwrap_or_default();
    wrong.finish()?;
    Ok((stored::Settings { name, mtu, ssh_keys }, Given::parse(app, new.public_key.as_deref())?))
}

async fn has_room(write: &mut ApiTx<'_>, person: PersonId) -> Result<(), Problem> {
    if stored::of_person(write.tx(), person).await?.len() < MAX_PER_PERSON {
        return Ok(());
    }
    let id = IdKind::Person.text(person);
    let detail = format!("{id} has {MAX_PER_PERSON} renters, and no more are possible: remove one");
    Err(Problem::limit_reached(detail))
}

/// Reserves the addresses of the customer's rentals, which the configuration names.
async fn reserve_addresses(app: &AppState, write: &mut ApiTx<'_>, person: &Person) -> Result<(), Problem> {
    let (slots, pools, now) = (app.config.alias_slots, app.config.pools(), write.now);
    let block = alias_blocks::ensure(write.tx(), person.customer, slots, pools, now).await;
    block.map(drop).map_err(|e| refusal(e.into(), None))
}

fn not_made(error: NotMade, by: By<'_>) -> Problem {
    match error {
        NotMade::NameTaken(name) => Problem::conflict(
            "name_taken",
            format!("a renter of this customer is called {name:?} already: choose another name"),
        ),
        error => refusal(error, reads_names(by)),
    }
}

/// Returns the caller that may hear the names of other peers. A token of a booking system reads neither devices nor
/// operators, and neither does a person.
fn reads_names(by: By<'_>) -> Option<&Principal> {
    match by {
        By::User(who) => Some(who).filter(|who| who.scopes.is_empty()),
        By::Person(_) => None,
    }
}

/// A renter.
#[utoipa::path(get, path = "/renters/{renter}", operation_id = "show_renter", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("renter" = String, Path, description = "id")),
    responses((status = 200, body = Renter)))]
async fn show(State(app): State<AppState>, Path(renter): Path<String>) -> Result<Tagged<Renter>, Problem> {
    let id = IdKind::Renter.parse(&renter)?;
    let found = stored::by_id(&mut *app.store.reader().await?, id).await?;
    let found = found.ok_or_else(|| IdKind::Renter.unknown(&renter))?;
    Ok(Tagged { version: found.version, value: to_api(&app, &found) })
}

/// Changes a renter.
#[utoipa::path(patch, path = "/renters/{renter}", operation_id = "change_renter", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = RenterChange,
    params(("renter" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Renter)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(renter): Path<String>,
    if_match: IfMatch,
    Body(change): Body<RenterChange>,
) -> Result<Tagged<Renter>, Problem> {
    altered(&app, By::User(&who), (&renter, &if_match), change).await
}

/// Changes a renter.
///
/// # Errors
/// Returns 404 when there is no such renter, 412 when it has another version, 422 for what is invalid, and 409 when the
/// name is taken.
pub(super) async fn altered(
    app: &AppState,
    by: By<'_>,
    (renter, if_match): (&str, &IfMatch),
    change: RenterChange,
) -> Result<Tagged<Renter>, Problem> {
    let mut write = begin(app, &by).await?;
    let before = load(&mut write, by, renter).await?;
    if_match.check(before.version)?;
    let was =
        stored::Settings { name: before.name.clone(), mtu: before.mtu, ssh_keys: before.ssh_keys.clone() };
    let settings = changed(&was, change)?;
    if settings != was {
        let updated = stored::update(write.tx(), (before.id, before.person), &settings).await;
        updated.map_err(|e| not_made(e, by))?;
        let data = json!({ "id": IdKind::Renter.text(before.id), "changed": differences(&was, &settings) });
        write.event("renter.changed", (Object::Renter, before.id), "changed", data).await?;
    }
    if settings.mtu != was.mtu {
        write.peer(before.id);
    }
    let after = load(&mut write, by, renter).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(app, &after) })
}

/// Returns the settings after the request.
fn changed(before: &stored::Settings, change: RenterChange) -> Result<stored::Settings, Problem> {
    let mut wrong = Fields::default();
    let mut settings = before.clone();
    let ssh_keys = change.ssh_keys.and_then(|list| ssh_keys::parsed(&mut wrong, list));
    settings.ssh_keys = ssh_keys.unwrap_or(settings.ssh_keys);
    let mut set = Setter(&mut wrong);
    set.to(&mut settings.name, "name", change.name.as_deref().map(fields::name));
    set.to(&mut settings.mtu, "mtu", change.mtu.map(|mtu| mtu.map(fields::mtu).transpose()));
    wrong.finish()?;
    Ok(settings)
}

/// Returns the names of the changed settings, for the event.
fn differences(before: &stored::Settings, after: &stored::Settings) -> Vec<&'static str> {
    let pairs = [
        ("name", before.name != after.name),
        ("mtu", before.mtu != after.mtu),
        ("ssh_keys", before.ssh_keys != after.ssh_keys),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Removes a renter. Its tunnel ends at once.
#[utoipa::path(delete, path = "/renters/{renter}", operation_id = "remove_renter", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("renter" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    Path(renter): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    removed(&app, By::User(&who), &renter, &if_match).await
}

/// Removes a renter.
///
/// # Errors
/// Returns 404 when there is no such renter, and 412 when it has another version.
pub(super) async fn removed(
    app: &AppState,
    by: By<'_>,
    renter: &str,
    if_match: &IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = begin(app, &by).await?;
    let gone = load(&mut write, by, renter).await?;
    if_match.check(gone.version)?;
    end(&mut write, &gone, "removed").await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the renters of a person who is removed.
pub(super) async fn end_those_of(write: &mut ApiTx<'_>, person: PersonId) -> Result<(), Problem> {
    for renter in stored::of_person(write.tx(), person).await? {
        end(write, &renter, "its person was removed").await?;
    }
    Ok(())
}

async fn end(write: &mut ApiTx<'_>, gone: &stored::Renter, cause: &str) -> Result<(), Problem> {
    let now = write.now;
    stored::remove(write.tx(), gone.id, now).await?;
    let data = json!({ "id": IdKind::Renter.text(gone.id) });
    write.event("renter.removed", (Object::Renter, gone.id), cause, data).await?;
    write.peer(gone.id);
    Ok(())
}

/// Issues new keys for a renter. The previous keys stop working at once.
#[utoipa::path(post, path = "/renters/{renter}/credentials", operation_id = "reissue_renter_credentials",
    tag = "rentals", security(("token" = ["rentals:operator"])), request_body = NewCredentials,
    params(("renter" = String, Path, description = "id")),
    responses((status = 200, body = RenterWithCredentials)))]
async fn reissue(
    State(app): State<AppState>,
    who: Principal,
    Path(renter): Path<String>,
    Body(new): Body<NewCredentials>,
) -> Result<Disclosed<RenterWithCredentials>, Problem> {
    rekeyed(&app, By::User(&who), &renter, &new).await
}

/// Issues new keys for a renter.
///
/// # Errors
/// Returns 404 when there is no such renter, and 409 when the key is taken.
pub(super) async fn rekeyed(
    app: &AppState,
    by: By<'_>,
    renter: &str,
    new: &NewCredentials,
) -> Result<Disclosed<RenterWithCredentials>, Problem> {
    let given = Given::parse(app, new.public_key.as_deref())?;
    let mut write = begin(app, &by).await?;
    let before = load(&mut write, by, renter).await?;
    let prepared = Prepared::new(app, &mut write, given).await?;
    let (pools, now) = (app.config.pools(), write.now);
    let set = stored::set_key(write.tx(), before.id, prepared.key(app), pools, now).await;
    set.map_err(|e| not_made(e, by))?;
    let data = json!({ "id": IdKind::Renter.text(before.id) });
    write.event("renter.rekeyed", (Object::Renter, before.id), "new credentials", data).await?;
    let after = load(&mut write, by, renter).await?;
    let credentials = credentials(app, prepared, &after)?;
    write.peer(before.id);
    write.commit().await?;
    Ok(disclosed(StatusCode::OK, app, &after, credentials))
}

fn credentials(app: &AppState, prepared: Prepared, renter: &stored::Renter) -> Result<Credentials, Problem> {
    let inside = Inside {
        addresses: &renter.addresses,
        mtu: renter.mtu,
        allowed_ips: allowed_ips(app, renter),
        split_dns: wireguard_conf::split_dns(app),
    };
    prepared.credentials(app, inside)
}

/// Returns the addresses of the customer's rentals and those of the gateway.
fn allowed_ips(app: &AppState, renter: &stored::Renter) -> Vec<IpNet> {
    let pools = app.config.pools();
    let rentals = renter.block.map(|block| block.prefixes(pools)).into_iter().flatten();
    rentals.chain(pools.gateway().map(IpNet::from)).collect()
}

fn disclosed(
    status: StatusCode,
    app: &AppState,
    renter: &stored::Renter,
    credentials: Credentials,
) -> Disclosed<RenterWithCredentials> {
    let renter = KeyedRenter {
        id: IdKind::Renter.text(renter.id),
        person: IdKind::Person.text(renter.person),
        customer: IdKind::Customer.text(renter.customer),
        public_key: renter.public_key.clone(),
        addresses: texts(&renter.addresses),
        allowed_ips: texts(&allowed_ips(app, renter)),
        version: renter.version,
    };
    let again = RenterWithCredentials { renter, credentials: None };
    let once = RenterWithCredentials { credentials: Some(credentials), ..again.clone() };
    Disclosed { status, once, again }
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

async fn load(write: &mut ApiTx<'_>, by: By<'_>, renter: &str) -> Result<stored::Renter, Problem> {
    let found = stored::by_id(write.tx(), IdKind::Renter.parse(renter)?).await?;
    found.filter(|renter| by.may(renter)).ok_or_else(|| IdKind::Renter.unknown(renter).into())
}

/// Memory is newer than the store, but it starts empty.
pub(super) fn to_api(app: &AppState, renter: &stored::Renter) -> Renter {
    let live = app.live.peer(renter.id).unwrap_or_default();
    let handshake: Option<Wall> = live.last_handshake.or(renter.last_handshake);
    Renter {
        id: IdKind::Renter.text(renter.id),
        person: IdKind::Person.text(renter.person),
        customer: IdKind::Customer.text(renter.customer),
        name: renter.name.clone(),
        public_key: renter.public_key.clone(),
        keyed_at: ids::time(renter.keyed_at),
        addresses: texts(&renter.addresses),
        allowed_ips: texts(&allowed_ips(app, renter)),
        established: live.established,
        last_handshake: ids::time_if_known(handshake),
        drops: peer_drops::by_name(&live.drops),
        mtu: renter.mtu,
        ssh_keys: renter.ssh_keys.clone(),
        created_at: ids::time(renter.created_at),
        version: renter.version,
    }
}
