//! `/healthz`, `/readyz`, `/metrics`: for the service manager and for whoever watches the watcher.

use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::AppState;
use super::auth::RequireOperator;
use super::client::Client;
use super::problem::Problem;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process answers.
async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// The database can be read, the engine runs, and no stop was asked for.
async fn readyz(State(app): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let not_ready = |what: &str| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "not_ready", what)
    };
    if app.shutdown.is_cancelled() {
        return Err(not_ready("the gateway is stopping"));
    }
    if !app.handle.is_running() {
        return Err(not_ready("the engine has stopped"));
    }
    app.store.ping().await.map_err(|_| not_ready("the database cannot be read"))?;
    Ok(Json(json!({ "status": "ready" })))
}

/// Open to this machine; over the network with an operator's token.
async fn metrics(State(app): State<AppState>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Ok(client) = Client::from_request_parts(&mut parts, &app).await;
    if !client.is_this_machine() || came_through_a_proxy(&parts.headers) {
        RequireOperator::from_request_parts(&mut parts, &app).await?;
    }
    let text = app.metrics.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// A proxy on this machine speaks for strangers.
fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED)
}
