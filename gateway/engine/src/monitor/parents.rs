//! Parents: what stands before a host, by SEMANTICS 8.
//!
//! A host is reachable while any of its parents is there, or it has none. A soft failure of a parent
//! is ignored, one that answers over a limit is there, and one that was never checked counts as fine. While a host is unreachable its
//! results are kept, its checks are slow and nothing is told of it; after that a newer result is
//! waited for. A host that fails has its parents asked at once, and is not told of before one of
//! them is proved to have outlived its failure, or for [`PATIENCE`] after it turned hard. A parent that
//! nobody can ask vouches by its last result while that is fresh. The same patience is for others that
//! fail at the same time, so that a crowd is one message. That no host stands before itself is the
//! store's promise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::time::{Mono, Now};
use crate::wire::{EventKind, HostStatus, SENT, Timing, is_answer};

use super::Monitor;
use super::host::Host;
use super::population::Member;
use super::service::Service;
use super::status::Level;
use super::turn::Turn;

/// What is unreachable is checked so much more rarely: it is not expected to answer.
const SLOWER: u32 = 5;
/// Parents that say nothing about themselves for so long after a host turned hard hold nothing back any
/// more: they were asked when it failed first, and their own attempts take no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The same for the tunnel of the device that leads to it, if that is up beside its tunnel: each of the tunnel's
/// three attempts asks the tunnel, and then the device, for a timeout each.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(75);

/// How a host stands to its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub reachable: bool,
    /// It fails, and no parent is known to have outlived that, or nobody has looked at the gateway's own
    /// way out since.
    pub in_doubt: bool,
}

/// Who stands behind whom.
#[derive(Debug, Default)]
pub struct Family(BTreeMap<HostId, BTreeSet<HostId>>);

impl Family {
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

/// What of a host concerns others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    blocks: bool,
    /// Its own tunnel is dead, whatever else proves it alive.
    tunnel_is_dead: bool,
    carried_at: Option<Mono>,
    pub(super) member: Member,
}

