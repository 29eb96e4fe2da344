//! Counts the hosts on which a service fails, and decides when the failures are too many to be a
//! coincidence. Examples are an update that breaks `ssh` everywhere, a mirror that is gone, or a
//! carrier outage that takes down hosts of many sites.
//!
//! It counts hosts. It knows neither the members of incidents nor acknowledgements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::HostId;
use crate::messages::{CheckableId, GATEWAY, IncidentId};
use crate::time::{ClockStep, Wall};

use super::CORRELATION_WINDOW;

/// The smallest number of hosts that can have a common failure. A site of four may share a cause,
/// but an operator soon reads four notifications. The fleet-silence rule uses the same number of
/// devices to suspect the gateway itself.
pub const FEWEST: usize = 5;
/// A common failure takes one host in this many. A check that fails on each host once a day fails
/// on 1 in 288 within [`CORRELATION_WINDOW`]; this is thirty times as many.
const SHARE: usize = 10;
/// So many failing hosts are always a common failure, however large the fleet is: an operator
/// cannot acknowledge them one by one. In a fleet of 10,000 hosts, this is still seven times as
/// many as fail by chance around one moment, if each fails once a day.
const CROWD: usize = 500;

/// Returns how many of `of` hosts must fail together to have a common cause.
pub fn enough(of: usize) -> usize {
    of.div_ceil(SHARE).clamp(FEWEST, CROWD)
}

/// The failures of one service on all hosts, or of the hosts themselves.
#[derive(Debug, Default)]
struct Row {
    /// The failing hosts, each with the start of its failure, in order of time.
    failing: BTreeSet<(Wall, HostId)>,
    /// The incident of the last common failure; it may be closed.
    put: Option<IncidentId>,
}

#[derive(Debug, Default)]
struct Service {
    /// The number of hosts that have the service.
    hosts: usize,
    row: Row,
}

impl Service {
    fn is_idle(&self) -> bool {
        self.hosts == 0 && self.row.failing.is_empty() && self.row.put.is_none()
    }
}

#[derive(Debug, Default)]
pub struct CommonFailures {
    /// The services of each host. Hosts share the names, because there are many hosts and few
    /// names.
    on: BTreeMap<HostId, Box<[Arc<str>]>>,
    services: BTreeMap<Arc<str>, Service>,
    /// The failures of the hosts themselves.
    hosts: Row,
}

impl CommonFailures {
    /// Replaces the services of a host.
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

    /// Returns the number of hosts that have a service.
    pub fn having(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |service| service.hosts)
    }

    /// Counts a failure. The gateway is not counted as a host.
    pub fn problem(&mut self, object: &CheckableId, began: Wall) {
        if object.host != GATEWAY {
            self.change(object.service.as_deref(), |row| {
                row.failing.insert((began, object.host));
            });
        }
    }

    pub fn well(&mut self, object: &CheckableId, began: Wall) {
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

    pub fn rebase(&mut self, step: ClockStep) {
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

    /// `None` stands for the hosts themselves.
    fn row(&self, service: Option<&str>) -> Option<&Row> {
        match service {
            None => Some(&self.hosts),
            Some(name) => self.services.get(name).map(|service| &service.row),
        }
    }

    /// Returns the hosts on which the service began to fail at about that time.
    pub fn together(&self, service: Option<&str>, began: Wall) -> impl Iterator<Item = HostId> {
        let (first, last) = (HostId::from_i64(0), HostId::from_i64(i64::MAX));
        let span = (began - CORRELATION_WINDOW, first)..=(began + CORRELATION_WINDOW, last);
        let rows = self.row(service).into_iter();
        rows.flat_map(move |row| row.failing.range(span.clone())).map(|(_, host)| *host)
    }

    /// Restores the common failures that an earlier run found.
    pub fn recall<'a>(&mut self, incident: IncidentId, problem: impl Iterator<Item = &'a CheckableId>) {
        let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        problem.for_each(|object| *counts.entry(object.service.as_deref()).or_default() += 1);
        counts.retain(|_, count| *count >= FEWEST);
        for service in counts.into_keys() {
            // The caller passes the newest incident first.
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
