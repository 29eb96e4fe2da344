//! The recorder of samples: from the commit of a result to blocks that are kept for years.
//!
//! A commit writes its samples as redo into the transaction of the states, and they stay in memory. Once an hour a
//! generation of them is sealed into blocks of `history.db`, and its redo is removed (`sealer.rs`). Days that are over
//! are rolled up, and what is old is removed (`upkeep.rs`). A broken or missing `history.db` therefore holds up no
//! result, and a kill loses no sample of a committed one: the start replays the redo.
//!
//! `store/history` knows the tables and the steps; here is when each of them runs. Nothing here decides about states.

mod believed;
pub mod disk;
mod fault;
pub mod forecasts;
mod hot;
mod read;
mod sealer;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod turn;
mod upkeep;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use fleetgate_engine::history::packed::read_redo;
use fleetgate_engine::history::query::Kept;
use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_engine::time::{Mono, Wall};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::health::Health;
use crate::store::history::read::{Gone, Noted};
use crate::store::history::redo;
use crate::store::history::series::{self, SeriesCache};
use crate::store::{Error, Result, Store};
use believed::Believed;
pub use fault::{At, Fault};
use hot::Hot;
pub use turn::Turn;

/// Bytes of redo that may wait. At 100,000 series and one sample a minute, a generation has 60 MB, so that sealing may
/// fail for some hours before graphs have a gap.
const REDO_BYTES: u64 = 256 * 1024 * 1024;

/// Counts values that the history lacks.
pub fn dropped(why: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!("fleetgate_samples_dropped_total", "why" => why).increment(count);
    }
}

/// How long each tier is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Samples as they were measured.
    pub raw: Duration,
    pub five_minutes: Duration,
    pub hours: Duration,
    /// `None` keeps the buckets of a day for ever.
    pub days: Option<Duration>,
}

impl Keep {
    /// Returns the same as ages, from which a query chooses its tier.
    pub fn kept(&self) -> Kept {
        Kept {
            raw: seconds(self.raw),
            five_minutes: seconds(self.five_minutes),
            hours: seconds(self.hours),
            days: self.days.map(seconds),
        }
    }
}

fn seconds(time: Duration) -> Second {
    Second::try_from(time.as_secs()).unwrap_or(Second::MAX)
}

fn begin_of_day(at: Second) -> Second {
    at.div_euclid(DAY).saturating_mul(DAY)
}

/// How long a day whose samples are not taken any more stays. A late sample of its last minutes is sealed within an hour,
/// and rolled up by the upkeep an hour later.
const ROLLED_UP_WITHIN: Second = 3 * HOUR;

/// Returns the begin of the first day whose samples are not removed at this time. A day is rolled up as a whole, and
/// removed as a whole.
fn first_kept(keep: &Keep, now: Second) -> Second {
    begin_of_day(now.saturating_sub(seconds(keep.raw)).saturating_sub(ROLLED_UP_WITHIN))
}

/// Returns the whole seconds of a time, as samples have them.
fn second(at: Wall) -> Second {
    at.as_millis().div_euclid(1_000)
}

/// What the recorder holds and has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of samples in memory, and of their redo.
    pub hot_bytes: u64,
    pub redo_bytes: u64,
    /// Blocks that were damaged and are a gap.
    pub damaged_blocks: i64,
    /// How much of an older history is converted. `None`: none is being converted.
    pub converting_percent: Option<u8>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    store: Store,
    keep: Keep,
    /// Held by a commit from before its redo until its samples are in memory, so that a generation that ended has all
    /// of its samples in both.
    numbers: Arc<tokio::sync::Mutex<Numbers>>,
    hot: RwLock<Hot>,
    redo_bytes: AtomicU64,
    most_redo_bytes: u64,
    /// The same, or less while the disk is nearly full.
    redo_bound: AtomicU64,
    believed: Mutex<Believed>,
    /// One generation is sealed at a time.
    sealing: tokio::sync::Mutex<()>,
    damaged_blocks: AtomicI64,
    gone: Mutex<Gone>,
    converting: Mutex<Option<u8>>,
    fault: Option<Fault>,
}

/// The numbers that a commit needs.
struct Numbers {
    cache: SeriesCache,
    /// The generation of the next commit, and when it began.
    generation: i64,
    begun: Mono,
}

impl Recorder {
    /// Opens the recorder, and replays the redo of samples that no block has yet. It reads no block.
    ///
    /// # Errors
    /// Fails when `fleetgate.db` cannot be read.
    pub async fn open(store: Store, keep: Keep) -> Result<Recorder> {
        Recorder::open_with(store, keep, (REDO_BYTES, None)).await
    }

    async fn open_with(
        store: Store,
        keep: Keep,
        (most_redo_bytes, fault): (u64, Option<Fault>),
    ) -> Result<Recorder> {
        let begun = clock::now();
        let Replayed { cache, hot, newest, bytes } = replay(&store).await?;
        let noted = noted(&store).await;
        let noted_at = noted.believed.map(|at| Wall::from_millis(at.saturating_mul(1_000)));
        let numbers = Numbers { cache, generation: newest + 1, begun: begun.mono };
        Ok(Recorder(Arc::new(Shared {
            store,
            keep,
            numbers: Arc::new(tokio::sync::Mutex::new(numbers)),
            hot: RwLock::new(hot),
            redo_bytes: AtomicU64::new(bytes),
            most_redo_bytes,
            redo_bound: AtomicU64::new(most_redo_bytes),
            believed: Mutex::new(Believed::new(begun, noted_at)),
            sealing: tokio::sync::Mutex::new(()),
            damaged_blocks: AtomicI64::new(0),
            gone: Mutex::new(noted.gone),
            converting: Mutex::new(None),
            fault,
        })))
    }

