//! A host: its spec, its state, its services, and the order in which they are checked.
//!
//! The host's own check comes first; its services follow while it is up and are left alone, with
//! their last states marked not current, while it is not. Its own check is in `vital.rs`, those of
//! its services in `round.rs`, what the tunnel tells unasked in `news.rs`.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::{HostId, PeerId};
use crate::time::{Mono, Now, Wall};
use crate::wire::{
    AskId, Detail, DirectAnswer, HeldReason, HostKey, HostMemory, HostSpec, HostState, HostStatus, Record,
    ServiceSpec, ServiceState, Taken, Timing, is_of_others, is_through_tunnel,
};

use super::downtime::Window;
use super::liveness::Liveness;
use super::pace;
use super::parents::Reach;
use super::reach::Paths;
use super::service::{Run, Service, ahead};
use super::session::Session;
use super::status::{Level, Track};
use super::turn::Turn;
use super::undecided::Undecided;
use super::vital::Vain;
use super::voice::Voice;

/// A change takes effect within this time; less where the retry interval is shorter. Spreads what a
/// change of a whole fleet's profile starts.
const SOON: Duration = Duration::from_secs(10);

/// A state whose last result is this many intervals old at a restart is not current any more.
const STALE_INTERVALS: u32 = 2;

pub struct Host {
    /// Without the services: each holds its own spec.
    pub(super) spec: HostSpec,
    pub(super) paths: Paths,
    pub(super) track: Track<HostStatus>,
    pub(super) stale: bool,
    pub(super) asleep: bool,
    pub(super) since: Wall,
    pub(super) last_check: Option<Wall>,
    pub(super) source: String,
    pub(super) direct: DirectAnswer,
    /// When its own check began last.
    pub(super) check_began: Option<Wall>,
    /// When the first check began of those that nothing answered since.
    pub(super) unanswered_since: Option<Wall>,
    pub(super) last_alive: Option<Wall>,
    pub(super) output: String,
    pub(super) detail: Detail,
    pub(super) voice: Voice<HostStatus>,
    /// Results of it that were sent.
    pub(super) taken: Taken,
    /// Downtimes that are for this host.
    pub(super) windows: Vec<Window>,
    pub(super) reach: Reach,
    /// Since the first failure of this row of them.
    pub(super) failing_since: Option<Mono>,
    /// Since that is hard. After a restart, from when its parents can be judged again.
    pub(super) hard_since: Option<Mono>,
    /// Since the first silence of this row, counted or not, that this run of the gateway saw.
    pub(super) silent_since: Option<Mono>,
    /// It failed, and its parents are to be asked.
    pub(super) wants_parents: bool,

    /// When its own check is due.
    pub(super) planned: Option<Mono>,
    /// Somebody waits for a check that only what is newer can satisfy.
    pub(super) newer_than: Option<Mono>,
    /// What it was planned for is somebody else's failure, which asks for no more than an echo.
    pub(super) in_passing: bool,
    /// When it was asked so last.
    pub(super) asked_in_passing: Option<Mono>,
    /// Its own check, under way with these questions.
    pub(super) check: Option<Box<Liveness>>,
    pub(super) questions: Vec<AskId>,
    /// It found nothing while it is being found out whether that is our own doing.
    pub(super) undecided: Option<Undecided>,
    /// When it answered a question last.
    pub(super) answered_at: Option<Mono>,
    /// Its packets arrive, and our questions get no answer; not yet often enough to be believed.
    pub(super) vain: Option<Vain>,
    /// The same, often enough.
    pub(super) one_way: bool,
    /// When its key was replaced last, in this run of the gateway.
    pub(super) keyed_at: Mono,
    /// The tunnel it is reached through has carried something, ever.
    pub(super) came: bool,
    /// The newest proof of life, which others may have sent.
    pub(super) good_at: Option<Mono>,
    /// The newest that is its own.
    pub(super) proved_at: Option<Mono>,
    /// When something that was sent through its tunnel was answered last. A packet that merely arrives proves one
    /// direction.
    pub(super) carried_at: Option<Mono>,
    pub(super) failed_at: Option<Mono>,
    /// From when on silence counts: what was before was not watched.
    pub(super) watched_from: Mono,
    /// From when on the silence of whoever sends its results counts.
    pub(super) heard_at: Mono,
    /// How many times its interval it is believed for, behind a device.
    pub(super) stretch: u32,
    pub(super) dialled: Option<Mono>,
    pub(super) dial_failed: Option<Mono>,

