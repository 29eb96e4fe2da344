//! Incidents: problems with one cause, acknowledged together.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::messages::{GATEWAY, IncidentAck, IncidentId, MonitorInput};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::acknowledgements::NewAcknowledgement;
use super::events::Event;
use super::notifications::Notification;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query};
use super::request::ids::{self, IdKind, Named};
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, names};
use super::{AppState, events, hosts, notifications};
use crate::notification::incident_text;
use crate::store::SqliteConnection;
use crate::store::events::{EventFilter, Object, Span};
use crate::store::incidents::{self as stored, Ack, IncidentRow, MemberRow, OfHost};
use crate::store::lists::readable;
use crate::store::notices::{self, NoticeFilter};

/// Listed members, as many as a person scrolls through.
const LISTED: i64 = 500;
/// The remaining work when an incident was merged whose acknowledgement is to be taken back.
const MERGED_AWAY: &str = "remove its acknowledgement, or those of its members";
/// Events and notifications that are shown with it.
const NEWEST: i64 = 100;

/// Problems with one cause. They are notified, acknowledged and closed together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// `i_...`
    pub id: String,
    #[schema(value_type = names::IncidentScope)]
    pub scope: String,
    #[schema(value_type = names::IncidentCause)]
    pub cause: String,
    /// The cause as a text.
    pub text: String,
    /// The label `site` that its hosts share.
    pub site: Option<String>,
    #[schema(value_type = names::IncidentState)]
    pub state: String,
    pub opened_at: String,
    /// When its last problem ended; absent while it is open. It stays open for two minutes longer.
    pub closed_at: Option<String>,
    pub merged_into: Option<String>,
    /// The acknowledgement; absent after it expired, was removed, or all members recovered.
    pub acknowledged_by: Option<IncidentAcknowledgement>,
    /// How many of its hosts and services have a problem.
    #[schema(minimum = 0)]
    pub open_members: i64,
    /// How many hosts and services were ever part of it.
    #[schema(minimum = 0)]
    pub members: i64,
}

/// The acknowledgement of all members and of those that join, until the incident closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentAcknowledgement {
    pub author: String,
    pub comment: String,
    pub at: String,
    /// Until each member recovers; otherwise until its state changes.
    pub sticky: bool,
    pub expires: Option<String>,
}

/// An incident with its members, events and notifications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentDetails {
    #[serde(flatten)]
    pub incident: Incident,
    /// Members, those with a problem first; at most 500.
    pub listed: Vec<IncidentMember>,
    /// The newest first; at most 100.
    pub events: Vec<Event>,
    /// Its notifications, suppressed ones included, the newest first, at most 100. All of them:
    /// `/notifications?object=i_...`.
    pub notifications: Vec<Notification>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentMember {
    /// Absent: the gateway itself.
    pub host: Option<String>,
    pub host_name: String,
    pub site: Option<String>,
    /// Absent: the host itself.
    pub service: Option<String>,
    /// The output of its last check, 1,024 bytes at most. Empty when the host or service is gone.
    pub output: String,
    /// Its first failure.
    pub began_at: String,
    pub joined_at: String,
    /// When it recovered, or left the incident.
    pub left_at: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(acknowledge, withdraw))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Both when absent.
    #[param(value_type = Option<names::IncidentFilter>)]
    state: Option<String>,
    /// Only incidents that have or had this host, or a service of it, as a member. By id or name; a removed host is
    /// found by its id.
    host: Option<String>,
    /// With `host`: only incidents that were open at this time (RFC 3339) or later.
    from: Option<String>,
    /// With `host`: only incidents that opened before this time (RFC 3339).
    to: Option<String>,
}

impl Filter {
    fn open(&self) -> Result<Option<bool>, Problem> {
        match self.state.as_deref() {
            None => Ok(None),
            Some("open") => Ok(Some(true)),
            Some("closed") => Ok(Some(false)),
            Some(_) => Err(Problem::bad_request("bad_query", "state: open or closed")),
        }
    }

