//! A peer that seals and opens as fast as a hub does, and sends and receives in batches.
//!
//! The load comes from this process, the same for every hub. It must cost less than what it
//! measures: packets are sealed behind each other into one buffer, which leaves in one call (GSO),
//! and arrive in the same way (GRO).

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::attacker::{Initiator, Transport, handshake, stamp};

/// Header of a data message: type, receiver and counter.
const HEADER: usize = 16;
const TAG: usize = 16;
/// The bytes that a data message adds to its packet.
pub const OVERHEAD: usize = HEADER + TAG;
/// The content of a message is padded to a multiple of this.
const PADDING: usize = 16;
/// The kernel refuses a longer batch.
const BATCH_BYTES: usize = 65_000;
const BATCH_SEGMENTS: usize = 64;
/// A blocking call ends after this time, so that a thread sees that it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Attempts for a handshake.
const ATTEMPTS: usize = 3;
/// The kernel's buffer, so that a busy core of the load loses nothing that the hub has sent.
const SOCKET_BUFFER: usize = 8 << 20;

/// The sending half of a session.
pub struct Sealer {
    key: LessSafeKey,
    remote: u32,
    counter: u64,
}

/// The receiving half of a session. It accepts repeated messages.
pub struct Opener {
    key: LessSafeKey,
}

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Splits a session in its halves.
pub fn halves(transport: &Transport) -> (Sealer, Opener) {
    let (send, receive, remote) = transport.keys();
    (Sealer { key: key(&send), remote, counter: transport.counter }, Opener { key: key(&receive) })
}

impl Sealer {
    /// Appends a data message with this packet. An empty one is a keepalive.
    pub fn seal(&mut self, packet: &[u8], into: &mut Vec<u8>) {
        let counter = self.counter;
        self.counter += 1;
        into.extend_from_slice(&[4, 0, 0, 0]);
        into.extend_from_slice(&self.remote.to_le_bytes());
        into.extend_from_slice(&counter.to_le_bytes());
        let content = into.len();
        into.extend_from_slice(packet);
        into.resize(content + packet.len().next_multiple_of(PADDING), 0);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), &mut into[content..])
            .expect("short enough");
        into.extend_from_slice(tag.as_ref());
    }
}

impl Opener {
    /// Opens a data message in place; the packet still has its padding.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        if datagram.len() < OVERHEAD || datagram[0] != 4 {
            return None;
        }
        let counter = u64::from_le_bytes(datagram[8..HEADER].try_into().expect("eight bytes"));
        let content = &mut datagram[HEADER..];
        self.key.open_in_place(nonce(counter), Aad::empty(), content).ok().map(|packet| &mut *packet)
    }
}

/// A connected pair of socket and hub.
pub struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
    hub: SocketAddr,
}

impl Wire {
    /// # Errors
    /// Fails when the socket does not take its options.
    pub fn new(socket: UdpSocket, hub: SocketAddr) -> anyhow::Result<Wire> {
        let options = socket2::SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BUFFER)?;
        options.set_send_buffer_size(SOCKET_BUFFER)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Wire { socket, state, hub })
    }

    /// Makes a session with the hub.
    ///
    /// # Errors
    /// Fails when the hub does not answer.
    pub fn shake_hands(&self, us: &Initiator, index: u32) -> anyhow::Result<Transport> {
        // What the hub sends in an older session may come first.
        let session = (0..ATTEMPTS)
            .find_map(|_| handshake(&self.socket, &mut us.initiation(stamp(0), index), self.hub));
        self.socket.set_read_timeout(Some(PATIENCE))?;
        session.context("the hub answers no handshake")
    }

    /// Sends what stands in `batch`, each datagram of `size` bytes; the last may be shorter.
    pub fn send(&self, batch: &[u8], size: usize) {
        self.send_to(self.hub, batch, size);
    }

    /// Does the same to another address. Packets that the kernel refuses are lost, as on a network.
    pub fn send_to(&self, to: SocketAddr, batch: &[u8], size: usize) {
        let most = (BATCH_BYTES / size).min(BATCH_SEGMENTS) * size;
        for contents in batch.chunks(most) {
            let segment_size = (contents.len() > size).then_some(size);
            let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
            let _ = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        }
    }

    /// Returns the bytes received and the size of each datagram, or `None` after a moment.
    pub fn receive(&self, room: &mut [u8]) -> Option<(usize, usize)> {
        let mut meta = [RecvMeta::default()];
        let received =
            self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(room)], &mut meta);
        match received {
            Ok(_) => Some((meta[0].len, meta[0].stride.max(1))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => None,
            Err(_) => None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }
}

#[cfg(test)]
mod tests {
    use boringtun::noise::{Tunn, TunnResult};
    use fleetgate_keys::PrivateKey;

    use super::*;
    use crate::packets::udp;

    #[test]
    fn boringtun_opens_what_we_seal_and_we_open_what_it_seals() {
        let hub = PrivateKey::generate();
        let us = Initiator::stranger(&hub.public());
        let theirs = (*us.public().as_bytes()).into();
        let mut tunn = Tunn::new((*hub.as_bytes()).into(), theirs, None, None, 7, None);
        let mut room = [0; 2_048];
        let initiation = us.initiation(stamp(0), 9);
        let response = match tunn.decapsulate(None, &initiation.bytes, &mut room) {
            TunnResult::WriteToNetwork(response) => response.to_vec(),
            other => panic!("{other:?}"),
        };
        let (mut sealer, opener) = halves(&initiation.finish(&response).expect("a session"));
        let packet = udp([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 7, b"nineteen bytes long");
        let mut batch = Vec::new();
        sealer.seal(&packet, &mut batch);
        let first = batch.len();
        sealer.seal(&packet, &mut batch);
        assert_eq!((first, batch.len()), (48 + OVERHEAD, 2 * (48 + OVERHEAD)));
        for datagram in batch.chunks(first) {
            let opened = tunn.decapsulate(None, datagram, &mut room);
            assert!(
                matches!(opened, TunnResult::WriteToTunnelV4(ref p, _) if **p == packet[..]),
                "{opened:?}"
            );
        }
        let mut back = match tunn.encapsulate(&packet, &mut room) {
            TunnResult::WriteToNetwork(back) => back.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(opener.open(&mut back).as_deref(), Some(&packet[..]));
        back[20] ^= 1;
        assert_eq!(opener.open(&mut back), None);
    }
}
