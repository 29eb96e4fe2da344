//! Results that somebody sends, and what it means that nobody does, by SEMANTICS 5.
//!
//! They go through the same machine as any other, each once: a repetition of one that was taken changes
//! nothing. Each carries its own time: one that is older than what is known is ignored. Silence longer than a service allows is UNKNOWN at once, except where
//! nothing could be expected: while its host is down, out of reach or asleep or we may be cut off, and
//! for one threshold after that, a restart or a suspend.
//!
//! A host has no UNKNOWN: a result of that kind means that it is down (SEMANTICS 1), and so does the
//! same finding by silence. Only where nobody can ask: otherwise a check decides, and what it cannot
//! tell is not current.

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;

use crate::time::{Mono, Now, Wall};
use crate::wire::{Check, HostStatus, Outcome, Repetition, SENT, Submission, is_of_others};

use super::host::Host;
use super::liveness::age;
use super::speech::surroundings;
use super::turn::Turn;
use super::vital::Own;

/// The route of a finding that nothing came.
pub const SILENCE: &str = "none";
/// Why a state changed without a result.
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
        // A check that is under way goes on; it will be the newer one.
        let run = std::mem::replace(&mut service.run, super::service::Run::Idle);
        self.record(i, result, SENT, (turn.now.mono, at), turn);
        self.services[i].run = run;
        Outcome::Done
    }

    /// When it, or one of its services, will have been silent for too long.
    pub(super) fn next_silence(&self, now: Now) -> Option<Mono> {
        if !self.expects_results() {
            return None;
        }
        let services = self.services.iter().filter_map(|service| service.silent_at(now));
        services.chain(self.silent_at()).min()
    }

    /// When nothing will have been heard of the host itself for too long; `None` where it is asked.
    fn silent_at(&self) -> Option<Mono> {
        let threshold = self.spec.freshness.filter(|_| !self.can_be_asked())?;
        Some(self.heard_at + threshold)
    }

    /// Its own comes first: a host that is down speaks for its services.
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

    /// There is no way to ask it, and somebody else sends its results.
    pub(super) fn is_only_told_of(&self) -> bool {
        !self.can_be_asked() && is_of_others(&self.source)
    }

    /// On a way that has been there.
    fn can_be_asked(&self) -> bool {
        let tunnel = self.paths.peer.is_some() || self.paths.inner.is_some();
        self.paths.direct.is_some() || tunnel && self.came
    }

    /// It is there again: what it could not send before it may send now.
    pub(super) fn end_excuse(&mut self, now: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(now));
        self.heard_at = self.heard_at.max(now);
    }

    /// Silence so far could not be helped.
    pub(super) fn excuse_silence(&mut self, from: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(from));
        self.heard_at = self.heard_at.max(from);
    }
}

/// A stored time in the future is of a clock that was wrong: it does not count.
fn is_older(newest: Option<Wall>, at: Wall, now: Now) -> bool {
    newest.is_some_and(|newest| newest <= now.wall && at < newest)
}

/// What is said of a service that nothing was heard of.
pub fn silence(threshold: std::time::Duration) -> PluginResult {
    PluginResult::unknown(no_result(threshold)).because(Cause::Overdue)
}

fn no_result(threshold: std::time::Duration) -> String {
    format!("no result for {}", age(threshold))
}

/// Whether silence of this service means something: one that is asked and waits for what it depends
/// on is not current, and that is all.
pub fn listens(check: &Check, waits: bool) -> bool {
    check.is_sent() || !waits
}
