//! The rules of forwarding as lists, in the plainest form: what may pass at an instant.

use std::net::IpAddr;
use std::time::Duration;

use crate::id::{GrantId, HostId, PeerId};
use crate::messages::{
    GrantProtocol, GrantSource, GrantSpec, GrantTarget, HandedOver, PolicyChange, SourceOwner, SourceSpec,
    TargetId, TargetSpec,
};
use crate::time::{Mono, Now, Wall};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Syn,
    SynAck,
    Ack,
    Fin,
    GoodReset,
    BadReset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    Tcp(Flag),
    Udp,
    Echo { request: bool },
}

/// A packet by its meaning, as its sender sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub peer: PeerId,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub kind: PacketKind,
    pub ports: (u16, u16),
}

impl Said {
    fn protocol(&self) -> GrantProtocol {
        match self.kind {
            PacketKind::Tcp(_) => GrantProtocol::Tcp,
            PacketKind::Udp => GrantProtocol::Udp,
            PacketKind::Echo { .. } => GrantProtocol::Icmp,
        }
    }
}

/// A packet as its receiver gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub to: PeerId,
    pub src: IpAddr,
    pub dst: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sent,
    Answered,
    Established,
    Closing,
    Closed,
    Unreplied,
    Replied,
    Echo,
}

#[derive(Clone, Debug)]
struct Flow {
    number: u64,
    opened_by: Said,
    target: TargetId,
    device: PeerId,
    real: IpAddr,
    phase: Phase,
    finished: [bool; 2],
    source_acknowledged: bool,
    prolonged: Mono,
    expires: Mono,
}

#[derive(Clone, Debug)]
struct Fragmented {
    said: Said,
    id: u16,
    flow: u64,
    back: bool,
    until: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    Yes,
    /// Only the clock keeps it from passing.
    Waits,
    No,
}

#[derive(Clone, Debug)]
struct Grant {
    spec: GrantSpec,
    end: Option<Mono>,
    over: bool,
    /// Its end is computed anew when the doubt is over.
    provisional: bool,
    /// Of each block: when it begins by the wall clock, by the other one, and whether that is computed anew.
    begins: Vec<(Wall, Mono, bool)>,
    /// The device that was handed over, and when.
    handed_over: Option<(HostId, Wall)>,
}

/// Both clocks at the first step, as they would be without it, and the end of the doubt.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    trusted: Now,
    until: Mono,
    unproved: bool,
}

const FIVE_MINUTES: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Default)]
pub struct Model {
    grants: Vec<Grant>,
    sources: Vec<SourceSpec>,
    targets: Vec<TargetSpec>,
    floor: Option<Wall>,
    /// The greatest time of a clock that had run for five minutes when it was set.
    shown: Option<Wall>,
    /// Until when a step makes all ends provisional.
    proved_at: Mono,
    doubt: Option<Doubt>,
    flows: Vec<Flow>,
    fragments: Vec<Fragmented>,
    flows_made: u64,
}

impl Model {
    pub fn new(now: Now) -> Model {
        Model { proved_at: now.mono + FIVE_MINUTES, ..Model::default() }
    }

    pub fn change(&mut self, change: &PolicyChange, now: Now) {
        self.sweep(now);
        match change {
            PolicyChange::Grant(spec) => self.load(spec.clone(), now),
            PolicyChange::HandOver(HandedOver { rental, host, at }) => {
                let handed_over = Some((*host, *at));
                self.running(*rental).for_each(|grant| grant.handed_over = handed_over);
            }
            PolicyChange::WithdrawGrant(id) => self.grants.retain(|grant| grant.spec.id != *id),
            PolicyChange::Source(spec) => {
                self.sources.retain(|source| source.peer != spec.peer);
                self.sources.push(spec.clone());
            }
            PolicyChange::RemoveSource(peer) => self.sources.retain(|source| source.peer != *peer),
            PolicyChange::Target(spec) => {
                if let Some(rental) = spec.id.rental().filter(|_| !self.targets.contains(spec)) {
                    for grant in self.running(rental) {
                        grant.handed_over = grant.handed_over.filter(|(device, _)| *device == spec.host);
                    }
                }
                self.targets.retain(|target| target.id != spec.id);
                self.targets.push(spec.clone());
            }
            PolicyChange::RemoveTarget(id) => self.targets.retain(|target| target.id != *id),
            PolicyChange::Floor(floor) => self.floor = self.floor.max(Some(*floor)),
            PolicyChange::AcceptClock => {
                (self.floor, self.shown, self.doubt) = (None, None, None);
                self.proved_at = now.mono;
                for grant in &mut self.grants {
                    (grant.over, grant.provisional) = (false, false);
                    grant.end = grant.spec.until.map(|until| now.mono + until.since(now.wall));
                    for (from, begin, provisional) in &mut grant.begins {
                        (*begin, *provisional) = (now.mono + from.since(now.wall), false);
                    }
                }
            }
        }
        self.sweep(now);
    }

