//! Rolling up: samples become buckets, and buckets wider ones.
//!
//! A bucket has its least, greatest and last value and their sum, so that an average is a sum by a count
//! and never a mean of means. A counter becomes rates first; across a reset the rate is unknown.
//!
//! A sample covers the time since the sample before it, unless that is longer than the series' reach. A gap
//! covers nothing, and neither does an interval without a rate.

use std::cmp::{max, min};
use std::collections::{BTreeMap, BTreeSet};

use super::decimal::{self, Scaled};
use super::{DAY, HOUR, Point, Second, SeriesKind, latest};

/// How much longer than usual an interval may be: two samples in a row may be lost.
const USUAL_TIMES: Second = 3;
const LEAST_REACH: Second = 10;
const GREATEST_REACH: Second = 3 * HOUR;
/// Digits of a rate. Counters step by whole numbers in whole seconds, so more would be noise.
const RATE_DIGITS: u32 = 6;

/// The values of a series within `[at, at + width)`; one value at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub at: Second,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    /// Samples with a value.
    pub count: u32,
    pub last: f64,
    /// Seconds of the bucket that no sample covers. What the first sample of the next day covers of this
    /// one does not count.
    pub unknown_s: u32,
}

/// Returns what the samples mean, at the same times: values as they are, or rates per second. `before`: the
/// last sample before the first of `points`.
pub fn values(points: &[Point], before: Option<Point>, kind: SeriesKind, reach: Second) -> Vec<Point> {
    let meaning = |(from, to): (Option<Point>, Point)| Point {
        value: match kind {
            SeriesKind::Gauge => finite(to).map(|v| decimal::kept(v, SeriesKind::Gauge)),
            SeriesKind::Counter => from.and_then(|from| rate(from, to, reach)),
        },
        ..to
    };
    with_predecessors(points, before).map(meaning).collect()
}

/// Returns the longest interval that a sample covers: three times the usual one of these samples, which are
/// those of a day. 0 for fewer than two.
pub fn reach(points: &[Point]) -> Second {
    let mut intervals: Vec<Second> =
        points.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at)).collect();
    let Some(middle) = intervals.len().checked_sub(1).map(|last| last / 2) else { return 0 };
    let (_, median, _) = intervals.select_nth_unstable(middle);
    median.saturating_mul(USUAL_TIMES).clamp(LEAST_REACH, GREATEST_REACH)
}

/// Returns buckets of `width` (a divisor of a day) over the samples of one series and day, which are in
/// order of time. One that has no value is absent.
pub fn roll_up(points: &[Point], before: Option<Point>, kind: SeriesKind, width: Second) -> Vec<Bucket> {
    let (reach, width) = (reach(points), max(width, 1));
    let values = values(points, before, kind, reach);
    let mut buckets = filled(&values, width);
    let mut end = 0;
    for ((from, to), value) in with_predecessors(points, before).zip(&values) {
        end += buckets[end..].iter().take_while(|b| b.at <= to.at).count();
        let covering = from.filter(|from| value.value.is_some() && is_within(*from, to, reach));
        if let Some(from) = covering {
            cover(&mut buckets[..end], width, from.at, to.at);
        }
    }
    buckets
}

/// Merges buckets that are `from` wide into buckets that are `to` wide; absent parts count as unknown.
pub fn merge(buckets: &[Bucket], from: Second, to: Second) -> Vec<Bucket> {
    let to = max(to, 1);
    let of_one = |a: &Bucket, b: &Bucket| a.at.div_euclid(to) == b.at.div_euclid(to);
    buckets.chunk_by(of_one).filter_map(|parts| joined(parts, from, to)).collect()
}

/// Merges two lists in order of time; newer buckets take the place of older ones of the same time.
pub fn replaced(older: &[Bucket], newer: &[Bucket]) -> Vec<Bucket> {
    latest(older, newer, |bucket| bucket.at)
}

/// Merges two lists as [`replaced`] does. The days that begin at `days` are taken from `newer` alone: a late sample may
/// have made a bucket unknown that is still in `older`. Days before `whole_from` have lost samples that `older` may
/// still count: of them [`fuller`] takes what says more.
pub fn replaced_days(
    older: &[Bucket],
    newer: &[Bucket],
    days: &BTreeSet<Second>,
    whole_from: Second,
) -> Vec<Bucket> {
    let lossy = |buckets: &[Bucket]| buckets.partition_point(|bucket| bucket.at < whole_from);
    let (lossy_older, older) = older.split_at(lossy(older));
    let (lossy_newer, newer) = newer.split_at(lossy(newer));
    let stays = |bucket: &&Bucket| !days.contains(&start(bucket.at, DAY));
    let mut all = fuller(lossy_older, lossy_newer);
    all.extend(replaced(&older.iter().filter(stays).copied().collect::<Vec<_>>(), newer));
    all
}

