//! Explains who may reach what: the packet filter itself answers, and the target on request.

mod asked;
mod probed;
mod rentals;
mod types;
mod words;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::{CustomerId, PeerId};
use fleetgate_engine::messages::{
    ExplainRequest, ExplainSource, ExplainTarget, Explanation as PolicyDecision, ForwardProbe,
    ForwardProbeKind, GrantAccess, GrantProtocol,
};
use fleetgate_engine::time::Wall;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::{Body, Query};
use super::request::parse;
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::types::names;
use crate::store::events::Object;
use crate::store::grants::protocol_name;
use crate::store::rentals::Rental;
use asked::{ResolvedSource, Target, asked_about, may_probe_as, protocol, target, unless_unconfirmed};
use probed::{PROBE_TIMEOUT, probed};
use rentals::Renting;
use words::{Words, to_api};

pub use types::*;
pub(super) use words::{RequestedAccess, denial, missing, whom_of};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(explain)).routes(routes!(probe))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Question {
    /// An operator (the peer of a person), a user or a renter, by name or id.
    from: String,
    /// A device, or a host behind one, by name or id; or a rental, by its id or address, or by its name for its renters.
    to: String,
    /// `tcp` when absent, and `icmp` without a port.
    #[param(value_type = Option<names::GrantProtocolName>)]
    protocol: Option<String>,
    /// The port of the target; of `icmp` none.
    #[param(minimum = 1, maximum = 65535)]
    port: Option<u16>,
    /// RFC 3339; now when absent.
    at: Option<String>,
}

/// Says whether somebody may reach a host at a time, by the code that filters packets.
#[utoipa::path(get, path = "/explain", operation_id = "explain", tag = "access",
    security(("token" = ["access:operator"])), params(Question),
    responses((status = 200, body = Explanation)))]
async fn explain(
    State(app): State<AppState>,
    Query(asked): Query<Question>,
) -> Result<Json<Explanation>, Problem> {
    let at = asked.at.as_deref().map(parse::moment).transpose();
    let at = at.map_err(|detail| Problem::invalid("at", detail.to_string()))?.unwrap_or(crate::clock::wall());
    let (protocol, port) = protocol(asked.protocol.as_deref(), asked.port)?;
    let about = unless_unconfirmed(&app, asked_about(&app, &asked.from).await?).await?;
    let target = target(&app, &asked.to, &about).await?;
    let (to, name) = (target.asked(), target.name());
    let mut found = PolicyDecision::UnknownSource;
    for from in &about.sources {
        found = app.handle.explain(ExplainRequest { from: *from, to, protocol, port, at }).await?;
        if found != PolicyDecision::UnknownSource {
            break;
        }
    }
    let wanted = RequestedAccess { whom: &about.whom, host: &name, protocol, port };
    let delays = delays_in_words(&app, &target, &found).await?;
    let (no_source, renting) = (about.no_source.as_deref(), renting(&about, &target, &delays, at));
    let words = Words { from: &asked.from, wanted, no_source, renting };
    Ok(Json(to_api(&found, &words, at)))
}

/// Says whether a renter reaches what a rental permits, and why, as `explain` does. `delays`: why the rental is delayed.
///
/// # Errors
/// Fails when the packet filter does not answer.
pub(super) async fn reach_of_renter(
    app: &AppState,
    renter: (PeerId, CustomerId),
    (rental, delays): (&Rental, &str),
    at: Wall,
) -> Result<(bool, String), Problem> {
    // All of a rental opens and closes together.
    let Some(first) = rental.access.first() else {
        return Ok((false, "the rental permits nothing".to_owned()));
    };
    let port = first.ports.first().map_or(0, |ports| *ports.start());
    let (from, to) = (ExplainSource::Peer(renter.0), ExplainTarget::Rental(rental.id));
    let asked = ExplainRequest { from, to, protocol: first.protocol, port, at };
    let found = app.handle.explain(asked).await?;
    let renting = Renting { renter: Some(renter), rental: Some(rental), delays, at };
    let ports = if first.ports.is_empty() { Vec::new() } else { vec![port..=port] };
    let decision = renting.decision(&found, &GrantAccess { protocol: first.protocol, ports });
    Ok((matches!(found, PolicyDecision::Permitted(_)), decision.why))
}

