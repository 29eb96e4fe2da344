//! What belongs together: which problems have one cause, so that they are told, acknowledged and
//! closed as one.
//!
//! ```text
//! ill, well, uplink (what the monitor found) ─▶ Incidents ─▶ IncidentRecord (to be committed)
//! acknowledge                                             ─▶ Cover (members that somebody knows of)
//! ```
//!
//! A host that is down belongs to the incident of what it stands behind, if that explains it; to its
//! site's, if most of the site fell silent together; to that of many hosts, if so many fell together
//! that no site explains; else it has one of its own, with what fails on it at the same time. A service
//! that fails on many hosts together is one of those. The loss of the gateway's uplink takes in what it
//! explains. An incident closes when nothing of it is wrong for
//! [`LINGER`], so that a bounce does not make two; a closed one is never opened again. Who outlives the
//! cause of an incident leaves it and is told by itself.
//!
//! Pure: told the time, in order. Knows no states, no messages and no receiver. It holds what is
//! open, one name per host, and nothing of what is over.

mod alike;
mod changes;
mod gather;
mod sites;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{HostId, Id};
use crate::time::{Mono, Now, Step, Wall};
use crate::wire::{
    AckEnd, CauseKind, Extent, GATEWAY, IncidentAck, IncidentChange, IncidentId, IncidentMemory,
    IncidentRecord, Matter, MemberMemory, Object,
};

use alike::Alike;
use sites::Fleet;

/// What begins within this time of each other may have one cause: hosts lost together are found
/// within a check interval and its retries, of which the longest in use take some minutes.
pub const TOGETHER: Duration = Duration::from_secs(300);
/// An incident of which all is well stays open so long: a device that starts again twice, or a link
/// that comes and goes once more, is the same trouble.
pub const LINGER: Duration = Duration::from_secs(120);
/// The loss of the uplink explains what fell silent so long before it was found: the window of the
/// population (60 s), the patience with the witnesses (30 s), and a round of questions.
const EXPLAINED: Duration = Duration::from_secs(120);

/// Hosts that stand one behind the other, at the most that are looked through.
const DEEPEST: usize = 8;

/// When something happens, and a draw for the ids that it may need.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Now,
    pub draw: u32,
}

/// What became of an object that fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// It does not belong to this one any more.
    pub left: Option<IncidentId>,
    /// It has joined one that somebody knows of.
    pub known: Option<IncidentAck>,
}

/// An object that the acknowledgement of its incident covers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    pub object: Object,
    pub ack: IncidentAck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    began: Wall,
    /// When it was well again.
    left: Option<Wall>,
}

impl Member {
    fn is_ill(&self) -> bool {
        self.left.is_none()
    }
}

#[derive(Debug)]
struct Incident {
    opened: Wall,
    matter: Matter,
    members: BTreeMap<Object, Member>,
    /// When the youngest trouble in it began.
    newest: Wall,
    /// How many of them are ill.
    ill: usize,
    /// Since when none is.
    quiet: Option<Now>,
    ack: Option<IncidentAck>,
}

impl Incident {
    fn is_of(&self, host: HostId) -> bool {
        self.members.keys().all(|object| object.host == host)
    }

    fn is_ill(&self, object: &Object) -> bool {
        self.members.get(object).is_some_and(Member::is_ill)
    }

