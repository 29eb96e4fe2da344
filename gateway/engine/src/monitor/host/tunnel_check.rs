//! The `tunnel` check: whether packets pass a device's tunnel in both directions.
//!
//! While the state is ok, an authenticated packet within the interval is enough, and costs nothing.
//! After a failure, or after a probe without reply, such a packet only proves that the device is
//! up. An old session goes on although no packet reaches the device. In that case only a reply
//! counts: one that came meanwhile, a handshake, or an echo. This module knows no states.

use std::time::Duration;

use fleetgate_probes::cause::Cause;

use crate::messages::{ConnectFailure, Evidence, Probe, ProbeReply};
use crate::time::Mono;

use crate::monitor::context::{Ctx, ProbeOwner};
use crate::monitor::host::Host;
use crate::monitor::interpret;
use crate::monitor::interpret::Finding;
use crate::monitor::paths::Via;
use crate::monitor::run::Run;

/// Echoes after a failed handshake. On a path that loses three of ten packets each way, all of them
/// and the handshake are lost once in a hundred attempts.
const ECHOES: u8 = 5;
/// The timeout of these echoes: several round trips of a mobile link.
const ECHO_TIMEOUT: Duration = Duration::from_secs(3);

impl Host {
    pub(in crate::monitor) fn answer_tunnel(&mut self, i: usize, answer: ProbeReply, ctx: &mut Ctx<'_>) {
        let failure = match &self.services[i].run {
            Run::Doubted(_, failure) => Some(failure.clone()),
            _ => None,
        };
        self.proofs.note_carried(answered_at(&answer, ctx.now.mono));
        match (answer, failure) {
            (ProbeReply::Evidence(evidence), None) => self.weigh_evidence(i, &evidence, ctx),
            (ProbeReply::Handshake(Err(failure)), None) if failure != ConnectFailure::Busy => {
                self.look_again(i, failure, ctx);
            }
            (ProbeReply::Handshake(outcome), None) => {
                self.conclude(i, interpret::handshake(&outcome, self.tunnel.skew_ms), Via::Tunnel, ctx);
            }
            (ProbeReply::Evidence(evidence), Some(failure)) => self.last_look(i, &failure, &evidence, ctx),
            (ProbeReply::Echo(echo), Some(failure)) => {
                let finding = match echo.rtts.iter().min() {
                    Some(rtt) => interpret::echoed(*rtt, &failure),
                    None => interpret::no_answer(&failure, echo.sent),
                };
                self.conclude(i, Some(finding), Via::Tunnel, ctx);
            }
            _ => self.discard(i, ctx),
        }
    }

    /// Evaluates the evidence. If it is not enough, forces a handshake, unless the host's own check
    /// has just tried that.
    fn weigh_evidence(&mut self, i: usize, evidence: &Evidence, ctx: &mut Ctx<'_>) {
        self.keep_pace(evidence.wire_today, ctx);
        self.tunnel.skew_ms = evidence.clock_skew_ms;
        let proof = if self.is_in_doubt(i) { evidence.answered() } else { evidence.last_packet };
        if self.holds_by(i, proof, evidence, ctx) {
            return;
        }
        let begun = self.services[i].newer_than.or(self.services[i].planned);
        let dialled = self.check.dial_failed_since(begun);
        match (dialled, self.paths.peer) {
            (true, _) => self.last_look(i, &ConnectFailure::Timeout, evidence, ctx),
            (false, Some(peer)) => self.ask(i, Probe::Handshake { peer }, ctx),
            (false, None) => self.discard(i, ctx),
        }
    }

    /// Whether a packet sent through the tunnel got no reply.
    fn is_in_doubt(&self, i: usize) -> bool {
        self.services[i].newer_than.is_some() || !self.services[i].holds() || self.one_way.is_suspected()
    }

    /// Records the proof as a result if it is recent enough; returns whether it was.
    fn holds_by(&mut self, i: usize, proof: Option<Mono>, evidence: &Evidence, ctx: &mut Ctx<'_>) -> bool {
        let now = ctx.now.mono;
        let service = &self.services[i];
        let limit = service.newer_than.max(Some(service.evidence_limit(now)));
        let Some(proof) = proof.filter(|at| Some(*at) > limit) else { return false };
        let packet = evidence.last_packet.map_or(proof, |packet| packet.max(proof));
        let finding = Finding::said(interpret::evidence(evidence, packet, now));
        self.conclude_at(i, finding, Via::Tunnel, proof, ctx);
        true
    }

    /// Reads the evidence again, because other probes may have got replies during the handshake.
    fn look_again(&mut self, i: usize, failure: ConnectFailure, ctx: &mut Ctx<'_>) {
        match self.paths.peer {
            Some(peer) => self.probe_in_doubt(i, Probe::Evidence { peer }, failure, ctx),
            None => self.discard(i, ctx),
        }
    }

    /// Probes a device that is heard once more before its tunnel is declared dead.
    fn last_look(&mut self, i: usize, failure: &ConnectFailure, evidence: &Evidence, ctx: &mut Ctx<'_>) {
        if self.holds_by(i, evidence.answered(), evidence, ctx) {
            return;
        }
        let heard = evidence.last_packet.is_some_and(|at| at > ctx.now.mono - ctx.rhythm().packets());
        match self.paths.inner.filter(|_| heard && evidence.established) {
            Some((peer, address)) => {
                let probe = Probe::Echo { peer, address, count: ECHOES };
                self.probe_in_doubt(i, probe, failure.clone(), ctx);
            }
            None => {
                let finding = interpret::no_handshake(Cause::NoAnswer, &failure.to_string());
                self.conclude(i, Some(finding), Via::Tunnel, ctx);
            }
        }
    }

    fn probe_in_doubt(&mut self, i: usize, probe: Probe, failure: ConnectFailure, ctx: &mut Ctx<'_>) {
        let timeout = self.services[i].spec.timing.timeout.min(ECHO_TIMEOUT);
        let id = ctx.ask(self.spec.id, ProbeOwner::Service(i), probe, timeout);
        self.services[i].run = Run::Doubted(id, failure);
    }
}

/// Returns the time of the last reply through the tunnel that this reply shows.
fn answered_at(answer: &ProbeReply, now: Mono) -> Option<Mono> {
    match answer {
        ProbeReply::Evidence(evidence) => evidence.answered(),
        ProbeReply::Handshake(outcome) => outcome.as_ref().ok().map(|_| now),
        ProbeReply::Echo(echo) => echo.rtts.first().map(|_| now),
        _ => None,
    }
}
