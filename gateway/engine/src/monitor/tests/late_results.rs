//! Passive results that are older than the state.

use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::{Metric, Status};

use super::lab::{HOUR, Lab, MINUTE, Truth, box_of_others, service};
use crate::id::HostId;
use crate::messages::{Check, HostSpec, MonitorInput, Outcome, PassiveResult, Record, Sample, Ticket};
use crate::time::Wall;

const SENDER: i64 = 1;

/// A host whose results, and those of its service, are sent; both came after an hour.
fn sent_to() -> (Lab, HostId) {
    let mut lab = Lab::new();
    let services = vec![service("backup", Check::Passive)];
    let host = lab.add(HostSpec { services, ..box_of_others(SENDER) }, Truth::well());
    lab.run(HOUR);
    lab.send(host, None, Status::Ok);
    lab.send(host, Some("backup"), Status::Ok);
    lab.run(MINUTE);
    lab.records.clear();
    (lab, host)
}

fn size(value: f64) -> Vec<Metric> {
    vec![Metric::amount("size", value, "B")]
}

fn send_late(lab: &mut Lab, service: Option<&str>, metrics: Vec<Metric>, late: Duration) -> Wall {
    let at = lab.now.wall - late;
    let sent = PassiveResult {
        host: HostId::from_i64(SENDER),
        service: service.map(str::to_owned),
        result: PluginResult::new(Status::Critical, "late", metrics),
        at,
        by: "token:t_1".to_owned(),
        identity: Default::default(),
        ticket: Ticket(7),
    };
    lab.input(MonitorInput::Submit(Box::new(sent)));
    at
}

fn recorded(lab: &Lab) -> Vec<Record> {
    lab.records.iter().map(|(_, record)| record.clone()).collect()
}

#[test]
fn an_older_result_changes_no_state_and_its_metrics_are_recorded() {
    let (mut lab, host) = sent_to();
    for name in [None, Some("backup")] {
        lab.records.clear();
        let at = send_late(&mut lab, name, size(3.0), 30 * MINUTE);
        let service = name.unwrap_or_default().to_owned();
        let sample = Record::Sample(Sample { host, service, at, metrics: size(3.0).into() });
        assert_eq!(recorded(&lab), [sample, Record::Reply(Ticket(7), Outcome::Older)]);
    }
}

#[test]
fn an_older_result_without_metrics_records_nothing() {
    let (mut lab, _) = sent_to();
    send_late(&mut lab, Some("backup"), Vec::new(), 30 * MINUTE);
    assert_eq!(recorded(&lab), [Record::Reply(Ticket(7), Outcome::Older)]);
}
