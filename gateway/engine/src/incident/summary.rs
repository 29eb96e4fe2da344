//! The summaries of incidents.

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::messages::{CauseKind, GATEWAY, IncidentScope, IncidentSummary};

/// The finding of the check that decided a problem. That of a host has neither part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProblemFinding {
    /// The hard state of a service.
    pub status: Option<Status>,
    /// The value that crossed a limit, with the limit: `78 °C, limit 70`.
    pub reading: Option<String>,
}

/// Returns the summary of one failing service: `cam-1: temperature critical (78 °C, limit 70)`.
pub fn service(host: &str, service: &str, found: &ProblemFinding, site: Option<String>) -> IncidentSummary {
    let state = service_state(host, service, found.status);
    let words = match &found.reading {
        Some(reading) => format!("{state} ({reading})"),
        None => state,
    };
    IncidentSummary {
        extent: IncidentScope::Service,
        cause: CauseKind::ServiceFailed,
        words,
        site,
        head: None,
    }
}

/// Returns the beginning of such a summary, without the value.
pub fn service_state(host: &str, service: &str, status: Option<Status>) -> String {
    format!("{host}: {service} {}", state(status))
}

fn state(status: Option<Status>) -> &'static str {
    status.map_or("failing", Status::name)
}

pub fn services(host: &str, site: Option<String>) -> IncidentSummary {
    let words = format!("{host}: several services have problems");
    IncidentSummary { extent: IncidentScope::Host, cause: CauseKind::ServiceFailed, words, site, head: None }
}

/// The summary for many hosts; the members give their number. `status`: the state that they share.
pub fn alike(service: &str, status: Option<Status>) -> IncidentSummary {
    everywhere(format!("{service} {} on many hosts", state(status)))
}

/// Whether the summary of many hosts covers this service.
pub fn is_alike(summary: &IncidentSummary, service: &str) -> bool {
    *summary == several_alike() || summary.words.split(' ').next() == Some(service)
}

/// Whether the summary of many hosts names a state that the service has no more on each of them.
pub fn has_other_state(summary: &IncidentSummary, service: &str, status: Option<Status>) -> bool {
    let mut others = Status::ALL.into_iter().filter(|other| Some(*other) != status);
    others.any(|other| *summary == alike(service, Some(other)))
}

pub fn several_alike() -> IncidentSummary {
    everywhere("several services have problems on many hosts".to_owned())
}

fn everywhere(words: String) -> IncidentSummary {
    IncidentSummary {
        extent: IncidentScope::Fleet,
        cause: CauseKind::ServiceFailed,
        words,
        site: None,
        head: None,
    }
}

/// The summary for hosts that have nothing in common but the time.
pub fn crowd() -> IncidentSummary {
    let words = "many hosts stopped answering at once".to_owned();
    IncidentSummary {
        extent: IncidentScope::Fleet,
        cause: CauseKind::HostDown,
        words,
        site: None,
        head: None,
    }
}

pub fn host(name: &str, id: HostId, site: Option<String>) -> IncidentSummary {
    let words = format!("{name} is down");
    IncidentSummary { extent: IncidentScope::Host, cause: CauseKind::HostDown, words, site, head: Some(id) }
}

pub fn behind(name: &str, id: HostId, site: Option<String>) -> IncidentSummary {
    let words = format!("{name} is down, and the hosts behind it are unreachable");
    IncidentSummary { extent: IncidentScope::Site, cause: CauseKind::ParentDown, words, site, head: Some(id) }
}

/// The summary for hosts behind a dead tunnel. Another path proves that the device is up, so the
/// device is not the head.
pub fn behind_tunnel(name: &str, site: Option<String>) -> IncidentSummary {
    let words = format!("the tunnel of {name} is down, and the hosts behind it are unreachable");
    IncidentSummary { extent: IncidentScope::Site, cause: CauseKind::ParentDown, words, site, head: None }
}

/// The summary for many hosts of one site, which may share a switch or a floor.
pub fn part_of_site(name: &str) -> IncidentSummary {
    let words = format!("many hosts of {name} stopped answering at once");
    IncidentSummary { words, ..site(name) }
}

/// The summary for most of a site; the members give the number.
pub fn site(site: &str) -> IncidentSummary {
    let words = format!("most of {site} stopped answering at once");
    IncidentSummary {
        extent: IncidentScope::Site,
        cause: CauseKind::SiteLost,
        words,
        site: Some(site.to_owned()),
        head: None,
    }
}

pub fn uplink() -> IncidentSummary {
    let words =
        "the gateway's own uplink is down: the states of hosts are unknown until it is back".to_owned();
    IncidentSummary {
        extent: IncidentScope::Gateway,
        cause: CauseKind::UplinkLost,
        words,
        site: None,
        head: Some(GATEWAY),
    }
}
