//! When much is one: most of a site was lost, so many hosts fell together that no site explains, or a
//! service fails on many hosts.
//!
//! Merges what stood alone. Where one thing belongs, and what is counted, stands elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::HostId;
use crate::time::{Now, Wall};
use crate::wire::{CauseKind, Extent, IncidentId, Matter, Object};

use super::sites::{self, SiteLoss};
use super::{Incident, Incidents, Moment, alike, words};

/// A host that is down.
struct Lost {
    host: HostId,
    /// What it belongs to.
    with: IncidentId,
    /// Most of its site was lost. Part of one may be part of something wider as well.
    of_site: bool,
}

impl Incidents {
    /// An object has been put somewhere by itself, or behind another.
    pub(super) fn gather(&mut self, object: &Object, began: Wall, at: Moment) {
        match &object.service {
            None => {
                self.gather_site(object.host, began, at);
                self.gather_crowd(began, at);
            }
            Some(service) => self.gather_alike(service, began, at),
        }
    }

    /// Most of a site may have been lost together. A device is one thing that was lost, with all that stands
    /// behind it.
    fn gather_site(&mut self, host: HostId, began: Wall, at: Moment) {
        let Some(SiteLoss { site, hosts, most }) = self.fleet.site_loss(host, began) else { return };
        let own = |id: IncidentId, of: HostId| self.open.get(&id).is_some_and(|i| i.is_of_one(of));
        let lost = hosts.iter().filter_map(|of| Some((*of, self.place_of_ill(&Object::host(*of))?)));
        let mut alone: Vec<IncidentId> = lost.filter(|(of, id)| own(*id, *of)).map(|(_, id)| id).collect();
        if alone.len() < if most { sites::FEWEST } else { alike::FEWEST } {
            return;
        }
        alone.sort();
        let matter = if most { words::site(&site) } else { words::part_of_site(&site) };
        let into = self.unite(&alone, matter, at);
        self.lost.insert(site, into);
    }

    /// What stands behind a device of a site is no part of it any more: the rest that was lost may be most of it.
    pub(super) fn gather_heads(&mut self, id: IncidentId, began: Wall, at: Moment) {
        let head = self.open.get(&id).filter(|i| i.matter.cause == CauseKind::ParentDown);
        if let Some(head) = head.and_then(|i| i.matter.head) {
            self.gather_site(head, began, at);
        }
    }

    /// What many hosts of a site were in has become most of it.
    pub(super) fn widen_to_site(&mut self, id: IncidentId, object: &Object, began: Wall, now: Now) {
        let Some(site) = self.fleet.site(object.host).filter(|_| object.service.is_none()) else { return };
        let is_part = self.open.get(&id).is_some_and(|i| i.matter == words::part_of_site(site));
        let most = || self.fleet.site_loss(object.host, began).is_some_and(|loss| loss.most);
        if is_part && most() {
            self.widen(id, words::site(site), now);
        }
    }

