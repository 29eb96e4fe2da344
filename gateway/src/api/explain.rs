//! Explains who may reach what: the packet filter itself answers.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::messages::{
    ExplainRequest, ExplainSource, ExplainTarget, Explanation as Found, GrantProtocol, GrantWindow,
};
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::grants;
use super::hosts;
use super::operators;
use super::request::extract::Query;
use super::request::ids::{self, Kind};
use super::request::parse;
use super::response::problem::Problem;
use super::types::names;
use super::users;
use crate::store::access::{self, Role, User};
use crate::store::grants::{PROTOCOLS, grant_role, protocol_name};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(explain))
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

/// Says whether somebody may reach a host at a time, by the code that filters packets.
#[utoipa::path(get, path = "/explain", operation_id = "explain", tag = "access",
    security(("token" = ["access:operator"])), params(Question),
    responses((status = 200, body = Explanation)))]
async fn explain(
    State(app): State<AppState>,
    Query(asked): Query<Question>,
) -> Result<Json<Explanation>, Problem> {
    let now = crate::clock::wall();
    let at = asked.at.as_deref().map(parse::moment).transpose();
    let at = at.map_err(|detail| Problem::invalid("at", detail.to_string()))?.unwrap_or(now);
    let (protocol, port) = protocol(&asked)?;
    let Asked { sources, no_source } = asked_about(&app, &asked.from).await?;
    let mut conn = app.store.reader().await?;
    let unknown = |e: Problem| Problem::invalid("to", e.detail());
    let host = hosts::load(&mut conn, Kind::Host.named(&asked.to)).await.map_err(unknown)?;
    drop(conn);
    let mut found = Found::UnknownSource;
    for from in sources {
        let to = ExplainTarget::Host(host.id);
        found = app.handle.explain(ExplainRequest { from, to, protocol, port, at }).await?;
        if found != Found::UnknownSource {
            break;
        }
    }
    let what = match protocol {
        GrantProtocol::Icmp => "icmp".to_owned(),
        GrantProtocol::Tcp | GrantProtocol::Udp => format!("{} {port}", protocol_name(protocol)),
    };
    let words = Words { from: &asked.from, to: &host.name, what: &what, no_source: no_source.as_deref() };
    Ok(Json(to_api(&found, &words, ids::time(at))))
}

fn protocol(asked: &Question) -> Result<(GrantProtocol, u16), Problem> {
    let protocol = match (asked.protocol.as_deref(), asked.port) {
        (None, None) => GrantProtocol::Icmp,
        (None, Some(_)) => GrantProtocol::Tcp,
        (Some(name), _) => PROTOCOLS
            .into_iter()
            .find(|protocol| protocol_name(*protocol) == name)
            .ok_or_else(|| Problem::invalid("protocol", "icmp, tcp or udp is expected"))?,
    };
    match (protocol, asked.port) {
        (GrantProtocol::Icmp, None) => Ok((protocol, 0)),
        (GrantProtocol::Icmp, Some(_)) => Err(Problem::invalid("port", "icmp has no ports: leave it out")),
        (_, Some(port)) if port > 0 => Ok((protocol, port)),
        _ => Err(Problem::invalid("port", "a port from 1 to 65535 is expected")),
    }
}

/// Whom a question is about.
struct Asked {
    /// In the order in which the filter is asked about them.
    sources: Vec<ExplainSource>,
    /// Why the filter knows none of them.
    no_source: Option<String>,
}

/// A user without a peer is judged as somebody who is logged in.
async fn asked_about(app: &AppState, text: &str) -> Result<Asked, Problem> {
    let mut conn = app.store.reader().await?;
    if let Ok(peer) = operators::load(&mut conn, Kind::Operator.named(text)).await {
        let user = access::user_by_id(&mut conn, peer.user).await?;
        let no_source = user.and_then(|user| reaches_nothing(&user));
        return Ok(Asked::unless(no_source, vec![ExplainSource::Peer(peer.id)]));
    }
    match users::load(&mut conn, text).await {
        Ok(user) => {
            let login = ExplainSource::Login { user: Some(user.id), role: grant_role(user.role) };
            let sources = vec![ExplainSource::User(user.id), login];
            Ok(Asked::unless(reaches_nothing(&user), sources))
        }
        Err(_) => Err(grants::no_source(&mut conn, "from", text).await),
    }
}

impl Asked {
    /// The filter knows no source of a user who reaches nothing.
    fn unless(no_source: Option<String>, sources: Vec<ExplainSource>) -> Asked {
        Asked { sources: if no_source.is_some() { Vec::new() } else { sources }, no_source }
    }
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

/// What a question was about, for its answer.
struct Words<'a> {
    from: &'a str,
    to: &'a str,
    what: &'a str,
    no_source: Option<&'a str>,
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
    let Words { from, to, what, no_source } = words;
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
        denied => format!("{from} does not reach {to} ({what}): {}", missing(denied)),
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

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    fn window(from: Option<i64>, until: Option<i64>) -> GrantWindow {
        let at = |time: Option<i64>| time.map(Wall::from_millis);
        GrantWindow { grant: Id::from_i64(9), from: at(from), until: at(until), ends_at: None }
    }

    fn answered(found: Found) -> Explanation {
        let words = Words { from: "anna", to: "cam-07", what: "tcp 22", no_source: None };
        to_api(&found, &words, "now".into())
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
            "anna does not reach cam-07 (tcp 22): the grant p_0000000000009 ended at 1970-01-01T00:01:00Z"
        );
        // The reason is the last message of a WebSocket, which has 123 bytes.
        assert!(all.iter().all(|found| missing(found).len() <= 123));
        assert_eq!((over.permitted, over.until.as_deref()), (false, Some("1970-01-01T00:01:00Z")));
        let permitted = answered(Found::Permitted(window(None, None)));
        assert!(permitted.permitted && permitted.until.is_none());
        assert_eq!(permitted.text, "anna reaches cam-07 (tcp 22) by the grant p_0000000000009");
    }
}
