//! The time zone of a host, for schedules that name none: its label `timezone`.

use std::collections::BTreeMap;

use fleetgate_engine::wire::{Check, ServiceSpec};
use fleetgate_probes::job::{Deadline, Due, Job};
use fleetgate_probes::sensors::{Capture, Plan, Schedule, Sensor};
use jiff::tz::TimeZone;

/// The label that names a host's time zone, such as `Europe/Berlin`.
pub const LABEL: &str = "timezone";

/// Returns the time zone that a host's labels name, if it exists.
pub fn of(labels: &BTreeMap<String, String>) -> Option<TimeZone> {
    labels.get(LABEL).and_then(|name| TimeZone::get(name).ok())
}

/// Sets the host's time zone in schedules without one. An unknown zone is left out, which means
/// UTC.
pub fn settle(services: &mut [ServiceSpec], labels: &BTreeMap<String, String>) {
    let Some(zone) = of(labels) else { return };
    for service in services {
        if let Some(unset @ None) = zone_of(&mut service.check) {
            *unset = Some(zone.clone());
        }
    }
}

/// Returns the time zone of a check that follows the time of day.
fn zone_of(check: &mut Check) -> Option<&mut Option<TimeZone>> {
    match check {
        Check::Sensor(Sensor::Capture(Capture { plan: Plan::Schedule(Schedule { zone, .. }), .. }))
        | Check::Heartbeat(Job { due: Due::By(Deadline { zone, .. }), .. }) => Some(zone),
        _ => None,
    }
}
