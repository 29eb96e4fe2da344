//! The types of the API's JSON that several resources share. Each resource has its own types.
//!
//! Domain types never derive serde and are converted to these at the edge. Times are RFC 3339 in
//! UTC, and durations are seconds.

pub mod names;

use std::collections::BTreeMap;

use fleetgate_engine::messages::Threshold;
use fleetgate_probes::range::Range;
use fleetgate_probes::sample;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::access::Role;
use crate::store::managed;

/// Labels of a host: sorted, at most 32, keys `[a-z0-9._/-]{1,63}`, values up to 255 characters.
pub type Labels = BTreeMap<String, String>;
/// A PATCH of labels: a value, or `null` to remove a label.
pub type LabelsChange = BTreeMap<String, Option<String>>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    pub label: String,
    /// `null` if the plugin reported no value.
    pub value: Option<f64>,
    pub uom: String,
    /// A Nagios range.
    pub warn: Option<String>,
    pub crit: Option<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl From<&sample::Metric> for Metric {
    fn from(m: &sample::Metric) -> Self {
        Metric {
            label: m.label.clone(),
            value: m.value,
            uom: m.uom.clone(),
            warn: m.warn.map(|r| r.to_string()),
            crit: m.crit.map(|r| r.to_string()),
            min: m.min,
            max: m.max,
        }
    }
}

/// One page of a list. `next` goes into `?after=` for the next page; absent on the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => RoleName::Viewer,
            Role::Operator => RoleName::Operator,
            Role::Admin => RoleName::Admin,
        }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::Admin => Role::Admin,
        }
    }
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

impl From<&Threshold> for ThresholdSettings {
    fn from(threshold: &Threshold) -> Self {
        let text = |range: Option<Range>| range.map(|r| r.to_string());
        let limits = threshold.limits;
        let metric = threshold.metric.clone();
        ThresholdSettings { metric, warn: text(limits.warn), crit: text(limits.crit) }
    }
}

/// The manager of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Managed {
    /// `api` if it was made by hand, otherwise the program that sent this name in `Fleetgate-Manager`.
    pub managed_by: String,
    /// The user or token that changed it by hand after that program last wrote it.
    pub edited_by: Option<String>,
}

impl From<&managed::Managed> for Managed {
    fn from(managed: &managed::Managed) -> Self {
        Managed { managed_by: managed.by.clone(), edited_by: managed.edited_by.clone() }
    }
}

/// Notification settings of a host or service. An absent field has its default.
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

/// Returns a text of the store that may be empty: empty means none.
pub(crate) fn not_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}
