use std::time::Duration;

use fleetgate_keys::PresharedKey;

use super::world::*;
use crate::id::Id;
use crate::messages::{
    Command, ConnectFailure, DropReason, Input, Output, PeerKey, PeerSnapshot, Probe, ProbeReply, Refusal,
    Tai64n, TunnelEvent,
};
use crate::time::Mono;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn memory(n: u8) -> PeerSnapshot {
    PeerSnapshot { endpoint: Some(public_address(n)), ..PeerSnapshot::default() }
}

#[test]
fn a_device_that_calls_gets_a_tunnel_and_is_announced_once() {
    let mut world = plain(1);
    world.initiate(2);
    world.run(2 * SECOND);
    assert!(world.established(2));
    let firsts = world.news.iter().filter(|news| **news == TunnelEvent::FirstHandshake(id(2))).count();
    assert_eq!(firsts, 1);
    assert!(world.news.contains(&TunnelEvent::Up(id(2))));
    assert!(world.news.contains(&TunnelEvent::Endpoint(id(2), public_address(2))));
    assert!(world.news.iter().any(|news| matches!(news, TunnelEvent::Stamp(peer, _) if *peer == id(2))));
    let status = world.tunnel.status(id(2)).expect("a peer");
    assert_eq!((status.handshakes, status.clock_skew_ms), (1, Some(-20)), "20 ms on the way");
}

#[test]
fn an_hour_of_keepalives_is_one_unbroken_session() {
    let mut world = connected(1);
    world.run(60 * MINUTE);
    assert!(world.established(2));
    assert!(!world.news.contains(&TunnelEvent::Up(id(2))), "it never went down");
    assert!(!world.news.contains(&TunnelEvent::FirstHandshake(id(2))));
    assert_eq!(world.initiations(), 0, "the device renews what it began");
    let status = world.tunnel.status(id(2)).expect("a peer");
    assert!((28..=32).contains(&status.handshakes), "{}", status.handshakes);
}

#[test]
fn a_device_that_vanishes_ends_after_180_s_and_costs_nothing_then() {
    let mut world = connected(1);
    world.end(2).off = true;
    world.run(4 * MINUTE);
    assert!(!world.established(2));
    assert_eq!(world.tunnel.totals().sessions, 0);
    assert_eq!(world.tunnel.poll_output_wait(), None);
}

#[test]
fn a_replayed_initiation_is_refused_and_leaves_the_session_alone() {
    let mut world = connected(1);
    world.run(10 * SECOND);
    let (_, initiation) = world.last_captured(1);
    world.inject("192.0.2.66:666".parse().expect("an address"), &initiation);
    world.run(2 * SECOND);
    assert_eq!(world.dropped(2, DropReason::StaleStamp), 1);
    assert_eq!(world.tunnel.status(id(2)).expect("a peer").endpoint, Some(public_address(2)));
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
    let refused = |news: &&TunnelEvent| matches!(news, TunnelEvent::Refused(..));
    assert_eq!(world.news.iter().filter(refused).count(), 1);
    world.inject("192.0.2.66:666".parse().expect("an address"), &initiation);
    assert_eq!(world.news.iter().filter(refused).count(), 1, "once a minute");
}

#[test]
fn a_duplicate_on_the_network_is_no_refusal() {
    let mut world = plain(1);
    world.initiate(2);
    world.run(SECOND);
    let (from, initiation) = world.last_captured(1);
    world.inject(from, &initiation);
    assert_eq!(world.dropped(2, DropReason::StaleStamp), 1);
    assert!(!world.news.iter().any(|news| matches!(news, TunnelEvent::Refused(..))));
}

#[test]
fn a_clock_that_went_back_is_named_and_can_be_reset() {
    let mut world = connected(1);
    world.run(MINUTE);
    let mut wrong = world.now;
    wrong.wall = wrong.wall - 10 * MINUTE;
    world.end(2).device.session = plain_session(2, None, wrong);
    world.initiate(2);
    world.run(SECOND);
    let refusal = world.news.iter().find_map(|news| match news {
        TunnelEvent::Refused(_, Refusal::ClockWentBack { behind }) => Some(*behind),
        _ => None,
    });
    assert_eq!(refusal, Some(9 * MINUTE - SECOND), "less the time since the last stamp");
    world.command(Command::ResetClock(id(2)));
    world.run(10 * SECOND);
    let told =
        world.news.iter().rev().find(|n| matches!(n, TunnelEvent::Stamp(..) | TunnelEvent::ClockReset(_)));
    assert!(matches!(told, Some(TunnelEvent::Stamp(..))), "the forgotten one was told before");
    assert!(world.news.contains(&TunnelEvent::ClockReset(id(2))));
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
    assert_eq!(world.tunnel.status(id(2)).expect("a peer").clock_skew_ms, Some(-600_020));
}

