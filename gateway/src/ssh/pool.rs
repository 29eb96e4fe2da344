//! Connections between two runs: the most recent ones, for a while. Told the time; knows nothing
//! of what it keeps.

use std::collections::VecDeque;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Mono;

use super::SessionKey;

struct Kept<C> {
    key: SessionKey,
    connection: C,
    since: Mono,
}

/// Ordered by the time of their last run, the oldest first. A look-up is a walk: the few hundred
/// entries that the limit allows are cheaper to compare than one packet is to encrypt.
pub(super) struct Pool<C> {
    kept: VecDeque<Kept<C>>,
    limit: usize,
    idle: Duration,
    /// Counts what was forgotten, so that a run in progress does not bring it back.
    epoch: u64,
    swept: bool,
}

impl<C> Pool<C> {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Pool { kept: VecDeque::new(), limit, idle, epoch: 0, swept: false }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The most recent one that fits.
    pub(super) fn take(&mut self, fits: impl Fn(&SessionKey, &C) -> bool, now: Mono) -> Option<C> {
        self.expire(now);
        let at = self.kept.iter().rposition(|kept| fits(&kept.key, &kept.connection))?;
        self.kept.remove(at).map(|kept| kept.connection)
    }

    /// `epoch`: when the run began. Returns whether somebody has to start sweeping.
    #[must_use]
    pub(super) fn put(&mut self, key: SessionKey, connection: C, epoch: u64, now: Mono) -> bool {
        if epoch != self.epoch || self.limit == 0 {
            return false;
        }
        self.kept.retain(|kept| kept.key != key);
        while self.kept.len() >= self.limit {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { key, connection, since: now });
        !std::mem::replace(&mut self.swept, true)
    }

    pub(super) fn forget(&mut self, host: HostId) {
        self.epoch += 1;
        self.kept.retain(|kept| kept.key.host != host);
    }

    /// Drops what is too old and says when to come again; `None`: nothing is left to sweep.
    pub(super) fn sweep(&mut self, now: Mono) -> Option<Mono> {
        self.expire(now);
        let next = self.kept.front().map(|kept| kept.since + self.idle);
        self.swept = next.is_some();
        next
    }

    fn expire(&mut self, now: Mono) {
        while self.kept.front().is_some_and(|kept| now >= kept.since + self.idle) {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetgate_engine::wire::Route;

    const IDLE: Duration = Duration::from_secs(300);

    fn key(host: i64) -> SessionKey {
        let route = Route::Direct { host: "camera.example".to_owned() };
        SessionKey { host: HostId::from_i64(host), route, port: 22 }
    }

    fn pool(limit: usize) -> Pool<&'static str> {
        Pool::new(limit, IDLE)
    }

    fn take(pool: &mut Pool<&'static str>, host: i64, now: Mono) -> Option<&'static str> {
        pool.take(|k, _| *k == key(host), now)
    }

    #[test]
    fn what_is_put_is_taken_once() {
        let mut pool = pool(4);
        assert!(pool.put(key(1), "a", 0, Mono::ZERO), "the first needs a sweeper");
        assert!(!pool.put(key(2), "b", 0, Mono::ZERO), "which then is there");
        assert_eq!(take(&mut pool, 1, Mono::ZERO), Some("a"));
        assert_eq!(take(&mut pool, 1, Mono::ZERO), None);
    }

    #[test]
    fn nothing_is_kept_longer_than_allowed() {
        let mut pool = pool(4);
        let _ = pool.put(key(1), "a", 0, Mono::ZERO);
        let _ = pool.put(key(2), "b", 0, Mono::from_secs(100));
        assert_eq!(pool.sweep(Mono::from_secs(299)), Some(Mono::from_secs(300)));
        assert_eq!(pool.sweep(Mono::from_secs(300)), Some(Mono::from_secs(400)));
        assert_eq!(take(&mut pool, 1, Mono::from_secs(300)), None);
        assert_eq!(take(&mut pool, 2, Mono::from_secs(400)), None);
        assert_eq!(pool.sweep(Mono::from_secs(400)), None);
        assert!(pool.put(key(1), "c", 0, Mono::from_secs(500)), "sweeping starts again");
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut pool = pool(2);
        for (host, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let _ = pool.put(key(host), name, 0, Mono::ZERO);
        }
        assert_eq!(take(&mut pool, 1, Mono::ZERO), None);
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn a_forgotten_host_does_not_come_back_from_a_run_in_progress() {
        let mut pool = pool(2);
        let began = pool.epoch();
        let _ = pool.put(key(1), "a", began, Mono::ZERO);
        pool.forget(HostId::from_i64(1));
        assert_eq!(pool.len(), 0);
        let _ = pool.put(key(1), "b", began, Mono::ZERO);
        assert_eq!(pool.len(), 0);
    }
}
