//! Probes of forwarding: the gateway sends a packet in the name of a source, by the code that judges
//! the packets of peers. The answers are diverted to the gateway: nothing of such a flow reaches its
//! source, and nothing is recorded as traffic of the source. The caller sends, repeats and gives up.

use std::net::IpAddr;

use super::Forwarder;
use super::admit::{Packet, Refusal, key};
use super::explain::Ends;
use super::flows::FlowId;
use super::headers::{ACK, Ip, RST, SYN, Transport, bits};
use super::reject::{Reset, build_segment};
use crate::id::PeerId;
use crate::messages::{DropReason, ExplainRequest, Explanation};
use crate::time::Now;

/// Offered by a SYN that opens nothing: some hosts answer a window of zero differently.
const WINDOW: u16 = 1_024;

/// The probe of a diverted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An echo reply, or an ICMP error: what it quotes shows whether it is about the probe.
    Icmp,
    /// The target accepts the connection whose first segment is acknowledged.
    Accepted {
        acknowledged: u32,
    },
    Refused {
        acknowledged: u32,
    },
}

impl Answer {
    /// Reads a diverted packet. `None`: it is none of these.
    pub fn read(packet: &[u8]) -> Option<Answer> {
        let ip = Ip::parse(packet).ok()?;
        match Transport::parse(&ip, packet).ok()? {
            Transport::EchoReply { .. } | Transport::IcmpError => Some(Answer::Icmp),
            Transport::Tcp(segment) if segment.has(RST) => {
                Some(Answer::Refused { acknowledged: segment.ack })
            }
            Transport::Tcp(segment) if segment.has(SYN) && segment.has(ACK) => {
                Some(Answer::Accepted { acknowledged: segment.ack })
            }
            _ => None,
        }
    }
}

/// Builds the first segment of a connection.
pub fn syn((src, src_port): (IpAddr, u16), (dst, dst_port): (IpAddr, u16), seq: u32) -> Vec<u8> {
    let ends = [(bits(src), src_port), (bits(dst), dst_port)];
    let mut packet = Vec::new();
    build_segment(&mut packet, dst.is_ipv6(), ends, (seq, 0), SYN, WINDOW);
    packet
}

impl Forwarder {
    /// Says what the filter does with a packet, and which packet decides.
    pub fn explain_packet(&self, question: &ExplainRequest, now: Now) -> (Explanation, Option<Ends>) {
        self.policy.explain_packet(question, now)
    }

    /// Judges a packet that the gateway sends in the name of `source`, as one of the source itself. It
    /// is rewritten for the peer that it goes to.
    ///
    /// # Errors
    /// Fails with the reason why the filter drops it. A packet that could belong to a flow of the source
    /// itself is a conflict.
    pub fn open_probe(
        &mut self,
        source: PeerId,
        packet: &mut [u8],
        now: Now,
    ) -> Result<(PeerId, FlowId), DropReason> {
        self.begin(now);
        let ip = Ip::parse(packet)?;
        let transport = Transport::parse(&ip, packet)?;
        let key = key(source, &ip, &transport).ok_or(DropReason::NoFlow)?;
        if self.live(&key, now).is_some() {
            return Err(DropReason::FlowConflict);
        }
        let to = self.open(&key, Packet { ip, transport, bytes: packet }).map_err(reason)?;
        let (slot, _) = self.flows.find(&key).ok_or(DropReason::NoFlow)?;
        let flow = self.flows.get_mut(slot).ok_or(DropReason::NoFlow)?;
        flow.become_probe();
        Ok((to, flow.id(slot)))
    }

    /// Judges the repetition of a probe's packet.
    ///
    /// # Errors
    /// Fails with the reason why it does not pass any more.
    pub fn repeat_probe(&mut self, flow: FlowId, now: Now) -> Result<(), DropReason> {
        self.begin(now);
        self.flows.living(flow).ok_or(DropReason::NoFlow)?;
        self.permitted(flow.slot)
    }

    /// Ends the flow of a probe. Later packets for it are dropped. `reset_at`: the sequence number of
    /// a reset for the target, which goes to the peer in front.
    pub fn close_probe(&mut self, flow: FlowId, reset_at: Option<u32>) -> Option<(PeerId, &[u8])> {
        self.flows.living(flow)?;
        let path = self.flows.remove(flow.slot)?.path;
        let (src, dst) = (path.src, path.real);
        let (src_port, dst_port) = (path.src_port, path.dst_port);
        let reset = Reset { v6: path.v6, src, dst, src_port, dst_port, seq: reset_at?, ack: None };
        reset.build(&mut self.reply);
        Some((path.device, &self.reply))
    }
}

fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Silent(reason) | Refusal::Denied(reason) => reason,
        Refusal::TimeExceeded => DropReason::Ttl,
        Refusal::TooBig(_) => DropReason::TooBig,
        // A flow that is opened goes out.
        Refusal::Diverted(_) => DropReason::NoFlow,
    }
}
