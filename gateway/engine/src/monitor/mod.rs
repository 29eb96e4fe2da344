//! Monitoring: the state of each host and service, and the notifications.
//!
//! The monitor is pure: the caller supplies time and randomness, and receives probe requests and
//! records. Call [`Monitor::handle`], then drain [`Monitor::poll_output`] until it returns `Wait`.
//! This module only dispatches: it finds the host of an input, and the hosts that are due.

mod context;
mod dependency;
pub mod downtime;
mod forecast;
mod handovers;
mod host;
mod incidents;
mod interpret;
mod neighbours;
mod notification;
mod paths;
pub mod profile;
mod reachability;
mod rental_phases;
mod run;
mod schedule;
mod service;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thresholds;
pub mod traffic_budget;
mod uplink;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{HostId, Id, PeerId};
use crate::messages::{
    Downtime, FullAt, HostScope, HostSnapshot, HostSpec, MonitorInput, MonitorOutput, Outcome, PassiveResult,
    ProbeId, ProbeReply, Record, RentalPhase, Timing, TunnelEvent, WakeReason,
};
use crate::time::{ClockStep, Mono, Now, Wall};

use crate::monitor::host::allowed_silence::AllowedSilence;
use crate::monitor::uplink::fleet_silence::FleetSilence;
use crate::monitor::uplink::health::UplinkHealth;
use context::{Ctx, ProbeOwner, Shared};
use downtime::{Planned, Window};
use handovers::Handovers;
use host::Host;
use neighbours::Neighbours;
use reachability::ParentGraph;
use schedule::DueQueue;

pub use context::MonitorStats;
pub use notification::current::Current;

/// A call that comes this long after something was due shows that the machine slept or the process
/// was stopped. Silence during that time does not count. Longer than any stall of a busy store.
const GAP: Duration = Duration::from_secs(10);

/// A step of the wall clock by more than this is a jump: nothing counts for an interval, as after a
/// suspend. Time servers step by less in daily work, which must not stop the evaluation.
const JUMP: Duration = Duration::from_secs(10);

/// The limit of actions of a host in one call: one for itself, and more for others that fail in
/// that call.
const MOST_TURNS: u32 = 100;

/// A downtime is kept this long after its end, because a clock that was ahead, by a time zone at
/// most, may be set back.
pub const KEPT_DOWNTIME: Duration = Duration::from_secs(86_400);

/// Settings of the whole monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The limit of probes in flight over all hosts; at least 1. Checks in progress may exceed it
    /// to finish.
    pub max_in_flight: usize,
    /// The usual check interval of a host: most hosts are checked once in this time.
    pub interval: Duration,
    /// The keepalive interval of devices; zero if they send none.
    pub keepalive: Duration,
}

/// The keepalive interval in generated device configurations.
const KEEPALIVE: Duration = Duration::from_secs(25);

impl Default for Config {
    /// 10,000 hosts a minute need 5,000, if each check sends three probes at once and all time out
    /// after 10 s. The default is not quite twice that.
    fn default() -> Self {
        Config { max_in_flight: 9_000, interval: Timing::DEFAULT.interval, keepalive: KEEPALIVE }
    }
}

pub struct Monitor {
    config: Config,
    hosts: BTreeMap<HostId, Host>,
    /// The hosts that are reached through each peer.
    behind: BTreeMap<PeerId, BTreeSet<HostId>>,
    agenda: DueQueue,
    shared: Shared,
    /// The latest time at which the next call was due.
    expected: Option<Mono>,
    downtimes: Planned,
    handovers: Handovers,
    rental_phases: BTreeMap<HostId, RentalPhase>,
    family: ParentGraph,
    population: FleetSilence,
    sentinel: UplinkHealth,
    neighbours: Neighbours,
    /// Hosts that were up, fell silent, and are not hard down yet.
    failing: BTreeSet<HostId>,
    /// Hosts that were up and recently turned hard down.
    fallen: VecDeque<(Mono, HostId)>,
    /// Both clocks at the last call.
    last: Option<Now>,
}

impl Monitor {
    /// `seed` feeds the jitter of retries.
    pub fn new(config: Config, seed: u64) -> Self {
        Monitor {
            config: Config { max_in_flight: config.max_in_flight.max(1), ..config },
            hosts: BTreeMap::new(),
            behind: BTreeMap::new(),
            agenda: DueQueue::default(),
            shared: Shared::new(seed, AllowedSilence::of(config.keepalive)),
            expected: None,
            downtimes: Planned::default(),
            handovers: Handovers::default(),
            rental_phases: BTreeMap::new(),
            family: ParentGraph::default(),
            population: FleetSilence::new(config.interval),
            sentinel: UplinkHealth::default(),
            neighbours: Neighbours::default(),
            failing: BTreeSet::new(),
            fallen: VecDeque::new(),
            last: None,
        }
    }

