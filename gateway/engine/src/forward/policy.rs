//! The policy of this moment: sources, targets and the grants between them.
//!
//! Everything is denied unless a grant permits it. One function decides about packets and answers
//! questions. Each change has a new generation, so that a flow notices that its permission is old.
//! The policy knows no flows; a change returns the lists of flows that it may concern.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::blocks::{self, BlockBegins};
use super::ended::Ended;
use super::grant::Grant;
use super::grant_index::GrantIndex;
use super::headers::{Bits, address, bits};
use super::lists::List;
use super::names::Names;
use super::window::{Moves, Shut, Span, Trust, Window};
use crate::id::{CustomerId, GrantId, HostId, PeerId};
use crate::messages::{
    GrantProtocol, GrantSource, GrantSpec, GrantTarget, HandedOver, PolicyChange, SourceOwner, SourceSpec,
    TargetAddress, TargetId, TargetSpec,
};
use crate::time::{ClockStep, Mono, Now, Wall};

/// The permission of a flow: it holds while the policy has this generation and the time lies in the
/// span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    pub generation: u64,
    pub grant: GrantId,
    pub span: Span,
}

/// The addresses, protocol and port that a flow asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub source: PeerId,
    pub v6: bool,
    pub src: Bits,
    /// The address that the source sends to.
    pub dst: Bits,
    pub protocol: GrantProtocol,
    /// Not used for ICMP.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub permit: Permit,
    pub owner: SourceOwner,
    pub route: Route,
}

/// The destination of the packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub target: TargetId,
    pub host: HostId,
    pub device: PeerId,
    /// The address that the target has.
    pub real: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The peer is no source, or uses an address that is not its own.
    NoSource,
    /// No target has the address.
    NoTarget,
    NoGrant,
    /// This grant covers the request, but not now.
    Shut(GrantId, Shut),
}

/// Grants by their ends. The first one stands beside the others: each turn of the engine asks for it, and the way down
/// to it in the tree of many grants is in no cache of the processor.
#[derive(Default)]
struct InOrder<T> {
    all: BTreeSet<(T, GrantId)>,
    first: Option<(T, GrantId)>,
}

impl<T: Copy + Ord> InOrder<T> {
    fn insert(&mut self, end: (T, GrantId)) {
        self.all.insert(end);
        self.first = self.all.first().copied();
    }

    fn remove(&mut self, end: &(T, GrantId)) {
        self.all.remove(end);
        self.first = self.all.first().copied();
    }

    fn clear(&mut self) {
        self.all.clear();
        self.first = None;
    }
}

#[derive(Default)]
pub struct Policy {
    generation: u64,
    pub(super) sources: HashMap<PeerId, SourceSpec>,
    pub(super) targets: HashMap<TargetId, TargetSpec>,
    pub(super) owners: HashMap<IpAddr, TargetId>,
    pub(super) names: Names,
    /// Those that have not ended.
    pub(super) grants: HashMap<GrantId, Grant>,
    index: GrantIndex,
    pub(super) ended: Ended,
    trust: Trust,
    /// The ends that are not final, on both clocks.
    ends: InOrder<Mono>,
    untils: InOrder<Wall>,
    blocks: BlockBegins,
}

impl Policy {
    pub fn is_source(&self, peer: PeerId) -> bool {
        self.sources.contains_key(&peer)
    }

    pub fn is_renter(&self, peer: PeerId) -> bool {
        let owner = self.sources.get(&peer).map(|source| source.owner);
        matches!(owner, Some(SourceOwner::Person { .. }))
    }

    pub fn customer(&self, peer: PeerId) -> Option<CustomerId> {
        match self.sources.get(&peer)?.owner {
            SourceOwner::Person { customer, .. } => Some(customer),
            SourceOwner::User { .. } => None,
        }
    }

    pub fn is_behind(&self, now: Wall) -> bool {
        self.trust.is_behind(now)
    }

    pub fn holds(&self, permit: &Permit, now: Now) -> bool {
        permit.generation == self.generation && permit.span.contains(now)
    }

