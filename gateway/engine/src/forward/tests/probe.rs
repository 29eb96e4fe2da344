//! Probes of the gateway's own: nothing of their flows reaches the source, and nothing is recorded as
//! its traffic.

use super::packets::*;
use super::world::*;
use crate::forward::headers::{ACK, Ip, RST, SYN, Transport};
use crate::forward::{Answer, FlowId, Outcome, syn};
use crate::messages::{DropReason, FlowTraffic};

/// Opens a probe of a connection to host 21 in the name of operator 1.
fn opened(world: &mut World, family: usize) -> FlowId {
    let (src, dst) = (ip_of(OPERATOR[family]), ip_of(ALIAS[family]));
    let mut packet = syn((src, 9_000), (dst, 22), 700);
    let (to, flow) = world.forwarder.open_probe(id(1), &mut packet, world.now).expect("it is granted");
    assert_eq!(to, id(11));
    let ip = Ip::parse(&packet).expect("a packet");
    assert!(has_right_checksums(&packet) && ip.dst == crate::forward::headers::bits(ip_of(REAL[family])));
    flow
}

fn from_target(world: &mut World, mut packet: Vec<u8>) -> (Outcome, Vec<u8>) {
    let outcome = world.forwarder.packet(id(11), &mut packet, world.now);
    (outcome, packet)
}

#[test]
fn every_packet_of_its_flow_is_diverted_as_the_source_would_have_got_it() {
    for family in 0..2 {
        let mut world = open_world();
        let flow = opened(&mut world, family);
        let (real, src) = (REAL[family], OPERATOR[family]);
        let (outcome, packet) =
            from_target(&mut world, tcp(real, src, 22, 9_000, SYN | ACK, 4_000, 701, &[]));
        assert_eq!(outcome, Outcome::Diverted(flow));
        assert!(has_right_checksums(&packet));
        assert_eq!(Answer::read(&packet), Some(Answer::Accepted { acknowledged: 701 }));
        let (outcome, packet) =
            from_target(&mut world, tcp(real, src, 22, 9_000, ACK, 4_001, 701, b"SSH-2.0"));
        assert_eq!((outcome, Answer::read(&packet)), (Outcome::Diverted(flow), None));
        let code = if family == 1 { (1, 4) } else { (3, 3) };
        let quoted = tcp(src, real, 9_000, 22, SYN, 700, 0, &[]);
        let error = icmp_message(ip_of(real), ip_of(src), code, &quoted);
        let (outcome, packet) = from_target(&mut world, error);
        assert_eq!((outcome, Answer::read(&packet)), (Outcome::Diverted(flow), Some(Answer::Icmp)));
        let (outcome, packet) = from_target(&mut world, tcp(real, src, 22, 9_000, RST, 4_008, 0, &[]));
        assert_eq!(outcome, Outcome::Diverted(flow));
        assert!(matches!(Answer::read(&packet), Some(Answer::Refused { .. })));
        assert_eq!(world.forwarder.totals().flows, 0, "the reset ends it");
        assert!(world.records().is_empty());
        assert_eq!(world.forwarder.forwarded(id(1)).sent, FlowTraffic::default());
    }
}

#[test]
fn its_end_resets_the_target_alone() {
    let mut world = open_world();
    let flow = opened(&mut world, 0);
    let (to, reset) = world.forwarder.close_probe(flow, Some(701)).expect("a reset");
    let ip = Ip::parse(reset).expect("a packet");
    let Ok(Transport::Tcp(segment)) = Transport::parse(&ip, reset) else { panic!("a segment") };
    assert!(to == id(11) && has_right_checksums(reset) && segment.has(RST));
    assert_eq!((segment.seq, segment.src_port, segment.dst_port), (701, 9_000, 22));
    assert_eq!(world.forwarder.close_probe(flow, Some(701)), None, "it is gone");
    let late = tcp(REAL[0], OPERATOR[0], 22, 9_000, SYN | ACK, 4_000, 701, &[]);
    assert_eq!(from_target(&mut world, late).0, Outcome::Dropped(DropReason::NoFlow));
}

#[test]
fn a_withdrawn_grant_ends_it_without_a_word_to_the_source() {
    let mut world = open_world();
    let flow = opened(&mut world, 0);
    world.withdraw(21);
    assert_eq!(world.forwarder.repeat_probe(flow, world.now), Err(DropReason::NotGranted));
    let sent: Vec<_> = world.work().into_iter().map(|(to, _)| to).collect();
    assert!(sent.iter().all(|to| *to == id(11)), "{sent:?}");
    assert_eq!(world.forwarder.repeat_probe(flow, world.now), Err(DropReason::NoFlow));
    assert!(world.records().is_empty());
}

#[test]
fn it_never_joins_a_connection_of_the_source_itself() {
    let mut world = open_world();
    world.connect(9_000, 0, &ALIAS, &REAL, 11);
    let mut packet = syn((ip_of(OPERATOR[0]), 9_000), (ip_of(ALIAS[0]), 22), 700);
    let refused = world.forwarder.open_probe(id(1), &mut packet, world.now);
    assert_eq!(refused.err(), Some(DropReason::FlowConflict));
    let answer = tcp(REAL[0], OPERATOR[0], 22, 9_000, ACK, 5_000, 1_000, b"x");
    assert!(world.passes(11, &answer), "the connection goes on");
}

#[test]
fn a_probe_that_waits_at_the_stop_of_the_gateway_is_no_record() {
    let mut world = open_world();
    opened(&mut world, 0);
    world.forwarder.end_all(world.now);
    assert!(world.records().is_empty());
    assert_eq!(world.forwarder.totals().flows, 0);
}