    fn running(&mut self, grant: GrantId) -> impl Iterator<Item = &mut Grant> {
        self.grants.iter_mut().filter(move |found| found.spec.id == grant && !found.over)
    }

    fn load(&mut self, spec: GrantSpec, now: Now) {
        let before =
            self.grants.iter().find(|grant| grant.spec.id == spec.id && grant.spec.until == spec.until);
        let latest = match self.doubt {
            Some(Doubt { trusted, .. }) => now.wall.max(trusted.wall + now.mono.since(trusted.mono)),
            None => now.wall,
        };
        let end = spec.until.map(|until| now.mono + until.since(latest));
        let known = self.grants.iter().find(|grant| grant.spec.id == spec.id);
        let handed_over = known.and_then(|grant| grant.handed_over);
        let provisional = self.doubt.is_some();
        let known = known.map(|grant| grant.begins.clone()).unwrap_or_default();
        let begin = |from: Wall| {
            let same = known.iter().find(|(known, ..)| *known == from);
            same.copied().unwrap_or((from, now.mono + from.since(latest), provisional))
        };
        let begins: Vec<_> = spec.gate.blocks.iter().map(|(from, _)| begin(*from)).collect();
        let fresh =
            Grant { spec: spec.clone(), end, over: false, provisional, begins: begins.clone(), handed_over };
        let grant = before.map_or(fresh, |before| Grant { spec, begins, ..before.clone() });
        self.grants.retain(|other| other.spec.id != grant.spec.id);
        self.grants.push(grant);
    }

    pub fn step(&mut self, expected: Wall, now: Now) {
        let before = Now { wall: expected, ..now };
        self.sweep(before);
        let unproved = self.doubt.map_or(now.mono < self.proved_at, |doubt| doubt.unproved);
        let trusted = self.doubt.map_or(before, |doubt| doubt.trusted);
        if self.doubt.is_none() && !unproved {
            self.shown = self.shown.max(Some(expected));
        }
        for grant in self.grants.iter_mut().filter(|_| unproved) {
            (grant.over, grant.provisional) = (false, true);
            grant.begins.iter_mut().for_each(|(.., provisional)| *provisional = true);
        }
        for grant in self.grants.iter_mut().filter(|grant| !grant.over) {
            grant.handed_over = grant.handed_over.filter(|(_, at)| *at <= now.wall);
        }
        self.doubt = Some(Doubt { trusted, until: now.mono + FIVE_MINUTES, unproved });
        self.sweep(now);
    }

    fn is_behind_any(&self, now: Wall) -> bool {
        now < self.floor.max(self.shown).unwrap_or(now)
    }

    /// After a restart only the policy and the greatest time are known.
    pub fn restart(&mut self, floor: Wall, now: Now) {
        let grants = std::mem::take(&mut self.grants);
        *self = Model { sources: self.sources.clone(), targets: self.targets.clone(), ..Model::new(now) };
        self.floor = Some(floor);
        grants.into_iter().for_each(|grant| self.load(grant.spec, now));
        self.sweep(now);
    }

    pub fn policy(&self) -> Vec<PolicyChange> {
        let grants = self.grants.iter().map(|grant| PolicyChange::Grant(grant.spec.clone()));
        let sources = self.sources.iter().map(|spec| PolicyChange::Source(spec.clone()));
        let targets = self.targets.iter().map(|spec| PolicyChange::Target(spec.clone()));
        sources.chain(targets).chain(grants).collect()
    }

