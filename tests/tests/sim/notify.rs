//! Weeks of problems in seconds of test time. Problems come in any order, and the gateway restarts
//! at any moment. Each contact must get the messages that a naive model of the rules expects.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::tunnel::random::Random;
use fleetgate_engine::id::Id;
use fleetgate_engine::notify::{
    Contact, ContactId, Input, Notice, NoticeId, Object, Output, Period, Router, Routing, Rule, Selector,
    Severity, Standing, Told, Waiting,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::wire::{HeldReason, IncidentId, MessageKind};
use jiff::tz::TimeZone;

const SEEDS: u64 = 16;
const HOURS: u64 = 60;
const OBJECTS: u64 = 12;
/// Seconds between two steps.
const STEP: u64 = 5;
/// Friday, 23 October 2026, 12:00 UTC: the clocks of Berlin go back in the night to Sunday.
const START: i64 = 1_792_756_800_000;
/// The longest that a message waits for others.
const LONGEST_GROUP: u64 = 90;

const OPS: ContactId = Id::from_i64(1);
const BOSS: ContactId = Id::from_i64(2);
const OFFICE: ContactId = Id::from_i64(3);
const NIGHT: ContactId = Id::from_i64(4);
const CONTACTS: [ContactId; 4] = [OPS, BOSS, OFFICE, NIGHT];
/// Reasons for suppression that may begin while a message waits.
const SILENCES: [HeldReason; 4] =
    [HeldReason::Downtime, HeldReason::HostDown, HeldReason::Unreachable, HeldReason::NotCurrent];

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
    let nights = Some("mon-sun 20:00-06:00".parse().expect("a period"));
    vec![
        plain(OPS),
        Rule { least: Severity::Critical, delay: Duration::from_secs(900), ..plain(BOSS) },
        Rule { period, least: Severity::Unknown, ..plain(OFFICE) },
        Rule { period: nights, delay: Duration::from_secs(1_800), ..plain(NIGHT) },
    ]
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone")
}

fn routing() -> Routing {
    // Only the first rule groups messages. The content of a group depends on the others, which the
    // model does not know.
    let contact = |id| Contact {
        id,
        zone: berlin(),
        group_wait: if id == OPS { Duration::from_secs(10) } else { Duration::ZERO },
        digest: None,
        digested: Wall::from_millis(START),
        capped: false,
    };
    Routing { contacts: CONTACTS.map(contact).to_vec(), rules: rules() }
}

fn wall(secs: u64) -> Wall {
    Wall::from_millis(START) + Duration::from_secs(secs)
}

/// One checkable and the monitor's notifications about it. Problems change, end, repeat or are
/// acknowledged. Nothing is emitted while notifications are suppressed; afterwards a state is
/// emitted if it differs from the last one.
struct Patient {
    object: Object,
    /// The true state; while suppressed, it was not emitted.
    severity: Option<Severity>,
    said: Option<Severity>,
    acknowledged: bool,
    silent: Option<HeldReason>,
    /// Recovery messages are not wanted.
    mute: bool,
    changed: u64,
}

impl Patient {
    fn new(n: u64) -> Patient {
        let object = Object {
            host: Id::from_i64(n as i64 / 3),
            service: (!n.is_multiple_of(3)).then(|| format!("service-{n}")),
        };
        let (severity, said, silent) = (None, None, None);
        Patient { object, severity, said, acknowledged: false, silent, mute: n == 5, changed: 0 }
    }

    fn next(&mut self, secs: u64, dice: &mut Random) -> Option<(MessageKind, Option<Severity>)> {
        let settled = secs - self.changed > 2 * LONGEST_GROUP;
        if self.silent.is_some() {
            return self.live_in_silence(secs, dice);
        }
        if settled && dice.below(1_500) == 0 {
            self.silent = Some(SILENCES[dice.below(4) as usize]);
            return None;
        }
        let pace = if self.severity.is_some() { 180 } else { 1_000 };
        if dice.below(pace) > 0 {
            return None;
        }
        let care = settled && !self.acknowledged;
        match (self.severity, dice.below(6)) {
            (Some(now), 0) if care => {
                self.changed = secs;
                Some((MessageKind::Reminder, Some(now)))
            }
            (Some(now), 1) if care => {
                self.acknowledged = true;
                Some((MessageKind::Acknowledged, Some(now)))
            }
            (Some(_), 2 | 3) => self.turn(None, secs),
            _ => self.turn(Some(Severity::ALL[dice.below(3) as usize]), secs),
        }
    }

