//! Windows, steps of the clock, and a clock that is behind.

use super::packets::*;
use super::world::*;
use crate::forward::headers::{ACK, SYN};
use crate::messages::{
    DropReason, ExplainRequest, ExplainSource, ExplainTarget, Explanation, FlowEnd, GrantProtocol, GrantSpec,
    GrantTarget, PolicyChange,
};
use crate::time::{ClockStep, Now};

fn ping() -> Vec<u8> {
    echo(OPERATOR[0], DEVICE[0], true, 7)
}

fn pong() -> Vec<u8> {
    echo(DEVICE[0], OPERATOR[0], false, 7)
}

#[test]
fn a_window_opens_and_closes_on_time_in_both_directions() {
    let mut world = world();
    world.grant_window(1, Some(wall(100)), Some(wall(200)));
    assert_eq!(world.send(1, &ping()), Err(DropReason::NotGranted));
    world.advance(seconds(100));
    assert!(world.passes(1, &ping()) && world.passes(11, &pong()));
    world.advance(seconds(99));
    assert!(world.passes(1, &ping()) && world.passes(11, &pong()));
    world.advance(seconds(1));
    assert_eq!(world.send(11, &pong()), Err(DropReason::NotGranted));
    assert_eq!(world.send(1, &ping()), Err(DropReason::NotGranted));
}

#[test]
fn the_end_of_a_window_wakes_the_gateway_and_resets_both_ends() {
    let mut world = world();
    world.grant_window(1, None, Some(wall(20)));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    let due = world.forwarder.next_due().expect("the end");
    assert_eq!(due.since(world.now.mono), seconds(20));
    world.advance(seconds(20));
    let sent = world.work();
    let receivers: Vec<_> = sent.iter().map(|(to, _)| *to).collect();
    assert_eq!(receivers, [id(1), id(11)]);
    assert_eq!(world.records()[0].ended, Some(FlowEnd::NotGranted));
    assert_eq!(world.forwarder.totals().flows, 0);
}

#[test]
fn a_flow_outlives_its_grant_if_another_one_covers_it() {
    let mut world = world();
    world.grant_window(1, None, Some(wall(20)));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    world.grant_window(2, Some(wall(10)), Some(wall(40)));
    world.advance(seconds(20));
    assert_eq!(world.work(), []);
    assert_eq!(world.forwarder.totals().flows, 1);
    world.advance(seconds(20));
    assert_eq!(world.work().len(), 2);
}

#[test]
fn a_clock_that_is_set_back_prolongs_nothing() {
    let mut world = world();
    world.prove();
    let until = Some(world.now.wall + seconds(1_000));
    world.grant_window(1, None, until);
    assert!(world.passes(1, &ping()));
    world.set_clock(wall(-5_000));
    assert!(world.passes(1, &ping()) && world.passes(11, &pong()), "it was open");
    world.advance(seconds(999));
    assert!(world.passes(1, &ping()));
    world.advance(seconds(1));
    assert!(!world.passes(1, &ping()));
    // The shell sends the grant again with another label or author: the end stays.
    world.grant_window(1, Some(wall(-9_000)), until);
    assert!(!world.passes(1, &ping()));
}

#[test]
fn a_clock_that_was_ahead_at_the_start_loses_no_grant() {
    let mut world = world();
    // By the clock of the start, the first one has ended: the shell does not load it.
    let [first, second] = [Some(wall(-1_000)), Some(wall(50))];
    world.change(PolicyChange::Grant(GrantSpec { until: second, ..grant(2, GrantTarget::Host(id(11))) }));
    world.advance(seconds(60));
    world.work();
    assert_eq!(world.send(1, &ping()), Err(DropReason::NotGranted));
    world.set_clock(wall(-2_000));
    world.change(PolicyChange::Grant(GrantSpec { until: first, ..grant(1, GrantTarget::Host(id(12))) }));
    let other = echo(OPERATOR[0], "10.1.0.12", true, 7);
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep), "it was over a moment ago");
    assert_eq!(world.send(1, &other), Err(DropReason::ClockStep));
    world.advance(seconds(299));
    assert_eq!(world.work(), []);
    assert_eq!(world.send(1, &other), Err(DropReason::ClockStep));
    world.advance(seconds(1));
    world.work();
    assert!(world.passes(1, &ping()) && world.passes(1, &other), "the clock is believed");
    world.advance(seconds(700));
    assert!(world.passes(1, &ping()) && !world.passes(1, &other), "wall(-1_000)");
}