    /// Makes ends final and forgets the flows that no grant covers.
    pub fn sweep(&mut self, now: Now) {
        let behind = self.is_behind_any(now.wall);
        let ends = self.doubt.take_if(|doubt| doubt.until <= now.mono).is_some();
        for grant in self.grants.iter_mut().filter(|grant| !grant.over) {
            let by_wall = grant.spec.until.map(|until| now.mono + until.since(now.wall));
            if grant.provisional && !behind && self.doubt.is_none() {
                (grant.end, grant.provisional) = (by_wall, false);
            } else if ends {
                grant.end = grant.end.min(by_wall);
            }
            for (from, begin, provisional) in &mut grant.begins {
                let by_wall = now.mono + from.since(now.wall);
                if *provisional && !behind && self.doubt.is_none() {
                    (*begin, *provisional) = (by_wall, false);
                } else if ends {
                    *begin = by_wall.min(*begin);
                }
            }
        }
        for grant in &mut self.grants {
            let by_boot = grant.end.is_some_and(|end| now.mono >= end);
            let by_wall = grant.spec.until.is_some_and(|until| now.wall >= until);
            let unsure = grant.provisional && behind;
            grant.over |= self.doubt.is_none() && (by_wall || by_boot && !unsure);
        }
        let mut flows = std::mem::take(&mut self.flows);
        flows.retain(|flow| now.mono < flow.expires && self.covers_flow(flow, now) != Cover::No);
        self.flows = flows;
    }

    fn covers_flow(&self, flow: &Flow, now: Now) -> Cover {
        let same = |(target, real): (&TargetSpec, IpAddr)| {
            target.id == flow.target && target.peer == flow.device && real == flow.real
        };
        match self.target(flow.opened_by.dst).is_some_and(same) {
            true => self.covers(&flow.opened_by, now),
            false => Cover::No,
        }
    }

    fn target(&self, dst: IpAddr) -> Option<(&TargetSpec, IpAddr)> {
        self.targets.iter().find_map(|target| {
            let address = target.addresses.iter().find(|address| address.reached_at == dst)?;
            Some((target, address.real))
        })
    }

    /// Whether a grant lets this source send this packet now.
    pub fn covers(&self, said: &Said, now: Now) -> Cover {
        let Some(source) = self.sources.iter().find(|source| source.peer == said.peer) else {
            return Cover::No;
        };
        let Some((target, _)) = self.target(said.dst) else { return Cover::No };
        if !source.addresses.contains(&said.src) {
            return Cover::No;
        }
        let matching = self.grants.iter().filter(|grant| matches(&grant.spec, source, target, said));
        let was_blocked =
            |grant: &Grant| self.doubt.is_some_and(|doubt| is_blocked(grant, doubt.trusted.wall));
        let passing = matching.filter(|grant| is_gate_open(grant, target, now) && !was_blocked(grant));
        let covers: Vec<Cover> = passing.map(|grant| self.open(grant, now)).collect();
        match (covers.contains(&Cover::Yes), covers.contains(&Cover::Waits)) {
            (true, _) => Cover::Yes,
            (_, true) => Cover::Waits,
            _ => Cover::No,
        }
    }

    fn open(&self, grant: &Grant, now: Now) -> Cover {
        let (from, until) = (grant.spec.from, grant.spec.until);
        if from.is_none() && until.is_none() {
            return Cover::Yes;
        }
        let begun = |at: Wall| from.is_none_or(|from| from <= at);
        let ended =
            grant.end.is_some_and(|end| now.mono >= end) || until.is_some_and(|until| now.wall >= until);
        let inside = begun(now.wall) && !ended;
        let behind = self.floor.is_some_and(|floor| now.wall < floor);
        let runs = until.is_some_and(|until| now.wall < until);
        let unsure = grant.provisional && runs && self.is_behind_any(now.wall);
        match self.doubt {
            _ if grant.over => Cover::No,
            // It was open at the step: it passes inside its window, and nothing is final.
            Some(Doubt { trusted, .. }) if begun(trusted.wall) && inside && !behind => Cover::Yes,
            Some(Doubt { trusted, .. }) if begun(trusted.wall) => Cover::Waits,
            Some(_) if inside || ended && unsure => Cover::Waits,
            Some(_) => Cover::No,
            None if ended && unsure => Cover::Waits,
            None if inside && behind => Cover::Waits,
            None if inside => Cover::Yes,
            None => Cover::No,
        }
    }

    /// Finds the flow of a packet, and whether the packet goes back to the source.
    fn find(&self, said: &Said) -> Option<(usize, bool)> {
        let ports = |said: &Said| match said.kind {
            PacketKind::Echo { .. } => (said.ports.0, said.ports.0),
            _ => said.ports,
        };
        let swapped = |(a, b): (u16, u16)| (b, a);
        self.flows.iter().enumerate().find_map(|(at, flow)| {
            let open = &flow.opened_by;
            if open.protocol() != said.protocol() {
                return None;
            }
            let out = (open.peer, open.src, open.dst, ports(open));
            let back = (flow.device, flow.real, open.src, swapped(ports(open)));
            let this = (said.peer, said.src, said.dst, ports(said));
            (this == out).then_some((at, false)).or((this == back).then_some((at, true)))
        })
    }

