//! Contacts, rules, notifications, messages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, LabelsChange, Managed};
use crate::api::extract::{never_null, present};

/// Who is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// `c_...`; the built-in one, which `mail.to` in the settings makes, is called `default`.
    pub id: String,
    pub name: String,
    pub emails: Vec<String>,
    pub webhook_url: Option<String>,
    /// Of its rules' time periods and of its digest: a name such as `Europe/Berlin`.
    pub time_zone: String,
    /// `HH:MM`: when, each day, to be told what is still wrong.
    pub digest_at: Option<String>,
    /// How long a message waits until nothing more belongs to it; absent: the setting.
    pub group_wait_s: Option<f64>,
    #[serde(flatten)]
    pub managed: Managed,
    /// Of the settings; it cannot be changed here, and is told of everything while there is no rule.
    pub built_in: bool,
    pub created_at: Option<String>,
    /// The same number as in the `ETag`.
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewContact {
    pub name: String,
    /// `ops@example.com` or `Ops <ops@example.com>`; at most 32.
    pub emails: Vec<String>,
    /// http or https. Its calls are signed with a secret that is shown once.
    pub webhook_url: Option<String>,
    /// `UTC` when absent.
    pub time_zone: Option<String>,
    pub digest_at: Option<String>,
    pub group_wait_s: Option<f64>,
}

/// What is absent stays as it is; `null` takes away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContactChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
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
    #[schema(value_type = Option<f64>)]
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

/// Which contact is told of which hosts, from which severity on, when, and after how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    pub id: String,
    pub name: String,
    /// By name.
    pub contact: String,
    /// Labels that a host must have, all of them; `*` takes any value; none: every host.
    pub labels: Labels,
    /// `warning`, `unknown` or `critical`: the mildest state that is told. A host that is down is
    /// critical.
    pub severity: String,
    /// Such as `mon-fri 08:00-18:00, sat 09:00-12:00`, in the contact's time zone; absent: always.
    pub period: Option<String>,
    /// Only what lasts longer without an acknowledgement (escalation).
    pub delay_s: f64,
    #[serde(flatten)]
    pub managed: Managed,
    pub created_at: String,
    /// The same number as in the `ETag`.
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRule {
    pub name: String,
    /// Name or id.
    pub contact: String,
    pub labels: Labels,
    /// `warning` when absent.
    pub severity: Option<String>,
    pub period: Option<String>,
    pub delay_s: Option<f64>,
}

/// What is absent stays as it is; `null` takes away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Laid over those that there are; a label that is `null` is removed.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LabelsChange>)]
    pub labels: Option<Option<LabelsChange>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub severity: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub period: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub delay_s: Option<Option<f64>>,
}

/// Something that was to be told, and what became of it for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// `n_...`
    pub id: String,
    /// When it became necessary.
    pub at: String,
    pub host_id: String,
    pub host: String,
    pub service: Option<String>,
    /// What it belongs to.
    pub incident: Option<String>,
    /// `problem`, `recovery`, `reminder`, `flapping_start`, `flapping_end`, `acknowledged`,
    /// `downtime_start`, `downtime_end`, `downtime_cancelled`.
    #[serde(rename = "type")]
    pub kind: String,
    pub state: String,
    pub previous_notified_state: String,
    /// Since when the state holds.
    pub since: String,
    /// The output of the check that decided, 1,024 bytes at most.
    pub cause: String,
    /// The output is longer: the service (or host) shows all of it while it is current.
    #[serde(default)]
    pub truncated: bool,
    /// Who did what it tells, and why, such as an acknowledgement.
    pub note: String,
    /// `sent` (to somebody), `sending`, `waiting`, `given_up`, `held` (told to nobody), or `new`.
    pub outcome: String,
    pub outcomes: Vec<NotificationOutcome>,
}

/// What became of a notification for one contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotificationOutcome {
    /// `sent`, `sending`, `given_up`, `waiting` or `held`.
    pub outcome: String,
    /// Absent: nobody.
    pub contact: Option<String>,
    /// The message it went with.
    pub message: Option<String>,
    /// `email` or `webhook`.
    pub channel: Option<String>,
    /// Of a webhook only the server.
    pub address: Option<String>,
    /// Of the last step, or of the next one where it is under way; what waits for the end of a downtime or
    /// the like does so since then.
    pub at: Option<String>,
    /// A stable name: why it waits (`group`, `delay`, `period`, `cap`, or what began meanwhile: `downtime`,
    /// `host_down`, `unreachable`, `not_current`, `parent_in_doubt`, `flapping`, `acknowledged`) or was held
    /// back.
    pub reason: String,
    /// The same for people.
    pub text: String,
    /// What shows it: a server's answer, the acknowledgement, the downtime; of what waits, its rule.
    pub evidence: String,
    pub attempts: i64,
}

/// A message to one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `m_...`
    pub id: String,
    pub contact: String,
    pub channel: String,
    /// Of a webhook only the server.
    pub address: String,
    /// `notices`, `digest` or `test`.
    pub kind: String,
    /// `waiting`, `sent` or `given_up`.
    pub outcome: String,
    /// How many notifications it tells.
    pub notifications: i64,
    pub created_at: String,
    pub attempts: i64,
    /// While it waits.
    pub next_attempt: Option<String>,
    pub last_error: Option<String>,
    pub sent_at: Option<String>,
    pub given_up_at: Option<String>,
}

/// What a test has put into the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Messages {
    pub items: Vec<Message>,
}
