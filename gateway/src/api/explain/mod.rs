//! Explains who may reach what: the packet filter itself answers, and the target on request.

mod asked;
mod probed;
mod types;
mod words;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::messages::{
    ExplainRequest, ExplainTarget, Explanation as Found, ForwardProbe, ForwardProbeKind, GrantProtocol,
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::{Body, Query};
use super::request::ids;
use super::request::parse;
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::types::names;
use crate::store::events::Object;
use crate::store::grants::protocol_name;
use asked::{Asked, asked_about, may_probe_as, protocol, target};
use probed::{PROBE_TIMEOUT, probed};
use words::{Words, to_api};

pub use types::*;
pub(super) use words::{Wanted, denial, missing, whom_of};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(explain)).routes(routes!(probe))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Question {
    /// An operator (the peer of a person) or a user, by name or id.
    from: String,
    /// A device, or a host behind one, by name or id.
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
    let Asked { sources, no_source, whom, .. } = asked_about(&app, &asked.from).await?;
    let (host, name) = target(&app, &asked.to).await?;
    let mut found = Found::UnknownSource;
    for from in sources {
        let to = ExplainTarget::Host(host);
        found = app.handle.explain(ExplainRequest { from, to, protocol, port, at }).await?;
        if found != Found::UnknownSource {
            break;
        }
    }
    let wanted = Wanted { whom: &whom, host: &name, protocol, port };
    let words = Words { from: &asked.from, wanted, no_source: no_source.as_deref() };
    Ok(Json(to_api(&found, &words, ids::time(at))))
}

/// Sends a packet with the address of the source through the packet filter to the host, and compares what becomes of it
/// with the policy.
///
/// It is an echo request, or the first segment of a TCP connection that is reset at once. The answer comes back to the
/// gateway and not to the source.
///
/// Only admins send probes for other users. Others name themselves or an operator of their own, or get 403
/// `role_missing`.
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
    let about = asked_about(&app, &asked.from).await?;
    may_probe_as(&who, about.user)?;
    // A login has no address. Only the peers of a user have one, and they come first.
    let Some(from) = about.sources.into_iter().next() else {
        return Err(Problem::invalid("from", about.no_source.unwrap_or_default()));
    };
    let (host, name) = target(&app, &asked.to).await?;
    let by = who.to_string();
    let _permit = app.rate_limits().probe(&by, crate::clock::now().mono)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    // The name of what was found, and not the text of the caller.
    let data = json!({ "from": about.name, "protocol": protocol_name(protocol), "port": asked.port });
    write.event("forwarding.probed", (Object::Host, host), "a probe of forwarding", data).await?;
    write.commit().await?;
    let at = ids::time(crate::clock::wall());
    let probe = ForwardProbe { from, to: ExplainTarget::Host(host), kind, timeout: PROBE_TIMEOUT };
    let reply = app.handle.probe_forwarding(probe).await?;
    let wanted = Wanted { whom: &about.whom, host: &name, protocol, port };
    let words = Words { from: &asked.from, wanted, no_source: None };
    if reply.explanation == Found::UnknownSource {
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
