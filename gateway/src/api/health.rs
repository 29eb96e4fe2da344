//! `/healthz`, `/readyz`, `/metrics`: for the service manager and for whoever watches the watcher.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::AppState;
use super::auth::Role;
use super::client::Client;
use super::permission::{self, Area, Rule};
use super::problem::Problem;
use crate::health::Part;
use crate::public_url::PublicUrl;
use crate::pulse::Organ;
use crate::store::hosts::Totals;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process answers: 200 whatever is wrong, since a new start would mend none of it. The parts
/// say what is.
async fn healthz(State(app): State<AppState>) -> impl IntoResponse {
    let parts = parts(&app).await;
    let well = parts.iter().all(|(_, trouble)| trouble.is_none());
    let shown: BTreeMap<_, _> =
        parts.into_iter().map(|(part, trouble)| (part, trouble.unwrap_or("ok"))).collect();
    Json(json!({ "status": if well { "ok" } else { "degraded" }, "parts": shown }))
}

/// The databases can be read, states can be written, the engine runs, and no stop was asked for.
async fn readyz(State(app): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let not_ready = |what: &str| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "not_ready", what)
    };
    if app.shutdown.is_cancelled() {
        return Err(not_ready("the gateway is stopping"));
    }
    for (part, trouble) in parts(&app).await {
        // Without history there are gaps in the graphs; the gateway does its work.
        if let Some(trouble) = trouble.filter(|_| part != HISTORY) {
            return Err(not_ready(&format!("{part}: {trouble}")));
        }
    }
    Ok(Json(json!({ "status": "ready" })))
}

const HISTORY: &str = "history";

/// What is wrong with each part, in words for strangers.
async fn parts(app: &AppState) -> Vec<(&'static str, Option<&'static str>)> {
    let health = app.live.health();
    let engine = if app.handle.is_running() {
        let behind = "has not heard of every change yet, and is told again; the log says why";
        app.handle.is_behind().then_some(behind)
    } else {
        Some("a thread has ended; the log says why")
    };
    let database = if !health.is_well(Part::States) {
        Some("takes no writes: is the disk full? the log says why")
    } else {
        app.store.ping().await.is_err().then_some("cannot be read; the log says why")
    };
    let history = if !health.is_well(Part::History) {
        Some("takes no writes: graphs will have a gap")
    } else {
        app.store.history.was_set_aside().then_some(
            "was damaged and set aside, graphs begin anew: see history.db.damaged-* in the data directory",
        )
    };
    let hangs = |organ: Organ| app.live.pulse().hangs(organ).then_some("hangs; the heartbeat has stopped");
    let organs = Organ::ALL.into_iter().map(|organ| (organ.name(), hangs(organ)));
    [("engine", engine), ("database", database), (HISTORY, history)].into_iter().chain(organs).collect()
}

/// Open to this machine; over the network with an operator's token.
async fn metrics(State(app): State<AppState>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Ok(client) = Client::from_request_parts(&mut parts, &app).await;
    let ours = client.is_this_machine() && !came_through_a_proxy(&parts.headers);
    if !ours || !names_this_machine(&parts, app.config.public_url.as_ref().map(PublicUrl::origin)) {
        permission::admit(&app, &mut parts, Rule::Least(Area::Gateway, Role::Operator)).await?;
    }
    count_problems(&app.summary().await?.totals);
    let text = app.metrics.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// As the page and `fleetgate status` count them.
fn count_problems(totals: &Totals) {
    let (hosts, services) = (totals, &totals.services);
    let problems = [
        ("host", "down", hosts.down),
        ("host", "unreachable", hosts.unreachable),
        ("host", "stale", hosts.stale),
        ("service", "critical", services.critical),
        ("service", "unknown", services.unknown),
        ("service", "warning", services.warning),
    ];
    for (object, state, count) in problems {
        metrics::gauge!("fleetgate_problems", "object" => object, "state" => state).set(count as f64);
    }
    for (object, count) in [("host", hosts.handled), ("service", services.handled)] {
        metrics::gauge!("fleetgate_problems_handled", "object" => object).set(count as f64);
    }
}

/// A proxy on this machine speaks for strangers.
fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED)
}

/// A browser on this machine says where its page believes to be: a stranger's name that leads to loopback is
/// no name of ours. `public`: the origin that we are reached at.
fn names_this_machine(parts: &Parts, public: Option<&str>) -> bool {
    let header = parts.headers.get(header::HOST).map(HeaderValue::to_str);
    let authority = match header {
        Some(Ok(host)) => host.parse::<Authority>().ok(),
        Some(Err(_)) => None,
        // HTTP/2 has it in the target; a program that says nothing is no browser.
        None => match parts.uri.authority() {
            Some(authority) => Some(authority.clone()),
            None => return true,
        },
    };
    let Some(authority) = authority else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_address = host.parse::<IpAddr>().is_ok();
    let public = public.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    is_address || host.eq_ignore_ascii_case("localhost") || public == Some(authority.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn a_database_that_takes_nothing_is_named_and_the_gateway_is_not_ready() {
        let api = TestApi::new().await;
        assert_eq!(api.anonymous().get("/readyz").await.status, 200);
        assert_eq!(api.anonymous().get("/healthz").await.json["status"], "ok");
        api.state.live.health().wrote(Part::States, false);
        let ready = api.anonymous().get("/readyz").await;
        assert_eq!((ready.status, ready.code()), (503, "not_ready"));
        assert!(ready.text.contains("database: takes no writes"), "{}", ready.text);
        let health = api.anonymous().get("/healthz").await;
        assert_eq!((health.status, &health.json["status"]), (200, &json!("degraded")));
        assert_eq!(health.json["parts"]["engine"], "ok");
        api.state.live.health().wrote(Part::States, true);
        assert_eq!(api.anonymous().get("/readyz").await.status, 200);
    }

    #[tokio::test]
    async fn a_part_that_hangs_is_named() {
        let api = TestApi::new().await;
        api.state.live.pulse().found(&[Organ::Outbox]);
        let health = api.anonymous().get("/healthz").await;
        assert_eq!(
            (&health.json["status"], &health.json["parts"]["scheduler"]),
            (&json!("degraded"), &json!("ok"))
        );
        assert!(health.json["parts"]["outbox"].as_str().unwrap().starts_with("hangs"));
        assert_eq!(api.anonymous().get("/readyz").await.status, 503);
    }

    #[tokio::test]
    async fn a_gap_in_the_graphs_is_said_and_no_reason_to_be_replaced() {
        let api = TestApi::new().await;
        api.state.live.health().wrote(Part::History, false);
        assert_eq!(api.anonymous().get("/readyz").await.status, 200);
        let health = api.anonymous().get("/healthz").await;
        assert!(health.json["parts"]["history"].as_str().unwrap().contains("gap"), "{}", health.text);
    }
}
