//! Renters reach the device of a rental at its alias: in its window, and nothing else.
//!
//! Customer 51 has the renters 3 and 4 and the rentals 41 and 42 of device 11; customer 52 has renter 5.

use super::packets::*;
use super::world::*;
use crate::forward::Outcome;
use crate::forward::headers::{ACK, Ip, RST, SYN, Transport, address};
use crate::id::PeerId;
use crate::messages::{
    DropReason, ExplainRequest, ExplainSource, ExplainTarget, Explanation, FlowEnd, Gate, GrantProtocol,
    GrantRole, GrantSource, GrantSpec, GrantTarget, HandedOver, PolicyChange, SourceOwner, TargetId,
};
use crate::time::Wall;

pub const CUSTOMER: i64 = 51;

pub fn rented() -> World {
    let mut world = world();
    for (n, customer) in [(3, CUSTOMER), (4, CUSTOMER), (5, 52)] {
        world.change(PolicyChange::Source(renter(n, customer)));
    }
    for n in [41, 42] {
        world.change(PolicyChange::Target(rental(n, 11)));
    }
    world
}

/// Rental 41 lasts until second 100, and rental 42 follows it at once with a narrower access.
fn back_to_back() -> World {
    let mut world = rented();
    let turn = Some(wall(100));
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, Some(wall(0)), turn)));
    let access = vec![access(GrantProtocol::Tcp, 22..=22), access(GrantProtocol::Udp, 53..=53)];
    let next = rental_grant(42, CUSTOMER, turn, Some(wall(200)));
    world.change(PolicyChange::Grant(GrantSpec { access, ..next }));
    world
}

fn udp_to(n: i64, to: &str, port: u16) -> Vec<u8> {
    udp(&renter_at(n)[0], to, 5_000, port, b"?")
}

pub fn udp_to_rental(n: i64, rental: i64, port: u16) -> Vec<u8> {
    udp_to(n, &alias_of(rental)[0], port)
}

fn segment(rental: i64, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    tcp(&renter_at(3)[0], &alias_of(rental)[0], 40_000, 22, flags, seq, ack, &[])
}

/// Renter 3 opens a connection to the device of a rental, from a port that is always the same.
fn connect(world: &mut World, rental: i64, device: i64) {
    world.send(3, &segment(rental, SYN, 999, 0)).expect("a SYN");
    let own = format!("10.1.0.{device}");
    let answer = tcp(&own, &renter_at(3)[0], 22, 40_000, SYN | ACK, 4_999, 1_000, &[]);
    let (to, packet) = world.send(device, &answer).expect("a SYN-ACK");
    assert_eq!((to, source_of(&packet)), (id(3), alias_of(rental)[0].clone()), "the renter knows the alias");
    world.send(3, &segment(rental, ACK, 1_000, 5_000)).expect("an ACK");
}

fn source_of(packet: &[u8]) -> String {
    let ip = Ip::parse(packet).expect("a packet");
    address(ip.v6, ip.src).to_string()
}

/// The resets that go out before a packet: to whom, and from which address.
fn resets_before(world: &mut World) -> Vec<(PeerId, String)> {
    let mut sent = Vec::new();
    while let Some((to, reset)) = world.forwarder.reset_before() {
        let ip = Ip::parse(reset).expect("a packet");
        assert!(matches!(Transport::parse(&ip, reset), Ok(Transport::Tcp(segment)) if segment.has(RST)));
        sent.push((to, source_of(reset)));
    }
    sent
}

