//! Grants: who may reach which hosts through the gateway, by which protocols, and when.

mod parse;
mod types;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::messages;
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts;
use super::operators;
use super::request::auth::{Principal, Role};
use super::request::extract::{Body, Path, Query};
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::transaction::ApiTx;
use super::request::validation::{self, Validation};
use super::response::etag::{IfMatch, Tagged};
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::Page;
use super::users;
use crate::store::events::Object;
use crate::store::managed::Managed;
use crate::store::operators::Operator;
use crate::store::removals::Removable;
use crate::store::rentals::renters;
use crate::store::{SqliteConnection, grants as stored, host_settings};
use parse::{Draft, SourceName, TargetName};

pub(super) use parse::access_list;
pub use types::*;

/// Grants that are neither withdrawn nor ended. A role and labels stand for many people and hosts.
const MAX_OPEN: i64 = 10_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, withdraw))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Also those that have ended or were withdrawn.
    all: Option<bool>,
    /// Only those of this manager.
    managed_by: Option<String>,
    /// Only those that select this host (name or id) now.
    host: Option<String>,
}

/// Grants, the newest first.
#[utoipa::path(get, path = "/grants", operation_id = "list_grants", tag = "access",
    security(("token" = ["access:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Grant>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Grant>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let now = crate::clock::wall();
    let mut conn = app.store.reader().await?;
    let host = match &wanted.host {
        Some(host) => Some(hosts::load(&mut conn, IdKind::Host.named(host)).await?.id),
        None => None,
    };
    let (all, manager) = (wanted.all.unwrap_or(false), wanted.managed_by.as_deref());
    let rows = stored::list(&mut conn, stored::Filter { all, manager, host }, now, before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |g| g.id.as_i64().to_string(), |g| to_api(&g, now))))
}

/// Adds a grant. It is in effect from `from` on, at once without it.
#[utoipa::path(post, path = "/grants", operation_id = "create_grant", tag = "access",
    security(("token" = ["access:admin"])), request_body = NewGrant,
    responses((status = 201, body = Grant)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Body(new): Body<NewGrant>,
) -> Result<(StatusCode, Tagged<Grant>), Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    let draft = Draft::of_new(new, now)?;
    if stored::count_open(write.tx(), now).await? >= MAX_OPEN {
        let detail =
            format!("at most {MAX_OPEN} grants are in effect or planned: withdraw some, or use labels");
        return Err(Problem::limit_reached(detail));
    }
    name_is_free(write.tx(), draft.name.as_deref(), now).await?;
    let version = write.first_version().await?;
    let blank = stored::Grant { version, ..blank(Managed::new(manager.writer(&by)), &by, now) };
    let grant = resolved(write.tx(), blank, draft).await?;
    stored::insert(write.tx(), &grant).await?;
    if let Some(name) = &grant.name {
        write.made((Removable::Grant, name), &manager).await?;
    }
    note(&mut write, "grant.created", &grant, "made").await?;
    let value = with_matches(write.tx(), &grant, now).await?;
    write.grant(grant.id);
    write.commit().await?;
    Ok((StatusCode::CREATED, Tagged { version: grant.version, value }))
}

/// A name leads to one grant. An ended one may leave its name to another.
async fn name_is_free(conn: &mut SqliteConnection, name: Option<&str>, now: Wall) -> Result<(), Problem> {
    let Some(name) = name else { return Ok(()) };
    match stored::find_named(conn, name).await?.filter(|found| found.is_open(now)) {
        None => Ok(()),
        Some(_) => Err(Problem::conflict("name_taken", format!("a grant is called {name:?} already"))),
    }
}

fn blank(managed: Managed, author: &str, now: Wall) -> stored::Grant {
    stored::Grant {
        id: ids::new_id(now),
        name: None,
        source: stored::Source::Role(messages::GrantRole::Admin),
        source_name: None,
        target: stored::Target::Labels(Default::default()),
        target_name: None,
        access: Vec::new(),
        from: None,
        until: None,
        reason: String::new(),
        author: author.to_owned(),
        managed,
        version: 1,
        created_at: now,
        withdrawn: None,
    }
}

