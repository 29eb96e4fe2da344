//! Every message about checkables with submitted results, second by second, next to a naive model
//! written from the semantics.
//!
//! It covers attempts, flapping, volatile services, reminders, delays, filters, acknowledgements
//! and downtimes. It also covers results out of order, silence, hosts that are down, and restarts
//! in the middle of all that.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clerk::{Again, Clerk, Plan, Rules};
use fleetgate_engine::calendar::recurrence::{Hours, Recurrence};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    Acknowledgement, Alerting, Check, Downtime, EventKind, Flapping, HostScope, HostSnapshot, HostSpec,
    HostState, HostStatus, Kinds, MessageKind, MonitorInput, MonitorOutput, Notify, Outcome, PassiveResult,
    Record, Scope, ServiceSpec, ServiceState, StateType, States, Ticket, Timing, When,
};
use fleetgate_engine::monitor::{Config, Monitor};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_tests::dice::{Dice, seeds};
use jiff::tz::TimeZone;

/// Seconds on both clocks at the start of the simulation, chosen so that midnight falls in the
/// middle of each life.
const START: u64 = 1_800_029_000;
const SERVICES: usize = 4;
/// Lives of one seed.
const LIVES: u64 = 5;
const HOST: HostId = Id::from_i64(1);

/// Returns the wall clock for a time in seconds since the start of the simulation.
fn wall(date: u64) -> Wall {
    Wall::from_millis(((START + date) * 1000) as i64)
}

fn name(i: usize) -> String {
    format!("job-{i}")
}

/// Returns random rules of one checkable.
fn rules(dice: &mut Dice) -> Rules {
    let pick = |dice: &mut Dice, list: &[u64]| list[dice.roll(list.len() as u64) as usize];
    Rules {
        attempts: pick(dice, &[1, 1, 2, 3]) as u32,
        volatile: dice.one_in(5),
        flapping: (!dice.one_in(3)).then_some((20, pick(dice, &[30, 30, 45]))),
        interval: pick(dice, &[0, 0, 60, 300]),
        delay: pick(dice, &[0, 0, 0, 90]),
        states: [&[1, 2, 3][..], &[1, 2, 3], &[2], &[2, 3]][dice.roll(4) as usize].to_vec(),
        freshness: pick(dice, &[0, 0, 400, 1_000]),
    }
}

fn alerting(rules: &Rules) -> Alerting {
    let flapping = match rules.flapping {
        Some((low, high)) => Flapping { low: low as f64, high: high as f64, ..Flapping::default() },
        None => Flapping { enabled: false, ..Flapping::default() },
    };
    let notify = Notify {
        interval: (rules.interval > 0).then(|| Duration::from_secs(rules.interval)),
        delay: Duration::from_secs(rules.delay),
        states: States::of(rules.states.iter().copied()),
        kinds: Kinds::USUAL,
    };
    Alerting { volatile: rules.volatile, flapping, notify }
}

fn timing(rules: &Rules) -> Timing {
    Timing { attempts: rules.attempts, ..Timing::DEFAULT }
}

fn spec(host: &Rules, services: &[Rules]) -> HostSpec {
    let service = |(i, rules): (usize, &Rules)| ServiceSpec {
        timing: timing(rules),
        freshness: (rules.freshness > 0).then(|| Duration::from_secs(rules.freshness)),
        alerting: alerting(rules),
        ..ServiceSpec::plain(name(i), Check::Passive)
    };
    HostSpec {
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        freshness: (host.freshness > 0).then(|| Duration::from_secs(host.freshness)),
        timing: timing(host),
        alerting: alerting(host),
        services: services.iter().enumerate().map(service).collect(),
        ..HostSpec::without_path(HOST, "nas")
    }
}

fn recurrence(again: &Again) -> Recurrence {
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
    let every = match again.weekday {
        Some(5) => "sat",
        Some(_) => "sun",
        None => "day",
    };
    Recurrence {
        every: every.parse().expect("a day"),
        hours: Hours::new(&clock(again.from), &clock(again.to)).expect("two times of day"),
        zone: TimeZone::UTC,
        first: None,
        last: None,
    }
}

/// A suppressed notification, and when.
#[derive(Debug)]
struct Held {
    t: u64,
    service: Option<String>,
    kind: &'static str,
    to: &'static str,
    reason: &'static str,
}

/// The engine, and its part of the store.
struct Gateway {
    monitor: Monitor,
    /// How many seconds the wall clock is ahead.
    skew: i64,
    spec: HostSpec,
    host: Option<HostState>,
    services: BTreeMap<String, ServiceState>,
    acks: Vec<(Option<String>, Acknowledgement)>,
    plans: BTreeMap<Id, Downtime>,
    said: Vec<String>,
    held: Vec<Held>,
    outcome: Option<Outcome>,
    wait: Option<Mono>,
}

