//! Facts about the gateway.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Restore;

/// What a device must know of the gateway, and what an admin wants to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    pub version: String,
    pub public_key: String,
    /// A line for `authorized_keys` on the devices.
    pub ssh_public_key: String,
    /// `host:port` that devices are given. Absent: to be confirmed once, before any configuration
    /// leaves.
    pub endpoint: Option<String>,
    /// Whether the endpoint comes from the settings, and so cannot be changed here.
    pub endpoint_configured: bool,
    /// The UDP port of the tunnels on this machine.
    pub udp_port: u16,
    pub pool_v4: String,
    pub pool_v6: String,
    /// The gateway's own inner addresses.
    pub addresses: Vec<String>,
    pub keepalive_s: u16,
    /// The backup that takes this gateway's place at its next start. Until then nothing else is changed.
    pub restore: Option<Restore>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    /// `host:port` by which devices reach the gateway's UDP port; a host name by preference.
    pub endpoint: String,
}
