//! The types of the API's JSON. Domain types never derive serde and are converted to these at the
//! edge. Times are RFC 3339 in UTC, and durations are seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod access;
mod backups;
mod devices;
mod enrolments;
mod gateway;
mod hosts;
mod incidents;
pub mod names;
mod notifications;
mod profiles;
mod voice;

pub use access::*;
pub use backups::*;
pub use devices::*;
pub use enrolments::*;
pub use gateway::*;
pub use hosts::*;
pub use incidents::*;
pub use notifications::*;
pub use profiles::*;
pub use voice::*;

/// Labels of a host: sorted, at most 32, keys `[a-z0-9._/-]{1,63}`, values up to 255 characters.
pub type Labels = BTreeMap<String, String>;
/// A PATCH of labels: a value, or `null` to remove a label.
pub type LabelsChange = BTreeMap<String, Option<String>>;

/// Counters of hosts, services and problems.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    pub hosts: HostCounts,
    pub services: ServiceCounts,
    /// Problems that are not handled: neither acknowledged nor in downtime.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub problems: i64,
    /// Problems that are acknowledged or in downtime.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub handled: i64,
    /// The newest result of any check.
    pub last_check: Option<String>,
    /// Enrolments that wait for approval.
    #[schema(minimum = 0)]
    pub awaiting_approval: i64,
}

impl Overview {
    /// Returns the exit code of a monitoring plugin. 2: a host is down or a service critical. 1:
    /// there is any other problem, including stale hosts (silence is not health). 0: there is no
    /// problem, or all are handled.
    pub fn exit_code(&self) -> u8 {
        match (&self.hosts, &self.services) {
            (hosts, services) if hosts.down + hosts.unreachable + services.critical > 0 => 2,
            _ if self.problems > 0 => 1,
            _ => 0,
        }
    }
}

/// Hosts by state. Each host is counted once; `asleep` is counted in addition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostCounts {
    #[schema(minimum = 0)]
    pub up: i64,
    /// Not up, reachable and not handled.
    #[schema(minimum = 0)]
    pub down: i64,
    /// Not up, not handled, and all its parents are down.
    #[schema(minimum = 0)]
    pub unreachable: i64,
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Was up, and the last result is older than the checks allow; not handled.
    #[schema(minimum = 0)]
    pub stale: i64,
    /// Down, unreachable or stale, and acknowledged or in downtime.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub handled: i64,
    /// Counted in addition: silent as expected.
    #[schema(minimum = 0)]
    pub asleep: i64,
}

/// Services by state. Each service is counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceCounts {
    #[schema(minimum = 0)]
    pub ok: i64,
    #[schema(minimum = 0)]
    pub warning: i64,
    #[schema(minimum = 0)]
    pub critical: i64,
    #[schema(minimum = 0)]
    pub unknown: i64,
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Its host or a dependency does not answer.
    #[schema(minimum = 0)]
    pub stale: i64,
    /// Not OK, and acknowledged or in downtime.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub handled: i64,
}

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
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    #[schema(minimum = 0, maximum = 100)]
    pub flapping_percent: f64,
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
    /// Packets and datagrams dropped, by reason.
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    pub host: String,
    pub host_name: String,
    pub name: String,
    #[schema(value_type = names::CheckType)]
    pub check: String,
    /// The hard state.
    #[schema(value_type = names::ServiceStateName)]
    pub state: String,
    /// The state of the last result; differs from `state` during retries.
    #[schema(value_type = names::ServiceStateName)]
    pub last_result: String,
    #[schema(value_type = names::StateTypeName)]
    pub state_type: String,
    #[schema(minimum = 1, maximum = 100)]
    pub attempt: i64,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    /// The host is down, or a dependency fails.
    pub stale: bool,
    /// At least one parent of its host is up.
    pub reachable: bool,
    /// The problem is acknowledged.
    pub acknowledged: bool,
    pub acknowledgement: Option<Acknowledgement>,
    /// The open incident that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Its own, or one of its host.
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    #[schema(minimum = 0, maximum = 100)]
    pub flapping_percent: f64,
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub next_check: Option<String>,
    /// A check was requested, and its result is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_requested_at: Option<String>,
    /// The way of the last result; absent before it.
    #[schema(value_type = Option<names::ResultRoute>)]
    pub route: Option<String>,
    /// The outcome of the last check; absent before the first result.
    #[schema(value_type = Option<names::CheckCause>)]
    pub cause: Option<String>,
    /// The tunnel address that was checked; absent if the result did not come through a tunnel.
    pub asked_address: Option<String>,
    /// What echoes of two sizes showed after a stalled or failed connection; absent if none were sent.
    #[schema(value_type = Option<names::PathResult>)]
    pub path: Option<String>,
    pub text: String,
    pub long_text: String,
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub parse_warnings: Vec<String>,
    /// The thresholds that the gateway applies, besides those of a plugin.
    pub thresholds: Vec<ThresholdSettings>,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub check_interval_s: f64,
    #[schema(minimum = 0.1, maximum = 604800)]
    pub retry_interval_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    pub label: String,
    /// `null` if the plugin reported no value.
    pub value: Option<f64>,
    pub uom: String,
    /// A Nagios range.
    pub warn: Option<String>,
    pub crit: Option<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

/// A host that is down or unreachable, or a service that is not OK (and current), worst first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    pub host: String,
    pub host_name: String,
    /// Absent: the host itself.
    pub service: Option<String>,
    #[schema(value_type = names::ProblemState)]
    pub state: String,
    #[schema(value_type = names::StateTypeName)]
    pub state_type: String,
    /// It is acknowledged.
    pub acknowledged: bool,
    /// Its own, or one of its host.
    pub in_downtime: bool,
    /// Acknowledged or in downtime. Handled problems are counted separately and listed last.
    #[serde(default)]
    pub handled: bool,
    /// The state changes too often: notifications are suppressed until it settles.
    #[serde(default)]
    pub flapping: bool,
    /// The open incident that it belongs to.
    pub incident: Option<String>,
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub text: String,
    /// The verdict of a host that is down. Only for the first 25 hosts of the list.
    pub verdict: Option<VerdictLine>,
}

/// A verdict without its evidence, which `GET /hosts/{host}` has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerdictLine {
    #[schema(value_type = names::VerdictKind)]
    pub kind: String,
    pub text: String,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    #[schema(minimum = 0)]
    pub seq: i64,
    pub at: String,
    #[schema(value_type = names::EventKindName)]
    pub kind: String,
    #[schema(value_type = names::EventObject)]
    pub object: String,
    pub object_id: Option<String>,
    /// The current name of the object, if it has one.
    pub object_name: Option<String>,
    pub service: Option<String>,
    pub cause: String,
    /// The output or text behind the event, 1,024 bytes at most.
    pub evidence: String,
    /// The text is longer. The service (or host) has all of it while it is current.
    #[serde(default)]
    pub truncated: bool,
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    pub principal: String,
}

/// One page of a list. `next` goes into `?after=` for the next page; absent on the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// Samples of one metric, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Samples {
    pub label: String,
    pub uom: String,
    /// As they were measured; empty where buckets were asked for.
    pub points: Vec<Point>,
    /// How long a bucket is. They begin at its multiples since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<Bucket>>,
}

/// The samples of a period, aggregated. A bucket without a value is absent, never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub at: String,
    pub min: f64,
    /// The sum of the values by their count.
    pub avg: f64,
    pub max: f64,
    /// Samples with a value.
    #[schema(minimum = 1)]
    pub count: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    pub at: String,
    pub value: Option<f64>,
}
