//! Which service fails on which hosts, and when that is too many to be a coincidence: an update that
//! breaks `ssh` everywhere, a mirror that is gone, a certificate that has run out.
//!
//! Counts hosts. Knows no incident's members and nobody who knows of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::HostId;
use crate::time::Wall;
use crate::wire::{IncidentId, Object};

use super::TOGETHER;

/// Fewer hosts of which one service fails together are no more than neighbours in misfortune, however
/// few have it: a site of four may share a cause, but four messages are soon read. The same number as
/// of devices that let the gateway doubt itself.
pub const FEWEST: usize = 5;
/// One in so many of those that have the service. One that failed on each host once a day would fail on
/// 1 in 288 within [`TOGETHER`]: this is thirty times as many.
const SHARE: usize = 10;

#[derive(Debug, Default)]
pub struct Alike {
    /// What each host has, and how many have it: names are shared, hosts are many.
    on: BTreeMap<HostId, Box<[Arc<str>]>>,
    hosts: BTreeMap<Arc<str>, usize>,
    /// Since when it fails where, by time.
    failing: BTreeMap<String, BTreeSet<(Wall, HostId)>>,
    /// Where the last common failure of each service was put; it may be over.
    put: BTreeMap<String, IncidentId>,
}

impl Alike {
    /// These are the services of a host from now on.
    pub fn know<'a>(&mut self, host: HostId, services: impl Iterator<Item = &'a str>) {
        let names: Box<[Arc<str>]> = services.map(|name| self.name(name)).collect();
        self.forget(host);
        for name in &names {
            *self.hosts.entry(name.clone()).or_default() += 1;
        }
        self.on.insert(host, names);
    }

    fn name(&self, name: &str) -> Arc<str> {
        self.hosts.get_key_value(name).map_or_else(|| name.into(), |(shared, _)| shared.clone())
    }

    pub fn forget(&mut self, host: HostId) {
        for name in self.on.remove(&host).iter().flatten() {
            match self.hosts.get_mut(name) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.hosts.remove(name)),
            }
        }
    }

    pub fn ill(&mut self, service: &str, host: HostId, began: Wall) {
        match self.failing.get_mut(service) {
            Some(failing) => drop(failing.insert((began, host))),
            None => drop(self.failing.insert(service.to_owned(), BTreeSet::from([(began, host)]))),
        }
    }

    pub fn well(&mut self, service: &str, host: HostId, began: Wall) {
        let Some(failing) = self.failing.get_mut(service) else { return };
        failing.remove(&(began, host));
        if failing.is_empty() {
            self.failing.remove(service);
        }
    }

    /// Hosts on which it began to fail at about that time.
    pub fn together(&self, service: &str, began: Wall) -> impl Iterator<Item = HostId> {
        let (first, last) = (HostId::from_i64(0), HostId::from_i64(i64::MAX));
        let span = (began - TOGETHER, first)..=(began + TOGETHER, last);
        let failing = self.failing.get(service).into_iter();
        failing.flat_map(move |failing| failing.range(span.clone())).map(|(_, host)| *host)
    }

    /// Whether that it fails on so many hosts has one cause.
    pub fn is_common(&self, service: &str, count: usize) -> bool {
        let of = self.hosts.get(service).copied().unwrap_or_default();
        count >= FEWEST && count * SHARE >= of
    }

    /// An earlier run had put these there.
    pub fn recall<'a>(&mut self, incident: IncidentId, ill: impl Iterator<Item = &'a Object>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        ill.filter_map(|o| o.service.as_deref()).for_each(|service| *counts.entry(service).or_default() += 1);
        counts.retain(|_, count| *count >= FEWEST);
        counts.into_keys().for_each(|service| self.put(service, incident));
    }

    pub fn put(&mut self, service: &str, incident: IncidentId) {
        self.put.insert(service.to_owned(), incident);
    }

    pub fn last(&self, service: &str) -> Option<IncidentId> {
        self.put.get(service).copied()
    }

    pub fn close(&mut self, incident: IncidentId) {
        self.put.retain(|_, put| *put != incident);
    }
}
