//! Jobs that should have run, and devices that keep to a budget, told in virtual time.

#[path = "monitor/stories.rs"]
#[allow(dead_code, reason = "other simulations use more of it")]
mod stories;
#[path = "monitor/world.rs"]
#[allow(dead_code, reason = "other simulations use more of it")]
mod world;

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::wire::{Check, HostSpec, MonitorInput, Submission, Ticket};
use fleetgate_probes::job::{Due, Job};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use stories::*;
use world::{Truth, World, device, service, with};

fn hourly() -> Check {
    Check::Heartbeat(Job { due: Due::Every(HOUR), grace: 10 * MINUTE })
}

fn with_job() -> (World, HostId) {
    settled(with(device(1), vec![service("tunnel", Check::Tunnel), service("backup", hourly())]))
}

/// The job says how it went.
fn runs(world: &mut World, host: HostId, status: Status) {
    let result = PluginResult::new(status, "copied", Vec::new());
    let (service, at) = (Some("backup".to_owned()), world.now.wall);
    let sent = Submission { host, service, result, at, ticket: Ticket(1) };
    world.input(MonitorInput::Submit(Box::new(sent)));
}

fn text(world: &World, id: HostId) -> &str {
    world.service(id, "backup").map_or("", |s| &s.result.text)
}

#[test]
fn a_job_is_late_then_missed_and_well_again_with_its_next_run() {
    let (mut world, id) = with_job();
    runs(&mut world, id, Status::Ok);
    world.run(HOUR - SECOND);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Ok));
    world.run(2 * SECOND);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
    assert!(
        text(&world, id).starts_with("late: should have run every 1 h, last ran"),
        "{}",
        text(&world, id)
    );
    world.run(10 * MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Critical));
    assert!(text(&world, id).starts_with("should have run every 1 h"), "{}", text(&world, id));
    world.run(5 * HOUR);
    runs(&mut world, id, Status::Ok);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Ok));
    let problems = ["cam-1/backup ok warning", "cam-1/backup warning critical", "cam-1/backup critical ok"];
    assert_eq!(told(&world), problems);
}

#[test]
fn a_failure_of_the_job_itself_is_not_made_better_by_being_late() {
    let (mut world, id) = with_job();
    runs(&mut world, id, Status::Critical);
    runs(&mut world, id, Status::Critical);
    runs(&mut world, id, Status::Critical);
    world.run(HOUR + MINUTE);
    assert_eq!((hard(&world, id, "backup"), text(&world, id)), (Some(Status::Critical), "copied"));
    world.run(10 * MINUTE);
    assert!(text(&world, id).starts_with("should have run"), "{}", text(&world, id));
}

#[test]
fn a_job_that_the_gateway_could_not_hear_has_its_time_once_more() {
    let (mut world, id) = with_job();
    runs(&mut world, id, Status::Ok);
    world.run(50 * MINUTE);
    world.restart(30 * MINUTE);
    world.run(55 * MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Ok));
    world.run(6 * MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
}

#[test]
fn a_host_that_is_down_owes_nothing() {
    let (mut world, id) = with_job();
    runs(&mut world, id, Status::Ok);
    world.set(id, Truth::off());
    world.run(3 * HOUR);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Ok));
}

#[test]
fn a_device_over_its_budget_is_asked_rarely_and_stays_current() {
    let spec = HostSpec { budget: Some(1_000_000), ..with(device(1), tunnel_and_ping()) };
    let (mut world, id) = settled(spec);
    world.run(HOUR);
    let usual = count(&world, "echo");
    world.set(id, Truth { wire_today: 2_000_000, ..Truth::well() });
    world.run(2 * MINUTE);
    world.asked.clear();
    world.run(4 * HOUR);
    assert!((3..=4).contains(&count(&world, "echo")), "{} instead of {}", count(&world, "echo"), 4 * usual);
    assert!(count(&world, "evidence") >= 240, "evidence costs nothing");
    assert!(!is_stale(&world, id, "ping"));
    // Over a restart as well.
    world.restart(30 * SECOND);
    world.run(5 * MINUTE);
    assert!(!is_stale(&world, id, "ping"));
    // Midnight.
    world.set(id, Truth::well());
    world.run(2 * MINUTE);
    world.asked.clear();
    world.run(HOUR);
    assert_eq!(count(&world, "echo"), usual);
}

#[test]
fn a_failure_is_found_out_about_at_full_speed_whatever_the_budget() {
    let spec = HostSpec { budget: Some(1_000_000), ..with(device(1), tunnel_and_ping()) };
    let (mut world, id) = settled(spec);
    world.set(id, Truth { wire_today: 2_000_000, hung: true, ..Truth::well() });
    world.check_now(id, Some("ping"));
    world.run(Duration::from_secs(90));
    assert_eq!(hard(&world, id, "ping"), Some(Status::Critical));
}
