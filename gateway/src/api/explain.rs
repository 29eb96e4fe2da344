//! Explains who may reach what: the packet filter itself answers, and the target on request.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::{HostId, UserId};
use fleetgate_engine::messages::{
    DropReason, ExplainRequest, ExplainSource, ExplainTarget, Explanation as Found, ForwardProbe,
    ForwardProbeKind, ForwardProbeOutcome as Outcome, ForwardProbeReply, GrantProtocol, GrantWindow,
};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::grants;
use super::hosts;
use super::operators;
use super::request::auth::Principal;
use super::request::extract::{Body, Query};
use super::request::ids::{self, Kind};
use super::request::parse;
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::types::names;
use super::users;
use crate::health::restore_problem;
use crate::store::access::{self, Role, User};
use crate::store::events::Object;
use crate::store::grants::{PROTOCOLS, grant_role, protocol_name};

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

/// What the packet filter does with a packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub permitted: bool,
    #[schema(value_type = names::ExplanationResult)]
    pub result: String,
    /// The same in words, with what is missing.
    pub text: String,
    /// The grant that decides, or that comes nearest.
    pub grant: Option<String>,
    /// The begin of its window.
    pub from: Option<String>,
    /// The end of its window, not included.
    pub until: Option<String>,
    pub at: String,
}

/// The results, as they are named in the API.
pub const RESULTS: [&str; 9] = [
    "permitted",
    "no_grant",
    "not_yet",
    "over",
    "clock_behind",
    "clock_step",
    "no_common_family",
    "unknown_source",
    "unknown_target",
];

/// What a packet is to show.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewForwardProbe {
    /// An operator (the peer of a person), or a user who has one, by name or id.
    pub from: String,
    /// A device, or a host behind one, by name or id.
    pub to: String,
    /// `tcp` when absent, and `icmp` without a port. `udp` cannot be probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::GrantProtocolName>)]
    pub protocol: Option<String>,
    /// The port of the target; of `icmp` none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
}

/// What the policy says, and what became of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProbedExplanation {
    pub explanation: Explanation,
    #[schema(value_type = names::ForwardProbeResult)]
    pub result: String,
    /// The same in words, with what it may mean.
    pub text: String,
    /// The address that the packet was sent with; absent if none was made.
    pub source: Option<String>,
    /// The address that it was sent to.
    pub destination: Option<String>,
    /// From the packet to the answer.
    pub rtt_ms: Option<f64>,
    /// Why the filter dropped the packet, if it did.
    #[schema(value_type = Option<names::DropReasonName>)]
    pub drop_reason: Option<String>,
}

/// What became of a probe, as it is named in the API.
pub const PROBE_RESULTS: [&str; 7] =
    ["answered", "refused", "unreachable", "no_answer", "no_tunnel", "dropped", "denied"];

/// The longest wait for an answer. A device that has to be dialled first gets its packet a second later.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

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
    let about = asked_about(&app, &asked.from).await?;
    let Asked { sources, no_source, whom, .. } = unless_unconfirmed(&app, about).await?;
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
    app.restore_must_be_confirmed().await?;
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

