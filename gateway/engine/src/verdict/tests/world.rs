//! A small world: a device, a host behind it, other hosts of its site and elsewhere, and their
//! faults.
//!
//! The world computes what each path shows, second by second. It does not know how a verdict is
//! found.

use super::super::*;
use super::{at, host, unproved};
use crate::messages::{DirectReply, ReplacedKeyUse, StateType};
use crate::time::{Mono, Now};
use crate::tunnel::handshake::failures::Sign;
use crate::tunnel::handshake::tai64n::from_unix_ms;

/// Interval of a device's keepalives, and of its handshakes.
const KEEPALIVE_S: i64 = 25;
const HANDSHAKE_S: i64 = 120;
/// Age at which a session ends.
const SESSION_S: i64 = 180;
/// Interval between the attempts of a device that is refused.
const TRY_S: i64 = 5;
const CHECK_S: i64 = 60;
const RETRY_S: i64 = 10;
const ATTEMPTS: u32 = 3;
/// Interval between dials of a device that is down.
const QUIET_DIAL_S: i64 = 300;
const STEP_S: i64 = 5;
/// Time without a fault before the observation.
const BEFORE_S: i64 = 600;
/// A second device with the key was there before the other fault. If both began in the same second,
/// the gateway would never have seen both.
const CLONED_S: i64 = -300;
/// A time before anything that is remembered.
const NEVER_S: i64 = -100_000;
/// Interval at which a stranger replays a captured handshake, and the time at which it was
/// captured.
const REPLAY_S: i64 = 180;
const CAPTURED_S: i64 = -3_600;
/// The uplink is suspect, so failures do not count; then it is down, after the time given to its
/// witnesses.
const DOUBT_S: i64 = 10;
const CUT_OFF_S: i64 = 40;
/// Packets that were in flight when the fault began, by the rule of the store.
const ON_ITS_WAY_S: i64 = 5;
/// Delay between unrelated devices that are switched off one after the other.
const ONE_BY_ONE_S: i64 = 40;

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
    /// Packets of the gateway do not arrive at the device.
    LossIn,
    /// Packets of the device do not leave its line.
    LossOut,
    /// Large packets are lost on the way to the device.
    LargeLost,
    /// Devices at other places are switched off, one after the other.
    OthersOff,
    /// The same at one moment, by coincidence.
    OthersOffTogether,
    /// The host behind the device is off.
    BehindOff,
    /// The network behind the device.
    LocalNetworkCut,
    /// The device uses one of its two inner addresses, but not the one that is probed first.
    OtherAddress,
    /// The device got new credentials, but still uses the old ones.
    ReplacedKey,
}

impl Fault {
    pub const ALL: [Fault; 22] = [
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
        Fault::LossIn,
        Fault::LossOut,
        Fault::LargeLost,
        Fault::OthersOff,
        Fault::OthersOffTogether,
        Fault::BehindOff,
        Fault::LocalNetworkCut,
        Fault::OtherAddress,
        Fault::ReplacedKey,
    ];

