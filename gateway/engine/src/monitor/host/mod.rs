//! A host: its spec, its state, its services, and the order of its checks.
//!
//! The host's own check comes first. Its services are checked while it is up; while it is not, they
//! keep their last states, marked as not current. `check.rs` contains the host's own check,
//! `service_checks.rs` the checks of its services, and `tunnel_events.rs` the events from the tunnel.

pub(super) mod alive;
pub(super) mod allowed_silence;
pub(super) mod check;
pub(super) mod job;
pub(super) mod passive;
pub(super) mod path_check;
pub(super) mod service_checks;
pub(super) mod ssh_session;
pub(super) mod tunnel_check;
pub(super) mod tunnel_events;
pub(super) mod undecided;

use std::net::IpAddr;
use std::time::Duration;

use crate::id::{HostId, PeerId};
use crate::messages::{
    Detail, DirectReply, HostKey, HostSnapshot, HostSpec, HostState, HostStatus, ProbeId, Record,
    ServiceSpec, ServiceState, SuppressReason, Taken, Timing, is_of_others, is_through_tunnel,
};
use crate::time::{Mono, Now, Wall};

use super::downtime::Window;
use super::service::{Run, Service, ahead};
use crate::monitor::context::Ctx;
use crate::monitor::host::alive::AliveCheck;
use crate::monitor::host::check::FailedAttempts;
use crate::monitor::host::ssh_session::Session;
use crate::monitor::host::undecided::Undecided;
use crate::monitor::notification::suppress::Notifier;
use crate::monitor::paths::Paths;
use crate::monitor::reachability::Reachability;
use crate::monitor::state::{Level, Track};
use crate::monitor::traffic_budget;

/// A change takes effect within this time, or within the retry interval if that is shorter. It
/// spreads the checks that a profile change starts on a whole fleet.
const SOON: Duration = Duration::from_secs(10);

/// After a restart, a state is not current if its last result is older than this many intervals.
const STALE_INTERVALS: u32 = 2;

pub struct Host {
    /// The spec without services; each service keeps its own.
    pub(super) spec: HostSpec,
    pub(super) paths: Paths,
    pub(super) track: Track<HostStatus>,
    pub(super) stale: bool,
    pub(super) asleep: bool,
    pub(super) since: Wall,
    pub(super) last_check: Option<Wall>,
    pub(super) source: String,
    pub(super) direct: DirectReply,
    /// The start of its last own check.
    pub(super) check_began: Option<Wall>,
    /// The start of the first check since the host last replied.
    pub(super) unanswered_since: Option<Wall>,
    pub(super) last_alive: Option<Wall>,
    pub(super) output: String,
    pub(super) detail: Detail,
    pub(super) voice: Notifier<HostStatus>,
    /// Passive results that were accepted for it.
    pub(super) taken: Taken,
    /// Downtimes that apply to this host.
    pub(super) windows: Vec<Window>,
    pub(super) reach: Reachability,
    /// The first failure in this series.
    pub(super) failing_since: Option<Mono>,
    /// The time of the hard problem. After a restart, the time from which the parents can be
    /// evaluated again.
    pub(super) hard_since: Option<Mono>,
    /// The first silent check in this series, counted or not, in this run of the gateway.
    pub(super) silent_since: Option<Mono>,
    /// It failed, and its parents are to be checked.
    pub(super) wants_parents: bool,

