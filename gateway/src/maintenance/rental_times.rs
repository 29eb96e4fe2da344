//! Writes the events of rentals that come by the time alone: a preparation or a rental begins, a rental
//! ends, its device is free, a hold lapses.
//!
//! It sleeps until the next of them, but not for long. After a time in which the gateway did not run it writes
//! what came meanwhile, in order and with the true times. A machine without a battery starts with a clock of the
//! past, by which no rental that is over would have begun: until the clock is right, it writes nothing.

use std::time::Duration;

use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::rental_events::Wakeups;
use crate::store::{Store, settings};

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
        let mut times = Times::new(store, wakeups);
        while !stop.is_cancelled() {
            let wait = times.turn(clock::wall()).await.unwrap_or_else(|error| {
                tracing::warn!("events of rentals that are due are not written yet: {error}");
                RETRY
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = times.wakeups.rentals() => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

struct Times {
    store: Store,
    wakeups: Wakeups,
    /// Since the start the clock is behind the greatest time that it has shown before.
    is_behind: bool,
}

impl Times {
    fn new(store: Store, wakeups: Wakeups) -> Times {
        Times { store, wakeups, is_behind: true }
    }

    /// Writes what is due, for some rentals. Returns the time until the next turn.
    async fn turn(&mut self, now: Wall) -> crate::store::Result<Duration> {
        if self.is_behind {
            let floor = settings::clock_floor(&mut *self.store.reader().await?).await?;
            self.is_behind = floor.at().is_some_and(|floor| now < floor);
        }
        if self.is_behind {
            return Ok(LOOK_EVERY);
        }
        let announced = self.store.announce_rentals(now).await?;
        if announced.events > 0 {
            self.wakeups.written();
        }
        if announced.more {
            return Ok(BREATH);
        }
        let next = announced.next.map_or(LOOK_EVERY, |at| at.since(now));
        Ok(next.clamp(AT_LEAST, LOOK_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    async fn events(store: &Store) -> Vec<String> {
        fixture::texts(store, "select kind || ' ' || (at / 1000) from rental_events order by seq").await
    }

    #[tokio::test]
    async fn a_clock_that_starts_behind_announces_and_takes_back_nothing() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, announced_state, announced_at, announce_at)
             values (10, 2, 7, 600000, 1200000, 600000, 0, 0, 0, 'active', 600000, 1200000)",
            "insert into settings (name, value) values ('clock_floor', '700000')",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let mut times = Times::new(store.clone(), Wakeups::default());
        for (second, expected) in [
            (5, vec![]),
            (800, vec![]),
            (1_200, vec!["rental.ended 1200", "rental.closed 1200"]),
            // It is set back while the gateway runs, as a correction.
            (5, vec!["rental.ended 1200", "rental.closed 1200", "rental.changed 5"]),
        ] {
            let wait = times.turn(Wall::from_millis(second * 1_000)).await.unwrap();
            assert_eq!(events(&store).await, expected, "{second}");
            assert!(wait <= LOOK_EVERY, "the clock may be set meanwhile: {wait:?}");
        }
    }
}
