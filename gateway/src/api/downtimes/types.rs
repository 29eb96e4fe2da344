//! The JSON of downtimes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::request::extract::{never_null, present};
use crate::api::types::{Labels, Managed, names};

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
    /// For a recurring downtime: the window that is open or comes next.
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

/// A change of a downtime that is not over. An absent field stays as it is. Host, labels and service stay: for
/// others, plan another downtime.
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
    /// Only a flexible downtime has it. A downtime that has begun lasts as long as it was planned then.
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
#[expect(dead_code, reason = "only its schema is used")]
pub struct RecurrenceChange {
    pub every: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub time_zone: Option<String>,
    pub first_date: Option<String>,
    pub last_date: Option<String>,
}
