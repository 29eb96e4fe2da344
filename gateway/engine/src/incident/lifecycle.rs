//! The life of an incident: it opens, gains members, widens, is merged, and closes. Each change is
//! recorded.
//!
//! It decides nothing. `assign.rs` decides where a problem belongs; `correlate.rs` decides when
//! several incidents become one.

use std::collections::BTreeMap;

use fleetgate_probes::sample::Status;

use crate::id::{HostId, Id};
use crate::messages::{
    AckEnd, CheckableId, IncidentChange, IncidentId, IncidentRecord, IncidentScope, IncidentSummary,
};
use crate::time::{Now, Wall};

use super::{AckToApply, Incident, Incidents, Member, Moment, ProblemFinding};
use crate::incident::summary;

impl Incidents {
    pub(super) fn open(&mut self, matter: IncidentSummary, at: Moment) -> IncidentId {
        let id = self.draw_id(at);
        let opened = at.now.wall;
        self.record(id, opened, IncidentChange::Opened(matter.clone()));
        let incident = Incident {
            opened,
            matter,
            members: BTreeMap::new(),
            // A member may have failed long before it joins, during a downtime or an outage of the
            // gateway.
            newest: Wall::from_millis(0),
            problem: 0,
            quiet: None,
            ack: None,
        };
        self.open.insert(id, incident);
        id
    }