/// A grant. A name selects the newest one that was not withdrawn.
#[utoipa::path(get, path = "/grants/{grant}", operation_id = "show_grant", tag = "access",
    security(("token" = ["access:operator"])), params(("grant" = String, Path, description = "id or name")),
    responses((status = 200, body = Grant)))]
async fn show(State(app): State<AppState>, Path(grant): Path<String>) -> Result<Tagged<Grant>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, &grant).await?;
    let value = with_matches(&mut conn, &found, crate::clock::wall()).await?;
    Ok(Tagged { version: found.version, value })
}

/// Changes a grant. 409 `grant_over`: it has ended or was withdrawn.
#[utoipa::path(patch, path = "/grants/{grant}", operation_id = "change_grant", tag = "access",
    security(("token" = ["access:admin"])), request_body = GrantChange,
    params(("grant" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that was seen")),
    responses((status = 200, body = Grant)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(grant): Path<String>,
    if_match: IfMatch,
    Body(change): Body<GrantChange>,
) -> Result<Tagged<Grant>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    let before = load(write.tx(), &grant).await?;
    if_match.check(before.version)?;
    if !before.is_open(now) {
        let detail = format!("{grant} has ended or was withdrawn: add another grant");
        return Err(Problem::conflict("grant_over", detail));
    }
    let draft = Draft::of_change(change, (before.from, before.until), now)?;
    let mut after = resolved(write.tx(), before.clone(), draft).await?;
    after.managed = after.managed.written(manager.writer(&by));
    if let Some(name) = &after.name {
        write.made((Removable::Grant, name), &manager).await?;
    }
    if after != before {
        after.version += 1;
        stored::update(write.tx(), &after).await?;
        note(&mut write, "grant.changed", &after, "changed").await?;
        write.grant(after.id);
    }
    let value = with_matches(write.tx(), &after, now).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value })
}

/// Withdraws a grant. Connections that it alone permits end at once. It is kept for the audit.
#[utoipa::path(delete, path = "/grants/{grant}", operation_id = "withdraw_grant", tag = "access",
    security(("token" = ["access:admin"])), params(("grant" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the withdrawal is meant for"),
        ("Fleetgate-Manager" = Option<String>, Header, description = "the program that manages it")),
    responses((status = 204)))]
