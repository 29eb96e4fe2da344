//! Silence that could not be helped does not count.

use std::sync::mpsc;
use std::time::Duration;

use fleetgate_probes::job::{Deadline, Due, Job};

use super::lab::{Lab, MINUTE, Truth, service};
use crate::monitor::testing;
use crate::time::Now;
use crate::wire::{Check, HostSpec, MonitorInput};

/// A job that is to run by 03:00, of a device that falls silent half an hour before, while the gateway doubts
/// itself. It is `before` the deadline.
fn a_job_is_due(before: Duration) -> Lab {
    let mut lab = Lab::new();
    let by = Deadline { time: jiff::civil::time(3, 0, 0, 0), days: vec![], zone: None };
    let job = Check::Heartbeat(Job { due: Due::By(by), grace: 15 * MINUTE });
    let services = vec![service("backup", job)];
    lab.add(HostSpec { services, ..testing::host(1) }, Truth::off(3.0, 9_000.0, f64::MAX));
    lab.run(150 * MINUTE);
    lab.input(MonitorInput::WasCutOff);
    lab.run(30 * MINUTE - before);
    lab
}

/// What a thread of its own gets done in 20 s.
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(act()));
    ended.recv_timeout(Duration::from_secs(20)).ok()
}

/// A timer is late by a part of a millisecond, and the wall clock shows whole ones.
#[test]
fn a_deadline_that_comes_in_the_millisecond_of_a_turn_while_the_gateway_doubts_itself_ends_the_turn() {
    let looked = in_time(|| {
        let mut lab = a_job_is_due(Duration::from_millis(10));
        let late = Duration::from_micros(10_990);
        lab.now = Now { mono: lab.now.mono + late, wall: lab.now.wall + late };
        lab.monitor.handle(MonitorInput::Timeout, lab.now);
        lab.drain()
    });
    assert!(looked.is_some(), "the turn never ends");
}