    /// Returns the kinds that a verdict may claim for this fault; the first is its name. A device
    /// that is refused has no tunnel either, so that claim is true as well.
    pub fn called(self) -> &'static [VerdictKind] {
        match self {
            Fault::TunnelBlocked => &[VerdictKind::TunnelDown],
            Fault::WrongPresharedKey | Fault::ReplacedKey => {
                &[VerdictKind::KeyRefused, VerdictKind::TunnelDown]
            }
            Fault::ClockBack => &[VerdictKind::ClockWrong, VerdictKind::TunnelDown],
            Fault::ClockAhead => &[VerdictKind::ClockWrong],
            Fault::SiteCut => &[VerdictKind::SiteUplinkLost],
            Fault::DeviceOff => &[VerdictKind::DeviceGone],
            Fault::ServiceHung | Fault::SshHung => &[VerdictKind::ServiceHung],
            Fault::ServiceStopped => &[VerdictKind::ServiceProblem],
            Fault::Cloned => &[VerdictKind::ClonedKey],
            Fault::GatewayCut => &[VerdictKind::GatewayUplinkLost],
            Fault::LossIn => &[VerdictKind::OneWayLoss, VerdictKind::LineLost],
            Fault::LossOut => &[VerdictKind::LineLost, VerdictKind::OneWayLoss],
            Fault::LargeLost => &[VerdictKind::PathMtu],
            Fault::NeighbourOff | Fault::Replayed | Fault::OthersOff | Fault::OthersOffTogether => &[],
            Fault::BehindOff | Fault::LocalNetworkCut | Fault::OtherAddress => &[],
        }
    }

    /// Returns when the fault begins, given the time from which it is visible.
    pub fn begins(self, seen: i64) -> i64 {
        if self == Fault::Cloned { seen + CLONED_S } else { seen }
    }

    /// Returns the kinds that a verdict may claim for the host behind the device.
    pub fn called_behind(self) -> &'static [VerdictKind] {
        match self {
            Fault::TunnelBlocked
            | Fault::WrongPresharedKey
            | Fault::ReplacedKey
            | Fault::ClockBack
            | Fault::SiteCut
            | Fault::DeviceOff
            | Fault::LossIn
            | Fault::LossOut => &[VerdictKind::ParentDown],
            Fault::GatewayCut => &[VerdictKind::GatewayUplinkLost],
            Fault::BehindOff => &[VerdictKind::DeviceGone, VerdictKind::LineLost],
            Fault::LocalNetworkCut => &[VerdictKind::LocalNetworkLost],
            _ => &[],
        }
    }
}

/// The available paths.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The host has an Internet address.
    pub direct: bool,
    /// Number of other hosts of its site.
    pub neighbours: usize,
    /// Number of other places.
    pub elsewhere: usize,
    /// The gateway checks its own uplink.
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

    /// Returns the gateway's evidence about the device every few seconds after the faults began.
    pub fn watch(self, faults: &[Fault], until_s: i64) -> Vec<(i64, Evidence)> {
        let begun: Vec<(Fault, i64)> = faults.iter().map(|fault| (*fault, 0)).collect();
        self.watch_from(&begun, until_s).into_iter().map(|(now, own, _)| (now, own)).collect()
    }

    /// The same for faults that begin at different times, and for the host behind the device as
    /// well.
    pub fn watch_from(self, faults: &[(Fault, i64)], until_s: i64) -> Vec<(i64, Evidence, Evidence)> {
        let mut run = Run::new(self, faults);
        let mut seen = Vec::new();
        for step in -BEFORE_S / STEP_S..=until_s / STEP_S {
            let now = step * STEP_S;
            run.step(now);
            if now >= 0 {
                seen.push((now, run.evidence(now), run.evidence_behind(now)));
            }
        }
        seen
    }
}

/// A device, and the gateway's record of it.
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
    direct: DirectReply,
    /// The first of the checks without a reply since, and the last proof of life.
    silent_since: Option<i64>,
    last_alive: i64,
    /// When the device last replied to something that was sent to it.
    answered: i64,
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
            direct: DirectReply::NotAsked,
            silent_since: None,
            last_alive: -BEFORE_S,
            answered: -BEFORE_S,
        }
    }

    fn shakes_hands(&self, now: i64) -> bool {
        (now + self.phase).rem_euclid(HANDSHAKE_S) < STEP_S || now - self.handshake >= SESSION_S
    }

    fn send(&mut self, now: i64) -> bool {
        let due = |every: i64| (now + self.phase).rem_euclid(every) < STEP_S;
        let due = due(KEEPALIVE_S) && now - self.handshake < SESSION_S;
        if due {
            self.packet = now;
        }
        due
    }

    fn is_hard(&self) -> bool {
        self.up || self.failures >= ATTEMPTS
    }

    fn state(&self) -> HostState {
        let status = if self.up { HostStatus::Up } else { HostStatus::Down };
        let kind = if self.is_hard() { StateType::Hard } else { StateType::Soft };
        HostState {
            direct: self.direct,
            stale: self.stale,
            kind,
            last_check: Some(at(self.last_check)),
            asked_at: Some(at(self.last_check)),
            silent_since: self.silent_since.map(at),
            last_alive: Some(at(self.last_alive)),
            ..host(status, at(self.since))
        }
    }

    /// Runs the host check: a packet in the interval, else the direct path. `doubt`: the silence
    /// may be the gateway's own and does not count.
    fn check(&mut self, now: i64, direct: DirectReply, doubt: bool) {
        let heard = now - self.packet < CHECK_S;
        self.conclude(now, heard, self.packet, direct, doubt);
    }

    fn conclude(&mut self, now: i64, heard: bool, proof: i64, direct: DirectReply, doubt: bool) {
        self.direct = if heard { DirectReply::NotAsked } else { direct };
        let up = heard || direct == DirectReply::Answered;
        self.silent_since = if up { None } else { self.silent_since.or(Some(now)) };
        self.last_alive =
            if up { self.last_alive.max(if heard { proof } else { now }) } else { self.last_alive };
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
    faults: Vec<(Fault, i64)>,
    host: Machine,
    behind: Machine,
    beside: Vec<Machine>,
    neighbours: Vec<Machine>,
    elsewhere: Vec<Machine>,
    refusal: Option<(Wall, Refusal)>,
    refused: Sign,
    unproved: Sign,
    /// When the last handshake was answered in vain.
    pending: Option<i64>,
    /// When the key was replaced, and when the old one was last used.
    rekeyed: Option<i64>,
    replaced: Option<i64>,
    dialled: i64,
    skew_ms: Option<i64>,
    turns: EndpointFlaps,
    port: Service,
    login: Service,
}

