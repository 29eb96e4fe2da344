//! Assigns a problem to its incident: that of the parent that explains it, the one it has just left, that of
//! many hosts, that of its own host, or a new one.
//!
//! A problem that has outlived the cause of its incident leaves it. `correlate.rs` decides when several
//! incidents become one, and `lifecycle.rs` makes the changes.

use crate::id::HostId;
use crate::messages::{CauseKind, CheckableId, IncidentId, IncidentSummary, RENTAL_SERVICE};
use crate::time::{Now, Wall};

use super::{
    Assigned, CLOSE_AFTER, CORRELATION_WINDOW, DEEPEST, Incident, Incidents, Moment, ProblemFinding, apart,
};
use crate::incident::{by_service, summary};

impl Incidents {
    /// Returns the incident of the nearest parent that is down or whose tunnel is dead, at any
    /// distance.
    pub(super) fn explanation(&self, host: HostId, depth: usize) -> Option<IncidentId> {
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
    pub(super) fn explain(
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
    pub(super) fn has_outlived(&self, id: IncidentId, object: &CheckableId) -> bool {
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

    pub(super) fn place(
        &mut self,
        object: &CheckableId,
        began: Wall,
        found: &ProblemFinding,
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
    pub(super) fn former(&self, object: &CheckableId, began: Wall) -> Option<IncidentId> {
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
        if is_of_rental(object) {
            return None;
        }
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
        others.iter().filter(|other| !is_of_rental(other)).find_map(fits)
    }

    fn matter(&self, object: &CheckableId, found: &ProblemFinding) -> IncidentSummary {
        let name = self.fleet.name(object.host);
        let site = self.fleet.site(object.host).map(str::to_owned);
        match &object.service {
            Some(service) => summary::service(name, service, found, site),
            None => summary::host(name, object.host, site),
        }
    }
}

/// Whether it is the service of the rentals of a device. Its problem is that of the renters: who knows that the device is
/// down, and acknowledges that, does not know that a rental waits for it.
fn is_of_rental(object: &CheckableId) -> bool {
    object.service.as_deref() == Some(RENTAL_SERVICE)
}
