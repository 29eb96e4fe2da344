//! The schedule of a host's own check, and the one in progress.
//!
//! At most one check is in progress; its probes are listed here. A request that arrives meanwhile
//! is kept for the next check. This module knows no states; the caller decides when a check is due
//! and what its result means.

use std::time::Duration;

use crate::messages::{DirectReply, HostState, ProbeId};
use crate::time::{Mono, Now, Wall};

use crate::monitor::host::alive::AliveCheck;
use crate::monitor::host::undecided::Undecided;
use crate::monitor::schedule::ahead;

#[derive(Debug, Default)]
pub struct OwnCheck {
    /// The time at which it is due.
    planned: Option<Mono>,
    /// A check is requested; only evidence newer than this satisfies it.
    newer_than: Option<Mono>,
    /// The planned check was caused by the failure of another host and needs no more than an echo.
    in_passing: bool,
    /// The time of the last check for another host.
    asked_in_passing: Option<Mono>,
    running: Option<Box<AliveCheck>>,
    /// The probes of the check in progress.
    probes: Vec<ProbeId>,
    /// The check in progress failed, and the gateway examines its own uplink.
    undecided: Option<Undecided>,
    /// The start of the last check.
    began: Option<Wall>,
    dialled: Option<Mono>,
    dial_failed: Option<Mono>,
    /// The result at the public address in the last check.
    direct: DirectReply,
}

impl OwnCheck {
    pub fn due_at(at: Mono) -> OwnCheck {
        OwnCheck { planned: Some(at), ..OwnCheck::default() }
    }

    pub fn restored(state: &HostState, now: Now) -> OwnCheck {
        OwnCheck {
            planned: ahead(state.next_check, now),
            began: state.asked_at,
            direct: state.direct,
            ..OwnCheck::default()
        }
    }

    pub fn plan(&mut self, at: Mono) {
        self.planned = Some(at);
    }

    /// Moves the plan to an earlier time.
    pub fn plan_at_latest(&mut self, at: Mono) {
        self.planned = Some(self.planned.map_or(at, |planned| planned.min(at)));
    }

    pub fn unplan(&mut self) {
        self.planned = None;
    }

    pub fn planned(&self) -> Option<Mono> {
        self.planned
    }

    pub fn is_due(&self, now: Mono) -> bool {
        self.planned.is_some_and(|at| at <= now)
    }

    /// Requires newer evidence for the next check, without a new plan.
    pub fn require(&mut self, newer_than: Mono) {
        self.newer_than = Some(newer_than);
    }

    /// Plans a check for now that needs evidence newer than this, if it is given.
    pub fn request(&mut self, newer_than: Option<Mono>, now: Mono) {
        (self.planned, self.newer_than) = (Some(now), newer_than);
    }

    /// Plans a check for now, because another host has failed.
    pub fn request_in_passing(&mut self, newer_than: Mono, now: Mono) {
        (self.in_passing, self.asked_in_passing) = (true, Some(now));
        self.request(Some(newer_than), now);
    }

    /// Returns the time after which evidence satisfies the request, if there is one.
    pub fn newer_than(&self) -> Option<Mono> {
        self.newer_than
    }

    pub fn is_requested(&self) -> bool {
        self.newer_than.is_some()
    }

    pub fn is_in_passing(&self) -> bool {
        self.in_passing
    }

    /// Whether it was not checked for another host within this time.
    pub fn is_rested(&self, rest: Duration, now: Mono) -> bool {
        self.asked_in_passing.is_none_or(|at| now.since(at) >= rest)
    }

