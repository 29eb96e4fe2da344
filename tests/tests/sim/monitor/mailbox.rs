//! One contact with default settings behind the real router: which messages it gets, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::notify::{
    Contact, Input, Notice, NoticeId, Output, Router, Routing, Rule, Selector, Severity,
};
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{Extent, IncidentChange, IncidentId, Message, Object};
use jiff::tz::TimeZone;

use super::world::World;

/// The default of `notifications.group_wait`.
const GROUP_WAIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(500);

pub struct Mailbox {
    router: Router,
    pub began: Wall,
    /// When each message was sent, and with how many notices.
    pub posts: Vec<(Wall, usize)>,
    seen: usize,
}

impl Mailbox {
    /// Makes a mailbox that gets the notifications from now on.
    pub fn new(world: &World) -> Mailbox {
        let id = Id::from_i64(1);
        let zone = TimeZone::UTC;
        let contact = Contact {
            id,
            zone,
            group_wait: GROUP_WAIT,
            digest: None,
            digested: world.now.wall,
            capped: true,
        };
        let rule = Rule {
            id,
            contact: id,
            selector: Selector::default(),
            least: Severity::Warning,
            period: None,
            delay: Duration::ZERO,
        };
        let routing = Routing { contacts: vec![contact], rules: vec![rule] };
        let router = Router::restore(routing, Vec::new(), Vec::new(), &[], world.now);
        Mailbox { router, began: world.now.wall, posts: Vec::new(), seen: world.kept.messages.len() }
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
        self.posts.iter().map(|(_, size)| *size).collect()
    }

    fn take(&mut self, world: &World) {
        self.router.handle(Input::Wide(wide(world)), world.now);
        while let Some(message) = world.kept.messages.get(self.seen) {
            self.seen += 1;
            self.router.handle(Input::Notice(notice(world, message, self.seen as i64)), world.now);
        }
        self.router.handle(Input::Timeout, world.now);
        loop {
            match self.router.poll_output() {
                Output::Post { items, .. } => self.posts.push((world.now.wall, items.len())),
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
        object: Object { host: message.host, service: message.service.clone() },
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
    let is_wide = |id: &IncidentId| extents.get(id).is_some_and(|extent: &Extent| extent.is_wide());
    let roots = extents.keys().map(|id| (*id, root(id)));
    roots.filter(|(_, root)| is_wide(root)).collect()
}
