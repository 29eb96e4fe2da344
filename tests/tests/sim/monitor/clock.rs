//! The wall clock is set, hours ahead and back, while the gateway runs and while it does not. The
//! monotonic clock continues, and nothing that is measured in seconds changes.

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, EventKind, HostSpec, HostStatus, MonitorInput, PassiveResult, ServiceSpec, Ticket,
};
use fleetgate_engine::time::Wall;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_tests::world::{Truth, World, device, service, with, with_login};

/// Seconds by which the clock is set, ahead and back: a little, a lot, and by more than a year.
const STEPS: [i64; 10] = [2, -2, 90, -90, 7_200, -7_200, 86_400, -86_400, 40_000_000, -40_000_000];

/// The ways in which the step and a restart combine.
const WAYS: [fn(&mut World, i64); 4] = [
    World::step_wall,
    |world, secs| {
        world.step_wall(secs);
        world.restart(5 * SECOND);
    },
    |world, secs| {
        world.step_wall(secs);
        world.run(MINUTE / 2);
        world.restart(MINUTE);
    },
    |world, secs| {
        world.suspend(MINUTE);
        world.step_wall(secs);
    },
];

/// Runs the story for each step in each way, in a new world.
fn each(mut story: impl FnMut(&dyn Fn(&mut World), i64)) {
    for secs in STEPS {
        WAYS.iter().for_each(|way| story(&|world| way(world, secs), secs));
    }
}

fn sends(world: &mut World, host: HostId, service: Option<&str>, status: Status, at: Wall) {
    let result = PluginResult::new(status, "sent", Vec::new());
    let (service, by) = (service.map(str::to_owned), String::new());
    let sent =
        PassiveResult { host, service, result, at, by, identity: Default::default(), ticket: Ticket(1) };
    world.input(MonitorInput::Submit(Box::new(sent)));
}

fn backup() -> ServiceSpec {
    ServiceSpec { freshness: Some(HOUR), ..service("backup", Check::Passive) }
}

#[test]
fn nobody_is_down_and_nothing_is_told_because_a_clock_was_set() {
    each(|set, secs| {
        let mut world = World::new(1);
        let mut services = everything();
        services.push(backup());
        let devices: Vec<HostId> = (1..=8)
            .map(|n| world.add(with(with_login(device(n)), services.clone()), Truth::well()))
            .collect();
        let asleep = HostSpec { max_silence: Some(3 * HOUR), ..device(9) };
        let asleep = world.add(asleep, Truth::well());
        world.run(10 * MINUTE);
        world.set(asleep, Truth::off());
        for minutes in [50, 20] {
            let now = world.now.wall;
            devices.iter().for_each(|id| sends(&mut world, *id, Some("backup"), Status::Ok, now));
            world.run(minutes * MINUTE);
        }
        set(&mut world);
        world.run(35 * MINUTE);
        let bad = |kind: &EventKind| matches!(kind, EventKind::StateChanged { to, .. } if !["ok", "up"].contains(to));
        let bad: Vec<_> = world.kept.events.iter().filter(|e| bad(&e.kind)).collect();
        assert!(bad.is_empty(), "{secs} s: {bad:#?}");
        assert_eq!(told(&world), Vec::<String>::new(), "{secs} s");
        assert!(world.host(asleep).is_some_and(|s| s.asleep), "{secs} s");
        for id in devices {
            assert!(!is_stale(&world, id, "ping") && status(&world, id) == HostStatus::Up, "{secs} s");
        }
    });
}

#[test]
fn who_sleeps_for_too_long_is_found_out_whatever_the_clock_says() {
    for secs in STEPS {
        let (mut world, id) = settled(HostSpec { max_silence: Some(3 * HOUR), ..device(1) });
        world.add(device(2), Truth::well());
        world.set(id, Truth::off());
        world.run(2 * HOUR);
        world.step_wall(secs);
        world.run(2 * MINUTE);
        world.restart(5 * SECOND);
        world.run(50 * MINUTE);
        assert_eq!(told(&world), Vec::<String>::new(), "{secs} s");
        world.run(20 * MINUTE);
        assert_eq!(told(&world), ["cam-1 up down"], "{secs} s");
    }
}

