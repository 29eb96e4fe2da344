//! ICMP errors about a flow: which packet they quote, and the quoted packet in the addresses of the
//! other side.
//!
//! An error quotes at least eight bytes behind the IP header, and only these are relied on. An error
//! passes only if the packet that it quotes went to its sender in a live flow.

use fleetgate_probes::packet::{ICMP, ICMPV6, TCP, UDP};

use super::checksum::Delta;
use super::flows::{Key, Path};
use super::headers::{Bits, ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, Ip, u16_at, u32_at, u128_at};
use super::rewrite::{Side, adjust, adjust_transport, covering_checksum, replace_address};
use super::tcp_state::Direction;
use crate::id::PeerId;
use crate::messages::GrantProtocol;

const ICMP_CHECKSUM: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// The bytes that an error surely quotes behind the IP headers.
const QUOTED: usize = 8;

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The key of an answer to the quoted packet.
    pub answer: Key,
    /// The sender of the quoted packet, as the error names it.
    pub src: Bits,
    /// `None`: it is no echo. Otherwise whether it is a request.
    pub is_request: Option<bool>,
    protocol: u8,
    /// The begin of the quoted IP header, and of the transport header behind it.
    at: usize,
    payload: usize,
}

impl Quote {
    /// Reads the packet that an error of `sender` quotes. `None`: it quotes no packet of a flow.
    pub fn parse(sender: PeerId, ip: &Ip, packet: &[u8]) -> Option<Quote> {
        let at = ip.payload + ICMP_HEADER;
        let quoted = packet.get(at..)?;
        let (src, dst, protocol, payload) = if ip.v6 { parse_v6(quoted)? } else { parse_v4(quoted)? };
        let body: &[u8; QUOTED] = quoted.get(payload..)?.first_chunk()?;
        let (protocol_kind, ports, is_request) = parse_body(ip.v6, protocol, body)?;
        let answer = Key {
            peer: sender,
            v6: ip.v6,
            protocol: protocol_kind,
            src: dst,
            dst: src,
            src_port: ports.1,
            dst_port: ports.0,
        };
        Some(Quote { answer, src, is_request, protocol, at, payload })
    }

    /// Returns whether the quoted packet can have gone against `direction`, the one of the error.
    pub fn went_against(&self, direction: Direction) -> bool {
        self.is_request.is_none_or(|is_request| is_request == (direction == Direction::Back))
    }

    /// Puts the addresses of the other side into the error and into the packet that it quotes. To a
    /// source, every error comes from the address that it sent to: it knows no router behind a
    /// device.
    pub fn translate(&self, packet: &mut [u8], ip: &Ip, path: &Path, direction: Direction) {
        let (inner, outer, old, new) = match direction {
            Direction::Back => (Side::Dst, Side::Src, path.real, path.reached_at),
            Direction::Out => (Side::Src, Side::Dst, path.reached_at, path.real),
        };
        let delta = self.translate_quoted(packet, ip.v6, inner, old, new);
        let before = if outer == Side::Src { ip.src } else { ip.dst };
        let addresses = replace_address(packet, ip.v6, outer, before, new);
        // Only the ICMP of IPv6 covers the addresses of the packet that carries it.
        let delta = if ip.v6 { delta.and(addresses) } else { delta };
        adjust(packet, ip.payload + ICMP_CHECKSUM, delta);
    }

    /// Returns the difference for the checksum over the quoted packet.
    fn translate_quoted(&self, packet: &mut [u8], v6: bool, side: Side, old: Bits, new: Bits) -> Delta {
        let Some(quoted) = packet.get_mut(self.at..) else { return Delta::default() };
        let transport = covering_checksum(v6, self.protocol, self.payload);
        let network = (!v6).then_some(IPV4_CHECKSUM);
        let before = [network, transport].map(|at| u16_at(quoted, at?));
        let delta = replace_address(quoted, v6, side, old, new);
        adjust_transport(quoted, v6, self.protocol, self.payload, delta);
        let after = [network, transport].map(|at| u16_at(quoted, at?));
        before.iter().zip(after).fold(delta, |delta, (before, after)| match (before, after) {
            (Some(before), Some(after)) => delta.word(*before, after),
            _ => delta,
        })
    }
}

/// Source, destination, protocol, and where the transport header begins.
type Network = (Bits, Bits, u8, usize);

/// A quoted packet may be cut, and its hop limit and checksum are those of an earlier hop.
fn parse_v4(quoted: &[u8]) -> Option<Network> {
    let header: &[u8; IPV4_HEADER] = quoted.first_chunk()?;
    let is_first = u16_at(header, 6)? & 0x1fff == 0;
    let address = |at: usize| Some(u128::from(u32_at(header, at)?));
    let network = (address(12)?, address(16)?, header[9], IPV4_HEADER);
    (header[0] == 0x45 && is_first).then_some(network)
}

