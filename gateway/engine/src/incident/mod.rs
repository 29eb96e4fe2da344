//! Correlates problems that have one cause into incidents, so that they are notified, acknowledged
//! and closed as one.
//!
//! ```text
//! ill, well, uplink (results of the monitor) ─▶ Incidents ─▶ IncidentRecord (to be committed)
//! acknowledge                                             ─▶ Cover (members to acknowledge)
//! ```
//!
//! An unreachable host belongs to the incident of the parent that explains it. If most of a site
//! went down together, its hosts belong to the incident of the site. If so many hosts went down
//! together that no site explains it, they belong to one incident of many hosts. Any other host
//! gets its own incident, which also takes in the services that fail on it at the same time. A
//! service that fails on many hosts together has one incident for all of them. The loss of the
//! gateway's uplink takes in the problems that it explains.
//!
//! An incident closes after every member has been ok for [`CLOSE_AFTER`], so that a bounce does not make
//! two; a closed incident is never opened again. A member that still fails after the cause has
//! recovered leaves the incident and is notified by itself.
//!
//! This module is pure: the caller supplies the time, in order. It knows no check states, messages
//! or receivers. It keeps open incidents and one name per host, and nothing of closed incidents.

mod acknowledgement;
mod by_service;
mod by_site;
mod correlate;
mod lifecycle;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::messages::{
    AckEnd, CauseKind, CheckableId, GATEWAY, IncidentAck, IncidentChange, IncidentId, IncidentRecord,
    IncidentScope, IncidentSnapshot, IncidentSummary, MemberSnapshot,
};
use crate::time::{Mono, Now, Step, Wall};

use by_service::CommonFailures;
use by_site::SiteIndex;
pub use summary::Found;

/// Problems that begin within this time of each other may have one cause. The gateway finds hosts
/// that are lost together within a check interval and its retries; the longest in use take some
/// minutes.
pub const CORRELATION_WINDOW: Duration = Duration::from_secs(300);
/// An incident whose members are all ok stays open so long. A device that restarts twice, or a link
/// that drops once more, is still the same incident.
pub const CLOSE_AFTER: Duration = Duration::from_secs(120);
/// The loss of the uplink explains hosts that went down so long before it was found. It covers the
/// window of the fleet-silence rule (60 s), the wait for the witnesses (30 s), and a round of
/// probes.
const EXPLAINED: Duration = Duration::from_secs(120);

/// The maximum number of parents in a row that are searched for an explanation.
const DEEPEST: usize = 8;

/// The time of an event, and a random number for the ids that it may need.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Now,
    pub draw: u32,
}

/// The effect of a problem on the incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The incident that the checkable has left.
    pub left: Option<IncidentId>,
    /// The acknowledgement of the incident that it has joined.
    pub known: Option<IncidentAck>,
}

/// A checkable that the acknowledgement of its incident now covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckToApply {
    pub object: CheckableId,
    pub ack: IncidentAck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    began: Wall,
    /// The state of a service; `None` for a host, and until the first result after a restart.
    status: Option<Status>,
    /// The time of its recovery.
    left: Option<Wall>,
}

impl Member {
    fn has_problem(&self) -> bool {
        self.left.is_none()
    }
}

#[derive(Debug)]
struct Incident {
    opened: Wall,
    matter: IncidentSummary,
    members: BTreeMap<CheckableId, Member>,
    /// The latest start of a problem among the members.
    newest: Wall,
    /// The number of members in a problem state.
    problem: usize,
    /// Since when every member has been ok.
    quiet: Option<Now>,
    ack: Option<IncidentAck>,
}

impl Incident {
    fn is_of(&self, host: HostId) -> bool {
        self.members.keys().all(|object| object.host == host)
    }

    fn has_problem(&self, object: &CheckableId) -> bool {
        self.members.get(object).is_some_and(Member::has_problem)
    }

