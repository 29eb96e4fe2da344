//! Admits devices. Only here does an enrolment become a host or replace a host's key.
//!
//! All work happens inside the caller's transaction. The caller has decided that the device may
//! join.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::RoutePolicy;
use fleetgate_keys::{PresharedKey, PublicKey};
use serde_json::json;

use crate::api::devices::{load, refusal, wireguard_conf};
use crate::api::enrol::{Connection, EnrolAnswer};
use crate::api::request::ids::{self, IdKind, Named};
use crate::api::request::transaction::ApiTx;
use crate::api::response::problem::Problem;
use crate::api::{AppState, gateway, profiles};
use crate::names::Labels;
use crate::store::SqliteConnection;
use crate::store::devices::{self, NewKey, Pin, Settings, Ssh};
use crate::store::enrolment_tokens::{self, EnrolmentToken};
use crate::store::enrolments::{Enrolment, State};
use crate::store::events::Object;
use crate::store::rentals::device_access;
use crate::store::snapshot::psk_place;

/// The time between two polls of a device. An operator approves within minutes or hours.
const POLL_AFTER_S: u64 = 5;
const SSH_PORT: u16 = 22;

/// A device to be admitted.
pub struct AdmittedDevice<'a> {
    pub name: &'a str,
    /// Labels in addition to the token's. These take precedence.
    pub labels: BTreeMap<String, String>,
    pub key: PublicKey,
    pub ssh_host_key: Option<&'a str>,
}

/// Creates the device, or replaces the keys of the device that the token names.
///
/// # Errors
/// Returns 409 when the name or key is taken, the pool is full, or no endpoint is known.
pub async fn let_in(
    app: &AppState,
    write: &mut ApiTx<'_>,
    token: &EnrolmentToken,
    newcomer: AdmittedDevice<'_>,
) -> Result<HostId, Problem> {
    gateway::endpoint(app, write.tx()).await?;
    let (key, name) = (newcomer.key, newcomer.name.to_owned());
    let (device, kind) = match token.replaces {
        Some(device) => (replace(write, device, &newcomer).await?, "device.replaced"),
        None => (create(write, token, newcomer).await?, "device.created"),
    };
    let psk = PresharedKey::generate();
    let new = NewKey { public: key, sealed_psk: app.store.seal(&psk_place(&key), psk.as_bytes()) };
    let (pools, now) = (app.config.pools(), write.now);
    devices::set_key(write.tx(), (device, devices::DEVICE), new, pools, now)
        .await
        .map_err(|e| refusal(e, None))?;
    let mut data = json!({ "token": IdKind::Token.text(token.id), "public_key": key.to_string() });
    if kind == "device.created" {
        (data["name"], data["tunnel"]) = (json!(name), json!(true));
    }
    write.event(kind, (Object::Device, device), "enrolled", data).await?;
    write.peer(device);
    write.host(device);
    Ok(device)
}

async fn create(
    write: &mut ApiTx<'_>,
    token: &EnrolmentToken,
    newcomer: AdmittedDevice<'_>,
) -> Result<HostId, Problem> {
    let labels =
        Labels::parse(newcomer.labels).and_then(|own| own.or(Labels::parse(token.host_labels.clone())?));
    let settings = Settings {
        name: newcomer.name.to_owned(),
        labels: labels.map_err(|e| Problem::invalid("labels", e.to_string()))?.into_map(),
        profile: token.profile.clone(),
        route: RoutePolicy::Auto,
        direct_address: None,
        ssh: Ssh { port: SSH_PORT, user: token.ssh_user.clone(), pin: pin(newcomer.ssh_host_key) },
        networks: Vec::new(),
        mtu: None,
        notes: String::new(),
    };
    profiles::must_exist(write.tx(), &settings.profile).await?;
    let (id, now) = (ids::new_id(write.now), write.now);
    devices::insert(write.tx(), id, &settings, now).await.map_err(|e| refusal(e, None))?;
    Ok(id)
}

/// Replaces the keys of a device. The replacement has another SSH host key: the one it reports, or
/// the next one met through its tunnel. Everything else stays.
async fn replace(
    write: &mut ApiTx<'_>,
    device: HostId,
    newcomer: &AdmittedDevice<'_>,
) -> Result<HostId, Problem> {
    let mut settings = load(write.tx(), Named::Id(device)).await?.settings;
    settings.ssh.pin = pin(newcomer.ssh_host_key);
    devices::write_settings(write.tx(), device, &settings).await.map_err(|e| refusal(e, None))?;
    let now = write.now;
    enrolment_tokens::revoke_replacements(write.tx(), device, now).await?;
    device_access::replaced(write.tx(), device).await?;
    Ok(device)
}

fn pin(fingerprint: Option<&str>) -> Option<Pin> {
    fingerprint.map(|f| Pin::new(f.to_owned(), "given"))
}

/// Returns the response to a device about its enrolment. It contains no secret.
///
/// # Errors
/// Fails when the store cannot be read.
pub async fn answer(
    app: &AppState,
    conn: &mut SqliteConnection,
    enrolment: &Enrolment,
) -> Result<EnrolAnswer, Problem> {
    let connection = match (enrolment.state, enrolment.host) {
        (State::Approved, Some(host)) => Some(connection(app, conn, host).await?),
        _ => None,
    };
    Ok(EnrolAnswer {
        id: IdKind::Enrolment.text(enrolment.id),
        state: enrolment.state.to_string(),
        name: enrolment.name.clone(),
        reason: enrolment.reason.clone(),
        poll_after_s: POLL_AFTER_S,
        connection,
    })
}

async fn connection(
    app: &AppState,
    conn: &mut SqliteConnection,
    host: HostId,
) -> Result<Connection, Problem> {
    let endpoint = gateway::endpoint(app, conn).await?;
    let device = load(conn, Named::Id(host)).await?;
    let addresses: Vec<IpAddr> = device.tunnel.map(|t| t.addresses).unwrap_or_default();
    let peer = (addresses.as_slice(), device.settings.mtu);
    Ok(wireguard_conf::connection(app, &endpoint, peer, device.settings.ssh.user))
}
