//! The settings of hosts, and hosts that stand behind a device.

mod trust;
mod types;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{RoutePolicy, Threshold};
use fleetgate_engine::monitor::profile::AlertingChange;
use ipnet::IpNet;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::{self, DeviceSsh, refusal};
use super::hosts::dependents::{Consequences, Removal};
use super::hosts::{self as shown, Host};
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query};
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::merge_patch;
use super::request::parse::{self, Fields, Setter};
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged, header_value};
use super::response::problem::Problem;
use super::types::{ThresholdSettings, not_empty};
use super::{AppState, grants, profiles, rentals};
use crate::store::definition::LONGEST_FRESHNESS_S;
use crate::store::devices::{Pin, Ssh, route_name};
use crate::store::events::Object;
use crate::store::host_settings::{self as stored, Settings, Stored, Timing};
use crate::store::removals::Removable;
use crate::store::{
    SqliteConnection, addresses, alerting, definition, grants as stored_grants, managed,
    profiles as stored_profiles,
};

pub use types::*;

const SSH_PORT: u16 = 22;
/// The sensible range of an interval, in seconds.
const SHORTEST_S: f64 = 0.1;
const LONGEST_S: f64 = 7.0 * 86_400.0;
/// A device that reports once a week is the slowest supported one.
const LONGEST_SILENCE_S: f64 = 31.0 * 86_400.0;
const MAX_ATTEMPTS: u32 = 100;
/// Bytes per day: from a device that only completes a handshake now and then, to a gigabit line.
const LEAST_BUDGET: u64 = 10_000;
const MOST_BUDGET: u64 = 10_000_000_000_000;
/// Paths to one host, such as two routers and their switches.
const MAX_PARENTS: usize = 8;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(settings))
        .routes(routes!(change, remove))
        .routes(routes!(trust::trust))
}

/// The settings of a host.
#[utoipa::path(get, path = "/hosts/{host}/settings", operation_id = "show_host_settings",
    tag = "monitoring", security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = HostSettings)))]
async fn settings(
    State(app): State<AppState>,
    Path(host): Path<String>,
) -> Result<Tagged<HostSettings>, Problem> {
    let mut conn = app.store.reader().await?;
    let host = load(&mut conn, IdKind::Host.named(&host)).await?;
    Ok(Tagged { version: host.version, value: to_api(&mut conn, &host).await? })
}

async fn load(conn: &mut SqliteConnection, named: Named) -> Result<Stored, Problem> {
    match named {
        Named::Id(id) => {
            stored::by_id(conn, id).await?.ok_or_else(|| IdKind::Host.unknown(&IdKind::Host.text(id)).into())
        }
        Named::Name(name) => {
            stored::by_name(conn, &name).await?.ok_or_else(|| IdKind::Host.unknown(&name).into())
        }
    }
}

async fn to_api(conn: &mut SqliteConnection, host: &Stored) -> Result<HostSettings, Problem> {
    let mut parents = Vec::new();
    for parent in &host.settings.parents {
        parents.extend(stored::name_of(conn, *parent).await?);
    }
    let alerting = Value::Object(alerting::to_json(&host.settings.alerting));
    let alerting = serde_json::from_value(alerting).map_err(Problem::internal)?;
    let catalogue = stored_profiles::catalogue(conn).await?;
    let (settings, timing) = (&host.settings, &host.settings.timing);
    let pin = settings.ssh.pin.as_ref();
    let seconds = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
    let own = not_empty(&settings.profile);
    let profiles = catalogue.of_host(own.as_deref(), &settings.labels);
    Ok(HostSettings {
        id: IdKind::Host.text(host.id),
        name: settings.name.clone(),
        labels: settings.labels.clone(),
        profile: own.clone(),
        profiles: profiles.into_iter().map(str::to_owned).collect(),
        route: route_name(settings.route).to_owned(),
        via: host.via_name.clone(),
        address: settings.address.map(|a| a.to_string()),
        direct_address: settings.direct_address.clone(),
        ssh: DeviceSsh {
            port: settings.ssh.port,
            user: settings.ssh.user.clone(),
            pin: pin.map(|p| p.fingerprint.clone()),
            pin_source: pin.map(|p| p.source.clone()),
            pin_type: pin.and_then(|p| p.key_type.clone()),
        },
        interval_s: seconds(timing.interval),
        retry_s: seconds(timing.retry),
        max_check_attempts: timing.attempts,
        timeout_s: seconds(timing.timeout),
        max_silence_s: seconds(timing.max_silence),
        freshness_s: seconds(timing.freshness),
        budget_bytes_per_day: settings.budget,
        parents,
        alerting,
        thresholds: settings.thresholds.iter().map(ThresholdSettings::from).collect(),
        notes: settings.notes.clone(),
        managed: (&host.managed).into(),
        created_at: ids::time(host.created_at),
        version: host.version,
    })
}

