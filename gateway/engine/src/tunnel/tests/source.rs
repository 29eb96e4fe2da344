//! Answered handshakes that lead to nothing: what they prove, and how the gateway dials their
//! source.

use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_keys::PresharedKey;

use super::world::*;
use crate::messages::{Command, Input, PeerSnapshot, PeerSpec, ProbeReply, Refusal, TunnelEvent};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn with_psk() -> PeerSpec {
    let mut spec = spec(2);
    spec.keys[0].psk = Some(PresharedKey::from_bytes([1; 32]));
    spec
}

/// The device was installed again, with another preshared key and another port. No device listens
/// at the old one.
fn reinstalled(at: SocketAddr) -> Plain {
    let mut world = plain(1);
    let memory = PeerSnapshot { endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(with_psk()), memory));
    world.end(2).at = at;
    world
}

/// Initiates about every five seconds like a client, a little sooner than the session would repeat
/// by itself.
fn tries(world: &mut Plain, times: u32) {
    for _ in 0..times {
        world.initiate(2);
        world.run(Duration::from_millis(4_990));
    }
}

fn place(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn another_preshared_key_at_another_port_is_found_by_one_dial_to_the_source() {
    for new in ["203.0.113.2:51000", "[2001:db8::2]:51000"].map(place) {
        let mut world = reinstalled(new);
        tries(&mut world, 2);
        assert_eq!(
            (world.status(2).attempts.unproved, world.initiations()),
            (None, 0),
            "answers may be lost"
        );
        tries(&mut world, 2);
        let status = world.status(2);
        let unproved = status.attempts.unproved.expect("a sign");
        assert!(unproved.count >= 3 && unproved.from == new, "{unproved:?}");
        assert!(unproved.since < unproved.last);
        assert!(matches!(status.last_refusal, Some((_, Refusal::Crypto))), "{status:?}");
        assert_eq!(status.endpoint, Some(public_address(2)), "nothing authentic came from there");
        assert_eq!((world.initiations_to(new), world.initiations_to(public_address(2))), (2, 0));
    }
}

#[test]
fn a_source_is_dialled_once_in_five_minutes() {
    let new = place("203.0.113.2:51000");
    let mut world = reinstalled(new);
    tries(&mut world, 48);
    assert_eq!(world.initiations(), 2, "in four minutes");
    tries(&mut world, 24);
    assert_eq!(world.initiations_to(new), 4, "in six");
}

#[test]
fn an_earlier_failed_dial_does_not_prevent_a_dial_to_the_source() {
    let mut world = reinstalled(public_address(2));
    world.end(2).deaf = true;
    let (answer, _) = world.handshake(2);
    assert!(matches!(answer, ProbeReply::Handshake(Err(_))));
    world.end(2).deaf = false;
    world.sent_to.clear();
    tries(&mut world, 4);
    assert_eq!(world.initiations_to(public_address(2)), 2);
    assert!(matches!(world.status(2).last_refusal, Some((_, Refusal::Crypto))));
}

#[test]
fn checks_dial_the_source_too_while_it_tries() {
    let new = place("203.0.113.2:51000");
    let mut world = reinstalled(new);
    tries(&mut world, 4);
    world.run(7 * SECOND);
    world.sent_to.clear();
    world.handshake(2);
    assert_eq!((world.initiations_to(new), world.initiations_to(public_address(2))), (2, 0));
    world.run(4 * MINUTE);
    world.sent_to.clear();
    world.end(2).off = true;
    world.run(4 * MINUTE);
    world.handshake(2);
    assert_eq!(world.initiations_to(public_address(2)), 2, "it has stopped: back to where it was last heard");
}

#[test]
fn a_path_closed_in_one_direction_is_distinguished_from_a_wrong_key() {
    let mut world = plain(1);
    world.end(2).deaf = true;
    tries(&mut world, 4);
    let status = world.status(2);
    assert!(status.attempts.unproved.is_some(), "it is alive");
    let refused = matches!(status.last_refusal, Some((_, Refusal::Crypto)));
    assert!(!refused, "and nobody refused the key");
    world.end(2).deaf = false;
    tries(&mut world, 1);
    let status = world.status(2);
    assert!(status.established && status.attempts.unproved.is_none(), "a session ends the sign: {status:?}");
}

#[test]
fn a_response_to_a_dial_moves_the_endpoint() {
    let new = place("[2001:db8::2]:51000");
    let mut world = plain(1);
    let memory = PeerSnapshot { endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(spec(2)), memory));
    world.end(2).at = new;
    world.end(2).deaf = true;
    tries(&mut world, 2);
    // The third initiation arrives, and then the path to the device opens.
    world.initiate(2);
    world.run(DELAY);
    world.end(2).deaf = false;
    world.run(SECOND);
    assert_eq!((world.established(2), world.status(2).endpoint), (true, Some(new)));
}

