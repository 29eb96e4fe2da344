//! The notifications of one checkable: the transitions of `transition.rs`, suppressed or not (SEMANTICS
//! 6).
//!
//! Hosts and services share it. From results and the passing of time, it returns the notifications
//! to emit and the suppressed ones with the reason (once for each transition). It also returns the
//! time of its next evaluation. Its state is persisted with that of the checkable. This module
//! knows no check schedule and no receiver.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::id::Id;
use crate::messages::{
    AckEnd, Acknowledgement, Alerting, DowntimeOccurrence, IncidentId, MessageKind, NotificationState,
    SuppressReason, Suppressed,
};
use crate::time::{Mono, Now};

use crate::messages::flapping::Ring;
use crate::monitor::downtime::{Begun, Window};
use crate::monitor::notification::transition;
use crate::monitor::notification::transition::{LastNotified, Notice};
use crate::monitor::state::{Change, Level, Track};

/// The circumstances of a checkable.
#[derive(Clone, Copy, Debug)]
pub struct NotifyContext<'a> {
    pub now: Now,
    pub rules: &'a Alerting,
    /// Downtimes of the host, and the service that this is (`None`: the host itself).
    pub windows: &'a [Window],
    pub service: Option<&'a str>,
    /// Whether a downtime of the host covers its services.
    pub covered: bool,
    /// Whether the state is current; if not, it begins no flexible downtime.
    pub current: bool,
    /// The reason why every notification is suppressed.
    pub silence: Option<SuppressReason>,
    /// Whether a downtime was just removed.
    pub cancelled: bool,
}