#[test]
fn a_renter_reaches_the_device_at_the_alias_alone() {
    let mut world = rented();
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, None, None)));
    for (family, device) in DEVICE.into_iter().enumerate() {
        let (renter, alias) = (renter_at(3)[family].clone(), alias_of(41)[family].clone());
        let asked = udp(&renter, &alias, 5_000, 53, b"?");
        let (to, there) = world.send(3, &asked).expect("rented");
        let ip = Ip::parse(&there).expect("a packet");
        assert_eq!((to, address(ip.v6, ip.dst)), (id(11), ip_of(device)));
        let (to, back) = world.send(11, &udp(device, &renter, 53, 5_000, b"!")).expect("a reply");
        assert_eq!((to, source_of(&back)), (id(3), alias.clone()));
        let error = icmp_error(device, &renter, &there);
        let (_, error) = world.send(11, &error).expect("about the flow");
        assert_eq!(source_of(&error), alias, "an error names the alias too");
    }
    for to in [DEVICE[0], ALIAS[0], "10.1.0.12"] {
        assert_eq!(world.send(3, &udp_to(3, to, 53)), Err(DropReason::NotGranted), "{to}");
    }
    assert_eq!(world.send(5, &udp_to_rental(5, 41, 53)), Err(DropReason::NotGranted), "another customer");
    assert_eq!(world.send(3, &udp_to_rental(3, 42, 53)), Err(DropReason::NotGranted), "another rental");
}

#[test]
fn no_other_grant_opens_anything_for_a_renter_and_no_grant_an_alias_for_an_operator() {
    let mut world = rented();
    let sources = [
        GrantSource::Peer(id(3)),
        GrantSource::Peer(id(1)),
        GrantSource::User(id(203)),
        GrantSource::User(id(101)),
        GrantSource::Role(GrantRole::Operator),
        GrantSource::Customer(id(CUSTOMER)),
    ];
    let targets = [
        GrantTarget::AllDevices,
        GrantTarget::Host(id(11)),
        GrantTarget::Host(id(41)),
        GrantTarget::Labels([("site".to_owned(), "s11".to_owned())].into()),
        GrantTarget::Rental(id(41)),
    ];
    let pairs = sources.iter().flat_map(|source| targets.iter().map(move |target| (*source, target)));
    for (n, (source, target)) in (900..).zip(pairs) {
        let right = matches!((source, target), (GrantSource::Customer(_), GrantTarget::Rental(_)));
        if !right {
            world.change(PolicyChange::Grant(GrantSpec { source, ..grant(n, target.clone()) }));
        }
    }
    let alias = alias_of(41);
    for to in [alias[0].as_str(), DEVICE[0]] {
        assert_eq!(world.send(3, &udp_to(3, to, 53)), Err(DropReason::NotGranted), "{to}");
    }
    let of_operator = udp(OPERATOR[0], &alias[0], 5_000, 53, b"?");
    assert_eq!(world.send(1, &of_operator), Err(DropReason::NotGranted));
    assert!(world.passes(1, &udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?")));
}

#[test]
fn a_rental_admits_only_the_renters_that_it_names() {
    let mut world = rented();
    let all = rental_grant(41, CUSTOMER, None, None);
    let some = GrantSpec { only: Some([id(4), id(5)].into()), ..all.clone() };
    world.change(PolicyChange::Grant(all));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)) && world.passes(4, &udp_to_rental(4, 41, 53)));
    world.change(PolicyChange::Grant(some));
    assert_eq!(world.send(3, &udp_to_rental(3, 41, 53)), Err(DropReason::NotGranted), "not one packet more");
    assert!(world.passes(4, &udp_to_rental(4, 41, 53)), "its flow goes on");
    assert!(!world.passes(5, &udp_to_rental(5, 41, 53)), "of another customer");
    world.work();
    let ended: Vec<_> = world.records().iter().map(|record| (record.source, record.ended)).collect();
    assert_eq!(ended, [(id(3), Some(FlowEnd::NotGranted))]);
}

#[test]
fn a_flow_of_a_rental_is_recorded_each_minute_whatever_its_protocol() {
    let mut world = rented();
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, None, None)));
    connect(&mut world, 41, 11);
    for second in 1..=600 {
        world.advance(seconds(1));
        if second % 7 == 0 {
            assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
            assert!(world.passes(3, &segment(41, ACK, 1_000, 5_000)));
        }
        world.work();
    }
    let records = world.records();
    for protocol in [GrantProtocol::Tcp, GrantProtocol::Udp] {
        let of: Vec<_> = records.iter().filter(|record| record.protocol == protocol).collect();
        assert_eq!(of.len(), 9, "{protocol:?}: the tenth minute is not over");
        assert!(of.iter().all(|record| record.ended.is_none() && record.rental == Some(id(41))));
        let mut spans = of.iter().map(|record| record.until.since(record.from).as_secs());
        assert!(spans.all(|span| (60..=62).contains(&span)), "{of:?}");
    }
    assert_eq!(world.forwarder.totals().lost_records, 0);
}

