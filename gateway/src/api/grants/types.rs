//! The JSON of grants.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::request::extract::{never_null, present};
use crate::api::types::{Labels, Managed, names};

/// A permission to reach hosts through the gateway, from `from` until `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    pub id: String,
    /// The name in the file of its manager.
    pub name: Option<String>,
    pub source: GrantSource,
    pub target: GrantTarget,
    /// Any of these.
    pub access: Vec<GrantAccess>,
    /// Absent: since it was made.
    pub from: Option<String>,
    /// Not included. Absent: until it is withdrawn.
    pub until: Option<String>,
    #[schema(value_type = names::GrantState)]
    pub state: String,
    /// How many hosts the target selects now. Only in the answer for one grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<i64>,
    pub reason: String,
    /// The user or token that made it; `system` for those that every gateway begins with.
    pub author: String,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    pub withdrawn_at: Option<String>,
    /// The user or token that withdrew it, or removed what it names.
    pub withdrawn_by: Option<String>,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// The source of a grant: exactly one of these. A new `peer` may have the `user` beside it that it must belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrantSource {
    /// One operator (the peer of a person), by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Every operator of a user, by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Every operator of the users with exactly this role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::GrantRoleName>)]
    pub role: Option<String>,
}

/// The destination of a grant: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrantTarget {
    /// `true`: every device, and no host behind a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_devices: Option<bool>,
    /// One device, or one host behind a device, by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Devices and hosts behind devices that have all of these labels, also those added later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Labels>)]
    pub labels: Option<Labels>,
}

/// A protocol, and the ports of the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantAccess {
    #[schema(value_type = names::GrantProtocolName)]
    pub protocol: String,
    /// Ports, and ranges such as `8000-8100`. Of `icmp` none.
    #[serde(default)]
    #[schema(value_type = Vec<names::PortOrRange>)]
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Number(i64),
    Range(String),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The name in the file of the program that manages it.
    pub name: Option<String>,
    pub source: GrantSource,
    pub target: GrantTarget,
    pub access: Vec<GrantAccess>,
    /// RFC 3339; in effect at once when absent.
    pub from: Option<String>,
    /// RFC 3339, not included, at most ten years after its begin; until it is withdrawn when absent.
    pub until: Option<String>,
    #[serde(default)]
    pub reason: String,
}

/// A change of a grant that has neither ended nor been withdrawn. Absent fields stay as they are. Source, target and
/// access are replaced as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrantChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = GrantSource)]
    pub source: Option<GrantSource>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = GrantTarget)]
    pub target: Option<GrantTarget>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<GrantAccess>)]
    pub access: Option<Vec<GrantAccess>>,
    /// RFC 3339; `null`: in effect at once.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<Option<String>>,
    /// RFC 3339, not included; `null`: until it is withdrawn. To end a grant now, withdraw it.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Option<String>>,
}
