//! Writes samples to the history database in a task of its own, so that neither its speed nor its disk
//! can delay a state. Samples that do not fit are dropped and counted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::{Mono, Now, Wall};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::pending::MAX_SAMPLES;
use crate::clock;
use crate::health::{Health, Part};
use crate::store::history::{self, SeriesCache};
use crate::store::{Store, prune};

/// How long samples wait for others. Graphs do not need more, and samples of one series share a page.
/// This saves half of a fast fleet's writes.
const GATHER: Duration = Duration::from_secs(1);
/// Pause between the attempts of a failing write; up to `MAX_SAMPLES` gather meanwhile.
const PAUSE: Duration = Duration::from_secs(5);

/// Pause between two steps of a pass over old samples, which takes at most a fiftieth of this task's
/// time.
const STEP: Duration = Duration::from_secs(1);
/// Pause between two passes. An hour's samples of 10,000 hosts are removed before the next one.
const PASS: Duration = Duration::from_secs(3_600);
/// Delay of the first pass, because a start has other work.
const FIRST_PASS: Duration = Duration::from_secs(60);
/// Time after which a wall clock that was set ahead is trusted, and the most that it may jump. The
/// operator thus has time to notice a wrong clock.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Counts samples that the history lacks.
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
    /// Starts the task. `keep` is the retention.
    pub fn start(tasks: &mut JoinSet<()>, store: Store, health: Health, keep: Duration) -> Samples {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            some: Notify::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        tasks.spawn(run(shared.clone(), store, health, keep));
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

    /// Waits for further samples, or for the end.
    async fn gather(&self) {
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = self.closing.cancelled() => {}
        }
    }

    fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.waiting.lock().expect("no holder panics"))
    }
}

