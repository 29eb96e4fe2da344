//! Devices: identity and tunnel. `hosts` has their states.

mod settings;
mod types;
pub mod wireguard_conf;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::HostId;
use fleetgate_keys::{Endpoint, PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::dependents::{Consequences, Removal};
use super::request::auth::{Principal, Role};
use super::request::extract::{Body, Path, Query};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::parse;
use super::request::query::WithLabels;
use super::request::transaction::ApiTx;
use super::response::etag::{IfMatch, Tagged, header_value};
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, not_empty};
use super::{AppState, gateway, grants, hosts, profiles, rentals};
use crate::outbound::Purpose;
use crate::store::addresses::NoAddress;
use crate::store::devices::{self, Dependent, KeyOwner, NewKey, NotMade, Pin};
use crate::store::events::Object;
use crate::store::removals::Removable;
use crate::store::snapshot::psk_place;
use crate::store::{SqliteConnection, grants as stored_grants, host_settings, managed, peer_state};

pub(super) use settings::change_ssh;
pub use settings::validate;
use settings::{ParsedDevice, changed, differences};
pub use types::*;
use wireguard_conf::Inside;

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
struct Filter {
    /// A part of the name.
    q: Option<String>,
}

/// Devices, by name.
#[utoipa::path(get, path = "/devices", operation_id = "list_devices", tag = "devices",
    security(("token" = ["devices:viewer"])), params(Paging, Filter, WithLabels),
    responses((status = 200, body = Page<Device>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
    labels: WithLabels,
) -> Result<Json<Page<Device>>, Problem> {
    let filter = devices::Filter { q: wanted.q, labels: labels.label };
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let rows = app.store.devices(&filter, &after, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |d| d.settings.name.clone(), |d| to_api(&d))))
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
    let wanted = ParsedDevice::parse(&app, new)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    profiles::must_exist(write.tx(), &wanted.settings.profile).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    let inserted = devices::insert(write.tx(), id, &wanted.settings, now).await;
    inserted.map_err(|e| refusal(e, Some(&who)))?;
    managed::host_written(write.tx(), id, manager.writer(&who.to_string())).await?;
    write.made((Removable::Device, &wanted.settings.name), &manager).await?;
    let credentials = match wanted.tunnel {
        Some(given) => Some(issue(&app, &mut write, (id, wanted.settings.mtu), given, &who).await?),
        None => None,
    };
    // The peer that has some of the settings exists only now.
    devices::write_peer(write.tx(), id, &wanted.settings).await?;
    let data = json!({ "name": wanted.settings.name, "tunnel": credentials.is_some() });
    write.event("device.created", (Object::Device, id), "added", data).await?;
    let made = load(write.tx(), Named::Id(id)).await?;
    write.host(id);
    write.commit().await?;
    let tag = [(header::ETAG, header_value(made.version))];
    Ok((tag, disclosed(StatusCode::CREATED, to_api(&made), credentials)).into_response())
}

/// A device.
#[utoipa::path(get, path = "/devices/{device}", operation_id = "show_device", tag = "devices",
    security(("token" = ["devices:viewer"])), params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = Device)))]
async fn show(State(app): State<AppState>, Path(device): Path<String>) -> Result<Tagged<Device>, Problem> {
    let mut conn = app.store.reader().await?;
    tagged(load(&mut conn, IdKind::Host.named(&device)).await?)
}

