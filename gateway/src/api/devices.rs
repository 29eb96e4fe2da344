//! Devices: identity and tunnel. `hosts` has their states.

use crate::outbound::Purpose;
use crate::store::SqliteConnection;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::RoutePolicy;
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::{Principal, Role};
use super::cascade::{Consequences, Removal};
use super::etag::{IfMatch, Tagged, header_value};
use super::extract::{Body, Path, Query};
use super::idempotency::Disclosed;
use super::ids::{self, Kind, Named};
use super::manager::Manager;
use super::merge;
use super::model::{self, Credentials, DeviceWithCredentials, NewCredentials, NewDevice, Page, Trust};
use super::page::Paging;
use super::parse::{self, Fields};
use super::problem::Problem;
use super::query::WithLabels;
use super::write::ApiTx;
use super::{conf, gateway, hosts, profiles, render};
use crate::store::addresses::NoAddress;
use crate::store::devices::{self, Dependent, Device, NewKey, NotMade, Pin, Settings, Ssh};
use crate::store::events::Object;
use crate::store::removals::Kind as Removable;
use crate::store::snapshot::psk_place;
use crate::store::{host_settings, managed, peer_state};

const SSH_PORT: u16 = 22;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(reissue))
        .routes(routes!(trust))
        .routes(routes!(reset_clock))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// A part of the name.
    q: Option<String>,
}

/// Devices, by name.
#[utoipa::path(get, path = "/devices", operation_id = "list_devices", tag = "devices",
    security(("token" = ["devices:viewer"])), params(Paging, Wanted, WithLabels),
    responses((status = 200, body = Page<model::Device>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
    labels: WithLabels,
) -> Result<Json<Page<model::Device>>, Problem> {
    let filter = devices::Filter { q: wanted.q, labels: labels.label };
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let rows = app.store.devices(&filter, &after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |d| d.settings.name.clone(), |d| wire(&d))))
}

/// Adds a device, which becomes a host.
///
/// Without a key of its own it gets a key pair, which is shown once and never stored.
#[utoipa::path(post, path = "/devices", operation_id = "create_device", tag = "devices",
    security(("token" = ["devices:operator"])), request_body = NewDevice,
    responses((status = 201, body = DeviceWithCredentials)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(new): Body<NewDevice>,
) -> Result<Response, Problem> {
    permitted(&app, new.direct_address.as_deref()).await?;
    let wanted = Wish::parse(&app, new)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    profiles::must_exist(write.tx(), &wanted.settings.profile).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    let inserted = devices::insert(write.tx(), id, &wanted.settings, now).await;
    inserted.map_err(|e| refusal(e, Some(&who)))?;
    managed::host_written(write.tx(), id, manager.writer(&who.to_string())).await?;
    write.made((Removable::Device, &wanted.settings.name), &manager).await?;
    let credentials = match wanted.tunnel {
        Some(given) => Some(issue(&app, &mut write, id, given, &who).await?),
        None => None,
    };
    // The peer that they stand behind exists only now.
    devices::write_networks(write.tx(), id, &wanted.settings.networks).await?;
    let data = json!({ "name": wanted.settings.name, "tunnel": credentials.is_some() });
    write.event("device.created", (Object::Device, id), "added", data).await?;
    let made = load(write.tx(), Named::Id(id)).await?;
    write.host(id);
    write.commit().await?;
    let tag = [(header::ETAG, header_value(made.version))];
    Ok((tag, disclosed(StatusCode::CREATED, wire(&made), credentials)).into_response())
}

/// A device.
#[utoipa::path(get, path = "/devices/{device}", operation_id = "show_device", tag = "devices",
    security(("token" = ["devices:viewer"])), params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = model::Device)))]
async fn show(
    State(app): State<AppState>,
    Path(device): Path<String>,
) -> Result<Tagged<model::Device>, Problem> {
    let mut conn = app.store.reader().await?;
    tagged(load(&mut conn, Kind::Host.named(&device)).await?)
}

