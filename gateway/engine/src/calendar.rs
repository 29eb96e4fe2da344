//! The calendar that time periods and repeated downtimes share: names of weekdays, times of day,
//! and the moments at which a wall clock shows them.
//!
//! The caller supplies the zone and the time.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday, time};
use jiff::tz::TimeZone;

use crate::time::Wall;

pub const DAY_MINUTES: u16 = 24 * 60;
/// The short names of weekdays; 0 is Monday.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Returns the weekday of a short name.
pub fn weekday(name: &str) -> Option<u8> {
    DAYS.iter().position(|n| *n == name).and_then(|n| u8::try_from(n).ok())
}

pub fn monday_zero(day: Weekday) -> u8 {
    day.to_monday_zero_offset().unsigned_abs()
}

/// Parses a time of day such as `8:00` into its minute; `24:00` is the end of the day.
pub fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |t: &str| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    let (hours, minutes) = (Some(hours).filter(|h| digits(h))?, Some(minutes).filter(|m| digits(m))?);
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// Formats a minute of the day as `08:00`.
pub fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Converts a minute before the end of the day into a time of day.
pub fn time_of(minute: u16) -> Time {
    let part = |n: u16| i8::try_from(n).unwrap_or(0);
    time(part(minute / 60), part(minute % 60), 0, 0)
}

/// Returns the first moments of a local time: one, or two where the clock repeats the hour.
pub fn instants(local: DateTime, zone: &TimeZone) -> impl Iterator<Item = Wall> {
    let times = zone.to_ambiguous_timestamp(local);
    [times.earlier(), times.later()].into_iter().flatten().map(wall)
}

/// Converts a wall time; a year beyond the calendar's range becomes its last moment.
pub fn timestamp(at: Wall) -> Timestamp {
    Timestamp::from_millisecond(at.as_millis()).unwrap_or(Timestamp::MAX)
}

/// Formats a moment for people: `18:26 UTC`, with the date if it is on another day than `now`.
pub fn moment(at: Wall, now: Wall) -> String {
    let utc = |wall: Wall| timestamp(wall).to_zoned(TimeZone::UTC);
    let (then, today) = (utc(at), utc(now));
    let format = if then.date() == today.date() { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    then.strftime(format).to_string()
}

pub fn wall(at: Timestamp) -> Wall {
    Wall::from_millis(at.as_millisecond())
}
