//! Packets from peer to peer: the forwarder judges them, and the receiver's session seals them.
//!
//! A receiver without a session is dialled, and the packet is dropped: its sender repeats it. What is
//! forwarded counts as traffic of the peers, but not against the budget of their checks.

use super::Tunnel;
use crate::forward::Outcome;
use crate::id::PeerId;
use crate::messages::{DropReason, ExplainId, ExplainRequest, Output, PolicyChange, Transmit};
use crate::time::Now;
use crate::tunnel::peers::Slot;
use crate::tunnel::session::{Noise, Session};

/// Message type of an initiation.
const INITIATION: u8 = 1;

impl<N: Noise> Tunnel<N> {
    pub(super) fn change_policy(&mut self, changes: Vec<PolicyChange>) {
        for change in changes {
            self.forwarder.change(change, self.now);
        }
    }

    pub(super) fn explain(&mut self, id: ExplainId, question: &ExplainRequest) {
        let explanation = self.forwarder.explain(question, self.now);
        self.out.push_back(Output::Explanation(id, explanation));
    }

    /// Removes what the forwarder knows of a removed peer. Its flows end.
    pub(super) fn forget_forwarding(&mut self, peer: PeerId) {
        for change in [PolicyChange::RemoveSource(peer), PolicyChange::RemoveTarget(peer)] {
            self.forwarder.change(change, self.now);
        }
        self.forwarder.forget_peer(peer);
    }

    /// Reports what every flow carried, for the stop of the gateway. Nothing is forwarded afterwards.
    pub fn end_flows(&mut self, now: Now) {
        self.begin(now);
        self.end_forward_probes();
        self.forwarder.end_all(now);
        self.quiet = true;
        while let Some(record) = self.forwarder.next_record() {
            self.out.push_back(Output::Flow(record));
        }
    }

    /// Passes a packet on to another peer. Its source belongs to its sender.
    ///
    /// # Errors
    /// Fails with the reason when the packet is dropped. Its sender may have got an answer.
    pub(super) fn forward(
        &mut self,
        slot: Slot,
        sender: PeerId,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        if self.quiet {
            return Err(DropReason::NoSession);
        }
        match self.forwarder.packet(sender, packet, self.now) {
            Outcome::Forward { to, len } => {
                let sent = self.pass_on(to, &packet[..len]);
                if sent.is_err() {
                    self.dial_for_packet(to);
                }
                sent
            }
            Outcome::Diverted(flow) => self.diverted(flow, packet),
            Outcome::Dropped(reason) => Err(reason),
            Outcome::Answered(reason) => {
                let reply = self.forwarder.reply().to_vec();
                let _ = self.seal_forwarded(slot, &reply);
                Err(reason)
            }
        }
    }

    /// Sends what the forwarder has to say by itself: resets for connections that lost their grant.
    pub(super) fn run_forwarding(&mut self) -> bool {
        if let Some((to, packet)) = self.forwarder.work(self.now) {
            let packet = packet.to_vec();
            let _ = self.pass_on(to, &packet);
            return true;
        }
        let record = self.forwarder.next_record();
        let found = record.is_some();
        self.out.extend(record.map(Output::Flow));
        found
    }

    pub(super) fn pass_on(&mut self, to: PeerId, packet: &[u8]) -> Result<(), DropReason> {
        let slot = self.peers.find(to).ok_or(DropReason::NoRoute)?;
        let sent = self.seal_forwarded(slot, packet);
        self.settle(slot);
        sent
    }

    /// Dials a receiver without a session. A scan of many devices must not make more initiations in a turn
    /// than a start of the gateway does.
    pub(super) fn dial_for_packet(&mut self, to: PeerId) {
        let Some(slot) = self.peers.find(to) else { return };
        if self.budget.dial() && self.dial(slot, false) {
            self.settle(slot);
        }
    }

    fn seal_forwarded(&mut self, slot: Slot, packet: &[u8]) -> Result<(), DropReason> {
        let now = self.now;
        let peer = self.peers.get_mut(slot).ok_or(DropReason::NoRoute)?;
        let endpoint = peer.endpoint.ok_or(DropReason::NoSession)?;
        let link = peer.link_mut().ok_or(DropReason::NoSession)?;
        let (out, mut bytes, mut initiations) = (&mut self.out, 0, Vec::new());
        let sealed = link.session.send(packet, now.mono, &mut self.seal_scratch, &mut |datagram| {
            if datagram.first() == Some(&INITIATION) {
                initiations.push(datagram.to_vec());
                return;
            }
            bytes += datagram.len() as u64;
            let (to, from) = (endpoint.remote, endpoint.local);
            out.push_back(Output::Transmit(Transmit { to, from, bytes: datagram.to_vec() }));
        });
        sealed.map_err(|_| DropReason::NoSession)?;
        peer.traffic.tx_bytes += bytes;
        peer.traffic.tx_packets += 1;
        self.mark_changed(slot);
        if !initiations.is_empty() {
            self.transmit(slot, initiations, None);
        }
        Ok(())
    }
}
