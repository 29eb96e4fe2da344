//! Contacts, rules, notifications, messages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, LabelsChange, Managed, names};
use crate::api::request::extract::{never_null, present};

/// Who receives notifications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// `c_...`; the built-in one, which `mail.to` in the settings makes, is called `default`.
    pub id: String,
    pub name: String,
    pub emails: Vec<String>,
    pub webhook_url: Option<String>,
    /// The time zone of its rules and its digest, such as `Europe/Berlin`.
    pub time_zone: String,
    /// `HH:MM`: the time of the daily digest of open problems.
    pub digest_at: Option<String>,
    /// How long notifications are collected into one message; absent: the setting of the gateway.
    #[schema(minimum = 0, maximum = 60)]
    pub group_wait_s: Option<f64>,
    #[serde(flatten)]
    pub managed: Managed,
    /// From the settings. It cannot be changed here, and receives all notifications while there is no rule.
    pub built_in: bool,
    pub created_at: Option<String>,
    /// The same number as in the `ETag`.
    #[schema(minimum = 0)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewContact {
    pub name: String,
    /// `ops@example.com` or `Ops <ops@example.com>`; at most 32.
    pub emails: Vec<String>,
    /// http or https. Calls are signed with a secret that is shown once.
    pub webhook_url: Option<String>,
    /// `UTC` when absent.
    pub time_zone: Option<String>,
    pub digest_at: Option<String>,
    #[schema(minimum = 0, maximum = 60)]
    pub group_wait_s: Option<f64>,
}

/// What is absent stays as it is; `null` clears a field.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContactChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub emails: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub webhook_url: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub time_zone: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest_at: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 60)]
    pub group_wait_s: Option<Option<f64>>,
}

/// A contact, and the secret of its webhook if it was made by this call.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ContactWithSecret {
    #[serde(flatten)]
    pub contact: Contact,
    /// Shown once: what `X-Fleetgate-Signature` is made with. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
}

/// Which contact is notified of which hosts, from which severity on, when, and after which delay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    pub id: String,
    pub name: String,
    /// By name.
    pub contact: String,
    /// Labels that a host must have, all of them; `*` takes any value; none: every host.
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    #[schema(value_type = names::SeverityName)]
    pub severity: String,
    /// Such as `mon-fri 08:00-18:00, sat 09:00-12:00`, in the contact's time zone; absent: always.
    pub period: Option<String>,
    /// Only problems that last longer without an acknowledgement (escalation).
    #[schema(minimum = 0, maximum = 2678400)]
    pub delay_s: f64,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRule {
    pub name: String,
    /// Name or id.
    pub contact: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// `warning` when absent.
    #[schema(value_type = Option<names::SeverityName>)]
    pub severity: Option<String>,
    pub period: Option<String>,
    #[schema(minimum = 0, maximum = 2678400)]
    pub delay_s: Option<f64>,
}

/// What is absent stays as it is; `null` clears a field.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub contact: Option<String>,
    /// Merged with the present labels; a label that is `null` is removed.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::LabelsChange>)]
    pub labels: Option<Option<LabelsChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::SeverityName>)]
    pub severity: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub period: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2678400)]
    pub delay_s: Option<Option<f64>>,
}

/// A notification, and what became of it for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// `n_...`
    pub id: String,
    /// When it became necessary.
    pub at: String,
    pub host_id: String,
    pub host: String,
    pub service: Option<String>,
    /// The incident that it belongs to.
    pub incident: Option<String>,
    #[serde(rename = "type")]
    #[schema(value_type = names::NotificationType)]
    pub kind: String,
    #[schema(value_type = names::ObjectState)]
    pub state: String,
    #[schema(value_type = names::ObjectState)]
    pub previous_notified_state: String,
    /// Since when the state holds.
    pub since: String,
    /// The output of the check that decided, 1,024 bytes at most.
    pub cause: String,
    /// The output is longer. The service (or host) has all of it while it is current.
    #[serde(default)]
    pub truncated: bool,
    /// The author and comment of an acknowledgement or downtime.
    pub note: String,
    /// The best of the outcomes; `new` before any.
    #[schema(value_type = names::NotificationResult)]
    pub outcome: String,
    pub outcomes: Vec<NotificationOutcome>,
}

/// What became of a notification for one contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotificationOutcome {
    #[schema(value_type = names::ContactResult)]
    pub outcome: String,
    /// Absent if no contact was selected.
    pub contact: Option<String>,
    /// The message it went with.
    pub message: Option<String>,
    #[schema(value_type = Option<names::ChannelName>)]
    pub channel: Option<String>,
    /// Of a webhook only the server.
    pub address: Option<String>,
    /// When it was sent or suppressed, when the next attempt is due, or since when it waits.
    pub at: Option<String>,
    /// Why it waits or is suppressed; absent otherwise.
    #[schema(value_type = Option<names::NotificationReason>)]
    pub reason: Option<String>,
    /// The reason as a text; of what was sent, the rule.
    pub text: String,
    /// What shows it: the answer of a server, the acknowledgement, the downtime; of what waits, its rule.
    pub evidence: String,
    #[schema(minimum = 0)]
    pub attempts: i64,
}

/// A message to one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `m_...`
    pub id: String,
    pub contact: String,
    #[schema(value_type = names::ChannelName)]
    pub channel: String,
    /// Of a webhook only the server.
    pub address: String,
    #[schema(value_type = names::MessageContent)]
    pub kind: String,
    #[schema(value_type = names::MessageResult)]
    pub outcome: String,
    /// How many notifications it contains.
    #[schema(minimum = 0)]
    pub notifications: i64,
    pub created_at: String,
    #[schema(minimum = 0)]
    pub attempts: i64,
    /// While it waits.
    pub next_attempt: Option<String>,
    pub last_error: Option<String>,
    pub sent_at: Option<String>,
    pub given_up_at: Option<String>,
}

/// The messages of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Messages {
    pub items: Vec<Message>,
}
