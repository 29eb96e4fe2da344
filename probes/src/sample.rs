//! The result of a check: a status and metrics.
//!
//! The module has values only. It knows neither how they were obtained nor how they are used.

use std::time::Duration;

use crate::range::Range;

/// A service's status, ordered like the exit codes of plugins. [`Status::worst`] gives the more
/// severe one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    pub const ALL: [Status; 4] = [Status::Ok, Status::Warning, Status::Critical, Status::Unknown];

    /// Returns the lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::Unknown => "unknown",
        }
    }

    pub fn from_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Returns the exit code of plugins, 0 to 3.
    pub const fn exit_code(self) -> u8 {
        self as u8
    }

    /// Returns `None` for anything but 0 to 3: such a plugin ended abnormally.
    pub fn from_exit_code(code: u32) -> Option<Status> {
        Status::ALL.into_iter().find(|s| u32::from(s.exit_code()) == code)
    }

    /// Returns the more severe status: CRITICAL before UNKNOWN before WARNING before OK.
    #[must_use]
    pub fn worst(self, other: Status) -> Status {
        if other.severity() > self.severity() { other } else { self }
    }

    const fn severity(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::Warning => 1,
            Status::Unknown => 2,
            Status::Critical => 3,
        }
    }
}

/// One value of one result. `value` is `None` if the plugin printed `U`: a gap, never 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub label: String,
    pub value: Option<f64>,
    /// Unit of measurement as given: `s`, `ms`, `%`, `B`, `c`, ... or empty.
    pub uom: String,
    pub warn: Option<Range>,
    pub crit: Option<Range>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Metric {
    /// Makes a metric. A number too large for a double becomes a gap.
    pub fn plain(label: &str, value: f64, uom: &str) -> Self {
        Metric { value: Some(value).filter(|v| v.is_finite()), ..Metric::gap(label, uom) }
    }

    /// Makes a metric that has no value this time.
    pub fn gap(label: &str, uom: &str) -> Self {
        Metric {
            label: label.to_owned(),
            value: None,
            uom: uom.to_owned(),
            warn: None,
            crit: None,
            min: None,
            max: None,
        }
    }

    /// Makes a share of a whole: unit `%`, 0 to 100.
    pub fn percent(label: &str, value: f64) -> Self {
        Metric { min: Some(0.0), max: Some(100.0), ..Metric::plain(label, value, "%") }
    }

    /// Makes a quantity that is never negative.
    pub fn amount(label: &str, value: f64, uom: &str) -> Self {
        Metric { min: Some(0.0), ..Metric::plain(label, value, uom) }
    }

    /// Makes a duration in s, to the microsecond.
    pub fn seconds(label: &str, time: Duration) -> Self {
        Metric::amount(label, micros(time) / 1e6, "s")
    }

    /// Makes a duration in ms, to the microsecond.
    pub fn millis(label: &str, time: Duration) -> Self {
        Metric::amount(label, micros(time) / 1e3, "ms")
    }
}

/// Rounds to whole microseconds. No scheduler is more exact, and digits of noise would take most of the
/// room of the history.
fn micros(time: Duration) -> f64 {
    (time.as_nanos().saturating_add(500) / 1_000) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_the_microsecond() {
        let time = Duration::from_nanos(12_345_678);
        assert_eq!(Metric::millis("rtt", time).value, Some(12.346));
        assert_eq!(Metric::seconds("time", time).value, Some(0.012346));
        assert_eq!(Metric::seconds("time", Duration::from_nanos(499)).value, Some(0.0));
        assert!(Metric::seconds("age", Duration::MAX).value.is_some());
    }

    #[test]
    fn names_and_exit_codes_lead_back_to_the_status() {
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.name()), Some(status));
            assert_eq!(Status::from_exit_code(status.exit_code().into()), Some(status));
        }
        assert_eq!(Status::from_name("OK"), None);
        assert_eq!(Status::from_exit_code(4), None);
    }

    #[test]
    fn critical_is_worse_than_unknown_and_unknown_worse_than_warning() {
        use Status::*;
        assert_eq!(Unknown.worst(Critical), Critical);
        assert_eq!(Critical.worst(Unknown), Critical);
        assert_eq!(Warning.worst(Unknown), Unknown);
        assert_eq!(Ok.worst(Warning), Warning);
    }
}