fn protocol(name: Option<&str>, port: Option<u16>) -> Result<(GrantProtocol, u16), Problem> {
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
async fn target(app: &AppState, text: &str) -> Result<(HostId, String), Problem> {
    let mut conn = app.store.reader().await?;
    let host = hosts::load(&mut conn, Kind::Host.named(text)).await.map_err(|e| e.in_field("to"))?;
    Ok((host.id, host.name))
}

/// Whom a question is about.
struct Asked {
    /// In the order in which the filter is asked about them.
    sources: Vec<ExplainSource>,
    /// Why the filter knows none of them.
    no_source: Option<String>,
    /// The user that they belong to.
    user: UserId,
    /// The name of the operator or user.
    name: String,
    /// The option of `fleetgate grant add` that names it.
    whom: String,
}

/// A user without a peer is judged as somebody who is logged in. A name is that of a user first: users
/// choose the names of their peers themselves, and none may stand for another user.
async fn asked_about(app: &AppState, text: &str) -> Result<Asked, Problem> {
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

/// The filter knows no person while a restore waits for an admin.
async fn unless_unconfirmed(app: &AppState, asked: Asked) -> Result<Asked, Problem> {
    Ok(match app.unconfirmed_restore().await? {
        None => asked,
        Some(at) => Asked { sources: Vec::new(), no_source: Some(restore_problem(at)), ..asked },
    })
}

/// The filter knows no source of a user who reaches nothing.
fn sources_unless(no_source: &Option<String>, sources: Vec<ExplainSource>) -> Vec<ExplainSource> {
    if no_source.is_some() { Vec::new() } else { sources }
}

/// A probe shows which ports are open, so that it needs the grants of the caller or an admin.
///
/// # Errors
/// Returns 403 for the peers of another user, unless the caller is an admin.
fn may_probe_as(who: &Principal, user: UserId) -> Result<(), Problem> {
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

/// Returns the option of `fleetgate grant add` for the grants of a user.
pub(super) fn whom_of(user: &str) -> String {
    format!("--user {user}")
}

/// What a grant would permit.
pub(super) struct Wanted<'a> {
    /// The option of `fleetgate grant add` that names the source.
    pub whom: &'a str,
    pub host: &'a str,
    pub protocol: GrantProtocol,
    pub port: u16,
}

impl Wanted<'_> {
    fn what(&self) -> String {
        match self.protocol {
            GrantProtocol::Icmp => "icmp".to_owned(),
            GrantProtocol::Tcp | GrantProtocol::Udp => {
                format!("{} {}", protocol_name(self.protocol), self.port)
            }
        }
    }
}

/// What a question was about, for its answer.
struct Words<'a> {
    from: &'a str,
    wanted: Wanted<'a>,
    no_source: Option<&'a str>,
}

/// Says what is missing, and how a grant is added if there is none.
pub(super) fn denial(found: &Found, wanted: &Wanted<'_>) -> String {
    let missing = missing(found);
    match found {
        Found::NoGrant | Found::Over(_) => {
            let Wanted { whom, host, .. } = wanted;
            let what = wanted.what();
            format!("{missing}; an admin adds one with `fleetgate grant add {whom} --to {host} --{what}`")
        }
        _ => missing,
    }
}

/// Says what is missing, short enough for the end of a WebSocket.
pub(super) fn missing(found: &Found) -> String {
    let id = |window: &GrantWindow| Kind::Grant.text(window.grant);
    let at = |at: Option<Wall>| at.map(ids::time).unwrap_or_default();
    match found {
        Found::Permitted(of) => format!("the grant {} permits it", id(of)),
        Found::NoGrant => "no grant permits it".to_owned(),
        Found::NotYet(of) => format!("the grant {} begins at {}", id(of), at(of.from)),
        Found::Over(of) => format!("the grant {} ended at {}", id(of), at(of.until)),
        Found::ClockBehind(of) => {
            format!("the grant {} waits, because the gateway's clock is behind an earlier time", id(of))
        }
        Found::ClockStep(of) => {
            format!("the grant {} waits, because the gateway's clock was set minutes ago", id(of))
        }
        Found::NoCommonFamily => "they have no addresses of one family, IPv4 or IPv6".to_owned(),
        Found::UnknownSource => "no peer of this user may use grants".to_owned(),
        Found::UnknownTarget => "the host has no address that grants lead to: it has no tunnel".to_owned(),
    }
}

const fn name(found: &Found) -> &'static str {
    match found {
        Found::Permitted(_) => "permitted",
        Found::NoGrant => "no_grant",
        Found::NotYet(_) => "not_yet",
        Found::Over(_) => "over",
        Found::ClockBehind(_) => "clock_behind",
        Found::ClockStep(_) => "clock_step",
        Found::NoCommonFamily => "no_common_family",
        Found::UnknownSource => "unknown_source",
        Found::UnknownTarget => "unknown_target",
    }
}

/// Returns the grant that decides, or that comes nearest.
const fn window(found: &Found) -> Option<&GrantWindow> {
    match found {
        Found::Permitted(of)
        | Found::NotYet(of)
        | Found::Over(of)
        | Found::ClockBehind(of)
        | Found::ClockStep(of) => Some(of),
        Found::NoGrant | Found::NoCommonFamily | Found::UnknownSource | Found::UnknownTarget => None,
    }
}

