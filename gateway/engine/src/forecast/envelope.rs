//! The upper envelope of the past: the peaks between the falls of a saw-tooth, or maxima where there is none.

use crate::history::{DAY, HOUR, Second};

use super::Hour;
use super::line::{Point, median};

/// A fall is a purge if it takes this share of the range of the past,
const LEAST_FALL: f64 = 0.3;
/// and this share of the room between the lowest value and full: small noise of a small range is none.
const LEAST_SHARE: f64 = 0.02;
/// within this time.
const FALL_TIME: Second = 3 * HOUR;
/// Peaks that support a line.
pub const LEAST_PEAKS: usize = 4;
/// More frequent falls do not show in hours.
const LEAST_PERIOD: Second = 6 * HOUR;
/// The least correlation of time and value between falls, for three of four. It fills slowly, while noise falls and
/// rises alike.
const LEAST_CORRELATION: f64 = 0.6;
/// The least share of a tooth that is lost within [`FALL_TIME`], usually. What falls slowly is a cycle.
const SHARP: f64 = 0.6;
/// The times whose usual range tells how high teeth are, if they are low against all of the past.
const USUAL_SPAN: Second = 2 * DAY;
/// Purges no longer come after this many of their usual periods,
const MISSED: Second = 3;
/// or after this much of the longest one, if it is higher than ever before.
const OVERDUE: f64 = 1.25;
/// How much higher, as a share of the range.
const HIGHER: f64 = 0.05;
/// From here on, maxima are those of whole days, so that what happens daily does not matter.
const DAILY_SPAN: Second = 8 * DAY;
/// The parts of a shorter past.
const PARTS: Second = 8;
/// A step is this many times the usual difference between neighbouring points, and this share of their range.
const STEP: f64 = 6.0;
const STEP_SHARE: f64 = 0.3;
/// Points on each side of a step that are compared, and the part of it that must remain between them.
const BESIDE_STEP: usize = 5;
const LASTING: f64 = 0.5;

/// The falls of the past, and the peaks before them.
#[derive(Clone, Debug)]
pub struct Teeth {
    pub peaks: Vec<Point>,
    falls: Vec<Second>,
    /// The index of the first hour after the last fall.
    rest: usize,
    pub last_fall: Second,
    /// The usual and the longest time between falls; 0 for fewer than two.
    pub period: Second,
    longest: Second,
    /// Whether most falls come after about the same time.
    pub is_regular: bool,
    correlation: f64,
    sharpness: f64,
    range: f64,
}

impl Teeth {
    /// Finds teeth that are high against all of the past, or else against its usual two days: a step, a slow growth or
    /// a purge that stopped widens the whole range.
    pub fn find(hours: &[Hour], full: f64) -> Teeth {
        let high = Teeth::against(range(hours), hours, full);
        if high.are_purges() {
            return high;
        }
        let low = Teeth::against(usual_range(hours), hours, full);
        if low.are_purges() { low } else { high }
    }

    fn against(scale: f64, hours: &[Hour], full: f64) -> Teeth {
        let low = hours.iter().fold(f64::INFINITY, |low, hour| low.min(hour.min));
        let least = (LEAST_FALL * scale).max(LEAST_SHARE * (full - low));
        let falls = falls(hours, least);
        let mut start = 0;
        let (mut peaks, mut correlations, mut sharpness) = (Vec::new(), Vec::new(), Vec::new());
        for fall in &falls {
            let tooth = &hours[start..=fall.first];
            peaks.extend(highest(tooth));
            correlations.push(correlation(tooth));
            sharpness.push(steepest(hours, fall.first) / range(tooth));
            start = fall.last + 1;
        }
        let times: Vec<Second> = falls.iter().map(|fall| hours[fall.first].at).collect();
        let mut intervals: Vec<Second> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        intervals.sort_unstable();
        let period = intervals.get(intervals.len() / 2).copied().unwrap_or(0);
        let usual = intervals.iter().filter(|interval| (**interval - period).abs() * 4 <= period).count();
        Teeth {
            peaks,
            rest: start,
            last_fall: times.last().copied().unwrap_or(Second::MIN),
            falls: times,
            period,
            longest: intervals.last().copied().unwrap_or(0),
            is_regular: usual * 10 >= intervals.len() * 7,
            // The past begins anywhere in the first tooth.
            sharpness: median(sharpness).unwrap_or(0.0),
            correlation: low_quartile(correlations.split_off(correlations.len().min(1))),
            range: scale,
        }
    }

