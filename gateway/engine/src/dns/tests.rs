//! Each asker learns the right answer, byte for byte where secrets are at stake.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::base::iana::{Opcode, Rcode};
use domain::base::{Message, MessageBuilder, ParsedName, Rtype, Ttl};
use domain::rdata::AllRecordData;
use proptest::prelude::*;

use super::message::DomainName;
use super::*;
use crate::forward::{self, Limits};
use crate::id::Id;
use crate::messages::{
    Gate, GrantAccess, GrantProtocol, GrantSource, GrantSpec, GrantTarget, PolicyChange, SourceOwner,
    SourceSpec, TargetAddress, TargetId, TargetSpec,
};
use crate::time::{Mono, Wall};

const ANNA: i64 = 1;
const DEVICE: i64 = 7;

fn id(n: i64) -> Id {
    Id::from_i64(n)
}

fn now() -> Now {
    Now { mono: Mono::from_secs(100), wall: Wall::from_millis(1_800_000_000_000) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn target(host: i64, name: &str, behind: bool, addresses: &[(&str, &str)]) -> PolicyChange {
    let addresses =
        addresses.iter().map(|(at, real)| TargetAddress { reached_at: ip(at), real: ip(real) }).collect();
    let (name, labels) = (name.to_owned(), BTreeMap::new());
    let (host, peer) = (id(host), id(DEVICE));
    let id = TargetId::Host(host);
    PolicyChange::Target(TargetSpec { id, host, name, peer, behind, labels, addresses })
}

fn grant(host: i64) -> PolicyChange {
    PolicyChange::Grant(GrantSpec {
        id: id(900 + host),
        source: GrantSource::Peer(id(ANNA)),
        target: GrantTarget::Host(id(host)),
        access: vec![GrantAccess { protocol: GrantProtocol::Udp, ports: vec![9..=9] }],
        from: None,
        until: None,
        only: None,
        gate: Gate::default(),
    })
}

/// Anna reaches the device `cam-07` and the recorder behind it, and not the device `cam-08`.
fn forwarder() -> Forwarder {
    let mut forwarder = Forwarder::new(forward::Config {
        gateway_v4: "10.112.0.1".parse().expect("an address"),
        gateway_v6: "fd72::1".parse().expect("an address"),
        limits: Limits::default(),
    });
    let addresses = [ip("10.112.0.9"), ip("fd72::9")].into();
    let changes = [
        PolicyChange::Source(SourceSpec {
            peer: id(ANNA),
            owner: SourceOwner::User { user: id(70), role: None },
            addresses,
        }),
        target(7, "cam-07", false, &[("10.112.0.7", "10.112.0.7"), ("fd72::7", "fd72::7")]),
        target(8, "cam-08", false, &[("10.112.0.8", "10.112.0.8"), ("fd72::8", "fd72::8")]),
        target(20, "nvr.north", true, &[("10.112.0.20", "192.168.1.5")]),
        target(21, "odd..name", false, &[("10.112.0.21", "10.112.0.21")]),
        target(22, "cam.south", false, &[("10.112.0.22", "10.112.0.22")]),
        grant(7),
        grant(20),
        grant(21),
    ];
    changes.into_iter().for_each(|change| forwarder.change(change, now()));
    forwarder
}

fn dns(forwards: bool) -> Dns {
    let suffix = Suffix::parse("fleet.internal").expect("a domain");
    let pools = ("10.112.0.0/14".parse().expect("a pool"), "fd72::/64".parse().expect("a pool"));
    Dns::new(Config { suffix, forwards }, pools.0, pools.1)
}

/// Builds a query with id 77 and RD. `edns`: the size and the version that it names.
fn query(name: &str, rtype: Rtype, edns: Option<(u16, u8)>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(77);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name.parse::<DomainName>().expect("a name"), rtype)).expect("room");
    let mut builder = builder.additional();
    if let Some((size, version)) = edns {
        let set = builder.opt(|opt| {
            opt.set_udp_payload_size(size);
            opt.set_version(version);
            Ok(())
        });
        set.expect("room");
    }
    builder.finish()
}