    /// Decides about a whole packet or a first fragment. `fragment`: its identification.
    pub fn packet(&mut self, said: &Said, fragment: Option<u16>, now: Now) -> Option<Delivered> {
        self.sweep(now);
        let found = self.find(said);
        let reopens = found.is_some_and(|(at, back)| {
            !back && said.kind == PacketKind::Tcp(Flag::Syn) && self.flows[at].phase == Phase::Closed
        });
        if let (Some((at, _)), true) = (found, reopens) {
            self.flows.remove(at);
        }
        let (at, back, ends) = match found.filter(|_| !reopens) {
            Some((at, back)) => {
                if self.covers_flow(&self.flows[at], now) != Cover::Yes {
                    return None;
                }
                (at, back, progress(&mut self.flows[at], said.kind, back)?)
            }
            None => (self.begin(said, now)?, false, false),
        };
        let flow = &mut self.flows[at];
        if !back || matches!(said.kind, PacketKind::Tcp(_)) {
            flow.prolonged = now.mono;
        }
        flow.expires = flow.prolonged + timeout(flow.phase);
        let delivered = deliver(flow, said, back);
        if let Some(id) = fragment {
            self.fragments.retain(|known| (known.said, known.id) != (*said, id));
            let (flow, until) = (self.flows[at].number, now.mono + Duration::from_secs(30));
            self.fragments.push(Fragmented { said: *said, id, flow, back, until });
        }
        if ends {
            self.flows.remove(at);
        }
        Some(delivered)
    }

    fn begin(&mut self, said: &Said, now: Now) -> Option<usize> {
        let phase = match said.kind {
            PacketKind::Tcp(Flag::Syn) => Phase::Sent,
            PacketKind::Udp => Phase::Unreplied,
            PacketKind::Echo { request: true } => Phase::Echo,
            _ => return None,
        };
        if self.covers(said, now) != Cover::Yes {
            return None;
        }
        let (target, real) = self.target(said.dst)?;
        let (target, device) = (target.id, target.peer);
        let same = |flow: &Flow| {
            let open = &flow.opened_by;
            (open.protocol(), open.src, open.ports) == (said.protocol(), said.src, said.ports)
                && (flow.device, flow.real) == (device, real)
        };
        if self.flows.iter().any(|flow| same(flow) && self.covers_flow(flow, now) == Cover::Yes) {
            return None;
        }
        // One that only waits for the clock gives way.
        self.flows.retain(|flow| !same(flow));
        self.flows_made += 1;
        self.flows.push(Flow {
            number: self.flows_made,
            opened_by: *said,
            target,
            device,
            real,
            phase,
            finished: [false; 2],
            source_acknowledged: false,
            prolonged: now.mono,
            expires: now.mono,
        });
        Some(self.flows.len() - 1)
    }

    pub fn later_fragment(&mut self, said: &Said, id: u16, now: Now) -> Option<Delivered> {
        self.sweep(now);
        let same = |known: &&Fragmented| {
            let (a, b) = (&known.said, said);
            known.id == id && (a.peer, a.src, a.dst, a.protocol()) == (b.peer, b.src, b.dst, b.protocol())
        };
        let known = self.fragments.iter().rev().find(same).filter(|known| now.mono < known.until)?;
        let flow = self.flows.iter().find(|flow| flow.number == known.flow)?;
        (self.covers_flow(flow, now) == Cover::Yes).then(|| deliver(flow, said, known.back))
    }

    /// Decides about an error of `peer` to `dst` that quotes a packet as it reached the peer.
    pub fn error(&mut self, peer: PeerId, dst: IpAddr, quoted: &Said, now: Now) -> Option<PeerId> {
        self.sweep(now);
        let answer = Said {
            peer,
            src: quoted.dst,
            dst: quoted.src,
            ports: (quoted.ports.1, quoted.ports.0),
            ..*quoted
        };
        let (at, back) = self.find(&answer)?;
        let flow = &self.flows[at];
        let fits = !matches!(quoted.kind, PacketKind::Echo { request } if request != back);
        let passes = fits && dst == quoted.src && self.covers_flow(flow, now) == Cover::Yes;
        passes.then_some(if back { flow.opened_by.peer } else { flow.device })
    }
}

