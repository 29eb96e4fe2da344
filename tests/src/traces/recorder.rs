//! Watches a world and writes its trace.

use std::time::Duration;

use fleetgate_engine::messages::{HostState, Message, ServiceState};
use fleetgate_engine::notification::{Contact, Routing, Rule, Severity};
use fleetgate_engine::time::Mono;

use super::digest::Digest;
use crate::world::World;
use crate::world::mailbox::{Mailbox, contact, rule};

/// The router looks at new notifications this often.
const SECOND: Duration = Duration::from_secs(1);
/// The states are compared this often.
const SNAPSHOT: Duration = Duration::from_secs(600);
/// The delay of the second contact's rule.
const DELAY: Duration = Duration::from_secs(900);

/// The trace of one fleet.
#[derive(Debug, Default)]
pub struct Trace {
    /// Each message: the second since the start, the contact, the kind, and the checkable.
    pub messages: Vec<String>,
    /// The probes that were sent, and the events that were recorded.
    pub probes: u64,
    pub events: u64,
    /// Of the messages.
    pub sent: Digest,
    /// The digest of the messages, notifications, events, incidents, probes and states.
    pub all: Digest,
}

pub struct Recorder {
    start: Mono,
    mailbox: Mailbox,
    /// How much of the world's messages, events and incidents is in the trace.
    messages: usize,
    events: usize,
    incidents: usize,
    snapshot: Mono,
    pub trace: Trace,
}

/// The first contact gets everything at once, in groups. The second gets critical problems that
/// last longer than [`DELAY`]. The third gets each notification in a message of its own.
fn routing(world: &World) -> Routing {
    let now = world.now.wall;
    let (all, late) = (contact(1, now), contact(2, now));
    let each = Contact { group_wait: Duration::ZERO, capped: false, ..contact(3, now) };
    let critical = Rule { least: Severity::Critical, delay: DELAY, ..rule(late.id) };
    let rules = vec![rule(all.id), critical, rule(each.id)];
    Routing { contacts: vec![all, late, each], rules }
}

impl Recorder {
    pub fn new(world: &World) -> Recorder {
        let start = world.now.mono;
        Recorder {
            start,
            mailbox: Mailbox::of(routing(world), world),
            messages: 0,
            events: 0,
            incidents: 0,
            snapshot: start,
            trace: Trace::default(),
        }
    }

    /// Runs the world for so long, and records what happens.
    pub fn pass(&mut self, world: &mut World, time: Duration) {
        let end = world.now.mono + time;
        while world.now.mono < end {
            let before = world.now;
            world.run(SECOND.min(end.since(before.mono)));
            // The world drops fractions of milliseconds from its wall clock. Many wake-ups within a
            // millisecond would hold that clock just before a deadline, and the run would crawl.
            world.now.wall = before.wall + world.now.mono.since(before.mono);
            self.mailbox.take(world);
            self.record(world);
        }
    }

    fn record(&mut self, world: &mut World) {
        for (at, ask) in std::mem::take(&mut world.asked) {
            self.trace.probes += 1;
            self.trace.all.add(&format!("{} {} {:?}", at.as_nanos(), ask.host, ask.probe));
        }
        for event in &world.kept.events[self.events..] {
            self.trace.events += 1;
            self.trace.all.add(&format!("{event:?}"));
        }
        for message in &world.kept.messages[self.messages..] {
            self.trace.all.add(&format!("{message:?}"));
        }
        for incident in &world.kept.incidents[self.incidents..] {
            self.trace.all.add(&format!("{incident:?}"));
        }
        self.messages = world.kept.messages.len();
        self.events = world.kept.events.len();
        self.incidents = world.kept.incidents.len();
        self.record_posts(world);
        if world.now.mono >= self.snapshot {
            self.snapshot = world.now.mono + SNAPSHOT;
            self.record_states(world);
        }
    }

    fn record_posts(&mut self, world: &World) {
        let second = world.now.mono.since(self.start).as_secs();
        for post in self.mailbox.posts.drain(..) {
            for notice in post.notices {
                let message = &world.kept.messages[notice.0 as usize - 1];
                let line = format!("{second} contact-{} {}", post.contact.as_i64(), described(message));
                self.trace.sent.add(&line);
                self.trace.all.add(&line);
                self.trace.messages.push(line);
            }
        }
    }

    fn record_states(&mut self, world: &World) {
        for state in world.kept.hosts.values() {
            self.trace.all.add(&of_host(state));
        }
        for ((host, _), state) in &world.kept.services {
            self.trace.all.add(&format!("{host} {}", of_service(state)));
        }
    }
}

fn described(message: &Message) -> String {
    let service = message.service.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    format!("{} {}{service} {}>{}", message.kind.name(), message.host_name, message.from, message.to)
}

/// The fields are listed, so that a renamed one does not change the digest.
fn of_host(s: &HostState) -> String {
    let state = (s.host, s.status, s.kind, s.attempt, s.hard, s.reachable, s.stale, s.asleep);
    let times = (s.since, s.last_check, s.next_check, s.silent_since, s.last_alive, s.asked_at);
    let result = (&s.source, s.direct, s.one_way, s.asked, &s.strange_key, &s.output, &s.detail);
    format!("{state:?} {times:?} {result:?} {:?} {:?} {:?}", s.notified, s.notification, s.taken)
}

fn of_service(s: &ServiceState) -> String {
    let state = (&s.name, s.status, s.kind, s.attempt, s.hard, s.stale);
    let times = (s.since, s.last_check, s.next_check, s.cause_since);
    let result = (&s.route, s.asked, s.path, &s.result);
    format!("{state:?} {times:?} {result:?} {:?} {:?} {:?}", s.notified, s.notification, s.taken)
}
