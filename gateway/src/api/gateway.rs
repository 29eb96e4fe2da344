//! Facts about the gateway, including its endpoint, which an admin confirms.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::DEFAULT_MTU;
use fleetgate_keys::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::Body;
use super::request::ids;
use super::request::transaction::ApiTx;
use super::response::problem::Problem;
use super::restore::Restore;
use crate::engine::unknown_keys;
use crate::store::events::Object;
use crate::store::{SqliteConnection, settings};

const ENDPOINT: &str = "endpoint";

/// Keys, addresses and endpoint of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    pub version: String,
    pub public_key: String,
    /// A line for `authorized_keys` on the devices.
    pub ssh_public_key: String,
    /// The SSH CA that signs the keys of renters: a line for `TrustedUserCAKeys` on devices that they log in to.
    #[serde(default)]
    pub rental_ssh_ca: String,
    /// `host:port` in the configurations of devices. Absent: it has to be set before the first device is added.
    pub endpoint: Option<String>,
    /// Whether the endpoint comes from the settings and cannot be changed here.
    pub endpoint_configured: bool,
    /// The UDP port of the tunnels on this machine.
    #[schema(minimum = 1, maximum = 65535)]
    pub udp_port: u16,
    pub pool_v4: String,
    pub pool_v6: String,
    /// The gateway's own inner addresses.
    pub addresses: Vec<String>,
    pub keepalive_s: u16,
    /// The inner MTU of devices and operators without one of their own, in bytes.
    #[serde(default = "usual_mtu")]
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: u16,
    /// The backup that is restored at the next start. Until then no other change is possible.
    pub restore: Option<Restore>,
    /// Why the gateway's clock is not trusted, with the remedy. Absent: it is trusted.
    #[serde(default)]
    pub clock_problem: Option<String>,
    /// The last keys of handshakes that belong to no device, the newest first; at most 16.
    #[serde(default)]
    pub unknown_keys: Vec<UnknownKey>,
}

/// The inner MTU of a gateway that does not name its own.
const fn usual_mtu() -> u16 {
    DEFAULT_MTU
}

/// The key of a refused handshake, as its sender names it. Anyone can send any key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnknownKey {
    pub public_key: String,
    /// Address and port of the sender.
    pub from: String,
    pub last_at: String,
    /// In how many minutes it came since the start, while it was in this list.
    #[schema(minimum = 1)]
    pub reports: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    /// `host:port` by which devices reach the gateway's UDP port; a host name by preference.
    pub endpoint: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(set_endpoint)).routes(routes!(accept_clock))
}

/// Keys, addresses and endpoint of the gateway.
#[utoipa::path(get, path = "/gateway", operation_id = "show_gateway", tag = "gateway",
    security(("token" = ["gateway:viewer"])), responses((status = 200, body = Gateway)))]
async fn show(State(app): State<AppState>) -> Result<Json<Gateway>, Problem> {
    let mut conn = app.store.reader().await?;
    Ok(Json(facts(&app, confirmed_endpoint(&app, &mut conn).await?)))
}

/// Sets the endpoint of the gateway in the configurations of devices. Configurations issued before keep the old one.
#[utoipa::path(put, path = "/gateway/endpoint", operation_id = "set_endpoint", tag = "gateway",
    security(("token" = ["gateway:admin"])), request_body = EndpointChange,
    responses((status = 200, body = Gateway)))]
async fn set_endpoint(
    State(app): State<AppState>,
    who: Principal,
    Body(change): Body<EndpointChange>,
) -> Result<Json<Gateway>, Problem> {
    let endpoint: Endpoint =
        change.endpoint.parse().map_err(|e| Problem::invalid("endpoint", format!("{e}")))?;
    if let Some(set) = &app.config.endpoint {
        let detail = format!("the settings say endpoint = \"{set}\": change it there and restart");
        return Err(Problem::conflict("endpoint_configured", detail));
    }
    if endpoint.is_loopback() {
        tracing::warn!("the endpoint {endpoint} is this machine's own: other machines cannot reach it");
    }
    let mut write = ApiTx::begin(&app, &who).await?;
    settings::put(write.tx(), ENDPOINT, &endpoint.to_string()).await?;
    let data = json!({ "endpoint": endpoint.to_string() });
    write.event("gateway.endpoint_changed", (Object::System, Id::from_i64(0)), "confirmed", data).await?;
    write.commit().await?;
    Ok(Json(facts(&app, Some(endpoint))))
}

/// Accepts the gateway's clock although it is behind a time that it has shown before, or cannot be compared with it.
/// Grants with a window pass again, by this clock.
#[utoipa::path(post, path = "/gateway/accept-clock", operation_id = "accept_clock", tag = "gateway",
    security(("token" = ["gateway:admin"])), responses((status = 204)))]
async fn accept_clock(State(app): State<AppState>, who: Principal) -> Result<StatusCode, Problem> {
    let mut write = ApiTx::begin(&app, &who).await?;
    let now = write.now;
    settings::accept_clock(write.tx(), now).await?;
    let data = json!({ "clock": ids::time(now) });
    write.event("gateway.clock_accepted", (Object::System, Id::from_i64(0)), "accepted", data).await?;
    write.commit().await?;
    app.handle.accept_clock().await;
    Ok(StatusCode::NO_CONTENT)
}

