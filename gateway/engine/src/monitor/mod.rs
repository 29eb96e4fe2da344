//! Monitoring: the state of each host and service, and the notifications.
//!
//! The monitor is pure: the caller supplies time and randomness, and receives probe requests and
//! records. Call [`Monitor::handle`], then drain [`Monitor::poll_output`] until it returns `Wait`.
//! This module only dispatches: it finds the host of an input, and the hosts that are due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{HostId, Id, PeerId};
use crate::time::{Mono, Now, Step, Wall};
use crate::wire::{
    Answer, AskId, Downtime, HostMemory, HostScope, HostSpec, MonitorInput, MonitorOutput, News, Outcome,
    Record, Submission, Timing, Why,
};

mod alert;
mod answer;
#[cfg(test)]
mod chaos;
mod depend;
mod downtime;
pub mod flapping;
mod heartbeat;
mod host;
mod judged;
mod liveness;
mod neighbours;
mod news;
pub mod pace;
mod parents;
mod passive;
mod path_check;
mod population;
pub mod profile;
mod reach;
pub mod recurrence;
mod rhythm;
mod round;
mod schedule;
mod sentinel;
mod service;
mod session;
mod speech;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod together;
mod tunnel_check;
mod turn;
mod undecided;
mod uplink;
mod vital;
mod voice;

use downtime::Window;
use host::Host;
use neighbours::Neighbours;
use parents::Family;
use population::Population;
use rhythm::Rhythm;
use schedule::Agenda;
use sentinel::Sentinel;
use turn::{Asker, Desk, Turn};

