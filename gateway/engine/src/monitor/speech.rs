//! Turns the notifications of a checkable into records to commit. It also passes downtimes and
//! acknowledgements to a host and its services.
//!
//! It decides nothing about notifications; `voice.rs` does.

use fleetgate_probes::sample::Status;

use crate::id::HostId;
use crate::time::{Mono, Now, Wall};
use crate::wire::{
    Acknowledgement, Event, EventKind, HeldReason, HostSpec, HostStatus, Message, MessageKind, Record,
};

use super::downtime::Window;
use super::host::Host;
use super::service::Of;
use super::status::{Level, Track};
use super::turn::Turn;
use super::voice::{Said, Scene, Voice};

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
    pub fn records<S: Level>(&self, said: Vec<Said<S>>) -> Vec<Record> {
        said.into_iter().flat_map(|said| self.record(said)).collect()
    }

    fn record<S: Level>(&self, said: Said<S>) -> Vec<Record> {
        match said {
            Said::Told(notice) => vec![self.message(notice.kind, notice.from, notice.to, String::new())],
            Said::Acknowledged(state, by) => {
                vec![self.message(MessageKind::Acknowledged, state, state, by)]
            }
            Said::Held(notice, reason) => {
                let (from, to) = (notice.from.name(), notice.to.name());
                let kind = EventKind::NotificationHeld { kind: notice.kind, from, to, reason };
                vec![self.event(kind, reason.words().to_owned(), self.output)]
            }
            Said::Flapping { begins, percent } => {
                let kind = if begins { EventKind::FlappingStarted } else { EventKind::FlappingEnded };
                vec![self.event(
                    kind,
                    format!("{percent:.0} % of the last results were changes"),
                    self.output,
                )]
            }
            Said::Downtime { begins, of } => {
                let kind = if begins { EventKind::DowntimeStarted(of) } else { EventKind::DowntimeEnded(of) };
                let cause = if begins { "nobody is told of it" } else { "what is wrong is told again" };
                vec![self.event(kind, cause.to_owned(), self.output)]
            }
            Said::AckEnded(ack, end) => {
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

    /// `Turn::record` fills in the incident.
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
    pub(super) fn speak_due(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if self.voice.due().is_some_and(|at| at <= now) {
            self.speak(false, turn, Voice::review);
        }
        for i in 0..self.services.len() {
            if self.services[i].voice.due().is_some_and(|at| at <= now) {
                self.speak_of(i, false, turn, Voice::review);
            }
        }
    }

    /// Returns when the first of them is due.
    pub(super) fn voices_due(&self) -> Option<Mono> {
        self.services.iter().filter_map(|s| s.voice.due()).chain(self.voice.due()).min()
    }

    /// Re-evaluates all notifications, because their circumstances changed. `cancelled`: a downtime
    /// was removed.
    pub(super) fn review_all(&mut self, cancelled: bool, turn: &mut Turn<'_>) {
        self.speak(cancelled, turn, Voice::review);
        self.review_services(cancelled, turn);
    }

    /// Adjusts to a step of the wall clock; `jump`: a large one. Stored deadlines are rewritten,
    /// because a restart would count them by the new clock.
    pub(super) fn mind_step(&mut self, jump: bool, turn: &mut Turn<'_>) {
        if jump {
            self.excuse_silence(turn.now.mono);
        }
        if self.asleep {
            self.last_check = Some(turn.now.wall_at(self.silent_from()));
        }
        if self.asleep || self.voice.has_terms() {
            turn.record(self.row(turn.now));
        }
        for service in self.services.iter().filter(|service| service.voice.has_terms()) {
            turn.record(service.row(self.spec.id, turn.now));
        }
        self.review_all(false, turn);
    }

    pub(super) fn review_services(&mut self, cancelled: bool, turn: &mut Turn<'_>) {
        for i in 0..self.services.len() {
            self.speak_of(i, cancelled, turn, Voice::review);
        }
    }

    /// Replaces the downtimes that apply to this host.
    pub fn set_windows(&mut self, windows: Vec<Window>, turn: &mut Turn<'_>) {
        if windows != self.windows {
            let cancelled = windows.len() < self.windows.len();
            self.windows = windows;
            self.review_all(cancelled, turn);
        }
    }

    pub fn acknowledge(&mut self, service: Option<&str>, ack: Acknowledgement, turn: &mut Turn<'_>) {
        match service.map(|name| self.position(name)) {
            None => self.speak(false, turn, |v, track, scene| v.acknowledge(ack, track, scene)),
            Some(Some(i)) => {
                self.speak_of(i, false, turn, |v, track, scene| v.acknowledge(ack, track, scene))
            }
            Some(None) => turn.record(Record::AckEnded(ack.id, turn.now.wall)),
        }
    }

    pub fn unacknowledge(&mut self, service: Option<&str>, turn: &mut Turn<'_>) {
        match service.map(|name| self.position(name)) {
            None => self.speak(false, turn, Voice::unacknowledge),
            Some(Some(i)) => self.speak_of(i, false, turn, Voice::unacknowledge),
            Some(None) => {}
        }
    }

    /// Restores the acknowledgements of an earlier run. The acknowledgement of a removed service
    /// ends.
    pub(super) fn recall_acks(&mut self, acks: Vec<(Option<String>, Acknowledgement)>, turn: &mut Turn<'_>) {
        for (service, ack) in acks {
            match service.as_deref().map(|name| self.position(name)) {
                None => self.voice.recall_ack(ack),
                Some(Some(i)) => self.services[i].voice.recall_ack(ack),
                Some(None) => turn.record(Record::AckEnded(ack.id, turn.now.wall)),
            }
        }
    }

    pub(super) fn position(&self, service: &str) -> Option<usize> {
        self.services.iter().position(|s| s.spec.name == service)
    }

    fn speak(
        &mut self,
        cancelled: bool,
        turn: &mut Turn<'_>,
        act: impl FnOnce(&mut Voice<HostStatus>, &Track<HostStatus>, &Scene<'_>) -> Vec<Said<HostStatus>>,
    ) {
        let (before, covered) = (self.voice.state(turn.now), self.voice.in_downtime());
        self.place_before_speech(turn);
        let silence = self.silence();
        let scene = Scene { cancelled, ..host_scene(&self.spec, &self.windows, silence, turn.now) };
        let said = act(&mut self.voice, &self.track, &scene);
        if said.is_empty() && before == self.voice.state(turn.now) {
            return;
        }
        turn.record(self.row(turn.now));
        self.utter(said, turn);
        if covered != self.voice.in_downtime() {
            self.review_services(cancelled, turn);
        }
    }

    pub(super) fn utter(&self, said: Vec<Said<HostStatus>>, turn: &mut Turn<'_>) {
        let subject = self.subject(turn.now);
        subject.records(said).into_iter().for_each(|record| turn.record(record));
    }

    pub(super) fn subject(&self, now: Now) -> Subject<'_> {
        Subject {
            host: self.spec.id,
            name: &self.spec.name,
            service: None,
            output: &self.output,
            since: self.since,
            at: now.wall,
        }
    }

    fn speak_of(
        &mut self,
        i: usize,
        cancelled: bool,
        turn: &mut Turn<'_>,
        act: impl FnOnce(&mut ServiceVoice, &ServiceTrack, &Scene<'_>) -> Vec<Said<Option<Status>>>,
    ) {
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.voice);
        let of = Of { cancelled, ..of };
        let mut records = self.services[i].place_before_speech(of, turn);
        records.extend(self.services[i].speak(of, turn.now, act));
        records.into_iter().for_each(|record| turn.record(record));
    }
}

type ServiceVoice = Voice<Option<Status>>;
type ServiceTrack = Track<Option<Status>>;

pub fn host_scene<'a>(
    spec: &'a HostSpec,
    windows: &'a [Window],
    silence: Option<HeldReason>,
    now: Now,
) -> Scene<'a> {
    let (rules, service, covered) = (&spec.alerting, None, false);
    let current = silence != Some(HeldReason::NotCurrent);
    Scene { now, rules, windows, service, covered, current, silence, cancelled: false }
}

/// Returns the circumstances of the host for its services.
pub fn surroundings<'a>(
    spec: &'a HostSpec,
    windows: &'a [Window],
    silence: Option<HeldReason>,
    voice: &Voice<HostStatus>,
) -> Of<'a> {
    let (name, covered) = (spec.name.as_str(), voice.in_downtime());
    Of { host: spec.id, name, windows, covered, silence, cancelled: false }
}
