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
//! `assign.rs` decides to which incident a problem belongs.

mod acknowledgement;
mod assign;
mod by_service;
mod by_site;
mod correlate;
mod lifecycle;
mod restore;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::messages::{CheckableId, GATEWAY, IncidentAck, IncidentId, IncidentRecord, IncidentSummary};
use crate::time::{ClockStep, Mono, Now, Wall};

use by_service::CommonFailures;
use by_site::SiteIndex;
pub use summary::ProblemFinding;

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

    fn rebase(&mut self, step: ClockStep) {
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
    pub fn mind_step(&mut self, step: ClockStep, now: Now) {
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
        found: &ProblemFinding,
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

    fn place_of_ill(&self, object: &CheckableId) -> Option<IncidentId> {
        let id = self.of(object)?;
        self.open.get(&id).is_some_and(|i| i.has_problem(object)).then_some(id)
    }

    fn objects_of(&self, host: HostId) -> Vec<CheckableId> {
        let from = self.places.range(CheckableId::host(host)..);
        from.map(|(object, _)| object).take_while(|o| o.host == host).cloned().collect()
    }
}

fn open_members(incident: &Incident) -> Vec<CheckableId> {
    incident.members.iter().filter(|(_, m)| m.has_problem()).map(|(object, _)| object.clone()).collect()
}

fn apart(a: Wall, b: Wall) -> Duration {
    a.since(b).max(b.since(a))
}
