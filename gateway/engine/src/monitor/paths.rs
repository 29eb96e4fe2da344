//! The paths to a host: through its tunnel, or over the Internet.
//!
//! This module knows the host's spec, not its state; the caller passes which path is known to be
//! down.

use std::net::IpAddr;

use crate::id::PeerId;
use crate::messages::{Check, HostSpec, Route, RoutePolicy};

/// There is no raw socket outside the tunnels.
const NO_DIRECT_PING: &str =
    "a direct ping is not possible without a raw socket: check a TCP port or SSH, or go through a tunnel";
const NO_TUNNEL_OF_ITS_OWN: &str = "this host has no tunnel of its own: switch the check off";
const NO_WAY: &str = "no address on the route of this check: give the host one, or another route";

/// The path of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tunnel,
    Direct,
}

impl Via {
    pub const fn name(self) -> &'static str {
        match self {
            Via::Tunnel => "tunnel",
            Via::Direct => "direct",
        }
    }
}

/// The paths that a host's route policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The peer that can be dialled and that has evidence.
    pub peer: Option<PeerId>,
    /// Whether packets of that peer prove that this host is up.
    pub own: bool,
    /// The address that is probed first: the one that replied last.
    pub inner: Option<(PeerId, IpAddr)>,
    /// Its address of the other family, probed if the first is silent.
    pub other: Option<IpAddr>,
    pub direct: Option<String>,
}

impl Paths {
    /// Returns the paths of a host. A host with a direct route still uses the evidence of its own
    /// tunnel, because that costs nothing and is true.
    pub fn of(spec: &HostSpec) -> Paths {
        let through = spec.route != RoutePolicy::Direct;
        Paths {
            peer: spec.peer.filter(|_| through || spec.own_tunnel),
            own: spec.own_tunnel,
            inner: spec.peer.zip(spec.address).filter(|_| through),
            other: spec.other_address.filter(|_| through && spec.peer.is_some() && spec.address.is_some()),
            direct: spec.direct.clone().filter(|_| spec.route != RoutePolicy::Tunnel),
        }
    }

    pub fn address(&self) -> Option<IpAddr> {
        self.inner.map(|(_, address)| address)
    }

    /// Prefers this address from now on; returns whether that is a change.
    pub fn prefer(&mut self, address: IpAddr) -> bool {
        let news = self.other == Some(address);
        if news {
            self.other = self.address();
            self.inner = self.inner.map(|(peer, _)| (peer, address));
        }
        news
    }

    /// Returns the other one of the two inner addresses.
    pub fn other_than(&self, asked: Option<IpAddr>) -> Option<IpAddr> {
        let asked = asked?;
        self.other.into_iter().chain(self.address()).find(|address| *address != asked)
    }

    pub fn route(&self, way: Via) -> Option<Route> {
        match way {
            Via::Tunnel => self.inner.map(|(peer, address)| Route::Tunnel { peer, address }),
            Via::Direct => self.direct.clone().map(|host| Route::Direct { host }),
        }
    }

    /// Returns the paths of an SSH session in the order to try them. The tunnel comes first; while
    /// it is known to be down, only the public address is used.
    pub fn ssh(&self, tunnel_down: bool) -> Vec<Via> {
        match (self.inner.is_some(), self.direct.is_some()) {
            (true, true) if tunnel_down => vec![Via::Direct],
            (true, true) => vec![Via::Tunnel, Via::Direct],
            (true, false) => vec![Via::Tunnel],
            (false, true) => vec![Via::Direct],
            (false, false) => vec![],
        }
    }

    /// Returns the path of a TCP connection. A port of the public address is not the same service
    /// as that port inside, so there is no second path.
    pub fn tcp(&self) -> Option<Via> {
        match (self.inner.is_some(), self.direct.is_some()) {
            (true, _) => Some(Via::Tunnel),
            (false, true) => Some(Via::Direct),
            (false, false) => None,
        }
    }