/// Adds a host behind a device, such as a NAS. It is reached through the device's tunnel.
#[utoipa::path(post, path = "/hosts", operation_id = "create_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = NewHost,
    responses((status = 201, body = Host)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(new): Body<NewHost>,
) -> Result<Response, Problem> {
    let via = new.via.clone();
    let settings = parsed(app.config.timing.interval, new)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let device = devices::load(write.tx(), IdKind::Host.named(&via)).await;
    let device = device.map_err(|e| e.in_field("via"))?;
    rentals::none_of_device(&mut write, device.id, &device.settings.name).await?;
    stands_behind(write.tx(), &device.settings.name, device.id, settings.address).await?;
    profiles::must_exist(write.tx(), &settings.profile).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    stored::insert(write.tx(), id, device.id, &settings, now).await.map_err(|e| refusal(e, Some(&who)))?;
    allocate_alias(&app, &mut write, id, settings.address, &who).await?;
    managed::host_written(write.tx(), id, manager.writer(&who.to_string())).await?;
    write.made((Removable::Host, &settings.name), &manager).await?;
    let data = json!({ "name": settings.name, "via": device.settings.name });
    write.event("host.created", (Object::Host, id), "added", data).await?;
    let made = shown::load(write.tx(), Named::Id(id)).await?;
    let (version, host) = (made.version, shown::to_api(&app, made));
    write.host(id);
    write.commit().await?;
    Ok((StatusCode::CREATED, [(header::ETAG, header_value(version))], Json(host)).into_response())
}

/// Allocates the alias at which operators reach a host behind a device.
async fn allocate_alias(
    app: &AppState,
    write: &mut ApiTx<'_>,
    host: HostId,
    real: Option<IpAddr>,
    who: &Principal,
) -> Result<(), Problem> {
    let Some(real) = real else { return Ok(()) };
    let (pools, now) = (app.config.pools(), write.now);
    let allocated = addresses::allocate_alias(write.tx(), (host, real), pools, now).await;
    allocated.map(drop).map_err(|e| refusal(e.into(), Some(who)))
}

/// Replaces the alias of a host that got an address of the other family.
async fn keep_alias_in_family(
    app: &AppState,
    write: &mut ApiTx<'_>,
    before: &Stored,
    real: Option<IpAddr>,
    who: &Principal,
) -> Result<(), Problem> {
    let is_v4 = |address: Option<IpAddr>| address.map(|address| address.is_ipv4());
    if before.via.is_none() || is_v4(before.settings.address) == is_v4(real) {
        return Ok(());
    }
    let now = write.now;
    addresses::release_alias(write.tx(), before.id, now).await?;
    allocate_alias(app, write, before.id, real, who).await
}

/// Checks that the address is behind the device. The tunnel accepts replies only from its networks.
async fn stands_behind(
    conn: &mut SqliteConnection,
    name: &str,
    device: fleetgate_engine::id::HostId,
    address: Option<IpAddr>,
) -> Result<(), Problem> {
    let networks: Vec<IpNet> = stored::networks(conn, device).await?.ok_or_else(|| {
        Problem::invalid("via", format!("{name} has no tunnel: nothing is reached through it"))
    })?;
    let Some(address) = address else { return Ok(()) };
    if networks.iter().any(|net| net.contains(&address)) {
        return Ok(());
    }
    let detail = format!(
        "{address} is in none of the networks behind {name}: add its network there first \
         (PATCH /devices/{name} {{\"networks\": [...]}})"
    );
    Err(Problem::invalid("address", detail))
}

