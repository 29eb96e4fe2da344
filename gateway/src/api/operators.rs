//! Operators: the peers of people, which reach devices by grants. Each belongs to a user and ends with
//! its user.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::UserId;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::wireguard_conf::{self, Inside};
use super::devices::{Credentials, Given, NewCredentials, Prepared, refusal};
use super::request::auth::{Principal, Role};
use super::request::extract::{Body, Path, Query, never_null, present};
use super::request::idempotency::Disclosed;
use super::request::ids::{self, IdKind, Named};
use super::request::managed_by::Manager;
use super::request::parse::{self, Fields, Setter};
use super::request::transaction::ApiTx;
use super::response::etag::{IfMatch, Tagged, header_value};
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::Page;
use super::{AppState, grants, peer_drops, users};
use crate::store::devices::NotMade;
use crate::store::events::Object;
use crate::store::{SqliteConnection, access, grants as stored_grants, operators};

/// A person has a few devices. More of them need a user of their own.
const MAX_PER_USER: usize = 16;

/// The peer of a person, such as a laptop or a phone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operator {
    pub id: String,
    pub name: String,
    /// The name of the user that it belongs to.
    pub user: String,
    pub public_key: String,
    /// Since when it has this key.
    pub keyed_at: String,
    pub addresses: Vec<String>,
    /// `false`: its user is disabled or a viewer, so it cannot connect.
    pub enabled: bool,
    /// A session younger than 180 s exists.
    pub established: bool,
    pub endpoint: Option<String>,
    pub last_handshake: Option<String>,
    /// Packets of the operator that the gateway dropped, by reason, since the gateway started.
    pub drops: BTreeMap<String, u64>,
    /// The largest inner packet that it takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    pub name: String,
    /// Name or id of the user that it belongs to; the caller when absent. Only an admin adds one for others.
    pub user: Option<String>,
    /// Its own key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
    /// The largest inner packet that it takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
}

/// An absent field stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OperatorChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// Holds for the next packet. The configuration of the operator needs the same value. `null`: 1280.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1280, maximum = 1420)]
    pub mtu: Option<Option<u16>>,
}

/// An operator with what is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorWithCredentials {
    pub operator: Operator,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(reissue))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those of this user (name or id).
    user: Option<String>,
}

/// Operators (peers of people), by name.
#[utoipa::path(get, path = "/operators", operation_id = "list_operators", tag = "access",
    security(("token" = ["access:operator"])), params(Paging, Filter),
    responses((status = 200, body = Page<Operator>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Operator>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?.unwrap_or_default());
    let user = match &wanted.user {
        Some(user) => Some(users::load(&mut *app.store.reader().await?, user).await?.id),
        None => None,
    };
    let rows = app.store.operators(user, &after, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |o| o.name.clone(), |o| to_api(&app, &o))))
}

/// Adds an operator: a peer of a person, who reaches what grants permit.
///
/// Without a key of its own it gets a key pair, which is shown once and never stored.
#[utoipa::path(post, path = "/operators", operation_id = "create_operator", tag = "access",
    security(("token" = ["access:operator"])), request_body = NewOperator,
    responses((status = 201, body = OperatorWithCredentials)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewOperator>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let name = fields.take("name", parse::name(&new.name)).unwrap_or_default();
    let key = new.public_key.as_deref().map(|key| parse::public_key(&app, key));
    key.and_then(|key| fields.take("public_key", key));
    let mtu = new.mtu.and_then(|mtu| fields.take("mtu", parse::mtu(mtu)));
    fields.finish()?;
    let settings = operators::Settings { name, mtu };
    let given = Given::parse(&app, new.public_key.as_deref())?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let user = owner(write.tx(), &who, new.user.as_deref()).await?;
    has_room(write.tx(), &user).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    let prepared = Prepared::new(&app, &mut write, given).await?;
    let inserted =
        operators::insert(write.tx(), id, (user.id, &settings), prepared.key(&app), app.config.pools(), now)
            .await;
    inserted.map_err(|e| not_made(e, &who))?;
    let data = json!({ "name": settings.name, "user": user.name });
    write.event("operator.created", (Object::Operator, id), "added", data).await?;
    let made = load(write.tx(), Named::Id(id)).await?;
    let credentials = prepared.credentials(&app, inside(&app, &made))?;
    write.peer(id);
    write.commit().await?;
    let tag = [(header::ETAG, header_value(made.version))];
    let shown = disclosed(StatusCode::CREATED, to_api(&app, &made), credentials);
    Ok((tag, shown).into_response())
}

