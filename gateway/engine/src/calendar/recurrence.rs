//! Recurring time windows: days, times of day, a time zone, and the dates between which they recur.
//!
//! One rule covers the two nights on which clocks change, so that no window is lost or split. In
//! the repeated hour, a start is the first of its two moments and an end the second. In the skipped
//! hour, a start is the moment of the jump, and an end is as long after the jump as it lies within
//! that hour. This module does not know the purpose of the windows.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::calendar::{DAY_MINUTES, DAYS, clock, minute, monday_zero, time_of, timestamp, wall, weekday};
use crate::time::Wall;

/// The limit of days in one recurrence: every day of a month by its number, and one more.
const MAX_DAYS: usize = 32;
/// The rarest day is the fifth of a weekday in a month: it comes after fourteen weeks at the
/// latest.
const HORIZON_DAYS: usize = 14 * 7 + 2;
/// In a zone that skips a day, a window that began two days ago can still be open.
const BACK_DAYS: i64 = 2;
const FULL_NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const WEEKDAYS: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrence {
    pub every: Every,
    pub hours: Hours,
    pub zone: TimeZone,
    /// The first and the last date on which a window may begin.
    pub first: Option<Date>,
    pub last: Option<Date>,
}

/// One window; its end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: Wall,
    pub end: Wall,
}

/// The days: `day`, `sun`, `mon-fri`, `1st`, `last day`, `2nd tue`, `last fri`, or several of these
/// separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Every(Vec<Days>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    All,
    /// The first and the last weekday, both included; 0 is Monday.
    Week(u8, u8),
    /// 1 to 31; a month without that day is left out.
    Month(i8),
    LastOfMonth,
    /// The first to the fifth of a weekday in a month; -1 is the last.
    Nth(i8, u8),
}

/// The start and end, in minutes of the day; an end that is not after the start is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecurrence {
    #[error(
        "{0:?}: a day such as \"day\", \"sunday\", \"mon-fri\", \"1st\", \"last day\" or \"2nd tuesday\" is expected"
    )]
    Day(String),
    #[error("1 to {MAX_DAYS} days are expected")]
    Count,
    #[error("{0:?}: a time of day such as 02:00 is expected")]
    Time(String),
    #[error("a time other than the begin is expected; a whole day is 00:00 to 24:00")]
    Empty,
}

impl FromStr for Every {
    type Err = BadRecurrence;

    fn from_str(text: &str) -> Result<Self, BadRecurrence> {
        let read = |part: &str| days(part.trim()).ok_or_else(|| BadRecurrence::Day(short(part)));
        let days: Vec<Days> = text.split(',').take(MAX_DAYS + 1).map(read).collect::<Result<_, _>>()?;
        if days.len() > MAX_DAYS { Err(BadRecurrence::Count) } else { Ok(Every(days)) }
    }
}

fn short(text: &str) -> String {
    text.trim().chars().take(80).collect()
}

fn days(text: &str) -> Option<Days> {
    if text == "day" {
        return Some(Days::All);
    }
    if let Some((first, last)) = text.split_once('-') {
        return Some(Days::Week(named(first)?, named(last)?));
    }
    match text.split_once(' ') {
        None => named(text).map(|day| Days::Week(day, day)).or_else(|| ordinal(text).map(Days::Month)),
        Some(("last", "day")) => Some(Days::LastOfMonth),
        Some(("last", day)) => named(day.trim()).map(|day| Days::Nth(-1, day)),
        Some((nth, day)) => Some(Days::Nth(ordinal(nth).filter(|n| *n <= 5)?, named(day.trim())?)),
    }
}

fn named(name: &str) -> Option<u8> {
    let full = FULL_NAMES.iter().position(|n| *n == name).and_then(|n| u8::try_from(n).ok());
    weekday(name).or(full)
}

