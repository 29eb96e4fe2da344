//! Rules: the hosts and severities that each contact is notified about.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::Id;
use fleetgate_engine::notification::{Period, Severity};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::contacts::load as load_contact;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, never_null, present};
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::merge_patch;
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged};
use super::response::problem::Problem;
use super::types::{Labels, LabelsChange, Managed, Page, names};
use crate::store::events::Object;
use crate::store::removals::Removable;
use crate::store::{SqliteConnection, contacts, managed};

/// One page shows them all. No operator can understand more.
const MAX_RULES: usize = 1_000;
/// A problem that stays unattended for a month needs no further escalation.
const LONGEST_DELAY_S: f64 = 31.0 * 86_400.0;

/// Which contact is notified of which hosts, from which severity on, when, and after which delay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    pub id: String,
    pub name: String,
    /// By name.
    pub contact: String,
    /// Labels that a host must have, all of them; `*` takes any value; none: every host.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    #[schema(value_type = names::SeverityName)]
    pub severity: String,
    /// Such as `mon-fri 08:00-18:00, sat 09:00-12:00`, in the contact's time zone; absent: always.
    pub period: Option<String>,
    /// Only problems that last longer without an acknowledgement (escalation).
    #[schema(minimum = 0, maximum = 2678400)]
    pub delay_s: f64,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRule {
    pub name: String,
    /// Name or id.
    pub contact: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// `warning` when absent.
    #[schema(value_type = Option<names::SeverityName>)]
    pub severity: Option<String>,
    pub period: Option<String>,
    #[schema(minimum = 0, maximum = 2678400)]
    pub delay_s: Option<f64>,
}

/// An absent field stays as it is; `null` clears it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub contact: Option<String>,
    /// Merged with the present labels; a label that is `null` is removed.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::LabelsChange>)]
    pub labels: Option<Option<LabelsChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::SeverityName>)]
    pub severity: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub period: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2678400)]
    pub delay_s: Option<Option<f64>>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, remove))
}

/// Notification rules by name. Without any, the built-in contact receives all notifications.
#[utoipa::path(get, path = "/rules", operation_id = "list_rules", tag = "notifications",
    security(("token" = ["monitoring:viewer"])), responses((status = 200, body = Page<Rule>)))]
async fn list(State(app): State<AppState>) -> Result<Json<Page<Rule>>, Problem> {
    let mut conn = app.store.reader().await?;
    let mut items = Vec::new();
    for rule in contacts::list_rules(&mut conn).await? {
        items.push(to_api(&mut conn, &rule).await?);
    }
    Ok(Json(Page { items, next: None }))
}

/// Adds a notification rule.
#[utoipa::path(post, path = "/rules", operation_id = "create_rule", tag = "notifications",
    security(("token" = ["monitoring:operator"])), request_body = NewRule,
    responses((status = 201, body = Rule)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(new): Body<NewRule>,
) -> Result<(StatusCode, Tagged<Rule>), Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    if contacts::rules(write.tx()).await?.len() >= MAX_RULES {
        return Err(Problem::limit_reached(format!("at most {MAX_RULES} rules are kept")));
    }
    let contact = load_contact(write.tx(), &new.contact).await.map_err(unknown_contact)?.id;
    let change = RuleChange {
        name: Some(new.name),
        contact: None,
        labels: Some(Some(new.labels.into_iter().map(|(key, value)| (key, Some(value))).collect())),
        severity: new.severity.map(Some),
        period: Some(new.period),
        delay_s: new.delay_s.map(Some),
    };
    let version = write.first_version().await?;
    let blank = blank(contact, managed::Managed::new(manager.writer(&by)), now);
    let rule = parse_change(contacts::Rule { version, ..blank }, contact, change)?;
    put(write.tx(), &rule).await?;
    write.made((Removable::NotificationRule, &rule.name), &manager).await?;
    let data = json!({ "name": rule.name });
    write.event("rule.created", (Object::Rule, rule.id), "made", data).await?;
    let shown = to_api(write.tx(), &rule).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    Ok((StatusCode::CREATED, Tagged { version: rule.version, value: shown }))
}

/// A notification rule.
#[utoipa::path(get, path = "/rules/{rule}", operation_id = "show_rule", tag = "notifications",
    security(("token" = ["monitoring:viewer"])), params(("rule" = String, Path, description = "id or name")),
    responses((status = 200, body = Rule)))]
async fn show(State(app): State<AppState>, Path(rule): Path<String>) -> Result<Tagged<Rule>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, &rule).await?;
    Ok(Tagged { version: found.version, value: to_api(&mut conn, &found).await? })
}

/// Changes a notification rule.
#[utoipa::path(patch, path = "/rules/{rule}", operation_id = "change_rule", tag = "notifications",
    security(("token" = ["monitoring:operator"])), request_body = RuleChange,
    params(("rule" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that was seen")),
    responses((status = 200, body = Rule)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(rule): Path<String>,
    if_match: IfMatch,
    Body(change): Body<RuleChange>,
) -> Result<Tagged<Rule>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), &rule).await?;
    if_match.check(before.version)?;
    let contact = match &change.contact {
        Some(name) => load_contact(write.tx(), name).await.map_err(unknown_contact)?.id,
        None => before.contact,
    };
    let was = (before.name.clone(), before.managed.clone());
    let mut after = parse_change(before, contact, change)?;
    after.managed = after.managed.written(manager.writer(&who.to_string()));
    after.version = put(write.tx(), &after).await?;
    write.renamed((Removable::NotificationRule, &was.0), &after.name, &was.1, &manager).await?;
    let data = json!({ "name": after.name });
    write.event("rule.changed", (Object::Rule, after.id), "changed", data).await?;
    let value = to_api(write.tx(), &after).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    Ok(Tagged { version: after.version, value })
}