/// Returns the user that a new operator belongs to.
async fn owner(
    conn: &mut SqliteConnection,
    who: &Principal,
    named: Option<&str>,
) -> Result<access::User, Problem> {
    let user = match (named, own(who)) {
        (Some(named), _) => users::load(conn, named).await.map_err(|e| e.in_field("user"))?,
        (None, Some(id)) => access::user_by_id(conn, id).await?.ok_or_else(|| IdKind::User.unknown("you"))?,
        (None, None) => return Err(Problem::invalid("user", "name the user that it belongs to")),
    };
    may_manage(who, user.id)?;
    may_give_keys(who, user.role, &user.name)?;
    if user.role == Role::Viewer {
        let detail = format!(
            "{} is a viewer, and viewers reach nothing: change the role first, or choose another user",
            user.name
        );
        return Err(Problem::invalid("user", detail));
    }
    if user.disabled_at.is_some() {
        let detail = format!("{} is disabled: enable the user first", user.name);
        return Err(Problem::conflict("user_disabled", detail));
    }
    Ok(user)
}

/// The caller as a user. The token of a program and the gateway's own user are none.
fn own(who: &Principal) -> Option<UserId> {
    who.who.user().map(|(id, _)| id)
}

/// # Errors
/// Returns 403 for the operator of another user, unless the caller is an admin.
fn may_manage(who: &Principal, user: UserId) -> Result<(), Problem> {
    if who.role == Role::Admin || own(who) == Some(user) {
        return Ok(());
    }
    let detail = format!("{who} is {}, and only an admin manages the operators of other users", who.role);
    Err(Problem::forbidden("role_missing", detail))
}

/// A peer has the grants of the present role of its user, and outlives the token that has added it.
///
/// # Errors
/// Returns 403 for a token whose role is lower than that of its user.
fn may_give_keys(who: &Principal, role: Role, user: &str) -> Result<(), Problem> {
    if who.role >= role {
        return Ok(());
    }
    let detail = format!(
        "{who} is {}, and an operator of {user} has the grants of the role {role}: this needs a token with that role",
        who.role
    );
    Err(Problem::forbidden("role_missing", detail))
}

async fn has_room(conn: &mut SqliteConnection, user: &access::User) -> Result<(), Problem> {
    if operators::of_user(conn, user.id).await?.len() < MAX_PER_USER {
        return Ok(());
    }
    let detail = format!("{} has {MAX_PER_USER} operators, and no more are possible: remove one", user.name);
    Err(Problem::limit_reached(detail))
}

fn not_made(error: NotMade, who: &Principal) -> Problem {
    match error {
        NotMade::NameTaken(name) => Problem::conflict(
            "name_taken",
            format!("an operator is called {name:?} already: choose another name"),
        ),
        error => refusal(error, Some(who)),
    }
}

/// An operator.
#[utoipa::path(get, path = "/operators/{operator}", operation_id = "show_operator", tag = "access",
    security(("token" = ["access:operator"])),
    params(("operator" = String, Path, description = "id or name")),
    responses((status = 200, body = Operator)))]
async fn show(
    State(app): State<AppState>,
    Path(operator): Path<String>,
) -> Result<Tagged<Operator>, Problem> {
    let mut conn = app.store.reader().await?;
    let found = load(&mut conn, IdKind::Operator.named(&operator)).await?;
    Ok(Tagged { version: found.version, value: to_api(&app, &found) })
}

/// Changes an operator.
#[utoipa::path(patch, path = "/operators/{operator}", operation_id = "change_operator", tag = "access",
    security(("token" = ["access:operator"])), request_body = OperatorChange,
    params(("operator" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the change is meant for")),
    responses((status = 200, body = Operator)))]
async fn change(
    State(app): State<AppState>,
    who: Principal,
    Path(operator): Path<String>,
    if_match: IfMatch,
    Body(change): Body<OperatorChange>,
) -> Result<Tagged<Operator>, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Operator.named(&operator)).await?;
    may_manage(&who, before.user)?;
    if_match.check(before.version)?;
    let was = operators::Settings { name: before.name.clone(), mtu: before.mtu };
    let settings = changed(&was, change)?;
    if settings != was {
        operators::update(write.tx(), before.id, &settings).await.map_err(|e| not_made(e, &who))?;
        let data = json!({ "changed": differences(&was, &settings) });
        write.event("operator.changed", (Object::Operator, before.id), "changed", data).await?;
    }
    if settings.mtu != was.mtu {
        write.peer(before.id);
    }
    let after = load(write.tx(), Named::Id(before.id)).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value: to_api(&app, &after) })
}

/// Returns the settings after the request.
fn changed(before: &operators::Settings, change: OperatorChange) -> Result<operators::Settings, Problem> {
    let mut fields = Fields::default();
    let mut settings = before.clone();
    let mut set = Setter(&mut fields);
    set.to(&mut settings.name, "name", change.name.as_deref().map(parse::name));
    set.to(&mut settings.mtu, "mtu", change.mtu.map(|mtu| mtu.map(parse::mtu).transpose()));
    fields.finish()?;
    Ok(settings)
}

/// Returns the names of the changed settings, for the event.
fn differences(before: &operators::Settings, after: &operators::Settings) -> Vec<&'static str> {
    let pairs = [("name", before.name != after.name), ("mtu", before.mtu != after.mtu)];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Removes an operator. Its tunnel ends at once, and grants for it alone are withdrawn.
