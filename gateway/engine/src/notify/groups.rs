//! What belongs into one message: notices for one contact, of one incident of several hosts, or else
//! of one site and one sort, close in time.
//!
//! A group is due when nothing was added for its contact's `group_wait`, and at the latest
//! [`LONGEST`] after its first notice. Of one object everything that waits stands in one group, in
//! order. What turns out to belong to an incident of several hosts moves to that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Mono;
use crate::wire::IncidentId;

use super::rule::Class;
use super::wide::Wide;
use super::{Contact, ContactId, Notice, Object};

/// The label that tells where a host stands.
const SITE: &str = "site";
/// Hosts lost together are found within a check interval and its retries (60 s and 2 x 10 s).
pub(super) const LONGEST: Duration = Duration::from_secs(90);

/// What the notices of a group share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bundle {
    Incident(IncidentId),
    /// A host that is gone has another cause than a service that fails.
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
    /// When it is due, if nothing is added.
    quiet: Mono,
    notices: Vec<Notice>,
    /// Of so many, from the first on, it was said that there are too many messages.
    kept: usize,
}

/// Where what waits of an object stands.
#[derive(Clone, Debug)]
struct Place {
    key: Key,
    /// It tells how the object is; else only what people did about it.
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
    /// Where an object's notices wait.
    places: BTreeMap<(ContactId, Object), Place>,
    wide: Wide,
}

impl Groups {
    /// Adds a notice; says when the group is due.
    pub fn add(&mut self, contact: &Contact, notice: Notice, now: Mono) -> Mono {
        let place = (contact.id, notice.object.clone());
        let (key, told) = match self.places.get(&place) {
            Some(Place { key, tells }) => (key.clone(), *tells),
            None => (Key { contact: contact.id, bundle: self.bundle(&notice) }, false),
        };
        let tells = told || !matches!(Class::of(&notice), Class::Acknowledged | Class::Downtime);
        self.places.insert(place, Place { key: key.clone(), tells });
        let group = self.groups.entry(key).or_insert_with(|| Group::begun(now));
        group.quiet = now + contact.group_wait;
        group.notices.push(notice);
        group.due()
    }

    /// These incidents belong to those, which are of several hosts.
    pub fn widen(&mut self, wide: &Wide) {
        self.wide = wide.clone();
        let concerned: BTreeSet<(ContactId, Object)> = self
            .groups
            .iter()
            .flat_map(|(key, group)| group.notices.iter().map(move |n| (key, n)))
            .filter(|(key, n)| self.root(n).is_some_and(|root| key.bundle != Bundle::Incident(root)))
            .map(|(key, n)| (key.contact, n.object.clone()))
            .collect();
        concerned.into_iter().for_each(|place| self.shift(place));
    }

    /// Moves all that waits of an object to the group of its incident.
    fn shift(&mut self, place: (ContactId, Object)) {
        let Some(Place { key: from, tells }) = self.places.get(&place).cloned() else { return };
        let Some(group) = self.groups.get(&from) else { return };
        let (first, quiet) = (group.first, group.quiet);
        let notices = self.take(&place);
        let Some(root) = notices.iter().rev().find_map(|n| self.root(n)) else { return };
        let to = Key { contact: place.0, bundle: Bundle::Incident(root) };
        self.places.insert(place, Place { key: to.clone(), tells });
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

    /// Whether something waits that tells how an object is.
    pub fn tells(&self, contact: ContactId, object: &Object) -> bool {
        self.places.get(&(contact, object.clone())).is_some_and(|place| place.tells)
    }

    /// What ends with that which waits for a contact.
    pub fn ended(&self, contact: ContactId) -> BTreeSet<&Object> {
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

    /// For each contact that something waits for, when the first of it is due.
    pub fn next(&self) -> BTreeMap<ContactId, Mono> {
        let mut next = BTreeMap::new();
        for (key, group) in &self.groups {
            let at = next.entry(key.contact).or_insert(group.due());
            *at = group.due().min(*at);
        }
        next
    }

    /// Notices that are due and stay, each once.
    pub fn overdue(&mut self, contact: ContactId, now: Mono) -> Vec<Notice> {
        let due = |(key, group): &(&Key, &mut Group)| key.contact == contact && group.due() <= now;
        let mut kept = Vec::new();
        for (_, group) in self.groups.iter_mut().filter(due) {
            kept.extend_from_slice(group.notices.get(group.kept..).unwrap_or_default());
            group.kept = group.notices.len();
        }
        kept
    }

    /// A group of a contact whose time has come.
    pub fn pop(&mut self, contact: ContactId, now: Mono) -> Option<Vec<Notice>> {
        let due = |(key, group): &(&Key, &Group)| key.contact == contact && group.due() <= now;
        let key = self.groups.iter().find(due)?.0.clone();
        let group = self.groups.remove(&key)?;
        for notice in &group.notices {
            self.places.remove(&(key.contact, notice.object.clone()));
        }
        Some(group.notices)
    }

    /// The objects of which something waits, by contact.
    pub fn objects(&self) -> Vec<(ContactId, Object)> {
        self.places.keys().cloned().collect()
    }

    /// What waits of an object, in order.
    pub fn of(&self, place: &(ContactId, Object)) -> impl Iterator<Item = &Notice> {
        let group = self.places.get(place).and_then(|at| self.groups.get(&at.key));
        group.into_iter().flat_map(|group| &group.notices).filter(|n| n.object == place.1)
    }

    /// Takes out what waits of an object.
    pub fn take(&mut self, place: &(ContactId, Object)) -> Vec<Notice> {
        let Some(Place { key, .. }) = self.places.remove(place) else { return Vec::new() };
        let Some(group) = self.groups.get_mut(&key) else { return Vec::new() };
        let notices = group.notices.extract_if(.., |n| n.object == place.1).collect();
        group.kept = 0;
        if group.notices.is_empty() {
            self.groups.remove(&key);
        }
        notices
    }

    /// Takes out what waits for a contact or of an object that is no more.
    pub fn remove(&mut self, gone: impl Fn(ContactId, &Object) -> bool) -> Vec<(ContactId, Notice)> {
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

/// The site that all of them share; empty if there is none.
pub(super) fn shared_site(notices: &[Notice]) -> String {
    let first = notices.first().map_or("", site);
    let shared = notices.iter().all(|n| site(n) == first);
    if shared { first.to_owned() } else { String::new() }
}
