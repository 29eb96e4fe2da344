//! A result under the limits that are set here.
//!
//! A limit judges what was measured. Of a check that is our own we know what it need not measure each
//! time: a session that was kept was not opened, a board has the sensors that it has. Of a plugin and
//! of whatever is sent we do not: there a limit without its metric is UNKNOWN. Knows no states.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;

use crate::wire::{Check, Threshold};

#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub result: PluginResult,
    /// Before any limit.
    pub own: Status,
}

/// Nothing was there to be judged.
impl From<PluginResult> for Judged {
    fn from(result: PluginResult) -> Self {
        Judged { own: result.status, result }
    }
}

/// `before`: the metrics of the result before this one.
pub fn judge(mut result: PluginResult, check: &Check, thresholds: &[Threshold], before: &[Metric]) -> Judged {
    let own = result.status;
    if let Check::Sensor(Sensor::Values { .. }) = check {
        let lost = lost(&result, thresholds, before);
        result.metrics.extend(lost);
    }
    let asked = |t: &Threshold| has(&result.metrics, &t.metric) || !may_lack(check, &t.metric);
    let limits = limits(thresholds, asked);
    Judged { result: result.apply(&limits), own }
}

/// Whether the limits alone make it as bad as it is.
pub fn is_by_limits(result: &PluginResult, check: &Check, thresholds: &[Threshold]) -> bool {
    let well = PluginResult { status: Status::Ok, ..result.clone() };
    judge(well, check, thresholds, &[]).result.status == result.status
}

/// The same of a host, which has no UNKNOWN: nobody is down for a number that is missing.
pub fn judge_host(result: PluginResult, thresholds: &[Threshold]) -> PluginResult {
    let known = |t: &Threshold| result.metrics.iter().any(|m| m.label == t.metric && m.value.is_some());
    let limits = limits(thresholds, known);
    result.apply(&limits)
}

fn limits(thresholds: &[Threshold], wanted: impl Fn(&Threshold) -> bool) -> Vec<(String, Thresholds)> {
    thresholds.iter().filter(|t| wanted(t)).map(|t| (t.metric.clone(), t.limits)).collect()
}

/// What a board measured before and does not any more, as gaps: a limit on it stays UNKNOWN until it
/// is back or the limit is taken away.
fn lost(result: &PluginResult, thresholds: &[Threshold], before: &[Metric]) -> Vec<Metric> {
    let limited = |m: &&Metric| thresholds.iter().any(|t| t.metric == m.label && !t.limits.is_unset());
    let gone = before.iter().filter(limited).filter(|m| !has(&result.metrics, &m.label));
    gone.map(|m| Metric::gap(&m.label, &m.uom)).collect()
}

fn has(metrics: &[Metric], label: &str) -> bool {
    metrics.iter().any(|m| m.label == label)
}

/// Whether this check measures that, but not every time, or not everywhere.
fn may_lack(check: &Check, label: &str) -> bool {
    match check {
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
        Check::Sensor(_) | Check::Command { .. } | Check::Passive | Check::Heartbeat(_) => false,
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
    fn a_limit_on_what_a_check_of_ours_did_not_measure_judges_nothing() {
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
    }

    #[test]
    fn a_limit_says_nothing_of_whether_it_works() {
        let judged = judge(said(&["time"]), &Check::Ssh, &[limit("time", "0.5")], &[]);
        assert_eq!((judged.result.status, judged.own), (Status::Critical, Status::Ok));
    }
}