/// Changes a device.
#[utoipa::path(patch, path = "/devices/{device}", operation_id = "change_device", tag = "devices",
    security(("token" = ["devices:operator"])), request_body = model::DeviceChange,
    params(("device" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for")),
    responses((status = 200, body = model::Device)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(device): Path<String>,
    if_match: IfMatch,
    Body(change): Body<model::DeviceChange>,
) -> Result<Tagged<model::Device>, Problem> {
    permitted(&app, change.direct_address.as_ref().and_then(Option::as_deref)).await?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), Kind::Host.named(&device)).await?;
    if_match.check(before.version)?;
    let settings = changed(&app, &before, change)?;
    profiles::must_exist(write.tx(), &settings.profile).await?;
    if settings != before.settings || manager.is_program() {
        managed::host_written(write.tx(), before.id, manager.writer(&who.to_string())).await?;
        let was = (Removable::Device, before.settings.name.as_str());
        write.renamed(was, &settings.name, &before.managed, &manager).await?;
    }
    if settings != before.settings {
        none_is_stranded(write.tx(), before.id, &before.settings.networks, &settings.networks).await?;
        devices::update(write.tx(), before.id, &settings).await.map_err(|e| refusal(e, Some(&who)))?;
        let data = json!({ "changed": differences(&before.settings, &settings) });
        write.event("device.changed", (Object::Device, before.id), "changed", data).await?;
        if before.settings.networks != settings.networks {
            write.peer(before.id);
        }
        write.host(before.id);
    }
    let after = load(write.tx(), Named::Id(before.id)).await?;
    write.commit().await?;
    tagged(after)
}

/// Names in one refusal. They are enough to recognise the site.
const MAX_NAMED: usize = 10;

/// Refuses to remove networks from a device that contain hosts behind it.
async fn none_is_stranded(
    tx: &mut SqliteConnection,
    device: HostId,
    before: &[IpNet],
    after: &[IpNet],
) -> Result<(), Problem> {
    let within = |networks: &[IpNet], address| networks.iter().any(|net| net.contains(address));
    let behind = devices::addresses_behind(tx, device).await?;
    let stranded = behind.iter().filter(|(_, at)| within(before, at) && !within(after, at));
    let names: Vec<&str> = stranded.map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let shown = names[..names.len().min(MAX_NAMED)].join(", ");
    let more = names.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Problem::conflict(
        "hosts_behind",
        format!("networks: {shown}{more} would no longer be reached: move or remove these hosts first"),
    ))
}

/// Ends the tunnel at once. History and events stay; the addresses rest for a day.
#[utoipa::path(delete, path = "/devices/{device}", operation_id = "remove_device", tag = "devices",
    security(("token" = ["devices:operator"])),
    params(("device" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it"),
        Removal),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(device): Path<String>,
    Query(removal): Query<Removal>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let gone = load(write.tx(), Kind::Host.named(&device)).await?;
    if_match.check(gone.version)?;
    let now = write.now;
    let consequences = Consequences::of(write.tx(), gone.id).await?;
    consequences.agreed(&gone.settings.name, removal)?;
    for Dependent { id, name } in &consequences.removed {
        if let Some(gone) = host_settings::by_id(write.tx(), *id).await? {
            write.removed((Removable::Host, &gone.settings.name), &gone.managed, &manager).await?;
        }
        devices::remove(write.tx(), *id, now).await?;
        let data = json!({ "name": name });
        write.event("host.removed", (Object::Host, *id), "its device was removed", data).await?;
        write.host(*id);
    }
    orphan(&mut write, &consequences, gone.id).await?;
    devices::remove(write.tx(), gone.id, now).await?;
    write.removed((Removable::Device, &gone.settings.name), &gone.managed, &manager).await?;
    let data = json!({ "name": gone.settings.name });
    write.event("device.removed", (Object::Device, gone.id), "removed", data).await?;
    write.peer(gone.id);
    write.host(gone.id);
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the host and those behind it from the parents of the remaining hosts.
pub(super) async fn orphan(
    write: &mut ApiTx<'_>,
    consequences: &Consequences,
    host: HostId,
) -> Result<(), Problem> {
    let gone: Vec<HostId> = consequences.removed.iter().map(|dependent| dependent.id).chain([host]).collect();
    for Dependent { id, .. } in &consequences.orphaned {
        devices::drop_parents(write.tx(), *id, &gone).await?;
        let data = json!({ "changed": ["parents"] });
        write.event("host.changed", (Object::Host, *id), "its parent was removed", data).await?;
        write.host(*id);
    }
    Ok(())
}

/// Issues new keys for a device. The previous keys stop working at once.
#[utoipa::path(post, path = "/devices/{device}/credentials", operation_id = "reissue_credentials",
    tag = "devices", security(("token" = ["devices:operator"])), request_body = NewCredentials,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = DeviceWithCredentials)))]
