//! The JSON of devices: identity and tunnel.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::request::extract::{never_null, present};
use crate::api::types::{Labels, LabelsChange, Managed, names};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    pub id: String,
    pub name: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// Set on the device; absent if the profile rules select it.
    pub profile: Option<String>,
    #[schema(value_type = names::RouteName)]
    pub route: String,
    /// Absent: a device without a tunnel.
    pub tunnel: Option<DeviceTunnel>,
    /// Its name or address on the Internet.
    pub direct_address: Option<String>,
    pub ssh: DeviceSsh,
    /// Networks behind the device.
    pub networks: Vec<String>,
    /// The largest inner packet that the device takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
    pub notes: String,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceTunnel {
    pub public_key: String,
    /// Since when it has this key.
    pub keyed_at: String,
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceSsh {
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// Absent: there is no login, and checks that need one are off.
    pub user: Option<String>,
    /// The pinned host key as `SHA256:...`.
    pub pin: Option<String>,
    /// How the key became the pinned one.
    #[schema(value_type = Option<names::PinSource>)]
    pub pin_source: Option<String>,
    /// The type of the pinned key, such as `ssh-ed25519`; absent until the server has proved to have it.
    pub pin_type: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    pub name: String,
    #[serde(default)]
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// The profile rules decide when it is absent.
    pub profile: Option<String>,
    /// The device's own key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
    /// `false`: outside of the VPN, checked at its `direct_address`. `true` when absent.
    pub tunnel: Option<bool>,
    #[schema(value_type = Option<names::RouteName>)]
    pub route: Option<String>,
    pub direct_address: Option<String>,
    #[serde(default)]
    pub ssh: NewSsh,
    #[serde(default)]
    pub networks: Vec<String>,
    /// The largest inner packet that the device takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
    #[serde(default)]
    pub notes: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewSsh {
    /// 22 when absent.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    pub user: Option<String>,
    /// The host key to pin: a line of `known_hosts`, a public key, or `SHA256:...`.
    pub host_key: Option<String>,
}

/// A JSON merge patch (RFC 7396): what is absent stays as it is, `null` clears a field.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// Merged with the present labels; a label that is `null` is removed.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::LabelsChange>)]
    pub labels: Option<Option<LabelsChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub profile: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::RouteName>)]
    pub route: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub direct_address: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SshChange>)]
    pub ssh: Option<Option<SshChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub networks: Option<Option<Vec<String>>>,
    /// Holds for the next packet. The configuration of the device needs the same value.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1280, maximum = 1420)]
    pub mtu: Option<Option<u16>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SshChange {
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    pub port: Option<Option<u16>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<Option<String>>,
}

/// A device with what is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceWithCredentials {
    pub device: Device,
    /// Absent for a device without a tunnel, and when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Shown once and never stored in clear text. They prove to be the device: keep them secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    /// Absent if the device made its own key pair.
    pub private_key: Option<String>,
    pub preshared_key: String,
    /// The text of a WireGuard configuration.
    pub conf: String,
    /// The configuration as a QR code: text for a terminal. Absent without a private key.
    pub qr_text: Option<String>,
    /// The same as an SVG image.
    pub qr_svg: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewCredentials {
    /// The peer's own new key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
}

/// New keys of a device.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewDeviceCredentials {
    /// The device's own new key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
    /// Also during a rental, which is interrupted until the new configuration is installed.
    pub force: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The host key to pin from now on: `SHA256:...`, a public key, or a line of
    /// `known_hosts`.
    pub host_key: String,
}
