//! WireGuard messages made byte by byte: anything that a stranger, an eavesdropper or a broken
//! device could send.
//!
//! This is a second implementation of the protocol (the paper, section 5.4). It shares no code with
//! the gateway, so that both cannot be wrong in the same way. The caller supplies stamps, sender
//! indices, macs and counters, and nothing is sent without a call.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, XChaCha20Poly1305, XNonce};
use fleetgate_keys::PublicKey;
use fleetgate_keys::conf::Conf;
use hmac::SimpleHmac;
use rand_core::OsRng;
use x25519_dalek::{PublicKey as Point, StaticSecret};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// TAI64 of 1970-01-01 with the ten leap seconds of that day, as in every WireGuard implementation.
const TAI_EPOCH: u64 = (1 << 62) + 10;

pub const INITIATION: usize = 148;
pub const RESPONSE: usize = 92;
pub const COOKIE: usize = 64;

/// Returns a WireGuard timestamp at this offset from the present. Later calls give later stamps.
pub fn stamp(from_now_s: i64) -> [u8; 12] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seconds = (TAI_EPOCH + now.as_secs()).wrapping_add_signed(from_now_s);
    let mut stamp = [0; 12];
    stamp[..8].copy_from_slice(&seconds.to_be_bytes());
    stamp[8..].copy_from_slice(&now.subsec_nanos().to_be_bytes());
    stamp
}

/// The initiator's keys, and the gateway it talks to.
#[derive(Clone)]
pub struct Initiator {
    secret: StaticSecret,
    gateway: [u8; 32],
    psk: [u8; 32],
}

impl Initiator {
    /// Returns an initiator that is not enrolled.
    pub fn stranger(gateway: &PublicKey) -> Initiator {
        Initiator { secret: StaticSecret::random_from_rng(OsRng), gateway: *gateway.as_bytes(), psk: [0; 32] }
    }

    /// Returns the device that this configuration was made for.
    pub fn device(conf: &Conf) -> Initiator {
        let private = conf.private_key.as_ref().expect("a configuration with its private key");
        Initiator {
            secret: StaticSecret::from(*private.as_bytes()),
            gateway: *conf.peer.as_bytes(),
            psk: conf.psk.as_ref().map_or([0; 32], |psk| *psk.as_bytes()),
        }
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(*Point::from(&self.secret).as_bytes()).expect("no key of small order")
    }

    /// Makes an initiation with a valid mac1 and no mac2.
    pub fn initiation(&self, stamp: [u8; 12], sender: u32) -> Initiation {
        let gateway = Point::from(self.gateway);
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let ephemeral_public = Point::from(&ephemeral);
        let start = hash(&[CONSTRUCTION]);
        let transcript = hash(&[&hash(&[&start, IDENTIFIER]), &self.gateway]);
        let transcript = hash(&[&transcript, ephemeral_public.as_bytes()]);
        let [chain] = derive(&start, ephemeral_public.as_bytes());
        let [chain, key] = derive(&chain, ephemeral.diffie_hellman(&gateway).as_bytes());
        let sealed_key = seal(&key, 0, Point::from(&self.secret).as_bytes(), &transcript);
        let transcript = hash(&[&transcript, &sealed_key]);
        let [chain, key] = derive(&chain, self.secret.diffie_hellman(&gateway).as_bytes());
        let sealed_stamp = seal(&key, 0, &stamp, &transcript);
        let transcript = hash(&[&transcript, &sealed_stamp]);
        let head = [&[1, 0, 0, 0], &sender.to_le_bytes()[..], ephemeral_public.as_bytes()].concat();
        let mut bytes = [head, sealed_key, sealed_stamp].concat();
        bytes.extend(mac(&hash(&[b"mac1----", &self.gateway]), &bytes));
        bytes.extend([0; 16]);
        Initiation { bytes, initiator: self.clone(), ephemeral, chain, transcript }
    }

    /// Returns the cookie in a reply to `initiation`. `None`: the reply is for another message, or
    /// not the gateway's.
    pub fn cookie(&self, initiation: &[u8], reply: &[u8]) -> Option<[u8; 16]> {
        let nonce = XNonce::from_slice(reply.get(8..32)?);
        let key = hash(&[b"cookie--", &self.gateway]);
        let payload = Payload { msg: reply.get(32..)?, aad: &initiation[INITIATION - 32..INITIATION - 16] };
        XChaCha20Poly1305::new(&key.into()).decrypt(nonce, payload).ok()?.try_into().ok()
    }
}

