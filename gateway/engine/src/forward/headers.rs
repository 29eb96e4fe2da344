//! The headers of one inner packet, read strictly.
//!
//! A packet is whole, or it is refused: its lengths are those of the bytes, an IPv4 header has its
//! checksum, and nothing stands between the IP header and the transport header but an IPv6 fragment
//! header. Ports are thus always where the filter reads them. No input panics. The module decides
//! nothing about access.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fleetgate_probes::packet::{ICMP, ICMPV6, TCP, UDP};

use super::checksum::sum;
use crate::messages::DropReason;

pub const IPV4_HEADER: usize = 20;
pub const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
pub const UDP_HEADER: usize = 8;
pub const ICMP_HEADER: usize = 8;

/// The next header of an IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// Hop-by-hop options, routing, authentication, destination options, mobility, HIP and Shim6. Their
/// chain could hide the ports.
const EXTENSIONS: [u8; 7] = [0, 43, 51, 60, 135, 139, 140];

/// The largest packet that the length field of IPv4 expresses. Fragments that reach beyond it
/// overflow reassembly.
const MAX_PACKET: usize = 65_535;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// An address of either family as a number. The family stands beside it.
pub type Bits = u128;

pub fn bits(address: IpAddr) -> Bits {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

pub fn address(v6: bool, bits: Bits) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    First {
        id: u32,
    },
    /// `offset` in bytes.
    Later {
        id: u32,
        offset: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub v6: bool,
    pub src: Bits,
    pub dst: Bits,
    pub protocol: u8,
    /// The TTL of IPv4, the hop limit of IPv6.
    pub ttl: u8,
    pub fragment: Fragment,
    /// The begin of the transport header, or of the data of a later fragment.
    pub payload: usize,
}

impl Ip {
    /// Reads the headers of the network layer.
    ///
    /// # Errors
    /// Fails with the reason to drop the packet.
    pub fn parse(packet: &[u8]) -> Result<Ip, DropReason> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => parse_v4(packet),
            Some(6) => parse_v6(packet),
            _ => Err(DropReason::BadPacket),
        }
    }

    /// Returns whether the protocol is the ICMP of this family.
    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.v6 { ICMPV6 } else { ICMP }
    }
}

fn parse_v4(packet: &[u8]) -> Result<Ip, DropReason> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(DropReason::BadPacket)?;
    match header[0] & 0xf {
        5 => {}
        0..5 => return Err(DropReason::BadPacket),
        _ => return Err(DropReason::IpOptions),
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if length != packet.len() || sum(header) != 0xffff {
        return Err(DropReason::BadPacket);
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    if flags & 0x8000 != 0 {
        return Err(DropReason::BadPacket);
    }
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let offset = usize::from(flags & 0x1fff) * 8;
    Ok(Ip {
        v6: false,
        src: u32::from_be_bytes([header[12], header[13], header[14], header[15]]).into(),
        dst: u32::from_be_bytes([header[16], header[17], header[18], header[19]]).into(),
        protocol: header[9],
        ttl: header[8],
        fragment: fragment(id, offset, flags & 0x2000 != 0, packet.len() - IPV4_HEADER)?,
        payload: IPV4_HEADER,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Ip, DropReason> {
    let header: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(DropReason::BadPacket)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]])) + IPV6_HEADER;
    if length != packet.len() {
        return Err(DropReason::BadPacket);
    }
    let ip = Ip {
        v6: true,
        src: u128_at(header, 8).unwrap_or_default(),
        dst: u128_at(header, 24).unwrap_or_default(),
        protocol: header[6],
        ttl: header[7],
        fragment: Fragment::Whole,
        payload: IPV6_HEADER,
    };
    let ip = if ip.protocol == FRAGMENT { skip_fragment_header(ip, packet)? } else { ip };
    if ip.protocol == FRAGMENT || EXTENSIONS.contains(&ip.protocol) {
        return Err(DropReason::IpOptions);
    }
    Ok(ip)
}

fn skip_fragment_header(ip: Ip, packet: &[u8]) -> Result<Ip, DropReason> {
    let header: &[u8; FRAGMENT_HEADER] =
        packet.get(IPV6_HEADER..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::BadPacket)?;
    let place = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let payload = IPV6_HEADER + FRAGMENT_HEADER;
    let fragment = fragment(id, usize::from(place & 0xfff8), place & 1 != 0, packet.len() - payload)?;
    Ok(Ip { protocol: header[0], fragment, payload, ..ip })
}

