//! What a verdict may and may not say, and the fault matrix.

use proptest::prelude::*;

use super::*;
use crate::id::Id;
use crate::wire::{DirectAnswer, ReplacedKeyUse, StateType, UnprovedHandshakes, VoiceState};

mod world;

use world::{Fault, World};

/// Everything is certain by then: a check a minute, three attempts, a packet every 25 s.
const BOUND_S: i64 = 300;
/// How long a world is looked at.
const LOOKED_S: i64 = 900;

pub(super) fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

/// Handshakes that were answered in vain, the last at this time.
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
        last_check: Some(since),
        next_check: None,
        source: if status == HostStatus::Down { "none".into() } else { String::new() },
        direct: DirectAnswer::NotAsked,
        one_way: false,
        output: "no answer".into(),
        detail: Default::default(),
        notified: None,
        voice: VoiceState::default(),
    }
}

fn quiet() -> Evidence {
    Evidence {
        now: at(1_000),
        host: host(HostStatus::Up, at(0)),
        cut_off: None,
        tunnel: Some(TunnelFacts { last_packet: Some(at(990)), ..TunnelFacts::default() }),
        second_path: false,
        behind: None,
        services: Vec::new(),
        site: None,
        elsewhere: Others::default(),
        clocks: Clocks::default(),
    }
}

/// All that a verdict does not exclude.
fn open(verdict: &Verdict) -> Vec<Kind> {
    match verdict.kind {
        Kind::Ok => Vec::new(),
        Kind::Undetermined => verdict.candidates.clone(),
        kind => vec![kind],
    }
}

#[test]
fn of_a_host_that_somebody_says_is_down_nothing_is_claimed() {
    let state = HostState { source: "passive".into(), ..host(HostStatus::Down, at(900)) };
    let elsewhere = Others { heard: 3, silent: 0 };
    let verdict = judge(&Evidence { host: state, tunnel: None, elsewhere, ..quiet() });
    assert_eq!(verdict.kind, Kind::Undetermined, "{verdict:?}");
    assert!(open(&verdict).contains(&Kind::ServiceProblem), "{verdict:?}");
}

#[test]
fn of_a_host_that_nobody_sent_a_result_of_nothing_is_claimed() {
    let state = HostState { source: "silence".into(), ..host(HostStatus::Down, at(900)) };
    let others = Others { heard: 3, silent: 0 };
    let site = Some(SiteFacts { name: "north".into(), others });
    let verdict = judge(&Evidence { host: state, tunnel: None, site, elsewhere: others, ..quiet() });
    assert_eq!(verdict.kind, Kind::Undetermined, "whoever sends may be what is gone: {verdict:?}");
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
    assert_eq!(refused(20, Refusal::ClockWentBack { behind }), Kind::ClockWrong);
    assert_eq!(refused(20, Refusal::Crypto), Kind::KeyRefused);
    assert_eq!(refused(20, Refusal::RateLimited), Kind::Ok);
    assert_eq!(refused(900, Refusal::ClockWentBack { behind }), Kind::Ok, "that was before it slept");
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
        assert_eq!(verdict.kind, Kind::KeyRefused, "{verdict:?}");
        assert_eq!(verdict.text, "key refused: it uses the key that was replaced at 00:11 UTC");
    }
    let ok = judged(HostStatus::Up, facts(Some(980), 990));
    assert_eq!(ok.kind, Kind::Ok, "the new one is in use, and an old copy knocks: {ok:?}");
    let doubt = judged(HostStatus::Down, facts(Some(800), 990));
    assert!(
        doubt.candidates.contains(&Kind::KeyRefused) && doubt.candidates.contains(&Kind::DeviceGone),
        "{doubt:?}"
    );
    let old = judged(HostStatus::Down, facts(None, 700));
    assert!(old.kind == Kind::Undetermined && old.candidates.contains(&Kind::KeyRefused), "{old:?}");
}

// ------------------------------------------------------------------ matrix

fn pairs() -> impl Iterator<Item = Vec<Fault>> {
    let all = Fault::ALL.into_iter().enumerate();
    all.flat_map(|(i, a)| {
        Fault::ALL.into_iter().skip(i).map(move |b| if a == b { vec![a] } else { vec![a, b] })
    })
}

