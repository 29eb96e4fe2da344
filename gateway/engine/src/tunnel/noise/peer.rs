//! A real WireGuard peer for the tests: plain boringtun at the other end.

use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

/// The device's reaction to a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Packet(Vec<u8>),
    Reply(Vec<u8>),
    Refused(String),
}

pub struct Device {
    private: PrivateKey,
    tunn: Tunn,
    room: Vec<u8>,
}

impl Device {
    pub fn new(gateway: &PublicKey, psk: Option<&PresharedKey>) -> Self {
        let private = PrivateKey::generate();
        let secret = StaticSecret::from(*private.as_bytes());
        let psk = psk.map(|psk| *psk.as_bytes());
        // boringtun's default limiter is under load at ten handshakes a second.
        let limiter = Arc::new(RateLimiter::new(&(&secret).into(), u64::MAX));
        let tunn = Tunn::new(secret, (*gateway.as_bytes()).into(), psk, None, 1, Some(limiter));
        Device { private, tunn, room: vec![0; 2_048] }
    }

    pub fn public(&self) -> PublicKey {
        self.private.public()
    }

    pub fn initiation(&mut self) -> Vec<u8> {
        said(self.tunn.format_handshake_initiation(&mut self.room, true)).reply()
    }

    /// An empty packet is a keepalive.
    pub fn send(&mut self, packet: &[u8]) -> Vec<u8> {
        said(self.tunn.encapsulate(packet, &mut self.room)).reply()
    }

    pub fn receive(&mut self, datagram: &[u8]) -> Said {
        said(self.tunn.decapsulate(None, datagram, &mut self.room))
    }
}

fn said(result: TunnResult<'_>) -> Said {
    match result {
        TunnResult::Done => Said::Nothing,
        TunnResult::Err(error) => Said::Refused(format!("{error:?}")),
        TunnResult::WriteToNetwork(bytes) => Said::Reply(bytes.to_vec()),
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
            Said::Packet(packet.to_vec())
        }
    }
}

impl Said {
    #[track_caller]
    pub fn reply(self) -> Vec<u8> {
        match self {
            Said::Reply(bytes) => bytes,
            other => panic!("expected something to send, not {other:?}"),
        }
    }
}

/// Makes an IPv4 packet of this total length, valid only as far as boringtun looks.
pub fn packet(len: u16) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}
