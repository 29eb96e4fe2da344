//! Random policies, clocks and packets: a packet passes exactly if the naive model says so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::model::*;
use super::packets::*;
use super::stories::*;
use super::world::*;
use crate::forward::headers::{ACK, FIN, Ip, RST, SYN, address};
use crate::forward::{Forwarder, Outcome, syn};
use crate::messages::{
    DropReason, ExplainRequest, ExplainSource, ExplainTarget, Explanation, Gate, GrantProtocol, GrantRole,
    HandedOver, PolicyChange,
};
use crate::time::Wall;

fn build(said: &Said) -> Vec<u8> {
    let is_back = said.ports.0 >= 21;
    let (seq, ack) = if is_back { (5_000, 1_000) } else { (1_000, 5_000) };
    let (flags, seq, ack) = match said.kind {
        PacketKind::Udp => return udp_between(said.src, said.dst, said.ports, &[7; 100]),
        PacketKind::Echo { request } => return echo_between(said.src, said.dst, request, said.ports.0, 100),
        PacketKind::Tcp(Flag::Syn) => (SYN, seq - 1, 0),
        PacketKind::Tcp(Flag::SynAck) => (SYN | ACK, seq - 1, ack),
        PacketKind::Tcp(Flag::Ack) => (ACK, seq, ack),
        PacketKind::Tcp(Flag::Fin) => (FIN | ACK, seq, ack),
        PacketKind::Tcp(Flag::GoodReset) => (RST | ACK, seq, ack),
        PacketKind::Tcp(Flag::BadReset) => (RST | ACK, 2_000_000, 77),
    };
    tcp_between(said.src, said.dst, said.ports, flags, (seq, ack), &[])
}

struct Pair {
    world: World,
    model: Model,
    greatest: Wall,
    /// Packets that passed, by kind and form.
    passed: BTreeMap<&'static str, u64>,
    dropped: u64,
}

impl Pair {
    fn new() -> Pair {
        let world = world();
        let mut pair = Pair {
            model: Model::new(world.now),
            world,
            greatest: Wall::from_millis(0),
            passed: BTreeMap::new(),
            dropped: 0,
        };
        pair.change(PolicyChange::Source(source(1, OPERATOR, Some(GrantRole::Operator))));
        pair.change(PolicyChange::Source(source(2, VIEWER, None)));
        renters().into_iter().for_each(|change| pair.change(change));
        TARGETS.iter().for_each(|host| pair.change(PolicyChange::Target(target(*host, 0, false))));
        pair
    }

