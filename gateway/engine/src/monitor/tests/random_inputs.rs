//! Random inputs in any order: the monitor neither panics nor loses a host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_probes::sensors::Sensor;

use crate::id::HostId;
use crate::messages::{
    Alerting, Check, CommandEnd, CommandReply, ConnectFailure, EchoReply, Evidence, HostSnapshot, HostSpec,
    HostState, HostStatus, Identity, LoginRefusal, MessageKind, MonitorInput, MonitorOutput, PassiveResult,
    ProbeId, ProbeReply, Record, ServiceSpec, ServiceState, SshFailure, SshReply, StateType, Ticket, Timing,
    TunnelEvent,
};
use crate::monitor::{Config, Monitor, testing};
use crate::time::{Mono, Now, Wall};

/// The limit of probes in flight of the monitor under test.
const ROOM: usize = 3;
/// The maximum that running checks may send beyond it: one for each service of a host.
const OVERTIME: usize = 16;

#[derive(Clone, Debug)]
enum Deed {
    /// Some probe in flight gets a reply, which may not fit it.
    ProbeReply(usize, Box<ProbeReply>),
    Pass(u64),
    SetClock(i64),
    TunnelEvent(TunnelEvent),
    Upsert(Box<HostSpec>),
    Remove(i64),
    Submit(i64, Option<&'static str>, Status),
    CheckNow(i64, Option<&'static str>),
    Restart,
}

fn failure() -> impl Strategy<Value = ConnectFailure> {
    use ConnectFailure::{Busy, NoTunnel, Refused, Timeout, Unreachable};
    prop::sample::select(vec![Busy, NoTunnel, Refused, Timeout, Unreachable("route".into())])
}

fn outcome() -> impl Strategy<Value = Result<Duration, ConnectFailure>> {
    prop_oneof![Just(Ok(Duration::from_millis(9))), failure().prop_map(Err)]
}

fn ssh() -> impl Strategy<Value = SshReply> {
    let changed = SshFailure::HostKeyChanged { pinned: "SHA256:a".into(), seen: "SHA256:b".into() };
    let command = CommandReply {
        name: "plugin".into(),
        end: CommandEnd::Exit(1),
        stdout: b"a | b=1".to_vec(),
        stderr: Vec::new(),
        truncated: false,
        took: Duration::ZERO,
    };
    let failures = prop_oneof![
        3 => Just(None),
        2 => failure().prop_map(|f| Some(SshFailure::Connect(f))),
        1 => Just(Some(changed)),
        1 => Just(Some(SshFailure::LoginRefused { user: "x".into(), why: LoginRefusal::Key })),
    ];
    (failures, any::<bool>()).prop_map(move |(failure, ran)| SshReply {
        failure,
        host_key: Some("SHA256:a".into()),
        logged_in: ran,
        commands: if ran { vec![command.clone()] } else { vec![] },
        ..SshReply::default()
    })
}

fn answer() -> impl Strategy<Value = ProbeReply> {
    let evidence = (0u64..200, any::<bool>()).prop_map(|(age, established)| Evidence {
        last_packet: Some(Mono::from_secs(100_000 - age)),
        established,
        ..Evidence::default()
    });
    let echo = prop_oneof![
        Just(EchoReply { sent: 3, rtts: vec![Duration::from_millis(5)], failure: None }),
        Just(EchoReply { sent: 3, rtts: vec![], failure: None }),
        failure().prop_map(|f| EchoReply { sent: 0, rtts: vec![], failure: Some(f) }),
    ];
    prop_oneof![
        evidence.prop_map(ProbeReply::Evidence),
        echo.prop_map(ProbeReply::Echo),
        outcome().prop_map(ProbeReply::Connect),
        outcome().prop_map(ProbeReply::Handshake),
        ssh().prop_map(ProbeReply::Ssh),
        Just(ProbeReply::Refused("no".into())),
    ]
}

fn service() -> impl Strategy<Value = ServiceSpec> {
    let checks = vec![
        ("tunnel", Check::Tunnel),
        ("ping", Check::Ping { count: 3 }),
        ("ssh", Check::Ssh),
        ("load", Check::Sensor(Sensor::Load)),
        ("plugin", Check::Command { line: "true".into() }),
        ("web", Check::Tcp { port: 80 }),
        ("job", Check::Passive),
    ];
    (prop::sample::select(checks), 0u64..90, 0u64..9, 0u32..4).prop_map(
        |((name, check), every, retry, attempts)| {
            let (interval, retry) = (Duration::from_secs(every), Duration::from_secs(retry));
            let timing = Timing { interval, retry, attempts, timeout: Duration::from_secs(5) };
            ServiceSpec {
                name: name.into(),
                check,
                timing,
                thresholds: vec![],
                usual: None,
                freshness: None,
                alerting: Alerting::default(),
            }
        },
    )
}

fn spec() -> impl Strategy<Value = HostSpec> {
    let services = prop::collection::vec(service(), 0..6);
    (1i64..4, services, any::<[bool; 7]>()).prop_map(
        |(raw, mut services, [own, direct, login, sleeps, peer, behind, hasty])| {
            services.sort_by(|a, b| a.name.cmp(&b.name));
            services.dedup_by(|a, b| a.name == b.name);
            let mut spec = HostSpec { services, own_tunnel: own && peer, ..testing::host(raw) };
            spec.direct = direct.then(|| "x.example".into());
            spec.ssh.user = login.then(|| "fleet".into());
            spec.max_silence = sleeps.then_some(Duration::from_secs(900));
            spec.peer = spec.peer.filter(|_| peer);
            spec.timing.attempts = if hasty { 1 } else { spec.timing.attempts };
            spec.parents = (1..raw).filter(|_| behind).map(HostId::from_i64).collect();
            spec
        },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    let peer = || (1i64..4).prop_map(HostId::from_i64);
    let names = vec![None, Some("ssh"), Some("ping"), Some("none such")];
    let told_of = vec![None, Some("job"), Some("job"), Some("ping")];
    let sent = (1i64..4, prop::sample::select(told_of), prop::sample::select(Status::ALL.to_vec()));
    prop_oneof![
        20 => (any::<usize>(), answer()).prop_map(|(which, answer)| Deed::ProbeReply(which, Box::new(answer))),
        6 => (0u64..70_000).prop_map(Deed::Pass),
        1 => (0u64..9_000_000).prop_map(Deed::Pass),
        1 => (-9_000_000i64..9_000_000).prop_map(Deed::SetClock),
        2 => peer().prop_map(|p| Deed::TunnelEvent(TunnelEvent::FirstHandshake(p))),
        2 => peer().prop_map(|p| Deed::TunnelEvent(TunnelEvent::Up(p))),
        1 => peer().prop_map(|p| Deed::TunnelEvent(TunnelEvent::Heard(p))),
        2 => spec().prop_map(|s| Deed::Upsert(Box::new(s))),
        1 => (1i64..4).prop_map(Deed::Remove),
        8 => sent.prop_map(|(host, service, status)| Deed::Submit(host, service, status)),
        2 => (1i64..4, prop::sample::select(names)).prop_map(|(host, name)| Deed::CheckNow(host, name)),
        1 => Just(Deed::Restart),
    ]
}

struct Bench {
    monitor: Monitor,
    now: Now,
    open: BTreeMap<ProbeId, HostId>,
    specs: BTreeMap<HostId, HostSpec>,
    states: BTreeMap<HostId, HostState>,
    services: BTreeMap<(HostId, String), ServiceState>,
    wait: Option<Mono>,
}

impl Bench {
    fn new() -> Bench {
        let now = Now { mono: Mono::from_secs(100_000), wall: Wall::from_millis(1_800_000_000_000) };
        let monitor = Monitor::new(Config { max_in_flight: ROOM, ..Config::default() }, 1);
        let (open, specs) = (BTreeMap::new(), BTreeMap::new());
        let (states, services) = (BTreeMap::new(), BTreeMap::new());
        Bench { monitor, now, open, specs, states, services, wait: None }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::ProbeReply(which, answer) => {
                let ids: Vec<ProbeId> = self.open.keys().copied().collect();
                if !ids.is_empty() {
                    let id = ids[which % ids.len()];
                    self.open.remove(&id);
                    self.input(MonitorInput::ProbeReply(id, *answer));
                }
            }
            Deed::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Deed::SetClock(ms) => {
                self.now.wall = Wall::from_millis(self.now.wall.as_millis() + ms);
                self.input(MonitorInput::Timeout);
            }
            Deed::TunnelEvent(news) => self.input(MonitorInput::TunnelEvent(news)),
            Deed::Upsert(spec) => {
                let stays = |name: &String| spec.services.iter().any(|s| s.name == *name);
                self.services.retain(|(host, name), _| *host != spec.id || stays(name));
                self.specs.insert(spec.id, (*spec).clone());
                self.input(MonitorInput::Upsert(spec));
            }
            Deed::Remove(raw) => {
                let id = HostId::from_i64(raw);
                self.specs.remove(&id);
                self.states.remove(&id);
                self.services.retain(|(host, _), _| *host != id);
                self.input(MonitorInput::Remove(id));
            }
            Deed::Submit(raw, service, status) => self.submit(HostId::from_i64(raw), service, status),
            Deed::CheckNow(raw, service) => {
                let service = service.map(str::to_owned);
                self.input(MonitorInput::CheckNow { host: HostId::from_i64(raw), service });
            }
            Deed::Restart => self.restart(),
        }
    }

    fn submit(&mut self, host: HostId, service: Option<&str>, status: Status) {
        self.input(MonitorInput::Submit(Box::new(PassiveResult {
            host,
            service: service.map(str::to_owned),
            result: PluginResult::new(status, "sent", Vec::new()),
            at: self.now.wall,
            by: String::new(),
            identity: Identity::default(),
            ticket: Ticket(1),
        })));
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall + time };
        self.input(MonitorInput::Timeout);
    }

    fn restart(&mut self) {
        self.monitor = Monitor::new(Config { max_in_flight: ROOM, ..Config::default() }, 2);
        self.open.clear();
        let memory = |spec: &HostSpec| HostSnapshot {
            spec: spec.clone(),
            state: self.states.get(&spec.id).cloned(),
            services: self.services.iter().filter(|(k, _)| k.0 == spec.id).map(|(_, s)| s.clone()).collect(),
            acknowledged: Vec::new(),
        };
        let memories: Vec<_> = self.specs.values().map(memory).collect();
        self.monitor.restore(memories, self.now);
        self.input(MonitorInput::Timeout);
    }

    fn input(&mut self, input: MonitorInput) {
        self.monitor.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::ProbeRequest(ask) => drop(self.open.insert(ask.id, ask.host)),
                MonitorOutput::Record(record) => self.keep(record),
                MonitorOutput::HandedOver(_) | MonitorOutput::FirstContact(_) => {
                    panic!("there are no rentals")
                }
                MonitorOutput::ProbeUplink => panic!("nobody has looked so far"),
                MonitorOutput::Wait(at, _) => {
                    self.wait = at;
                    return;
                }
            }
        }
    }

    fn keep(&mut self, record: Record) {
        match record {
            Record::Message(message) => {
                let changes = matches!(message.kind, MessageKind::Problem | MessageKind::Recovery);
                assert!(!changes || message.from != message.to);
                assert_eq!(message.problem, !matches!(message.to, "up" | "ok"));
                if let Some(service) = message.service.filter(|_| changes) {
                    let state = self.services.get(&(message.host, service.clone()));
                    let current = state.is_some_and(|state| self.is_current(message.host, state));
                    assert!(current, "{service} is told of, and not current");
                }
            }
            Record::Host(state) => drop(self.states.insert(state.host, *state)),
            Record::Service(host, state) => {
                assert!(state.kind == StateType::Soft || state.hard == state.status);
                self.services.insert((host, state.name.clone()), state);
            }
            _ => {}
        }
    }

    /// Whether the state is current, as the store derives it from the rows alone.
    fn is_current(&self, host: HostId, service: &ServiceState) -> bool {
        let there = |host: &HostState| host.hard != HostStatus::Down && host.reachable;
        !service.stale && self.states.get(&host).is_none_or(there)
    }

    /// Checks that a service problem is listed exactly while it can be notified.
    fn check_problems(&self) {
        for (id, host) in &self.monitor.hosts {
            let of_host = self.services.iter().filter(|((of, _), _)| of == id);
            let failing = of_host.filter(|(_, state)| state.hard.is_some_and(|hard| hard != Status::Ok));
            let listed = failing.filter(|(_, state)| self.is_current(*id, state));
            let listed: BTreeSet<&str> = listed.map(|((_, name), _)| name.as_str()).collect();
            assert_eq!(listed, host.tellable_services().collect(), "{id:?}: listed, can be told");
        }
    }

    /// Checks that no host is lost: each has a due time, waits for a reply, or waits for its first
    /// handshake. The same holds for each service of a host that is up.
    fn check(&self) {
        for (id, host) in &self.monitor.hosts {
            let waits = self.monitor.agenda.is_planned(*id) || self.monitor.shared.asks.is_open(*id);
            assert!(waits || host.awaits_its_first_handshake(), "{id:?} is forgotten");
            assert_eq!(host.forgotten_service(), None, "of {id:?}");
        }
        assert!(self.monitor.shared.asks.len() <= ROOM + OVERTIME);
        let overdue = self.wait.is_some_and(|at| at <= self.now.mono);
        assert!(!overdue, "what is due has been done");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn after_random_inputs_every_host_has_a_planned_check(deeds in prop::collection::vec(deed(), 1..250)) {
        let mut bench = Bench::new();
        for deed in deeds {
            bench.act(deed);
            bench.check();
            bench.check_problems();
        }
    }
}
