//! One service of a host: its spec, its state, and its check in progress.
//!
//! It applies a result and returns the records to commit. It knows neither the probes of the host
//! nor the dependencies of a result; `host/service_checks.rs` has resolved those.

use std::net::IpAddr;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::incident::ProblemFinding;
use crate::messages::{
    Check, CheckableId, EventKind, FullAt, PathCheck, Record, Sample, ServiceSpec, ServiceState,
    SuppressReason, Taken, Timing,
};
use crate::time::{Mono, Now, Wall};

use super::downtime::Window;
use crate::monitor::context::{Ctx, cause, measured_at};
use crate::monitor::forecast;
use crate::monitor::host::freshness;
use crate::monitor::host::job;
use crate::monitor::host::job::JobRuns;
use crate::monitor::host::path_check;
use crate::monitor::host::path_check::AGREEING;
use crate::monitor::notification::records::Subject;
use crate::monitor::notification::suppress::{Emitted, Notifier, NotifyContext};
use crate::monitor::run::Run;
use crate::monitor::schedule::{ahead, is_outdated};
use crate::monitor::state::{Change, Level, Since, Track};
use crate::monitor::thresholds;
use crate::monitor::thresholds::Evaluated;
use crate::monitor::traffic_budget;

#[derive(Debug)]
pub struct Service {
    pub spec: ServiceSpec,
    pub track: Track<Option<Status>>,
    pub stale: bool,
    /// Whether its last check had no result.
    pub missed: bool,
    since: Since,
    last_check: Option<Wall>,
    route: String,
    /// The inner address of its last probe.
    pub asked: Option<IpAddr>,
    pub path: PathCheck,
    /// The path checks of the last attempts, the newest last.
    paths: [PathCheck; AGREEING],
    cause_since: Wall,
    result: PluginResult,
    /// The status of the last result before thresholds.
    own: Option<Status>,
    pub notifier: Notifier<Option<Status>>,
    /// Passive results that were accepted.
    pub taken: Taken,
    /// The time at which it is due, or at which the check in progress was due; `None` while it is
    /// not scheduled.
    pub planned: Option<Mono>,
    /// A check is requested, and only evidence newer than this satisfies it.
    pub newer_than: Option<Mono>,
    /// The time of an operator's request, until a check that began after it has a result.
    demanded: Option<Mono>,
    pub run: Run,
    /// The start of the check in progress, or of the last one.
    began: Option<Mono>,
    /// The newest proof that it is ok, for its dependents.
    pub good_at: Option<Mono>,
    pub failed_at: Option<Mono>,
    /// The time from which freshness counts.
    heard_at: Mono,
    /// The interval factor of the traffic budget.
    pub stretch: u32,
    forecast: Option<FullAt>,
}

/// The identity of the host, and its state as it concerns its services.
#[derive(Clone, Copy, Debug)]
pub struct HostContext<'a> {
    pub host: HostId,
    pub name: &'a str,
    pub windows: &'a [Window],
    pub covered: bool,
    pub silence: Option<SuppressReason>,
    pub cancelled: bool,
}

/// The possible times of the next check: the next slot, or the retry of a soft failure.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    pub regular: Mono,
    pub retry: Mono,
}

impl Service {
    pub fn new(spec: ServiceSpec, now: Now) -> Self {
        Service {
            spec,
            track: Track::pending(),
            stale: false,
            missed: false,
            since: Since::both(now.wall),
            last_check: None,
            route: String::new(),
            asked: None,
            path: PathCheck::NotAsked,
            paths: [PathCheck::NotAsked; AGREEING],
            cause_since: now.wall,
            result: PluginResult::ok(""),
            own: None,
            notifier: Notifier::default(),
            taken: Taken::default(),
            planned: None,
            newer_than: None,
            demanded: None,
            run: Run::Idle,
            began: None,
            good_at: None,
            failed_at: None,
            heard_at: now.mono,
            stretch: 1,
            forecast: None,
        }
    }

