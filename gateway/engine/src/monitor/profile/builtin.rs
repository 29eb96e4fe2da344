//! The profiles that come with the program. They are read-only: who wants others extends them.

use std::sync::LazyLock;
use std::time::Duration;

use fleetgate_probes::range::{Range, Thresholds};
use fleetgate_probes::sensors::{Capture, Plan, Sensor};

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
        limited(sensor("cpu", Sensor::Cpu), "used", "95", "~:"),
        sensor("users", Sensor::Users),
        sensor("traffic", Sensor::Traffic { name: None }),
    ];
    extending(
        DEFAULT,
        "linux",
        "a Linux machine: default with limits, and processes, processor, users and traffic",
        services,
    )
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

/// Where the capture software puts pictures, and what its sensor board measures (a line
/// `name value unit` each).
const PICTURES: &str = "/var/lib/timelapse/pictures";
const BOARD: &str = "/run/timelapse/sensors";
/// No picture for so long is late; for as long again, missed.
const PICTURE_EVERY: Duration = Duration::from_secs(180);

/// The USB classes are those of a camera (still images) and of a board on a serial line.
fn camera() -> Profile {
    let usb = |service, class: &str| {
        limited(sensor(service, Sensor::Usb { name: format!("class:{class}") }), "devices", "~:", "1:")
    };
    let plan = Plan::Every(PICTURE_EVERY);
    let capture = Capture { path: PICTURES.into(), plan, grace: PICTURE_EVERY };
    let board = sensor("sensors", Sensor::Values { path: BOARD.into() });
    let services = vec![
        // A ring of pictures fills its disk and purges it once a day.
        limited(of("disk"), "used", "92", "97"),
        usb("camera", "06"),
        usb("board", "02"),
        sensor("capture", Sensor::Capture(capture)),
        sensor("pictures", Sensor::Daily { path: PICTURES.into() }),
        limited(limited(board, "temperature", "-20:50", "-30:65"), "age", "300", "900"),
    ];
    let summary =
        "a time-lapse camera: linux, camera and sensor board on USB, capture, pictures of a day, sensors";
    extending("linux", "timelapse-camera", summary, services)
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
