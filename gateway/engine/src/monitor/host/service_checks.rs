//! The checks of a host's services: their probes, the replies, and whether a result counts.
//!
//! All checks over SSH that are due together share one session. When a check fails, its dependency
//! decides. If the state of that is not known, it is checked. If the dependency is not ok, the
//! failure is dropped and the service is marked as not current, without a notification.

use std::net::IpAddr;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;

use crate::messages::{Check, ConnectFailure, HostStatus, PathCheck, Probe, ProbeReply, Route};
use crate::time::{Mono, Wall};

use crate::monitor::context::{Ctx, ProbeOwner};
use crate::monitor::dependency;
use crate::monitor::dependency::DependsOn;
use crate::monitor::host::Host;
use crate::monitor::host::path_check;
use crate::monitor::host::path_check::{OTHER_TIMEOUT, PathQuestion, PathStep};
use crate::monitor::interpret;
use crate::monitor::interpret::{Finding, Meaning, nor_at};
use crate::monitor::notification::records::surroundings;
use crate::monitor::paths::Via;
use crate::monitor::run::{PendingFailure, Run, Unanswered};
use crate::monitor::service::Service;
use crate::monitor::state::Level;
use crate::monitor::thresholds::Evaluated;

/// The state of the dependency of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DependencyState {
    /// It was ok at the time of the failure or after it.
    Holds,
    Fails,
    /// Its check is in progress.
    Open,
    /// Its last result is older than the failure.
    Old,
}

impl Host {
    /// Starts the services that are due; those over SSH share one session.
    pub(in crate::monitor) fn start_services(&mut self, ctx: &mut Ctx<'_>) {
        let due: Vec<usize> =
            (0..self.services.len()).filter(|i| self.services[*i].is_due(ctx.now.mono)).collect();
        let (riders, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|i| self.services[*i].rides());
        for i in others {
            self.start_service(i, ctx);
        }
        if !riders.is_empty() && !self.sessions.is_open() {
            self.start_session(riders, ctx);
        }
    }

    /// Starts a service that a failure depends on; one over SSH gets its own session.
    fn start_demanded(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        match self.services[i].rides() {
            true if !self.sessions.is_open() => self.start_session(vec![i], ctx),
            true => {}
            false => self.start_service(i, ctx),
        }
    }

    fn start_service(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        self.services[i].begin(ctx.now.mono);
        let spec = &self.services[i].spec;
        ctx.started(self.services[i].planned);
        if let Some(why) = self.paths.refusal(&spec.check) {
            return self.refuse(i, why, ctx);
        }
        let Some(probe) = self.first_question(&spec.check) else {
            return self.discard(i, ctx);
        };
        self.services[i].asked = probe.inner_address();
        self.ask(i, probe, ctx);
    }

    /// Records why a check can never run, regardless of its dependency.
    pub(in crate::monitor) fn refuse(&mut self, i: usize, why: &str, ctx: &mut Ctx<'_>) {
        self.services[i].begin(ctx.now.mono);
        self.record_now(
            i,
            PluginResult::unknown(why).because(Cause::NotTried).into(),
            Via::Direct,
            ctx.now.mono,
            ctx,
        );
    }

    fn first_question(&self, check: &Check) -> Option<Probe> {
        Some(match *check {
            Check::Tunnel => Probe::Evidence { peer: self.paths.peer? },
            Check::Ping { count } => {
                let (peer, address) = self.paths.inner?;
                Probe::Echo { peer, address, count }
            }
            Check::Tcp { port } => Probe::Connect { route: self.paths.route(self.paths.tcp()?)?, port },
            Check::Ssh
            | Check::Sensor(_)
            | Check::Command { .. }
            | Check::Passive
            | Check::Heartbeat(_)
            | Check::Rental => {
                return None;
            }
        })
    }

    pub(in crate::monitor) fn ask(&mut self, i: usize, probe: Probe, ctx: &mut Ctx<'_>) {
        let timeout = self.services[i].spec.timing.timeout;
        let id = ctx.ask(self.spec.id, ProbeOwner::Service(i), probe, timeout);
        self.services[i].run = Run::Asked(id);
    }

