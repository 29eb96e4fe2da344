//! The SSH host key of a host behind a device.

use axum::extract::State;
use serde_json::json;

use super::{HostSettings, load, to_api};
use crate::api::AppState;
use crate::api::devices::{Trust, refusal};
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path};
use crate::api::request::ids::{IdKind, Named};
use crate::api::request::parse;
use crate::api::request::transaction::ApiTx;
use crate::api::response::etag::Tagged;
use crate::api::response::problem::Problem;
use crate::store::devices::Pin;
use crate::store::events::Object;
use crate::store::host_settings as stored;

/// Confirms the host key that the SSH server of a host behind a device is to prove from now on.
///
/// The key of a device is confirmed with `POST /devices/{device}/trust`.
#[utoipa::path(post, path = "/hosts/{host}/trust", operation_id = "trust_host", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), request_body = Trust,
    params(("host" = String, Path, description = "id or name")),
    responses((status = 200, body = HostSettings)))]
pub(super) async fn trust(
    State(app): State<AppState>,
    who: Principal,
    Path(host): Path<String>,
    Body(trust): Body<Trust>,
) -> Result<Tagged<HostSettings>, Problem> {
    let fingerprint = parse::host_key(&trust.host_key).map_err(|e| Problem::invalid("host_key", e))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    let before = load(write.tx(), IdKind::Host.named(&host)).await?;
    if before.via.is_none() {
        let detail = format!("{} is a device: POST /devices/{0}/trust pins its key", before.settings.name);
        return Err(Problem::conflict("is_a_device", detail));
    }
    let mut settings = before.settings;
    let previous = settings.ssh.pin.map(|pin| pin.fingerprint);
    let data = json!({ "fingerprint": fingerprint, "previous": previous });
    settings.ssh.pin = Some(Pin::new(fingerprint, "trusted"));
    stored::update(write.tx(), before.id, &settings).await.map_err(|e| refusal(e, Some(&who)))?;
    write.event("host.trusted", (Object::Host, before.id), "host key confirmed", data).await?;
    write.host(before.id);
    let after = load(write.tx(), Named::Id(before.id)).await?;
    let value = to_api(write.tx(), &after).await?;
    write.commit().await?;
    Ok(Tagged { version: after.version, value })
}
