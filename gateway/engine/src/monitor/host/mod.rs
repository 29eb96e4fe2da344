//! A host: its spec, its state, its services, and the order of its checks.
//!
//! The host's own check comes first. Its services are checked while it is up; while it is not, they
//! keep their last states, marked as not current.
//!
//! The parts of a host are objects of their own, which know no host: `proofs.rs`, `last_result.rs`,
//! `own_check.rs`, `one_way.rs`, `reach.rs`, `freshness.rs`, `tunnel_link.rs`, `host_keys.rs`,
//! `session.rs`. `Host` coordinates them: `check.rs` contains the host's own check,
//! `service_checks.rs`, `ssh_session.rs` and `tunnel_check.rs` the checks of its services,
//! `passive.rs` the passive results, `tunnel_events.rs` the events from the tunnel, `rental_phase.rs`
//! what its rentals mean, and `restore.rs` the start after a restart.

pub(super) mod alive;
pub(super) mod allowed_silence;
pub(super) mod event_limits;
pub(super) mod freshness;
pub(super) mod host_keys;
pub(super) mod job;
pub(super) mod last_result;
pub(super) mod one_way;
pub(super) mod own_check;
pub(super) mod path_check;
pub(super) mod proofs;
pub(super) mod reach;
pub(super) mod session;
pub(super) mod tunnel_link;
pub(super) mod undecided;

mod check;
mod passive;
mod rental_phase;
mod restore;
mod service_checks;
mod ssh_session;
mod tunnel_check;
mod tunnel_events;

use std::net::IpAddr;
use std::time::Duration;

use crate::id::{HostId, PeerId};
use crate::messages::{FullAt, HostSpec, HostState, HostStatus, Record, ServiceSpec, SuppressReason};
use crate::time::{Mono, Now};

use super::downtime::Window;
use super::run::Run;
use super::service::Service;
use crate::monitor::context::Ctx;
use crate::monitor::host::freshness::Submitted;
use crate::monitor::host::host_keys::HostKeys;
use crate::monitor::host::last_result::LastResult;
use crate::monitor::host::one_way::OneWay;
use crate::monitor::host::own_check::OwnCheck;
use crate::monitor::host::proofs::Proofs;
use crate::monitor::host::reach::Reach;
use crate::monitor::host::session::Sessions;
use crate::monitor::host::tunnel_link::TunnelLink;
use crate::monitor::notification::suppress::Notifier;
use crate::monitor::paths::Paths;
#[cfg(test)]
use crate::monitor::state::Level;
use crate::monitor::state::Track;
use crate::monitor::traffic_budget;

/// A change takes effect within this time, or within the retry interval if that is shorter. It
/// spreads the checks that a profile change starts on a whole fleet.
const SOON: Duration = Duration::from_secs(10);

pub struct Host {
    /// The spec without services; each service keeps its own.
    pub(super) spec: HostSpec,
    pub(super) paths: Paths,
    pub(super) track: Track<HostStatus>,
    /// It is silent, and its silence is expected.
    pub(super) asleep: bool,
    pub(super) result: LastResult,
    pub(super) proofs: Proofs,
    pub(super) one_way: OneWay,
    pub(super) reach: Reach,
    pub(super) check: OwnCheck,
    pub(super) submitted: Submitted,
    pub(super) tunnel: TunnelLink,
    pub(super) keys: HostKeys,
    pub(super) sessions: Sessions,
    pub(super) notifier: Notifier<HostStatus>,
    /// Downtimes that apply to this host.
    pub(super) windows: Vec<Window>,
    pub(super) services: Vec<Service>,
    /// For a host behind a device: the number of intervals for which its last proof remains valid.
    pub(super) stretch: u32,
}

impl Host {
    /// Creates a host that is new to the monitor. It is checked at once, because proof may already
    /// exist.
    pub fn new(spec: HostSpec, windows: Vec<Window>, now: Now) -> Host {
        Host { check: OwnCheck::due_at(now.mono), windows, ..Host::blank(spec, now) }
    }

    fn blank(mut spec: HostSpec, now: Now) -> Host {
        let services = std::mem::take(&mut spec.services);
        Host {
            paths: Paths::of(&spec),
            track: Track::pending(),
            asleep: false,
            result: LastResult::none(now.wall),
            proofs: Proofs::none(now.mono),
            one_way: OneWay::default(),
            reach: Reach::free(),
            check: OwnCheck::default(),
            submitted: Submitted::none(now.mono),
            tunnel: TunnelLink::default(),
            keys: HostKeys::default(),
            sessions: Sessions::default(),
            notifier: Notifier::default(),
            windows: Vec::new(),
            services: services.into_iter().map(|s| Service::new(s, now)).collect(),
            stretch: 1,
            spec,
        }
    }

