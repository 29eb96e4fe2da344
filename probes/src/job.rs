//! Whether a job ran on time: at an interval, or by a time of day.
//!
//! A due run is late until the grace is over, and missed from then on. The module knows neither
//! what the job does nor how its runs are reported.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::words;

/// How long before its deadline a run still counts. Half a day, so that a run that came late
/// yesterday is not taken for today's.
const EARLY: SignedDuration = SignedDuration::from_hours(12);
/// Days in which the next deadline is searched: a weekly one, with a day on each side.
const LOOK_DAYS: i32 = 9;

/// A job that reports its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub due: Due,
    /// How long after its due time a run counts as missed.
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// An interval after the previous run.
    Every(Duration),
    By(Deadline),
}

/// A time of day. If the clocks skip it in spring, the deadline is later by the skipped time. If it
/// comes twice in autumn, the deadline is the second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub time: Time,
    /// Empty: every day.
    pub days: Vec<Weekday>,
    /// `None`: UTC, until the location of the host is known.
    pub zone: Option<TimeZone>,
}

impl Deadline {
    fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or(TimeZone::UTC)
    }

    /// Returns the first deadline that a run at `last` does not meet.
    pub fn after_run(&self, last: Timestamp) -> Option<Timestamp> {
        self.next(last + EARLY)
    }

    /// Returns the first deadline after this time.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.around(after, -1..=LOOK_DAYS).find(|at| *at > after)
    }

    /// Returns the last deadline up to this time.
    pub fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        self.around(until, -LOOK_DAYS..=1).take_while(|at| *at <= until).last()
    }

    /// Returns the deadlines of the days around a time, in order.
    fn around(&self, at: Timestamp, days: RangeInclusive<i32>) -> impl Iterator<Item = Timestamp> {
        let zone = self.zone();
        let today = at.to_zoned(zone.clone()).date();
        let days = days.filter_map(move |n| today.checked_add(n.days()).ok());
        let wanted = days.filter(|day| self.days.is_empty() || self.days.contains(&day.weekday()));
        wanted.filter_map(move |day| self.on(day, &zone))
    }

    fn on(&self, day: Date, zone: &TimeZone) -> Option<Timestamp> {
        zone.to_ambiguous_timestamp(day.to_datetime(self.time)).later().ok()
    }
}

impl Job {
    /// Returns the text for a late or missed job. `last`: when it ran; `None`: unknown.
    pub fn complaint(&self, late: bool, last: Option<Timestamp>) -> String {
        let late = if late { "late: " } else { "" };
        format!("{late}should have run {}, {}", self.plan(), self.last(last))
    }

    fn plan(&self) -> String {
        match &self.due {
            Due::Every(every) => format!("every {}", words::age(every.as_secs_f64())),
            Due::By(by) => format!("by {} {}", by.time.strftime("%H:%M"), zone_name(&by.zone())),
        }
    }

    fn last(&self, last: Option<Timestamp>) -> String {
        let zone = match &self.due {
            Due::Every(_) => TimeZone::UTC,
            Due::By(by) => by.zone(),
        };
        match last {
            None => "nothing is known of a run".to_owned(),
            Some(at) => {
                let local = at.to_zoned(zone.clone());
                format!("last ran {} {}", local.strftime("%Y-%m-%d %H:%M"), zone_name(&zone))
            }
        }
    }
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("local time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn vienna(time: &str, days: &[Weekday]) -> Deadline {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        Deadline { time: time.parse().unwrap(), days: days.to_vec(), zone: Some(zone) }
    }

    /// Rows of: the last run, and the deadline that it does not meet.
    fn check(deadline: &Deadline, table: &[(&str, &str)]) {
        for (last, expected) in table {
            assert_eq!(deadline.after_run(at(last)), Some(at(expected)), "ran {last}");
        }
    }

    #[test]
    fn a_nightly_run_counts_for_the_deadline_that_it_belongs_to() {
        // 03:00 in Vienna is 02:00 UTC in winter.
        check(
            &vienna("03:00", &[]),
            &[
                ("2026-01-10T01:30:00Z", "2026-01-11T02:00:00Z"),
                ("2026-01-10T02:00:00Z", "2026-01-11T02:00:00Z"),
                // A late run, but none for the next night.
                ("2026-01-10T02:20:00Z", "2026-01-11T02:00:00Z"),
                ("2026-01-10T13:59:00Z", "2026-01-11T02:00:00Z"),
                // A run on the evening before.
                ("2026-01-10T20:00:00Z", "2026-01-12T02:00:00Z"),
            ],
        );
    }

    #[test]
    fn the_nights_on_which_clocks_change_have_one_deadline_each() {
        // 2026-03-29: 02:00 to 03:00 local time is skipped; 2026-10-25: it comes twice.
        check(
            &vienna("02:30", &[]),
            &[
                ("2026-03-28T01:00:00Z", "2026-03-29T01:30:00Z"),
                ("2026-03-29T01:10:00Z", "2026-03-30T00:30:00Z"),
                ("2026-10-24T00:00:00Z", "2026-10-25T01:30:00Z"),
                ("2026-10-25T00:10:00Z", "2026-10-26T01:30:00Z"),
            ],
        );
        check(
            &vienna("03:00", &[]),
            &[
                ("2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"),
                ("2026-03-29T00:30:00Z", "2026-03-30T01:00:00Z"),
                ("2026-10-24T00:30:00Z", "2026-10-25T02:00:00Z"),
                ("2026-10-25T01:30:00Z", "2026-10-26T02:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_weekly_job_is_due_on_its_days() {
        // 2026-01-12 is a Monday.
        let weekly = vienna("03:00", &[Weekday::Monday]);
        check(
            &weekly,
            &[
                ("2026-01-12T01:00:00Z", "2026-01-19T02:00:00Z"),
                ("2026-01-15T01:00:00Z", "2026-01-19T02:00:00Z"),
            ],
        );
        assert_eq!(weekly.next(at("2026-01-12T02:00:00Z")), Some(at("2026-01-19T02:00:00Z")));
        assert_eq!(weekly.latest(at("2026-01-12T02:00:00Z")), Some(at("2026-01-12T02:00:00Z")));
        assert_eq!(weekly.latest(at("2026-01-12T01:59:59Z")), Some(at("2026-01-05T02:00:00Z")));
    }

    #[test]
    fn the_complaint_says_when_it_should_have_run_and_when_it_did() {
        let zone = TimeZone::get("Europe/Vienna").ok();
        let by = Deadline { zone, ..vienna("03:00", &[]) };
        let job = Job { due: Due::By(by), grace: Duration::ZERO };
        assert_eq!(
            job.complaint(false, Some(at("2026-01-10T01:30:00Z"))),
            "should have run by 03:00 Europe/Vienna, last ran 2026-01-10 02:30 Europe/Vienna"
        );
        let job = Job { due: Due::Every(Duration::from_secs(3_600)), grace: Duration::ZERO };
        let never = job.complaint(true, None);
        assert_eq!(never, "late: should have run every 1 h, nothing is known of a run");
    }
}