async fn reissue(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(new): Body<NewCredentials>,
) -> Result<Disclosed<DeviceWithCredentials>, Problem> {
    let given = Given::parse(&app, new.public_key.as_deref())?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), Kind::Host.named(&device)).await?;
    let credentials = issue(&app, &mut write, before.id, given, &who).await?;
    let before_key = before.tunnel.map(|t| t.public_key);
    let data = json!({ "previous_key": before_key });
    write.event("device.rekeyed", (Object::Device, before.id), "new credentials", data).await?;
    let device = wire(&load(write.tx(), Named::Id(before.id)).await?);
    write.host(before.id);
    write.commit().await?;
    Ok(disclosed(StatusCode::OK, device, Some(credentials)))
}

fn disclosed(
    status: StatusCode,
    device: model::Device,
    credentials: Option<Credentials>,
) -> Disclosed<DeviceWithCredentials> {
    let again = DeviceWithCredentials { device, credentials: None };
    Disclosed { status, once: DeviceWithCredentials { credentials, ..again.clone() }, again }
}

/// Confirms the host key that the device's SSH server is to prove from now on.
#[utoipa::path(post, path = "/devices/{device}/trust", operation_id = "trust_device", tag = "devices",
    security(("token" = ["devices:operator"])), request_body = Trust,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = model::Device)))]
async fn trust(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(trust): Body<Trust>,
) -> Result<Tagged<model::Device>, Problem> {
    let fingerprint = parse::host_key(&trust.host_key).map_err(|e| Problem::invalid("host_key", e))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), Kind::Host.named(&device)).await?;
    let previous = before.settings.ssh.pin.as_ref().map(|p| p.fingerprint.clone());
    let mut settings = before.settings;
    let data = json!({ "fingerprint": fingerprint, "previous": previous });
    settings.ssh.pin = Some(Pin::new(fingerprint, "trusted"));
    devices::update(write.tx(), before.id, &settings).await.map_err(|e| refusal(e, Some(&who)))?;
    write.event("device.trusted", (Object::Device, before.id), "host key confirmed", data).await?;
    write.host(before.id);
    let after = load(write.tx(), Named::Id(before.id)).await?;
    write.commit().await?;
    tagged(after)
}

/// Forgets the newest handshake time of a device whose clock was ahead and is right again.
#[utoipa::path(post, path = "/devices/{device}/reset-clock", operation_id = "reset_device_clock",
    tag = "devices", security(("token" = ["devices:operator"])),
    params(("device" = String, Path, description = "id or name")), responses((status = 204)))]
async fn reset_clock(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let device = load(write.tx(), Kind::Host.named(&device)).await?;
    if device.tunnel.is_none() {
        return Err(no_tunnel());
    }
    peer_state::forget_clock(write.tx(), device.id).await?;
    write.event("device.clock_reset", (Object::Device, device.id), "clock reset", json!({})).await?;
    write.commit().await?;
    app.handle.reset_clock(device.id).await;
    Ok(StatusCode::NO_CONTENT)
}

fn no_tunnel() -> Problem {
    Problem::conflict("no_tunnel", "this device has no tunnel: POST /devices/{device}/credentials makes one")
}

/// # Errors
/// Returns 404 when there is no such device.
pub(super) async fn load(conn: &mut SqliteConnection, named: Named) -> Result<Device, Problem> {
    let found = match &named {
        Named::Id(id) => devices::by_id(conn, *id).await?,
        Named::Name(name) => devices::by_name(conn, name).await?,
    };
    match found {
        Some(device) => Ok(device),
        None => Err(no_device(conn, named).await),
    }
}

/// Returns the reason why there is no such device. A host behind a device is no device.
async fn no_device(conn: &mut SqliteConnection, named: Named) -> Problem {
    match hosts::load(conn, named).await {
        Ok(host) => Problem::not_found(format!(
            "{} is a host behind a device, and has no tunnel of its own",
            host.name
        )),
        Err(problem) => problem,
    }
}

