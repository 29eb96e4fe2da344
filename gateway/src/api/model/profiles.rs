//! Profiles, profile rules, and managers of objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, ServiceSettings, ThresholdSettings, names};

/// The manager of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Managed {
    /// `api` if it was made by hand, otherwise the program that sent this name in `Fleetgate-Manager`.
    pub managed_by: String,
    /// The user or token that changed it by hand after that program last wrote it.
    pub edited_by: Option<String>,
}

/// An object of a program that somebody else removed or renamed. The program does not create it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    pub id: String,
    #[schema(value_type = names::RemovedKind)]
    pub kind: String,
    /// Of a service: `HOST/SERVICE`.
    pub name: String,
    /// Absent if it was removed.
    pub renamed_to: Option<String>,
    /// The program that manages it.
    pub managed_by: String,
    pub removed_by: String,
    pub removed_at: String,
}

/// A named set of services. A host gets those that it can be checked by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub name: String,
    pub summary: String,
    /// Built in and read-only: extend it instead.
    pub builtin: bool,
    /// A later one overrides those before it; the own services override all of them.
    pub extends: Vec<String>,
    /// The services that it adds or changes.
    pub services: BTreeMap<String, ServiceSettings>,
    /// All its services, inherited ones included.
    pub effective: Vec<ProfileService>,
    /// Hosts with this profile, or with one that extends it.
    pub hosts: usize,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`; 0 of a built-in profile.
    #[schema(minimum = 0)]
    pub version: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileService {
    pub name: String,
    #[schema(value_type = names::CheckType)]
    pub check: String,
    /// If it differs from that of the host.
    #[schema(minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<f64>,
    pub thresholds: Vec<ThresholdSettings>,
}

/// A whole profile; what is absent is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSettings {
    pub summary: String,
    pub extends: Vec<String>,
    /// By name. With a `check` it may be a service that no extended profile has.
    #[schema(value_type = BTreeMap<String, ServiceSettings>)]
    pub services: serde_json::Map<String, serde_json::Value>,
}

/// The profiles of hosts without a profile of their own: those of all matching rules, a later one overriding those
/// before it; `default` if no rule matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileRules {
    pub rules: Vec<ProfileRule>,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// The whole list, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfileRules {
    pub rules: Vec<ProfileRule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileRule {
    /// A host must have all of them; `*` takes any value. Empty: every host.
    #[serde(default)]
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    pub profile: String,
}