    /// So many hosts may have fallen together that it has one cause, wherever they stand.
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
        let into = self.unite(&all, words::crowd(), at);
        self.alike.put(None, into);
    }

    /// Hosts that fell at about that time and may belong to something wider. A crowd of which fewer are
    /// left is an old one, who has outlived one is none of the next, and a site that is lost explains itself,
    /// unless there are as many of them as would be many hosts.
    fn loose_hosts(&self, began: Wall) -> Vec<Lost> {
        let loose = |host| self.loose_host(host);
        let mut lost: Vec<Lost> = self.alike.together(None, began).filter_map(loose).collect();
        let mut crowds = counts(lost.iter().map(|lost| lost.with));
        crowds.retain(|id, _| self.is_of_many(*id, CauseKind::HostDown));
        let old = |id: &IncidentId| crowds.get(id).is_some_and(|count| *count < alike::FEWEST);
        let outlived = |lost: &Lost| {
            let host = Object::host(lost.host);
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

    /// Where a host that is down stands, if that may belong to something wider: alone, before or behind
    /// others, or with its site.
    fn loose_host(&self, host: HostId) -> Option<Lost> {
        let id = self.place_of_ill(&Object::host(host))?;
        let incident = self.open.get(&id)?;
        let of_several = matches!(incident.matter.cause, CauseKind::SiteLost | CauseKind::ParentDown)
            || incident.is_of_many(CauseKind::HostDown);
        let loose = incident.is_of(host) || of_several && incident.ack.is_none();
        loose.then_some(Lost { host, with: id, of_site: incident.is_of_site() })
    }

    /// So many sites of which several hosts were lost have one cause.
    fn has_many_sites(&self, lost: &[Lost]) -> bool {
        let at = counts(lost.iter().filter_map(|lost| self.fleet.site(lost.host)));
        at.values().filter(|count| **count >= sites::FEWEST).count() >= alike::FEWEST
    }

    /// Whether no site and no router explains most of it: that is one by itself, and what falls elsewhere
    /// at the same time is by chance.
    fn is_scattered(&self, lost: &[Lost], enough: usize) -> bool {
        let (of_sites, others): (Vec<&Lost>, Vec<&Lost>) = lost.iter().partition(|lost| lost.of_site);
        let (at, with) = (
            counts(others.iter().filter_map(|l| self.fleet.site(l.host))),
            counts(others.iter().map(|l| l.with)),
        );
        let most = at.values().chain(with.values()).max().copied().unwrap_or_default();
        let many = others.len() >= enough && with.len() >= alike::FEWEST && most * 2 <= others.len();
        many || of_sites.len() >= enough
    }

    /// A service may have failed on many hosts together. What is an incident of its own on each, or of
    /// many that nobody knows of yet, is one.
    fn gather_alike(&mut self, service: &str, began: Wall, at: Moment) {
        let together = self.alike.together(Some(service), began);
        let places: Vec<IncidentId> = together.filter_map(|host| self.loose(host, service)).collect();
        if places.len() < self.enough(Some(service)) {
            return;
        }
        let (wide, alone): (BTreeSet<_>, BTreeSet<_>) =
            places.into_iter().partition(|id| self.is_of_many(*id, CauseKind::ServiceFailed));
        let matter = wide.first().and_then(|id| self.open.get(id)).map(|i| i.matter.clone());
        let all: Vec<IncidentId> = wide.into_iter().chain(alone).collect();
        let into = self.unite(&all, matter.unwrap_or_else(|| words::alike(service)), at);
        self.widen_alike(into, service, at.now);
        self.alike.put(Some(service), into);
    }

    /// Where a failing service of a host stands, if that may belong to something wider.
    fn loose(&self, host: HostId, service: &str) -> Option<IncidentId> {
        let id = self.place_of_ill(&Object { host, service: Some(service.to_owned()) })?;
        let incident = self.open.get(&id)?;
        let alone = incident.members.keys().all(|o| o.host == host && o.service.is_some());
        let of_many = incident.is_of_many(CauseKind::ServiceFailed) && incident.ack.is_none();
        (alone || of_many).then_some(id)
    }

    /// On how many hosts a service, or being there at all, has to fail together to be one.
    pub(super) fn enough(&self, service: Option<&str>) -> usize {
        alike::enough(service.map_or_else(|| self.fleet.seen(), |service| self.alike.having(service)))
    }

    fn is_of_many(&self, id: IncidentId, cause: CauseKind) -> bool {
        self.open.get(&id).is_some_and(|i| i.is_of_many(cause))
    }

    /// Another service than the one it was named after fails with it.
    pub(super) fn widen_alike(&mut self, id: IncidentId, service: &str, now: Now) {
        let Some(incident) = self.open.get(&id) else { return };
        let (matter, several) = (&incident.matter, words::several_alike());
        let named = *matter == words::alike(service) || *matter == several;
        if incident.is_of_many(CauseKind::ServiceFailed) && !named {
            self.widen(id, several, now);
        }
    }

    /// Makes one of many: of the first that nobody knows of, because nobody's knowledge of one host is
    /// taken for knowledge of all; else of a new one.
    fn unite(&mut self, all: &[IncidentId], matter: Matter, at: Moment) -> IncidentId {
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
    /// Of that host alone, or of what it heads and nobody knows of yet.
    fn is_of_one(&self, host: HostId) -> bool {
        let heads = self.matter.cause == CauseKind::ParentDown && self.matter.head == Some(host);
        self.is_of(host) || heads && self.ack.is_none()
    }

    /// Of most of a site.
    fn is_of_site(&self) -> bool {
        self.matter.site.as_deref().is_some_and(|name| self.matter == words::site(name))
    }

    /// Of many hosts that share nothing but the time.
    pub(super) fn is_of_many(&self, cause: CauseKind) -> bool {
        self.matter.extent == Extent::Fleet && self.matter.cause == cause
    }
}
