//! The samples of one commit: their numbers, their redo, and their way into memory.

use std::sync::atomic::Ordering;

use fleetgate_engine::history::Point;
use fleetgate_engine::history::packed::redo_row;
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use tokio::sync::OwnedMutexGuard;

use super::fault::At;
use super::{Numbers, Recorder, dropped};
use crate::store::Result;
use crate::store::history::series::{Numbered, SeriesCache};

/// Samples in one row of redo, so that none is larger than 64 KiB: a sample has 26 bytes at most.
const ROW: usize = 2_500;

/// The turn of one commit. A turn that is dropped before it is [`Turn::committed`] leaves nothing behind: the
/// transaction may not have happened, and the series that it made do not exist.
pub struct Turn {
    recorder: Recorder,
    numbers: OwnedMutexGuard<Numbers>,
    taken: Vec<(u32, Point)>,
    redo_bytes: u64,
    /// The values that no graph will have, by reason.
    lacking: Vec<(&'static str, u64)>,
    may_have_made_series: bool,
}

impl Turn {
    pub(super) fn new(recorder: Recorder, numbers: OwnedMutexGuard<Numbers>) -> Turn {
        let (taken, lacking) = (Vec::new(), Vec::new());
        Turn { recorder, numbers, taken, redo_bytes: 0, lacking, may_have_made_series: false }
    }

    /// Whether the redo has room. If not, the states are committed without these samples.
    pub fn has_room(&mut self, samples: &[Sample]) -> bool {
        let shared = &self.recorder.0;
        if shared.redo_bytes.load(Ordering::Relaxed) < shared.redo_bound.load(Ordering::Relaxed) {
            return true;
        }
        let values = samples.iter().map(|sample| sample.metrics.len() as u64).sum();
        self.lacking.push(("redo", values));
        false
    }

    /// Returns the numbers of the series, and the time before which samples are too old to be taken.
    pub fn series(&mut self) -> (&mut SeriesCache, Wall) {
        self.may_have_made_series = true;
        let cut = Wall::from_millis(self.recorder.raw_cut().saturating_mul(1_000));
        (&mut self.numbers.cache, cut)
    }

    pub fn generation(&self) -> i64 {
        self.numbers.generation
    }

    /// Takes the samples, and returns the rows of their redo.
    pub fn rows(&mut self, numbered: Numbered) -> Vec<Vec<u8>> {
        let Numbered { samples, refused, too_old } = numbered;
        self.lacking.extend([("series", refused), ("old", too_old)]);
        let cache = &self.numbers.cache;
        let row = |part: &[(u32, Point)]| redo_row(part, |series| cache.kind(series));
        let rows: Vec<Vec<u8>> = samples.chunks(ROW).map(row).collect();
        self.redo_bytes = rows.iter().map(|row| row.len() as u64).sum();
        self.taken = samples;
        rows
    }

    /// The redo is in the transaction.
    ///
    /// # Errors
    /// Fails where a test ends the recorder.
    pub fn written(&self) -> Result<()> {
        self.recorder.reach(At::Redo)
    }

    /// The transaction is on disk: its samples are in memory from now on.
    ///
    /// # Errors
    /// Fails where a test ends the recorder.
    pub fn committed(mut self) -> Result<()> {
        self.recorder.reach(At::Committed)?;
        self.may_have_made_series = false;
        self.recorder.0.redo_bytes.fetch_add(self.redo_bytes, Ordering::Relaxed);
        let mut hot = self.recorder.hot_mut();
        for (series, point) in &self.taken {
            hot.push(self.numbers.generation, *series, self.numbers.cache.kind(*series), *point);
        }
        drop(hot);
        self.lacking.iter().for_each(|(why, count)| dropped(why, *count));
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.may_have_made_series {
            self.numbers.cache.clear();
        }
    }
}
