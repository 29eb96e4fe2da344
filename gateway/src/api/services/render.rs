//! Converts the definition and the state of a service to the API's type.

use fleetgate_engine::messages::{IncidentId, PathCheck, ServiceState};
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Status;

use super::types::Service;
use crate::api::acknowledgements;
use crate::api::request::ids::{self, IdKind, time_if_known};
use crate::api::types::{Metric, ThresholdSettings, not_empty};
use crate::engine::definitions::{self, Definition};
use crate::store::acknowledgements::Acknowledgement;
use crate::store::states::state_type_name;

/// The acknowledgement and incident of a service, and whether its host is reachable.
pub struct Around<'a> {
    pub ack: Option<&'a Acknowledgement>,
    pub incident: Option<IncidentId>,
    pub reachable: bool,
    /// The time of a requested check without a result so far.
    pub requested: Option<Wall>,
}

/// `state`: absent until the service has a row.
pub fn service(
    host: &Definition,
    spec: &definitions::Service,
    state: Option<&ServiceState>,
    around: &Around<'_>,
) -> Service {
    let notification = state.map(|s| s.notification.clone()).unwrap_or_default();
    let name_of = |status: Option<Status>| status.map_or("pending", Status::name).to_owned();
    let result = state.map(|s| &s.result);
    Service {
        host: IdKind::Host.text(host.id),
        host_name: host.name.clone(),
        name: spec.name.clone(),
        check: spec.check.to_owned(),
        state: name_of(state.and_then(|s| s.hard)),
        last_result: name_of(state.and_then(|s| s.status)),
        state_type: state_type_name(state.map_or_else(Default::default, |s| s.kind)).to_owned(),
        attempt: state.map_or(1, |s| i64::from(s.attempt)),
        max_attempts: i64::from(spec.attempts),
        stale: state.is_some_and(|s| s.stale),
        reachable: around.reachable,
        acknowledged: around.ack.is_some(),
        acknowledgement: around.ack.map(acknowledgements::shown),
        incident: around.incident.map(|id| id.to_string()),
        in_downtime: notification.in_downtime,
        flapping: notification.flapping,
        flapping_percent: notification.recent.percent(),
        since: state.map(|s| ids::time(s.hard_since)),
        last_check: time_if_known(state.and_then(|s| s.last_check)),
        next_check: time_if_known(state.and_then(|s| s.next_check)),
        check_requested_at: time_if_known(around.requested),
        route: state.and_then(|s| not_empty(&s.route)),
        cause: state.filter(|s| s.status.is_some()).map(|s| s.result.cause.name().to_owned()),
        asked_address: state.and_then(|s| s.asked).map(|address| address.to_string()),
        path: state.map(|s| s.path).filter(|p| *p != PathCheck::NotAsked).map(|p| p.name().to_owned()),
        text: result.map_or_else(String::new, |r| r.text.clone()),
        long_text: result.map_or_else(String::new, |r| r.long_text.clone()),
        metrics: result.map_or_else(Vec::new, |r| r.metrics.iter().map(Metric::from).collect()),
        parse_warnings: result.map_or_else(Vec::new, |r| r.warnings.clone()),
        forecast: None,
        thresholds: spec.thresholds.iter().map(ThresholdSettings::from).collect(),
        usual_thresholds: spec
            .usual
            .as_ref()
            .map(|usual| usual.iter().map(ThresholdSettings::from).collect()),
        check_interval_s: spec.interval.as_secs_f64(),
        retry_interval_s: spec.retry.as_secs_f64(),
    }
}
