//! What the simulated devices measure, at any time before and after the start of the demo.
//!
//! Each value is a function of the device, the sensor and the time. So the past that the demo lives through and the
//! values that its devices report from then on are one curve. This module does not know how a value is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::time::Wall;

use super::story::{self, Outage};
use crate::demo::plan;

/// Every kind of sensor with the value of a healthy device: percent used, file systems that turned
/// read-only, average of one minute, percent used, seconds, degrees Celsius, a count, seconds, two
/// counts, percent busy, bytes received, pictures of a day, and degrees Celsius on the board.
pub const HEALTHY: [(&str, f64); 14] = [
    ("disk", 41.0),
    ("mounts", 0.0),
    ("load", 0.4),
    ("memory", 37.0),
    ("uptime", 1_209_600.0),
    ("temperature", 43.5),
    ("processes", 87.0),
    ("file_age", 40.0),
    ("usb", 1.0),
    ("users", 0.0),
    ("cpu", 12.0),
    ("traffic", 250_000_000.0),
    ("daily", 480.0),
    ("values", 21.5),
];

/// Returns the value of a healthy device.
pub fn healthy(sensor: &str) -> f64 {
    HEALTHY.iter().find(|(name, _)| *name == sensor).map(|(_, value)| *value).unwrap_or_default()
}

const DAY_S: f64 = 86_400.0;
/// The pictures of a day take this much of a disk, in percent. The purge of the next night removes as much.
const TOOTH: f64 = 9.0;
/// The purge runs at three o'clock UTC.
const PURGE_S: f64 = 3.0 * 3_600.0;
/// A disk keeps some room for its administrator.
const FULL: f64 = 99.5;
/// The warmest hour is that after two o'clock UTC.
const WARMEST_S: f64 = 14.0 * 3_600.0;
/// A fan that fails heats a device up within this time.
const HEATING_S: f64 = 6.0 * 3_600.0;
/// Time between two points of the noise, which is a straight line between them.
const GRAIN_S: f64 = 600.0;

/// The fleet of the demo and the time at which the demo began.
#[derive(Debug)]
pub struct World {
    began: Wall,
    devices: BTreeMap<&'static str, Device>,
}

#[derive(Debug)]
struct Device {
    site: String,
    /// Its uplink is a mobile network.
    mobile: bool,
    /// The sensors with a problem, and their values when the demo begins.
    planned: Vec<(&'static str, f64)>,
}

impl World {
    /// Returns the world of the planned fleet.
    pub fn new(began: Wall) -> World {
        let label =
            |device: &plan::PlannedDevice, key: &str| device.labels.get(key).cloned().unwrap_or_default();
        let device = |device: plan::PlannedDevice| {
            let (site, mobile) = (label(&device, "site"), label(&device, "uplink") == "lte");
            (device.name, Device { site, mobile, planned: device.sensors })
        };
        World { began, devices: plan::plan().into_iter().map(device).collect() }
    }

    pub fn began(&self) -> Wall {
        self.began
    }

    /// Returns since when a device is without power or uplink; `None`: it is there.
    pub fn down_since(&self, device: &str, at: Wall) -> Option<Wall> {
        let site = self.devices.get(device).map(|device| device.site.as_str());
        let hits = |outage: &&Outage| outage.who == device || Some(outage.who) == site;
        let spans = story::OUTAGES.iter().filter(hits).map(|outage| outage.span(self.began));
        spans.filter(|span| span.contains(&at)).map(|span| span.start).min()
    }

    /// Returns the time of an echo.
    pub fn rtt(&self, device: &str, at: Wall) -> Duration {
        let usual = if self.is_mobile(device) { 0.0014 } else { 0.0007 };
        let busy = 0.25 * day_wave(at) + 0.15 * noise(device, "rtt", at);
        let spike = if chance(device, "spike", at) < 0.003 { 6.0 } else { 1.0 };
        Duration::from_secs_f64(usual * (1.0 + busy) * spike)
    }

    /// Whether an echo of this minute is lost on its way.
    pub fn loses_an_echo(&self, device: &str, at: Wall) -> bool {
        self.is_mobile(device) && chance(device, "loss", at) < 0.002
    }

    /// Returns the value of a sensor, in the unit of [`HEALTHY`].
    pub fn value(&self, device: &str, sensor: &str, at: Wall) -> f64 {
        let planned = self.devices.get(device).and_then(|device| device.of(sensor));
        match (sensor, planned) {
            ("disk", Some(planned)) if device == story::PURGE_STOPS_ON => {
                self.disk_without_purge(planned, at)
            }
            ("disk", planned) => disk(planned.unwrap_or_else(|| healthy(sensor)), at),
            ("temperature", Some(planned)) => self.heated(device, planned, at),
            ("temperature", None) => temperature(device, at),
            ("memory", Some(planned)) => self.leaking(device, planned, at),
            ("file_age", Some(planned)) => self.without_pictures(planned, at),
            ("file_age", None) => picture_age(at),
            ("memory" | "load" | "cpu", None) => healthy(sensor) * (1.0 + 0.2 * noise(device, sensor, at)),
            (_, planned) => planned.unwrap_or_else(|| healthy(sensor)),
        }
    }