    pub(super) services: Vec<Service>,
    pub(super) session: Option<Session>,
    /// How long the last SSH session took to open.
    pub(super) connect: Option<Duration>,
    /// What the tunnel knew last of the device's clock.
    pub(super) skew_ms: Option<i64>,
    /// A host key seen first through the tunnel, or the type of the pinned one, until the spec has it.
    pub(super) learnt: Option<HostKey>,
    /// The key that the last event about a changed host key named.
    pub(super) strange_key: Option<String>,
    pub(super) told: super::news::Told,
}

impl Host {
    /// A host that is new to the monitor. Asked at once: what proves it may be there already.
    pub fn new(spec: HostSpec, windows: Vec<Window>, now: Now) -> Host {
        Host { planned: Some(now.mono), windows, ..Host::blank(spec, now) }
    }

    /// Continues where an earlier run was. `away`: nobody watched for longer than an interval.
    pub fn restored(memory: HostMemory, away: bool, windows: Vec<Window>, turn: &mut Turn<'_>) -> Host {
        let HostMemory { spec, state, services, acknowledged } = memory;
        let mut host = Host { windows, ..Host::blank(spec, turn.now) };
        if let Some(state) = state {
            host.recall(state, away, turn.now);
        }
        host.recall_services(services, turn.now);
        host.recall_acks(acknowledged, turn);
        host.came = host.must_have_come();
        host.resume_plans(turn);
        host
    }

    fn blank(mut spec: HostSpec, now: Now) -> Host {
        let services = std::mem::take(&mut spec.services);
        Host {
            paths: Paths::of(&spec),
            track: Track::pending(),
            stale: false,
            asleep: false,
            since: now.wall,
            last_check: None,
            source: String::new(),
            direct: DirectAnswer::default(),
            check_began: None,
            unanswered_since: None,
            last_alive: None,
            output: String::new(),
            detail: Detail::default(),
            voice: Voice::default(),
            taken: Taken::default(),
            windows: Vec::new(),
            reach: Reach::FREE,
            failing_since: None,
            hard_since: None,
            silent_since: None,
            wants_parents: false,
            planned: None,
            newer_than: None,
            in_passing: false,
            asked_in_passing: None,
            check: None,
            questions: Vec::new(),
            undecided: None,
            answered_at: None,
            vain: None,
            one_way: false,
            keyed_at: Mono::ZERO,
            came: false,
            good_at: None,
            proved_at: None,
            carried_at: None,
            failed_at: None,
            watched_from: now.mono,
            heard_at: now.mono,
            stretch: 1,
            dialled: None,
            dial_failed: None,
            services: services.into_iter().map(|s| Service::new(s, now)).collect(),
            session: None,
            connect: None,
            skew_ms: None,
            learnt: None,
            strange_key: None,
            told: super::news::Told::default(),
            spec,
        }
    }

