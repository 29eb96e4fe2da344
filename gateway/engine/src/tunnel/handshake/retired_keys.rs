//! Former keys of peers: a device that makes handshakes with one has an old configuration.
//!
//! Only the holder of the private key can make an initiation whose stamp opens, so a stranger
//! cannot make one. A stranger can replay a captured one, which is refused because the newest stamp
//! under each key is kept. Two new initiations whose stamps advance with time show that they are
//! being made now. The gateway answers none of them. This module knows no sessions.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fleetgate_keys::PublicKey;

use crate::id::PeerId;
use crate::messages::{RetiredKey, Tai64n};
use crate::time::{Mono, Now, Wall};
use crate::tunnel::handshake::failures::Sign;

/// Keys that are kept, the most recently replaced; about 200 bytes each.
pub const MAX_RETIRED: usize = 16_384;

/// Minimum time between two evaluated initiations under one key. A client repeats one every five
/// seconds.
const GAP: Duration = Duration::from_secs(1);

struct RetiredKeyState {
    peer: PeerId,
    at: Wall,
    stamp: Option<Tai64n>,
    heard: Option<Mono>,
    /// Evidence from initiations newer than the newest stamp, and from the others.
    newer: Sign,
    stale: Sign,
}

/// The verdict on an initiation under a retired key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Not newer than the newest one: a replay, or a device whose clock went back. `goes_on`: its
    /// stamps advance with time. They do so for a living device, and for a stranger who replays
    /// captured initiations at their pace.
    Stale {
        peer: PeerId,
        replaced_at: Wall,
        goes_on: bool,
    },
    TooSoon,
    /// A new one. `made_now`: its stamp advances from the last one as that of a living device does.
    New {
        peer: PeerId,
        replaced_at: Wall,
        made_now: bool,
    },
}

/// The table.
#[derive(Default)]
pub struct Retired {
    keys: HashMap<PublicKey, RetiredKeyState>,
    by_age: BTreeSet<(Wall, PublicKey)>,
}

impl Retired {
    pub fn add(&mut self, key: RetiredKey) {
        let RetiredKey { public, peer, at, stamp } = key;
        self.forget(&public);
        self.by_age.insert((at, public));
        self.keys.insert(
            public,
            RetiredKeyState { peer, at, stamp, heard: None, newer: Sign::default(), stale: Sign::default() },
        );
        if self.keys.len() > MAX_RETIRED
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Forgets a key that is in use again.
    pub fn forget(&mut self, key: &PublicKey) {
        if let Some(known) = self.keys.remove(key) {
            self.by_age.remove(&(known.at, *key));
        }
    }

    pub fn contains(&self, key: &PublicKey) -> bool {
        self.keys.contains_key(key)
    }

    /// Returns the former owner, and when the key was replaced.
    pub fn owner(&self, key: &PublicKey) -> Option<(PeerId, Wall)> {
        self.keys.get(key).map(|known| (known.peer, known.at))
    }

    /// Judges an authentic initiation under this key.
    pub fn knock(&mut self, key: &PublicKey, stamp: Tai64n, now: Now) -> Option<Knock> {
        let known = self.keys.get_mut(key)?;
        let (peer, replaced_at) = (known.peer, known.at);
        if known.stamp.is_some_and(|newest| stamp <= newest) {
            return Some(Knock::Stale { peer, replaced_at, goes_on: known.stale.note(stamp, now) });
        }
        if known.heard.is_some_and(|at| now.mono.since(at) < GAP) {
            return Some(Knock::TooSoon);
        }
        (known.stamp, known.heard) = (Some(stamp), Some(now.mono));
        let made_now = known.newer.note(stamp, now);
        Some(Knock::New { peer, replaced_at, made_now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::tunnel::handshake::tai64n::from_unix_ms;

    fn key(n: u16) -> PublicKey {
        let mut bytes = [9; 32];
        bytes[1..3].copy_from_slice(&n.to_le_bytes());
        bytes[31] = 0;
        PublicKey::from_bytes(bytes).expect("an ordinary point")
    }

    fn now(seconds: i64) -> Now {
        Now { mono: Mono::from_secs(seconds.cast_unsigned()), wall: Wall::from_millis(seconds * 1_000) }
    }

    fn retired(n: u16, stamp: Option<i64>) -> RetiredKey {
        let stamp = stamp.map(|seconds| from_unix_ms(seconds * 1_000));
        RetiredKey { public: key(n), peer: Id::from_i64(7), at: Wall::from_millis(i64::from(n)), stamp }
    }

    /// Returns the verdicts on initiations, given as (arrival in s, stamp in s).
    fn knocks(newest: Option<i64>, initiations: &[(i64, i64)]) -> Vec<&'static str> {
        let mut table = Retired::default();
        table.add(retired(1, newest));
        let name =
            |(came, made): &(i64, i64)| match table.knock(&key(1), from_unix_ms(made * 1_000), now(*came)) {
                None => "unknown",
                Some(Knock::Stale { goes_on: false, .. }) => "stale",
                Some(Knock::Stale { goes_on: true, .. }) => "stale, goes on",
                Some(Knock::TooSoon) => "too soon",
                Some(Knock::New { made_now: false, .. }) => "new",
                Some(Knock::New { made_now: true, .. }) => "made now",
            };
        initiations.iter().map(name).collect()
    }

    #[test]
    fn two_initiations_whose_timestamps_advance_with_time_are_made_now() {
        assert_eq!(knocks(None, &[(100, 100), (105, 105), (110, 110)]), ["new", "made now", "made now"]);
        assert_eq!(
            knocks(None, &[(100, -900), (105, -895)]),
            ["new", "made now"],
            "whatever its clock shows"
        );
        assert_eq!(knocks(None, &[(100, 100), (400, 400)]), ["new", "new"], "too far apart");
    }

    #[test]
    fn replayed_initiations_are_not_taken_for_current_ones() {
        assert_eq!(knocks(Some(50), &[(100, 40), (101, 45), (102, 50)]), ["stale"; 3]);
        assert_eq!(
            knocks(Some(50), &[(100, 40), (105, 45)]),
            ["stale", "stale, goes on"],
            "or a clock went back"
        );
        assert_eq!(knocks(None, &[(100, 40), (101, 45), (102, 50)]), ["new"; 3], "at another pace");
        assert_eq!(knocks(None, &[(100, 40), (105, 40)]), ["new", "stale"], "the same again");
    }

    #[test]
    fn initiations_faster_than_a_client_sends_are_ignored() {
        assert_eq!(knocks(None, &[(100, 100), (100, 101), (101, 102)]), ["new", "too soon", "made now"]);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes_first() {
        let mut table = Retired::default();
        let all = u16::try_from(MAX_RETIRED).expect("few") + 1;
        (0..all).for_each(|n| table.add(retired(n, None)));
        assert_eq!((table.keys.len(), table.by_age.len()), (MAX_RETIRED, MAX_RETIRED));
        assert!(!table.contains(&key(0)) && table.contains(&key(1)) && table.contains(&key(all - 1)));
    }

    #[test]
    fn a_key_that_is_in_use_again_is_not_retired() {
        let mut table = Retired::default();
        table.add(retired(1, None));
        table.forget(&key(1));
        assert_eq!(table.knock(&key(1), from_unix_ms(0), now(1)), None);
        assert!(table.by_age.is_empty());
    }
}
