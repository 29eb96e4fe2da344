//! Enrolment: tokens, the queue, and the requests and responses of devices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Labels;
use crate::api::extract::present;

/// A token that lets devices in. Its secret was shown when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    pub id: String,
    pub label: String,
    /// What its devices get.
    pub labels: Labels,
    /// Absent: by the profile rules.
    pub profile: Option<String>,
    /// The account that the enrolment script gives the gateway's SSH key to.
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// The device whose key and SSH pin are swapped.
    pub replaces: Option<String>,
    /// Absent: no limit.
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
    pub labels: Labels,
    /// By the profile rules when absent.
    pub profile: Option<String>,
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// How many devices it lets in; 1 when absent, `null` for no limit.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub uses: Option<Option<i64>>,
    /// 7 days when absent, `null` for no end.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
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
    /// For people: why the command works on the gateway's machine alone. Absent where it works
    /// elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A device's request to be let in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    pub id: String,
    /// `awaiting_approval`, `approved`, `rejected` or `expired`.
    pub state: String,
    /// As the device claims; as decided once approved.
    pub name: String,
    pub public_key: String,
    /// `SHA256:...` of the device's SSH host key, as it says.
    pub ssh_host_key: Option<String>,
    pub token: String,
    pub token_label: String,
    /// The device that it would replace.
    pub replaces: Option<String>,
    /// The device that came of it.
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
    /// Another name than the claimed one.
    pub name: Option<String>,
    /// Beside the token's; these win.
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rejection {
    /// The device's owner reads this.
    pub reason: String,
}

/// What a device sends. It holds no secret but the token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    pub token: String,
    /// What the device is to be called. Of one that takes the place of another not heeded: it keeps that name.
    pub name: String,
    pub public_key: String,
    /// SHA-256, in hexadecimal, of the secret that the device made to ask again with.
    pub poll_hash: String,
    /// A public key line of the device's SSH server.
    pub ssh_host_key: Option<String>,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a device gets to know. It holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAnswer {
    pub id: String,
    /// `awaiting_approval`, `approved`, `rejected` or `expired`.
    pub state: String,
    pub name: String,
    pub reason: String,
    /// How long to wait before asking again.
    pub poll_after_s: u64,
    /// Present once approved.
    pub connection: Option<Connection>,
}

/// What a device's WireGuard configuration says of the gateway, and whom to let log in.
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
    /// The account that it is meant for.
    pub ssh_user: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Psk {
    pub preshared_key: String,
}
