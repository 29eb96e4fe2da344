//! Upkeep: days that are over become buckets, buckets become larger blocks, and what is old is removed.
//!
//! All of it in small steps of one transaction each, with pauses. A step that fails is repeated an hour later. The
//! clock is that of `believed.rs`: samples that a wrong clock removed would not come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetgate_engine::history::{DAY, HOUR, Second};
use tokio_util::sync::CancellationToken;

use super::fault::At;
use super::sealer::breathe;
use super::{Keep, Recorder, first_kept, seconds};
use crate::clock;
use crate::health::{Health, Space};
use crate::store::Result;
use crate::store::history::blocks::MAX_HOUR;
use crate::store::history::series::{self, SeriesCache};
use crate::store::history::{Conversion, Table};

/// Interval between two looks, and the delay of the first one, because a start has other work.
const EVERY: Duration = Duration::from_secs(3_600);
const FIRST: Duration = Duration::from_secs(60);
/// How long after its end a day is rolled up, so that its last generation is sealed.
const SETTLED: Second = HOUR;
/// Series of one step at most, of the first one, and at least. A step that took long is followed by one of half as many
/// series, because a series of one sample a second has sixty times the usual samples.
const SERIES: u32 = 256;
const FIRST_SERIES: u32 = 32;
const FEWEST: u32 = 16;
const LONG: Duration = Duration::from_millis(20);
/// Blocks removed in one step, and the pause after it.
const EXPIRED: usize = 2_000;
const PAUSE: Duration = Duration::from_secs(1);
/// Days of the blocks that days of buckets are merged into.
const PERIOD: i64 = 8;
/// Pause before the conversion of an older history goes on after a failure, or on a full disk.
const RETRY: Duration = Duration::from_secs(60);

