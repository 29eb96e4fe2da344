//! Reads what a question is about: who, what, and by which protocol.

use fleetgate_engine::id::{CustomerId, HostId, PeerId, UserId};
use fleetgate_engine::messages::{ExplainSource, ExplainTarget, GrantProtocol};

use super::words::whom_of;
use crate::api::request::auth::Principal;
use crate::api::request::ids::IdKind;
use crate::api::response::problem::Problem;
use crate::api::{AppState, grants, hosts, operators, users};
use crate::health::restore_problem;
use crate::store::access::{self, Role, User};
use crate::store::grants::{PROTOCOLS, grant_role, protocol_name};
use crate::store::rentals::renters::{self, Renter};
use crate::store::rentals::{self, Rental, aliases};

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

/// The subject of a question.
pub enum Target {
    /// With its name.
    Host(HostId, String),
    Rental(Box<Rental>),
}

impl Target {
    pub fn name(&self) -> String {
        match self {
            Target::Host(_, name) => name.clone(),
            Target::Rental(rental) => format!("the rental {}", IdKind::Rental.text(rental.id)),
        }
    }

    /// The target as the filter knows it.
    pub fn asked(&self) -> ExplainTarget {
        match self {
            Target::Host(host, _) => ExplainTarget::Host(*host),
            Target::Rental(rental) => ExplainTarget::Rental(rental.id),
        }
    }
}

/// Returns the host or the rental that a question is about. A name is that of a rental for the renters of its customer
/// alone: other customers may use it too.
pub async fn target(app: &AppState, text: &str, asker: &ResolvedSource) -> Result<Target, Problem> {
    let mut conn = app.store.reader().await?;
    let id = IdKind::Rental.parse(text).ok();
    let rental = match (id, text.parse(), asker.owner) {
        (Some(id), _, _) => rentals::find(&mut conn, id).await?,
        (None, Ok(address), _) => aliases::find(&mut conn, address).await?,
        (None, Err(_), Owner::Renter(_, customer)) => {
            let in_use = aliases::in_use(&mut conn, customer, crate::clock::wall()).await?;
            in_use.into_iter().find(|rental| rental.name == text)
        }
        (None, Err(_), Owner::User(_)) => None,
    };
    match (rental, id) {
        (Some(rental), _) => Ok(Target::Rental(Box::new(rental))),
        (None, Some(_)) => Err(Problem::invalid("to", IdKind::Rental.unknown(text).0)),
        (None, None) => {
            let host =
                hosts::load(&mut conn, IdKind::Host.named(text)).await.map_err(|e| e.in_field("to"))?;
            Ok(Target::Host(host.id, host.name))
        }
    }
}

/// Whom a question is about.
pub struct ResolvedSource {
    /// In the order in which the filter is asked about them.
    pub sources: Vec<ExplainSource>,
    /// Why the filter knows none of them.
    pub no_source: Option<String>,
    /// Whom they belong to.
    pub owner: Owner,
    /// The name of it in an event: the name of an operator or user. A renter has only an id there, because people
    /// choose the names of their renters.
    pub name: String,
    /// The option of `fleetgate grant add` that names it. Renters need no grants.
    pub whom: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    User(UserId),
    /// The question is about this renter, of a person of this customer.
    Renter(PeerId, CustomerId),
}

impl ResolvedSource {
    /// Returns the renter and its customer, if the question is about one.
    pub const fn renter(&self) -> Option<(PeerId, CustomerId)> {
        match self.owner {
            Owner::Renter(renter, customer) => Some((renter, customer)),
            Owner::User(_) => None,
        }
    }
}

/// A user without a peer is judged as somebody who is logged in. A name is that of a user first: users
/// choose the names of their peers themselves, and none may stand for another user.
pub async fn asked_about(app: &AppState, text: &str) -> Result<ResolvedSource, Problem> {
    let mut conn = app.store.reader().await?;
    match users::load(&mut conn, text).await {
        Ok(user) => return Ok(of_user(user)),
        Err(problem) if problem.status().is_server_error() => return Err(problem),
        Err(_) => {}
    }
    match operators::load(&mut conn, IdKind::Operator.named(text)).await {
        Ok(peer) => {
            let user = access::user_by_id(&mut conn, peer.user).await?;
            let no_source = user.and_then(|user| reaches_nothing(&user));
            let sources = sources_unless(&no_source, vec![ExplainSource::Peer(peer.id)]);
            let whom = format!("--peer {}", peer.name);
            return Ok(ResolvedSource {
                sources,
                no_source,
                owner: Owner::User(peer.user),
                name: peer.name,
                whom,
            });
        }
        Err(problem) if problem.status().is_server_error() => return Err(problem),
        Err(_) => {}
    }
    match renters::named(&mut conn, &IdKind::Renter.named(text)).await?.as_slice() {
        [renter] => Ok(of_renter(renter)),
        [] if IdKind::Renter.parse(text).is_ok() => {
            Err(Problem::invalid("from", IdKind::Renter.unknown(text).0))
        }
        [] => Err(grants::no_source(&mut conn, "from", text).await),
        _ => {
            let detail = format!("renters of several customers are called {text}: use the id (GET /renters)");
            Err(Problem::invalid("from", detail))
        }
    }
}

fn of_user(user: User) -> ResolvedSource {
    let login = ExplainSource::Login { user: Some(user.id), role: grant_role(user.role) };
    let no_source = reaches_nothing(&user);
    let sources = sources_unless(&no_source, vec![ExplainSource::User(user.id), login]);
    let whom = whom_of(&user.name);
    ResolvedSource { sources, no_source, owner: Owner::User(user.id), name: user.name, whom }
}

fn of_renter(renter: &Renter) -> ResolvedSource {
    ResolvedSource {
        sources: vec![ExplainSource::Peer(renter.id)],
        no_source: None,
        owner: Owner::Renter(renter.id, renter.customer),
        name: IdKind::Renter.text(renter.id),
        whom: String::new(),
    }
}

/// The filter knows no person while a restore waits for an admin.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn unless_unconfirmed(app: &AppState, asked: ResolvedSource) -> Result<ResolvedSource, Problem> {
    Ok(match app.unconfirmed_restore().await? {
        None => asked,
        Some(at) => ResolvedSource { sources: Vec::new(), no_source: Some(restore_problem(at)), ..asked },
    })
}

/// The filter knows no source of a user who reaches nothing.
fn sources_unless(no_source: &Option<String>, sources: Vec<ExplainSource>) -> Vec<ExplainSource> {
    if no_source.is_some() { Vec::new() } else { sources }
}

/// A probe shows which ports are open, so that it needs the grants of the caller or an admin.
///
/// # Errors
/// Returns 403 for the peers of another user and for renters, unless the caller is an admin.
pub fn may_probe_as(who: &Principal, owner: Owner) -> Result<(), Problem> {
    if who.role == Role::Admin || who.who.user().is_some_and(|(own, _)| owner == Owner::User(own)) {
        return Ok(());
    }
    let detail = format!("{who} is {}, and only an admin sends probes for others", who.role);
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
