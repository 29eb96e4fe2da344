//! Limits on the measurements of the built-in checks, in virtual time. They judge the measured
//! value, and do not affect services that depend on a check that works.

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, HostSpec, HostStatus, MonitorInput, PassiveResult, ServiceSpec, Threshold, Ticket,
};
use fleetgate_probes::plugin::{Ending, PluginResult};
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::Status;
use fleetgate_tests::world::{Truth, World, device, public, service, with, with_login};

fn limit(metric: &str, warn: &str, crit: &str) -> Threshold {
    let limits = Thresholds { warn: warn.parse().ok(), crit: crit.parse().ok() };
    Threshold { metric: metric.into(), limits }
}

fn limited(mut service: ServiceSpec, metric: &str, warn: &str, crit: &str) -> ServiceSpec {
    service.thresholds.push(limit(metric, warn, crit));
    service
}

fn tunnel() -> ServiceSpec {
    service("tunnel", Check::Tunnel)
}

fn metric(world: &World, id: HostId, name: &str, label: &str) -> Option<f64> {
    world.service(id, name)?.result.metrics.iter().find(|m| m.label == label)?.value
}

/// Returns every status that a service had in this time.
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
    // It is checked more often than the device sends packets, so handshakes are forced.
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
    assert_eq!(metric(&world, id, "ssh", "time"), Some(fleetgate_tests::world::RTT.as_secs_f64()));
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