/// The result of a service's checks.
#[derive(Clone, Copy)]
struct Service {
    failures: u32,
    since: i64,
    cause: Cause,
    path: PathCheck,
    last_answer: i64,
}

impl Service {
    const WELL: Service = Service {
        failures: 0,
        since: -BEFORE_S,
        cause: Cause::Answered,
        path: PathCheck::NotAsked,
        last_answer: -BEFORE_S,
    };

    fn take(&mut self, now: i64, fails: Option<(Cause, PathCheck)>) {
        let (cause, path) = fails.unwrap_or((Cause::Answered, PathCheck::NotAsked));
        if cause != self.cause {
            self.since = now;
        }
        self.failures = if fails.is_some() { self.failures + 1 } else { 0 };
        (self.cause, self.path) = (cause, path);
        if cause.is_answer() {
            self.last_answer = now;
        }
    }

    fn facts(&self, name: &str, current: bool) -> ServiceFacts {
        ServiceFacts {
            name: name.into(),
            asked: RequestedResult::Presence,
            status: Some(if self.failures >= ATTEMPTS { Status::Critical } else { Status::Ok }),
            current,
            cause: self.cause,
            path: self.path,
            through_tunnel: true,
            since: at(self.since),
            said: "no answer".into(),
        }
    }
}

impl Run {
    fn new(world: World, faults: &[(Fault, i64)]) -> Run {
        let machines = |count: usize, first: i64| {
            (0i64..).take(count).map(|i| Machine::new((first + 35 * i) % CHECK_S)).collect()
        };
        Run {
            world,
            faults: faults.to_vec(),
            host: Machine::new(10),
            behind: Machine::new(40),
            beside: machines(world.neighbours, 20),
            neighbours: machines(world.neighbours, 25),
            elsewhere: machines(world.elsewhere, 50),
            refusal: None,
            refused: Sign::default(),
            unproved: Sign::default(),
            pending: None,
            rekeyed: None,
            replaced: None,
            dialled: -BEFORE_S,
            skew_ms: None,
            turns: EndpointFlaps::default(),
            port: Service::WELL,
            login: Service::WELL,
        }
    }

    fn has(&self, fault: Fault, now: i64) -> bool {
        self.faults.iter().any(|(begun, from)| *begun == fault && now >= fault.begins(*from))
    }

    /// Returns whether device `i` at the other places is off.
    fn is_other_off(&self, i: usize, now: i64) -> bool {
        let later = i64::try_from(i).unwrap_or_default() * ONE_BY_ONE_S;
        self.has(Fault::OthersOffTogether, now) || self.has(Fault::OthersOff, now - later)
    }

