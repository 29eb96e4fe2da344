//! Extractors for handlers. Every rejection is a problem document.

use std::time::Duration;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes, HttpBody as _};
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{Method, StatusCode, header, request::Parts};
use futures_util::StreamExt as _;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::auth::Principal;
use super::body_room::{self, BodyRoom};
use super::strict_json::Object;
use crate::api::response::problem::Problem;
use crate::api::{AppState, results};

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        must_be_json(&request)?;
        let (parts, body) = request.into_parts();
        parse(&read(body, &parts, app).await?).map(Body)
    }
}

/// The time for a whole body. The largest one takes 8 s over the slowest telephone line. A client
/// that only trickles bytes is cut off.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// Reads a whole body. `parts`: those of its request, from which a login is known.
pub async fn read(body: HttpBody, parts: &Parts, app: &AppState) -> Result<Bytes, Problem> {
    let is_known = parts.extensions.get::<Principal>().is_some();
    read_within(BODY_PATIENCE, body, (&app.rate_limits().body_room, is_known)).await
}

async fn read_within(patience: Duration, body: HttpBody, room: (&BodyRoom, bool)) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(patience, read_all(body, room)).await;
    read.unwrap_or_else(|_| Err(Problem::from_status(StatusCode::REQUEST_TIMEOUT)))
}

/// Copies the parts: each of them keeps the buffer that it came in, which may be far larger.
async fn read_all(body: HttpBody, (room, is_known): (&BodyRoom, bool)) -> Result<Bytes, Problem> {
    let announced = body.size_hint().upper().and_then(|most| usize::try_from(most).ok());
    let most = announced.unwrap_or(results::BODY_LIMIT).min(results::BODY_LIMIT);
    let (mut bytes, mut claimed) = (Vec::new(), None);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Problem::from_status(status_of(&error)))?;
        let length = bytes.len() + part.len();
        if length > most {
            return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        if length > body_room::SMALL && claimed.is_none() {
            claimed = Some(room.claim(is_known, most).await?);
            bytes.reserve_exact(most - bytes.len());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

/// The limit of the router ends a body that announced no length.
fn status_of(error: &(dyn std::error::Error + 'static)) -> StatusCode {
    let is_limit = std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<LengthLimitError>());
    if is_limit { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}

/// Parses a body. An empty body means `{}`, so that a POST without parameters needs none.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    Json::from_bytes(bytes).map(|Json(Object(value))| value).map_err(json_problem)
}

/// RFC 7396, the format of every PATCH.
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Refuses other content types, which a form on another site could send.
pub fn must_be_json(request: &Request) -> Result<(), Problem> {
    let Some(given) = request.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let mime = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_patch = request.method() == Method::PATCH && mime.eq_ignore_ascii_case(MERGE_PATCH);
    if is_patch || mime.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

fn json_problem(rejection: JsonRejection) -> Problem {
    let text = rejection.body_text();
    match rejection {
        JsonRejection::JsonDataError(_) => {
            let what = text.split_once("target type: ").map_or(text.as_str(), |(_, what)| what);
            let what = what.rsplit_once(" at line ").map_or(what, |(what, _)| what);
            let (path, what) = what.split_once(": ").filter(|(f, _)| is_path(f)).unwrap_or(("", what));
            let (field, detail) = named(path, what);
            Problem::invalid(field, detail)
        }
        _ => Problem::bad_request("broken_json", "the body is not JSON; it breaks off or has a typo"),
    }
}

/// Returns the field of an error of serde and what is wrong with it, in our words.
fn named(path: &str, what: &str) -> (String, String) {
    match what.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(missing) if path.is_empty() => (missing.to_owned(), "missing".to_owned()),
        Some(missing) => (format!("{path}.{missing}"), "missing".to_owned()),
        None => (path.to_owned(), allowed(what).unwrap_or_else(|| what.to_owned())),
    }
}

/// Returns what is said of a value that is not in its set, which serde calls a variant.
fn allowed(what: &str) -> Option<String> {
    let (value, expected) = what.strip_prefix("unknown variant `")?.split_once("`, expected ")?;
    let expected = expected.trim_start_matches("one of ").replace('`', "");
    Some(format!("{value:?} is not allowed: use {expected}"))
}

/// Whether the text is a path from serde and not the beginning of a sentence.
fn is_path(text: &str) -> bool {
    text != "missing field" && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.[]-/".contains(&b))
}

/// Parameters of the query string.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|q| Query(q.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let detail = text.split_once("query string: ").map_or(text.as_str(), |(_, what)| what);
            Problem::bad_request("bad_query", reworded(detail))
        })
    }
}

