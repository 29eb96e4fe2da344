//! The HTTP API. It authenticates, parses, calls the store, informs the engine and renders.
//!
//! It decides nothing about devices or states. All input is hostile until it is parsed. All output
//! is a type of a resource or a problem document.
//!
//! Each resource is a file or a folder here, with its routes, the types of its JSON and its parsing.
//! All of them use `request`, `response` and `types`. `document` makes the OpenAPI document.

pub(crate) mod acknowledgements;
pub(crate) mod backups;
mod connect;
pub(crate) mod contacts;
pub(crate) mod devices;
mod document;
pub(crate) mod downtimes;
mod enrol;
pub(crate) mod enrolment_tokens;
pub(crate) mod enrolments;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod forwarded;
pub(crate) mod gateway;
pub(crate) mod grants;
mod health;
pub(crate) mod host_settings;
pub(crate) mod hosts;
pub(crate) mod incidents;
mod intervals;
pub(crate) mod metrics;
pub(crate) mod metrics_query;
pub(crate) mod notifications;
pub(crate) mod operators;
pub(crate) mod overview;
mod peer_drops;
pub(crate) mod profile_rules;
pub(crate) mod profiles;
pub(crate) mod removals;
pub(crate) mod rentals;
pub(crate) mod reports;
pub(crate) mod request;
mod response;
pub(crate) mod restore;
pub(crate) mod restore_review;
pub(crate) mod results;
pub(crate) mod rules;
pub(crate) mod services;
mod session;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
mod top;
pub(crate) mod traffic;
pub mod tunnel_api;
pub mod types;
pub(crate) mod users;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fleetgate_keys::{PublicKey, SshPublicKey};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config as SwaggerConfig, SwaggerUi};

pub use request::client::{Client, Login, throttled_as};
pub use request::managed_by::HEADER as MANAGER_HEADER;
pub use response::layers::no_place;
pub use response::problem::{Affected, Effect, FieldError, ProblemDocument};

use crate::config::Config;
use crate::config::public_url::PublicUrl;
use crate::engine::handle::Handle;
use crate::engine::live_state::LiveState;
use crate::history::Recorder;
use crate::identity::ssh_ca::SshCa;
use crate::notification::Notifications;
use crate::rental_events;
use crate::store::Store;
use crate::tunnel::stream::Streams;
use overview::summary::{Summaries, Summary};
use request::rate_limits::RateLimits;
use request::token_cache::TokenCache;
use request::{checks, idempotency};
use response::problem::Problem;
use response::{around, layers};

/// The state that handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    parts: Parts,
    backups: backups::Backups,
    uploads: restore::Uploads,
    rate_limits: RateLimits,
    tokens: TokenCache,
    hub: stream::Hub,
    open_streams: connect::OpenStreams,
    summaries: Summaries,
}

/// The parts of a running gateway that the API uses.
pub struct Parts {
    pub store: Store,
    /// The samples of metrics.
    pub history: Recorder,
    pub handle: Handle,
    pub live: LiveState,
    pub office: Notifications,
    /// Wakes the tasks for the events of rentals.
    pub rental_events: rental_events::Wakeups,
    /// Opens TCP connections through tunnels.
    pub streams: Streams,
    pub config: Config,
    pub identity: Identity,
    /// Signs the SSH keys of renters.
    pub ssh_ca: Arc<SshCa>,
    /// The port of the tunnels' socket.
    pub udp_port: u16,
    /// The address of the API's TCP listener.
    pub api: SocketAddr,
    pub metrics: PrometheusHandle,
    /// Cancelled when the gateway stops, so that streams end.
    pub shutdown: CancellationToken,
}

/// The gateway's identity towards the fleet.
pub struct Identity {
    pub public_key: PublicKey,
    pub ssh_public_key: SshPublicKey,
}

impl From<&crate::identity::Identity> for Identity {
    fn from(keys: &crate::identity::Identity) -> Self {
        Self { public_key: keys.wireguard.public(), ssh_public_key: keys.ssh.public() }
    }
}

impl std::ops::Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl AppState {
    pub fn new(parts: Parts) -> Self {
        AppState(Arc::new(Inner {
            parts,
            backups: backups::Backups::default(),
            uploads: restore::Uploads::default(),
            rate_limits: RateLimits::default(),
            tokens: TokenCache::default(),
            hub: stream::Hub::default(),
            open_streams: connect::OpenStreams::default(),
            summaries: Summaries::default(),
        }))
    }

    fn backups(&self) -> &backups::Backups {
        &self.0.backups
    }

    fn uploads(&self) -> &restore::Uploads {
        &self.0.uploads
    }

    fn rate_limits(&self) -> &RateLimits {
        &self.0.rate_limits
    }

    fn tokens(&self) -> &TokenCache {
        &self.0.tokens
    }

    /// Returns the URL at which people and devices reach this API, according to the settings.
    pub fn base_url(&self) -> String {
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        // On this machine, loopback reaches a wildcard address.
        let ip = match self.api.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let listening = || format!("{scheme}://{}", SocketAddr::new(ip, self.api.port()));
        self.config.public_url.as_ref().map_or_else(listening, ToString::to_string)
    }

    /// Returns a warning for a person who uses [`AppState::base_url`] on another machine.
    fn reach_hint(&self) -> Option<String> {
        let ip = self.api.ip();
        let unknown = self.config.public_url.is_none() && (ip.is_loopback() || ip.is_unspecified());
        unknown.then(|| {
            format!(
                "{} is this machine alone: for devices elsewhere set public_url (FLEETGATE_PUBLIC_URL) to \
                 the address at which they reach this API, such as https://fleet.example.com",
                self.base_url()
            )
        })
    }