#[test]
fn no_fault_and_no_pair_of_faults_is_ever_called_something_else() {
    for world in World::all() {
        for faults in pairs() {
            let truth: Vec<Kind> = faults.iter().flat_map(|fault| fault.called()).copied().collect();
            for (seconds, evidence) in world.watch(&faults, LOOKED_S) {
                let verdict = judge(&evidence);
                let claimed = !matches!(verdict.kind, Kind::Ok | Kind::Undetermined);
                let context = || format!("{world:?} {faults:?} after {seconds} s: {verdict:#?}");
                assert!(!claimed || truth.contains(&verdict.kind), "{}", context());
                if seconds >= BOUND_S && !truth.is_empty() {
                    assert!(open(&verdict).iter().any(|kind| truth.contains(kind)), "{}", context());
                }
            }
        }
    }
}

#[test]
fn with_all_paths_each_fault_is_named_in_bounded_time() {
    for fault in Fault::ALL {
        let named = fault.called().first().copied().unwrap_or(Kind::Ok);
        for (seconds, evidence) in World::FULL.watch(&[fault], LOOKED_S) {
            if seconds >= BOUND_S {
                assert_eq!(judge(&evidence).kind, named, "{fault:?} after {seconds} s: {evidence:#?}");
            }
        }
    }
}

/// Two faults that look alike on every path: something at the address does not prove to be the device,
/// whose tunnel is silent, and so it is with a stranger in the place of a device that is gone.
const ALIKE: [[Fault; 2]; 1] = [[Fault::TunnelBlocked, Fault::SshHung]];

#[test]
fn with_all_paths_of_each_pair_of_faults_one_is_named_in_bounded_time() {
    for faults in pairs().filter(|faults| !ALIKE.iter().any(|pair| faults[..] == pair[..])) {
        let truth: Vec<Kind> = faults.iter().flat_map(|fault| fault.called()).copied().collect();
        let allowed = |kind| truth.contains(&kind) || truth.is_empty() && kind == Kind::Ok;
        for (seconds, evidence) in World::FULL.watch(&faults, LOOKED_S) {
            let kind = judge(&evidence).kind;
            assert!(
                seconds < BOUND_S || allowed(kind),
                "{faults:?} after {seconds} s: {kind:?} {evidence:#?}"
            );
        }
    }
    for faults in ALIKE {
        let last = World::FULL.watch(&faults, LOOKED_S).pop().map(|(_, evidence)| judge(&evidence));
        assert_eq!(last.map(|v| v.candidates), Some(vec![Kind::TunnelDown, Kind::DeviceGone]), "{faults:?}");
    }
}

#[test]
fn a_captured_handshake_that_is_sent_again_is_no_sign_of_life() {
    for world in World::all() {
        for (_, evidence) in world.watch(&[Fault::DeviceOff, Fault::Replayed], LOOKED_S) {
            assert!(!matches!(judge(&evidence).kind, Kind::ClockWrong | Kind::ClonedKey), "{evidence:#?}");
        }
    }
    let alone = World { direct: false, neighbours: 0, elsewhere: 0, sentinel: false };
    let last = alone.watch(&[Fault::DeviceOff, Fault::Replayed], LOOKED_S).pop().map(|(_, e)| judge(&e));
    let open = last.map(|verdict| verdict.candidates).unwrap_or_default();
    for kind in [Kind::DeviceGone, Kind::SiteUplinkLost, Kind::GatewayUplinkLost, Kind::ClockWrong] {
        assert!(open.contains(&kind), "{kind:?} is left open: {open:?}");
    }
}

#[test]
fn nothing_is_wrong_with_a_world_without_faults() {
    for world in World::all() {
        for (_, evidence) in world.watch(&[], LOOKED_S) {
            assert_eq!(judge(&evidence).kind, Kind::Ok, "{world:?} {evidence:#?}");
        }
    }
}

#[test]
fn a_camera_behind_carrier_nat_has_no_second_path() {
    let alone = World { direct: false, neighbours: 0, elsewhere: 2, sentinel: true };
    let last = |fault| alone.watch(&[fault], LOOKED_S).pop().map(|(_, evidence)| judge(&evidence)).unwrap();
    for fault in [Fault::DeviceOff, Fault::SiteCut, Fault::TunnelBlocked] {
        let verdict = last(fault);
        let expected = vec![Kind::SiteUplinkLost, Kind::TunnelDown, Kind::DeviceGone];
        assert_eq!((verdict.kind, verdict.candidates), (Kind::Undetermined, expected), "{fault:?}");
        // A candidate has no comma of its own, or the list could not be read.
        let words = "undetermined: uplink of north lost, its tunnel alone down or device gone";
        assert_eq!(verdict.text, words);
        assert!(verdict.evidence.contains(&"there is no second path".to_owned()), "{:?}", verdict.evidence);
    }
}

// ------------------------------------------------------------------ tables

