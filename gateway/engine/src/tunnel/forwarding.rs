//! Packets from peer to peer: the forwarder judges them, and the receiver's session seals them.
//!
//! A receiver without a session is dialled, and the packet is dropped: its sender repeats it. What is
//! forwarded counts as traffic of the peers, but not against the budget of their checks.

use super::Tunnel;
use crate::forward::Outcome;
use crate::id::PeerId;
use crate::messages::{DropReason, ExplainId, ExplainRequest, Output, PolicyChange, TargetId};
use crate::time::Now;
use crate::tunnel::peers::Slot;
use crate::tunnel::session::Noise;

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
        for change in [PolicyChange::RemoveSource(peer), PolicyChange::RemoveTarget(TargetId::Host(peer))] {
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
                self.send_resets_before();
                let sent = self.pass_on(to, &packet[..len]);
                if sent.is_err() {
                    self.forwarder.not_sent(sender, to, len);
                    self.dial_for_packet(to);
                }
                sent
            }
            Outcome::Diverted(flow) => self.diverted(flow, packet),
            Outcome::Dropped(reason) => Err(reason),
            Outcome::Answered(reason) => {
                let reply = self.forwarder.take_reply();
                // Without a session there is no way back.
                let _ = self.seal_packet(slot, &reply);
                self.forwarder.return_reply(reply);
                Err(reason)
            }
        }
    }

    /// Sends the resets of connections whose place the next packet takes.
    fn send_resets_before(&mut self) {
        while let Some((to, reset)) = self.forwarder.reset_before() {
            let reset = reset.to_vec();
            let _ = self.pass_on(to, &reset);
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
        let sent = self.seal_packet(slot, packet);
        self.settle(slot);
        sent.map(|_| ()).map_err(|_| DropReason::NoSession)
    }

    /// Dials a receiver without a session. A scan of many devices must not make more initiations in a turn
    /// than a start of the gateway does. A packet that begins no dial takes nothing from that budget.
    pub(super) fn dial_for_packet(&mut self, to: PeerId) {
        let Some(slot) = self.peers.find(to) else { return };
        if self.begins_dial(slot) && self.budget.dial() && self.dial(slot, false) {
            self.settle(slot);
        }
    }
}
