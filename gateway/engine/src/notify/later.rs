//! What waits because of a contact's rules: of one object only the newest, until its time has come.
//!
//! An incident comes to a contact as one: when the first of its problems is due, so are the others.
//! Knows neither the rules nor what becomes of what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::{Mono, Now, Wall};
use crate::wire::IncidentId;

use super::rule::Class;
use super::wide::Wide;
use super::{ContactId, Notice, Object, RuleId, WaitFor};

/// Times of the calendar are looked at again so often: the wall clock may step meanwhile.
pub(super) const RECHECK: Duration = Duration::from_secs(60);
/// What is due and may not be told is looked at so often: that a silence ends is seen in the states,
/// of which nobody is told.
const SILENCE_LOOK: Duration = Duration::from_secs(10);

/// When a delay ends does not depend on the wall clock; when a period begins does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    After(Mono),
    On(Wall),
}

impl Due {
    pub fn has_come(self, now: Now) -> bool {
        match self {
            Due::After(at) => at <= now.mono,
            Due::On(at) => at <= now.wall,
        }
    }

    /// When to look.
    pub fn look(self, now: Now) -> Mono {
        match self {
            Due::After(at) => at,
            Due::On(at) => now.mono + at.since(now.wall).min(RECHECK),
        }
    }

    /// How long until then.
    pub fn rest(self, now: Now) -> Duration {
        match self {
            Due::After(at) => at.since(now.mono),
            Due::On(at) => at.since(now.wall),
        }
    }