    fn of_host(&self) -> Result<OfHost, Problem> {
        let (from, to) = ids::parse_times(self.from.as_deref(), self.to.as_deref())?;
        if (from.is_some() || to.is_some()) && self.host.is_none() {
            let detail =
                "from and to: only with host, whose incidents are searched; without it, page with after";
            return Err(Problem::bad_request("bad_query", detail));
        }
        Ok(OfHost { open: self.open()?, from, to })
    }
}

/// Incidents, the newest first, without those that were merged into another.
#[utoipa::path(get, path = "/incidents", operation_id = "list_incidents", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter),
    responses((status = 200, body = Page<Incident>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Incident>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let wanted = filter.of_host()?;
    let mut conn = app.store.reader().await?;
    let host = match filter.host.as_deref().map(|text| IdKind::Host.named(text)) {
        None => None,
        Some(Named::Id(id)) => Some(id),
        Some(named) => Some(hosts::load(&mut conn, named).await?.id),
    };
    let rows = match host {
        None => stored::list(&mut conn, wanted.open, before, limit + 1).await?,
        Some(host) => stored::of_host(&mut conn, host, wanted, (before, limit + 1)).await?,
    };
    let now = crate::clock::wall();
    Ok(Json(Page::of(rows, limit, |row| row.id.0.as_i64().to_string(), |row| to_api(&row, now))))
}

/// An incident with its members, events and notifications.
///
/// One that was merged names the other, and keeps its notifications up to then.
#[utoipa::path(get, path = "/incidents/{incident}", operation_id = "show_incident", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(("incident" = String, Path)),
    responses((status = 200, body = IncidentDetails)))]
async fn show(
    State(app): State<AppState>,
    Path(incident): Path<String>,
) -> Result<Json<IncidentDetails>, Problem> {
    let mut conn = app.store.reader().await?;
    let row = load(&mut conn, &incident).await?;
    let members = stored::members(&mut conn, row.id, LISTED).await?;
    let wanted = NoticeFilter { incident: Some(row.id), ..NoticeFilter::default() };
    let told = notices::list(&mut conn, &wanted, i64::MAX, NEWEST).await?;
    let told = readable(notifications::with_outcomes(&mut conn, told).await?);
    drop(conn);
    let about = EventFilter { object: Some(row.id.0), ..EventFilter::default() };
    let events = app.store.events(Span::Before(i64::MAX), &about, NEWEST).await?;
    Ok(Json(IncidentDetails {
        incident: to_api(&row, crate::clock::wall()),
        listed: members.into_iter().map(member).collect(),
        events: events.into_iter().map(events::event).collect(),
        notifications: told.iter().map(|(notice, of)| notifications::to_api(notice, of)).collect(),
    }))
}

/// Acknowledges an incident.
///
/// Problems and reminders of all members, and of those that join, are suppressed until it ends, and no delay of a
/// rule runs out. It replaces an earlier acknowledgement.
#[utoipa::path(post, path = "/incidents/{incident}/acknowledgement", operation_id = "acknowledge_incident",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), request_body = NewAcknowledgement,
    params(("incident" = String, Path)), responses((status = 201, body = Incident)))]
async fn acknowledge(
    State(app): State<AppState>,
    who: Principal,
    Path(incident): Path<String>,
    Body(new): Body<NewAcknowledgement>,
) -> Result<(StatusCode, Json<Incident>), Problem> {
    let now = crate::clock::wall();
    let mut fields = Fields::default();
    let comment = fields.take("comment", parse::notes(new.comment)).unwrap_or_default();
    let expires = new.expires.as_deref().map(|text| parse::future(text, now)).transpose();
    let expires_at = fields.take("expires", expires).flatten();
    fields.finish()?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let row = load(write.tx(), &incident).await?;
    if row.closed_at.is_some() || row.ill == 0 {
        return Err(not_open(&row, "acknowledge that"));
    }
    let (at, author) = (write.now, write.by.clone());
    let ack = Ack { at, author, comment, sticky: new.sticky, expires_at };
    stored::acknowledge(write.tx(), row.id, &ack).await?;
    let data = json!({ "sticky": ack.sticky, "expires": ack.expires_at.map(ids::time), "members": row.ill });
    write.event("incident.acknowledged", (Object::Incident, row.id.0), &ack.comment, data).await?;
    write.commit().await?;
    app.handle.settle(MonitorInput::AcknowledgeIncident(row.id, IncidentAck::from(&ack))).await;
    // Waiting notifications may now be unnecessary.
    app.office.wakeups.notices();
    // The incident may have been merged or resolved before the monitor got this.
    let row = load(&mut *app.store.reader().await?, &incident).await?;
    if row.ack.is_none() {
        return Err(not_open(&row, "acknowledge that"));
    }
    Ok((StatusCode::CREATED, Json(to_api(&row, at))))
}

