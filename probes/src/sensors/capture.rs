//! Whether a camera takes its pictures: at an interval, or by the slots of a schedule in its own
//! time zone.
//!
//! A due picture is late until the grace is over, and missed from then on. The module knows neither
//! how the newest picture is found nor which clock dates it.

use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::sample::Status;
use crate::words;

/// Tolerance around a slot. A picture takes a while to be taken and stored, and a camera's trigger
/// is off by some seconds. A picture counts for its slot if it is this much early, and is not late
/// until this much after it.
const SETTLING: SignedDuration = SignedDuration::from_secs(30);
/// Days that are searched for past slots: a weekly slot and its day.
const LOOK_BACK_DAYS: i32 = 8;
/// Maximum number of slots in a day: one a minute.
const MAX_SLOTS: usize = 1_440;

/// The watched folder, and when its pictures are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub path: String,
    pub plan: Plan,
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// An interval after the newest picture.
    Every(Duration),
    Schedule(Schedule),
}

/// Slots by local time. A slot that the clocks skip in spring is not expected. A slot that comes
/// twice in autumn is expected once, the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Empty: every day.
    pub days: Vec<Weekday>,
    pub from: Time,
    /// The last possible slot. If it equals `from`, that is the only slot.
    pub until: Time,
    /// At least a minute.
    pub every: Duration,
    /// `None`: UTC, until the location of the camera is known.
    pub zone: Option<TimeZone>,
}

/// The verdict on the newest picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Good,
    /// Due since this time, within the grace.
    Late(Timestamp),
    /// This many pictures are missing; the first was due at this time.
    Missed(Timestamp, u64),
}

impl Freshness {
    pub fn status(self) -> Status {
        match self {
            Freshness::Good => Status::Ok,
            Freshness::Late(_) => Status::Warning,
            Freshness::Missed(..) => Status::Critical,
        }
    }

    pub fn missed(self) -> u64 {
        match self {
            Freshness::Missed(_, count) => count,
            _ => 0,
        }
    }

    /// Returns the remark to append to the text about the newest picture; empty when it is good.
    pub fn remark(self, now: Timestamp) -> String {
        let ago = |at: Timestamp| words::age(now.duration_since(at).as_secs_f64());
        match self {
            Freshness::Good => String::new(),
            Freshness::Late(due) => format!("; late, due {} ago", ago(due)),
            Freshness::Missed(due, 1) => format!("; missed, due {} ago", ago(due)),
            Freshness::Missed(due, n) => format!("; {n} missed, the first due {} ago", ago(due)),
        }
    }
}

impl Capture {
    /// Judges the newest picture. `newest`: when it was taken; `None`: there is none.
    pub fn judge(&self, newest: Option<Timestamp>, now: Timestamp) -> Freshness {
        let grace = signed(self.grace);
        match &self.plan {
            Plan::Every(every) => by_interval(signed(*every), grace, newest, now),
            Plan::Schedule(schedule) => {
                let met = |slot: &Timestamp| newest.is_some_and(|at| at + SETTLING >= *slot);
                let slots = schedule.slots(now);
                let open: Vec<Timestamp> =
                    slots.into_iter().filter(|slot| *slot + SETTLING <= now && !met(slot)).collect();
                let missed = open.iter().filter(|slot| **slot + grace <= now).count();
                match open.first() {
                    None => Freshness::Good,
                    Some(first) if missed > 0 => Freshness::Missed(*first, missed as u64),
                    Some(first) => Freshness::Late(*first),
                }
            }
        }
    }
}