    pub fn wall(self, now: Now) -> Wall {
        match self {
            Due::After(at) => now.wall + at.since(now.mono),
            Due::On(at) => at,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Later {
    pub notice: Notice,
    pub why: WaitFor,
    pub due: Due,
    /// That tells of it then.
    pub rule: Option<RuleId>,
}

impl Later {
    fn look(&self, now: Now) -> Mono {
        match self.why {
            WaitFor::Silence(_) => now.mono + SILENCE_LOOK,
            _ => self.due.look(now),
        }
    }

    fn is_problem(&self) -> bool {
        self.notice.severity.is_some()
    }

    /// It was due before, and what belongs to it was told then.
    fn is_silent(&self) -> bool {
        matches!(self.why, WaitFor::Silence(_))
    }
}

/// Problems of one incident, by when they are due.
#[derive(Debug, Default)]
struct Ranks {
    after: BTreeSet<(Mono, Object)>,
    on: BTreeSet<(Wall, Object)>,
}

impl Ranks {
    fn add(&mut self, due: Due, object: Object) {
        match due {
            Due::After(at) => self.after.insert((at, object)),
            Due::On(at) => self.on.insert((at, object)),
        };
    }

    fn remove(&mut self, due: Due, object: Object) {
        match due {
            Due::After(at) => self.after.remove(&(at, object)),
            Due::On(at) => self.on.remove(&(at, object)),
        };
    }

    /// The first by either clock.
    fn first(&self) -> impl Iterator<Item = &Object> {
        let (after, on) = (self.after.first(), self.on.first());
        after.map(|(_, object)| object).into_iter().chain(on.map(|(_, object)| object))
    }

    fn is_empty(&self) -> bool {
        self.after.is_empty() && self.on.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    by: BTreeMap<(ContactId, Object), Later>,
    /// Each notice asks when its incident is due, of which thousands may wait.
    ranks: BTreeMap<(ContactId, IncidentId), Ranks>,
    wide: Wide,
    /// Nothing is due before.
    look: Option<Mono>,
}

impl Shelf {
    pub fn next(&self) -> Option<Mono> {
        self.look
    }

    pub fn has(&self, contact: ContactId, object: &Object) -> bool {
        self.by.contains_key(&(contact, object.clone()))
    }

    /// Whether the end of it waits.
    pub fn ends(&self, contact: ContactId, object: &Object) -> bool {
        let later = self.by.get(&(contact, object.clone()));
        later.is_some_and(|later| Class::of(&later.notice) == Class::Recovery)
    }

    pub fn put(&mut self, contact: ContactId, later: Later, now: Now) {
        let look = later.look(now);
        self.look = Some(self.look.map_or(look, |at| at.min(look)));
        self.take(contact, &later.notice.object);
        if let Some(place) = self.rank(contact, &later) {
            self.ranks.entry(place).or_default().add(later.due, later.notice.object.clone());
        }
        self.by.insert((contact, later.notice.object.clone()), later);
    }

    pub fn take(&mut self, contact: ContactId, object: &Object) -> Option<Later> {
        let later = self.by.remove(&(contact, object.clone()))?;
        if let Some(place) = self.rank(contact, &later)
            && let Some(ranks) = self.ranks.get_mut(&place)
        {
            ranks.remove(later.due, object.clone());
            if ranks.is_empty() {
                self.ranks.remove(&place);
            }
        }
        Some(later)
    }

    /// Where it stands among those of its incident.
    fn rank(&self, contact: ContactId, later: &Later) -> Option<(ContactId, IncidentId)> {
        let incident = later.notice.incident.filter(|_| later.is_problem())?;
        Some((contact, self.wide.whole(incident)))
    }

    /// Something may be due for another reason than time.
    pub fn look_at(&mut self, at: Mono) {
        self.look = self.look.map(|look| look.min(at));
    }

    /// These incidents belong to those: what waits of them may be due together.
    pub fn widen(&mut self, wide: &Wide, now: Now) {
        self.wide = wide.clone();
        self.ranks.clear();
        self.drain().into_iter().for_each(|(contact, later)| self.put(contact, later, now));
        self.look_at(now.mono);
    }

    /// Everything, to be put back.
    pub fn drain(&mut self) -> Vec<(ContactId, Later)> {
        self.ranks.clear();
        let all = std::mem::take(&mut self.by);
        all.into_iter().map(|((contact, _), later)| (contact, later)).collect()
    }

    /// What of an incident is due to a contact first.
    pub fn of_incident(&self, contact: ContactId, incident: IncidentId, now: Now) -> Option<&Later> {
        let ranks = self.ranks.get(&(contact, self.wide.whole(incident)))?;
        let first = ranks.first().filter_map(|object| self.by.get(&(contact, object.clone())));
        first.min_by_key(|later| later.due.wall(now))
    }

    /// Takes out what is due, with all problems of the same incident.
    pub fn ripe(&mut self, now: Now) -> Vec<(ContactId, Later)> {
        if self.look.is_none_or(|at| at > now.mono) {
            return Vec::new();
        }
        let due = |later: &Later| later.due.has_come(now);
        let begun: BTreeSet<(ContactId, IncidentId)> = self
            .by
            .iter()
            .filter(|(_, l)| due(l) && !l.is_silent())
            .filter_map(|((contact, _), l)| self.rank(*contact, l))
            .collect();
        let with =
            |contact, later: &Later| self.rank(contact, later).is_some_and(|place| begun.contains(&place));
        let ripe = self.by.iter().filter(|((contact, _), later)| due(later) || with(*contact, later));
        let ripe: Vec<(ContactId, Object)> = ripe.map(|(place, _)| place.clone()).collect();
        let take = |(contact, object): (ContactId, Object)| Some((contact, self.take(contact, &object)?));
        let ripe = ripe.into_iter().filter_map(take).collect();
        self.look = self.by.values().map(|later| later.look(now)).min();
        ripe
    }

    /// Takes out what waits for a contact or of an object that is no more.
    pub fn remove(&mut self, gone: impl Fn(ContactId, &Object) -> bool) -> Vec<(ContactId, Notice)> {
        let gone: Vec<_> = self.by.keys().filter(|(contact, of)| gone(*contact, of)).cloned().collect();
        let take =
            |(contact, object): (ContactId, Object)| Some((contact, self.take(contact, &object)?.notice));
        gone.into_iter().filter_map(take).collect()
    }
}
