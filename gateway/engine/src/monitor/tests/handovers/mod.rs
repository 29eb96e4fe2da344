//! Rented devices that are handed over: stories, and random ones beside a naive model.

mod clocks;
mod shipped;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use proptest::prelude::*;

use self::clocks::Clocks;
use super::lab::{box_of_others, service};
use crate::id::{HostId, Id};
use crate::messages::{
    Arrival, Check, GateRule, HandoverSpec, HostSnapshot, HostSpec, HostState, HostStatus, MonitorInput,
    MonitorOutput, PassiveResult, Record, ServiceState, Ticket,
};
use crate::monitor::{Config, Monitor};
use crate::time::{Mono, Now, Wall};

const RENTAL: Id = Id::from_i64(41);
const START: i64 = 1_800_000_000;
const SERVICES: [&str; 2] = ["disk", "job"];

fn wall(second: i64) -> Wall {
    Wall::from_millis((START + second) * 1_000)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn host(n: i64) -> HostId {
    HostId::from_i64(n)
}

/// A device that has passive results alone, so that a story decides about each.
fn device(n: i64) -> HostSpec {
    let services = SERVICES.map(|name| service(name, Check::Passive)).into();
    HostSpec { services, ..box_of_others(n) }
}

/// The rental of device 1 from second 600 to second 1,200, with a gate of five minutes over all services.
fn rental() -> HandoverSpec {
    HandoverSpec {
        rental: RENTAL,
        host: host(1),
        from: wall(600),
        until: wall(1_200),
        rule: Some(GateRule { services: None, ok_for: seconds(300) }),
        is_ready: true,
        blocks: Vec::new(),
        handed_over_at: None,
        arrival: Arrival::Done,
    }
}

/// A monitor with the devices 1 and 2, and what the store has of them.
struct World {
    monitor: Monitor,
    now: Now,
    hosts: BTreeMap<HostId, HostState>,
    services: BTreeMap<(HostId, String), ServiceState>,
    handed_over: Vec<(HostId, Wall)>,
    /// The first contacts with shipped devices.
    arrived: Vec<(HostId, Wall)>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            monitor: Monitor::new(Config::default(), 1),
            now: Now { mono: Mono::from_secs(100_000), wall: wall(0) },
            hosts: BTreeMap::new(),
            services: BTreeMap::new(),
            handed_over: Vec::new(),
            arrived: Vec::new(),
        };
        for n in [1, 2] {
            world.input(MonitorInput::Upsert(Box::new(device(n))));
        }
        world
    }

    /// Both devices are up, and their services OK.
    fn good() -> World {
        let mut world = World::new();
        world.all_good(1);
        world.all_good(2);
        world
    }

    fn all_good(&mut self, n: i64) {
        self.send(n, None, Status::Ok);
        for name in SERVICES {
            self.send(n, Some(name), Status::Ok);
        }
    }

    fn input(&mut self, input: MonitorInput) {
        self.monitor.handle(input, self.now);
        self.drain();
    }

    fn send(&mut self, n: i64, service: Option<&str>, status: Status) {
        let sent = PassiveResult {
            host: host(n),
            service: service.map(str::to_owned),
            result: PluginResult::new(status, "sent", Vec::new()),
            at: self.now.wall,
            by: "token:t_1".to_owned(),
            identity: Default::default(),
            ticket: Ticket(1),
        };
        self.input(MonitorInput::Submit(Box::new(sent)));
    }

    fn put(&mut self, spec: HandoverSpec) {
        self.input(MonitorInput::Handover(Box::new(spec)));
    }

    fn drain(&mut self) -> Option<Mono> {
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::Record(Record::Host(state)) => drop(self.hosts.insert(state.host, *state)),
                MonitorOutput::Record(Record::Service(host, state)) => {
                    self.services.insert((host, state.name.clone()), state);
                }
                MonitorOutput::HandedOver(handover) => {
                    assert_eq!(handover.rental, RENTAL);
                    self.handed_over.push((handover.host, handover.at));
                }
                MonitorOutput::FirstContact(contact) => {
                    assert_eq!(contact.rental, RENTAL);
                    self.arrived.push((contact.host, contact.at));
                }
                MonitorOutput::Record(_) | MonitorOutput::ProbeRequest(_) | MonitorOutput::ProbeUplink => {}
                MonitorOutput::Wait(at, _) => return at,
            }
        }
    }

    /// Passes the time as the shell does: the monitor is called when it wants it.
    fn advance(&mut self, by: Duration) {
        let begin = self.now;
        let end = begin.mono + by;
        // The wall clock has milliseconds: the sum of many steps would fall behind.
        let at = |mono: Mono| Now { mono, wall: begin.wall + mono.since(begin.mono) };
        while let Some(due) = self.drain().filter(|due| *due <= end) {
            self.now = at(due.max(self.now.mono));
            self.input(MonitorInput::Timeout);
        }
        self.now = at(end);
    }

    fn to(&mut self, second: i64) {
        self.advance(wall(second).since(self.now.wall));
    }

    fn set_clock(&mut self, by: i64) {
        self.now.wall = Wall::from_millis(self.now.wall.as_millis() + by * 1_000);
        self.input(MonitorInput::Timeout);
    }

    /// Continues from the states in the store. The caller puts its rentals again.
    fn restart(&mut self) {
        self.monitor = Monitor::new(Config::default(), 2);
        let snapshot = |n: i64| HostSnapshot {
            spec: device(n),
            state: self.hosts.get(&host(n)).cloned(),
            services: SERVICES
                .iter()
                .filter_map(|name| self.services.get(&(host(n), (*name).to_owned())).cloned())
                .collect(),
            acknowledged: Vec::new(),
        };
        let hosts = [1, 2].map(snapshot);
        self.monitor.restore(hosts, self.now);
        self.drain();
    }

    /// Whether a device is up and all its services are OK, by what the store has.
    fn is_good(&self, device: HostId) -> bool {
        let is_up = self.hosts.get(&device).is_some_and(|state| {
            state.status == HostStatus::Up && state.reachable && !state.stale && !state.asleep
        });
        let is_ok = |name: &&str| {
            let state = self.services.get(&(device, (*name).to_owned()));
            state.is_some_and(|state| state.status == Some(Status::Ok) && !state.stale)
        };
        is_up && SERVICES.iter().all(is_ok)
    }
}

