//! A line through points that some outliers do not bend: the median of the slopes between them (Theil and Sen).

use crate::history::Second;

/// Points of one line. More of them are older, and say less about now.
const MOST_POINTS: usize = 60;
/// The interval of the slope has 99 % of the probability, for points that scatter independently.
const QUANTILE: f64 = 2.58;
/// What turns the median of deviations into the standard deviation of a normal distribution.
const NORMAL: f64 = 1.4826;
/// Lines over fewer points are not halved.
const LEAST_BENT: usize = 8;
/// A bend that moves the newest point by less than this share of the range does not matter.
const BENT: f64 = 0.1;

/// A peak or a maximum, and the lowest value of its tooth or time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub at: Second,
    pub value: f64,
    pub low: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub from: Second,
    pub to: Second,
    pub count: u32,
    /// Per second.
    pub slope: f64,
    /// The interval in which the slope is.
    pub slopes: (f64, f64),
    /// The value at `to`.
    level: f64,
    /// The usual distance of the points from it.
    pub spread: f64,
    /// The highest point, and the difference to the lowest.
    pub top: f64,
    range: f64,
    /// The usual difference between a point and the lowest value of its time.
    pub noise: f64,
}

impl Line {
    /// Returns the line over the newest points that lie on one: their newer half does not have another slope.
    pub fn over(points: &[Point]) -> Option<Line> {
        let mut points = &points[points.len().saturating_sub(MOST_POINTS)..];
        let mut line = Line::through(points)?;
        while points.len() >= LEAST_BENT {
            let newer = &points[points.len() / 2..];
            let of_newer = Line::through(newer)?;
            if !line.bends_to(&of_newer) {
                break;
            }
            (points, line) = (newer, of_newer);
        }
        Some(line)
    }

    fn through(points: &[Point]) -> Option<Line> {
        let (first, last) = (points.first()?, points.last()?);
        let slopes = slopes(points);
        let slope = *slopes.get(slopes.len() / 2)?;
        let slope =
            if slopes.len().is_multiple_of(2) { (slope + slopes[slopes.len() / 2 - 1]) / 2.0 } else { slope };
        let flat = |p: &Point| p.value - slope * (p.at - last.at) as f64;
        let level = median(points.iter().map(flat).collect())?;
        let deviation = median(points.iter().map(|p| (flat(p) - level).abs()).collect())?;
        let top = points.iter().fold(first.value, |top, p| top.max(p.value));
        Some(Line {
            from: first.at,
            to: last.at,
            count: u32::try_from(points.len()).unwrap_or(u32::MAX),
            slope,
            slopes: interval(&slopes, points.len()),
            level,
            spread: NORMAL * deviation,
            top,
            range: top - points.iter().fold(top, |low, p| low.min(p.value)),
            noise: median(points.iter().map(|p| p.value - p.low).collect())?,
        })
    }

    pub fn at(&self, time: Second) -> f64 {
        self.level + self.slope * (time - self.to) as f64
    }

    pub fn span(&self) -> Second {
        self.to - self.from
    }

    fn bends_to(&self, newer: &Line) -> bool {
        let is_other = self.slope < newer.slopes.0 || self.slope > newer.slopes.1;
        let off = (self.slope - newer.slope).abs() * newer.span() as f64;
        is_other && off > BENT * self.range
    }
}

/// Returns the slopes between all pairs of points, in order.
fn slopes(points: &[Point]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (i, a) in points.iter().enumerate() {
        let later = points[i + 1..].iter().filter(|b| b.at > a.at);
        slopes.extend(later.map(|b| (b.value - a.value) / (b.at - a.at) as f64));
    }
    slopes.sort_by(f64::total_cmp);
    slopes
}

/// Returns the interval of the median slope, after Sen.
fn interval(slopes: &[f64], points: usize) -> (f64, f64) {
    let n = points as f64;
    let pairs = slopes.len() as f64;
    let width = QUANTILE * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let last = slopes.len() - 1;
    let low = ((pairs - width) / 2.0).floor().max(0.0) as usize;
    let high = ((pairs + width) / 2.0).ceil().max(0.0) as usize;
    (slopes[low.min(last)], slopes[high.min(last)])
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) { (middle + values[values.len() / 2 - 1]) / 2.0 } else { middle })
}