fn text(found: &Found, words: &Words<'_>) -> String {
    let Words { from, wanted, no_source } = words;
    let (to, what) = (wanted.host, wanted.what());
    let id = |window: &GrantWindow| Kind::Grant.text(window.grant);
    match found {
        Found::Permitted(of) => {
            let ends = of.until.map(|at| format!(", until {}", ids::time(at))).unwrap_or_default();
            format!("{from} reaches {to} ({what}) by the grant {}{ends}", id(of))
        }
        Found::UnknownSource => {
            let missing = no_source.map_or_else(|| missing(found), str::to_owned);
            format!("{from} does not reach {to} ({what}): {missing}")
        }
        denied => format!("{from} does not reach {to} ({what}): {}", denial(denied, wanted)),
    }
}

fn to_api(found: &Found, words: &Words<'_>, at: String) -> Explanation {
    let (result, window) = (name(found), window(found));
    Explanation {
        permitted: matches!(found, Found::Permitted(_)),
        result: result.to_owned(),
        text: text(found, words),
        grant: window.map(|of| Kind::Grant.text(of.grant)),
        from: window.and_then(|of| ids::time_if_known(of.from)),
        until: window.and_then(|of| ids::time_if_known(of.until)),
        at,
    }
}

/// # Errors
/// Returns 429 if no packet was made because of too many others.
fn probed(reply: &ForwardProbeReply, words: &Words<'_>, at: String) -> Result<ProbedExplanation, Problem> {
    let explanation = to_api(&reply.explanation, words, at);
    let Some((result, text)) = outcome(reply.outcome, &explanation, words) else {
        return Err(Problem::too_many("too many probes are in flight, or the gateway stops: try again", 3));
    };
    let took = match reply.outcome {
        Outcome::Answered(took) | Outcome::Refused(took) | Outcome::Unreachable(took, _) => Some(took),
        _ => None,
    };
    let drop_reason = match reply.outcome {
        Outcome::Dropped(reason) => Some(reason.name().to_owned()),
        _ => None,
    };
    Ok(ProbedExplanation {
        explanation,
        result: result.to_owned(),
        text,
        source: reply.packet.map(|(source, _)| source.to_string()),
        destination: reply.packet.map(|(_, destination)| destination.to_string()),
        rtt_ms: took.map(|took| took.as_secs_f64() * 1_000.0),
        drop_reason,
    })
}

/// Names an outcome and says what it may mean. `None`: no packet was made because of too many others.
fn outcome(
    outcome: Outcome,
    explanation: &Explanation,
    Words { from, wanted, .. }: &Words<'_>,
) -> Option<(&'static str, String)> {
    let (to, what) = (wanted.host, wanted.what());
    Some(match outcome {
        Outcome::Denied => ("denied", format!("{}; nothing was sent", explanation.text)),
        Outcome::Dropped(reason) => (
            "dropped",
            format!("the policy permits it, but the filter dropped the packet: {}", dropped(reason)),
        ),
        Outcome::Busy => return None,
        Outcome::Answered(took) => {
            ("answered", format!("{from} reaches {to} ({what}): it answered in {}", latency(took)))
        }
        Outcome::Refused(took) => (
            "refused",
            format!(
                "the policy permits it, and {to} refused the connection after {}: no program listens there",
                latency(took)
            ),
        ),
        Outcome::Unreachable(_, reason) => (
            "unreachable",
            format!("the policy permits it, but the way to {to} ends with an ICMP error: {reason}"),
        ),
        Outcome::NoTunnel => (
            "no_tunnel",
            format!("the policy permits it, but the device of {to} has no tunnel now: nothing was sent"),
        ),
        Outcome::NoAnswer => (
            "no_answer",
            format!(
                "the policy permits it, and {to} did not answer within {} s: it is off, a firewall there drops \
                 the packet, or a device in front of it does not pass the packet on or uses no address of its own \
                 (masquerade)",
                PROBE_TIMEOUT.as_secs()
            ),
        ),
    })
}

