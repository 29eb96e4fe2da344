//! `ETag` and `If-Match`: a change is refused if another caller has changed the resource meanwhile.
//! The version counts changes by callers, not those of the gateway itself. A restore of a backup raises all versions
//! (`store/instance.rs`), and the one that new objects begin with, so that none from before it matches what the backup
//! brought back or what is made again under a name.

use std::collections::HashSet;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::{HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;

/// JSON with the version of its resource.
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

/// The versions that the caller accepts.
#[derive(Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// No header, or `*`: any existing version.
    Any,
    OneOf(Vec<String>),
}

impl IfMatch {
    /// # Errors
    /// Returns 412 when the caller has another version.
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        let IfMatch::OneOf(wanted) = self else { return Ok(()) };
        if wanted.contains(&version.to_string()) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "this was changed meanwhile: load it again, and repeat the change if it is still wanted",
        ))
    }
}

/// Refuses conditions on routes that do not support them. They would silently ignore the condition
/// and make the change that it should prevent.
///
/// # Errors
/// Returns 412 for `If-Match` on a change that does not support it.
pub fn check(request: &Request) -> Result<(), Problem> {
    if request.method().is_safe() || !request.headers().contains_key(header::IF_MATCH) {
        return Ok(());
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if !CONDITIONAL.contains(&(route.to_owned(), request.method().clone())) {
        return Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "no_etag",
            "this call takes no If-Match, and nothing was changed: leave the header out",
        ));
    }
    Ok(())
}

/// Routes with `If-Match` according to the document.
static CONDITIONAL: LazyLock<HashSet<(String, Method)>> = LazyLock::new(|| {
    let document = crate::api::openapi();
    let paths = document["paths"].as_object().into_iter().flatten();
    let takes = |operation: &Value| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|p| p["name"] == "If-Match")
    };
    let all = paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations
            .filter(|(_, operation)| takes(operation))
            .filter_map(|(method, _)| Some((path.clone(), method.to_uppercase().parse().ok()?)))
    });
    all.collect()
});

/// Reads a list of quoted tags (RFC 9110, section 13.1.1). A weak tag is valid but never matches.
fn tags(text: &str) -> Option<Vec<String>> {
    let tag = |text: &str| {
        let (weak, quoted) = match text.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let fine = !inner.contains(|c: char| c == '"' || c.is_ascii_control() || c == ' ');
        fine.then(|| if weak { format!("W/{inner}") } else { inner.to_owned() })
    };
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(tag).collect()
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given: Vec<&HeaderValue> = parts.headers.get_all(header::IF_MATCH).iter().collect();
        if given.is_empty() || given.iter().any(|v| v.as_bytes() == b"*") {
            return Ok(IfMatch::Any);
        }
        let parsed: Option<Vec<Vec<String>>> =
            given.into_iter().map(|value| value.to_str().ok().and_then(tags)).collect();
        let all = parsed.map(|lists| lists.concat()).filter(|all| !all.is_empty());
        all.map(IfMatch::OneOf).ok_or_else(|| {
            let expected = "If-Match: an ETag in quotes, as the answer to GET had it, or * is expected";
            Problem::bad_request("bad_if_match", expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(header: &str) -> Result<IfMatch, Problem> {
        let request = axum::http::Request::builder().header("if-match", header).body(()).unwrap();
        IfMatch::from_request_parts(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn tags_stand_in_quotes() {
        for (header, version) in [("\"7\"", 7), ("\"3\", \"7\"", 7), ("*", 1)] {
            assert!(parsed(header).await.unwrap().check(version).is_ok(), "{header}");
        }
        for header in ["\"6\"", "W/\"7\"", "\"another-kind-of-tag\""] {
            let refused = parsed(header).await.unwrap().check(7).unwrap_err();
            assert_eq!(refused.code(), "changed_meanwhile", "{header}");
        }
    }

    #[tokio::test]
    async fn what_is_no_tag_is_a_bad_request() {
        for header in ["nonsense", "7", "\"7", "\"a\"b\"", ",", "\"7\" \"8\"", "*, \"7\""] {
            assert_eq!(parsed(header).await.unwrap_err().code(), "bad_if_match", "{header}");
        }
    }
}