    /// Begins a check, which serves the request and the plan.
    pub fn begin(&mut self, check: AliveCheck, now: Wall) {
        (self.newer_than, self.in_passing, self.planned) = (None, false, None);
        (self.began, self.running) = (Some(now), Some(Box::new(check)));
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn running(&self) -> Option<&AliveCheck> {
        self.running.as_deref()
    }

    pub fn running_mut(&mut self) -> Option<&mut AliveCheck> {
        self.running.as_deref_mut()
    }

    pub fn sent(&mut self, probe: ProbeId) {
        self.probes.push(probe);
    }

    pub fn replied(&mut self, probe: ProbeId) {
        self.probes.retain(|open| *open != probe);
    }

    /// Returns the probes in flight, which are to be cancelled.
    pub fn take_probes(&mut self) -> Vec<ProbeId> {
        std::mem::take(&mut self.probes)
    }

    /// Ends the check and returns it.
    pub fn finish(&mut self) -> Option<AliveCheck> {
        let check = *self.running.take()?;
        self.dialled = check.dialled.or(self.dialled);
        self.dial_failed = check.dial_failed.or(self.dial_failed);
        self.direct = check.direct;
        Some(check)
    }

    /// Ends the check without a result, because no probe is needed.
    pub fn skip(&mut self) {
        self.running = None;
    }

    /// Abandons the check, but keeps an operator's request for it. Its probes are left to be
    /// cancelled.
    pub fn abandon(&mut self) {
        let requested = self.running.take().and_then(|check| check.demanded_since());
        (self.undecided, self.newer_than) = (None, self.newer_than.or(requested));
    }

    pub fn leave_undecided(&mut self, text: String, now: Mono) {
        self.undecided = Some(Undecided::new(text, now));
    }

    pub fn is_undecided(&self) -> bool {
        self.undecided.is_some()
    }

    /// Returns the undecided check if its evidence is to be read now; `waits`: it must wait still.
    pub fn take_undecided(&mut self, waits: bool, now: Mono) -> Option<Undecided> {
        self.undecided.take_if(|found| found.looks_again(waits, now))
    }

    /// Returns when the check in progress goes on without a reply.
    pub fn wake_at(&self, now: Mono) -> Option<Mono> {
        let check = self.running.as_ref().and_then(|check| check.wake_at());
        check.into_iter().chain(self.undecided.as_ref().map(|found| found.wake_at(now))).min()
    }

    pub fn began(&self) -> Option<Wall> {
        self.began
    }

    pub fn direct(&self) -> DirectReply {
        self.direct
    }

    /// Whether the peer was not dialled within this time.
    pub fn may_dial(&self, rest: Duration, now: Mono) -> bool {
        self.dialled.is_none_or(|at| now.since(at) >= rest)
    }

    /// Whether a dial failed at that time or later.
    pub fn dial_failed_since(&self, begun: Option<Mono>) -> bool {
        self.dial_failed.is_some_and(|at| begun.is_some_and(|begun| at >= begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    #[test]
    fn a_check_for_another_host_is_a_request_that_is_not_repeated_soon() {
        let mut check = OwnCheck::due_at(at(500));
        assert!(!check.is_due(at(100)) && check.is_rested(Duration::from_secs(30), at(100)));
        check.request_in_passing(at(90), at(100));
        assert!(check.is_due(at(100)) && check.is_in_passing());
        assert_eq!(check.newer_than(), Some(at(90)));
        assert!(!check.is_rested(Duration::from_secs(30), at(129)));
        assert!(check.is_rested(Duration::from_secs(30), at(130)));
    }

    #[test]
    fn an_undecided_check_looks_every_second_and_at_once_when_it_is_decided() {
        let mut check = OwnCheck::default();
        check.leave_undecided("no reply".to_owned(), at(100));
        assert!(check.take_undecided(true, at(100)).is_none());
        assert_eq!(check.wake_at(at(100)), Some(at(100) + Duration::from_millis(250)));
        assert!(check.take_undecided(true, at(101)).is_some());
        check.leave_undecided("no reply".to_owned(), at(101));
        let found = check.take_undecided(false, at(101)).expect("it is decided");
        assert_eq!((found.into_text().as_str(), check.is_undecided()), ("no reply", false));
    }
}