    fn open_streams(&self) -> &connect::OpenStreams {
        &self.0.open_streams
    }

    /// Waits until all connections of people have ended, which they do at the stop.
    pub async fn streams_ended(&self) {
        self.open_streams().ended().await;
    }

    fn hub(&self) -> &stream::Hub {
        &self.0.hub
    }

    /// # Errors
    /// Fails when the database cannot be read.
    async fn summary(&self) -> Result<Arc<Summary>, Problem> {
        self.0.summaries.current(self).await
    }

    /// Whether the browser sees HTTPS. A proxy may be in between.
    fn is_https(&self) -> bool {
        self.config.tls.is_some() || self.config.public_url.as_ref().is_some_and(PublicUrl::is_https)
    }

    /// The prefix makes browsers refuse a cookie from another host or a plain connection.
    fn cookie_name(&self) -> &'static str {
        if self.is_https() { "__Host-fleetgate_session" } else { "fleetgate_session" }
    }

    /// The cookie of people of customers, with the same prefix.
    fn person_cookie_name(&self) -> &'static str {
        if self.is_https() { "__Host-fleetgate_my" } else { "fleetgate_my" }
    }
}

/// Returns all HTTP routes of the gateway. `http/server` serves them on TCP and on the Unix socket,
/// and adds the [`Client`] to each request.
pub fn router(state: AppState) -> axum::Router {
    let [routes, results, many, uploads] = DECLARED.routes.clone();
    let swagger = SwaggerUi::new("/api/v1/docs").config(SwaggerConfig::from("../openapi.json"));
    let routes = routes
        .layer(middleware::from_fn_with_state(state.clone(), idempotency::layer))
        .merge(health::routes())
        .merge(enrol::script_route())
        .merge(swagger)
        .route("/api/v1/openapi.json", get(serve_document));
    let admitted = [routes, results, many, uploads]
        .map(|routes| routes.route_layer(around::layer(checks::Checks(state.clone()))));
    let [routes, results, many, uploads] = admitted;
    layers::wrap(routes.fallback(elsewhere), &state, layers::BODY_LIMIT)
        .merge(layers::wrap_results(results, &state, results::BODY_LIMIT))
        .merge(layers::wrap(many, &state, results::BODY_LIMIT_OF_MANY))
        .merge(layers::wrap_uploads(uploads, &state))
        .with_state(state)
}

/// A path that is no route of the API may be the dashboard's.
async fn elsewhere(State(app): State<AppState>, request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return Problem::from_status(StatusCode::NOT_FOUND).into_response();
    }
    let base = app.config.public_url.as_ref().map_or("", PublicUrl::path).to_owned();
    let mut response = crate::web::router(base).oneshot(request).await.unwrap_or_else(|never| match never {});
    response.extensions_mut().insert(layers::OpenRoute);
    response
}

/// All routes without their layers, and the document of them. To declare them takes far longer than to copy and to
/// read what was declared.
struct Declared {
    /// The usual ones, those with one result in a body, with many, and with bodies of any size.
    routes: [axum::Router<AppState>; 4],
    document: Bytes,
}

static DECLARED: LazyLock<Declared> = LazyLock::new(|| {
    let [(routes, mut all), (results, of_results), (many, of_many), (uploads, of_uploads)] =
        [declared(), declared_results(), declared_many(), declared_uploads()]
            .map(OpenApiRouter::split_for_parts);
    all.merge(of_results);
    all.merge(of_uploads);
    all.merge(of_many);
    let document = document::complete(&all).to_string().into();
    Declared { routes: [routes, results, many, uploads], document }
});

/// Returns the OpenAPI document, as in `docs/openapi.json`.
pub fn openapi() -> serde_json::Value {
    serde_json::from_slice(&DECLARED.document).expect("the document is JSON")
}

async fn serve_document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DECLARED.document.clone())
}

/// Declares the routes with bodies of the usual size.
fn declared() -> OpenApiRouter<AppState> {
    document::base().nest("/api/v1", routes())
}

/// Declares the routes with one result in a body, which keep their keys themselves.
fn declared_results() -> OpenApiRouter<AppState> {
    document::base().nest("/api/v1", results::routes())
}

/// Declares the routes with bodies of any size.
fn declared_uploads() -> OpenApiRouter<AppState> {
    document::base().nest("/api/v1", restore::routes())
}

/// Declares the routes with many results in a body, which keep their keys themselves.
fn declared_many() -> OpenApiRouter<AppState> {
    document::base().nest("/api/v1", results::routes_of_many())
}

/// Returns all other routes under `/api/v1`, by file.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(acknowledgements::routes())
        .merge(incidents::routes())
        .merge(backups::routes())
        .merge(connect::routes())
        .merge(contacts::routes())
        .merge(devices::routes())
        .merge(downtimes::routes())
        .merge(enrol::routes())
        .merge(enrolment_tokens::routes())
        .merge(enrolments::routes())
        .merge(events::routes())
        .merge(explain::routes())
        .merge(forwarded::routes())
        .merge(gateway::routes())
        .merge(grants::routes())
        .merge(host_settings::routes())
        .merge(hosts::routes())
        .merge(intervals::routes())
        .merge(metrics::routes())
        .merge(metrics_query::routes())
        .merge(notifications::routes())
        .merge(operators::routes())
        .merge(overview::routes())
        .merge(profile_rules::routes())
        .merge(profiles::routes())
        .merge(removals::routes())
        .merge(rentals::routes())
        .merge(reports::routes())
        .merge(restore_review::routes())
        .merge(rules::routes())
        .merge(services::routes())
        .merge(session::routes())
        .merge(stream::routes())
        .merge(tokens::routes())
        .merge(top::routes())
        .merge(traffic::routes())
        .merge(users::routes())
}
