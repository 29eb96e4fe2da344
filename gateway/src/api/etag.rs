//! `ETag` and `If-Match`: a change is refused when somebody else changed the resource meanwhile.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;

/// JSON with the version of what it shows.
pub struct Tagged<T> {
    pub version: i64,
    pub value: T,
}

pub fn header_value(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes")
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        ([(header::ETAG, header_value(self.version))], Json(self.value)).into_response()
    }
}

/// The versions that the caller would accept. Without the header any will do.
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// # Errors
    /// 412 when the caller knows another version.
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let current = version.to_string();
        if wanted.iter().any(|tag| tag == "*" || tag.trim_matches('"') == current) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "somebody else changed this meanwhile: load it again, look, and repeat the change",
        ))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given: Vec<&HeaderValue> = parts.headers.get_all(header::IF_MATCH).iter().collect();
        if given.is_empty() {
            return Ok(IfMatch(None));
        }
        // Unreadable ones match nothing: the caller meant to be careful.
        let text = given.into_iter().filter_map(|v| v.to_str().ok());
        Ok(IfMatch(Some(text.flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).collect())))
    }
}
