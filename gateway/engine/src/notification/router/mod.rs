//! The router turns notices into posts and suppressions. Call [`Router::handle`], then drain
//! [`Router::poll_output`] until `Wait`.
//!
//! A notice is *later* ([`crate::notification::deferred`]) while its rule's delay or time period applies, or a
//! suppression that began meanwhile ([`crate::notification::suppression`]). Then it is *grouped*
//! ([`crate::notification::groups`]), and then posted, unless the contact's message limit is reached
//! ([`crate::notification::rate_limit`]). `plan` evaluates the rules.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::calendar::timestamp;
use crate::messages::{MessageKind, SuppressReason};
use crate::time::{Mono, Now, Wall};

use super::{
    CheckableId, Contact, ContactId, Input, Item, NotSent, Notice, NoticeId, Notified, Output, Routing, Rule,
    WaitFor, Waiting,
};
use crate::notification::deferred::{Deferred, DeferredQueue, Due};
use crate::notification::groups::{Groups, LONGEST, shared_site};
use crate::notification::incident_roots::IncidentRoots;
use crate::notification::notified::NotifiedIndex;
use crate::notification::rate_limit::RateLimits;
use crate::notification::rule::Class;
use crate::notification::suppression::{Suppression, Suppressions};
use plan::Plan;

/// A digest leaves out problems that were notified within the hour before it.
const DIGEST_AGE: Duration = Duration::from_secs(3_600);
/// The longest time between two digests of a contact, even where a calendar leaves out a day. A
/// later plan dates from before the wall clock went back.
const DIGEST_AHEAD: Duration = Duration::from_secs(3 * 86_400);
/// After an absence of the gateway, due notices wait until hosts were checked again.
const AFTER_ABSENCE: Duration = LONGEST;

#[derive(Debug, Default)]
pub struct Router {
    contacts: BTreeMap<ContactId, Contact>,
    rules: BTreeMap<ContactId, Vec<Rule>>,
    known: NotifiedIndex,
    wide: IncidentRoots,
    later: DeferredQueue,
    standing: Suppressions,
    groups: Groups,
    caps: RateLimits,
    digests: BTreeMap<ContactId, Wall>,
    outputs: VecDeque<Output>,
    now: Now,
}

impl Router {
    /// Restores the router from the outputs that the store kept. A notice that waited for a group
    /// waits again. `posted`: the posts of the last hour, in order.
    pub fn restore(
        routing: Routing,
        told: Vec<(ContactId, CheckableId, Notified)>,
        mut waiting: Vec<Waiting>,
        posted: &[(ContactId, Wall)],
        now: Now,
    ) -> Router {
        let mut router = Router { now, ..Router::default() };
        router.known = NotifiedIndex::new(told);
        waiting.sort_by_key(|w| w.notice.id);
        router.set_routing(routing);
        for (contact, at) in posted {
            router.note_post(*contact, now.mono_at(*at));
        }
        for w in waiting {
            router.resume(w, now);
        }
        router.forget_removed_contacts();
        router.replan(now);
        router
    }

