//! Parents: the reachability of a host (SEMANTICS 8).
//!
//! A host is reachable if it has no parents, or if any of them is up. A soft failure of a parent is
//! ignored. A parent that replies above a threshold is up, and one that was never checked counts as
//! up.
//!
//! While a host is unreachable, its results are kept, its checks are slow, and its notifications
//! are suppressed. After that, notifications wait for a newer result. When a host fails, its
//! parents are checked at once. The notification waits until a parent is proved to be up after the
//! failure, or for [`PATIENCE`] after the host turned hard. A parent that cannot be checked counts
//! by its last passive result while that is fresh. The same time applies to other hosts that fail
//! at once, so that a common failure is one notification.
//!
//! The store guarantees that parents form no cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::messages::{EventKind, HostStatus, SENT, Timing};
use crate::time::{Mono, Now};

use super::Monitor;
use crate::monitor::context::Ctx;
use crate::monitor::host::Host;
use crate::monitor::host::reach::{Circumstances, Reachability};
use crate::monitor::service::Service;
use crate::monitor::state::Level;
use crate::monitor::uplink::fleet_silence::Member;

/// The factor by which an unreachable host is checked more rarely: it is not expected to reply.
const SLOWER: u32 = 5;
/// A parent without a new result suppresses notifications for at most this long after the host
/// turned hard. It was checked at the host's first failure, and its own attempts take no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The same for the tunnel of the device that leads to the host, if the device is up although its
/// tunnel is not. Each of the tunnel's three attempts probes the tunnel and then the device, for
/// one timeout each.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(75);

/// The children of each parent.
#[derive(Debug, Default)]
pub struct ParentGraph(BTreeMap<HostId, BTreeSet<HostId>>);

impl ParentGraph {
    pub fn add(&mut self, child: HostId, parents: &[HostId]) {
        for parent in parents {
            self.0.entry(*parent).or_default().insert(child);
        }
    }

    pub fn remove(&mut self, child: HostId, parents: &[HostId]) {
        for parent in parents {
            if let Some(children) = self.0.get_mut(parent) {
                children.remove(&child);
                if children.is_empty() {
                    self.0.remove(parent);
                }
            }
        }
    }

    pub fn children(&self, parent: HostId) -> Vec<HostId> {
        self.0.get(&parent).into_iter().flatten().copied().collect()
    }
}

/// The state of a host as it concerns others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    blocks: bool,
    /// Its own tunnel is dead, even if other evidence proves that the host is up.
    tunnel_is_dead: bool,
    carried_at: Option<Mono>,
    pub(super) member: Member,
}

