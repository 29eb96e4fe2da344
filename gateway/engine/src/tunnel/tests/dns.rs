//! Queries for names through the tunnel: who gets an answer, and how many.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_probes::packet::udp;

use super::world::*;
use crate::dns::{self, Suffix};
use crate::id::Id;
use crate::messages::{
    Command, DnsDecision, DnsId, DnsOutcome, DropReason, Gate, GrantAccess, GrantProtocol, GrantSource,
    GrantSpec, GrantTarget, PeerKind, PeerSnapshot, PeerSpec, PolicyChange, Published, SourceOwner,
    SourceSpec, StreamOutput, TargetAddress, TargetId, TargetSpec,
};

const SECOND: Duration = Duration::from_secs(1);
const ANNA: u8 = 3;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// Returns a world in which peer 3 is Anna's laptop and may ping device 2, which is called `cam-07`.
fn asking(forwards: bool) -> Plain {
    let mut world = connected(2);
    let suffix = Suffix::parse("fleet.internal").expect("a domain");
    world.tunnel.serve_dns(dns::Config { suffix, forwards });
    let laptop = PeerSpec { kind: PeerKind::Operator, networks: Vec::new(), ..spec(ANNA) };
    world.command(Command::Upsert(Box::new(laptop), PeerSnapshot::default()));
    let addresses = [v4(2), v6(2)].map(|own| TargetAddress { reached_at: own, real: own });
    world.command(Command::Policy(vec![
        PolicyChange::Source(SourceSpec {
            peer: id(ANNA),
            owner: SourceOwner::User { user: Id::from_i64(70), role: None },
            addresses: [v4(ANNA), v6(ANNA)].into(),
        }),
        PolicyChange::Target(TargetSpec {
            id: TargetId::Host(id(2)),
            host: id(2),
            name: "cam-07".to_owned(),
            peer: id(2),
            behind: false,
            labels: BTreeMap::new(),
            addresses: addresses.into(),
        }),
        PolicyChange::Grant(GrantSpec {
            id: Id::from_i64(900),
            source: GrantSource::Peer(id(ANNA)),
            target: GrantTarget::Host(id(2)),
            access: vec![GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() }],
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        }),
    ]));
    world
}

/// Builds a query for the A record of a name, with RD.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

fn send(world: &mut Plain, n: u8, from: IpAddr, gateway: IpAddr, data: &[u8]) {
    let ends = (SocketAddr::new(from, 40_000), SocketAddr::new(gateway, 53));
    world.say(n, &udp(ends.0, ends.1, data).expect("one family"));
}

/// Asks over UDP; returns the answer's code and its number of records.
fn ask(world: &mut Plain, n: u8, name: &str) -> Option<(u8, u8)> {
    send(world, n, v4(n), v4(1), &query(name));
    world.run(SECOND);
    world.end(n).device.datagrams.pop().map(|answer| (answer[3] & 0x0f, answer[7]))
}

fn count(world: &Plain, outcome: DnsOutcome) -> u64 {
    world.tunnel.dns_queries().find(|(other, _)| *other == outcome).map_or(0, |(_, count)| count)
}

#[test]
fn a_person_learns_the_address_of_what_is_granted_in_both_families() {
    let mut world = asking(false);
    for (own, gateway) in [(v4(ANNA), v4(1)), (v6(ANNA), v6(1))] {
        send(&mut world, ANNA, own, gateway, &query("cam-07.fleet.internal"));
        world.run(SECOND);
        let answer = world.end(ANNA).device.datagrams.pop().expect("an answer");
        assert_eq!(answer[answer.len() - 4..], [172, 24, 0, 2]);
    }
    assert_eq!(ask(&mut world, ANNA, "cam-08.fleet.internal"), Some((NXDOMAIN, 0)));
    assert_eq!(ask(&mut world, ANNA, "example.net"), Some((REFUSED, 0)));
    world.command(Command::Policy(vec![PolicyChange::WithdrawGrant(Id::from_i64(900))]));
    assert_eq!(ask(&mut world, ANNA, "cam-07.fleet.internal"), Some((NXDOMAIN, 0)));
    assert_eq!((count(&world, DnsOutcome::Answered), count(&world, DnsOutcome::NotFound)), (2, 2));
}