fn fragment(id: u32, offset: usize, more: bool, length: usize) -> Result<Fragment, DropReason> {
    let is_part = more || offset > 0;
    let odd = more && !length.is_multiple_of(8);
    if is_part && (odd || length == 0 || offset + length + IPV4_HEADER > MAX_PACKET) {
        return Err(DropReason::Fragment);
    }
    Ok(match (more, offset) {
        (false, 0) => Fragment::Whole,
        (true, 0) => Fragment::First { id },
        _ => Fragment::Later { id, offset },
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Options included.
    pub header: usize,
    /// Bytes of data; of a fragmented segment only those in the first fragment.
    pub data: usize,
}

impl Segment {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A segment that opens a connection.
    pub fn is_pure_syn(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == SYN
    }

    /// Returns the sequence number behind this segment.
    pub fn end(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.data as u32).wrapping_add(flags)
    }
}

/// The content behind the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp(Segment),
    Udp {
        src_port: u16,
        dst_port: u16,
    },
    EchoRequest {
        ident: u16,
    },
    EchoReply {
        ident: u16,
    },
    /// An ICMP error that may quote a packet of a flow.
    IcmpError,
    OtherIcmp,
    Other,
}

impl Transport {
    /// Reads the transport header of a whole packet or of a first fragment, which must hold all of
    /// it.
    ///
    /// # Errors
    /// Fails with the reason to drop the packet.
    pub fn parse(ip: &Ip, packet: &[u8]) -> Result<Transport, DropReason> {
        let body = packet.get(ip.payload..).unwrap_or_default();
        let short = match ip.fragment {
            Fragment::Whole => DropReason::BadPacket,
            _ => DropReason::Fragment,
        };
        match ip.protocol {
            TCP => parse_tcp(body, short),
            UDP => parse_udp(body, ip.fragment, short),
            _ if ip.is_icmp() => parse_icmp(body, ip, short),
            _ => Ok(Transport::Other),
        }
    }

    /// Returns the length of the header that fragments must not overlap.
    pub fn header(&self) -> usize {
        match self {
            Transport::Tcp(segment) => segment.header,
            _ => UDP_HEADER,
        }
    }
}

fn parse_tcp(body: &[u8], short: DropReason) -> Result<Transport, DropReason> {
    let header: &[u8; TCP_HEADER] = body.first_chunk().ok_or(short)?;
    let length = usize::from(header[12] >> 4) * 4;
    if length < TCP_HEADER {
        return Err(DropReason::BadPacket);
    }
    let data = body.len().checked_sub(length).ok_or(short)?;
    let flags = header[13];
    let contradicts = flags & SYN != 0 && flags & (FIN | RST) != 0;
    // Each segment but the first of a connection acknowledges something.
    if contradicts || flags & (SYN | RST | ACK) == 0 {
        return Err(DropReason::BadPacket);
    }
    Ok(Transport::Tcp(Segment {
        src_port: u16::from_be_bytes([header[0], header[1]]),
        dst_port: u16::from_be_bytes([header[2], header[3]]),
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags,
        window: u16::from_be_bytes([header[14], header[15]]),
        header: length,
        data,
    }))
}

fn parse_udp(body: &[u8], fragment: Fragment, short: DropReason) -> Result<Transport, DropReason> {
    let header: &[u8; UDP_HEADER] = body.first_chunk().ok_or(short)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let fits = match fragment {
        Fragment::Whole => length == body.len(),
        _ => length > body.len(),
    };
    if !fits {
        return Err(DropReason::BadPacket);
    }
    Ok(Transport::Udp {
        src_port: u16::from_be_bytes([header[0], header[1]]),
        dst_port: u16::from_be_bytes([header[2], header[3]]),
    })
}

