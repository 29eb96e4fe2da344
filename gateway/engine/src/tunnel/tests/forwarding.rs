use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_probes::packet::{ICMP, echo_request, parse};

use super::world::*;
use crate::id::Id;
use crate::messages::{
    Command, DropReason, ExplainId, ExplainRequest, ExplainSource, ExplainTarget, Explanation, Gate,
    GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, Input, PeerKind,
    PeerSnapshot, PeerSpec, PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use crate::time::Wall;
use crate::tunnel::handshake::dial::DIALS_PER_TURN;

const SECOND: Duration = Duration::from_secs(1);
const GRANT: i64 = 900;
const CAMERA: i64 = 20;

/// The alias of the camera behind device 2.
fn alias() -> IpAddr {
    v4(99)
}

fn anna() -> PolicyChange {
    PolicyChange::Source(SourceSpec {
        peer: id(3),
        owner: SourceOwner::User { user: Id::from_i64(70), role: Some(GrantRole::Operator) },
        addresses: [v4(3), v6(3)].into(),
    })
}

fn target(host: i64, behind: bool, addresses: &[(IpAddr, IpAddr)]) -> PolicyChange {
    let addresses =
        addresses.iter().map(|(reached_at, real)| TargetAddress { reached_at: *reached_at, real: *real });
    PolicyChange::Target(TargetSpec {
        id: TargetId::Host(Id::from_i64(host)),
        host: Id::from_i64(host),
        name: format!("host-{host}"),
        peer: id(2),
        behind,
        labels: BTreeMap::new(),
        addresses: addresses.collect(),
    })
}

fn grant(host: i64, until: Option<Wall>) -> PolicyChange {
    let all = |protocol, ports: &[u16]| GrantAccess {
        protocol,
        ports: ports.iter().map(|port| *port..=*port).collect(),
    };
    PolicyChange::Grant(GrantSpec {
        id: Id::from_i64(GRANT),
        source: GrantSource::Peer(id(3)),
        target: GrantTarget::Host(Id::from_i64(host)),
        access: vec![all(GrantProtocol::Icmp, &[]), all(GrantProtocol::Tcp, &[22])],
        from: None,
        until,
        only: None,
        gate: Gate::default(),
    })
}

/// Returns a world in which peer 3 is Anna's laptop and peer 2 is a device with a camera behind it.
fn reaching(host: i64, until: Option<Duration>) -> Plain {
    let mut world = connected(2);
    let until = until.map(|after| world.now.wall + after);
    world.command(Command::Policy(vec![
        anna(),
        target(2, false, &[(v4(2), v4(2)), (v6(2), v6(2))]),
        target(CAMERA, true, &[(alias(), behind())]),
        grant(host, until),
    ]));
    world
}

fn connect(world: &mut Plain, from: IpAddr, to: IpAddr, words: &[u8]) {
    world.call(3, SocketAddr::new(from, 50_000), SocketAddr::new(to, 22), words);
    world.run(SECOND);
}

#[test]
fn a_connection_of_an_operator_reaches_the_granted_device_in_both_families() {
    for (from, to) in [(v4(3), v4(2)), (v6(3), v6(2))] {
        let mut world = reaching(2, None);
        connect(&mut world, from, to, b"hello");
        assert_eq!(world.end(3).device.heard(), [b"hello"]);
    }
}

#[test]
fn a_host_behind_a_device_is_reached_at_its_alias_alone() {
    let mut world = reaching(CAMERA, None);
    connect(&mut world, v4(3), alias(), b"picture");
    assert_eq!(world.end(3).device.heard(), [b"picture"]);
    world.say(3, &echo_request(v4(3), behind(), 1, 1, &[0; 16]).expect("one family"));
    world.say(3, &echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family"));
    world.run(SECOND);
    assert_eq!(world.dropped(3, DropReason::NoRoute), 1, "its real address");
    assert_eq!(world.dropped(3, DropReason::NotGranted), 1, "the device itself");
}

#[test]
fn nothing_passes_without_a_grant_or_the_other_way_round() {
    let mut world = reaching(CAMERA, None);
    connect(&mut world, v4(3), v4(2), b"hello");
    assert_eq!(world.end(3).device.heard(), [b""]);
    assert_eq!(world.end(2).device.received, 0);
    let before = world.end(3).device.received;
    world.say(2, &echo_request(v4(2), v4(3), 1, 1, &[0; 16]).expect("one family"));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::NoFlow), 1);
    assert_eq!(world.end(3).device.received, before);
}

