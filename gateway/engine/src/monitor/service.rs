//! One service of a host: its spec, its state, and what is under way for it.
//!
//! Takes a result and says what is to be recorded. Does not know what is asked of the host, nor
//! what the result depends on: `round.rs` has settled that.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::time::{Mono, Now, Wall};
use crate::wire::{
    AskId, Check, Event, EventKind, Message, Record, Sample, ServiceSpec, ServiceState, Timing,
};

use super::alert;
use super::depend::On;
use super::host::is_outdated;
use super::reach::Way;
use super::status::{Change, Level, Track};
use super::turn::cause;

#[derive(Debug)]
pub struct Service {
    pub spec: ServiceSpec,
    pub track: Track<Option<Status>>,
    pub stale: bool,
    since: Wall,
    last_check: Option<Wall>,
    route: String,
    result: PluginResult,
    notified: Option<Status>,
    /// When it is due, or was when it started; `None` while nothing starts it.
    pub planned: Option<Mono>,
    /// Somebody waits for a check that only what is newer can satisfy.
    pub newer_than: Option<Mono>,
    pub run: Run,
    /// The newest proof that it holds, for what depends on it.
    pub good_at: Option<Mono>,
    pub failed_at: Option<Mono>,
}

/// What is under way. Never two runs of one check.
#[derive(Debug, PartialEq)]
pub enum Run {
    Idle,
    Asked(AskId),
    /// Part of the host's SSH session.
    Riding,
    /// Failed, and waits for what it depends on.
    Held(Box<Held>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub result: PluginResult,
    pub way: Way,
    pub failed_at: Mono,
    pub on: On,
    /// What it depends on has been asked for its sake.
    pub asked: bool,
}

/// Who the host is, and whether it speaks for its services.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    pub host: HostId,
    pub name: &'a str,
    pub silenced: bool,
}

/// When the next check would be: the retry of a soft failure, or the next slot.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    pub regular: Mono,
    pub retry: Mono,
}

/// A planned time of an earlier run, if it is still to come.
pub fn ahead(planned: Option<Wall>, now: Now) -> Option<Mono> {
    planned.filter(|at| *at > now.wall).map(|at| now.mono + at.since(now.wall))
}

impl Service {
    pub fn new(spec: ServiceSpec, now: Now) -> Self {
        Service {
            spec,
            track: Track::pending(),
            stale: false,
            since: now.wall,
            last_check: None,
            route: String::new(),
            result: PluginResult::ok(""),
            notified: None,
            planned: None,
            newer_than: None,
            run: Run::Idle,
            good_at: None,
            failed_at: None,
        }
    }

    pub fn restored(spec: ServiceSpec, state: ServiceState, now: Now) -> Self {
        let track =
            Track { status: state.status, kind: state.kind, attempt: state.attempt, hard: state.hard };
        let failed_at = state.last_check.filter(|_| track.status.is_problem()).map(|at| now.mono_at(at));
        Service {
            track,
            stale: state.stale,
            since: state.since,
            last_check: state.last_check,
            route: state.route,
            result: state.result,
            notified: state.notified,
            failed_at,
            planned: ahead(state.next_check, now),
            ..Service::new(spec, now)
        }
    }

    pub fn is_idle(&self) -> bool {
        self.run == Run::Idle
    }

    pub fn is_due(&self, now: Mono) -> bool {
        self.is_idle() && self.planned.is_some_and(|at| at <= now)
    }

    /// Whether what depends on it can work. A threshold that warns breaks nothing.
    pub fn holds(&self) -> bool {
        !matches!(self.track.status, Some(Status::Critical | Status::Unknown))
    }

    /// What needs the host's one SSH session.
    pub fn rides(&self) -> bool {
        matches!(self.spec.check, Check::Ssh | Check::Sensor(_) | Check::Command { .. })
    }

    /// Takes another spec; only the same one on the same host keeps its plan.
    pub fn changed(self, spec: ServiceSpec, host_changed: bool) -> Self {
        let planned = self.planned.filter(|_| spec == self.spec && !host_changed);
        Service { spec, planned, ..self }
    }

    /// What is known is not current; whether that is new.
    pub fn mark_stale(&mut self) -> bool {
        let news = !self.stale && self.track.status.is_some();
        self.stale |= news;
        news
    }

    pub fn mark_outdated(&mut self, timing: &Timing, now: Now) -> bool {
        is_outdated(self.last_check, timing, now) && self.mark_stale()
    }

    /// Is checked again at `at`, after it was left alone.
    pub fn revive(&mut self, at: Mono) {
        self.track.forgive();
        self.planned = Some(at);
    }

    pub fn text(&self) -> &str {
        &self.result.text
    }

    /// Takes a result that counts.
    pub fn take(&mut self, result: PluginResult, way: Way, of: Of<'_>, next: Next, now: Now) -> Vec<Record> {
        let before = self.track.status;
        let change = self.track.apply(Some(result.status), self.spec.timing.attempts);
        self.since = if before == self.track.status { self.since } else { now.wall };
        self.planned = Some(if self.track.is_soft() { next.retry } else { next.regular });
        self.run = Run::Idle;
        self.stale = false;
        self.last_check = Some(now.wall);
        self.route = way.name().to_owned();
        self.result = result;
        if self.track.status.is_problem() {
            self.failed_at = Some(now.mono);
        }
        let notice = alert::due(&self.track, self.notified.map(Some), of.silenced);
        if let Some(notice) = &notice {
            self.notified = alert::notified(notice).flatten();
        }
        let mut records = vec![self.row(of.host, now)];
        records.extend(self.sample(of.host, now));
        records.extend(change.map(|change| self.event(change, of.host, now)));
        records.extend(notice.map(|notice| self.message(notice, of, now)));
        records
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
                since: self.since,
                last_check: self.last_check,
                next_check: self.planned.map(|at| now.wall + at.since(now.mono)),
                route: self.route.clone(),
                result: self.result.clone(),
                notified: self.notified,
            },
        )
    }

    fn sample(&self, host: HostId, now: Now) -> Option<Record> {
        let metrics = self.result.metrics.clone();
        let sample = Sample { host, service: self.spec.name.clone(), at: now.wall, metrics };
        (!sample.metrics.is_empty()).then_some(Record::Sample(sample))
    }

    fn event(&self, change: Change<Option<Status>>, host: HostId, now: Now) -> Record {
        Record::Event(Event {
            at: now.wall,
            host,
            service: Some(self.spec.name.clone()),
            kind: EventKind::StateChanged {
                from: change.from.name(),
                to: change.to.name(),
                hard: change.hard,
            },
            cause: cause(&self.track, &change, self.spec.timing.attempts),
            evidence: self.result.text.clone(),
        })
    }

    fn message(&self, notice: alert::Notice<Option<Status>>, of: Of<'_>, now: Now) -> Record {
        Record::Message(Message {
            at: now.wall,
            host: of.host,
            host_name: of.name.to_owned(),
            service: Some(self.spec.name.clone()),
            kind: notice.kind(),
            problem: notice.problem,
            from: notice.from.name(),
            to: notice.to.name(),
            output: self.result.text.clone(),
            since: self.since,
        })
    }
}
