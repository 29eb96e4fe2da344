//! Silence that the submitter could not avoid does not count.

use std::sync::mpsc;
use std::time::Duration;

use fleetgate_probes::job::{Deadline, Due, Job};
use fleetgate_probes::sample::Status;

use super::lab::{HOUR, Lab, MINUTE, Truth, box_of_others, service};
use crate::id::HostId;
use crate::messages::{Check, HostSpec, HostStatus, MonitorInput, ServiceSpec};
use crate::monitor::testing;
use crate::time::Now;

/// A router that is down from 50 min on for two and a half hours. The host behind it only has
/// passive results, and its service has its own. The last results came at 40 min.
fn behind_a_router(freshness: Option<Duration>) -> (Lab, HostId) {
    let mut lab = Lab::new();
    let router = lab.add(testing::host(1), Truth::off(3.0, 3_000.0, 12_000.0));
    lab.add(testing::host(9), Truth::well());
    let backup = ServiceSpec { freshness: Some(HOUR), ..service("backup", Check::Passive) };
    let spec = HostSpec { parents: vec![router], freshness, services: vec![backup], ..box_of_others(2) };
    let silent = lab.add(spec, Truth::well());
    lab.run(40 * MINUTE);
    lab.send(silent, None, Status::Ok);
    lab.send(silent, Some("backup"), Status::Ok);
    (lab, silent)
}

#[test]
fn the_freshness_of_a_passive_host_restarts_when_it_is_reachable_again() {
    let (mut lab, silent) = behind_a_router(Some(HOUR));
    lab.run_to(11_990.0);
    assert!(!lab.host(silent).reachable, "its router is down");
    lab.run_to(12_120.0);
    assert!(lab.host(silent).reachable, "the router is back");
    assert_eq!((lab.host(silent).hard, lab.told_of("box-2")), (HostStatus::Up, vec![]));
    lab.run(HOUR);
    assert_eq!(lab.host(silent).hard, HostStatus::Down, "an hour later nothing has come");
}

#[test]
fn the_freshness_of_a_service_restarts_when_its_host_is_reachable_again() {
    let (mut lab, silent) = behind_a_router(None);
    lab.run_to(12_120.0);
    assert!(lab.host(silent).reachable, "the router is back");
    assert_eq!((lab.service(silent, "backup").hard, lab.told_of("box-2")), (Some(Status::Ok), vec![]));
    lab.run(HOUR);
    assert_eq!(lab.service(silent, "backup").hard, Some(Status::Unknown), "an hour later nothing has come");
}

/// It sleeps from 10 min on, and stays silent after the two hours that it may sleep.
#[test]
fn the_freshness_of_a_service_restarts_when_its_host_slept_for_too_long() {
    let mut lab = Lab::new();
    let backup = ServiceSpec { freshness: Some(HOUR), ..service("backup", Check::Passive) };
    let spec = HostSpec { max_silence: Some(2 * HOUR), services: vec![backup], ..testing::host(1) };
    let sleeper = lab.add(spec, Truth::off(3.0, 600.0, f64::MAX));
    lab.add(testing::host(9), Truth::well());
    lab.run(9 * MINUTE);
    lab.send(sleeper, Some("backup"), Status::Ok);
    lab.run(3 * HOUR);
    assert_eq!(lab.host(sleeper).hard, HostStatus::Down);
    assert_eq!(lab.told_of("backup"), Vec::<String>::new());
}

/// A job that must run by 03:00, on a device that falls silent half an hour before, while the
/// gateway suspects its own uplink. It is `before` the deadline.
fn a_job_is_due(before: Duration) -> Lab {
    let mut lab = Lab::new();
    let by = Deadline { time: jiff::civil::time(3, 0, 0, 0), days: vec![], zone: None };
    let job = Check::Heartbeat(Job { due: Due::By(by), grace: 15 * MINUTE });
    let services = vec![service("backup", job)];
    lab.add(HostSpec { services, ..testing::host(1) }, Truth::off(3.0, 9_000.0, f64::MAX));
    lab.run(150 * MINUTE);
    lab.input(MonitorInput::RestoreUplinkLost);
    lab.run(30 * MINUTE - before);
    lab
}

/// Runs `act` in its own thread and returns its result, if it ends within 20 s.
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(act()));
    ended.recv_timeout(Duration::from_secs(20)).ok()
}

/// A timer is late by a fraction of a millisecond, and the wall clock has whole milliseconds.
#[test]
fn a_deadline_in_the_millisecond_of_a_turn_during_the_doubt_about_the_uplink_does_not_loop() {
    let looked = in_time(|| {
        let mut lab = a_job_is_due(Duration::from_millis(10));
        let late = Duration::from_micros(10_990);
        lab.now = Now { mono: lab.now.mono + late, wall: lab.now.wall + late };
        lab.monitor.handle(MonitorInput::Timeout, lab.now);
        lab.drain()
    });
    assert!(looked.is_some(), "the turn never ends");
}