/// Changes a device.
#[utoipa::path(patch, path = "/devices/{device}", operation_id = "change_device", tag = "devices",
    security(("token" = ["devices:operator"])), request_body = DeviceChange,
    params(("device" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for")),
    responses((status = 200, body = Device)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(device): Path<String>,
    if_match: IfMatch,
    Body(change): Body<DeviceChange>,
) -> Result<Tagged<Device>, Problem> {
    permitted(&app, change.direct_address.as_ref().and_then(Option::as_deref)).await?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Host.named(&device)).await?;
    if_match.check(before.version)?;
    let settings = changed(&app, &before, change)?;
    profiles::must_exist(write.tx(), &settings.profile).await?;
    if settings.ssh.user != before.settings.ssh.user {
        rentals::is_no_renter(&mut write, before.id, settings.ssh.user.as_deref()).await?;
    }
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
        if (&before.settings.networks, before.settings.mtu) != (&settings.networks, settings.mtu) {
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
///
/// 409 `access_not_removed`: renters have, or may have, SSH access to the device, which would stay there; `cascade` removes
/// the device nevertheless, and the event says so.
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
    let gone = load(write.tx(), IdKind::Host.named(&device)).await?;
    if_match.check(gone.version)?;
    let now = write.now;
    rentals::none_of_device(&mut write, gone.id, &gone.settings.name).await?;
    let leaves_access = rentals::removed_with(&mut write, &gone, removal.cascade).await?;
    let consequences = Consequences::of(write.tx(), gone.id).await?;
    consequences.agreed(&gone.settings.name, removal)?;
    for Dependent { id, name } in &consequences.removed {
        if let Some(gone) = host_settings::by_id(write.tx(), *id).await? {
            write.removed((Removable::Host, &gone.settings.name), &gone.managed, &manager).await?;
        }
        grants::withdraw_those_of(&mut write, &manager, stored_grants::Named::Host(*id)).await?;
        devices::remove(write.tx(), *id, now).await?;
        let data = json!({ "name": name });
        write.event("host.removed", (Object::Host, *id), "its device was removed", data).await?;
        write.host(*id);
    }
    orphan(&mut write, &consequences, gone.id).await?;
    grants::withdraw_those_of(&mut write, &manager, stored_grants::Named::Host(gone.id)).await?;
    rentals::end_blocks(&mut write, gone.id).await?;
    devices::remove(write.tx(), gone.id, now).await?;
    write.removed((Removable::Device, &gone.settings.name), &gone.managed, &manager).await?;
    let data = json!({ "name": gone.settings.name });
    let cause = leaves_access.as_deref().unwrap_or("removed");
    write.event("device.removed", (Object::Device, gone.id), cause, data).await?;
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
///
/// 409 `rentals_open`: a rental of the device has begun; `force` interrupts it.
#[utoipa::path(post, path = "/devices/{device}/credentials", operation_id = "reissue_credentials",
    tag = "devices", security(("token" = ["devices:operator"])), request_body = NewDeviceCredentials,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = DeviceWithCredentials)))]
async fn reissue(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(new): Body<NewDeviceCredentials>,
) -> Result<Disclosed<DeviceWithCredentials>, Problem> {
    let given = Given::parse(&app, new.public_key.as_deref())?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Host.named(&device)).await?;
    rentals::may_be_rekeyed(&mut write, &before, new.force).await?;
    let peer = (before.id, before.settings.mtu);
    let credentials = issue(&app, &mut write, peer, given, &who).await?;
    let before_key = before.tunnel.map(|t| t.public_key);
    let data = json!({ "previous_key": before_key });
    write.event("device.rekeyed", (Object::Device, before.id), "new credentials", data).await?;
    let device = to_api(&load(write.tx(), Named::Id(before.id)).await?);
    write.host(before.id);
    write.commit().await?;
    Ok(disclosed(StatusCode::OK, device, Some(credentials)))
}

fn disclosed(
    status: StatusCode,
    device: Device,
    credentials: Option<Credentials>,
) -> Disclosed<DeviceWithCredentials> {
    let again = DeviceWithCredentials { device, credentials: None };
    Disclosed { status, once: DeviceWithCredentials { credentials, ..again.clone() }, again }
}

/// Confirms the host key that the device's SSH server is to prove from now on.
#[utoipa::path(post, path = "/devices/{device}/trust", operation_id = "trust_device", tag = "devices",
    security(("token" = ["devices:operator"])), request_body = Trust,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = Device)))]
async fn trust(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(trust): Body<Trust>,
) -> Result<Tagged<Device>, Problem> {
    let fingerprint = parse::host_key(&trust.host_key).map_err(|e| Problem::invalid("host_key", e))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Host.named(&device)).await?;
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
    let device = load(write.tx(), IdKind::Host.named(&device)).await?;
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
pub(super) async fn load(conn: &mut SqliteConnection, named: Named) -> Result<devices::Device, Problem> {
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

fn tagged(device: devices::Device) -> Result<Tagged<Device>, Problem> {
    Ok(Tagged { version: device.version, value: to_api(&device) })
}

/// The origin of a device's key.
pub(super) enum Given {
    /// The device generated it.
    Public(PublicKey),
    /// The gateway generates it and shows it once.
    Pair(Box<PrivateKey>),
}

impl Given {
    pub(super) fn parse(app: &AppState, text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Given::Pair(Box::new(PrivateKey::generate()))) };
        parse::public_key(app, text).map(Given::Public).map_err(|e| Problem::invalid("public_key", e))
    }
}

