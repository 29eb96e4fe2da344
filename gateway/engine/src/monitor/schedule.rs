//! Scheduling: slots, retries, the queue of due hosts, and the probes in flight.
//!
//! Every operation costs O(log n) of the hosts. This module knows no states and sends no probes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::messages::{ProbeId, Timing};
use crate::time::{Mono, Now, Wall};

/// The shortest interval for which slots are laid out; a configured one is longer.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A reply is given up this long after its probe's timeout. Its carrier has failed by then, and the
/// check must not hang forever.
pub const ANSWER_SLACK: Duration = Duration::from_secs(10);

/// After a restart, a state is not current if its last result is older than this many intervals.
const STALE_INTERVALS: u32 = 2;

/// Returns a planned time of an earlier run, if it is still ahead.
pub fn ahead(planned: Option<Wall>, now: Now) -> Option<Mono> {
    planned.filter(|at| *at > now.wall).map(|at| now.mono + at.since(now.wall))
}

/// Whether the last result of an earlier run is too old to be current.
pub fn is_outdated(last_check: Option<Wall>, timing: &Timing, now: Now) -> bool {
    last_check.is_some_and(|at| now.wall.since(at) > timing.interval.saturating_mul(STALE_INTERVALS))
}

/// A small generator for jitter (SplitMix64); none of its values is a secret.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    /// Returns a value in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a factor within 10 % of one, for retries.
    pub fn retry_factor(&mut self) -> f64 {
        0.9 + 0.2 * self.unit()
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The positions of slots. They are tied to the calendar once, at the start, so that they are the
/// same after a restart and do not move when the wall clock steps.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Nanoseconds from the boot-time clock to the calendar, as read at the start.
    offset: i128,
}

impl Slots {
    pub fn new(now: Now) -> Self {
        let wall = i128::from(now.wall.as_millis()) * 1_000_000;
        Slots { offset: wall - i128::from(now.mono.as_nanos()) }
    }

    /// Returns the next slot of a host after `now`: phase + k * interval. The phase depends only on
    /// the host, so that all its checks of one interval coincide. Missed slots are not made up.
    pub fn next(&self, host: HostId, interval: Duration, now: Mono) -> Mono {
        let interval = interval.max(MIN_INTERVAL).as_nanos() as i128;
        let phase = i128::from(mix(host.as_i64() as u64)) % interval;
        let position = i128::from(now.as_nanos()) + self.offset - phase;
        let wait = interval - position.rem_euclid(interval);
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// The hosts by the time of their next action.
#[derive(Debug, Default)]
pub struct DueQueue {
    due: BTreeSet<(Mono, HostId)>,
    when: BTreeMap<HostId, Mono>,
}

impl DueQueue {
    pub fn set(&mut self, host: HostId, at: Option<Mono>) {
        let before = match at {
            Some(at) => self.when.insert(host, at),
            None => self.when.remove(&host),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, host));
        }
        if let Some(at) = at {
            self.due.insert((at, host));
        }
    }

    pub fn first(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn is_planned(&self, host: HostId) -> bool {
        self.when.contains_key(&host)
    }

    /// Takes the host that has waited longest, if any is due.
    pub fn pop_due(&mut self, now: Mono) -> Option<HostId> {
        let (at, host) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, host));
        self.when.remove(&host);
        Some(host)
    }
}

/// The probes without a reply yet. `T` names the part of the host that sent the probe.
#[derive(Debug)]
pub struct InFlight<T> {
    last: u64,
    open: BTreeMap<ProbeId, (HostId, T, Mono)>,
    given_up: BTreeSet<(Mono, ProbeId)>,
}

impl<T> InFlight<T> {
    pub fn new() -> Self {
        InFlight { last: 0, open: BTreeMap::new(), given_up: BTreeSet::new() }
    }

    pub fn open(&mut self, host: HostId, what: T, timeout: Duration, now: Mono) -> ProbeId {
        self.last += 1;
        let id = ProbeId(self.last);
        let given_up = now + timeout + ANSWER_SLACK;
        self.open.insert(id, (host, what, given_up));
        self.given_up.insert((given_up, id));
        id
    }

