//! Downtimes: planned work on one host, one of its services, or a selection by labels.

mod types;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::calendar;
use fleetgate_engine::id::Id;
use fleetgate_engine::messages;
use fleetgate_engine::messages::{HostScope, Scope, When};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::{self, load_spec};
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query};
use super::request::ids::{self, IdKind};
use super::request::managed_by::Manager;
use super::request::merge_patch;
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged};
use super::response::page::Paging;
use super::response::problem::Problem;
use super::services::unknown_service;
use super::types::Page;
use crate::engine::definitions::Definition;
use crate::store::events::Object;
use crate::store::hosts::by_id;
use crate::store::managed::Managed;
use crate::store::recurrence::{self, Text};
use crate::store::{SqliteConnection, definition, downtimes as stored, zones};

pub use types::*;

/// Downtimes of single hosts and services that may still have an effect.
const MAX_OPEN: i64 = 10_000;
/// Those by labels. Each is compared with every host.
const MAX_OPEN_BY_LABELS: i64 = 1_000;
/// Longer work is no downtime. The operator should disable the service.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(plan_for_host))
        .routes(routes!(plan_for_service))
        .routes(routes!(plan, list))
        .routes(routes!(show, change, cancel))
}

/// Plans a downtime of a host and all its services, or of one service.
#[utoipa::path(post, path = "/hosts/{host}/downtimes", operation_id = "plan_host_downtime",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), request_body = NewDowntime,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 201, body = Downtime)))]
async fn plan_for_host(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(host): Path<String>,
    Body(new): Body<NewDowntime>,
) -> Result<(StatusCode, Tagged<Downtime>), Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_spec(&app, &mut conn, IdKind::Host.named(&host)).await?;
    drop(conn);
    let service = new.service.clone();
    if let Some(unknown) = service.as_ref().filter(|name| !spec.services.iter().any(|s| s.name == **name)) {
        return Err(Problem::invalid("service", unknown_service(&Definition::from(&spec), unknown).detail()));
    }
    let zone = zones::of(&spec.labels);
    let target = Target { hosts: HostScope::One(spec.id), name: Some(spec.name), service, zone };
    add(&app, &who, &manager, target, new).await
}

/// Plans a downtime of one service.
#[utoipa::path(post, path = "/hosts/{host}/services/{service}/downtimes",
    operation_id = "plan_service_downtime", tag = "monitoring", security(("token" = ["monitoring:operator"])),
    request_body = NewDowntime,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 201, body = Downtime)))]
async fn plan_for_service(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path((host, service)): Path<(String, String)>,
    Body(new): Body<NewDowntime>,
) -> Result<(StatusCode, Tagged<Downtime>), Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_spec(&app, &mut conn, IdKind::Host.named(&host)).await?;
    drop(conn);
    if !spec.services.iter().any(|s| s.name == service) {
        return Err(unknown_service(&Definition::from(&spec), &service));
    }
    if new.service.as_ref().is_some_and(|named| *named != service) {
        return Err(Problem::invalid("service", format!("the path names {service}: leave this out")));
    }
    let (hosts, zone) = (HostScope::One(spec.id), zones::of(&spec.labels));
    let target = Target { hosts, name: Some(spec.name), service: Some(service), zone };
    add(&app, &who, &manager, target, new).await
}

/// Plans a downtime of all hosts with certain labels, also of those added later.
#[utoipa::path(post, path = "/downtimes", operation_id = "plan_downtime", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = NewDowntime,
    responses((status = 201, body = Downtime)))]
async fn plan(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(mut new): Body<NewDowntime>,
) -> Result<(StatusCode, Tagged<Downtime>), Problem> {
    let labels = new.labels.take().filter(|labels| !labels.is_empty());
    let labels = labels.ok_or_else(|| {
        Problem::invalid("labels", "at least one label is expected; one host: POST /hosts/{host}/downtimes")
    })?;
    let labels = parse::labels(labels).map_err(|e| Problem::invalid("labels", e.to_string()))?;
    let (service, zone) = (new.service.clone(), zones::of(&labels));
    let target = Target { hosts: HostScope::Labels(labels), name: None, service, zone };
    add(&app, &who, &manager, target, new).await
}

struct Target {
    hosts: HostScope,
    name: Option<String>,
    service: Option<String>,
    /// The host's time zone, if its labels name one.
    zone: Option<TimeZone>,
}

