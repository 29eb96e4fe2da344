//! Jobs that report their runs: decides when a run is late, and when it is missed.
//!
//! A run has its own result, which stands until the next run. A late run turns OK into WARNING.
//! After the grace period, a missed run turns any state into CRITICAL. If the gateway could not
//! receive reports for a while, the job gets its grace period, or an interval, once more. This
//! module knows nothing of hosts and messages.

use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::job::{Due, Job};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use jiff::Timestamp;

use crate::time::{Mono, Now, Wall};

/// The shortest time in which a job can report a run that was due while the gateway could not
/// receive it, even if its grace period is shorter. A script that repeats a failed report does so
/// about every minute.
const LEAST_EXCUSE: Duration = Duration::from_secs(300);

/// Deadlines have a resolution of one millisecond: a report within a millisecond of a deadline
/// counts as at the deadline.
const TICK: Duration = Duration::from_millis(1);

/// The recorded runs of a job.
#[derive(Clone, Copy, Debug)]
pub struct JobRuns {
    /// The time of the last run, as the job reported it.
    pub last: Option<Wall>,
    /// If the job never ran: since when it is watched, or since when the missed run is reported.
    pub since: Wall,
    /// The time of the last report, or when the gateway could receive reports again.
    pub heard: Mono,
    pub status: Option<Status>,
    /// Whether the last result is that the job did not run.
    pub complained: bool,
    pub now: Now,
}

/// The times at which the next run is late and missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    late: Mono,
    missed: Mono,
}

impl JobRuns {
    /// Returns when the lack of a run changes the result; `None` if it cannot change any more.
    pub fn overdue_at(&self, job: &Job) -> Option<Mono> {
        if self.complained && self.status == Some(Status::Critical) {
            return None;
        }
        let term = self.term(job)?;
        Some(if self.can_be_late() { term.late } else { term.missed })
    }

    /// Returns the result for a late or missed run at that time.
    pub fn finding(&self, job: &Job) -> PluginResult {
        let missed = self.term(job).is_none_or(|term| term.missed <= self.now.mono);
        let last = self.last.and_then(|at| Timestamp::from_millisecond(at.as_millis()).ok());
        let status = if missed { Status::Critical } else { Status::Warning };
        PluginResult::new(status, job.complaint(!missed, last), Vec::new()).because(Cause::Overdue)
    }

    /// Whether a late run would change the state: it must not improve a worse one.
    fn can_be_late(&self) -> bool {
        matches!(self.status, None | Some(Status::Ok))
    }

    fn term(&self, job: &Job) -> Option<Term> {
        let by = match &job.due {
            Due::Every(every) => {
                let late = self.heard + *every;
                return Some(Term { late, missed: late + job.grace });
            }
            Due::By(by) => by,
        };
        let stamp = |at: Wall| Timestamp::from_millisecond(at.as_millis()).ok();
        let deadline = match self.last {
            Some(last) => by.after_run(stamp(self.credible(last))?)?,
            None if self.complained => by.latest(stamp(self.since)?)?,
            None => by.next(stamp(self.credible(self.since))?)?,
        };
        let late = self.mono(Wall::from_millis(deadline.as_millisecond()));
        if self.heard + TICK <= late {
            return Some(Term { late, missed: late + job.grace });
        }
        let missed = self.heard + job.grace.max(LEAST_EXCUSE);
        Some(Term { late: missed, missed })
    }

    /// Returns a plausible time of a run. A time in the future comes from a wrong clock, so the
    /// time of its report counts instead.
    fn credible(&self, at: Wall) -> Wall {
        if at > self.now.wall { self.now.wall - self.now.mono.since(self.heard) } else { at }
    }

    fn mono(&self, at: Wall) -> Mono {
        if at > self.now.wall { self.now.mono + at.since(self.now.wall) } else { self.now.mono_at(at) }
    }
}

