//! The router: notices in, posts and reasons out. Mutate with [`Router::handle`], then drain
//! [`Router::poll_output`] until `Wait`.
//!
//! A notice is *later* while its rule's delay or time period keeps it from a contact; of one object
//! only the newest is kept there. Then it is *grouped* ([`super::groups`]), and then posted, unless the
//! contact had too many messages ([`super::cap`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::calendar::timestamp;
use crate::id::HostId;
use crate::time::{Mono, Now, Wall};

use super::cap::Caps;
use super::groups::{Groups, shared_site};
use super::rule::Class;
use super::{
    Contact, ContactId, Hold, Input, Item, Notice, NoticeId, Object, Output, Routing, Rule, Severity, Told,
    WaitFor, Waiting,
};

/// Times of the calendar are looked at again so often: the wall clock may step meanwhile.
const RECHECK: Duration = Duration::from_secs(60);
/// What was told within the hour before a digest is fresh in mind.
const DIGEST_AGE: Duration = Duration::from_secs(3_600);

/// When a delay ends does not depend on the wall clock; when a period begins does.
#[derive(Clone, Copy, Debug)]
enum Due {
    After(Mono),
    On(Wall),
}

impl Due {
    fn has_come(self, now: Now) -> bool {
        match self {
            Due::After(at) => at <= now.mono,
            Due::On(at) => at <= now.wall,
        }
    }

    /// When to look.
    fn look(self, now: Now) -> Mono {
        match self {
            Due::After(at) => at,
            Due::On(at) => now.mono + at.since(now.wall).min(RECHECK),
        }
    }

    fn wall(self, now: Now) -> Wall {
        match self {
            Due::After(at) => now.wall + at.since(now.mono),
            Due::On(at) => at,
        }
    }
}

#[derive(Debug)]
struct Later {
    notice: Notice,
    why: WaitFor,
    due: Due,
}

/// What a contact's rules say of a notice.
enum Plan {
    Now,
    Later(Due, WaitFor),
    Never(Hold),
}

#[derive(Debug, Default)]
pub struct Router {
    contacts: BTreeMap<ContactId, Contact>,
    rules: BTreeMap<ContactId, Vec<Rule>>,
    told: BTreeMap<(ContactId, Object), Told>,
    later: BTreeMap<(ContactId, Object), Later>,
    /// Nothing in `later` is due before.
    look: Option<Mono>,
    groups: Groups,
    caps: Caps,
    digests: BTreeMap<ContactId, Wall>,
    outputs: VecDeque<Output>,
    now: Now,
}

impl Router {
    /// From what the store has kept of the outputs. What waited for a group waits once more. `posted`:
    /// the posts of the last hour, in order.
    pub fn restore(
        routing: Routing,
        told: Vec<(ContactId, Object, Told)>,
        mut waiting: Vec<Waiting>,
        posted: &[(ContactId, Wall)],
        now: Now,
    ) -> Router {
        let mut router = Router { now, ..Router::default() };
        router.told = told.into_iter().map(|(contact, object, told)| ((contact, object), told)).collect();
        waiting.sort_by_key(|w| w.notice.id);
        router.set_routing(routing);
        for (contact, at) in posted {
            router.note_post(*contact, now.mono_at(*at));
        }
        for w in waiting {
            router.resume(w, now);
        }
        router.forget_removed_contacts();
        router
    }

