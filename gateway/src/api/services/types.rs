//! The JSON of services: their states, and how they differ from the profile.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::forecast::Forecast;
use crate::api::acknowledgements::Acknowledgement;
use crate::api::types::{AlertingSettings, Managed, Metric, ThresholdSettings, names};
use crate::store::hosts::ServiceTally;

/// Services by state. Each service is counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceCounts {
    #[schema(minimum = 0)]
    pub ok: i64,
    #[schema(minimum = 0)]
    pub warning: i64,
    #[schema(minimum = 0)]
    pub critical: i64,
    #[schema(minimum = 0)]
    pub unknown: i64,
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Its host or a dependency does not answer.
    #[schema(minimum = 0)]
    pub stale: i64,
    /// Not OK, and acknowledged or in downtime.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub handled: i64,
}

impl From<ServiceTally> for ServiceCounts {
    fn from(t: ServiceTally) -> Self {
        ServiceCounts {
            ok: t.ok,
            warning: t.warning,
            critical: t.critical,
            unknown: t.unknown,
            pending: t.pending,
            stale: t.stale,
            handled: t.handled,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    pub host: String,
    pub host_name: String,
    pub name: String,
    #[schema(value_type = names::CheckKind)]
    pub check: String,
    /// The hard state.
    #[schema(value_type = names::ServiceStateName)]
    pub state: String,
    /// The state of the last result; differs from `state` during retries.
    #[schema(value_type = names::ServiceStateName)]
    pub last_result: String,
    #[schema(value_type = names::StateTypeName)]
    pub state_type: String,
    #[schema(minimum = 1, maximum = 100)]
    pub attempt: i64,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    /// The host is down, or a dependency fails.
    pub stale: bool,
    /// At least one parent of its host is up.
    pub reachable: bool,
    /// The problem is acknowledged.
    pub acknowledged: bool,
    pub acknowledgement: Option<Acknowledgement>,
    /// The open incident that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Its own, or one of its host; also while the device is prepared for a rental, on its way, or in the
    /// maintenance of its rental.
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    #[schema(minimum = 0, maximum = 100)]
    pub flapping_percent: f64,
    /// Since when it has `state`; a problem counts from its first failure.
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub next_check: Option<String>,
    /// A check was requested, and its result is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_requested_at: Option<String>,
    /// The way of the last result; absent before it.
    #[schema(value_type = Option<names::ResultRoute>)]
    pub route: Option<String>,
    /// The outcome of the last check; absent before the first result.
    #[schema(value_type = Option<names::CheckCause>)]
    pub cause: Option<String>,
    /// The tunnel address that was checked; absent if the result did not come through a tunnel.
    pub asked_address: Option<String>,
    /// The result of echoes of two sizes after a stalled or failed connection; absent if none were sent.
    #[schema(value_type = Option<names::PathResult>)]
    pub path: Option<String>,
    pub text: String,
    pub long_text: String,
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub parse_warnings: Vec<String>,
    /// Of `used` of a disk or the memory. Absent if the past supports none, and in the response to a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// The thresholds that the gateway applies, besides those of a plugin.
    pub thresholds: Vec<ThresholdSettings>,
    /// Those without the rental that is active. Absent if it has none for this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_thresholds: Option<Vec<ThresholdSettings>>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub check_interval_s: f64,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub retry_interval_s: f64,
}

/// How a service differs from its profile. An absent field is as in the profile. With a `check` it may be a new
/// service.
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

/// The check of a service. The type decides which fields it takes.
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
    /// Only for the sensors `disk`, `file_age`, `daily`, `values` and `capture`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only for the sensors `temperature`, `processes` and `traffic`. Absent: the hottest, all, the one with the
    /// default route.
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
