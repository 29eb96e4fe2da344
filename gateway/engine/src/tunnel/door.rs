//! The one published port of the gateway's inner addresses. Devices may open connections to it.
//!
//! The tunnel that a SYN came through identifies the device. A SYN is accepted only from the
//! device's own addresses, within the limits of its stack and of all devices together. The shell
//! handles the content of the stream.

use std::net::SocketAddr;

use fleetgate_probes::packet::Parsed;

use super::Tunnel;
use super::conn::opens;
use super::peers::Slot;
use super::session::Noise;
use super::stack::Stack;
use crate::wire::{DropReason, Output, PeerKind, StreamId, StreamOutput};

/// Connections of all devices together. Each takes 8 KB here and three times that in the shell,
/// where large bodies share a budget of their own. A connection is short; a device that finds no
/// room repeats its SYN a second later. The limit is separate from the one for the gateway's own
/// probes, so accepted connections cannot displace them.
const MAX_ACCEPTED: usize = 512;

/// Marks the ids of these streams, so that they never collide with those that the shell assigns.
const ACCEPTED: u64 = 1 << 63;

/// The connections of a stack.
#[derive(Clone, Copy, Default)]
pub struct Census {
    all: usize,
    accepted: usize,
}

impl Census {
    pub fn of(stack: &Stack) -> Self {
        Census { all: stack.connections(), accepted: stack.accepted() }
    }
}

impl<N: Noise> Tunnel<N> {
    /// Takes a segment that belongs to no existing connection.
    pub(super) fn knock(&mut self, slot: Slot, packet: &Parsed<'_>, bytes: &[u8]) -> Result<(), DropReason> {
        if !self.is_published(slot, packet) {
            return Err(DropReason::Unsolicited);
        }
        if self.accepted >= MAX_ACCEPTED {
            return Err(DropReason::Budget);
        }
        let id = StreamId(ACCEPTED | self.arrivals);
        let (config, now) = (self.config, self.now.mono);
        let peer = self.peers.get_mut(slot).ok_or(DropReason::Unsolicited)?;
        let new = || Box::new(Stack::new(config, &mut self.random, now));
        let stack = peer.live().stack.get_or_insert_with(new);
        if !stack.accept(id, packet, now) {
            return Err(DropReason::Budget);
        }
        let pushed = stack.push(packet, bytes);
        self.arrivals += 1;
        self.accepted += 1;
        self.connections += 1;
        self.streams.insert(id, slot);
        self.wake(slot);
        if pushed { Ok(()) } else { Err(DropReason::Budget) }
    }

    /// Returns whether a packet opens a connection to the published port. Packets from a network
    /// behind a device do not count as the device's.
    fn is_published(&self, slot: Slot, packet: &Parsed<'_>) -> bool {
        let port = self.config.results_port.filter(|_| !self.quiet);
        let to_port = port.is_some_and(|port| opens(packet).is_some_and(|(_, to)| to == port.get()));
        let by_device = |peer: &super::peers::Peer<N::Session>| {
            peer.kind == PeerKind::Device && peer.addresses.contains(&packet.src)
        };
        to_port && self.peers.get(slot).is_some_and(by_device)
    }

    pub(super) fn accepted(&mut self, id: StreamId, from: SocketAddr) {
        let peer = self.streams.get(&id).and_then(|slot| self.peers.get(*slot));
        if let Some(peer) = peer {
            let word = StreamOutput::Accepted { peer: peer.id, from };
            self.out.push_back(Output::Stream(id, word));
        }
    }

    pub(super) fn recount(&mut self, before: Census, after: Census) {
        self.connections -= before.all - after.all;
        self.accepted -= before.accepted - after.accepted;
    }
}
