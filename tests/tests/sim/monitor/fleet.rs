//! Days of a fleet in seconds of test time. After every event at the devices and the gateway, the
//! engine must reach the hard states and send the messages that the truth requires.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{Belief, Said};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Check, HostSpec, RoutePolicy, ServiceSpec, SshSpec, Threshold, Timing};
use fleetgate_engine::time::Mono;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sensors::Sensor;
use fleetgate_tests::dice::{Dice, seeds};
use fleetgate_tests::world::{Truth, World, device, public, service, with, with_login};

/// Time without a change after which every state is final. A `ping` that has just succeeded runs
/// again after 5 min, perhaps in the grace after a restart. After 5 more minutes it runs once more,
/// and is then retried.
const SETTLED: Duration = Duration::from_secs(20 * 60);
/// The silence that sleepers are allowed.
const MAX_SILENCE: Duration = Duration::from_secs(2 * 3600);
const DAY: Duration = Duration::from_secs(86_400);

fn services(dice: &mut Dice, spec: &HostSpec) -> Vec<ServiceSpec> {
    let mut all = Vec::new();
    if spec.own_tunnel {
        all.push(service("tunnel", Check::Tunnel));
        if spec.route != RoutePolicy::Direct {
            all.push(service("ping", Check::Ping { count: 3 }));
            all[1].timing.interval = Duration::from_secs(300);
        }
    }
    if spec.ssh.user.is_some() {
        all.push(service("ssh", Check::Ssh));
        let mut sensor = service("board", Check::Sensor(Sensor::Temperature { name: None }));
        let limits = Thresholds { warn: "50".parse().ok(), crit: "60".parse().ok() };
        sensor.timing.attempts = if dice.one_in(2) { 1 } else { 3 };
        sensor.thresholds = vec![Threshold { metric: "temperature".into(), limits }];
        all.push(sensor);
        all.push(service("plugin", Check::Command { line: "/usr/lib/check".into() }));
    }
    if dice.one_in(2) {
        all.push(service("web", Check::Tcp { port: 443 }));
    }
    all
}

fn host(dice: &mut Dice, raw: i64) -> HostSpec {
    let mut spec = match dice.roll(6) {
        0 => public(raw),
        1 => device(raw),
        2 => HostSpec { max_silence: Some(MAX_SILENCE), ..with_login(device(raw)) },
        3 => HostSpec { direct: Some("cam.example".into()), ..with_login(device(raw)) },
        4 => HostSpec {
            direct: Some("c.example".into()),
            route: RoutePolicy::Tunnel,
            ..with_login(device(raw))
        },
        _ => HostSpec {
            direct: Some("cam.example".into()),
            ssh: SshSpec { port: 22, user: Some("fleet".into()), pin: Some("SHA256:own".into()) },
            ..device(raw)
        },
    };
    if dice.one_in(4) {
        // With one attempt a single check could see half of the old truth and half of the new one.
        spec.timing = Timing { attempts: 2 + dice.roll(4) as u32, ..spec.timing };
    }
    with(spec.clone(), services(dice, &spec))
}

/// Returns a truth with one or more faults, or none.
fn truth(dice: &mut Dice) -> Truth {
    let mut truth = Truth::well();
    for _ in 0..dice.roll(3) {
        match dice.roll(10) {
            0 => truth.alive = false,
            1 | 2 => truth.link = false,
            3 => truth.hung = true,
            4 => truth.direct = false,
            5 => truth.sshd = false,
            6 => truth.login = false,
            7 => truth.host_key = "SHA256:other",
            8 => truth.temperature = [55.0, 70.0][dice.roll(2) as usize],
            _ => truth.plugin_exit = dice.roll(6) as u32,
        }
    }
    truth
}

/// One host's life: the truth, since when, and the expected state.
struct Life {
    belief: Belief,
    changed: Mono,
    next: Mono,
    /// Since when a sleeper is silent, as far as the gateway watched.
    silent_since: Option<Mono>,
}

