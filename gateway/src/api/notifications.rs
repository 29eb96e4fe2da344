//! Notifications with their outcomes, and messages under way.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{GATEWAY, SuppressReason};
use fleetgate_engine::notification::{NoticeId, WaitFor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::auth::Principal;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind, Named};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, names};
use super::{AppState, hosts, incidents};
use crate::store::events::Object;
use crate::store::lists::Entry;
use crate::store::notices::{self, NoticeFilter, NoticeRow};
use crate::store::outbox::{self, MessageRow};
use crate::store::outcomes::{self, Outcome};
use crate::store::{SqliteConnection, backlog, suppression_detail};

/// The gateway's name in its own messages.
const GATEWAY_NAME: &str = "gateway";

/// A notification, and what became of it for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// `n_...`
    pub id: String,
    /// When it became necessary.
    pub at: String,
    pub host_id: String,
    pub host: String,
    pub service: Option<String>,
    /// The incident that it belongs to.
    pub incident: Option<String>,
    #[serde(rename = "type")]
    #[schema(value_type = names::NotificationType)]
    pub kind: String,
    #[schema(value_type = names::ObjectState)]
    pub state: String,
    #[schema(value_type = names::ObjectState)]
    pub previous_notified_state: String,
    /// Since when the state holds.
    pub since: String,
    /// The output of the check that decided, 1,024 bytes at most.
    pub cause: String,
    /// The output is longer. The service (or host) has all of it while it is current.
    #[serde(default)]
    pub truncated: bool,
    /// The author and comment of an acknowledgement or downtime.
    pub note: String,
    /// The best of the outcomes; `new` before any.
    #[schema(value_type = names::NotificationResult)]
    pub outcome: String,
    pub outcomes: Vec<NotificationOutcome>,
}

/// The outcome of a notification for one contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotificationOutcome {
    #[schema(value_type = names::ContactResult)]
    pub outcome: String,
    /// Absent if no contact was selected.
    pub contact: Option<String>,
    /// The message it went with.
    pub message: Option<String>,
    #[schema(value_type = Option<names::ChannelName>)]
    pub channel: Option<String>,
    /// For a webhook it is only the server.
    pub address: Option<String>,
    /// When it was sent or suppressed, when the next attempt is due, or since when it waits.
    pub at: Option<String>,
    /// Why it waits or is suppressed; absent otherwise.
    #[schema(value_type = Option<names::NotificationReason>)]
    pub reason: Option<String>,
    /// The reason as a text; of what was sent, the rule.
    pub text: String,
    /// The evidence: the answer of a server, the acknowledgement, the downtime; of what waits, its rule.
    pub evidence: String,
    #[schema(minimum = 0)]
    pub attempts: i64,
}

/// A message to one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `m_...`
    pub id: String,
    pub contact: String,
    #[schema(value_type = names::ChannelName)]
    pub channel: String,
    /// For a webhook it is only the server.
    pub address: String,
    #[schema(value_type = names::MessageContent)]
    pub kind: String,
    #[schema(value_type = names::MessageResult)]
    pub outcome: String,
    /// How many notifications it contains.
    #[schema(minimum = 0)]
    pub notifications: i64,
    pub created_at: String,
    #[schema(minimum = 0)]
    pub attempts: i64,
    /// While it waits.
    pub next_attempt: Option<String>,
    pub last_error: Option<String>,
    pub sent_at: Option<String>,
    pub given_up_at: Option<String>,
}

/// The messages of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Messages {
    pub items: Vec<Message>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(list_messages))
        .routes(routes!(show_message))
        .routes(routes!(resend))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// A host (name or id), or one service of it: `cam-07`, `cam-07/disk`. The id also of a host that
    /// was removed. Or an incident, by its id. `gateway`, where no host is called that: the gateway itself.
    object: Option<String>,
    /// From this time on, such as `2026-03-10T13:03:22Z`.
    since: Option<String>,
}

