//! Differences between the services of one host and its profile.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::messages::HostSpec;
use fleetgate_engine::monitor::profile::{self, MAX_SERVICES};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::{ServiceOverride, ServiceSettings};
use crate::api::AppState;
use crate::api::hosts::load;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path};
use crate::api::request::ids::IdKind;
use crate::api::request::managed_by::{self, Manager};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged};
use crate::api::response::problem::Problem;
use crate::api::types::Page;
use crate::store::definition::{self, FieldError};
use crate::store::events::Object;
use crate::store::hosts::Listed;
use crate::store::overrides::{self, Stored};
use crate::store::removals::Removable;
use crate::store::{SqliteConnection, profiles, snapshot};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, remove))
}

/// All overrides of services of a host, disabled services included.
#[utoipa::path(get, path = "/hosts/{host}/overrides", operation_id = "list_overrides", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = Page<ServiceOverride>)))]
async fn list(
    State(app): State<AppState>,
    Path(host): Path<String>,
) -> Result<Json<Page<ServiceOverride>>, Problem> {
    let mut conn = app.store.reader().await?;
    let host = load(&mut conn, IdKind::Host.named(&host)).await?;
    let all = overrides::list(&mut conn, host.id).await?;
    let items = all.iter().map(to_api).collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next: None }))
}

fn to_api(stored: &Stored) -> Result<ServiceOverride, Problem> {
    let settings = definition::service_json(&stored.change);
    let settings: ServiceSettings = serde_json::from_value(settings).map_err(Problem::internal)?;
    Ok(ServiceOverride {
        service: stored.change.service.clone(),
        settings,
        managed: (&stored.managed).into(),
        version: stored.version,
    })
}

/// Sets how a service differs from its profile, disables it, or adds a service.
#[utoipa::path(put, path = "/hosts/{host}/services/{service}", operation_id = "put_override",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), request_body = ServiceSettings,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the change is meant for")),
    responses((status = 200, body = ServiceOverride)))]
async fn put(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path((host, service)): Path<(String, String)>,
    if_match: IfMatch,
    Body(body): Body<Map<String, Value>>,
) -> Result<Tagged<ServiceOverride>, Problem> {
    let change = definition::parse_new_service(&service, &Value::Object(body)).map_err(invalid)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let host = load(write.tx(), IdKind::Host.named(&host)).await?;
    let before = overrides::find(write.tx(), host.id, &service).await?;
    if_match.check(before.as_ref().map_or(0, |b| b.version))?;
    let previous = in_effect(&app, write.tx(), &host, &service, before.as_ref()).await?;
    let managed = managed_by::after(before.map(|b| b.managed), manager.writer(&who.to_string()));
    let version = overrides::put(write.tx(), host.id, &change, &managed).await?;
    write.made((Removable::Service, &format!("{}/{service}", host.name)), &manager).await?;
    let spec = snapshot::host_spec(write.tx(), host.id, &app.config.timing).await;
    let spec = spec.map_err(Problem::internal)?.ok_or_else(|| IdKind::Host.unknown(&host.name))?;
    sensible(&spec, &change)?;
    has_a_check(write.tx(), &host, &change).await?;
    let data = json!({
        "service": service, "settings": definition::to_json(&change), "disabled": change.disabled,
        "previous": previous,
    });
    write.event("service.changed", (Object::Host, host.id), "service changed", data).await?;
    write.host(host.id);
    write.commit().await?;
    let stored = Stored { change, managed, version };
    Ok(Tagged { version, value: to_api(&stored)? })
}

/// The settings of a service before a change: those of its override, and the thresholds that applied. `null`: the host
/// had no such service.
async fn in_effect(
    app: &AppState,
    conn: &mut SqliteConnection,
    host: &Listed,
    service: &str,
    own: Option<&Stored>,
) -> Result<Value, Problem> {
    let spec = snapshot::host_spec(conn, host.id, &app.config.timing).await.map_err(Problem::internal)?;
    let checked = spec.and_then(|spec| spec.services.into_iter().find(|s| s.name == service));
    let mut settings = match (own, &checked) {
        (None, None) => return Ok(Value::Null),
        (None, Some(_)) => json!({}),
        (Some(own), _) => definition::service_json(&own.change),
    };
    // Those of a rental end with it.
    let applied = checked.map(|checked| checked.usual.unwrap_or(checked.thresholds)).unwrap_or_default();
    if !applied.is_empty() {
        settings["thresholds"] = definition::thresholds_json(&applied);
    }
    Ok(settings)
}

fn invalid(error: FieldError) -> Problem {
    Problem::invalid(error.field, error.detail)
}

/// Checks the override after folding it with the profile.
fn sensible(spec: &HostSpec, change: &profile::ServiceOverride) -> Result<(), Problem> {
    if profile::count(&spec.services) > MAX_SERVICES {
        return Err(Problem::limit_reached(format!("a host has at most {MAX_SERVICES} services")));
    }
    let Some(service) = spec.services.iter().find(|s| s.name == change.service) else { return Ok(()) };
    definition::has_effect(&service.check, change).map_err(invalid)?;
    if change.timeout.is_some_and(|timeout| timeout >= service.timing.interval) {
        let interval = service.timing.interval.as_secs_f64();
        return Err(Problem::invalid(
            "timeout_s",
            format!("must be shorter than the interval, {interval} s"),
        ));
    }
    Ok(())
}

/// Checks that the service has a check. One that still waits for a setting of the host, such as a
/// login, may have an override too.
async fn has_a_check(
    conn: &mut SqliteConnection,
    host: &Listed,
    change: &profile::ServiceOverride,
) -> Result<(), Problem> {
    if change.disabled || change.check.is_some() {
        return Ok(());
    }
    let catalogue = profiles::catalogue(conn).await.map_err(Problem::internal)?;
    let own = Some(host.profile.as_str()).filter(|name| !name.is_empty());
    let names = catalogue.of_host(own, &host.labels);
    if catalogue.offers(&names, &change.service) {
        return Ok(());
    }
    let of = names.join(", ");
    let detail = format!("is missing: the profile of this host ({of}) has no service of this name");
    Err(Problem::invalid("check", detail))
}

/// Removes the override of a service: it is as in its profile again.
#[utoipa::path(delete, path = "/hosts/{host}/services/{service}", operation_id = "remove_override",
    tag = "monitoring", security(("token" = ["monitoring:operator"])),
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path((host, service)): Path<(String, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let host = load(write.tx(), IdKind::Host.named(&host)).await?;
    let before = overrides::find(write.tx(), host.id, &service).await?;
    let before = before.ok_or_else(|| {
        Problem::not_found(format!(
            "{} has no settings of its own for a service {service:?}: nothing to take back",
            host.name
        ))
    })?;
    if_match.check(before.version)?;
    let previous = in_effect(&app, write.tx(), &host, &service, Some(&before)).await?;
    overrides::remove(write.tx(), host.id, &service).await?;
    let name = format!("{}/{service}", host.name);
    write.removed((Removable::Service, &name), &before.managed, &manager).await?;
    let data = json!({ "service": service, "previous": previous });
    write.event("service.reset", (Object::Host, host.id), "back to the profile", data).await?;
    write.host(host.id);
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
