//! Merges separate incidents that have one cause: most of a site was lost, a service fails on many
//! hosts, or so many hosts went down together that no site explains it.
//!
//! `assign.rs` decides where a single problem belongs; `by_service.rs` and `by_site.rs` count.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::messages::{CauseKind, CheckableId, IncidentId, IncidentScope, IncidentSummary};
use crate::time::{Now, Wall};

use super::{Incident, Incidents, Moment};
use crate::incident::by_site;
use crate::incident::by_site::SiteLoss;
use crate::incident::{by_service, summary};

/// A host that is down.
struct Lost {
    host: HostId,
    /// The incident that the host belongs to.
    with: IncidentId,
    /// Whether most of its site was lost. The loss of part of a site may also belong to a wider
    /// incident.
    of_site: bool,
}

impl Incidents {
    /// Looks for a common cause after a checkable was placed by itself, or behind another host.
    pub(super) fn gather(&mut self, object: &CheckableId, began: Wall, at: Moment) {
        match &object.service {
            None => {
                self.gather_site(object.host, began, at);
                self.gather_crowd(began, at);
            }
            Some(service) => self.gather_alike(service, began, at),
        }
    }

    /// Merges the hosts of a site if most of it may have been lost together. A device counts as one
    /// lost host, together with everything behind it.
    fn gather_site(&mut self, host: HostId, began: Wall, at: Moment) {
        let Some(SiteLoss { site, hosts, most }) = self.fleet.site_loss(host, began) else { return };
        let own = |id: IncidentId, of: HostId| self.open.get(&id).is_some_and(|i| i.is_of_one(of));
        let lost = hosts.iter().filter_map(|of| Some((*of, self.place_of_ill(&CheckableId::host(*of))?)));
        let mut alone: Vec<IncidentId> = lost.filter(|(of, id)| own(*id, *of)).map(|(_, id)| id).collect();
        if alone.len() < if most { by_site::FEWEST } else { by_service::FEWEST } {
            return;
        }
        alone.sort();
        let matter = if most { summary::site(&site) } else { summary::part_of_site(&site) };
        let into = self.unite(&alone, matter, at);
        self.lost.insert(site, into);
    }

    /// Looks at the site of a head host again. The hosts behind a device no longer count for the
    /// site, so the remaining losses may be most of it.
    pub(super) fn gather_heads(&mut self, id: IncidentId, began: Wall, at: Moment) {
        let head = self.open.get(&id).filter(|i| i.matter.cause == CauseKind::ParentDown);
        if let Some(head) = head.and_then(|i| i.matter.head) {
            self.gather_site(head, began, at);
        }
    }

    /// Widens an incident of many hosts of a site once they are most of the site.
    pub(super) fn widen_to_site(&mut self, id: IncidentId, object: &CheckableId, began: Wall, now: Now) {
        let Some(site) = self.fleet.site(object.host).filter(|_| object.service.is_none()) else { return };
        let is_part = self.open.get(&id).is_some_and(|i| i.matter == summary::part_of_site(site));
        let most = || self.fleet.site_loss(object.host, began).is_some_and(|loss| loss.most);
        if is_part && most() {
            self.widen(id, summary::site(site), now);
        }
    }

    /// Merges the hosts that went down together, at any site, if they are too many for a
    /// coincidence.
    pub(super) fn gather_crowd(&mut self, began: Wall, at: Moment) {
        let enough = self.enough(None);
        if self.alike.together(None, began).take(enough).count() < enough {
            return;
        }
        let lost = self.loose_hosts(began);
        let (wide, others): (BTreeSet<_>, BTreeSet<_>) =
            lost.iter().map(|lost| lost.with).partition(|id| self.is_of_many(*id, CauseKind::HostDown));
        let scattered = || self.has_many_sites(&lost) || self.is_scattered(&lost, enough);
        if lost.len() < enough || wide.is_empty() && !scattered() {
            return;
        }
        let all: Vec<IncidentId> = wide.into_iter().chain(others).collect();
        let into = self.unite(&all, summary::crowd(), at);
        self.alike.put(None, into);
    }

    /// Returns the hosts that went down at about that time and may belong to a wider incident. An
    /// earlier incident of many hosts with too few of them left is too old for this. An incident
    /// with a host that has outlived such a crowd is left out. A lost site explains itself, unless
    /// many sites were lost.
    fn loose_hosts(&self, began: Wall) -> Vec<Lost> {
        let loose = |host| self.loose_host(host);
        let mut lost: Vec<Lost> = self.alike.together(None, began).filter_map(loose).collect();
        let mut crowds = counts(lost.iter().map(|lost| lost.with));
        crowds.retain(|id, _| self.is_of_many(*id, CauseKind::HostDown));
        let old = |id: &IncidentId| crowds.get(id).is_some_and(|count| *count < by_service::FEWEST);
        let outlived = |lost: &Lost| {
            let host = CheckableId::host(lost.host);
            crowds.keys().any(|id| *id != lost.with && self.has_outlived(*id, &host))
        };
        let outlived: BTreeSet<IncidentId> =
            lost.iter().filter(|lost| outlived(lost)).map(|lost| lost.with).collect();
        let many_sites = self.has_many_sites(&lost);
        lost.retain(|lost| {
            let explained = lost.of_site && !many_sites;
            !old(&lost.with) && !outlived.contains(&lost.with) && !explained
        });
        lost
    }

    /// Returns the incident of a down host if that may become part of a wider one. The host is then
    /// alone, before or behind others, or lost with its site.
    fn loose_host(&self, host: HostId) -> Option<Lost> {
        let id = self.place_of_ill(&CheckableId::host(host))?;
        let incident = self.open.get(&id)?;
        let of_several = matches!(incident.matter.cause, CauseKind::SiteLost | CauseKind::ParentDown)
            || incident.is_of_many(CauseKind::HostDown);
        let loose = incident.is_of(host) || of_several && incident.ack.is_none();
        loose.then_some(Lost { host, with: id, of_site: incident.is_of_site() })
    }

