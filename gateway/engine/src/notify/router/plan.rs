//! Evaluates a contact's rules for a notice: whether it is sent, when, and by which rule. When the
//! rules have changed, it also re-evaluates the waiting notices.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::time::{Now, Wall};

use super::super::later::{Due, Later};
use super::super::rule::Class;
use super::super::{Contact, ContactId, Hold, Notice, Rule, RuleId, Severity, WaitFor};
use super::Router;

/// The decision of a contact's rules about a notice.
pub(super) enum Plan {
    Now,
    Later(Due, WaitFor, RuleId),
    Never(Hold),
}

impl Router {
    /// Plans a notice at the earliest time that one of the contact's rules allows, or when its
    /// incident is due.
    pub(super) fn plan(&self, contact: &Contact, notice: &Notice, now: Now) -> Plan {
        let first = notice.incident.and_then(|id| self.later.of_incident(contact.id, id, now));
        let knows_it = notice.incident.is_some_and(|id| self.known.has_incident(contact.id, id));
        let known = knows_it
            || self.known.has(contact.id, &notice.object)
            || first.is_some_and(|first| first.due.has_come(now));
        let gone_by = now.wall.since(notice.at);
        let rest = |rule: &Rule| if known { Duration::ZERO } else { rule.delay.saturating_sub(gone_by) };
        let plan = self.own_plan(contact, notice, rest, now);
        let Plan::Later(due, _, rule) = plan else { return plan };
        match first.filter(|first| !known && first.due.wall(now) < due.wall(now)) {
            Some(first) => Plan::Later(first.due, first.why, first.rule.unwrap_or(rule)),
            None => plan,
        }
    }

    /// Plans a notice by the rules alone. `rest`: the remaining delay of each rule.
    fn own_plan(
        &self,
        contact: &Contact,
        notice: &Notice,
        rest: impl Fn(&Rule) -> Duration,
        now: Now,
    ) -> Plan {
        let Some(least) = self.least(contact.id, notice) else { return Plan::Never(Hold::NoRule) };
        let plans = self.selecting(contact.id, notice).filter(|r| r.is_severe_enough(notice)).map(|rule| {
            let delay = rest(rule);
            let after = now.wall + delay;
            let opens = rule.opens(after, &contact.zone);
            (opens, delay, opens > after, rule.id)
        });
        match plans.min() {
            None => Plan::Never(Hold::BelowSeverity(least)),
            Some((_, Duration::ZERO, false, _)) => Plan::Now,
            Some((opens, _, true, rule)) => Plan::Later(Due::On(opens), WaitFor::Period, rule),
            Some((_, delay, false, rule)) => Plan::Later(Due::After(now.mono + delay), WaitFor::Delay, rule),
        }
    }

    /// Re-evaluates the waiting notices, because the rules have changed.
    pub(super) fn replan(&mut self, now: Now) {
        for (id, later) in self.later.drain() {
            let Some(contact) = self.contacts.get(&id) else {
                self.hold(Some(id), later.notice.id, Hold::ContactRemoved);
                continue;
            };
            match self.planned_anew(contact, &later, now) {
                Err(why) => self.hold(Some(id), later.notice.id, why),
                Ok((due, why, rule)) if (why, rule) == (later.why, later.rule) && due == later.due => {
                    self.later.put(id, later, now);
                }
                Ok((due, why, rule)) => self.keep(id, Later { due, why, rule, ..later }, now),
            }
        }
        self.regroup(now);
    }

    /// Re-evaluates grouped notices. A notice that waits for its group or for the message limit was
    /// due, so changed periods and delays do not hold it. It is dropped if no rule allows it any
    /// more, together with the notices that follow from it.
    fn regroup(&mut self, now: Now) {
        let mut fewer = BTreeSet::new();
        for place in self.groups.objects() {
            let Some(contact) = self.contacts.get(&place.0).cloned() else { continue };
            if self.groups.of(&place).all(|notice| self.refusal(&contact, notice, now).is_none()) {
                continue;
            }
            for notice in self.groups.take(&place) {
                self.group_again(&contact, &notice, now);
            }
            fewer.insert(contact.id);
        }
        self.unfold_nothing(fewer, now);
    }

    fn group_again(&mut self, contact: &Contact, notice: &Notice, now: Now) {
        match self.refusal(contact, notice, now) {
            Some(why) => self.hold(Some(contact.id), notice.id, why),
            None if self.is_pointless(contact, notice) => {
                self.hold(Some(contact.id), notice.id, Hold::NeverTold);
            }
            None => self.group(contact, notice.clone(), now),
        }
    }

