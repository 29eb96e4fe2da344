//! Results from clients: accepted by the monitor and on disk before the response, each once.
//!
//! A repetition is recognised by its timestamp, sender and content, or by its `Idempotency-Key`.
//! The monitor keeps digests of both with the state of the service or host. A result with neither
//! is recognised only while the first one waits for its commit.
//!
//! Hosts and services are found in memory, and the response shows the committed state. `many.rs`
//! handles many results in one call.

pub mod body;
mod many;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Digest, Identity, Outcome, PassiveResult, ServiceState, Ticket};
use fleetgate_engine::time::Wall;
use fleetgate_probes::plugin::{Ending, MAX_OUTPUT, PluginResult};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use many::{AT_ONCE, BODY_LIMIT as BODY_LIMIT_OF_MANY, LARGE_AT_ONCE, routes as routes_of_many};

use super::AppState;
use super::hosts::{self, Host, definition, load};
use super::request::auth::Principal;
use super::request::extract::{Body, Path};
use super::request::ids::{IdKind, Named};
use super::request::{idempotency, parse};
use super::response::problem::Problem;
use super::services::{self, Service, unknown_service};
use super::types::names;
use crate::engine::commit_wait::{Content, Settled};
use crate::engine::definitions::{self, Definition};
use crate::engine::handle::NotTaken;
use crate::store::states;

/// The largest body: twice the output that is kept, because JSON writes some bytes as two or more.
pub(super) const BODY_LIMIT: usize = 2 * MAX_OUTPUT;

/// A passive result: the exit status and output of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResult {
    /// 0 to 3, anything else is UNKNOWN. For a host 0 and 1 mean up, the rest down.
    pub exit_status: u32,
    /// Text, and performance data after a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was measured: RFC 3339, or seconds since 1970; now when absent.
    pub timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Timestamp {
    Text(String),
    Seconds(f64),
}

/// The state that a result led to, or why it was ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Submitted {
    /// Set if a newer result is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::IgnoredReason>)]
    pub ignored: Option<String>,
    /// It was taken before, and nothing changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_host)).routes(routes!(of_service))
}

/// A result of the host itself; 0 and 1 mean that it is up.
#[utoipa::path(post, path = "/hosts/{host}/results", operation_id = "submit_host_result",
    tag = "monitoring", security(("token" = ["monitoring:operator"])), request_body = NewResult,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 202, body = Submitted, description = "taken; the state that it led to"),
        (status = 200, body = Submitted, description = "ignored")))]
async fn of_host(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
    headers: HeaderMap,
    Body(new): Body<NewResult>,
) -> Answer {
    let host = definition(&app, IdKind::Host.named(&host)).await?;
    let sender = Sender { by: who.to_string(), key: idempotency::key_of(&headers)? };
    take(&app, sender, (host, None), new).await
}

/// Submits a passive result of a service.
#[utoipa::path(post, path = "/hosts/{host}/services/{service}/results",
    operation_id = "submit_service_result", tag = "monitoring", security(("token" = ["monitoring:operator"])),
    request_body = NewResult,
    params(("host" = String, Path, description = "id or name"), ("service" = String, Path)),
    responses((status = 202, body = Submitted, description = "taken; the state that it led to"),
        (status = 200, body = Submitted, description = "ignored")))]
async fn of_service(
    State(app): State<AppState>,
    who: Principal,
    Path((host, service)): Path<(String, String)>,
    headers: HeaderMap,
    Body(new): Body<NewResult>,
) -> Answer {
    let host = definition(&app, IdKind::Host.named(&host)).await?;
    let sender = Sender { by: who.to_string(), key: idempotency::key_of(&headers)? };
    take(&app, sender, (host, Some(service)), new).await
}

/// The response to a result.
pub(super) type Answer = Result<Response, Problem>;

/// The sender of a result.
pub(super) struct Sender {
    /// The principal, who has permission to send it.
    pub by: String,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
}

/// Accepts a result of a host (`None`) or of one of its services.
pub(super) async fn take(
    app: &AppState,
    sender: Sender,
    (host, service): (Arc<Definition>, Option<String>),
    new: NewResult,
) -> Answer {
    match service {
        None => take_of_host(app, sender, host.id, new).await,
        Some(name) => {
            let service = taking(&host, &name)?;
            take_of_service(app, sender, (&host, service), new).await
        }
    }
}

/// Returns the service of a host, if results of it are taken.
fn taking<'a>(host: &'a Definition, name: &str) -> Result<&'a definitions::Service, Problem> {
    let service = host.service(name).ok_or_else(|| unknown_service(host, name))?;
    if service.is_set_by_gateway() {
        let detail = "the gateway itself sets the state of this service, by the rentals of the device: send the result \
                      to a service of your own";
        return Err(Problem::conflict("built_in", detail));
    }
    Ok(service)
}

async fn take_of_host(app: &AppState, sender: Sender, id: HostId, new: NewResult) -> Answer {
    let sent = Sent::new(sender, (id, None), new)?;
    let (content, make) = sent.parts();
    let (fate, _) = became(app.handle.submit_shown((content, None), make).await)?;
    if fate == Fate::Older {
        return Ok(ignored());
    }
    let mut conn = app.store.reader().await?;
    let state = hosts::to_api(app, load(&mut conn, Named::Id(id)).await?);
    Ok(taken(fate, Submitted { host: Some(state), ..Submitted::default() }))
}

