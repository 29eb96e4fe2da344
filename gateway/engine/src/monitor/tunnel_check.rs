//! The `tunnel` check: whether packets pass a device's tunnel in both directions.
//!
//! While the state is ok, an authenticated packet within the interval is enough, and costs nothing.
//! After a failure, or after a probe without reply, such a packet only proves that the device is
//! up. An old session goes on although no packet reaches the device. In that case only a reply
//! counts: one that came meanwhile, a handshake, or an echo. This module knows no states.

use std::time::Duration;

use fleetgate_probes::cause::Cause;

use crate::time::Mono;
use crate::wire::{Answer, ConnectFailure, Evidence, Question};

use super::answer::{self, Finding};
use super::host::Host;
use super::reach::Way;
use super::round::evidence_limit;
use super::service::Run;
use super::turn::{Asker, Turn};

/// Echoes after a failed handshake. On a path that loses three of ten packets each way, all of them
/// and the handshake are lost once in a hundred attempts.
const ECHOES: u8 = 5;
/// The timeout of these echoes: several round trips of a mobile link.
const ECHO_TIMEOUT: Duration = Duration::from_secs(3);

impl Host {
    pub(super) fn answer_tunnel(&mut self, i: usize, answer: Answer, turn: &mut Turn<'_>) {
        let failure = match &self.services[i].run {
            Run::Doubted(_, failure) => Some(failure.clone()),
            _ => None,
        };
        self.note_carried(answered_at(&answer, turn.now.mono));
        match (answer, failure) {
            (Answer::Evidence(evidence), None) => self.weigh_evidence(i, &evidence, turn),
            (Answer::Handshake(Err(failure)), None) if failure != ConnectFailure::Busy => {
                self.look_again(i, failure, turn);
            }
            (Answer::Handshake(outcome), None) => {
                self.conclude(i, answer::handshake(&outcome, self.skew_ms), Way::Tunnel, turn);
            }
            (Answer::Evidence(evidence), Some(failure)) => self.last_look(i, &failure, &evidence, turn),
            (Answer::Echo(echo), Some(failure)) => {
                let finding = match echo.rtts.iter().min() {
                    Some(rtt) => answer::echoed(*rtt, &failure),
                    None => answer::no_answer(&failure, echo.sent),
                };
                self.conclude(i, Some(finding), Way::Tunnel, turn);
            }
            _ => self.discard(i, turn),
        }
    }

    /// Evaluates the evidence. If it is not enough, forces a handshake, unless the host's own check
    /// has just tried that.
    fn weigh_evidence(&mut self, i: usize, evidence: &Evidence, turn: &mut Turn<'_>) {
        self.keep_pace(evidence.wire_today, turn);
        self.skew_ms = evidence.clock_skew_ms;
        let proof = if self.is_in_doubt(i) { evidence.answered() } else { evidence.last_packet };
        if self.holds_by(i, proof, evidence, turn) {
            return;
        }
        let begun = self.services[i].newer_than.or(self.services[i].planned);
        let dialled = self.dial_failed.is_some_and(|at| begun.is_some_and(|begun| at >= begun));
        match (dialled, self.paths.peer) {
            (true, _) => self.last_look(i, &ConnectFailure::Timeout, evidence, turn),
            (false, Some(peer)) => self.ask(i, Question::Handshake { peer }, turn),
            (false, None) => self.discard(i, turn),
        }
    }

    /// Whether a packet sent through the tunnel got no reply.
    fn is_in_doubt(&self, i: usize) -> bool {
        self.services[i].newer_than.is_some() || !self.services[i].holds() || self.vain.is_some()
    }

    /// Records the proof as a result if it is recent enough; returns whether it was.
    fn holds_by(&mut self, i: usize, proof: Option<Mono>, evidence: &Evidence, turn: &mut Turn<'_>) -> bool {
        let now = turn.now.mono;
        let service = &self.services[i];
        let limit = service.newer_than.max(Some(evidence_limit(service, now)));
        let Some(proof) = proof.filter(|at| Some(*at) > limit) else { return false };
        let packet = evidence.last_packet.map_or(proof, |packet| packet.max(proof));
        let finding = Finding::said(answer::evidence(evidence, packet, now));
        self.conclude_at(i, finding, Way::Tunnel, proof, turn);
        true
    }

    /// Reads the evidence again, because other probes may have got replies during the handshake.
    fn look_again(&mut self, i: usize, failure: ConnectFailure, turn: &mut Turn<'_>) {
        match self.paths.peer {
            Some(peer) => self.ask_in_doubt(i, Question::Evidence { peer }, failure, turn),
            None => self.discard(i, turn),
        }
    }

    /// Probes a device that is heard once more before its tunnel is declared dead.
    fn last_look(&mut self, i: usize, failure: &ConnectFailure, evidence: &Evidence, turn: &mut Turn<'_>) {
        if self.holds_by(i, evidence.answered(), evidence, turn) {
            return;
        }
        let heard = evidence.last_packet.is_some_and(|at| at > turn.now.mono - turn.rhythm().packets());
        match self.paths.inner.filter(|_| heard && evidence.established) {
            Some((peer, address)) => {
                let question = Question::Echo { peer, address, count: ECHOES };
                self.ask_in_doubt(i, question, failure.clone(), turn);
            }
            None => {
                let finding = answer::no_handshake(Cause::NoAnswer, &failure.to_string());
                self.conclude(i, Some(finding), Way::Tunnel, turn);
            }
        }
    }

    fn ask_in_doubt(&mut self, i: usize, question: Question, failure: ConnectFailure, turn: &mut Turn<'_>) {
        let timeout = self.services[i].spec.timing.timeout.min(ECHO_TIMEOUT);
        let id = turn.ask(self.spec.id, Asker::Service(i), question, timeout);
        self.services[i].run = Run::Doubted(id, failure);
    }
}

/// Returns the time of the last reply through the tunnel that this reply shows.
fn answered_at(answer: &Answer, now: Mono) -> Option<Mono> {
    match answer {
        Answer::Evidence(evidence) => evidence.answered(),
        Answer::Handshake(outcome) => outcome.as_ref().ok().map(|_| now),
        Answer::Echo(echo) => echo.rtts.first().map(|_| now),
        _ => None,
    }
}
