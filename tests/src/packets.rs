//! Inner IP packets made by the tests, honest or not. Nothing is validated, so a source may be
//! forged.

use std::net::IpAddr;

use fleetgate_probes::packet::{TCP, UDP};

/// The source port of all packets made here.
pub const OWN_PORT: u16 = 40_000;

/// Makes a UDP datagram in an IP packet.
pub fn udp(from: IpAddr, to: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).expect("a short datagram");
    let mut segment =
        [&OWN_PORT.to_be_bytes(), &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0][..]].concat();
    segment.extend_from_slice(data);
    packet(from, to, UDP, segment, 6)
}

/// Makes the first segment of a TCP connection.
pub fn syn(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let ports = [OWN_PORT.to_be_bytes(), port.to_be_bytes()].concat();
    let rest = [0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    packet(from, to, TCP, [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0], &rest].concat(), 16)
}

/// Makes a packet. `sum_at` is the offset of the checksum in the segment.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, mut segment: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let len = u16::try_from(segment.len()).expect("a short segment").to_be_bytes();
    let ends = [octets(from), octets(to)].concat();
    let sum = checksum(&[&ends, &len, &[0, protocol], &segment]);
    segment[sum_at..sum_at + 2].copy_from_slice(&sum);
    [header(&ends, protocol, segment.len()), segment].concat()
}

fn header(ends: &[u8], protocol: u8, payload: usize) -> Vec<u8> {
    let payload = payload as u16;
    if ends.len() == 32 {
        let len = payload.to_be_bytes();
        return [&[0x60, 0, 0, 0, len[0], len[1], protocol, 64], ends].concat();
    }
    let len = (20 + payload).to_be_bytes();
    let mut header = [&[0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0], ends].concat();
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Computes the checksum of the concatenated parts; all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::packet::parse;

    use super::*;

    #[test]
    fn what_is_built_is_an_ip_packet() {
        for (from, to) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let (one, other) = (udp(from, to, 53, b"question"), syn(from, to, 22));
            for (bytes, protocol, len) in [(one, UDP, 16), (other, TCP, 20)] {
                let parsed = parse(&bytes).expect("a packet");
                assert_eq!((parsed.src, parsed.dst, parsed.protocol), (from, to, protocol));
                assert_eq!((parsed.payload.len(), parsed.len), (len, bytes.len()));
            }
        }
    }

    #[test]
    fn a_checksum_over_its_own_sum_is_zero() {
        let (from, to) = ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let bytes = syn(from, to, 80);
        assert_eq!(checksum(&[&bytes[..20]]), [0, 0]);
        assert_eq!(checksum(&[&bytes[12..20], &20u16.to_be_bytes(), &[0, TCP], &bytes[20..]]), [0, 0]);
    }
}