    /// Applies a changed spec. A service that still exists keeps its state. Probes sent under the
    /// old spec are cancelled.
    pub fn change(&mut self, mut spec: HostSpec, ctx: &mut Ctx<'_>) {
        let services = std::mem::take(&mut spec.services);
        if spec == self.spec && services.iter().eq(self.services.iter().map(|s| &s.spec)) {
            return;
        }
        let interrupted = self.check.is_running();
        self.drop_probe(ctx);
        self.drop_service_probes(ctx);
        let own_changed = !is_same_host(&spec, &self.spec);
        let before = std::mem::replace(&mut self.paths, Paths::of(&spec));
        before.address().map(|address| self.paths.prefer(address));
        if !self.paths.own && self.paths != before {
            // Replies on the old paths prove nothing about the new ones.
            self.check.require(ctx.now.mono);
        }
        if spec.peer != self.spec.peer {
            self.tunnel.replace();
        }
        self.keys.apply(spec.ssh.pin.as_ref());
        if spec.freshness.is_some() && self.spec.freshness.is_none() {
            self.submitted.restart(ctx.now.mono);
        }
        self.spec = spec;
        if interrupted || own_changed || self.track.status == HostStatus::Pending {
            let waits = self.check.is_requested();
            self.check.plan(if waits { ctx.now.mono } else { ctx.soon(self.soon()) });
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
            self.check.request(Some(now), now);
        }
        for i in 0..self.services.len() {
            let named = service.is_none_or(|name| self.services[i].spec.name == name);
            if named && self.can_start(i) {
                self.services[i].demand(now);
            }
        }
    }

    pub fn note_forecast(&mut self, forecast: &FullAt) {
        if let Some(i) = self.position(&forecast.service) {
            self.services[i].note_forecast(forecast.clone());
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
        if self.check.is_running() {
            self.go_on_asking(ctx);
        } else if self.check.is_due(ctx.now.mono) {
            self.start_check(ctx);
        }
        if self.check.is_running() {
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
        let others = self.notifications_due().into_iter().chain(silence).chain(self.doubt_ends()).min();
        if self.check.is_running() {
            return others.into_iter().chain(self.check.wake_at(now.mono)).min();
        }
        let waits = |s: &&Service| s.is_idle() && !(s.rides() && self.sessions.is_open());
        let checks = self.services.iter().filter(waits).filter_map(|s| s.planned);
        checks.chain(self.check.planned()).chain(others).min()
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
            self.proofs.watch_from(now);
        }
        self.excuse_silence(now);
        if self.check.is_due(now) {
            self.check.plan(ctx.slot(id, &self.spec.timing));
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
        there && self.reach.is_reachable() && !self.notifier.awaits_result()
    }

    /// Whether the next result may turn the host hard down.
    pub(super) fn may_turn_hard(&self) -> bool {
        self.track.hard != HostStatus::Down
            && self.check.is_running()
            && (self.track.is_soft() || self.one_way.is_suspected() || self.spec.timing.attempts <= 1)
    }

    /// Returns why notifications of the host itself are suppressed.
    pub(super) fn silence(&self) -> Option<SuppressReason> {
        match () {
            () if !self.reach.is_reachable() => Some(SuppressReason::Unreachable),
            () if self.reach.is_in_doubt() => Some(SuppressReason::ParentInDoubt),
            () if self.asleep || self.result.is_stale() => Some(SuppressReason::NotCurrent),
            () => None,
        }
    }

    /// Returns why notifications of all its services are suppressed.
    pub(super) fn silence_over_services(&self) -> Option<SuppressReason> {
        match () {
            () if self.track.hard == HostStatus::Down => Some(SuppressReason::HostDown),
            () if !self.reach.is_reachable() => Some(SuppressReason::Unreachable),
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
            None => self.tunnel.has_come() || !self.paths.needs_tunnel(check),
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
        if !service.is_of_rental() && service.mark_stale() {
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
        self.check.abandon();
        self.cancel_probes(ctx);
    }

    /// Cancels the probes in flight; later replies to them are ignored.
    pub(super) fn cancel_probes(&mut self, ctx: &mut Ctx<'_>) {
        self.check.take_probes().into_iter().for_each(|id| ctx.cancel(id));
    }

    fn drop_service_probes(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(session) = self.sessions.take() {
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
        let current = move |s: &&Service| !silent && !s.stale && !s.notifier.awaits_result();
        let failing = |s: &&Service| s.track.hard.is_problem();
        self.services.iter().filter(current).filter(failing).map(|s| s.spec.name.as_str())
    }

    #[cfg(test)]
    pub fn awaits_its_first_handshake(&self) -> bool {
        self.track.status == HostStatus::Pending && !self.tunnel.has_come() && self.paths.direct.is_none()
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
            reachable: self.reach.is_reachable(),
            stale: self.result.is_stale(),
            asleep: self.asleep,
            since: self.result.since().status,
            hard_since: self.result.since().hard,
            last_check: self.result.at(),
            next_check: self.check.planned().map(|at| now.wall + at.since(now.mono)),
            source: self.result.source().to_owned(),
            direct: self.check.direct(),
            one_way: self.one_way.is_found(),
            silent_since: self.proofs.unanswered_since(),
            last_alive: self.proofs.last_alive(),
            asked_at: self.check.began(),
            asked: self.paths.address(),
            strange_key: self.keys.strange().map(str::to_owned),
            output: self.result.output().to_owned(),
            detail: self.result.detail().clone(),
            notified: self.notifier.notified(),
            notification: self.notifier.state(now),
            taken: self.submitted.taken.clone(),
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