#[test]
fn a_proved_clock_that_is_set_back_brings_no_ended_grant_back() {
    let mut world = world();
    world.prove();
    world.set_clock(wall(-2_000));
    // The shell loads what is open by the new clock. It ended long before the gateway started.
    let until = Some(wall(-500));
    world.change(PolicyChange::Grant(GrantSpec { until, ..grant(1, GrantTarget::Host(id(11))) }));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep));
    world.advance(seconds(300));
    world.work();
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockBehind));
    let question = ExplainRequest {
        from: ExplainSource::Peer(id(1)),
        to: ExplainTarget::Host(id(11)),
        protocol: GrantProtocol::Icmp,
        port: 0,
        at: world.now.wall,
    };
    let answer = world.forwarder.explain(&question, world.now);
    assert!(matches!(answer, Explanation::ClockBehind(_)), "{answer:?}");
    // The one that waits delays no end of another.
    let until = Some(world.now.wall + seconds(10));
    world.change(PolicyChange::Grant(GrantSpec { until, ..grant(2, GrantTarget::Host(id(12))) }));
    world.connect(40_000, 0, &["10.1.0.12", ""], &["10.1.0.12", ""], 12);
    world.advance(seconds(10));
    assert_eq!(world.work().len(), 2, "both ends are reset");
    world.change(PolicyChange::AcceptClock);
    assert!(world.passes(1, &ping()), "an admin says that the clock is right");
    let left = wall(-500).since(world.now.wall);
    world.advance(left);
    assert!(!world.passes(1, &ping()));
}

#[test]
fn a_grant_that_is_added_while_the_clock_is_doubted_ends_by_the_clock_that_is_believed() {
    let mut world = world();
    // The clock of the start was an hour ahead.
    world.set_clock(wall(-3_600));
    world.grant_window(1, None, Some(wall(-3_600 + 1_000)));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep), "the earlier of both ends");
    world.advance(seconds(300));
    world.work();
    assert!(world.passes(1, &ping()));
    world.advance(seconds(699));
    assert!(world.passes(1, &ping()));
    world.advance(seconds(1));
    assert!(!world.passes(1, &ping()));
}

#[test]
fn a_clock_that_is_set_ahead_closes_at_once_and_cuts_after_five_minutes() {
    let mut world = world();
    world.grant_window(1, None, Some(wall(1_000)));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    world.set_clock(wall(2_000));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep));
    assert_eq!(world.work(), []);
    world.advance(seconds(100));
    assert_eq!((world.work(), world.forwarder.totals().flows), (vec![], 1));
    let corrected = wall(101);
    world.set_clock(corrected);
    assert!(world.passes(1, &ping()), "the end was not final");
    world.set_clock(wall(3_000));
    world.advance(seconds(299));
    assert_eq!(world.work(), []);
    world.advance(seconds(1));
    assert_eq!(world.work().len(), 2, "now it is");
    world.set_clock(corrected);
    assert!(!world.passes(1, &ping()), "and stays so");
}

#[test]
fn a_connection_that_only_the_clock_keeps_from_passing_is_not_reset() {
    let mut world = world();
    world.grant_window(1, None, Some(wall(1_000)));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    let data = tcp(OPERATOR[0], DEVICE[0], 40_000, 22, ACK, 1_000, 5_000, b"data");
    world.set_clock(wall(2_000));
    assert_eq!(world.answer(1, &data), None, "it waits");
    assert_eq!(world.send(1, &data), Err(DropReason::ClockStep));
    let syn = tcp(OPERATOR[0], DEVICE[0], 40_001, 22, SYN, 1, 0, &[]);
    assert!(world.answer(1, &syn).is_some(), "a new one fails at once");
    world.set_clock(wall(1));
    assert!(world.passes(1, &data), "the clock was corrected");
    world.set_clock(wall(2_000));
    world.advance(seconds(300));
    assert!(world.answer(1, &data).is_some(), "the end is final");
}

