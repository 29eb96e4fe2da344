//! Tests of how a flow opens, passes packets and ends.

use super::packets::*;
use super::world::*;
use crate::forward::Limits;
use crate::forward::headers::{ACK, FIN, Ip, RST, SYN, bits};
use crate::forward::tcp_state::{CLOSING, ESTABLISHED, HALF_OPEN};
use crate::messages::{
    DropReason, FlowEnd, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PolicyChange,
    TargetId,
};

#[test]
fn nothing_passes_without_a_grant() {
    let mut world = world();
    for family in 0..2 {
        let syn = tcp(OPERATOR[family], DEVICE[family], 40_000, 22, SYN, 1, 0, &[]);
        assert_eq!(world.send(1, &syn), Err(DropReason::NotGranted));
        let unknown = ["10.1.0.99", "fd00:1::99"][family];
        assert_eq!(world.send(1, &udp(OPERATOR[family], unknown, 1, 2, b"")), Err(DropReason::NoRoute));
        let other = udp(OPERATOR[family], VIEWER[family], 1, 2, b"");
        assert_eq!(world.send(1, &other), Err(DropReason::NoRoute), "no source reaches another");
    }
}

#[test]
fn a_grant_opens_exactly_its_target_protocol_and_ports() {
    let mut world = world();
    let access = vec![access(GrantProtocol::Tcp, 22..=23)];
    world.change(PolicyChange::Grant(GrantSpec { access, ..grant(1, GrantTarget::Host(id(11))) }));
    for port in 0..100 {
        let syn = tcp(OPERATOR[0], DEVICE[0], 40_000, port, SYN, 1, 0, &[]);
        assert_eq!(world.passes(1, &syn), port == 22 || port == 23, "{port}");
    }
    assert!(!world.passes(1, &udp(OPERATOR[0], DEVICE[0], 40_000, 22, b"")));
    assert!(!world.passes(1, &echo(OPERATOR[0], DEVICE[0], true, 22)));
    assert!(!world.passes(1, &tcp(OPERATOR[0], "10.1.0.12", 40_000, 22, SYN, 1, 0, &[])));
    assert!(!world.passes(1, &tcp(OPERATOR[0], ALIAS[0], 40_000, 22, SYN, 1, 0, &[])));
    assert!(!world.passes(2, &tcp(VIEWER[0], DEVICE[0], 40_000, 22, SYN, 1, 0, &[])));
}

#[test]
fn sources_are_peers_users_and_exact_roles() {
    for (source, operator, viewer) in [
        (GrantSource::Peer(id(1)), true, false),
        (GrantSource::User(id(102)), false, true),
        (GrantSource::Role(GrantRole::Operator), true, false),
        (GrantSource::Role(GrantRole::Admin), false, false),
    ] {
        let mut world = world();
        world.change(PolicyChange::Grant(GrantSpec { source, ..grant(1, GrantTarget::AllDevices) }));
        assert_eq!(world.passes(1, &echo(OPERATOR[0], DEVICE[0], true, 1)), operator, "{source:?}");
        assert_eq!(world.passes(2, &echo(VIEWER[0], DEVICE[0], true, 1)), viewer, "{source:?}");
    }
}