pub use turn::Figures;

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
    agenda: Agenda,
    desk: Desk,
    /// The latest time at which the next call was due.
    expected: Option<Mono>,
    downtimes: BTreeMap<Id, Downtime>,
    family: Family,
    population: Population,
    sentinel: Sentinel,
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
            agenda: Agenda::default(),
            desk: Desk::new(seed, Rhythm::of(config.keepalive)),
            expected: None,
            downtimes: BTreeMap::new(),
            family: Family::default(),
            population: Population::new(config.interval),
            sentinel: Sentinel::default(),
            neighbours: Neighbours::default(),
            failing: BTreeSet::new(),
            fallen: VecDeque::new(),
            last: None,
        }
    }

    /// Continues from an earlier run. Called once, before anything but the downtimes.
    pub fn restore(&mut self, hosts: impl IntoIterator<Item = HostMemory>, now: Now) {
        let hosts: Vec<HostMemory> = hosts.into_iter().collect();
        self.desk.woke = (!hosts.is_empty()).then_some(now.mono);
        let away = hosts.iter().filter_map(last_seen).max().map_or(Duration::MAX, |at| now.wall.since(at));
        for memory in hosts {
            let long_away = away > memory.spec.timing.interval;
            let windows = self.windows(&memory.spec);
            let host = Host::restored(memory, long_away, windows, &mut self.desk.turn(now));
            self.adopt(host, now);
        }
        self.review_incidents(now);
        for id in self.ids() {
            self.refresh(id, now);
        }
        self.mend_acknowledgements(now);
    }

    pub fn handle(&mut self, input: MonitorInput, now: Now) {
        self.notice_gap(now);
        self.notice_step(now);
        match input {
            MonitorInput::Answer(id, answer) => self.answer(id, answer, now),
            MonitorInput::News(news) => self.news(news, now),
            MonitorInput::Upsert(spec) => self.upsert(*spec, now),
            MonitorInput::Remove(id) => self.remove(id, now),
            MonitorInput::CheckNow { host, service } => {
                self.with(host, now, |host, turn| host.check_now(service.as_deref(), turn));
            }
            MonitorInput::Submit(sent) => self.submit(*sent, now),
            MonitorInput::Acknowledge { host, service, ack } => {
                self.with(host, now, |host, turn| host.acknowledge(service.as_deref(), ack, turn));
            }
            MonitorInput::Unacknowledge { host, service } => {
                self.with(host, now, |host, turn| host.unacknowledge(service.as_deref(), turn));
            }
            MonitorInput::AcknowledgeIncident(id, ack) => self.acknowledge_incident(id, &ack, now),
            MonitorInput::UnacknowledgeIncident(id) => self.unacknowledge_incident(id, now),
            MonitorInput::Downtime(downtime) => self.plan_downtime(*downtime, now),
            MonitorInput::CancelDowntime(id) => self.cancel_downtime(id, now),
            MonitorInput::WasCutOff => self.was_cut_off(now),
            MonitorInput::Uplink(reading) => self.see_outside(&reading, now),
            MonitorInput::Mark(ticket) => self.desk.turn(now).record(Record::Reply(ticket, Outcome::Done)),
            MonitorInput::Timeout => {}
        }
        let step = self.population.look(now.mono);
        self.weigh(step, now);
        self.give_up_looking(now);
        self.look_as_wanted(now);
        self.give_up_questions(now);
        self.run_due(now);
        self.look_after_incidents(now);
    }

    /// Returns the next output; `Wait` when there is none.
    pub fn poll_output(&mut self) -> MonitorOutput {
        if let Some(output) = self.desk.out.pop_front() {
            return output;
        }
        let due = self.agenda.first().filter(|_| self.has_room());
        let lost = self.desk.asks.first_overdue();
        let patience = self.population.due().into_iter().chain(self.sentinel.due());
        let patience = patience.chain(self.desk.incidents.due());
        self.expected = due.into_iter().chain(lost).chain(patience).min();
        let why = match () {
            () if self.expected.is_none() => Why::Idle,
            () if self.expected == due => Why::CheckDue,
            () => Why::ProbeTimeout,
        };
        MonitorOutput::Wait(self.expected, why)
    }

    pub fn figures(&self) -> Figures {
        let services = self.hosts.values().map(Host::service_count).sum();
        Figures { hosts: self.hosts.len(), services, in_flight: self.desk.asks.len(), ..self.desk.figures }
    }

    fn has_room(&self) -> bool {
        self.desk.asks.len() < self.config.max_in_flight
    }

    /// Runs an action on one host and plans the host anew.
    fn with(&mut self, id: HostId, now: Now, act: impl FnOnce(&mut Host, &mut Turn<'_>)) {
        self.desk.with_others = self.hosts.get(&id).is_some_and(Host::may_turn_hard)
            && (self.will_look(id) || self.fails_with_others(id, now.mono));
        if let Some(host) = self.hosts.get_mut(&id) {
            let before = host.stands();
            act(host, &mut self.desk.turn(now));
            self.agenda.set(id, host.wake_at(now));
            self.spread(id, before, now);
        }
    }

    fn adopt(&mut self, host: Host, now: Now) {
        let id = host.id();
        self.link(id, host.peer());
        self.family.add(id, &host.spec.parents);
        self.population.note(id, Some(host.stands().member), Mono::ZERO);
        self.agenda.set(id, host.wake_at(now));
        self.hosts.insert(id, host);
        self.desk.hosts = self.hosts.len();
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

    fn answer(&mut self, id: AskId, answer: Answer, now: Now) {
        let Some((host, asker)) = self.desk.asks.close(id) else {
            return;
        };
        self.with(host, now, |host, turn| {
            match asker {
                Asker::Host(asked) => host.answer_check((id, asked), answer, turn),
                Asker::Service(i) => host.answer_service(i, answer, turn),
                Asker::Ssh => host.answer_session(answer, turn),
            }
            host.advance(turn);
        });
    }

    fn news(&mut self, news: News, now: Now) {
        let Some(peer) = news::concerns(&news) else {
            return;
        };
        let hosts: Vec<HostId> = self.behind.get(&peer).into_iter().flatten().copied().collect();
        for id in hosts {
            self.with(id, now, |host, turn| host.hear(&news, turn));
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
            let windows = self.windows(&spec);
            self.with(id, now, |host, turn| {
                host.change(spec, turn);
                host.set_windows(windows, turn);
            });
            self.link(id, peer);
            self.introduce(id);
            self.forget_lost_services(id, now);
        } else {
            let windows = self.windows(&spec);
            self.adopt(Host::new(spec, windows, now), now);
        }
        self.refresh(id, now);
    }

    fn parents(&self, id: HostId) -> Vec<HostId> {
        self.hosts.get(&id).map(|host| host.spec.parents.clone()).unwrap_or_default()
    }

    /// Applies a passive result. The reply to the submitter comes after everything that the result
    /// causes.
    fn submit(&mut self, sent: Submission, now: Now) {
        let (ticket, host, service, by) = (sent.ticket, sent.host, sent.service.clone(), sent.by.clone());
        let (mut outcome, before) = (Outcome::Unknown, self.desk.out.len());
        self.with(host, now, |host, turn| outcome = host.submit(sent, turn));
        self.desk.sign(before, (host, service.as_deref()), &by);
        self.desk.turn(now).record(Record::Reply(ticket, outcome));
    }

    fn plan_downtime(&mut self, downtime: Downtime, now: Now) {
        let is_kept = |d: &Downtime| downtime::over_at(d).is_none_or(|at| at + KEPT_DOWNTIME > now.wall);
        let over = self.downtimes.values().filter(|d| !is_kept(d)).flat_map(|d| self.meant(d));
        let before = self.downtimes.get(&downtime.id).map(|before| self.meant(before));
        let hosts = over.chain(before.into_iter().flatten()).chain(self.meant(&downtime)).collect();
        self.downtimes.retain(|_, d| is_kept(d));
        self.downtimes.insert(downtime.id, downtime.clone());
        self.set_windows(hosts, Some(&downtime), now);
    }

    fn cancel_downtime(&mut self, id: Id, now: Now) {
        if let Some(downtime) = self.downtimes.remove(&id) {
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
            let stays = |w: &&Window| self.downtimes.contains_key(&w.id) && !is_new(w.id);
            let new = planned.and_then(|downtime| Window::of(downtime, &host.spec));
            let mut windows: Vec<Window> = host.windows.iter().filter(stays).cloned().chain(new).collect();
            windows.sort_by_key(|window| window.id);
            if windows != host.windows {
                self.with(id, now, |host, turn| host.set_windows(windows, turn));
            }
        }
    }

    fn windows(&self, host: &HostSpec) -> Vec<Window> {
        self.downtimes.values().filter_map(|downtime| Window::of(downtime, host)).collect()
    }

    fn ids(&self) -> Vec<HostId> {
        self.hosts.keys().copied().collect()
    }

    fn remove(&mut self, id: HostId, now: Now) {
        self.with(id, now, Host::retire);
        self.agenda.set(id, None);
        if let Some(host) = self.hosts.remove(&id) {
            self.desk.hosts = self.hosts.len();
            self.unlink(id, host.peer());
            self.family.remove(id, &host.spec.parents);
            self.population.note(id, None, now.mono);
            self.neighbours.remove(id);
            self.failing.remove(&id);
            self.desk.incidents.forget(|_| true, id, now);
            self.desk.publish_incidents();
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
        self.desk.woke = Some(now.mono);
        let gap = now.mono.since(expected);
        for id in self.ids() {
            self.with(id, now, |host, turn| host.skip_missed(gap, turn));
        }
    }

    /// After a step of the wall clock, re-evaluates calendar plans and rewrites stored times.
    fn notice_step(&mut self, now: Now) {
        let last = self.last.replace(now).unwrap_or(now);
        let Some(step) = Step::between(last, now) else { return };
        let is_jump = step.size() > JUMP;
        if is_jump {
            self.desk.woke = Some(now.mono);
        }
        self.desk.incidents.mind_step(step, now);
        for id in self.ids() {
            self.with(id, now, |host, turn| host.mind_step(is_jump, turn));
        }
    }

    fn give_up_questions(&mut self, now: Now) {
        while let Some(id) = self.desk.asks.overdue(now.mono) {
            self.desk.figures.lost_answers += 1;
            self.answer(id, Answer::Refused("nobody answered this question".to_owned()), now);
        }
    }
}

/// Returns the time of the newest result of an earlier run.
fn last_seen(memory: &HostMemory) -> Option<Wall> {
    let host = memory.state.iter().filter_map(|s| s.last_check);
    host.chain(memory.services.iter().filter_map(|s| s.last_check)).max()
}
