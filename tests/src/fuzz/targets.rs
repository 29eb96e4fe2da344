//! The parsers that read what a stranger or a device sends, or what a damaged disk gives back. Each returns
//! its outcome as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use fleetgate_engine::dns::{self, Carrier, Dns, Relayed, Suffix};
use fleetgate_engine::forward::{self, Forwarder, Limits};
use fleetgate_engine::history::block::{self, MAX_IN_BLOCK};
use fleetgate_engine::history::{BUCKET, HOUR, Second, SeriesKind, packed};
use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    DnsDecision, Gate, GrantAccess, GrantProtocol, GrantRole, GrantSource, GrantSpec, GrantTarget,
    PolicyChange, SourceOwner, SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::handshake::gate::{FrontDoor, FrontSettings};
use fleetgate_keys::PrivateKey;
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::{packet, perfdata, sensors};

use crate::attacker::{hash, mac};
use crate::blocks;

pub type Target = (&'static str, fn(&[u8]) -> String);

pub const TARGETS: [Target; 6] = [
    ("block", block),
    ("dns", query),
    ("handshake", handshake),
    ("packet", inner_packet),
    ("plugin", plugin),
    ("redo", redo),
];

const INITIATION: usize = 148;
/// The range of an initiation that mac1 covers.
const COVERED: usize = 116;

static GATEWAY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::from_bytes([7; 32]));

/// A query for a name: of a person who reaches one host, of a stranger, and with the reply of a
/// resolver, which anybody can forge.
fn query(input: &[u8]) -> String {
    let suffix = Suffix::parse("fleet.internal").expect("a domain");
    let pools = ("10.112.0.0/14".parse().expect("a pool"), "fd72::/64".parse().expect("a pool"));
    let mut dns = Dns::new(dns::Config { suffix, forwards: true }, pools.0, pools.1);
    let forwarder = one_host();
    let now = Now { mono: Mono::ZERO, wall: Wall::from_millis(1_800_000_000_000) };
    let mut ask = |peer: i64, carrier| match dns.query(&forwarder, Id::from_i64(peer), input, carrier, now) {
        DnsDecision::Answer(answer) => {
            assert!(carrier == Carrier::Tcp || answer.len() <= dns::LARGEST_DATAGRAM);
            assert!(answer[..2] == input[..2], "the answer has the id of the query");
            format!("{:02x}{:02x} {}", answer[2], answer[3], answer[7])
        }
        other => format!("{other:?}"),
    };
    let asked = [ask(1, Carrier::Udp), ask(1, Carrier::Tcp), ask(9, Carrier::Udp)];
    let (head, tail) = input.split_at(input.len() / 2);
    let relayed =
        [dns::relayed(input, input, input, Carrier::Udp), dns::relayed(head, head, tail, Carrier::Udp)];
    let passed = relayed.iter().filter(|relayed| matches!(relayed, Relayed::Reply(_))).count();
    format!("{asked:?} {passed} {}", dns::failure(input, Carrier::Udp).is_some())
}

/// Person 1 reaches the device `cam-07`.
fn one_host() -> Forwarder {
    let gateway = (Ipv4Addr::new(10, 112, 0, 1), Ipv6Addr::new(0xfd72, 0, 0, 0, 0, 0, 0, 1));
    let limits = Limits::default();
    let config = forward::Config { gateway_v4: gateway.0, gateway_v6: gateway.1, limits };
    let mut forwarder = Forwarder::new(config);
    let v4 = |n: u8| IpAddr::from([10, 112, 0, n]);
    let addresses = vec![TargetAddress { reached_at: v4(7), real: v4(7) }];
    let (host, peer, name) = (Id::from_i64(7), Id::from_i64(7), "cam-07".to_owned());
    let changes = [
        PolicyChange::Source(SourceSpec {
            peer: Id::from_i64(1),
            owner: SourceOwner::User { user: Id::from_i64(70), role: Some(GrantRole::Operator) },
            addresses: [v4(9)].into(),
        }),
        PolicyChange::Target(TargetSpec {
            id: TargetId::Host(host),
            host,
            name,
            peer,
            behind: false,
            labels: Default::default(),
            addresses,
        }),
        PolicyChange::Grant(GrantSpec {
            id: Id::from_i64(900),
            source: GrantSource::Role(GrantRole::Operator),
            target: GrantTarget::AllDevices,
            access: vec![GrantAccess { protocol: GrantProtocol::Icmp, ports: Vec::new() }],
            from: None,
            until: None,
            only: None,
            gate: Gate::default(),
        }),
    ];
    changes.into_iter().for_each(|change| forwarder.change(change, Now::default()));
    forwarder
}

