//! The dependencies of checks: a failure counts only while the parent check is ok.
//!
//! `ping` and the checks through the tunnel depend on `tunnel`, those over SSH on `ssh`, and all on
//! the host. Only the nearest is named, because it has its own dependency. This module knows no
//! states.

use crate::wire::Check;

use super::reach::Way;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Host,
    /// A service of the same host, by its position.
    Service(usize),
}

/// Returns the nearest dependency of a result of `check` over that path. A service that is switched
/// off is passed over.
pub fn nearest(check: &Check, way: Way, services: &[&Check]) -> On {
    let position = |wanted: fn(&Check) -> bool| services.iter().position(|c| wanted(c));
    let tunnel = || position(|c| *c == Check::Tunnel).filter(|_| way == Way::Tunnel);
    let found = match check {
        Check::Tunnel | Check::Passive | Check::Heartbeat(_) => None,
        Check::Ping { .. } | Check::Tcp { .. } | Check::Ssh => tunnel(),
        Check::Sensor(_) | Check::Command { .. } => position(|c| *c == Check::Ssh).or_else(tunnel),
    };
    found.map_or(On::Host, On::Service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Way::{Direct, Tunnel};
    use fleetgate_probes::sensors::Sensor;

    #[test]
    fn each_check_depends_on_the_nearest_thing_that_is_watched() {
        let (ping, tcp) = (Check::Ping { count: 3 }, Check::Tcp { port: 80 });
        let (load, command) = (Check::Sensor(Sensor::Load), Check::Command { line: "true".into() });
        let all = [&Check::Tunnel, &Check::Ssh, &ping];
        let no_ssh = [&Check::Tunnel, &ping];
        let table: &[(&Check, Way, &[&Check], On)] = &[
            (&Check::Tunnel, Tunnel, &all, On::Host),
            (&ping, Tunnel, &all, On::Service(0)),
            (&tcp, Tunnel, &all, On::Service(0)),
            (&tcp, Direct, &all, On::Host),
            (&Check::Ssh, Tunnel, &all, On::Service(0)),
            (&Check::Ssh, Direct, &all, On::Host),
            (&load, Tunnel, &all, On::Service(1)),
            (&load, Direct, &all, On::Service(1)),
            (&command, Tunnel, &no_ssh, On::Service(0)),
            (&command, Direct, &no_ssh, On::Host),
            (&ping, Tunnel, &[&ping], On::Host),
            (&load, Tunnel, &[], On::Host),
        ];
        for (check, way, services, expected) in table {
            assert_eq!(nearest(check, *way, services), *expected, "{check:?} {way:?} {services:?}");
        }
    }
}
