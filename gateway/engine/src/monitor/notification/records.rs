//! Turns the notifications of a checkable into records to commit. It also passes downtimes and
//! acknowledgements to a host and its services.
//!
//! It decides nothing about notifications; `suppress` does.

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::messages::{
    Acknowledgement, Event, EventKind, HostSpec, HostStatus, Message, MessageKind, Record, SuppressReason,
};
use crate::time::{Mono, Now, Wall};

use crate::monitor::context::Ctx;
use crate::monitor::downtime::Window;
use crate::monitor::host::Host;
use crate::monitor::notification::suppress::{Emitted, Notifier, NotifyContext};
use crate::monitor::service::HostContext;
use crate::monitor::state::{Level, Track};

/// The checkable of a record.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub host: HostId,
    pub name: &'a str,
    pub service: Option<&'a str>,
    pub output: &'a str,
    pub since: Wall,
    pub at: Wall,
}

impl Subject<'_> {
    pub fn records<S: Level>(&self, said: Vec<Emitted<S>>) -> Vec<Record> {
        said.into_iter().flat_map(|said| self.record(said)).collect()
    }

    fn record<S: Level>(&self, said: Emitted<S>) -> Vec<Record> {
        match said {
            Emitted::Notification(notice) => {
                vec![self.message(notice.kind, notice.from, notice.to, String::new())]
            }
            Emitted::Acknowledged(state, by) => {
                vec![self.message(MessageKind::Acknowledged, state, state, by)]
            }
            Emitted::Suppressed(notice, reason) => {
                let (from, to) = (notice.from.name(), notice.to.name());
                let kind = EventKind::NotificationHeld { kind: notice.kind, from, to, reason };
                vec![self.event(kind, reason.words().to_owned(), self.output)]
            }
            Emitted::Flapping { begins, percent } => {
                let kind = if begins { EventKind::FlappingStarted } else { EventKind::FlappingEnded };
                vec![self.event(
                    kind,
                    format!("{percent:.0} % of the last results were changes"),
                    self.output,
                )]
            }
            Emitted::Downtime { begins, of } => {
                let kind = if begins { EventKind::DowntimeStarted(of) } else { EventKind::DowntimeEnded(of) };
                let cause = if begins { "notifications are suppressed" } else { "notifications resume" };
                vec![self.event(kind, cause.to_owned(), self.output)]
            }
            Emitted::AckEnded(ack, end) => {
                let event = self.event(
                    EventKind::AcknowledgementEnded(ack.id, end),
                    end.words().to_owned(),
                    &ack.words,
                );
                vec![Record::AckEnded(ack.id, self.at), event]
            }
        }
    }

    pub fn event(&self, kind: EventKind, cause: String, evidence: &str) -> Record {
        Record::Event(Event {
            at: self.at,
            host: self.host,
            service: self.service.map(str::to_owned),
            kind,
            cause,
            evidence: evidence.into(),
            by: None,
        })
    }

    /// `Ctx::record` fills in the incident.
    fn message<S: Level>(&self, kind: MessageKind, from: S, to: S, note: String) -> Record {
        Record::Message(Message {
            at: self.at,
            host: self.host,
            host_name: self.name.to_owned(),
            service: self.service.map(str::to_owned),
            kind,
            problem: to.is_problem(),
            from: from.name(),
            to: to.name(),
            output: self.output.into(),
            since: self.since,
            incident: None,
            note,
        })
    }
}

impl Host {
    /// Re-evaluates every notification that is due.
    pub(in crate::monitor) fn speak_due(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        if self.notifier.due().is_some_and(|at| at <= now) {
            self.speak(false, ctx, Notifier::re_evaluate);
        }
        for i in 0..self.services.len() {
            if self.services[i].notifier.due().is_some_and(|at| at <= now) {
                self.speak_of(i, false, ctx, Notifier::re_evaluate);
            }
        }
    }

    /// Returns when the first notification is to be re-evaluated.
    pub(in crate::monitor) fn notifications_due(&self) -> Option<Mono> {
        self.services.iter().filter_map(|s| s.notifier.due()).chain(self.notifier.due()).min()
    }

    /// Re-evaluates all notifications, because their circumstances changed. `cancelled`: a downtime
    /// was removed.
    pub(in crate::monitor) fn re_evaluate_all(&mut self, cancelled: bool, ctx: &mut Ctx<'_>) {
        self.speak(cancelled, ctx, Notifier::re_evaluate);
        self.re_evaluate_services(cancelled, ctx);
    }

    /// Adjusts to a step of the wall clock; `jump`: a large one. Stored deadlines are rewritten,
    /// because a restart would count them by the new clock.
    pub(in crate::monitor) fn mind_step(&mut self, jump: bool, ctx: &mut Ctx<'_>) {
        if jump {
            self.excuse_silence(ctx.now.mono);
        }
        if self.asleep {
            self.result.move_to(ctx.now.wall_at(self.proofs.silent_from()));
        }
        if self.asleep || self.notifier.has_terms() {
            ctx.record(self.row(ctx.now));
        }
        for service in self.services.iter().filter(|service| service.notifier.has_terms()) {
            ctx.record(service.row(self.spec.id, ctx.now));
        }
        self.re_evaluate_all(false, ctx);
    }