fn parsed(usual: Duration, new: NewHost) -> Result<Settings, Problem> {
    let mut fields = Fields::default();
    let name = fields.take("name", parse::name(&new.name));
    let labels = fields.take("labels", parse::host_labels(new.labels));
    let address = fields.take("address", ip(&new.address));
    let port = fields.take("ssh.port", parse::ssh_port(new.ssh.port.unwrap_or(SSH_PORT)));
    let user = fields.take("ssh.user", new.ssh.user.as_deref().map(parse::login).transpose());
    let key = fields.take("ssh.host_key", new.ssh.host_key.as_deref().map(parse::host_key).transpose());
    let notes = fields.take("notes", parse::notes(new.notes));
    let mut timing = Timing::default();
    let wanted = WantedTiming {
        interval: Some(new.interval_s),
        retry: Some(new.retry_s),
        attempts: Some(new.max_check_attempts),
        timeout: Some(new.timeout_s),
        max_silence: Some(new.max_silence_s),
        freshness: Some(new.freshness_s),
    };
    wanted.apply(&mut timing, &mut fields);
    fields.take("timeout_s", ends_in_time(usual, &timing));
    let thresholds = named(&mut fields, limits(&new.thresholds)).unwrap_or_default();
    fields.finish()?;
    let pin = key.flatten().map(|fingerprint| Pin::new(fingerprint, "given"));
    Ok(Settings {
        name: name.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
        profile: new.profile.unwrap_or_default(),
        route: RoutePolicy::Tunnel,
        address,
        direct_address: None,
        ssh: Ssh { port: port.unwrap_or(SSH_PORT), user: user.flatten(), pin },
        timing,
        budget: None,
        parents: Vec::new(),
        alerting: AlertingChange::default(),
        thresholds,
        notes: notes.unwrap_or_default(),
    })
}

fn ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "an IP address is expected, such as 192.168.1.5")
}

/// Absent keeps the value. `Some(None)` restores the gateway's value.
#[derive(Default)]
struct WantedTiming {
    interval: Option<Option<f64>>,
    retry: Option<Option<f64>>,
    attempts: Option<Option<u32>>,
    timeout: Option<Option<f64>>,
    max_silence: Option<Option<f64>>,
    freshness: Option<Option<f64>>,
}

impl WantedTiming {
    fn apply(self, timing: &mut Timing, fields: &mut Fields) {
        let time = |wanted: Option<Option<f64>>, longest: f64| {
            wanted.map(|s| s.map(|s| seconds(s, longest)).transpose())
        };
        let mut set = Setter(fields);
        set.to(&mut timing.interval, "interval_s", time(self.interval, LONGEST_S));
        set.to(&mut timing.retry, "retry_s", time(self.retry, LONGEST_S));
        set.to(&mut timing.timeout, "timeout_s", time(self.timeout, LONGEST_S));
        set.to(&mut timing.max_silence, "max_silence_s", time(self.max_silence, LONGEST_SILENCE_S));
        set.to(&mut timing.freshness, "freshness_s", time(self.freshness, LONGEST_FRESHNESS_S));
        let number = self.attempts.map(|n| n.map(attempts).transpose());
        set.to(&mut timing.attempts, "max_check_attempts", number);
    }
}

fn seconds(s: f64, longest: f64) -> Result<Duration, String> {
    let fine = (SHORTEST_S..=longest).contains(&s);
    let expected = format!("seconds from {SHORTEST_S} to {longest} are expected");
    if fine { Ok(Duration::from_secs_f64(s)) } else { Err(expected) }
}

fn attempts(n: u32) -> Result<u32, String> {
    if (1..=MAX_ATTEMPTS).contains(&n) { Ok(n) } else { Err(format!("1 to {MAX_ATTEMPTS} are expected")) }
}

fn budget(bytes: u64) -> Result<u64, String> {
    let expected = format!("bytes from {LEAST_BUDGET} to {MOST_BUDGET} are expected");
    if (LEAST_BUDGET..=MOST_BUDGET).contains(&bytes) { Ok(bytes) } else { Err(expected) }
}

/// A check must end before the next one begins.
fn ends_in_time(usual: Duration, timing: &Timing) -> Result<(), String> {
    let interval = timing.interval.unwrap_or(usual);
    match timing.timeout {
        Some(timeout) if timeout >= interval => {
            Err(format!("must be shorter than the interval, {} s", interval.as_secs_f64()))
        }
        _ => Ok(()),
    }
}

