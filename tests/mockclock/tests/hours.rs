//! A virtual hour under ordinary and bad conditions: how often each end makes a handshake, and
//! whether the tunnel has gaps.

use std::time::Duration;

use fleetgate_mockclock::{Plan, Tally, fenced_hour, naive_hour};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asserts that the gateway made no handshake, that there was no gap and no refusal, and that every
/// probe got a reply.
#[track_caller]
fn assert_quiet(tally: &Tally) {
    assert_eq!(tally.gateway_initiations, 0, "{tally:?}");
    assert_eq!((tally.gaps, tally.refused.len()), (0, 0), "{tally:?}");
    assert!(tally.probes - tally.answers <= 1, "{tally:?}");
    assert!(tally.device_initiations <= 31, "{tally:?}");
    assert!(tally.gateway_polls < 400, "{tally:?}");
}

#[test]
fn a_naive_gateway_takes_quiet_devices_for_lost_ones() {
    let slow = Plan { one_way: Duration::from_millis(150), ..Plan::HOUR };
    assert!(naive_hour(slow).gateway_initiations > 20);
    let gone = Plan { device_gone_at: Some(secs(1_000)), ..Plan::HOUR };
    assert!(naive_hour(gone).gateway_initiations > 300);
}

#[test]
fn fenced_no_handshake_comes_from_probing_at_any_distance() {
    for one_way in [1, 25, 100, 200, 1_000] {
        assert_quiet(&fenced_hour(Plan { one_way: Duration::from_millis(one_way), ..Plan::HOUR }));
    }
}

#[test]
fn fenced_no_handshake_comes_from_probing_at_any_pace() {
    for every in [1, 5, 16, 60, 170] {
        let one_way = Duration::from_millis(200);
        let tally = fenced_hour(Plan { one_way, probe_every: Some(secs(every)), ..Plan::HOUR });
        assert_eq!((tally.gateway_initiations, tally.gaps), (0, 0), "every {every} s: {tally:?}");
    }
}

#[test]
fn fenced_a_device_with_keepalives_alone_never_has_a_gap() {
    // The device renews every 180 s, at the very end of the session, so its last packets may come
    // too late.
    let tally = fenced_hour(Plan { probe_every: None, ..Plan::HOUR });
    assert_eq!(tally.gateway_initiations, 0, "{tally:?}");
    assert!(tally.device_initiations >= 19, "{tally:?}");
    assert!(tally.refused.is_empty(), "{tally:?}");
    assert!(tally.gateway_polls < 60, "{tally:?}");
}

#[test]
fn fenced_losses_lead_to_no_gap() {
    for lost_per_mille in [20, 50] {
        let tally = fenced_hour(Plan { lost_per_mille, one_way: Duration::from_millis(100), ..Plan::HOUR });
        assert!(tally.gaps <= 1, "{tally:?}");
        assert!(tally.gateway_initiations <= 40, "{tally:?}");
        let expected = tally.probes as u64 * (1_000 - 2 * lost_per_mille) / 1_000;
        assert!(tally.answers as u64 + 6 >= expected, "{tally:?}");
    }
}

#[test]
fn fenced_a_tunnel_that_the_gateway_dialled_is_renewed_by_it_without_a_gap() {
    let tally = fenced_hour(Plan { gateway_dials: true, ..Plan::HOUR });
    assert_eq!((tally.gaps, tally.refused.len()), (0, 0), "{tally:?}");
    assert!((24..=31).contains(&tally.gateway_initiations), "{tally:?}");
    let idle = fenced_hour(Plan { gateway_dials: true, probe_every: None, ..Plan::HOUR });
    assert!(idle.refused.is_empty(), "{idle:?}");
    assert!((18..=23).contains(&idle.gateway_initiations), "{idle:?}");
}

#[test]
fn fenced_a_device_that_went_away_is_dialled_twice_and_then_once_in_five_minutes() {
    let tally = fenced_hour(Plan { device_gone_at: Some(secs(1_000)), ..Plan::HOUR });
    assert!(tally.gateway_initiations <= 20, "{tally:?}");
    assert!(tally.gateway_polls < 400, "{tally:?}");
}
