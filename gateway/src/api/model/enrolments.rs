//! Enrolment: tokens, pending devices, and the calls of a device.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, names};
use crate::api::request::extract::present;

/// A token that enrols devices. Its secret was shown when it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    pub id: String,
    pub label: String,
    /// The labels of its devices.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// Absent: by the profile rules.
    pub profile: Option<String>,
    /// The account that the enrolment script gives the gateway's SSH key to.
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// The device whose key and SSH pin are swapped.
    pub replaces: Option<String>,
    /// Absent: no limit.
    #[schema(minimum = 0, maximum = 1000000)]
    pub uses_left: Option<i64>,
    pub expires_at: Option<String>,
    pub created_by: String,
    pub created_at: String,
    pub revoked_at: Option<String>,
    pub last_used_at: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewEnrolmentToken {
    pub label: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// By the profile rules when absent.
    pub profile: Option<String>,
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// How many devices it enrols; 1 when absent, `null` for no limit.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1000000)]
    pub uses: Option<Option<i64>>,
    /// 7 days when absent, `null` for no end.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 316224000)]
    pub expires_in_s: Option<Option<i64>>,
}

/// A token with its secret, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentTokenWithSecret {
    pub token: EnrolmentToken,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What to run on the device, as root. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why the command works only on the machine of the gateway; absent if it works elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The enrolment of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    pub id: String,
    #[schema(value_type = names::EnrolmentState)]
    pub state: String,
    /// As the device asked; as approved after that.
    pub name: String,
    pub public_key: String,
    /// The SSH host key that the device sent, as `SHA256:...`.
    pub ssh_host_key: Option<String>,
    pub token: String,
    pub token_label: String,
    /// The device that it would replace.
    pub replaces: Option<String>,
    /// The device that was added.
    pub device: Option<String>,
    pub remote_address: String,
    pub reason: String,
    pub created_at: String,
    pub decided_at: Option<String>,
    pub decided_by: Option<String>,
    pub expires_at: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approval {
    /// A name other than the one that the device asked for.
    pub name: Option<String>,
    /// In addition to those of the token; these win.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rejection {
    /// Shown to the device.
    pub reason: String,
}

/// The request of a device. Its only secret is the token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    pub token: String,
    /// The name of the device. A replacement keeps the name of its predecessor.
    pub name: String,
    pub public_key: String,
    /// SHA-256, in hexadecimal, of the secret that the device uses to poll.
    pub poll_hash: String,
    /// A public key line of the device's SSH server.
    pub ssh_host_key: Option<String>,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The answer to a device. It contains no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAnswer {
    pub id: String,
    #[schema(value_type = names::EnrolmentState)]
    pub state: String,
    pub name: String,
    pub reason: String,
    /// Seconds to wait before the next poll.
    pub poll_after_s: u64,
    /// Set after the approval.
    pub connection: Option<Connection>,
}

/// The WireGuard configuration of a device, and the SSH key of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    pub public_key: String,
    pub endpoint: String,
    pub addresses: Vec<String>,
    pub allowed_ips: Vec<String>,
    pub keepalive_s: u16,
    pub mtu: u16,
    /// A line for `authorized_keys`.
    pub ssh_public_key: String,
    /// The account for this key.
    pub ssh_user: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Psk {
    pub preshared_key: String,
}
