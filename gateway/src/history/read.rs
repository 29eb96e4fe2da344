//! Reading: blocks, and above them what is still in memory.
//!
//! Memory is read first: what is sealed between the two is in both, and nothing is in neither. Days that are not
//! rolled up yet, or have newer samples, are rolled up here by the same function, so that no result depends on when a
//! day is rolled up.

use std::collections::BTreeSet;
use std::ops::Range;

use fleetgate_engine::history::query::{Columns, Plan, Tier, columns};
use fleetgate_engine::history::rollup::{self, Bucket};
use fleetgate_engine::history::{BUCKET, DAY, Point, Second, SeriesKind, merged};

use super::Recorder;
use crate::store::Result;
use crate::store::history::Series;

/// The time of samples that are read at once, in whole days. One a second for so long is some 50 MB while blocks and
/// memory are merged. Samples may be kept for ten years.
const PIECE: Second = 8 * DAY;

impl Recorder {
    /// Divides a time into pieces, in their order, for [`Recorder::series`]: each has the samples of a few days.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn pieces(&self, from: Second, to: Second) -> Result<Vec<Range<Second>>> {
        let is_long = to.saturating_sub(from) > PIECE;
        let sealed = if is_long { self.0.store.sealed_time().await? } else { None };
        Ok(pieces(from..to, sealed.unwrap_or(from..from)))
    }

    /// Returns the samples of a series in `[from, to)` as they were measured, in order.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn series(&self, series: u32, from: Second, to: Second) -> Result<Vec<Point>> {
        Ok(self.raw(series, from..to).await?.points)
    }

    /// Returns the columns of each of these series, in their order.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn query(&self, asked: &[Series], plan: &Plan) -> Result<Vec<Columns>> {
        let first = plan.start.div_euclid(DAY).max(self.first_day());
        let hot: Vec<Option<i64>> =
            asked.iter().map(|series| self.first_hot(series.id, first, plan)).collect();
        let uncompacted = self.0.store.uncompacted(first).await?;
        let mut found = Vec::with_capacity(asked.len());
        for (series, hot) in asked.iter().zip(hot) {
            let fresh = hot.into_iter().chain(uncompacted).min();
            let buckets = match plan.tier {
                Tier::Raw => self.rolled(series, plan.start..plan.end, plan.step).await?.buckets,
                tier => self.of_tier(series, tier, plan, fresh).await?,
            };
            found.push(columns(&buckets, plan));
        }
        Ok(found)
    }

    /// Returns the first day of which a sample is in memory, from `first` on.
    fn first_hot(&self, series: u32, first: i64, plan: &Plan) -> Option<i64> {
        let points = self.hot().points(series, first * DAY, plan.end);
        points.first().map(|point| point.at.div_euclid(DAY))
    }

    /// `fresh`: the first day that may not be rolled up, or may have newer samples.
    async fn of_tier(
        &self,
        series: &Series,
        tier: Tier,
        plan: &Plan,
        fresh: Option<i64>,
    ) -> Result<Vec<Bucket>> {
        // Before the blocks: what is rolled up meanwhile is in both.
        let fresh = match fresh.map(|day| day.saturating_mul(DAY)).filter(|from| *from < plan.end) {
            Some(from) => self.rolled(series, from..plan.end, BUCKET).await?,
            None => Rolled::default(),
        };
        let step = tier.step_s();
        let stored = self.0.store.buckets(series.id, tier, plan.start, plan.end).await?;
        let buckets = rollup::merge(&fresh.buckets, BUCKET, step);
        let mut all = rollup::replaced_days(&stored, &buckets, &fresh.days, self.gone().whole_from);
        all.retain(|bucket| (plan.start..plan.end).contains(&bucket.at));
        Ok(if plan.step == step { all } else { rollup::merge(&all, step, plan.step) })
    }

    /// Rolls up the days that a range touches, each as a whole, because the reach of a sample is that of its day.
    async fn rolled(&self, series: &Series, range: Range<Second>, width: Second) -> Result<Rolled> {
        let kind = SeriesKind::of(&series.uom);
        let (first, end) = (range.start.div_euclid(DAY) * DAY, up_to_day(range.end));
        let mut rolled = Rolled::default();
        for days in self.pieces(first, end).await? {
            let Raw { points, mut before, is_whole } = self.raw(series.id, days).await?;
            for day in points.chunk_by(|a, b| a.at.div_euclid(DAY) == b.at.div_euclid(DAY)) {
                rolled.buckets.extend(rollup::roll_up(day, before, kind, width));
                before = day.last().copied();
                rolled.days.extend(before.filter(|_| is_whole).map(|last| last.at.div_euclid(DAY) * DAY));
            }
        }
        rolled.buckets.retain(|bucket| range.contains(&bucket.at));
        Ok(rolled)
    }

    async fn raw(&self, series: u32, range: Range<Second>) -> Result<Raw> {
        let hot = self.hot().points(series, range.start.saturating_sub(DAY), range.end);
        let (earlier, hot) = hot.split_at(hot.partition_point(|point| point.at < range.start));
        let read = self.0.store.raw(series, range.start, range.end).await?;
        let before = [read.before, earlier.last().copied()].into_iter().flatten();
        // Of two of one second, the one in memory is newer.
        let before = before.max_by_key(|point| point.at);
        Ok(Raw { points: merged(&read.points, hot), before, is_whole: read.damaged == 0 })
    }
}

