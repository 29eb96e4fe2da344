//! The JSON of the counters and of the list of problems.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::services::ServiceCounts;
use crate::api::types::names;

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
    /// Why the gateway's clock is not trusted, so that grants with a window do not pass; with the remedy. Absent: it is
    /// trusted.
    #[serde(default)]
    pub clock_problem: Option<String>,
    /// A restore waits for an admin, so that operators and renters reach nothing and nothing is booked; with the remedy.
    /// Absent: none waits.
    #[serde(default)]
    pub restore_unconfirmed: Option<String>,
    /// The disk of the gateway has too little room, so that the history is not written, or results and changes are
    /// refused; with the remedy. Absent: it has room.
    #[serde(default)]
    pub disk_problem: Option<String>,
    /// The devices and their past are simulated: this is the demo.
    #[serde(default)]
    pub simulated: bool,
}

impl Overview {
    /// Returns the exit code of a monitoring plugin. 2: a host is down or a service critical. 1:
    /// there is any other problem, including stale hosts (silence is not health), a clock that is not
    /// trusted, a restore that waits for an admin and a disk without room. 0: there is no problem, or all are handled.
    pub fn exit_code(&self) -> u8 {
        let of_gateway = [&self.clock_problem, &self.restore_unconfirmed, &self.disk_problem];
        match (&self.hosts, &self.services) {
            (hosts, services) if hosts.down + hosts.unreachable + services.critical > 0 => 2,
            _ if self.problems > 0 || of_gateway.iter().any(|problem| problem.is_some()) => 1,
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
    /// Its own, or one of its host; also while the device is prepared for a rental, on its way, or in the
    /// maintenance of its rental.
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
