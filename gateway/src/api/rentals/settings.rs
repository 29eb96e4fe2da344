//! Which devices are rented, how long each needs before and after a rental, and what renters reach.

use axum::extract::State;
use fleetgate_engine::rental::device_access::Obstacle;
use fleetgate_engine::rental::terms::{Origin, Setting, Terms};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_types::{DeviceRentalSettings, NewDeviceRentalSettings};
use super::device_upkeep::{self, UpkeepChange};
use super::handovers::{Handover, gate_to_api, lacked, must_exist};
use super::terms::TermsChange;
use super::{access, gate_changed};
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path};
use crate::api::request::ids::IdKind;
use crate::api::request::parse::Fields;
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::problem::Problem;
use crate::api::{AppState, devices};
use crate::clock;
use crate::store::devices::{self as stored_devices, Device};
use crate::store::events::Object;
use crate::store::rentals::{device_access, devices as stored, handovers, terms};
use crate::store::snapshot::checked_services;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, set))
}

/// How a device is rented.
#[utoipa::path(get, path = "/devices/{device}/rental-settings", operation_id = "show_rental_settings",
    tag = "rentals", security(("token" = ["devices:viewer"])),
    params(("device" = String, Path, description = "id or name")),
    responses((status = 200, body = DeviceRentalSettings)))]
async fn show(
    State(app): State<AppState>,
    Path(device): Path<String>,
) -> Result<Tagged<DeviceRentalSettings>, Problem> {
    let mut conn = app.store.reader().await?;
    let device = devices::load(&mut conn, IdKind::Host.named(&device)).await?;
    let (settings, profile) = terms::counting(&mut conn, device.id).await?;
    let obstacle = handovers::obstacle_of(&mut conn, device.id, None, clock::wall()).await?;
    let known = checked_services(&mut conn, device.id, &app.config.timing).await;
    let gate_lacks = lacked(&known.map_err(Problem::internal)?, settings.gate.as_ref());
    let shown = to_api(&device, (&settings, &profile), obstacle);
    Ok(Tagged { version: settings.version, value: DeviceRentalSettings { gate_lacks, ..shown } })
}

/// Sets whether a device is rented, how long it needs before and after a rental, what renters reach, when it is handed
/// over, and whether it is mounted or shipped.
///
/// Readiness and gate hold for rentals that have not begun and for those that are delayed. They keep no device from
/// being booked.
///
/// 409 `not_rentable`: the device has no tunnel, or hosts behind it. 409 `rentals_open`: it stays rentable while
/// rentals have not ended; a block keeps it from being booked again. 409 `access_not_removed`: the account for renters
/// stays while renters have, or may have, access to it.
#[utoipa::path(put, path = "/devices/{device}/rental-settings", operation_id = "set_rental_settings",
    tag = "rentals", security(("token" = ["devices:operator"])), request_body = NewDeviceRentalSettings,
    params(("device" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = DeviceRentalSettings)))]
