//! The JSON of the report of a rental. It has ids and no personal data: it stays when the customer is erased.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::reports::Availability;
use crate::api::types::names;

/// The report of a rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalReport {
    /// The id of the rental.
    pub rental: String,
    /// The id of its booking.
    pub booking: String,
    /// The id of the customer.
    pub customer: String,
    /// `false`: the rental or its turnaround goes on, and the numbers are those so far. `true`: it never changes.
    #[serde(rename = "final")]
    pub is_final: bool,
    pub made_at: String,
    #[schema(value_type = names::RentalState)]
    pub state: String,
    /// For display.
    pub time_zone: Option<String>,
    /// The window that was booked at first.
    pub booked: RentalTimes,
    /// The window after all changes. An end before its time does not shorten it.
    pub window: RentalTimes,
    /// When the customer had a device, until `made_at` at the latest. Null: never, or not yet.
    pub used: Option<RentalTimes>,
    /// How long the customer waited for the device within the window, until `made_at` at the latest.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub delayed_s: f64,
    /// Null when its window alone ends it.
    #[schema(value_type = Option<names::RentalEndReason>)]
    pub end_reason: Option<String>,
    /// In the order of time, at most 1,000.
    pub changes: Vec<RentalReportChange>,
    /// The devices that the customer had, in the order of time.
    pub devices: Vec<RentalReportDevice>,
    /// While the customer had the device: it was down, or a service of it was critical or unknown, as far as that is
    /// known. In the order of devices, services and time.
    pub outages: Vec<RentalOutage>,
    /// Further outages, which are not listed.
    #[schema(minimum = 0)]
    pub outages_left_out: u64,
    /// The incidents of the devices while the customer had them, in the order of devices and time.
    #[serde(default)]
    pub incidents: Vec<RentalIncident>,
    /// Further incidents, which are not listed.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub incidents_left_out: u64,
    pub traffic: RentalTraffic,
    /// The intervals from which the times above are computed.
    pub intervals: Vec<RentalInterval>,
    /// Further intervals, which are counted above and not listed.
    #[schema(minimum = 0)]
    pub intervals_left_out: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalTimes {
    pub from: String,
    /// Not included.
    pub until: String,
}

/// Something that was done with the rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalReportChange {
    pub at: String,
    /// The user or token; `system` for the gateway.
    pub author: String,
    #[schema(value_type = names::RentalChangeName)]
    pub change: String,
    /// Of `changed`: the names of what is different.
    pub changed: Vec<String>,
    /// `h_...`, after the change.
    pub device: String,
    pub device_name: String,
    /// After the change.
    pub window: RentalTimes,
}

/// A device while the customer had it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalReportDevice {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    pub from: String,
    /// Not included.
    pub until: String,
    /// That of the device itself.
    pub availability: Availability,
    /// By name. Services of which nothing was recorded at that time are absent.
    pub services: Vec<RentalReportService>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalReportService {
    pub service: String,
    pub availability: Availability,
}

/// A time in which a device or a service of it was not available, maintenance included. It is cut to the time in which
/// the customer had the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalOutage {
    /// `h_...`
    pub device: String,
    /// Null for the device itself.
    pub service: Option<String>,
    #[schema(value_type = names::ObjectState)]
    pub state: String,
    pub from: String,
    /// Not included.
    pub until: String,
}

/// An incident that the device or a service of it was part of. It names no other host: `GET /incidents/{incident}` says
/// more to those who may read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalIncident {
    /// `i_...`
    pub incident: String,
    /// `h_...`
    pub device: String,
    #[schema(value_type = names::IncidentScope)]
    pub scope: String,
    #[schema(value_type = names::IncidentCause)]
    pub cause: String,
    /// When the first problem of the device or its services in it began, cut to the time in which the customer had the
    /// device.
    pub from: String,
    /// When the last one ended, cut likewise. Not included.
    pub until: String,
}

/// What renters sent to the device of the rental and received from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalTraffic {
    #[schema(minimum = 0)]
    pub sent_packets: u64,
    #[schema(minimum = 0)]
    pub sent_bytes: u64,
    #[schema(minimum = 0)]
    pub received_packets: u64,
    #[schema(minimum = 0)]
    pub received_bytes: u64,
}

/// A state, a downtime or an outage, cut to the time in which the customer had the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalInterval {
    /// `h_...`; null for the gateway.
    pub device: Option<String>,
    /// Null for the device itself and for the gateway.
    pub service: Option<String>,
    #[schema(value_type = names::IntervalSeries)]
    pub series: String,
    /// Of `state` the state; null otherwise.
    #[schema(value_type = Option<names::ObjectState>)]
    pub value: Option<String>,
    pub from: String,
    /// Not included.
    pub until: String,
}
