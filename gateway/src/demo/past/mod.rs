//! The past of the demo: its devices live through it in virtual time, watched by a monitor of its own.
//!
//! The monitor is the real one, with the checks of the fleet, one round every five minutes. It is thrown away
//! afterwards, and its notifications with it. A day is lived by itself, so that the newest can come first and that
//! no more than one is in memory. This module does not know where the results are stored.

pub mod story;
pub mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    CommandEnd, CommandReply, ConnectFailure, EchoReply, Event, EventKind, Evidence, HostKey, HostSpec,
    HostStatus, MonitorInput, MonitorOutput, Probe, ProbeReply, ProbeRequest, Record, RemoteCommand, Sample,
    ServiceSpec, SshFailure, SshReply, SshRun, Timing,
};
use fleetgate_engine::monitor::{Config, Monitor};
use fleetgate_engine::time::{Mono, Now, Wall};

use super::{plan, sensors};
use world::World;

/// Days of the past.
pub const DAYS: u32 = 30;
const DAY: Duration = Duration::from_secs(86_400);
/// One round of checks every five minutes. A failure is looked at again soon.
const TIMING: Timing = Timing {
    interval: Duration::from_secs(300),
    retry: Duration::from_secs(60),
    attempts: 3,
    timeout: Duration::from_secs(10),
};
/// The monitor runs this long before a day, so that every state is known when the day begins.
const WARM_UP: Duration = Duration::from_secs(1_800);
/// The reading of the boot-time clock when the monitor begins. Times before it are in the evidence.
const BEGIN: Mono = Mono::from_secs(10_000_000);
/// Feeds the jitter of retries.
const SEED: u64 = 16;
/// The name under which the event log and the intervals have a state before the first result.
const PENDING: &str = "pending";
/// Time between two handshakes of a session.
const HANDSHAKES_MS: i64 = 120_000;

/// What a day left behind.
#[derive(Debug, Default)]
pub struct Lived {
    pub samples: Vec<Sample>,
    /// Hard states. Those of one host or service are in the order of time.
    pub states: Vec<Stretch>,
    /// The changes of hard states, in order.
    pub events: Vec<Event>,
}

/// A hard state and the time for which it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub host: HostId,
    /// Empty for the host itself.
    pub service: String,
    pub value: &'static str,
    pub from: Wall,
    pub until: Wall,
}

/// Returns a day of the past: 0 is the one that ends with the start of the demo.
pub fn day(world: &World, n: u32) -> (Wall, Wall) {
    let end = world.began() - DAY * n;
    (end - DAY, end)
}

/// Lives through the time `[from, until)`.
pub fn live(world: &World, hosts: &[HostSpec], span: (Wall, Wall)) -> Lived {
    let mut life = Life::new(world, hosts, span);
    for host in hosts {
        life.monitor.handle(MonitorInput::Upsert(Box::new(watched(host))), life.now);
    }
    life.run();
    life.end()
}

/// Returns the host as it was watched in the past. Nothing sent results to it.
fn watched(host: &HostSpec) -> HostSpec {
    let service = |service: &ServiceSpec| ServiceSpec { timing: TIMING, freshness: None, ..service.clone() };
    let services = host.services.iter().filter(|service| !service.check.is_sent()).map(service).collect();
    HostSpec { timing: TIMING, freshness: None, max_silence: None, services, ..host.clone() }
}

struct Life<'a> {
    world: &'a World,
    names: BTreeMap<HostId, &'a str>,
    span: (Wall, Wall),
    begin: Now,
    now: Now,
    monitor: Monitor,
    /// The hard state of each host and service, and since when it holds.
    states: BTreeMap<(HostId, String), (&'static str, Wall)>,
    lived: Lived,
}