    pub fn restored(spec: ServiceSpec, state: ServiceState, now: Now) -> Self {
        let track =
            Track { status: state.status, kind: state.kind, attempt: state.attempt, hard: state.hard };
        let failed_at = state.last_check.filter(|_| track.status.is_problem()).map(|at| now.mono_at(at));
        let heard_at = state.last_check.map_or(now.mono, |at| now.mono_at(at));
        let own = own_of(&spec, &state);
        let mut service = Service {
            track,
            own,
            stale: state.stale,
            since: Since { status: state.since, hard: state.hard_since },
            last_check: state.last_check,
            route: state.route,
            asked: state.asked,
            path: state.path,
            paths: [state.path; AGREEING],
            cause_since: state.cause_since,
            result: state.result,
            notifier: Notifier::restored(state.notified.map(Some), state.notification, now),
            taken: state.taken,
            failed_at,
            planned: ahead(state.next_check, now),
            heard_at,
            ..Service::new(spec, now)
        };
        service.excuse(now.mono);
        service
    }

    /// Returns its timing with the interval factor of the traffic budget.
    pub fn timing(&self) -> Timing {
        traffic_budget::slowed(&self.spec.timing, self.stretch)
    }

    /// Sets the interval factor; returns whether it changed.
    pub fn pace(&mut self, stretch: u32) -> bool {
        let stretch = if traffic_budget::sends(&self.spec.check) { stretch } else { 1 };
        std::mem::replace(&mut self.stretch, stretch) != stretch
    }

    pub fn since(&self) -> Since {
        self.since
    }

    pub fn is_idle(&self) -> bool {
        self.run == Run::Idle
    }

    /// Whether the gateway itself sets its state, by the rentals of the device.
    pub fn is_of_rental(&self) -> bool {
        self.spec.check == Check::Rental
    }

    /// Whether this is what its last result says.
    pub fn shows(&self, status: Status, text: &str) -> bool {
        self.track.status == Some(status) && self.result.text == text && !self.stale
    }

    pub fn is_due(&self, now: Mono) -> bool {
        self.is_idle() && self.planned.is_some_and(|at| at <= now)
    }

    /// Whether its dependents can work. A violated threshold does not prevent that.
    pub fn holds(&self) -> bool {
        !matches!(self.own, Some(Status::Critical | Status::Unknown))
    }

    /// Returns the time after which evidence counts: the start of the interval, or a failure within
    /// it.
    pub fn evidence_limit(&self, now: Mono) -> Mono {
        let interval = now - self.spec.timing.interval;
        match self.failed_at.filter(|_| !self.holds()) {
            Some(failed) => interval.max(failed),
            None => interval,
        }
    }

    /// Whether it needs the host's SSH session.
    pub fn rides(&self) -> bool {
        matches!(self.spec.check, Check::Ssh | Check::Sensor(_) | Check::Command { .. })
    }

    /// Applies another spec; only an unchanged spec on an unchanged host keeps its plan. If
    /// freshness did not apply before, it counts from now.
    pub fn changed(self, spec: ServiceSpec, host_changed: bool, now: Mono) -> Self {
        let planned = self.planned.filter(|_| spec == self.spec && !host_changed);
        let minds = spec.check.is_sent() && spec.check != self.spec.check
            || spec.freshness.is_some() && self.spec.freshness.is_none();
        let heard_at = if minds { now } else { self.heard_at };
        // Another check has another past.
        let forecast = self.forecast.filter(|_| spec.check == self.spec.check);
        Service { spec, planned, heard_at, forecast, ..self }
    }

    /// Marks its state as not current; returns whether that is a change.
    pub fn mark_stale(&mut self) -> bool {
        let news = !self.stale && self.track.status.is_some();
        self.stale |= news;
        news
    }

    /// Marks its state as not current if it is outdated, or if it came while its host was down.
    pub fn mark_outdated(&mut self, timing: &Timing, now: Now) -> bool {
        let asked = !self.spec.check.is_sent();
        let outdated = asked && is_outdated(self.last_check, timing, now) || self.notifier.awaits_result();
        outdated && self.mark_stale()
    }

    /// Whether its state is not current, or its last check had no result.
    pub fn waits(&self) -> bool {
        self.stale || self.missed
    }

    /// Requests a check for an operator; one in progress began before the request.
    pub fn demand(&mut self, now: Mono) {
        self.demanded = Some(now);
        if self.is_idle() {
            self.planned = Some(now);
        }
    }

