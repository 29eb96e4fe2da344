//! Random policies, clocks and packets, as steps of a story.

use std::net::IpAddr;

use proptest::prelude::*;

use super::model::*;
use super::packets::*;
use super::world::*;
use crate::messages::{
    Gate, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget, PolicyChange, TargetId, TargetSpec,
};
use crate::time::Wall;

/// How a packet is sent.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Whole,
    First(u16),
    Later(u16),
    /// With IPv4 options or an extension header.
    Hidden,
    /// An error that quotes it, as its receiver.
    Quoted {
        astray: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Op {
    Out {
        peer: i64,
        family: usize,
        host: usize,
        kind: PacketKind,
        ports: (u16, u16),
        form: Form,
    },
    Back {
        device: i64,
        behind: bool,
        family: usize,
        to: i64,
        kind: PacketKind,
        ports: (u16, u16),
        form: Form,
    },
    Grant {
        id: i64,
        source: u8,
        target: u8,
        access: u8,
        from: Option<i64>,
        until: Option<i64>,
    },
    /// A rental of its customer. `only`: 3, or 3 and 4.
    Rent {
        rental: usize,
        access: u8,
        from: Option<i64>,
        until: Option<i64>,
        only: u8,
        gate: RandomGate,
    },
    /// The device of a rental, or the one after a swap, is handed over.
    HandOver {
        rental: usize,
        moved: bool,
    },
    Withdraw(i64),
    Source {
        present: bool,
        admin: bool,
    },
    Renter {
        present: bool,
        customer: i64,
    },
    Target {
        host: i64,
        present: bool,
        label: u8,
        moved: bool,
    },
    Advance(u64),
    SetClock(i64),
    Floor(i64),
    Accept,
    Restart,
}

/// Whether a rental awaits its handover, and when its device is blocked.
pub type RandomGate = (bool, Option<(i64, i64)>);

pub const HOSTS: [i64; 5] = [11, 12, 21, 22, 31];
/// All of device 11, or of device 12 after a swap, and under one name. The first two are of customer 51.
pub const RENTALS: [i64; 3] = [41, 42, 43];
const CUSTOMERS: [i64; 3] = [51, 51, 52];
/// Hosts, then rentals.
pub const TARGETS: [i64; 8] = [11, 12, 21, 22, 31, 41, 42, 43];

pub fn address_of(source: i64, family: usize) -> IpAddr {
    match source {
        1 => ip_of(OPERATOR[family]),
        2 => ip_of(VIEWER[family]),
        n => ip_of(&renter_at(n)[family]),
    }
}

/// Renter 3 and 4 of customer 51, and renter 5 of customer 52.
pub fn renters() -> [PolicyChange; 3] {
    [(3, 51), (4, 51), (5, 52)].map(|(n, customer)| PolicyChange::Source(renter(n, customer)))
}

pub fn reached_at(host: i64, family: usize) -> IpAddr {
    let address = target(host, 0, false).addresses[family];
    address.reached_at
}

/// A target as it is in the beginning, or with another label, or moved. Host 31 has the same real
/// address as host 21, behind the same device.
pub fn target(host: i64, label: u8, moved: bool) -> TargetSpec {
    if RENTALS.contains(&host) {
        return rental(host, if moved { 12 } else { 11 });
    }
    let mut spec = if host < 20 { device(host) } else { behind(host.min(22)) };
    if host == 31 {
        (spec.id, spec.host) = (TargetId::Host(id(31)), id(31));
        (spec.peer, spec.name) = (id(11), "host-31".to_owned());
        spec.addresses[0].reached_at = ip_of("10.2.0.31");
        spec.addresses[1].reached_at = ip_of("fd00:2::31");
    }
    spec.labels.insert("rack".to_owned(), label.to_string());
    if moved {
        spec.name.push_str("-moved");
    }
    if moved && spec.behind {
        spec.peer = id(12);
        spec.addresses[0].real = ip_of("192.168.1.6");
    }
    spec
}

fn kind() -> impl Strategy<Value = PacketKind> {
    prop_oneof![
        4 => prop::sample::select(vec![Flag::Syn, Flag::SynAck, Flag::Ack, Flag::Fin, Flag::GoodReset, Flag::BadReset])
            .prop_map(PacketKind::Tcp),
        2 => Just(PacketKind::Udp),
        1 => any::<bool>().prop_map(|request| PacketKind::Echo { request }),
    ]
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![
        8 => Just(Form::Whole),
        1 => (0u16..3).prop_map(Form::First),
        2 => (0u16..3).prop_map(Form::Later),
        1 => Just(Form::Hidden),
        2 => prop::bool::weighted(0.2).prop_map(|astray| Form::Quoted { astray }),
    ]
}

fn packet_op() -> impl Strategy<Value = Op> {
    // Most packets go where they may go.
    let ends = prop_oneof![
        12 => (1i64..3, 0usize..5),
        6 => (3i64..6, 5usize..8),
        1 => (1i64..6, 0usize..8),
    ];
    let out = (ends, 0usize..2, kind(), (1u16..3, 21u16..24), form()).prop_map(
        |((peer, host), family, kind, ports, form)| Op::Out { peer, family, host, kind, ports, form },
    );
    let to = prop_oneof![2 => 1i64..3, 1 => 3i64..6];
    let back = (11i64..13, any::<bool>(), 0usize..2, to, kind(), (21u16..24, 1u16..3), form()).prop_map(
        |(device, behind, family, to, kind, ports, form)| Op::Back {
            device,
            behind,
            family,
            to,
            kind,
            ports,
            form,
        },
    );
    prop_oneof![out, back]
}

fn op() -> impl Strategy<Value = Op> {
    let edge = || prop::option::weighted(0.6, -200i64..600);
    let grant = (1i64..5, 0u8..5, 0u8..9, 0u8..4, edge(), edge()).prop_map(
        |(id, source, target, access, from, until)| Op::Grant { id, source, target, access, from, until },
    );
    let block = (-100i64..200, 1i64..200).prop_map(|(from, length)| (from, from + length));
    let gate = (prop::bool::weighted(0.3), prop::option::weighted(0.3, block));
    let rent = (0usize..3, 0u8..4, edge(), edge(), 0u8..4, gate).prop_map(
        |(rental, access, from, until, only, gate)| Op::Rent { rental, access, from, until, only, gate },
    );
    let handed_over = (0usize..3, prop::bool::weighted(0.2));
    let withdrawn = prop::sample::select(vec![1i64, 2, 3, 4, 41, 42, 43]);
    let renter = (prop::bool::weighted(0.8), 51i64..53);
    let host = prop::sample::select(TARGETS.to_vec());
    let target = (host, prop::bool::weighted(0.8), 0u8..2, prop::bool::weighted(0.2))
        .prop_map(|(host, present, label, moved)| Op::Target { host, present, label, moved });
    prop_oneof![
        24 => packet_op(),
        6 => grant,
        4 => rent,
        2 => handed_over.prop_map(|(rental, moved)| Op::HandOver { rental, moved }),
        1 => withdrawn.prop_map(Op::Withdraw),
        1 => renter.prop_map(|(present, customer)| Op::Renter { present, customer }),
        1 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(present, admin)| Op::Source { present, admin }),
        1 => target,
        4 => (0u64..100).prop_map(Op::Advance),
        1 => (0u64..9_000).prop_map(Op::Advance),
        1 => Just(Op::Advance(300)),
        1 => (-900i64..900).prop_map(Op::SetClock),
        1 => Just(Op::SetClock(1)),
        1 => (-300i64..300).prop_map(Op::Floor),
        1 => Just(Op::Accept),
        1 => Just(Op::Restart),
    ]
}

