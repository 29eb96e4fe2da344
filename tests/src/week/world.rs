//! A gateway around the real monitor. It carries probes to the fleet, keeps what the store would
//! keep, and passes the result of every completed check to the model.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    ConnectFailure, EchoReply, Evidence, GATEWAY, HostSnapshot, HostSpec, HostState, HostStatus,
    MonitorInput, MonitorOutput, Probe, ProbeId, ProbeReply, ProbeRequest, Record, StateType, Timing,
    TunnelEvent,
};
use fleetgate_engine::monitor::{Config, Monitor};
use fleetgate_engine::time::{Mono, Now, Wall};

use super::fleet::{Fleet, Notice};
use super::model::{Look, Model};
use super::{ATTEMPTS, INTERVAL, MAX_SILENCE, RETRY, Report};

/// Both clocks at the start.
const START: Mono = Mono::from_secs(100_000);
const WALL: Wall = Wall::from_millis(1_800_000_000_000);
/// A round trip. A failed probe takes no longer, because the monitor cannot see the difference.
const RTT: Duration = Duration::from_millis(30);
/// A state that lasted this long must be known. It is fifteen intervals; one check of an
/// unreachable host takes five.
const SURE: Duration = Duration::from_secs(3_600);

/// A check in progress.
struct Open {
    /// Distinguishes it from the next look at the same host.
    serial: ProbeId,
    /// Probes that wait for their replies.
    asks: Vec<ProbeId>,
    looked_again: bool,
    look: Look,
}

impl Open {
    fn new(began: Mono, evidence: ProbeId) -> Open {
        let look = Look { began, packet: None, answered: None, handshake: None };
        Open { serial: evidence, asks: vec![evidence], looked_again: false, look }
    }

    fn is_finished(&self) -> bool {
        self.asks.is_empty() || self.look.answered == Some(true)
    }

    fn looks_once_more(&self) -> bool {
        self.asks.is_empty() && self.look.answered == Some(false) && !self.looked_again
    }
}

pub struct World {
    seed: u64,
    starts: u64,
    now: Now,
    /// The wall clock at the start, by the clock as it is set now.
    epoch: Wall,
    /// `None`: the gateway is away.
    monitor: Option<Monitor>,
    wait: Option<Mono>,
    fleet: Fleet,
    model: Model,
    /// All probes take equally long, so the replies keep their order.
    coming: VecDeque<(Mono, ProbeRequest)>,
    open: Vec<Option<Open>>,
    kept: Vec<Option<HostState>>,
    /// The last message about the gateway reported its uplink down.
    cut_off: bool,
    said: Vec<String>,
    pub report: Report,
}

fn config() -> Config {
    Config { interval: INTERVAL, ..Config::default() }
}

fn id(n: usize) -> HostId {
    HostId::from_i64(n as i64 + 1)
}

fn index(id: HostId) -> usize {
    id.as_i64() as usize - 1
}

impl World {
    pub fn new(seed: u64, hosts: usize) -> World {
        let now = Now { mono: START, wall: WALL };
        let fleet = Fleet::new(seed, hosts, now.mono);
        let sheet = |n: usize| (fleet.devices[n].router, fleet.sleeps(n));
        let model = Model::new((0..hosts).map(sheet), now);
        let mut world = World {
            seed,
            starts: 0,
            now,
            epoch: WALL,
            monitor: Some(Monitor::new(config(), seed)),
            wait: None,
            fleet,
            model,
            coming: VecDeque::new(),
            open: (0..hosts).map(|_| None).collect(),
            kept: vec![None; hosts],
            cut_off: false,
            said: Vec::new(),
            report: Report::default(),
        };
        for n in 0..hosts {
            let spec = Box::new(world.spec(n));
            world.input(MonitorInput::Upsert(spec));
        }
        world
    }