    fn step(&mut self, now: i64) {
        let (gateway, site) = (!self.has(Fault::GatewayCut, now), !self.has(Fault::SiteCut, now));
        let doubt = self.cut_off_for(now, DOUBT_S);
        if self.rekeyed.is_none() && self.has(Fault::ReplacedKey, now) {
            self.replace_key(now);
        }
        self.host_sends(now, gateway, site);
        let neighbour_off = self.has(Fault::NeighbourOff, now);
        for (i, machine) in self.neighbours.iter_mut().enumerate() {
            let off = i == 0 && neighbour_off;
            run_other(machine, now, gateway && site && !off, doubt);
        }
        for i in 0..self.elsewhere.len() {
            let on = !self.is_other_off(i, now);
            run_other(&mut self.elsewhere[i], now, gateway && on, doubt);
        }
        let open = gateway && site;
        if self.host.next_check <= now {
            let direct = self.direct(now, open);
            self.dial(now, open);
            self.host.check(now, direct, doubt);
            self.ask_services(now, open);
        }
        self.ask_behind(now, open, doubt);
    }

    /// Probes the hosts behind the device through its tunnel. If one fails, the device is probed at
    /// once.
    fn ask_behind(&mut self, now: i64, open: bool, doubt: bool) {
        let network = self.carries(now, open) && !self.has(Fault::LocalNetworkCut, now);
        let on = network && !self.has(Fault::BehindOff, now);
        let mut failed = false;
        let all = self.beside.iter_mut().map(|machine| (machine, network));
        for (machine, answers) in all.chain([(&mut self.behind, on)]) {
            if machine.next_check <= now {
                machine.answered = if answers { now } else { machine.answered };
                machine.conclude(now, answers, now, DirectReply::NotAsked, doubt);
                failed |= !answers;
            }
        }
        if failed {
            self.dial(now, open);
            let (carries, direct) = (self.carries(now, open), self.direct(now, open));
            self.host.answered = if carries { now } else { self.host.answered };
            let planned = self.host.next_check;
            self.host.conclude(now, carries, now, direct, doubt);
            if self.host.up {
                self.host.next_check = planned;
            }
        }
    }

    /// Returns whether probes and replies pass the device's tunnel.
    fn carries(&self, now: i64, open: bool) -> bool {
        let in_session = now - self.host.handshake < SESSION_S;
        let keys = [Fault::ClockBack, Fault::WrongPresharedKey, Fault::ReplacedKey];
        let refused = keys.into_iter().any(|fault| self.has(fault, now));
        self.arrives(now, open) && !self.has(Fault::LossIn, now) && in_session && !refused
    }

    /// Replaces the key. Everything learned under the old key is forgotten, and the host is probed
    /// at once.
    fn replace_key(&mut self, now: i64) {
        self.rekeyed = Some(now);
        (self.host.packet, self.host.handshake, self.host.next_check) = (NEVER_S, NEVER_S, now);
        (self.refusal, self.pending) = (None, None);
        (self.refused, self.unproved) = (Sign::default(), Sign::default());
    }

    /// Returns whether the gateway has been cut off for this long and detects it by itself.
    fn cut_off_for(&self, now: i64, seconds: i64) -> bool {
        self.world.sentinel && now >= seconds && self.has(Fault::GatewayCut, now)
    }

    /// Sends the packets of the host through its tunnel, of the second device with its key, and of
    /// the stranger who replays.
    fn host_sends(&mut self, now: i64, gateway: bool, site: bool) {
        if self.arrives(now, gateway && site) {
            self.host_initiates_or_sends(now);
        }
        if self.rekeyed.is_some() {
            return;
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
            () if self.rekeyed.is_some() && tries => self.use_replaced_key(now),
            () if self.rekeyed.is_some() => {}
            () if self.has(Fault::ClockBack, now) && tries => self.refuse_stamp(now - 86_400, now),
            () if self.has(Fault::WrongPresharedKey, now) && tries => self.answer_in_vain(now),
            () if self.has(Fault::ClockBack, now) || self.has(Fault::WrongPresharedKey, now) => {}
            () => {
                self.shake_hands(now, tries);
                if self.host.send(now) {
                    self.turns.note(([192, 0, 2, 7], 7).into(), at(now));
                }
            }
        }
    }

    /// Uses the old key. With a clock that went back, its handshakes look like captured ones.
    fn use_replaced_key(&mut self, now: i64) {
        let replaced_at = at(self.rekeyed.unwrap_or(now));
        self.refusal = Some((at(now), Refusal::ReplacedKey { replaced_at }));
        if !self.has(Fault::ClockBack, now) {
            self.replaced = Some(now);
        }
    }

