//! Checks without a result because their dependency failed. They run soon after it recovers, but
//! not all at once, and a check that a user requested is kept until then.

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{HostSpec, HostStatus, ServiceSpec};
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Status;
use fleetgate_tests::world::{Truth, World, device, with, with_login};

/// Everything once a day except the dependencies, so that no regular check makes up for a missed
/// one.
fn rarely() -> Vec<ServiceSpec> {
    let mut all = everything();
    for service in all.iter_mut().filter(|s| !matches!(s.name.as_str(), "tunnel" | "ssh")) {
        service.timing.interval = 24 * HOUR;
    }
    all
}

/// A device that is also reachable at its public address.
fn outside(raw: i64) -> HostSpec {
    with(pinned(with_direct(with_login(device(raw)))), rarely())
}

fn last_check(world: &World, id: HostId, name: &str) -> Option<Wall> {
    world.service(id, name).and_then(|s| s.last_check)
}

/// Returns a world in which the device connected, and then lost some paths before its services had
/// any result.
fn came_and_lost(spec: &HostSpec, truth: &Truth) -> (World, HostId) {
    let mut world = World::new(1);
    let id = world.add(HostSpec { services: Vec::new(), ..spec.clone() }, Truth::well());
    world.run(MINUTE);
    world.set(id, truth.clone());
    world.run(5 * MINUTE);
    world.change(id, |changed| changed.services.clone_from(&spec.services));
    world.run(10 * MINUTE);
    (world, id)
}

#[test]
fn a_first_check_that_was_dropped_is_made_when_the_tunnel_is_back() {
    let (mut world, id) = came_and_lost(&outside(1), &Truth { link: false, ..Truth::well() });
    assert_eq!(hard(&world, id, "tunnel"), Some(Status::Critical));
    assert_eq!((hard(&world, id, "ping"), hard(&world, id, "web")), (None, None), "they say nothing");
    world.set(id, Truth::well());
    world.run(15 * SECOND);
    let ok = Some(Status::Ok);
    assert_eq!((hard(&world, id, "ping"), hard(&world, id, "web")), (ok, ok));
    assert_eq!(told(&world), ["cam-1/tunnel ok critical", "cam-1/tunnel critical ok"]);
}