    /// Continues from an earlier run. Called once, before anything but the downtimes and the phases of rentals.
    pub fn restore(&mut self, hosts: impl IntoIterator<Item = HostSnapshot>, now: Now) {
        let hosts: Vec<HostSnapshot> = hosts.into_iter().collect();
        self.shared.woke = (!hosts.is_empty()).then_some(now.mono);
        let away = hosts.iter().filter_map(last_seen).max().map_or(Duration::MAX, |at| now.wall.since(at));
        for memory in hosts {
            let long_away = away > memory.spec.timing.interval;
            let windows = self.downtimes.windows(&memory.spec);
            let host = Host::restored(memory, long_away, windows, &mut self.shared.ctx(now));
            self.adopt(host, now);
        }
        self.re_evaluate_incidents(now);
        for id in self.ids() {
            self.refresh(id, now);
        }
        self.mend_acknowledgements(now);
        for id in self.ids() {
            self.apply_rental_phase(id, now);
        }
    }

    pub fn handle(&mut self, input: MonitorInput, now: Now) {
        self.notice_gap(now);
        self.notice_step(now);
        match input {
            MonitorInput::ProbeReply(id, answer) => self.answer(id, answer, now),
            MonitorInput::TunnelEvent(news) => self.news(news, now),
            MonitorInput::Upsert(spec) => self.upsert(*spec, now),
            MonitorInput::Remove(id) => self.remove(id, now),
            MonitorInput::CheckNow { host, service } => {
                self.with(host, now, |host, ctx| host.check_now(service.as_deref(), ctx));
            }
            MonitorInput::Submit(sent) => self.submit(*sent, now),
            MonitorInput::Acknowledge { host, service, ack } => {
                self.with(host, now, |host, ctx| host.acknowledge(service.as_deref(), ack, ctx));
            }
            MonitorInput::Unacknowledge { host, service } => {
                self.with(host, now, |host, ctx| host.unacknowledge(service.as_deref(), ctx));
            }
            MonitorInput::AcknowledgeIncident(id, ack) => self.acknowledge_incident(id, &ack, now),
            MonitorInput::UnacknowledgeIncident(id) => self.unacknowledge_incident(id, now),
            MonitorInput::Downtime(downtime) => self.plan_downtime(*downtime, now),
            MonitorInput::CancelDowntime(id) => self.cancel_downtime(id, now),
            MonitorInput::Handover(spec) => self.handovers.put(*spec, now),
            MonitorInput::ForgetHandover(rental) => self.handovers.remove(rental),
            MonitorInput::ClockFloor(floor) => self.handovers.set_floor(floor),
            MonitorInput::AcceptClock => self.handovers.accept_clock(now),
            MonitorInput::RentalPhase(phase) => self.enter_rental_phase(*phase, now),
            MonitorInput::Forecasts(forecasts) => self.note_forecasts(&forecasts),
            MonitorInput::RestoreUplinkLost => self.was_cut_off(now),
            MonitorInput::Uplink(reading) => self.see_outside(&reading, now),
            MonitorInput::Mark(ticket) => self.shared.ctx(now).record(Record::Reply(ticket, Outcome::Done)),
            MonitorInput::Timeout => {}
        }
        let step = self.population.look(now.mono);
        self.weigh(step, now);
        self.give_up_looking(now);
        self.look_as_wanted(now);
        self.give_up_questions(now);
        self.run_due(now);
        self.judge_handovers(now);
        self.look_after_incidents(now);
    }

    /// Returns the next output; `Wait` when there is none.
    pub fn poll_output(&mut self) -> MonitorOutput {
        if let Some(output) = self.shared.out.pop_front() {
            return output;
        }
        let due = self.agenda.first().filter(|_| self.has_room());
        let lost = self.shared.asks.first_overdue();
        let patience = self.population.due().into_iter().chain(self.sentinel.due());
        let patience = patience.chain(self.shared.incidents.due()).chain(self.handovers.due());
        self.expected = due.into_iter().chain(lost).chain(patience).min();
        let why = match () {
            () if self.expected.is_none() => WakeReason::Idle,
            () if self.expected == due => WakeReason::CheckDue,
            () => WakeReason::ProbeTimeout,
        };
        MonitorOutput::Wait(self.expected, why)
    }

    pub fn figures(&self) -> MonitorStats {
        let services = self.hosts.values().map(Host::service_count).sum();
        MonitorStats {
            hosts: self.hosts.len(),
            services,
            in_flight: self.shared.asks.len(),
            ..self.shared.figures
        }
    }

    fn has_room(&self) -> bool {
        self.shared.asks.len() < self.config.max_in_flight
    }

