//! Passive results, and their freshness (SEMANTICS 5).
//!
//! A passive result goes through the same state machine as any other, once: a repeated submission
//! changes nothing. Each carries its own time; one that is older than the current state is ignored.
//! A service whose results stop for longer than its threshold is UNKNOWN at once. The exception is
//! when no result could be expected: while its host is down, unreachable or asleep, or while the
//! gateway may be cut off. After that, a restart or a suspend, the service has one threshold of
//! time again.
//!
//! A host has no UNKNOWN: such a result means that it is down (SEMANTICS 1), and so do missing
//! results. This only applies to a host that cannot be checked. For any other, a check decides, and
//! the state is not current until it does.

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;

use crate::time::{Mono, Now, Wall};
use crate::wire::{Check, HostStatus, Outcome, Repetition, SENT, Submission, is_of_others};

use super::host::Host;
use super::liveness::age;
use super::speech::surroundings;
use super::turn::Turn;
use super::vital::Own;

/// The route of a result that records missing passive results.
pub const SILENCE: &str = "none";
/// The cause of a state change without a result.
pub const NOTHING_CAME: &str = "nothing came in time";

impl Host {
    pub fn submit(&mut self, sent: Submission, turn: &mut Turn<'_>) -> Outcome {
        let at = sent.at.min(turn.now.wall);
        let of = match sent.service.as_deref().map(|name| self.position(name)) {
            None => None,
            Some(Some(i)) => Some(i),
            Some(None) => return Outcome::Unknown,
        };
        let taken = of.map_or(&self.taken, |i| &self.services[i].taken);
        match (taken.of(&sent.identity), of) {
            (Repetition::Same, _) => Outcome::Repeated,
            (Repetition::KeyReused, _) => Outcome::KeyReused,
            (Repetition::New, None) => self.submit_own(sent, at, turn),
            (Repetition::New, Some(i)) => self.submit_to(i, sent, at, turn),
        }
    }

    fn submit_own(&mut self, sent: Submission, at: Wall, turn: &mut Turn<'_>) -> Outcome {
        let Submission { result, identity, .. } = sent;
        if is_older(self.last_check, at, turn.now) {
            return Outcome::Older;
        }
        self.taken.note(identity);
        self.take_own(Own { source: SENT, result, at, begun: turn.now.mono, missed: 0 }, turn.now.mono, turn);
        Outcome::Done
    }

    fn submit_to(&mut self, i: usize, sent: Submission, at: Wall, turn: &mut Turn<'_>) -> Outcome {
        let Submission { result, identity, .. } = sent;
        if is_older(self.services[i].last_check(), at, turn.now) {
            return Outcome::Older;
        }
        let service = &mut self.services[i];
        service.taken.note(identity);
        let result = service.judged(result);
        // A check in progress goes on; its result will be the newer one.
        let run = std::mem::replace(&mut service.run, super::service::Run::Idle);
        self.record(i, result, SENT, (turn.now.mono, at), turn);
        self.services[i].run = run;
        Outcome::Done
    }

    /// Returns when the results of the host or one of its services are overdue.
    pub(super) fn next_silence(&self, now: Now) -> Option<Mono> {
        if !self.expects_results() {
            return None;
        }
        let services = self.services.iter().filter_map(|service| service.silent_at(now));
        services.chain(self.silent_at()).min()
    }

    /// Returns when the host's own results are overdue; `None` if the host can be checked.
    fn silent_at(&self) -> Option<Mono> {
        let threshold = self.spec.freshness.filter(|_| !self.can_be_asked())?;
        Some(self.heard_at + threshold)
    }

    /// Records overdue results. The host comes first: if it is down, its services are not
    /// evaluated.
    pub(super) fn find_silence(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.next_silence(now).is_none_or(|at| at > now.mono) {
            return;
        }
        if turn.is_cut_off() {
            return self.excuse_silence(now.mono);
        }
        if self.silent_at().is_some_and(|at| at <= now.mono) {
            return self.found_silent(no_result(self.spec.freshness.unwrap_or_default()), turn);
        }
        for i in 0..self.services.len() {
            if self.services[i].silent_at(now).is_some_and(|at| at <= now.mono) {
                self.record_silence(i, turn);
            }
        }
    }

    fn record_silence(&mut self, i: usize, turn: &mut Turn<'_>) {
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.voice);
        let service = &mut self.services[i];
        service.expire(of, turn);
    }

    pub(super) fn expects_results(&self) -> bool {
        self.reach.reachable && !self.asleep && self.track.hard != HostStatus::Down
    }

    /// Whether it cannot be checked and only has passive results.
    pub(super) fn is_only_told_of(&self) -> bool {
        !self.can_be_asked() && is_of_others(&self.source)
    }

    /// Whether there is a path to it that has worked.
    fn can_be_asked(&self) -> bool {
        let tunnel = self.paths.peer.is_some() || self.paths.inner.is_some();
        self.paths.direct.is_some() || tunnel && self.came
    }

    /// Restarts freshness, because the host is up again and can submit results.
    pub(super) fn end_excuse(&mut self, now: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(now));
        self.heard_at = self.heard_at.max(now);
    }

    /// Restarts freshness: the missing results so far were not the submitter's fault.
    pub(super) fn excuse_silence(&mut self, from: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(from));
        self.heard_at = self.heard_at.max(from);
    }
}

/// Whether a result is older than the newest. A stored time in the future comes from a wrong clock
/// and does not count.
fn is_older(newest: Option<Wall>, at: Wall, now: Now) -> bool {
    newest.is_some_and(|newest| newest <= now.wall && at < newest)
}

/// Returns the result of a service whose passive results are overdue.
pub fn silence(threshold: std::time::Duration) -> PluginResult {
    PluginResult::unknown(no_result(threshold)).because(Cause::Overdue)
}

fn no_result(threshold: std::time::Duration) -> String {
    format!("no result for {}", age(threshold))
}

/// Whether missing results count for this service. An active check that waits for its dependency is
/// only marked as not current.
pub fn listens(check: &Check, waits: bool) -> bool {
    check.is_sent() || !waits
}
