//! The access of renters to a device: at most what its settings allow.

use std::ops::RangeInclusive;

use crate::messages::{GrantAccess, GrantProtocol};

/// The access that is wanted and not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub protocol: GrantProtocol,
    /// The first port that is not allowed. `None`: ICMP has no ports.
    pub port: Option<u16>,
}

/// Returns the first protocol and port that is wanted and not allowed. Both lists are in the one form of
/// grants: each protocol once, with sorted ranges that do not touch.
pub fn excess(wanted: &[GrantAccess], allowed: &[GrantAccess]) -> Option<Excess> {
    wanted.iter().find_map(|wanted| excess_of(wanted, allowed))
}

fn excess_of(wanted: &GrantAccess, allowed: &[GrantAccess]) -> Option<Excess> {
    let protocol = wanted.protocol;
    let allowed = allowed.iter().find(|allowed| allowed.protocol == protocol);
    if protocol == GrantProtocol::Icmp {
        return allowed.is_none().then_some(Excess { protocol, port: None });
    }
    let ranges = allowed.map_or(&[][..], |allowed| allowed.ports.as_slice());
    let port = wanted.ports.iter().find_map(|wanted| first_outside(wanted, ranges));
    port.map(|port| Excess { protocol, port: Some(port) })
}

/// Returns the first port of a range that lies in none of these.
fn first_outside(wanted: &RangeInclusive<u16>, ranges: &[RangeInclusive<u16>]) -> Option<u16> {
    let Some(around) = ranges.iter().find(|range| range.contains(wanted.start())) else {
        return Some(*wanted.start());
    };
    around.end().checked_add(1).filter(|next| next <= wanted.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(ports: &[RangeInclusive<u16>]) -> GrantAccess {
        GrantAccess { protocol: GrantProtocol::Tcp, ports: ports.to_vec() }
    }

    fn icmp() -> GrantAccess {
        GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() }
    }

    #[test]
    fn the_first_port_that_is_not_allowed_is_named() {
        let allowed = [icmp(), tcp(&[22..=22, 8_000..=8_100])];
        let port = |wanted: &[RangeInclusive<u16>]| {
            excess(&[tcp(wanted)], &allowed).map(|excess| excess.port.unwrap())
        };
        assert_eq!(port(&[22..=22, 8_050..=8_100]), None);
        assert_eq!(port(&[21..=22]), Some(21));
        assert_eq!(port(&[22..=22, 8_050..=8_101]), Some(8_101));
        assert_eq!(port(&[23..=23]), Some(23));
        assert_eq!(excess(&[icmp()], &allowed), None);
        assert_eq!(excess(&[], &[]), None);
        let none = Excess { protocol: GrantProtocol::Icmp, port: None };
        assert_eq!(excess(&[icmp()], &[tcp(&[1..=65_535])]), Some(none));
        let udp = GrantAccess { protocol: GrantProtocol::Udp, ports: vec![53..=53] };
        assert_eq!(excess(&[udp], &allowed), Some(Excess { protocol: GrantProtocol::Udp, port: Some(53) }));
        assert_eq!(excess(&[tcp(&[1..=65_535])], &[tcp(&[1..=65_535])]), None);
    }

    /// Ranges in the one form, of a set of ports.
    fn ranges(ports: u16) -> Vec<RangeInclusive<u16>> {
        let mut found: Vec<RangeInclusive<u16>> = Vec::new();
        for port in (0..16u16).filter(|bit| ports & (1u16 << *bit) != 0) {
            match found.last_mut() {
                Some(last) if *last.end() + 1 == port => *last = *last.start()..=port,
                _ => found.push(port..=port),
            }
        }
        found
    }

    proptest! {
        #[test]
        fn what_is_in_excess_is_the_least_port_of_the_difference(wanted: u16, allowed: u16) {
            let found = excess(&[tcp(&ranges(wanted))], &[tcp(&ranges(allowed))]);
            let outside = (0..16u16).find(|bit| wanted & !allowed & (1u16 << *bit) != 0);
            prop_assert_eq!(found.and_then(|excess| excess.port), outside);
        }
    }
}
