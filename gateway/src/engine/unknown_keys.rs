//! The keys of handshakes that belong to no device, as a list of the last ones.
//!
//! A sender can name any key, so a key here proves nothing, and a stranger can fill the list. It is
//! short, and lives in memory only.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_keys::PublicKey;

/// Keys that are kept: as many as a person compares with those of new devices.
pub const KEPT: usize = 16;
/// The shortest time between two lines in the log.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// A key that belongs to no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    pub key: PublicKey,
    pub from: SocketAddr,
    pub last_at: Wall,
    /// The number of reports: the tunnel reports a key at most once a minute.
    pub reports: u64,
}

#[derive(Debug, Default)]
pub struct UnknownKeys {
    /// The newest last.
    recent: VecDeque<UnknownKey>,
    logged: Option<Mono>,
    /// Reports since the last line in the log.
    unlogged: u64,
}

impl UnknownKeys {
    /// Records a report. Returns whether to log it, with the number of reports that were not logged
    /// before it.
    pub fn note(&mut self, key: PublicKey, from: SocketAddr, now: Now) -> Option<u64> {
        let known = self.recent.iter().position(|known| known.key == key);
        let before = known.and_then(|at| self.recent.remove(at)).map_or(0, |known| known.reports);
        if self.recent.len() >= KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(UnknownKey { key, from, last_at: now.wall, reports: before + 1 });
        if self.logged.is_some_and(|at| now.mono.since(at) < LOGGED_EVERY) {
            self.unlogged += 1;
            return None;
        }
        self.logged = Some(now.mono);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// Returns the keys, the newest first.
    pub fn recent(&self) -> Vec<UnknownKey> {
        self.recent.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_keys::PrivateKey;

    use super::*;

    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Wall::from_millis(secs as i64 * 1_000) }
    }

    fn key(n: u8) -> PublicKey {
        PrivateKey::from_bytes([n; 32]).public()
    }

    fn from() -> SocketAddr {
        "192.0.2.9:1024".parse().expect("an address")
    }

    #[test]
    fn the_last_keys_are_kept_and_a_flood_writes_a_line_a_minute() {
        let mut keys = UnknownKeys::default();
        assert_eq!(keys.note(key(1), from(), at(0)), Some(0));
        let logged = (2..=100).filter_map(|n| keys.note(key(n), from(), at(1))).count();
        assert_eq!((logged, keys.recent().len()), (0, KEPT));
        assert_eq!(keys.recent()[0].key, key(100));
        assert_eq!(keys.note(key(100), from(), at(60)), Some(99));
        let newest = &keys.recent()[0];
        assert_eq!((newest.reports, newest.last_at, keys.recent().len()), (2, at(60).wall, KEPT));
    }
}
