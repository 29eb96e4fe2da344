//! Reads a history that was opened again as its users do, and compares it with the model.

use std::fmt::Debug;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use fleetgate::health::Health;
use fleetgate::history::Recorder;
use fleetgate::store::Store;
use fleetgate::store::history::Series;
use fleetgate_engine::history::query::{Plan, Tier, columns};
use fleetgate_engine::history::rollup::Bucket;
use fleetgate_engine::history::{BUCKET, DAY, HOUR, Point, Second};
use fleetgate_engine::id::HostId;

use super::model::{Model, Name};
use super::story::{self, END, KEPT};

/// Samples have blocks of half a day, and are removed by the day.
const RAW_BLOCK: Second = DAY;
/// The tiers of buckets, with their width and the length of their blocks.
const TIERS: [(Tier, Second, Second); 3] =
    [(Tier::FiveMinutes, BUCKET, 8 * DAY), (Tier::Hours, HOUR, 64 * DAY), (Tier::Days, DAY, 512 * DAY)];

pub struct Reader {
    pub store: Store,
    recorder: Recorder,
    now: Second,
}

impl Reader {
    /// Opens the history on this day of the story.
    pub async fn open(data: &Path, day: i64) -> Result<Reader> {
        let store = story::open(data).await?;
        ensure!(!store.history.was_set_aside(), "a history is set aside");
        let recorder = story::at_noon(&store, day).await?;
        Ok(Reader { store, recorder, now: story::noon(day) })
    }

    /// Seals, rolls up, merges and removes until nothing is left to do.
    pub async fn keep_up(&self) -> Result<()> {
        self.recorder.seal_now().await?;
        self.recorder.upkeep(&Health::default()).await?;
        let status = self.recorder.status();
        let left = (status.hot_bytes, status.redo_bytes, status.damaged_blocks);
        ensure!(left == (0, 0, 0), "{status:?}");
        let day = self.store.uncompacted(0).await?;
        ensure!(day.is_none(), "day {day:?} is not rolled up");
        Ok(())
    }

    /// Returns the model whose samples these are, before the upkeep.
    pub async fn one_of<'a>(&self, models: &[&'a Model]) -> Result<&'a Model> {
        let mut differences = Vec::new();
        for &model in models {
            match self.difference(model, self.kept_from(RAW_BLOCK)).await? {
                None => return Ok(model),
                Some(difference) => differences.push(difference),
            }
        }
        bail!("the samples are not those that were acknowledged: {differences:?}")
    }

    /// Fails if graphs are not those of the model. What is about to be removed may still be there.
    pub async fn graphs_are(&self, model: &Model) -> Result<()> {
        for (name, of_series) in &model.0 {
            let Some(series) = self.series(name).await? else { continue };
            for (tier, width, block) in TIERS {
                let plan = Plan { tier, step: width, start: self.kept_from(block), end: END };
                let found = self.recorder.query(std::slice::from_ref(&series), &plan).await?;
                let is_same = found[..] == [columns(&of_series.buckets(width), &plan)];
                ensure!(is_same, "{}: the graph of {tier:?} is another", name.label);
            }
        }
        Ok(())
    }

    /// Fails if what is stored is not all of the model, or more. Nothing may be left to do.
    pub async fn everything_is(&self, model: &Model) -> Result<()> {
        if let Some(difference) = self.difference(model, 0).await? {
            bail!("after the upkeep: {difference}");
        }
        self.graphs_are(model).await?;
        for (name, of_series) in &model.0 {
            let Some(series) = self.series(name).await? else { continue };
            for (tier, width, block) in TIERS {
                let found = self.store.buckets(series.id, tier, 0, i64::MAX).await?;
                let kept = self.kept_from(block);
                let wanted: Vec<Bucket> =
                    of_series.buckets(width).into_iter().filter(|bucket| bucket.at >= kept).collect();
                if let Some(difference) = first_difference(&found, &wanted) {
                    bail!("after the upkeep: {} {tier:?}: {difference}", name.label);
                }
            }
        }
        Ok(())
    }

    /// Says where the samples that are read from this second on are not those that are kept of the model.
    async fn difference(&self, model: &Model, from: Second) -> Result<Option<String>> {
        for (name, of_series) in &model.0 {
            let found = match self.series(name).await? {
                Some(series) => self.recorder.series(series.id, from, END).await?,
                None => Vec::new(),
            };
            let kept = of_series.samples.range(self.kept_from(RAW_BLOCK)..);
            let wanted: Vec<Point> = kept.map(|(at, value)| Point { at: *at, value: *value }).collect();
            if let Some(difference) = first_difference(&found, &wanted) {
                return Ok(Some(format!("{}: {difference}", name.label)));
            }
        }
        Ok(None)
    }

    async fn series(&self, name: &Name) -> Result<Option<Series>> {
        let all = self.store.series(HostId::from_i64(name.host), Some(name.service.as_str())).await?;
        Ok(all.into_iter().find(|series| series.label == name.label))
    }

    /// Returns the first second that is kept. What is removed at once, such as a block, goes when all of it is old.
    fn kept_from(&self, block: Second) -> Second {
        (self.now - KEPT).div_euclid(block) * block
    }
}

fn first_difference<T: PartialEq + Debug>(found: &[T], wanted: &[T]) -> Option<String> {
    let same = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
    let (one, other) = (found.get(same), wanted.get(same));
    let counts = format!("{} of {}", found.len(), wanted.len());
    (one.is_some() || other.is_some()).then(|| format!("{counts}; number {same} is {one:?}, not {other:?}"))
}