    /// Of those that are down. Its first may have failed long before the others joined it.
    fn most_hosts_fell(&self, since: Wall) -> bool {
        let down = || self.members.iter().filter(|(o, m)| o.service.is_none() && m.is_ill());
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
    fleet: Fleet,
    alike: Alike,
    open: BTreeMap<IncidentId, Incident>,
    /// Where each object belongs, also while it is well again.
    places: BTreeMap<Object, IncidentId>,
    /// Those of which nothing is ill, and since when: what time looks at.
    quiet: BTreeSet<(Mono, IncidentId)>,
    /// When an acknowledgement may have expired, as far as could be told then.
    expiring: BTreeSet<(Mono, IncidentId)>,
    /// Where the last loss of each site was put; it may be over.
    lost: BTreeMap<String, IncidentId>,
    newest: Option<IncidentId>,
    out: VecDeque<IncidentRecord>,
    covers: VecDeque<Cover>,
}

impl Incidents {
    /// Continues with what an earlier run left open. Before anything else.
    pub fn restore(&mut self, memories: Vec<IncidentMemory>, now: Now) {
        for memory in memories {
            self.owe_covers(&memory, now);
            let member = |m: MemberMemory| (m.object, Member { began: m.began, left: m.left });
            let members: BTreeMap<Object, Member> = memory.members.into_iter().map(member).collect();
            for (object, member) in &members {
                if member.is_ill() {
                    self.alike.ill(object, member.began);
                }
                // What it has left says nothing where it belongs to another now.
                if member.is_ill() || !self.places.contains_key(object) {
                    self.places.insert(object.clone(), memory.id);
                }
            }
            let ill = members.values().filter(|m| m.is_ill()).count();
            let (opened, matter) = (memory.opened, memory.matter);
            let (ack, late) = if ill > 0 { (memory.ack, None) } else { (None, memory.ack) };
            if late.is_some() {
                // It was stored, and nobody was ill any more when that run would have heard of it.
                self.record(memory.id, now.wall, IncidentChange::AckEnded(AckEnd::Late));
            }
            let since = members.values().filter_map(|m| m.left).max().unwrap_or(now.wall);
            let quiet = (ill == 0).then(|| Now { mono: now.mono_at(since), wall: since });
            self.quiet.extend(quiet.map(|since| (since.mono, memory.id)));
            if let (CauseKind::SiteLost, Some(site)) = (matter.cause, &matter.site) {
                // The newest comes first.
                self.lost.entry(site.clone()).or_insert(memory.id);
            }
            if matter.extent == Extent::Fleet {
                let of_hosts = matter.cause == CauseKind::HostDown;
                let ill = members.iter().filter(|(o, m)| m.is_ill() && o.service.is_none() == of_hosts);
                self.alike.recall(memory.id, ill.map(|(object, _)| object));
            }
            let newest = members.values().map(|m| m.began).max().unwrap_or(opened);
            self.watch_expiry(memory.id, ack.as_ref(), now);
            self.open.insert(memory.id, Incident { opened, matter, members, newest, ill, quiet, ack });
            self.newest = self.newest.max(Some(memory.id));
        }
    }

    /// The earlier run ended between an acknowledgement and what it covers.
    fn owe_covers(&mut self, memory: &IncidentMemory, now: Now) {
        let Some(ack) = memory.ack.as_ref().filter(|ack| ack.holds(now.wall)) else { return };
        let uncovered = memory.members.iter().filter(|m| m.left.is_none() && !m.covered);
        self.covers.extend(uncovered.map(|m| Cover { object: m.object.clone(), ack: ack.clone() }));
    }

    /// What is ill, and whose incident nobody knows of.
    pub fn unknown(&self) -> Vec<(IncidentId, Object)> {
        let unknown = self.open.iter().filter(|(_, i)| i.ack.is_none());
        unknown.flat_map(|(id, i)| ill_members(i).into_iter().map(|object| (*id, object))).collect()
    }

    /// A host is there, or has changed. `state`: `None` as long as it has none; since when it is
    /// down.
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

    /// A host fails, and what stands before it is down.
    pub fn know_unreachable(&mut self, id: HostId) {
        self.fleet.behind(id);
    }

    /// The service of a host that watches its tunnel, if one does.
    pub fn know_tunnel(&mut self, host: HostId, service: Option<&str>) {
        self.fleet.know_tunnel(host, service);
    }

    /// These are the services of a host from now on.
    pub fn know_services<'a>(&mut self, host: HostId, services: impl Iterator<Item = &'a str>) {
        self.alike.know(host, services);
    }

    /// A host, or some of its services, are no more.
    pub fn forget(&mut self, gone: impl Fn(&Object) -> bool, host: HostId, now: Now) {
        for object in self.objects_of(host).into_iter().filter(|o| gone(o)) {
            self.leave(&object, now);
        }
        if gone(&Object::host(host)) {
            self.fleet.forget(host);
            self.alike.forget(host);
        }
    }

    /// What was open when it ended, of a host that is up or gone now.
    pub fn objects(&self) -> Vec<Object> {
        let ill = |(object, id): (&Object, &IncidentId)| {
            self.open.get(id).is_some_and(|i| i.is_ill(object)).then(|| object.clone())
        };
        self.places.iter().filter_map(ill).collect()
    }

    /// What an object belongs to, also while it is well again and the incident is still open.
    pub fn of(&self, object: &Object) -> Option<IncidentId> {
        self.places.get(object).copied()
    }