fn decide(peer: i64, query: &[u8], carrier: Carrier) -> DnsDecision {
    dns(false).query(&forwarder(), id(peer), query, carrier, now())
}

fn answer(peer: i64, query: &[u8]) -> Vec<u8> {
    match decide(peer, query, Carrier::Udp) {
        DnsDecision::Answer(bytes) => bytes,
        other => panic!("an answer is expected, not {other:?}"),
    }
}

/// The parts of an answer: its code, its data, and the domain that an absence is remembered by.
#[derive(Debug, PartialEq)]
struct Seen {
    rcode: Rcode,
    data: Vec<String>,
    apex: Option<String>,
}

fn text(data: AllRecordData<&[u8], ParsedName<&[u8]>>) -> String {
    match data {
        AllRecordData::A(a) => a.addr().to_string(),
        AllRecordData::Aaaa(aaaa) => aaaa.addr().to_string(),
        AllRecordData::Ptr(ptr) => ptr.ptrdname().to_string(),
        AllRecordData::Soa(soa) => format!("soa {}", soa.mname()),
        _ => panic!("another record"),
    }
}

fn read(bytes: &[u8]) -> Seen {
    read_with(TTL, bytes)
}

/// Reads an answer whose records are to be remembered for so long.
fn read_with(ttl: u32, bytes: &[u8]) -> Seen {
    let message = Message::from_octets(bytes).expect("a message");
    assert!(message.header().qr() && message.header().id() == 77);
    let answers = message.answer().expect("answers").limit_to::<AllRecordData<_, _>>();
    let data = answers.map(|record| {
        let record = record.expect("a record");
        assert_eq!(record.ttl(), Ttl::from_secs(ttl));
        text(record.into_data())
    });
    let data = data.collect();
    let authority = message.authority().expect("authority").limit_to::<AllRecordData<_, _>>();
    let mut apex = authority.map(|record| {
        let record = record.expect("a record");
        assert_eq!(record.ttl(), Ttl::from_secs(ttl));
        record.owner().to_string()
    });
    let apex = apex.next();
    Seen { rcode: message.header().rcode(), data, apex }
}

fn ask(peer: i64, name: &str, rtype: Rtype) -> Seen {
    read(&answer(peer, &query(name, rtype, None)))
}

fn found(data: &[&str]) -> Seen {
    Seen { rcode: Rcode::NOERROR, data: data.iter().map(ToString::to_string).collect(), apex: None }
}

fn absent(rcode: Rcode, apex: &str) -> Seen {
    Seen { rcode, data: Vec::new(), apex: Some(apex.to_owned()) }
}

fn refused() -> Seen {
    Seen { rcode: Rcode::REFUSED, data: Vec::new(), apex: None }
}

#[test]
fn a_granted_host_has_its_addresses_of_each_family() {
    assert_eq!(ask(ANNA, "cam-07.fleet.internal", Rtype::A), found(&["10.112.0.7"]));
    assert_eq!(ask(ANNA, "CAM-07.Fleet.INTERNAL", Rtype::AAAA), found(&["fd72::7"]));
    assert_eq!(ask(ANNA, "cam-07.fleet.internal", Rtype::ANY), found(&["10.112.0.7", "fd72::7"]));
    assert_eq!(ask(ANNA, "nvr.north.fleet.internal", Rtype::A), found(&["10.112.0.20"]), "its alias");
    let no_data = absent(Rcode::NOERROR, "fleet.internal");
    assert_eq!(ask(ANNA, "nvr.north.fleet.internal", Rtype::AAAA), no_data);
    assert_eq!(ask(ANNA, "cam-07.fleet.internal", Rtype::MX), no_data);
    assert_eq!(ask(ANNA, "fleet.internal", Rtype::A), no_data);
    assert_eq!(ask(ANNA, "fleet.internal", Rtype::SOA), found(&["soa fleet.internal"]));
}

