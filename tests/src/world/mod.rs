//! The true state of a fleet, a gateway that watches it, and a clock that runs as fast as it can.
//!
//! The world replies to the monitor's probes from the injected truth and keeps what the store would
//! keep. It can restart the gateway or suspend its machine.

mod answers;
mod kept;
pub mod mailbox;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, Event, EventKind, HostSnapshot, HostSpec, HostState, MonitorInput, MonitorOutput, Probe, ProbeId,
    ProbeReply, ProbeRequest, Record, ServiceSpec, ServiceState, SshSpec, Timing, TunnelEvent, UplinkReading,
};
use fleetgate_engine::monitor::{Config, Monitor};
use fleetgate_engine::time::{Mono, Now, Wall};

/// A round trip through the simulated network.
pub const RTT: Duration = Duration::from_millis(30);
/// How often a device with a keepalive sends a packet.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// A device without a session tries again after this time.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The gateway keeps a session whose link is lost for this long.
const SESSION: Duration = Duration::from_secs(120);
/// A device that can dial again does so within this time.
const REDIAL: Duration = Duration::from_secs(2);
/// A packet after this silence is reported at once.
const SILENCE: Duration = Duration::from_secs(40);
/// Time between two probes of the uplink, and after a failed one.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The true state of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Powered.
    pub alive: bool,
    /// The tunnel's packets get through.
    pub link: bool,
    /// WireGuard works, but nothing above it does.
    pub hung: bool,
    /// Its packets get through, but packets to it do not.
    pub deaf: bool,
    /// Its handshakes are answered and lead to no session: another preshared key, or the responses
    /// are lost.
    pub refused: bool,
    /// It sends no unsolicited packets.
    pub quiet: bool,
    /// It uses its inner IPv4 and IPv6 address.
    pub uses: (bool, bool),
    /// The public address leads to it.
    pub direct: bool,
    pub sshd: bool,
    /// Time to open an SSH session; `None`: an earlier one is reused.
    pub connect: Option<Duration>,
    /// The clock skew that the tunnel measured.
    pub skew_ms: Option<i64>,
    pub login: bool,
    pub host_key: &'static str,
    pub temperature: f64,
    pub plugin_exit: u32,
    pub tcp: bool,
    /// Bytes that its link carried today.
    pub wire_today: u64,
}

impl Truth {
    pub fn well() -> Self {
        Truth {
            alive: true,
            link: true,
            hung: false,
            deaf: false,
            refused: false,
            quiet: false,
            uses: (true, true),
            direct: true,
            sshd: true,
            connect: Some(RTT),
            skew_ms: Some(12),
            login: true,
            host_key: "SHA256:own",
            temperature: 30.0,
            plugin_exit: 0,
            tcp: true,
            wire_today: 0,
        }
    }

    pub fn off() -> Self {
        Truth { alive: false, ..Truth::well() }
    }

    pub fn tunnel_works(&self) -> bool {
        self.alive && self.link && !self.refused
    }
}

pub struct Device {
    pub spec: HostSpec,
    pub truth: Truth,
    /// It was seen through its tunnel.
    pub came: bool,
    /// Since when packets have flowed.
    flow: Option<Mono>,
    /// Without a flow: until when the gateway keeps the session.
    believed: Mono,
    last_packet: Option<Mono>,
    last_handshake: Option<Mono>,
    /// When something that was sent through its tunnel last got a reply.
    last_answer: Option<Mono>,
    /// Since when its handshakes lead to nothing.
    refused_from: Option<Mono>,
}

impl Device {
    /// Brings the last packet up to date.
    fn settle(&mut self, now: Mono) {
        if let Some(since) = self.flow.filter(|_| !self.truth.quiet) {
            let beats = now.since(since).as_nanos() / KEEPALIVE.as_nanos();
            let last = since + KEEPALIVE * u32::try_from(beats).expect("few");
            self.last_packet = self.last_packet.max(Some(last));
        }
    }

    /// Returns the last packet that came from the device.
    pub fn heard(&self) -> Option<Mono> {
        self.last_packet
    }

    fn cut(&mut self, now: Mono, believed: Duration) {
        self.settle(now);
        if self.flow.take().is_some() {
            self.believed = now + believed;
        }
    }

    /// Returns the last handshake attempt. A device tries again every five seconds.
    fn last_attempt(&self, now: Mono) -> Option<Mono> {
        let since = self.refused_from.filter(|_| self.truth.alive && self.truth.link)?;
        let tries = now.since(since).as_nanos() / ATTEMPT.as_nanos();
        Some(since + ATTEMPT * u32::try_from(tries).expect("few"))
    }

    fn established(&self, now: Mono) -> bool {
        self.flow.is_some() || now < self.believed
    }