    fn resume(&mut self, w: Waiting, now: Now) {
        let Some(contact) = self.contacts.get(&w.contact) else {
            return self.hold(Some(w.contact), w.notice.id, NotSent::ContactRemoved);
        };
        // A clock that was set back must not make a delay longer than the rules set it.
        let longest = self.rules.get(&w.contact).into_iter().flatten().map(|r| r.delay).max();
        let delay = w.until.since(now.wall).min(longest.unwrap_or_default());
        let due = match w.why {
            WaitFor::Group | WaitFor::Cap => {
                if w.why == WaitFor::Cap {
                    self.caps.fold(w.contact);
                }
                self.groups.add(contact, w.notice, now.mono);
                return;
            }
            WaitFor::Delay | WaitFor::Period if w.until <= now.wall && w.notice.severity.is_some() => {
                Due::After(now.mono + AFTER_ABSENCE)
            }
            WaitFor::Delay => Due::After(now.mono + delay),
            WaitFor::Period => Due::On(w.until),
            WaitFor::Silence(_) => Due::After(now.mono),
        };
        self.later.put(w.contact, Deferred { notice: w.notice, why: w.why, due, rule: w.rule }, now);
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Notice(notice) => {
                self.notice(&notice, now);
                // A contact without grouping gets each notice by itself.
                self.send_due(now);
            }
            Input::Configure(routing) => {
                self.set_routing(routing);
                self.forget_removed_contacts();
                self.replan(now);
            }
            Input::Acknowledged(object) => self.drop_acknowledged(&object),
            Input::AcknowledgementEnded { contact, notice } => {
                self.acknowledgement_ended(contact, &notice, now)
            }
            Input::IncidentRoots(wide) => self.widen(IncidentRoots::new(wide), now),
            Input::Stands(standing) => self.stand(standing, now),
            Input::Forget(CheckableId { host, service: None }) => {
                self.forget(|_, of| of.host == host, NotSent::HostRemoved);
            }
            Input::Forget(service) => self.forget(|_, of| *of == service, NotSent::ServiceRemoved),
            Input::Over(object) => self.over(&object),
            Input::Timeout => {
                self.ripen(now);
                self.send_due(now);
                self.digest(now);
            }
        }
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
        self.caps.lift(|contact| self.contacts.get(&contact).is_none_or(|c| !c.capped));
    }

    fn forget_removed_contacts(&mut self) {
        let known: BTreeSet<ContactId> = self.contacts.keys().copied().collect();
        self.forget(|contact, _| !known.contains(&contact), NotSent::ContactRemoved);
    }

    fn forget(&mut self, gone: impl Fn(ContactId, &CheckableId) -> bool, why: NotSent) {
        let mut fewer = BTreeSet::new();
        for (contact, notice) in self.groups.remove(&gone) {
            self.hold(Some(contact), notice.id, why);
            fewer.insert(contact);
        }
        self.unfold_nothing(fewer, self.now);
        for (contact, notice) in self.later.remove(&gone) {
            self.hold(Some(contact), notice.id, why);
        }
        for (contact, object) in self.known.forget_all(&gone) {
            self.outputs.push_back(Output::Notified { contact, object, told: None });
        }
    }

    /// Forgets a notified problem that is over, for contacts that get no recovery for it and have
    /// no waiting notice.
    fn over(&mut self, object: &CheckableId) {
        let done = self.contacts.keys().copied().filter(|id| !self.waits_for(*id, object));
        let done: Vec<ContactId> = done.collect();
        for contact in done {
            if self.known.forget(contact, object) {
                self.outputs.push_back(Output::Notified { contact, object: object.clone(), told: None });
            }
        }
    }

    fn widen(&mut self, wide: IncidentRoots, now: Now) {
        if wide == self.wide {
            return;
        }
        self.groups.widen(&wide);
        self.known.widen(&wide);
        self.later.widen(&wide, now);
        self.wide = wide;
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
            let why = if contacts.is_empty() { NotSent::NoContact } else { NotSent::NoRule };
            self.hold(None, notice.id, why);
        }
    }

    /// Each of these functions returns whether the notice concerns the contact at all.
    fn problem(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        match self.plan(contact, notice, now) {
            Plan::Never(why) => {
                self.take_later(contact.id, &notice.object, NotSent::Superseded(notice.id));
                if why == NotSent::NoRule {
                    return false;
                }
                self.hold(Some(contact.id), notice.id, why);
            }
            Plan::Now => {
                let waited =
                    self.take_later(contact.id, &notice.object, NotSent::Superseded(notice.id)).is_some();
                self.tell(contact, notice, waited, now);
            }
            Plan::Deferred(..) if self.groups.tells(contact.id, &notice.object) => {
                self.group(contact, notice.clone(), now);
            }
            Plan::Deferred(due, why, rule) => {
                let later = Deferred { notice: notice.clone(), why, due, rule: Some(rule) };
                self.defer(contact.id, later, now);
            }
        }
        true
    }

    fn recovery(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        if self.groups.tells(contact.id, &notice.object) {
            self.group(contact, notice.clone(), now);
        } else if self.known.has(contact.id, &notice.object) {
            let opens = self.opens(contact, notice, now.wall);
            if opens <= now.wall {
                self.take_later(contact.id, &notice.object, NotSent::Superseded(notice.id));
                self.group(contact, notice.clone(), now);
            } else {
                let (due, why) = (Due::On(opens), WaitFor::Period);
                self.defer(contact.id, Deferred { notice: notice.clone(), why, due, rule: None }, now);
            }
        } else {
            let waited =
                self.take_later(contact.id, &notice.object, NotSent::OverBefore(notice.id)).is_some();
            if !waited && !self.is_selected(contact.id, notice) {
                return false;
            }
            self.hold(Some(contact.id), notice.id, NotSent::NeverTold);
        }
        true
    }

    /// A reminder also goes to a contact that should have been notified by the rules and was not.
    fn reminder(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        let known = self.known.has(contact.id, &notice.object);
        match self.least(contact.id, notice) {
            Some(least) if known && notice.severity.is_some_and(|s| s < least) => {
                self.hold(Some(contact.id), notice.id, NotSent::BelowSeverity(least));
            }
            _ if known => self.tell_if_open(contact, notice, now),
            _ if self.waits_for(contact.id, &notice.object) => {
                self.hold(Some(contact.id), notice.id, NotSent::NeverTold);
            }
            _ => return self.problem(contact, notice, now),
        }
        true
    }

    fn acknowledged(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        if self.known.has(contact.id, &notice.object) || self.groups.tells(contact.id, &notice.object) {
            self.tell_if_open(contact, notice, now);
        } else if self.take_later(contact.id, &notice.object, NotSent::Acknowledged).is_some()
            || self.is_selected(contact.id, notice)
        {
            self.hold(Some(contact.id), notice.id, NotSent::NeverTold);
        } else {
            return false;
        }
        true
    }

    /// Drops waiting notices for contacts that were not notified yet, because the problem is
    /// acknowledged.
    fn drop_acknowledged(&mut self, object: &CheckableId) {
        let contacts: Vec<ContactId> = self.contacts.keys().copied().collect();
        for contact in contacts {
            if !self.known.has(contact, object) {
                self.take_later(contact, object, NotSent::Acknowledged);
            }
        }
    }

    /// Plans a notice again, because the acknowledgement that had stopped it ended.
    fn acknowledgement_ended(&mut self, contact: ContactId, notice: &Notice, now: Now) {
        let known = self.known.has(contact, &notice.object) || self.waits_for(contact, &notice.object);
        let Some(contact) = self.contacts.get(&contact).cloned().filter(|_| !known) else { return };
        self.problem(&contact, notice, now);
    }

    fn waits_for(&self, contact: ContactId, object: &CheckableId) -> bool {
        self.groups.tells(contact, object) || self.later.has(contact, object)
    }

    fn downtime(&mut self, contact: &Contact, notice: &Notice, now: Now) -> bool {
        if !self.is_selected(contact.id, notice) {
            return false;
        }
        let at_once = |r: &Rule| r.selects(notice) && r.delay.is_zero();
        if self.rules.get(&contact.id).into_iter().flatten().any(at_once) {
            self.tell_if_open(contact, notice, now);
        } else {
            self.hold(Some(contact.id), notice.id, NotSent::NeverTold);
        }
        true
    }

    // ------------------------------------------------------------------- sending

    /// `waited`: another state was between this one and the last notified one.
    fn tell(&mut self, contact: &Contact, notice: &Notice, waited: bool, now: Now) {
        let told = self.known.of(contact.id, &notice.object).filter(|_| waited);
        if told.is_some_and(|told| told.says_as_much_as(notice)) {
            self.hold(Some(contact.id), notice.id, NotSent::AlreadyTold);
        } else {
            self.group(contact, notice.clone(), now);
        }
    }

    fn tell_if_open(&mut self, contact: &Contact, notice: &Notice, now: Now) {
        if self.opens(contact, notice, now.wall) <= now.wall {
            self.group(contact, notice.clone(), now);
        } else {
            self.hold(Some(contact.id), notice.id, NotSent::OutsidePeriod);
        }
    }

    fn defer(&mut self, contact: ContactId, later: Deferred, now: Now) {
        let before = self.take_later(contact, &later.notice.object, NotSent::Superseded(later.notice.id));
        // A delay runs from the start of the problem, not from its last change.
        let later = match before {
            Some(Deferred { why: why @ (WaitFor::Delay | WaitFor::Silence(_)), due, rule, .. })
                if later.why == WaitFor::Delay && due.wall(now) <= later.due.wall(now) =>
            {
                Deferred { why, due, rule, ..later }
            }
            _ => later,
        };
        self.keep(contact, later, now);
    }

    fn keep(&mut self, contact: ContactId, later: Deferred, now: Now) {
        let (notice, why, until) = (later.notice.clone(), later.why, later.due.wall(now));
        self.wait(Waiting { contact, notice, why, until, rule: later.rule });
        self.later.put(contact, later, now);
    }

    fn take_later(&mut self, contact: ContactId, object: &CheckableId, why: NotSent) -> Option<Deferred> {
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

    fn hold(&mut self, contact: Option<ContactId>, notice: NoticeId, why: NotSent) {
        self.outputs.push_back(Output::Suppressed { contact, notice, why });
    }

    // ---------------------------------------------------------------------- time

    fn stand(&mut self, standing: BTreeMap<CheckableId, Suppression>, now: Now) {
        if standing != self.standing.0 {
            self.standing = Suppressions(standing);
            self.later.look_at(now.mono);
        }
    }

    /// Sends the waiting notices that are due, if they are not suppressed.
    fn ripen(&mut self, now: Now) {
        for (id, later) in self.later.due(now) {
            let Some(contact) = self.contacts.get(&id).cloned() else { continue };
            match self.standing.of(&later.notice) {
                Some(Suppression::Silent(why)) => self.silence(id, later, why, now),
                Some(Suppression::Well) => self.hold(Some(id), later.notice.id, NotSent::Over),
                None => self.tell_in_time(&contact, later, now),
            }
        }
    }

    /// Sends a due notice. A suppression may end outside of the rules' time periods; the notice
    /// then waits for one.
    fn tell_in_time(&mut self, contact: &Contact, later: Deferred, now: Now) {
        let closed = match later.why {
            WaitFor::Silence(_) => self.closed_until(contact, &later.notice, now),
            _ => None,
        };
        match closed {
            Some((due, rule)) => {
                self.keep(contact.id, Deferred { why: WaitFor::Period, due, rule, ..later }, now);
            }
            None => self.tell(contact, &later.notice, true, now),
        }
    }

    /// Lets a notice wait for the end of a suppression; that is output once.
    fn silence(&mut self, contact: ContactId, later: Deferred, why: SuppressReason, now: Now) {
        let why = WaitFor::Silence(why);
        if later.why == why {
            self.later.put(contact, later, now);
        } else {
            self.keep(contact, Deferred { why, due: Due::After(now.mono), ..later }, now);
        }
    }

    /// Takes a group that is due, without its suppressed notices.
    fn pop_group(&mut self, contact: ContactId, now: Now) -> Option<Vec<Notice>> {
        while let Some(notices) = self.groups.pop(contact, now.mono) {
            let parted = self.standing.part(notices);
            for (notice, by) in parted.overtaken {
                self.hold(Some(contact), notice, NotSent::Superseded(by));
            }
            for (notice, standing) in parted.untimely {
                self.hold(Some(contact), notice, NotSent::by(standing));
            }
            for (notice, why) in parted.stays {
                let rule = self.contacts.get(&contact).and_then(|c| self.rule_of(c, &notice, now));
                let later = Deferred { notice, why: WaitFor::Group, due: Due::After(now.mono), rule };
                self.silence(contact, later, why, now);
            }
            if !parted.leaves.is_empty() {
                return Some(parted.leaves);
            }
        }
        None
    }

    /// Sends the due groups one by one. Once a contact reached its limit, sends all its due groups
    /// in one message now and then.
    fn send_due(&mut self, now: Now) {
        let due: Vec<ContactId> =
            self.groups.next().into_iter().filter(|(_, at)| *at <= now.mono).map(|(id, _)| id).collect();
        for contact in due {
            let mut folding = self.caps.free_at(contact) <= now.mono && self.caps.unfold(contact);
            while self.caps.free_at(contact) <= now.mono
                && let Some(mut notices) = self.pop_group(contact, now)
            {
                let mut folded = usize::from(folding);
                while folding && let Some(more) = self.pop_group(contact, now) {
                    folded += 1;
                    notices.extend(more);
                }
                folding = false;
                notices.sort_by_key(|n| n.id);
                let each = if self.wants_no_groups(contact) { 1 } else { notices.len() };
                for notices in notices.chunks(each) {
                    self.post(contact, folded, notices.to_vec(), now);
                }
            }
            self.keep_back(contact, now);
        }
    }

    /// Whether each notice is a message of its own, for a program that reads one at a time.
    fn wants_no_groups(&self, contact: ContactId) -> bool {
        self.contacts.get(&contact).is_some_and(|c| c.group_wait.is_zero() && !c.capped)
    }

    /// Reports the due notices that the contact's message limit suppresses for now.
    fn keep_back(&mut self, contact: ContactId, now: Now) {
        let kept = self.groups.overdue(contact, now.mono);
        let Some(of) = self.contacts.get(&contact).cloned().filter(|_| !kept.is_empty()) else { return };
        self.caps.fold(contact);
        let until = now.wall + self.caps.free_at(contact).since(now.mono);
        for notice in kept {
            let rule = self.rule_of(&of, &notice, now);
            self.wait(Waiting { contact, notice, why: WaitFor::Cap, until, rule });
        }
    }

    /// Unmarks contacts without suppressed messages, so that the next message is not counted as
    /// folded.
    fn unfold_nothing(&mut self, contacts: BTreeSet<ContactId>, now: Now) {
        let next = self.groups.next();
        for contact in contacts.into_iter().filter(|id| next.get(id).is_none_or(|due| *due > now.mono)) {
            self.caps.unfold(contact);
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
            let root = self.known.of(contact, &notice.object).map_or(notice.id, |t| t.root);
            let rule = self.contacts.get(&contact).and_then(|c| self.rule_of(c, &notice, now));
            items.push(Item { notice: notice.id, root, rule });
            let told = match Class::of(&notice) {
                Class::Problem | Class::Reminder => {
                    let (last, severity, incident) = (notice.id, notice.severity, notice.incident);
                    let flapping = notice.kind == MessageKind::FlappingStart;
                    Some(Notified { root, last, at: now.wall, severity, flapping, incident })
                }
                Class::Recovery => None,
                Class::Acknowledged | Class::Downtime => continue,
            };
            match told {
                Some(told) => self.known.put(contact, notice.object.clone(), told),
                None => {
                    self.known.forget(contact, &notice.object);
                }
            }
            self.outputs.push_back(Output::Notified { contact, object: notice.object, told });
        }
        self.note_post(contact, now.mono);
        self.outputs.push_back(Output::Post { contact, site, folded, items });
    }

    /// Returns the open problems that a contact was notified of a while ago, without a recovery on
    /// its way.
    fn still_so(&self, contact: ContactId, now: Now) -> Vec<NoticeId> {
        let ended = self.groups.ended(contact);
        let is_so = |object: &CheckableId| !ended.contains(object) && !self.later.ends(contact, object);
        let old = |told: &Notified| now.wall.since(told.at) >= DIGEST_AGE;
        let known = self.known.of_contact(contact).filter(|(object, told)| old(told) && is_so(object));
        known.map(|(_, told)| told.last).collect()
    }

    fn digest(&mut self, now: Now) {
        for (id, at) in &mut self.digests {
            let stale = at.since(now.wall) > DIGEST_AHEAD;
            let anew = self.contacts.get(id).filter(|_| stale).and_then(|c| next_digest(c, now.wall));
            *at = anew.unwrap_or(*at);
        }
        let due: Vec<ContactId> =
            self.digests.iter().filter(|(_, at)| **at <= now.wall).map(|(id, _)| *id).collect();
        for id in due {
            let items = self.still_so(id, now);
            self.outputs.push_back(Output::Digest { contact: id, items });
            let next = self.contacts.get(&id).and_then(|c| next_digest(c, now.wall));
            match next {
                Some(at) => drop(self.digests.insert(id, at)),
                None => drop(self.digests.remove(&id)),
            }
        }
    }
}

/// Returns the first time of a contact's digest after `last`.
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