    /// Who knows of what an object belongs to.
    pub fn known(&self, object: &Object, now: Wall) -> Option<(IncidentId, IncidentAck)> {
        let id = self.of(object)?;
        Some((id, self.open.get(&id)?.known(now)?))
    }

    pub fn poll_record(&mut self) -> Option<IncidentRecord> {
        self.out.pop_front()
    }

    pub fn poll_cover(&mut self) -> Option<Cover> {
        self.covers.pop_front()
    }

    pub fn due(&self) -> Option<Mono> {
        let expiry = self.expiring.first().map(|(at, _)| *at);
        let over = self.quiet.first().map(|(since, _)| *since + LINGER);
        over.into_iter().chain(expiry).min()
    }

    /// Time has passed.
    pub fn look(&mut self, now: Now) {
        while let Some((_, id)) = self.quiet.first().filter(|(since, _)| *since + LINGER <= now.mono).copied()
        {
            self.quiet.pop_first();
            self.close(id);
        }
        while let Some((_, id)) = self.expiring.first().filter(|(at, _)| *at <= now.mono).copied() {
            self.expiring.pop_first();
            self.expire(id, now);
        }
    }

    /// The wall clock was set. Acknowledgements expire by the calendar. The times of what is open move back with the
    /// clock: else a problem of before would count as one that begins when the clock shows that time again.
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