#[test]
fn a_host_that_is_not_granted_is_answered_like_one_that_does_not_exist() {
    for rtype in [Rtype::A, Rtype::AAAA, Rtype::ANY, Rtype::TXT] {
        let both = ["cam-08", "cam-99"].map(|name| {
            let asked = query(&format!("{name}.fleet.internal"), rtype, Some((1_232, 0)));
            String::from_utf8_lossy(&answer(ANNA, &asked)).replace(name, "cam")
        });
        assert_eq!(both[0], both[1]);
        assert_eq!(ask(ANNA, "cam-08.fleet.internal", rtype), absent(Rcode::NXDOMAIN, "fleet.internal"));
    }
    let both = [8, 99].map(|n| ask(ANNA, &format!("{n}.0.112.10.in-addr.arpa"), Rtype::PTR));
    assert_eq!(both[0], both[1]);
    for below in ["a.cam-07.fleet.internal", "orth.fleet.internal", "cam-07.cam-07.fleet.internal"] {
        assert_eq!(ask(ANNA, below, Rtype::A).rcode, Rcode::NXDOMAIN, "{below}");
    }
}

#[test]
fn a_name_above_a_granted_host_exists_without_data() {
    let (no_data, unknown) =
        (absent(Rcode::NOERROR, "fleet.internal"), absent(Rcode::NXDOMAIN, "fleet.internal"));
    for rtype in [Rtype::A, Rtype::AAAA, Rtype::ANY] {
        assert_eq!(ask(ANNA, "north.fleet.internal", rtype), no_data);
        assert_eq!(ask(ANNA, "NORTH.fleet.internal", rtype), no_data);
        assert_eq!(ask(ANNA, "south.fleet.internal", rtype), unknown, "its host is not granted");
        assert_eq!(ask(ANNA, "name.fleet.internal", rtype), unknown, "its host has no name in DNS");
        assert_eq!(ask(ANNA, "x.north.fleet.internal", rtype), unknown);
    }
    let (mut forwarder, mut dns) = (forwarder(), dns(false));
    forwarder.change(PolicyChange::WithdrawGrant(id(920)), now());
    let asked = query("north.fleet.internal", Rtype::A, None);
    let DnsDecision::Answer(bytes) = dns.query(&forwarder, id(ANNA), &asked, Carrier::Udp, now()) else {
        panic!("an answer")
    };
    assert_eq!(read(&bytes), unknown);
}

#[test]
fn addresses_of_the_pools_have_the_names_of_granted_hosts() {
    let v6 = |n: u8| format!("{n}.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.7.d.f.ip6.arpa");
    let (zone_v4, zone_v6) = ("112.10.in-addr.arpa", "0.0.0.0.0.0.0.0.0.0.0.0.2.7.d.f.ip6.arpa");
    assert_eq!(ask(ANNA, "7.0.112.10.in-addr.arpa", Rtype::PTR), found(&["cam-07.fleet.internal"]));
    assert_eq!(ask(ANNA, &v6(7), Rtype::PTR), found(&["cam-07.fleet.internal"]));
    assert_eq!(ask(ANNA, "20.0.112.10.in-addr.arpa", Rtype::PTR), found(&["nvr.north.fleet.internal"]));
    assert_eq!(ask(ANNA, &v6(8), Rtype::PTR), absent(Rcode::NXDOMAIN, zone_v6));
    // Not even its name can be written.
    for missing in ["1.0.112.10", "9.0.112.10", "21.0.112.10", "x.7.0.112.10", "256.0.112.10", "07.0.112.10"]
    {
        let seen = ask(ANNA, &format!("{missing}.in-addr.arpa"), Rtype::PTR);
        assert_eq!(seen, absent(Rcode::NXDOMAIN, zone_v4), "{missing}");
    }
    for part in ["0.112.10", "112.10", "77.113.10"] {
        let seen = ask(ANNA, &format!("{part}.in-addr.arpa"), Rtype::PTR);
        assert_eq!((seen.rcode, seen.data.len()), (Rcode::NOERROR, 0), "{part}");
    }
    for other in ["10.in-addr.arpa", "1.1.168.192.in-addr.arpa", "f.ip6.arpa", "in-addr.arpa"] {
        assert_eq!(ask(ANNA, other, Rtype::PTR), refused(), "{other}");
    }
}

