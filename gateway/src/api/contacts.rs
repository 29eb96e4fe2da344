//! Contacts: the recipients of notifications, with their addresses and options.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::notifications::{Messages, message_to_api};
use super::request::auth::Principal;
use super::request::extract::{Body, Path, never_null, present};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::parse::{self, Fields};
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged};
use super::response::problem::Problem;
use super::types::{Managed, Page};
use crate::config::{LONGEST_GROUP_WAIT, time_of_day};
use crate::notification::{BUILT_IN_NAME, Settings, webhook};
use crate::outbound::secret_url::SecretUrl;
use crate::outbound::{Purpose, address};
use crate::store::contacts::{self, BUILT_IN, secret_place};
use crate::store::events::Object;
use crate::store::outbox::{self, Address, NewMessage};
use crate::store::removals::Removable;
use crate::store::{SqliteConnection, managed};

/// One page shows them all. A company has fewer teams.
const MAX_CONTACTS: usize = 1_000;
/// More recipients need a mailing list.
const MAX_EMAILS: usize = 32;
/// The time zone of a contact that names none.
const USUAL_ZONE: &str = "UTC";

/// Who receives notifications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// `c_...`; the built-in one, which `mail.to` in the settings makes, is called `default`.
    pub id: String,
    pub name: String,
    pub emails: Vec<String>,
    pub webhook_url: Option<String>,
    /// The time zone of its rules and its digest, such as `Europe/Berlin`.
    pub time_zone: String,
    /// `HH:MM`: the time of the daily digest of open problems.
    pub digest_at: Option<String>,
    /// How long notifications are collected into one message; absent: the setting of the gateway.
    #[schema(minimum = 0, maximum = 60)]
    pub group_wait_s: Option<f64>,
    #[serde(flatten)]
    pub managed: Managed,
    /// From the settings. It cannot be changed here, and receives all notifications while there is no rule.
    pub built_in: bool,
    pub created_at: Option<String>,
    /// The same number as in the `ETag`.
    #[schema(minimum = 0)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewContact {
    pub name: String,
    /// `ops@example.com` or `Ops <ops@example.com>`; at most 32.
    pub emails: Vec<String>,
    /// http or https. Calls are signed with a secret that is shown once.
    pub webhook_url: Option<String>,
    /// `UTC` when absent.
    pub time_zone: Option<String>,
    pub digest_at: Option<String>,
    #[schema(minimum = 0, maximum = 60)]
    pub group_wait_s: Option<f64>,
}

/// An absent field stays as it is; `null` clears it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContactChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub emails: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub webhook_url: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub time_zone: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest_at: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 60)]
    pub group_wait_s: Option<Option<f64>>,
}

/// A contact, and the secret of its webhook if it was made by this call.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ContactWithSecret {
    #[serde(flatten)]
    pub contact: Contact,
    /// Shown once: what `X-Fleetgate-Signature` is made with. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(new_secret))
        .routes(routes!(test))
}

/// Contacts by name, the built-in one first.
#[utoipa::path(get, path = "/contacts", operation_id = "list_contacts", tag = "notifications",
    security(("token" = ["monitoring:operator"])), responses((status = 200, body = Page<Contact>)))]
async fn list(State(app): State<AppState>) -> Result<Json<Page<Contact>>, Problem> {
    let own = contacts::list(&mut *app.store.reader().await?).await?;
    let items = built_in(&app.office.settings()).into_iter().chain(own.iter().map(to_api)).collect();
    Ok(Json(Page { items, next: None }))
}

/// Adds a contact. A webhook gets a secret, which is shown once.
#[utoipa::path(post, path = "/contacts", operation_id = "create_contact", tag = "notifications",
    security(("token" = ["monitoring:operator"])), request_body = NewContact,
    responses((status = 201, body = ContactWithSecret)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(new): Body<NewContact>,
) -> Result<Disclosed<ContactWithSecret>, Problem> {
    permitted(&app, new.webhook_url.as_deref()).await?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    if contacts::all(write.tx()).await?.len() >= MAX_CONTACTS {
        return Err(Problem::limit_reached(format!("at most {MAX_CONTACTS} contacts are kept")));
    }
    let managed = managed::Managed::new(manager.writer(&by));
    let mut contact = parse_new(new, managed, now)?;
    contact.version = write.first_version().await?;
    let secret = contact.webhook_url.is_some().then(|| seal_new_secret(&app, &mut contact));
    put(write.tx(), &contact).await?;
    write.made((Removable::Contact, &contact.name), &manager).await?;
    let data = json!({ "name": contact.name });
    write.event("contact.created", (Object::Contact, contact.id), "made", data).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    Ok(disclosed(StatusCode::CREATED, &contact, secret))
}