#[test]
fn a_withdrawn_grant_cuts_a_running_connection_with_resets_to_both_ends() {
    let mut world = reaching(2, None);
    connect(&mut world, v4(3), v4(2), b"hello");
    let (device, laptop) = (world.end(2).device.received, world.end(3).device.received);
    world.command(Command::Policy(vec![PolicyChange::WithdrawGrant(Id::from_i64(GRANT))]));
    world.run(SECOND);
    assert!(world.end(2).device.received > device && world.end(3).device.received > laptop);
    let device = world.end(2).device.received;
    connect(&mut world, v4(3), v4(2), b"again");
    assert_eq!(world.end(2).device.received, device);
}

#[test]
fn an_end_holds_to_the_packet_without_any_change() {
    let mut world = reaching(2, Some(Duration::from_secs(10)));
    let ping = |world: &mut Plain| {
        let before = world.end(2).device.received;
        world.say(3, &echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family"));
        world.run(Duration::from_millis(100));
        world.end(2).device.received > before
    };
    assert!(ping(&mut world));
    world.run(Duration::from_millis(9_890));
    assert!(!ping(&mut world), "it arrives 20 ms after the end");
    assert_eq!(world.dropped(3, DropReason::NotGranted), 1);
}

#[test]
fn a_receiver_without_a_session_is_dialled() {
    let mut world = reaching(2, None);
    world.end(2).off = true;
    world.run(Duration::from_secs(400));
    world.end(2).off = false;
    let ping = echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family");
    world.say(3, &ping);
    world.run(SECOND);
    assert_eq!(world.dropped(3, DropReason::NoSession), 1);
    let received = world.end(2).device.received;
    world.say(3, &ping);
    world.run(SECOND);
    assert_eq!(world.end(2).device.received, received + 1);
}

#[test]
fn what_a_receiver_without_a_session_did_not_get_is_no_traffic() {
    let mut world = reaching(2, None);
    let ping = echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family");
    world.say(3, &ping);
    world.run(SECOND);
    world.end(2).off = true;
    world.run(Duration::from_secs(400));
    world.say(3, &ping);
    world.run(Duration::from_secs(100));
    assert_eq!(world.dropped(3, DropReason::NoSession), 1);
    let packets: Vec<_> = world.flows.iter().map(|flow| (flow.sent.packets, flow.received.packets)).collect();
    assert_eq!(packets, [(1, 1), (0, 0)]);
}

#[test]
fn a_scan_of_silent_devices_makes_no_more_handshakes_in_a_turn_than_a_start() {
    let mut world = connected(2);
    let silent = 4..4 + 2 * u8::try_from(DIALS_PER_TURN).expect("a few");
    let mut policy = vec![anna()];
    for n in silent.clone() {
        let memory = PeerSnapshot { endpoint: Some(public_address(n)), ..PeerSnapshot::default() };
        world.command(Command::Upsert(Box::new(spec(n)), memory));
        let address = TargetAddress { reached_at: v4(n), real: v4(n) };
        policy.push(PolicyChange::Target(TargetSpec {
            id: TargetId::Host(id(n)),
            host: id(n),
            name: format!("host-{n}"),
            peer: id(n),
            behind: false,
            labels: BTreeMap::new(),
            addresses: vec![address],
        }));
    }
    let PolicyChange::Grant(all) = grant(2, None) else { panic!("a grant") };
    policy.push(PolicyChange::Grant(GrantSpec { target: GrantTarget::AllDevices, ..all }));
    world.command(Command::Policy(policy));
    world.sent.clear();
    for n in silent.clone() {
        world.say(3, &echo_request(v4(3), v4(n), 1, 1, &[0; 16]).expect("one family"));
    }
    // All of them arrive in one turn.
    world.run(DELAY);
    let initiations = world.sent.iter().filter(|kind| **kind == 1).count();
    assert_eq!(initiations, DIALS_PER_TURN);
    assert_eq!(world.dropped(3, DropReason::NoSession), silent.len() as u64);
}

#[test]
fn a_flood_to_a_silent_device_does_not_delay_the_dials_of_a_start() {
    let mut world = reaching(2, None);
    world.end(2).off = true;
    world.run(Duration::from_secs(400));
    let memory = PeerSnapshot { endpoint: Some(public_address(4)), ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(spec(4)), memory));
    let ping = echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family");
    let (now, from) = (world.now, world.end(3).at);
    world.sent_to.clear();
    // All in one turn.
    for _ in 0..=DIALS_PER_TURN {
        for bytes in world.end(3).device.send(&ping, now.mono).expect("a session") {
            world.tunnel.handle(Input::Datagram { from, to: None, arrived: now.mono, bytes: &bytes }, now);
        }
    }
    world.command(Command::DialAll);
    assert_eq!(world.initiations_to(public_address(2)), 1, "the first packet");
    assert_eq!(world.initiations_to(public_address(4)), 1);
}

