//! Forwarding between peers by time-bound grants.
//!
//! The caller hands in each inner packet that is not for the gateway itself, with the peer that it
//! came from; the packet is rewritten in place and goes on, or it is dropped with a reason. Peers
//! of people (sources) open flows: operators to hosts, and renters to the devices that are rented to
//! them. A device only replies in flows that a source opened. The policy is compared for every packet,
//! in both directions: a flow adds only that replies and related errors are expected. The forwarder
//! knows no sessions, sockets or store, and the caller has verified that the source address belongs
//! to the sender.

mod admit;
#[cfg(any(test, feature = "sim"))]
pub mod bench;
mod blocks;
mod checksum;
mod ended;
mod explain;
mod flows;
mod fragments;
mod gate;
mod grant;
mod grant_index;
mod headers;
mod icmp_errors;
mod lists;
mod names;
mod peers;
mod policy;
mod probe;
mod records;
mod reject;
mod rewrite;
mod tcp_state;
#[cfg(test)]
mod tests;
mod timers;
mod window;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::{CustomerId, PeerId};
use crate::messages::{DropReason, ExplainRequest, Explanation, FlowRecord, PolicyChange};
use crate::time::{ClockStep, Now, Wall};
use admit::Refusal;
use flows::Flows;
use fragments::Fragments;
use headers::{Bits, Ip, Transport};
use lists::{List, Scope, Slot, Spare};
use policy::Policy;
use records::Records;
use reject::{IcmpError, Reset};
use tcp_state::Direction;
use work::Budget;

pub use blocks::{Block, KnownTimes};
pub use explain::Ends;
pub use flows::{FlowId, Limits};
pub use peers::Forwarded;
pub use probe::{Answer, syn};

/// The settings that the forwarder needs before the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The gateway's inner addresses, from which it sends ICMP errors.
    pub gateway_v4: Ipv4Addr,
    pub gateway_v6: Ipv6Addr,
    pub limits: Limits,
}

/// The outcome of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first `len` bytes of the buffer go to this peer.
    Forward {
        to: PeerId,
        len: usize,
    },
    Dropped(DropReason),
    /// The answer to a probe of the gateway's own, as its source would have got it. It goes to no peer.
    Diverted(FlowId),
    /// Dropped, and an answer to its sender stands in [`Forwarder::reply`].
    Answered(DropReason),
}

/// Counts of everything in the forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardTotals {
    pub grants: usize,
    pub sources: usize,
    pub targets: usize,
    pub flows: usize,
    pub half_open: usize,
    /// Records of flows that were lost because nobody took them.
    pub lost_records: u64,
}

/// All flows between the peers of a gateway, and the policy that permits them.
pub struct Forwarder {
    gateway_v4: Bits,
    gateway_v6: Bits,
    policy: Policy,
    flows: Flows,
    fragments: Fragments,
    peers: peers::Peers,
    records: Records,
    /// Lists of flows that a change may have cut, with the number of flows to look at.
    reviews: BTreeMap<List, usize>,
    /// The next of all flows to look at, after the clock was doubted.
    sweep: Option<Slot>,
    /// Resets for connections that were cut and whose place a new flow has taken.
    displaced: VecDeque<(PeerId, Reset)>,
    reply: Vec<u8>,
    /// The flow of the last packet that passed, and its direction.
    counted: Option<(FlowId, Direction)>,
    budget: Budget,
    now: Now,
}

impl Forwarder {
    pub fn new(config: Config) -> Self {
        Forwarder {
            gateway_v4: u128::from(u32::from(config.gateway_v4)),
            gateway_v6: u128::from(config.gateway_v6),
            policy: Policy::default(),
            flows: Flows::new(config.limits),
            fragments: Fragments::default(),
            peers: peers::Peers::default(),
            records: Records::default(),
            reviews: BTreeMap::new(),
            sweep: None,
            displaced: VecDeque::new(),
            reply: Vec::with_capacity(reject::LARGEST),
            counted: None,
            budget: Budget::default(),
            now: Now::default(),
        }
    }

