//! Neighbour checks: finds out whether a failing host is alone.
//!
//! When a host falls silent, others at its site, those behind the same device and a few from the
//! whole fleet are checked at once. A common failure is therefore known before the first
//! notification. A host that is hard down waits until these neighbours have replied. While others
//! fail with it, it also waits for their outcome.
//!
//! The number and rate of neighbour checks are bounded: an unsteady link must not cost its
//! neighbours their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::id::HostId;
use crate::messages::HostStatus;
use crate::time::{Mono, Now};

use super::Monitor;
use super::host::Host;
use crate::monitor::context::Ctx;
use crate::monitor::reachability::{HostFacts, PATIENCE};
use crate::monitor::state::Level;

/// Neighbours at the same site, and again behind the same device.
const NEAR: usize = 8;
/// Neighbours from the whole fleet.
const FAR: usize = 4;
/// The minimum time between two such checks of a neighbour: 288 echoes a day, some 70 kB.
const REST: Duration = Duration::from_secs(300);
/// The limit of neighbours checked in one [`SPAN`], over all hosts, because neighbours that fail
/// have theirs checked, too.
const MOST: usize = 200;
const SPAN: Duration = Duration::from_secs(10);
/// The number of others near a failing host that may be a lost site together with it. They fail or
/// have just gone down; the host waits while one of them is undecided.
const OTHERS_NEAR: usize = 2;
/// The same for others anywhere: together they may be a common failure.
const OTHERS: usize = 4;
/// At least one in this many of all hosts: in a large fleet some links are always unsteady.
const SHARE: usize = 50;

/// The sites of hosts, and the recent neighbour checks.
#[derive(Debug, Default)]
pub struct Neighbours {
    sites: BTreeMap<String, BTreeSet<HostId>>,
    of: BTreeMap<HostId, String>,
    span: Mono,
    asked: usize,
    /// For each neighbour in check, the hosts that wait for it.
    open: BTreeMap<HostId, BTreeSet<HostId>>,
    /// The number of unfinished neighbour checks for each host.
    looking: BTreeMap<HostId, usize>,
}

impl Neighbours {
    pub fn know(&mut self, id: HostId, site: Option<&str>) {
        self.forget(id);
        if let Some(site) = site {
            self.sites.entry(site.to_owned()).or_default().insert(id);
            self.of.insert(id, site.to_owned());
        }
    }

    /// Records that `other` is checked on behalf of `id`.
    fn opened(&mut self, id: HostId, other: HostId) {
        if self.open.entry(other).or_default().insert(id) {
            *self.looking.entry(id).or_default() += 1;
        }
    }

    /// Records that the neighbour's own check has ended. Returns the hosts that now wait for no
    /// other.
    fn closed(&mut self, other: HostId) -> Vec<HostId> {
        let askers = self.open.remove(&other).unwrap_or_default();
        let mut done = Vec::new();
        for id in askers {
            match self.looking.get_mut(&id) {
                Some(left) if *left > 1 => *left -= 1,
                _ => {
                    self.looking.remove(&id);
                    done.push(id);
                }
            }
        }
        done
    }

    fn is_looking(&self, id: HostId) -> bool {
        self.looking.contains_key(&id)
    }

    fn looking(&self) -> impl Iterator<Item = HostId> {
        self.looking.keys().copied()
    }

    /// Removes a host and all that waits for it.
    pub fn remove(&mut self, id: HostId) {
        self.forget(id);
        self.closed(id);
        self.looking.remove(&id);
        self.open.retain(|_, askers| {
            askers.remove(&id);
            !askers.is_empty()
        });
    }

    pub fn forget(&mut self, id: HostId) {
        let Some(site) = self.of.remove(&id) else { return };
        if let Some(hosts) = self.sites.get_mut(&site) {
            hosts.remove(&id);
            if hosts.is_empty() {
                self.sites.remove(&site);
            }
        }
    }

    /// Returns some hosts of its site, evenly spread.
    fn at_site(&self, id: HostId) -> Vec<HostId> {
        let hosts = self.of.get(&id).and_then(|site| self.sites.get(site));
        hosts.map(|hosts| next_to(hosts, id)).unwrap_or_default()
    }

    fn share_site(&self, a: HostId, b: HostId) -> bool {
        let site = self.of.get(&a);
        site.is_some() && site == self.of.get(&b)
    }

    /// Whether the limit allows one more neighbour check.
    fn may_ask(&mut self, now: Mono) -> bool {
        if now.since(self.span) >= SPAN {
            (self.span, self.asked) = (now, 0);
        }
        self.asked += 1;
        self.asked <= MOST
    }
}

/// Returns the hosts after it, around the circle, evenly spread.
fn next_to(hosts: &BTreeSet<HostId>, id: HostId) -> Vec<HostId> {
    let after = hosts.range((Bound::Excluded(id), Bound::Unbounded));
    let around = after.chain(hosts.range(..id));
    around.step_by((hosts.len() / NEAR).max(1)).take(NEAR).copied().collect()
}

impl Monitor {
    /// Reacts to a changed host. Its first failure starts neighbour checks; once it has recovered
    /// or is down, notifications that waited for it may be released.
    pub(super) fn mind_crowd(&mut self, id: HostId, before: HostFacts, after: HostFacts, now: Now) {
        let silent = |standing: HostFacts| standing.member.silent_since.is_some();
        let failing = |standing: HostFacts| silent(standing) && standing.member.up;
        if before.member.up && !after.member.up && silent(after) {
            self.note_fallen(id, now.mono);
        }
        if before.member.up && !silent(before) && silent(after) {
            self.probe_neighbours(id, now);
            self.refresh(id, now);
        }
        match (failing(before), failing(after)) {
            (false, true) => drop(self.failing.insert(id)),
            (true, false) => {
                self.failing.remove(&id);
                if self.failing.len() < self.crowd() {
                    self.end_doubts(now);
                }
            }
            _ => {}
        }
    }

