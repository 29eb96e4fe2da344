//! Probes of forwarding: a packet with the address of a source goes through the filter to its target,
//! and the answer comes back to the gateway alone.
//!
//! Each probe gets exactly one reply, in time. Its packet is repeated each second, because a device may
//! have to be dialled first. The filter judges each repetition.

use std::time::Duration;

use fleetgate_probes::echo::EchoProbe;
use fleetgate_probes::packet::{TCP, parse};

use super::Tunnel;
use super::icmp_error::Undelivered;
use super::session::Noise;
use crate::forward::{Answer, Ends, FlowId, syn};
use crate::id::PeerId;
use crate::messages::{
    DropReason, ExplainId, ExplainRequest, Explanation, ForwardProbe, ForwardProbeKind, ForwardProbeOutcome,
    ForwardProbeReply, GrantProtocol, Output,
};
use crate::time::{Mono, Wall};

/// Probes in flight. People ask one question at a time.
pub const MAX_FORWARD_PROBES: usize = 16;

/// Time between two packets of a probe, as between the first SYNs of a client.
const REPEAT_EVERY: Duration = Duration::from_secs(1);

/// Attempts to find a port or identifier that the source itself does not use.
const ATTEMPTS: usize = 4;

/// The first port of probes. They are 16,384 ports below those that operating systems give to clients.
const FIRST_PORT: u16 = 16_384;

/// How an answer is told from another packet.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Echo(EchoProbe),
    Connect { src_port: u16, seq: u32 },
}

/// A probe that waits for its answer.
pub struct InFlight {
    id: ExplainId,
    explanation: Explanation,
    ends: Ends,
    sign: Sign,
    flow: FlowId,
    to: PeerId,
    /// As it goes to the target.
    packet: Vec<u8>,
    /// When a session first took the packet.
    sent: Option<Mono>,
    /// When the packet is sent again.
    due: Mono,
    deadline: Mono,
}

impl InFlight {
    /// Returns when there is something to do.
    pub fn next(&self) -> Mono {
        self.due.min(self.deadline)
    }

    /// Says what a packet of its flow means, and whether the target needs a reset. `None`: it is no
    /// answer to the probe.
    fn read(&self, packet: &[u8], arrived: Mono) -> Option<(ForwardProbeOutcome, Option<u32>)> {
        let took = arrived.since(self.sent.unwrap_or(arrived));
        let expected = |acknowledged| match self.sign {
            Sign::Connect { seq, .. } => seq.wrapping_add(1) == acknowledged,
            Sign::Echo(_) => false,
        };
        match Answer::read(packet)? {
            Answer::Accepted { acknowledged } if expected(acknowledged) => {
                Some((ForwardProbeOutcome::Answered(took), Some(acknowledged)))
            }
            Answer::Refused { acknowledged } if expected(acknowledged) => {
                Some((ForwardProbeOutcome::Refused(took), None))
            }
            Answer::Icmp => self.read_icmp(packet, took).map(|outcome| (outcome, None)),
            Answer::Accepted { .. } | Answer::Refused { .. } => None,
        }
    }

    fn read_icmp(&self, packet: &[u8], took: Duration) -> Option<ForwardProbeOutcome> {
        let packet = parse(packet).ok()?;
        if let Some(error) = Undelivered::parse(&packet) {
            let quoted = self.is_quoted_by(&error);
            return quoted.then_some(ForwardProbeOutcome::Unreachable(took, error.reason));
        }
        match self.sign {
            Sign::Echo(probe) if probe.is_answered_by(&packet) => Some(ForwardProbeOutcome::Answered(took)),
            _ => None,
        }
    }

    /// Returns whether an error quotes the packet, by what nobody but its receivers knows.
    fn is_quoted_by(&self, error: &Undelivered) -> bool {
        let word = |at: usize| u16::from_be_bytes([error.quoted[at], error.quoted[at + 1]]);
        let ends = (error.src, error.dst) == (self.ends.src, self.ends.dst);
        let numbers = match self.sign {
            Sign::Echo(probe) => error.protocol != TCP && (word(4), word(6)) == (probe.ident, probe.seq),
            Sign::Connect { src_port, seq } => {
                let quoted = u32::from(word(4)) << 16 | u32::from(word(6));
                error.protocol == TCP && (word(0), quoted) == (src_port, seq)
            }
        };
        ends && numbers
    }
}

impl<N: Noise> Tunnel<N> {
    pub(super) fn probe_forwarding(&mut self, id: ExplainId, probe: &ForwardProbe) {
        let question = question(probe, self.now.wall);
        let (explanation, ends) = self.forwarder.explain_packet(&question, self.now);
        let (Explanation::Permitted(_), Some(ends)) = (explanation, ends) else {
            return self.reply_to_probe(id, explanation, None, ForwardProbeOutcome::Denied);
        };
        if self.quiet || self.forward_probes.len() >= MAX_FORWARD_PROBES {
            return self.reply_to_probe(id, explanation, None, ForwardProbeOutcome::Busy);
        }
        match self.open_probe(ends, probe.kind) {
            Ok((to, flow, sign, packet)) => {
                let (due, deadline) = (self.now.mono, self.now.mono + probe.timeout);
                let sent = None;
                let probe = InFlight { id, explanation, ends, sign, flow, to, packet, sent, due, deadline };
                self.forward_probes.push(probe);
            }
            Err(reason) => {
                self.reply_to_probe(id, explanation, Some(ends), ForwardProbeOutcome::Dropped(reason));
            }
        }
    }

