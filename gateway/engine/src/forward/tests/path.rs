//! Hop limits, sizes, segment sizes, fragments and ICMP errors on the path.

use super::packets::*;
use super::world::*;
use crate::forward::headers::{ACK, Ip, SYN, Transport, bits, u16_at};
use crate::messages::{DropReason, GrantTarget, PolicyChange};

#[test]
fn each_packet_loses_one_hop() {
    let mut world = open_world();
    for family in 0..2 {
        let packet = udp(OPERATOR[family], ALIAS[family], 5_000, 53, b"?");
        let (_, there) = world.send(1, &with_ttl(packet, 9)).expect("granted");
        assert_eq!(Ip::parse(&there).expect("whole").ttl, 8);
    }
}

#[test]
fn a_packet_at_its_last_hop_is_answered_by_the_gateway() {
    let mut world = open_world();
    for family in 0..2 {
        for ttl in [0, 1] {
            let packet = with_ttl(udp(OPERATOR[family], DEVICE[family], 5_000, 53, b"?"), ttl);
            let error = world.answer(1, &packet).expect("time exceeded");
            let ip = Ip::parse(&error).expect("a packet");
            assert_eq!((ip.src, ip.dst), (bits(ip_of(GATEWAY[family])), bits(ip_of(OPERATOR[family]))));
            assert_eq!(error[ip.payload], [11, 3][family]);
            assert!(error[ip.payload + 8..].starts_with(&packet[..28]), "as it was sent");
        }
    }
    assert_eq!(world.forwarder.totals().flows, 0, "it opens no flow");
}

#[test]
fn a_packet_larger_than_the_mtu_of_its_receiver_is_too_big() {
    let mut world = open_world();
    for family in 0..2 {
        let header = [28, 48][family];
        let fits = udp(OPERATOR[family], DEVICE[family], 5_000, 53, &vec![0; 1_280 - header]);
        assert!(world.passes(1, &fits));
        let large = udp(OPERATOR[family], DEVICE[family], 5_000, 53, &vec![0; 1_281 - header]);
        let error = world.answer(1, &large).expect("too big");
        let ip = Ip::parse(&error).expect("a packet");
        assert_eq!(error[ip.payload..ip.payload + 2], [[3, 4], [2, 0]][family]);
        assert_eq!(u16_at(&error, ip.payload + 6), Some(1_280));
    }
    world.forwarder.set_mtu(id(11), 1_400);
    let large = udp(OPERATOR[0], DEVICE[0], 5_000, 53, &[0; 1_372]);
    assert!(world.passes(1, &large));
    let reply = udp(DEVICE[0], OPERATOR[0], 53, 5_000, &[0; 1_372]);
    let error = world.answer(11, &reply).expect("the operator's is smaller");
    assert_eq!(Ip::parse(&error).expect("a packet").dst, bits(ip_of(DEVICE[0])));
}

#[test]
fn the_mss_of_both_syns_fits_both_peers() {
    let mut world = open_world();
    world.forwarder.set_mtu(id(1), 1_400);
    for family in 0..2 {
        let most = [1_240, 1_220][family];
        let syn = tcp_with_options(OPERATOR[family], ALIAS[family], 40_000, 22, SYN, &[2, 4, 0x05, 0xb4]);
        let (_, there) = world.send(1, &syn).expect("a SYN");
        let ip = Ip::parse(&there).expect("whole");
        assert_eq!(u16_at(&there, ip.payload + 22), Some(most));
        let options = [2, 4, 0x05, 0xb4];
        let mut answer = tcp_with_options(REAL[family], OPERATOR[family], 22, 40_000, SYN | ACK, &options);
        let at = Ip::parse(&answer).expect("whole").payload;
        answer[at + 11] = 1;
        fix_transport(&mut answer);
        let (_, back) = world.send(11, &answer).expect("a SYN-ACK");
        assert_eq!(u16_at(&back, at + 22), Some(most));
    }
}

#[test]
fn fragments_follow_their_first_one() {
    for family in 0..2 {
        let mut world = open_world();
        let whole = udp(OPERATOR[family], ALIAS[family], 5_000, 53, &[9; 100]);
        let [first, second] = fragments(&whole, 48, 7);
        assert_eq!(world.send(1, &second), Err(DropReason::Fragment), "before the first");
        let (to, first) = world.send(1, &first).expect("the first");
        let (then, second) = world.send(1, &second).expect("the second");
        assert_eq!((to, then), (id(11), id(11)));
        let joined = join(&[first, second]);
        assert!(has_right_checksums(&joined));
        assert_eq!(Ip::parse(&joined).expect("whole").dst, bits(ip_of(REAL[family])));
        let [first, second] = fragments(&udp(REAL[family], OPERATOR[family], 53, 5_000, &[9; 100]), 48, 8);
        assert_eq!(world.send(12, &second), Err(DropReason::Fragment), "another device");
        let parts = [first, second].map(|part| world.send(11, &part).expect("a reply").1);
        assert!(has_right_checksums(&join(&parts)));
        world.withdraw(21);
        assert_eq!(world.send(11, &parts[1]), Err(DropReason::Fragment));
        let [_, second] = fragments(&whole, 48, 7);
        assert_eq!(world.send(1, &second), Err(DropReason::NotGranted), "policy holds for them too");
    }
}