impl<'a> Life<'a> {
    fn new(world: &'a World, hosts: &'a [HostSpec], span: (Wall, Wall)) -> Life<'a> {
        let begin = Now { mono: BEGIN, wall: span.0 - WARM_UP };
        let config = Config { interval: TIMING.interval, keepalive: plan::KEEPALIVE, ..Config::default() };
        Life {
            world,
            names: hosts.iter().map(|host| (host.id, host.name.as_str())).collect(),
            span,
            begin,
            now: begin,
            monitor: Monitor::new(config, SEED),
            states: BTreeMap::new(),
            lived: Lived::default(),
        }
    }

    fn run(&mut self) {
        let end = self.begin.mono + self.span.1.since(self.begin.wall);
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => {
                    let reply = self.reply(&ask);
                    self.monitor.handle(MonitorInput::ProbeReply(ask.id, reply), self.now);
                }
                MonitorOutput::Record(record) => self.note(record),
                MonitorOutput::HandedOver(_)
                | MonitorOutput::FirstContact(_)
                | MonitorOutput::ProbeUplink => {}
                MonitorOutput::Wait(at, _) => match at.filter(|at| *at < end) {
                    Some(at) => self.pass(at),
                    None => return,
                },
            }
        }
    }

    fn pass(&mut self, to: Mono) {
        let mono = self.now.mono.max(to);
        self.now = Now { mono, wall: self.begin.wall + mono.since(self.begin.mono) };
        self.monitor.handle(MonitorInput::Timeout, self.now);
    }

    fn reply(&self, ask: &ProbeRequest) -> ProbeReply {
        let (device, now) = (self.names.get(&ask.host).copied().unwrap_or_default(), self.now.wall);
        let down_since = self.world.down_since(device, now);
        let answered = match down_since {
            None => Ok(self.world.rtt(device, now)),
            Some(_) => Err(ConnectFailure::Timeout),
        };
        match &ask.probe {
            Probe::Evidence { .. } => ProbeReply::Evidence(self.evidence(down_since)),
            Probe::Echo { count, .. } | Probe::LargeEcho { count, .. } => {
                ProbeReply::Echo(self.echo(device, *count, answered.ok()))
            }
            Probe::Connect { .. } => ProbeReply::Connect(answered),
            Probe::Handshake { .. } => ProbeReply::Handshake(answered),
            Probe::Ssh { run, .. } => ProbeReply::Ssh(self.session(device, run, answered)),
        }
    }

    /// A device sends keepalives until it goes.
    fn evidence(&self, down_since: Option<Wall>) -> Evidence {
        let heard = down_since.unwrap_or(self.now.wall);
        let before = |ms: i64| Some(self.now.mono_at(Wall::from_millis(heard.as_millis() - ms)));
        let packet = before(heard.as_millis().rem_euclid(millis(plan::KEEPALIVE)));
        Evidence {
            last_packet: packet,
            last_handshake: before(heard.as_millis().rem_euclid(HANDSHAKES_MS)),
            last_answer: packet,
            last_attempt: None,
            established: down_since.is_none(),
            clock_skew_ms: Some(0),
            wire_today: 0,
        }
    }

    /// `rtt`: `None` if nothing comes back.
    fn echo(&self, device: &str, sent: u8, rtt: Option<Duration>) -> EchoReply {
        let lost = u8::from(self.world.loses_an_echo(device, self.now.wall));
        let rtts = rtt.map_or_else(Vec::new, |rtt| vec![rtt; usize::from(sent.saturating_sub(lost).max(1))]);
        EchoReply { sent, rtts, failure: None }
    }

    fn session(&self, device: &str, run: &SshRun, answered: Result<Duration, ConnectFailure>) -> SshReply {
        let rtt = match answered {
            Ok(rtt) => rtt,
            Err(failure) => {
                return SshReply { failure: Some(SshFailure::Connect(failure)), ..SshReply::default() };
            }
        };
        SshReply {
            failure: None,
            identification: Some("SSH-2.0-demo".to_owned()),
            host_key: Some(run.pin.clone().unwrap_or_else(|| HostKey::from("SHA256:demo"))),
            logged_in: run.user.is_some(),
            // The version, the key exchange and the login: some round trips and a signature.
            connect: Some(rtt * 4 + Duration::from_millis(2)),
            reused: false,
            commands: run.commands.iter().map(|command| self.ran(device, command)).collect(),
        }
    }

    fn ran(&self, device: &str, command: &RemoteCommand) -> CommandReply {
        let value = |kind: &str| self.world.value(device, kind, self.now.wall);
        let (end, stdout) = match sensors::answer(&command.line, value) {
            Some(output) => (CommandEnd::Exit(0), output.into_bytes()),
            None => (CommandEnd::Exit(127), Vec::new()),
        };
        let took = Duration::from_millis(20);
        CommandReply { name: command.name.clone(), end, stdout, stderr: Vec::new(), truncated: false, took }
    }

    fn note(&mut self, record: Record) {
        match record {
            Record::Sample(sample) if self.is_of_day(sample.at) => self.lived.samples.push(sample),
            Record::Event(event) if self.is_of_day(event.at) && is_hard_change(&event) => {
                self.lived.events.push(event);
            }
            Record::Host(state) if state.hard != HostStatus::Pending => {
                self.turned((state.host, String::new()), state.hard.name(), state.hard_since);
            }
            Record::Service(host, state) => {
                if let Some(hard) = state.hard {
                    self.turned((host, state.name), hard.name(), state.hard_since);
                }
            }
            _ => {}
        }
    }

    fn is_of_day(&self, at: Wall) -> bool {
        (self.span.0..self.span.1).contains(&at)
    }

    fn turned(&mut self, of: (HostId, String), value: &'static str, since: Wall) {
        if self.states.get(&of).is_some_and(|(known, _)| *known == value) {
            return;
        }
        if let Some((before, from)) = self.states.insert(of.clone(), (value, since)) {
            self.held(of, before, (from, since));
        }
    }

    /// Keeps the part of a state that is of the day.
    fn held(&mut self, (host, service): (HostId, String), value: &'static str, (from, until): (Wall, Wall)) {
        let (from, until) = (from.max(self.span.0), until.min(self.span.1));
        if from < until {
            self.lived.states.push(Stretch { host, service, value, from, until });
        }
    }

    fn end(mut self) -> Lived {
        for (of, (value, from)) in std::mem::take(&mut self.states) {
            self.held(of, value, (from, self.span.1));
        }
        self.lived
    }
}

fn is_hard_change(event: &Event) -> bool {
    matches!(event.kind, EventKind::StateChanged { from, hard: true, .. } if from != PENDING)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