/// A datagram at the gate: as it is, and with a mac1 that holds, which strangers can make too.
fn handshake(input: &[u8]) -> String {
    let mut gate = FrontDoor::new(&GATEWAY, [9; 32], FrontSettings::default());
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 51820));
    let now = Now { mono: Mono::ZERO, wall: Wall::from_millis(1_800_000_000_000) };
    let first = gate.judge(input, from, &|_| true, now);
    let mut signed = input.to_vec();
    sign(&mut signed);
    format!("{first:?} {:?}", gate.judge(&signed, from, &|key| key.as_bytes()[0] % 2 == 0, now))
}

fn sign(message: &mut [u8]) {
    if message.len() != INITIATION {
        return;
    }
    let key = hash(&[b"mac1----", GATEWAY.public().as_bytes()]);
    let mac1 = mac(&key, &message[..COVERED]);
    message[COVERED..COVERED + mac1.len()].copy_from_slice(&mac1);
}

/// A packet from a tunnel, and the reply to it.
fn inner_packet(input: &[u8]) -> String {
    match packet::parse(input) {
        Err(bad) => format!("{bad:?}"),
        Ok(parsed) => {
            let reply = packet::answer_to_echo(&parsed);
            let again = reply.as_deref().map(|reply| packet::parse(reply).is_ok());
            assert!(again != Some(false), "the reply is no packet");
            format!("{again:?} {} {parsed:?}", packet::echo(&parsed).is_some())
        }
    }
}

/// The output of a plugin or of the sensor script.
fn plugin(input: &[u8]) -> String {
    let code = input.first().map_or(0, |byte| u32::from(*byte % 6));
    let result = PluginResult::from_run(&Ending::Exit(code), input, &[], false);
    let data = perfdata::parse(&String::from_utf8_lossy(input));
    format!("{:?} {} {:?}", result.status, data.metrics.len(), sensors::parse(input))
}

/// The hour and the key of the blocks of the corpus.
const BLOCK_HOUR: u32 = 492_324;
const BLOCK_START: Second = BLOCK_HOUR as Second * HOUR;
const BLOCK_KEY: i64 = block::key(BLOCK_HOUR, 7);

/// A block of history, with a checksum that holds: what is read is read again from a block that is made of
/// it.
fn block(input: &[u8]) -> String {
    let mut data = input.to_vec();
    blocks::sign(&mut data, BLOCK_KEY);
    let read_raw = |data: &[u8]| block::decode_raw(BLOCK_KEY, BLOCK_START, data);
    let points = read_raw(&data);
    if let Ok(points) = &points {
        let again = read_raw(&block::encode_raw(BLOCK_KEY, BLOCK_START, points, SeriesKind::Counter));
        assert!(points.len() <= MAX_IN_BLOCK && again.is_ok_and(|again| again.len() == points.len()));
    }
    let read_buckets = |data: &[u8]| block::decode_buckets(BLOCK_KEY, BLOCK_START, BUCKET, data);
    let buckets = read_buckets(&data);
    if let Ok(buckets) = &buckets {
        let again = read_buckets(&block::encode_buckets(BLOCK_KEY, BLOCK_START, BUCKET, buckets));
        assert!(buckets.len() <= MAX_IN_BLOCK && again.is_ok_and(|again| again.len() == buckets.len()));
    }
    let gaps = points.as_ref().is_ok_and(|points| points.iter().any(|point| point.value.is_none()));
    let (points, buckets) = (points.map(|points| points.len()), buckets.map(|buckets| buckets.len()));
    format!("{points:?} {gaps} {buckets:?} {:?}", read_raw(input).err())
}

/// A row of the redo, with a checksum that holds: what is read is read again from a row that is made of it.
fn redo(input: &[u8]) -> String {
    let mut data = input.to_vec();
    if let Some((_, samples)) = input.split_first_chunk::<5>() {
        data[1..5].copy_from_slice(&crc32fast::hash(samples).to_le_bytes());
    }
    let samples = packed::read_redo(&data);
    if let Ok(samples) = &samples {
        let again = packed::read_redo(&packed::redo_row(samples, |_| SeriesKind::Counter));
        assert!(again.is_ok_and(|again| again.len() == samples.len()));
    }
    let gaps = samples.as_ref().is_ok_and(|samples| samples.iter().any(|(_, point)| point.value.is_none()));
    format!("{:?} {gaps} {:?}", samples.map(|samples| samples.len()), packed::read_redo(input).err())
}
