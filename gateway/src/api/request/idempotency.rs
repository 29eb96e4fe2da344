//! `Idempotency-Key`: a repeated POST takes effect once.
//!
//! One layer around all routes ensures that no handler can forget it. It finds the stored response
//! of an earlier call. It passes any other call on with its key in reach of
//! [`ApiTx`](super::transaction::ApiTx), which commits the key together with the effect. Then it stores
//! the response without its secrets ([`Disclosed`]), and without what clients say of their rentals (`references`).
//!
//! Results keep their keys with the state of their service: `results`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fleetgate_engine::time::Wall;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::auth::Principal;
use super::person::PersonCaller;
use super::transaction::PATIENCE;
use super::{extract, references};
use crate::api::AppState;
use crate::api::response::problem::Problem;
use crate::store::SqliteConnection;
use crate::store::idempotency::{self as stored, Answer};

/// A UUID has 36 characters. A longer text than this is no key.
const MAX_KEY: usize = 255;
pub const HEADER: &str = "idempotency-key";
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub const REUSED: &str = "idempotency_key_reused";
/// The largest response that is stored. Responses to POST are a tenth of it.
const MAX_ANSWER: u64 = 64 * 1024;
/// The login takes no key, because each login is new.
const LOGIN: &str = "/api/v1/session";
/// The restore takes no key. Its body is a whole backup, too large to keep for comparison.
const RESTORE: &str = "/api/v1/restore";
/// The login and the logout of people of customers.
const PERSON_LOGIN: &str = "/api/v1/my/login";
const PERSON_LOGOUT: &str = "/api/v1/my/logout";
/// The routes without a key. For every other POST, one key has one effect.
pub const KEYLESS: [&str; 4] = [LOGIN, RESTORE, PERSON_LOGIN, PERSON_LOGOUT];
/// The end of the routes that keep their keys themselves.
const RESULTS: &str = "/results";

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

/// A call with a new key.
pub struct Call {
    principal: String,
    key: String,
    request: [u8; 32],
    /// Whether the key is committed.
    is_kept: AtomicBool,
}

impl Call {
    /// Returns the call of this task, if it has a key.
    pub fn current() -> Option<Arc<Call>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Commits the key with the effect, in the first transaction of the call.
    ///
    /// # Errors
    /// Fails when the store cannot be written.
    pub async fn keep(&self, tx: &mut SqliteConnection, now: Wall) -> Result<(), Problem> {
        if !self.is_kept.load(Ordering::Relaxed) {
            stored::begin(tx, self.stored(), now).await?;
        }
        Ok(())
    }

    /// Records that the transaction with the key is committed.
    pub fn kept(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    fn stored(&self) -> stored::Call<'_> {
        stored::Call { principal: &self.principal, key: &self.key, request: self.request }
    }
}

/// A response with secrets, and the same one without them for repeated calls.
pub struct Disclosed<T> {
    pub status: StatusCode,
    pub once: T,
    pub again: T,
}

/// The body for a repeated call.
#[derive(Clone)]
struct ShownAgain(String);

impl<T: Serialize> IntoResponse for Disclosed<T> {
    fn into_response(self) -> Response {
        let again = match serde_json::to_string(&self.again) {
            Ok(again) => again,
            Err(error) => return Problem::internal(error).into_response(),
        };
        let mut response = (self.status, Json(self.once)).into_response();
        response.extensions_mut().insert(ShownAgain(again));
        response
    }
}

/// Calls under way, by principal and key. A second one waits for the first and gets its response.
/// The listener limits their number.
#[derive(Default)]
pub struct UnderWay(Mutex<Calls>);

type Calls = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// The lock of a call under way.
struct Turn<'a> {
    calls: &'a UnderWay,
    name: (String, String),
    lock: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl UnderWay {
    async fn turn(&self, principal: &str, key: &str) -> Turn<'_> {
        let name = (principal.to_owned(), key.to_owned());
        let lock = self.lock().entry(name.clone()).or_default().clone();
        Turn { calls: self, name, lock: Some(lock.lock_owned().await) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().expect("no holder panics")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lock = None;
        let mut calls = self.calls.lock();
        // A waiting call has a reference to the lock too.
        if calls.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            calls.remove(&self.name);
        }
    }
}

/// Handles POST requests with a key and passes all others on.
///
/// # Errors
/// Returns 400 for an invalid key, and 422 for a key that was sent with another request. Returns
/// 409 when the call was made and its response was not stored, and 429 after too many new keys.
pub async fn layer(State(app): State<AppState>, request: Request, next: Next) -> Result<Response, Problem> {
    match key_of(request.headers())? {
        Some(key) if takes_key(&request) => once(&app, key, request, next).await,
        _ => Ok(next.run(request).await),
    }
}