#[test]
fn a_device_is_refused_and_a_source_that_is_not_its_own_gets_nothing() {
    let mut world = asking(true);
    for name in ["cam-07.fleet.internal", "example.net"] {
        assert_eq!(ask(&mut world, 2, name), Some((REFUSED, 0)), "{name}");
    }
    let before = world.dropped(2, DropReason::Unsolicited);
    let ends = (SocketAddr::new(behind(), 40_000), SocketAddr::new(v4(1), 53));
    world.say(2, &udp(ends.0, ends.1, &query("cam-07.fleet.internal")).expect("one family"));
    send(&mut world, ANNA, v4(2), v4(1), &query("cam-07.fleet.internal"));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), before + 1, "from behind the device");
    assert_eq!(world.dropped(ANNA, DropReason::SpoofedSource), 1);
    assert!(world.end(2).device.datagrams.is_empty() && world.dns_forwards.is_empty());
}

#[test]
fn what_is_no_query_is_dropped_and_counted() {
    let mut world = asking(false);
    let mut answer = query("cam-07.fleet.internal");
    answer[2] |= 0x80;
    for data in [&answer[..], b"", b"hello"] {
        send(&mut world, ANNA, v4(ANNA), v4(1), data);
    }
    let other = SocketAddr::new(v4(1), 54);
    let from = SocketAddr::new(v4(ANNA), 40_000);
    world.say(ANNA, &udp(from, other, &query("cam-07.fleet.internal")).expect("one family"));
    world.run(SECOND);
    assert_eq!(world.dropped(ANNA, DropReason::BadPacket), 3);
    assert_eq!(world.dropped(ANNA, DropReason::Unsolicited), 1);
    assert_eq!(count(&world, DnsOutcome::Invalid), 3);
    assert!(world.end(ANNA).device.datagrams.is_empty());
}

#[test]
fn without_dns_the_port_is_closed() {
    let mut world = connected(2);
    send(&mut world, 2, v4(2), v4(1), &query("cam-07.fleet.internal"));
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 1);
}

#[test]
fn a_flood_of_queries_is_limited_and_costs_others_nothing() {
    let mut world = asking(false);
    for _ in 0..1_000 {
        send(&mut world, 2, v4(2), v4(1), &query("cam-07.fleet.internal"));
    }
    world.run(Duration::from_millis(50));
    assert_eq!(world.end(2).device.datagrams.len(), 200);
    assert_eq!(ask(&mut world, ANNA, "cam-07.fleet.internal"), Some((0, 1)));
    assert_eq!(world.dropped(2, DropReason::RateLimited), 800);
    assert_eq!(count(&world, DnsOutcome::RateLimited), 800);
    world.end(2).device.datagrams.clear();
    assert_eq!(ask(&mut world, 2, "cam-07.fleet.internal"), Some((REFUSED, 0)), "a second later");
}

#[test]
fn the_reply_of_a_resolver_reaches_the_peer_that_asked_while_it_may_ask() {
    let mut world = asking(true);
    send(&mut world, ANNA, v6(ANNA), v6(1), &query("example.net"));
    world.run(SECOND);
    let [(client, asked)] = &world.dns_forwards[..] else { panic!("one: {:?}", world.dns_forwards) };
    let (client, asked) = (*client, asked.clone());
    assert_eq!((client.peer, client.from.port(), asked), (id(ANNA), 40_000, query("example.net")));
    world.command(Command::DnsReply(client, b"the reply".to_vec()));
    world.run(SECOND);
    assert_eq!(world.end(ANNA).device.datagrams.pop().as_deref(), Some(&b"the reply"[..]));
    world.command(Command::DnsReply(client, vec![0; dns::LARGEST_DATAGRAM + 1]));
    world.command(Command::Policy(vec![PolicyChange::RemoveSource(id(ANNA))]));
    world.command(Command::DnsReply(client, b"the reply".to_vec()));
    world.command(Command::Remove(id(ANNA)));
    world.command(Command::DnsReply(client, b"the reply".to_vec()));
    world.run(SECOND);
    assert!(world.end(ANNA).device.datagrams.is_empty());
}

