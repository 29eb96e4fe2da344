//! Settings of hosts and services.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::devices::{DeviceSsh, NewSsh, SshChange};
use super::{AlertingSettings, FlappingSettings, Labels, LabelsChange, Managed, NotifySettings, names};

use crate::api::request::extract::{never_null, present};

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
    /// Of a host with passive results: without a result for so long it is down.
    #[schema(minimum = 0.1, maximum = 34560000)]
    pub freshness_s: Option<f64>,
    /// Of a device: the bytes on the wire per UTC day that its checks keep to.
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
    /// By the profile rules when absent.
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

/// What is absent stays as it is; `null` restores the default of the gateway. Route and addresses of a device are
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
    /// Of a host behind a device.
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

/// How a service differs from its profile. What is absent is as in the profile. With a `check` it may be a new service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSettings {
    /// Switches the service off.
    #[serde(default)]
    pub disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.1, maximum = 604800)]
    pub interval_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.1, maximum = 604800)]
    pub retry_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.1, maximum = 604800)]
    pub timeout_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_check_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<ThresholdSettings>>,
    /// Without a result for so long the service is UNKNOWN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.1, maximum = 34560000)]
    pub freshness_s: Option<f64>,
    #[serde(flatten)]
    pub alerting: AlertingSettings,
}

/// What a service checks. The type decides which fields it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckSettings {
    #[serde(rename = "type")]
    #[schema(value_type = names::CheckType)]
    pub kind: String,
    /// Of `ping`: the number of echo requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 20)]
    pub count: Option<u8>,
    /// Of `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// Of `sensor`: what it measures.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::SensorName>)]
    pub sensor: Option<String>,
    /// Of the sensors `disk`, `file_age`, `daily`, `values` and `capture`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of the sensors `temperature`, `processes` and `traffic`. Absent: the hottest, all, the one with the default route.
    /// `usb`: `vendor:product`, `class:HH` or a part of the device's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of `capture` (at most 604,800) and `heartbeat`: a picture or run is due so long after the one before; or use
    /// `schedule` or `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 5356800)]
    pub every_s: Option<f64>,
    /// Of `capture` (at most 86,400) and `heartbeat`: what is due is late (WARNING) for so long, then missed (CRITICAL).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 604800)]
    pub grace_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CaptureSchedule>,
    /// Of `heartbeat`: the job is due by this time of day, such as `03:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// With `by`; every day when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<names::WeekdayName>>)]
    pub days: Option<Vec<String>>,
    /// With `by`: when absent, the host's label `timezone`, or UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Of `command`: a command line that runs on the device and follows the plugin conventions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// When pictures are due, by local time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureSchedule {
    /// Every day when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<names::WeekdayName>>)]
    pub days: Option<Vec<String>>,
    /// `06:30`.
    pub from: String,
    /// The last possible time; absent: `from` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 86400)]
    pub every_s: Option<f64>,
    /// Such as `Europe/Berlin`; absent: the host's label `timezone`, else UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Thresholds of one metric, as Nagios ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ThresholdSettings {
    pub metric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crit: Option<String>,
}

/// An override as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceOverride {
    pub service: String,
    #[serde(flatten)]
    pub settings: ServiceSettings,
    #[serde(flatten)]
    pub managed: Managed,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A metric with samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesInfo {
    /// Absent: the host check.
    pub service: Option<String>,
    pub label: String,
    pub uom: String,
}

/// The bytes of a device on the wire: datagrams of both directions with UDP and IP headers, including handshakes and
/// keepalives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// The newest first; a day without a datagram is absent.
    pub days: Vec<TrafficDay>,
}

/// One day of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficDay {
    /// `2026-03-01`.
    pub day: String,
    /// From the device.
    pub rx_bytes: u64,
    /// To the device.
    pub tx_bytes: u64,
    pub bytes: u64,
}
