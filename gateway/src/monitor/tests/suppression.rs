//! The store and the engine agree on what suppresses notifications, after any order of inputs.
//!
//! The engine decides whether a notification is emitted. The store decides whether one that already
//! waits may be sent, and which problems are listed as handled. Each step of a run changes one thing
//! in the way that the API and the engine change it; then both are asked about every host and
//! service. A failure prints the seed and the steps. `FLEETGATE_SIM_SEED=7` runs one seed.
//!
//! The same runs show that the intervals for reports are those of the states.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleetgate_engine::messages::{
    CheckableId, ConnectFailure, DEFAULT_MTU, EchoReply, Evidence, HostStatus, IncidentAck, Probe,
    ProbeReply, ProbeRequest, RentalPhase, SshFailure, SshReply, SuppressReason,
};
use fleetgate_engine::monitor::Current;
use fleetgate_engine::notification::{Suppression, WaitFor, Waiting};
use fleetgate_engine::time::{Mono, Now, Wall};
use tokio::sync::mpsc;

use super::*;
use crate::engine::handle::{Changes, Handle, QUEUE};
use crate::store::fixture::Dice;
use crate::store::hosts::{Trouble, TroublePlace};
use crate::store::{devices, hosts, notices, states, suppression, suppression_detail};
use crate::writer::commit_now;

const SEEDS: u64 = 8;
const STEPS: usize = 120;
/// The first of January 2026.
const START: Wall = Wall::from_millis(1_767_225_600_000);
/// Devices with a tunnel: two routers, a host behind the first, and one behind both.
const DEVICES: [u8; 4] = [1, 2, 3, 4];
/// A host that cannot be checked and only has passive results.
const SPOOLER: HostId = HostId::from_i64(5);
/// Passive services of every host.
const SERVICES: [&str; 2] = ["disk", "job"];
/// Devices with a rental: the first router, and the host behind it.
const RENTED: [i64; 2] = [1, 3];
/// Settings of a host, and of a service besides its check.
const SETTINGS: [&str; 6] = [
    "",
    r#""notify":{"types":[]}"#,
    r#""notify":{"states":[]}"#,
    r#""notify":{"types":["recovery"]}"#,
    r#""notify":{"delay_s":300}"#,
    r#""flapping":{"enabled":false}"#,
];

struct World {
    store: Store,
    _dir: tempfile::TempDir,
    handle: Handle,
    inputs: mpsc::Receiver<MonitorInput>,
    _tunnel: mpsc::Receiver<fleetgate_engine::messages::Command>,
    monitor: Monitor,
    now: Now,
    wait: Option<Mono>,
    records: Vec<Record>,
    dice: Dice,
    /// The devices that reply to probes.
    alive: BTreeSet<HostId>,
    /// The effect of the rentals of devices.
    phases: BTreeMap<HostId, RentalPhase>,
    /// Checkables with a waiting notice.
    waiting: BTreeSet<CheckableId>,
    last_id: i64,
    steps: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> World {
        let (store, dir) = fixture::store().await;
        let (to_tunnel, tunnel) = mpsc::channel(QUEUE);
        let (to_monitor, inputs) = mpsc::channel(QUEUE);
        let handle =
            Handle::new(store.clone(), LiveState::default(), (TIMING, DEFAULT_MTU), to_tunnel, to_monitor);
        let mut world = World {
            store,
            _dir: dir,
            handle,
            inputs,
            _tunnel: tunnel,
            monitor: Monitor::new(Config::default(), seed),
            now: Now { mono: Mono::from_secs(100_000), wall: START },
            wait: None,
            records: Vec::new(),
            dice: Dice(seed),
            alive: DEVICES.map(|n| HostId::from_i64(n.into())).into(),
            phases: BTreeMap::new(),
            waiting: BTreeSet::new(),
            last_id: 0,
            steps: Vec::new(),
        };
        world.populate().await;
        world.restart().await;
        world
    }

