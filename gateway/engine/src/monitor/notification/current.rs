//! Says what suppresses the notifications of a checkable at a moment, for a caller outside.
//!
//! The store answers the same questions from its rows. Both must give the same answers.

use crate::messages::{CheckableId, SuppressReason};
use crate::monitor::Monitor;
use crate::monitor::host::Host;
use crate::monitor::notification::records::{host_scene, surroundings};
use crate::monitor::service::Service;
use crate::time::Now;

/// The answers about one checkable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Why a problem that was notified before is suppressed now.
    pub suppressed: Option<SuppressReason>,
    /// Whether it is ok and needs no later notification.
    pub over: bool,
    pub acknowledged: bool,
}

impl Monitor {
    /// `None`: there is no such host or service.
    pub fn current(&self, of: &CheckableId, now: Now) -> Option<Current> {
        let host = self.hosts.get(&of.host)?;
        let Some(service) = of.service.as_deref() else { return Some(host.current(now)) };
        host.position(service).map(|i| host.current_service(&host.services[i], now))
    }
}

impl Host {
    fn current(&self, now: Now) -> Current {
        let scene = host_scene(&self.spec, &self.windows, self.silence(), now);
        Current {
            suppressed: self.notifier.suppression(&self.track, &scene),
            over: self.notifier.is_over(&self.track),
            acknowledged: self.notifier.is_acknowledged(),
        }
    }

    fn current_service(&self, service: &Service, now: Now) -> Current {
        let of = surroundings(&self.spec, &self.windows, self.silence_over_services(), &self.notifier);
        Current {
            suppressed: service.suppression(of, now),
            over: service.notifier.is_over(&service.track),
            acknowledged: service.notifier.is_acknowledged(),
        }
    }
}
