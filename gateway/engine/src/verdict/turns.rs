//! The source addresses of one key's packets, in the order of its moves.
//!
//! A device that roams leaves an address for good. Two devices with one key move it back and forth
//! at the pace of their keepalives. The module knows nothing else about a peer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Wall;

/// Moves that are kept: enough for two devices to alternate four times, and three devices almost
/// three times.
const KEPT: usize = 8;
/// After more time than this, a return to an address is a device that comes home.
const RETURN_WITHIN: Duration = Duration::from_secs(600);
/// Returns that show alternation. A phone that leaves a wireless network and comes back returns
/// once; a link that fails, perhaps twice.
const RETURNS: usize = 3;
/// How long the evidence counts after the last return. A key does not become secret again.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// The last moves of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns(VecDeque<(SocketAddr, Wall)>);

impl Turns {
    /// Records the source of a packet.
    pub fn note(&mut self, from: SocketAddr, at: Wall) {
        if self.0.back().is_some_and(|(last, _)| *last == from) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((from, at));
    }

    /// Returns when the packets began to come from the present address.
    pub fn moved(&self) -> Option<Wall> {
        self.0.back().filter(|_| self.0.len() > 1).map(|(_, at)| *at)
    }

    /// Returns the addresses that were returned to, if roaming does not explain it.
    pub fn in_turn(&self, now: Wall) -> Vec<SocketAddr> {
        let returned = |(i, (to, at)): (usize, &(SocketAddr, Wall))| {
            let before = self.0.range(..i).rev().find(|(there, _)| there == to);
            // The clock may have been set in between, in either direction.
            let apart = |left: Wall| at.since(left).max(left.since(*at));
            before.filter(|(_, left)| apart(*left) <= RETURN_WITHIN).map(|_| (*to, *at))
        };
        let returns: Vec<(SocketAddr, Wall)> = self.0.iter().enumerate().filter_map(returned).collect();
        // A time in the future is from before the clock was set back.
        let lately = returns.last().is_some_and(|(_, at)| *at <= now && now.since(*at) <= REMEMBERED);
        if returns.len() < RETURNS || !lately {
            return Vec::new();
        }
        let mut addresses: Vec<SocketAddr> = returns.into_iter().map(|(to, _)| to).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    fn moves(ports: &[u16], every_s: i64) -> Turns {
        let mut turns = Turns::default();
        for (i, port) in (0i64..).zip(ports) {
            turns.note(SocketAddr::from(([192, 0, 2, 1], *port)), at(i * every_s));
        }
        turns
    }

    #[test]
    fn two_devices_with_one_key_come_in_turn() {
        let turns = moves(&[1, 2, 1, 2, 1], 12);
        assert_eq!(turns.in_turn(at(60)).len(), 2);
        assert_eq!(moves(&[1, 2, 1, 2], 12).in_turn(at(60)), [], "a link that fails twice");
        assert_eq!(turns.in_turn(at(48 + 3_601)), [], "long ago");
        assert_eq!(moves(&[1, 2, 3, 1, 2, 3], 12).in_turn(at(60)).len(), 3, "three devices");
    }

    #[test]
    fn returns_from_before_the_clock_was_set_back_do_not_last_until_it_shows_that_time_again() {
        assert_eq!(moves(&[1, 2, 1, 2, 1], 12).in_turn(at(30)), [], "the last return is of the future");
        // Home and away within a day, with the clock set back by a day in between: no return came
        // within ten minutes.
        let mut turns = moves(&[1, 2, 3, 4], 3_600);
        for (port, hours) in [(1, 5), (2, 6), (3, 7), (4, 8)] {
            turns.note(SocketAddr::from(([192, 0, 2, 1], port)), at((hours - 24) * 3_600));
        }
        assert_eq!(turns.in_turn(at(-16 * 3_600)), []);
    }

    #[test]
    fn a_device_that_roams_comes_in_no_turn() {
        assert_eq!(moves(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 12).in_turn(at(120)), []);
        assert_eq!(moves(&[1, 2, 1, 2, 1, 2], 700).in_turn(at(4_000)), [], "home and away");
        assert_eq!(moves(&[1, 1, 1, 1, 1, 1, 1], 12).in_turn(at(90)), []);
    }
}