fn parse_icmp(body: &[u8], ip: &Ip, short: DropReason) -> Result<Transport, DropReason> {
    let header: &[u8; ICMP_HEADER] = body.first_chunk().ok_or(short)?;
    let ident = u16::from_be_bytes([header[4], header[5]]);
    Ok(match (ip.v6, header[0], header[1]) {
        (false, 8, 0) | (true, 128, 0) => Transport::EchoRequest { ident },
        (false, 0, 0) | (true, 129, 0) => Transport::EchoReply { ident },
        // No error is so large that it needs fragments.
        (false, 3 | 11 | 12, _) | (true, 1..=4, _) if ip.fragment != Fragment::Whole => {
            return Err(DropReason::Fragment);
        }
        (false, 3 | 11 | 12, _) | (true, 1..=4, _) => Transport::IcmpError,
        _ => Transport::OtherIcmp,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::tests::packets::*;

    #[test]
    fn a_packet_is_read_as_it_was_built() {
        for (src, dst, v6) in [("10.0.0.2", "10.0.0.3", false), ("fd00::2", "fd00::3", true)] {
            let packet = tcp(src, dst, 40_000, 22, SYN, 7, 0, &[]);
            let ip = Ip::parse(&packet).expect("a packet");
            assert_eq!((address(ip.v6, ip.src), address(ip.v6, ip.dst)), (ip_of(src), ip_of(dst)));
            assert_eq!((ip.v6, ip.fragment, ip.ttl), (v6, Fragment::Whole, 64));
            let Ok(Transport::Tcp(segment)) = Transport::parse(&ip, &packet) else { panic!("a segment") };
            assert_eq!((segment.src_port, segment.dst_port, segment.seq, segment.end()), (40_000, 22, 7, 8));
            assert!(segment.is_pure_syn());
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for (src, dst) in [("10.0.0.2", "10.0.0.3"), ("fd00::2", "fd00::3")] {
            let packet = udp(src, dst, 1, 2, b"12345678");
            for length in 0..packet.len() {
                assert_eq!(Ip::parse(&packet[..length]), Err(DropReason::BadPacket));
            }
            let padded = [&packet[..], &[0; 3]].concat();
            assert_eq!(Ip::parse(&padded), Err(DropReason::BadPacket));
            let mut lies = packet.clone();
            let at = lies.len() - 8 - 4;
            lies[at + 1] += 1;
            let ip = Ip::parse(&lies).expect("the IP header is right");
            assert_eq!(Transport::parse(&ip, &lies), Err(DropReason::BadPacket));
        }
    }

    #[test]
    fn one_wrong_bit_in_an_ipv4_header_is_noticed() {
        let packet = udp("10.0.0.2", "10.0.0.3", 1, 2, b"x");
        for bit in 0..IPV4_HEADER * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Ip::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn options_and_extension_headers_have_a_reason_of_their_own() {
        assert_eq!(
            Ip::parse(&with_options(&udp("10.0.0.2", "10.0.0.3", 1, 2, b"x"))),
            Err(DropReason::IpOptions)
        );
        for kind in EXTENSIONS {
            let packet = with_extension(&udp("fd00::2", "fd00::3", 1, 2, b"x"), kind);
            assert_eq!(Ip::parse(&packet), Err(DropReason::IpOptions), "{kind}");
        }
    }

    #[test]
    fn segments_with_contradicting_flags_are_refused() {
        for flags in [0, FIN, SYN | FIN, SYN | RST, SYN | ACK | RST] {
            let packet = tcp("10.0.0.2", "10.0.0.3", 1, 2, flags, 7, 0, &[]);
            let ip = Ip::parse(&packet).expect("a packet");
            assert_eq!(Transport::parse(&ip, &packet), Err(DropReason::BadPacket), "{flags}");
        }
    }

    #[test]
    fn a_first_fragment_holds_the_whole_header() {
        for (src, dst) in [("10.0.0.2", "10.0.0.3"), ("fd00::2", "fd00::3")] {
            let parts = fragments(&tcp(src, dst, 1, 2, ACK, 7, 0, &[0; 60]), 16, 9);
            let ip = Ip::parse(&parts[0]).expect("a fragment");
            assert_eq!(ip.fragment, Fragment::First { id: 9 });
            assert_eq!(Transport::parse(&ip, &parts[0]), Err(DropReason::Fragment));
            let later = Ip::parse(&parts[1]).expect("a fragment");
            assert_eq!(later.fragment, Fragment::Later { id: 9, offset: 16 });
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(ip) = Ip::parse(&bytes) {
                let _ = Transport::parse(&ip, &bytes);
            }
        }
    }
}