#[test]
fn a_selection_needs_all_labels_and_an_empty_one_selects_nothing() {
    let mut world = world();
    let labels = |pairs: &[(&str, &str)]| {
        GrantTarget::Labels(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    };
    world.change(PolicyChange::Grant(grant(1, labels(&[]))));
    world.change(PolicyChange::Grant(grant(2, labels(&[("site", "s11"), ("rack", "1")]))));
    assert!(!world.passes(1, &echo(OPERATOR[0], DEVICE[0], true, 1)));
    world.change(PolicyChange::Grant(grant(3, labels(&[("site", "s11")]))));
    assert!(world.passes(1, &echo(OPERATOR[0], DEVICE[0], true, 1)));
    assert!(world.passes(1, &echo(OPERATOR[0], ALIAS[0], true, 1)), "hosts behind have labels too");
    assert!(!world.passes(1, &echo(OPERATOR[0], "10.1.0.12", true, 1)));
}

#[test]
fn a_device_opens_nothing() {
    let mut world = open_world();
    for family in 0..2 {
        for from in [DEVICE[family], REAL[family]] {
            for to in [OPERATOR[family], ["10.1.0.12", "fd00:1::12"][family], ALIAS[family]] {
                for packet in [
                    tcp(from, to, 22, 40_000, SYN, 1, 0, &[]),
                    udp(from, to, 1, 2, b""),
                    echo(from, to, true, 1),
                ] {
                    assert_eq!(world.send(11, &packet), Err(DropReason::NoFlow));
                }
            }
        }
    }
}

#[test]
fn replies_come_back_to_the_source_only_in_the_flow_it_opened() {
    let mut world = open_world();
    world.send(1, &udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?")).expect("granted");
    let reply = udp(DEVICE[0], OPERATOR[0], 53, 5_000, b"!");
    assert_eq!(world.send(12, &reply), Err(DropReason::NoFlow), "another device");
    assert_eq!(world.send(11, &udp(DEVICE[0], OPERATOR[0], 54, 5_000, b"!")), Err(DropReason::NoFlow));
    assert_eq!(world.send(11, &udp(DEVICE[0], VIEWER[0], 53, 5_000, b"!")), Err(DropReason::NoFlow));
    assert_eq!(world.send(11, &reply).expect("a reply").0, id(1));
}

#[test]
fn hosts_with_one_address_behind_two_devices_are_told_apart() {
    let mut world = open_world();
    for family in 0..2 {
        let aliases = [ALIAS[family], ["10.2.0.22", "fd00:2::22"][family]];
        for (alias, device) in aliases.into_iter().zip([11, 12]) {
            let (to, packet) =
                world.send(1, &udp(OPERATOR[family], alias, 5_000, 53, b"?")).expect("granted");
            assert_eq!((to, Ip::parse(&packet).expect("whole").dst), (id(device), bits(ip_of(REAL[family]))));
        }
        for (alias, device) in aliases.into_iter().zip([11, 12]) {
            let reply = udp(REAL[family], OPERATOR[family], 53, 5_000, b"!");
            let (to, packet) = world.send(device, &reply).expect("a reply");
            assert_eq!((to, Ip::parse(&packet).expect("whole").src), (id(1), bits(ip_of(alias))));
        }
    }
}

#[test]
fn two_targets_with_one_real_address_do_not_share_a_flow() {
    let mut world = open_world();
    let mut twin = behind(21);
    (twin.id, twin.host) = (TargetId::Host(id(31)), id(31));
    twin.addresses[0].reached_at = ip_of("10.2.0.31");
    world.change(PolicyChange::Target(twin));
    world.change(PolicyChange::Grant(grant(31, GrantTarget::Host(id(31)))));
    assert!(world.passes(1, &udp(OPERATOR[0], ALIAS[0], 5_000, 53, b"?")));
    let conflict = world.send(1, &udp(OPERATOR[0], "10.2.0.31", 5_000, 53, b"?"));
    assert_eq!(conflict, Err(DropReason::FlowConflict));
    assert!(world.passes(1, &udp(OPERATOR[0], "10.2.0.31", 5_001, 53, b"?")));
}

#[test]
fn only_a_pure_syn_opens_a_connection() {
    let mut world = open_world();
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        let segment = tcp(OPERATOR[0], DEVICE[0], 40_000, 22, flags, 7, 9, &[]);
        assert_eq!(world.send(1, &segment), Err(DropReason::NoFlow), "{flags}");
        let answered = world.answer(1, &segment).is_some();
        assert_eq!(answered, flags & RST == 0, "{flags}");
        assert_eq!(world.answer(11, &tcp(DEVICE[0], OPERATOR[0], 22, 40_000, flags, 7, 9, &[])), None);
    }
}

#[test]
fn a_reset_closes_a_connection_only_within_the_window() {
    for family in 0..2 {
        let mut world = open_world();
        world.connect(40_000, family, &ALIAS, &REAL, 11);
        let forged = tcp(REAL[family], OPERATOR[family], 22, 40_000, RST, 900_000, 0, &[]);
        assert_eq!(world.send(11, &forged), Err(DropReason::BadReset));
        let data = tcp(OPERATOR[family], ALIAS[family], 40_000, 22, ACK, 1_000, 5_000, b"data");
        assert!(world.passes(1, &data));
        let reset = tcp(REAL[family], OPERATOR[family], 22, 40_000, RST, 5_000, 0, &[]);
        assert!(world.passes(11, &reset));
        assert_eq!(world.send(1, &data), Err(DropReason::NoFlow));
        let ends: Vec<_> = world.records().iter().map(|record| record.ended).collect();
        assert_eq!(ends, [Some(FlowEnd::Reset)]);
    }
}

#[test]
fn closed_ports_can_be_used_again_by_a_new_syn() {
    let mut world = open_world();
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, FIN | ACK, 1_000, 5_000, &[])));
    assert!(world.passes(11, &tcp(DEVICE[0], OPERATOR[0], 22, 40_000, FIN | ACK, 5_000, 1_001, &[])));
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, ACK, 1_001, 5_001, &[])));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    assert_eq!(world.forwarder.totals().flows, 1);
    let records = world.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].ended, records[0].sent.packets, records[0].received.packets),
        (Some(FlowEnd::Closed), 4, 2)
    );
}