#[test]
fn nothing_opens_newly_for_five_minutes_after_a_step() {
    let mut world = world();
    world.grant_window(1, Some(wall(1_000)), Some(wall(9_000)));
    world.set_clock(wall(1_500));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep));
    world.advance(seconds(299));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep));
    world.advance(seconds(1));
    assert!(world.passes(1, &ping()));
    world.set_clock(wall(1_900));
    assert!(world.passes(1, &ping()), "it is open already");
}

#[test]
fn the_first_reading_of_the_clock_is_no_step() {
    let mut world = world();
    let config = crate::forward::Config {
        gateway_v4: "10.0.0.254".parse().expect("an address"),
        gateway_v6: "fd00::fe".parse().expect("an address"),
        limits: Default::default(),
    };
    world.forwarder = crate::forward::Forwarder::new(config);
    let step = ClockStep::between(Now::default(), world.now);
    assert!(step.is_some());
    world.forwarder.clock(step, world.now);
    world.change(PolicyChange::Source(source(1, OPERATOR, None)));
    world.change(PolicyChange::Target(device(11)));
    world.grant_window(1, Some(wall(0)), Some(wall(100)));
    assert!(world.passes(1, &ping()));
}

#[test]
fn a_clock_that_was_behind_at_the_start_leaves_no_late_end() {
    let mut world = world();
    let hour = 3_600;
    // No clock ran while the gateway was off: it shows a time 72 hours ago.
    world.grant_window(1, None, Some(wall(72 * hour + 1_000)));
    world.set_clock(wall(72 * hour));
    world.advance(seconds(300));
    world.work();
    assert!(world.passes(1, &ping()));
    let due = world.forwarder.next_due().expect("the end");
    assert!(due.since(world.now.mono) <= seconds(700));
    world.set_clock(wall(70 * hour));
    world.advance(seconds(699));
    assert!(world.passes(1, &ping()) && world.passes(11, &pong()));
    world.advance(seconds(1));
    assert!(!world.passes(1, &ping()) && !world.passes(11, &pong()), "its real end has come");
}

#[test]
fn a_second_of_slewing_is_no_step() {
    let mut world = world();
    world.grant_window(1, Some(wall(2)), None);
    world.advance(seconds(1));
    world.set_clock(wall(2));
    assert!(world.passes(1, &ping()));
}

#[test]
fn a_clock_that_runs_ahead_ends_a_window_by_the_wall() {
    let mut world = world();
    world.grant_window(1, None, Some(wall(10)));
    world.connect(40_000, 0, &DEVICE, &DEVICE, 11);
    assert!(world.passes(1, &ping()));
    world.advance(seconds(9));
    assert!(world.passes(11, &pong()));
    world.set_clock(wall(10));
    assert!(!world.passes(11, &pong()), "the boot clock has a second left");
    assert_eq!(world.work().len(), 2);
}

#[test]
fn a_clock_behind_the_floor_passes_only_grants_without_a_window() {
    let mut world = world();
    world.change(PolicyChange::Floor(wall(500)));
    world.grant_window(1, None, Some(wall(900)));
    assert!(world.forwarder.is_clock_behind(world.now.wall));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockBehind));
    world.change(PolicyChange::Grant(grant(2, GrantTarget::Host(id(12)))));
    assert!(world.passes(1, &echo(OPERATOR[0], "10.1.0.12", true, 1)));
    world.advance(seconds(500));
    assert!(!world.forwarder.is_clock_behind(world.now.wall));
    assert!(world.passes(1, &ping()), "the clock passed the floor");
}

#[test]
fn what_passes_by_a_clock_that_starts_at_the_floor_ends_when_the_clock_is_set() {
    // No clock ran while the machine was off, and the system has set it to the time of the shutdown.
    let mut world = world();
    world.change(PolicyChange::Floor(world.now.wall));
    world.grant_window(1, None, Some(wall(1_000)));
    world.advance(seconds(20));
    assert!(world.passes(1, &ping()), "the clock shows nothing that is wrong");
    world.set_clock(wall(3_600));
    assert_eq!(world.send(1, &ping()), Err(DropReason::ClockStep));
    assert!(!world.passes(11, &pong()));
    world.advance(seconds(300));
    world.work();
    assert_eq!(world.send(1, &ping()), Err(DropReason::NotGranted));
}