    /// The time at which its own check is due.
    pub(super) planned: Option<Mono>,
    /// An operator waits for a check; only evidence newer than this satisfies it.
    pub(super) newer_than: Option<Mono>,
    /// The planned check was caused by the failure of another host and needs no more than an echo.
    pub(super) in_passing: bool,
    /// The time of its last check for another host.
    pub(super) asked_in_passing: Option<Mono>,
    /// Its own check in progress; `probes` are its probes.
    pub(super) check: Option<Box<AliveCheck>>,
    pub(super) probes: Vec<ProbeId>,
    /// A check that failed while the gateway examines its own uplink.
    pub(super) undecided: Option<Undecided>,
    /// The time of its last reply to a probe.
    pub(super) answered_at: Option<Mono>,
    /// Its packets arrive, but probes get no reply; not yet often enough to be believed.
    pub(super) vain: Option<FailedAttempts>,
    /// The same, often enough to be believed.
    pub(super) one_way: bool,
    /// The time of the last key change in this run of the gateway.
    pub(super) keyed_at: Mono,
    /// Whether its tunnel has ever carried a packet.
    pub(super) came: bool,
    /// The newest proof that it is up, which may be a passive result.
    pub(super) good_at: Option<Mono>,
    /// The newest proof that the host itself gave.
    pub(super) proved_at: Option<Mono>,
    /// The time of the last reply to a packet that was sent through its tunnel. A packet that
    /// merely arrives proves one direction.
    pub(super) carried_at: Option<Mono>,
    pub(super) failed_at: Option<Mono>,
    /// The time from which silence counts; before that the gateway did not watch.
    pub(super) watched_from: Mono,
    /// The time from which the freshness of passive results counts.
    pub(super) heard_at: Mono,
    /// For a host behind a device: the number of intervals for which its last proof remains valid.
    pub(super) stretch: u32,
    pub(super) dialled: Option<Mono>,
    pub(super) dial_failed: Option<Mono>,

    pub(super) services: Vec<Service>,
    pub(super) session: Option<Session>,
    /// The time it took to open the last SSH session.
    pub(super) connect: Option<Duration>,
    /// The last clock skew of the device that the tunnel reported.
    pub(super) skew_ms: Option<i64>,
    /// A host key first seen through the tunnel, or the type of the pinned one, until the spec has
    /// it.
    pub(super) learnt: Option<HostKey>,
    /// The key named by the last event about a changed host key.
    pub(super) strange_key: Option<String>,
    pub(super) told: crate::monitor::host::tunnel_events::LastNotified,
}

impl Host {
    /// Creates a host that is new to the monitor. It is checked at once, because proof may already
    /// exist.
    pub fn new(spec: HostSpec, windows: Vec<Window>, now: Now) -> Host {
        Host { planned: Some(now.mono), windows, ..Host::blank(spec, now) }
    }

