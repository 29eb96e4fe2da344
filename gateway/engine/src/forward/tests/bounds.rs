//! The bounds of flows, answers and their packets.

use std::time::Duration;

use super::packets::*;
use super::world::*;
use crate::forward::Limits;
use crate::forward::headers::{ACK, FIN, SYN};
use crate::messages::{
    DropReason, ExplainRequest, ExplainSource, ExplainTarget, Explanation, FlowEnd, GrantProtocol,
    GrantSource, GrantSpec, GrantTarget, PolicyChange,
};

fn syn(port: u16, to: &str) -> Vec<u8> {
    tcp(OPERATOR[0], to, port, 22, SYN, 999, 0, &[])
}

fn small(flows: usize, per_source: usize, per_device: usize) -> World {
    let mut world = with_limits(Limits { flows, per_source, per_device });
    world.change(PolicyChange::Grant(grant(1, GrantTarget::AllDevices)));
    let source = GrantSource::User(id(102));
    world.change(PolicyChange::Grant(GrantSpec { source, ..grant(2, GrantTarget::AllDevices) }));
    world
}

#[test]
fn half_open_flows_leave_first_and_the_oldest_of_the_peer_before_others() {
    let mut world = small(100, 4, 4);
    world.connect(1, 0, &DEVICE, &DEVICE, 11);
    for port in 2..=5 {
        assert!(world.passes(1, &syn(port, DEVICE[0])));
    }
    let syn_ack = |port| tcp(DEVICE[0], OPERATOR[0], 22, port, SYN | ACK, 4_999, 1_000, &[]);
    assert!(!world.passes(11, &syn_ack(2)), "the oldest left");
    assert!(world.passes(11, &syn_ack(3)));
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 1, 22, ACK, 1_000, 5_000, b"x")), "it runs on");
    let ends: Vec<_> = world.records().iter().map(|record| record.ended).collect();
    assert_eq!(ends, [Some(FlowEnd::Evicted)]);
}

#[test]
fn a_full_table_refuses_new_flows_and_breaks_no_running_one() {
    let mut world = small(100, 3, 3);
    for port in 1..=3 {
        world.connect(port, 0, &DEVICE, &DEVICE, 11);
    }
    assert_eq!(world.send(1, &syn(4, DEVICE[0])), Err(DropReason::FlowTableFull));
    assert_eq!(world.send(1, &syn(4, "10.1.0.12")), Err(DropReason::FlowTableFull), "the source is full");
    let reset = world.answer(1, &syn(4, DEVICE[0])).expect("a reset, so that the client fails at once");
    assert_eq!((reset[9], reset[20 + 13]), (6, 0x14));
    let other = udp(VIEWER[0], DEVICE[0], 1, 53, b"?");
    assert_eq!(world.answer(2, &other).expect("an error")[20..22], [3, 13]);
    assert_eq!(world.send(2, &other), Err(DropReason::FlowTableFull), "the device is full");
    assert!(world.passes(2, &udp(VIEWER[0], "10.1.0.12", 1, 53, b"?")));
    for port in 1..=3 {
        assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], port, 22, ACK, 1_000, 5_000, b"x")));
    }
}

#[test]
fn the_table_is_bounded_in_total() {
    let mut world = small(10, 100, 100);
    for port in 1..=8 {
        world.connect(port, 0, &DEVICE, &DEVICE, 11);
    }
    for port in 1..100 {
        assert!(world.passes(1, &syn(1_000 + port, DEVICE[0])));
        assert!(world.forwarder.totals().flows <= 10);
    }
    assert!(
        world.passes(2, &udp(VIEWER[0], DEVICE[0], 1, 53, b"?")),
        "half-open flows of others leave for it"
    );
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 1, 22, ACK, 1_000, 5_000, b"x")));
    let totals = world.forwarder.totals();
    assert_eq!((totals.flows, totals.half_open), (10, 2));
}

#[test]
fn a_flood_of_half_open_flows_does_not_stop_another_source() {
    let mut world = small(10_000, 1_000, 1_000);
    for port in 1..=5_000 {
        world.passes(1, &syn(port, DEVICE[0]));
    }
    for port in 1..=100 {
        assert!(world.passes(2, &tcp(VIEWER[0], DEVICE[0], port, 22, SYN, 999, 0, &[])));
        assert!(world.passes(11, &tcp(DEVICE[0], VIEWER[0], 22, port, SYN | ACK, 4_999, 1_000, &[])));
        assert!(world.passes(2, &tcp(VIEWER[0], DEVICE[0], port, 22, ACK, 1_000, 5_000, &[])));
    }
}

fn viewer_syn(port: u16) -> Vec<u8> {
    tcp(VIEWER[0], DEVICE[0], port, 22, SYN, 999, 0, &[])
}