impl Gateway {
    fn date(&self, t: u64) -> u64 {
        t.saturating_add_signed(self.skew)
    }

    fn at(&self, t: u64) -> Now {
        Now { mono: Mono::from_secs(t), wall: wall(self.date(t)) }
    }

    fn input(&mut self, input: MonitorInput, t: u64) {
        let now = self.at(t);
        self.monitor.handle(input, now);
        self.drain(t);
    }

    fn drain(&mut self, t: u64) {
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::Record(record) => self.keep(record, t),
                MonitorOutput::ProbeRequest(_)
                | MonitorOutput::ProbeUplink
                | MonitorOutput::HandedOver(_)
                | MonitorOutput::FirstContact(_) => {
                    panic!("there is no way to ask, and there are no rentals")
                }
                MonitorOutput::Wait(wait, _) => {
                    self.wait = wait;
                    return;
                }
            }
        }
    }

    fn keep(&mut self, record: Record, t: u64) {
        match record {
            Record::Host(state) => self.host = Some(*state),
            Record::Service(_, state) => drop(self.services.insert(state.name.clone(), state)),
            Record::AckEnded(id, _) => self.acks.retain(|(_, ack)| ack.id != id),
            Record::Event(event) => {
                if let EventKind::NotificationHeld { kind, to, reason, .. } = event.kind {
                    let (kind, reason) = (kind.name(), reason.name());
                    self.held.push(Held { t, service: event.service, kind, to, reason });
                }
            }
            Record::Reply(_, outcome) => self.outcome = Some(outcome),
            Record::Message(m) => {
                let object = m.service.clone().unwrap_or_else(|| "host".to_owned());
                self.said.push(format!("{t} {object} {} {}>{}", m.kind.name(), m.from, m.to));
            }
            _ => {}
        }
    }

    /// Runs the engine's timers up to and including `t`.
    fn run_to(&mut self, t: u64) {
        while let Some(wait) = self.wait.filter(|wait| *wait <= Mono::from_secs(t)) {
            let due = wait.as_nanos().div_ceil(1_000_000_000);
            self.input(MonitorInput::Timeout, due);
        }
    }

    fn restart(&mut self, t: u64) {
        self.monitor = Monitor::new(Config::default(), t);
        let now = self.at(t);
        for plan in self.plans.values() {
            self.monitor.handle(MonitorInput::Downtime(Box::new(plan.clone())), now);
        }
        let memory = HostSnapshot {
            spec: self.spec.clone(),
            state: self.host.clone().filter(|s| s.status != HostStatus::Pending),
            services: self.services.values().filter(|s| s.status.is_some()).cloned().collect(),
            acknowledged: self.acks.clone(),
        };
        self.monitor.restore([memory], now);
        self.input(MonitorInput::Timeout, t);
    }
}

struct Sim {
    seed: u64,
    dice: Dice,
    gateway: Gateway,
    clerk: Clerk,
    t: u64,
    ids: i64,
    /// How often notifications were suppressed, by reason.
    reasons: BTreeMap<&'static str, u64>,
}