async fn add(
    app: &AppState,
    who: &Principal,
    manager: &Manager,
    target: Target,
    new: NewDowntime,
) -> Result<(StatusCode, Tagged<Downtime>), Problem> {
    let mut write = ApiTx::begin(app, who).await?;
    let now = write.now;
    must_have_room(write.tx(), &target.hosts, now).await?;
    let downtime = parsed(target, new, &write.by, now)?;
    let (managed, version) = (Managed::new(manager.writer(&write.by)), write.first_version().await?);
    let downtime = stored::Downtime { managed, version, ..downtime };
    stored::insert(write.tx(), &downtime).await?;
    let shown = shown(&downtime, now);
    let data = serde_json::to_value(&shown).map_err(Problem::internal)?;
    note(&mut write, "downtime.added", &downtime, &downtime.comment, data).await?;
    commit(app, write, downtime.plan.id).await?;
    Ok((StatusCode::CREATED, Tagged { version: downtime.version, value: shown }))
}

/// # Errors
/// `limit_reached`: as many downtimes of this kind are open as are possible.
async fn must_have_room(conn: &mut SqliteConnection, hosts: &HostScope, now: Wall) -> Result<(), Problem> {
    let (by_labels, limit, what) = match hosts {
        HostScope::One(_) => (false, MAX_OPEN, "of single hosts: cancel some, or select by labels"),
        HostScope::Labels(_) => (true, MAX_OPEN_BY_LABELS, "by labels: cancel some"),
    };
    if stored::count_open(conn, by_labels, now).await? < limit {
        return Ok(());
    }
    Err(Problem::limit_reached(format!("at most {limit} downtimes are open {what}")))
}

/// Commits what was written about a downtime, and waits until the monitor has taken it into account.
async fn commit(app: &AppState, mut write: ApiTx<'_>, id: Id) -> Result<(), Problem> {
    write.downtime(id);
    write.commit().await?;
    app.handle.settled().await;
    Ok(())
}

/// Writes an event about the one host, or about the downtime itself.
async fn note(
    write: &mut ApiTx<'_>,
    kind: &str,
    downtime: &stored::Downtime,
    cause: &str,
    data: serde_json::Value,
) -> Result<(), Problem> {
    let scope = &downtime.plan.scope;
    match scope.hosts {
        HostScope::One(host) => write.about(kind, (host, scope.service.as_deref()), cause, data).await,
        HostScope::Labels(_) => write.event(kind, (Object::Downtime, downtime.plan.id), cause, data).await,
    }
}

/// Checks whether the API would accept this for existing hosts. `fields` may name the host, which is
/// a part of the path for the API.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(mut fields: Value, now: Wall) -> Validation {
    let host = fields.as_object_mut().and_then(|fields| fields.remove("host"));
    validation::of(fields, |mut new: NewDowntime| {
        let hosts = match (host, new.labels.take()) {
            (None, Some(labels)) => HostScope::Labels(labels),
            _ => HostScope::One(Id::from_i64(0)),
        };
        let target = Target { hosts, name: None, service: new.service.clone(), zone: None };
        parsed(target, new, "", now)
    })
}

fn parsed(target: Target, new: NewDowntime, by: &str, now: Wall) -> Result<stored::Downtime, Problem> {
    let mut fields = Fields::default();
    let comment = fields.take("comment", parse::notes(new.comment.clone()));
    let when = match &new.recurrence {
        Some(wanted) => repeated(&mut fields, &new, wanted, target.zone, now).map(When::Repeated),
        None => once(&mut fields, &new, now),
    };
    let name = fields.take("name", new.name.as_deref().map(parse::name).transpose());
    if let Some(service) = &target.service {
        fields.take("service", definition::service_name(service).map_err(|e| e.detail));
    }
    if new.labels.is_some() {
        fields.take("labels", Err::<(), _>("the path names the host already; a selection: POST /downtimes"));
    }
    fields.finish()?;
    let scope = Scope { hosts: target.hosts, service: target.service };
    let when = when.unwrap_or(When::Once { start: now, end: now, duration: None });
    Ok(stored::Downtime {
        plan: messages::Downtime { id: ids::new_id(now), scope, when },
        host_name: target.name,
        name: name.flatten(),
        managed: Managed { by: String::new(), edited_by: None },
        author: by.to_owned(),
        comment: comment.unwrap_or_default(),
        created_at: now,
        cancelled_at: None,
        begun_at: None,
        version: 1,
    })
}

