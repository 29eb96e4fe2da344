//! Results that somebody sends: taken by the monitor, on disk before the answer, each once.
//!
//! A repetition is known by its timestamp with sender and content, or by its `Idempotency-Key`: the monitor
//! keeps digests of both with the state of the service (or host). One that has neither is known as long as
//! the first of it waits for its commit.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{Digest, Identity, Outcome, Submission};
use fleetgate_probes::plugin::{Ending, MAX_OUTPUT, PluginResult};
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::Principal;
use super::extract::{Body, Path};
use super::hosts::{self, load, load_spec, unknown_service};
use super::idempotency;
use super::ids::{Kind, Named};
use super::model::{NewResult, Submitted, Timestamp};
use super::parse;
use super::problem::Problem;
use crate::handle::NotTaken;

/// The largest body: twice the output that is kept, for what JSON writes in two bytes or more.
pub(super) const BODY_LIMIT: usize = 2 * MAX_OUTPUT;

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
    let mut conn = app.store.reader().await?;
    let id = load(&mut conn, Kind::Host.named(&host)).await?.id;
    drop(conn);
    let sender = Sender { by: who.to_string(), key: idempotency::key_of(&headers)? };
    take(&app, sender, (id, None), new).await
}

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
    let mut conn = app.store.reader().await?;
    let id = load(&mut conn, Kind::Host.named(&host)).await?.id;
    drop(conn);
    let sender = Sender { by: who.to_string(), key: idempotency::key_of(&headers)? };
    take(&app, sender, (id, Some(service)), new).await
}

/// What a result is answered with.
pub(super) type Answer = Result<Response, Problem>;

/// Who sends a result.
pub(super) struct Sender {
    /// The principal, who may send it.
    pub by: String,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
}

/// A result of a host (`None`) or of a service of it.
pub(super) async fn take(
    app: &AppState,
    sender: Sender,
    (host, service): (HostId, Option<String>),
    new: NewResult,
) -> Answer {
    match service {
        None => take_of_host(app, sender, host, new).await,
        Some(service) => take_of_service(app, sender, (host, service), new).await,
    }
}

async fn take_of_host(app: &AppState, sender: Sender, id: HostId, new: NewResult) -> Answer {
    let fate = submit(app, sender, (id, None), new).await?;
    if fate == Fate::Older {
        return Ok(ignored());
    }
    let mut conn = app.store.reader().await?;
    let state = hosts::wire(app, load(&mut conn, Named::Id(id)).await?);
    Ok(taken(fate, Submitted { host: Some(state), ..Submitted::default() }))
}

async fn take_of_service(
    app: &AppState,
    sender: Sender,
    (id, service): (HostId, String),
    new: NewResult,
) -> Answer {
    let mut conn = app.store.reader().await?;
    let spec = load_spec(app, &mut conn, Named::Id(id)).await?;
    drop(conn);
    if !spec.services.iter().any(|s| s.name == service) {
        return Err(unknown_service(&spec, &service));
    }
    let fate = submit(app, sender, (id, Some(service.clone())), new).await?;
    if fate == Fate::Older {
        return Ok(ignored());
    }
    let mut conn = app.store.reader().await?;
    let all = hosts::rendered(&app.live, &mut conn, &spec).await?;
    let state = all.into_iter().find(|s| s.name == service);
    Ok(taken(fate, Submitted { service: state, ..Submitted::default() }))
}

/// What became of a result that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On disk.
    Taken,
    /// It was before.
    Repeated,
    Older,
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

async fn submit(
    app: &AppState,
    sender: Sender,
    (host, service): (HostId, Option<String>),
    new: NewResult,
) -> Result<Fate, Problem> {
    let said = match &new.timestamp {
        None => None,
        Some(Timestamp::Text(text)) => {
            Some(parse::moment(text).map_err(|e| Problem::invalid("timestamp", e))?)
        }
        Some(Timestamp::Seconds(seconds)) => {
            Some(parse::unix_seconds(*seconds).map_err(|e| Problem::invalid("timestamp", e))?)
        }
    };
    let identity = identity(&sender, said, &new);
    let content = (identity == Identity::default()).then(|| content(&sender, host, service.as_deref(), &new));
    let result = PluginResult::from_run(&Ending::Exit(new.exit_status), new.output.as_bytes(), b"", false);
    let (at, by) = (said.unwrap_or_else(crate::clock::wall), sender.by);
    let make = |ticket| Submission { host, service, result, at, by, identity, ticket };
    match app.handle.submit(content, make).await {
        Ok(Outcome::Done) => Ok(Fate::Taken),
        Ok(Outcome::Repeated) => Ok(Fate::Repeated),
        Ok(Outcome::Older) => Ok(Fate::Older),
        Ok(Outcome::KeyReused) => Err(idempotency::reused()),
        Ok(Outcome::Unknown) => Err(Problem::not_found("it was removed or switched off just now")),
        Err(NotTaken::Refused(Some(trouble))) => Err(trouble.into()),
        Err(NotTaken::Refused(None)) => Err(Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR)),
        Err(NotTaken::NotYet) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_on_disk",
            "the result was taken and is not on disk yet: send it again, it counts once",
        )),
    }
}

fn identity(sender: &Sender, said: Option<Wall>, new: &NewResult) -> Identity {
    let stated = said.map_or_else(String::new, |at| at.as_millis().to_string());
    let status = new.exit_status.to_string();
    let sent = [stated.as_bytes(), status.as_bytes(), new.output.as_bytes()];
    let dated = said.map(|_| digest(&[&[sender.by.as_bytes()], sent.as_slice()].concat()));
    let key = sender.key.as_ref().map(|key| digest(&[sender.by.as_bytes(), key.as_bytes()]));
    Identity { dated, keyed: key.map(|key| (key, digest(&sent))) }
}

/// Of a result that has neither a timestamp nor a key.
fn content(sender: &Sender, host: HostId, service: Option<&str>, new: &NewResult) -> Digest {
    digest(&[
        sender.by.as_bytes(),
        &host.as_i64().to_be_bytes(),
        service.unwrap_or_default().as_bytes(),
        new.exit_status.to_string().as_bytes(),
        new.output.as_bytes(),
    ])
}

/// Of the parts, each with its length, so that none runs into the next.
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