#[test]
fn a_device_that_is_good_for_long_is_handed_over_when_the_rental_begins() {
    let mut world = World::good();
    world.put(rental());
    world.to(599);
    assert_eq!(world.handed_over, []);
    world.to(601);
    assert_eq!(world.handed_over, [(host(1), wall(600))]);
    world.send(1, Some("disk"), Status::Critical);
    world.all_good(1);
    world.to(1_300);
    assert_eq!(world.handed_over.len(), 1, "once");
}

#[test]
fn a_service_that_fails_delays_the_handover_until_it_was_ok_for_long_enough() {
    let mut world = World::good();
    world.put(rental());
    world.to(500);
    world.send(1, Some("disk"), Status::Warning);
    world.to(700);
    world.send(1, Some("disk"), Status::Ok);
    world.to(800);
    world.send(1, Some("job"), Status::Critical);
    world.send(1, Some("job"), Status::Ok);
    world.to(1_099);
    assert_eq!(world.handed_over, []);
    world.to(1_101);
    assert_eq!(world.handed_over, [(host(1), wall(1_100))]);
}

#[test]
fn a_service_without_a_result_is_not_ok_and_one_that_is_not_named_does_not_matter() {
    let mut world = World::new();
    world.send(1, None, Status::Ok);
    world.send(1, Some("disk"), Status::Ok);
    world.put(rental());
    world.to(1_100);
    assert_eq!(world.handed_over, [], "the job has no result");
    let rule = GateRule { services: Some(["disk".to_owned()].into()), ok_for: seconds(0) };
    world.put(HandoverSpec { rule: Some(rule), ..rental() });
    assert_eq!(world.handed_over, [(host(1), wall(1_100))]);
}