    fn recall(&mut self, state: HostState, away: bool, now: Now) {
        self.track =
            Track { status: state.status, kind: state.kind, attempt: state.attempt, hard: state.hard };
        (self.stale, self.asleep, self.since) = (state.stale, state.asleep, state.since);
        (self.source, self.direct, self.one_way) = (state.source, state.direct, state.one_way);
        self.vain = state.one_way.then_some(Vain {
            since: Mono::ZERO,
            last: Mono::ZERO,
            checks: self.spec.timing.attempts,
        });
        (self.unanswered_since, self.last_alive) = (state.silent_since, state.last_alive);
        (self.check_began, self.strange_key) = (state.asked_at, state.strange_key);
        state.asked.map(|address| self.paths.prefer(address));
        (self.output, self.detail) = (state.output, state.detail);
        self.reach.reachable = state.reachable;
        self.failing_since = self.track.status.is_problem().then(|| now.mono_at(state.since));
        self.hard_since = self.track.hard.is_problem().then(|| now.mono + self.spec.timing.interval);
        self.voice = Voice::restored(state.notified, state.voice, now);
        self.taken = state.taken;
        self.last_check = state.last_check;
        self.planned = ahead(state.next_check, now);
        let last = state.last_check.map(|at| now.mono_at(at));
        self.proved_at = self.last_alive.map(|at| now.mono_at(at));
        if self.track.status.is_problem() {
            self.failed_at = last;
        } else {
            self.good_at = last;
            self.carried_at = last.filter(|_| is_through_tunnel(&self.source));
        }
        if !away {
            self.watched_from = last.unwrap_or(now.mono);
        }
    }

    fn recall_services(&mut self, states: Vec<ServiceState>, now: Now) {
        for state in states {
            if let Some(service) = self.services.iter_mut().find(|s| s.spec.name == state.name) {
                *service = Service::restored(service.spec.clone(), state, now);
            }
        }
    }

    /// Whether only its tunnel can have yielded what is remembered.
    fn must_have_come(&self) -> bool {
        let through = |s: &Service| self.paths.needs_tunnel(&s.spec.check) && s.track.status.is_some();
        let sent = is_of_others(&self.source);
        self.track.status != HostStatus::Pending && self.paths.direct.is_none() && !sent
            || self.services.iter().any(through)
    }

    /// Continues the plan of the earlier run. What was missed waits for its next slot, a failure
    /// that was being retried not quite so long: nothing comes in a burst.
    fn resume_plans(&mut self, turn: &mut Turn<'_>) {
        let (id, timing) = (self.spec.id, self.spec.timing);
        self.planned = Some(resumed(self.planned, self.track.is_soft(), id, &timing, turn));
        // How far it was stretched the first evidence will say again.
        let paced = pace::slowed(&timing, self.spec.budget.map_or(1, |_| pace::UNKNOWN));
        let own = if self.paths.own { timing } else { paced };
        self.stale |= !self.is_only_told_of() && is_outdated(self.last_check, &own, turn.now);
        let mut outdated = self.stale;
        let up = self.is_watched();
        for i in 0..self.services.len() {
            let startable = self.can_start(i);
            let service = &mut self.services[i];
            // Whether a first check was dropped is not kept.
            service.missed = service.track.status.is_none();
            let could_be = self.spec.budget.filter(|_| pace::sends(&service.spec.check));
            let timing = pace::slowed(&service.spec.timing, could_be.map_or(1, |_| pace::UNKNOWN));
            let kept = if service.planned.is_some() { timing } else { service.spec.timing };
            let resumed = resumed(service.planned, service.track.is_soft(), id, &kept, turn);
            service.planned = (up && startable).then_some(resumed);
            if service.mark_outdated(&timing, turn.now) {
                outdated = true;
                turn.record(service.row(id, turn.now));
            }
        }
        if outdated {
            turn.record(self.row(turn.now));
        }
    }

    /// Takes a changed spec; states stay where the service still exists. Whatever was asked under
    /// the old spec is forgotten.
    pub fn change(&mut self, mut spec: HostSpec, turn: &mut Turn<'_>) {
        let services = std::mem::take(&mut spec.services);
        if spec == self.spec && services.iter().eq(self.services.iter().map(|s| &s.spec)) {
            return;
        }
        let interrupted = self.check.is_some();
        self.forget_question(turn);
        self.forget_services_questions(turn);
        let own_changed = !is_same_host(&spec, &self.spec);
        let before = std::mem::replace(&mut self.paths, Paths::of(&spec));
        before.address().map(|address| self.paths.prefer(address));
        if !self.paths.own && self.paths != before {
            // What answered there says nothing of what is here.
            self.newer_than = Some(turn.now.mono);
        }
        self.came &= spec.peer == self.spec.peer;
        let still = |key: &HostKey| spec.ssh.pin.as_ref().is_none_or(|pin| pin.is(key));
        self.learnt = self.learnt.take().filter(still);
        if spec.freshness.is_some() && self.spec.freshness.is_none() {
            self.heard_at = turn.now.mono;
        }
        self.spec = spec;
        if interrupted || own_changed || self.track.status == HostStatus::Pending {
            let waits = self.newer_than.is_some();
            self.planned = Some(if waits { turn.now.mono } else { turn.soon(self.soon()) });
        }
        self.change_services(services, own_changed, turn);
        self.review_all(false, turn);
    }

