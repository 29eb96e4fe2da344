//! What fails on which hosts, and when that is too much to be a coincidence: an update that breaks `ssh`
//! everywhere, a mirror that is gone, a carrier with which hosts of many sites fall silent.
//!
//! Counts hosts. Knows no incident's members and nobody who knows of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::HostId;
use crate::time::{Step, Wall};
use crate::wire::{GATEWAY, IncidentId, Object};

use super::TOGETHER;

/// Fewer hosts of which one service fails together, or that fall together, are no more than neighbours in
/// misfortune, however few have it: a site of four may share a cause, but four messages are soon read. The
/// same number as of devices that let the gateway doubt itself.
pub const FEWEST: usize = 5;
/// One in so many of those that have it. What fails on each host once a day fails on 1 in 288 within
/// [`TOGETHER`]: this is thirty times as many.
const SHARE: usize = 10;
/// So many are one, however many more there are: nobody acknowledges them one by one. In a fleet of
/// 10,000, this is still seven times as many as fail by chance around one moment, if each fails once a day.
const CROWD: usize = 500;

/// On how many of those that have it something has to fail together to have one cause.
pub fn enough(of: usize) -> usize {
    of.div_ceil(SHARE).clamp(FEWEST, CROWD)
}

/// What fails alike.
#[derive(Debug, Default)]
struct Row {
    /// Since when it fails where, by time.
    failing: BTreeSet<(Wall, HostId)>,
    /// Where its last common failure was put; it may be over.
    put: Option<IncidentId>,
}

#[derive(Debug, Default)]
struct Service {
    /// How many have it.
    hosts: usize,
    row: Row,
}

impl Service {
    fn is_idle(&self) -> bool {
        self.hosts == 0 && self.row.failing.is_empty() && self.row.put.is_none()
    }
}

#[derive(Debug, Default)]
pub struct Alike {
    /// What each host has: names are shared, hosts are many.
    on: BTreeMap<HostId, Box<[Arc<str>]>>,
    services: BTreeMap<Arc<str>, Service>,
    /// The hosts themselves.
    hosts: Row,
}

impl Alike {
    /// These are the services of a host from now on.
    pub fn know<'a>(&mut self, host: HostId, services: impl Iterator<Item = &'a str>) {
        let names: Box<[Arc<str>]> = services.map(|name| self.name(name)).collect();
        self.forget(host);
        for name in &names {
            self.services.entry(name.clone()).or_default().hosts += 1;
        }
        self.on.insert(host, names);
    }

    fn name(&self, name: &str) -> Arc<str> {
        self.services.get_key_value(name).map_or_else(|| name.into(), |(shared, _)| shared.clone())
    }

    pub fn forget(&mut self, host: HostId) {
        for name in self.on.remove(&host).iter().flatten() {
            if let Some(service) = self.services.get_mut(name) {
                service.hosts = service.hosts.saturating_sub(1);
            }
            self.drop_idle(name);
        }
    }

    /// On how many hosts a service is.
    pub fn having(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |service| service.hosts)
    }

    /// The gateway is no host among others.
    pub fn ill(&mut self, object: &Object, began: Wall) {
        if object.host != GATEWAY {
            self.change(object.service.as_deref(), |row| {
                row.failing.insert((began, object.host));
            });
        }
    }

    pub fn well(&mut self, object: &Object, began: Wall) {
        self.change(object.service.as_deref(), |row| {
            row.failing.remove(&(began, object.host));
        });
    }

    fn change(&mut self, service: Option<&str>, change: impl FnOnce(&mut Row)) {
        let Some(name) = service else { return change(&mut self.hosts) };
        let shared = self.name(name);
        change(&mut self.services.entry(shared).or_default().row);
        self.drop_idle(name);
    }

    pub fn rebase(&mut self, step: Step) {
        let rows = self.services.values_mut().map(|service| &mut service.row).chain([&mut self.hosts]);
        for row in rows {
            let failing = std::mem::take(&mut row.failing);
            row.failing = failing.into_iter().map(|(began, host)| (step.rebase(began), host)).collect();
        }
    }

    fn drop_idle(&mut self, name: &str) {
        if self.services.get(name).is_some_and(Service::is_idle) {
            self.services.remove(name);
        }
    }

    /// `None` is the hosts themselves.
    fn row(&self, service: Option<&str>) -> Option<&Row> {
        match service {
            None => Some(&self.hosts),
            Some(name) => self.services.get(name).map(|service| &service.row),
        }
    }

    /// Hosts on which it began to fail at about that time.
    pub fn together(&self, service: Option<&str>, began: Wall) -> impl Iterator<Item = HostId> {
        let (first, last) = (HostId::from_i64(0), HostId::from_i64(i64::MAX));
        let span = (began - TOGETHER, first)..=(began + TOGETHER, last);
        let rows = self.row(service).into_iter();
        rows.flat_map(move |row| row.failing.range(span.clone())).map(|(_, host)| *host)
    }

    /// An earlier run had put these there.
    pub fn recall<'a>(&mut self, incident: IncidentId, ill: impl Iterator<Item = &'a Object>) {
        let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        ill.for_each(|object| *counts.entry(object.service.as_deref()).or_default() += 1);
        counts.retain(|_, count| *count >= FEWEST);
        for service in counts.into_keys() {
            // The newest comes first.
            if self.last(service).is_none() {
                self.put(service, incident);
            }
        }
    }

    pub fn put(&mut self, service: Option<&str>, incident: IncidentId) {
        self.change(service, |row| row.put = Some(incident));
    }

    pub fn last(&self, service: Option<&str>) -> Option<IncidentId> {
        self.row(service)?.put
    }

    pub fn close(&mut self, incident: IncidentId) {
        let rows = self.services.values_mut().map(|service| &mut service.row).chain([&mut self.hosts]);
        rows.filter(|row| row.put == Some(incident)).for_each(|row| row.put = None);
        self.services.retain(|_, service| !service.is_idle());
    }
}
