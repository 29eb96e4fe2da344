//! `Idempotency-Key`: the same call twice has one effect. The answer is stored in the transaction
//! of the effect, without its secrets; the repeated call gets that one.

use crate::store::SqliteConnection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use fleetgate_engine::time::Wall;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::extract;
use super::problem::Problem;
use crate::store::idempotency as stored;

/// A UUID has 36 characters; more than this was not meant as a key.
const MAX_KEY: usize = 255;
const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A JSON body whose effect happens once per key and principal.
pub struct Idempotent<T> {
    pub value: T,
    pub once: Once,
}

/// The caller's key, if one was sent.
pub struct Once {
    key: Option<String>,
    request: [u8; 32],
}

impl Once {
    /// The answer of the first call, if this repeats it.
    ///
    /// # Errors
    /// 422 when the key was used for another request.
    pub async fn replay(&self, tx: &mut SqliteConnection, by: &str) -> Result<Option<Response>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let Some(answer) = stored::find(tx, by, key).await? else { return Ok(None) };
        if answer.request != self.request {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was sent with another request: take a new key",
            ));
        }
        Ok(Some(replayed(answer)))
    }

    /// Remembers the answer. `shown_again` must hold no secret.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remember(
        &self,
        tx: &mut SqliteConnection,
        by: &str,
        now: Wall,
        status: StatusCode,
        shown_again: &impl Serialize,
    ) -> Result<(), Problem> {
        let Some(key) = &self.key else { return Ok(()) };
        let body = serde_json::to_string(shown_again).map_err(Problem::internal)?;
        let answer = stored::Answer { request: self.request, status: status.as_u16(), body };
        Ok(stored::insert(tx, by, key, &answer, now).await?)
    }
}

fn replayed(answer: stored::Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    (status, headers, answer.body).into_response()
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Idempotent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        extract::must_be_json(&request)?;
        let key = request.headers().get(HEADER).map(parse_key).transpose()?;
        let mut hash = Sha256::new();
        hash.update(request.method().as_str());
        hash.update(request.uri().path());
        hash.update([0]);
        let bytes = extract::read(request, state).await?;
        hash.update(&bytes);
        let once = Once { key, request: hash.finalize().into() };
        Ok(Idempotent { value: extract::parse(&bytes)?, once })
    }
}

fn parse_key(value: &HeaderValue) -> Result<String, Problem> {
    let key = value.to_str().ok().filter(|k| (1..=MAX_KEY).contains(&k.len()));
    let wanted = format!("Idempotency-Key: 1 to {MAX_KEY} printable characters are expected");
    key.map(ToOwned::to_owned).ok_or_else(|| Problem::bad_request("bad_idempotency_key", wanted))
}
