//! Stores when rented devices were handed over. The grants of the rentals are open by then.
//!
//! While the database refuses, a handover waits here; after a kill the gate is judged again.

use std::time::Duration;

use fleetgate_engine::messages::HandedOver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::handle::{Changes, Handle};
use crate::engine::live_state::{Change, LiveState};
use crate::rental_events::Wakeups;
use crate::store::policy::PolicyRows;
use crate::store::{Store, rentals};

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Takes handovers from the monitor thread.
#[derive(Clone)]
pub struct HandoverLog(mpsc::UnboundedSender<HandedOver>);

impl HandoverLog {
    /// Starts the task. It ends when the monitor thread has ended and everything is stored.
    pub fn start(
        tasks: &mut JoinSet<()>,
        store: Store,
        live: LiveState,
        handle: Handle,
        wakeups: Wakeups,
    ) -> HandoverLog {
        // Each rental has one, so that the queue is bounded by them.
        let (handovers_in, mut handovers) = mpsc::unbounded_channel();
        tasks.spawn(async move {
            while let Some(handover) = handovers.recv().await {
                let Some(event) = stored(&store, handover, &handovers).await else { continue };
                wakeups.changed();
                live.tell(Change::Event(event));
                if !handovers.is_closed() {
                    // The grant may have reached the tunnel after the handover.
                    let policy = PolicyRows { rentals: [handover.rental].into(), ..PolicyRows::default() };
                    handle.changed(Changes { policy, ..Changes::default() }).await;
                }
            }
        });
        HandoverLog(handovers_in)
    }

    /// Adds a handover. It never waits.
    pub fn add(&self, handover: HandedOver) {
        let _ = self.0.send(handover);
    }
}

/// Stores a handover, however long it takes. Returns the number of its event. `None`: it was not stored, or the rental
/// does not wait for it any more.
async fn stored(
    store: &Store,
    handover: HandedOver,
    queue: &mpsc::UnboundedReceiver<HandedOver>,
) -> Option<i64> {
    loop {
        match store_once(store, handover).await {
            Ok(event) => return event,
            Err(error) if queue.is_closed() => {
                tracing::warn!("the handover of the rental {} is not stored: {error}", handover.rental);
                return None;
            }
            Err(error) => {
                tracing::warn!("the handover of the rental {} is not stored yet: {error}", handover.rental);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn store_once(store: &Store, handover: HandedOver) -> crate::store::Result<Option<i64>> {
    let mut tx = store.begin().await?;
    let event = rentals::handovers::done(&mut tx, handover).await?;
    tx.commit().await?;
    Ok(event)
}