impl Life {
    fn silence(&self, now: Mono) -> Option<Duration> {
        self.silent_since.map(|since| now.since(since))
    }

    /// Returns whether a sleeper's silence is close to the limit.
    fn is_undecided(&self, now: Mono) -> bool {
        let from = MAX_SILENCE - Duration::from_secs(120);
        self.silence(now).is_some_and(|s| s > from && s < MAX_SILENCE + SETTLED)
    }
}

struct Sim {
    world: World,
    dice: Dice,
    lives: BTreeMap<HostId, Life>,
    seen: usize,
    said: BTreeMap<HostId, Vec<Said>>,
    compared: u64,
    seed: u64,
}

impl Sim {
    fn new(seed: u64, hosts: i64) -> Sim {
        let mut sim = Sim {
            world: World::new(seed),
            dice: Dice(seed),
            lives: BTreeMap::new(),
            seen: 0,
            said: BTreeMap::new(),
            compared: 0,
            seed,
        };
        sim.world.keep_asked = false;
        for raw in 1..=hosts {
            let spec = host(&mut sim.dice, raw);
            let truth = truth(&mut sim.dice);
            let id = sim.world.add(spec, truth);
            let now = sim.world.now.mono;
            let next = now + SETTLED + sim.dice.secs(0, 3600);
            let life = Life { belief: Belief::default(), changed: now, next, silent_since: None };
            sim.lives.insert(id, life);
        }
        sim
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now.mono + time;
        let mut disturbance = self.world.now.mono + self.dice.secs(3_600, 20_000);
        while self.world.now.mono < end {
            let (id, next) =
                self.lives.iter().map(|(id, l)| (*id, l.next)).min_by_key(|l| l.1).expect("hosts");
            let now = self.world.now.mono;
            if let Some(life) = self.lives.get_mut(&id).filter(|l| l.is_undecided(next)) {
                life.next = next + SETTLED;
            } else if disturbance < next && self.lives.values().any(|l| l.is_undecided(disturbance)) {
                disturbance = disturbance.max(now) + Duration::from_secs(300);
            } else if disturbance < next {
                self.world.run_until(disturbance);
                self.disturb();
                disturbance = self.world.now.mono + self.dice.secs(3_600, 20_000);
            } else {
                self.world.run_until(next);
                self.compare(id);
                self.turn_page(id);
            }
        }
    }

    /// Restarts the gateway, or suspends its machine, and may set its clock. All hosts get time to
    /// settle again.
    fn disturb(&mut self) {
        let away = if self.dice.one_in(2) { self.dice.secs(0, 30) } else { self.dice.secs(30, 4000) };
        let before = self.world.now.mono;
        let set = if self.dice.one_in(2) { self.clock_step() } else { 0 };
        let restarts = self.dice.one_in(2);
        match (restarts, self.dice.one_in(3)) {
            _ if set != 0 && self.dice.one_in(3) => self.world.step_wall(set),
            (true, noticed) => {
                self.world.step_wall(set);
                self.world.run(if noticed { Duration::from_secs(20) } else { Duration::ZERO });
                self.world.restart(away);
            }
            (false, _) => {
                self.world.suspend(away);
                self.world.step_wall(set);
            }
        }
        let away = (self.world.now.mono.since(before)).max(Duration::from_secs(set.unsigned_abs()));
        let settled = self.world.now.mono + SETTLED;
        for life in self.lives.values_mut() {
            // A due change must not happen while the gateway is away, nor go unseen for a moment.
            life.next = life.next.max(settled) + self.dice.secs(0, 600);
            // A silence that the gateway did not watch does not count, unless it was over the limit
            // before.
            let asleep = life.silence(before).is_some_and(|s| s < MAX_SILENCE);
            if away > Duration::from_secs(60) && asleep {
                life.silent_since = Some(self.world.now.mono);
            }
        }
    }