    fn resume(&mut self, w: Waiting, now: Now) {
        let Some(contact) = self.contacts.get(&w.contact) else {
            return self.hold(Some(w.contact), w.notice.id, Hold::ContactRemoved);
        };
        // A clock that was set back must not make a delay longer than the rules have it.
        let longest = self.rules.get(&w.contact).into_iter().flatten().map(|r| r.delay).max();
        let delay = w.until.since(now.wall).min(longest.unwrap_or_default());
        let due = match w.why {
            WaitFor::Group | WaitFor::Cap => {
                self.groups.add(contact, w.notice, now.mono);
                return;
            }
            WaitFor::Delay => Due::After(now.mono + delay),
            WaitFor::Period => Due::On(w.until),
        };
        self.put_later(w.contact, Later { notice: w.notice, why: w.why, due }, now);
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Notice(notice) => self.notice(&notice, now),
            Input::Configure(routing) => {
                self.set_routing(routing);
                self.forget_removed_contacts();
            }
            Input::Acknowledged(object) => self.cared_for(&object),
            Input::CareEnded { contact, notice } => self.care_ended(contact, &notice, now),
            Input::Wide(wide) => self.groups.widen(wide),
            Input::Forget(host) => self.forget(|_, of| of == host, Hold::HostRemoved),
            Input::Timeout => {}
        }
        self.ripen(now);
        self.send_due(now);
        self.digest(now);
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait(self.next()))
    }

    fn next(&self) -> Option<Mono> {
        let digest = self.digests.values().min().map(|at| Due::On(*at).look(self.now));
        let groups = self.groups.next().into_iter().map(|(id, due)| due.max(self.caps.free_at(id))).min();
        [self.look, groups, digest].into_iter().flatten().min()
    }

    // ------------------------------------------------------------------ routing

    fn set_routing(&mut self, routing: Routing) {
        self.rules.clear();
        for rule in routing.rules {
            self.rules.entry(rule.contact).or_default().push(rule);
        }
        self.digests =
            routing.contacts.iter().filter_map(|c| Some((c.id, next_digest(c, c.digested)?))).collect();
        self.contacts = routing.contacts.into_iter().map(|c| (c.id, c)).collect();
    }

    fn forget_removed_contacts(&mut self) {
        let known: Vec<ContactId> = self.contacts.keys().copied().collect();
        self.forget(|contact, _| !known.contains(&contact), Hold::ContactRemoved);
    }

    fn forget(&mut self, gone: impl Fn(ContactId, HostId) -> bool, why: Hold) {
        for (contact, notice) in self.groups.remove(&gone) {
            self.hold(Some(contact), notice.id, why);
        }
        let later = self.later.extract_if(.., |(contact, object), _| gone(*contact, object.host));
        let later: Vec<_> = later.map(|((contact, _), l)| (contact, l.notice.id)).collect();
        later.into_iter().for_each(|(contact, notice)| self.hold(Some(contact), notice, why));
        let told = self.told.extract_if(.., |(contact, object), _| gone(*contact, object.host));
        let told: Vec<_> = told.map(|(place, _)| place).collect();
        for (contact, object) in told {
            self.outputs.push_back(Output::Told { contact, object, told: None });
        }
    }

    fn notice(&mut self, notice: &Notice, now: Now) {
        let contacts: Vec<Contact> = self.contacts.values().cloned().collect();
        let class = Class::of(notice);
        let mut concerned = false;
        for contact in &contacts {
            concerned |= match class {
                Class::Problem => self.problem(contact, notice, now),
                Class::Recovery => self.recovery(contact, notice, now),
                Class::Reminder => self.reminder(contact, notice, now),
                Class::Acknowledged => self.acknowledged(contact, notice, now),
                Class::Downtime => self.downtime(contact, notice, now),
            };
        }
        if !concerned {
            let why = if contacts.is_empty() { Hold::NoContact } else { Hold::NoRule };
            self.hold(None, notice.id, why);
        }
    }

    /// Each of these says whether the notice concerns the contact at all.
    fn problem(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        match self.plan(contact, notice, now) {
            Plan::Never(why) => {
                self.take_later(contact.id, &notice.object, Hold::Superseded(notice.id));
                if why == Hold::NoRule {
                    return false;
                }
                self.hold(Some(contact.id), notice.id, why);
            }
            Plan::Now => {
                let waited =
                    self.take_later(contact.id, &notice.object, Hold::Superseded(notice.id)).is_some();
                self.tell(contact, notice, waited, now);
            }
            Plan::Later(..) if self.groups.has(contact.id, &notice.object) => {
                self.group(contact, notice.clone(), now);
            }
            Plan::Later(due, why) => self.defer(contact.id, notice, due, why, now),
        }
        true
    }

    fn recovery(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        let place = (contact.id, notice.object.clone());
        if self.groups.has(contact.id, &notice.object) {
            self.group(contact, notice.clone(), now);
        } else if self.told.contains_key(&place) {
            let opens = self.opens(contact, notice, now.wall);
            if opens <= now.wall {
                self.take_later(contact.id, &notice.object, Hold::Superseded(notice.id));
                self.group(contact, notice.clone(), now);
            } else {
                self.defer(contact.id, notice, Due::On(opens), WaitFor::Period, now);
            }
        } else {
            let waited = self.take_later(contact.id, &notice.object, Hold::OverBefore(notice.id)).is_some();
            if !waited && !self.is_selected(contact.id, notice) {
                return false;
            }
            self.hold(Some(contact.id), notice.id, Hold::NeverTold);
        }
        true
    }

    /// Whoever was not told so far, and by the rules should have been, is told by this.
    fn reminder(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        let place = (contact.id, notice.object.clone());
        let known = self.told.contains_key(&place);
        match self.least(contact.id, notice) {
            Some(least) if known && notice.severity.is_some_and(|s| s < least) => {
                self.hold(Some(contact.id), notice.id, Hold::BelowSeverity(least));
            }
            _ if known => self.tell_if_open(contact, notice, now),
            _ if self.groups.has(contact.id, &notice.object) || self.later.contains_key(&place) => {
                self.hold(Some(contact.id), notice.id, Hold::NeverTold);
            }
            _ => return self.problem(contact, notice, now),
        }
        true
    }

    fn acknowledged(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        let place = (contact.id, notice.object.clone());
        if self.told.contains_key(&place) || self.groups.has(contact.id, &notice.object) {
            self.tell_if_open(contact, notice, now);
        } else if self.take_later(contact.id, &notice.object, Hold::Acknowledged).is_some()
            || self.is_selected(contact.id, notice)
        {
            self.hold(Some(contact.id), notice.id, Hold::NeverTold);
        } else {
            return false;
        }
        true
    }

    /// Whoever was not told yet need not be.
    fn cared_for(&mut self, object: &Object) {
        let contacts: Vec<ContactId> = self.contacts.keys().copied().collect();
        for contact in contacts {
            if !self.told.contains_key(&(contact, object.clone())) {
                self.take_later(contact, object, Hold::Acknowledged);
            }
        }
    }

    /// Nobody takes care any more: whoever was to be told later is, from now on.
    fn care_ended(&mut self, contact: ContactId, notice: &Notice, now: Now) {
        let place = (contact, notice.object.clone());
        let known = self.told.contains_key(&place) || self.later.contains_key(&place);
        let Some(contact) = self.contacts.get(&contact).cloned() else { return };
        if !known && !self.groups.has(contact.id, &notice.object) {
            self.problem(&contact, notice, now);
        }
    }

    fn downtime(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        if !self.is_selected(contact.id, notice) {
            return false;
        }
        let at_once = |r: &Rule| r.selects(notice) && r.delay.is_zero();
        if self.rules.get(&contact.id).into_iter().flatten().any(at_once) {
            self.tell_if_open(contact, notice, now);
        } else {
            self.hold(Some(contact.id), notice.id, Hold::NeverTold);
        }
        true
    }

    // ----------------------------------------------------------------- the rules

    /// The earliest that one of the contact's rules allows.
    fn plan(&self, contact: &Contact, notice: &Notice, now: Now) -> Plan {
        let selecting = || self.rules.get(&contact.id).into_iter().flatten().filter(|r| r.selects(notice));
        let Some(least) = self.least(contact.id, notice) else { return Plan::Never(Hold::NoRule) };
        let known = self.told.contains_key(&(contact.id, notice.object.clone()));
        let plans = selecting().filter(|r| r.is_severe_enough(notice)).map(|rule| {
            let gone_by = now.wall.since(notice.at);
            let delay = if known { Duration::ZERO } else { rule.delay.saturating_sub(gone_by) };
            let after = now.wall + delay;
            let opens = rule.period.as_ref().map_or(after, |p| p.next(after, &contact.zone));
            (opens, delay, opens > after)
        });
        match plans.min() {
            None => Plan::Never(Hold::BelowSeverity(least)),
            Some((opens, _, true)) => Plan::Later(Due::On(opens), WaitFor::Period),
            Some((_, Duration::ZERO, false)) => Plan::Now,
            Some((_, delay, false)) => Plan::Later(Due::After(now.mono + delay), WaitFor::Delay),
        }
    }

    /// When the contact's rules for this host let something through, at `from` or later.
    fn opens(&self, contact: &Contact, notice: &Notice, from: Wall) -> Wall {
        let rules = self.rules.get(&contact.id).into_iter().flatten().filter(|r| r.selects(notice));
        let opens = rules.map(|r| r.period.as_ref().map_or(from, |p| p.next(from, &contact.zone)));
        opens.min().unwrap_or(from)
    }

    /// The mildest that the contact's rules for this host let through; `None`: there is no such rule.
    fn least(&self, contact: ContactId, notice: &Notice) -> Option<Severity> {
        let rules = self.rules.get(&contact).into_iter().flatten();
        rules.filter(|r| r.selects(notice)).map(|r| r.least).min()
    }

    fn is_selected(&self, contact: ContactId, notice: &Notice) -> bool {
        self.rules.get(&contact).into_iter().flatten().any(|r| r.selects(notice))
    }

    // ------------------------------------------------------------------- telling

    /// `waited`: another state stood between this one and what was told last.
    fn tell(&mut self, contact: &Contact, notice: &Notice, waited: bool, now: Now) {
        let told = self.told.get(&(contact.id, notice.object.clone()));
        if waited && told.is_some_and(|t| t.severity == notice.severity) {
            self.hold(Some(contact.id), notice.id, Hold::AlreadyTold);
        } else {
            self.group(contact, notice.clone(), now);
        }
    }

    fn tell_if_open(&mut self, contact: &Contact, notice: &Notice, now: Now) {
        if self.opens(contact, notice, now.wall) <= now.wall {
            self.group(contact, notice.clone(), now);
        } else {
            self.hold(Some(contact.id), notice.id, Hold::OutsidePeriod);
        }
    }

    fn defer(&mut self, contact: ContactId, notice: &Notice, due: Due, why: WaitFor, now: Now) {
        let before = self.take_later(contact, &notice.object, Hold::Superseded(notice.id));
        // A delay runs from the problem's begin, not from its last change.
        let (due, why) = match before {
            Some(l) if l.why == WaitFor::Delay && why == WaitFor::Delay => (l.due, l.why),
            _ => (due, why),
        };
        self.wait(contact, notice.clone(), why, due.wall(now));
        self.put_later(contact, Later { notice: notice.clone(), why, due }, now);
    }

    fn put_later(&mut self, contact: ContactId, later: Later, now: Now) {
        let look = later.due.look(now);
        self.look = Some(self.look.map_or(look, |at| at.min(look)));
        self.later.insert((contact, later.notice.object.clone()), later);
    }

    fn take_later(&mut self, contact: ContactId, object: &Object, why: Hold) -> Option<Later> {
        let taken = self.later.remove(&(contact, object.clone()))?;
        self.hold(Some(contact), taken.notice.id, why);
        Some(taken)
    }

    fn group(&mut self, contact: &Contact, notice: Notice, now: Now) {
        let leaves = self.groups.add(contact, notice.clone(), now.mono);
        self.wait(contact.id, notice, WaitFor::Group, now.wall + leaves.since(now.mono));
    }

    fn wait(&mut self, contact: ContactId, notice: Notice, why: WaitFor, until: Wall) {
        self.outputs.push_back(Output::Waits(Waiting { contact, notice, why, until }));
    }

    fn hold(&mut self, contact: Option<ContactId>, notice: NoticeId, why: Hold) {
        self.outputs.push_back(Output::Held { contact, notice, why });
    }

    // ---------------------------------------------------------------------- time

    /// What was later and is due now is told.
    fn ripen(&mut self, now: Now) {
        if self.look.is_none_or(|at| at > now.mono) {
            return;
        }
        let ripe: Vec<_> = self.later.extract_if(.., |_, l| l.due.has_come(now)).collect();
        self.look = self.later.values().map(|l| l.due.look(now)).min();
        for ((contact, _), later) in ripe {
            let Some(contact) = self.contacts.get(&contact).cloned() else { continue };
            self.tell(&contact, &later.notice, true, now);
        }
    }

    /// Group by group; or, to a contact that had too many messages, now and then all that is due in one.
    fn send_due(&mut self, now: Now) {
        let due: Vec<ContactId> =
            self.groups.next().into_iter().filter(|(_, at)| *at <= now.mono).map(|(id, _)| id).collect();
        for contact in due {
            let mut folding = self.caps.unfold(contact);
            while self.caps.free_at(contact) <= now.mono
                && let Some(mut notices) = self.groups.pop(contact, now.mono)
            {
                let mut folded = 1;
                while folding && let Some(more) = self.groups.pop(contact, now.mono) {
                    folded += 1;
                    notices.extend(more);
                }
                folding = false;
                notices.sort_by_key(|n| n.id);
                self.post(contact, folded, notices, now);
            }
            self.keep_back(contact, now);
        }
    }

    /// What is due to a contact that had too many messages.
    fn keep_back(&mut self, contact: ContactId, now: Now) {
        let kept: Vec<Notice> = self.groups.overdue(contact, now.mono).cloned().collect();
        if kept.is_empty() || !self.caps.fold(contact) {
            return;
        }
        let until = now.wall + self.caps.free_at(contact).since(now.mono);
        kept.into_iter().for_each(|notice| self.wait(contact, notice, WaitFor::Cap, until));
    }

    fn note_post(&mut self, contact: ContactId, at: Mono) {
        if self.contacts.get(&contact).is_some_and(|c| c.capped) {
            self.caps.posted(contact, at);
        }
    }

    fn post(&mut self, contact: ContactId, folded: usize, notices: Vec<Notice>, now: Now) {
        let site = shared_site(&notices);
        let mut items = Vec::with_capacity(notices.len());
        for notice in notices {
            let place = (contact, notice.object.clone());
            let root = self.told.get(&place).map_or(notice.id, |t| t.root);
            items.push(Item { notice: notice.id, root });
            let told = match Class::of(&notice) {
                Class::Problem | Class::Reminder => {
                    Some(Told { root, last: notice.id, at: now.wall, severity: notice.severity })
                }
                Class::Recovery => None,
                Class::Acknowledged | Class::Downtime => continue,
            };
            match told {
                Some(told) => drop(self.told.insert(place, told)),
                None => drop(self.told.remove(&place)),
            }
            self.outputs.push_back(Output::Told { contact, object: notice.object, told });
        }
        self.note_post(contact, now.mono);
        self.outputs.push_back(Output::Post { contact, site, folded, items });
    }

    fn digest(&mut self, now: Now) {
        let due: Vec<ContactId> =
            self.digests.iter().filter(|(_, at)| **at <= now.wall).map(|(id, _)| *id).collect();
        for id in due {
            let of = self.told.iter().filter(|((contact, _), _)| *contact == id);
            let old = of.filter(|(_, t)| now.wall.since(t.at) >= DIGEST_AGE);
            let items = old.map(|(_, t)| t.last).collect();
            self.outputs.push_back(Output::Digest { contact: id, items });
            let next = self.contacts.get(&id).and_then(|c| next_digest(c, now.wall));
            match next {
                Some(at) => drop(self.digests.insert(id, at)),
                None => drop(self.digests.remove(&id)),
            }
        }
    }
}

/// The first time of a contact's digest after `last`.
fn next_digest(contact: &Contact, last: Wall) -> Option<Wall> {
    let at = contact.digest?;
    let mut date = contact.zone.to_datetime(timestamp(last)).date();
    // Today's, or else tomorrow's; the third is for a calendar that leaves out a day.
    for _ in 0..3 {
        let instant = contact.zone.to_ambiguous_timestamp(date.to_datetime(at)).compatible().ok()?;
        let instant = Wall::from_millis(instant.as_millisecond());
        if instant > last {
            return Some(instant);
        }
        date = date.tomorrow().ok()?;
    }
    None
}

#[cfg(test)]
mod tests;
