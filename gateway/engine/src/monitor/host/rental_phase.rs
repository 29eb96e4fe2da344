//! The effect of the rentals of a device on its monitoring.
//!
//! While it is prepared for a rental, on its way, or in the maintenance that is planned within its rental, it is in
//! maintenance: its problems and those of its services are suppressed as in a downtime, and what is still bad afterwards is
//! notified then. Its service `rental` is the exception. The gateway itself sets the state of that one.

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;

use crate::messages::{EventKind, RENTAL_SERVICE, RentalPhase};
use crate::monitor::context::Ctx;
use crate::monitor::host::Host;
use crate::monitor::service::Service;

impl Host {
    pub fn enter_rental_phase(&mut self, phase: &RentalPhase, ctx: &mut Ctx<'_>) {
        self.be_quiet(phase.is_quiet, ctx);
        if let Some((status, text)) = &phase.service {
            self.show_rental(*status, text, ctx);
        }
    }

    /// Whether its notifications are suppressed for a rental.
    pub fn is_quiet(&self) -> bool {
        self.notifier.is_quiet()
    }

    /// Begins or ends the time without notifications. Rows come first, because whatever is said follows from them.
    fn be_quiet(&mut self, is_quiet: bool, ctx: &mut Ctx<'_>) {
        let is_new = self.is_quiet() != is_quiet;
        let (id, mut changed) = (self.id(), is_new);
        for service in self.services.iter_mut().filter(|service| !service.is_of_rental()) {
            if service.notifier.is_quiet() != is_quiet {
                service.notifier.set_quiet(is_quiet);
                ctx.record(service.row(id, ctx.now));
                changed = true;
            }
        }
        if is_new {
            self.notifier.set_quiet(is_quiet);
            ctx.record(self.row(ctx.now));
            let (kind, cause) = match is_quiet {
                true => (
                    EventKind::RentalQuietStarted,
                    "prepared for a rental, on its way, or in its planned maintenance: notifications are suppressed",
                ),
                false => (
                    EventKind::RentalQuietEnded,
                    "the maintenance for a rental is over: notifications resume",
                ),
            };
            self.event(kind, cause, String::new(), ctx);
        }
        if changed {
            self.re_evaluate_all(false, ctx);
        }
    }

    fn show_rental(&mut self, status: Status, text: &str, ctx: &mut Ctx<'_>) {
        let Some(i) = self.services.iter().position(Service::is_of_rental) else { return };
        if self.services[i].shows(status, text) {
            return;
        }
        let result = self.services[i].judged(PluginResult::new(status, text, Vec::new()), ctx.now.wall);
        self.record(i, result, RENTAL_SERVICE, (ctx.now.mono, ctx.now.wall), ctx);
    }
}