fn tagged(device: Device) -> Result<Tagged<model::Device>, Problem> {
    Ok(Tagged { version: device.version, value: wire(&device) })
}

/// The origin of a device's key.
pub(super) enum Given {
    /// The device generated it.
    Public(PublicKey),
    /// The gateway generates it and shows it once.
    Pair(Box<PrivateKey>),
}

impl Given {
    fn parse(app: &AppState, text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Given::Pair(Box::new(PrivateKey::generate()))) };
        parse::public_key(app, text).map(Given::Public).map_err(|e| Problem::invalid("public_key", e))
    }
}

/// Sets the key and a new preshared key of the device. Returns the credentials to be shown once.
async fn issue(
    app: &AppState,
    write: &mut ApiTx<'_>,
    device: HostId,
    given: Given,
    who: &Principal,
) -> Result<Credentials, Problem> {
    let endpoint = gateway::endpoint(app, write.tx()).await?;
    let (public, private) = match given {
        Given::Public(key) => (key, None),
        Given::Pair(pair) => (pair.public(), Some(*pair)),
    };
    let psk = PresharedKey::generate();
    let key = NewKey { public, sealed_psk: app.store.seal(&psk_place(&public), psk.as_bytes()) };
    let (pools, now) = (app.config.pools(), write.now);
    devices::set_key(write.tx(), device, key, pools, now).await.map_err(|e| refusal(e, Some(who)))?;
    write.peer(device);
    let made = load(write.tx(), Named::Id(device)).await?;
    let addresses = made.tunnel.map(|t| t.addresses).unwrap_or_default();
    conf::credentials(app, endpoint, &addresses, private, psk)
}

/// Converts the store's refusal to a problem. Only operators learn the owner of a key.
pub(super) fn refusal(error: NotMade, who: Option<&Principal>) -> Problem {
    match error {
        NotMade::NameTaken(_) => Problem::conflict("name_taken", format!("{error}: choose another")),
        NotMade::Key(taken) => {
            let owner = taken.owner.as_ref().filter(|_| who.is_some_and(|w| w.role >= Role::Operator));
            let owner = owner.map(|(id, name)| format!(" (by {name}, {})", Kind::Host.text(*id)));
            Problem::conflict("key_in_use", format!("{taken}{}", owner.unwrap_or_default()))
        }
        NotMade::Address(NoAddress::Full(_)) => Problem::conflict("pool_full", error.to_string()),
        NotMade::Address(NoAddress::Store(error)) | NotMade::Store(error) => error.into(),
    }
}

/// Checks whether an address outside the tunnel may be stored. The name is resolved, so that a
/// wrong one is reported at once.
async fn permitted(app: &AppState, address: Option<&str>) -> Result<(), Problem> {
    let host = address.and_then(|address| crate::names::host_address(address).ok());
    let Some(host) = host else { return Ok(()) };
    let asked = app.config.outbound.may_save(&host, Purpose::Watch).await;
    asked.map_err(|refused| Problem::invalid("direct_address", refused.to_string()))
}

/// A parsed request to add a device.
struct Wish {
    settings: Settings,
    /// `None` for a device outside the VPN.
    tunnel: Option<Given>,
}

impl Wish {
    fn parse(app: &AppState, new: NewDevice) -> Result<Wish, Problem> {
        let tunnelled = new.tunnel.unwrap_or(true);
        let default_route = if tunnelled { RoutePolicy::Auto } else { RoutePolicy::Direct };
        let mut fields = Fields::default();
        let key = new.public_key.as_deref().map(|k| parse::public_key(app, k));
        let key = key.and_then(|k| fields.take("public_key", k));
        let route = new.route.as_deref().map(parse::route).and_then(|r| fields.take("route", r));
        let route = route.unwrap_or(default_route);
        if tunnelled {
            fields.take("route", leads_somewhere(route, new.direct_address.as_ref()));
        } else {
            direct_only(&mut fields, &new, route);
        }
        let direct = new.direct_address.as_deref().map(crate::names::host_address);
        let settings = Settings {
            name: fields.take("name", parse::name(&new.name)).unwrap_or_default(),
            labels: fields.take("labels", parse::host_labels(new.labels)).unwrap_or_default(),
            profile: new.profile.unwrap_or_default(),
            route,
            direct_address: direct.and_then(|a| fields.take("direct_address", a)),
            ssh: ssh(&mut fields, new.ssh),
            networks: networks(&mut fields, app, &new.networks),
            notes: fields.take("notes", parse::notes(new.notes)).unwrap_or_default(),
        };
        fields.finish()?;
        let given = match key {
            Some(key) => Given::Public(key),
            None => Given::Pair(Box::new(PrivateKey::generate())),
        };
        Ok(Wish { settings, tunnel: tunnelled.then_some(given) })
    }
}