    fn is_mobile(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|device| device.mobile)
    }

    /// Returns the seconds from the start of the demo, negative before it.
    fn age_s(&self, at: Wall) -> f64 {
        (at.as_millis() - self.began.as_millis()) as f64 / 1_000.0
    }

    /// The disk has teeth until its last purge, and has `planned` when the demo begins.
    fn disk_without_purge(&self, planned: f64, at: Wall) -> f64 {
        let stopped = self.began - story::PURGE_STOPPED;
        let last_purge = self.age_s(stopped) - since_purge_s(stopped);
        let low = planned + TOOTH * last_purge / DAY_S;
        let filled_s = match self.age_s(at) - last_purge {
            later if later >= 0.0 => later,
            _ => since_purge_s(at),
        };
        (low + TOOTH * filled_s / DAY_S).min(FULL)
    }

    /// The fan of the device failed. It has at least `planned` from then on.
    fn heated(&self, device: &str, planned: f64, at: Wall) -> f64 {
        let since = self.age_s(at) + story::fault_age(device).as_secs_f64();
        let share = (since / HEATING_S).clamp(0.0, 1.0);
        let hot = planned + 1.0 + 0.8 * day_wave(at) + 0.2 * noise(device, "temperature", at);
        let usual = temperature(device, at);
        usual + (hot - usual) * share
    }

    /// A program takes ever more memory, up to `planned` when the demo begins.
    fn leaking(&self, device: &str, planned: f64, at: Wall) -> f64 {
        let age = story::fault_age(device).as_secs_f64();
        let share = ((self.age_s(at) + age) / age).clamp(0.0, 1.0);
        let (usual, ripple) = (healthy("memory"), 0.5 * noise(device, "memory", at).abs());
        usual + (planned - usual) * share + ripple
    }

    /// The last picture was `planned` seconds old when the demo began.
    fn without_pictures(&self, planned: f64, at: Wall) -> f64 {
        match self.age_s(at) + planned {
            since if since >= 0.0 => since,
            _ => picture_age(at),
        }
    }
}

impl Device {
    fn of(&self, sensor: &str) -> Option<f64> {
        self.planned.iter().find(|(name, _)| *name == sensor).map(|(_, value)| *value)
    }
}

/// A disk that a purge empties each night, around its usual level.
fn disk(usual: f64, at: Wall) -> f64 {
    usual + TOOTH * (since_purge_s(at) / DAY_S - 0.5)
}

fn temperature(device: &str, at: Wall) -> f64 {
    healthy("temperature") + 4.0 * day_wave(at) + 0.4 * noise(device, "temperature", at)
}

/// A picture is taken each minute, and takes some seconds to be written.
fn picture_age(at: Wall) -> f64 {
    seconds(at).rem_euclid(60.0) + 3.0
}

fn since_purge_s(at: Wall) -> f64 {
    (seconds(at) - PURGE_S).rem_euclid(DAY_S)
}

/// Returns 1 at the warmest hour of the day, and -1 half a day from it.
fn day_wave(at: Wall) -> f64 {
    ((seconds(at) - WARMEST_S) / DAY_S * std::f64::consts::TAU).cos()
}

fn seconds(at: Wall) -> f64 {
    at.as_millis() as f64 / 1_000.0
}

/// Returns a continuous value from -1 to 1.
fn noise(device: &str, of: &str, at: Wall) -> f64 {
    let grain = seconds(at) / GRAIN_S;
    let point = |n: f64| 2.0 * share(device, of, n as i64) - 1.0;
    let (before, part) = (grain.floor(), grain - grain.floor());
    point(before) * (1.0 - part) + point(before + 1.0) * part
}

/// Returns a value from 0 to 1 that holds for a minute.
fn chance(device: &str, of: &str, at: Wall) -> f64 {
    share(device, of, at.as_millis().div_euclid(60_000))
}