#[test]
fn flows_end_after_the_silence_that_their_state_allows() {
    let mut world = open_world();
    let udp_out = udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?");
    let udp_back = udp(DEVICE[0], OPERATOR[0], 53, 5_000, b"!");
    world.send(1, &udp_out).expect("granted");
    world.advance(seconds(30));
    assert!(!world.passes(11, &udp_back), "30 s without a reply");
    world.send(1, &udp_out).expect("granted");
    world.advance(seconds(29));
    assert!(world.passes(11, &udp_back));
    world.send(1, &udp_out).expect("granted");
    world.advance(seconds(179));
    assert!(world.passes(11, &udp_back));
    world.advance(seconds(1));
    assert!(!world.passes(11, &udp_back));

    let syn_ack = tcp(DEVICE[0], OPERATOR[0], 22, 40_000, SYN | ACK, 4_999, 1_000, &[]);
    world.send(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, SYN, 999, 0, &[])).expect("a SYN");
    world.advance(HALF_OPEN);
    assert!(!world.passes(11, &syn_ack));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    let data = tcp(DEVICE[0], OPERATOR[0], 22, 40_000, ACK, 5_000, 1_000, b"x");
    world.advance(ESTABLISHED - seconds(1));
    assert!(world.passes(11, &data));
    world.work();
    world.advance(ESTABLISHED);
    assert!(!world.passes(11, &data));
}

#[test]
fn a_device_that_streams_to_nobody_does_not_prolong_its_flow() {
    let mut world = open_world();
    let request = echo(OPERATOR[0], DEVICE[0], true, 7);
    for (out, back, lives) in [
        (udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?"), udp(DEVICE[0], OPERATOR[0], 53, 5_000, b"!"), 180),
        (request, echo(DEVICE[0], OPERATOR[0], false, 7), 30),
    ] {
        world.send(1, &out).expect("granted");
        world.advance(seconds(10));
        assert!(world.passes(11, &back), "the first reply");
        world.send(1, &out).expect("granted");
        for _ in 0..lives {
            assert!(world.passes(11, &back));
            world.advance(seconds(1));
            world.work();
        }
        assert_eq!(world.send(11, &back), Err(DropReason::NoFlow), "the source is gone");
    }
}

#[test]
fn the_timer_removes_idle_flows_and_records_them() {
    let mut world = open_world();
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    world.send(1, &echo(OPERATOR[0], DEVICE[0], true, 7)).expect("granted");
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, FIN | ACK, 1_000, 5_000, &[])));
    assert!(world.passes(11, &tcp(DEVICE[0], OPERATOR[0], 22, 40_000, FIN | ACK, 5_000, 1_001, &[])));
    for _ in 0..CLOSING.as_secs() + 2 {
        world.advance(seconds(1));
        assert_eq!(world.work(), [], "nothing is sent about them");
    }
    assert_eq!(world.forwarder.totals().flows, 0);
    let ends: Vec<_> = world.records().iter().map(|record| (record.protocol, record.ended)).collect();
    let expected =
        [(GrantProtocol::Icmp, Some(FlowEnd::TimedOut)), (GrantProtocol::Tcp, Some(FlowEnd::Closed))];
    assert_eq!(ends, expected);
    world.advance(seconds(130));
    world.work();
    assert_eq!(world.forwarder.next_due(), None, "a gateway without flows sleeps");
}

