//! Downtimes: planned work, for one host, one of its services, or a selection by labels.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{self, HostScope, MonitorInput, Scope};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::{Principal, RequireOperator, RequireViewer};
use super::extract::{Body, Path, Query};
use super::hosts::{load, load_spec, unknown_service};
use super::ids::{self, Kind};
use super::model::{self, NewDowntime, Page};
use super::page::Paging;
use super::parse::{self, Fields};
use super::problem::Problem;
use super::write::Write;
use crate::store::definition;
use crate::store::downtimes::{self as stored, Downtime};
use crate::store::events::Object;

/// Downtimes that may still have an effect: each is held against every host.
const MAX_OPEN: i64 = 1_000;
/// Longer work is no downtime: switch the service off.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(plan_for_host))
        .routes(routes!(plan_for_service))
        .routes(routes!(plan, list))
        .routes(routes!(show, cancel))
}

/// The host and all its services, or one of them.
#[utoipa::path(post, path = "/hosts/{host}/downtimes", operation_id = "plan_host_downtime",
    tag = "monitoring", security(("token" = ["operator"])), request_body = NewDowntime,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 201, body = model::Downtime)))]
async fn plan_for_host(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Path(host): Path<String>,
    Body(new): Body<NewDowntime>,
) -> Result<(StatusCode, Json<model::Downtime>), Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, Kind::Host.named(&host)).await?;
    drop(conn);
    let service = new.service.clone();
    let target = Target { hosts: HostScope::One(found.id), name: Some(found.name), service };
    add(&app, &who, target, new).await
}

#[utoipa::path(post, path = "/hosts/{host}/services/{service}/downtimes",
    operation_id = "plan_service_downtime", tag = "monitoring", security(("token" = ["operator"])),
    request_body = NewDowntime,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 201, body = model::Downtime)))]
async fn plan_for_service(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Path((host, service)): Path<(String, String)>,
    Body(new): Body<NewDowntime>,
) -> Result<(StatusCode, Json<model::Downtime>), Problem> {
    let mut conn = app.store.reader().await?;
    let spec = load_spec(&app, &mut conn, Kind::Host.named(&host)).await?;
    drop(conn);
    if !spec.services.iter().any(|s| s.name == service) {
        return Err(unknown_service(&spec, &service));
    }
    let target = Target { hosts: HostScope::One(spec.id), name: Some(spec.name), service: Some(service) };
    add(&app, &who, target, new).await
}

/// A selection by labels: hosts that have all of them, also those that come later.
#[utoipa::path(post, path = "/downtimes", operation_id = "plan_downtime", tag = "monitoring",
    security(("token" = ["operator"])), request_body = NewDowntime,
    responses((status = 201, body = model::Downtime)))]
async fn plan(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Body(mut new): Body<NewDowntime>,
) -> Result<(StatusCode, Json<model::Downtime>), Problem> {
    let labels = new.labels.take().filter(|labels| !labels.is_empty());
    let labels = labels.ok_or_else(|| {
        Problem::invalid("labels", "at least one label is expected; one host: POST /hosts/{host}/downtimes")
    })?;
    let labels = parse::labels(labels).map_err(|e| Problem::invalid("labels", e.to_string()))?;
    let target = Target { hosts: HostScope::Labels(labels), name: None, service: new.service.clone() };
    add(&app, &who, target, new).await
}

struct Target {
    hosts: HostScope,
    name: Option<String>,
    service: Option<String>,
}