    fn change_services(&mut self, specs: Vec<ServiceSpec>, host_changed: bool, turn: &Turn<'_>) {
        let mut old = std::mem::take(&mut self.services);
        let soon = turn.soon(self.soon());
        for spec in specs {
            let service = match old.iter().position(|s| s.spec.name == spec.name) {
                Some(at) => old.swap_remove(at).changed(spec, host_changed, turn.now.mono),
                None => Service::new(spec, turn.now),
            };
            self.services.push(service);
            let i = self.services.len() - 1;
            let wanted = self.is_watched() && self.can_start(i);
            let service = &mut self.services[i];
            service.planned = service.planned.or(Some(soon)).filter(|_| wanted);
        }
    }

    /// A person wants to know now: what was seen before does not count.
    pub fn check_now(&mut self, service: Option<&str>, turn: &Turn<'_>) {
        let now = turn.now.mono;
        if service.is_none() || !self.is_watched() {
            self.planned = Some(now);
            self.newer_than = Some(now);
        }
        for i in 0..self.services.len() {
            let named = service.is_none_or(|name| self.services[i].spec.name == name);
            if named && self.can_start(i) {
                self.services[i].demand(now);
            }
        }
    }

    /// Forgets every question; the host is removed.
    pub fn retire(&mut self, turn: &mut Turn<'_>) {
        self.forget_question(turn);
        self.forget_services_questions(turn);
    }

    /// Starts what is due. The host's own check comes first: what it proves spares the others
    /// theirs, and what it refutes need not be asked.
    pub fn advance(&mut self, turn: &mut Turn<'_>) {
        self.end_doubt(turn);
        self.find_silence(turn);
        self.speak_due(turn);
        match self.check {
            Some(_) => self.go_on_asking(turn),
            None if self.planned.is_some_and(|at| at <= turn.now.mono) => self.start_check(turn),
            None => {}
        }
        if self.check.is_some() {
            return;
        }
        if self.is_watched() {
            self.start_services(turn);
        } else {
            self.suspend_due(turn);
        }
    }

    /// When something is to be started or said next. While the host's own check runs, no other is
    /// started.
    pub fn wake_at(&self, now: Now) -> Option<Mono> {
        let silence = self.next_silence(now);
        let voices = self.voices_due().into_iter().chain(silence).chain(self.doubt_ends()).min();
        if let Some(check) = &self.check {
            return voices
                .into_iter()
                .chain(check.wake_at())
                .chain(self.looks_whether_decided(now.mono))
                .min();
        }
        let waits = |s: &&Service| s.is_idle() && !(s.rides() && self.session.is_some());
        let checks = self.services.iter().filter(waits).filter_map(|s| s.planned).chain(self.planned);
        checks.chain(voices).min()
    }

    /// What its device has cost today, with all that goes through its tunnel, says how often it can be
    /// asked.
    pub(super) fn keep_pace(&mut self, used: u64, turn: &Turn<'_>) {
        let stretch = self.spec.budget.map_or(1, |budget| pace::stretch(budget, used, turn.now.wall));
        let id = self.spec.id;
        self.stretch = stretch;
        for service in &mut self.services {
            let demanded = service.newer_than.is_some() || service.is_demanded();
            let waits = service.is_idle() && !service.track.is_soft() && !demanded;
            if service.pace(stretch) && waits && service.planned.is_some() {
                service.planned = Some(turn.slot(id, &service.timing()));
            }
        }
    }

