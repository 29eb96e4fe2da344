//! Damaged and hostile bytes: nothing panics, and nothing passes but what the one grant permits.

use proptest::prelude::*;

use super::packets::*;
use super::world::*;
use crate::forward::Outcome;
use crate::forward::headers::{ACK, Fragment, Ip, SYN, Transport, bits};
use crate::messages::{GrantProtocol, GrantSpec, GrantTarget, PolicyChange};

/// Operator 1 reaches TCP 22 of device 11, and has a connection to it.
fn narrow_world() -> World {
    let mut world = world();
    let access = vec![access(GrantProtocol::Tcp, 22..=22)];
    world.change(PolicyChange::Grant(GrantSpec { access, ..grant(1, GrantTarget::Host(id(11))) }));
    for family in 0..2 {
        world.connect(40_000, family, &DEVICE, &DEVICE, 11);
    }
    world
}

fn templates() -> Vec<(i64, Vec<u8>)> {
    let mut out = Vec::new();
    for family in 0..2 {
        let (src, dst) = (OPERATOR[family], DEVICE[family]);
        let there = tcp(src, dst, 40_000, 22, ACK, 1_000, 5_000, &[1; 40]);
        let back = tcp(dst, src, 22, 40_000, ACK, 5_000, 1_000, &[1; 40]);
        out.push((1, tcp_with_options(src, dst, 40_001, 22, SYN, &[2, 4, 5, 0xb4])));
        out.extend(fragments(&there, 40, 7).map(|part| (1, part)));
        out.push((11, icmp_error(dst, src, &there)));
        out.push((1, icmp_error(src, dst, &back)));
        out.push((1, echo(src, dst, true, 7)));
        out.push((1, udp(src, dst, 40_000, 22, b"data")));
        out.push((1, if family == 0 { with_options(&there) } else { with_extension(&there, 43) }));
        out.extend([(1, there), (11, back)]);
    }
    out
}

/// Each packet that comes out lies within the grant.
fn is_permitted(from: i64, to: i64, packet: &[u8]) -> bool {
    let ip = Ip::parse(packet).expect("what is forwarded is whole");
    let ends = [OPERATOR, DEVICE].map(|addresses| addresses.map(|address| bits(ip_of(address))));
    let (source, device) = if from == 1 { (ip.src, ip.dst) } else { (ip.dst, ip.src) };
    let between = ends[0].contains(&source) && ends[1].contains(&device) && (from, to) != (1, 1);
    let port = match (ip.fragment, Transport::parse(&ip, packet)) {
        (Fragment::Later { .. }, _) | (_, Ok(Transport::IcmpError)) => return between,
        (_, Ok(Transport::Tcp(segment))) if from == 1 => segment.dst_port,
        (_, Ok(Transport::Tcp(segment))) => segment.src_port,
        _ => return false,
    };
    between && port == 22
}

proptest! {
    #![proptest_config(at_least(400))]

    #[test]
    fn damaged_packets_pass_only_within_the_grant(
        packets in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
             any::<bool>(), prop::option::weighted(0.1, any::<prop::sample::Index>())),
            1..60,
        ),
    ) {
        let mut world = narrow_world();
        let templates = templates();
        for (which, changes, mends, cut) in packets {
            let (from, mut bytes) = which.get(&templates).clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if mends && bytes.len() >= 20 && bytes[0] >> 4 == 4 {
                fix_v4(&mut bytes);
            }
            // The routes have verified the source; the forwarder is given foreign ones all the same.
            let outcome = world.forwarder.packet(id(from), &mut bytes, world.now);
            if let Outcome::Forward { to, len } = outcome {
                prop_assert!(is_permitted(from, to.as_i64(), &bytes[..len]), "{from} {to:?} {bytes:?}");
            }
            world.work();
        }
    }

    #[test]
    fn random_bytes_never_pass_without_a_grant(
        bytes in prop::collection::vec(any::<u8>(), 0..150), six: bool, fit: bool,
        from in prop::sample::select(vec![1i64, 2, 11, 12, 99]),
    ) {
        let mut world = world();
        let mut bytes = bytes;
        if fit && bytes.len() >= 40 {
            bytes[0] = if six { 0x60 } else { 0x45 };
            let length = bytes.len() as u16 - if six { 40 } else { 0 };
            bytes[if six { 4..6 } else { 2..4 }].copy_from_slice(&length.to_be_bytes());
            if !six {
                bytes[6] &= 0x7f;
                fix_v4(&mut bytes);
            }
        }
        let outcome = world.forwarder.packet(id(from), &mut bytes, world.now);
        let forwarded = matches!(outcome, Outcome::Forward { .. });
        prop_assert!(!forwarded);
        world.work();
    }
}
