//! The claims that a verdict may make, and the fault matrix.

mod clock;
mod world;

use proptest::prelude::*;

use super::*;
use crate::id::Id;
use crate::messages::{
    ATTEMPTS, DirectReply, NotificationState, ReplacedKeyUse, StateType, UnprovedHandshakes,
};

use world::{Fault, World};

/// Everything is certain by then: a check a minute, three attempts, a packet every 25 s.
const BOUND_S: i64 = 300;
/// How long a world is observed.
const LOOKED_S: i64 = 900;

pub(super) fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

/// Returns handshakes that were answered in vain, the last at this time.
pub(super) fn unproved(last: Option<Wall>) -> Option<UnprovedHandshakes> {
    let from = ([203, 0, 113, 2], 40_000).into();
    last.map(|last| UnprovedHandshakes { count: 3, since: last, last, from })
}

pub(super) fn host(status: HostStatus, since: Wall) -> HostState {
    HostState {
        host: Id::from_i64(1),
        status,
        kind: StateType::Hard,
        attempt: 1,
        hard: status,
        reachable: true,
        stale: false,
        asleep: false,
        since,
        hard_since: since,
        last_check: Some(since),
        next_check: None,
        source: if status == HostStatus::Down { "none".into() } else { String::new() },
        direct: DirectReply::NotAsked,
        one_way: false,
        silent_since: None,
        last_alive: None,
        asked_at: None,
        asked: None,
        strange_key: None,
        taken: Default::default(),
        output: "no answer".into(),
        detail: Default::default(),
        notified: None,
        notification: NotificationState::default(),
    }
}

fn quiet() -> Evidence {
    Evidence {
        now: at(1_000),
        host: host(HostStatus::Up, at(0)),
        cut_off: None,
        tunnel: Some(TunnelFacts { last_packet: Some(at(970)), ..TunnelFacts::default() }),
        second_path: false,
        behind: None,
        services: Vec::new(),
        site: None,
        elsewhere: Others::default(),
        clocks: Clocks::default(),
    }
}

/// Returns all causes that a verdict does not exclude.
pub(super) fn open(verdict: &Verdict) -> Vec<VerdictKind> {
    match verdict.kind {
        VerdictKind::Ok => Vec::new(),
        VerdictKind::Undetermined => verdict.candidates.clone(),
        kind => vec![kind],
    }
}

#[test]
fn of_a_host_that_somebody_says_is_down_nothing_is_claimed() {
    let state = HostState { source: "passive".into(), ..host(HostStatus::Down, at(900)) };
    let elsewhere = Others { heard: 3, ..Others::default() };
    let verdict = judge(&Evidence { host: state, tunnel: None, elsewhere, ..quiet() });
    assert_eq!(verdict.kind, VerdictKind::Undetermined, "{verdict:?}");
    assert!(open(&verdict).contains(&VerdictKind::ServiceProblem), "{verdict:?}");
}

#[test]
fn of_a_host_that_nobody_sent_a_result_of_nothing_is_claimed() {
    let state = HostState { source: "silence".into(), ..host(HostStatus::Down, at(900)) };
    let others = Others { heard: 3, ..Others::default() };
    let site = Some(SiteFacts { name: "north".into(), others });
    let verdict = judge(&Evidence { host: state, tunnel: None, site, elsewhere: others, ..quiet() });
    assert_eq!(verdict.kind, VerdictKind::Undetermined, "whoever sends may be what is gone: {verdict:?}");
}

#[test]
fn who_knocks_and_is_refused_is_not_asleep() {
    let asleep = HostState { asleep: true, ..host(HostStatus::Up, at(0)) };
    let refused = |age: i64, refusal| {
        let attempts = Attempts { refused: Some(at(1_000 - age)), ..Attempts::default() };
        let tunnel =
            TunnelFacts { refusal: Some((at(1_000 - age), refusal)), attempts, ..TunnelFacts::default() };
        judge(&Evidence { host: asleep.clone(), tunnel: Some(tunnel), ..quiet() }).kind
    };
    let behind = Duration::from_secs(7_200);
    assert_eq!(refused(20, Refusal::ClockWentBack { behind }), VerdictKind::ClockWrong);
    assert_eq!(refused(20, Refusal::Crypto), VerdictKind::KeyRefused);
    assert_eq!(refused(20, Refusal::RateLimited), VerdictKind::Ok);
    assert_eq!(refused(900, Refusal::ClockWentBack { behind }), VerdictKind::Ok, "that was before it slept");
}

#[test]
fn who_uses_the_key_of_before_is_told_so_until_the_new_one_came() {
    let replaced_at = at(700);
    let seen = |last| ReplacedKeyUse { replaced_at, last, from: ([203, 0, 113, 2], 40_000).into() };
    let facts = |last_handshake: Option<i64>, knocked: i64| TunnelFacts {
        last_handshake: last_handshake.map(at),
        refusal: Some((at(knocked), Refusal::ReplacedKey { replaced_at })),
        attempts: Attempts { replaced: Some(seen(at(knocked))), ..Attempts::default() },
        ..TunnelFacts::default()
    };
    let judged = |status, facts: TunnelFacts| {
        judge(&Evidence { host: host(status, at(800)), tunnel: Some(facts), ..quiet() })
    };
    for status in [HostStatus::Down, HostStatus::Up] {
        let verdict = judged(status, facts(None, 990));
        assert_eq!(verdict.kind, VerdictKind::KeyRefused, "{verdict:?}");
        assert_eq!(verdict.text, "key refused: it uses the key that was replaced at 00:11 UTC");
    }
    let ok = judged(HostStatus::Up, facts(Some(980), 990));
    assert_eq!(ok.kind, VerdictKind::Ok, "the new one is in use, and an old copy knocks: {ok:?}");
    let doubt = judged(HostStatus::Down, facts(Some(800), 990));
    assert!(
        doubt.candidates.contains(&VerdictKind::KeyRefused)
            && doubt.candidates.contains(&VerdictKind::DeviceGone),
        "{doubt:?}"
    );
    let old = judged(HostStatus::Down, facts(None, 700));
    assert!(
        old.kind == VerdictKind::Undetermined && old.candidates.contains(&VerdictKind::KeyRefused),
        "{old:?}"
    );
}