/// A source, a target that it may reach, and where the answers come from.
fn ends() -> impl Strategy<Value = (i64, usize, i64, bool)> {
    prop::sample::select(vec![
        (1, 0, 11, false),
        (1, 2, 11, true),
        (1, 1, 12, false),
        (3, 5, 11, false),
        (3, 6, 11, false),
    ])
}

/// Packets of one conversation, so that long sequences of right segments occur.
fn conversation() -> impl Strategy<Value = Vec<Op>> {
    (0usize..2, ends(), 1u16..3, prop::collection::vec((any::<bool>(), kind()), 0..6)).prop_map(
        |(family, (peer, host, device, behind), port, more)| {
            let first = [(false, Flag::Syn), (true, Flag::SynAck), (false, Flag::Ack)];
            let first = first.map(|(back, flag)| (back, PacketKind::Tcp(flag)));
            let packet = |(back, kind): (bool, PacketKind)| match back {
                false => Op::Out { peer, family, host, kind, ports: (port, 22), form: Form::Whole },
                true => {
                    Op::Back { device, behind, family, to: peer, kind, ports: (22, port), form: Form::Whole }
                }
            };
            first.into_iter().chain(more).map(packet).collect()
        },
    )
}

/// A UDP flow with fragments and errors in both directions.
fn exchange() -> impl Strategy<Value = Vec<Op>> {
    let forms = vec![
        Form::Whole,
        Form::First(1),
        Form::Later(1),
        Form::First(2),
        Form::Later(2),
        Form::Quoted { astray: false },
    ];
    let more = prop::collection::vec((any::<bool>(), prop::sample::select(forms)), 1..10);
    (0usize..2, ends(), 1u16..3, more).prop_map(|(family, (peer, host, device, behind), port, more)| {
        let packet = |(back, form): (bool, Form)| match back {
            false => Op::Out { peer, family, host, kind: PacketKind::Udp, ports: (port, 22), form },
            true => {
                Op::Back { device, behind, family, to: peer, kind: PacketKind::Udp, ports: (22, port), form }
            }
        };
        std::iter::once((false, Form::Whole)).chain(more).map(packet).collect()
    })
}

