//! Explains who may reach what: the packet filter itself answers.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::messages::{
    ExplainRequest, ExplainSource, ExplainTarget, Explanation as Found, GrantProtocol, GrantWindow,
};
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
    let sources = sources(&app, &asked.from).await?;
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
    let words = Words { from: &asked.from, to: &host.name, what: &what };
    Ok(Json(to_api(found, &words, ids::time(at))))
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

/// Returns the sources in the order in which they are asked about. A user without a peer is judged as
/// somebody who is logged in.
async fn sources(app: &AppState, text: &str) -> Result<Vec<ExplainSource>, Problem> {
    let mut conn = app.store.reader().await?;
    if let Ok(peer) = operators::load(&mut conn, Kind::Operator.named(text)).await {
        return Ok(vec![ExplainSource::Peer(peer.id)]);
    }
    match users::load(&mut conn, text).await {
        Ok(user) if user.disabled_at.is_some() => {
            Err(Problem::invalid("from", format!("the user {} is disabled and reaches nothing", user.name)))
        }
        Ok(user) => {
            let login = ExplainSource::Login { user: Some(user.id), role: grant_role(user.role) };
            Ok(vec![ExplainSource::User(user.id), login])
        }
        Err(_) => Err(grants::no_source(&mut conn, "from", text).await),
    }
}

/// What a question was about, for its answer.
struct Words<'a> {
    from: &'a str,
    to: &'a str,
    what: &'a str,
}

fn to_api(found: Found, words: &Words<'_>, at: String) -> Explanation {
    let Words { from, to, what } = words;
    let id = |window: &GrantWindow| Kind::Grant.text(window.grant);
    let (result, text, window) = match found {
        Found::Permitted(of) => {
            let ends = of.until.map(|at| format!(", until {}", ids::time(at))).unwrap_or_default();
            ("permitted", format!("{from} reaches {to} ({what}) by the grant {}{ends}", id(&of)), Some(of))
        }
        Found::NoGrant => {
            ("no_grant", format!("no grant covers {from}, {to} and {what}: an admin adds one"), None)
        }
        Found::NotYet(of) => {
            let begin = of.from.map(ids::time).unwrap_or_default();
            ("not_yet", format!("the grant {} begins at {begin}", id(&of)), Some(of))
        }
        Found::Over(of) => {
            let end = of.until.map(ids::time).unwrap_or_default();
            ("over", format!("the grant {} ended at {end}", id(&of)), Some(of))
        }
        Found::ClockBehind(of) => (
            "clock_behind",
            format!(
                "the grant {} waits: the gateway's clock is behind a time that it has shown before; set it, \
                 or accept it",
                id(&of)
            ),
            Some(of),
        ),
        Found::ClockStep(of) => (
            "clock_step",
            format!("the grant {} waits: the gateway's clock was set less than five minutes ago", id(&of)),
            Some(of),
        ),
        Found::NoCommonFamily => (
            "no_common_family",
            format!("{from} and {to} have no addresses of one family, IPv4 or IPv6"),
            None,
        ),
        Found::UnknownSource => {
            ("unknown_source", format!("{from} has no peer that may use grants: the user is a viewer"), None)
        }
        Found::UnknownTarget => {
            ("unknown_target", format!("{to} has no address that grants lead to: it has no tunnel"), None)
        }
    };
    Explanation {
        permitted: result == "permitted",
        result: result.to_owned(),
        text,
        grant: window.map(|of| id(&of)),
        from: window.and_then(|of| ids::time_if_known(of.from)),
        until: window.and_then(|of| ids::time_if_known(of.until)),
        at,
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::time::Wall;

    use super::*;

    fn window(from: Option<i64>, until: Option<i64>) -> GrantWindow {
        let at = |time: Option<i64>| time.map(Wall::from_millis);
        GrantWindow { grant: Id::from_i64(9), from: at(from), until: at(until), ends_at: None }
    }

    fn answered(found: Found) -> Explanation {
        to_api(found, &Words { from: "anna", to: "cam-07", what: "tcp 22" }, "now".into())
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
        assert_eq!(over.text, "the grant p_0000000000009 ended at 1970-01-01T00:01:00Z");
        assert_eq!((over.permitted, over.until.as_deref()), (false, Some("1970-01-01T00:01:00Z")));
        let permitted = answered(Found::Permitted(window(None, None)));
        assert!(permitted.permitted && permitted.until.is_none());
        assert_eq!(permitted.text, "anna reaches cam-07 (tcp 22) by the grant p_0000000000009");
    }
}
