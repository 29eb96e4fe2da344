//! Records when the gateway did not run.

use fleetgate_engine::time::{Now, Wall};

use crate::maintenance::stops::{Stop, Stops};
use crate::store::{Store, intervals};

pub(super) struct StopRecords {
    stops: Stops,
}

impl StopRecords {
    /// `ran_until`: see [`Stops::new`].
    pub fn new(ran_until: Option<Wall>, now: Now) -> StopRecords {
        StopRecords { stops: Stops::new(ran_until, now) }
    }

    /// An admin has accepted the clock: see [`Stops::accept`].
    pub fn accept(&mut self) {
        self.stops.accept();
    }

    /// A stop that cannot be written now is written at a later look.
    pub async fn look(&mut self, store: &Store, now: Now) {
        let Some(stop) = self.stops.look(now) else { return };
        match record(store, stop).await {
            Ok(()) => self.stops.recorded(),
            Err(error) => tracing::warn!("when the gateway did not run is not recorded yet: {error}"),
        }
    }

    /// See [`Stops::looked`].
    pub fn looked(&mut self, now: Now) {
        self.stops.looked(now);
    }
}

async fn record(store: &Store, stop: Stop) -> crate::store::Result<()> {
    let mut tx = store.begin().await?;
    intervals::add_stop(&mut tx, stop.from, stop.until).await?;
    tx.commit().await
}