// ------------------------------------------------------------------ matrix

fn pairs() -> impl Iterator<Item = Vec<Fault>> {
    let all = Fault::ALL.into_iter().enumerate();
    all.flat_map(|(i, a)| {
        Fault::ALL.into_iter().skip(i).map(move |b| if a == b { vec![a] } else { vec![a, b] })
    })
}

/// Delays between the first and the second of two faults. The second begins together with the
/// first, before it is found, while its failures are counted, or after its verdict is complete.
const LATER_S: [i64; 3] = [0, 70, 310];

fn begun(faults: &[Fault], later: i64) -> Vec<(Fault, i64)> {
    faults.iter().zip([0, later]).map(|(fault, from)| (*fault, from)).collect()
}

/// Asserts that a verdict never claims a false cause, and that its candidates include the true one.
fn assert_true(e: &Evidence, truth: &[VerdictKind], context: impl Fn() -> String) -> VerdictKind {
    // Texts are expensive and do not affect the result.
    let (kind, candidates) = named(foremost(&causes::findings(e)));
    let claimed = !matches!(kind, VerdictKind::Ok | VerdictKind::Undetermined);
    assert!(!claimed || truth.contains(&kind), "{} {:#?}", context(), judge(e));
    let complete = truth.is_empty() || candidates.iter().any(|kind| truth.contains(kind));
    assert!(kind != VerdictKind::Undetermined || complete, "{} {:#?}", context(), judge(e));
    kind
}

#[test]
fn at_no_moment_is_a_fault_or_a_pair_of_faults_called_something_else() {
    for world in World::all() {
        for (faults, later) in pairs().flat_map(|faults| LATER_S.map(|later| (faults.clone(), later))) {
            if faults.len() == 1 && later > 0 {
                continue;
            }
            let begun = begun(&faults, later);
            for (now, own, behind) in world.watch_from(&begun, LOOKED_S) {
                let so_far = || {
                    begun.iter().filter(|(fault, from)| fault.begins(*from) <= now).map(|(fault, _)| *fault)
                };
                let truth: Vec<VerdictKind> = so_far().flat_map(Fault::called).copied().collect();
                let context = || format!("{world:?} {begun:?} after {now} s: {own:#?}");
                let kind = assert_true(&own, &truth, context);
                assert!(
                    now < BOUND_S + later || truth.is_empty() || kind != VerdictKind::Ok,
                    "it is noticed: {}",
                    context()
                );
                let truth: Vec<VerdictKind> = so_far().flat_map(Fault::called_behind).copied().collect();
                let context = || format!("behind: {world:?} {begun:?} after {now} s: {behind:#?}");
                assert_true(&behind, &truth, context);
            }
        }
    }
}

/// Returns the names of a fault. A device that is off and one whose own line is lost look alike on
/// every path.
fn names(fault: Fault) -> Vec<VerdictKind> {
    match fault {
        Fault::DeviceOff | Fault::LossOut => vec![VerdictKind::LineLost, VerdictKind::DeviceGone],
        // The handshakes arrive; the responses do not, or are refused.
        Fault::LossIn => vec![VerdictKind::KeyRefused, VerdictKind::OneWayLoss],
        fault => fault.called().iter().take(1).copied().collect(),
    }
}

#[test]
fn with_all_paths_each_fault_is_named_in_bounded_time() {
    for fault in Fault::ALL {
        for (seconds, evidence) in World::FULL.watch(&[fault], LOOKED_S) {
            if seconds >= BOUND_S {
                let named = open(&judge(&evidence));
                assert_eq!(named, names(fault), "{fault:?} after {seconds} s: {evidence:#?}");
            }
        }
    }
}

#[test]
fn a_captured_handshake_that_is_sent_again_is_no_sign_of_life() {
    for world in World::all() {
        for (_, evidence) in world.watch(&[Fault::DeviceOff, Fault::Replayed], LOOKED_S) {
            assert!(
                !matches!(judge(&evidence).kind, VerdictKind::ClockWrong | VerdictKind::ClonedKey),
                "{evidence:#?}"
            );
        }
    }
    let alone = World { direct: false, neighbours: 0, elsewhere: 0, sentinel: false };
    let last = alone.watch(&[Fault::DeviceOff, Fault::Replayed], LOOKED_S).pop().map(|(_, e)| judge(&e));
    let open = last.map(|verdict| verdict.candidates).unwrap_or_default();
    for kind in [
        VerdictKind::DeviceGone,
        VerdictKind::LineLost,
        VerdictKind::SiteUplinkLost,
        VerdictKind::GatewayUplinkLost,
        VerdictKind::ClockWrong,
    ] {
        assert!(open.contains(&kind), "{kind:?} is left open: {open:?}");
    }
}

#[test]
fn nothing_is_wrong_with_a_world_without_faults() {
    for world in World::all() {
        for (_, evidence) in world.watch(&[], LOOKED_S) {
            assert_eq!(judge(&evidence).kind, VerdictKind::Ok, "{world:?} {evidence:#?}");
        }
    }
}