    fn note_fallen(&mut self, id: HostId, now: Mono) {
        while self.fallen.front().is_some_and(|(at, _)| now.since(*at) >= PATIENCE) {
            self.fallen.pop_front();
        }
        self.fallen.push_back((now, id));
    }

    /// Releases the hosts that waited for this one and wait for no other.
    pub(super) fn mind_askers(&mut self, id: HostId, now: Now) {
        let is_asked = self.hosts.get(&id).is_some_and(Host::is_being_asked);
        if !is_asked && !self.neighbours.closed(id).is_empty() {
            self.end_doubts(now);
        }
    }

    /// The number of other failing hosts that is more than chance.
    fn crowd(&self) -> usize {
        OTHERS.max(self.hosts.len() / SHARE)
    }

    /// Whether a host may not be failing alone: its neighbours have not replied yet, or others fail
    /// with it.
    pub(super) fn fails_with_others(&self, id: HostId, now: Mono) -> bool {
        let others = self.failing.iter().filter(|other| **other != id);
        self.neighbours.is_looking(id)
            || others.take(self.crowd()).count() == self.crowd()
            || self.fails_with_near(id, now)
    }

    fn fails_with_near(&self, id: HostId, now: Mono) -> bool {
        let near = |other: &HostId| *other != id && self.is_near(id, *other);
        let looking = self.neighbours.looking().filter(|other| !self.failing.contains(other));
        let open = self.failing.iter().copied().chain(looking).filter(near).take(OTHERS_NEAR).count();
        let is_down = |other: &HostId| {
            let since = self.hosts.get(other).and_then(|host| host.reach.hard_since());
            since.is_some_and(|since| now.since(since) < PATIENCE) && !self.neighbours.is_looking(*other)
        };
        let fallen = || self.fallen.iter().map(|(_, other)| *other).filter(near).filter(is_down);
        open > 0 && open + fallen().take(OTHERS_NEAR).count() >= OTHERS_NEAR
    }

    /// Whether its first failure is its last attempt, so that its neighbours are only checked just
    /// after it.
    pub(super) fn will_look(&self, id: HostId) -> bool {
        let falls_at_once = self.hosts.get(&id).is_some_and(Host::falls_at_once);
        falls_at_once && self.hosts.len() > 1 && !self.shared.cut_off
    }

    fn is_near(&self, a: HostId, b: HostId) -> bool {
        let peer = |id| self.hosts.get(&id).and_then(Host::peer);
        self.neighbours.share_site(a, b) || peer(a).is_some() && peer(a) == peer(b)
    }

    fn probe_neighbours(&mut self, id: HostId, now: Now) {
        // While the gateway may be cut off, no neighbour is expected to reply.
        let Some(host) = self.hosts.get(&id).filter(|_| !self.shared.cut_off) else { return };
        let began = now.mono - host.check_timeout();
        let mut asked = self.neighbours.at_site(id);
        let behind = host.peer().and_then(|peer| self.behind.get(&peer));
        asked.extend(behind.map(|hosts| next_to(hosts, id)).unwrap_or_default());
        asked.extend(self.anywhere(now));
        for other in asked.into_iter().filter(|other| *other != id) {
            let can =
                self.hosts.get(&other).is_some_and(|host| host.can_be_asked_in_passing(began, now.mono));
            if can && self.neighbours.may_ask(now.mono) {
                self.neighbours.opened(id, other);
                self.with(other, now, |host, ctx| host.show_itself(began, ctx));
            }
        }
    }

    /// Returns a few hosts at random.
    fn anywhere(&mut self, now: Now) -> Vec<HostId> {
        let (Some(first), Some(last)) = (self.hosts.keys().next(), self.hosts.keys().next_back()) else {
            return Vec::new();
        };
        let (first, span) = (first.as_i64(), last.as_i64() - first.as_i64());
        let lot = |monitor: &mut Monitor| {
            let at = first
                + (f64::from(monitor.shared.ctx(now).draw()) / f64::from(u32::MAX) * span as f64) as i64;
            monitor.hosts.range(HostId::from_i64(at)..).next().map(|(id, _)| *id)
        };
        (0..FAR).filter_map(|_| lot(self)).collect()
    }
}

impl Host {
    fn can_be_asked_in_passing(&self, since: Mono, now: Mono) -> bool {
        let steady = self.track.status == HostStatus::Up && !self.asleep && self.reach.is_reachable();
        let (rested, known) = (self.check.is_rested(REST, now), self.proofs.is_proved_since(since));
        steady && rested && !known && !self.check.is_running() && !self.is_passive_only()
    }

    /// Whether the result of a check is pending.
    fn is_being_asked(&self) -> bool {
        self.check.is_running() || self.check.is_in_passing()
    }

    fn falls_at_once(&self) -> bool {
        self.spec.timing.attempts <= 1 && !self.track.status.is_problem()
    }

    /// Checks this host because another has failed: only evidence newer than its last opportunity
    /// to reply counts.
    fn show_itself(&mut self, since: Mono, ctx: &Ctx<'_>) {
        self.check.request_in_passing(since, ctx.now.mono);
    }
}