    pub fn is_demanded(&self) -> bool {
        self.demanded.is_some()
    }

    /// Begins a check, which serves the requests made before.
    pub fn begin(&mut self, now: Mono) {
        self.began = Some(now);
        self.newer_than = self.newer_than.max(self.demanded);
    }

    /// Ends the requests that the finished check served.
    pub fn answer_demand(&mut self) {
        self.demanded = self.demanded.filter(|_| self.is_asked_again());
    }

    /// Whether an operator requested another check while this one was in progress.
    pub fn is_asked_again(&self) -> bool {
        self.demanded > self.began
    }

    /// Ends a check without a result. The next one is at `slot`, or at once if an operator
    /// requested it meanwhile.
    pub fn miss(&mut self, slot: Mono, at_once: Mono) {
        self.planned = Some(if self.is_asked_again() { at_once } else { slot });
        self.run = Run::Idle;
        self.newer_than = None;
        self.missed = true;
        self.mark_stale();
    }

    /// Schedules a check at `at` after a suspension; `anew`: the suspension was so long that its
    /// failures are counted anew.
    pub fn revive(&mut self, at: Mono, anew: bool) {
        if anew {
            self.track.forgive();
        }
        self.planned = Some(at);
    }

    /// Records the path check of this attempt; a result without a path check ends the series.
    pub fn note_path(&mut self, path: PathCheck) {
        self.paths = match path {
            PathCheck::NotAsked => [path; AGREEING],
            _ => [self.paths[1], self.paths[2], path],
        };
        self.path = path_check::together(self.paths);
    }

    /// Applies a result that counts, with its route and its time.
    pub fn take(
        &mut self,
        Evaluated { result, own }: Evaluated,
        (route, at): (&str, Wall),
        of: HostContext<'_>,
        next: Next,
        ctx: &mut Ctx<'_>,
    ) {
        let before = self.track.status;
        self.own = Some(own);
        let change = self.track.apply(Some(result.status), self.spec.timing.attempts);
        let planned = if self.track.is_soft() { next.retry } else { next.regular };
        self.planned = Some(planned).filter(|_| !self.spec.check.is_sent());
        self.run = Run::Idle;
        self.last_check = Some(at);
        self.heard_at = ctx.now.mono;
        self.route = route.to_owned();
        self.tell(before, change, result, of, ctx);
    }

    /// Applies overdue results: the state changes without attempts.
    pub fn expire(&mut self, of: HostContext<'_>, ctx: &mut Ctx<'_>) {
        let before = self.track.status;
        let result = match &self.spec.check {
            Check::Heartbeat(job) => self.past_runs(ctx.now).finding(job),
            _ => freshness::silence(self.spec.freshness.unwrap_or_default().saturating_mul(self.stretch)),
        };
        self.own = Some(result.status);
        let change = self.track.settle(Some(result.status), self.spec.timing.attempts);
        self.route = freshness::SILENCE.to_owned();
        self.tell(before, change, result, of, ctx);
    }

    /// Returns when its results are overdue; `None` if that is recorded or no result is expected.
    pub fn silent_at(&self, now: Now) -> Option<Mono> {
        if let Check::Heartbeat(job) = &self.spec.check {
            return self.past_runs(now).overdue_at(job);
        }
        let listens = freshness::listens(&self.spec.check, self.waits()) && self.route != freshness::SILENCE;
        let threshold = self.spec.freshness.filter(|_| listens)?;
        Some(self.heard_at + threshold.saturating_mul(self.stretch))
    }

    fn past_runs(&self, now: Now) -> JobRuns {
        JobRuns {
            last: self.last_check,
            since: self.since.status,
            heard: self.heard_at,
            status: self.track.status,
            complained: self.route == freshness::SILENCE,
            now,
        }
    }

    /// Restarts freshness, because the gateway could not receive its results or its host could not
    /// send.
    pub fn excuse(&mut self, until: Mono) {
        match &self.spec.check {
            Check::Heartbeat(job) if !job::may_have_run(job, self.heard_at, until) => {}
            _ => self.heard_at = self.heard_at.max(until),
        }
    }

