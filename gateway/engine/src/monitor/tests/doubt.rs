//! The gateway's doubt about its own way out: what makes it, what ends it, and what is said meanwhile.

use std::time::Duration;

use fleetgate_probes::sample::Status;

use super::lab::{HOUR, Lab, Truth, box_of_others, service};
use crate::id::HostId;
use crate::monitor::testing;
use crate::wire::{Check, GATEWAY, HostSpec, HostStatus, Message};

/// Devices whose keepalives are spread over 25 s, each with when the first comes after `to`.
fn devices(count: i64, from: f64, to: f64) -> Vec<(HostSpec, Truth, f64)> {
    let device = |n: i64| {
        let phase = 25.0 * n as f64 / count as f64;
        let first = ((to - phase) / 25.0).ceil() * 25.0 + phase;
        let services = vec![service("tunnel", Check::Tunnel)];
        (HostSpec { services, ..testing::host(n) }, Truth::off(phase, from, to), first)
    };
    (1..=count).map(device).collect()
}

/// Twenty devices that nothing is heard of between 10 min and 50 min.
fn cut_off() -> Lab {
    let mut lab = Lab::new();
    for (spec, truth, _) in devices(20, 600.0, 3_000.0) {
        lab.add(spec, truth);
    }
    lab
}

fn count_down(lab: &Lab, ids: std::ops::RangeInclusive<i64>) -> usize {
    ids.filter(|n| lab.host(HostId::from_i64(*n)).hard == HostStatus::Down).count()
}

/// What was sent came over the API: it says nothing of the way out through which devices are asked.
#[test]
fn a_result_that_was_sent_does_not_end_the_gateways_doubt_about_itself() {
    let mut lab = cut_off();
    let sent = lab.add(box_of_others(99), Truth::well());
    while lab.t() < 1_500.0 {
        lab.run(Duration::from_secs(5));
        lab.send(sent, None, Status::Ok);
    }
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn a_result_that_was_sent_for_a_silent_device_does_not_end_the_gateways_doubt_about_itself() {
    let mut lab = cut_off();
    while lab.t() < 1_500.0 {
        lab.run(Duration::from_secs(5));
        lab.send(HostId::from_i64(7), None, Status::Ok);
    }
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn hosts_that_only_receive_results_do_not_make_a_crowd_small() {
    let mut lab = cut_off();
    for n in 100..200 {
        let sent = lab.add(box_of_others(n), Truth::well());
        lab.send(sent, None, Status::Ok);
    }
    lab.run_to(1_500.0);
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn results_that_nobody_sends_any_more_are_no_loss_of_the_uplink() {
    let mut lab = Lab::new();
    for n in 100..106 {
        let sent = lab.add(HostSpec { freshness: Some(HOUR), ..box_of_others(n) }, Truth::well());
        lab.send(sent, None, Status::Ok);
    }
    lab.run(2 * HOUR);
    assert_eq!((count_down(&lab, 100..=105), lab.told_of("gateway")), (6, vec![]));
}

/// Devices through an outage, of whose packets after it the tunnel tells, and some minutes more.
fn outage(devices: Vec<(HostSpec, Truth, f64)>, quiet: Vec<HostSpec>, (from, to): (f64, f64)) -> Lab {
    let mut lab = Lab::new();
    let mut news = Vec::new();
    for (spec, truth, first) in devices {
        news.push((first, lab.add(spec, truth)));
    }
    for spec in quiet {
        lab.add(spec, Truth::quiet(from, to));
    }
    news.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (first, id) in news {
        lab.run_to(first);
        lab.hear(id);
    }
    lab.run_to(to + 200.0);
    lab
}

fn of_gateway(lab: &Lab) -> Vec<(f64, &Message)> {
    lab.messages().filter(|(_, message)| message.host == GATEWAY).collect()
}

#[test]
fn the_loss_of_the_uplink_ends_when_a_device_is_heard_however_rarely_it_is_asked() {
    let (from, to) = (600.0, 9_600.0);
    let mut all = devices(6, from, to);
    for (spec, ..) in &mut all {
        spec.timing.interval = HOUR;
        spec.labels = [("site".to_owned(), "hill".to_owned())].into();
    }
    let mut lab = outage(all, Vec::new(), (from, to));
    lab.run(2 * HOUR);
    let said = of_gateway(&lab);
    assert_eq!(said.len(), 2, "{:#?}", lab.told());
    assert!(said[1].0 - to < 30.0, "all six are heard by +25 s: {:#?}", lab.told());
}