#[test]
fn packets_are_expected_while_a_person_is_connected() {
    let mut world = reaching(2, None);
    let laptop = PeerSpec { kind: PeerKind::Operator, ..spec(3) };
    world.command(Command::Upsert(Box::new(laptop), PeerSnapshot::default()));
    world.end(3).off = true;
    world.run(Duration::from_secs(60));
    assert!(!world.tunnel.expects_packets(world.now.mono), "a device may wait");
    world.end(3).off = false;
    world.say(3, &echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family"));
    world.run(SECOND);
    assert!(world.tunnel.expects_packets(world.now.mono));
    world.run(Duration::from_secs(60));
    assert!(world.tunnel.expects_packets(world.now.mono), "its keepalives say that it is there");
    world.end(3).off = true;
    world.run(Duration::from_secs(31));
    assert!(!world.tunnel.expects_packets(world.now.mono));
}

#[test]
fn forwarded_packets_are_no_traffic_of_the_checks() {
    let mut world = reaching(2, None);
    let (wire, bytes) = (world.status(2).wire[0].total(), world.status(2).tx_bytes);
    for n in 0..50 {
        world.say(3, &echo_request(v4(3), v4(2), 1, n, &[0; 1_000]).expect("one family"));
    }
    world.run(SECOND);
    assert!(world.status(2).tx_bytes >= bytes + 50_000);
    assert!(world.status(2).wire[0].total() < wire + 1_000, "only keepalives");
}

#[test]
fn a_denied_client_gets_an_answer_from_the_gateway() {
    let mut world = connected(2);
    world.command(Command::Policy(vec![anna(), target(2, false, &[(v4(2), v4(2))])]));
    let before = world.end(3).device.received;
    world.say(3, &echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family"));
    world.run(SECOND);
    assert_eq!(world.end(3).device.received, before + 1, "an ICMP error");
    assert_eq!(world.end(2).device.received, 0);
}

#[test]
fn the_filter_explains_itself() {
    let mut world = reaching(2, None);
    let question = |port| ExplainRequest {
        from: ExplainSource::User(Id::from_i64(70)),
        to: ExplainTarget::Host(id(2)),
        protocol: GrantProtocol::Tcp,
        port,
        at: Wall::from_millis(1_750_000_000_000),
    };
    world.command(Command::Explain(ExplainId(1), question(22)));
    world.command(Command::Explain(ExplainId(2), question(23)));
    assert!(matches!(world.explanations[..], [
        (ExplainId(1), Explanation::Permitted(window)),
        (ExplainId(2), Explanation::NoGrant),
    ] if window.grant == Id::from_i64(GRANT)));
}

#[test]
fn a_removed_device_or_laptop_is_out_at_once() {
    for gone in [2, 3] {
        let mut world = reaching(2, None);
        connect(&mut world, v4(3), v4(2), b"hello");
        world.command(Command::Remove(id(gone)));
        world.run(SECOND);
        let ping = echo_request(v4(3), v4(2), 1, 1, &[0; 16]).expect("one family");
        assert_eq!(parse(&ping).map(|packet| packet.protocol), Ok(ICMP));
        let before = world.end(2).device.received;
        world.say(3, &ping);
        world.run(SECOND);
        assert_eq!(world.end(2).device.received, before, "{gone}");
    }
}

#[test]
fn the_mtu_of_a_peer_holds_for_the_next_packet_and_ends_with_the_peer() {
    let mut world = reaching(2, None);
    let passes = |world: &mut Plain, bytes: usize| {
        let before = world.end(2).device.received;
        world.say(3, &echo_request(v4(3), v4(2), 1, 1, &vec![0; bytes - 28]).expect("one family"));
        world.run(Duration::from_millis(100));
        world.end(2).device.received > before
    };
    let set = |world: &mut Plain, n: u8, mtu: u16| {
        let spec = PeerSpec { mtu, ..spec(n) };
        world.command(Command::Upsert(Box::new(spec), PeerSnapshot::default()));
    };
    assert!(passes(&mut world, 1_280) && !passes(&mut world, 1_281));
    assert_eq!(world.dropped(3, DropReason::TooBig), 1);
    // The reply is as large, and goes to the laptop.
    set(&mut world, 2, 1_400);
    let before = world.end(3).device.received;
    assert!(passes(&mut world, 1_400) && !passes(&mut world, 1_401));
    assert_eq!(world.dropped(2, DropReason::TooBig), 1, "the laptop takes less");
    set(&mut world, 3, 1_400);
    assert!(passes(&mut world, 1_400));
    assert!(world.end(3).device.received > before);
    set(&mut world, 2, 1_280);
    assert!(!passes(&mut world, 1_281));
}
