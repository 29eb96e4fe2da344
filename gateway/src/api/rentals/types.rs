//! The JSON of rentals, bookings and customers, and of when devices are free.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::grants::GrantAccess;
use crate::api::request::extract::{never_null, present};
use crate::api::types::{Labels, names};

/// A person or organisation that rents devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Customer {
    pub id: String,
    /// The name that the client gave the customer, such as the number in its own database.
    pub external_ref: Option<String>,
    pub name: String,
    pub contacts: Vec<CustomerContact>,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// How a customer is reached. The gateway sends nothing there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CustomerContact {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCustomer {
    /// At most 128 printable characters without blanks; unique among customers.
    pub external_ref: Option<String>,
    #[serde(default)]
    pub name: String,
    /// At most 16, each with an e-mail address or a phone number.
    #[serde(default)]
    pub contacts: Vec<CustomerContact>,
}

/// The answer to a new customer. It has no personal data, so that none is kept for a repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedCustomer {
    pub id: String,
    #[schema(minimum = 1)]
    pub version: i64,
}

/// Absent fields stay as they are. Contacts are replaced as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CustomerChange {
    /// `null`: none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub external_ref: Option<Option<String>>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<CustomerContact>)]
    pub contacts: Option<Vec<CustomerContact>>,
}

/// The booking that a customer made with one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Booking {
    pub id: String,
    /// The id of the customer.
    pub customer: String,
    pub external_ref: Option<String>,
    /// Until then it occupies its devices without being confirmed. Absent: it is confirmed.
    pub hold_until: Option<String>,
    /// For display.
    pub time_zone: Option<String>,
    /// Absent when there are none, and when the call was a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The client's own. Absent when there is none, and when the call was a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Metadata>)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// In the order of the items.
    pub rentals: Vec<Rental>,
    /// The user or token that made it.
    pub author: String,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBooking {
    /// The id or the `external_ref` of the customer.
    pub customer: String,
    /// At most 128 printable characters without blanks; unique among bookings.
    pub external_ref: Option<String>,
    /// At most 50. Each becomes a rental, or none does.
    pub items: Vec<NewBookingItem>,
    /// RFC 3339 with an offset. Until then it occupies its devices without being confirmed.
    pub hold_until: Option<String>,
    /// The name of a time zone, such as `Europe/Vienna`, for display.
    pub time_zone: Option<String>,
    #[serde(default)]
    pub notes: String,
    /// The client's own.
    #[serde(default)]
    #[schema(value_type = names::Metadata)]
    pub metadata: BTreeMap<String, String>,
    /// `true`: decide, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// One device in one window. Either `device` selects it, or `labels`, `profile` or both.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBookingItem {
    /// Its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Any rentable device that has all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Labels>)]
    pub labels: Option<Labels>,
    /// Any rentable device that has this profile, by itself or by the profile rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// RFC 3339 with an offset; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// RFC 3339 with an offset, not included.
    pub until: String,
    /// If the device is not handed over this many seconds after `from`, another device with the same `labels` and
    /// `profile` takes its place. Not with `device`; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 2678400)]
    pub other_device_after_s: Option<f64>,
    /// What the renters call the device: at most 63 of a-z, 0-9 and -; unique among the rentals of the customer.
    /// `device-1` or the next free number when absent. It should say nothing of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The protocols and ports that the renters reach. All that the device allows when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Vec<GrantAccess>>,
    /// `true`: the renters may log in to the account of the device for renters. The access must have its SSH port.
    #[serde(default)]
    pub ssh: bool,
    /// The ids of the renters who are admitted. All of the customer when absent, also those added later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renters: Option<Vec<String>>,
    /// Bytes that the gateway forwards for the rental, in both directions and with IP headers. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000000000000000i64)]
    pub allowance_bytes: Option<i64>,
    /// `true`: the renters reach nothing any more when the allowance is used.
    #[serde(default)]
    pub cut_at_allowance: bool,
    /// Who gets mail about problems of the device while the rental is active; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub contacts: Vec<RentalContact>,
    /// Thresholds that services of the device have while the rental is active; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub thresholds: Vec<RentalThreshold>,
    /// When the device is in maintenance within the window; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub maintenance: Vec<RentalMaintenance>,
}

