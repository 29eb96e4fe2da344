//! IP packets as views, ICMP echo in both directions, and UDP datagrams, for IPv4 and IPv6.
//!
//! A parsed packet is whole (lengths, version, IPv4 header checksum), and no input panics. The
//! module has no access rules.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet,
    Ipv4Repr, Ipv6Packet, Ipv6Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr,
};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Maximum number of IPv6 extension headers that are parsed. Real packets have one or two; a longer
/// chain is an attempt to hide the content.
pub const MAX_EXTENSIONS: usize = 8;

/// Hop limit of packets built here, as in common systems.
const HOP_LIMIT: u8 = 64;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const FRAGMENT_LEN: usize = 8;

/// A whole IP packet, viewed without copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    pub version: u8,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Protocol of the upper layer, after any extension headers.
    pub protocol: u8,
    /// Part of a fragmented packet, or marked as one: `payload` may not begin with a header.
    pub fragment: bool,
    /// IPv4 options, or IPv6 extension headers other than a fragment header.
    pub extensions: bool,
    /// Payload of the upper layer, without padding after the packet.
    pub payload: &'a [u8],
    /// Length of the whole packet, without padding after it.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    #[error("the packet is neither IPv4 nor IPv6")]
    Version,
    #[error("the packet is shorter than its headers say")]
    Truncated,
    #[error("the checksum of the IPv4 header is wrong")]
    Checksum,
    #[error("the packet has more than {MAX_EXTENSIONS} extension headers")]
    TooManyExtensions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one address is IPv4 and the other IPv6: both must be of the same family")]
pub struct MixedFamilies;

/// Direction of an echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoKind {
    Request,
    Reply,
}

/// An ICMP echo message with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoView<'a> {
    pub kind: EchoKind,
    pub ident: u16,
    pub seq: u16,
    pub data: &'a [u8],
}

/// A UDP datagram with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramView<'a> {
    pub src_port: u16,
    pub dst_port: u16,
    pub data: &'a [u8],
}

/// Parses the IP headers of one packet.
///
/// # Errors
/// Fails when the bytes are not one whole IP packet. Bytes after its end are ignored (WireGuard
/// pads).
pub fn parse(packet: &[u8]) -> Result<Parsed<'_>, BadPacket> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        _ => Err(BadPacket::Version),
    }
}

fn parse_v4(packet: &[u8]) -> Result<Parsed<'_>, BadPacket> {
    let ip = Ipv4Packet::new_checked(packet).map_err(|_| BadPacket::Truncated)?;
    if !ip.verify_checksum() {
        return Err(BadPacket::Checksum);
    }
    Ok(Parsed {
        version: 4,
        src: ip.src_addr().into(),
        dst: ip.dst_addr().into(),
        protocol: ip.next_header().into(),
        fragment: ip.more_frags() || ip.frag_offset() != 0,
        extensions: usize::from(ip.header_len()) > smoltcp::wire::IPV4_HEADER_LEN,
        payload: ip.payload(),
        len: ip.total_len().into(),
    })
}

fn parse_v6(packet: &[u8]) -> Result<Parsed<'_>, BadPacket> {
    let ip = Ipv6Packet::new_checked(packet).map_err(|_| BadPacket::Truncated)?;
    let chain = Chain::walk(ip.next_header().into(), ip.payload())?;
    Ok(Parsed {
        version: 6,
        src: ip.src_addr().into(),
        dst: ip.dst_addr().into(),
        protocol: chain.protocol,
        fragment: chain.fragment,
        extensions: chain.extensions,
        payload: chain.payload,
        len: ip.total_len(),
    })
}

/// A position in a chain of extension headers.
struct Chain<'a> {
    protocol: u8,
    payload: &'a [u8],
    fragment: bool,
    extensions: bool,
}

impl<'a> Chain<'a> {
    fn walk(protocol: u8, payload: &'a [u8]) -> Result<Self, BadPacket> {
        let mut at = Chain { protocol, payload, fragment: false, extensions: false };
        for _ in 0..=MAX_EXTENSIONS {
            match at.protocol {
                FRAGMENT => {
                    at.fragment = true;
                    // The payload of a later fragment does not begin with a header.
                    let first = at.payload.get(2..4).is_some_and(|b| b[0] == 0 && b[1] & 0xf8 == 0);
                    at.skip(FRAGMENT_LEN)?;
                    if !first {
                        return Ok(at);
                    }
                }
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => at.skip_extension(8, 8)?,
                AUTHENTICATION => at.skip_extension(4, 8)?,
                _ => return Ok(at),
            }
        }
        Err(BadPacket::TooManyExtensions)
    }

