//! When rented devices are handed over: what a device needs for it, what keeps a rental from beginning, and a gate that
//! is opened by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Arrival, GateRule, HandoverSpec, HostState, RENTAL_SERVICE, ServiceState};
use fleetgate_engine::rental::device_access::Obstacle;
use fleetgate_engine::rental::handover::{DeviceSeen, Failure, ServiceSeen, failures, good_since};
use fleetgate_engine::rental::life::{self, State as RentalState};
use fleetgate_engine::time::Wall;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_types::HandoverGate;
use super::device_upkeep;
use super::types::{ForcedHandover, Rental, RentalDelay};
use super::{begin_rental, change, keep, load, to_api};
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path};
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::{self as fields, Fields};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::problem::Problem;
use crate::store::events::Object;
use crate::store::rentals::changes::What;
use crate::store::rentals::{self as stored, blocks, devices, handovers, shipments};
use crate::store::{Store, snapshot, states};

/// The kinds of what keeps a rental from beginning.
pub const DELAY_KINDS: [&str; 9] = [
    "not_ready",
    "ssh",
    "blocked",
    "not_returned",
    "not_dispatched",
    "not_arrived",
    "device",
    "service",
    "settling",
];

/// Services that a gate names.
const MAX_SERVICES: usize = 256;
/// The longest time for which services must be OK.
const LONGEST_GATE_S: f64 = 86_400.0;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(hand_over))
}

// ------------------------------------------------------------------- settings

/// What a request sets of the handover of a device. Absent fields stay as they are.
pub struct Handover {
    /// Why the device is not ready. `Some(None)`: it is ready.
    not_ready: Option<Option<String>>,
    /// It is not ready, for the reason that is known.
    still_not_ready: bool,
}

impl Handover {
    pub fn parsed(wrong: &mut Fields, (ready, reason): (Option<bool>, Option<String>)) -> Handover {
        let reason = reason.and_then(|reason| wrong.take("not_ready_reason", given(reason)));
        if reason.is_some() && ready != Some(false) {
            wrong.take::<()>("not_ready_reason", Err("it is only expected with \"ready\": false"));
        }
        let still_not_ready = ready == Some(false) && reason.is_none();
        let not_ready = ready.filter(|_| !still_not_ready).map(|ready| reason.filter(|_| !ready));
        Handover { not_ready, still_not_ready }
    }

    /// Changes the settings of a device.
    ///
    /// # Errors
    /// Returns 422 for a device that is not ready without a reason.
    pub fn apply(self, settings: &mut devices::Settings) -> Result<(), Problem> {
        if self.still_not_ready && settings.not_ready.is_none() {
            return Err(Problem::invalid("not_ready_reason", "say why the device is not ready"));
        }
        settings.not_ready = self.not_ready.unwrap_or_else(|| settings.not_ready.take());
        Ok(())
    }
}

fn given(reason: String) -> Result<String, String> {
    let reason = fields::title(reason)?;
    if reason.trim().is_empty() { Err("say why".to_owned()) } else { Ok(reason) }
}

pub fn rule(gate: HandoverGate) -> Result<GateRule, String> {
    let HandoverGate { services, ok_for_s } = gate;
    if !(0.0..=LONGEST_GATE_S).contains(&ok_for_s) {
        return Err(format!("ok_for_s: seconds from 0 to {LONGEST_GATE_S} are expected"));
    }
    let count = services.as_ref().map_or(1, Vec::len);
    if !(1..=MAX_SERVICES).contains(&count) {
        return Err(format!(
            "services: 1 to {MAX_SERVICES} names are expected, or null for all services of the device"
        ));
    }
    let services = services.map(|names| names.into_iter().collect());
    Ok(GateRule { services, ok_for: Duration::from_millis((ok_for_s * 1_000.0) as u64) })
}

/// Returns the services that a gate names and the device, which has the `known` ones, does not have: it was set before
/// they were taken away, or by a profile.
pub fn lacked(known: &[String], gate: Option<&GateRule>) -> Vec<String> {
    let named = gate.and_then(|gate| gate.services.as_ref()).into_iter().flatten();
    named.filter(|name| !known.contains(name)).cloned().collect()
}

