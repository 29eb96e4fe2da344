//! The JSON of the settings of hosts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::devices::{DeviceSsh, NewSsh, SshChange};
use crate::api::request::extract::{never_null, present};
use crate::api::types::{
    AlertingSettings, FlappingSettings, Labels, LabelsChange, Managed, NotifySettings, ThresholdSettings,
    names,
};

/// The settings of a host; absent timings are the gateway's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostSettings {
    pub id: String,
    pub name: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// Set on the host; absent if the profile rules select it.
    pub profile: Option<String>,
    /// The profiles in effect. A later one overrides those before it.
    pub profiles: Vec<String>,
    #[schema(value_type = names::RouteName)]
    pub route: String,
    /// The device that the host is behind; absent for a device.
    pub via: Option<String>,
    /// Its address behind that device.
    pub address: Option<String>,
    pub direct_address: Option<String>,
    pub ssh: DeviceSsh,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<f64>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub retry_s: Option<f64>,
    #[schema(minimum = 1, maximum = 100)]
    pub max_check_attempts: Option<u32>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub timeout_s: Option<f64>,
    /// Silence of this length is expected: asleep, not down.
    #[schema(minimum = 0.1, maximum = 2678400)]
    pub max_silence_s: Option<f64>,
    /// For a host with passive results: without a result for so long it is down.
    #[schema(minimum = 0.1, maximum = 34560000)]
    pub freshness_s: Option<f64>,
    /// For a device: the bytes on the wire per UTC day that its checks keep to.
    #[schema(minimum = 10000, maximum = 10000000000000i64)]
    pub budget_bytes_per_day: Option<u64>,
    /// Names of parent hosts, besides the device that it is behind. While all of them are down, the host is
    /// unreachable.
    pub parents: Vec<String>,
    #[serde(flatten)]
    pub alerting: AlertingSettings,
    /// Thresholds of the results of the host itself. WARNING leaves it up, CRITICAL means down.
    pub thresholds: Vec<ThresholdSettings>,
    pub notes: String,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A host behind a device, such as a NAS. Devices are added with `POST /devices`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHost {
    pub name: String,
    /// The device that the host is behind: id or name.
    pub via: String,
    /// Its address there, in one of the networks behind the device.
    pub address: String,
    #[serde(default)]
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// The profile rules decide when it is absent.
    pub profile: Option<String>,
    #[serde(default)]
    pub ssh: NewSsh,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<f64>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub retry_s: Option<f64>,
    #[schema(minimum = 1, maximum = 100)]
    pub max_check_attempts: Option<u32>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub timeout_s: Option<f64>,
    #[schema(minimum = 0.1, maximum = 2678400)]
    pub max_silence_s: Option<f64>,
    #[schema(minimum = 0.1, maximum = 34560000)]
    pub freshness_s: Option<f64>,
    #[serde(default)]
    pub thresholds: Vec<ThresholdSettings>,
    #[serde(default)]
    pub notes: String,
}

/// An absent field stays as it is; `null` restores the default of the gateway. Route and addresses of a device are
/// changed with `PATCH /devices/{device}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostChange {
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
    /// Only a host behind a device has it.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub address: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SshChange>)]
    pub ssh: Option<Option<SshChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.1, maximum = 604800)]
    pub retry_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100)]
    pub max_check_attempts: Option<Option<u32>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.1, maximum = 604800)]
    pub timeout_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.1, maximum = 2678400)]
    pub max_silence_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.1, maximum = 34560000)]
    pub freshness_s: Option<Option<f64>>,
    /// Of a device.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 10000, maximum = 10000000000000i64)]
    pub budget_bytes_per_day: Option<Option<u64>>,
    /// Ids or names.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub parents: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub volatile: Option<Option<bool>>,
    /// Merged with the present settings.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FlappingSettings>)]
    pub flapping: Option<Option<Map<String, Value>>>,
    /// Merged with the present settings.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NotifySettings>)]
    pub notify: Option<Option<Map<String, Value>>>,
    /// Replaces the present thresholds.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<ThresholdSettings>>)]
    pub thresholds: Option<Option<Vec<ThresholdSettings>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
}
