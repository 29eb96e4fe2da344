//! A view of one decrypted IP packet: just enough to decide where it may go.
//!
//! The sender is authenticated and not trusted. Nothing here allocates or keeps state.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: IpProtocol,
    /// Neither a fragment nor with IP options or extension headers. What the gateway asks for
    /// never comes back in any of these, so they end at its door.
    pub plain: bool,
    /// The packet, cut to the length that its header gives (WireGuard pads).
    pub bytes: &'a [u8],
    pub payload: &'a [u8],
}

/// The version field alone; `None` for what is neither IPv4 nor IPv6.
fn version(bytes: &[u8]) -> Option<u8> {
    bytes.first().map(|first| first >> 4)
}

impl<'a> Inner<'a> {
    /// `None`: not an IP packet, truncated, or with a wrong header checksum.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match version(bytes)? {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let header = usize::from(packet.header_len());
        let total = usize::from(packet.total_len());
        if header < 20 || !packet.verify_checksum() {
            return None;
        }
        Some(Inner {
            source: packet.src_addr().into(),
            target: packet.dst_addr().into(),
            protocol: packet.next_header(),
            plain: header == 20 && !packet.more_frags() && packet.frag_offset() == 0,
            bytes: &bytes[..total],
            payload: &bytes[header..total],
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv6Packet::new_checked(bytes).ok()?;
        let total = packet.total_len();
        let protocol = packet.next_header();
        Some(Inner {
            source: packet.src_addr().into(),
            target: packet.dst_addr().into(),
            protocol,
            plain: matches!(protocol, IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Icmpv6),
            bytes: &bytes[..total],
            payload: &bytes[packet.header_len()..total],
        })
    }

    /// Source and destination port of a TCP segment.
    pub fn tcp_ports(&self) -> Option<(u16, u16)> {
        if self.protocol != IpProtocol::Tcp || self.payload.len() < 20 {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        Some((port(0), port(2)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An IPv4 packet with a right checksum, from 10.0.0.1 to 10.0.0.2.
    fn v4(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 20];
        bytes.extend_from_slice(payload);
        let total = bytes.len() as u16;
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(total);
        packet.set_next_header(IpProtocol::Tcp);
        packet.set_src_addr([10, 0, 0, 1].into());
        packet.set_dst_addr([10, 0, 0, 2].into());
        packet.fill_checksum();
        bytes
    }

    #[test]
    fn padding_after_the_packet_is_cut() {
        let mut bytes = v4(&[1, 2, 3]);
        bytes.extend_from_slice(&[0; 13]);
        let inner = Inner::parse(&bytes).expect("a packet");
        assert_eq!((inner.bytes.len(), inner.payload), (23, &[1u8, 2, 3][..]));
        assert!(inner.plain);
    }

    #[test]
    fn a_fragment_is_not_plain() {
        let mut bytes = v4(&[0; 24]);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        packet.set_more_frags(true);
        packet.fill_checksum();
        assert!(!Inner::parse(&bytes).expect("a packet").plain);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let mut bad_sum = v4(&[]);
        bad_sum[10] ^= 1;
        for bytes in [&[][..], &[0x45], &[0x60; 20], &[0x10; 40], &v4(&[0; 8])[..25], &bad_sum] {
            assert!(Inner::parse(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v in 0u8..2) {
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x0f | if v == 0 { 0x40 } else { 0x60 };
            }
            if let Some(inner) = Inner::parse(&bytes) {
                prop_assert!(inner.bytes.len() <= bytes.len());
                let _ = inner.tcp_ports();
            }
        }
    }
}
