//! The JSON of how devices are rented, and of times in which they cannot be booked.

use std::collections::BTreeMap;

use fleetgate_engine::messages::GateRule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::grants::GrantAccess;
use crate::api::request::extract::present;
use crate::api::types::names;

/// How a device is rented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceRentalSettings {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    pub rentable: bool,
    /// Seconds that it needs before a rental.
    pub preparation_s: f64,
    /// Seconds that it needs after a rental.
    pub turnaround_s: f64,
    /// The most that renters reach.
    pub access: Vec<GrantAccess>,
    /// Whether it can be handed over. It counts when a rental begins.
    pub ready: bool,
    /// Why it is not ready.
    pub not_ready_reason: Option<String>,
    /// The conditions for handing it over; `null`: none.
    pub gate: Option<HandoverGate>,
    /// The services that the gate names and the device does not have. While there are any, it is not handed over.
    #[serde(default)]
    pub gate_lacks: Vec<String>,
    #[schema(value_type = names::RentalDelivery)]
    pub delivery: String,
    /// The account on the device that renters log in to; `null`: none.
    pub ssh_account: Option<String>,
    /// How they log in; `null`: the device has not been asked.
    #[schema(value_type = Option<names::RentalSshMode>)]
    pub ssh_mode: Option<String>,
    /// The account can become root: after a rental with SSH the device needs new WireGuard and host keys.
    pub ssh_root: bool,
    /// Runs on the device after each rental; `null`: none.
    pub cleaning_command: Option<String>,
    /// What decides about each setting that a profile may say, by its name.
    #[schema(value_type = BTreeMap<String, names::RentalSettingOrigin>)]
    pub origins: BTreeMap<String, String>,
    /// The same number as in the `ETag`; 0 when they were never set.
    #[schema(minimum = 0)]
    pub version: i64,
}

/// How the devices of a profile are rented. What is absent it does not say: a profile that it extends does, or the default
/// counts. The settings of a device override single fields of its profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RentalTerms {
    /// Seconds that a device needs before a rental.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2678400)]
    pub preparation_s: Option<f64>,
    /// Seconds that a device needs after a rental.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2678400)]
    pub turnaround_s: Option<f64>,
    /// The most that renters reach; an empty list: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Vec<GrantAccess>>,
    /// The conditions for handing a device over. `"without": ["gate"]`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<HandoverGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::RentalDelivery>)]
    pub delivery: Option<String>,
    /// The account of the renters can become root: after a rental with SSH a device needs new WireGuard and host keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_root: Option<bool>,
    /// Runs on a device after each rental, with the account of the checks, for ten minutes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub cleaning_command: Option<String>,
    /// Settings that are none, whatever an extended profile says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<names::RentalSettingOfNone>)]
    pub without: Vec<String>,
}

/// They hold for rentals that are booked, or get this device, from now on. `null` leaves a setting to the profile of the
/// device, and to the default if that says nothing. So does a setting that was never given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeviceRentalSettings {
    pub rentable: bool,
    /// As the profile says when absent; 0 by default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2678400)]
    pub preparation_s: Option<f64>,
    /// As the profile says when absent; 0 by default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2678400)]
    pub turnaround_s: Option<f64>,
    /// The most that renters reach; an empty list: nothing. It stays as it is when absent; by default it is ICMP, and
    /// TCP 22, 80 and 443.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<GrantAccess>>)]
    pub access: Option<Option<Vec<GrantAccess>>>,
    /// `false`: it cannot be handed over, and rentals that begin are delayed. It stays as it is when absent; at first
    /// it is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Why it is not ready, for people. Only with `"ready": false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_reason: Option<String>,
    /// The conditions for handing it over. It stays as it is when absent; by default the device must be up and all its
    /// services OK for 300 seconds. `"without": ["gate"]`: none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HandoverGate>)]
    pub gate: Option<Option<HandoverGate>>,
    /// How it gets to its renters. It stays as it is when absent; by default it is `mounted`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::RentalDelivery>)]
    pub delivery: Option<Option<String>>,
    /// The account on the device that renters log in to, as `enrol.sh --rental-user` set it up; `null`: none. It stays
    /// as it is when absent; at first it is `null`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 32)]
    pub ssh_account: Option<Option<String>>,
    /// The account can become root. After a rental with SSH the device is not ready until it has new WireGuard and host
    /// keys. It stays as it is when absent; by default it is `false`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub ssh_root: Option<Option<bool>>,
    /// Runs on the device after each rental, with the account of the checks, for ten minutes at most. Until it has
    /// ended with 0 the device is not ready. It stays as it is when absent; by default there is none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    pub cleaning_command: Option<Option<String>>,
    /// Settings that are none, whatever the profile says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<names::RentalSettingOfNone>)]
    pub without: Vec<String>,
}

/// The conditions for handing over a device. The device must also be up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandoverGate {
    /// The names of services of the device; `null`: all. A service without a result is not OK.
    #[serde(default)]
    pub services: Option<Vec<String>>,
    /// Seconds for which all of it must have been OK; 0: now. 300 when absent.
    #[serde(default = "usual_gate_s")]
    #[schema(minimum = 0, maximum = 86400)]
    pub ok_for_s: f64,
}

fn usual_gate_s() -> f64 {
    GateRule::USUAL_OK_FOR.as_secs_f64()
}

/// A time in which a device cannot be booked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceBlock {
    pub id: String,
    /// `h_...`
    pub device: String,
    pub device_name: String,
    pub from: String,
    /// Not included. Absent: until it is ended.
    pub until: Option<String>,
    pub reason: String,
    /// The user or token that made it.
    pub author: String,
    pub created_at: String,
    pub ended_at: Option<String>,
    /// The user or token that ended it.
    pub ended_by: Option<String>,
    /// The rentals that it covers. Only in the answer to a new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rentals: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeviceBlock {
    /// RFC 3339 with an offset; now when absent.
    pub from: Option<String>,
    /// RFC 3339 with an offset, not included; until it is ended when absent.
    pub until: Option<String>,
    /// Why the device cannot be booked.
    pub reason: String,
    /// `true`: also over rentals.
    #[serde(default)]
    pub force: bool,
}