/// Merges two lists in order of time. Of two buckets of the same time the one with more samples counts, and of as many
/// the newer one.
pub fn fuller(older: &[Bucket], newer: &[Bucket]) -> Vec<Bucket> {
    let counts: BTreeMap<Second, u32> = older.iter().map(|bucket| (bucket.at, bucket.count)).collect();
    let counts_more = |bucket: &&Bucket| counts.get(&bucket.at).is_none_or(|count| *count <= bucket.count);
    replaced(older, &newer.iter().filter(counts_more).copied().collect::<Vec<_>>())
}

/// Returns each sample with the one before it.
fn with_predecessors(
    points: &[Point],
    before: Option<Point>,
) -> impl Iterator<Item = (Option<Point>, Point)> + '_ {
    let predecessors = std::iter::once(before).chain(points.iter().copied().map(Some));
    predecessors.zip(points.iter().copied())
}

fn finite(point: Point) -> Option<f64> {
    point.value.filter(|v| v.is_finite())
}

fn is_within(from: Point, to: Point, reach: Second) -> bool {
    (1..=reach).contains(&to.at.saturating_sub(from.at))
}

/// Returns the rate per second between two samples. It is unknown if the counter fell.
fn rate(from: Point, to: Point, reach: Second) -> Option<f64> {
    let (a, b) = (finite(from)?, finite(to)?);
    let is_known = b >= a && is_within(from, to, reach);
    let rate = decimal::significant((b - a) / to.at.saturating_sub(from.at) as f64, RATE_DIGITS);
    (is_known && rate.is_finite()).then(|| decimal::kept(rate, SeriesKind::Gauge))
}

/// Returns the buckets of the values there are, covered by nothing.
fn filled(points: &[Point], width: Second) -> Vec<Bucket> {
    let known: Vec<(Second, f64)> =
        points.iter().filter_map(|p| Some((start(p.at, width), p.value?))).collect();
    let values: Vec<f64> = known.iter().map(|(_, value)| *value).collect();
    let scaled = decimal::scaled(&values, SeriesKind::Gauge);
    let mut first = 0;
    let bucket = |part: &[(Second, f64)]| {
        let range = first..first + part.len();
        first = range.end;
        let (at, last) = *part.last()?;
        let sum = match &scaled {
            Scaled::Decimal { exponent, mantissas } => decimal::sum_of(&mantissas[range], *exponent),
            Scaled::Float(_) => decimal::sum(part.iter().map(|(_, v)| *v)),
        };
        let empty = Bucket { at, min: last, max: last, sum, count: 0, last, unknown_s: seconds(width) };
        Some(part.iter().fold(empty, |b, (_, v)| Bucket {
            min: b.min.min(*v),
            max: b.max.max(*v),
            count: b.count + 1,
            ..b
        }))
    };
    known.chunk_by(|a, b| a.0 == b.0).filter_map(bucket).collect()
}

/// Takes the interval `[from, to)` off the unknown time of the buckets, which begin at `to` or before.
fn cover(buckets: &mut [Bucket], width: Second, from: Second, to: Second) {
    for bucket in buckets.iter_mut().rev().take_while(|b| b.at.saturating_add(width) > from) {
        let covered = min(to, bucket.at.saturating_add(width)) - max(from, bucket.at);
        bucket.unknown_s = bucket.unknown_s.saturating_sub(seconds(covered));
    }
}

fn joined(parts: &[Bucket], from: Second, to: Second) -> Option<Bucket> {
    let (first, last) = (parts.first()?, parts.last()?);
    let present = from.saturating_mul(parts.len() as Second);
    let unknown = parts.iter().fold(seconds(to - present), |sum, b| sum.saturating_add(b.unknown_s));
    Some(Bucket {
        at: start(first.at, to),
        min: parts.iter().fold(first.min, |least, b| least.min(b.min)),
        max: parts.iter().fold(first.max, |greatest, b| greatest.max(b.max)),
        sum: decimal::sum(parts.iter().map(|b| b.sum)),
        count: parts.iter().fold(0u32, |sum, b| sum.saturating_add(b.count)),
        last: last.last,
        unknown_s: unknown,
    })
}

fn start(at: Second, width: Second) -> Second {
    at.div_euclid(width) * width
}

fn seconds(length: Second) -> u32 {
    u32::try_from(length.max(0)).unwrap_or(u32::MAX)
}
