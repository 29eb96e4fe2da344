//! Notices that wait because of a contact's rules: only the newest of each checkable, until it is
//! due.
//!
//! A contact gets an incident as a whole: when the first of its problems is due, so are the others.
//! This module knows neither the rules nor the handling of due notices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::{Mono, Now, Wall};
use crate::wire::IncidentId;

use super::rule::Class;
use super::wide::Wide;
use super::{ContactId, Notice, Object, RuleId, WaitFor};

/// Calendar times are re-evaluated at this interval, because the wall clock may step meanwhile.
pub(super) const RECHECK: Duration = Duration::from_secs(60);
/// A suppressed notice that is due is re-evaluated at this interval. The end of the suppression
/// shows only in the states, without an event.
const SILENCE_LOOK: Duration = Duration::from_secs(10);

/// The end of a delay does not depend on the wall clock; the start of a time period does.
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

    /// Returns when to look.
    pub fn look(self, now: Now) -> Mono {
        match self {
            Due::After(at) => at,
            Due::On(at) => now.mono + at.since(now.wall).min(RECHECK),
        }
    }

    /// Returns the remaining time.
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
    /// The rule that then sends the notification.
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

    /// Whether it was due before and only waits for the end of a suppression. The rest of its
    /// incident was notified then.
    fn is_silent(&self) -> bool {
        matches!(self.why, WaitFor::Silence(_))
    }
}

/// Problems of one incident, by due time.
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

    /// Returns the first problem by either clock.
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
    /// Problems by incident. Each notice looks up when its incident is due, and thousands may wait.
    ranks: BTreeMap<(ContactId, IncidentId), Ranks>,
    wide: Wide,
    /// No notice is due before this time.
    look: Option<Mono>,
}

impl Shelf {
    pub fn next(&self) -> Option<Mono> {
        self.look
    }

    pub fn has(&self, contact: ContactId, object: &Object) -> bool {
        self.by.contains_key(&(contact, object.clone()))
    }

    /// Whether the recovery waits.
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

    /// Returns the incident under which it is ranked.
    fn rank(&self, contact: ContactId, later: &Later) -> Option<(ContactId, IncidentId)> {
        let incident = later.notice.incident.filter(|_| later.is_problem())?;
        Some((contact, self.wide.whole(incident)))
    }

    /// Looks again by `at`, because notices may be due for another reason than time.
    pub fn look_at(&mut self, at: Mono) {
        self.look = self.look.map(|look| look.min(at));
    }

    /// Regroups after incidents were merged or widened: their waiting notices may be due together.
    pub fn widen(&mut self, wide: &Wide, now: Now) {
        self.wide = wide.clone();
        self.ranks.clear();
        self.drain().into_iter().for_each(|(contact, later)| self.put(contact, later, now));
        self.look_at(now.mono);
    }

    /// Takes out all notices, to be put back.
    pub fn drain(&mut self) -> Vec<(ContactId, Later)> {
        self.ranks.clear();
        let all = std::mem::take(&mut self.by);
        all.into_iter().map(|((contact, _), later)| (contact, later)).collect()
    }

    /// Returns the first due problem of an incident for a contact.
    pub fn of_incident(&self, contact: ContactId, incident: IncidentId, now: Now) -> Option<&Later> {
        let ranks = self.ranks.get(&(contact, self.wide.whole(incident)))?;
        let first = ranks.first().filter_map(|object| self.by.get(&(contact, object.clone())));
        first.min_by_key(|later| later.due.wall(now))
    }

    /// Takes out the notices that are due, with all problems of the same incidents.
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

    /// Removes the waiting notices of removed contacts or checkables.
    pub fn remove(&mut self, gone: impl Fn(ContactId, &Object) -> bool) -> Vec<(ContactId, Notice)> {
        let gone: Vec<_> = self.by.keys().filter(|(contact, of)| gone(*contact, of)).cloned().collect();
        let take =
            |(contact, object): (ContactId, Object)| Some((contact, self.take(contact, &object)?.notice));
        gone.into_iter().filter_map(take).collect()
    }
}