impl AppState {
    /// Returns the endpoint for devices, if it is configured or confirmed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn endpoint(&self) -> anyhow::Result<Option<Endpoint>> {
        let mut conn = self.store.reader().await?;
        Ok(confirmed_endpoint(self, &mut conn).await?)
    }
}

/// Returns the endpoint of the settings, or the confirmed one.
async fn confirmed_endpoint(
    app: &AppState,
    conn: &mut SqliteConnection,
) -> crate::store::Result<Option<Endpoint>> {
    if let Some(set) = &app.config.endpoint {
        return Ok(Some(set.clone()));
    }
    // An older version may have accepted an endpoint that this one refuses. It never worked.
    Ok(settings::find(conn, ENDPOINT).await?.and_then(|text| text.parse().ok()))
}

/// Returns the endpoint for a new configuration.
///
/// # Errors
/// Returns 409 while the endpoint is unknown. Correcting a guessed one would take a visit to every
/// device.
pub(super) async fn endpoint(app: &AppState, conn: &mut SqliteConnection) -> Result<Endpoint, Problem> {
    confirmed_endpoint(app, conn).await?.ok_or_else(|| {
        let port = app.udp_port;
        Problem::conflict(
            "endpoint_not_set",
            format!(
                "devices cannot be told where the gateway is: set endpoint in fleetgate.toml \
                 (FLEETGATE_ENDPOINT), or confirm it once with `fleetgate gateway endpoint \
                 vpn.example.com:{port}` or PUT /api/v1/gateway/endpoint {{\"endpoint\": \
                 \"vpn.example.com:{port}\"}}. UDP port {port} of this machine must be reachable there"
            ),
        )
    })
}

fn facts(app: &AppState, endpoint: Option<Endpoint>) -> Gateway {
    Gateway {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        public_key: app.identity.public_key.to_string(),
        ssh_public_key: app.identity.ssh_public_key.to_string(),
        rental_ssh_ca: app.ssh_ca.public_line(),
        endpoint: endpoint.map(|e| e.to_string()),
        endpoint_configured: app.config.endpoint.is_some(),
        udp_port: app.udp_port,
        pool_v4: app.config.pool_v4.to_string(),
        pool_v6: app.config.pool_v6.to_string(),
        addresses: app.config.pools().gateway().map(|a| a.to_string()).into(),
        keepalive_s: app.config.keepalive,
        mtu: app.config.mtu,
        clock_problem: app.live.health().clock_problem().map(|problem| problem.to_string()),
        unknown_keys: app.live.unknown_keys().iter().map(unknown_key).collect(),
        restore: app.uploads().staged(),
    }
}

fn unknown_key(of: &unknown_keys::UnknownKey) -> UnknownKey {
    UnknownKey {
        public_key: of.key.to_string(),
        from: of.from.to_string(),
        last_at: ids::time(of.last_at),
        reports: i64::try_from(of.reports).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn the_endpoint_is_confirmed_once_and_shown() {
        let api = TestApi::new().await;
        let shown = api.viewer().get("/api/v1/gateway").await;
        assert_eq!((shown.status, &shown.json["endpoint"]), (200, &json!(null)));
        let set = json!({ "endpoint": "vpn.example.net:51820" });
        assert_eq!(api.admin().put("/api/v1/gateway/endpoint", set).await.status, 200);
        let shown = api.viewer().get("/api/v1/gateway").await;
        assert_eq!(shown.json["endpoint"], "vpn.example.net:51820");
    }

    #[tokio::test]
    async fn the_key_of_a_refused_handshake_is_shown() {
        let api = TestApi::new().await;
        assert_eq!(api.viewer().get("/api/v1/gateway").await.json["unknown_keys"], json!([]));
        let key = fleetgate_keys::PrivateKey::from_bytes([7; 32]).public();
        let from = "192.0.2.9:1024".parse().unwrap();
        api.state.live.note_unknown_key(key, from, crate::clock::now());
        let shown = api.viewer().get("/api/v1/gateway").await.json["unknown_keys"][0].clone();
        let expected = (json!(key.to_string()), json!("192.0.2.9:1024"), json!(1));
        assert_eq!((shown["public_key"].clone(), shown["from"].clone(), shown["reports"].clone()), expected);
    }

    #[tokio::test]
    async fn a_nonsense_endpoint_is_refused_with_the_field() {
        let api = TestApi::new().await;
        for bad in
            ["", "host", "host:0", "a b:1", "host:1\nPostUp = reboot", "0.0.0.0:1", "300.1.1.1:5", "h:+5"]
        {
            let answer = api.admin().put("/api/v1/gateway/endpoint", json!({ "endpoint": bad })).await;
            assert_eq!((answer.status, answer.code()), (422, "invalid"), "{bad:?}");
            assert_eq!(answer.json["errors"][0]["field"], "endpoint");
        }
    }
}
