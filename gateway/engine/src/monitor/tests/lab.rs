//! A monitor of several hosts whose links a test breaks at set times.
//!
//! Each probe gets a reply by the true state of its host at that time: after a round trip, or
//! silence until its timeout.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use crate::id::{HostId, PeerId};
use crate::messages::{
    Check, ConnectFailure, EchoReply, Event, Evidence, HostSpec, HostState, Message, MonitorInput,
    MonitorOutput, PassiveResult, Probe, ProbeId, ProbeReply, ProbeRequest, Record, ServiceSpec,
    ServiceState, Ticket, TunnelEvent,
};
use crate::monitor::{Config, Monitor, testing};
use crate::time::{Mono, Now, Wall};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3_600);
const RTT: Duration = Duration::from_millis(30);
/// Midnight of 2026-01-10, UTC.
const MIDNIGHT: Wall = Wall::from_millis(1_768_003_200_000);

/// The behaviour of a device, by the seconds since the start.
pub struct Truth {
    /// The time of the last packet that it sent on its own.
    packet: Box<dyn Fn(f64) -> f64>,
    /// Whether it replies to probes.
    answers: Box<dyn Fn(f64) -> bool>,
}

impl Truth {
    pub fn new(packet: impl Fn(f64) -> f64 + 'static, answers: impl Fn(f64) -> bool + 'static) -> Truth {
        Truth { packet: Box::new(packet), answers: Box::new(answers) }
    }

    /// Sends a keepalive every 25 s from `phase` on and replies to probes, except between `from`
    /// and `to`.
    pub fn off(phase: f64, from: f64, to: f64) -> Truth {
        let there = move |t: f64| t < from || t >= to;
        let packet = move |t: f64| {
            let last = keepalive(phase, t);
            if there(last) { last } else { keepalive(phase, from - 0.001) }
        };
        Truth::new(packet, there)
    }

    /// Sends no packets on its own and replies to probes, except between `from` and `to`.
    pub fn quiet(from: f64, to: f64) -> Truth {
        Truth::new(|_| -90_000.0, move |t| t < from || t >= to)
    }

    /// Its keepalives arrive, but from `from` on no packet reaches it.
    pub fn deaf(from: f64) -> Truth {
        Truth::new(|t| keepalive(3.0, t), move |t| t < from)
    }

    pub fn well() -> Truth {
        Truth::off(3.0, f64::MAX, f64::MAX)
    }
}

fn keepalive(phase: f64, t: f64) -> f64 {
    ((t - phase) / 25.0).floor() * 25.0 + phase
}

pub struct Lab {
    pub monitor: Monitor,
    start: Mono,
    pub now: Now,
    pending: BTreeMap<(Mono, u64), (ProbeId, ProbeReply)>,
    pub hosts: BTreeMap<HostId, Truth>,
    last_answer: BTreeMap<PeerId, Mono>,
    pub records: Vec<(f64, Record)>,
    asked: u64,
}

impl Lab {
    pub fn new() -> Lab {
        let now = Now { mono: Mono::from_secs(100_000), wall: MIDNIGHT };
        Lab {
            monitor: Monitor::new(Config::default(), 1),
            start: now.mono,
            now,
            pending: BTreeMap::new(),
            hosts: BTreeMap::new(),
            last_answer: BTreeMap::new(),
            records: Vec::new(),
            asked: 0,
        }
    }

    /// Returns the seconds since the start.
    pub fn t(&self) -> f64 {
        self.now.mono.since(self.start).as_secs_f64()
    }

    pub fn add(&mut self, spec: HostSpec, truth: Truth) -> HostId {
        let id = spec.id;
        self.hosts.insert(id, truth);
        self.input(MonitorInput::Upsert(Box::new(spec)));
        id
    }

    pub fn input(&mut self, input: MonitorInput) {
        self.monitor.handle(input, self.now);
        self.drain();
    }

    /// Reports the device's first packet after a silence, as the tunnel does.
    pub fn on_result(&mut self, id: HostId) {
        self.input(MonitorInput::TunnelEvent(TunnelEvent::Heard(id)));
        self.input(MonitorInput::TunnelEvent(TunnelEvent::Up(id)));
    }

    pub fn send(&mut self, host: HostId, service: Option<&str>, status: Status) {
        self.send_result(host, service, PluginResult::new(status, "sent", Vec::new()));
    }

    pub fn send_result(&mut self, host: HostId, service: Option<&str>, result: PluginResult) {
        let sent = PassiveResult {
            host,
            service: service.map(str::to_owned),
            result,
            at: self.now.wall,
            by: "token:t_1".to_owned(),
            identity: Default::default(),
            ticket: Ticket(1),
        };
        self.input(MonitorInput::Submit(Box::new(sent)));
    }