#[test]
fn a_host_over_a_warning_limit_is_up_and_says_so() {
    let spec = HostSpec { thresholds: vec![limit("packet_age", "0.001", "90")], ..device(1) };
    let (mut world, id) = settled(spec);
    world.run(10 * MINUTE);
    let state = world.host(id).expect("a state");
    assert_eq!((state.hard, state.attempt), (HostStatus::Up, 1));
    assert!(state.output.contains("packet_age") && state.output.contains("(warning)"), "{}", state.output);
    assert_eq!(state.detail.metrics[0].label, "packet_age");
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn a_host_over_a_critical_limit_is_down_by_attempts_and_back_below_it() {
    let spec = HostSpec { thresholds: vec![limit("rtt", "~:", "5000")], ..public(1) };
    let (mut world, id) = settled(spec);
    world.change(id, |spec| spec.thresholds = vec![limit("rtt", "~:", "10")]);
    world.run(5 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
    assert_eq!(world.host(id).map(|s| s.attempt), Some(3));
    world.change(id, |spec| spec.thresholds = vec![limit("no_such_metric", "1", "2")]);
    world.run(5 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Up, "nobody is down for a number that is missing");
    assert_eq!(told(&world), ["cam-1 up down", "cam-1 down up"]);
}

#[test]
fn a_fleet_over_its_limits_has_answered_and_says_nothing_of_the_gateway() {
    let mut world = World::new(1);
    let ids: Vec<HostId> = (1..=8).map(|n| world.add(device(n), Truth::well())).collect();
    world.run(10 * MINUTE);
    for id in &ids {
        world.change(*id, |spec| spec.thresholds = vec![limit("rtt", "~:", "10")]);
        world.check_now(*id, None);
    }
    world.run(20 * MINUTE);
    let mut told = told(&world);
    told.sort();
    assert_eq!(told, (1..=8).map(|n| format!("cam-{n} up down")).collect::<Vec<_>>());
}

#[test]
fn what_stands_behind_a_host_over_its_limit_is_watched_on() {
    let mut world = World::new(1);
    let router = world.add(device(1), Truth::well());
    let child = world.add(HostSpec { parents: vec![router], ..device(2) }, Truth::well());
    world.run(10 * MINUTE);
    world.change(router, |spec| spec.thresholds = vec![limit("rtt", "~:", "10")]);
    world.check_now(router, None);
    world.run(10 * MINUTE);
    assert_eq!(status(&world, router), HostStatus::Down);
    assert_eq!(world.host(child).map(|s| (s.reachable, s.stale)), Some((true, false)));
    world.set(child, Truth::off());
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["cam-1 up down", "cam-2 up down"]);
    world.set(router, Truth::off());
    world.run(10 * MINUTE);
    assert_eq!(world.host(child).map(|s| s.reachable), Some(false), "now it says nothing any more");
}

#[test]
fn a_packet_takes_back_no_answer_that_took_too_long() {
    let (mut world, id) = settled(HostSpec { thresholds: vec![limit("rtt", "~:", "10")], ..device(1) });
    world.check_now(id, None);
    world.run(HOUR);
    assert_eq!(told(&world), ["cam-1 up down"]);
    world.change(id, |spec| spec.thresholds = vec![limit("rtt", "~:", "100")]);
    world.run(5 * MINUTE);
    assert_eq!(told(&world), ["cam-1 up down", "cam-1 down up"]);
}

#[test]
fn after_a_restart_a_limit_mutes_nobody_either() {
    let mut late = limited(tunnel(), "clock_skew", "-1:1", "-2:2");
    late.timing.interval = HOUR;
    let web = service("web", Check::Tcp { port: 443 });
    let (mut world, id) = settled(with(device(1), vec![late, web]));
    world.set(id, Truth { skew_ms: Some(60_000), ..Truth::well() });
    world.run(2 * HOUR);
    assert_eq!(hard(&world, id, "tunnel"), Some(Status::Critical));
    world.restart(SECOND);
    world.set(id, Truth { skew_ms: Some(60_000), tcp: false, ..Truth::well() });
    world.run(5 * MINUTE);
    assert_eq!((hard(&world, id, "web"), is_stale(&world, id, "web")), (Some(Status::Critical), false));
}

#[test]
fn what_is_sent_of_many_hosts_is_no_silence() {
    let mut world = World::new(1);
    let told_of = |n| HostSpec { peer: None, own_tunnel: false, address: None, ..device(n) };
    let ids: Vec<HostId> = (1..=8).map(|n| world.add(told_of(n), Truth::off())).collect();
    for exit in [0, 2, 2, 2] {
        for id in &ids {
            let result = PluginResult::from_run(&Ending::Exit(exit), b"said", b"", false);
            let (at, by, ticket) = (world.now.wall, "token:t_1".to_owned(), Ticket(1));
            let sent = PassiveResult {
                host: *id,
                service: None,
                result,
                at,
                by,
                identity: Default::default(),
                ticket,
            };
            world.input(MonitorInput::Submit(Box::new(sent)));
        }
        world.run(MINUTE);
    }
    assert_eq!(told(&world).len(), 8, "{:?}", told(&world));
    assert!(ids.iter().all(|id| status(&world, *id) == HostStatus::Down));
}

#[test]
fn what_is_sent_of_a_host_is_kept_whole_and_judged() {
    let mut world = World::new(1);
    let told_of = HostSpec { peer: None, own_tunnel: false, address: None, ..device(1) };
    let id = world.add(HostSpec { thresholds: vec![limit("load", "4", "8")], ..told_of }, Truth::off());
    let send = |world: &mut World, output: &str| {
        let result = PluginResult::from_run(&Ending::Exit(0), output.as_bytes(), b"", false);
        let (at, by, ticket) = (world.now.wall, "token:t_1".to_owned(), Ticket(1));
        let sent =
            PassiveResult { host: id, service: None, result, at, by, identity: Default::default(), ticket };
        world.input(MonitorInput::Submit(Box::new(sent)));
        world.run(SECOND);
        world.host(id).expect("a state").clone()
    };
    let state = send(&mut world, "fine | load=5 x=,\nmore\nof it");
    assert_eq!((state.status, state.output.as_str()), (HostStatus::Up, "fine; load 5 is above 4 (warning)"));
    assert_eq!((state.detail.long_text.as_str(), state.detail.warnings.len()), ("more\nof it", 1));
    assert_eq!(send(&mut world, "fine | load=9").status, HostStatus::Down);
    assert_eq!(send(&mut world, "fine").status, HostStatus::Up);
}
