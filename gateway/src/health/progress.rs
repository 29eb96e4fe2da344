//! The time of the last round of each component that must never hang.
//!
//! It makes no decisions: `watchdog.rs` examines the times, and `/healthz` shows the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetgate_engine::time::Mono;

use crate::clock;

/// A component whose standstill would look as if there were no problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The monitor's thread: checks and states.
    Scheduler,
    /// The writer: a commit is its round.
    Store,
    /// The dispatcher, which chooses the contacts to notify.
    Router,
    /// The delivery, which delivers.
    Outbox,
}

impl Component {
    pub const ALL: [Component; 4] =
        [Component::Scheduler, Component::Store, Component::Router, Component::Outbox];

    /// The name used by `/healthz` and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Component::Scheduler => "scheduler",
            Component::Store => "writer",
            Component::Router => "router",
            Component::Outbox => "outbox",
        }
    }
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Default)]
struct Inner {
    beats: [AtomicU64; Component::ALL.len()],
    /// One bit for each component that hangs.
    hung: AtomicU64,
}

impl Progress {
    /// Records that a round is finished.
    pub fn beat(&self, organ: Component) {
        self.0.beats[organ as usize].store(clock::now().mono.as_nanos(), Ordering::Relaxed);
    }

    pub fn last(&self, organ: Component) -> Mono {
        Mono::from_nanos(self.0.beats[organ as usize].load(Ordering::Relaxed))
    }

    /// Stores the components that hang. Returns whether they changed.
    pub fn found(&self, hung: &[Component]) -> bool {
        let bits = hung.iter().fold(0, |bits, organ| bits | 1 << *organ as u64);
        self.0.hung.swap(bits, Ordering::Relaxed) != bits
    }

    pub fn hangs(&self, organ: Component) -> bool {
        self.0.hung.load(Ordering::Relaxed) & 1 << organ as u64 != 0
    }
}
