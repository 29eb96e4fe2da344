//! The JSON of hosts with their states.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::acknowledgements::Acknowledgement;
use crate::api::services::ServiceCounts;
use crate::api::types::{Labels, Metric, names};

/// One row of the host list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    pub id: String,
    pub name: String,
    #[schema(value_type = names::Labels)]
    pub labels: Labels,
    /// Set on the host; absent if the profile rules select it.
    pub profile: Option<String>,
    #[schema(value_type = names::RouteName)]
    pub route: String,
    /// Inner address, or the address behind `via`.
    pub address: Option<String>,
    /// For a host behind a device: the address of the pool at which operators reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The device that the host is behind.
    pub via: Option<String>,
    pub direct_address: Option<String>,
    pub state: HostState,
    /// The host's own tunnel; absent for hosts without one.
    pub tunnel: Option<Tunnel>,
    /// How many services are in which state.
    pub services: ServiceCounts,
    /// The cause of the problem, as far as the evidence shows it. Only in the answer for one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The acknowledgement of its problem. Only in the answer for one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// The open incident of the host, or of a service on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    pub created_at: String,
    /// Set if the host was removed. Its history can still be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<String>,
}

/// The cause of a problem. If the evidence fits several causes, the kind is `undetermined`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    #[schema(value_type = names::VerdictKind)]
    pub kind: String,
    pub text: String,
    /// The possible causes, if the kind is `undetermined`.
    #[schema(value_type = Vec<names::VerdictKind>)]
    pub candidates: Vec<String>,
    /// The evidence, one line each.
    pub evidence: Vec<String>,
}

/// The state of a host. State, reachability and staleness are separate fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostState {
    /// The hard state.
    #[schema(value_type = names::HostStateName)]
    pub state: String,
    /// The state of the last result; differs from `state` during retries.
    #[schema(value_type = names::HostStateName)]
    pub last_result: String,
    #[schema(value_type = names::StateTypeName)]
    pub state_type: String,
    #[schema(minimum = 1, maximum = 100)]
    pub attempt: i64,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    pub reachable: bool,
    pub stale: bool,
    pub asleep: bool,
    /// The problem is acknowledged.
    pub acknowledged: bool,
    /// A downtime is in effect, or the device is prepared for a rental, on its way, or in the maintenance of its rental.
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    #[schema(minimum = 0, maximum = 100)]
    pub flapping_percent: f64,
    /// Since when it has `state`; a problem counts from its first failure.
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub next_check: Option<String>,
    /// A check was requested, and its result is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_requested_at: Option<String>,
    /// The evidence that decided the last result; absent before it.
    #[schema(value_type = Option<names::HostSource>)]
    pub source: Option<String>,
    /// The tunnel address that was checked.
    pub asked_address: Option<String>,
    /// When the first of the unanswered probes was sent; absent while the host answers.
    pub silent_since: Option<String>,
    pub text: String,
    /// Empty in lists and in the stream.
    pub long_text: String,
    /// `packet_age` (s) or `rtt` (ms) of the host check; of a passive result its performance data.
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub parse_warnings: Vec<String>,
}

/// The state of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    pub public_key: String,
    /// A session younger than 180 s exists.
    pub established: bool,
    pub endpoint: Option<String>,
    pub last_packet: Option<String>,
    pub last_handshake: Option<String>,
    /// Device clock minus gateway clock at the last handshake.
    pub clock_skew_s: Option<f64>,
    /// Why and when the last handshake was refused.
    pub last_refusal: Option<String>,
    pub last_refusal_at: Option<String>,
    /// Handshakes that were answered and led to no session: the device is alive, and its key is refused or
    /// the answers do not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproved_handshakes: Option<UnprovedHandshakes>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Bytes on the wire, both ways with all headers, since midnight UTC; absent before the first datagram since the
    /// gateway started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub today_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yesterday_bytes: Option<u64>,
    /// Only of a device with a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    pub handshakes: u64,
    /// Packets of the peer that the gateway dropped, by reason, since the gateway started.
    pub drops: BTreeMap<String, u64>,
}

/// Handshakes in a row that led to no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnprovedHandshakes {
    pub count: u32,
    pub since: String,
    pub last_at: String,
    /// The address and port that the last one came from.
    pub from: String,
}

/// The traffic budget that the checks of a device keep to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    #[schema(minimum = 10000, maximum = 10000000000000i64)]
    pub bytes_per_day: u64,
    /// Intervals of checks that send are longer by this factor: 1, 2, 4 to 64.
    #[schema(minimum = 1, maximum = 64)]
    pub stretch: u32,
    /// The same as a text.
    pub text: String,
}
