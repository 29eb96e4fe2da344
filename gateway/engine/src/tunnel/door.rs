//! The one published port of the gateway's inner addresses, where a device may connect of its own accord.
//!
//! The tunnel that a SYN came through says who knocks; it is let in from the device's own addresses
//! only, within the shares of its stack and of all devices together. What is said over the stream is
//! the shell's concern.

use std::net::SocketAddr;

use fleetgate_probes::packet::Parsed;

use super::Tunnel;
use super::conn::opens;
use super::peers::Slot;
use super::session::Noise;
use super::stack::Stack;
use crate::wire::{DropReason, Output, PeerKind, StreamId, StreamOutput};

/// Connections of all devices together, which take 8 KB each here and three times that in the shell, where
/// large bodies share room of their own.
/// Each lasts a moment; a device that finds no room repeats its SYN a second later. They have places of
/// their own: however many come, the gateway's own questions go out.
const MAX_ACCEPTED: usize = 512;

/// Sets the numbers of these streams apart from those that the shell counts.
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
    /// A segment of no connection that there is.
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

    /// What comes from behind a device is not the device.
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