#[test]
fn people_connect_to_dns_over_tcp_and_devices_do_not() {
    let mut world = asking(false);
    for n in [2, ANNA] {
        world.call(n, SocketAddr::new(v4(n), 40_000), SocketAddr::new(v4(1), 53), b"query");
    }
    world.run(SECOND);
    let accepted: Vec<_> = world
        .streams
        .iter()
        .filter_map(|(_, output)| match output {
            StreamOutput::Accepted { peer, service, .. } => Some((*peer, *service)),
            _ => None,
        })
        .collect();
    assert_eq!(accepted, [(id(ANNA), Published::Dns)]);
    assert_eq!(world.dropped(2, DropReason::Unsolicited), 1);
}

#[test]
fn many_connections_of_people_leave_those_of_devices_their_room() {
    const PEOPLE: u8 = 20;
    let mut world = connected(PEOPLE + 1);
    let suffix = Suffix::parse("fleet.internal").expect("a domain");
    world.tunnel.serve_dns(dns::Config { suffix, forwards: false });
    for n in 3..3 + PEOPLE {
        let laptop = PeerSpec { kind: PeerKind::Operator, ..spec(n) };
        world.command(Command::Upsert(Box::new(laptop), PeerSnapshot::default()));
        let (user, addresses) = (Id::from_i64(70), [v4(n), v6(n)].into());
        let source = SourceSpec { peer: id(n), owner: SourceOwner::User { user, role: None }, addresses };
        world.command(Command::Policy(vec![PolicyChange::Source(source)]));
        for port in 1..=4 {
            world.call(n, SocketAddr::new(v4(n), port), SocketAddr::new(v4(1), 53), b"wait");
        }
        world.run(Duration::from_millis(100));
    }
    let accepted = |world: &Plain, wanted: Published| {
        let is = |output: &StreamOutput| matches!(output, StreamOutput::Accepted { service, .. } if *service == wanted);
        world.streams.iter().filter(|(_, output)| is(output)).count()
    };
    assert_eq!(accepted(&world, Published::Dns), 64);
    world.call(2, SocketAddr::new(v4(2), 1), SocketAddr::new(v4(1), 80), b"the disk is fine");
    world.run(SECOND);
    assert_eq!(accepted(&world, Published::Results), 1);
    world.run(60 * SECOND);
    assert_eq!(world.tunnel.totals().connections, 0);
}

#[test]
fn a_query_over_tcp_is_decided_once_and_within_the_same_limit() {
    let mut world = asking(true);
    let decide = |world: &mut Plain, n: u8, name: &str| {
        world.command(Command::DnsQuery(DnsId(9), id(n), query(name)));
        let answers = std::mem::take(&mut world.dns_answers);
        let [(DnsId(9), decision)] = &answers[..] else { panic!("one: {answers:?}") };
        decision.clone()
    };
    let DnsDecision::Answer(answer) = decide(&mut world, ANNA, "cam-07.fleet.internal") else {
        panic!("an answer")
    };
    assert_eq!(answer[answer.len() - 4..], [172, 24, 0, 2]);
    assert_eq!(decide(&mut world, ANNA, "example.net"), DnsDecision::Forward);
    assert_eq!(decide(&mut world, 99, "example.net"), DnsDecision::Drop, "no peer");
    let rest = (0..300).filter(|_| decide(&mut world, ANNA, "example.net") == DnsDecision::Forward).count();
    assert_eq!(rest, 198);
}