#[test]
fn a_first_check_that_was_dropped_is_made_when_ssh_is_back() {
    let mut world = World::new(1);
    let spec = with(with_login(device(1)), rarely());
    let id = world.add(spec, Truth { sshd: false, ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!(hard(&world, id, "ssh"), Some(Status::Critical));
    assert_eq!((hard(&world, id, "board"), hard(&world, id, "plugin")), (None, None));
    world.set(id, Truth::well());
    world.run(75 * SECOND);
    let ok = Some(Status::Ok);
    assert_eq!(["ssh", "board", "plugin"].map(|name| hard(&world, id, name)), [ok; 3]);
}

/// `ssh` did not fail by itself; its dependency did.
#[test]
fn what_depends_on_a_service_that_was_missed_itself_follows_it() {
    let refused = Truth { refused: true, ..Truth::well() };
    let spec = with(with_login(device(1)), rarely());
    let first = came_and_lost(&spec, &refused);
    let (mut later, id) = settled(spec);
    later.set(id, refused);
    later.run(10 * MINUTE);
    for service in ["ssh", "board", "plugin"] {
        later.check_now(id, Some(service));
        later.run(MINUTE);
        assert!(is_stale(&later, id, service), "{service}");
    }
    for (mut world, id) in [first, (later, id)] {
        assert_eq!(hard(&world, id, "tunnel"), Some(Status::Critical));
        world.set(id, Truth::well());
        let back = world.now.wall;
        world.run(30 * SECOND);
        for service in ["ssh", "board", "plugin"] {
            assert!(last_check(&world, id, service) >= Some(back), "{service}");
            assert!(!is_stale(&world, id, service), "{service}");
        }
    }
}

#[test]
fn a_host_that_fails_softly_forgets_no_first_check() {
    let web: Vec<_> = rarely().into_iter().filter(|s| s.name == "web").collect();
    let mut world = World::new(1);
    let id = world.add(fleetgate_tests::world::public(1), Truth::well());
    world.run(MINUTE);
    world.set(id, Truth { direct: false, ..Truth::well() });
    world.change(id, |spec| spec.services = web);
    while world.host(id).is_none_or(|s| s.status != HostStatus::Down) {
        world.run(SECOND);
    }
    assert_eq!(hard(&world, id, "web"), None);
    world.set(id, Truth::well());
    world.run(30 * SECOND);
    assert_eq!(hard(&world, id, "web"), Some(Status::Ok), "{:?}", world.service(id, "web"));
}

#[test]
fn what_a_person_asked_for_is_kept_until_it_can_be_answered() {
    let (mut world, id) = settled(outside(1));
    world.set(id, Truth { link: false, ..Truth::well() });
    world.run(5 * MINUTE);
    world.check_now(id, Some("ping"));
    world.run(HOUR);
    let asked = world.now.wall;
    world.set(id, Truth::well());
    world.run(15 * SECOND);
    assert!(last_check(&world, id, "ping") >= Some(asked));
    let once = world.asked.len();
    world.run(5 * MINUTE);
    let echoes = world.asked[once..].iter().filter(|(_, ask)| kind(ask) == "echo").count();
    assert_eq!(echoes, 0, "and answered once");
}

#[test]
fn what_a_person_asked_for_while_the_host_is_down_comes_with_it() {
    let (mut world, id) = settled(with(device(1), rarely()));
    world.set(id, Truth::off());
    world.run(5 * MINUTE);
    world.check_now(id, Some("ping"));
    world.run(5 * MINUTE);
    let asked = world.now.wall;
    world.set(id, Truth::well());
    world.run(20 * SECOND);
    assert!(last_check(&world, id, "ping") >= Some(asked));
}

#[test]
fn what_a_person_asks_for_while_a_check_is_under_way_is_another_one() {
    let (mut world, id) = settled(with(with_login(device(1)), rarely()));
    world.asked.clear();
    for (service, probe) in [("ping", "echo"), ("plugin", "ssh")] {
        world.check_now(id, Some(service));
        world.run(Duration::from_millis(1));
        let asked = world.now.wall;
        world.check_now(id, Some(service));
        world.run(SECOND);
        assert_eq!(count(&world, probe), 2, "{service}: {:?}", kinds(&world));
        assert!(last_check(&world, id, service) > Some(asked));
    }
}

#[test]
fn a_change_of_the_host_forgets_nothing_that_a_person_asked_for() {
    let (mut world, id) = settled(with(device(1), rarely()));
    let before = world.now.wall;
    world.check_now(id, Some("ping"));
    world.change(id, |spec| spec.name = "another".into());
    world.run(15 * SECOND);
    assert!(last_check(&world, id, "ping") >= Some(before));
}

/// Returns the probes of the busiest second after each of three restarts.
fn restarts(world: &mut World) -> Vec<u64> {
    let busiest = |away| {
        world.peak = 0;
        world.restart(Duration::from_secs(away));
        world.run(10 * MINUTE);
        world.peak
    };
    [0, 61, 4_000].into_iter().map(busiest).collect()
}

/// If `ssh` never worked, no service that needs it has a result. Neither a restart nor its recovery
/// causes a burst.
#[test]
fn what_was_missed_by_a_whole_fleet_comes_back_at_a_bounded_rate() {
    let ids = || (1..=600).map(HostId::from_i64);
    let fleet = |truth: &Truth| {
        let mut world = World::new(3);
        world.keep_asked = false;
        for id in ids() {
            world.add(with(with_login(device(id.as_i64())), rarely()), truth.clone());
            world.run(SECOND / 24);
        }
        world.run(5 * MINUTE);
        world
    };
    let mut world = fleet(&Truth { sshd: false, ..Truth::well() });
    let busiest = restarts(&mut world);
    // Seventy-five hosts come back each second. The missed checks add nothing to that.
    assert!(busiest.iter().all(|peak| *peak <= 140), "{busiest:?} questions in a second");
    let known = |world: &World| ids().filter(|id| hard(world, *id, "board").is_some()).count();
    assert_eq!(known(&world), 0);
    for id in ids() {
        world.check_now(id, Some("plugin"));
        world.run(SECOND / 24);
    }
    world.run(MINUTE);
    world.peak = 0;
    world.run(2 * MINUTE);
    let usual = std::mem::take(&mut world.peak);
    for id in ids() {
        world.set(id, Truth::well());
    }
    world.run(2 * MINUTE);
    assert_eq!(known(&world), 600);
    assert!(world.peak <= usual + 20, "{} questions in a second, {usual} before", world.peak);
}