async fn take_of_service(
    app: &AppState,
    sender: Sender,
    (host, service): (&Definition, &definitions::Service),
    new: NewResult,
) -> Answer {
    let place = (host.id, service.name.clone());
    let sent = Sent::new(sender, (host.id, Some(service.name.clone())), new)?;
    let (content, make) = sent.parts();
    let (fate, state) = became(app.handle.submit_shown((content, Some(place)), make).await)?;
    if fate == Fate::Older {
        return Ok(ignored());
    }
    let state = match state {
        Some(state) => Some(state),
        None => of_before(app, host.id, &service.name).await?,
    };
    let beside = app.store.host_details(host.id).await.map_err(|error| Problem::of_store(&error))?;
    let state = services::service_as(&app.live, (host, service), state.as_deref(), &beside);
    Ok(taken(fate, Submitted { service: Some(state), ..Submitted::default() }))
}

/// Returns the stored state. A repeated result has written nothing now.
async fn of_before(
    app: &AppState,
    host: HostId,
    service: &str,
) -> Result<Option<Arc<ServiceState>>, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(states::of_service(&mut conn, host, service).await?.map(Arc::new))
}

fn ignored() -> Response {
    Json(Submitted { ignored: Some("older".to_owned()), ..Submitted::default() }).into_response()
}

fn taken(fate: Fate, state: Submitted) -> Response {
    let repeated = fate == Fate::Repeated;
    let mut response = (StatusCode::ACCEPTED, Json(Submitted { repeated, ..state })).into_response();
    if repeated {
        response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The outcome of an accepted result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The result is on disk.
    Taken,
    /// The result was on disk before.
    Repeated,
    Older,
}

/// Returns the outcome with the state committed with it.
fn became(settled: Result<Settled, NotTaken>) -> Result<(Fate, Option<Arc<ServiceState>>), Problem> {
    let Settled { outcome, state } = settled.map_err(not_taken)?;
    let fate = match outcome {
        Outcome::Done => Fate::Taken,
        Outcome::Repeated => Fate::Repeated,
        Outcome::Older => Fate::Older,
        Outcome::KeyReused => return Err(idempotency::reused()),
        Outcome::Unknown => return Err(Problem::not_found("it was removed or switched off just now")),
    };
    Ok((fate, state))
}

fn not_taken(why: NotTaken) -> Problem {
    match why {
        NotTaken::Refused(Some(trouble)) => trouble.into(),
        NotTaken::Refused(None) => Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR),
        NotTaken::NotYet => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_on_disk",
            "the result was taken and is not on disk yet: send it again, it counts once",
        ),
    }
}

/// A valid result of a host (`None`) or of one of its services.
struct Sent {
    by: String,
    of: (HostId, Option<String>),
    result: PluginResult,
    at: Wall,
    identity: Identity,
    content: Option<Content>,
}

impl Sent {
    fn new(sender: Sender, of: (HostId, Option<String>), new: NewResult) -> Result<Sent, Problem> {
        let said = new.timestamp.as_ref().map(moment).transpose()?;
        let identity = identity(&sender, said, &new);
        let unknown = identity == Identity::default();
        let content = unknown.then(|| content(&sender, of.0, of.1.as_deref(), &new));
        let result =
            PluginResult::from_run(&Ending::Exit(new.exit_status), new.output.as_bytes(), b"", false);
        let at = said.unwrap_or_else(crate::clock::wall);
        Ok(Sent { by: sender.by, of, result, at, identity, content })
    }

    /// Splits a result into the content that identifies it while it waits, and the submission for
    /// the monitor.
    fn parts(self) -> (Option<Content>, impl FnOnce(Ticket) -> PassiveResult) {
        let Sent { by, of: (host, service), result, at, identity, content } = self;
        (content, move |ticket| PassiveResult { host, service, result, at, by, identity, ticket })
    }
}

fn moment(timestamp: &Timestamp) -> Result<Wall, Problem> {
    let moment = match timestamp {
        Timestamp::Text(text) => parse::moment(text),
        Timestamp::Seconds(seconds) => parse::unix_seconds(*seconds),
    };
    moment.map_err(|error| Problem::invalid("timestamp", error))
}

fn identity(sender: &Sender, said: Option<Wall>, new: &NewResult) -> Identity {
    let stated = said.map_or_else(String::new, |at| at.as_millis().to_string());
    let status = new.exit_status.to_string();
    let sent = [stated.as_bytes(), status.as_bytes(), new.output.as_bytes()];
    let dated = said.map(|_| digest(&[&[sender.by.as_bytes()], sent.as_slice()].concat()));
    let key = sender.key.as_ref().map(|key| digest(&[sender.by.as_bytes(), key.as_bytes()]));
    Identity { dated, keyed: key.map(|key| (key, digest(&sent))) }
}

/// The digest of a result without a timestamp or key.
fn content(sender: &Sender, host: HostId, service: Option<&str>, new: &NewResult) -> Digest {
    digest(&[
        sender.by.as_bytes(),
        &host.as_i64().to_be_bytes(),
        service.unwrap_or_default().as_bytes(),
        new.exit_status.to_string().as_bytes(),
        new.output.as_bytes(),
    ])
}

/// The digest of all parts. Each is hashed with its length, so that none runs into the next.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let whole = hash.finalize();
    let mut digest = Digest([0; 12]);
    digest.0.copy_from_slice(&whole[..12]);
    digest
}