    fn change(&mut self, change: PolicyChange) {
        self.model.change(&change, self.world.now);
        self.world.change(change);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Out { peer, family, host, kind, ports, form } => {
                let (src, dst) = (address_of(peer, family), reached_at(TARGETS[host], family));
                self.say(Said { peer: id(peer), src, dst, kind, ports: echo_ports(kind, ports) }, form);
            }
            Op::Back { device, behind, family, to, kind, ports, form } => {
                let own = target(device, 0, false).addresses[family].real;
                let src = if behind { ip_of(REAL[family]) } else { own };
                let dst = address_of(to, family);
                self.say(Said { peer: id(device), src, dst, kind, ports: echo_ports(kind, ports) }, form);
            }
            Op::Advance(s) => self.world.advance(Duration::from_secs(s)),
            Op::SetClock(offset) => self.set_clock(offset),
            Op::Restart => self.restart(),
            other => {
                if let Some(change) = self.policy_change(other) {
                    self.change(change);
                }
            }
        }
        self.greatest = self.greatest.max(self.world.now.wall);
        // Work takes some nanoseconds, and both compute ends by the present time.
        self.model.sweep(self.world.now);
        self.world.work();
        assert_eq!(self.world.forwarder.totals().lost_records, 0);
        self.world.records();
    }

    fn policy_change(&self, op: Op) -> Option<PolicyChange> {
        let at = |offset: i64| Wall::from_millis(self.world.now.wall.as_millis() + offset * 1_000);
        Some(match op {
            Op::Grant { id, source, target, access, from, until } => {
                PolicyChange::Grant(random_grant(id, source, target, access, from.map(at), until.map(at)))
            }
            Op::Rent { rental, access, from, until, only, gate: (awaits_handover, block) } => {
                let blocks = block.map(|(from, until)| (at(from), at(until))).into_iter().collect();
                let gate = Gate { awaits_handover, blocks, ..Gate::default() };
                PolicyChange::Grant(random_rental(rental, access, from.map(at), until.map(at), only, gate))
            }
            Op::HandOver { rental, moved } => {
                let host = target(RENTALS[rental], 0, moved).host;
                PolicyChange::HandOver(HandedOver { rental: id(RENTALS[rental]), host, at: at(-2) })
            }
            Op::Withdraw(n) => PolicyChange::WithdrawGrant(id(n)),
            Op::Renter { present: false, .. } => PolicyChange::RemoveSource(id(3)),
            Op::Renter { customer, .. } => PolicyChange::Source(renter(3, customer)),
            Op::Source { present: false, .. } => PolicyChange::RemoveSource(id(1)),
            Op::Source { admin, .. } => {
                let role = if admin { GrantRole::Admin } else { GrantRole::Operator };
                PolicyChange::Source(source(1, OPERATOR, Some(role)))
            }
            Op::Target { host, present: false, .. } => PolicyChange::RemoveTarget(target(host, 0, false).id),
            Op::Target { host, label, moved, .. } => PolicyChange::Target(target(host, label, moved)),
            Op::Floor(offset) => PolicyChange::Floor(at(offset)),
            Op::Accept => PolicyChange::AcceptClock,
            _ => return None,
        })
    }

    fn set_clock(&mut self, offset: i64) {
        let expected = self.world.now.wall + Duration::from_millis(1);
        let to = Wall::from_millis(expected.as_millis() + offset * 1_000);
        self.world.set_clock(to);
        if offset.abs() > 1 {
            self.model.step(expected, self.world.now);
        }
    }

    fn restart(&mut self) {
        let floor = self.greatest;
        self.world.forwarder = Forwarder::new(crate::forward::Config {
            gateway_v4: "10.0.0.254".parse().expect("an address"),
            gateway_v6: "fd00::fe".parse().expect("an address"),
            limits: Default::default(),
        });
        self.world.change(PolicyChange::Floor(floor));
        for change in self.model.policy() {
            self.world.change(change);
        }
        self.model.restart(floor, self.world.now);
    }

    fn say(&mut self, said: Said, form: Form) {
        let now = self.world.now;
        let bytes = build(&said);
        let from = said.peer.as_i64();
        let at = if said.src.is_ipv6() { 40 } else { 20 };
        let large = matches!(said.kind, PacketKind::Udp | PacketKind::Echo { .. });
        self.compare_explanation(&said);
        let (expected, sent) = match form {
            Form::First(id) if large => {
                let part = fragment(&bytes, at..at + 48, 0, true, id);
                (self.model.packet(&said, Some(id), now), self.world.send(from, &part))
            }
            Form::Later(id) if large => {
                let part = fragment(&bytes, at + 48..bytes.len(), 48, false, id);
                (self.model.later_fragment(&said, id, now), self.world.send(from, &part))
            }
            Form::Hidden if at == 20 => (None, self.world.send(from, &with_options(&bytes))),
            Form::Hidden => (None, self.world.send(from, &with_extension(&bytes, 60))),
            Form::Quoted { astray } => return self.quote(&said, astray),
            _ => (self.model.packet(&said, None, now), self.world.send(from, &bytes)),
        };
        let delivered = sent.map(|(to, bytes)| {
            let ip = Ip::parse(&bytes).expect("what is forwarded is whole");
            Delivered { to, src: address(ip.v6, ip.src), dst: address(ip.v6, ip.dst) }
        });
        assert_eq!(delivered.ok(), expected, "{said:?} {form:?}");
        self.tally(expected.is_some(), name(said.kind, form));
    }

    /// The receiver of a packet in a flow answers with an error. `said` is what it would send; the
    /// quoted packet is the other way round.
    fn quote(&mut self, said: &Said, astray: bool) {
        let kind = match said.kind {
            PacketKind::Echo { request } => PacketKind::Echo { request: !request },
            other => other,
        };
        let ports = (said.ports.1, said.ports.0);
        let quoted = Said { src: said.dst, dst: said.src, kind, ports, ..*said };
        let dst =
            if astray { ip_of([VIEWER[0], VIEWER[1]][usize::from(said.src.is_ipv6())]) } else { said.dst };
        let code = if said.src.is_ipv6() { (1, 4) } else { (3, 3) };
        let error = icmp_message(said.src, dst, code, &build(&quoted));
        let expected = self.model.error(said.peer, dst, &quoted, self.world.now);
        let sent = self.world.send(said.peer.as_i64(), &error).map(|(to, _)| to);
        assert_eq!(sent.ok(), expected, "an error about {quoted:?}");
        self.tally(expected.is_some(), "error");
    }

    fn tally(&mut self, passed: bool, name: &'static str) {
        if passed {
            *self.passed.entry(name).or_default() += 1;
        } else {
            self.dropped += 1;
        }
    }

    fn compare_explanation(&mut self, said: &Said) {
        let protocol = match said.kind {
            PacketKind::Tcp(_) => GrantProtocol::Tcp,
            PacketKind::Udp => GrantProtocol::Udp,
            PacketKind::Echo { .. } => GrantProtocol::Icmp,
        };
        let question = ExplainRequest {
            from: ExplainSource::Peer(said.peer),
            to: ExplainTarget::Address(said.dst),
            protocol,
            port: said.ports.1,
            at: self.world.now.wall,
        };
        let explanation = self.world.forwarder.explain(&question, self.world.now);
        let permitted = matches!(explanation, Explanation::Permitted(_));
        let waits = matches!(explanation, Explanation::ClockBehind(_) | Explanation::ClockStep(_));
        let expected = self.model.covers(said, self.world.now);
        assert_eq!(
            (permitted, waits),
            (expected == Cover::Yes, expected == Cover::Waits),
            "{explanation:?} {said:?}"
        );
        self.compare_probe(&question, explanation);
    }

    /// A packet of the gateway's own passes exactly if the filter says so, and its answer goes to no
    /// peer.
    fn compare_probe(&mut self, question: &ExplainRequest, explanation: Explanation) {
        let now = self.world.now;
        let (again, ends) = self.world.forwarder.explain_packet(question, now);
        assert_eq!(again, explanation);
        let Some(ends) = ends else { return };
        let mut packet = match question.protocol {
            GrantProtocol::Icmp => echo_between(ends.src, ends.dst, true, 9_999, 16),
            _ => syn((ends.src, 9_999), (ends.dst, question.port), 7),
        };
        if question.protocol == GrantProtocol::Udp {
            packet = udp_between(ends.src, ends.dst, (9_999, question.port), &[7; 16]);
        }
        let sent = self.world.forwarder.open_probe(ends.source, &mut packet, now);
        assert_eq!(
            sent.is_ok(),
            matches!(explanation, Explanation::Permitted(_)),
            "{sent:?} {explanation:?}"
        );
        let Ok((device, flow)) = sent else { return };
        assert_eq!(self.world.forwarder.repeat_probe(flow, now), Ok(()));
        let ip = Ip::parse(&packet).expect("a packet");
        let (src, dst) = (address(ip.v6, ip.dst), address(ip.v6, ip.src));
        let mut answer = match question.protocol {
            GrantProtocol::Icmp => echo_between(src, dst, false, 9_999, 16),
            GrantProtocol::Tcp => tcp_between(src, dst, (question.port, 9_999), SYN | ACK, (70, 8), &[]),
            GrantProtocol::Udp => udp_between(src, dst, (question.port, 9_999), &[7; 16]),
        };
        let late = answer.clone();
        let outcome = self.world.forwarder.packet(device, &mut answer, now);
        assert_eq!(outcome, Outcome::Diverted(flow));
        self.world.forwarder.close_probe(flow, None);
        let outcome = self.world.forwarder.packet(device, &mut late.clone(), now);
        assert_eq!(outcome, Outcome::Dropped(DropReason::NoFlow));
    }
}

