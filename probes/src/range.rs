//! Nagios threshold ranges, parsed strictly: `[@][start:][end]`.

/// A range as an operator wrote it. Alerts when a value is outside `[start, end]`, or, with
/// `inside`, within it; both ends inclusive, no tolerance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: f64,
    pub end: f64,
    pub inside: bool,
}

/// Critical is asked first, then warning; an unset one never alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    pub warn: Option<Range>,
    pub crit: Option<Range>,
}
