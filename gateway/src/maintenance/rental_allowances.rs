//! Announces what rentals have used of their allowances, and cuts those that ask for it.
//!
//! Records of their flows come each minute, so a look every few seconds adds little to it. After a stop of the
//! gateway the rows say what is still to be done.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::rental_events::Wakeups;
use crate::store::Store;
use crate::store::policy::PolicyRows;

/// Pause between two looks, each of which reads an index without rows.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause between two of many transactions, which lets other writes go first.
const BREATH: Duration = Duration::from_millis(20);

pub fn start(
    tasks: &mut JoinSet<()>,
    (store, handle): (Store, Handle),
    wakeups: Wakeups,
    stop: CancellationToken,
) {
    tasks.spawn(async move {
        while !stop.is_cancelled() {
            let wait = turn(&store, &handle, &wakeups).await.unwrap_or_else(|error| {
                tracing::warn!("what rentals have used of their allowances is not announced yet: {error}");
                LOOK_EVERY
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

/// Announces what is reached, for some rentals. Returns the time until the next turn.
pub(crate) async fn turn(
    store: &Store,
    handle: &Handle,
    wakeups: &Wakeups,
) -> crate::store::Result<Duration> {
    let crossed = store.cross_allowances(clock::wall()).await?;
    if crossed.events > 0 {
        wakeups.written();
    }
    if !crossed.cut.is_empty() {
        let policy = PolicyRows { rentals: crossed.cut, ..PolicyRows::default() };
        handle.changed(Changes { policy, ..Changes::default() }).await;
    }
    Ok(if crossed.more { BREATH } else { LOOK_EVERY })
}
