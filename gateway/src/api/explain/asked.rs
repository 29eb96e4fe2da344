//! Reads what a question is about: who, what, and by which protocol.

use fleetgate_engine::id::{HostId, UserId};
use fleetgate_engine::messages::{ExplainSource, GrantProtocol};

use super::words::whom_of;
use crate::api::request::auth::Principal;
use crate::api::request::ids::Kind;
use crate::api::response::problem::Problem;
use crate::api::{AppState, grants, hosts, operators, users};
use crate::store::access::{self, Role, User};
use crate::store::grants::{PROTOCOLS, grant_role, protocol_name};

pub fn protocol(name: Option<&str>, port: Option<u16>) -> Result<(GrantProtocol, u16), Problem> {
    let protocol = match (name, port) {
        (None, None) => GrantProtocol::Icmp,
        (None, Some(_)) => GrantProtocol::Tcp,
        (Some(name), _) => PROTOCOLS
            .into_iter()
            .find(|protocol| protocol_name(*protocol) == name)
            .ok_or_else(|| Problem::invalid("protocol", "icmp, tcp or udp is expected"))?,
    };
    match (protocol, port) {
        (GrantProtocol::Icmp, None) => Ok((protocol, 0)),
        (GrantProtocol::Icmp, Some(_)) => Err(Problem::invalid("port", "icmp has no ports: leave it out")),
        (_, Some(port)) if port > 0 => Ok((protocol, port)),
        _ => Err(Problem::invalid("port", "a port from 1 to 65535 is expected")),
    }
}

/// Returns the host that a question is about, with its name.
pub async fn target(app: &AppState, text: &str) -> Result<(HostId, String), Problem> {
    let mut conn = app.store.reader().await?;
    let host = hosts::load(&mut conn, Kind::Host.named(text)).await.map_err(|e| e.in_field("to"))?;
    Ok((host.id, host.name))
}

/// Whom a question is about.
pub struct Asked {
    /// In the order in which the filter is asked about them.
    pub sources: Vec<ExplainSource>,
    /// Why the filter knows none of them.
    pub no_source: Option<String>,
    /// The user that they belong to.
    pub user: UserId,
    /// The name of the operator or user.
    pub name: String,
    /// The option of `fleetgate grant add` that names it.
    pub whom: String,
}

/// A user without a peer is judged as somebody who is logged in. A name is that of a user first: users
/// choose the names of their peers themselves, and none may stand for another user.
pub async fn asked_about(app: &AppState, text: &str) -> Result<Asked, Problem> {
    let mut conn = app.store.reader().await?;
    match users::load(&mut conn, text).await {
        Ok(user) => {
            let login = ExplainSource::Login { user: Some(user.id), role: grant_role(user.role) };
            let no_source = reaches_nothing(&user);
            let sources = sources_unless(&no_source, vec![ExplainSource::User(user.id), login]);
            let whom = whom_of(&user.name);
            return Ok(Asked { sources, no_source, user: user.id, whom, name: user.name });
        }
        Err(problem) if problem.status().is_server_error() => return Err(problem),
        Err(_) => {}
    }
    match operators::load(&mut conn, Kind::Operator.named(text)).await {
        Ok(peer) => {
            let user = access::user_by_id(&mut conn, peer.user).await?;
            let no_source = user.and_then(|user| reaches_nothing(&user));
            let sources = sources_unless(&no_source, vec![ExplainSource::Peer(peer.id)]);
            let whom = format!("--peer {}", peer.name);
            Ok(Asked { sources, no_source, user: peer.user, name: peer.name, whom })
        }
        Err(problem) if problem.status().is_server_error() => Err(problem),
        Err(_) => Err(grants::no_source(&mut conn, "from", text).await),
    }
}

/// The filter knows no source of a user who reaches nothing.
fn sources_unless(no_source: &Option<String>, sources: Vec<ExplainSource>) -> Vec<ExplainSource> {
    if no_source.is_some() { Vec::new() } else { sources }
}

/// A probe shows which ports are open, so that it needs the grants of the caller or an admin.
///
/// # Errors
/// Returns 403 for the peers of another user, unless the caller is an admin.
pub fn may_probe_as(who: &Principal, user: UserId) -> Result<(), Problem> {
    if who.role == Role::Admin || who.who.user().is_some_and(|(own, _)| own == user) {
        return Ok(());
    }
    let detail = format!("{who} is {}, and only an admin sends probes for other users", who.role);
    Err(Problem::forbidden("role_missing", detail))
}

/// Says why a user reaches nothing at all, and what changes that.
fn reaches_nothing(user: &User) -> Option<String> {
    let name = &user.name;
    match (user.disabled_at, user.role) {
        (Some(_), _) => Some(format!(
            "the user {name} is disabled: `fleetgate user enable {name}` lets the user in again"
        )),
        (None, Role::Viewer) => Some(format!(
            "the user {name} is a viewer, and viewers reach nothing: an admin changes the role with \
             `fleetgate user role {name} operator`"
        )),
        (None, _) => None,
    }
}
