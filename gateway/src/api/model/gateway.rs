//! The gateway itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Restore;

/// Keys, addresses and endpoint of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    pub version: String,
    pub public_key: String,
    /// A line for `authorized_keys` on the devices.
    pub ssh_public_key: String,
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
    /// The last keys of handshakes that belong to no device, the newest first; at most 16.
    #[serde(default)]
    pub unknown_keys: Vec<UnknownKey>,
    /// The backup that is restored at the next start. Until then no other change is possible.
    pub restore: Option<Restore>,
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