/// Returns what decides besides grants, if a renter or a rental takes part.
fn renting<'a>(about: &ResolvedSource, target: &'a Target, delays: &'a str, at: Wall) -> Option<Renting<'a>> {
    let renter = about.renter();
    let rental = match target {
        Target::Rental(rental) => Some(&**rental),
        Target::Host(..) => None,
    };
    (renter.is_some() || rental.is_some()).then_some(Renting { renter, rental, delays, at })
}

/// Says what keeps the device of a rental from being handed over now.
async fn delays_in_words(app: &AppState, target: &Target, found: &PolicyDecision) -> Result<String, Problem> {
    let (Target::Rental(rental), PolicyDecision::Delayed(_)) = (target, found) else {
        return Ok(String::new());
    };
    let delays = super::rentals::delays(app, rental, crate::clock::wall()).await?;
    let texts: Vec<String> = delays.into_iter().map(|delay| delay.text).collect();
    Ok(if texts.is_empty() { "its device is not handed over".to_owned() } else { texts.join("; ") })
}

/// Sends a packet with the address of the source through the packet filter to the host, and compares what becomes of it
/// with the policy.
///
/// It is an echo request, or the first segment of a TCP connection that is reset at once. The answer comes back to the
/// gateway and not to the source.
///
/// Only admins send probes for other users and for renters. Others name themselves or an operator of their own, or get
/// 403 `role_missing`.
#[utoipa::path(post, path = "/explain/probe", operation_id = "probe_forwarding", tag = "access",
    security(("token" = ["access:operator"])), request_body = NewForwardProbe,
    responses((status = 200, body = ProbedExplanation)))]
async fn probe(
    State(app): State<AppState>,
    who: Principal,
    Body(asked): Body<NewForwardProbe>,
) -> Result<Json<ProbedExplanation>, Problem> {
    let (protocol, port) = protocol(asked.protocol.as_deref(), asked.port)?;
    let kind = match protocol {
        GrantProtocol::Icmp => ForwardProbeKind::Echo,
        GrantProtocol::Tcp => ForwardProbeKind::Connect { port },
        GrantProtocol::Udp => {
            let detail = "UDP cannot be probed, because most programs answer only what they understand: ask \
                          without a probe";
            return Err(Problem::invalid("protocol", detail));
        }
    };
    app.restore_must_be_confirmed().await?;
    let about = asked_about(&app, &asked.from).await?;
    may_probe_as(&who, about.owner)?;
    // A login has no address. Only the peers of a user have one, and they come first.
    let Some(source) = about.sources.first().copied() else {
        return Err(Problem::invalid("from", about.no_source.unwrap_or_default()));
    };
    let target = target(&app, &asked.to, &about).await?;
    let name = target.name();
    let by = who.to_string();
    let _permit = app.rate_limits().probe(&by, crate::clock::now().mono)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    // The name of what was found, and not the text of the caller.
    let data = json!({ "from": about.name, "protocol": protocol_name(protocol), "port": asked.port });
    let object = match &target {
        Target::Host(host, _) => (Object::Host, *host),
        Target::Rental(rental) => (Object::Rental, rental.id),
    };
    write.event("forwarding.probed", object, "a probe of forwarding", data).await?;
    write.commit().await?;
    let at = crate::clock::wall();
    let probe = ForwardProbe { from: source, to: target.asked(), kind, timeout: PROBE_TIMEOUT };
    let reply = app.handle.probe_forwarding(probe).await?;
    let wanted = RequestedAccess { whom: &about.whom, host: &name, protocol, port };
    // The answer may be stored for a repetition, and the name of a renter is personal data.
    let from = if about.renter().is_some() { &about.name } else { &asked.from };
    let delays = delays_in_words(&app, &target, &reply.explanation).await?;
    let words = Words { from, wanted, no_source: None, renting: renting(&about, &target, &delays, at) };
    if reply.explanation == PolicyDecision::UnknownSource && words.renting.is_none() {
        let detail = format!(
            "{} has no operator that may connect, and a packet needs the address of one: add one with `fleetgate \
             operator add`, or ask without a probe",
            asked.from
        );
        return Err(Problem::invalid("from", detail));
    }
    probed(&reply, &words, at).map(Json)
}

#[cfg(test)]
mod tests;