/// Changes the settings of a host.
///
/// Labels or a profile that change how a device is rented also need the scope `devices`.
#[utoipa::path(patch, path = "/hosts/{host}", operation_id = "change_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = HostChange,
    params(("host" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for")),
    responses((status = 200, body = HostSettings)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(host): Path<String>,
    if_match: IfMatch,
    Body(change): Body<HostChange>,
) -> Result<Tagged<HostSettings>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Host.named(&host)).await?;
    if_match.check(before.version)?;
    let parents = change.parents.clone();
    let (behind, was) = (before.via.is_some(), before.settings.clone());
    let mut settings = changed(app.config.timing.interval, behind, was, change)?;
    if let Some(parents) = parents {
        settings.parents = stands_after(write.tx(), before.id, &parents.unwrap_or_default()).await?;
    }
    let moved = settings.address != before.settings.address;
    if let (true, Some(via), Some(name)) = (moved, before.via, &before.via_name) {
        stands_behind(write.tx(), name, via, settings.address).await?;
    }
    profiles::must_exist(write.tx(), &settings.profile).await?;
    let budgeted = settings.budget.is_some() && settings.budget != before.settings.budget;
    if budgeted && stored::networks(write.tx(), before.id).await?.is_none() {
        let detail = format!("{} has no tunnel: what it costs is not counted", settings.name);
        return Err(Problem::invalid("budget_bytes_per_day", detail));
    }
    if settings != before.settings || manager.is_program() {
        managed::host_written(write.tx(), before.id, manager.writer(&who.to_string())).await?;
        let kind = if before.via.is_some() { Removable::Host } else { Removable::Device };
        write.renamed((kind, &before.settings.name), &settings.name, &before.managed, &manager).await?;
    }
    if settings != before.settings {
        stored::update(write.tx(), before.id, &settings).await.map_err(|e| refusal(e, Some(&who)))?;
        keep_alias_in_family(&app, &mut write, &before, settings.address, &who).await?;
        let data = json!({ "changed": differences(&before.settings, &settings) });
        write.event("host.changed", (Object::Host, before.id), "changed", data).await?;
        write.host(before.id);
        if settings.budget != before.settings.budget {
            let behind = crate::store::devices::hosts_behind(write.tx(), before.id).await?;
            behind.into_iter().for_each(|host| write.host(host));
        }
    }
    let after = load(write.tx(), Named::Id(before.id)).await?;
    let value = to_api(write.tx(), &after).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value })
}

/// Checks whether the API would accept this change of a valid host or device. `behind`: a host
/// behind a device.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(change: Value, behind: bool) -> Validation {
    // The gateway's own interval, which limits a timeout, is unknown here.
    let usual = Duration::MAX;
    validation::of(change, |change| {
        let blank = NewHost { name: "host".into(), address: "192.0.2.1".into(), ..NewHost::default() };
        changed(usual, behind, parsed(usual, blank)?, change)
    })
}

/// Checks the names of a host's parents.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate_parents(names: Option<&Value>) -> Validation {
    let count = names.and_then(Value::as_array).map_or(0, Vec::len);
    validation::errors(few_enough(count))
}

fn changed(
    usual: Duration,
    behind: bool,
    mut settings: Settings,
    change: HostChange,
) -> Result<Settings, Problem> {
    let mut fields = Fields::default();
    let wanted = WantedTiming {
        interval: change.interval_s,
        retry: change.retry_s,
        attempts: change.max_check_attempts,
        timeout: change.timeout_s,
        max_silence: change.max_silence_s,
        freshness: change.freshness_s,
    };
    wanted.apply(&mut settings.timing, &mut fields);
    fields.take("timeout_s", ends_in_time(usual, &settings.timing));
    if let Some(alerting) = named(&mut fields, alerting_change(&settings.alerting, &change)) {
        settings.alerting = alerting;
    }
    if let Some(wanted) = &change.thresholds {
        let wanted = wanted.as_deref().unwrap_or_default();
        settings.thresholds = named(&mut fields, limits(wanted)).unwrap_or_default();
    }
    let mut set = Setter(&mut fields);
    set.to(&mut settings.name, "name", change.name.as_deref().map(parse::name));
    let labels =
        change.labels.map(|change| parse::host_labels(merge_patch::labels(&settings.labels, change)));
    set.to(&mut settings.labels, "labels", labels);
    set.to(&mut settings.notes, "notes", change.notes.map(|n| parse::notes(n.unwrap_or_default())));
    let address = change.address.as_deref().map(|text| match behind {
        true => ip(text).map(Some),
        false => Err("a device has the address that the gateway gave it"),
    });
    set.to(&mut settings.address, "address", address);
    let budget = change.budget_bytes_per_day.map(|bytes| match behind {
        true => Err("it is the device that has a budget, with all that goes through its tunnel".to_owned()),
        false => bytes.map(budget).transpose(),
    });
    set.to(&mut settings.budget, "budget_bytes_per_day", budget);
    devices::change_ssh(&mut settings.ssh, change.ssh, &mut set);
    fields.finish()?;
    settings.profile = change.profile.map_or(settings.profile, Option::unwrap_or_default);
    Ok(settings)
}

