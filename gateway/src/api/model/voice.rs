//! Notifications of checkables, the operators' reactions, and results from clients.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Host, Labels, Managed, Service};
use crate::api::FieldError;

/// How an object differs from the usual in what it tells; what is absent is as usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertingSettings {
    /// Tells every hard failure anew.
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
    /// At or below it, it has calmed down; 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Above it, it flaps; 30 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Results in these states count as if nothing had changed: `ok`, `warning`, `critical`, `unknown`;
    /// of hosts `up` and `down`. None when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotifySettings {
    /// Between reminders; 0 or absent: a problem is told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<f64>,
    /// A problem that is over sooner is told to nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<f64>,
    /// `warning`, `critical`, `unknown`; `down` for hosts. All when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// `problem`, `recovery`, `reminder`, `flapping_start`, `flapping_end` (these when absent),
    /// `acknowledged`, `downtime_start`, `downtime_end`, `downtime_cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
}

/// Somebody knows of a problem.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewAcknowledgement {
    /// Until it is well (of an incident: each member); else until the state changes.
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
    /// Who it was, by the credential.
    pub author: String,
    pub comment: String,
    pub created_at: String,
    /// It was given to this incident, not to the object itself.
    #[serde(default)]
    pub incident: Option<String>,
}

/// Work is done on something: it is watched, and nobody is told. For one host by its path, or for a
/// selection by labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewDowntime {
    /// Hosts that have all of these, also those that come later.
    pub labels: Option<Labels>,
    /// Only this service of each; absent: the hosts and all their services.
    pub service: Option<String>,
    /// RFC 3339; now when absent.
    pub start: Option<String>,
    /// RFC 3339, not included.
    pub end: Option<String>,
    /// `false`: the first failure between start and end begins it, for `duration_s`. `true` when
    /// absent.
    pub fixed: Option<bool>,
    pub duration_s: Option<f64>,
    /// In place of start and end: a window that comes again.
    pub recurrence: Option<Recurrence>,
    /// Of a program that keeps downtimes as a file says: what it is called there.
    pub name: Option<String>,
    pub comment: String,
}

/// A window that comes again, by the clock on the wall of a time zone. Where clocks change: a begin in
/// the hour that comes twice is the first of its two moments, an end in it the second; a begin in the
/// hour that does not come is the moment of the jump, an end in it comes as long after the jump as it
/// lies within that hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recurrence {
    /// `day`, `sun`, `mon-fri`, `1st`, `last day`, `2nd tue`, `last fri`, or several with commas
    /// between them. A month without that day is left out.
    pub every: String,
    /// A time of day such as `02:00`.
    pub from: String,
    /// Not included; on the day after where it is not later than `from`. `24:00` is the day's end.
    pub to: String,
    /// Such as `Europe/Vienna`; when absent the one that the host's label `timezone` names, else UTC.
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
    pub labels: Option<Labels>,
    pub service: Option<String>,
    /// Of one that comes again: of the window that is open or comes next.
    pub start: String,
    pub end: String,
    pub fixed: bool,
    pub duration_s: Option<f64>,
    #[serde(default)]
    pub recurrence: Option<Recurrence>,
    /// In the file of its manager.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(flatten)]
    pub managed: Managed,
    /// Who planned it, by the credential.
    pub author: String,
    pub comment: String,
    pub created_at: String,
    pub cancelled_at: Option<String>,
}

/// A result, as a plugin would have ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResult {
    /// 0 to 3; of a host 0 and 1 mean that it is up.
    pub exit_status: u32,
    /// Text, and performance data behind a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was so: RFC 3339, or seconds since 1970; now when absent.
    pub timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Timestamp {
    Text(String),
    Seconds(f64),
}

/// What became of a result: the state that it led to, or why it was ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Submitted {
    /// `older`: a newer result is known.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// 0 to 3; of a host 0 and 1 mean that it is up.
    pub exit_status: u32,
    /// Text, and performance data behind a `|`.
    #[serde(default)]
    pub output: String,
    /// When it was so: RFC 3339, or seconds since 1970; now when absent.
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
    /// `taken`: it is on disk; `repeated`: it was taken before, and nothing changed; `older`: ignored, because a
    /// newer one is known; `refused`: see `problem`.
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ResultRefusal>,
}

/// Why one result was refused: what a call with this result alone is answered with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultRefusal {
    pub status: u16,
    /// Stable: programs branch on this.
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}
