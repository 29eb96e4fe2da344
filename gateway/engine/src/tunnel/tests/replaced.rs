//! A device keeps its configuration while its key is replaced: what the gateway learns about it,
//! and from which packets.

use std::time::Duration;

use super::super::Tunnel;
use super::world::*;
use crate::messages::{
    Command, DropReason, PeerKey, PeerSnapshot, PeerSpec, Probe, ProbeReply, Refusal, ReplacedKeyUse,
    RetiredKey, TunnelEvent,
};
use crate::time::Wall;
use crate::tunnel::sim::cleartext::PlainNoise;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn keyed(n: u8) -> PeerSpec {
    let keys = vec![PeerKey { public: private(n).public(), psk: None }];
    PeerSpec { keys, ..spec(2) }
}

fn reissue(world: &mut Plain, n: u8) -> Wall {
    world.command(Command::Upsert(Box::new(keyed(n)), PeerSnapshot::default()));
    world.now.wall
}

fn used(world: &Plain) -> Option<ReplacedKeyUse> {
    world.status(2).attempts.replaced
}

fn refused_for(world: &Plain) -> Option<Wall> {
    match world.status(2).last_refusal {
        Some((_, Refusal::ReplacedKey { replaced_at })) => Some(replaced_at),
        _ => None,
    }
}

/// Initiates like a client that has no session any more.
fn tries(world: &mut Plain, times: u32) {
    for _ in 0..times {
        world.initiate(2);
        world.run(Duration::from_millis(4_990));
    }
}

#[test]
fn the_session_ends_and_its_packets_show_the_old_configuration() {
    let mut world = connected(1);
    world.run(10 * SECOND);
    let replaced_at = reissue(&mut world, 99);
    assert!(!world.established(2));
    world.run(30 * SECOND);
    let seen = used(&world).expect("a keepalive comes each 25 s");
    assert_eq!((seen.replaced_at, seen.from), (replaced_at, public_address(2)));
    assert_eq!(refused_for(&world), Some(replaced_at));
    let ProbeReply::Evidence(evidence) = world.answer(Probe::Evidence { peer: id(2) }, SECOND).0 else {
        panic!("evidence is expected");
    };
    assert_eq!((evidence.last_packet, evidence.established), (None, false), "and prove nothing else");
    let told = |news: &TunnelEvent| matches!(news, TunnelEvent::Refused(_, Refusal::ReplacedKey { .. }));
    assert!(world.news.iter().any(told));
    assert!(
        !world.news.iter().any(|news| matches!(news, TunnelEvent::Up(_) | TunnelEvent::FirstHandshake(_)))
    );
}

#[test]
fn handshakes_under_the_old_key_are_reported_and_get_no_response() {
    let mut world = connected(1);
    let replaced_at = reissue(&mut world, 99);
    world.run(10 * MINUTE);
    world.sent.clear();
    let seen = used(&world).expect("a sign");
    assert!(world.now.wall.since(seen.last) < 2 * MINUTE, "still: {seen:?}");
    assert_eq!(seen.replaced_at, replaced_at);
    tries(&mut world, 4);
    assert_eq!(world.sent, []);
    assert!(world.dropped(2, DropReason::RetiredKey) > 5);
    assert!(!world.tunnel.global_drops().contains_key(&DropReason::UnknownKey));
    assert_eq!(world.tunnel.totals().sessions, 0, "the session of before is let go");
}

#[test]
fn a_device_that_was_off_is_known_by_its_second_try() {
    let mut world = connected(1);
    world.end(2).off = true;
    let replaced_at = reissue(&mut world, 99);
    world.run(20 * MINUTE);
    world.end(2).off = false;
    world.end(2).at = "[2001:db8::7]:4500".parse().expect("an address");
    world.end(2).device.session = plain_session(2, None, world.now);
    tries(&mut world, 1);
    assert_eq!((used(&world), refused_for(&world)), (None, None), "one may have been captured");
    tries(&mut world, 1);
    assert_eq!(refused_for(&world), Some(replaced_at));
    assert_eq!(used(&world).map(|seen| seen.from), Some(world.end(2).at));
}

#[test]
fn with_its_new_configuration_it_is_let_in_and_nothing_is_held_against_it() {
    let mut world = connected(1);
    reissue(&mut world, 99);
    world.run(30 * SECOND);
    world.end(2).device.session = plain_session(99, None, world.now);
    world.initiate(2);
    world.run(SECOND);
    let status = world.status(2);
    assert!(status.established && status.last_handshake > status.last_refusal.map(|(at, _)| at));
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
}