async fn add(
    app: &AppState,
    who: &Principal,
    target: Target,
    new: NewDowntime,
) -> Result<(StatusCode, Json<model::Downtime>), Problem> {
    let mut write = Write::begin(app, who).await?;
    let now = write.now;
    if stored::count_open(write.tx(), now).await? >= MAX_OPEN {
        let detail =
            format!("at most {MAX_OPEN} downtimes are open at a time: cancel some, or select by labels");
        return Err(Problem::conflict("too_many_downtimes", detail));
    }
    let downtime = parsed(target, new, &write.by, now)?;
    stored::insert(write.tx(), &downtime).await?;
    let shown = shown(&downtime);
    let data = serde_json::to_value(&shown).map_err(Problem::internal)?;
    note(&mut write, "downtime.added", &downtime, &downtime.comment, data).await?;
    write.commit().await?;
    app.handle.settle(MonitorInput::Downtime(Box::new(downtime.plan))).await;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// In the log of the one host, or as an object of its own.
async fn note(
    write: &mut Write<'_>,
    kind: &str,
    downtime: &Downtime,
    cause: &str,
    data: serde_json::Value,
) -> Result<(), Problem> {
    let scope = &downtime.plan.scope;
    match scope.hosts {
        HostScope::One(host) => write.about(kind, (host, scope.service.as_deref()), cause, data).await,
        HostScope::Labels(_) => write.event(kind, (Object::Downtime, downtime.plan.id), cause, data).await,
    }
}

fn parsed(target: Target, new: NewDowntime, by: &str, now: Wall) -> Result<Downtime, Problem> {
    let mut fields = Fields::default();
    let comment = fields.take("comment", parse::notes(new.comment));
    let start = new.start.as_deref().map_or(Ok(now), parse::moment);
    let start = fields.take("start", start).unwrap_or(now);
    let end = fields.take("end", parse::moment(&new.end).and_then(|end| in_order(start, end, now)));
    let fixed = new.fixed.unwrap_or(new.duration_s.is_none());
    let duration = fields.take("duration_s", length(fixed, new.duration_s));
    if let Some(service) = &target.service {
        fields.take("service", definition::service_name(service).map_err(|e| e.detail));
    }
    if new.labels.is_some() {
        fields.take("labels", Err::<(), _>("the path names the host already; a selection: POST /downtimes"));
    }
    fields.finish()?;
    Ok(Downtime {
        plan: wire::Downtime {
            id: ids::new_id(now),
            scope: Scope { hosts: target.hosts, service: target.service },
            start,
            end: end.unwrap_or(start),
            duration: duration.flatten(),
        },
        host_name: target.name,
        author: by.to_owned(),
        comment: comment.unwrap_or_default(),
        created_at: now,
        cancelled_at: None,
    })
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
struct Wanted {
    /// Also those that are over or were cancelled.
    all: Option<bool>,
}

/// The newest first.
#[utoipa::path(get, path = "/downtimes", operation_id = "list_downtimes", tag = "monitoring",
    security(("token" = ["viewer"])), params(Paging, Wanted),
    responses((status = 200, body = Page<model::Downtime>)))]
async fn list(
    State(app): State<AppState>,
    _: RequireViewer,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<model::Downtime>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let (all, now) = (wanted.all.unwrap_or(false), crate::clock::wall());
    let mut conn = app.store.reader().await?;
    let rows = stored::list(&mut conn, all, now, before, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |d| d.plan.id.as_i64().to_string(), |d| shown(&d))))
}

#[utoipa::path(get, path = "/downtimes/{downtime}", operation_id = "show_downtime", tag = "monitoring",
    security(("token" = ["viewer"])), params(("downtime" = String, Path)),
    responses((status = 200, body = model::Downtime)))]
async fn show(
    State(app): State<AppState>,
    _: RequireViewer,
    Path(downtime): Path<String>,
) -> Result<Json<model::Downtime>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = stored::find(&mut conn, Kind::Downtime.parse(&downtime)?).await?;
    Ok(Json(shown(&found.ok_or_else(|| Kind::Downtime.unknown(&downtime))?)))
}

/// Ends it at once, or before it begins. What is wrong is told then.
#[utoipa::path(delete, path = "/downtimes/{downtime}", operation_id = "cancel_downtime",
    tag = "monitoring", security(("token" = ["operator"])), params(("downtime" = String, Path)),
    responses((status = 204)))]
async fn cancel(
    State(app): State<AppState>,
    RequireOperator(who): RequireOperator,
    Path(downtime): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = Kind::Downtime.parse(&downtime)?;
    let mut write = Write::begin(&app, &who).await?;
    let found = stored::find(write.tx(), id).await?.ok_or_else(|| Kind::Downtime.unknown(&downtime))?;
    let (by, now) = (write.by.clone(), write.now);
    if !stored::cancel(write.tx(), id, &by, now).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    note(&mut write, "downtime.cancelled", &found, "cancelled", json!({ "id": downtime })).await?;
    write.commit().await?;
    app.handle.settle(MonitorInput::CancelDowntime(id)).await;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(downtime: &Downtime) -> model::Downtime {
    let plan = &downtime.plan;
    let (host, labels) = match &plan.scope.hosts {
        HostScope::One(host) => (Some(Kind::Host.text(*host)), None),
        HostScope::Labels(labels) => (None, Some(labels.clone())),
    };
    model::Downtime {
        id: Kind::Downtime.text(plan.id),
        host,
        host_name: downtime.host_name.clone(),
        labels,
        service: plan.scope.service.clone(),
        start: ids::time(plan.start),
        end: ids::time(plan.end),
        fixed: plan.duration.is_none(),
        duration_s: plan.duration.map(|d| d.as_secs_f64()),
        author: downtime.author.clone(),
        comment: downtime.comment.clone(),
        created_at: ids::time(downtime.created_at),
        cancelled_at: downtime.cancelled_at.map(ids::time),
    }
}
