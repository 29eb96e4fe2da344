//! A packet of the new session proves a handshake, and no other packet does: with real cryptography
//! and in clear.

use std::time::Duration;

use super::super::session::{Noise, Session};
use super::real::ours;
use super::world::*;
use crate::messages::{Command, ConnectFailure, Evidence, Probe, ProbeReply, TunnelEvent};

const SECOND: Duration = Duration::from_secs(1);

/// A tunnel of ten seconds that the device began.
fn called<N: Noise, S: Session>(mut world: World<N, S>) -> World<N, S> {
    world.initiate(2);
    world.run(10 * SECOND);
    assert_eq!((world.status(2).handshakes, world.established(2)), (1, true));
    world.news.clear();
    world
}

fn evidence<N: Noise, S: Session>(world: &mut World<N, S>) -> Evidence {
    match world.answer(Probe::Evidence { peer: id(2) }, SECOND).0 {
        ProbeReply::Evidence(evidence) => evidence,
        other => panic!("evidence is expected, not {other:?}"),
    }
}

/// Responses to the device are lost, while its packets arrive.
fn an_old_session_proves_no_handshake<N: Noise, S: Session>(world: &mut World<N, S>) {
    let before = evidence(world);
    world.end(2).deaf = true;
    for _ in 0..4 {
        world.initiate(2);
        world.run(SECOND);
        world.say(2, &[]);
        world.run(5 * SECOND);
    }
    let after = evidence(world);
    assert_eq!(world.status(2).handshakes, 1);
    assert_eq!(after.last_handshake, before.last_handshake);
    assert!(after.last_packet > before.last_packet && after.established, "the old session goes on");
    let (forced, _) = forced_beside_the_device_s_own(world);
    assert_eq!(forced, ProbeReply::Handshake(Err(ConnectFailure::Timeout)));
    assert!(
        !world.news.iter().any(|news| matches!(news, TunnelEvent::FirstHandshake(_) | TunnelEvent::Up(_)))
    );

    world.end(2).deaf = false;
    world.run(20 * SECOND);
    world.initiate(2);
    world.run(SECOND);
    world.say(2, &[]);
    world.run(SECOND);
    let mended = evidence(world);
    assert!(world.status(2).handshakes >= 2, "the first packet of the new session");
    assert!(mended.last_handshake > before.last_handshake);
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
}

/// The device makes a handshake, which we answer, while one is requested of us. It also sends on
/// its old session.
fn forced_beside_the_device_s_own<N: Noise, S: Session>(world: &mut World<N, S>) -> (ProbeReply, Duration) {
    let asked = world.now.mono;
    let ask = world.ask(Probe::Handshake { peer: id(2) }, 12 * SECOND);
    for _ in 0..3 {
        world.initiate(2);
        world.run(SECOND);
        world.say(2, &[]);
        world.run(3 * SECOND);
    }
    world.run(2 * SECOND);
    let (_, answer, at) = world.answers.iter().find(|(id, ..)| *id == ask).cloned().expect("an answer");
    (answer, at.since(asked))
}

#[test]
fn a_packet_of_an_old_session_proves_no_handshake() {
    an_old_session_proves_no_handshake(&mut called(plain(1)));
}

#[test]
fn a_packet_of_an_old_session_proves_no_handshake_with_real_cryptography() {
    an_old_session_proves_no_handshake(&mut called(ours()));
}

/// The gateway began the session that continues.
fn an_old_session_of_ours_proves_no_handshake<N: Noise, S: Session>(mut world: World<N, S>) {
    let (answer, _) = world.handshake(2);
    assert_eq!(answer, ProbeReply::Handshake(Ok(RTT)));
    assert_eq!(world.status(2).handshakes, 2);
    let before = evidence(&mut world);
    world.end(2).deaf = true;
    world.initiate(2);
    world.run(SECOND);
    world.say(2, &[]);
    world.run(SECOND);
    let after = evidence(&mut world);
    assert_eq!((world.status(2).handshakes, after.last_handshake), (2, before.last_handshake));
    assert!(after.last_packet > before.last_packet);
}

