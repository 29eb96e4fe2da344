//! Incidents: problems with one cause.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Event, Notification};

/// Problems with one cause: told, acknowledged and closed as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// `i_...`
    pub id: String,
    /// `service`, `host`, `site` (several hosts of one site, or behind one host), `fleet` (a service of many
    /// hosts, wherever they stand) or `gateway`.
    pub scope: String,
    /// `service_failed`, `host_down`, `parent_down`, `site_lost` or `gateway_uplink_lost`.
    pub cause: String,
    /// The cause for people.
    pub text: String,
    /// The label `site` that its hosts share.
    pub site: Option<String>,
    /// `open`, `closed`, or `merged` into another.
    pub state: String,
    pub opened_at: String,
    /// Since when nothing of it is wrong; absent while it is open, and that is two minutes longer.
    pub closed_at: Option<String>,
    pub merged_into: Option<String>,
    /// Who knows of it; absent once that has expired, was taken back, or all was well.
    pub acknowledged_by: Option<IncidentAcknowledgement>,
    /// How many hosts and services of it are not well.
    pub open_members: i64,
    /// How many ever were in it.
    pub members: i64,
}

/// Covers all that is in the incident and what joins it, until the incident is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentAcknowledgement {
    pub author: String,
    pub comment: String,
    pub at: String,
    /// Of each member until that is well; else until its state changes.
    pub sticky: bool,
    pub expires: Option<String>,
}

/// An incident with what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncidentDetails {
    #[serde(flatten)]
    pub incident: Incident,
    /// What is wrong comes first; at most 500.
    pub listed: Vec<IncidentMember>,
    /// The newest first; at most 100.
    pub events: Vec<Event>,
    /// What was told of it or held back, the newest first, at most 100; the rest by
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
    /// Its first failure.
    pub began_at: String,
    pub joined_at: String,
    /// When it was well again, or belonged to something else.
    pub left_at: Option<String>,
}
