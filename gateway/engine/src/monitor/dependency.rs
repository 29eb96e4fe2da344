//! The dependencies of checks: a failure counts only while the parent check is ok.
//!
//! `ping` and the checks through the tunnel depend on `tunnel`, those over SSH on `ssh`, and all on
//! the host. Only the nearest is named, because it has its own dependency. This module knows no
//! states.

use crate::messages::Check;

use crate::monitor::paths::Via;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependsOn {
    Host,
    /// A service of the same host, by its position.
    Service(usize),
}

/// Returns the nearest dependency of a result of `check` over that path. A service that is switched
/// off is passed over.
pub fn nearest(check: &Check, way: Via, services: &[&Check]) -> DependsOn {
    let position = |wanted: fn(&Check) -> bool| services.iter().position(|c| wanted(c));
    let tunnel = || position(|c| *c == Check::Tunnel).filter(|_| way == Via::Tunnel);
    let found = match check {
        Check::Tunnel | Check::Passive | Check::Heartbeat(_) | Check::Rental => None,
        Check::Ping { .. } | Check::Tcp { .. } | Check::Ssh => tunnel(),
        Check::Sensor(_) | Check::Command { .. } => position(|c| *c == Check::Ssh).or_else(tunnel),
    };
    found.map_or(DependsOn::Host, DependsOn::Service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Via::{Direct, Tunnel};
    use fleetgate_probes::sensors::Sensor;

    #[test]
    fn each_check_depends_on_the_nearest_thing_that_is_watched() {
        let (ping, tcp) = (Check::Ping { count: 3 }, Check::Tcp { port: 80 });
        let (load, command) = (Check::Sensor(Sensor::Load), Check::Command { line: "true".into() });
        let all = [&Check::Tunnel, &Check::Ssh, &ping];
        let no_ssh = [&Check::Tunnel, &ping];
        let table: &[(&Check, Via, &[&Check], DependsOn)] = &[
            (&Check::Tunnel, Tunnel, &all, DependsOn::Host),
            (&ping, Tunnel, &all, DependsOn::Service(0)),
            (&tcp, Tunnel, &all, DependsOn::Service(0)),
            (&tcp, Direct, &all, DependsOn::Host),
            (&Check::Ssh, Tunnel, &all, DependsOn::Service(0)),
            (&Check::Ssh, Direct, &all, DependsOn::Host),
            (&load, Tunnel, &all, DependsOn::Service(1)),
            (&load, Direct, &all, DependsOn::Service(1)),
            (&command, Tunnel, &no_ssh, DependsOn::Service(0)),
            (&command, Direct, &no_ssh, DependsOn::Host),
            (&ping, Tunnel, &[&ping], DependsOn::Host),
            (&load, Tunnel, &[], DependsOn::Host),
        ];
        for (check, way, services, expected) in table {
            assert_eq!(nearest(check, *way, services), *expected, "{check:?} {way:?} {services:?}");
        }
    }
}