    pub(in crate::monitor) fn answer_service(&mut self, i: usize, answer: ProbeReply, ctx: &mut Ctx<'_>) {
        let other = self.paths.other_than(self.services[i].asked);
        let first = match &self.services[i].run {
            Run::AskedOther(_, first) => Some(first.clone()),
            _ => None,
        };
        if let Run::AskedPath(_, unanswered) = &self.services[i].run {
            let unanswered = unanswered.clone();
            self.weigh_path_of(i, *unanswered, &answer, ctx);
            return self.settle_held(ctx);
        }
        match (first, other) {
            (None, Some(other)) if interpret::is_unanswered(&answer) => {
                self.probe_other(i, other, answer, ctx)
            }
            (Some(_), Some(other)) if interpret::is_answered(&answer) => {
                self.services[i].asked = Some(other);
                self.prefer(other, ctx);
                self.read_answer(i, answer, None, ctx);
            }
            (Some(first), _) => self.read_answer(i, *first, other, ctx),
            (None, _) => self.read_answer(i, answer, None, ctx),
        }
        self.settle_held(ctx);
    }

    /// Sends the same probe to the inner address of the other family.
    fn probe_other(&mut self, i: usize, other: IpAddr, first: ProbeReply, ctx: &mut Ctx<'_>) {
        let spec = &self.services[i].spec;
        let probe = match (self.paths.peer, &spec.check) {
            (Some(peer), Check::Ping { count }) => Probe::Echo { peer, address: other, count: *count },
            (Some(peer), Check::Tcp { port }) => {
                Probe::Connect { route: Route::Tunnel { peer, address: other }, port: *port }
            }
            _ => return self.read_answer(i, first, None, ctx),
        };
        let timeout = spec.timing.timeout.min(OTHER_TIMEOUT);
        let id = ctx.ask(self.spec.id, ProbeOwner::Service(i), probe, timeout);
        self.services[i].run = Run::AskedOther(id, Box::new(first));
    }

    /// `silent`: the other inner address, if that was silent, too.
    fn read_answer(&mut self, i: usize, answer: ProbeReply, silent: Option<IpAddr>, ctx: &mut Ctx<'_>) {
        let timeout = self.services[i].spec.timing.timeout;
        if let Some(path) =
            self.path_of(i).filter(|_| answer == ProbeReply::Connect(Err(ConnectFailure::Timeout)))
        {
            return self.probe_path_of(i, Unanswered { answer, silent, path }, ctx);
        }
        match (&self.services[i].spec.check, answer) {
            (Check::Tunnel, answer) => self.answer_tunnel(i, answer, ctx),
            (Check::Ping { .. }, ProbeReply::Echo(echo)) => {
                self.conclude(i, nor_at(interpret::ping(&echo), silent), Via::Tunnel, ctx);
            }
            (Check::Tcp { port }, ProbeReply::Connect(outcome)) => {
                let meaning = nor_at(interpret::connect(*port, &outcome, timeout), silent);
                self.services[i].note_path(PathCheck::NotAsked);
                self.conclude(i, meaning, self.paths.tcp().unwrap_or(Via::Direct), ctx);
            }
            _ => self.discard(i, ctx),
        }
    }

    /// Returns the path of its probe, if that went through the tunnel.
    fn path_of(&self, i: usize) -> Option<PathQuestion> {
        Some(PathQuestion::new(self.paths.peer?, self.services[i].asked?))
    }

    /// Starts a path check, because a lost packet looks like a service that hangs.
    fn probe_path_of(&mut self, i: usize, unanswered: Unanswered, ctx: &mut Ctx<'_>) {
        let timeout = self.services[i].spec.timing.timeout.min(path_check::TIMEOUT);
        let id = ctx.ask(self.spec.id, ProbeOwner::Service(i), unanswered.path.probe(), timeout);
        self.services[i].run = Run::AskedPath(id, Box::new(unanswered));
    }

    fn weigh_path_of(&mut self, i: usize, unanswered: Unanswered, answer: &ProbeReply, ctx: &mut Ctx<'_>) {
        let Unanswered { answer: first, silent, path } = unanswered;
        let spec = &self.services[i].spec;
        match (path.take(answer), &spec.check, first) {
            (PathStep::ProbeRequest(path), _, answer) => {
                self.probe_path_of(i, Unanswered { answer, silent, path }, ctx);
            }
            (PathStep::Known(path), Check::Tcp { port }, ProbeReply::Connect(outcome)) => {
                let meaning = nor_at(interpret::connect(*port, &outcome, spec.timing.timeout), silent);
                self.services[i].note_path(path);
                self.conclude(i, meaning, Via::Tunnel, ctx);
            }
            (PathStep::Known(_), ..) => self.discard(i, ctx),
        }
    }