/// # Errors
/// Returns 422 for services that the device does not have.
pub async fn must_exist(
    app: &AppState,
    write: &mut ApiTx<'_>,
    device: HostId,
    services: &BTreeSet<String>,
) -> Result<(), Problem> {
    let known = snapshot::checked_services(write.tx(), device, &app.config.timing).await;
    let known = known.map_err(Problem::internal)?;
    let Some(unknown) = services.iter().find(|name| !known.contains(name)) else { return Ok(()) };
    let shown: String = unknown.chars().take(80).collect();
    let detail = format!("the device has no service {shown:?}, only {}", known.join(", "));
    Err(Problem::invalid("gate", detail))
}

pub fn gate_to_api(gate: &GateRule) -> HandoverGate {
    HandoverGate {
        services: gate.services.as_ref().map(|names| names.iter().cloned().collect()),
        ok_for_s: gate.ok_for.as_secs_f64(),
    }
}

// ------------------------------------------------------------------- delays

/// Returns what keeps a rental that is delayed from beginning.
pub async fn delays(app: &AppState, rental: &stored::Rental, now: Wall) -> Result<Vec<RentalDelay>, Problem> {
    if rental.life.state(now) != RentalState::Delayed {
        return Ok(Vec::new());
    }
    let store = &app.store;
    let mut conn = store.reader().await?;
    let spec = handovers::these(&mut conn, &[rental.id].into()).await?.remove(&rental.id);
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let name = &rental.device_name;
    let mut all = Vec::new();
    if let Some(reason) = handovers::not_ready(&mut conn, rental.device).await? {
        all.push(delay("not_ready", None, format!("{name} is not ready: {reason}")));
    }
    let obstacle = handovers::obstacle_of(&mut conn, rental.device, Some(rental.id), now).await?;
    all.extend(obstacle.map(|(obstacle, failure)| by_upkeep(name, obstacle, failure.as_deref())));
    if is_blocked(app, &spec) {
        // One that has begun by the boot-time clock alone has no time that is shown.
        let since = blocks::since(&mut conn, rental.device, now).await?;
        all.push(delay("blocked", since, format!("{name} is blocked")));
    }
    if let Some(other) = shipments::away(&mut conn, rental.device, rental.id).await? {
        let text = format!("{name} has not come back from {}", IdKind::Rental.text(other));
        all.push(delay("not_returned", None, text));
    }
    match spec.arrival {
        Arrival::Done => {}
        Arrival::NotDispatched => {
            all.push(delay("not_dispatched", None, format!("{name} was not dispatched")));
        }
        Arrival::Awaited { dispatched_at } => {
            let text = format!("{name} has not been heard from since it was dispatched");
            all.push(delay("not_arrived", Some(dispatched_at), text));
        }
    }
    drop(conn);
    let since = match &spec.rule {
        Some(rule) => {
            let (failing, since) = judged(store, rental.device, rule).await?;
            all.extend(failing.into_iter().map(|failure| failed(name, failure)));
            since
        }
        None => None,
    };
    if all.is_empty() {
        all.push(delay("settling", since, settling(spec.rule.as_ref())));
    }
    Ok(all)
}

/// Whether the device of a rental is blocked by one of the clocks.
fn is_blocked(app: &AppState, spec: &HandoverSpec) -> bool {
    let now = crate::clock::now();
    app.handle.rental_times().decide(now, |known| known.is_blocked(spec.rental, &spec.blocks, now))
}

/// Returns what keeps the gate of a device shut by the states that are stored, and since when they are what they are.
pub async fn judged(
    store: &Store,
    device: HostId,
    rule: &GateRule,
) -> Result<(Vec<Failure>, Option<Wall>), Problem> {
    let mut conn = store.reader().await?;
    let state = states::of_host(&mut conn, device).await?;
    let services = states::services_of(&mut conn, device).await?;
    let device = state.as_ref().map(device_seen);
    let checked = services.iter().filter(|row| row.state.name != RENTAL_SERVICE);
    let services: Vec<ServiceSeen<'_>> = checked.map(|row| service_seen(&row.state)).collect();
    let failing = failures(rule, device.as_ref(), &services);
    Ok((failing, device.map(|device| good_since(rule, &device, &services))))
}

/// What the renters of this rental need is `ssh`; what former ones have left, the device is not ready for.
fn by_upkeep(device: &str, obstacle: Obstacle, failure: Option<&str>) -> RentalDelay {
    let why = device_upkeep::in_words(obstacle, failure);
    match obstacle {
        Obstacle::NotGranted | Obstacle::NoAccount => delay("ssh", None, why),
        _ => delay("not_ready", None, format!("{device} is not ready: {why}")),
    }
}