#[test]
fn one_device_behind_two_address_translators_is_dialled_once_a_minute_at_most() {
    let places = ["203.0.113.2:51000", "203.0.113.3:52000"].map(place);
    let mut world = reinstalled(places[0]);
    for turn in 0..48 {
        world.end(2).at = places[turn % 2];
        tries(&mut world, 1);
    }
    assert!((4..=10).contains(&world.initiations()), "{} in four minutes", world.initiations());
    assert!(world.status(2).attempts.unproved.is_some());
}

#[test]
fn replayed_initiations_are_no_sign_and_cause_no_dial() {
    let mut world = connected(1);
    world.run(10 * MINUTE);
    let captured: Vec<Vec<u8>> =
        world.captured.iter().filter(|(_, bytes)| bytes[0] == 1).map(|(_, bytes)| bytes.clone()).collect();
    assert!(captured.len() > 3);
    world.sent_to.clear();
    let stranger = place("192.0.2.66:666");
    for bytes in captured {
        world.inject(stranger, &bytes);
        world.run(5 * SECOND);
    }
    assert_eq!(world.status(2).attempts.unproved, None);
    assert!(world.sent_to.iter().all(|(_, to)| *to != stranger), "not even an answer");
}

#[test]
fn initiations_that_were_kept_back_and_come_at_once_make_no_sign() {
    let mut world = plain(1);
    world.end(2).off = true;
    let kept: Vec<Vec<u8>> = (0..4)
        .flat_map(|_| {
            world.run(5 * SECOND + Duration::from_millis(10));
            let now = world.now.mono;
            world.end(2).device.initiate(now)
        })
        .collect();
    let stranger = place("192.0.2.66:666");
    for bytes in kept {
        world.inject(stranger, &bytes);
        world.run(Duration::from_millis(100));
    }
    assert_eq!((world.status(2).attempts.unproved, world.initiations()), (None, 0));
}

#[test]
fn after_a_restart_three_more_tries_show_it_again() {
    let mut world = reinstalled(place("203.0.113.2:51000"));
    tries(&mut world, 4);
    let stamp = world.news.iter().rev().find_map(|news| match news {
        TunnelEvent::Stamp(_, stamp) => Some(*stamp),
        _ => None,
    });
    world.command(Command::Remove(id(2)));
    let memory = PeerSnapshot { stamp, endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(with_psk()), memory));
    assert_eq!(world.status(2).attempts.unproved, None);
    tries(&mut world, 4);
    assert!(matches!(world.status(2).last_refusal, Some((_, Refusal::Crypto))));
    assert!(world.status(2).attempts.unproved.is_some());
}

#[test]
fn a_gateway_that_stops_dials_no_source() {
    let mut world = reinstalled(place("203.0.113.2:51000"));
    tries(&mut world, 2);
    world.command(Command::Quiesce);
    world.sent.clear();
    tries(&mut world, 4);
    world.tunnel.handle(Input::Timeout, world.now);
    assert_eq!(world.sent, []);
}