#[test]
fn what_stands_behind_a_device_is_judged_by_that_device_first() {
    let nas = |heard, others| Evidence {
        host: host(HostStatus::Down, at(900)),
        tunnel: None,
        behind: Some(Behind { device: "cam-07".into(), heard }),
        site: Some(SiteFacts { name: "cam-07".into(), others }),
        elsewhere: Others { heard: 3, silent: 0 },
        ..quiet()
    };
    let (none, some, many) =
        (Others::default(), Others { heard: 1, silent: 0 }, Others { heard: 0, silent: 2 });
    let table = [
        (false, none, vec![Kind::ParentDown]),
        (true, some, vec![Kind::DeviceGone]),
        (true, many, vec![Kind::LocalNetworkLost]),
        (true, none, vec![Kind::LocalNetworkLost, Kind::DeviceGone]),
    ];
    for (heard, others, expected) in table {
        assert_eq!(open(&judge(&nas(heard, others))), expected, "{heard} {others:?}");
    }
    assert_eq!(judge(&nas(false, none)).text, "cam-07 before it does not answer");
}

#[test]
fn what_is_expected_to_be_silent_or_was_never_asked_is_no_fault() {
    let asleep = HostState { asleep: true, ..host(HostStatus::Up, at(0)) };
    assert_eq!(judge(&Evidence { host: asleep, ..quiet() }).text, "asleep, as it may be");
    let pending = host(HostStatus::Pending, at(0));
    assert_eq!(judge(&Evidence { host: pending, ..quiet() }).kind, Kind::Pending);
}

#[test]
fn a_result_that_is_too_old_claims_nothing() {
    let stale = HostState { stale: true, ..host(HostStatus::Up, at(0)) };
    let alone = Evidence { host: stale, elsewhere: Others { heard: 0, silent: 5 }, ..quiet() };
    assert_eq!(judge(&alone).kind, Kind::Undetermined);
    let cut_off = Evidence { cut_off: Some(at(900)), ..alone };
    assert_eq!(judge(&cut_off).kind, Kind::GatewayUplinkLost, "it is known why");
}

#[test]
fn services_are_named_and_told_apart() {
    let service = |name: &str, asked, status, answered| ServiceFacts {
        name: name.into(),
        asked,
        status: Some(status),
        current: true,
        answered,
        said: format!("{name} says"),
    };
    let of = |services| judge(&Evidence { services, ..quiet() });
    let hung = service("rtsp", Asked::Presence, Status::Critical, false);
    let slow = service("rtsp", Asked::Presence, Status::Critical, true);
    let disk = service("disk", Asked::Value, Status::Warning, true);
    let stuck = service("mount", Asked::Value, Status::Unknown, false);
    assert_eq!(
        of(vec![hung.clone(), disk.clone()]).text,
        "service hung: rtsp; also: the device is well, a service is not: disk"
    );
    assert_eq!(of(vec![slow, disk.clone()]).kind, Kind::ServiceProblem);
    assert_eq!(of(vec![stuck, hung.clone()]).text, "service hung: mount, rtsp");
    assert_eq!(of(vec![ServiceFacts { current: false, ..hung }]).kind, Kind::Ok);
    assert!(of(vec![disk]).evidence.contains(&"disk: disk says".to_owned()));
}

// -------------------------------------------------------------- properties

fn others() -> impl Strategy<Value = Others> {
    (0..3u32, 0..3u32).prop_map(|(heard, silent)| Others { heard, silent })
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
        replaced: None,
    });
    let facts = (500..1_000i64, 500..1_000i64, refusals(), attempts, skew, any::<bool>()).prop_map(
        |(packet, handshake, refusal, attempts, clock_skew_ms, cloned)| TunnelFacts {
            last_packet: Some(at(packet)),
            last_handshake: Some(at(handshake)),
            refusal,
            attempts,
            clock_skew_ms,
            in_turn: if cloned { vec!["192.0.2.1:1".into(), "192.0.2.2:2".into()] } else { Vec::new() },
        },
    );
    proptest::option::of(facts)
}

/// Any evidence at all, also such as no world shows.
fn any_evidence() -> impl Strategy<Value = Evidence> {
    use DirectAnswer::{Answered, Doubtful, NotAsked, Silent};
    // Who answers is up, and who is up on another path was not asked.
    let up = proptest::sample::select(vec![NotAsked, Answered]).prop_map(|said| (HostStatus::Up, said));
    let down = proptest::sample::select(vec![NotAsked, Doubtful, Silent]);
    let state = prop_oneof![up, down.prop_map(|said| (HostStatus::Down, said))];
    let flags = (any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>()));
    let who = (others(), others(), 0..2u32);
    (state, tunnels(), flags, who).prop_map(|((status, direct), tunnel, flags, who)| Evidence {
        host: HostState { direct, reachable: flags.0, stale: flags.1, ..host(status, at(800)) },
        tunnel: tunnel.filter(|_| flags.2.is_none()),
        second_path: direct != NotAsked,
        behind: flags.2.map(|heard| Behind { device: "cam-07".into(), heard }),
        site: Some(SiteFacts { name: "north".into(), others: who.0 }),
        elsewhere: who.1,
        clocks: Clocks { right: who.2, wrong: 0 },
        ..quiet()
    })
}

