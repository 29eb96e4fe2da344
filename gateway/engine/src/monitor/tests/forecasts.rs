//! A forecast from the shell becomes a metric of the next result.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};

use super::lab::{HOUR, Lab, MINUTE, Truth, box_of_others, service};
use crate::id::HostId;
use crate::messages::{
    Check, FULL_WITHIN, FullAt, HostSpec, MonitorInput, Record, ServiceSpec, Threshold, USED,
};

/// A host whose service `disk` warns below two hours.
fn lab() -> (Lab, HostId) {
    let mut lab = Lab::new();
    let limits = Thresholds { warn: "7200:".parse().ok(), crit: None };
    let thresholds = vec![Threshold { metric: FULL_WITHIN.to_owned(), limits }];
    let services = vec![ServiceSpec { thresholds, ..service("disk", Check::Passive) }];
    let host = lab.add(HostSpec { services, ..box_of_others(1) }, Truth::well());
    (lab, host)
}

fn used(lab: &mut Lab, host: HostId) -> (Option<Status>, Option<f64>) {
    let result = PluginResult::new(Status::Ok, "90 % used", vec![Metric::percent(USED, 90.0)]);
    lab.run(MINUTE);
    lab.send_result(host, Some("disk"), result);
    let state = lab.service(host, "disk");
    let within = state.result.metrics.iter().find(|m| m.label == FULL_WITHIN).and_then(|m| m.value);
    (state.status, within)
}

#[test]
fn a_limit_on_a_forecast_is_applied_while_there_is_one() {
    let (mut lab, host) = lab();
    assert_eq!(used(&mut lab, host), (Some(Status::Ok), None), "there is none");
    let full_at = lab.now.wall + 3 * HOUR;
    let forecast = FullAt { host, service: "disk".to_owned(), at: Some(full_at), made_at: lab.now.wall };
    lab.input(MonitorInput::Forecasts(vec![forecast.clone()]));
    assert_eq!(used(&mut lab, host), (Some(Status::Ok), Some(179.0 * 60.0)));
    lab.run(HOUR);
    assert_eq!(used(&mut lab, host), (Some(Status::Warning), Some(118.0 * 60.0)));
    let samples = lab.records.iter().rev().find_map(|(_, record)| match record {
        Record::Sample(sample) => Some(sample.metrics.len()),
        _ => None,
    });
    assert_eq!(samples, Some(2), "it is recorded like any other metric");
    let none = FullAt { at: None, ..forecast };
    lab.input(MonitorInput::Forecasts(vec![none]));
    assert_eq!(used(&mut lab, host), (Some(Status::Ok), None), "the past supports none any more");
}

#[test]
fn a_forecast_of_an_unknown_service_is_ignored_and_another_check_has_none() {
    let (mut lab, host) = lab();
    let at = Some(lab.now.wall + HOUR);
    let of = |host, service: &str| FullAt { host, service: service.to_owned(), at, made_at: lab.now.wall };
    let all = vec![of(HostId::from_i64(7), "disk"), of(host, "other"), of(host, "disk")];
    lab.input(MonitorInput::Forecasts(all));
    assert_eq!(used(&mut lab, host).0, Some(Status::Warning));
    let services = vec![service("disk", Check::Tcp { port: 80 })];
    lab.input(MonitorInput::Upsert(Box::new(HostSpec { services, ..box_of_others(1) })));
    let services = vec![service("disk", Check::Passive)];
    lab.input(MonitorInput::Upsert(Box::new(HostSpec { services, ..box_of_others(1) })));
    assert_eq!(used(&mut lab, host).1, None);
}
