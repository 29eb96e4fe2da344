//! Rented devices: in maintenance while they are prepared, and with a service that shows the rental.

use std::collections::BTreeSet;

use fleetgate_probes::sample::Status;

use super::lab::{Lab, MINUTE, Truth, box_of_others, service};
use crate::id::{HostId, Id};
use crate::messages::{
    Arrival, Check, Downtime, EventKind, GateRule, HandoverSpec, HostScope, HostSnapshot, HostSpec,
    HostStatus, IncidentAck, MonitorInput, MonitorOutput, RENTAL_SERVICE, Record, RentalPhase, Scope,
    ServiceSpec, SuppressReason, Timing, When,
};
use crate::monitor::profile;

const DEVICE: HostId = HostId::from_i64(1);

fn usual_services() -> Vec<ServiceSpec> {
    let timing = Timing { attempts: 1, ..Timing::DEFAULT };
    vec![ServiceSpec { timing, ..service("disk", Check::Passive) }]
}

/// A rented device that has passive results alone.
fn device() -> HostSpec {
    let mut services = usual_services();
    profile::add_rental(&mut services, Timing::DEFAULT);
    let timing = Timing { attempts: 1, ..Timing::DEFAULT };
    HostSpec { services, timing, ..box_of_others(1) }
}

fn phase(is_quiet: bool, status: Status) -> RentalPhase {
    RentalPhase { is_quiet, service: Some((status, "l_1".to_owned())), ..RentalPhase::none(DEVICE) }
}

fn enter(lab: &mut Lab, phase: RentalPhase) {
    lab.input(MonitorInput::RentalPhase(Box::new(phase)));
    lab.run(MINUTE);
}

/// The device is up, its disk is OK, and it is prepared for a rental.
fn prepared() -> Lab {
    let mut lab = Lab::new();
    lab.add(device(), Truth::well());
    lab.send(DEVICE, None, Status::Ok);
    lab.send(DEVICE, Some("disk"), Status::Ok);
    enter(&mut lab, phase(true, Status::Ok));
    lab
}

fn held(lab: &Lab) -> Vec<(Option<&str>, SuppressReason)> {
    let held = lab.events().filter_map(|event| match event.kind {
        EventKind::NotificationHeld { reason, .. } => Some((event.service.as_deref(), reason)),
        _ => None,
    });
    held.collect()
}

#[test]
fn problems_are_suppressed_while_a_device_is_prepared_and_what_is_left_is_notified_then() {
    let mut lab = prepared();
    lab.send(DEVICE, Some("disk"), Status::Critical);
    lab.run(MINUTE);
    assert_eq!(lab.told(), [""; 0]);
    assert_eq!(held(&lab), [(Some("disk"), SuppressReason::Rental)]);
    for state in [&lab.host(DEVICE).notification, &lab.service(DEVICE, "disk").notification] {
        assert!(state.is_quiet && state.in_downtime, "{state:?}");
    }
    enter(&mut lab, phase(false, Status::Ok));
    let told = lab.told();
    assert!(told.len() == 1 && told[0].contains("box-1/disk ok critical"), "{told:?}");
    let quiet =
        |kind: &EventKind| matches!(kind, EventKind::RentalQuietStarted | EventKind::RentalQuietEnded);
    let kinds: Vec<&EventKind> = lab.events().map(|event| &event.kind).filter(|kind| quiet(kind)).collect();
    assert_eq!(kinds, [&EventKind::RentalQuietStarted, &EventKind::RentalQuietEnded]);
}

#[test]
fn a_device_that_was_down_in_its_preparation_alone_is_not_notified() {
    let mut lab = prepared();
    lab.send(DEVICE, None, Status::Critical);
    lab.run(MINUTE);
    assert_eq!(lab.host(DEVICE).hard, HostStatus::Down);
    lab.send(DEVICE, None, Status::Ok);
    enter(&mut lab, phase(false, Status::Ok));
    assert_eq!(lab.told(), [""; 0]);
    assert_eq!(held(&lab).last(), Some(&(None, SuppressReason::Rental)));
    lab.send(DEVICE, None, Status::Critical);
    lab.run(MINUTE);
    assert_eq!(lab.told().len(), 1, "the preparation is over: {:?}", lab.told());
}

#[test]
fn the_service_of_the_rental_alarms_of_a_device_that_is_down_prepared_and_in_a_downtime() {
    let mut lab = prepared();
    lab.send(DEVICE, None, Status::Critical);
    let scope = Scope { hosts: HostScope::One(DEVICE), service: None };
    let when = When::Once { start: lab.now.wall, end: lab.now.wall + 60 * MINUTE, duration: None };
    lab.input(MonitorInput::Downtime(Box::new(Downtime { id: Id::from_i64(9), scope, when })));
    enter(&mut lab, phase(true, Status::Warning));
    let told = lab.told();
    assert!(told.len() == 1 && told[0].contains("box-1/rental ok warning: l_1"), "{told:?}");
    let state = lab.service(DEVICE, RENTAL_SERVICE);
    assert!(!state.stale && !state.notification.in_downtime && !state.notification.is_quiet, "{state:?}");
    let count = lab.records.len();
    lab.input(MonitorInput::RentalPhase(Box::new(phase(true, Status::Warning))));
    assert_eq!(lab.records.len(), count, "the same again changes nothing");
    enter(&mut lab, phase(true, Status::Critical));
    enter(&mut lab, phase(true, Status::Ok));
    assert_eq!(lab.told_of("rental").len(), 3, "{:?}", lab.told());
}