fn limits(wanted: &[ThresholdSettings]) -> Result<Vec<Threshold>, definition::FieldError> {
    definition::thresholds(&json!(wanted))
}

/// Takes a value whose error names its own field.
fn named<T>(fields: &mut Fields, found: Result<T, definition::FieldError>) -> Option<T> {
    let field = found.as_ref().err().map(|e| e.field.clone()).unwrap_or_default();
    fields.take(&field, found.map_err(|e| e.detail))
}

/// Returns the alerting settings after the change. An absent part stays, and a given part replaces
/// the old one.
fn alerting_change(
    before: &AlertingChange,
    change: &HostChange,
) -> Result<AlertingChange, definition::FieldError> {
    let mut whole = alerting::to_json(before);
    let parts = [
        ("volatile", change.volatile.map(|v| json!(v))),
        ("flapping", change.flapping.as_ref().map(|f| json!(f))),
        ("notify", change.notify.as_ref().map(|n| json!(n))),
    ];
    let patch = parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    merge_patch::object(&mut whole, patch.collect());
    alerting::of_host(alerting::parse(&Value::Object(whole))?)
}

/// # Errors
/// Returns 422 for too many parents.
fn few_enough(parents: usize) -> Result<(), Problem> {
    if parents > MAX_PARENTS {
        return Err(Problem::invalid("parents", format!("at most {MAX_PARENTS} are possible")));
    }
    Ok(())
}

/// Returns the parents. They must exist, and none may stand behind this host.
async fn stands_after(
    conn: &mut SqliteConnection,
    host: HostId,
    wanted: &[String],
) -> Result<Vec<HostId>, Problem> {
    few_enough(wanted.len())?;
    let mut parents = Vec::new();
    for text in wanted {
        let parent = load(conn, IdKind::Host.named(text)).await.map_err(|e| e.in_field("parents"))?;
        if !parents.contains(&parent.id) {
            parents.push(parent.id);
        }
    }
    let (mut seen, mut ahead) = (BTreeSet::new(), parents.clone());
    while let Some(next) = ahead.pop() {
        if next == host {
            let detail = "this would be a loop: a named host is behind this host, or is this host";
            return Err(Problem::invalid("parents", detail));
        }
        if seen.insert(next) {
            ahead.extend(stored::before(conn, next).await?);
        }
    }
    Ok(parents)
}

fn differences(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let pairs = [
        ("name", before.name != after.name),
        ("labels", before.labels != after.labels),
        ("profile", before.profile != after.profile),
        ("address", before.address != after.address),
        ("ssh", before.ssh != after.ssh),
        ("timing", before.timing != after.timing),
        ("budget", before.budget != after.budget),
        ("parents", before.parents != after.parents),
        ("alerting", before.alerting != after.alerting),
        ("thresholds", before.thresholds != after.thresholds),
        ("notes", before.notes != after.notes),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Removes a host behind a device. Its history and events stay.
#[utoipa::path(delete, path = "/hosts/{host}", operation_id = "remove_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it"),
        Removal),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(host): Path<String>,
    Query(removal): Query<Removal>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let gone = load(write.tx(), IdKind::Host.named(&host)).await?;
    if_match.check(gone.version)?;
    if gone.via.is_none() {
        let detail = format!("{} is a device: DELETE /devices/{0} ends its tunnel too", gone.settings.name);
        return Err(Problem::conflict("is_a_device", detail));
    }
    let consequences = Consequences::of(write.tx(), gone.id).await?;
    consequences.agreed(&gone.settings.name, removal)?;
    devices::orphan(&mut write, &consequences, gone.id).await?;
    let now = write.now;
    grants::withdraw_those_of(&mut write, &manager, stored_grants::Named::Host(gone.id)).await?;
    crate::store::devices::remove(write.tx(), gone.id, now).await?;
    write.removed((Removable::Host, &gone.settings.name), &gone.managed, &manager).await?;
    let data = json!({ "name": gone.settings.name });
    write.event("host.removed", (Object::Host, gone.id), "removed", data).await?;
    write.host(gone.id);
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