#[test]
fn the_next_rental_of_a_device_begins_to_the_second_and_with_its_own_access() {
    let mut world = back_to_back();
    assert!(world.passes(3, &udp_to_rental(3, 41, 99)));
    assert_eq!(world.send(3, &udp_to_rental(3, 42, 53)), Err(DropReason::NotGranted), "not yet");
    world.advance(seconds(99));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    world.advance(seconds(1));
    let late = udp(DEVICE[0], &renter_at(3)[0], 53, 5_000, b"!");
    assert_eq!(world.send(11, &late), Err(DropReason::NotGranted), "a reply in the first one");
    assert_eq!(world.send(3, &udp_to_rental(3, 42, 99)), Err(DropReason::NotGranted), "not in its access");
    assert!(world.passes(3, &udp_to_rental(3, 42, 53)), "the flow of the first one is in no way");
    let (_, reply) = world.send(11, &late).expect("a reply in the second one");
    assert_eq!(source_of(&reply), alias_of(42)[0]);
    assert_eq!(world.send(3, &udp_to_rental(3, 41, 53)), Err(DropReason::NotGranted));
}

#[test]
fn a_connection_of_the_next_rental_follows_the_resets_of_the_one_before() {
    let mut world = back_to_back();
    connect(&mut world, 41, 11);
    world.advance(seconds(100));
    assert!(world.passes(3, &segment(42, SYN, 77, 0)), "before any work");
    let resets = resets_before(&mut world);
    let [to_renter, to_device @ ..] = &resets[..] else { panic!("resets") };
    assert_eq!(*to_renter, (id(3), alias_of(41)[0].clone()));
    assert!(!to_device.is_empty() && to_device.iter().all(|(to, _)| *to == id(11)), "{to_device:?}");
    assert_eq!(world.work(), [], "there is nothing left to reset");
    let records = world.records();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.rental, record.ended), (Some(id(41)), Some(FlowEnd::NotGranted)));
    let answer = tcp(DEVICE[0], &renter_at(3)[0], 22, 40_000, SYN | ACK, 9, 78, &[]);
    let (_, answer) = world.send(11, &answer).expect("the new connection");
    assert_eq!(source_of(&answer), alias_of(42)[0]);
}

#[test]
fn a_swap_resets_both_ends_and_the_alias_leads_to_the_other_device() {
    let mut world = rented();
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, None, None)));
    connect(&mut world, 41, 11);
    world.change(PolicyChange::Target(rental(41, 12)));
    assert_eq!(world.send(3, &segment(41, ACK, 1_000, 5_000)), Err(DropReason::NotGranted));
    let late = tcp(DEVICE[0], &renter_at(3)[0], 22, 40_000, ACK, 5_000, 1_000, b"late");
    assert_eq!(world.send(11, &late), Err(DropReason::NotGranted));
    let receivers: Vec<_> = world.work().iter().map(|(to, packet)| (*to, source_of(packet))).collect();
    assert_eq!(receivers, [(id(3), alias_of(41)[0].clone()), (id(11), renter_at(3)[0].clone())]);
    let records = world.records();
    assert_eq!((records[0].host, records[0].rental), (id(11), Some(id(41))));
    let owner = SourceOwner::Person { person: id(203), customer: id(CUSTOMER) };
    assert_eq!((records[0].source, records[0].owner), (id(3), owner));
    connect(&mut world, 41, 12);
    assert_eq!(world.send(11, &late), Err(DropReason::NoFlow));
}