fn is_gate_open(grant: &Grant, target: &TargetSpec, now: Now) -> bool {
    let gate = &grant.spec.gate;
    let is_done = |(device, at): (HostId, Wall)| device == target.host && at <= now.wall;
    let is_handed_over = !gate.awaits_handover || grant.handed_over.is_some_and(is_done);
    let mut blocks = gate.blocks.iter().zip(&grant.begins);
    let is_blocked = blocks
        .any(|((from, until), (_, begin, _))| now.wall < *until && (*from <= now.wall || *begin <= now.mono));
    is_handed_over && !is_blocked
}

fn is_blocked(grant: &Grant, at: Wall) -> bool {
    grant.spec.gate.blocks.iter().any(|(from, until)| (*from..*until).contains(&at))
}

fn matches(spec: &GrantSpec, source: &SourceSpec, target: &TargetSpec, said: &Said) -> bool {
    let from = match (spec.source, source.owner) {
        (GrantSource::Peer(peer), SourceOwner::User { .. }) => peer == source.peer,
        (GrantSource::User(one), SourceOwner::User { user, .. }) => user == one,
        (GrantSource::Role(one), SourceOwner::User { role, .. }) => role == Some(one),
        (GrantSource::Customer(one), SourceOwner::Person { customer, .. }) => customer == one,
        _ => false,
    };
    let to = match (source.owner, target.id, &spec.target) {
        (SourceOwner::Person { .. }, TargetId::Rental(id), GrantTarget::Rental(rental)) => id == *rental,
        (SourceOwner::User { .. }, TargetId::Host(_), GrantTarget::AllDevices) => !target.behind,
        (SourceOwner::User { .. }, TargetId::Host(id), GrantTarget::Host(host)) => id == *host,
        (SourceOwner::User { .. }, TargetId::Host(_), GrantTarget::Labels(labels)) => {
            !labels.is_empty() && labels.iter().all(|(key, value)| target.labels.get(key) == Some(value))
        }
        _ => false,
    };
    let admitted = spec.only.is_none() || spec.only.iter().flatten().any(|peer| *peer == source.peer);
    let port = said.ports.1;
    from && to
        && admitted
        && spec.access.iter().any(|access| {
            access.protocol == said.protocol()
                && (said.protocol() == GrantProtocol::Icmp
                    || access.ports.iter().any(|ports| ports.contains(&port)))
        })
}

fn deliver(flow: &Flow, said: &Said, back: bool) -> Delivered {
    match back {
        true => Delivered { to: flow.opened_by.peer, src: flow.opened_by.dst, dst: said.dst },
        false => Delivered { to: flow.device, src: said.src, dst: flow.real },
    }
}

fn timeout(phase: Phase) -> Duration {
    Duration::from_secs(match phase {
        Phase::Sent | Phase::Answered | Phase::Unreplied | Phase::Echo => 30,
        Phase::Replied => 180,
        Phase::Established => 7_440,
        Phase::Closing => 600,
        Phase::Closed => 60,
    })
}

/// Returns whether the packet ends the flow; `None`: it does not pass.
fn progress(flow: &mut Flow, kind: PacketKind, back: bool) -> Option<bool> {
    match (kind, back) {
        (PacketKind::Udp, true) => flow.phase = Phase::Replied,
        (PacketKind::Udp, false) => {}
        (PacketKind::Echo { request }, _) if request == back => return None,
        (PacketKind::Echo { .. }, _) => {}
        (PacketKind::Tcp(flag), _) => return tcp(flow, flag, back),
    }
    Some(false)
}

fn tcp(flow: &mut Flow, flag: Flag, back: bool) -> Option<bool> {
    match (flag, back) {
        (Flag::BadReset, _) | (Flag::Syn, true) | (Flag::SynAck, false) => return None,
        (Flag::GoodReset, _) => {
            // After its FIN the target's next byte is another one, unless the source has said which.
            let stale = back && flow.phase != Phase::Sent && flow.finished[1] && !flow.source_acknowledged;
            return (!stale).then_some(true);
        }
        (Flag::Syn, false) => {}
        (Flag::SynAck, true) if flow.phase == Phase::Sent => flow.phase = Phase::Answered,
        (Flag::SynAck, true) => {}
        (Flag::Ack | Flag::Fin, _) if flow.phase == Phase::Sent => {}
        (Flag::Ack | Flag::Fin, _) => {
            flow.source_acknowledged |= !back;
            let confirmed = !back && flow.phase == Phase::Answered;
            if confirmed {
                flow.phase = Phase::Established;
            }
            flow.finished[usize::from(back)] |= flag == Flag::Fin;
            flow.phase = match flow.finished {
                [true, true] => Phase::Closed,
                [false, false] => flow.phase,
                _ => Phase::Closing,
            };
        }
    }
    Some(false)
}