#[test]
fn other_names_and_other_askers_are_refused() {
    for name in ["example.net", "internal", "xfleet.internal", "cam-07.fleet.internal.example.net", "."] {
        assert_eq!(ask(ANNA, name, Rtype::A), refused(), "{name}");
    }
    assert_eq!(ask(ANNA, "fleet.internal", Rtype::AXFR), refused());
    for stranger in [DEVICE, 99] {
        for name in ["cam-07.fleet.internal", "cam-99.fleet.internal", "example.net", "fleet.internal"] {
            assert_eq!(ask(stranger, name, Rtype::A), refused(), "{name}");
        }
    }
}

#[test]
fn a_withdrawn_grant_takes_the_name_away_at_once() {
    let (mut forwarder, mut dns) = (forwarder(), dns(false));
    let asked = query("cam-07.fleet.internal", Rtype::A, None);
    forwarder.change(PolicyChange::WithdrawGrant(id(907)), now());
    let DnsDecision::Answer(bytes) = dns.query(&forwarder, id(ANNA), &asked, Carrier::Udp, now()) else {
        panic!("an answer")
    };
    assert_eq!(read(&bytes), absent(Rcode::NXDOMAIN, "fleet.internal"));
}

const RENTERS: [i64; 3] = [2, 3, 4];

/// Two customers, each with a rental called `camera`: of `cam-07` for the renter 2 of customer 50, and of `cam-08`
/// for the renter 3 of customer 51. Renter 4 is of customer 50 too, but not among those of the rental.
fn forwarder_with_rentals() -> Forwarder {
    let mut forwarder = forwarder();
    for (peer, customer) in RENTERS.into_iter().zip([50, 51, 50]) {
        let owner = SourceOwner::Person { person: id(60 + peer), customer: id(customer) };
        let addresses = [ip(&format!("10.112.0.3{peer}")), ip(&format!("fd72::3{peer}"))].into();
        forwarder.change(PolicyChange::Source(SourceSpec { peer: id(peer), owner, addresses }), now());
    }
    for (n, customer, device) in [(1, 50, 7), (2, 51, 8)] {
        let rental = id(40 + n);
        let ends = [
            (format!("10.112.1.{n}"), format!("10.112.0.{device}")),
            (format!("fd72::10{n}"), format!("fd72::{device}")),
        ];
        let address =
            |(alias, own): (String, String)| TargetAddress { reached_at: ip(&alias), real: ip(&own) };
        let target = TargetSpec {
            id: TargetId::Rental(rental),
            host: id(device),
            name: "camera".to_owned(),
            peer: id(DEVICE),
            behind: false,
            labels: BTreeMap::new(),
            addresses: ends.map(address).into(),
        };
        forwarder.change(PolicyChange::Target(target), now());
        let PolicyChange::Grant(any) = grant(7) else { panic!("a grant") };
        let (source, target) = (GrantSource::Customer(id(customer)), GrantTarget::Rental(rental));
        let only = Some([id(2), id(3)].into());
        forwarder.change(PolicyChange::Grant(GrantSpec { id: rental, source, target, only, ..any }), now());
    }
    forwarder
}

fn ask_about_rentals(peer: i64, name: &str, rtype: Rtype) -> Seen {
    let ttl = if RENTERS.contains(&peer) { 5 } else { TTL };
    let asked = query(name, rtype, None);
    let decision = dns(false).query(&forwarder_with_rentals(), id(peer), &asked, Carrier::Udp, now());
    let DnsDecision::Answer(bytes) = decision else { panic!("an answer") };
    read_with(ttl, &bytes)
}

