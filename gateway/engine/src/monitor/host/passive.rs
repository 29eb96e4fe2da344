//! Passive results, and their freshness (SEMANTICS 5).
//!
//! A passive result goes through the same state machine as any other, once: a repeated submission
//! changes nothing. Each carries its own time; one that is older than the current state changes no
//! state, and only its metrics are recorded.
//! A service whose results stop for longer than its threshold is UNKNOWN at once. The exception is
//! when no result could be expected: while its host is down, unreachable or asleep, or while the
//! gateway may be cut off. After that, a restart or a suspend, the service has one threshold of
//! time again.
//!
//! A host has no UNKNOWN: such a result means that it is down (SEMANTICS 1), and so do missing
//! results. This only applies to a host that cannot be checked. For any other, a check decides, and
//! the state is not current until it does.

use fleetgate_probes::plugin::PluginResult;

use crate::messages::{HostStatus, Outcome, PassiveResult, Record, Repetition, SENT, Sample};
use crate::time::{Mono, Now, Wall};

use crate::monitor::context::Ctx;
use crate::monitor::host::Host;
use crate::monitor::host::freshness::{is_older, no_result};
use crate::monitor::host::last_result::HostResult;
use crate::monitor::notification::records::surroundings;
use crate::monitor::run::Run;

impl Host {
    pub fn submit(&mut self, sent: PassiveResult, ctx: &mut Ctx<'_>) -> Outcome {
        let at = sent.at.min(ctx.now.wall);
        let of = match sent.service.as_deref().map(|name| self.position(name)) {
            None => None,
            Some(Some(i)) => Some(i),
            Some(None) => return Outcome::Unknown,
        };
        let taken = of.map_or(&self.submitted.taken, |i| &self.services[i].taken);
        match (taken.of(&sent.identity), of) {
            (Repetition::Same, _) => Outcome::Repeated,
            (Repetition::KeyReused, _) => Outcome::KeyReused,
            (Repetition::New, None) => self.submit_own(sent, at, ctx),
            (Repetition::New, Some(i)) => self.submit_to(i, sent, at, ctx),
        }
    }

    fn submit_own(&mut self, sent: PassiveResult, at: Wall, ctx: &mut Ctx<'_>) -> Outcome {
        let PassiveResult { result, identity, .. } = sent;
        if is_older(self.result.at(), at, ctx.now) {
            return self.record_late(String::new(), result, at, ctx);
        }
        self.submitted.taken.note(identity);
        self.take_own(
            HostResult { source: SENT, result, at, begun: ctx.now.mono, missed: 0 },
            ctx.now.mono,
            ctx,
        );
        Outcome::Done
    }

    fn submit_to(&mut self, i: usize, sent: PassiveResult, at: Wall, ctx: &mut Ctx<'_>) -> Outcome {
        let PassiveResult { result, identity, .. } = sent;
        if is_older(self.services[i].last_check(), at, ctx.now) {
            let name = self.services[i].spec.name.clone();
            return self.record_late(name, result, at, ctx);
        }
        let service = &mut self.services[i];
        service.taken.note(identity);
        let result = service.judged(result, at);
        // A check in progress goes on; its result will be the newer one.
        let run = std::mem::replace(&mut service.run, Run::Idle);
        self.record(i, result, SENT, (ctx.now.mono, at), ctx);
        self.services[i].run = run;
        Outcome::Done
    }

    /// Records the metrics of a result that is older than the state. To record them again changes
    /// nothing, so such a result is not remembered.
    fn record_late(&self, service: String, late: PluginResult, at: Wall, ctx: &mut Ctx<'_>) -> Outcome {
        let sample = Sample { host: self.spec.id, service, at, metrics: late.metrics };
        if !sample.metrics.is_empty() {
            ctx.record(Record::Sample(sample));
        }
        Outcome::Older
    }

    /// Returns when the results of the host or one of its services are overdue.
    pub(in crate::monitor) fn next_silence(&self, now: Now) -> Option<Mono> {
        if !self.expects_results() {
            return None;
        }
        let services = self.services.iter().filter_map(|service| service.silent_at(now));
        services.chain(self.silent_at()).min()
    }

    /// Returns when the host's own results are overdue; `None` if the host can be checked.
    fn silent_at(&self) -> Option<Mono> {
        let threshold = self.spec.freshness.filter(|_| !self.can_be_asked())?;
        Some(self.submitted.overdue_at(threshold))
    }

    /// Records overdue results. The host comes first: if it is down, its services are not
    /// evaluated.
    pub(in crate::monitor) fn find_silence(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        if self.next_silence(now).is_none_or(|at| at > now.mono) {
            return;
        }
        if ctx.is_cut_off() {
            return self.excuse_silence(now.mono);
        }
        if self.silent_at().is_some_and(|at| at <= now.mono) {
            return self.found_silent(no_result(self.spec.freshness.unwrap_or_default()), ctx);
        }
        for i in 0..self.services.len() {
            if self.services[i].silent_at(now).is_some_and(|at| at <= now.mono) {
                self.record_silence(i, ctx);
            }
        }
    }

    fn record_silence(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.notifier);
        let service = &mut self.services[i];
        service.expire(of, ctx);
    }

    pub(in crate::monitor) fn expects_results(&self) -> bool {
        self.reach.is_reachable() && !self.asleep && self.track.hard != HostStatus::Down
    }

    /// Whether it cannot be checked and only has passive results.
    pub(in crate::monitor) fn is_passive_only(&self) -> bool {
        !self.can_be_asked() && self.result.is_passive()
    }

    /// Whether there is a path to it that has worked.
    fn can_be_asked(&self) -> bool {
        let tunnel = self.paths.peer.is_some() || self.paths.inner.is_some();
        self.paths.direct.is_some() || tunnel && self.tunnel.has_come()
    }

    /// Restarts freshness, because the host is up again and can submit results.
    pub(in crate::monitor) fn end_excuse(&mut self, now: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(now));
        self.submitted.excuse(now);
    }

    /// Restarts freshness: the missing results so far were not the submitter's fault.
    pub(in crate::monitor) fn excuse_silence(&mut self, from: Mono) {
        self.services.iter_mut().for_each(|service| service.excuse(from));
        self.submitted.excuse(from);
    }
}
