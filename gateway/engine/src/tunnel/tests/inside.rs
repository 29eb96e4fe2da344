use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::packet::{answer_to_echo, echo_request, parse};

use super::world::*;
use crate::messages::{DropReason, EchoReply, Probe, ProbeReply};
use crate::tunnel::icmp_error::host_unreachable;

const SECOND: Duration = Duration::from_secs(1);

fn ping(source: IpAddr, target: IpAddr) -> Vec<u8> {
    echo_request(source, target, 1, 1, &[0; 16]).expect("one family")
}

fn answer(request: &[u8]) -> Vec<u8> {
    answer_to_echo(&parse(request).expect("a packet")).expect("an answer")
}

fn gateway() -> IpAddr {
    v4(1)
}

#[test]
fn a_packet_with_a_source_address_of_another_peer_is_dropped_and_counted() {
    let mut world = connected(2);
    for source in [v4(3), v4(77), gateway(), [10, 1, 1, 1].into()] {
        world.say(2, &ping(source, gateway()));
    }
    world.say(2, &ping(v6(3), v6(1)));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::SpoofedSource), 5);
    assert_eq!(world.dropped(3, DropReason::SpoofedSource), 0);
}

#[test]
fn device_to_device_is_closed() {
    let mut world = connected(2);
    world.say(2, &ping(v4(2), v4(3)));
    world.say(2, &ping(v6(2), v6(3)));
    world.say(2, &ping(v4(2), [8, 8, 8, 8].into()));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::NoFlow), 3);
    assert_eq!(world.end(3).device.received, 0);
}

#[test]
fn the_gateway_answers_nothing_from_inside() {
    let mut world = connected(1);
    world.sent.clear();
    world.say(2, &ping(v4(2), gateway()));
    world.say(2, &answer(&ping(gateway(), v4(2))));
    world.say(2, &answer(&ping(v6(1), v6(2))));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 3);
    assert_eq!(world.sent, []);
}

#[test]
fn data_that_is_no_ip_packet_is_counted() {
    let mut world = connected(1);
    for packet in [&[0u8; 20][..], b"hello", &[0x45; 40]] {
        world.say(2, packet);
    }
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::BadPacket), 3);
}

#[test]
fn a_packet_from_behind_a_device_passes_only_as_a_reply() {
    let mut world = connected(2);
    world.say(2, &answer(&ping(gateway(), behind())));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 1);
    assert_eq!(
        world.echo(2, behind(), 1),
        ProbeReply::Echo(EchoReply { sent: 1, rtts: vec![RTT], failure: None })
    );
}

#[test]
fn forged_errors_and_replies_of_another_device_change_nothing() {
    let mut world = connected(2);
    world.end(2).device.answers = false;
    let ask = world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 1 }, 5 * SECOND);
    world.say(3, &host_unreachable(v4(3), &ping(gateway(), v4(2))));
    world.say(3, &host_unreachable(v4(2), &ping(gateway(), v4(2))));
    world.run(SECOND);
    assert!(world.answers.is_empty());
    assert_eq!(world.dropped(3, DropReason::Unsolicited), 1);
    assert_eq!(world.dropped(3, DropReason::SpoofedSource), 1);
    world.run(5 * SECOND);
    assert_eq!(world.answers.iter().filter(|(id, ..)| *id == ask).count(), 1);
}

#[test]
fn a_fragment_for_the_gateway_ends_at_its_door() {
    let mut world = connected(1);
    let mut fragment = ping(v4(2), gateway());
    let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut fragment);
    packet.set_more_frags(true);
    packet.fill_checksum();
    world.say(2, &fragment);
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 1);
}

#[test]
fn every_datagram_is_counted_as_the_wire_carries_it() {
    let mut world = connected(1);
    let before = world.tunnel.status(id(2)).expect("a peer").wire[0];
    world.answer(Probe::Echo { peer: id(2), address: v4(2), count: 5 }, 3 * SECOND);
    let after = world.tunnel.status(id(2)).expect("a peer").wire[0];
    let request = 20 + 8 + 16 + 32 + 8 + 20;
    assert_eq!((after.day, after.tx_bytes - before.tx_bytes), (before.day, 5 * request));
    assert!(after.rx_bytes - before.rx_bytes >= 5 * request);
    assert!(before.rx_bytes >= 148 + 28 && before.tx_bytes >= 92 + 28, "the handshake: {before:?}");
}

#[test]
fn counters_add_up() {
    let mut world = connected(1);
    let before = world.tunnel.status(id(2)).expect("a peer");
    world.answer(Probe::Echo { peer: id(2), address: v4(2), count: 5 }, 3 * SECOND);
    let after = world.tunnel.status(id(2)).expect("a peer");
    assert_eq!(after.tx_packets - before.tx_packets, 5);
    assert_eq!(after.rx_packets - before.rx_packets, 5);
    let request = 20 + 8 + 16 + 32;
    assert_eq!(after.tx_bytes - before.tx_bytes, 5 * request);
}
