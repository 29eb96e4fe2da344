//! A forwarded packet allocates nothing. The tunnel's thread and its socket forward in this
//! process, and the load makes its packets without an allocation, so that the count of the whole process is that
//! of the data path.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    Command, Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PeerKind,
    PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use fleetgate_keys::PrivateKey;
use fleetgate_tests::attacker::Initiator;
use fleetgate_tests::bench::forwarding::peer::{OVERHEAD, Sealer, Wire, halves};
use fleetgate_tests::bench::tunnel_thread::TunnelThread;
use fleetgate_tests::bench::{Counting, inner_addresses, peer_id, spec};
use fleetgate_tests::packets::udp;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LAPTOP: u32 = 0;
const DEVICE: u32 = 1;
const FLOWS: usize = 16;
const PACKETS: usize = 20_000;
const AT_ONCE: usize = 40;
const SIZE: usize = 1_200;
const PATIENCE: Duration = Duration::from_secs(60);
/// The engine reports each peer once a second, which allocates a message with its counters.
const REPORTS: usize = 100;

fn policy() -> Command {
    let of = |n| -> IpAddr { inner_addresses(n)[0] };
    let everything = GrantAccess { protocol: GrantProtocol::Udp, ports: vec![1..=65_535] };
    let address = TargetAddress { reached_at: of(DEVICE), real: of(DEVICE) };
    Command::Policy(vec![
        PolicyChange::Source(SourceSpec {
            peer: peer_id(LAPTOP),
            owner: SourceOwner::User { user: Id::from_i64(70), role: Some(GrantRole::Operator) },
            addresses: [of(LAPTOP)].into(),
        }),
        PolicyChange::Target(TargetSpec {
            id: TargetId::Host(peer_id(DEVICE)),
            host: peer_id(DEVICE),
            name: "device".to_owned(),
            peer: peer_id(DEVICE),
            behind: false,
            labels: BTreeMap::new(),
            addresses: vec![address],
        }),
        PolicyChange::Grant(GrantSpec {
            id: Id::from_i64(900),
            source: GrantSource::Peer(peer_id(LAPTOP)),
            target: GrantTarget::Host(peer_id(DEVICE)),
            access: vec![everything],
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        }),
    ])
}

/// Sends packets in batches, each after the one before arrived. Returns how many arrived.
fn forward(packets: usize, (here, sealer): (&Wire, &mut Sealer), there: &Wire, flows: &[Vec<u8>]) -> usize {
    let (mut batch, mut room, mut arrived) = (Vec::with_capacity(1 << 16), vec![0; 1 << 16], 0);
    let end = Instant::now() + PATIENCE;
    for first in (0..packets).step_by(AT_ONCE) {
        batch.clear();
        (first..first + AT_ONCE).for_each(|n| sealer.seal(&flows[n % flows.len()], &mut batch));
        here.send(&batch, SIZE + OVERHEAD);
        while arrived < first + AT_ONCE && Instant::now() < end {
            let Some((len, size)) = there.receive(&mut room) else { continue };
            arrived += room[..len].chunks(size).filter(|one| one.len() == SIZE + OVERHEAD).count();
        }
    }
    arrived
}

#[test]
fn a_forwarded_packet_allocates_nothing() {
    let private = PrivateKey::generate();
    let keys = [LAPTOP, DEVICE].map(|_| Initiator::stranger(&private.public()));
    let mut specs = [LAPTOP, DEVICE].map(|n| spec(n, keys[n as usize].public()));
    specs[0].kind = PeerKind::Operator;
    let gate = TunnelThread::start(&private, specs).expect("a thread");
    gate.command(policy()).expect("a running thread");
    let wires = [LAPTOP, DEVICE].map(|_| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback address");
        Wire::new(socket, gate.address).expect("a socket")
    });
    let (mut sealer, _) = halves(&wires[0].shake_hands(&keys[0], 1).expect("a session"));
    let _device = wires[1].shake_hands(&keys[1], 2).expect("a session");
    let [from, to] = [LAPTOP, DEVICE].map(|n| inner_addresses(n)[0]);
    let flows: Vec<Vec<u8>> = (0..FLOWS).map(|n| udp(from, to, 5_000 + n as u16, &[7; SIZE - 28])).collect();

    let warm = forward(FLOWS * AT_ONCE, (&wires[0], &mut sealer), &wires[1], &flows);
    assert_eq!(warm, FLOWS * AT_ONCE);
    let before = Counting::allocations();
    let arrived = forward(PACKETS, (&wires[0], &mut sealer), &wires[1], &flows);
    let made = Counting::allocations() - before;
    assert_eq!(arrived, PACKETS);
    println!("{made} allocations for {PACKETS} packets");
    assert!(made < REPORTS, "{made} allocations for {PACKETS} packets");
}