    /// Runs an action on one host and plans the host anew.
    fn with(&mut self, id: HostId, now: Now, act: impl FnOnce(&mut Host, &mut Ctx<'_>)) {
        self.shared.with_others = self.hosts.get(&id).is_some_and(Host::may_turn_hard)
            && (self.will_look(id) || self.fails_with_others(id, now.mono));
        if let Some(host) = self.hosts.get_mut(&id) {
            let before = host.facts();
            act(host, &mut self.shared.ctx(now));
            self.agenda.set(id, host.wake_at(now));
            self.handovers.touch(id, now.mono);
            self.spread(id, before, now);
        }
    }

    fn adopt(&mut self, host: Host, now: Now) {
        let id = host.id();
        self.link(id, host.peer());
        self.family.add(id, &host.spec.parents);
        self.population.note(id, Some(host.facts().member), Mono::ZERO);
        self.agenda.set(id, host.wake_at(now));
        self.hosts.insert(id, host);
        self.handovers.touch(id, now.mono);
        self.shared.hosts = self.hosts.len();
        self.introduce(id);
    }

    /// Starts the hosts that are due, the longest waiting first, while there is room for probes. A
    /// host that is due again after each action is deferred, so that this call ends.
    fn run_due(&mut self, now: Now) {
        let mut turns: BTreeMap<HostId, u32> = BTreeMap::new();
        while self.has_room()
            && let Some(id) = self.agenda.pop_due(now.mono)
        {
            let count = turns.entry(id).or_default();
            *count += 1;
            if *count > MOST_TURNS {
                debug_assert!(false, "{id} is due again and again");
                self.agenda.set(id, Some(now.mono + GAP));
                continue;
            }
            self.with(id, now, Host::advance);
        }
    }

    fn answer(&mut self, id: ProbeId, answer: ProbeReply, now: Now) {
        let Some((host, asker)) = self.shared.asks.close(id) else {
            return;
        };
        self.with(host, now, |host, ctx| {
            match asker {
                ProbeOwner::Host(asked) => host.answer_check((id, asked), answer, ctx),
                ProbeOwner::Service(i) => host.answer_service(i, answer, ctx),
                ProbeOwner::Ssh => host.answer_session(answer, ctx),
            }
            host.advance(ctx);
        });
    }

    fn news(&mut self, news: TunnelEvent, now: Now) {
        let Some(peer) = news.concerned_peer() else {
            return;
        };
        let hosts: Vec<HostId> = self.behind.get(&peer).into_iter().flatten().copied().collect();
        for id in hosts {
            self.with(id, now, |host, ctx| host.on_tunnel_event(&news, ctx));
        }
    }

    fn upsert(&mut self, spec: HostSpec, now: Now) {
        let (id, peer) = (spec.id, spec.peer);
        let before = self.hosts.get(&id).map(Host::peer);
        if let Some(before) = before {
            let parents = (self.parents(id), spec.parents.clone());
            self.family.remove(id, &parents.0);
            self.family.add(id, &parents.1);
            self.unlink(id, before);
            let windows = self.downtimes.windows(&spec);
            self.with(id, now, |host, ctx| {
                host.change(spec, ctx);
                host.set_windows(windows, ctx);
            });
            self.link(id, peer);
            self.introduce(id);
            self.forget_lost_services(id, now);
        } else {
            let windows = self.downtimes.windows(&spec);
            self.adopt(Host::new(spec, windows, now), now);
        }
        self.refresh(id, now);
        self.apply_rental_phase(id, now);
    }

    fn parents(&self, id: HostId) -> Vec<HostId> {
        self.hosts.get(&id).map(|host| host.spec.parents.clone()).unwrap_or_default()
    }

    /// Applies a passive result. The reply to the submitter comes after everything that the result
    /// causes.
    fn submit(&mut self, sent: PassiveResult, now: Now) {
        let (ticket, host, service, by) = (sent.ticket, sent.host, sent.service.clone(), sent.by.clone());
        let (mut outcome, before) = (Outcome::Unknown, self.shared.out.len());
        self.with(host, now, |host, ctx| outcome = host.submit(sent, ctx));
        self.shared.sign(before, (host, service.as_deref()), &by);
        self.shared.ctx(now).record(Record::Reply(ticket, outcome));
    }

    /// A forecast counts from the next result on, and so changes no plan.
    fn note_forecasts(&mut self, forecasts: &[FullAt]) {
        for forecast in forecasts {
            if let Some(host) = self.hosts.get_mut(&forecast.host) {
                host.note_forecast(forecast);
            }
        }
    }

    fn plan_downtime(&mut self, downtime: Downtime, now: Now) {
        let ended = self.downtimes.remove_ended(now.wall - KEPT_DOWNTIME);
        let before = self.downtimes.insert(downtime.clone());
        let removed = ended.iter().chain(&before);
        let hosts = removed.chain([&downtime]).flat_map(|downtime| self.meant(downtime)).collect();
        self.set_windows(hosts, Some(&downtime), now);
    }

    fn cancel_downtime(&mut self, id: Id, now: Now) {
        if let Some(downtime) = self.downtimes.remove(id) {
            self.set_windows(self.meant(&downtime).into_iter().collect(), None, now);
        }
    }

    /// Returns the hosts to which a downtime may apply.
    fn meant(&self, downtime: &Downtime) -> Vec<HostId> {
        match &downtime.scope.hosts {
            HostScope::One(id) => vec![*id],
            HostScope::Labels(_) => self.ids(),
        }
    }

    /// Updates the windows of these hosts after one downtime was planned or others were removed.
    /// Other planned downtimes are left as they are.
    fn set_windows(&mut self, hosts: BTreeSet<HostId>, planned: Option<&Downtime>, now: Now) {
        for id in hosts {
            let Some(host) = self.hosts.get(&id) else { continue };
            let is_new = |id: Id| planned.is_some_and(|downtime| downtime.id == id);
            let stays = |w: &&Window| self.downtimes.contains(w.id) && !is_new(w.id);
            let new = planned.and_then(|downtime| Window::of(downtime, &host.spec));
            let mut windows: Vec<Window> = host.windows.iter().filter(stays).cloned().chain(new).collect();
            windows.sort_by_key(|window| window.id);
            if windows != host.windows {
                self.with(id, now, |host, ctx| host.set_windows(windows, ctx));
            }
        }
    }

    fn ids(&self) -> Vec<HostId> {
        self.hosts.keys().copied().collect()
    }

    fn remove(&mut self, id: HostId, now: Now) {
        self.with(id, now, Host::retire);
        self.agenda.set(id, None);
        if let Some(host) = self.hosts.remove(&id) {
            self.handovers.touch(id, now.mono);
            self.shared.hosts = self.hosts.len();
            self.unlink(id, host.peer());
            self.family.remove(id, &host.spec.parents);
            self.population.note(id, None, now.mono);
            self.neighbours.remove(id);
            self.failing.remove(&id);
            self.shared.incidents.forget(|_| true, id, now);
            self.shared.publish_incidents();
        }
        for child in self.family.children(id) {
            self.refresh(child, now);
        }
        self.end_doubts(now);
    }

    fn link(&mut self, id: HostId, peer: Option<PeerId>) {
        if let Some(peer) = peer {
            self.behind.entry(peer).or_default().insert(id);
        }
    }

    fn unlink(&mut self, id: HostId, peer: Option<PeerId>) {
        let Some(peer) = peer else {
            return;
        };
        if let Some(hosts) = self.behind.get_mut(&peer) {
            hosts.remove(&id);
            if hosts.is_empty() {
                self.behind.remove(&peer);
            }
        }
    }

    /// After a suspend, skips the slots that were missed; silence counts from now.
    fn notice_gap(&mut self, now: Now) {
        let Some(expected) = self.expected.filter(|at| now.mono.since(*at) > GAP) else {
            return;
        };
        self.expected = None;
        self.shared.woke = Some(now.mono);
        let gap = now.mono.since(expected);
        for id in self.ids() {
            self.with(id, now, |host, ctx| host.skip_missed(gap, ctx));
        }
        self.handovers.skip_missed(now.mono);
    }

    /// After a step of the wall clock, re-evaluates calendar plans and rewrites stored times.
    fn notice_step(&mut self, now: Now) {
        self.handovers.look(now);
        let last = self.last.replace(now).unwrap_or(now);
        let Some(step) = ClockStep::between(last, now) else { return };
        let is_jump = step.size() > JUMP;
        if is_jump {
            self.shared.woke = Some(now.mono);
        }
        self.shared.incidents.mind_step(step, now);
        for id in self.ids() {
            self.with(id, now, |host, ctx| host.mind_step(is_jump, ctx));
        }
        self.handovers.mind_step(now);
    }

    fn give_up_questions(&mut self, now: Now) {
        while let Some(id) = self.shared.asks.overdue(now.mono) {
            self.shared.figures.lost_probes += 1;
            self.answer(id, ProbeReply::Refused("no reply to this probe".to_owned()), now);
        }
    }
}

/// Returns the time of the newest result of an earlier run.
fn last_seen(memory: &HostSnapshot) -> Option<Wall> {
    let host = memory.state.iter().filter_map(|s| s.last_check);
    host.chain(memory.services.iter().filter_map(|s| s.last_check)).max()
}
