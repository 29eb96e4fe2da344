//! The text and the end of an incident.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};

use super::lab::{HOUR, Lab, MINUTE, Truth, service};
use crate::messages::{Check, HostSpec, HostStatus, IncidentChange, Record, ServiceSpec, Threshold, Timing};
use crate::monitor::testing;

fn closed_at(lab: &Lab) -> Option<f64> {
    lab.records.iter().find_map(|(t, record)| match record {
        Record::Incident(incident) if incident.change == IncidentChange::Closed => Some(*t),
        _ => None,
    })
}

/// Returns the texts of the incidents, in order.
fn texts(lab: &Lab) -> Vec<String> {
    let text = |record: &Record| match record {
        Record::Incident(incident) => match &incident.change {
            IncidentChange::Opened(matter) | IncidentChange::Widened(matter) => Some(matter.words.clone()),
            IncidentChange::Reworded(words) => Some(words.clone()),
            _ => None,
        },
        _ => None,
    };
    lab.records.iter().filter_map(|(_, record)| text(record)).collect()
}

#[test]
fn an_incident_names_the_value_and_the_limit_of_the_check_that_decided() {
    let mut lab = Lab::new();
    let timing = Timing { attempts: 1, ..Timing::DEFAULT };
    let limits = Thresholds { warn: "60".parse().ok(), crit: "70".parse().ok() };
    let thresholds = vec![Threshold { metric: "temperature".into(), limits }];
    let board = ServiceSpec { timing, thresholds, ..service("temperature", Check::Passive) };
    let id = lab.add(HostSpec { services: vec![board], ..testing::host(1) }, Truth::well());
    lab.run(MINUTE);
    let name = testing::host(1).name;
    let mut send = |celsius: f64| {
        let metrics = vec![Metric::plain("temperature", celsius, "C")];
        lab.send_result(id, Some("temperature"), PluginResult::new(Status::Ok, "", metrics));
        lab.run(MINUTE);
        texts(&lab)
    };
    assert_eq!(send(65.0), [format!("{name}: temperature warning (65 °C, limit 60)")]);
    assert_eq!(send(66.0).len(), 1, "the same state");
    assert_eq!(send(78.0)[1..], [format!("{name}: temperature critical (78 °C, limit 70)")]);
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