/// Checks whether the API would accept this, apart from the conditions that depend on this
/// gateway's keys and addresses.
pub(super) fn sound(new: NewDevice, is_new: bool) -> Result<(), Problem> {
    let tunnelled = new.tunnel.unwrap_or(true);
    let mut fields = Fields::default();
    let key = new.public_key.as_deref().map(|key| key.parse::<PublicKey>());
    key.and_then(|key| fields.take("public_key", key.map_err(|e| e.to_string())));
    let route = new.route.as_deref().map(parse::route).and_then(|r| fields.take("route", r));
    if is_new && tunnelled {
        let route = route.unwrap_or(RoutePolicy::Auto);
        fields.take("route", leads_somewhere(route, new.direct_address.as_ref()));
    } else if is_new {
        direct_only(&mut fields, &new, route.unwrap_or(RoutePolicy::Direct));
    }
    let direct = new.direct_address.as_deref().map(crate::names::host_address);
    direct.and_then(|address| fields.take("direct_address", address));
    fields.take("networks", new.networks.iter().try_for_each(|text| parse::plausible(text).map(drop)));
    ssh(&mut fields, new.ssh);
    fields.take("labels", parse::host_labels(new.labels));
    fields.take("notes", parse::notes(new.notes));
    fields.finish()
}

/// Checks the fields of a device without a tunnel: it needs some, and others do not apply.
fn direct_only(fields: &mut Fields, new: &NewDevice, route: RoutePolicy) {
    let wrong = [
        (
            "direct_address",
            new.direct_address.is_none(),
            "a device without a tunnel needs one: there is no other way to it",
        ),
        ("public_key", new.public_key.is_some(), "a device without a tunnel has no key"),
        ("networks", !new.networks.is_empty(), "no networks stand behind a device without a tunnel"),
        ("route", route != RoutePolicy::Direct, "a device without a tunnel has the route direct"),
    ];
    for (field, _, why) in wrong.into_iter().filter(|(_, is_wrong, _)| *is_wrong) {
        fields.take(field, Err::<(), _>(why));
    }
}

fn ssh(fields: &mut Fields, new: model::NewSsh) -> Ssh {
    let pin = new.host_key.as_deref().map(parse::host_key);
    let pin = pin.and_then(|p| fields.take("ssh.host_key", p));
    let user = new.user.as_deref().map(parse::login);
    Ssh {
        port: fields.take("ssh.port", parse::ssh_port(new.port.unwrap_or(SSH_PORT))).unwrap_or(SSH_PORT),
        user: user.and_then(|u| fields.take("ssh.user", u)),
        pin: pin.map(|fingerprint| Pin::new(fingerprint, "given")),
    }
}

fn networks(fields: &mut Fields, app: &AppState, texts: &[String]) -> Vec<IpNet> {
    fields.take("networks", parse::networks(texts, app.config.pools())).unwrap_or_default()
}

/// Returns the settings after the request.
fn changed(app: &AppState, before: &Device, change: model::DeviceChange) -> Result<Settings, Problem> {
    let mut fields = Fields::default();
    let mut settings = before.settings.clone();
    let mut set = Setter(&mut fields);
    set.to(&mut settings.name, "name", change.name.as_deref().map(parse::name));
    let labels = change.labels.map(|change| parse::host_labels(merge::labels(&settings.labels, change)));
    set.to(&mut settings.labels, "labels", labels);
    let usual = if before.tunnel.is_some() { RoutePolicy::Auto } else { RoutePolicy::Direct };
    let route = change.route.map(|route| route.as_deref().map_or(Ok(usual), parse::route));
    set.to(&mut settings.route, "route", route);
    let direct = change.direct_address.map(|a| a.as_deref().map(crate::names::host_address).transpose());
    set.to(&mut settings.direct_address, "direct_address", direct);
    change_ssh(&mut settings.ssh, change.ssh, &mut set);
    let networks = change.networks.map(|n| parse::networks(&n.unwrap_or_default(), app.config.pools()));
    set.to(&mut settings.networks, "networks", networks);
    set.to(&mut settings.notes, "notes", change.notes.map(|n| parse::notes(n.unwrap_or_default())));
    let moved = (settings.route, &settings.direct_address)
        != (before.settings.route, &before.settings.direct_address);
    if before.tunnel.is_none() {
        fields.take("direct_address", stays_reachable(&settings));
    } else if moved {
        fields.take("route", leads_somewhere(settings.route, settings.direct_address.as_ref()));
    }
    fields.finish()?;
    settings.profile = change.profile.map_or(settings.profile, Option::unwrap_or_default);
    Ok(settings)
}

