//! What state every host and service is in, and who is to be told.
//!
//! Pure: time and randomness are handed in, questions and records are handed out. Mutate with
//! [`Monitor::handle`], then drain [`Monitor::poll_output`] until it says `Wait`. Here is only the
//! turn: which host an input is for, and which hosts are due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{HostId, PeerId};
use crate::time::{Mono, Now, Wall};
use crate::wire::{Answer, AskId, HostMemory, HostSpec, MonitorInput, MonitorOutput, News, Why};

mod alert;
mod answer;
#[cfg(test)]
mod chaos;
mod depend;
mod host;
mod liveness;
mod news;
pub mod profile;
mod reach;
mod round;
mod schedule;
mod service;
mod session;
mod status;
#[cfg(test)]
mod testing;
mod turn;
mod vital;

use host::Host;
use schedule::Agenda;
use turn::{Asker, Desk, Turn};

pub use turn::Figures;

/// Nobody called for this long after something was due: the machine slept or the process was
/// stopped, and silence in that time was ours. Longer than any stall of a busy store.
const GAP: Duration = Duration::from_secs(10);

/// Settings of the whole monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Questions under way at one time, over all hosts; at least 1. Checks that are running may
    /// finish over it.
    pub max_in_flight: usize,
}

impl Default for Config {
    /// 10,000 hosts a minute whose every question times out after 10 s need 1,700; twice that.
    fn default() -> Self {
        Config { max_in_flight: 4096 }
    }
}

pub struct Monitor {
    config: Config,
    hosts: BTreeMap<HostId, Host>,
    /// Which hosts are reached through a peer.
    behind: BTreeMap<PeerId, BTreeSet<HostId>>,
    agenda: Agenda,
    desk: Desk,
    /// When the next call was due, at the latest.
    expected: Option<Mono>,
}

impl Monitor {
    /// `seed` feeds the jitter of retries.
    pub fn new(config: Config, seed: u64) -> Self {
        Monitor {
            config: Config { max_in_flight: config.max_in_flight.max(1) },
            hosts: BTreeMap::new(),
            behind: BTreeMap::new(),
            agenda: Agenda::default(),
            desk: Desk::new(seed),
            expected: None,
        }
    }

    /// Continues where an earlier run was. Once, before anything else.
    pub fn restore(&mut self, hosts: impl IntoIterator<Item = HostMemory>, now: Now) {
        let hosts: Vec<HostMemory> = hosts.into_iter().collect();
        self.desk.woke = (!hosts.is_empty()).then_some(now.mono);
        let away = hosts.iter().filter_map(last_seen).max().map_or(Duration::MAX, |at| now.wall.since(at));
        for memory in hosts {
            let long_away = away > memory.spec.timing.interval;
            let host = Host::restored(memory, long_away, &mut self.desk.turn(now));
            self.adopt(host);
        }
    }

    pub fn handle(&mut self, input: MonitorInput, now: Now) {
        self.notice_gap(now);
        match input {
            MonitorInput::Answer(id, answer) => self.answer(id, answer, now),
            MonitorInput::News(news) => self.news(news, now),
            MonitorInput::Upsert(spec) => self.upsert(*spec, now),
            MonitorInput::Remove(id) => self.remove(id, now),
            MonitorInput::CheckNow { host, service } => {
                self.with(host, now, |host, turn| host.check_now(service.as_deref(), turn));
            }
            MonitorInput::Timeout => {}
        }
        self.give_up_questions(now);
        self.run_due(now);
    }

    /// What is to be done, one thing at a time; `Wait` when there is nothing more.
    pub fn poll_output(&mut self) -> MonitorOutput {
        if let Some(output) = self.desk.out.pop_front() {
            return output;
        }
        let due = self.agenda.first().filter(|_| self.has_room());
        let lost = self.desk.asks.first_overdue();
        self.expected = due.into_iter().chain(lost).min();
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

    /// Lets one host act, and plans it anew.
    fn with(&mut self, id: HostId, now: Now, act: impl FnOnce(&mut Host, &mut Turn<'_>)) {
        if let Some(host) = self.hosts.get_mut(&id) {
            act(host, &mut self.desk.turn(now));
            self.agenda.set(id, host.wake_at());
        }
    }

    fn adopt(&mut self, host: Host) {
        let id = host.id();
        self.link(id, host.peer());
        self.agenda.set(id, host.wake_at());
        self.hosts.insert(id, host);
    }

    /// Starts what is due, the longest waiting first, while there is room for questions.
    fn run_due(&mut self, now: Now) {
        while self.has_room()
            && let Some(id) = self.agenda.pop_due(now.mono)
        {
            self.with(id, now, Host::advance);
        }
    }

    fn answer(&mut self, id: AskId, answer: Answer, now: Now) {
        let Some((host, asker)) = self.desk.asks.close(id) else {
            return;
        };
        self.with(host, now, |host, turn| {
            match asker {
                Asker::Host => host.answer_check(answer, turn),
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
            self.unlink(id, before);
            self.with(id, now, |host, turn| host.change(spec, turn));
            self.link(id, peer);
        } else {
            self.adopt(Host::new(spec, now));
        }
    }

    fn remove(&mut self, id: HostId, now: Now) {
        self.with(id, now, Host::retire);
        self.agenda.set(id, None);
        if let Some(host) = self.hosts.remove(&id) {
            self.unlink(id, host.peer());
        }
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

    /// After a suspend the slots of the time between are skipped, and silence counts from now.
    fn notice_gap(&mut self, now: Now) {
        let Some(expected) = self.expected.filter(|at| now.mono.since(*at) > GAP) else {
            return;
        };
        self.expected = None;
        self.desk.woke = Some(now.mono);
        let gap = now.mono.since(expected);
        let hosts: Vec<HostId> = self.hosts.keys().copied().collect();
        for id in hosts {
            self.with(id, now, |host, turn| host.skip_missed(gap, turn));
        }
    }

    fn give_up_questions(&mut self, now: Now) {
        while let Some(id) = self.desk.asks.overdue(now.mono) {
            self.desk.figures.lost_answers += 1;
            self.answer(id, Answer::Refused("nobody answered this question".to_owned()), now);
        }
    }
}

/// The newest trace of an earlier run.
fn last_seen(memory: &HostMemory) -> Option<Wall> {
    let host = memory.state.iter().filter_map(|s| s.last_check);
    host.chain(memory.services.iter().filter_map(|s| s.last_check)).max()
}
