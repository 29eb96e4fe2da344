//! A peer with a TUN device, so that the kernel's TCP runs through a hub.
//!
//! The device takes and gives TCP segments of up to 64 KiB, which are cut and joined here. It costs
//! the two cores of a machine less than the hub does.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::hub::MTU;
use super::peer::{Opener, Sealer, Wire};
use crate::attacker::inside;
use crate::lab::Lab;

/// The header before each packet: `virtio_net_hdr`.
const VNET: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP_V4: u8 = 1;
const IPV4: usize = 20;
const TCP: u8 = 6;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CHECKSUM_AT: usize = 16;
const LONGEST: usize = 65_535;
const POLL_MS: i32 = 50;

/// From linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;

/// A TUN device in a namespace of the lab.
pub struct Tun {
    device: File,
}

impl Tun {
    /// Makes the device `t0` with this address.
    ///
    /// # Errors
    /// Fails without `/dev/net/tun`.
    pub fn new(lab: &Lab, namespace: &str, address: std::net::Ipv4Addr) -> anyhow::Result<Tun> {
        let device = inside(&lab.ns(namespace), || open("t0")).context("a TUN device")?;
        lab.sh(
            namespace,
            &format!("ip addr add {address}/16 dev t0; ip link set mtu {MTU} txqueuelen 1000 up dev t0"),
        );
        Ok(Tun { device })
    }

    /// Carries packets from the device to the hub until `stop`.
    pub fn seal(&self, wire: &Wire, mut sealer: Sealer, stop: &AtomicBool) {
        let (mut room, mut batch) = (vec![0; VNET + LONGEST], Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let Some(len) = self.read(&mut room) else { continue };
            let (vnet, packet) = room[..len].split_at(VNET);
            let mut size = 0;
            batch.clear();
            for segment in Segments::of(vnet, packet) {
                let before = batch.len();
                sealer.seal(&segment, &mut batch);
                size = size.max(batch.len() - before);
            }
            if size > 0 {
                wire.send(&batch, size);
            }
        }
    }

    /// Carries packets from the hub to the device until `stop`.
    pub fn open(&self, wire: &Wire, opener: &Opener, stop: &AtomicBool) {
        let (mut room, mut joined) = (vec![0; LONGEST + 1], Joined::default());
        while !stop.load(Ordering::Relaxed) {
            let Some((len, size)) = wire.receive(&mut room) else { continue };
            for datagram in room[..len].chunks_mut(size) {
                let Some(packet) = opener.open(datagram) else { continue };
                let Some(packet) = without_padding(packet) else { continue };
                if !joined.append(packet) {
                    self.write(joined.take());
                    joined.begin(packet);
                }
            }
            self.write(joined.take());
        }
    }

    fn read(&self, room: &mut [u8]) -> Option<usize> {
        let ready = poll(&self.device);
        let len = ready.then(|| (&self.device).read(room).ok()).flatten()?;
        (len > VNET).then_some(len)
    }

    /// Packets that the device does not take are lost, as on a network.
    fn write(&self, packet: &[u8]) {
        if !packet.is_empty() {
            let _ = (&self.device).write(packet);
        }
    }
}

#[allow(unsafe_code, reason = "std has no TUN devices")]
fn open(name: &str) -> std::io::Result<File> {
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the path is a C string, and the result is checked.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened just now and belongs to nothing else.
    let device = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open, and `request` is what this call reads.
    let made = unsafe { libc::ioctl(fd, TUNSETIFF, &raw const request) };
    // SAFETY: the descriptor is open, and the call takes a number.
    let offload = unsafe { libc::ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) };
    if made < 0 || offload < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(device.into())
}