#[test]
fn a_device_whose_handshakes_are_refused_is_distinguished_from_a_replay() {
    let attempt = |world: &Plain| world.tunnel.status(id(2)).expect("a peer").attempts.refused;
    let mut world = connected(1);
    let (from, captured) = world.last_captured(1);
    for _ in 0..4 {
        world.run(3 * MINUTE);
        world.inject(from, &captured);
    }
    assert!(world.tunnel.status(id(2)).expect("a peer").last_refusal.is_some());
    assert_eq!(attempt(&world), None, "one stamp, again and again");
    let mut wrong = world.now;
    wrong.wall = wrong.wall - 60 * MINUTE;
    world.end(2).device.session = plain_session(2, None, wrong);
    for _ in 0..3 {
        world.initiate(2);
        world.run(6 * SECOND);
    }
    assert!(attempt(&world).is_some(), "a living device with a wrong clock");
}

#[test]
fn a_stored_stamp_is_as_good_as_one_from_this_run() {
    let mut world = plain(1);
    let stamp = Some(Tai64n([0x7f; 12]));
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(spec(2)), PeerSnapshot { stamp, ..PeerSnapshot::default() }));
    world.initiate(2);
    world.run(SECOND);
    assert!(!world.established(2));
    assert_eq!(world.dropped(2, DropReason::StaleStamp), 1);
}

#[test]
fn an_unknown_key_gets_no_response_and_is_reported_once() {
    let mut world = plain(0);
    let session = plain_session(2, None, world.now);
    world.add(2, session);
    for _ in 0..5 {
        world.initiate(2);
        world.run(6 * SECOND);
    }
    let told = world.news.iter().filter(|news| matches!(news, TunnelEvent::UnknownKey(..))).count();
    assert_eq!((told, world.sent.len(), world.tunnel.totals().sessions), (1, 0, 0));
    assert!(world.tunnel.global_drops()[&DropReason::UnknownKey] >= 5);
}

#[test]
fn the_endpoint_follows_data_and_not_initiations() {
    let mut world = connected(1);
    let (_, data) = world.last_captured(4);
    let new = "192.0.2.9:999".parse().expect("an address");
    world.end(2).at = new;
    world.initiate(2);
    world.run(DELAY + Duration::from_millis(1));
    assert_eq!(world.tunnel.status(id(2)).expect("a peer").endpoint, Some(public_address(2)));
    world.run(SECOND);
    assert_eq!(world.tunnel.status(id(2)).expect("a peer").endpoint, Some(new));
    world.inject(public_address(2), &data);
    assert_eq!(world.tunnel.status(id(2)).expect("a peer").endpoint, Some(new), "a replay moves nothing");
    world.run(SECOND);
    assert!(world.news.contains(&TunnelEvent::Endpoint(id(2), new)));
}

#[test]
fn a_device_that_moves_with_every_packet_is_at_most_a_message_a_second() {
    let mut world = connected(1);
    world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 100 }, 20 * SECOND);
    for port in 1..100 {
        world.end(2).at.set_port(port);
        world.initiate(2);
        world.run(Duration::from_millis(100));
    }
    let told = world.news.iter().filter(|news| matches!(news, TunnelEvent::Endpoint(..))).count();
    assert!((5..=10).contains(&told), "{told} in ten seconds");
}

#[test]
fn a_stored_time_in_the_future_proves_nothing() {
    let mut world = plain(0);
    let tomorrow = Some(world.now.wall + 24 * 60 * MINUTE);
    let memory = PeerSnapshot { last_packet: tomorrow, last_handshake: tomorrow, ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(spec(2)), memory));
    let ProbeReply::Evidence(evidence) = world.answer(Probe::Evidence { peer: id(2) }, SECOND).0 else {
        panic!("evidence is expected");
    };
    assert_eq!((evidence.last_packet, evidence.last_handshake), (None, None));
}

