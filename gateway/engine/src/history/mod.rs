//! The history of metrics: samples, buckets of them, and the blocks of bytes in which both are stored.
//!
//! Everything here is a function of numbers. It knows no files, no tables and no clock, and a series is
//! only a number.
//!
//! A value that is not finite is no value. Each other value is kept as one decimal number
//! ([`decimal`]), which depends on the value alone, so that a sample that is in memory, in the redo or in
//! a block reads the same.

pub mod block;
mod column;
pub mod decimal;
mod differences;
pub mod packed;
pub mod query;
pub mod rollup;
mod sparkline;
mod varint;

#[cfg(test)]
mod tests;

/// Seconds since 1970.
pub type Second = i64;

pub const HOUR: Second = 3_600;
pub const DAY: Second = 86_400;
/// The width of the narrowest buckets that are stored.
pub const BUCKET: Second = 300;

/// A sample of one metric; `None` is a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub at: Second,
    pub value: Option<f64>,
}

/// The meaning of the values of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    Gauge,
    /// A number that only grows until it begins again; its rate is shown.
    Counter,
}

impl SeriesKind {
    /// Returns the kind of a unit of measurement as plugins print it.
    pub fn of(uom: &str) -> SeriesKind {
        if uom == "c" { SeriesKind::Counter } else { SeriesKind::Gauge }
    }
}

/// Merges two lists in order of time; of equal seconds `newer` counts.
pub fn merged(older: &[Point], newer: &[Point]) -> Vec<Point> {
    latest(older, newer, |point| point.at)
}

/// Sorts by time; of equal seconds the last in the list counts.
pub fn ordered(points: Vec<Point>) -> Vec<Point> {
    sorted(points, |point| point.at)
}

/// Sorts by time; of equal times the last in the list counts.
fn sorted<T: Copy>(mut list: Vec<T>, at: impl Fn(&T) -> Second) -> Vec<T> {
    list.sort_by_key(&at);
    list.dedup_by(|later, kept| {
        let is_same = at(later) == at(kept);
        if is_same {
            *kept = *later;
        }
        is_same
    });
    list
}

/// Merges two lists in order of time; of equal times `newer` counts.
fn latest<T: Copy>(mut older: &[T], mut newer: &[T], at: impl Fn(&T) -> Second) -> Vec<T> {
    let mut all = Vec::with_capacity(older.len() + newer.len());
    while let (Some((old, old_rest)), Some((new, new_rest))) = (older.split_first(), newer.split_first()) {
        let (old_at, new_at) = (at(old), at(new));
        all.push(if old_at < new_at { *old } else { *new });
        older = if old_at <= new_at { old_rest } else { older };
        newer = if new_at <= old_at { new_rest } else { newer };
    }
    all.extend_from_slice(older);
    all.extend_from_slice(newer);
    all
}