#[test]
fn an_outage_of_the_device_that_is_acknowledged_hides_no_problem_of_its_rental() {
    let mut lab = prepared();
    enter(&mut lab, phase(false, Status::Ok));
    lab.send(DEVICE, None, Status::Critical);
    lab.run(MINUTE);
    let outage = lab.records.iter().find_map(|(_, record)| match record {
        Record::Incident(incident) => Some(incident.id),
        _ => None,
    });
    let ack = IncidentAck { sticky: true, expires: None, words: "user:ada: on it".to_owned() };
    lab.input(MonitorInput::AcknowledgeIncident(outage.expect("the device is down"), ack));
    enter(&mut lab, phase(false, Status::Warning));
    assert_eq!(lab.told_of("rental").len(), 1, "{:?}", lab.told());
    let mut first = prepared();
    enter(&mut first, phase(false, Status::Warning));
    first.send(DEVICE, None, Status::Critical);
    first.run(MINUTE);
    let incidents: BTreeSet<_> = first.messages().filter_map(|(_, message)| message.incident).collect();
    assert_eq!((first.told().len(), incidents.len()), (2, 2), "{:?}", first.told());
}

#[test]
fn a_device_behind_a_lost_router_tells_of_its_rental() {
    let mut lab = Lab::new();
    let timing = Timing { attempts: 1, ..Timing::DEFAULT };
    let router = lab.add(HostSpec { timing, ..box_of_others(9) }, Truth::well());
    lab.add(HostSpec { parents: vec![router], ..device() }, Truth::well());
    for host in [router, DEVICE] {
        lab.send(host, None, Status::Ok);
    }
    enter(&mut lab, phase(false, Status::Ok));
    for host in [router, DEVICE] {
        lab.send(host, None, Status::Critical);
        lab.run(MINUTE);
    }
    assert!(!lab.host(DEVICE).reachable, "its router is down");
    enter(&mut lab, phase(false, Status::Warning));
    assert_eq!(lab.told_of("rental").len(), 1, "{:?}", lab.told());
    assert_eq!(lab.told_of("box-1 ").len(), 0, "that it is unreachable is no news: {:?}", lab.told());
}

#[test]
fn a_phase_may_come_before_the_device_and_before_its_service() {
    let mut lab = Lab::new();
    lab.input(MonitorInput::RentalPhase(Box::new(phase(true, Status::Warning))));
    lab.add(HostSpec { services: usual_services(), ..device() }, Truth::well());
    assert!(lab.host(DEVICE).notification.is_quiet);
    lab.input(MonitorInput::Upsert(Box::new(device())));
    assert_eq!(lab.service(DEVICE, RENTAL_SERVICE).hard, Some(Status::Warning));
    lab.input(MonitorInput::RentalPhase(Box::new(RentalPhase::none(DEVICE))));
    lab.input(MonitorInput::Upsert(Box::new(HostSpec { services: usual_services(), ..device() })));
    assert!(!lab.host(DEVICE).notification.is_quiet);
    assert_eq!(lab.monitor.figures().services, 1);
}

/// Restarts the gateway with what the store has. Returns what happens, as messages and events.
fn restarted(lab: &Lab, phase: Option<RentalPhase>) -> (usize, Vec<EventKind>) {
    let services = vec![lab.service(DEVICE, "disk").clone(), lab.service(DEVICE, RENTAL_SERVICE).clone()];
    let memory = HostSnapshot {
        spec: device(),
        state: Some(lab.host(DEVICE).clone()),
        services,
        acknowledged: Vec::new(),
    };
    let mut again = Lab::new();
    again.now = lab.now;
    if let Some(phase) = phase {
        again.input(MonitorInput::RentalPhase(Box::new(phase)));
    }
    again.monitor.restore([memory], again.now);
    again.input(MonitorInput::Timeout);
    let kinds = again.events().map(|event| event.kind.clone()).collect();
    (again.told().len(), kinds)
}

#[test]
fn a_restart_neither_ends_the_quiet_nor_keeps_one_that_is_over() {
    let mut lab = prepared();
    lab.send(DEVICE, Some("disk"), Status::Critical);
    assert_eq!(restarted(&lab, Some(phase(true, Status::Ok))), (0, Vec::new()));
    let (told, kinds) = restarted(&lab, None);
    assert_eq!((told, kinds), (1, vec![EventKind::RentalQuietEnded]), "its rental was cancelled meanwhile");
}

#[test]
fn the_gate_does_not_look_at_the_service_of_the_rental() {
    let mut lab = prepared();
    enter(&mut lab, phase(false, Status::Warning));
    let now = lab.now.wall;
    let spec = HandoverSpec {
        rental: Id::from_i64(41),
        host: DEVICE,
        from: now,
        until: now + 60 * MINUTE,
        rule: Some(GateRule { services: None, ok_for: MINUTE / 2 }),
        is_ready: true,
        blocks: Vec::new(),
        handed_over_at: None,
        arrival: Arrival::Done,
    };
    lab.monitor.handle(MonitorInput::Handover(Box::new(spec)), lab.now);
    let is_passed = loop {
        match lab.monitor.poll_output() {
            MonitorOutput::HandedOver(_) => break true,
            MonitorOutput::Wait(..) => break false,
            _ => {}
        }
    };
    assert!(is_passed);
}
