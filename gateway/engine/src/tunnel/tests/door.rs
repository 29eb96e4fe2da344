//! The published port: which devices may connect, and which of them a flood affects.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::world::*;
use crate::id::Id;
use crate::messages::{
    Command, ConnectFailure, DropReason, PeerKind, PeerSnapshot, PeerSpec, PolicyChange, ProbeReply,
    Published, SourceOwner, SourceSpec, StreamId, StreamInput, StreamOutput,
};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 80;

fn door(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}

/// Makes a packet that would open a connection from this address to the gateway.
fn syn(from: SocketAddr, to_port: u16) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (from.ip(), v4(1)) else { panic!("v4 is expected") };
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to_port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(7),
        ack_number: None,
        window_len: 1_024,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 20 + tcp.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let ends = (IpAddress::from(src), IpAddress::from(dst));
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    tcp.emit(&mut segment, &ends.0, &ends.1, &ChecksumCapabilities::default());
    bytes
}

/// Returns the streams that devices opened, with peer and source address.
fn arrivals(world: &Plain) -> Vec<(StreamId, i64, SocketAddr)> {
    let accepted = world.streams.iter().filter_map(|(id, output)| match output {
        StreamOutput::Accepted { peer, from, service: Published::Results } => {
            Some((*id, peer.as_i64(), *from))
        }
        _ => None,
    });
    accepted.collect()
}

fn said(world: &Plain, stream: StreamId) -> Vec<u8> {
    let data = world.streams.iter().filter_map(|(id, output)| match output {
        StreamOutput::Data(data) if *id == stream => Some(data.clone()),
        _ => None,
    });
    data.flatten().collect()
}

fn ended(world: &Plain, stream: StreamId) -> Option<Option<ConnectFailure>> {
    world.streams.iter().find_map(|(id, output)| match output {
        StreamOutput::Closed(reason) if *id == stream => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn a_device_is_let_in_by_its_tunnel_in_both_families_and_answered() {
    for (own, gateway) in [(v4(2), v4(1)), (v6(2), v6(1))] {
        let mut world = connected(2);
        let from = SocketAddr::new(own, 40_000);
        world.call(2, from, door(gateway), b"the disk is fine");
        world.run(SECOND);
        let [(stream, 2, at)] = arrivals(&world)[..] else { panic!("one: {:?}", world.streams) };
        assert_eq!((at, said(&world, stream)), (from, b"the disk is fine".to_vec()));
        world.command(Command::Stream(stream, StreamInput::Send(b"noted".to_vec())));
        world.command(Command::Stream(stream, StreamInput::Finish));
        world.run(SECOND);
        assert_eq!(world.end(2).device.heard(), [b"noted"]);
        assert_eq!(ended(&world, stream), Some(None));
        world.run(5 * SECOND);
        assert_eq!(world.tunnel.totals().connections, 0);
    }
}

#[test]
fn data_sent_just_before_an_abort_arrives() {
    let mut world = connected(1);
    world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"and?");
    world.run(SECOND);
    let [(stream, ..)] = arrivals(&world)[..] else { panic!("one: {:?}", world.streams) };
    for word in [StreamInput::Send(b"noted".to_vec()), StreamInput::Finish, StreamInput::Abort] {
        world.command(Command::Stream(stream, word));
    }
    world.run(SECOND);
    assert_eq!(world.end(2).device.heard(), [b"noted"]);
    world.run(10 * SECOND);
    assert_eq!(world.tunnel.totals().connections, 0);
}

#[test]
fn other_ports_and_other_sources_stay_closed() {
    let mut world = connected(1);
    world.say(2, &syn(SocketAddr::new(v4(2), 1), 81));
    world.say(2, &syn(SocketAddr::new(behind(), 1), PORT));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 2);
    world.say(2, &syn(SocketAddr::new(v4(9), 1), PORT));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::SpoofedSource), 1);
    assert_eq!((arrivals(&world).len(), world.tunnel.totals().connections), (0, 0));
}