#[test]
fn fragments_hide_no_ports() {
    let mut world = open_world();
    let whole = tcp(OPERATOR[0], DEVICE[0], 40_000, 22, SYN, 1, 0, &[9; 100]);
    let [tiny, _] = fragments(&whole, 16, 7);
    assert_eq!(world.send(1, &tiny), Err(DropReason::Fragment), "half a header");
    let [first, _] = fragments(&whole, 48, 8);
    assert!(world.passes(1, &first));
    for offset in [8, 16] {
        let overlap = fragment(&whole, 28..68, offset, false, 8);
        assert_eq!(world.send(1, &overlap), Err(DropReason::Fragment), "over the header");
    }
    let last = fragment(&whole, 68..100, 48, false, 8);
    assert!(world.passes(1, &last));
    let beyond = fragment(&whole, 20..60, 65_528, false, 8);
    assert_eq!(world.send(1, &beyond), Err(DropReason::Fragment), "it overflows reassembly");
    let [denied, rest] = fragments(&udp(OPERATOR[0], "10.1.0.99", 1, 53, &[0; 99]), 48, 9);
    assert_eq!(world.send(1, &denied), Err(DropReason::NoRoute));
    assert_eq!(world.send(1, &rest), Err(DropReason::Fragment));
}

#[test]
fn an_error_passes_only_about_a_live_flow() {
    for family in 0..2 {
        let mut world = open_world();
        let (src, alias, real) = (OPERATOR[family], ALIAS[family], REAL[family]);
        let router = ["192.168.1.1", "fd77::1"][family];
        let about = |port| icmp_error(router, src, &udp(src, real, port, 53, b"question"));
        assert_eq!(world.send(11, &about(5_000)), Err(DropReason::NoFlow));
        world.send(1, &udp(src, alias, 5_000, 53, b"question")).expect("granted");
        let (to, error) = world.send(11, &about(5_000)).expect("related");
        let ip = Ip::parse(&error).expect("a packet");
        assert_eq!((to, ip.src, ip.dst), (id(1), bits(ip_of(alias)), bits(ip_of(src))));
        assert_eq!(world.send(11, &about(5_001)), Err(DropReason::NoFlow), "another port");
        assert_eq!(world.send(12, &about(5_000)), Err(DropReason::NoFlow), "another device");
        let astray = icmp_error(router, VIEWER[family], &udp(src, real, 5_000, 53, b"question"));
        assert_eq!(world.send(11, &astray), Err(DropReason::NoFlow), "to another than the sender");
        let back = icmp_error(src, alias, &udp(alias, src, 53, 5_000, b"answer"));
        let (to, error) = world.send(1, &back).expect("related, the other way");
        assert_eq!((to, Ip::parse(&error).expect("a packet").dst), (id(11), bits(ip_of(real))));
        world.withdraw(21);
        assert_eq!(world.send(11, &about(5_000)), Err(DropReason::NotGranted));
    }
}

#[test]
fn errors_pass_without_a_grant_for_echoes() {
    let mut world = world();
    let access = vec![access(crate::messages::GrantProtocol::Udp, 53..=53)];
    let spec = crate::messages::GrantSpec { access, ..grant(1, GrantTarget::AllDevices) };
    world.change(PolicyChange::Grant(spec));
    world.send(1, &udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?")).expect("granted");
    assert!(
        world.passes(11, &icmp_error(DEVICE[0], OPERATOR[0], &udp(OPERATOR[0], DEVICE[0], 5_000, 53, b"?")))
    );
    assert!(!world.passes(1, &echo(OPERATOR[0], DEVICE[0], true, 1)));
}

#[test]
fn other_icmp_messages_never_pass() {
    let mut world = open_world();
    for family in 0..2 {
        let quoted = udp(OPERATOR[family], DEVICE[family], 5_000, 53, b"question");
        world.send(1, &quoted).expect("granted");
        let passing: &[u8] = [&[3, 11, 12][..], &[1, 2, 3, 4]][family];
        let echoes: &[u8] = [&[0, 8][..], &[128, 129]][family];
        for kind in 0..=255 {
            let message = icmp_message(ip_of(DEVICE[family]), ip_of(OPERATOR[family]), (kind, 0), &quoted);
            let expected = passing.contains(&kind);
            assert_eq!(world.passes(11, &message), expected, "{kind}");
            if !expected && !echoes.contains(&kind) {
                assert_eq!(world.send(11, &message), Err(DropReason::IcmpType));
            }
        }
    }
}

#[test]
fn a_traceroute_sees_the_gateway_and_then_the_target() {
    let mut world = open_world();
    let probe = udp(OPERATOR[0], ALIAS[0], 5_000, 33_434, b"probe");
    assert!(world.answer(1, &with_ttl(probe.clone(), 1)).is_some());
    let (_, there) = world.send(1, &with_ttl(probe, 2)).expect("granted");
    let error = icmp_message(ip_of(DEVICE[0]), ip_of(OPERATOR[0]), (11, 0), &there);
    let (_, back) = world.send(11, &error).expect("related");
    let ip = Ip::parse(&back).expect("a packet");
    let quoted = &back[ip.payload + 8..];
    assert_eq!(Ip::parse(quoted).expect("a packet").dst, bits(ip_of(ALIAS[0])));
    assert_eq!(Transport::parse(&ip, &back), Ok(Transport::IcmpError));
}
