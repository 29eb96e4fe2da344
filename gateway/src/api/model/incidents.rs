//! Incidents: problems with one cause.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Event, Notification, names};

/// Problems with one cause. They are notified, acknowledged and closed together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// `i_...`
    pub id: String,
    #[schema(value_type = names::IncidentScope)]
    pub scope: String,
    #[schema(value_type = names::IncidentCause)]
    pub cause: String,
    /// The cause as a text.
    pub text: String,
    /// The label `site` that its hosts share.
    pub site: Option<String>,
    #[schema(value_type = names::IncidentState)]
    pub state: String,
    pub opened_at: String,
    /// When its last problem ended; absent while it is open. It stays open for two minutes longer.
    pub closed_at: Option<String>,
    pub merged_into: Option<String>,
    /// The acknowledgement; absent after it expired, was removed, or all members recovered.
    pub acknowledged_by: Option<IncidentAcknowledgement>,
    /// How many of its hosts and services have a problem.
    #[schema(minimum = 0)]
    pub open_members: i64,
    /// How many hosts and services were ever part of it.
    #[schema(minimum = 0)]
    pub members: i64,
}

/// The acknowledgement of all members and of those that join, until the incident closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentAcknowledgement {
    pub author: String,
    pub comment: String,
    pub at: String,
    /// Until each member recovers; otherwise until its state changes.
    pub sticky: bool,
    pub expires: Option<String>,
}

/// An incident with its members, events and notifications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentDetails {
    #[serde(flatten)]
    pub incident: Incident,
    /// Members, those with a problem first; at most 500.
    pub listed: Vec<IncidentMember>,
    /// The newest first; at most 100.
    pub events: Vec<Event>,
    /// Its notifications, suppressed ones included, the newest first, at most 100. All of them:
    /// `/notifications?object=i_...`.
    pub notifications: Vec<Notification>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentMember {
    /// Absent: the gateway itself.
    pub host: Option<String>,
    pub host_name: String,
    pub site: Option<String>,
    /// Absent: the host itself.
    pub service: Option<String>,
    /// The output of its last check, 1,024 bytes at most. Empty when the host or service is gone.
    pub output: String,
    /// Its first failure.
    pub began_at: String,
    pub joined_at: String,
    /// When it recovered, or left the incident.
    pub left_at: Option<String>,
}