    /// Continues from an earlier run. `away`: the gateway was down for longer than an interval.
    pub fn restored(memory: HostSnapshot, away: bool, windows: Vec<Window>, ctx: &mut Ctx<'_>) -> Host {
        let HostSnapshot { spec, state, services, acknowledged } = memory;
        let mut host = Host { windows, ..Host::blank(spec, ctx.now) };
        if let Some(state) = state {
            host.recall(state, away, ctx.now);
        }
        host.recall_services(services, ctx.now);
        host.recall_acks(acknowledged, ctx);
        host.came = host.must_have_come();
        host.resume_plans(ctx);
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
            direct: DirectReply::default(),
            check_began: None,
            unanswered_since: None,
            last_alive: None,
            output: String::new(),
            detail: Detail::default(),
            voice: Notifier::default(),
            taken: Taken::default(),
            windows: Vec::new(),
            reach: Reachability::FREE,
            failing_since: None,
            hard_since: None,
            silent_since: None,
            wants_parents: false,
            planned: None,
            newer_than: None,
            in_passing: false,
            asked_in_passing: None,
            check: None,
            probes: Vec::new(),
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
            told: crate::monitor::host::tunnel_events::LastNotified::default(),
            spec,
        }
    }

    fn recall(&mut self, state: HostState, away: bool, now: Now) {
        self.track =
            Track { status: state.status, kind: state.kind, attempt: state.attempt, hard: state.hard };
        (self.stale, self.asleep, self.since) = (state.stale, state.asleep, state.since);
        (self.source, self.direct, self.one_way) = (state.source, state.direct, state.one_way);
        self.vain = state.one_way.then_some(FailedAttempts {
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
        self.voice = Notifier::restored(state.notified, state.voice, now);
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

    /// Whether the restored state can only have come through its tunnel.
    fn must_have_come(&self) -> bool {
        let through = |s: &Service| self.paths.needs_tunnel(&s.spec.check) && s.track.status.is_some();
        let sent = is_of_others(&self.source);
        self.track.status != HostStatus::Pending && self.paths.direct.is_none() && !sent
            || self.services.iter().any(through)
    }

    /// Continues the plan of the earlier run. A missed check waits for its next slot, and a missed
    /// retry for at most the retry interval, so that checks do not start in a burst.
    fn resume_plans(&mut self, ctx: &mut Ctx<'_>) {
        let (id, timing) = (self.spec.id, self.spec.timing);
        self.planned = Some(resumed(self.planned, self.track.is_soft(), id, &timing, ctx));
        // The first evidence yields the interval factor again.
        let paced = traffic_budget::slowed(&timing, self.spec.budget.map_or(1, |_| traffic_budget::UNKNOWN));
        let own = if self.paths.own { timing } else { paced };
        self.stale |= !self.is_passive_only() && is_outdated(self.last_check, &own, ctx.now);
        let mut outdated = self.stale;
        let up = self.is_watched();
        for i in 0..self.services.len() {
            let startable = self.can_start(i);
            let service = &mut self.services[i];
            // The store does not keep whether a first check was dropped.
            service.missed = service.track.status.is_none();
            let could_be = self.spec.budget.filter(|_| traffic_budget::sends(&service.spec.check));
            let timing =
                traffic_budget::slowed(&service.spec.timing, could_be.map_or(1, |_| traffic_budget::UNKNOWN));
            let kept = if service.planned.is_some() { timing } else { service.spec.timing };
            let resumed = resumed(service.planned, service.track.is_soft(), id, &kept, ctx);
            service.planned = (up && startable).then_some(resumed);
            if service.mark_outdated(&timing, ctx.now) {
                outdated = true;
                ctx.record(service.row(id, ctx.now));
            }
        }
        if outdated {
            ctx.record(self.row(ctx.now));
        }
    }

    /// Applies a changed spec. A service that still exists keeps its state. Probes sent under the
    /// old spec are cancelled.
    pub fn change(&mut self, mut spec: HostSpec, ctx: &mut Ctx<'_>) {
        let services = std::mem::take(&mut spec.services);
        if spec == self.spec && services.iter().eq(self.services.iter().map(|s| &s.spec)) {
            return;
        }
        let interrupted = self.check.is_some();
        self.drop_probe(ctx);
        self.drop_service_probes(ctx);
        let own_changed = !is_same_host(&spec, &self.spec);
        let before = std::mem::replace(&mut self.paths, Paths::of(&spec));
        before.address().map(|address| self.paths.prefer(address));
        if !self.paths.own && self.paths != before {
            // Replies on the old paths prove nothing about the new ones.
            self.newer_than = Some(ctx.now.mono);
        }
        self.came &= spec.peer == self.spec.peer;
        let still = |key: &HostKey| spec.ssh.pin.as_ref().is_none_or(|pin| pin.is(key));
        self.learnt = self.learnt.take().filter(still);
        if spec.freshness.is_some() && self.spec.freshness.is_none() {
            self.heard_at = ctx.now.mono;
        }
        self.spec = spec;
        if interrupted || own_changed || self.track.status == HostStatus::Pending {
            let waits = self.newer_than.is_some();
            self.planned = Some(if waits { ctx.now.mono } else { ctx.soon(self.soon()) });
        }
        self.change_services(services, own_changed, ctx);
        self.re_evaluate_all(false, ctx);
    }

    fn change_services(&mut self, specs: Vec<ServiceSpec>, host_changed: bool, ctx: &Ctx<'_>) {
        let mut old = std::mem::take(&mut self.services);
        let soon = ctx.soon(self.soon());
        for spec in specs {
            let service = match old.iter().position(|s| s.spec.name == spec.name) {
                Some(at) => old.swap_remove(at).changed(spec, host_changed, ctx.now.mono),
                None => Service::new(spec, ctx.now),
            };
            self.services.push(service);
            let i = self.services.len() - 1;
            let wanted = self.is_watched() && self.can_start(i);
            let service = &mut self.services[i];
            service.planned = service.planned.or(Some(soon)).filter(|_| wanted);
        }
    }

    /// Checks at the request of an operator: earlier evidence does not count.
    pub fn check_now(&mut self, service: Option<&str>, ctx: &Ctx<'_>) {
        let now = ctx.now.mono;
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

    /// Cancels every probe, because the host is removed.
    pub fn retire(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_probe(ctx);
        self.drop_service_probes(ctx);
    }

    /// Starts the checks that are due. The host's own check comes first: its proof saves the
    /// services theirs, and its failure makes them pointless.
    pub fn advance(&mut self, ctx: &mut Ctx<'_>) {
        self.end_doubt(ctx);
        self.find_silence(ctx);
        self.speak_due(ctx);
        match self.check {
            Some(_) => self.go_on_asking(ctx),
            None if self.planned.is_some_and(|at| at <= ctx.now.mono) => self.start_check(ctx),
            None => {}
        }
        if self.check.is_some() {
            return;
        }
        if self.is_watched() {
            self.start_services(ctx);
        } else {
            self.suspend_due(ctx);
        }
    }

    /// Returns when the next check or notification is due. While the host's own check runs, no
    /// other is started.
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

    /// Adjusts the check intervals to the bytes that the device has used today, including all
    /// traffic through its tunnel.
    pub(super) fn keep_pace(&mut self, used: u64, ctx: &Ctx<'_>) {
        let stretch =
            self.spec.budget.map_or(1, |budget| traffic_budget::stretch(budget, used, ctx.now.wall));
        let id = self.spec.id;
        self.stretch = stretch;
        for service in &mut self.services {
            let demanded = service.newer_than.is_some() || service.is_demanded();
            let waits = service.is_idle() && !service.track.is_soft() && !demanded;
            if service.pace(stretch) && waits && service.planned.is_some() {
                service.planned = Some(ctx.slot(id, &service.timing()));
            }
        }
    }

    /// Skips missed checks after a gap in the gateway's own time; silence during the gap does not
    /// count.
    pub fn skip_missed(&mut self, gap: Duration, ctx: &Ctx<'_>) {
        let (id, now) = (self.spec.id, ctx.now.mono);
        if gap > self.spec.timing.interval {
            self.watched_from = now;
        }
        self.excuse_silence(now);
        if self.planned.is_some_and(|at| at <= now) {
            self.planned = Some(ctx.slot(id, &self.spec.timing));
        }
        for service in self.services.iter_mut().filter(|s| s.is_due(now)) {
            service.planned = Some(ctx.slot(id, &service.timing()));
        }
    }

    /// Prefers the inner address that replied for later probes.
    pub(super) fn prefer(&mut self, address: IpAddr, ctx: &mut Ctx<'_>) {
        if self.paths.prefer(address) {
            ctx.record(self.row(ctx.now));
        }
    }

    /// Whether its services can be checked.
    pub(super) fn is_watched(&self) -> bool {
        let there = self.track.status == HostStatus::Up && !self.asleep;
        there && self.reach.reachable && !self.voice.awaits_result()
    }

    /// Whether the next result may turn the host hard down.
    pub(super) fn may_turn_hard(&self) -> bool {
        self.track.hard != HostStatus::Down
            && self.check.is_some()
            && (self.track.is_soft() || self.vain.is_some() || self.spec.timing.attempts <= 1)
    }

    /// Returns why notifications of the host itself are suppressed.
    pub(super) fn silence(&self) -> Option<SuppressReason> {
        match () {
            () if !self.reach.reachable => Some(SuppressReason::Unreachable),
            () if self.reach.in_doubt => Some(SuppressReason::ParentInDoubt),
            () if self.asleep || self.stale => Some(SuppressReason::NotCurrent),
            () => None,
        }
    }

    /// Returns why notifications of all its services are suppressed.
    pub(super) fn silence_over_services(&self) -> Option<SuppressReason> {
        match () {
            () if self.track.hard == HostStatus::Down => Some(SuppressReason::HostDown),
            () if !self.reach.reachable => Some(SuppressReason::Unreachable),
            () => None,
        }
    }

    /// Whether a service can be checked. Checks through a tunnel wait for its first packet, and a
    /// check that needs a login does not run without one. A check that can never run must start, to
    /// report the reason.
    pub(super) fn can_start(&self, i: usize) -> bool {
        let check = &self.services[i].spec.check;
        match self.paths.refusal(check) {
            _ if check.is_sent() => false,
            _ if Paths::lacks_login(check, self.spec.ssh.user.as_deref()) => false,
            Some(_) => true,
            None => self.came || !self.paths.needs_tunnel(check),
        }
    }

    /// Suspends all services of a host that is not up; their states are marked as not current.
    pub(super) fn suspend_all(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_service_probes(ctx);
        for i in 0..self.services.len() {
            self.suspend(i, ctx);
        }
    }

    fn suspend_due(&mut self, ctx: &mut Ctx<'_>) {
        for i in 0..self.services.len() {
            if self.services[i].is_due(ctx.now.mono) {
                self.suspend(i, ctx);
            }
        }
    }

    fn suspend(&mut self, i: usize, ctx: &mut Ctx<'_>) {
        let service = &mut self.services[i];
        service.planned = None;
        if service.mark_stale() {
            ctx.record(service.row(self.spec.id, ctx.now));
        }
    }

    /// Checks the suspended services promptly, because the host is back; `anew`: with fresh
    /// attempts.
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

    /// Cancels the check in progress, but keeps an operator's request for it.
    pub(super) fn drop_probe(&mut self, ctx: &mut Ctx<'_>) {
        let demanded = self.check.take().and_then(|check| check.demanded_since());
        (self.undecided, self.newer_than) = (None, self.newer_than.or(demanded));
        self.cancel_probes(ctx);
    }

    /// Cancels the probes in flight; later replies to them are ignored.
    pub(super) fn cancel_probes(&mut self, ctx: &mut Ctx<'_>) {
        self.probes.drain(..).for_each(|id| ctx.cancel(id));
    }

    fn drop_service_probes(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(session) = self.session.take() {
            ctx.cancel(session.probe);
        }
        for service in &mut self.services {
            if let Some(id) = service.run.probe() {
                ctx.cancel(id);
            }
            service.run = Run::Idle;
            service.newer_than = None;
        }
    }

    pub fn id(&self) -> HostId {
        self.spec.id
    }

    /// Returns a service that could be checked and has no plan.
    #[cfg(test)]
    pub fn forgotten_service(&self) -> Option<&str> {
        let planned = |s: &Service| s.planned.is_some() || !s.is_idle();
        let forgotten = |i: &usize| self.can_start(*i) && !planned(&self.services[*i]);
        let found = (0..self.services.len()).filter(|_| self.is_watched()).find(forgotten);
        found.map(|i| self.services[i].spec.name.as_str())
    }

    /// Returns the services whose problems can be notified now.
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

/// Whether the host's own check would send the same probes at the same times.
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

/// Returns the next check as it was planned before a restart, if that is still ahead.
fn resumed(planned: Option<Mono>, soft: bool, id: HostId, timing: &Timing, ctx: &Ctx<'_>) -> Mono {
    match planned.filter(|at| at.since(ctx.now.mono) <= timing.interval) {
        Some(at) => at,
        None if soft => ctx.soon(timing.retry),
        None => ctx.slot(id, timing),
    }
}
