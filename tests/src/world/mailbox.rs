//! Contacts behind the real router: which messages they get, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{CheckableId, IncidentChange, IncidentId, IncidentScope, Message};
use fleetgate_engine::notification::{
    Contact, ContactId, Input, Notice, NoticeId, Output, Router, Routing, Rule, Selector, Severity,
};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use super::World;

/// The default of `notifications.group_wait`.
const GROUP_WAIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(500);

/// A message to a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub at: Wall,
    pub contact: ContactId,
    /// The notices in it. The number of a notice is its place among the world's messages, from 1.
    pub notices: Vec<NoticeId>,
}

pub struct Mailbox {
    router: Router,
    pub began: Wall,
    pub posts: Vec<Post>,
    seen: usize,
    /// The incident records of which the router knows.
    incidents: Option<usize>,
}

/// Returns a contact with default settings.
pub fn contact(id: i64, now: Wall) -> Contact {
    Contact {
        id: Id::from_i64(id),
        zone: TimeZone::UTC,
        group_wait: GROUP_WAIT,
        digest: None,
        digested: now,
        capped: true,
    }
}

/// Returns a rule that sends everything to a contact at once.
pub fn rule(contact: ContactId) -> Rule {
    Rule {
        id: contact,
        contact,
        selector: Selector::default(),
        least: Severity::Warning,
        period: None,
        delay: Duration::ZERO,
    }
}

impl Mailbox {
    /// Makes the mailbox of one contact, which gets the notifications from now on.
    pub fn new(world: &World) -> Mailbox {
        let contact = contact(1, world.now.wall);
        let rules = vec![rule(contact.id)];
        Mailbox::of(Routing { contacts: vec![contact], rules }, world)
    }

    pub fn of(routing: Routing, world: &World) -> Mailbox {
        let router = Router::restore(routing, Vec::new(), Vec::new(), &[], world.now);
        let seen = world.kept.messages.len();
        Mailbox { router, began: world.now.wall, posts: Vec::new(), seen, incidents: None }
    }

    pub fn run(&mut self, world: &mut World, time: Duration) {
        let end = world.now.mono + time;
        while world.now.mono < end {
            world.run(STEP);
            self.take(world);
        }
    }

    /// Returns how many notices each message contained.
    pub fn sizes(&self) -> Vec<usize> {
        self.posts.iter().map(|post| post.notices.len()).collect()
    }

    /// Passes on what is new in the world, and takes the messages that are due.
    pub fn take(&mut self, world: &World) {
        if self.incidents != Some(world.kept.incidents.len()) {
            self.incidents = Some(world.kept.incidents.len());
            self.router.handle(Input::IncidentRoots(wide(world)), world.now);
        }
        while let Some(message) = world.kept.messages.get(self.seen) {
            self.seen += 1;
            self.router.handle(Input::Notice(notice(world, message, self.seen as i64)), world.now);
        }
        self.router.handle(Input::Timeout, world.now);
        loop {
            match self.router.poll_output() {
                Output::Post { contact, items, .. } => {
                    let notices = items.into_iter().map(|item| item.notice).collect();
                    self.posts.push(Post { at: world.now.wall, contact, notices });
                }
                Output::Wait(_) => return,
                _ => {}
            }
        }
    }
}

fn notice(world: &World, message: &Message, id: i64) -> Notice {
    let labels = world.devices.get(&message.host).map(|device| device.spec.labels.clone());
    Notice {
        id: NoticeId(id),
        at: message.at,
        object: CheckableId { host: message.host, service: message.service.clone() },
        labels: Arc::new(labels.unwrap_or_default()),
        kind: message.kind,
        severity: message.problem.then_some(Severity::Critical),
        incident: message.incident,
    }
}

/// Returns, like the store, each incident that is or belongs to one of several hosts.
fn wide(world: &World) -> BTreeMap<IncidentId, IncidentId> {
    let (mut extents, mut merged) = (BTreeMap::new(), BTreeMap::new());
    for record in &world.kept.incidents {
        match &record.change {
            IncidentChange::Opened(matter) | IncidentChange::Widened(matter) => {
                extents.insert(record.id, matter.extent);
            }
            IncidentChange::Merged(into) => drop(merged.insert(record.id, *into)),
            _ => {}
        }
    }
    let root = |id: &IncidentId| {
        let mut root = *id;
        while let Some(into) = merged.get(&root) {
            root = *into;
        }
        root
    };
    let is_wide = |id: &IncidentId| extents.get(id).is_some_and(|extent: &IncidentScope| extent.is_wide());
    let roots = extents.keys().map(|id| (*id, root(id)));
    roots.filter(|(_, root)| is_wide(root)).collect()
}