impl Pair {
    /// Whether explain permits anything to this address, by the protocols and ports of the random
    /// grants.
    fn is_explained(&self, peer: i64, address: IpAddr) -> bool {
        let ways = [
            (GrantProtocol::Icmp, 0),
            (GrantProtocol::Tcp, 22),
            (GrantProtocol::Udp, 21),
            (GrantProtocol::Udp, 22),
        ];
        ways.into_iter().any(|(protocol, port)| {
            let (from, to) = (ExplainSource::Peer(id(peer)), ExplainTarget::Address(address));
            let question = ExplainRequest { from, to, protocol, port, at: self.world.now.wall };
            let explanation = self.world.forwarder.explain(&question, self.world.now);
            matches!(explanation, Explanation::Permitted(_))
        })
    }

    /// Returns how many names a peer has.
    fn compare_names(&self) -> usize {
        let (forwarder, now) = (&self.world.forwarder, self.world.now);
        let mut known = 0;
        for (peer, host) in [1, 2, 3, 11].into_iter().flat_map(|peer| HOSTS.map(|host| (peer, host))) {
            let spec = |moved| target(host, 0, moved);
            let names = [spec(false).name, spec(true).name];
            let found = names.map(|name| forwarder.addresses_of(id(peer), &name, now));
            let addresses = spec(false).addresses;
            let reached = addresses.iter().map(|address| address.reached_at);
            let expected: Vec<IpAddr> = reached.filter(|to| self.is_explained(peer, *to)).collect();
            assert_eq!(found.concat(), expected, "{peer} {host}");
            assert!(found.iter().any(Vec::is_empty), "a renamed host has its new name alone");
            for address in &addresses {
                let name = forwarder.name_of(id(peer), address.reached_at, now);
                assert_eq!(name.is_some(), expected.contains(&address.reached_at), "{peer} {host}");
                let addresses = name.map(|name| forwarder.addresses_of(id(peer), name, now));
                assert!(addresses.is_none_or(|all| all.contains(&address.reached_at)));
            }
            known += usize::from(!expected.is_empty());
        }
        for peer in [1, 3, 5, 11] {
            let aliases = RENTALS.into_iter().flat_map(|rental| target(rental, 0, false).addresses);
            let reached = aliases.map(|address| address.reached_at);
            let expected: Vec<IpAddr> = reached.filter(|to| self.is_explained(peer, *to)).collect();
            let found = forwarder.addresses_of(id(peer), "rented", now);
            assert_eq!(found, expected, "of all rentals with one name {peer} has its own alone");
            for address in found {
                assert_eq!(forwarder.name_of(id(peer), address, now), Some("rented"));
            }
            known += expected.len();
        }
        known
    }
}

