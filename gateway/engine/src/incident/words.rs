//! The summaries of incidents.

use crate::id::HostId;
use crate::wire::{CauseKind, Extent, GATEWAY, Matter};

pub fn service(host: &str, service: &str, site: Option<String>) -> Matter {
    let words = format!("{service} on {host} is not well");
    Matter { extent: Extent::Service, cause: CauseKind::ServiceFailed, words, site, head: None }
}

pub fn services(host: &str, site: Option<String>) -> Matter {
    let words = format!("several services on {host} are not well");
    Matter { extent: Extent::Host, cause: CauseKind::ServiceFailed, words, site, head: None }
}

/// The summary for many hosts; the members give their number.
pub fn alike(service: &str) -> Matter {
    everywhere(format!("{service} is not well on many hosts at once"))
}

pub fn several_alike() -> Matter {
    everywhere("several services are not well on many hosts at once".to_owned())
}

fn everywhere(words: String) -> Matter {
    Matter { extent: Extent::Fleet, cause: CauseKind::ServiceFailed, words, site: None, head: None }
}

/// The summary for hosts that have nothing in common but the time.
pub fn crowd() -> Matter {
    let words = "many hosts fell silent together".to_owned();
    Matter { extent: Extent::Fleet, cause: CauseKind::HostDown, words, site: None, head: None }
}

pub fn host(name: &str, id: HostId, site: Option<String>) -> Matter {
    let words = format!("{name} is down");
    Matter { extent: Extent::Host, cause: CauseKind::HostDown, words, site, head: Some(id) }
}

pub fn behind(name: &str, id: HostId, site: Option<String>) -> Matter {
    let words = format!("{name} is down, and what stands behind it cannot be reached");
    Matter { extent: Extent::Site, cause: CauseKind::ParentDown, words, site, head: Some(id) }
}

/// The summary for hosts behind a dead tunnel. Another path proves that the device is up, so the
/// device is not the head.
pub fn behind_tunnel(name: &str, site: Option<String>) -> Matter {
    let words = format!("the tunnel of {name} is dead, and what stands behind it cannot be reached");
    Matter { extent: Extent::Site, cause: CauseKind::ParentDown, words, site, head: None }
}

/// The summary for many hosts of one site, which may share a switch or a floor.
pub fn part_of_site(name: &str) -> Matter {
    let words = format!("many hosts of {name} fell silent together");
    Matter { words, ..site(name) }
}

/// The summary for most of a site; the members give the number.
pub fn site(site: &str) -> Matter {
    let words = format!("most of {site} fell silent together");
    Matter {
        extent: Extent::Site,
        cause: CauseKind::SiteLost,
        words,
        site: Some(site.to_owned()),
        head: None,
    }
}

pub fn uplink() -> Matter {
    let words = "the gateway's own uplink is lost: nothing is known of the hosts meanwhile".to_owned();
    Matter { extent: Extent::Gateway, cause: CauseKind::UplinkLost, words, site: None, head: Some(GATEWAY) }
}
