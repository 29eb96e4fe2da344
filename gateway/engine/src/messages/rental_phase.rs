//! The effect of the rentals of a device on its monitoring. Values only.

use fleetgate_probes::sample::Status;

use crate::id::HostId;

/// The effect of the rentals of a device on its monitoring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RentalPhase {
    pub device: HostId,
    /// It is prepared for a rental, on its way, or in the planned maintenance of its rental: without notifications.
    pub is_quiet: bool,
    /// The state of its service `rental`, in one line. `None`: no rental concerns it, or has left something on it.
    pub service: Option<(Status, String)>,
}

impl RentalPhase {
    /// A device without rentals.
    pub fn none(device: HostId) -> RentalPhase {
        RentalPhase { device, is_quiet: false, service: None }
    }
}