impl Monitor {
    /// After an action of a host: re-evaluates its children, and checks its parents if it wants
    /// that.
    pub(super) fn spread(&mut self, id: HostId, before: HostFacts, now: Now) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let (after, wants) = (host.facts(), host.reach.take_wants_parents());
        if before != after {
            let step = self.population.note(id, Some(after.member), now.mono);
            self.weigh(step, now);
            self.mind_crowd(id, before, after, now);
            for child in self.family.children(id) {
                self.refresh(child, now);
                if self.hosts.get(&child).is_some_and(|child| child.reach.is_in_doubt()) {
                    self.probe_parents(child, now);
                }
            }
        }
        if wants {
            self.look_outside(now);
            self.probe_parents(id, now);
        }
        self.mind_askers(id, now);
    }

    /// Re-evaluates a host against its parents.
    pub(super) fn refresh(&mut self, id: HostId, now: Now) {
        let Some(host) = self.hosts.get(&id) else {
            return;
        };
        let reach = self.reach(host, now);
        if reach != host.reach.current() {
            self.with(id, now, |host, ctx| host.set_reach(reach, ctx));
        }
    }

    fn reach(&self, host: &Host, now: Now) -> Reachability {
        let uplink = host.reach.failing_since().is_some_and(|since| self.sentinel.in_doubt(since, now.mono))
            || host.reach.hard_since().is_some()
                && host.is_waited_for(now.mono)
                && self.fails_with_others(host.id(), now.mono);
        let mut parents = host.spec.parents.iter().filter_map(|id| self.hosts.get(id)).peekable();
        if parents.peek().is_none() {
            return Reachability { in_doubt: uplink, ..Reachability::FREE };
        }
        let blocks = |parent: &Host| {
            let standing = parent.facts();
            standing.blocks || standing.tunnel_is_dead && host.passes_through(parent)
        };
        let there: Vec<&Host> = parents.filter(|parent| !blocks(parent)).collect();
        let since = host.reach.failing_since().filter(|_| host.is_waited_for(now.mono));
        let is_proved_alive =
            |parent: &Host, since| match host.passes_through(parent) && parent.watches_tunnel() {
                true => parent.proofs.carried_at().is_some_and(|at| at >= since),
                false => parent.is_proved_alive(since, now.mono),
            };
        let outlived = |since: Mono| there.iter().any(|parent| is_proved_alive(parent, since));
        // If every parent is down, there is no need to wait for one.
        let asked = !there.is_empty() && since.is_some_and(|since| !outlived(since));
        let in_doubt = uplink || asked;
        Reachability { reachable: !there.is_empty(), in_doubt }
    }

    fn probe_parents(&mut self, id: HostId, now: Now) {
        self.refresh(id, now);
        let Some(host) = self.hosts.get(&id).filter(|host| host.reach.is_in_doubt()) else {
            return;
        };
        let (parents, since) = (host.spec.parents.clone(), host.reach.failing_since());
        for parent in parents {
            let carries = self.passes_through(id, parent);
            self.with(parent, now, |parent, ctx| {
                parent.check_for_child(since, ctx);
                if carries {
                    parent.check_tunnel_for_child(since, ctx);
                }
            });
        }
    }
}

impl Monitor {
    fn passes_through(&self, id: HostId, device: HostId) -> bool {
        let ends = self.hosts.get(&id).zip(self.hosts.get(&device));
        ends.is_some_and(|(host, device)| host.passes_through(device))
    }
}

impl Host {
    pub(super) fn facts(&self) -> HostFacts {
        let down = self.track.hard == HostStatus::Down && !self.result.is_answer();
        let blocks = down || self.asleep || !self.reach.is_reachable();
        let tunnel = self.tunnel_service().map(|i| &self.services[i]);
        let tunnel_is_dead = tunnel.is_some_and(|s| s.track.hard.is_problem() && !s.holds());
        HostFacts { blocks, tunnel_is_dead, carried_at: self.proofs.carried_at(), member: self.member() }
    }

    /// Returns its part in the fleet-silence rule. Passive results, or their absence, prove nothing
    /// about the gateway's own uplink.
    fn member(&self) -> Member {
        let good_at = self.proofs.proved_at().filter(|_| !self.is_passive_only());
        let up = self.track.hard == HostStatus::Up && good_at.is_some();
        let silent_since = self.proofs.silent_since().filter(|_| good_at.is_some());
        Member { up, asleep: self.asleep, silent_since, good_at }
    }

    /// Whether that device's tunnel is the only path to this host.
    fn passes_through(&self, device: &Host) -> bool {
        !self.spec.own_tunnel && self.spec.peer == Some(device.spec.id) && self.paths.direct.is_none()
    }

    /// Whether a service of its own checks and notifies the replies through its tunnel. If that
    /// service is switched off, any sign of life is enough, and the hosts behind it are notified by
    /// themselves.
    fn watches_tunnel(&self) -> bool {
        self.tunnel_service().is_some_and(|i| self.can_start(i))
    }

    /// Whether it was up at that time; a host that was never checked counts as up.
    fn was_there_at(&self, since: Mono) -> bool {
        self.track.status == HostStatus::Pending || self.proofs.is_proved_since(since)
    }

    /// Whether it only has passive results and its last one is ok and fresh.
    fn is_reported_up(&self, now: Mono) -> bool {
        let fresh = self.submitted.is_fresh(self.spec.freshness, now);
        self.is_passive_only() && fresh && !self.track.status.is_problem()
    }

    fn is_proved_alive(&self, since: Mono, now: Mono) -> bool {
        self.is_reported_up(now) || self.was_there_at(since)
    }

