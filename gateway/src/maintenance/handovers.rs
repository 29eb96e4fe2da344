//! Stores when rented devices arrived and were handed over. The grants of the rentals are open by then.
//!
//! While the database refuses, the last of each rental waits here; after a kill the gate is judged again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::id::RentalId;
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

/// The queue has one arrival of each rental, and then one handover. A later one is of another device, or by the right
/// clock.
type Waiting = Arc<Mutex<BTreeMap<(RentalId, bool), HandoverStep>>>;

/// Takes arrivals and handovers from the monitor thread.
#[derive(Clone)]
pub struct HandoverLog {
    waiting: Waiting,
    /// Says that something waits. One signal is enough for all of it.
    signal: mpsc::Sender<()>,
}

/// The other end of a log.
struct Queue {
    waiting: Waiting,
    signal: mpsc::Receiver<()>,
}

impl HandoverLog {
    /// Starts the task. It ends when the monitor thread has ended and everything is stored.
    pub fn start(
        tasks: &mut JoinSet<()>,
        store: Store,
        live: LiveState,
        handle: Handle,
        wakeups: Wakeups,
    ) -> HandoverLog {
        let (log, mut queue) = HandoverLog::with_queue();
        tasks.spawn(async move {
            while let Some(step) = queue.next().await {
                let Some(event) = stored(&store, step, &queue).await else { continue };
                wakeups.changed();
                live.tell(Change::Event(event));
                if !queue.is_closed() {
                    // The grant may have reached the tunnel after the handover.
                    let policy = PolicyRows { rentals: [step.rental()].into(), ..PolicyRows::default() };
                    handle.changed(Changes { policy, ..Changes::default() }).await;
                }
            }
        });
        log
    }

    fn with_queue() -> (HandoverLog, Queue) {
        let (waiting, (signal, signalled)) = (Waiting::default(), mpsc::channel(1));
        (HandoverLog { waiting: waiting.clone(), signal }, Queue { waiting, signal: signalled })
    }

    /// Adds what was seen, in the place of the same of the rental that waits. It never waits.
    pub fn add(&self, step: HandoverStep) {
        let key = (step.rental(), matches!(step, HandoverStep::HandedOver(_)));
        self.waiting.lock().expect("no holder panics").insert(key, step);
        // A signal that is there already is for this one, too.
        let _ = self.signal.try_send(());
    }
}

impl Queue {
    /// Takes what was seen. `None`: all is taken, and no other comes.
    async fn next(&mut self) -> Option<HandoverStep> {
        loop {
            if let Some(step) = self.take() {
                return Some(step);
            }
            if self.signal.recv().await.is_none() {
                return self.take();
            }
        }
    }

    fn take(&self) -> Option<HandoverStep> {
        self.waiting.lock().expect("no holder panics").pop_first().map(|(_, step)| step)
    }

    fn is_closed(&self) -> bool {
        self.signal.is_closed()
    }
}

/// Stores what was seen, however long it takes. Returns the number of its event. `None`: it was not stored, or the
/// rental does not wait for it any more.
async fn stored(store: &Store, step: HandoverStep, queue: &Queue) -> Option<i64> {
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

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{FirstContact, HandedOver};
    use fleetgate_engine::time::Wall;

    use super::*;

    fn handover(rental: i64, millis: i64) -> HandoverStep {
        let (rental, host, at) = (Id::from_i64(rental), Id::from_i64(7), Wall::from_millis(millis));
        HandoverStep::HandedOver(HandedOver { rental, host, at })
    }

    #[tokio::test]
    async fn an_arrival_is_stored_before_the_handover() {
        let (log, mut queue) = HandoverLog::with_queue();
        let (rental, host, at) = (Id::from_i64(1), Id::from_i64(7), Wall::from_millis(5));
        let arrival = HandoverStep::Arrived(FirstContact { rental, host, at });
        log.add(handover(1, 9));
        log.add(arrival);
        assert_eq!(queue.next().await, Some(arrival));
        assert_eq!(queue.next().await, Some(handover(1, 9)));
    }

    #[tokio::test]
    async fn the_last_handover_of_each_rental_waits_and_none_is_lost_at_the_end() {
        let (log, mut queue) = HandoverLog::with_queue();
        for n in 0..1_000 {
            log.add(handover(n % 2, n));
        }
        assert_eq!(queue.waiting.lock().unwrap().len(), 2);
        assert_eq!(queue.next().await, Some(handover(0, 998)));
        log.add(handover(5, 5_000));
        drop(log);
        assert!(queue.is_closed());
        assert_eq!(queue.next().await, Some(handover(1, 999)));
        assert_eq!(queue.next().await, Some(handover(5, 5_000)));
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test]
    async fn what_is_added_later_wakes_who_waits() {
        let (log, mut queue) = HandoverLog::with_queue();
        let taken = tokio::spawn(async move { queue.next().await });
        tokio::task::yield_now().await;
        log.add(handover(3, 30));
        assert_eq!(taken.await.unwrap(), Some(handover(3, 30)));
    }
}