impl<'a> NotifyContext<'a> {
    fn own(&self) -> impl Iterator<Item = &'a Window> + Clone + use<'a> {
        let (windows, service) = (self.windows, self.service);
        windows.iter().filter(move |w| w.service.as_deref() == service)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Emitted<S> {
    Notification(Notice<S>),
    Suppressed(Notice<S>, SuppressReason),
    Flapping {
        begins: bool,
        percent: f64,
    },
    Downtime {
        begins: bool,
        of: DowntimeOccurrence,
    },
    /// Acknowledged, with the author and the comment.
    Acknowledged(S, String),
    AckEnded(Acknowledgement, AckEnd),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notifier<S> {
    told: LastNotified<S>,
    recent: Ring,
    flapping: bool,
    ack: Option<Box<Acknowledgement>>,
    begun: Begun,
    own_downtime: Option<DowntimeOccurrence>,
    in_downtime: bool,
    is_quiet: bool,
    remind_from: Option<Mono>,
    problem_since: Option<Mono>,
    awaits_result: bool,
    held: Option<Suppressed>,
    stored_reason: Option<SuppressReason>,
    /// The time of the next evaluation without a result.
    due: Option<Mono>,
}

impl<S: Level> Default for Notifier<S> {
    fn default() -> Self {
        Notifier::restored(None, NotificationState::default(), Now::default())
    }
}

impl<S: Level> Notifier<S> {
    /// Continues from an earlier run; the first evaluation is due at once.
    pub fn restored(notified: Option<S>, state: NotificationState, now: Now) -> Self {
        let told = notified.map_or(LastNotified::Nothing, LastNotified::Problem);
        Notifier {
            told: if state.told_flapping { LastNotified::Flapping } else { told },
            recent: state.recent,
            flapping: state.flapping,
            ack: None,
            begun: Begun(state.begun),
            own_downtime: state.own_downtime,
            in_downtime: state.in_downtime,
            is_quiet: state.is_quiet,
            remind_from: state.remind_from.map(|at| now.mono_at(at)),
            problem_since: state.problem_since.map(|at| now.mono_at(at)),
            awaits_result: state.awaits_result,
            held: state.held,
            stored_reason: state.suppressed_by,
            due: Some(now.mono),
        }
    }

    pub fn state(&self, now: Now) -> NotificationState {
        NotificationState {
            recent: self.recent,
            flapping: self.flapping,
            told_flapping: self.told == LastNotified::Flapping,
            in_downtime: self.in_downtime,
            is_quiet: self.is_quiet,
            own_downtime: self.own_downtime,
            begun: self.begun.0.clone(),
            remind_from: self.remind_from.map(|at| now.wall_at(at)),
            problem_since: self.problem_since.map(|at| now.wall_at(at)),
            awaits_result: self.awaits_result,
            held: self.held,
            suppressed_by: self.stored_reason,
        }
    }

    pub fn notified(&self) -> Option<S> {
        self.told.problem()
    }

    pub fn in_downtime(&self) -> bool {
        self.in_downtime
    }

    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Notes whether its device is prepared for a rental, on its way, or in the maintenance of its rental. The next
    /// evaluation considers it.
    pub fn set_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// Whether a downtime or a rental covers it from this moment on.
    pub fn is_planned(&self, track: &Track<S>, scene: &NotifyContext<'_>) -> bool {
        let failing = track.status.is_problem() && scene.current;
        let own = || Begun(self.begun.0.clone()).see(scene.own(), failing, scene.now.wall).is_some();
        self.is_quiet || scene.covered || !scene.windows.is_empty() && own()
    }

    /// Whether its problem may be notified from this moment on, even if it was suppressed before.
    pub fn may_complain(&self, track: &Track<S>, scene: &NotifyContext<'_>) -> bool {
        let current = track.hard.is_problem() && scene.silence.is_none() && !self.awaits_result;
        current && !self.is_planned(track, scene)
    }

    pub fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Whether it has a start time from which a delay or a reminder counts.
    pub fn has_terms(&self) -> bool {
        self.remind_from.is_some() || self.problem_since.is_some()
    }

    /// Suppresses notifications until a newer result, because the state dates from a time without
    /// notifications.
    pub fn await_result(&mut self) {
        self.awaits_result = true;
    }

    pub fn awaits_result(&self) -> bool {
        self.awaits_result
    }

    /// Evaluates notifications after a result was applied to `track`; `before` is the status shown
    /// before.
    pub fn on_result(
        &mut self,
        before: S,
        track: &Track<S>,
        change: Option<&Change<S>>,
        scene: &NotifyContext<'_>,
    ) -> Vec<Emitted<S>> {
        let mut said = Vec::new();
        // Results of an unreachable host do not count for flapping.
        if scene.silence != Some(SuppressReason::Unreachable) {
            match scene.rules.flapping.ignore.has(track.status.code()) {
                true => self.recent.repeat(),
                false => self.recent.push(track.status.code()),
            }
        }
        self.awaits_result =
            matches!(scene.silence, Some(SuppressReason::HostDown | SuppressReason::Unreachable));
        self.problem_since = match self.problem_since {
            _ if !track.hard.is_problem() => None,
            since => since.or(Some(scene.now.mono)),
        };
        self.end_ack_by_state(before, track.status, &mut said);
        self.see_flapping(scene, &mut said);
        self.see_time(track, scene, &mut said);
        if self.flapping && change.is_some_and(|c| c.hard) {
            self.hold(hard_notice(self.told, track), SuppressReason::Flapping, &mut said);
        }
        self.repeat(track, scene, &mut said);
        self.speak(track, scene, &mut said);
        said
    }

    /// Re-evaluates notifications for another reason than a result.
    pub fn re_evaluate(&mut self, track: &Track<S>, scene: &NotifyContext<'_>) -> Vec<Emitted<S>> {
        let mut said = Vec::new();
        if self.flapping && !scene.rules.flapping.enabled {
            self.see_flapping(scene, &mut said);
        }
        self.see_time(track, scene, &mut said);
        self.speak(track, scene, &mut said);
        said
    }

    pub fn is_acknowledged(&self) -> bool {
        self.ack.is_some()
    }

    /// Whether it is unacknowledged, or acknowledged only through that incident, so that a new
    /// acknowledgement of the incident applies.
    pub fn is_free_for(&self, incident: Option<IncidentId>) -> bool {
        self.ack.as_ref().is_none_or(|ack| ack.incident.is_some() && ack.incident == incident)
    }

    /// Returns the acknowledgement that it has through an incident.
    pub fn covered_by(&self, incident: IncidentId) -> Option<Id> {
        self.ack.as_ref().filter(|ack| ack.incident == Some(incident)).map(|ack| ack.id)
    }

    /// Ends the acknowledgement of an incident that it has left.
    pub fn leave(&mut self, incident: IncidentId) -> Option<Emitted<S>> {
        let ack = self.ack.take_if(|ack| ack.incident == Some(incident))?;
        Some(Emitted::AckEnded(*ack, AckEnd::LeftIncident))
    }

    /// Restores an acknowledgement from an earlier run, or applies that of an incident it has
    /// joined.
    pub fn recall_ack(&mut self, ack: Acknowledgement) {
        self.ack = Some(Box::new(ack));
    }

    /// Acknowledges the problem. The acknowledgement ends at once if the state is ok by now.
    pub fn acknowledge(
        &mut self,
        ack: Acknowledgement,
        track: &Track<S>,
        scene: &NotifyContext<'_>,
    ) -> Vec<Emitted<S>> {
        if !track.status.is_problem() {
            return vec![Emitted::AckEnded(ack, AckEnd::Well)];
        }
        let by = ack.words.clone();
        self.ack = Some(Box::new(ack));
        let mut said = self.re_evaluate(track, scene);
        if scene.rules.notify.kinds.has(MessageKind::Acknowledged) {
            said.push(Emitted::Acknowledged(track.status, by));
        }
        said
    }

    pub fn unacknowledge(&mut self, track: &Track<S>, scene: &NotifyContext<'_>) -> Vec<Emitted<S>> {
        self.ack = None;
        self.re_evaluate(track, scene)
    }

    fn end_ack_by_state(&mut self, before: S, status: S, said: &mut Vec<Emitted<S>>) {
        let end = match &self.ack {
            Some(_) if !status.is_problem() => AckEnd::Well,
            Some(ack) if !ack.sticky && before != status => AckEnd::StateChanged,
            _ => return,
        };
        said.extend(self.ack.take().map(|ack| Emitted::AckEnded(*ack, end)));
    }

    fn see_flapping(&mut self, scene: &NotifyContext<'_>, said: &mut Vec<Emitted<S>>) {
        let flaps = self.recent.flaps(self.flapping, &scene.rules.flapping);
        if flaps != self.flapping {
            said.push(Emitted::Flapping { begins: flaps, percent: self.recent.percent() });
        }
        self.flapping = flaps;
    }

    /// Applies calendar changes: downtimes, and the expiry of an acknowledgement.
    fn see_time(&mut self, track: &Track<S>, scene: &NotifyContext<'_>, said: &mut Vec<Emitted<S>>) {
        let failing = track.status.is_problem() && scene.current;
        let own = self.begun.see(scene.own(), failing, scene.now.wall);
        self.in_downtime = self.is_quiet || own.is_some() || scene.covered;
        let before = std::mem::replace(&mut self.own_downtime, own);
        if let Some(of) = own.or(before).filter(|_| own.is_some() != before.is_some()) {
            let begins = own.is_some();
            said.push(Emitted::Downtime { begins, of });
            let kind = match (begins, scene.cancelled) {
                (true, _) => MessageKind::DowntimeStart,
                (false, true) => MessageKind::DowntimeCancelled,
                (false, false) => MessageKind::DowntimeEnd,
            };
            self.mention(kind, track, scene, said);
        }
        let expired = |a: &mut Box<Acknowledgement>| a.expires.is_some_and(|at| at <= scene.now.wall);
        said.extend(self.ack.take_if(expired).map(|ack| Emitted::AckEnded(*ack, AckEnd::Expired)));
    }

    /// Emits the pending notifications that are not suppressed, then plans the next evaluation.
    fn speak(&mut self, track: &Track<S>, scene: &NotifyContext<'_>, said: &mut Vec<Emitted<S>>) {
        loop {
            let Some(notice) = transition::next(self.told, track, self.flapping) else {
                self.held = self.held.filter(|held| held.reason == SuppressReason::Flapping);
                break;
            };
            match self.suppressed_by(&notice, scene) {
                None => self.tell(notice, scene.now.mono, said),
                // The receivers do not want this kind, but the transition is complete. Flapping is
                // the exception: its end must still close the problem notified before it.
                Some(SuppressReason::Kind)
                    if !matches!(notice.kind, MessageKind::Problem | MessageKind::FlappingStart) =>
                {
                    self.hold(notice, SuppressReason::Kind, said);
                    self.told = notice.leaves(self.told);
                }
                Some(reason) => {
                    self.hold(notice, reason, said);
                    break;
                }
            }
        }
        self.remind(track, scene, said);
        self.due = self.next_look(track, scene);
        self.stored_reason = stored_reason(track, scene);
    }

    fn tell(&mut self, notice: Notice<S>, now: Mono, said: &mut Vec<Emitted<S>>) {
        self.told = notice.leaves(self.told);
        self.remind_from = Some(now);
        self.held = None;
        said.push(Emitted::Notification(notice));
    }

    fn hold(&mut self, notice: Notice<S>, reason: SuppressReason, said: &mut Vec<Emitted<S>>) {
        let held = Some(Suppressed { kind: notice.kind, to: notice.to.code(), reason });
        if self.held != held {
            self.held = held;
            said.push(Emitted::Suppressed(notice, reason));
        }
    }

    /// Returns the first reason that suppresses a notification.
    fn suppressed_by(&self, notice: &Notice<S>, scene: &NotifyContext<'_>) -> Option<SuppressReason> {
        let problem = matches!(notice.kind, MessageKind::Problem | MessageKind::Reminder);
        let early = |since: Mono| scene.now.mono.since(since) < scene.rules.notify.delay;
        let waits = || problem && self.told == LastNotified::Nothing && self.problem_since.is_some_and(early);
        self.suppressed_by_state(problem, scene)
            .or_else(|| filtered(notice, problem, scene.rules))
            .or_else(|| waits().then_some(SuppressReason::Delay))
    }

    fn suppressed_by_state(&self, problem: bool, scene: &NotifyContext<'_>) -> Option<SuppressReason> {
        let acknowledged = problem && self.ack.is_some();
        scene
            .silence
            .or(self.awaits_result.then_some(SuppressReason::NotCurrent))
            .or(self.is_quiet.then_some(SuppressReason::Rental))
            .or(self.in_downtime.then_some(SuppressReason::Downtime))
            .or(acknowledged.then_some(SuppressReason::Acknowledged))
    }

    /// Returns why the problem is not notified now, although it was notified before: a message
    /// about it may still wait. A delay counts only before the first notification.
    pub fn suppression(&self, track: &Track<S>, scene: &NotifyContext<'_>) -> Option<SuppressReason> {
        self.suppressed_by_state(true, scene)
            .or(self.flapping.then_some(SuppressReason::Flapping))
            .or_else(|| filtered_problem(track, scene))
    }

    /// Whether it is ok and needs no later notification.
    pub fn is_over(&self, track: &Track<S>) -> bool {
        let ok = track.hard != S::PENDING && !track.hard.is_problem();
        ok && !self.flapping && self.told == LastNotified::Nothing
    }

    /// Notifies each hard failure of a volatile checkable. If these are suppressed, that is no
    /// transition and is not recorded.
    fn repeat(&mut self, track: &Track<S>, scene: &NotifyContext<'_>, said: &mut Vec<Emitted<S>>) {
        let again = scene.rules.volatile && !self.flapping && !track.is_soft();
        if again && track.hard.is_problem() && self.told == LastNotified::Problem(track.hard) {
            let notice = Notice::about(MessageKind::Problem, track.hard);
            if self.suppressed_by(&notice, scene).is_none() {
                self.tell(notice, scene.now.mono, said);
            }
        }
    }

    /// Notifies receivers of an operator's action if they asked for its kind, even if other
    /// notifications are suppressed.
    fn mention(
        &mut self,
        kind: MessageKind,
        track: &Track<S>,
        scene: &NotifyContext<'_>,
        said: &mut Vec<Emitted<S>>,
    ) {
        if scene.rules.notify.kinds.has(kind) {
            said.push(Emitted::Notification(Notice::about(kind, track.status)));
        }
    }

    /// Sends reminders by timer while they are not suppressed. After a suppression the interval
    /// begins anew.
    fn remind(&mut self, track: &Track<S>, scene: &NotifyContext<'_>, said: &mut Vec<Emitted<S>>) {
        let notice = Notice::about(MessageKind::Reminder, track.hard);
        let owed = self.told == LastNotified::Problem(track.hard) && !track.is_soft() && !self.flapping;
        let wanted =
            scene.rules.notify.interval.filter(|_| owed && self.suppressed_by(&notice, scene).is_none());
        let Some(interval) = wanted else {
            self.remind_from = None;
            return;
        };
        let from = *self.remind_from.get_or_insert(scene.now.mono);
        if scene.now.mono.since(from) >= interval {
            self.tell(notice, scene.now.mono, said);
        }
    }

    fn next_look(&self, track: &Track<S>, scene: &NotifyContext<'_>) -> Option<Mono> {
        let (now, notify) = (scene.now, &scene.rules.notify);
        let after = |from: Option<Mono>, wait: Option<Duration>| Some(from? + wait?);
        let delay = after(self.problem_since.filter(|_| track.hard.is_problem()), Some(notify.delay));
        let reminder = after(self.remind_from, notify.interval);
        let edge = self.begun.next(scene.own(), now.wall);
        let expiry = self.ack.as_ref().and_then(|ack| ack.expires);
        let by_calendar = edge.into_iter().chain(expiry).map(|at| now.mono + at.since(now.wall));
        delay.into_iter().chain(reminder).chain(by_calendar).filter(|at| *at > now.mono).min()
    }
}

/// Returns the notification of the hard state that flapping replaces.
fn hard_notice<S: Level>(told: LastNotified<S>, track: &Track<S>) -> Notice<S> {
    let kind = if track.hard.is_problem() { MessageKind::Problem } else { MessageKind::Recovery };
    Notice { kind, from: told.state(), to: track.hard }
}

/// Returns why the settings exclude a notification.
fn filtered<S: Level>(notice: &Notice<S>, problem: bool, rules: &Alerting) -> Option<SuppressReason> {
    let notify = &rules.notify;
    match () {
        () if problem && !notify.states.has(notice.to.code()) => Some(SuppressReason::State),
        () if !notify.kinds.has(notice.kind) => Some(SuppressReason::Kind),
        () => None,
    }
}

fn filtered_problem<S: Level>(track: &Track<S>, scene: &NotifyContext<'_>) -> Option<SuppressReason> {
    let notice = Notice::about(MessageKind::Problem, track.hard);
    filtered(&notice, true, scene.rules).filter(|_| track.hard.is_problem())
}

/// Returns the value of [`NotificationState::suppressed_by`].
fn stored_reason<S: Level>(track: &Track<S>, scene: &NotifyContext<'_>) -> Option<SuppressReason> {
    let in_doubt = scene.silence.filter(|reason| *reason == SuppressReason::ParentInDoubt);
    in_doubt.or_else(|| filtered_problem(track, scene))
}
