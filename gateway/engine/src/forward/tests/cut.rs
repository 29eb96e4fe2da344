//! Changes of the policy cut the flows that are no longer permitted, and only these.

use std::collections::BTreeMap;

use super::packets::*;
use super::world::*;
use crate::forward::headers::{ACK, Ip, RST, SYN, Segment, Transport, address};
use crate::id::PeerId;
use crate::messages::{
    DropReason, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PolicyChange, TargetId,
};

fn segment(packet: &[u8]) -> (String, String, Segment) {
    let ip = Ip::parse(packet).expect("a packet");
    let Ok(Transport::Tcp(segment)) = Transport::parse(&ip, packet) else { panic!("a segment") };
    (address(ip.v6, ip.src).to_string(), address(ip.v6, ip.dst).to_string(), segment)
}

#[test]
fn resets_hit_the_expected_bytes_of_both_ends() {
    for family in 0..2 {
        let mut world = open_world();
        world.connect(40_000, family, &ALIAS, &REAL, 11);
        let data = tcp(OPERATOR[family], ALIAS[family], 40_000, 22, ACK, 1_000, 5_000, &[7; 100]);
        assert!(world.passes(1, &data));
        world.withdraw(21);
        assert_eq!(world.send(1, &data), Err(DropReason::NotGranted), "not one packet more");
        let sent = world.work();
        assert!(sent.iter().all(|(_, packet)| has_right_checksums(packet)));
        let to_source: Vec<_> = sent.iter().filter(|(to, _)| *to == id(1)).map(|(_, p)| segment(p)).collect();
        let to_device: Vec<_> =
            sent.iter().filter(|(to, _)| *to == id(11)).map(|(_, p)| segment(p)).collect();
        assert_eq!(to_source.len(), 1);
        let (src, dst, reset) = &to_source[0];
        assert_eq!((&src[..], &dst[..]), (ALIAS[family], OPERATOR[family]));
        assert_eq!((reset.src_port, reset.dst_port, reset.seq, reset.ack), (22, 40_000, 5_000, 1_100));
        assert!(reset.has(RST));
        // The target has acknowledged nothing of the data: it expects 1,000 or 1,100.
        let numbers: Vec<u32> = to_device.iter().map(|(_, _, reset)| reset.seq).collect();
        assert_eq!(numbers, [1_100, 1_000]);
        assert_eq!((&to_device[0].0[..], &to_device[0].1[..]), (OPERATOR[family], REAL[family]));
        assert_eq!(world.forwarder.totals().flows, 0);
    }
}

/// The flows of the world that a change leaves: to device 11, to the host behind it, to device 12.
fn left_after(change: impl FnOnce(&mut World)) -> Vec<PeerId> {
    let mut world = open_world();
    world.connect(1_000, 0, &DEVICE, &DEVICE, 11);
    world.connect(2_000, 0, &ALIAS, &REAL, 11);
    world.connect(3_000, 0, &["10.1.0.12", ""], &["10.1.0.12", ""], 12);
    change(&mut world);
    let cut: Vec<u16> = world
        .work()
        .iter()
        .map(|(_, packet)| segment(packet).2)
        .map(|s| s.src_port.max(s.dst_port))
        .collect();
    let left = [(1_000, DEVICE[0], 11), (2_000, ALIAS[0], 21), (3_000, "10.1.0.12", 12)].into_iter().filter(
        |(port, to, _)| {
            let passes = world.passes(1, &tcp(OPERATOR[0], to, *port, 22, ACK, 1_000, 5_000, &[]));
            assert_ne!(passes, cut.contains(port), "what no longer passes is reset");
            passes
        },
    );
    left.map(|(_, _, host)| id(host)).collect()
}

#[test]
fn a_change_cuts_exactly_what_it_takes_away() {
    let all = [id(11), id(21), id(12)];
    assert_eq!(left_after(|_| {}), all);
    assert_eq!(left_after(|world| world.withdraw(1)), [id(21)]);
    assert_eq!(left_after(|world| world.withdraw(21)), [id(11), id(12)]);
    assert_eq!(left_after(|world| world.withdraw(99)), all);
    assert_eq!(left_after(|world| world.change(PolicyChange::RemoveSource(id(1)))), []);
    assert_eq!(left_after(|world| world.change(PolicyChange::RemoveSource(id(2)))), all);
    assert_eq!(
        left_after(|world| world.change(PolicyChange::RemoveTarget(TargetId::Host(id(11))))),
        [id(21), id(12)]
    );
    assert_eq!(
        left_after(|world| world.change(PolicyChange::RemoveTarget(TargetId::Host(id(21))))),
        [id(11), id(12)]
    );
    let other_address = source(1, ["10.0.0.77", "fd00::77"], Some(GrantRole::Operator));
    assert_eq!(left_after(|world| world.change(PolicyChange::Source(other_address))), []);
    let mut moved = behind(21);
    moved.peer = id(12);
    assert_eq!(left_after(|world| world.change(PolicyChange::Target(moved))), [id(11), id(12)]);
    let narrowed =
        GrantSpec { access: vec![access(GrantProtocol::Tcp, 23..=99)], ..grant(1, GrantTarget::AllDevices) };
    assert_eq!(left_after(|world| world.change(PolicyChange::Grant(narrowed))), [id(21)]);
    let same = grant(1, GrantTarget::AllDevices);
    assert_eq!(left_after(|world| world.change(PolicyChange::Grant(same))), all);
    let other = left_after(|world| {
        world.change(PolicyChange::Grant(grant(2, GrantTarget::Host(id(11)))));
        world.withdraw(1);
    });
    assert_eq!(other, [id(11), id(21)], "another grant covers it");
}

#[test]
fn a_changed_role_or_label_cuts() {
    let mut world = world();
    let by_role =
        GrantSpec { source: GrantSource::Role(GrantRole::Operator), ..grant(1, GrantTarget::AllDevices) };
    world.change(PolicyChange::Grant(by_role));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    world.change(PolicyChange::Source(source(1, OPERATOR, None)));
    assert_eq!(world.work().len(), 2);

    let labels = BTreeMap::from([("site".to_owned(), "s11".to_owned())]);
    world.change(PolicyChange::Grant(grant(2, GrantTarget::Labels(labels))));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    let mut renamed = device(11);
    renamed.labels.insert("site".to_owned(), "s99".to_owned());
    world.change(PolicyChange::Target(renamed));
    assert_eq!(world.work().len(), 2);
}

#[test]
fn many_flows_are_cut_within_budgets() {
    let mut world = open_world();
    for port in 1..=4_000 {
        world.send(1, &tcp(OPERATOR[0], DEVICE[0], port, 22, SYN, 999, 0, &[])).expect("a SYN");
    }
    world.withdraw(1);
    let mut turns = 0;
    let mut sent = 0;
    while world.forwarder.next_due().is_some_and(|due| due <= world.now.mono) {
        turns += 1;
        world.now.mono = world.now.mono + std::time::Duration::from_nanos(1);
        let mut in_turn = 0;
        while world.forwarder.work(world.now).is_some() {
            in_turn += 1;
        }
        assert!(in_turn <= 512);
        sent += in_turn;
    }
    assert_eq!((sent, world.forwarder.totals().flows), (8_000, 0));
    assert!(turns >= 16, "{turns}");
}