    /// Starts the tasks that seal, roll up, remove and convert.
    pub fn start(&self, tasks: &mut JoinSet<()>, health: Health, stop: CancellationToken) {
        tasks.spawn(sealer::run(self.clone(), health.clone(), stop.clone()));
        tasks.spawn(upkeep::run(self.clone(), health.clone(), stop.clone()));
        tasks.spawn(upkeep::convert(self.clone(), health, stop));
    }

    /// Begins a turn for a commit with samples. It excludes others until it is dropped.
    pub async fn turn(&self) -> Turn {
        let numbers = Arc::clone(&self.0.numbers).lock_owned().await;
        Turn::new(self.clone(), numbers)
    }

    /// Sets how much redo may wait. `None`: as much as usual.
    fn bound_redo(&self, bytes: Option<u64>) {
        let most = self.0.most_redo_bytes;
        self.0.redo_bound.store(bytes.map_or(most, |bytes| bytes.min(most)), Ordering::Relaxed);
    }

    pub fn status(&self) -> Status {
        Status {
            hot_bytes: self.hot().bytes() as u64,
            redo_bytes: self.0.redo_bytes.load(Ordering::Relaxed),
            damaged_blocks: self.0.damaged_blocks.load(Ordering::Relaxed),
            converting_percent: *self.0.converting.lock().expect("no holder panics"),
        }
    }

    fn hot(&self) -> RwLockReadGuard<'_, Hot> {
        self.0.hot.read().expect("no holder panics")
    }

    fn hot_mut(&self) -> RwLockWriteGuard<'_, Hot> {
        self.0.hot.write().expect("no holder panics")
    }

    /// Returns the time by which samples are rolled up and removed.
    fn believed(&self) -> Second {
        second(self.0.believed.lock().expect("no holder panics").wall(clock::now()))
    }

    fn time_to_note(&self) -> Second {
        second(self.0.believed.lock().expect("no holder panics").next_note(clock::now()))
    }

    fn gone(&self) -> Gone {
        *self.0.gone.lock().expect("no holder panics")
    }

    /// Returns how long each tier is kept, as ages at this time. What was removed while it was kept for a shorter time is
    /// not there again.
    pub fn kept(&self, now: Second) -> Kept {
        let (kept, gone) = (self.0.keep.kept(), self.gone());
        // What a clock that was ahead has removed says nothing of the present before it is set back, see `expire`.
        let known = |hour: i64| Some(hour.saturating_mul(HOUR)).filter(|at| *at <= now).unwrap_or_default();
        let since = |hour: i64| now.saturating_sub(known(hour)).max(0);
        let days = kept.days.map(|days| days.min(since(gone.days)));
        Kept {
            raw: kept.raw.min(since(gone.raw)),
            five_minutes: kept.five_minutes.min(since(gone.five_minutes)),
            hours: kept.hours.min(since(gone.hours)),
            days: days.or_else(|| (known(gone.days) > 0).then(|| since(gone.days))),
        }
    }

    /// Returns the second before which samples are not taken: the begin of a day, because a day is rolled up as a whole.
    fn raw_cut(&self) -> Second {
        begin_of_day(self.believed().saturating_sub(seconds(self.0.keep.raw)))
    }

    /// Returns the first day whose samples are not removed by now.
    fn first_day(&self) -> i64 {
        first_kept(&self.0.keep, self.believed()).div_euclid(DAY)
    }

    /// Ends here if a test wants it to.
    fn reach(&self, at: At) -> Result<()> {
        match &self.0.fault {
            Some(ends) if ends(at) => Err(Error::WorkerCrashed),
            _ => Ok(()),
        }
    }
}

/// Returns what the upkeep of an earlier run has noted. A history that cannot be read has nothing to lose.
async fn noted(store: &Store) -> Noted {
    store.noted().await.unwrap_or_else(|error| {
        tracing::warn!("the notes of the history cannot be read: {error}");
        Noted::default()
    })
}

struct Replayed {
    cache: SeriesCache,
    hot: Hot,
    /// The newest generation, 0 if there is none.
    newest: i64,
    bytes: u64,
}

async fn replay(store: &Store) -> Result<Replayed> {
    let (mut cache, mut hot) = (SeriesCache::default(), Hot::default());
    let (mut newest, mut damaged) = (0_i64, 0_u64);
    let mut conn = store.reader().await?;
    series::load(&mut conn, &mut cache).await?;
    let bytes = redo::replay(&mut conn, |generation, data| {
        newest = newest.max(generation);
        match read_redo(data) {
            Ok(samples) => {
                for (series, point) in samples {
                    hot.push(generation, series, cache.kind(series), point);
                }
            }
            Err(_) => damaged += 1,
        }
    })
    .await?;
    if damaged > 0 {
        tracing::error!("{damaged} rows of unsealed samples in fleetgate.db are damaged; graphs have a gap");
    }
    Ok(Replayed { cache, hot, newest, bytes })
}