/// The first message of a handshake, and the state to finish it.
pub struct Initiation {
    /// The bytes to send; a test may damage them first.
    pub bytes: Vec<u8>,
    initiator: Initiator,
    ephemeral: StaticSecret,
    chain: [u8; 32],
    transcript: [u8; 32],
}

impl Initiation {
    /// Adds a mac2 to the message.
    pub fn prove(&mut self, cookie: &[u8; 16]) {
        let mac2 = mac(cookie, &self.bytes[..INITIATION - 16]);
        self.bytes[INITIATION - 16..].copy_from_slice(&mac2);
    }

    /// Returns the session that the gateway's response makes. `None`: it is no response to this
    /// initiation.
    pub fn finish(&self, response: &[u8]) -> Option<Transport> {
        if response.len() != RESPONSE || response[..4] != [2, 0, 0, 0] || response[8..12] != self.bytes[4..8]
        {
            return None;
        }
        let theirs = Point::from(<[u8; 32]>::try_from(&response[12..44]).ok()?);
        let transcript = hash(&[&self.transcript, theirs.as_bytes()]);
        let [chain] = derive(&self.chain, theirs.as_bytes());
        let [chain] = derive(&chain, self.ephemeral.diffie_hellman(&theirs).as_bytes());
        let [chain] = derive(&chain, self.initiator.secret.diffie_hellman(&theirs).as_bytes());
        let [chain, temporary, key] = derive(&chain, &self.initiator.psk);
        let transcript = hash(&[&transcript, &temporary]);
        open(&key, 0, &response[44..60], &transcript)?;
        let [send, receive] = derive(&chain, &[]);
        let remote = u32::from_le_bytes(response[4..8].try_into().ok()?);
        Some(Transport { send, receive, remote, counter: 0 })
    }
}

/// A session on the initiator's side. It has no age and never ends.
#[derive(Clone)]
pub struct Transport {
    send: [u8; 32],
    receive: [u8; 32],
    remote: u32,
    /// The counter of the next message.
    pub counter: u64,
}

impl Transport {
    /// Seals an inner packet into a data message; empty: a keepalive. It is padded as the paper
    /// requires.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut plain = packet.to_vec();
        plain.resize(packet.len().next_multiple_of(16), 0);
        let counter = self.counter;
        self.counter += 1;
        let head = [&[4, 0, 0, 0], &self.remote.to_le_bytes()[..], &counter.to_le_bytes()].concat();
        [head, seal(&self.send, counter, &plain, &[])].concat()
    }

    /// Returns the keys for sending and receiving, and the gateway's index, for a faster cipher.
    pub fn keys(&self) -> ([u8; 32], [u8; 32], u32) {
        (self.send, self.receive, self.remote)
    }

    /// Opens a message that the gateway sealed for this session.
    pub fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let counter = u64::from_le_bytes(datagram.get(8..16)?.try_into().ok()?);
        open(&self.receive, counter, &datagram[16..], &[]).filter(|_| datagram[0] == 4)
    }
}

/// Sends an initiation, waits for the response and confirms the session with a keepalive. A cookie
/// reply is used, once.
pub fn handshake(socket: &UdpSocket, initiation: &mut Initiation, gateway: SocketAddr) -> Option<Transport> {
    const PATIENCE: Duration = Duration::from_secs(3);
    send(socket, &initiation.bytes, gateway);
    let mut answer = reply_to(socket, &initiation.bytes, PATIENCE)?;
    if let Some(cookie) = initiation.initiator.cookie(&initiation.bytes, &answer) {
        initiation.prove(&cookie);
        send(socket, &initiation.bytes, gateway);
        answer = reply_to(socket, &initiation.bytes, PATIENCE)?;
    }
    let mut transport = initiation.finish(&answer)?;
    send(socket, &transport.seal(&[]), gateway);
    Some(transport)
}

pub fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    socket.send_to(datagram, to).unwrap_or_else(|e| panic!("{} bytes to {to}: {e}", datagram.len()));
}

