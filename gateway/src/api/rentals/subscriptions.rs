//! Subscriptions: programs that receive the events of rentals by webhook.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::rental::events::RentalEventKind;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::begin;
use crate::api::AppState;
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path, never_null};
use crate::api::request::idempotency::Disclosed;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::{Fields, Setter};
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::{IfMatch, Tagged, header_value};
use crate::api::response::problem::Problem;
use crate::api::types::{Page, names};
use crate::notification::webhook;
use crate::outbound::secret_url::SecretUrl;
use crate::outbound::{Purpose, address};
use crate::store::events::Object;
use crate::store::rentals::events;
use crate::store::subscriptions::{self as stored, secret_place};

/// Each is served on its own, so they bound the calls at the same time.
const MAX_SUBSCRIPTIONS: i64 = 20;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, remove))
}

/// A program that receives the events of rentals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    pub id: String,
    /// Absent when the call was a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Empty: all.
    #[schema(value_type = Vec<names::RentalEventKind>)]
    pub kinds: Vec<String>,
    /// Events wait until it is resumed.
    pub paused: bool,
    /// Since when an event has failed ten times, which takes an hour and a half. It is tried on each hour as long as it is
    /// kept, and the later events of its rental wait. Absent: none has.
    pub failing_since: Option<String>,
    /// When an event that has failed is tried again. Absent: none has.
    pub next_attempt_at: Option<String>,
    /// Why a delivery failed last, since the subscription was made or resumed.
    pub last_error: Option<String>,
    pub last_error_at: Option<String>,
    /// When an event was accepted last.
    pub delivered_at: Option<String>,
    /// Events that were not accepted yet. Of more than 1,000 the others wait in the feed.
    #[schema(minimum = 0)]
    pub waiting: i64,
    /// The user or token that made it.
    pub author: String,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    /// http or https. Calls are signed with a secret that is shown once.
    pub url: String,
    /// Only these kinds; all when empty.
    #[serde(default)]
    #[schema(value_type = Vec<names::RentalEventKind>)]
    pub kinds: Vec<String>,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub url: Option<String>,
    /// For events that are not taken for delivery yet: those that come later, and those that wait in the feed, as
    /// while it is paused. Replaced as a whole; empty: all.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<names::RentalEventKind>)]
    pub kinds: Option<Vec<String>>,
    /// `false` resumes: all events that wait are tried again now.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    pub paused: Option<bool>,
}

/// A subscription, and its secret if it was made by this call.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionWithSecret {
    #[serde(flatten)]
    pub subscription: Subscription,
    /// Shown once: what `X-Fleetgate-Signature` is made with. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Subscriptions, the oldest first.
#[utoipa::path(get, path = "/subscriptions", operation_id = "list_subscriptions", tag = "rentals",
    security(("token" = ["rentals:operator"])), responses((status = 200, body = Page<Subscription>)))]
async fn list(State(app): State<AppState>) -> Result<Json<Page<Subscription>>, Problem> {
    let all = stored::list(&mut *app.store.reader().await?).await?;
    Ok(Json(Page { items: all.iter().map(to_api).collect(), next: None }))
}

/// Adds a subscription. It receives the events from now on. Its secret is shown once.
#[utoipa::path(post, path = "/subscriptions", operation_id = "create_subscription", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = NewSubscription,
    responses((status = 201, body = SubscriptionWithSecret)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewSubscription>,
) -> Result<Response, Problem> {
    let mut wrong = Fields::default();
    let url = wrong.take("url", address::parse(&new.url));
    let kinds = wrong.take("kinds", kinds(new.kinds)).unwrap_or_default();
    wrong.finish()?;
    let url = url.unwrap_or_default();
    permitted(&app, &url).await?;
    let mut write = begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    if stored::count(write.tx()).await? >= MAX_SUBSCRIPTIONS {
        let detail = format!("at most {MAX_SUBSCRIPTIONS} subscriptions are possible: remove one");
        return Err(Problem::limit_reached(detail));
    }
    let (_, cursor) = events::bounds(write.tx()).await?;
    let (id, secret) = (ids::new_id(now), webhook::new_secret());
    let subscription = stored::Subscription {
        id,
        url: SecretUrl::from(url),
        kinds,
        secret: app.store.seal(&secret_place(id), secret.as_bytes()),
        cursor,
        paused_at: None,
        failing_since: None,
        next_attempt: None,
        last_error: None,
        delivered_at: None,
        created_by: by,
        version: 1,
        created_at: now,
        waiting: 0,
    };
    stored::insert(write.tx(), &subscription).await?;
    let data = json!({ "id": IdKind::Subscription.text(id) });
    write.event("subscription.created", (Object::Subscription, id), "added", data).await?;
    write.commit().await?;
    let shown = to_api(&subscription);
    let once = SubscriptionWithSecret { subscription: shown.clone(), secret: Some(secret.to_string()) };
    let again = SubscriptionWithSecret { subscription: Subscription { url: None, ..shown }, secret: None };
    let tag = [(header::ETAG, header_value(subscription.version))];
    Ok((tag, Disclosed { status: StatusCode::CREATED, once, again }).into_response())
}

/// A subscription.
#[utoipa::path(get, path = "/subscriptions/{subscription}", operation_id = "show_subscription", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("subscription" = String, Path, description = "id")),
    responses((status = 200, body = Subscription)))]
