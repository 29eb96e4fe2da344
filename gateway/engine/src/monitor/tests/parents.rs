//! Notifications of a host while its parents, or the tunnel that leads to it, are down.

use std::time::Duration;

use super::lab::{Lab, Truth, behind, service};
use crate::messages::{Check, HostSpec, MonitorInput, Record, TunnelEvent};
use crate::monitor::testing;
use fleetgate_probes::sample::Status;

/// Returns when `tunnel` was first hard CRITICAL.
fn tunnel_is_dead_from(lab: &Lab) -> Option<f64> {
    lab.records.iter().find_map(|(t, record)| match record {
        Record::Service(_, s) if s.name == "tunnel" && s.hard == Some(Status::Critical) => Some(*t),
        _ => None,
    })
}

#[test]
fn hosts_behind_a_one_way_tunnel_wait_for_the_result_of_its_tunnel_check() {
    for phase in 0..12 {
        let from = 600.0 + 5.0 * f64::from(phase);
        let mut lab = Lab::new();
        let tunnel = service("tunnel", Check::Tunnel);
        lab.add(HostSpec { services: vec![tunnel], ..testing::host(1) }, Truth::deaf(from));
        lab.add(testing::host(9), Truth::well());
        lab.add(behind(2, 1), Truth::deaf(from));
        lab.add(behind(3, 1), Truth::deaf(from));
        lab.run_to(1_200.0);
        assert!(tunnel_is_dead_from(&lab).is_some(), "{from}");
        let told = lab.told();
        assert!(lab.told_of("nas").is_empty() && told.len() == 1, "{from}: {told:#?}");
    }
}

#[test]
fn a_failure_behind_a_device_that_replies_is_notified() {
    for phase in 0..12 {
        let from = 600.0 + 5.0 * f64::from(phase);
        let mut lab = Lab::new();
        let tunnel = service("tunnel", Check::Tunnel);
        lab.add(HostSpec { services: vec![tunnel], ..testing::host(1) }, Truth::well());
        lab.add(behind(2, 1), Truth::quiet(from, f64::MAX));
        lab.run_to(from + 110.0);
        assert_eq!(lab.told_of("nas").len(), 1, "{from}: {:#?}", lab.told());
    }
}

/// Both are back at the same time, and the tunnel reports the router first.
#[test]
fn a_probe_sent_while_the_parent_was_down_causes_no_notification() {
    for to in (1_500..1_860).step_by(3).map(f64::from) {
        // Each sends a packet a second once it has sent the first.
        let back = |after: f64| {
            let packet = move |t: f64| match t {
                t if t < 600.0 => (t / 25.0).floor() * 25.0,
                t if t < to + after => 575.0,
                t => t.floor(),
            };
            Truth::new(packet, move |t| t < 600.0 || t >= to)
        };
        let mut lab = Lab::new();
        let router = lab.add(testing::host(1), back(1.0));
        lab.add(testing::host(9), Truth::well());
        let child = lab.add(HostSpec { parents: vec![router], ..testing::host(2) }, back(20.0));
        lab.run_to(to + 1.0);
        lab.input(MonitorInput::TunnelEvent(TunnelEvent::Heard(router)));
        lab.run_to(to + 20.0);
        lab.input(MonitorInput::TunnelEvent(TunnelEvent::Heard(child)));
        lab.run(Duration::from_secs(120));
        assert_eq!(lab.told_of("cam-2"), Vec::<String>::new(), "{to}");
    }
}