fn takes_key(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    request.method() == Method::POST && !KEYLESS.contains(&route) && !route.ends_with(RESULTS)
}

async fn once(app: &AppState, key: String, request: Request, next: Next) -> Result<Response, Problem> {
    extract::must_be_json(&request)?;
    let (parts, body) = request.into_parts();
    let bytes = extract::read(body, &parts, app).await?;
    let known = parts.extensions.get::<Principal>().map(ToString::to_string);
    let known = known.or_else(|| parts.extensions.get::<PersonCaller>().map(ToString::to_string));
    let principal = known.unwrap_or_else(|| bearer(&bytes));
    let call = Call { principal, key, request: digest_of(&parts, &bytes), is_kept: AtomicBool::new(false) };
    let _turn = app.rate_limits().calls.turn(&call.principal, &call.key).await;
    if let Some(answer) = before(app, &call).await? {
        return Ok(answer);
    }
    app.rate_limits().key(&call.principal, crate::clock::now().mono)?;
    let call = Arc::new(call);
    let request = Request::from_parts(parts, Body::from(bytes));
    let response = CURRENT.scope(call.clone(), next.run(request)).await;
    if response.status().is_success() {
        return Ok(remember(app, &call, response).await);
    }
    if !call.is_kept.load(Ordering::Relaxed) {
        app.rate_limits().key_unused(&call.principal);
    }
    Ok(response)
}

/// Returns the caller's key, if there is one.
///
/// # Errors
/// Returns 400 for a key that is empty, too long or not printable.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    headers.get(HEADER).map(parse_key).transpose()
}

fn parse_key(value: &HeaderValue) -> Result<String, Problem> {
    let key = value.to_str().ok().filter(|k| (1..=MAX_KEY).contains(&k.len()));
    let wanted = format!("Idempotency-Key: 1 to {MAX_KEY} printable characters are expected");
    key.map(ToOwned::to_owned).ok_or_else(|| Problem::bad_request("bad_idempotency_key", wanted))
}

/// Identifies a caller without a principal by the secret in the body.
fn bearer(body: &[u8]) -> String {
    let sent: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = sent["token"].as_str().unwrap_or_default();
    format!("enrol:{}", hex(&Sha256::digest(token)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(parts.method.as_str());
    hash.update(parts.uri.path_and_query().map_or("", |path| path.as_str()));
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

/// Returns the stored response if this call repeats an earlier one.
async fn before(app: &AppState, call: &Call) -> Result<Option<Response>, Problem> {
    let mut conn = app.store.reader().await?;
    let Some(known) = stored::find(&mut conn, &call.principal, &call.key).await? else { return Ok(None) };
    drop(conn);
    if known.request != call.request {
        return Err(reused());
    }
    match known.answer {
        Some(answer) => {
            let body = references::with_present(&app.store, answer.body).await?;
            Ok(Some(replayed(Answer { body, ..answer })))
        }
        None => Err(Problem::conflict(
            "answer_lost",
            "this call was made and took effect, and its answer was not kept: read the resource instead",
        )),
    }
}

/// Returns the error for a key that was sent with another request.
pub fn reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        REUSED,
        "this Idempotency-Key was sent with another request: take a new key",
    )
}

fn replayed(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body.clone()).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !answer.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(etag) = answer.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Stores the response. If that fails, the key remains and records that the call was made.
async fn remember(app: &AppState, call: &Call, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let size = body.size_hint().upper();
    if size.is_none_or(|size| size > MAX_ANSWER) {
        return Response::from_parts(parts, body);
    }
    let bytes = match axum::body::to_bytes(body, MAX_ANSWER as usize).await {
        Ok(bytes) => bytes,
        Err(error) => return Problem::internal(error).into_response(),
    };
    if let Err(error) = store(app, call, &parts, &bytes).await {
        tracing::warn!("the answer to a call with an Idempotency-Key is not kept: {error}");
    }
    Response::from_parts(parts, Body::from(bytes))
}

async fn store(
    app: &AppState,
    call: &Call,
    parts: &axum::http::response::Parts,
    body: &Bytes,
) -> crate::store::Result<()> {
    let again = parts.extensions.get::<ShownAgain>().map(|again| again.0.clone());
    let answer = Answer {
        status: parts.status.as_u16(),
        etag: parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned),
        body: references::without(again.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())),
    };
    let mut tx = app.store.begin_within(PATIENCE).await?;
    stored::answered(&mut tx, call.stored(), &answer, crate::clock::wall()).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_ended_leaves_nothing_behind() {
        let calls = UnderWay::default();
        let first = calls.turn("user:a", "k").await;
        let other = calls.turn("user:b", "k").await;
        let waiting = calls.turn("user:a", "k");
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop((first, other));
        drop(waiting.await);
        assert!(calls.lock().is_empty());
    }
}
