//! A small world: a host, some of its site, some elsewhere, and what can happen to them. Says what
//! each path shows, second by second; knows nothing of how a verdict is found.

use super::super::*;
use super::{at, host, unproved};
use crate::time::{Mono, Now};
use crate::tunnel::sign::Sign;
use crate::tunnel::stamp::from_unix_ms;
use crate::wire::DirectAnswer;

/// A device sends a keepalive so often, and a handshake.
const KEEPALIVE_S: i64 = 25;
const HANDSHAKE_S: i64 = 120;
/// A device that is not let in tries again.
const TRY_S: i64 = 5;
const CHECK_S: i64 = 60;
const RETRY_S: i64 = 10;
const ATTEMPTS: u32 = 3;
/// Who is down is dialled so often.
const QUIET_DIAL_S: i64 = 300;
const STEP_S: i64 = 5;
/// How long all was well before.
const BEFORE_S: i64 = 600;
/// A second device with the key was there before the other fault: two that begin in the same second
/// would never have been seen both.
const CLONED_S: i64 = -300;
/// Somebody sends a captured handshake again, so often, and captured it then.
const REPLAY_S: i64 = 180;
const CAPTURED_S: i64 = -3_600;
/// The sentinel has looked in vain, and nothing counts; its witnesses were given this time.
const DOUBT_S: i64 = 10;
const CUT_OFF_S: i64 = 40;
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
    ServiceStopped,
    SshHung,
    Cloned,
    GatewayCut,
    NeighbourOff,
    Replayed,
}

impl Fault {
    pub const ALL: [Fault; 13] = [
        Fault::TunnelBlocked,
        Fault::WrongPresharedKey,
        Fault::ClockBack,
        Fault::ClockAhead,
        Fault::SiteCut,
        Fault::DeviceOff,
        Fault::ServiceHung,
        Fault::ServiceStopped,
        Fault::SshHung,
        Fault::Cloned,
        Fault::GatewayCut,
        Fault::NeighbourOff,
        Fault::Replayed,
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
            Fault::ServiceStopped => &[Kind::ServiceProblem],
            Fault::Cloned => &[Kind::ClonedKey],
            Fault::GatewayCut => &[Kind::GatewayUplinkLost],
            Fault::NeighbourOff | Fault::Replayed => &[],
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
    /// The gateway looks at its own way out.
    pub sentinel: bool,
}

impl World {
    pub const FULL: World = World { direct: true, neighbours: 2, elsewhere: 2, sentinel: true };

    pub fn all() -> impl Iterator<Item = World> {
        let sizes = || 0..=2usize;
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let worlds = flags.into_iter().flat_map(move |(direct, sentinel)| {
            sizes().flat_map(move |neighbours| {
                sizes().map(move |elsewhere| World { direct, neighbours, elsewhere, sentinel })
            })
        });
        worlds.chain([World { direct: false, neighbours: 3, elsewhere: 3, sentinel: false }])
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
    stale: bool,
    last_check: i64,
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
            stale: false,
            last_check: -BEFORE_S,
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

    /// The host check: a packet in the interval, else the other path. `doubt`: silence may be the
    /// gateway's own, and does not count.
    fn check(&mut self, now: i64, direct: DirectAnswer, doubt: bool) {
        let heard = now - self.packet < CHECK_S;
        self.direct = if heard { DirectAnswer::NotAsked } else { direct };
        let up = heard || direct == DirectAnswer::Answered;
        self.stale = !up && doubt && (self.up || self.failures < ATTEMPTS);
        if self.stale {
            self.next_check = now + CHECK_S;
            return;
        }
        self.last_check = now;
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
    refused: Sign,
    unproved: Sign,
    dialled: i64,
    skew_ms: Option<i64>,
    turns: Turns,
    /// How often the port and the login were asked in vain.
    port_failures: u32,
    port_refusals: u32,
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
            refused: Sign::default(),
            unproved: Sign::default(),
            dialled: -BEFORE_S,
            skew_ms: None,
            turns: Turns::default(),
            port_failures: 0,
            port_refusals: 0,
            login_failures: 0,
        }
    }

    fn has(&self, fault: Fault, now: i64) -> bool {
        let from = if fault == Fault::Cloned { CLONED_S } else { 0 };
        now >= from && self.faults.contains(&fault)
    }

    fn step(&mut self, now: i64) {
        let (gateway, site) = (!self.has(Fault::GatewayCut, now), !self.has(Fault::SiteCut, now));
        let doubt = self.cut_off_for(now, DOUBT_S);
        self.host_sends(now, gateway, site);
        let neighbour_off = self.has(Fault::NeighbourOff, now);
        for (i, machine) in self.neighbours.iter_mut().enumerate() {
            let off = i == 0 && neighbour_off;
            run_other(machine, now, gateway && site && !off, doubt);
        }
        for machine in &mut self.elsewhere {
            run_other(machine, now, gateway, doubt);
        }
        if self.host.next_check <= now {
            let direct = self.direct(now, gateway && site);
            self.dial(now, gateway && site);
            self.host.check(now, direct, doubt);
            self.ask_services(now);
        }
    }

    /// The gateway is cut off for so long, and sees that by itself.
    fn cut_off_for(&self, now: i64, seconds: i64) -> bool {
        self.world.sentinel && now >= seconds && self.has(Fault::GatewayCut, now)
    }