pub(super) async fn run(recorder: Recorder, health: Health, stop: CancellationToken) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = EVERY,
            () = stop.cancelled() => return,
        }
        tokio::select! {
            outcome = recorder.upkeep(&health) => {
                if let Err(error) = outcome {
                    tracing::warn!("samples are not rolled up for now: {error}");
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Converts the history of an older version until nothing of it is left.
pub(super) async fn convert(recorder: Recorder, health: Health, stop: CancellationToken) {
    let shared = &recorder.0;
    loop {
        let begun = clock::now().mono;
        let pause = if health.space() != Space::Enough {
            RETRY
        } else {
            match shared.store.convert_step().await {
                Ok(Conversion::None | Conversion::Done) => break,
                Ok(Conversion::More { percent }) => {
                    *shared.converting.lock().expect("no holder panics") = Some(percent);
                    clock::now().mono.since(begun)
                }
                Err(error) => {
                    tracing::warn!("the older history is not converted for now: {error:#}");
                    RETRY
                }
            }
        };
        if recorder.reach(At::ConvertStep).is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
    *shared.converting.lock().expect("no holder panics") = None;
}

/// Whether a day is over and its last generation is sealed.
fn is_over(day: i64, now: Second) -> bool {
    (day + 1) * DAY + SETTLED <= now
}

/// Returns the oldest period with days that are not merged, if it is over and all its days are rolled up.
fn period_to_merge(oldest_hour: Option<u32>, uncompacted: Option<i64>, now: Second) -> Option<i64> {
    let period = (i64::from(oldest_hour?) / 24).div_euclid(PERIOD);
    let end = (period + 1) * PERIOD;
    let is_over = end * DAY + SETTLED <= now && uncompacted.is_none_or(|day| day >= end);
    is_over.then_some(period)
}

/// Returns the hour before which the blocks of each table are removed.
fn expiries(keep: &Keep, now: Second) -> Vec<(Table, u32)> {
    let cut = |age: Duration| now.saturating_sub(seconds(age));
    let hour = |cut: Second| u32::try_from(cut.div_euclid(HOUR)).ok();
    // A sample of an earlier day, which is never rolled up again, stands in the way of later days.
    let whole = first_kept(keep, now);
    let tiers = [
        (Table::RawHours, Some(whole)),
        (Table::Raw, Some(whole)),
        (Table::FiveMinutes, Some(cut(keep.five_minutes))),
        (Table::Hours, Some(cut(keep.hours))),
        (Table::Daily, keep.days.map(cut)),
    ];
    tiers.into_iter().filter_map(|(table, cut)| Some((table, hour(cut?)?))).collect()
}

impl Recorder {
    /// Rolls up, merges and removes everything that is due.
    ///
    /// # Errors
    /// Fails when a database refuses a step. The next call goes on there.
    pub async fn upkeep(&self, health: &Health) -> Result<()> {
        // A removal needs little room and makes some for what follows.
        self.expire().await?;
        self.remove_series().await?;
        if health.space() == Space::Enough {
            self.compact(health).await?;
            self.merge().await?;
        }
        let damaged = self.0.store.damaged_blocks().await?;
        self.0.damaged_blocks.store(damaged, Ordering::Relaxed);
        metrics::counter!("fleetgate_history_blocks_damaged_total").absolute(damaged.unsigned_abs());
        Ok(())
    }

    async fn compact(&self, health: &Health) -> Result<()> {
        let mut next = i64::MIN;
        // A day that is not whole, or that a step leaves behind, does not hold up those after it.
        while let Some(day) = self.0.store.uncompacted(next.max(self.first_day())).await? {
            // Weeks of days may wait after a failure.
            if !is_over(day, self.believed()) || health.space() != Space::Enough {
                break;
            }
            next = day + 1;
            self.compact_day(day).await?;
        }
        Ok(())
    }

    async fn compact_day(&self, day: i64) -> Result<()> {
        let store = &self.0.store;
        // The cache of the commits is theirs, and they do not wait for this.
        let mut kinds = SeriesCache::default();
        series::load(&mut *store.reader().await?, &mut kinds).await?;
        let kind = |series| kinds.kind(series);
        let mut ranges = Ranges::new(store.newest_series().await?);
        while let Some((first, last)) = ranges.part() {
            let begun = clock::now().mono;
            let seen = store.compact_step(day, first, last, &kind).await?;
            ranges.took(clock::now().mono.since(begun));
            if !seen.is_empty() {
                let mut tx = store.begin().await?;
                series::seen(&mut tx, &seen).await?;
                tx.commit().await?;
            }
            self.reach(At::CompactStep)?;
            breathe(begun).await;
        }
        Ok(())
    }

    async fn merge(&self) -> Result<()> {
        let store = &self.0.store;
        let mut from = 0;
        loop {
            let uncompacted = store.uncompacted(self.first_day()).await?;
            let oldest = store.oldest_hour(Table::Days, from).await?;
            let Some(period) = period_to_merge(oldest, uncompacted, self.believed()) else { return Ok(()) };
            // What a step leaves behind holds up no later period.
            from = u32::try_from((period + 1) * PERIOD * 24).unwrap_or(MAX_HOUR);
            let mut ranges = Ranges::new(store.newest_series().await?);
            while let Some((first, last)) = ranges.part() {
                let begun = clock::now().mono;
                store.merge_step(period, first, last).await?;
                ranges.took(clock::now().mono.since(begun));
                self.reach(At::MergeStep)?;
                breathe(begun).await;
            }
        }
    }

    async fn expire(&self) -> Result<()> {
        let store = &self.0.store;
        for (table, before) in expiries(&self.0.keep, self.believed()) {
            while store.expire_step(table, before, EXPIRED as i64).await? >= EXPIRED {
                tokio::time::sleep(PAUSE).await;
            }
        }
        store.note_believed(self.time_to_note()).await?;
        let noted = store.noted().await?;
        *self.0.gone.lock().expect("no holder panics") = noted.gone;
        Ok(())
    }

    /// Removes the series of removed hosts of which nothing is kept any more.
    async fn remove_series(&self) -> Result<()> {
        // Buckets that are kept for ever need the name of their series.
        let Some(longest) = self.0.keep.days else { return Ok(()) };
        let before = self.believed().saturating_sub(seconds(longest));
        let mut after = Some(0);
        while let Some(from) = after {
            let mut numbers = self.0.numbers.lock().await;
            let mut tx = self.0.store.begin().await?;
            let gone = series::remove_gone(&mut tx, from, before).await?;
            tx.commit().await?;
            if gone.removed > 0 {
                numbers.cache.clear();
            }
            drop(numbers);
            after = gone.next;
            tokio::time::sleep(PAUSE / 10).await;
        }
        Ok(())
    }
}

/// The numbers of all series, a few at a time.
struct Ranges {
    next: u32,
    newest: u32,
    size: u32,
}

impl Ranges {
    fn new(newest: u32) -> Ranges {
        Ranges { next: 0, newest, size: FIRST_SERIES }
    }

    /// Returns the first and the last number of the next part.
    fn part(&mut self) -> Option<(u32, u32)> {
        let first = self.next;
        let last = first.saturating_add(self.size - 1).min(self.newest);
        self.next = last.saturating_add(1);
        (first <= self.newest).then_some((first, last))
    }

    fn took(&mut self, time: Duration) {
        self.size = match time {
            time if time > LONG => (self.size / 2).max(FEWEST),
            time if time < LONG / 4 => (self.size * 2).min(SERIES),
            _ => self.size,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn days(n: u64) -> Duration {
        Duration::from_secs(n * 86_400)
    }

    #[test]
    fn a_day_is_rolled_up_an_hour_after_its_end() {
        assert!(!is_over(100, 101 * DAY + HOUR - 1));
        assert!(is_over(100, 101 * DAY + HOUR));
        assert!(!is_over(100, 50 * DAY), "of a clock that was ahead");
    }

    #[test]
    fn a_period_is_merged_when_it_is_over_and_rolled_up() {
        let hour = |day: u32| Some(day * 24);
        let over = 16 * DAY + HOUR;
        assert_eq!(period_to_merge(hour(8), None, over), Some(1));
        assert_eq!(period_to_merge(hour(15), Some(16), over), Some(1));
        assert_eq!(period_to_merge(hour(8), None, over - 1), None);
        assert_eq!(period_to_merge(hour(8), Some(15), over), None, "a late sample comes first");
        assert_eq!(period_to_merge(hour(16), Some(17), over), None);
        assert_eq!(period_to_merge(None, None, over), None);
    }

    #[test]
    fn each_tier_has_its_own_age_and_days_are_kept_for_ever_unless_said_otherwise() {
        let keep = Keep { raw: days(30), five_minutes: days(90), hours: days(400), days: None };
        let now = 1_000 * DAY;
        let usual = [
            (Table::RawHours, 969 * 24),
            (Table::Raw, 969 * 24),
            (Table::FiveMinutes, 910 * 24),
            (Table::Hours, 600 * 24),
        ];
        assert_eq!(expiries(&keep, now), usual);
        assert_eq!(expiries(&keep, now + 3 * HOUR - 1)[..2], usual[..2], "late samples are rolled up first");
        let next = [(Table::RawHours, 970 * 24), (Table::Raw, 970 * 24)];
        for hours in [3, 26] {
            let then = &expiries(&keep, now + hours * HOUR)[..2];
            assert_eq!(then, next, "a day of samples goes as a whole, after {hours} hours");
        }
        let some = Keep { days: Some(days(999)), ..keep };
        assert_eq!(expiries(&some, now)[4], (Table::Daily, 24));
        assert!(expiries(&keep, 20 * DAY).is_empty(), "a clock near 1970 removes nothing");
    }

    #[test]
    fn steps_have_as_many_series_as_they_have_time_for() {
        let mut ranges = Ranges::new(600);
        let mut sizes = |time: Duration| {
            std::array::from_fn::<u32, 5, _>(|_| {
                ranges.took(time);
                ranges.size
            })
        };
        assert_eq!(sizes(Duration::ZERO), [64, 128, 256, 256, 256]);
        assert_eq!(sizes(LONG), [256; 5]);
        assert_eq!(sizes(LONG * 2), [128, 64, 32, 16, 16]);
    }

    #[test]
    fn every_series_is_in_one_range() {
        let mut ranges = Ranges::new(100);
        assert_eq!(ranges.part(), Some((0, 31)));
        ranges.took(LONG * 2);
        assert_eq!(ranges.part(), Some((32, 47)));
        ranges.took(Duration::ZERO);
        assert_eq!((ranges.part(), ranges.part(), ranges.part()), (Some((48, 79)), Some((80, 100)), None));
        let newest = u32::MAX >> 1;
        let mut last = Ranges { next: newest, ..Ranges::new(newest) };
        assert_eq!((last.part(), last.part()), (Some((newest, newest)), None));
    }
}
