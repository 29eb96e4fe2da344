//! Tunnels: peers, sessions, routes, the access filter, and TCP/IP inside the process.
//!
//! [`Tunnel`] is driven from outside: hand it an [`Input`] with the time, then take outputs until
//! [`Output::Wait`]. It knows no socket, no clock and no store.

mod floods;
pub mod front;
mod initiation;
pub mod noise;
pub mod session;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::id::PeerId;
use crate::time::Now;
use crate::wire::{
    Answer, Command, ConnectFailure, DropReason, Input, Output, PeerMemory, PeerSpec, PeerStatus,
    StreamInput, StreamOutput, Why,
};
use session::Noise;

/// What the tunnel has to know before the first peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub pool_v4: Ipv4Net,
    pub pool_v6: Ipv6Net,
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

/// All tunnels of a gateway. `seed` feeds every choice that must not be predictable: 32 bytes of
/// the operating system in production, a constant in tests.
pub struct Tunnel<N: Noise> {
    noise: N,
    peers: BTreeMap<PeerId, (PeerSpec, PeerMemory)>,
    out: VecDeque<Output>,
    drops: BTreeMap<DropReason, u64>,
    config: Config,
}

impl<N: Noise> Tunnel<N> {
    pub fn new(config: Config, noise: N, _seed: [u8; 32]) -> Self {
        Tunnel { noise, peers: BTreeMap::new(), out: VecDeque::new(), drops: BTreeMap::new(), config }
    }

    /// Takes over what the store knows, before the first datagram.
    pub fn restore(&mut self, peers: impl IntoIterator<Item = (PeerSpec, PeerMemory)>, now: Now) {
        for (spec, memory) in peers {
            self.handle(Input::Command(Command::Upsert(Box::new(spec), memory)), now);
        }
    }

    pub fn config(&self) -> Config {
        self.config
    }

    pub fn handle(&mut self, input: Input<'_>, _now: Now) {
        match input {
            Input::Command(Command::Upsert(spec, memory)) => {
                self.peers.insert(spec.id, (*spec, memory));
            }
            Input::Command(Command::Remove(id)) => {
                if let Some((spec, _)) = self.peers.remove(&id) {
                    spec.keys.iter().for_each(|key| self.noise.forget(&key.public));
                }
            }
            Input::Command(Command::Ask(ask)) => {
                self.out.push_back(Output::Answer(ask.id, Answer::Refused("no tunnel".into())));
            }
            Input::Command(Command::Stream(id, StreamInput::Open { .. })) => {
                let end = StreamOutput::Closed(Some(ConnectFailure::NoTunnel));
                self.out.push_back(Output::Stream(id, end));
            }
            _ => {}
        }
    }

    /// To be called until it says `Wait`.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop_front().unwrap_or(Output::Wait(None, Why::Idle))
    }

    pub fn status(&self, peer: PeerId) -> Option<PeerStatus> {
        self.peers.get(&peer).map(|_| PeerStatus::default())
    }

    /// Datagrams that belonged to no known peer, by reason.
    pub fn global_drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }
}
