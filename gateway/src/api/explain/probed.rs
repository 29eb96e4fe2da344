//! Says in words what became of a probe of forwarding.

use std::time::Duration;

use fleetgate_engine::messages::{DropReason, ForwardProbeOutcome as Outcome, ForwardProbeReply};
use fleetgate_engine::time::Wall;

use super::types::{Explanation, ProbedExplanation};
use super::words::{Words, to_api};
use crate::api::response::problem::Problem;

/// The longest wait for an answer. A device that has to be dialled first gets its packet a second later.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// # Errors
/// Returns 429 if no packet was made because of too many others.
pub fn probed(reply: &ForwardProbeReply, words: &Words<'_>, at: Wall) -> Result<ProbedExplanation, Problem> {
    let explanation = to_api(&reply.explanation, words, at);
    let Some((result, text)) = outcome(reply.outcome, &explanation, words) else {
        return Err(Problem::too_many("too many probes are in flight, or the gateway stops: try again", 3));
    };
    let took = match reply.outcome {
        Outcome::Answered(took) | Outcome::Refused(took) | Outcome::Unreachable(took, _) => Some(took),
        _ => None,
    };
    let drop_reason = match reply.outcome {
        Outcome::Dropped(reason) => Some(reason.name().to_owned()),
        _ => None,
    };
    Ok(ProbedExplanation {
        explanation,
        result: result.to_owned(),
        text,
        source: reply.packet.map(|(source, _)| source.to_string()),
        destination: reply.packet.map(|(_, destination)| destination.to_string()),
        rtt_ms: took.map(|took| took.as_secs_f64() * 1_000.0),
        drop_reason,
    })
}

/// Names an outcome and says what it may mean. `None`: no packet was made because of too many others.
fn outcome(
    outcome: Outcome,
    explanation: &Explanation,
    Words { from, wanted, .. }: &Words<'_>,
) -> Option<(&'static str, String)> {
    let (to, what) = (wanted.host, wanted.what());
    Some(match outcome {
        Outcome::Denied => ("denied", format!("{}; nothing was sent", explanation.text)),
        Outcome::Dropped(reason) => (
            "dropped",
            format!("the policy permits it, but the filter dropped the packet: {}", dropped(reason)),
        ),
        Outcome::Busy => return None,
        Outcome::Answered(took) => {
            ("answered", format!("{from} reaches {to} ({what}): it answered in {}", latency(took)))
        }
        Outcome::Refused(took) => (
            "refused",
            format!(
                "the policy permits it, and {to} refused the connection after {}: no program listens there",
                latency(took)
            ),
        ),
        Outcome::Unreachable(_, reason) => (
            "unreachable",
            format!("the policy permits it, but the way to {to} ends with an ICMP error: {reason}"),
        ),
        Outcome::NoTunnel => (
            "no_tunnel",
            format!("the policy permits it, but the device of {to} has no tunnel now: nothing was sent"),
        ),
        Outcome::NoAnswer => (
            "no_answer",
            format!(
                "the policy permits it, and {to} did not answer within {} s: it is off, a firewall there drops \
                 the packet, or a device in front of it does not pass the packet on or uses no address of its own \
                 (masquerade)",
                PROBE_TIMEOUT.as_secs()
            ),
        ),
    })
}

fn latency(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

/// Says why the filter drops a packet that the policy permits.
fn dropped(reason: DropReason) -> String {
    let why = match reason {
        DropReason::NotGranted => "the grant has just ended",
        DropReason::NoFlow => {
            "its flow was ended at once: the grant has just ended, or there are too many flows"
        }
        DropReason::FlowTableFull => "the source, the device or the gateway has as many flows as it may have",
        DropReason::FlowConflict => "the answers could not be told from those of another connection",
        _ => "the reason is counted for the source",
    };
    format!("{why} ({})", reason.name())
}