    fn live_in_silence(&mut self, secs: u64, dice: &mut Random) -> Option<(MessageKind, Option<Severity>)> {
        if dice.below(200) == 0 {
            self.severity = Severity::ALL.get(dice.below(4) as usize).copied();
        }
        if dice.below(300) > 0 {
            return None;
        }
        self.silent = None;
        self.changed = secs;
        self.turn(self.severity, secs)
    }

    /// Returns the notification for a state, unless that state was emitted last.
    fn turn(&mut self, to: Option<Severity>, secs: u64) -> Option<(MessageKind, Option<Severity>)> {
        self.severity = to;
        if self.said == to {
            return None;
        }
        (self.said, self.changed, self.acknowledged) = (to, secs, false);
        match to {
            Some(_) => Some((MessageKind::Problem, to)),
            None if self.mute => None,
            None => Some((MessageKind::Recovery, None)),
        }
    }

    fn standing(&self) -> Option<Standing> {
        match self.silent {
            Some(why) => Some(Standing::Silent(why)),
            None if self.acknowledged => Some(Standing::Silent(HeldReason::Acknowledged)),
            None if self.mute && self.said.is_none() => Some(Standing::Well),
            None => None,
        }
    }
}

/// Each problem has an incident; some incidents turn out to belong to one of several hosts.
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
            // Every third joins an open incident.
            let open = self.of.values().next().copied().filter(|_| self.last % 3 == 0);
            self.of.insert(object.clone(), open.unwrap_or(IncidentId(Id::from_i64(self.last))));
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

/// The contents of the store, kept from the outputs.
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

/// The inputs of the router, in order.
#[derive(Clone)]
enum Heard {
    Stands(BTreeMap<Object, Standing>),
    Wide(BTreeMap<IncidentId, IncidentId>),
    /// The checkable recovered, and no recovery message is wanted.
    Over(Object),
    Notice(Notice),
}

impl From<Heard> for Input {
    fn from(heard: Heard) -> Input {
        match heard {
            Heard::Stands(standing) => Input::Stands(standing),
            Heard::Wide(wide) => Input::Wide(wide),
            Heard::Over(object) => Input::Over(object),
            Heard::Notice(notice) => Input::Notice(notice),
        }
    }
}

/// A router with its store, and all its inputs.
#[derive(Default)]
struct Office {
    router: Router,
    store: Store,
    story: Vec<(u64, Heard)>,
    standing: BTreeMap<Object, Standing>,
    wide: BTreeMap<IncidentId, IncidentId>,
}

impl Office {
    fn at(secs: u64) -> Now {
        Now { mono: Mono::from_secs(secs), wall: wall(secs) }
    }

    fn put(&mut self, input: Input, secs: u64) {
        self.router.handle(input, Office::at(secs));
        self.store.take(&mut self.router, secs);
    }

    fn hear(&mut self, heard: Heard, secs: u64) {
        self.story.push((secs, heard.clone()));
        self.put(heard.into(), secs);
    }

    fn restart(&mut self, secs: u64) {
        self.router = self.store.restore(Office::at(secs));
        self.put(Input::Wide(self.wide.clone()), secs);
        self.put(Input::Stands(self.standing.clone()), secs);
    }

    fn see(&mut self, wide: BTreeMap<IncidentId, IncidentId>, patients: &[Patient], secs: u64) {
        let standing = patients.iter().filter_map(|p| Some((p.object.clone(), p.standing()?))).collect();
        if wide != self.wide {
            self.wide = wide.clone();
            self.hear(Heard::Wide(wide), secs);
        }
        if standing != self.standing {
            self.standing = standing;
            self.hear(Heard::Stands(self.standing.clone()), secs);
        }
        let over =
            patients.iter().filter(|p| secs.is_multiple_of(60) && p.standing() == Some(Standing::Well));
        over.for_each(|p| self.hear(Heard::Over(p.object.clone()), secs));
    }
}

