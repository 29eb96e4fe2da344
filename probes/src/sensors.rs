//! The built-in agentless checks: one POSIX script, run once per device and interval.
//!
//! Promises a request that any POSIX shell answers, a parser for whatever comes back, and a result
//! in plain words. Nothing is installed on the device. Does not know how the text gets there, nor
//! when.

mod answer;
mod script;
#[cfg(test)]
mod shells;
mod verdict;

pub use answer::{BadAnswer, MAX_VALUES, Reading, Value, parse, render};
pub use script::{MAX_SCRIPT, MAX_SENSORS, parse_request, script};
pub use verdict::{judge, unanswered};

/// Longest path or name in bytes: `NAME_MAX` of Linux, and it must fit a request many times.
pub const MAX_ARGUMENT: usize = 255;

/// One thing that the script can read on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sensor {
    /// Used space of the file system that holds `path`.
    Disk {
        path: String,
    },
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
    /// Age of a file, or of the newest file right in a folder; hidden files are left out.
    FileAge {
        path: String,
    },
}

/// Why something is not a sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSensor {
    #[error("there is no sensor {0:?}: use disk, load, memory, uptime, temperature, processes or file_age")]
    Kind(String),
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
    /// An unknown kind; a missing, surplus or unusable argument.
    pub fn from_parts(kind: &str, argument: Option<&str>) -> Result<Sensor, BadSensor> {
        let owned = argument.map(str::to_owned);
        let sensor = match (kind, argument) {
            ("disk", _) => Sensor::Disk { path: absolute("disk", argument)? },
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

    /// The name of what is read: `disk`, `file_age`, ...
    pub const fn kind(&self) -> &'static str {
        match self {
            Sensor::Disk { .. } => "disk",
            Sensor::Load => "load",
            Sensor::Memory => "memory",
            Sensor::Uptime => "uptime",
            Sensor::Temperature { .. } => "temperature",
            Sensor::Processes { .. } => "processes",
            Sensor::FileAge { .. } => "file_age",
        }
    }

    pub fn argument(&self) -> Option<&str> {
        match self {
            Sensor::Disk { path } | Sensor::FileAge { path } => Some(path),
            Sensor::Temperature { name } | Sensor::Processes { name } => name.as_deref(),
            Sensor::Load | Sensor::Memory | Sensor::Uptime => None,
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
            Sensor::Load,
            Sensor::Memory,
            Sensor::Uptime,
            Sensor::Temperature { name: None },
            Sensor::Temperature { name: Some("cpu".into()) },
            Sensor::Processes { name: Some("sshd".into()) },
            Sensor::FileAge { path: "/x".into() },
        ];
        for sensor in sensors {
            assert_eq!(Sensor::from_parts(sensor.kind(), sensor.argument()), Ok(sensor));
        }
    }

    #[test]
    fn what_is_no_sensor_is_refused_with_advice() {
        let long = format!("/{}", "x".repeat(MAX_ARGUMENT));
        let table = [
            ("nose", None, "use disk, load"),
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
