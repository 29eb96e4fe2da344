//! Groups notifications into messages. A group contains the notices for one contact that belong to
//! one incident of several hosts. Other notices are grouped by site and sort, close in time.
//!
//! A group is due when no notice was added for its contact's `group_wait`, and at the latest
//! [`LONGEST`] after its first notice. All waiting notices of one checkable are in one group, in
//! order. A notice moves when its incident becomes one of several hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::messages::IncidentId;
use crate::time::Mono;

use super::{CheckableId, Contact, ContactId, Notice};
use crate::notification::incident_roots::IncidentRoots;
use crate::notification::rule::Class;

/// The label that names the site of a host.
const SITE: &str = "site";
/// Hosts lost together are found within a check interval and its retries (60 s and 2 x 10 s).
pub(super) const LONGEST: Duration = Duration::from_secs(90);

/// The common property of the notices in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bundle {
    Incident(IncidentId),
    /// Hosts and services are separate: a host that is down has another cause than a service that
    /// fails.
    Site {
        services: bool,
        site: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    contact: ContactId,
    bundle: Bundle,
}

#[derive(Debug)]
struct Group {
    first: Mono,
    /// The time at which it is due, if no notice is added.
    quiet: Mono,
    notices: Vec<Notice>,
    /// The number of notices, from the first on, already reported as suppressed by the message
    /// limit.
    kept: usize,
}

/// The group with the waiting notices of a checkable.
#[derive(Clone, Debug)]
struct Membership {
    key: Key,
    /// Whether a notice reports its state, and not only an operator's action.
    tells: bool,
}

impl Group {
    fn due(&self) -> Mono {
        self.quiet.min(self.first + LONGEST)
    }
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<Key, Group>,
    /// The places of the waiting notices of each checkable.
    places: BTreeMap<(ContactId, CheckableId), Membership>,
    wide: IncidentRoots,
}

impl Groups {
    /// Adds a notice; returns when the group is due.
    pub fn add(&mut self, contact: &Contact, notice: Notice, now: Mono) -> Mono {
        let place = (contact.id, notice.object.clone());
        let (key, told) = match self.places.get(&place) {
            Some(Membership { key, tells }) => (key.clone(), *tells),
            None => (Key { contact: contact.id, bundle: self.bundle(&notice) }, false),
        };
        let tells = told || !matches!(Class::of(&notice), Class::Acknowledged | Class::Downtime);
        self.places.insert(place, Membership { key: key.clone(), tells });
        let group = self.groups.entry(key).or_insert_with(|| Group::begun(now));
        group.quiet = now + contact.group_wait;
        group.notices.push(notice);
        group.due()
    }

    /// Moves notices whose incident now belongs to one of several hosts.
    pub fn widen(&mut self, wide: &IncidentRoots) {
        self.wide = wide.clone();
        let concerned: BTreeSet<(ContactId, CheckableId)> = self
            .groups
            .iter()
            .flat_map(|(key, group)| group.notices.iter().map(move |n| (key, n)))
            .filter(|(key, n)| self.root(n).is_some_and(|root| key.bundle != Bundle::Incident(root)))
            .map(|(key, n)| (key.contact, n.object.clone()))
            .collect();
        concerned.into_iter().for_each(|place| self.shift(place));
    }

    /// Moves all waiting notices of a checkable to the group of its incident.
    fn shift(&mut self, place: (ContactId, CheckableId)) {
        let Some(Membership { key: from, tells }) = self.places.get(&place).cloned() else { return };
        let Some(group) = self.groups.get(&from) else { return };
        let (first, quiet) = (group.first, group.quiet);
        let notices = self.take(&place);
        let Some(root) = notices.iter().rev().find_map(|n| self.root(n)) else { return };
        let to = Key { contact: place.0, bundle: Bundle::Incident(root) };
        self.places.insert(place, Membership { key: to.clone(), tells });
        let group = self.groups.entry(to).or_insert_with(|| Group { quiet, ..Group::begun(first) });
        (group.first, group.quiet) = (group.first.min(first), group.quiet.max(quiet));
        group.notices.extend(notices);
        group.notices.sort_by_key(|n| n.id);
        group.kept = 0;
    }

    fn root(&self, notice: &Notice) -> Option<IncidentId> {
        notice.incident.and_then(|id| self.wide.root(id))
    }

    fn bundle(&self, notice: &Notice) -> Bundle {
        match self.root(notice) {
            Some(root) => Bundle::Incident(root),
            None => Bundle::Site { services: notice.object.service.is_some(), site: site(notice).to_owned() },
        }
    }

