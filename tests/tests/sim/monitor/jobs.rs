//! Stories about missed jobs, and about devices with a traffic budget, in virtual time.

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, EventKind, HostSpec, HostStatus, MonitorInput, PassiveResult, ServiceSpec, Ticket,
};
use fleetgate_probes::job::{Deadline, Due, Job};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_tests::world::{Truth, World, device, service, with};

fn hourly() -> Check {
    Check::Heartbeat(Job { due: Due::Every(HOUR), grace: 10 * MINUTE })
}

fn with_job() -> (World, HostId) {
    settled(with(device(1), vec![service("tunnel", Check::Tunnel), service("backup", hourly())]))
}

/// Submits the result of a run.
fn runs(world: &mut World, host: HostId, status: Status) {
    let result = PluginResult::new(status, "copied", Vec::new());
    let (service, at) = (Some("backup".to_owned()), world.now.wall);
    let by = "token:t_1".to_owned();
    let sent =
        PassiveResult { host, service, result, at, by, identity: Default::default(), ticket: Ticket(1) };
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
fn a_job_that_never_ran_is_missed_in_the_night_that_it_was_late() {
    let by = Deadline { time: jiff::civil::time(3, 0, 0, 0), days: vec![], zone: None };
    let nightly = Check::Heartbeat(Job { due: Due::By(by), grace: 30 * MINUTE });
    // The world begins at 08:00 UTC.
    let (mut world, id) =
        settled(with(device(1), vec![service("tunnel", Check::Tunnel), service("backup", nightly)]));
    world.run(19 * HOUR);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
    world.restart(SECOND);
    world.run(25 * MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
    world.run(10 * MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Critical), "{}", text(&world, id));
}

#[test]
fn a_host_that_is_gone_for_a_while_excuses_no_job_that_is_due_later() {
    let daily = Check::Heartbeat(Job { due: Due::Every(24 * HOUR), grace: HOUR });
    let (mut world, id) =
        settled(with(device(1), vec![service("tunnel", Check::Tunnel), service("backup", daily)]));
    runs(&mut world, id, Status::Ok);
    world.run(12 * HOUR);
    world.set(id, Truth::off());
    world.run(HOUR);
    world.set(id, Truth::well());
    world.run(11 * HOUR + MINUTE);
    assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
}

#[test]
fn what_keeps_the_gateway_from_hearing_each_night_excuses_no_job_that_is_due_later() {
    let nights: [fn(&mut World); 3] =
        [|world| world.restart(MINUTE), |world| world.suspend(MINUTE), |world| world.step_wall(90)];
    for night in nights {
        let daily = Check::Heartbeat(Job { due: Due::Every(24 * HOUR), grace: HOUR });
        let (mut world, id) =
            settled(with(device(1), vec![service("tunnel", Check::Tunnel), service("backup", daily)]));
        runs(&mut world, id, Status::Ok);
        world.run(12 * HOUR);
        night(&mut world);
        world.run(12 * HOUR);
        assert_eq!(hard(&world, id, "backup"), Some(Status::Warning));
    }
}

#[test]
fn a_change_of_state_names_who_sent_the_result() {
    let (mut world, id) = with_job();
    runs(&mut world, id, Status::Ok);
    world.run(2 * HOUR);
    let changes = world.kept.events.iter().filter(|e| e.service.as_deref() == Some("backup"));
    let changes = changes.filter(|e| matches!(e.kind, EventKind::StateChanged { .. }));
    let shown: Vec<_> = changes.map(|e| (e.by.as_deref(), e.cause.as_str())).collect();
    let nothing = (None, "nothing came in time");
    assert_eq!(shown, [(Some("token:t_1"), "first result"), nothing, nothing]);
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
    // The same after a restart.
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
fn what_stands_behind_a_device_keeps_to_its_budget_too() {
    let budget = Some(1_000_000);
    let (mut world, router) = settled(HostSpec { budget, ..with(device(1), tunnel_and_ping()) });
    let ping = vec![service("ping", Check::Ping { count: 3 })];
    let spec = HostSpec { id: HostId::from_i64(2), name: "nas".into(), budget, ..with(device(1), ping) };
    let nas = world.add(HostSpec { own_tunnel: false, parents: vec![router], ..spec }, Truth::well());
    world.run(HOUR);
    world.asked.clear();
    world.run(HOUR);
    let echoes =
        |world: &World| world.asked.iter().filter(|(_, ask)| ask.host == nas && kind(ask) == "echo").count();
    assert_eq!(echoes(&world), 120, "its own check and its service, each minute");
    world.set(router, Truth { wire_today: 2_000_000, ..Truth::well() });
    world.run(2 * MINUTE);
    world.asked.clear();
    world.run(8 * HOUR);
    assert!((14..=16).contains(&echoes(&world)), "{}", echoes(&world));
    world.restart(30 * SECOND);
    assert!(world.host(nas).is_some_and(|s| !s.stale));
    // A check requested by a user is still run.
    world.run(2 * MINUTE);
    world.set(nas, Truth { wire_today: 2_000_000, ..Truth::off() });
    world.check_now(nas, None);
    world.run(2 * MINUTE);
    assert_eq!(status(&world, nas), HostStatus::Down);
    world.asked.clear();
    world.run(4 * HOUR);
    assert!(echoes(&world) <= 4, "what stays down is not asked for each minute: {}", echoes(&world));
}

#[test]
fn a_host_that_has_another_address_is_asked_there_whatever_the_budget() {
    let budget = Some(1_000_000);
    let (mut world, router) = settled(HostSpec { budget, ..with(device(1), tunnel_and_ping()) });
    let spec = HostSpec { id: HostId::from_i64(2), name: "nas".into(), budget, ..device(1) };
    let nas = world.add(HostSpec { own_tunnel: false, parents: vec![router], ..spec }, Truth::well());
    world.run(HOUR);
    world.set(router, Truth { wire_today: 2_000_000, ..Truth::well() });
    world.run(2 * HOUR);
    world.set(nas, Truth { wire_today: 2_000_000, ..Truth::off() });
    world.change(nas, |spec| spec.address = Some([192, 168, 1, 9].into()));
    world.run(3 * MINUTE);
    assert_eq!(status(&world, nas), HostStatus::Down);
}

#[test]
fn silence_counts_from_when_somebody_began_to_mind_it() {
    let (mut world, id) = settled(with(device(1), vec![service("tunnel", Check::Tunnel)]));
    let silent = |freshness| ServiceSpec { freshness, ..service("clip", Check::Passive) };
    world.change(id, |spec| spec.services.push(silent(None)));
    world.run(5 * HOUR);
    world.change(id, |spec| spec.services[1] = silent(Some(HOUR)));
    world.run(HOUR - MINUTE);
    assert_eq!(hard(&world, id, "clip"), None);
    world.run(2 * MINUTE);
    assert_eq!(hard(&world, id, "clip"), Some(Status::Unknown));
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