    /// Judges one inner packet of `sender`, without bytes behind its end. It is rewritten in place
    /// if it passes. [`Forwarder::reset_before`] says what goes out before it.
    pub fn packet(&mut self, sender: PeerId, packet: &mut [u8], now: Now) -> Outcome {
        self.begin(now);
        match self.admit(sender, packet, now) {
            Ok(to) => {
                self.peers.count(sender, to, packet.len());
                Outcome::Forward { to, len: packet.len() }
            }
            Err(refusal) => self.refuse(sender, packet, refusal),
        }
    }

    /// Takes back the count of the last [`Outcome::Forward`]: it could not be sent.
    pub fn not_sent(&mut self, sender: PeerId, to: PeerId, len: usize) {
        self.peers.uncount(sender, to, len);
        let Some((id, direction)) = self.counted.take() else { return };
        // A reset that passed has ended its flow.
        if let Some(flow) = self.flows.get_mut(id.slot).filter(|flow| flow.id(id.slot) == id) {
            flow.uncount(direction, len);
        }
    }

    /// The answer that the last [`Outcome::Answered`] announced.
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Takes the answer out. The caller returns its buffer.
    pub fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reply)
    }

    pub fn return_reply(&mut self, buffer: Vec<u8>) {
        self.reply = buffer;
    }

    /// Applies a change of the policy. It holds for the next packet; [`Forwarder::work`] resets the
    /// flows that it cuts.
    pub fn change(&mut self, change: PolicyChange, now: Now) {
        self.begin(now);
        match &change {
            PolicyChange::Source(spec) => self.peers.add(spec.peer),
            PolicyChange::Target(spec) => self.peers.add(spec.peer),
            PolicyChange::AcceptClock => self.sweep = Some(0),
            _ => {}
        }
        for list in self.policy.change(change, now) {
            self.review_all(list);
        }
    }

    /// Notes the progress of the clocks. `step`: the wall clock was set. The caller calls it before
    /// the first packet after the step. The first reading of all is no step.
    pub fn clock(&mut self, step: Option<ClockStep>, now: Now) {
        let is_first = self.now == Now::default();
        if let Some(step) = step.filter(|_| !is_first) {
            // A doubt whose time has come ends by the clock that this step leaves.
            self.begin(window::before(step, now));
            for list in self.policy.step(step, now) {
                self.review_all(list);
            }
        }
        self.begin(now);
    }

    /// Sets the largest inner packet that a peer takes.
    pub fn set_mtu(&mut self, peer: PeerId, mtu: u16) {
        self.peers.set_mtu(peer, mtu);
    }

    /// Forgets the counters and the MTU of a removed peer. The policy removes what it reaches.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.peers.remove(peer);
    }

    pub fn forwarded(&self, peer: PeerId) -> Forwarded {
        self.peers.forwarded(peer)
    }

    /// Says what the filter does with a packet at a time, and why. The same code decides.
    pub fn explain(&self, question: &ExplainRequest, now: Now) -> Explanation {
        self.policy.explain(question, now)
    }

    /// Returns whether a peer may use grants.
    pub fn is_source(&self, peer: PeerId) -> bool {
        self.policy.is_source(peer)
    }

    /// Returns whether a peer is a renter, who reaches rentals alone.
    pub fn is_renter(&self, peer: PeerId) -> bool {
        self.policy.is_renter(peer)
    }

    /// Returns the customer of a renter.
    pub fn customer(&self, peer: PeerId) -> Option<CustomerId> {
        self.policy.customer(peer)
    }

    /// Returns the addresses at which a peer reaches the hosts or rentals of this name now: all that explain would
    /// permit anything to.
    pub fn addresses_of(&self, peer: PeerId, name: &str, now: Now) -> Vec<IpAddr> {
        self.policy.addresses_of(peer, name, now)
    }

    /// Returns whether a peer reaches a host or rental now whose name is below this one, as `cam.north` is below
    /// `north`.
    pub fn reaches_below(&self, peer: PeerId, name: &str, now: Now) -> bool {
        self.policy.reaches_below(peer, name, now)
    }

    /// Returns the name of the host or rental that a peer reaches at this address now.
    pub fn name_of(&self, peer: PeerId, address: IpAddr, now: Now) -> Option<&str> {
        self.policy.name_of(peer, address, now)
    }

    /// Returns whether the clock is behind the time of an earlier run, so that no grant with a
    /// window passes.
    pub fn is_clock_behind(&self, now: Wall) -> bool {
        self.policy.is_behind(now)
    }

    /// Ends every flow with a record, for the stop of the gateway. The ends get no resets: a client
    /// gets one when it goes on after the start.
    pub fn end_all(&mut self, now: Now) {
        self.begin(now);
        for slot in 0..self.flows.places() {
            self.stop(slot);
        }
        self.reviews.clear();
        self.displaced.clear();
        self.sweep = None;
    }

    /// Takes the oldest record of a flow.
    pub fn next_record(&mut self) -> Option<FlowRecord> {
        self.records.pop()
    }

    pub fn totals(&self) -> ForwardTotals {
        ForwardTotals {
            grants: self.policy.grants.len(),
            sources: self.policy.sources.len(),
            targets: self.policy.targets.len(),
            flows: self.flows.len(),
            half_open: self.flows.count(List::Spare(Spare::HalfOpen, Scope::All)),
            lost_records: self.records.lost(),
        }
    }

    fn begin(&mut self, now: Now) {
        if now.mono != self.now.mono {
            self.progress(now);
        }
        self.now = now;
    }

    fn progress(&mut self, now: Now) {
        self.budget = Budget::default();
        if self.now == Now::default() {
            self.policy.start(now);
        }
        if self.policy.end_doubt(now) {
            self.sweep = Some(0);
        }
    }

    fn gateway(&self, v6: bool) -> Bits {
        if v6 { self.gateway_v6 } else { self.gateway_v4 }
    }

    fn refuse(&mut self, sender: PeerId, packet: &[u8], refusal: Refusal) -> Outcome {
        let (reason, answered) = match refusal {
            Refusal::Diverted(flow) => return Outcome::Diverted(flow),
            Refusal::Silent(reason) => (reason, false),
            Refusal::Denied(reason) => (reason, self.reject(sender, packet)),
            Refusal::TimeExceeded => (DropReason::Ttl, self.report(sender, packet, IcmpError::TimeExceeded)),
            Refusal::TooBig(mtu) => {
                (DropReason::TooBig, self.report(sender, packet, IcmpError::TooBig { mtu }))
            }
        };
        if answered { Outcome::Answered(reason) } else { Outcome::Dropped(reason) }
    }

    /// Answers a denied packet of a source, so that its client fails at once. Returns false if it
    /// gets no answer.
    fn reject(&mut self, sender: PeerId, packet: &[u8]) -> bool {
        if !self.policy.is_source(sender) {
            return false;
        }
        let Ok(ip) = Ip::parse(packet) else { return false };
        let transport = Transport::parse(&ip, packet).ok();
        if !reject::may_report_about(&ip, transport.as_ref()) {
            return false;
        }
        let reset = transport.as_ref().and_then(|transport| Reset::answering(&ip, transport));
        if reset.is_none() && matches!(transport, Some(Transport::Tcp(_))) {
            return false;
        }
        if !self.peers.may_reject(sender, self.now.mono) {
            return false;
        }
        match reset {
            Some(reset) => reset.build(&mut self.reply),
            None => {
                let gateway = self.gateway(ip.v6);
                reject::build_error(&mut self.reply, gateway, &ip, packet, IcmpError::Prohibited);
            }
        }
        true
    }

    /// Answers a permitted packet that cannot go on.
    fn report(&mut self, sender: PeerId, packet: &[u8], error: IcmpError) -> bool {
        let Ok(ip) = Ip::parse(packet) else { return false };
        let transport = Transport::parse(&ip, packet).ok();
        if !reject::may_report_about(&ip, transport.as_ref()) || !self.peers.may_report(sender, self.now.mono)
        {
            return false;
        }
        let gateway = self.gateway(ip.v6);
        reject::build_error(&mut self.reply, gateway, &ip, packet, error);
        true
    }
}
