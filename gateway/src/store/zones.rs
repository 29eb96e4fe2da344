//! Where a host stands, for schedules that name no time zone: its label `timezone`.

use std::collections::BTreeMap;

use fleetgate_engine::wire::{Check, ServiceSpec};
use fleetgate_probes::sensors::{Capture, Plan, Schedule, Sensor};
use jiff::tz::TimeZone;

/// The label that names a host's time zone, such as `Europe/Berlin`.
const LABEL: &str = "timezone";

/// Gives schedules without a zone the host's; one that nobody knows is left out, which is UTC.
pub fn settle(services: &mut [ServiceSpec], labels: &BTreeMap<String, String>) {
    let Some(zone) = labels.get(LABEL).and_then(|name| TimeZone::get(name).ok()) else { return };
    for service in services {
        if let Check::Sensor(Sensor::Capture(Capture {
            plan: Plan::Schedule(Schedule { zone: unset @ None, .. }),
            ..
        })) = &mut service.check
        {
            *unset = Some(zone.clone());
        }
    }
}
