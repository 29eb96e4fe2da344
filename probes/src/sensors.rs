//! The built-in agentless checks: one POSIX script, run once per device and interval.

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
    /// The hottest thermal zone or hwmon input, or a named one.
    Temperature {
        name: Option<String>,
    },
    Processes {
        name: Option<String>,
    },
    /// Age of a file, or of the newest file in a folder.
    FileAge {
        path: String,
    },
}