/// Notifications, the newest first: sent, waiting and suppressed ones, with the reason.
#[utoipa::path(get, path = "/notifications", operation_id = "list_notifications", tag = "notifications",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter),
    responses((status = 200, body = Page<Notification>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Notification>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let since = filter.since.as_deref().map(|text| ids::parse_time("since", text)).transpose()?;
    let mut conn = app.store.reader().await?;
    let incident = filter.object.as_deref().filter(|object| object.starts_with("i_"));
    let incident = incident.map(incidents::parse).transpose()?;
    let (host, service) = match filter.object.as_deref() {
        _ if incident.is_some() => (None, None),
        None => (None, None),
        Some(object) => {
            let (host, service) = object.split_once('/').map_or((object, None), |(h, s)| (h, Some(s)));
            (Some(told_of(&mut conn, host).await?), service)
        }
    };
    let wanted = NoticeFilter { host, service, since, incident };
    let rows = notices::list(&mut conn, &wanted, before, limit + 1).await?;
    let rows = with_outcomes(&mut conn, rows).await?;
    Ok(Json(Page::of_entries(rows, limit, |(n, _)| n.id.0.to_string(), |(n, of)| to_api(&n, &of))))
}

/// Returns the id of a host or of the gateway.
async fn told_of(conn: &mut SqliteConnection, host: &str) -> Result<HostId, Problem> {
    match IdKind::Host.named(host) {
        Named::Id(id) => Ok(id),
        named => match hosts::load(conn, named).await {
            Err(_) if host == GATEWAY_NAME => Ok(GATEWAY),
            loaded => Ok(loaded?.id),
        },
    }
}

/// Returns the outcomes. One that waits for the end of a suppression comes with its explanation.
async fn outcomes_of(conn: &mut SqliteConnection, of: &[&NoticeRow]) -> Result<Vec<Outcome>, Problem> {
    let numbers: Vec<NoticeId> = of.iter().map(|n| n.id).collect();
    let mut outcomes = outcomes::outcomes(conn, &numbers).await?;
    for outcome in outcomes.iter_mut().filter(|o| o.outcome == "waiting") {
        let Some(WaitFor::Silence(why)) = WaitFor::named(&outcome.reason) else { continue };
        let Some(notice) = of.iter().find(|n| n.id == outcome.notice) else { continue };
        let detail = suppression_detail::of(conn, notice.host, notice.service.as_deref(), why).await?;
        if !detail.is_empty() {
            outcome.evidence = detail;
        }
    }
    Ok(outcomes)
}

pub(super) async fn with_outcomes(
    conn: &mut SqliteConnection,
    entries: Vec<Entry<NoticeRow>>,
) -> Result<Vec<Entry<(NoticeRow, Vec<Outcome>)>>, Problem> {
    let rows: Vec<&NoticeRow> = entries.iter().filter_map(Entry::as_row).collect();
    let mut outcomes = by_notice(outcomes_of(conn, &rows).await?);
    let mut with_outcomes = |row: NoticeRow| {
        let of = outcomes.remove(&row.id).unwrap_or_default();
        (row, of)
    };
    Ok(entries.into_iter().map(|entry| entry.map(&mut with_outcomes)).collect())
}

fn by_notice(outcomes: Vec<Outcome>) -> BTreeMap<NoticeId, Vec<Outcome>> {
    let mut by = BTreeMap::<NoticeId, Vec<Outcome>>::new();
    for outcome in outcomes {
        by.entry(outcome.notice).or_default().push(outcome);
    }
    by
}

/// A notification with its outcomes.
#[utoipa::path(get, path = "/notifications/{notification}", operation_id = "show_notification",
    tag = "notifications", security(("token" = ["monitoring:viewer"])), params(("notification" = String, Path)),
    responses((status = 200, body = Notification)))]
async fn show(
    State(app): State<AppState>,
    Path(notification): Path<String>,
) -> Result<Json<Notification>, Problem> {
    let id = NoticeId(IdKind::Notice.parse(&notification)?.as_i64());
    let mut conn = app.store.reader().await?;
    let row = notices::find(&mut conn, id).await?.ok_or_else(|| IdKind::Notice.unknown(&notification))?;
    Ok(Json(to_api(&row, &outcomes_of(&mut conn, &[&row]).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MessageFilter {
    /// All when absent.
    #[param(value_type = Option<names::MessageResult>)]
    outcome: Option<String>,
}

/// Messages to addresses, the newest first.
#[utoipa::path(get, path = "/messages", operation_id = "list_messages", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(Paging, MessageFilter),
    responses((status = 200, body = Page<Message>)))]
async fn list_messages(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(filter): Query<MessageFilter>,
) -> Result<Json<Page<Message>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let wanted = match filter.outcome.as_deref() {
        None => outbox::Filter::All,
        Some("waiting") => outbox::Filter::Waiting,
        Some("sent") => outbox::Filter::Sent,
        Some("given_up") => outbox::Filter::GivenUp,
        Some(_) => return Err(Problem::bad_request("bad_query", "outcome: waiting, sent or given_up")),
    };
    let mut conn = app.store.reader().await?;
    let mut rows = Vec::new();
    for row in outbox::list(&mut conn, wanted, before, limit + 1).await? {
        let count = outbox::contents(&mut conn, row.id, 0, outbox::Order::Time).await?.total();
        rows.push((row, count));
    }
    Ok(Json(Page::of(rows, limit, |(m, _)| m.id.to_string(), |(m, count)| message_to_api(&m, count))))
}

/// A message.
#[utoipa::path(get, path = "/messages/{message}", operation_id = "show_message", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(("message" = String, Path)),
    responses((status = 200, body = Message)))]
async fn show_message(
    State(app): State<AppState>,
    Path(message): Path<String>,
) -> Result<Json<Message>, Problem> {
    let id = IdKind::Message.parse(&message)?.as_i64();
    let mut conn = app.store.reader().await?;
    let row = outbox::find(&mut conn, id).await?.ok_or_else(|| IdKind::Message.unknown(&message))?;
    let count = outbox::contents(&mut conn, id, 0, outbox::Order::Time).await?.total();
    Ok(Json(message_to_api(&row, count)))
}

