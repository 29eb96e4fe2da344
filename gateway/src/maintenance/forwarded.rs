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

    /// Adds a record. It waits for no database: the task holds the sums only to take them.
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

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::FlowEnd;

    use super::*;
    use crate::store::fixture;

    fn record(port: u16) -> FlowRecord {
        fixture::flow_record(port, 7_200_000, Some(FlowEnd::Closed))
    }

    /// Ends the task, and returns ports and bytes that were written.
    async fn written(log: FlowLog, mut tasks: JoinSet<()>, store: &Store) -> Vec<(i64, u64)> {
        drop(log);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let mut conn = store.reader().await.unwrap();
        let rows = forwarded::newest(&mut conn, forwarded::Filter::default(), 10).await.unwrap();
        rows.iter().map(|row| (row.port, row.sent.bytes)).collect()
    }

    #[tokio::test]
    async fn what_was_added_last_is_written_at_the_end() {
        let (store, _dir) = fixture::store().await;
        let mut tasks = JoinSet::new();
        let log = FlowLog::start(&mut tasks, store.clone());
        for port in [22, 80, 22] {
            log.add(&record(port));
        }
        assert_eq!(written(log, tasks, &store).await, [(22, 200), (80, 100)]);
    }

    #[tokio::test]
    async fn what_the_database_refuses_is_written_later_with_what_came_meanwhile() {
        let (store, _dir) = fixture::store().await;
        let refuse = "create trigger refuse before insert on forwarded begin select raise(fail, 'no'); end";
        fixture::run(&store, refuse, &[]).await;
        let mut tasks = JoinSet::new();
        let log = FlowLog::start(&mut tasks, store.clone());
        log.add(&record(22));
        // The task takes it, is refused and pauses.
        while !lock(&log.sums).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        log.add(&record(22));
        log.add(&record(80));
        fixture::run(&store, "drop trigger refuse", &[]).await;
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(written(log, tasks, &store).await, [(22, 200), (80, 100)]);
    }
}