#[test]
fn only_devices_are_let_in() {
    for kind in [PeerKind::Operator, PeerKind::Renter] {
        let mut world = connected(1);
        let person = PeerSpec { kind, ..spec(2) };
        world.command(Command::Upsert(Box::new(person), PeerSnapshot::default()));
        world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"hello");
        world.run(SECOND);
        let seen = (arrivals(&world).len(), world.dropped(2, DropReason::Unsolicited));
        assert_eq!(seen, (0, 1), "{kind:?}");
    }
}

/// Makes peer `n` a person with an inner address, whom the policy has as a source if there is a customer.
fn person(world: &mut Plain, n: u8, kind: PeerKind, customer: Option<i64>) {
    world.command(Command::Upsert(Box::new(PeerSpec { kind, ..spec(n) }), PeerSnapshot::default()));
    if let Some(customer) = customer {
        let owner = SourceOwner::Person { person: Id::from_i64(80), customer: Id::from_i64(customer) };
        let source = SourceSpec { peer: id(n), owner, addresses: [v4(n), v6(n)].into() };
        world.command(Command::Policy(vec![PolicyChange::Source(source)]));
    }
}

#[test]
fn the_page_is_for_renters_that_the_policy_knows_and_for_nobody_else() {
    for (kind, known, accepted) in [
        (PeerKind::Renter, true, Some(Published::Page)),
        (PeerKind::Renter, false, None),
        (PeerKind::Operator, true, None),
        (PeerKind::Device, false, Some(Published::Results)),
    ] {
        let mut world = connected(1);
        person(&mut world, 2, kind, known.then_some(90));
        for (own, gateway) in [(v4(2), v4(1)), (v6(2), v6(1))] {
            world.call(2, SocketAddr::new(own, 40_000), door(gateway), b"GET /");
        }
        world.run(SECOND);
        let services = world.streams.iter().filter_map(|(_, output)| match output {
            StreamOutput::Accepted { service, .. } => Some(*service),
            _ => None,
        });
        let expected = accepted.map_or_else(Vec::new, |service| vec![service; 2]);
        assert_eq!(services.collect::<Vec<_>>(), expected, "{kind:?} {known}");
    }
}

#[test]
fn many_connections_of_renters_leave_those_of_devices_their_room() {
    const RENTERS: u8 = 20;
    let mut world = connected(RENTERS + 1);
    for n in 3..3 + RENTERS {
        person(&mut world, n, PeerKind::Renter, Some(90));
        read_page(&mut world, n, 1..=4);
    }
    assert_eq!((readers(&world).len(), world.tunnel.totals().connections), (80, 64));
    world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"hello");
    world.run(SECOND);
    assert!(matches!(arrivals(&world)[..], [(_, 2, _)]));
    world.run(60 * SECOND);
    assert_eq!(world.tunnel.totals().connections, 0);
}

/// Opens connections to the page from these ports, and waits until they stand.
fn read_page(world: &mut Plain, n: u8, ports: std::ops::RangeInclusive<u16>) {
    for port in ports {
        world.call(n, SocketAddr::new(v4(n), port), door(v4(1)), b"wait");
    }
    world.run(Duration::from_millis(100));
}

/// Returns the connections to the page that stood, with their peers, and whether each is still open.
fn readers(world: &Plain) -> Vec<(i64, bool)> {
    let accepted = world.streams.iter().filter_map(|(id, output)| match output {
        StreamOutput::Accepted { peer, service: Published::Page, .. } => {
            Some((peer.as_i64(), ended(world, *id).is_none()))
        }
        _ => None,
    });
    accepted.collect()
}

#[test]
fn a_customer_with_all_connections_to_the_page_loses_the_oldest_to_another_one() {
    let mut world = connected(18);
    for n in 3..=18 {
        person(&mut world, n, PeerKind::Renter, Some(90));
        read_page(&mut world, n, 1..=4);
    }
    person(&mut world, 19, PeerKind::Renter, Some(91));
    read_page(&mut world, 19, 1..=1);
    let all = readers(&world);
    assert_eq!((all[0], all.last()), ((3, false), Some(&(19, true))), "{all:?}");
    assert_eq!(all.iter().filter(|(_, is_open)| *is_open).count(), 64);
    // The first customer has the most, and pays for its own.
    read_page(&mut world, 3, 9..=9);
    let all = readers(&world);
    let open = all.iter().filter(|(_, is_open)| *is_open).count();
    assert_eq!(
        (all[1], all[64], all.last(), open),
        ((3, false), (19, true), Some(&(3, true)), 64),
        "{all:?}"
    );
    assert_eq!(world.tunnel.totals().connections, 64);
}

