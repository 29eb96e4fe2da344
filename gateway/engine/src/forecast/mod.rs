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
    /// Since when it is full, at its peaks if it has purges. `None`: it is not.
    pub full_since: Option<Second>,
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
    hours: &'a [Hour],
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
        return Trend { line, teeth, hours, full, now, range: envelope::range(hours), recent }.forecast();
    }
}

/// How far earlier forecasts were off, in seconds: the medians over those that were made at least a day before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Of those that can be judged: it was full later, or it was not and their time is over. `None`: none can be.
    pub error_s: Option<f64>,
    /// It was not full since some of these, so that their error is at least what it is up to now.
    pub is_least: bool,
    /// By how much those whose time is not over differ from the present one.
    pub change_s: Option<f64>,
}

/// Returns how far earlier forecasts were off. `earlier`: when each was made, and for when; of one that was made while it
/// was full, since when it was. `present`: for when the newest forecast is, and since when it is full.
pub fn accuracy(
    earlier: &[(Second, Second)],
    now: Second,
    (full_at, full_since): (Option<Second>, Option<Second>),
) -> Accuracy {
    let was_full = |&(made_at, at): &(Second, Second)| (at <= made_at).then_some(at);
    let times: Vec<Second> = earlier.iter().filter_map(was_full).chain(full_since).collect();
    let (mut errors, mut changes, mut is_least) = (Vec::new(), Vec::new(), false);
    for &(made_at, expected) in earlier.iter().filter(|one| was_full(one).is_none()) {
        let was = times.iter().copied().filter(|at| *at > made_at).min();
        if made_at.saturating_add(DAY) > was.unwrap_or(now) {
            continue;
        }
        match (was, full_at) {
            (Some(was), _) => errors.push(was.abs_diff(expected) as f64),
            (None, _) if expected < now => {
                is_least = true;
                errors.push(now.abs_diff(expected) as f64);
            }
            (None, Some(full_at)) => changes.push(full_at.abs_diff(expected) as f64),
            (None, None) => {}
        }
    }
    Accuracy { error_s: line::median(errors), is_least, change_s: line::median(changes) }
}

impl Trend<'_> {
    fn forecast(&self) -> Option<Forecast> {
        let (full_within, text) = self.said()?;
        let full_within = full_within.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)));
        Some(Forecast { full_within, full_since: self.full_since(), text, basis: self.basis() })
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
        self.is_at_full(self.recent.max(self.line.at(self.line.to)))
    }

    fn is_at_full(&self, value: f64) -> bool {
        value >= self.full - AT_FULL * self.range
    }

    /// Returns the time of the first of those peaks, or hours without purges, that are all full up to now.
    fn full_since(&self) -> Option<Second> {
        let hours = || self.hours.iter().map(|hour| (hour.at, hour.max)).collect();
        let peaks = |teeth: &Teeth| teeth.peaks.iter().map(|peak| (peak.at, peak.value)).collect();
        let values: Vec<(Second, f64)> = self.teeth.map_or_else(hours, peaks);
        let full = values.iter().rev().take_while(|(_, value)| self.is_at_full(*value));
        full.last().map(|(at, _)| *at)
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