/// A contact.
#[utoipa::path(get, path = "/contacts/{contact}", operation_id = "show_contact", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(("contact" = String, Path, description = "id or name")),
    responses((status = 200, body = Contact)))]
async fn show(State(app): State<AppState>, Path(contact): Path<String>) -> Result<Response, Problem> {
    if let Some(built_in) = built_in(&app.office.settings()).filter(|_| contact == BUILT_IN_NAME) {
        return Ok(Json(built_in).into_response());
    }
    let found = load(&mut *app.store.reader().await?, &contact).await?;
    Ok(Tagged { version: found.version, value: to_api(&found) }.into_response())
}

/// Changes a contact. A new webhook gets a secret, which is shown once.
#[utoipa::path(patch, path = "/contacts/{contact}", operation_id = "change_contact", tag = "notifications",
    security(("token" = ["monitoring:operator"])), request_body = ContactChange,
    params(("contact" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that was seen")),
    responses((status = 200, body = ContactWithSecret)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(contact): Path<String>,
    if_match: IfMatch,
    Body(change): Body<ContactChange>,
) -> Result<Response, Problem> {
    permitted(&app, change.webhook_url.as_ref().and_then(Option::as_deref)).await?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), &contact).await?;
    if_match.check(before.version)?;
    let now = write.now;
    let was = (before.name.clone(), before.managed.clone());
    let mut after = parse_change(before, change, now)?;
    after.managed = after.managed.written(manager.writer(&who.to_string()));
    let fresh = after.webhook_url.is_some() && after.webhook_secret.is_none();
    let secret = fresh.then(|| seal_new_secret(&app, &mut after));
    after.version = put(write.tx(), &after).await?;
    write.renamed((Removable::Contact, &was.0), &after.name, &was.1, &manager).await?;
    let data = json!({ "name": after.name });
    write.event("contact.changed", (Object::Contact, after.id), "changed", data).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    let value = ContactWithSecret { contact: to_api(&after), webhook_secret: secret };
    Ok(Tagged { version: after.version, value }.into_response())
}

/// Removes a contact that no rule uses. Its waiting notifications are dropped.
#[utoipa::path(delete, path = "/contacts/{contact}", operation_id = "remove_contact", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(("contact" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(contact): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let found = load(write.tx(), &contact).await?;
    if_match.check(found.version)?;
    let rules = contacts::rules_of(write.tx(), found.id).await?;
    if !rules.is_empty() {
        let detail = format!("these rules name it, change or remove them first: {}", rules.join(", "));
        return Err(Problem::conflict("in_use", detail));
    }
    contacts::remove(write.tx(), found.id).await?;
    write.removed((Removable::Contact, &found.name), &found.managed, &manager).await?;
    let data = json!({ "name": found.name });
    write.event("contact.removed", (Object::Contact, found.id), "removed", data).await?;
    write.commit().await?;
    app.office.wakeups.routing();
    Ok(StatusCode::NO_CONTENT)
}

/// Renews the secret of a webhook, which is shown once. The old one ends at once.
#[utoipa::path(post, path = "/contacts/{contact}/webhook-secret", operation_id = "renew_webhook_secret",
    tag = "notifications", security(("token" = ["monitoring:operator"])),
    params(("contact" = String, Path, description = "id or name")),
    responses((status = 200, body = ContactWithSecret)))]
async fn new_secret(
    State(app): State<AppState>,
    who: Principal,
    Path(contact): Path<String>,
) -> Result<Disclosed<ContactWithSecret>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let mut found = load(write.tx(), &contact).await?;
    if found.webhook_url.is_none() {
        return Err(Problem::conflict("no_webhook", "this contact has no webhook"));
    }
    let secret = seal_new_secret(&app, &mut found);
    put(write.tx(), &found).await?;
    let data = json!({ "name": found.name });
    write.event("contact.secret_renewed", (Object::Contact, found.id), "renewed", data).await?;
    write.commit().await?;
    Ok(disclosed(StatusCode::OK, &found, Some(secret)))
}

fn disclosed(
    status: StatusCode,
    contact: &contacts::Contact,
    secret: Option<String>,
) -> Disclosed<ContactWithSecret> {
    let shown = |webhook_secret| ContactWithSecret { contact: to_api(contact), webhook_secret };
    Disclosed { status, once: shown(secret), again: shown(None) }
}

/// Sends a test message to each address of a contact. `GET /messages/{message}` has the result.
#[utoipa::path(post, path = "/contacts/{contact}/test", operation_id = "test_contact", tag = "notifications",
    security(("token" = ["monitoring:operator"])), params(("contact" = String, Path, description = "id or name")),
    responses((status = 202, body = Messages)))]