/// The samples of a range, and the last one of the day before it.
struct Raw {
    points: Vec<Point>,
    before: Option<Point>,
    /// No block of it is damaged.
    is_whole: bool,
}

/// Days that were rolled up just now.
#[derive(Default)]
struct Rolled {
    buckets: Vec<Bucket>,
    /// The begin of those days of which every sample was there. Their stored buckets say nothing more.
    days: BTreeSet<Second>,
}

/// Cuts a time where samples are sealed. Before and behind that there are no more samples than memory has. The cuts of
/// a time that begins with a day are at the begin of days.
fn pieces(time: Range<Second>, sealed: Range<Second>) -> Vec<Range<Second>> {
    let (mut pieces, mut begin) = (Vec::new(), time.start);
    let first = sealed.start.div_euclid(DAY).saturating_mul(DAY);
    let mut cut = time.start.max(first).saturating_add(PIECE);
    while cut < time.end.min(sealed.end) {
        pieces.push(begin..cut);
        begin = cut;
        cut = cut.saturating_add(PIECE);
    }
    pieces.push(begin..time.end);
    pieces
}

/// Returns the end of the day in which the second before `end` is.
fn up_to_day(end: Second) -> Second {
    (end.saturating_sub(1).div_euclid(DAY)).saturating_add(1).saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::history::HOUR;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_time_is_read_in_pieces_where_samples_are() {
        let day = |n: i64| n * DAY;
        let one = pieces(day(1)..day(9), day(0)..day(90));
        assert_eq!((one.len(), &one[0]), (1, &(day(1)..day(9))));
        let cut = [day(1)..day(9), day(9)..day(17), day(17)..day(20)];
        assert_eq!(pieces(day(1)..day(20), day(0)..day(90)), cut);
        let far = pieces(0..day(3_000_000), day(20_000) + HOUR..day(20_010) + HOUR);
        assert_eq!(
            far,
            [0..day(20_008), day(20_008)..day(3_000_000)],
            "eight thousand years with ten days of samples"
        );
        let unsealed = pieces(day(1)..day(90), day(0)..day(0));
        assert_eq!((unsealed.len(), &unsealed[0]), (1, &(day(1)..day(90))));
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_time_and_have_few_days_of_sealed_samples(
            (from, length) in (0i64..99 * DAY, 1i64..999 * DAY), (first, sealed) in (0i64..999 * DAY, 0i64..99 * DAY),
        ) {
            let found = pieces(from..from + length, first..first + sealed);
            prop_assert_eq!((found[0].start, found[found.len() - 1].end), (from, from + length));
            prop_assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start));
            for piece in found {
                prop_assert!(piece.start < piece.end);
                let of_sealed = piece.end.min(first + sealed) - piece.start.max(first);
                prop_assert!(of_sealed <= PIECE);
            }
        }
    }
}
