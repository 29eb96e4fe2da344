//! The uplink check: the states of devices while the gateway's own uplink is down.

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{EventKind, HostSpec, HostStatus, Timing};
use fleetgate_tests::world::{Truth, World, device, with};

/// Too few hosts for the fleet-wide rule, so only the uplink check can detect the cut.
fn pair() -> (World, [HostId; 2]) {
    let mut world = World::new(1);
    let ids = [1, 2].map(|n| world.add(with(device(n), tunnel_and_ping()), Truth::well()));
    world.look_outside();
    world.run(10 * MINUTE);
    assert_eq!(told(&world), Vec::<String>::new());
    (world, ids)
}

/// A hundred hosts, the first of which is in the gateway's own building.
fn fleet(timing: Timing) -> (World, HostId, Vec<HostId>) {
    let mut world = World::paced(1, timing.interval);
    world.keep_asked = false;
    let add = |n| world.add(HostSpec { timing, ..device(n) }, Truth::well());
    let mut ids: Vec<HostId> = (1..=100).map(add).collect();
    world.look_outside();
    world.run(20 * MINUTE);
    assert_eq!(told(&world), Vec::<String>::new());
    (world, ids.remove(0), ids)
}

/// Checks every five minutes, with retries that are not over before a fifth of the fleet was
/// checked.
const SLOW: Timing =
    Timing { interval: Duration::from_secs(300), retry: Duration::from_secs(60), ..Timing::DEFAULT };

fn cut(world: &mut World, ids: &[HostId]) {
    world.outside = Some(false);
    ids.iter().for_each(|id| world.set(*id, Truth::off()));
}

#[test]
fn a_lost_way_out_is_one_message_and_no_device_is_down() {
    let (mut world, ids) = pair();
    cut(&mut world, &ids);
    world.run(HOUR);
    assert!(ids.iter().all(|id| status(&world, *id) == HostStatus::Up));
    assert_eq!(told(&world), ["gateway up down"]);
    assert!(world.kept.messages[0].output.contains("uplink is down: no anchor answers (anchor)"));

    world.outside = Some(true);
    ids.iter().for_each(|id| world.set(*id, Truth::well()));
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["gateway up down", "gateway down up"]);
    assert!(ids.iter().all(|id| status(&world, *id) == HostStatus::Up));
}

#[test]
fn a_neighbour_that_is_heard_says_nothing_of_a_fleet_that_is_not() {
    for timing in [Timing::DEFAULT, SLOW] {
        let (mut world, neighbour, others) = fleet(timing);
        cut(&mut world, &others);
        world.run(HOUR);
        let is_down =
            |world: &World| others.iter().filter(|id| status(world, **id) == HostStatus::Down).count();
        assert_eq!((is_down(&world), told(&world)), (0, vec!["gateway up down".to_owned()]));
        let said = &world.kept.messages[0].output;
        assert!(said.contains("uplink is down: no anchor answers (anchor), and "), "{said}");
        assert_eq!(world.host(neighbour).map(|s| (s.hard, s.stale)), Some((HostStatus::Up, false)));
        world.restart(MINUTE);
        world.run(HOUR);
        assert_eq!((is_down(&world), told(&world).len()), (0, 1), "a restart repeats nothing");

        world.outside = Some(true);
        others[1..].iter().for_each(|id| world.set(*id, Truth::well()));
        world.run(HOUR);
        assert_eq!(told(&world), ["gateway up down", "gateway down up", "cam-2 up down"]);
    }
}

#[test]
fn a_neighbour_that_is_heard_under_a_clear_sky_tells_a_lost_site_from_the_gateway() {
    let (mut world, _, others) = fleet(Timing::DEFAULT);
    others[..30].iter().for_each(|id| world.set(*id, Truth::off()));
    world.run(20 * MINUTE);
    assert!(others.iter().all(|id| (status(&world, *id) == HostStatus::Down) == (id.as_i64() <= 31)));
    assert!(!told(&world).iter().any(|said| said.starts_with("gateway")));
}

#[test]
fn a_fleet_that_is_asked_every_five_minutes_is_found_to_be_lost_as_one() {
    let (mut world, neighbour, others) = fleet(SLOW);
    world.outside = None;
    cut(&mut world, &others);
    world.outside = None;
    world.set(neighbour, Truth::off());
    world.run(HOUR);
    assert_eq!(told(&world), ["gateway up down"]);
    let said = &world.kept.messages[0].output;
    assert!(said.contains(" of 100 hosts that were up fell silent within 5 min, and no other"), "{said}");
    others.iter().for_each(|id| world.set(*id, Truth::well()));
    world.run(HOUR);
    assert_eq!(told(&world), ["gateway up down", "gateway down up", "cam-1 up down"]);
}

#[test]
fn a_large_fleet_that_dies_under_a_clear_sky_is_suspected_once_and_judged_once() {
    let (mut world, neighbour, others) = fleet(Timing::DEFAULT);
    others.iter().chain([&neighbour]).for_each(|id| world.set(*id, Truth::off()));
    world.run(2 * HOUR);
    let (gateway, hosts): (Vec<String>, Vec<String>) =
        told(&world).into_iter().partition(|said| said.starts_with("gateway"));
    assert_eq!((gateway.len(), hosts.len()), (2, 100));
}

