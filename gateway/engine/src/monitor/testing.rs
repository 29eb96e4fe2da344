//! Hosts for the tests of this room.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::id::HostId;
use crate::wire::{Alerting, HostSpec, RoutePolicy, SshSpec, Timing};

/// A device with a tunnel, without services.
pub fn host(raw: i64) -> HostSpec {
    let id = HostId::from_i64(raw);
    HostSpec {
        id,
        name: format!("cam-{raw}"),
        labels: BTreeMap::new(),
        parents: Vec::new(),
        peer: Some(id),
        own_tunnel: true,
        address: Some(IpAddr::V4(Ipv4Addr::new(172, 24, 0, raw as u8))),
        other_address: None,
        direct: None,
        ssh: SshSpec { port: 22, user: None, pin: None },
        route: RoutePolicy::Auto,
        max_silence: None,
        freshness: None,
        budget: None,
        timing: Timing::DEFAULT,
        thresholds: Vec::new(),
        alerting: Alerting::default(),
        services: Vec::new(),
    }
}