#[utoipa::path(delete, path = "/operators/{operator}", operation_id = "remove_operator", tag = "access",
    security(("token" = ["access:operator"])),
    params(("operator" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the removal is meant for")),
    responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    manager: Manager,
    Path(operator): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let gone = load(write.tx(), IdKind::Operator.named(&operator)).await?;
    may_manage(&who, gone.user)?;
    if_match.check(gone.version)?;
    end(&mut write, &manager, &gone, "removed").await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the operators of a user who is removed.
pub(super) async fn end_those_of(
    write: &mut ApiTx<'_>,
    manager: &Manager,
    user: UserId,
) -> Result<(), Problem> {
    for operator in operators::of_user(write.tx(), user).await? {
        end(write, manager, &operator, "its user was removed").await?;
    }
    Ok(())
}

async fn end(
    write: &mut ApiTx<'_>,
    manager: &Manager,
    gone: &operators::Operator,
    cause: &str,
) -> Result<(), Problem> {
    let now = write.now;
    grants::withdraw_those_of(write, manager, stored_grants::Named::Peer(gone.id)).await?;
    operators::remove(write.tx(), gone.id, now).await?;
    let data = json!({ "name": gone.name });
    write.event("operator.removed", (Object::Operator, gone.id), cause, data).await?;
    write.peer(gone.id);
    Ok(())
}

/// Issues new keys for an operator. The previous keys stop working at once.
#[utoipa::path(post, path = "/operators/{operator}/credentials", operation_id = "reissue_operator_credentials",
    tag = "access", security(("token" = ["access:operator"])), request_body = NewCredentials,
    params(("operator" = String, Path, description = "id or name")),
    responses((status = 200, body = OperatorWithCredentials)))]
async fn reissue(
    State(app): State<AppState>,
    who: Principal,
    Path(operator): Path<String>,
    Body(new): Body<NewCredentials>,
) -> Result<Disclosed<OperatorWithCredentials>, Problem> {
    let given = Given::parse(&app, new.public_key.as_deref())?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Operator.named(&operator)).await?;
    may_manage(&who, before.user)?;
    may_give_keys(&who, before.role, &before.user_name)?;
    let prepared = Prepared::new(&app, &mut write, given).await?;
    let (pools, now) = (app.config.pools(), write.now);
    let set = operators::set_key(write.tx(), before.id, prepared.key(&app), pools, now).await;
    set.map_err(|e| not_made(e, &who))?;
    let data = json!({ "previous_key": before.public_key });
    write.event("operator.rekeyed", (Object::Operator, before.id), "new credentials", data).await?;
    let after = load(write.tx(), Named::Id(before.id)).await?;
    let credentials = prepared.credentials(&app, inside(&app, &after))?;
    write.peer(before.id);
    write.commit().await?;
    Ok(disclosed(StatusCode::OK, to_api(&app, &after), credentials))
}

fn inside<'a>(app: &AppState, operator: &'a operators::Operator) -> Inside<'a> {
    let split_dns = wireguard_conf::split_dns(app);
    Inside { split_dns, ..Inside::whole_pools(app, &operator.addresses, operator.mtu) }
}

fn disclosed(
    status: StatusCode,
    operator: Operator,
    credentials: Credentials,
) -> Disclosed<OperatorWithCredentials> {
    let again = OperatorWithCredentials { operator, credentials: None };
    let once = OperatorWithCredentials { credentials: Some(credentials), ..again.clone() };
    Disclosed { status, once, again }
}

/// # Errors
/// Returns 404 when there is no such operator.
pub(super) async fn load(conn: &mut SqliteConnection, named: Named) -> Result<operators::Operator, Problem> {
    match named {
        Named::Id(id) => operators::by_id(conn, id)
            .await?
            .ok_or_else(|| IdKind::Operator.unknown(&IdKind::Operator.text(id)).into()),
        Named::Name(name) => {
            operators::by_name(conn, &name).await?.ok_or_else(|| IdKind::Operator.unknown(&name).into())
        }
    }
}

/// Memory is newer than the store, but it starts empty.
fn to_api(app: &AppState, operator: &operators::Operator) -> Operator {
    let live = app.live.peer(operator.id).unwrap_or_default();
    let handshake: Option<Wall> = live.last_handshake.or(operator.last_handshake);
    Operator {
        id: IdKind::Operator.text(operator.id),
        name: operator.name.clone(),
        user: operator.user_name.clone(),
        public_key: operator.public_key.clone(),
        keyed_at: ids::time(operator.keyed_at),
        addresses: operator.addresses.iter().map(ToString::to_string).collect(),
        enabled: operator.disabled_at.is_none() && operator.role != Role::Viewer,
        established: live.established,
        endpoint: live.endpoint.map(|endpoint| endpoint.to_string()),
        last_handshake: ids::time_if_known(handshake),
        drops: peer_drops::by_name(&live.drops),
        mtu: operator.mtu,
        created_at: ids::time(operator.created_at),
        version: operator.version,
    }
}
