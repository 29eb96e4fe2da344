//! The sensor values of a simulated device, and a way to change them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleetgate_probes::sensors::{Reading, Sensor, parse_request, render};

use super::past::world::{HEALTHY, World, healthy};
use crate::clock;

const GIB: u64 = 1 << 30;
const DISK_BYTES: u64 = 64 * GIB;
const MEMORY_BYTES: u64 = 4 * GIB;
const CPUS: u32 = 4;
/// Pictures are few and large.
const INODES_USED: u32 = 90_000;
const INODES_FREE: u32 = 910_000;
const PICTURE_BYTES: u64 = 4_200_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no sensor is called {0:?}: use disk, mounts, load, memory, uptime, temperature, processes, file_age, usb, users, \
     cpu, traffic, daily or values"
)]
pub struct NoSensor(pub String);

/// Sensor values, one per kind, shared by a device and the control socket.
#[derive(Clone, Debug, Default)]
pub struct Sensors {
    /// The values that were set. They stay.
    set: Arc<Mutex<BTreeMap<&'static str, f64>>>,
    /// The world and the name of the device, which give the others. `None`: they are those of a healthy device.
    of: Option<(Arc<World>, &'static str)>,
}

impl Sensors {
    /// Returns the sensors of a device of the demo's fleet.
    pub fn of(world: Arc<World>, device: &'static str) -> Sensors {
        Sensors { set: Arc::default(), of: Some((world, device)) }
    }

    /// # Errors
    /// Fails when no sensor has that name.
    pub fn set(&self, name: &str, value: f64) -> Result<(), NoSensor> {
        let known = HEALTHY.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
        self.values().insert(known.ok_or_else(|| NoSensor(name.to_owned()))?, value);
        Ok(())
    }

    /// Returns the output of the device's shell for a command line; `None` when it is not the sensor
    /// script.
    pub fn answer(&self, line: &str) -> Option<String> {
        answer(line, |kind| self.value(kind))
    }

    fn value(&self, kind: &str) -> f64 {
        let set = self.values().get(kind).copied();
        set.unwrap_or_else(|| match &self.of {
            Some((world, device)) => world.value(device, kind, clock::wall()),
            None => healthy(kind),
        })
    }

    fn values(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, f64>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the output of a shell for a command line, where `value` gives the value of a kind of sensor; `None` when
/// it is not the sensor script.
pub(super) fn answer(line: &str, value: impl Fn(&str) -> f64) -> Option<String> {
    let asked = parse_request(line)?;
    let read = |(key, sensor): (String, Sensor)| {
        let reading = reading(&sensor, value(sensor.kind()));
        (key, reading)
    };
    let sections: Vec<_> = asked.into_iter().map(read).collect();
    Some(render(&sections))
}

fn reading(sensor: &Sensor, value: f64) -> Reading {
    let share = |total: u64| (total as f64 * (value / 100.0).clamp(0.0, 1.0)) as u64;
    match sensor {
        Sensor::Disk { .. } => {
            Reading::disk(DISK_BYTES, share(DISK_BYTES)).with_inodes(INODES_USED, INODES_FREE)
        }
        Sensor::Mounts => Reading::mounts(count(value)),
        Sensor::Load => Reading::load([value, value * 0.9, value * 0.8], CPUS),
        Sensor::Memory => Reading::memory(MEMORY_BYTES, MEMORY_BYTES - share(MEMORY_BYTES)),
        Sensor::Uptime => Reading::uptime(value),
        Sensor::Temperature { name } => Reading::temperature(value, name.as_deref().unwrap_or("cpu-thermal")),
        Sensor::Processes { .. } => Reading::processes(count(value)),
        Sensor::FileAge { .. } | Sensor::Capture(_) => Reading::file_age(value, "picture.jpg"),
        Sensor::Usb { .. } => Reading::count("devices", count(value)),
        Sensor::Users => Reading::count("users", count(value)),
        Sensor::Cpu => Reading::cpu(value.clamp(0.0, 100.0)),
        Sensor::Traffic { name } => {
            let name = name.as_deref().unwrap_or("wwan0");
            Reading::traffic(value.max(0.0) as u64, value.max(0.0) as u64 / 10, name)
        }
        Sensor::Daily { .. } => Reading::daily(count(value), u64::from(count(value)) * PICTURE_BYTES),
        Sensor::Values { .. } => Reading::of(&[
            ("age", 5.0, "s"),
            ("temperature", value, "C"),
            ("humidity", 48.0, "%"),
            ("pressure", 1_013.0, "hPa"),
            ("luminosity", 350.0, "lx"),
        ]),
    }
}

fn count(value: f64) -> u32 {
    value.clamp(0.0, 65_535.0) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use fleetgate_probes::range::Thresholds;
    use fleetgate_probes::sample::Status;
    use fleetgate_probes::sensors::{judge, parse, script};

    fn status(sensors: &Sensors, sensor: &Sensor, metric: &str, crit: &str) -> Status {
        let asked = script(&[("key".to_owned(), sensor.clone())], Duration::from_secs(10));
        let answer = parse(sensors.answer(&asked).expect("a request").as_bytes()).expect("an answer");
        let limits = Thresholds { warn: None, crit: Some(crit.parse().expect("a range")) };
        judge(sensor, &answer[0].1, jiff::Timestamp::UNIX_EPOCH, &[(metric.to_owned(), limits)]).status
    }

    #[test]
    fn a_sensor_that_is_set_is_what_the_script_finds() {
        let sensors = Sensors::default();
        let table = [
            (Sensor::Disk { path: "/".into() }, "used", "90"),
            (Sensor::Load, "load1", "8"),
            (Sensor::Memory, "used", "90"),
            (Sensor::Temperature { name: None }, "temperature", "-30:70"),
            (Sensor::FileAge { path: "/pictures".into() }, "age", "180"),
        ];
        for (sensor, metric, crit) in table {
            assert_eq!(status(&sensors, &sensor, metric, crit), Status::Ok);
            sensors.set(sensor.kind(), 95.0 * if metric == "age" { 10.0 } else { 1.0 }).expect("it");
            assert_eq!(status(&sensors, &sensor, metric, crit), Status::Critical, "{metric}");
        }
    }

    #[test]
    fn what_no_device_has_is_refused_and_other_commands_are_not_answered() {
        let sensors = Sensors::default();
        assert!(sensors.set("nose", 1.0).unwrap_err().to_string().contains("temperature"));
        assert_eq!(sensors.answer("uptime"), None);
    }
}
