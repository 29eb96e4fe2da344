//! The events of rentals, on their way to the programs that subscribed to them.
//!
//! ```text
//! calls, and the time ─▶ rental_events ─▶ subscription_deliveries ─▶ webhooks
//! ```
//!
//! They are no notifications: nothing is grouped, superseded or suppressed, and each event is one call.
//! What stands between two arrows is in the database, so a kill repeats what was in flight, and loses
//! nothing.

mod delivery;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::Notify;

pub use delivery::{Parts, SubscriptionTiming, start};

/// Wakes the tasks that have work. Cheap to clone; without a listener it has no effect.
#[derive(Clone, Default)]
pub struct Wakeups(Arc<Signals>);

#[derive(Default)]
struct Signals {
    times: Notify,
    phases: Notify,
    delivery: Notify,
}

impl Wakeups {
    /// Signals that rentals or subscriptions have changed.
    pub fn changed(&self) {
        self.0.times.notify_one();
        self.written();
    }

    /// Signals that events were written.
    pub fn written(&self) {
        self.0.phases.notify_one();
        self.0.delivery.notify_one();
    }

    /// Waits until rentals have changed.
    pub async fn rentals(&self) {
        self.0.times.notified().await;
    }

    /// Waits until rentals have changed, by a call or by the time.
    pub async fn phases(&self) {
        self.0.phases.notified().await;
    }

    /// Waits until there may be something to deliver.
    async fn deliveries(&self) {
        self.0.delivery.notified().await;
    }
}