fn ordinal(text: &str) -> Option<i8> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let fine = matches!(&text[digits.len()..], "st" | "nd" | "rd" | "th");
    let number = digits.parse().ok().filter(|n| (1..=31).contains(n));
    number.filter(|_| fine && digits.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, days) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { ", " })?;
            let name = |day: &u8| DAYS[usize::from(*day)];
            match days {
                Days::All => f.write_str("day")?,
                Days::Week(first, last) if first == last => f.write_str(name(first))?,
                Days::Week(first, last) => write!(f, "{}-{}", name(first), name(last))?,
                Days::Month(n) => write!(f, "{n}{}", suffix(*n))?,
                Days::LastOfMonth => f.write_str("last day")?,
                Days::Nth(-1, day) => write!(f, "last {}", name(day))?,
                Days::Nth(n, day) => write!(f, "{n}{} {}", suffix(*n), name(day))?,
            }
        }
        Ok(())
    }
}

fn suffix(n: i8) -> &'static str {
    match (n % 10, n / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

impl Every {
    fn has(&self, date: Date) -> bool {
        self.0.iter().any(|days| days.has(date))
    }
}

impl Days {
    fn has(self, date: Date) -> bool {
        let day = monday_zero(date.weekday());
        match self {
            Days::All => true,
            Days::Week(first, last) if first <= last => (first..=last).contains(&day),
            Days::Week(first, last) => day >= first || day <= last,
            Days::Month(n) => date.day() == n,
            Days::LastOfMonth => date == date.last_of_month(),
            Days::Nth(n, day) => {
                date.nth_weekday_of_month(n, WEEKDAYS[usize::from(day)]).is_ok_and(|at| at == date)
            }
        }
    }
}

impl Hours {
    /// # Errors
    /// Fails when one of them is not a time of day, or when the window would be empty.
    pub fn new(from: &str, to: &str) -> Result<Self, BadRecurrence> {
        let read = |text: &str| minute(text).ok_or_else(|| BadRecurrence::Time(short(text)));
        let (begin, to) = (read(from)?, read(to)?);
        match begin {
            DAY_MINUTES => Err(BadRecurrence::Time(short(from))),
            begin if begin == to => Err(BadRecurrence::Empty),
            from => Ok(Hours { from, to }),
        }
    }

    pub fn from(self) -> String {
        clock(self.from)
    }

    pub fn to(self) -> String {
        clock(self.to)
    }
}

impl Recurrence {
    /// Returns the window that is open.
    pub fn at(&self, now: Wall) -> Option<Span> {
        self.next(now).filter(|span| span.start <= now)
    }

    /// Returns the window that is open or comes next.
    pub fn next(&self, now: Wall) -> Option<Span> {
        let today = self.zone.to_datetime(timestamp(now)).date();
        let back = today.saturating_sub(BACK_DAYS.days());
        let from = self.first.map_or(back, |first| first.max(back));
        let dates = std::iter::successors(Some(from), |date| date.tomorrow().ok()).take(HORIZON_DAYS);
        let dates = dates.take_while(|date| self.last.is_none_or(|last| *date <= last));
        dates.filter(|date| self.every.has(*date)).filter_map(|d| self.span(d)).find(|s| s.end > now)
    }

    /// Returns when the very last window ends; `None`: they go on.
    pub fn over_at(&self) -> Option<Wall> {
        let last = self.last?;
        let dates = std::iter::successors(Some(last), |date| date.yesterday().ok()).take(HORIZON_DAYS);
        let mut dates = dates.take_while(|date| self.first.is_none_or(|first| *date >= first));
        let span = dates.find(|date| self.every.has(*date)).and_then(|date| self.span(date));
        Some(span.map_or(Wall::default(), |span| span.end))
    }

    fn span(&self, date: Date) -> Option<Span> {
        let start = date.to_datetime(time_of(self.hours.from));
        let ends_on = if self.hours.to > self.hours.from { date } else { date.tomorrow().ok()? };
        let end = match self.hours.to {
            DAY_MINUTES => ends_on.tomorrow().ok()?.to_datetime(time_of(0)),
            to => ends_on.to_datetime(time_of(to)),
        };
        Some(Span { start: begin(start, &self.zone)?, end: finish(end, &self.zone)? })
    }
}

fn begin(local: DateTime, zone: &TimeZone) -> Option<Wall> {
    let times = zone.to_ambiguous_timestamp(local);
    match times.offset() {
        AmbiguousOffset::Gap { .. } => {
            let after = times.later().ok()?.checked_add(1.second()).ok()?;
            zone.preceding(after).next().map(|jump| wall(jump.timestamp()))
        }
        _ => times.earlier().ok().map(wall),
    }
}

fn finish(local: DateTime, zone: &TimeZone) -> Option<Wall> {
    zone.to_ambiguous_timestamp(local).later().ok().map(wall)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn every(days: &str, from: &str, to: &str) -> Recurrence {
        let hours = Hours::new(from, to).unwrap();
        Recurrence { every: days.parse().unwrap(), hours, zone: berlin(), first: None, last: None }
    }

    fn at(text: &str) -> Wall {
        wall(text.parse().unwrap())
    }

    /// Returns the next windows after a moment, as UTC times.
    fn windows(of: &Recurrence, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        let mut found = Vec::new();
        while let Some(span) = of.next(now).filter(|_| found.len() < count) {
            found.push(format!("{} {}", timestamp(span.start), timestamp(span.end)));
            now = span.end;
        }
        found
    }

    #[test]
    fn days_survive_their_text() {
        for text in ["day", "sun", "mon-fri", "fri-mon", "1st, 2nd, 3rd, 11th, 22nd", "last day, 5th tue"] {
            assert_eq!(text.parse::<Every>().unwrap().to_string(), text);
        }
        assert_eq!("sunday, 2nd tuesday".parse::<Every>().unwrap().to_string(), "sun, 2nd tue");
    }

    #[test]
    fn an_invalid_recurrence_is_refused() {
        for bad in
            ["", "days", "0th", "32nd", "1", "1x", "6th mon", "last", "last mo", "mon-", "sun,", "+1st"]
        {
            assert!(bad.parse::<Every>().is_err(), "{bad}");
        }
        assert_eq!(vec!["mon"; 33].join(",").parse::<Every>(), Err(BadRecurrence::Count));
        for (from, to) in [("02:00", "02:00"), ("24:00", "02:00"), ("2", "4"), ("02:00", "24:01")] {
            assert!(Hours::new(from, to).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn a_window_follows_the_local_time() {
        let sundays = every("sun", "02:00", "04:00");
        let expected = [
            "2026-03-22T01:00:00Z 2026-03-22T03:00:00Z",
            // The hour from 02:00 to 03:00 is skipped.
            "2026-03-29T01:00:00Z 2026-03-29T02:00:00Z",
            "2026-04-05T00:00:00Z 2026-04-05T02:00:00Z",
        ];
        assert_eq!(windows(&sundays, "2026-03-20T00:00:00Z", 3), expected);
    }

    #[test]
    fn nights_on_which_clocks_change_have_one_meaning_each() {
        // Berlin jumps at 01:00 UTC, on 29 March from 02:00 to 03:00 and on 25 October from 03:00
        // to 02:00.
        let table = [
            ("03-29", "01:30", "02:30", "00:30 01:30"),
            ("03-29", "02:00", "02:30", "01:00 01:30"),
            ("03-29", "02:30", "02:45", "01:00 01:45"),
            ("03-29", "02:30", "04:00", "01:00 02:00"),
            ("03-29", "01:00", "03:00", "00:00 01:00"),
            ("03-29", "03:00", "04:00", "01:00 02:00"),
            ("10-25", "01:30", "02:30", "23:30 01:30"),
            ("10-25", "02:00", "03:00", "00:00 02:00"),
            ("10-25", "02:15", "02:45", "00:15 01:45"),
            ("10-25", "02:30", "04:00", "00:30 03:00"),
            ("10-25", "03:00", "04:00", "02:00 03:00"),
        ];
        for (date, from, to, expected) in table {
            let found = windows(&every("sun", from, to), &format!("2026-{date}T00:00:00+02:00"), 1);
            let times: Vec<&str> = found[0].split(' ').map(|t| &t[11..16]).collect();
            assert_eq!(times.join(" "), expected, "{date} {from}-{to}");
        }
    }

    #[test]
    fn days_of_a_month_come_when_the_month_has_them() {
        let begins = |days: &str, from: &str, count| {
            let found = windows(&every(days, "12:00", "13:00"), from, count);
            found.iter().map(|w| w[..10].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(begins("31st", "2026-01-31T12:00:00Z", 3), ["2026-03-31", "2026-05-31", "2026-07-31"]);
        assert_eq!(begins("last day", "2028-02-01T00:00:00Z", 2), ["2028-02-29", "2028-03-31"]);
        assert_eq!(begins("2nd tue", "2026-11-11T00:00:00Z", 2), ["2026-12-08", "2027-01-12"]);
        assert_eq!(begins("last fri", "2026-11-22T00:00:00Z", 2), ["2026-11-27", "2026-12-25"]);
        assert_eq!(
            begins("1st, sat-sun", "2026-10-30T00:00:00Z", 3),
            ["2026-10-31", "2026-11-01", "2026-11-07"]
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_and_whole_days_touch() {
        let night = every("fri", "22:00", "06:00");
        assert_eq!(windows(&night, "2026-06-06T03:00:00Z", 1), ["2026-06-05T20:00:00Z 2026-06-06T04:00:00Z"]);
        let whole = windows(&every("sat-sun", "00:00", "24:00"), "2026-06-05T12:00:00Z", 2);
        assert_eq!(whole[0].split(' ').nth(1), whole[1].split(' ').next());
    }

    #[test]
    fn windows_lie_between_the_first_and_the_last_date() {
        let date = |text: &str| text.parse().ok();
        let few = Recurrence {
            first: date("2026-12-05"),
            last: date("2026-12-07"),
            ..every("day", "22:00", "01:00")
        };
        let found = windows(&few, "2026-01-01T00:00:00Z", 9);
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], "2026-12-07T21:00:00Z 2026-12-08T00:00:00Z");
        assert_eq!(few.over_at(), Some(at("2026-12-08T00:00:00Z")));
        assert_eq!(every("day", "22:00", "01:00").over_at(), None);
        let never = Recurrence { every: "sun".parse().unwrap(), first: date("2026-12-07"), ..few };
        assert_eq!((never.next(at("2026-01-01T00:00:00Z")), never.over_at()), (None, Some(Wall::default())));
    }

    fn recurrences() -> impl Strategy<Value = Recurrence> {
        let days = prop::sample::select(vec![
            "day",
            "sun",
            "sat-mon",
            "1st, 15th",
            "last day",
            "5th wed",
            "last sun",
        ]);
        let zones = prop::sample::select(vec![
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "EST5EDT,M3.2.0,M11.1.0",
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            // Midnight itself is repeated or skipped.
            "CST5CDT,M3.2.0/0,M11.1.0/1",
        ]);
        (days, 0u16..1440, 0u16..=1440, zones)
            .prop_filter("a window", |(_, from, to, _)| from != to)
            .prop_map(|(days, from, to, zone)| Recurrence {
                hours: Hours { from, to },
                zone: TimeZone::posix(zone).unwrap(),
                ..every(days, "00:00", "24:00")
            })
    }

    proptest! {
        /// In a zone without clock changes, the wall clock alone shows whether a window is open. In
        /// every zone, the next window stays the same until it is over.
        #[test]
        fn windows_follow_the_local_time_over_a_year(of in recurrences(), start in 0u64..500 * 1440) {
            let start = at("2026-01-01T00:00:00Z") + Duration::from_secs(start * 60);
            let mut now = start;
            for _ in 0..3 {
                let Some(span) = of.next(now) else { break };
                prop_assert!(span.start < span.end && span.end > now);
                for moment in [now, span.start, span.end + Duration::from_secs(7 * 60)] {
                    let calm = [span.start, moment].iter().all(|at| {
                        let jump = of.zone.following(timestamp(*at - Duration::from_secs(2 * 86_400))).next();
                        jump.is_none_or(|j| wall(j.timestamp()).since(*at) > Duration::from_secs(2 * 86_400))
                    });
                    prop_assert!(!calm || of.at(moment).is_some() == shown(&of, moment), "{moment:?}");
                }
                if span.start > now {
                    prop_assert_eq!(of.next(span.start - Duration::from_secs(1)), Some(span));
                }
                now = span.end;
            }
        }
    }

    fn shown(of: &Recurrence, now: Wall) -> bool {
        let local = of.zone.to_datetime(timestamp(now));
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let (from, to, today) = (of.hours.from, of.hours.to, of.every.has(local.date()));
        if from < to {
            return today && (from..to).contains(&minute);
        }
        today && minute >= from || of.every.has(local.date().yesterday().unwrap()) && minute < to
    }
}