#[test]
fn a_camera_behind_carrier_nat_has_no_second_path() {
    let alone = World { direct: false, neighbours: 0, elsewhere: 2, sentinel: true };
    let last = |fault| alone.watch(&[fault], LOOKED_S).pop().map(|(_, evidence)| judge(&evidence)).unwrap();
    for fault in [Fault::DeviceOff, Fault::SiteCut, Fault::TunnelBlocked] {
        let verdict = last(fault);
        let expected = vec![
            VerdictKind::SiteUplinkLost,
            VerdictKind::TunnelDown,
            VerdictKind::LineLost,
            VerdictKind::DeviceGone,
        ];
        assert_eq!((verdict.kind, verdict.candidates), (VerdictKind::Undetermined, expected), "{fault:?}");
        // A candidate contains no comma, so that the list stays readable.
        let words =
            "undetermined: uplink of north lost, only its tunnel down, its own line lost or device gone";
        assert_eq!(verdict.text, words);
        assert!(
            verdict.evidence.contains(&"no second path to probe: no Internet address is set".to_owned()),
            "{:?}",
            verdict.evidence
        );
    }
}

// ------------------------------------------------------------------ tables

#[test]
fn what_stands_behind_a_device_is_judged_by_that_device_first() {
    use VerdictKind::{DeviceGone, LineLost, LocalNetworkLost, ParentDown};
    let nas = |tunnel: Behind, others| Evidence {
        host: host(HostStatus::Down, at(900)),
        tunnel: None,
        behind: Some(Behind { device: "cam-07".into(), ..tunnel }),
        site: Some(SiteFacts { name: "cam-07".into(), others }),
        elsewhere: Others { heard: 3, ..Others::default() },
        ..quiet()
    };
    let up = |answered| Behind { up_since: Some(at(0)), answered: Some(at(answered)), ..Behind::default() };
    let (carries, not_yet) = (up(905), up(850));
    let fails = Behind { failed: Some(at(910)), ..Behind::default() };
    // The tunnel failed and recovered, and the host was not probed since.
    let flapped = Behind { up_since: Some(at(930)), answered: Some(at(931)), ..Behind::default() };
    let none = Others::default();
    let (some, many) = (Others { heard: 1, ..none }, Others { silent: 2, ..none });
    let any = vec![ParentDown, LocalNetworkLost, LineLost, DeviceGone];
    let table = [
        (fails.clone(), none, vec![ParentDown]),
        (carries.clone(), some, vec![LineLost, DeviceGone]),
        (carries.clone(), many, vec![LocalNetworkLost]),
        (carries.clone(), Others { unasked: 1, ..many }, vec![LocalNetworkLost, LineLost, DeviceGone]),
        (carries, none, vec![LocalNetworkLost, LineLost, DeviceGone]),
        (not_yet.clone(), none, any.clone()),
        (not_yet.clone(), many, any.clone()),
        (not_yet, some, vec![LineLost, DeviceGone]),
        (flapped, none, any.clone()),
        (Behind::default(), none, any),
    ];
    for (tunnel, others, expected) in table {
        assert_eq!(open(&judge(&nas(tunnel.clone(), others))), expected, "{tunnel:?} {others:?}");
    }
    assert_eq!(judge(&nas(fails, none)).text, "parent cam-07 does not answer");
}

/// Returns a host behind cam-07 that was probed at `asked`. The last check ended at `done`.
fn behind(tunnel: Behind, (asked, done): (i64, i64)) -> Evidence {
    let (asked_at, last_check) = (Some(at(asked)), Some(at(done)));
    Evidence {
        host: HostState { asked_at, last_check, ..host(HostStatus::Down, at(900)) },
        tunnel: None,
        behind: Some(Behind { device: "cam-07".into(), ..tunnel }),
        site: Some(SiteFacts { name: "cam-07".into(), others: Others::default() }),
        elsewhere: Others { heard: 3, ..Others::default() },
        ..quiet()
    }
}

#[test]
fn a_check_that_is_under_way_does_not_say_what_a_tunnel_that_came_back_carries() {
    let back = || Behind { up_since: Some(at(930)), answered: Some(at(931)), ..Behind::default() };
    let open_to = |e: &Evidence| open(&judge(e)).contains(&VerdictKind::ParentDown);
    assert!(open_to(&behind(back(), (930, 929))), "it began after the last one had ended");
    assert!(!open_to(&behind(back(), (930, 932))), "it ended, and the tunnel carried others meanwhile");
    assert!(open_to(&behind(back(), (925, 932))), "it was asked before the tunnel came back");
}

#[test]
fn what_the_tunnel_carries_while_the_host_is_asked_first_is_evidence_already() {
    let up = |answered| Behind { up_since: Some(at(0)), answered: Some(at(answered)), ..Behind::default() };
    let first = |answered| {
        let e = behind(up(answered), (890, 900));
        Evidence { host: HostState { silent_since: Some(at(890)), ..e.host }, ..e }
    };
    let open_to = |e: &Evidence| open(&judge(e)).contains(&VerdictKind::ParentDown);
    assert!(open_to(&first(890)), "that may have been on its way before");
    assert!(!open_to(&first(891)));
}

#[test]
fn while_the_gateway_is_cut_off_a_host_behind_a_device_is_as_the_device() {
    let nobody = Others::default();
    let site = Some(SiteFacts { name: "cam-07".into(), others: nobody });
    let cut_off = Some(at(910));
    let e = Evidence { cut_off, site, elsewhere: nobody, ..behind(Behind::default(), (890, 900)) };
    assert_eq!(judge(&e).kind, VerdictKind::GatewayUplinkLost, "{:?}", judge(&e));
}

