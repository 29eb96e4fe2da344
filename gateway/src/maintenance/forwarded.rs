//! Writes what people sent through the gateway. The tunnel thread must not wait, so records beyond the
//! queue are lost and counted.

use std::time::Duration;

use fleetgate_engine::messages::FlowRecord;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, forwarded};

/// Records in the queue: those of a minute in which every operator does a lot.
const QUEUE: usize = 16_384;
/// Records of one transaction. Other writes wait for it.
const AT_ONCE: usize = 256;
/// Pause between two transactions. It gathers the flows of one page.
const EVERY: Duration = Duration::from_secs(2);

/// Takes records from the tunnel thread.
#[derive(Clone)]
pub struct FlowLog(mpsc::Sender<FlowRecord>);

impl FlowLog {
    pub fn start(tasks: &mut JoinSet<()>, store: Store, stop: CancellationToken) -> FlowLog {
        let (records_in, records) = mpsc::channel(QUEUE);
        tasks.spawn(write_all(store, records, stop));
        FlowLog(records_in)
    }

    /// Adds a record. It never waits.
    pub fn add(&self, record: FlowRecord) {
        if self.0.try_send(record).is_err() {
            metrics::counter!("fleetgate_flow_records_lost_total").increment(1);
        }
    }
}

async fn write_all(store: Store, mut records: mpsc::Receiver<FlowRecord>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while !stop.is_cancelled() {
        let free = AT_ONCE - batch.len();
        if batch.is_empty() {
            tokio::select! {
                count = records.recv_many(&mut batch, free) => if count == 0 { return },
                () = stop.cancelled() => {}
            }
        } else if free > 0 {
            while batch.len() < AT_ONCE
                && let Ok(record) = records.try_recv()
            {
                batch.push(record);
            }
        }
        match write(&store, &batch).await {
            Ok(()) => batch.clear(),
            Err(error) => tracing::warn!("what was forwarded is written later: {error}"),
        }
        if records.is_empty() || !batch.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    while let Ok(record) = records.try_recv() {
        batch.push(record);
    }
    if let Err(error) = write(&store, &batch).await {
        tracing::warn!("what was forwarded last is not written: {error}");
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