#[test]
fn a_client_that_connects_again_at_once_reaches_the_other_device() {
    let mut world = rented();
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, None, None)));
    connect(&mut world, 41, 11);
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    world.change(PolicyChange::Target(rental(41, 12)));
    let (to, _) = world.send(3, &udp_to_rental(3, 41, 53)).expect("from the same port");
    assert_eq!(to, id(12));
    assert_eq!(resets_before(&mut world), []);
    let (to, _) = world.send(3, &segment(41, SYN, 77, 0)).expect("from the same port");
    assert_eq!(to, id(12));
    let receivers: Vec<_> = resets_before(&mut world).into_iter().map(|(to, _)| to).collect();
    assert_eq!(receivers, [id(11)], "the renter has begun anew");
}

#[test]
fn a_flood_of_displaced_connections_leaves_a_bounded_number_of_resets() {
    let mut world = back_to_back();
    let syn = |rental: i64, port| tcp(&renter_at(3)[0], &alias_of(rental)[0], port, 22, SYN, 999, 0, &[]);
    world.advance(seconds(99));
    (1..=200).for_each(|port| drop(world.send(3, &syn(41, port)).expect("a SYN")));
    world.advance(seconds(1));
    let passed = (1..=200).filter(|port| world.send(3, &syn(42, *port)).is_ok()).count();
    let waiting = world.forwarder.displaced.len();
    assert!((16..200).contains(&passed) && waiting <= 64, "{passed} passed, {waiting} resets wait");
    world.work();
    assert!((1..=200).all(|port| world.passes(3, &syn(42, port))));
}

#[test]
fn an_alias_that_another_rental_gets_carries_no_flow_on() {
    let mut world = back_to_back();
    connect(&mut world, 41, 11);
    let mut next = rental(42, 11);
    next.addresses = rental(41, 11).addresses;
    world.change(PolicyChange::RemoveTarget(TargetId::Rental(id(41))));
    world.change(PolicyChange::Target(next));
    world.change(PolicyChange::Grant(rental_grant(42, CUSTOMER, None, None)));
    assert_eq!(world.send(3, &segment(41, ACK, 1_000, 5_000)), Err(DropReason::NotGranted));
    assert_eq!(world.work().len(), 2, "both ends are reset");
}

/// Rental 41 of device 11, as its gate is.
fn gated(gate: Gate) -> PolicyChange {
    let spec = rental_grant(41, CUSTOMER, Some(wall(0)), Some(wall(100)));
    PolicyChange::Grant(GrantSpec { gate, ..spec })
}

fn delayed() -> PolicyChange {
    gated(Gate { awaits_handover: true, ..Gate::default() })
}

/// The device of rental 41 is handed over.
fn handed_over(device: i64, at: Wall) -> PolicyChange {
    PolicyChange::HandOver(HandedOver { rental: id(41), host: id(device), at })
}

fn explained(world: &World) -> Explanation {
    let (from, to) = (ExplainSource::Peer(id(3)), ExplainTarget::Rental(id(41)));
    let (protocol, port) = (GrantProtocol::Udp, 53);
    world.forwarder.explain(&ExplainRequest { from, to, protocol, port, at: world.now.wall }, world.now)
}

#[test]
fn nothing_passes_before_the_handover_and_everything_after_it() {
    let mut world = rented();
    world.change(delayed());
    assert_eq!(world.send(3, &udp_to_rental(3, 41, 53)), Err(DropReason::NotGranted));
    assert!(matches!(explained(&world), Explanation::Delayed(window) if window.grant == id(41)));
    world.change(handed_over(12, world.now.wall));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "another device");
    world.change(handed_over(11, world.now.wall));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    let blocks = vec![(wall(200), wall(300))];
    world.change(gated(Gate { awaits_handover: true, blocks, ..Gate::default() }));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "the store does not have the handover yet");
    world.change(PolicyChange::Target(rental(41, 12)));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "it is swapped, and the store has no handover");
    world.change(gated(Gate::default()));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "the store has one");
    world.advance(seconds(100));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    assert!(matches!(explained(&world), Explanation::Over(_)));
}

