//! Silence that is not the device's fault, and results of hosts that cannot be probed: which of it
//! counts, and when.

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, HostSpec, HostStatus, MonitorInput, PassiveResult, ServiceSpec, Ticket, Timing,
};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_tests::world::{Truth, World, device, service, with};

fn backup() -> ServiceSpec {
    ServiceSpec { freshness: Some(HOUR), ..service("backup", Check::Passive) }
}

fn sends(world: &mut World, host: HostId, status: Status) {
    submit(world, host, Some("backup".to_owned()), status);
}

fn sends_own(world: &mut World, host: HostId, status: Status) {
    submit(world, host, None, status);
}

fn submit(world: &mut World, host: HostId, service: Option<String>, status: Status) {
    let (result, at) = (PluginResult::new(status, "sent", Vec::new()), world.now.wall);
    let by = String::new();
    world.input(MonitorInput::Submit(Box::new(PassiveResult {
        host,
        service,
        result,
        at,
        by,
        identity: Default::default(),
        ticket: Ticket(1),
    })));
}

/// Returns a device whose backup reported OK fifty minutes ago.
fn quiet(spec: HostSpec) -> (World, HostId) {
    let (mut world, id) = settled(with(spec, vec![service("tunnel", Check::Tunnel), backup()]));
    sends(&mut world, id, Status::Ok);
    world.run(50 * MINUTE);
    (world, id)
}

/// Asserts that the service has one freshness threshold of grace from now on, and no more.
fn has_grace(world: &mut World, id: HostId) {
    world.run(HOUR - 2 * SECOND);
    assert_eq!(hard(world, id, "backup"), Some(Status::Ok), "it had no time");
    world.run(5 * SECOND);
    assert_eq!(hard(world, id, "backup"), Some(Status::Unknown), "it had time");
    let backup = world.service(id, "backup").expect("a state");
    assert_eq!((backup.result.text.as_str(), backup.stale), ("no result for 60 min", false));
}

// ---------------------------------------------------------------- freshness

#[test]
fn silence_in_which_the_gateway_slept_is_not_the_devices() {
    let (mut world, id) = quiet(device(1));
    world.suspend(5 * HOUR);
    has_grace(&mut world, id);
}

#[test]
fn silence_in_which_the_gateway_was_cut_off_is_not_the_devices() {
    let (mut world, id) = quiet(device(1));
    world.look_outside();
    world.run(SECOND);
    world.outside = Some(false);
    world.set(id, Truth::off());
    world.run(5 * HOUR);
    assert_eq!(
        (hard(&world, id, "backup"), told(&world)),
        (Some(Status::Ok), vec!["gateway up down".into()])
    );
    world.set(id, Truth::well());
    while told(&world).len() < 2 {
        world.run(SECOND);
    }
    has_grace(&mut world, id);
}

#[test]
fn silence_of_a_device_that_sleeps_or_cannot_be_reached_says_nothing() {
    let router = |world: &mut World| world.add(device(2), Truth::well());
    let sleeper = HostSpec { max_silence: Some(26 * HOUR), ..device(1) };
    let behind = HostSpec { parents: vec![HostId::from_i64(2)], ..device(1) };
    for (spec, what) in [(sleeper, "asleep"), (behind, "unreachable"), (device(1), "down")] {
        let (mut world, id) = quiet(spec);
        let router = router(&mut world);
        world.run(MINUTE);
        world.set(id, Truth::off());
        if what == "unreachable" {
            world.set(router, Truth::off());
        }
        world.run(5 * HOUR);
        assert_eq!(hard(&world, id, "backup"), Some(Status::Ok), "{what}");
        [id, router].into_iter().for_each(|id| world.set(id, Truth::well()));
        let is_back = |world: &World| {
            world.host(id).is_some_and(|s| s.reachable && !s.asleep && s.hard == HostStatus::Up)
        };
        while !is_back(&world) {
            world.run(SECOND);
        }
        world.run(50 * MINUTE);
        assert_eq!(hard(&world, id, "backup"), Some(Status::Ok), "{what}: it has its time again");
        world.run(15 * MINUTE);
        assert_eq!(hard(&world, id, "backup"), Some(Status::Unknown), "{what}");
    }
}