    /// Closes a probe; `None` if it was closed before, so that its reply must be ignored.
    pub fn close(&mut self, id: ProbeId) -> Option<(HostId, T)> {
        let (host, what, given_up) = self.open.remove(&id)?;
        self.given_up.remove(&(given_up, id));
        Some((host, what))
    }

    /// Returns a probe whose reply will not come.
    pub fn overdue(&self, now: Mono) -> Option<ProbeId> {
        self.given_up.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    pub fn first_overdue(&self) -> Option<Mono> {
        self.given_up.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn is_open(&self, host: HostId) -> bool {
        self.open.values().any(|(asker, ..)| *asker == host)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: Wall::from_millis(1_800_000_000_000 + secs as i64 * 1000) }
    }

    #[test]
    fn the_slots_of_a_host_are_the_same_after_a_restart() {
        let host = HostId::from_i64(77);
        let before = Slots::new(at(1_000)).next(host, MINUTE, Mono::from_secs(1_000));
        let rebooted = Now { mono: Mono::from_secs(3), wall: at(1_000).wall };
        let after = Slots::new(rebooted).next(host, MINUTE, rebooted.mono);
        assert_eq!(before.since(Mono::from_secs(1_000)), after.since(Mono::from_secs(3)));
    }

    #[test]
    fn a_slower_check_shares_every_fifth_slot_of_a_faster_one() {
        let (slots, host) = (Slots::new(at(0)), HostId::from_i64(5));
        let ping = slots.next(host, 5 * MINUTE, Mono::from_secs(100));
        let before = Mono::from_nanos(ping.as_nanos() - 1);
        assert_eq!(slots.next(host, MINUTE, before), ping);
    }

    #[test]
    fn hosts_are_spread_over_the_interval() {
        let slots = Slots::new(at(0));
        let mut tenths = [0; 10];
        for raw in 0..10_000 {
            let slot = slots.next(HostId::from_i64(raw), MINUTE, Mono::from_secs(600));
            tenths[(slot.since(Mono::from_secs(600)).as_millis() as usize - 1) / 6_000] += 1;
        }
        assert!(tenths.iter().all(|n| (850..1150).contains(n)), "{tenths:?}");
    }

    #[test]
    fn the_queue_returns_the_longest_waiting_host_first_and_each_once() {
        let mut agenda = DueQueue::default();
        let [a, b, c] = [1, 2, 3].map(HostId::from_i64);
        agenda.set(a, Some(Mono::from_secs(9)));
        agenda.set(b, Some(Mono::from_secs(5)));
        agenda.set(c, Some(Mono::from_secs(5)));
        agenda.set(a, Some(Mono::from_secs(4)));
        agenda.set(c, None);
        assert_eq!(agenda.first(), Some(Mono::from_secs(4)));
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop_due(Mono::from_secs(5))).collect();
        assert_eq!(order, [a, b]);
        assert_eq!(agenda.first(), None);
    }

    #[test]
    fn a_closed_probe_takes_no_second_reply() {
        let mut asks = InFlight::new();
        let id = asks.open(HostId::from_i64(1), "host", MINUTE, Mono::ZERO);
        assert_eq!(asks.overdue(Mono::ZERO + MINUTE), None);
        assert_eq!(asks.overdue(Mono::ZERO + MINUTE + ANSWER_SLACK), Some(id));
        assert_eq!(asks.close(id), Some((HostId::from_i64(1), "host")));
        assert_eq!(asks.close(id), None);
        assert_eq!((asks.len(), asks.first_overdue()), (0, None));
    }

    proptest! {
        #[test]
        fn the_next_slot_is_ahead_within_one_interval_and_without_drift(
            raw in any::<i64>(), millis in 100u64..10_000_000, now in 0u64..1 << 50,
        ) {
            let (host, interval) = (HostId::from_i64(raw), Duration::from_millis(millis));
            let (slots, now) = (Slots::new(at(7)), Mono::from_nanos(now));
            let next = slots.next(host, interval, now);
            prop_assert!(next > now && next.since(now) <= interval);
            prop_assert_eq!(slots.next(host, interval, next), next + interval);
        }

        #[test]
        fn retries_jitter_by_a_tenth(seed in any::<u64>()) {
            let factor = Jitter::new(seed).retry_factor();
            prop_assert!((0.9..1.1).contains(&factor));
        }
    }
}
