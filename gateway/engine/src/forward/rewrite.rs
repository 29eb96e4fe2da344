//! The changes of the gateway to a packet that it forwards: the hop limit, an alias address, the
//! maximum segment size of a connection. Checksums follow incrementally, so that a packet that was
//! damaged on its way stays recognisable as damaged.

use fleetgate_probes::packet::{TCP, UDP};

use super::checksum::Delta;
use super::headers::{Bits, Fragment, IPV4_HEADER, IPV6_HEADER, Ip, SYN, Segment, u16_at};

const IPV4_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const TCP_OPTIONS: usize = 20;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LENGTH: usize = 4;

/// Which address of a packet changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Src,
    Dst,
}

/// Writes a word if it lies within the packet.
pub fn put_u16(packet: &mut [u8], at: usize, word: u16) {
    if let Some(place) = packet.get_mut(at..at.saturating_add(2)) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// Applies a difference to the checksum at `at`, if it lies within the packet.
pub fn adjust(packet: &mut [u8], at: usize, delta: Delta) {
    if let Some(before) = u16_at(packet, at) {
        put_u16(packet, at, delta.apply(before));
    }
}

/// Lowers the hop limit by one. The caller has judged it.
pub fn decrement_ttl(packet: &mut [u8], v6: bool) {
    let at = if v6 { 7 } else { 8 };
    let before = u16_at(packet, 8).unwrap_or_default();
    if let Some(ttl) = packet.get_mut(at) {
        *ttl = ttl.saturating_sub(1);
    }
    if !v6 {
        let after = u16_at(packet, 8).unwrap_or_default();
        adjust(packet, IPV4_CHECKSUM, Delta::default().word(before, after));
    }
}

/// Replaces an address in an IP header at the beginning of `packet` and corrects the checksum of
/// that header. Returns the difference for the checksums that cover the address.
pub fn replace_address(packet: &mut [u8], v6: bool, side: Side, old: Bits, new: Bits) -> Delta {
    let delta = Delta::default().address(v6, old, new);
    let (at, length) = match (v6, side) {
        (false, Side::Src) => (12, 4),
        (false, Side::Dst) => (16, 4),
        (true, Side::Src) => (8, 16),
        (true, Side::Dst) => (24, 16),
    };
    if let Some(place) = packet.get_mut(at..at + length) {
        place.copy_from_slice(&new.to_be_bytes()[16 - length..]);
    }
    if !v6 {
        adjust(packet, IPV4_CHECKSUM, delta);
    }
    delta
}

/// Returns where the checksum of the transport layer stands, if it covers the addresses.
pub fn covering_checksum(v6: bool, protocol: u8, payload: usize) -> Option<usize> {
    match protocol {
        TCP => Some(payload + TCP_CHECKSUM),
        UDP => Some(payload + UDP_CHECKSUM),
        // Only the ICMP of IPv6 has a pseudo-header.
        _ if v6 => Some(payload + ICMP_CHECKSUM),
        _ => None,
    }
}

/// Corrects the checksum of the transport layer after a change of an address.
pub fn adjust_transport(packet: &mut [u8], v6: bool, protocol: u8, payload: usize, delta: Delta) {
    let Some(at) = covering_checksum(v6, protocol, payload) else { return };
    let Some(before) = u16_at(packet, at) else { return };
    // Over IPv4, zero means that UDP has no checksum; a computed zero is sent as its other form.
    if protocol != UDP {
        put_u16(packet, at, delta.apply(before));
    } else if before != 0 {
        let after = delta.apply(before);
        put_u16(packet, at, if after == 0 { 0xffff } else { after });
    }
}

/// Replaces an address of a packet, with all checksums that cover it. Later fragments have no
/// transport header.
pub fn translate(packet: &mut [u8], ip: &Ip, side: Side, new: Bits) {
    let old = match side {
        Side::Src => ip.src,
        Side::Dst => ip.dst,
    };
    if old == new {
        return;
    }
    let delta = replace_address(packet, ip.v6, side, old, new);
    if !matches!(ip.fragment, Fragment::Later { .. }) {
        adjust_transport(packet, ip.v6, ip.protocol, ip.payload, delta);
    }
}

/// Lowers the maximum segment size that a SYN announces to what fits into `mtu`. A smaller one and
/// an absent one stay.
pub fn clamp_mss(packet: &mut [u8], ip: &Ip, segment: &Segment, mtu: u16) {
    if !segment.has(SYN) {
        return;
    }
    let network = if ip.v6 { IPV6_HEADER } else { IPV4_HEADER };
    let most = usize::from(mtu).saturating_sub(network + TCP_OPTIONS) as u16;
    let options = ip.payload + TCP_OPTIONS..ip.payload + segment.header;
    let Some(at) = packet.get(options.clone()).and_then(find_mss).map(|at| options.start + at) else {
        return;
    };
    let Some(announced) = u16_at(packet, at).filter(|announced| *announced > most) else { return };
    put_u16(packet, at, most);
    // A word at an odd place counts with its bytes swapped.
    let delta = match (at - ip.payload) % 2 {
        0 => Delta::default().word(announced, most),
        _ => Delta::default().word(announced.swap_bytes(), most.swap_bytes()),
    };
    adjust(packet, ip.payload + TCP_CHECKSUM, delta);
}

/// Returns where the value of the option stands.
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(kind) = options.get(at) {
        match *kind {
            END_OF_OPTIONS => return None,
            NO_OPERATION => at += 1,
            kind => {
                let length = usize::from(*options.get(at + 1)?);
                if kind == MSS && length == MSS_LENGTH && at + MSS_LENGTH <= options.len() {
                    return Some(at + 2);
                }
                if length < 2 {
                    return None;
                }
                at += length;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::headers::{ACK, Transport, bits};
    use crate::forward::tests::packets::*;

    const PAIRS: [(&str, &str, &str); 2] =
        [("10.0.0.2", "10.9.0.3", "192.168.1.5"), ("fd00::2", "fd00:9::3", "fd77::5")];

    #[test]
    fn a_translated_packet_has_right_checksums() {
        for (src, alias, real) in PAIRS {
            for packet in [
                tcp(src, alias, 40_000, 22, ACK, 1, 2, b"odd"),
                udp(src, alias, 40_000, 53, b"question"),
                echo(src, alias, true, 7),
            ] {
                let mut there = packet.clone();
                let ip = Ip::parse(&there).expect("a packet");
                translate(&mut there, &ip, Side::Dst, bits(ip_of(real)));
                decrement_ttl(&mut there, ip.v6);
                assert!(has_right_checksums(&there), "{packet:?}");
                let at = Ip::parse(&there).expect("a packet");
                assert_eq!((at.dst, at.ttl), (bits(ip_of(real)), 63));
                translate(&mut there, &at, Side::Dst, bits(ip_of(alias)));
                let changed = there.iter().zip(&packet).filter(|(a, b)| a != b).count();
                assert!(changed <= 3, "only the hop limit and its checksum differ: {changed}");
            }
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without_one() {
        let mut packet = udp("10.0.0.2", "10.9.0.3", 1, 2, b"x");
        packet[26..28].copy_from_slice(&[0, 0]);
        let ip = Ip::parse(&packet).expect("a packet");
        translate(&mut packet, &ip, Side::Dst, bits(ip_of("192.168.1.5")));
        assert_eq!(packet[26..28], [0, 0]);
    }

    #[test]
    fn the_mss_is_lowered_and_never_raised_or_added() {
        for (src, dst, _) in PAIRS {
            let most = if src.contains(':') { 1_220 } else { 1_240 };
            for (options, expected) in [
                (&[2, 4, 0x05, 0xb4, 1, 1, 1, 0][..], Some(most)),
                (&[1, 2, 4, 0x05, 0xb4, 3, 3, 7], Some(most)),
                (&[2, 4, 0x02, 0x18], Some(536)),
                (&[1, 1, 1, 1], None),
                (&[9, 0, 2, 4], None),
            ] {
                let mut packet = tcp_with_options(src, dst, 1, 22, SYN, options);
                let ip = Ip::parse(&packet).expect("a packet");
                let Ok(Transport::Tcp(segment)) = Transport::parse(&ip, &packet) else { panic!("a segment") };
                clamp_mss(&mut packet, &ip, &segment, 1_280);
                let options = &packet[ip.payload + 20..];
                assert_eq!(find_mss(options).and_then(|at| u16_at(options, at)), expected);
                assert!(has_right_checksums(&packet));
            }
        }
    }
}