/// Removes the acknowledgement of an incident. Notifications resume.
///
/// 409 `not_open` if the incident is closed or was merged into another.
#[utoipa::path(delete, path = "/incidents/{incident}/acknowledgement",
    operation_id = "withdraw_incident_acknowledgement", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), params(("incident" = String, Path)), responses((status = 204)))]
async fn withdraw(
    State(app): State<AppState>,
    who: Principal,
    Path(incident): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let row = load(write.tx(), &incident).await?;
    if row.closed_at.is_some() {
        return Err(not_open(&row, MERGED_AWAY));
    }
    let now = write.now;
    if !stored::unacknowledge(write.tx(), row.id, now).await? {
        return Err(Problem::not_found(format!("{} is not acknowledged", row.id)));
    }
    let about = (Object::Incident, row.id.0);
    write.event("incident.acknowledgement_withdrawn", about, "acknowledgement removed", json!({})).await?;
    write.commit().await?;
    app.handle.settle(MonitorInput::UnacknowledgeIncident(row.id)).await;
    app.office.wakeups.notices();
    let row = load(&mut *app.store.reader().await?, &incident).await?;
    if row.merged_into.is_some() {
        return Err(not_open(&row, MERGED_AWAY));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn not_open(row: &IncidentRow, advice: &str) -> Problem {
    let detail = match row.merged_into {
        Some(into) => format!("{} was merged into {into}: {advice}", row.id),
        None => format!("{} is closed: all its members have recovered", row.id),
    };
    Problem::conflict("not_open", detail)
}

/// # Errors
/// Returns 404 for an invalid id, because it names nothing.
pub(super) fn parse(text: &str) -> Result<IncidentId, Problem> {
    Ok(IncidentId(IdKind::Incident.parse(text)?))
}

async fn load(conn: &mut SqliteConnection, incident: &str) -> Result<IncidentRow, Problem> {
    let row = stored::find(conn, parse(incident)?).await?;
    row.ok_or_else(|| IdKind::Incident.unknown(incident).into())
}

fn to_api(row: &IncidentRow, now: Wall) -> Incident {
    let state = match (row.merged_into, row.closed_at) {
        (Some(_), _) => "merged",
        (None, Some(_)) => "closed",
        (None, None) => "open",
    };
    let holds = |ack: &&Ack| ack.expires_at.is_none_or(|at| at > now);
    Incident {
        id: row.id.to_string(),
        scope: row.extent.clone(),
        cause: row.cause.clone(),
        text: incident_text::of(row),
        site: row.site.clone(),
        state: state.to_owned(),
        opened_at: ids::time(row.opened_at),
        closed_at: row.closed_at.map(ids::time),
        merged_into: row.merged_into.map(|id| id.to_string()),
        acknowledged_by: row.ack.as_ref().filter(holds).map(|ack| IncidentAcknowledgement {
            author: ack.author.clone(),
            comment: ack.comment.clone(),
            at: ids::time(ack.at),
            sticky: ack.sticky,
            expires: ack.expires_at.map(ids::time),
        }),
        open_members: row.ill,
        members: row.members,
    }
}

fn member(row: MemberRow) -> IncidentMember {
    IncidentMember {
        host: (row.host != GATEWAY).then(|| IdKind::Host.text(row.host)),
        host_name: row.host_name.unwrap_or_else(|| "gateway".to_owned()),
        site: row.site,
        service: row.service,
        output: row.output.to_string(),
        began_at: ids::time(row.began_at),
        joined_at: ids::time(row.joined_at),
        left_at: row.left_at.map(ids::time),
    }
}
