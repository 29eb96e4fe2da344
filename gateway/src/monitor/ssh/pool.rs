//! Keeps connections between two runs. The caller passes the time; the content of a connection does not
//! matter here.
//!
//! When there are more hosts than places, a connection that is needed later makes room for one that is
//! needed earlier. Checks come at regular intervals, one host after the other. If the connection that
//! is unused for the longest made room, each would be closed shortly before its next run, and none
//! would ever be reused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Mono;

use super::SessionKey;

/// Hosts whose last run is remembered, 40 bytes each. Further hosts count as if they ran for the first
/// time.
const MAX_REMEMBERED: usize = 100_000;

struct Kept<C> {
    key: SessionKey,
    connection: C,
    since: Mono,
    /// The time at which its next run is expected.
    due: Mono,
}

/// A look-up walks the list: the few hundred entries that the limit allows are cheaper to compare than
/// one packet is to encrypt.
pub(super) struct Pool<C> {
    kept: Vec<Kept<C>>,
    limit: usize,
    idle: Duration,
    /// The time of each host's last run, from which the next one is predicted.
    ran: BTreeMap<HostId, Mono>,
    running: Vec<(HostId, Weak<AtomicBool>)>,
    swept: bool,
}

/// A run in progress. Its connection is not kept if the host was forgotten meanwhile.
pub(super) struct Run(Arc<AtomicBool>);