    /// Whether nothing is left of any grant, but for those that ended.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let no_ends = self.ends.all.is_empty() && self.untils.all.is_empty();
        self.grants.is_empty() && self.index.is_empty() && no_ends && self.blocks.is_empty()
    }

    /// Decides about a request. The grant that ends last decides, if several permit it.
    ///
    /// # Errors
    /// Fails with what is missing.
    pub fn decide(&self, request: &Request, now: Now) -> Result<Granted, Denial> {
        let source = self.sources.get(&request.source).ok_or(Denial::NoSource)?;
        self.decide_for(source, request, now)
    }

    /// Decides about a request of this source.
    ///
    /// # Errors
    /// Fails with what is missing.
    pub(super) fn decide_for(
        &self,
        source: &SourceSpec,
        request: &Request,
        now: Now,
    ) -> Result<Granted, Denial> {
        if !source.addresses.contains(&address(request.v6, request.src)) {
            return Err(Denial::NoSource);
        }
        let route = self.route(request.v6, request.dst).ok_or(Denial::NoTarget)?;
        let target = self.targets.get(&route.target).ok_or(Denial::NoTarget)?;
        let (grant, span) = self.best(source, target, &|spec| covers(spec, target, request), now)?;
        let permit = Permit { generation: self.generation, grant, span };
        Ok(Granted { permit, owner: source.owner, route })
    }

    /// Returns where packets to an address go, permitted or not. A source reaches no other source,
    /// and not itself.
    pub fn route(&self, v6: bool, dst: Bits) -> Option<Route> {
        let at = address(v6, dst);
        let target = self.owners.get(&at).and_then(|id| self.targets.get(id))?;
        let real = target.addresses.iter().find(|address| address.reached_at == at)?.real;
        let route = Route { target: target.id, host: target.host, device: target.peer, real: bits(real) };
        (!self.is_source(target.peer)).then_some(route)
    }

    /// Whether a source may send anything to an address, by any protocol and port.
    pub(super) fn reaches(&self, source: &SourceSpec, dst: IpAddr, now: Now) -> bool {
        let has_family = source.addresses.iter().any(|src| src.is_ipv4() == dst.is_ipv4());
        let route = self.route(dst.is_ipv6(), bits(dst)).filter(|_| has_family);
        let Some(target) = route.and_then(|route| self.targets.get(&route.target)) else { return false };
        let permits = |spec: &GrantSpec| selects(spec, target) && permits_anything(spec);
        self.best(source, target, &permits, now).is_ok()
    }

    /// Returns the best of the grants between two that also `covers` what is asked.
    fn best(
        &self,
        source: &SourceSpec,
        target: &TargetSpec,
        covers: &dyn Fn(&GrantSpec) -> bool,
        now: Now,
    ) -> Result<(GrantId, Span), Denial> {
        let mut best = Err(Denial::NoGrant);
        self.index.each(source, target, &mut |id| {
            let is_meant = |grant: &&Grant| is_for(&grant.spec, source) && covers(&grant.spec);
            let Some(grant) = self.grants.get(&id).filter(is_meant) else { return };
            let found = match grant.open(&self.trust, target.host, now) {
                Ok(span) => Ok((id, span)),
                Err(shut) => Err(Denial::Shut(id, shut)),
            };
            if self.is_better(&found, &best) {
                best = found;
            }
        });
        best
    }

    fn is_better(
        &self,
        found: &Result<(GrantId, Span), Denial>,
        best: &Result<(GrantId, Span), Denial>,
    ) -> bool {
        match (found, best) {
            (Ok((id, span)), Ok((best_id, best))) => {
                // The smaller id decides between equal ends.
                (span.until, span.end, *best_id) > (best.until, best.end, *id)
            }
            (Ok(_), Err(_)) => true,
            (Err(_), Ok(_)) => false,
            (Err(found), Err(best)) => self.tells_more(*found, *best),
        }
    }

    /// Returns whether a reason helps more than another one: a window that only the clock keeps
    /// shut, then the next one to open, then the last one that ended.
    fn tells_more(&self, found: Denial, best: Denial) -> bool {
        let (Denial::Shut(id, shut), Denial::Shut(best_id, best_shut)) = (found, best) else {
            return matches!(found, Denial::Shut(..));
        };
        let (Some(grant), Some(best)) = (self.grants.get(&id), self.grants.get(&best_id)) else {
            return false;
        };
        let sooner = (best.window.from, best_id) > (grant.window.from, id);
        let later = (grant.window.until, best_id) > (best.window.until, id);
        shut > best_shut || shut == best_shut && if shut == Shut::NotYet { sooner } else { later }
    }

    /// Applies a change. Returns the lists of flows whose permission it may take away.
    pub fn change(&mut self, change: PolicyChange, now: Now) -> Vec<List> {
        let affected = match change {
            PolicyChange::Grant(spec) => self.load_grant(spec, now),
            PolicyChange::WithdrawGrant(id) => self.withdraw(id),
            PolicyChange::HandOver(handover) => self.hand_over(handover),
            PolicyChange::Source(spec) => self.set_source(spec),
            PolicyChange::RemoveSource(peer) => self.sources.remove(&peer).map(|_| vec![List::Source(peer)]),
            PolicyChange::Target(spec) => self.set_target(spec),
            PolicyChange::RemoveTarget(id) => self.remove_target(id),
            PolicyChange::Floor(floor) => {
                self.trust.set_floor(floor);
                Some(Vec::new())
            }
            PolicyChange::AcceptClock => {
                self.accept_clock(now);
                Some(Vec::new())
            }
        };
        self.generation += u64::from(affected.is_some());
        affected.unwrap_or_default()
    }

    /// Notes the first reading of the clocks.
    pub fn start(&mut self, now: Now) {
        self.trust.start(now.mono);
    }

    /// Notes a step of the wall clock. Returns the lists of flows whose permission it takes away for good.
    pub fn step(&mut self, step: ClockStep, now: Now) -> Vec<List> {
        self.generation += 1;
        self.blocks.rewind();
        let shut = self.grants.iter_mut().filter_map(|(id, grant)| grant.mind_step(now.wall).then_some(*id));
        let affected = shut.map(List::Grant).collect();
        if !self.trust.step(step, now) {
            return affected;
        }
        self.grants.values_mut().for_each(Grant::be_provisional);
        // What the clock before ended may be open by the one that is believed at last.
        for mut grant in self.ended.take() {
            grant.be_provisional();
            grant.mind_step(now.wall);
            self.add_grant(grant, now);
        }
        affected
    }

    fn load_grant(&mut self, spec: GrantSpec, now: Now) -> Option<Vec<List>> {
        let id = spec.id;
        if self.grants.get(&id).is_some_and(|before| before.spec == spec) {
            return None;
        }
        let fresh_begins = |known: &[Window]| blocks::begins(&self.trust, &spec.gate.blocks, known, now);
        if self.ended.renew(&spec, fresh_begins) {
            return None;
        }
        let fresh = self.trust.load(spec.from, spec.until, now);
        let before = self.grants.get(&id).map(|grant| grant.window);
        // The store may not have a handover yet.
        let known = self.grants.get(&id).or_else(|| self.ended.get(id));
        let handed_over = known.and_then(|grant| grant.handed_over);
        let begins = known.map(|grant| grant.begins.as_slice()).unwrap_or_default();
        let begins = fresh_begins(begins);
        // An end that stays where it was keeps its place on the boot-time clock, whatever the wall
        // clock shows now. So does the begin of a block.
        let window = match before.filter(|before| before.until == spec.until) {
            Some(before) => Window { from: spec.from, ..before },
            None => fresh,
        };
        self.withdraw(id);
        self.add_grant(Grant { spec, window, begins, handed_over }, now);
        Some(vec![List::Grant(id)])
    }

    fn hand_over(&mut self, handover: HandedOver) -> Option<Vec<List>> {
        let HandedOver { rental, host, at } = handover;
        let grant = self.grants.get_mut(&rental)?;
        let before = grant.handed_over.replace((host, at));
        (before != Some((host, at))).then(|| vec![List::Grant(rental)])
    }

    fn add_grant(&mut self, grant: Grant, now: Now) {
        let id = grant.spec.id;
        self.index.add(&grant.spec);
        self.blocks.add(id, &grant.begins);
        self.grants.insert(id, grant);
        self.file_end(id, now);
    }

    fn withdraw(&mut self, id: GrantId) -> Option<Vec<List>> {
        self.ended.remove(id);
        self.take_grant(id).map(|_| vec![List::Grant(id)])
    }

    fn take_grant(&mut self, id: GrantId) -> Option<Grant> {
        self.unfile_end(id);
        let grant = self.grants.remove(&id)?;
        self.index.remove(&grant.spec);
        self.blocks.remove(id, &grant.begins);
        Some(grant)
    }

    /// Files both ends of a grant. An end that is not believed ends nothing.
    fn file_end(&mut self, id: GrantId, now: Now) {
        let Some(window) = self.grants.get(&id).map(|grant| grant.window) else { return };
        if let Some(until) = window.until {
            self.untils.insert((until, id));
        }
        if window.until.is_some() && !self.trust.is_unsure(&window, now.wall) {
            self.ends.insert((window.end, id));
        }
    }

    fn unfile_end(&mut self, id: GrantId) {
        let Some(window) = self.grants.get(&id).map(|grant| grant.window) else { return };
        self.ends.remove(&(window.end, id));
        if let Some(until) = window.until {
            self.untils.remove(&(until, id));
        }
    }

    fn set_source(&mut self, spec: SourceSpec) -> Option<Vec<List>> {
        let peer = spec.peer;
        if self.sources.get(&peer) == Some(&spec) {
            return None;
        }
        self.sources.insert(peer, spec);
        // A target that was a device before may have flows to it.
        Some(vec![List::Source(peer), List::Device(peer)])
    }

    fn set_target(&mut self, spec: TargetSpec) -> Option<Vec<List>> {
        if self.targets.get(&spec.id) == Some(&spec) {
            return None;
        }
        if let Some(grant) = spec.id.rental().and_then(|rental| self.grants.get_mut(&rental)) {
            // A device that was handed over, and comes back after another one, waits for a handover again.
            grant.handed_over = grant.handed_over.filter(|(device, _)| *device == spec.host);
        }
        let mut affected = self.remove_target(spec.id).unwrap_or_default();
        affected.push(List::Device(spec.peer));
        let mixed = |address: &TargetAddress| address.reached_at.is_ipv4() != address.real.is_ipv4();
        let mut spec = spec;
        spec.addresses.retain(|address| !mixed(address));
        for address in &spec.addresses {
            let before = self.owners.insert(address.reached_at, spec.id);
            let loser = before.and_then(|id| self.targets.get(&id));
            affected.extend(loser.map(|loser| List::Device(loser.peer)));
        }
        self.names.insert(&spec.name, spec.id);
        self.targets.insert(spec.id, spec);
        Some(affected)
    }

    fn remove_target(&mut self, id: TargetId) -> Option<Vec<List>> {
        let target = self.targets.remove(&id)?;
        self.names.remove(&target.name, id);
        for address in &target.addresses {
            if self.owners.get(&address.reached_at) == Some(&id) {
                self.owners.remove(&address.reached_at);
            }
        }
        Some(vec![List::Device(target.peer)])
    }

    fn accept_clock(&mut self, now: Now) {
        self.trust.accept();
        self.ends.clear();
        self.untils.clear();
        let ids: Vec<GrantId> = self.grants.keys().copied().collect();
        for id in ids {
            if let Some(grant) = self.grants.get_mut(&id) {
                self.blocks.remove(id, &grant.begins);
                grant.load(&self.trust, now);
                self.blocks.add(id, &grant.begins);
            }
            self.file_end(id, now);
        }
        self.blocks.rewind();
        // What ended by the clock of before may be open by this one.
        for mut grant in self.ended.take() {
            grant.load(&self.trust, now);
            self.add_grant(grant, now);
        }
    }

    /// Makes the next end final that has come, and returns its grant.
    pub fn take_ended(&mut self, now: Now) -> Option<GrantId> {
        let by_boot = self.ends.first.filter(|(at, _)| *at <= now.mono).map(|(_, id)| id);
        let by_wall = self.untils.first.filter(|(at, _)| *at <= now.wall).map(|(_, id)| id);
        let id = by_boot.or(by_wall)?;
        let window = self.grants.get(&id)?.window;
        if !self.trust.is_final(&window, now) {
            return None;
        }
        let grant = self.take_grant(id)?;
        self.ended.add(grant);
        Some(id)
    }

    /// Returns the next grant whose device is blocked from now on.
    pub fn take_blocked(&mut self, now: Now) -> Option<GrantId> {
        self.blocks.take(now)
    }

    /// Ends the doubt about a stepped clock when its time has come. Returns whether it did: then
    /// every flow is to be looked at.
    pub fn end_doubt(&mut self, now: Now) -> bool {
        let Some(moves) = self.trust.settle(now) else { return false };
        self.generation += 1;
        self.believe(moves, now);
        true
    }

    /// Computes the ends, and the begins of blocks, by the clock that is believed now.
    fn believe(&mut self, moves: Moves, now: Now) {
        let open = self.grants.values().filter(|grant| grant.may_move(moves));
        let open: Vec<GrantId> = open.map(|grant| grant.spec.id).collect();
        for id in open {
            self.unfile_end(id);
            if let Some(grant) = self.grants.get_mut(&id) {
                self.blocks.remove(id, &grant.begins);
                grant.believe(&self.trust, moves, now);
                self.blocks.add(id, &grant.begins);
            }
            self.file_end(id, now);
        }
    }

    /// Returns when the next end becomes final, or the next block begins, as the clocks run now. While the clock is
    /// doubted, no end is final.
    pub fn next_end(&self, now: Now) -> Option<Mono> {
        let by_boot = self.ends.first.map(|(at, _)| at);
        let by_wall = self.untils.first.map(|(at, _)| now.mono + at.since(now.wall));
        let soonest = [by_boot, by_wall].into_iter().flatten().min();
        let end = self.trust.doubted_until().or(soonest);
        [end, self.blocks.next(now)].into_iter().flatten().min()
    }
}