// ----------------------------------------------------------- passive results

#[test]
fn what_an_unreachable_or_sleeping_device_sends_is_kept_and_told_when_it_can_be() {
    let sleeper = HostSpec { max_silence: Some(26 * HOUR), ..device(1) };
    let behind = HostSpec { parents: vec![HostId::from_i64(2)], ..device(1) };
    for (spec, what) in [(sleeper, "asleep"), (behind, "unreachable")] {
        let (mut world, id) = quiet(spec);
        let router = world.add(device(2), Truth::well());
        world.run(MINUTE);
        world.set(id, Truth::off());
        if what == "unreachable" {
            world.set(router, Truth::off());
        }
        world.run(20 * MINUTE);
        (0..3).for_each(|_| sends(&mut world, id, Status::Critical));
        let stale = |world: &World| {
            let backup = world.service(id, "backup").expect("a state");
            assert_eq!(backup.hard, Some(Status::Critical), "{what}: it is taken");
            backup.stale
        };
        assert_eq!(stale(&world), what == "unreachable", "{what}");
        let of_backup =
            |world: &World| told(world).into_iter().filter(|said| said.contains("backup")).count();
        // Results for a sleeping device may come from elsewhere, so its problem is notified. For an
        // unreachable host it is suppressed.
        assert_eq!(of_backup(&world), usize::from(what == "asleep"), "{what}");
        [id, router].into_iter().for_each(|id| world.set(id, Truth::well()));
        world.run(10 * MINUTE);
        assert_eq!(of_backup(&world), usize::from(what == "asleep"), "{what}: a newer one is waited for");
        assert_eq!(stale(&world), what == "unreachable", "{what}");
        sends(&mut world, id, Status::Critical);
        assert_eq!((of_backup(&world), stale(&world)), (1, false), "{what}");
    }
}

// ------------------------------------------------------------------- parents

#[test]
fn what_cannot_be_reached_is_asked_more_rarely() {
    let (mut world, router) = settled(device(2));
    let id =
        world.add(HostSpec { parents: vec![router], ..with(device(1), tunnel_and_ping()) }, Truth::well());
    world.run(10 * MINUTE);
    [id, router].into_iter().for_each(|id| world.set(id, Truth::off()));
    world.run(20 * MINUTE);
    assert!(world.host(id).is_some_and(|s| !s.reachable));
    world.asked.clear();
    world.run(HOUR);
    let looks = |id| world.asked.iter().filter(|(_, ask)| ask.host == id && kind(ask) == "evidence").count();
    // Each of the twelve dials of an hour is followed by another look at the evidence.
    let dials = |id| world.asked.iter().filter(|(_, ask)| ask.host == id && kind(ask) == "handshake").count();
    assert_eq!((looks(id) - dials(id), looks(router) - dials(router)), (12, 60));
}

#[test]
fn a_parent_that_was_never_looked_at_counts_as_fine() {
    let mut world = World::new(1);
    let never = Truth { link: false, ..Truth::well() };
    let router = world.add(device(2), never);
    let id = world.add(HostSpec { parents: vec![router], ..device(1) }, Truth::well());
    world.run(10 * MINUTE);
    world.set(id, Truth::off());
    world.run(5 * MINUTE);
    assert_eq!(status(&world, router), HostStatus::Pending);
    assert_eq!(told(&world), ["cam-1 up down"]);
}

#[test]
fn a_site_of_hundreds_that_returns_is_asked_again_spread_out() {
    let mut world = World::new(3);
    let router = world.add(device(1), Truth::well());
    // Another site is heard, so the site has failed, and the uplink has not.
    world.add(device(401), Truth::well());
    let mut behind = Vec::new();
    for n in 2..=400 {
        let spec = HostSpec { parents: vec![router], ..with(device(n), tunnel_and_ping()) };
        behind.push(world.add(spec, Truth::well()));
    }
    world.run(10 * MINUTE);
    // Their tunnels recover within some seconds of each other.
    let of_router = |world: &mut World, link: bool| {
        world.set(router, if link { Truth::well() } else { Truth::off() });
        for id in &behind {
            world.set(*id, Truth { link, ..Truth::well() });
            world.run(SECOND / 50);
        }
    };
    of_router(&mut world, false);
    world.run(30 * MINUTE);
    assert!(behind.iter().all(|id| world.host(*id).is_some_and(|s| !s.reachable)));
    world.peak = 0;
    of_router(&mut world, true);
    world.run(2 * MINUTE);
    assert!(behind.iter().all(|id| status(&world, *id) == HostStatus::Up && !is_stale(&world, *id, "ping")));
    assert!(world.peak <= 200, "at most {} questions in a second, of 1,200", world.peak);
}