async fn run(shared: Arc<Shared>, store: Store, health: Health, keep: Duration) {
    let mut cache = SeriesCache::default();
    let mut pass = Pass::new(keep, clock::now());
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.some.notified() => shared.gather().await,
            () = shared.closing.cancelled() => {}
            _ = steps.tick() => pass.step(&store, &mut cache).await,
        }
        mend(&store, &mut cache).await;
        let closing = shared.closing.is_cancelled();
        let samples = shared.take();
        if !samples.is_empty() {
            let mut written = write(&store, &mut cache, &samples).await;
            if !written && mend(&store, &mut cache).await {
                written = write(&store, &mut cache, &samples).await;
            }
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

/// A pass over all series that removes old samples.
struct Pass {
    keep: Duration,
    /// The last series that was examined.
    after: i64,
    due: Mono,
    /// The time when the wall clock was last trusted.
    believed: Now,
}

impl Pass {
    fn new(keep: Duration, now: Now) -> Pass {
        Pass { keep, after: 0, due: now.mono + FIRST_PASS, believed: now }
    }

    /// Returns the time before which samples are removed. A clock that was set far ahead does not move it:
    /// the samples would still be gone when the clock is set back.
    fn cut(&mut self, now: Now) -> Wall {
        let elapsed = now.mono.since(self.believed.mono);
        let believable = self.believed.wall + elapsed + BELIEVED_AFTER;
        if elapsed >= BELIEVED_AFTER {
            self.believed = now;
        }
        now.wall.min(believable) - self.keep
    }

    async fn step(&mut self, store: &Store, cache: &mut SeriesCache) {
        let now = clock::now();
        if now.mono < self.due {
            return;
        }
        let cut = self.cut(now);
        let done = async {
            let mut tx = store.history.write().begin_with("begin immediate").await?;
            let done = prune::step(&mut tx, self.after, cut).await?;
            tx.commit().await?;
            Ok::<_, crate::store::Error>(done)
        };
        match store.history.judge(done.await) {
            Ok(done) => {
                if done.series > 0 {
                    cache.clear();
                }
                self.after = done.next.unwrap_or(0);
                if done.next.is_none() {
                    self.due = now.mono + PASS;
                }
            }
            Err(error) => {
                tracing::warn!("old samples stay: {error}");
                self.due = now.mono + PASS;
            }
        }
    }
}

/// Sets a history aside that a statement found damaged. The next samples begin a new one.
async fn mend(store: &Store, cache: &mut SeriesCache) -> bool {
    match store.history.mend().await {
        Ok(None) => false,
        Ok(Some(lost)) => {
            cache.clear();
            store.tell_of_lost_history(&lost).await;
            true
        }
        Err(error) => {
            tracing::error!("the damaged history database stays in use: {error:#}");
            false
        }
    }
}

/// Writes the samples. A failed transaction is built anew, with new ids for new series.
async fn write(store: &Store, cache: &mut SeriesCache, samples: &[Sample]) -> bool {
    let outcome = async {
        let mut tx = store.history.write().begin_with("begin immediate").await?;
        let refused = history::write(&mut tx, cache, samples).await?;
        tx.commit().await?;
        Ok::<u64, crate::store::Error>(refused)
    };
    match store.history.judge(outcome.await) {
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

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_probes::sample::Metric;

    use super::*;
    use crate::store::fixture;

    fn sample(at: Wall) -> Sample {
        let metrics = vec![Metric::plain("rtt", 1.0, "ms")];
        Sample { host: Id::from_i64(7), service: "ping".into(), at, metrics }
    }

    #[test]
    fn a_clock_step_forward_expires_no_samples_for_a_day() {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        let at = |mono: Duration, wall: Duration| Now {
            mono: Mono::from_secs(100) + mono,
            wall: Wall::from_millis(1_700_000_000_000) + wall,
        };
        let start = at(Duration::ZERO, Duration::ZERO);
        let mut pass = Pass::new(30 * DAY, start);
        let hour = DAY / 24;
        assert_eq!(pass.cut(at(hour, hour)), start.wall + hour - 30 * DAY);
        assert_eq!(pass.cut(at(2 * hour, 365 * DAY)), start.wall + 2 * hour + DAY - 30 * DAY);
        pass.cut(at(25 * hour, 366 * DAY));
        assert_eq!(
            pass.cut(at(26 * hour, 366 * DAY)),
            start.wall + 366 * DAY - 30 * DAY,
            "it stays: believed"
        );
    }

    #[tokio::test]
    async fn a_removed_series_is_created_again_by_its_next_sample() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        assert!(write(&store, &mut cache, &[sample(Wall::from_millis(1_000))]).await);
        let mut pass = Pass { due: Mono::ZERO, ..Pass::new(Duration::from_secs(3_600), clock::now()) };
        while pass.due == Mono::ZERO {
            pass.step(&store, &mut cache).await;
        }
        assert!(store.series(Id::from_i64(7), None).await.unwrap().is_empty());
        assert!(write(&store, &mut cache, &[sample(clock::wall())]).await, "under a new number");
        let later = pass.due;
        pass.step(&store, &mut cache).await;
        assert_eq!((pass.due, store.series(Id::from_i64(7), None).await.unwrap().len()), (later, 1));
    }

    #[tokio::test]
    async fn a_history_that_becomes_damaged_is_set_aside_and_samples_continue() {
        let (store, dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let start = clock::wall();
        let many: Vec<Sample> = (0..20_000).map(|n| sample(start + Duration::from_millis(n))).collect();
        assert!(write(&store, &mut cache, &many).await && !mend(&store, &mut cache).await);
        fixture::history_run(&store, "pragma wal_checkpoint(truncate)").await;
        let file = dir.path().join(crate::store::files::HISTORY_FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[16_384..].fill(0x5a);
        std::fs::write(&file, bytes).unwrap();
        let all = (Wall::from_millis(0), Wall::from_millis(i64::MAX));
        assert!(store.samples(1, all.0, all.1, 30_000).await.is_err());
        assert!(mend(&store, &mut cache).await);
        assert!(write(&store, &mut cache, &[sample(clock::wall())]).await);
        let series = store.series(Id::from_i64(7), None).await.unwrap();
        assert_eq!(store.samples(series[0].id, all.0, all.1, 30_000).await.unwrap().len(), 1);
        let told = fixture::texts(&store, "select data from events where kind = 'history.set_aside'").await;
        assert!(told.len() == 1 && store.history.was_set_aside(), "{told:?}");
    }
}