/// Returns whether a grant covers the target, protocol and port at any time.
pub(super) fn covers(spec: &GrantSpec, target: &TargetSpec, request: &Request) -> bool {
    let is_icmp = request.protocol == GrantProtocol::Icmp;
    selects(spec, target)
        && spec.access.iter().any(|access| {
            access.protocol == request.protocol
                && (is_icmp || access.ports.iter().any(|ports| ports.contains(&request.port)))
        })
}

/// Returns whether a grant selects a target. Grants for customers select rentals alone, and no other grant does.
fn selects(spec: &GrantSpec, target: &TargetSpec) -> bool {
    let is_for_customer = matches!(spec.source, GrantSource::Customer(_));
    if is_for_customer != target.id.rental().is_some() {
        return false;
    }
    match (&spec.target, target.id) {
        (GrantTarget::Labels(labels), TargetId::Host(_)) => {
            !labels.is_empty() && labels.iter().all(|(key, value)| target.labels.get(key) == Some(value))
        }
        (GrantTarget::AllDevices, TargetId::Host(_)) => !target.behind,
        (GrantTarget::Host(host), TargetId::Host(id)) => *host == id,
        (GrantTarget::Rental(rental), TargetId::Rental(id)) => *rental == id,
        _ => false,
    }
}

fn permits_anything(spec: &GrantSpec) -> bool {
    spec.access.iter().any(|access| {
        access.protocol == GrantProtocol::Icmp || access.ports.iter().any(|ports| !ports.is_empty())
    })
}

/// Returns whether a grant is for this source. No grant for a user, a role or a peer is for a renter.
pub(super) fn is_for(spec: &GrantSpec, source: &SourceSpec) -> bool {
    let is_admitted = spec.only.as_ref().is_none_or(|only| only.contains(&source.peer));
    let is_meant = match (spec.source, source.owner) {
        (GrantSource::Peer(peer), SourceOwner::User { .. }) => peer == source.peer,
        (GrantSource::User(of), SourceOwner::User { user, .. }) => of == user,
        (GrantSource::Role(of), SourceOwner::User { role, .. }) => role == Some(of),
        (GrantSource::Customer(of), SourceOwner::Person { customer, .. }) => of == customer,
        _ => false,
    };
    is_meant && is_admitted
}
