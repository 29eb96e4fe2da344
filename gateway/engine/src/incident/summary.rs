//! The summaries of incidents.

use crate::id::HostId;
use crate::messages::{CauseKind, GATEWAY, IncidentScope, IncidentSummary};

pub fn service(host: &str, service: &str, site: Option<String>) -> IncidentSummary {
    let words = format!("{service} on {host} has a problem");
    IncidentSummary {
        extent: IncidentScope::Service,
        cause: CauseKind::ServiceFailed,
        words,
        site,
        head: None,
    }
}

pub fn services(host: &str, site: Option<String>) -> IncidentSummary {
    let words = format!("several services on {host} have problems");
    IncidentSummary { extent: IncidentScope::Host, cause: CauseKind::ServiceFailed, words, site, head: None }
}

/// The summary for many hosts; the members give their number.
pub fn alike(service: &str) -> IncidentSummary {
    everywhere(format!("{service} has a problem on many hosts at once"))
}

pub fn several_alike() -> IncidentSummary {
    everywhere("several services have problems on many hosts at once".to_owned())
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
    let words = "the gateway's own uplink is lost: nothing is known of the hosts meanwhile".to_owned();
    IncidentSummary {
        extent: IncidentScope::Gateway,
        cause: CauseKind::UplinkLost,
        words,
        site: None,
        head: Some(GATEWAY),
    }
}