impl Monitor {
    /// After a host has acted: those behind it look again, and what it wants of its parents is asked.
    pub(super) fn spread(&mut self, id: HostId, before: Standing, now: Now) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let (after, wants) = (host.stands(), host.take_wants_parents());
        if before != after {
            let step = self.population.note(id, Some(after.member), now.mono);
            self.weigh(step, now);
            self.mind_crowd(id, before, after, now);
            for child in self.family.children(id) {
                self.refresh(child, now);
                if self.hosts.get(&child).is_some_and(|child| child.reach.in_doubt) {
                    self.ask_parents(child, now);
                }
            }
        }
        if wants {
            self.look_outside(now);
            self.ask_parents(id, now);
        }
        self.mind_askers(id, now);
    }

    /// Holds a host against its parents.
    pub(super) fn refresh(&mut self, id: HostId, now: Now) {
        let Some(host) = self.hosts.get(&id) else {
            return;
        };
        let reach = self.reach(host, now);
        if reach != host.reach {
            self.with(id, now, |host, turn| host.set_reach(reach, turn));
        }
    }

    fn reach(&self, host: &Host, now: Now) -> Reach {
        let uplink = host.failing_since.is_some_and(|since| self.sentinel.in_doubt(since, now.mono))
            || host.hard_since.is_some()
                && host.is_waited_for(now.mono)
                && self.fails_with_others(host.id(), now.mono);
        let mut parents = host.spec.parents.iter().filter_map(|id| self.hosts.get(id)).peekable();
        if parents.peek().is_none() {
            return Reach { in_doubt: uplink, ..Reach::FREE };
        }
        let blocks = |parent: &Host| {
            let standing = parent.stands();
            standing.blocks || standing.tunnel_is_dead && host.passes_through(parent)
        };
        let there: Vec<&Host> = parents.filter(|parent| !blocks(parent)).collect();
        let since = host.failing_since.filter(|_| host.is_waited_for(now.mono));
        let vouches = |parent: &Host, since| match host.passes_through(parent) && parent.watches_tunnel() {
            true => parent.carried_at.is_some_and(|at| at >= since),
            false => parent.vouches(since, now.mono),
        };
        let outlived = |since: Mono| there.iter().any(|parent| vouches(parent, since));
        // Where nobody is there, that is no question any more.
        let asked = !there.is_empty() && since.is_some_and(|since| !outlived(since));
        let in_doubt = uplink || asked;
        Reach { reachable: !there.is_empty(), in_doubt }
    }

    fn ask_parents(&mut self, id: HostId, now: Now) {
        self.refresh(id, now);
        let Some(host) = self.hosts.get(&id).filter(|host| host.reach.in_doubt) else {
            return;
        };
        let (parents, since) = (host.spec.parents.clone(), host.failing_since);
        for parent in parents {
            let carries = self.passes_through(id, parent);
            self.with(parent, now, |parent, turn| {
                parent.prove_itself(since, turn);
                if carries {
                    parent.prove_its_tunnel(since, turn);
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

impl Reach {
    /// Nothing stands before it.
    pub const FREE: Reach = Reach { reachable: true, in_doubt: false };
}

impl Host {
    pub(super) fn stands(&self) -> Standing {
        let down = self.track.hard == HostStatus::Down && !is_answer(&self.source);
        let blocks = down || self.asleep || !self.reach.reachable;
        let tunnel = self.tunnel_service().map(|i| &self.services[i]);
        let tunnel_is_dead = tunnel.is_some_and(|s| s.track.hard.is_problem() && !s.holds());
        Standing { blocks, tunnel_is_dead, carried_at: self.carried_at, member: self.member() }
    }

    /// What others send, or stop sending, says nothing of the gateway's own way out.
    fn member(&self) -> Member {
        let good_at = self.proved_at.filter(|_| !self.is_only_told_of());
        let up = self.track.hard == HostStatus::Up && good_at.is_some();
        let silent_since = self.silent_since.filter(|_| good_at.is_some());
        Member { up, asleep: self.asleep, silent_since, good_at }
    }

    /// Nothing but that device's tunnel leads to it.
    fn passes_through(&self, device: &Host) -> bool {
        !self.spec.own_tunnel && self.spec.peer == Some(device.spec.id) && self.paths.direct.is_none()
    }

    /// What its tunnel carries is asked by a service of its own, which tells of it. Where that is switched off a sign
    /// of life is all that is known, and whoever stands behind it speaks for itself.
    fn watches_tunnel(&self) -> bool {
        self.tunnel_service().is_some_and(|i| self.can_start(i))
    }

    /// What was never checked counts as fine.
    fn was_there_at(&self, since: Mono) -> bool {
        self.track.status == HostStatus::Pending || self.proved_at.is_some_and(|at| at >= since)
    }

    /// Nobody can ask what only receives results: its last one counts while it is fresh.
    fn is_told_well(&self, now: Mono) -> bool {
        let fresh = self.spec.freshness.is_none_or(|limit| now.since(self.heard_at) < limit);
        self.is_only_told_of() && fresh && !self.track.status.is_problem()
    }

    fn vouches(&self, since: Mono, now: Mono) -> bool {
        self.is_told_well(now) || self.was_there_at(since)
    }

    /// How long it waits for others once it is hard down.
    fn patience(&self) -> Duration {
        let behind = !self.spec.own_tunnel && self.spec.peer.is_some() && self.paths.direct.is_none();
        if behind { TUNNEL_PATIENCE } else { PATIENCE }
    }

    /// What others say of themselves may still hold it back.
    pub(super) fn is_waited_for(&self, now: Mono) -> bool {
        self.hard_since.is_none_or(|since| now < since + self.patience())
    }

    /// Keeps since when it fails, and wants its parents asked for each failure.
    pub(super) fn note_failing(&mut self, turn: &Turn<'_>) {
        let failing = self.track.status.is_problem();
        let hard = self.track.hard.is_problem();
        self.hard_since = self.hard_since.or(Some(turn.now.mono)).filter(|_| hard);
        self.wants_parents = failing && (turn.is_watched() || !self.spec.parents.is_empty());
        self.silent_since = self.silent_since.or(Some(turn.now.mono)).filter(|_| failing && self.is_silent());
        if !failing {
            (self.failing_since, self.reach.in_doubt) = (None, false);
        } else if self.failing_since.is_none() {
            // What is told in this same moment would be too early.
            (self.failing_since, self.reach.in_doubt) = (Some(turn.now.mono), self.wants_parents);
        }
        self.reach.in_doubt |= turn.fails_with_others() && self.hard_since == Some(turn.now.mono);
    }

    /// What is known of it is that nothing was heard: neither an answer, nor what somebody sent.
    fn is_silent(&self) -> bool {
        !is_answer(&self.source) && self.source != SENT
    }

    fn take_wants_parents(&mut self) -> bool {
        std::mem::take(&mut self.wants_parents)
    }

    /// When a doubt ends by itself.
    pub(super) fn doubt_ends(&self) -> Option<Mono> {
        self.hard_since.filter(|_| self.reach.in_doubt).map(|since| since + self.patience())
    }

    pub(super) fn end_doubt(&mut self, turn: &mut Turn<'_>) {
        if self.reach.in_doubt && self.doubt_ends().is_some_and(|at| at <= turn.now.mono) {
            self.set_reach(Reach { in_doubt: false, ..self.reach }, turn);
        }
    }

    fn set_reach(&mut self, reach: Reach, turn: &mut Turn<'_>) {
        let before = std::mem::replace(&mut self.reach, reach);
        match (before.reachable, reach.reachable) {
            (true, false) => {
                self.event(EventKind::Unreachable, "all its parents are down", String::new(), turn);
                turn.record(self.row(turn.now));
                self.suspend_all(turn);
            }
            (false, true) => {
                self.voice.await_result();
                self.end_excuse(turn.now.mono);
                // What was asked before is no new result.
                self.forget_question(turn);
                self.planned = Some(turn.soon(self.soon()));
                self.event(EventKind::Reachable, "a parent is there again", String::new(), turn);
                turn.record(self.row(turn.now));
            }
            _ => {}
        }
        if self.track.hard == HostStatus::Down && !self.voice.awaits_result() {
            self.place(turn);
        }
        self.review_all(false, turn);
    }

    /// One behind it fails: only what is newer than that failure proves anything.
    pub(super) fn prove_itself(&mut self, since: Option<Mono>, turn: &mut Turn<'_>) {
        let known = since.is_some_and(|since| self.was_there_at(since));
        if self.check.is_none() && !known && !self.track.status.is_problem() && !self.is_only_told_of() {
            self.planned = Some(turn.now.mono);
            self.newer_than = since;
        }
    }

    /// One that only its tunnel leads to fails: whether the tunnel carries anything is asked now.
    fn prove_its_tunnel(&mut self, since: Option<Mono>, turn: &Turn<'_>) {
        let carried = self.carried_at >= since;
        let waits = |s: &&mut Service| s.is_idle() && s.holds() && !carried;
        let tunnel = self.tunnel_service().map(|i| &mut self.services[i]);
        if let Some(service) = tunnel.filter(waits) {
            (service.planned, service.newer_than) = (Some(turn.now.mono), since);
        }
    }

    /// The pace of its own check. What fails is repeated as ever, so that it is known to be down.
    pub(super) fn pace(&self) -> Timing {
        let timing = self.spec.timing;
        if self.reach.reachable || self.track.is_soft() {
            return timing;
        }
        let interval = timing.interval.saturating_mul(SLOWER);
        Timing { interval, retry: interval, ..timing }
    }
}
