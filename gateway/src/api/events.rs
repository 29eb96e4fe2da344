//! The event log, and its audit view with events caused by callers.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Event, Page};
use super::request::extract::Query;
use super::request::ids::{Kind, Named};
use super::response::page::Paging;
use super::response::problem::Problem;
use super::{AppState, hosts, render};
use crate::store::events::{EventFilter, EventRow, Span};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(audit))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Of this host or device: id or name. The id also of one that was removed.
    host: Option<String>,
    /// A kind (`state`), or the first part of some (`device` for `device.created`).
    kind: Option<String>,
    /// Oldest first, from after this number on; without it the newest come first.
    since: Option<i64>,
}

/// The event log, the newest first.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Wanted),
    responses((status = 200, body = Page<Event>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Event>>, Problem> {
    page(&app, &paging, wanted, false).await
}

/// What users, tokens and devices did, the newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "access",
    security(("token" = ["access:admin"])), params(Paging, Wanted),
    responses((status = 200, body = Page<Event>)))]
async fn audit(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Event>>, Problem> {
    page(&app, &paging, wanted, true).await
}

async fn page(
    app: &AppState,
    paging: &Paging,
    wanted: Wanted,
    audit: bool,
) -> Result<Json<Page<Event>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after_number()?);
    let span = match wanted.since {
        Some(since) => Span::Since(after.unwrap_or(since)),
        None => Span::Before(after.unwrap_or(i64::MAX)),
    };
    let object = match wanted.host.as_deref().map(|text| Kind::Host.named(text)) {
        None => None,
        Some(Named::Id(id)) => Some(id),
        Some(named) => Some(hosts::load(&mut *app.store.reader().await?, named).await?.id),
    };
    let filter = EventFilter { object, kind: wanted.kind.as_deref(), audit };
    let rows: Vec<EventRow> = app.store.events(span, &filter, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |e| e.seq.to_string(), render::event)))
}