fn once(fields: &mut Fields, new: &NewDowntime, now: Wall) -> Option<When> {
    let start = new.start.as_deref().map_or(Ok(now), parse::moment);
    let start = fields.take("start", start).unwrap_or(now);
    let end = new.end.as_deref().ok_or_else(|| "an end is expected, or a recurrence".to_owned());
    let end = fields.take("end", end.and_then(parse::moment).and_then(|end| in_order(start, end, now)));
    let fixed = new.fixed.unwrap_or(new.duration_s.is_none());
    let duration = fields.take("duration_s", length(fixed, new.duration_s)).flatten();
    end.map(|end| When::Once { start, end, duration })
}

/// Reads a recurrence. Each of its windows is a fixed one.
fn repeated(
    fields: &mut Fields,
    new: &NewDowntime,
    wanted: &Recurrence,
    zone: Option<TimeZone>,
    now: Wall,
) -> Option<calendar::recurrence::Recurrence> {
    let said = [
        ("start", new.start.is_some()),
        ("end", new.end.is_some()),
        ("duration_s", new.duration_s.is_some()),
        ("fixed", new.fixed == Some(false)),
    ];
    for (field, _) in said.iter().filter(|(_, said)| *said) {
        fields.take(field, Err::<(), _>("its recurrence says when"));
    }
    let own = zone.as_ref().and_then(TimeZone::iana_name);
    let text = Text {
        every: wanted.every.clone(),
        from: wanted.from.clone(),
        to: wanted.to.clone(),
        time_zone: wanted.time_zone.as_deref().or(own).unwrap_or("UTC").to_owned(),
        first_date: wanted.first_date.clone(),
        last_date: wanted.last_date.clone(),
    };
    let found = recurrence::parse(&text);
    let field = found.as_ref().err().map(|e| format!("recurrence.{}", e.field)).unwrap_or_default();
    let found = fields.take(&field, found.map_err(|e| e.detail))?;
    let comes = found.next(now).map(|_| found).ok_or("no window of it is to come");
    fields.take("recurrence", comes)
}

fn in_order(start: Wall, end: Wall, now: Wall) -> Result<Wall, String> {
    match () {
        () if end <= start => Err("a time after start is expected".to_owned()),
        () if end <= now => Err("is over already".to_owned()),
        () if end.since(start) > LONGEST => {
            Err(format!("at most {} days are expected", LONGEST.as_secs() / 86_400))
        }
        () => Ok(end),
    }
}

fn length(fixed: bool, seconds: Option<f64>) -> Result<Option<Duration>, String> {
    let longest = LONGEST.as_secs_f64();
    match (fixed, seconds) {
        (true, None) => Ok(None),
        (true, Some(_)) => Err("belongs to a flexible downtime: say fixed = false".to_owned()),
        (false, Some(s)) if (1.0..=longest).contains(&s) => Ok(Some(Duration::from_secs_f64(s))),
        (false, _) => Err(format!("a flexible downtime lasts 1 to {longest} seconds")),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Also those that are over or were cancelled.
    all: Option<bool>,
    /// Only those of this manager.
    managed_by: Option<String>,
    /// Only those that are for this host (name or id): planned for it, or selected by its labels.
    host: Option<String>,
    /// Only those that last beyond this time (RFC 3339).
    from: Option<String>,
    /// Only those that begin before this time (RFC 3339).
    to: Option<String>,
}

/// Downtimes, the newest first.
#[utoipa::path(get, path = "/downtimes", operation_id = "list_downtimes", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter),
    responses((status = 200, body = Page<Downtime>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Downtime>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let (all, now) = (wanted.all.unwrap_or(false), crate::clock::wall());
    let (from, to) = ids::parse_times(wanted.from.as_deref(), wanted.to.as_deref())?;
    let mut conn = app.store.reader().await?;
    let host = match wanted.host.as_deref().map(|text| IdKind::Host.named(text)) {
        Some(named) => Some(hosts::load(&mut conn, named).await?.id),
        None => None,
    };
    let wanted = stored::Filter { all, manager: wanted.managed_by.as_deref(), host, from, to };
    let rows = stored::list(&mut conn, wanted, now, before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |d| d.plan.id.as_i64().to_string(), |d| shown(&d, now))))
}

/// A downtime.
#[utoipa::path(get, path = "/downtimes/{downtime}", operation_id = "show_downtime", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("downtime" = String, Path)),
    responses((status = 200, body = Downtime)))]