#[test]
fn a_rental_that_was_withdrawn_awaits_its_handover_again() {
    let mut world = rented();
    world.change(delayed());
    world.change(handed_over(11, world.now.wall));
    world.withdraw(41);
    world.change(delayed());
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
}

#[test]
fn a_device_that_comes_back_after_another_one_awaits_a_handover_again() {
    let mut world = rented();
    world.change(delayed());
    world.change(handed_over(11, world.now.wall));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    world.change(PolicyChange::Target(rental(41, 12)));
    world.change(PolicyChange::Target(rental(41, 11)));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    world.change(handed_over(11, world.now.wall));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
}

#[test]
fn a_handover_by_a_clock_that_was_ahead_opens_nothing_when_its_time_comes_again() {
    let mut world = rented();
    world.change(delayed());
    world.advance(seconds(50));
    world.change(handed_over(11, world.now.wall));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    world.set_clock(wall(20));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    world.advance(seconds(35));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "after the time of that handover");
    world.change(handed_over(11, world.now.wall));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
}

#[test]
fn a_stored_handover_holds_from_its_time_on_and_its_flows_wait_for_a_clock_that_was_set_back() {
    let mut world = rented();
    let gate = Gate { handed_over_at: Some(wall(10)), ..Gate::default() };
    let spec = rental_grant(41, CUSTOMER, Some(wall(10)), Some(wall(500)));
    world.change(PolicyChange::Grant(GrantSpec { gate, ..spec }));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    world.advance(seconds(20));
    connect(&mut world, 41, 11);
    world.set_clock(wall(5));
    assert_eq!(world.send(3, &segment(41, ACK, 1_000, 5_000)), Err(DropReason::ClockStep));
    world.set_clock(wall(21));
    assert!(world.passes(3, &segment(41, ACK, 1_000, 5_000)), "it was not cut");
}

#[test]
fn a_block_cuts_what_runs_and_its_end_lets_new_connections_pass() {
    let mut world = rented();
    world.change(gated(Gate { blocks: vec![(wall(10), wall(20))], ..Gate::default() }));
    connect(&mut world, 41, 11);
    world.advance(seconds(9));
    assert_eq!(world.work(), []);
    assert!(world.passes(3, &segment(41, ACK, 1_000, 5_000)));
    world.advance(seconds(1));
    assert_eq!(world.work().len(), 2, "both ends are reset, without a packet of theirs");
    assert!(matches!(explained(&world), Explanation::Blocked(window) if window.grant == id(41)));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    world.advance(seconds(10));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)));
    world.change(gated(Gate { blocks: vec![(wall(5), wall(90))], ..Gate::default() }));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "a block that has begun");
    world.change(gated(Gate::default()));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "it was ended");
}

#[test]
fn a_clock_that_is_set_back_before_a_block_does_not_delay_its_begin() {
    let mut world = rented();
    world.prove();
    let from = world.now.wall + seconds(30);
    let until = from + seconds(7_200);
    let gate = Gate { blocks: vec![(from, until)], ..Gate::default() };
    let spec = rental_grant(41, CUSTOMER, Some(wall(-9_999)), Some(until + seconds(9_000)));
    world.change(PolicyChange::Grant(GrantSpec { gate, ..spec }));
    connect(&mut world, 41, 11);
    world.set_clock(world.now.wall - seconds(3_600));
    assert!(world.passes(3, &segment(41, ACK, 1_000, 5_000)), "it has not begun");
    let due = world.forwarder.next_due().expect("the begin of the block").since(world.now.mono);
    assert!(due <= seconds(30), "{due:?}");
    world.advance(seconds(30));
    assert_eq!(world.work().len(), 2, "both ends are reset, without a packet of theirs");
    assert!(matches!(explained(&world), Explanation::Blocked(_)));
    world.advance(seconds(300));
    world.work();
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "also by the clock that is believed");
    world.set_clock(until);
    world.advance(seconds(301));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "it ends by the clock that is shown");
}

