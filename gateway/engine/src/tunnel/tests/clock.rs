//! The gateway's wall clock is set: which times of a peer are published afterwards.

use std::time::Duration;

use fleetgate_keys::PresharedKey;

use super::world::*;
use crate::messages::{Command, PeerSnapshot, PeerStatus, Probe, TunnelEvent};
use crate::time::Wall;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

impl Plain {
    /// Sets the clock. The device's check then requests evidence, as it does every minute.
    fn set_clock(&mut self, to: Wall) {
        self.now.wall = to;
        self.ask(Probe::Evidence { peer: id(2) }, MINUTE);
        self.run(Duration::from_secs(3));
    }

    /// Returns the last published status of device `n`.
    fn told(&self, n: u8) -> PeerStatus {
        let of = |news: &TunnelEvent| match news {
            TunnelEvent::Status(peer, status) if *peer == id(n) => Some((**status).clone()),
            _ => None,
        };
        self.news.iter().rev().find_map(of).expect("it was told of")
    }
}

#[test]
fn the_last_activity_of_a_silent_peer_is_rebased_after_a_clock_step_back() {
    let mut world = connected(1);
    world.echo(2, v4(2), 1);
    world.end(2).off = true;
    world.run(10 * MINUTE);
    let (before, was) = (world.told(2), world.now.wall);
    world.set_clock(world.now.wall - HOUR);
    let after = world.told(2);
    for at in
        [|s: &PeerStatus| s.last_packet, |s: &PeerStatus| s.last_handshake, |s: &PeerStatus| s.last_answer]
    {
        let (before, after) = (at(&before).expect("a time"), at(&after).expect("a time"));
        assert_eq!(after, before - HOUR);
        assert!(after < world.now.wall && before < was);
    }
    let skew = |status: &PeerStatus| status.clock_skew_ms.expect("its clock is known");
    assert_eq!(skew(&after), skew(&before) + 3_600_000);
}

#[test]
fn handshakes_in_vain_keep_their_age_when_the_clock_is_set_back() {
    let mut spec = spec(2);
    spec.keys[0].psk = Some(PresharedKey::from_bytes([1; 32]));
    let mut world = plain(1);
    world.command(Command::Remove(id(2)));
    world.command(Command::Upsert(Box::new(spec), PeerSnapshot::default()));
    for _ in 0..4 {
        world.initiate(2);
        world.run(Duration::from_millis(4_990));
    }
    world.end(2).off = true;
    world.run(MINUTE);
    let before = world.status(2);
    world.set_clock(world.now.wall - HOUR);
    let after = world.told(2);
    let (was, is) = (before.attempts.unproved.expect("a sign"), after.attempts.unproved.expect("a sign"));
    assert_eq!((is.since, is.last, is.count), (was.since - HOUR, was.last - HOUR, was.count));
    assert_eq!(after.attempts.pending, before.attempts.pending.map(|at| at - HOUR));
    let refused = |status: &PeerStatus| status.last_refusal.expect("it was dialled").0;
    assert_eq!(refused(&after), refused(&before) - HOUR);
}

#[test]
fn a_clock_that_is_set_ahead_leaves_the_order_of_what_is_stored() {
    let mut world = connected(1);
    world.end(2).off = true;
    world.run(10 * MINUTE);
    let before = world.status(2);
    world.set_clock(world.now.wall + HOUR);
    let after = world.told(2);
    assert_eq!((after.last_packet, after.last_handshake), (before.last_packet, before.last_handshake));
    assert_eq!(after.clock_skew_ms, before.clock_skew_ms.map(|skew| skew - 3_600_000));
}