    fn spec(&self, n: usize) -> HostSpec {
        let address = Ipv4Addr::from(0xac18_0002 + n as u32);
        HostSpec {
            parents: self.fleet.devices[n].router.map(id).into_iter().collect(),
            max_silence: self.fleet.sleeps(n),
            timing: Timing { interval: INTERVAL, retry: RETRY, attempts: ATTEMPTS, ..Timing::DEFAULT },
            ..HostSpec::device(id(n), format!("h{n}"), address)
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let answer = self.coming.front().map(|(at, _)| *at);
            let wait = self.wait.filter(|_| self.monitor.is_some());
            let next = self.fleet.next().into_iter().chain(answer).chain(wait).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.advance_to(at);
            if self.fleet.next().is_some_and(|at| at <= self.now.mono) {
                self.happen();
            } else if answer.is_some_and(|at| at <= self.now.mono) {
                self.deliver();
            } else {
                self.input(MonitorInput::Timeout);
            }
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Mono) {
        let mono = self.now.mono.max(at);
        self.now = Now { mono, wall: self.epoch + mono.since(START) };
    }

    fn happen(&mut self) {
        match self.fleet.happen(self.now.mono) {
            None => {}
            Some(Notice::SessionUp(n)) => self.input(MonitorInput::TunnelEvent(TunnelEvent::Up(id(n)))),
            Some(Notice::Ends) => {
                self.monitor = None;
                self.coming.clear();
                self.open.iter_mut().for_each(|open| *open = None);
            }
            Some(Notice::Starts) => self.start_again(),
            Some(Notice::ClockSet(millis)) => self.set_clock(millis),
        }
    }

    fn set_clock(&mut self, millis: i64) {
        self.epoch = Wall::from_millis(self.epoch.as_millis() + millis);
        self.advance_to(self.now.mono);
        if self.monitor.is_some() {
            self.model.see_clock_set(self.now, Duration::from_millis(millis.unsigned_abs()));
        }
        self.input(MonitorInput::Timeout);
        self.report.clock_steps += 1;
    }

    fn start_again(&mut self) {
        self.starts += 1;
        let mut monitor = Monitor::new(config(), self.seed + self.starts * 1_000_003);
        if self.cut_off {
            monitor.handle(MonitorInput::RestoreUplinkLost, self.now);
        }
        let memory = |(n, state): (usize, &Option<HostState>)| HostSnapshot {
            spec: self.spec(n),
            state: state.clone(),
            services: Vec::new(),
            acknowledged: Vec::new(),
        };
        monitor.restore(self.kept.iter().enumerate().map(memory), self.now);
        self.monitor = Some(monitor);
        self.model.restart(self.now);
        self.drain();
        self.report.restarts += 1;
    }

    fn input(&mut self, input: MonitorInput) {
        if let Some(monitor) = &mut self.monitor {
            monitor.handle(input, self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(monitor) = &mut self.monitor {
            match monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => self.take(ask),
                MonitorOutput::Record(record) => self.keep(record),
                MonitorOutput::HandedOver(_) | MonitorOutput::FirstContact(_) => {
                    unreachable!("there are no rentals")
                }
                MonitorOutput::ProbeUplink => unreachable!("there is no sentinel"),
                MonitorOutput::Wait(at, _) => {
                    self.wait = at;
                    return;
                }
            }
        }
    }

    /// Takes a probe request. A check begins with the evidence. After probes without a reply it ends
    /// with the evidence once more.
    fn take(&mut self, ask: ProbeRequest) {
        let n = index(ask.host);
        match (&ask.probe, &mut self.open[n]) {
            (Probe::Evidence { .. }, Some(open)) if open.looks_once_more() => {
                (open.looked_again, open.asks) = (true, vec![ask.id]);
            }
            (Probe::Evidence { .. }, _) => {
                self.close(n);
                self.open[n] = Some(Open::new(self.now.mono, ask.id));
            }
            (_, Some(open)) => {
                open.asks.push(ask.id);
                open.look.answered = open.look.answered.or(Some(false));
            }
            (probe, None) => panic!("{probe:?} without a look at the evidence"),
        }
        self.coming.push_back((self.now.mono + RTT, ask));
    }

    /// Gives a finished look to the model. A look whose probes were cancelled is dropped.
    fn close(&mut self, n: usize) {
        if let Some(open) = self.open[n].take().filter(Open::is_finished) {
            self.report.looks += 1;
            self.model.look(n, self.now, open.look);
        }
    }

    /// Delivers the reply to the oldest probe. The reply to a cancelled probe is ignored.
    fn deliver(&mut self) {
        let Some((_, ask)) = self.coming.pop_front() else { return };
        let (n, now) = (index(ask.host), self.now.mono);
        if matches!(ask.probe, Probe::Handshake { .. }) && self.fleet.redial(n, now) {
            self.input(MonitorInput::TunnelEvent(TunnelEvent::Up(ask.host)));
        }
        let (answer, good) = self.answer(n, &ask.probe);
        let Some(open) = self.open[n].as_mut().filter(|open| open.asks.contains(&ask.id)) else {
            return self.input(MonitorInput::ProbeReply(ask.id, answer));
        };
        open.asks.retain(|id| *id != ask.id);
        match &answer {
            ProbeReply::Evidence(evidence) => {
                (open.look.packet, open.look.handshake) = (evidence.last_packet, evidence.last_handshake);
            }
            _ if good => open.look.answered = Some(true),
            _ => {}
        }
        let serial = open.serial;
        self.input(MonitorInput::ProbeReply(ask.id, answer));
        if self.open[n].as_ref().is_some_and(|open| open.serial == serial && open.is_finished()) {
            self.close(n);
        }
    }

    fn answer(&mut self, n: usize, probe: &Probe) -> (ProbeReply, bool) {
        let now = self.now.mono;
        let (flows, established) = (self.fleet.flows(n), self.fleet.is_established(n, now));
        let failure = if established { ConnectFailure::Timeout } else { ConnectFailure::NoTunnel };
        let answer = match probe {
            Probe::Evidence { .. } => ProbeReply::Evidence(Evidence {
                last_packet: self.fleet.last_packet(n, now),
                last_handshake: self.fleet.last_handshake(n),
                established,
                ..Evidence::default()
            }),
            Probe::Echo { count, .. } | Probe::LargeEcho { count, .. } if flows => {
                ProbeReply::Echo(EchoReply { sent: *count, rtts: vec![RTT], failure: None })
            }
            Probe::Echo { .. } | Probe::LargeEcho { .. } => ProbeReply::Echo(EchoReply {
                sent: u8::from(established),
                rtts: Vec::new(),
                failure: (!established).then_some(failure),
            }),
            Probe::Connect { .. } => ProbeReply::Connect(if flows { Ok(RTT) } else { Err(failure) }),
            Probe::Handshake { .. } if flows => ProbeReply::Handshake(Ok(RTT)),
            Probe::Handshake { .. } => ProbeReply::Handshake(Err(ConnectFailure::Timeout)),
            Probe::Ssh { .. } => unreachable!("there is no login"),
        };
        if flows && !matches!(probe, Probe::Evidence { .. }) {
            self.fleet.answered(n, now);
        }
        (answer, flows)
    }

    fn keep(&mut self, record: Record) {
        match record {
            Record::Host(state) => {
                let n = index(state.host);
                self.kept[n] = Some(*state);
            }
            Record::Message(m) => {
                let about_us = m.host == GATEWAY;
                self.cut_off = if about_us { m.problem } else { self.cut_off };
                let kind = if about_us { "gateway" } else { m.kind.name() };
                *self.report.messages.entry(kind.to_owned()).or_default() += 1;
                self.said.push(format!("{} {} {}>{}", m.host_name, m.kind.name(), m.from, m.to));
            }
            _ => {}
        }
    }

    fn context(&self) -> String {
        format!("seed {}, {:?} after the start", self.seed, self.now.mono.since(START))
    }

    /// Asserts that engine and model agree, and that states that lasted long are known.
    ///
    /// # Panics
    /// Panics when they do not.
    pub fn compare(&mut self) {
        self.model.pass(self.now.mono);
        let (engine, model) = (std::mem::take(&mut self.said), self.model.take_said());
        let context = self.context();
        assert_eq!(surplus(&engine, &model), [""; 0], "only the engine says: {context}");
        assert_eq!(surplus(&model, &engine), [""; 0], "only the model says: {context}");
        for n in 0..self.kept.len() {
            self.compare_host(n);
        }
        let states = || self.kept.iter().flatten();
        self.report.unreachable = self.report.unreachable.max(states().filter(|s| !s.reachable).count());
        self.report.asleep = self.report.asleep.max(states().filter(|s| s.asleep).count());
    }

    fn compare_host(&mut self, n: usize) {
        let Some(state) = &self.kept[n] else { panic!("h{n} has no state: {}", self.context()) };
        let engine = super::model::Shown {
            up: state.status == HostStatus::Up,
            hard: state.kind == StateType::Hard,
            attempt: state.attempt,
            hard_up: state.hard == HostStatus::Up,
            reachable: state.reachable,
            asleep: state.asleep,
            flapping: state.notification.flapping,
        };
        let context = || format!("h{n}: {}\n{state:#?}", self.context());
        assert_eq!(engine, self.model.shown(n), "engine and model of {}", context());
        let (well, gone) = [(true, SURE), (false, SURE + self.fleet.sleeps(n).unwrap_or_default())]
            .map(|(flows, time)| self.fleet.is_settled(n, flows, time, self.now.mono))
            .into();
        assert!(!well || state.hard == HostStatus::Up && state.reachable, "it is there: {}", context());
        assert!(!gone || state.hard == HostStatus::Down || !state.reachable, "it is gone: {}", context());
        self.report.compared += 1;
    }
}

/// Returns the messages that the first list has more often than the second.
fn surplus<'a>(these: &'a [String], those: &[String]) -> Vec<&'a str> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    those.iter().for_each(|said| *left.entry(said).or_default() += 1);
    let mut is_more = |said: &str| left.get_mut(said).filter(|n| **n > 0).map(|n| *n -= 1).is_none();
    these.iter().map(String::as_str).filter(|said| is_more(said)).collect()
}

const _: () = assert!(MAX_SILENCE.as_secs() > SURE.as_secs());