/// Asserts that the recorded reason is the one that the semantics give.
fn is_so(clerk: &Clerk, held: &Held, seed: u64) {
    let expected = clerk.reason(held.service.as_deref(), held.kind, held.to);
    assert_eq!(Some(held.reason), expected, "seed {seed}: {held:?}");
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut dice = Dice(seed);
        let host = rules(&mut dice);
        let services: Vec<Rules> = (0..SERVICES).map(|_| rules(&mut dice)).collect();
        let spec = spec(&host, &services);
        let clerk =
            Clerk::new(START, host, services.into_iter().enumerate().map(|(i, r)| (name(i), r)).collect());
        let mut gateway = Gateway {
            monitor: Monitor::new(Config::default(), seed),
            skew: 0,
            spec: spec.clone(),
            host: None,
            services: BTreeMap::new(),
            acks: Vec::new(),
            plans: BTreeMap::new(),
            said: Vec::new(),
            held: Vec::new(),
            outcome: None,
            wait: None,
        };
        let t = 100_000;
        gateway.input(MonitorInput::Upsert(Box::new(spec)), t);
        let mut clerk = clerk;
        clerk.start(t);
        Sim { seed, dice, gateway, clerk, t, ids: 0, reasons: BTreeMap::new() }
    }

    fn pass(&mut self, secs: u64) {
        self.t += secs;
        self.gateway.run_to(self.t);
        let (held, seed) = (std::mem::take(&mut self.gateway.held), self.seed);
        let at = |clerk: &Clerk, now| held.iter().filter(|h| h.t == now).for_each(|h| is_so(clerk, h, seed));
        self.clerk.run_to(self.t, at);
        self.note_reasons(&held);
    }

    fn note_reasons(&mut self, held: &[Held]) {
        held.iter().for_each(|held| *self.reasons.entry(held.reason).or_default() += 1);
    }

    /// Returns the host or one of its services; the host less often.
    fn object(&mut self) -> Option<String> {
        let i = self.dice.roll(SERVICES as u64 * 2 + 1) as usize;
        (i > 0).then(|| name((i - 1) % SERVICES))
    }

    fn act(&mut self) {
        match self.dice.roll(40) {
            0..=27 => self.submit(),
            28..=30 => self.acknowledge(),
            31 => self.unacknowledge(),
            32..=34 => self.plan(),
            35 => self.cancel(),
            36 => self.restart(),
            37 => self.set_clock(),
            _ => {}
        }
    }

    fn submit(&mut self) {
        let service = self.object();
        let code = match self.dice.roll(6) {
            0..=2 => 0,
            n => n as u8 - 2,
        };
        // The host is ok more often than not; some results are late, some are from the future.
        let code = if service.is_none() && self.dice.one_in(2) { 0 } else { code };
        let date = self.gateway.date(self.t);
        let stamp = match self.dice.roll(8) {
            0 => date - self.dice.roll(200),
            1 => date + self.dice.roll(5_000),
            _ => date,
        };
        let result = PluginResult::new(Status::ALL[code as usize], "said", Vec::new());
        let (by, at, ticket) = (String::new(), wall(stamp), Ticket(1));
        let sent = PassiveResult {
            host: HOST,
            service: service.clone(),
            result,
            at,
            by,
            identity: Default::default(),
            ticket,
        };
        self.gateway.input(MonitorInput::Submit(Box::new(sent)), self.t);
        let taken = self.clerk.submit(service.as_deref(), code, stamp, self.t);
        assert_eq!(self.gateway.outcome.take() == Some(Outcome::Done), taken, "{}", self.context());
    }

    fn acknowledge(&mut self) {
        let service = self.object();
        // The API refuses to acknowledge a checkable that is ok.
        if self.clerk.shown(service.as_deref()).is_none_or(|code| code == 0) {
            return;
        }
        self.ids += 1;
        let (sticky, expires) = (
            self.dice.one_in(2),
            (!self.dice.one_in(2)).then(|| self.gateway.date(self.t) + 1 + self.dice.roll(900)),
        );
        let ack = Acknowledgement {
            id: Id::from_i64(self.ids),
            sticky,
            expires: expires.map(wall),
            words: String::new(),
            incident: None,
        };
        self.gateway.acks.retain(|(s, _)| *s != service);
        self.gateway.acks.push((service.clone(), ack.clone()));
        self.gateway.input(MonitorInput::Acknowledge { host: HOST, service: service.clone(), ack }, self.t);
        self.clerk.acknowledge(service.as_deref(), Some((sticky, expires)), self.t);
    }

    fn unacknowledge(&mut self) {
        let service = self.object();
        self.gateway.acks.retain(|(s, _)| *s != service);
        self.gateway.input(MonitorInput::Unacknowledge { host: HOST, service: service.clone() }, self.t);
        self.clerk.acknowledge(service.as_deref(), None, self.t);
    }

    fn plan(&mut self) {
        self.ids += 1;
        let (id, service) = (self.ids, self.object());
        let date = self.gateway.date(self.t);
        let start = (date + self.dice.roll(600)).saturating_sub(self.dice.roll(300));
        let end = start.max(date) + 1 + self.dice.roll(900);
        let duration = self.dice.one_in(2).then(|| 1 + self.dice.roll(900));
        let again = self.again();
        let hosts = match self.dice.roll(3) {
            0 => HostScope::Labels(BTreeMap::from([("site".to_owned(), "north".to_owned())])),
            _ => HostScope::One(HOST),
        };
        let plan = Downtime {
            id: Id::from_i64(id),
            scope: Scope { hosts, service: service.clone() },
            when: match &again {
                Some(again) => When::Repeated(recurrence(again)),
                None => When::Once {
                    start: wall(start),
                    end: wall(end),
                    duration: duration.map(Duration::from_secs),
                },
            },
        };
        self.gateway.plans.insert(plan.id, plan.clone());
        self.gateway.input(MonitorInput::Downtime(Box::new(plan)), self.t);
        let duration = duration.filter(|_| again.is_none());
        self.clerk.plan(id, Plan { service, start, end, duration, again }, self.t);
    }

    /// Returns a window of some minutes that is open or soon will be, today and on other days.
    fn again(&mut self) -> Option<Again> {
        if !self.dice.one_in(3) {
            return None;
        }
        let minute = (START + self.gateway.date(self.t)) / 60 % 1440;
        let from = (minute + 1440 + self.dice.roll(12) - 6) % 1440;
        let to = (from + 1 + self.dice.roll(15)) % 1440;
        let weekday = self.dice.one_in(2).then(|| 5 + self.dice.roll(2));
        Some(Again { weekday, from, to })
    }

    fn cancel(&mut self) {
        let ids: Vec<Id> = self.gateway.plans.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.dice.roll(ids.len() as u64) as usize];
        self.gateway.plans.remove(&id);
        self.gateway.input(MonitorInput::CancelDowntime(id), self.t);
        self.clerk.cancel(id.as_i64(), self.t);
    }

    /// Sets the clock ahead or back, by seconds or by an hour.
    fn set_clock(&mut self) {
        let most = [10, 100, 4_000][self.dice.roll(3) as usize];
        let by = 2 + self.dice.roll(most).cast_signed();
        self.gateway.skew += if self.dice.one_in(2) { by } else { -by };
        self.clerk.set_clock(self.gateway.skew, self.t);
        self.gateway.input(MonitorInput::Timeout, self.t);
    }

    fn restart(&mut self) {
        self.t += self.dice.roll(100);
        self.gateway.restart(self.t);
        self.clerk.restart(self.t);
    }

    fn context(&self) -> String {
        format!("seed {} at {}", self.seed, self.t)
    }

    fn compare(&mut self) {
        let held = std::mem::take(&mut self.gateway.held);
        held.iter().for_each(|held| is_so(&self.clerk, held, self.seed));
        self.note_reasons(&held);
        let (mut engine, mut model) = (std::mem::take(&mut self.gateway.said), self.clerk.take_said());
        engine.sort();
        model.sort();
        assert_eq!(engine, model, "{}", self.context());
        for (name, state) in &self.gateway.services {
            let hard = state.kind == StateType::Hard;
            let shown = (state.status.map(Status::exit_code), hard, state.attempt);
            assert_eq!(shown, self.clerk.state(Some(name)), "{name} {}", self.context());
            let notification = (
                state.notification.flapping,
                state.notification.in_downtime,
                self.is_acknowledged(Some(name)),
            );
            assert_eq!(notification, self.clerk.marks(Some(name)), "{name} {}", self.context());
            assert_eq!(state.stale, self.clerk.is_old(name), "{name} {}", self.context());
        }
        if let Some(state) = self.gateway.host.as_ref().filter(|s| s.status != HostStatus::Pending) {
            let code = if state.status == HostStatus::Up { 0 } else { 2 };
            let shown = (Some(code), state.kind == StateType::Hard, state.attempt);
            assert_eq!(shown, self.clerk.state(None), "{}", self.context());
            let notification =
                (state.notification.flapping, state.notification.in_downtime, self.is_acknowledged(None));
            assert_eq!(notification, self.clerk.marks(None), "{}", self.context());
        }
    }

    fn is_acknowledged(&self, service: Option<&str>) -> bool {
        self.gateway.acks.iter().any(|(s, _)| s.as_deref() == service)
    }
}