#[test]
fn without_a_rule_only_readiness_and_blocks_count() {
    let mut world = World::new();
    let open = HandoverSpec { rule: None, ..rental() };
    world.put(HandoverSpec { is_ready: false, blocks: vec![(wall(0), wall(900))], ..open.clone() });
    world.to(650);
    world.put(HandoverSpec { blocks: vec![(wall(0), wall(900))], ..open });
    world.to(899);
    assert_eq!(world.handed_over, []);
    world.to(901);
    assert_eq!(world.handed_over, [(host(1), wall(900))]);
}

#[test]
fn another_device_is_judged_by_its_own_states_and_the_end_of_the_rental_ends_the_wait() {
    let mut world = World::good();
    world.send(1, None, Status::Critical);
    world.put(rental());
    world.to(700);
    assert_eq!(world.handed_over, []);
    world.put(HandoverSpec { host: host(2), ..rental() });
    assert_eq!(world.handed_over, [(host(2), wall(700))], "it was good before");
    let mut late = World::good();
    late.send(1, Some("disk"), Status::Critical);
    late.put(rental());
    late.to(1_200);
    late.send(1, Some("disk"), Status::Ok);
    late.to(2_000);
    assert_eq!(late.handed_over, [], "the rental is over");
}

#[test]
fn a_rental_that_is_forgotten_or_was_handed_over_before_is_not_judged() {
    let mut world = World::good();
    world.put(rental());
    world.input(MonitorInput::ForgetHandover(RENTAL));
    world.to(700);
    world.put(HandoverSpec { handed_over_at: Some(wall(600)), ..rental() });
    world.to(1_300);
    assert_eq!(world.handed_over, []);
}

#[test]
fn after_a_restart_and_a_suspend_the_time_counts_anew() {
    let mut world = World::good();
    world.to(550);
    world.restart();
    world.put(rental());
    world.to(849);
    assert_eq!(world.handed_over, []);
    world.to(851);
    assert_eq!(world.handed_over, [(host(1), wall(850))]);
    let mut slept = World::good();
    slept.put(rental());
    slept.advance(seconds(1));
    slept.now = Now { mono: slept.now.mono + seconds(700), wall: slept.now.wall + seconds(700) };
    slept.input(MonitorInput::Timeout);
    assert_eq!(slept.handed_over, [], "it slept over the begin");
    slept.to(1_002);
    assert_eq!(slept.handed_over, [(host(1), wall(1_001))]);
}

#[test]
fn a_handover_by_a_clock_that_was_ahead_comes_again() {
    let mut world = World::good();
    world.to(400);
    world.put(rental());
    world.set_clock(500);
    assert_eq!(world.handed_over, [(host(1), wall(900))]);
    world.set_clock(-500);
    world.to(599);
    assert_eq!(world.handed_over.len(), 1);
    world.to(601);
    assert_eq!(world.handed_over[1..], [(host(1), wall(600))]);
}

#[test]
fn a_stored_handover_that_is_to_come_is_judged_again() {
    let mut world = World::good();
    world.send(1, Some("disk"), Status::Critical);
    let ahead = HandoverSpec { handed_over_at: Some(wall(900)), ..rental() };
    world.put(ahead.clone());
    world.to(700);
    world.all_good(1);
    world.to(950);
    assert_eq!(world.handed_over, [], "its time alone does not open the gate");
    world.to(1_001);
    assert_eq!(world.handed_over, [(host(1), wall(1_000))]);
    world.put(HandoverSpec { handed_over_at: Some(wall(1_100)), ..ahead });
    world.to(1_199);
    assert_eq!(world.handed_over.len(), 1, "the store does not have the second one yet");
}