/// What one cause, or one shared cause and one more, can show: who is silent by chance is alone.
fn is_plausible(e: &Evidence) -> bool {
    let site = e.site.as_ref().map(|site| site.others).unwrap_or_default();
    let alive = e.host.direct == DirectAnswer::Answered || e.fresh_refusal().is_some();
    let crowd = |others: Others| others.silent >= TOGETHER;
    let whole_site = !crowd(site) || site.heard == 0 && !alive;
    let nothing = e.elsewhere.heard == 0 && site.heard == 0 && e.host.direct != DirectAnswer::Doubtful;
    let everybody = !crowd(e.elsewhere) || nothing && !alive;
    let down = e.host.status == HostStatus::Down;
    // Whoever answers has something before it that lets it through.
    let reached = e.host.reachable || !alive;
    reached && whole_site && everybody && down == (e.host.direct != DirectAnswer::Answered)
}

/// The same world, seen over one path less.
fn with_less(e: &Evidence) -> Vec<Evidence> {
    let no_site = Evidence { site: None, ..e.clone() };
    let nobody = Evidence { elsewhere: Others::default(), ..e.clone() };
    let no_clocks = Evidence { clocks: Clocks::default(), ..e.clone() };
    let undirected = HostState { direct: DirectAnswer::NotAsked, status: HostStatus::Down, ..e.host.clone() };
    let no_direct = Evidence { host: undirected, second_path: false, ..e.clone() };
    let bare =
        !e.host.stale && e.tunnel.as_ref().is_none_or(|t| t.in_turn.is_empty() && e.skew_ms().is_none());
    let mut less = vec![no_site, nobody, no_clocks];
    // Of a device that is not heard any more its clock and its addresses are no question.
    less.extend((e.host.status == HostStatus::Down || bare && e.tunnel.is_some()).then_some(no_direct));
    less
}

proptest! {
    #[test]
    fn a_claim_is_contradicted_by_nothing(e in any_evidence()) {
        let verdict = judge(&e);
        let site = e.site.as_ref().map(|site| site.others).unwrap_or_default();
        let (direct, refusal) = (e.host.direct, e.fresh_refusal());
        let fits = match verdict.kind {
            Kind::Ok => e.host.status == HostStatus::Up && !e.host.stale && refusal.is_none_or(|r| r == Refusal::RateLimited),
            Kind::GatewayUplinkLost => {
                e.elsewhere.heard == 0 && site.heard == 0 && refusal.is_none()
                    && !matches!(direct, DirectAnswer::Answered | DirectAnswer::Doubtful)
            }
            Kind::ParentDown => !e.host.reachable || e.behind.as_ref().is_some_and(|b| !b.heard),
            Kind::SiteUplinkLost => site.heard == 0 && direct != DirectAnswer::Answered && refusal.is_none(),
            Kind::LocalNetworkLost => site.heard == 0 && e.behind.as_ref().is_some_and(|b| b.heard),
            Kind::DeviceGone => direct != DirectAnswer::Answered && refusal.is_none(),
            Kind::KeyRefused => refusal == Some(Refusal::Crypto),
            Kind::ClockWrong => matches!(refusal, Some(Refusal::ClockWentBack { .. })) || e.skew_ms().is_some(),
            Kind::TunnelDown => e.tunnel.is_some() && direct != DirectAnswer::Silent
                || refusal == Some(Refusal::RateLimited),
            Kind::ClonedKey => e.tunnel.as_ref().is_some_and(|t| !t.in_turn.is_empty()),
            Kind::Undetermined => verdict.candidates.len() > 1,
            _ => false,
        };
        prop_assert!(fits, "{verdict:#?}");
        prop_assert!(e.host.status == HostStatus::Down || e.host.stale
            || !matches!(verdict.kind, Kind::DeviceGone | Kind::SiteUplinkLost | Kind::GatewayUplinkLost));
    }

    #[test]
    fn with_fewer_paths_the_candidates_only_grow(e in any_evidence().prop_filter("plausible", is_plausible)) {
        let all = |e: &Evidence| -> Vec<Kind> { causes::findings(e).into_iter().flat_map(|f| f.0).collect() };
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