/// Two rentals of one customer and device, the second of which begins when the first one ends.
fn back_to_back() -> impl Strategy<Value = Vec<Op>> {
    (0i64..300, 1i64..600).prop_map(|(turn, lasts)| {
        let rent =
            |rental, from, until| Op::Rent { rental, access: 2, from, until, only: 0, gate: (false, None) };
        vec![rent(0, Some(-100), Some(turn)), rent(1, Some(turn), Some(turn + lasts))]
    })
}

/// Most stories begin with a grant and with rentals, so that most policies permit something.
pub fn story() -> impl Strategy<Value = Vec<Op>> {
    let part = prop_oneof![
        6 => op().prop_map(|op| vec![op]),
        1 => conversation(),
        1 => exchange(),
    ];
    let until = prop::option::of(0i64..2_000);
    let all = until.prop_map(|until| Op::Grant { id: 9, source: 3, target: 0, access: 2, from: None, until });
    let begin = prop::option::weighted(0.7, all);
    let rentals = prop::option::weighted(0.5, back_to_back()).prop_map(Option::unwrap_or_default);
    (begin, rentals, prop::collection::vec(part, 1..100))
        .prop_map(|(begin, rentals, parts)| begin.into_iter().chain(rentals).chain(parts.concat()).collect())
}

pub fn random_grant(
    n: i64,
    source: u8,
    target: u8,
    access_kind: u8,
    from: Option<Wall>,
    until: Option<Wall>,
) -> GrantSpec {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let spec = grant(
        n,
        match target {
            0 | 1 => GrantTarget::AllDevices,
            2 => GrantTarget::Labels([label("site", "s11")].into()),
            3 => GrantTarget::Labels([label("rack", "0"), label("site", "s12")].into()),
            4 => GrantTarget::Labels(Default::default()),
            8 => GrantTarget::Rental(id(41)),
            host => GrantTarget::Host(id([21, 31, 11][usize::from(host) - 5])),
        },
    );
    let source = match source {
        0 => GrantSource::Peer(id(1)),
        1 => GrantSource::User(id(102)),
        2 => GrantSource::Role(GrantRole::Operator),
        4 => GrantSource::Customer(id(51)),
        _ => GrantSource::User(id(101)),
    };
    GrantSpec { source, from, until, ..with_access(spec, access_kind) }
}

pub fn random_rental(
    rental: usize,
    access_kind: u8,
    from: Option<Wall>,
    until: Option<Wall>,
    only: u8,
    gate: Gate,
) -> GrantSpec {
    let spec = rental_grant(RENTALS[rental], CUSTOMERS[rental], from, until);
    let only = match only {
        0 | 1 => None,
        2 => Some([id(3)].into()),
        _ => Some([id(3), id(4)].into()),
    };
    GrantSpec { only, gate, ..with_access(spec, access_kind) }
}

fn with_access(spec: GrantSpec, kind: u8) -> GrantSpec {
    let access = match kind {
        0 => vec![access(GrantProtocol::Tcp, 22..=22), access(GrantProtocol::Icmp, 0..=0)],
        1 => vec![access(GrantProtocol::Udp, 21..=22)],
        _ => return spec,
    };
    GrantSpec { access, ..spec }
}