#[test]
fn an_accepted_clock_counts_from_then_on() {
    let mut world = world();
    world.change(PolicyChange::Floor(wall(5_000)));
    world.grant_window(1, None, Some(wall(100)));
    world.advance(seconds(50));
    world.change(PolicyChange::AcceptClock);
    assert!(world.passes(1, &ping()));
    world.advance(seconds(50));
    assert!(!world.passes(1, &ping()));
    // The clock was set back for good: the ends are computed again.
    world.work();
    world.set_clock(wall(0));
    assert!(!world.passes(1, &ping()));
    world.change(PolicyChange::AcceptClock);
    assert!(world.passes(1, &ping()));
}

#[test]
fn explain_says_what_the_filter_does() {
    let mut world = world();
    let asked = |from, to, port, at| ExplainRequest { from, to, protocol: GrantProtocol::Tcp, port, at };
    let user = ExplainSource::User(id(101));
    let host = ExplainTarget::Host(id(11));
    let explain = |world: &World, question| world.forwarder.explain(&question, world.now);
    assert_eq!(explain(&world, asked(user, host, 22, wall(0))), Explanation::NoGrant);
    assert_eq!(
        explain(&world, asked(ExplainSource::User(id(9)), host, 22, wall(0))),
        Explanation::UnknownSource
    );
    assert_eq!(
        explain(&world, asked(user, ExplainTarget::Host(id(99)), 22, wall(0))),
        Explanation::UnknownTarget
    );
    let access = vec![access(GrantProtocol::Tcp, 22..=22)];
    let spec = GrantSpec {
        access,
        from: Some(wall(10)),
        until: Some(wall(20)),
        ..grant(1, GrantTarget::AllDevices)
    };
    world.change(PolicyChange::Grant(spec));
    for (at, expected) in [(0, "NotYet"), (10, "Permitted"), (19, "Permitted"), (20, "Over")] {
        let answer = format!("{:?}", explain(&world, asked(user, host, 22, wall(at))));
        assert!(answer.starts_with(expected), "{at}: {answer}");
    }
    assert_eq!(explain(&world, asked(user, host, 23, wall(15))), Explanation::NoGrant);
    let address = ExplainTarget::Address(ip_of(DEVICE[1]));
    let answer = explain(&world, asked(ExplainSource::Peer(id(1)), address, 22, wall(15)));
    let Explanation::Permitted(window) = answer else { panic!("{answer:?}") };
    assert_eq!((window.grant, window.from, window.until), (id(1), Some(wall(10)), Some(wall(20))));
    world.change(PolicyChange::Floor(wall(18)));
    let answer = explain(&world, asked(user, host, 22, wall(15)));
    assert!(matches!(answer, Explanation::ClockBehind(_)), "{answer:?}");
}

#[test]
fn of_two_rentals_in_a_row_a_stepped_clock_never_opens_both() {
    let mut world = world();
    world.change(PolicyChange::Source(renter(3, 51)));
    for (n, from, until) in [(41, 0, 1_000), (42, 1_000, 2_000)] {
        world.change(PolicyChange::Target(rental(n, 11)));
        world.change(PolicyChange::Grant(rental_grant(n, 51, Some(wall(from)), Some(wall(until)))));
    }
    let ask =
        |world: &mut World, n| world.send(3, &echo(&renter_at(3)[0], &alias_of(n)[0], true, 7)).map(drop);
    world.prove();
    assert_eq!(ask(&mut world, 41), Ok(()));
    world.set_clock(wall(1_500));
    let closed = Err(DropReason::ClockStep);
    assert_eq!([ask(&mut world, 41), ask(&mut world, 42)], [closed, closed]);
    world.set_clock(wall(500));
    assert_eq!(ask(&mut world, 41), Ok(()), "it was corrected");
    world.advance(seconds(300));
    world.work();
    world.advance(seconds(200));
    assert_eq!(ask(&mut world, 42), Ok(()), "to the second, although no work was done");
    assert_eq!(ask(&mut world, 41), Err(DropReason::NotGranted));
    world.work();
    // The clock of the first rental again.
    world.set_clock(wall(700));
    assert_eq!(ask(&mut world, 42), closed);
    assert_eq!(ask(&mut world, 41), Err(DropReason::NotGranted), "its end is final");
}
