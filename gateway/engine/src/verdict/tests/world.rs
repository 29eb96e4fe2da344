//! A small world: a host, some of its site, some elsewhere, and what can happen to them. Says what
//! each path shows, second by second; knows nothing of how a verdict is found.

use super::super::*;
use super::{at, host};
use crate::wire::DirectAnswer;

/// A device sends a keepalive so often, and a handshake.
const KEEPALIVE_S: i64 = 25;
const HANDSHAKE_S: i64 = 120;
/// A device that is not let in tries again.
const TRY_S: i64 = 5;
const CHECK_S: i64 = 60;
const RETRY_S: i64 = 10;
const ATTEMPTS: u32 = 3;
const STEP_S: i64 = 5;
/// How long all was well before.
const BEFORE_S: i64 = 600;
/// A second device with the key was there before the other fault: two that begin in the same second
/// would never have been seen both.
const CLONED_S: i64 = -300;
/// Failures this near to each other are one.
const SAME_TIME_S: i64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TunnelBlocked,
    WrongPresharedKey,
    ClockBack,
    ClockAhead,
    SiteCut,
    DeviceOff,
    ServiceHung,
    SshHung,
    Cloned,
    GatewayCut,
    NeighbourOff,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::TunnelBlocked,
        Fault::WrongPresharedKey,
        Fault::ClockBack,
        Fault::ClockAhead,
        Fault::SiteCut,
        Fault::DeviceOff,
        Fault::ServiceHung,
        Fault::SshHung,
        Fault::Cloned,
        Fault::GatewayCut,
        Fault::NeighbourOff,
    ];

    /// What it may be called; the first is its name. Who is refused has no tunnel, which is true too.
    pub fn called(self) -> &'static [Kind] {
        match self {
            Fault::TunnelBlocked => &[Kind::TunnelDown],
            Fault::WrongPresharedKey => &[Kind::KeyRefused, Kind::TunnelDown],
            Fault::ClockBack => &[Kind::ClockWrong, Kind::TunnelDown],
            Fault::ClockAhead => &[Kind::ClockWrong],
            Fault::SiteCut => &[Kind::SiteUplinkLost],
            Fault::DeviceOff => &[Kind::DeviceGone],
            Fault::ServiceHung | Fault::SshHung => &[Kind::ServiceHung],
            Fault::Cloned => &[Kind::ClonedKey],
            Fault::GatewayCut => &[Kind::GatewayUplinkLost],
            Fault::NeighbourOff => &[],
        }
    }
}

/// Which paths there are.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The host has an address on the Internet.
    pub direct: bool,
    /// Others of its site.
    pub neighbours: usize,
    /// Other places.
    pub elsewhere: usize,
}

impl World {
    pub const FULL: World = World { direct: true, neighbours: 2, elsewhere: 2 };

    pub fn all() -> impl Iterator<Item = World> {
        let sizes = || 0..=2usize;
        let worlds = [false, true].into_iter().flat_map(move |direct| {
            sizes().flat_map(move |neighbours| {
                sizes().map(move |elsewhere| World { direct, neighbours, elsewhere })
            })
        });
        worlds.chain([World { direct: false, neighbours: 3, elsewhere: 3 }])
    }

    /// What the gateway knows of the host every few seconds after the faults began.
    pub fn watch(self, faults: &[Fault], until_s: i64) -> Vec<(i64, Evidence)> {
        let mut run = Run::new(self, faults);
        let mut seen = Vec::new();
        for step in -BEFORE_S / STEP_S..=until_s / STEP_S {
            let now = step * STEP_S;
            run.step(now);
            if now >= 0 {
                seen.push((now, run.evidence(now)));
            }
        }
        seen
    }
}

/// A device, and what the gateway has of it.
struct Machine {
    phase: i64,
    packet: i64,
    handshake: i64,
    next_check: i64,
    up: bool,
    since: i64,
    failures: u32,
    direct: DirectAnswer,
}

impl Machine {
    fn new(phase: i64) -> Machine {
        Machine {
            phase,
            packet: -BEFORE_S,
            handshake: -BEFORE_S,
            next_check: -BEFORE_S + phase,
            up: true,
            since: -BEFORE_S,
            failures: 0,
            direct: DirectAnswer::NotAsked,
        }
    }

    fn send(&mut self, now: i64) -> bool {
        let due = |every| (now + self.phase).rem_euclid(every) < STEP_S;
        if due(HANDSHAKE_S) {
            self.handshake = now;
        }
        let due = due(KEEPALIVE_S);
        if due {
            self.packet = now;
        }
        due
    }

    /// The host check: a packet in the interval, else the other path.
    fn check(&mut self, now: i64, direct: DirectAnswer) {
        let heard = now - self.packet < CHECK_S;
        self.direct = if heard { DirectAnswer::NotAsked } else { direct };
        let up = heard || direct == DirectAnswer::Answered;
        if up != self.up {
            (self.up, self.since, self.failures) = (up, now, 0);
        }
        self.failures += u32::from(!up);
        let soft = !up && self.failures < ATTEMPTS;
        self.next_check = now + if soft { RETRY_S } else { CHECK_S };
    }
}

struct Run {
    world: World,
    faults: Vec<Fault>,
    host: Machine,
    neighbours: Vec<Machine>,
    elsewhere: Vec<Machine>,
    refusal: Option<(Wall, Refusal)>,
    skew_ms: Option<i64>,
    turns: Turns,
    /// How often the port and the login were asked in vain.
    port_failures: u32,
    login_failures: u32,
}