#[test]
fn renters_of_two_customers_find_their_own_rental_by_one_name() {
    let name = "camera.fleet.internal";
    for (renter, addresses) in [(2, ["10.112.1.1", "fd72::101"]), (3, ["10.112.1.2", "fd72::102"])] {
        assert_eq!(ask_about_rentals(renter, name, Rtype::A), found(&addresses[..1]));
        assert_eq!(ask_about_rentals(renter, name, Rtype::ANY), found(&addresses));
    }
    let unknown = absent(Rcode::NXDOMAIN, "fleet.internal");
    assert_eq!(ask_about_rentals(4, name, Rtype::A), unknown, "it is not among the renters of the rental");
    let reverse = |renter| ask_about_rentals(renter, "1.1.112.10.in-addr.arpa", Rtype::PTR);
    assert_eq!(reverse(2), found(&["camera.fleet.internal"]));
    assert_eq!(reverse(3), absent(Rcode::NXDOMAIN, "112.10.in-addr.arpa"));
}

#[test]
fn renters_learn_no_names_of_hosts_and_operators_none_of_rentals() {
    let unknown = absent(Rcode::NXDOMAIN, "fleet.internal");
    for name in ["cam-07.fleet.internal", "nvr.north.fleet.internal", "north.fleet.internal"] {
        assert_eq!(ask_about_rentals(2, name, Rtype::A), unknown, "{name}");
        assert_ne!(ask_about_rentals(ANNA, name, Rtype::A), unknown, "{name}");
    }
    assert_eq!(ask_about_rentals(ANNA, "camera.fleet.internal", Rtype::A), unknown);
    for (peer, address) in [(2, "7.0.112.10"), (ANNA, "1.1.112.10")] {
        let seen = ask_about_rentals(peer, &format!("{address}.in-addr.arpa"), Rtype::PTR);
        assert_eq!(seen, absent(Rcode::NXDOMAIN, "112.10.in-addr.arpa"), "{peer}");
    }
}

#[test]
fn the_name_of_a_rental_ends_with_it() {
    let (mut forwarder, asked) = (forwarder_with_rentals(), query("camera.fleet.internal", Rtype::A, None));
    forwarder.change(PolicyChange::WithdrawGrant(id(41)), now());
    let ask = |forwarder: &Forwarder, renter| {
        let decision = dns(false).query(forwarder, id(renter), &asked, Carrier::Udp, now());
        let DnsDecision::Answer(bytes) = decision else { panic!("an answer") };
        read_with(5, &bytes)
    };
    assert_eq!(ask(&forwarder, 2), absent(Rcode::NXDOMAIN, "fleet.internal"));
    assert_eq!(ask(&forwarder, 3), found(&["10.112.1.2"]));
    forwarder.change(PolicyChange::RemoveTarget(TargetId::Rental(id(42))), now());
    assert_eq!(ask(&forwarder, 3), absent(Rcode::NXDOMAIN, "fleet.internal"));
}

#[test]
fn no_resolver_answers_a_renter() {
    let (forwarder, mut dns) = (forwarder_with_rentals(), dns(true));
    for name in ["example.net", "intranet.example.org", "1.1.168.192.in-addr.arpa"] {
        let asked = query(name, Rtype::A, None);
        let decision = dns.query(&forwarder, id(2), &asked, Carrier::Udp, now());
        let DnsDecision::Answer(bytes) = decision else { panic!("{name} is not passed on") };
        let message = Message::from_octets(&bytes[..]).expect("a message");
        assert_eq!((message.header().rcode(), message.header().ra()), (Rcode::REFUSED, false), "{name}");
        assert_eq!(dns.query(&forwarder, id(ANNA), &asked, Carrier::Udp, now()), DnsDecision::Forward);
    }
}

