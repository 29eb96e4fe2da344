//! Evidence from before the gateway's clock was set back has times in the future.

use super::*;

const NOW_S: i64 = 1_000;

/// An hour ahead: a time by the clock before it was set back.
const AHEAD: Wall = Wall::from_millis((NOW_S + 3_600) * 1_000);

/// Returns a refusal from before the clock was set back, with evidence that it was made then.
fn refused() -> TunnelFacts {
    let attempts = Attempts { unproved: unproved(Some(AHEAD)), refused: Some(AHEAD), ..Attempts::default() };
    TunnelFacts { refusal: Some((AHEAD, Refusal::Crypto)), attempts, ..TunnelFacts::default() }
}

#[test]
fn a_refusal_from_before_the_clock_was_set_back_is_not_of_just_now() {
    // The device was accepted since: its session is up, and the last handshake is in truth newer.
    let tunnel = TunnelFacts {
        last_packet: Some(at(995)),
        last_handshake: Some(at(980)),
        answered: Some(at(995)),
        ..refused()
    };
    let host = HostState { source: "echo".into(), ..host(HostStatus::Up, at(0)) };
    let verdict = judge(&Evidence { tunnel: Some(tunnel), host, ..quiet() });
    assert_eq!(verdict.kind, VerdictKind::Ok, "{verdict:?}");
    assert!(!verdict.evidence.iter().any(|line| line.contains("refused")), "{verdict:?}");
}

#[test]
fn a_device_that_is_gone_does_not_knock_because_the_clock_was_set_back() {
    let elsewhere = Others { heard: 3, ..Others::default() };
    // At 1,000 the host has been silent for 900 s.
    let host = HostState { silent_since: Some(at(100)), ..host(HostStatus::Down, at(120)) };
    let verdict = judge(&Evidence { tunnel: Some(refused()), host, elsewhere, ..quiet() });
    assert!(open(&verdict).contains(&VerdictKind::DeviceGone), "{verdict:?}");
}

#[test]
fn an_answer_from_before_the_clock_was_set_back_says_nothing_of_a_failure_since() {
    let hung = service("rtsp", RequestedResult::Presence, Status::Critical, Cause::NoAnswer);
    let of = |answered| {
        let tunnel = TunnelFacts {
            last_packet: Some(at(995)),
            last_handshake: Some(at(700)),
            answered,
            ..TunnelFacts::default()
        };
        let host = HostState { source: "evidence".into(), ..host(HostStatus::Up, at(0)) };
        judge(&Evidence { tunnel: Some(tunnel), services: vec![hung.clone()], host, ..quiet() })
    };
    assert_eq!(of(Some(at(850))).kind, VerdictKind::Undetermined, "it was answered before that");
    let verdict = of(Some(AHEAD));
    assert_eq!(verdict.kind, VerdictKind::Undetermined, "{verdict:?}");
}

#[test]
fn what_a_tunnel_carried_before_the_clock_was_set_back_says_nothing_of_a_host_behind_it() {
    let of = |answered| {
        let tunnel = Behind { device: "router".into(), up_since: Some(at(0)), answered, failed: None };
        judge(&behind(tunnel, (NOW_S - 60, NOW_S - 50)))
    };
    assert_eq!(open(&of(Some(AHEAD))), open(&of(None)));
    assert_ne!(open(&of(Some(at(NOW_S - 40)))), open(&of(None)), "else it does");
}

#[test]
fn a_move_from_before_the_clock_was_set_back_may_be_as_old_as_what_a_service_reports() {
    let reports = service("disk", RequestedResult::Value, Status::Critical, Cause::Answered);
    let tunnel = TunnelFacts { last_packet: Some(at(995)), moved: Some(AHEAD), ..TunnelFacts::default() };
    let host = HostState { source: "echo".into(), ..host(HostStatus::Up, at(0)) };
    let verdict = judge(&Evidence { tunnel: Some(tunnel), services: vec![reports], host, ..quiet() });
    assert_eq!(open(&verdict), [VerdictKind::ClonedKey, VerdictKind::ServiceProblem]);
}

#[test]
fn a_key_that_was_replaced_before_the_clock_was_set_back_may_be_older_than_the_last_handshake() {
    let refusal = (at(990), Refusal::ReplacedKey { replaced_at: AHEAD });
    let from = ([203, 0, 113, 2], 40_000).into();
    let used = ReplacedKeyUse { replaced_at: AHEAD, last: at(990), from };
    let of = |last_handshake| {
        let attempts = Attempts { replaced: Some(used), ..Attempts::default() };
        let tunnel =
            TunnelFacts { refusal: Some(refusal), attempts, last_handshake, ..TunnelFacts::default() };
        let host = HostState { silent_since: Some(at(900)), ..host(HostStatus::Down, at(920)) };
        judge(&Evidence { tunnel: Some(tunnel), host, ..quiet() })
    };
    assert_eq!(of(None).kind, VerdictKind::KeyRefused, "it never came with the new one");
    assert_eq!(of(Some(at(800))).kind, VerdictKind::Undetermined, "another machine may have the old one");
}
