//! Continues a host from an earlier run of the gateway: its state, its services, and its plans.

use crate::id::HostId;
use crate::messages::{HostSnapshot, HostState, HostStatus, ServiceState, Timing};
use crate::time::{Mono, Now};

use crate::monitor::context::Ctx;
use crate::monitor::downtime::Window;
use crate::monitor::host::Host;
use crate::monitor::host::host_keys::HostKeys;
use crate::monitor::host::last_result::LastResult;
use crate::monitor::host::one_way::OneWay;
use crate::monitor::host::own_check::OwnCheck;
use crate::monitor::host::proofs::Proofs;
use crate::monitor::host::reach::Reach;
use crate::monitor::host::tunnel_link::TunnelLink;
use crate::monitor::notification::suppress::Notifier;
use crate::monitor::schedule::is_outdated;
use crate::monitor::service::Service;
use crate::monitor::state::Track;
use crate::monitor::traffic_budget;

impl Host {
    /// Continues from an earlier run. `away`: the gateway was down for longer than an interval.
    pub fn restored(memory: HostSnapshot, away: bool, windows: Vec<Window>, ctx: &mut Ctx<'_>) -> Host {
        let HostSnapshot { spec, state, services, acknowledged } = memory;
        let mut host = Host { windows, ..Host::blank(spec, ctx.now) };
        if let Some(state) = state {
            host.recall(state, away, ctx.now);
        }
        host.recall_services(services, ctx.now);
        host.recall_acks(acknowledged, ctx);
        host.tunnel = TunnelLink::restored(host.must_have_come());
        host.resume_plans(ctx);
        host
    }

    fn recall(&mut self, state: HostState, away: bool, now: Now) {
        let timing = &self.spec.timing;
        self.track =
            Track { status: state.status, kind: state.kind, attempt: state.attempt, hard: state.hard };
        self.asleep = state.asleep;
        self.result = LastResult::restored(&state);
        self.proofs = Proofs::restored(&state, away, now);
        self.one_way = OneWay::restored(state.one_way, timing.attempts);
        self.reach = Reach::restored(&state, timing.interval, now);
        self.check = OwnCheck::restored(&state, now);
        self.keys = HostKeys::restored(state.strange_key);
        self.submitted.taken = state.taken;
        self.notifier = Notifier::restored(state.notified, state.notification, now);
        state.asked.map(|address| self.paths.prefer(address));
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
        let sent = self.result.is_passive();
        self.track.status != HostStatus::Pending && self.paths.direct.is_none() && !sent
            || self.services.iter().any(through)
    }

    /// Continues the plan of the earlier run. A missed check waits for its next slot, and a missed
    /// retry for at most the retry interval, so that checks do not start in a burst.
    fn resume_plans(&mut self, ctx: &mut Ctx<'_>) {
        let (id, timing) = (self.spec.id, self.spec.timing);
        let planned = resumed(self.check.planned(), self.track.is_soft(), id, &timing, ctx);
        self.check.plan(planned);
        // The first evidence yields the interval factor again.
        let paced = traffic_budget::slowed(&timing, self.spec.budget.map_or(1, |_| traffic_budget::UNKNOWN));
        let own = if self.paths.own { timing } else { paced };
        if !self.is_passive_only() && is_outdated(self.result.at(), &own, ctx.now) {
            self.result.mark_stale();
        }
        let mut outdated = self.result.is_stale();
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
}

/// Returns the next check as it was planned before a restart, if that is still ahead.
fn resumed(planned: Option<Mono>, soft: bool, id: HostId, timing: &Timing, ctx: &Ctx<'_>) -> Mono {
    match planned.filter(|at| at.since(ctx.now.mono) <= timing.interval) {
        Some(at) => at,
        None if soft => ctx.soon(timing.retry),
        None => ctx.slot(id, timing),
    }
}