#[test]
fn a_clock_that_is_set_back_hands_no_device_over_in_a_block() {
    let mut world = World::good();
    let blocked = HandoverSpec { blocks: vec![(wall(650), wall(900))], until: wall(5_000), ..rental() };
    world.put(HandoverSpec { is_ready: false, ..blocked.clone() });
    world.to(640);
    world.set_clock(-600);
    world.to(51);
    world.put(blocked.clone());
    assert_eq!(world.handed_over, [], "the rental has not begun by the clock that is shown");
    world.to(899);
    assert_eq!(
        world.handed_over,
        [],
        "the block has begun 10 s after the step, and lasts by the clock that is shown"
    );
    world.to(901);
    assert_eq!(world.handed_over, [(host(1), wall(900))]);
    let mut accepted = World::good();
    let at_once = HandoverSpec { rule: None, ..blocked };
    accepted.put(HandoverSpec { is_ready: false, ..at_once.clone() });
    accepted.to(640);
    accepted.set_clock(-30);
    accepted.to(625);
    accepted.put(at_once);
    assert_eq!(accepted.handed_over, []);
    accepted.input(MonitorInput::AcceptClock);
    assert_eq!(
        accepted.handed_over,
        [(host(1), wall(625))],
        "the block has not begun by the clock that is right"
    );
}

#[derive(Clone, Debug)]
enum Deed {
    Send(i64, Option<usize>, bool),
    AllGood(i64),
    Pass(u64),
    /// The step is more than an adjustment.
    SetClock(i64),
    Swap(i64),
    Extend(u64),
    Ready(bool),
    Block(Option<(i64, i64)>),
    End,
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    let device = 1i64..3;
    let service = prop::option::weighted(0.7, 0usize..2);
    let block = prop::option::weighted(0.4, (-100i64..200, 1i64..300));
    prop_oneof![
        6 => (device.clone(), service, any::<bool>()).prop_map(|(n, service, ok)| Deed::Send(n, service, ok)),
        6 => device.clone().prop_map(Deed::AllGood),
        8 => (1u64..200).prop_map(Deed::Pass),
        1 => prop_oneof![-900i64..-60, 60i64..900].prop_map(Deed::SetClock),
        1 => device.prop_map(Deed::Swap),
        1 => (1u64..600).prop_map(Deed::Extend),
        1 => any::<bool>().prop_map(Deed::Ready),
        1 => block.prop_map(Deed::Block),
        1 => Just(Deed::End),
        1 => Just(Deed::Restart),
    ]
}

/// The naive model: since when each device is good, and what of the rental is true.
struct Model {
    world: World,
    spec: Option<HandoverSpec>,
    /// Since when each device is good.
    good: BTreeMap<HostId, Mono>,
    /// Earlier time does not count.
    woke: Mono,
    ok_for: Duration,
    seen: usize,
    clocks: Clocks,
}

impl Model {
    fn new(ok_for: u64) -> Model {
        // It acts and looks between the seconds at which windows begin: the wall clock has milliseconds, and what is
        // due by it may come one late.
        let mut world = World::new();
        world.advance(Duration::from_millis(500));
        let rule = Some(GateRule { services: None, ok_for: seconds(ok_for) });
        let spec = Some(HandoverSpec { rule, ..rental() });
        let (good, woke) = (BTreeMap::new(), Mono::ZERO);
        let clocks = Clocks::started(Mono::from_secs(100_000));
        let mut model = Model { world, spec, good, woke, ok_for: seconds(ok_for), seen: 0, clocks };
        model.tell();
        model
    }

    fn tell(&mut self) {
        let block = self.spec.as_ref().and_then(|spec| spec.blocks.first().copied());
        self.clocks.plan(block, self.world.now);
        match &self.spec {
            Some(spec) => self.world.put(spec.clone()),
            None => self.world.input(MonitorInput::ForgetHandover(RENTAL)),
        }
    }

    fn now(&self) -> Now {
        self.world.now
    }