async fn withdraw(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(grant): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let found = load(write.tx(), &grant).await?;
    if_match.check(found.version)?;
    // Also an ended one: a clock that is ahead may have ended it, and then it would pass again.
    if found.withdrawn.is_none() {
        end(&mut write, &manager, &found, "withdrawn").await?;
        write.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Withdraws the grants that name something which is removed.
pub(super) async fn withdraw_those_of(
    write: &mut ApiTx<'_>,
    manager: &Manager,
    named: stored::Named,
) -> Result<(), Problem> {
    let cause = match named {
        stored::Named::Peer(_) => "its operator was removed",
        stored::Named::User(_) => "its user was removed",
        stored::Named::Host(_) => "its host was removed",
    };
    let now = write.now;
    for grant in stored::open_of(write.tx(), named, now).await? {
        end(write, manager, &grant, cause).await?;
    }
    Ok(())
}

async fn end(
    write: &mut ApiTx<'_>,
    manager: &Manager,
    grant: &stored::Grant,
    cause: &str,
) -> Result<(), Problem> {
    let (by, now) = (write.by.clone(), write.now);
    stored::withdraw(write.tx(), grant, manager.writer(&by), now).await?;
    if let Some(name) = &grant.name {
        write.removed((Removable::Grant, name), &grant.managed, manager).await?;
    }
    note(write, "grant.withdrawn", grant, cause).await?;
    write.grant(grant.id);
    Ok(())
}

/// Writes an event that says what the grant permits. It outlives the grant.
async fn note(write: &mut ApiTx<'_>, kind: &str, grant: &stored::Grant, cause: &str) -> Result<(), Problem> {
    let shown = to_api(grant, write.now);
    let data = json!({
        "id": shown.id, "name": shown.name, "source": shown.source, "target": shown.target,
        "access": shown.access, "from": shown.from, "until": shown.until, "reason": shown.reason,
    });
    write.event(kind, (Object::Grant, grant.id), cause, data).await
}

async fn load(conn: &mut SqliteConnection, text: &str) -> Result<stored::Grant, Problem> {
    let found = match IdKind::Grant.named(text) {
        Named::Id(id) => stored::find(conn, id).await?,
        Named::Name(name) => stored::find_named(conn, &name).await?,
    };
    found.ok_or_else(|| IdKind::Grant.unknown(text).into())
}

// ------------------------------------------------------------------- parsing

/// Checks whether the API would accept this grant, apart from the names in it.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(fields: Value, now: Wall) -> Validation {
    validation::of(fields, |new| Draft::of_new(new, now))
}

/// Returns an access list in the API's one form for all that permit the same.
///
/// # Errors
/// Returns the field that would be refused.
pub fn usual_form(access: Vec<GrantAccess>) -> Result<Vec<GrantAccess>, String> {
    let list = parse::access_list(access).map_err(|(field, detail)| format!("{field}: {detail}"))?;
    Ok(list.iter().map(access_to_api).collect())
}

/// Returns the grant with the draft laid over it. All that it names must exist.
async fn resolved(
    conn: &mut SqliteConnection,
    before: stored::Grant,
    draft: Draft,
) -> Result<stored::Grant, Problem> {
    let mut grant = before;
    if let Some(wanted) = draft.source {
        (grant.source, grant.source_name) = source(conn, wanted).await?;
    }
    if let Some(wanted) = draft.target {
        (grant.target, grant.target_name) = target(conn, wanted).await?;
    }
    grant.name = draft.name.or(grant.name);
    grant.access = draft.access.unwrap_or(grant.access);
    grant.from = draft.from.unwrap_or(grant.from);
    grant.until = draft.until.unwrap_or(grant.until);
    grant.reason = draft.reason.unwrap_or(grant.reason);
    Ok(grant)
}

type Resolved<T> = (T, Option<String>);

async fn source(
    conn: &mut SqliteConnection,
    wanted: SourceName,
) -> Result<Resolved<stored::Source>, Problem> {
    match wanted {
        SourceName::Role(role) => Ok((stored::Source::Role(role), None)),
        SourceName::User(text) => {
            let user = users::load(conn, &text).await.map_err(|e| e.in_field("source.user"))?;
            no_viewer("source.user", &user.name, user.role)?;
            Ok((stored::Source::User(user.id), Some(user.name)))
        }
        SourceName::Peer(text, user) => {
            let peer = match operators::load(conn, IdKind::Operator.named(&text)).await {
                Ok(peer) => peer,
                Err(problem) if problem.status().is_server_error() => return Err(problem),
                Err(_) => return Err(no_source(conn, "source.peer", &text).await),
            };
            if let Some(user) = user {
                belongs_to(conn, &peer, &user).await?;
            }
            no_viewer("source.peer", &peer.user_name, peer.role)?;
            Ok((stored::Source::Peer(peer.id), Some(peer.name)))
        }
    }
}

/// Another person may have taken the name of an operator that was renamed or removed.
async fn belongs_to(conn: &mut SqliteConnection, peer: &Operator, user: &str) -> Result<(), Problem> {
    let wanted = users::load(conn, user).await.map_err(|e| e.in_field("source.user"))?;
    if peer.user == wanted.id {
        return Ok(());
    }
    let detail = format!("{} belongs to {}, and not to {}", peer.name, peer.user_name, wanted.name);
    Err(Problem::invalid("source.peer", detail))
}

fn no_viewer(field: &str, user: &str, role: Role) -> Result<(), Problem> {
    if role > Role::Viewer {
        return Ok(());
    }
    Err(Problem::invalid(
        field,
        format!("{user} is a viewer, and viewers reach nothing: change the role first"),
    ))
}

/// Says why this names no operator. A device is not one, and neither is a renter.
pub(super) async fn no_source(conn: &mut SqliteConnection, field: &str, text: &str) -> Problem {
    let detail = match hosts::load(conn, IdKind::Host.named(text)).await {
        Ok(host) => format!(
            "{} is a device or behind one, and devices never reach each other: name an operator (GET /operators)",
            host.name
        ),
        Err(_) => match renters::named(conn, &IdKind::Renter.named(text)).await.as_deref() {
            Ok([renter, ..]) => format!(
                "{} is a renter, and renters reach the devices of their rentals alone: give access with the rental",
                IdKind::Renter.text(renter.id)
            ),
            _ => IdKind::Operator.unknown(text).0,
        },
    };
    Problem::invalid(field, detail)
}

async fn target(
    conn: &mut SqliteConnection,
    wanted: TargetName,
) -> Result<Resolved<stored::Target>, Problem> {
    match wanted {
        TargetName::AllDevices => Ok((stored::Target::AllDevices, None)),
        TargetName::Labels(labels) => Ok((stored::Target::Labels(labels), None)),
        TargetName::Host(text) => {
            let named = IdKind::Host.named(&text);
            let host = hosts::load(conn, named).await.map_err(|e| e.in_field("target.host"))?;
            let settings = host_settings::by_id(conn, host.id).await?;
            let device = settings.and_then(|of| of.via).unwrap_or(host.id);
            if host_settings::networks(conn, device).await?.is_none() {
                let detail = format!("{} has no tunnel: nothing is reached through it", host.name);
                return Err(Problem::invalid("target.host", detail));
            }
            Ok((stored::Target::Host(host.id), Some(host.name)))
        }
    }
}

// ----------------------------------------------------------------- rendering

async fn with_matches(
    conn: &mut SqliteConnection,
    grant: &stored::Grant,
    now: Wall,
) -> Result<Grant, Problem> {
    let matches = Some(stored::matches(conn, &grant.target).await?);
    Ok(Grant { matches, ..to_api(grant, now) })
}

fn to_api(grant: &stored::Grant, now: Wall) -> Grant {
    Grant {
        id: IdKind::Grant.text(grant.id),
        name: grant.name.clone(),
        source: source_to_api(grant),
        target: target_to_api(grant),
        access: grant.access.iter().map(access_to_api).collect(),
        from: ids::time_if_known(grant.from),
        until: ids::time_if_known(grant.until),
        state: grant.state(now).name().to_owned(),
        matches: None,
        reason: grant.reason.clone(),
        author: grant.author.clone(),
        managed: (&grant.managed).into(),
        created_at: ids::time(grant.created_at),
        withdrawn_at: grant.withdrawn.as_ref().map(|of| ids::time(of.at)),
        withdrawn_by: grant.withdrawn.as_ref().map(|of| of.by.clone()),
        version: grant.version,
    }
}

fn source_to_api(grant: &stored::Grant) -> GrantSource {
    let named = |kind: IdKind, id| grant.source_name.clone().unwrap_or_else(|| kind.text(id));
    let none = GrantSource::default();
    match grant.source {
        stored::Source::Peer(id) => GrantSource { peer: Some(named(IdKind::Operator, id)), ..none },
        stored::Source::User(id) => GrantSource { user: Some(named(IdKind::User, id)), ..none },
        stored::Source::Role(role) => GrantSource { role: Some(stored::role_name(role).to_owned()), ..none },
    }
}

fn target_to_api(grant: &stored::Grant) -> GrantTarget {
    let none = GrantTarget::default();
    match &grant.target {
        stored::Target::AllDevices => GrantTarget { all_devices: Some(true), ..none },
        stored::Target::Host(id) => {
            let name = grant.target_name.clone().unwrap_or_else(|| IdKind::Host.text(*id));
            GrantTarget { host: Some(name), ..none }
        }
        stored::Target::Labels(labels) => GrantTarget { labels: Some(labels.clone()), ..none },
    }
}

pub(super) fn access_to_api(access: &messages::GrantAccess) -> GrantAccess {
    GrantAccess {
        protocol: stored::protocol_name(access.protocol).to_owned(),
        ports: access.ports.iter().map(parse::port).collect(),
    }
}