    /// Through its tunnel, as far as it comes; the second device with its key; and who replays.
    fn host_sends(&mut self, now: i64, gateway: bool, site: bool) {
        if self.arrives(now, gateway && site) {
            self.host_initiates_or_sends(now);
        }
        if gateway && self.has(Fault::Cloned, now) && (now + 15) % KEEPALIVE_S == 0 {
            self.host.packet = now;
            self.turns.note(([198, 51, 100, 9], 9).into(), at(now));
        }
        if gateway && self.has(Fault::Replayed, now) && now % REPLAY_S == 0 {
            self.refuse_stamp(CAPTURED_S, now);
        }
    }

    fn host_initiates_or_sends(&mut self, now: i64) {
        let tries = now % TRY_S == 0;
        match () {
            () if self.has(Fault::ClockBack, now) && tries => self.refuse_stamp(now - 86_400, now),
            () if self.has(Fault::WrongPresharedKey, now) && tries => note(&mut self.unproved, now, now),
            () if self.has(Fault::ClockBack, now) || self.has(Fault::WrongPresharedKey, now) => {}
            () if self.host.send(now) => {
                self.turns.note(([192, 0, 2, 7], 7).into(), at(now));
                if self.has(Fault::ClockAhead, now) && self.host.handshake >= 0 {
                    self.skew_ms = Some(7_200_000);
                }
            }
            () => {}
        }
    }

    fn arrives(&self, now: i64, open: bool) -> bool {
        open && !self.has(Fault::DeviceOff, now) && !self.has(Fault::TunnelBlocked, now)
    }

    /// What the gateway's own initiation comes to, where there is no session.
    fn dial(&mut self, now: i64, open: bool) {
        let silent = now - self.host.packet >= CHECK_S;
        let down = !self.host.up && self.host.failures >= ATTEMPTS;
        if !silent || down && now - self.dialled < QUIET_DIAL_S {
            return;
        }
        self.dialled = now;
        if self.arrives(now, open) && self.has(Fault::WrongPresharedKey, now) {
            self.refusal = Some((at(now), Refusal::Crypto));
        }
    }

    fn refuse_stamp(&mut self, made: i64, now: i64) {
        note(&mut self.refused, made, now);
        let behind = Duration::from_secs((now - made).unsigned_abs());
        self.refusal = Some((at(now), Refusal::ClockWentBack { behind }));
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
        self.port_refusals += u32::from(through && self.has(Fault::ServiceStopped, now));
        self.login_failures += u32::from(self.host.up && self.has(Fault::SshHung, now));
    }

    fn evidence(&self, now: i64) -> Evidence {
        let (status, since) = match self.host.up {
            true => (HostStatus::Up, at(self.host.since)),
            false => (HostStatus::Down, at(self.host.since)),
        };
        let last_check = Some(at(self.host.last_check));
        let (direct, stale) = (self.host.direct, self.host.stale);
        let state = HostState { direct, stale, last_check, ..host(status, since) };
        let is_silent = !self.host.up || stale;
        let cut_off = Some(at(CUT_OFF_S)).filter(|_| is_silent && self.cut_off_for(now, CUT_OFF_S));
        let silent = Evidence::since(&state, cut_off, at(now)).as_millis() / 1_000;
        let others = |machines: &[Machine]| others(machines, silent);
        let clocks = Clocks { right: (self.neighbours.len() + self.elsewhere.len()) as u32, wrong: 0 };
        Evidence {
            now: at(now),
            host: state,
            cut_off,
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
            attempts: Attempts {
                refused: self.refused.seen(),
                unproved: unproved(self.unproved.seen()),
                replaced: None,
            },
            clock_skew_ms: self.skew_ms,
            in_turn: self.turns.in_turn(at(now)).iter().map(ToString::to_string).collect(),
        }
    }

    fn services(&self) -> Vec<ServiceFacts> {
        let through = self.host.up && self.host.direct == DirectAnswer::NotAsked;
        let service = |name: &str, failures: u32, refusals: u32, current| ServiceFacts {
            name: name.into(),
            asked: Asked::Presence,
            status: Some(if failures.max(refusals) >= ATTEMPTS { Status::Critical } else { Status::Ok }),
            current,
            answered: failures == 0,
            said: "no answer".into(),
        };
        vec![
            service("rtsp", self.port_failures, self.port_refusals, through),
            service("ssh", self.login_failures, 0, self.host.up),
        ]
    }
}

fn note(sign: &mut Sign, made: i64, now: i64) {
    let mono = Mono::from_secs((now + BEFORE_S).unsigned_abs());
    sign.note(from_unix_ms(made * 1_000), Now { mono, wall: at(now) });
}

fn run_other(machine: &mut Machine, now: i64, heard: bool, doubt: bool) {
    if heard {
        machine.send(now);
    }
    if machine.next_check <= now {
        machine.check(now, DirectAnswer::NotAsked, doubt);
    }
}

fn others(machines: &[Machine], silent_since: i64) -> Others {
    let mut others = Others::default();
    for machine in machines {
        let since = if machine.up { machine.last_check } else { machine.since };
        let together = (since - silent_since).abs() <= SAME_TIME_S && (!machine.up || machine.stale);
        others.heard += u32::from(machine.packet > silent_since);
        others.silent += u32::from(machine.packet <= silent_since && together);
    }
    others
}
