//! Packets that the gateway makes itself: TCP resets and ICMP errors, built into a lent buffer.
//!
//! No error is made about an error, about a later fragment or about a packet to a group, so that
//! errors never breed errors.

use std::net::IpAddr;

use fleetgate_probes::packet::{ICMP, ICMPV6, TCP};

use super::checksum::checksum;
use super::headers::{ACK, Bits, Fragment, IPV4_HEADER, IPV6_HEADER, Ip, RST, Transport, address};

const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;

/// An ICMP error fits into what every host takes (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
const LARGEST_V4: usize = 576;
const LARGEST_V6: usize = 1_280;

/// Largest packet that is built here.
pub const LARGEST: usize = LARGEST_V6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    Prohibited,
    TimeExceeded,
    TooBig { mtu: u16 },
}

impl IcmpError {
    /// Type, code, and the word behind the checksum.
    fn fields(self, v6: bool) -> (u8, u8, u32) {
        match (self, v6) {
            (IcmpError::Prohibited, false) => (3, 13, 0),
            (IcmpError::Prohibited, true) => (1, 1, 0),
            (IcmpError::TimeExceeded, false) => (11, 0, 0),
            (IcmpError::TimeExceeded, true) => (3, 0, 0),
            (IcmpError::TooBig { mtu }, false) => (3, 4, mtu.into()),
            (IcmpError::TooBig { mtu }, true) => (2, 0, mtu.into()),
        }
    }
}

/// A segment that resets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub v6: bool,
    pub src: Bits,
    pub dst: Bits,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: Option<u32>,
}

impl Reset {
    /// Returns the reset that answers a segment without a connection (RFC 9293, 3.5.2). `None`: the
    /// segment is a reset itself.
    pub fn answering(ip: &Ip, transport: &Transport) -> Option<Reset> {
        let Transport::Tcp(segment) = transport else { return None };
        if segment.has(RST) {
            return None;
        }
        let (seq, ack) = if segment.has(ACK) { (segment.ack, None) } else { (0, Some(segment.end())) };
        Some(Reset {
            v6: ip.v6,
            src: ip.dst,
            dst: ip.src,
            src_port: segment.dst_port,
            dst_port: segment.src_port,
            seq,
            ack,
        })
    }

    pub fn build(&self, out: &mut Vec<u8>) {
        let flags = if self.ack.is_some() { RST | ACK } else { RST };
        let ends = [(self.src, self.src_port), (self.dst, self.dst_port)];
        build_segment(out, self.v6, ends, (self.seq, self.ack.unwrap_or(0)), flags, 0);
    }
}

