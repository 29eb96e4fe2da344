//! The site of each host, and the number of hosts that are down at each site.

use std::collections::BTreeMap;

use crate::id::HostId;
use crate::time::{ClockStep, Wall};

use super::{CORRELATION_WINDOW, apart};
use crate::incident::by_service;

/// The smallest number of hosts whose loss can be the loss of a site: two may be a coincidence.
pub const FEWEST: usize = 3;

#[derive(Debug, Default)]
struct SiteHost {
    name: String,
    site: Option<String>,
    parents: Vec<HostId>,
    tunnel: Option<String>,
    state: State,
}

/// The state of a host, as it counts for its site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It has no state yet.
    #[default]
    New,
    Up,
    /// Down; since when.
    Down(Wall),
    /// A parent is down, so its failure proves nothing about the site.
    Behind,
}

impl State {
    fn is_counted(self) -> bool {
        matches!(self, State::Up | State::Down(_))
    }
}

#[derive(Debug, Default)]
struct Site {
    /// The number of hosts that count: those that are up or down.
    seen: usize,
    down: BTreeMap<HostId, Wall>,
}

/// A site that lost most of its hosts at about the same time, or so many of them that it is no
/// coincidence.
#[derive(Debug, PartialEq, Eq)]
pub struct SiteLoss {
    pub site: String,
    pub hosts: Vec<HostId>,
    pub most: bool,
}

#[derive(Debug, Default)]
pub struct SiteIndex {
    hosts: BTreeMap<HostId, SiteHost>,
    sites: BTreeMap<String, Site>,
    /// The number of hosts that have a state.
    seen: usize,
}

impl SiteIndex {
    /// Adds or replaces a host, without a state.
    pub fn know(&mut self, id: HostId, name: &str, site: Option<&str>, parents: &[HostId]) {
        self.forget(id);
        let (name, site) = (name.to_owned(), site.map(str::to_owned));
        self.hosts.insert(id, SiteHost { name, site, parents: parents.to_vec(), ..SiteHost::default() });
    }

    pub fn know_tunnel(&mut self, id: HostId, service: Option<&str>) {
        if let Some(known) = self.hosts.get_mut(&id) {
            known.tunnel = service.map(str::to_owned);
        }
    }

    pub fn tunnel(&self, id: HostId) -> Option<&str> {
        self.hosts.get(&id)?.tunnel.as_deref()
    }

    pub fn forget(&mut self, id: HostId) {
        self.set(id, State::New);
        self.hosts.remove(&id);
    }

    pub fn down(&mut self, id: HostId, began: Wall) {
        self.set(id, State::Down(began));
    }

    pub fn up(&mut self, id: HostId) {
        self.set(id, State::Up);
    }

    /// Records that a host fails while its parents are down.
    pub fn behind(&mut self, id: HostId) {
        self.set(id, State::Behind);
    }

    fn set(&mut self, id: HostId, state: State) {
        let Some(known) = self.hosts.get_mut(&id) else { return };
        let before = std::mem::replace(&mut known.state, state);
        self.seen = self.seen + usize::from(state != State::New) - usize::from(before != State::New);
        let Some(name) = known.site.clone().filter(|_| before != state) else { return };
        let site = self.sites.entry(name.clone()).or_default();
        site.seen = site.seen + usize::from(state.is_counted()) - usize::from(before.is_counted());
        match state {
            State::Down(began) => drop(site.down.insert(id, began)),
            _ => drop(site.down.remove(&id)),
        }
        if site.seen == 0 {
            self.sites.remove(&name);
        }
    }

    pub fn rebase(&mut self, step: ClockStep) {
        for known in self.hosts.values_mut() {
            if let State::Down(began) = &mut known.state {
                *began = step.rebase(*began);
            }
        }
        for began in self.sites.values_mut().flat_map(|site| site.down.values_mut()) {
            *began = step.rebase(*began);
        }
    }

    /// Returns the number of hosts that have a state.
    pub fn seen(&self) -> usize {
        self.seen
    }

    pub fn name(&self, id: HostId) -> &str {
        self.hosts.get(&id).map_or("a host", |known| &known.name)
    }

    pub fn site(&self, id: HostId) -> Option<&str> {
        self.hosts.get(&id)?.site.as_deref()
    }

    pub fn parents(&self, id: HostId) -> &[HostId] {
        self.hosts.get(&id).map_or(&[], |known| &known.parents)
    }

    /// Returns the loss of a host's site, if most or many of its counted hosts failed at about the
    /// same time as the host.
    pub fn site_loss(&self, id: HostId, began: Wall) -> Option<SiteLoss> {
        let name = self.site(id)?;
        let site = self.sites.get(name)?;
        // Scans the hosts only if their number can be enough.
        let many = by_service::enough(site.seen);
        if site.down.len() < FEWEST || site.down.len() * 2 <= site.seen && site.down.len() < many {
            return None;
        }
        let together = |since: &Wall| apart(*since, began) <= CORRELATION_WINDOW;
        let hosts: Vec<HostId> = site.down.iter().filter(|(_, b)| together(b)).map(|(id, _)| *id).collect();
        let there = site.seen - (site.down.len() - hosts.len());
        let most = hosts.len() >= FEWEST && hosts.len() * 2 > there;
        (most || hosts.len() >= many).then(|| SiteLoss { site: name.to_owned(), hosts, most })
    }
}