/// Sets the key and a new preshared key of the device. Returns the credentials to be shown once.
async fn issue(
    app: &AppState,
    write: &mut ApiTx<'_>,
    (device, mtu): (HostId, Option<u16>),
    given: Given,
    who: &Principal,
) -> Result<Credentials, Problem> {
    let prepared = Prepared::new(app, write, given).await?;
    let (pools, now) = (app.config.pools(), write.now);
    let set = devices::set_key(write.tx(), (device, devices::DEVICE), prepared.key(app), pools, now).await;
    set.map_err(|e| refusal(e, Some(who)))?;
    write.peer(device);
    let made = load(write.tx(), Named::Id(device)).await?;
    let addresses = made.tunnel.map(|t| t.addresses).unwrap_or_default();
    prepared.credentials(app, Inside::whole_pools(app, &addresses, mtu))
}

/// New keys of a peer, before they are stored.
pub(super) struct Prepared {
    endpoint: Endpoint,
    public: PublicKey,
    /// `None`: the peer keeps its own.
    private: Option<PrivateKey>,
    psk: PresharedKey,
}

impl Prepared {
    /// # Errors
    /// Returns 409 while the gateway has no endpoint.
    pub async fn new(app: &AppState, write: &mut ApiTx<'_>, given: Given) -> Result<Self, Problem> {
        let endpoint = gateway::endpoint(app, write.tx()).await?;
        let (public, private) = match given {
            Given::Public(key) => (key, None),
            Given::Pair(pair) => (pair.public(), Some(*pair)),
        };
        Ok(Prepared { endpoint, public, private, psk: PresharedKey::generate() })
    }

    /// Returns the keys for the store.
    pub fn key(&self, app: &AppState) -> NewKey {
        let sealed_psk = app.store.seal(&psk_place(&self.public), self.psk.as_bytes());
        NewKey { public: self.public, sealed_psk }
    }

    /// Returns the credentials to be shown once.
    ///
    /// # Errors
    /// Fails when the configuration does not fit a QR code.
    pub fn credentials(self, app: &AppState, inside: Inside<'_>) -> Result<Credentials, Problem> {
        wireguard_conf::credentials(app, self.endpoint, inside, self.private, self.psk)
    }
}

/// Converts the store's refusal to a problem. Only operators learn the owner of a key.
pub(super) fn refusal(error: NotMade, who: Option<&Principal>) -> Problem {
    match error {
        NotMade::NameTaken(_) => Problem::conflict("name_taken", format!("{error}: choose another")),
        NotMade::Key(taken) => {
            let owner = taken.owner.as_ref().filter(|_| who.is_some_and(|w| w.role >= Role::Operator));
            let named = |KeyOwner { peer, kind, name }: &KeyOwner| {
                let name = name.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
                format!(" (by {name}{})", kind.text(*peer))
            };
            let owner = owner.map(named);
            Problem::conflict("key_in_use", format!("{taken}{}", owner.unwrap_or_default()))
        }
        NotMade::Address(NoAddress::Full(_) | NoAddress::NoBlock { .. }) => {
            Problem::conflict("pool_full", error.to_string())
        }
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

pub(super) fn to_api(device: &devices::Device) -> Device {
    let settings = &device.settings;
    let pin = settings.ssh.pin.as_ref();
    Device {
        id: IdKind::Host.text(device.id),
        name: settings.name.clone(),
        labels: settings.labels.clone(),
        profile: not_empty(&settings.profile),
        route: devices::route_name(settings.route).to_owned(),
        tunnel: device.tunnel.as_ref().map(|tunnel| DeviceTunnel {
            public_key: tunnel.public_key.clone(),
            keyed_at: ids::time(tunnel.keyed_at),
            addresses: tunnel.addresses.iter().map(ToString::to_string).collect(),
        }),
        direct_address: settings.direct_address.clone(),
        ssh: DeviceSsh {
            port: settings.ssh.port,
            user: settings.ssh.user.clone(),
            pin: pin.map(|p| p.fingerprint.clone()),
            pin_source: pin.map(|p| p.source.clone()),
            pin_type: pin.and_then(|p| p.key_type.clone()),
        },
        networks: settings.networks.iter().map(ToString::to_string).collect(),
        mtu: settings.mtu,
        notes: settings.notes.clone(),
        managed: (&device.managed).into(),
        created_at: ids::time(device.created_at),
        version: device.version,
    }
}
