//! Whether the writes to each database succeed. The writer sets it; `/readyz` and `/healthz` read it.
//! It makes no decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything is healthy until the writer reports a failure. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    states_fail: AtomicBool,
    history_fails: AtomicBool,
}

/// The parts that are written independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The main database: states, events, messages, access.
    States,
    /// The samples.
    History,
}

impl Health {
    /// Records the result of the last write. Returns whether the result changed.
    pub fn wrote(&self, part: Part, well: bool) -> bool {
        self.flag(part).swap(!well, Ordering::Relaxed) == well
    }

    pub fn is_well(&self, part: Part) -> bool {
        !self.flag(part).load(Ordering::Relaxed)
    }

    fn flag(&self, part: Part) -> &AtomicBool {
        match part {
            Part::States => &self.0.states_fail,
            Part::History => &self.0.history_fails,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_so_is_its_end() {
        let health = Health::default();
        assert!(!health.wrote(Part::States, true));
        assert!(health.wrote(Part::States, false) && !health.wrote(Part::States, false));
        assert!(!health.is_well(Part::States) && health.is_well(Part::History));
        assert!(health.wrote(Part::States, true) && health.is_well(Part::States));
    }
}