async fn show(
    State(app): State<AppState>,
    Path(downtime): Path<String>,
) -> Result<Tagged<Downtime>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = stored::find(&mut conn, IdKind::Downtime.parse(&downtime)?).await?;
    let found = found.ok_or_else(|| IdKind::Downtime.unknown(&downtime))?;
    Ok(Tagged { version: found.version, value: shown(&found, crate::clock::wall()) })
}

/// Changes when a downtime is, and its comment. 409 `downtime_over`: it has ended or was cancelled.
#[utoipa::path(patch, path = "/downtimes/{downtime}", operation_id = "change_downtime", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = DowntimeChange,
    params(("downtime" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for")),
    responses((status = 200, body = Downtime)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(downtime): Path<String>,
    if_match: IfMatch,
    Body(change): Body<DowntimeChange>,
) -> Result<Tagged<Downtime>, Problem> {
    let id = IdKind::Downtime.parse(&downtime)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    let before = stored::find(write.tx(), id).await?.ok_or_else(|| IdKind::Downtime.unknown(&downtime))?;
    if_match.check(before.version)?;
    if before.cancelled_at.is_some() || is_over(&before, now) {
        return Err(Problem::conflict("downtime_over", format!("{downtime} is over: plan another one")));
    }
    let zone = zone(write.tx(), &before.plan.scope.hosts).await?;
    let mut after = changed(&before, change, zone, now)?;
    after.managed = after.managed.written(manager.writer(&by));
    if after == before {
        return Ok(Tagged { version: before.version, value: shown(&before, now) });
    }
    after.version += 1;
    stored::update(write.tx(), &after).await?;
    let value = shown(&after, now);
    let data = serde_json::to_value(&value).map_err(Problem::internal)?;
    note(&mut write, "downtime.changed", &after, &after.comment, data).await?;
    commit(&app, write, id).await?;
    Ok(Tagged { version: after.version, value })
}

/// Whether it can have no effect any more.
fn is_over(downtime: &stored::Downtime, now: Wall) -> bool {
    let over_at = match (&downtime.plan.when, downtime.begun_at) {
        (When::Once { end, duration: Some(duration), .. }, Some(begun)) => {
            match downtime.plan.scope.hosts {
                HostScope::One(_) => Some(begun + *duration),
                // It begins for each host by itself, and for the last one perhaps just before its end.
                HostScope::Labels(_) => Some(*end + *duration),
            }
        }
        (When::Once { end, .. }, _) => Some(*end),
        (When::Repeated(of), _) => of.over_at(),
    };
    over_at.is_some_and(|at| at <= now)
}

/// Returns the time zone that the labels of its host name, or those that select its hosts.
async fn zone(conn: &mut SqliteConnection, hosts: &HostScope) -> Result<Option<TimeZone>, Problem> {
    Ok(match hosts {
        HostScope::One(host) => by_id(conn, *host).await?.and_then(|host| zones::of(&host.labels)),
        HostScope::Labels(labels) => zones::of(labels),
    })
}

/// A downtime with a change laid over it. New times must be such as could be planned now. Those that
/// stay were so when it was planned, and may have passed meanwhile; what has begun keeps its own.
fn changed(
    before: &stored::Downtime,
    change: DowntimeChange,
    zone: Option<TimeZone>,
    now: Wall,
) -> Result<stored::Downtime, Problem> {
    let DowntimeChange { start, end, duration_s, recurrence, comment } = change;
    let moves = start.is_some() || end.is_some() || recurrence.is_some();
    let planned_at = if moves && before.begun_at.is_none() { now } else { before.created_at };
    let comment = comment.map_or_else(|| before.comment.clone(), Option::unwrap_or_default);
    let new = match (&before.plan.when, recurrence) {
        (When::Once { .. }, Some(_)) => {
            return Err(Problem::invalid("recurrence", "this downtime does not recur: plan another one"));
        }
        (When::Once { start: from, end: until, duration }, None) => NewDowntime {
            start: Some(start.unwrap_or_else(|| ids::time(*from))),
            end: Some(end.unwrap_or_else(|| ids::time(*until))),
            fixed: Some(duration.is_none()),
            duration_s: duration_s.or(duration.map(|d| d.as_secs_f64())),
            comment,
            ..NewDowntime::default()
        },
        (When::Repeated(of), patch) => {
            let recurrence = Some(patched(of, patch.unwrap_or_default())?);
            NewDowntime { start, end, duration_s, recurrence, comment, ..NewDowntime::default() }
        }
    };
    let scope = before.plan.scope.clone();
    let target = Target { hosts: scope.hosts, name: before.host_name.clone(), service: scope.service, zone };
    let after = parsed(target, new, &before.author, planned_at)?;
    must_stay(before, &after.plan.when)?;
    let plan = messages::Downtime { id: before.plan.id, ..after.plan };
    Ok(stored::Downtime { plan, comment: after.comment, ..before.clone() })
}

/// Refuses other times for a flexible downtime that has begun. The monitor begins it once: moved, it
/// would never begin again.
fn must_stay(before: &stored::Downtime, after: &When) -> Result<(), Problem> {
    let (When::Once { start, end, duration }, When::Once { start: from, end: until, duration: lasts }) =
        (&before.plan.when, after)
    else {
        return Ok(());
    };
    let moved = [("start", start != from), ("end", end != until), ("duration_s", duration != lasts)];
    let mut fields = Fields::default();
    for (field, _) in moved.iter().filter(|(_, moved)| *moved && before.begun_at.is_some()) {
        fields.take(field, Err::<(), _>("it has begun; end it and plan another one"));
    }
    fields.finish()
}

fn patched(of: &calendar::recurrence::Recurrence, patch: Map<String, Value>) -> Result<Recurrence, Problem> {
    let whole = serde_json::to_value(recurrence_to_api(recurrence::text(of))).map_err(Problem::internal)?;
    let Value::Object(mut whole) = whole else { return Err(Problem::internal(anyhow::anyhow!("no object"))) };
    merge_patch::object(&mut whole, patch);
    serde_json::from_value(whole.into()).map_err(|e| Problem::invalid("recurrence", e.to_string()))
}

/// Ends a downtime, or cancels it before it begins. Notifications resume.
#[utoipa::path(delete, path = "/downtimes/{downtime}", operation_id = "cancel_downtime",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), params(("downtime" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the removal is meant for")),
    responses((status = 204)))]