#[test]
fn after_one_failure_a_lost_packet_is_no_less_likely_than_a_lost_host() {
    let soft = HostState { kind: StateType::Soft, ..host(HostStatus::Down, at(900)) };
    let others = Others { heard: 3, ..Others::default() };
    let site = Some(SiteFacts { name: "north".into(), others });
    let verdict = judge(&Evidence { host: soft, site, elsewhere: others, tunnel: None, ..quiet() });
    assert_eq!(
        verdict.candidates,
        [VerdictKind::LineLost, VerdictKind::DeviceGone, VerdictKind::PacketLoss],
        "{verdict:?}"
    );
}

#[test]
fn where_a_host_recovered_of_late_lost_packets_may_make_it_down_again() {
    let others = Others { heard: 3, ..Others::default() };
    let after = |codes: &[u8]| {
        let notification =
            NotificationState { recent: codes.iter().copied().collect(), ..Default::default() };
        let down = HostState { notification, ..host(HostStatus::Down, at(900)) };
        judge(&Evidence { host: down, elsewhere: others, tunnel: None, ..quiet() }).candidates
    };
    let lost = |codes: &[u8]| after(codes).contains(&VerdictKind::PacketLoss);
    assert!(lost(&[0, 1, 0, 0, 1, 1, 1]), "{:?}", after(&[0, 1, 0, 0, 1, 1, 1]));
    assert!(!lost(&[0, 0, 1, 1, 1]));
}

#[test]
fn two_or_three_devices_that_are_off_are_not_the_gateway() {
    for silent in 0..=3 {
        for unasked in 0..=1 {
            let elsewhere = Others { silent, unasked, ..Others::default() };
            let verdict = judge(&Evidence { host: host(HostStatus::Down, at(900)), elsewhere, ..quiet() });
            assert_eq!(verdict.kind, VerdictKind::Undetermined, "{elsewhere:?}");
            for kind in [
                VerdictKind::GatewayUplinkLost,
                VerdictKind::TunnelDown,
                VerdictKind::LineLost,
                VerdictKind::DeviceGone,
            ] {
                assert!(verdict.candidates.contains(&kind), "{elsewhere:?} {verdict:?}");
            }
        }
    }
    let all = Others { silent: 4, ..Others::default() };
    let of = |elsewhere| judge(&Evidence { host: host(HostStatus::Down, at(900)), elsewhere, ..quiet() });
    assert_eq!(of(all).kind, VerdictKind::GatewayUplinkLost);
    assert_eq!(of(Others { unasked: 1, ..all }).kind, VerdictKind::Undetermined, "one is yet to be asked");
}

#[test]
fn who_is_answered_in_vain_has_another_key_or_does_not_hear_the_answers() {
    let attempts = Attempts { unproved: unproved(Some(at(990))), ..Attempts::default() };
    let tunnel = TunnelFacts { last_handshake: Some(at(700)), attempts, ..TunnelFacts::default() };
    let down = host(HostStatus::Down, at(900));
    let verdict = judge(&Evidence { host: down.clone(), tunnel: Some(tunnel.clone()), ..quiet() });
    assert_eq!(verdict.candidates, [VerdictKind::KeyRefused, VerdictKind::OneWayLoss], "{verdict:?}");
    let up = HostState { source: ATTEMPTS.into(), ..host(HostStatus::Up, at(0)) };
    let verdict = judge(&Evidence { host: up.clone(), tunnel: Some(tunnel.clone()), ..quiet() });
    assert_eq!(
        verdict.candidates,
        [VerdictKind::KeyRefused, VerdictKind::OneWayLoss],
        "it is up by them: {verdict:?}"
    );
    let first = TunnelFacts { attempts: Attempts::default(), ..tunnel.clone() };
    let verdict = judge(&Evidence { host: up.clone(), tunnel: Some(first), ..quiet() });
    let expected = [VerdictKind::KeyRefused, VerdictKind::OneWayLoss, VerdictKind::PacketLoss];
    assert_eq!(verdict.candidates, expected, "it is up by the first of them: {verdict:?}");
    let refusal = Some((at(980), Refusal::Crypto));
    let dialled = TunnelFacts { refusal, ..tunnel.clone() };
    let verdict = judge(&Evidence { host: up, tunnel: Some(dialled), ..quiet() });
    assert_eq!(verdict.kind, VerdictKind::KeyRefused, "a dial has told: {verdict:?}");
    let let_in = TunnelFacts { last_handshake: Some(at(995)), ..tunnel };
    let verdict = judge(&Evidence { host: down, tunnel: Some(let_in), ..quiet() });
    assert!(verdict.candidates.contains(&VerdictKind::DeviceGone), "it was let in since: {verdict:?}");
}

#[test]
fn what_is_expected_to_be_silent_or_was_never_asked_is_no_fault() {
    let asleep = HostState { asleep: true, ..host(HostStatus::Up, at(0)) };
    assert_eq!(judge(&Evidence { host: asleep, ..quiet() }).text, "asleep, as expected");
    let pending = host(HostStatus::Pending, at(0));
    assert_eq!(judge(&Evidence { host: pending, ..quiet() }).kind, VerdictKind::Pending);
}

#[test]
fn a_result_that_is_too_old_claims_nothing() {
    let stale = HostState { stale: true, ..host(HostStatus::Up, at(0)) };
    let alone = Evidence { host: stale, elsewhere: Others { silent: 5, ..Others::default() }, ..quiet() };
    assert_eq!(judge(&alone).kind, VerdictKind::Undetermined);
    let cut_off = Evidence { cut_off: Some(at(900)), ..alone };
    assert_eq!(judge(&cut_off).kind, VerdictKind::GatewayUplinkLost, "it is known why");
}