    pub(in crate::monitor) fn conclude(&mut self, i: usize, meaning: Meaning, way: Via, ctx: &mut Ctx<'_>) {
        match meaning {
            Some(finding) => self.conclude_at(i, finding, way, ctx.now.mono, ctx),
            None => self.discard(i, ctx),
        }
    }

    /// `at`: the time of the finding.
    pub(in crate::monitor) fn conclude_at(
        &mut self,
        i: usize,
        finding: Finding,
        way: Via,
        at: Mono,
        ctx: &mut Ctx<'_>,
    ) {
        let service = &mut self.services[i];
        service.newer_than = None;
        let result = service.judged(finding.result, ctx.now.wall);
        // A reply above a threshold is still a reply, so the dependency is ok.
        if !Some(result.own).is_problem() {
            return self.record_now(i, result, way, at, ctx);
        }
        if finding.silence && ctx.in_grace(self.spec.timing.interval) {
            return self.discard(i, ctx);
        }
        if way == Via::Tunnel && self.was_answered_there(i, result.result.cause) {
            return self.record_now(i, result, way, at, ctx);
        }
        let checks: Vec<&Check> = self.services.iter().map(|s| &s.spec.check).collect();
        let on = dependency::nearest(&self.services[i].spec.check, way, &checks);
        self.judge(i, PendingFailure { result, way, failed_at: at, on, asked: false }, ctx);
    }

    /// Whether the host sent something back through its tunnel in this failure, which proves that
    /// the dependency was ok.
    fn was_answered_there(&self, i: usize, cause: Cause) -> bool {
        let service = &self.services[i];
        match service.spec.check {
            Check::Ping { .. } => cause.is_answer(),
            Check::Tcp { .. } | Check::Ssh => service.path.is_answered(),
            _ => false,
        }
    }

    /// Counts a failure if its dependency was ok when it was found, or is ok now.
    fn judge(&mut self, i: usize, mut held: PendingFailure, ctx: &mut Ctx<'_>) {
        match self.standing(held.on, held.failed_at) {
            DependencyState::Holds => {
                self.record_now(i, held.result, held.way, held.failed_at, ctx);
            }
            DependencyState::Fails => self.discard(i, ctx),
            DependencyState::Old if held.asked => self.discard(i, ctx),
            DependencyState::Open => {
                // A failure together with that of its dependency is treated like it.
                held.asked |= self.is_held(held.on);
                self.services[i].run = Run::PendingFailure(Box::new(held));
            }
            DependencyState::Old => {
                held.asked = true;
                let (on, since) = (held.on, held.failed_at);
                self.services[i].run = Run::PendingFailure(Box::new(held));
                self.demand(on, since, ctx);
            }
        }
    }

    fn standing(&self, on: DependsOn, failed_at: Mono) -> DependencyState {
        let (open, fails, good_at) = match on {
            DependsOn::Host => {
                let fails = self.asleep || self.track.status == HostStatus::Down;
                (self.check.is_running(), fails, self.proofs.good_at().max(self.lives_unanswering(failed_at)))
            }
            DependsOn::Service(i) => {
                let service = &self.services[i];
                (!service.is_idle(), !service.holds(), service.good_at)
            }
        };
        match () {
            () if open => DependencyState::Open,
            () if fails => DependencyState::Fails,
            () if good_at.is_some_and(|at| at >= failed_at) => DependencyState::Holds,
            () => DependencyState::Old,
        }
    }

    /// Returns the failure time as a proof of life, if packets came after probes without reply. The
    /// host is up and does not reply, so other failures do not depend on it.
    fn lives_unanswering(&self, failed_at: Mono) -> Option<Mono> {
        let unanswered = self.one_way.since().filter(|since| self.proofs.is_proved_since(*since));
        unanswered.map(|_| failed_at)
    }