    /// Whether the tunnel is the only path for this check.
    pub fn needs_tunnel(&self, check: &Check) -> bool {
        match check {
            Check::Tunnel | Check::Ping { .. } => true,
            Check::Passive | Check::Heartbeat(_) | Check::Rental => false,
            Check::Tcp { .. } => self.tcp() == Some(Via::Tunnel),
            Check::Ssh | Check::Sensor(_) | Check::Command { .. } => self.direct.is_none(),
        }
    }

    /// Whether a check that runs on the host lacks its login; it is then skipped without a result.
    pub fn lacks_login(check: &Check, user: Option<&str>) -> bool {
        user.is_none() && matches!(check, Check::Sensor(_) | Check::Command { .. })
    }

    /// Returns why a check can never run for this host.
    pub fn refusal(&self, check: &Check) -> Option<&'static str> {
        match check {
            Check::Tunnel => (!self.own || self.peer.is_none()).then_some(NO_TUNNEL_OF_ITS_OWN),
            Check::Ping { .. } => self.inner.is_none().then_some(NO_DIRECT_PING),
            Check::Passive | Check::Heartbeat(_) | Check::Rental => None,
            _ if self.inner.is_none() && self.direct.is_none() => Some(NO_WAY),
            Check::Tcp { .. } | Check::Ssh | Check::Sensor(_) | Check::Command { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::testing;

    fn paths(policy: RoutePolicy) -> Paths {
        Paths::of(&HostSpec { route: policy, direct: Some("cam.example".into()), ..testing::host(1) })
    }

    #[test]
    fn the_route_policy_decides_which_paths_exist() {
        let auto = paths(RoutePolicy::Auto);
        assert_eq!(auto.ssh(false), [Via::Tunnel, Via::Direct]);
        assert_eq!(auto.ssh(true), [Via::Direct]);
        assert_eq!(paths(RoutePolicy::Tunnel).ssh(true), [Via::Tunnel]);
        assert_eq!(paths(RoutePolicy::Direct).ssh(false), [Via::Direct]);
        assert_eq!(paths(RoutePolicy::Direct).tcp(), Some(Via::Direct));
        assert_eq!(auto.tcp(), Some(Via::Tunnel));
    }

    #[test]
    fn the_address_that_replied_is_probed_first() {
        let [v4, v6]: [IpAddr; 2] = ["172.24.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let spec = HostSpec { other_address: Some(v6), ..testing::host(1) };
        let mut paths = Paths::of(&spec);
        assert_eq!((paths.address(), paths.other_than(Some(v4))), (Some(v4), Some(v6)));
        assert!(!paths.prefer(v4) && paths.prefer(v6) && !paths.prefer(v6));
        assert_eq!((paths.address(), paths.other_than(Some(v6))), (Some(v6), Some(v4)));
        assert!(!paths.prefer("fd00::2".parse().unwrap()), "it has no such address");
        assert_eq!(Paths::of(&testing::host(1)).other_than(Some(v4)), None, "it has but one");
        let direct = Paths::of(&HostSpec { route: RoutePolicy::Direct, ..spec });
        assert_eq!((direct.address(), direct.other), (None, None));
    }

    #[test]
    fn a_direct_ping_is_refused_with_the_reason() {
        let refusal = paths(RoutePolicy::Direct).refusal(&Check::Ping { count: 1 });
        assert!(refusal.unwrap().contains("raw socket"));
        assert_eq!(paths(RoutePolicy::Auto).refusal(&Check::Ping { count: 1 }), None);
    }

    #[test]
    fn packets_of_a_device_prove_nothing_about_hosts_behind_it() {
        let behind = HostSpec { own_tunnel: false, ..testing::host(1) };
        assert_eq!(Paths::of(&behind).refusal(&Check::Tunnel), Some(NO_TUNNEL_OF_ITS_OWN));
    }

    #[test]
    fn checks_over_ssh_need_a_login() {
        let command = Check::Command { line: "true".into() };
        assert!(Paths::lacks_login(&command, None));
        assert!(!Paths::lacks_login(&command, Some("fleet")));
        assert!(!Paths::lacks_login(&Check::Ssh, None));
    }
}