fn delay(kind: &str, since: Option<Wall>, text: String) -> RentalDelay {
    RentalDelay { kind: kind.to_owned(), service: None, state: None, since: since.map(ids::time), text }
}

fn failed(device: &str, failure: Failure) -> RentalDelay {
    let Failure { service, state, since } = failure;
    let what = service.as_deref().unwrap_or(device);
    let text = match state {
        Failure::MISSING => format!("{device} has no service {what}"),
        "pending" => format!("{what} has no result"),
        Failure::STALE => format!("the result of {what} is outdated"),
        state => {
            let since = since.map(|at| format!(" since {}", ids::time(at))).unwrap_or_default();
            format!("{what} {}{since}", state.to_uppercase())
        }
    };
    let kind = if service.is_some() { "service" } else { "device" };
    RentalDelay { service, state: Some(state.to_owned()), ..delay(kind, since, text) }
}

fn settling(rule: Option<&GateRule>) -> String {
    match rule.map(|rule| rule.ok_for.as_secs()) {
        None | Some(0) => "the handover is about to come".to_owned(),
        Some(seconds) => format!(
            "all is OK, and must be so for {seconds} s; a start of the gateway and a change of the device begin \
             this time anew"
        ),
    }
}

fn device_seen(state: &HostState) -> DeviceSeen {
    DeviceSeen {
        status: state.status,
        is_reachable: state.reachable,
        is_current: !state.stale && !state.asleep,
        since: state.since,
    }
}

fn service_seen(state: &ServiceState) -> ServiceSeen<'_> {
    ServiceSeen { name: &state.name, status: state.status, is_current: !state.stale, since: state.since }
}

// ------------------------------------------------------------------- by hand

/// Hands the device of a delayed rental over although its gate is shut.
///
/// 409 `rental_not_delayed`: it has not begun, or has its device. 409 `device_blocked`: end the block first. 409
/// `device_in_use`: the shipped device has not come back from another rental. 409 `rental_over`: it has ended.
#[utoipa::path(post, path = "/rentals/{rental}/hand-over", operation_id = "hand_over_rental", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = ForcedHandover,
    params(("rental" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the handover is meant for")),
    responses((status = 200, body = Rental)))]
async fn hand_over(
    State(app): State<AppState>,
    who: Principal,
    Path(rental): Path<String>,
    if_match: IfMatch,
    Body(forced): Body<ForcedHandover>,
) -> Result<Tagged<Rental>, Problem> {
    let mut wrong = Fields::default();
    if !forced.force {
        wrong.take::<()>("force", Err("true is expected: a gate that is passed opens by itself"));
    }
    let reason = wrong.take("reason", given(forced.reason)).unwrap_or_default();
    wrong.finish()?;
    let mut write = begin_rental(&app, &who).await?;
    let (before, now) = (load(&mut write, &rental).await?, write.now);
    if_match.check(before.version)?;
    must_be_delayed(&app, &mut write, &before).await?;
    let mut after = before;
    after.life.handover = life::Handover::Done(now);
    stored::update(write.tx(), &after, now).await?;
    after.version += 1;
    write.rental(after.id);
    keep(&mut write, &[after.id], What::HandedOver, &[]).await?;
    let data = handovers::event_data(&after, &reason);
    write.event(handovers::HANDED_OVER, (Object::Rental, after.id), "handed over by hand", data).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after, now) })
}

async fn must_be_delayed(
    app: &AppState,
    write: &mut ApiTx<'_>,
    rental: &stored::Rental,
) -> Result<(), Problem> {
    let (now, name) = (write.now, IdKind::Rental.text(rental.id));
    let state = change::is_open(rental, now)?;
    if state != RentalState::Delayed {
        let detail =
            format!("{name} is {}: only a rental that is delayed is handed over by hand", state.name());
        return Err(Problem::conflict("rental_not_delayed", detail));
    }
    let gated = handovers::these(write.tx(), &[rental.id].into()).await?;
    if gated.values().any(|spec| is_blocked(app, spec)) {
        let detail = format!("{} is blocked: end the block first", rental.device_name);
        return Err(Problem::conflict("device_blocked", detail));
    }
    if let Some(other) = shipments::away(write.tx(), rental.device, rental.id).await? {
        let (device, other) = (&rental.device_name, IdKind::Rental.text(other));
        let detail = format!(
            "{device} has not come back from {other}, so its former renters would be reached: note its return first, \
             or take another device"
        );
        return Err(Problem::conflict("device_in_use", detail));
    }
    Ok(())
}