#[test]
fn the_first_that_is_heard_after_the_gateway_was_cut_off_makes_no_site_lost() {
    let place = |silent| SiteFacts { name: "hill".into(), others: Others { silent, ..Others::default() } };
    let down = host(HostStatus::Down, at(900));
    let elsewhere = Others { heard: 1, ..Others::default() };
    let asked = Evidence { host: down, site: Some(place(2)), elsewhere, ..quiet() };
    assert_eq!(judge(&asked).kind, VerdictKind::SiteUplinkLost, "all were asked");
    for status in [HostStatus::Down, HostStatus::Up] {
        let host = HostState { stale: true, ..host(status, at(900)) };
        // The recovery of the uplink may not be noticed yet.
        for cut_off in [None, Some(at(910))] {
            let not_asked = Evidence { host: host.clone(), cut_off, ..asked.clone() };
            let verdict = judge(&not_asked);
            assert!(verdict.candidates.contains(&VerdictKind::GatewayUplinkLost), "{verdict:?}");
            assert!(verdict.candidates.contains(&VerdictKind::TunnelDown), "{verdict:?}");
        }
    }
}

#[test]
fn services_are_named_and_told_apart() {
    let of = |services| judge(&Evidence { services, ..answering() });
    let hung = service("rtsp", RequestedResult::Presence, Status::Critical, Cause::NoAnswer);
    let slow = service("rtsp", RequestedResult::Presence, Status::Critical, Cause::Refused);
    let disk = service("disk", RequestedResult::Value, Status::Warning, Cause::Answered);
    let path = PathCheck::LargeAnswered;
    let stuck = service("mount", RequestedResult::Value, Status::Unknown, Cause::CommandTimedOut);
    let stuck = ServiceFacts { path, ..stuck };
    let misconfigured = service("direct-ping", RequestedResult::Presence, Status::Unknown, Cause::NotTried);
    assert_eq!(of(vec![misconfigured]).kind, VerdictKind::ServiceProblem, "nothing was asked");
    assert_eq!(of(vec![hung.clone(), disk.clone()]).text, "service hung: rtsp; also: service problem: disk");
    assert_eq!(of(vec![slow, disk.clone()]).kind, VerdictKind::ServiceProblem);
    assert_eq!(of(vec![stuck, hung.clone()]).text, "service hung: mount, rtsp");
    let before = of(vec![ServiceFacts { current: false, ..hung }]);
    assert_eq!(before.kind, VerdictKind::Undetermined, "it was not asked since: {before:?}");
    assert!(of(vec![disk]).evidence.contains(&"disk: disk says".to_owned()));
}

/// The reply from the other address may come from another device with the same key, until it is
/// clear that no device returns to the old address.
#[test]
fn a_service_that_is_not_well_since_its_device_moved_may_be_another_devices() {
    let ssh = service("ssh", RequestedResult::Presence, Status::Critical, Cause::Refused);
    let of = |moved: Option<i64>, services: Vec<ServiceFacts>| {
        let tunnel = answering().tunnel.map(|tunnel| TunnelFacts { moved: moved.map(at), ..tunnel });
        judge(&Evidence { tunnel, services, ..answering() })
    };
    let since = ssh.since.as_millis() / 1_000;
    for moved in [since - 100, since, since + 10] {
        let verdict = of(Some(moved), vec![ssh.clone()]);
        assert_eq!(
            open(&verdict),
            [VerdictKind::ClonedKey, VerdictKind::ServiceProblem],
            "{moved}: {verdict:?}"
        );
    }
    for moved in [None, Some(since - 130)] {
        assert_eq!(of(moved, vec![ssh.clone()]).kind, VerdictKind::ServiceProblem, "{moved:?}");
    }
    let direct = ServiceFacts { through_tunnel: false, ..ssh.clone() };
    assert_eq!(
        of(Some(since), vec![ssh, direct]).kind,
        VerdictKind::ServiceProblem,
        "the Internet says it too"
    );
}

fn service(name: &str, asked: RequestedResult, status: Status, cause: Cause) -> ServiceFacts {
    ServiceFacts {
        name: name.into(),
        asked,
        status: Some(status),
        current: true,
        cause,
        path: PathCheck::NotAsked,
        through_tunnel: true,
        since: at(900),
        said: format!("{name} says"),
    }
}

/// Returns evidence with a recent reply through the tunnel.
fn answering() -> Evidence {
    let tunnel = quiet().tunnel.map(|tunnel| TunnelFacts { answered: Some(at(990)), ..tunnel });
    Evidence { tunnel, ..quiet() }
}

#[test]
fn a_service_that_could_not_be_asked_again_is_not_well_yet() {
    let ssh = service("ssh", RequestedResult::Presence, Status::Critical, Cause::Stalled);
    let ssh = ServiceFacts { path: PathCheck::LargeAnswered, current: false, ..ssh };
    let disk = ServiceFacts {
        current: false,
        ..service("disk", RequestedResult::Value, Status::Critical, Cause::Answered)
    };
    let of = |services| judge(&Evidence { services, ..quiet() });
    assert_eq!(
        of(vec![ssh]).candidates,
        [VerdictKind::OneWayLoss, VerdictKind::ServiceHung, VerdictKind::PacketLoss]
    );
    let verdict = of(vec![disk]);
    assert_eq!(
        verdict.candidates,
        [VerdictKind::OneWayLoss, VerdictKind::ServiceProblem, VerdictKind::PacketLoss]
    );
    assert!(verdict.evidence.contains(&"disk, not checked since: disk says".to_owned()), "{verdict:?}");
}

