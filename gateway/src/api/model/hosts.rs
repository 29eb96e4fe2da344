//! The settings of hosts and services.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::devices::{DeviceSsh, NewSsh, SshChange};
use super::{AlertingSettings, FlappingSettings, Labels, LabelsChange, Managed, NotifySettings};

use crate::api::extract::{never_null, present};

/// The settings of a host; absent timings are the gateway's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostSettings {
    pub id: String,
    pub name: String,
    pub labels: Labels,
    /// The one that it names itself; absent: by the profile rules.
    pub profile: Option<String>,
    /// What it is checked by: each over those before it.
    pub profiles: Vec<String>,
    /// `tunnel`, `direct` or `auto`.
    pub route: String,
    /// The device it stands behind; absent for a device itself.
    pub via: Option<String>,
    /// Its address behind that device.
    pub address: Option<String>,
    pub direct_address: Option<String>,
    pub ssh: DeviceSsh,
    pub interval_s: Option<f64>,
    pub retry_s: Option<f64>,
    pub max_check_attempts: Option<u32>,
    pub timeout_s: Option<f64>,
    /// Silence of this length is expected: asleep, not down.
    pub max_silence_s: Option<f64>,
    /// Of a host that nobody can ask and somebody sends the results of: silence of this length means
    /// that it is down.
    pub freshness_s: Option<f64>,
    /// Of a device: bytes on the wire per UTC day that its checks keep to.
    pub budget_bytes_per_day: Option<u64>,
    /// Names of hosts before this one, beside the device it stands behind: while none of them is
    /// there, it is unreachable.
    pub parents: Vec<String>,
    #[serde(flatten)]
    pub alerting: AlertingSettings,
    /// The limits that its own results are judged by: WARNING leaves it up, CRITICAL means down.
    pub thresholds: Vec<ThresholdSettings>,
    pub notes: String,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    pub version: i64,
}

/// A host behind a device: a NAS, a firewall. A device itself comes by `POST /devices`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHost {
    pub name: String,
    /// The device it stands behind: id or name.
    pub via: String,
    /// Its address there, in one of the networks behind the device.
    pub address: String,
    #[serde(default)]
    pub labels: Labels,
    /// By the profile rules when absent.
    pub profile: Option<String>,
    #[serde(default)]
    pub ssh: NewSsh,
    pub interval_s: Option<f64>,
    pub retry_s: Option<f64>,
    pub max_check_attempts: Option<u32>,
    pub timeout_s: Option<f64>,
    pub max_silence_s: Option<f64>,
    pub freshness_s: Option<f64>,
    #[serde(default)]
    pub thresholds: Vec<ThresholdSettings>,
    #[serde(default)]
    pub notes: String,
}

/// What is absent stays as it is; `null` goes back to the gateway's. Route and addresses of a device
/// are changed by `PATCH /devices/{device}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Laid over those that there are; a label that is `null` is removed.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LabelsChange>)]
    pub labels: Option<Option<LabelsChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub profile: Option<Option<String>>,
    /// Of a host behind a device.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SshChange>)]
    pub ssh: Option<Option<SshChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub interval_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub retry_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub max_check_attempts: Option<Option<u32>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub timeout_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub max_silence_s: Option<Option<f64>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub freshness_s: Option<Option<f64>>,
    /// Of a device.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub budget_bytes_per_day: Option<Option<u64>>,
    /// Ids or names.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub parents: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub volatile: Option<Option<bool>>,
    /// Laid over the former settings.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FlappingSettings>)]
    pub flapping: Option<Option<Map<String, Value>>>,
    /// Laid over the former settings.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NotifySettings>)]
    pub notify: Option<Option<Map<String, Value>>>,
    /// Takes the place of the former limits.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<ThresholdSettings>>)]
    pub thresholds: Option<Option<Vec<ThresholdSettings>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
}

/// How a service differs from the profile. What is absent is as the profile has it; with a `check`
/// it may be a service that the profile lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSettings {
    /// Switches the service off.
    #[serde(default)]
    pub disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_check_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<ThresholdSettings>>,
    /// Silence of this length is UNKNOWN, and told like any hard problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness_s: Option<f64>,
    #[serde(flatten)]
    pub alerting: AlertingSettings,
}

/// What is asked. Which fields belong to it depends on `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckSettings {
    /// `tunnel`, `ping`, `tcp`, `ssh`, `sensor`, `command`, or `passive` and
    /// `heartbeat`: results are sent.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ping`: echo requests, 1 to 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u8>,
    /// `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `sensor`: `disk`, `mounts`, `load`, `memory`, `uptime`, `temperature`, `processes`, `file_age`, `usb`,
    /// `users`, `cpu`, `traffic`, `daily`, `values` or `capture`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// `disk`, `file_age`, `daily`, `values` and `capture`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `temperature`, `processes`, `traffic`; absent: the hottest, all, the one with the default route.
    /// `usb`: `vendor:product`, `class:HH` or a part of the device's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `capture`, `heartbeat`: a picture or run is due so long after the one before; or by `schedule`, or
    /// `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_s: Option<f64>,
    /// `capture`, `heartbeat`: what is due is late (WARNING) for so long, and missed (CRITICAL) from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CaptureSchedule>,
    /// `heartbeat`: the job should have run by this time of day, such as `03:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// With `by`: `mon` to `sun`; every day when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<String>>,
    /// With `by`: when absent, the host's label `timezone`, or UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `command`: runs on the device, by the plugin conventions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// When pictures are due, by local time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureSchedule {
    /// `mon` to `sun`; absent: every day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<String>>,
    /// `06:30`.
    pub from: String,
    /// The last possible time; absent: `from` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_s: Option<f64>,
    /// Such as `Europe/Berlin`; absent: the host's label `timezone`, else UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Limits of one metric, as Nagios ranges.
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
    pub version: i64,
}

/// A metric that there are samples of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesInfo {
    /// Absent: the host check.
    pub service: Option<String>,
    pub label: String,
    pub uom: String,
}

/// What a device cost on the wire: datagrams of both directions with their UDP and IP headers,
/// handshakes and keepalives included.
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