    /// Whether so many sites lost several hosts that they have one cause.
    fn has_many_sites(&self, lost: &[Lost]) -> bool {
        let at = counts(lost.iter().filter_map(|lost| self.fleet.site(lost.host)));
        at.values().filter(|count| **count >= by_site::FEWEST).count() >= by_service::FEWEST
    }

    /// Whether no single site or router explains most of the lost hosts. If one does, that is an
    /// incident by itself, and the hosts that fall elsewhere at the same time are a coincidence.
    fn is_scattered(&self, lost: &[Lost], enough: usize) -> bool {
        let (of_sites, others): (Vec<&Lost>, Vec<&Lost>) = lost.iter().partition(|lost| lost.of_site);
        let (at, with) = (
            counts(others.iter().filter_map(|l| self.fleet.site(l.host))),
            counts(others.iter().map(|l| l.with)),
        );
        let most = at.values().chain(with.values()).max().copied().unwrap_or_default();
        let many = others.len() >= enough && with.len() >= by_service::FEWEST && most * 2 <= others.len();
        many || of_sites.len() >= enough
    }

    /// Merges the failures of a service that may have failed on many hosts together: incidents of a
    /// single host, and unacknowledged incidents of many.
    fn gather_alike(&mut self, service: &str, began: Wall, at: Moment) {
        let together = self.alike.together(Some(service), began);
        let (hosts, places): (Vec<HostId>, Vec<IncidentId>) =
            together.filter_map(|host| Some((host, self.loose(host, service)?))).unzip();
        if places.len() < self.enough(Some(service)) {
            return;
        }
        let (wide, alone): (BTreeSet<_>, BTreeSet<_>) =
            places.into_iter().partition(|id| self.is_of_many(*id, CauseKind::ServiceFailed));
        let matter = wide.first().and_then(|id| self.open.get(id)).map(|i| i.matter.clone());
        let all: Vec<IncidentId> = wide.into_iter().chain(alone).collect();
        let alike = || summary::alike(service, self.shared_status(&hosts, service));
        let matter = matter.unwrap_or_else(alike);
        let into = self.unite(&all, matter, at);
        self.widen_alike(into, service, at.now);
        self.alike.put(Some(service), into);
    }

    /// Returns the state of the service, if it is known and the same on all the hosts.
    fn shared_status(&self, hosts: &[HostId], service: &str) -> Option<Status> {
        let status = |host: &HostId| {
            let object = CheckableId { host: *host, service: Some(service.to_owned()) };
            self.open.get(&self.place_of_ill(&object)?)?.members.get(&object)?.status
        };
        let first = hosts.first().and_then(status)?;
        hosts.iter().all(|host| status(host) == Some(first)).then_some(first)
    }

    /// Returns the incident of a failing service on a host if that may become part of a wider one.
    fn loose(&self, host: HostId, service: &str) -> Option<IncidentId> {
        let id = self.place_of_ill(&CheckableId { host, service: Some(service.to_owned()) })?;
        let incident = self.open.get(&id)?;
        let alone = incident.members.keys().all(|o| o.host == host && o.service.is_some());
        let of_many = incident.is_of_many(CauseKind::ServiceFailed) && incident.ack.is_none();
        (alone || of_many).then_some(id)
    }

    /// Returns on how many hosts a service (`None`: the host itself) must fail together to be one
    /// incident.
    pub(super) fn enough(&self, service: Option<&str>) -> usize {
        by_service::enough(service.map_or_else(|| self.fleet.seen(), |service| self.alike.having(service)))
    }

    fn is_of_many(&self, id: IncidentId, cause: CauseKind) -> bool {
        self.open.get(&id).is_some_and(|i| i.is_of_many(cause))
    }

    /// Widens an incident of one service on many hosts when another service fails with it.
    pub(super) fn widen_alike(&mut self, id: IncidentId, service: &str, now: Now) {
        let Some(incident) = self.open.get(&id) else { return };
        if incident.is_of_many(CauseKind::ServiceFailed) && !summary::is_alike(&incident.matter, service) {
            self.widen(id, summary::several_alike(), now);
        }
    }

    /// Merges `all` into the first unacknowledged incident among them, or else into a new one. The
    /// acknowledgement of a single host must not cover all of them.
    fn unite(&mut self, all: &[IncidentId], matter: IncidentSummary, at: Moment) -> IncidentId {
        let unknown = |id: &&IncidentId| self.open.get(id).is_some_and(|i| i.ack.is_none());
        let into = match all.iter().find(unknown).copied() {
            Some(first) => {
                self.widen(first, matter, at.now);
                first
            }
            None => self.open(matter, at),
        };
        all.iter().filter(|from| **from != into).for_each(|from| self.merge(*from, into, at.now));
        into
    }
}

fn counts<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}

impl Incident {
    /// Whether the incident covers that host alone, or is the unacknowledged one that the host
    /// heads.
    fn is_of_one(&self, host: HostId) -> bool {
        let heads = self.matter.cause == CauseKind::ParentDown && self.matter.head == Some(host);
        self.is_of(host) || heads && self.ack.is_none()
    }

    /// Whether it is the loss of most of a site.
    fn is_of_site(&self) -> bool {
        self.matter.site.as_deref().is_some_and(|name| self.matter == summary::site(name))
    }

    /// Whether many hosts are in it that share nothing but the time.
    pub(super) fn is_of_many(&self, cause: CauseKind) -> bool {
        self.matter.extent == IncidentScope::Fleet && self.matter.cause == cause
    }
}