    fn answer_in_vain(&mut self, now: i64) {
        note(&mut self.unproved, now, now);
        self.pending = Some(now);
    }

    /// Makes a handshake, which leads to nothing unless the response arrives.
    fn shake_hands(&mut self, now: i64, tries: bool) {
        match self.host.shakes_hands(now) {
            true if self.has(Fault::LossIn, now) && tries => self.answer_in_vain(now),
            true if !self.has(Fault::LossIn, now) => {
                (self.host.handshake, self.host.answered) = (now, now);
                if self.has(Fault::ClockAhead, now) {
                    self.skew_ms = Some(7_200_000);
                }
            }
            _ => {}
        }
    }

    fn arrives(&self, now: i64, open: bool) -> bool {
        let off = [Fault::DeviceOff, Fault::TunnelBlocked, Fault::LossOut].map(|fault| self.has(fault, now));
        open && off == [false; 3]
    }

    /// Dials the device when there is no session.
    fn dial(&mut self, now: i64, open: bool) {
        let silent = now - self.host.packet >= CHECK_S;
        let down = !self.host.up && self.host.failures >= ATTEMPTS;
        if !silent || down && now - self.dialled < QUIET_DIAL_S {
            return;
        }
        self.dialled = now;
        let heard = self.arrives(now, open) && self.rekeyed.is_none();
        if heard && self.has(Fault::WrongPresharedKey, now) {
            self.refusal = Some((at(now), Refusal::Crypto));
        }
    }

    fn refuse_stamp(&mut self, made: i64, now: i64) {
        note(&mut self.refused, made, now);
        let behind = Duration::from_secs((now - made).unsigned_abs());
        self.refusal = Some((at(now), Refusal::ClockWentBack { behind }));
    }

    fn direct(&self, now: i64, open: bool) -> DirectReply {
        match self.world.direct {
            false => DirectReply::NotAsked,
            true if !open || self.has(Fault::DeviceOff, now) => DirectReply::Silent,
            true if self.has(Fault::LossIn, now) || self.has(Fault::LossOut, now) => DirectReply::Silent,
            true if self.has(Fault::SshHung, now) || self.has(Fault::LargeLost, now) => DirectReply::Doubtful,
            true => DirectReply::Answered,
        }
    }

    /// Checks the services: the port through the tunnel only, the login on either path.
    fn ask_services(&mut self, now: i64, open: bool) {
        // If the first inner address is silent, the other one is probed.
        let carries = [true, false].into_iter().any(|first| self.answers_at(first, now, open));
        let (silent, path) = ((Cause::NoAnswer, PathCheck::NotAsked), PathCheck::LargeAnswered);
        if self.host.up && self.host.direct == DirectReply::NotAsked {
            self.port.take(
                now,
                match () {
                    () if !carries || self.has(Fault::ServiceHung, now) => Some(silent),
                    () if self.has(Fault::ServiceStopped, now) => Some((Cause::Refused, PathCheck::NotAsked)),
                    () => None,
                },
            );
        }
        if self.host.up {
            self.login.take(
                now,
                match () {
                    () if !carries => Some(silent),
                    () if self.has(Fault::LargeLost, now) => Some((Cause::Stalled, PathCheck::LargeLost)),
                    () if self.has(Fault::SshHung, now) => Some((Cause::Stalled, path)),
                    () => None,
                },
            );
        }
    }

    fn answers_at(&self, first: bool, now: i64, open: bool) -> bool {
        self.carries(now, open) && !(first && self.has(Fault::OtherAddress, now))
    }

    fn cut_off(&self, is_silent: bool, now: i64) -> Option<Wall> {
        Some(at(CUT_OFF_S)).filter(|_| is_silent && self.cut_off_for(now, CUT_OFF_S))
    }

    fn evidence(&self, now: i64) -> Evidence {
        let cut_off = self.cut_off(!self.host.up || self.host.stale, now);
        let silent = silence(&self.host, self.host.packet, cut_off, now);
        let others = |machines: &[Machine]| others(machines, silent);
        let clocks = Clocks { right: (self.neighbours.len() + self.elsewhere.len()) as u32, wrong: 0 };
        let through = self.host.up && self.host.direct == DirectReply::NotAsked;
        Evidence {
            now: at(now),
            host: self.host.state(),
            cut_off,
            tunnel: Some(self.tunnel(now)),
            second_path: self.world.direct,
            behind: None,
            services: vec![self.port.facts("rtsp", through), self.login.facts("ssh", self.host.up)],
            site: Some(SiteFacts { name: "north".into(), others: others(&self.neighbours) }),
            elsewhere: others(&self.elsewhere),
            clocks,
        }
    }

