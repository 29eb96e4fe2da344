//! The router: notices in, posts and reasons out. Mutate with [`Router::handle`], then drain
//! [`Router::poll_output`] until `Wait`.
//!
//! A notice is *later* ([`super::later`]) while its rule's delay or time period keeps it from a contact, or
//! a silence that began meanwhile ([`super::standing`]). Then it is *grouped* ([`super::groups`]), and then
//! posted, unless the contact had too many messages ([`super::cap`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::calendar::timestamp;
use crate::id::HostId;
use crate::time::{Mono, Now, Wall};
use crate::wire::{HeldReason, IncidentId};

use super::cap::Caps;
use super::groups::{Groups, shared_site};
use super::later::{Due, Later, Shelf};
use super::rule::Class;
use super::standing::{Standing, Standings};
use super::{
    Contact, ContactId, Hold, Input, Item, Notice, NoticeId, Object, Output, Routing, Rule, RuleId, Severity,
    Told, WaitFor, Waiting,
};

/// What was told within the hour before a digest is fresh in mind.
const DIGEST_AGE: Duration = Duration::from_secs(3_600);

/// What a contact's rules say of a notice.
enum Plan {
    Now,
    Later(Due, WaitFor, RuleId),
    Never(Hold),
}

#[derive(Debug, Default)]
pub struct Router {
    contacts: BTreeMap<ContactId, Contact>,
    rules: BTreeMap<ContactId, Vec<Rule>>,
    told: BTreeMap<(ContactId, Object), Told>,
    later: Shelf,
    standing: Standings,
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
            WaitFor::Silence(_) => Due::After(now.mono),
        };
        self.later.put(w.contact, Later { notice: w.notice, why: w.why, due, rule: w.rule }, now);
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
            Input::Wide(wide) => {
                self.groups.widen(wide);
                self.later.look_at(now.mono);
            }
            Input::Stands(standing) => self.stand(standing, now),
            Input::Forget(host) => self.forget(|_, of| of == host, Hold::HostRemoved),
            Input::Timeout => self.ripen(now),
        }
        self.send_due(now);
        self.digest(now);
    }

    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait(self.next()))
    }

    fn next(&self) -> Option<Mono> {
        let digest = self.digests.values().min().map(|at| Due::On(*at).look(self.now));
        let groups = self.groups.next().into_iter().map(|(id, due)| due.max(self.caps.free_at(id))).min();
        [self.later.next(), groups, digest].into_iter().flatten().min()
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
        for (contact, notice) in self.later.remove(&gone) {
            self.hold(Some(contact), notice.id, why);
        }
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
            Plan::Later(due, why, rule) => {
                let later = Later { notice: notice.clone(), why, due, rule: Some(rule) };
                self.defer(contact.id, later, now);
            }
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
                let (due, why) = (Due::On(opens), WaitFor::Period);
                self.defer(contact.id, Later { notice: notice.clone(), why, due, rule: None }, now);
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
            _ if self.groups.has(contact.id, &notice.object) || self.later.has(&place) => {
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
        let known = self.told.contains_key(&place) || self.later.has(&place);
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

    /// The earliest that one of the contact's rules allows, or that its incident is due.
    fn plan(&self, contact: &Contact, notice: &Notice, now: Now) -> Plan {
        let Some(least) = self.least(contact.id, notice) else { return Plan::Never(Hold::NoRule) };
        let waits = self.incident_waits(contact.id, notice, now);
        let known = self.told.contains_key(&(contact.id, notice.object.clone()))
            || waits.is_some_and(|l| l.due.has_come(now))
            || self.knows_incident(contact.id, notice);
        let plans = self.selecting(contact.id, notice).filter(|r| r.is_severe_enough(notice)).map(|rule| {
            let gone_by = now.wall.since(notice.at);
            let delay = if known { Duration::ZERO } else { rule.delay.saturating_sub(gone_by) };
            let after = now.wall + delay;
            let opens = rule.period.as_ref().map_or(after, |p| p.next(after, &contact.zone));
            (opens, delay, opens > after, rule.id)
        });
        let (opens, delay, closed, rule) = match plans.min() {
            None => return Plan::Never(Hold::BelowSeverity(least)),
            Some((_, Duration::ZERO, false, _)) => return Plan::Now,
            Some(plan) => plan,
        };
        match waits.filter(|l| !known && l.due.wall(now) < opens) {
            Some(first) => Plan::Later(first.due, first.why, first.rule.unwrap_or(rule)),
            None if closed => Plan::Later(Due::On(opens), WaitFor::Period, rule),
            None => Plan::Later(Due::After(now.mono + delay), WaitFor::Delay, rule),
        }
    }

    fn selecting(&self, contact: ContactId, notice: &Notice) -> impl Iterator<Item = &Rule> {
        self.rules.get(&contact).into_iter().flatten().filter(|r| r.selects(notice))
    }

    /// What an incident is told as, with all that was merged into it.
    fn incident(&self, of: Option<IncidentId>) -> Option<IncidentId> {
        of.map(|id| self.groups.whole(id))
    }

    /// What waits already of the notice's incident: it escalates as one.
    fn incident_waits(&self, contact: ContactId, notice: &Notice, now: Now) -> Option<&Later> {
        let incident = self.incident(notice.incident)?;
        self.later.of_incident(contact, incident, |n| self.incident(n.incident), now)
    }

    fn knows_incident(&self, contact: ContactId, notice: &Notice) -> bool {
        let Some(incident) = self.incident(notice.incident) else { return false };
        let mut told = self.told.iter().filter(|((id, _), _)| *id == contact);
        told.any(|(_, told)| self.incident(told.incident) == Some(incident))
    }

    /// Which rule tells of it now; `None`: it follows from what was told before.
    fn rule_of(&self, contact: &Contact, notice: &Notice, now: Now) -> Option<RuleId> {
        if matches!(Class::of(notice), Class::Recovery | Class::Acknowledged) {
            return None;
        }
        let opens = |r: &Rule| r.period.as_ref().map_or(now.wall, |p| p.next(now.wall, &contact.zone));
        let rules = self.selecting(contact.id, notice).filter(|r| r.is_severe_enough(notice));
        rules.min_by_key(|r| (opens(r), r.delay, r.id)).map(|r| r.id)
    }

    /// When the contact's rules for this host let something through, at `from` or later.
    fn opens(&self, contact: &Contact, notice: &Notice, from: Wall) -> Wall {
        let opens = self
            .selecting(contact.id, notice)
            .map(|r| r.period.as_ref().map_or(from, |p| p.next(from, &contact.zone)));
        opens.min().unwrap_or(from)
    }

    /// The mildest that the contact's rules for this host let through; `None`: there is no such rule.
    fn least(&self, contact: ContactId, notice: &Notice) -> Option<Severity> {
        self.selecting(contact, notice).map(|r| r.least).min()
    }

    fn is_selected(&self, contact: ContactId, notice: &Notice) -> bool {
        self.selecting(contact, notice).next().is_some()
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

    fn defer(&mut self, contact: ContactId, later: Later, now: Now) {
        let before = self.take_later(contact, &later.notice.object, Hold::Superseded(later.notice.id));
        // A delay runs from the problem's begin, not from its last change.
        let later = match before {
            Some(Later { why: why @ (WaitFor::Delay | WaitFor::Silence(_)), due, rule, .. })
                if later.why == WaitFor::Delay && due.wall(now) <= later.due.wall(now) =>
            {
                Later { why, due, rule, ..later }
            }
            _ => later,
        };
        self.keep(contact, later, now);
    }

    fn keep(&mut self, contact: ContactId, later: Later, now: Now) {
        let (notice, why, until) = (later.notice.clone(), later.why, later.due.wall(now));
        self.wait(Waiting { contact, notice, why, until, rule: later.rule });
        self.later.put(contact, later, now);
    }

    fn take_later(&mut self, contact: ContactId, object: &Object, why: Hold) -> Option<Later> {
        let taken = self.later.take(contact, object)?;
        self.hold(Some(contact), taken.notice.id, why);
        Some(taken)
    }

    fn group(&mut self, contact: &Contact, notice: Notice, now: Now) {
        let leaves = self.groups.add(contact, notice.clone(), now.mono);
        let (until, rule) = (now.wall + leaves.since(now.mono), self.rule_of(contact, &notice, now));
        self.wait(Waiting { contact: contact.id, notice, why: WaitFor::Group, until, rule });
    }

    fn wait(&mut self, waits: Waiting) {
        self.outputs.push_back(Output::Waits(waits));
    }

    fn hold(&mut self, contact: Option<ContactId>, notice: NoticeId, why: Hold) {
        self.outputs.push_back(Output::Held { contact, notice, why });
    }

    // ---------------------------------------------------------------------- time

    fn stand(&mut self, standing: BTreeMap<Object, Standing>, now: Now) {
        if standing != self.standing.0 {
            self.standing = Standings(standing);
            self.later.look_at(now.mono);
        }
    }

    /// What was later and is due now is told, if nothing stands against it.
    fn ripen(&mut self, now: Now) {
        let groups = &self.groups;
        let ripe = self.later.ripe(now, |n| n.incident.map(|id| groups.whole(id)));
        for (id, later) in ripe {
            let Some(contact) = self.contacts.get(&id).cloned() else { continue };
            match self.standing.of(&later.notice) {
                Some(Standing::Silent(why)) => self.silence(id, later, why, now),
                Some(Standing::Well) => self.hold(Some(id), later.notice.id, Hold::Over),
                None => self.tell(&contact, &later.notice, true, now),
            }
        }
    }

    /// It waits for the end of a silence; that it does is said once.
    fn silence(&mut self, contact: ContactId, later: Later, why: HeldReason, now: Now) {
        let why = WaitFor::Silence(why);
        if later.why == why {
            self.later.put(contact, later, now);
        } else {
            self.keep(contact, Later { why, due: Due::After(now.mono), ..later }, now);
        }
    }

    /// A group that is due, without what is silent.
    fn pop_group(&mut self, contact: ContactId, now: Now) -> Option<Vec<Notice>> {
        while let Some(notices) = self.groups.pop(contact, now.mono) {
            let parted = self.standing.part(notices);
            for (notice, by) in parted.overtaken {
                self.hold(Some(contact), notice, Hold::Superseded(by));
            }
            for (notice, why) in parted.stays {
                let rule = self.contacts.get(&contact).and_then(|c| self.rule_of(c, &notice, now));
                let later = Later { notice, why: WaitFor::Group, due: Due::After(now.mono), rule };
                self.silence(contact, later, why, now);
            }
            if !parted.leaves.is_empty() {
                return Some(parted.leaves);
            }
        }
        None
    }

    /// Group by group; or, to a contact that had too many messages, now and then all that is due in one.
    fn send_due(&mut self, now: Now) {
        let due: Vec<ContactId> =
            self.groups.next().into_iter().filter(|(_, at)| *at <= now.mono).map(|(id, _)| id).collect();
        for contact in due {
            let mut folding = self.caps.unfold(contact);
            while self.caps.free_at(contact) <= now.mono
                && let Some(mut notices) = self.pop_group(contact, now)
            {
                let mut folded = 1;
                while folding && let Some(more) = self.pop_group(contact, now) {
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
        let Some(of) = self.contacts.get(&contact).cloned() else { return };
        for notice in kept {
            let rule = self.rule_of(&of, &notice, now);
            self.wait(Waiting { contact, notice, why: WaitFor::Cap, until, rule });
        }
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
            let rule = self.contacts.get(&contact).and_then(|c| self.rule_of(c, &notice, now));
            items.push(Item { notice: notice.id, root, rule });
            let told = match Class::of(&notice) {
                Class::Problem | Class::Reminder => {
                    let (last, incident) = (notice.id, notice.incident);
                    Some(Told { root, last, at: now.wall, severity: notice.severity, incident })
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