/// Returns the next datagram that `wanted` accepts, if one comes in time; the others are lost.
pub fn receive<T>(
    socket: &UdpSocket,
    patience: Duration,
    mut wanted: impl FnMut(&[u8]) -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + patience;
    let mut room = vec![0; 65_536];
    loop {
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).expect("a time above zero");
        if let Ok(len) = socket.recv(&mut room)
            && let Some(found) = wanted(&room[..len])
        {
            return Some(found);
        }
    }
}

/// Returns a response or a cookie for this initiation. Dials of the gateway are ignored.
pub fn reply_to(socket: &UdpSocket, initiation: &[u8], patience: Duration) -> Option<Vec<u8>> {
    receive(socket, patience, |datagram| {
        let receiver = match (datagram.first()?, datagram.len()) {
            (2, RESPONSE) => &datagram[8..12],
            (3, COOKIE) => &datagram[4..8],
            _ => return None,
        };
        (*receiver == initiation[4..8]).then(|| datagram.to_vec())
    })
}

/// Runs `work` on a new thread in a network namespace. Sockets made there stay there.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/var/run/netns/{namespace}")).expect("a namespace of the lab");
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            enter(&file);
            work()
        });
        there.join().expect("what runs in a namespace does not panic")
    })
}

#[allow(unsafe_code, reason = "std cannot move a thread into a network namespace")]
fn enter(namespace: &File) {
    // SAFETY: the descriptor is open during the call, and only this thread moves.
    let rc = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(rc, 0, "setns needs root: {}", std::io::Error::last_os_error());
}

/// Opens a UDP socket in a namespace; port 0 for any.
pub fn socket_in(namespace: &str, address: &str) -> UdpSocket {
    inside(namespace, || UdpSocket::bind(address).unwrap_or_else(|e| panic!("{address}: {e}")))
}

pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    parts.iter().for_each(|part| blake2::Digest::update(&mut hasher, part));
    hasher.finalize().into()
}

pub(crate) fn mac(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("16 or 32 bytes");
    Mac::update(&mut mac, message);
    mac.finalize_fixed().into()
}

/// KDF1 to KDF3 of the paper.
fn derive<const N: usize>(chain: &[u8; 32], input: &[u8]) -> [[u8; 32]; N] {
    let root = hmac(chain, input);
    let mut made = [[0; 32]; N];
    let mut before: Vec<u8> = Vec::new();
    for (n, key) in made.iter_mut().enumerate() {
        before.push(n as u8 + 1);
        *key = hmac(&root, &before);
        before = key.to_vec();
    }
    made
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut hmac = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("any key");
    hmac.update(message);
    hmac.finalize_fixed().into()
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn seal(key: &[u8; 32], counter: u64, plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: plain, aad };
    cipher.encrypt(&nonce(counter).into(), payload).expect("short enough")
}

fn open(key: &[u8; 32], counter: u64, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher.decrypt(&nonce(counter).into(), Payload { msg: sealed, aad }).ok()
}

#[cfg(test)]
mod tests {
    use boringtun::noise::{Tunn, TunnResult};
    use fleetgate_keys::PrivateKey;

    use super::*;

    #[test]
    fn boringtun_takes_our_initiation_and_we_take_its_response() {
        let gateway = PrivateKey::generate();
        let us = Initiator::stranger(&gateway.public());
        let own = Point::from(&us.secret);
        let mut tunn = Tunn::new((*gateway.as_bytes()).into(), own, None, None, 7, None);
        let initiation = us.initiation(stamp(0), 0x1234_5678);
        let mut room = [0; 2_048];
        let response = match tunn.decapsulate(None, &initiation.bytes, &mut room) {
            TunnResult::WriteToNetwork(response) => response.to_vec(),
            other => panic!("{other:?}"),
        };
        let mut transport = initiation.finish(&response).expect("a session");
        let mut packet = vec![0u8; 28];
        packet[0] = 0x45;
        packet[3] = 28;
        let sealed = transport.seal(&packet);
        let opened = tunn.decapsulate(None, &sealed, &mut room);
        assert!(matches!(opened, TunnResult::WriteToTunnelV4(ref p, _) if **p == packet[..]), "{opened:?}");
        let back = match tunn.encapsulate(&packet, &mut room) {
            TunnResult::WriteToNetwork(back) => back.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(transport.open(&back), Some(packet));
    }

    #[test]
    fn later_stamps_are_larger() {
        let (past, now, future) = (stamp(-60), stamp(0), stamp(60));
        assert!(past < now && now < future);
    }
}
