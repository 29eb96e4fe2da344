//! Lets rentals whose devices are not handed over in time get other ones.
//!
//! Which rentals those are, and which devices they get, is the matter of the function that gives them. A late turn does
//! no harm: until then a rental is delayed.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::maintenance::steady_clock::SteadyClock;

/// Interval between two turns. The shortest delay is a minute.
const EVERY: Duration = Duration::from_secs(15);
/// A larger change of the clock is a step.
const STEP: Duration = Duration::from_secs(1);
/// How long a clock must have run evenly, as `rental_times` doubts one that was set. After a start the checks of all
/// devices have results by then.
const TRUSTED: Duration = Duration::from_secs(300);

/// Starts the task. `turn` gives other devices to the rentals that are due.
pub fn start<F>(
    tasks: &mut JoinSet<()>,
    turn: impl Fn() -> F + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    tasks.spawn(async move {
        let mut steady = SteadyClock::new(clock::now(), STEP);
        while !stop.is_cancelled() {
            if steady.look(clock::now()) >= TRUSTED
                && let Err(error) = turn().await
            {
                tracing::warn!("delayed rentals get no other devices now: {error:#}");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
}