    /// Makes a handshake, if it can get through. Returns the tunnel's event.
    fn handshake(&mut self, now: Mono) -> Option<TunnelEvent> {
        let through = self.truth.tunnel_works() && !self.truth.deaf;
        if !through || self.flow.is_some() || !self.spec.own_tunnel {
            return None;
        }
        let first = !self.came;
        let news = !self.established(now);
        let silent = self.last_packet.is_some_and(|last| now.since(last) >= SILENCE);
        (self.came, self.flow) = (true, Some(now));
        (self.last_packet, self.last_handshake) = (Some(now), Some(now));
        match (first, news) {
            (true, _) => Some(TunnelEvent::FirstHandshake(self.spec.id)),
            (false, true) => Some(TunnelEvent::Up(self.spec.id)),
            (false, false) => silent.then_some(TunnelEvent::Heard(self.spec.id)),
        }
    }
}

#[derive(Debug)]
enum Happening {
    ProbeReply(ProbeId, Box<ProbeReply>),
    Handshake(HostId),
    /// The uplink is probed; `again`: the probe repeats.
    Look {
        again: bool,
    },
}

pub use kept::Kept;

pub struct World {
    pub now: Now,
    /// The part of a millisecond that `now.wall` cannot tell.
    fraction: Duration,
    pub monitor: Monitor,
    pub devices: BTreeMap<HostId, Device>,
    pub kept: Kept,
    /// Every probe with its time, for the stories to examine.
    pub asked: Vec<(Mono, ProbeRequest)>,
    /// Long simulations do not keep them.
    pub keep_asked: bool,
    /// Whether an anchor replies; `None`: the uplink is not probed.
    pub outside: Option<bool>,
    /// Replies get lost between the shell and the monitor.
    pub deaf: bool,
    pub questions: u64,
    /// The most probes in one second.
    pub peak: u64,
    second: (u64, u64),
    /// Uplink probes that were requested.
    pub looks: u64,
    coming: BTreeMap<(Mono, u64), Happening>,
    order: u64,
    open: BTreeMap<ProbeId, HostId>,
    wait: Option<Mono>,
    config: Config,
    seed: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        World::paced(seed, Timing::DEFAULT.interval)
    }

    /// Makes a world whose gateway checks its hosts at this interval.
    pub fn paced(seed: u64, interval: Duration) -> Self {
        let config = Config { interval, ..Config::default() };
        let wall = Wall::from_millis(1_800_000_000_000);
        World {
            now: Now { mono: Mono::from_secs(100_000), wall },
            fraction: Duration::ZERO,
            monitor: Monitor::new(config, seed),
            devices: BTreeMap::new(),
            kept: Kept::default(),
            asked: Vec::new(),
            keep_asked: true,
            outside: None,
            deaf: false,
            questions: 0,
            peak: 0,
            second: (0, 0),
            looks: 0,
            coming: BTreeMap::new(),
            order: 0,
            open: BTreeMap::new(),
            wait: None,
            config,
            seed,
        }
    }

    /// Enrols a device; `came`: its first handshake follows at once.
    pub fn add(&mut self, spec: HostSpec, truth: Truth) -> HostId {
        let id = spec.id;
        self.input(MonitorInput::Upsert(Box::new(spec.clone())));
        let device = Device {
            spec,
            truth,
            came: false,
            flow: None,
            believed: Mono::ZERO,
            last_packet: None,
            last_handshake: None,
            last_answer: None,
            refused_from: None,
        };
        self.devices.insert(id, device);
        self.plan(REDIAL, Happening::Handshake(id));
        id
    }

    /// Probes the gateway's uplink from now on.
    pub fn look_outside(&mut self) {
        self.outside = Some(true);
        self.plan(Duration::ZERO, Happening::Look { again: true });
    }

    fn look(&mut self) {
        let Some(answers) = self.outside else { return };
        let anchors = vec![("anchor".to_owned(), answers)];
        self.input(MonitorInput::Uplink(UplinkReading {
            default_route: Some(true),
            anchors,
            ..UplinkReading::default()
        }));
    }

    pub fn change(&mut self, id: HostId, how: impl FnOnce(&mut HostSpec)) {
        let spec = &mut self.device(id).spec;
        how(spec);
        let spec = Box::new(spec.clone());
        self.input(MonitorInput::Upsert(spec));
    }

    pub fn remove(&mut self, id: HostId) {
        self.devices.remove(&id);
        self.input(MonitorInput::Remove(id));
    }

    pub fn check_now(&mut self, host: HostId, service: Option<&str>) {
        self.input(MonitorInput::CheckNow { host, service: service.map(str::to_owned) });
    }

    pub fn set(&mut self, id: HostId, truth: Truth) {
        let now = self.now.mono;
        let device = self.device(id);
        device.truth = truth;
        device.refused_from = device.refused_from.or(Some(now)).filter(|_| device.truth.refused);
        if !device.truth.tunnel_works() {
            device.cut(now, SESSION);
        }
        self.plan(REDIAL, Happening::Handshake(id));
    }

    pub fn device(&mut self, id: HostId) -> &mut Device {
        self.devices.get_mut(&id).expect("a device of this world")
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now.mono + time);
    }

    pub fn run_until(&mut self, until: Mono) {
        self.drain();
        while let Some(next) = self.next().filter(|at| *at <= until) {
            self.advance_to(next);
            match self.coming.first_key_value().map(|(key, _)| *key) {
                Some(key) if key.0 <= self.now.mono => self.happen(key),
                _ => self.input(MonitorInput::Timeout),
            }
        }
        self.advance_to(until);
    }

    /// Ends the process and starts it again; checks in progress are lost.
    pub fn restart(&mut self, downtime: Duration) {
        self.advance_to(self.now.mono + downtime);
        self.seed += 1;
        self.monitor = Monitor::new(self.config, self.seed);
        self.coming.retain(|_, h| !matches!(h, Happening::ProbeReply(..)));
        self.open.clear();
        self.lose_sessions(Duration::ZERO);
        let uplink = |e: &&Event| matches!(e.kind, EventKind::UplinkLost | EventKind::UplinkBack);
        if self.kept.events.iter().rev().find(uplink).is_some_and(|e| e.kind == EventKind::UplinkLost) {
            self.monitor.handle(MonitorInput::RestoreUplinkLost, self.now);
        }
        self.monitor.recall_incidents(self.kept.open_incidents(), self.now);
        let memories: Vec<HostSnapshot> = self.devices.values().map(|d| self.memory(&d.spec)).collect();
        self.monitor.restore(memories, self.now);
        self.drain();
    }

    /// Suspends the machine. No code runs meanwhile, and the sessions are too old afterwards.
    pub fn suspend(&mut self, time: Duration) {
        self.lose_sessions(Duration::ZERO);
        self.advance_to(self.now.mono + time);
    }

    /// Sets the wall clock by this many seconds; no time passes.
    pub fn step_wall(&mut self, secs: i64) {
        self.now.wall = Wall::from_millis(self.now.wall.as_millis() + secs * 1_000);
    }

    pub fn host(&self, id: HostId) -> Option<&HostState> {
        self.kept.hosts.get(&id)
    }

    pub fn service(&self, id: HostId, name: &str) -> Option<&ServiceState> {
        self.kept.services.get(&(id, name.to_owned()))
    }

    fn memory(&self, spec: &HostSpec) -> HostSnapshot {
        let names: BTreeSet<&String> = spec.services.iter().map(|s| &s.name).collect();
        let mine = self.kept.services.iter().filter(|((id, name), _)| *id == spec.id && names.contains(name));
        HostSnapshot {
            spec: spec.clone(),
            state: self.kept.hosts.get(&spec.id).cloned(),
            services: mine.map(|(_, state)| state.clone()).collect(),
            acknowledged: Vec::new(),
        }
    }

    /// Drops the gateway's sessions; devices and gateway reconnect within seconds.
    fn lose_sessions(&mut self, believed: Duration) {
        let now = self.now.mono;
        let ids: Vec<HostId> = self.devices.keys().copied().collect();
        for id in ids {
            self.device(id).cut(now, believed);
            let spread = Duration::from_millis(id.as_i64() as u64 * 977 % 8_000);
            self.plan(spread, Happening::Handshake(id));
        }
    }

    fn next(&self) -> Option<Mono> {
        let coming = self.coming.keys().next().map(|(at, _)| (*at).max(self.now.mono));
        let wait = self.wait.map(|at| at.max(self.now.mono));
        coming.into_iter().chain(wait).min()
    }

    /// The wall clock counts milliseconds. It keeps the fractions of all steps: without them, an engine that waits for a
    /// moment of the wall clock would be called many times in the last millisecond before it.
    fn advance_to(&mut self, at: Mono) {
        let step = at.since(self.now.mono);
        let fractions = self.fraction + step;
        self.fraction = Duration::from_nanos(u64::from(fractions.subsec_nanos() % 1_000_000));
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + fractions };
    }

    fn happen(&mut self, key: (Mono, u64)) {
        let happening = self.coming.remove(&key).expect("it is there");
        let now = self.now.mono;
        match happening {
            Happening::ProbeReply(id, answer) => {
                self.open.remove(&id);
                self.input(MonitorInput::ProbeReply(id, *answer));
            }
            Happening::Handshake(id) => {
                let news = self.devices.get_mut(&id).and_then(|d| d.handshake(now));
                news.into_iter().for_each(|news| self.input(MonitorInput::TunnelEvent(news)));
            }
            Happening::Look { again } => {
                self.look();
                let rest = if self.outside == Some(true) { LOOK } else { LOOK_AGAIN };
                if again {
                    self.plan(rest, Happening::Look { again });
                }
            }
        }
    }

    pub fn input(&mut self, input: MonitorInput) {
        self.monitor.handle(input, self.now);
        self.drain();
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.order += 1;
        self.coming.insert((self.now.mono + after, self.order), happening);
    }

    fn drain(&mut self) {
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => self.take_ask(ask),
                MonitorOutput::Record(record) => self.keep(record),
                MonitorOutput::HandedOver(_) | MonitorOutput::FirstContact(_) => {
                    unreachable!("there are no rentals")
                }
                MonitorOutput::ProbeUplink => {
                    self.looks += 1;
                    self.plan(RTT, Happening::Look { again: false });
                }
                MonitorOutput::Wait(at, _) => {
                    self.wait = at;
                    return;
                }
            }
        }
    }

    fn take_ask(&mut self, ask: ProbeRequest) {
        self.count_question();
        assert!(self.open.insert(ask.id, ask.host).is_none(), "a question has an id of its own");
        let news = self.answer_later(&ask);
        if self.keep_asked {
            self.asked.push((self.now.mono, ask));
        }
        news.into_iter().for_each(|news| self.monitor.handle(MonitorInput::TunnelEvent(news), self.now));
    }

    fn count_question(&mut self) {
        self.questions += 1;
        let second = self.now.mono.as_nanos() / 1_000_000_000;
        self.second = if self.second.0 == second { (second, self.second.1 + 1) } else { (second, 1) };
        self.peak = self.peak.max(self.second.1);
    }

    fn answer_later(&mut self, ask: &ProbeRequest) -> Option<TunnelEvent> {
        let now = self.now.mono;
        let Some(device) = self.devices.get_mut(&ask.host) else {
            self.plan(
                Duration::ZERO,
                Happening::ProbeReply(ask.id, Box::new(ProbeReply::Refused("no such peer".into()))),
            );
            return None;
        };
        device.settle(now);
        let via = device.spec.peer.filter(|peer| *peer != ask.host);
        let mut news = via.and_then(|via| self.lend_tunnel(via, ask));
        let (answer, own) = self.device(ask.host).answer(ask, now);
        news = news.or(own);
        let patience = match ask.probe {
            Probe::Ssh { connect, .. } => connect,
            _ => ask.timeout,
        };
        let delay = answers::delay(&answer, patience);
        if !self.deaf {
            self.plan(delay, Happening::ProbeReply(ask.id, Box::new(answer)));
        }
        news
    }

    /// A host behind a device is reached through the tunnel of that device.
    fn lend_tunnel(&mut self, via: HostId, ask: &ProbeRequest) -> Option<TunnelEvent> {
        let now = self.now.mono;
        let device = self.device(via);
        device.settle(now);
        let dialled = matches!(ask.probe, Probe::Handshake { .. });
        let news = if dialled { device.handshake(now) } else { None };
        let tunnel = (device.flow, device.believed, device.last_packet, device.last_handshake);
        let used = device.truth.wire_today;
        let behind = self.device(ask.host);
        behind.truth.wire_today = used;
        (behind.flow, behind.believed, behind.last_packet, behind.last_handshake) = tunnel;
        news
    }

    fn keep(&mut self, record: Record) {
        if let Record::Pinned { host, key } = &record
            && let Some(device) = self.devices.get_mut(host)
        {
            device.spec.ssh.pin = Some(key.clone());
        }
        self.kept.keep(record);
    }
}

/// Returns a device with a tunnel and no services.
pub fn device(raw: i64) -> HostSpec {
    let address = Ipv4Addr::from(0xac18_0000 + raw as u32);
    HostSpec::device(HostId::from_i64(raw), format!("cam-{raw}"), address)
}

/// Returns a device outside the VPN, with a login and its key.
pub fn public(raw: i64) -> HostSpec {
    let ssh = SshSpec { port: 22, user: Some("fleet".into()), pin: Some("SHA256:own".into()) };
    let direct = Some("cam.example".into());
    HostSpec { peer: None, own_tunnel: false, address: None, direct, ssh, ..device(raw) }
}

pub fn with_login(spec: HostSpec) -> HostSpec {
    HostSpec { ssh: SshSpec { user: Some("fleet".into()), ..spec.ssh }, ..spec }
}

pub fn with(spec: HostSpec, services: Vec<ServiceSpec>) -> HostSpec {
    HostSpec { services, ..spec }
}

pub fn service(name: &str, check: Check) -> ServiceSpec {
    ServiceSpec::plain(name, check)
}