    /// After a gap in our own time: what was missed is skipped, and silence in it was ours.
    pub fn skip_missed(&mut self, gap: Duration, turn: &Turn<'_>) {
        let (id, now) = (self.spec.id, turn.now.mono);
        if gap > self.spec.timing.interval {
            self.watched_from = now;
        }
        self.excuse_silence(now);
        if self.planned.is_some_and(|at| at <= now) {
            self.planned = Some(turn.slot(id, &self.spec.timing));
        }
        for service in self.services.iter_mut().filter(|s| s.is_due(now)) {
            service.planned = Some(turn.slot(id, &service.timing()));
        }
    }

    /// The inner address that answered is asked first from now on.
    pub(super) fn prefer(&mut self, address: IpAddr, turn: &mut Turn<'_>) {
        if self.paths.prefer(address) {
            turn.record(self.row(turn.now));
        }
    }

    /// Its services can answer.
    pub(super) fn is_watched(&self) -> bool {
        let there = self.track.status == HostStatus::Up && !self.asleep;
        there && self.reach.reachable && !self.voice.awaits_result()
    }

    /// Its next result may be its last chance.
    pub(super) fn may_turn_hard(&self) -> bool {
        self.track.hard != HostStatus::Down
            && self.check.is_some()
            && (self.track.is_soft() || self.vain.is_some() || self.spec.timing.attempts <= 1)
    }

    /// Why nothing can be told of the host itself.
    pub(super) fn silence(&self) -> Option<HeldReason> {
        match () {
            () if !self.reach.reachable => Some(HeldReason::Unreachable),
            () if self.reach.in_doubt => Some(HeldReason::ParentInDoubt),
            () if self.asleep || self.stale => Some(HeldReason::NotCurrent),
            () => None,
        }
    }

    /// Why nothing can be told of any of its services.
    pub(super) fn silence_over_services(&self) -> Option<HeldReason> {
        match () {
            () if self.track.hard == HostStatus::Down => Some(HeldReason::HostDown),
            () if !self.reach.reachable => Some(HeldReason::Unreachable),
            () => None,
        }
    }

    /// Checks through a tunnel that never came wait for it, and without a login nothing runs. What
    /// can never be asked is to say so.
    pub(super) fn can_start(&self, i: usize) -> bool {
        let check = &self.services[i].spec.check;
        match self.paths.refusal(check) {
            _ if check.is_sent() => false,
            _ if Paths::lacks_login(check, self.spec.ssh.user.as_deref()) => false,
            Some(_) => true,
            None => self.came || !self.paths.needs_tunnel(check),
        }
    }

    /// Nothing is asked of a host that is not there; what was known is marked not current.
    pub(super) fn suspend_all(&mut self, turn: &mut Turn<'_>) {
        self.forget_services_questions(turn);
        for i in 0..self.services.len() {
            self.suspend(i, turn);
        }
    }

    fn suspend_due(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.services.len() {
            if self.services[i].is_due(turn.now.mono) {
                self.suspend(i, turn);
            }
        }
    }

    fn suspend(&mut self, i: usize, turn: &mut Turn<'_>) {
        let service = &mut self.services[i];
        service.planned = None;
        if service.mark_stale() {
            turn.record(service.row(self.spec.id, turn.now));
        }
    }

    /// The host is back: what was left alone is checked promptly; `anew`: with fresh attempts.
    pub(super) fn resume_services(&mut self, at: Mono, anew: bool) {
        for i in 0..self.services.len() {
            let service = &self.services[i];
            if service.is_idle() && (service.waits() || service.planned.is_none()) && self.can_start(i) {
                self.services[i].revive(at, anew);
            }
        }
    }

    pub(super) fn soon(&self) -> Duration {
        SOON.min(self.spec.timing.retry)
    }