/// A time within the window of a rental in which its device is in maintenance, as in a downtime. It ends with the rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RentalMaintenance {
    /// RFC 3339 with an offset.
    pub from: String,
    /// RFC 3339 with an offset, not included.
    pub until: String,
    /// For people, in one line. Absent when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A threshold that a service of the device has while the rental is active, in place of its own for this metric. Without
/// ranges, its own does not count. A service that the device does not have is passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RentalThreshold {
    pub service: String,
    pub metric: String,
    /// WARNING outside of this Nagios range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<String>,
    /// CRITICAL outside of this Nagios range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crit: Option<String>,
}

/// Someone who gets mail about problems of the device of a rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RentalContact {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An address such as `ada@example.org`.
    pub email: String,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BookingChange {
    /// `null` confirms the booking.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hold_until: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub time_zone: Option<Option<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
    /// Replaced as a whole.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Metadata>)]
    pub metadata: Option<Option<BTreeMap<String, String>>>,
}

/// The result that a booking would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BookingPlan {
    /// In the order of the items.
    pub rentals: Vec<PlannedRental>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedRental {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    pub from: String,
    /// Not included.
    pub until: String,
    /// With the preparation of the device.
    pub occupied_from: String,
    /// With its turnaround.
    pub occupied_until: String,
}

/// A device in a window of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rental {
    pub id: String,
    /// The id of its booking.
    pub booking: String,
    /// The id of the customer.
    pub customer: String,
    /// That of the booking.
    pub external_ref: Option<String>,
    /// `h_...`
    pub device: String,
    pub device_name: String,
    /// The labels that the device was chosen by. Absent when it was given.
    #[schema(value_type = Option<names::Labels>)]
    pub labels: Option<Labels>,
    /// The profile that the device was chosen by, beside the labels. Absent: any, or it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// After how many seconds of a delay another device of this selection takes its place. Absent: never.
    pub other_device_after_s: Option<f64>,
    /// The name of the device for the renters.
    pub name: String,
    /// The addresses at which the renters reach the device, IPv4 first. They stay when the device is swapped. None
    /// when they are free again, a day after the rental is over.
    pub addresses: Vec<String>,
    /// The protocols and ports that the renters reach.
    pub access: Vec<GrantAccess>,
    /// The renters may log in to the account of the device for renters; `GET /rentals/{rental}/ssh` says how.
    pub ssh: bool,
    /// The ids of the renters who are admitted; `null`: all of the customer, also those added later.
    pub renters: Option<Vec<String>>,
    /// Bytes that the gateway forwards for it, in both directions and with IP headers. Absent: no limit.
    #[schema(minimum = 1)]
    pub allowance_bytes: Option<u64>,
    /// The renters reach nothing any more when the allowance is used.
    pub cut_at_allowance: bool,
    /// The bytes that the gateway has forwarded for it. The traffic of connections that last is counted each minute.
    #[schema(minimum = 0)]
    pub forwarded_bytes: u64,
    pub from: String,
    /// Not included.
    pub until: String,
    /// When the device is occupied, with its preparation.
    pub occupied_from: String,
    /// With its turnaround. Absent when the rental was cancelled, and while its device has not come back.
    pub occupied_until: Option<String>,
    #[schema(value_type = names::RentalState)]
    pub state: String,
    /// It begins when its device is handed over, which it is not yet.
    pub awaits_handover: bool,
    /// When the gate of the device was passed or opened by hand. Absent when it was not, and when the rental has no
    /// gate: it begins at `from`.
    pub handed_over_at: Option<String>,
    /// While it is `delayed`: what keeps it from beginning. Only in the answer of `GET /rentals/{rental}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<RentalDelay>,
    #[schema(value_type = names::RentalDelivery)]
    pub delivery: String,
    /// When its shipped device left for the renters.
    pub dispatched_at: Option<String>,
    /// When that device was heard from for the first time after it had left.
    pub first_contact_at: Option<String>,
    /// When that device came back.
    pub returned_at: Option<String>,
    /// Who gets mail about problems of the device while the rental is active. Personal data: only in the answer of
    /// `GET /rentals/{rental}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<RentalContact>,
    /// Those that services of the device have while the rental is active, in place of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<RentalThreshold>,
    /// When its device is in maintenance, by the begin. Only the answer of `GET /rentals/{rental}` has the comments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<RentalMaintenance>,
    /// When it was ended or cancelled. Absent when its window alone ends it.
    pub ended_at: Option<String>,
    #[schema(value_type = Option<names::RentalEndReason>)]
    pub end_reason: Option<String>,
    /// Why it was ended, in the words of the client. Absent when there is none, and when the call was a repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_note: Option<String>,
    /// For display.
    pub time_zone: Option<String>,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A change of a rental that has not ended. Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RentalChange {
    /// RFC 3339 with an offset, not included. To end it now, end it.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub until: Option<String>,
    /// The name or id of the device that takes the place of the present one.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub device: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// Replaced as a whole.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<GrantAccess>)]
    pub access: Option<Vec<GrantAccess>>,
    /// Whether the renters may log in to the account of the device for renters.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    pub ssh: Option<bool>,
    /// The ids of the renters who are admitted, replaced as a whole; `null`: all of the customer.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub renters: Option<Option<Vec<String>>>,
    /// Bytes from the begin of the rental on; `null`: no limit.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1000000000000000i64)]
    pub allowance_bytes: Option<Option<i64>>,
    /// Whether the renters reach nothing any more when the allowance is used.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    pub cut_at_allowance: Option<bool>,
    /// Only where the device was chosen by labels or profile; `null`: never.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 60, maximum = 2678400)]
    pub other_device_after_s: Option<Option<f64>>,
    /// Who gets mail about problems of the device, replaced as a whole; at most 8.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<RentalContact>)]
    pub contacts: Option<Vec<RentalContact>>,
    /// Thresholds of services of the device while the rental is active, replaced as a whole; at most 32.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<RentalThreshold>)]
    pub thresholds: Option<Vec<RentalThreshold>>,
    /// When the device is in maintenance within the window, replaced as a whole; at most 16.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<RentalMaintenance>)]
    pub maintenance: Option<Vec<RentalMaintenance>>,
}

