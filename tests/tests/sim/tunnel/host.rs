//! A device of the simulation: its identity, its address and its packets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::{DEFAULT_MTU, PeerKey, PeerKind, PeerSpec};
use fleetgate_engine::time::Now;
use fleetgate_engine::tunnel::session::Noise;
use fleetgate_engine::tunnel::sim::cleartext::{PlainNoise, PlainSession};
use fleetgate_engine::tunnel::sim::device::Device;
use fleetgate_keys::{PrivateKey, PublicKey};

pub fn behind() -> IpAddr {
    [192, 168, 1, 50].into()
}

pub fn key(n: u8, generation: u8) -> PublicKey {
    PrivateKey::from_bytes([n.wrapping_mul(7).wrapping_add(generation.wrapping_mul(83)); 32]).public()
}

pub struct Host {
    pub n: u8,
    pub id: PeerId,
    pub device: Device<PlainSession>,
    pub at: SocketAddr,
    pub online: bool,
    /// Whether it sends keepalives. A sleeper only replies.
    pub awake: bool,
    /// How far its wall clock is ahead of ours.
    pub ahead_ms: i64,
    pub generation: u8,
    pub boots: u32,
}

impl Host {
    pub fn v4(&self) -> IpAddr {
        [172, 24, 0, self.n].into()
    }

    pub fn v6(&self) -> IpAddr {
        format!("fd00:1::{:x}", self.n).parse().expect("an address")
    }

    pub fn spec(&self) -> PeerSpec {
        PeerSpec {
            id: self.id,
            kind: PeerKind::Device,
            keys: vec![PeerKey { public: key(self.n, self.generation), psk: None }],
            addresses: vec![self.v4(), self.v6()],
            networks: vec!["192.168.1.0/24".parse().expect("a network")],
            mtu: DEFAULT_MTU,
        }
    }
}

pub fn session(n: u8, generation: u8, boots: u32, awake: bool, clock: Now) -> PlainSession {
    let mut seed = [n; 32];
    seed[0] = generation;
    seed[1..5].copy_from_slice(&boots.to_le_bytes());
    let mut noise = PlainNoise::new(key(n, generation), seed);
    let gateway = PrivateKey::from_bytes([200; 32]).public();
    let index = (u32::from(n) << 16 | boots) & 0x00ff_ffff;
    noise.session(&gateway, None, index, clock).as_client(awake.then_some(Duration::from_secs(25)))
}
