//! Notification settings, acknowledgements, downtimes, and passive results.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Host, Labels, Managed, Service, names};
use crate::api::FieldError;
use crate::api::request::extract::{never_null, present};

/// Notification settings of a host or service. What is absent is as usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertingSettings {
    /// Notifies every failed result in a hard state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volatile: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flapping: Option<FlappingSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<NotifySettings>,
}

/// Percent of weighted changes among the last 21 results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlappingSettings {
    /// `true` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// At or below it flapping ends; 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub low: Option<f64>,
    /// Above it flapping begins; 30 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub high: Option<f64>,
    /// Results in these states do not count as a change. None when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<names::AnyState>>)]
    pub ignore: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotifySettings {
    /// Seconds between reminders; 0 or absent: no reminders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2678400)]
    pub interval_s: Option<f64>,
    /// A problem that ends sooner is not notified.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2678400)]
    pub delay_s: Option<f64>,
    /// All when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<names::AlertState>>)]
    pub states: Option<Vec<String>>,
    /// When absent: `problem`, `recovery`, `reminder`, `flapping_start` and `flapping_end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<names::NotificationType>>)]
    pub types: Option<Vec<String>>,
}

/// An acknowledgement of a problem.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewAcknowledgement {
    /// Until the recovery (of an incident: of each member); otherwise until the state changes.
    pub sticky: bool,
    /// RFC 3339; absent: does not expire.
    pub expires: Option<String>,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledgement {
    pub id: String,
    pub host: String,
    /// Absent: the host itself.
    pub service: Option<String>,
    pub sticky: bool,
    pub expires: Option<String>,
    /// The user or token.
    pub author: String,
    pub comment: String,
    pub created_at: String,
    /// The incident that was acknowledged, if it was not the host or service itself.
    #[serde(default)]
    pub incident: Option<String>,
}

/// Planned work: checks continue, and notifications are suppressed. For one host by its path, or for all hosts with
/// certain labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewDowntime {
    /// Hosts that have all of these labels, also those added later.
    #[schema(value_type = Option<names::Labels>)]
    pub labels: Option<Labels>,
    /// Only this service; absent: the hosts and all their services.
    pub service: Option<String>,
    /// RFC 3339; now when absent.
    pub start: Option<String>,
    /// RFC 3339, not included.
    pub end: Option<String>,
    /// `false`: flexible. The first failure between start and end begins it, for `duration_s`. `true` when absent.
    pub fixed: Option<bool>,
    #[schema(minimum = 1, maximum = 31622400)]
    pub duration_s: Option<f64>,
    /// Instead of start and end: a window that recurs.
    pub recurrence: Option<Recurrence>,
    /// The name in the file of the program that manages it.
    pub name: Option<String>,
    pub comment: String,
}

/// A window that recurs, by the local time of a time zone. When clocks are set back, a start in the repeated hour is
/// its first occurrence, an end its second. When clocks are set forward, a start in the skipped hour is the moment of the
/// change, and an end in it is moved by the length of the change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recurrence {
    /// `day`, `sun`, `mon-fri`, `1st`, `last day`, `2nd tue`, `last fri`, or several with commas
    /// between them. A month without that day is skipped.
    pub every: String,
    /// A time of day such as `02:00`.
    pub from: String,
    /// Not included; on the next day if it is not later than `from`. `24:00` is the end of the day.
    pub to: String,
    /// Such as `Europe/Vienna`; when absent the label `timezone` of the host, otherwise UTC.
    pub time_zone: Option<String>,
    /// The first and the last date on which a window begins.
    pub first_date: Option<String>,
    pub last_date: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Downtime {
    pub id: String,
    /// Absent: selected by `labels`.
    pub host: Option<String>,
    pub host_name: Option<String>,
    #[schema(value_type = Option<names::Labels>)]
    pub labels: Option<Labels>,
    pub service: Option<String>,
    /// Of a recurring one: the window that is open or comes next.
    pub start: String,
    pub end: String,
    pub fixed: bool,
    #[schema(minimum = 1, maximum = 31622400)]
    pub duration_s: Option<f64>,
    #[serde(default)]
    pub recurrence: Option<Recurrence>,
    /// The name in the file of its manager.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(flatten)]
    pub managed: Managed,
    /// The user or token that planned it.
    pub author: String,
    pub comment: String,
    pub created_at: String,
    pub cancelled_at: Option<String>,
    /// When the first failure began a flexible downtime; absent before, and of all others.
    #[serde(default)]
    pub begun_at: Option<String>,
    /// The same number as in the `ETag`.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A change of a downtime that is not over. What is absent stays as it is. Host, labels and service stay: for others,
/// plan another downtime.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DowntimeChange {
    /// RFC 3339.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub start: Option<String>,
    /// RFC 3339, not included, in the future. To end a downtime now, cancel it.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub end: Option<String>,
    /// Of a flexible downtime. What has begun lasts as long as it was planned then.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = f64, minimum = 1, maximum = 31622400)]
    pub duration_s: Option<f64>,
    /// Merged with the present recurrence.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RecurrenceChange)]
    pub recurrence: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub comment: Option<Option<String>>,
}

/// The fields of a recurrence that change.
#[derive(ToSchema)]
pub struct RecurrenceChange {
    pub every: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub time_zone: Option<String>,
    pub first_date: Option<String>,
    pub last_date: Option<String>,
}

/// A passive result: the exit status and output of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResult {
    /// 0 to 3, anything else is UNKNOWN. Of a host 0 and 1 mean up, the rest down.
    pub exit_status: u32,
    /// Text, and performance data after a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was measured: RFC 3339, or seconds since 1970; now when absent.
    pub timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Timestamp {
    Text(String),
    Seconds(f64),
}

/// The state that a result led to, or why it was ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Submitted {
    /// Set if a newer result is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::IgnoredReason>)]
    pub ignored: Option<String>,
    /// It was taken before, and nothing changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

/// Results of hosts and services.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResults {
    /// At most 1,000.
    #[schema(max_items = 1_000)]
    pub results: Vec<ResultOf>,
}

/// One result of many.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultOf {
    /// Id or name.
    pub host: String,
    /// Absent: a result of the host itself.
    pub service: Option<String>,
    /// 0 to 3, anything else is UNKNOWN. Of a host 0 and 1 mean up, the rest down.
    pub exit_status: u32,
    /// Text, and performance data after a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was measured: RFC 3339, or seconds since 1970; now when absent.
    pub timestamp: Option<Timestamp>,
}

/// An outcome for each result, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedResults {
    pub results: Vec<ResultOutcome>,
}

/// What became of one result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultOutcome {
    #[schema(value_type = names::SubmitResult)]
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ResultRefusal>,
}

/// Why one result was refused: the error that a call with this result alone would get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultRefusal {
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Stable: programs branch on this.
    #[schema(value_type = names::ErrorCode)]
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}