    fn run(&mut self, deed: Deed) {
        match deed {
            Deed::Send(n, service, is_ok) => {
                let status = if is_ok { Status::Ok } else { Status::Critical };
                self.world.send(n, service.map(|at| SERVICES[at]), status);
            }
            Deed::AllGood(n) => self.world.all_good(n),
            Deed::Pass(count) => {
                for _ in 0..count {
                    self.world.advance(seconds(1));
                    self.judge();
                }
            }
            Deed::SetClock(by) => {
                let expected = self.now().wall;
                self.world.set_clock(by);
                self.clocks.step(expected, self.now());
                self.woke = self.now().mono;
                let now = self.now().wall;
                if let Some(spec) = &mut self.spec {
                    spec.handed_over_at = spec.handed_over_at.filter(|at| *at <= now);
                }
            }
            Deed::Restart => {
                self.world.restart();
                self.woke = self.now().mono;
                self.clocks = Clocks::started(self.woke);
                self.good.values_mut().for_each(|since| *since = self.woke);
                self.tell();
            }
            Deed::End => {
                self.spec = None;
                self.tell();
            }
            // One that is in use already is swapped without a gate.
            Deed::Swap(n) => {
                let waits = |spec: &&mut HandoverSpec| spec.handed_over_at.is_none() && spec.host != host(n);
                if let Some(spec) = self.spec.as_mut().filter(waits) {
                    spec.host = host(n);
                    self.count_from_the_states(host(n));
                    self.tell();
                }
            }
            change => {
                let now = self.now().wall;
                let at = |offset: i64| Wall::from_millis(now.as_millis() + offset * 1_000 - 250);
                let Some(spec) = &mut self.spec else { return };
                match change {
                    Deed::Extend(by) => spec.until = spec.until + seconds(by),
                    Deed::Ready(is_ready) => spec.is_ready = is_ready,
                    Deed::Block(block) => {
                        let block = block.map(|(from, length)| (at(from), at(from + length)));
                        spec.blocks = block.into_iter().collect();
                    }
                    _ => {}
                }
                self.tell();
            }
        }
        self.judge();
    }

    /// The times of the states of a device that the rental gets count.
    fn count_from_the_states(&mut self, device: HostId) {
        let hosts = self.world.hosts.get(&device).map(|state| state.since);
        let services = self.world.services.iter().filter(|((of, _), _)| *of == device);
        let latest = hosts.into_iter().chain(services.map(|(_, state)| state.since)).max();
        let since = latest.map(|since| self.now().mono_at(since).max(self.woke));
        if let Some((good, since)) = self.good.get_mut(&device).zip(since) {
            *good = since;
        }
    }

    /// Compares what was handed over with what the gate of the model says.
    fn judge(&mut self) {
        let now = self.now();
        self.clocks.settle(now);
        for device in [1, 2].map(host) {
            if self.world.is_good(device) {
                self.good.entry(device).or_insert(now.mono);
            } else {
                self.good.remove(&device);
            }
        }
        let new: Vec<(HostId, Wall)> = self.world.handed_over[self.seen..].to_vec();
        self.seen += new.len();
        let Some(spec) = &mut self.spec else {
            assert_eq!(new, [], "there is no rental");
            return;
        };
        let is_open =
            spec.is_ready && !self.clocks.is_blocked(now) && (spec.from..spec.until).contains(&now.wall);
        let good_since = self.good.get(&spec.host).copied();
        let passes = is_open && good_since.is_some_and(|since| since + self.ok_for <= now.mono);
        let is_due = passes && spec.handed_over_at.is_none();
        let devices: Vec<HostId> = new.iter().map(|(device, _)| *device).collect();
        let expected: Vec<HostId> = is_due.then_some(spec.host).into_iter().collect();
        assert_eq!(devices, expected, "{spec:?} at {now:?} is good since {good_since:?}");
        if let [(_, at)] = new[..] {
            assert!(spec.from <= at && at <= now.wall && at < spec.until, "{at:?} of {spec:?}");
            spec.handed_over_at = Some(at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_device_is_handed_over_exactly_when_the_naive_model_says_so(
        ok_for in prop::sample::select(vec![0u64, 1, 60, 300]),
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let mut model = Model::new(ok_for);
        deeds.into_iter().for_each(|deed| model.run(deed));
    }
}
