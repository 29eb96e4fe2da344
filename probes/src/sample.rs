//! What a check yields: a status and metrics.

use crate::range::Range;

/// A service's status. The order is that of severity for people: OK, WARNING, UNKNOWN, CRITICAL
/// is not it; this is the order of the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::Unknown => "unknown",
        }
    }
}

/// One value of one result. `value` is `None` where the plugin said `U`: a gap, never 0.
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
    pub fn plain(label: &str, value: f64, uom: &str) -> Self {
        Metric {
            label: label.to_owned(),
            value: Some(value),
            uom: uom.to_owned(),
            warn: None,
            crit: None,
            min: None,
            max: None,
        }
    }
}
