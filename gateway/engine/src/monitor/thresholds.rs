//! Evaluates a result against the configured thresholds.
//!
//! A threshold evaluates a metric. For the built-in checks it is known which metrics a result may
//! lack: a kept session was not opened, and boards have different sensors. For plugins and passive
//! results it is not known, so a threshold without its metric is UNKNOWN. This module knows no
//! states.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;

use crate::messages::{Check, FULL_WITHIN, Threshold};

#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    pub result: PluginResult,
    /// The status before any threshold.
    pub own: Status,
}

/// A result to which no threshold applies.
impl From<PluginResult> for Evaluated {
    fn from(result: PluginResult) -> Self {
        Evaluated { own: result.status, result }
    }
}

/// Evaluates a result. `before`: the metrics of the previous result.
pub fn judge(
    mut result: PluginResult,
    check: &Check,
    thresholds: &[Threshold],
    before: &[Metric],
) -> Evaluated {
    let own = result.status;
    if let Check::Sensor(Sensor::Values { .. }) = check {
        let lost = lost(&result, thresholds, before);
        result.add_metrics(lost);
    }
    let asked = |t: &Threshold| has(&result.metrics, &t.metric) || !may_lack(check, &t.metric);
    let limits = limits(thresholds, asked);
    Evaluated { result: result.apply(&limits), own }
}

/// Whether the thresholds alone explain the status.
pub fn is_by_limits(result: &PluginResult, check: &Check, thresholds: &[Threshold]) -> bool {
    let well = PluginResult { status: Status::Ok, ..result.clone() };
    judge(well, check, thresholds, &[]).result.status == result.status
}

/// Evaluates the result of a host. A host has no UNKNOWN, so a missing metric does not make it
/// down.
pub fn judge_host(result: PluginResult, thresholds: &[Threshold]) -> PluginResult {
    let known = |t: &Threshold| result.metrics.iter().any(|m| m.label == t.metric && m.value.is_some());
    let limits = limits(thresholds, known);
    result.apply(&limits)
}

fn limits(thresholds: &[Threshold], wanted: impl Fn(&Threshold) -> bool) -> Vec<(String, Thresholds)> {
    thresholds.iter().filter(|t| wanted(t)).map(|t| (t.metric.clone(), t.limits)).collect()
}

/// Returns the metrics that a board no longer measures, as gaps. Their thresholds stay UNKNOWN
/// until the metric is back or the threshold is removed. A forecast is not measured.
fn lost(result: &PluginResult, thresholds: &[Threshold], before: &[Metric]) -> Vec<Metric> {
    let limited = |m: &&Metric| thresholds.iter().any(|t| t.metric == m.label && !t.limits.is_unset());
    let measured = before.iter().filter(|m| m.label != FULL_WITHIN);
    let gone = measured.filter(limited).filter(|m| !has(&result.metrics, &m.label));
    gone.map(|m| Metric::gap(&m.label, &m.uom)).collect()
}

fn has(metrics: &[Metric], label: &str) -> bool {
    metrics.iter().any(|m| m.label == label)
}

/// Whether a result of this check may lack the metric. Any may lack a forecast, because its past supports none.
fn may_lack(check: &Check, label: &str) -> bool {
    match check {
        _ if label == FULL_WITHIN => true,
        Check::Tunnel => {
            matches!(label, "packet_age" | "handshake_age" | "clock_skew" | "handshake_time")
        }
        Check::Ping { .. } => matches!(label, "rta" | "rtmin" | "rtmax"),
        Check::Ssh | Check::Tcp { .. } => label == "time",
        Check::Sensor(Sensor::Load) => label.ends_with("_per_cpu"),
        Check::Sensor(Sensor::Disk { .. }) => label == "inodes",
        Check::Sensor(Sensor::Memory) => label == "swap",
        Check::Sensor(Sensor::Temperature { name: None }) => label == "temperature",
        Check::Sensor(Sensor::Values { .. }) => true,
        Check::Sensor(_) | Check::Command { .. } | Check::Passive | Check::Heartbeat(_) | Check::Rental => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(metric: &str, crit: &str) -> Threshold {
        let limits = Thresholds { warn: None, crit: crit.parse().ok() };
        Threshold { metric: metric.into(), limits }
    }

    fn said(labels: &[&str]) -> PluginResult {
        let metrics = labels.iter().map(|l| Metric::plain(l, 1.0, "")).collect();
        PluginResult::new(Status::Ok, "", metrics)
    }

    #[test]
    fn a_threshold_on_a_metric_that_was_not_measured_has_no_effect() {
        let values = Check::Sensor(Sensor::Values { path: "/board".into() });
        let disk = Check::Sensor(Sensor::Disk { path: "/".into() });
        let plugin = Check::Command { line: "true".into() };
        let table = [
            (&Check::Tunnel, "clock_skew", Status::Ok),
            (&Check::Ssh, "time", Status::Ok),
            (&Check::Ssh, "tmie", Status::Unknown),
            (&values, "humidity", Status::Ok),
            (&disk, "inodes", Status::Ok),
            (&disk, "inode", Status::Unknown),
            (&Check::Sensor(Sensor::Memory), "swap", Status::Ok),
            (&Check::Sensor(Sensor::Temperature { name: None }), "temperature", Status::Ok),
            (&Check::Sensor(Sensor::Load), "load15_per_cpu", Status::Ok),
            (&plugin, "time", Status::Unknown),
            (&Check::Passive, "time", Status::Unknown),
            (&disk, FULL_WITHIN, Status::Ok),
            (&plugin, FULL_WITHIN, Status::Ok),
        ];
        for (check, metric, expected) in table {
            let judged = judge(said(&["other"]), check, &[limit(metric, "5")], &[]);
            assert_eq!(judged.result.status, expected, "{check:?} {metric}");
        }
    }

    #[test]
    fn a_sensor_that_a_board_lost_is_unknown_until_it_is_back() {
        let values = Check::Sensor(Sensor::Values { path: "/board".into() });
        let limits = [limit("temperature", "5")];
        let mut last = said(&["temperature", "age"]);
        for (labels, expected) in [
            (&["age"][..], Status::Unknown),
            (&["age"], Status::Unknown),
            (&["age", "temperature"], Status::Ok),
        ] {
            last = judge(said(labels), &values, &limits, &last.metrics).result;
            assert_eq!(last.status, expected, "{last:?}");
        }
        assert_eq!(judge(said(&["age"]), &values, &[], &last.metrics).result.status, Status::Ok);
        let forecast =
            judge(said(&["used"]), &values, &[limit(FULL_WITHIN, "5")], &said(&[FULL_WITHIN]).metrics);
        assert_eq!(forecast.result.status, Status::Ok, "a forecast is not measured");
    }

    #[test]
    fn a_violated_threshold_does_not_fail_the_dependents() {
        let judged = judge(said(&["time"]), &Check::Ssh, &[limit("time", "0.5")], &[]);
        assert_eq!((judged.result.status, judged.own), (Status::Critical, Status::Ok));
    }
}