fn name(kind: PacketKind, form: Form) -> &'static str {
    match (form, kind) {
        (Form::First(_), PacketKind::Udp | PacketKind::Echo { .. }) => "first fragment",
        (Form::Later(_), PacketKind::Udp | PacketKind::Echo { .. }) => "later fragment",
        (_, PacketKind::Udp) => "udp",
        (_, PacketKind::Echo { .. }) => "echo",
        (_, PacketKind::Tcp(Flag::Syn)) => "syn",
        (_, PacketKind::Tcp(Flag::SynAck)) => "syn-ack",
        (_, PacketKind::Tcp(Flag::Fin)) => "fin",
        (_, PacketKind::Tcp(Flag::GoodReset)) => "reset",
        (_, PacketKind::Tcp(_)) => "segment",
    }
}

/// Both ports of an echo are its identifier.
fn echo_ports(kind: PacketKind, ports: (u16, u16)) -> (u16, u16) {
    if matches!(kind, PacketKind::Echo { .. }) { (7, 7) } else { ports }
}

proptest! {
    #![proptest_config(at_least(1_000))]

    #[test]
    fn a_packet_passes_exactly_if_the_naive_model_says_so(story in story()) {
        let mut pair = Pair::new();
        story.into_iter().for_each(|op| pair.run(op));
    }
}

/// Runs a story, and compares all names after each change of the policy or of the clocks.
fn compare_names(story: Vec<Op>) -> usize {
    let (mut pair, mut known) = (Pair::new(), 0);
    for op in story {
        let is_packet = matches!(op, Op::Out { .. } | Op::Back { .. });
        pair.run(op);
        known += if is_packet { 0 } else { pair.compare_names() };
    }
    known
}

proptest! {
    #[test]
    fn a_peer_knows_the_names_of_exactly_what_explain_permits(story in story()) {
        compare_names(story);
    }
}

#[test]
fn the_random_stories_make_names_known() {
    let mut runner = TestRunner::deterministic();
    let story = |runner: &mut TestRunner| story().new_tree(runner).expect("a story").current();
    let known: usize = (0..100).map(|_| compare_names(story(&mut runner))).sum();
    assert!(known > 1_000, "{known}");
}

#[test]
fn the_random_stories_let_packets_of_every_kind_pass() {
    let mut runner = TestRunner::deterministic();
    let (mut passed, mut dropped) = (BTreeMap::new(), 0);
    for _ in 0..300 {
        let story = story().new_tree(&mut runner).expect("a story").current();
        let mut pair = Pair::new();
        story.into_iter().for_each(|op| pair.run(op));
        pair.passed.into_iter().for_each(|(name, count)| *passed.entry(name).or_insert(0) += count);
        dropped += pair.dropped;
    }
    assert_eq!(passed.len(), 10, "{passed:?}");
    assert!(passed.values().all(|count| *count >= 10) && dropped > 1_000, "{passed:?} and {dropped} dropped");
}