    /// Whether the falls are purges of something that fills in between. A single one is a step.
    pub fn are_purges(&self) -> bool {
        let is_toothed = self.correlation >= LEAST_CORRELATION && self.sharpness >= SHARP;
        self.falls.len() > 1 && self.period >= LEAST_PERIOD && is_toothed
    }

    /// Returns the past since the last fall, if there was only one, or the next one did not come when it should.
    pub fn ended<'a>(&self, hours: &'a [Hour], newest: &Hour) -> Option<&'a [Hour]> {
        let since = newest.at.saturating_sub(self.last_fall);
        let ended = match self.falls.len() {
            0 => false,
            1 => true,
            _ if !self.are_purges() => false,
            _ => since > MISSED * self.period || self.is_overdue(since, newest),
        };
        if ended { hours.get(self.rest..) } else { None }
    }

    fn is_overdue(&self, since: Second, newest: &Hour) -> bool {
        let top = self.peaks.iter().fold(f64::NEG_INFINITY, |top, peak| top.max(peak.value));
        since as f64 > OVERDUE * self.longest as f64 && newest.max > top + HIGHER * self.range
    }
}

/// Returns the difference between the highest and the lowest value.
pub fn range(hours: &[Hour]) -> f64 {
    let top = hours.iter().fold(f64::NEG_INFINITY, |top, hour| top.max(hour.max));
    let low = hours.iter().fold(f64::INFINITY, |low, hour| low.min(hour.min));
    (top - low).max(0.0)
}

/// Returns the median of the ranges of two days each, counted back from the end.
fn usual_range(hours: &[Hour]) -> f64 {
    let end = hours.last().map_or(0, |newest| newest.at);
    let part = |hour: &Hour| (end - hour.at) / USUAL_SPAN;
    median(hours.chunk_by(|a, b| part(a) == part(b)).map(range).collect()).unwrap_or(0.0)
}

/// Returns 0 for no values.
fn low_quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or(0.0)
}

/// The first and the last hour of a fall.
struct Fall {
    first: usize,
    last: usize,
}

/// Returns the falls of at least `least` between an hour and one soon after it, or the next one after a gap. What falls
/// on within the same time belongs to the same fall.
fn falls(hours: &[Hour], least: f64) -> Vec<Fall> {
    let mut falls: Vec<Fall> = Vec::new();
    if least <= 0.0 {
        return falls;
    }
    let mut start = 0;
    for (i, hour) in hours.iter().enumerate() {
        let is_before = |(j, before): &(usize, &Hour)| j + 1 == i || hour.at - before.at <= FALL_TIME;
        let recent = hours[start..i].iter().enumerate().map(|(j, before)| (j + start, before));
        let top = recent.rev().take_while(is_before).fold(f64::NEG_INFINITY, |top, (_, b)| top.max(b.max));
        if top - hour.min < least {
            continue;
        }
        match falls.last_mut().filter(|fall| hour.at - hours[fall.first].at <= FALL_TIME) {
            Some(fall) => fall.last = i,
            None => falls.push(Fall { first: i, last: i }),
        }
        start = i + 1;
    }
    falls
}

/// Returns how far it falls at most within [`FALL_TIME`], around the `i`th hour.
fn steepest(hours: &[Hour], i: usize) -> f64 {
    let at = hours[i].at;
    let begin = hours.partition_point(|hour| hour.at < at - FALL_TIME).min(i.saturating_sub(1));
    let end = hours.partition_point(|hour| hour.at <= at + FALL_TIME);
    let near = &hours[begin..end];
    let falls = near.iter().enumerate().flat_map(|(j, low)| {
        let is_before = move |(k, high): &(usize, &Hour)| k + 1 == j || low.at - high.at <= FALL_TIME;
        near[..j].iter().enumerate().filter(is_before).map(move |(_, high)| high.max - low.min)
    });
    falls.fold(0.0, f64::max)
}

