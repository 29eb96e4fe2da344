//! Shipped devices: when they have arrived, and that nothing is handed over before.

use super::*;

/// The rental of device 1, which left at a second and is to be up alone.
fn sent(dispatched: i64) -> HandoverSpec {
    let rule = Some(GateRule { services: Some(Default::default()), ok_for: seconds(0) });
    HandoverSpec { rule, arrival: Arrival::Awaited { dispatched_at: wall(dispatched) }, ..rental() }
}

#[test]
fn a_device_has_arrived_when_it_is_up_again_after_it_had_left() {
    let mut world = World::good();
    world.to(100);
    world.put(sent(100));
    world.to(150);
    world.send(1, None, Status::Ok);
    assert_eq!(world.arrived, [], "it is still in its place");
    world.to(200);
    world.send(1, None, Status::Critical);
    world.to(400);
    world.send(1, None, Status::Ok);
    assert_eq!(world.arrived, [(host(1), wall(400))]);
    world.to(599);
    assert_eq!(world.handed_over, [], "the rental has not begun");
    world.to(601);
    assert_eq!(world.handed_over, [(host(1), wall(600))]);
    world.put(sent(100));
    world.to(1_000);
    assert_eq!((world.arrived.len(), world.handed_over.len()), (1, 1), "the store does not have it yet");
}

#[test]
fn one_that_arrives_late_is_handed_over_after_the_time_of_its_gate() {
    let mut world = World::good();
    let gated = HandoverSpec { rule: rental().rule, ..sent(0) };
    world.put(gated);
    world.send(1, None, Status::Critical);
    world.to(700);
    assert_eq!((world.arrived.len(), world.handed_over.len()), (0, 0));
    world.all_good(1);
    assert_eq!(world.arrived, [(host(1), wall(700))]);
    world.to(999);
    assert_eq!(world.handed_over, []);
    world.to(1_001);
    assert_eq!(world.handed_over, [(host(1), wall(1_000))]);
}

#[test]
fn one_that_was_never_silent_has_arrived_when_the_rental_begins() {
    let mut world = World::good();
    world.to(100);
    world.put(sent(100));
    world.to(599);
    assert_eq!(world.arrived, []);
    world.to(601);
    let [(device, at)] = world.arrived[..] else { panic!("{:?}", world.arrived) };
    assert!(device == host(1) && wall(600) <= at && at <= wall(601), "{at:?}");
    assert_eq!(world.handed_over, [(host(1), wall(600))]);
}

#[test]
fn one_that_has_not_left_is_not_handed_over() {
    let mut world = World::good();
    world.put(HandoverSpec { arrival: Arrival::NotDispatched, ..sent(0) });
    world.to(700);
    assert_eq!((world.arrived.len(), world.handed_over.len()), (0, 0));
}

#[test]
fn one_that_leaves_after_the_begin_has_arrived_when_it_is_up_again() {
    let mut world = World::good();
    world.to(700);
    world.put(sent(700));
    world.send(1, None, Status::Ok);
    assert_eq!((world.arrived.len(), world.handed_over.len()), (0, 0), "it is still in its place");
    world.to(750);
    world.send(1, None, Status::Critical);
    world.to(800);
    world.send(1, None, Status::Ok);
    assert_eq!(world.arrived, [(host(1), wall(800))]);
    assert_eq!(world.handed_over, [(host(1), wall(800))]);
}

#[test]
fn one_that_is_heard_from_after_the_end_has_not_arrived() {
    let mut world = World::good();
    world.put(sent(0));
    world.send(1, None, Status::Critical);
    world.to(1_200);
    world.send(1, None, Status::Ok);
    assert_eq!((world.arrived.len(), world.handed_over.len()), (0, 0));
}

#[test]
fn after_a_restart_the_stored_time_says_whether_it_was_away() {
    let mut world = World::good();
    world.to(100);
    world.put(sent(100));
    world.to(200);
    world.send(1, None, Status::Critical);
    world.to(300);
    world.restart();
    world.put(sent(100));
    assert_eq!(world.arrived, []);
    world.to(400);
    world.send(1, None, Status::Ok);
    assert_eq!(world.arrived, [(host(1), wall(400))]);
}

#[test]
fn one_that_was_handed_over_by_hand_still_arrives() {
    let mut world = World::good();
    world.put(sent(10));
    world.send(1, None, Status::Critical);
    world.to(650);
    world.put(HandoverSpec { handed_over_at: Some(wall(650)), ..sent(10) });
    world.to(800);
    assert_eq!(world.arrived, []);
    world.send(1, None, Status::Ok);
    assert_eq!(world.arrived, [(host(1), wall(800))]);
    assert_eq!(world.handed_over, []);
}
