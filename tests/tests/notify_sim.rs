//! Weeks of problems in seconds: whatever order they come in, and however often the gateway ends in
//! the middle, each contact is told what a person with a list and a clock would have told him.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed again.

#[path = "tunnel_sim/random.rs"]
#[allow(dead_code, reason = "the simulation of tunnels uses more of it")]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::notify::{
    Contact, ContactId, Input, Notice, NoticeId, Object, Output, Period, Router, Routing, Rule, Selector,
    Severity, Told, Waiting,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::wire::{IncidentId, MessageKind};
use jiff::tz::TimeZone;
use random::Random;

const SEEDS: u64 = 16;
const HOURS: u64 = 60;
const OBJECTS: u64 = 12;
/// Seconds between two looks.
const STEP: u64 = 5;
/// Friday, 23 October 2026, 12:00 UTC: the clocks of Berlin go back in the night to Sunday.
const START: i64 = 1_792_756_800_000;
/// The longest that a message waits for others.
const LONGEST_GROUP: u64 = 90;

const OPS: ContactId = Id::from_i64(1);
const BOSS: ContactId = Id::from_i64(2);
const OFFICE: ContactId = Id::from_i64(3);

fn rules() -> Vec<Rule> {
    let plain = |contact| Rule {
        id: contact,
        contact,
        selector: Selector::default(),
        least: Severity::Warning,
        period: None,
        delay: Duration::ZERO,
    };
    let period = Some("mon-fri 08:00-18:00, sat 22:00-03:00".parse().expect("a period"));
    vec![
        plain(OPS),
        Rule { least: Severity::Critical, delay: Duration::from_secs(900), ..plain(BOSS) },
        Rule { period, least: Severity::Unknown, ..plain(OFFICE) },
    ]
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone")
}

fn routing() -> Routing {
    // Only the first gathers: what a group takes in depends on the others, and the model knows none.
    let contact = |id| Contact {
        id,
        zone: berlin(),
        group_wait: if id == OPS { Duration::from_secs(10) } else { Duration::ZERO },
        digest: None,
        digested: Wall::from_millis(START),
        capped: false,
    };
    Routing { contacts: [OPS, BOSS, OFFICE].map(contact).to_vec(), rules: rules() }
}

fn wall(secs: u64) -> Wall {
    Wall::from_millis(START) + Duration::from_secs(secs)
}

/// What the monitor says of one object: problems that change, end, are repeated or taken care of.
struct Patient {
    object: Object,
    severity: Option<Severity>,
    acknowledged: bool,
    changed: u64,
}

impl Patient {
    fn next(&mut self, secs: u64, dice: &mut Random) -> Option<(MessageKind, Option<Severity>)> {
        let settled = secs - self.changed > 2 * LONGEST_GROUP;
        let pace = if self.severity.is_some() { 180 } else { 1_000 };
        if dice.below(pace) > 0 {
            return None;
        }
        let said = match (self.severity, dice.below(6)) {
            (Some(now), 0) if settled && !self.acknowledged => (MessageKind::Reminder, Some(now)),
            (Some(now), 1) if settled && !self.acknowledged => (MessageKind::Acknowledged, Some(now)),
            (Some(_), 2 | 3) => (MessageKind::Recovery, None),
            (before, _) => {
                let worse = Severity::ALL[dice.below(3) as usize];
                if before == Some(worse) {
                    return None;
                }
                (MessageKind::Problem, Some(worse))
            }
        };
        self.acknowledged = said.0 == MessageKind::Acknowledged;
        if matches!(said.0, MessageKind::Problem | MessageKind::Recovery) {
            (self.severity, self.changed) = (said.1, secs);
        }
        Some(said)
    }
}

/// Each problem has an incident; now and then some turn out to be one of several hosts.
#[derive(Default)]
struct Incidents {
    last: i64,
    of: BTreeMap<Object, IncidentId>,
    wide: BTreeMap<IncidentId, IncidentId>,
}

impl Incidents {
    fn of(&mut self, object: &Object, kind: MessageKind) -> Option<IncidentId> {
        if kind == MessageKind::Problem && !self.of.contains_key(object) {
            self.last += 1;
            self.of.insert(object.clone(), IncidentId(Id::from_i64(self.last)));
        }
        let id = self.of.get(object).copied();
        if kind == MessageKind::Recovery {
            self.of.remove(object);
        }
        id
    }

