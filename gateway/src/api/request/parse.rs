//! Converts values of the API to valid ones. All wrong fields are named at once.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use fleetgate_engine::messages::{MTU_RANGE, RoutePolicy};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{PublicKey, SshPublicKey};
use ipnet::IpNet;

use crate::api::AppState;
use crate::api::response::problem::{FieldError, Problem};
use crate::api::types;
use crate::names::{self, Labels, Name};
use crate::store::addresses::Pools;
use crate::store::{devices, zones};

/// Networks behind one device. A site has a few.
const MAX_NETWORKS: usize = 16;
/// Characters of notes, about a page.
const MAX_NOTES: usize = 4_096;
/// Characters of a token's label.
const MAX_TITLE: usize = 255;
/// The longest requested duration, ten years.
const LONGEST_S: i64 = 10 * 366 * 86_400;
/// `SHA256:` and 43 characters of base64.
const FINGERPRINT_LEN: usize = 50;

/// Collects the errors of a request.
#[derive(Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    /// Returns the value, or records an error for this field and returns `None`.
    pub fn take<T>(&mut self, field: &str, value: Result<T, impl Display>) -> Option<T> {
        value.map_err(|e| self.0.push(FieldError { field: field.to_owned(), detail: e.to_string() })).ok()
    }

    /// # Errors
    /// Returns 422 with every wrong field.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(self.0)) }
    }
}

/// Applies values that were given and are valid.
pub struct Setter<'a>(pub &'a mut Fields);

impl Setter<'_> {
    pub fn to<T, E: std::fmt::Display>(&mut self, slot: &mut T, field: &str, given: Option<Result<T, E>>) {
        if let Some(value) = given.and_then(|value| self.0.take(field, value)) {
            *slot = value;
        }
    }
}

pub fn name(text: &str) -> Result<String, names::BadName> {
    Name::parse(text).map(|n| n.to_string())
}

pub fn labels(map: types::Labels) -> Result<types::Labels, names::BadName> {
    Labels::parse(map).map(Labels::into_map)
}

/// Checks the labels of a host. Its time zone must exist, because its schedules would otherwise run
/// in UTC.
pub fn host_labels(map: types::Labels) -> Result<types::Labels, String> {
    let labels = labels(map).map_err(|e| e.to_string())?;
    match labels.get(zones::LABEL) {
        Some(name) if zones::of(&labels).is_none() => {
            Err(format!("{}={name}: the name of a time zone such as Europe/Vienna is expected", zones::LABEL))
        }
        _ => Ok(labels),
    }
}

pub fn route(name: &str) -> Result<RoutePolicy, &'static str> {
    devices::route_named(name).ok_or("tunnel, direct or auto is expected")
}

pub fn ssh_port(port: u16) -> Result<u16, &'static str> {
    if port == 0 { Err("a port between 1 and 65535 is expected") } else { Ok(port) }
}

/// Reads the inner MTU of a peer.
pub fn mtu(bytes: u16) -> Result<u16, String> {
    if MTU_RANGE.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
    Err(format!(
        "{bytes} is no inner MTU: a number from {least}, which IPv6 needs, to {most}, which fits into a packet of \
         1500 bytes with the headers of WireGuard, is expected"
    ))
}

pub fn login(text: &str) -> Result<String, &'static str> {
    let wanted = "a login name is expected: a-z 0-9 _ . and -, at most 32 characters";
    if names::is_login(text) { Ok(text.to_owned()) } else { Err(wanted) }
}

/// Reads a line of `known_hosts`, a public key, or its fingerprint.
pub fn host_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    if let Some(hash) = text.strip_prefix("SHA256:") {
        let base64 = hash.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
        if text.len() == FINGERPRINT_LEN && base64 {
            return Ok(text.to_owned());
        }
        return Err("a fingerprint is SHA256: and 43 characters, as `ssh-keygen -l` prints it".into());
    }
    text.parse::<SshPublicKey>().map(|key| key.fingerprint()).map_err(|e| e.to_string())
}

pub fn notes(text: String) -> Result<String, String> {
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.chars().count() > MAX_NOTES || text.chars().any(control) {
        return Err(format!("at most {MAX_NOTES} characters of text are expected"));
    }
    Ok(text)
}

pub fn title(text: String) -> Result<String, String> {
    if text.chars().count() > MAX_TITLE || text.chars().any(char::is_control) {
        return Err(format!("one line of at most {MAX_TITLE} characters is expected"));
    }
    Ok(text)
}

