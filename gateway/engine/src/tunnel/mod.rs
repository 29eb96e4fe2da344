//! Tunnels: peers, sessions, routes, and TCP/IP inside the process.
//!
//! The caller drives [`Tunnel`]: it hands in an [`Input`] with the time, then takes outputs until
//! [`Output::Wait`]. The tunnel uses no socket, clock or store. All `handle` calls of one turn of
//! the driver's loop carry the same `Now`, because budgets are per turn.

mod daily_traffic;
mod dns;
mod events;
mod forward_probes;
mod forwarding;
pub mod handshake;
mod icmp_error;
mod inbound;
pub mod noise;
mod outbox;
mod peer_config;
mod peer_sessions;
mod peers;
mod poll;
mod probe_flows;
mod probes;
mod random;
mod routes;
pub mod session;
mod session_index;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod tcp;
#[cfg(test)]
mod tests;
mod timer_wheel;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::dns::Dns;
use crate::forward::{self, ForwardTotals, Forwarder};
use crate::id::PeerId;
use crate::messages::{
    Command, DropReason, Input, Output, PeerSnapshot, PeerSpec, PeerStatus, RetiredKey, StreamId,
};
use crate::time::{ClockStep, Mono, Now};
use crate::tunnel::handshake::dial::Pacer;
use crate::tunnel::handshake::retired_keys::Retired;
use events::UnknownKeys;
use forward_probes::InFlight;
use inbound::Pending;
use outbox::Outbox;
use peers::{Peers, Slot};
use poll::Budget;
use random::Random;
use routes::Routes;
use session::{Noise, SCRATCH};
use session_index::Indices;
use tcp::published_port::Census;
use timer_wheel::Wheel;

pub use crate::tunnel::handshake::retired_keys::MAX_RETIRED;
#[cfg(any(test, feature = "sim"))]
pub use crate::tunnel::handshake::tai64n::from_unix_ms as stamp_from_unix_ms;
pub use crate::tunnel::probe_flows::MAX_IN_FLIGHT;
pub use crate::tunnel::tcp::stack::{MAX_CONNECTIONS, MTU};
pub use session_index::MAX_SESSIONS;

/// Scratch space for an initiation, with what the cryptography asks for besides.
const DIAL_SCRATCH: usize = 4_096;

/// How long a person counts as connected after a datagram.
const PERSON_CONNECTED: Duration = Duration::from_secs(30);

/// The settings that the tunnel needs before the first peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub pool_v4: Ipv4Net,
    pub pool_v6: Ipv6Net,
    /// The one port of the gateway's inner addresses that devices can connect to. People can connect
    /// to DNS, if [`Tunnel::serve_dns`] was called.
    pub results_port: Option<NonZeroU16>,
}

impl Config {
    /// The gateway's own inner address: the first usable one of the pool.
    pub fn gateway_v4(&self) -> Ipv4Addr {
        self.pool_v4.hosts().next().unwrap_or(self.pool_v4.addr())
    }

    /// The gateway's own inner address: the pool's `::1`.
    pub fn gateway_v6(&self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.pool_v6.network()) | 1)
    }
}

/// Counts of everything in the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub peers: usize,
    pub sessions: usize,
    /// TCP connections, including those that linger after their end.
    pub connections: usize,
    /// Initiations that wait to be answered.
    pub initiations_waiting: usize,
}

/// All tunnels of a gateway. `seed` feeds every choice that must be unpredictable: 32 bytes of the
/// operating system in production, a constant in tests.
pub struct Tunnel<N: Noise> {
    config: Config,
    noise: N,
    random: Random,
    peers: Peers<N::Session>,
    indices: Indices,
    routes: Routes,
    wheel: Wheel,
    pacer: Pacer,
    /// Opened initiations that wait for the expensive part of their handshake.
    initiations: VecDeque<Pending>,
    /// Stacks that wait to be polled.
    ready: VecDeque<Slot>,
    streams: HashMap<StreamId, Slot>,
    connections: Census,
    /// Renters with connections to their page.
    page_readers: BTreeSet<Slot>,
    /// Connections that peers opened since the start.
    arrivals: u64,
    /// Changed peers in the order in which they are to be published, with the time.
    changed: VecDeque<(Mono, Slot)>,
    unknown: UnknownKeys,
    retired: Retired,
    drops: BTreeMap<DropReason, u64>,
    /// Counted over all peers, also over those that were removed since.
    peer_drops: BTreeMap<DropReason, u64>,
    forwarder: Forwarder,
    dns: Option<Dns>,
    forward_probes: Vec<InFlight>,
    /// When a peer of a person was last heard.
    person_heard: Option<Mono>,
    out: VecDeque<Output>,
    outbox: Outbox,
    scratch: Box<[u8]>,
    /// For handshakes that begin while `scratch` holds a packet.
    dial_scratch: Box<[u8]>,
    budget: Budget,
    now: Now,
    /// When the datagram of this turn came to the socket. Without a datagram it is `now`.
    arrived: Mono,
    quiet: bool,
}