async fn show(
    State(app): State<AppState>,
    Path(subscription): Path<String>,
) -> Result<Tagged<Subscription>, Problem> {
    let id = IdKind::Subscription.parse(&subscription)?;
    let found = stored::find(&mut *app.store.reader().await?, id).await?;
    let found = found.ok_or_else(|| IdKind::Subscription.unknown(&subscription))?;
    Ok(Tagged { version: found.version, value: to_api(&found) })
}

/// Changes, pauses or resumes a subscription. Another address resumes it too.
#[utoipa::path(patch, path = "/subscriptions/{subscription}", operation_id = "change_subscription", tag = "rentals",
    security(("token" = ["rentals:operator"])), request_body = SubscriptionChange,
    params(("subscription" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Subscription)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(subscription): Path<String>,
    if_match: IfMatch,
    Body(change): Body<SubscriptionChange>,
) -> Result<Tagged<Subscription>, Problem> {
    if let Some(url) = change.url.as_deref().and_then(|url| address::parse(url).ok()) {
        permitted(&app, &url).await?;
    }
    let mut write = begin(&app, &who).await?;
    let (before, now) = (load(&mut write, &subscription).await?, write.now);
    if_match.check(before.version)?;
    let is_resumed = change.paused == Some(false);
    let mut after = changed(&before, change, now)?;
    let has_failed = before.failing_since.is_some() || before.last_error.is_some();
    if (is_resumed && (has_failed || before.paused_at.is_some())) || after.url != before.url {
        stored::resume(write.tx(), after.id).await?;
        (after.failing_since, after.next_attempt, after.last_error) = (None, None, None);
    }
    if after != before {
        stored::update(write.tx(), &after).await?;
        after.version += 1;
        let data =
            json!({ "id": IdKind::Subscription.text(after.id), "changed": differences(&before, &after) });
        write.event("subscription.changed", (Object::Subscription, after.id), "changed", data).await?;
    }
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&after) })
}

/// Removes a subscription. Events that were not accepted yet are not delivered any more.
#[utoipa::path(delete, path = "/subscriptions/{subscription}", operation_id = "remove_subscription", tag = "rentals",
    security(("token" = ["rentals:operator"])),
    params(("subscription" = String, Path, description = "id"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    Path(subscription): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = begin(&app, &who).await?;
    let gone = load(&mut write, &subscription).await?;
    if_match.check(gone.version)?;
    stored::remove(write.tx(), gone.id).await?;
    let data = json!({ "id": IdKind::Subscription.text(gone.id) });
    write.event("subscription.removed", (Object::Subscription, gone.id), "removed", data).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn load(write: &mut ApiTx<'_>, subscription: &str) -> Result<stored::Subscription, Problem> {
    let found = stored::find(write.tx(), IdKind::Subscription.parse(subscription)?).await?;
    found.ok_or_else(|| IdKind::Subscription.unknown(subscription).into())
}

/// Checks whether events may be sent to a URL. Its name is resolved, so that a wrong one is reported at
/// once.
async fn permitted(app: &AppState, url: &str) -> Result<(), Problem> {
    let asked = app.config.outbound.may_save(&address::host_of(url), Purpose::Call).await;
    asked.map_err(|refused| Problem::invalid("url", refused.to_string()))
}

fn kinds(names: Vec<String>) -> Result<Vec<String>, String> {
    let is_known = |name: &String| RentalEventKind::ALL.iter().any(|kind| kind.name() == name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let shown: String = unknown.chars().take(80).collect();
        let all = RentalEventKind::ALL.map(RentalEventKind::name).join(", ");
        return Err(format!("{shown:?} is no kind: use {all}, or none for all"));
    }
    // In their usual order, each once.
    let given = RentalEventKind::ALL.map(RentalEventKind::name).into_iter();
    Ok(given.filter(|kind| names.iter().any(|name| name == kind)).map(str::to_owned).collect())
}

/// Returns the subscription after the request.
fn changed(
    before: &stored::Subscription,
    change: SubscriptionChange,
    now: Wall,
) -> Result<stored::Subscription, Problem> {
    let mut wrong = Fields::default();
    let mut after = before.clone();
    let mut set = Setter(&mut wrong);
    set.to(&mut after.url, "url", change.url.map(|url| address::parse(&url).map(SecretUrl::from)));
    set.to(&mut after.kinds, "kinds", change.kinds.map(kinds));
    wrong.finish()?;
    if let Some(paused) = change.paused {
        after.paused_at = paused.then(|| before.paused_at.unwrap_or(now));
    }
    Ok(after)
}

/// Returns the names of what changed, for the event.
fn differences(before: &stored::Subscription, after: &stored::Subscription) -> Vec<&'static str> {
    let pairs = [
        ("url", before.url != after.url),
        ("kinds", before.kinds != after.kinds),
        ("paused", before.paused_at != after.paused_at),
        ("failing_since", before.failing_since != after.failing_since),
        ("last_error", before.last_error != after.last_error),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn to_api(subscription: &stored::Subscription) -> Subscription {
    let error = subscription.last_error.as_ref();
    Subscription {
        id: IdKind::Subscription.text(subscription.id),
        url: Some(subscription.url.reveal().to_owned()),
        kinds: subscription.kinds.clone(),
        paused: subscription.paused_at.is_some(),
        failing_since: subscription.failing_since.map(ids::time),
        next_attempt_at: subscription.next_attempt.map(ids::time),
        last_error: error.map(|(_, text)| text.clone()),
        last_error_at: error.map(|(at, _)| ids::time(*at)),
        delivered_at: subscription.delivered_at.map(ids::time),
        waiting: subscription.waiting,
        author: subscription.created_by.clone(),
        created_at: ids::time(subscription.created_at),
        version: subscription.version,
    }
}
