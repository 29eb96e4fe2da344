//! Reading: blocks, and above them what is still in memory.
//!
//! Memory is read first: what is sealed between the two is in both, and nothing is in neither. Days that are not
//! rolled up yet, or have newer samples, are rolled up here by the same function, so that no result depends on when a
//! day is rolled up.

use std::ops::Range;

use fleetgate_engine::history::query::{Columns, Plan, Tier, columns};
use fleetgate_engine::history::rollup::{self, Bucket};
use fleetgate_engine::history::{BUCKET, DAY, Kind, Point, Second, merged};

use super::Recorder;
use crate::store::Result;
use crate::store::history::Series;

impl Recorder {
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
        // Days of which some samples are removed are never rolled up again.
        let first = plan.start.div_euclid(DAY).max(self.first_whole_day());
        let hot: Vec<Option<i64>> =
            asked.iter().map(|series| self.first_hot(series.id, first, plan)).collect();
        let uncompacted = self.0.store.uncompacted(first).await?;
        let mut found = Vec::with_capacity(asked.len());
        for (series, hot) in asked.iter().zip(hot) {
            let fresh = hot.into_iter().chain(uncompacted).min();
            let buckets = match plan.tier {
                Tier::Raw => self.rolled(series, plan.start..plan.end, plan.step).await?,
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
            None => Vec::new(),
        };
        let step = tier.step_s();
        let stored = self.0.store.buckets(series.id, tier, plan.start, plan.end).await?;
        let mut all = rollup::replaced(&stored, &rollup::merge(&fresh, BUCKET, step));
        all.retain(|bucket| (plan.start..plan.end).contains(&bucket.at));
        Ok(if plan.step == step { all } else { rollup::merge(&all, step, plan.step) })
    }

    /// Rolls up the days that a range touches, each as a whole, because the reach of a sample is that of its day.
    async fn rolled(&self, series: &Series, range: Range<Second>, width: Second) -> Result<Vec<Bucket>> {
        let kind = Kind::of(&series.uom);
        let days = range.start.div_euclid(DAY) * DAY..up_to_day(range.end);
        let Raw { points, mut before } = self.raw(series.id, days).await?;
        let mut buckets = Vec::new();
        for day in points.chunk_by(|a, b| a.at.div_euclid(DAY) == b.at.div_euclid(DAY)) {
            buckets.extend(rollup::roll_up(day, before, kind, width));
            before = day.last().copied();
        }
        buckets.retain(|bucket| range.contains(&bucket.at));
        Ok(buckets)
    }

    async fn raw(&self, series: u32, range: Range<Second>) -> Result<Raw> {
        let hot = self.hot().points(series, range.start.saturating_sub(DAY), range.end);
        let (earlier, hot) = hot.split_at(hot.partition_point(|point| point.at < range.start));
        let read = self.0.store.raw(series, range.start, range.end).await?;
        let before = [read.before, earlier.last().copied()].into_iter().flatten();
        // Of two of one second, the one in memory is newer.
        let before = before.max_by_key(|point| point.at);
        Ok(Raw { points: merged(&read.points, hot), before })
    }
}

/// The samples of a range, and the last one of the day before it.
struct Raw {
    points: Vec<Point>,
    before: Option<Point>,
}

/// Returns the end of the day in which the second before `end` is.
fn up_to_day(end: Second) -> Second {
    (end.saturating_sub(1).div_euclid(DAY)).saturating_add(1).saturating_mul(DAY)
}
