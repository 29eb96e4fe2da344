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

/// One strip of counters that answers "is anything wrong".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    pub hosts: HostCounts,
    pub services: ServiceCounts,
    /// Hosts and services that somebody should look at: what the list of problems has that is not handled.
    #[serde(default)]
    pub problems: i64,
    /// Problems that are acknowledged or in downtime.
    #[serde(default)]
    pub handled: i64,
    /// The newest result of any check.
    pub last_check: Option<String>,
    /// Enrolments that wait for a person.
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

/// A partition: every host is counted exactly once, but for `asleep`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostCounts {
    pub up: i64,
    /// Not up, reachable and not handled.
    pub down: i64,
    /// Not up, not handled, and what stands before it is down too.
    pub unreachable: i64,
    pub pending: i64,
    /// Was up, and the last result is older than the checks allow; not handled.
    pub stale: i64,
    /// Down, unreachable or not current, and acknowledged or in downtime.
    #[serde(default)]
    pub handled: i64,
    /// Beside the partition: silent as expected.
    pub asleep: i64,
}

/// A partition: every service is counted exactly once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceCounts {
    pub ok: i64,
    pub warning: i64,
    pub critical: i64,
    pub unknown: i64,
    pub pending: i64,
    /// Not current: its host, or what it depends on, does not answer.
    pub stale: i64,
    /// Not OK, and acknowledged or in downtime.
    #[serde(default)]
    pub handled: i64,
}

/// One row of the host list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    pub id: String,
    pub name: String,
    pub labels: Labels,
    /// The one that it names itself; absent: by the profile rules.
    pub profile: Option<String>,
    /// `tunnel`, `direct` or `auto`.
    pub route: String,
    /// Inner address, or the address behind `via`.
    pub address: Option<String>,
    /// The device this host stands behind.
    pub via: Option<String>,
    pub direct_address: Option<String>,
    pub state: HostState,
    /// The host's own tunnel; absent for hosts without one.
    pub tunnel: Option<Tunnel>,
    /// How many services are in which state.
    pub services: ServiceCounts,
    /// What is wrong, as far as can be told; only where one host is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Who knows of its problem, and why; only where one host is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// The open incident that it belongs to, or else something that fails on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    pub created_at: String,
    /// Only of a host that was removed: what is left of it is read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<String>,
}

/// What is wrong with a host. Nothing is claimed that the paths at hand cannot tell apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// `ok`, `pending`, `gateway_uplink_lost`, `parent_down`, `site_uplink_lost`,
    /// `local_network_lost`, `key_refused`, `clock_wrong`, `tunnel_down`, `one_way_loss`, `line_lost`,
    /// `device_gone`, `probable_cloned_key`, `path_mtu`, `service_hung`, `service_problem` or `undetermined`;
    /// more may come.
    pub kind: String,
    pub text: String,
    /// Of `undetermined`: what it may be, in the same words as `kind`; also `gateway_clock_wrong` and
    /// `packet_loss`.
    pub candidates: Vec<String>,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
}

/// State, reachability and currency are separate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostState {
    /// `pending`, `up` or `down`: the hard state.
    pub state: String,
    /// `pending`, `up` or `down`: the last result; differs from `state` while attempts run.
    pub last_result: String,
    /// `soft` or `hard`.
    pub state_type: String,
    pub attempt: i64,
    pub max_attempts: i64,
    pub reachable: bool,
    pub stale: bool,
    pub asleep: bool,
    /// Somebody knows of the problem.
    pub acknowledged: bool,
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    pub flapping_percent: f64,
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub next_check: Option<String>,
    /// Somebody asked for a check, and its result is not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_requested_at: Option<String>,
    /// What decided: `evidence`, `echo`, `tcp`, `ssh`, `handshake`, `direct`;
    /// `handshakes`: its handshakes arrive and lead to no session; `passive`: somebody sent it;
    /// `silence`: for too long nobody did; `none`: all was asked and failed.
    pub source: String,
    /// The inner address that was asked.
    pub asked_address: Option<String>,
    /// When the first question was asked of those that nothing answered since; absent while it is heard.
    pub silent_since: Option<String>,
    pub text: String,
    /// Empty in lists and in the stream.
    pub long_text: String,
    /// Of its own check `packet_age` (s) or `rtt` (ms); of a result that was sent, what is in it.
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub parse_warnings: Vec<String>,
}

