//! ICMP errors for IPv4 and IPv6 in one form: which packet of ours was not delivered, and why.
//!
//! A flow trusts an error only if the error quotes the flow's unpredictable parts.

#[cfg(test)]
use std::net::Ipv4Addr;
use std::net::{IpAddr, Ipv6Addr};

use fleetgate_probes::packet::{ICMP, ICMPV6, Parsed};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
};
#[cfg(test)]
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr};

/// The least that an error quotes of the original packet behind its IP header, in bytes.
pub const QUOTED: usize = 8;

/// A router or host could not deliver a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// The first bytes of the original packet behind its IP header.
    pub quoted: [u8; QUOTED],
    pub reason: &'static str,
}

impl Undelivered {
    /// Parses an ICMP error. `None`: another packet, a malformed one, or a kind that does not
    /// concern delivery.
    pub fn parse(packet: &Parsed<'_>) -> Option<Self> {
        match (packet.src, packet.dst, packet.protocol) {
            (IpAddr::V4(_), _, ICMP) => parse_v4(packet.payload),
            (IpAddr::V6(src), IpAddr::V6(dst), ICMPV6) => parse_v6(src, dst, packet.payload),
            _ => None,
        }
    }
}

fn parse_v4(payload: &[u8]) -> Option<Undelivered> {
    let packet = Icmpv4Packet::new_checked(payload).ok()?;
    let (header, data, reason) = match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()? {
        Icmpv4Repr::DstUnreachable { reason, header, data } => (header, data, reason_v4(reason)),
        Icmpv4Repr::TimeExceeded { header, data, .. } => (header, data, "hop limit exceeded"),
        _ => return None,
    };
    Some(Undelivered {
        src: header.src_addr.into(),
        dst: header.dst_addr.into(),
        protocol: header.next_header.into(),
        quoted: data.first_chunk().copied()?,
        reason,
    })
}

fn parse_v6(src: Ipv6Addr, dst: Ipv6Addr, payload: &[u8]) -> Option<Undelivered> {
    let packet = Icmpv6Packet::new_checked(payload).ok()?;
    let sums = ChecksumCapabilities::default();
    let (header, data, reason) = match Icmpv6Repr::parse(&src, &dst, &packet, &sums).ok()? {
        Icmpv6Repr::DstUnreachable { reason, header, data } => (header, data, reason_v6(reason)),
        Icmpv6Repr::TimeExceeded { header, data, .. } => (header, data, "hop limit exceeded"),
        _ => return None,
    };
    Some(Undelivered {
        src: header.src_addr.into(),
        dst: header.dst_addr.into(),
        protocol: header.next_header.into(),
        quoted: data.first_chunk().copied()?,
        reason,
    })
}

fn reason_v4(reason: Icmpv4DstUnreachable) -> &'static str {
    match reason {
        Icmpv4DstUnreachable::NetUnreachable => "no route to the network",
        Icmpv4DstUnreachable::HostUnreachable => "no route to the host",
        Icmpv4DstUnreachable::PortUnreachable => "port unreachable",
        Icmpv4DstUnreachable::HostProhibited
        | Icmpv4DstUnreachable::NetProhibited
        | Icmpv4DstUnreachable::CommProhibited => "administratively prohibited",
        _ => "destination unreachable",
    }
}

fn reason_v6(reason: Icmpv6DstUnreachable) -> &'static str {
    match reason {
        Icmpv6DstUnreachable::NoRoute => "no route to the network",
        Icmpv6DstUnreachable::AddrUnreachable => "no route to the host",
        Icmpv6DstUnreachable::PortUnreachable => "port unreachable",
        Icmpv6DstUnreachable::AdminProhibit => "administratively prohibited",
        _ => "destination unreachable",
    }
}

/// Makes the error of `router` about a packet that it cannot deliver.
#[cfg(test)]
pub fn host_unreachable(router: IpAddr, original: &[u8]) -> Vec<u8> {
    let packet = fleetgate_probes::packet::parse(original).expect("a packet");
    match (router, packet.src, packet.dst) {
        (IpAddr::V4(router), IpAddr::V4(src), IpAddr::V4(dst)) => v4_unreachable(router, (src, dst), &packet),
        (IpAddr::V6(router), IpAddr::V6(src), IpAddr::V6(dst)) => v6_unreachable(router, (src, dst), &packet),
        _ => panic!("one family is expected"),
    }
}

