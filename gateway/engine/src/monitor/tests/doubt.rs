//! The gateway's doubt about its own uplink: its causes, its end, and the notifications meanwhile.

use std::time::Duration;

use fleetgate_probes::sample::Status;

use super::lab::{HOUR, Lab, Truth, box_of_others, service};
use crate::id::HostId;
use crate::messages::{Check, GATEWAY, HostSpec, HostStatus, Message, Record, Timing};
use crate::monitor::testing;

/// Devices whose keepalives are spread over 25 s, each with the time of its first one after `to`.
fn devices(count: i64, from: f64, to: f64) -> Vec<(HostSpec, Truth, f64)> {
    let device = |n: i64| {
        let phase = 25.0 * n as f64 / count as f64;
        let first = ((to - phase) / 25.0).ceil() * 25.0 + phase;
        let services = vec![service("tunnel", Check::Tunnel)];
        (HostSpec { services, ..testing::host(n) }, Truth::off(phase, from, to), first)
    };
    (1..=count).map(device).collect()
}

/// Twenty devices that are silent between 10 min and 50 min.
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

/// A passive result comes over the API, so it proves nothing about the uplink through which devices
/// are probed.
#[test]
fn a_passive_result_does_not_end_the_doubt_about_the_uplink() {
    let mut lab = cut_off();
    let sent = lab.add(box_of_others(99), Truth::well());
    while lab.t() < 1_500.0 {
        lab.run(Duration::from_secs(5));
        lab.send(sent, None, Status::Ok);
    }
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn a_passive_result_for_a_silent_device_does_not_end_the_doubt_about_the_uplink() {
    let mut lab = cut_off();
    while lab.t() < 1_500.0 {
        lab.run(Duration::from_secs(5));
        lab.send(HostId::from_i64(7), None, Status::Ok);
    }
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn passive_hosts_do_not_count_in_the_fleet_silence_rule() {
    let mut lab = cut_off();
    for n in 100..200 {
        let sent = lab.add(box_of_others(n), Truth::well());
        lab.send(sent, None, Status::Ok);
    }
    lab.run_to(1_500.0);
    assert_eq!((count_down(&lab, 1..=20), lab.told().len()), (0, 1), "{:#?}", lab.told());
}

#[test]
fn missing_passive_results_are_no_loss_of_the_uplink() {
    let mut lab = Lab::new();
    for n in 100..106 {
        let sent = lab.add(HostSpec { freshness: Some(HOUR), ..box_of_others(n) }, Truth::well());
        lab.send(sent, None, Status::Ok);
    }
    lab.run(2 * HOUR);
    assert_eq!((count_down(&lab, 100..=105), lab.told_of("gateway")), (6, vec![]));
}

/// Runs devices through an outage and some minutes more; the tunnel reports their packets after the
/// outage.
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
        lab.on_result(id);
    }
    lab.run_to(to + 200.0);
    lab
}

fn of_gateway(lab: &Lab) -> Vec<(f64, &Message)> {
    lab.messages().filter(|(_, message)| message.host == GATEWAY).collect()
}

#[test]
fn packets_during_the_doubt_about_the_uplink_end_it() {
    let mut wrong = Vec::new();
    for length in (50..=110).step_by(2) {
        let (from, to) = (600.0, 600.0 + f64::from(length));
        let lab = outage(devices(10, from, to), Vec::new(), (from, to));
        for (t, message) in of_gateway(&lab) {
            // A packet of this same moment may be read after it.
            let heard = lab.hosts.keys().filter(|id| lab.last_packet(**id, t - 0.001) >= to).count();
            if message.problem && heard > 0 {
                wrong.push(format!(
                    "{length} s: at +{:.3} s {heard} are heard: {}",
                    t - from,
                    &*message.output
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the rows and messages that show a device hard down after one of its packets has come.
fn falsely_down(lab: &Lab, to: f64) -> Vec<String> {
    let heard = |id: HostId, t: f64| lab.last_packet(id, t) >= to;
    let mut wrong = Vec::new();
    for (t, record) in &lab.records {
        match record {
            Record::Host(state) if state.status == HostStatus::Down && state.hard == HostStatus::Down => {
                wrong.extend(
                    heard(state.host, *t).then(|| format!("{t:.1} {}: {}", state.host, state.output)),
                );
            }
            Record::Message(m) if m.problem && m.host != GATEWAY && heard(m.host, *t) => {
                wrong.push(format!("{t:.1} message of {}", m.host_name));
            }
            _ => {}
        }
    }
    wrong
}

/// Some devices keep their tunnels alive, and others send no packets on their own, so that each is
/// checked in a slot of its own.
#[test]
fn a_device_whose_packet_came_while_its_check_was_undecided_is_not_hard_down() {
    let mut wrong = Vec::new();
    for attempts in [1, 2] {
        let timing = Timing { attempts, ..Timing::DEFAULT };
        for (keepers, others) in [(12, 4), (12, 8), (30, 10)] {
            for tenth in (200..=900).step_by(35) {
                let from = 600.0 + f64::from(tenth % 60);
                let to = from + f64::from(tenth) / 10.0;
                let mut all = devices(keepers, from, to);
                all.iter_mut().for_each(|(spec, ..)| spec.timing = timing);
                let quiet = (100..100 + others).map(|n| HostSpec { timing, ..testing::host(n) }).collect();
                wrong.extend(falsely_down(&outage(all, quiet, (from, to)), to));
            }
        }
    }
    assert!(wrong.is_empty(), "{} {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

#[test]
fn the_loss_of_the_uplink_ends_with_a_packet_of_a_device_with_a_long_interval() {
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
