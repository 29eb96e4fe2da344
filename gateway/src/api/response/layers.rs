//! The layers around every request and response: request id, limits, problem documents, security
//! headers.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::predicate::Predicate as _;
use tower_http::compression::{CompressionLayer, DefaultPredicate};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument as _;

use super::around::{self, Around, Below};
use super::problem::{self, Problem};
use crate::api::AppState;

/// The largest body, except for results. A host with all its labels and notes takes a tenth of it.
pub const BODY_LIMIT: usize = 64 * 1024;
/// The longest time to the head of a response. Hashing a password takes 0.1 s, and a commit on a
/// slow card takes a second. Streams have sent their head by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// No inline script or style is allowed. The dashboard and the documentation are files of the
/// gateway.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";
/// One year, the usual minimum for browsers.
const HSTS: &str = "max-age=31536000";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the layers to the routes. `most`: bytes of the largest body that any route accepts.
pub fn wrap(routes: Router<AppState>, state: &AppState, most: usize) -> Router<AppState> {
    let bounds = ServiceBuilder::new()
        .layer(CompressionLayer::new().compress_when(DefaultPredicate::new().and(may_be_compressed)))
        .layer(RequestBodyLimitLayer::new(most))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
        .layer(CatchPanicLayer::custom(panicked));
    routes
        .layer(middleware::from_fn(finish_writes))
        .layer(ServiceBuilder::new().layer(around::layer(Edge(state.clone()))).layer(bounds))
}

/// Adds the layers to routes that are called a thousand times a second with small bodies. Each layer costs a few
/// microseconds: these have no compression, and their handlers leave nothing undone when the client disconnects.
pub fn wrap_results(routes: Router<AppState>, state: &AppState, most: usize) -> Router<AppState> {
    let bounds = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(most))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
        .layer(CatchPanicLayer::custom(panicked));
    routes.layer(ServiceBuilder::new().layer(around::layer(Edge(state.clone()))).layer(bounds))
}

/// Adds the layers to routes that limit the size and time of their bodies themselves.
pub fn wrap_uploads(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    routes
        .layer(middleware::from_fn(finish_writes))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(around::layer(Edge(state.clone())))
}

/// Marks a response of a route that is open to strangers.
#[derive(Clone, Copy)]
pub struct OpenRoute;

/// A compressor has 300 KiB, and strangers may leave their responses unread.
fn may_be_compressed(_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions) -> bool {
    extensions.get::<OpenRoute>().is_none()
}

/// Finishes writes. A client that disconnects must not stop a change between its commit and the
/// notification of the engine.
async fn finish_writes(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let span = tracing::Span::current();
    match tokio::spawn(next.run(request).instrument(span)).await {
        Ok(response) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Problem::internal(error).into_response(),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without words".to_owned());
    Problem::internal(anyhow::anyhow!("a handler panicked: {text}")).into_response()
}

/// The outermost layer: each request has an id, and each response the headers and the form of this API.
#[derive(Clone)]
struct Edge(AppState);

impl Around for Edge {
    async fn around<S: Below>(self, request: Request, below: S) -> Response {
        let id = request_id();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let span = tracing::info_span!("request", id);
        let mut response = around::run(below, request).instrument(span.clone()).await;
        let _entered = span.entered();
        response = as_problem(response, &id);
        set_headers(response.headers_mut(), &path, &id, self.0.is_https());
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        without_body(response, &method)
    }
}

/// Returns the name of a request for the log and its response.
fn request_id() -> String {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    format!("{:016x}", u64::from_be_bytes(bytes))
}

/// Turns every error into a problem document, including those of layers that know none.
fn as_problem(response: Response, request_id: &str) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| Problem::from_status(status));
    let (rendered, body) = Json(problem.render(request_id)).into_response().into_parts();
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.extend(rendered.headers);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    parts.headers.insert(header::CONTENT_LENGTH, body_length(&body));
    Response::from_parts(parts, body)
}

/// Returns the response to a request that the listener has no place for.
pub fn no_place() -> Response {
    let id = request_id();
    let problem = Problem::busy("too many requests at once without a login: send this again in a moment", 2);
    let mut response = as_problem(problem.into_response(), &id);
    // It is sent over HTTP/2 alone, and so over TLS.
    set_headers(response.headers_mut(), "/api/", &id, true);
    response
}

fn body_length(body: &Body) -> HeaderValue {
    HeaderValue::from(axum::body::HttpBody::size_hint(body).exact().unwrap_or_default())
}

fn without_body(response: Response, method: &Method) -> Response {
    if method == Method::HEAD { response.map(|_| Body::empty()) } else { response }
}

fn set_headers(headers: &mut HeaderMap, path: &str, id: &str, https: bool) {
    // For these and three more, so that the map grows once.
    headers.reserve(HEADERS.len() + 3);
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    let no_store = HeaderValue::from_static("no-store");
    if path.starts_with("/api/") && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, no_store);
    }
    let id = HeaderValue::from_str(id).expect("a request id is hexadecimal");
    headers.insert(HeaderName::from_static("x-request-id"), id);
}