/// Returns a share from 0 to 1 that only depends on its arguments (FNV-1a, and a final mix for its upper bits).
fn share(device: &str, of: &str, n: i64) -> f64 {
    let bytes = device.bytes().chain([0]).chain(of.bytes()).chain([0]).chain(n.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    /// 2026-11-20 10:00 UTC.
    const BEGAN: Wall = Wall::from_millis(1_795_168_800_000);

    fn world() -> World {
        World::new(BEGAN)
    }

    fn at_hour(hour: i64) -> Wall {
        Wall::from_millis(BEGAN.as_millis() + hour * 3_600_000)
    }

    /// The falls of a curve by more than half a tooth within an hour, as hours from the start.
    fn purges(device: &str, hours: std::ops::Range<i64>) -> Vec<i64> {
        let world = world();
        let value = |hour| world.value(device, "disk", at_hour(hour));
        hours.filter(|hour| value(*hour) < value(hour - 1) - TOOTH / 2.0).collect()
    }

    #[test]
    fn a_disk_is_purged_once_a_day_and_one_is_not_any_more() {
        let all = -29 * 24..2 * 24;
        let usual = purges("cam-04", all.clone());
        assert_eq!(usual.len(), 31);
        assert!(usual.windows(2).all(|two| two[1] - two[0] == 24), "{usual:?}");
        let stopped = purges(story::PURGE_STOPS_ON, all);
        let last = *stopped.last().expect("it was purged once");
        assert!((-4 * 24..=-3 * 24).contains(&last), "{last}");
        let longer: Vec<i64> = usual.into_iter().filter(|hour| *hour <= last).collect();
        assert_eq!(stopped, longer, "until then on the same nights");
    }

    #[test]
    fn a_disk_without_purge_reaches_its_planned_level_and_grows_on() {
        let world = world();
        let value = |hour| world.value("cam-05", "disk", at_hour(hour));
        assert!((value(0) - 97.0).abs() < 1e-6, "{}", value(0));
        assert!(value(5) > value(0) && value(24 * 30) == FULL);
        let before: Vec<f64> = (-29 * 24..-4 * 24).map(value).collect();
        assert!(before.iter().all(|used| (50.0..80.0).contains(used)), "it warned of nothing before");
    }

    #[test]
    fn problems_of_the_present_began_in_the_past_and_stay() {
        let world = world();
        let table = [
            ("cam-02", "temperature", 71.5, 74.0),
            ("cam-11", "temperature", 63.0, 65.5),
            ("cam-12", "temperature", 78.0, 80.5),
            ("cam-04", "disk", 82.0, 92.0),
            ("cam-05", "disk", 97.0, 100.0),
            ("cam-15", "memory", 98.0, 99.0),
        ];
        for (device, sensor, least, most) in table {
            for hour in 0..72 {
                let value = world.value(device, sensor, at_hour(hour));
                assert!((least..most).contains(&value), "{device} {sensor} at {hour} h: {value}");
            }
        }
        for (device, sensor, most) in
            [("cam-02", "temperature", 50.0), ("cam-15", "memory", 40.0), ("cam-09", "file_age", 64.0)]
        {
            assert!(world.value(device, sensor, at_hour(-25 * 24)) < most, "{device} was well");
        }
        assert!(world.value("cam-09", "file_age", BEGAN) >= 2_400.0);
    }

    #[test]
    fn the_start_of_the_demo_is_no_step() {
        let world = world();
        let around = [BEGAN - Duration::from_secs(5), BEGAN + Duration::from_secs(5)];
        for (device, sensor) in
            [("cam-02", "temperature"), ("cam-04", "disk"), ("cam-05", "disk"), ("cam-15", "memory")]
        {
            let [before, after] = around.map(|at| world.value(device, sensor, at));
            assert!((before - after).abs() < 0.05, "{device} {sensor}: {before} {after}");
        }
    }

    #[test]
    fn a_site_and_its_devices_are_down_for_three_hours_on_the_last_day() {
        let world = world();
        let down = |device: &str, hour| world.down_since(device, at_hour(hour)).is_some();
        let hours: Vec<i64> = (-24..0).filter(|hour| down("cam-04", *hour)).collect();
        assert_eq!(hours.len(), 3, "{hours:?}");
        assert!(hours.iter().all(|hour| down("gw-harbour", *hour) && !down("cam-05", *hour)));
        assert!(!down("cam-04", 0) && !down("cam-04", 24));
        assert!(world.devices.keys().all(|device| world.down_since(device, BEGAN).is_none()));
    }

    #[test]
    fn noise_is_the_same_each_time_differs_between_devices_and_has_no_steps() {
        let at = |second: i64| Wall::from_millis(BEGAN.as_millis() + second * 1_000);
        let curve = |device: &str| (0..7_200).map(|s| noise(device, "x", at(s))).collect::<Vec<_>>();
        let one = curve("cam-01");
        assert_eq!(one, curve("cam-01"));
        assert_ne!(one, curve("cam-02"));
        assert!(one.windows(2).all(|two| (two[0] - two[1]).abs() < 0.01));
        assert!(one.iter().all(|value| value.abs() <= 1.0));
        let rtt = world().rtt("cam-06", at(0));
        assert!(rtt > Duration::ZERO && rtt < HOUR);
    }
}
