//! Writes what people sent through the gateway. The tunnel thread must not wait, so records beyond the
//! queue are lost and counted.

use std::time::Duration;

use fleetgate_engine::messages::FlowRecord;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::store::{Store, forwarded};

/// Records in the queue: those of a minute in which every operator does a lot.
const QUEUE: usize = 16_384;
/// Pause between two transactions. It gathers the flows of one page, and leaves the database to others while
/// a scan makes as many records as the queue holds. The stop of the gateway waits for it.
const EVERY: Duration = Duration::from_secs(1);

/// Takes records from the tunnel thread.
#[derive(Clone)]
pub struct FlowLog(mpsc::Sender<FlowRecord>);

impl FlowLog {
    /// Starts the task. It ends when the tunnel thread has ended and everything is written.
    pub fn start(tasks: &mut JoinSet<()>, store: Store) -> FlowLog {
        let (records_in, records) = mpsc::channel(QUEUE);
        tasks.spawn(write_all(store, records));
        FlowLog(records_in)
    }

    /// Adds a record. It never waits.
    pub fn add(&self, record: FlowRecord) {
        if self.0.try_send(record).is_err() {
            metrics::counter!("fleetgate_flow_records_not_written_total").increment(1);
        }
    }
}

async fn write_all(store: Store, mut records: mpsc::Receiver<FlowRecord>) {
    let mut batch = Vec::new();
    let mut failed = 0;
    while !batch.is_empty() || records.recv_many(&mut batch, QUEUE).await > 0 {
        match write(&store, &batch).await {
            Ok(()) => {
                batch.clear();
                failed = 0;
            }
            Err(error) => {
                tracing::warn!("what was forwarded is not written yet: {error}");
                failed += 1;
            }
        }
        if failed > 0 && records.is_closed() {
            return tracing::warn!("what was forwarded last is lost: the database refuses it");
        }
        if !records.is_closed() {
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn write(store: &Store, batch: &[FlowRecord]) -> crate::store::Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    forwarded::add(&mut tx, batch).await?;
    tx.commit().await
}
