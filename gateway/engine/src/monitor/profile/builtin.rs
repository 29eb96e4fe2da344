//! The built-in profiles. They are read-only; an operator extends them to change something.

use std::sync::LazyLock;
use std::time::Duration;

use fleetgate_probes::range::{Range, Thresholds};
use fleetgate_probes::sensors::{Capture, Plan, Sensor};

use crate::messages::{Check, Threshold};

use super::{DEFAULT, PING_COUNT, Profile, ServiceOverride};

/// SMB, the main service of a NAS at most sites.
const FILE_SHARING: u16 = 445;

pub fn builtin() -> &'static [Profile] {
    static PROFILES: LazyLock<Vec<Profile>> =
        LazyLock::new(|| vec![default(), linux(), router(), nas(), camera()]);
    &PROFILES
}

/// Limits that suit any Linux machine; docs/checks-and-profiles.md explains them.
fn default() -> Profile {
    let disk = sensor("disk", Sensor::Disk { path: "/".into() });
    let services = vec![
        limited(checked("tunnel", Check::Tunnel), "clock_skew", "-60:60", "-600:600"),
        checked("ping", Check::Ping { count: PING_COUNT }),
        checked("ssh", Check::Ssh),
        limited(limited(disk, "fullness", "85", "95"), "inodes", "90", "97"),
        limited(sensor("mounts", Sensor::Mounts), "read_only", "~:", "0"),
        limited(sensor("load", Sensor::Load), "load15_per_cpu", "2", "4"),
        limited(limited(sensor("memory", Sensor::Memory), "used", "90", "97"), "swap", "80", "~:"),
        limited(sensor("temperature", Sensor::Temperature { name: None }), "temperature", "~:85", "~:95"),
        sensor("uptime", Sensor::Uptime),
    ];
    let summary =
        "tunnel and ping; with a login also ssh, disk, mounts, load, memory, temperature and uptime";
    Profile { name: DEFAULT.into(), summary: summary.into(), services, ..Profile::default() }
}

fn linux() -> Profile {
    let services = vec![
        sensor("processes", Sensor::Processes { name: None }),
        limited(sensor("cpu", Sensor::Cpu), "used", "95", "~:"),
        sensor("users", Sensor::Users),
        sensor("traffic", Sensor::Traffic { name: None }),
    ];
    extending(
        DEFAULT,
        "linux",
        "a Linux machine: default, and processes, processor, users and traffic",
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

/// The directory of the capture software's pictures, and the file with the values of its sensor
/// board (`name value unit` in each line).
const PICTURES: &str = "/var/lib/timelapse/pictures";
const BOARD: &str = "/run/timelapse/sensors";
/// The range of housing and weather, in the usual units of such sensors: C, %, hPa, lux. A board is
/// evaluated by the sensors that it has.
const BOARD_LIMITS: [(&str, &str, &str); 5] = [
    // Above freezing no battery suffers; cameras are built for 40, electronics for 65.
    ("temperature", "-20:50", "-30:65"),
    // From 85 % on water may condense on a lens, at 95 % it does.
    ("humidity", "0:85", "0:95"),
    // At sea level, 950 to 1050 are weather; at 2,500 m some 740 are normal. Below 300 and over
    // 1100, sensors of this kind do not measure.
    ("pressure", "700:1070", "300:1100"),
    // Direct sun is 120,000; a sensor that reports more, or less than zero, is broken.
    ("luminosity", "0:150000", "0:200000"),
    ("age", "300", "900"),
];
/// The time without a picture after which the next is late, and after twice which it is missed.
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
        // The picture ring fills its disk and purges it once a day.
        limited(of("disk"), "used", "92", "97"),
        usb("camera", "06"),
        usb("board", "02"),
        sensor("capture", Sensor::Capture(capture)),
        sensor("pictures", Sensor::Daily { path: PICTURES.into() }),
        BOARD_LIMITS.iter().fold(board, |board, (metric, warn, crit)| limited(board, metric, warn, crit)),
    ];
    let summary =
        "a time-lapse camera: linux, camera and sensor board on USB, capture, pictures of a day, sensors";
    extending("linux", "timelapse-camera", summary, services)
}

fn extending(parent: &str, name: &str, summary: &str, services: Vec<ServiceOverride>) -> Profile {
    Profile {
        name: name.into(),
        summary: summary.into(),
        extends: vec![parent.into()],
        services,
        ..Profile::default()
    }
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