    /// A hard problem, at each result that finds it. `began`: the first failure of this row of them.
    pub fn ill(&mut self, object: &Object, began: Wall, reachable: bool, at: Moment) -> Placed {
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
                Placed::default()
            }
            Some(id) if self.has_outlived(id, object) => {
                // It stays a member that was well: who stands behind it asks.
                self.mark_well(id, object, at.now);
                self.places.remove(object);
                Placed { left: Some(id), ..self.place(object, began, None, at) }
            }
            Some(_) => Placed::default(),
            // Nothing is told of it, and what stands before it has no incident.
            None if !reachable && cause.is_none() => Placed::default(),
            None => self.place(object, began, cause, at),
        }
    }

    /// A member keeps the begin that is remembered, which moved with the clock. Of others, a begin in the future is
    /// from before the clock was set back, and counts as now.
    fn began(&self, object: &Object, told: Wall, now: Now) -> Wall {
        let member = self.place_of_ill(object).and_then(|id| self.open.get(&id)?.members.get(object));
        member.map_or(told.min(now.wall), |member| member.began)
    }

    /// A good result, or one that was never bad.
    pub fn well(&mut self, object: &Object, now: Now) {
        if object.service.is_none() {
            self.fleet.up(object.host);
        }
        let Some(id) = self.place_of_ill(object) else { return };
        self.mark_well(id, object, now);
    }

    /// The gateway is taken to be cut off, or was heard of again.
    pub fn uplink(&mut self, lost: bool, at: Moment) {
        let gateway = Object::host(GATEWAY);
        if !lost {
            return self.well(&gateway, at.now);
        }
        if self.place_of_ill(&gateway).is_some() {
            return;
        }
        let id = self.former(&gateway, at.now.wall).unwrap_or_else(|| self.open(words::uplink(), at));
        self.join(id, &gateway, at.now.wall, at.now);
        let since = at.now.wall - EXPLAINED;
        let explained = |(other, i): (&IncidentId, &Incident)| {
            (*other != id && i.most_hosts_fell(since)).then_some(*other)
        };
        let all: Vec<IncidentId> = self.open.iter().filter_map(explained).collect();
        all.into_iter().for_each(|other| self.merge(other, id, at.now));
    }

    // ------------------------------------------------------------ acknowledgement

    /// Gives what it covers now.
    pub fn acknowledge(&mut self, id: IncidentId, ack: IncidentAck, now: Now) -> Vec<Object> {
        self.watch_expiry(id, Some(&ack), now);
        let Some(incident) = self.open.get_mut(&id) else { return Vec::new() };
        incident.ack = Some(ack);
        ill_members(incident)
    }

    pub fn unacknowledge(&mut self, id: IncidentId) -> Vec<Object> {
        let Some(incident) = self.open.get_mut(&id) else { return Vec::new() };
        incident.ack = None;
        ill_members(incident)
    }

    fn watch_expiry(&mut self, id: IncidentId, ack: Option<&IncidentAck>, now: Now) {
        if let Some(at) = ack.and_then(|ack| ack.expires) {
            self.expiring.insert((now.mono + at.since(now.wall), id));
        }
    }

    /// Its members' expire by themselves. The wall clock may have been set, or another have taken its
    /// place: then it is looked at again when that expires.
    fn expire(&mut self, id: IncidentId, now: Now) {
        let Some(ack) = self.open.get(&id).and_then(|i| i.ack.clone()) else { return };
        if ack.holds(now.wall) {
            return self.watch_expiry(id, Some(&ack), now);
        }
        if let Some(incident) = self.open.get_mut(&id) {
            incident.ack = None;
        }
        self.record(id, now.wall, IncidentChange::AckEnded(AckEnd::Expired));
    }

    /// The incident's acknowledgement covers an object; gives the id of that.
    pub fn cover(&mut self, object: &Object, at: Moment) -> Option<(Id, IncidentId)> {
        let incident = self.of(object)?;
        let ack = self.draw_id(at).0;
        self.record(incident, at.now.wall, IncidentChange::Covered { object: object.clone(), ack });
        Some((ack, incident))
    }

    // -------------------------------------------------------------------- places

    fn place_of_ill(&self, object: &Object) -> Option<IncidentId> {
        let id = self.of(object)?;
        self.open.get(&id).is_some_and(|i| i.is_ill(object)).then_some(id)
    }

    /// The incident of what a host stands behind, however far before it, if that is down or its tunnel is
    /// dead.
    fn explanation(&self, host: HostId, depth: usize) -> Option<IncidentId> {
        let further = |parent| if depth > 1 { self.explanation(parent, depth - 1) } else { None };
        let tunnel = |parent: HostId| {
            let service = self.fleet.tunnel(parent)?.to_owned();
            self.place_of_ill(&Object { host: parent, service: Some(service) })
        };
        let own = |parent: HostId| self.place_of_ill(&Object::host(parent)).or_else(|| tunnel(parent));
        let of = |parent: &HostId| own(*parent).or_else(|| further(*parent));
        self.fleet.parents(host).iter().find_map(of)
    }

    /// What fell silent with its parent belongs to that.
    fn explain(&mut self, id: IncidentId, object: &Object, cause: Option<IncidentId>, began: Wall, now: Now) {
        let Some(cause) = cause.filter(|cause| *cause != id) else { return };
        let alone = self.open.get(&id).is_some_and(|i| i.is_of(object.host));
        let parent = self.open.get(&cause).map(|i| i.opened);
        if alone && parent.is_some_and(|opened| apart(opened, began) <= TOGETHER) {
            self.widen_behind(cause, now);
            self.merge(id, cause, now);
        }
    }

    /// Whether the cause of an incident is over, and this one still fails. Of many hosts or of a site, that is
    /// what each of them stands behind.
    fn has_outlived(&self, id: IncidentId, object: &Object) -> bool {
        let Some(incident) = self.open.get(&id) else { return false };
        match incident.matter.head.filter(|head| *head != object.host) {
            Some(head) => !incident.is_ill(&Object::host(head)),
            None if incident.is_of_many(CauseKind::HostDown)
                || incident.matter.cause == CauseKind::SiteLost =>
            {
                self.is_cause_back(incident, object.host, DEEPEST)
            }
            None => false,
        }
    }

    /// What stands between may never have been of the incident.
    fn is_cause_back(&self, incident: &Incident, host: HostId, depth: usize) -> bool {
        let further = |parent| depth > 1 && self.is_cause_back(incident, parent, depth - 1);
        let is_back = |parent: &HostId| match incident.members.get(&Object::host(*parent)) {
            Some(member) => !member.is_ill(),
            None => further(*parent),
        };
        self.fleet.parents(host).iter().any(is_back)
    }

    fn place(&mut self, object: &Object, began: Wall, cause: Option<IncidentId>, at: Moment) -> Placed {
        let former = if cause.is_none() { self.former(object, began) } else { None };
        let home = cause.or(former);
        let fits = |id: &IncidentId| !self.has_outlived(*id, object);
        let with_others = home.is_none().then(|| self.with_others(object, began)).flatten().filter(fits);
        let home = home.or(with_others).or_else(|| self.beside(object, began).filter(fits));
        let id = match home {
            Some(id) => id,
            None => self.open(self.matter(object), at),
        };
        if cause.is_some() {
            self.widen_behind(id, at.now);
            self.widen_behind_tunnel(id, object.host, at.now);
        }
        self.join(id, object, began, at.now);
        self.widen_to_host(id, object.host, at.now);
        self.widen_to_site(id, object, began, at.now);
        if let Some(service) = &object.service {
            self.widen_alike(id, service, at.now);
        }
        let with_many = [with_others, former].into_iter().flatten().any(|id| self.is_wide(id));
        // Behind one host or in one site there may be thousands: that they add up is seen as often as they double.
        let adds_up = self.open.get(&id).is_some_and(|i| i.ill.is_power_of_two());
        match cause {
            _ if with_many => {}
            None => self.gather(object, began, at),
            Some(_) => self.gather_heads(id, began, at),
        }
        if adds_up && (with_many || cause.is_some()) {
            self.gather_crowd(began, at);
        }
        // Of what it is in now: that may be another.
        Placed { left: None, known: self.known(object, at.now.wall).map(|(_, ack)| ack) }
    }

    /// Many are in it already.
    fn is_wide(&self, id: IncidentId) -> bool {
        self.open.get(&id).is_some_and(|i| i.matter.extent.is_wide())
    }

    /// The incident of several hosts that was found at the same time.
    fn with_others(&self, object: &Object, began: Wall) -> Option<IncidentId> {
        let site = if object.service.is_none() { self.lost_site(object.host, began) } else { None };
        site.or_else(|| self.common(object.service.as_deref(), began))
    }

    /// The one that it has left a moment ago, if its cause may still be the same. Others may keep an
    /// incident open for days: who fails again then has failed anew.
    fn former(&self, object: &Object, began: Wall) -> Option<IncidentId> {
        let id = self.of(object)?;
        let left = self.open.get(&id)?.members.get(object)?.left?;
        (began.since(left) <= LINGER && !self.has_outlived(id, object)).then_some(id)
    }

    /// The incident of the site, if that was lost at the same time.
    fn lost_site(&self, host: HostId, began: Wall) -> Option<IncidentId> {
        self.recent(*self.lost.get(self.fleet.site(host)?)?, began)
    }

    /// The incident of what fails on many hosts at this time, if they are in that: an old one that goes
    /// on does not explain what fails anew.
    fn common(&self, service: Option<&str>, began: Wall) -> Option<IncidentId> {
        let id = self.recent(self.alike.last(service)?, began)?;
        let together = || self.alike.together(service, began);
        let of_it =
            |host| self.place_of_ill(&Object { host, service: service.map(str::to_owned) }) == Some(id);
        let joined = together().filter(|host| of_it(*host)).take(alike::FEWEST).count();
        let enough = self.enough(service) - 1;
        (joined == alike::FEWEST && together().take(enough).count() == enough).then_some(id)
    }

    /// One that never comes back keeps its incident open for ever: what fails later is another trouble.
    fn recent(&self, id: IncidentId, began: Wall) -> Option<IncidentId> {
        let incident = self.open.get(&id).filter(|i| i.ill > 0)?;
        (apart(incident.newest, began) <= TOGETHER).then_some(id)
    }

    /// What else fails on the same host at the same time. Nobody's knowledge of a service is taken
    /// for knowledge of its host, or of another service.
    fn beside(&self, object: &Object, began: Wall) -> Option<IncidentId> {
        let others = self.objects_of(object.host);
        let fits = |other: &Object| {
            let id = self.place_of_ill(other)?;
            let incident = self.open.get(&id)?;
            let on_lost_host = object.service.is_some() && other.service.is_none();
            let fresh = apart(incident.members[other].began, began) <= TOGETHER;
            let of_many = object.service.is_some() && incident.is_of_many(CauseKind::ServiceFailed);
            let unknown = incident.ack.is_none() && (of_many || incident.is_of(object.host));
            (on_lost_host || fresh && unknown).then_some(id)
        };
        others.iter().find_map(fits)
    }

    fn objects_of(&self, host: HostId) -> Vec<Object> {
        let from = self.places.range(Object::host(host)..);
        from.map(|(object, _)| object).take_while(|o| o.host == host).cloned().collect()
    }

    fn matter(&self, object: &Object) -> Matter {
        let name = self.fleet.name(object.host);
        let site = self.fleet.site(object.host).map(str::to_owned);
        match &object.service {
            Some(service) => words::service(name, service, site),
            None => words::host(name, object.host, site),
        }
    }
}

fn ill_members(incident: &Incident) -> Vec<Object> {
    incident.members.iter().filter(|(_, m)| m.is_ill()).map(|(object, _)| object.clone()).collect()
}

fn apart(a: Wall, b: Wall) -> Duration {
    a.since(b).max(b.since(a))
}
