//! The profiles that come with the program. They are read-only: who wants others extends them.

use std::sync::LazyLock;

use fleetgate_probes::range::{Range, Thresholds};
use fleetgate_probes::sensors::Sensor;

use crate::wire::{Check, Threshold};

use super::{DEFAULT, PING_COUNT, Profile, ServiceOverride};

/// SMB: what a NAS is there for at most sites.
const FILE_SHARING: u16 = 445;

pub fn builtin() -> &'static [Profile] {
    static PROFILES: LazyLock<Vec<Profile>> =
        LazyLock::new(|| vec![default(), linux(), router(), nas(), camera()]);
    &PROFILES
}

fn default() -> Profile {
    let services = vec![
        checked("tunnel", Check::Tunnel),
        checked("ping", Check::Ping { count: PING_COUNT }),
        checked("ssh", Check::Ssh),
        sensor("disk", Sensor::Disk { path: "/".into() }),
        sensor("load", Sensor::Load),
        sensor("memory", Sensor::Memory),
        sensor("uptime", Sensor::Uptime),
    ];
    let summary = "tunnel and ping; with a login also ssh, disk, load, memory and uptime";
    Profile { name: DEFAULT.into(), summary: summary.into(), extends: Vec::new(), services }
}

fn linux() -> Profile {
    let services = vec![
        limited(of("disk"), "used", "80", "90"),
        limited(of("load"), "load15_per_cpu", "2", "4"),
        limited(of("memory"), "used", "90", "97"),
        sensor("processes", Sensor::Processes { name: None }),
    ];
    extending(DEFAULT, "linux", "a Linux machine: default with limits, and its processes", services)
}

fn router() -> Profile {
    let reached = limited(limited(of("ping"), "rta", "500", "2000"), "pl", "34", "67");
    extending(DEFAULT, "router", "a site's router: default with limits for delay and loss", vec![reached])
}

fn nas() -> Profile {
    let services =
        vec![limited(of("disk"), "used", "85", "95"), checked("files", Check::Tcp { port: FILE_SHARING })];
    extending(DEFAULT, "nas", "network storage: default with limits for its disk, and file sharing", services)
}

fn camera() -> Profile {
    extending("linux", "timelapse-camera", "a time-lapse camera", Vec::new())
}

fn extending(parent: &str, name: &str, summary: &str, services: Vec<ServiceOverride>) -> Profile {
    Profile { name: name.into(), summary: summary.into(), extends: vec![parent.into()], services }
}

fn of(service: &str) -> ServiceOverride {
    ServiceOverride { service: service.into(), ..ServiceOverride::default() }
}

fn checked(service: &str, check: Check) -> ServiceOverride {
    ServiceOverride { check: Some(check), ..of(service) }
}

fn sensor(service: &str, sensor: Sensor) -> ServiceOverride {
    checked(service, Check::Sensor(sensor))
}

fn limited(mut service: ServiceOverride, metric: &str, warn: &str, crit: &str) -> ServiceOverride {
    let limits = Thresholds { warn: Some(range(warn)), crit: Some(range(crit)) };
    service.thresholds.get_or_insert_default().push(Threshold { metric: metric.into(), limits });
    service
}

fn range(text: &str) -> Range {
    text.parse().expect("a range of ours")
}