fn live(seed: u64) -> Office {
    let mut dice = Random::new(seed);
    let mut patients: Vec<Patient> = (0..OBJECTS).map(Patient::new).collect();
    let (mut office, mut incidents, mut last) = (Office::default(), Incidents::default(), 0);
    office.restart(0);
    let quiet_from = HOURS * 3_600;
    for secs in (STEP..quiet_from + 96 * 3_600).step_by(STEP as usize) {
        // The quiet days at the end are for messages that still wait, so fewer steps suffice.
        if secs > quiet_from && secs % 60 > 0 {
            continue;
        }
        office.put(Input::Timeout, secs);
        // It restarts at once, so nothing becomes due while it is away.
        if dice.below(800) == 0 {
            office.restart(secs);
        }
        let mut said = Vec::new();
        for patient in &mut patients {
            if secs >= quiet_from {
                (patient.silent, patient.acknowledged) = (None, false);
            } else if let Some((kind, severity)) = patient.next(secs, &mut dice) {
                let object = patient.object.clone();
                last += 1;
                let (id, incident) = (NoticeId(last), incidents.of(&object, kind));
                let (at, labels) = (wall(secs), Arc::default());
                said.push(Notice { id, at, object, labels, kind, severity, incident });
            }
        }
        // The states are read before the notices that were committed with them.
        office.see(incidents.wide(&mut dice), &patients, secs);
        said.into_iter().for_each(|notice| office.hear(Heard::Notice(notice), secs));
        office.put(Input::Timeout, secs);
    }
    office
}

/// A message to send later, if it still applies.
struct Note {
    due: Wall,
    notice: Notice,
    /// It was due, but suppressed.
    silent: bool,
}

/// A naive model of one rule, written from the text of the rules alone.
struct Clerk<'a> {
    rule: &'a Rule,
    known: BTreeMap<Object, (Option<Severity>, Option<IncidentId>)>,
    notes: BTreeMap<Object, Note>,
    standing: BTreeMap<Object, Standing>,
    wide: BTreeMap<IncidentId, IncidentId>,
    told: Vec<NoticeId>,
}

impl<'a> Clerk<'a> {
    fn watch(rule: &'a Rule, story: &[(u64, Heard)]) -> Vec<NoticeId> {
        let (known, notes, told) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut clerk = Clerk { rule, known, notes, standing: BTreeMap::new(), wide: BTreeMap::new(), told };
        for heard in story.chunk_by(|a, b| a.0 == b.0) {
            let now = wall(heard[0].0);
            clerk.look(now);
            heard.iter().for_each(|(_, heard)| clerk.hear(heard));
            clerk.look(now);
        }
        clerk.look(wall(u64::from(u32::MAX)));
        clerk.told
    }