#[test]
fn a_block_by_a_clock_that_was_wrong_at_the_start_begins_by_the_one_that_is_believed() {
    let mut world = rented();
    let gate = Gate { blocks: vec![(wall(50), wall(9_000))], ..Gate::default() };
    let spec = rental_grant(41, CUSTOMER, Some(wall(-9_999)), Some(wall(9_999)));
    world.change(PolicyChange::Grant(GrantSpec { gate, ..spec }));
    world.set_clock(wall(-1_000));
    world.advance(seconds(60));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "it may have been right");
    world.advance(seconds(240));
    world.work();
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "the clock is believed");
    world.advance(wall(50).since(world.now.wall));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
}

#[test]
fn a_clock_that_is_set_back_over_the_begin_of_a_block_lets_nothing_pass() {
    let mut world = rented();
    let gate = Gate { blocks: vec![(wall(1_000), wall(9_000))], ..Gate::default() };
    let spec = rental_grant(41, CUSTOMER, Some(wall(0)), Some(wall(9_999)));
    world.change(PolicyChange::Grant(GrantSpec { gate, ..spec.clone() }));
    world.advance(seconds(1_001));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)));
    world.set_clock(wall(500));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "the clock is doubted");
    assert!(matches!(explained(&world), Explanation::Blocked(_)));
    world.advance(seconds(301));
    assert!(!world.passes(3, &udp_to_rental(3, 41, 53)), "a block that has begun goes on");
    world.change(PolicyChange::AcceptClock);
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "an admin says that the clock is right");
    world.set_clock(wall(1_500));
    world.change(PolicyChange::Grant(spec));
    assert!(world.passes(3, &udp_to_rental(3, 41, 53)), "the block was ended");
}

#[test]
fn explain_speaks_of_people_and_rentals() {
    let mut world = back_to_back();
    let explain = |world: &World, from, to| {
        let (protocol, port) = (GrantProtocol::Udp, 53);
        world.forwarder.explain(&ExplainRequest { from, to, protocol, port, at: world.now.wall }, world.now)
    };
    let (person, rental) = (ExplainSource::Person(id(203)), |n| ExplainTarget::Rental(id(n)));
    for (from, to) in [
        (person, rental(41)),
        (ExplainSource::Peer(id(3)), rental(41)),
        (person, ExplainTarget::Address(ip_of(&alias_of(41)[1]))),
    ] {
        let answer = explain(&world, from, to);
        assert!(matches!(answer, Explanation::Permitted(window) if window.grant == id(41)), "{answer:?}");
    }
    let later = explain(&world, person, rental(42));
    assert!(matches!(later, Explanation::NotYet(window) if window.grant == id(42)), "{later:?}");
    assert_eq!(explain(&world, person, ExplainTarget::Host(id(11))), Explanation::NoGrant);
    assert_eq!(explain(&world, ExplainSource::User(id(101)), rental(41)), Explanation::NoGrant);
    assert_eq!(explain(&world, ExplainSource::Person(id(999)), rental(41)), Explanation::UnknownSource);
    assert_eq!(explain(&world, person, rental(99)), Explanation::UnknownTarget);
    world.advance(seconds(100));
    world.work();
    let over = explain(&world, person, rental(41));
    assert!(matches!(over, Explanation::Over(window) if window.grant == id(41)), "{over:?}");
}

#[test]
fn the_gateway_itself_can_try_the_way_of_a_renter() {
    let mut world = rented();
    world.change(PolicyChange::Grant(rental_grant(41, CUSTOMER, None, None)));
    let mut probe = echo(&renter_at(3)[0], &alias_of(41)[0], true, 9);
    let (to, flow) = world.forwarder.open_probe(id(3), &mut probe, world.now).expect("rented");
    assert_eq!(to, id(11));
    let mut answer = echo(DEVICE[0], &renter_at(3)[0], false, 9);
    let outcome = world.forwarder.packet(id(11), &mut answer, world.now);
    assert_eq!((outcome, source_of(&answer)), (Outcome::Diverted(flow), alias_of(41)[0].clone()));
}
