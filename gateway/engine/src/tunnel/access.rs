//! The access filter: the one place that decides who may reach whom through the gateway.
//!
//! Every packet that does not end at the gateway itself comes here. There are no grants, so the
//! filter refuses each packet and returns the reason. It knows nothing about sessions or counters.

use fleetgate_probes::packet::Parsed;

use crate::id::PeerId;
use crate::messages::DropReason;
use crate::time::Now;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Refused(DropReason),
}

/// Decides about a packet of a peer whose target address belongs to `owner`. Denies by default. The
/// time is an argument because access is a window in time.
pub fn verdict(packet: &Parsed<'_>, owner: Option<PeerId>, _now: Now) -> Verdict {
    match owner {
        Some(_) if !packet.dst.is_multicast() => Verdict::Refused(DropReason::NotAllowed),
        _ => Verdict::Refused(DropReason::NoRoute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn judged(target: &str, owner: Option<i64>) -> Verdict {
        let packet = Parsed {
            version: 4,
            src: [10, 0, 0, 3].into(),
            dst: target.parse().expect("an address"),
            protocol: 17,
            fragment: false,
            extensions: false,
            payload: &[],
            len: 20,
        };
        verdict(&packet, owner.map(Id::from_i64), Now::default())
    }

    #[test]
    fn device_to_device_is_closed() {
        assert_eq!(judged("10.0.0.4", Some(2)), Verdict::Refused(DropReason::NotAllowed));
    }

    #[test]
    fn an_address_without_an_owner_has_no_route() {
        assert_eq!(judged("10.0.0.4", None), Verdict::Refused(DropReason::NoRoute));
        assert_eq!(judged("224.0.0.251", None), Verdict::Refused(DropReason::NoRoute));
    }
}
