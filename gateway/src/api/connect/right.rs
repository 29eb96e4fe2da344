//! The right to reach a port of a host: a login, and a grant of the packet filter. It is asked for
//! before a connection, and every second while it lasts.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::request::Parts;
use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::messages::{
    ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantProtocol, GrantRole, GrantWindow,
};
use fleetgate_engine::time::Wall;

use super::relay::End;
use crate::api::AppState;
use crate::api::request::auth::{Principal, Role, Who};
use crate::api::request::ids::{self, Kind};
use crate::api::request::permission;
use crate::api::response::problem::Problem;
use crate::clock;
use crate::store::policy;

/// The time that a connection may outlive its right.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The device's tunnel that leads to a host, and the address there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub peer: PeerId,
    pub address: SocketAddr,
}

/// A right that was there when it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Right {
    /// A change of the role ends the login.
    who: Principal,
    host: HostId,
    pub target: Target,
}

impl Right {
    /// # Errors
    /// Returns 409 for a host without a tunnel, and 403 with the way to a grant if there is none.
    pub async fn of(
        app: &AppState,
        who: &Principal,
        (host, name): (HostId, &str),
        port: u16,
    ) -> Result<Right, Problem> {
        let target = target(app, host, port).await?.ok_or_else(|| no_tunnel(name))?;
        match explain(app, who, host, port).await.map_err(Problem::internal)? {
            Explanation::Permitted(_) => Ok(Right { who: who.clone(), host, target }),
            Explanation::UnknownTarget | Explanation::NoCommonFamily => Err(no_tunnel(name)),
            missing => {
                let detail = format!("{who} may not reach TCP {port} of {name}: {}", words(&missing));
                let advice = advice(&missing, who, name, port);
                Err(Problem::forbidden("not_granted", format!("{detail}{advice}")))
            }
        }
    }

    /// Waits until the right is over, and returns the reason.
    pub async fn ended(&self, app: &AppState, parts: Parts) -> End {
        // A database that is slow must not delay the end of a grant.
        tokio::select! {
            end = self.grant_ended(app) => end,
            end = self.login_ended(app, parts) => end,
        }
    }

    async fn grant_ended(&self, app: &AppState) -> End {
        loop {
            // At once: the way to the host may have taken seconds since the right was asked for.
            match explain(app, &self.who, self.host, self.target.address.port()).await {
                Ok(Explanation::Permitted(_)) => {}
                Ok(Explanation::UnknownTarget) => return End::HostRemoved,
                Ok(missing) => return End::NotGranted(words(&missing)),
                // A tunnel thread that does not answer carries no byte either.
                Err(error) => tracing::debug!("a grant was not asked for again: {error:#}"),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// A database that cannot be read ends no login: none can be withdrawn meanwhile.
    async fn login_ended(&self, app: &AppState, mut parts: Parts) -> End {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            match permission::again(app, &mut parts).await {
                Ok(()) => {}
                Err(problem) if problem.status().is_client_error() => {
                    return End::LoginOver(problem.detail().to_owned());
                }
                Err(problem) => tracing::debug!("a login was not asked for again: {problem}"),
            }
            match target(app, self.host, self.target.address.port()).await {
                Ok(Some(target)) if target == self.target => {}
                Ok(_) => return End::HostRemoved,
                Err(problem) => tracing::debug!("a host was not read again: {problem}"),
            }
        }
    }
}

async fn target(app: &AppState, host: HostId, port: u16) -> Result<Option<Target>, Problem> {
    let spec = policy::target(&mut *app.store.reader().await?, host).await?;
    Ok(spec.and_then(|spec| {
        let address = spec.addresses.first()?.real;
        Some(Target { peer: spec.peer, address: SocketAddr::new(address, port) })
    }))
}

async fn explain(app: &AppState, who: &Principal, host: HostId, port: u16) -> anyhow::Result<Explanation> {
    let question = ExplainRequest {
        from: source(who),
        to: ExplainTarget::Host(host),
        protocol: GrantProtocol::Tcp,
        port,
        at: clock::wall(),
    };
    app.handle.explain(question).await
}

/// A token belongs to no user, so that it has the grants of its role.
fn source(who: &Principal) -> ExplainSource {
    let user = match &who.who {
        Who::User { id, .. } => Some(*id),
        Who::Token(_) | Who::Local => None,
    };
    let role = match who.role {
        Role::Viewer => None,
        Role::Operator => Some(GrantRole::Operator),
        Role::Admin => Some(GrantRole::Admin),
    };
    ExplainSource::Login { user, role }
}

fn no_tunnel(name: &str) -> Problem {
    Problem::conflict(
        "no_tunnel",
        format!("{name} has no tunnel, so that nothing is reached through the gateway"),
    )
}

/// Says what is missing, short enough for the end of a WebSocket.
fn words(missing: &Explanation) -> String {
    let named = |window: &GrantWindow| Kind::Grant.text(window.grant);
    let at = |at: Option<Wall>| at.map(ids::time).unwrap_or_default();
    match missing {
        Explanation::NotYet(window) => format!("the grant {} begins at {}", named(window), at(window.from)),
        Explanation::Over(window) => format!("the grant {} ended at {}", named(window), at(window.until)),
        Explanation::ClockBehind(window) => {
            format!("the gateway's clock is behind an earlier run, so that the grant {} waits", named(window))
        }
        Explanation::ClockStep(window) => {
            format!("the gateway's clock was set, so that the grant {} waits for some minutes", named(window))
        }
        _ => "no grant permits it".to_owned(),
    }
}

fn advice(missing: &Explanation, who: &Principal, host: &str, port: u16) -> String {
    let whom = match &who.who {
        Who::User { name, .. } => format!("--user {name}"),
        Who::Token(_) | Who::Local => format!("--role {}", who.role),
    };
    match missing {
        Explanation::NoGrant | Explanation::Over(_) | Explanation::UnknownSource => {
            format!("; an admin adds one with `fleetgate grant add {whom} --to {host} --tcp {port}`")
        }
        _ => String::new(),
    }
}
