//! The effect of the rentals of devices on their monitoring: kept for devices that are added, changed or restored
//! later.

use super::Monitor;
use crate::id::HostId;
use crate::messages::RentalPhase;
use crate::monitor::host::Host;
use crate::time::Now;

impl Monitor {
    pub(super) fn enter_rental_phase(&mut self, phase: RentalPhase, now: Now) {
        let device = phase.device;
        if phase == RentalPhase::none(device) {
            self.rental_phases.remove(&device);
        } else {
            self.rental_phases.insert(device, phase);
        }
        self.apply_rental_phase(device, now);
    }

    /// Applies what is known to a device.
    pub(super) fn apply_rental_phase(&mut self, device: HostId, now: Now) {
        let known = self.rental_phases.get(&device).cloned();
        let is_quiet = self.hosts.get(&device).is_some_and(Host::is_quiet);
        if known.is_none() && !is_quiet {
            return;
        }
        let phase = known.unwrap_or_else(|| RentalPhase::none(device));
        self.with(device, now, |host, ctx| host.enter_rental_phase(&phase, ctx));
    }
}