#[test]
fn resolvers_answer_other_names_for_operators_alone() {
    let (forwarder, mut dns) = (forwarder(), dns(true));
    let mut ask = |peer: i64, name: &str| {
        let asked = query(name, Rtype::A, None);
        dns.query(&forwarder, id(peer), &asked, Carrier::Udp, now())
    };
    assert_eq!(ask(ANNA, "example.net"), DnsDecision::Forward);
    assert_eq!(ask(ANNA, "1.1.168.192.in-addr.arpa"), DnsDecision::Forward);
    for (peer, name) in [
        (ANNA, "cam-08.fleet.internal"),
        (ANNA, "8.0.112.10.in-addr.arpa"),
        (DEVICE, "example.net"),
        (99, "example.net"),
    ] {
        assert!(matches!(ask(peer, name), DnsDecision::Answer(_)), "{peer} {name}");
    }
    let counts: Vec<(DnsOutcome, u64)> = dns.counts().collect();
    assert_eq!(counts, [(DnsOutcome::NotFound, 2), (DnsOutcome::Refused, 2), (DnsOutcome::Forwarded, 2)]);
    let mut iterative = query("example.net", Rtype::A, None);
    iterative[2] &= !1;
    let decision = dns.query(&forwarder, id(ANNA), &iterative, Carrier::Udp, now());
    assert!(matches!(decision, DnsDecision::Answer(_)), "without RD");
}

#[test]
fn a_malformed_query_is_told_and_an_answer_gets_none() {
    let good = query("cam-07.fleet.internal", Rtype::A, None);
    for no_query in [&good[..11], b"", &answer(ANNA, &good)] {
        assert_eq!(decide(ANNA, no_query, Carrier::Udp), DnsDecision::Drop);
    }
    let mut two = good.clone();
    two[5] = 2;
    let mut cut_off = good.clone();
    cut_off[11] = 1;
    for malformed in [&good[..good.len() - 1], &two, &cut_off] {
        assert_eq!(read(&answer(ANNA, malformed)).rcode, Rcode::FORMERR);
    }
    let mut update = good.clone();
    update[2] = Opcode::UPDATE.to_int() << 3;
    assert_eq!(read(&answer(ANNA, &update)).rcode, Rcode::NOTIMP);
    let next = answer(ANNA, &query("cam-07.fleet.internal", Rtype::A, Some((1_232, 1))));
    let rcode = Message::from_octets(&next[..]).expect("a message").opt_rcode();
    assert_eq!(rcode, domain::base::iana::OptRcode::BADVERS);
}

#[test]
fn an_answer_names_its_own_size_if_the_query_does() {
    let asked = |edns| answer(ANNA, &query("cam-07.fleet.internal", Rtype::A, edns));
    let size = |bytes: &[u8]| {
        Message::from_octets(bytes).expect("a message").opt().map(|opt| opt.udp_payload_size())
    };
    assert_eq!(size(&asked(None)), None);
    assert_eq!(size(&asked(Some((4_096, 0)))), Some(1_232));
}

#[test]
fn what_does_not_fit_a_datagram_is_truncated_and_whole_over_tcp() {
    let asked = query("cam-07.fleet.internal", Rtype::A, None);
    let read = message::Query::read(&asked).expect("a query");
    let many = (0..60).map(|n| Data::Address([10, 112, 1, n].into())).collect();
    let response = Response { data: many, ..Response::own(Rcode::NOERROR) };
    let (udp, tcp) = (read.answer(&response, Carrier::Udp), read.answer(&response, Carrier::Tcp));
    let udp = Message::from_octets(&udp[..]).expect("a message");
    assert!(udp.header().tc() && udp.header_counts().ancount() == 0 && udp.as_slice().len() < 512);
    let tcp = Message::from_octets(&tcp[..]).expect("a message");
    assert!(!tcp.header().tc() && tcp.header_counts().ancount() == 60);
}