    /// Whether most of the members that are down went down after `since`. The first may have failed
    /// long before the others joined it.
    fn most_hosts_fell(&self, since: Wall) -> bool {
        let down = || self.members.iter().filter(|(o, m)| o.service.is_none() && m.has_problem());
        down().filter(|(_, m)| m.began >= since).count() * 2 > down().count()
    }

    fn rebase(&mut self, step: Step) {
        self.opened = step.rebase(self.opened);
        self.newest = step.rebase(self.newest);
        for member in self.members.values_mut() {
            member.began = step.rebase(member.began);
            member.left = member.left.map(|left| step.rebase(left));
        }
    }

    fn known(&self, now: Wall) -> Option<IncidentAck> {
        self.ack.clone().filter(|ack| ack.holds(now))
    }
}

#[derive(Debug, Default)]
pub struct Incidents {
    fleet: SiteIndex,
    alike: CommonFailures,
    open: BTreeMap<IncidentId, Incident>,
    /// The incident of each checkable, also after its recovery.
    places: BTreeMap<CheckableId, IncidentId>,
    /// The incidents in which every member is ok, by the time since when.
    quiet: BTreeSet<(Mono, IncidentId)>,
    /// The times when acknowledgements expire, by the wall clock at the time of insertion.
    expiring: BTreeSet<(Mono, IncidentId)>,
    /// The incident of the last loss of each site; it may be closed.
    lost: BTreeMap<String, IncidentId>,
    newest: Option<IncidentId>,
    out: VecDeque<IncidentRecord>,
    covers: VecDeque<AckToApply>,
}

impl Incidents {
    /// Restores the incidents that an earlier run left open. The caller does this before anything
    /// else.
    pub fn restore(&mut self, memories: Vec<IncidentSnapshot>, now: Now) {
        for memory in memories {
            self.owe_covers(&memory, now);
            let member =
                |m: MemberSnapshot| (m.object, Member { began: m.began, status: None, left: m.left });
            let members: BTreeMap<CheckableId, Member> = memory.members.into_iter().map(member).collect();
            for (object, member) in &members {
                if member.has_problem() {
                    self.alike.problem(object, member.began);
                }
                // A checkable that has left this incident may belong to another now.
                if member.has_problem() || !self.places.contains_key(object) {
                    self.places.insert(object.clone(), memory.id);
                }
            }
            let problem = members.values().filter(|m| m.has_problem()).count();
            let (opened, matter) = (memory.opened, memory.matter);
            let (ack, late) = if problem > 0 { (memory.ack, None) } else { (None, memory.ack) };
            if late.is_some() {
                // The acknowledgement was stored, but every member had recovered before the earlier
                // run could apply it.
                self.record(memory.id, now.wall, IncidentChange::AckEnded(AckEnd::Late));
            }
            let since = members.values().filter_map(|m| m.left).max().unwrap_or(now.wall);
            let quiet = (problem == 0).then(|| Now { mono: now.mono_at(since), wall: since });
            self.quiet.extend(quiet.map(|since| (since.mono, memory.id)));
            if let (CauseKind::SiteLost, Some(site)) = (matter.cause, &matter.site) {
                // The store passes the newest incident first.
                self.lost.entry(site.clone()).or_insert(memory.id);
            }
            if matter.extent == IncidentScope::Fleet {
                let of_hosts = matter.cause == CauseKind::HostDown;
                let problem =
                    members.iter().filter(|(o, m)| m.has_problem() && o.service.is_none() == of_hosts);
                self.alike.recall(memory.id, problem.map(|(object, _)| object));
            }
            let newest = members.values().map(|m| m.began).max().unwrap_or(opened);
            self.watch_expiry(memory.id, ack.as_ref(), now);
            self.open.insert(memory.id, Incident { opened, matter, members, newest, problem, quiet, ack });
            self.newest = self.newest.max(Some(memory.id));
        }
    }

    /// Queues the members that an acknowledgement did not reach before the earlier run ended.
    fn owe_covers(&mut self, memory: &IncidentSnapshot, now: Now) {
        let Some(ack) = memory.ack.as_ref().filter(|ack| ack.holds(now.wall)) else { return };
        let uncovered = memory.members.iter().filter(|m| m.left.is_none() && !m.covered);
        self.covers.extend(uncovered.map(|m| AckToApply { object: m.object.clone(), ack: ack.clone() }));
    }

