//! What waits because of a contact's rules: of one object only the newest, until its time has come.
//!
//! An incident comes to a contact as one: when the first of its problems is due, so are the others.
//! Knows neither the rules nor what becomes of what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::time::{Mono, Now, Wall};
use crate::wire::IncidentId;

use super::{ContactId, Notice, Object, RuleId, WaitFor};

/// Times of the calendar are looked at again so often: the wall clock may step meanwhile.
pub(super) const RECHECK: Duration = Duration::from_secs(60);
/// What is due and may not be told is looked at so often: that a silence ends is seen in the states,
/// of which nobody is told.
const SILENCE_LOOK: Duration = Duration::from_secs(10);

/// When a delay ends does not depend on the wall clock; when a period begins does.
#[derive(Clone, Copy, Debug)]
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
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    by: BTreeMap<(ContactId, Object), Later>,
    /// Nothing is due before.
    look: Option<Mono>,
}

impl Shelf {
    pub fn next(&self) -> Option<Mono> {
        self.look
    }

    pub fn has(&self, place: &(ContactId, Object)) -> bool {
        self.by.contains_key(place)
    }

    pub fn put(&mut self, contact: ContactId, later: Later, now: Now) {
        let look = later.look(now);
        self.look = Some(self.look.map_or(look, |at| at.min(look)));
        self.by.insert((contact, later.notice.object.clone()), later);
    }

    pub fn take(&mut self, contact: ContactId, object: &Object) -> Option<Later> {
        self.by.remove(&(contact, object.clone()))
    }

    /// Something may be due for another reason than time.
    pub fn look_at(&mut self, at: Mono) {
        self.look = self.look.map(|look| look.min(at));
    }

    /// What of an incident is due to a contact first; `of`: the incident of a notice.
    pub fn of_incident(
        &self,
        contact: ContactId,
        incident: IncidentId,
        of: impl Fn(&Notice) -> Option<IncidentId>,
        now: Now,
    ) -> Option<&Later> {
        let theirs = self.by.iter().filter(|((id, _), later)| *id == contact && later.is_problem());
        let of_it = theirs.map(|(_, later)| later).filter(|later| of(&later.notice) == Some(incident));
        of_it.min_by_key(|later| later.due.wall(now))
    }

    /// Takes out what is due, with all problems of the same incident.
    pub fn ripe(&mut self, now: Now, of: impl Fn(&Notice) -> Option<IncidentId>) -> Vec<(ContactId, Later)> {
        if self.look.is_none_or(|at| at > now.mono) {
            return Vec::new();
        }
        let due = |later: &Later| later.due.has_come(now);
        let begun: BTreeSet<(ContactId, IncidentId)> = self
            .by
            .iter()
            .filter(|(_, later)| later.is_problem() && due(later))
            .filter_map(|((contact, _), later)| Some((*contact, of(&later.notice)?)))
            .collect();
        let with = |contact, later: &Later| {
            later.is_problem() && of(&later.notice).is_some_and(|id| begun.contains(&(contact, id)))
        };
        let ripe = self.by.extract_if(.., |(contact, _), later| due(later) || with(*contact, later));
        let ripe = ripe.map(|((contact, _), later)| (contact, later)).collect();
        self.look = self.by.values().map(|later| later.look(now)).min();
        ripe
    }

    /// Takes out what waits for a contact or of a host that is no more.
    pub fn remove(&mut self, gone: impl Fn(ContactId, HostId) -> bool) -> Vec<(ContactId, Notice)> {
        let removed = self.by.extract_if(.., |(contact, object), _| gone(*contact, object.host));
        removed.map(|((contact, _), later)| (contact, later.notice)).collect()
    }
}
