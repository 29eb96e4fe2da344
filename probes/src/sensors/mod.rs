//! The built-in agentless checks: one POSIX script, run once per device and interval.
//!
//! The request runs in any POSIX shell, the parser accepts any output, and the result is in plain
//! words. Nothing is installed on the device. The module knows neither how the text gets there nor
//! when.

mod answer;
mod capture;
mod functions;
mod script;
#[cfg(test)]
mod shells;
mod verdict;

pub use answer::{BadAnswer, MAX_VALUES, Reading, Value, parse, render};
pub use capture::{Capture, Freshness, Plan, Schedule};
pub use script::{MAX_SCRIPT, MAX_SENSORS, parse_request, script};
pub use verdict::{judge, unanswered};

/// Longest path or name in bytes: `NAME_MAX` of Linux. A request must have room for many of them.
pub const MAX_ARGUMENT: usize = 255;

/// A quantity that the script can read on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sensor {
    /// Used space of the file system that holds `path`.
    Disk {
        path: String,
    },
    /// File systems that turned read-only.
    Mounts,
    Load,
    Memory,
    Uptime,
    /// The hottest thermal zone or hwmon input, or a named one: zone type, chip, or `chip/label`.
    Temperature {
        name: Option<String>,
    },
    /// All processes, or those of one name (of which the kernel keeps 15 bytes).
    Processes {
        name: Option<String>,
    },
    /// Age of a file, or of the newest file directly in a folder; hidden files are ignored.
    FileAge {
        path: String,
    },
    /// Devices on USB: `vendor:product` in hexadecimal, `class:HH` of an interface, or a part of
    /// their name.
    Usb {
        name: String,
    },
    /// Logged-in users.
    Users,
    /// The share of one second that the processors were busy.
    Cpu,
    /// Traffic of an interface; absent: the one with the default route.
    Traffic {
        name: Option<String>,
    },
    /// Files and bytes of the last 24 hours in a folder and below.
    Daily {
        path: String,
    },
    /// A file with a line `name value unit` for each value, such as a sensor board's.
    Values {
        path: String,
    },
    /// Whether the newest file directly in a folder came in time.
    Capture(Capture),
}

/// Every kind that the script knows.
const KINDS: &str = "disk, mounts, load, memory, uptime, temperature, processes, file_age, usb, users, cpu, traffic, \
                     daily or values";