#[test]
fn a_reply_of_a_resolver_is_passed_on_only_if_it_answers_the_query() {
    let asked = query("example.net", Rtype::A, None);
    let sent = query_of(&asked, 4_711).expect("a query");
    let mut reply = sent.clone();
    reply[2] |= 0x80;
    let passed = relayed(&asked, &sent, &reply, Carrier::Udp);
    let mut expected = reply.clone();
    expected[..2].copy_from_slice(&asked[..2]);
    assert_eq!(passed, Relayed::Reply(expected));
    let other = |at: usize| {
        let mut other = reply.clone();
        other[at] ^= 1;
        other
    };
    // The id, the name, the type.
    for foreign in [other(0), other(13), other(reply.len() - 3), sent.clone(), b"short".to_vec()] {
        assert_eq!(relayed(&asked, &sent, &foreign, Carrier::Udp), Relayed::NoAnswer);
    }
    let Some(failed) = failure(&asked, Carrier::Udp) else { panic!("an answer") };
    assert_eq!(read(&failed).rcode, Rcode::SERVFAIL);
    assert_eq!((query_of(&reply, 1), failure(b"", Carrier::Udp)), (None, None));
}

#[test]
fn a_domain_that_cannot_hold_names_is_refused() {
    for good in ["fleet.internal", "x", "A.b-c.net.", "1a.example"] {
        assert!(Suffix::parse(good).is_ok(), "{good}");
    }
    let long = format!("{}a", "abcdefg.".repeat(24));
    for bad in ["", ".", "a..b", "-a.net", "a-.net", "a_b.net", "10.112", "ü.net", "x.local", "x.arpa", &long]
    {
        assert!(Suffix::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), peer in 1i64..3) {
        check(peer, &bytes)?;
    }

    #[test]
    fn no_change_of_a_query_makes_the_reader_panic(
        changes in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
        len in 0usize..80,
        edns in any::<Option<(u16, u8)>>(),
        rtype in 0u16..260,
    ) {
        let mut bytes = query("cam-07.fleet.internal", Rtype::from_int(rtype), edns);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(if len < 20 { len } else { bytes.len() });
        check(ANNA, &bytes)?;
    }

    #[test]
    fn the_name_of_an_address_leads_back_to_it(v4 in any::<u32>(), v6 in any::<u128>()) {
        let pools = Pools { v4: "10.112.0.0/14".parse().unwrap(), v6: "fd72::/64".parse().unwrap() };
        let v4 = std::net::Ipv4Addr::from(0x0a70_0000 | v4 >> 14);
        let v6 = std::net::Ipv6Addr::from(0xfd72 << 112 | v6 >> 64);
        let octets: Vec<String> = v4.octets().iter().rev().map(u8::to_string).collect();
        let nibbles = |byte: &u8| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)];
        let nibbles: Vec<String> = v6.octets().iter().rev().flat_map(nibbles).collect();
        let place = |text: String| pools.place(&text.parse::<DomainName>().unwrap());
        prop_assert_eq!(place(format!("{}.in-addr.arpa", octets.join("."))), Some(ReversePosition::At(v4.into())));
        prop_assert_eq!(place(format!("{}.IP6.ARPA", nibbles.join("."))), Some(ReversePosition::At(v6.into())));
    }
}

/// Whatever comes, an answer is one to the query, and fits its carrier.
fn check(peer: i64, bytes: &[u8]) -> Result<(), TestCaseError> {
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        if let DnsDecision::Answer(answer) = decide(peer, bytes, carrier) {
            prop_assert!(answer.len() >= 12 && answer[..2] == bytes[..2] && answer[2] & 0x80 != 0);
            prop_assert!(carrier == Carrier::Tcp || answer.len() <= LARGEST_DATAGRAM);
        }
        let _ = failure(bytes, carrier);
        let _ = relayed(bytes, bytes, bytes, carrier);
    }
    Ok(())
}
