//! Writes the events of rentals that come by the time alone: a preparation or a rental begins, a rental
//! ends, its device is free, a hold lapses.
//!
//! It sleeps until the next of them, but not for long. After a time in which the gateway did not run it writes what came
//! meanwhile, in order and with the true times.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::rental_events::Wakeups;
use crate::store::Store;

/// Longest time until the next look: the clock may be set, and a sleep does not count a suspend. Events of the
/// time are promised within a second. A look at what is due reads three places of indexes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time until the next look: the clock has milliseconds.
const AT_LEAST: Duration = Duration::from_millis(1);
/// Pause after a failure, and between two of many transactions, which lets other writes go first.
const RETRY: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(20);

pub fn start(tasks: &mut JoinSet<()>, store: Store, wakeups: Wakeups, stop: CancellationToken) {
    tasks.spawn(async move {
        while !stop.is_cancelled() {
            let wait = turn(&store, &wakeups).await.unwrap_or_else(|error| {
                tracing::warn!("events of rentals that are due are not written yet: {error}");
                RETRY
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wakeups.rentals() => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

/// Writes what is due, for some rentals. Returns the time until the next turn.
async fn turn(store: &Store, wakeups: &Wakeups) -> crate::store::Result<Duration> {
    let now = clock::wall();
    let announced = store.announce_rentals(now).await?;
    if announced.events > 0 {
        wakeups.written();
    }
    if announced.more {
        return Ok(BREATH);
    }
    let next = announced.next.map_or(LOOK_EVERY, |at| at.since(now));
    Ok(next.clamp(AT_LEAST, LOOK_EVERY))
}