/// Whether a job last heard at `heard` may have run while its host, or the gateway, was away until
/// `back`. A job that is only due later has missed nothing. Otherwise one minute a day without an
/// uplink would excuse a daily job forever.
pub fn may_have_run(job: &Job, heard: Mono, back: Mono) -> bool {
    match &job.due {
        Due::Every(every) => heard + *every <= back + job.grace.max(LEAST_EXCUSE),
        Due::By(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::job::Deadline;
    use jiff::tz::TimeZone;

    use super::*;

    /// Midnight of 2026-01-10, UTC, an hour after the machine was started.
    const MIDNIGHT: Wall = Wall::from_millis(1_768_003_200_000);
    const BOOT: Duration = Duration::from_secs(3_600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u64) -> Now {
        let since = MINUTE * minutes as u32;
        Now { mono: Mono::ZERO + BOOT + since, wall: MIDNIGHT + since }
    }

    fn nightly() -> Job {
        let by = Deadline { time: jiff::civil::time(3, 0, 0, 0), days: vec![], zone: Some(TimeZone::UTC) };
        Job { due: Due::By(by), grace: 30 * MINUTE }
    }

    /// A run that was reported at this minute of the day with an OK result.
    fn ran(heard: u64, now: u64) -> JobRuns {
        let (heard, now) = (at(heard), at(now));
        JobRuns {
            last: Some(heard.wall),
            since: heard.wall,
            heard: heard.mono,
            status: Some(Status::Ok),
            complained: false,
            now,
        }
    }

    const DAY: u64 = 24 * 60;

    #[test]
    fn a_job_that_ran_is_late_at_the_next_deadline_and_missed_after_its_grace() {
        let ran = ran(150, 200);
        assert_eq!(ran.overdue_at(&nightly()), Some(at(DAY + 180).mono));
        let late = JobRuns { now: at(DAY + 180), ..ran }.finding(&nightly());
        assert_eq!(late.status, Status::Warning);
        assert_eq!(late.text, "late: should have run by 03:00 UTC, last ran 2026-01-10 02:30 UTC");
        let told = JobRuns { status: Some(Status::Warning), complained: true, now: at(DAY + 190), ..ran };
        assert_eq!(told.overdue_at(&nightly()), Some(at(DAY + 210).mono));
        assert_eq!(JobRuns { now: at(DAY + 210), ..told }.finding(&nightly()).status, Status::Critical);
        let missed = JobRuns { status: Some(Status::Critical), ..told };
        assert_eq!(missed.overdue_at(&nightly()), None);
    }

    #[test]
    fn a_failure_of_its_own_stays_until_the_next_run_is_missed() {
        let failed = JobRuns { status: Some(Status::Critical), ..ran(150, 200) };
        assert_eq!(failed.overdue_at(&nightly()), Some(at(DAY + 210).mono));
    }

    #[test]
    fn a_job_that_never_ran_is_due_from_its_creation_on() {
        let new = JobRuns { last: None, status: None, ..ran(600, 700) };
        assert_eq!(new.overdue_at(&nightly()), Some(at(DAY + 180).mono));
        let told = JobRuns {
            status: Some(Status::Warning),
            complained: true,
            since: at(DAY + 180).wall,
            now: at(DAY + 185),
            ..new
        };
        assert_eq!(told.overdue_at(&nightly()), Some(at(DAY + 210).mono), "of the same night");
    }

    #[test]
    fn a_run_dated_in_the_future_counts_at_the_time_of_its_report() {
        let ran = JobRuns { last: Some(at(900 * DAY).wall), ..ran(150, 200) };
        assert_eq!(ran.overdue_at(&nightly()), Some(at(DAY + 180).mono));
    }

    #[test]
    fn only_a_run_that_was_due_can_have_been_missed_with_its_host() {
        let daily = Job { due: Due::Every(24 * 60 * MINUTE), grace: 10 * MINUTE };
        let excused = |job, back| may_have_run(job, at(0).mono, at(back).mono);
        assert_eq!(
            [60, DAY - 11, DAY - 10, 2 * DAY].map(|back| excused(&daily, back)),
            [false, false, true, true]
        );
        assert!(excused(&nightly(), 60), "a time of day looks at whether it has passed");
    }

    #[test]
    fn a_deadline_that_passed_while_the_gateway_was_away_gets_its_grace_again() {
        let deaf = JobRuns { heard: at(DAY + 200).mono, ..ran(150, DAY + 200) };
        assert_eq!(deaf.overdue_at(&nightly()), Some(at(DAY + 230).mono));
        assert_eq!(JobRuns { now: at(DAY + 230), ..deaf }.finding(&nightly()).status, Status::Critical);
        let hasty = Job { grace: Duration::ZERO, ..nightly() };
        assert_eq!(deaf.overdue_at(&hasty), Some(at(DAY + 205).mono));
    }

    /// The monotonic clock is finer than the calendar. Another reading of both can therefore place
    /// the same deadline up to a millisecond later.
    #[test]
    fn a_deadline_in_the_last_millisecond_of_the_gateways_absence_gets_its_grace_again() {
        let deadline = at(DAY + 180);
        let micros = |n| Duration::from_micros(n);
        for (heard, read) in [(0, 0), (990, 990), (0, 990), (990, 995)] {
            let now = Now { mono: deadline.mono + micros(read), ..deadline };
            let deaf = JobRuns { heard: deadline.mono + micros(heard), ..ran(150, DAY + 180) };
            let due = JobRuns { now, ..deaf }.overdue_at(&nightly());
            assert_eq!(due, Some(deaf.heard + 30 * MINUTE), "{heard} {read}");
        }
    }

    #[test]
    fn a_job_with_an_interval_counts_from_its_last_report() {
        let hourly = Job { due: Due::Every(60 * MINUTE), grace: 10 * MINUTE };
        let ran = ran(100, 110);
        assert_eq!(ran.overdue_at(&hourly), Some(at(160).mono));
        let warned = JobRuns { status: Some(Status::Warning), complained: true, ..ran };
        assert_eq!(warned.overdue_at(&hourly), Some(at(170).mono));
    }
}