    /// Whether a waiting notice reports the state of the checkable.
    pub fn tells(&self, contact: ContactId, object: &CheckableId) -> bool {
        self.places.get(&(contact, object.clone())).is_some_and(|place| place.tells)
    }

    /// Returns the checkables whose recovery waits for a contact.
    pub fn ended(&self, contact: ContactId) -> BTreeSet<&CheckableId> {
        let mut ended = BTreeSet::new();
        let groups = self.groups.iter().filter(|(key, _)| key.contact == contact);
        for notice in groups.flat_map(|(_, group)| &group.notices) {
            match Class::of(notice) {
                Class::Recovery => drop(ended.insert(&notice.object)),
                Class::Problem => drop(ended.remove(&notice.object)),
                Class::Reminder | Class::Acknowledged | Class::Downtime => {}
            }
        }
        ended
    }

    /// Returns for each contact with waiting notices when the first group is due.
    pub fn next(&self) -> BTreeMap<ContactId, Mono> {
        let mut next = BTreeMap::new();
        for (key, group) in &self.groups {
            let at = next.entry(key.contact).or_insert(group.due());
            *at = group.due().min(*at);
        }
        next
    }

    /// Returns notices that are due but must wait, each once.
    pub fn overdue(&mut self, contact: ContactId, now: Mono) -> Vec<Notice> {
        let due = |(key, group): &(&Key, &mut Group)| key.contact == contact && group.due() <= now;
        let mut kept = Vec::new();
        for (_, group) in self.groups.iter_mut().filter(due) {
            kept.extend_from_slice(group.notices.get(group.kept..).unwrap_or_default());
            group.kept = group.notices.len();
        }
        kept
    }

    /// Takes one group of a contact that is due.
    pub fn pop(&mut self, contact: ContactId, now: Mono) -> Option<Vec<Notice>> {
        let due = |(key, group): &(&Key, &Group)| key.contact == contact && group.due() <= now;
        let key = self.groups.iter().find(due)?.0.clone();
        let group = self.groups.remove(&key)?;
        for notice in &group.notices {
            self.places.remove(&(key.contact, notice.object.clone()));
        }
        Some(group.notices)
    }

    /// Returns the checkables with waiting notices, by contact.
    pub fn objects(&self) -> Vec<(ContactId, CheckableId)> {
        self.places.keys().cloned().collect()
    }

    /// Returns the waiting notices of a checkable, in order.
    pub fn of(&self, place: &(ContactId, CheckableId)) -> impl Iterator<Item = &Notice> {
        let group = self.places.get(place).and_then(|at| self.groups.get(&at.key));
        group.into_iter().flat_map(|group| &group.notices).filter(|n| n.object == place.1)
    }

    /// Takes the waiting notices of a checkable out of its group.
    pub fn take(&mut self, place: &(ContactId, CheckableId)) -> Vec<Notice> {
        let Some(Membership { key, .. }) = self.places.remove(place) else { return Vec::new() };
        let Some(group) = self.groups.get_mut(&key) else { return Vec::new() };
        let notices = group.notices.extract_if(.., |n| n.object == place.1).collect();
        group.kept = 0;
        if group.notices.is_empty() {
            self.groups.remove(&key);
        }
        notices
    }

    /// Removes the waiting notices of removed contacts or checkables.
    pub fn remove(&mut self, gone: impl Fn(ContactId, &CheckableId) -> bool) -> Vec<(ContactId, Notice)> {
        let mut removed = Vec::new();
        for (key, group) in &mut self.groups {
            let out = group.notices.extract_if(.., |n| gone(key.contact, &n.object));
            group.kept = 0;
            removed.extend(out.map(|n| (key.contact, n)));
        }
        self.groups.retain(|_, g| !g.notices.is_empty());
        self.places.retain(|(contact, object), _| !gone(*contact, object));
        removed
    }
}

impl Group {
    fn begun(now: Mono) -> Group {
        Group { first: now, quiet: now, notices: Vec::new(), kept: 0 }
    }
}

fn site(notice: &Notice) -> &str {
    notice.labels.get(SITE).map_or("", String::as_str)
}

/// Returns the site that all notices share; empty if they share none.
pub(super) fn shared_site(notices: &[Notice]) -> String {
    let first = notices.first().map_or("", site);
    let shared = notices.iter().all(|n| site(n) == first);
    if shared { first.to_owned() } else { String::new() }
}