#[test]
fn replayed_initiations_are_not_reported_as_use_of_a_replaced_key() {
    let mut world = connected(1);
    world.run(10 * MINUTE);
    world.end(2).off = true;
    reissue(&mut world, 99);
    let stranger = "192.0.2.66:666".parse().expect("an address");
    let before = world.captured.clone();
    for (_, bytes) in &before {
        world.inject(stranger, bytes);
        world.run(SECOND);
    }
    assert_eq!((used(&world), refused_for(&world)), (None, None));
    let initiations: Vec<_> = before.iter().filter(|(_, bytes)| bytes[0] == 1).collect();
    world.run(4 * MINUTE);
    for (_, bytes) in &initiations {
        world.inject(stranger, bytes);
        world.run(2 * MINUTE);
    }
    assert_eq!(used(&world), None, "at their pace they are a refusal, and no sign of life");
    assert!(initiations.len() >= 4);
}

#[test]
fn an_initiation_with_a_retired_key_but_without_its_secret_is_ignored() {
    let mut world = connected(1);
    world.end(2).off = true;
    reissue(&mut world, 99);
    // Data for the previous session that does not open.
    let (_, mut data) = world.last_captured(4);
    let last = data.len() - 1;
    data[last] ^= 1;
    data[8] = 0x77;
    world.inject("192.0.2.66:666".parse().expect("an address"), &data);
    assert_eq!((used(&world), refused_for(&world)), (None, None));
}

#[test]
fn a_replaced_key_with_an_older_timestamp_is_a_refusal_and_not_reported_as_used() {
    let mut world = connected(1);
    let replaced_at = reissue(&mut world, 99);
    world.run(4 * MINUTE);
    let mut wrong = world.now;
    wrong.wall = wrong.wall - 60 * MINUTE;
    world.end(2).device.session = plain_session(2, None, wrong);
    let last = used(&world).expect("from before").last;
    tries(&mut world, 4);
    assert_eq!(refused_for(&world), Some(replaced_at));
    assert_eq!(used(&world).map(|seen| seen.last), Some(last));
}

#[test]
fn of_two_reissues_in_a_row_the_one_that_ended_its_key_is_named() {
    let mut world = connected(1);
    let first = reissue(&mut world, 98);
    world.run(5 * SECOND);
    let second = reissue(&mut world, 99);
    world.run(4 * MINUTE);
    tries(&mut world, 3);
    assert_eq!(used(&world).map(|seen| seen.replaced_at), Some(first));
    world.end(2).device.session = plain_session(98, None, world.now);
    tries(&mut world, 3);
    assert_eq!(used(&world).map(|seen| seen.replaced_at), Some(second));
    assert!(!world.news.iter().any(|news| matches!(news, TunnelEvent::Up(_))));
}

#[test]
fn a_removed_device_is_reported_once_an_hour() {
    let mut world = connected(1);
    world.command(Command::Remove(id(2)));
    world.run(4 * MINUTE);
    world.sent.clear();
    tries(&mut world, 24);
    let told =
        world.news.iter().filter(|news| matches!(news, TunnelEvent::RemovedPeer(peer, _) if *peer == id(2)));
    assert_eq!((told.count(), world.sent.len()), (1, 0));
    assert!(!world.news.iter().any(|news| matches!(news, TunnelEvent::UnknownKey(..))));
    assert!(world.tunnel.global_drops()[&DropReason::RetiredKey] >= 24);
}

/// Restarts the gateway with the contents of its store.
fn restart(world: &mut Plain, replaced_at: Wall) {
    let public = private(2).public();
    let stamp = world.news.iter().rev().find_map(|news| match news {
        TunnelEvent::RetiredStamp(key, stamp) if *key == public => Some(*stamp),
        _ => None,
    });
    assert!(stamp.is_some(), "the newest stamp is told");
    world.tunnel = Tunnel::new(config(), PlainNoise::new(gateway_key(), [5; 32]), [6; 32]);
    world.tunnel.restore([(keyed(99), PeerSnapshot::default())], world.now);
    world.tunnel.restore_retired([RetiredKey { public, peer: id(2), at: replaced_at, stamp }]);
}

#[test]
fn a_restart_forgets_neither_the_key_nor_its_newest_stamp() {
    let mut world = connected(1);
    let replaced_at = reissue(&mut world, 99);
    world.run(4 * MINUTE);
    tries(&mut world, 3);
    restart(&mut world, replaced_at);
    world.end(2).off = true;
    let captured: Vec<_> = world.captured.iter().filter(|(_, bytes)| bytes[0] == 1).cloned().collect();
    for (from, bytes) in captured {
        world.inject(from, &bytes);
        world.run(Duration::from_millis(100));
    }
    assert_eq!(used(&world), None, "what was captured before");
    world.end(2).off = false;
    tries(&mut world, 3);
    assert_eq!(used(&world).map(|seen| seen.replaced_at), Some(replaced_at));
    assert_eq!(refused_for(&world), Some(replaced_at));
}