impl<N: Noise> Tunnel<N> {
    pub fn new(config: Config, noise: N, seed: [u8; 32]) -> Self {
        Tunnel {
            config,
            noise,
            random: Random::new(seed),
            peers: Peers::default(),
            indices: Indices::default(),
            routes: Routes::new(config),
            wheel: Wheel::default(),
            pacer: Pacer::default(),
            initiations: VecDeque::new(),
            ready: VecDeque::new(),
            streams: HashMap::new(),
            connections: Census::default(),
            page_readers: BTreeSet::new(),
            arrivals: 0,
            changed: VecDeque::new(),
            unknown: UnknownKeys::default(),
            retired: Retired::default(),
            drops: BTreeMap::new(),
            peer_drops: BTreeMap::new(),
            forwarder: Forwarder::new(forward::Config {
                gateway_v4: config.gateway_v4(),
                gateway_v6: config.gateway_v6(),
                limits: forward::Limits::default(),
            }),
            dns: None,
            forward_probes: Vec::new(),
            person_heard: None,
            out: VecDeque::new(),
            outbox: Outbox::default(),
            scratch: vec![0; SCRATCH].into(),
            dial_scratch: vec![0; DIAL_SCRATCH].into(),
            budget: Budget::default(),
            now: Now::default(),
            arrived: Mono::ZERO,
            quiet: false,
        }
    }

    /// Restores the peers from the store, before the first datagram.
    pub fn restore(&mut self, peers: impl IntoIterator<Item = (PeerSpec, PeerSnapshot)>, now: Now) {
        self.begin(now);
        for (spec, memory) in peers {
            self.upsert(spec, memory);
        }
    }

    /// Restores the former keys of peers, removed peers included. [`MAX_RETIRED`] are kept.
    pub fn restore_retired(&mut self, keys: impl IntoIterator<Item = RetiredKey>) {
        for key in keys {
            if self.peers.find_key(&key.public).is_none() {
                self.retired.add(key);
            }
        }
    }

    pub fn config(&self) -> Config {
        self.config
    }

    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        self.begin(now);
        self.arrived = now.mono;
        match input {
            Input::Datagram { from, to, arrived, bytes } => {
                self.arrived = arrived;
                self.datagram(from, to, bytes);
            }
            Input::Command(command) => self.command(command),
            Input::Timeout => {}
        }
    }

    fn begin(&mut self, now: Now) {
        if now.mono != self.now.mono {
            self.budget = Budget::default();
        }
        let before = std::mem::replace(&mut self.now, now);
        // Nothing was read before the first time.
        let step = ClockStep::between(before, now).filter(|_| before != Now::default());
        if let Some(step) = step {
            self.mind_step(step);
            self.forwarder.clock(Some(step), now);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Upsert(spec, memory) => self.upsert(*spec, memory),
            Command::Remove(peer) => self.remove(peer),
            Command::ResetClock(peer) => self.reset_clock(peer),
            Command::DialAll => self.dial_all(),
            Command::ProbeRequest(ask) => self.ask(ask),
            Command::Stream(id, input) => self.stream(id, input),
            Command::Policy(changes) => self.change_policy(changes),
            Command::Explain(id, question) => self.explain(id, &question),
            Command::DnsQuery(id, peer, query) => self.stream_query(id, peer, &query),
            Command::DnsReply(client, reply) => self.reply_to_query(client, &reply),
            Command::ForwardProbe(id, probe) => self.probe_forwarding(id, &probe),
            Command::Quiesce => self.quiesce(),
        }
    }

    /// Returns the next output. The caller calls it until it returns `Wait`. Datagrams of the turn are
    /// gathered by destination, but do not wait for a handshake.
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.out.pop_front() {
                return output;
            }
            if self.may_answer_initiation()
                && let Some(transmit) = self.outbox.pop()
            {
                return Output::Transmit(transmit);
            }
            if !self.work() {
                return self.outbox.pop().map_or_else(|| self.wait(), Output::Transmit);
            }
        }
    }

    /// Takes the buffer of a `Transmit` that was sent, for datagrams to come.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        self.outbox.lend(buffer);
    }

    #[cfg(test)]
    fn poll_output_wait(&mut self) -> Option<Mono> {
        match self.poll_output() {
            Output::Wait(at, _) => at,
            other => panic!("drained is expected, not {other:?}"),
        }
    }

    pub fn status(&self, peer: PeerId) -> Option<PeerStatus> {
        self.peers.get(self.peers.find(peer)?).map(|peer| peer.status())
    }

    /// Datagrams that belonged to no known peer, by reason.
    pub fn global_drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// Datagrams and packets of peers that were dropped, by reason. No count gets smaller.
    pub fn peer_drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.peer_drops
    }

    /// TCP connections, including those that linger after their end.
    pub fn connections(&self) -> usize {
        self.connections.all
    }

    /// Whether packets may have to be passed on at any moment: a person is connected. Keepalives come each
    /// 25 s.
    pub fn expects_packets(&self, now: Mono) -> bool {
        self.person_heard.is_some_and(|heard| now.since(heard) < PERSON_CONNECTED)
    }

    pub fn forwarding(&self) -> ForwardTotals {
        self.forwarder.totals()
    }

    pub fn totals(&self) -> Totals {
        Totals {
            peers: self.peers.len(),
            sessions: self.indices.len(),
            connections: self.connections.all,
            initiations_waiting: self.initiations.len(),
        }
    }
}