#[test]
fn after_a_restart_the_gateway_finds_a_sleeping_fleet_again() {
    let mut world = plain(50);
    for n in 2..52 {
        world.command(Command::Remove(id(n)));
        world.command(Command::Upsert(Box::new(spec(n)), memory(n)));
    }
    world.command(Command::DialAll);
    world.run(3 * SECOND);
    assert!((2..52).all(|n| world.established(n)));
    assert_eq!(world.initiations(), 50);
}

#[test]
fn a_dead_peer_is_dialled_twice_and_then_not_for_five_minutes() {
    let mut world = plain(1);
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(spec(2)), memory(2)));
    world.end(2).off = true;
    let no_tunnel = |answer: &ProbeReply| matches!(answer, ProbeReply::Echo(echo) if echo.failure == Some(ConnectFailure::NoTunnel) && echo.sent == 0);
    assert!(no_tunnel(&world.echo(2, v4(2), 1)));
    assert_eq!((world.initiations(), world.tunnel.totals().sessions), (2, 0));
    let (answer, took) = world.answer(echo_question(), 10 * SECOND);
    assert!(no_tunnel(&answer) && took == Duration::ZERO);
    assert_eq!(world.initiations(), 2);
    let (forced, _) = world.handshake(2);
    assert_eq!(forced, ProbeReply::Handshake(Err(ConnectFailure::Timeout)));
    assert_eq!(world.initiations(), 4);
    world.run(5 * MINUTE);
    assert!(no_tunnel(&world.echo(2, v4(2), 1)));
    assert_eq!(world.initiations(), 6);
}

fn echo_question() -> Probe {
    Probe::Echo { peer: id(2), address: v4(2), count: 1 }
}

#[test]
fn a_probe_to_a_device_that_went_away_costs_two_initiations_at_most() {
    let mut world = connected(1);
    world.end(2).off = true;
    for _ in 0..10 {
        let probe = echo_question();
        world.answer(probe, 5 * SECOND);
    }
    world.run(5 * MINUTE);
    assert!(world.initiations() <= 2, "{} initiations", world.initiations());
}

#[test]
fn a_handshake_can_be_forced_through_a_living_session() {
    let mut world = connected(1);
    let (answer, took) = world.handshake(2);
    assert_eq!((answer, took), (ProbeReply::Handshake(Ok(RTT)), RTT));
    assert_eq!(world.initiations(), 1);
}

#[test]
fn an_edit_keeps_the_session_and_a_new_key_ends_it_at_once() {
    let mut world = connected(1);
    let mut edited = spec(2);
    edited.networks.clear();
    world.command(Command::Upsert(Box::new(edited.clone()), PeerSnapshot::default()));
    assert!(world.established(2));
    edited.keys[0].psk = Some(PresharedKey::from_bytes([1; 32]));
    world.command(Command::Upsert(Box::new(edited), PeerSnapshot::default()));
    assert!(!world.established(2), "another preshared key is another secret");

    let mut world = connected(1);
    let ask = world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 9 }, 9 * SECOND);
    let mut rekeyed = spec(2);
    rekeyed.keys = vec![PeerKey { public: private(99).public(), psk: None }];
    world.command(Command::Upsert(Box::new(rekeyed), PeerSnapshot::default()));
    assert!(!world.established(2));
    assert!(
        matches!(world.news.last(), Some(TunnelEvent::Rekeyed(peer)) if *peer == id(2)),
        "{:?}",
        world.news
    );
    assert!(world.answers.iter().any(|(id, ..)| *id == ask), "what was in flight is answered");
    world.end(2).device.session = plain_session(99, None, world.now);
    world.initiate(2);
    world.run(SECOND);
    assert!(world.established(2));
    assert!(world.news.contains(&TunnelEvent::FirstHandshake(id(2))), "it may be another device");
}

#[test]
fn a_removed_peer_is_a_stranger_at_once() {
    let mut world = connected(2);
    let ask = world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 9 }, 9 * SECOND);
    world.command(Command::Remove(id(2)));
    assert!(world.answers.iter().any(|(id, ..)| *id == ask));
    world.run(MINUTE);
    assert!(world.tunnel.status(id(2)).is_none() && world.established(3));
    assert_eq!(world.tunnel.totals().sessions, 1);
    assert!(world.tunnel.global_drops()[&DropReason::UnknownIndex] > 0);
}