    fn wide(&mut self, dice: &mut Random) -> BTreeMap<IncidentId, IncidentId> {
        if dice.below(20) == 0
            && let Some(root) = self.of.values().min().copied()
        {
            self.wide = self.of.values().filter(|_| dice.below(2) == 0).map(|id| (*id, root)).collect();
        }
        self.wide.clone()
    }
}

/// What the store would hold, kept from the outputs.
#[derive(Default)]
struct Store {
    told: BTreeMap<(ContactId, Object), Told>,
    waiting: BTreeMap<(ContactId, NoticeId), Waiting>,
    posted: BTreeMap<ContactId, Vec<(NoticeId, u64)>>,
    ended: BTreeSet<(Option<ContactId>, NoticeId)>,
}

impl Store {
    fn take(&mut self, router: &mut Router, secs: u64) {
        loop {
            match router.poll_output() {
                Output::Waits(w) => drop(self.waiting.insert((w.contact, w.notice.id), w)),
                Output::Held { contact, notice, .. } => {
                    contact.map(|c| self.waiting.remove(&(c, notice)));
                    assert!(self.ended.insert((contact, notice)), "{notice:?} was held back twice");
                }
                Output::Post { contact, items, .. } => {
                    for item in items {
                        self.waiting.remove(&(contact, item.notice));
                        self.posted.entry(contact).or_default().push((item.notice, secs));
                        assert!(self.ended.insert((Some(contact), item.notice)), "{item:?} was told twice");
                    }
                }
                Output::Told { contact, object, told: Some(told) } => {
                    self.told.insert((contact, object), told);
                }
                Output::Told { contact, object, told: None } => drop(self.told.remove(&(contact, object))),
                Output::Digest { .. } => {}
                Output::Wait(_) => return,
            }
        }
    }

    fn restore(&self, now: Now) -> Router {
        let told = self.told.iter().map(|((contact, object), told)| (*contact, object.clone(), *told));
        Router::restore(routing(), told.collect(), self.waiting.values().cloned().collect(), &[], now)
    }
}

fn live(seed: u64) -> (Store, Vec<Notice>) {
    let mut dice = Random::new(seed);
    let (mut store, mut all) = (Store::default(), Vec::new());
    let mut patients: Vec<Patient> = (0..OBJECTS)
        .map(|n| Patient {
            object: Object {
                host: Id::from_i64(n as i64 / 3),
                service: (n % 3 > 0).then(|| format!("service-{n}")),
            },
            severity: None,
            acknowledged: false,
            changed: 0,
        })
        .collect();
    let mut incidents = Incidents::default();
    let at = |secs: u64| Now { mono: Mono::from_secs(secs), wall: wall(secs) };
    let mut router = store.restore(at(0));
    let quiet_from = HOURS * 3_600;
    for secs in (STEP..quiet_from + 96 * 3_600).step_by(STEP as usize) {
        // The quiet days at the end are for what still waits; nobody need look so often.
        if secs > quiet_from && secs % 60 > 0 {
            continue;
        }
        if dice.below(800) == 0 {
            router = store.restore(at(secs));
        }
        router.handle(Input::Wide(incidents.wide(&mut dice)), at(secs));
        store.take(&mut router, secs);
        for patient in patients.iter_mut().filter(|_| secs < quiet_from) {
            let Some((kind, severity)) = patient.next(secs, &mut dice) else { continue };
            let (id, object) = (NoticeId(all.len() as i64 + 1), patient.object.clone());
            let incident = incidents.of(&patient.object, kind);
            let notice =
                Notice { id, at: wall(secs), object, labels: Arc::default(), kind, severity, incident };
            all.push(notice.clone());
            router.handle(Input::Notice(notice), at(secs));
            store.take(&mut router, secs);
        }
    }
    (store, all)
}

/// A person with a list: one rule, one object, from the text of the rules alone.
#[derive(Default)]
struct Clerk {
    known: Option<Severity>,
    note: Option<(Wall, Notice)>,
    told: Vec<NoticeId>,
}

