//! The forecast of when something is full, from its past by the hour.
//!
//! A disk with recordings is a saw-tooth: it fills, a purge empties it, and it fills again. Its slope says nothing, so
//! the forecast follows the peaks before the purges ([`envelope`]). What has no purges is judged by its maxima. A step,
//! or a purge that no longer comes, begins a new past.
//!
//! A forecast depends on neither the scale nor the zero of the values, and on no time zone. It knows no tables, no
//! metrics and no clock. Where the past supports no forecast there is none.

mod envelope;
mod line;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use crate::history::{DAY, HOUR, Second};

use envelope::{LEAST_PEAKS, Teeth};
use line::Line;

/// The past that a forecast looks at: six weeks, so that a weekly purge has enough peaks.
pub const PAST: Second = 42 * DAY;
/// What has no purges needs this much past.
const LEAST_SPAN: Second = 48 * HOUR;
/// Once a purge no longer comes, this is enough: by then the next peak is overdue.
const LEAST_SPAN_UNPURGED: Second = 12 * HOUR;
/// A past that ends earlier supports no forecast.
const STALE: Second = DAY;
/// A line of some length supports a forecast of this many times its length.
const REACH: Second = 6;
/// Nothing is forecast beyond.
const FARTHEST: Second = 365 * DAY;
/// A rise must be this many times the spread around it.
const CLEAR_RISE: f64 = 3.0;
/// A peak within this share of the range below full is full.
const AT_FULL: f64 = 0.01;

/// An hour of the past, from `at` on; the values are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hour {
    pub at: Second,
    pub min: f64,
    pub max: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// `None`: a purge keeps it from being full, it does not grow, or it is not full for long.
    pub full_within: Option<Duration>,
    /// One line for people, about a metric in percent.
    pub text: String,
    pub basis: Basis,
}

/// What a forecast is based on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    pub from: Second,
    pub to: Second,
    /// The points of the line: peaks before purges, or maxima of equal times where there are no purges.
    pub peaks: u32,
    /// The usual time between purges, in seconds. `None`: there are none.
    pub period_s: Option<Second>,
    /// How much the peaks grow in a day.
    pub slope_per_day: f64,
    /// How far the peaks are usually from the line.
    pub spread: f64,
}

/// A line over peaks or maxima, and the past to which it belongs.
struct Trend<'a> {
    line: Line,
    /// `None`: maxima.
    teeth: Option<&'a Teeth>,
    full: f64,
    now: Second,
    /// The range of the values of the past.
    range: f64,
    /// The last peak, or without purges the newest value.
    recent: f64,
}

/// Returns the forecast for values that are full at `full`. `hours` are in order of time; one without a value is
/// absent. Later ones than `now` do not count.
pub fn forecast(hours: &[Hour], now: Second, full: f64) -> Option<Forecast> {
    let begin = hours.partition_point(|hour| hour.at < now.saturating_sub(PAST));
    let end = hours.partition_point(|hour| hour.at <= now);
    let mut hours = hours.get(begin..end)?;
    let mut least = LEAST_SPAN;
    loop {
        let newest = hours.last().filter(|newest| now - newest.at <= STALE)?;
        let teeth = Teeth::find(hours, full);
        if let Some(rest) = teeth.ended(hours, newest) {
            least = if teeth.are_purges() { LEAST_SPAN_UNPURGED } else { LEAST_SPAN };
            hours = rest;
            continue;
        }
        let teeth = Some(&teeth).filter(|teeth| teeth.are_purges());
        let points = match teeth {
            Some(teeth) if teeth.peaks.len() < LEAST_PEAKS => return None,
            Some(teeth) => teeth.peaks.clone(),
            None => envelope::maxima(hours, least)?,
        };
        if let Some(rest) = envelope::after_step(hours, &points) {
            hours = rest;
            continue;
        }
        let line = Line::over(&points)?;
        let last_peak = points.last().filter(|_| teeth.is_some());
        let recent = last_peak.map_or(newest.max, |peak| peak.value);
        return Trend { line, teeth, full, now, range: envelope::range(hours), recent }.forecast();
    }
}

/// Returns by how many seconds earlier forecasts were off: the median over those that were made at least a day before.
/// `earlier`: when each was made, and for when. `reached`: when it was full. Without it, a forecast counts only once
/// its time is over.
pub fn error_of(earlier: &[(Second, Second)], now: Second, reached: Option<Second>) -> Option<f64> {
    let judged_at = reached.unwrap_or(now).min(now);
    let old = earlier.iter().filter(|(made_at, _)| made_at.saturating_add(DAY) <= judged_at);
    let errors = old.filter_map(|(_, full_at)| match reached {
        Some(reached) => Some(full_at.abs_diff(reached) as f64),
        None => (*full_at < now).then(|| full_at.abs_diff(now) as f64),
    });
    line::median(errors.collect())
}

impl Trend<'_> {
    fn forecast(&self) -> Option<Forecast> {
        let (full_within, text) = self.said()?;
        let full_within = full_within.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)));
        Some(Forecast { full_within, text, basis: self.basis() })
    }

    fn said(&self) -> Option<(Option<Second>, String)> {
        if self.is_full() {
            return Some(self.said_of_full());
        }
        if self.line.slopes.0 > 0.0 {
            return self.said_of_rise();
        }
        self.is_held().then(|| (None, text::held(self.teeth, self.line.top, self.full)))
    }

    /// Whether it is full at its peaks nowadays. One that was full some time ago is an outlier.
    fn is_full(&self) -> bool {
        self.recent.max(self.line.at(self.line.to)) >= self.full - AT_FULL * self.range
    }

    /// A purge comes too late, or nothing empties it.
    fn said_of_full(&self) -> (Option<Second>, String) {
        match self.teeth {
            Some(teeth) => {
                let next = teeth.last_fall + teeth.period;
                (Some((next - self.now).max(0)), text::full_before_purge(teeth))
            }
            None => (Some(0), text::FULL.to_owned()),
        }
    }

    fn said_of_rise(&self) -> Option<(Option<Second>, String)> {
        let Line { slope, spread, noise, .. } = self.line;
        let rise = slope * self.line.span() as f64;
        let noise = if self.teeth.is_some() { 0.0 } else { noise };
        if rise < CLEAR_RISE * spread || rise < noise {
            return None;
        }
        // A number of seconds far above any horizon is cut off by the conversion.
        let within = ((self.full - self.line.at(self.now)) / slope).max(0.0) as Second;
        let horizon = self.line.span().saturating_mul(REACH).min(FARTHEST);
        Some(match within {
            within if within <= horizon => (Some(within), text::full_in(within)),
            _ => (None, text::not_within(horizon)),
        })
    }

    /// Whether it is far from full even if it grows as fast as the past allows, and for as long.
    fn is_held(&self) -> bool {
        let Line { top, noise, slopes, .. } = self.line;
        let room = self.full - top;
        let growth = slopes.1.max(0.0) * self.line.span() as f64;
        growth < room && (self.teeth.is_some() || noise <= room)
    }

    fn basis(&self) -> Basis {
        Basis {
            from: self.line.from,
            to: self.line.to,
            peaks: self.line.count,
            period_s: self.teeth.map(|teeth| teeth.period),
            slope_per_day: self.line.slope * DAY as f64,
            spread: self.line.spread,
        }
    }
}
