//! Hosts and services with default settings, for tests, simulations and benchmarks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::HostId;
use crate::messages::{Alerting, Check, HostSpec, RoutePolicy, ServiceSpec, SshSpec, Timing};

impl HostSpec {
    /// Returns a host without a path and without services: it only has passive results.
    pub fn without_path(id: HostId, name: impl Into<String>) -> HostSpec {
        HostSpec {
            id,
            name: name.into(),
            labels: BTreeMap::new(),
            parents: Vec::new(),
            peer: None,
            own_tunnel: false,
            address: None,
            other_address: None,
            direct: None,
            ssh: SshSpec { port: 22, user: None, pin: None },
            route: RoutePolicy::Auto,
            max_silence: None,
            freshness: None,
            timing: Timing::DEFAULT,
            thresholds: Vec::new(),
            budget: None,
            alerting: Alerting::default(),
            services: Vec::new(),
        }
    }

    /// Returns a device with a tunnel of its own, without services.
    pub fn device(id: HostId, name: impl Into<String>, address: impl Into<IpAddr>) -> HostSpec {
        let (peer, address) = (Some(id), Some(address.into()));
        HostSpec { peer, own_tunnel: true, address, ..HostSpec::without_path(id, name) }
    }
}

impl ServiceSpec {
    /// Returns a service with default settings.
    pub fn plain(name: impl Into<String>, check: Check) -> ServiceSpec {
        ServiceSpec {
            name: name.into(),
            check,
            timing: Timing::DEFAULT,
            thresholds: Vec::new(),
            usual: None,
            freshness: None,
            alerting: Alerting::default(),
        }
    }
}