#[test]
fn what_died_meanwhile_is_told_after_the_way_is_back() {
    let (mut world, ids) = pair();
    cut(&mut world, &ids);
    world.run(HOUR);
    world.outside = Some(true);
    world.set(ids[0], Truth::well());
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["gateway up down", "gateway down up", "cam-2 up down"]);
}

#[test]
fn when_nobody_comes_back_all_are_judged_once_the_way_is_seen_again() {
    let (mut world, ids) = pair();
    cut(&mut world, &ids);
    world.run(HOUR);
    world.outside = Some(true);
    world.run(20 * MINUTE);
    let mut told = told(&world);
    told[2..].sort();
    assert_eq!(told, ["gateway up down", "gateway down up", "cam-1 up down", "cam-2 up down"]);
}

#[test]
fn an_anchor_that_is_gone_is_nothing_while_devices_are_heard() {
    let (mut world, ids) = pair();
    world.outside = Some(false);
    world.run(HOUR);
    assert_eq!(told(&world), Vec::<String>::new());
    world.set(ids[0], Truth::off());
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["cam-1 up down"], "the other one is heard");
}

#[test]
fn anchors_that_stay_gone_do_not_hide_the_fleet_once_it_is_back() {
    let (mut world, _, others) = fleet(Timing::DEFAULT);
    cut(&mut world, &others);
    world.run(HOUR);
    assert_eq!(told(&world), ["gateway up down"]);
    others.iter().for_each(|id| world.set(*id, Truth::well()));
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["gateway up down", "gateway down up"], "the anchors are the liars");
    world.set(others[0], Truth::off());
    world.run(10 * MINUTE);
    assert_eq!(told(&world).last().map(String::as_str), Some("cam-2 up down"));
}

#[test]
fn one_bad_look_changes_nothing() {
    let (mut world, _) = pair();
    world.outside = Some(false);
    world.run(SECOND);
    world.outside = Some(true);
    world.run(10 * MINUTE);
    let uplink = |kind: &EventKind| matches!(kind, EventKind::UplinkLost | EventKind::UplinkBack);
    assert!(!world.kept.events.iter().any(|e| uplink(&e.kind)));
}

#[test]
fn a_device_that_is_hard_at_once_is_told_after_a_look_that_is_newer() {
    let hasty = Timing { attempts: 1, ..Timing::DEFAULT };
    let mut world = World::new(1);
    let id = world.add(HostSpec { timing: hasty, ..with(device(1), tunnel_and_ping()) }, Truth::well());
    world.look_outside();
    world.run(10 * MINUTE);
    world.set(id, Truth::off());
    while status(&world, id) != HostStatus::Down {
        world.run(fleetgate_tests::world::RTT / 3);
    }
    assert_eq!((told(&world).len(), world.looks), (0, 1), "the look is under way");
    world.run(SECOND);
    assert_eq!(told(&world), ["cam-1 up down"]);
}

#[test]
fn a_look_that_never_comes_holds_nothing_for_ever() {
    let hasty = Timing { attempts: 1, ..Timing::DEFAULT };
    let mut world = World::new(1);
    let id = world.add(HostSpec { timing: hasty, ..with(device(1), tunnel_and_ping()) }, Truth::well());
    world.look_outside();
    world.run(10 * MINUTE);
    // The uplink check has ended.
    world.outside = None;
    world.set(id, Truth::off());
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["cam-1 up down"]);
}

#[test]
fn a_restart_while_the_way_is_lost_repeats_nothing() {
    let (mut world, ids) = pair();
    cut(&mut world, &ids);
    world.run(HOUR);
    world.restart(MINUTE);
    world.run(HOUR);
    assert_eq!(told(&world), ["gateway up down"]);
    world.outside = Some(true);
    ids.iter().for_each(|id| world.set(*id, Truth::well()));
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["gateway up down", "gateway down up"]);
}

#[test]
fn a_fleet_that_dies_under_a_clear_sky_is_one_message_and_judged_a_little_later() {
    let mut world = World::new(1);
    let ids: Vec<HostId> =
        (1..=8).map(|n| world.add(with(device(n), tunnel_and_ping()), Truth::well())).collect();
    world.look_outside();
    world.run(10 * MINUTE);
    ids.iter().for_each(|id| world.set(*id, Truth::off()));
    world.run(6 * MINUTE);
    assert_eq!(told(&world), ["gateway up down"]);
    world.run(20 * MINUTE);
    assert_eq!(told(&world)[1], "gateway down up");
    assert!(ids.iter().all(|id| status(&world, *id) == HostStatus::Down));
    assert_eq!(told(&world).len(), 10, "each once: {:?}", told(&world));
}

#[test]
fn a_restart_before_the_way_is_back_does_not_hide_a_small_fleet_for_ever() {
    let (mut world, ids) = pair();
    cut(&mut world, &ids);
    world.run(HOUR);
    world.outside = Some(true);
    world.restart(MINUTE);
    world.run(30 * MINUTE);
    assert!(ids.iter().all(|id| status(&world, *id) == HostStatus::Down));
}
