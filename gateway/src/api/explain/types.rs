//! The JSON of questions about who may reach what, and of their answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::names;

/// The decision of the packet filter about a packet, with its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub permitted: bool,
    #[schema(value_type = names::ExplanationResult)]
    pub result: String,
    /// The same in words, with what is missing.
    pub text: String,
    /// The grant that decides, or that comes nearest.
    pub grant: Option<String>,
    /// The rental that decides, in place of a grant.
    pub rental: Option<String>,
    /// The begin of its window.
    pub from: Option<String>,
    /// The end of its window, not included.
    pub until: Option<String>,
    pub at: String,
}

/// The results, as they are named in the API.
pub const RESULTS: [&str; 11] = [
    "permitted",
    "no_grant",
    "not_yet",
    "over",
    "delayed",
    "blocked",
    "clock_behind",
    "clock_step",
    "no_common_family",
    "unknown_source",
    "unknown_target",
];

/// What a packet is to show.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewForwardProbe {
    /// An operator (the peer of a person), a user who has one, or a renter, by name or id.
    pub from: String,
    /// A device, or a host behind one, by name or id; or a rental, by its id or address, or by its name for its
    /// renters.
    pub to: String,
    /// `tcp` when absent, and `icmp` without a port. `udp` cannot be probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::GrantProtocolName>)]
    pub protocol: Option<String>,
    /// The port of the target; of `icmp` none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
}

/// The answer of the policy, and the outcome of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProbedExplanation {
    pub explanation: Explanation,
    #[schema(value_type = names::ForwardProbeResult)]
    pub result: String,
    /// The same in words, with what it may mean.
    pub text: String,
    /// The address that the packet was sent with; absent if none was made.
    pub source: Option<String>,
    /// The address that it was sent to.
    pub destination: Option<String>,
    /// From the packet to the answer.
    pub rtt_ms: Option<f64>,
    /// Why the filter dropped the packet, if it did.
    #[schema(value_type = Option<names::DropReasonName>)]
    pub drop_reason: Option<String>,
}

/// The result of a probe, as it is named in the API.
pub const PROBE_RESULTS: [&str; 7] =
    ["answered", "refused", "unreachable", "no_answer", "no_tunnel", "dropped", "denied"];