#[test]
fn a_key_that_is_added_beside_the_old_one_leaves_the_session_alone() {
    let mut world = connected(1);
    let mut rotating = spec(2);
    rotating.keys.insert(0, PeerKey { public: private(99).public(), psk: None });
    world.command(Command::Upsert(Box::new(rotating), PeerSnapshot::default()));
    assert!(world.established(2));
    world.run(SECOND);
    world.end(2).device.session = plain_session(99, None, world.now);
    world.initiate(2);
    world.run(SECOND);
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
}

#[test]
fn another_preshared_key_on_the_device_is_named() {
    let mut world = plain(1);
    let mut with_psk = spec(2);
    with_psk.keys[0].psk = Some(PresharedKey::from_bytes([1; 32]));
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(with_psk), memory(2)));
    let (answer, _) = world.handshake(2);
    assert_eq!(answer, ProbeReply::Handshake(Err(ConnectFailure::Timeout)));
    assert!(world.news.contains(&TunnelEvent::Refused(id(2), Refusal::Crypto)));
    let attempt = |world: &Plain| world.tunnel.status(id(2)).expect("a peer").attempts.unproved;
    assert_eq!(attempt(&world), None, "whoever saw our initiation can send an answer to it");
    for _ in 0..4 {
        world.initiate(2);
        world.run(6 * SECOND);
    }
    assert!(attempt(&world).is_some(), "its own initiations are authentic");
    let told = |news: &TunnelEvent| matches!(news, TunnelEvent::Status(_, status) if status.attempts.unproved.is_some());
    assert!(world.news.iter().any(told), "whoever judges hears of it");
}

#[test]
fn one_turn_answers_a_bounded_number_of_initiations() {
    let mut world = plain(40);
    let initiations: Vec<Vec<u8>> =
        (2..42).flat_map(|n| world.end(n).device.initiate(Mono::from_secs(1))).collect();
    for bytes in &initiations {
        let from = public_address(2);
        world.tunnel.handle(Input::Datagram { from, to: None, arrived: world.now.mono, bytes }, world.now);
    }
    let mut answered = 0;
    while let Output::Transmit(_) | Output::TunnelEvent(_) = world.tunnel.poll_output() {
        answered += 1;
    }
    assert_eq!(answered, 2 * 8, "an answer and a stamp each");
    assert_eq!(world.tunnel.totals().initiations_waiting, 32);
    world.run(SECOND);
    assert_eq!(world.tunnel.totals().initiations_waiting, 0);
}

#[test]
fn the_status_of_a_peer_is_reported_at_most_once_a_second() {
    let mut world = connected(1);
    world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 50 }, 12 * SECOND);
    world.run(10 * SECOND);
    let told = world.news.iter().filter(|news| matches!(news, TunnelEvent::Status(..))).count();
    assert!((7..=10).contains(&told), "{told} in ten seconds");
}

#[test]
fn a_stranger_s_bytes_of_any_size_get_silence() {
    let mut world = plain(1);
    for length in [0, 1, 3, 31, 32, 64, 92, 147, 148, 149, 1_500, 65_000] {
        for kind in 0..6u8 {
            let mut bytes = vec![0; length];
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            world.inject("192.0.2.66:666".parse().expect("an address"), &bytes);
        }
    }
    assert_eq!((world.sent.len(), world.tunnel.totals().sessions), (0, 0));
}

#[test]
fn a_gateway_that_stops_sends_nothing_more_of_its_own() {
    let mut world = connected(1);
    let ask = world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 9 }, 9 * SECOND);
    world.command(Command::Quiesce);
    assert!(world.answers.iter().any(|(id, ..)| *id == ask));
    world.sent.clear();
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Refused(_)));
    world.run(MINUTE);
    assert_eq!(world.sent, []);
}

#[test]
fn a_peer_that_is_not_there_is_no_peer() {
    let mut world = plain(1);
    let evidence = Probe::Evidence { peer: Id::from_i64(77) };
    assert!(matches!(world.answer(evidence, SECOND).0, ProbeReply::Refused(_)));
}
