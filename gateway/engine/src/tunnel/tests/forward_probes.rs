//! Probes of forwarding: the packets of the gateway in the name of a laptop, and their answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::packet::{echo_request, parse};

use super::world::*;
use crate::id::Id;
use crate::messages::{
    Command, DropReason, ExplainId, ExplainSource, ExplainTarget, Explanation, ForwardProbe,
    ForwardProbeKind, ForwardProbeOutcome, Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource,
    GrantSpec, GrantTarget, PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use crate::tunnel::forward_probes::MAX_FORWARD_PROBES;
use crate::tunnel::icmp_error::host_unreachable;

const TIMEOUT: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);
const GRANT: i64 = 900;
const CAMERA: i64 = 20;
const ECHO: ForwardProbeKind = ForwardProbeKind::Echo;

const fn port(port: u16) -> ForwardProbeKind {
    ForwardProbeKind::Connect { port }
}

/// The alias of the camera behind device 2.
fn alias() -> IpAddr {
    v4(99)
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

/// Peer 3 is Anna's laptop, and may reach ICMP and TCP 22 and 23 of device 2 and of the camera behind it.
/// Port 22 is open.
fn reaching() -> Plain {
    let mut world = connected(2);
    let anna = SourceSpec {
        peer: id(3),
        owner: SourceOwner::User { user: Id::from_i64(70), role: Some(GrantRole::Operator) },
        addresses: [v4(3), v6(3)].into(),
    };
    let grant = |n: i64, host: i64| {
        PolicyChange::Grant(GrantSpec {
            id: Id::from_i64(n),
            source: GrantSource::User(Id::from_i64(70)),
            target: GrantTarget::Host(Id::from_i64(host)),
            access: vec![
                GrantAccess { protocol: GrantProtocol::Icmp, ports: vec![] },
                GrantAccess { protocol: GrantProtocol::Tcp, ports: vec![22..=23] },
            ],
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        })
    };
    world.command(Command::Policy(vec![
        PolicyChange::Source(anna),
        target(2, false, &[(v4(2), v4(2)), (v6(2), v6(2))]),
        target(CAMERA, true, &[(alias(), behind())]),
        grant(GRANT, 2),
        grant(GRANT + 1, CAMERA),
    ]));
    world
}

fn begin(world: &mut Plain, to: ExplainTarget, kind: ForwardProbeKind) {
    let from = ExplainSource::User(Id::from_i64(70));
    let probe = ForwardProbe { from, to, kind, timeout: TIMEOUT };
    world.command(Command::ForwardProbe(ExplainId(1), probe));
}

fn device() -> ExplainTarget {
    ExplainTarget::Host(id(2))
}

fn camera() -> ExplainTarget {
    ExplainTarget::Host(Id::from_i64(CAMERA))
}

/// Probes, and returns the outcome. Nothing of it reaches the laptop or stays.
fn probe(world: &mut Plain, to: ExplainTarget, kind: ForwardProbeKind) -> ForwardProbeOutcome {
    let laptop = world.end(3).device.received;
    begin(world, to, kind);
    world.run(TIMEOUT + SECOND);
    let replies = std::mem::take(&mut world.forward_probes);
    let [(reply, _)] = replies[..] else { panic!("exactly one reply: {replies:?}") };
    assert_eq!(world.end(3).device.received, laptop, "the laptop gets nothing");
    assert_eq!(world.tunnel.forwarding().flows, 0, "no flow stays");
    assert!(world.flows.is_empty(), "it is no traffic of the laptop");
    reply.outcome
}

#[test]
fn an_answer_is_timed_and_comes_back_to_the_gateway_alone() {
    for to in [device(), camera(), ExplainTarget::Address(v6(2))] {
        for kind in [ECHO, port(22)] {
            let mut world = reaching();
            assert_eq!(probe(&mut world, to, kind), ForwardProbeOutcome::Answered(RTT), "{to:?} {kind:?}");
        }
    }
}

#[test]
fn a_connection_that_is_accepted_is_reset_at_once() {
    let mut world = reaching();
    let before = world.end(2).device.received;
    assert!(matches!(probe(&mut world, device(), port(22)), ForwardProbeOutcome::Answered(_)));
    assert_eq!(world.end(2).device.received, before + 2, "a SYN and a reset");
    let reset = parse(&world.end(2).device.last).expect("a packet").payload[13];
    assert_eq!(reset & 0x17, 0x04, "a reset alone");
    assert_eq!(world.dropped(2, DropReason::NoFlow), 0, "the device has nothing more to say");
}

#[test]
fn a_refusal_an_error_and_silence_are_told_apart() {
    let mut world = reaching();
    assert_eq!(probe(&mut world, device(), port(23)), ForwardProbeOutcome::Refused(RTT));
    for kind in [ECHO, port(22)] {
        let mut world = reaching();
        world.end(2).device.answers = false;
        begin(&mut world, camera(), kind);
        world.run(Duration::from_millis(100));
        let packet = world.end(2).device.last.clone();
        world.say(2, &host_unreachable(behind(), &packet));
        world.run(TIMEOUT);
        let [(reply, _)] = world.forward_probes[..] else { panic!("{:?}", world.forward_probes) };
        assert!(
            matches!(reply.outcome, ForwardProbeOutcome::Unreachable(_, "no route to the host")),
            "{reply:?}"
        );
        assert_eq!(world.end(3).device.received, 0, "the laptop gets no error");
    }
    let mut world = reaching();
    world.end(2).device.answers = false;
    let before = world.end(2).device.received;
    assert_eq!(probe(&mut world, device(), port(22)), ForwardProbeOutcome::NoAnswer);
    assert_eq!(world.end(2).device.received, before, "the stack of the device is silent");
}

#[test]
fn what_comes_after_the_end_of_a_probe_reaches_nobody() {
    let mut world = reaching();
    world.end(2).device.answers = false;
    begin(&mut world, device(), ECHO);
    world.run(TIMEOUT + SECOND);
    let request = world.end(2).device.last.clone();
    let late =
        fleetgate_probes::packet::answer_to_echo(&parse(&request).expect("a request")).expect("a reply");
    let before = world.end(3).device.received;
    world.say(2, &late);
    world.run(SECOND);
    assert_eq!(world.dropped(2, DropReason::NoFlow), 1);
    assert_eq!(world.end(3).device.received, before);
}

#[test]
fn a_forged_answer_is_none() {
    let mut world = reaching();
    world.end(2).device.answers = false;
    begin(&mut world, device(), ECHO);
    world.run(Duration::from_millis(100));
    let request = world.end(2).device.last.clone();
    let ident = u16::from_be_bytes([request[24], request[25]]);
    let forged = echo_request(v4(3), v4(2), ident, 1, &[0; 16]).expect("one family");
    let forged =
        fleetgate_probes::packet::answer_to_echo(&parse(&forged).expect("a request")).expect("a reply");
    world.say(2, &forged);
    world.run(TIMEOUT);
    let [(reply, _)] = world.forward_probes[..] else { panic!("{:?}", world.forward_probes) };
    assert_eq!(reply.outcome, ForwardProbeOutcome::NoAnswer);
    assert_eq!(world.end(3).device.received, 0);
}

#[test]
fn nothing_is_sent_without_a_permission() {
    let mut world = reaching();
    let before = world.end(2).device.received;
    for (to, kind) in [(device(), port(80)), (ExplainTarget::Host(id(77)), ECHO)] {
        assert_eq!(probe(&mut world, to, kind), ForwardProbeOutcome::Denied);
    }
    assert_eq!(world.end(2).device.received, before);
}

#[test]
fn a_device_without_a_session_is_dialled_or_said_to_have_none() {
    let mut world = reaching();
    world.end(2).off = true;
    world.run(Duration::from_secs(400));
    assert_eq!(probe(&mut world, device(), ECHO), ForwardProbeOutcome::NoTunnel);
    world.run(Duration::from_secs(400));
    world.end(2).off = false;
    assert_eq!(probe(&mut world, device(), ECHO), ForwardProbeOutcome::Answered(RTT));
}

#[test]
fn a_probe_ends_with_its_grant() {
    let mut world = reaching();
    world.end(2).device.answers = false;
    begin(&mut world, device(), port(22));
    world.run(Duration::from_millis(500));
    world.command(Command::Policy(vec![PolicyChange::WithdrawGrant(Id::from_i64(GRANT))]));
    world.run(SECOND);
    let [(reply, _)] = world.forward_probes[..] else { panic!("{:?}", world.forward_probes) };
    assert!(matches!(reply.outcome, ForwardProbeOutcome::Dropped(_)), "{reply:?}");
    assert!(matches!(reply.explanation, Explanation::Permitted(_)), "as it was when it was asked");
    assert_eq!(world.end(3).device.received, 0, "the laptop gets no reset");
    assert!(world.flows.is_empty());
}

#[test]
fn probes_in_flight_are_bounded_and_end_with_the_gateway() {
    let mut world = reaching();
    world.end(2).device.answers = false;
    for _ in 0..=MAX_FORWARD_PROBES {
        begin(&mut world, device(), ECHO);
    }
    let busy = |world: &Plain| {
        let busy = |outcome| outcome == ForwardProbeOutcome::Busy;
        world.forward_probes.iter().filter(|(reply, _)| busy(reply.outcome)).count()
    };
    assert_eq!((world.forward_probes.len(), busy(&world)), (1, 1));
    world.command(Command::Quiesce);
    assert_eq!(busy(&world), MAX_FORWARD_PROBES + 1);
    begin(&mut world, device(), ECHO);
    assert_eq!(busy(&world), MAX_FORWARD_PROBES + 2);
}
