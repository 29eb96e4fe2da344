//! Time periods: weekdays and times of day in a time zone, correct through nights in which clocks
//! change.
//!
//! A period follows the wall clock: a repeated hour counts twice, a skipped one not at all.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;

use crate::calendar::{
    DAY_MINUTES, DAYS, clock, instants, minute, monday_zero, time_of, timestamp, wall, weekday,
};
use crate::time::Wall;

/// The limit of ranges: more than the days and shifts of a week.
const MAX_SPANS: usize = 32;
/// The skipped hour of the year can swallow a weekly range; the next one then comes in the week
/// after next at the latest.
const HORIZON_DAYS: usize = 15;

/// Ranges such as `mon-fri 08:00-18:00, sat 09:00-12:00`. A range whose end is not after its start
/// ends on the next day: `fri 22:00-06:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period(Vec<Span>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// The first and the last weekday, both included; 0 is Monday.
    first: u8,
    last: u8,
    /// Minutes of the day, the end exclusive; at most 24:00.
    from: u16,
    to: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPeriod {
    #[error("{0:?}: weekdays and times such as \"mon-fri 08:00-18:00, sat 09:00-12:00\" are expected")]
    Form(String),
    #[error("1 to {MAX_SPANS} ranges are expected")]
    Count,
}

impl FromStr for Period {
    type Err = BadPeriod;

    fn from_str(text: &str) -> Result<Self, BadPeriod> {
        let parse = |part: &str| span(part).ok_or_else(|| BadPeriod::Form(part.chars().take(80).collect()));
        let spans: Vec<Span> =
            text.split(',').take(MAX_SPANS + 1).map(|p| parse(p.trim())).collect::<Result<_, _>>()?;
        if spans.len() > MAX_SPANS { Err(BadPeriod::Count) } else { Ok(Period(spans)) }
    }
}

fn span(text: &str) -> Option<Span> {
    let (days, times) = text.split_once(' ')?;
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let (from, to) = times.trim().split_once('-')?;
    let span = Span { first: weekday(first)?, last: weekday(last)?, from: minute(from)?, to: minute(to)? };
    (span.from < DAY_MINUTES && span.from != span.to).then_some(span)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, span) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { ", " })?;
            f.write_str(DAYS[usize::from(span.first)])?;
            if span.first != span.last {
                write!(f, "-{}", DAYS[usize::from(span.last)])?;
            }
            write!(f, " {}-{}", clock(span.from), clock(span.to))?;
        }
        Ok(())
    }
}

impl Span {
    fn has(&self, day: u8) -> bool {
        if self.first <= self.last {
            (self.first..=self.last).contains(&day)
        } else {
            day >= self.first || day <= self.last
        }
    }

    fn contains(&self, day: u8, minute: u16) -> bool {
        if self.from < self.to {
            return self.has(day) && (self.from..self.to).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        self.has(day) && minute >= self.from || self.has(yesterday) && minute < self.to
    }
}

impl Period {
    pub fn contains(&self, at: Wall, zone: &TimeZone) -> bool {
        let local = zone.to_datetime(timestamp(at));
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        self.0.iter().any(|span| span.contains(monday_zero(local.weekday()), minute))
    }

    /// Returns `from` if that is inside, else when the period begins next.
    pub fn next(&self, from: Wall, zone: &TimeZone) -> Wall {
        if self.contains(from, zone) {
            return from;
        }
        let inside = |at: &Wall| *at > from && self.contains(*at, zone);
        let next = self.begins(from, zone).into_iter().filter(inside).min();
        // Every range comes within the horizon; if none does, the caller asks again at its end.
        next.unwrap_or(from + std::time::Duration::from_secs(HORIZON_DAYS as u64 * 86_400))
    }