#[test]
fn a_renter_has_four_connections_to_the_page_and_its_further_ones_displace_no_other() {
    let mut world = connected(18);
    for n in 3..=18 {
        person(&mut world, n, PeerKind::Renter, Some(i64::from(n)));
        read_page(&mut world, n, 1..=4);
    }
    for port in 100..200 {
        world.say(3, &syn(SocketAddr::new(v4(3), port), PORT));
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.dropped(3, DropReason::Budget), 100);
    let all = readers(&world);
    assert!(all.len() == 64 && all.iter().all(|(_, is_open)| *is_open), "{all:?}");
}

#[test]
fn a_flood_of_syns_uses_up_only_the_share_of_its_sender() {
    let mut world = connected(2);
    for port in 1..=1_000 {
        world.say(2, &syn(SocketAddr::new(v4(2), port), PORT));
    }
    world.call(3, SocketAddr::new(v4(3), 40_000), door(v4(1)), b"hello");
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Budget), 996);
    assert!(matches!(arrivals(&world)[..], [(_, 3, _)]));
    assert!(world.tunnel.totals().connections <= 5);
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(answer) if answer.rtts.len() == 1));
    world.run(20 * SECOND);
    assert_eq!(world.tunnel.totals().connections, 0, "what never stood is forgotten");
}

#[test]
fn a_damaged_syn_does_not_block_later_ones() {
    let mut world = connected(1);
    let mut broken = syn(SocketAddr::new(v4(2), 1), PORT);
    broken[30] ^= 1;
    world.say(2, &broken);
    world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"hello");
    world.run(15 * SECOND);
    assert!(arrivals(&world).len() <= 1);
    world.call(2, SocketAddr::new(v4(2), 40_001), door(v4(1)), b"hello");
    world.run(SECOND);
    assert!(arrivals(&world).iter().any(|(_, _, from)| from.port() == 40_001));
}

#[test]
fn a_connection_without_a_reply_is_closed_after_half_a_minute() {
    let mut world = connected(1);
    world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"wait");
    world.run(29 * SECOND);
    let [(stream, ..)] = arrivals(&world)[..] else { panic!("one: {:?}", world.streams) };
    assert_eq!(ended(&world, stream), None);
    world.run(2 * SECOND);
    assert_eq!(ended(&world, stream), Some(Some(ConnectFailure::Timeout)));
    assert_eq!(world.tunnel.totals().connections, 0);
}

#[test]
fn all_devices_together_leave_room_for_the_gateway_s_own_questions() {
    const DEVICES: u8 = 66;
    let mut world = connected(DEVICES);
    for n in 2..2 + DEVICES {
        for port in 1..=4 {
            world.call(n, SocketAddr::new(v4(n), port), door(v4(1)), b"wait");
        }
        world.run(Duration::from_millis(100));
        for port in 5..=9 {
            world.call(n, SocketAddr::new(v4(n), port), door(v4(1)), b"wait");
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(arrivals(&world).len(), 512);
    assert!(matches!(world.connect(2, v4(2), 22), ProbeReply::Connect(Ok(_))));
}

#[test]
fn the_end_of_a_peer_ends_what_it_opened() {
    let mut world = connected(1);
    world.call(2, SocketAddr::new(v4(2), 40_000), door(v4(1)), b"wait");
    world.run(SECOND);
    let [(stream, ..)] = arrivals(&world)[..] else { panic!("one: {:?}", world.streams) };
    world.command(Command::Remove(id(2)));
    assert_eq!(ended(&world, stream), Some(Some(ConnectFailure::NoTunnel)));
    assert_eq!(world.tunnel.totals().connections, 0);
}
