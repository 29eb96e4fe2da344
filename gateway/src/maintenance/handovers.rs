//! Stores when rented devices arrived and were handed over. The grants of the rentals are open by then.
//!
//! While the database refuses, they wait here; after a kill the gate is judged again.

use std::time::Duration;

use fleetgate_engine::messages::HandoverStep;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::handle::{Changes, Handle};
use crate::engine::live_state::{Change, LiveState};
use crate::rental_events::Wakeups;
use crate::store::policy::PolicyRows;
use crate::store::{Store, rentals};

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Takes arrivals and handovers from the monitor thread.
#[derive(Clone)]
pub struct HandoverLog(mpsc::UnboundedSender<HandoverStep>);

impl HandoverLog {
    /// Starts the task. It ends when the monitor thread has ended and everything is stored.
    pub fn start(
        tasks: &mut JoinSet<()>,
        store: Store,
        live: LiveState,
        handle: Handle,
        wakeups: Wakeups,
    ) -> HandoverLog {
        // Each rental has one of each, so that the queue is bounded by them.
        let (handovers_in, mut handovers) = mpsc::unbounded_channel();
        tasks.spawn(async move {
            while let Some(step) = handovers.recv().await {
                let Some(event) = stored(&store, step, &handovers).await else { continue };
                wakeups.changed();
                live.tell(Change::Event(event));
                if !handovers.is_closed() {
                    // The grant may have reached the tunnel after the handover.
                    let policy = PolicyRows { rentals: [step.rental()].into(), ..PolicyRows::default() };
                    handle.changed(Changes { policy, ..Changes::default() }).await;
                }
            }
        });
        HandoverLog(handovers_in)
    }

    /// Adds what was seen. It never waits.
    pub fn add(&self, step: HandoverStep) {
        let _ = self.0.send(step);
    }
}

/// Stores what was seen, however long it takes. Returns the number of its event. `None`: it was not stored, or the rental
/// does not wait for it any more.
async fn stored(
    store: &Store,
    step: HandoverStep,
    queue: &mpsc::UnboundedReceiver<HandoverStep>,
) -> Option<i64> {
    loop {
        match store_once(store, step).await {
            Ok(event) => return event,
            Err(error) if queue.is_closed() => {
                tracing::warn!("the handover of the rental {} is not stored: {error}", step.rental());
                return None;
            }
            Err(error) => {
                tracing::warn!("the handover of the rental {} is not stored yet: {error}", step.rental());
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn store_once(store: &Store, step: HandoverStep) -> crate::store::Result<Option<i64>> {
    let mut tx = store.begin().await?;
    let event = match step {
        HandoverStep::Arrived(contact) => rentals::shipments::arrived(&mut tx, contact).await?,
        HandoverStep::HandedOver(handover) => rentals::handovers::done(&mut tx, handover).await?,
    };
    tx.commit().await?;
    Ok(event)
}
