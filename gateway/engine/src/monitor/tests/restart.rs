//! States after a restart.

use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use super::lab::{Lab, Truth, behind, service};
use crate::id::HostId;
use crate::messages::{
    Check, EventKind, HostSnapshot, HostSpec, HostState, HostStatus, ServiceState, StateType,
};
use crate::monitor::testing;
use crate::time::Wall;

/// A host that is up, by its last check 20 s ago.
fn up(raw: i64, source: &str, now: Wall) -> HostState {
    let at = now - Duration::from_secs(20);
    HostState {
        host: HostId::from_i64(raw),
        status: HostStatus::Up,
        kind: StateType::Hard,
        attempt: 1,
        hard: HostStatus::Up,
        reachable: true,
        stale: false,
        asleep: false,
        since: at,
        hard_since: at,
        last_check: Some(at),
        next_check: Some(now + Duration::from_secs(30)),
        source: source.to_owned(),
        direct: Default::default(),
        one_way: false,
        silent_since: None,
        last_alive: Some(at),
        asked_at: Some(at),
        asked: None,
        strange_key: None,
        output: String::new(),
        detail: Default::default(),
        notified: None,
        notification: Default::default(),
        taken: Default::default(),
    }
}

/// It failed once before the restart, and no host is heard after it.
#[test]
fn a_fleet_that_began_to_fail_before_a_restart_is_a_common_failure_after_it() {
    let mut lab = Lab::new();
    let now = lab.now.wall;
    let failing = |n: i64| HostSnapshot {
        spec: testing::host(n),
        state: Some(HostState {
            status: HostStatus::Down,
            kind: StateType::Soft,
            next_check: Some(now + Duration::from_secs(5)),
            ..up(n, "none", now)
        }),
        services: vec![],
        acknowledged: vec![],
    };
    for n in 1..=10 {
        lab.hosts.insert(HostId::from_i64(n), Truth::quiet(0.0, f64::MAX));
    }
    lab.monitor.restore((1..=10).map(failing), lab.now);
    lab.run(Duration::from_secs(600));
    assert!(lab.told_of("cam").is_empty() && lab.told().len() == 1, "{:#?}", lab.told());
}

/// A service that has long been hard CRITICAL, by its last check 20 s ago.
fn critical_tunnel(cause: Cause, now: Wall) -> ServiceState {
    let at = now - Duration::from_secs(20);
    ServiceState {
        name: "tunnel".to_owned(),
        status: Some(Status::Critical),
        kind: StateType::Hard,
        attempt: 3,
        hard: Some(Status::Critical),
        stale: false,
        since: at,
        hard_since: at,
        last_check: Some(at),
        next_check: Some(now + Duration::from_secs(40)),
        route: "tunnel".to_owned(),
        asked: None,
        path: Default::default(),
        cause_since: at,
        result: PluginResult::critical("said").because(cause),
        notified: Some(Status::Critical),
        notification: Default::default(),
        taken: Default::default(),
    }
}

/// A device whose `tunnel` was CRITICAL before the restart for this cause, and a host behind it.
fn restored(cause: Cause) -> Lab {
    let mut lab = Lab::new();
    let now = lab.now.wall;
    let spec = HostSpec { services: vec![service("tunnel", Check::Tunnel)], ..testing::host(1) };
    let (state, services) = (Some(up(1, "evidence", now)), vec![critical_tunnel(cause, now)]);
    let device = HostSnapshot { spec, state, services, acknowledged: vec![] };
    let nas = Some(up(2, "echo", now));
    let nas = HostSnapshot { spec: behind(2, 1), state: nas, services: vec![], acknowledged: vec![] };
    for n in [1, 2] {
        lab.hosts.insert(HostId::from_i64(n), Truth::well());
    }
    lab.monitor.restore([device, nas], lab.now);
    lab.drain();
    lab
}

fn becomes_unreachable(lab: &Lab) -> bool {
    lab.events().any(|event| event.kind == EventKind::Unreachable)
}

/// The device's clock is wrong, and `tunnel` has a threshold for that.
#[test]
fn a_tunnel_above_a_threshold_does_not_fail_its_dependents_after_a_restart() {
    assert!(!becomes_unreachable(&restored(Cause::Answered)));
}

#[test]
fn a_tunnel_that_was_dead_before_a_restart_is_dead_after_it() {
    assert!(becomes_unreachable(&restored(Cause::NoAnswer)));
}
