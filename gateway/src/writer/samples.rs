//! The samples' way to the history database: a task of its own, so that neither its speed nor its
//! disk can hold up a state. What has no room is dropped and counted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::wire::Sample;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pending::MAX_SAMPLES;
use crate::health::{Health, Part};
use crate::store::Store;
use crate::store::history::{self, SeriesCache};

/// Between attempts of a failing write; meanwhile `MAX_SAMPLES` gather.
const PAUSE: Duration = Duration::from_secs(5);

/// Counts what history will lack.
pub(super) fn dropped(why: &'static str, count: u64) {
    metrics::counter!("fleetgate_samples_dropped_total", "why" => why).increment(count);
}

pub(super) struct Samples(Arc<Shared>);

struct Shared {
    waiting: Mutex<Vec<Sample>>,
    some: Notify,
    closing: CancellationToken,
    ended: CancellationToken,
}

impl Samples {
    pub fn start(tasks: &mut JoinSet<()>, store: Store, health: Health) -> Samples {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            some: Notify::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        tasks.spawn(run(shared.clone(), store, health));
        Samples(shared)
    }

    pub fn append(&self, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        self.0.put(samples);
        self.0.some.notify_one();
    }

    pub async fn finish(&self) {
        self.0.closing.cancel();
        self.0.ended.cancelled().await;
    }
}

impl Shared {
    fn put(&self, mut samples: Vec<Sample>) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let room = MAX_SAMPLES.saturating_sub(waiting.len());
        dropped("lag", samples.len().saturating_sub(room) as u64);
        samples.truncate(room);
        waiting.append(&mut samples);
    }

    fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.waiting.lock().expect("no holder panics"))
    }
}

async fn run(shared: Arc<Shared>, store: Store, health: Health) {
    let mut cache = SeriesCache::default();
    loop {
        tokio::select! {
            () = shared.some.notified() => {}
            () = shared.closing.cancelled() => {}
        }
        let closing = shared.closing.is_cancelled();
        let samples = shared.take();
        if !samples.is_empty() {
            let written = write(&store, &mut cache, &samples).await;
            health.wrote(Part::History, written);
            if !written {
                retry_later(&shared, samples).await;
            }
        }
        if closing {
            break;
        }
    }
    shared.ended.cancel();
}

/// A failed transaction is made anew, with new numbers for new series.
async fn write(store: &Store, cache: &mut SeriesCache, samples: &[Sample]) -> bool {
    let outcome = async {
        let mut tx = store.history_write.begin_with("begin immediate").await?;
        let refused = history::write(&mut tx, cache, samples).await?;
        tx.commit().await?;
        Ok::<u64, crate::store::Error>(refused)
    };
    match outcome.await {
        Ok(refused) => {
            dropped("series", refused);
            true
        }
        Err(error) => {
            cache.clear();
            tracing::warn!("the history database takes nothing: {error}; graphs may have a gap");
            false
        }
    }
}

async fn retry_later(shared: &Shared, samples: Vec<Sample>) {
    if shared.closing.is_cancelled() {
        return dropped("stopped", samples.len() as u64);
    }
    shared.put(samples);
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => shared.some.notify_one(),
        () = shared.closing.cancelled() => {}
    }
}
