//! Answers to the question who may reach what, by the code that decides about packets.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::headers::bits;
use super::policy::{Denial, Policy, Request, covers, is_for};
use super::window::Shut;
use crate::id::{GrantId, Id, PeerId, UserId};
use crate::messages::{
    ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantRole, GrantSpec, GrantWindow,
    SourceOwner, SourceSpec, TargetId,
};
use crate::time::{Mono, Now, Wall};

/// A packet that an explanation is about: who sends it, from where and to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: PeerId,
    pub src: IpAddr,
    /// The address that the source sends to.
    pub dst: IpAddr,
}

impl Policy {
    /// Says what the filter does with a packet at a time, and why.
    pub fn explain(&self, question: &ExplainRequest, now: Now) -> Explanation {
        self.explain_packet(question, now).0
    }

    /// Says the same, with the packet that decides. `None`: no packet is possible.
    pub fn explain_packet(&self, question: &ExplainRequest, now: Now) -> (Explanation, Option<Ends>) {
        let sources = self.asked_sources(question.from);
        let at = instant(question.at, now);
        let answers = sources.iter().map(|source| self.explain_one(source, question, at));
        answers.max_by_key(|(answer, _)| rank(answer)).unwrap_or((Explanation::UnknownSource, None))
    }

    /// Returns the peers that the question is about, the smallest id last: of equal answers the
    /// last one counts.
    fn asked_sources(&self, from: ExplainSource) -> Vec<Cow<'_, SourceSpec>> {
        let mut sources: Vec<Cow<'_, SourceSpec>> = match from {
            ExplainSource::Peer(peer) => self.sources.get(&peer).map(Cow::Borrowed).into_iter().collect(),
            // No person has the id of a user.
            ExplainSource::User(id) | ExplainSource::Person(id) => {
                self.sources.values().filter(|source| source.owner.id() == id).map(Cow::Borrowed).collect()
            }
            ExplainSource::Login { user, role } => vec![Cow::Owned(login(user, role))],
        };
        sources.sort_by_key(|source| std::cmp::Reverse::<PeerId>(source.peer));
        sources
    }

    fn explain_one(
        &self,
        source: &SourceSpec,
        question: &ExplainRequest,
        at: Now,
    ) -> (Explanation, Option<Ends>) {
        let Some(targets) = self.asked_addresses(question.to) else {
            return (Explanation::UnknownTarget, None);
        };
        // The last one of equal answers counts, which is that of the first address.
        let pairs = targets.iter().rev().filter_map(|dst| {
            let src = source.addresses.iter().find(|src| src.is_ipv4() == dst.is_ipv4())?;
            Some(Ends { source: source.peer, src: *src, dst: *dst })
        });
        let answers = pairs.map(|ends| (self.explain_pair(source, ends, question, at), Some(ends)));
        answers.max_by_key(|(answer, _)| rank(answer)).unwrap_or((Explanation::NoCommonFamily, None))
    }

    /// Returns the addresses that the question is about; `None`: there is no such target.
    fn asked_addresses(&self, to: ExplainTarget) -> Option<Vec<IpAddr>> {
        let target = match to {
            ExplainTarget::Address(address) => return Some(vec![address]),
            ExplainTarget::Host(host) => TargetId::Host(host),
            ExplainTarget::Rental(rental) => TargetId::Rental(rental),
        };
        let target = self.targets.get(&target)?;
        Some(target.addresses.iter().map(|address| address.reached_at).collect())
    }

    fn explain_pair(
        &self,
        source: &SourceSpec,
        Ends { src, dst, .. }: Ends,
        question: &ExplainRequest,
        at: Now,
    ) -> Explanation {
        let request = Request {
            source: source.peer,
            v6: dst.is_ipv6(),
            src: bits(src),
            dst: bits(dst),
            protocol: question.protocol,
            port: question.port,
        };
        match self.decide_for(source, &request, at) {
            Ok(granted) => Explanation::Permitted(self.window(granted.permit.grant)),
            Err(Denial::NoSource) => Explanation::UnknownSource,
            Err(Denial::NoTarget) => Explanation::UnknownTarget,
            Err(Denial::NoGrant) => self.explain_ended(source, &request),
            Err(Denial::Shut(grant, Shut::Over)) => Explanation::Over(self.window(grant)),
            Err(Denial::Shut(grant, Shut::NotYet)) => Explanation::NotYet(self.window(grant)),
            Err(Denial::Shut(grant, Shut::Delayed)) => Explanation::Delayed(self.window(grant)),
            Err(Denial::Shut(grant, Shut::Blocked)) => Explanation::Blocked(self.window(grant)),
            Err(Denial::Shut(grant, Shut::Doubted)) => Explanation::ClockStep(self.window(grant)),
            Err(Denial::Shut(grant, Shut::Behind)) => Explanation::ClockBehind(self.window(grant)),
        }
    }

    /// Says which grant covered a request that none covers now.
    fn explain_ended(&self, source: &SourceSpec, request: &Request) -> Explanation {
        let route = self.route(request.v6, request.dst);
        let Some(target) = route.and_then(|route| self.targets.get(&route.target)) else {
            return Explanation::UnknownTarget;
        };
        let covering = |spec: &GrantSpec| is_for(spec, source) && covers(spec, target, request);
        let ended = self.ended.latest(covering);
        ended.map_or(Explanation::NoGrant, |grant| Explanation::Over(self.window(grant)))
    }

    fn window(&self, id: GrantId) -> GrantWindow {
        let grant = self.grants.get(&id).or_else(|| self.ended.get(id));
        let window = grant.map(|grant| grant.window);
        GrantWindow {
            grant: id,
            from: window.and_then(|window| window.from),
            until: window.and_then(|window| window.until),
            ends_at: window.filter(|window| window.until.is_some()).map(|window| window.end),
        }
    }
}

/// The source of a login. It has no peer, and an address of each family.
fn login(user: Option<UserId>, role: Option<GrantRole>) -> SourceSpec {
    let addresses = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let owner = SourceOwner::User { user: user.unwrap_or(NOBODY), role };
    SourceSpec { peer: NOBODY, owner, addresses: addresses.into() }
}

/// An id that no object has.
const NOBODY: Id = Id::from_i64(0);

/// Returns both clocks at a wall time, as they run now.
fn instant(at: Wall, now: Now) -> Now {
    let mono: Mono = now.mono + at.since(now.wall) - now.wall.since(at);
    Now { mono, wall: at }
}

/// The answer that comes nearest to a permission counts.
fn rank(answer: &Explanation) -> u8 {
    match answer {
        Explanation::Permitted(_) => 10,
        Explanation::ClockStep(_) => 9,
        Explanation::ClockBehind(_) => 8,
        Explanation::Blocked(_) => 7,
        Explanation::Delayed(_) => 6,
        Explanation::NotYet(_) => 5,
        Explanation::Over(_) => 4,
        Explanation::NoGrant => 3,
        Explanation::NoCommonFamily => 2,
        Explanation::UnknownTarget => 1,
        Explanation::UnknownSource => 0,
    }
}