#[test]
fn a_long_flow_is_recorded_each_hour() {
    let mut world = open_world();
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    for _ in 0..3 * 60 + 5 {
        world.advance(seconds(60));
        assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, ACK, 1_000, 5_000, &[])));
        world.work();
    }
    let records = world.records();
    assert_eq!(records.len(), 3);
    assert!(
        records
            .iter()
            .all(|record| record.ended.is_none() && record.port == 22 && record.owner.id() == id(101))
    );
    let packets: u64 = records.iter().map(|record| record.sent.packets).sum();
    assert!((180..=187).contains(&packets), "{packets}");
    assert_eq!(records[0].until, records[1].from);
    assert_eq!(world.forwarder.forwarded(id(1)).received.packets, 187);
    assert_eq!(world.forwarder.forwarded(id(11)).sent.bytes, 187 * 40);
}

#[test]
fn an_echo_reply_passes_only_as_a_reply() {
    for family in 0..2 {
        let mut world = open_world();
        let (src, dst) = (OPERATOR[family], DEVICE[family]);
        assert!(!world.passes(1, &echo(src, dst, false, 7)));
        assert!(world.passes(1, &echo(src, dst, true, 7)));
        assert!(!world.passes(11, &echo(dst, src, true, 7)), "a request of the device");
        assert!(!world.passes(1, &echo(src, dst, false, 7)));
        assert!(world.passes(11, &echo(dst, src, false, 7)));
        assert!(!world.passes(11, &echo(dst, src, false, 8)));
    }
}

#[test]
fn a_stop_records_every_flow_and_sends_nothing() {
    let mut world = with_limits(Limits { flows: 20_000, per_source: 20_000, per_device: 20_000 });
    world.change(PolicyChange::Grant(grant(1, GrantTarget::AllDevices)));
    for port in 1..=17_000 {
        assert!(world.passes(1, &udp(OPERATOR[0], DEVICE[0], port, 53, b"?")));
    }
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    world.forwarder.end_all(world.now);
    assert_eq!(world.work(), []);
    let totals = world.forwarder.totals();
    assert_eq!((totals.flows, totals.lost_records), (0, 0));
    let records = world.records();
    assert_eq!(records.len(), 17_001);
    assert!(records.iter().all(|record| record.ended == Some(FlowEnd::Stopped)));
}

#[test]
fn what_was_over_before_a_stop_keeps_its_reason() {
    let mut world = open_world();
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    assert!(world.passes(1, &tcp(OPERATOR[0], DEVICE[0], 40_000, 22, FIN | ACK, 1_000, 5_000, &[])));
    assert!(world.passes(11, &tcp(DEVICE[0], OPERATOR[0], 22, 40_000, FIN | ACK, 5_000, 1_001, &[])));
    world.send(1, &udp(OPERATOR[0], ALIAS[0], 5_000, 53, b"?")).expect("granted");
    world.withdraw(21);
    assert!(!world.passes(1, &udp(OPERATOR[0], ALIAS[0], 5_000, 53, b"?")), "it is cut");
    world.forwarder.end_all(world.now);
    let ends: Vec<_> = world.records().iter().map(|record| record.ended).collect();
    assert_eq!(ends, [Some(FlowEnd::Closed), Some(FlowEnd::NotGranted)]);
}