/// What an operator wants to know of a tunnel.
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
    /// The last refused handshake, in words, and when.
    pub last_refusal: Option<String>,
    pub last_refusal_at: Option<String>,
    /// Handshakes that were answered and led to no session: the device is alive, and its key is refused or
    /// the answers do not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproved_handshakes: Option<UnprovedHandshakes>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Bytes on the wire, both ways with all headers, since midnight UTC; absent while nothing is known
    /// of this run.
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

/// What the checks of a device keep to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    pub bytes_per_day: u64,
    /// The checks that send are so many times rarer than their intervals say: 1, 2, 4 to 64.
    pub stretch: u32,
    /// The same in words.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    pub host: String,
    pub host_name: String,
    pub name: String,
    /// `tunnel`, `ping`, `tcp`, `ssh`, `sensor`, `command` or `passive`.
    pub check: String,
    /// `pending`, `ok`, `warning`, `critical` or `unknown`: the hard state.
    pub state: String,
    /// The same of the last result; differs from `state` while attempts run.
    pub last_result: String,
    pub state_type: String,
    pub attempt: i64,
    pub max_attempts: i64,
    /// Not current: the host is down, or what this depends on fails.
    pub stale: bool,
    /// Something that stands before its host is there.
    pub reachable: bool,
    /// Somebody knows of the problem.
    pub acknowledged: bool,
    pub acknowledgement: Option<Acknowledgement>,
    /// The open incident that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Its own, or one of its host.
    pub in_downtime: bool,
    pub flapping: bool,
    /// Weighted changes among the last 21 results.
    pub flapping_percent: f64,
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub next_check: Option<String>,
    /// Somebody asked for a check, and its result is not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_requested_at: Option<String>,
    /// `tunnel` or `direct`: the way the last result went; `passive`: somebody sent it; `none`:
    /// nothing came for too long.
    pub route: String,
    /// What became of the question: `answered`, `refused`, `reset`, `no_answer`, `stalled` (a connection was made,
    /// then nothing came), `command_timed_out`, `connection_lost`, `unreachable`, `no_tunnel`, `not_tried`,
    /// `host_key_changed`, `login_refused`, `not_ssh`, `protocol` or `overdue` (no result was sent in time); more
    /// may come. The text of a result decides none of these. Absent before the first result.
    pub cause: Option<String>,
    /// The inner address that was asked, where the result came through a tunnel.
    pub asked_address: Option<String>,
    /// What echoes of two sizes said of the path after a stall or a connection in vain: `large_answered`,
    /// `large_lost`, `lossy` (some came back, or attempts differ) or `silent`; absent where they were not sent.
    pub path: Option<String>,
    pub text: String,
    pub long_text: String,
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub parse_warnings: Vec<String>,
    /// The limits that it is judged by here, beside those of a plugin itself.
    pub thresholds: Vec<ThresholdSettings>,
    pub check_interval_s: f64,
    pub retry_interval_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    pub label: String,
    /// `null`: the plugin said it does not know.
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
    pub state: String,
    pub state_type: String,
    /// Somebody knows of it.
    pub acknowledged: bool,
    /// Its own, or one of its host.
    pub in_downtime: bool,
    /// Acknowledged or in downtime: the counters have it apart, and the list after all others.
    #[serde(default)]
    pub handled: bool,
    /// It changes too often: nothing is told of it until it is calm.
    #[serde(default)]
    pub flapping: bool,
    /// What it belongs to.
    pub incident: Option<String>,
    pub since: Option<String>,
    pub last_check: Option<String>,
    pub text: String,
    /// What is wrong with a host that is down. Only with the first 25 hosts of the list: each costs a look around.
    pub verdict: Option<VerdictLine>,
}

/// A verdict in one line; `GET /hosts/{host}` has what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerdictLine {
    /// As the verdict's.
    pub kind: String,
    pub text: String,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub seq: i64,
    pub at: String,
    /// `state`, `device.created`, `enrolment.approved`, `message.sent`, ...
    pub kind: String,
    /// `host`, `service`, `device`, `enrolment`, `token`, `user`, `incident` or `system`.
    pub object: String,
    pub object_id: Option<String>,
    /// The object's name of today, where it still has one.
    pub object_name: Option<String>,
    pub service: Option<String>,
    pub cause: String,
    /// The beginning of the text that decided, 1,024 bytes at most.
    pub evidence: String,
    /// That text is longer: the service (or host) shows all of it while it is current.
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

/// What the samples of a stretch of time come to. One without a value is absent, never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub at: String,
    pub min: f64,
    /// The sum of the values by their count.
    pub avg: f64,
    pub max: f64,
    /// Samples with a value.
    pub count: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    pub at: String,
    pub value: Option<f64>,
}
