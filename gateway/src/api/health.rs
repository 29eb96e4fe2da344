//! `/healthz`, `/readyz` and `/metrics`, for the service manager and for external monitoring.

use std::borrow::Cow;
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
use super::peer_drops;
use super::request::auth::Role;
use super::request::client::Client;
use super::request::permission::{self, Area, Rule};
use super::response::problem::Problem;
use crate::config::public_url::PublicUrl;
use crate::health::progress::Component;
use crate::health::{Part, Space};
use crate::store::hosts::Totals;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process responds. The status is 200 even with a fault, because a restart would fix none of
/// them. The parts name the fault.
async fn healthz(State(app): State<AppState>) -> impl IntoResponse {
    let parts = parts(&app).await;
    let well = parts.iter().all(|(_, trouble)| trouble.is_none());
    let shown: BTreeMap<_, _> =
        parts.into_iter().map(|(part, trouble)| (part, trouble.unwrap_or("ok".into()))).collect();
    Json(json!({ "status": if well { "ok" } else { "degraded" }, "parts": shown }))
}

/// The databases can be read, states can be written, the engine runs, and no stop was requested.
async fn readyz(State(app): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let not_ready = |what: &str| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "not_ready", what)
    };
    if app.shutdown.is_cancelled() {
        return Err(not_ready("the gateway is stopping"));
    }
    for (part, trouble) in parts(&app).await {
        // The gateway works: graphs have gaps, and some grants do not pass. A restart mends none of it.
        if let Some(trouble) = trouble.filter(|_| ![HISTORY, CLOCK, POLICY, RESTORE].contains(&part)) {
            return Err(not_ready(&format!("{part}: {trouble}")));
        }
    }
    Ok(Json(json!({ "status": "ready" })))
}

const HISTORY: &str = "history";
const CLOCK: &str = "clock";
const POLICY: &str = "policy";
const RESTORE: &str = "restore";

type Words = Cow<'static, str>;

/// Returns the fault of each part, in words that strangers may see.
async fn parts(app: &AppState) -> Vec<(&'static str, Option<Words>)> {
    let health = app.live.health();
    let engine = if app.handle.is_running() {
        let behind = "has not received every change yet, and they are sent again; the log says why";
        app.handle.is_behind().then_some(behind)
    } else {
        Some("a thread has ended; the log says why")
    };
    let database = if !health.is_well(Part::States) {
        Some("takes no writes: is the disk full? the log says why")
    } else if !app.store.has_space() {
        Some("takes no writes: the disk is full")
    } else {
        app.store.ping().await.is_err().then_some("cannot be read; the log says why")
    };
    let clock = health.clock_problem().map(
        |_| "is behind a time that it has shown before, so that grants with a window wait; the log says more",
    );
    let policy = (app.handle.unreadable_rows() > 0)
        .then_some("has rows that cannot be read and permit nothing; the log names them");
    let restore = matches!(app.unconfirmed_restore().await, Ok(Some(_)))
        .then_some("waits until an admin confirms what came back: operators and renters reach nothing");
    let hangs = |component: Component| {
        app.live.pulse().hangs(component).then_some("hangs; the heartbeat has stopped")
    };
    let components = Component::ALL.into_iter().map(|component| (component.name(), hangs(component)));
    let parts =
        [("engine", engine), ("database", database), (CLOCK, clock), (POLICY, policy), (RESTORE, restore)];
    let parts = parts.into_iter().chain(components).map(|(part, trouble)| (part, trouble.map(Words::from)));
    parts.chain([(HISTORY, history(app))]).collect()
}