    pub(in crate::monitor) fn re_evaluate_services(&mut self, cancelled: bool, ctx: &mut Ctx<'_>) {
        for i in 0..self.services.len() {
            self.speak_of(i, cancelled, ctx, Notifier::re_evaluate);
        }
    }

    /// Replaces the downtimes that apply to this host.
    pub fn set_windows(&mut self, windows: Vec<Window>, ctx: &mut Ctx<'_>) {
        if windows != self.windows {
            let cancelled = windows.len() < self.windows.len();
            self.windows = windows;
            self.re_evaluate_all(cancelled, ctx);
        }
    }

    pub fn acknowledge(&mut self, service: Option<&str>, ack: Acknowledgement, ctx: &mut Ctx<'_>) {
        match service.map(|name| self.position(name)) {
            None => self.speak(false, ctx, |v, track, scene| v.acknowledge(ack, track, scene)),
            Some(Some(i)) => self.speak_of(i, false, ctx, |v, track, scene| v.acknowledge(ack, track, scene)),
            Some(None) => ctx.record(Record::AckEnded(ack.id, ctx.now.wall)),
        }
    }

    pub fn unacknowledge(&mut self, service: Option<&str>, ctx: &mut Ctx<'_>) {
        match service.map(|name| self.position(name)) {
            None => self.speak(false, ctx, Notifier::unacknowledge),
            Some(Some(i)) => self.speak_of(i, false, ctx, Notifier::unacknowledge),
            Some(None) => {}
        }
    }

    /// Restores the acknowledgements of an earlier run. The acknowledgement of a removed service
    /// ends.
    pub(in crate::monitor) fn recall_acks(
        &mut self,
        acks: Vec<(Option<String>, Acknowledgement)>,
        ctx: &mut Ctx<'_>,
    ) {
        for (service, ack) in acks {
            match service.as_deref().map(|name| self.position(name)) {
                None => self.notifier.recall_ack(ack),
                Some(Some(i)) => self.services[i].notifier.recall_ack(ack),
                Some(None) => ctx.record(Record::AckEnded(ack.id, ctx.now.wall)),
            }
        }
    }

    pub(in crate::monitor) fn position(&self, service: &str) -> Option<usize> {
        self.services.iter().position(|s| s.spec.name == service)
    }

    fn speak(
        &mut self,
        cancelled: bool,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(
            &mut Notifier<HostStatus>,
            &Track<HostStatus>,
            &NotifyContext<'_>,
        ) -> Vec<Emitted<HostStatus>>,
    ) {
        let (before, covered) = (self.notifier.state(ctx.now), self.notifier.in_downtime());
        self.place_before_speech(ctx);
        let silence = self.silence();
        let scene = NotifyContext { cancelled, ..host_scene(&self.spec, &self.windows, silence, ctx.now) };
        let said = act(&mut self.notifier, &self.track, &scene);
        if said.is_empty() && before == self.notifier.state(ctx.now) {
            return;
        }
        ctx.record(self.row(ctx.now));
        self.emit(said, ctx);
        if covered != self.notifier.in_downtime() {
            self.re_evaluate_services(cancelled, ctx);
        }
    }

    pub(in crate::monitor) fn emit(&self, said: Vec<Emitted<HostStatus>>, ctx: &mut Ctx<'_>) {
        let subject = self.subject(ctx.now);
        subject.records(said).into_iter().for_each(|record| ctx.record(record));
    }

    pub(in crate::monitor) fn subject(&self, now: Now) -> Subject<'_> {
        Subject {
            host: self.spec.id,
            name: &self.spec.name,
            service: None,
            output: self.result.output(),
            since: self.result.since().status,
            at: now.wall,
        }
    }

    fn speak_of(
        &mut self,
        i: usize,
        cancelled: bool,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut ServiceNotifier, &ServiceTrack, &NotifyContext<'_>) -> Vec<Emitted<Option<Status>>>,
    ) {
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.notifier);
        let of = HostContext { cancelled, ..of };
        let mut records = self.services[i].place_before_speech(of, ctx);
        records.extend(self.services[i].speak(of, ctx.now, act));
        records.into_iter().for_each(|record| ctx.record(record));
    }
}

type ServiceNotifier = Notifier<Option<Status>>;
type ServiceTrack = Track<Option<Status>>;

pub fn host_scene<'a>(
    spec: &'a HostSpec,
    windows: &'a [Window],
    silence: Option<SuppressReason>,
    now: Now,
) -> NotifyContext<'a> {
    let (rules, service, covered) = (&spec.alerting, None, false);
    let current = silence != Some(SuppressReason::NotCurrent);
    NotifyContext { now, rules, windows, service, covered, current, silence, cancelled: false }
}

/// Returns the circumstances of the host for its services.
pub fn surroundings<'a>(
    spec: &'a HostSpec,
    windows: &'a [Window],
    silence: Option<SuppressReason>,
    notifier: &Notifier<HostStatus>,
) -> HostContext<'a> {
    let (name, covered) = (spec.name.as_str(), notifier.in_downtime());
    HostContext { host: spec.id, name, windows, covered, silence, cancelled: false }
}
