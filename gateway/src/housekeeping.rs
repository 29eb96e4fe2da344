//! Removes what has expired: enrolments that no operator approved in time, old days of traffic, and
//! stored responses to calls with an `Idempotency-Key`.
//!
//! A late turn does no harm: each reader of an enrolment ends the expired ones first.

use std::time::Duration;

use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::live::{Change, Live};
use crate::store::{Store, idempotency, wire_days};

/// Interval between two turns. Enrolments are open for hours, so their event may be a minute late.
const EVERY: Duration = Duration::from_secs(60);
/// Pause between two steps of a removal, which lets other writes go first.
const BREATH: Duration = Duration::from_millis(100);

pub fn start(tasks: &mut JoinSet<()>, store: Store, live: Live, stop: CancellationToken) {
    tasks.spawn(async move {
        while !stop.is_cancelled() {
            if let Err(error) = end_enrolments(&store, &live).await {
                tracing::warn!("enrolments that are over stay open: {error}");
            }
            if let Err(error) = forget_days(&store).await {
                tracing::warn!("old days of bytes on the wire stay: {error}");
            }
            if let Err(error) = forget_answers(&store, clock::wall()).await {
                tracing::warn!("old answers to calls with an Idempotency-Key stay: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

async fn forget_days(store: &Store) -> crate::store::Result<()> {
    let mut tx = store.begin().await?;
    wire_days::prune(&mut tx, clock::day()).await?;
    tx.commit().await
}

/// Removes in small steps: a writer waits for one step at most.
async fn forget_answers(store: &Store, now: Wall) -> crate::store::Result<()> {
    loop {
        let mut tx = store.begin().await?;
        let gone = idempotency::prune(&mut tx, now - idempotency::KEPT).await?;
        tx.commit().await?;
        if gone < u64::from(idempotency::PRUNED_AT_ONCE) {
            return Ok(());
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Ends the enrolments that have expired, and notifies the dashboards.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_enrolments(store: &Store, live: &Live) -> crate::store::Result<()> {
    let ended = store.expire_enrolments(clock::wall()).await?;
    ended.iter().for_each(|id| live.tell(Change::Enrolment(id.as_i64())));
    if !ended.is_empty() {
        live.tell(Change::Event(store.last_event().await?));
    }
    Ok(())
}
