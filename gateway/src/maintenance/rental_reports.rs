//! Makes the final reports of rentals that are over, also of those that ended while the gateway was off.
//!
//! What a report says, and whose it is, is the matter of the function that makes it. A late turn does no
//! harm: until then the report is computed for each reader.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::ids::IdKind;
use crate::maintenance::steady_clock::SteadyClock;
use crate::store::rentals::reports;
use crate::store::{Store, instance};

/// Interval between two turns.
const EVERY: Duration = Duration::from_secs(60);
/// A larger change of the clock is a step.
const STEP: Duration = Duration::from_secs(1);
/// How long a clock must have run evenly: by one that is ahead a report would be final during the rental.
const TRUSTED: Duration = Duration::from_secs(3_600);
/// How long after the turnaround a report is made. A problem is hard some minutes after its first failure and
/// counts from that, and a flow is recorded when it ends.
const SETTLED: Duration = Duration::from_secs(600);
/// Reports of one turn.
const MOST: i64 = 1_000;
/// Pause after each report, which lets other writes go first.
const BREATH: Duration = Duration::from_millis(20);

/// Starts the task. `freeze` makes and stores the final report of a rental at a moment.
pub fn start<F>(
    tasks: &mut JoinSet<()>,
    store: Store,
    freeze: impl Fn(Store, Id, Wall) -> F + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    tasks.spawn(async move {
        let mut steady = SteadyClock::new(clock::now(), STEP);
        loop {
            let now = clock::now();
            if steady.look(now) >= TRUSTED {
                tokio::select! {
                    outcome = round(&store, now.wall, &freeze) => report(outcome),
                    // A transaction that is dropped is rolled back.
                    () = stop.cancelled() => return,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    });
}

fn report(outcome: crate::store::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("reports of rentals are not final yet: {error}");
    }
}

/// Makes the reports that are due. One that fails does not delay the others. After a restore they wait for its
/// confirmation: the backup may be older than an extension.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn round<F>(
    store: &Store,
    now: Wall,
    freeze: &(impl Fn(Store, Id, Wall) -> F + Sync),
) -> crate::store::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let mut conn = store.reader().await?;
    if instance::awaits_review(&mut conn).await? {
        return Ok(());
    }
    let due = reports::due(&mut conn, now - SETTLED, MOST).await?;
    drop(conn);
    for rental in due {
        if let Err(error) = freeze(store.clone(), rental, now).await {
            let rental = IdKind::Rental.text(rental);
            tracing::warn!("the report of rental {rental} is not final yet: {error:#}");
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}