fn parse_v6(quoted: &[u8]) -> Option<Network> {
    let header: &[u8; IPV6_HEADER] = quoted.first_chunk()?;
    let (src, dst) = (u128_at(header, 8)?, u128_at(header, 24)?);
    if header[0] >> 4 != 6 {
        return None;
    }
    if header[6] != FRAGMENT {
        return Some((src, dst, header[6], IPV6_HEADER));
    }
    let fragment: &[u8; FRAGMENT_HEADER] = quoted.get(IPV6_HEADER..)?.first_chunk()?;
    let is_first = u16_at(fragment, 2)? & 0xfff8 == 0;
    is_first.then_some((src, dst, fragment[0], IPV6_HEADER + FRAGMENT_HEADER))
}

/// Protocol, ports, and whether an echo is a request.
type Body = (GrantProtocol, (u16, u16), Option<bool>);

fn parse_body(v6: bool, protocol: u8, body: &[u8; QUOTED]) -> Option<Body> {
    let ports = (u16_at(body, 0)?, u16_at(body, 2)?);
    let ident = u16_at(body, 4)?;
    match (protocol, v6, body[0]) {
        (TCP, ..) => Some((GrantProtocol::Tcp, ports, None)),
        (UDP, ..) => Some((GrantProtocol::Udp, ports, None)),
        (ICMP, false, 8) | (ICMPV6, true, 128) => Some((GrantProtocol::Icmp, (ident, ident), Some(true))),
        (ICMP, false, 0) | (ICMPV6, true, 129) => Some((GrantProtocol::Icmp, (ident, ident), Some(false))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::headers::{ACK, bits};
    use crate::forward::tests::packets::*;
    use crate::id::Id;

    const PAIRS: [(&str, &str, &str, &str); 2] = [
        ("10.0.0.2", "10.9.0.3", "192.168.1.5", "192.168.1.1"),
        ("fd00::2", "fd00:9::3", "fd77::5", "fd77::1"),
    ];

    fn path(src: &str, alias: &str, real: &str) -> Path {
        Path {
            source: Id::from_i64(1),
            device: Id::from_i64(2),
            v6: src.contains(':'),
            protocol: GrantProtocol::Tcp,
            src: bits(ip_of(src)),
            reached_at: bits(ip_of(alias)),
            real: bits(ip_of(real)),
            src_port: 40_000,
            dst_port: 22,
        }
    }

    #[test]
    fn an_error_from_the_target_quotes_what_the_source_sent() {
        for (src, alias, real, router) in PAIRS {
            for quoted in [
                tcp(src, real, 40_000, 22, ACK, 1, 2, b"data"),
                udp(src, real, 40_000, 22, b"data"),
                echo(src, real, true, 9),
            ] {
                let mut error = icmp_error(router, src, &quoted);
                let ip = Ip::parse(&error).expect("a packet");
                let quote = Quote::parse(Id::from_i64(2), &ip, &error).expect("a quote");
                assert_eq!((quote.answer.src, quote.answer.dst), (bits(ip_of(real)), bits(ip_of(src))));
                assert!(quote.went_against(Direction::Back));
                quote.translate(&mut error, &ip, &path(src, alias, real), Direction::Back);
                assert!(has_right_checksums(&error));
                let after = Ip::parse(&error).expect("a packet");
                assert_eq!((after.src, after.dst), (bits(ip_of(alias)), bits(ip_of(src))));
                let inside = &error[ip.payload + 8..];
                assert!(has_right_checksums(inside), "the quoted packet as the source sent it");
                assert_eq!(Ip::parse(inside).map(|ip| ip.dst), Ok(bits(ip_of(alias))));
            }
        }
    }

    #[test]
    fn an_error_from_the_source_quotes_what_the_target_sent() {
        for (src, alias, real, _) in PAIRS {
            let quoted = udp(alias, src, 22, 40_000, b"answer");
            let mut error = icmp_error(src, alias, &quoted);
            let ip = Ip::parse(&error).expect("a packet");
            let quote = Quote::parse(Id::from_i64(1), &ip, &error).expect("a quote");
            quote.translate(&mut error, &ip, &path(src, alias, real), Direction::Out);
            assert!(has_right_checksums(&error) && has_right_checksums(&error[ip.payload + 8..]));
            let after = Ip::parse(&error).expect("a packet");
            assert_eq!((after.src, after.dst), (bits(ip_of(src)), bits(ip_of(real))));
            assert_eq!(Ip::parse(&error[ip.payload + 8..]).map(|ip| ip.src), Ok(bits(ip_of(real))));
        }
    }

    #[test]
    fn eight_bytes_of_the_transport_are_enough_and_seven_are_not() {
        for (src, alias, real, router) in PAIRS {
            let quoted = tcp(src, real, 40_000, 22, ACK, 1, 2, &[]);
            let network = if src.contains(':') { 40 } else { 20 };
            let mut error = icmp_error(router, src, &quoted[..network + 8]);
            let ip = Ip::parse(&error).expect("a packet");
            let quote = Quote::parse(Id::from_i64(2), &ip, &error).expect("a quote");
            quote.translate(&mut error, &ip, &path(src, alias, real), Direction::Back);
            assert!(has_right_checksums(&error));
            let short = icmp_error(router, src, &quoted[..network + 7]);
            assert_eq!(Quote::parse(Id::from_i64(2), &Ip::parse(&short).expect("a packet"), &short), None);
        }
    }
}