#[test]
fn what_fails_is_told_half_a_minute_after_it_is_hard_when_its_parent_says_nothing() {
    let mut world = World::new(1);
    let slow = Timing { attempts: 9, ..Timing::DEFAULT };
    let router = world.add(HostSpec { timing: slow, ..device(2) }, Truth::well());
    let id = world.add(HostSpec { parents: vec![router], ..device(1) }, Truth::well());
    world.add(device(3), Truth::well());
    world.run(10 * MINUTE);
    [id, router].into_iter().for_each(|id| world.set(id, Truth::off()));
    while status(&world, id) == HostStatus::Up {
        world.run(SECOND);
    }
    world.run(28 * SECOND);
    assert_eq!(told(&world), Vec::<String>::new());
    world.run(4 * SECOND);
    assert_eq!(told(&world), ["cam-1 up down"]);
}

/// A host that only receives results cannot be probed: a switch that a script reports.
#[test]
fn a_parent_that_only_receives_results_vouches_while_its_last_one_is_fresh() {
    for (freshness, wait, held) in
        [(None, 0, false), (None, 90, false), (Some(HOUR), 50, false), (Some(HOUR), 70, true)]
    {
        let mut world = World::new(1);
        let told_of = HostSpec { peer: None, own_tunnel: false, address: None, freshness, ..device(2) };
        let switch = world.add(told_of, Truth::off());
        let id = world.add(HostSpec { parents: vec![switch], ..device(1) }, Truth::well());
        world.add(device(3), Truth::well());
        sends_own(&mut world, switch, Status::Ok);
        world.run(MINUTE);
        world.run(wait * MINUTE);
        world.set(id, Truth::off());
        while status(&world, id) == HostStatus::Up {
            world.run(SECOND);
        }
        world.run(2 * SECOND);
        let ours = told(&world).iter().filter(|said| said.starts_with("cam-1")).count();
        assert_eq!(ours, usize::from(!held), "fresh for {freshness:?}, {wait} min old: {:?}", told(&world));
    }
}

#[test]
fn what_stands_behind_a_parent_that_was_reported_down_is_told_to_nobody() {
    let mut world = World::new(1);
    let told_of = HostSpec { peer: None, own_tunnel: false, address: None, ..device(2) };
    let switch = world.add(told_of, Truth::off());
    let id = world.add(HostSpec { parents: vec![switch], ..device(1) }, Truth::well());
    world.add(device(3), Truth::well());
    sends_own(&mut world, switch, Status::Ok);
    world.run(10 * MINUTE);
    world.set(id, Truth::off());
    world.run(20 * SECOND);
    (0..3).for_each(|_| sends_own(&mut world, switch, Status::Critical));
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["cam-2 up down"]);
}

/// The same when the last probe of the uplink was less than a second ago.
#[test]
fn a_host_that_fails_waits_a_second_for_a_look_outside_at_the_most() {
    for ms in [0, 1, 40, 400, 900, 999, 1_500, 9_500] {
        let mut world = World::new(1);
        let id = world
            .add(HostSpec { timing: Timing { attempts: 1, ..Timing::DEFAULT }, ..device(1) }, Truth::well());
        world.add(device(2), Truth::well());
        world.look_outside();
        world.run(10 * MINUTE);
        world.run(Duration::from_millis(ms));
        world.set(id, Truth::off());
        world.check_now(id, None);
        while status(&world, id) == HostStatus::Up {
            world.run(Duration::from_millis(20));
        }
        world.run(1_100 * SECOND / 1_000);
        assert_eq!(told(&world), ["cam-1 up down"], "{ms} ms");
    }
}
