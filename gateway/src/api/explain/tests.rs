use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{
    DropReason, Explanation as PolicyDecision, ForwardProbeOutcome as Outcome, ForwardProbeReply,
    GrantProtocol, GrantWindow,
};
use fleetgate_engine::time::Wall;

use super::probed::probed;
use super::types::{Explanation, PROBE_RESULTS, ProbedExplanation, RESULTS};
use super::words::{RequestedAccess, Words, denial, missing, to_api};

fn window(from: Option<i64>, until: Option<i64>) -> GrantWindow {
    let at = |time: Option<i64>| time.map(Wall::from_millis);
    GrantWindow { grant: Id::from_i64(9), from: at(from), until: at(until), ends_at: None }
}

fn answered(found: PolicyDecision) -> Explanation {
    to_api(&found, &words(), Wall::from_millis(0))
}

fn words() -> Words<'static> {
    let wanted =
        RequestedAccess { whom: "--user anna", host: "cam-07", protocol: GrantProtocol::Tcp, port: 22 };
    Words { from: "anna", wanted, no_source: None, renting: None }
}

#[test]
fn every_answer_has_a_name_and_says_what_is_missing() {
    let of = window(Some(0), Some(60_000));
    let all = [
        PolicyDecision::Permitted(of),
        PolicyDecision::NoGrant,
        PolicyDecision::NotYet(of),
        PolicyDecision::Over(of),
        PolicyDecision::Delayed(of),
        PolicyDecision::Blocked(of),
        PolicyDecision::ClockBehind(of),
        PolicyDecision::ClockStep(of),
        PolicyDecision::NoCommonFamily,
        PolicyDecision::UnknownSource,
        PolicyDecision::UnknownTarget,
    ];
    let names: Vec<String> = all.iter().map(|found| answered(*found).result).collect();
    assert_eq!(names, RESULTS);
    let over = answered(PolicyDecision::Over(of));
    assert_eq!(
        over.text,
        "anna does not reach cam-07 (tcp 22): the grant p_0000000000009 ended at 1970-01-01T00:01:00Z; an \
         admin adds one with `fleetgate grant add --user anna --to cam-07 --tcp 22`"
    );
    assert_eq!(
        answered(PolicyDecision::NoGrant).text,
        "anna does not reach cam-07 (tcp 22): no grant permits it; an admin adds one with `fleetgate grant \
         add --user anna --to cam-07 --tcp 22`"
    );
    let ping = RequestedAccess { protocol: GrantProtocol::Icmp, port: 0, ..words().wanted };
    assert!(denial(&PolicyDecision::NoGrant, &ping).ends_with(" --to cam-07 --icmp`"));
    assert!(!denial(&PolicyDecision::NotYet(of), &ping).contains("grant add"), "it begins by itself");
    // The reason is the last message of a WebSocket, which has 123 bytes.
    assert!(all.iter().all(|found| missing(found).len() <= 123));
    assert_eq!((over.permitted, over.until.as_deref()), (false, Some("1970-01-01T00:01:00Z")));
    let permitted = answered(PolicyDecision::Permitted(window(None, None)));
    assert!(permitted.permitted && permitted.until.is_none());
    assert_eq!(permitted.text, "anna reaches cam-07 (tcp 22) by the grant p_0000000000009");
}

#[test]
fn every_outcome_of_a_probe_has_a_name_and_says_what_it_may_mean() {
    let took = Duration::from_millis(12);
    let all = [
        Outcome::Answered(took),
        Outcome::Refused(took),
        Outcome::Unreachable(took, "no route to the host"),
        Outcome::NoAnswer,
        Outcome::NoTunnel,
        Outcome::Dropped(DropReason::FlowTableFull),
        Outcome::Denied,
    ];
    let answer = |outcome| {
        let explanation = match outcome {
            Outcome::Denied => PolicyDecision::NoGrant,
            _ => PolicyDecision::Permitted(window(None, None)),
        };
        let packet = Some(([10, 112, 0, 2].into(), [10, 112, 0, 3].into()));
        let reply = ForwardProbeReply { explanation, packet, outcome };
        probed(&reply, &words(), Wall::from_millis(0))
    };
    let answers: Vec<ProbedExplanation> =
        all.into_iter().filter_map(|outcome| answer(outcome).ok()).collect();
    assert_eq!(answers.iter().map(|answer| answer.result.as_str()).collect::<Vec<_>>(), PROBE_RESULTS);
    assert_eq!(answers[0].text, "anna reaches cam-07 (tcp 22): it answered in 12.0 ms");
    assert_eq!((answers[0].rtt_ms, answers[3].rtt_ms), (Some(12.0), None));
    assert_eq!(answers[0].destination.as_deref(), Some("10.112.0.3"));
    assert_eq!(answers[5].drop_reason.as_deref(), Some("flow_table_full"));
    let denied = &answers[6].text;
    assert!(denied.contains("no grant permits it") && denied.ends_with("; nothing was sent"), "{denied}");
    assert!(answer(Outcome::Busy).is_err_and(|problem| problem.status() == 429));
}