async fn test(
    State(app): State<AppState>,
    who: Principal,
    Path(contact): Path<String>,
) -> Result<(StatusCode, Json<Messages>), Problem> {
    let settings = app.office.settings();
    let mut write = ApiTx::begin(&app, &who).await?;
    let now = write.now;
    let (id, name, addresses) = match built_in(&settings).filter(|_| contact == BUILT_IN_NAME) {
        Some(built_in) => (BUILT_IN, built_in.name, addresses(&built_in.emails, None)),
        None => {
            let found = load(write.tx(), &contact).await?;
            (found.id, found.name, addresses(&found.emails, found.webhook_url.as_ref()))
        }
    };
    let mut items = Vec::new();
    for address in addresses {
        let (kind, channel) = (outbox::OutboxKind::Test, address.channel());
        let new = NewMessage {
            contact: id,
            contact_name: &name,
            channel,
            address: address.reveal(),
            kind,
            site: "",
            folded: 0,
            items: &[],
        };
        let number = outbox::insert(write.tx(), &new, now).await?;
        let row = outbox::find(write.tx(), number).await?;
        items.extend(row.map(|row| message_to_api(&row, 0)));
    }
    let data = json!({ "name": name });
    write.event("contact.tested", (Object::Contact, id), "asked for a test", data).await?;
    write.commit().await?;
    app.office.wakeups.messages();
    Ok((StatusCode::ACCEPTED, Json(Messages { items })))
}

fn addresses(emails: &[String], webhook: Option<&SecretUrl>) -> Vec<Address> {
    let emails = emails.iter().cloned().map(Address::Email);
    emails.chain(webhook.cloned().map(Address::Webhook)).collect()
}

/// Checks whether a webhook may be stored. The host name is resolved, so that a wrong one is
/// reported at once.
async fn permitted(app: &AppState, url: Option<&str>) -> Result<(), Problem> {
    let host = url.and_then(|url| address::parse(url).ok()).map(|url| address::host_of(&url));
    let Some(host) = host else { return Ok(()) };
    let asked = app.config.outbound.may_save(&host, Purpose::Call).await;
    asked.map_err(|refused| Problem::invalid("webhook_url", refused.to_string()))
}

/// Finds a contact by id or name.
pub(super) async fn load(conn: &mut SqliteConnection, text: &str) -> Result<contacts::Contact, Problem> {
    let found = match IdKind::Contact.named(text) {
        Named::Id(id) => contacts::find(conn, id).await?,
        Named::Name(name) => contacts::find_named(conn, &name).await?,
    };
    found.ok_or_else(|| match text {
        BUILT_IN_NAME => Problem::conflict(
            "built_in",
            "mail.to in fleetgate.toml makes this contact: set or change it there, and reload the settings",
        ),
        _ => IdKind::Contact.unknown(text).into(),
    })
}

/// Stores a contact. Returns the new version, which is the old one if nothing changed.
async fn put(tx: &mut SqliteConnection, contact: &contacts::Contact) -> Result<i64, Problem> {
    contacts::put(tx, contact).await.map_err(|error| {
        let taken = error.as_database_error().is_some_and(|e| e.is_unique_violation());
        let detail = || format!("a contact is called {:?} already", contact.name);
        if taken { Problem::conflict("name_taken", detail()) } else { error.into() }
    })
}

fn seal_new_secret(app: &AppState, contact: &mut contacts::Contact) -> String {
    let secret = webhook::new_secret();
    contact.webhook_secret = Some(app.store.seal(&secret_place(contact.id), secret.as_bytes()));
    secret.as_str().to_owned()
}

// -------------------------------------------------------------------- parsing

/// Checks whether the API would accept this change of a valid contact, or this new contact.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(change: Value, is_new: bool) -> Validation {
    let managed = managed::Managed { by: String::new(), edited_by: None };
    let mut before = blank(managed, Wall::from_millis(0));
    before.emails.extend((!is_new).then(|| "somebody@example.org".to_owned()));
    validation::of(change, |change| parse_change(before, change, Wall::from_millis(0)))
}

fn blank(managed: managed::Managed, now: Wall) -> contacts::Contact {
    contacts::Contact {
        id: ids::new_id(now),
        name: String::new(),
        emails: Vec::new(),
        webhook_url: None,
        webhook_secret: None,
        time_zone: USUAL_ZONE.to_owned(),
        digest_at: None,
        group_wait: None,
        managed,
        version: 1,
        created_at: now,
        digested_at: now,
    }
}

fn parse_new(new: NewContact, managed: managed::Managed, now: Wall) -> Result<contacts::Contact, Problem> {
    parse_change(
        blank(managed, now),
        ContactChange {
            name: Some(new.name),
            emails: Some(Some(new.emails)),
            webhook_url: Some(new.webhook_url),
            time_zone: new.time_zone.map(Some),
            digest_at: Some(new.digest_at),
            group_wait_s: Some(new.group_wait_s),
        },
        now,
    )
}