/// Checks that the route `direct` has an address.
fn leads_somewhere(route: RoutePolicy, direct: Option<&String>) -> Result<(), &'static str> {
    match (route, direct) {
        (RoutePolicy::Direct, None) => {
            Err("the route direct needs a direct_address: set one, or use tunnel or auto")
        }
        _ => Ok(()),
    }
}

fn stays_reachable(settings: &Settings) -> Result<(), &'static str> {
    let direct = settings.direct_address.is_some() && settings.route == RoutePolicy::Direct;
    let wanted =
        "a device without a tunnel needs an address, the route direct, and has no networks behind it";
    if direct && settings.networks.is_empty() { Ok(()) } else { Err(wanted) }
}

/// Applies a change of the SSH settings of a device or host. The pin is no setting: `POST
/// /devices/{device}/trust` changes it.
pub(super) fn change_ssh(ssh: &mut Ssh, change: Option<Option<model::SshChange>>, set: &mut Setter<'_>) {
    let Some(change) = change else { return };
    let usual = model::SshChange { port: Some(None), user: Some(None) };
    let change = change.unwrap_or(usual);
    set.to(&mut ssh.port, "ssh.port", change.port.map(|port| parse::ssh_port(port.unwrap_or(SSH_PORT))));
    let user = change.user.map(|user| user.as_deref().map(parse::login).transpose());
    set.to(&mut ssh.user, "ssh.user", user);
}

/// Applies values that were given and are valid.
pub(super) struct Setter<'a>(pub(super) &'a mut Fields);

impl Setter<'_> {
    pub(super) fn to<T, E: std::fmt::Display>(
        &mut self,
        slot: &mut T,
        field: &str,
        given: Option<Result<T, E>>,
    ) {
        if let Some(value) = given.and_then(|value| self.0.take(field, value)) {
            *slot = value;
        }
    }
}

/// Returns the names of the changed settings, for the event.
fn differences(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let pairs = [
        ("name", before.name != after.name),
        ("labels", before.labels != after.labels),
        ("profile", before.profile != after.profile),
        ("route", before.route != after.route),
        ("direct_address", before.direct_address != after.direct_address),
        ("ssh", before.ssh != after.ssh),
        ("networks", before.networks != after.networks),
        ("notes", before.notes != after.notes),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

pub(super) fn wire(device: &Device) -> model::Device {
    let settings = &device.settings;
    let pin = settings.ssh.pin.as_ref();
    model::Device {
        id: Kind::Host.text(device.id),
        name: settings.name.clone(),
        labels: settings.labels.clone(),
        profile: render::profile(&settings.profile),
        route: devices::route_name(settings.route).to_owned(),
        tunnel: device.tunnel.as_ref().map(|tunnel| model::DeviceTunnel {
            public_key: tunnel.public_key.clone(),
            keyed_at: ids::time(tunnel.keyed_at),
            addresses: tunnel.addresses.iter().map(ToString::to_string).collect(),
        }),
        direct_address: settings.direct_address.clone(),
        ssh: model::DeviceSsh {
            port: settings.ssh.port,
            user: settings.ssh.user.clone(),
            pin: pin.map(|p| p.fingerprint.clone()),
            pin_source: pin.map(|p| p.source.clone()),
            pin_type: pin.and_then(|p| p.key_type.clone()),
        },
        networks: settings.networks.iter().map(ToString::to_string).collect(),
        notes: settings.notes.clone(),
        managed: render::managed(&device.managed),
        created_at: ids::time(device.created_at),
        version: device.version,
    }
}
