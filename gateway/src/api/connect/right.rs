//! The right to reach a port of a host: a login, and a grant of the packet filter. It is asked for
//! before a connection, and every second while it lasts.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::request::Parts;
use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::messages::{ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantProtocol};

use super::relay::End;
use crate::api::AppState;
use crate::api::explain::{RequestedAccess, denial, missing, whom_of};
use crate::api::request::auth::Principal;
use crate::api::request::permission;
use crate::api::response::problem::Problem;
use crate::clock;
use crate::store::grants::grant_role;
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
    /// Returns 409 for a host without a tunnel, 403 with the way to a grant if there is none, and 503 while a
    /// restore waits for an admin.
    pub async fn of(
        app: &AppState,
        who: &Principal,
        (host, name): (HostId, &str),
        port: u16,
    ) -> Result<Right, Problem> {
        // A login has no peer, which the policy could withhold.
        app.restore_must_be_confirmed().await?;
        let target = target(app, host, port).await?.ok_or_else(|| no_tunnel(name))?;
        match explain(app, who, host, port).await.map_err(Problem::internal)? {
            Explanation::Permitted(_) => Ok(Right { who: who.clone(), host, target }),
            Explanation::UnknownTarget | Explanation::NoCommonFamily => Err(no_tunnel(name)),
            found => {
                let whom = whom(who);
                let wanted = RequestedAccess { whom: &whom, host: name, protocol: GrantProtocol::Tcp, port };
                let why = denial(&found, &wanted);
                let detail = format!("{who} may not reach TCP {port} of {name}: {why}");
                Err(Problem::forbidden("not_granted", detail))
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
                Ok(found) => return End::NotGranted(missing(&found)),
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
                Ok(()) if self.has_role(&parts) => {}
                Ok(()) => return End::LoginOver(format!("{} has another role now", self.who)),
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

    /// Whether the caller still has the role by which grants were asked for.
    fn has_role(&self, parts: &Parts) -> bool {
        parts.extensions.get::<Principal>().is_some_and(|now| now.role == self.who.role)
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

/// A caller who is no user has the grants of the role alone.
fn source(who: &Principal) -> ExplainSource {
    ExplainSource::Login { user: who.who.user().map(|(id, _)| id), role: grant_role(who.role) }
}

fn no_tunnel(name: &str) -> Problem {
    Problem::conflict(
        "no_tunnel",
        format!("{name} has no tunnel, so that nothing is reached through the gateway"),
    )
}

/// Returns the option of `fleetgate grant add` for the grants of a caller.
fn whom(who: &Principal) -> String {
    match who.who.user() {
        Some((_, name)) => whom_of(name),
        None => format!("--role {}", who.role),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::Value;

    use super::*;
    use crate::api::hosts;
    use crate::api::request::auth::Role;
    use crate::api::request::ids::IdKind;
    use crate::api::request::permission::{Area, Rule};
    use crate::api::tests::connect::Site;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_grant_is_asked_for_again_before_the_first_byte() {
        let site = Site::new().await;
        let app = &site.server().state;
        let bearer = format!("Bearer {}", site.operator.reveal());
        let request = Request::get("/").header("authorization", bearer).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        permission::admit(app, &mut parts, Rule::Least(Area::Access, Role::Operator)).await.unwrap();
        let who = parts.extensions.get::<Principal>().unwrap().clone();
        let mut conn = app.store.reader().await.unwrap();
        let host = hosts::load(&mut conn, IdKind::Host.named("cam-07")).await.unwrap();
        drop(conn);
        let right = Right::of(app, &who, (host.id, "cam-07"), 80).await.unwrap();
        // It is withdrawn while the way to the host is made.
        site.call("DELETE", "/grants/operators", Value::Null).await;
        let ended = tokio::time::timeout(ASK_EVERY / 2, right.ended(app, parts)).await.expect("at once");
        assert_eq!(ended, End::NotGranted("no grant permits it".into()));
    }
}