/// A reinstalled device makes its first handshake within seconds.
#[test]
fn another_key_is_a_candidate_until_a_device_with_one_would_have_come() {
    let down = host(HostStatus::Down, at(995));
    let others = Others { heard: 3, ..Others::default() };
    let of = |tunnel| {
        let site = Some(SiteFacts { name: "north".into(), others });
        let tunnel = Some(tunnel);
        let e = Evidence { host: down.clone(), tunnel, site, elsewhere: others, ..quiet() };
        judge(&e).candidates
    };
    let heard = |seconds| TunnelFacts {
        last_packet: Some(at(seconds)),
        last_handshake: Some(at(700)),
        ..TunnelFacts::default()
    };
    let rest = [VerdictKind::TunnelDown, VerdictKind::LineLost, VerdictKind::DeviceGone];
    let with = |kind| [&[kind][..], &rest].concat();
    assert_eq!(of(heard(990)), with(VerdictKind::KeyRefused));
    assert_eq!(of(heard(980)), rest, "it would have come by now");
    let pending = Attempts { pending: Some(at(985)), ..Attempts::default() };
    let answered = of(TunnelFacts { attempts: pending, ..heard(980) });
    assert!(
        answered.contains(&VerdictKind::KeyRefused) && answered.contains(&VerdictKind::OneWayLoss),
        "{answered:?}"
    );
    let old = Attempts { pending: Some(at(690)), ..Attempts::default() };
    assert_eq!(of(TunnelFacts { attempts: old, ..heard(980) }), rest, "it was let in since");
    assert_eq!(of(TunnelFacts::default()), with(VerdictKind::KeyRefused), "it never came under this key");
}

#[test]
fn one_way_loss_is_no_less_likely_than_heavy_loss() {
    let state = HostState { one_way: true, ..host(HostStatus::Up, at(0)) };
    let verdict = judge(&Evidence { host: state, ..quiet() });
    assert_eq!(
        verdict.candidates,
        [VerdictKind::OneWayLoss, VerdictKind::ClonedKey, VerdictKind::PacketLoss]
    );
}

#[test]
fn what_a_service_prints_does_not_make_it_hang() {
    for cause in Cause::ALL.into_iter().filter(|cause| cause.is_answer()) {
        let said = "timed out after 10 s".to_owned();
        let liar = ServiceFacts { said, ..service("liar", RequestedResult::Value, Status::Unknown, cause) };
        assert_eq!(
            judge(&Evidence { services: vec![liar], ..answering() }).kind,
            VerdictKind::ServiceProblem
        );
    }
}

#[test]
fn a_stall_is_a_service_or_its_path_until_a_large_echo_tells() {
    use PathCheck::{LargeAnswered, LargeLost, Lossy, NotAsked, Silent};
    let table = [
        (NotAsked, vec![VerdictKind::PathMtu, VerdictKind::ServiceHung]),
        (LargeAnswered, vec![VerdictKind::ServiceHung]),
        (LargeLost, vec![VerdictKind::PathMtu]),
        (Lossy, vec![VerdictKind::PathMtu, VerdictKind::ServiceHung, VerdictKind::PacketLoss]),
        (
            Silent,
            vec![
                VerdictKind::OneWayLoss,
                VerdictKind::PathMtu,
                VerdictKind::ServiceHung,
                VerdictKind::PacketLoss,
            ],
        ),
    ];
    for cause in [Cause::Stalled, Cause::CommandTimedOut, Cause::ConnectionLost] {
        for (path, expected) in &table {
            let ssh = ServiceFacts {
                path: *path,
                ..service("ssh", RequestedResult::Presence, Status::Critical, cause)
            };
            let verdict = judge(&Evidence { services: vec![ssh], ..answering() });
            assert_eq!(open(&verdict), *expected, "{cause:?} {path:?}: {verdict:?}");
        }
    }
    let ssh = service("ssh", RequestedResult::Presence, Status::Critical, Cause::Stalled);
    let both = vec![
        ServiceFacts { path: LargeLost, ..ssh.clone() },
        ServiceFacts { path: LargeAnswered, name: "mount".into(), ..ssh },
    ];
    let text = judge(&Evidence { services: both, ..answering() }).text;
    assert_eq!(
        text, "the path drops large packets, small ones pass: ssh; also: service hung: mount",
        "each service is named with its own cause"
    );
}

#[test]
fn lost_echoes_are_a_hung_service_only_after_five_minutes() {
    let ping = service("ping", RequestedResult::Echo, Status::Critical, Cause::NoAnswer);
    let behind = Evidence { tunnel: None, ..quiet() };
    let of = |service: &ServiceFacts, since, around: &Evidence| {
        let service = ServiceFacts { since: at(since), ..service.clone() };
        open(&judge(&Evidence { services: vec![service], ..around.clone() }))
    };
    let either = [VerdictKind::ServiceHung, VerdictKind::PacketLoss];
    for around in [behind.clone(), answering()] {
        assert_eq!(of(&ping, 701, &around), either, "three echoes are lost now and then");
        assert_eq!(of(&ping, 700, &around), [VerdictKind::ServiceHung]);
    }
    let rtsp = service("rtsp", RequestedResult::Presence, Status::Critical, Cause::NoAnswer);
    assert_eq!(
        of(&rtsp, 900, &behind),
        [VerdictKind::ServiceHung],
        "lost packets of a connection are sent again"
    );
    let silent = ServiceFacts { path: PathCheck::Silent, ..rtsp };
    assert_eq!(of(&silent, 900, &behind), either, "the echoes after it got no reply");
}