async fn cancel(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(downtime): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let id = IdKind::Downtime.parse(&downtime)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let found = stored::find(write.tx(), id).await?.ok_or_else(|| IdKind::Downtime.unknown(&downtime))?;
    if_match.check(found.version)?;
    let (by, now) = (write.by.clone(), write.now);
    if !stored::cancel(write.tx(), id, manager.writer(&by), now).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    note(&mut write, "downtime.cancelled", &found, "cancelled", json!({ "id": downtime })).await?;
    commit(&app, write, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(downtime: &stored::Downtime, now: Wall) -> Downtime {
    let plan = &downtime.plan;
    let (start, end, duration) = window(downtime, now);
    let recurrence = match &plan.when {
        When::Repeated(of) => Some(recurrence_to_api(recurrence::text(of))),
        When::Once { .. } => None,
    };
    let (host, labels) = match &plan.scope.hosts {
        HostScope::One(host) => (Some(IdKind::Host.text(*host)), None),
        HostScope::Labels(labels) => (None, Some(labels.clone())),
    };
    Downtime {
        id: IdKind::Downtime.text(plan.id),
        host,
        host_name: downtime.host_name.clone(),
        labels,
        service: plan.scope.service.clone(),
        start: ids::time(start),
        end: ids::time(end),
        fixed: duration.is_none(),
        duration_s: duration.map(|d| d.as_secs_f64()),
        recurrence,
        name: downtime.name.clone(),
        managed: (&downtime.managed).into(),
        author: downtime.author.clone(),
        comment: downtime.comment.clone(),
        created_at: ids::time(downtime.created_at),
        cancelled_at: downtime.cancelled_at.map(ids::time),
        begun_at: downtime.begun_at.map(ids::time),
        version: downtime.version,
    }
}

/// Returns the start and end. For a recurring downtime they belong to the open or next window, or
/// else to the last.
fn window(downtime: &stored::Downtime, now: Wall) -> (Wall, Wall, Option<Duration>) {
    match &downtime.plan.when {
        When::Once { start, end, duration } => (*start, *end, *duration),
        When::Repeated(of) => {
            let over = of.over_at().unwrap_or(now);
            let last = of.next(now).or_else(|| of.at(over - Duration::from_millis(1)));
            last.map_or((over, over, None), |span| (span.start, span.end, None))
        }
    }
}

fn recurrence_to_api(text: Text) -> Recurrence {
    let Text { every, from, to, time_zone, first_date, last_date } = text;
    Recurrence { every, from, to, time_zone: Some(time_zone), first_date, last_date }
}
