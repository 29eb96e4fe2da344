//! Whether the writes to each database succeed, whether the disk has room, and whether the clock is believed. The
//! writer, the recorder of the history and the clock watch set it; `/readyz`, `/healthz` and the overview read it. It
//! makes no decisions.

mod clock_problem;
pub mod memory;
pub mod progress;
mod restore_problem;
mod space;
pub mod telemetry;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub use clock_problem::ClockProblem;
pub use restore_problem::{RESTORE_CONFIRMED, restore_problem};
pub use space::Space;

/// Everything is healthy until the writer reports a failure. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    states_fail: AtomicBool,
    history_fails: AtomicBool,
    clock: Mutex<Option<ClockProblem>>,
    space: Mutex<Space>,
}

/// The parts that are written independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The main database: states, events, messages, access.
    States,
    /// The blocks of samples.
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

    /// Records what is wrong with the clock. Returns whether that changed.
    pub fn clock_is(&self, problem: Option<ClockProblem>) -> bool {
        std::mem::replace(&mut *self.0.clock.lock().expect("no holder panics"), problem) != problem
    }

    pub fn clock_problem(&self) -> Option<ClockProblem> {
        *self.0.clock.lock().expect("no holder panics")
    }

    /// Records how much room the disk has. Returns whether that changed.
    pub fn space_is(&self, space: Space) -> bool {
        std::mem::replace(&mut *self.0.space.lock().expect("no holder panics"), space) != space
    }

    pub fn space(&self) -> Space {
        *self.0.space.lock().expect("no holder panics")
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

    #[test]
    fn the_disk_has_room_until_a_look_says_otherwise() {
        let health = Health::default();
        assert!(!health.space_is(Space::Enough));
        assert!(health.space_is(Space::Low) && !health.space_is(Space::Low));
        assert_eq!(health.space(), Space::Low);
    }
}
