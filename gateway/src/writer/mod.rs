//! Writes the engine's decisions to disk, in order and in batches.
//!
//! One transaction of the main database takes everything that is queued: states, events, messages,
//! pinned keys, updates from the tunnels, and the samples as redo. Then the recorder of the history takes the
//! samples, the dashboards are notified, and the dispatcher is woken. Related records ([`Writer::append`] takes those of
//! one turn) are committed together, so that a notification's state and its message never diverge.
//!
//! If the disk is slower than the fleet, newer states overwrite older ones in memory, and samples are
//! dropped and counted. Events and messages are never lost: the monitor waits for room.
//!
//! **A commit that fails** is repeated with its data until it succeeds: a full disk loses only samples.
//! An `fsync` is never repeated: after a failed one, it is unknown which pages are on disk. After any
//! I/O error the connection is therefore closed, and the whole transaction is written again through a
//! new one. The writer does not know the meaning of states.

mod commit;
mod intervals;
mod moved;
mod pending;
mod share;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use fleetgate_engine::messages::{HostSnapshot, Record};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::live_state::{Change, LiveState};
use crate::health::Part;
use crate::health::progress::Component;
use crate::history::{Recorder, Turn};
use crate::notification::Wakeups;
use crate::store::Store;
use moved::Written;
pub use pending::MemoryUpdate;
use pending::{Batch, Pending};

/// Pauses between the attempts of a failing commit: short enough to use a freed disk at once, long
/// enough not to fill the log.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The queue of the records to be written. Cheap to clone.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    pending: Mutex<Pending>,
    written: Mutex<Written>,
    /// The deadline of the next commit moved forward.
    sooner: Notify,
    /// The queue was taken, so a waiting producer can check for room again. One producer waits at most.
    room: Notify,
    closing: CancellationToken,
    ended: CancellationToken,
}

impl Writer {
    /// Starts the writer. `history` takes the samples.
    pub fn start(
        tasks: &mut JoinSet<()>,
        store: Store,
        live: LiveState,
        wakeups: Wakeups,
        history: Recorder,
    ) -> Writer {
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending::default()),
            written: Mutex::default(),
            sooner: Notify::new(),
            room: Notify::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let task = Task { shared: shared.clone(), store, live, wakeups, history };
        tasks.spawn(task.run());
        Writer(shared)
    }

    /// Queues the records of one turn of the monitor, which are committed together. Waits only while so
    /// many events and messages are queued that the disk must have failed.
    pub async fn append(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        while !self.0.has_room() {
            self.0.room.notified().await;
        }
        let sooner = self.0.lock().add(records, clock::now().mono);
        if sooner {
            self.0.sooner.notify_one();
        }
    }

    /// Takes over the states of the rows at a start.
    pub fn know(&self, hosts: &[HostSnapshot]) {
        self.0.written().know(hosts);
    }

    /// Queues an update of a peer from the tunnels. Never waits.
    pub fn memory(&self, update: Option<MemoryUpdate>) {
        let Some(update) = update else { return };
        let now = clock::now();
        let sooner = self.0.lock().learn(update, now);
        if sooner {
            self.0.sooner.notify_one();
        }
    }

    /// Requests a commit, to prove that the database accepts writes. Never waits.
    pub fn nudge(&self) {
        self.0.lock().prove(clock::now().mono);
        self.0.sooner.notify_one();
    }

    /// Writes what is queued and ends. Nothing may be appended afterwards.
    pub async fn finish(&self) {
        self.0.closing.cancel();
        self.0.ended.cancelled().await;
    }
}

/// Commits records at once, in one transaction. Samples and tickets are dropped.
///
/// # Errors
/// Fails when the database refuses the write.
#[cfg(test)]
pub(crate) async fn commit_now(store: &Store, records: Vec<Record>) -> crate::store::Result<()> {
    let mut pending = Pending::default();
    pending.add(records, clock::now().mono);
    let batch = pending.take_all();
    commit::commit(store, &batch, &Written::default().rows(&batch), None).await.map(drop)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no holder panics")
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("no holder panics")
    }

    fn has_room(&self) -> bool {
        self.lock().has_room() || self.closing.is_cancelled()
    }

    /// Waits until a commit is due, or until the writer closes.
    async fn due(&self) {
        loop {
            let due = self.lock().due();
            let wait = due.map(|at| at.since(clock::now().mono));
            if wait == Some(Duration::ZERO) || self.closing.is_cancelled() {
                return;
            }
            tokio::select! {
                () = sleep(wait) => return,
                () = self.sooner.notified() => {}
                () = self.closing.cancelled() => {}
            }
        }
    }
}

/// Sleeps for this long; `None` sleeps for ever.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

struct Task {
    shared: Arc<Shared>,
    store: Store,
    live: LiveState,
    wakeups: Wakeups,
    history: Recorder,
}

impl Task {
    async fn run(self) {
        loop {
            self.shared.due().await;
            let closing = self.shared.closing.is_cancelled();
            let now = clock::now().mono;
            let batch = if closing { self.shared.lock().take_all() } else { self.shared.lock().take(now) };
            self.shared.room.notify_one();
            if !batch.is_empty() {
                self.commit(&batch).await;
            } else if closing {
                break;
            }
        }
        self.shared.ended.cancel();
    }

    /// Begins the turn of one attempt. While the disk fails, no attempt holds up the recorder for longer.
    async fn turn(&self, batch: &Batch) -> Option<Turn> {
        if batch.samples.is_empty() { None } else { Some(self.history.turn().await) }
    }

    /// Repeats until the commit succeeds, or until the gateway stops while the disk refuses writes.
    async fn commit(&self, batch: &Batch) {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build();
        let rows = self.shared.written().rows(batch);
        loop {
            let turn = self.turn(batch).await;
            let error = match commit::commit(&self.store, batch, &rows, turn).await {
                Ok(done) => {
                    if self.live.health().wrote(Part::States, true) {
                        tracing::info!("the database takes writes again; nothing was lost");
                    }
                    self.live.pulse().beat(Component::Store);
                    self.tell(batch, &done);
                    return;
                }
                Err(error) => error,
            };
            metrics::counter!("fleetgate_commit_failures_total").increment(1);
            self.live.health().wrote(Part::States, false);
            if self.shared.closing.is_cancelled() {
                tracing::error!("{} are lost: {error}", batch.describe());
                return;
            }
            tracing::error!(
                "the database takes nothing, {} wait: {error}; is the disk full or read-only?",
                batch.describe()
            );
            tokio::select! {
                () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
                () = self.shared.closing.cancelled() => {}
            }
        }
    }

    fn tell(&self, batch: &Batch, done: &commit::Done) {
        if let Some(newest) = batch.last_check() {
            self.live.checked(newest, clock::wall());
        }
        self.shared.written().changes(batch).into_iter().for_each(|change| self.live.tell(change));
        metrics::counter!("fleetgate_soft_changes_not_listed_total").increment(done.not_listed);
        if let Some(seq) = done.last_event {
            self.live.tell(Change::Event(seq));
        }
        let now = clock::now().mono;
        for (ticket, outcome) in &batch.replies {
            self.live
                .tickets()
                .settle(*ticket, *outcome, now, |(host, service)| batch.service(*host, service));
        }
        if done.messages {
            self.wakeups.notices();
        }
    }
}
