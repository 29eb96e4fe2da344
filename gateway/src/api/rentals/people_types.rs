//! The JSON of people and of their peers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::devices::Credentials;
use crate::api::request::extract::{never_null, present};

/// A person who uses what a customer rents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Person {
    pub id: String,
    /// The id of the customer.
    pub customer: String,
    pub name: String,
    pub email: Option<String>,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    /// The id or the `external_ref` of the customer.
    pub customer: String,
    #[serde(default)]
    pub name: String,
    /// The gateway sends nothing there.
    pub email: Option<String>,
}

/// The answer to a new person. It has no personal data, so that none is kept for a repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedPerson {
    pub id: String,
    /// The id of the customer.
    pub customer: String,
    #[schema(minimum = 1)]
    pub version: i64,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PersonChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// `null`: none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
}

/// The peer of a person of a customer, such as a laptop or a phone. It reaches what the customer rents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Renter {
    pub id: String,
    /// The id of the person that it belongs to.
    pub person: String,
    /// The id of the customer.
    pub customer: String,
    pub name: String,
    pub public_key: String,
    /// Since when it has this key.
    pub keyed_at: String,
    pub addresses: Vec<String>,
    /// The addresses of the customer's rentals, and those of the gateway. They stay the same with the next rental.
    pub allowed_ips: Vec<String>,
    /// A session younger than 180 s exists.
    pub established: bool,
    pub last_handshake: Option<String>,
    /// Packets of the renter that the gateway dropped, by reason, since the gateway started.
    pub drops: BTreeMap<String, u64>,
    /// The largest inner packet that it takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
    /// The SSH public keys with which the person logs in to rented devices, without comments.
    pub ssh_keys: Vec<String>,
    pub created_at: String,
    /// The same number as in the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRenter {
    /// The id of the person that it belongs to.
    pub person: String,
    /// Unique among the renters of the customer.
    pub name: String,
    /// Its own key. Absent: a pair is made for it and shown once.
    pub public_key: Option<String>,
    /// The largest inner packet that it takes, in bytes; `mtu` of the gateway when absent.
    #[schema(minimum = 1280, maximum = 1420)]
    pub mtu: Option<u16>,
    /// SSH public keys with which the person logs in to rented devices: at most 8 lines of `.pub` files, ed25519,
    /// ecdsa, or rsa of at least 2048 bits. Comments are dropped.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RenterChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub name: Option<String>,
    /// Holds for the next packet. The configuration of the renter needs the same value. `null`: `mtu` of the gateway.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1280, maximum = 1420)]
    pub mtu: Option<Option<u16>>,
    /// Replaced as a whole. Certificates that were made for other keys before stay valid until their rentals end.
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<String>)]
    pub ssh_keys: Option<Vec<String>>,
}

/// A renter that has new keys. It has no name, so that no personal data is kept for a repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyedRenter {
    pub id: String,
    /// The id of the person that it belongs to.
    pub person: String,
    /// The id of the customer.
    pub customer: String,
    pub public_key: String,
    pub addresses: Vec<String>,
    /// The addresses of the customer's rentals, and those of the gateway.
    pub allowed_ips: Vec<String>,
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A renter with what is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RenterWithCredentials {
    pub renter: KeyedRenter,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}