/// Rewords the end of an error of serde that names a variant.
fn reworded(detail: &str) -> String {
    let Some(at) = detail.find("unknown variant `") else { return detail.to_owned() };
    let (before, what) = detail.split_at(at);
    allowed(what).map_or_else(|| detail.to_owned(), |what| format!("{before}{what}"))
}

/// Parts of the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|p| Path(p.0)).map_err(|_| Problem::from_status(StatusCode::NOT_FOUND))
    }
}

/// Reads a PATCH field: absent is `None` (keep it), `null` is `Some(None)` (clear it).
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}

/// Reads a PATCH field that cannot be absent. `null` would remove it and is refused.
pub fn never_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    let given: Option<T> = serde::Deserialize::deserialize(deserializer)?;
    given.map(Some).ok_or_else(|| serde::de::Error::custom("cannot be removed: leave it out to keep it"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "only its parsing matters")]
        name: String,
        #[serde(default)]
        #[allow(dead_code, reason = "only its parsing matters")]
        labels: BTreeMap<String, String>,
    }

    fn refused(body: &str) -> String {
        parse::<Sample>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_body_is_refused_with_the_field() {
        assert_eq!(refused("{"), "broken_json: the body is not JSON; it breaks off or has a typo");
        assert!(!refused(r#"{"name":1}"#).contains("column"), "{}", refused(r#"{"name":1}"#));
        assert!(refused(r#"{"name":1}"#).starts_with("invalid: name: invalid type: integer"));
        assert!(refused(r#"{"name":"a","labels":{"x":[]}}"#).starts_with("invalid: labels.x: invalid type"));
        assert_eq!(refused(""), "invalid: name: missing");
        let fields = parse::<Sample>(b"{}").unwrap_err().errors().to_vec();
        assert_eq!((fields[0].field.as_str(), fields[0].detail.as_str()), ("name", "missing"));
        assert_eq!(named("rules[0]", "missing field `profile`").0, "rules[0].profile");
        let role = "unknown variant `god`, expected one of `viewer`, `operator`, `admin`";
        assert_eq!(named("role", role).1, "\"god\" is not allowed: use viewer, operator, admin");
        assert_eq!(
            reworded("state: unknown variant `x`, expected `open` or `closed`"),
            "state: \"x\" is not allowed: use open or closed"
        );
        assert!(refused(r#"{"name":"a","nam":"b"}"#).contains("unknown field `nam`"));
        assert!(refused("[1]").contains("expected an object"), "{}", refused("[1]"));
        assert!(refused("[false]").contains("expected an object"), "{}", refused("[false]"));
    }

    #[tokio::test]
    async fn a_body_that_trickles_in_is_not_waited_for() {
        let forever = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(" "), ()))
        });
        let body = HttpBody::from_stream(forever);
        let room = BodyRoom::default();
        let refused = read_within(Duration::from_millis(50), body, (&room, true)).await.unwrap_err();
        assert_eq!(refused.code(), "too_slow");
    }

    /// Sends this much of a body, and then nothing.
    async fn read_part(room: &BodyRoom, is_known: bool, sent: usize) -> &'static str {
        let part = futures_util::stream::once(async move { Ok::<_, std::io::Error>(vec![b' '; sent]) });
        let body = HttpBody::from_stream(part.chain(futures_util::stream::pending()));
        let read = read_within(Duration::from_millis(500), body, (room, is_known)).await;
        read.err().map_or("read", |problem| problem.code())
    }

    #[tokio::test]
    async fn large_bodies_of_strangers_share_little_room_and_small_ones_need_none() {
        let room = BodyRoom::default();
        let flood = futures_util::future::join_all((0..500).map(|_| read_part(&room, false, 60_000)));
        let others = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (read_part(&room, false, 4_000).await, read_part(&room, true, 60_000).await)
        };
        let (flood, others) = tokio::join!(flood, others);
        assert_eq!(others, ("too_slow", "too_slow"), "both were read as far as they were sent");
        let read = flood.iter().filter(|code| **code == "too_slow").count();
        assert!((1..=32).contains(&read), "{read} at once");
        assert_eq!(flood.iter().filter(|code| **code == "busy").count(), 500 - read);
    }
}