/// The reason why the input is not a sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSensor {
    #[error("there is no sensor {0:?}: use {KINDS}")]
    Kind(String),
    #[error("sensor usb needs a name: give vendor:product, class:HH or a part of the device's name")]
    NoName,
    #[error("sensor {0} needs a path: give an absolute one, such as /var")]
    NoPath(&'static str),
    #[error("path {0:?} is not absolute: begin it with /")]
    Relative(String),
    #[error("sensor {0} takes no argument: leave it out")]
    Argument(&'static str),
    #[error("the argument of sensor {0} is longer than {MAX_ARGUMENT} bytes or holds a zero byte")]
    Unusable(&'static str),
}

impl Sensor {
    /// Reads a sensor from its kind and argument, as [`Sensor::kind`] and [`Sensor::argument`] give
    /// them and as configuration and store hold them.
    ///
    /// # Errors
    /// Fails for an unknown kind, and for a missing, surplus or unusable argument.
    pub fn from_parts(kind: &str, argument: Option<&str>) -> Result<Sensor, BadSensor> {
        let owned = argument.map(str::to_owned);
        let sensor = match (kind, argument) {
            ("disk", _) => Sensor::Disk { path: absolute("disk", argument)? },
            ("daily", _) => Sensor::Daily { path: absolute("daily", argument)? },
            ("values", _) => Sensor::Values { path: absolute("values", argument)? },
            ("traffic", _) => Sensor::Traffic { name: owned.filter(|name| !name.is_empty()) },
            ("usb", Some(name)) if !name.is_empty() => Sensor::Usb { name: name.to_owned() },
            ("usb", _) => return Err(BadSensor::NoName),
            ("mounts", None) => Sensor::Mounts,
            ("mounts", _) => return Err(BadSensor::Argument("mounts")),
            ("users", None) => Sensor::Users,
            ("cpu", None) => Sensor::Cpu,
            ("users", _) => return Err(BadSensor::Argument("users")),
            ("cpu", _) => return Err(BadSensor::Argument("cpu")),
            ("file_age", _) => Sensor::FileAge { path: absolute("file_age", argument)? },
            ("temperature", _) => Sensor::Temperature { name: owned.filter(|name| !name.is_empty()) },
            ("processes", _) => Sensor::Processes { name: owned.filter(|name| !name.is_empty()) },
            ("load", None) => Sensor::Load,
            ("memory", None) => Sensor::Memory,
            ("uptime", None) => Sensor::Uptime,
            ("load", _) => return Err(BadSensor::Argument("load")),
            ("memory", _) => return Err(BadSensor::Argument("memory")),
            ("uptime", _) => return Err(BadSensor::Argument("uptime")),
            _ => return Err(BadSensor::Kind(crate::words::line(kind, 40))),
        };
        let unusable = argument.is_some_and(|a| a.len() > MAX_ARGUMENT || a.contains('\0'));
        if unusable { Err(BadSensor::Unusable(sensor.kind())) } else { Ok(sensor) }
    }

    /// Returns the name of the quantity: `disk`, `file_age`, ...
    pub const fn kind(&self) -> &'static str {
        match self {
            Sensor::Disk { .. } => "disk",
            Sensor::Mounts => "mounts",
            Sensor::Load => "load",
            Sensor::Memory => "memory",
            Sensor::Uptime => "uptime",
            Sensor::Temperature { .. } => "temperature",
            Sensor::Processes { .. } => "processes",
            Sensor::FileAge { .. } => "file_age",
            Sensor::Usb { .. } => "usb",
            Sensor::Users => "users",
            Sensor::Cpu => "cpu",
            Sensor::Traffic { .. } => "traffic",
            Sensor::Daily { .. } => "daily",
            Sensor::Values { .. } => "values",
            Sensor::Capture(_) => "capture",
        }
    }

    /// Returns the kind that the script is requested with: the newest picture is the newest file.
    const fn asked(&self) -> &'static str {
        match self {
            Sensor::Capture(_) => "file_age",
            other => other.kind(),
        }
    }

    pub fn argument(&self) -> Option<&str> {
        match self {
            Sensor::Disk { path }
            | Sensor::FileAge { path }
            | Sensor::Daily { path }
            | Sensor::Values { path }
            | Sensor::Capture(Capture { path, .. }) => Some(path),
            Sensor::Temperature { name } | Sensor::Processes { name } | Sensor::Traffic { name } => {
                name.as_deref()
            }
            Sensor::Usb { name } => Some(name),
            Sensor::Mounts | Sensor::Load | Sensor::Memory | Sensor::Uptime | Sensor::Users | Sensor::Cpu => {
                None
            }
        }
    }
}

fn absolute(kind: &'static str, path: Option<&str>) -> Result<String, BadSensor> {
    match path {
        None | Some("") => Err(BadSensor::NoPath(kind)),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(path) => Err(BadSensor::Relative(crate::words::line(path, 80))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_survives_its_parts() {
        let sensors = [
            Sensor::Disk { path: "/a b".into() },
            Sensor::Mounts,
            Sensor::Load,
            Sensor::Memory,
            Sensor::Uptime,
            Sensor::Temperature { name: None },
            Sensor::Temperature { name: Some("cpu".into()) },
            Sensor::Processes { name: Some("sshd".into()) },
            Sensor::FileAge { path: "/x".into() },
            Sensor::Usb { name: "04a9:32c5".into() },
            Sensor::Users,
            Sensor::Cpu,
            Sensor::Traffic { name: Some("wwan0".into()) },
            Sensor::Daily { path: "/pictures".into() },
            Sensor::Values { path: "/run/board".into() },
        ];
        for sensor in sensors {
            assert_eq!(Sensor::from_parts(sensor.kind(), sensor.argument()), Ok(sensor));
        }
    }

    #[test]
    fn what_is_no_sensor_is_refused_with_advice() {
        let long = format!("/{}", "x".repeat(MAX_ARGUMENT));
        let table = [
            ("nose", None, "use disk, mounts"),
            ("disk", None, "needs a path"),
            ("disk", Some("var"), "begin it with /"),
            ("load", Some("x"), "takes no argument"),
            ("file_age", Some(&long[..]), "longer than 255"),
            ("processes", Some("a\0b"), "zero byte"),
        ];
        for (kind, argument, advice) in table {
            let refused = Sensor::from_parts(kind, argument).expect_err(kind).to_string();
            assert!(refused.contains(advice), "{refused}");
        }
    }
}