/// Sends a message again whose delivery failed for good.
///
/// Problems that are over, or that a newer message reports, are left out. 409 `superseded`: nothing of it is left.
#[utoipa::path(post, path = "/messages/{message}/resend", operation_id = "resend_message",
    tag = "notifications", security(("token" = ["monitoring:operator"])), params(("message" = String, Path)),
    responses((status = 202, body = Message)))]
async fn resend(
    State(app): State<AppState>,
    who: Principal,
    Path(message): Path<String>,
) -> Result<(StatusCode, Json<Message>), Problem> {
    let id = IdKind::Message.parse(&message)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let now = write.now;
    let unknown = || IdKind::Message.unknown(&message);
    let row = outbox::find(write.tx(), id.as_i64()).await?.ok_or_else(unknown)?;
    if row.given_up_at.is_none() {
        let state = if row.sent_at.is_some() { "was sent" } else { "is still on its way" };
        return Err(Problem::conflict("not_given_up", format!("this message {state}")));
    }
    backlog::refresh(write.tx(), id.as_i64()).await?;
    if outbox::is_superseded(write.tx(), id.as_i64()).await? {
        let why = "the problems of this message are over, or a newer message reports them: there is nothing to send";
        return Err(Problem::conflict("superseded", why));
    }
    outbox::resend(write.tx(), id.as_i64(), now).await?;
    let row = outbox::find(write.tx(), id.as_i64()).await?.ok_or_else(unknown)?;
    let count = outbox::contents(write.tx(), row.id, 0, outbox::Order::Time).await?.total();
    write.event("message.resent", (Object::Message, id), "tried again", json!({})).await?;
    write.commit().await?;
    app.office.wakeups.messages();
    Ok((StatusCode::ACCEPTED, Json(message_to_api(&row, count))))
}

pub(super) fn to_api(row: &NoticeRow, outcomes: &[Outcome]) -> Notification {
    Notification {
        id: IdKind::Notice.text(Id::from_i64(row.id.0)),
        at: ids::time(row.at),
        host_id: IdKind::Host.text(row.host),
        host: row.host_name.clone(),
        service: row.service.clone(),
        incident: row.incident.map(|id| id.to_string()),
        kind: row.kind.clone(),
        state: row.to.clone(),
        previous_notified_state: row.from.clone(),
        since: ids::time(row.since),
        cause: row.output.to_string(),
        truncated: row.output.is_truncated(),
        note: row.note.clone(),
        outcome: sum(outcomes).to_owned(),
        outcomes: outcomes.iter().map(outcome_to_api).collect(),
    }
}

/// Returns the best outcome.
fn sum(outcomes: &[Outcome]) -> &'static str {
    let known = ["sent", "sending", "waiting", "given_up", "suppressed"];
    known.into_iter().find(|k| outcomes.iter().any(|o| o.outcome == *k)).unwrap_or("new")
}

/// Returns the text for a wait. The reasons for suppression have texts of their own, because a
/// service's delay differs from a rule's.
fn waits_for(reason: &str) -> &'static str {
    match reason {
        "group" => "waits for others of its group",
        "delay" => "waits for the delay of the rule",
        "period" => "waits for the time period of the rule",
        "cap" => "waits: this contact has reached its limit of messages per hour",
        silence => SuppressReason::named(silence).map_or("", SuppressReason::words),
    }
}

fn outcome_to_api(outcome: &Outcome) -> NotificationOutcome {
    let text = match outcome.outcome.as_str() {
        "waiting" => waits_for(&outcome.reason),
        _ => &outcome.text,
    };
    NotificationOutcome {
        outcome: outcome.outcome.clone(),
        contact: outcome.contact.clone(),
        message: outcome.message.map(|id| IdKind::Message.text(Id::from_i64(id))),
        channel: outcome.channel.clone(),
        address: outcome.address.as_ref().map(ToString::to_string),
        at: outcome.at.map(ids::time),
        reason: Some(outcome.reason.clone()).filter(|reason| !reason.is_empty()),
        text: text.to_owned(),
        evidence: outcome.evidence.clone(),
        attempts: outcome.attempts,
    }
}

pub(super) fn message_to_api(row: &MessageRow, notifications: i64) -> Message {
    let waits = row.sent_at.is_none() && row.given_up_at.is_none();
    let outcome = match (row.sent_at, row.given_up_at) {
        (Some(_), _) => "sent",
        (None, Some(_)) => "given_up",
        (None, None) => "waiting",
    };
    Message {
        id: IdKind::Message.text(Id::from_i64(row.id)),
        contact: row.contact_name.clone(),
        channel: row.channel.name().to_owned(),
        address: row.address.to_string(),
        kind: row.kind.name().to_owned(),
        outcome: outcome.to_owned(),
        notifications,
        created_at: ids::time(row.created_at),
        attempts: i64::from(row.attempts),
        next_attempt: waits.then(|| ids::time(row.next_attempt)),
        last_error: row.last_error.clone(),
        sent_at: row.sent_at.map(ids::time),
        given_up_at: row.given_up_at.map(ids::time),
    }
}
