//! Removes what has expired: enrolments that no operator approved in time, bookings that were not
//! confirmed in time, aliases of rentals that have rested, old days of traffic, old events of rentals, and stored
//! responses to calls with an `Idempotency-Key`.
//!
//! A late turn does no harm: each reader of an enrolment ends the expired ones first, and so does each
//! write of a booking.

use std::time::Duration;

use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::engine::live_state::{Change, LiveState};
use crate::maintenance::steady_clock::SteadyClock;
use crate::store::policy::PolicyRows;
use crate::store::rentals::{aliases, events as rental_events};
use crate::store::{Store, Tx, forwarded, idempotency, wire_days};

/// Interval between two turns. Enrolments are open for hours, so their event may be a minute late.
const EVERY: Duration = Duration::from_secs(60);
/// A larger change of the clock is a step.
const STEP: Duration = Duration::from_secs(1);
/// How long a clock must have run evenly before rows are removed by it.
const TRUSTED_TO_REMOVE: Duration = Duration::from_secs(3_600);
/// How long a clock must have run evenly before holds are ended by it, as `rental_times` doubts one that was set. Until
/// then a hold that is over occupies nothing, and is not confirmed.
const TRUSTED_TO_END: Duration = Duration::from_secs(300);
/// Pause between two steps of a removal, which lets other writes go first.
const BREATH: Duration = Duration::from_millis(100);

pub fn start(
    tasks: &mut JoinSet<()>,
    store: Store,
    live: LiveState,
    handle: Handle,
    traffic_days: i64,
    stop: CancellationToken,
) {
    tasks.spawn(async move {
        let mut steady = SteadyClock::new(clock::now(), STEP);
        while !stop.is_cancelled() {
            let trusted_for = steady.look(clock::now());
            if let Err(error) = end_enrolments(&store, &live).await {
                tracing::warn!("enrolments that are over stay open: {error}");
            }
            if trusted_for >= TRUSTED_TO_END
                && let Err(error) = end_holds(&store, &live).await
            {
                tracing::warn!("bookings that were not confirmed in time stay: {error}");
            }
            if trusted_for >= TRUSTED_TO_REMOVE
                && let Err(error) = forget_days(&store, traffic_days).await
            {
                tracing::warn!("old days of bytes on the wire stay: {error}");
            }
            if trusted_for >= TRUSTED_TO_REMOVE
                && let Err(error) = forget_forwarded(&store, clock::wall()).await
            {
                tracing::warn!("old hours of what was forwarded stay: {error}");
            }
            if trusted_for >= TRUSTED_TO_REMOVE
                && let Err(error) = free_aliases(&store, &handle, clock::wall()).await
            {
                tracing::warn!("rentals that are long over stay in the filter: {error}");
            }
            if trusted_for >= TRUSTED_TO_REMOVE
                && let Err(error) = Old::RentalEvents.remove(&store, clock::wall()).await
            {
                tracing::warn!("old events of rentals stay: {error}");
            }
            if trusted_for >= TRUSTED_TO_REMOVE
                && let Err(error) = Old::Answers.remove(&store, clock::wall()).await
            {
                tracing::warn!("old answers to calls with an Idempotency-Key stay: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

async fn forget_days(store: &Store, keep: i64) -> crate::store::Result<()> {
    let mut tx = store.begin().await?;
    wire_days::prune(&mut tx, clock::day(), keep).await?;
    tx.commit().await
}

async fn forget_forwarded(store: &Store, now: Wall) -> crate::store::Result<()> {
    let mut tx = store.begin().await?;
    forwarded::prune(&mut tx, now).await?;
    tx.commit().await
}

/// Takes rentals whose aliases have rested out of the policy. A new rental gets such an alias without waiting
/// for this.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn free_aliases(store: &Store, handle: &Handle, now: Wall) -> crate::store::Result<()> {
    let rested = aliases::rested(&mut *store.reader().await?, now).await?;
    if rested.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    aliases::free(&mut tx, &rested, now).await?;
    tx.commit().await?;
    let policy = PolicyRows { rentals: rested.into_iter().collect(), ..PolicyRows::default() };
    handle.changed(Changes { policy, ..Changes::default() }).await;
    Ok(())
}

/// Rows that go by their age, in small steps.
#[derive(Clone, Copy)]
enum Old {
    RentalEvents,
    Answers,
}

impl Old {
    /// Removes some in one step. Returns whether none is left.
    async fn step(self, tx: &mut Tx, now: Wall) -> crate::store::Result<bool> {
        let (gone, at_once) = match self {
            Old::RentalEvents => (rental_events::prune(tx, now).await?, rental_events::PRUNED_AT_ONCE),
            Old::Answers => {
                (idempotency::prune(tx, now - idempotency::KEPT).await?, idempotency::PRUNED_AT_ONCE)
            }
        };
        Ok(gone < u64::from(at_once))
    }

    /// Removes all. A writer waits for one step at most.
    async fn remove(self, store: &Store, now: Wall) -> crate::store::Result<()> {
        loop {
            let mut tx = store.begin().await?;
            let is_last = self.step(&mut tx, now).await?;
            tx.commit().await?;
            if is_last {
                return Ok(());
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}

/// Ends the enrolments that have expired, and notifies the dashboards.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_enrolments(store: &Store, live: &LiveState) -> crate::store::Result<()> {
    let ended = store.expire_enrolments(clock::wall()).await?;
    ended.iter().for_each(|id| live.tell(Change::Enrolment(id.as_i64())));
    if !ended.is_empty() {
        live.tell(Change::Event(store.last_event().await?));
    }
    Ok(())
}

/// Ends the bookings that were not confirmed in time, and notifies the dashboards.
async fn end_holds(store: &Store, live: &LiveState) -> crate::store::Result<()> {
    if store.lapse_bookings(clock::wall()).await? {
        live.tell(Change::Event(store.last_event().await?));
    }
    Ok(())
}
