//! A history of any size: days of many series, whose hosts are removed.

use std::ops::Range;
use std::path::Path;

use anyhow::ensure;
use fleetgate::store::Store;
use fleetgate::store::files::HISTORY_FILE;
use fleetgate_engine::history::query::Tier;
use fleetgate_engine::history::rollup::Bucket;
use fleetgate_engine::history::{DAY, Point, decimal};
use fleetgate_keys::SealKey;

use super::super::history::fleet::Fleet;
use super::super::history::patterns::{PATTERNS, Patterns};
use super::super::history::series::Generator;
use super::super::program::Program;
use super::OLD_HOST;
use crate::dice::Dice;

/// Series that a check compares.
const COMPARED: usize = 8;
/// Buckets that a day has at least. A series lacks three hours of one day.
const BUCKETS: [(Tier, i64); 3] = [(Tier::FiveMinutes, 250), (Tier::Hours, 20), (Tier::Days, 1)];

/// The series that exist before a run.
pub(super) struct Old {
    ids: Vec<u32>,
    days: Range<i64>,
}

/// What the history has of a series.
#[derive(PartialEq)]
struct Content {
    points: Vec<Point>,
    buckets: Vec<Vec<Bucket>>,
}

impl Old {
    /// Fills the history in the folder of a program that does not run with about so many bytes: with these days, as they
    /// are when the last one is over.
    ///
    /// # Errors
    /// Fails when a database refuses a write.
    pub async fn fill(dir: &Path, bytes: u64, days: Range<i64>) -> anyhow::Result<Old> {
        let patterns = Patterns::make(days.clone()).await?;
        let count = u32::try_from(bytes / patterns.bytes)?.max(1);
        let store = Store::open(dir, SealKey::from_bytes([1; 32])).await?;
        let ids = Fleet::new(OLD_HOST, count).register(&store, days.end * DAY).await?;
        store.close().await;
        patterns.copy(&dir.join(HISTORY_FILE), &ids).await?;
        Ok(Old { ids, days })
    }

    /// Checks that some of the series have what was written.
    ///
    /// # Errors
    /// Names a series that has not.
    pub async fn are_right(&self, program: &Program) -> anyhow::Result<()> {
        for (n, id) in self.some() {
            let found = self.content(program, id).await?;
            ensure!(found.points == self.samples(n), "series {id} has other samples than were written");
        }
        Ok(())
    }

    /// Checks that some of the series are the same in both.
    ///
    /// # Errors
    /// Names a series that is not.
    pub async fn are_same(&self, one: &Program, other: &Program) -> anyhow::Result<()> {
        for (_, id) in self.some() {
            let is_same = self.content(one, id).await? == self.content(other, id).await?;
            ensure!(is_same, "the samples or roll-ups of series {id} differ");
        }
        Ok(())
    }

    /// Returns random series, the same in every run: their places and their numbers.
    fn some(&self) -> Vec<(usize, u32)> {
        let count = self.ids.len() as u64;
        let mut dice = Dice(count);
        let places = (0..COMPARED).map(|_| dice.roll(count) as usize);
        places.map(|n| (n, self.ids[n])).collect()
    }

    /// Returns the samples of the `n`th series, as they are kept.
    fn samples(&self, n: usize) -> Vec<Point> {
        let mut generator = Generator::new(n as u32 % PATTERNS);
        let kind = generator.profile.kind();
        let kept = |value: f64| {
            let (exponent, mantissa) = decimal::one(value, kind);
            decimal::value(mantissa, exponent)
        };
        let points = generator.samples(self.days.start * DAY, self.days.end * DAY);
        points.into_iter().map(|point| Point { value: point.value.map(kept), ..point }).collect()
    }

    async fn content(&self, program: &Program, id: u32) -> anyhow::Result<Content> {
        let store = &program.server.state.store;
        let (from, to) = (self.days.start * DAY, self.days.end * DAY);
        let read = store.raw(id, from, to).await?;
        ensure!(read.damaged == 0, "{} blocks of series {id} are damaged", read.damaged);
        let mut buckets = Vec::new();
        for (tier, of_day) in BUCKETS {
            let found = store.buckets(id, tier, from, to).await?;
            let least = of_day * (self.days.end - self.days.start);
            ensure!(
                found.len() as i64 >= least,
                "series {id} has {} buckets of {}",
                found.len(),
                tier.name()
            );
            buckets.push(found);
        }
        Ok(Content { points: read.points, buckets })
    }
}
