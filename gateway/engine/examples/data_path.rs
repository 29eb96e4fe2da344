//! Measures what the engine takes to pass a packet on from one peer to another, with its cryptography
//! and without a socket:
//! `cargo run --release -p fleetgate-engine --example data_path`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fleetgate_engine::id::{Id, PeerId};
use fleetgate_engine::messages::{
    Command, DEFAULT_MTU, Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget,
    Input, Output, PeerKey, PeerKind, PeerSnapshot, PeerSpec, PolicyChange, SourceOwner, SourceSpec,
    TargetAddress, TargetId, TargetSpec,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::noise::{BoringNoise, BoringSession};
use fleetgate_engine::tunnel::session::{Noise as _, SCRATCH, Session as _};
use fleetgate_engine::tunnel::{Config, Tunnel};
use fleetgate_keys::PrivateKey;

const PACKETS: usize = 400_000;
/// Datagrams of one turn, as a batch of the socket has them.
const TURNS: [usize; 2] = [1, 10];
const SIZES: [usize; 2] = [1_200, 1_280];
const FLOWS: u16 = 16;

fn id(n: u8) -> PeerId {
    Id::from_i64(i64::from(n) + 1)
}

fn inner(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 112, 0, n + 2)
}

fn outer(n: u8) -> SocketAddr {
    ([192, 0, 2, n + 1], 40_000).into()
}

/// A gateway with a laptop, which is peer 0, and a device.
struct Gateway {
    tunnel: Tunnel<BoringNoise>,
    now: Now,
    sent: Vec<Vec<u8>>,
    datagrams: usize,
}

impl Gateway {
    fn new(private: &PrivateKey, peers: &[PrivateKey; 2]) -> Gateway {
        let config = Config {
            pool_v4: "10.112.0.0/14".parse().expect("a network"),
            pool_v6: "fd72:6c65:6574::/64".parse().expect("a network"),
            results_port: None,
        };
        let now = Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(1_780_000_000_000) };
        let mut tunnel = Tunnel::new(config, BoringNoise::new(private, [7; 32]), [8; 32]);
        let specs = peers.iter().zip([(0, PeerKind::Operator), (1, PeerKind::Device)]);
        let specs = specs.map(|(key, (n, kind))| {
            let keys = vec![PeerKey { public: key.public(), psk: None }];
            let addresses = vec![inner(n).into()];
            (
                PeerSpec { id: id(n), kind, keys, addresses, networks: Vec::new(), mtu: DEFAULT_MTU },
                PeerSnapshot::default(),
            )
        });
        tunnel.restore(specs, now);
        tunnel.handle(Input::Command(policy()), now);
        Gateway { tunnel, now, sent: Vec::new(), datagrams: 0 }
    }

    fn receive(&mut self, n: u8, bytes: &[u8]) {
        self.tunnel
            .handle(Input::Datagram { from: outer(n), to: None, arrived: self.now.mono, bytes }, self.now);
    }

    /// Takes the outputs of a turn. Datagrams are kept if the load needs them, and counted otherwise.
    fn drain(&mut self, keep: bool) {
        loop {
            match self.tunnel.poll_output() {
                Output::Transmit(transmit) => {
                    self.datagrams += transmit.datagrams().len();
                    if keep {
                        self.sent.extend(transmit.datagrams().map(<[u8]>::to_vec));
                    }
                    self.tunnel.lend(transmit.bytes);
                }
                Output::Wait(..) => break,
                _ => {}
            }
        }
        self.now.mono = self.now.mono + Duration::from_micros(100);
    }

    /// Makes a session between a peer and the gateway.
    fn connect(&mut self, n: u8, session: &mut BoringSession) {
        let (mut scratch, mut made) = (vec![0; SCRATCH], Vec::new());
        session.initiate(self.now.mono, &mut scratch, &mut |datagram| made.push(datagram.to_vec()));
        self.receive(n, &made.remove(0));
        self.drain(true);
        let response = self.sent.pop().expect("a response");
        let from = outer(200);
        session.receive(&response, from, self.now.mono, &mut scratch, &mut |one| made.push(one.to_vec()));
        self.receive(n, &made.remove(0));
        self.drain(false);
    }
}

fn policy() -> Command {
    let [laptop, device]: [IpAddr; 2] = [inner(0).into(), inner(1).into()];
    Command::Policy(vec![
        PolicyChange::Source(SourceSpec {
            peer: id(0),
            owner: SourceOwner::User { user: Id::from_i64(70), role: Some(GrantRole::Operator) },
            addresses: [laptop].into(),
        }),
        PolicyChange::Target(TargetSpec {
            id: TargetId::Host(id(1)),
            host: id(1),
            name: "device".to_owned(),
            peer: id(1),
            behind: false,
            labels: BTreeMap::new(),
            addresses: vec![TargetAddress { reached_at: device, real: device }],
        }),
        PolicyChange::Grant(GrantSpec {
            id: Id::from_i64(900),
            source: GrantSource::Peer(id(0)),
            target: GrantTarget::Host(id(1)),
            access: vec![GrantAccess { protocol: GrantProtocol::Udp, ports: vec![1..=65_535] }],
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        }),
    ])
}

/// A UDP packet of this size from the laptop to the device.
fn packet(port: u16, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[..2].copy_from_slice(&[0x45, 0]);
    bytes[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    bytes[8..10].copy_from_slice(&[64, 17]);
    bytes[12..16].copy_from_slice(&inner(0).octets());
    bytes[16..20].copy_from_slice(&inner(1).octets());
    bytes[20..22].copy_from_slice(&40_000u16.to_be_bytes());
    bytes[22..24].copy_from_slice(&port.to_be_bytes());
    bytes[24..26].copy_from_slice(&(size as u16 - 20).to_be_bytes());
    let sum: u32 = bytes[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    bytes[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    bytes
}

fn main() {
    println!("bytes  datagrams of a turn   ns/packet");
    for _ in 0..3 {
        for size in SIZES {
            TURNS.iter().for_each(|turn| measure(size, *turn));
        }
    }
}

fn measure(size: usize, turn: usize) {
    let (private, peers) = (PrivateKey::generate(), [PrivateKey::generate(), PrivateKey::generate()]);
    let mut gate = Gateway::new(&private, &peers);
    let mut sessions = [0, 1].map(|n: u8| {
        let mut noise = BoringNoise::new(&peers[usize::from(n)], [n; 32]);
        let mut session = noise.session(&private.public(), None, 1, gate.now);
        gate.connect(n, &mut session);
        session
    });
    let flows: Vec<Vec<u8>> = (0..FLOWS).map(|n| packet(5_000 + n, size)).collect();
    let (mut room, mut batch) = (vec![0; SCRATCH], Vec::new());
    let mut spent = Duration::ZERO;
    gate.datagrams = 0;
    for first in (0..PACKETS).step_by(turn) {
        batch.clear();
        for n in first..first + turn {
            let packet = &flows[n % flows.len()];
            let len = sessions[0].seal(packet, gate.now.mono, &mut room).expect("a session");
            batch.extend_from_slice(&room[..len]);
        }
        let begun = Instant::now();
        batch.chunks(batch.len() / turn).for_each(|datagram| gate.receive(0, datagram));
        gate.drain(false);
        spent += begun.elapsed();
    }
    // Keepalives and reports may come on top.
    assert!(gate.datagrams >= PACKETS, "{} of {PACKETS} passed", gate.datagrams);
    println!("{size:5} {turn:10}             {:7}", spent.as_nanos() / PACKETS as u128);
}