fn viewer_syn_ack(port: u16) -> Vec<u8> {
    tcp(DEVICE[0], VIEWER[0], 22, port, SYN | ACK, 4_999, 1_000, &[])
}

#[test]
fn a_flood_neither_fills_a_device_nor_evicts_others() {
    let mut world = small(1_000, 40, 20);
    let flood = |world: &mut World, first: u16| {
        (first..first + 100).for_each(|port| drop(world.send(1, &syn(port, DEVICE[0]))));
    };
    flood(&mut world, 1);
    assert!(world.passes(2, &viewer_syn(1)), "the device has place");
    flood(&mut world, 1_000);
    assert!(world.passes(11, &viewer_syn_ack(1)), "its half-open flow stays");
    assert!(world.passes(2, &tcp(VIEWER[0], DEVICE[0], 1, 22, ACK, 1_000, 5_000, &[])));
    assert_eq!(world.forwarder.totals().flows, 20);
}

#[test]
fn a_source_that_has_half_of_a_device_displaces_nobody() {
    let mut world = small(1_000, 40, 20);
    for port in 1..=10 {
        world.connect(port, 0, &DEVICE, &DEVICE, 11);
        assert!(world.passes(2, &viewer_syn(port)));
    }
    assert_eq!(world.send(1, &syn(11, DEVICE[0])), Err(DropReason::FlowTableFull));
    assert!((1..=10).all(|port| world.passes(11, &viewer_syn_ack(port))));
    assert!(world.passes(1, &syn(11, "10.1.0.12")), "another device has place");
}

#[test]
fn a_source_has_a_quarter_of_a_device_by_default() {
    let limits = Limits::default();
    assert_eq!((limits.per_source, limits.per_device, limits.flows), (4_096, 16_384, 262_144));
}

#[test]
fn a_flow_that_lost_its_grant_leaves_for_that_reason_alone() {
    let mut world = small(100, 2, 100);
    for port in 1..=2 {
        assert!(world.passes(1, &syn(port, DEVICE[0])));
    }
    world.change(PolicyChange::Grant(grant(3, GrantTarget::Host(id(12)))));
    world.withdraw(1);
    assert_eq!(world.send(1, &syn(1, DEVICE[0])), Err(DropReason::NotGranted), "it is cut");
    assert!(world.passes(1, &syn(3, "10.1.0.12")), "the oldest leaves, before its resets");
    let ends: Vec<_> = world.records().iter().map(|record| record.ended).collect();
    assert_eq!(ends, [Some(FlowEnd::NotGranted)]);
}

/// A connection from SYN to the last acknowledgement.
fn short_connection(world: &mut World, port: u16, device: i64) {
    let at = format!("10.1.0.{device}");
    let out = |flags, seq, ack| tcp(OPERATOR[0], &at, port, 22, flags, seq, ack, &[]);
    let back = |flags, seq, ack| tcp(&at, OPERATOR[0], 22, port, flags, seq, ack, &[]);
    for (from, segment) in [
        (1, out(SYN, 999, 0)),
        (device, back(SYN | ACK, 4_999, 1_000)),
        (1, out(FIN | ACK, 1_000, 5_000)),
        (device, back(FIN | ACK, 5_000, 1_001)),
        (1, out(ACK, 1_001, 5_001)),
    ] {
        assert_eq!(world.send(from, &segment).map(drop), Ok(()), "{port} to {device}");
    }
}

#[test]
fn many_short_connections_of_one_source_pass() {
    let mut world = small(262_144, 4_096, 16_384);
    (11..=20).for_each(|n| world.change(PolicyChange::Target(device(n))));
    let mut records = Vec::new();
    for n in 0..20_000u16 {
        short_connection(&mut world, 1_024 + n, 11 + i64::from(n % 10));
        world.advance(Duration::from_millis(3));
        world.work();
        records.extend(world.records());
    }
    assert_eq!(world.forwarder.totals().flows, 4_096);
    assert_eq!(records.len(), 20_000 - 4_096);
    assert!(records.iter().all(|record| record.ended == Some(FlowEnd::Closed)));
}

#[test]
fn closed_flows_leave_before_half_open_ones() {
    let mut world = small(1_000, 40, 4);
    assert!(world.passes(2, &viewer_syn(1)) && world.passes(1, &syn(1, DEVICE[0])));
    short_connection(&mut world, 2, 11);
    world.connect(3, 0, &DEVICE, &DEVICE, 11);
    assert!(world.passes(2, &viewer_syn(2)), "the closed one of another source leaves");
    let ends: Vec<_> = world.records().iter().map(|record| record.ended).collect();
    assert_eq!(ends, [Some(FlowEnd::Closed)]);
    assert!(world.passes(11, &viewer_syn_ack(1)));
}

