//! The JSON of what people of customers see.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::grants::GrantAccess;
use crate::api::rentals::Renter;
use crate::api::request::extract::never_null;
use crate::api::types::{Metric, names};

/// Whom a one-time login is for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPersonLogin {
    /// The id of a person of the customer.
    pub person: String,
}

/// A one-time login, shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PersonLoginLink {
    /// The address at which a browser uses it. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub expires_at: String,
}

/// The secret of a one-time login: what follows `token=` in its address.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonLogin {
    pub token: String,
}

/// A person or a customer, as the person sees both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyName {
    pub id: String,
    pub name: String,
}

/// The person who is logged in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MySession {
    pub person: MyName,
    pub customer: MyName,
    /// The time of the gateway.
    pub time: String,
    /// When the session ends at the latest.
    pub expires_at: String,
}

/// A rental of the customer that admits the person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyRental {
    pub id: String,
    pub name: String,
    /// The addresses at which the person's renters reach the device.
    pub addresses: Vec<String>,
    /// What they reach there.
    pub access: Vec<GrantAccess>,
    #[schema(value_type = names::RentalState)]
    pub state: String,
    pub from: String,
    pub until: String,
    /// An IANA name, for display.
    pub time_zone: Option<String>,
    /// Why it has not begun, although its time has come.
    pub delayed: Vec<String>,
    /// The person may log in to the device over SSH; `GET /my/rentals/{rental}/ssh` says how.
    pub ssh: bool,
    pub device: MyDevice,
    /// Empty unless the rental is active.
    pub services: Vec<MyService>,
    /// The latest changes of the device and its services within the time of the rental, in their order. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<MyChange>>,
    /// Whether `changes` leaves out earlier ones. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_truncated: Option<bool>,
}

/// The device of a rental, as it was measured within the time of the rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyDevice {
    /// The name of the rental.
    pub name: String,
    /// Absent unless the rental is active.
    #[schema(value_type = Option<names::MyDeviceState>)]
    pub status: Option<String>,
    /// Since when it has this status, and not before the rental began. Absent before the first result of the rental.
    pub since: Option<String>,
}

/// A service of the device, as it was measured within the time of the rental.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyService {
    pub name: String,
    /// That of the last result.
    #[schema(value_type = names::ServiceStateName)]
    pub status: String,
    /// Since when it has this status, and not before the rental began. Absent before the first result of the rental.
    pub since: Option<String>,
    /// In lists 1,024 bytes at most.
    pub output: String,
    /// The output is longer. The rental itself (`GET /my/rentals/{rental}`) has all of it.
    pub truncated: bool,
    pub metrics: Vec<MyMetric>,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyMetric {
    pub name: String,
    /// `null`: none was reported.
    pub value: Option<f64>,
    pub unit: String,
    /// A range outside of which the value is a warning.
    pub warn: Option<String>,
    /// A range outside of which the value is critical.
    pub crit: Option<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl From<Metric> for MyMetric {
    fn from(m: Metric) -> Self {
        let Metric { label: name, value, uom: unit, warn, crit, min, max } = m;
        MyMetric { name, value, unit, warn, crit, min, max }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyRentals {
    /// The newest first.
    pub items: Vec<MyRental>,
}

/// A change of a hard state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyChange {
    pub at: String,
    /// The service. Absent: the device itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[schema(value_type = names::ObjectState)]
    pub status: String,
}

/// What was measured of the devices of a rental while the customer had them. All series have the same times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyValues {
    /// The begin of the first point. `null`: there is none.
    pub start: Option<String>,
    /// Seconds from one point to the next; 0 without one.
    #[schema(minimum = 0)]
    pub step_s: i64,
    /// What the points are made of.
    #[schema(value_type = Option<names::TierName>)]
    pub tier: Option<String>,
    /// By service and name. A metric without a value in that time is absent.
    pub series: Vec<MySeries>,
    /// There are more metrics. They are left out.
    pub truncated: bool,
}

/// The values of a metric. Each column has one item for each step; `null` is a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MySeries {
    /// `null`: of the device itself.
    pub service: Option<String>,
    pub name: String,
    /// Counters are shown as rates, with the unit `1/s`.
    pub unit: String,
    pub min: Vec<Option<f64>>,
    pub avg: Vec<Option<f64>>,
    pub max: Vec<Option<f64>>,
    /// Samples with a value.
    pub count: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MyRenters {
    /// By name.
    pub items: Vec<Renter>,
}

/// A peer of the person who is logged in.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMyRenter {
    /// Unique among the renters of the customer.
    pub name: String,
    /// Its own key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
    /// SSH public keys with which the person logs in to rented devices: at most 8 lines of `.pub` files, ed25519, ecdsa,
    /// or rsa of at least 2048 bits. Comments are dropped.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
}

/// What is absent stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MyRenterChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// Replaced as a whole. Certificates that were made for other keys before stay valid until their rentals end.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<String>)]
    pub ssh_keys: Option<Vec<String>>,
}
