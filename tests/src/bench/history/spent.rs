//! What a stretch of work costs: CPU time, and bytes that go to the disk.

use std::fs;
use std::ops::{Add, Sub};
use std::time::Duration;

use super::super::process_cpu;

/// The costs of this process since its begin, or the difference of two such readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu: Duration,
    /// Bytes that the kernel writes to the disk. There are none for a file system in memory.
    pub written: u64,
}

impl Spent {
    pub fn now() -> Spent {
        Spent { cpu: process_cpu(), written: written() }
    }

    pub fn micros_of(&self, samples: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / samples as f64
    }

    pub fn bytes_of(&self, samples: u64) -> f64 {
        self.written as f64 / samples as f64
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
        }
    }
}

impl Add for Spent {
    type Output = Spent;

    fn add(self, other: Spent) -> Spent {
        Spent { cpu: self.cpu + other.cpu, written: self.written + other.written }
    }
}

fn written() -> u64 {
    field(&fs::read_to_string("/proc/self/io").unwrap_or_default(), "write_bytes:")
}

/// Returns a field of `/proc/self/status` such as `VmRSS`, in bytes.
pub fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, &format!("{name}:")) * 1_024
}

/// Lets `VmHWM`, the peak of the memory, begin anew.
pub fn forget_peak() {
    // Where this is not allowed, the peak is that of the whole process, which is more.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