#[test]
fn answers_to_a_scan_are_limited_per_peer() {
    let mut world = world();
    let answered = (1..=1_000).filter(|port| world.answer(1, &syn(*port, DEVICE[0])).is_some()).count();
    assert_eq!(answered, 40);
    assert!(
        world.answer(2, &udp(VIEWER[0], DEVICE[0], 1, 53, b"?")).is_some(),
        "another peer has its own share"
    );
    world.advance(seconds(1));
    let answered = (1..=1_000).filter(|port| world.answer(1, &syn(*port, DEVICE[0])).is_some()).count();
    assert_eq!(answered, 20);
}

#[test]
fn denied_packets_are_answered_in_their_own_protocol() {
    let mut world = world();
    for family in 0..2 {
        let (src, dst) = (OPERATOR[family], DEVICE[family]);
        let at = [20, 40][family];
        let reset = world.answer(1, &tcp(src, dst, 40_000, 22, SYN, 1, 0, &[])).expect("a reset");
        assert_eq!((reset[[9, 6][family]], reset[at + 13]), (6, 0x14));
        for packet in [udp(src, dst, 1, 53, b"?"), echo(src, dst, true, 1)] {
            let error = world.answer(1, &packet).expect("an error");
            assert_eq!(error[at..at + 2], [[3, 13], [1, 1]][family]);
            assert!(has_right_checksums(&error));
        }
        let about = icmp_error(src, dst, &udp(dst, src, 1, 2, b"x"));
        assert_eq!(world.answer(1, &about), None, "no error about an error");
        assert_eq!(world.answer(11, &udp(dst, src, 1, 53, b"?")), None, "devices get no answers");
    }
    assert_eq!(world.answer(1, &udp(OPERATOR[0], "224.0.0.251", 5_353, 5_353, b"?")), None);
    assert_eq!(world.answer(1, &udp(OPERATOR[1], "ff02::fb", 5_353, 5_353, b"?")), None);
}

#[test]
fn a_thousand_changes_and_ends_leave_nothing_behind() {
    let mut world = world();
    for n in 0..1_000 {
        world.grant_window(1 + n % 7, None, Some(wall(n + 5)));
        world.send(1, &udp(OPERATOR[0], DEVICE[0], n as u16 + 1, 53, b"?")).expect("granted");
        world.advance(seconds(1));
        world.work();
    }
    world.advance(seconds(10));
    world.work();
    for n in 1..=7 {
        world.withdraw(n);
    }
    world.work();
    let totals = world.forwarder.totals();
    assert_eq!((totals.flows, totals.half_open, totals.grants), (0, 0, 0));
}

/// Ends 3,000 grants one after the other; grant `n` ends after `n` seconds.
fn ended_grants(world: &mut World) {
    for n in 1..=3_000 {
        world.grant_window(n, None, Some(wall(n)));
        world.advance(seconds(1));
        world.work();
        assert_eq!(world.forwarder.totals().grants, 0, "{n}");
    }
}

#[test]
fn grants_that_end_by_themselves_do_not_stay() {
    let mut world = world();
    ended_grants(&mut world);
    assert!(world.forwarder.policy.is_empty());
    assert_eq!(world.forwarder.policy.ended.len(), crate::forward::ended::MOST);
    assert!(!world.passes(1, &udp(OPERATOR[0], DEVICE[0], 1, 53, b"?")));
    let question = ExplainRequest {
        from: ExplainSource::User(id(101)),
        to: ExplainTarget::Host(id(11)),
        protocol: GrantProtocol::Udp,
        port: 53,
        at: world.now.wall,
    };
    let answer = world.forwarder.explain(&question, world.now);
    assert!(matches!(answer, Explanation::Over(window) if window.grant == id(3_000)), "{answer:?}");
    world.withdraw(3_000);
    let answer = world.forwarder.explain(&question, world.now);
    assert!(matches!(answer, Explanation::Over(window) if window.grant == id(2_999)), "{answer:?}");
}

#[test]
fn an_ended_grant_that_is_sent_again_stays_ended_unless_its_end_moves() {
    let mut world = world();
    ended_grants(&mut world);
    let packet = udp(OPERATOR[0], DEVICE[0], 1, 53, b"?");
    // One that is remembered and one that is forgotten.
    for n in [3_000, 1] {
        world.grant_window(n, Some(wall(-9)), Some(wall(n)));
        assert!(!world.passes(1, &packet), "{n}");
        world.work();
        assert!(world.forwarder.policy.is_empty());
    }
    world.set_clock(wall(0));
    world.grant_window(3_000, None, Some(wall(3_000)));
    assert!(!world.passes(1, &packet), "the clock was set back");
    world.grant_window(3_000, None, Some(wall(4_000)));
    assert!(world.passes(1, &packet), "it was prolonged");
}