    pub fn last_check(&self) -> Option<Wall> {
        self.last_check
    }

    pub fn note_forecast(&mut self, forecast: FullAt) {
        self.forecast = Some(forecast);
    }

    /// Evaluates a result, and the forecast of its value, against the thresholds of this service. `at`: the time of
    /// the result.
    pub fn judged(&self, mut result: PluginResult, at: Wall) -> Evaluated {
        let forecast = self.forecast.as_ref();
        result.add_metrics(forecast.and_then(|forecast| forecast::full_within(&result, forecast, at)));
        thresholds::judge(result, &self.spec.check, &self.spec.thresholds, &self.result.metrics)
    }

    fn tell(
        &mut self,
        before: Option<Status>,
        change: Option<Change<Option<Status>>>,
        result: PluginResult,
        of: HostContext<'_>,
        ctx: &mut Ctx<'_>,
    ) {
        let (now, of) = (ctx.now, concerning(&self.spec, of));
        self.since.note(before != self.track.status, change.as_ref(), now.wall);
        // A result that comes while the host is down is kept, but it is not current when the host
        // is back.
        (self.stale, self.missed) = (of.silence.is_some(), false);
        self.cause_since = if result.cause == self.result.cause { self.cause_since } else { now.wall };
        self.result = result;
        if !self.holds() {
            self.failed_at = Some(now.mono);
        }
        let mut said: Vec<_> = self.place(change.as_ref(), of, ctx).into_iter().collect();
        let scene = scene(&self.spec, self.stale, of, now);
        said.extend(self.notifier.on_result(before, &self.track, change.as_ref(), &scene));
        ctx.record(self.row(of.host, now));
        let rest = self.sample(of.host).into_iter().chain(change.map(|change| self.event(change, of, now)));
        rest.chain(self.subject(of, now).records(said)).for_each(|record| ctx.record(record));
    }