impl<C> Pool<C> {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        let (kept, ran, running) = (Vec::new(), BTreeMap::new(), Vec::new());
        Pool { kept, limit, idle, ran, running, swept: false }
    }

    pub(super) fn begin(&mut self, host: HostId) -> Run {
        self.running.retain(|(_, run)| run.strong_count() > 0);
        let holds = Arc::new(AtomicBool::new(true));
        self.running.push((host, Arc::downgrade(&holds)));
        Run(holds)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Takes the most recent connection that fits.
    pub(super) fn take(&mut self, fits: impl Fn(&SessionKey, &C) -> bool, now: Mono) -> Option<C> {
        self.expire(now);
        let fitting = self.kept.iter().enumerate().filter(|(_, kept)| fits(&kept.key, &kept.connection));
        let (at, _) = fitting.max_by_key(|(_, kept)| kept.since)?;
        Some(self.kept.swap_remove(at).connection)
    }

    /// Keeps a connection. Returns whether the caller has to start sweeping.
    #[must_use]
    pub(super) fn put(&mut self, key: SessionKey, connection: C, run: &Run, now: Mono) -> bool {
        let again = self.ran_again(key.host, now);
        if !run.0.load(Ordering::Relaxed) || again > self.idle {
            return false;
        }
        self.kept.retain(|kept| kept.key != key);
        let due = now + again;
        if !self.has_room(due, now) {
            return false;
        }
        self.kept.push(Kept { key, connection, since: now, due });
        !std::mem::replace(&mut self.swept, true)
    }

    pub(super) fn forget(&mut self, host: HostId) {
        let runs = self.running.iter().filter(|(of, _)| *of == host);
        runs.filter_map(|(_, run)| run.upgrade()).for_each(|holds| holds.store(false, Ordering::Relaxed));
        self.kept.retain(|kept| kept.key.host != host);
        self.ran.remove(&host);
    }

    /// Drops expired connections. Returns the time of the next sweep; `None` when nothing is left.
    pub(super) fn sweep(&mut self, now: Mono) -> Option<Mono> {
        self.expire(now);
        let next = self.kept.iter().map(|kept| kept.since + self.idle).min();
        self.swept = next.is_some();
        next
    }

    fn expire(&mut self, now: Mono) {
        self.kept.retain(|kept| now < kept.since + self.idle);
    }

    /// Returns the time since the host's last run, or the longest possible one if that is unknown.
    fn ran_again(&mut self, host: HostId, now: Mono) -> Duration {
        if self.ran.len() >= MAX_REMEMBERED {
            let idle = self.idle;
            self.ran.retain(|_, at| now < *at + idle);
        }
        let before = match self.ran.len() < MAX_REMEMBERED || self.ran.contains_key(&host) {
            true => self.ran.insert(host, now),
            false => None,
        };
        before.map_or(self.idle, |before| now.since(before))
    }

    /// Makes room for a connection that is due at this time: one that is needed later, or is overdue, gives
    /// way.
    fn has_room(&mut self, due: Mono, now: Mono) -> bool {
        if self.kept.len() < self.limit {
            return true;
        }
        // An overdue connection counts as needed last.
        let needed = |kept: &Kept<C>| (kept.due + kept.due.since(kept.since) / 2 < now, kept.due);
        let last = self.kept.iter().enumerate().max_by_key(|(_, kept)| needed(kept));
        let Some((at, _)) = last.filter(|(_, kept)| needed(kept) > (false, due)) else { return false };
        self.kept.swap_remove(at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetgate_engine::messages::Route;

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

    fn put(pool: &mut Pool<&'static str>, host: i64, name: &'static str, now: Mono) -> bool {
        let run = pool.begin(HostId::from_i64(host));
        pool.put(key(host), name, &run, now)
    }

    #[test]
    fn a_kept_connection_is_taken_once() {
        let mut pool = pool(4);
        assert!(put(&mut pool, 1, "a", Mono::ZERO), "the first needs a sweeper");
        assert!(!put(&mut pool, 2, "b", Mono::ZERO), "which then is there");
        assert_eq!(take(&mut pool, 1, Mono::ZERO), Some("a"));
        assert_eq!(take(&mut pool, 1, Mono::ZERO), None);
    }

    #[test]
    fn no_connection_is_kept_longer_than_allowed() {
        let mut pool = pool(4);
        put(&mut pool, 1, "a", Mono::ZERO);
        put(&mut pool, 2, "b", Mono::from_secs(100));
        assert_eq!(pool.sweep(Mono::from_secs(299)), Some(Mono::from_secs(300)));
        assert_eq!(pool.sweep(Mono::from_secs(300)), Some(Mono::from_secs(400)));
        assert_eq!(take(&mut pool, 1, Mono::from_secs(300)), None);
        assert_eq!(take(&mut pool, 2, Mono::from_secs(400)), None);
        assert_eq!(pool.sweep(Mono::from_secs(400)), None);
        assert!(put(&mut pool, 3, "c", Mono::from_secs(500)), "sweeping starts again");
    }

    /// Returns how many of a hundred runs find their connection, once each host has run a few times.
    fn found(hosts: u64, limit: usize, interval: u64) -> u64 {
        let mut pool = pool(limit);
        let (mut found, rounds) = (0, 20);
        for round in 0..rounds {
            for host in 0..hosts {
                let now = Mono::ZERO
                    + Duration::from_millis(round * interval * 1_000 + host * interval * 1_000 / hosts);
                let run = pool.begin(HostId::from_i64(host as i64));
                found += u64::from(take(&mut pool, host as i64, now).is_some() && round >= 10);
                let _ = pool.put(key(host as i64), "c", &run, now);
                assert!(pool.len() <= limit);
            }
        }
        found * 100 / (hosts * 10)
    }

    #[test]
    fn each_place_is_used_however_many_hosts_there_are() {
        assert_eq!(found(256, 256, 60), 100);
        assert!((84..=86).contains(&found(300, 256, 60)), "{}", found(300, 256, 60));
        assert!((24..=26).contains(&found(1_024, 256, 60)), "{}", found(1_024, 256, 60));
        assert_eq!(found(10, 256, 301), 0, "what is closed before its next run is not kept");
    }

    #[test]
    fn connections_that_do_not_return_free_their_place() {
        let mut pool = pool(1);
        for now in [0, 60, 120] {
            take(&mut pool, 1, Mono::from_secs(now));
            put(&mut pool, 1, "a", Mono::from_secs(now));
            put(&mut pool, 2, "b", Mono::from_secs(now + 30));
        }
        assert_eq!(take(&mut pool, 2, Mono::from_secs(180)), None, "the other one is due earlier");
        put(&mut pool, 2, "b", Mono::from_secs(220));
        assert_eq!(take(&mut pool, 2, Mono::from_secs(280)), Some("b"), "the other one was due at 180 s");
    }

    #[test]
    fn a_forgotten_host_does_not_come_back_from_a_run_in_progress() {
        let mut pool = pool(2);
        let (run, other) = (pool.begin(HostId::from_i64(1)), pool.begin(HostId::from_i64(2)));
        put(&mut pool, 1, "a", Mono::ZERO);
        pool.forget(HostId::from_i64(1));
        assert_eq!(pool.len(), 0);
        let _ = pool.put(key(1), "b", &run, Mono::ZERO);
        assert_eq!(pool.len(), 0);
        let _ = pool.put(key(2), "c", &other, Mono::ZERO);
        assert_eq!(take(&mut pool, 2, Mono::ZERO), Some("c"), "another host's run keeps its connection");
    }

    #[test]
    fn the_record_of_runs_is_bounded() {
        let mut pool = pool(1);
        for host in 0..MAX_REMEMBERED as i64 + 10 {
            put(&mut pool, host, "a", Mono::ZERO);
        }
        assert_eq!((pool.ran.len(), pool.running.len()), (MAX_REMEMBERED, 1));
        put(&mut pool, -1, "a", Mono::from_secs(300));
        assert_eq!(pool.ran.len(), 1, "who did not run for so long is not expected");
    }
}
