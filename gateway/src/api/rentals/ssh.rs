//! SSH for renters: which devices can give it, and the certificates with which renters log in.
//!
//! A certificate is made when it is asked for, and nothing of it is stored. It opens nothing by itself: the device asks
//! for the name of a rental and a key that it has at that moment, and the tunnel of the renter reaches it only in the
//! window.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::messages::{GrantAccess, GrantProtocol};
use fleetgate_engine::rental::access::excess;
use fleetgate_engine::rental::device_access::{Device, Hindrance, Rented, hindrance};
use fleetgate_engine::time::Wall;
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::words;
use super::addresses;
use super::change::is_open;
use super::device_upkeep;
use crate::api::AppState;
use crate::api::request::extract::Path;
use crate::api::request::ids::{self, IdKind};
use crate::api::response::problem::Problem;
use crate::api::types::names;
use crate::identity::ssh_ca::{self, Holder, NotSigned, Signed};
use crate::rental_access::too_many_keys;
use crate::store::rentals::device_access;
use crate::store::rentals::devices::{self as renting, SshServer};
use crate::store::rentals::renters::{self, Renter};
use crate::store::rentals::{self as stored, Rental};

/// The port of SSH that `known_hosts` does not write.
const SSH_PORT: u16 = 22;

/// How renters log in to a rented device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalSsh {
    /// The account of the device.
    pub account: String,
    /// The TCP port of the device.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// The name of the device for the renters.
    pub name: String,
    /// The addresses at which the renters reach the device, IPv4 first.
    pub addresses: Vec<String>,
    /// A line for the `known_hosts` of renters, with name and addresses. Empty: the gateway has not logged in to the
    /// device yet, and has only the fingerprint of its key.
    pub known_hosts: String,
    /// How the device recognises renters; `null` until it has said so.
    #[schema(value_type = Option<names::RentalSshMode>)]
    pub mode: Option<String>,
    /// Why the renters cannot log in, or not yet as they are to; `null`: nothing is known to be wrong. It is for
    /// operators: a person reads it in `delayed`.
    pub not_granted_reason: Option<String>,
    /// One for each SSH key of the renters who are admitted.
    pub certificates: Vec<RentalCertificate>,
}

/// The SSH key of a renter, and its certificate for one rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalCertificate {
    /// The id of the renter.
    pub renter: String,
    /// The public key.
    pub key: String,
    /// The text of the file `KEY-cert.pub`. Absent in the mode `keys`: the device takes the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// In whole seconds, never before the rental begins.
    pub valid_from: String,
    /// Not included.
    pub valid_until: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show))
}

/// How renters log in to the device of a rental, with certificates for the keys of the renters who are admitted.
///
/// It can be read before the rental begins, so that the renters can prepare. The certificates are valid in its window,
/// and are made anew by each call: read them again after a change of the end or the device. The device takes the
/// certificate of a key as long as the rental admits a renter who has the key.
///
/// 409 `ssh_not_granted`: the rental has no SSH, or its device has no account for renters any more. 409 `rental_over`:
/// it has ended.
#[utoipa::path(get, path = "/rentals/{rental}/ssh", operation_id = "show_rental_ssh", tag = "rentals",
    security(("token" = ["rentals:operator"])), params(("rental" = String, Path, description = "id")),
    responses((status = 200, body = RentalSsh)))]
async fn show(State(app): State<AppState>, Path(rental): Path<String>) -> Result<Json<RentalSsh>, Problem> {
    let id = IdKind::Rental.parse(&rental)?;
    let mut conn = app.store.reader().await?;
    let found = stored::find(&mut conn, id).await?;
    let found = found.ok_or_else(|| IdKind::Rental.unknown(&rental))?;
    let renters = renters::of_customer(&mut conn, found.customer).await?;
    drop(conn);
    let login = login(&app, &found, &renters).await?.ok_or_else(|| not_granted(&found))?;
    Ok(Json(RentalSsh { not_granted_reason: reason(&app, &found).await?, ..login }))
}

/// Says what keeps renters from logging in to a device, for operators.
async fn reason(app: &AppState, rental: &Rental) -> Result<Option<String>, Problem> {
    let now = crate::clock::now();
    let mut conn = app.store.reader().await?;
    let kept_up = device_access::of_device(&mut conn, rental.device).await?;
    let rented = device_access::rented_by(&mut conn, rental.id).await?;
    drop(conn);
    let (Some(kept_up), Some(rented)) = (kept_up, rented) else { return Ok(None) };
    let times = app.handle.rental_times();
    Ok(match times.decide(now, |known| hindrance(&kept_up.state, &rented, known, now)) {
        Some(Hindrance::Blocked) => Some(format!("{} is blocked", rental.device_name)),
        Some(Hindrance::Other(obstacle)) => {
            let failure = kept_up.failure.or_else(|| too_many(&kept_up.state, &rented));
            Some(device_upkeep::in_words(obstacle, failure.as_deref()))
        }
        None => too_many(&kept_up.state, &rented),
    })
}

fn too_many(device: &Device, rented: &Rented) -> Option<String> {
    too_many_keys(rented.keys.len(), device.mode?)
}