async fn set(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    if_match: IfMatch,
    Body(mut new): Body<NewDeviceRentalSettings>,
) -> Result<Tagged<DeviceRentalSettings>, Problem> {
    let mut wrong = Fields::default();
    let upkeep = UpkeepChange::parsed(&mut wrong, &mut new);
    let change = TermsChange::parsed(&mut wrong, &mut new);
    let handover = Handover::parsed(&mut wrong, (new.ready, new.not_ready_reason));
    wrong.finish()?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let device = devices::load(write.tx(), IdKind::Host.named(&device)).await?;
    let (before, profile) = terms::counting(write.tx(), device.id).await?;
    if_match.check(before.version)?;
    if new.rentable {
        can_be_rented(&mut write, &device).await?;
    } else if before.rentable {
        super::none_of_device(&mut write, device.id, &device.settings.name).await?;
    }
    if let Some(services) = change.gate_services() {
        must_exist(&app, &mut write, device.id, services).await?;
    }
    let mut after = change.apply(before.clone(), &profile);
    after.rentable = new.rentable;
    handover.apply(&mut after)?;
    upkeep.apply(&mut write, &device, &mut after).await?;
    if after != before {
        device_access::note_root(write.tx(), &[device.id].into()).await?;
        stored::set(write.tx(), device.id, &after).await?;
        stored::set_cleaning(write.tx(), device.id, after.cleaning_command.as_deref()).await?;
        if !after.ssh_root && !after.inherits.contains(&Setting::SshRoot) {
            device_access::never_rooted(write.tx(), device.id).await?;
        }
        if before.ssh_account.is_some() && before.ssh_account != after.ssh_account {
            device_upkeep::warn_of_account(&mut write, device.id, after.ssh_account.as_deref()).await?;
        }
        gate_changed(&mut write, device.id).await?;
        after.version = stored::settings(write.tx(), device.id).await?.version;
        let shown = to_api(&device, (&after, &profile), None);
        let data = json!({ "rentable": shown.rentable, "preparation_s": shown.preparation_s,
            "turnaround_s": shown.turnaround_s, "access": shown.access, "ready": shown.ready,
            "not_ready_reason": shown.not_ready_reason, "gate": shown.gate,
            "ssh_account": shown.ssh_account, "ssh_root": shown.ssh_root,
            "cleaning_command": shown.cleaning_command, "delivery": shown.delivery,
            "origins": shown.origins });
        write.event("device.rental_settings_changed", (Object::Device, device.id), "changed", data).await?;
    }
    let now = write.now;
    let obstacle = handovers::obstacle_of(write.tx(), device.id, None, now).await?;
    let known = checked_services(write.tx(), device.id, &app.config.timing).await;
    let gate_lacks = lacked(&known.map_err(Problem::internal)?, after.gate.as_ref());
    write.commit().await?;
    let shown = to_api(&device, (&after, &profile), obstacle);
    Ok(Tagged { version: after.version, value: DeviceRentalSettings { gate_lacks, ..shown } })
}

async fn can_be_rented(write: &mut ApiTx<'_>, device: &Device) -> Result<(), Problem> {
    let name = &device.settings.name;
    let detail = match stored_devices::hosts_behind(write.tx(), device.id).await?.len() {
        0 if device.tunnel.is_some() => return Ok(()),
        0 => format!("{name} has no tunnel: POST /devices/{name}/credentials makes one"),
        hosts => format!("{name} has {hosts} hosts behind it, which would be rented with it: remove them"),
    };
    Err(Problem::conflict("not_rentable", detail))
}

/// `obstacle`: why the gateway does not hand it over, beside what an operator says.
fn to_api(
    device: &Device,
    (settings, profile): (&stored::Settings, &Terms),
    obstacle: Option<(Obstacle, Option<String>)>,
) -> DeviceRentalSettings {
    let obstacle = obstacle.map(|(what, failure)| device_upkeep::in_words(what, failure.as_deref()));
    let not_ready = settings.not_ready.clone().or(obstacle);
    let own = settings.own();
    let origin =
        |setting: Setting| (setting.name().to_owned(), Origin::of(setting, &own, profile).name().to_owned());
    DeviceRentalSettings {
        device: IdKind::Host.text(device.id),
        device_name: device.settings.name.clone(),
        rentable: settings.rentable,
        preparation_s: settings.margins.preparation.as_secs_f64(),
        turnaround_s: settings.margins.turnaround.as_secs_f64(),
        access: access::to_api(&settings.access),
        ready: not_ready.is_none(),
        not_ready_reason: not_ready,
        gate: settings.gate.as_ref().map(gate_to_api),
        gate_lacks: Vec::new(),
        ssh_account: settings.ssh_account.clone(),
        ssh_mode: settings.ssh_mode.clone(),
        ssh_root: settings.ssh_root,
        cleaning_command: settings.cleaning_command.clone(),
        delivery: settings.delivery.name().to_owned(),
        origins: Setting::ALL.map(origin).into(),
        version: settings.version,
    }
}