#[allow(unsafe_code, reason = "std cannot wait for a file with a time limit")]
fn poll(device: &File) -> bool {
    let mut wait = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `wait` is one valid entry.
    let ready = unsafe { libc::poll(&raw mut wait, 1, POLL_MS) };
    ready > 0
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Returns the packet by its own length.
fn without_padding(packet: &[u8]) -> Option<&[u8]> {
    (packet.len() >= IPV4).then(|| packet.get(..usize::from(half(packet, 2)))).flatten()
}

/// The ones' complement sum, folded.
fn sum(bytes: &[u8], from: u32) -> u16 {
    let pairs =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum = pairs.fold(u64::from(from), |sum, pair| sum + u64::from(pair));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The part of TCP's checksum over the addresses.
fn pseudo(packet: &[u8], len: usize) -> u32 {
    u32::from(sum(&packet[12..IPV4], u32::from(TCP) + len as u32))
}

fn fix_ip(packet: &mut [u8]) {
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[10..12].fill(0);
    let checksum = !sum(&packet[..IPV4], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The packets that one read of the device stands for.
struct Segments<'a> {
    packet: &'a [u8],
    /// Headers, and content of each segment; all of it is one packet if zero.
    headers: usize,
    size: usize,
    at: usize,
    needs_checksum: bool,
}

impl<'a> Segments<'a> {
    fn of(vnet: &[u8], packet: &'a [u8]) -> Self {
        let is_v4 = packet.len() >= IPV4 + 20 && packet[0] == 0x45;
        let is_tcp = is_v4 && packet[9] == TCP;
        let headers = if is_tcp { IPV4 + usize::from(packet[IPV4 + 12] >> 4) * 4 } else { 0 };
        let cut = is_tcp && vnet[1] & 0x7f == GSO_TCP_V4;
        let size = if cut { usize::from(u16::from_ne_bytes([vnet[4], vnet[5]])) } else { 0 };
        Segments { packet, headers, size, at: 0, needs_checksum: is_tcp && vnet[0] & NEEDS_CHECKSUM != 0 }
    }

    fn content(&self) -> usize {
        self.packet.len() - self.headers
    }

    fn segment(&self, from: usize, to: usize) -> Vec<u8> {
        let (headers, content) = self.packet.split_at(self.headers);
        let mut segment = [headers, &content[from..to]].concat();
        let sequence = u32::from_be_bytes(headers[IPV4 + 4..IPV4 + 8].try_into().expect("four bytes"));
        let sequence = sequence.wrapping_add(from as u32);
        segment[IPV4 + 4..IPV4 + 8].copy_from_slice(&sequence.to_be_bytes());
        if to < content.len() {
            segment[IPV4 + 13] &= !(FIN | PSH);
        }
        let ident = half(headers, 4).wrapping_add((from / self.size.max(1)) as u16);
        segment[4..6].copy_from_slice(&ident.to_be_bytes());
        fix_ip(&mut segment);
        fill_checksum(&mut segment);
        segment
    }
}

fn fill_checksum(packet: &mut [u8]) {
    packet[IPV4 + CHECKSUM_AT..IPV4 + CHECKSUM_AT + 2].fill(0);
    let from = pseudo(packet, packet.len() - IPV4);
    let checksum = !sum(&packet[IPV4..], from);
    packet[IPV4 + CHECKSUM_AT..IPV4 + CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
}

impl Iterator for Segments<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at > self.content() || (self.at > 0 && self.at == self.content()) {
            return None;
        }
        if self.headers == 0 {
            self.at = self.content() + 1;
            return Some(self.packet.to_vec());
        }
        let from = self.at;
        let to = if self.size == 0 { self.content() } else { (from + self.size).min(self.content()) };
        self.at = if to == self.content() { self.content() + 1 } else { to };
        if self.size == 0 && !self.needs_checksum {
            return Some(self.packet.to_vec());
        }
        Some(self.segment(from, to))
    }
}

/// Segments that follow each other, as one packet for the device.
#[derive(Default)]
struct Joined {
    /// With the header before it; empty if there is none.
    bytes: Vec<u8>,
    headers: usize,
    /// Content of the first segment.
    size: usize,
    next: u32,
    /// Nothing fits behind it.
    closed: bool,
    /// Segments in it.
    count: usize,
}

impl Joined {
    /// Adds a segment. Returns false if it begins another packet.
    fn append(&mut self, packet: &[u8]) -> bool {
        let Some((headers, content)) = plain_segment(packet) else { return false };
        let first = self.bytes.get(VNET..).unwrap_or_default();
        let fits = self.count > 0
            && !self.closed
            && headers == self.headers
            && self.bytes.len() - VNET + content <= LONGEST
            && content <= self.size
            && first[12..IPV4 + 4] == packet[12..IPV4 + 4]
            && packet[IPV4 + 4..IPV4 + 8] == self.next.to_be_bytes()
            && first[IPV4 + 8..IPV4 + 12] == packet[IPV4 + 8..IPV4 + 12]
            && first[IPV4 + 20..headers] == packet[IPV4 + 20..headers];
        if fits {
            self.bytes.extend_from_slice(&packet[headers..]);
            self.next = self.next.wrapping_add(content as u32);
            self.closed = content < self.size || packet[IPV4 + 13] & PSH != 0;
            self.bytes[VNET + IPV4 + 13] |= packet[IPV4 + 13] & PSH;
            self.count += 1;
        }
        fits
    }

    fn begin(&mut self, packet: &[u8]) {
        self.bytes.clear();
        self.bytes.resize(VNET, 0);
        self.bytes.extend_from_slice(packet);
        let plain = plain_segment(packet);
        self.closed = plain.is_none_or(|_| packet[IPV4 + 13] & PSH != 0);
        (self.headers, self.size) = plain.unwrap_or_default();
        self.count = 1;
        if plain.is_some() {
            let first = u32::from_be_bytes(packet[IPV4 + 4..IPV4 + 8].try_into().expect("four bytes"));
            self.next = first.wrapping_add(self.size as u32);
        }
    }

    /// Returns what the device takes, empty if there is nothing, and begins anew.
    fn take(&mut self) -> &[u8] {
        match std::mem::take(&mut self.count) {
            0 => return &[],
            1 => return &self.bytes,
            _ => {}
        }
        let (vnet, packet) = self.bytes.split_at_mut(VNET);
        vnet[0] = NEEDS_CHECKSUM;
        vnet[1] = GSO_TCP_V4;
        vnet[2..4].copy_from_slice(&(self.headers as u16).to_ne_bytes());
        vnet[4..6].copy_from_slice(&(self.size as u16).to_ne_bytes());
        vnet[6..8].copy_from_slice(&(IPV4 as u16).to_ne_bytes());
        vnet[8..10].copy_from_slice(&(CHECKSUM_AT as u16).to_ne_bytes());
        fix_ip(packet);
        let partial = sum(&[], pseudo(packet, packet.len() - IPV4));
        packet[IPV4 + CHECKSUM_AT..IPV4 + CHECKSUM_AT + 2].copy_from_slice(&partial.to_be_bytes());
        &self.bytes
    }
}

/// Returns the lengths of headers and content of a segment with content that has nothing but ACK and
/// PSH set.
fn plain_segment(packet: &[u8]) -> Option<(usize, usize)> {
    if packet.len() < IPV4 + 20 || packet[0] != 0x45 || packet[9] != TCP {
        return None;
    }
    let headers = IPV4 + usize::from(packet[IPV4 + 12] >> 4) * 4;
    let is_plain = packet[IPV4 + 13] & !PSH == ACK;
    (is_plain && packet.len() > headers).then(|| (headers, packet.len() - headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of a connection, with its checksums.
    fn segment(sequence: u32, flags: u8, content: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV4 + 20];
        packet[0] = 0x45;
        packet[8..10].copy_from_slice(&[64, TCP]);
        packet[12..20].copy_from_slice(&[10, 112, 0, 2, 10, 112, 0, 3]);
        packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet[32..34].copy_from_slice(&[0x50, flags]);
        packet.extend_from_slice(content);
        fix_ip(&mut packet);
        fill_checksum(&mut packet);
        packet
    }

    #[test]
    fn what_is_cut_is_joined_again() {
        let content: Vec<u8> = (0..3_000u32).map(|n| n as u8).collect();
        let whole = segment(7, ACK | PSH, &content);
        let mut vnet = [0; VNET];
        (vnet[0], vnet[1]) = (NEEDS_CHECKSUM, GSO_TCP_V4);
        vnet[4..6].copy_from_slice(&1_240u16.to_ne_bytes());
        let segments: Vec<Vec<u8>> = Segments::of(&vnet, &whole).collect();
        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1_280, 1_280, 560]);
        for one in &segments {
            assert_eq!(
                (sum(&one[..IPV4], 0), sum(&one[IPV4..], pseudo(one, one.len() - IPV4))),
                (0xffff, 0xffff)
            );
        }
        let mut joined = Joined::default();
        assert!(!joined.append(&segments[0]));
        joined.begin(&segments[0]);
        assert!(joined.append(&segments[1]) && joined.append(&segments[2]) && !joined.append(&segments[0]));
        let bytes = joined.take().to_vec();
        assert_eq!((&bytes[VNET..VNET + 36], &bytes[VNET + 40..]), (&whole[..36], &whole[40..]));
        assert!(joined.take().is_empty());
    }

    #[test]
    fn a_segment_that_opens_or_ends_a_connection_stays_alone() {
        let mut joined = Joined::default();
        for flags in [0x02, ACK | FIN, ACK] {
            let packet = segment(1, flags, b"");
            assert!(Segments::of(&[0; VNET], &packet).eq([&packet[..]]));
            assert!(!joined.append(&packet));
            joined.begin(&packet);
            assert_eq!(&joined.take()[VNET..], &packet[..]);
        }
    }
}