    /// Runs until so many seconds after the start.
    pub fn run_to(&mut self, t: f64) {
        self.run(Duration::from_secs_f64((t - self.t()).max(0.0)));
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let wait = self.drain();
            let answer = self.pending.keys().next().map(|(at, _)| *at);
            let Some(at) = wait.into_iter().chain(answer).min().filter(|at| *at <= end) else {
                return self.pass(end);
            };
            self.pass(at);
            let ready = |(due, _): &(Mono, u64)| *due <= self.now.mono;
            if self.pending.first_key_value().is_some_and(|(key, _)| ready(key)) {
                let (_, (id, answer)) = self.pending.pop_first().expect("one is ready");
                self.monitor.handle(MonitorInput::ProbeReply(id, answer), self.now);
            } else {
                self.monitor.handle(MonitorInput::Timeout, self.now);
            }
        }
    }

    fn pass(&mut self, to: Mono) {
        let mono = self.now.mono.max(to);
        self.now = Now { mono, wall: MIDNIGHT + mono.since(self.start) };
    }

    pub fn drain(&mut self) -> Option<Mono> {
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => {
                    let (delay, answer) = self.answer(&ask);
                    self.asked += 1;
                    self.pending.insert((self.now.mono + delay, self.asked), (ask.id, answer));
                }
                MonitorOutput::Record(record) => self.records.push((self.t(), record)),
                MonitorOutput::ProbeUplink
                | MonitorOutput::HandedOver(_)
                | MonitorOutput::FirstContact(_) => {}
                MonitorOutput::Wait(at, _) => return at,
            }
        }
    }

    fn answer(&mut self, ask: &ProbeRequest) -> (Duration, ProbeReply) {
        let there = |id: &HostId| self.hosts.get(id).is_some_and(|truth| (truth.answers)(self.t()));
        let failure = |answers: bool| if answers { Ok(RTT) } else { Err(ConnectFailure::Timeout) };
        let answers = there(&ask.host);
        let took = |answers: bool| if answers { RTT } else { ask.timeout };
        match &ask.probe {
            Probe::Evidence { peer } => (Duration::ZERO, ProbeReply::Evidence(self.evidence(*peer))),
            Probe::Echo { peer, count, .. } | Probe::LargeEcho { peer, count, .. } => {
                self.note_answer(*peer, answers);
                let rtts = if answers { vec![RTT; (*count).into()] } else { Vec::new() };
                (took(answers), ProbeReply::Echo(EchoReply { sent: *count, rtts, failure: None }))
            }
            Probe::Connect { .. } => (took(answers), ProbeReply::Connect(failure(answers))),
            Probe::Handshake { peer } => {
                let answers = there(peer);
                self.note_answer(*peer, answers);
                (took(answers), ProbeReply::Handshake(failure(answers)))
            }
            Probe::Ssh { .. } => (Duration::ZERO, ProbeReply::Refused("no ssh here".to_owned())),
        }
    }

    fn note_answer(&mut self, peer: PeerId, answers: bool) {
        if answers {
            self.last_answer.insert(peer, self.now.mono + RTT);
        }
    }

    fn evidence(&self, peer: PeerId) -> Evidence {
        let last_answer = self.last_answer.get(&peer).copied().filter(|at| *at <= self.now.mono);
        let sent = self.hosts.get(&peer).map(|_| self.last_packet(peer, self.t()));
        let sent = sent.map(|t| match t {
            t if t < 0.0 => self.start - Duration::from_secs_f64(-t),
            t => self.start + Duration::from_secs_f64(t),
        });
        Evidence { last_packet: sent.max(last_answer), last_answer, established: true, ..Evidence::default() }
    }

    /// Returns the time of the last packet that it sent on its own before `t`.
    pub fn last_packet(&self, id: HostId, t: f64) -> f64 {
        (self.hosts[&id].packet)(t)
    }

    pub fn host(&self, id: HostId) -> &HostState {
        let row = |(_, record): &'_ (f64, Record)| matches!(record, Record::Host(state) if state.host == id);
        match self.records.iter().rfind(|record| row(record)) {
            Some((_, Record::Host(state))) => state,
            _ => panic!("no row of {id}"),
        }
    }

    pub fn service(&self, id: HostId, name: &str) -> &ServiceState {
        let found = self.records.iter().rev().find_map(|(_, record)| match record {
            Record::Service(of, state) if *of == id && state.name == name => Some(state),
            _ => None,
        });
        found.expect("a row of the service")
    }

    pub fn messages(&self) -> impl Iterator<Item = (f64, &Message)> {
        self.records.iter().filter_map(|(t, record)| match record {
            Record::Message(message) => Some((*t, message)),
            _ => None,
        })
    }

    /// Returns all messages, for people.
    pub fn told(&self) -> Vec<String> {
        let words = |(t, m): (f64, &Message)| {
            let service = m.service.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
            format!("{t:.1} {}{service} {} {}: {}", m.host_name, m.from, m.to, &*m.output)
        };
        self.messages().map(words).collect()
    }

    pub fn told_of(&self, name: &str) -> Vec<String> {
        self.told().into_iter().filter(|words| words.contains(name)).collect()
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.records.iter().filter_map(|(_, record)| match record {
            Record::Event(event) => Some(event),
            _ => None,
        })
    }
}

pub fn service(name: &str, check: Check) -> ServiceSpec {
    ServiceSpec::plain(name, check)
}

/// A host that only has passive results.
pub fn box_of_others(raw: i64) -> HostSpec {
    HostSpec::without_path(HostId::from_i64(raw), format!("box-{raw}"))
}

/// A host behind a device, which is its parent.
pub fn behind(raw: i64, device: i64) -> HostSpec {
    let device = HostId::from_i64(device);
    HostSpec {
        name: format!("nas-{raw}"),
        peer: Some(device),
        own_tunnel: false,
        parents: vec![device],
        ..testing::host(raw)
    }
}
