//! ICMP for IPv4 and IPv6 as one: echo requests out, echo replies and errors in.
//!
//! Knows packets only; whether a reply belongs to anything is `flows`' to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use super::inner::Inner;

/// What operating systems use for their own pings.
const HOP_LIMIT: u8 = 64;

/// The part of an echo message that both directions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoBody<'a> {
    pub ident: u16,
    pub seq: u16,
    pub data: &'a [u8],
}

/// A router or host could not deliver something of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered<'a> {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: IpProtocol,
    /// The first bytes of what was inside, eight at least.
    pub start: &'a [u8],
    pub reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp<'a> {
    Reply(EchoBody<'a>),
    Error(Undelivered<'a>),
}

impl<'a> Icmp<'a> {
    /// `None`: not ICMP, broken, or of a kind that the gateway never asks for.
    pub fn parse(inner: &Inner<'a>) -> Option<Self> {
        match (inner.source, inner.target) {
            (IpAddr::V4(_), IpAddr::V4(_)) if inner.protocol == IpProtocol::Icmp => parse_v4(inner.payload),
            (IpAddr::V6(source), IpAddr::V6(target)) if inner.protocol == IpProtocol::Icmpv6 => {
                parse_v6(source, target, inner.payload)
            }
            _ => None,
        }
    }
}

fn parse_v4(payload: &[u8]) -> Option<Icmp<'_>> {
    let packet = Icmpv4Packet::new_checked(payload).ok()?;
    let (header, start, reason) = match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()? {
        Icmpv4Repr::EchoReply { ident, seq_no, data } => {
            return Some(Icmp::Reply(EchoBody { ident, seq: seq_no, data }));
        }
        Icmpv4Repr::DstUnreachable { reason, header, data } => (header, data, reason_v4(reason)),
        Icmpv4Repr::TimeExceeded { header, data, .. } => (header, data, "hop limit exceeded"),
        _ => return None,
    };
    Some(Icmp::Error(Undelivered {
        source: header.src_addr.into(),
        target: header.dst_addr.into(),
        protocol: header.next_header,
        start,
        reason,
    }))
}

fn parse_v6(source: Ipv6Addr, target: Ipv6Addr, payload: &[u8]) -> Option<Icmp<'_>> {
    let packet = Icmpv6Packet::new_checked(payload).ok()?;
    let sums = ChecksumCapabilities::default();
    let (header, start, reason) = match Icmpv6Repr::parse(&source, &target, &packet, &sums).ok()? {
        Icmpv6Repr::EchoReply { ident, seq_no, data } => {
            return Some(Icmp::Reply(EchoBody { ident, seq: seq_no, data }));
        }
        Icmpv6Repr::DstUnreachable { reason, header, data } => (header, data, reason_v6(reason)),
        Icmpv6Repr::TimeExceeded { header, data, .. } => (header, data, "hop limit exceeded"),
        _ => return None,
    };
    (start.len() >= 8).then_some(Icmp::Error(Undelivered {
        source: header.src_addr.into(),
        target: header.dst_addr.into(),
        protocol: header.next_header,
        start,
        reason,
    }))
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

/// An echo request. `None`: the addresses are of different families.
pub fn request(source: IpAddr, target: IpAddr, body: EchoBody<'_>) -> Option<Vec<u8>> {
    let EchoBody { ident, seq: seq_no, data } = body;
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            Some(emit_v4(source, target, &Icmpv4Repr::EchoRequest { ident, seq_no, data }))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            Some(emit_v6(source, target, &Icmpv6Repr::EchoRequest { ident, seq_no, data }))
        }
        _ => None,
    }
}

fn emit_v4(source: Ipv4Addr, target: Ipv4Addr, icmp: &Icmpv4Repr<'_>) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; header.buffer_len() + icmp.buffer_len()];
    let sums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    header.emit(&mut packet, &sums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &sums);
    bytes
}

fn emit_v6(source: Ipv6Addr, target: Ipv6Addr, icmp: &Icmpv6Repr<'_>) -> Vec<u8> {
    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; header.buffer_len() + icmp.buffer_len()];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes);
    header.emit(&mut packet);
    let mut payload = Icmpv6Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&source, &target, &mut payload, &ChecksumCapabilities::default());
    bytes
}

/// What a device makes of an echo request: the tests' other end. `None`: no echo request.
#[cfg(any(test, feature = "sim"))]
pub fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let inner = Inner::parse(request)?;
    let sums = ChecksumCapabilities::default();
    match (inner.source, inner.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let packet = Icmpv4Packet::new_checked(inner.payload).ok()?;
            let Icmpv4Repr::EchoRequest { ident, seq_no, data } = Icmpv4Repr::parse(&packet, &sums).ok()?
            else {
                return None;
            };
            Some(emit_v4(target, source, &Icmpv4Repr::EchoReply { ident, seq_no, data }))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let packet = Icmpv6Packet::new_checked(inner.payload).ok()?;
            let Icmpv6Repr::EchoRequest { ident, seq_no, data } =
                Icmpv6Repr::parse(&source, &target, &packet, &sums).ok()?
            else {
                return None;
            };
            Some(emit_v6(target, source, &Icmpv6Repr::EchoReply { ident, seq_no, data }))
        }
        _ => None,
    }
}

/// What a router behind a device makes of something that it cannot deliver (IPv4).
#[cfg(test)]
pub fn host_unreachable(router: Ipv4Addr, original: &[u8]) -> Vec<u8> {
    let inner = Inner::parse(original).expect("a packet of ours");
    let (IpAddr::V4(source), IpAddr::V4(target)) = (inner.source, inner.target) else {
        panic!("IPv4 is expected");
    };
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: inner.protocol,
        payload_len: inner.payload.len(),
        hop_limit: 1,
    };
    let reason = Icmpv4DstUnreachable::HostUnreachable;
    emit_v4(router, source, &Icmpv4Repr::DstUnreachable { reason, header, data: inner.payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(gateway: &str, device: &str) {
        let (gateway, device) =
            (gateway.parse().expect("an address"), device.parse::<IpAddr>().expect("an address"));
        let body = EchoBody { ident: 7, seq: 65_535, data: b"cookie" };
        let reply = answer(&request(gateway, device, body).expect("one family")).expect("an answer");
        let inner = Inner::parse(&reply).expect("a packet");
        assert_eq!((inner.source, inner.target), (device, gateway));
        assert_eq!(Icmp::parse(&inner), Some(Icmp::Reply(body)));
    }

    #[test]
    fn a_request_is_answered_in_both_families() {
        exchange("172.24.0.1", "172.24.0.2");
        exchange("fd00::1", "fd00::2");
    }

    #[test]
    fn a_broken_checksum_is_no_reply() {
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let body = EchoBody { ident: 1, seq: 1, data: &[0; 8] };
        let mut reply = answer(&request(a, b, body).expect("one family")).expect("an answer");
        *reply.last_mut().expect("not empty") ^= 1;
        assert_eq!(Icmp::parse(&Inner::parse(&reply).expect("a packet")), None);
    }

    #[test]
    fn an_error_names_what_was_not_delivered() {
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let body = EchoBody { ident: 0x1234, seq: 9, data: &[0; 8] };
        let error = host_unreachable([10, 0, 0, 9].into(), &request(a, b, body).expect("one family"));
        let Some(Icmp::Error(error)) = Icmp::parse(&Inner::parse(&error).expect("a packet")) else {
            panic!("an error is expected");
        };
        assert_eq!((error.source, error.target, error.reason), (a, b, "no route to the host"));
        assert_eq!(error.start[4..8], [0x12, 0x34, 0, 9]);
    }
}