    /// What somebody asked for with it is still wanted.
    pub(super) fn forget_question(&mut self, turn: &mut Turn<'_>) {
        let demanded = self.check.take().and_then(|check| check.demanded_since());
        (self.undecided, self.newer_than) = (None, self.newer_than.or(demanded));
        self.cancel_questions(turn);
    }

    /// Whatever is still answered to these means nothing any more.
    pub(super) fn cancel_questions(&mut self, turn: &mut Turn<'_>) {
        self.questions.drain(..).for_each(|id| turn.cancel(id));
    }

    fn forget_services_questions(&mut self, turn: &mut Turn<'_>) {
        if let Some(session) = self.session.take() {
            turn.cancel(session.question);
        }
        for service in &mut self.services {
            if let Some(id) = service.run.question() {
                turn.cancel(id);
            }
            service.run = Run::Idle;
            service.newer_than = None;
        }
    }

    pub fn id(&self) -> HostId {
        self.spec.id
    }

    /// A service that could be asked and will not be.
    #[cfg(test)]
    pub fn forgotten_service(&self) -> Option<&str> {
        let planned = |s: &Service| s.planned.is_some() || !s.is_idle();
        let forgotten = |i: &usize| self.can_start(*i) && !planned(&self.services[*i]);
        let found = (0..self.services.len()).filter(|_| self.is_watched()).find(forgotten);
        found.map(|i| self.services[i].spec.name.as_str())
    }

    /// The services whose problems can be told now.
    #[cfg(test)]
    pub fn tellable_services(&self) -> impl Iterator<Item = &str> {
        let silent = self.silence_over_services().is_some();
        let current = move |s: &&Service| !silent && !s.stale && !s.voice.awaits_result();
        let failing = |s: &&Service| s.track.hard.is_problem();
        self.services.iter().filter(current).filter(failing).map(|s| s.spec.name.as_str())
    }

    #[cfg(test)]
    pub fn awaits_its_first_handshake(&self) -> bool {
        self.track.status == HostStatus::Pending && !self.came && self.paths.direct.is_none()
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    pub fn peer(&self) -> Option<PeerId> {
        self.spec.peer
    }

    pub(super) fn row(&self, now: Now) -> Record {
        Record::Host(Box::new(HostState {
            host: self.spec.id,
            status: self.track.status,
            kind: self.track.kind,
            attempt: self.track.attempt,
            hard: self.track.hard,
            reachable: self.reach.reachable,
            stale: self.stale,
            asleep: self.asleep,
            since: self.since,
            last_check: self.last_check,
            next_check: self.planned.map(|at| now.wall + at.since(now.mono)),
            source: self.source.clone(),
            direct: self.direct,
            one_way: self.one_way,
            silent_since: self.unanswered_since,
            last_alive: self.last_alive,
            asked_at: self.check_began,
            asked: self.paths.address(),
            strange_key: self.strange_key.clone(),
            output: self.output.clone(),
            detail: self.detail.clone(),
            notified: self.voice.notified(),
            voice: self.voice.state(now),
            taken: self.taken.clone(),
        }))
    }
}

/// Whether the host's own check asks the same questions at the same times.
fn is_same_host(a: &HostSpec, b: &HostSpec) -> bool {
    let key = |s: &HostSpec| {
        let inside = (s.peer, s.own_tunnel, s.address, s.other_address);
        (inside, s.direct.clone(), s.ssh.clone(), s.route, s.max_silence, s.timing)
    };
    key(a) == key(b)
}

pub(super) fn is_outdated(last_check: Option<Wall>, timing: &Timing, now: Now) -> bool {
    last_check.is_some_and(|at| now.wall.since(at) > timing.interval.saturating_mul(STALE_INTERVALS))
}

/// The next check as it was planned before a restart, if that is still ahead.
fn resumed(planned: Option<Mono>, soft: bool, id: HostId, timing: &Timing, turn: &Turn<'_>) -> Mono {
    match planned.filter(|at| at.since(turn.now.mono) <= timing.interval) {
        Some(at) => at,
        None if soft => turn.soon(timing.retry),
        None => turn.slot(id, timing),
    }
}