    /// Skips a header whose second byte gives the length in `unit`s, not counting the first `base`
    /// bytes.
    fn skip_extension(&mut self, unit: usize, base: usize) -> Result<(), BadPacket> {
        self.extensions = true;
        let length = *self.payload.get(1).ok_or(BadPacket::Truncated)?;
        self.skip(usize::from(length) * unit + base)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), BadPacket> {
        let rest = self.payload.get(bytes..).ok_or(BadPacket::Truncated)?;
        self.protocol = self.payload[0];
        self.payload = rest;
        Ok(())
    }
}

/// Returns the echo message in a packet. It must be whole, match the IP version and have a valid
/// checksum.
pub fn echo<'a>(packet: &Parsed<'a>) -> Option<EchoView<'a>> {
    if packet.fragment {
        return None;
    }
    match (packet.src, packet.dst, packet.protocol) {
        (IpAddr::V4(_), IpAddr::V4(_), ICMP) => echo_v4(packet.payload),
        (IpAddr::V6(src), IpAddr::V6(dst), ICMPV6) => {
            let icmp = Icmpv6Packet::new_checked(packet.payload).ok()?;
            let kind = match icmp.msg_type() {
                Icmpv6Message::EchoRequest => EchoKind::Request,
                Icmpv6Message::EchoReply => EchoKind::Reply,
                _ => return None,
            };
            let whole = icmp.msg_code() == 0 && icmp.verify_checksum(&src, &dst);
            whole.then(|| EchoView {
                kind,
                ident: icmp.echo_ident(),
                seq: icmp.echo_seq_no(),
                data: icmp.payload(),
            })
        }
        _ => None,
    }
}

fn echo_v4(payload: &[u8]) -> Option<EchoView<'_>> {
    let icmp = Icmpv4Packet::new_checked(payload).ok()?;
    let kind = match icmp.msg_type() {
        Icmpv4Message::EchoRequest => EchoKind::Request,
        Icmpv4Message::EchoReply => EchoKind::Reply,
        _ => return None,
    };
    let whole = icmp.msg_code() == 0 && icmp.verify_checksum();
    whole.then(|| EchoView { kind, ident: icmp.echo_ident(), seq: icmp.echo_seq_no(), data: icmp.data() })
}

/// Builds a whole packet with one echo request.
///
/// # Errors
/// Fails when the addresses are of different families.
pub fn echo_request(
    src: IpAddr,
    dst: IpAddr,
    ident: u16,
    seq: u16,
    data: &[u8],
) -> Result<Vec<u8>, MixedFamilies> {
    build(src, dst, &EchoView { kind: EchoKind::Request, ident, seq, data })
}

/// Builds a host's reply to an echo request; `None` for any other packet.
pub fn answer_to_echo(request: &Parsed<'_>) -> Option<Vec<u8>> {
    let asked = echo(request).filter(|echo| echo.kind == EchoKind::Request)?;
    build(request.dst, request.src, &EchoView { kind: EchoKind::Reply, ..asked }).ok()
}

/// Returns the UDP datagram in a packet. It must be whole and have a valid checksum, which only IPv4
/// may omit.
pub fn datagram<'a>(packet: &Parsed<'a>) -> Option<DatagramView<'a>> {
    if packet.fragment || packet.protocol != UDP {
        return None;
    }
    let udp = UdpPacket::new_checked(packet.payload).ok()?;
    let is_bare = udp.checksum() == 0 && packet.version == 6;
    let whole = !is_bare && udp.verify_checksum(&packet.src.into(), &packet.dst.into());
    whole.then(|| DatagramView { src_port: udp.src_port(), dst_port: udp.dst_port(), data: udp.payload() })
}

/// Builds a whole packet with one UDP datagram. `data` must fit a packet, as all data does that the
/// caller bounds by the MTU.
///
/// # Errors
/// Fails when the addresses are of different families.
pub fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Result<Vec<u8>, MixedFamilies> {
    let sums = ChecksumCapabilities::default();
    let (next_header, payload_len) = (IpProtocol::Udp, UDP_HEADER_LEN + data.len());
    let mut bytes = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let mut bytes = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &sums);
            bytes
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let mut bytes = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
            bytes
        }
        _ => return Err(MixedFamilies),
    };
    let header = bytes.len() - payload_len;
    let mut packet = UdpPacket::new_unchecked(&mut bytes[header..]);
    let ports = UdpRepr { src_port: src.port(), dst_port: dst.port() };
    let (from, to) = (src.ip().into(), dst.ip().into());
    ports.emit(&mut packet, &from, &to, data.len(), |place| place.copy_from_slice(data), &sums);
    Ok(bytes)
}