#[test]
fn what_is_wrong_is_told_once_and_what_is_well_again_too() {
    each(|set, secs| {
        let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
        world.set(id, Truth::off());
        world.run(10 * MINUTE);
        set(&mut world);
        world.run(30 * MINUTE);
        assert_eq!(told(&world), ["cam-1 up down"], "{secs} s");
        set(&mut world);
        world.set(id, Truth::well());
        world.run(10 * MINUTE);
        assert_eq!(told(&world), ["cam-1 up down", "cam-1 down up"], "{secs} s");
        world.set(id, Truth::off());
        world.run(10 * MINUTE);
        assert_eq!(told(&world).len(), 3, "{secs} s");
    });
}

#[test]
fn silence_is_measured_from_the_jump_on() {
    for secs in STEPS {
        let (mut world, id) = settled(with(device(1), vec![backup()]));
        let now = world.now.wall;
        sends(&mut world, id, Some("backup"), Status::Ok, now);
        world.run(40 * MINUTE);
        world.step_wall(secs);
        world.run(MINUTE);
        // A step as small as that of a time server is no jump.
        let left = if secs.abs() > 10 { 58 } else { 18 };
        world.run(left * MINUTE);
        assert_eq!(hard(&world, id, "backup"), Some(Status::Ok), "{secs} s");
        world.run(2 * MINUTE);
        assert_eq!(told(&world), ["cam-1/backup ok unknown"], "{secs} s");
    }
}

#[test]
fn a_result_is_late_only_by_a_clock_that_stands() {
    let (mut world, id) = settled(with(device(1), vec![backup()]));
    let status_of = |world: &World| hard(world, id, "backup");
    let send = |world: &mut World, status| {
        let now = world.now.wall;
        sends(world, id, Some("backup"), status, now);
    };
    send(&mut world, Status::Ok);
    // The stored time is in the future now, so it does not count.
    world.step_wall(-7_200);
    world.run(MINUTE);
    send(&mut world, Status::Unknown);
    world.run(MINUTE);
    send(&mut world, Status::Unknown);
    world.run(MINUTE);
    send(&mut world, Status::Unknown);
    assert_eq!(status_of(&world), Some(Status::Unknown));
    let before = world.now.wall;
    world.run(MINUTE);
    send(&mut world, Status::Ok);
    // A late result stays late, also after a restart and a step ahead.
    for secs in [0, 7_200] {
        world.step_wall(secs);
        world.restart(5 * SECOND);
        sends(&mut world, id, Some("backup"), Status::Critical, before);
        assert_eq!(status_of(&world), Some(Status::Ok), "{secs} s");
    }
    // A clock that was ahead left a time in the future, and was corrected while the gateway was
    // away.
    send(&mut world, Status::Ok);
    world.step_wall(-7_200);
    world.restart(5 * SECOND);
    world.run(MINUTE);
    send(&mut world, Status::Warning);
    assert_eq!(world.service(id, "backup").and_then(|s| s.status), Some(Status::Warning));
}

#[test]
fn reminders_keep_their_distance_over_a_step_and_a_restart() {
    for secs in STEPS {
        let mut spec = device(1);
        spec.alerting.notify.interval = Some(HOUR);
        let (mut world, id) = settled(spec);
        world.set(id, Truth::off());
        while told(&world).is_empty() {
            world.run(SECOND);
        }
        world.run(20 * MINUTE);
        world.step_wall(secs);
        world.run(5 * MINUTE);
        world.restart(5 * SECOND);
        world.run(34 * MINUTE);
        assert_eq!(told(&world), ["cam-1 up down"], "{secs} s");
        world.run(2 * MINUTE);
        assert_eq!(told(&world), ["cam-1 up down", "cam-1 down down"], "{secs} s");
    }
}

#[test]
fn after_a_jump_silence_proves_nothing_for_an_interval() {
    let (mut world, id) = settled(device(1));
    world.step_wall(3_600);
    world.set(id, Truth::off());
    world.check_now(id, None);
    world.run(MINUTE - SECOND);
    assert_eq!(world.host(id).map(|s| (s.status, s.stale)), Some((HostStatus::Up, true)));
    world.run(5 * MINUTE);
    assert_eq!(told(&world), ["cam-1 up down"]);
}