#[test]
fn a_device_that_is_only_heard_may_not_hear() {
    let rtsp = service("rtsp", RequestedResult::Presence, Status::Critical, Cause::NoAnswer);
    let of = |answered| {
        let tunnel = quiet().tunnel.map(|tunnel| TunnelFacts { answered, ..tunnel });
        open(&judge(&Evidence { services: vec![rtsp.clone()], tunnel, ..quiet() }))
    };
    let either = vec![
        VerdictKind::TunnelDown,
        VerdictKind::OneWayLoss,
        VerdictKind::ClonedKey,
        VerdictKind::ServiceHung,
        VerdictKind::PacketLoss,
    ];
    assert_eq!(of(None), either);
    assert_eq!(of(Some(at(899))), either, "that was before");
    assert_eq!(of(Some(at(900))), [VerdictKind::ServiceHung]);
    let unheard = quiet().tunnel.map(|tunnel| TunnelFacts { last_packet: Some(at(899)), ..tunnel });
    let e = Evidence { services: vec![rtsp.clone()], tunnel: unheard, ..quiet() };
    assert!(
        open(&judge(&e)).contains(&VerdictKind::ClonedKey),
        "the clone may have taken the endpoint a moment ago"
    );
    let lossy = |path| {
        let rtsp = ServiceFacts { path, ..rtsp.clone() };
        open(&judge(&Evidence { services: vec![rtsp], ..answering() }))
    };
    assert_eq!(
        lossy(PathCheck::Lossy),
        [VerdictKind::ServiceHung, VerdictKind::PacketLoss],
        "its connection may be lost"
    );
    assert_eq!(lossy(PathCheck::LargeLost), [VerdictKind::ServiceHung], "what makes a connection is small");
    assert_eq!(lossy(PathCheck::Silent), either, "nothing comes back just now");
    let direct = |said| {
        let services = vec![ServiceFacts { through_tunnel: false, ..rtsp.clone() }];
        let host = HostState { direct: said, ..host(HostStatus::Up, at(0)) };
        let mut verdict = judge(&Evidence { host, services, ..quiet() });
        // Direct replies without replies through the tunnel are another finding.
        verdict.candidates.retain(|kind| *kind != VerdictKind::TunnelDown);
        (verdict.candidates, verdict.text)
    };
    let line =
        [VerdictKind::OneWayLoss, VerdictKind::LineLost, VerdictKind::ServiceHung, VerdictKind::PacketLoss];
    assert_eq!(direct(DirectReply::Silent).0, line, "its tunnel proves nothing of its public address");
    assert_eq!(direct(DirectReply::NotAsked).0, line);
    assert!(direct(DirectReply::Answered).1.ends_with("also: service hung: rtsp"));
}

// -------------------------------------------------------------- properties

fn others() -> impl Strategy<Value = Others> {
    (0..3u32, 0..6u32, 0..2u32).prop_map(|(heard, silent, unasked)| Others { heard, silent, unasked })
}

fn refusals() -> impl Strategy<Value = Option<(Wall, Refusal)>> {
    let kinds = [
        Refusal::Crypto,
        Refusal::RateLimited,
        Refusal::ClockWentBack { behind: Duration::from_secs(7_200) },
    ];
    proptest::option::of((700..1_000i64, proptest::sample::select(kinds.to_vec())))
        .prop_map(|refusal| refusal.map(|(seconds, kind)| (at(seconds), kind)))
}

fn tunnels() -> impl Strategy<Value = Option<TunnelFacts>> {
    let skew = proptest::option::of(proptest::sample::select(vec![0i64, 59_000, -3_600_000]));
    let attempt = || proptest::option::of((700..1_000i64).prop_map(at));
    let attempts = (attempt(), attempt()).prop_map(|(refused, last)| Attempts {
        refused,
        unproved: unproved(last),
        pending: last,
        replaced: None,
    });
    let facts = (500..1_000i64, 500..1_000i64, refusals(), attempts, skew, any::<bool>()).prop_map(
        |(packet, handshake, refusal, attempts, clock_skew_ms, cloned)| TunnelFacts {
            last_packet: Some(at(packet)),
            last_handshake: Some(at(handshake)),
            refusal,
            attempts,
            clock_skew_ms,
            answered: None,
            moved: None,
            in_turn: if cloned { vec!["192.0.2.1:1".into(), "192.0.2.2:2".into()] } else { Vec::new() },
        },
    );
    proptest::option::of(facts)
}

/// Returns a device in front of a host, whose tunnel carries or fails.
fn device(carries: bool) -> Behind {
    let name = "cam-07".to_owned();
    match carries {
        true => Behind { device: name, up_since: Some(at(0)), answered: Some(at(950)), failed: None },
        false => Behind { device: name, up_since: None, answered: None, failed: Some(at(950)) },
    }
}

/// Returns any evidence at all, including evidence that no world produces.
fn any_evidence() -> impl Strategy<Value = Evidence> {
    use DirectReply::{Answered, Doubtful, NotAsked, Silent};
    // A host that replies is up, and a host that is up on another path was not probed directly.
    let up = proptest::sample::select(vec![NotAsked, Answered]).prop_map(|said| (HostStatus::Up, said));
    let down = proptest::sample::select(vec![NotAsked, Doubtful, Silent]);
    let state = prop_oneof![up, down.prop_map(|said| (HostStatus::Down, said))];
    let flags = (any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>()));
    let who = (others(), others(), 0..2u32);
    (state, tunnels(), flags, who).prop_map(|((status, direct), tunnel, flags, who)| Evidence {
        host: HostState { direct, reachable: flags.0, stale: flags.1, ..host(status, at(800)) },
        tunnel: tunnel.filter(|_| flags.2.is_none()),
        second_path: direct != NotAsked,
        behind: flags.2.map(device),
        site: Some(SiteFacts { name: "north".into(), others: who.0 }),
        elsewhere: who.1,
        clocks: Clocks { right: who.2, wrong: 0 },
        ..quiet()
    })
}