fn build(src: IpAddr, dst: IpAddr, echo: &EchoView<'_>) -> Result<Vec<u8>, MixedFamilies> {
    let sums = ChecksumCapabilities::default();
    let EchoView { kind, ident, seq: seq_no, data } = *echo;
    match (src, dst) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let icmp = match kind {
                EchoKind::Request => Icmpv4Repr::EchoRequest { ident, seq_no, data },
                EchoKind::Reply => Icmpv4Repr::EchoReply { ident, seq_no, data },
            };
            let (next_header, payload_len) = (IpProtocol::Icmp, icmp.buffer_len());
            let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let mut bytes = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &sums);
            icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[ip.buffer_len()..]), &sums);
            Ok(bytes)
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let icmp = match kind {
                EchoKind::Request => Icmpv6Repr::EchoRequest { ident, seq_no, data },
                EchoKind::Reply => Icmpv6Repr::EchoReply { ident, seq_no, data },
            };
            let (next_header, payload_len) = (IpProtocol::Icmpv6, icmp.buffer_len());
            let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
            let mut bytes = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
            let body = &mut bytes[ip.buffer_len()..];
            icmp.emit(&src_addr, &dst_addr, &mut Icmpv6Packet::new_unchecked(body), &sums);
            Ok(bytes)
        }
        _ => Err(MixedFamilies),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAMILIES: [(&str, &str); 2] = [("172.24.0.1", "172.24.0.7"), ("fd00::1", "fd00::7")];

    fn addresses((a, b): (&str, &str)) -> (IpAddr, IpAddr) {
        (a.parse().expect("an address"), b.parse().expect("an address"))
    }

    fn request(family: (&str, &str)) -> Vec<u8> {
        let (src, dst) = addresses(family);
        echo_request(src, dst, 7, 9, b"cookie").expect("one family")
    }

    /// Builds an IPv6 packet with the given chain of extension headers before `payload`.
    fn v6_with(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = request(FAMILIES[1])[..40].to_vec();
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next_header;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_request_is_parsed_as_it_was_built() {
        for family in FAMILIES {
            let (src, dst) = addresses(family);
            let packet = request(family);
            let ip = parse(&packet).expect("a packet");
            assert_eq!((ip.src, ip.dst, ip.len), (src, dst, packet.len()));
            assert!(!ip.fragment && !ip.extensions);
            let expected = EchoView { kind: EchoKind::Request, ident: 7, seq: 9, data: b"cookie" };
            assert_eq!(echo(&ip), Some(expected));
        }
    }

    #[test]
    fn an_answer_turns_the_addresses_round_and_keeps_the_rest() {
        for family in FAMILIES {
            let (src, dst) = addresses(family);
            let asked = request(family);
            let answer = answer_to_echo(&parse(&asked).expect("a packet")).expect("an answer");
            let ip = parse(&answer).expect("a packet");
            assert_eq!((ip.src, ip.dst), (dst, src));
            let expected = EchoView { kind: EchoKind::Reply, ident: 7, seq: 9, data: b"cookie" };
            assert_eq!(echo(&ip), Some(expected));
            assert_eq!(answer_to_echo(&ip), None, "an answer is not answered");
        }
    }

    #[test]
    fn one_wrong_bit_anywhere_in_an_ipv4_header_or_in_icmp_is_noticed() {
        for (family, covered_from) in [(FAMILIES[0], 0), (FAMILIES[1], 40)] {
            let good = request(family);
            for bit in covered_from * 8..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&bad).ok().as_ref().and_then(echo), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_datagram_is_parsed_as_it_was_built_and_one_wrong_bit_is_noticed() {
        for family in FAMILIES {
            let (src, dst) = addresses(family);
            let ends = (SocketAddr::new(src, 40_000), SocketAddr::new(dst, 53));
            let packet = udp(ends.0, ends.1, b"question").expect("one family");
            let ip = parse(&packet).expect("a packet");
            let expected = DatagramView { src_port: 40_000, dst_port: 53, data: b"question" };
            assert_eq!(datagram(&ip), Some(expected));
            for bit in (packet.len() - 16) * 8..packet.len() * 8 {
                let mut bad = packet.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&bad).ok().as_ref().and_then(datagram), None, "bit {bit}");
            }
            let mut bare = packet.clone();
            let sum = packet.len() - 16 + 6;
            bare[sum..sum + 2].copy_from_slice(&[0, 0]);
            let is_read = parse(&bare).ok().as_ref().and_then(datagram).is_some();
            assert_eq!(is_read, src.is_ipv4(), "only IPv4 may omit the checksum");
        }
        let mixed = udp("10.0.0.1:1".parse().expect("v4"), "[fd00::1]:1".parse().expect("v6"), b"");
        assert_eq!(mixed, Err(MixedFamilies));
    }

    #[test]
    fn padding_behind_a_packet_is_not_part_of_it() {
        for family in FAMILIES {
            let mut padded = request(family);
            let len = padded.len();
            padded.extend([0; 12]);
            let ip = parse(&padded).expect("a packet");
            assert_eq!((ip.len, echo(&ip).map(|e| e.data)), (len, Some(&b"cookie"[..])));
        }
    }

    #[test]
    fn what_is_not_a_whole_packet_is_refused() {
        assert_eq!(parse(&[]), Err(BadPacket::Version));
        assert_eq!(parse(&[0x50; 60]), Err(BadPacket::Version));
        for family in FAMILIES {
            let packet = request(family);
            for len in 1..packet.len() {
                assert_eq!(parse(&packet[..len]), Err(BadPacket::Truncated), "{len}");
            }
        }
        let mut wrong = request(FAMILIES[0]);
        wrong[10] ^= 1;
        assert_eq!(parse(&wrong), Err(BadPacket::Checksum));
    }

    #[test]
    fn families_do_not_mix() {
        let (v4, v6) = (addresses(FAMILIES[0]).0, addresses(FAMILIES[1]).0);
        assert_eq!(echo_request(v4, v6, 1, 1, b""), Err(MixedFamilies));
    }

    #[test]
    fn ipv4_fragments_are_flagged_and_carry_no_echo() {
        for flags in [[0x20, 0], [0, 1]] {
            let mut packet = request(FAMILIES[0]);
            packet[6..8].copy_from_slice(&flags);
            Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
            let ip = parse(&packet).expect("a packet");
            assert!(ip.fragment);
            assert_eq!(echo(&ip), None);
        }
    }

    #[test]
    fn ipv6_extension_headers_are_walked_and_noted() {
        let mut payload = vec![DESTINATION, 1];
        payload.extend([0; 14]);
        payload.extend([TCP, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(b"segment");
        let packet = v6_with(HOP_BY_HOP, &payload);
        let ip = parse(&packet).expect("a packet");
        assert_eq!(
            (ip.protocol, ip.payload, ip.extensions, ip.fragment),
            (TCP, &b"segment"[..], true, false)
        );
    }

    #[test]
    fn ipv6_fragments_are_flagged() {
        let first = [UDP, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3];
        let packet = v6_with(FRAGMENT, &first);
        let ip = parse(&packet).expect("a packet");
        assert_eq!((ip.protocol, ip.payload, ip.fragment), (UDP, &[1u8, 2, 3][..], true));
        // The payload of a later fragment is not taken for another extension header.
        let later = [HOP_BY_HOP, 0, 0, 8, 0, 0, 0, 9, 255, 255];
        let packet = v6_with(FRAGMENT, &later);
        let ip = parse(&packet).expect("a packet");
        assert_eq!((ip.protocol, ip.payload, ip.fragment), (HOP_BY_HOP, &[255u8, 255][..], true));
    }

    #[test]
    fn an_endless_or_broken_chain_is_refused() {
        let header = [DESTINATION, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&v6_with(DESTINATION, &header.repeat(20))), Err(BadPacket::TooManyExtensions));
        assert_eq!(parse(&v6_with(DESTINATION, &header[..7])), Err(BadPacket::Truncated));
        assert_eq!(parse(&v6_with(DESTINATION, &[])), Err(BadPacket::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), six: bool, fit: bool) {
            if let (true, Some(first)) = (fit, bytes.first_mut()) {
                *first = if six { 0x60 } else { 0x45 };
            }
            if fit && bytes.len() >= 40 {
                let len = bytes.len() as u16 - if six { 40 } else { 0 };
                bytes[if six { 4..6 } else { 2..4 }].copy_from_slice(&len.to_be_bytes());
                if !six {
                    Ipv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
                }
            }
            if let Ok(ip) = parse(&bytes) {
                prop_assert!(ip.len <= bytes.len() && ip.payload.len() <= ip.len);
                let _ = (echo(&ip), answer_to_echo(&ip));
            }
        }
    }
}