#[test]
fn neither_does_one_of_a_session_that_the_gateway_began() {
    an_old_session_of_ours_proves_no_handshake(called(plain(1)));
    an_old_session_of_ours_proves_no_handshake(called(ours()));
}

#[test]
fn the_first_handshake_of_a_new_key_is_reported_with_its_first_packet() {
    let mut world = called(plain(1));
    let mut rekeyed = spec(2);
    rekeyed.keys[0].public = private(99).public();
    world.command(Command::Upsert(Box::new(rekeyed), Default::default()));
    let told = |world: &Plain| world.news.iter().any(|news| matches!(news, TunnelEvent::FirstHandshake(_)));
    let none = evidence(&mut world);
    assert_eq!((none.last_packet, none.last_handshake, none.established), (None, None, false));
    world.end(2).device.session = plain_session(99, None, world.now);
    world.end(2).deaf = true;
    world.initiate(2);
    world.run(20 * SECOND);
    assert!(!told(&world), "the answer was lost");
    world.end(2).deaf = false;
    world.run(20 * SECOND);
    assert!(told(&world) && world.established(2));
}

/// A packet ends the silence of a device that may have been given up, so it is reported at once. A
/// packet that merely follows another is not.
#[test]
fn a_packet_after_a_silence_is_news_and_the_next_one_is_not() {
    let mut world = called(plain(1));
    let heard = |world: &mut Plain| {
        world.say(2, &[]);
        world.run(SECOND);
        std::mem::take(&mut world.news).iter().filter(|news| matches!(news, TunnelEvent::Heard(_))).count()
    };
    for (silence, news) in [(1, 0), (30, 0), (50, 1), (1, 0)] {
        world.end(2).off = silence > 30;
        world.run(silence * SECOND);
        world.end(2).off = false;
        assert_eq!(heard(&mut world), news, "after {silence} s");
    }
}

#[test]
fn a_handshake_that_was_answered_before_it_was_asked_for_is_no_answer() {
    let mut world = called(plain(1));
    world.initiate(2);
    // The response is made and in flight.
    world.run(DELAY + Duration::from_millis(1));
    world.end(2).off = true;
    let (answer, _) = world.handshake(2);
    assert_eq!(answer, ProbeReply::Handshake(Err(ConnectFailure::Timeout)));
}

/// A packet that merely arrives proves one direction.
fn only_an_answer_proves_both_directions<N: Noise, S: Session>(mut world: World<N, S>) {
    assert!(matches!(world.echo(2, v4(2), 1), ProbeReply::Echo(echo) if echo.rtts == [RTT]));
    let before = evidence(&mut world);
    assert!(before.last_answer.is_some());
    world.end(2).deaf = true;
    world.echo(2, v4(2), 1);
    assert_eq!(world.connect(2, v4(2), 22), ProbeReply::Connect(Err(ConnectFailure::Timeout)));
    world.say(2, &[]);
    world.run(SECOND);
    let after = evidence(&mut world);
    assert!(after.last_packet > before.last_packet);
    assert_eq!(after.last_answer, before.last_answer);
    world.end(2).deaf = false;
    world.connect(2, v4(2), 22);
    assert!(evidence(&mut world).last_answer > before.last_answer, "refused or accepted");
}

#[test]
fn a_packet_that_merely_arrives_proves_one_direction() {
    only_an_answer_proves_both_directions(called(plain(1)));
    only_an_answer_proves_both_directions(called(ours()));
}

/// A device that receives nothing keeps using its session for as long as the protocol allows.
#[test]
fn failed_handshakes_do_not_shorten_a_session() {
    for device_tries in [false, true] {
        let mut world = called(ours());
        world.end(2).deaf = true;
        let end = world.now.mono + 150 * SECOND;
        while world.now.mono < end {
            world.ask(Probe::Handshake { peer: id(2) }, 10 * SECOND);
            if device_tries {
                world.initiate(2);
            }
            world.run(4 * SECOND);
            let said = world.now.mono;
            world.say(2, &[]);
            world.run(SECOND);
            let heard = evidence(&mut world).last_packet;
            assert!(heard >= Some(said), "{said:?}, device tries: {device_tries}");
        }
    }
}
