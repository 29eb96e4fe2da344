//! Removes data that has been kept long enough: events, notifications, messages, ended acknowledgements,
//! downtimes and grants, closed incidents, intervals of states, enrolments without a device, and the
//! remains of removed hosts. `store/retention` decides which rows may go.
//!
//! Other work does not wait for it: reads find the rows first, and each transaction is small and
//! followed by a pause. A clock that was set is trusted after an hour, because rows removed by a wrong
//! clock do not come back.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::time::{Mono, Now};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::maintenance::steady_clock::SteadyClock;
use crate::store::Store;
use crate::store::retention::{self, Limits, Retention, RetentionKind};

/// Interval between two rounds: the limits are counted in days.
const EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Time without a clock change after which the clock is trusted. Time servers correct it within minutes
/// after a start.
const SETTLED: Duration = Duration::from_secs(3_600);
/// Smaller changes of the clock are adjustments and do not count as setting it.
const ADJUSTED: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pause after each transaction: other writes go first, and the disk gets time for them.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after a read that found no old rows.
const BREATH: Duration = Duration::from_millis(5);
/// Consecutive windows without old rows that end the scan of a table which is ordered by time. A clock
/// that was once ahead may have left a single such window.
const RECENT: u32 = 5;

/// Decides when the next round begins. The caller passes the time.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    clock: SteadyClock,
    last: Option<Mono>,
}

impl Schedule {
    fn new(now: Now) -> Self {
        Schedule { clock: SteadyClock::new(now, ADJUSTED), last: None }
    }

    fn is_due(&mut self, now: Now) -> bool {
        let due =
            self.clock.look(now) >= SETTLED && self.last.is_none_or(|last| now.mono.since(last) >= EVERY);
        if due {
            self.last = Some(now.mono);
        }
        due
    }
}

pub fn start(tasks: &mut JoinSet<()>, store: Store, keep: Retention, stop: CancellationToken) {
    tasks.spawn(async move {
        let mut schedule = Schedule::new(clock::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let now = clock::now();
            if !schedule.is_due(now) {
                continue;
            }
            let limits = keep.limits(now.wall);
            tokio::select! {
                outcome = round(&store, &limits) => report(outcome),
                // A transaction that is dropped is rolled back.
                () = stop.cancelled() => return,
            }
        }
    });
}

fn report(outcome: crate::store::Result<BTreeMap<RetentionKind, u64>>) {
    match outcome {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => {
            let kinds: Vec<String> = removed.iter().map(|(kind, n)| format!("{n} {}", kind.name())).collect();
            tracing::info!("older than is kept, removed: {}", kinds.join(", "));
        }
        Err(error) => tracing::warn!("old events and notifications stay for now: {error}"),
    }
}

/// Removes all rows that are too old, in small steps. Returns the number of rows of each kind,
/// including their dependent rows.
///
/// # Errors
/// Fails when the database refuses; the rows removed before stay removed.
pub async fn round(store: &Store, limits: &Limits) -> crate::store::Result<BTreeMap<RetentionKind, u64>> {
    let mut removed = BTreeMap::new();
    for kind in RetentionKind::ALL {
        let rows = all_of(store, kind, limits).await?;
        if rows > 0 {
            removed.insert(kind, rows);
        }
    }
    Ok(removed)
}

async fn all_of(store: &Store, kind: RetentionKind, limits: &Limits) -> crate::store::Result<u64> {
    let (mut after, mut recent, mut removed) = (Some(i64::MIN), 0, 0);
    while let Some(from) = after.filter(|_| recent < RECENT) {
        let look = retention::look(&mut *store.reader().await?, kind, from, limits).await?;
        (after, recent) = (look.next, if look.is_recent { recent + 1 } else { 0 });
        if look.old.is_empty() {
            tokio::time::sleep(BREATH).await;
        } else {
            removed += slice(store, kind, &look.old, limits).await?;
        }
    }
    Ok(removed)
}

async fn slice(
    store: &Store,
    kind: RetentionKind,
    old: &[i64],
    limits: &Limits,
) -> crate::store::Result<u64> {
    let mut removed = 0;
    loop {
        let mut tx = store.begin().await?;
        let rows = retention::remove(&mut tx, kind, old, limits).await?;
        tx.commit().await?;
        if rows == 0 {
            return Ok(removed);
        }
        metrics::counter!("fleetgate_retention_removed_total", "kind" => kind.name()).increment(rows);
        removed += rows;
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Wall;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(ms: u64, wall: i64) -> Now {
        Now { mono: Mono::from_millis(ms), wall: Wall::from_millis(wall) }
    }

    #[test]
    fn a_round_begins_an_hour_after_the_start_and_every_six_hours() {
        let mut schedule = Schedule::new(at(5, 1_000));
        let due = |schedule: &mut Schedule, ms: u64| schedule.is_due(at(ms + 5, 1_000 + ms as i64));
        assert!(!due(&mut schedule, HOUR - 1));
        assert!(due(&mut schedule, HOUR));
        assert!(!due(&mut schedule, 7 * HOUR - 1));
        assert!(due(&mut schedule, 7 * HOUR));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_an_hour() {
        let mut schedule = Schedule::new(at(0, 0));
        let ahead = 5 * 365 * 86_400_000;
        let mut due = |ms: u64, by: i64| schedule.is_due(at(ms, ms as i64 + by));
        assert!(!due(HOUR - 60_000, 0));
        assert!(!due(HOUR, ahead), "years ahead since a moment");
        assert!(!due(HOUR + 60_000, 0), "and back");
        assert!(!due(2 * HOUR + 59_999, 30_000), "adjusted a little");
        assert!(due(2 * HOUR + 60_000, 30_000));
    }
}