/// Returns the correlation of time and value. The ends do not count: they are chosen to be low and high.
fn correlation(hours: &[Hour]) -> f64 {
    let inner = hours.get(1..hours.len().saturating_sub(1)).unwrap_or_default();
    let Some(first) = inner.first().filter(|_| inner.len() > 2) else { return 0.0 };
    let pairs = || inner.iter().map(|hour| ((hour.at - first.at) as f64, hour.max));
    let n = inner.len() as f64;
    let (x, y) = pairs().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / n, y + b / n));
    let (xy, xx, yy) = pairs().fold((0.0, 0.0, 0.0), |(xy, xx, yy), (a, b)| {
        (xy + (a - x) * (b - y), xx + (a - x) * (a - x), yy + (b - y) * (b - y))
    });
    if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 }
}

/// Returns the highest hour, the last of equal ones, with the lowest value of all.
fn highest(hours: &[Hour]) -> Option<Point> {
    let top = hours.iter().max_by(|a, b| a.max.total_cmp(&b.max))?;
    let low = hours.iter().fold(top.min, |low, hour| low.min(hour.min));
    Some(Point { at: top.at, value: top.max, low })
}

/// Returns the maxima of equal parts of the past, counted back from its end. `None` if it is shorter than `least`.
pub fn maxima(hours: &[Hour], least: Second) -> Option<Vec<Point>> {
    let (begin, end) = (hours.first()?.at, hours.last()?.at + HOUR);
    let span = end - begin;
    if span < least {
        return None;
    }
    let width = if span >= DAILY_SPAN { DAY } else { (span / PARTS / HOUR * HOUR).max(HOUR) };
    let part = |hour: &Hour| (end - 1 - hour.at) / width;
    let parts = hours.chunk_by(|a, b| part(a) == part(b));
    let whole = parts.filter(|hours| hours.first().is_some_and(|hour| part(hour) < span / width));
    let points: Vec<Point> = whole.filter_map(highest).collect();
    (points.len() >= LEAST_PEAKS).then_some(points)
}

/// Returns the past after the last step of the points that lasts. An outlier is none.
pub fn after_step<'a>(hours: &'a [Hour], points: &[Point]) -> Option<&'a [Hour]> {
    let differences: Vec<f64> = points.windows(2).map(|pair| pair[1].value - pair[0].value).collect();
    let usual = median(differences.clone())?;
    let scatter = median(differences.iter().map(|d| (d - usual).abs()).collect())?;
    let top = points.iter().fold(f64::NEG_INFINITY, |top, p| top.max(p.value));
    let low = points.iter().fold(f64::INFINITY, |low, p| low.min(p.value));
    let least = (STEP * scatter).max(STEP_SHARE * (top - low));
    let is_step = |i: &usize| {
        let step = differences[*i] - usual;
        step.abs() > least && lasting(points, *i + 1, usual) * step.signum() >= LASTING * step.abs()
    };
    let i = (0..differences.len()).rev().find(is_step)?;
    let between = hours.partition_point(|hour| hour.at < points[i].at)
        ..hours.partition_point(|hour| hour.at <= points[i + 1].at);
    let sign = differences[i].signum();
    let size = |k: &usize| (hours[*k].max - hours[*k - 1].max) * sign;
    let first = between.skip(1).max_by(|a, b| size(a).total_cmp(&size(b)))?;
    hours.get(first..).filter(|rest| rest.len() < hours.len())
}

/// Returns the difference between the points on both sides of the `i`th, beyond what they usually differ.
fn lasting(points: &[Point], i: usize, usual: f64) -> f64 {
    let level = |(k, point): (usize, &Point)| point.value - usual * k as f64;
    let levels: Vec<f64> = points.iter().enumerate().map(level).collect();
    let before = median(levels[i.saturating_sub(BESIDE_STEP)..i].to_vec());
    let after = median(levels[i..(i + BESIDE_STEP).min(levels.len())].to_vec());
    before.zip(after).map_or(0.0, |(before, after)| after - before)
}
