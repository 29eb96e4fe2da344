//! Sealing: what a generation has in memory becomes blocks, and its redo is removed.
//!
//! A step that fails, or a kill between two steps, costs nothing: what is in memory and in the redo is sealed again
//! later, and a block takes the same samples twice without a change. Generations are sealed in their order, so that
//! the later of two samples of one second counts. A stop seals nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetgate_engine::time::Mono;
use tokio_util::sync::CancellationToken;

use super::Recorder;
use super::fault::At;
use crate::clock;
use crate::health::{Health, Part, Space};
use crate::store::history::redo;
use crate::store::{Result, Store};

/// Interval between two looks. It is also the pause after a step that failed.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });
/// How long a generation gathers. An hour of a series fills a block well.
const GENERATION: Duration = Duration::from_secs(3_600);
/// Bytes in memory at which a generation ends earlier.
const FULL: usize = 64 * 1024 * 1024;
/// Series that one transaction seals, and samples after which it takes no other one. It takes some 20 ms. Devices that
/// were cut off for weeks have samples of hundreds of hours.
const SERIES: usize = 512;
const SAMPLES: usize = 40_000;
/// Rows of redo that one transaction removes, which is what a commit waits for at most.
const FORGOTTEN: i64 = 200;
/// The longest pause after a step, which is ten times as long as the step otherwise.
const LONGEST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });

/// Pauses after a step that began at `begun`, so that the disk and the other writes have most of the time.
pub(super) async fn breathe(begun: Mono) {
    tokio::time::sleep((clock::now().mono.since(begun) * 10).min(LONGEST_PAUSE)).await;
}

pub(super) async fn run(recorder: Recorder, health: Health, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        recorder.measure();
        mend(&recorder.0.store).await;
        if health.space() != Space::Enough || !recorder.is_due().await {
            continue;
        }
        tokio::select! {
            outcome = recorder.seal_now() => told(&health, outcome),
            // A transaction that is dropped is rolled back.
            () = stop.cancelled() => return,
        }
    }
}

fn told(health: &Health, outcome: Result<()>) {
    let is_news = health.wrote(Part::History, outcome.is_ok());
    match outcome {
        Ok(()) if is_news => tracing::info!("the history database takes writes again"),
        Err(error) if is_news => tracing::warn!(
            "the history database takes no writes, and newer samples wait in fleetgate.db: {error}"
        ),
        _ => {}
    }
}

/// Sets a history aside that a statement found damaged. The next step begins a new one.
pub(super) async fn mend(store: &Store) {
    match store.history.mend().await {
        Ok(None) => {}
        Ok(Some(lost)) => store.tell_of_lost_history(&lost).await,
        Err(error) => tracing::error!("the damaged history database stays in use: {error:#}"),
    }
}

impl Recorder {
    /// Whether a generation is over, or an earlier one waits to be sealed.
    pub(super) async fn is_due(&self) -> bool {
        let (generation, begun) = {
            let numbers = self.0.numbers.lock().await;
            (numbers.generation, numbers.begun)
        };
        let hot = self.hot();
        let is_over = clock::now().mono.since(begun) >= GENERATION || hot.bytes_of(generation) >= FULL;
        is_over || !hot.before(generation).is_empty()
    }

    fn measure(&self) {
        let status = self.status();
        metrics::gauge!("fleetgate_history_hot_bytes").set(status.hot_bytes as f64);
        metrics::gauge!("fleetgate_history_redo_bytes").set(status.redo_bytes as f64);
    }

    /// Seals the generations that wait, then ends the present one and seals it too.
    ///
    /// # Errors
    /// Fails when a database refuses a step. What is not sealed stays in memory and in the redo.
    pub async fn seal_now(&self) -> Result<()> {
        let _one = self.0.sealing.lock().await;
        // Those that wait after a failure come first: while it lasts, no new generation begins.
        let current = self.0.numbers.lock().await.generation;
        self.seal_before(current).await?;
        let current = self.rotate().await;
        self.reach(At::Rotated)?;
        self.seal_before(current).await
    }

    async fn seal_before(&self, current: i64) -> Result<()> {
        let waiting = self.hot().before(current);
        for generation in waiting {
            self.seal(generation).await?;
            self.forget(generation).await?;
            self.hot_mut().forget(generation);
        }
        Ok(())
    }

    /// Begins the next generation, if this one has samples or is old. Returns the number of the present one.
    async fn rotate(&self) -> i64 {
        let mut numbers = self.0.numbers.lock().await;
        numbers.begun = clock::now().mono;
        if self.hot().bytes_of(numbers.generation) > 0 {
            numbers.generation += 1;
        }
        numbers.generation
    }

    async fn seal(&self, generation: i64) -> Result<()> {
        let mut after = None;
        loop {
            let begun = clock::now().mono;
            let part = self.hot().part(generation, after, (SERIES, SAMPLES));
            let Some(last) = part.last() else { break };
            after = Some(last.series);
            self.0.store.seal_step(&part).await?;
            self.reach(At::SealStep)?;
            breathe(begun).await;
        }
        self.reach(At::Sealed)
    }

    /// Removes the redo of a sealed generation.
    async fn forget(&self, generation: i64) -> Result<()> {
        loop {
            let begun = clock::now().mono;
            let mut tx = self.0.store.begin().await?;
            let bytes = redo::forget(&mut tx, generation, FORGOTTEN).await?;
            tx.commit().await?;
            if bytes == 0 {
                return Ok(());
            }
            // Nothing is counted below 0: an empty row counts as a byte here.
            let left = |all: u64| Some(all.saturating_sub(bytes));
            let _ = self.0.redo_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            self.reach(At::Forget)?;
            breathe(begun).await;
        }
    }
}