    fn is_held(&self, on: DependsOn) -> bool {
        matches!(on, DependsOn::Service(i) if matches!(self.services[i].run, Run::PendingFailure(_)))
    }

    /// Checks the dependency of a failure now; only a result newer than the failure counts.
    fn demand(&mut self, on: DependsOn, newer_than: Mono, ctx: &mut Ctx<'_>) {
        match on {
            DependsOn::Host => {
                self.check.require(newer_than);
                self.start_check(ctx);
            }
            DependsOn::Service(i) => {
                self.services[i].newer_than = Some(newer_than);
                self.start_demanded(i, ctx);
            }
        }
    }

    /// Decides about failures whose dependency has been checked meanwhile.
    pub(in crate::monitor) fn settle_held(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((i, held)) = self.take_decidable() {
            self.judge(i, held, ctx);
        }
    }

    fn take_decidable(&mut self) -> Option<(usize, PendingFailure)> {
        let i = self.services.iter().position(|s| match &s.run {
            Run::PendingFailure(held) => self.standing(held.on, held.failed_at) != DependencyState::Open,
            _ => false,
        })?;
        match std::mem::replace(&mut self.services[i].run, Run::Idle) {
            Run::PendingFailure(held) => Some((i, *held)),
            _ => None,
        }
    }

    fn record_now(&mut self, i: usize, result: Evaluated, way: Via, at: Mono, ctx: &mut Ctx<'_>) {
        self.services[i].answer_demand();
        self.record(i, result, way.name(), (at, ctx.now.wall), ctx);
    }

    /// Records a result that counts. Services that wait for this one are checked promptly. `at`:
    /// the monotonic time of the finding, for its dependents, and the wall time for display.
    pub(in crate::monitor) fn record(
        &mut self,
        i: usize,
        result: Evaluated,
        route: &str,
        (at, shown): (Mono, Wall),
        ctx: &mut Ctx<'_>,
    ) {
        let begun = self.services[i].planned.filter(|at| *at <= ctx.now.mono).unwrap_or(ctx.now.mono);
        let next = ctx.next(self.spec.id, &self.services[i].timing(), begun);
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.notifier);
        let service = &mut self.services[i];
        let held_before = service.holds() && !service.missed;
        let anew = service.track.hard.is_problem();
        service.newer_than = None;
        service.take(result, (route, shown), of, next, ctx);
        if service.is_demanded() {
            service.planned = Some(ctx.earliest());
        }
        if service.holds() {
            service.good_at = service.good_at.max(Some(at));
        }
        let recovered = !held_before && service.holds() && !service.stale;
        if recovered {
            self.revive_dependents(i, anew, ctx);
        }
    }

    /// Revives the dependents promptly and at the same time, so that those over SSH share one
    /// session.
    fn revive_dependents(&mut self, of: usize, anew: bool, ctx: &mut Ctx<'_>) {
        let waiting = self.waiting_for(of);
        if waiting.is_empty() {
            return;
        }
        let prompt = ctx.promptly();
        let planned = waiting.iter().filter_map(|i| self.services[*i].planned).min();
        let at = planned.map_or(prompt, |planned| planned.min(prompt));
        waiting.into_iter().for_each(|i| self.services[i].revive(at, anew));
    }

    fn waiting_for(&self, of: usize) -> Vec<usize> {
        let checks: Vec<&Check> = self.services.iter().map(|s| &s.spec.check).collect();
        let depends =
            |check: &Check| dependency::nearest(check, Via::Tunnel, &checks) == DependsOn::Service(of);
        let waits = |s: &Service| s.waits() && s.is_idle() && depends(&s.spec.check);
        (0..self.services.len()).filter(|i| waits(&self.services[*i]) && self.can_start(*i)).collect()
    }

    /// Drops a result. The last state remains, marked as not current, until the next slot.
    pub(in crate::monitor) fn discard(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let slot = ctx.slot(self.spec.id, &self.services[i].timing());
        let service = &mut self.services[i];
        service.miss(slot, ctx.earliest());
        ctx.record(service.row(self.spec.id, ctx.now));
    }

    pub(in crate::monitor) fn tunnel_service(&self) -> Option<usize> {
        self.services.iter().position(|s| s.spec.check == Check::Tunnel)
    }
}