    /// Returns how long it waits for others after it is hard down.
    fn patience(&self) -> Duration {
        let behind = !self.spec.own_tunnel && self.spec.peer.is_some() && self.paths.direct.is_none();
        if behind { TUNNEL_PATIENCE } else { PATIENCE }
    }

    /// Whether the results of others may still suppress its notification.
    pub(super) fn is_waited_for(&self, now: Mono) -> bool {
        self.reach.is_waited_for(self.patience(), now)
    }

    /// Records since when it fails, and requests a check of its parents for each failure.
    pub(super) fn note_failing(&mut self, ctx: &Ctx<'_>) {
        let now = ctx.now.mono;
        let checks_parents = ctx.is_watched() || !self.spec.parents.is_empty();
        let of = Circumstances { checks_parents, with_others: ctx.fails_with_others() };
        self.reach.note_result(&self.track, of, now);
        match self.track.status.is_problem() && self.is_silent() {
            true => self.proofs.note_silent(now),
            false => self.proofs.end_silence(),
        }
    }

    /// Whether it is silent: neither a reply nor a passive result came.
    fn is_silent(&self) -> bool {
        !self.result.is_answer() && self.result.source() != SENT
    }

    /// Returns when the doubt ends by itself.
    pub(super) fn doubt_ends(&self) -> Option<Mono> {
        self.reach.doubt_ends(self.patience())
    }

    pub(super) fn end_doubt(&mut self, ctx: &mut Ctx<'_>) {
        if self.doubt_ends().is_some_and(|at| at <= ctx.now.mono) {
            self.set_reach(Reachability { in_doubt: false, ..self.reach.current() }, ctx);
        }
    }

    fn set_reach(&mut self, reach: Reachability, ctx: &mut Ctx<'_>) {
        let before = self.reach.set(reach);
        match (before.reachable, reach.reachable) {
            (true, false) => {
                self.event(EventKind::Unreachable, "all its parents are down", String::new(), ctx);
                ctx.record(self.row(ctx.now));
                self.suspend_all(ctx);
            }
            (false, true) => {
                self.notifier.await_result();
                self.end_excuse(ctx.now.mono);
                // A reply to an earlier probe is no new result.
                self.drop_probe(ctx);
                self.check.plan(ctx.soon(self.soon()));
                self.event(EventKind::Reachable, "a parent is there again", String::new(), ctx);
                ctx.record(self.row(ctx.now));
            }
            _ => {}
        }
        if self.track.hard == HostStatus::Down && !self.notifier.awaits_result() {
            self.place(ctx);
        }
        self.re_evaluate_all(false, ctx);
    }

    /// Checks this parent because a host behind it fails: only evidence newer than that failure
    /// counts.
    pub(super) fn check_for_child(&mut self, since: Option<Mono>, ctx: &mut Ctx<'_>) {
        let known = since.is_some_and(|since| self.was_there_at(since));
        if !self.check.is_running() && !known && !self.track.status.is_problem() && !self.is_passive_only() {
            self.check.request(since, ctx.now.mono);
        }
    }

    /// Checks its tunnel now, because a host that only its tunnel leads to fails.
    fn check_tunnel_for_child(&mut self, since: Option<Mono>, ctx: &Ctx<'_>) {
        let carried = self.proofs.carried_at() >= since;
        let waits = |s: &&mut Service| s.is_idle() && s.holds() && !carried;
        let tunnel = self.tunnel_service().map(|i| &mut self.services[i]);
        if let Some(service) = tunnel.filter(waits) {
            (service.planned, service.newer_than) = (Some(ctx.now.mono), since);
        }
    }

    /// Returns the timing of its own check. Retries keep their usual interval, so that a failure
    /// becomes known.
    pub(super) fn pace(&self) -> Timing {
        let timing = self.spec.timing;
        if self.reach.is_reachable() || self.track.is_soft() {
            return timing;
        }
        let interval = timing.interval.saturating_mul(SLOWER);
        Timing { interval, retry: interval, ..timing }
    }
}