/// The end of a rental that has begun.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RentalEnd {
    #[schema(value_type = names::RentalEndGiven)]
    pub reason: String,
    /// In the words of the client.
    #[serde(default)]
    pub note: String,
}

/// When devices can be booked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalAvailability {
    pub from: String,
    /// Not included.
    pub to: String,
    /// The rentable devices of the selection.
    #[schema(minimum = 0)]
    pub devices: u64,
    /// How many of them are free from `from` to `to`.
    #[schema(minimum = 0)]
    pub free: u64,
    /// By name.
    pub items: Vec<DeviceAvailability>,
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceAvailability {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    /// The windows in which a rental may lie, without preparation and turnaround.
    pub free: Vec<FreeWindow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FreeWindow {
    pub from: String,
    /// Not included.
    pub until: String,
}

/// Opens the gate of a rental by hand.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForcedHandover {
    /// `true`: hand the device over although its gate is shut. Nothing else is possible: a gate that is passed opens by
    /// itself.
    pub force: bool,
    /// Why, for people. The event log has it.
    pub reason: String,
}

/// Something that keeps a rental from beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RentalDelay {
    #[schema(value_type = names::RentalDelayKind)]
    pub kind: String,
    /// The name of a service of the device, of `service`.
    pub service: Option<String>,
    /// Of `device` and `service`.
    #[schema(value_type = Option<names::HandoverState>)]
    pub state: Option<String>,
    /// Since when; absent when that is not known.
    pub since: Option<String>,
    /// The same in words.
    pub text: String,
}
