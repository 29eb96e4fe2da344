//! What belongs into one message: notices for one contact, of one site and one sort, close in time.
//!
//! A group leaves when nothing was added for its contact's `group_wait`, and at the latest
//! [`LONGEST`] after its first notice. Of one object everything that waits stands in one group, in
//! order.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::HostId;
use crate::time::Mono;

use super::{Contact, ContactId, Notice, Object};

/// The label that tells where a host stands.
const SITE: &str = "site";
/// Hosts lost together are found within a check interval and its retries (60 s and 2 x 10 s).
pub(super) const LONGEST: Duration = Duration::from_secs(90);

/// What the notices of a group share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub contact: ContactId,
    /// A host that is gone has another cause than a service that fails.
    services: bool,
    pub site: String,
}

#[derive(Debug)]
struct Group {
    first: Mono,
    /// When it leaves, if nothing is added.
    quiet: Mono,
    notices: Vec<Notice>,
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
    places: BTreeMap<(ContactId, Object), Key>,
}

impl Groups {
    /// Adds a notice; says when the group leaves.
    pub fn add(&mut self, contact: &Contact, notice: Notice, now: Mono) -> Mono {
        let place = (contact.id, notice.object.clone());
        let key = self.places.entry(place).or_insert_with(|| key(contact.id, &notice));
        let fresh = || Group { first: now, quiet: now, notices: Vec::new() };
        let group = self.groups.entry(key.clone()).or_insert_with(fresh);
        group.quiet = now + contact.group_wait;
        group.notices.push(notice);
        group.due()
    }

    pub fn has(&self, contact: ContactId, object: &Object) -> bool {
        self.places.contains_key(&(contact, object.clone()))
    }

    pub fn next(&self) -> Option<Mono> {
        self.groups.values().map(Group::due).min()
    }

    /// A group whose time has come.
    pub fn pop(&mut self, now: Mono) -> Option<(Key, Vec<Notice>)> {
        let key = self.groups.iter().find(|(_, g)| g.due() <= now)?.0.clone();
        let group = self.groups.remove(&key)?;
        for notice in &group.notices {
            self.places.remove(&(key.contact, notice.object.clone()));
        }
        Some((key, group.notices))
    }

    /// Takes out what waits for a contact or of a host that is no more.
    pub fn remove(&mut self, gone: impl Fn(ContactId, HostId) -> bool) -> Vec<(ContactId, Notice)> {
        let mut removed = Vec::new();
        for (key, group) in &mut self.groups {
            let out = group.notices.extract_if(.., |n| gone(key.contact, n.object.host));
            removed.extend(out.map(|n| (key.contact, n)));
        }
        self.groups.retain(|_, g| !g.notices.is_empty());
        self.places.retain(|(contact, object), _| !gone(*contact, object.host));
        removed
    }
}

fn key(contact: ContactId, notice: &Notice) -> Key {
    let site = notice.labels.get(SITE).cloned().unwrap_or_default();
    Key { contact, services: notice.object.service.is_some(), site }
}
