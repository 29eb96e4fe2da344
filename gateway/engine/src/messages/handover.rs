//! The messages about rented devices that are handed over. Values only.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::{HostId, RentalId};
use crate::time::Wall;

/// The conditions for handing over a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateRule {
    /// The names of services. `None`: all of the device.
    pub services: Option<BTreeSet<String>>,
    /// For how long the device must have been up, and these services OK. Zero: now.
    pub ok_for: Duration,
}

impl GateRule {
    /// For how long they must be up and OK when nothing says it.
    pub const USUAL_OK_FOR: Duration = Duration::from_secs(300);

    /// Returns the conditions for a device when nothing says them.
    pub const fn usual() -> GateRule {
        GateRule { services: None, ok_for: GateRule::USUAL_OK_FOR }
    }

    pub fn concerns(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(service))
    }
}

/// A rental that begins when its device is handed over.
#[derive(Clone, Debug, PartialEq)]
pub struct HandoverSpec {
    pub rental: RentalId,
    pub host: HostId,
    /// The window of the rental.
    pub from: Wall,
    pub until: Wall,
    /// `None`: the state of the device does not matter.
    pub rule: Option<GateRule>,
    /// The device is set ready, is not away, and needs nothing to be done for renters.
    pub is_ready: bool,
    /// The device is blocked in these times `[from, until)`.
    pub blocks: Vec<(Wall, Wall)>,
    /// `None`: it is not handed over.
    pub handed_over_at: Option<Wall>,
    pub arrival: Arrival,
}

/// Whether a device is where its renters use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// It is mounted there, or was heard from there.
    #[default]
    Done,
    /// It is shipped, and has not left.
    NotDispatched,
    /// It has left, and was not heard from since.
    Awaited { dispatched_at: Wall },
}

/// A shipped device that was heard from for the first time after it had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstContact {
    pub rental: RentalId,
    pub host: HostId,
    pub at: Wall,
}

/// The view of the monitor on the device of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverStep {
    Arrived(FirstContact),
    HandedOver(HandedOver),
}

impl HandoverStep {
    pub const fn rental(self) -> RentalId {
        match self {
            HandoverStep::Arrived(contact) => contact.rental,
            HandoverStep::HandedOver(handover) => handover.rental,
        }
    }
}

/// A device that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    pub rental: RentalId,
    pub host: HostId,
    pub at: Wall,
}