fn by_interval(
    every: SignedDuration,
    grace: SignedDuration,
    newest: Option<Timestamp>,
    now: Timestamp,
) -> Freshness {
    let Some(newest) = newest else { return Freshness::Missed(now, 1) };
    let due = newest + every;
    match now.duration_since(due) {
        late if late <= SignedDuration::ZERO => Freshness::Good,
        late if late <= grace => Freshness::Late(due),
        late => {
            let more = (late - grace).as_millis() / every.as_millis().max(1);
            Freshness::Missed(due, 1 + u64::try_from(more).unwrap_or_default())
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Schedule {
    /// Returns the slots of the last days up to now, oldest first.
    fn slots(&self, now: Timestamp) -> Vec<Timestamp> {
        let utc = TimeZone::UTC;
        let zone = self.zone.as_ref().unwrap_or(&utc);
        let today = now.to_zoned(zone.clone()).date();
        let days = (0..=LOOK_BACK_DAYS).rev().filter_map(|back| today.checked_sub(back.days()).ok());
        let wanted = days.filter(|day| self.days.is_empty() || self.days.contains(&day.weekday()));
        wanted.flat_map(|day| self.slots_of(day, zone)).filter(|slot| *slot <= now).collect()
    }

    fn slots_of(&self, day: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let step = signed(self.every.max(Duration::from_secs(60)));
        let (first, last) = (day.to_datetime(self.from), day.to_datetime(self.until));
        let times = std::iter::successors(Some(first), |at| at.checked_add(step).ok());
        let local = times.take_while(|at| *at <= last).take(MAX_SLOTS);
        local
            .filter_map(|at| {
                let moment = zone.to_ambiguous_timestamp(at);
                match moment.offset() {
                    AmbiguousOffset::Gap { .. } => None,
                    _ => moment.earlier().ok(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn capture(days: &[Weekday], from: &str, until: &str, every_min: u64, grace_min: u64) -> Capture {
        let every = Duration::from_secs(every_min * 60);
        let (from, until, days) = (time(from), time(until), days.to_vec());
        let plan = Plan::Schedule(Schedule { days, from, until, every, zone: Some(berlin()) });
        Capture { path: "/pictures".into(), plan, grace: Duration::from_secs(grace_min * 60) }
    }

    /// Rows of: newest picture (empty: none), now, the verdict in a word.
    fn check(capture: &Capture, table: &[(&str, &str, &str)]) {
        for (newest, now, expected) in table {
            let newest = Some(*newest).filter(|n| !n.is_empty()).map(at);
            let found = match capture.judge(newest, at(now)) {
                Freshness::Good => "good".to_owned(),
                Freshness::Late(_) => "late".to_owned(),
                Freshness::Missed(_, n) => format!("missed {n}"),
            };
            assert_eq!(found, *expected, "newest {newest:?}, now {now}");
        }
    }

    #[test]
    fn by_interval_a_picture_is_late_and_then_missed() {
        let plan = Plan::Every(Duration::from_secs(180));
        let every = Capture { path: "/p".into(), plan, grace: Duration::from_secs(120) };
        check(
            &every,
            &[
                ("2026-03-01T12:00:00Z", "2026-03-01T12:03:00Z", "good"),
                ("2026-03-01T12:00:00Z", "2026-03-01T12:03:01Z", "late"),
                ("2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z", "late"),
                ("2026-03-01T12:00:00Z", "2026-03-01T12:05:01Z", "missed 1"),
                ("2026-03-01T12:00:00Z", "2026-03-01T12:11:00Z", "missed 3"),
                ("2026-03-01T12:30:00Z", "2026-03-01T12:00:00Z", "good"),
                ("", "2026-03-01T12:00:00Z", "missed 1"),
            ],
        );
    }

    #[test]
    fn by_schedule_each_slot_wants_its_picture() {
        // Local 06:00 to 20:00 every quarter; 2026-03-02 is a Monday, UTC+1.
        let camera = capture(&[], "06:00", "20:00", 15, 10);
        check(
            &camera,
            &[
                ("2026-03-02T10:00:20Z", "2026-03-02T10:14:00Z", "good"),
                ("2026-03-02T10:00:20Z", "2026-03-02T10:15:20Z", "good"),
                ("2026-03-02T10:00:20Z", "2026-03-02T10:16:00Z", "late"),
                ("2026-03-02T10:00:20Z", "2026-03-02T10:25:00Z", "missed 1"),
                ("2026-03-02T10:00:20Z", "2026-03-02T10:41:00Z", "missed 2"),
                // The picture that follows ends it.
                ("2026-03-02T10:30:05Z", "2026-03-02T10:41:00Z", "good"),
                // A trigger that is some seconds early counts for its slot.
                ("2026-03-02T10:14:50Z", "2026-03-02T10:26:00Z", "good"),
                // At night nothing is due: the last slot is 19:00Z, the next 05:00Z.
                ("2026-03-02T19:00:04Z", "2026-03-03T04:59:00Z", "good"),
                ("2026-03-02T19:00:04Z", "2026-03-03T05:05:00Z", "late"),
            ],
        );
    }

    #[test]
    fn a_weekly_slot_is_looked_for_a_week_long() {
        let weekly = capture(&[Weekday::Monday], "12:00", "12:00", 60, 60);
        check(
            &weekly,
            &[
                ("2026-03-02T11:00:00Z", "2026-03-09T10:59:00Z", "good"),
                ("2026-03-02T11:00:00Z", "2026-03-09T11:30:00Z", "late"),
                ("2026-03-02T11:00:00Z", "2026-03-12T00:00:00Z", "missed 1"),
            ],
        );
    }

    #[test]
    fn a_slot_that_the_clocks_skip_in_spring_is_not_expected() {
        // 2026-03-29: 02:00 to 03:00 does not exist in Berlin.
        let nightly = capture(&[], "02:30", "02:30", 60, 30);
        check(
            &nightly,
            &[
                ("2026-03-28T01:30:00Z", "2026-03-29T20:00:00Z", "good"),
                ("2026-03-28T01:30:00Z", "2026-03-30T00:31:00Z", "late"),
            ],
        );
        let hourly = capture(&[], "00:00", "05:00", 60, 5);
        // 01:00 is 00:00Z, the next slot is 03:00, an hour later: 01:00Z.
        check(
            &hourly,
            &[
                ("2026-03-29T00:00:10Z", "2026-03-29T00:59:00Z", "good"),
                ("2026-03-29T00:00:10Z", "2026-03-29T01:02:00Z", "late"),
            ],
        );
    }

    #[test]
    fn a_slot_that_comes_twice_in_autumn_is_expected_once() {
        // 2026-10-25: 02:00 to 03:00 comes twice in Berlin, at 00:00Z and at 01:00Z.
        let nightly = capture(&[], "02:30", "02:30", 60, 30);
        check(
            &nightly,
            &[
                ("2026-10-24T00:30:00Z", "2026-10-25T00:40:00Z", "late"),
                ("2026-10-25T00:30:10Z", "2026-10-25T01:50:00Z", "good"),
                ("2026-10-25T00:30:10Z", "2026-10-26T01:29:00Z", "good"),
                ("2026-10-25T00:30:10Z", "2026-10-26T01:31:00Z", "late"),
            ],
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let now = at("2026-03-02T12:00:00Z");
        assert_eq!(Freshness::Good.remark(now), "");
        let due = at("2026-03-02T11:00:00Z");
        assert!(Freshness::Late(due).remark(now).starts_with("; late, due 1 h"));
        assert!(Freshness::Missed(due, 4).remark(now).starts_with("; 4 missed, the first due 1 h"));
    }
}