#[test]
fn engine_and_model_agree_on_every_message_to_the_second() {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds().into_iter().flat_map(|seed| seed * 1_000..seed * 1_000 + LIVES) {
        let mut sim = Sim::new(seed);
        for _ in 0..1_500 {
            let secs = [0, 0, 1, 5, 20, 100][sim.dice.roll(6) as usize];
            sim.pass(secs);
            sim.act();
            for said in &sim.gateway.said {
                *kinds.entry(said.split(' ').nth(2).unwrap_or_default().to_owned()).or_default() += 1;
            }
            sim.compare();
        }
        sim.reasons.into_iter().for_each(|(reason, n)| *reasons.entry(reason).or_default() += n);
    }
    println!("messages: {kinds:?}, held back: {reasons:?}");
    for reason in
        ["host_down", "not_current", "downtime", "acknowledged", "flapping", "state_filter", "delay"]
    {
        assert!(reasons.contains_key(reason), "{reason} must have happened");
    }
    let wanted = [MessageKind::Problem, MessageKind::Recovery, MessageKind::Reminder];
    let flapping = [MessageKind::FlappingStart, MessageKind::FlappingEnd];
    for kind in wanted.into_iter().chain(flapping) {
        assert!(kinds.get(kind.name()).is_some_and(|n| *n > 10), "{} must have happened", kind.name());
    }
}