/// Reads networks behind a device. None may hide one of the gateway's pools.
pub fn networks(texts: &[String], pools: Pools) -> Result<Vec<IpNet>, String> {
    if texts.len() > MAX_NETWORKS {
        return Err(format!("at most {MAX_NETWORKS} networks are expected"));
    }
    texts.iter().map(|text| network(text, pools)).collect()
}

fn network(text: &str, pools: Pools) -> Result<IpNet, String> {
    let net = plausible(text)?;
    let overlap = |pool: IpNet| pool.contains(&net) || net.contains(&pool);
    if overlap(pools.v4.into()) || overlap(pools.v6.into()) {
        return Err(format!("{text}: this overlaps the gateway's own pool of addresses"));
    }
    Ok(net)
}

/// Reads a network without comparing it with the gateway's own addresses.
pub fn plausible(text: &str) -> Result<IpNet, String> {
    let net: IpNet =
        text.parse().map_err(|_| format!("{text:?}: a prefix such as 192.168.1.0/24 is expected"))?;
    let net = net.trunc();
    let first: IpAddr = net.network();
    if first.is_multicast() || first.is_loopback() || net.prefix_len() == 0 {
        return Err(format!("{text}: no network behind a device looks like this"));
    }
    Ok(net)
}

/// Returns the end of a duration in seconds that starts now.
pub fn expiry(seconds: i64, now: Wall) -> Result<Wall, String> {
    if !(1..=LONGEST_S).contains(&seconds) {
        return Err(format!("seconds between 1 and {LONGEST_S} are expected"));
    }
    Ok(now + Duration::from_secs(seconds.unsigned_abs()))
}

/// Reads a calendar time, RFC 3339.
pub fn moment(text: &str) -> Result<Wall, String> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|at| Wall::from_millis(at.as_millisecond()))
        .map_err(|_| "a time such as 2026-03-10T13:03:22Z is expected".to_owned())
}

/// Reads seconds since 1970. A time in the future comes from a clock that is ahead and is accepted.
pub fn unix_seconds(seconds: f64) -> Result<Wall, String> {
    // A number beyond the range of milliseconds becomes the largest one.
    let is_time = seconds >= 0.0;
    is_time
        .then(|| Wall::from_millis((seconds * 1_000.0) as i64))
        .ok_or_else(|| "seconds since 1970, or a time such as 2026-03-10T13:03:22Z, are expected".to_owned())
}

/// Reads a time in the future.
pub fn future(text: &str, now: Wall) -> Result<Wall, String> {
    moment(text).and_then(|at| if at > now { Ok(at) } else { Err("a time to come is expected".to_owned()) })
}

/// Reads a public key that may become a peer's.
pub fn public_key(app: &AppState, text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.parse().map_err(|e| format!("{e}"))?;
    if key == app.identity.public_key {
        return Err("this is the gateway's own key: take the device's".into());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Pools {
        Pools { v4: "172.24.0.0/14".parse().unwrap(), v6: "fd00::/64".parse().unwrap() }
    }

    #[test]
    fn networks_behind_a_device_hide_no_pool() {
        assert_eq!(network("192.168.1.7/24", pools()).unwrap().to_string(), "192.168.1.0/24");
        assert_eq!(network("2001:db8:1::/48", pools()).unwrap().to_string(), "2001:db8:1::/48");
        for bad in [
            "172.25.0.0/16",
            "172.16.0.0/12",
            "0.0.0.0/0",
            "::/0",
            "fd00::/16",
            "224.0.0.0/4",
            "x",
            "1.2.3.4",
        ] {
            assert!(network(bad, pools()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_key_comes_as_key_or_fingerprint() {
        let key = fleetgate_keys::SshKey::generate("x").public();
        for text in [key.to_string(), key.fingerprint(), format!("cam1.example {key}")] {
            assert_eq!(host_key(&text).unwrap(), key.fingerprint());
        }
        for bad in ["", "SHA256:abc", "MD5:aa:bb", "ssh-ed25519 AAAA"] {
            assert!(host_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let mut fields = Fields::default();
        fields.take("name", name("UPPER"));
        fields.take("route", route("sideways"));
        assert_eq!(fields.take("ssh.port", ssh_port(22)), Some(22));
        let problem = fields.finish().unwrap_err();
        assert!(problem.to_string().starts_with("invalid: name: a name has 1 to 63"), "{problem}");
    }
}