    async fn populate(&self) {
        for n in DEVICES {
            fixture::device(&self.store, n, &format!("cam-{n}")).await;
        }
        for sql in [
            // Nothing here survives a power cut, and the disk would cost most of the time.
            "pragma synchronous = off",
            "insert into hosts (id, name, profile, created_at) values (5, 'spooler', '', 0)",
            "update hosts set parents = '[1]' where id = 3",
            "update hosts set parents = '[1,2]' where id = 4",
            r#"update hosts set labels = '{"site":"north"}' where id > 2"#,
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, announced_state, announced_at)
             values (10, 2, 1, 600000, 1200000, 0, 600000, 0, 0, 'preparing', 0),
                    (11, 2, 3, 600000, 1200000, 0, 600000, 0, 0, 'preparing', 0)",
        ] {
            fixture::run(&self.store, sql, &[]).await;
        }
        for host in 1..=5 {
            for service in SERVICES {
                self.define(HostId::from_i64(host), service, "").await;
            }
        }
    }

    /// Adds or changes a service with a passive check.
    async fn define(&self, host: HostId, service: &str, settings: &str) {
        let more = if settings.is_empty() { String::new() } else { format!(",{settings}") };
        let definition = format!(r#"{{"check":{{"type":"passive"}},"max_check_attempts":1{more}}}"#);
        let sql = "insert into service_overrides (host, service, disabled, definition) values ($1, $2, 0, $3)
                   on conflict (host, service) do update set definition = excluded.definition";
        fixture::run(&self.store, sql, &[&host.as_i64().to_string(), service, &definition]).await;
    }

    /// Starts the engine from the store, as the gateway does.
    async fn restart(&mut self) {
        self.commit().await;
        self.monitor = Monitor::new(Config::default(), self.dice.below(1_000));
        let mut conn = self.store.reader().await.unwrap();
        for downtime in downtimes::open(&mut conn, self.now.wall).await.unwrap() {
            self.monitor.handle(MonitorInput::Downtime(Box::new(downtime.plan)), self.now);
        }
        for phase in self.phases.values() {
            self.monitor.handle(MonitorInput::RentalPhase(Box::new(phase.clone())), self.now);
        }
        self.monitor.recall_incidents(incidents::memories(&mut conn).await.unwrap(), self.now);
        drop(conn);
        self.monitor.restore(self.store.all_hosts(&TIMING).await.unwrap(), self.now);
        self.input(MonitorInput::Timeout);
    }

    fn input(&mut self, input: MonitorInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.monitor.handle(input, self.now);
            loop {
                match self.monitor.poll_output() {
                    MonitorOutput::Record(record) => self.records.push(record),
                    MonitorOutput::ProbeRequest(ask) => inputs.push_back(self.reply(&ask)),
                    MonitorOutput::ProbeUplink
                    | MonitorOutput::HandedOver(_)
                    | MonitorOutput::FirstContact(_) => {}
                    MonitorOutput::Wait(at, _) => {
                        self.wait = at;
                        break;
                    }
                }
            }
        }
    }

    fn reply(&self, ask: &ProbeRequest) -> MonitorInput {
        let alive = self.alive.contains(&ask.host);
        let took = Duration::from_millis(40);
        let connect = || if alive { Ok(took) } else { Err(ConnectFailure::Timeout) };
        let reply = match &ask.probe {
            Probe::Evidence { .. } => {
                let heard = Some(self.now.mono).filter(|_| alive);
                let (last_packet, last_handshake) = (heard, heard);
                ProbeReply::Evidence(Evidence {
                    last_packet,
                    last_handshake,
                    established: alive,
                    ..Evidence::default()
                })
            }
            Probe::Echo { count, .. } | Probe::LargeEcho { count, .. } => {
                let rtts = vec![took; if alive { usize::from(*count) } else { 0 }];
                ProbeReply::Echo(EchoReply { sent: *count, rtts, failure: None })
            }
            Probe::Connect { .. } => ProbeReply::Connect(connect()),
            Probe::Handshake { .. } => ProbeReply::Handshake(connect()),
            Probe::Ssh { .. } => ProbeReply::Ssh(SshReply {
                failure: Some(SshFailure::Connect(ConnectFailure::Timeout)),
                ..SshReply::default()
            }),
        };
        MonitorInput::ProbeReply(ask.id, reply)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.wait.filter(|at| *at <= end) {
            self.advance_to(at);
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Mono) {
        let step = at.since(self.now.mono);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
        self.input(MonitorInput::Timeout);
    }

    async fn commit(&mut self) {
        commit_now(&self.store, std::mem::take(&mut self.records)).await.unwrap();
    }

    /// Sends a committed change to the engine, in the way that the API does.
    async fn changed(&mut self, changes: Changes) {
        self.handle.changed(changes).await;
        while let Ok(input) = self.inputs.try_recv() {
            self.input(input);
        }
    }

    async fn hosts_changed(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.changed(Changes { hosts: hosts.into_iter().collect(), ..Changes::default() }).await;
    }

    fn new_id(&mut self) -> Id {
        self.last_id += 1;
        Id::from_i64(self.last_id)
    }

    fn any_host(&mut self) -> HostId {
        HostId::from_i64(self.dice.pick(&[1, 2, 3, 4, 5]).unwrap())
    }

    fn secs(&mut self, from: u64, below: u64) -> Duration {
        Duration::from_secs(from + self.dice.below(below - from))
    }

    // ------------------------------------------------------------------ steps

    async fn step(&mut self) {
        let step = match self.dice.below(22) {
            0..=3 => self.time_passes(),
            4 | 5 => self.a_device_fails_or_returns(),
            6 | 7 => self.results_come(),
            8 => self.the_spooler_reports(),
            9 | 10 => self.a_downtime_is_planned().await,
            11 => self.a_downtime_is_cancelled().await,
            12 | 13 => self.a_problem_is_acknowledged().await,
            14 => self.an_acknowledgement_is_withdrawn().await,
            15 => self.an_incident_is_acknowledged().await,
            16 | 17 => self.settings_change().await,
            18 => self.something_is_removed().await,
            19 | 20 => self.a_rental_goes_on(),
            _ => {
                self.restart().await;
                "the gateway restarts".to_owned()
            }
        };
        self.steps.push(step);
        self.commit().await;
    }

    fn time_passes(&mut self) -> String {
        let time = if self.dice.once_in(4) { self.secs(200, 2_000) } else { self.secs(1, 120) };
        self.pass(time);
        format!("{} s pass", time.as_secs())
    }

    fn a_device_fails_or_returns(&mut self) -> String {
        let device = HostId::from_i64(self.dice.pick(&DEVICES).unwrap().into());
        if !self.alive.remove(&device) {
            self.alive.insert(device);
        }
        self.pass(Duration::from_secs(90));
        format!("{} is there: {}", device.as_i64(), self.alive.contains(&device))
    }

    fn results_come(&mut self) -> String {
        let host = self.any_host();
        let service = self.dice.pick(&SERVICES).unwrap();
        // Enough changes of the state to make it flap.
        let count = if self.dice.once_in(3) { 12 } else { 1 };
        for n in 0..count {
            let all = [Status::Ok, Status::Critical, Status::Warning, Status::Unknown];
            let status = if count == 1 { self.dice.pick(&all).unwrap() } else { all[n % 2] };
            self.submit(host, Some(service), status);
            self.pass(Duration::from_secs(1));
        }
        format!("{count} results of {}/{service}", host.as_i64())
    }

    fn the_spooler_reports(&mut self) -> String {
        let status = self.dice.pick(&[Status::Ok, Status::Critical]).unwrap();
        for _ in 0..3 {
            self.submit(SPOOLER, None, status);
            self.pass(Duration::from_secs(1));
        }
        format!("the spooler reports {}", status.name())
    }

    fn submit(&mut self, host: HostId, service: Option<&str>, status: Status) {
        let result = PluginResult::new(status, "sent", Vec::new());
        let (service, at) = (service.map(str::to_owned), self.now.wall);
        let (by, identity, ticket) = (String::new(), Default::default(), Ticket(1));
        let sent = PassiveResult { host, service, result, at, by, identity, ticket };
        self.input(MonitorInput::Submit(Box::new(sent)));
    }

    async fn a_downtime_is_planned(&mut self) -> String {
        let host = self.any_host();
        let service =
            self.dice.pick(&[None, None, Some("disk".to_owned()), Some("ping".to_owned())]).unwrap();
        let north = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        let hosts = if self.dice.once_in(4) { HostScope::Labels(north) } else { HostScope::One(host) };
        let start = self.now.wall + self.secs(0, 300) - Duration::from_secs(150);
        let end = self.now.wall + self.secs(1, 900);
        let duration = self.dice.once_in(2).then(|| self.secs(60, 900));
        let (id, scope) = (self.new_id(), Scope { hosts, service });
        let plan = Downtime { id, scope, when: When::Once { start, end, duration } };
        let said = format!("planned: {plan:?}");
        let mut tx = self.store.begin().await.unwrap();
        downtimes::insert(&mut tx, &downtime_of(plan, self.now.wall)).await.unwrap();
        tx.commit().await.unwrap();
        self.changed(Changes { downtimes: [id].into(), ..Changes::default() }).await;
        said
    }

    async fn a_downtime_is_cancelled(&mut self) -> String {
        let mut conn = self.store.reader().await.unwrap();
        let open = downtimes::open(&mut conn, self.now.wall).await.unwrap();
        drop(conn);
        let Some(found) = self.dice.pick(&open) else { return "no downtime to cancel".to_owned() };
        let id = found.plan.id;
        let writer = crate::store::managed::Writer { manager: BY_HAND, principal: "user:jo" };
        let mut tx = self.store.begin().await.unwrap();
        downtimes::cancel(&mut tx, id, writer, self.now.wall).await.unwrap();
        tx.commit().await.unwrap();
        self.changed(Changes { downtimes: [id].into(), ..Changes::default() }).await;
        format!("{id:?} is cancelled")
    }

    async fn a_problem_is_acknowledged(&mut self) -> String {
        let problems = "select host || '/' from host_states where status = 'down' union all
             select host || '/' || service from service_states where status <> 'ok'";
        let problems = fixture::texts(&self.store, problems).await;
        let Some(name) = self.dice.pick(&problems) else { return "nothing to acknowledge".to_owned() };
        let CheckableId { host, service } = checkable(&name);
        let ack = acknowledgements::Acknowledgement {
            id: self.new_id(),
            host,
            service: service.clone(),
            sticky: self.dice.once_in(2),
            expires_at: self.dice.once_in(2).then(|| self.now.wall + self.secs(5, 600)),
            author: "user:jo".into(),
            comment: "on it".into(),
            created_at: self.now.wall,
            incident: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        acknowledgements::put(&mut tx, &ack).await.unwrap();
        tx.commit().await.unwrap();
        self.input(MonitorInput::Acknowledge { host, service, ack: (&ack).into() });
        format!("acknowledged: {ack:?}")
    }

    async fn an_acknowledgement_is_withdrawn(&mut self) -> String {
        let mut conn = self.store.reader().await.unwrap();
        let open = acknowledgements::open(&mut conn).await.unwrap();
        drop(conn);
        let Some(ack) = self.dice.pick(&open) else { return "nothing to withdraw".to_owned() };
        let (host, service) = (ack.host, ack.service);
        let mut tx = self.store.begin().await.unwrap();
        acknowledgements::withdraw(&mut tx, host, service.as_deref(), self.now.wall).await.unwrap();
        tx.commit().await.unwrap();
        let said = format!("withdrawn: {}/{service:?}", host.as_i64());
        self.input(MonitorInput::Unacknowledge { host, service });
        said
    }

    async fn an_incident_is_acknowledged(&mut self) -> String {
        let mut conn = self.store.reader().await.unwrap();
        let open = incidents::memories(&mut conn).await.unwrap();
        drop(conn);
        let Some(incident) = self.dice.pick(&open) else { return "no incident".to_owned() };
        let mut tx = self.store.begin().await.unwrap();
        let input = if incident.ack.is_some() {
            incidents::unacknowledge(&mut tx, incident.id, self.now.wall).await.unwrap();
            MonitorInput::UnacknowledgeIncident(incident.id)
        } else {
            let ack = incidents::Ack {
                at: self.now.wall,
                author: "user:ada".into(),
                comment: "on my way".into(),
                sticky: self.dice.once_in(2),
                expires_at: self.dice.once_in(2).then(|| self.now.wall + self.secs(5, 600)),
            };
            incidents::acknowledge(&mut tx, incident.id, &ack).await.unwrap();
            MonitorInput::AcknowledgeIncident(incident.id, IncidentAck::from(&ack))
        };
        tx.commit().await.unwrap();
        let said = format!("{input:?}");
        self.input(input);
        said
    }

    async fn settings_change(&mut self) -> String {
        let host = self.any_host();
        let settings = self.dice.pick(&SETTINGS).unwrap();
        let of = self.dice.pick(&["", "disk", "job"]).unwrap();
        if of.is_empty() {
            let (json, id) = (format!("{{{settings}}}"), host.as_i64().to_string());
            fixture::run(&self.store, "update hosts set alerting = $1 where id = $2", &[&json, &id]).await;
        } else {
            self.define(host, of, settings).await;
        }
        self.hosts_changed([host]).await;
        format!("{}/{of} gets {{{settings}}}", host.as_i64())
    }

    fn a_rental_goes_on(&mut self) -> String {
        let device = HostId::from_i64(self.dice.pick(&RENTED).unwrap());
        let status = self.dice.pick(&[Status::Ok, Status::Warning, Status::Critical]).unwrap();
        let phase = RentalPhase {
            is_quiet: self.dice.once_in(2),
            service: Some((status, format!("it is {}", status.name()))),
            ..RentalPhase::none(device)
        };
        self.phases.insert(device, phase.clone());
        let said = format!("{phase:?}");
        self.input(MonitorInput::RentalPhase(Box::new(phase)));
        said
    }

    /// Removes a service; very rarely a host.
    async fn something_is_removed(&mut self) -> String {
        if self.dice.once_in(12) {
            let host = HostId::from_i64(self.dice.pick(&[2, 4]).unwrap());
            let mut tx = self.store.begin().await.unwrap();
            devices::remove(&mut tx, host, self.now.wall).await.unwrap();
            devices::drop_parents(&mut tx, HostId::from_i64(4), &[host]).await.unwrap();
            tx.commit().await.unwrap();
            self.hosts_changed([host, HostId::from_i64(4)]).await;
            return format!("host {} is removed", host.as_i64());
        }
        let (host, service) = (self.any_host(), self.dice.pick(&SERVICES).unwrap());
        let sql = "delete from service_overrides where host = $1 and service = $2";
        fixture::run(&self.store, sql, &[&host.as_i64().to_string(), service]).await;
        self.hosts_changed([host]).await;
        let again = self.dice.once_in(2);
        if again {
            self.commit().await;
            self.define(host, service, "").await;
            self.hosts_changed([host]).await;
        }
        format!("{}/{service} is removed, and added again: {again}", host.as_i64())
    }

    // ------------------------------------------------------------- comparison

    async fn checkables(&self) -> Vec<CheckableId> {
        let sql = "select host || '/' from host_states union all
                   select host || '/' || service from service_states";
        fixture::texts(&self.store, sql).await.iter().map(|name| checkable(name)).collect()
    }

    /// Lets one notice of each checkable wait, because the store decides only about those.
    async fn let_all_wait(&mut self, all: &[CheckableId]) {
        let mut tx = self.store.begin().await.unwrap();
        for of in all {
            if !self.waiting.insert(of.clone()) {
                continue;
            }
            let message = Message { service: of.service.clone(), ..fixture::down(of.host) };
            let id = notices::insert(&mut tx, &message, None).await.unwrap();
            let notice = notices::find(&mut tx, id).await.unwrap().unwrap().notice().unwrap();
            let (contact, why, until) = (Id::from_i64(1), WaitFor::Delay, self.now.wall);
            notices::wait(&mut tx, &Waiting { contact, notice, why, until, rule: None }).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Compares every answer of the store with that of the engine.
    async fn compare(&mut self) {
        let all = self.checkables().await;
        self.let_all_wait(&all).await;
        let figures = self.monitor.figures();
        assert_eq!(figures.hosts + figures.services, all.len(), "both have the same hosts and services");
        let mut conn = self.store.reader().await.unwrap();
        let suppressions = suppression::of_waiting(&mut conn).await.unwrap();
        let listed = hosts::troubles(&mut conn, &TroublePlace::first(), 1_000).await.unwrap();
        let open = acknowledgements::open(&mut conn).await.unwrap();
        drop(conn);
        let open: BTreeSet<_> =
            open.into_iter().map(|ack| CheckableId { host: ack.host, service: ack.service }).collect();
        let mut acknowledged = BTreeSet::new();
        for of in all {
            let current =
                self.monitor.current(&of, self.now).unwrap_or_else(|| panic!("{of:?} is not watched"));
            let expected = current.suppressed.map(Suppression::Silent);
            let expected = expected.or(current.over.then_some(Suppression::Well));
            assert_eq!(suppressions.get(&of).copied(), expected, "store and engine about {of:?}");
            let problem = listed.iter().find(|t| (t.host, service_of(t)) == (of.host, of.service.as_deref()));
            listed_as_notified(&self.store, &of, current, problem).await;
            explained(&self.store, &of, current).await;
            acknowledged.extend(current.acknowledged.then_some(of));
        }
        assert_eq!(open, acknowledged, "open acknowledgements in the store and in the engine");
    }
}

fn checkable(name: &str) -> CheckableId {
    let (host, service) = name.split_once('/').unwrap();
    let service = Some(service.to_owned()).filter(|service| !service.is_empty());
    CheckableId { host: HostId::from_i64(host.parse().unwrap()), service }
}

fn service_of(problem: &Trouble) -> Option<&str> {
    Some(problem.place.service.as_str()).filter(|service| !service.is_empty())
}

/// A service problem is in the list exactly while its host and its currency do not suppress it. A
/// listed problem is handled exactly while a rental, a downtime or an acknowledgement suppresses it.
async fn listed_as_notified(store: &Store, of: &CheckableId, current: Current, listed: Option<&Trouble>) {
    use SuppressReason::{Acknowledged, Downtime, HostDown, NotCurrent, ParentInDoubt, Rental, Unreachable};
    let mut conn = store.reader().await.unwrap();
    let outside = matches!(current.suppressed, Some(HostDown | Unreachable | NotCurrent));
    if let Some(service) = &of.service {
        let state = states::of_service(&mut conn, of.host, service).await.unwrap().unwrap();
        let problem = state.hard.is_some_and(|hard| hard != Status::Ok);
        assert_eq!(listed.is_some(), problem && !outside, "{of:?} in the list of problems");
    } else {
        let state = hosts::by_id(&mut conn, of.host).await.unwrap().unwrap().state.unwrap();
        let problem = state.hard == HostStatus::Down || state.hard == HostStatus::Up && state.stale;
        assert_eq!(listed.is_some(), problem && !(state.asleep && state.hard == HostStatus::Up), "{of:?}");
    }
    if let Some(listed) = listed.filter(|_| !outside && current.suppressed != Some(ParentInDoubt)) {
        let handled = matches!(current.suppressed, Some(Rental | Downtime | Acknowledged));
        assert_eq!(listed.handled, handled, "{of:?} in the list of problems");
    }
}

/// A rental, a downtime and an acknowledgement that suppress are named in the evidence.
async fn explained(store: &Store, of: &CheckableId, current: Current) {
    use SuppressReason::{Acknowledged, Downtime, Rental};
    let Some(reason @ (Rental | Downtime | Acknowledged)) = current.suppressed else { return };
    let mut conn = store.reader().await.unwrap();
    let evidence = suppression_detail::of(&mut conn, of.host, of.service.as_deref(), reason).await.unwrap();
    assert!(
        evidence.contains(if reason == Rental { "l_" } else { "user:" }),
        "{of:?} is suppressed by {reason:?}, of which the store says {evidence:?}"
    );
}

/// Open intervals are those of the states, since the same times, and no two intervals overlap.
async fn intervals_fit(store: &Store) {
    let states = "select host || '/ ' || hard || ' ' || hard_since from host_states where hard <> 'pending'
                  union all select host || '/' || service || ' ' || hard || ' ' || hard_since
                  from service_states where hard is not null order by 1";
    let lasting = "select host || '/' || service || ' ' || value || ' ' || began_at from intervals
                   where series = 'state' and ended_at is null order by 1";
    let planned = "select host || '/' from host_states where notification ->> '$.occasion' is not null
                   union all select host || '/' || service from service_states
                   where notification ->> '$.occasion' is not null order by 1";
    let maintenance = "select host || '/' || service from intervals
                       where series = 'downtime' and ended_at is null order by 1";
    let unreachable = "select host || '' from host_states where reachable = 0 order by 1";
    let hidden =
        "select host || '' from intervals where series = 'unreachable' and ended_at is null order by 1";
    let quiet = "select host || '' from host_states where notification ->> '$.is_quiet' order by 1";
    let rentals = "select host || '' from intervals where series = 'rental' and ended_at is null order by 1";
    let all = [(states, lasting), (planned, maintenance), (unreachable, hidden), (quiet, rentals)];
    for (of_states, of_intervals) in all {
        assert_eq!(fixture::texts(store, of_intervals).await, fixture::texts(store, of_states).await);
    }
    let overlapping = "select a.series || ' of ' || a.host || '/' || a.service || ' at ' || b.began_at
                       from intervals a join intervals b on b.host = a.host and b.service = a.service
                            and b.series = a.series and b.id <> a.id and b.began_at >= a.began_at
                            and (a.ended_at is null or a.ended_at > b.began_at)";
    assert_eq!(fixture::texts(store, overlapping).await, [""; 0]);
}

/// Prints what led to a failure.
struct Printed<'a>(u64, &'a mut World);

impl Drop for Printed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FLEETGATE_SIM_SEED={}\n{}", self.0, self.1.steps.join("\n"));
        }
    }
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    let printed = Printed(seed, &mut world);
    for _ in 0..STEPS {
        printed.1.step().await;
        printed.1.compare().await;
        intervals_fit(&printed.1.store).await;
    }
}

#[tokio::test]
async fn the_store_and_the_engine_suppress_the_same_and_states_have_their_intervals() {
    let one = std::env::var("FLEETGATE_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let (first, last) = one.map_or((1, SEEDS), |seed: u64| (seed, seed));
    for seed in first..=last {
        run(seed).await;
    }
}