    /// Returns the evidence about the host behind the device.
    fn evidence_behind(&self, now: i64) -> Evidence {
        let cut_off = self.cut_off(!self.behind.up || self.behind.stale, now);
        let silent = silence(&self.behind, -BEFORE_S, cut_off, now);
        let device = &self.host;
        let failed = device.direct == DirectReply::Answered || !device.up && device.is_hard();
        let besides = self.beside.iter().map(|machine| machine.answered).max();
        let behind = Behind {
            device: "cam-07".into(),
            up_since: device.up.then(|| at(device.since)),
            answered: Some(at(device.answered.max(besides.unwrap_or(-BEFORE_S)))),
            failed: failed.then(|| at(device.last_check)),
        };
        Evidence {
            now: at(now),
            host: self.behind.state(),
            cut_off,
            tunnel: None,
            second_path: false,
            behind: Some(behind),
            services: Vec::new(),
            site: Some(SiteFacts { name: "cam-07".into(), others: others(&self.beside, silent) }),
            elsewhere: others(&self.elsewhere, silent),
            clocks: Clocks::default(),
        }
    }

    fn tunnel(&self, now: i64) -> TunnelFacts {
        let answered = self.host.answered.max(self.port.last_answer).max(self.login.last_answer);
        TunnelFacts {
            last_packet: Some(self.host.packet).filter(|s| *s > NEVER_S).map(at),
            last_handshake: Some(self.host.handshake).filter(|s| *s > NEVER_S).map(at),
            refusal: self.refusal,
            attempts: Attempts {
                refused: self.refused.seen(),
                unproved: unproved(self.unproved.seen()),
                pending: self.pending.map(at),
                replaced: self.replaced.map(|last| ReplacedKeyUse {
                    replaced_at: at(self.rekeyed.unwrap_or(last)),
                    last: at(last),
                    from: ([203, 0, 113, 2], 40_000).into(),
                }),
            },
            clock_skew_ms: self.skew_ms,
            answered: Some(at(answered)),
            moved: self.turns.moved(),
            in_turn: self.turns.in_turn(at(now)).iter().map(ToString::to_string).collect(),
        }
    }
}

/// Returns the last proof of life, and the first probe without a reply.
fn silence(machine: &Machine, packet: i64, cut_off: Option<Wall>, now: i64) -> (i64, i64) {
    let since = Evidence::since(&machine.state(), cut_off, at(now)).as_millis() / 1_000;
    (machine.last_alive.max(packet).min(since), since)
}

fn note(sign: &mut Sign, made: i64, now: i64) {
    let mono = Mono::from_secs((now + BEFORE_S).unsigned_abs());
    sign.note(from_unix_ms(made * 1_000), Now { mono, wall: at(now) });
}

fn run_other(machine: &mut Machine, now: i64, heard: bool, doubt: bool) {
    if heard {
        machine.handshake = if machine.shakes_hands(now) { now } else { machine.handshake };
        machine.send(now);
    }
    if machine.next_check <= now {
        machine.check(now, DirectReply::NotAsked, doubt);
    }
}

/// Counts the other hosts as the store does.
fn others(machines: &[Machine], (alive, silent_since): (i64, i64)) -> Others {
    let mut others = Others::default();
    for machine in machines {
        let heard = machine.packet.max(machine.last_alive) > silent_since;
        let overlaps = |since: i64| {
            let life = machine.packet.max(machine.last_alive);
            since >= alive - ON_ITS_WAY_S && life <= silent_since + ON_ITS_WAY_S
        };
        let down = !machine.up || machine.stale;
        let hard_up = machine.up || machine.failures < ATTEMPTS;
        others.heard += u32::from(heard);
        others.silent += u32::from(!heard && down && machine.silent_since.is_some_and(overlaps));
        others.unasked += u32::from(!heard && hard_up && machine.silent_since.is_none());
    }
    others
}