    /// Assigns a problem to an incident before its notification. A problem in a downtime is no
    /// incident, and neither is one that is not current. If it is notified later after all, it is
    /// assigned then.
    fn place(
        &mut self,
        change: Option<&Change<Option<Status>>>,
        of: HostContext<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Option<Emitted<Option<Status>>> {
        let planned = self.notifier.is_planned(&self.track, &scene(&self.spec, self.stale, of, ctx.now));
        if self.track.hard.is_problem() && !planned && !self.stale {
            return self.find_place(of, ctx);
        }
        if change.is_some_and(|c| c.hard) && !self.track.hard.is_problem() {
            ctx.well(&self.object(of));
        }
        None
    }

    fn find_place(&mut self, of: HostContext<'_>, ctx: &mut Ctx<'_>) -> Option<Emitted<Option<Status>>> {
        let object = self.object(of);
        let placed = ctx.problem(&object, self.since.status, &self.found(), true);
        ctx.settle(&object, placed, &mut self.notifier)
    }

    /// Assigns a problem to an incident before its notification, if that was suppressed until now.
    pub fn place_before_speech(&mut self, of: HostContext<'_>, ctx: &mut Ctx<'_>) -> Vec<Record> {
        let scene = scene(&self.spec, self.stale, of, ctx.now);
        let owed = self.notifier.may_complain(&self.track, &scene);
        let said = if owed { self.find_place(of, ctx) } else { None };
        self.subject(of, ctx.now).records(said.into_iter().collect())
    }

    /// Returns its hard state. The last result explains it only if it has the same state.
    fn found(&self) -> ProblemFinding {
        let status = self.track.hard;
        let agrees = status == Some(self.result.status);
        ProblemFinding {
            status,
            reading: agrees.then(|| self.result.crossed_limit(&self.spec.name)).flatten(),
        }
    }

    fn object(&self, of: HostContext<'_>) -> CheckableId {
        CheckableId { host: of.host, service: Some(self.spec.name.clone()) }
    }

    /// Lets it notify for another reason than a result; its row comes first, if anything changed.
    pub fn speak(
        &mut self,
        of: HostContext<'_>,
        now: Now,
        act: impl FnOnce(
            &mut Notifier<Option<Status>>,
            &Track<Option<Status>>,
            &NotifyContext<'_>,
        ) -> Vec<Emitted<Option<Status>>>,
    ) -> Vec<Record> {
        let before = self.notifier.state(now);
        let said = act(&mut self.notifier, &self.track, &scene(&self.spec, self.stale, of, now));
        if said.is_empty() && before == self.notifier.state(now) {
            return Vec::new();
        }
        let mut records = vec![self.row(of.host, now)];
        records.extend(self.subject(of, now).records(said));
        records
    }

    /// Returns why its problem is not notified now.
    pub fn suppression(&self, of: HostContext<'_>, now: Now) -> Option<SuppressReason> {
        self.notifier.suppression(&self.track, &scene(&self.spec, self.stale, of, now))
    }

    pub fn row(&self, host: HostId, now: Now) -> Record {
        Record::Service(
            host,
            ServiceState {
                name: self.spec.name.clone(),
                status: self.track.status,
                kind: self.track.kind,
                attempt: self.track.attempt,
                hard: self.track.hard,
                stale: self.stale,
                since: self.since.status,
                hard_since: self.since.hard,
                last_check: self.last_check,
                next_check: self.planned.map(|at| now.wall + at.since(now.mono)),
                route: self.route.clone(),
                asked: self.asked,
                path: self.path,
                cause_since: self.cause_since,
                result: self.result.clone(),
                notified: self.notifier.notified().flatten(),
                notification: self.notifier.state(now),
                taken: self.taken.clone(),
            },
        )
    }

    fn sample(&self, host: HostId) -> Option<Record> {
        let (metrics, at) = (self.result.metrics.clone(), self.last_check?);
        let sample = Sample { host, service: self.spec.name.clone(), at, metrics };
        (!sample.metrics.is_empty()).then_some(Record::Sample(sample))
    }

    fn event(&self, change: Change<Option<Status>>, of: HostContext<'_>, now: Now) -> Record {
        let (from, to, hard) = (change.from.name(), change.to.name(), change.hard);
        let measured_at = measured_at(&self.route, self.last_check, now);
        let kind = EventKind::StateChanged { from, to, hard, measured_at };
        let cause = match self.route.as_str() {
            freshness::SILENCE => freshness::NOTHING_CAME.to_owned(),
            _ => cause(&self.track, &change, self.spec.timing.attempts),
        };
        self.subject(of, now).event(kind, cause, &self.result.text)
    }

    fn subject<'a>(&'a self, of: HostContext<'a>, now: Now) -> Subject<'a> {
        Subject {
            host: of.host,
            name: of.name,
            service: Some(&self.spec.name),
            output: &self.result.text,
            since: self.since.status,
            at: now.wall,
        }
    }
}

/// Returns the status before thresholds, which is not stored. A probe with a reply was ok. For SSH
/// this is not enough, because a reply may come from something that is no SSH server.
fn own_of(spec: &ServiceSpec, state: &ServiceState) -> Option<Status> {
    let answered = state.result.cause == Cause::Answered;
    let well = match &spec.check {
        Check::Tunnel | Check::Ping { .. } | Check::Tcp { .. } => answered,
        Check::Ssh => answered && thresholds::is_by_limits(&state.result, &spec.check, &spec.thresholds),
        _ => false,
    };
    state.status.map(|status| if well { Status::Ok } else { status })
}

/// Returns what of its host concerns a service. The state of a rental is known also of a device that is down, in a
/// downtime or on its way.
fn concerning<'a>(spec: &ServiceSpec, of: HostContext<'a>) -> HostContext<'a> {
    match spec.check {
        Check::Rental => HostContext { covered: false, silence: None, ..of },
        _ => of,
    }
}

/// The host's state suppresses the notifications of its services.
fn scene<'a>(spec: &'a ServiceSpec, stale: bool, of: HostContext<'a>, now: Now) -> NotifyContext<'a> {
    let of = concerning(spec, of);
    NotifyContext {
        now,
        rules: &spec.alerting,
        windows: of.windows,
        service: Some(&spec.name),
        covered: of.covered,
        current: !stale,
        silence: of.silence.or(stale.then_some(SuppressReason::NotCurrent)),
        cancelled: of.cancelled,
    }
}