fn history(app: &AppState) -> Option<Words> {
    let health = app.live.health();
    if !health.is_well(Part::History) {
        let words = "takes no writes: newer samples wait in fleetgate.db; when the room for them there is used up, the \
                     samples of further results are lost, also of results that are answered 202; the log says why";
        return Some(words.into());
    }
    let no_room = match health.space() {
        Space::Enough => None,
        Space::Low => Some(
            "is not written because the disk is nearly full: newer samples wait in fleetgate.db; when the room for \
             them there is used up, the samples of further results are lost, also of results that are answered 202",
        ),
        Space::Reserved => Some(
            "is not written because the disk is full: samples are lost, and results are refused (507 disk_full)",
        ),
    };
    if let Some(words) = no_room {
        return Some(words.into());
    }
    if app.store.history.was_set_aside() {
        let words =
            "was damaged and set aside, graphs begin anew: see history.db.damaged-* in the data directory";
        return Some(words.into());
    }
    let damaged = app.history.status().damaged_blocks;
    (damaged > 0).then(|| {
        format!("has {damaged} damaged blocks, and graphs have a gap there; a backup may have them").into()
    })
}

/// Serves metrics without a token on this machine, and over the network with an operator's token.
async fn metrics(State(app): State<AppState>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Ok(client) = Client::from_request_parts(&mut parts, &app).await;
    let ours = client.is_this_machine() && !came_through_a_proxy(&parts.headers);
    if !ours || !names_this_machine(&parts, app.config.public_url.as_ref().map(PublicUrl::origin)) {
        permission::admit(&app, &mut parts, Rule::Least(Area::Gateway, Role::Operator)).await?;
    }
    count_problems(&app.summary().await?.totals);
    let text = app.metrics.render() + &peer_drops::metrics(&app).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Counts problems as the dashboard and `fleetgate status` do.
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

/// A proxy on this machine forwards requests of strangers.
fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED)
}

/// Whether the request names this machine. A browser on this machine sends the host of its page,
/// and a foreign name may point to loopback. `public`: the gateway's public origin.
fn names_this_machine(parts: &Parts, public: Option<&str>) -> bool {
    let header = parts.headers.get(header::HOST).map(HeaderValue::to_str);
    let authority = match header {
        Some(Ok(host)) => host.parse::<Authority>().ok(),
        Some(Err(_)) => None,
        // HTTP/2 has the host in the target. A client without either is no browser.
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
        api.state.live.pulse().found(&[Component::Outbox]);
        let health = api.anonymous().get("/healthz").await;
        assert_eq!(
            (&health.json["status"], &health.json["parts"]["scheduler"]),
            (&json!("degraded"), &json!("ok"))
        );
        assert!(health.json["parts"]["outbox"].as_str().unwrap().starts_with("hangs"));
        assert_eq!(api.anonymous().get("/readyz").await.status, 503);
    }

    #[tokio::test]
    async fn a_history_that_takes_no_writes_is_said_and_no_reason_to_be_replaced() {
        let api = TestApi::new().await;
        api.state.live.health().wrote(Part::History, false);
        assert_eq!(api.anonymous().get("/readyz").await.status, 200);
        let health = api.anonymous().get("/healthz").await;
        assert!(
            health.json["parts"]["history"].as_str().unwrap().contains("takes no writes"),
            "{}",
            health.text
        );
    }

    #[tokio::test]
    async fn a_disk_without_room_for_the_history_is_said_here_and_on_the_page() {
        let api = TestApi::new().await;
        api.state.live.health().space_is(Space::Low);
        assert_eq!(api.anonymous().get("/readyz").await.status, 200, "results are taken");
        let health = api.anonymous().get("/healthz").await;
        assert!(health.json["parts"]["history"].as_str().unwrap().contains("nearly full"), "{}", health.text);
        let said = api.viewer().get("/api/v1/overview").await.json["disk_problem"].clone();
        assert!(said.as_str().unwrap().contains("Free some space"), "{said}");
        for text in [&said, &health.json["parts"]["history"]] {
            let lost = "samples of further results are lost, also of results that are answered 202";
            assert!(text.as_str().unwrap().contains(lost), "what an accepted result may lack: {text}");
        }
        api.state.live.health().space_is(Space::Reserved);
        let full = api.anonymous().get("/healthz").await.json["parts"]["history"].clone();
        assert!(full.as_str().unwrap().contains("the disk is full: samples are lost"), "{full}");
        api.state.store.set_reserve(u64::MAX);
        let ready = api.anonymous().get("/readyz").await;
        assert!(ready.status == 503 && ready.text.contains("the disk is full"), "{}", ready.text);
    }
}