    /// Returns why the rules suppress a notice, now and later. A recovery or acknowledgement
    /// follows from the notified problem and needs no rule.
    fn refusal(&self, contact: &Contact, notice: &Notice, now: Now) -> Option<Hold> {
        let known = self.known.has(contact.id, &notice.object);
        match Class::of(notice) {
            Class::Recovery | Class::Acknowledged => None,
            Class::Downtime => (!self.is_selected(contact.id, notice)).then_some(Hold::NoRule),
            Class::Reminder if known && !self.is_selected(contact.id, notice) => None,
            Class::Problem | Class::Reminder => {
                match self.own_plan(contact, notice, |_| Duration::ZERO, now) {
                    Plan::Never(why) => Some(why),
                    Plan::Now | Plan::Later(..) => None,
                }
            }
        }
    }

    /// Whether it ends or acknowledges a problem that the contact was not and will not be notified
    /// of.
    fn is_pointless(&self, contact: &Contact, notice: &Notice) -> bool {
        let place = (contact.id, notice.object.clone());
        let told = |n: &&Notice| matches!(Class::of(n), Class::Problem | Class::Recovery | Class::Reminder);
        let is_ill = match self.groups.of(&place).filter(told).last() {
            Some(last) => Class::of(last) != Class::Recovery,
            None => self.known.has(contact.id, &notice.object),
        };
        matches!(Class::of(notice), Class::Recovery | Class::Acknowledged) && !is_ill
    }

    /// Plans a waiting notice again. A running delay gets shorter with its rule, never longer: its
    /// start is no longer known, and it may be that of another problem of its incident. A notice
    /// that waits for the end of a suppression was already due.
    fn planned_anew(
        &self,
        contact: &Contact,
        later: &Later,
        now: Now,
    ) -> Result<(Due, WaitFor, Option<RuleId>), Hold> {
        let as_it_is = (later.due, later.why, later.rule);
        let notice = &later.notice;
        if Class::of(notice) == Class::Recovery {
            let by_period = (Due::On(self.opens(contact, notice, now.wall)), WaitFor::Period, None);
            return Ok(if later.why == WaitFor::Period { by_period } else { as_it_is });
        }
        let gone_by = now.wall.since(notice.at);
        let whole = |rule: &Rule| match later.why {
            WaitFor::Delay => rule.delay,
            _ => rule.delay.saturating_sub(gone_by),
        };
        let rest = |rule: &Rule| whole(rule).min(later.due.rest(now));
        match self.own_plan(contact, notice, rest, now) {
            Plan::Never(why) => Err(why),
            _ if matches!(later.why, WaitFor::Silence(_)) => Ok(as_it_is),
            // It came due while the gateway was away.
            Plan::Now if later.why == WaitFor::Period && matches!(later.due, Due::After(_)) => Ok(as_it_is),
            Plan::Now => Ok((Due::After(now.mono), later.why, later.rule)),
            Plan::Later(due, ..) if due.wall(now) == later.due.wall(now) => Ok(as_it_is),
            Plan::Later(due, why, rule) => Ok((due, why, Some(rule))),
        }
    }

    /// Returns until when the rules' time periods suppress a notice, and the rule that then sends
    /// it.
    pub(super) fn closed_until(
        &self,
        contact: &Contact,
        notice: &Notice,
        now: Now,
    ) -> Option<(Due, Option<RuleId>)> {
        if Class::of(notice) == Class::Recovery {
            let opens = self.opens(contact, notice, now.wall);
            return (opens > now.wall).then_some((Due::On(opens), None));
        }
        match self.own_plan(contact, notice, |_| Duration::ZERO, now) {
            Plan::Later(due, _, rule) => Some((due, Some(rule))),
            Plan::Now | Plan::Never(_) => None,
        }
    }

    pub(super) fn selecting(&self, contact: ContactId, notice: &Notice) -> impl Iterator<Item = &Rule> {
        self.rules.get(&contact).into_iter().flatten().filter(|r| r.selects(notice))
    }

    /// Returns the rule that sends a notice now; `None`: it follows from an earlier notification.
    pub(super) fn rule_of(&self, contact: &Contact, notice: &Notice, now: Now) -> Option<RuleId> {
        if matches!(Class::of(notice), Class::Recovery | Class::Acknowledged) {
            return None;
        }
        let rules = self.selecting(contact.id, notice).filter(|r| r.is_severe_enough(notice));
        rules.min_by_key(|r| (r.opens(now.wall, &contact.zone), r.delay, r.id)).map(|r| r.id)
    }

    /// Returns when a time period of the contact's rules for this host is open, at `from` or later.
    pub(super) fn opens(&self, contact: &Contact, notice: &Notice, from: Wall) -> Wall {
        let opens = self.selecting(contact.id, notice).map(|r| r.opens(from, &contact.zone));
        opens.min().unwrap_or(from)
    }

    /// Returns the lowest severity that the contact's rules for this host allow; `None`: there is
    /// no such rule.
    pub(super) fn least(&self, contact: ContactId, notice: &Notice) -> Option<Severity> {
        self.selecting(contact, notice).map(|r| r.least).min()
    }

    pub(super) fn is_selected(&self, contact: ContactId, notice: &Notice) -> bool {
        self.selecting(contact, notice).next().is_some()
    }
}