/// Returns whether one cause, or one shared cause and one more, can produce the evidence. A host
/// that is silent by chance is alone.
fn is_plausible(e: &Evidence) -> bool {
    let site = e.site.as_ref().map(|site| site.others).unwrap_or_default();
    let alive = e.host.direct == DirectReply::Answered || e.fresh_refusal().is_some();
    let whole_site = site.silent < TOGETHER || site.heard == 0 && !alive;
    let nothing = e.elsewhere.heard == 0 && site.heard == 0 && e.host.direct != DirectReply::Doubtful;
    let everybody = e.elsewhere.silent < EVERYWHERE || nothing && !alive;
    let down = e.host.status == HostStatus::Down;
    // A host that replies has a parent that carries its packets.
    let reached = e.host.reachable || !alive;
    reached && whole_site && everybody && down == (e.host.direct != DirectReply::Answered)
}

/// Returns the same world with one path less.
fn with_less(e: &Evidence) -> Vec<Evidence> {
    // A host whose membership in the site is unknown counts as elsewhere.
    let unasked = e.elsewhere.unasked + e.site.as_ref().map_or(0, |site| site.others.unasked);
    let no_site = Evidence { site: None, elsewhere: Others { unasked, ..e.elsewhere }, ..e.clone() };
    let nobody = Evidence { elsewhere: Others::default(), ..e.clone() };
    let no_clocks = Evidence { clocks: Clocks::default(), ..e.clone() };
    let undirected = HostState { direct: DirectReply::NotAsked, status: HostStatus::Down, ..e.host.clone() };
    let no_direct = Evidence { host: undirected, second_path: false, ..e.clone() };
    let bare =
        !e.host.stale && e.tunnel.as_ref().is_none_or(|t| t.in_turn.is_empty() && e.skew_ms().is_none());
    let mut less = vec![no_site, nobody, no_clocks];
    // A device that is no longer heard is not judged by its clock and its addresses.
    less.extend((e.host.status == HostStatus::Down || bare && e.tunnel.is_some()).then_some(no_direct));
    less
}

fn carriage(e: &Evidence) -> Option<Carriage> {
    e.behind.as_ref().map(|behind| e.carriage(behind))
}

proptest! {
    #[test]
    fn a_claim_is_contradicted_by_nothing(e in any_evidence()) {
        let verdict = judge(&e);
        let site = e.site.as_ref().map(|site| site.others).unwrap_or_default();
        let (direct, refusal) = (e.host.direct, e.fresh_refusal());
        let fits = match verdict.kind {
            VerdictKind::Ok => e.host.status == HostStatus::Up && !e.host.stale
                && refusal.is_none_or(|r| r == Refusal::RateLimited),
            VerdictKind::GatewayUplinkLost => {
                e.elsewhere.unasked == 0 && site.unasked == 0 && e.elsewhere.heard == 0 && site.heard == 0 && refusal.is_none()
                    && !matches!(direct, DirectReply::Answered | DirectReply::Doubtful)
            }
            VerdictKind::ParentDown => !e.host.reachable || carriage(&e) == Some(Carriage::Fails),
            VerdictKind::SiteUplinkLost => site.heard == 0 && direct != DirectReply::Answered && refusal.is_none(),
            VerdictKind::LocalNetworkLost => site.heard == 0 && carriage(&e) == Some(Carriage::Carries),
            // The host's own line cannot be excluded.
            VerdictKind::DeviceGone | VerdictKind::LineLost => false,
            VerdictKind::KeyRefused => refusal == Some(Refusal::Crypto),
            VerdictKind::ClockWrong => matches!(refusal, Some(Refusal::ClockWentBack { .. })) || e.skew_ms().is_some(),
            VerdictKind::TunnelDown => e.tunnel.is_some() && direct != DirectReply::Silent
                || refusal == Some(Refusal::RateLimited),
            VerdictKind::ClonedKey => e.tunnel.as_ref().is_some_and(|t| !t.in_turn.is_empty()),
            VerdictKind::Undetermined => verdict.candidates.len() > 1,
            _ => false,
        };
        prop_assert!(fits, "{verdict:#?}");
        prop_assert!(e.host.status == HostStatus::Down || e.host.stale
            || !matches!(
                verdict.kind,
                VerdictKind::DeviceGone | VerdictKind::SiteUplinkLost | VerdictKind::GatewayUplinkLost
            ));
    }

    #[test]
    fn with_fewer_paths_the_candidates_only_grow(e in any_evidence().prop_filter("plausible", is_plausible)) {
        let all = |e: &Evidence| -> Vec<VerdictKind> { causes::findings(e).into_iter().flat_map(|f| f.0).collect() };
        let full = all(&e);
        for less in with_less(&e) {
            let wider = all(&less);
            prop_assert!(full.iter().all(|kind| wider.contains(kind)), "{full:?} {wider:?} {less:#?}");
        }
    }

    #[test]
    fn every_verdict_has_words(e in any_evidence()) {
        let verdict = judge(&e);
        prop_assert!(!verdict.text.is_empty() && !verdict.text.contains('_'), "{}", verdict.text);
        prop_assert!(verdict.evidence.iter().all(|line| !line.is_empty()));
    }
}