impl Clerk {
    fn watch(rule: &Rule, notices: &[&Notice]) -> Vec<NoticeId> {
        let mut clerk = Clerk::default();
        for notice in notices {
            clerk.look(notice.at);
            match notice.kind {
                MessageKind::Recovery => clerk.recovery(rule, notice),
                MessageKind::Acknowledged if clerk.known.is_none() => clerk.note = None,
                MessageKind::Reminder | MessageKind::Acknowledged if clerk.known.is_some() => {
                    clerk.passing(rule, notice);
                }
                MessageKind::Reminder if clerk.note.is_some() => {}
                _ => clerk.problem(rule, notice),
            }
        }
        clerk.look(wall(u64::from(u32::MAX)));
        clerk.told
    }

    fn problem(&mut self, rule: &Rule, notice: &Notice) {
        let waiting = self.note.take();
        if notice.severity < Some(rule.least) {
            return;
        }
        let patience = if self.known.is_none() { rule.delay } else { Duration::ZERO };
        let began = waiting.as_ref().filter(|_| !patience.is_zero()).map(|(due, _)| *due);
        let due = began.unwrap_or(opens(rule, notice.at + patience));
        if due > notice.at {
            self.note = Some((due, notice.clone()));
        } else if waiting.is_none() || self.known != notice.severity {
            self.tell(notice);
        }
    }

    fn recovery(&mut self, rule: &Rule, notice: &Notice) {
        self.note = None;
        match opens(rule, notice.at) {
            _ if self.known.is_none() => {}
            at if at == notice.at => self.tell(notice),
            at => self.note = Some((at, notice.clone())),
        }
    }

    fn passing(&mut self, rule: &Rule, notice: &Notice) {
        let reminder = notice.kind == MessageKind::Reminder;
        let mild = reminder && notice.severity < Some(rule.least);
        if mild || opens(rule, notice.at) > notice.at {
            return;
        }
        self.told.push(notice.id);
        if reminder {
            self.known = notice.severity;
        }
    }

    fn look(&mut self, now: Wall) {
        if let Some((_, notice)) = self.note.take_if(|(due, _)| *due <= now)
            && self.known != notice.severity
        {
            self.tell(&notice);
        }
    }

    fn tell(&mut self, notice: &Notice) {
        self.known = notice.severity;
        self.told.push(notice.id);
    }
}

fn opens(rule: &Rule, from: Wall) -> Wall {
    let Some(period) = &rule.period else { return from };
    let zone = berlin();
    let inside = |at: &Wall| Period::contains(period, *at, &zone);
    let full = Wall::from_millis(from.as_millis().div_euclid(60_000) * 60_000);
    let minutes = (1..8 * 1_440).map(|n| full + Duration::from_secs(n * 60));
    std::iter::once(from).chain(minutes).find(inside).expect("within a week and a day")
}

fn check(seed: u64) {
    let (store, all) = live(seed);
    assert!(store.waiting.is_empty(), "still waiting: {:?}", store.waiting);
    let objects: BTreeSet<&Object> = all.iter().map(|n| &n.object).collect();
    for rule in rules() {
        let posted = store.posted.get(&rule.contact).cloned().unwrap_or_default();
        for object in &objects {
            let of: Vec<&Notice> = all.iter().filter(|n| n.object == **object).collect();
            let is_of = |id: &NoticeId| of.iter().any(|n| n.id == *id);
            let told: Vec<NoticeId> = posted.iter().map(|(id, _)| *id).filter(is_of).collect();
            let expected = Clerk::watch(&rule, &of);
            let story = || of.iter().map(|n| (n.id.0, n.at, n.kind, n.severity)).collect::<Vec<_>>();
            assert_eq!(told, expected, "contact {} of {:?}", rule.contact.as_i64(), story());
        }
    }
    for notice in &all {
        let ended = |contact| store.ended.contains(&(Some(contact), notice.id));
        assert!([OPS, BOSS, OFFICE].into_iter().all(ended), "{notice:?} has no end");
    }
    for (id, secs) in &store.posted[&OPS] {
        let notice = &all[id.0 as usize - 1];
        let waited = wall(*secs).since(notice.at).as_secs();
        // A restart lets the group wait once more.
        assert!(waited <= 2 * LONGEST_GROUP, "{notice:?} waited {waited} s");
    }
}

#[test]
fn every_contact_is_told_what_a_person_with_a_list_would_tell() {
    let seeds: Vec<u64> = match std::env::var("FLEETGATE_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("FLEETGATE_SIM_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        println!("seed {seed}: FLEETGATE_SIM_SEED={seed}");
        check(seed);
    }
}