fn latency(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

/// Says why the filter drops a packet that the policy permits.
fn dropped(reason: DropReason) -> String {
    let why = match reason {
        DropReason::NotGranted => "the grant has just ended",
        DropReason::NoFlow => {
            "its flow was ended at once: the grant has just ended, or there are too many flows"
        }
        DropReason::FlowTableFull => "the source, the device or the gateway has as many flows as it may have",
        DropReason::FlowConflict => "the answers could not be told from those of another connection",
        _ => "the reason is counted for the source",
    };
    format!("{why} ({})", reason.name())
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    fn window(from: Option<i64>, until: Option<i64>) -> GrantWindow {
        let at = |time: Option<i64>| time.map(Wall::from_millis);
        GrantWindow { grant: Id::from_i64(9), from: at(from), until: at(until), ends_at: None }
    }

    fn answered(found: Found) -> Explanation {
        to_api(&found, &words(), "now".into())
    }

    fn words() -> Words<'static> {
        let wanted = Wanted { whom: "--user anna", host: "cam-07", protocol: GrantProtocol::Tcp, port: 22 };
        Words { from: "anna", wanted, no_source: None }
    }

    #[test]
    fn every_answer_has_a_name_and_says_what_is_missing() {
        let of = window(Some(0), Some(60_000));
        let all = [
            Found::Permitted(of),
            Found::NoGrant,
            Found::NotYet(of),
            Found::Over(of),
            Found::ClockBehind(of),
            Found::ClockStep(of),
            Found::NoCommonFamily,
            Found::UnknownSource,
            Found::UnknownTarget,
        ];
        let names: Vec<String> = all.iter().map(|found| answered(*found).result).collect();
        assert_eq!(names, RESULTS);
        let over = answered(Found::Over(of));
        assert_eq!(
            over.text,
            "anna does not reach cam-07 (tcp 22): the grant p_0000000000009 ended at 1970-01-01T00:01:00Z; an \
             admin adds one with `fleetgate grant add --user anna --to cam-07 --tcp 22`"
        );
        assert_eq!(
            answered(Found::NoGrant).text,
            "anna does not reach cam-07 (tcp 22): no grant permits it; an admin adds one with `fleetgate grant \
             add --user anna --to cam-07 --tcp 22`"
        );
        let ping = Wanted { protocol: GrantProtocol::Icmp, port: 0, ..words().wanted };
        assert!(denial(&Found::NoGrant, &ping).ends_with(" --to cam-07 --icmp`"));
        assert!(!denial(&Found::NotYet(of), &ping).contains("grant add"), "it begins by itself");
        // The reason is the last message of a WebSocket, which has 123 bytes.
        assert!(all.iter().all(|found| missing(found).len() <= 123));
        assert_eq!((over.permitted, over.until.as_deref()), (false, Some("1970-01-01T00:01:00Z")));
        let permitted = answered(Found::Permitted(window(None, None)));
        assert!(permitted.permitted && permitted.until.is_none());
        assert_eq!(permitted.text, "anna reaches cam-07 (tcp 22) by the grant p_0000000000009");
    }

    #[test]
    fn every_outcome_of_a_probe_has_a_name_and_says_what_it_may_mean() {
        let took = Duration::from_millis(12);
        let all = [
            Outcome::Answered(took),
            Outcome::Refused(took),
            Outcome::Unreachable(took, "no route to the host"),
            Outcome::NoAnswer,
            Outcome::NoTunnel,
            Outcome::Dropped(DropReason::FlowTableFull),
            Outcome::Denied,
        ];
        let answer = |outcome| {
            let explanation = match outcome {
                Outcome::Denied => Found::NoGrant,
                _ => Found::Permitted(window(None, None)),
            };
            let packet = Some(([10, 112, 0, 2].into(), [10, 112, 0, 3].into()));
            let reply = ForwardProbeReply { explanation, packet, outcome };
            probed(&reply, &words(), "now".into())
        };
        let answers: Vec<ProbedExplanation> =
            all.into_iter().filter_map(|outcome| answer(outcome).ok()).collect();
        assert_eq!(answers.iter().map(|answer| answer.result.as_str()).collect::<Vec<_>>(), PROBE_RESULTS);
        assert_eq!(answers[0].text, "anna reaches cam-07 (tcp 22): it answered in 12.0 ms");
        assert_eq!((answers[0].rtt_ms, answers[3].rtt_ms), (Some(12.0), None));
        assert_eq!(answers[0].destination.as_deref(), Some("10.112.0.3"));
        assert_eq!(answers[5].drop_reason.as_deref(), Some("flow_table_full"));
        let denied = &answers[6].text;
        assert!(denied.contains("no grant permits it") && denied.ends_with("; nothing was sent"), "{denied}");
        assert!(answer(Outcome::Busy).is_err_and(|problem| problem.status() == 429));
    }
}
