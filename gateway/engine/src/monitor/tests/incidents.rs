//! The end of an incident.

use fleetgate_probes::sample::Status;

use super::lab::{HOUR, Lab, MINUTE, Truth, service};
use crate::messages::{Check, HostSpec, HostStatus, IncidentChange, Record, ServiceSpec, Timing};
use crate::monitor::testing;

fn closed_at(lab: &Lab) -> Option<f64> {
    lab.records.iter().find_map(|(t, record)| match record {
        Record::Incident(incident) if incident.change == IncidentChange::Closed => Some(*t),
        _ => None,
    })
}

/// A passive result from meanwhile is no problem of its own once the host is back.
#[test]
fn an_incident_closes_after_the_host_recovers_despite_passive_results_meanwhile() {
    let mut lab = Lab::new();
    let timing = Timing { attempts: 1, ..Timing::DEFAULT };
    let backup = ServiceSpec { timing, ..service("backup", Check::Passive) };
    let spec = HostSpec { services: vec![backup], ..testing::host(1) };
    let id = lab.add(spec, Truth::off(3.0, 600.0, 1_800.0));
    lab.add(testing::host(9), Truth::well());
    lab.run_to(1_500.0);
    assert_eq!(lab.host(id).hard, HostStatus::Down);
    lab.send(id, Some("backup"), Status::Critical);
    lab.run_to(1_800.0);
    lab.run(10 * MINUTE);
    assert_eq!((lab.host(id).hard, lab.service(id, "backup").stale), (HostStatus::Up, true));
    assert!(closed_at(&lab).is_some(), "nothing is wrong any more");
    lab.send(id, Some("backup"), Status::Critical);
    lab.run(HOUR);
    assert_eq!(lab.told_of("backup").len(), 1, "what is sent now is told: {:#?}", lab.told());
}