#[cfg(test)]
fn v4_unreachable(
    router: Ipv4Addr,
    (src_addr, dst_addr): (Ipv4Addr, Ipv4Addr),
    inside: &Parsed<'_>,
) -> Vec<u8> {
    let sums = ChecksumCapabilities::default();
    let payload_len = inside.payload.len();
    let header =
        Ipv4Repr { src_addr, dst_addr, next_header: inside.protocol.into(), payload_len, hop_limit: 1 };
    let reason = Icmpv4DstUnreachable::HostUnreachable;
    let icmp = Icmpv4Repr::DstUnreachable { reason, header, data: inside.payload };
    let (next_header, payload_len) = (IpProtocol::Icmp, icmp.buffer_len());
    let ip = Ipv4Repr { src_addr: router, dst_addr: src_addr, next_header, payload_len, hop_limit: 64 };
    let mut bytes = vec![0; ip.buffer_len() + payload_len];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &sums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[ip.buffer_len()..]), &sums);
    bytes
}

#[cfg(test)]
fn v6_unreachable(
    router: Ipv6Addr,
    (src_addr, dst_addr): (Ipv6Addr, Ipv6Addr),
    inside: &Parsed<'_>,
) -> Vec<u8> {
    let payload_len = inside.payload.len();
    let header =
        Ipv6Repr { src_addr, dst_addr, next_header: inside.protocol.into(), payload_len, hop_limit: 1 };
    let reason = Icmpv6DstUnreachable::AddrUnreachable;
    let icmp = Icmpv6Repr::DstUnreachable { reason, header, data: inside.payload };
    let (next_header, payload_len) = (IpProtocol::Icmpv6, icmp.buffer_len());
    let ip = Ipv6Repr { src_addr: router, dst_addr: src_addr, next_header, payload_len, hop_limit: 64 };
    let mut bytes = vec![0; ip.buffer_len() + payload_len];
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
    let body = &mut bytes[ip.buffer_len()..];
    icmp.emit(&router, &src_addr, &mut Icmpv6Packet::new_unchecked(body), &ChecksumCapabilities::default());
    bytes
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::packet::{echo_request, parse};
    use proptest::prelude::*;

    use super::*;

    fn addresses(texts: [&str; 3]) -> [IpAddr; 3] {
        texts.map(|text| text.parse().expect("an address"))
    }

    #[test]
    fn an_icmp_error_yields_the_undelivered_packet() {
        for texts in [["10.0.0.1", "10.0.0.2", "10.0.0.9"], ["fd00::1", "fd00::2", "fd00::9"]] {
            let [src, dst, router] = addresses(texts);
            let request = echo_request(src, dst, 0x1234, 9, &[0; 8]).expect("one family");
            let error = host_unreachable(router, &request);
            let error = Undelivered::parse(&parse(&error).expect("a packet")).expect("an error");
            assert_eq!((error.src, error.dst, error.reason), (src, dst, "no route to the host"));
            assert_eq!(error.quoted[4..8], [0x12, 0x34, 0, 9]);
        }
    }

    #[test]
    fn an_echo_is_no_error() {
        let [src, dst, _] = addresses(["fd00::1", "fd00::2", "fd00::9"]);
        let request = echo_request(src, dst, 1, 1, &[0; 8]).expect("one family");
        assert_eq!(Undelivered::parse(&parse(&request).expect("a packet")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            let [src, dst, _] = addresses(if v6 { ["fd00::1", "fd00::2", "::"] } else { ["1.2.3.4", "2.3.4.5", "0.0.0.0"] });
            let protocol = if v6 { ICMPV6 } else { ICMP };
            let packet = Parsed {
                version: 4, src, dst, protocol, fragment: false, extensions: false, payload: &payload, len: 0,
            };
            let _ = Undelivered::parse(&packet);
        }
    }
}