    /// Makes a packet that belongs to no flow of the source itself, and hands it to the filter.
    fn open_probe(
        &mut self,
        ends: Ends,
        kind: ForwardProbeKind,
    ) -> Result<(PeerId, FlowId, Sign, Vec<u8>), DropReason> {
        for _ in 0..ATTEMPTS {
            let (sign, mut packet) = self.probe_packet(ends, kind)?;
            match self.forwarder.open_probe(ends.source, &mut packet, self.now) {
                Ok((to, flow)) => return Ok((to, flow, sign, packet)),
                Err(DropReason::FlowConflict) => {}
                Err(reason) => return Err(reason),
            }
        }
        Err(DropReason::FlowConflict)
    }

    fn probe_packet(&mut self, ends: Ends, kind: ForwardProbeKind) -> Result<(Sign, Vec<u8>), DropReason> {
        let Ends { src, dst, .. } = ends;
        let random = &mut self.random;
        match kind {
            ForwardProbeKind::Echo => {
                let (ident, seq, cookie) = (random.u16(), random.u16(), random.bytes());
                let probe = EchoProbe { from: src, to: dst, ident, seq, cookie, padding: 0 };
                let packet = probe.request().map_err(|_| DropReason::BadPacket)?;
                Ok((Sign::Echo(probe), packet))
            }
            ForwardProbeKind::Connect { port } => {
                let (src_port, seq) = (FIRST_PORT | random.u16() & (FIRST_PORT - 1), random.u32());
                Ok((Sign::Connect { src_port, seq }, syn((src, src_port), (dst, port), seq)))
            }
        }
    }

    /// Takes a packet of a probe's flow.
    ///
    /// # Errors
    /// Fails when it is no answer to the probe.
    pub(super) fn diverted(&mut self, flow: FlowId, packet: &[u8]) -> Result<(), DropReason> {
        let arrived = self.arrived;
        let found = self.forward_probes.iter().position(|probe| probe.flow == flow);
        let place = found.ok_or(DropReason::NoFlow)?;
        let (outcome, reset_at) =
            self.forward_probes[place].read(packet, arrived).ok_or(DropReason::NoFlow)?;
        let probe = self.forward_probes.remove(place);
        self.finish_probe(probe, outcome, reset_at);
        Ok(())
    }

    /// Sends one packet that is due, or gives up one probe.
    pub(super) fn run_forward_probe(&mut self) -> bool {
        let now = self.now;
        let Some(place) = self.forward_probes.iter().position(|probe| probe.next() <= now.mono) else {
            return false;
        };
        let flow = self.forward_probes[place].flow;
        let outcome = match self.forwarder.repeat_probe(flow, now) {
            Err(reason) => ForwardProbeOutcome::Dropped(reason),
            Ok(()) if self.forward_probes[place].deadline > now.mono => {
                self.send_probe(place);
                return true;
            }
            Ok(()) if self.forward_probes[place].sent.is_none() => ForwardProbeOutcome::NoTunnel,
            Ok(()) => ForwardProbeOutcome::NoAnswer,
        };
        let probe = self.forward_probes.remove(place);
        self.finish_probe(probe, outcome, None);
        true
    }

    fn send_probe(&mut self, place: usize) {
        let now = self.now.mono;
        let (to, packet) = (self.forward_probes[place].to, self.forward_probes[place].packet.clone());
        let is_sent = self.pass_on(to, &packet).is_ok();
        if !is_sent {
            self.dial_for_packet(to);
        }
        let probe = &mut self.forward_probes[place];
        probe.due = now + REPEAT_EVERY;
        probe.sent = probe.sent.or(is_sent.then_some(now));
    }

    /// Ends the probes in flight, because nothing is sent any more.
    pub(super) fn end_forward_probes(&mut self) {
        for probe in std::mem::take(&mut self.forward_probes) {
            self.finish_probe(probe, ForwardProbeOutcome::Busy, None);
        }
    }

    fn finish_probe(&mut self, probe: InFlight, outcome: ForwardProbeOutcome, reset_at: Option<u32>) {
        let reset = self.forwarder.close_probe(probe.flow, reset_at);
        if let Some((to, packet)) = reset.map(|(to, packet)| (to, packet.to_vec())) {
            let _ = self.pass_on(to, &packet);
        }
        self.reply_to_probe(probe.id, probe.explanation, Some(probe.ends), outcome);
    }

    fn reply_to_probe(
        &mut self,
        id: ExplainId,
        explanation: Explanation,
        ends: Option<Ends>,
        outcome: ForwardProbeOutcome,
    ) {
        let packet = ends.map(|ends| (ends.src, ends.dst));
        self.out.push_back(Output::ForwardProbe(id, ForwardProbeReply { explanation, packet, outcome }));
    }
}

/// The question that a probe asks without its packet.
fn question(probe: &ForwardProbe, at: Wall) -> ExplainRequest {
    let (protocol, port) = match probe.kind {
        ForwardProbeKind::Echo => (GrantProtocol::Icmp, 0),
        ForwardProbeKind::Connect { port } => (GrantProtocol::Tcp, port),
    };
    ExplainRequest { from: probe.from, to: probe.to, protocol, port, at }
}