    /// Returns the problems whose incident is not acknowledged.
    pub fn unknown(&self) -> Vec<(IncidentId, CheckableId)> {
        let unknown = self.open.iter().filter(|(_, i)| i.ack.is_none());
        unknown.flat_map(|(id, i)| open_members(i).into_iter().map(|object| (*id, object))).collect()
    }

    /// Adds or changes a host. `state`: `None` while it has no state, else since when it is down
    /// (`Some(None)`: it is up).
    pub fn know(
        &mut self,
        id: HostId,
        name: &str,
        site: Option<&str>,
        parents: &[HostId],
        state: Option<Option<Wall>>,
    ) {
        self.fleet.know(id, name, site, parents);
        match state {
            Some(Some(began)) => self.fleet.down(id, began),
            Some(None) => self.fleet.up(id),
            None => {}
        }
    }

    /// Records that a host fails while its parents are down.
    pub fn know_unreachable(&mut self, id: HostId) {
        self.fleet.behind(id);
    }

    /// Names the service that watches the tunnel of a host, if there is one.
    pub fn know_tunnel(&mut self, host: HostId, service: Option<&str>) {
        self.fleet.know_tunnel(host, service);
    }

    /// Replaces the services of a host.
    pub fn know_services<'a>(&mut self, host: HostId, services: impl Iterator<Item = &'a str>) {
        self.alike.know(host, services);
    }

    /// Removes a host, or some of its services.
    pub fn forget(&mut self, gone: impl Fn(&CheckableId) -> bool, host: HostId, now: Now) {
        for object in self.objects_of(host).into_iter().filter(|o| gone(o)) {
            self.leave(&object, now);
        }
        if gone(&CheckableId::host(host)) {
            self.fleet.forget(host);
            self.alike.forget(host);
        }
    }

    /// Returns the checkables that have a problem in an open incident.
    pub fn objects(&self) -> Vec<CheckableId> {
        let problem = |(object, id): (&CheckableId, &IncidentId)| {
            self.open.get(id).is_some_and(|i| i.has_problem(object)).then(|| object.clone())
        };
        self.places.iter().filter_map(problem).collect()
    }

    /// Returns the incident of a checkable, also after its recovery while the incident is open.
    pub fn of(&self, object: &CheckableId) -> Option<IncidentId> {
        self.places.get(object).copied()
    }

    /// Returns the incident of a checkable with its acknowledgement, if that has not expired.
    pub fn known(&self, object: &CheckableId, now: Wall) -> Option<(IncidentId, IncidentAck)> {
        let id = self.of(object)?;
        Some((id, self.open.get(&id)?.known(now)?))
    }

    pub fn poll_record(&mut self) -> Option<IncidentRecord> {
        self.out.pop_front()
    }

    pub fn poll_cover(&mut self) -> Option<AckToApply> {
        self.covers.pop_front()
    }

    pub fn due(&self) -> Option<Mono> {
        let expiry = self.expiring.first().map(|(at, _)| *at);
        let over = self.quiet.first().map(|(since, _)| *since + CLOSE_AFTER);
        over.into_iter().chain(expiry).min()
    }

    /// Closes incidents and ends acknowledgements that are due.
    pub fn look(&mut self, now: Now) {
        while let Some((_, id)) =
            self.quiet.first().filter(|(since, _)| *since + CLOSE_AFTER <= now.mono).copied()
        {
            self.quiet.pop_first();
            self.close(id);
        }
        while let Some((_, id)) = self.expiring.first().filter(|(at, _)| *at <= now.mono).copied() {
            self.expiring.pop_first();
            self.expire(id, now);
        }
    }

    /// Adjusts to a step of the wall clock. Acknowledgements expire by the calendar. The times of
    /// open incidents move back with the clock. Otherwise an old problem would count as a new one
    /// when the clock shows its time again.
    pub fn mind_step(&mut self, step: Step, now: Now) {
        for incident in self.open.values_mut() {
            incident.rebase(step);
        }
        self.fleet.rebase(step);
        self.alike.rebase(step);
        self.expiring.clear();
        let acks = self.open.iter().filter_map(|(id, i)| Some((*id, i.ack.clone()?)));
        for (id, ack) in acks.collect::<Vec<_>>() {
            self.watch_expiry(id, Some(&ack), now);
        }
    }

    // ------------------------------------------------------------------ findings

    /// Records a hard problem, at each result that finds it. `began`: the first failure in this
    /// series.
    pub fn problem(
        &mut self,
        object: &CheckableId,
        began: Wall,
        found: &Found,
        reachable: bool,
        at: Moment,
    ) -> Assigned {
        let is_host = object.service.is_none();
        let began = self.began(object, began, at.now);
        match (is_host, reachable) {
            (true, true) => self.fleet.down(object.host, began),
            (true, false) => self.fleet.behind(object.host),
            (false, _) => {}
        }
        let cause = if is_host && !reachable { self.explanation(object.host, DEEPEST) } else { None };
        match self.place_of_ill(object) {
            Some(id) if !reachable => {
                self.explain(id, object, cause, began, at.now);
                Assigned::default()
            }
            Some(id) if self.has_outlived(id, object) => {
                // It stays a member that is ok, because the hosts behind it look it up.
                self.mark_recovered(id, object, at.now);
                self.places.remove(object);
                Assigned { left: Some(id), ..self.place(object, began, found, None, at) }
            }
            Some(id) => {
                self.update_state(id, object, found, at.now);
                Assigned::default()
            }
            // Notifications for it are suppressed, and its parent has no incident.
            None if !reachable && cause.is_none() => Assigned::default(),
            None => self.place(object, began, found, cause, at),
        }
    }

    /// Returns the start of a problem. A member keeps its recorded start, which moves with the
    /// clock. For others, a start in the future is from before the clock was set back, and counts
    /// as now.
    fn began(&self, object: &CheckableId, told: Wall, now: Now) -> Wall {
        let member = self.place_of_ill(object).and_then(|id| self.open.get(&id)?.members.get(object));
        member.map_or(told.min(now.wall), |member| member.began)
    }

    /// Records an ok result.
    pub fn well(&mut self, object: &CheckableId, now: Now) {
        if object.service.is_none() {
            self.fleet.up(object.host);
        }
        let Some(id) = self.place_of_ill(object) else { return };
        self.mark_recovered(id, object, now);
    }

    /// Records that the gateway has lost its uplink, or has it back.
    pub fn uplink(&mut self, lost: bool, at: Moment) {
        let gateway = CheckableId::host(GATEWAY);
        if !lost {
            return self.well(&gateway, at.now);
        }
        if self.place_of_ill(&gateway).is_some() {
            return;
        }
        let id = self.former(&gateway, at.now.wall).unwrap_or_else(|| self.open(summary::uplink(), at));
        self.join(id, &gateway, at.now.wall, None, at.now);
        let since = at.now.wall - EXPLAINED;
        let explained = |(other, i): (&IncidentId, &Incident)| {
            (*other != id && i.most_hosts_fell(since)).then_some(*other)
        };
        let all: Vec<IncidentId> = self.open.iter().filter_map(explained).collect();
        all.into_iter().for_each(|other| self.merge(other, id, at.now));
    }

    // -------------------------------------------------------------------- places

    fn place_of_ill(&self, object: &CheckableId) -> Option<IncidentId> {
        let id = self.of(object)?;
        self.open.get(&id).is_some_and(|i| i.has_problem(object)).then_some(id)
    }

    /// Returns the incident of the nearest parent that is down or whose tunnel is dead, at any
    /// distance.
    fn explanation(&self, host: HostId, depth: usize) -> Option<IncidentId> {
        let further = |parent| if depth > 1 { self.explanation(parent, depth - 1) } else { None };
        let tunnel = |parent: HostId| {
            let service = self.fleet.tunnel(parent)?.to_owned();
            self.place_of_ill(&CheckableId { host: parent, service: Some(service) })
        };
        let own = |parent: HostId| self.place_of_ill(&CheckableId::host(parent)).or_else(|| tunnel(parent));
        let of = |parent: &HostId| own(*parent).or_else(|| further(*parent));
        self.fleet.parents(host).iter().find_map(of)
    }

    /// Merges a host that went down with its parent into the incident of the parent.
    fn explain(
        &mut self,
        id: IncidentId,
        object: &CheckableId,
        cause: Option<IncidentId>,
        began: Wall,
        now: Now,
    ) {
        let Some(cause) = cause.filter(|cause| *cause != id) else { return };
        let alone = self.open.get(&id).is_some_and(|i| i.is_of(object.host));
        let parent = self.open.get(&cause).map(|i| i.opened);
        if alone && parent.is_some_and(|opened| apart(opened, began) <= CORRELATION_WINDOW) {
            self.widen_behind(cause, now);
            self.merge(id, cause, now);
        }
    }

    /// Whether the cause of the incident has recovered while this checkable still fails. In an
    /// incident of many hosts or of a site, the cause is the nearest parent that is a member.
    fn has_outlived(&self, id: IncidentId, object: &CheckableId) -> bool {
        let Some(incident) = self.open.get(&id) else { return false };
        match incident.matter.head.filter(|head| *head != object.host) {
            Some(head) => !incident.has_problem(&CheckableId::host(head)),
            None if incident.is_of_many(CauseKind::HostDown)
                || incident.matter.cause == CauseKind::SiteLost =>
            {
                self.is_cause_back(incident, object.host, DEEPEST)
            }
            None => false,
        }
    }

    /// A parent in between may never have been in the incident.
    fn is_cause_back(&self, incident: &Incident, host: HostId, depth: usize) -> bool {
        let further = |parent| depth > 1 && self.is_cause_back(incident, parent, depth - 1);
        let is_back = |parent: &HostId| match incident.members.get(&CheckableId::host(*parent)) {
            Some(member) => !member.has_problem(),
            None => further(*parent),
        };
        self.fleet.parents(host).iter().any(is_back)
    }

    fn place(
        &mut self,
        object: &CheckableId,
        began: Wall,
        found: &Found,
        cause: Option<IncidentId>,
        at: Moment,
    ) -> Assigned {
        let former = if cause.is_none() { self.former(object, began) } else { None };
        let home = cause.or(former);
        let fits = |id: &IncidentId| !self.has_outlived(*id, object);
        let with_others = home.is_none().then(|| self.with_others(object, began)).flatten().filter(fits);
        let home = home.or(with_others).or_else(|| self.beside(object, began).filter(fits));
        let id = match home {
            Some(id) => id,
            None => self.open(self.matter(object, found), at),
        };
        if cause.is_some() {
            self.widen_behind(id, at.now);
            self.widen_behind_tunnel(id, object.host, at.now);
        }
        self.join(id, object, began, found.status, at.now);
        self.widen_to_host(id, object.host, at.now);
        self.widen_to_site(id, object, began, at.now);
        if let Some(service) = &object.service {
            self.widen_alike(id, service, at.now);
            self.update_state(id, object, found, at.now);
        }
        let with_many = [with_others, former].into_iter().flatten().any(|id| self.is_wide(id));
        // Behind one host or in one site there may be thousands; the sum is checked each time their
        // number doubles.
        let adds_up = self.open.get(&id).is_some_and(|i| i.problem.is_power_of_two());
        match cause {
            _ if with_many => {}
            None => self.gather(object, began, at),
            Some(_) => self.gather_heads(id, began, at),
        }
        if adds_up && (with_many || cause.is_some()) {
            self.gather_crowd(began, at);
        }
        // The gathering above may have moved it to another incident.
        Assigned { left: None, known: self.known(object, at.now.wall).map(|(_, ack)| ack) }
    }

    /// Whether the incident already covers many hosts.
    fn is_wide(&self, id: IncidentId) -> bool {
        self.open.get(&id).is_some_and(|i| i.matter.extent.is_wide())
    }

    /// Returns the incident of several hosts that was found at the same time.
    fn with_others(&self, object: &CheckableId, began: Wall) -> Option<IncidentId> {
        let site = if object.service.is_none() { self.lost_site(object.host, began) } else { None };
        site.or_else(|| self.common(object.service.as_deref(), began))
    }

    /// Returns the incident that the checkable has just left, if its cause may still be the same.
    /// Other members may keep an incident open for days; a failure after that is a new one.
    fn former(&self, object: &CheckableId, began: Wall) -> Option<IncidentId> {
        let id = self.of(object)?;
        let left = self.open.get(&id)?.members.get(object)?.left?;
        (began.since(left) <= CLOSE_AFTER && !self.has_outlived(id, object)).then_some(id)
    }

    /// Returns the incident of the site, if the site was lost at the same time.
    fn lost_site(&self, host: HostId, began: Wall) -> Option<IncidentId> {
        self.recent(*self.lost.get(self.fleet.site(host)?)?, began)
    }

    /// Returns the incident of a failure on many hosts, if those hosts fail at this time. An old
    /// incident that goes on does not explain new failures.
    fn common(&self, service: Option<&str>, began: Wall) -> Option<IncidentId> {
        let id = self.recent(self.alike.last(service)?, began)?;
        let together = || self.alike.together(service, began);
        let of_it =
            |host| self.place_of_ill(&CheckableId { host, service: service.map(str::to_owned) }) == Some(id);
        let joined = together().filter(|host| of_it(*host)).take(by_service::FEWEST).count();
        let enough = self.enough(service) - 1;
        (joined == by_service::FEWEST && together().take(enough).count() == enough).then_some(id)
    }

    /// Returns the incident if its latest problem is recent. A host that never recovers keeps its
    /// incident open forever, and a later failure is another incident.
    fn recent(&self, id: IncidentId, began: Wall) -> Option<IncidentId> {
        let incident = self.open.get(&id).filter(|i| i.problem > 0)?;
        (apart(incident.newest, began) <= CORRELATION_WINDOW).then_some(id)
    }

    /// Returns the incident of another checkable that fails on the same host at the same time. The
    /// acknowledgement of a service covers neither its host nor another service.
    fn beside(&self, object: &CheckableId, began: Wall) -> Option<IncidentId> {
        let others = self.objects_of(object.host);
        let fits = |other: &CheckableId| {
            let id = self.place_of_ill(other)?;
            let incident = self.open.get(&id)?;
            let on_lost_host = object.service.is_some() && other.service.is_none();
            let fresh = apart(incident.members[other].began, began) <= CORRELATION_WINDOW;
            let of_many = object.service.is_some() && incident.is_of_many(CauseKind::ServiceFailed);
            let unknown = incident.ack.is_none() && (of_many || incident.is_of(object.host));
            (on_lost_host || fresh && unknown).then_some(id)
        };
        others.iter().find_map(fits)
    }

    fn objects_of(&self, host: HostId) -> Vec<CheckableId> {
        let from = self.places.range(CheckableId::host(host)..);
        from.map(|(object, _)| object).take_while(|o| o.host == host).cloned().collect()
    }

    fn matter(&self, object: &CheckableId, found: &Found) -> IncidentSummary {
        let name = self.fleet.name(object.host);
        let site = self.fleet.site(object.host).map(str::to_owned);
        match &object.service {
            Some(service) => summary::service(name, service, found, site),
            None => summary::host(name, object.host, site),
        }
    }
}

fn open_members(incident: &Incident) -> Vec<CheckableId> {
    incident.members.iter().filter(|(_, m)| m.has_problem()).map(|(object, _)| object.clone()).collect()
}

fn apart(a: Wall, b: Wall) -> Duration {
    a.since(b).max(b.since(a))
}
