//! How a time is divided.

use std::ops::AddAssign;

/// The state of a host or a service at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Up,
    Down,
    Ok,
    Warning,
    Critical,
    Unknown,
    /// The host of this service is DOWN.
    HostDown,
    GatewayStopped,
    UplinkLost,
    Unreachable,
    /// There is no result yet, or none any more.
    NoData,
}

impl Condition {
    pub const ALL: [Condition; 11] = [
        Condition::Up,
        Condition::Down,
        Condition::Ok,
        Condition::Warning,
        Condition::Critical,
        Condition::Unknown,
        Condition::HostDown,
        Condition::GatewayStopped,
        Condition::UplinkLost,
        Condition::Unreachable,
        Condition::NoData,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Down => "down",
            Condition::Ok => "ok",
            Condition::Warning => "warning",
            Condition::Critical => "critical",
            Condition::Unknown => "unknown",
            Condition::HostDown => "host_down",
            Condition::GatewayStopped => "gateway_stopped",
            Condition::UplinkLost => "uplink_lost",
            Condition::Unreachable => "unreachable",
            Condition::NoData => "no_data",
        }
    }

    /// Whether the state is known. The state UNKNOWN of a service is: its check ran and failed.
    pub const fn is_known(self) -> bool {
        !matches!(
            self,
            Condition::GatewayStopped | Condition::UplinkLost | Condition::Unreachable | Condition::NoData
        )
    }

    pub const fn is_available(self) -> bool {
        matches!(self, Condition::Up | Condition::Ok | Condition::Warning)
    }
}

/// Milliseconds by condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares([u64; Condition::ALL.len()]);

impl Shares {
    pub fn of(&self, condition: Condition) -> u64 {
        self.0[condition as usize]
    }

    pub fn known(&self) -> u64 {
        self.sum_of(Condition::is_known)
    }

    pub fn available(&self) -> u64 {
        self.sum_of(Condition::is_available)
    }

    pub fn total(&self) -> u64 {
        self.sum_of(|_| true)
    }

    /// Returns the available part of the known time, from 0 to 1. `None` if no time is known.
    pub fn availability(&self) -> Option<f64> {
        let known = self.known();
        (known > 0).then(|| self.available() as f64 / known as f64)
    }

    fn sum_of(&self, counts: impl Fn(Condition) -> bool) -> u64 {
        Condition::ALL.into_iter().filter(|condition| counts(*condition)).map(|c| self.of(c)).sum()
    }
}

impl AddAssign for Shares {
    fn add_assign(&mut self, other: Shares) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

/// The time in maintenance and the time outside of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub normal: Shares,
    pub maintenance: Shares,
}

impl Sums {
    /// Returns all time, with maintenance.
    pub fn all(&self) -> Shares {
        let mut all = self.normal;
        all += self.maintenance;
        all
    }

    pub(super) fn add(&mut self, condition: Condition, planned: bool, ms: u64) {
        let shares = if planned { &mut self.maintenance } else { &mut self.normal };
        shares.0[condition as usize] += ms;
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.normal += other.normal;
        self.maintenance += other.maintenance;
    }
}