/// Says how these renters log in to the device of a rental. `None`: they cannot.
///
/// # Errors
/// Returns 409 when the rental has ended, and fails when the database cannot be read.
pub(super) async fn login(
    app: &AppState,
    rental: &Rental,
    renters: &[Renter],
) -> Result<Option<RentalSsh>, Problem> {
    let now = crate::clock::wall();
    is_open(rental, now)?;
    let mut conn = app.store.reader().await?;
    let settings = renting::settings(&mut conn, rental.device).await?;
    let Some(account) = settings.ssh_account.filter(|_| rental.ssh) else { return Ok(None) };
    let server = renting::ssh_server(&mut conn, rental.device).await?;
    drop(conn);
    Ok(Some(RentalSsh {
        account,
        port: server.port,
        name: rental.name.clone(),
        addresses: rental.alias(now).map(addresses).unwrap_or_default(),
        known_hosts: known_hosts(app, rental, &server, now),
        certificates: certificates(app, rental, renters, settings.ssh_mode.as_deref())?,
        mode: settings.ssh_mode,
        not_granted_reason: None,
    }))
}

fn not_granted(rental: &Rental) -> Problem {
    let id = IdKind::Rental.text(rental.id);
    let detail = if rental.ssh {
        no_account(&rental.device_name)
    } else {
        format!("{id} gives no SSH: PATCH /rentals/{id} {{\"ssh\": true}} does")
    };
    Problem::conflict("ssh_not_granted", detail)
}

fn no_account(device: &str) -> String {
    format!(
        "{device} has no account for renters, or its helper has not answered yet: `enrol.sh --rental-user USER` on the \
         device sets both up"
    )
}

/// Says why renters cannot log in to a device by a rental with this access. `port`: where they log in, if it has an
/// account for them.
pub(super) fn not_possible(device: &str, port: Option<u16>, access: &[GrantAccess]) -> Option<String> {
    let Some(port) = port else { return Some(no_account(device)) };
    let login = GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![port..=port] };
    excess(&[login], access)?;
    let words = words(access);
    Some(format!(
        "renters log in to {device} at tcp {port}, and the rental gives access to {words}: add tcp {port}"
    ))
}

/// Returns the line with all names by which renters reach the device.
fn known_hosts(app: &AppState, rental: &Rental, server: &SshServer, now: Wall) -> String {
    let Some(key) = &server.host_key else { return String::new() };
    let full = app.config.dns.as_ref().map(|dns| format!("{}.{}", rental.name, dns.suffix.as_str()));
    let aliases = rental.alias(now).map(addresses).unwrap_or_default();
    let names = std::iter::once(rental.name.clone()).chain(full).chain(aliases);
    let names: Vec<String> = names.map(|name| known_name(&name, server.port)).collect();
    format!("{} {key}\n", names.join(","))
}

fn known_name(name: &str, port: u16) -> String {
    if port == SSH_PORT { name.to_owned() } else { format!("[{name}]:{port}") }
}

fn certificates(
    app: &AppState,
    rental: &Rental,
    renters: &[Renter],
    mode: Option<&str>,
) -> Result<Vec<RentalCertificate>, Problem> {
    let admitted = renters.iter().filter(|renter| rental.admits(renter.id, renter.customer));
    let keys = admitted.flat_map(|renter| renter.ssh_keys.iter().map(move |key| (renter, key.as_str())));
    keys.map(|(renter, key)| certificate(app, rental, (renter, key), mode)).collect()
}

fn certificate(
    app: &AppState,
    rental: &Rental,
    (renter, key): (&Renter, &str),
    mode: Option<&str>,
) -> Result<RentalCertificate, Problem> {
    let Signed { line, from, until } = signed(app, rental, renter, key)?;
    Ok(RentalCertificate {
        renter: IdKind::Renter.text(renter.id),
        key: key.to_owned(),
        certificate: Some(line).filter(|_| mode != Some(renting::SSH_KEYS)),
        valid_from: ids::time(from),
        valid_until: ids::time(until),
    })
}

fn signed(app: &AppState, rental: &Rental, renter: &Renter, key: &str) -> Result<Signed, Problem> {
    let principal = ssh_ca::principal(rental.id, key);
    let rental_id = IdKind::Rental.text(rental.id);
    let renter = IdKind::Renter.text(renter.id);
    let key = PublicKey::from_openssh(key)
        .map_err(|error| Problem::internal(anyhow::anyhow!("an SSH key of {renter}: {error}")))?;
    let key_id = format!("rental {rental_id} renter {renter}");
    let holder = Holder { key_id: &key_id, principal: &principal };
    app.ssh_ca.sign(&key, holder, rental.life.window).map_err(|error| match error {
        NotSigned::TooShort => Problem::conflict("ssh_not_granted", format!("{rental_id}: {error}")),
        NotSigned::Refused(error) => {
            Problem::internal(anyhow::anyhow!("a certificate of {renter} for {rental_id}: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renters_log_in_where_the_device_has_an_account_and_the_rental_leads_to_its_port() {
        let tcp = |port: u16| GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![port..=port] };
        let icmp = GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() };
        assert_eq!(not_possible("cam", Some(22), &[icmp.clone(), tcp(22)]), None);
        assert_eq!(not_possible("cam", Some(2_222), &[tcp(2_222)]), None);
        let without = not_possible("cam", None, &[tcp(22)]).unwrap();
        assert!(without.contains("cam has no account") && without.contains("--rental-user"), "{without}");
        let elsewhere = not_possible("cam", Some(22), &[icmp, tcp(443)]).unwrap();
        assert!(elsewhere.contains("at tcp 22") && elsewhere.contains("icmp, tcp 443"), "{elsewhere}");
    }

    #[test]
    fn another_port_is_part_of_the_name() {
        assert_eq!(known_name("fd72::1", 22), "fd72::1");
        assert_eq!(known_name("fd72::1", 2_222), "[fd72::1]:2222");
    }
}