impl Run {
    fn new(world: World, faults: &[Fault]) -> Run {
        let machines = |count: usize, first: i64| {
            (0i64..).take(count).map(|i| Machine::new((first + 35 * i) % CHECK_S)).collect()
        };
        Run {
            world,
            faults: faults.to_vec(),
            host: Machine::new(10),
            neighbours: machines(world.neighbours, 25),
            elsewhere: machines(world.elsewhere, 50),
            refusal: None,
            skew_ms: None,
            turns: Turns::default(),
            port_failures: 0,
            login_failures: 0,
        }
    }

    fn has(&self, fault: Fault, now: i64) -> bool {
        let from = if fault == Fault::Cloned { CLONED_S } else { 0 };
        now >= from && self.faults.contains(&fault)
    }

    fn step(&mut self, now: i64) {
        let (gateway, site) = (!self.has(Fault::GatewayCut, now), !self.has(Fault::SiteCut, now));
        self.host_sends(now, gateway, site);
        let neighbour_off = self.has(Fault::NeighbourOff, now);
        for (i, machine) in self.neighbours.iter_mut().enumerate() {
            let off = i == 0 && neighbour_off;
            run_other(machine, now, gateway && site && !off);
        }
        for machine in &mut self.elsewhere {
            run_other(machine, now, gateway);
        }
        if self.host.next_check <= now {
            let direct = self.direct(now, gateway && site);
            self.host.check(now, direct);
            self.ask_services(now);
        }
    }

    /// Through its tunnel, as far as it comes; and the second device with its key.
    fn host_sends(&mut self, now: i64, gateway: bool, site: bool) {
        let alive = !self.has(Fault::DeviceOff, now);
        let arrives = gateway && site && alive && !self.has(Fault::TunnelBlocked, now);
        let refusal = self.refusal_at(now);
        if arrives && refusal.is_none() && self.host.send(now) {
            self.turns.note(([192, 0, 2, 7], 7).into(), at(now));
            if self.has(Fault::ClockAhead, now) && self.host.handshake >= 0 {
                self.skew_ms = Some(7_200_000);
            }
        }
        if let Some(refusal) = refusal.filter(|_| arrives && now % TRY_S == 0) {
            self.refusal = Some((at(now), refusal));
        }
        if gateway && self.has(Fault::Cloned, now) && (now + 15) % KEEPALIVE_S == 0 {
            self.host.packet = now;
            self.turns.note(([198, 51, 100, 9], 9).into(), at(now));
        }
    }

    fn refusal_at(&self, now: i64) -> Option<Refusal> {
        if self.has(Fault::ClockBack, now) {
            return Some(Refusal::ClockWentBack { behind: Duration::from_secs(86_400) });
        }
        self.has(Fault::WrongPresharedKey, now).then_some(Refusal::Crypto)
    }

    fn direct(&self, now: i64, open: bool) -> DirectAnswer {
        match self.world.direct {
            false => DirectAnswer::NotAsked,
            true if !open || self.has(Fault::DeviceOff, now) => DirectAnswer::Silent,
            true if self.has(Fault::SshHung, now) => DirectAnswer::Doubtful,
            true => DirectAnswer::Answered,
        }
    }

    /// The port is asked through the tunnel only, the login on either path.
    fn ask_services(&mut self, now: i64) {
        let through = self.host.up && self.host.direct == DirectAnswer::NotAsked;
        self.port_failures += u32::from(through && self.has(Fault::ServiceHung, now));
        self.login_failures += u32::from(self.host.up && self.has(Fault::SshHung, now));
    }

    fn evidence(&self, now: i64) -> Evidence {
        let (status, since) = match self.host.up {
            true => (HostStatus::Up, at(self.host.since)),
            false => (HostStatus::Down, at(self.host.since)),
        };
        let state = HostState { direct: self.host.direct, ..host(status, since) };
        let silent = self.host.since;
        let others = |machines: &[Machine]| others(machines, silent);
        let clocks = Clocks { right: (self.neighbours.len() + self.elsewhere.len()) as u32, wrong: 0 };
        Evidence {
            now: at(now),
            host: state,
            cut_off: None,
            tunnel: Some(self.tunnel(now)),
            second_path: self.world.direct,
            behind: None,
            services: self.services(),
            site: Some(SiteFacts { name: "north".into(), others: others(&self.neighbours) }),
            elsewhere: others(&self.elsewhere),
            clocks,
        }
    }

    fn tunnel(&self, now: i64) -> TunnelFacts {
        TunnelFacts {
            last_packet: Some(at(self.host.packet)),
            last_handshake: Some(at(self.host.handshake)),
            refusal: self.refusal,
            clock_skew_ms: self.skew_ms,
            in_turn: self.turns.in_turn(at(now)).iter().map(ToString::to_string).collect(),
        }
    }

    fn services(&self) -> Vec<ServiceFacts> {
        let through = self.host.up && self.host.direct == DirectAnswer::NotAsked;
        let service = |name: &str, failures: u32, current| ServiceFacts {
            name: name.into(),
            asked: Asked::Presence,
            status: Some(if failures >= ATTEMPTS { Status::Critical } else { Status::Ok }),
            current,
            answered: failures == 0,
            said: "no answer".into(),
        };
        vec![service("rtsp", self.port_failures, through), service("ssh", self.login_failures, self.host.up)]
    }
}

fn run_other(machine: &mut Machine, now: i64, heard: bool) {
    if heard {
        machine.send(now);
    }
    if machine.next_check <= now {
        machine.check(now, DirectAnswer::NotAsked);
    }
}

fn others(machines: &[Machine], silent_since: i64) -> Others {
    let mut others = Others::default();
    for machine in machines {
        let together = (machine.since - silent_since).abs() <= SAME_TIME_S;
        others.heard += u32::from(machine.packet > silent_since);
        others.silent += u32::from(!machine.up && machine.packet <= silent_since && together);
    }
    others
}