    /// Returns when a range may begin: at its time of day, twice where the clock repeats it, or
    /// when clocks jump into it.
    fn begins(&self, from: Wall, zone: &TimeZone) -> Vec<Wall> {
        let now = timestamp(from);
        let mut begins = Vec::new();
        let mut date = zone.to_datetime(now).date();
        for _ in 0..HORIZON_DAYS {
            let day = monday_zero(date.weekday());
            for span in self.0.iter().filter(|s| s.has(day)) {
                begins.extend(instants(date.to_datetime(time_of(span.from)), zone));
            }
            let Ok(next) = date.tomorrow() else { break };
            date = next;
        }
        let jumps = zone.following(now).map(|t| t.timestamp());
        let horizon = from + std::time::Duration::from_secs(HORIZON_DAYS as u64 * 86_400);
        begins.extend(jumps.map(wall).take_while(|at| *at < horizon));
        begins
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn period(text: &str) -> Period {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Wall {
        wall(text.parse().unwrap())
    }

    #[test]
    fn a_period_survives_its_text() {
        for text in ["mon-fri 08:00-18:00, sat 09:00-12:00", "sun 00:00-24:00", "fri-mon 22:00-06:00"] {
            assert_eq!(period(text).to_string(), text);
        }
        assert_eq!(period("mon 8:00-9:05").to_string(), "mon 08:00-09:05");
    }

    #[test]
    fn what_is_no_period_is_refused() {
        let bad =
            ["", "mon", "mon 8-9", "mon 08:00", "day 08:00-09:00", "mon 08:00-08:00", "mon 24:00-08:00"];
        let worse = ["mon 08:60-09:00", "mon 08:00-24:01", "mon 08:00-09:00,", "mon +8:00-09:00"];
        for text in bad.iter().chain(&worse) {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!(vec!["mon 08:00-09:00"; 33].join(",").parse::<Period>(), Err(BadPeriod::Count));
    }

    #[test]
    fn office_hours_follow_the_clock_on_the_wall() {
        let office = period("mon-fri 08:00-18:00");
        // 08:00 in Berlin is 07:00 UTC in winter and 06:00 UTC in summer.
        assert_eq!(office.next(at("2026-03-27T20:00:00Z"), &berlin()), at("2026-03-30T06:00:00Z"));
        assert_eq!(office.next(at("2026-10-23T20:00:00Z"), &berlin()), at("2026-10-26T07:00:00Z"));
        assert!(office.contains(at("2026-03-30T06:00:00Z"), &berlin()));
        assert!(!office.contains(at("2026-03-30T16:00:00Z"), &berlin()));
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins() {
        let night = period("fri 22:00-06:00");
        assert!(night.contains(at("2026-06-06T03:59:00Z"), &berlin()));
        assert!(!night.contains(at("2026-06-06T04:00:00Z"), &berlin()));
        assert!(!night.contains(at("2026-06-05T03:00:00Z"), &berlin()));
    }

    #[test]
    fn an_hour_that_does_not_come_is_entered_by_the_jump() {
        // On 29 March 2026 Berlin goes from 02:00 to 03:00, at 01:00 UTC.
        let spring = period("sun 02:30-04:00");
        assert_eq!(spring.next(at("2026-03-29T00:00:00Z"), &berlin()), at("2026-03-29T01:00:00Z"));
        let lost = period("sun 02:00-02:30");
        assert_eq!(lost.next(at("2026-03-28T12:00:00Z"), &berlin()), at("2026-04-05T00:00:00Z"));
    }

    #[test]
    fn an_hour_that_comes_twice_counts_twice() {
        // On 25 October 2026 Berlin goes from 03:00 back to 02:00, at 01:00 UTC.
        let autumn = period("sun 02:15-02:45");
        assert_eq!(autumn.next(at("2026-10-25T00:00:00Z"), &berlin()), at("2026-10-25T00:15:00Z"));
        assert_eq!(autumn.next(at("2026-10-25T00:45:00Z"), &berlin()), at("2026-10-25T01:15:00Z"));
    }

    fn spans() -> impl Strategy<Value = Period> {
        let span = (0u8..7, 0u8..7, 0u16..1440, 0u16..=1440)
            .prop_filter("a range", |(_, _, from, to)| from != to)
            .prop_map(|(first, last, from, to)| Span { first, last, from, to });
        prop::collection::vec(span, 1..4).prop_map(Period)
    }

    proptest! {
        /// Compares minute by minute, around both nights of each of three clocks.
        #[test]
        fn the_next_begin_is_the_first_minute_inside(
            period in spans(),
            zone in prop::sample::select(vec![
                "CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            ]),
            night in prop::sample::select(vec!["2026-03-06T00:00:00Z", "2026-03-27T00:00:00Z",
                "2026-04-03T00:00:00Z", "2026-10-02T00:00:00Z", "2026-10-23T00:00:00Z"]),
            minutes in 0u64..3 * 1440,
        ) {
            let zone = TimeZone::posix(zone).unwrap();
            let from = at(night) + Duration::from_secs(minutes * 60);
            let minute = |n: u64| from + Duration::from_secs(n * 60);
            let first = (0..15 * 1440).map(minute).find(|m| period.contains(*m, &zone));
            prop_assert_eq!(Some(period.next(from, &zone)), first);
        }
    }
}