    /// Returns a clock step of seconds or hours, ahead or back.
    fn clock_step(&mut self) -> i64 {
        let most = [10, 300, 20_000][self.dice.roll(3) as usize];
        let far = self.dice.roll(most).cast_signed();
        if self.dice.one_in(2) { far } else { -far }
    }

    fn compare(&mut self, id: HostId) {
        self.sort_messages();
        let (device, life) = (&self.world.devices[&id], self.lives.get_mut(&id).expect("a life"));
        let asleep = life.silence(self.world.now.mono).is_some_and(|s| s < MAX_SILENCE);
        let expected = life.belief.settle(&device.spec, &device.truth, device.came, asleep);
        let said = self.said.remove(&id).unwrap_or_default();
        let context = format!(
            "seed {}, host {:?} at {:?}, {:?} since {:?}, route {:?}, asleep {asleep}",
            self.seed, device.spec.name, self.world.now.mono, device.truth, life.changed, device.spec.route
        );
        assert_eq!(said, expected, "messages: {context}");
        let state = self.world.host(id);
        assert_eq!(state.map(|s| s.hard).unwrap_or_default(), life.belief.host, "host: {context}\n{state:?}");
        for (name, known) in &life.belief.services {
            let state = self.world.service(id, name);
            assert_eq!(state.and_then(|s| s.hard), known.status, "{name}: {context}\n{state:#?}");
            assert_eq!(state.is_some_and(|s| s.stale), known.stale, "{name} stale: {context}\n{state:#?}");
        }
        self.compared += 1;
    }

    fn sort_messages(&mut self) {
        for m in &self.world.kept.messages[self.seen..] {
            let said = (m.service.clone().unwrap_or_default(), m.problem, m.from, m.to);
            self.said.entry(m.host).or_default().push(said);
        }
        self.seen = self.world.kept.messages.len();
        self.said.values_mut().for_each(|said| said.sort());
    }

    fn turn_page(&mut self, id: HostId) {
        let now = self.world.now.mono;
        // Sleepers are silent or ok, because they test the allowed silence.
        let sleeper = self.world.device(id).spec.max_silence.is_some();
        let mut truth = truth(&mut self.dice);
        let mut lasts = SETTLED + self.dice.secs(0, 3600);
        if sleeper {
            truth = if self.dice.one_in(2) { Truth::off() } else { Truth::well() };
            let short = self.dice.one_in(2);
            lasts = if short { self.dice.secs(1200, 5000) } else { MAX_SILENCE * 3 };
        } else if self.dice.one_in(4) {
            self.blip(id);
            return self.postpone(id, lasts);
        }
        let there = super::model::is_there(&self.world.device(id).spec, &truth);
        let life = self.lives.get_mut(&id).expect("a life");
        life.silent_since = match (sleeper, there) {
            (true, false) => life.silent_since.or(Some(now)),
            _ => None,
        };
        life.changed = now;
        self.world.set(id, truth);
        self.postpone(id, lasts);
    }

    /// The device is gone for a moment, too short for a hard state.
    fn blip(&mut self, id: HostId) {
        let before = self.world.device(id).truth.clone();
        let blip = self.dice.secs(0, 5);
        self.world.set(id, Truth::off());
        self.world.run(blip);
        self.world.set(id, before);
    }

    fn postpone(&mut self, id: HostId, lasts: Duration) {
        let now = self.world.now.mono;
        self.lives.get_mut(&id).expect("a life").next = now + lasts;
    }
}

#[test]
fn engine_and_model_agree_on_every_hard_state_and_every_message() {
    for seed in seeds() {
        let mut sim = Sim::new(seed, 40);
        sim.run(DAY);
        let (messages, questions) = (sim.world.kept.messages.len(), sim.world.questions);
        println!("seed {seed}: {} comparisons, {messages} messages, {questions} questions", sim.compared);
        assert!(sim.compared > 400 && messages > 200, "something must have happened");
    }
}