/// Removes a notification rule. Contacts that it notified of a problem still get the recovery.
#[utoipa::path(delete, path = "/rules/{rule}", operation_id = "remove_rule", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(("rule" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(rule): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let found = load(write.tx(), &rule).await?;
    if_match.check(found.version)?;
    contacts::remove_rule(write.tx(), found.id).await?;
    write.removed((Removable::NotificationRule, &found.name), &found.managed, &manager).await?;
    let data = json!({ "name": found.name });
    write.event("rule.removed", (Object::Rule, found.id), "removed", data).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    Ok(StatusCode::NO_CONTENT)
}

async fn load(conn: &mut SqliteConnection, text: &str) -> Result<contacts::Rule, Problem> {
    let found = match IdKind::Rule.named(text) {
        Named::Id(id) => contacts::find_rule(conn, id).await?,
        Named::Name(name) => contacts::find_rule_named(conn, &name).await?,
    };
    found.ok_or_else(|| IdKind::Rule.unknown(text).into())
}

/// Converts an unknown contact to a field error, because the name comes from the body.
fn unknown_contact(problem: Problem) -> Problem {
    match problem.code() {
        "not_found" | "built_in" => Problem::invalid("contact", problem.detail()),
        _ => problem,
    }
}

/// Stores a rule. Returns the new version, which is the old one if nothing changed.
async fn put(tx: &mut SqliteConnection, rule: &contacts::Rule) -> Result<i64, Problem> {
    contacts::put_rule(tx, rule).await.map_err(|error| {
        let taken = error.as_database_error().is_some_and(|e| e.is_unique_violation());
        let detail = || format!("a rule is called {:?} already", rule.name);
        if taken { Problem::conflict("name_taken", detail()) } else { error.into() }
    })
}

/// The severity of a rule that names none: all problems.
const MILDEST: Severity = Severity::Warning;

/// Checks whether the API would accept this, apart from the contact's name.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(change: Value) -> Validation {
    let managed = managed::Managed { by: String::new(), edited_by: None };
    let contact = Id::from_i64(0);
    let blank = blank(contact, managed, Wall::from_millis(0));
    validation::of(change, |change| parse_change(blank, contact, change))
}

fn blank(contact: Id, managed: managed::Managed, now: Wall) -> contacts::Rule {
    contacts::Rule {
        id: ids::new_id(now),
        name: String::new(),
        contact,
        labels: Labels::new(),
        severity: MILDEST,
        period: None,
        delay: Duration::ZERO,
        managed,
        version: 1,
        created_at: now,
    }
}

fn parse_change(before: contacts::Rule, contact: Id, change: RuleChange) -> Result<contacts::Rule, Problem> {
    let mut fields = Fields::default();
    let mut after = contacts::Rule { contact, ..before };
    if let Some(name) = change.name {
        after.name = fields.take("name", parse::name(&name)).unwrap_or_default();
    }
    if let Some(change) = change.labels {
        let labels = parse::labels(merge_patch::labels(&after.labels, change));
        after.labels = fields.take("labels", labels).unwrap_or_default();
    }
    if let Some(wanted) = change.severity {
        let wanted = wanted.as_deref().map_or(Ok(MILDEST), severity);
        after.severity = fields.take("severity", wanted).unwrap_or(after.severity);
    }
    if let Some(period) = change.period {
        after.period = period.and_then(|p| fields.take("period", p.parse::<Period>()));
    }
    if let Some(seconds) = change.delay_s {
        after.delay = fields.take("delay_s", delay(seconds.unwrap_or_default())).unwrap_or_default();
    }
    fields.finish()?;
    Ok(after)
}

fn severity(name: &str) -> Result<Severity, &'static str> {
    let found = Severity::ALL.into_iter().find(|s| s.name() == name);
    found.ok_or("warning, unknown or critical is expected")
}

fn delay(seconds: f64) -> Result<Duration, String> {
    if (0.0..=LONGEST_DELAY_S).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("seconds between 0 and {LONGEST_DELAY_S} are expected"))
}

async fn to_api(conn: &mut SqliteConnection, rule: &contacts::Rule) -> Result<Rule, Problem> {
    let contact = contacts::find(conn, rule.contact).await?;
    Ok(Rule {
        id: IdKind::Rule.text(rule.id),
        name: rule.name.clone(),
        contact: contact.map_or_else(|| IdKind::Contact.text(rule.contact), |c| c.name),
        labels: rule.labels.clone(),
        severity: rule.severity.name().to_owned(),
        period: rule.period.as_ref().map(ToString::to_string),
        delay_s: rule.delay.as_secs_f64(),
        managed: (&rule.managed).into(),
        created_at: ids::time(rule.created_at),
        version: rule.version,
    })
}
