//! The checks of a host's services: their probes, the replies, and whether a result counts.
//!
//! All checks over SSH that are due together share one session. When a check fails, its dependency
//! decides. If the state of that is not known, it is checked. If the dependency is not ok, the
//! failure is dropped and the service is marked as not current, without a notification.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;

use crate::time::{Mono, Wall};
use crate::wire::{Answer, Check, ConnectFailure, HostStatus, PathCheck, Question, Route};

use super::answer::{self, Finding, Meaning, nor_at};
use super::depend::{self, On};
use super::host::Host;
use super::judged::Judged;
use super::path_check::{self, PathQuestion, Step};
use super::reach::Way;
use super::service::{Held, Run, Service, Unanswered};
use super::speech::surroundings;
use super::status::Level;
use super::turn::{Asker, Turn};

/// The timeout of the probe of a device's second inner address, after the first was silent. It
/// covers several round trips of a mobile link, and delays a failure only a little.
pub(super) const OTHER_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of the dependency of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
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
    pub(super) fn start_services(&mut self, turn: &mut Turn<'_>) {
        let due: Vec<usize> =
            (0..self.services.len()).filter(|i| self.services[*i].is_due(turn.now.mono)).collect();
        let (riders, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|i| self.services[*i].rides());
        for i in others {
            self.start_service(i, turn);
        }
        if !riders.is_empty() && self.session.is_none() {
            self.start_session(riders, turn);
        }
    }

    /// Starts a service that a failure depends on; one over SSH gets its own session.
    fn start_demanded(&mut self, i: usize, turn: &mut Turn<'_>) {
        match self.services[i].rides() {
            true if self.session.is_none() => self.start_session(vec![i], turn),
            true => {}
            false => self.start_service(i, turn),
        }
    }

    fn start_service(&mut self, i: usize, turn: &mut Turn<'_>) {
        self.services[i].begin(turn.now.mono);
        let spec = &self.services[i].spec;
        turn.started(self.services[i].planned);
        if let Some(why) = self.paths.refusal(&spec.check) {
            return self.refuse(i, why, turn);
        }
        let Some(question) = self.first_question(&spec.check) else {
            return self.discard(i, turn);
        };
        self.services[i].asked = question.inner_address();
        self.ask(i, question, turn);
    }

    /// Records why a check can never run, regardless of its dependency.
    pub(super) fn refuse(&mut self, i: usize, why: &str, turn: &mut Turn<'_>) {
        self.services[i].begin(turn.now.mono);
        self.record_now(
            i,
            PluginResult::unknown(why).because(Cause::NotTried).into(),
            Way::Direct,
            turn.now.mono,
            turn,
        );
    }

    fn first_question(&self, check: &Check) -> Option<Question> {
        Some(match *check {
            Check::Tunnel => Question::Evidence { peer: self.paths.peer? },
            Check::Ping { count } => {
                let (peer, address) = self.paths.inner?;
                Question::Echo { peer, address, count }
            }
            Check::Tcp { port } => Question::Connect { route: self.paths.route(self.paths.tcp()?)?, port },
            Check::Ssh | Check::Sensor(_) | Check::Command { .. } | Check::Passive | Check::Heartbeat(_) => {
                return None;
            }
        })
    }

    pub(super) fn ask(&mut self, i: usize, question: Question, turn: &mut Turn<'_>) {
        let timeout = self.services[i].spec.timing.timeout;
        let id = turn.ask(self.spec.id, Asker::Service(i), question, timeout);
        self.services[i].run = Run::Asked(id);
    }

    pub(super) fn answer_service(&mut self, i: usize, answer: Answer, turn: &mut Turn<'_>) {
        let other = self.paths.other_than(self.services[i].asked);
        let first = match &self.services[i].run {
            Run::AskedOther(_, first) => Some(first.clone()),
            _ => None,
        };
        if let Run::AskedPath(_, unanswered) = &self.services[i].run {
            let unanswered = unanswered.clone();
            self.weigh_path_of(i, *unanswered, &answer, turn);
            return self.settle_held(turn);
        }
        match (first, other) {
            (None, Some(other)) if answer::is_unanswered(&answer) => self.ask_other(i, other, answer, turn),
            (Some(_), Some(other)) if answer::is_answered(&answer) => {
                self.services[i].asked = Some(other);
                self.prefer(other, turn);
                self.read_answer(i, answer, None, turn);
            }
            (Some(first), _) => self.read_answer(i, *first, other, turn),
            (None, _) => self.read_answer(i, answer, None, turn),
        }
        self.settle_held(turn);
    }

    /// Sends the same probe to the inner address of the other family.
    fn ask_other(&mut self, i: usize, other: IpAddr, first: Answer, turn: &mut Turn<'_>) {
        let spec = &self.services[i].spec;
        let question = match (self.paths.peer, &spec.check) {
            (Some(peer), Check::Ping { count }) => Question::Echo { peer, address: other, count: *count },
            (Some(peer), Check::Tcp { port }) => {
                Question::Connect { route: Route::Tunnel { peer, address: other }, port: *port }
            }
            _ => return self.read_answer(i, first, None, turn),
        };
        let timeout = spec.timing.timeout.min(OTHER_TIMEOUT);
        let id = turn.ask(self.spec.id, Asker::Service(i), question, timeout);
        self.services[i].run = Run::AskedOther(id, Box::new(first));
    }

    /// `silent`: the other inner address, if that was silent, too.
    fn read_answer(&mut self, i: usize, answer: Answer, silent: Option<IpAddr>, turn: &mut Turn<'_>) {
        let timeout = self.services[i].spec.timing.timeout;
        if let Some(path) =
            self.path_of(i).filter(|_| answer == Answer::Connect(Err(ConnectFailure::Timeout)))
        {
            return self.ask_path_of(i, Unanswered { answer, silent, path }, turn);
        }
        match (&self.services[i].spec.check, answer) {
            (Check::Tunnel, answer) => self.answer_tunnel(i, answer, turn),
            (Check::Ping { .. }, Answer::Echo(echo)) => {
                self.conclude(i, nor_at(answer::ping(&echo), silent), Way::Tunnel, turn);
            }
            (Check::Tcp { port }, Answer::Connect(outcome)) => {
                let meaning = nor_at(answer::connect(*port, &outcome, timeout), silent);
                self.services[i].note_path(PathCheck::NotAsked);
                self.conclude(i, meaning, self.paths.tcp().unwrap_or(Way::Direct), turn);
            }
            _ => self.discard(i, turn),
        }
    }

    /// Returns the path of its probe, if that went through the tunnel.
    fn path_of(&self, i: usize) -> Option<PathQuestion> {
        Some(PathQuestion::new(self.paths.peer?, self.services[i].asked?))
    }

    /// Starts a path check, because a lost packet looks like a service that hangs.
    fn ask_path_of(&mut self, i: usize, unanswered: Unanswered, turn: &mut Turn<'_>) {
        let timeout = self.services[i].spec.timing.timeout.min(path_check::TIMEOUT);
        let id = turn.ask(self.spec.id, Asker::Service(i), unanswered.path.question(), timeout);
        self.services[i].run = Run::AskedPath(id, Box::new(unanswered));
    }

    fn weigh_path_of(&mut self, i: usize, unanswered: Unanswered, answer: &Answer, turn: &mut Turn<'_>) {
        let Unanswered { answer: first, silent, path } = unanswered;
        let spec = &self.services[i].spec;
        match (path.take(answer), &spec.check, first) {
            (Step::Ask(path), _, answer) => {
                self.ask_path_of(i, Unanswered { answer, silent, path }, turn);
            }
            (Step::Known(path), Check::Tcp { port }, Answer::Connect(outcome)) => {
                let meaning = nor_at(answer::connect(*port, &outcome, spec.timing.timeout), silent);
                self.services[i].note_path(path);
                self.conclude(i, meaning, Way::Tunnel, turn);
            }
            (Step::Known(_), ..) => self.discard(i, turn),
        }
    }

    pub(super) fn conclude(&mut self, i: usize, meaning: Meaning, way: Way, turn: &mut Turn<'_>) {
        match meaning {
            Some(finding) => self.conclude_at(i, finding, way, turn.now.mono, turn),
            None => self.discard(i, turn),
        }
    }

    /// `at`: the time of the finding.
    pub(super) fn conclude_at(
        &mut self,
        i: usize,
        finding: Finding,
        way: Way,
        at: Mono,
        turn: &mut Turn<'_>,
    ) {
        let service = &mut self.services[i];
        service.newer_than = None;
        let result = service.judged(finding.result);
        // A reply above a threshold is still a reply, so the dependency is ok.
        if !Some(result.own).is_problem() {
            return self.record_now(i, result, way, at, turn);
        }
        if finding.silence && turn.in_grace(self.spec.timing.interval) {
            return self.discard(i, turn);
        }
        if way == Way::Tunnel && self.was_answered_there(i, result.result.cause) {
            return self.record_now(i, result, way, at, turn);
        }
        let checks: Vec<&Check> = self.services.iter().map(|s| &s.spec.check).collect();
        let on = depend::nearest(&self.services[i].spec.check, way, &checks);
        self.judge(i, Held { result, way, failed_at: at, on, asked: false }, turn);
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
    fn judge(&mut self, i: usize, mut held: Held, turn: &mut Turn<'_>) {
        match self.standing(held.on, held.failed_at) {
            Standing::Holds => {
                self.record_now(i, held.result, held.way, held.failed_at, turn);
            }
            Standing::Fails => self.discard(i, turn),
            Standing::Old if held.asked => self.discard(i, turn),
            Standing::Open => {
                // A failure together with that of its dependency is treated like it.
                held.asked |= self.is_held(held.on);
                self.services[i].run = Run::Held(Box::new(held));
            }
            Standing::Old => {
                held.asked = true;
                let (on, since) = (held.on, held.failed_at);
                self.services[i].run = Run::Held(Box::new(held));
                self.demand(on, since, turn);
            }
        }
    }

    fn standing(&self, on: On, failed_at: Mono) -> Standing {
        let (open, fails, good_at) = match on {
            On::Host => {
                let fails = self.asleep || self.track.status == HostStatus::Down;
                (self.check.is_some(), fails, self.good_at.max(self.lives_unanswering(failed_at)))
            }
            On::Service(i) => {
                let service = &self.services[i];
                (!service.is_idle(), !service.holds(), service.good_at)
            }
        };
        match () {
            () if open => Standing::Open,
            () if fails => Standing::Fails,
            () if good_at.is_some_and(|at| at >= failed_at) => Standing::Holds,
            () => Standing::Old,
        }
    }

    /// Returns the failure time as a proof of life, if packets came after probes without reply. The
    /// host is up and does not reply, so other failures do not depend on it.
    fn lives_unanswering(&self, failed_at: Mono) -> Option<Mono> {
        let vain = self.vain.filter(|vain| self.proved_at >= Some(vain.since));
        vain.map(|_| failed_at)
    }

    fn is_held(&self, on: On) -> bool {
        matches!(on, On::Service(i) if matches!(self.services[i].run, Run::Held(_)))
    }

    /// Checks the dependency of a failure now; only a result newer than the failure counts.
    fn demand(&mut self, on: On, newer_than: Mono, turn: &mut Turn<'_>) {
        match on {
            On::Host => {
                self.newer_than = Some(newer_than);
                self.start_check(turn);
            }
            On::Service(i) => {
                self.services[i].newer_than = Some(newer_than);
                self.start_demanded(i, turn);
            }
        }
    }

    /// Decides about failures whose dependency has been checked meanwhile.
    pub(super) fn settle_held(&mut self, turn: &mut Turn<'_>) {
        while let Some((i, held)) = self.take_decidable() {
            self.judge(i, held, turn);
        }
    }

    fn take_decidable(&mut self) -> Option<(usize, Held)> {
        let i = self.services.iter().position(|s| match &s.run {
            Run::Held(held) => self.standing(held.on, held.failed_at) != Standing::Open,
            _ => false,
        })?;
        match std::mem::replace(&mut self.services[i].run, Run::Idle) {
            Run::Held(held) => Some((i, *held)),
            _ => None,
        }
    }

    fn record_now(&mut self, i: usize, result: Judged, way: Way, at: Mono, turn: &mut Turn<'_>) {
        self.services[i].answer_demand();
        self.record(i, result, way.name(), (at, turn.now.wall), turn);
    }

    /// Records a result that counts. Services that wait for this one are checked promptly. `at`:
    /// the monotonic time of the finding, for its dependents, and the wall time for display.
    pub(super) fn record(
        &mut self,
        i: usize,
        result: Judged,
        route: &str,
        (at, shown): (Mono, Wall),
        turn: &mut Turn<'_>,
    ) {
        let begun = self.services[i].planned.filter(|at| *at <= turn.now.mono).unwrap_or(turn.now.mono);
        let next = turn.next(self.spec.id, &self.services[i].timing(), begun);
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.voice);
        let service = &mut self.services[i];
        let held_before = service.holds() && !service.missed;
        let anew = service.track.hard.is_problem();
        service.newer_than = None;
        service.take(result, (route, shown), of, next, turn);
        if service.is_demanded() {
            service.planned = Some(turn.earliest());
        }
        if service.holds() {
            service.good_at = service.good_at.max(Some(at));
        }
        let recovered = !held_before && service.holds() && !service.stale;
        if recovered {
            self.revive_dependents(i, anew, turn);
        }
    }

    /// Revives the dependents promptly and at the same time, so that those over SSH share one
    /// session.
    fn revive_dependents(&mut self, of: usize, anew: bool, turn: &mut Turn<'_>) {
        let waiting = self.waiting_for(of);
        if waiting.is_empty() {
            return;
        }
        let prompt = turn.promptly();
        let planned = waiting.iter().filter_map(|i| self.services[*i].planned).min();
        let at = planned.map_or(prompt, |planned| planned.min(prompt));
        waiting.into_iter().for_each(|i| self.services[i].revive(at, anew));
    }

    fn waiting_for(&self, of: usize) -> Vec<usize> {
        let checks: Vec<&Check> = self.services.iter().map(|s| &s.spec.check).collect();
        let depends = |check: &Check| depend::nearest(check, Way::Tunnel, &checks) == On::Service(of);
        let waits = |s: &Service| s.waits() && s.is_idle() && depends(&s.spec.check);
        (0..self.services.len()).filter(|i| waits(&self.services[*i]) && self.can_start(*i)).collect()
    }

    /// Drops a result. The last state remains, marked as not current, until the next slot.
    pub(super) fn discard(&mut self, i: usize, turn: &mut Turn<'_>) {
        let slot = turn.slot(self.spec.id, &self.services[i].timing());
        let service = &mut self.services[i];
        service.miss(slot, turn.earliest());
        turn.record(service.row(self.spec.id, turn.now));
    }

    pub(super) fn tunnel_service(&self) -> Option<usize> {
        self.services.iter().position(|s| s.spec.check == Check::Tunnel)
    }
}

/// Returns the time after which evidence counts: the start of the interval, or a failure within it.
pub(super) fn evidence_limit(service: &Service, now: Mono) -> Mono {
    let interval = now - service.spec.timing.interval;
    match service.failed_at.filter(|_| !service.holds()) {
        Some(failed) => interval.max(failed),
        None => interval,
    }
}