    fn hear(&mut self, heard: &Heard) {
        match heard {
            Heard::Stands(standing) => self.standing = standing.clone(),
            Heard::Wide(wide) => self.wide = wide.clone(),
            Heard::Over(object) if self.notes.contains_key(object) => {}
            Heard::Over(object) => drop(self.known.remove(object)),
            Heard::Notice(notice) => self.notice(notice),
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let (known, noted) =
            (self.known.contains_key(&notice.object), self.notes.contains_key(&notice.object));
        match notice.kind {
            MessageKind::Recovery => self.recovery(notice),
            MessageKind::Acknowledged if !known => drop(self.notes.remove(&notice.object)),
            MessageKind::Reminder | MessageKind::Acknowledged if known => self.passing(notice),
            MessageKind::Reminder if noted => {}
            _ => self.problem(notice),
        }
    }

    fn incident(&self, of: Option<IncidentId>) -> Option<IncidentId> {
        of.map(|id| self.wide.get(&id).copied().unwrap_or(id))
    }

    /// Returns when the first notice of the same incident is due, or now if the contact was
    /// notified of one.
    fn incident_due(&self, notice: &Notice) -> Option<Wall> {
        let incident = self.incident(Some(notice.incident?));
        if self.known.values().any(|(_, of)| self.incident(*of) == incident) {
            return Some(notice.at);
        }
        let problems = self.notes.values().filter(|n| n.notice.severity.is_some());
        let same = problems.filter(|n| self.incident(n.notice.incident) == incident);
        same.map(|n| n.due).min()
    }

    fn problem(&mut self, notice: &Notice) {
        let begun = self.incident_due(notice);
        let waiting = self.notes.remove(&notice.object);
        if notice.severity < Some(self.rule.least) {
            return;
        }
        let known = self.known.get(&notice.object).copied();
        let prompt = known.is_some() || begun.is_some_and(|at| at <= notice.at);
        let patience = if prompt { Duration::ZERO } else { self.rule.delay };
        let own = opens(self.rule, notice.at + patience);
        let due = begun.filter(|_| !prompt).map_or(own, |at| at.min(own));
        if due > notice.at {
            let notice = notice.clone();
            self.notes.insert(notice.object.clone(), Note { due, notice, silent: false });
        } else if waiting.is_none() || known.is_none_or(|(severity, _)| severity != notice.severity) {
            self.tell(notice);
        }
    }

    fn recovery(&mut self, notice: &Notice) {
        self.notes.remove(&notice.object);
        match opens(self.rule, notice.at) {
            _ if !self.known.contains_key(&notice.object) => {}
            at if at == notice.at => self.tell(notice),
            due => {
                let notice = notice.clone();
                self.notes.insert(notice.object.clone(), Note { due, notice, silent: false });
            }
        }
    }

    fn passing(&mut self, notice: &Notice) {
        let reminder = notice.kind == MessageKind::Reminder;
        let mild = reminder && notice.severity < Some(self.rule.least);
        if mild || opens(self.rule, notice.at) > notice.at {
            return;
        }
        if reminder {
            self.tell(notice);
        } else {
            self.told.push(notice.id);
        }
    }

    /// Sends the due messages with the others of their incidents, unless they are suppressed.
    fn look(&mut self, now: Wall) {
        let is_problem = |n: &Note| n.notice.severity.is_some();
        let due = self.notes.values().filter(|n| n.due <= now && is_problem(n) && !n.silent);
        let begun: BTreeSet<_> = due.filter_map(|n| self.incident(n.notice.incident)).collect();
        let begins =
            |n: &Note| is_problem(n) && self.incident(n.notice.incident).is_some_and(|i| begun.contains(&i));
        let ripe: Vec<Object> = self
            .notes
            .iter()
            .filter(|(_, note)| note.due <= now || begins(note))
            .map(|(object, _)| object.clone())
            .collect();
        for object in ripe {
            let Some(note) = self.notes.remove(&object) else { continue };
            match self.standing.get(&object) {
                Some(Standing::Well) if is_problem(&note) => {}
                Some(Standing::Silent(why)) if *why != HeldReason::Acknowledged || is_problem(&note) => {
                    self.notes.insert(object, Note { due: now.min(note.due), silent: true, ..note });
                }
                _ if note.silent && opens(self.rule, now) > now => {
                    let due = opens(self.rule, now);
                    self.notes.insert(object, Note { due, silent: false, ..note });
                }
                _ if self.known.get(&object).is_some_and(|(was, _)| *was == note.notice.severity) => {}
                _ => self.tell(&note.notice),
            }
        }
    }

    fn tell(&mut self, notice: &Notice) {
        self.told.push(notice.id);
        match notice.severity {
            Some(_) => self.known.insert(notice.object.clone(), (notice.severity, notice.incident)),
            None => self.known.remove(&notice.object),
        };
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
    let Office { store, story, .. } = live(seed);
    let all: Vec<&Notice> =
        story.iter().filter_map(|(_, h)| if let Heard::Notice(n) = h { Some(n) } else { None }).collect();
    assert!(store.waiting.is_empty(), "still waiting: {:?}", store.waiting);
    let objects: BTreeSet<&Object> = all.iter().map(|n| &n.object).collect();
    for rule in rules() {
        let posted = store.posted.get(&rule.contact).cloned().unwrap_or_default();
        let clerk = Clerk::watch(&rule, &story);
        for object in &objects {
            let of: Vec<&&Notice> = all.iter().filter(|n| n.object == **object).collect();
            let is_of = |id: &NoticeId| of.iter().any(|n| n.id == *id);
            let told: Vec<NoticeId> = posted.iter().map(|(id, _)| *id).filter(is_of).collect();
            let expected: Vec<NoticeId> = clerk.iter().copied().filter(is_of).collect();
            let tale =
                || of.iter().map(|n| (n.id.0, n.at, n.kind, n.severity, n.incident)).collect::<Vec<_>>();
            assert_eq!(told, expected, "contact {} of {:?}", rule.contact.as_i64(), tale());
        }
    }
    for notice in &all {
        let ended = |contact| store.ended.contains(&(Some(contact), notice.id));
        assert!(CONTACTS.into_iter().all(ended), "{notice:?} has no end");
    }
    for (id, secs) in &store.posted[&OPS] {
        let notice = all[id.0 as usize - 1];
        let waited = wall(*secs).since(notice.at).as_secs();
        // After a restart the group waits once more.
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