fn parse_change(
    before: contacts::Contact,
    change: ContactChange,
    now: Wall,
) -> Result<contacts::Contact, Problem> {
    let mut fields = Fields::default();
    let mut after = before;
    if let Some(name) = change.name {
        after.name = fields.take("name", name_of(&name)).unwrap_or_default();
    }
    if let Some(emails) = change.emails {
        after.emails = fields.take("emails", mailboxes(&emails.unwrap_or_default())).unwrap_or_default();
    }
    if let Some(url) = change.webhook_url {
        after.webhook_url =
            url.and_then(|u| fields.take("webhook_url", address::parse(&u)).map(SecretUrl::from));
        after.webhook_secret = after.webhook_secret.filter(|_| after.webhook_url.is_some());
    }
    if let Some(zone) = change.time_zone {
        let zone = time_zone(zone.unwrap_or_else(|| USUAL_ZONE.to_owned()));
        after.time_zone = fields.take("time_zone", zone).unwrap_or_default();
    }
    if let Some(at) = change.digest_at {
        after.digest_at = at.and_then(|t| fields.take("digest_at", digest_at(&t)));
        // The first digest comes at the next such time, not for the time that has passed.
        after.digested_at = now;
    }
    if let Some(wait) = change.group_wait_s {
        after.group_wait = wait.and_then(|w| fields.take("group_wait_s", group_wait(w)));
    }
    let unreachable = after.emails.is_empty() && after.webhook_url.is_none();
    fields.finish()?;
    if unreachable {
        return Err(Problem::invalid("emails", "an e-mail address or a webhook is expected"));
    }
    Ok(after)
}

fn name_of(text: &str) -> Result<String, String> {
    if text == BUILT_IN_NAME {
        return Err(format!("{BUILT_IN_NAME:?} is the contact that mail.to makes: take another name"));
    }
    parse::name(text).map_err(|e| e.to_string())
}

fn mailboxes(texts: &[String]) -> Result<Vec<String>, String> {
    if texts.len() > MAX_EMAILS {
        return Err(format!("at most {MAX_EMAILS} addresses are expected"));
    }
    let mailbox = |text: &String| {
        let parsed = text.parse::<Mailbox>();
        parsed.map(|m| m.to_string()).map_err(|_| format!("{text:?} is not an e-mail address"))
    };
    texts.iter().map(mailbox).collect()
}

fn time_zone(name: String) -> Result<String, String> {
    let expected = || format!("{name:?}: the name of a time zone such as Europe/Berlin is expected");
    TimeZone::get(&name).map_err(|_| expected())?;
    Ok(name)
}

fn digest_at(text: &str) -> Result<jiff::civil::Time, &'static str> {
    time_of_day("digest_at", text).map_err(|_| "a time of day such as 08:00 is expected")
}

fn group_wait(seconds: f64) -> Result<Duration, String> {
    let longest = LONGEST_GROUP_WAIT.as_secs_f64();
    if (0.0..=longest).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("seconds between 0 and {longest} are expected"))
}

fn to_api(contact: &contacts::Contact) -> Contact {
    Contact {
        id: IdKind::Contact.text(contact.id),
        name: contact.name.clone(),
        emails: contact.emails.clone(),
        webhook_url: contact.webhook_url.as_ref().map(|url| url.reveal().to_owned()),
        time_zone: contact.time_zone.clone(),
        digest_at: contact.digest_at.map(|t| t.strftime("%H:%M").to_string()),
        group_wait_s: contact.group_wait.map(|w| w.as_secs_f64()),
        managed: (&contact.managed).into(),
        built_in: false,
        created_at: Some(ids::time(contact.created_at)),
        version: contact.version,
    }
}

/// Returns the contact of the settings. `None` without `[mail]`.
fn built_in(settings: &Settings) -> Option<Contact> {
    let mail = settings.mail.as_ref()?;
    Some(Contact {
        id: BUILT_IN_NAME.to_owned(),
        name: BUILT_IN_NAME.to_owned(),
        emails: mail.to.iter().map(ToString::to_string).collect(),
        webhook_url: None,
        time_zone: TimeZone::system().iana_name().unwrap_or("UTC").to_owned(),
        digest_at: settings.digest.map(|t| t.strftime("%H:%M").to_string()),
        group_wait_s: Some(settings.group_wait.as_secs_f64()),
        managed: Managed { managed_by: "settings".to_owned(), edited_by: None },
        built_in: true,
        created_at: None,
        version: 0,
    })
}
