//! Profiles, the rules that select them, and the managers of resources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, ServiceSettings, ThresholdSettings};

/// Who manages an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Managed {
    /// `api`: people, by hand; else the program that keeps it as a file says, by the name that it gives
    /// in the header `Fleetgate-Manager`.
    pub managed_by: String,
    /// Who changed it by hand since that program last wrote it.
    pub edited_by: Option<String>,
}

/// What a program manages and somebody else took away, or gave another name. The program keeps it so
/// unless it is told otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    pub id: String,
    /// `profile`, `contact`, `notification_rule`, `device`, `host` or `service`.
    pub kind: String,
    /// Of a service: its host's name, a slash, its own.
    pub name: String,
    /// Absent: it is no more.
    pub renamed_to: Option<String>,
    /// The program that manages it.
    pub managed_by: String,
    pub removed_by: String,
    pub removed_at: String,
}

/// A named set of services. A host gets those that it has the means for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub name: String,
    pub summary: String,
    /// Comes with the program and cannot be changed; extend it instead.
    pub builtin: bool,
    /// Each over those before it, and the profile's own services over all of them.
    pub extends: Vec<String>,
    /// What it adds to those it extends, and how it differs from them.
    pub services: BTreeMap<String, ServiceSettings>,
    /// What comes out, with all that is inherited.
    pub effective: Vec<ProfileService>,
    /// Hosts that are checked by it, be it over profiles that extend it.
    pub hosts: usize,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`.
    pub version: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileService {
    pub name: String,
    /// `tunnel`, `ping`, `tcp`, `ssh`, `sensor`, `command` or `passive`.
    pub check: String,
    /// Where it differs from the host's.
    pub interval_s: Option<f64>,
    pub thresholds: Vec<ThresholdSettings>,
}

/// A whole profile; what is absent is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSettings {
    pub summary: String,
    pub extends: Vec<String>,
    /// By name. With a `check` it may be a service that the extended profiles lack.
    #[schema(value_type = BTreeMap<String, ServiceSettings>)]
    pub services: serde_json::Map<String, serde_json::Value>,
}

/// Which profiles hosts have that name none themselves: those of all rules that match, each over
/// those before it; `default` where none does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileRules {
    pub rules: Vec<ProfileRule>,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`.
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
    pub labels: Labels,
    pub profile: String,
}