/// Builds a segment without options and data, from one address and port to another, with these
/// numbers of sequence and acknowledgement.
pub fn build_segment(
    out: &mut Vec<u8>,
    v6: bool,
    [(src, src_port), (dst, dst_port)]: [(Bits, u16); 2],
    (seq, ack): (u32, u32),
    flags: u8,
    window: u16,
) {
    let at = begin(out, v6, (src, dst), TCP, TCP_HEADER);
    out.extend(src_port.to_be_bytes());
    out.extend(dst_port.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([(TCP_HEADER as u8 / 4) << 4, flags]);
    out.extend(window.to_be_bytes());
    // The checksum, and no urgent data.
    out.extend([0; 4]);
    let sum = transport_checksum(out, v6, (src, dst), TCP, at);
    out[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Returns whether an ICMP error may be made about a packet.
pub fn may_report_about(ip: &Ip, transport: Option<&Transport>) -> bool {
    let is_icmp_message = matches!(transport, None | Some(Transport::IcmpError | Transport::OtherIcmp));
    let to = address(ip.v6, ip.dst);
    let is_group = to.is_multicast() || to == IpAddr::from([255; 4]);
    !is_icmp_message && !is_group && !matches!(ip.fragment, Fragment::Later { .. })
}

/// Builds an error of `gateway` about the packet that `ip` was read from.
pub fn build_error(out: &mut Vec<u8>, gateway: Bits, ip: &Ip, packet: &[u8], error: IcmpError) {
    let (network, largest) = if ip.v6 { (IPV6_HEADER, LARGEST_V6) } else { (IPV4_HEADER, LARGEST_V4) };
    let quoted = &packet[..packet.len().min(largest - network - ICMP_HEADER)];
    let protocol = if ip.v6 { ICMPV6 } else { ICMP };
    let at = begin(out, ip.v6, (gateway, ip.src), protocol, ICMP_HEADER + quoted.len());
    let (kind, code, word) = error.fields(ip.v6);
    out.extend([kind, code, 0, 0]);
    out.extend(word.to_be_bytes());
    out.extend_from_slice(quoted);
    let sum = match ip.v6 {
        true => transport_checksum(out, true, (gateway, ip.src), protocol, at),
        false => checksum(&[&out[at..]]),
    };
    out[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
}

/// Begins a packet with its IP header. Returns where the transport header begins.
fn begin(out: &mut Vec<u8>, v6: bool, addresses: (Bits, Bits), protocol: u8, length: usize) -> usize {
    out.clear();
    if v6 {
        begin_v6(out, addresses, protocol, length)
    } else {
        begin_v4(out, addresses, protocol, length)
    }
    out.len()
}

fn begin_v4(out: &mut Vec<u8>, (src, dst): (Bits, Bits), protocol: u8, length: usize) {
    let total = (IPV4_HEADER + length) as u16;
    out.extend([0x45, 0]);
    out.extend(total.to_be_bytes());
    // Never fragmented, so that the identification may be zero (RFC 6864).
    out.extend([0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
    out.extend((src as u32).to_be_bytes());
    out.extend((dst as u32).to_be_bytes());
    let sum = checksum(&[out.as_slice()]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn begin_v6(out: &mut Vec<u8>, (src, dst): (Bits, Bits), protocol: u8, length: usize) {
    out.extend([0x60, 0, 0, 0]);
    out.extend((length as u16).to_be_bytes());
    out.extend([protocol, HOP_LIMIT]);
    out.extend(src.to_be_bytes());
    out.extend(dst.to_be_bytes());
}

/// The checksum over the pseudo-header and the transport part from `at` on.
fn transport_checksum(packet: &[u8], v6: bool, (src, dst): (Bits, Bits), protocol: u8, at: usize) -> u16 {
    let body = &packet[at..];
    let tail = [0, 0, 0, protocol];
    let length = (body.len() as u32).to_be_bytes();
    // The high half of an IPv4 address as a number is zero and adds nothing.
    debug_assert!(v6 || (src | dst) >> 32 == 0);
    checksum(&[&src.to_be_bytes(), &dst.to_be_bytes(), &length, &tail, body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::headers::{SYN, bits};
    use crate::forward::tests::packets::*;

    const PAIRS: [(&str, &str, &str); 2] =
        [("10.0.0.2", "10.0.0.3", "10.0.0.1"), ("fd00::2", "fd00::3", "fd00::1")];

    fn read(packet: &[u8]) -> (Ip, Transport) {
        let ip = Ip::parse(packet).expect("a packet");
        let transport = Transport::parse(&ip, packet).expect("a header");
        (ip, transport)
    }

    #[test]
    fn a_reset_answers_a_segment_as_its_sender_expects() {
        for (src, dst, _) in PAIRS {
            for (flags, seq, ack) in [(SYN, 0, Some(8)), (ACK, 99, None)] {
                let (ip, transport) = read(&tcp(src, dst, 40_000, 22, flags, 7, 99, &[]));
                let mut out = Vec::new();
                Reset::answering(&ip, &transport).expect("an answer").build(&mut out);
                assert!(has_right_checksums(&out));
                let (back, Transport::Tcp(reset)) = read(&out) else { panic!("a segment") };
                assert_eq!(
                    (back.src, back.dst, reset.src_port, reset.dst_port),
                    (ip.dst, ip.src, 22, 40_000)
                );
                assert_eq!((reset.seq, reset.has(ACK).then_some(reset.ack)), (seq, ack));
            }
            let (ip, transport) = read(&tcp(src, dst, 40_000, 22, RST, 7, 0, &[]));
            assert_eq!(Reset::answering(&ip, &transport), None, "a reset is not answered");
        }
    }

    #[test]
    fn an_error_quotes_the_packet_and_fits() {
        for (src, dst, gateway) in PAIRS {
            for error in [IcmpError::Prohibited, IcmpError::TimeExceeded, IcmpError::TooBig { mtu: 1_280 }] {
                let packet = udp(src, dst, 1, 2, &[7; 1_400]);
                let (ip, transport) = read(&packet);
                assert!(may_report_about(&ip, Some(&transport)));
                let mut out = Vec::new();
                build_error(&mut out, bits(ip_of(gateway)), &ip, &packet, error);
                assert!(out.len() <= LARGEST && has_right_checksums(&out));
                let (back, kind) = read(&out);
                assert_eq!((back.src, back.dst, kind), (bits(ip_of(gateway)), ip.src, Transport::IcmpError));
                assert!(packet.starts_with(&out[back.payload + 8..]));
                assert!(!may_report_about(&back, Some(&kind)), "no error about an error");
            }
        }
    }
}
