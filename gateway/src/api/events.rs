//! The event log, and its audit view with events caused by callers.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::auth::{Principal, Role};
use super::request::extract::Query;
use super::request::ids::{self, IdKind, Named};
use super::request::permission::Area;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, names};
use super::{AppState, hosts};
use crate::store::events::{EventFilter, EventRow, Span, Topic};

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    #[schema(minimum = 0)]
    pub seq: i64,
    pub at: String,
    #[schema(value_type = names::EventKindName)]
    pub kind: String,
    #[schema(value_type = names::EventObject)]
    pub object: String,
    pub object_id: Option<String>,
    /// The current name of the object, if it has one.
    pub object_name: Option<String>,
    pub service: Option<String>,
    pub cause: String,
    /// The output or text behind the event, 1,024 bytes at most.
    pub evidence: String,
    /// The text is longer. The service (or host) has all of it while it is current.
    #[serde(default)]
    pub truncated: bool,
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    pub principal: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(audit))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only events of this host or device, by id or name. A removed one is found by its id.
    host: Option<String>,
    /// A kind (`state.changed`), or the first part of some (`device` for `device.created`).
    kind: Option<String>,
    /// Oldest first, from after this number on; without it the newest come first.
    since: Option<i64>,
    /// With `host`: only events of this time (RFC 3339) or later.
    from: Option<String>,
    /// With `host`: only events before this time (RFC 3339).
    to: Option<String>,
}

impl Filter {
    /// Without a host the whole log would be searched for a time: `since` finds a place in it.
    fn times(&self) -> Result<(Option<Wall>, Option<Wall>), Problem> {
        let (from, to) = ids::parse_times(self.from.as_deref(), self.to.as_deref())?;
        if (from.is_some() || to.is_some()) && self.host.is_none() {
            let detail = "from and to: only with host, whose events are searched; without it, page with since or after";
            return Err(Problem::bad_request("bad_query", detail));
        }
        Ok((from, to))
    }
}

/// What a list of the events of a host leaves out.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LeftOut {
    /// With `host`: no events whose kind is one of these words or begins with it, such as `state,message`.
    without: Option<String>,
}

impl LeftOut {
    fn families(&self, wanted: &Filter) -> Result<Vec<&str>, Problem> {
        let families: Vec<&str> = self.without.iter().flat_map(|text| text.split(',')).collect();
        if !families.is_empty() && wanted.host.is_none() {
            let detail = "without: only with host; without it, `kind` selects a kind or a family";
            return Err(Problem::bad_request("bad_query", detail));
        }
        Ok(families)
    }
}

/// The event log, the newest first.
///
/// Viewers do not get events about people and their access: grants, operators, connections, probes, users, tokens and
/// logins, or customers, rentals and subscriptions. A token with scopes gets the former only with the scope `access`, and
/// the latter only with `rentals`.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter, LeftOut),
    responses((status = 200, body = Page<Event>)))]
async fn list(
    State(app): State<AppState>,
    who: Principal,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
    Query(left_out): Query<LeftOut>,
) -> Result<Json<Page<Event>>, Problem> {
    let (without, families) = (hidden_from(&who), left_out.families(&wanted)?);
    let all = EventFilter { without: &without, families: &families, ..EventFilter::default() };
    page(&app, &paging, &wanted, &all).await
}

/// Whether the caller gets events of a topic, as it reads grants and operators, or rentals.
pub(super) fn reads(who: &Principal, topic: Topic) -> bool {
    let area = match topic {
        Topic::Access => Area::Access,
        Topic::Rentals => Area::Rentals,
    };
    who.role >= Role::Operator && who.must_reach(area).is_ok()
}

/// The topics of which the caller gets no events.
pub(super) fn hidden_from(who: &Principal) -> Vec<Topic> {
    Topic::ALL.into_iter().filter(|topic| !reads(who, *topic)).collect()
}

/// Actions of users, tokens and devices, the newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "access",
    security(("token" = ["access:admin"])), params(Paging, Filter),
    responses((status = 200, body = Page<Event>)))]
async fn audit(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Event>>, Problem> {
    page(&app, &paging, &wanted, &EventFilter { audit: true, ..EventFilter::default() }).await
}

async fn page(
    app: &AppState,
    paging: &Paging,
    wanted: &Filter,
    all: &EventFilter<'_>,
) -> Result<Json<Page<Event>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after_number()?);
    let span = match wanted.since {
        Some(since) => Span::Since(after.unwrap_or(since)),
        None => Span::Before(after.unwrap_or(i64::MAX)),
    };
    let (from, to) = wanted.times()?;
    let object = match wanted.host.as_deref().map(|text| IdKind::Host.named(text)) {
        None => None,
        Some(Named::Id(id)) => Some(id),
        Some(named) => Some(hosts::load(&mut *app.store.reader().await?, named).await?.id),
    };
    let filter = EventFilter { object, kind: wanted.kind.as_deref(), from, to, ..all.clone() };
    let rows: Vec<EventRow> = app.store.events(span, &filter, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |e| e.seq.to_string(), event)))
}

/// Converts a row of the log.
pub(super) fn event(row: EventRow) -> Event {
    let kind = match row.object.as_str() {
        "host" | "service" | "device" => Some(IdKind::Host),
        "enrolment" => Some(IdKind::Enrolment),
        "token" => Some(IdKind::Token),
        "user" => Some(IdKind::User),
        "downtime" => Some(IdKind::Downtime),
        "incident" => Some(IdKind::Incident),
        "contact" => Some(IdKind::Contact),
        "rule" => Some(IdKind::Rule),
        "message" => Some(IdKind::Message),
        _ => None,
    };
    Event {
        seq: row.seq,
        at: ids::time(row.at),
        kind: row.kind,
        object_id: kind.and_then(|kind| row.object_id.map(|id| kind.text(id))),
        object: row.object,
        object_name: row.object_name,
        service: row.service,
        cause: row.cause,
        evidence: row.evidence.to_string(),
        truncated: row.evidence.is_truncated(),
        data: serde_json::from_str(&row.data).unwrap_or_default(),
        principal: row.principal,
    }
}
