//! Limits on what the checks of our own measure, told in virtual time: they judge what was measured,
//! and silence nobody who depends on a check that works.

#[path = "monitor/stories.rs"]
#[allow(dead_code, reason = "other stories use more of it")]
mod stories;
#[path = "monitor/world.rs"]
#[allow(dead_code, reason = "other simulations use more of it")]
mod world;

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::wire::{Check, HostSpec, ServiceSpec, Threshold};
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::Status;
use stories::*;
use world::{Truth, World, device, service, with, with_login};

fn limited(mut service: ServiceSpec, metric: &str, warn: &str, crit: &str) -> ServiceSpec {
    let limits = Thresholds { warn: warn.parse().ok(), crit: crit.parse().ok() };
    service.thresholds.push(Threshold { metric: metric.into(), limits });
    service
}

fn tunnel() -> ServiceSpec {
    service("tunnel", Check::Tunnel)
}

fn metric(world: &World, id: HostId, name: &str, label: &str) -> Option<f64> {
    world.service(id, name)?.result.metrics.iter().find(|m| m.label == label)?.value
}

/// Whatever a service said in this time.
fn statuses(world: &mut World, id: HostId, name: &str, time: Duration) -> Vec<Status> {
    let mut seen = Vec::new();
    let until = world.now.mono + time;
    while world.now.mono < until {
        world.run(SECOND);
        seen.extend(world.service(id, name).and_then(|s| s.status));
    }
    seen.dedup();
    seen
}

#[test]
fn limits_of_the_tunnel_hold_for_a_handshake_that_had_to_be_forced() {
    let watched = limited(limited(tunnel(), "handshake_age", "1800", "3600"), "clock_skew", "-2:2", "-60:60");
    // Its check comes more often than the device speaks, so that handshakes are forced.
    let mut watched = limited(watched, "packet_age", "120", "300");
    watched.timing.interval = 10 * SECOND;
    watched.timing.timeout = 5 * SECOND;
    let (mut world, id) = settled(with(device(1), vec![watched]));
    world.asked.clear();
    assert_eq!(statuses(&mut world, id, "tunnel", 10 * MINUTE), [Status::Ok]);
    assert!(count(&world, "handshake") > 5, "{:?}", kinds(&world));
    let skew = metric(&world, id, "tunnel", "clock_skew");
    assert_eq!(skew, Some(0.012), "what the device told last of its clock");
}

#[test]
fn a_clock_that_is_not_known_yet_is_no_reason_to_complain() {
    let mut world = World::new(1);
    let watched = limited(tunnel(), "clock_skew", "-2:2", "-60:60");
    let id = world.add(with(device(1), vec![watched]), Truth { skew_ms: None, ..Truth::well() });
    assert_eq!(statuses(&mut world, id, "tunnel", 10 * MINUTE), [Status::Ok]);
    world.set(id, Truth { skew_ms: Some(3_000), ..Truth::well() });
    assert_eq!(statuses(&mut world, id, "tunnel", 10 * MINUTE), [Status::Ok, Status::Warning]);
}

fn logged_in(ssh: ServiceSpec, more: Vec<ServiceSpec>) -> HostSpec {
    let services = [tunnel(), service("ping", Check::Ping { count: 3 }), ssh].into_iter().chain(more);
    with(with_login(device(1)), services.collect())
}

#[test]
fn a_kept_session_is_judged_by_the_time_it_took_to_open() {
    let ssh = limited(service("ssh", Check::Ssh), "time", "2", "10");
    let (mut world, id) = settled(logged_in(ssh, vec![]));
    world.set(id, Truth { connect: None, ..Truth::well() });
    assert_eq!(statuses(&mut world, id, "ssh", 10 * MINUTE), [Status::Ok]);
    assert_eq!(metric(&world, id, "ssh", "time"), Some(world::RTT.as_secs_f64()));
    world.set(id, Truth { connect: Some(3 * SECOND), ..Truth::well() });
    world.run(2 * MINUTE);
    world.set(id, Truth { connect: None, ..Truth::well() });
    assert_eq!(statuses(&mut world, id, "ssh", 10 * MINUTE), [Status::Warning], "the same session");
}

#[test]
fn a_slow_login_mutes_nothing_that_runs_over_it() {
    let ssh = limited(service("ssh", Check::Ssh), "time", "0.001", "0.01");
    let (mut world, id) = settled(logged_in(ssh, vec![temperature()]));
    assert_eq!(hard(&world, id, "ssh"), Some(Status::Critical));
    world.set(id, Truth { temperature: 70.0, ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!(hard(&world, id, "board"), Some(Status::Critical));
    assert!(!is_stale(&world, id, "board"));
    assert_eq!(told(&world).last().map(String::as_str), Some("cam-1/board ok critical"));
}

#[test]
fn a_tunnel_over_its_limit_mutes_no_ping() {
    let late = limited(tunnel(), "clock_skew", "-1:1", "-2:2");
    let ping = limited(service("ping", Check::Ping { count: 3 }), "rta", "1", "10");
    let ping = limited(ping, "pl", "10", "50");
    let (mut world, id) = settled(with(device(1), vec![late, ping]));
    world.set(id, Truth { skew_ms: Some(60_000), ..Truth::well() });
    world.asked.clear();
    world.run(10 * MINUTE);
    assert_eq!(hard(&world, id, "tunnel"), Some(Status::Critical));
    assert_eq!((hard(&world, id, "ping"), is_stale(&world, id, "ping")), (Some(Status::Critical), false));
    assert_eq!(count(&world, "handshake"), 0, "a limit is no reason to force a handshake");
}
