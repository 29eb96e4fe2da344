//! The results that a device sends over its own tunnel, without a token.
//!
//! The tunnel alone authenticates the device. It may send results for its own host and for hosts
//! behind it. It learns nothing about other hosts, not even whether they exist.
//!
//! This API is served at the published port of the gateway's inner addresses, never on the API's
//! sockets. It knows nothing of packets.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::routing::{get, post};
use axum::{Router, extract::State};
use fleetgate_probes::plugin::MAX_OUTPUT;
use serde::Deserialize;
use serde_json::json;

use super::AppState;
use super::hosts::{self, definition};
use super::request::client::Client;
use super::request::extract::{self, Path, Query};
use super::request::idempotency;
use super::request::ids::{IdKind, Named};
use super::response::layers;
use super::response::problem::Problem;
use super::results::body::{self, Bounds};
use super::results::{self, Answer, NewResult, Timestamp};
use crate::clock;
use crate::engine::definitions::Definition;
use crate::store::events::Object;

/// One byte more than the limit shows that there was more.
const TEXT: usize = MAX_OUTPUT + 1;

/// Returns the routes of the published port.
pub fn router(app: AppState) -> Router {
    let routes = Router::new()
        .route("/", get(about))
        .route("/results", post(sent_as_json))
        .route("/results/{service}", post(sent_as_text));
    layers::wrap(routes, &app, body::MOST).with_state(app)
}

/// The device whose tunnel the request came through.
struct Sender(Arc<Definition>);

impl FromRequestParts<AppState> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Ok(client) = Client::from_request_parts(parts, app).await;
        let Client::Device(peer) = client else {
            return Err(Problem::forbidden("no_tunnel", "this is for devices, through their tunnels"));
        };
        definition(app, Named::Id(peer)).await.map(Sender)
    }
}

impl Sender {
    fn principal(&self) -> String {
        format!("device:{}", IdKind::Host.text(self.0.id))
    }

    /// Returns the host of a result: the device's own, or one behind it.
    async fn host(&self, app: &AppState, wanted: Option<&str>) -> Result<Arc<Definition>, Problem> {
        let Some(wanted) = wanted else { return Ok(self.0.clone()) };
        let named = IdKind::Host.named(wanted);
        if let Some(host) = hosts::known(app, &named).filter(|host| host.peer == Some(self.0.id)) {
            return Ok(host);
        }
        // A foreign host takes the same look-up as an unknown one, so that the time reveals nothing
        // either.
        let mut conn = app.store.reader().await?;
        let found = hosts::load(&mut conn, named).await.ok();
        drop(conn);
        match found.filter(|host| host.id == self.0.id || host.via.as_ref() == Some(&self.0.name)) {
            Some(host) => definition(app, Named::Id(host.id)).await,
            None => Err(self.refuse(app, wanted).await),
        }
    }

    /// Refuses with the same words for foreign and unknown hosts.
    async fn refuse(&self, app: &AppState, wanted: &str) -> Problem {
        let shown: String = wanted.chars().take(80).collect();
        let name = &self.0.name;
        let detail = format!(
            "{name} sends results of itself and of hosts behind it, and {shown:?} is neither: send it from \
             that device, or over the API with a token"
        );
        if app.rate_limits().stray_is_written(self.0.id, clock::now().mono)
            && let Err(error) = self.note(app, &shown, &detail).await
        {
            tracing::warn!(device = %name, "a refused result is not in the audit: {error}");
        }
        Problem::forbidden("not_its_host", detail)
    }

    async fn note(&self, app: &AppState, wanted: &str, detail: &str) -> Result<(), Problem> {
        let mut write = super::request::transaction::ApiTx::begin(app, &self.principal()).await?;
        let about = (Object::Device, self.0.id);
        write.event("result.refused", about, detail, json!({ "host": wanted })).await?;
        write.commit().await
    }

    async fn send(
        &self,
        app: &AppState,
        (host, service): (Option<&str>, Option<String>),
        (new, key): (NewResult, Option<String>),
    ) -> Answer {
        app.rate_limits().result(self.0.id, clock::now().mono)?;
        let host = self.host(app, host).await?;
        let sender = results::Sender { by: self.principal(), key };
        results::take(app, sender, (host, service), new).await
    }
}

/// Describes the API for a person who opens the address in a terminal.
async fn about(sender: Sender, headers: HeaderMap) -> String {
    let name = &sender.0.name;
    let here = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("THIS-ADDRESS");
    format!(
        "this is fleetgate; the tunnel says that you are {name}\n\n\
         send a result of a service (0 ok, 1 warning, 2 critical, 3 unknown), with the output as the body:\n  \
         wget -q -O - --post-data \"all is well\" \"http://{here}/results/SERVICE?exit_status=0\"\n  \
         curl -d \"all is well|files=7\" \"http://{here}/results/SERVICE?exit_status=0\"\n\n\
         of a host behind you: add &host=NAME; when it was so: add &timestamp=SECONDS-SINCE-1970\n\
         or as JSON to /results: {{\"service\": \"backup\", \"exit_status\": 0, \"output\": \"all is well\"}}\n"
    )
}

/// A result as JSON. Without a service, it belongs to the host itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    host: Option<String>,
    service: Option<String>,
    exit_status: u32,
    #[serde(default)]
    output: String,
    timestamp: Option<Timestamp>,
}

async fn sent_as_json(State(app): State<AppState>, sender: Sender, request: Request) -> Answer {
    extract::must_be_json(&request)?;
    let key = idempotency::key_of(request.headers())?;
    let body =
        body::read(request, Bounds::of_tunnels(results::BODY_LIMIT, &app.rate_limits().large_bodies)).await?;
    if body.cut {
        return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let Sent { host, service, exit_status, output, timestamp } = extract::parse(&body.bytes)?;
    let new = NewResult { exit_status, output, timestamp };
    sender.send(&app, (host.as_deref(), service), (new, key)).await
}

/// Query parameters for programs that can send only a line of text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextResultQuery {
    exit_status: u32,
    host: Option<String>,
    timestamp: Option<f64>,
}

async fn sent_as_text(
    State(app): State<AppState>,
    sender: Sender,
    Path(service): Path<String>,
    Query(asked): Query<TextResultQuery>,
    request: Request,
) -> Answer {
    let key = idempotency::key_of(request.headers())?;
    let body = body::read(request, Bounds::of_tunnels(TEXT, &app.rate_limits().large_bodies)).await?;
    let new = NewResult {
        exit_status: asked.exit_status,
        output: String::from_utf8_lossy(&body.bytes).into_owned(),
        timestamp: asked.timestamp.map(Timestamp::Seconds),
    };
    sender.send(&app, (asked.host.as_deref(), Some(service)), (new, key)).await
}
