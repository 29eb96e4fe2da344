//! Packets of every kind, built for tests, and whether their checksums are right.

use std::net::IpAddr;

use crate::forward::checksum::{checksum, sum};
use crate::forward::headers::{IPV4_HEADER, IPV6_HEADER, bits};

pub fn ip_of(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A packet of `protocol` between two addresses of one family.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut out = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = (IPV4_HEADER + body.len()) as u16;
            let mut out = vec![0x45, 0];
            out.extend(length.to_be_bytes());
            out.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
            fix_v4(&mut out);
            out
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut out = vec![0x60, 0, 0, 0];
            out.extend((body.len() as u16).to_be_bytes());
            out.extend([protocol, 64]);
            out.extend(src.octets());
            out.extend(dst.octets());
            out
        }
        _ => panic!("one family is expected"),
    };
    out.extend_from_slice(body);
    fix_transport(&mut out);
    out
}

pub fn fix_v4(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..IPV4_HEADER]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn network(packet: &[u8]) -> (usize, u8) {
    if packet[0] >> 4 == 6 { (IPV6_HEADER, packet[6]) } else { (IPV4_HEADER, packet[9]) }
}

fn pseudo_header(packet: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 6 { &packet[8..40] } else { &packet[12..20] };
    let mut out = addresses.to_vec();
    out.extend((length as u32).to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// The place of the checksum, and whether it covers the addresses.
fn transport_sum(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        6 => Some((16, true)),
        17 => Some((6, true)),
        1 => Some((2, false)),
        58 => Some((2, true)),
        _ => None,
    }
}

pub fn fix_transport(packet: &mut [u8]) {
    let (at, protocol) = network(packet);
    let Some((place, covers)) = transport_sum(protocol) else { return };
    if packet.len() < at + place + 2 {
        return;
    }
    packet[at + place..at + place + 2].fill(0);
    let pseudo = if covers { pseudo_header(packet, protocol, packet.len() - at) } else { Vec::new() };
    let sum = checksum(&[&pseudo, &packet[at..]]);
    packet[at + place..at + place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the checksums of a whole packet are right. A packet that is cut, as in an error, counts
/// by its IP header.
pub fn has_right_checksums(packet: &[u8]) -> bool {
    let (at, protocol) = network(packet);
    let v6 = at == IPV6_HEADER;
    let length =
        usize::from(u16::from_be_bytes(if v6 { [packet[4], packet[5]] } else { [packet[2], packet[3]] }));
    let length = if v6 { length + at } else { length };
    if !v6 && sum(&packet[..at]) != 0xffff {
        return false;
    }
    let Some((_, covers)) = transport_sum(protocol).filter(|_| length == packet.len()) else { return true };
    let pseudo = if covers { pseudo_header(packet, protocol, packet.len() - at) } else { Vec::new() };
    checksum(&[&pseudo, &packet[at..]]) == 0
}

#[allow(clippy::too_many_arguments)]
pub fn tcp(
    src: &str,
    dst: &str,
    sport: u16,
    dport: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Vec<u8> {
    tcp_between(ip_of(src), ip_of(dst), (sport, dport), flags, (seq, ack), data)
}

pub fn tcp_between(
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    flags: u8,
    (seq, ack): (u32, u32),
    data: &[u8],
) -> Vec<u8> {
    packet(src, dst, 6, &[&tcp_header(ports, flags, (seq, ack), 5)[..], data].concat())
}

pub fn tcp_with_options(src: &str, dst: &str, sport: u16, dport: u16, flags: u8, options: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() as u8 / 4;
    packet(
        ip_of(src),
        ip_of(dst),
        6,
        &[&tcp_header((sport, dport), flags, (0, 0), words)[..], options].concat(),
    )
}

fn tcp_header((sport, dport): (u16, u16), flags: u8, (seq, ack): (u32, u32), words: u8) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out
}

pub fn udp(src: &str, dst: &str, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    udp_between(ip_of(src), ip_of(dst), (sport, dport), data)
}

pub fn udp_between(src: IpAddr, dst: IpAddr, (sport, dport): (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(sport.to_be_bytes());
    body.extend(dport.to_be_bytes());
    body.extend((8 + data.len() as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend_from_slice(data);
    packet(src, dst, 17, &body)
}

pub fn echo(src: &str, dst: &str, request: bool, ident: u16) -> Vec<u8> {
    echo_between(ip_of(src), ip_of(dst), request, ident, 16)
}

pub fn echo_between(src: IpAddr, dst: IpAddr, request: bool, ident: u16, data: usize) -> Vec<u8> {
    let (kind, protocol) = match (src.is_ipv6(), request) {
        (false, true) => (8, 1),
        (false, false) => (0, 1),
        (true, true) => (128, 58),
        (true, false) => (129, 58),
    };
    let mut body = vec![kind, 0, 0, 0];
    body.extend(ident.to_be_bytes());
    body.extend([0, 1]);
    body.resize(8 + data, 7);
    packet(src, dst, protocol, &body)
}

/// A "host unreachable" about `quoted`.
pub fn icmp_error(src: &str, dst: &str, quoted: &[u8]) -> Vec<u8> {
    let kind = if src.contains(':') { (1, 3) } else { (3, 1) };
    icmp_message(ip_of(src), ip_of(dst), kind, quoted)
}

pub fn icmp_message(src: IpAddr, dst: IpAddr, (kind, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let protocol = if src.is_ipv6() { 58 } else { 1 };
    packet(src, dst, protocol, &[&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat())
}

pub fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = ttl;
    } else {
        packet[8] = ttl;
        fix_v4(&mut packet);
    }
    packet
}

/// The same IPv4 packet with four bytes of options.
pub fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut out = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
    out[0] = 0x46;
    let length = out.len() as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out[10..12].fill(0);
    let sum = checksum(&[&out[..24]]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out
}

/// The same IPv6 packet with an extension header of eight bytes.
pub fn with_extension(packet: &[u8], kind: u8) -> Vec<u8> {
    let header = [packet[6], 0, 1, 4, 0, 0, 0, 0];
    let mut out = [&packet[..40], &header, &packet[40..]].concat();
    out[6] = kind;
    let length = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out
}

/// Cuts a packet into fragments: the first with `first` bytes behind the IP header, the second with
/// the rest.
pub fn fragments(packet: &[u8], first: usize, id: u16) -> [Vec<u8>; 2] {
    let (at, _) = network(packet);
    [
        fragment(packet, at..at + first, 0, true, id),
        fragment(packet, at + first..packet.len(), first, false, id),
    ]
}

/// One fragment with a part of a packet's body at any offset.
pub fn fragment(packet: &[u8], part: std::ops::Range<usize>, offset: usize, more: bool, id: u16) -> Vec<u8> {
    let (at, protocol) = network(packet);
    let body = &packet[part];
    if at == IPV6_HEADER {
        let place = offset as u16 | u16::from(more);
        let mut header = vec![protocol, 0];
        header.extend(place.to_be_bytes());
        header.extend(u32::from(id).to_be_bytes());
        let mut out = [&packet[..40], &header, body].concat();
        out[6] = 44;
        let length = (out.len() - 40) as u16;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        return out;
    }
    let mut out = [&packet[..20], body].concat();
    let length = out.len() as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out[4..6].copy_from_slice(&id.to_be_bytes());
    let place = (offset as u16 / 8) | if more { 0x2000 } else { 0 };
    out[6..8].copy_from_slice(&place.to_be_bytes());
    fix_v4(&mut out);
    out
}

/// Puts the fragments of one packet together again.
pub fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let (at, protocol) = network(&parts[0]);
    let v6 = at == IPV6_HEADER;
    let skip = if v6 { at + 8 } else { at };
    let mut out = parts[0][..at].to_vec();
    parts.iter().for_each(|part| out.extend_from_slice(&part[skip..]));
    let length = if v6 { out.len() - at } else { out.len() } as u16;
    if v6 {
        out[6] = parts[0][at];
        out[4..6].copy_from_slice(&length.to_be_bytes());
    } else {
        let _ = protocol;
        out[2..4].copy_from_slice(&length.to_be_bytes());
        out[6..8].fill(0);
        fix_v4(&mut out);
    }
    out
}

#[test]
fn what_is_built_has_right_checksums() {
    for (src, dst) in [("10.0.0.2", "10.0.0.3"), ("fd00::2", "fd00::3")] {
        assert_ne!(bits(ip_of(src)), bits(ip_of(dst)));
        for packet in
            [tcp(src, dst, 1, 2, 2, 3, 4, b"odd"), udp(src, dst, 1, 2, b"some data"), echo(src, dst, true, 9)]
        {
            assert!(has_right_checksums(&packet));
            assert!(has_right_checksums(&join(&fragments(&packet, 16, 3))));
        }
    }
}