    pub(super) fn join(
        &mut self,
        id: IncidentId,
        object: &CheckableId,
        began: Wall,
        status: Option<Status>,
        now: Now,
    ) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        incident.members.insert(object.clone(), Member { began, status, left: None });
        incident.newest = incident.newest.max(began);
        incident.problem += 1;
        self.rest(id, None);
        self.places.insert(object.clone(), id);
        self.alike.problem(object, began);
        self.record(id, now.wall, IncidentChange::Joined { object: object.clone(), began });
    }

    pub(super) fn mark_recovered(&mut self, id: IncidentId, object: &CheckableId, now: Now) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        if let Some(member) = incident.members.get_mut(object) {
            member.left = Some(now.wall);
            incident.problem -= 1;
            self.alike.well(object, member.began);
        }
        let all_well = incident.problem == 0;
        let knew = if all_well { incident.ack.take() } else { None };
        self.rest(id, all_well.then_some(now));
        self.record(id, now.wall, IncidentChange::Left(object.clone()));
        if knew.is_some() {
            self.record(id, now.wall, IncidentChange::AckEnded(AckEnd::Well));
        }
    }

    /// Removes a checkable from its incident.
    pub(super) fn leave(&mut self, object: &CheckableId, now: Now) {
        let Some(id) = self.of(object) else { return };
        if self.place_of_ill(object).is_some() {
            self.mark_recovered(id, object, now);
        }
        if let Some(incident) = self.open.get_mut(&id) {
            incident.members.remove(object);
        }
        self.places.remove(object);
    }

    /// Moves all members of one incident into another. The acknowledgement of `into` covers the
    /// moved members that are in a problem state. The acknowledgement of `from` still covers its
    /// former members, and nothing else.
    pub(super) fn merge(&mut self, from: IncidentId, into: IncidentId, now: Now) {
        let Some(gone) = self.take(from) else { return };
        let Some(incident) = self.open.get_mut(&into) else { return };
        let known = incident.known(now.wall);
        let here = |(object, _): &(CheckableId, Member)| self.places.get(object) == Some(&from);
        let members: Vec<(CheckableId, Member)> = gone.members.into_iter().filter(here).collect();
        for (object, member) in members {
            self.places.insert(object.clone(), into);
            incident.problem += usize::from(member.has_problem());
            incident.newest = incident.newest.max(member.began);
            incident.members.insert(object.clone(), member);
            if let Some(ack) = known.clone().filter(|_| member.has_problem()) {
                self.covers.push_back(AckToApply { object, ack });
            }
        }
        if incident.problem > 0 {
            self.rest(into, None);
        }
        self.record(from, now.wall, IncidentChange::Merged(into));
    }

    pub(super) fn widen(&mut self, id: IncidentId, matter: IncidentSummary, now: Now) {
        let Some(incident) = self.open.get_mut(&id).filter(|i| i.matter != matter) else { return };
        incident.matter = matter.clone();
        self.record(id, now.wall, IncidentChange::Widened(matter));
    }

    /// Applies the state of a member that still fails. The summary of a single service names it.
    pub(super) fn update_state(
        &mut self,
        id: IncidentId,
        object: &CheckableId,
        found: &ProblemFinding,
        now: Now,
    ) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        if let Some(member) = incident.members.get_mut(object) {
            member.status = found.status;
        }
        let Some(service) = object.service.as_deref() else { return };
        let name = self.fleet.name(object.host);
        let is_named =
            incident.matter.words.starts_with(&summary::service_state(name, service, found.status));
        let words = match incident.matter.extent {
            IncidentScope::Service if !is_named => summary::service(name, service, found, None).words,
            IncidentScope::Fleet if summary::has_other_state(&incident.matter, service, found.status) => {
                summary::alike(service, None).words
            }
            _ => return,
        };
        incident.matter.words.clone_from(&words);
        self.record(id, now.wall, IncidentChange::Reworded(words));
    }

    /// Widens an incident to its host, if the host is down or more than one checkable of it fails.
    pub(super) fn widen_to_host(&mut self, id: IncidentId, host: HostId, now: Now) {
        let Some(incident) = self.open.get(&id) else { return };
        let down = incident.has_problem(&CheckableId::host(host));
        let several = incident.members.len() > 1;
        // An incident with a head host is already as wide as its host.
        let narrow = !incident.matter.extent.is_wide() && incident.matter.head.is_none();
        if !narrow || !(down || several) {
            return;
        }
        let (name, site) = (self.fleet.name(host), incident.matter.site.clone());
        let matter = if down { summary::host(name, host, site) } else { summary::services(name, site) };
        self.widen(id, matter, now);
    }

    /// Widens the incident of a host to the hosts behind it.
    pub(super) fn widen_behind(&mut self, id: IncidentId, now: Now) {
        let Some(incident) = self.open.get(&id) else { return };
        let (extent, head) = (incident.matter.extent, incident.matter.head);
        if let Some(head) = head.filter(|_| !extent.is_wide()) {
            let matter = summary::behind(self.fleet.name(head), head, incident.matter.site.clone());
            self.widen(id, matter, now);
        }
    }

    /// Widens the incident of a dead tunnel to the hosts behind the device, while another path
    /// proves that the device is up.
    pub(super) fn widen_behind_tunnel(&mut self, id: IncidentId, behind: HostId, now: Now) {
        let Some(incident) = self.open.get(&id) else { return };
        let narrow = !incident.matter.extent.is_wide() && incident.matter.head.is_none();
        let heads = |host: &&HostId| incident.members.keys().any(|o| o.host == **host && o.service.is_some());
        if let Some(device) = self.fleet.parents(behind).iter().find(heads).filter(|_| narrow) {
            let matter = summary::behind_tunnel(self.fleet.name(*device), incident.matter.site.clone());
            self.widen(id, matter, now);
        }
    }

    pub(super) fn close(&mut self, id: IncidentId) {
        let Some(incident) = self.take(id) else { return };
        // Some of its members may belong to another incident by now.
        for object in incident.members.keys() {
            if self.places.get(object) == Some(&id) {
                self.places.remove(object);
            }
        }
        self.lost.retain(|_, lost| *lost != id);
        let at = incident.quiet.map_or(incident.opened, |since| since.wall);
        self.record(id, at, IncidentChange::Closed);
    }

    /// Takes an incident out of the open ones.
    fn take(&mut self, id: IncidentId) -> Option<Incident> {
        let incident = self.open.remove(&id)?;
        if let Some(since) = incident.quiet {
            self.quiet.remove(&(since.mono, id));
        }
        // `alike` only remembers incidents of many hosts. The others may close by the thousand in
        // one moment, and need no scan of every service.
        if incident.matter.extent == IncidentScope::Fleet {
            self.alike.close(id);
        }
        Some(incident)
    }

    /// Records since when every member has been ok; `None` if a member has a problem.
    pub(super) fn rest(&mut self, id: IncidentId, since: Option<Now>) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut incident.quiet, since) {
            self.quiet.remove(&(before.mono, id));
        }
        if let Some(since) = since {
            self.quiet.insert((since.mono, id));
        }
    }

    pub(super) fn record(&mut self, id: IncidentId, at: Wall, change: IncidentChange) {
        self.out.push_back(IncidentRecord { id, at, change });
    }

    /// Returns an id larger than all before, so that several in one moment differ.
    pub(super) fn draw_id(&mut self, at: Moment) -> IncidentId {
        let drawn = IncidentId(Id::new(at.now.wall.as_millis(), at.draw));
        let after = self.newest.map(|last| IncidentId(Id::from_i64(last.0.as_i64() + 1)));
        let id = after.map_or(drawn, |after| after.max(drawn));
        self.newest = Some(id);
        id
    }
}
