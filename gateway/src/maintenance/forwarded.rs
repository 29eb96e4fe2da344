//! Writes what people sent through the gateway. The tunnel thread must not wait: it adds to sums in memory, which are
//! written each second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::messages::FlowRecord;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::store::Store;
use crate::store::forwarded::{self, Sums};

/// Pause between two transactions. It gathers the flows of one page, and leaves the database to others while a scan
/// makes many rows. The stop of the gateway waits for it.
const EVERY: Duration = Duration::from_secs(1);

/// Takes records from the tunnel thread.
#[derive(Clone)]
pub struct FlowLog {
    sums: Arc<Mutex<Sums>>,
    /// Wakes the task.
    news: mpsc::Sender<()>,
}

impl FlowLog {
    /// Starts the task. It ends when the tunnel thread has ended and everything is written.
    pub fn start(tasks: &mut JoinSet<()>, store: Store) -> FlowLog {
        let (news, awaited) = mpsc::channel(1);
        let sums = Arc::default();
        tasks.spawn(write_all(store, Arc::clone(&sums), awaited));
        FlowLog { sums, news }
    }

    /// Adds a record. It waits for no database: the task holds the sums only to take or return them.
    pub fn add(&self, record: &FlowRecord) {
        lock(&self.sums).add(record);
        // A wake-up that waits already is enough.
        let _ = self.news.try_send(());
    }
}

fn lock(sums: &Mutex<Sums>) -> std::sync::MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn write_all(store: Store, sums: Arc<Mutex<Sums>>, mut news: mpsc::Receiver<()>) {
    // What the database has refused. It is written before what came later.
    let mut refused = Sums::default();
    while !refused.is_empty() || news.recv().await.is_some() {
        let batch = if refused.is_empty() { std::mem::take(&mut *lock(&sums)) } else { refused };
        refused = match write(&store, &batch).await {
            Ok(()) => Sums::default(),
            Err(error) if news.is_closed() => {
                return tracing::warn!(
                    "what was forwarded last is lost, because the database refuses it: {error}"
                );
            }
            Err(error) => {
                tracing::warn!("what was forwarded is not written yet: {error}");
                batch
            }
        };
        if !news.is_closed() {
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn write(store: &Store, batch: &Sums) -> crate::store::Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    forwarded::add(&mut tx, batch).await?;
    tx.commit().await
}
