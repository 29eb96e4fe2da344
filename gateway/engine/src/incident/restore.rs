//! Restores the incidents that an earlier run of the gateway left open.
//!
//! It records nothing but the end of an acknowledgement that came too late. It knows no store.

use std::collections::BTreeMap;

use crate::messages::{
    AckEnd, CauseKind, CheckableId, IncidentChange, IncidentScope, IncidentSnapshot, MemberSnapshot,
};
use crate::time::Now;

use super::{AckToApply, Incident, Incidents, Member};

impl Incidents {
    /// Restores the incidents that an earlier run left open. The caller does this before anything
    /// else.
    pub fn restore(&mut self, memories: Vec<IncidentSnapshot>, now: Now) {
        for memory in memories {
            self.owe_covers(&memory, now);
            let member =
                |m: MemberSnapshot| (m.object, Member { began: m.began, status: None, left: m.left });
            let members: BTreeMap<CheckableId, Member> = memory.members.into_iter().map(member).collect();
            for (object, member) in &members {
                if member.has_problem() {
                    self.alike.problem(object, member.began);
                }
                // A checkable that has left this incident may belong to another now.
                if member.has_problem() || !self.places.contains_key(object) {
                    self.places.insert(object.clone(), memory.id);
                }
            }
            let problem = members.values().filter(|m| m.has_problem()).count();
            let (opened, matter) = (memory.opened, memory.matter);
            let (ack, late) = if problem > 0 { (memory.ack, None) } else { (None, memory.ack) };
            if late.is_some() {
                // The acknowledgement was stored, but every member had recovered before the earlier
                // run could apply it.
                self.record(memory.id, now.wall, IncidentChange::AckEnded(AckEnd::Late));
            }
            let since = members.values().filter_map(|m| m.left).max().unwrap_or(now.wall);
            let quiet = (problem == 0).then(|| Now { mono: now.mono_at(since), wall: since });
            self.quiet.extend(quiet.map(|since| (since.mono, memory.id)));
            if let (CauseKind::SiteLost, Some(site)) = (matter.cause, &matter.site) {
                // The store passes the newest incident first.
                self.lost.entry(site.clone()).or_insert(memory.id);
            }
            if matter.extent == IncidentScope::Fleet {
                let of_hosts = matter.cause == CauseKind::HostDown;
                let problem =
                    members.iter().filter(|(o, m)| m.has_problem() && o.service.is_none() == of_hosts);
                self.alike.recall(memory.id, problem.map(|(object, _)| object));
            }
            let newest = members.values().map(|m| m.began).max().unwrap_or(opened);
            self.watch_expiry(memory.id, ack.as_ref(), now);
            self.open.insert(memory.id, Incident { opened, matter, members, newest, problem, quiet, ack });
            self.newest = self.newest.max(Some(memory.id));
        }
    }

    /// Queues the members that an acknowledgement did not reach before the earlier run ended.
    fn owe_covers(&mut self, memory: &IncidentSnapshot, now: Now) {
        let Some(ack) = memory.ack.as_ref().filter(|ack| ack.holds(now.wall)) else { return };
        let uncovered = memory.members.iter().filter(|m| m.left.is_none() && !m.covered);
        self.covers.extend(uncovered.map(|m| AckToApply { object: m.object.clone(), ack: ack.clone() }));
    }
}
